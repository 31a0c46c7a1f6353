"""Remove a cluster: its processes, mounts, control groups, network and data, whatever state it is in."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

from ._cgroup import processes, remove_cgroups
from ._layout import Layout
from ._network import remove_network
from ._processes import alive, stop, wait_for
from ._tools import kubectl

#: Daemons in the order in which they stop.
DAEMONS = (
    "cilium-agent",
    "cilium-operator",
    "policy",
    "proxy",
    "kubelet",
    "scheduler",
    "controllers",
    "apiserver",
    "etcd",
    "containerd",
)
#: Where the controller manager's host-path provisioner makes volumes; it knows no other place.
VOLUMES = Path("/tmp/hostpath_pv")


def remove(layout: Layout, *, purge: bool = False) -> None:
    """Remove everything but images, certificates and programs, and with `purge` those too; idempotent."""
    elsewhere = [*_volumes(layout), *_sockets(layout), *_cached_results(layout), *_log_links(layout)]
    for name in DAEMONS:
        stop(layout, name, grace=0)
    _kill_pods(layout)
    _unmount(layout)
    remove_cgroups(layout)
    remove_network(layout)
    for path in elsewhere:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        path.unlink(missing_ok=True)
    with suppress(OSError):
        VOLUMES.rmdir()
    for name in ("etcd", "containerd", "kubelet", "ipam", "run", "logs", "cni"):
        shutil.rmtree(layout.root / name, ignore_errors=True)
    if purge:
        shutil.rmtree(layout.root, ignore_errors=True)


def _volumes(layout: Layout) -> list[Path]:
    """Name the folders of the cluster's dynamic volumes; without an API server nobody can say, so none."""
    if not alive(layout, "apiserver"):
        return []
    listed = kubectl(layout.kubeconfig, "get", "pv", "-o", "json", "--request-timeout=10s", check=False)
    paths = [Path(item["spec"].get("hostPath", {}).get("path", "/")) for item in json.loads(listed or '{"items": []}')["items"]]
    return [path for path in paths if path.parent == VOLUMES]


def _sockets(layout: Layout) -> list[Path]:
    """Name the shims' sockets, which containerd keeps in a folder that all containerds of a machine share."""
    found = []
    for bundle in (layout.root / "containerd" / "state").glob("io.containerd.runtime.v2.task/*/*/bootstrap.json"):
        with suppress(ValueError):
            found.append(Path(json.loads(bundle.read_text())["address"].removeprefix("unix://")))
    return found


def _cached_results(layout: Layout) -> list[Path]:
    """Name what the network plugins remember of pods."""
    ours = list(Path("/var/lib/cni/results").glob(f"{layout.name}-*-eth0"))
    pods = [path.name.removeprefix(f"{layout.name}-").removesuffix("-eth0") for path in ours]
    return [*ours, *(path.with_name(f"cni-loopback-{pod}-lo") for path, pod in zip(ours, pods, strict=True))]


def _log_links(layout: Layout) -> list[Path]:
    links = Path("/var/log/containers").glob("*.log")
    return [path for path in links if path.is_symlink() and str(path.readlink()).startswith(f"{layout.root}/")]


def _kill_pods(layout: Layout) -> None:
    """Kill the shims, so that nothing is started again, then all that runs in pods."""
    with suppress(OSError):
        _kill({pid for pid in map(int, _pids()) if _is_shim(layout, pid)})
    wait_for("the end of all pods", lambda: not _kill(processes(layout)), timeout=30)


def _pids() -> list[str]:
    return [path.name for path in Path("/proc").glob("[0-9]*")]


def _is_shim(layout: Layout, pid: int) -> bool:
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
    except OSError:
        return False
    return "containerd-shim" in command[0] and str(layout.socket) in command


def _kill(pids: set[int]) -> set[int]:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return pids


def _unmount(layout: Layout) -> None:
    mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    for mount in sorted((path for path in mounts if path.startswith(f"{layout.root}/")), reverse=True):
        subprocess.run(["umount", "--lazy", mount], capture_output=True, check=False)
