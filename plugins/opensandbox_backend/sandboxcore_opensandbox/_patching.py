"""The merge of a patch into a pod, as far as settings need it. Pure."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

__all__ = ("strategic_merge",)

#: List of a pod to the key that tells its items apart; other lists are replaced.
#: Source: the ``patchMergeKey`` tags in k8s.io/api/core/v1/types.go.
_KEYS = {
    "containers": "name",
    "initContainers": "name",
    "volumes": "name",
    "env": "name",
    "imagePullSecrets": "name",
    "volumeMounts": "mountPath",
    "ports": "containerPort",
    "hostAliases": "ip",
}


def strategic_merge(value: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    """Merge a patch into an object: maps key by key, known lists item by item, None takes a key away."""
    made = copy.deepcopy(dict(value))
    for key, change in patch.items():
        if change is None:
            made.pop(key, None)
        elif isinstance(change, Mapping):
            made[key] = strategic_merge(made.get(key) or {}, change)
        elif key in _KEYS and isinstance(change, list):
            made[key] = _merge_items(made.get(key) or [], change, _KEYS[key])
        else:
            made[key] = copy.deepcopy(change)
    return made


def _merge_items(items: list[Any], changes: list[Any], key: str) -> list[Any]:
    made = {item[key]: item for item in items}
    for change in changes:
        made[change[key]] = strategic_merge(made.get(change[key]) or {}, change)
    return list(made.values())
