"""Hold an engine with the test images until interrupted, and print its address."""

from __future__ import annotations

import signal
import sys

from tests.engine import docker_host, probe


def main() -> int:
    problem = probe()
    if problem:
        sys.stderr.write(f"tests.engine: {problem}\n")
        return 1
    sys.stdout.write(f"{docker_host()}\n")
    sys.stdout.flush()
    signal.sigwait({signal.SIGINT, signal.SIGTERM})
    return 0


if __name__ == "__main__":
    sys.exit(main())
