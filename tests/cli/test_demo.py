"""The main job, as ``make demo`` runs it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.tier("local")

DEMO = Path(__file__).parents[2] / "examples" / "demo"


def test_the_demo_holds_all_its_claims(tmp_path: Path) -> None:
    environ = os.environ | {"SANDBOXCORE_STATE_DIR": str(tmp_path)}
    result = subprocess.run(
        [sys.executable, "-W", "error", DEMO / "demo.py"], capture_output=True, text=True, env=environ, timeout=100, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stderr == ""
    last = result.stdout.splitlines()[-1]
    found = re.fullmatch(r"Done: all (\d+) claims hold, in [0-9.]+ s\.", last)
    assert found, last
    assert result.stdout.count("  ✓ ") == int(found[1]) >= 16
    assert not list((tmp_path / "envs").iterdir())


def test_a_claim_that_does_not_hold_is_exit_code_1() -> None:
    script = "import demo; demo.Claims().hold(1 > 2, 'one is more than two')"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=DEMO, timeout=60, check=False)
    assert result.returncode == 1
    assert "one is more than two" in result.stderr
