"""A namespace a module on a real cluster, and clients of it."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from sandboxcore_kubernetes import Cluster, ClusterConfig, PodState

from tests.images import reference

BUSYBOX = reference("busybox")


def pod(
    name: str, *, labels: dict[str, str] | None = None, spec: dict[str, Any] | None = None, **container: Any
) -> dict[str, Any]:
    """Describe a pod of one container that sleeps, unless told otherwise."""
    main = {"name": "main", "image": BUSYBOX, "imagePullPolicy": "Never", "command": ["sleep", "3600"], **container}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": labels or {}},
        "spec": {"terminationGracePeriodSeconds": 0, "containers": [main], **(spec or {})},
    }


async def running(cluster: Cluster, *objects: dict[str, Any], timeout: float = 60) -> list[PodState]:
    """Create pods and wait until they are ready."""
    names = [each["metadata"]["name"] for each in objects]
    async with cluster.pods() as watch:
        await asyncio.gather(*(cluster.create(each) for each in objects))

        def ready(_: object) -> list[PodState] | None:
            pods = [watch.get(name) for name in names]
            return [each for each in pods if each is not None and each.ready] if all(p and p.ready for p in pods) else None

        return await watch.wait_for(ready, timeout)


def open_connections(cluster: Cluster) -> list[Any]:
    """Name the connections to the API server that are in use, streams into pods apart."""
    connector: Any = cluster._access.session.connector
    return [handler.transport for handler in connector._acquired if handler.transport is not None]


@pytest.fixture(scope="module")
def namespace(kubeconfig: Path) -> Iterator[str]:
    """Make a namespace for the module's tests, and delete it with all that they left."""
    from tests.cluster import kubectl, make_namespace

    name = f"test-pods-{uuid.uuid4().hex[:8]}"
    make_namespace(name)
    yield name
    kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture
def config(kubeconfig: Path, namespace: str) -> ClusterConfig:
    """Say how the tests' cluster is reached."""
    return ClusterConfig(kubeconfig=str(kubeconfig), namespace=namespace)


@pytest.fixture
async def cluster(config: ClusterConfig) -> AsyncIterator[Cluster]:
    """Connect as the administrator."""
    async with await Cluster.connect(config) as client:
        yield client
