"""Where the adapter is tried: each backend, with sandboxes whose user is root and others whose user is not."""

from __future__ import annotations

import contextlib
import functools
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import pytest

IDLE = ["tail", "-f", "/dev/null"]
Config = Mapping[str, Any]


@dataclass(frozen=True)
class Place:
    """A backend, and an image or a user of it.

    Args:
        config: Makes what a ``SandboxcoreConfig`` needs beside the backend's name, and takes away what it made for that.
        root: Whether commands run as root.
        cannot: Names of Inspect's checks that can't pass there, with the reason.
    """

    name: str
    backend: str
    tier: str
    config: Callable[[], AbstractContextManager[Config]]
    root: bool
    cannot: Mapping[str, str] = field(default_factory=dict)

    @property
    def expected_failures(self) -> Mapping[str, str]:
        """Name the checks that can't pass, with the reason."""
        return {**(OF_ROOT if self.root else {}), **self.cannot}


#: What root may do, whatever the file's mode says; Inspect lists these two for its own Docker provider as well.
OF_ROOT = {
    "test_write_text_file_without_permissions": "root may write to every file",
    "test_write_binary_file_without_permissions": "root may write to every file",
}
#: Inspect's own provider for Kubernetes lists it as well.
OF_PODS = {"test_exec_as_user": "Kubernetes starts commands as the user of the container, and only root can become another one"}


def _spec(**service: Any) -> Config:
    return {"spec": {"services": {"default": service}}}


@contextlib.contextmanager
def _plain(**service: Any) -> Iterator[Config]:
    yield _spec(**service)


@contextlib.contextmanager
def namespace() -> Iterator[Config]:
    """Make a namespace on the cluster; gives the configuration of a backend that works in it."""
    from tests.cluster import helm, kubeconfig, kubectl, make_namespace

    name = f"test-inspect-{uuid.uuid4().hex[:6]}"
    make_namespace(name)
    try:
        yield {"kubeconfig": str(kubeconfig()), "namespace": name, "helm": str(helm(3))}
    finally:
        kubectl("delete", "namespace", name, "--wait=false")


@contextlib.contextmanager
def _helm(image: str) -> Iterator[Config]:
    with namespace() as options:
        yield {**_spec(image=image, command=IDLE), "options": options}


@contextlib.contextmanager
def _opensandbox(mode: str) -> Iterator[Config]:
    from tests.opensandbox import places

    options = dict(getattr(places, mode)())
    # What comes from a pool has the pool's image.
    yield {**(_spec() if mode == "pooled" else _spec(image=DEBIAN, command=IDLE)), "options": options}


DEBIAN, NONROOT = "sandboxcore.test/debian:1", "sandboxcore.test/nonroot:1"
PLACES = (
    Place("local-root", "local", "local", _plain, root=True),
    Place("local-agent", "local", "local", lambda: _plain(user="agent", working_dir="/home/agent"), root=False),
    Place("docker-root", "docker", "docker", lambda: _plain(image=DEBIAN, command=IDLE), root=True),
    Place("docker-nonroot", "docker", "docker", lambda: _plain(image=NONROOT, command=IDLE), root=False),
    Place("helm-root", "helm", "kubernetes", lambda: _helm(DEBIAN), root=True),
    Place("helm-nonroot", "helm", "kubernetes", lambda: _helm(NONROOT), root=False, cannot=OF_PODS),
    *(
        Place(f"opensandbox-{mode}", "opensandbox", "opensandbox", functools.partial(_opensandbox, mode), root=True)
        for mode in ("crd", "pooled", "server")
    ),
)
EACH_PLACE = [pytest.param(place, id=place.name, marks=pytest.mark.tier(place.tier)) for place in PLACES]
