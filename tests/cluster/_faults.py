"""Faults of our own cluster; each returns when it has happened, and those that mend when all is well again."""

from __future__ import annotations

import json
import uuid
from typing import Any

from tests.images import reference

from . import _node
from ._api import kubectl, make_namespace, own
from ._layout import NODE, ClusterError, Layout
from ._processes import stop, wait_for


def _layout() -> Layout:
    layout = own()
    if layout is None:
        raise ClusterError("faults can be made on our own cluster only")
    return layout


def kill_apiserver() -> None:
    """Kill the API server, as kill -9 does: every connection to it is cut, and none is taken."""
    stop(_layout(), "apiserver", grace=0)


def start_apiserver() -> None:
    """Start the API server again and wait until it answers; no-op if it runs."""
    layout = _layout()

    def answers() -> bool:
        _node.start_daemon(layout, "apiserver")  # once more if it has ended: its port may not have been free yet
        return kubectl("get", "--raw", "/readyz", check=False) == "ok"

    wait_for("an answer of the API server", answers)
    for name in _node.daemons(layout):  # some give up when they miss it for long
        _node.start_daemon(layout, name)


def restart_containerd() -> None:
    """Kill containerd and start it again; containers go on, streams through it are cut."""
    layout = _layout()
    stop(layout, "containerd", grace=0)
    _node.start_daemon(layout, "containerd")
    _node.wait_ready(layout)


def stop_kubelet() -> None:
    """Kill the kubelet: containers go on, but nothing can be run in them, started or deleted."""
    stop(_layout(), "kubelet", grace=0)


def start_kubelet() -> None:
    """Start the kubelet again and wait until the node is ready; no-op if it runs."""
    layout = _layout()
    _node.start_daemon(layout, "kubelet")
    _node.wait_ready(layout)


def mend() -> None:
    """Start everything that does not run, let pods onto the node, and wait until all is well.

    That a server and a node say that they are well is not enough: who watched the server looks again with pauses of up to a
    minute, each by itself. So a namespace is made, what a StatefulSet and a Service make in it is waited for, and its end.

    Raises:
        ClusterError: something is not well in time; the message has what.
    """
    start_apiserver()
    for name in _node.daemons(_layout()):
        _node.start_daemon(_layout(), name)
    cordon(False)
    _node.wait_ready(_layout())
    _try_out()


def _try_out() -> None:
    """Have every controller that tests need do its work once, in a namespace of its own."""
    name = f"test-mended-{uuid.uuid4().hex[:6]}"
    make_namespace(name)
    try:
        kubectl("-n", name, "apply", "-f", "-", text=json.dumps(_trial()))
        kubectl("-n", name, "rollout", "status", "statefulset/trial", "--timeout=120s")
        known = ["-l", "kubernetes.io/service-name=trial", "-o", "jsonpath={.items[*].endpoints[*].addresses}"]
        wait_for("a Service that knows its pod", lambda: kubectl("-n", name, "get", "endpointslices", *known, check=False))
    finally:
        kubectl("delete", "namespace", name, "--wait=false", check=False)
    kubectl("wait", "--for=delete", f"namespace/{name}", "--timeout=120s")


def _trial() -> dict[str, Any]:
    labels = {"app": "trial"}
    container = {"name": "main", "image": reference("busybox"), "imagePullPolicy": "Never", "command": ["sleep", "3600"]}
    pod = {"metadata": {"labels": labels}, "spec": {"terminationGracePeriodSeconds": 0, "containers": [container]}}
    stateful = {"serviceName": "trial", "replicas": 1, "selector": {"matchLabels": labels}, "template": pod}
    service = {"selector": labels, "ports": [{"port": 80}]}
    items = [
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "trial"}, "spec": service},
        {"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "trial"}, "spec": stateful},
    ]
    return {"apiVersion": "v1", "kind": "List", "items": items}


def evict(namespace: str, pod: str) -> None:
    """Evict a pod through the API, as draining a node does."""
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": namespace}}
    kubectl("create", "--raw", f"/api/v1/namespaces/{namespace}/pods/{pod}/eviction", "-f", "-", text=json.dumps(body))


def cordon(on: bool) -> None:
    """Let no new pod onto the node, or let them again."""
    kubectl("cordon" if on else "uncordon", NODE)
