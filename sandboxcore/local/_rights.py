"""Capabilities and limits by name."""

from __future__ import annotations

import resource
from collections.abc import Iterable

from ..errors import SpecError

__all__ = ("DEFAULT_CAPABILITIES", "LIMITS", "capability_mask")

_CAPABILITIES = (
    *("CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP", "LINUX_IMMUTABLE"),
    *(
        "NET_BIND_SERVICE",
        "NET_BROADCAST",
        "NET_ADMIN",
        "NET_RAW",
        "IPC_LOCK",
        "IPC_OWNER",
        "SYS_MODULE",
        "SYS_RAWIO",
        "SYS_CHROOT",
    ),
    *(
        "SYS_PTRACE",
        "SYS_PACCT",
        "SYS_ADMIN",
        "SYS_BOOT",
        "SYS_NICE",
        "SYS_RESOURCE",
        "SYS_TIME",
        "SYS_TTY_CONFIG",
        "MKNOD",
        "LEASE",
    ),
    *(
        "AUDIT_WRITE",
        "AUDIT_CONTROL",
        "SETFCAP",
        "MAC_OVERRIDE",
        "MAC_ADMIN",
        "SYSLOG",
        "WAKE_ALARM",
        "BLOCK_SUSPEND",
        "AUDIT_READ",
    ),
    *("PERFMON", "BPF", "CHECKPOINT_RESTORE"),
)

#: What Docker gives when it isn't asked for anything else.
DEFAULT_CAPABILITIES = (
    *("CHOWN", "DAC_OVERRIDE", "FSETID", "FOWNER", "MKNOD", "NET_RAW", "SETGID", "SETUID", "SETFCAP", "SETPCAP"),
    *("NET_BIND_SERVICE", "SYS_CHROOT", "KILL", "AUDIT_WRITE"),
)

#: The guest changes users, kills their commands and reads their files, whatever the service itself may do.
GUEST_CAPABILITIES = frozenset(("SETUID", "SETGID", "KILL", "DAC_OVERRIDE", "CHOWN", "FOWNER"))

#: Names of ulimits to the numbers that setrlimit takes.
LIMITS = {
    name.removeprefix("RLIMIT_").lower(): getattr(resource, name)
    for name in sorted(dir(resource))
    if name.startswith("RLIMIT_") and name != "RLIMIT_OFILE"
}


def capability_mask(kept: Iterable[str], added: Iterable[str], dropped: Iterable[str] = (), *, where: str = "cap_add") -> int:
    """Return the set as the kernel's bit mask. ``ALL`` stands for all; what is dropped is dropped first.

    Raises:
        SpecError: A name is not a capability.
    """
    wanted = set(kept)
    for name in dropped:
        wanted -= set(_CAPABILITIES) if _plain(name) == "ALL" else {_known(name, where)}
    for name in added:
        wanted |= set(_CAPABILITIES) if _plain(name) == "ALL" else {_known(name, where)}
    return sum(1 << _CAPABILITIES.index(name) for name in wanted)


def dropped(names: Iterable[str]) -> set[str]:
    """Return the plain names of what is dropped, ``ALL`` spelt out."""
    plain = {_plain(name) for name in names}
    return set(_CAPABILITIES) if "ALL" in plain else plain


def _plain(name: str) -> str:
    return name.upper().removeprefix("CAP_")


def _known(name: str, where: str) -> str:
    from .._validation import did_you_mean

    plain = _plain(name)
    if plain not in _CAPABILITIES:
        raise SpecError(f"{where}: {name!r} is not a capability{did_you_mean(plain, _CAPABILITIES)}")
    return plain
