"""Tiers: what a test needs of the machine. One that can't be had skips its tests, and fails them where ``CI`` is set.

A tier is started when the first test that needs it is about to run, and once a test run.
"""

from __future__ import annotations

import functools
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Generator, Mapping
from pathlib import Path

import pytest

import hatch_build

HERE = Path(__file__).parent

#: Folders of tests/ in which every test needs a tier. Single tests elsewhere say ``@pytest.mark.tier(name)``;
#: ``@pytest.mark.tier("none")`` frees one of its folder's.
FOLDERS = {
    "local": "local",
    "docker": "docker",
    "kubernetes": "kubernetes",
    "helm": "kubernetes",
    "faults": "kubernetes",
    "opensandbox": "opensandbox",
}

#: Tiers whose tests run in pods, and mostly wait for them.
ON_A_CLUSTER = {"kubernetes", "opensandbox"}

#: Folders of tests/ whose tests stop parts of the cluster: other test runs on it wait for them.
BREAKING = {"cluster", "faults"}


def _local() -> str:
    if sys.platform != "linux":
        return f"sandboxes of the local backend need Linux; this is {sys.platform}"
    unshare = shutil.which("unshare")
    if unshare is None:
        return ""
    tried = subprocess.run([unshare, "--user", "--map-root-user", "true"], capture_output=True, text=True, check=False)
    return f"no user namespace can be made: {tried.stderr.strip()}" if tried.returncode else ""


def _docker() -> str:
    from tests.engine import probe

    return probe()


def _kubernetes() -> str:
    from tests.cluster import probe

    return probe()


def _cilium() -> str:
    from tests.cluster import probe

    return _without_cilium() or probe()


def _without_cilium() -> str:
    from tests.cluster import without_cilium

    return without_cilium()


def _opensandbox() -> str:
    from tests.opensandbox.kit import probe

    return probe()


def _without_opensandbox() -> str:
    from tests.opensandbox.kit import missing

    return missing()


#: Tier to a probe that starts what it needs, and returns why it can't run here, or nothing.
TIERS: Mapping[str, Callable[[], str]] = {
    "local": _local,
    "docker": _docker,
    "kubernetes": _kubernetes,
    "cilium": _cilium,
    "opensandbox": _opensandbox,
}

#: Tiers that need what is not to be had everywhere, each with what says that this is so: then it is skipped in CI, too.
MAY_BE_MISSING: Mapping[str, Callable[[], str]] = {"cilium": _without_cilium, "opensandbox": _without_opensandbox}


@functools.cache
def _problem(tier: str) -> str:
    try:
        return TIERS[tier]()
    except Exception as error:
        return f"looking for it failed: {error!r}"


def _tiers(item: pytest.Item) -> set[str]:
    named = {str(mark.args[0]) for mark in item.iter_markers("tier")}
    folder = _folder(item)
    of_folder = {FOLDERS[folder]} if folder in FOLDERS and "none" not in named else set()
    return (named | of_folder) - {"none"}


def pytest_configure() -> None:
    """Refuse to test other native programs than those of the sources.

    Ctrl-C is taken also where it is ignored, as in a shell's background: programs that tests start and interrupt inherit that.
    """
    try:
        hatch_build.demand_fresh(HERE.parent)
    except hatch_build.BuildError as error:
        raise pytest.UsageError(str(error)) from None
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    told = "only the tests that need no cluster, those that need one, or those that need OpenSandbox on it; together, all tests"
    parser.addoption("--cluster", choices=("without", *sorted(ON_A_CLUSTER)), help=told)


def _folder(item: pytest.Item) -> str:
    return item.path.relative_to(HERE).parts[0]


def _breaks(item: pytest.Item) -> bool:
    return _folder(item) in BREAKING


def _share(item: pytest.Item) -> str:
    """Say which ``--cluster`` a test belongs to."""
    return max(_tiers(item) & ON_A_CLUSTER, key=list(TIERS).index, default="without")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Choose by ``--cluster``; put files that need more of the machine last, so that an engine slows down nothing without.

    Of those on a cluster the ones that break it are first, before another run wants it. The runs of the contract on OpenSandbox,
    which fill the machine, are last: those on Helm, in another process, are early.
    """
    wanted = config.getoption("--cluster")
    if wanted is not None:
        kept = [item for item in items if _share(item) == wanted]
        config.hook.pytest_deselected(items=list(set(items).difference(kept)))
        items[:] = kept
    order = list(TIERS)
    needs: dict[Path, int] = {}
    for item in items:
        most = max((order.index(tier) for tier in _tiers(item)), default=0)
        needs[item.path] = max(most, needs.get(item.path, 0))
    last = order.index("opensandbox")
    items.sort(key=lambda item: (needs[item.path], not _breaks(item), needs[item.path] == last and _folder(item) == "e2e"))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Start the test's tiers before its time limit begins: a first start may have to install and to build."""
    if _share(item) != "without":
        from tests.cluster import use

        use(alone=_breaks(item))
    for tier in sorted(_tiers(item)):
        _problem(tier)
    return (yield)


def pytest_runtest_setup(item: pytest.Item) -> None:
    for tier in sorted(_tiers(item)):
        reason = _problem(tier)
        if reason and os.environ.get("CI") and not (tier in MAY_BE_MISSING and MAY_BE_MISSING[tier]()):
            pytest.fail(f"tier {tier} can't run here, and in CI it must: {reason}", pytrace=False)
        if reason:
            pytest.skip(f"tier {tier}: {reason}")


@pytest.fixture(scope="session")
def docker_host() -> str:
    """Give the address of the Docker engine (tier ``docker``), which is in ``DOCKER_HOST`` too."""
    from tests.engine import docker_host

    return docker_host()


@pytest.fixture(scope="session")
def kubeconfig() -> Path:
    """Give the path of an admin's kubeconfig of the test cluster (tier ``kubernetes``)."""
    from tests.cluster import kubeconfig

    return kubeconfig()


@pytest.fixture(scope="session")
def images() -> Mapping[str, str]:
    """Name the test images as an ``image`` does, by the names that ``tests.images`` gives them."""
    from tests.images import NAMES, reference

    return {name: reference(name) for name in NAMES}
