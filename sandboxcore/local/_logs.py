"""The log files that a guest writes: ``log``, and ``log.old`` which it is copied to when it is full."""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ._launch import Process, readable
from ._state import read_small

__all__ = ("follow_log", "tail_log")

_BLOCK = 64 * 1024
#: How often both files are read until none was begun anew in between.
_TRIES = 5
_IN_MODIFY = 0x2
_FLAGS = os.O_NONBLOCK | os.O_CLOEXEC


def tail_log(folder: Path, lines: int | None) -> Sequence[bytes]:
    """Return what is there now, or its last lines, in parts that are not empty."""
    return _last(_Position(folder).begin(), lines)


def _last(parts: Sequence[bytes], lines: int | None) -> Sequence[bytes]:
    if lines is not None:
        whole = b"".join(parts)
        parts = [b"".join(whole.splitlines(keepends=True)[-lines:]) if lines > 0 else b""]
    return [data for data in parts if data]


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
        for data in _last(position.begin(), lines):
            yield data
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
    """How far the log has been read. The guest copies ``log`` to ``log.old`` when it is full, then begins it anew."""

    def __init__(self, folder: Path) -> None:
        self._log, self._old = folder / "log", folder / "log.old"
        self._offset = 0
        self._copied = _Copy.of(self._old)

    def begin(self) -> Sequence[bytes]:
        """Read both files. What is written from now on is what ``read`` returns."""
        for _ in range(_TRIES):
            copied = self._copied
            old, log = _content(self._old), _content(self._log)
            self._copied = _Copy.of(self._old)
            if copied == self._copied:
                break
        self._offset = len(log)
        return old, log

    def read(self) -> bytes:
        """Read on; nothing if there is no more yet."""
        try:
            with self._log.open("rb") as file:
                # In this order: what is longer than a file that is looked at later was copied from it as a whole.
                copied = _Copy.of(self._old)
                size = file.seek(0, os.SEEK_END)
                if size < self._offset or (copied != self._copied and size < copied.size):
                    self._copied = _Copy.of(self._old)
                    rest = _content(self._old)[self._offset :]
                    self._offset = 0
                    return rest or self._read_on(file.fileno())
                return self._read_on(file.fileno())
        except OSError:
            return b""

    def _read_on(self, fd: int) -> bytes:
        data = os.pread(fd, _BLOCK, self._offset)
        self._offset += len(data)
        return data


@dataclass(frozen=True)
class _Copy:
    """What tells one ``log.old`` from the next."""

    size: int
    written_ns: int

    @classmethod
    def of(cls, path: Path) -> _Copy:
        """Look at it; a file that is not there is empty."""
        try:
            status = path.stat()
        except OSError:
            return cls(0, 0)
        return cls(status.st_size, status.st_mtime_ns)


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
        process = select.poll()  # select() takes no descriptor above 1023
        process.register(pidfd, select.POLLIN)
        return bool(process.poll(0))

    def close(self) -> None:
        """Let go of the descriptor. Idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
