"""How people get into a sandbox: a shell command, an editor, ports."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from inspect_ai.util import SandboxConnection
from inspect_ai.util._sandbox.environment import HostMapping, PortMapping

if TYPE_CHECKING:
    from sandboxcore.values import SandboxRef

__all__ = ("connection_of",)

_SHELL = "command -v bash >/dev/null && exec bash -l; exec sh -l"


def connection_of(sandbox: SandboxRef, *, options: Mapping[str, Any], user: str | None) -> SandboxConnection:
    """Describe the ways in; ``options`` is the backend's configuration without secrets."""
    config = [part for name, value in options.items() for part in ("--config", f"{name}={_text(value)}")]
    who = ["--user", user] if user else []
    where = ["--backend", sandbox.backend, *config, "--service", sandbox.service, *who, sandbox.environment_id]
    data = sandbox.data
    return SandboxConnection(
        type="sandboxcore",
        command=shlex.join(["sandboxcore", "exec", "-it", *where, "--", "sh", "-c", _SHELL]),
        # Editors can't attach as another user, nor by another way into the cluster than the present one.
        vscode_command=None if user else _editor(sandbox, options),
        ports=_ports(data.get("ports") or ()),
        container=data.get("container") or data.get("id"),
    )


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _editor(sandbox: SandboxRef, options: Mapping[str, Any]) -> list[Any] | None:
    data = sandbox.data
    if "pod" in data and not options.get("context") and not options.get("kubeconfig"):
        return ["remote-containers.attachToK8sContainer", {"name": data["pod"], "namespace": data.get("namespace", "default")}]
    if sandbox.backend == "docker":
        return ["remote-containers.attachToRunningContainer", data["id"]]
    return None


def _ports(ports: Sequence[Mapping[str, Any]]) -> list[PortMapping] | None:
    found: dict[tuple[int, str], PortMapping] = {}
    for port in ports:
        key = (port["container_port"], port.get("protocol", "tcp"))
        if key[1] in ("tcp", "udp") and port.get("host_port"):
            mapping = found.setdefault(key, PortMapping(container_port=key[0], protocol=key[1], mappings=[]))
            mapping.mappings.append(HostMapping(host_ip=port.get("address") or "0.0.0.0", host_port=port["host_port"]))
    return list(found.values()) or None
