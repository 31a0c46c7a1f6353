"""The control group above all pods of a cluster, in every hierarchy that the machine has."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from ._layout import Layout

MOUNT = Path("/sys/fs/cgroup")


def make_cgroups(layout: Layout) -> None:
    """Make the group that the kubelet is told to keep to (`cgroupRoot`); no-op if it is there."""
    unified = MOUNT / "cgroup.controllers"
    if unified.exists():
        wanted = " ".join(f"+{name}" for name in unified.read_text().split())
        (MOUNT / "cgroup.subtree_control").write_text(wanted)
    for group in _groups(layout):
        group.mkdir(exist_ok=True)
        for name in ("cpuset.cpus", "cpuset.mems"):  # version 1 lets no process into a set that is empty
            if (group / name).exists():
                (group / name).write_text((group.parent / name).read_text())


def remove_cgroups(layout: Layout) -> None:
    """Remove the group and all below it; what still has a process stays."""
    for group in [*_groups(layout), MOUNT / "unified" / layout.name]:  # runc makes the last one by itself
        for folder, _, _ in os.walk(group, topdown=False):
            with suppress(OSError):
                Path(folder).rmdir()


def unified() -> Path:
    """Name where the hierarchy of version 2 is mounted."""
    return MOUNT if (MOUNT / "cgroup.controllers").exists() else MOUNT / "unified"


def processes(layout: Layout) -> set[int]:
    """Return the pids of everything that runs in pods."""
    found: set[int] = set()
    for group in _groups(layout):
        for folder, _, _ in os.walk(group):
            with suppress(OSError):
                found |= {int(pid) for pid in (Path(folder) / "cgroup.procs").read_text().split()}
    return found


def _groups(layout: Layout) -> Iterator[Path]:
    if (MOUNT / "cgroup.controllers").exists():
        yield MOUNT / layout.name
        return
    real = {path.resolve() for path in MOUNT.iterdir() if path.is_dir() and path.name != "unified"}
    yield from (path / layout.name for path in sorted(real))
