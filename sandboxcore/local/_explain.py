"""From what the launcher and bubblewrap say to what went wrong and how to mend it."""

from __future__ import annotations

import errno
import re
from pathlib import Path

__all__ = ("explain", "forbidding_switch")

_PATTERN = re.compile(r"launcher: (?P<what>.*?): .* \(errno (?P<number>\d+)\)")


#: Steps of the launcher that only fail for want of rights where user namespaces are restricted.
_NAMESPACES = ("userns", "uid_map", "gid_map", "setgroups", "setuid", "netns", "netns: loopback", "mountns", "stage")
_SWITCHES = (
    ("kernel.unprivileged_userns_clone", "0", "1"),
    ("user.max_user_namespaces", "0", "15000"),
    ("kernel.apparmor_restrict_unprivileged_userns", "1", "0"),
)
_SECCOMP_HINT = "a container's seccomp profile may forbid them: with Docker use `--security-opt seccomp=unconfined`"


def explain(errors: str) -> tuple[str, str | None]:
    """Return a message of one line and a hint, if there is one, for what a program wrote to stderr."""
    lines = [line.strip() for line in errors.splitlines() if line.strip()]
    last = lines[-1] if lines else "its programs ended without a word"
    found = next((match for line in lines if (match := _PATTERN.match(line))), None)
    what, number = (found["what"], int(found["number"])) if found else ("", 0)
    if what in _NAMESPACES and number in (errno.EPERM, errno.EACCES, errno.ENOSPC, errno.EUSERS):
        return f"no user namespace can be made or used ({last})", _namespace_hint(number)
    if "newuidmap" in last or "newgidmap" in last:
        return last, "check this user's lines in /etc/subuid and /etc/subgid"
    if what == "holder" and number in (errno.ESRCH, errno.ENOENT):
        return "the environment has been destroyed meanwhile, or its lease is over", None
    if what == "idmap":
        return f"the owners of a file tree can't be mapped ({last})", "use a path on ext4, xfs, btrfs or tmpfs, or a volume"
    if "Can't mount proc" in last or what == "proc":
        return last, "parts of /proc are hidden here, as in a container; run that with `--security-opt systempaths=unconfined`"
    if "overlay" in last.lower():
        return (
            last,
            "the state folder's file system can't carry overlays; set SANDBOXCORE_STATE_DIR to a folder on ext4, xfs or btrfs",
        )
    return last, None


def _namespace_hint(number: int) -> str:
    if (hint := forbidding_switch()) is not None:
        return hint
    if number in (errno.ENOSPC, errno.EUSERS):
        return "a limit is reached: raise user.max_user_namespaces, user.max_net_namespaces and the like with sysctl"
    return _SECCOMP_HINT


def forbidding_switch(folder: Path = Path("/proc/sys")) -> str | None:
    """Say which switch of this machine forbids user namespaces, and how to set it; None: none does."""
    for name, bad, good in _SWITCHES:
        try:
            value = folder.joinpath(*name.split(".")).read_text().strip()
        except OSError:
            continue
        if value == bad:
            return f"allow user namespaces: sudo sysctl -w {name}={good}"
    return None
