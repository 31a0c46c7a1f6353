"""Connects a command in a sandbox with this process's own input, output and terminal."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..errors import SandboxError, UsageError
from ._stdio import STDERR, STDIN, STDOUT, ByteOutput, read_bytes
from ._terminal import raw_terminal, terminal_size

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from contextlib import AbstractContextManager

    from ..environment import Sandbox
    from ..process import Process

__all__ = ("CommandLine", "run_attached")


@dataclass(frozen=True, kw_only=True)
class CommandLine:
    """What to run and how it is connected.

    Args:
        argv: Program and arguments.
        interactive: Pass standard input on; without it the command reads end of file at once.
        tty: Give the command a terminal.
        timeout: Seconds until it is killed; None: never.
    """

    argv: tuple[str, ...]
    interactive: bool = False
    tty: bool = False
    user: str | None = None
    cwd: str | None = None
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    timeout: float | None = None

    @property
    def raw(self) -> bool:
        """Whether the user's terminal becomes the command's own."""
        return self.interactive and self.tty

    def check(self) -> None:
        """Refuse what can't work, before anything is created.

        Raises:
            UsageError: Nothing to run, or ``-i -t`` without a terminal.
        """
        if not self.argv:
            raise UsageError("there is no command to run", hint="put it at the end: ... -- COMMAND ARGUMENT...")
        if self.raw and not os.isatty(STDIN):
            raise UsageError("-i -t: standard input is no terminal", hint="leave out -t to pass on a file or a pipe")

    def variables(self) -> dict[str, str]:
        """Tell the environment variables: with a terminal its kind is added."""
        term = {"TERM": os.environ.get("TERM", "xterm")} if self.tty else {}
        return term | dict(self.env)


async def run_attached(sandbox: Sandbox, command: CommandLine) -> int:
    """Run a command, its output passed on as it comes, and return its exit code.

    Raises:
        ExecTimeoutError: It ran into its timeout. Its output so far has been passed on.
        BrokenPipeError: Nobody reads our standard output any more. The command was killed.
    """
    started = sandbox.start(
        command.argv,
        env=command.variables(),
        cwd=command.cwd,
        user=command.user,
        timeout=command.timeout,
        pty=command.tty,
        terminal_size=terminal_size(STDIN, STDOUT, STDERR),
    )
    with _terminal_of(command):
        async with started as process, _feeding(process, command), _resizing(process, command):
            await _pass_on(process)
            return (await process.wait()).exit_code


def _terminal_of(command: CommandLine) -> AbstractContextManager[None]:
    if command.raw:
        return raw_terminal(STDIN, keys=True)
    if command.tty and os.isatty(STDOUT):
        return raw_terminal(STDOUT, keys=False)
    return contextlib.nullcontext()


async def _pass_on(process: Process) -> None:
    outputs = {"stdout": ByteOutput(STDOUT), "stderr": ByteOutput(STDERR)}
    async for chunk in process.output():
        await outputs[chunk.stream].write(chunk.data)


@contextlib.asynccontextmanager
async def _feeding(process: Process, command: CommandLine) -> AsyncIterator[None]:
    """Pass standard input on while the block runs."""
    if not command.interactive:
        if not command.tty:  # the end of a terminal's input is a hang-up, not an absence
            await process.stdin.close()
        yield
        return
    feeder = asyncio.get_running_loop().create_task(_feed(process))
    try:
        yield
    finally:
        feeder.cancel()
        await asyncio.wait([feeder])


async def _feed(process: Process) -> None:
    # A command that reads no more, or is gone, shows in its output and its end; not here.
    with contextlib.suppress(BrokenPipeError, SandboxError):
        async for data in read_bytes(STDIN):
            await process.stdin.write(data)
        await process.stdin.close()


@contextlib.asynccontextmanager
async def _resizing(process: Process, command: CommandLine) -> AsyncIterator[None]:
    """Keep the command's terminal as large as the user's while the block runs."""
    if not command.tty:
        yield
        return
    loop = asyncio.get_running_loop()
    running: set[asyncio.Task[None]] = set()

    def resized() -> None:
        task = loop.create_task(_resize(process))
        running.add(task)
        task.add_done_callback(running.discard)

    loop.add_signal_handler(signal.SIGWINCH, resized)
    resized()  # it may have changed while the command was being started
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGWINCH)


async def _resize(process: Process) -> None:
    with contextlib.suppress(SandboxError):
        await process.resize(*terminal_size(STDIN, STDOUT, STDERR))
