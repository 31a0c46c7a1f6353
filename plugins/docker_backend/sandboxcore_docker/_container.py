"""From a service of a spec to the body of ``POST /containers/create``. Decided without I/O, but for seccomp profiles."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sandboxcore.errors import SpecError

from ._networks import OFFLINE_RESOLVER

if TYPE_CHECKING:
    from sandboxcore.spec import Healthcheck, ServiceSpec, VolumeMount

    from ._config import ServiceOptions
    from ._engine import Version

__all__ = (
    "GUEST_FOLDER",
    "ImageFacts",
    "Placement",
    "command_line",
    "container_body",
    "health_body",
    "keeps_shell_open",
    "security",
)

#: Where the guest is mounted.
GUEST_FOLDER = "/.sandboxcore"
_SECOND = 1_000_000_000
_SHELLS = ("sh", "bash", "ash", "dash", "zsh", "fish", "python", "python3", "node", "irb", "julia", "R")


@dataclass(frozen=True, kw_only=True)
class ImageFacts:
    """What an image says that matters here; ``reference`` is how it was asked for."""

    id: str
    reference: str
    machine: str
    user: str = ""
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    has_healthcheck: bool = False


@dataclass(frozen=True, kw_only=True)
class Placement:
    """What the rest of the environment decides for a container.

    Args:
        network_mode: Name of its first network, or ``none``.
        aliases: Its names on that network.
        volumes: (source, subpath) of the spec to the engine's name of the volume.
        own_names: Names that lead to its own loopback, where no network knows them.
    """

    labels: Mapping[str, str]
    guest_volume: str
    network_mode: str = "none"
    aliases: tuple[str, ...] = ()
    online: bool = False
    volumes: Mapping[tuple[str, str], str] = field(default_factory=dict)
    own_names: tuple[str, ...] = ()


def command_line(service: ServiceSpec, image: ImageFacts) -> tuple[str, ...]:
    """Join entrypoint and command by the rules of OCI images: a given entrypoint drops the image's command."""
    entrypoint = image.entrypoint if service.entrypoint is None else service.entrypoint
    if service.command is not None:
        return (*entrypoint, *service.command)
    return (*entrypoint, *(image.command if service.entrypoint is None else ()))


def keeps_shell_open(service: ServiceSpec, image: ImageFacts) -> bool:
    """Tell whether the image's own command is a bare shell that nobody asked for: it would end at once without an input."""
    line = command_line(service, image)
    return service.entrypoint is None and service.command is None and len(line) == 1 and line[0].rpartition("/")[2] in _SHELLS


def container_body(
    service: ServiceSpec, image: ImageFacts, place: Placement, options: ServiceOptions, version: Version
) -> dict[str, Any]:
    """Write the whole body."""
    line = command_line(service, image) or (f"{GUEST_FOLDER}/guest-{image.machine}", "pause")
    body: dict[str, Any] = {
        "Image": image.reference,
        # With both given nothing of the image's own is mixed in.
        "Entrypoint": [line[0]],
        "Cmd": list(line[1:]),
        "Env": [f"{name}={value}" for name, value in service.env.items()],
        "Labels": {**service.labels, **place.labels},
        "Tty": service.tty,
        "OpenStdin": service.stdin_open or keeps_shell_open(service, image),
        "HostConfig": _host_config(service, place, options),
    }
    if place.network_mode != "none":
        body["NetworkingConfig"] = {"EndpointsConfig": {place.network_mode: {"Aliases": list(place.aliases)}}}
    body |= _given(
        User=service.user,
        WorkingDir=service.working_dir,
        Hostname=service.hostname,
        StopSignal=service.stop_signal,
        StopTimeout=None if service.stop_grace_period is None else round(service.stop_grace_period),
        Healthcheck=None if service.healthcheck is None else health_body(service.healthcheck, version),
        ExposedPorts={f"{port.container_port}/{port.protocol}": {} for port in service.ports} or None,
    )
    return body


def health_body(check: Healthcheck, version: Version) -> dict[str, Any]:
    """Write a healthcheck; ``StartInterval`` came with version 1.44 of the API."""
    kind, *rest = check.test
    test = (
        list(check.test)
        if kind in ("CMD", "NONE")
        else ["CMD-SHELL", " ".join(rest)]
        if kind == "CMD-SHELL"
        else ["CMD", *check.test]
    )
    body = {
        "Test": test,
        "Interval": _nanoseconds(check.interval),
        "Timeout": _nanoseconds(check.timeout),
        "Retries": max(1, check.retries),
        "StartPeriod": _nanoseconds(check.start_period),
    }
    if version >= (1, 44) and check.start_period:
        body["StartInterval"] = _nanoseconds(check.start_interval)
    return body


def _nanoseconds(seconds: float) -> int:
    # 0 means the engine's default, and below a millisecond it refuses.
    return max(1_000_000, round(seconds * _SECOND)) if seconds else 0


def _host_config(service: ServiceSpec, place: Placement, options: ServiceOptions) -> dict[str, Any]:
    limits = service.resources
    host: dict[str, Any] = {
        "NetworkMode": place.network_mode,
        "Mounts": [
            _guest_mount(place.guest_volume),
            *(_mount(mount, place) for mount in service.volumes if mount.type != "tmpfs"),
        ],
        "Tmpfs": {mount.target: _tmpfs(mount) for mount in service.volumes if mount.type == "tmpfs"},
        "RestartPolicy": {"Name": service.restart.name, "MaximumRetryCount": service.restart.max_retries or 0},
        "Privileged": service.privileged,
        "ReadonlyRootfs": service.read_only,
        "ExtraHosts": [*(f"{name}:127.0.0.1" for name in place.own_names), *_extra_hosts(service)],
        **security(service.security_opt),
    }
    if not place.online and place.network_mode != "none":
        host["Dns"] = [OFFLINE_RESOLVER]
    if service.ports and place.online:
        host["PortBindings"] = _port_bindings(service)
    return host | _given(
        Init=service.init or None,
        Runtime=service.runtime,
        CapAdd=list(service.cap_add) or None,
        CapDrop=list(service.cap_drop) or None,
        GroupAdd=list(service.groups) or None,
        Sysctls=dict(service.sysctls) or None,
        NanoCpus=None if limits.cpus is None else round(limits.cpus * _SECOND),
        CpuShares=None if limits.cpus_request is None else max(2, round(limits.cpus_request * 1024)),
        Memory=limits.memory_bytes,
        # The same: no swap on top of the limit.
        MemorySwap=limits.memory_bytes,
        MemoryReservation=limits.memory_request_bytes or None,
        PidsLimit=limits.pids,
        ShmSize=limits.shm_bytes or None,
        Ulimits=[{"Name": name, "Soft": soft, "Hard": hard} for name, (soft, hard) in limits.ulimits.items()] or None,
        DeviceRequests=[{"Count": limits.gpus, "Capabilities": [["gpu"]]}] if limits.gpus else None,
        Devices=[_device(device) for device in options.devices] or None,
    )


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _guest_mount(volume: str) -> dict[str, Any]:
    return {"Type": "volume", "Source": volume, "Target": GUEST_FOLDER, "ReadOnly": True, "VolumeOptions": {"NoCopy": True}}


def _mount(mount: VolumeMount, place: Placement) -> dict[str, Any]:
    written: dict[str, Any] = {"Type": mount.type, "Target": mount.target, "ReadOnly": mount.read_only}
    if mount.type == "bind":
        return written | {"Source": str(Path(mount.source, mount.subpath)), "BindOptions": {"Propagation": "rprivate"}}
    source = place.volumes[mount.source, mount.subpath] if mount.source else ""
    return (
        written
        | ({"Source": source} if source else {})
        | {"VolumeOptions": {"NoCopy": mount.no_copy, "Labels": dict(place.labels)}}
    )


def _tmpfs(mount: VolumeMount) -> str:
    """Write mount options. Programs may be run there, as on the tmpfs of every other backend."""
    words = ["ro" if mount.read_only else "rw", "exec", "nosuid", "nodev"]
    words += [] if mount.size_bytes is None else [f"size={mount.size_bytes}"]
    return ",".join([*words, f"mode={0o1777 if mount.mode is None else mount.mode:o}"])


def _extra_hosts(service: ServiceSpec) -> list[str]:
    return [f"{name}:{address.strip('[]')}" for name, addresses in service.extra_hosts.items() for address in addresses]


def _port_bindings(service: ServiceSpec) -> dict[str, list[dict[str, str]]]:
    bindings: dict[str, list[dict[str, str]]] = {}
    for port in service.ports:
        wanted = {"HostIp": port.host_address, "HostPort": str(port.host_port or "")}
        bindings.setdefault(f"{port.container_port}/{port.protocol}", []).append(wanted)
    return bindings


def _device(text: str) -> dict[str, str]:
    host, _, rest = text.partition(":")
    inside, _, rights = rest.partition(":")
    return {"PathOnHost": host, "PathInContainer": inside or host, "CgroupPermissions": rights or "rwm"}


def security(options: tuple[str, ...]) -> dict[str, Any]:
    """Write security options as the docker command does: profiles are read here, ``systempaths`` becomes two lists of paths.

    Raises:
        SpecError: A seccomp profile can't be read.
    """
    written: list[str] = []
    more: dict[str, Any] = {}
    for option in options:
        name, _, value = option.replace(":", "=", 1).partition("=") if "=" not in option else option.partition("=")
        if name == "seccomp" and value not in ("unconfined", "builtin"):
            written.append(f"seccomp={_profile(value)}")
        elif (name, value) == ("systempaths", "unconfined"):
            more |= {"MaskedPaths": [], "ReadonlyPaths": []}
        else:
            written.append(f"{name}={value}" if value else name)
    return {"SecurityOpt": written, **more} if written else more


def _profile(path: str) -> str:
    try:
        return json.dumps(json.loads(Path(path).read_text()), separators=(",", ":"))
    except (OSError, ValueError) as error:
        raise SpecError(f"security_opt: seccomp profile {path!r} can't be read: {error}") from None
