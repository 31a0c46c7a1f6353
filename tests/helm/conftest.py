"""A namespace a module on a real cluster, and sessions of the Helm backend in it."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sandboxcore import EnvironmentSpec, ServiceSpec, Session
from tests.cluster import helm, kubeconfig, kubectl, make_namespace
from tests.images import reference

#: Everything that a release of the tests may consist of.
KINDS = "pods,services,secrets,configmaps,statefulsets,deployments,jobs,persistentvolumeclaims,networkpolicies,leases,replicasets"

_OWNERS = "jobs,deployments,statefulsets,replicasets,services"


def _name(item: dict[str, Any]) -> str:
    """Name an object as ``kubectl -o name`` does."""
    group = item["apiVersion"].rpartition("/")[0]
    return f"{item['kind'].lower()}{'.' if group else ''}{group}/{item['metadata']['name']}"


def _is_collected(metadata: dict[str, Any], there: set[str]) -> bool:
    """Say whether controllers take an object away when they come to it: whoever had it is gone, and no release names it."""
    if "deletionTimestamp" in metadata and metadata.get("finalizers") == ["kubernetes.io/pvc-protection"]:
        return True
    owners = {owner["uid"] for owner in metadata.get("ownerReferences") or ()}
    return bool(owners) and not owners & there and "app.kubernetes.io/instance" not in (metadata.get("labels") or {})


class Place:
    """A namespace of the tests' own."""

    def __init__(self, namespace: str) -> None:
        self.namespace = namespace

    def config(self, **options: Any) -> dict[str, Any]:
        """Configure the backend for this namespace."""
        defaults: dict[str, Any] = {"namespace": self.namespace, "kubeconfig": str(kubeconfig()), "audit": 0}
        major = options.pop("major", 3)
        return defaults | {"helm": str(helm(major))} | options

    def session(
        self, *, on_event: Callable[[Any], None] | None = None, session: dict[str, Any] | None = None, **options: Any
    ) -> Session:
        """Make a session of the Helm backend here."""
        return Session("helm", config=self.config(**options), on_event=on_event, **(session or {}))

    def kubectl(self, *argv: str, text: str | None = None, check: bool = True) -> str:
        """Run kubectl in the namespace."""
        return kubectl("-n", self.namespace, *argv, text=text, check=check)

    def objects(self, kinds: str = KINDS) -> set[str]:
        """List what is there, except for what every namespace has, and what is Kubernetes' own to collect."""
        found = json.loads(self.kubectl("get", kinds, "-o", "json"))["items"]
        owners = json.loads(self.kubectl("get", _OWNERS, "-o", "json"))["items"]
        there = {item["metadata"]["uid"] for item in owners if "deletionTimestamp" not in item["metadata"]}
        names = {_name(item) for item in found if not _is_collected(item["metadata"], there)}
        return names - {"configmap/kube-root-ca.crt"}

    def get(self, what: str) -> dict[str, Any]:
        """Read an object."""
        found: dict[str, Any] = json.loads(self.kubectl("get", what, "-o", "json"))
        return found

    def helm(self, major: int, *argv: str) -> str:
        """Run Helm 3 or 4 in the namespace.

        Raises:
            AssertionError: It failed.
        """
        import subprocess

        command = [str(helm(major)), *argv, "--namespace", self.namespace, "--kubeconfig", str(kubeconfig())]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"helm {' '.join(argv)}: {done.stderr}"
        return done.stdout


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    """Make a namespace for the module's tests."""
    namespace = f"test-helm-{uuid.uuid4().hex[:6]}"
    make_namespace(namespace)
    yield Place(namespace)
    kubectl("delete", "namespace", namespace, "--wait=false")


@pytest.fixture
def busybox() -> EnvironmentSpec:
    """Describe one sandbox of the built-in chart."""
    service = ServiceSpec(image=reference("busybox"), command=("sleep", "infinity"), pull_policy="never")
    return EnvironmentSpec(services={"default": service})


@pytest.fixture
def own() -> Callable[..., EnvironmentSpec]:
    """Describe an environment of a chart of one's own."""

    def describe(chart: Path | str, **options: Any) -> EnvironmentSpec:
        return EnvironmentSpec(services={"default": ServiceSpec()}, options={"helm": {"chart": str(chart), **options}})

    return describe
