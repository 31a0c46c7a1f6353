"""Where the API server is and how one proves who one is: kubeconfig or service account, by the kubernetes package.

Private keys of a kubeconfig go through files only because TLS contexts are made from files; those are gone when it is made.
"""

from __future__ import annotations

import asyncio
import datetime
import functools
import os
import shutil
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sandboxcore.errors import UsageError

if TYPE_CHECKING:
    import aiohttp

    from .config import ClusterConfig

__all__ = ("Access", "open_access")

#: Turns of the event loop in which connections that were aborted let go of their sockets.
_TURNS = 5
#: The package takes a token for expired five minutes early, too; less would not renew it.
_RENEW_BEFORE = datetime.timedelta(minutes=5)
#: Seconds until a program that gave a token which ends soon is asked again: some keep theirs until the end.
_RENEW_AGAIN = 30.0
_SERVICE_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"


@dataclass(kw_only=True)
class Access:
    """A session with the API server's address, TLS and proxy, and the credentials of each request."""

    server: str
    context: str
    namespace: str
    session: aiohttp.ClientSession
    config: ClusterConfig
    configuration: Any
    loader: Any
    acting_as: dict[str, list[str]]
    _renewal: asyncio.Lock = field(default_factory=asyncio.Lock)
    _renewed: float | None = None

    async def headers(self) -> list[tuple[str, str]]:
        """Return the headers of a request; a token near its end is renewed first."""
        if self._token_ends():
            async with self._renewal:  # one run of the program for all requests that wait for its token
                if self._token_ends():
                    await self.loader.load_from_exec_plugin()
                    self._renewed = time.monotonic()
                    self.configuration.api_key["BearerToken"] = self.loader.token
        token = await self.configuration.get_api_key_with_prefix("BearerToken")
        found = [("Authorization", token)] if token else []
        return found + [(name, value) for name, values in self.acting_as.items() for value in values]

    def _token_ends(self) -> bool:
        """Tell whether a credential program's token has ended, or does so soon and the program was not asked just now."""
        end = getattr(self.loader, "exec_plugin_expiry", None)
        if end is None:
            return False
        left = end - datetime.datetime.now(datetime.UTC)
        just_now = self._renewed is not None and time.monotonic() - self._renewed < _RENEW_AGAIN
        return left <= datetime.timedelta() or (left <= _RENEW_BEFORE and not just_now)

    def arguments(self) -> dict[str, Any]:
        """Return what each request of the session needs besides."""
        found: dict[str, Any] = {}
        if self.configuration.tls_server_name:
            found["server_hostname"] = self.configuration.tls_server_name
        proxy = self.config.proxy or self.configuration.proxy
        if proxy:
            found["proxy"] = proxy
        return found

    async def aclose(self) -> None:
        """Close the session's connections."""
        await self.session.close()
        for _ in range(_TURNS):
            await asyncio.sleep(0)


async def open_access(config: ClusterConfig) -> Access:
    """Read the configuration as kubectl would and log in.

    Raises:
        UsageError: There is none, it is broken, or it has no such context; the message has those that it has.
    """
    files = config.kubeconfig or os.environ.get("KUBECONFIG") or "~/.kube/config"
    names, there = _existing(files)
    if config.kubeconfig and names != there:
        missing = ", ".join(name for name in names if name not in there)
        raise UsageError(f"kubeconfig: there is no file {missing}", hint="give the path of a kubeconfig, or leave it out")
    in_pod = "KUBERNETES_SERVICE_HOST" in os.environ
    inside = config.in_cluster
    if inside is None:
        inside = in_pod and not there
    if inside and config.context:
        raise UsageError(f"context {config.context!r} can't be used with the pod's service account", hint="leave one of them out")
    if inside:
        return await _from_service_account(config)
    if not there:
        hint = "set KUBECONFIG, or the backend's `kubeconfig`; in a pod with a service account, `in_cluster`"
        raise UsageError(f"there is no Kubernetes configuration: looked at {', '.join(names)}", hint=hint)
    return await _from_kubeconfig(config, os.pathsep.join(names))


def _existing(files: str) -> tuple[list[str], list[str]]:
    names = [os.path.expanduser(name) for name in files.split(os.pathsep) if name]
    return names, [name for name in names if os.path.exists(name)]


async def _from_service_account(config: ClusterConfig) -> Access:
    from kubernetes.aio.client import Configuration
    from kubernetes.aio.config import ConfigException, load_incluster_config

    configuration = Configuration()
    try:
        load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
    except ConfigException as error:
        hint = "in_cluster is for a program that runs in a pod with a mounted service account"
        raise UsageError(f"no service account here: {error}", hint=hint) from error
    home = Path(_SERVICE_ACCOUNT) / "namespace"
    namespace = config.namespace or _text(home) or "default"
    return _access(config, configuration, None, "in-cluster", namespace, {})


def _text(path: Path) -> str:
    return path.read_text().strip() if path.exists() else ""


async def _from_kubeconfig(config: ClusterConfig, files: str) -> Access:
    import yaml
    from kubernetes.aio.client import Configuration
    from kubernetes.aio.config import ConfigException, list_kube_config_contexts, load_kube_config

    configuration = Configuration()
    try:
        contexts, active = _contexts(files, config.context, list_kube_config_contexts)
    except (ConfigException, yaml.YAMLError, KeyError, TypeError, AttributeError, OSError) as error:
        raise UsageError(f"kubeconfig {files}: {error}", hint="`kubectl config view` shows what is wrong with it") from error
    known = sorted(context["name"] for context in contexts)
    name = config.context or (active or {}).get("name")
    if name not in known:
        what = f"has no context {name!r}" if name else "has no current context"
        raise UsageError(f"kubeconfig {files}: {what}", hint=f"it has {', '.join(known) or 'none'}; name one as `context`")
    context = next(context for context in contexts if context["name"] == name)["context"]
    folder = tempfile.mkdtemp(prefix="sandboxcore-")
    try:
        loader = await load_kube_config(  # type: ignore[no-untyped-call]
            config_file=files,
            context=name,
            client_configuration=configuration,
            persist_config=False,
            temp_file_path=folder,
        )
        await _check_login(loader, configuration, files)
        user = _plain(getattr(loader, "_user", None))
        namespace = config.namespace or context.get("namespace") or "default"
        return _access(config, configuration, loader, str(name), namespace, user)
    except (ConfigException, OSError, ValueError) as error:
        raise UsageError(f"kubeconfig {files}, context {name}: {error}") from error
    finally:
        _forget_files(folder)


def _contexts(files: str, wanted: str | None, read: Any) -> tuple[list[Any], Any]:
    """List the contexts; a file without a current one is good enough where one is wanted by name."""
    import yaml

    try:
        contexts, active = read(files)
    except Exception:
        contexts, active = [], None
        for name in files.split(os.pathsep):
            if os.path.exists(name):
                document = yaml.safe_load(Path(name).read_text()) or {}
                contexts += document.get("contexts") or []
        if not contexts:
            raise
    return [_plain(context) for context in contexts], _plain(active)


def _plain(node: Any) -> Any:
    """Take a value out of the package's nodes."""
    while hasattr(node, "value") and hasattr(node, "safe_get"):
        node = node.value
    return node


async def _check_login(loader: Any, configuration: Any, files: str) -> None:
    """Say why the credential program gave none: the package only logs it, and goes on without."""
    user = _plain(getattr(loader, "_user", None)) or {}
    if "exec" not in user or configuration.api_key.get("BearerToken") or configuration.cert_file:
        return
    from kubernetes.aio.config import ConfigException
    from kubernetes.aio.config.exec_provider import ExecProvider

    program = user["exec"].get("command")
    reason = "it gave neither a token nor a certificate"
    try:
        await ExecProvider(loader._user["exec"]).run()  # type: ignore[no-untyped-call]
    except (ConfigException, OSError) as error:
        reason = str(error)
    raise UsageError(f"kubeconfig {files}: credential program {program!r} failed: {reason}", hint="run it by hand to see why")


def _access(config: ClusterConfig, configuration: Any, loader: Any, context: str, namespace: str, user: Any) -> Access:
    from aiohttp import connector
    from aiohttp.client_proto import ResponseHandler
    from kubernetes.aio.client.rest import RESTClientObject

    class Handler(ResponseHandler):
        def close(self) -> None:
            """Close at once: what is closed here is in the middle of an answer, and TLS would wait 30 s for a goodbye."""
            if self.transport is not None:
                self.transport.abort()
            super().close()

    class Rest(RESTClientObject):
        # No limit of connections: streams are long-lived, and what bounds requests is the cluster's own gate.
        def _create_connector(self) -> Any:
            made: Any = connector.TCPConnector(limit=0, ssl=self.ssl_context)
            made._factory = functools.partial(Handler, loop=asyncio.get_running_loop())
            return made

        def session(self) -> Any:
            return self._create_pool_manager()

    rest = Rest(configuration)
    named = user or {}
    acting_as = {
        "Impersonate-User": [config.impersonate_user or named.get("as") or ""],
        "Impersonate-Group": list(config.impersonate_groups or named.get("as-groups") or ()),
        "Impersonate-Uid": [named.get("as-uid") or ""],
    }
    return Access(
        server=configuration.host.rstrip("/"),
        context=context,
        namespace=namespace,
        session=rest.session(),
        config=config,
        configuration=configuration,
        loader=loader,
        acting_as={header: [value for value in values if value] for header, values in acting_as.items()},
    )


def _forget_files(folder: str) -> None:
    """Remove keys and certificates that were written out, also from what the package remembers to have written."""
    from kubernetes.aio.config import kube_config

    files: dict[str, str] = getattr(kube_config, "_temp_files", {})
    for content, name in list(files.items()):
        if name.startswith(folder):
            del files[content]
    shutil.rmtree(folder, ignore_errors=True)
