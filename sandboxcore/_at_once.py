"""Do several things at once, and be done with all of them before going on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable
from typing import Any, TypeVar

__all__ = ("cancel", "first_of", "together")

T = TypeVar("T")


async def together(works: Iterable[Awaitable[T]]) -> list[T]:
    """Return what all return, in their order; the first failure, or a cancellation, ends the others before it comes out."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        await cancel(tasks)


async def first_of(work: Awaitable[T], *watchers: Awaitable[Any]) -> T:
    """Return what the work returns, unless a watcher fails before; one that returns has nothing to say. All have ended then."""
    task, looking = asyncio.ensure_future(work), [asyncio.ensure_future(watcher) for watcher in watchers]
    try:
        waited = {task, *looking}
        while not task.done():
            done, waited = await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
            if task not in done:
                for watcher in done:
                    watcher.result()
        return task.result()
    finally:
        await cancel((task, *looking))


async def cancel(tasks: Iterable[asyncio.Future[Any]]) -> None:
    """Cancel tasks and wait for their ends, whatever those are."""
    tasks = list(tasks)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
