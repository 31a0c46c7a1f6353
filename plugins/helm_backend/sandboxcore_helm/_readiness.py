"""What ``helm --wait`` waits for, taken apart: pods, which one watch shows, and the objects that have to be looked at.

Source: https://github.com/helm/helm/blob/v3.17.0/pkg/kube/ready.go
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ._manifest import pod_template

__all__ = ("Awaited", "Replicas", "awaited", "object_ready", "progress")

_REPLICATED = ("Deployment", "StatefulSet", "ReplicaSet", "ReplicationController")


@dataclass(frozen=True, kw_only=True, slots=True)
class Replicas:
    """So many pods with these labels, which an object makes."""

    owner: str
    labels: Mapping[str, str]
    count: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Awaited:
    """What a release needs to be ready.

    Args:
        pods: Names of pods.
        owners: Names of the objects that make them.
        replicas: Pods that have no names yet.
        objects: Those whose own status tells, among them those that make pods which the watch does not show.
    """

    pods: tuple[str, ...] = ()
    owners: tuple[str, ...] = ()
    replicas: tuple[Replicas, ...] = ()
    objects: tuple[Mapping[str, Any], ...] = field(default=(), repr=False)


def awaited(objects: Iterable[Mapping[str, Any]], *, shown: Callable[[Mapping[str, Any]], bool], jobs: bool = False) -> Awaited:
    """List what to wait for.

    Args:
        shown: Tells from the metadata of pods whether the watch shows them.
        jobs: Jobs count, too (``--wait-for-jobs``).
    """
    pods: list[str] = []
    owners: list[str] = []
    replicas: list[Replicas] = []
    looked_at: list[Mapping[str, Any]] = []
    for body in objects:
        kind, name, spec = body["kind"], (body.get("metadata") or {}).get("name", ""), body.get("spec") or {}
        if kind == "Deployment" and spec.get("paused"):
            continue
        if (kind == "Pod" or kind in _REPLICATED) and not shown(_pod_metadata(body)):
            looked_at.append(body)
        elif kind == "Pod":
            pods.append(name)
        elif kind == "StatefulSet":
            start = int((spec.get("ordinals") or {}).get("start") or 0)
            pods += [f"{name}-{start + index}" for index in range(_count(spec))]
            owners.append(name)
        elif kind in _REPLICATED:
            replicas.append(Replicas(owner=name, labels=_pod_metadata(body).get("labels") or {}, count=_needed(kind, spec)))
        elif (
            kind in ("DaemonSet", "PersistentVolumeClaim", "CustomResourceDefinition")
            or (kind == "Job" and jobs)
            or (kind == "Service" and spec.get("type") == "LoadBalancer" and not spec.get("externalIPs"))
        ):
            looked_at.append(body)
    return Awaited(pods=tuple(pods), owners=tuple(owners), replicas=tuple(replicas), objects=tuple(looked_at))


def _pod_metadata(body: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what pods of a workload carry, in the namespace that they are in."""
    metadata = (pod_template(dict(body)) or {}).get("metadata") or {}
    return {**metadata, "namespace": (body.get("metadata") or {}).get("namespace")}


def _needed(kind: str, spec: Mapping[str, Any]) -> int:
    return max(0, _count(spec) - (_unavailable(spec) if kind == "Deployment" else 0))


def _count(spec: Mapping[str, Any]) -> int:
    wanted = spec.get("replicas")
    return 1 if wanted is None else int(wanted)


def _unavailable(spec: Mapping[str, Any]) -> int:
    """Compute how many pods of a Deployment may be missing, as its controller does: rounded down, not all."""
    strategy = spec.get("strategy") or {}
    if strategy.get("type") == "Recreate":
        return 0
    given = (strategy.get("rollingUpdate") or {}).get("maxUnavailable", "25%")
    total = _count(spec)
    share = math.floor(total * float(given.rstrip("%")) / 100) if isinstance(given, str) and given.endswith("%") else int(given)
    return min(share, total)


def object_ready(body: Mapping[str, Any]) -> bool:
    """Tell from an object's own status whether it is ready.

    Raises:
        ValueError: It failed, and waiting does not help; with the reason.
    """
    kind, spec, status = body["kind"], body.get("spec") or {}, body.get("status") or {}
    conditions = {found.get("type"): found for found in status.get("conditions") or () if found.get("status") == "True"}
    if kind == "Pod":
        return _pod_ready(status, conditions)
    if kind in _REPLICATED:
        seen = int(status.get("observedGeneration") or 0) >= int((body.get("metadata") or {}).get("generation") or 0)
        return seen and int(status.get("readyReplicas") or 0) >= _needed(kind, spec)
    if kind == "DaemonSet":
        return _daemon_set_ready(body, spec, status)
    if kind == "PersistentVolumeClaim":
        return bool(status.get("phase") == "Bound")
    if kind == "Service":
        return bool(spec.get("clusterIP")) and bool((status.get("loadBalancer") or {}).get("ingress"))
    if kind == "CustomResourceDefinition":
        return "Established" in conditions
    if kind == "Job":
        if "Failed" in conditions:
            raise ValueError(conditions["Failed"].get("message") or "the job failed")
        completions = spec.get("completions")
        return int(status.get("succeeded") or 0) >= (1 if completions is None else int(completions))
    return True


def progress(body: Mapping[str, Any]) -> str:
    """Say how far an object is that is not ready, as its status tells; empty where that says nothing more."""
    status = body.get("status") or {}
    wrong = [each for each in status.get("conditions") or () if each.get("message") and _is_wrong(each)]
    told = [each["message"] for each in wrong[:1]]
    if body["kind"] in _REPLICATED:
        told.insert(0, f"{status.get('readyReplicas') or 0} of {_count(body.get('spec') or {})} pods are ready")
    return ": ".join(told)


def _is_wrong(condition: Mapping[str, Any]) -> bool:
    return (condition["status"] == "True") is (condition["type"] == "ReplicaFailure")


def _pod_ready(status: Mapping[str, Any], conditions: Mapping[Any, Any]) -> bool:
    if status.get("phase") == "Failed":
        raise ValueError(status.get("message") or status.get("reason") or "a container of it failed")
    return status.get("phase") == "Succeeded" or "Ready" in conditions


def _daemon_set_ready(body: Mapping[str, Any], spec: Mapping[str, Any], status: Mapping[str, Any]) -> bool:
    if status.get("observedGeneration", 0) < body["metadata"].get("generation", 0):
        return False
    if (spec.get("updateStrategy") or {}).get("type", "RollingUpdate") != "RollingUpdate":
        return True
    wanted = int(status.get("desiredNumberScheduled") or 0)
    given = ((spec.get("updateStrategy") or {}).get("rollingUpdate") or {}).get("maxUnavailable", 1)
    missing = math.ceil(wanted * float(given.rstrip("%")) / 100) if isinstance(given, str) else int(given)
    return int(status.get("updatedNumberScheduled") or 0) == wanted and int(status.get("numberReady") or 0) >= wanted - missing
