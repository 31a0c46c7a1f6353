"""What tests ask of a cluster, whichever it is: a given one, one of `kind`, or our own."""

from __future__ import annotations

import atexit
import fcntl
import functools
import os
import shutil
import sys
from pathlib import Path
from typing import IO

from . import _given, _images, _node
from ._build import build, locked
from ._cilium import build_cilium
from ._layout import CNI, ClusterError, Layout, default_layout
from ._processes import wait_for
from ._remove import remove
from ._tools import kubectl as run_kubectl

GIVEN = "SANDBOXCORE_TEST_KUBECONFIG"
#: What this process holds, as long as it uses our own cluster.
_held: list[IO[str]] = []


@functools.cache
def probe() -> str:
    """Start the cluster if need be, with the images of the tests; returns why there is none, in one line, or nothing.

    Our own takes minutes to build once on a machine, and 20 seconds to start. What was started here is stopped when
    this process ends, unless another test run uses it too: then by the last of them.
    """
    try:
        if given := os.environ.get(GIVEN):
            return _given.problem_of(Path(given))
        if _has_kind():
            with locked(default_layout().root / "up.lock"):
                os.environ[GIVEN] = str(_given.start_kind(_images.images_of_tests()))
            return ""
        return _own_problem() or _start()
    except ClusterError as error:
        return str(error)


def without_cilium() -> str:
    """Say that the cluster is to be one without Cilium, or nothing."""
    layout = own()
    if layout is None or layout.cni != "cilium":
        return f"the cluster has no Cilium; {CNI}=cilium makes one that has (some 10 minutes more, once on a machine)"
    return ""


def _has_kind() -> bool:
    """Say whether `kind` makes the cluster: not one whose network is chosen."""
    return not os.environ.get(CNI) and shutil.which("kind") is not None


def _own_problem() -> str:
    if sys.platform != "linux":
        return f"a cluster needs Linux; this is {sys.platform} (give one in {GIVEN})"
    if os.geteuid() != 0:
        return f"a cluster can be started by root only (give one in {GIVEN})"
    return ""


def _start() -> str:
    layout = default_layout()
    build(layout.programs)
    if layout.cni == "cilium":
        build_cilium(layout.programs)
    with locked(layout.root / "up.lock"):
        started = not _node.running(layout)
        _hold(layout)
        _node.up(layout)
        if started:
            (layout.root / "run" / "by-tests").touch()
    atexit.register(stop)
    for name in ("NO_PROXY", "no_proxy"):
        os.environ[name] = ",".join(filter(None, [os.environ.get(name), layout.network]))
    return ""


def _hold(layout: Layout) -> None:
    held = (layout.root / "users.lock").open("a")
    fcntl.flock(held, fcntl.LOCK_SH)
    _held.append(held)


def use(*, alone: bool) -> None:
    """Wait until this process may use our own cluster, by itself or beside others; so it may until it ends or asks again."""
    try:
        layout = own()
    except ClusterError:  # `probe` says so
        return
    if layout is None or _own_problem():
        return
    _turn(layout.root, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)


@functools.lru_cache(1)  # asked anew only where it changes
def _turn(root: Path, kind: int) -> None:
    fcntl.flock(_turns(root), kind)


@functools.cache
def _turns(root: Path) -> IO[str]:
    root.mkdir(parents=True, exist_ok=True)
    file = (root / "turns.lock").open("a")
    atexit.register(file.close)
    return file


def stop() -> None:
    """Remove the cluster if tests started it and no other test run uses it; idempotent."""
    layout = default_layout()
    while _held:
        _held.pop().close()
    with locked(layout.root / "up.lock"), (layout.root / "users.lock").open("a") as users:
        try:
            fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        if (layout.root / "run" / "by-tests").exists():
            remove(layout)
    probe.cache_clear()


def own() -> Layout | None:
    """Return the cluster if it is our own, which can be disturbed and looked into."""
    return None if os.environ.get(GIVEN) or _has_kind() else default_layout()


def kubeconfig() -> Path:
    """Return the path of an admin's kubeconfig.

    Raises:
        ClusterError: there is no cluster; as `probe` says.
    """
    problem = probe()
    if problem:
        raise ClusterError(problem)
    given = os.environ.get(GIVEN)
    return Path(given) if given else default_layout().kubeconfig


def kubectl(*argv: str, text: str | None = None, check: bool = True) -> str:
    """Run kubectl and return what it printed; with `check` off, an empty string where it failed.

    Raises:
        ClusterError: it failed, or there is no cluster.
    """
    return run_kubectl(kubeconfig(), *argv, text=text, check=check)


def make_namespace(name: str) -> None:
    """Make a namespace in which pods can be made: a new one has no account and no root certificate yet, which each pod needs.

    Raises:
        ClusterError: it can't be made, or does not get them in a minute and a half.
    """
    kubectl("create", "namespace", name)
    given = ["get", "serviceaccount/default", "configmap/kube-root-ca.crt", "-o", "name"]
    wait_for(f"an account in namespace {name}", lambda: kubectl("-n", name, *given, check=False), timeout=90)


def helm(major: int) -> Path:
    """Return the path of Helm 3 or 4, built if need be.

    Raises:
        ClusterError: it can't be built.
    """
    return build(default_layout().programs, (f"helm{major}",)) / f"helm{major}"


def load(archive: Path) -> None:
    """Load an archive of images (`docker save`, or OCI) into the cluster.

    Raises:
        ClusterError: it can't be loaded.
    """
    layout = own()
    if layout:
        _images.load(layout, archive)
    else:
        _given.load(archive)
