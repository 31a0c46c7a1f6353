"""Environments through opensandbox-server 1.1.1: what it gives, its errors in our words, and what a lost answer leaves."""

from __future__ import annotations

import asyncio
import inspect
import os
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any
from unittest.mock import Mock

import pytest
import pytest_asyncio
from opensandbox import exceptions
from sandboxcore_opensandbox import _server_errors
from sandboxcore_opensandbox._config import OpenSandboxConfig
from sandboxcore_opensandbox._execd_files import ExecdFiles, means_the_same
from sandboxcore_opensandbox._server_channel import ExecdChannel
from sandboxcore_opensandbox._server_connection import ServerConnection
from sandboxcore_opensandbox._server_errors import BY_CLASS, BY_CODE, server_error
from sandboxcore_opensandbox._server_notes import ServerNotes, metadata, read
from sandboxcore_opensandbox._settings import ServiceFiles

from sandboxcore import Session
from sandboxcore.errors import CapabilityError, ProvisionError, SandboxError, SandboxUnavailableError, UsageError
from sandboxcore.guest.files import GuestFileStore
from tests.cluster import kubectl
from tests.opensandbox import places
from tests.opensandbox.kit import IMAGES
from tests.opensandbox.serving import Server, serving

ONE = {"services": {"default": {"image": places.DEBIAN}}}


@pytest.fixture(scope="module")
def where() -> str:
    """Make a namespace for the server's sandboxes."""
    return places.namespace()


@pytest.fixture(scope="module")
def server(where: str) -> Iterator[Server]:
    """Start the server."""
    with serving(where) as running:
        yield running


@pytest.fixture
def config(server: Server) -> dict[str, Any]:
    """Configure the backend for that server."""
    return {"mode": "server", "domain": server.domain, "api_key": server.key}


@pytest_asyncio.fixture
async def session(config: Mapping[str, Any]) -> AsyncIterator[Session]:
    """Open a session."""
    async with Session("opensandbox", config=dict(config)) as opened:
        yield opened


async def test_a_sandbox_has_what_its_service_wants(session: Session) -> None:
    """Also what the server has no field for: user, directory, files. And bytes come back as they were."""
    service = {
        "image": places.DEBIAN,
        "env": {"TOKEN": "s3cret", "PATH": "/nowhere"},
        "working_dir": "/srv/app",
        "user": "agent",
        "files": {"/etc/settings": {"content": b"\x00\xff\r\n", "mode": 0o644}},
    }
    async with session.environment({"services": {"default": service}}) as environment:
        result = await environment.default.exec(
            ["/bin/sh", "-c", "/usr/bin/id -un; echo $TOKEN $PATH; pwd; /bin/cat"], stdin=b"\x00in"
        )
        assert result.stdout == b"agent\ns3cret /nowhere\n/srv/app\n\x00in"
        assert await environment.default.read_file("/etc/settings") == b"\x00\xff\r\n"
        assert "s3cret" not in str(environment.ref)


async def test_another_process_finds_it_by_what_is_written_on_it(config: Mapping[str, Any], session: Session) -> None:
    labels = {"task": "Any Word/ä 1"}
    async with Session("opensandbox", config=dict(config), labels=labels) as maker, maker.environment(ONE) as environment:
        [found] = await session.find(labels=labels)
        assert (found.id, found.ref.owner, dict(found.ref.labels)) == (environment.id, maker.owner, labels)
        assert (await found.default.exec(["echo", "here"])).stdout == b"here\n"


async def test_a_session_that_ends_leaves_no_process_in_the_sandbox(config: Mapping[str, Any], session: Session) -> None:
    """execd keeps a session that nobody listens to, with what runs in it."""
    count = ["sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' ' | grep -o '[r]elay --dir /dev/shm' | wc -l"]
    async with session.environment(ONE) as environment:
        before = int((await environment.default.exec(count)).text())
        async with Session("opensandbox", config=dict(config)) as other:
            [found] = await other.find(run_id=session.run_id)
            assert int((await found.default.exec(count)).text()) == before + 1
        deadline = asyncio.get_running_loop().time() + 60
        while int((await environment.default.exec(count)).text()) > before:
            assert asyncio.get_running_loop().time() < deadline
            await asyncio.sleep(0.1)


async def test_large_files_are_read_from_execd_where_it_reads_the_same(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[bool] = []
    download = ExecdFiles._download

    async def watched(self: ExecdFiles, path: str) -> bytes | None:
        data = await download(self, path)
        taken.append(data is not None)
        return data

    monkeypatch.setattr(ExecdFiles, "_download", watched)
    data = os.urandom(3 << 20)
    async with session.environment(ONE) as environment:
        box = environment.default
        for name, downloaded in (("a b&ü%41", [True]), ("$HOME", []), ("small", [])):
            content = data[:1000] if name == "small" else data
            await box.write_file(f"/tmp/{name}/f", content, mode=0o600)
            taken.clear()
            assert await box.read_file(f"/tmp/{name}/f") == content
            assert taken == downloaded
        with pytest.raises(PermissionError):
            await box.read_file("/tmp/a b&ü%41/f", user="agent")
        with pytest.raises(FileNotFoundError):
            await box.read_file("/tmp/none")
        assert taken == []


@pytest.mark.parametrize(
    ("spec", "kind", "words"),
    [
        ({"services": {"a": {"image": "i"}, "b": {"image": "i"}}}, CapabilityError, "is one container"),
        ({"services": {"a": {"image": "i", "volumes": [{"target": "/v"}]}}}, CapabilityError, "volumes"),
        ({"services": {"a": {}}}, CapabilityError, "needs an image, or a pool"),
        ({"services": {"a": {}}, "options": {"opensandbox": {"poolRef": "none"}}}, UsageError, "POOL_NOT_FOUND"),
    ],
    ids=["several", "volumes", "nothing", "no-pool"],
)
async def test_what_it_can_not_do_is_refused(session: Session, spec: dict[str, Any], kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words):
        await session.provision(spec)


async def test_a_wrong_key_is_told(config: Mapping[str, Any]) -> None:
    async with Session("opensandbox", config={**config, "api_key": "wrong"}) as session:
        with pytest.raises(UsageError) as caught:
            await session.find()
    assert "api_key" in (caught.value.hint or "")


async def test_nobody_there_is_told() -> None:
    async with Session("opensandbox", config={"mode": "server", "domain": "127.0.0.1:1", "api_key": "k"}) as session:
        with pytest.raises(SandboxUnavailableError) as caught:
            await session.find()
        assert "domain" in (caught.value.hint or "")
        findings = {finding.check: finding.status for finding in await session.doctor()}
        assert findings == {"SDK": "ok", "server": "error"}


async def test_the_doctor_is_content(session: Session) -> None:
    assert {finding.check: finding.status for finding in await session.doctor()} == dict.fromkeys(
        ("SDK", "server", "version", "API key"), "ok"
    )


async def test_a_lost_answer_leaves_nothing(config: Mapping[str, Any], session: Session) -> None:
    """The client gives up while the server goes on creating: what that makes is found by its metadata, and killed."""
    async with Session("opensandbox", config={**config, "create_timeout": 0.4}) as hasty:
        with pytest.raises(SandboxError):
            await hasty.provision(ONE)
        deadline = asyncio.get_running_loop().time() + 60
        while left := await session.find(run_id=hasty.run_id):
            assert asyncio.get_running_loop().time() < deadline, left
            await asyncio.sleep(0.2)


async def test_a_server_killed_in_mid_create_is_told_and_leaves_nothing(where: str) -> None:
    """Whatever it had created is found once it runs again, and by its lease in the end."""
    never_ready = {"services": {"default": {"image": "sandboxcore.test/absent:1"}}}
    before = _made(where)
    with serving(where) as doomed:
        config = {"mode": "server", "domain": doomed.domain, "api_key": doomed.key}
        async with Session("opensandbox", config=config) as session:
            making = asyncio.ensure_future(session.provision(never_ready))
            async with asyncio.timeout(60):
                while await asyncio.to_thread(_made, where) <= before:  # noqa: ASYNC110
                    await asyncio.sleep(0.1)
            assert not making.done()
            doomed.kill()
            with pytest.raises(SandboxError) as caught:
                await making
            assert caught.value.hint
        run_id = session.run_id
    with serving(where) as again:
        async with Session("opensandbox", config={**config, "domain": again.domain, "api_key": again.key}) as other:
            await other.cleanup(run_id=run_id)
            assert await other.find(run_id=run_id) == []


def _made(where: str) -> set[str]:
    """Name the BatchSandboxes that are in a namespace."""
    return {*kubectl("-n", where, "get", "batchsandboxes.sandbox.opensandbox.io", "-o", "name").split()}


async def test_a_pooled_sandbox(session: Session, where: str) -> None:
    """Out of a pool whose pods run execd when the server tells their task-executor to."""
    await asyncio.to_thread(make_server_pool, where, "warm")
    spec = {"services": {"default": {"env": {"A": "b"}}}, "options": {"opensandbox": {"poolRef": "warm"}}}
    async with session.environment(spec) as environment:
        result = await environment.default.exec(["sh", "-c", "echo $A; hostname"])
        assert result.text().startswith("b\nwarm-")


#: Carries connections from the cluster to the server, which is a process of this machine.
RELAY = """
import asyncio, sys
async def pump(reader, writer):
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    finally:
        writer.close()
async def carry(reader, writer):
    far = await asyncio.open_connection(sys.argv[1], int(sys.argv[2]))
    await asyncio.gather(pump(reader, far[1]), pump(far[0], writer), return_exceptions=True)
async def main():
    server = await asyncio.start_server(carry, "0.0.0.0", 8080)
    await server.serve_forever()
asyncio.run(main())
"""


async def test_the_server_is_reached_through_the_cluster(where: str, crd: Mapping[str, Any]) -> None:
    """By a port forward that we make, and by a NodePort; sandboxes through the server itself."""
    with serving(where, host="0.0.0.0") as running:
        node_port = await asyncio.to_thread(expose, where, running)
        through = {"mode": "server", "api_key": running.key, "use_server_proxy": True}
        forwarded = {
            "access": "port-forward",
            "server_service": f"{where}/opensandbox-server:80",
            "kubeconfig": crd["kubeconfig"],
        }
        for way in (forwarded, {"domain": node_port}):
            async with Session("opensandbox", config={**through, **way}) as session, session.environment(ONE) as environment:
                data = bytes(range(256)) * 2048
                await environment.default.write_file("/tmp/data", data)
                assert await environment.default.read_file("/tmp/data") == data
                assert (await environment.default.exec(["cat"], stdin=b"\x00in")).stdout == b"\x00in"


def expose(where: str, running: Server) -> str:
    """Make a Service that leads to the server; gives the address of its NodePort."""
    import json

    from tests.cluster import kubectl, outside

    labels = {"app": "opensandbox-server"}
    container = {
        "name": "relay",
        "image": places.DEBIAN,
        "command": ["python3", "-c", RELAY, outside(), str(running.port)],
        "readinessProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 1},
        "ports": [{"name": "http", "containerPort": 8080}],
    }
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "relay", "namespace": where, "labels": labels},
        "spec": {"containers": [container], "terminationGracePeriodSeconds": 0},
    }
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "opensandbox-server", "namespace": where},
        "spec": {"type": "NodePort", "selector": labels, "ports": [{"port": 80, "targetPort": "http"}]},
    }
    kubectl("apply", "-f", "-", text=json.dumps({"apiVersion": "v1", "kind": "List", "items": [pod, service]}))
    kubectl("-n", where, "wait", "--for=condition=Ready", "--timeout=90s", "pod/relay")
    port = kubectl("-n", where, "get", "service", "opensandbox-server", "-o", "jsonpath={.spec.ports[0].nodePort}")
    address = kubectl("get", "nodes", "-o", "jsonpath={.items[0].status.addresses[?(@.type=='InternalIP')].address}")
    return f"{address.strip()}:{port.strip()}"


def make_server_pool(where: str, name: str) -> None:
    """Make a pool as the server needs it: with a task-executor, and with execd beside it."""
    import json

    from sandboxcore_opensandbox.pools import pool_objects

    from tests.cluster import kubectl

    objects = pool_objects(name, places.DEBIAN, buffer=1, maximum=2, namespace=where, task_executor=IMAGES["task-executor"])
    pool = next(obj for obj in objects if obj["kind"] == "Pool")
    body = pool["spec"]["template"]["spec"]
    body["initContainers"].append(
        {
            "name": "execd-installer",
            "image": IMAGES["execd"],
            "command": ["/bin/sh", "-c", "cp ./execd ./bootstrap.sh /opt/opensandbox/"],
            "volumeMounts": [{"name": "opensandbox-bin", "mountPath": "/opt/opensandbox"}],
        }
    )
    body["containers"][0]["env"] = [{"name": "EXECD", "value": "/opt/opensandbox/execd"}]
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
    kubectl("apply", "--server-side", "-f", "-", text=text)
    kubectl("-n", where, "wait", "--for=jsonpath={.status.available}=1", "--timeout=90s", f"pools.sandbox.opensandbox.io/{name}")


# -- without a server


class Broken(ServerConnection):
    """A server whose sandboxes have no execd that answers."""

    async def execd(self, sandbox_id: str) -> tuple[str, dict[str, str]]:
        raise exceptions.SandboxApiException(message="no", status_code=502)


@pytest.mark.tier("none")
async def test_a_download_that_fails_costs_nothing_but_time() -> None:
    guest = Mock(GuestFileStore)
    guest.read_if_small.return_value = None
    guest.read_file.return_value = b"whole"
    connection = Broken(OpenSandboxConfig(mode="server"))
    assert await ExecdFiles(guest, "id", connection).read_file("/large") == b"whole"
    await connection.aclose()


@pytest.mark.tier("none")
async def test_a_closed_sandbox_leaves_nothing_in_the_connection() -> None:
    """A session of thousands of sandboxes keeps what it knows of those that it has."""
    connection = Mock(ServerConnection)
    await ExecdChannel("id", connection).aclose()
    connection.forget_execd.assert_called_once_with("id")


@pytest.mark.tier("none")
@pytest.mark.parametrize(
    ("path", "same"),
    [("/a b/ü", True), ("/", True), ("a", False), ("", False), ("/a/../b", False), ("/a/", False)]
    + [(f"/tmp/{name}", False) for name in ("$HOME", "~", "a\0b")]
    + [("/proc/kcore", False), ("/sys/x", False), ("/dev/zero", False), ("/process", True)],
)
def test_paths_that_execd_takes_as_the_kernel_does(path: str, same: bool) -> None:
    assert means_the_same(path) == same


@pytest.mark.tier("none")
async def test_a_service_of_its_own_user_costs_no_round_trips() -> None:
    inner = Mock(GuestFileStore)
    files = ServiceFiles(inner, cwd="/srv", user="agent")
    await files.read_file("a")
    inner.read_file.assert_awaited_once_with("/srv/a", user="agent")
    await files.write_file("/b", b"", mode=0o600, user="root")
    inner.write_file.assert_awaited_once_with("/b", b"", mode=0o600, user="root")
    inner.open_read.assert_not_called()
    inner.open_write.assert_not_called()


@pytest.mark.tier("none")
def test_the_table_has_every_exception_of_the_sdk() -> None:
    known = {name for name, value in inspect.getmembers(exceptions, inspect.isclass) if issubclass(value, Exception)}
    assert known - set(BY_CLASS) == set()


@pytest.mark.tier("none")
@pytest.mark.parametrize("code", BY_CODE)
def test_codes_are_found_in_the_words_of_the_sdk(code: str) -> None:
    error = exceptions.SandboxApiException(message=f"Create sandbox failed | [KUBERNETES::{code}] no", status_code=418)
    found = server_error(error, "create")
    assert isinstance(found, SandboxError)
    assert found.hint == BY_CODE[code][1]
    assert found.message.startswith("create: ")


@pytest.mark.tier("none")
@pytest.mark.parametrize("status", _server_errors.BY_STATUS)
def test_statuses_are_known(status: int) -> None:
    found = server_error(exceptions.SandboxApiException(message="no", status_code=status), "ask")
    assert found.hint == _server_errors.BY_STATUS[status][1]


@pytest.mark.tier("none")
def test_what_is_no_error_of_the_sdk_stays_what_it_is() -> None:
    with pytest.raises(ZeroDivisionError):
        server_error(ZeroDivisionError(), "ask")


@pytest.mark.tier("none")
def test_notes_fit_into_labels() -> None:
    notes = ServerNotes(environment_id="e", run_id="r", service="s/ä", owner="me@host:1", created=1.5, labels={"k": "v" * 300})
    written = metadata(notes, 2.0)
    assert read(written) == notes
    assert all(len(value) <= 63 and value[0].isalnum() and value[-1].isalnum() for value in written.values())


@pytest.mark.tier("none")
@pytest.mark.parametrize("changed", [{}, {"app.kubernetes.io/managed-by": "sandboxcore"}])
def test_what_others_wrote_is_none_of_ours(changed: dict[str, str]) -> None:
    assert read(changed) is None


@pytest.mark.tier("none")
def test_provision_errors_name_their_service() -> None:
    error = server_error(exceptions.SandboxApiException(message="[KUBERNETES::POD_FAILED]", status_code=500), "service 'a'")
    assert isinstance(error, ProvisionError)
