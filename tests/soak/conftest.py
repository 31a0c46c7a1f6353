"""How long to soak, and on what."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("soak")
    group.addoption("--soak-minutes", type=float, default=None, help="minutes of random operations (20 seconds)")
    group.addoption("--soak-specs", type=int, default=100, help="number of generated specs (100)")
    group.addoption("--soak-seed", type=int, default=1, help="where the random numbers begin (1)")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.tier("local"))


@pytest.fixture
def soak_seconds(pytestconfig: pytest.Config) -> float:
    """Tell how long to go on."""
    minutes = pytestconfig.getoption("--soak-minutes", None)
    return 20.0 if minutes is None else 60.0 * float(minutes)


@pytest.fixture
def soak_seed(pytestconfig: pytest.Config) -> int:
    """Tell where the random numbers begin."""
    return int(pytestconfig.getoption("--soak-seed", 1))


@pytest.fixture
def held() -> Callable[[], tuple[int, int, int]]:
    """Count what this process holds: file descriptors, KiB of memory, and children."""

    def count() -> tuple[int, int, int]:
        gc.collect()
        resident = int(Path("/proc/self/statm").read_text().split()[1]) * 4
        children = 0
        for task in Path("/proc/self/task").iterdir():
            with contextlib.suppress(OSError):
                children += len((task / "children").read_text().split())
        return len(list(Path("/proc/self/fd").iterdir())), resident, children

    return count
