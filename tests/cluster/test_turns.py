"""Who breaks the cluster has it alone."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

#: Takes the turns that its arguments name, one a line of its input, and says when it has each.
TAKING = """import sys
from tests.cluster import use
for line in sys.stdin:
    use(alone=line == "alone\\n")
    print("has it", flush=True)
"""


class _Run:
    """A test run, as far as turns go."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def asks(self, turn: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{turn}\n")

    def gets_it(self) -> bool:
        assert self._process.stdout is not None
        return self._process.stdout.readline() == "has it\n"

    def waits(self) -> None:
        """Return as soon as the kernel lets it wait for a lock."""
        while not any(
            "->" in line and line.split()[5] == str(self._process.pid) for line in Path("/proc/locks").read_text().splitlines()
        ):
            time.sleep(0.02)

    def ends(self) -> None:
        self._process.kill()
        self._process.wait()


@contextmanager
def _run(place: Path) -> Iterator[_Run]:
    # Whatever cluster this run has, it is about one of our own.
    environ = os.environ | {"SANDBOXCORE_TEST_CLUSTER": str(place), "SANDBOXCORE_TEST_CNI": "bridge"}
    environ.pop("SANDBOXCORE_TEST_KUBECONFIG", None)
    command, pipe = [sys.executable, "-c", TAKING], subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, bufsize=1, env=environ, cwd=ROOT) as process:
        try:
            yield _Run(process)
        finally:
            process.kill()


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="only root on Linux has a cluster of its own")
@pytest.mark.timeout(60)
def test_who_breaks_the_cluster_has_it_alone(tmp_path: Path) -> None:
    with _run(tmp_path) as one, _run(tmp_path) as two, _run(tmp_path) as breaks:
        for run in (one, two):
            run.asks("shared")
            assert run.gets_it()
        breaks.asks("alone")
        breaks.waits()
        one.ends()
        two.ends()
        assert breaks.gets_it()
        with _run(tmp_path) as three:
            three.asks("shared")
            three.waits()
            breaks.asks("shared")
            assert breaks.gets_it()
            assert three.gets_it()
