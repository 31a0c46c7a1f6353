"""The claim on what an environment consists of: labels of its objects, and what is written beside its record."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sandboxcore_kubernetes.naming import CREATED, ENVIRONMENT_ID, OWNER, RUN_ID

from ._config import RESERVED

if TYPE_CHECKING:
    from sandboxcore.values import Claim

__all__ = ("DEFAULT", "ENGINE", "EXPIRES", "LABELS", "LEASE", "ORDER", "Identity", "record_annotations", "record_labels")

#: Label of a record: which engine made the release (``render-once``: all its objects carry the environment's label).
ENGINE = "sandboxcore.dev/engine"
#: Label of a record: the Lease that claims the environment; without it, ``EXPIRES`` does.
LEASE = "sandboxcore.dev/lease"
#: Label of a record: when the claim ends, whole seconds since the epoch by the server's clock. A Lease that ends later wins.
EXPIRES = "sandboxcore.dev/expires"
#: Annotation: the same to the millisecond.
EXPIRES_EXACTLY = "sandboxcore.dev/expires-at"
#: Annotation of a record: the environment's labels, which may be any text, as JSON.
LABELS = "sandboxcore.dev/labels"
#: Annotation of a record: name of the default service.
DEFAULT = "sandboxcore.dev/default-service"
#: Annotation of a record: the services in the order of the spec, as JSON.
ORDER = "sandboxcore.dev/services"

_NAME = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")


@dataclass(frozen=True, kw_only=True, slots=True)
class Identity:
    """Which release stands for which environment."""

    namespace: str
    release: str
    run_id: str
    environment_id: str

    @property
    def labels(self) -> dict[str, str]:
        """What everything of the environment carries."""
        return {RUN_ID: self.run_id, ENVIRONMENT_ID: self.environment_id}


def record_labels(
    identity: Identity, claim: Claim, own: Mapping[str, str], *, engine: str, lease: str | None, now: float
) -> dict[str, str]:
    """Write the labels of a record: ours, the configuration's, and of the environment's those that labels can be.

    They are what ``helm list --selector`` selects by.
    """
    readable = {
        name: value
        for name, value in claim.labels.items()
        if name not in RESERVED and _NAME.fullmatch(name) and _VALUE.fullmatch(value)
    }
    ours = {**identity.labels, ENGINE: engine, EXPIRES: str(int(now + claim.lease))}
    return {**readable, **own, **ours, **({LEASE: lease} if lease else {})}


def record_annotations(claim: Claim, *, default: str, services: tuple[str, ...], now: float) -> dict[str, str]:
    """Write the rest of the claim, which labels can't hold."""
    found: dict[str, Any] = {
        OWNER: claim.owner,
        CREATED: repr(now),
        EXPIRES_EXACTLY: repr(now + claim.lease),
        LABELS: json.dumps(dict(claim.labels), ensure_ascii=False),
        DEFAULT: default,
        ORDER: json.dumps(services, ensure_ascii=False),
    }
    return {name: value for name, value in found.items() if value}
