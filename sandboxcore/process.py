"""A command that runs: its input, its output and its end."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING

from ._closing import finish
from .errors import ExecTimeoutError, OutputLimitExceededError, UsageError

if TYPE_CHECKING:
    from types import TracebackType

    from ._events import Span
    from .abc import ProcessHandle
    from .plugins import Binding
    from .values import Chunk, ExecRequest, ExecResult

__all__ = ("Process", "ProcessInput", "Starting")

#: Seconds that a sandbox gets for killing a command whose block was left.
KILL_SECONDS = 15.0


class ProcessInput:
    """Standard input of a running command."""

    __slots__ = ("_handle",)

    def __init__(self, handle: ProcessHandle) -> None:
        self._handle = handle

    async def write(self, data: bytes | str) -> None:
        """Send bytes (text as UTF-8); waits while the command does not read.

        Raises:
            BrokenPipeError: The command has closed its standard input, or ended.
        """
        await self._handle.write(data.encode() if isinstance(data, str) else data)

    async def close(self) -> None:
        """Let the command read end-of-file. Idempotent."""
        await self._handle.write_eof()


class Process:
    """A running command."""

    __slots__ = ("_handle", "_result", "stdin")

    def __init__(self, handle: ProcessHandle) -> None:
        self._handle = handle
        self._result: ExecResult | None = None
        #: What the command reads; open until ``close`` is called on it.
        self.stdin = ProcessInput(handle)

    @property
    def pid(self) -> int | None:
        """Its process id in the sandbox."""
        return self._handle.pid

    def output(self) -> AsyncIterator[Chunk]:
        """Yield output as it comes, until both streams end. While nobody reads, the command is held up."""
        return self._handle.output()

    async def wait(self) -> ExecResult:
        """Wait for the end; output that nobody read is dropped.

        Raises:
            ExecTimeoutError: The timeout ran out; the command and all that it started were killed.
            OutputLimitExceededError: It wrote too much; likewise.
            SandboxUnavailableError: The sandbox was lost; ``started`` tells what became of the command.
        """
        if self._result is None:
            self._result = await self._handle.wait()
        return self._result

    async def communicate(self, data: bytes | str = b"") -> ExecResult:
        """Send what is left of the input, close it, and wait for the end.

        Returns:
            The result, with the output that nobody had read.

        Raises:
            ExecTimeoutError, OutputLimitExceededError: As ``wait``; the output is in ``result``.
        """
        collected: dict[str, list[bytes]] = {"stdout": [], "stderr": []}
        feeding = asyncio.ensure_future(self._feed(data))
        try:
            async for chunk in self._handle.output():
                collected[chunk.stream].append(chunk.data)
            result = await self.wait()
        except (ExecTimeoutError, OutputLimitExceededError) as error:
            if error.result is not None:
                error.result = _with_output(error.result, collected)
            raise
        finally:
            feeding.cancel()
            await asyncio.gather(feeding, return_exceptions=True)
        return _with_output(result, collected)

    async def signal(self, number: int) -> None:
        """Send a signal to the program. One that has ended already is no error."""
        await self._handle.signal(number)

    async def kill(self) -> None:
        """Kill the program and all that it started, and wait until they are gone. Idempotent."""
        await self._handle.kill()

    async def resize(self, columns: int, rows: int) -> None:
        """Change the size of its terminal; without a terminal nothing happens."""
        await self._handle.resize(columns, rows)

    async def _feed(self, data: bytes | str) -> None:
        # A command need not read its input to the end.
        with contextlib.suppress(BrokenPipeError):
            if data:
                await self.stdin.write(data)
            await self.stdin.close()


def _with_output(result: ExecResult, collected: dict[str, list[bytes]]) -> ExecResult:
    stdout, stderr = b"".join(collected["stdout"]), b"".join(collected["stderr"])
    return dataclasses.replace(result, stdout=stdout or result.stdout, stderr=stderr or result.stderr)


class Starting:
    """What ``Sandbox.start`` returns: enters by starting the command, leaves by killing what still runs."""

    __slots__ = ("_begin", "_bind", "_process", "_request", "_span")

    def __init__(self, bind: Callable[[], Binding], request: ExecRequest, begin: Callable[[], Span]) -> None:
        self._bind = bind
        self._request = request
        self._begin = begin
        self._span: Span | None = None
        self._process: Process | None = None

    async def __aenter__(self) -> Process:
        if self._span is not None:
            raise UsageError("this command was started before; call start() once for each")
        self._span = span = self._begin()
        try:
            handle = await self._bind().executor.start(self._request)
        except BaseException as error:
            span.failed(error)
            raise
        self._process = Process(handle)
        return self._process

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        process, span = self._process, self._span
        if process is None or span is None:
            return
        result = process._result
        if result is None:
            try:
                await finish(process.kill(), seconds=KILL_SECONDS, what=f"killing {self._request.argv[0]!r}")
            finally:
                span.end()
        else:
            span.end(exit_code=result.exit_code)
