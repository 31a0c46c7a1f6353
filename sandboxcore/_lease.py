"""Renew the leases of all live environments of a session, with one task and one call a round."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .values import EnvironmentRef

    Renew = Callable[[Sequence[EnvironmentRef], float], Awaitable[None]]
    FindMine = Callable[[], Awaitable[Sequence[EnvironmentRef]]]

__all__ = ("LeaseKeeper",)

_log = logging.getLogger("sandboxcore")


@dataclass(slots=True)
class _Claimed:
    lease: float
    renewed_at: float
    ref: EnvironmentRef | None = None

    @property
    def due_at(self) -> float:
        return self.renewed_at + self.lease / 3

    def retry_soon(self, now: float) -> None:
        self.renewed_at = now - self.lease / 3 + self.lease / 10


class LeaseKeeper:
    """Keeps environments claimed from the moment that their provisioning begins, until they are dropped.

    Args:
        renew: Renews several environments at once.
        find_mine: Lists the session's environments, also half-made ones.
    """

    def __init__(self, renew: Renew, find_mine: FindMine) -> None:
        self._renew = renew
        self._find_mine = find_mine
        self._claimed: dict[str, _Claimed] = {}
        self._task: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self._renewing = asyncio.Lock()

    def claim(self, environment_id: str, lease: float) -> None:
        """Begin to look after an environment that is being made."""
        self._claimed[environment_id] = _Claimed(lease=lease, renewed_at=time.monotonic())
        self._changed.set()
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="sandboxcore lease renewal")

    def ready(self, ref: EnvironmentRef) -> None:
        """Take note of where the environment is."""
        if ref.environment_id in self._claimed:
            self._claimed[ref.environment_id].ref = ref

    def drop(self, environment_id: str) -> None:
        """Look after it no longer. Idempotent."""
        self._claimed.pop(environment_id, None)

    async def settled(self) -> None:
        """Wait until no renewal is on its way: what is dropped is renewed by nobody else from then on."""
        async with self._renewing:
            pass

    async def aclose(self) -> None:
        """Stop. Idempotent."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait((task,), timeout=5.0)

    async def _run(self) -> None:
        while True:
            await self._pause()
            now = time.monotonic()
            # What is half-way to being due goes along, so that environments of one age share a call.
            batch = {name: claimed for name, claimed in self._claimed.items() if now >= claimed.due_at - claimed.lease / 6}
            try:
                async with self._renewing:
                    await self._round(batch)
            except Exception as error:
                _log.warning("renewing leases failed and will be tried again: %s: %s", type(error).__name__, error)
                for claimed in batch.values():
                    claimed.retry_soon(now)

    async def _pause(self) -> None:
        """Wait until something is due; what is claimed meanwhile may be due sooner."""
        while True:
            self._changed.clear()
            due_at = min((claimed.due_at for claimed in self._claimed.values()), default=time.monotonic() + 3600.0)
            try:
                async with asyncio.timeout(max(0.0, due_at - time.monotonic())):
                    await self._changed.wait()
            except TimeoutError:
                return

    async def _round(self, batch: dict[str, _Claimed]) -> None:
        if any(claimed.ref is None for claimed in batch.values()):
            half_made = {ref.environment_id: ref for ref in await self._find_mine()}
        else:
            half_made = {}
        by_lease: dict[float, list[EnvironmentRef]] = {}
        for name, claimed in batch.items():
            ref = claimed.ref or half_made.get(name)
            # One that was dropped meanwhile is being destroyed, and must not be claimed again.
            if ref is not None and name in self._claimed:
                by_lease.setdefault(claimed.lease, []).append(ref)
        now = time.monotonic()
        for lease, refs in by_lease.items():
            await self._renew(refs, lease)
        for claimed in batch.values():
            claimed.renewed_at = now
