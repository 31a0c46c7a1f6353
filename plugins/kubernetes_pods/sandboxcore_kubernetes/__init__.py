"""Pods for sandboxcore: what every Kubernetes backend stands on.

Nothing heavy is imported before a cluster is connected to.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .channel import PodChannel
    from .cluster import Cluster
    from .config import ClusterConfig
    from .diagnosis import Cause, diagnose
    from .errors import ApiError, UnreachableError, sandbox_error
    from .guest_mount import GUEST_PATH, GuestMount
    from .leases import RunLease
    from .pods import ContainerState, PodState
    from .readiness import wait_ready
    from .watches import PodEvent, PodWatch
    from .watching import WatchEvent

_HOMES = {
    "ApiError": "errors",
    "Cause": "diagnosis",
    "Cluster": "cluster",
    "ClusterConfig": "config",
    "ContainerState": "pods",
    "GUEST_PATH": "guest_mount",
    "GuestMount": "guest_mount",
    "PodChannel": "channel",
    "PodEvent": "watches",
    "PodState": "pods",
    "PodWatch": "watches",
    "RunLease": "leases",
    "UnreachableError": "errors",
    "WatchEvent": "watching",
    "diagnose": "diagnosis",
    "sandbox_error": "errors",
    "wait_ready": "readiness",
}

__all__ = (
    "GUEST_PATH",
    "ApiError",
    "Cause",
    "Cluster",
    "ClusterConfig",
    "ContainerState",
    "GuestMount",
    "PodChannel",
    "PodEvent",
    "PodState",
    "PodWatch",
    "RunLease",
    "UnreachableError",
    "WatchEvent",
    "diagnose",
    "sandbox_error",
    "wait_ready",
)


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value  # a submodule may have the name of what is in it
    return value
