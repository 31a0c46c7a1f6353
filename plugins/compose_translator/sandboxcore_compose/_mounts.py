"""What a service has mounted: volumes, tmpfs, paths of this machine, configs and secrets."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any

from sandboxcore.report import Loss
from sandboxcore.spec import FileSpec, VolumeMount, VolumeSpec

from ._binds import bind
from ._files import shown_name
from ._marks import Map, Path
from ._notes import Notes
from ._units import parse_bytes
from .project import Project

__all__ = ("Mounts", "declare_volumes", "service_mounts")


@dataclass
class Mounts:
    """All that is mounted in a service."""

    volumes: list[VolumeMount] = field(default_factory=list)
    files: dict[str, FileSpec] = field(default_factory=dict)


def declare_volumes(declared: dict[str, Any], notes: Notes) -> dict[str, VolumeSpec]:
    """Describe the volumes that services use; each key that is not carried over is noted."""
    volumes: dict[str, VolumeSpec] = {}
    sources = notes.tree.get("volumes") or Map()
    for name, volume in declared.items():
        volumes[name] = VolumeSpec(labels=volume.get("labels") or {})
        source = sources.get(name)
        if not isinstance(source, Map):
            continue
        for key in source:
            if key in source.marks:
                _volume_key(key, source[key], ("volumes", name, key), notes)
    for name in sources:
        if name not in volumes:
            notes.noop(("volumes", name), "no service uses it")
    return volumes


def _volume_key(key: str, value: Any, path: Path, notes: Notes) -> None:
    if key == "driver" and value not in ("local", ""):
        notes.reject(path, f"volumes of the driver {value!r} can't be had")
    elif key == "driver_opts":
        kind = value.get("type") if isinstance(value, Map) else None
        if kind in (None, "tmpfs"):
            notes.approx(path, "an ordinary volume of the environment; options of its driver are not used")
        else:
            notes.reject(path, f"a volume of type {kind!r} reaches outside of the environment")
    elif key == "external" and value:
        notes.policy(path, "an empty volume of the environment's own; nothing outside of it is reached", "x-sandboxcore.options")
    elif key in ("name", "driver"):
        notes.noop(path, "a volume lives and dies with its environment")
    elif key.startswith("x-"):
        notes.noop(path, "an extension that is not known here")


def service_mounts(project: Project, name: str, notes: Notes, *, keeps_binds: bool) -> Mounts:
    """Collect what a service has mounted."""
    work = _Work(project, name, notes, keeps_binds)
    service = project.services[name]
    for index, volume in enumerate(service.get("volumes", ())):
        work.volume(volume, index)
    for index, text in enumerate(service.get("tmpfs", ())):
        work.tmpfs(text, ("services", name, "tmpfs", index))
    work.file_mounts("configs", "/")
    work.file_mounts("secrets", "/run/secrets/")
    return work.mounts


class _Work:
    def __init__(self, project: Project, name: str, notes: Notes, keeps_binds: bool) -> None:
        self.project, self.name, self.notes, self.keeps_binds = project, name, notes, keeps_binds
        self.mounts = Mounts()

    def volume(self, volume: dict[str, Any], index: int) -> None:
        path: Path = ("services", self.name, "volumes", index)
        self.unused_keys(volume, path)
        kind, target = volume.get("type", ""), str(volume.get("target", ""))
        if not target.startswith("/"):
            self.notes.reject(path, f"{target!r} is not an absolute path in the sandbox")
        elif kind == "bind":
            self.bind(volume, target, path)
        elif kind == "volume":
            options = volume.get("volume") or {}
            self.add(
                VolumeMount(
                    source=str(volume.get("source", "")),
                    target=target,
                    read_only=bool(volume.get("read_only")),
                    subpath=str(options.get("subpath", "")),
                    no_copy=bool(options.get("nocopy")),
                )
            )
        elif kind == "tmpfs":
            options = volume.get("tmpfs") or {}
            size = int(options["size"]) if "size" in options else None
            read_only = bool(volume.get("read_only"))
            self.add(VolumeMount(type="tmpfs", target=target, size_bytes=size, mode=options.get("mode"), read_only=read_only))
        elif kind == "image":
            self.notes.reject(path, "an image can't be mounted; copy its files into the service's own image")
        else:
            self.notes.reject(path, f"a mount of type {kind!r} can't be had")

    def add(self, mount: VolumeMount) -> None:
        self.mounts.volumes.append(mount)

    def unused_keys(self, volume: dict[str, Any], path: Path) -> None:
        if "consistency" in volume:
            self.notes.noop((*path, "consistency"), "only meant something on Macs")
        options = volume.get("bind") or {}
        if options.get("propagation") not in (None, "private", "rprivate"):
            self.notes.reject((*path, "bind", "propagation"), "mounts are never propagated between the sandbox and this machine")
        elif "propagation" in options:
            self.notes.noop((*path, "bind", "propagation"), "private is the rule")
        if "selinux" in options:
            self.notes.noop((*path, "bind", "selinux"), "labels of SELinux are the backend's")
        if "recursive" in options:
            self.notes.approx((*path, "bind", "recursive"), "mounts below the path are not looked at")
        if (volume.get("volume") or {}).get("labels"):
            self.notes.noop((*path, "volume", "labels"), "the backend puts its own labels on a volume")

    def bind(self, volume: dict[str, Any], target: str, path: Path) -> None:
        mount, files = bind(
            str(volume.get("source", "")),
            target,
            read_only=bool(volume.get("read_only")),
            create=bool((volume.get("bind") or {}).get("create_host_path")),
            folder=self.project.folder,
            path=path,
            notes=self.notes,
            keeps=self.keeps_binds,
        )
        if mount is not None:
            self.add(mount)
        self.mounts.files |= files

    def tmpfs(self, text: str, path: Path) -> None:
        target, _, rest = text.partition(":")
        size, mode, read_only, others = None, None, False, []
        for option in filter(None, rest.split(",")):
            key, _, value = option.partition("=")
            try:
                if key == "size" and not value.endswith("%"):
                    size = parse_bytes(value)
                elif key == "mode":
                    mode = int(value, 8)
                elif key in ("ro", "rw"):
                    read_only = key == "ro"
                elif option != "exec":  # as it is on every backend
                    others.append(option)
            except ValueError:
                self.notes.problems.at(self.notes.tree, path, f"{option!r} is not an option of a tmpfs")
        if others:
            self.notes.approx(path, f"{', '.join(others)}: options that are not applied to a tmpfs")
        if target.startswith("/"):
            self.add(VolumeMount(type="tmpfs", target=target, size_bytes=size, mode=mode, read_only=read_only))
        else:
            self.notes.reject(path, f"{target!r} is not an absolute path in the sandbox")

    # -- configs and secrets

    def file_mounts(self, section: str, folder: str) -> None:
        for index, mount in enumerate(self.project.services[self.name].get(section, ())):
            path: Path = ("services", self.name, section, index)
            source = str(mount.get("source", ""))
            target = posixpath.join(folder, str(mount.get("target") or source))
            content = self.content(section, source, path)
            if content is None:
                continue
            mode = int(mount["mode"], 8) if "mode" in mount else 0o444
            uid, gid = (self.number(mount, key, path) for key in ("uid", "gid"))
            self.mounts.files[target] = FileSpec(content=content, mode=mode, uid=uid, gid=gid, read_only=True)

    def number(self, mount: dict[str, Any], key: str, path: Path) -> int:
        text = str(mount.get(key, "0"))
        if text.isdigit():
            return int(text)
        self.notes.approx((*path, key), f"{text!r} is not a number; the file belongs to root")
        return 0

    def content(self, section: str, source: str, path: Path) -> bytes | None:
        declared = (self.project.rendered.get(section) or {}).get(source) or {}
        place: Path = (section, source)
        for key in declared:
            if key in ("labels", "driver", "driver_opts", "template_driver"):
                loss = Loss.NOOP if key == "labels" else Loss.REJECT
                self.notes.note(loss, (*place, key), "not used: the content comes from file, environment or content")
        if declared.get("external"):
            self.notes.reject((*place, "external"), "what is kept outside of the project can't be read; give a file")
            return None
        if "content" in declared:
            return str(declared["content"]).encode()
        if "environment" in declared:
            name = str(declared["environment"])
            value = self.project.variables.get(name)
            if value is None:
                self.notes.reject((*place, "environment"), f"the variable {name} is not set")
                return None
            return value.encode()
        return self.file_content(str(declared.get("file", "")), place)

    def file_content(self, file: str, place: Path) -> bytes | None:
        try:
            return FilePath(file).read_bytes()
        except OSError as error:
            where = (*place, "file")
            self.notes.problems.at(self.notes.tree, where, f"{shown_name(file)}: {(error.strerror or 'unreadable').lower()}")
        return None
