"""A channel over a program of this machine, cancelled while it is opened."""

from __future__ import annotations

import asyncio
import gc
import os

import pytest
from keepers import children, until

from sandboxcore.guest._process import ProcessChannel


async def test_opening_that_is_cancelled_at_any_point_leaves_nothing() -> None:
    """Neither a socket nor a program: what the garbage collector finds is a warning, and that an error here."""
    before = set(children(os.getpid()))
    turns = 0
    opened = False
    while not opened:
        channel = ProcessChannel(("cat",))
        task = asyncio.ensure_future(channel.open((), asyncio.Protocol()))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        try:
            (await task).close()
            opened = True
        except asyncio.CancelledError:
            turns += 1
        gc.collect()
        await channel.aclose()
        assert await until(lambda: not set(children(os.getpid())) - before)
    assert turns > 2


async def test_a_program_that_can_not_be_run_leaves_no_socket() -> None:
    channel = ProcessChannel(("cat",))
    with pytest.raises(ValueError, match="null byte"):
        await channel.open(("\0",), asyncio.Protocol())
    gc.collect()
