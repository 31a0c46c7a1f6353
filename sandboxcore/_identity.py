"""Names for what is made: run ids, environment ids, owners, and the rules that they keep."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping

from .errors import UsageError

__all__ = ("check_labels", "check_run_id", "default_owner", "installed_version", "new_environment_id", "new_run_id")

_BASE32 = "abcdefghijklmnopqrstuvwxyz234567"
#: What every backend can keep as a label: at most 63 characters, as in Kubernetes.
_RUN_ID = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")


def _token(length: int) -> str:
    return "".join(_BASE32[byte & 31] for byte in os.urandom(length))


def new_environment_id() -> str:
    """Make an id of 10 characters that is a legal DNS label: lowercase, a letter first."""
    token = _token(10)
    return token if token[0].isalpha() else new_environment_id()


def new_run_id() -> str:
    """Make an id that sorts by the time (UTC) at which it was made."""
    return time.strftime("r%y%m%d%H%M%S", time.gmtime()) + "-" + _token(5)


def check_run_id(run_id: str) -> str:
    """Return the run id if every backend can keep it as a label.

    Raises:
        UsageError: It has other characters, or too many.
    """
    if not isinstance(run_id, str) or not _RUN_ID.fullmatch(run_id):
        raise UsageError(
            f"run id {run_id!r} can't be used as a label",
            hint="use at most 63 letters, digits, '.', '_' and '-', with a letter or digit at both ends",
        )
    return run_id


def check_labels(labels: Mapping[str, str] | None) -> dict[str, str]:
    """Copy labels, which are text without control characters.

    Raises:
        UsageError: A name or value is something else.
    """
    copy = dict(labels or {})
    for name, value in copy.items():
        if not isinstance(name, str) or not isinstance(value, str) or not name or not (name + value).isprintable():
            raise UsageError(f"label {name!r}: names and values are printable text, and a name is not empty")
    return copy


def default_owner() -> str:
    """Name this process: ``user@host:pid``."""
    import getpass
    import socket

    try:
        user = getpass.getuser()
    except (OSError, KeyError):
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}:{os.getpid()}"


def installed_version(distribution: str = "sandboxcore") -> str:
    """Return the installed version of a distribution; ``0+unknown`` where it runs without being installed."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(distribution)
    except PackageNotFoundError:
        return "0+unknown"
