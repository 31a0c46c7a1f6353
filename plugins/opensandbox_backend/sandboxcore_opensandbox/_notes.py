"""What is written on a BatchSandbox, so that any process can tell whose it is and which environments it holds.

An environment is made of one or more parts: a BatchSandbox for the services that are made from images, and one for each pool
that services come from. A batch is several equal environments in the same parts: pod ``s * N + e`` of a part is its service
``s`` in environment ``e`` of ``N``, so that a part can grow service by service.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from sandboxcore_kubernetes.naming import ENVIRONMENT_ID, MANAGED_BY, OWNER, RUN_ID

from ._names import ALLOCATED, RELEASED

__all__ = (
    "BATCH",
    "GONE",
    "LEASE",
    "MANAGER",
    "NOTES",
    "READY",
    "Notes",
    "allocated",
    "expire_time",
    "gone_key",
    "labels",
    "lease_end",
    "lease_key",
    "live_environments",
    "note_annotations",
    "read",
    "released",
)

MANAGER = "sandboxcore"
#: Label: the batch that a part belongs to, which is the id of its first environment.
BATCH = "sandboxcore.dev/batch"
#: Annotation: these notes, as JSON.
NOTES = "sandboxcore.dev/opensandbox"
#: Annotation: end of the lease, seconds since the epoch by the cluster's clock.
LEASE = "sandboxcore.dev/lease"
#: Annotations with this prefix have the end of the lease of environments of the batch that have another one.
OWN_LEASE = "lease.sandboxcore.dev/"
#: Annotation: all services are ready.
READY = "sandboxcore.dev/ready"
#: Annotations with this prefix name the environments of the batch that were destroyed.
GONE = "gone.sandboxcore.dev/"


@dataclass(frozen=True, kw_only=True, slots=True)
class Notes:
    """One part of a batch.

    Args:
        batch: Name of the batch.
        environments: Ids, in the order of the pods.
        services: All services of an environment, the default one first.
        part: Those that this object holds, in the order of the pods.
        pool: Name of the pool that they come from; empty: they are made from images.
        settings: Service to ``user``, ``working_dir`` and ``container``, where pods do not have them by themselves.
        secret: Name of the Secret with the services' environments, where pods do not have them by themselves.
        kinds: Kinds of the further objects that carry the batch's label.
        recycle: What the pool does with pods that come back (``Delete``, ``Restart``, ``Noop``).
        tasks: Whether its services run commands of their own in pods that run already.
        queued: When it began to wait for its pool, seconds since the epoch.
    """

    batch: str
    run_id: str
    environments: tuple[str, ...]
    services: tuple[str, ...]
    part: tuple[str, ...]
    owner: str
    created: float
    pool: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    secret: str = ""
    kinds: tuple[str, ...] = ()
    recycle: str = ""
    tasks: bool = False
    queued: float = 0.0

    def place(self, index: int) -> tuple[int, str] | None:
        """Tell which environment and service a pod of this part is; None where it is neither."""
        service, environment = divmod(index, len(self.environments))
        return (environment, self.part[service]) if service < len(self.part) else None

    def index(self, environment_id: str, service: str) -> int:
        """Tell which pod of this part a service of an environment is."""
        return self.part.index(service) * len(self.environments) + self.environments.index(environment_id)


_KEYS = tuple(field.name for field in fields(Notes) if field.name != "run_id")


def labels(notes: Notes) -> dict[str, str]:
    """Labels that every object of the part carries."""
    found = {MANAGED_BY: MANAGER, RUN_ID: notes.run_id, BATCH: notes.batch}
    return found | ({ENVIRONMENT_ID: notes.environments[0]} if len(notes.environments) == 1 else {})


def note_annotations(notes: Notes, lease_end: float) -> dict[str, str]:
    """Annotations of a part's BatchSandbox."""
    content = {key: value for key in _KEYS if (value := getattr(notes, key))}
    text = json.dumps(content, separators=(",", ":"), ensure_ascii=False)
    return {NOTES: text, OWNER: notes.owner, LEASE: f"{lease_end:.3f}"}


def read(obj: Mapping[str, Any]) -> Notes | None:
    """Read a BatchSandbox; None where it is none of ours."""
    metadata = obj["metadata"]
    text = (metadata.get("annotations") or {}).get(NOTES)
    run_id = (metadata.get("labels") or {}).get(RUN_ID)
    if text is None or run_id is None:
        return None
    try:
        content = json.loads(text)
        for key in ("environments", "services", "part", "kinds"):
            content[key] = tuple(content.get(key, ()))
        return Notes(run_id=run_id, **content)
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def live_environments(obj: Mapping[str, Any], notes: Notes) -> tuple[str, ...]:
    """List the environments of a part that were not destroyed."""
    marks = (obj["metadata"].get("annotations") or {}).keys()
    return tuple(name for name in notes.environments if gone_key(name) not in marks)


def gone_key(environment_id: str) -> str:
    """Name the annotation that says that an environment of a batch was destroyed."""
    return GONE + environment_id


def lease_key(environment_id: str) -> str:
    """Name the annotation that has the end of the lease of an environment where it is not that of its siblings."""
    return OWN_LEASE + environment_id


def lease_end(obj: Mapping[str, Any], environment_id: str) -> float:
    """Tell until when an environment is claimed, seconds since the epoch."""
    marks = obj["metadata"].get("annotations") or {}
    try:
        return float(marks.get(lease_key(environment_id)) or marks[LEASE])
    except (KeyError, ValueError):
        said = obj["spec"].get("expireTime")
        return datetime.datetime.fromisoformat(said).timestamp() if said else float("inf")


def expire_time(epoch: float) -> str:
    """Write a time as ``spec.expireTime`` wants it (RFC 3339); fractions of seconds are heard, too."""
    return datetime.datetime.fromtimestamp(epoch, datetime.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def allocated(obj: Mapping[str, Any]) -> list[str]:
    """List the pods that a pool has given, in the order of their index; those that went back are among them."""
    return _pods(obj, ALLOCATED)


def released(obj: Mapping[str, Any]) -> list[str]:
    """List the pods that went back to the pool."""
    return _pods(obj, RELEASED)


def _pods(obj: Mapping[str, Any], annotation: str) -> list[str]:
    text = (obj["metadata"].get("annotations") or {}).get(annotation)
    try:
        found: Sequence[Any] = (json.loads(text) if text else {}).get("pods") or ()
    except (ValueError, AttributeError):
        return []
    return [str(name) for name in found]
