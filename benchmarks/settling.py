"""What contenders in processes of their own measure by: a quiet machine to begin on, and the processor time that they take."""

from __future__ import annotations

import os
import time
from pathlib import Path

__all__ = ("processor_seconds", "settle")

_IDLE = 0.85
_SECONDS = 2.0
_PATIENCE = 60.0


def settle() -> None:
    """Wait until the processors have little to do, for a minute at most: a node works on pods for seconds after they are gone."""
    until = time.monotonic() + _PATIENCE
    idle, whole = _ticks()
    while time.monotonic() < until:
        time.sleep(_SECONDS)
        idle_now, whole_now = _ticks()
        if idle_now - idle >= _IDLE * (whole_now - whole):
            return
        idle, whole = idle_now, whole_now


def processor_seconds() -> float:
    """Return the processor seconds of this client so far, those of the programs that it ran included."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _ticks() -> tuple[int, int]:
    """Return what the processors have idled so far, and all that has passed for them."""
    ticks = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return ticks[3] + ticks[4], sum(ticks)
