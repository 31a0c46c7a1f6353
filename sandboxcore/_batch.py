"""Provision many environments, a bounded number at once, and hand them over as they become ready."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ._closing import each, finish

if TYPE_CHECKING:
    from .environment import Environment

__all__ = ("Batch", "ProvisionOutcome", "Work")

_log = logging.getLogger("sandboxcore")

#: Seconds for giving up a batch: what is half-made is undone, what is ready and not handed over is destroyed.
SETTLE_SECONDS = 300.0


@dataclass(frozen=True, kw_only=True, slots=True)
class ProvisionOutcome:
    """What became of one of many: either the environment or the error is None.

    Args:
        index: Place among the sources, from 0.
    """

    index: int
    environment: Environment | None = None
    error: Exception | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """What is made by one call: the environments of these places among the sources.

    Args:
        make: Makes them all, in the order of ``indices``, or raises and leaves none.
    """

    indices: Sequence[int]
    make: Callable[[], Awaitable[Sequence[Environment]]]


class Batch:
    """The making of many environments."""

    def __init__(self, work: Iterable[Work]) -> None:
        self._waiting: Iterator[Work] = iter(work)
        self._outcomes: asyncio.Queue[ProvisionOutcome | BaseException | None] = asyncio.Queue()
        self._workers: list[asyncio.Task[None]] = []

    async def outcomes(self, at_once: int) -> AsyncGenerator[ProvisionOutcome, None]:
        """Yield outcomes as they come. Leaving early undoes what was not yielded."""
        self._workers = [asyncio.create_task(self._work()) for _ in range(at_once)]
        try:
            running = at_once
            while running:
                outcome = await self._outcomes.get()
                if outcome is None:
                    running -= 1
                elif isinstance(outcome, BaseException):
                    raise outcome
                else:
                    yield outcome
        finally:
            await finish(self.settle(), seconds=SETTLE_SECONDS, what="undoing what was not handed over")

    async def settle(self) -> None:
        """Stop, undo what is half-made and destroy what is ready but was not handed over. Idempotent."""
        for worker in self._workers:
            worker.cancel()
        await asyncio.gather(*self._workers, return_exceptions=True)
        ready: list[Environment] = []
        while not self._outcomes.empty():
            outcome = self._outcomes.get_nowait()
            if isinstance(outcome, ProvisionOutcome) and outcome.environment is not None:
                ready.append(outcome.environment)
        for environment, error in await each(ready, _destroy):
            _log.warning("environment %s was not handed over and can't be destroyed: %s", environment.id, error)

    async def _work(self) -> None:
        try:
            for work in self._waiting:
                try:
                    made = await work.make()
                except Exception as error:
                    outcomes = [ProvisionOutcome(index=index, error=error) for index in work.indices]
                else:
                    pairs = zip(work.indices, made, strict=True)
                    outcomes = [ProvisionOutcome(index=index, environment=environment) for index, environment in pairs]
                for outcome in outcomes:
                    self._outcomes.put_nowait(outcome)
        except Exception as error:
            # The caller's own iterable failed; that is the caller's to see.
            self._outcomes.put_nowait(error)
        self._outcomes.put_nowait(None)


async def _destroy(environment: Environment) -> None:
    await environment.destroy()
