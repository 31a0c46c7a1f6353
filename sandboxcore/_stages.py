"""Starting services that depend on each other: how far each is, and all of them or the first failure."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any

from ._at_once import cancel
from .errors import SandboxError

__all__ = ("Stages", "until_all")


class Stages:
    """How far one service is; others wait for these."""

    def __init__(self) -> None:
        self.started, self.healthy, self.completed = asyncio.Event(), asyncio.Event(), asyncio.Event()

    def of(self, condition: str) -> asyncio.Event:
        """Return the event of a dependency's condition."""
        event: asyncio.Event = getattr(self, condition)
        return event


async def until_all(works: Iterable[Coroutine[Any, Any, None]], failure: asyncio.Future[SandboxError]) -> None:
    """Wait for all, or raise what the failure holds as soon as it does; nothing of the works runs afterwards."""
    tasks = [asyncio.ensure_future(work) for work in works]
    everything = asyncio.gather(*tasks)
    try:
        outcomes: set[asyncio.Future[Any]] = {everything, failure}
        await asyncio.wait(outcomes, return_when=asyncio.FIRST_COMPLETED)
        if failure.done():
            raise failure.result()
        await everything
    finally:
        await cancel([everything, *tasks])
