"""What becomes of each field of a spec on an engine. Nothing is passed over in silence."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from sandboxcore.errors import CapabilityError, SpecError
from sandboxcore.report import Loss, ReportEntry

from ._config import EnvironmentOptions, ServiceOptions
from ._container import GUEST_FOLDER, security
from ._labels import PREFIX
from ._networks import NetworkPlan, check_pool, plan_networks

if TYPE_CHECKING:
    from sandboxcore.spec import EnvironmentSpec, ServiceSpec, VolumeMount

    from ._config import DockerConfig
    from ._engine import Version

__all__ = ("check", "service_options")

_LISTS = ("allow_domains", "allow_cidrs", "allow_entities")


def check(spec: EnvironmentSpec, config: DockerConfig, *, local: bool, version: Version | None) -> tuple[ReportEntry, ...]:
    """Go through all fields.

    Args:
        local: Whether the engine sees the paths of this machine.
        version: Of the engine's API, where it is known.

    Raises:
        CapabilityError: The backend can't do what the spec asks for.
        SpecError: A path or name in it does not exist.
    """
    from sandboxcore._validation import validated

    check_pool(config.address_pool)
    validated(EnvironmentOptions, spec.options.get("docker", {}), what="options.docker")
    plan, options = plan_networks(spec), service_options(spec)
    _check_subpaths(spec)
    entries: list[ReportEntry] = []
    for name, service in spec.services.items():
        entries.extend(_Checked(name, service, spec, config, plan, options[name], local, version).entries())
    return tuple(entries)


def service_options(spec: EnvironmentSpec) -> dict[str, ServiceOptions]:
    """Read what each service says under ``options.docker``. Raises SpecError."""
    from sandboxcore._validation import validated

    return {
        name: validated(ServiceOptions, service.options.get("docker", {}), what=f"services.{name}.options.docker")
        for name, service in spec.services.items()
    }


def _check_subpaths(spec: EnvironmentSpec) -> None:
    """A part of a volume is a volume of its own here; that goes well as long as nobody mounts one inside of another."""
    parts: dict[str, set[str]] = {}
    for service in spec.services.values():
        for mount in service.volumes:
            if mount.type == "volume" and mount.source:
                parts.setdefault(mount.source, set()).add(mount.subpath.strip("/"))
    for source, subpaths in parts.items():
        for one in subpaths:
            outer = next((other for other in subpaths if other != one and PurePosixPath(one).is_relative_to(other or ".")), None)
            if outer is not None or (one and spec.volumes[source].external):
                raise CapabilityError(
                    f"volumes.{source}: subpath {one!r} can't be mounted beside {outer or 'the rest'!r} of the same volume",
                    hint="mount the whole volume, or only parts that do not hold each other",
                )


@dataclass(frozen=True)
class _Checked:
    """One service, and what there is to say about it."""

    name: str
    service: ServiceSpec
    spec: EnvironmentSpec
    config: DockerConfig
    plan: NetworkPlan
    options: ServiceOptions
    local: bool
    version: Version | None

    def entries(self) -> Iterator[ReportEntry]:
        yield from self._image()
        yield from self._resources()
        yield from self._volumes()
        yield from self._files()
        yield from self._network()
        yield from self._lifecycle()

    def _entry(self, loss: Loss, key: str, reason: str, option: str = "") -> ReportEntry:
        return ReportEntry(loss=loss, key=f"services.{self.name}.{key}", reason=reason, service=self.name, option=option)

    def _cannot(self, key: str, reason: str, hint: str | None = None) -> CapabilityError:
        return CapabilityError(f"services.{self.name}.{key}: {reason}", hint=hint)

    def _wrong(self, key: str, reason: str, hint: str | None = None) -> SpecError:
        return SpecError(f"services.{self.name}.{key}: {reason}", hint=hint)

    def _image(self) -> Iterator[ReportEntry]:
        service = self.service
        if service.image is None and service.build is None and self.config.default_image is None:
            hint = "give the service an image, or set config default_image"
            raise self._wrong("image", "is needed on the docker backend, and there is none", hint)
        archive = self.options.archive or self.config.archives.get(service.image or "")
        if archive is not None and not archive.expanduser().is_file():
            raise self._wrong("options.docker.archive", f"{str(archive)!r} does not exist")
        if service.image is None and service.build is None:
            yield self._entry(Loss.EXACT, "image", f"{self.config.default_image!r}, from config default_image")
        user = service.user
        if user is not None and (not user or user.startswith(":") or any(letter.isspace() for letter in user)):
            raise self._wrong("user", "must be a name or uid, with ':group' where wanted")
        for key in service.labels:
            if key.startswith(PREFIX):
                raise self._wrong("labels", f"{key!r}: names that begin with {PREFIX!r} are taken")

    def _resources(self) -> Iterator[ReportEntry]:
        if self.service.resources.storage_bytes is not None:
            yield self._entry(
                Loss.APPROX, "resources.storage_bytes", "not enforced: engines can do that on few file systems only"
            )
        if self.service.resources.cpus_request is not None:
            yield self._entry(
                Loss.APPROX, "resources.cpus_request", "a share of processor time where they are short, not a promise"
            )

    def _volumes(self) -> Iterator[ReportEntry]:
        for index, mount in enumerate(self.service.volumes):
            key = f"volumes.{index}"
            if ".." in mount.subpath.split("/") or mount.subpath.startswith("/"):
                raise self._wrong(f"{key}.subpath", "must be a relative path without '..'")
            if PurePosixPath(mount.target).is_relative_to(GUEST_FOLDER):
                raise self._wrong(key, f"{GUEST_FOLDER} is where the guest is mounted")
            yield from getattr(self, f"_{mount.type}")(key, mount)

    def _volume(self, key: str, mount: VolumeMount) -> Iterator[ReportEntry]:
        if mount.size_bytes is not None:
            yield self._entry(Loss.APPROX, f"{key}.size_bytes", "not enforced for volumes")
        if mount.mode is not None:
            yield self._entry(Loss.APPROX, f"{key}.mode", "a new volume has the mode that its place has in the image, or 0755")
        if mount.create:
            yield self._entry(Loss.NOOP, f"{key}.create", "volumes are always made")

    def _tmpfs(self, key: str, mount: VolumeMount) -> Iterator[ReportEntry]:
        for name in ("source", "subpath", "no_copy", "create"):
            if getattr(mount, name):
                yield self._entry(Loss.NOOP, f"{key}.{name}", "means nothing for a tmpfs")

    def _bind(self, key: str, mount: VolumeMount) -> Iterator[ReportEntry]:
        if not self.local:
            raise self._cannot(key, "paths of this machine can't be mounted by an engine on another", "use a volume, or files")
        if self.config.binds == "never" or (self.config.binds == "read_only" and not mount.read_only):
            raise self._cannot(key, f"config binds is {self.config.binds!r}")
        if not mount.source.startswith("/"):
            raise self._wrong(f"{key}.source", f"must be an absolute path, not {mount.source!r}")
        if not mount.create and not Path(mount.source, mount.subpath).exists():
            raise self._wrong(f"{key}.source", f"{mount.source!r} does not exist on this machine")
        if not mount.read_only:
            reason = f"{mount.source} is this machine's own: what root in the sandbox writes there belongs to real root"
            yield self._entry(Loss.APPROX, key, reason)
        for name in ("size_bytes", "mode"):
            if getattr(mount, name) is not None:
                yield self._entry(Loss.APPROX, f"{key}.{name}", "not applied to a path of this machine")
        if mount.no_copy:
            yield self._entry(Loss.NOOP, f"{key}.no_copy", "nothing is ever copied into a path of this machine")

    def _files(self) -> Iterator[ReportEntry]:
        for path, file in self.service.files.items():
            if not path.startswith("/") or path.endswith("/") or ".." in path.split("/"):
                raise self._wrong("files", f"{path!r} must be the absolute path of a file")
            mount = self._mounted_at(path)
            if mount is not None and mount.type == "tmpfs":
                raise self._cannot("files", f"{path!r} lies on a tmpfs, which is empty when its command starts", "use a volume")
            if mount is not None and (mount.type == "bind" or mount.read_only):
                what = "a path of this machine" if mount.type == "bind" else "a read-only volume"
                raise self._cannot("files", f"{path!r} lies on {what}; nothing is written there")
            if file.read_only:
                yield self._entry(Loss.APPROX, f"files.{path}", "has no mode that lets anybody write, but root can change that")

    def _mounted_at(self, path: str) -> VolumeMount | None:
        holding = [mount for mount in self.service.volumes if PurePosixPath(path).is_relative_to(mount.target)]
        return max(holding, key=lambda mount: len(mount.target), default=None)

    def _network(self) -> Iterator[ReportEntry]:
        service, online = self.service, self.plan.is_online(self.name)
        for key in _LISTS:
            if getattr(service.network_policy, key):
                reason = "an engine opens all of the internet to a container or nothing: such a list would not be kept"
                hint = "use the helm backend on a cluster that enforces policies, or internet without a list"
                raise self._cannot(f"network_policy.{key}", reason, hint)
        if service.network_policy.internet and self.config.internet == "never":
            raise self._cannot("network_policy.internet", "config internet is 'never'")
        if service.network_policy.internet and service.networks is None:
            yield self._entry(Loss.APPROX, "network_policy.internet", "off: the service is on no network at all")
        elif online:
            reason = "the service also reaches the engine's machine, and what that reaches"
            yield self._entry(Loss.APPROX, "network_policy.internet", reason)
        for index, port in enumerate(service.ports):
            if not online and port.host_port:
                reason = "not published: the service has no way out, which a published port would open; use port_forward"
                yield self._entry(Loss.APPROX, f"ports.{index}", reason, "network_policy.internet")
            elif not online:
                yield self._entry(
                    Loss.NOOP, f"ports.{index}", "not published: the service has no way out; port_forward reaches it"
                )
            elif port.host_address and not re.fullmatch(r"[0-9a-fA-F.:]+", port.host_address):
                raise self._wrong(f"ports.{index}.host_address", f"{port.host_address!r} is no address")
        if not online and any("host-gateway" in addresses for addresses in service.extra_hosts.values()):
            yield self._entry(Loss.APPROX, "extra_hosts", "host-gateway can't be reached: the service has no way out")

    def _lifecycle(self) -> Iterator[ReportEntry]:
        service = self.service
        for key in ("stop_signal", "stop_grace_period"):
            if getattr(service, key) is not None:
                yield self._entry(Loss.APPROX, key, "an environment is killed at once when it is destroyed")
        check = service.healthcheck
        if check is not None and check.start_period and self.version is not None and self.version < (1, 44):
            spoken = ".".join(map(str, self.version))
            reason = f"this engine (API {spoken}) looks every interval only; start_interval needs API 1.44"
            yield self._entry(Loss.APPROX, "healthcheck.start_interval", reason)
        try:
            security(service.security_opt)
        except SpecError as error:
            raise self._wrong("security_opt", error.message.partition(": ")[2]) from None
