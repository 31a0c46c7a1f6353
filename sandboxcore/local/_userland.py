"""What a service without a file tree of its own sees of the host, and what is made for it."""

from __future__ import annotations

import grp
import os
import pwd
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ("AGENT", "SOURCES", "Accounts", "Userland", "skeleton")

#: The user that is always there beside root and the system's own.
AGENT = "agent"
_FIRST_ID = 1000
_NOBODY = 65534

_PROGRAMS = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
#: Below the host's programs, but private and writable: where images keep an application's sources.
SOURCES = "/usr/src"

#: What programs need to find their parts; nothing that holds a secret or tells about the host's users and services.
_ETC = (
    *(
        "ld.so.cache",
        "ld.so.conf",
        "ld.so.conf.d",
        "alternatives",
        "nsswitch.conf",
        "host.conf",
        "gai.conf",
        "protocols",
        "services",
    ),
    *(
        "ethertypes",
        "rpc",
        "netconfig",
        "localtime",
        "timezone",
        "os-release",
        "debian_version",
        "redhat-release",
        "alpine-release",
    ),
    *(
        "lsb-release",
        "mime.types",
        "magic",
        "magic.mime",
        "terminfo",
        "inputrc",
        "bash.bashrc",
        "profile",
        "locale.alias",
        "locale.conf",
    ),
    *(
        "login.defs",
        "skel",
        "shells",
        "xattr.conf",
        "manpath.config",
        "fonts",
        "groff",
        "vim",
        "xdg",
        "xml",
        "sgml",
        "perl",
        "python3",
    ),
    *("ssl/certs", "ssl/openssl.cnf", "ssl/cert.pem", "ca-certificates", "ca-certificates.conf", "pki/tls/certs", "pki/ca-trust"),
    *("crypto-policies", "default/locale", "ImageMagick-6", "ImageMagick-7"),
    # What root needs to add users.
    *("adduser.conf", "deluser.conf", "default/useradd", "pam.d"),
)
_ETC_PATTERNS = ("python3.*", "java-*", "openjdk-*")

#: Directories (mode, owner, path) of a fresh file tree.
_DIRECTORIES = (
    *(
        (0o1777, "0:0", "/tmp"),
        (0o1777, "0:0", "/var/tmp"),
        (0o700, "0:0", "/root"),
        (0o755, "0:0", "/home"),
        (0o755, "0:0", "/run"),
    ),
    *((0o755, "0:0", f"/var/{name}") for name in ("cache", "lib", "log", "spool")),
    *((0o755, "0:0", f"/{name}") for name in ("opt", "srv", "mnt", "media")),
)


class Userland:
    """The host's part of such a sandbox, looked at once.

    Args:
        host_paths: Further paths that are shown, read-only.
    """

    def __init__(self, host_paths: Iterable[Path] = ()) -> None:
        self.host_paths = tuple(host_paths)
        #: The host's program folders, each with where it links to, or None for a real one.
        self.programs = tuple(_programs())
        #: What of the host's /etc is shown.
        self.etc = tuple(_etc())
        self.has_sources = Path(SOURCES).is_dir()
        self._sealed = (*(f"{name}/" for name in _PROGRAMS), *(f"{path}/" for path in self.host_paths))
        self._sealed_inside = tuple(f"{path}/" for path in self.etc)
        self._accounts: dict[tuple[str, ...], Accounts] = {}

    def is_sealed(self, path: str, *, exists_is_fine: bool = True) -> bool:
        """Tell whether nothing can be made at a path because the host's read-only tree is there.

        Args:
            exists_is_fine: Whether it is enough that the path exists already (to mount on it, say).
        """
        wanted = os.path.normpath(path)
        if f"{wanted}/".startswith(f"{SOURCES}/"):
            return not self.has_sources
        sealed = f"{wanted}/".startswith(self._sealed) or wanted.startswith(self._sealed_inside)
        return sealed and not (exists_is_fine and Path(path).exists())

    def accounts(self, names: Iterable[str]) -> Accounts:
        """Make /etc/passwd and /etc/group: root, the host's system users and groups, ``agent`` and the given ones."""
        key = tuple(dict.fromkeys((AGENT, *names)))
        if key not in self._accounts:
            self._accounts[key] = _make_accounts(key)
        return self._accounts[key]


def _programs() -> Iterator[tuple[str, str | None]]:
    for name in _PROGRAMS:
        path = Path(name)
        if path.is_symlink():
            yield name, str(path.readlink())
        elif path.is_dir():
            yield name, None


def _etc() -> Iterator[str]:
    found = [Path("/etc", name) for name in _ETC]
    found.extend(path for pattern in _ETC_PATTERNS for path in sorted(Path("/etc").glob(pattern)))
    for path in found:
        if path.exists() and os.access(path, os.R_OK):
            yield str(path)


def skeleton() -> tuple[tuple[int, str, str], ...]:
    """List the directories (mode, owner, path) of a fresh file tree, parents first."""
    return _DIRECTORIES


@dataclass(frozen=True, kw_only=True)
class Accounts:
    """Contents of two files, and (owner, path) of the home folders to make."""

    passwd: str
    group: str
    homes: tuple[tuple[str, str], ...]


def _make_accounts(names: tuple[str, ...]) -> Accounts:
    shell = next((path for path in ("/bin/bash", "/bin/sh") if Path(path).exists()), "/bin/sh")
    users = [f"root:x:0:0:root:/root:{shell}"]
    groups = ["root:x:0:"]
    known = {"root"}
    for user in pwd.getpwall():
        if (0 < user.pw_uid < _FIRST_ID or user.pw_uid == _NOBODY) and user.pw_name not in known:
            known.add(user.pw_name)
            users.append(f"{user.pw_name}:x:{user.pw_uid}:{user.pw_gid}:{user.pw_name}:{user.pw_dir}:{user.pw_shell}")
    group_names = {"root"}
    for group in grp.getgrall():
        if (0 < group.gr_gid < _FIRST_ID or group.gr_gid == _NOBODY) and group.gr_name not in group_names:
            group_names.add(group.gr_name)
            groups.append(f"{group.gr_name}:x:{group.gr_gid}:")
    homes: list[tuple[str, str]] = []
    for name in names:
        if name in known:
            continue
        number = _FIRST_ID + len(homes)
        users.append(f"{name}:x:{number}:{number}:{name}:/home/{name}:{shell}")
        if name not in group_names:
            groups.append(f"{name}:x:{number}:")
        homes.append((f"{number}:{number}", f"/home/{name}"))
    return Accounts(passwd="\n".join(users) + "\n", group="\n".join(groups) + "\n", homes=tuple(homes))
