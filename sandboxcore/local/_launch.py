"""Short-lived programs and processes of others, awaited without a thread each."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ("Done", "Process", "memory_file", "run", "wait_gone")


@dataclass(frozen=True, kw_only=True)
class Done:
    """How a program ended."""

    status: int
    stdout: str
    stderr: str


@dataclass(frozen=True, kw_only=True)
class Process:
    """A process of this machine that is nobody else: its pid, and when it started (clock ticks since boot)."""

    pid: int
    started: int

    @classmethod
    def parse(cls, text: str) -> Process | None:
        """Read ``PID STARTED``; None if it is something else."""
        fields = text.split()
        if len(fields) != 2 or not all(field.isdigit() for field in fields):
            return None
        return cls(pid=int(fields[0]), started=int(fields[1]))

    def open(self) -> int | None:
        """Open a pidfd of it; None if it is gone, though its number may be another's now."""
        try:
            fd = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return None
        # Compared after opening: if it is the same now, the descriptor is of the right one.
        if _started(self.pid) == self.started:
            return fd
        os.close(fd)
        return None

    def alive(self) -> bool:
        """Tell whether it still runs."""
        return _started(self.pid, alive=True) == self.started


def _started(pid: int, *, alive: bool = False) -> int | None:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    if alive and fields[0] in ("Z", "X"):
        return None
    return int(fields[19])


def memory_file(content: bytes = b"") -> int:
    """Make a file without a name and return its descriptor, at the start."""
    fd = os.memfd_create("sandboxcore", os.MFD_CLOEXEC)
    view = memoryview(content)
    while view:
        view = view[os.write(fd, view) :]
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


async def readable(*fds: int) -> None:
    """Wait until one of the descriptors can be read from (a pidfd: until the process has ended)."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()
    for fd in fds:
        loop.add_reader(fd, _finish, future)
    try:
        await future
    finally:
        for fd in fds:
            loop.remove_reader(fd)


def _finish(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


async def wait_gone(process: Process) -> None:
    """Wait until a process has ended."""
    fd = process.open()
    if fd is None:
        return
    try:
        await readable(fd)
    finally:
        os.close(fd)


async def run(
    argv: Sequence[str], *, pass_fds: Sequence[int] = (), stderr: int | None = None, env: dict[str, str] | None = None
) -> Done:
    """Run a program to its end; cancelling kills it. It has no standard input, and an empty environment unless one is given.

    Args:
        stderr: Descriptor that its errors go to, and those of what it leaves behind; None: into the result.
    """
    stdout = memory_file()
    errors = memory_file() if stderr is None else stderr
    try:
        # asyncio's own would hold a thread for each child on Python 3.11.
        child = subprocess.Popen(  # noqa: ASYNC220
            argv, stdin=subprocess.DEVNULL, stdout=stdout, stderr=errors, pass_fds=pass_fds, env=env or {}, start_new_session=True
        )
        status = await _ended(child)
        return Done(status=status, stdout=_content(stdout), stderr=_content(errors) if stderr is None else "")
    finally:
        os.close(stdout)
        if stderr is None:
            os.close(errors)


async def _ended(child: subprocess.Popen[bytes]) -> int:
    pidfd = os.pidfd_open(child.pid)
    try:
        await readable(pidfd)
    except BaseException:
        # It leads a session of its own; what it meant to leave behind has left that already.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        raise
    finally:
        os.close(pidfd)
        child.wait()
    return child.returncode


def _content(fd: int) -> str:
    os.lseek(fd, 0, os.SEEK_SET)
    with open(fd, "rb", closefd=False) as file:
        return file.read().decode(errors="replace")
