"""End things for certain: cleaning up goes on when the awaiting task is cancelled, and yet not for ever."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

from .errors import SandboxError

if TYPE_CHECKING:
    from .abc import Strategy

T = TypeVar("T")
Item = TypeVar("Item")

__all__ = ("close_all", "each", "finish")

_log = logging.getLogger("sandboxcore")

#: Seconds that a strategy gets for closing.
CLOSE_SECONDS = 10.0


async def finish(work: Coroutine[Any, Any, T], *, seconds: float, what: str) -> T:
    """Wait for work to end though this task is cancelled meanwhile; the cancellation comes out afterwards.

    Raises:
        SandboxError: The work did not end within ``seconds``; it was cancelled.
    """
    task = asyncio.ensure_future(work)
    deadline = asyncio.get_running_loop().time() + seconds
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        left = deadline - asyncio.get_running_loop().time()
        try:
            if left <= 0:
                await _stop(task)
                break
            await asyncio.wait((task,), timeout=left)
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        _log_failure(task, what)
        raise cancelled
    if not task.done() or task.cancelled():
        raise SandboxError(f"{what} did not end within {seconds:g} s")
    return task.result()


async def _stop(task: asyncio.Task[Any]) -> None:
    task.cancel()
    await asyncio.wait((task,), timeout=1.0)


def _log_failure(task: asyncio.Task[Any], what: str) -> None:
    if task.done() and not task.cancelled() and task.exception() is not None:
        _log.error("%s failed: %s", what, task.exception())


async def each(
    items: Iterable[Item], work: Callable[[Item], Awaitable[None]], *, at_once: int = 16
) -> list[tuple[Item, Exception]]:
    """Do the work for every item, some at once, and return those that failed with their errors."""
    gate = asyncio.Semaphore(at_once)
    failures: list[tuple[Item, Exception]] = []

    async def one(item: Item) -> None:
        async with gate:
            try:
                await work(item)
            except Exception as error:
                failures.append((item, error))

    tasks = [asyncio.ensure_future(one(item)) for item in items]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
    return failures


async def close_all(strategies: Iterable[Strategy]) -> None:
    """Close strategies, all at once. One that fails or hangs is logged and keeps nobody from closing."""

    async def close(strategy: Strategy) -> None:
        async with asyncio.timeout(CLOSE_SECONDS):
            await strategy.aclose()

    # All of them: each may take its whole time, where a thousand sandboxes no longer answer.
    for strategy, error in await each(strategies, close, at_once=1 << 20):
        _log.warning("closing %s failed: %s: %s", type(strategy).__name__, type(error).__name__, error)
