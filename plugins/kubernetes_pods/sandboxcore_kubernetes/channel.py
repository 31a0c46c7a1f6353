"""A way into a pod: the API server's exec, as a byte stream for the guest."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sandboxcore.abc import Channel
from sandboxcore.errors import GuestUnavailableError, SandboxUnavailableError

from .errors import ApiError
from .pods import PodState, pod_state
from .streams import EXEC, ChannelStream, open_stream, read_status

if TYPE_CHECKING:
    from .cluster import Cluster

__all__ = ("PodChannel",)

_MACHINES = ("x86_64", "aarch64")
#: Seconds after which a stream that says nothing no longer counts as in the making.
_SLOW = 10.0
#: What container runtimes say of a program that can't be started, and never will be.
_NO_PROGRAM = ("no such file or directory", "executable file not found", "permission denied", "not a directory")


class PodChannel(Channel):
    """Runs programs in a container of a pod, with the stream as their stdin and stdout.

    Args:
        cluster: The client; it is not closed with the channel.
        namespace: Of the pod.
        pod: Its name.
        container: None: its first.
        uid: Of the pod; another pod of the same name is another sandbox. None: whatever is there at the first stream.
        guest_path: Where the guest is mounted, with ``{machine}`` where its file is one of several (see ``GUEST_PATH``).
        machine: ``uname -m`` of the node, where it is known.
        mount_hint: What to do where the guest would have to be mounted: in an image without a shell.
    """

    keepalive = 25.0

    def __init__(
        self,
        cluster: Cluster,
        *,
        namespace: str,
        pod: str,
        container: str | None = None,
        uid: str | None = None,
        guest_path: str = "",
        machine: str = "",
        mount_hint: str = "an image without sh needs the guest mounted (see the backend's documentation)",
    ) -> None:
        self._mount_hint = mount_hint
        self._cluster = cluster
        self._namespace = namespace
        self._pod = pod
        self._container = container
        self._uid = uid
        self._restarts: int | None = None
        self._admitted = False  # once: an API server that starts refuses those for a moment whose rights it has not read yet
        self._template = guest_path
        self.machine = machine
        self._path = f"/api/v1/namespaces/{namespace}/pods/{pod}"

    @property
    def guest_path(self) -> str:  # type: ignore[override]
        """Path of the mounted guest for the machine, as far as that is known."""
        return self._template.replace("{machine}", self.machine or _MACHINES[0])

    async def open(self, argv: Sequence[str], protocol: asyncio.BaseProtocol) -> asyncio.Transport:
        """Open a stream; see ``Channel.open``. Costs one GET of the pod and one exec.

        Raises:
            GuestUnavailableError: The pod is gone, was replaced, has ended, or its container was restarted since the last
                stream (said once; what comes after that runs in the new container).
            SandboxUnavailableError: The API server or the node can't be reached now.
        """
        wanted = list(argv)
        guest = self.guest_path
        try:
            pod = pod_state(await self._cluster.request("GET", self._path))
            self._check(pod)
            await self._choose_machine(pod)
            if guest and wanted[0] == guest:
                wanted[0] = self.guest_path
            stream = await self._exec(wanted, protocol, pod.node)
            self._admitted = True
            return stream
        except ApiError as error:
            raise self._translate(error) from error
        except TimeoutError as error:
            raise SandboxUnavailableError(f"pod {self._pod} does not answer in time", started="no") from error

    async def _exec(self, argv: list[str], protocol: asyncio.BaseProtocol, node: str) -> asyncio.Transport:
        """Open the stream. It counts as in the making until the first byte, though it is returned before."""
        query = [("command", word) for word in argv]
        query += [("container", self._container or ""), ("stdin", "true"), ("stdout", "true"), ("stderr", "true")]
        gate = self._cluster.opening(node)
        await gate.acquire()
        slot = _Slot(gate)
        try:
            layout = EXEC[self._cluster.config.exec_protocol]
            return await open_stream(self._cluster, self._path + "/exec", query, layout, protocol, self._reason, slot.free)
        except BaseException:
            slot.free()
            raise

    def _check(self, pod: PodState) -> None:
        """See to it that this is still the pod, and the container, that the sandbox is."""
        self._uid = self._uid or pod.uid
        named = [each for each in pod.containers if self._container in (None, each.name)]
        container = named[0] if named else None
        if pod.uid != self._uid:
            what = f"pod {self._pod} was replaced by another of the same name: all that the sandbox held is lost"
            raise GuestUnavailableError(what, hint="find the environment again to use the new pod")
        if container is None:
            raise GuestUnavailableError(f"pod {self._pod} has no container {self._container!r}")
        self._container = container.name
        if pod.phase in ("Succeeded", "Failed"):
            why = pod.message or pod.reason or container.reason
            raise GuestUnavailableError(f"pod {self._pod} has ended ({pod.phase}{': ' + why if why else ''})")
        before, self._restarts = self._restarts, container.restarts
        if before is not None and container.restarts > before:
            raise GuestUnavailableError(_restarted(self._pod, container.name, container.restarts, _last_end(container)))
        if container.state != "running":
            why = container.reason or pod.reason or pod.phase
            self._restarts = before
            raise SandboxUnavailableError(f"container {container.name} of pod {self._pod} does not run: {why}", started="no")

    async def _choose_machine(self, pod: PodState) -> None:
        if self.machine or "{machine}" not in self._template:
            return
        asked = ((pod.raw.get("spec") or {}).get("nodeSelector") or {}).get("kubernetes.io/arch", "")
        known = {"amd64": "x86_64", "arm64": "aarch64"}.get(asked)
        self.machine = known or await self._cluster.machine(pod.node) or await self._try_machines(pod.node)

    async def _try_machines(self, node: str) -> str:
        """Find out which of the programs runs there, where nobody says what the node is."""
        for machine in _MACHINES:
            answer = _Answer()
            await self._exec([self._template.replace("{machine}", machine), "version"], answer, node)
            async with asyncio.timeout(self._cluster.config.request_timeout):
                await answer.ended
            if answer.data:
                self._cluster.machines[node] = machine
                return machine
        raise GuestUnavailableError(f"none of the guests mounted in pod {self._pod} runs there ({', '.join(_MACHINES)})")

    def _translate(self, error: ApiError) -> SandboxUnavailableError:
        # The node's own answer has no reason: a kubelet that has just started does not know its pods yet.
        if error.status == 404 and error.reason:
            return GuestUnavailableError(f"pod {self._pod} is gone: {error.message}")
        final = (400, 405) if self._admitted else (400, 401, 403, 405)
        if error.status in final:
            return GuestUnavailableError(f"no stream into pod {self._pod}: {error.message}", hint=error.hint)
        return SandboxUnavailableError(f"no stream into pod {self._pod}: {error.message}", started="no", hint=error.hint)

    def _reason(self, stream: ChannelStream) -> BaseException | None:
        """Say why a stream ended."""
        status = read_status(stream)
        if not status:
            why = stream.close_reason or (str(stream.error) if stream.error else "")
            text = f"the stream into pod {self._pod} broke{': ' + why if why else ''}"
            return SandboxUnavailableError(text, started="no")
        message = _one_line(status.get("message", ""))
        said = _one_line(stream.text.decode(errors="replace"))
        if status.get("reason") == "NonZeroExitCode" or status.get("status") == "Success":
            text = f"the guest's relay in pod {self._pod} ended ({_exit(status)}){': ' + said if said else ''}"
            return SandboxUnavailableError(text, started="no")
        if any(words in message for words in _NO_PROGRAM):
            return GuestUnavailableError(f"nothing can be started in pod {self._pod}: {message}", hint=self._mount_hint)
        return SandboxUnavailableError(f"no stream into pod {self._pod}: {message}", started="no")


class _Answer(asyncio.Protocol):
    """Collects the little that a program says."""

    def __init__(self) -> None:
        self.data = b""
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def data_received(self, data: bytes) -> None:
        """Keep it."""
        self.data += data

    def connection_lost(self, exc: Exception | None) -> None:
        """Take note of the end."""
        if not self.ended.done():
            self.ended.set_result(None)


class _Slot:
    """A place among those in the making; given back once."""

    def __init__(self, gate: asyncio.Semaphore) -> None:
        self._gate: asyncio.Semaphore | None = gate
        self._timer = asyncio.get_running_loop().call_later(_SLOW, self.free)

    def free(self) -> None:
        """Let the next one in."""
        self._timer.cancel()
        gate, self._gate = self._gate, None
        if gate is not None:
            gate.release()


def _last_end(container: Any) -> str:
    words = [container.last_reason or "ended"]
    if container.last_exit_code is not None:
        words.append(f"exit code {container.last_exit_code}")
    return ", ".join(words)


def _restarted(pod: str, container: str, restarts: int, end: str) -> str:
    times = "once" if restarts == 1 else f"{restarts} times by now"
    return f"container {container} of pod {pod} was restarted ({times}; {end}): what ran in it and what it wrote is lost"


def _exit(status: dict[str, Any]) -> str:
    causes = (status.get("details") or {}).get("causes") or ()
    code = next((cause.get("message") for cause in causes if cause.get("reason") == "ExitCode"), None)
    return f"exit code {code}" if code else "well"


def _one_line(text: str) -> str:
    return " ".join(text.split())[:600]
