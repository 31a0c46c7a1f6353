"""What the guest noted about the service's own command; see ``guest init --status``."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

__all__ = ("CommandStatus", "last_words", "parse_status", "read_status")

_TAIL_LINES = 20
_TAIL_BYTES = 64 * 1024

_PHASES = {
    1: "it could not be forked",
    2: "its user does not exist or can't be had",
    3: "no such working directory",
    4: "it could not be executed",
}


@dataclass(frozen=True, kw_only=True)
class CommandStatus:
    """How far the command is.

    Args:
        state: ``waiting`` until it was started for the first time.
        exit_code: As it ended for good; None while it runs or may be restarted.
        reason: Why it could not be started at all.
    """

    state: Literal["waiting", "running", "ended", "failed"] = "waiting"
    exit_code: int | None = None
    reason: str = ""


def parse_status(lines: Iterable[str]) -> CommandStatus:
    """Read the status file; a line that is not whole yet counts for nothing."""
    status = CommandStatus()
    for line in lines:
        if not line.endswith("\n"):
            continue
        word, *rest = line.split()
        if word == "start":
            status = CommandStatus(state="running")
        elif word == "exit":
            status = CommandStatus(state="ended", exit_code=int(rest[0]))
        elif word == "failed":
            number, phase = int(rest[0]), int(rest[1])
            reason = f"{_PHASES.get(phase, 'it could not be started')} ({os.strerror(number)})"
            status = CommandStatus(state="failed", exit_code=127 if number == 2 else 126, reason=reason)
    return status


def read_status(folder: Path) -> CommandStatus:
    """Read the status of a service from its folder."""
    try:
        with (folder / "status").open() as lines:
            return parse_status(lines)
    except OSError:
        return CommandStatus()


def last_words(folder: Path) -> str:
    """Return the last lines that the service's command wrote, as the end of a message."""
    try:
        with (folder / "log").open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - _TAIL_BYTES))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        lines = []
    return "; its last output:\n" + "\n".join(lines[-_TAIL_LINES:]) if lines else "; it wrote nothing"
