"""A namespace for tests of the cluster itself, and pods in it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.cluster import kubectl, make_namespace
from tests.images import reference

NAMESPACE = "test-cluster"


class Pods:
    """A namespace in which pods are made, talked to and removed."""

    def __init__(self, namespace: str) -> None:
        self.namespace = namespace

    def make(self, name: str, *command: str, image: str = "busybox", labels: dict[str, str] | None = None, **spec: Any) -> None:
        """Make a pod that runs a command, a sleep if there is none."""
        container = {"name": "main", "image": reference(image), "imagePullPolicy": "Never", **spec.pop("container", {})}
        if image != "binary":
            container["command"] = list(command) or ["sleep", "3600"]
        meta = {"name": name, "namespace": self.namespace, "labels": {"name": name, **(labels or {})}}
        body = {"containers": [container], "terminationGracePeriodSeconds": 0, "restartPolicy": "Never", **spec}
        self.apply({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": body})

    def apply(self, *objects: dict[str, Any]) -> None:
        items = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        kubectl("-n", self.namespace, "apply", "-f", "-", text=json.dumps(items))

    def ready(self, *names: str) -> None:
        kubectl("-n", self.namespace, "wait", "--for=condition=Ready", "--timeout=60s", *(f"pod/{name}" for name in names))

    def delete(self, *what: str) -> None:
        kubectl("-n", self.namespace, "delete", "--ignore-not-found", *what)

    def address(self, name: str) -> str:
        return kubectl("-n", self.namespace, "get", "pod", name, "-o", "jsonpath={.status.podIP}")

    def exec(self, name: str, *command: str, check: bool = True) -> str:
        return kubectl("-n", self.namespace, "exec", name, "--", *command, check=check)

    def connects(self, name: str, host: str, port: int = 80) -> bool:
        """Say whether a pod gets an answer from a TCP port that then hangs up, within 2 seconds."""
        line = f"echo | timeout 4 nc -w 2 {host} {port} >/dev/null 2>&1 && echo yes || echo no"
        return self.exec(name, "sh", "-c", line).strip() == "yes"


@pytest.fixture(scope="module")
def pods() -> Iterator[Pods]:
    kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found")
    make_namespace(NAMESPACE)
    yield Pods(NAMESPACE)
    kubectl("delete", "namespace", NAMESPACE, "--wait=false")
