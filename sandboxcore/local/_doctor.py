"""Is everything there that this backend needs? Found out by doing it."""

from __future__ import annotations

import contextlib
import os
import platform
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import SandboxError
from ..guest._bootstrap import guest_binary
from ..values import DoctorFinding
from ._explain import explain
from ._ids import choose_mapping
from ._launch import run
from ._programs import find_bubblewrap, launcher_binary, machine

if TYPE_CHECKING:
    from ._config import LocalConfig
    from ._ids import IdMapping
    from ._state import State

__all__ = ("diagnose",)

_KINDS = {
    "root": "65536 ids, none of them real root",
    "subids": "your own id as root, subordinate ids for the others",
    "single": "one id: all commands run as root of the sandbox",
}


async def diagnose(state: State, config: LocalConfig) -> Sequence[DoctorFinding]:
    """Check everything, as far as the earlier checks let it."""
    if not sys.platform.startswith("linux"):
        fix = "use another backend, or a Linux virtual machine"
        return [DoctorFinding(check="system", status="error", detail=f"this is {platform.system()}, not Linux", fix=fix)]
    return [finding async for finding in _findings(state)]


async def _findings(state: State) -> AsyncIterator[DoctorFinding]:
    yield DoctorFinding(check="system", status="ok", detail=f"Linux {platform.release()} on {machine()}")
    yield _bubblewrap()
    yield _program("launcher", launcher_binary)
    yield _program("guest", guest_binary)
    mapping = choose_mapping()
    yield await _namespaces(mapping)
    yield _users(mapping)
    finding = _state_folder(state)
    yield finding
    if finding.status == "ok":
        yield await _overlay(state, mapping)


def _users(mapping: IdMapping) -> DoctorFinding:
    if mapping.several_users:
        return DoctorFinding(check="users", status="ok", detail=_KINDS[mapping.kind])
    fix = "install newuidmap (package uidmap) and add a range for this user to /etc/subuid and /etc/subgid"
    return DoctorFinding(check="users", status="warning", detail=_KINDS[mapping.kind], fix=fix)


def _bubblewrap() -> DoctorFinding:
    try:
        name, parts = find_bubblewrap()
    except SandboxError as error:
        return DoctorFinding(check="bubblewrap", status="error", detail=str(error), fix=error.hint or "")
    path = parts[0][1].parent / name
    return DoctorFinding(check="bubblewrap", status="ok", detail=str(path))


def _program(name: str, find: Callable[[], Path]) -> DoctorFinding:
    try:
        return DoctorFinding(check=name, status="ok", detail=str(find()))
    except SandboxError as error:
        return DoctorFinding(check=name, status="error", detail=str(error), fix=error.hint or "")


async def _namespaces(mapping: IdMapping) -> DoctorFinding:
    try:
        done = await run([str(launcher_binary()), "map", *mapping.arguments(), "--", "/bin/true"], env=_path())
    except SandboxError as error:
        return DoctorFinding(check="user namespaces", status="error", detail=str(error), fix=error.hint or "")
    if done.status == 0:
        return DoctorFinding(check="user namespaces", status="ok", detail="can be made")
    message, hint = explain(done.stderr)
    return DoctorFinding(check="user namespaces", status="error", detail=message, fix=hint or "")


def _state_folder(state: State) -> DoctorFinding:
    try:
        state.ensure()
    except SandboxError as error:
        return DoctorFinding(check="state folder", status="error", detail=str(error), fix=error.hint or "")
    return DoctorFinding(check="state folder", status="ok", detail=str(state.path))


async def _overlay(state: State, mapping: IdMapping) -> DoctorFinding:
    """Mount a small overlay in the state folder."""
    with tempfile.TemporaryDirectory(dir=state.path, prefix=".doctor-") as folder, contextlib.suppress(OSError):
        _folders(folder, "lower", "upper", "work", "merged")
        options = f"userxattr,lowerdir={folder}/lower,upperdir={folder}/upper,workdir={folder}/work"
        argv = ["unshare", "--mount", "sh", "-c", f"mount -t overlay overlay -o '{options}' '{folder}/merged'"]
        prefix = [] if mapping.kind == "root" else [str(launcher_binary()), "map", *mapping.arguments(), "--"]
        done = await run([*prefix, *argv], env=_path())
        await run([*prefix, "rm", "-rf", f"{folder}/work/work"], env=_path())
        if done.status == 0:
            return DoctorFinding(check="overlays", status="ok", detail="images can be run on the state folder's file system")
    fix = "only `rootfs` needs them: set SANDBOXCORE_STATE_DIR to a folder on ext4, xfs or btrfs"
    return DoctorFinding(check="overlays", status="warning", detail="the state folder's file system can't carry them", fix=fix)


def _folders(parent: str, *names: str) -> None:
    for name in names:
        Path(parent, name).mkdir()


def _path() -> dict[str, str]:
    return {"PATH": os.environ.get("PATH", os.defpath)}
