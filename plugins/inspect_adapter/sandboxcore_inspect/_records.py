"""Notes on this machine of where evals have environments, so that a later clean-up needs no configuration."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from inspect_ai._util.appdirs import inspect_data_dir

__all__ = ("Record", "forget", "owner_is_gone", "places", "records", "remember")

_SECRET = re.compile(r"key|token|secret|password|credential|proxy", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Record:
    """One session. What of its configuration may hold secrets is left out: a later clean-up takes that from its surroundings."""

    backend: str
    run_id: str
    owner: str
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        plain = {name: value for name, value in self.options.items() if isinstance(value, (str, int, float))}
        kept = {name: value for name, value in plain.items() if not _SECRET.search(name)}
        object.__setattr__(self, "options", kept)


def _path(record: Record) -> Path:
    return inspect_data_dir("sandboxcore") / f"{record.run_id}.json"


def remember(record: Record) -> None:
    """Note a session that is open."""
    path = _path(record)
    path.write_text(json.dumps(asdict(record)), encoding="utf-8")


def forget(record: Record) -> None:
    """Drop the note of a session that has left nothing. Idempotent."""
    _path(record).unlink(missing_ok=True)


def records() -> list[Record]:
    """Read all notes; one that can't be read is passed over."""
    found = []
    for path in sorted(inspect_data_dir("sandboxcore").glob("*.json")):
        try:
            found.append(Record(**json.loads(path.read_text(encoding="utf-8"))))
        except (OSError, ValueError, TypeError):
            continue
    return found


def places(known: list[Record], backend: str) -> list[tuple[str, Mapping[str, Any]]]:
    """List each backend and configuration once, that of this process's surroundings first."""
    found = {(backend, "{}"): None} | {(record.backend, json.dumps(record.options, sort_keys=True)): None for record in known}
    return [(name, json.loads(options)) for name, options in found]


def owner_is_gone(owner: str) -> bool:
    """Tell whether an owner (``user@host:pid``) was a process of this machine that has ended."""
    import socket

    host, _, pid = owner.rpartition("@")[2].rpartition(":")
    if host != socket.gethostname() or not pid.isdecimal():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):
        return False
    return False
