"""The cluster that the other tests trust: names, policies, volumes, images, both Helms, faults."""

from __future__ import annotations

import json
import socketserver
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster import _faults, helm, kubeconfig, kubectl, own
from tests.cluster._layout import Layout
from tests.cluster._processes import wait_for
from tests.images import NAMES

from .conftest import Pods

pytestmark = [pytest.mark.tier("kubernetes"), pytest.mark.timeout(300)]

SERVER = ("sh", "-c", "while true; do echo hello | nc -l -p 80; done")


@pytest.fixture(scope="module")
def peers(pods: Pods) -> Pods:
    """Make a server and two clients; `friend` has the label that policies let in."""
    pods.make("server", *SERVER, labels={"app": "server"}, hostname="web", subdomain="sub")
    pods.make("friend", labels={"friend": "yes"})
    pods.make("stranger")
    ports = [{"port": 80}]
    for name, more in (("server", {}), ("sub", {"clusterIP": "None"})):
        spec = {"selector": {"app": "server"}, "ports": ports, **more}
        pods.apply({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec})
    pods.ready("server", "friend", "stranger")
    return pods


@pytest.fixture
def policy(peers: Pods) -> Iterator[Any]:
    """Give a function that sets the one policy of the namespace."""

    def apply(**spec: Any) -> None:
        meta = {"name": "policy", "namespace": peers.namespace}
        whole = {"podSelector": {}, **spec}
        peers.apply({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": meta, "spec": whole})

    yield apply
    peers.delete("networkpolicy", "--all")


@pytest.mark.parametrize("name", ["server", "server.test-cluster.svc.cluster.local", "web.sub", "kubernetes.default"])
def test_names_resolve_and_services_answer(peers: Pods, name: str) -> None:
    wait_for(
        f"a connection to {name}", lambda: peers.connects("friend", name, 443 if name.startswith("kube") else 80), timeout=30
    )


def test_all_is_open_without_a_policy(peers: Pods) -> None:
    wait_for("a connection", lambda: peers.connects("stranger", peers.address("server")), timeout=30)


def test_a_policy_lets_in_whom_it_names(peers: Pods, policy: Any) -> None:
    policy(policyTypes=["Ingress"], ingress=[{"from": [{"podSelector": {"matchLabels": {"friend": "yes"}}}]}])
    address = peers.address("server")

    def kept() -> bool:
        """Say whether the stranger is refused, thrice: the server has gaps between its clients, and answers the friend first."""
        for _ in range(3):
            wait_for("a friend's connection", lambda: peers.connects("friend", address), timeout=30)
            if peers.connects("stranger", address):
                return False
        return True

    wait_for("the policy", kept, timeout=30)
    wait_for("a friend's connection by name", lambda: peers.connects("friend", "server"), timeout=30)


def test_what_a_policy_denies_is_denied_from_a_pods_first_moment(peers: Pods, policy: Any) -> None:
    policy(podSelector={"matchLabels": {"name": "born-denied"}}, policyTypes=["Egress"])
    tries = f"for n in 1 2; do echo | nc -w 1 {peers.address('server')} 80 && exit 9; done; exit 0"
    peers.make("born-denied", "sh", "-c", tries)
    phase = ["-n", peers.namespace, "get", "pod", "born-denied", "-o", "jsonpath={.status.phase}"]
    wait_for("the pod's end", lambda: kubectl(*phase) in ("Succeeded", "Failed"), timeout=60)
    assert kubectl(*phase) == "Succeeded"


@pytest.fixture
def outside_port() -> Iterator[tuple[Layout, int]]:
    """Listen on an address outside of the cluster."""
    layout = own()
    if layout is None:
        pytest.skip("only our own cluster knows an address outside")
    with socketserver.ThreadingTCPServer((layout.outside, 0), socketserver.BaseRequestHandler) as server:
        threading.Thread(target=server.serve_forever).start()
        yield layout, server.server_address[1]
        server.shutdown()


def test_egress_to_the_node_and_outside(peers: Pods, policy: Any, outside_port: tuple[Layout, int]) -> None:
    layout, port = outside_port
    wait_for("a connection outside", lambda: peers.connects("friend", layout.outside, port), timeout=30)
    wait_for("a connection to the node", lambda: peers.connects("friend", layout.node_address, 6443), timeout=30)
    policy(policyTypes=["Egress"], egress=[{"to": [{"podSelector": {}}]}])
    wait_for("the policy", lambda: not peers.connects("friend", layout.outside, port), timeout=30)
    assert not peers.connects("friend", layout.node_address, 6443)
    assert not peers.connects("friend", layout.api_service, 443)
    wait_for("a sibling's answer", lambda: peers.connects("friend", peers.address("server")), timeout=30)


def test_a_volume_outlives_its_pod(pods: Pods) -> None:
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}}
    pods.apply({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "disk"}, "spec": spec})
    volume = {"volumes": [{"name": "disk", "persistentVolumeClaim": {"claimName": "disk"}}]}
    mount = {"volumeMounts": [{"name": "disk", "mountPath": "/disk"}]}
    pods.make("writer", "sh", "-c", "echo kept >/disk/file && sleep 3600", container=mount, **volume)
    pods.ready("writer")
    wait_for("the file", lambda: pods.exec("writer", "cat", "/disk/file", check=False) == "kept\n", timeout=30)
    pods.delete("pod", "writer")
    pods.make("reader", container=mount, **volume)
    pods.ready("reader")
    assert pods.exec("reader", "cat", "/disk/file") == "kept\n"


@pytest.mark.parametrize("name", [name for name in NAMES if name != "pause"])
def test_images_of_the_tests_run(pods: Pods, name: str) -> None:
    pods.make(f"image-{name}", image=name)
    pods.ready(f"image-{name}")


def test_both_helms_work(pods: Pods, tmp_path: Path) -> None:
    chart = tmp_path / "chart"
    (chart / "templates").mkdir(parents=True)
    (chart / "Chart.yaml").write_text("apiVersion: v2\nname: tiny\nversion: 0.1.0\n")
    config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "{{ .Release.Name }}"}}
    (chart / "templates" / "one.yaml").write_text(json.dumps(config))
    for major in (3, 4):
        run_helm(pods, major, "install", f"with{major}", str(chart))
    for major in (3, 4):
        listed = json.loads(run_helm(pods, major, "list", "-o", "json"))
        assert {release["name"] for release in listed} == {"with3", "with4"}
    assert run_helm(pods, 3, "version", "--short").startswith("v3.")
    assert run_helm(pods, 4, "version", "--short").startswith("v4.")
    run_helm(pods, 4, "uninstall", "with3")
    run_helm(pods, 3, "uninstall", "with4")
    assert kubectl("-n", pods.namespace, "get", "configmap", "with3", "with4", "--ignore-not-found") == ""


def run_helm(pods: Pods, major: int, *argv: str) -> str:
    command = [helm(major), "--kubeconfig", kubeconfig(), "--namespace", pods.namespace, *argv]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def disturbed() -> Iterator[Layout]:
    """Mend our own cluster after a test that breaks it."""
    layout = own()
    if layout is None:
        pytest.skip("this cluster is not ours to break")
    yield layout
    _faults.mend()


def test_containers_outlive_each_fault(peers: Pods, disturbed: Layout) -> None:
    def started() -> str:
        where = "jsonpath={.status.containerStatuses[0].containerID}{.status.containerStatuses[0].restartCount}"
        return kubectl("-n", peers.namespace, "get", "pod", "friend", "-o", where)

    before, began = started(), time.time()
    _faults.kill_apiserver()
    assert kubectl("get", "--raw", "/readyz", "--request-timeout=5s", check=False) == ""
    _faults.start_apiserver()
    _faults.restart_containerd()
    _faults.stop_kubelet()
    assert peers.exec("friend", "echo", "hello", check=False) == ""
    _faults.start_kubelet()
    wait_for("a command", lambda: peers.exec("friend", "echo", "hello", check=False) == "hello\n", timeout=60)
    assert started() == before, f"the container was started again within {time.time() - began:.0f} s"
