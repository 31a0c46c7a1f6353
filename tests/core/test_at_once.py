"""Several things at once: what comes out, and that nothing still runs then."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from sandboxcore._at_once import cancel, first_of, together


class Works:
    """Pieces of work, and how many still run."""

    def __init__(self) -> None:
        self.running = 0

    @asynccontextmanager
    async def _counted(self) -> AsyncIterator[None]:
        self.running += 1
        try:
            yield
        finally:
            await asyncio.sleep(0)  # cleaning up takes its time
            self.running -= 1

    async def all_run(self, count: int) -> None:
        for _ in range(10):
            await asyncio.sleep(0)
        assert self.running == count

    async def returns(self, value: str, turns: int = 0) -> str:
        async with self._counted():
            for _ in range(turns):
                await asyncio.sleep(0)
            return value

    async def fails(self, turns: int = 0, text: str = "broken") -> str:
        await self.returns("", turns)
        raise ValueError(text)

    async def hangs(self) -> str:
        async with self._counted():
            return await asyncio.Future()


@pytest.fixture
def works() -> Works:
    return Works()


async def test_all_come_out_in_their_order(works: Works) -> None:
    assert await together(works.returns(str(turns), turns) for turns in (3, 1, 2)) == ["3", "1", "2"]
    assert await together([]) == []


async def test_the_first_failure_ends_the_others_and_comes_out(works: Works) -> None:
    with pytest.raises(ValueError, match="first"):
        await together([works.hangs(), works.fails(3, "second"), works.fails(2, "first"), works.hangs()])
    assert works.running == 0


@pytest.mark.parametrize("which", ["together", "first_of"])
async def test_a_cancellation_ends_all(works: Works, which: str) -> None:
    hanging = works.hangs(), works.hangs()
    task: asyncio.Future[object] = asyncio.ensure_future(together(hanging) if which == "together" else first_of(*hanging))
    await works.all_run(2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert works.running == 0


async def test_the_work_comes_out_and_its_watchers_end(works: Works) -> None:
    assert await first_of(works.returns("done", 3), works.hangs(), works.hangs()) == "done"
    assert works.running == 0


async def test_a_watcher_that_returns_has_nothing_to_say(works: Works) -> None:
    """And the others are still listened to."""
    assert await first_of(works.returns("done", 3), works.returns("")) == "done"
    with pytest.raises(ValueError, match="broken"):
        await first_of(works.hangs(), works.returns(""), works.fails(5))
    assert works.running == 0


async def test_what_is_done_is_done_though_a_watcher_fails_in_the_same_moment(works: Works) -> None:
    assert await first_of(works.returns("done"), works.fails()) == "done"


async def test_whatever_tasks_end_with_their_end_is_waited_for(works: Works) -> None:
    tasks = [asyncio.ensure_future(work) for work in (works.hangs(), works.fails(), works.returns("done"))]
    await asyncio.wait(tasks[1:])
    await cancel(tasks)
    assert all(task.done() for task in tasks)
    assert works.running == 0
