"""What commands print: one JSON document for programs, tables for people."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ..values import EnvironmentRef

#: Columns that no table reaches.
_UNBOUNDED = 100_000

__all__ = ("age", "environment_data", "note", "print_json", "print_table", "warn")


def print_json(document: Any) -> None:
    """Print a document on stdout."""
    click.echo(json.dumps(document, indent=2, ensure_ascii=False, default=str))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table on stdout: as wide as the terminal, or unbroken lines where there is none."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*columns, box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="bold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    console = Console()
    if not console.is_terminal:
        console = Console(width=Console(width=_UNBOUNDED).measure(table).maximum)
    console.print(table)


def note(message: str) -> None:
    """Tell people something on stderr."""
    click.echo(f"sandboxcore: {message}", err=True)


def warn(message: str) -> None:
    """Warn on stderr."""
    click.echo(f"sandboxcore: warning: {message}", err=True)


def age(seconds: float) -> str:
    """Put seconds into the two largest units: ``2d 3h``, ``5m 10s``, ``7s``."""
    left = int(max(seconds, 0))
    parts: list[str] = []
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        count, left = divmod(left, size)
        if count or parts:
            parts.append(f"{count}{unit}")
    return " ".join(parts[:2]) or "0s"


def environment_data(environment: EnvironmentRef, now: float | None = None) -> dict[str, Any]:
    """Describe an environment with the keys that ``--json`` promises. Times are seconds, ``*_at`` since the epoch."""
    now = time.time() if now is None else now
    return {
        "id": environment.environment_id,
        "name": environment.name,
        "backend": environment.backend,
        "run_id": environment.run_id,
        "owner": environment.owner,
        "state": environment.state,
        "created_at": environment.created_at,
        "expires_at": environment.expires_at,
        "age": round(now - environment.created_at, 3),
        "lease_left": round(environment.expires_at - now, 3),
        "expired": environment.expires_at <= now,
        "default": environment.default,
        "services": [
            {"name": sandbox.service, "state": sandbox.state, "exit_code": sandbox.exit_code} for sandbox in environment.sandboxes
        ],
        "labels": dict(environment.labels),
    }
