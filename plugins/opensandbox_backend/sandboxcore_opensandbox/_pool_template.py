"""A good Pool, as YAML, and the lines that others lack."""

from __future__ import annotations

import copy
import json
from typing import Any

from sandboxcore.errors import UsageError
from sandboxcore.guest import guest_binary
from sandboxcore_kubernetes.guest_mount import GUEST_FOLDER, guest_mount
from sandboxcore_kubernetes.naming import RUN_ID
from sandboxcore_kubernetes.objects import DNS

from ._names import API_VERSION, BATCH_LABEL, CONTAINER, OWN_POOL_LABEL, POOL_LABEL

__all__ = ("GUEST_HINT", "GUEST_LINES", "TASK_LINES", "TASK_PORT", "pool_objects", "pool_yaml")

#: Where the task-executor listens, for the controller; it asks nobody who they are.
TASK_PORT = 5758
#: For a template whose image has no shell, or whose root is read-only.
GUEST_LINES = f"""\
# `sandboxcore opensandbox pool create -f` makes the ConfigMap.
spec:
  template:
    spec:
      volumes:
        - {{name: sandboxcore-guest, configMap: {{name: sandboxcore-guest, defaultMode: 0755}}}}
      containers:
        - name: {CONTAINER}
          volumeMounts:
            - {{name: sandboxcore-guest, mountPath: {GUEST_FOLDER}, readOnly: true}}"""
GUEST_HINT = (
    f"without a shell, or a place to write a program to, the guest must be mounted; add to the pool's template:\n{GUEST_LINES}"
)
#: For a template whose pods are to run commands of services as tasks.
TASK_LINES = f"""\
# The task-executor runs what anybody asks it to: apply the NetworkPolicy of `pool template --tasks` as well.
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
          command: [/opt/opensandbox/task-executor, "-listen-addr=0.0.0.0:{TASK_PORT}", "-log-dir=/tmp"]
          readinessProbe: {{tcpSocket: {{port: {TASK_PORT}}}, periodSeconds: 1}}
          volumeMounts:
            - {{name: opensandbox-bin, mountPath: /opt/opensandbox}}
            - {{name: opensandbox-tasks, mountPath: /var/lib/sandbox}}"""

#: As nodes have it in their label ``kubernetes.io/arch``.
ARCHITECTURES = ("amd64", "arm64")
_ALL_BUT_TASKS = [
    {"protocol": "TCP", "port": 1, "endPort": TASK_PORT - 1},
    {"protocol": "TCP", "port": TASK_PORT + 1, "endPort": 65535},
    {"protocol": "UDP", "port": 1, "endPort": 65535},
]
#: Pods that no sandbox is in: the controller is one of them, in whatever namespace and by whatever labels.
_NO_SANDBOX = {
    "namespaceSelector": {},
    "podSelector": {
        "matchExpressions": [
            {"key": key, "operator": "DoesNotExist"} for key in (OWN_POOL_LABEL, POOL_LABEL, BATCH_LABEL, RUN_ID)
        ]
    },
}


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
    architecture: str | None = None,
    namespace: str | None = None,
) -> list[dict[str, Any]]:
    """Build a Pool whose pods serve sandboxcore, and what it needs: the guest, and a network policy.

    Args:
        buffer: Pods that are kept ready; ``bufferMin`` and ``bufferMax`` are the same, or the controller may make and delete
            pods without end while a request waits.
        task_executor: Image of OpenSandbox's task-executor; with it, commands of services run as tasks.
            It runs what anybody asks it to, so no sandbox may reach it.
        open_network: Leave the pods' way out as it is.
        architecture: Of the nodes that pods run on, ``amd64`` or ``arm64``; None: ``amd64``, or with ``task_executor`` any,
            since then the pods' command is that image's.

    Raises:
        UsageError: There is no such architecture.
        GuestUnavailableError: No guest was built for it.
    """
    if architecture not in (None, *ARCHITECTURES):
        raise UsageError(f"architecture {architecture!r}: must be one of {', '.join(ARCHITECTURES)}")
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
        architecture = architecture or "amd64"
        container["command"] = [f"{GUEST_FOLDER}/{guest_binary(architecture).name}", "pause"]
    if architecture:
        body["nodeSelector"] = {"kubernetes.io/arch": architecture}
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
    if open_network and not task_executor:
        return made
    return [_policy(name, where, closed=not open_network, tasks=bool(task_executor)), *made]


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
    container["command"] = ["/opt/opensandbox/task-executor", f"-listen-addr=0.0.0.0:{TASK_PORT}", "-log-dir=/tmp"]
    container["ports"] = [{"name": "tasks", "containerPort": TASK_PORT}]
    container["readinessProbe"] = {"tcpSocket": {"port": TASK_PORT}, "periodSeconds": 1}
    container["volumeMounts"] += [folder, {"name": "opensandbox-tasks", "mountPath": "/var/lib/sandbox"}]


def _policy(name: str, where: dict[str, str], *, closed: bool, tasks: bool) -> dict[str, Any]:
    """Say what a pool's pods may reach, and who reaches them: a policy is all that can be said of pods that are made in advance.

    Args:
        closed: Close the way out but for the resolver and the pool's own pods, which may be siblings of one environment.
        tasks: Keep sandboxes away from the task-executor, which runs whatever anybody asks of it.
    """
    own = {"matchLabels": {OWN_POOL_LABEL: name}}
    spec: dict[str, Any] = {"podSelector": own, "policyTypes": []}
    if closed:
        spec["policyTypes"].append("Egress")
        spec["egress"] = [{"to": [{"podSelector": own}]}, copy.deepcopy(DNS)]
    if tasks:
        spec["policyTypes"].append("Ingress")
        controller = {"from": [_NO_SANDBOX], "ports": [{"protocol": "TCP", "port": TASK_PORT}]}
        spec["ingress"] = copy.deepcopy([{"ports": _ALL_BUT_TASKS}, controller])
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": f"{name}-pool", **where},
        "spec": spec,
    }


def pool_yaml(objects: list[dict[str, Any]]) -> str:
    """Write objects as YAML documents; the guest's programs are left to ``pool create``, which knows them."""
    import yaml

    documents = [obj for obj in objects if obj["kind"] != "ConfigMap"]
    return "---\n".join(yaml.safe_dump(json.loads(json.dumps(obj)), sort_keys=False) for obj in documents)
