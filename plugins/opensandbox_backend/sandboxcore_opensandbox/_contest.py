"""Two batches that each hold a part of what they need from one pool: who goes on and who lets go.

The controller hands pods out as they come, a part of a request too, and in no order. So batches that together want more
than a pool can have may hold each other up for ever. Everybody follows one rule: the request that has waited longest keeps
what it has, every younger one that is still hungry lets go of all it has and comes back when the older one is done. The
oldest never lets go, so one of them always gets on. Nothing in here does any I/O.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

__all__ = ("Claimant", "Contest", "Decision", "PoolRoom", "Verdict")


@dataclass(frozen=True, kw_only=True, slots=True)
class Claimant:
    """One request for pods of a pool.

    Args:
        name: Of its BatchSandbox.
        queued: Seconds since the epoch at which it was first made; kept when it lets go and comes back.
        wants: Pods that it needs.
        has: Pods that it was given.
    """

    name: str
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
        """Tell whether it has waited longer; two of one moment go by name, so that all clients see one order."""
        return (self.queued, self.name) < (other.queued, other.name)


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
    """What a request does next."""

    GRANTED = "it has all that it needs"
    WAIT = "pods may still come"
    YIELD = "let go of everything and come back when the older ones are done"
    IMPOSSIBLE = "the pool may never have so many"


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """A decision, and the requests for whose sake it was made."""

    decision: Decision
    elders: tuple[str, ...] = ()


class Contest:
    """One request's view of the contest, fed with what is seen and the time at which it was.

    Args:
        mine: Name of the own request.
        settle: Seconds without progress before it counts as held up; the controller needs some time to hand pods out.
    """

    def __init__(self, mine: str, *, settle: float = 1.0) -> None:
        self._mine = mine
        self._settle = settle
        self._had = -1
        self._since = 0.0

    def look(self, now: float, claimants: Iterable[Claimant], pool: PoolRoom) -> Verdict:
        """Decide, from all requests on the pool (the own one among them) and the pool itself."""
        everyone = {claimant.name: claimant for claimant in claimants}
        mine = everyone[self._mine]
        if not mine.hungry:
            return Verdict(decision=Decision.GRANTED)
        if mine.wants > pool.maximum:
            return Verdict(decision=Decision.IMPOSSIBLE)
        elders = [other for other in everyone.values() if other.hungry and other.before(mine)]
        if not elders or self._moves(now, mine):
            return Verdict(decision=Decision.WAIT)
        if mine.lacks + sum(other.lacks for other in elders) <= pool.free:
            return Verdict(decision=Decision.WAIT)
        return Verdict(decision=Decision.YIELD, elders=tuple(sorted(other.name for other in elders)))

    def _moves(self, now: float, mine: Claimant) -> bool:
        """Tell whether it was given pods lately, so that it is too early to judge."""
        if mine.has != self._had:
            self._had, self._since = mine.has, now
        return now - self._since < self._settle
