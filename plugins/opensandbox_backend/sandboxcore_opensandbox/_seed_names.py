"""Manifests and chart values with names that were announced but never released, in today's names.

A README of February 2026 describes a chart and resources (``minBufferSize``, ``sandboxTemplate``, ``controllerManager.image``)
from a pull request that was closed unmerged. Nothing of it ever ran; the real names are in the resources' definitions and the
charts' ``values.yaml``.
"""

from __future__ import annotations

import copy
import datetime
from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ("CHART_VALUES", "POOL_FIELDS", "today", "translate_manifest", "translate_values")

#: Field of a Pool's spec to today's, under ``spec``.
POOL_FIELDS: Mapping[str, str] = {
    "minBufferSize": "capacitySpec.bufferMin",
    "maxBufferSize": "capacitySpec.bufferMax",
    "minSize": "capacitySpec.poolMin",
    "maxSize": "capacitySpec.poolMax",
    "capacity": "capacitySpec.poolMax",
    "sandboxTemplate": "template",
}
_BATCH_FIELDS: Mapping[str, str] = {"sandboxTemplate": "template", "ttlSecondsAfterFinished": "expireTime", "pool": "poolRef"}

#: Chart value to today's; ``None``: there is none, and why is in the text beside it.
CHART_VALUES: Mapping[str, tuple[str | None, str]] = {
    "controllerManager.image.repository": ("controller.image.repository", ""),
    "controllerManager.image.tag": ("controller.image.tag", ""),
    "controllerManager.image.pullPolicy": ("controller.image.pullPolicy", ""),
    "controllerManager.replicas": ("controller.replicaCount", ""),
    "controllerManager.resources": ("controller.resources", ""),
    "controllerManager.leaderElect": ("controller.leaderElection.enabled", ""),
    "controllerManager.logLevel": ("controller.logLevel", ""),
    "controllerManager.nodeSelector": ("controller.nodeSelector", ""),
    "controllerManager.tolerations": ("controller.tolerations", ""),
    "controllerManager.affinity": ("controller.affinity", ""),
    "rbac.create": ("rbac.create", ""),
    "rbac.serviceAccount.create": ("serviceAccount.create", ""),
    "rbac.serviceAccount.name": ("serviceAccount.name", ""),
    "rbac.serviceAccount.annotations": ("serviceAccount.annotations", ""),
    "crds.install": ("crds.install", ""),
    "crds.keep": ("crds.keep", ""),
    "imagePullSecrets": ("imagePullSecrets", ""),
    "metrics.enabled": ("controller.metrics.enabled", "charts of September 2026 and later; earlier ones have no metrics values"),
    "metrics.port": ("controller.metrics.port", "charts of September 2026 and later; earlier ones have no metrics values"),
    "server.image.repository": ("server.image.repository", ""),
    "server.image.tag": ("server.image.tag", ""),
    "server.replicas": ("server.replicaCount", ""),
    "server.resources": ("server.resources", ""),
    "server.service.type": ("server.service.type", "charts of September 2026 and later; earlier ones make a ClusterIP Service"),
    "server.service.nodePort": ("server.service.nodePort", "charts of September 2026 and later"),
    "server.enabled": (None, "the server is a chart of its own: install it or leave it"),
    "server.config": (None, "write the server's TOML into configToml, as one string"),
    "server.ingress": (None, "use server.gateway.enabled and server.gateway.host, or an Ingress of your own"),
    "taskExecutor": (
        None,
        "it belongs into a Pool's template (sandboxcore opensandbox pool template --tasks)",
    ),
    "metrics.serviceMonitor": (None, "no chart makes a ServiceMonitor"),
    "extraRoles": (None, "the base chart's rbac.create makes admin, editor and viewer roles"),
    "pools": (None, "no chart makes Pools: apply them, or sandboxcore opensandbox pool create"),
}
#: Numbers of the old log level to today's words.
_LOG_LEVELS = {0: "error", 1: "error", 2: "info", 3: "info"}


def translate_manifest(document: Mapping[str, Any], *, now: datetime.datetime | None = None) -> tuple[dict[str, Any], list[str]]:
    """Rewrite a Pool or BatchSandbox in today's names.

    Args:
        document: The manifest; it is not changed. One in today's names comes back as it is.
        now: For what was relative to an end and is absolute today.

    Returns:
        The manifest, and a line for each name that was replaced, with the real one.
    """
    made = copy.deepcopy(dict(document))
    spec = made.get("spec")
    if not isinstance(spec, dict) or made.get("kind") not in ("Pool", "BatchSandbox"):
        return made, []
    where = f"{made['kind']}/{(made.get('metadata') or {}).get('name', '?')}"
    translate = _pool if made["kind"] == "Pool" else _batch
    lines = list(translate(spec, now or datetime.datetime.now(datetime.UTC)))
    return made, [f"{where}: {line}" for line in lines]


def _pool(spec: dict[str, Any], now: datetime.datetime) -> Iterator[str]:
    capacity = spec.get("capacity")
    if isinstance(capacity, dict):  # written as a mapping, with the same words in it
        del spec["capacity"]
        yield "spec.capacity: as a mapping it is called spec.capacitySpec"
        spec.setdefault("capacitySpec", {}).update(_capacity(capacity))
    for old, new in POOL_FIELDS.items():
        if old not in spec:
            continue
        value = spec.pop(old)
        if new == "template":
            yield from _template(spec, value)
        else:
            spec.setdefault("capacitySpec", {}).setdefault(new.partition(".")[2], value)
            yield f"spec.{old}: never was a field; taken for spec.{new}"
    yield from _complete(spec)


def _capacity(capacity: Mapping[str, Any]) -> dict[str, Any]:
    words = {"min": "poolMin", "max": "poolMax"} | {old: new.partition(".")[2] for old, new in POOL_FIELDS.items()}
    return {words.get(name, name): value for name, value in capacity.items()}


def _complete(spec: dict[str, Any]) -> Iterator[str]:
    """Fill in what the API server requires: all four numbers."""
    given = spec.get("capacitySpec")
    if not isinstance(given, dict) or not given:
        return
    low: int = next((given[name] for name in ("bufferMin", "bufferMax", "poolMin") if name in given), 0)
    defaults: dict[str, int] = {"bufferMin": low, "bufferMax": max(low, given.get("bufferMax", low)), "poolMin": 0}
    defaults["poolMax"] = max(defaults["bufferMax"], given.get("poolMin", 0))
    for name, value in defaults.items():
        if name not in given:
            given[name] = value
            yield f"spec.capacitySpec.{name}: is required; {value} was taken"


def _template(spec: dict[str, Any], value: Any) -> Iterator[str]:
    """Turn a template that has one image into a pod's."""
    yield "spec.sandboxTemplate: never was a field; taken for spec.template"
    inner = value.get("spec", value) if isinstance(value, dict) else {}
    if not isinstance(inner, dict) or "containers" in inner:
        spec.setdefault("template", value)
        return
    keys = ("image", "command", "args", "env", "envFrom", "resources", "ports", "volumeMounts", "workingDir", "imagePullPolicy")
    container = {"name": "sandbox"} | {key: inner.pop(key) for key in keys if key in inner}
    template: dict[str, Any] = {"spec": {"containers": [container], **inner}}
    if isinstance(value, dict) and "metadata" in value:
        template["metadata"] = value["metadata"]
        template["spec"].pop("metadata", None)
    spec.setdefault("template", template)
    yield "spec.sandboxTemplate.spec.image: a pod has containers; taken for spec.template.spec.containers[0]"


def _batch(spec: dict[str, Any], now: datetime.datetime) -> Iterator[str]:
    if "pool" in spec:
        spec.setdefault("poolRef", spec.pop("pool"))
        yield "spec.pool: never was a field; taken for spec.poolRef"
    if "sandboxTemplate" in spec:
        yield from _template(spec, spec.pop("sandboxTemplate"))
    if "ttlSecondsAfterFinished" in spec:
        seconds = spec.pop("ttlSecondsAfterFinished")
        expiry = (now + datetime.timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")
        spec.setdefault("expireTime", expiry)
        yield "spec.ttlSecondsAfterFinished: never was a field; spec.expireTime is an absolute time, counted from now"
    if "replicas" not in spec:
        spec["replicas"] = 1
        yield "spec.replicas: is required; 1 was taken"


def translate_values(values: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Rewrite chart values in today's names; what has no name today is left out and said.

    Returns:
        The values, and a line for each that was renamed or left out.
    """
    made: dict[str, Any] = {}
    lines: list[str] = []
    for path, value in _leaves(values, ()):
        old = ".".join(path)
        new, note = today(old)
        if new is None:
            lines.append(f"{old}: is no value of today's charts: {note}")
            continue
        if new == "controller.logLevel" and isinstance(value, int):
            value = _LOG_LEVELS.get(value, "debug")
        if new != old:
            lines.append(f"{old}: is called {new}" + (f" ({note})" if note else ""))
        _put(made, new.split("."), value)
    return made, lines


def today(old: str) -> tuple[str | None, str]:
    """Look a value's path up, with all that is beneath it; what nobody renamed keeps its name."""
    if old in CHART_VALUES:
        return CHART_VALUES[old]
    for known, (new, note) in CHART_VALUES.items():
        if old.startswith(f"{known}."):
            return (None if new is None else new + old[len(known) :]), note
    if old.startswith("controllerManager."):
        return f"controller.{old.partition('.')[2]}", ""
    return old, ""


def _leaves(value: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, inner in value.items():
        here = (*path, str(name))
        if isinstance(inner, Mapping) and inner and ".".join(here) not in CHART_VALUES:
            yield from _leaves(inner, here)
        else:
            yield here, inner


def _put(into: dict[str, Any], path: list[str], value: Any) -> None:
    for name in path[:-1]:
        into = into.setdefault(name, {})
    into[path[-1]] = value
