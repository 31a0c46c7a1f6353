"""Words of the OpenSandbox API, and our own annotations on its objects.

Source: kubernetes/apis/sandbox/v1alpha1 and kubernetes/internal/controller/apis.go of OpenSandbox.
"""

from __future__ import annotations

__all__ = (
    "ALLOCATED",
    "API_VERSION",
    "BATCH_FINALIZER",
    "BATCH_LABEL",
    "CONTAINER",
    "ENDPOINTS",
    "GROUP",
    "INDEX_LABEL",
    "OWN_POOL_LABEL",
    "POOL_FINALIZER",
    "POOL_LABEL",
    "POOL_REVISION_LABEL",
    "RELEASE",
    "RELEASED",
    "USED_BY",
)

GROUP = "sandbox.opensandbox.io"
API_VERSION = f"{GROUP}/v1alpha1"

#: Annotation of a BatchSandbox: ``{"pods": [names]}`` that its pool gave it, in the order of their index; only ever grows.
ALLOCATED = f"{GROUP}/alloc-status"
#: Annotation: ``{"pods": [names]}`` that are to go back; a client may write it.
RELEASE = f"{GROUP}/alloc-release"
#: Annotation: those that went back.
RELEASED = f"{GROUP}/alloc-released"
#: Annotation: a JSON array of pod addresses; it shifts when a pod is gone, so nothing here relies on its order.
ENDPOINTS = f"{GROUP}/endpoints"
#: Keeps a BatchSandbox until its pool took the pods back.
POOL_FINALIZER = f"pool.{GROUP}/pool-allocation"
#: Keeps it until its tasks have been stopped.
BATCH_FINALIZER = f"batch-sandbox.{GROUP}/task-cleanup"

#: Labels of pods.
BATCH_LABEL = f"batch-sandbox.{GROUP}/name"
INDEX_LABEL = f"batch-sandbox.{GROUP}/pod-index"
POOL_LABEL = f"{GROUP}/pool-name"
POOL_REVISION_LABEL = f"{GROUP}/pool-revision"

#: Our label on the pods of a pool that is made here.
OWN_POOL_LABEL = "sandboxcore.dev/pool"
#: Our annotation on a pool's pod: the environment that last had it.
USED_BY = "sandboxcore.dev/used-by"
#: Container of our own pods in which commands run.
CONTAINER = "sandbox"
