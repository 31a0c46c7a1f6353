"""Paths of this machine that a service mounts: read in as files where that is possible, refused where it would be unsafe."""

from __future__ import annotations

import os
import stat
from pathlib import Path as FilePath

from sandboxcore.spec import FileSpec, VolumeMount

from ._files import shown_name
from ._marks import Path
from ._notes import Notes

__all__ = ("MAX_BYTES", "MAX_FILES", "bind")

#: What is read into a spec at most, for one mount.
MAX_BYTES = 1024 * 1024
MAX_FILES = 500
#: What the private copy of a writable mount may hold.
MAX_COPY_BYTES = 16 * 1024 * 1024

_SOCKETS = ("docker.sock", "containerd.sock", "podman.sock", "crio.sock")
_SYSTEM = ("/dev", "/proc", "/sys")


class _TooMuchError(Exception):
    """The tree is larger than what is read in."""


def bind(
    source: str, target: str, *, read_only: bool, create: bool, folder: str, path: Path, notes: Notes, keeps: bool
) -> tuple[VolumeMount | None, dict[str, FileSpec]]:
    """Decide what a mounted path becomes: a mount, or files with its content.

    Args:
        folder: The project's own; what lies outside of it is refused unless ``host_paths`` is allowed.
        keeps: The backend mounts paths of this machine itself.
    """
    reason = _refused(source, folder, notes)
    if reason:
        notes.reject(path, reason[0], option=reason[1])
        return None, {}
    mount = VolumeMount(type="bind", source=source, target=target, read_only=read_only, create=create)
    if not os.path.lexists(source):
        return _missing(mount, path, notes)
    if keeps and (read_only or "writable_binds" in notes.options.allow):
        return mount, {}
    if not read_only and "writable_binds" in notes.options.allow:
        return mount, {}
    limit = MAX_BYTES if read_only else MAX_COPY_BYTES
    try:
        files = _read(source, target, limit, read_only=read_only)
    except _TooMuchError:
        return _too_large(mount, path, notes)
    except OSError as error:
        notes.problems.at(notes.tree, path, f"{shown_name(source)}: {(error.strerror or 'unreadable').lower()}")
        return None, {}
    _say_copied(read_only, path, notes)
    if not files:
        return VolumeMount(type="volume", target=target, read_only=read_only), {}
    return None, files


def _refused(source: str, folder: str, notes: Notes) -> tuple[str, str] | None:
    real = os.path.realpath(source)
    if os.path.basename(source) in _SOCKETS or os.path.basename(real) in _SOCKETS:
        return "the container engine's socket would hand this machine to the sandbox", ""
    if real == "/" or any(real == part or real.startswith(part + "/") for part in _SYSTEM):
        return f"{source} belongs to this machine's system; a sandbox can't have it", ""
    inside = real == os.path.realpath(folder) or real.startswith(os.path.realpath(folder).rstrip("/") + "/")
    if not inside and "host_paths" not in notes.options.allow:
        return f"{source} lies outside of the project's folder", "allow: host_paths"
    return None


def _missing(mount: VolumeMount, path: Path, notes: Notes) -> tuple[VolumeMount | None, dict[str, FileSpec]]:
    if not mount.create:
        notes.problems.at(notes.tree, path, f"{shown_name(mount.source)} does not exist")
        return None, {}
    notes.approx(path, f"{shown_name(mount.source)} does not exist: the service gets an empty directory of its own")
    return VolumeMount(type="volume", target=mount.target, read_only=mount.read_only), {}


def _too_large(mount: VolumeMount, path: Path, notes: Notes) -> tuple[VolumeMount | None, dict[str, FileSpec]]:
    if mount.read_only:
        notes.approx(path, "too large to read in: a backend on another machine takes a copy when the environment is made")
        return mount, {}
    reason = f"{shown_name(mount.source)} is writable, and too large for a private copy"
    notes.reject(path, reason, option="allow: writable_binds")
    return None, {}


def _say_copied(read_only: bool, path: Path, notes: Notes) -> None:
    if read_only:
        notes.approx(path, "a copy made now; later changes on this machine are not seen")
    else:
        notes.policy(path, "a private copy made now; what the service writes stays in the sandbox", "allow: writable_binds")


def _read(source: str, target: str, limit: int, *, read_only: bool) -> dict[str, FileSpec]:
    if not os.path.isdir(source):
        return {target: _file(source, limit, read_only=read_only)[0]}
    files: dict[str, FileSpec] = {}
    for place, folders, names in os.walk(source):
        folders.sort()
        for name in sorted(names):
            path = os.path.join(place, name)
            if not stat.S_ISREG(os.stat(path, follow_symlinks=_stays_inside(path, source)).st_mode):
                continue
            inner = os.path.normpath(os.path.join(target, os.path.relpath(path, source)))
            files[inner], size = _file(path, limit, read_only=read_only)
            limit -= size
            if len(files) > MAX_FILES:
                raise _TooMuchError
    return files


def _stays_inside(path: str, source: str) -> bool:
    return os.path.realpath(path).startswith(os.path.realpath(source).rstrip("/") + "/") and os.path.exists(path)


def _file(path: str, limit: int, *, read_only: bool) -> tuple[FileSpec, int]:
    found = os.stat(path)
    if not stat.S_ISREG(found.st_mode):
        raise OSError(0, "is neither a file nor a directory")
    if found.st_size > limit:
        raise _TooMuchError
    content = FilePath(path).read_bytes()
    return FileSpec(content=content, mode=stat.S_IMODE(found.st_mode), read_only=read_only), len(content)
