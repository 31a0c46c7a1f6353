"""What the pages about speed have in common: tables, figures, and the line about the machine."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .targets import Verdict

__all__ = ("machine_text", "short", "table", "verdict_table")


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Write a Markdown table, with all columns but the first to the right."""
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def short(value: float) -> str:
    """Write a figure with three digits, or whole."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def machine_text(machine: Mapping[str, Any]) -> str:
    """Say where and when it was measured."""
    before, after = machine["load_before"][0], machine["load_after"][0]
    return (
        f"Measured {machine['date']} on {machine['cores']} cores ({machine['processor']}), "
        f"{machine['memory_gib']:g} GiB, Linux {machine['kernel']}, Python {machine['python']}; "
        f"load average {before:g} before and {after:g} after."
    )


def verdict_table(found: Sequence[Verdict]) -> str:
    """Hold what was measured against the numbers to reach."""

    def row(verdict: Verdict) -> Sequence[str]:
        sign = "≤" if verdict.most else "≥"
        space = "" if verdict.unit == "x" else " "
        reached = "yes" if verdict.reached else "**no**"
        return (
            verdict.what,
            f"{verdict.value:.3g}{space}{verdict.unit}",
            f"{sign} {verdict.bound:g}{space}{verdict.unit}",
            reached,
        )

    return table(("what", "measured", "to reach", "reached"), map(row, found))
