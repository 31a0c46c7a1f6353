"""The connection to opensandbox-server that provisioner, discoverer and channels of a session share."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import ssl
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from sandboxcore._forwarding import dial
from sandboxcore.errors import SandboxUnavailableError, UsageError
from sandboxcore_kubernetes.errors import ApiError, sandbox_error

if TYPE_CHECKING:
    import aiohttp
    from opensandbox import SandboxManager
    from opensandbox.config import ConnectionConfig
    from sandboxcore_kubernetes import Cluster
    from sandboxcore_kubernetes.streams import ChannelStream

    from ._config import OpenSandboxConfig

__all__ = ("EXECD_PORT", "ServerConnection")

EXECD_PORT = 44772
_PIPE_BYTES = 256 * 1024


class ServerConnection:
    """Connects when it is first needed, by itself or through the cluster."""

    def __init__(self, config: OpenSandboxConfig) -> None:
        self.config = config
        self._gate = asyncio.Lock()
        self._sdk: ConnectionConfig | None = None
        self._manager: SandboxManager | None = None
        self._transport: Any = None
        self._http: aiohttp.ClientSession | None = None
        self._cluster: Cluster | None = None
        self._forward: asyncio.Server | None = None
        self.domain = config.domain or os.environ.get("OPEN_SANDBOX_DOMAIN") or "localhost:8080"
        self.read_buffer = bytearray(_PIPE_BYTES)
        #: Streams into sandboxes whose connections are there.
        self.streams: set[ChannelStream] = set()
        self._execds: dict[str, tuple[str, dict[str, str]]] = {}

    @property
    def through_server(self) -> bool:
        """Whether sandboxes are reached through the server."""
        return self.config.use_server_proxy or self.config.access == "port-forward"

    @property
    def api_key(self) -> str | None:
        """The key that the server wants."""
        given = self.config.api_key
        return given.get_secret_value() if given is not None else os.environ.get("OPEN_SANDBOX_API_KEY")

    @property
    def request_options(self) -> dict[str, Any]:
        """What each request of the session for WebSockets is given besides; a port forward is on this machine."""
        proxy = self.config.proxy if self.config.access == "direct" else None
        return {} if proxy is None else {"proxy": proxy}

    @property
    def _sandbox_headers(self) -> dict[str, str]:
        """The server's headers where it is the server that requests for sandboxes go to; nobody else may read them."""
        return dict(self.config.headers) if self.through_server else {}

    @functools.cached_property
    def _verify(self) -> ssl.SSLContext | bool:
        """What certificates are checked with: the system's, and those of ``ca_file``.

        Raises:
            UsageError: The file has none.
        """
        path = self.config.ca_file
        if path is None:
            return True
        context = ssl.create_default_context()
        try:
            context.load_verify_locations(path)
        except OSError as error:  # which an error of its content is, too
            hint = "it must have certificates in PEM form"
            raise UsageError(f"ca_file {path}: {error.strerror or error}", hint=hint) from error
        return context

    async def sdk(self) -> ConnectionConfig:
        """Return the SDK's configuration, with one transport for all that is done with it.

        Raises:
            UsageError: The SDK is not installed, or the cluster can't be found.
            ApiError: The cluster refuses.
        """
        async with self._gate:
            if self._sdk is None:
                if self.config.access == "port-forward":
                    await self._forward_port()
                self._sdk = self._configure()
            return self._sdk

    def _configure(self) -> ConnectionConfig:
        try:
            from opensandbox.config import ConnectionConfig
            from opensandbox.transport import RetryAsyncTransport, RetryPolicy
        except ImportError as error:
            raise UsageError("mode server needs the SDK: pip install opensandbox") from error
        import httpx

        options: dict[str, Any] = {
            "domain": self.domain,
            "protocol": self.config.protocol,
            "request_timeout": timedelta(seconds=self.config.create_timeout),
            "headers": self._sandbox_headers,
            "use_server_proxy": self.through_server,
            "disable_metrics": True,
        }
        if self.api_key is not None:
            options["api_key"] = self.api_key
        limits = httpx.Limits(max_connections=200, max_keepalive_connections=50)
        proxy = self.request_options.get("proxy")
        if not self.through_server:
            base = str(httpx.URL(ConnectionConfig(**options).get_base_url()))

            async def add_headers(request: httpx.Request) -> None:
                if str(request.url).startswith(f"{base}/"):
                    request.headers.update(self.config.headers)

            options["event_hooks"] = {"request": [add_headers]}
        inner = httpx.AsyncHTTPTransport(verify=self._verify, limits=limits, proxy=proxy)
        # It sends nothing twice that may have been taken and must not be done twice.
        self._transport = RetryAsyncTransport(inner, RetryPolicy(overall_deadline=options["request_timeout"]), owns_inner=True)
        return ConnectionConfig(transport=self._transport, **options)

    async def manager(self) -> SandboxManager:
        """Return the SDK's manager."""
        config = await self.sdk()
        if self._manager is None:
            from opensandbox import SandboxManager

            self._manager = await SandboxManager.create(config)
        return self._manager

    async def http(self) -> aiohttp.ClientSession:
        """Return the session for what the SDK has not: WebSockets. An answer that was compressed on its way is refused."""
        await self.sdk()
        if self._http is None:
            import aiohttp

            connector = aiohttp.TCPConnector(limit=0, ssl=self._verify)
            self._http = aiohttp.ClientSession(
                connector=connector,
                headers={"Accept-Encoding": "identity"},
                auto_decompress=False,
                raise_for_status=_refuse_encoded,
            )
        return self._http

    async def get(self, path: str) -> dict[str, Any]:
        """Ask the server itself (``/health``, ``/version``).

        Raises:
            aiohttp.ClientError: It can't be reached, or refuses.
        """
        import aiohttp

        session = await self.http()
        headers = {"OPEN-SANDBOX-API-KEY": self.api_key or "", **self.config.headers}
        url = f"{self.config.protocol}://{self.domain}{path}"
        timeout = aiohttp.ClientTimeout(total=10.0)
        async with session.get(url, headers=headers, timeout=timeout, **self.request_options) as answer:
            answer.raise_for_status()
            found: dict[str, Any] = await answer.json()
            return found

    async def execd(self, sandbox_id: str) -> tuple[str, dict[str, str]]:
        """Ask the server where a sandbox's execd is, and which headers it wants; it is asked once.

        Raises:
            Exception: Of the SDK: the sandbox is gone, or the server can't be reached.
        """
        found = self._execds.get(sandbox_id)
        if found is None:
            config = await self.sdk()
            async with self.sandbox(sandbox_id) as sandbox:
                endpoint = await sandbox.get_endpoint(EXECD_PORT)
            base = endpoint.endpoint if "://" in endpoint.endpoint else f"{config.protocol}://{endpoint.endpoint}"
            headers = self._sandbox_headers | dict(endpoint.headers)
            if self.through_server and self.api_key:
                headers["OPEN-SANDBOX-API-KEY"] = self.api_key
            found = self._execds[sandbox_id] = (base.rstrip("/"), headers)
        return found

    def forget_execd(self, sandbox_id: str) -> None:
        """Ask anew next time."""
        self._execds.pop(sandbox_id, None)

    # -- through the cluster

    async def _forward_port(self) -> None:
        """Listen on this machine and carry what comes to the server's Service: to any pod of it that is ready.

        Raises:
            UsageError: ``server_service`` names none that leads to a pod.
            SandboxError: The cluster can't be reached, or refuses.
        """
        from sandboxcore_kubernetes import Cluster

        async with contextlib.AsyncExitStack() as undo:
            cluster = await Cluster.connect(self.config)
            undo.push_async_callback(cluster.aclose)
            # Once before anything goes through it: what fails later only looks like a connection that ended.
            _, far = await self._open_far(cluster)
            far.transport.abort()
            self._cluster = cluster
            self._forward = await asyncio.start_server(self._carry, "127.0.0.1", 0)
            undo.pop_all()
        host, port = self._forward.sockets[0].getsockname()[:2]
        self.domain = f"{host}:{port}"

    async def _open_far(self, cluster: Cluster) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        try:
            namespace, pod, port = await self._target(cluster)
            return await dial(lambda protocol: cluster.port_forward(pod, port, protocol, namespace=namespace))
        except ApiError as error:
            raise sandbox_error(error, f"reach server_service {self.config.server_service}") from error

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert self._cluster is not None
        out: asyncio.StreamWriter | None = None
        try:
            far, out = await self._open_far(self._cluster)
            async with asyncio.TaskGroup() as group:
                up = group.create_task(_pump(reader, out))
                down = group.create_task(_pump(far, writer))
                await asyncio.wait((up, down), return_when=asyncio.FIRST_COMPLETED)
                up.cancel()
                down.cancel()
        except Exception:
            # The connection ends; what uses it says so in its own words.
            return
        finally:
            writer.close()
            if out is not None:
                out.transport.close()

    async def _target(self, cluster: Cluster) -> tuple[str, str, int]:
        """Find a pod of the Service that is ready, and the port that the Service leads to there.

        Raises:
            UsageError: There is none.
            ApiError: The cluster refuses.
        """
        namespace, _, rest = self.config.server_service.partition("/")
        name, _, port = rest.partition(":")
        what = f"server_service {self.config.server_service}"
        try:
            spec = (await cluster.get("Service", name, namespace=namespace))["spec"]
        except ApiError as error:
            if error.status != 404:
                raise
            raise UsageError(f"{what}: there is no such Service", hint=f"kubectl -n {namespace} get services") from error
        ports = {str(each["port"]): each.get("targetPort", each["port"]) for each in spec["ports"]}
        if port not in ports:
            raise UsageError(f"{what}: the Service has no port {port}", hint=f"it has {', '.join(ports)}")
        selector = ",".join(f"{key}={value}" for key, value in (spec.get("selector") or {}).items())
        pods = (await cluster.list("Pod", namespace=namespace, label_selector=selector))["items"] if selector else []
        for pod in pods:
            conditions = (pod.get("status") or {}).get("conditions") or ()
            number = _port_number(pod, ports[port])
            if number is not None and any(each["type"] == "Ready" and each["status"] == "True" for each in conditions):
                return namespace, pod["metadata"]["name"], number
        raise UsageError(f"{what}: the Service has no pod that is ready", hint="is opensandbox-server running?")

    async def aclose(self) -> None:
        """Close all connections. Idempotent."""
        for stream in tuple(self.streams):
            stream.abort()
        async with contextlib.AsyncExitStack() as stack:
            if self._cluster is not None:
                stack.push_async_callback(self._cluster.aclose)
            if self._forward is not None:
                self._forward.close()
            if self._http is not None:
                stack.push_async_callback(self._http.close)
            if self._manager is not None:
                stack.push_async_callback(self._manager.close)
            if self._transport is not None:
                stack.push_async_callback(self._transport.aclose)
        self._sdk = self._manager = self._transport = self._http = self._cluster = self._forward = None

    @contextlib.asynccontextmanager
    async def sandbox(self, sandbox_id: str) -> AsyncIterator[Any]:
        """Connect the SDK to a sandbox, without asking how it is."""
        from opensandbox import Sandbox

        found = await Sandbox.connect(sandbox_id, connection_config=await self.sdk(), skip_health_check=True)
        try:
            yield found
        finally:
            await found.close()


async def _refuse_encoded(answer: aiohttp.ClientResponse) -> None:
    """Refuse what would be taken for the bytes of a file, say, and are none.

    Raises:
        SandboxUnavailableError: The answer was compressed on its way, though that was not asked for.
    """
    encoding = answer.headers.get("Content-Encoding", "identity")
    if encoding.lower() != "identity":
        answer.close()
        what = f"the answer of {answer.url.origin()} came compressed ({encoding}), which was not asked for"
        raise SandboxUnavailableError(what, started="no", hint="turn compression off in what is between here and OpenSandbox")


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(_PIPE_BYTES):
        writer.write(data)
        await writer.drain()


def _port_number(pod: dict[str, Any], target: Any) -> int | None:
    if isinstance(target, int):
        return target
    ports = [port for container in pod["spec"]["containers"] for port in container.get("ports") or ()]
    return next((int(port["containerPort"]) for port in ports if port.get("name") == target), None)
