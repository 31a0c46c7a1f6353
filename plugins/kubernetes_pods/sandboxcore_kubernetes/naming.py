"""Legal Kubernetes names for whatever services are called, and the labels that everything carries."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping

__all__ = (
    "CREATED",
    "ENVIRONMENT_ID",
    "INSTANCE",
    "MANAGED_BY",
    "OWNER",
    "RUN_ID",
    "SERVICE",
    "SERVICE_NAME",
    "dns_label",
    "label_value",
    "object_name",
    "selector",
)

#: Label: the run that made it, and what deletion selects by.
RUN_ID = "sandboxcore.dev/run-id"
#: Label: the environment that it belongs to.
ENVIRONMENT_ID = "sandboxcore.dev/environment-id"
#: Annotation: who made it (``user@host:pid``).
OWNER = "sandboxcore.dev/owner"
#: Annotation: when it was made, seconds since the epoch.
CREATED = "sandboxcore.dev/created"
#: Label: the service as a legal label value. Inspect's tools look for it, too.
SERVICE = "inspect/service"
#: Annotation: the service's exact name. Label, of every pod: as a legal value, also of services that are no sandboxes.
SERVICE_NAME = "sandboxcore.dev/service"
#: Label: the release or environment, as Helm charts have it.
INSTANCE = "app.kubernetes.io/instance"
MANAGED_BY = "app.kubernetes.io/managed-by"

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:6]


def dns_label(text: str, limit: int = 63) -> str:
    """Make a DNS label (RFC 1123) of any text: text that is one already stays, all else gets a digest, so that two never meet.

    Args:
        limit: Most characters; at least 8.
    """
    if len(text) <= limit and _LABEL.fullmatch(text):
        return text
    stem = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[: limit - 7].rstrip("-")
    return f"{stem or 'x'}-{_digest(text)}"[:limit]


def label_value(text: str) -> str:
    """Make a label value of any text, likewise; at most 63 characters."""
    if _VALUE.fullmatch(text):
        return text
    stem = re.sub(r"[^-A-Za-z0-9_.]+", "-", text).strip("-_.")[:56].rstrip("-_.")
    return f"{stem or 'x'}-{_digest(text)}"


def object_name(instance: str, service: str, limit: int = 52) -> str:
    """Name an object of a service: ``INSTANCE-SERVICE``, legal everywhere.

    The limit leaves room for what a StatefulSet adds to its pods' ``controller-revision-hash`` label.
    """
    plain = f"{instance}-{dns_label(service)}"
    if len(plain) <= limit and _LABEL.fullmatch(plain):
        return plain
    stem = dns_label(service, 24)
    return f"{dns_label(instance, limit - len(stem) - 8)}-{stem}-{_digest(plain)}"


def selector(labels: Mapping[str, str]) -> str:
    """Write a label selector that asks for all of these labels."""
    return ",".join(f"{name}={value}" for name, value in labels.items())
