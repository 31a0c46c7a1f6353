"""Files of a spec as the archive that the engine unpacks into a container."""

from __future__ import annotations

import io
import tarfile
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sandboxcore.spec import FileSpec

__all__ = ("archive", "open_folder", "program_archive")


def archive(files: Mapping[str, FileSpec]) -> bytes:
    """Write a tar archive; folders that are missing the engine makes (root's, mode 0755)."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path, file in files.items():
            info = tarfile.TarInfo(path.lstrip("/"))
            info.size, info.mtime = len(file.content), time.time()
            info.uid, info.gid = file.uid, file.gid
            info.mode = file.mode & ~0o222 if file.read_only else file.mode
            tar.addfile(info, io.BytesIO(file.content))
    return out.getvalue()


def open_folder(path: str) -> bytes:
    """Write an archive that lets everybody write to a folder."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        info = tarfile.TarInfo(path.strip("/"))
        info.type, info.mode, info.mtime = tarfile.DIRTYPE, 0o777, time.time()
        tar.addfile(info)
    return out.getvalue()


def program_archive(programs: Mapping[str, bytes]) -> bytes:
    """Write an archive of programs that everybody may run."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in programs.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(content), 0o755
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()
