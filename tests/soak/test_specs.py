"""Specs by chance through ``provision``: an environment or a typed error, and nothing left."""

from __future__ import annotations

import asyncio
import logging
import random
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from sandboxcore import Session
from sandboxcore.errors import SandboxError
from sandboxcore.plugins import PluginHost

sys.path.insert(0, str(Path(__file__).parent))

import generated

_log = logging.getLogger("soak")


@pytest.mark.timeout(0)
async def test_specs_by_chance(
    tmp_path: Path, pytestconfig: pytest.Config, soak_seed: int, held: Callable[[], tuple[int, int, int]]
) -> None:
    number = pytestconfig.getoption("--soak-specs", 100)
    seen: Counter[str] = Counter()
    async with asyncio.timeout(60 + 3 * number):
        host = PluginHost.load(entry_points=False)
        async with Session("local", config={"state_dir": str(tmp_path)}, plugins=host, timeout=4.0) as session:
            before = (0, 0, 0)
            for first in range(0, number, 25):
                numbers = range(first, min(first + 25, number))
                specs = [generated.spec(random.Random(soak_seed * 1_000_000 + each)) for each in numbers]
                async for outcome in session.provision_many(specs, max_in_flight=3):
                    if outcome.environment is None:
                        seen[type(outcome.error).__name__] += 1
                        assert isinstance(outcome.error, SandboxError), (specs[outcome.index], outcome.error)
                        assert str(outcome.error).strip()
                        assert "Traceback" not in str(outcome.error)
                        continue
                    seen["environment"] += 1
                    try:
                        for sandbox in outcome.environment:
                            assert (await sandbox.exec(["/bin/true"], timeout=10)).exit_code == 0, specs[outcome.index]
                    except SandboxError as error:
                        # It may end by itself or have no directory to run in; then that is said in the library's own words.
                        seen[f"exec: {type(error).__name__}"] += 1
                    await outcome.environment.destroy()
                # The first round opens what stays open as long as the session.
                before = held() if first == 0 else before
            assert await session.find(run_id=session.run_id) == []
            after = held()
            _log.info("%s specs: %s; descriptors, KiB, children: %s to %s", number, dict(seen), before, after)
    assert list((tmp_path / "envs").iterdir()) == []
    assert seen["environment"] >= number // 10, seen
    assert (after[0] - before[0], after[2] - before[2]) == (0, 0), (before, after)
    assert after[1] - before[1] < 48 * 1024, (before, after)
