"""Objects of a manifest: one YAML stream, as Helm renders and keeps it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import yaml
from sandboxcore.errors import UsageError

from ._goyaml import load

__all__ = ("WORKLOADS", "Document", "documents", "key_of", "objects_of", "pod_template")

#: Kinds that make pods; they are created when all others are there.
WORKLOADS = frozenset(("Pod", "ReplicationController", "ReplicaSet", "Deployment", "StatefulSet", "DaemonSet", "Job", "CronJob"))
_BREAK = re.compile(r"^---[ \t]*$", re.MULTILINE)
_SOURCE = re.compile(r"^# Source: (.+)$", re.MULTILINE)


@dataclass(frozen=True, kw_only=True, slots=True)
class Document:
    """One object of a manifest.

    Args:
        source: Path of its template in the chart.
        text: The YAML as it was rendered.
        body: What it says.
    """

    source: str
    text: str
    body: dict[str, Any]


def documents(manifest: str) -> Iterator[Document]:
    """Split a manifest into its objects, in its order; empty documents are left out.

    Raises:
        UsageError: A document is no YAML, or no object; the message has its template.
    """
    for part in _BREAK.split(manifest):
        if not part.strip():
            continue
        found = _SOURCE.search(part)
        source = found[1].strip() if found else ""
        try:
            body = load(part)
        except yaml.YAMLError as error:
            raise UsageError(f"{source or 'manifest'}: is no YAML: {' '.join(str(error).split())}") from None
        if body is None:
            continue
        if not isinstance(body, dict) or "kind" not in body:
            raise UsageError(f"{source or 'manifest'}: is no Kubernetes object: it has no 'kind'")
        yield Document(source=source, text=part.strip("\n"), body=body)


def objects_of(manifest: str) -> list[dict[str, Any]]:
    """List the objects of a manifest; those of a ``List`` stand for themselves."""
    return [item for document in documents(manifest) for item in _unrolled(document.body)]


def _unrolled(body: dict[str, Any]) -> Iterable[dict[str, Any]]:
    if body["kind"].endswith("List") and isinstance(body.get("items"), list):
        return [inner for item in body["items"] if isinstance(item, dict) for inner in _unrolled(item)]
    return (body,)


def key_of(body: dict[str, Any], namespace: str) -> tuple[str, str, str, str]:
    """Name an object: apiVersion, kind, its own namespace or the release's, name."""
    metadata = body.get("metadata") or {}
    return (
        str(body.get("apiVersion", "")),
        str(body["kind"]),
        str(metadata.get("namespace") or namespace),
        str(metadata.get("name", "")),
    )


def pod_template(body: dict[str, Any]) -> dict[str, Any] | None:
    """Return what a workload makes its pods of, a Pod being its own; None for all other kinds."""
    kind = body["kind"]
    if kind == "Pod":
        return body
    if kind not in WORKLOADS:
        return None
    spec = body.get("spec") or {}
    if kind == "CronJob":
        spec = (spec.get("jobTemplate") or {}).get("spec") or {}
    template = spec.get("template")
    return template if isinstance(template, dict) else None
