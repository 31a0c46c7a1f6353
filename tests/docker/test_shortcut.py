"""The guest's own socket, reached without the engine in between where this machine allows it."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest
from sandboxcore_docker._engine import Engine

from sandboxcore import Session
from sandboxcore.environment import Environment

from .conftest import BINARY, BUSYBOX, NONROOT, one

pytestmark = pytest.mark.timeout(400)


async def inspected(engine: Engine, environment: Environment) -> dict[str, Any]:
    labels = [f"sandboxcore.dev/environment-id={environment.id}"]
    (found,) = await engine.find("containers", labels)
    return dict(await engine.call("GET", f"/containers/{found['Id']}/json"))


def is_within_reach(container: dict[str, Any]) -> bool:
    try:
        Path(f"/proc/{container['State']['Pid']}/root/.dockerenv").stat()
    except OSError:
        return False
    return True


async def execs_end(engine: Engine, environment: Environment) -> None:
    """Wait until no exec is left in the container: the stream through the engine has been given up."""
    for _ in range(1200):
        if not (await inspected(engine, environment))["ExecIDs"]:
            return
        await asyncio.sleep(0.05)
    pytest.fail("the exec goes on")


@pytest.mark.parametrize(
    "service",
    [
        {"image": BUSYBOX},
        {"image": NONROOT},
        {"image": BUSYBOX, "read_only": True, "user": "1000:1000", "cap_drop": ["ALL"]},
        {"image": BINARY, "command": None},
    ],
    ids=["root", "user", "locked", "bare"],
)
async def test_the_engine_is_left_out(session: Session, engine: Engine, service: dict[str, Any]) -> None:
    async with session.environment(one(**service)) as environment:
        data = os.urandom(1 << 20) * 5
        path = "/dev/shm/big"
        await environment.default.write_file(path, data)
        assert await environment.default.read_file(path) == data
        if not is_within_reach(await inspected(engine, environment)):
            pytest.skip("this process may not look into the engine's containers")
        await execs_end(engine, environment)
        assert await environment.default.read_file(path) == data
