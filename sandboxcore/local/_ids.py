"""Which ids the users of a sandbox are on this machine."""

from __future__ import annotations

import contextlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

__all__ = ("BASE_ID", "COUNT", "IdMapping", "choose_mapping")

#: First of the ids that sandboxes of real root use: far from what people, services and container engines take.
BASE_ID = 0x70000000
COUNT = 65536

#: CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_SETGID, CAP_SETUID, CAP_SYS_ADMIN.
_NEEDED_OF_ROOT = (0, 1, 6, 7, 21)


@dataclass(frozen=True, kw_only=True)
class IdMapping:
    """How ids in a sandbox map to ids of the machine.

    ``root``: 65536 ids from ``BASE_ID`` on, none of them real root. ``subids``: root is the user itself, the others are
    the user's subordinate ids. ``single``: root is the user itself, and there is nobody else.
    """

    kind: Literal["root", "subids", "single"]
    uid_map: str
    gid_map: str

    @property
    def several_users(self) -> bool:
        """Whether commands can run as different users."""
        return self.kind != "single"

    @property
    def root_id(self) -> int | None:
        """The machine's id of the sandbox's root where it isn't the user itself, so that files have to be given to it."""
        return BASE_ID if self.kind == "root" else None

    def arguments(self) -> tuple[str, ...]:
        """Return the launcher's options."""
        flags = {"root": (), "subids": ("--tools",), "single": ("--single",)}[self.kind]
        return ("--uid-map", self.uid_map, "--gid-map", self.gid_map, *flags)


def choose_mapping() -> IdMapping:
    """Look at what this process may do, and take the best of the three ways."""
    if os.geteuid() == 0 and _has_capabilities(Path("/proc/self/status").read_text()) and _maps_reach_base():
        lines = f"0 {BASE_ID} {COUNT}"
        return IdMapping(kind="root", uid_map=lines, gid_map=lines)
    uid, gid = os.geteuid(), os.getegid()
    if uid != 0 and shutil.which("newuidmap") and shutil.which("newgidmap"):
        subuids, subgids = (_subordinate(f"/etc/sub{kind}id", uid) for kind in ("u", "g"))
        if subuids and subgids:
            return IdMapping(kind="subids", uid_map=_with_own(uid, subuids), gid_map=_with_own(gid, subgids))
    return IdMapping(kind="single", uid_map=f"0 {uid} 1", gid_map=f"0 {gid} 1")


def _with_own(own: int, subordinate: tuple[int, int]) -> str:
    first, count = subordinate
    return f"0 {own} 1,1 {first} {min(count, COUNT - 1)}"


def _has_capabilities(status: str) -> bool:
    for line in status.splitlines():
        if line.startswith("CapEff:"):
            mask = int(line.split()[1], 16)
            return all(mask >> number & 1 for number in _NEEDED_OF_ROOT)
    return False


def _maps_reach_base() -> bool:
    """Tell whether this process's own user namespace, which may be a container's, has the ids at all."""
    return all(_covers(Path(f"/proc/self/{kind}id_map").read_text()) for kind in ("u", "g"))


def _covers(id_map: str) -> bool:
    ranges = [tuple(map(int, line.split())) for line in id_map.splitlines()]
    return any(inside <= BASE_ID and inside + count >= BASE_ID + COUNT for inside, _, count in ranges)


def _subordinate(path: str, uid: int) -> tuple[int, int] | None:
    """Find the user's largest range in a file of ``name:first:count`` lines; see subuid(5)."""
    import pwd

    names = {str(uid)}
    with contextlib.suppress(KeyError):
        names.add(pwd.getpwuid(uid).pw_name)
    try:
        lines = Path(path).read_text().splitlines()
    except OSError:
        return None
    ranges: list[tuple[int, int]] = []
    for line in lines:
        fields = line.split(":")
        if len(fields) == 3 and fields[0] in names and fields[1].isdigit() and fields[2].isdigit():
            ranges.append((int(fields[1]), int(fields[2])))
    best = max(ranges, key=lambda found: found[1], default=None)
    return best if best and best[1] > 1000 else None
