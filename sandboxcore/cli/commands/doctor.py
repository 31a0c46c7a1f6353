"""``sandboxcore doctor``: what a backend needs."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import click

from .._lazy import COMMANDS
from .._options import BackendChoice, backend_options, json_option

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...values import DoctorFinding

__all__ = ("command",)

_MARKS = {"ok": "ok", "warning": "WARNING", "error": "ERROR"}


@click.command(short_help=COMMANDS["doctor"])
@backend_options
@json_option
def command(choice: BackendChoice, as_json: bool) -> int:
    """Check what a backend needs on this machine or cluster, and say the fix for what is missing.

    The exit code is 1 if something is missing that it can't do without.
    """
    from .._signals import run_async

    return run_async(lambda: _doctor(choice, as_json))


async def _doctor(choice: BackendChoice, as_json: bool) -> int:
    from .._output import print_json
    from .._progress import Progress

    progress = Progress()
    async with choice.session(on_event=progress.on_event) as session:
        async with progress.waiting(f"checking {session.backend}"):
            findings = await session.doctor()
        healthy = all(finding.status != "error" for finding in findings)
        if as_json:
            print_json({"backend": session.backend, "ok": healthy, "findings": [dataclasses.asdict(one) for one in findings]})
        else:
            _show(session.backend, findings)
    return 0 if healthy else 1


def _show(backend: str, findings: Sequence[DoctorFinding]) -> None:
    for finding in findings:
        detail = f": {finding.detail}" if finding.detail else ""
        click.echo(f"{_MARKS[finding.status]:8}{finding.check}{detail}")
        if finding.fix and finding.status != "ok":
            click.echo(f"{'':8}fix: {finding.fix}")
    if not findings:
        click.echo(f"backend {backend!r} has nothing to check")
