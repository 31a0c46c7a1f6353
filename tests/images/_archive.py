"""Write an image of one layer in the form of ``docker save``, which containerd imports as well.

The form is Docker's "image specification v1.2": ``manifest.json`` names a configuration and the layers.
"""

from __future__ import annotations

import hashlib
import io
import json
import platform
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def write_image(work: Path, name: str, config: dict[str, Any], layer: Path) -> Path:
    """Write the archive of an image whose one layer is a tar file; ``config`` is Docker's (``Cmd``, ``Env``, ``User``)."""
    description = json.dumps(
        {
            "architecture": ARCHITECTURES.get(platform.machine(), platform.machine()),
            "os": "linux",
            "config": config,
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{_sha256(layer)}"]},
        }
    ).encode()
    config_name = f"{hashlib.sha256(description).hexdigest()}.json"
    manifest = json.dumps([{"Config": config_name, "RepoTags": [name], "Layers": ["layer.tar"]}]).encode()
    archive = work / "image.tar"
    with tarfile.open(archive, "w") as tar:
        add_file(tar, config_name, description)
        tar.add(layer, "layer.tar")
        add_file(tar, "manifest.json", manifest)
    return archive


def write_layer(work: Path, fill: Callable[[tarfile.TarFile], None]) -> Path:
    """Write the tar file of a layer."""
    layer = work / "layer.tar"
    with tarfile.open(layer, "w") as tar:
        fill(tar)
    return layer


def add_file(tar: tarfile.TarFile, path: str, data: bytes, mode: int = 0o644) -> None:
    info = tarfile.TarInfo(path)
    info.size, info.mode = len(data), mode
    tar.addfile(info, io.BytesIO(data))


def add_directory(tar: tarfile.TarFile, path: str, mode: int = 0o755, owner: int = 0) -> None:
    info = tarfile.TarInfo(path)
    info.type, info.mode, info.uid, info.gid = tarfile.DIRTYPE, mode, owner, owner
    tar.addfile(info)


def add_link(tar: tarfile.TarFile, path: str, target: str) -> None:
    info = tarfile.TarInfo(path)
    info.type, info.linkname = tarfile.SYMTYPE, target
    tar.addfile(info)


def add_program(tar: tarfile.TarFile, path: str, program: Path) -> None:
    add_file(tar, path, program.read_bytes(), 0o755)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
