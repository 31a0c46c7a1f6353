"""The benchmarks run, and their report is whole. No time is looked at: that is for ``make bench`` on a quiet machine."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.tier("local"), pytest.mark.timeout(300)]


def run(*arguments: str) -> str:
    command = [sys.executable, "-m", "benchmarks", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder that a quick run has filled, and what it printed."""
    folder = tmp_path_factory.mktemp("bench")
    return folder, run("--quick", "--without", "docker", "--output", str(folder))


@pytest.fixture
def report(made: tuple[Path, str]) -> Any:
    return json.loads((made[0] / "performance.json").read_text())


def test_every_level_has_all_contenders(report: Any) -> None:
    assert [row["in_flight"] for row in report["commands"]] == [1, 10]
    rivals = {"create_subprocess_exec", "fresh bwrap", "sandboxcore"}
    assert set(report["commands"][0]["contenders"]) == rivals | {"posix_spawn"}
    assert set(report["commands"][1]["contenders"]) == rivals
    for row in report["commands"]:
        for figures in row["contenders"].values():
            assert figures["runs"] == 2
            assert figures["commands"] >= 2 * row["in_flight"]
            assert 0 < figures["p50_ms"] <= figures["p99_ms"]
            assert figures["per_second"] > 0


def test_files_go_both_ways_beside_cat(report: Any) -> None:
    assert [row["size_bytes"] for row in report["files"]["rows"]] == [1 << 10, 1 << 20]
    for row in report["files"]["rows"]:
        for way in ("up", "down"):
            assert set(row[way]) == {"cat", "whole", "streamed"}
            assert all(figures["mib_per_second"] > 0 for figures in row[way].values())
    assert set(report["files"]["memory"]["growth_bytes"]) == {"up", "down"}


def test_sandboxes_are_weighed_in_every_state(report: Any) -> None:
    weights = report["weights"]
    assert weights["count"] == 20
    for kind in ("rss", "allocated"):
        assert list(weights[kind]["bytes_each"]) == ["never used", "idle, connected", "idle, link closed", "active"]
    # What is allocated can be told exactly enough: a waiting command holds the output that came.
    each = weights["allocated"]["bytes_each"]
    assert each["active"] > weights["allocated"]["output_bytes_each"] > each["idle, connected"] > 0


def test_starts_are_timed_and_imports_listed(report: Any) -> None:
    assert {"import sandboxcore", "sandboxcore --help"} <= set(report["starts"]["cpu_ms"])
    assert set(report["starts"]["modules"]) <= {"sandboxcore", "pluggy", "pydantic"}


def test_the_machine_is_described_without_its_paths(made: tuple[Path, str], report: Any) -> None:
    assert {"cores", "kernel", "python", "load_before", "load_after", "date"} <= set(report["machine"])
    assert str(ROOT) not in (made[0] / "performance.json").read_text()


def test_each_number_to_reach_has_its_verdict(made: tuple[Path, str]) -> None:
    lines = made[1].splitlines()
    assert len(lines) == 12
    assert all(line.startswith(("ok  ", "MISS")) for line in lines)


def test_a_picture_is_drawn(made: tuple[Path, str]) -> None:
    pytest.importorskip("matplotlib")
    assert "</svg>" in (made[0] / "performance.svg").read_text()
