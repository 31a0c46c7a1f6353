"""The log files that a guest writes: ``log``, and ``log.old`` which it is copied to when it is full."""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from ._launch import Process, readable
from ._state import read_small

__all__ = ("follow_log", "tail_log")

_BLOCK = 64 * 1024
_IN_MODIFY = 0x2
_FLAGS = os.O_NONBLOCK | os.O_CLOEXEC


def tail_log(folder: Path, lines: int | None) -> Iterator[bytes]:
    """Yield what is there now, or its last lines."""
    parts = [data for name in ("log.old", "log") if (data := _content(folder / name))]
    if lines is None:
        yield from parts
        return
    whole = b"".join(parts)
    last = b"".join(whole.splitlines(keepends=True)[-lines:]) if lines > 0 else b""
    if last:
        yield last


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


async def follow_log(folder: Path, lines: int | None) -> AsyncIterator[bytes]:
    """Yield what is there, or its last lines, and what comes, until the service ends."""
    watch = _Watch(folder / "log")
    pidfd = _open(folder)
    try:
        position = _Position(folder)
        for data in tail_log(folder, lines):
            yield data
        position.at_end()
        ended = pidfd is None
        while True:
            while data := position.read():
                yield data
            if ended:
                return
            ended = await watch.wait(pidfd) if pidfd is not None else True
    finally:
        watch.close()
        if pidfd is not None:
            os.close(pidfd)


def _open(folder: Path) -> int | None:
    process = Process.parse(read_small(folder / "process") or "")
    return process.open() if process else None


class _Position:
    """How far ``log`` has been read. A file that became shorter was copied to ``log.old`` and begins anew."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._offset = 0

    def at_end(self) -> None:
        try:
            self._offset = (self._folder / "log").stat().st_size
        except OSError:
            self._offset = 0

    def read(self) -> bytes:
        try:
            with (self._folder / "log").open("rb") as file:
                if file.seek(0, os.SEEK_END) < self._offset:
                    rest = _content(self._folder / "log.old")[self._offset :]
                    self._offset = 0
                    return rest or self._read_on(file.fileno())
                return self._read_on(file.fileno())
        except OSError:
            return b""

    def _read_on(self, fd: int) -> bytes:
        data = os.pread(fd, _BLOCK, self._offset)
        self._offset += len(data)
        return data


class _Watch:
    """Wakes up when a file is written; see inotify(7)."""

    def __init__(self, path: Path) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self._fd: int = libc.inotify_init1(_FLAGS)
        if self._fd < 0 or libc.inotify_add_watch(self._fd, os.fsencode(path), _IN_MODIFY) < 0:
            number = ctypes.get_errno()
            self.close()
            raise OSError(number, os.strerror(number), str(path))

    async def wait(self, pidfd: int) -> bool:
        """Wait for a write or the end of the process; True for the end."""
        await readable(self._fd, pidfd)
        with contextlib.suppress(BlockingIOError):
            os.read(self._fd, 4096)
        return bool(select.select([pidfd], [], [], 0)[0])

    def close(self) -> None:
        """Let go of the descriptor. Idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
