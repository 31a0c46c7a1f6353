"""What is written on a sandbox of the server: as metadata, which the server keeps as labels, so in their few letters."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from sandboxcore_kubernetes.naming import ENVIRONMENT_ID, MANAGED_BY, RUN_ID

from ._notes import MANAGER

__all__ = ("LEASE", "READY", "ServerNotes", "lease_end", "metadata", "read")

LEASE = "sandboxcore.dev/lease"
READY = "sandboxcore.dev/ready"
_PIECE = "sandboxcore.dev/notes-"
#: A label's value has 63 letters at most, and begins and ends with a letter or digit.
_LETTERS = 60


@dataclass(frozen=True, kw_only=True, slots=True)
class ServerNotes:
    """One environment, which is one sandbox."""

    environment_id: str
    run_id: str
    service: str
    owner: str
    created: float
    labels: Mapping[str, str] = field(default_factory=dict)
    user: str | None = None
    working_dir: str | None = None
    #: The service's own ``PATH``, which execd's bootstrap must not have: it would not find its tools.
    path: str | None = None


_FIELDS = tuple(field.name for field in fields(ServerNotes))


def metadata(notes: ServerNotes, end: float) -> dict[str, str]:
    """Write the notes as metadata.

    Args:
        end: Of the lease, seconds since the epoch.
    """
    content = {key: value for key, value in asdict(notes).items() if value}
    text = base64.urlsafe_b64encode(json.dumps(content, separators=(",", ":")).encode()).decode().rstrip("=")
    pieces = [text[at : at + _LETTERS] for at in range(0, len(text), _LETTERS)]
    found = {f"{_PIECE}{number}": f"x{piece}x" for number, piece in enumerate(pieces)}
    return found | {MANAGED_BY: MANAGER, RUN_ID: notes.run_id, ENVIRONMENT_ID: notes.environment_id, LEASE: f"{end:.3f}"}


def read(found: Mapping[str, str] | None) -> ServerNotes | None:
    """Read metadata; None where it is none of ours."""
    known = found or {}
    if MANAGED_BY not in known:
        return None
    pieces: list[str] = []
    while f"{_PIECE}{len(pieces)}" in known:
        pieces.append(known[f"{_PIECE}{len(pieces)}"][1:-1])
    text = "".join(pieces)
    try:
        content: dict[str, Any] = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
        return ServerNotes(**{key: value for key, value in content.items() if key in _FIELDS})
    except (ValueError, TypeError, AttributeError):
        return None


def lease_end(found: Mapping[str, str] | None) -> float | None:
    """Read the end of the lease, seconds since the epoch."""
    try:
        return float((found or {})[LEASE])
    except (KeyError, ValueError):
        return None
