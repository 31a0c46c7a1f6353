"""Batches that compete for one pool: one of them always gets on, and all that can ever be had is had in the end."""

from __future__ import annotations

import random

import pytest
from sandboxcore_opensandbox._contest import Claimant, Contest, Decision, PoolRoom

pytestmark = pytest.mark.tier("none")


def claimant(name: str, wants: int, has: int, queued: float = 0.0) -> Claimant:
    return Claimant(name=name, queued=queued, wants=wants, has=has)


def test_who_has_all_is_done() -> None:
    contest = Contest("a")
    assert contest.look(0.0, [claimant("a", 3, 3)], PoolRoom(maximum=3, allocated=3)).decision is Decision.GRANTED


def test_more_than_the_pool_may_have_is_certain_at_once() -> None:
    contest = Contest("a")
    assert contest.look(0.0, [claimant("a", 4, 0)], PoolRoom(maximum=3)).decision is Decision.IMPOSSIBLE


def test_the_oldest_never_lets_go() -> None:
    contest = Contest("a", settle=1.0)
    everyone = [claimant("a", 4, 3, queued=1.0), claimant("b", 4, 3, queued=2.0)]
    for now in (0.0, 5.0, 500.0):
        assert contest.look(now, everyone, PoolRoom(maximum=6, allocated=6)).decision is Decision.WAIT


def test_a_younger_one_lets_go_for_the_older_but_not_at_once() -> None:
    contest = Contest("b", settle=1.0)
    everyone = [claimant("a", 4, 3, queued=1.0), claimant("b", 4, 3, queued=2.0)]
    room = PoolRoom(maximum=6, allocated=6)
    assert contest.look(0.0, everyone, room).decision is Decision.WAIT
    verdict = contest.look(1.5, everyone, room)
    assert verdict.decision is Decision.YIELD
    assert verdict.elders == ("a",)


def test_progress_counts() -> None:
    contest = Contest("b", settle=1.0)
    room = PoolRoom(maximum=6, allocated=6)
    for has in (1, 2, 3):
        everyone = [claimant("a", 4, 3, queued=1.0), claimant("b", 4, has, queued=2.0)]
        assert contest.look(has * 0.9, everyone, room).decision is Decision.WAIT


def test_who_can_be_served_beside_the_older_waits() -> None:
    contest = Contest("b", settle=0.0)
    everyone = [claimant("a", 4, 2, queued=1.0), claimant("b", 4, 2, queued=2.0)]
    assert contest.look(9.0, everyone, PoolRoom(maximum=8, allocated=4)).decision is Decision.WAIT


def test_those_who_are_served_do_not_count() -> None:
    contest = Contest("b", settle=0.0)
    everyone = [claimant("a", 4, 4, queued=1.0), claimant("b", 4, 2, queued=2.0)]
    assert contest.look(9.0, everyone, PoolRoom(maximum=6, allocated=6)).decision is Decision.WAIT


def test_two_of_one_moment_go_by_name() -> None:
    everyone = [claimant("b", 4, 3, queued=1.0), claimant("a", 4, 3, queued=1.0)]
    room = PoolRoom(maximum=6, allocated=6)
    decisions = {name: Contest(name, settle=0.0).look(1.0, everyone, room).decision for name in ("a", "b")}
    assert decisions == {"a": Decision.WAIT, "b": Decision.YIELD}


@pytest.mark.parametrize("seed", range(40))
def test_everybody_gets_on_whatever_the_controller_does(seed: int) -> None:
    """Any number of batches, handed pods one by one to whoever the dice name, as the real controller does."""
    dice = random.Random(seed)
    maximum = dice.randint(2, 12)
    names = [f"batch-{number}" for number in range(dice.randint(2, 6))]
    wants = {name: dice.randint(1, maximum) for name in names}
    queued = {name: float(dice.randint(0, 3)) for name in names}
    has = dict.fromkeys(names, 0)
    contests = {name: Contest(name, settle=0.5) for name in names}
    away: dict[str, tuple[str, ...]] = {}
    done: set[str] = set()
    for step in range(5000):
        now = step * 0.1
        present = [name for name in names if name not in done and name not in away]
        for _ in range(dice.randint(0, 3)):
            hungry = [name for name in present if has[name] < wants[name]]
            if hungry and sum(has.values()) < maximum:
                has[dice.choice(hungry)] += 1
        everyone = [claimant(name, wants[name], has[name], queued[name]) for name in present]
        room = PoolRoom(maximum=maximum, total=maximum, allocated=sum(has.values()))
        for name in present:
            verdict = contests[name].look(now, everyone, room)
            assert verdict.decision is not Decision.IMPOSSIBLE
            if verdict.decision is Decision.GRANTED and dice.random() < 0.2:  # it is used for a while, and destroyed
                done.add(name)
                has[name] = 0
            elif verdict.decision is Decision.YIELD:
                assert verdict.elders
                away[name], has[name] = verdict.elders, 0
                contests[name] = Contest(name, settle=0.5)
        for name, elders in list(away.items()):
            if not any(
                other in elders and other not in done and other not in away and has[other] < wants[other] for other in names
            ):
                del away[name]
        if len(done) == len(names):
            return
    pytest.fail(f"held up: wants {wants}, has {has}, of {maximum}; away {away}")
