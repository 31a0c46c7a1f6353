"""Draw a report: latency and rate of commands, and how fast files move."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .commands import BARE, BWRAP, OURS
from .drawing import grid_and_legend, picture
from .targets import size_text
from .transfers import CAT, STREAMED, WHOLE

__all__ = ("draw",)

_COLOURS = {OURS: "#0b6e99", BARE: "#8a8a8a", BWRAP: "#c4622d", CAT: "#8a8a8a", STREAMED: "#0b6e99", WHOLE: "#6fb3cf"}


def draw(report: Mapping[str, Any], path: Path) -> None:
    """Write the picture; its format is that of the name's ending."""
    with picture(path, 2, 2, (10, 7.5)) as axes:
        _draw_commands(axes[0][0], report, "p50_ms", "median latency of /bin/true, ms")
        _draw_commands(axes[0][1], report, "per_second", "commands a second")
        _draw_files(axes[1][0], report, "up", "files in, MiB/s")
        _draw_files(axes[1][1], report, "down", "files out, MiB/s")


def _draw_commands(axis: Any, report: Mapping[str, Any], figure: str, title: str) -> None:
    rows = report["commands"]
    for name in (BWRAP, BARE, OURS):
        values = [row["contenders"][name][figure] for row in rows]
        axis.plot([row["in_flight"] for row in rows], values, marker="o", label=name, color=_COLOURS[name])
    axis.set(title=title, xlabel="in flight", xscale="log", yscale="log")
    grid_and_legend(axis)


def _draw_files(axis: Any, report: Mapping[str, Any], way: str, title: str) -> None:
    rows = report["files"]["rows"]
    for name, label in ((CAT, "cat | cat"), (WHOLE, "sandboxcore, whole"), (STREAMED, "sandboxcore, in pieces")):
        values = [row[way][name]["mib_per_second"] for row in rows]
        axis.plot(range(len(rows)), values, marker="o", label=label, color=_COLOURS[name])
    axis.set(title=title, xticks=range(len(rows)), xticklabels=[size_text(row["size_bytes"]) for row in rows], yscale="log")
    grid_and_legend(axis)
