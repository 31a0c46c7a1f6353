"""From BatchSandboxes and pods, as the cluster tells them, to environments. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from sandboxcore.values import EnvironmentRef, SandboxRef

from ._names import CONTAINER
from ._notes import READY, Notes, allocated, lease_end, live_environments, read, released

if TYPE_CHECKING:
    from sandboxcore_kubernetes import PodState

__all__ = ("BACKEND", "environments", "pod_names", "pods_of")

BACKEND = "opensandbox"
Object = Mapping[str, Any]
State = Literal["starting", "ready", "completed", "failed"]


def pod_names(obj: Object, notes: Notes) -> tuple[str, ...]:
    """Name the pods of a part by their index; those from a pool as far as they were given."""
    if notes.pool:
        return tuple(allocated(obj))
    name = obj["metadata"]["name"]
    return tuple(f"{name}-{index}" for index in range(len(notes.part) * len(notes.environments)))


def pods_of(obj: Object, notes: Notes, environment_ids: Sequence[str]) -> list[str]:
    """Name the pods of a part that are some environments' own, as far as there are any, and not those that went back."""
    names, gone = pod_names(obj, notes), set(released(obj))
    indices = (notes.index(name, service) for name in environment_ids for service in notes.part)
    return [names[index] for index in indices if index < len(names) and names[index] not in gone]


def environments(
    objects: Iterable[Object], pods: Mapping[str, PodState], ends: Mapping[str, int | None] | None = None
) -> list[EnvironmentRef]:
    """Describe all environments that these BatchSandboxes hold; of those that were destroyed those that still have pods.

    Args:
        ends: Pod to the exit code of its task that has ended; None: one that failed somehow.
    """
    batches: dict[str, list[tuple[Object, Notes]]] = {}
    for obj in objects:
        notes = read(obj)
        if notes is not None:
            batches.setdefault(notes.batch, []).append((obj, notes))
    return [ref for parts in batches.values() for ref in _batch(parts, pods, ends or {})]


def _batch(
    parts: Sequence[tuple[Object, Notes]], pods: Mapping[str, PodState], ends: Mapping[str, int | None]
) -> Iterable[EnvironmentRef]:
    first, notes = min(parts, key=lambda part: part[0]["metadata"]["name"])
    live = set(live_environments(first, notes)).intersection(*(live_environments(obj, other) for obj, other in parts))
    ready = all(READY in (obj["metadata"].get("annotations") or {}) for obj, _ in parts)
    leaving = any("deletionTimestamp" in obj["metadata"] for obj, _ in parts)
    for name in notes.environments:
        if name in live or any(pod in pods for obj, other in parts for pod in pods_of(obj, other, (name,))):
            found = {ref.service: ref for obj, other in parts for ref in _sandboxes(obj, other, name, pods, ends)}
            sandboxes = tuple(found[service] for service in notes.services if service in found)
            state = _state(sandboxes, notes, ready=ready, leaving=leaving or name not in live)
            yield EnvironmentRef(
                backend=BACKEND,
                environment_id=name,
                run_id=notes.run_id,
                owner=notes.owner,
                created_at=notes.created,
                expires_at=lease_end(first, name),
                default=notes.services[0],
                sandboxes=sandboxes,
                labels=notes.labels,
                state=state,
                data=_address([obj for obj, _ in parts], notes),
            )


def _address(objects: Sequence[Object], notes: Notes) -> dict[str, Any]:
    return {
        "mode": "crd",
        "namespace": objects[0]["metadata"]["namespace"],
        "batch": notes.batch,
        "shared": len(notes.environments) > 1,
        "parts": sorted(obj["metadata"]["name"] for obj in objects),
    }


def _state(
    sandboxes: Sequence[SandboxRef], notes: Notes, *, ready: bool, leaving: bool
) -> Literal["creating", "ready", "failed", "destroying"]:
    if leaving:
        return "destroying"
    if not ready:
        return "creating"
    lost = len(sandboxes) < len(notes.services) or any(sandbox.state == "failed" for sandbox in sandboxes)
    return "failed" if lost else "ready"


def _sandboxes(
    obj: Object, notes: Notes, environment_id: str, pods: Mapping[str, PodState], ends: Mapping[str, int | None]
) -> Iterable[SandboxRef]:
    names = pod_names(obj, notes)
    for service in notes.part:
        index = notes.index(environment_id, service)
        if index >= len(names):
            continue
        pod = pods.get(names[index])
        settings = notes.settings.get(service) or {}
        data: dict[str, Any] = {"mode": "crd", "namespace": obj["metadata"]["namespace"], "pod": names[index]}
        data["container"] = settings.get("container") or CONTAINER
        if pod is not None:
            data |= {"uid": pod.uid, "node": pod.node} | ({"container": pod.main.name} if pod.main else {})
        data["guest"] = settings.get("guest", "")
        if notes.pool:
            data |= {"pool": notes.pool, "user": settings.get("user"), "working_dir": settings.get("working_dir")}
            data |= {"secret": notes.secret, "tasks": notes.tasks, "recycle": notes.recycle, "batch": obj["metadata"]["name"]}
        state = _pod_state(pod, made=READY in (obj["metadata"].get("annotations") or {}))
        code = None if pod is None else pod.exit_code
        if state == "ready" and names[index] in ends:
            code = ends[names[index]]
            state = "completed" if code == 0 else "failed"
        yield SandboxRef(
            backend=BACKEND,
            environment_id=environment_id,
            run_id=notes.run_id,
            service=service,
            data=data,
            state=state,
            exit_code=code,
        )


def _pod_state(pod: PodState | None, *, made: bool) -> State:
    if pod is None:
        return "failed" if made else "starting"
    if pod.deleted or pod.phase == "Failed":
        return "failed"
    if pod.succeeded:
        return "completed"
    return "ready" if pod.ready else "starting"
