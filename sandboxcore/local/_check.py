"""What becomes of each field of a spec on this backend. Nothing is passed over in silence."""

from __future__ import annotations

import platform
import re
import resource
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import CapabilityError, SandboxUserUnsupportedError, SpecError
from ..report import Loss, ReportEntry
from ._networks import HOST, NetworkPlan, plan_networks
from ._rights import GUEST_CAPABILITIES, LIMITS, capability_mask, dropped

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from ..spec import EnvironmentSpec, ServiceSpec, VolumeMount
    from ._config import LocalConfig
    from ._ids import IdMapping
    from ._userland import Userland

__all__ = ("check", "check_user_is_had", "pids_are_bounded")

_MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}


def check(
    spec: EnvironmentSpec, config: LocalConfig, userland: Userland, mapping: IdMapping, rootfs: Mapping[str, Path | None]
) -> tuple[ReportEntry, ...]:
    """Go through all fields.

    Args:
        rootfs: Service to its file tree; None: the host's userland.

    Raises:
        CapabilityError: The backend can't do what the spec asks for.
        SpecError: A path or name in it does not exist.
    """
    plan = plan_networks(spec)
    for path in config.host_paths:
        if not path.is_absolute() or not path.exists():
            raise SpecError(f"config: host_paths: {str(path)!r} must be an absolute path that exists")
    entries: list[ReportEntry] = []
    for name, volume in spec.volumes.items():
        if volume.external:
            raise CapabilityError(f"volumes.{name}.external: the local backend has no volumes outside of environments")
    for name, service in spec.services.items():
        found = _Checked(name, service, config, userland, mapping, plan, rootfs[name]).entries()
        entries.extend(found)
    return tuple(entries)


def pids_are_bounded() -> bool:
    """Tell whether the kernel gives each pid namespace its own bound (Linux 6.14)."""
    return tuple(map(int, re.findall(r"\d+", platform.release())[:2])) >= (6, 14)


@dataclass(frozen=True)
class _Checked:
    """One service, and what there is to say about it."""

    name: str
    service: ServiceSpec
    config: LocalConfig
    userland: Userland
    mapping: IdMapping
    plan: NetworkPlan
    rootfs: Path | None

    def entries(self) -> Iterator[ReportEntry]:
        yield from self._image()
        yield from self._user()
        yield from self._resources()
        yield from self._volumes()
        yield from self._files()
        yield from self._network()
        yield from self._rights()
        yield from self._lifecycle()

    def _entry(self, loss: Loss, key: str, reason: str, option: str = "") -> ReportEntry:
        return ReportEntry(loss=loss, key=f"services.{self.name}.{key}", reason=reason, service=self.name, option=option)

    def _cannot(self, key: str, reason: str, hint: str | None = None) -> CapabilityError:
        return CapabilityError(f"services.{self.name}.{key}: {reason}", hint=hint)

    def _image(self) -> Iterator[ReportEntry]:
        service = self.service
        if service.platform is not None:
            system, _, machine = service.platform.partition("/")
            machine = machine.partition("/")[0] or system
            if system not in ("linux", machine) or _MACHINES.get(machine, machine) != platform.machine():
                raise self._cannot("platform", f"{service.platform!r} is not this machine's (linux/{platform.machine()})")
        if self.rootfs is not None:
            if not self.rootfs.exists():
                raise SpecError(f"services.{self.name}.options.local.rootfs: {str(self.rootfs)!r} does not exist")
            if service.build is not None:
                yield self._entry(Loss.APPROX, "build", "nothing is built: the given rootfs is used")
        elif service.build is not None and service.image is None:
            raise self._cannot("build", "the local backend builds no images", _rootfs_hint(self.name))
        elif not self.config.host_userland:
            reason = "it has no rootfs, and running on the host's userland is switched off"
            raise self._cannot("image", reason, _rootfs_hint(self.name))
        elif service.image is not None:
            what = f"image {service.image!r} is not used: the host's userland is"
            yield self._entry(Loss.APPROX, "image", what, f"config rootfs[{service.image!r}]")
            if service.build is not None:
                yield self._entry(Loss.APPROX, "build", "nothing is built", f"config rootfs[{service.image!r}]")
        if service.pull_policy is not None:
            yield self._entry(Loss.NOOP, "pull_policy", "nothing is ever pulled")
        if self.rootfs is None and service.working_dir and self.userland.is_sealed(service.working_dir):
            raise self._cannot("working_dir", f"{service.working_dir!r} is missing in the host's userland, which is read-only")

    def _user(self) -> Iterator[ReportEntry]:
        user = self.service.user
        if user is not None and (not user or user.startswith(":") or any(letter.isspace() for letter in user)):
            raise SpecError(f"services.{self.name}.user: must be a name or uid, with ':group' where wanted")
        check_user_is_had(self.name, user, self.mapping)
        if self.service.groups:
            yield self._entry(Loss.APPROX, "groups", "further groups are not given; name one in user as 'user:group'")

    def _resources(self) -> Iterator[ReportEntry]:
        wanted = self.service.resources
        if wanted.gpus:
            raise self._cannot("resources.gpus", "the local backend has no GPUs to give")
        for key in ("cpus", "memory_bytes", "storage_bytes"):
            if getattr(wanted, key) is not None:
                yield self._entry(Loss.APPROX, f"resources.{key}", "not enforced: the local backend has no cgroup of its own")
        for key in ("cpus_request", "memory_request_bytes"):
            if getattr(wanted, key) is not None:
                yield self._entry(Loss.NOOP, f"resources.{key}", "nothing is reserved on this machine")
        if wanted.pids is not None and pids_are_bounded():
            what = "enforced as how many pids there are (kernel.pid_max), beside the first process's; each exec takes one more"
            yield self._entry(Loss.APPROX, "resources.pids", what)
        elif wanted.pids is not None:
            yield self._entry(Loss.APPROX, "resources.pids", "not enforced: that needs Linux 6.14")
        yield from self._ulimits()

    def _ulimits(self) -> Iterator[ReportEntry]:
        for name, (_, hard) in self.service.resources.ulimits.items():
            if name not in LIMITS:
                raise SpecError(f"services.{self.name}.resources.ulimits: {name!r} is not a limit; there are {', '.join(LIMITS)}")
            most = resource.getrlimit(LIMITS[name])[1]
            if self.mapping.kind != "root" and most != resource.RLIM_INFINITY and (hard < 0 or hard > most):
                yield self._entry(Loss.APPROX, f"resources.ulimits.{name}", f"lowered to {most}, this user's own hard limit")

    def _volumes(self) -> Iterator[ReportEntry]:
        for index, mount in enumerate(self.service.volumes):
            key = f"volumes.{index}"
            if self.rootfs is None and self.userland.is_sealed(mount.target):
                reason = f"{mount.target!r} is missing in the host's userland, which is read-only"
                raise self._cannot(key, reason, _rootfs_hint(self.name))
            if ".." in mount.subpath.split("/") or mount.subpath.startswith("/"):
                raise SpecError(f"services.{self.name}.{key}.subpath: must be a relative path without '..'")
            yield from getattr(self, f"_{mount.type}")(key, mount)

    def _volume(self, key: str, mount: VolumeMount) -> Iterator[ReportEntry]:
        if mount.size_bytes is not None:
            yield self._entry(Loss.APPROX, f"{key}.size_bytes", "not enforced for volumes")
        if mount.mode is not None:
            yield self._entry(Loss.APPROX, f"{key}.mode", "a new volume has mode 0755")
        if mount.create:
            yield self._entry(Loss.NOOP, f"{key}.create", "volumes are always made")

    def _tmpfs(self, key: str, mount: VolumeMount) -> Iterator[ReportEntry]:
        for name in ("source", "subpath", "no_copy", "create"):
            if getattr(mount, name):
                yield self._entry(Loss.NOOP, f"{key}.{name}", "means nothing for a tmpfs")

    def _bind(self, key: str, mount: VolumeMount) -> Iterator[ReportEntry]:
        from pathlib import Path

        if not mount.source.startswith("/"):
            raise SpecError(f"services.{self.name}.{key}.source: must be an absolute path, not {mount.source!r}")
        if not mount.create and not Path(mount.source, mount.subpath).exists():
            raise SpecError(f"services.{self.name}.{key}.source: {mount.source!r} does not exist on this machine")
        if not mount.read_only:
            owner = "real root" if self.mapping.kind == "root" else "you"
            reason = f"{mount.source} is this machine's own: what root in the sandbox writes there belongs to {owner}"
            yield self._entry(Loss.APPROX, key, reason)
        for name in ("size_bytes", "mode"):
            if getattr(mount, name) is not None:
                yield self._entry(Loss.APPROX, f"{key}.{name}", "not applied to a path of this machine")
        if mount.no_copy:
            yield self._entry(Loss.NOOP, f"{key}.no_copy", "nothing is ever copied into a path of this machine")

    def _files(self) -> Iterator[ReportEntry]:
        for path, file in self.service.files.items():
            if not path.startswith("/") or path.endswith("/"):
                raise SpecError(f"services.{self.name}.files: {path!r} must be the absolute path of a file")
            if self.rootfs is None and self.userland.is_sealed(path, exists_is_fine=False):
                raise self._cannot("files", f"{path!r} lies in the host's userland, which is read-only", _rootfs_hint(self.name))
            if (file.uid or file.gid) and not self.mapping.several_users:
                yield self._entry(Loss.APPROX, f"files.{path}", "belongs to root, the only user that can be had here")

    def _network(self) -> Iterator[ReportEntry]:
        policy, online = self.service.network_policy, self.plan.groups[self.name] == HOST
        for key in ("allow_domains", "allow_cidrs", "allow_entities"):
            if getattr(policy, key):
                raise self._cannot(f"network_policy.{key}", "the local backend can open all of the internet or nothing")
        if online:
            reason = "the service is on this machine's own network: it also reaches what listens on its loopback"
            yield self._entry(Loss.APPROX, "network_policy.internet", reason)
        elif self.plan.siblings(self.name):
            others = ", ".join(self.plan.siblings(self.name))
            reason = f"shares one network stack with {others}: two of them can't listen on the same port of all addresses"
            yield self._entry(Loss.APPROX, "networks", reason)
        for index, port in enumerate(self.service.ports):
            key = f"ports.{index}"
            if not online:
                yield self._entry(Loss.NOOP, key, "not published: the service is not on this machine's network")
            elif port.host_port in (None, port.container_port):
                yield self._entry(Loss.APPROX, key, "the service listens on this machine itself, on addresses that it chooses")
            else:
                reason = f"listens on this machine's port {port.container_port}, not {port.host_port}"
                yield self._entry(Loss.APPROX, key, reason)
        gateways = [name for name, addresses in self.service.extra_hosts.items() if "host-gateway" in addresses]
        if gateways:
            reason = "leads to the loopback address" + ("" if online else ", where this machine can't be reached")
            yield self._entry(Loss.APPROX, f"extra_hosts.{gateways[0]}", reason)

    def _rights(self) -> Iterator[ReportEntry]:
        service = self.service
        if service.privileged:
            raise self._cannot("privileged", "the local backend gives no rights on this machine")
        for key in ("cap_add", "cap_drop"):
            capability_mask((), getattr(service, key), where=f"services.{self.name}.{key}")
        kept = sorted(GUEST_CAPABILITIES & dropped(service.cap_drop))
        if kept:
            reason = f"the guest, and with it root's commands, keep {', '.join(kept)}: it needs them to serve other users"
            yield self._entry(Loss.APPROX, "cap_drop", reason)
        if service.cap_add:
            yield self._entry(Loss.APPROX, "cap_add", "held over the sandbox's own namespaces only")
        if service.runtime not in (None, "runc", "crun"):
            raise self._cannot("runtime", f"{service.runtime!r} can't be had; sandboxes run in bubblewrap")
        if service.runtime is not None:
            yield self._entry(Loss.NOOP, "runtime", "sandboxes run in bubblewrap")
        for option in service.security_opt:
            known = option.replace("=", ":") in ("no-new-privileges", "no-new-privileges:true")
            reason = "always so" if known else f"{option!r} is not applied"
            yield self._entry(Loss.EXACT if known else Loss.APPROX, "security_opt", reason)
        for key in service.sysctls:
            yield self._entry(Loss.APPROX, f"sysctls.{key}", "not applied")

    def _lifecycle(self) -> Iterator[ReportEntry]:
        service = self.service
        if service.init:
            yield self._entry(Loss.EXACT, "init", "the guest is the init of every sandbox")
        for key in ("stop_signal", "stop_grace_period"):
            if getattr(service, key) is not None:
                yield self._entry(Loss.APPROX, key, "an environment is killed at once when it is destroyed")
        if service.labels:
            yield self._entry(Loss.NOOP, "labels", "there is no object of the service that could carry them")


def _rootfs_hint(service: str) -> str:
    return f"give it a file tree: config rootfs[{service!r}], a directory or an archive made by `docker save`"


def check_user_is_had(name: str, user: str | None, mapping: IdMapping) -> None:
    """Refuse a user, of the spec or of its image, where only root can be had.

    Raises:
        SandboxUserUnsupportedError: It is somebody else. Nothing was created.
    """
    if user is not None and not mapping.several_users and user.partition(":")[0] not in ("root", "0"):
        raise SandboxUserUnsupportedError(
            f"services.{name}.user: {user!r} can't be had: this user has no subordinate ids, so there is only root",
            hint="install newuidmap (package uidmap) and add a range for this user to /etc/subuid and /etc/subgid",
        )
