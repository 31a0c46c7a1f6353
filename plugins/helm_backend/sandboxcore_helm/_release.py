"""A release as Helm describes it in JSON: what a rendering is, and what a record keeps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ("Hook", "Release", "read_release")


@dataclass(frozen=True, kw_only=True, slots=True)
class Hook:
    """An object that Helm creates at an event instead of with the others.

    ``raw`` is Helm's own JSON of it, for records.
    """

    name: str
    kind: str
    manifest: str
    events: tuple[str, ...]
    weight: int = 0
    delete_policies: tuple[str, ...] = ()
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class Release:
    """A rendered release. ``chart`` has ``metadata`` and the chart's own ``values``; ``config`` is what was given."""

    name: str
    namespace: str
    manifest: str = field(repr=False)
    hooks: tuple[Hook, ...] = ()
    notes: str = ""
    chart: Mapping[str, Any] = field(default_factory=dict, repr=False)
    config: Mapping[str, Any] = field(default_factory=dict, repr=False)
    version: int = 1
    status: str = ""
    description: str = ""
    first_deployed: str = ""
    apply_method: str = ""


def read_release(document: Mapping[str, Any]) -> Release:
    """Read the JSON of ``helm install -o json`` or of a record.

    Source: https://github.com/helm/helm/blob/v3.17.0/pkg/release/release.go; Helm 4 keeps the keys and adds ``apply_method``.
    """
    info = document.get("info") or {}
    chart = document.get("chart") or {}
    return Release(
        name=document["name"],
        namespace=document.get("namespace", ""),
        manifest=document.get("manifest", ""),
        hooks=tuple(_hook(hook) for hook in document.get("hooks") or ()),
        notes=info.get("notes", ""),
        chart={"metadata": chart.get("metadata") or {}, "values": chart.get("values") or {}},
        config=document.get("config") or {},
        version=int(document.get("version") or 1),
        status=info.get("status", ""),
        description=info.get("description", ""),
        first_deployed=info.get("first_deployed", ""),
        apply_method=document.get("apply_method", ""),
    )


def _hook(raw: Mapping[str, Any]) -> Hook:
    return Hook(
        name=raw.get("name", ""),
        kind=raw.get("kind", ""),
        manifest=raw.get("manifest", ""),
        events=tuple(raw.get("events") or ()),
        weight=int(raw.get("weight") or 0),
        delete_policies=tuple(raw.get("delete_policies") or ()),
        raw=raw,
    )
