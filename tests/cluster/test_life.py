"""The life of our own cluster, on a second one beside the tests': it starts, is killed, and leaves nothing."""

from __future__ import annotations

import contextlib
import os
import subprocess
from pathlib import Path

import pytest

from tests.cluster import _node, own
from tests.cluster._build import binaries, build
from tests.cluster._cgroup import processes
from tests.cluster._layout import Layout
from tests.cluster._processes import alive, stop
from tests.cluster._remove import remove
from tests.cluster._tools import kubectl

pytestmark = [pytest.mark.tier("kubernetes"), pytest.mark.timeout(400)]


@pytest.fixture
def second(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    """Lay out a cluster beside the one that runs, with its programs."""
    first = own()
    if first is None:
        pytest.skip("this cluster is not ours")
    return Layout(tmp_path_factory.mktemp("second"), first.cni, first.programs)


def traces(layout: Layout) -> list[str]:
    """Name all that the machine has of a cluster outside of its folder."""
    commands = [["ip", "link"], ["ip", "route"], ["ip", "netns"], ["ps", "-e", "-o", "args"], ["iptables-save"], ["mount"]]
    lines = [line for command in commands for line in subprocess.check_output(command, text=True).splitlines()]
    words = [layout.name, str(layout.root), *([f"{layout.prefix}."] if layout.prefix else [])]
    found = [line for line in lines if any(word in line for word in words)]
    for folder in ("/sys/fs/cgroup", "/var/lib/cni/results"):
        # Not glob(), which stumbles over what another cluster removes meanwhile.
        for place, folders, files in os.walk(folder):
            found += [f"{place}/{name}" for name in (*folders, *files) if name.startswith(layout.name)]
    for link in Path("/var/log/containers").glob("*"):
        with contextlib.suppress(FileNotFoundError):
            found += [str(link)] if str(layout.root) in str(link.readlink()) else []
    return found


def test_a_killed_cluster_is_cleaned_away_and_started_again(second: Layout) -> None:
    assert traces(second) == []
    try:
        _node.up(second)
        first = {name: alive(second, name) for name in _node.daemons(second)}
        assert all(first.values())
        assert processes(second)
        kubectl(second.kubeconfig, "create", "namespace", "old")
        _node.up(second)
        assert {name: alive(second, name) for name in _node.daemons(second)} == first, "a second `up` is not a no-op"
        for name in _node.daemons(second):
            stop(second, name, grace=0)
        assert traces(second), "nothing is found of a cluster that was killed, so nothing would be missed"
        _node.up(second)
        assert kubectl(second.kubeconfig, "get", "namespace", "old", "--ignore-not-found") == ""
    finally:
        remove(second)
    assert traces(second) == []
    remove(second)


def test_a_purged_cluster_leaves_no_folder(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "cluster")
    layout.root.mkdir()
    remove(layout, purge=True)
    assert not layout.root.exists()


def test_what_is_built_is_not_built_again(second: Layout) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in binaries(second.programs).iterdir()}
    assert build(second.programs) == binaries(second.programs)
    assert {path.name: path.stat().st_mtime_ns for path in binaries(second.programs).iterdir()} == before
