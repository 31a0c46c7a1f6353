"""A CronJob that takes expired environments away from inside the cluster."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from sandboxcore_kubernetes.naming import MANAGED_BY
from sandboxcore_kubernetes.rbac import role

from ._rights import reaper_rules

__all__ = ("reaper_objects",)

_LABELS = {MANAGED_BY: "sandboxcore", "app.kubernetes.io/name": "sandboxcore-reaper"}


def reaper_objects(
    *, namespace: str, image: str, schedule: str, name: str = "sandboxcore-reaper", resources: Iterable[str] = ()
) -> list[dict[str, Any]]:
    """Build a ServiceAccount, its Role and binding, and the CronJob.

    Args:
        namespace: Where the environments are; the reaper sees no other.
        image: One that has ``sandboxcore[helm]`` installed. It needs no helm program.
        schedule: As cron has it.
        resources: Further ones that it may delete, besides those that the built-in chart and usual ones make.

    Raises:
        UsageError: One of the resources is none.
    """
    metadata = {"name": name, "namespace": namespace, "labels": dict(_LABELS)}
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata}
    rights = role(reaper_rules(resources), name=name, namespace=namespace)
    rights["metadata"]["labels"] = dict(_LABELS)
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": metadata,
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
        "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": namespace}],
    }
    config = {"in_cluster": True, "namespace": namespace}
    container = {
        "name": "reaper",
        "image": image,
        "command": ["sandboxcore", "helm", "reap", "--config", json.dumps(config)],
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        },
        "resources": {"requests": {"cpu": "50m", "memory": "96Mi"}, "limits": {"memory": "512Mi"}},
    }
    pod = {"serviceAccountName": name, "restartPolicy": "Never", "containers": [container]}
    job = {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": metadata,
        "spec": {
            "schedule": schedule,
            "concurrencyPolicy": "Forbid",
            "successfulJobsHistoryLimit": 1,
            "failedJobsHistoryLimit": 1,
            "jobTemplate": {
                "spec": {
                    "backoffLimit": 0,
                    "activeDeadlineSeconds": 600,
                    "template": {"metadata": {"labels": dict(_LABELS)}, "spec": pod},
                }
            },
        },
    }
    return [account, rights, binding, job]
