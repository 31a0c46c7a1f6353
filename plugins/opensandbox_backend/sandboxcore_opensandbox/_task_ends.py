"""What became of commands that run as tasks: the controller counts them, and the task-executor of each pod knows its own.

Source: ``convertInternalToAPITask`` in kubernetes/internal/task-executor/server/handler.go of OpenSandbox.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sandboxcore._at_once import together
from sandboxcore._forwarding import dial
from sandboxcore_kubernetes import ApiError

from ._describe import pods_of
from ._notes import Notes, live_environments, read
from ._pool_template import TASK_PORT

if TYPE_CHECKING:
    from sandboxcore_kubernetes import Cluster, PodState

__all__ = ("TaskEnds", "exit_code")

Object = Mapping[str, Any]
#: HTTP/1.0, so that the answer ends where the stream does.
_REQUEST = b"GET /getTasks HTTP/1.0\r\n\r\n"
#: Seconds that all task-executors together get for their answers: leases are renewed after what is found here.
_PATIENCE = 2.0
#: How many are asked at once.
_AT_ONCE = 16


class TaskEnds:
    """Asks for exit codes, and remembers them: a task that has ended stays so."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], int] = {}

    async def of(
        self, cluster: Cluster, objects: Iterable[Object], pods: Mapping[str, PodState], environment_id: str | None = None
    ) -> dict[str, int | None]:
        """Tell the exit codes of tasks that have ended, by their pods; None where it has failed and its pod does not say how.

        Pods that do not answer in time are left out, as if their tasks went on; the next time they are asked again.

        Args:
            environment_id: The only environment that is of interest; None: all are.
        """
        found: dict[str, int | None] = {}
        asked: list[tuple[Object, str]] = []
        for obj in objects:
            notes = read(obj)
            if notes is None or not notes.tasks:
                continue
            names = _pods(obj, notes, environment_id)
            succeeded, failed, total = _counts(obj)
            if succeeded >= total:
                found |= dict.fromkeys(names, 0)
            elif succeeded or failed:
                found |= dict.fromkeys(names) if failed >= total else {}
                asked += [(obj, name) for name in names if name in pods and not pods[name].deleted]
        await self._ask_all(cluster, [(obj, pod) for obj, pod in asked if _key(obj, pod) not in self._known])
        return found | {pod: self._known[_key(obj, pod)] for obj, pod in asked if _key(obj, pod) in self._known}

    async def _ask_all(self, cluster: Cluster, asked: Sequence[tuple[Object, str]]) -> None:
        """Ask in another order each time, so that pods which never answer do not keep others from being asked."""
        room = asyncio.Semaphore(_AT_ONCE)

        async def ask(obj: Object, pod: str) -> None:
            async with room:
                answer = await _ask(cluster, obj["metadata"]["namespace"], pod)
            code = exit_code(answer, obj["metadata"]["name"])
            if code is not None:
                self._known[_key(obj, pod)] = code

        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_PATIENCE):
                await together(ask(obj, pod) for obj, pod in random.sample(asked, len(asked)))


def _key(obj: Object, pod: str) -> tuple[str, str]:
    return obj["metadata"]["uid"], pod


def _pods(obj: Object, notes: Notes, environment_id: str | None) -> list[str]:
    live = live_environments(obj, notes)
    return pods_of(obj, notes, [name for name in live if environment_id in (None, name)])


def _counts(obj: Object) -> tuple[int, int, int]:
    status = obj.get("status") or {}
    return int(status.get("taskSucceed") or 0), int(status.get("taskFailed") or 0), int(obj["spec"].get("replicas") or 0)


async def _ask(cluster: Cluster, namespace: str, pod: str) -> bytes:
    """Ask a pod's task-executor; nothing where it can't be reached."""
    try:
        reader, writer = await dial(lambda protocol: cluster.port_forward(pod, TASK_PORT, protocol, namespace=namespace))
        try:
            writer.write(_REQUEST)
            return await reader.read()
        finally:
            writer.transport.abort()
    except (ApiError, OSError):
        return b""


def exit_code(answer: bytes, batch: str) -> int | None:
    """Read from a task-executor's answer how the task of a BatchSandbox has ended; None: it has not, or that is not said."""
    head, _, body = answer.partition(b"\r\n\r\n")
    if b" 200 " not in head.partition(b"\r\n")[0]:
        return None
    try:
        tasks = [task for task in json.loads(body) if str(task["name"]).startswith(f"{batch}-")]
        ended = [(task.get("processStatus") or {}).get("terminated") for task in tasks]
        return next((int(end["exitCode"]) for end in ended if end), None)
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
