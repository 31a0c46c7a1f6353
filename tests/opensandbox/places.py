"""Configurations of the backend that work on the test cluster: each makes what it needs, and removes it when the process ends."""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import uuid
from collections.abc import Iterable, Mapping
from typing import Any

from sandboxcore_opensandbox.pools import pool_objects

from tests.opensandbox.kit import IMAGES
from tests.opensandbox.serving import serving

DEBIAN = "sandboxcore.test/debian:1"
BUSYBOX = "sandboxcore.test/busybox:1"
_cleanup = contextlib.ExitStack()


def namespace() -> str:
    """Make a namespace that goes with the process, pools last."""
    from tests.cluster import make_namespace

    name = f"test-opensandbox-{uuid.uuid4().hex[:6]}"
    make_namespace(name)
    _clean_up_at_exit()
    _cleanup.callback(remove_namespace, name)
    return name


@functools.cache
def _clean_up_at_exit() -> None:
    """Have it done before the cluster goes, which was told of the exit when it started."""
    atexit.register(_cleanup.close)


def remove_namespace(name: str) -> None:
    """Remove all of OpenSandbox's in an order that does not hang, and then the namespace."""
    from tests.cluster import kubectl

    for kind in ("batchsandboxes", "pools"):
        kubectl("-n", name, "delete", f"{kind}.sandbox.opensandbox.io", "--all", "--timeout=30s", check=False)
    kubectl("delete", "namespace", name, "--wait=false", check=False)


def make_pool(where: str, name: str, image: str = DEBIAN, **options: Any) -> None:
    """Make a pool there and wait until its buffer is ready."""
    from tests.cluster import kubectl

    objects = pool_objects(name, image, namespace=where, **options)
    kubectl("apply", "--server-side", "-f", "-", text=json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))
    wanted = options.get("buffer", 2)
    jsonpath = f"--for=jsonpath={{.status.available}}={wanted}"
    kubectl("-n", where, "wait", jsonpath, "--timeout=90s", f"pools.sandbox.opensandbox.io/{name}")


@functools.cache
def crd() -> Mapping[str, Any]:
    """Mode ``crd``, from images."""
    from tests.cluster import kubeconfig

    return {"kubeconfig": str(kubeconfig()), "namespace": namespace()}


@functools.cache
def pooled() -> Mapping[str, Any]:
    """Mode ``crd``, all services from one pool whose pods run commands as tasks."""
    from tests.cluster import kubeconfig

    where = namespace()
    make_pool(where, "agents", buffer=3, maximum=10, task_executor=IMAGES["task-executor"])
    return {"kubeconfig": str(kubeconfig()), "namespace": where, "pool": "agents"}


@functools.cache
def server() -> Mapping[str, Any]:
    """Mode ``server``, from images."""
    running = _cleanup.enter_context(serving(namespace()))
    return {"mode": "server", "domain": running.domain, "api_key": running.key}


def left_over(where: str, run_id: str) -> list[str]:
    """Name what still carries a run's label, as kubectl sees it; what is being deleted does not count as left."""
    from tests.cluster import kubectl

    kinds = "pods,services,secrets,configmaps,networkpolicies,persistentvolumeclaims,batchsandboxes.sandbox.opensandbox.io"
    text = kubectl("-n", where, "get", kinds, "-l", f"sandboxcore.dev/run-id={run_id}", "-o", "json")
    return [f"{item['kind']}/{item['metadata']['name']}" for item in _live(json.loads(text)["items"])]


def _live(items: Iterable[Mapping[str, Any]]) -> Iterable[Mapping[str, Any]]:
    return (item for item in items if "deletionTimestamp" not in item["metadata"])
