"""Waiting for a quiet machine: pods that are gone for the API server go on costing the node for seconds."""

from __future__ import annotations

import time
from pathlib import Path

__all__ = ("settle",)

_IDLE = 0.85
_SECONDS = 2.0
_PATIENCE = 60.0


def settle() -> None:
    """Wait until the processors have little to do, for a minute at most."""
    until = time.monotonic() + _PATIENCE
    idle, whole = _ticks()
    while time.monotonic() < until:
        time.sleep(_SECONDS)
        idle_now, whole_now = _ticks()
        if idle_now - idle >= _IDLE * (whole_now - whole):
            return
        idle, whole = idle_now, whole_now


def _ticks() -> tuple[int, int]:
    """Return what the processors have idled so far, and all that has passed for them."""
    ticks = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return ticks[3] + ticks[4], sum(ticks)
