"""Helm's record of a release: the Secret by which Helm 3 and 4 list, show, upgrade and uninstall it.

Source: https://github.com/helm/helm/blob/v3.17.0/pkg/storage/driver/secrets.go and util.go
"""

from __future__ import annotations

import base64
import gzip
import json
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from ._release import Release, read_release

__all__ = ("OWNED", "decode", "encode", "ownership", "record_name", "record_secret", "status_patch")

#: Label selector of all records.
OWNED = "owner=helm"
TYPE = "helm.sh/release.v1"


def record_name(release: str, version: int = 1) -> str:
    """Name the Secret of a release's revision."""
    return f"sh.helm.release.v1.{release}.v{version}"


def ownership(release: str, namespace: str) -> tuple[dict[str, str], dict[str, str]]:
    """Return the labels and annotations that every object of a release carries; ``helm uninstall`` skips those without."""
    annotations = {"meta.helm.sh/release-name": release, "meta.helm.sh/release-namespace": namespace}
    return {"app.kubernetes.io/managed-by": "Helm"}, annotations


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, tz=UTC).isoformat().replace("+00:00", "Z")


def document(release: Release, *, status: str, description: str, first: float) -> dict[str, Any]:
    """Write a release as Helm does. Field manager ``helm`` and ``csa`` are what both versions upgrade without conflicts."""
    return {
        "name": release.name,
        "namespace": release.namespace,
        "version": 1,
        "apply_method": "csa",
        "info": {
            "first_deployed": _time(first),
            "last_deployed": _time(first),
            "deleted": "",
            "description": description,
            "status": status,
            "notes": release.notes,
        },
        "chart": {"metadata": release.chart["metadata"], "values": release.chart["values"]},
        "config": release.config,
        "manifest": release.manifest,
        "hooks": [dict(hook.raw) | {"last_run": {"phase": ""}} for hook in release.hooks],
    }


def encode(description: Mapping[str, Any]) -> str:
    """Write a record's ``data.release``: base64 of base64 of gzip of JSON."""
    packed = gzip.compress(json.dumps(description, ensure_ascii=False).encode(), compresslevel=6, mtime=0)
    return base64.b64encode(base64.b64encode(packed)).decode("ascii")


def decode(data: str) -> Release:
    """Read a record's ``data.release``.

    Raises:
        ValueError: It is none.
    """
    try:
        packed = base64.b64decode(base64.b64decode(data))
        return read_release(json.loads(gzip.decompress(packed) if packed[:2] == b"\x1f\x8b" else packed))
    except (OSError, EOFError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"is no release record: {type(error).__name__}") from None


def record_secret(
    release: Release,
    *,
    status: str,
    description: str,
    labels: Mapping[str, str],
    annotations: Mapping[str, str],
    first: float | None = None,
) -> dict[str, Any]:
    """Make the Secret. Own labels stay on the records that ``helm upgrade`` writes later; annotations don't."""
    now = time.time() if first is None else first
    reserved = {"owner": "helm", "name": release.name, "status": status, "version": "1", "createdAt": str(int(now))}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": record_name(release.name),
            "namespace": release.namespace,
            "labels": {**labels, **reserved},
            "annotations": dict(annotations),
        },
        "type": TYPE,
        "data": {"release": encode(document(release, status=status, description=description, first=now))},
    }


def status_patch(secret: Mapping[str, Any], release: Release, *, status: str, description: str) -> dict[str, Any]:
    """Make the merge patch that moves a record to another status."""
    first = float(secret["metadata"]["labels"]["createdAt"])
    return {
        "metadata": {"labels": {"status": status, "modifiedAt": str(int(time.time()))}},
        "data": {"release": encode(document(release, status=status, description=description, first=first))},
    }
