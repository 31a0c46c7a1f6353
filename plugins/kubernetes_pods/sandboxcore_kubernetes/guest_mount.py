"""The guest as a mount, for pods without ``sh`` and for read-only roots."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sandboxcore.errors import GuestUnavailableError

__all__ = ("GUEST_FOLDER", "GUEST_PATH", "GuestMount", "guest_mount")

GUEST_FOLDER = "/.sandboxcore"
#: For ``PodChannel(guest_path=...)`` where ``guest_mount`` is mounted.
GUEST_PATH = f"{GUEST_FOLDER}/guest-{{machine}}"

_VOLUME = "sandboxcore-guest"
_MACHINES = ("x86_64", "aarch64")


@dataclass(frozen=True, kw_only=True, slots=True)
class GuestMount:
    """What brings the guest into a pod.

    Args:
        config_map: The object that holds the programs; to be created beside the pods.
        volume: For the pod's ``volumes``.
        mount: For the container's ``volumeMounts``.
        guest_path: For ``PodChannel``.
    """

    config_map: dict[str, Any]
    volume: dict[str, Any]
    mount: dict[str, Any]
    guest_path: str = GUEST_PATH


def guest_mount(
    name: str = "",
    *,
    namespace: str | None = None,
    labels: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
) -> GuestMount:
    """Describe a ConfigMap with the guest of every machine type that was built, and its read-only mount.

    Args:
        name: Of the ConfigMap; empty: ``sandboxcore-guest-`` and a digest of the programs, so that many pods may share one.

    Raises:
        GuestUnavailableError: No guest was built.
    """
    from sandboxcore.guest import guest_binary

    programs: dict[str, bytes] = {}
    for machine in _MACHINES:
        try:
            programs[f"guest-{machine}"] = guest_binary(machine).read_bytes()
        except GuestUnavailableError:
            if machine == _MACHINES[-1] and not programs:
                raise
    digest = hashlib.sha256(b"".join(programs[key] for key in sorted(programs))).hexdigest()[:10]
    name = name or f"sandboxcore-guest-{digest}"
    metadata: dict[str, Any] = {"name": name, "labels": dict(labels or {}), "annotations": dict(annotations or {})}
    if namespace:
        metadata["namespace"] = namespace
    return GuestMount(
        config_map={
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": metadata,
            "immutable": True,
            "binaryData": {key: base64.b64encode(data).decode() for key, data in programs.items()},
        },
        volume={"name": _VOLUME, "configMap": {"name": name, "defaultMode": 0o755}},
        mount={"name": _VOLUME, "mountPath": GUEST_FOLDER, "readOnly": True},
    )
