"""What an image says about itself, and paths in its file tree."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..spec import Healthcheck

__all__ = ("ImageConfig", "resolve_inside")

_NANOSECONDS = 1e-9


@dataclass(frozen=True, kw_only=True)
class ImageConfig:
    """The part of an OCI image configuration that matters here."""

    env: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    user: str | None = None
    working_dir: str | None = None
    healthcheck: Healthcheck | None = None

    @classmethod
    def from_oci(cls, document: Mapping[str, Any]) -> ImageConfig:
        """Read a configuration document (its ``config`` object); see the OCI image specification, config.md."""
        config = document.get("config") or {}
        pairs = (entry.partition("=") for entry in config.get("Env") or ())
        return cls(
            env=tuple((name, value) for name, _, value in pairs),
            entrypoint=tuple(config.get("Entrypoint") or ()),
            command=tuple(config.get("Cmd") or ()),
            user=config.get("User") or None,
            working_dir=config.get("WorkingDir") or None,
            healthcheck=_healthcheck(config.get("Healthcheck") or {}),
        )


def _healthcheck(found: Mapping[str, Any]) -> Healthcheck | None:
    if not found.get("Test"):
        return None
    keys = {"interval": "Interval", "timeout": "Timeout", "start_period": "StartPeriod", "start_interval": "StartInterval"}
    times = {name: found[key] * _NANOSECONDS for name, key in keys.items() if found.get(key)}
    retries = {"retries": found["Retries"]} if found.get("Retries") else {}
    return Healthcheck(test=tuple(found["Test"]), **times, **retries)


def resolve_inside(root: Path, path: str) -> str:
    """Follow the symbolic links of a tree as a process inside of it would; what does not exist stays as it is."""
    waiting = [part for part in path.split("/") if part]
    reached: list[str] = []
    for _ in range(400):
        if not waiting:
            break
        part = waiting.pop(0)
        if part in (".", ".."):
            reached = reached[:-1] if part == ".." else reached
            continue
        here = root.joinpath(*reached, part)
        if not here.is_symlink():
            reached.append(part)
            continue
        link = str(here.readlink())
        reached = [] if link.startswith("/") else reached
        waiting = [step for step in link.split("/") if step] + waiting
    return "/" + "/".join([*reached, *waiting])
