"""An event loop in a thread of its own, for programs that have none."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator
from typing import Any, TypeVar

from .errors import UsageError

T = TypeVar("T")

__all__ = ("LoopThread",)


class LoopThread:
    """Runs coroutines for threads that block on them. Works beside a loop of the caller's own, as in notebooks."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._main, name="sandboxcore loop", daemon=True)
        self._thread.start()

    def _main(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.close()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine to its end.

        Raises:
            KeyboardInterrupt: The coroutine was cancelled and has ended; a second one does not wait for that.
            UsageError: Called from within the loop, an event observer say, where it would wait for itself.
        """
        if threading.current_thread() is self._thread or self._loop.is_closed():
            work.close()
            where = "is closed" if self._loop.is_closed() else "can't be used by its own event observers"
            raise UsageError(f"the blocking session {where}")
        running = _Running(self._loop, work)
        outcome: concurrent.futures.Future[T] = running.outcome
        try:
            return outcome.result()
        except KeyboardInterrupt:
            running.cancel()
            concurrent.futures.wait([outcome])
            raise

    def iterate(self, items: AsyncIterator[T]) -> Iterator[T]:
        """Go through an async iterator; leaving early closes it."""
        try:
            while True:
                try:
                    yield self.run(_next(items))
                except StopAsyncIteration:
                    return
        finally:
            close = getattr(items, "aclose", None)
            if close is not None and not self._loop.is_closed():
                self.run(close())

    def close(self) -> None:
        """Stop the loop and wait for the thread. Idempotent."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()


class _Running:
    """A coroutine that runs in the loop, and its outcome as another thread sees it."""

    def __init__(self, loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, Any]) -> None:
        self.outcome: concurrent.futures.Future[Any] = concurrent.futures.Future()
        self._loop = loop
        self._task: asyncio.Task[Any] | None = None
        loop.call_soon_threadsafe(self._start, work, contextvars.copy_context())

    def _start(self, work: Coroutine[Any, Any, Any], context: contextvars.Context) -> None:
        self._task = self._loop.create_task(work, context=context)
        self._task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[Any]) -> None:
        if task.cancelled():
            self.outcome.set_exception(asyncio.CancelledError())
        elif (error := task.exception()) is not None:
            self.outcome.set_exception(error)
        else:
            self.outcome.set_result(task.result())

    def cancel(self) -> None:
        """Cancel it, from any thread."""
        self._loop.call_soon_threadsafe(lambda: self._task is not None and self._task.cancel())


async def _next(items: AsyncIterator[T]) -> T:
    return await anext(items)
