"""The docker part of the benchmarks runs, and its section of the page is written from it. No time is looked at."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.tier("docker"), pytest.mark.timeout(300)]

SECTION = """
import json, pathlib, sys
from benchmarks import docker_page
report = json.load(sys.stdin)["docker"]
print(docker_page.section(report))
print(len(docker_page.verdicts(report)))
docker_page.draw(report, pathlib.Path(sys.argv[1]))
"""


def run(*command: str, given: str = "") -> str:
    done = subprocess.run([sys.executable, *command], cwd=ROOT, input=given, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_all_of_it_is_measured_and_written(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    printed = run("-m", "benchmarks", "--quick", "--only", "docker")
    report: Any = json.loads(printed)["docker"]
    assert [row["in_flight"] for row in report["commands"]] == [1, 4]
    for row in report["commands"]:
        assert set(row["contenders"]) == {"sandboxcore", "engine's API"}
        assert all(figures["commands"] >= 2 * row["in_flight"] for figures in row["contenders"].values())
    assert [row["size_bytes"] for row in report["files"]] == [1 << 10]
    assert set(report["environments"]["seconds"]) == {"sandboxcore", "docker run -d", "docker run -d --network none"}
    section = run("-c", SECTION, str(tmp_path / "docker.svg"), given=printed)
    assert "\n## The docker backend\n" in f"\n{section}"
    assert section.splitlines()[-1] == "4"
    assert "</svg>" in (tmp_path / "docker.svg").read_text()
