"""Do several things at once, and be done with all of them before going on."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar

__all__ = ("first", "together")

T = TypeVar("T")


async def together(work: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Return what all return, in their order; the first failure, or a cancellation, ends the others and waits for their end."""
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
        while pending := [task for task in tasks if not task.done()]:
            await asyncio.wait(pending)


async def first(work: Coroutine[Any, Any, T], *failures: Coroutine[Any, Any, None]) -> T:
    """Return what the work returns, unless one of the others fails before; all have ended then."""
    task = asyncio.ensure_future(work)
    others = [asyncio.ensure_future(one) for one in failures]
    try:
        while not task.done():
            done, _ = await asyncio.wait((task, *others), return_when=asyncio.FIRST_COMPLETED)
            for one in done & set(others):
                one.result()
            others = [one for one in others if not one.done()]
        return task.result()
    finally:
        for one in (task, *others):
            one.cancel()
        while pending := [one for one in (task, *others) if not one.done()]:
            await asyncio.wait(pending)
