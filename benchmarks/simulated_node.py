"""A node with room for every pod, whose pods are ready a second after they were bound and gone as soon as they are told to go.

It takes the place of a kubelet, as kubemark and KWOK do, so that a benchmark can tell what a client costs from what starting
containers costs; API server, scheduler and controllers are the real ones. Nothing runs in its pods.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sandboxcore_kubernetes import Cluster, ClusterConfig
from sandboxcore_kubernetes.cluster import MERGE_PATCH
from sandboxcore_kubernetes.errors import ApiError
from sandboxcore_kubernetes.watching import watch

__all__ = ("NAME", "START_SECONDS", "room")

NAME = "simulated"
#: From the binding of a pod to its readiness.
START_SECONDS = 1.0
_ROOM = {"cpu": "1000", "memory": "4Ti", "pods": "10000", "ephemeral-storage": "4Ti"}
_HEARTBEAT_SECONDS = 10.0
_READY_SECONDS = 60.0


@contextlib.contextmanager
def room(kubeconfig: Path) -> Iterator[None]:
    """Have new pods of the cluster bound to the simulated node, in place of those that it has."""
    from tests.cluster import kubectl

    nodes = [f"node/{name}" for name in kubectl("get", "nodes", "-o", "jsonpath={.items[*].metadata.name}").split()]
    process = subprocess.Popen([sys.executable, "-m", "benchmarks.simulated_node", str(kubeconfig)])
    try:
        kubectl("cordon", *nodes)
        until = time.monotonic() + _READY_SECONDS
        while _state(kubectl) != "True":
            if process.poll() is not None or time.monotonic() > until:
                raise RuntimeError("the simulated node is not ready")
            time.sleep(0.2)
        yield
    finally:
        process.terminate()
        process.wait()
        kubectl("delete", "node", NAME, check=False)
        kubectl("uncordon", *nodes)


def _state(kubectl: Any) -> str:
    """Return ``True`` once the node is ready, and the taint that it begins with is gone."""
    return str(
        kubectl("get", "node", NAME, "-o", 'jsonpath={.status.conditions[?(@.type=="Ready")].status}{.spec.taints}', check=False)
    )


async def run(kubeconfig: str) -> None:
    """Be the node until the process is ended."""
    async with await Cluster.connect(ClusterConfig(kubeconfig=kubeconfig)) as cluster:
        labels = {"kubernetes.io/hostname": NAME, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64"}
        await cluster.create({"apiVersion": "v1", "kind": "Node", "metadata": {"name": NAME, "labels": labels}})
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_beat(cluster))
            tasks.create_task(_keep_pods(cluster))


async def _beat(cluster: Cluster) -> None:
    while True:
        now = _now()
        condition = {
            "type": "Ready",
            "status": "True",
            "reason": "Simulated",
            "lastHeartbeatTime": now,
            "lastTransitionTime": now,
        }
        body = {"status": {"capacity": _ROOM, "allocatable": _ROOM, "conditions": [condition]}}
        await cluster.request("PATCH", f"/api/v1/nodes/{NAME}/status", body=body, content_type=MERGE_PATCH)
        await asyncio.sleep(_HEARTBEAT_SECONDS)


async def _keep_pods(cluster: Cluster) -> None:
    addresses = (f"198.18.{number >> 8}.{number & 255}" for number in itertools.count(1))
    begun: set[str] = set()
    async with asyncio.TaskGroup() as tasks:
        async for event in watch(cluster, "/api/v1/pods", field_selector=f"spec.nodeName={NAME}"):
            pods = event.object["items"] if event.type == "RELIST" else [event.object]
            for pod in pods:
                uid, ending = pod["metadata"]["uid"], "deletionTimestamp" in pod["metadata"]
                if event.type == "DELETED":
                    begun.discard(uid)
                elif ending:
                    tasks.create_task(_end(cluster, pod))
                elif uid not in begun:
                    begun.add(uid)
                    tasks.create_task(_start(cluster, pod, next(addresses)))


async def _start(cluster: Cluster, pod: Mapping[str, Any], address: str) -> None:
    await asyncio.sleep(START_SECONDS)
    now = _now()
    words = ("Initialized", "PodReadyToStartContainers", "ContainersReady", "Ready")
    conditions = [{"type": word, "status": "True", "lastTransitionTime": now} for word in words]
    scheduled = [one for one in pod["status"].get("conditions", ()) if one["type"] == "PodScheduled"]
    containers = [
        {
            "name": container["name"],
            "image": container["image"],
            "imageID": container["image"],
            "containerID": f"simulated://{pod['metadata']['uid']}",
            "ready": True,
            "started": True,
            "restartCount": 0,
            "state": {"running": {"startedAt": now}},
        }
        for container in pod["spec"]["containers"]
    ]
    status = {
        "phase": "Running",
        "podIP": address,
        "podIPs": [{"ip": address}],
        "startTime": now,
        "conditions": [*scheduled, *conditions],
        "containerStatuses": containers,
    }
    path = f"/api/v1/namespaces/{pod['metadata']['namespace']}/pods/{pod['metadata']['name']}/status"
    try:
        await cluster.request("PATCH", path, body={"status": status}, content_type=MERGE_PATCH)
    except ApiError as error:
        if error.status != 404:  # it was deleted in the meantime
            raise


async def _end(cluster: Cluster, pod: Mapping[str, Any]) -> None:
    metadata = pod["metadata"]
    await cluster.delete("v1/Pod", metadata["name"], namespace=metadata["namespace"], grace=0.0, uid=metadata["uid"])


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


if __name__ == "__main__":
    asyncio.run(run(sys.argv[1]))
