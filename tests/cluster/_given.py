"""Clusters that are not our own: one whose kubeconfig is given, and one of `kind` (Kubernetes in Docker)."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from ._layout import ClusterError, default_layout
from ._tools import kubectl

KIND = "sandboxcore-test"
#: A command that loads an image archive into a given cluster, whose path is added to it.
LOAD = "SANDBOXCORE_TEST_LOAD"


def problem_of(kubeconfig: Path) -> str:
    """Say why a given cluster can't be used, in one line, or nothing."""
    if not kubeconfig.is_file():
        return f"there is no kubeconfig {kubeconfig}"
    try:
        kubectl(kubeconfig, "get", "--raw", "/readyz", "--request-timeout=20s")
    except ClusterError as error:
        return str(error)
    return ""


def start_kind(archives: Sequence[Path]) -> Path:
    """Start the tests' cluster of `kind`, or take the one that is there, and return its kubeconfig."""
    path = default_layout().root / "kind.kubeconfig"
    path.parent.mkdir(parents=True, exist_ok=True)
    if KIND in _run("kind", "get", "clusters").split():
        _run("kind", "export", "kubeconfig", "--name", KIND, "--kubeconfig", str(path))
    else:
        _run("kind", "create", "cluster", "--name", KIND, "--kubeconfig", str(path), "--wait", "120s")
    for archive in archives:
        load(archive)
    return path


def load(archive: Path) -> None:
    """Load an archive of images into the given cluster; where nobody said how, its images must be there already."""
    command = shlex.split(os.environ.get(LOAD, ""))
    if not command and shutil.which("kind"):
        command = ["kind", "load", "image-archive", "--name", KIND]
    if command:
        _run(*command, str(archive))


def _run(*command: str) -> str:
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ClusterError(f"{' '.join(command)}: {done.stderr.strip()[-300:]}")
    return done.stdout
