"""Client programs on a cluster: kubectl and ctr."""

from __future__ import annotations

import subprocess
from pathlib import Path

from ._build import binaries
from ._layout import ClusterError, Layout


def kubectl(kubeconfig: Path, *argv: str, text: str | None = None, check: bool = True) -> str:
    """Run kubectl and return what it printed; with `check` off, an empty string where it failed.

    Raises:
        ClusterError: it failed.
    """
    return _run(["kubectl", "--kubeconfig", str(kubeconfig), *argv], text, check)


def ctr(layout: Layout, *argv: str, check: bool = True) -> str:
    """Run containerd's own client on the images and containers of Kubernetes; otherwise as `kubectl`."""
    program = str(binaries(layout.programs) / "ctr")
    return _run([program, "-a", str(layout.socket), "-n", "k8s.io", *argv], None, check)


def _run(command: list[str], text: str | None, check: bool) -> str:
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    if done.returncode and check:
        raise ClusterError(f"{Path(command[0]).name} {' '.join(command[3:])}: {done.stderr.strip()[-500:]}")
    return "" if done.returncode else done.stdout
