"""The pages about speed say what their figures say: nothing on them was typed or taken from another run."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import pytest

from benchmarks import helm_page, opensandbox_page, page
from benchmarks.publishing import DOCS

PAGES = [
    pytest.param("performance", page),
    pytest.param("performance-helm", helm_page),
    pytest.param("performance-opensandbox", opensandbox_page),
]


@pytest.mark.parametrize(("name", "module"), PAGES)
def test_a_page_is_what_its_figures_say(name: str, module: ModuleType) -> None:
    report = json.loads((DOCS / "_static" / f"{name}.json").read_text())
    assert module.write(report) == (DOCS / "explanation" / f"{name}.md").read_text()


@pytest.mark.parametrize(("name", "module"), PAGES[1:])
def test_its_picture_is_drawn_from_them(name: str, module: ModuleType, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    report = json.loads((DOCS / "_static" / f"{name}.json").read_text())
    module.draw(report, tmp_path / "drawn.svg")
    assert "</svg>" in (tmp_path / "drawn.svg").read_text()
