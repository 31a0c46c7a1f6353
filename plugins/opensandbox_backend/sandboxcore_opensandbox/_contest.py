"""Batches that each hold a part of what they need from the same pools: who goes on and who lets go.

The controller hands pods out as they come, a part of a request too, and in no order. So batches that together want more
than a pool can have may hold each other up for ever, each in another pool, too. Everybody follows one rule: the batch that
has waited longest keeps what it has, every younger one that is still hungry, in whichever pool, lets go of all it has and
comes back when the older one is done. The oldest never lets go, so one of them always gets on. Nothing in here does any I/O.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum

__all__ = ("Claimant", "Contest", "Decision", "PoolRoom", "Verdict")


@dataclass(frozen=True, kw_only=True, slots=True)
class Claimant:
    """One request for pods of a pool; a batch may have several, of one pool or of more.

    Args:
        batch: That it belongs to.
        queued: Seconds since the epoch at which the batch first asked; kept when it lets go and comes back.
        wants: Pods that it needs.
        has: Pods that it was given.
    """

    batch: str
    pool: str
    queued: float
    wants: int
    has: int = 0

    @property
    def hungry(self) -> bool:
        """Whether it lacks pods."""
        return self.has < self.wants

    @property
    def lacks(self) -> int:
        """How many pods it still needs."""
        return max(0, self.wants - self.has)

    def before(self, other: Claimant) -> bool:
        """Tell whether its batch has waited longer; two of one moment go by name, so that all clients see one order."""
        return (self.queued, self.batch) < (other.queued, other.batch)


@dataclass(frozen=True, kw_only=True, slots=True)
class PoolRoom:
    """What a pool has: pods there are, given away, ready to be given away, and the most that it may ever have."""

    total: int = 0
    allocated: int = 0
    available: int = 0
    maximum: int = 0

    @property
    def free(self) -> int:
        """Pods that may still be given away: those that are not, and those that may yet be made."""
        return max(0, self.maximum - self.allocated)


class Decision(Enum):
    """What a batch does next."""

    GRANTED = "it has all that it needs"
    WAIT = "pods may still come"
    YIELD = "let go of everything and come back when the older ones are done"


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """A decision, and the batches for whose sake it was made."""

    decision: Decision
    elders: tuple[str, ...] = ()


class Contest:
    """One batch's view of the contest, fed with what is seen and the time at which it was.

    Args:
        mine: Name of the own batch.
        settle: Seconds without progress before it counts as held up; the controller needs some time to hand pods out.
    """

    def __init__(self, mine: str, *, settle: float = 1.0) -> None:
        self._mine = mine
        self._settle = settle
        self._had = -1
        self._since = 0.0

    def look(self, now: float, claimants: Iterable[Claimant], pools: Mapping[str, PoolRoom]) -> Verdict:
        """Decide, from all requests (the own ones among them) on the pools that the own batch needs, and those pools."""
        everyone = list(claimants)
        mine = [claimant for claimant in everyone if claimant.batch == self._mine]
        if not any(claimant.hungry for claimant in mine):
            return Verdict(decision=Decision.GRANTED)
        if self._moves(now, sum(claimant.has for claimant in mine)):
            return Verdict(decision=Decision.WAIT)
        elders: set[str] = set()
        for pool, has in pools.items():
            lacking = [claimant for claimant in everyone if claimant.pool == pool and claimant.hungry]
            older = [claimant for claimant in lacking if claimant.before(mine[0])]
            own = [claimant for claimant in lacking if claimant.batch == self._mine]
            if sum(claimant.lacks for claimant in (*older, *own)) > has.free:
                elders |= {claimant.batch for claimant in older}
        return Verdict(decision=Decision.YIELD, elders=tuple(sorted(elders))) if elders else Verdict(decision=Decision.WAIT)

    def _moves(self, now: float, had: int) -> bool:
        """Tell whether it was given pods lately, so that it is too early to judge."""
        if had != self._had:
            self._had, self._since = had, now
        return now - self._since < self._settle
