"""Pods to break, commands whose every run leaves a mark, and a way to cut the link between them."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from sandboxcore.errors import SandboxUnavailableError, Started
from sandboxcore.guest import Guest
from sandboxcore.values import ExecRequest
from tests.cluster import kubeconfig as cluster_kubeconfig
from tests.cluster import kubectl, make_namespace, mend, own
from tests.images import reference

NAMESPACE = f"test-faults-{os.getpid()}"

#: Leaves a mark, waits for the file that its second argument names (none: for nothing), then counts to its first argument a
#: few steps a second, reads all of stdin, and ends with 7.
COUNTING = """echo "$0" >>/tmp/ran; i=0
while [ -n "$2" ] && [ ! -e "$2" ]; do sleep 0.05; done
while [ $i -lt $1 ]; do echo "line $i of $0"; i=$((i+1)); sleep 0.05; done
wc -c; exit 7"""


@dataclass(frozen=True)
class Outcome:
    """What became of one counting command."""

    name: str
    started: Started | None
    problem: str = ""


class Sandbox:
    """A pod, and the guest in it."""

    def __init__(self, pod: str, guest: Guest) -> None:
        self.pod = pod
        self.guest = guest

    async def run(self, *argv: str, timeout: float | None = None) -> bytes:
        """Run a command that must succeed and return what it printed."""
        result = await self.guest.executor.exec(ExecRequest(argv=argv, timeout=timeout))
        assert result.exit_code == 0, result
        return result.stdout

    async def count(self, name: str, lines: int = 60, stdin: bytes = b"x" * 3000, *, after: str = "") -> Outcome:
        """Run a counting command, whose result is right to the byte or else an honest error; it counts when a file is there."""
        request = ExecRequest(argv=["sh", "-c", COUNTING, name, str(lines), after], stdin=stdin)
        try:
            result = await self.guest.executor.exec(request)
        except SandboxUnavailableError as error:
            return Outcome(name, error.started, str(error))
        expected = "".join(f"line {number} of {name}\n" for number in range(lines)) + f"{len(stdin)}\n"
        assert result.stdout.decode() == expected, f"{name}: lines are lost, doubled or out of order"
        assert result.exit_code == 7
        return Outcome(name, None)

    async def marks(self) -> Counter[str]:
        """Count how often each command ran, as the pod itself knows."""
        return Counter((await self.run("cat", "/tmp/ran", timeout=30)).decode().split())

    async def honest(self, outcomes: Sequence[Outcome]) -> None:
        """Check that each command ran once, or as often as its error says."""
        marks = await self.marks()
        allowed = {None: {1}, "yes": {1}, "no": {0}, "unknown": {0, 1}}
        lies = {each.name: (marks[each.name], each) for each in outcomes if marks[each.name] not in allowed[each.started]}
        assert not lies, f"how often it ran, and what was said: {lies}"

    def alone(self) -> None:
        """Check that nothing is left in the pod but its own command; what ends may take half a minute for it."""
        deadline = time.monotonic() + 30
        while (left := self._processes()) != ["sleep"] and time.monotonic() < deadline:
            time.sleep(0.2)
        assert left == ["sleep"]

    def _processes(self) -> list[str]:
        """Name the processes in the pod, without those of this look and of the guest's own."""
        look = "for p in /proc/[0-9]*; do cat $p/comm; done; true"  # one may end before it is looked at
        text = kubectl("-n", NAMESPACE, "exec", self.pod, "--", "sh", "-c", look)
        return [name for name in text.split() if name not in ("sh", "cat") and not name.startswith("guest")]


def in_thread(*faults: Callable[[], object]) -> asyncio.Task[None]:
    """Make faults one after the other while the event loop serves the commands."""

    async def make() -> None:
        for fault in faults:
            await asyncio.to_thread(fault)

    return asyncio.create_task(make())


@pytest.fixture(scope="module")
def namespace() -> Iterator[str]:
    if own() is None:
        pytest.skip("this cluster is not ours to break")
    make_namespace(NAMESPACE)
    yield NAMESPACE
    mend()
    kubectl("delete", "namespace", NAMESPACE, "--wait=false")


def make_pod(name: str, **more: Any) -> None:
    """Make a pod that sleeps, and wait until it is ready."""
    container = {"name": "main", "image": reference("busybox"), "imagePullPolicy": "Never", "command": ["sleep", "3600"]}
    spec = {"containers": [container | more.pop("container", {})], "terminationGracePeriodSeconds": 0, **more}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}
    kubectl("-n", NAMESPACE, "apply", "-f", "-", text=json.dumps(pod))
    kubectl("-n", NAMESPACE, "wait", "--for=condition=Ready", "--timeout=60s", f"pod/{name}")


@asynccontextmanager
async def reached(pod: str, kubeconfig: Path | None = None, keepalive: float | None = None) -> AsyncIterator[Sandbox]:
    """Reach a pod's guest, through another kubeconfig and with more frequent pings where they are given."""
    from sandboxcore_kubernetes import Cluster, ClusterConfig, PodChannel

    config = ClusterConfig(kubeconfig=str(kubeconfig or cluster_kubeconfig()), namespace=NAMESPACE)
    async with await Cluster.connect(config) as cluster:
        channel = PodChannel(cluster, namespace=NAMESPACE, pod=pod)
        channel.keepalive = keepalive or channel.keepalive
        guest = Guest(channel)
        try:
            yield Sandbox(pod, guest)
        finally:
            await guest.aclose()


@pytest.fixture(scope="module")
def busybox(namespace: str) -> str:
    make_pod("busybox")
    return "busybox"


@pytest.fixture
async def sandbox(busybox: str) -> AsyncIterator[Sandbox]:
    """Give the module's pod, with no mark of an earlier test."""
    async with reached(busybox) as sandbox:
        await sandbox.run("rm", "-f", "/tmp/ran")
        yield sandbox


class Wire:
    """A way to the API server that can be cut, and frozen, between any two bytes."""

    def __init__(self, host: str, port: int) -> None:
        self._target = host, port
        self._writers: set[asyncio.StreamWriter] = set()
        self._frozen: set[asyncio.StreamWriter] = set()
        self.cuts = 0

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one connection's bytes both ways until it ends."""
        try:
            there = await asyncio.open_connection(*self._target)
        except OSError:
            writer.transport.abort()
            return
        ends = {writer, there[1]}
        self._writers |= ends
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(reader, there[1]))
                group.create_task(self._pump(there[0], writer))
        finally:
            self._writers -= ends
            self._frozen -= ends
            for end in ends:
                end.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                if writer not in self._frozen:
                    writer.write(data)
                    await writer.drain()
        except OSError:
            pass
        finally:
            writer.transport.abort()

    def cut(self) -> None:
        """Reset every connection."""
        self.cuts += bool(self._writers)
        for writer in self._writers:
            writer.transport.abort()

    def freeze(self) -> None:
        """Carry no byte more on any connection that there is, without a word to either end."""
        self._frozen |= self._writers


@asynccontextmanager
async def wired(folder: Path) -> AsyncIterator[tuple[Wire, Path]]:
    """Open a wire to the API server, and write the kubeconfig that leads through it."""
    config = json.loads(cluster_kubeconfig().read_text())
    cluster = config["clusters"][0]["cluster"]
    host, port = cluster["server"].removeprefix("https://").split(":")
    wire = Wire(host, int(port))
    server = await asyncio.start_server(wire.carry, "127.0.0.1", 0)
    cluster["server"] = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    path = folder / "wired.kubeconfig"
    path.write_text(json.dumps(config))
    try:
        yield wire, path
    finally:
        server.close()
        wire.cut()
        await server.wait_closed()
