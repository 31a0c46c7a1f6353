"""What it costs to import the package and to start the command line, in processor time."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from .timing import in_turns

__all__ = ("measure",)

PROGRAMS = {
    "python -c pass": ("-c", "pass"),
    "import asyncio": ("-c", "import asyncio"),
    "import pydantic": ("-c", "import pydantic"),
    "import sandboxcore": ("-c", "import sandboxcore"),
    "sandboxcore.Session": ("-c", "import sandboxcore; sandboxcore.Session"),
    "sandboxcore --help": ("-m", "sandboxcore", "--help"),
}
_LIST = """
import sys
before = set(sys.modules)
import sandboxcore, json
new = {name.partition('.')[0] for name in set(sys.modules) - before}
print(json.dumps(sorted(name for name in new if name not in sys.stdlib_module_names and not name.startswith('_'))))
"""


def measure(*, passes: int) -> dict[str, Any]:
    """Run each program many times, in turns, and take the median of its user and system time."""
    times: dict[str, list[float]] = {name: [] for name in PROGRAMS}
    for name in PROGRAMS:
        _cpu_ms(*PROGRAMS[name])  # writes its bytecode
    for name in in_turns(list(PROGRAMS), passes):
        times[name].append(_cpu_ms(*PROGRAMS[name]))
    listed = subprocess.run([sys.executable, "-c", _LIST], capture_output=True, check=True)
    return {
        "cpu_ms": {name: statistics.median(values) for name, values in times.items()},
        "modules": json.loads(listed.stdout),
    }


def _cpu_ms(*arguments: str) -> float:
    with Path(os.devnull).open("wb") as nothing:
        actions = [(os.POSIX_SPAWN_DUP2, nothing.fileno(), 1)]
        pid = os.posix_spawn(sys.executable, (sys.executable, *arguments), os.environ, file_actions=actions)
        _, status, usage = os.wait4(pid, 0)
    if os.waitstatus_to_exitcode(status):
        raise RuntimeError(f"python {' '.join(arguments)} failed")
    return 1e3 * (usage.ru_utime + usage.ru_stime)
