"""The client's side of many open sandboxes: a fake guest in one process, the client in another."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from typing import Any

__all__ = ("measure",)


def measure(*, count: int) -> dict[str, Any]:
    """Weigh this many sandboxes by resident memory and by what Python allocated."""
    return {"count": count, **{kind: _probe(count, kind) for kind in ("rss", "allocated")}}


def _probe(count: int, kind: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/guest"
        pipe = subprocess.PIPE
        with subprocess.Popen([sys.executable, "-m", "benchmarks.fake_guest", path], stdin=pipe, stdout=pipe) as guest:
            try:
                assert guest.stdout is not None
                guest.stdout.readline()
                command = [sys.executable, "-m", "benchmarks.memory_probe", path, str(count), kind]
                done = subprocess.run(command, stdout=pipe, check=True)
            finally:
                guest.kill()
    found: dict[str, Any] = json.loads(done.stdout)
    return found
