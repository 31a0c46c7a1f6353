"""The way into pods, on a real cluster."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, cast

import pytest
from sandboxcore_kubernetes import GUEST_PATH, Cluster, ClusterConfig, PodChannel
from sandboxcore_kubernetes.guest_mount import guest_mount
from sandboxcore_kubernetes.rbac import POD_RULES, missing, role

from sandboxcore.errors import GuestUnavailableError, SandboxUnavailableError
from sandboxcore.guest import Guest
from sandboxcore.values import ExecRequest, ExecResult
from tests.images import reference

from .conftest import open_connections, pod, running

_SERVER = ["sh", "-c", "while true; do nc -l -p 7000 -e cat; done"]


@contextlib.asynccontextmanager
async def _guest(cluster: Cluster, name: str, **options: Any) -> AsyncIterator[Guest]:
    guest = Guest(PodChannel(cluster, namespace=cluster.namespace, pod=name, **options))
    try:
        yield guest
    finally:
        await guest.aclose()


async def _run(guest: Guest, *argv: str, **options: Any) -> ExecResult:
    return await guest.executor.exec(ExecRequest(argv=argv, **options))


@contextlib.asynccontextmanager
async def _user(config: ClusterConfig, cluster: Cluster) -> AsyncIterator[tuple[Cluster, Callable[[bool], Awaitable[None]]]]:
    """Connect as a user with rights in the tests' namespace; the function takes them away and gives them again."""
    name = f"user-{uuid.uuid4().hex[:6]}"
    group = "rbac.authorization.k8s.io"
    binding = {
        "apiVersion": f"{group}/v1",
        "kind": "RoleBinding",
        "metadata": {"name": name},
        "roleRef": {"apiGroup": group, "kind": "Role", "name": name},
        "subjects": [{"kind": "User", "name": name, "apiGroup": group}],
    }
    await cluster.create(role(POD_RULES, name=name, namespace=cluster.namespace))
    limited = config.model_copy(update={"impersonate_user": name, "impersonate_groups": ("system:authenticated",)})
    async with await Cluster.connect(limited) as theirs:

        async def admit(on: bool) -> None:
            await (cluster.create(binding) if on else cluster.delete("RoleBinding", name))
            async with asyncio.timeout(30):  # the server's caches
                while bool(await missing(theirs)) is on:  # noqa: ASYNC110
                    await asyncio.sleep(0.1)

        await admit(True)
        yield theirs, admit


@pytest.mark.parametrize("version", ["v4", "v5"])
async def test_commands_and_files_go_through_one_stream(config: ClusterConfig, version: str) -> None:
    """Both versions of the exec protocol; requests don't grow with what is done."""
    async with await Cluster.connect(config.model_copy(update={"exec_protocol": version})) as cluster:
        await running(cluster, pod(f"plain-{version}"))
        async with _guest(cluster, f"plain-{version}") as guest:
            await guest.connect()
            before = cluster.requests
            done = await _run(guest, "sh", "-c", "cat; echo err >&2; exit 7", stdin=b"\x00\xff in\r\n")
            assert (done.exit_code, done.stdout, done.stderr) == (7, b"\x00\xff in\r\n", b"err\n")
            results = await asyncio.gather(*(_run(guest, "echo", str(number)) for number in range(100)))
            assert [each.stdout for each in results] == [f"{number}\n".encode() for number in range(100)]
            data = os.urandom(9 << 20)
            await guest.files.write_file("/tmp/big", data)
            assert await guest.files.read_file("/tmp/big") == data
            summed = await _run(guest, "sha256sum", "/tmp/big")
            assert summed.stdout.split()[0].decode() == hashlib.sha256(data).hexdigest()
            assert cluster.requests == before


async def test_a_cut_link_loses_and_doubles_nothing(cluster: Cluster) -> None:
    await running(cluster, pod("cut"))
    line = "i=0; while [ $i -lt 300 ]; do echo $i; echo $i >> /tmp/count; i=$((i+1)); usleep 5000; done"
    async with _guest(cluster, "cut") as guest:
        await guest.connect()
        command = asyncio.create_task(_run(guest, "sh", "-c", line))
        for _ in range(4):
            await asyncio.sleep(0.2)
            guest.connection.cut()
        done = await command
        expected = "".join(f"{number}\n" for number in range(300)).encode()
        assert done.stdout == expected
        assert await guest.files.read_file("/tmp/count") == expected


async def test_rights_that_a_starting_server_has_not_read_yet_are_waited_for(config: ClusterConfig, cluster: Cluster) -> None:
    """It refuses everything then, though nothing has changed (kubernetes/kubernetes#121635)."""
    await running(cluster, pod("admitted", labels={"kind": "admitted"}))
    async with _user(config, cluster) as (theirs, admit), _guest(theirs, "admitted") as guest, theirs.pods() as watch:
        command = asyncio.create_task(_run(guest, "sh", "-c", "while [ ! -e /tmp/go ]; do sleep 0.1; done; echo whole"))
        await _run(guest, "true")
        await admit(False)
        before = theirs.requests
        for stream in list(theirs.streams):
            stream.abort()
        for connection in open_connections(theirs):
            connection.abort()
        async with asyncio.timeout(30):
            while theirs.requests < before + 4:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        assert not command.done()
        await admit(True)
        await _run(guest, "touch", "/tmp/go")
        assert (await asyncio.wait_for(command, 60)).stdout == b"whole\n"
        await cluster.delete("Pod", "admitted")
        await watch.wait_for(lambda watch: watch.get("admitted") is None, 60)


async def test_a_relay_ends_with_its_stream(cluster: Cluster) -> None:
    """Streams that end, well or not, leave no process in the pod."""
    await running(cluster, pod("relays"))
    async with _guest(cluster, "relays") as first:
        count = ("sh", "-c", "ps | grep -c '[g]uest.* relay'")
        base = int((await _run(first, *count)).stdout)
        for number in range(4):
            async with _guest(cluster, "relays") as other:
                await other.connect()
                if number % 2:
                    other.connection.cut()
        async with asyncio.timeout(60):
            while int((await _run(first, *count)).stdout) > base:  # noqa: ASYNC110
                await asyncio.sleep(0.1)


async def test_a_restarted_container_is_told_once(cluster: Cluster) -> None:
    """What ran has an honest end, what is asked next is refused once, and what comes then runs in the new container."""
    await running(cluster, pod("restarts", command=["sh", "-c", "while [ ! -e /tmp/end ]; do usleep 20000; done; exit 9"]))
    async with _guest(cluster, "restarts") as guest:
        await guest.connect()
        lost = asyncio.create_task(_run(guest, "sleep", "600"))
        assert (await _run(guest, "touch", "/tmp/mark")).ok
        await _run(guest, "touch", "/tmp/end")
        with pytest.raises(SandboxUnavailableError) as caught:
            await asyncio.wait_for(lost, 90)
        assert caught.value.started in ("yes", "unknown")
        async with cluster.pods() as watch:
            await watch.wait_for(lambda watch: (found := watch.get("restarts")) and found.ready and found.restarts > 0, 90)
        said = str(caught.value)
        if "restarted" not in said:  # by the pod's state, or by the guest's, whichever was seen first
            with pytest.raises(SandboxUnavailableError, match="exit code 9"):
                await _run(guest, "true")
        assert not (await _run(guest, "test", "-e", "/tmp/mark")).ok


async def test_a_pod_that_is_gone_or_replaced_is_told(cluster: Cluster) -> None:
    (state,) = await running(cluster, pod("mortal"))
    async with _guest(cluster, "mortal", uid=state.uid) as guest:
        await guest.connect()
        lost = asyncio.create_task(_run(guest, "sleep", "600"))
        await _run(guest, "true")
        await cluster.delete("Pod", "mortal", grace=0)
        with pytest.raises(SandboxUnavailableError, match="mortal"):
            await asyncio.wait_for(lost, 90)
        with pytest.raises(SandboxUnavailableError, match="is gone") as caught:
            await _run(guest, "true")
        assert caught.value.started == "no"
        async with cluster.pods() as watch:
            await watch.wait_for(lambda watch: watch.get("mortal") is None, 90)
        await running(cluster, pod("mortal"))
        with pytest.raises(SandboxUnavailableError, match="replaced") as caught:
            await _run(guest, "true")
        assert caught.value.started == "no"


async def test_what_can_not_be_entered_says_why(cluster: Cluster, config: ClusterConfig) -> None:
    app = reference("binary")
    finished = pod("finished", command=["true"], spec={"restartPolicy": "Never"})
    await cluster.create(finished)
    await running(cluster, pod("shell-less", image=app, command=["/app"]))
    async with _guest(cluster, "shell-less") as guest:
        with pytest.raises(GuestUnavailableError, match="/bin/sh") as caught:
            await asyncio.wait_for(guest.connect(), 60)
        assert "mounted" in (caught.value.hint or "")
    async with _guest(cluster, "no-such-pod") as guest:
        with pytest.raises(GuestUnavailableError, match="is gone"):
            await guest.connect()
    async with _guest(cluster, "shell-less", container="other") as guest:
        with pytest.raises(GuestUnavailableError, match="no container 'other'"):
            await guest.connect()
    async with cluster.pods() as watch:
        await watch.wait_for(lambda watch: (found := watch.get("finished")) and found.phase == "Succeeded", 90)
    async with _guest(cluster, "finished") as guest:
        with pytest.raises(GuestUnavailableError, match="has ended"):
            await guest.connect()
    nobody = config.model_copy(update={"impersonate_user": "nobody-at-all"})
    async with await Cluster.connect(nobody) as theirs, _guest(theirs, "shell-less") as guest:
        with pytest.raises(GuestUnavailableError, match="forbidden") as caught:
            await guest.connect()
        assert "doctor" in (caught.value.hint or "")


async def test_a_mounted_guest_needs_nothing_of_the_image(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """No shell, a read-only root, a user who is nobody; of several programs the machine's own is run."""
    guest = guest_mount(namespace=cluster.namespace)
    await cluster.create(guest.config_map)
    strict = {"runAsUser": 12345, "runAsGroup": 12345, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
    security = {"securityContext": strict | {"allowPrivilegeEscalation": False}}
    bare = pod(
        "bare",
        image=reference("binary"),
        command=["/app"],
        volumeMounts=[guest.mount],
        spec={"volumes": [guest.volume]},
        **security,
    )
    (state,) = await running(cluster, bare)
    async with _guest(cluster, "bare", guest_path=GUEST_PATH) as client:
        await asyncio.wait_for(client.connect(), 60)
        done = await _run(client, f"{GUEST_PATH.rpartition('/')[0]}/guest-{os.uname().machine}", "version")
        assert (done.exit_code, done.stdout) == (0, b"1\n")
        with pytest.raises(OSError, match="Read-only"):
            await client.files.write_file("/x", b"")
        await client.files.write_file("/dev/shm/x", b"there is one place")
        assert await client.files.read_file("/dev/shm/x") == b"there is one place"
    machine = os.uname().machine
    # Where nobody says what the node is, the programs are tried.
    monkeypatch.setattr("sandboxcore_kubernetes.channel._MACHINES", ("aarch64", "x86_64"))
    cluster.machines[state.node] = ""
    async with _guest(cluster, "bare", guest_path=GUEST_PATH) as client:
        await asyncio.wait_for(client.connect(), 60)
    assert cluster.machines[state.node] == machine


async def test_many_streams_are_opened_a_few_at_a_time(cluster: Cluster) -> None:
    await running(cluster, pod("crowd"))
    gate = cluster.opening((await cluster.get("Pod", "crowd"))["spec"]["nodeName"])
    most = 0

    async def enter(stack: contextlib.AsyncExitStack) -> ExecResult:
        guest = await stack.enter_async_context(_guest(cluster, "crowd"))
        return await _run(guest, "echo", "in")

    async def look() -> None:
        nonlocal most
        while True:
            most = max(most, cluster.config.openings_at_once - gate._value)
            await asyncio.sleep(0.002)

    looking = asyncio.create_task(look())
    async with contextlib.AsyncExitStack() as stack:
        results = await asyncio.gather(*(enter(stack) for _ in range(24)))
    looking.cancel()
    assert {each.stdout for each in results} == {b"in\n"}
    assert 1 < most <= cluster.config.openings_at_once
    assert gate._value == cluster.config.openings_at_once


class _Collect(asyncio.Protocol):
    def __init__(self) -> None:
        self.data = b""
        self.changed = asyncio.Event()
        self.ended: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()

    def data_received(self, data: bytes) -> None:
        self.data += data
        self.changed.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended.set_result(exc)
        self.changed.set()

    async def until(self, size: int) -> None:
        async with asyncio.timeout(60):
            while len(self.data) < size and not self.ended.done():
                self.changed.clear()
                await self.changed.wait()


async def test_a_port_is_reached(cluster: Cluster) -> None:
    await running(cluster, pod("echoes", command=_SERVER))
    data = os.urandom(1 << 20)
    async with asyncio.timeout(60):
        while True:  # until it listens
            protocol = _Collect()
            stream = await cluster.port_forward("echoes", 7000, protocol)
            stream.write(data)
            await protocol.until(len(data))
            if protocol.data:
                break
    assert protocol.data == data
    stream.close()
    await asyncio.wait_for(protocol.ended, 60)
    refused = _Collect()
    await cluster.port_forward("echoes", 7001, refused)
    error = await asyncio.wait_for(refused.ended, 60)
    assert isinstance(error, ConnectionRefusedError)
    assert "7001" in str(error)


class _Pausing(_Collect):
    """Pauses at every piece, and goes on only when it is told to."""

    stream: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.stream = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self.stream.pause_reading()


async def test_a_reader_that_pauses_gets_all_of_what_has_ended(cluster: Cluster) -> None:
    served = "while true; do yes | head -c 100000 | nc -l -p 7000; touch /tmp/served; done"
    await running(cluster, pod("ends", command=["sh", "-c", served]))
    async with asyncio.timeout(90), _guest(cluster, "ends") as guest:
        while True:
            protocol = _Pausing()
            await cluster.port_forward("ends", 7000, protocol)
            await protocol.until(1)
            if protocol.data:
                break
        await _run(guest, "sh", "-c", "until [ -e /tmp/served ]; do sleep 0.05; done")
        while not protocol.ended.done():
            protocol.stream.resume_reading()
            await asyncio.sleep(0.05)
    assert protocol.ended.result() is None
    assert len(protocol.data) == 100000


async def test_a_reader_that_pauses_holds_the_far_end_up(cluster: Cluster) -> None:
    """What nobody takes is not piled up here."""
    await running(cluster, pod("floods", command=["sh", "-c", "while true; do nc -l -p 7000 -e yes; done"]))
    async with asyncio.timeout(90):
        while True:
            protocol = _Collect()
            stream = await cluster.port_forward("floods", 7000, protocol)
            await protocol.until(1)
            if protocol.data:
                break
    stream.pause_reading()
    before = len(protocol.data)
    await asyncio.sleep(0.5)
    assert len(protocol.data) == before
    assert sum(len(data) for data in stream._held) < 1 << 20  # type: ignore[attr-defined]
    stream.resume_reading()
    await protocol.until(before + (1 << 20))
    assert set(protocol.data) <= set(b"y\n")
    stream.abort()
    await asyncio.wait_for(protocol.ended, 60)
