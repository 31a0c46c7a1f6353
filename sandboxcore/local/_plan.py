"""From a service to the arguments of the programs that start it. Pure but for looking at the host's file tree."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ._networks import HOST, NetworkPlan, hosts_file
from ._rights import DEFAULT_CAPABILITIES, GUEST_CAPABILITIES, LIMITS, capability_mask
from ._tree import ImageConfig, resolve_inside
from ._userland import SOURCES, Userland, skeleton

if TYPE_CHECKING:
    from ..spec import EnvironmentSpec, Healthcheck, ServiceSpec, VolumeMount
    from ._config import LocalConfig
    from ._ids import IdMapping
    from ._programs import Programs

__all__ = ("AT", "Folders", "Launch", "Stage", "Tree", "plan_service")

#: Where the launcher collects what is mounted, in a mount namespace of its own.
AT = "/tmp"
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_INSIDE = "/.sandboxcore"
#: Numbers that the kernel gives to no process once it has counted past them (RESERVED_PIDS of its pid.c).
_RESERVED_PIDS = 300


@dataclass(frozen=True, kw_only=True)
class Tree:
    """An unpacked image, or a directory that stands for one."""

    path: Path
    image: ImageConfig = field(default_factory=ImageConfig)
    #: Whether its files carry the plain ids of the image, which have to be mapped when it is mounted.
    plain_ids: bool = False


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Something of the host that the sandbox mounts: under which name, and with which of the launcher's flags."""

    name: str
    path: Path
    below: str = ""
    flags: str = "-"

    def arguments(self) -> tuple[str, ...]:
        """Return the launcher's options."""
        return "--stage", self.flags, self.name, str(self.path), self.below


@dataclass(frozen=True, kw_only=True)
class Folders:
    """Where the service keeps its files on the host, and its environment the volumes (name to folder)."""

    service: Path
    volumes: Mapping[str, Path]


@dataclass(frozen=True, kw_only=True)
class Launch:
    """All that is needed to start a service. Holds environment values and file contents: never shown."""

    stages: tuple[Stage, ...]
    bubblewrap: tuple[str, ...] = field(repr=False)
    records: bytes = field(repr=False)
    prepare: tuple[str, ...]
    guest: tuple[str, ...] = field(repr=False)
    limits: tuple[tuple[int, int, int], ...]
    group: int
    argv: tuple[str, ...] = field(repr=False)
    user: str | None
    healthcheck: Healthcheck | None
    #: Directories to make on the host before it starts; volumes to fill with what the image has (volume, path in the image).
    fresh: tuple[Path, ...]
    copies: tuple[tuple[Path, str], ...]


def plan_service(
    spec: EnvironmentSpec,
    name: str,
    *,
    network: NetworkPlan,
    tree: Tree | None,
    folders: Folders,
    config: LocalConfig,
    userland: Userland,
    mapping: IdMapping,
    programs: Programs,
) -> Launch:
    """Work out how a service is started."""
    return _Planner(spec, name, network, tree, folders, config, userland, mapping, programs).launch()


class _Planner:
    def __init__(
        self,
        spec: EnvironmentSpec,
        name: str,
        network: NetworkPlan,
        tree: Tree | None,
        folders: Folders,
        config: LocalConfig,
        userland: Userland,
        mapping: IdMapping,
        programs: Programs,
    ) -> None:
        self.spec, self.name, self.service = spec, name, spec.services[name]
        self.network, self.tree, self.folders = network, tree, folders
        self.config, self.userland, self.mapping, self.programs = config, userland, mapping, programs
        self.image = tree.image if tree else ImageConfig()
        self.user = self.service.user if self.service.user is not None else self.image.user
        self.hostname = host_name(self.service.hostname or name)
        self.cwd = self.service.working_dir or self.image.working_dir or "/"
        self.stages: list[Stage] = []
        self.fresh: list[Path] = []
        self.copies: list[tuple[Path, str]] = []
        self.records: list[bytes] = []
        self.parents: set[str] = set()

    def launch(self) -> Launch:
        bubblewrap = tuple(self._bubblewrap())
        self._records()
        argv = command(self.service, self.image)
        return Launch(
            stages=tuple(self.stages),
            bubblewrap=bubblewrap,
            records=b"".join(self.records),
            prepare=tuple(self._prepare()),
            guest=tuple(self._guest(argv)),
            limits=tuple(self._limits()),
            group=self.network.groups[self.name],
            argv=argv,
            user=self.user,
            healthcheck=self.service.healthcheck or self.image.healthcheck,
            fresh=tuple(self.fresh),
            copies=tuple(self.copies),
        )

    def _stage(self, name: str, path: Path, *, below: str = "", flags: str = "-") -> str:
        self.stages.append(Stage(name=name, path=path, below=below, flags=flags))
        return f"{AT}/{name}"

    def _own_folder(self, name: str) -> Path:
        path = self.folders.service / name
        self.fresh.append(path)
        return path

    # -- mounts

    def _bubblewrap(self) -> Iterator[str]:
        for name, path in self.programs.bubblewrap_parts:
            self._stage(f"bubblewrap/{name}", path)
        yield from ("--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try", "--as-pid-1", "--new-session")
        yield from ("--hostname", self.hostname)
        yield from self._root()
        yield from ("--proc", "/proc", "--dev", "/dev")
        size = self.service.resources.shm_bytes
        yield from (*(("--size", str(size)) if size else ()), "--perms", "1777", "--tmpfs", "/dev/shm")
        if self.tree is None:
            yield from self._userland()
        for index, mount in sorted(enumerate(self.service.volumes), key=lambda item: item[1].target.count("/")):
            yield from self._mount(index, mount)
        yield from self._bind("--ro-bind", self._stage("guest", self.programs.guest), f"{_INSIDE}/guest")
        yield from self._bind("--ro-bind", self._stage("launcher", self.programs.launcher), f"{_INSIDE}/launcher")
        yield "--clearenv"
        for key, value in self._environment().items():
            yield from ("--setenv", key, value)

    def _root(self) -> Iterator[str]:
        if self.tree is None:
            yield from ("--bind", self._stage("root", self._own_folder("root")), "/")
            return
        lower = self._stage("lower", self.tree.path, flags="i" if self.tree.plain_ids and self.mapping.kind == "root" else "-")
        upper = self._stage("overlay", self._own_folder("overlay"))
        self._own_folder("overlay/data")
        self._own_folder("overlay/work")
        yield from ("--overlay-src", lower, "--overlay", f"{upper}/data", f"{upper}/work", "/")

    def _userland(self) -> Iterator[str]:
        for path, link in self.userland.programs:
            yield from ("--symlink", link, path) if link else ("--ro-bind", path, path)
        if self.userland.has_sources:
            yield from ("--bind", self._stage("src", self._own_folder("src")), SOURCES)
        replaced = {*self.service.files, *(mount.target for mount in self.service.volumes)}
        for path in self.userland.etc:
            if path not in replaced:
                yield from self._bind("--ro-bind", path, path)
        for index, extra in enumerate(self.userland.host_paths):
            yield from self._bind("--ro-bind", self._stage(f"host{index}", extra), str(extra))
        if self.network.groups[self.name] == HOST and Path("/etc/resolv.conf").exists():
            yield from self._bind("--ro-bind", "/etc/resolv.conf", "/etc/resolv.conf")

    def _mount(self, index: int, mount: VolumeMount) -> Iterator[str]:
        target = self._inside(mount.target)
        if mount.type == "tmpfs":
            yield from self._parents(target)
            if mount.size_bytes:
                yield from ("--size", str(mount.size_bytes))
            yield from ("--perms", f"{0o1777 if mount.mode is None else mount.mode:o}", "--tmpfs", target)
            if mount.read_only:
                yield from ("--remount-ro", target)
            return
        verb = "--ro-bind" if mount.read_only else "--bind"
        yield from self._bind(verb, self._source(index, mount), target)

    def _source(self, index: int, mount: VolumeMount) -> str:
        name = f"mounts/{index}"
        if mount.type == "bind":
            flags = "i" if self.mapping.kind == "root" else "-"
            return self._stage(name, Path(mount.source), below=mount.subpath, flags=flags)
        folder = self.folders.volumes[mount.source] if mount.source else self._own_folder(f"volume{index}")
        if mount.subpath and not mount.source:
            self._own_folder(f"volume{index}/{mount.subpath}")
        if not mount.no_copy and self.tree is not None and not mount.subpath:
            self.copies.append((folder, self._inside(mount.target)))
        return self._stage(name, folder, below=mount.subpath)

    def _inside(self, target: str) -> str:
        """Follow the links of the image on the way to a target: bubblewrap would follow them outside of it."""
        target = os.path.normpath(target)
        return resolve_inside(self.tree.path, target) if self.tree else target

    def _bind(self, verb: str, source: str, target: str) -> Iterator[str]:
        yield from self._parents(target)
        yield from (verb, source, target)

    def _parents(self, target: str) -> Iterator[str]:
        parts = target.strip("/").split("/")[:-1]
        for parent in itertools.accumulate(parts, "{}/{}".format, initial=""):
            if parent and parent not in self.parents and self._can_be_made(parent):
                self.parents.add(parent)
                yield from ("--perms", "0755", "--dir", parent)

    def _can_be_made(self, path: str) -> bool:
        return self.tree is not None or not self.userland.is_sealed(path, exists_is_fine=False)

    # -- the rest

    def _environment(self) -> dict[str, str]:
        base = {"PATH": _PATH, "HOME": "/root", "HOSTNAME": self.hostname}
        if self.service.tty:
            base["TERM"] = "xterm"
        return base | dict(self.image.env) | self.service.env

    def _records(self) -> None:
        if self.tree is None:
            self._host_records()
        elif self.network.groups[self.name] == HOST:
            self._generated("/etc/resolv.conf", _readable("/etc/resolv.conf"))
        self._generated("/etc/hosts", hosts_file(self.spec, self.network, self.name).encode())
        self._generated("/etc/hostname", f"{self.hostname}\n".encode())
        self._directory(self.cwd, 0o755, self.user or "0:0")
        for path, file in self.service.files.items():
            self._file(path, file.content, mode=file.mode, owner=f"{file.uid}:{file.gid}", kind="R" if file.read_only else "F")

    def _host_records(self) -> None:
        for mode, owner, path in skeleton():
            self._directory(path, mode, owner)
        name = (self.user or "").partition(":")[0]
        accounts = self.userland.accounts([*self.config.users, *([name] if name and not name.isdigit() else [])])
        self._generated("/etc/passwd", accounts.passwd.encode())
        self._generated("/etc/group", accounts.group.encode())
        for owner, path in accounts.homes:
            self._directory(path, 0o755, owner)

    def _generated(self, path: str, content: bytes) -> None:
        """Write a file that every sandbox has, unless the service mounts one of its own there."""
        if all(mount.target != path for mount in self.service.volumes):
            self._file(path, content)

    def _directory(self, path: str, mode: int, owner: str) -> None:
        self._record("D", path, mode, owner, b"")

    def _file(self, path: str, content: bytes, *, mode: int = 0o644, owner: str = "0:0", kind: str = "F") -> None:
        self._record(kind, path, mode, owner, content)

    def _record(self, kind: str, path: str, mode: int, owner: str, content: bytes) -> None:
        name = os.fsencode(path)
        self.records.append(b"%s %d %s %d %d\n" % (kind.encode(), mode, owner.encode(), len(name), len(content)) + name + content)

    def _prepare(self) -> Iterator[str]:
        kept = DEFAULT_CAPABILITIES
        mask = capability_mask(kept, self.service.cap_add, self.service.cap_drop)
        yield from ("--caps", f"{mask | capability_mask(GUEST_CAPABILITIES, ()):x}", "--cwd", self.cwd)
        if self.service.read_only:
            yield "--read-only"
        if not self.mapping.several_users:
            yield "--single"
        if self.service.resources.pids is not None:
            yield from ("--pid-max", str(_RESERVED_PIDS + self.service.resources.pids))

    def _guest(self, argv: tuple[str, ...]) -> Iterator[str]:
        yield from ("--restart", restart_argument(self.service))
        if self.service.tty:
            yield "--tty"
        if self.service.stdin_open:
            yield "--stdin-open"
        if self.user:
            yield from ("--user", self.user)
        if argv:
            yield from ("--", *argv)

    def _limits(self) -> Iterator[tuple[int, int, int]]:
        import resource

        for name, (soft, hard) in self.service.resources.ulimits.items():
            kind = LIMITS[name]
            most = resource.getrlimit(kind)[1]
            if self.mapping.kind != "root" and most != resource.RLIM_INFINITY:
                soft, hard = (most if value < 0 else min(value, most) for value in (soft, hard))
            yield kind, soft, hard


def command(service: ServiceSpec, image: ImageConfig) -> tuple[str, ...]:
    """Combine what the service and its image say, by the OCI image rules: a given entrypoint drops the image's command."""
    if service.entrypoint is not None:
        return (*service.entrypoint, *(service.command or ()))
    return (*image.entrypoint, *(service.command if service.command is not None else image.command))


def host_name(name: str) -> str:
    """Make a host name of a service's name, which may hold anything."""
    return re.sub(r"[^A-Za-z0-9._-]", "-", name)[:63]


def restart_argument(service: ServiceSpec) -> str:
    """Render the restart policy for the guest."""
    policy = service.restart
    if policy.name == "on-failure" and policy.max_retries is not None:
        return f"on-failure:{policy.max_retries}"
    return policy.name


def _readable(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError:
        return b""
