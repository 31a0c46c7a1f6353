"""Programs of the machine that the tests' machinery needs, installed where that is possible."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from tests.images._cache import alone


class ImageError(Exception):
    """An image can't be made here; the message is one line for people."""


def can_install() -> bool:
    """Tell whether packages of Debian can be installed: by root, with apt-get."""
    return os.geteuid() == 0 and shutil.which("apt-get") is not None


def ensure(programs: Mapping[str, str]) -> str:
    """Install the packages (values, parted by blanks) of the programs (keys) that are missing.

    Returns:
        What is still missing and why, in one line; empty if all is there.
    """
    if not _missing(programs):
        return ""
    with alone(Path(tempfile.gettempdir(), f"sandboxcore-test-apt-{os.getuid()}.lock")):
        packages = _missing(programs)
        if not packages:
            return ""
        wanted = f"apt-get install {' '.join(packages)}"
        if not can_install():
            return f"{', '.join(p for p in programs if not found(p))} missing; as root: {wanted}"
        problem = _apt_get("update") or _apt_get("install", "--yes", "--no-install-recommends", *packages)
        if problem:
            return f"{wanted} failed: {problem}"
    left = [program for program in programs if not found(program)]
    return f"{wanted} did not bring {', '.join(left)}" if left else ""


def found(program: str) -> str | None:
    """Find a program, also where only root's PATH leads."""
    return shutil.which(program, path=os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"]))


def _missing(programs: Mapping[str, str]) -> list[str]:
    return sorted({package for program, packages in programs.items() if not found(program) for package in packages.split()})


def _apt_get(*arguments: str) -> str:
    """Run it, waiting for another one that holds its lock; returns the last line that it wrote if it failed."""
    command = ["apt-get", "--quiet", "--quiet", "--option", "DPkg::Lock::Timeout=300", *arguments]
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}
    done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    return (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1] if done.returncode else ""
