"""Files, volumes and mounts of a pod."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sandboxcore.errors import CapabilityError
from sandboxcore.spec import FileSpec

from .naming import dns_label, object_name

if TYPE_CHECKING:
    from sandboxcore.spec import EnvironmentSpec, ServiceSpec, VolumeMount

    from .objects import Placement

__all__ = ("all_files", "claims", "file_secret", "shared_volumes", "volume_label", "volumes_and_mounts")

#: A Secret holds 1 MiB; some of it is names and base64 is not counted.
FILES_MAX_BYTES = 1_000_000
_BIND_MAX_BYTES = 256 * 1024


def volume_label(name: str) -> str:
    """Label of the pods that mount a shared volume."""
    return f"sandboxcore.dev/volume-{dns_label(name, 50)}"


def shared_volumes(spec: EnvironmentSpec) -> tuple[str, ...]:
    """Name the volumes that several services mount: each needs a claim, an empty directory serves the others."""
    users: dict[str, set[str]] = {name: set() for name in spec.volumes}
    for service, body in spec.services.items():
        for mount in body.volumes:
            if mount.type == "volume" and mount.source:
                users[mount.source].add(service)
    return tuple(name for name, found in users.items() if len(found) > 1 and not spec.volumes[name].external)


def claims(spec: EnvironmentSpec, placement: Placement) -> Iterator[dict[str, Any]]:
    """Build the claims of shared volumes."""
    for name in shared_volumes(spec):
        claim: dict[str, Any] = {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Gi"}},
        }
        if placement.storage_class is not None:
            claim["storageClassName"] = placement.storage_class
        yield {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": placement.metadata(object_name(placement.instance, f"volume-{name}")),
            "spec": claim,
        }


def all_files(service: ServiceSpec) -> dict[str, FileSpec]:
    """Collect a service's files and the small files of this machine that it mounts read-only.

    Raises:
        CapabilityError: It mounts what pods can't have: a folder, a large file, or something that it may write to.
    """
    found = dict(service.files)
    for index, mount in enumerate(service.volumes):
        if mount.type == "bind":
            found[mount.target] = _bound(index, mount)
    if sum(len(file.content) for file in found.values()) > FILES_MAX_BYTES:
        raise CapabilityError(
            f"files: more than {FILES_MAX_BYTES} bytes for one service", hint="write them when the sandbox is ready"
        )
    return found


def _bound(index: int, mount: VolumeMount) -> FileSpec:
    path = Path(mount.source, mount.subpath) if mount.subpath else Path(mount.source)
    if not mount.read_only or not path.is_file() or path.stat().st_size > _BIND_MAX_BYTES:
        raise CapabilityError(
            f"volumes.{index}: {mount.source} is a path of this machine, which the cluster can't see",
            hint=f"only single files of at most {_BIND_MAX_BYTES // 1024} KiB are copied, where they are mounted read-only",
        )
    return FileSpec(content=path.read_bytes(), mode=path.stat().st_mode & 0o777, read_only=True)


def file_secret(spec: EnvironmentSpec, service: str, placement: Placement) -> dict[str, Any] | None:
    """Build the Secret with a service's files; None: it has none."""
    files = all_files(spec.services[service])
    if not files:
        return None
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": placement.metadata(_secret_name(service, placement)),
        "immutable": True,
        "data": {f"file-{index}": base64.b64encode(file.content).decode() for index, file in enumerate(files.values())},
    }


def _secret_name(service: str, placement: Placement) -> str:
    return object_name(placement.instance, f"files-{service}")


def volumes_and_mounts(
    spec: EnvironmentSpec, service: str, placement: Placement
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Build a pod's ``volumes`` and its container's ``volumeMounts``."""
    body = spec.services[service]
    volumes: dict[str, dict[str, Any]] = {}
    mounts: list[dict[str, Any]] = []
    shared = shared_volumes(spec)
    for index, mount in enumerate(body.volumes):
        if mount.type == "bind":
            continue
        name, volume = _volume(spec, index, mount, placement, mount.source in shared)
        volumes.setdefault(name, volume)
        mounts.append(_mount(name, mount))
    if body.resources.shm_bytes:
        volumes["shm"] = {"emptyDir": {"medium": "Memory", "sizeLimit": str(body.resources.shm_bytes)}}
        mounts.append({"name": "shm", "mountPath": "/dev/shm"})
    files = all_files(body)
    if files:
        volumes["files"] = {"secret": {"secretName": _secret_name(service, placement), "items": _items(files)}}
        mounts += [
            {"name": "files", "mountPath": path, "subPath": f"file-{index}", "readOnly": True} for index, path in enumerate(files)
        ]
    return [{"name": name, **volume} for name, volume in volumes.items()], mounts


def _items(files: dict[str, FileSpec]) -> list[dict[str, Any]]:
    return [
        {"key": f"file-{index}", "path": f"file-{index}", "mode": file.mode & 0o777} for index, file in enumerate(files.values())
    ]


def _volume(
    spec: EnvironmentSpec, index: int, mount: VolumeMount, placement: Placement, shared: bool
) -> tuple[str, dict[str, Any]]:
    if mount.type == "volume" and mount.source:
        name = f"volume-{dns_label(mount.source, 50)}"
        if spec.volumes[mount.source].external:
            return name, {"persistentVolumeClaim": {"claimName": mount.source}}
        if shared:
            return name, {"persistentVolumeClaim": {"claimName": object_name(placement.instance, f"volume-{mount.source}")}}
    else:
        name = f"mount-{index}"
    empty: dict[str, Any] = {"medium": "Memory"} if mount.type == "tmpfs" else {}
    if mount.size_bytes:
        empty["sizeLimit"] = str(mount.size_bytes)
    return name, {"emptyDir": empty}


def _mount(name: str, mount: VolumeMount) -> dict[str, Any]:
    found: dict[str, Any] = {"name": name, "mountPath": mount.target}
    if mount.read_only:
        found["readOnly"] = True
    if mount.subpath:
        found["subPath"] = mount.subpath
    return found
