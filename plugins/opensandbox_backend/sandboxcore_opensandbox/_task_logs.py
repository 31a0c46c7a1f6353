"""What commands that run as tasks wrote: the task-executor keeps it in files of the pod."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from sandboxcore.errors import CapabilityError, SandboxFileError

from ._pod_channel import BatchChannel

if TYPE_CHECKING:
    from sandboxcore.values import SandboxRef

    from ._connection import Connection

__all__ = ("task_logs",)

#: Source: kubernetes/internal/task-executor of OpenSandbox; a folder a task, with ``stdout`` and ``stderr`` (``.log``).
_FOLDER = "/var/lib/sandbox/tasks"


async def task_logs(sandbox: SandboxRef, connection: Connection, tail: int | None) -> AsyncIterator[bytes]:
    """Yield the output, then the errors, of a service's task.

    Raises:
        CapabilityError: The service runs nothing of its own.
        SandboxUnavailableError: The pod is gone.
    """
    if not sandbox.data.get("tasks"):
        raise CapabilityError(
            f"service {sandbox.service!r} is from a pool and runs no command of its own, so there is no log of it",
            hint=f"what the pool's pod wrote is in kubectl logs {sandbox.data.get('pod')}",
        )
    from sandboxcore.guest import Guest

    guest = Guest(BatchChannel(sandbox, connection))
    try:
        for stream in ("stdout", "stderr"):
            data = await _read(guest, stream)
            yield data if tail is None else b"".join(data.splitlines(keepends=True)[-tail:])
    finally:
        await guest.aclose()


async def _read(guest: object, stream: str) -> bytes:
    from sandboxcore.guest import Guest

    assert isinstance(guest, Guest)
    found: list[bytes] = []
    try:
        for task in await guest.files.list_dir(_FOLDER):
            if task.type == "directory":
                entries = await guest.files.list_dir(task.path)
                found += [await guest.files.read_file(entry.path) for entry in entries if entry.name.startswith(stream)]
    except SandboxFileError:
        return b"".join(found)
    return b"".join(found)
