"""Fixtures of the tests on the real OpenSandbox: one namespace and one pool for all that do not break them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from sandboxcore_kubernetes import Cluster
from sandboxcore_opensandbox._config import OpenSandboxConfig

from sandboxcore import Session
from tests.opensandbox import places

HERE = Path(__file__).parent
#: Seconds: a loaded machine takes its time over pods.
PATIENCE = 300


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.parent == HERE and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(PATIENCE))


@pytest.fixture(scope="session")
def crd() -> Mapping[str, Any]:
    """Configure mode ``crd`` in a namespace of the tests' own."""
    return places.crd()


@pytest.fixture(scope="session")
def pool(crd: Mapping[str, Any]) -> str:
    """Make the pool that tests share: 2 ready pods, 5 at most."""
    places.make_pool(crd["namespace"], "shared", buffer=2, maximum=5)
    return "shared"


@pytest_asyncio.fixture
async def session(crd: Mapping[str, Any]) -> AsyncIterator[Session]:
    """Open a session; at its end nothing of its run may be left."""
    async with Session("opensandbox", config=dict(crd)) as opened:
        yield opened
    assert places.left_over(crd["namespace"], opened.run_id) == []


@pytest_asyncio.fixture
async def cluster(crd: Mapping[str, Any]) -> AsyncIterator[Cluster]:
    """Connect a client of the test's own."""
    async with await Cluster.connect(OpenSandboxConfig(**crd)) as opened:
        yield opened
