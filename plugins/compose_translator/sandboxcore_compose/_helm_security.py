"""As whom a service runs on Kubernetes, and with which rights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sandboxcore.report import Loss
from sandboxcore.spec import ServiceSpec

__all__ = ("security",)

_Note = Callable[[Loss, str, str, str], None]


def security(name: str, service: ServiceSpec, note: _Note) -> dict[str, Any]:
    """Write ``securityContext``, ``podSecurityContext`` and ``user``."""
    container: dict[str, Any] = {}
    if service.privileged:
        container["privileged"] = True
    if service.read_only:
        container["readOnlyRootFilesystem"] = True
    capabilities = _capabilities(service)
    if capabilities:
        container["capabilities"] = capabilities
    container.update(_user(name, service, note))
    for option in service.security_opt:
        _option(name, option, container, note)
    named = service.user if service.user and "runAsUser" not in container else None
    return {"securityContext": container, "podSecurityContext": _pod(name, service, note), "user": named}


def _capabilities(service: ServiceSpec) -> dict[str, list[str]]:
    named = {"add": service.cap_add, "drop": service.cap_drop}
    return {key: [name.removeprefix("CAP_") for name in names] for key, names in named.items() if names}


def _user(name: str, service: ServiceSpec, note: _Note) -> dict[str, int]:
    if not service.user:
        return {}
    user, _, group = service.user.partition(":")
    user, group = ("0" if one == "root" else one for one in (user, group))
    if not user.isdigit() or (group and not group.isdigit()):
        note(Loss.APPROX, name, "user", "is a name: the service's own command runs as the image says, commands run as this user")
        return {}
    return {"runAsUser": int(user), **({"runAsGroup": int(group)} if group else {})}


def _pod(name: str, service: ServiceSpec, note: _Note) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if service.sysctls:
        found["sysctls"] = [{"name": key, "value": value} for key, value in service.sysctls.items()]
    groups = [int(one) for one in service.groups if one.isdigit()]
    if groups:
        found["supplementalGroups"] = groups
    for one in service.groups:
        if not one.isdigit():
            note(Loss.REJECT, name, "groups", f"{one!r}: groups are numbers on Kubernetes")
    # The files of a Secret are root's; a group is all that can be chosen.
    owners = {file.gid or file.uid for file in service.files.values() if file.uid or file.gid}
    if owners:
        found["fsGroup"] = min(owners)
    return found


def _option(name: str, option: str, container: dict[str, Any], note: _Note) -> None:
    kind, _, value = option.replace(":", "=", 1).partition("=")
    if kind == "no-new-privileges" and value in ("", "true", "false"):
        container["allowPrivilegeEscalation"] = value == "false"
    elif kind == "seccomp":
        container["seccompProfile"] = _profile(value, ("builtin", "default", "runtime/default"))
        if container["seccompProfile"]["type"] == "Localhost":
            note(Loss.APPROX, name, "security_opt", f"{value} is looked for in the nodes' own folder of seccomp profiles")
    elif kind == "apparmor":
        container["appArmorProfile"] = _profile(value, ("docker-default", "runtime/default"))
    else:
        note(Loss.REJECT, name, "security_opt", f"{option!r} has no counterpart on Kubernetes")


def _profile(value: str, defaults: tuple[str, ...]) -> dict[str, str]:
    if value == "unconfined":
        return {"type": "Unconfined"}
    if value in defaults:
        return {"type": "RuntimeDefault"}
    return {"type": "Localhost", "localhostProfile": value}
