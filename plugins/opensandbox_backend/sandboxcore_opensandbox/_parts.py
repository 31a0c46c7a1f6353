"""From a spec and its claims to BatchSandbox objects. Pure: nothing is asked and nothing created."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sandboxcore._validation import validated
from sandboxcore_kubernetes.naming import CREATED

from ._config import EnvironmentOptions, ServiceOptions, task_timeout
from ._names import API_VERSION
from ._notes import Notes, expire_time, labels, note_annotations
from ._pool_fit import PoolFit, is_idle
from ._splitting import Footprint, pooled_footprint, template_footprint

if TYPE_CHECKING:
    from sandboxcore.spec import EnvironmentSpec

    from ._config import OpenSandboxConfig

__all__ = (
    "Group",
    "Pods",
    "batch_sandbox",
    "dependencies",
    "divide",
    "note_bytes",
    "ordered_services",
    "part_name",
    "pool_of",
    "services_by_pool",
    "size",
    "template_pods",
)

Object = dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Pods:
    """The pods of a part that is made from images: what they have in common, and what each has for itself."""

    template: Object
    patches: tuple[Object, ...] = field(default=())


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """Services that share an object: those from images (no pool), or from one pool with or without commands of their own."""

    pool: str
    tasks: bool
    services: tuple[str, ...]


def ordered_services(spec: EnvironmentSpec) -> tuple[str, ...]:
    """List all services, the default one first."""
    first = spec.default_service
    return (first, *(name for name in spec.services if name != first))


def pool_of(spec: EnvironmentSpec, service: str, config: OpenSandboxConfig) -> str:
    """Name the pool that a service comes from: its own option, the environment's, the configuration's; empty: from none.

    Raises:
        SpecError: The options have a key that is not known, or a wrong value.
    """
    own = validated(ServiceOptions, spec.services[service].options.get("opensandbox", {}), what=f"services.{service}.options")
    whole = validated(EnvironmentOptions, spec.options.get("opensandbox", {}), what="options.opensandbox")
    for said in (own.pool, config.pools.get(service), whole.pool, config.pool):
        if said is not None:
            return said
    return ""


def services_by_pool(spec: EnvironmentSpec, config: OpenSandboxConfig) -> dict[str, tuple[str, ...]]:
    """List the pools that services come from, and which do."""
    found: dict[str, list[str]] = {}
    for service in spec.services:
        pool = pool_of(spec, service, config)
        if pool:
            found.setdefault(pool, []).append(service)
    return {pool: tuple(names) for pool, names in found.items()}


def divide(spec: EnvironmentSpec, config: OpenSandboxConfig, pools: Mapping[str, PoolFit]) -> tuple[Group, ...]:
    """Group the services into objects: by pool, and apart if they run commands there; each in an order to start them in."""
    groups: dict[tuple[str, bool, float | None], list[str]] = {}
    for wave in spec.start_order():
        for service in wave:
            pool = pool_of(spec, service, config)
            tasks = bool(pool) and not is_idle(spec.services[service], pools[pool])
            # The tasks of one object have one timeout.
            timeout = task_timeout(spec.services[service]) if tasks else None
            groups.setdefault((pool, tasks, timeout), []).append(service)
    return tuple(Group(pool=pool, tasks=tasks, services=tuple(names)) for (pool, tasks, _), names in groups.items())


def part_name(batch: str, position: int) -> str:
    """Name the object of a part: the first is called as the batch itself."""
    return batch if position == 0 else f"{batch}-{position + 1}"


def dependencies(spec: EnvironmentSpec, part: Sequence[str], environments: int) -> dict[int, dict[int, str]]:
    """List the pods of a part that wait for others of it: by their index, which others, and what must be true of each."""
    found: dict[int, dict[int, str]] = {}
    for position, service in enumerate(part):
        needs = {part.index(other): need.condition for other, need in spec.services[service].depends_on.items() if other in part}
        for environment in range(environments if needs else 0):
            found[position * environments + environment] = {
                other * environments + environment: condition for other, condition in needs.items()
            }
    return found


def template_pods(pods: Sequence[Object]) -> Pods:
    """Make one template of what all pods have in common, and a patch with the rest for each.

    The controller merges a patch strategically, and then reads the result into the pod that it already has; so what the
    template has and a pod has not would show through (fields, and keys of maps). A template of common things has nothing such.
    """
    template = pods[0]
    for pod in pods[1:]:
        template = _common(template, pod)
    return Pods(template=copy.deepcopy(template), patches=tuple(_rest(template, pod) for pod in pods))


def _common(one: Object, other: Object) -> Object:
    """Keep what both have; of lists only equal ones, and single items of one name as far as they are equal."""
    found: Object = {}
    for key, value in one.items():
        theirs = other.get(key)
        if value == theirs:
            found[key] = value
        elif isinstance(value, dict) and isinstance(theirs, dict):
            found[key] = _common(value, theirs)
        elif isinstance(theirs, list) and _is_same_item(value, theirs):
            found[key] = [_common(value[0], theirs[0])]
    return found


def _rest(template: Object, pod: Object) -> Object:
    """Take out what the template has."""
    found: Object = {}
    for key, value in pod.items():
        known = template.get(key)
        if value == known and key in template:
            continue
        if isinstance(value, dict) and isinstance(known, dict):
            found[key] = _rest(known, value)
        elif isinstance(known, list) and _is_same_item(value, known):
            found[key] = [{"name": value[0]["name"], **_rest(known[0], value[0])}]
        else:
            found[key] = value
    return found


def _is_same_item(one: Any, other: Any) -> bool:
    lists = isinstance(one, list) and isinstance(other, list) and len(one) == len(other) == 1
    if not lists or not isinstance(one[0], dict) or not isinstance(other[0], dict):
        return False
    return "name" in one[0] and one[0]["name"] == other[0].get("name")


def batch_sandbox(
    name: str,
    namespace: str,
    notes: Notes,
    *,
    lease_end: float,
    grace: float,
    replicas: int,
    pods: Pods | None = None,
    task: Mapping[str, Any] | None = None,
) -> Object:
    """Build the object of a part.

    Args:
        lease_end: Seconds since the epoch.
        grace: Seconds after that at which the controller deletes it.
        pods: None: they come from ``notes.pool``.
        task: ``taskTemplate`` and ``shardTaskPatches``, where its services run commands in pods from a pool.
    """
    spec: Object = {"replicas": replicas, "expireTime": expire_time(lease_end + grace)}
    if pods is None:
        spec["poolRef"] = notes.pool
    else:
        spec["template"] = pods.template
        if any(pods.patches):
            spec["shardPatches"] = list(pods.patches)
    spec |= task or {}
    marks = note_annotations(notes, lease_end) | {CREATED: f"{notes.created:.3f}"}
    metadata = {"name": name, "namespace": namespace, "labels": labels(notes), "annotations": marks}
    return {"apiVersion": API_VERSION, "kind": "BatchSandbox", "metadata": metadata, "spec": spec}


def note_bytes(notes: Notes) -> int:
    """Count what our own notes take of an object for each environment: its id, and its own lease or the mark that it is gone."""
    return len(json.dumps(notes.environments[0])) + 1 + len(notes.environments[0]) + 40


def size(notes: Notes, pods: Pods | None) -> Footprint:
    """Estimate what one environment takes of an object."""
    if pods is None:
        return pooled_footprint(len(notes.part), notes.pool, note_bytes(notes))
    patches = len(json.dumps(pods.patches, separators=(",", ":")).encode())
    return template_footprint(len(notes.part), patches, note_bytes(notes))
