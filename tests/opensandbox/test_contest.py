"""Batches that compete for pools: one of them always gets on, and all that can ever be had is had in the end."""

from __future__ import annotations

import random
from collections.abc import Mapping

import pytest
from sandboxcore_opensandbox._contest import Claimant, Contest, Decision, PoolRoom

pytestmark = pytest.mark.tier("none")

FULL = {"p": PoolRoom(maximum=6, allocated=6)}


def claimant(batch: str, wants: int, has: int, queued: float = 0.0, pool: str = "p") -> Claimant:
    return Claimant(batch=batch, pool=pool, queued=queued, wants=wants, has=has)


def test_who_has_all_is_done() -> None:
    contest = Contest("a")
    assert contest.look(0.0, [claimant("a", 3, 3)], {"p": PoolRoom(maximum=3, allocated=3)}).decision is Decision.GRANTED


def test_the_oldest_never_lets_go() -> None:
    contest = Contest("a", settle=1.0)
    everyone = [claimant("a", 4, 3, queued=1.0), claimant("b", 4, 3, queued=2.0)]
    for now in (0.0, 5.0, 500.0):
        assert contest.look(now, everyone, FULL).decision is Decision.WAIT


def test_a_younger_one_lets_go_for_the_older_but_not_at_once() -> None:
    contest = Contest("b", settle=1.0)
    everyone = [claimant("a", 4, 3, queued=1.0), claimant("b", 4, 3, queued=2.0)]
    assert contest.look(0.0, everyone, FULL).decision is Decision.WAIT
    verdict = contest.look(1.5, everyone, FULL)
    assert verdict.decision is Decision.YIELD
    assert verdict.elders == ("a",)


def test_progress_counts() -> None:
    contest = Contest("b", settle=1.0)
    for has in (1, 2, 3):
        everyone = [claimant("a", 4, 3, queued=1.0), claimant("b", 4, has, queued=2.0)]
        assert contest.look(has * 0.9, everyone, FULL).decision is Decision.WAIT


def test_who_can_be_served_beside_the_older_waits() -> None:
    contest = Contest("b", settle=0.0)
    everyone = [claimant("a", 4, 2, queued=1.0), claimant("b", 4, 2, queued=2.0)]
    assert contest.look(9.0, everyone, {"p": PoolRoom(maximum=8, allocated=4)}).decision is Decision.WAIT


def test_those_who_are_served_do_not_count() -> None:
    contest = Contest("b", settle=0.0)
    everyone = [claimant("a", 4, 4, queued=1.0), claimant("b", 4, 2, queued=2.0)]
    assert contest.look(9.0, everyone, FULL).decision is Decision.WAIT


def test_two_of_one_moment_go_by_name() -> None:
    everyone = [claimant("b", 4, 3, queued=1.0), claimant("a", 4, 3, queued=1.0)]
    decisions = {name: Contest(name, settle=0.0).look(1.0, everyone, FULL).decision for name in ("a", "b")}
    assert decisions == {"a": Decision.WAIT, "b": Decision.YIELD}


def test_two_that_hold_each_other_up_over_two_pools_are_told_apart() -> None:
    """Each has all of one pool that it needs, and waits for the other pool."""
    rooms = {pool: PoolRoom(maximum=1, allocated=1) for pool in ("p", "q")}
    everyone = [claimant("a", 1, 1, pool="p"), claimant("a", 1, 0, pool="q"), claimant("b", 1, 0), claimant("b", 1, 1, pool="q")]
    decisions = {name: Contest(name, settle=0.0).look(1.0, everyone, rooms).decision for name in ("a", "b")}
    assert decisions == {"a": Decision.WAIT, "b": Decision.YIELD}


def test_nobody_lets_go_for_who_lacks_pods_elsewhere() -> None:
    """They share a pool of which the older one has enough, and what it lacks the younger one does not have."""
    everyone = [claimant("a", 1, 1), claimant("a", 1, 0, pool="q"), claimant("b", 2, 1)]
    assert Contest("b", settle=0.0).look(1.0, everyone, {"p": PoolRoom(maximum=2, allocated=2)}).decision is Decision.WAIT


def test_nobody_lets_go_for_the_own_batch() -> None:
    """One with and one without commands of their own make two requests on one pool."""
    everyone = [claimant("a", 1, 0), claimant("a", 2, 1), claimant("c", 5, 5)]
    assert Contest("a", settle=0.0).look(1.0, everyone, FULL).decision is Decision.WAIT


class Town:
    """Pools, and any number of batches that each want something of some of them, a pool twice, too."""

    def __init__(self, seed: int) -> None:
        self.dice = dice = random.Random(seed)
        self.maximum = {pool: dice.randint(2, 8) for pool in "pqr"[: dice.randint(1, 3)]}
        self.batches = [f"batch-{number}" for number in range(dice.randint(2, 6))]
        self.queued = {batch: float(dice.randint(0, 3)) for batch in self.batches}
        self.wants: dict[tuple[str, str, int], int] = {}
        for batch in self.batches:
            for pool in dice.sample(list(self.maximum), dice.randint(1, len(self.maximum))):
                wanted = dice.randint(1, self.maximum[pool])
                first = dice.randint(1, wanted)
                self.wants |= {(batch, pool, 0): first} | ({(batch, pool, 1): wanted - first} if wanted > first else {})
        self.has = dict.fromkeys(self.wants, 0)

    def free(self, pool: str) -> int:
        return self.maximum[pool] - sum(has for part, has in self.has.items() if part[1] == pool)

    def hungry(self, batch: str) -> bool:
        return any(self.has[part] < wanted for part, wanted in self.wants.items() if part[0] == batch)

    def hand_out(self, present: set[str]) -> None:
        """Give a pod to whoever the dice name, as the real controller does."""
        lacking = [part for part in self.wants if part[0] in present and self.has[part] < self.wants[part] and self.free(part[1])]
        if lacking:
            self.has[self.dice.choice(lacking)] += 1

    def take_back(self, batch: str) -> None:
        self.has |= {part: 0 for part in self.has if part[0] == batch}

    def claimants(self, present: set[str]) -> list[Claimant]:
        return [
            claimant(batch, wanted, self.has[batch, pool, part], self.queued[batch], pool)
            for (batch, pool, part), wanted in self.wants.items()
            if batch in present
        ]

    def rooms(self, batch: str) -> Mapping[str, PoolRoom]:
        pools = {part[1] for part in self.wants if part[0] == batch}
        return {pool: PoolRoom(maximum=self.maximum[pool], allocated=self.maximum[pool] - self.free(pool)) for pool in pools}


@pytest.mark.parametrize("seed", range(80))
def test_everybody_gets_on_whatever_the_controller_does(seed: int) -> None:
    town = Town(seed)
    contests = {batch: Contest(batch, settle=0.5) for batch in town.batches}
    away: dict[str, tuple[str, ...]] = {}
    done: set[str] = set()
    for step in range(5000):
        present = set(town.batches) - done - away.keys()
        for _ in range(town.dice.randint(0, 3)):
            town.hand_out(present)
        everyone = town.claimants(present)
        for batch in sorted(present):
            verdict = contests[batch].look(step * 0.1, everyone, town.rooms(batch))
            if verdict.decision is Decision.GRANTED and town.dice.random() < 0.2:  # it is used for a while, and destroyed
                done.add(batch)
                town.take_back(batch)
            elif verdict.decision is Decision.YIELD:
                assert batch not in verdict.elders
                away[batch] = verdict.elders
                town.take_back(batch)
                contests[batch] = Contest(batch, settle=0.5)
        for batch, elders in list(away.items()):
            if not any(elder not in done and elder not in away and town.hungry(elder) for elder in elders):
                del away[batch]
        if len(done) == len(town.batches):
            return
    pytest.fail(f"held up: wants {town.wants}, has {town.has}, of {town.maximum}; away {away}")
