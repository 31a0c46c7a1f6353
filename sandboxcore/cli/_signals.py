"""Runs a command's coroutine so that a signal ends it in good order: what it made is taken away first."""

from __future__ import annotations

import signal
import sys
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Coroutine
    from typing import Any

__all__ = ("run_async",)

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class _Interruption:
    """Cancels a task at the first signal, and only says so at each further one."""

    def __init__(self, task: asyncio.Task[int]) -> None:
        self._task = task
        self.number: signal.Signals | None = None

    def __call__(self, number: signal.Signals) -> None:
        if self.number is not None:
            _say("still cleaning up, please wait; what is left if you kill this is found by: sandboxcore cleanup --expired")
            return
        self.number = number
        _say(f"{number.name}: cleaning up")
        self._task.cancel()


def _say(message: str) -> None:
    # On a terminal the cursor stands behind ^C, or anywhere at all if the terminal is raw.
    begin, end = ("\r", "\r\n") if sys.stderr.isatty() else ("", "\n")
    try:
        click.echo(f"{begin}sandboxcore: {message}{end}", err=True, nl=False)
    except OSError:
        # The terminal is gone (SIGHUP); cleaning up matters more than saying so.
        return


def run_async(main: Callable[[], Coroutine[Any, Any, int]]) -> int:
    """Run to the end and return the exit code; 128 + n if signal n came in between, after cleaning up."""
    import asyncio

    from ._logging import log_in_lines

    log_in_lines()
    return asyncio.run(_guarded(main))


async def _guarded(main: Callable[[], Coroutine[Any, Any, int]]) -> int:
    import asyncio

    loop = asyncio.get_running_loop()
    task = loop.create_task(main())
    interruption = _Interruption(task)
    for number in _ENDING:
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup's wish is kept
            loop.add_signal_handler(number, interruption, number)
    try:
        code = await task
    except asyncio.CancelledError as error:
        if interruption.number is None:
            raise RuntimeError("a command was cancelled, and nobody asked for it") from error
        return 128 + interruption.number
    return code if interruption.number is None else 128 + interruption.number
