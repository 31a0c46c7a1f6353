"""A rendering with signs in the place of what differs from release to release; filling it in gives a release."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ._release import Hook, Release

__all__ = ("NAME_SIGN", "HookPattern", "ObjectPattern", "Pattern", "has_hole", "hole_sign", "seal")

# Private characters, which no chart writes.
NAME_SIGN = "\ue000name\ue001"


def hole_sign(index: int) -> str:
    """Return the sign for a value that differs from release to release."""
    return f"\ue000{index}\ue001"


def has_hole(text: str) -> bool:
    """Tell whether a text has a sign for a value that differs."""
    return "\ue000" in text.replace(NAME_SIGN, "")


def seal(body: Any) -> str:
    """Write as JSON, in which signs can be replaced."""
    return json.dumps(body, ensure_ascii=False, separators=(",", ":"))


def _filled(text: str, name: str, texts: Sequence[str]) -> str:
    """Replace the signs in JSON; what comes in is written as JSON writes it within quotes."""
    filled = text.replace(NAME_SIGN, name)
    for index, value in enumerate(texts):
        filled = filled.replace(hole_sign(index), json.dumps(value, ensure_ascii=False)[1:-1])
    return filled


@dataclass(frozen=True, kw_only=True, slots=True)
class ObjectPattern:
    """One object of every release of a kind."""

    source: str
    body: Mapping[str, Any] = field(repr=False)
    sealed: str = field(repr=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class HookPattern:
    """One hook of every release of a kind."""

    raw: Mapping[str, Any] = field(repr=False)
    bodies: str = field(repr=False)
    sealed: str = field(repr=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class Pattern:
    """What every release of one chart with the same values consists of.

    ``manifest`` is its text where substitution in the text is exact too; None: it is written anew from the objects.
    """

    objects: tuple[ObjectPattern, ...] = field(repr=False)
    manifest: str | None = field(repr=False)
    hooks: tuple[HookPattern, ...] = field(repr=False)
    notes: str = field(repr=False)
    chart: Mapping[str, Any] = field(repr=False)
    config: Any = field(repr=False)

    def fill(self, name: str, namespace: str, texts: Sequence[str] = ()) -> tuple[Release, list[dict[str, Any]]]:
        """Make the release of a name: Helm's description of it, and its objects."""
        objects = [json.loads(_filled(pattern.sealed, name, texts)) for pattern in self.objects]
        if self.manifest is not None:
            manifest = self.manifest.replace(NAME_SIGN, name)
        else:
            manifest = "".join(
                f"---\n# Source: {pattern.source}\n{json.dumps(body, ensure_ascii=False)}\n"
                for pattern, body in zip(self.objects, objects, strict=True)
            )
        release = Release(
            name=name,
            namespace=namespace,
            manifest=manifest,
            hooks=tuple(self._hook(pattern, name, texts) for pattern in self.hooks),
            notes=self.notes.replace(NAME_SIGN, name) if not texts else "",
            chart=self.chart,
            config=json.loads(_filled(seal(self.config), name, texts)),
        )
        return release, objects

    def _hook(self, pattern: HookPattern, name: str, texts: Sequence[str]) -> Hook:
        bodies = json.loads(_filled(pattern.bodies, name, texts))
        manifest = "\n---\n".join(json.dumps(body, ensure_ascii=False) for body in bodies)
        raw = json.loads(_filled(pattern.sealed, name, texts)) | {"manifest": manifest}
        return Hook(
            name=raw.get("name", ""),
            kind=raw.get("kind", ""),
            manifest=manifest,
            events=tuple(raw.get("events") or ()),
            weight=int(raw.get("weight") or 0),
            delete_policies=tuple(raw.get("delete_policies") or ()),
            raw=raw,
        )
