"""Inspect's own check of sandboxes, all of it, through the adapter on each backend."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace

import pytest
import pytest_asyncio
from inspect_ai.util import SandboxEnvironment
from inspect_ai.util._sandbox import self_check
from inspect_ai.util._sandbox.lifecycle import sandbox_lifecycle_scope
from inspect_ai.util._sandbox.self_check import *  # noqa: F403
from sandboxcore_inspect import SandboxcoreConfig, SandboxcoreEnvironment

from .places import EACH_PLACE, PLACES, Place

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(400)]


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=EACH_PLACE)
async def sandboxes(request: pytest.FixtureRequest) -> AsyncIterator[tuple[Place, SandboxEnvironment]]:
    """One sandbox for all checks of a place, made as a sample's is."""
    place: Place = request.param
    with place.config() as fields, sandbox_lifecycle_scope():
        config = SandboxcoreConfig(backend=place.backend, **fields)
        await SandboxcoreEnvironment.task_init("startup", config)
        try:
            environments = await SandboxcoreEnvironment.sample_init("self_check", config, {"__sample_id__": place.name})
            yield place, next(iter(environments.values()))
            await SandboxcoreEnvironment.sample_cleanup("self_check", config, environments, False)
        finally:
            await SandboxcoreEnvironment.task_cleanup("shutdown", config, True)


@pytest.fixture
def sandbox_env(
    sandboxes: tuple[Place, SandboxEnvironment], request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> SandboxEnvironment:
    """Give the sandbox to a check."""
    place, sandbox = sandboxes
    reason = place.expected_failures.get(request.node.originalname)
    if reason:
        request.applymarker(pytest.mark.xfail(reason=reason, strict=True))
    # The checks grant processes five seconds for being gone. Here they are gone when the command's error is raised.
    monkeypatch.setattr(self_check, "anyio", SimpleNamespace(sleep=lambda _: asyncio.sleep(0)))
    return sandbox


async def test_there_are_as_many_checks_as_were_counted() -> None:
    found = [name for name in vars(self_check) if name.startswith("test_")]
    assert len(found) >= 44
    for place in PLACES:
        assert set(found) >= set(place.expected_failures)
