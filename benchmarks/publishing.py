"""Where the report of a benchmark with a page of its own goes: printed, into a file with a picture, into the docs."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

__all__ = ("Page", "add_arguments", "given", "publish")

DOCS = Path(__file__).resolve().parent.parent / "docs"


class Page(Protocol):
    """A module that knows how a report is shown."""

    def write(self, report: Mapping[str, Any], /) -> str:
        """Return the page's text."""

    def draw(self, report: Mapping[str, Any], path: Path, /) -> None:
        """Write the picture."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say where a report can come from and go to."""
    parser.add_argument("--out", type=Path, help="JSON file; a picture is put beside it")
    parser.add_argument("--docs", action="store_true", help="write the page, its figures and its picture in docs/")
    parser.add_argument("--from", dest="given", type=Path, metavar="JSON", help="take this report; measure nothing")


def given(asked: argparse.Namespace) -> dict[str, Any] | None:
    """Return the report to take in place of measuring."""
    found: dict[str, Any] | None = json.loads(asked.given.read_text()) if asked.given else None
    return found


def publish(asked: argparse.Namespace, report: Mapping[str, Any], name: str, page: Page | None) -> None:
    """Print a report and write what was asked for; without a page it is not whole, and is only kept as JSON."""
    text = json.dumps(report, indent=1) + "\n"
    sys.stdout.write(text)
    static = DOCS / "_static" / f"performance-{name}.json"
    for out in [*([asked.out] if asked.out else []), *([static] if asked.docs and page else [])]:
        out.write_text(text)
        if page:
            page.draw(report, out.with_suffix(".svg"))
    if asked.docs and page:
        (DOCS / "explanation" / f"performance-{name}.md").write_text(page.write(report))
