"""Random operations for a while: the contract holds, and nothing piles up."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

sys.path.insert(0, str(Path(__file__).parent))

from machine import SandboxMachine

_log = logging.getLogger("soak")

ROUND = settings(
    max_examples=8,
    stateful_step_count=40,
    deadline=None,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
    print_blob=True,
)


@pytest.mark.timeout(0)
def test_random_operations_keep_the_contract(
    tmp_path: Path, soak_seconds: float, soak_seed: int, held: Callable[[], tuple[int, int, int]]
) -> None:
    began, rounds = time.monotonic(), 0
    marks: list[tuple[int, int, int]] = []
    while rounds < 2 or time.monotonic() - began < soak_seconds:
        machine = type("Machine", (SandboxMachine,), {"state": tmp_path})
        run_state_machine_as_test(seed(soak_seed + rounds)(machine), settings=ROUND)
        rounds += 1
        marks.append(held())
    _log.info("%s rounds; descriptors, KiB, children: %s", rounds, marks)
    assert list((tmp_path / "envs").iterdir()) == []
    settled, last = marks[0], marks[-1]
    assert (last[0], last[2]) == (settled[0], settled[2]), marks
    assert last[1] - settled[1] < 48 * 1024, marks
