"""The line of those whom a used-up quota had no room for: one at a time tries again, so that many ask for no more than one."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable

__all__ = ("QuotaLine",)

#: Seconds until a used-up quota is asked again, half to whole; those that wait in other sessions do not come back together.
_PAUSES = (1.0, 2.0, 4.0, 8.0, 15.0)


class QuotaLine:
    """The line of a session. Who is refused again is the last in it, so that one who needs much holds up nobody."""

    def __init__(self) -> None:
        self._turns = asyncio.Lock()
        self._room = asyncio.Event()
        self._refusals = 0

    def room(self) -> None:
        """Have the next one try at once: something is gone."""
        self._refusals = 0
        self._room.set()

    @contextlib.asynccontextmanager
    async def turn(self, deadline: float) -> AsyncIterator[Callable[[], None]]:
        """Wait for one's turn, and until it is worth to try; what it yields is called when there was room, and ends the turn.

        Args:
            deadline: By the event loop's clock.

        Raises:
            TimeoutError: It passed.
        """
        with contextlib.ExitStack() as turn:
            async with asyncio.timeout_at(deadline):
                await self._turns.acquire()
                turn.callback(self._turns.release)
                pause = _PAUSES[min(self._refusals, len(_PAUSES) - 1)] * random.uniform(0.5, 1.0)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._room.wait(), pause)
            self._room.clear()
            self._refusals += 1

            def got_in() -> None:
                self.room()
                turn.close()

            yield got_in
