"""Prove that a pod which a pool gives back as it was has not been used.

sandboxcore marks every pod of such a pool before it uses it, on the object, where nothing in the pod can reach. Others do not:
so what a use leaves is looked for with our own program, never with the pod's tools.
"""

from __future__ import annotations

import datetime
import re
from typing import TYPE_CHECKING

from sandboxcore.errors import ProvisionError, SandboxFileError

if TYPE_CHECKING:
    from sandboxcore.guest import Guest
    from sandboxcore_kubernetes import PodState

__all__ = ("prove_clean",)

#: Where those who use a sandbox leave things.
_FOLDERS = ("/tmp", "/var/tmp", "/root", "/home", "/workspace", "/dev/shm", "/opt", "/srv", "/mnt")
#: Seconds after the container's start in which its own command may write what it needs.
_SETTLED = 15.0
_DEPTH = 4
_OURS = ".sandboxcore"


async def prove_clean(guest: Guest, state: PodState) -> None:
    """Look for restarts, for processes that do not belong to the container's own command, and for files younger than it.

    Raises:
        ProvisionError: Something was found; the message says what.
    """
    found = await _younger_files(guest, _started(state)) or await _strangers(guest)
    if found:
        raise ProvisionError(
            f"pod {state.name} is not clean though its pool gave it: {found} (recycleStrategy Noop)",
            hint=f"delete it, and the pool makes another: kubectl delete pod {state.name}; or use Delete or Restart",
        )


def _started(state: PodState) -> float:
    statuses = (state.raw.get("status") or {}).get("containerStatuses") or ()
    times = [((each.get("state") or {}).get("running") or {}).get("startedAt") for each in statuses]
    return max((datetime.datetime.fromisoformat(text).timestamp() for text in times if text), default=0.0)


async def _younger_files(guest: Guest, started: float) -> str:
    waiting = [(folder, 0) for folder in _FOLDERS]
    while waiting:
        folder, depth = waiting.pop()
        try:
            entries = await guest.files.list_dir(folder)
        except SandboxFileError:
            continue
        for entry in entries:
            if entry.name.startswith(_OURS):
                continue
            if entry.modified > started + _SETTLED:
                return f"{entry.path} was changed {entry.modified - started:.0f} s after its container started"
            if entry.type == "directory" and depth < _DEPTH:
                waiting.append((entry.path, depth + 1))
    return ""


async def _strangers(guest: Guest) -> str:
    """Find a process whose parent is none of the container's: what an exec left behind has parent 0, or was adopted by 1."""
    entries = await guest.files.list_dir("/proc")
    pids = [int(entry.name) for entry in entries if re.fullmatch(r"\d+", entry.name)]
    for pid in pids:
        if pid == 1:
            continue
        try:
            status = (await guest.files.read_file(f"/proc/{pid}/status")).decode(errors="replace")
            words = (await guest.files.read_file(f"/proc/{pid}/cmdline")).replace(b"\0", b" ").decode(errors="replace")
        except SandboxFileError:
            continue
        parent = re.search(r"^PPid:\s*(\d+)", status, re.MULTILINE)
        ours = "guest" in words.partition(" ")[0] or _OURS in words
        if parent is not None and parent[1] == "0" and not ours:
            return f"process {pid} ({words.strip()[:40]}) was started from outside"
    return ""
