"""From the engine's lists to environments: what any process sees of what any other made."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from sandboxcore.values import EnvironmentRef, SandboxRef

from ._labels import Facts, read_facts, read_service

if TYPE_CHECKING:
    from ._endpoint import Endpoint
    from ._leases import LeaseRecord

__all__ = ("BACKEND", "environments", "ghosts")

BACKEND = "docker"
SandboxState = Literal["starting", "ready", "completed", "failed"]
_ANYWHERE = ("", "0.0.0.0", "::")


def environments(
    containers: Sequence[dict[str, Any]], others: Iterable[dict[str, Any]], leases: Sequence[LeaseRecord], endpoint: Endpoint
) -> list[EnvironmentRef]:
    """Group objects by the environment that their labels name."""
    facts: dict[str, Facts] = {}
    members: dict[str, list[dict[str, Any]]] = {}
    for thing in (*containers, *others):
        found = read_facts(thing.get("Labels") or {})
        if found is not None:
            facts.setdefault(found.environment_id, found)
            members.setdefault(found.environment_id, [])
    for container in containers:
        found = read_facts(container.get("Labels") or {})
        if found is not None:
            members[found.environment_id].append(container)
    return [_environment(facts[name], members[name], leases, endpoint) for name in facts]


def ghosts(leases: Sequence[LeaseRecord], runs: set[str]) -> list[EnvironmentRef]:
    """Describe records of runs that have nothing else any more, so that cleaning up finds them."""
    newest: dict[str, LeaseRecord] = {}
    for record in sorted(leases, key=lambda record: record.renewed_at):
        if record.run_id not in runs and record.environments:
            newest[record.run_id] = record
    return [
        EnvironmentRef(
            backend=BACKEND,
            environment_id=min(record.environments),
            run_id=record.run_id,
            owner=record.owner,
            created_at=record.renewed_at,
            expires_at=record.expires_at,
            default="",
            sandboxes=(),
            state="destroying",
        )
        for record in newest.values()
    ]


def _environment(
    facts: Facts, containers: Sequence[dict[str, Any]], leases: Sequence[LeaseRecord], endpoint: Endpoint
) -> EnvironmentRef:
    found = [(service, container) for container in containers if (service := read_service(container["Labels"])) is not None]
    found.sort(key=lambda one: (one[0].name != facts.default, one[0].index))
    sandboxes = tuple(
        SandboxRef(
            backend=BACKEND,
            environment_id=facts.environment_id,
            run_id=facts.run_id,
            service=service.name,
            data={
                "id": container["Id"],
                "exec_target": service.exec_target,
                **service.data,
                "ports": _ports(container.get("Ports") or (), endpoint),
            },
            state=_state(container),
            exit_code=_exit_code(container),
        )
        for service, container in found
    )
    claims = [record for record in leases if record.run_id == facts.run_id and facts.environment_id in record.environments]
    newest = max(claims, key=lambda record: record.renewed_at, default=None)
    return EnvironmentRef(
        backend=BACKEND,
        environment_id=facts.environment_id,
        run_id=facts.run_id,
        owner=facts.owner,
        created_at=facts.created_at,
        expires_at=facts.expires_at if newest is None else newest.expires_at,
        default=facts.default,
        sandboxes=sandboxes,
        labels=facts.labels,
        state=_whole(sandboxes, facts.services),
    )


def _whole(sandboxes: Sequence[SandboxRef], services: int) -> Literal["creating", "ready", "failed"]:
    states = {sandbox.state for sandbox in sandboxes}
    if "failed" in states:
        return "failed"
    return "creating" if len(sandboxes) < services or "starting" in states else "ready"


def _state(container: Mapping[str, Any]) -> SandboxState:
    """Judge by state and status text (``Up 2 seconds (healthy)``, ``Exited (0) 3 minutes ago``)."""
    state, status = str(container.get("State", "")).lower(), str(container.get("Status", ""))
    if state in ("created", "configured", "initialized", "restarting"):
        return "starting"
    if state in ("exited", "dead", "removing", "stopped", "stopping"):
        return "completed" if _exit_code(container) == 0 else "failed"
    if "(health: starting)" in status or "(starting)" in status:
        return "starting"
    return "failed" if "(unhealthy)" in status else "ready"


def _exit_code(container: Mapping[str, Any]) -> int | None:
    found = re.match(r"Exited \((\d+)\)", str(container.get("Status", "")))
    return int(found[1]) if found else None


def _ports(published: Iterable[Mapping[str, Any]], endpoint: Endpoint) -> list[dict[str, Any]]:
    """List published ports once each, at an address that this machine can connect to.

    An engine that publishes on all addresses may choose another host port for IPv6 (moby#42442), which IPv4 does not reach.
    """
    here = endpoint.host or "127.0.0.1"
    published = list(published)
    in_ipv4 = {(port["PrivatePort"], port.get("Type")) for port in published if port.get("IP") == "0.0.0.0"}
    found = {
        (
            port["PrivatePort"],
            port["PublicPort"],
            here if port.get("IP", "") in _ANYWHERE else port["IP"],
            port.get("Type", "tcp"),
        )
        for port in published
        if port.get("PublicPort") and not (port.get("IP") == "::" and (port["PrivatePort"], port.get("Type")) in in_ipv4)
    }
    keys = ("container_port", "host_port", "address", "protocol")
    return [dict(zip(keys, one, strict=True)) for one in sorted(found)]
