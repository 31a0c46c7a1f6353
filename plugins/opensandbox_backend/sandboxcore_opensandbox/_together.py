"""Do several things at once, all or none."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar

T = TypeVar("T")

__all__ = ("first_of", "together")


async def together(works: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Await all; the first failure, or a cancellation, ends the others before it comes out."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        return await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise


async def first_of(work: Coroutine[Any, Any, T], *watchers: Coroutine[Any, Any, Any]) -> T:
    """Await the work while watchers look on: when one of them fails, the work is cancelled and the failure comes out."""
    doing, looking = asyncio.ensure_future(work), [asyncio.ensure_future(watcher) for watcher in watchers]
    try:
        await asyncio.wait((doing, *looking), return_when=asyncio.FIRST_COMPLETED)
        for watcher in looking:
            if watcher.done() and not doing.done():
                watcher.result()
        return await doing
    finally:
        for task in (doing, *looking):
            task.cancel()
        await asyncio.gather(doing, *looking, return_exceptions=True)
