"""A folder of made files: each appears whole or not at all, and is made by one process at a time."""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


def folder() -> Path:
    """Name the folder, which ``$SANDBOXCORE_TEST_CACHE`` sets."""
    return Path(os.environ.get("SANDBOXCORE_TEST_CACHE") or Path.home() / ".cache" / "sandboxcore-test-images")


def kept(name: str, make: Callable[[Path], Path]) -> Path:
    """Return a file of the cache, which ``make`` writes in the folder that it is given if it is not there."""
    path = folder() / name
    if path.exists():
        return path
    folder().mkdir(parents=True, exist_ok=True)
    with alone(folder() / f".{name}.lock"):
        if not path.exists():
            with tempfile.TemporaryDirectory(dir=folder(), prefix=".making-") as work:
                make(Path(work)).replace(path)
    return path


@contextmanager
def alone(lock: Path) -> Iterator[None]:
    """Keep other processes out; the kernel opens the lock when its holder dies."""
    with lock.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
