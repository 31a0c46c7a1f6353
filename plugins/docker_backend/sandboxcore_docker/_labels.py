"""What every object carries, and what is read from it: whose it is, and which service of which environment."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sandboxcore.spec import EnvironmentSpec
    from sandboxcore.values import Claim

__all__ = ("PREFIX", "Facts", "Service", "environment_labels", "label", "read_facts", "selecting", "service_labels")

PREFIX = "sandboxcore.dev/"


def label(name: str) -> str:
    """Write a label's whole name."""
    return PREFIX + name


def environment_labels(spec: EnvironmentSpec, claim: Claim, created_at: float) -> dict[str, str]:
    """Describe the environment on each of its objects, so that any one that is left tells whose it was."""
    return {
        label("run-id"): claim.run_id,
        label("environment-id"): claim.environment_id,
        label("owner"): claim.owner,
        label("created-at"): repr(created_at),
        label("expires-at"): repr(created_at + claim.lease),
        label("default"): spec.default_service,
        label("services"): str(len(spec.services)),
        label("labels"): json.dumps({**spec.labels, **claim.labels}),
    }


def service_labels(name: str, *, index: int, exec_target: bool, machine: str, user: str, home: str, tty: bool) -> dict[str, str]:
    """Describe a service on its container: what the channel has to know without asking."""
    about = {"index": index, "exec_target": exec_target, "machine": machine, "user": user, "home": home, "tty": tty}
    return {
        label("service"): name,
        label("about"): json.dumps({key: value for key, value in about.items() if value not in ("", False)}),
    }


def selecting(*, run_id: str | None = None, environment_id: str | None = None) -> list[str]:
    """Write the labels to filter by."""
    chosen = [label("environment-id") + (f"={environment_id}" if environment_id else "")]
    return [*chosen, f"{label('run-id')}={run_id}"] if run_id else chosen


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """What an object says of its environment. Times are seconds since the epoch."""

    run_id: str
    environment_id: str
    owner: str
    created_at: float
    expires_at: float
    default: str
    services: int
    labels: Mapping[str, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Service:
    """What a container says of its service."""

    name: str
    index: int
    exec_target: bool
    data: Mapping[str, Any]


def read_facts(labels: Mapping[str, str]) -> Facts | None:
    """Read the labels of an object; None if it is none of ours. What is missing or broken counts as long expired."""
    environment_id = labels.get(label("environment-id"))
    if not environment_id:
        return None
    return Facts(
        run_id=labels.get(label("run-id"), ""),
        environment_id=environment_id,
        owner=labels.get(label("owner"), ""),
        created_at=_number(labels.get(label("created-at"))),
        expires_at=_number(labels.get(label("expires-at"))),
        default=labels.get(label("default"), ""),
        services=int(_number(labels.get(label("services")))),
        labels=_mapping(labels.get(label("labels"))),
    )


def read_service(labels: Mapping[str, str]) -> Service | None:
    """Read the labels of a container; None if it belongs to no service."""
    name = labels.get(label("service"))
    if name is None:
        return None
    about = _mapping(labels.get(label("about")))
    return Service(
        name=name,
        index=int(about.pop("index", 0)),
        exec_target=bool(about.pop("exec_target", False)),
        data=about,
    )


def expiry(lease: float) -> float:
    """Tell when a lease that begins now ends."""
    return time.time() + lease


def _number(text: str | None) -> float:
    try:
        return float(text or 0)
    except ValueError:
        return 0.0


def _mapping(text: str | None) -> dict[str, Any]:
    try:
        found = json.loads(text or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
