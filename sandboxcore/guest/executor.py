"""Commands through the guest: requests to frames, and ends to results and errors."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, NoReturn

from .. import errors
from ..abc import Executor, ProcessHandle
from ..values import Chunk, ExecRequest, ExecResult
from . import protocol
from .protocol import End, Phase, Why

if TYPE_CHECKING:
    from .command import Command
    from .connection import Connection

__all__ = ("GuestExecutor", "GuestProcess")

#: Seconds after a command's timeout in which the guest must have spoken; a guest kills within 1.5.
_GRACE = 5.0
#: Seconds that it is given beyond: had the whole machine stood still, the guest was not to blame, and may speak now.
_SECOND_GRACE = 2.0


class GuestExecutor(Executor):
    """Runs commands in one sandbox through its guest."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def exec(self, request: ExecRequest) -> ExecResult:
        """Run a command to its end."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        command = _submit(self._connection, request, live=False)
        guard = None if request.timeout is None else _Guard(self._connection, command, request.timeout)
        try:
            end = await command.done
        except asyncio.CancelledError:
            await self._connection.see_off(command)
            raise
        finally:
            if guard is not None:
                guard.cancel()
        return _result(request, end, command.output(0), command.output(1), loop.time() - began)

    async def start(self, request: ExecRequest) -> ProcessHandle:
        """Start a command and return when it runs."""
        process = GuestProcess(self._connection, request)
        await process.started()
        return process

    async def aclose(self) -> None:
        """Nothing is held here: the connection is the guest's."""


def _submit(connection: Connection, request: ExecRequest, *, live: bool) -> Command:
    feeds = request.stdin_stream or bool(request.stdin)
    command = connection.submit(lambda command_id: protocol.spawn(command_id, request, stdin=feeds), live=live)
    if feeds:
        if request.stdin:
            command.give_stdin(request.stdin)
        if not request.stdin_stream:
            command.end_stdin()
        connection.push_stdin(command)
    return command


class _Guard:
    """Gives a command up whose guest has not spoken though its time is over."""

    def __init__(self, connection: Connection, command: Command, timeout: float) -> None:
        self._connection, self._command = connection, command
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(timeout + _GRACE, self._doubt)

    def cancel(self) -> None:
        """Leave the command alone."""
        self._timer.cancel()

    def _doubt(self) -> None:
        self._timer = self._loop.call_later(_SECOND_GRACE, self._give_up)

    def _give_up(self) -> None:
        """The link is broken, or the sandbox stands still."""
        self._connection.abandon(self._command)
        message = "the command's timeout is over, and the sandbox does not answer"
        self._command.fail(errors.SandboxUnavailableError(message, started=self._command.has_started))


class GuestProcess(ProcessHandle):
    """A command that runs, through the guest."""

    def __init__(self, connection: Connection, request: ExecRequest) -> None:
        self._connection = connection
        self._request = request
        self._loop = asyncio.get_running_loop()
        self._began = self._loop.time()
        self._read = [0, 0]
        self._readers = 0
        self._command = _submit(connection, request, live=True)

    async def started(self) -> None:
        """Wait until the program runs; raises when it can't."""
        command = self._command
        await self._connection.until_started(command)
        if command.done.done():
            end = command.done.result()
            if end.phase and end.phase != Phase.EXEC:
                _fail(self._request, end)

    @property
    def pid(self) -> int | None:
        """Process id in the sandbox."""
        return self._command.pid

    async def write(self, data: bytes) -> None:
        """Send bytes to standard input."""
        command = self._command
        view = memoryview(data)
        while view:
            while not command.stdin_room and not command.done.done():
                await command.changed()
            if command.stdin_closed or command.done.done():
                raise BrokenPipeError(errno.EPIPE, "the command does not read its standard input any more")
            command.give_stdin(bytes(view[:65536]))
            self._connection.push_stdin(command)
            view = view[65536:]

    async def write_eof(self) -> None:
        """End standard input."""
        self._command.end_stdin()
        self._connection.push_stdin(self._command)

    async def output(self) -> AsyncIterator[Chunk]:
        """Yield output as it comes."""
        command = self._command
        self._readers += 1
        try:
            while True:
                while command.chunks:
                    stream, data = command.chunks.popleft()
                    self._read[stream] += len(data)
                    if not command.done.done():
                        self._connection.send(command.consumed(stream, self._read[stream]))
                    yield Chunk("stderr" if stream else "stdout", data)
                if command.done.done():
                    break
                await command.changed()
            if note := _launch_note(self._request, command.done.result()):
                yield Chunk("stderr", note)
        finally:
            self._readers -= 1  # asyncio may be late to close a generator that was left: whoever waits looks again
            command.wake()

    async def wait(self) -> ExecResult:
        """Wait for the end."""
        command = self._command
        await self._ended()
        end = await command.done
        return _result(self._request, end, b"", b"", self._loop.time() - self._began)

    async def _ended(self) -> None:
        while not self._command.done.done():
            if not self._readers:
                self._discard()
            await self._command.changed()

    def _discard(self) -> None:
        """Nobody reads: let the command write on."""
        command = self._command
        while command.chunks:
            stream, data = command.chunks.popleft()
            self._read[stream] += len(data)
        for stream, total in enumerate(self._read):
            self._connection.send(command.consumed(stream, total))

    async def signal(self, number: int) -> None:
        """Send a signal to the program."""
        if not self._command.done.done():
            self._connection.send_surely(self._command, protocol.signal(self._command.id, number))

    async def kill(self) -> None:
        """Kill the program and all that it started, and wait until they are gone."""
        command = self._command
        self._connection.kill(command)
        await self._ended()

    async def resize(self, columns: int, rows: int) -> None:
        """Change the size of the terminal."""
        if self._request.pty and not self._command.done.done():
            self._connection.send_surely(self._command, protocol.resize(self._command.id, columns, rows))


# --- what an end means ---


def _launch_note(request: ExecRequest, end: End) -> bytes:
    """What a shell would say of a program that can't be run."""
    if end.phase != Phase.EXEC:
        return b""
    return os.fsencode(f"sandboxcore: can't run {request.argv[0]}: {os.strerror(end.errno)}\n")


def _result(request: ExecRequest, end: End, stdout: bytes, stderr: bytes, duration: float) -> ExecResult:
    if end.phase == Phase.EXEC:
        code = 127 if end.errno in (errno.ENOENT, errno.ENOTDIR) else 126
        return ExecResult(exit_code=code, stderr=_launch_note(request, end), duration=duration)
    if end.phase:
        _fail(request, end)
    result = ExecResult(
        exit_code=end.exit_code,
        stdout=stdout,
        stderr=stderr,
        duration=duration,
        signal=end.signal,
        cpu_time=end.cpu_time,
        max_rss_bytes=end.max_rss_bytes,
    )
    if end.why in (Why.ITSELF, Why.KILLED):
        return result
    left = f"; {end.unkillable} of its processes could not be killed" if end.unkillable else ""
    if end.why == Why.TIMEOUT:
        raise errors.ExecTimeoutError(
            f"the command ran into its timeout of {request.timeout:g} s and was killed{left}", result=result
        )
    if end.why == Why.OUTPUT:
        limit = request.output_limit_bytes or 0
        stream = "stderr" if len(stderr) >= limit and len(stdout) < limit else "stdout"
        message = f"the command wrote more than {limit} bytes to {stream} and was killed{left}"
        hint = "raise output_limit_bytes, or stream the output with start()"
        raise errors.OutputLimitExceededError(message, result=result, stream=stream, limit_bytes=limit, hint=hint)
    what = "the process that minds it was killed" if end.why == Why.LOST else "its client was away for longer than the lease"
    raise errors.SandboxUnavailableError(f"the command was killed because {what}; its exit status is unknown", started="yes")


def _fail(request: ExecRequest, end: End) -> NoReturn:
    """Raise what a command's failure to start means."""
    reason = os.strerror(end.errno)
    if end.phase == Phase.USER:
        why = "no such user or group in the sandbox" if end.errno == errno.ENOENT else reason
        hint = "leave `user` out, or use a user of the image; a guest that is not root can't change its user"
        raise errors.SandboxUserUnsupportedError(f"can't run as user {request.user!r}: {why}", hint=hint)
    if end.phase == Phase.CWD:
        raise errors.file_error(end.errno, request.cwd or "", hint="the working directory of a command must exist")
    if end.phase == Phase.FORGOTTEN:
        raise errors.SandboxUnavailableError("the sandbox's guest has forgotten the command", started="unknown")
    trouble = "no terminal could be opened" if end.phase == Phase.PTY else "the sandbox can't start another process"
    advice = "its limit of processes, open files or memory is reached" if end.errno in _EXHAUSTED else None
    raise errors.SandboxUnavailableError(f"{trouble}: {reason}", started="no", hint=advice)


_EXHAUSTED = (errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE)
