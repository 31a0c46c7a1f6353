"""A machine that stands still for longer than a command's time and the client's patience with the guest."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Iterator

import pytest
from keepers import Keeper, descendants

from sandboxcore import errors
from sandboxcore.guest import Guest, executor
from sandboxcore.values import ExecRequest


@contextlib.contextmanager
def frozen(keeper: Keeper) -> Iterator[None]:
    """Stop the guest and all below it."""
    pids = [keeper.pid, *descendants(keeper.pid)]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in reversed(pids):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


async def test_a_guest_that_was_frozen_with_its_client_may_still_speak(
    guest: Guest, keeper: Keeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client's timer may be first when both go on."""
    monkeypatch.setattr(executor, "_GRACE", 0.1)
    monkeypatch.setattr(executor, "_SECOND_GRACE", 30.0)
    await guest.connect()
    task = asyncio.ensure_future(guest.executor.exec(ExecRequest(argv=["sleep", "60"], timeout=0.5)))
    await asyncio.sleep(0.3)
    with frozen(keeper):
        await asyncio.sleep(1)
    with pytest.raises(errors.ExecTimeoutError):
        await task


async def test_a_guest_that_stays_frozen_is_given_up(guest: Guest, keeper: Keeper, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executor, "_GRACE", 0.1)
    monkeypatch.setattr(executor, "_SECOND_GRACE", 0.3)
    await guest.connect()
    with frozen(keeper), pytest.raises(errors.SandboxUnavailableError, match="does not answer"):
        await guest.executor.exec(ExecRequest(argv=["sleep", "60"], timeout=0.1))
