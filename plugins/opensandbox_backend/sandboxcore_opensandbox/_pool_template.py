"""A good Pool, as YAML, and the lines that others lack."""

from __future__ import annotations

import json
from typing import Any

from sandboxcore_kubernetes.guest_mount import GUEST_FOLDER, guest_mount

from ._names import API_VERSION, CONTAINER, OWN_POOL_LABEL

__all__ = ("GUEST_LINES", "TASK_LINES", "pool_objects", "pool_yaml")

#: For a template whose images have no shell, or whose root is read-only.
GUEST_LINES = f"""\
spec:
  template:
    spec:
      volumes:
        - {{name: sandboxcore-guest, configMap: {{name: GUEST, defaultMode: 0755}}}}
      containers:
        - name: {CONTAINER}
          volumeMounts:
            - {{name: sandboxcore-guest, mountPath: {GUEST_FOLDER}, readOnly: true}}"""
#: For a template whose pods are to run commands of services as tasks.
TASK_LINES = f"""\
spec:
  template:
    spec:
      volumes:
        - {{name: opensandbox-bin, emptyDir: {{}}}}
        - {{name: opensandbox-tasks, emptyDir: {{}}}}
      initContainers:
        - name: task-executor-installer
          image: IMAGE-OF-THE-TASK-EXECUTOR
          command: [/bin/sh, -c, cp /workspace/server /opt/opensandbox/task-executor]
          volumeMounts:
            - {{name: opensandbox-bin, mountPath: /opt/opensandbox}}
      containers:
        - name: {CONTAINER}
          command: [/opt/opensandbox/task-executor, "-listen-addr=0.0.0.0:5758", "-log-dir=/tmp"]
          readinessProbe: {{tcpSocket: {{port: 5758}}, periodSeconds: 1}}
          volumeMounts:
            - {{name: opensandbox-bin, mountPath: /opt/opensandbox}}
            - {{name: opensandbox-tasks, mountPath: /var/lib/sandbox}}"""


def pool_objects(
    name: str,
    image: str,
    *,
    buffer: int = 2,
    maximum: int = 10,
    cpus: float | None = None,
    memory: str | None = None,
    recycle: str = "Delete",
    task_executor: str | None = None,
    open_network: bool = False,
    namespace: str | None = None,
) -> list[dict[str, Any]]:
    """Build a Pool whose pods serve sandboxcore, and what it needs: the guest, and a network policy that closes the way out.

    Args:
        buffer: Pods that are kept ready; ``bufferMin`` and ``bufferMax`` are the same, or the controller may make and delete
            pods without end while a request waits.
        task_executor: Image of OpenSandbox's task-executor; with it, commands of services run as tasks.
        open_network: Leave the pods' way out as it is.
    """
    guest = guest_mount(f"{name}-guest", namespace=namespace)
    container: dict[str, Any] = {"name": CONTAINER, "image": image, "volumeMounts": [guest.mount]}
    body: dict[str, Any] = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 1,
        "volumes": [guest.volume],
        "containers": [container],
    }
    limits = {key: value for key, value in (("cpu", cpus and str(cpus)), ("memory", memory)) if value}
    if limits:
        container["resources"] = {"limits": limits, "requests": limits}
    if task_executor:
        _add_executor(body, container, task_executor)
    else:
        container["command"] = [f"{GUEST_FOLDER}/guest-x86_64", "pause"]
    capacity = {"bufferMin": buffer, "bufferMax": buffer, "poolMin": buffer, "poolMax": maximum}
    where = {"namespace": namespace} if namespace else {}
    pool = {
        "apiVersion": API_VERSION,
        "kind": "Pool",
        "metadata": {"name": name, **where},
        "spec": {
            "capacitySpec": capacity,
            "scaleStrategy": {"maxUnavailable": "100%"},
            "recycleStrategy": {"type": recycle},
            "template": {"metadata": {"labels": {OWN_POOL_LABEL: name}}, "spec": body},
        },
    }
    made = [guest.config_map, pool]
    return made if open_network else [_closed(name, where), *made]


def _add_executor(body: dict[str, Any], container: dict[str, Any], image: str) -> None:
    folder = {"name": "opensandbox-bin", "mountPath": "/opt/opensandbox"}
    install = "cp /workspace/server /opt/opensandbox/task-executor"
    body["volumes"] += [{"name": "opensandbox-bin", "emptyDir": {}}, {"name": "opensandbox-tasks", "emptyDir": {}}]
    body["initContainers"] = [
        {
            "name": "task-executor-installer",
            "image": image,
            "command": ["/bin/sh", "-c", install],
            "volumeMounts": [folder],
        }
    ]
    container["command"] = ["/opt/opensandbox/task-executor", "-listen-addr=0.0.0.0:5758", "-log-dir=/tmp"]
    container["ports"] = [{"name": "tasks", "containerPort": 5758}]
    container["readinessProbe"] = {"tcpSocket": {"port": 5758}, "periodSeconds": 1}
    container["volumeMounts"] += [folder, {"name": "opensandbox-tasks", "mountPath": "/var/lib/sandbox"}]


def _closed(name: str, where: dict[str, str]) -> dict[str, Any]:
    """Close the way out of a pool's pods but for names: a policy is all that can be said of pods that are made in advance."""
    names = [{"protocol": protocol, "port": 53} for protocol in ("UDP", "TCP")]
    peers = {"podSelector": {"matchLabels": {OWN_POOL_LABEL: name}}}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": f"{name}-pool", **where},
        "spec": {
            "podSelector": peers["podSelector"],
            "policyTypes": ["Egress"],
            "egress": [{"to": [peers]}, {"ports": names}],
        },
    }


def pool_yaml(objects: list[dict[str, Any]]) -> str:
    """Write objects as YAML documents; the guest's programs are left to ``pool create``, which knows them."""
    import yaml

    documents = [obj for obj in objects if obj["kind"] != "ConfigMap"]
    return "---\n".join(yaml.safe_dump(json.loads(json.dumps(obj)), sort_keys=False) for obj in documents)
