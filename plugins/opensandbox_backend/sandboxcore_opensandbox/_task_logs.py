"""What commands that run as tasks wrote, and how they ended: the task-executor keeps it in files of the pod."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from sandboxcore.errors import CapabilityError, SandboxFileError

from ._pod_channel import BatchChannel

if TYPE_CHECKING:
    from sandboxcore.guest import Guest
    from sandboxcore.values import SandboxRef

    from ._connection import Connection

__all__ = ("task_logs",)

#: Source: kubernetes/internal/task-executor/runtime/process.go of OpenSandbox; a folder a task, called as its object and index.
_FOLDER = "/var/lib/sandbox/tasks"


async def task_logs(sandbox: SandboxRef, connection: Connection, tail: int | None) -> AsyncIterator[bytes]:
    """Yield the output, then the errors, of a service's task, and when it has ended a line that says so.

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
    last = b""
    try:
        folder = await _folder(guest, sandbox.data["batch"])
        # First how it ended: nothing comes after that, while what is read before it may not be all.
        code = (await _read(guest, folder, "exit")).decode(errors="replace")
        for stream in ("stdout.log", "stderr.log"):
            data = await _read(guest, folder, stream)
            lines = data.splitlines(keepends=True)
            yield data if tail is None else b"".join(lines[max(0, len(lines) - tail) :])
            last = data or last
        if code:
            begin = "\n" if last and not last.endswith(b"\n") else ""
            yield f"{begin}sandboxcore: the command of service {sandbox.service!r} ended with exit code {code}\n".encode()
    finally:
        await guest.aclose()


async def _folder(guest: Guest, batch: str) -> str:
    """Find the folder of the task; a pod that is used again may have those of others, too."""
    try:
        entries = await guest.files.list_dir(_FOLDER)
    except SandboxFileError:
        return ""
    return next((entry.path for entry in entries if entry.name.startswith(f"{batch}-")), "")


async def _read(guest: Guest, folder: str, name: str) -> bytes:
    try:
        return await guest.files.read_file(f"{folder}/{name}") if folder else b""
    except SandboxFileError:
        return b""
