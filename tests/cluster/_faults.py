"""Faults of our own cluster; each returns when it has happened, and those that mend when all is well again."""

from __future__ import annotations

import json

from . import _node
from ._api import kubectl, own
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
    _node.start_daemon(layout, "apiserver")
    wait_for("an answer of the API server", lambda: kubectl("get", "--raw", "/readyz", check=False) == "ok")
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
    """Start everything that does not run, let pods onto the node, and wait until all is well; no-op if it is."""
    start_apiserver()
    for name in _node.daemons(_layout()):
        _node.start_daemon(_layout(), name)
    cordon(False)
    _node.wait_ready(_layout())


def evict(namespace: str, pod: str) -> None:
    """Evict a pod through the API, as draining a node does."""
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": namespace}}
    kubectl("create", "--raw", f"/api/v1/namespaces/{namespace}/pods/{pod}/eviction", "-f", "-", text=json.dumps(body))


def cordon(on: bool) -> None:
    """Let no new pod onto the node, or let them again."""
    kubectl("cordon" if on else "uncordon", NODE)
