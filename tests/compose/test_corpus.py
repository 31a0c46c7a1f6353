"""Real files of other projects, against what docker compose 2.40.3 makes of them."""

from __future__ import annotations

import collections
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sandboxcore_compose import ComposeTranslator, load

from sandboxcore.errors import SpecError

VARIABLES = {"PATH": "/usr/bin:/bin", "HOME": "/root"}
#: Seconds for 600 files on one core; the machine that runs the tests may be busy, so the bound is three times that.
SECONDS_A_FILE = 3 * 3.0 / 600


def cases(corpus: Path) -> list[tuple[str, Path, dict[str, Any]]]:
    return [(place.parent.name, place.parent, json.loads(place.read_text())) for place in sorted(corpus.glob("*/case.json"))]


def show(capsys: pytest.CaptureFixture[str], lines: list[str]) -> None:
    """Print counts, also where pytest keeps the output of tests that pass."""
    with capsys.disabled():
        sys.stdout.write("".join(f"\n  {line}" for line in lines) + "\n")


def test_every_file_loads_as_docker_compose_loads_it(
    corpus: Path, compare: Callable[[Any, str, Path], list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    counts: collections.Counter[tuple[str, str]] = collections.Counter()
    wrong: list[str] = []
    for name, folder, case in cases(corpus):
        try:
            ours = load(folder / "in" / case["main"], variables=VARIABLES, project_name="case").canonical()
        except SpecError as error:
            if case["docker_accepts"]:
                wrong.append(f"{name}: refused: {error}")
            counts[case["tier"], "refused"] += 1
            continue
        if not case["docker_accepts"]:
            wrong.append(f"{name}: accepted; docker compose says {case['docker_error']}")
            continue
        found = compare(ours, (folder / "expected.json").read_text(), folder / "in")
        wrong += [f"{name}: {line}" for line in found[:3]]
        counts[case["tier"], "equal" if not found else "different"] += 1
    tiers = sorted({tier for tier, _ in counts})
    show(
        capsys,
        [f"tier {tier}: {counts[tier, 'equal']} equal, {counts[tier, 'refused']} refused by both" for tier in tiers],
    )
    assert not wrong, "\n".join(wrong)
    assert sum(counts.values()) > 0


def test_what_is_accepted_is_translated_or_refused_with_a_place(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    counts: collections.Counter[tuple[str, str]] = collections.Counter()
    translator = ComposeTranslator()
    unplaced: list[str] = []
    for _, folder, case in cases(corpus):
        if not case["docker_accepts"]:
            continue
        try:
            translation = translator.translate([folder / "in" / case["main"]], variables=VARIABLES)
        except SpecError as error:
            unplaced += [problem for problem in error.problems if ":" not in problem]
            counts[case["tier"], "refused"] += 1
        else:
            counts[case["tier"], "translated"] += 1
            assert all(entry.reason and entry.file for entry in translation.report.entries)
    tiers = sorted({tier for tier, _ in counts})
    show(capsys, [f"tier {tier}: {counts[tier, 'translated']} translated, {counts[tier, 'refused']} refused" for tier in tiers])
    assert not unplaced
    assert counts["A", "refused"] == 0


def test_loading_and_translating_is_quick(corpus: Path) -> None:
    found = [(folder, case) for _, folder, case in cases(corpus) if case["docker_accepts"]]
    translator = ComposeTranslator()
    begin = time.process_time()
    for folder, case in found:
        try:
            translator.translate([folder / "in" / case["main"]], variables=VARIABLES)
        except SpecError:
            continue
    assert time.process_time() - begin < SECONDS_A_FILE * len(found)
