"""What records, pods and Leases say of an environment."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from sandboxcore.values import EnvironmentRef, SandboxRef
from sandboxcore_kubernetes.naming import CREATED, ENVIRONMENT_ID, OWNER, RUN_ID

from ._identity import DEFAULT, ENGINE, EXPIRES, EXPIRES_EXACTLY, LABELS, LEASE, ORDER

if TYPE_CHECKING:
    from sandboxcore_kubernetes.leases import RunLease
    from sandboxcore_kubernetes.pods import PodState

__all__ = ("BACKEND", "Record", "environment_ref", "lone_lease")

BACKEND = "helm"
#: Annotation of a pod: it is the default one; or it is none that commands are meant for.
IS_DEFAULT = "sandboxcore.dev/default"
EXEC_TARGET = "sandboxcore.dev/exec-target"
USER = "sandboxcore.dev/user"

State = Literal["starting", "ready", "completed", "failed"]


class Record:
    """All records of one release, without what is in them.

    Args:
        ahead: Seconds by which this machine's clock is ahead of the server's, by which records and Leases are written.
    """

    def __init__(self, secrets: Sequence[Mapping[str, Any]], *, ahead: float) -> None:
        self._ahead = ahead
        by_version = sorted(secrets, key=lambda secret: int(secret["metadata"]["labels"].get("version", "0")))
        self.labels: Mapping[str, str] = by_version[-1]["metadata"]["labels"]
        self.annotations: dict[str, str] = {}
        for secret in by_version:
            self.annotations |= secret["metadata"].get("annotations") or {}
        self.namespace: str = by_version[-1]["metadata"]["namespace"]
        self.release = self.labels["name"]
        self.environment_id = self.labels.get(ENVIRONMENT_ID, "")
        self.run_id = self.labels.get(RUN_ID, "")
        self.status = self.labels.get("status", "")

    @property
    def created_at(self) -> float:
        """When it was made, seconds since the epoch by the server's clock: the same to everybody who looks."""
        return float(self.annotations.get(CREATED) or self.labels.get("createdAt") or 0)

    def expires_at(self, leases: Mapping[str, RunLease]) -> float:
        """Until when it is claimed, by this machine's clock: by its own word or by its run's Lease, whichever is later."""
        own = float(self.annotations.get(EXPIRES_EXACTLY) or self.labels.get(EXPIRES) or 0)
        lease = leases.get(self.labels.get(LEASE, ""))
        return (max(own, lease.expires_at) if lease is not None else own) + self._ahead

    @property
    def all_labels(self) -> dict[str, str]:
        """The environment's labels, as they were given."""
        found: dict[str, str] = _json(self.annotations.get(LABELS), {})
        return found

    @property
    def order(self) -> list[str]:
        """The services in the order of the spec."""
        found: list[str] = _json(self.annotations.get(ORDER), [])
        return found


def _json(text: str | None, otherwise: Any) -> Any:
    with contextlib.suppress(ValueError):
        found = json.loads(text) if text else otherwise
        return found if type(found) is type(otherwise) else otherwise
    return otherwise


def environment_ref(record: Record, pods: Iterable[PodState], leases: Mapping[str, RunLease]) -> EnvironmentRef:
    """Describe an environment; its sandboxes are the pods that stand for a service."""
    found = _sandbox_pods(pods)
    default = _default(record, found)
    order = {name: index for index, name in enumerate(record.order)}
    names = sorted(found, key=lambda name: (name != default, order.get(name, len(order)), name))
    sandboxes = tuple(_sandbox(record, name, found[name]) for name in names)
    return EnvironmentRef(
        backend=BACKEND,
        environment_id=record.environment_id,
        run_id=record.run_id,
        owner=record.annotations.get(OWNER, ""),
        created_at=record.created_at,
        expires_at=record.expires_at(leases),
        default=default,
        sandboxes=sandboxes,
        labels=record.all_labels,
        state=_state(record, sandboxes),
        name=record.release,
        data={"namespace": record.namespace, "release": record.release, "engine": record.labels.get(ENGINE, "helm")},
    )


def _sandbox_pods(pods: Iterable[PodState]) -> dict[str, PodState]:
    """Choose a pod for each service: of several (a Deployment's) a ready one, else the first by name."""
    found: dict[str, PodState] = {}
    for pod in sorted(pods, key=lambda pod: (pod.deleted, not pod.ready, pod.name)):
        if pod.service and pod.service not in found:
            found[pod.service] = pod
    return found


def _default(record: Record, pods: Mapping[str, PodState]) -> str:
    named = record.annotations.get(DEFAULT, "")
    if named in pods:
        return named
    if "default" in pods:
        return "default"
    marked = sorted(name for name, pod in pods.items() if "true" in (pod.annotations.get(IS_DEFAULT), pod.labels.get(IS_DEFAULT)))
    return (marked or sorted(pods) or [named])[0]


def _sandbox(record: Record, service: str, pod: PodState) -> SandboxRef:
    main = pod.main
    data: dict[str, Any] = {
        "namespace": pod.namespace,
        "pod": pod.name,
        "uid": pod.uid,
        "container": main.name if main else "",
        "node": pod.node,
        "guest": _guest(pod),
        "exec_target": pod.annotations.get(EXEC_TARGET) != "false",
    }
    user = pod.annotations.get(USER)
    return SandboxRef(
        backend=BACKEND,
        environment_id=record.environment_id,
        run_id=record.run_id,
        service=service,
        data=data | ({"user": user} if user else {}),
        state=_sandbox_state(pod),
        exit_code=pod.exit_code,
    )


def _guest(pod: PodState) -> str:
    """Return where the guest is mounted in the pod's first container; empty where it is not."""
    from sandboxcore_kubernetes.guest_mount import GUEST_FOLDER, GUEST_PATH

    containers = (pod.raw.get("spec") or {}).get("containers") or ()
    mounts = containers[0].get("volumeMounts") or () if containers else ()
    return GUEST_PATH if any(mount.get("mountPath") == GUEST_FOLDER for mount in mounts) else ""


def _sandbox_state(pod: PodState) -> State:
    if pod.phase == "Succeeded":
        return "completed"
    if pod.phase == "Failed" or pod.deleted:
        return "failed"
    return "ready" if pod.ready else "starting"


def _state(record: Record, sandboxes: Sequence[SandboxRef]) -> Literal["creating", "ready", "failed", "destroying"]:
    if record.status == "uninstalling":
        return "destroying"
    if record.status == "failed" or any(sandbox.state == "failed" for sandbox in sandboxes):
        return "failed"
    if record.status.startswith("pending") or not sandboxes or any(sandbox.state == "starting" for sandbox in sandboxes):
        return "creating"
    return "ready"


def lone_lease(lease: RunLease, *, ahead: float) -> EnvironmentRef:
    """Describe the Lease of a run that has nothing else any more: its client died before, or between, its environments.

    Args:
        ahead: As a ``Record`` has it.
    """
    return EnvironmentRef(
        backend=BACKEND,
        environment_id=lease.name,
        run_id=lease.run_id,
        owner=lease.owner,
        created_at=lease.acquired_at,
        expires_at=lease.expires_at + ahead,
        default="",
        sandboxes=(),
        state="creating",
        data={"namespace": lease.namespace, "lease": lease.name},
    )
