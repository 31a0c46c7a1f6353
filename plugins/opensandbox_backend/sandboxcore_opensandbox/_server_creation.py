"""The creation of one sandbox: asked for again while the server is at its limits, and kept in view when nobody waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from sandboxcore.errors import SandboxError

from ._server_errors import is_lost, retry_after, was_sent

if TYPE_CHECKING:
    from opensandbox.config import ConnectionConfig

__all__ = ("Creation",)

#: A server that wants to be asked again at once is at its limits still.
_SHORTEST_PAUSE = 0.5
#: Seconds in which a sandbox whose making was given up can appear before it is left to the end of its lease.
_LATE_SECONDS = 10.0
#: Seconds from one look to the next: at first, and at most.
_FIRST_LOOK, _LAST_LOOK = 0.1, 2.0


class Creation:
    """Has the server create a sandbox, in a task of its own: the server goes on with it, whoever waits for the answer.

    Attributes:
        refused: What the server said when it was last at its limits.
    """

    def __init__(self) -> None:
        self.refused: Exception | None = None
        self._task: asyncio.Task[Any] | None = None

    async def run(self, config: ConnectionConfig, arguments: dict[str, Any]) -> str:
        """Create the sandbox and return its id; while the server is at its limits and says when to ask again, it is asked again.

        Raises:
            Exception: Of the SDK.
        """
        from opensandbox import Sandbox

        while True:
            self._task = asyncio.create_task(Sandbox.create(connection_config=config, **arguments))
            try:
                made = await asyncio.shield(self._task)
            except Exception as error:
                pause = retry_after(error)
                if pause is None:
                    raise
                self.refused, self._task = error, None
                await asyncio.sleep(max(_SHORTEST_PAUSE, pause))
                continue
            await made.close()
            return str(made.id)

    @property
    def is_known(self) -> bool:
        """Whether the server may have something of it."""
        failure = self._failure()
        return self._task is not None and (failure is None or was_sent(failure))

    async def settle(self, is_listed: Callable[[], Awaitable[bool]]) -> None:
        """Wait until the server lists what it creates, or is done with it, for some seconds at most; then stop waiting for it."""
        pause = _FIRST_LOOK
        try:
            async with asyncio.timeout(_LATE_SECONDS):
                while self._goes_on():
                    try:
                        if await is_listed():
                            break
                    except SandboxError:  # perhaps it is being restarted
                        pass
                    await asyncio.sleep(pause)
                    pause = min(_LAST_LOOK, pause * 2)
        except TimeoutError:
            pass
        if self._task is not None and not self._task.done():
            self._task.cancel()
            await asyncio.wait((self._task,))

    def _goes_on(self) -> bool:
        """Tell whether the server may be creating it still: it has not answered, or its answer got lost."""
        if self._task is None or not self._task.done():
            return self._task is not None
        failure = self._failure()
        return failure is not None and is_lost(failure)

    def _failure(self) -> BaseException | None:
        over = self._task is not None and self._task.done() and not self._task.cancelled()
        return self._task.exception() if self._task is not None and over else None
