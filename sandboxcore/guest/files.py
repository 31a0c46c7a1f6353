"""Files through the guest: each operation is a command of its own kind, fed and drained as the others are."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from .. import errors
from ..abc import FileReader, FileStore, FileWriter
from ..values import FileInfo
from . import protocol
from .protocol import End, FileOp, Phase, Why

if TYPE_CHECKING:
    from .command import Command
    from .connection import Connection

__all__ = ("GuestFileReader", "GuestFileStore", "GuestFileWriter")

_PIECE = 1 << 20


class GuestFileStore(FileStore):
    """Moves files in and out of one sandbox through its guest."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def open_read(self, path: str, *, user: str | None = None) -> FileReader:
        """Open a file for reading."""
        command = self._submit(FileOp.READ, path, user=user, live=True)
        await _started(self._connection, command, path, user)
        return GuestFileReader(self._connection, command, path)

    async def open_write(self, path: str, *, mode: int | None = None, user: str | None = None) -> FileWriter:
        """Begin a file."""
        command = self._submit(FileOp.WRITE, path, mode=_mode(mode), user=user)
        await _started(self._connection, command, path, user)
        return GuestFileWriter(self._connection, command, path)

    async def read_file(self, path: str, *, user: str | None = None) -> bytes:
        """Read a whole file."""
        return await self._run(FileOp.READ, path, user=user)

    async def read_if_small(self, path: str, *, user: str | None = None) -> bytes | None:
        """Read a whole file of at most 64 KiB; None where it is larger, for callers that have a faster way for those."""
        command = self._submit(FileOp.READ, path, flag=True, user=user)
        try:
            await self._finish(command, path, user)
        except OSError as error:
            if error.errno == errno.EFBIG:
                return None
            raise
        return command.output(0)

    async def write_file(self, path: str, data: bytes, *, mode: int | None = None, user: str | None = None) -> None:
        """Write a whole file, atomically."""
        command = self._submit(FileOp.WRITE, path, mode=_mode(mode), user=user)
        command.give_stdin(data)
        command.end_stdin()
        self._connection.push_stdin(command)
        await self._finish(command, path, user)

    async def list_dir(self, path: str, *, user: str | None = None) -> Sequence[FileInfo]:
        """List a directory, sorted by name."""
        found = protocol.parse_files(await self._run(FileOp.LIST, path, user=user), "" if path in (".", "") else path)
        return sorted(found, key=lambda info: info.name)

    async def stat(self, path: str, *, follow: bool = True, user: str | None = None) -> FileInfo:
        """Describe a file."""
        return protocol.parse_files(await self._run(FileOp.STAT, path, flag=follow, user=user), None)[0]

    async def remove(self, path: str, *, recursive: bool = False, user: str | None = None) -> None:
        """Remove a file, an empty directory, or a tree."""
        await self._run(FileOp.REMOVE, path, flag=recursive, user=user)

    async def make_dir(self, path: str, *, mode: int = 0o755, parents: bool = True, user: str | None = None) -> None:
        """Make a directory."""
        await self._run(FileOp.MKDIR, path, flag=parents, mode=mode, user=user)

    def _submit(
        self, op: FileOp, path: str, *, flag: bool = False, mode: int = -1, user: str | None = None, live: bool = False
    ) -> Command:
        if "\0" in path or "\0" in (user or ""):
            raise errors.file_error(errno.EINVAL, path, hint="a path can't hold a NUL byte")

        def frame(command_id: int) -> bytes:
            return protocol.file(command_id, op, path, flag=flag, mode=mode, user=user or "")

        return self._connection.submit(frame, is_file=True, live=live)

    async def _run(self, op: FileOp, path: str, *, flag: bool = False, mode: int = -1, user: str | None = None) -> bytes:
        command = self._submit(op, path, flag=flag, mode=mode, user=user)
        await self._finish(command, path, user)
        return command.output(0)

    async def _finish(self, command: Command, path: str, user: str | None) -> None:
        try:
            end = await command.done
        except asyncio.CancelledError:
            await self._connection.see_off(command)
            raise
        _check(end, path, user)


class GuestFileReader(FileReader):
    """An open file in a sandbox."""

    def __init__(self, connection: Connection, command: Command, path: str) -> None:
        self._connection = connection
        self._command = command
        self._path = path
        self._read = 0
        self._rest = b""

    async def read(self, max_bytes: int = _PIECE) -> bytes:
        """Read on."""
        if not self._rest:
            self._rest = await self._next()
        data, self._rest = self._rest[:max_bytes], self._rest[max_bytes:]
        return data

    async def _next(self) -> bytes:
        command = self._command
        while not command.chunks:
            if command.done.done():
                _check(command.done.result(), self._path, None)
                return b""
            await command.changed()
        _, data = command.chunks.popleft()
        self._read += len(data)
        if not command.done.done():
            self._connection.send(command.consumed(0, self._read))
        return data

    async def aclose(self) -> None:
        """Stop reading."""
        self._connection.abandon(self._command)
        self._rest = b""


class GuestFileWriter(FileWriter):
    """A file in the making in a sandbox."""

    def __init__(self, connection: Connection, command: Command, path: str) -> None:
        self._connection = connection
        self._command = command
        self._path = path

    async def write(self, data: bytes) -> None:
        """Append bytes."""
        command = self._command
        view = memoryview(bytes(data))  # which is no copy of bytes, and one of what its owner may change
        while view:
            while not command.stdin_room and not command.done.done():
                await command.changed()
            if command.done.done():
                _check(command.done.result(), self._path, None)
                raise errors.file_error(errno.EBADF, self._path, hint="the file is committed or aborted already")
            if command.stdin_closed:
                await command.changed()
                continue
            command.give_stdin(view[:_PIECE])
            self._connection.push_stdin(command)
            view = view[_PIECE:]

    async def commit(self) -> None:
        """Put the file in its place."""
        command = self._command
        command.end_stdin()
        self._connection.push_stdin(command)
        try:
            end = await asyncio.shield(command.done)
        except asyncio.CancelledError:
            await self._connection.see_off(command)
            raise
        _check(end, self._path, None)

    async def abort(self) -> None:
        """Throw away what was written, and wait until it is gone."""
        command = self._command
        self._connection.kill(command)
        while not command.done.done():
            await command.changed()


def _mode(mode: int | None) -> int:
    return -1 if mode is None else mode & 0o7777


async def _started(connection: Connection, command: Command, path: str, user: str | None) -> None:
    await connection.until_started(command)
    if command.done.done():
        _check(command.done.result(), path, user)


def _check(end: End, path: str, user: str | None) -> None:
    """Raise what a failed file operation means."""
    if end.phase == Phase.USER:
        why = "no such user or group in the sandbox" if end.errno == errno.ENOENT else os.strerror(end.errno)
        raise errors.SandboxUserUnsupportedError(f"can't act as user {user!r}: {why}")
    if end.why in (Why.LOST, Why.LEASE):
        raise errors.SandboxUnavailableError(f"the process that was at {path!r} was killed", started="yes")
    if end.phase in (Phase.SPAWN, Phase.FORGOTTEN):
        started: errors.Started = "no" if end.phase == Phase.SPAWN else "unknown"
        raise errors.SandboxUnavailableError(f"the sandbox can't work on {path!r}: {os.strerror(end.errno)}", started=started)
    if end.phase:
        raise errors.file_error(end.errno, path)
