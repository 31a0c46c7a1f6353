"""What goes wrong on the way to opensandbox-server: lost answers, restarts, limits, entrances that change what they pass on."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any
from unittest.mock import Mock

import aiohttp
import pytest
from aiohttp import web
from opensandbox.models.filesystem import DirectoryListEntry
from pydantic import SecretStr
from sandboxcore_opensandbox import _server_channel
from sandboxcore_opensandbox._config import OpenSandboxConfig
from sandboxcore_opensandbox._execd_files import ExecdFiles
from sandboxcore_opensandbox._server_connection import ServerConnection
from sandboxcore_opensandbox._server_provisioner import ServerProvisioner
from sandboxcore_opensandbox._server_request import check, create_arguments

from sandboxcore import Session
from sandboxcore.errors import CapabilityError, GuestUnavailableError, ProvisionTimeoutError, SandboxUnavailableError, UsageError
from sandboxcore.guest.files import GuestFileStore
from sandboxcore.spec import EnvironmentSpec, Resources, ServiceSpec
from sandboxcore.values import Claim, EnvironmentRef
from tests.cluster import kubectl
from tests.opensandbox import places
from tests.opensandbox.serving import serving

ONE = {"services": {"default": {"image": places.DEBIAN}}}
KNOWN = {"x86_64": 0x3E, "aarch64": 0xB7}
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@contextlib.asynccontextmanager
async def answering(handler: Handler) -> AsyncIterator[str]:
    """Answer all requests at an address, which is given."""
    app = web.Application(client_max_size=1 << 26)
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        yield f"{host}:{port}"
    finally:
        await runner.cleanup()


class Entrance:
    """Stands before a server and passes requests on, also for clients that have left; creations wait until they may."""

    def __init__(self, server: str, client: aiohttp.ClientSession) -> None:
        self._server = server
        self._client = client
        self.came = asyncio.Event()
        self.may = asyncio.Event()
        self.passed = asyncio.Event()
        self.looks = asyncio.Semaphore(0)

    async def handle(self, request: web.Request) -> web.Response:
        """Pass one request on."""
        creates = (request.method, request.path) == ("POST", "/v1/sandboxes")
        body = await request.read()
        if creates:
            self.came.set()
            await self.may.wait()
        headers = {key: value for key, value in request.headers.items() if key.lower() not in ("host", "content-length")}
        async with self._client.request(
            request.method, f"http://{self._server}{request.path_qs}", headers=headers, data=body
        ) as far:
            content = await far.read()
        if creates:
            self.passed.set()
        if (request.method, request.path) == ("GET", "/v1/sandboxes"):
            self.looks.release()
        return web.Response(status=far.status, body=content, content_type="application/json")


async def test_a_creation_that_arrives_late_leaves_nothing_though_it_was_given_up() -> None:
    """The server goes on creating for a client that has left: looked for once, the sandbox would not be there yet."""
    with serving(places.namespace()) as server:
        async with aiohttp.ClientSession() as client:
            entrance = Entrance(server.domain, client)
            config = {"mode": "server", "api_key": server.key}
            async with (
                answering(entrance.handle) as domain,
                Session("opensandbox", config={**config, "domain": domain}) as session,
            ):
                making = asyncio.ensure_future(session.provision(ONE))
                await entrance.came.wait()
                making.cancel()
                looks = asyncio.gather(*(entrance.looks.acquire() for _ in range(3)))
                await asyncio.wait((making, looks), return_when=asyncio.FIRST_COMPLETED)
                gave_up_at_once = making.done()
                looks.cancel()
                entrance.may.set()
                with pytest.raises(asyncio.CancelledError):
                    await making
                if gave_up_at_once:  # and so has nobody who would kill what comes
                    await entrance.passed.wait()
                assert await session.find(run_id=session.run_id) == []
                assert not gave_up_at_once


async def test_the_guest_is_that_of_the_sandboxs_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which execd's own head tells: seen from here, where there is one kind of machine, by the other kind's being unknown."""
    with serving(places.namespace()) as server:
        config = {"mode": "server", "domain": server.domain, "api_key": server.key}
        async with Session("opensandbox", config=config) as session:
            async with session.environment(ONE) as environment:
                machine = (await environment.default.exec(["uname", "-m"])).text().strip()
            monkeypatch.setattr(_server_channel, "_MACHINES", {0x3E: "x86_64", 0xB7: "aarch64"} | {KNOWN[machine]: "m68k"})
            with pytest.raises(GuestUnavailableError, match="no guest for machine 'm68k'"):
                await session.provision(ONE)


# -- without a server


class StandIn:
    """Answers as the server does, for what it can't be brought to: sandboxes by id, and answers that come first."""

    def __init__(self) -> None:
        self.sandboxes: set[str] = set()
        self.first: dict[str, list[web.Response]] = {}
        self.always: dict[str, Callable[[], web.Response]] = {}
        self.asked: Counter[str] = Counter()

    async def handle(self, request: web.Request) -> web.Response:
        """Answer one request."""
        await request.read()
        what = f"{request.method} {request.path.removeprefix('/v1')}"
        self.asked[what] += 1
        if first := self.first.get(what):
            return first.pop(0)
        if what in self.always:
            return self.always[what]()
        if request.method == "DELETE":
            self.sandboxes.discard(request.path.rpartition("/")[2])
            return web.Response(status=204)
        assert what == "GET /sandboxes", what
        made = {"status": {"state": "Running"}, "createdAt": "2026-01-01T00:00:00Z", "entrypoint": ["true"]}
        items = [{"id": name, "image": {"uri": "i"}, **made} for name in sorted(self.sandboxes)]
        pages = {"page": 1, "pageSize": 200, "totalItems": len(items), "totalPages": 1, "hasNextPage": False}
        return web.json_response({"items": items, "pagination": pages})


@contextlib.asynccontextmanager
async def standing_in(**config: Any) -> AsyncIterator[tuple[StandIn, ServerProvisioner]]:
    """Give a server that is none, and a provisioner that knows only it."""
    stand_in = StandIn()
    async with answering(stand_in.handle) as domain:
        provisioner = ServerProvisioner(OpenSandboxConfig(mode="server", domain=domain, api_key="k", **config))
        try:
            yield stand_in, provisioner
        finally:
            await provisioner.aclose()


def refused(status: int, code: str, **headers: str) -> web.Response:
    """Refuse as the server does."""
    return web.json_response({"code": code, "message": f"{code}: no"}, status=status, headers=headers)


async def provision(provisioner: ServerProvisioner, seconds: float = 60.0) -> EnvironmentRef:
    """Provision without a session, which would look after what is left, too."""
    claim = Claim(environment_id="e", run_id="r", owner="o", lease=60.0, timeout=seconds)
    return await provisioner.provision(EnvironmentSpec.model_validate(ONE), claim, lambda event: None)


@pytest.mark.tier("none")
async def test_all_sandboxes_of_an_environment_are_killed() -> None:
    """As where a creation was given up, and its sandbox came when the next was there."""
    async with standing_in() as (server, provisioner):
        server.sandboxes = {"a", "b"}
        await provisioner.destroy(Mock(EnvironmentRef, environment_id="e"))
        assert server.sandboxes == set()
        assert server.asked["DELETE /sandboxes/a"] == server.asked["DELETE /sandboxes/b"] == 1


@pytest.mark.tier("none")
async def test_a_creation_that_fails_is_told_though_it_can_not_be_undone() -> None:
    async with standing_in() as (server, provisioner):
        server.always["POST /sandboxes"] = server.always["GET /sandboxes"] = lambda: refused(401, "INVALID_API_KEY")
        with pytest.raises(UsageError, match=f"create a sandbox of '{places.DEBIAN}'") as caught:
            await provision(provisioner)
        assert caught.value.hint == "set api_key, or $OPEN_SANDBOX_API_KEY"
        assert ["list sandboxes" in note for note in caught.value.__notes__] == [True]


@pytest.mark.tier("none")
async def test_a_server_at_its_limits_is_asked_with_pauses_and_its_words_are_told() -> None:
    """Also where it says that no pause is needed."""
    headers = {"Retry-After": "0"}
    async with standing_in() as (server, provisioner):
        server.always["POST /sandboxes"] = lambda: refused(429, "KUBERNETES::POOL_CAPACITY_EXHAUSTED", **headers)
        await provisioner.find({})  # what is slow the first time, as the SDK's import, is not what is meant
        began = time.monotonic()
        with pytest.raises(ProvisionTimeoutError, match=r"not ready after 3 s; .*POOL_CAPACITY_EXHAUSTED") as caught:
            await provision(provisioner, 3.0)
        assert server.asked["POST /sandboxes"] <= 1 + (time.monotonic() - began) / 0.5
        assert "poolMax" in (caught.value.hint or "")


@pytest.mark.tier("none")
async def test_a_creation_that_the_server_has_ended_by_itself_is_not_looked_for() -> None:
    """Its 504 is none of a proxy's: it says that it has taken the sandbox away."""
    async with standing_in() as (server, provisioner):
        server.always["POST /sandboxes"] = lambda: refused(504, "KUBERNETES::POD_READY_TIMEOUT")
        with pytest.raises(ProvisionTimeoutError, match="POD_READY_TIMEOUT"):
            await provision(provisioner)
        assert server.asked["GET /sandboxes"] <= 2


@pytest.mark.tier("none")
async def test_a_server_that_restarts_is_asked_again_but_for_what_must_not_be_done_twice() -> None:
    async with standing_in() as (server, provisioner):
        server.sandboxes = {"a"}
        server.first["GET /sandboxes"] = [web.Response(status=503)]
        server.first["DELETE /sandboxes/a"] = [web.Response(status=503)]
        await provisioner.destroy(Mock(EnvironmentRef, environment_id="e"))
        assert server.sandboxes == set()
        server.always["POST /sandboxes"] = lambda: web.Response(status=503)
        with pytest.raises(SandboxUnavailableError, match="create a sandbox of"):
            await provision(provisioner)
        assert server.asked["POST /sandboxes"] == 1


@pytest.mark.tier("none")
@pytest.mark.parametrize("direct", [True, False])
async def test_headers_for_the_server_are_given_to_nobody_else(direct: bool) -> None:
    """A token for what stands before the server is no business of a sandbox, which is not trusted."""
    seen: dict[str, list[str | None]] = {"server": [], "sandbox": []}

    async def sandbox(request: web.Request) -> web.Response:
        seen["sandbox"].append(request.headers.get("X-Token"))
        return web.json_response({"session_id": "s"} if request.path == "/pty" else [])

    async def server(request: web.Request) -> web.Response:
        seen["server"].append(request.headers.get("X-Token"))
        return web.json_response({"endpoint": execd})

    async with answering(sandbox) as execd, answering(server) as domain:
        options = {"domain": domain, "use_server_proxy": not direct, "headers": {"X-Token": "t"}}
        connection = ServerConnection(OpenSandboxConfig(mode="server", api_key=SecretStr("k"), **options))
        try:
            async with connection.sandbox("a") as found:
                await found.files.list_directory(DirectoryListEntry(path="/"))
            base, headers = await connection.execd("a")
            async with (await connection.http()).post(f"{base}/pty", headers=headers) as answer:
                assert await answer.json() == {"session_id": "s"}
            await connection.get("/health")
        finally:
            await connection.aclose()
    assert set(seen["server"]) == {"t"}
    assert seen["sandbox"] == [None if direct else "t"] * 2


@pytest.mark.tier("none")
@pytest.mark.parametrize("asks", [True, False], ids=["where-asked-for", "always"])
async def test_what_is_compressed_on_the_way_is_not_taken_for_a_file(asks: bool) -> None:
    """An entrance that compresses what clients take so, and one that does not ask."""

    async def compressing(request: web.Request) -> web.Response:
        body = b"whole" if request.path.endswith("download") else b"{}"
        if asks and "gzip" not in request.headers.get("Accept-Encoding", ""):
            return web.Response(body=body, content_type="application/json")
        return web.Response(body=gzip.compress(body), headers={"Content-Encoding": "gzip"}, content_type="application/json")

    guest = Mock(GuestFileStore)
    guest.read_if_small.return_value = None
    guest.read_file.return_value = b"whole, by the guest"
    async with answering(compressing) as domain:
        connection = ServerConnection(OpenSandboxConfig(mode="server", domain=domain))
        connection._execds["a"] = (f"http://{domain}", {})
        try:
            found = await ExecdFiles(guest, "a", connection).read_file("/large")
            assert found == (b"whole" if asks else b"whole, by the guest")
            if asks:
                assert await connection.get("/version") == {}
            else:
                with pytest.raises(SandboxUnavailableError, match="came compressed"):
                    await connection.get("/version")
        finally:
            await connection.aclose()


@pytest.mark.parametrize(
    ("service", "words"),
    [("none:80", "no such Service"), ("lost:81", "has no port 81"), ("lost:80", "has no pod that is ready")],
)
async def test_a_port_forward_that_leads_nowhere_is_told(crd: Mapping[str, Any], service: str, words: str) -> None:
    manifest = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "lost", "namespace": crd["namespace"]},
        "spec": {"selector": {"app": "nowhere"}, "ports": [{"port": 80}]},
    }
    await asyncio.to_thread(kubectl, "apply", "-f", "-", text=json.dumps(manifest))
    way = {"access": "port-forward", "server_service": f"{crd['namespace']}/{service}", "kubeconfig": crd["kubeconfig"]}
    async with Session("opensandbox", config={"mode": "server", "api_key": "k", **way}) as session:
        with pytest.raises(UsageError, match=f"server_service {crd['namespace']}/{service}: .*{words}"):
            await session.provision(ONE)


@pytest.mark.tier("none")
@pytest.mark.parametrize(
    ("platform", "arch"),
    [("linux/amd64", "amd64"), ("linux/x86_64", "amd64"), ("linux/arm64/v8", "arm64"), ("linux/aarch64", "arm64")],
)
def test_a_platform_is_said_in_the_words_of_the_server(platform: str, arch: str) -> None:
    service = ServiceSpec(image="i", platform=platform)
    check(EnvironmentSpec(services={"a": service}), OpenSandboxConfig(mode="server"))
    assert create_arguments(service, "", {})["platform"].arch == arch


@pytest.mark.tier("none")
def test_what_is_requested_is_within_the_limits_that_nobody_gave() -> None:
    resources = Resources(cpus_request=2.5, memory_request_bytes=3 << 30)
    asked = create_arguments(ServiceSpec(image="i", resources=resources), "", {})
    assert asked["resource"] == asked["resource_requests"] == {"cpu": "2500m", "memory": "3Gi"}
    assert create_arguments(ServiceSpec(image="i"), "", {})["resource"] == {"cpu": "1", "memory": "1Gi"}


@pytest.mark.tier("none")
@pytest.mark.parametrize("platform", ["linux/s390x", "windows/amd64"])
def test_a_platform_that_the_guest_is_not_there_for_is_refused(platform: str) -> None:
    spec = EnvironmentSpec(services={"a": ServiceSpec(image="i", platform=platform)})
    with pytest.raises(CapabilityError, match=f"services.a.platform: there is no guest for '{platform}'"):
        check(spec, OpenSandboxConfig(mode="server"))
