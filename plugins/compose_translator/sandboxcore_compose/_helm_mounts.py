"""Volumes and files of services on Kubernetes."""

from __future__ import annotations

import base64
import re
import zlib
from collections.abc import Callable
from typing import Any

from sandboxcore.report import Loss
from sandboxcore.spec import EnvironmentSpec, ServiceSpec, VolumeMount

__all__ = ("Mounts", "environment_volumes", "fits_files")

_Note = Callable[[Loss, str, str, str], None]
#: Helm's record of a release is a Secret, which holds 1 MiB; the rest is for the chart and the other values.
MAX_RECORD_BYTES = 900_000
#: A service's files are one Secret.
MAX_SERVICE_BYTES = 1_000_000
_CLAIM = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?\Z")


def environment_volumes(spec: EnvironmentSpec, names: dict[str, str], shared: set[str]) -> dict[str, Any]:
    """Declare the volumes that have to outlive a single pod: those that several services mount, and external ones."""
    found: dict[str, Any] = {}
    for name, volume in spec.volumes.items():
        if volume.external:
            found[names[name]] = {"existingClaim": name}
        elif name in shared:
            found[names[name]] = {"annotations": dict(volume.labels)} if volume.labels else {}
    return found


def fits_files(spec: EnvironmentSpec, note: _Note) -> None:
    """Refuse files that are more than a Secret, or Helm's record of the release, can hold."""
    advice = "put them into the image, or write them when it runs"
    recorded = 0
    for name, service in spec.services.items():
        size = sum(len(file.content) for file in service.files.values())
        if size > MAX_SERVICE_BYTES:
            note(Loss.REJECT, name, "files", f"are {size} bytes, more than the {MAX_SERVICE_BYTES} of a Secret; {advice}")
        before, recorded = recorded, recorded + sum(_recorded(file.content) for file in service.files.values())
        if before <= MAX_RECORD_BYTES < recorded:
            note(Loss.REJECT, name, "files", f"with them the release is too large to be recorded; {advice}")


def _recorded(content: bytes) -> int:
    """Estimate the bytes of a file in the record: compressed, in the values and in the manifest, both in base64."""
    return 2 * len(zlib.compress(base64.b64encode(content), 6)) * 4 // 3


class Mounts:
    """Writes what is mounted where."""

    def __init__(self, spec: EnvironmentSpec, names: dict[str, str], note: _Note) -> None:
        self.spec, self.names, self.note = spec, names, note
        self.shared = {name for name in spec.volumes if sum(_uses(service, name) for service in spec.services.values()) > 1}
        for name, volume in spec.volumes.items():
            if volume.external and not _CLAIM.match(name):
                note(Loss.REJECT, "", f"volumes.{name}", "can't be the name of a claim that is there already")

    def of(self, name: str, service: ServiceSpec) -> dict[str, Any]:
        """Write a service's ``volumes``, ``volumeMounts`` and ``files``."""
        volumes: list[Any] = []
        mounts: list[dict[str, Any]] = []
        for index, mount in enumerate(service.volumes):
            key = f"volumes.{index}"
            if mount.type == "bind":
                self.note(Loss.REJECT, name, key, f"{mount.source} is a path of this machine, which the cluster can't see")
                continue
            self._tell(name, key, mount)
            if mount.type == "volume" and (mount.source in self.shared or self._external(mount)):
                volumes.append(self._of_environment(mount))
                continue
            own = self.names[mount.source] if mount.type == "volume" and mount.source else f"mount-{index}"
            if all(volume["name"] != own for volume in volumes if isinstance(volume, dict) and "name" in volume):
                volumes.append({"name": own, **_empty_dir(mount)})
            mounts.append(_volume_mount(own, mount))
        if service.resources.shm_bytes:
            volumes.append({"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": str(service.resources.shm_bytes)}})
            mounts.append({"name": "shm", "mountPath": "/dev/shm"})
        return {"volumes": volumes, "volumeMounts": mounts, "files": self._files(name, service)}

    def _external(self, mount: VolumeMount) -> bool:
        return bool(mount.source) and self.spec.volumes[mount.source].external

    def _of_environment(self, mount: VolumeMount) -> str | dict[str, Any]:
        name = self.names[mount.source]
        if mount.subpath or ":" in mount.target:
            found = {"volume": name, "mountPath": mount.target, "readOnly": mount.read_only, "subPath": mount.subpath}
            return {key: value for key, value in found.items() if value}
        return f"{name}:{mount.target}" + (":ro" if mount.read_only else "")

    def _tell(self, name: str, key: str, mount: VolumeMount) -> None:
        if mount.mode is not None:
            self.note(Loss.APPROX, name, f"{key}.mode", "the mode of an empty directory can't be chosen")
        if mount.type == "volume" and not mount.no_copy and not self._external(mount):
            self.note(Loss.APPROX, name, key, f"{mount.target} begins empty: what the image has there is not copied into it")

    def _files(self, name: str, service: ServiceSpec) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for path, file in service.files.items():
            found[path] = {
                "content": base64.b64encode(file.content).decode("ascii"),
                "mode": file.mode,
                "readOnly": file.read_only,
            }
            if not file.read_only:
                self.note(Loss.APPROX, name, f"files.{path}", "can't be written to or removed in the sandbox")
            if file.uid or file.gid:
                self.note(Loss.APPROX, name, f"files.{path}", "belongs to root; its group can read it")
        return found


def _uses(service: ServiceSpec, volume: str) -> bool:
    return any(mount.type == "volume" and mount.source == volume for mount in service.volumes)


def _empty_dir(mount: VolumeMount) -> dict[str, Any]:
    found: dict[str, Any] = {"medium": "Memory"} if mount.type == "tmpfs" else {}
    if mount.size_bytes:
        found["sizeLimit"] = str(mount.size_bytes)
    return {"emptyDir": found}


def _volume_mount(name: str, mount: VolumeMount) -> dict[str, Any]:
    found: dict[str, Any] = {"name": name, "mountPath": mount.target}
    if mount.read_only:
        found["readOnly"] = True
    if mount.subpath:
        found["subPath"] = mount.subpath
    return found
