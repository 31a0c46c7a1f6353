"""Programs of the cluster: Debian packages, and Go programs built from pinned modules."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.images._packages import ensure

from ._layout import HERE, ClusterError

KUBERNETES = "1.34.4"
#: Program to module. Debian 12's own containerd 1.6 hangs when some fifty commands start at once.
MODULES = {
    "containerd": "github.com/containerd/containerd/v2/cmd/containerd@v2.2.9",
    "containerd-shim-runc-v2": "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2@v2.2.9",
    "ctr": "github.com/containerd/containerd/v2/cmd/ctr@v2.2.9",
    "coredns": "github.com/coredns/coredns@v1.14.7",
    "helm3": "helm.sh/helm/v3/cmd/helm@v3.22.0",
    "helm4": "helm.sh/helm/v4/cmd/helm@v4.3.1",
}
#: Program to the Debian package that has it.
PACKAGES = {
    "runc": "runc",
    "iptables": "iptables",
    "conntrack": "conntrack",
    "openssl": "openssl",
    "ip": "iproute2",
    "nsenter": "util-linux",
    "kubectl": "kubernetes-client",
}
#: The network plugins of Debian lie outside of PATH.
CNI = Path("/usr/lib/cni")


def install_packages() -> None:
    """Install what is missing of the Debian packages.

    Raises:
        ClusterError: one is missing and can't be installed; others may have been.
    """
    plugins = {} if (CNI / "bridge").exists() else {"cni plugins": "containernetworking-plugins"}
    problem = ensure(PACKAGES | plugins)
    # `ensure` looks for programs in PATH, where the plugins never are.
    if problem and not ((CNI / "bridge").exists() and problem.endswith("did not bring cni plugins")):
        raise ClusterError(problem)


def binaries(root: Path) -> Path:
    """Name the folder of built programs; it changes with the sources of the node."""
    digest = hashlib.sha256(KUBERNETES.encode())
    for name in ("main.go", "go.mod", "go.sum"):
        digest.update((HERE / "node" / name).read_bytes())
    return root / "bin" / digest.hexdigest()[:12]


def build(root: Path, names: tuple[str, ...] = ("kube-node", *MODULES)) -> Path:
    """Build what is missing of the named programs (minutes, once) and return their folder; safe to run twice at once.

    Raises:
        ClusterError: Go is missing, or a program can't be built; those built before it stay.
    """
    folder = binaries(root)
    if all(_is_built(folder, name) for name in names):
        return folder
    if not shutil.which("go"):
        raise ClusterError("Go is not installed (the cluster's programs are built from source)")
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        with locked(root / "build.lock"):
            if not _is_built(folder, name):
                _build_one(folder, name)
    return folder


def _is_built(folder: Path, name: str) -> bool:
    """Say whether a program is there, and from the module that is wanted now (one without a stamp counts)."""
    stamp = folder / f"{name}.module"
    return (folder / name).exists() and (not stamp.exists() or stamp.read_text() == MODULES.get(name, ""))


def _build_one(folder: Path, name: str) -> None:
    print(f"building {name} (once)", file=sys.stderr, flush=True)  # noqa: T201
    environment = os.environ | {"CGO_ENABLED": "0", "GOBIN": str(folder / "part"), "GOFLAGS": "", "GOWORK": "off"}
    if name == "kube-node":
        argv = ["go", "build", "-trimpath", "-ldflags", _kubernetes_stamp(), "-o", str(folder / "part" / name), "."]
        made, where = folder / "part" / name, HERE / "node"
    else:
        module, version = MODULES[name].split("@")
        stamp = f"-X {'/'.join(module.split('/')[:3])}/internal/version.version={version}" if "helm" in name else ""
        argv = ["go", "install", "-trimpath", "-ldflags", f"-s -w {stamp}", MODULES[name]]
        made, where = folder / "part" / module.rsplit("/", 1)[1], folder
    done = subprocess.run(["nice", *argv], cwd=where, env=environment, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    if done.returncode:
        raise ClusterError(f"building {name} failed: {done.stderr.decode(errors='replace').strip()[-500:]}")
    made.rename(folder / name)
    if name in MODULES:
        (folder / f"{name}.module").write_text(MODULES[name])


def _kubernetes_stamp() -> str:
    major, minor, _ = KUBERNETES.split(".")
    words = [
        f"-X {package}.git{key}={value}"
        for package in ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
        for key, value in (("Version", f"v{KUBERNETES}"), ("Major", major), ("Minor", minor))
    ]
    return " ".join(["-s", "-w", *words])


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a file's lock, alone on this machine; the kernel lets go of it when the process dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
