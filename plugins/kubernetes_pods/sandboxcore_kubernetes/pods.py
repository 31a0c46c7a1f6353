"""What is known of a pod, read from its JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from .naming import SERVICE, SERVICE_NAME

__all__ = ("ContainerState", "PodState", "pod_state")


@dataclass(frozen=True, kw_only=True, slots=True)
class ContainerState:
    """One container of a pod.

    ``reason``, ``message`` and ``exit_code`` are of the present state; ``last_*`` of the end before the last restart.
    """

    name: str
    image: str = ""
    init: bool = False
    state: Literal["waiting", "running", "terminated", "unknown"] = "unknown"
    ready: bool = False
    started: bool | None = None
    restarts: int = 0
    reason: str = ""
    message: str = ""
    exit_code: int | None = None
    last_reason: str = ""
    last_message: str = ""
    last_exit_code: int | None = None
    container_id: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class PodState:
    """One pod as the API server last told it. ``raw`` is its whole JSON without ``managedFields``."""

    name: str
    uid: str
    namespace: str
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    node: str = ""
    phase: str = ""
    reason: str = ""
    message: str = ""
    ready: bool = False
    containers: tuple[ContainerState, ...] = ()
    init_containers: tuple[ContainerState, ...] = ()
    #: Of the container that commands run in (the first).
    restarts: int = 0
    #: It is being deleted.
    deleted: bool = False
    #: Address in the cluster.
    ip: str = ""
    #: Name and uid of the object that made it (``ReplicaSet/x``), where one did.
    controller: str = ""
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def service(self) -> str:
        """The exact name of the service that the pod stands for; empty for pods that are no service."""
        return self.annotations.get(SERVICE_NAME) or self.labels.get(SERVICE, "")

    @property
    def main(self) -> ContainerState | None:
        """The container that commands run in."""
        return self.containers[0] if self.containers else None

    @property
    def exit_code(self) -> int | None:
        """How the container that commands run in has ended; None while it runs, or may run again."""
        return self.main.exit_code if self.main and self.phase in ("Succeeded", "Failed") else None

    @property
    def succeeded(self) -> bool:
        """Whether it has done what it was made for and ended."""
        return self.phase == "Succeeded"


def _container(spec: Mapping[str, Any], status: Mapping[str, Any], init: bool) -> ContainerState:
    state: Mapping[str, Any] = status.get("state") or {}
    last: Mapping[str, Any] = (status.get("lastState") or {}).get("terminated") or {}
    word = next((word for word in ("waiting", "running", "terminated") if word in state), "unknown")
    now: Mapping[str, Any] = state.get(word) or {}
    return ContainerState(
        name=spec["name"],
        image=spec.get("image", ""),
        init=init,
        state=word,  # type: ignore[arg-type]
        ready=bool(status.get("ready")),
        started=status.get("started"),
        restarts=int(status.get("restartCount") or 0),
        reason=now.get("reason", ""),
        message=now.get("message", ""),
        exit_code=now.get("exitCode"),
        last_reason=last.get("reason", ""),
        last_message=last.get("message", ""),
        last_exit_code=last.get("exitCode"),
        container_id=status.get("containerID", ""),
    )


def _containers(raw: Mapping[str, Any], specs: str, statuses: str) -> tuple[ContainerState, ...]:
    known = {status["name"]: status for status in (raw.get("status") or {}).get(statuses) or ()}
    init = specs == "initContainers"
    return tuple(_container(spec, known.get(spec["name"], {}), init) for spec in (raw.get("spec") or {}).get(specs) or ())


def pod_state(raw: dict[str, Any]) -> PodState:
    """Read a pod; ``managedFields`` are dropped from ``raw`` itself.

    Source: https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/#PodStatus
    """
    metadata, status = raw["metadata"], raw.get("status") or {}
    metadata.pop("managedFields", None)
    conditions = {condition["type"]: condition["status"] for condition in status.get("conditions") or ()}
    containers = _containers(raw, "containers", "containerStatuses")
    owner = next((owner for owner in metadata.get("ownerReferences") or () if owner.get("controller")), None)
    return PodState(
        name=metadata["name"],
        uid=metadata["uid"],
        namespace=metadata.get("namespace", ""),
        labels=metadata.get("labels") or {},
        annotations=metadata.get("annotations") or {},
        node=(raw.get("spec") or {}).get("nodeName", ""),
        phase=status.get("phase", ""),
        reason=status.get("reason", ""),
        message=status.get("message", ""),
        ready=conditions.get("Ready") == "True",
        containers=containers,
        init_containers=_containers(raw, "initContainers", "initContainerStatuses"),
        restarts=containers[0].restarts if containers else 0,
        deleted="deletionTimestamp" in metadata,
        ip=status.get("podIP", ""),
        controller=f"{owner['kind']}/{owner['name']}" if owner else "",
        raw=raw,
    )
