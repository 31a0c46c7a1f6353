"""A real single-node Kubernetes for tests.

A given cluster (``SANDBOXCORE_TEST_KUBECONFIG``) is used where there is one, then `kind`; otherwise, on Linux as root and
with Go, one is built from pinned modules and started: etcd, API server, controllers, scheduler, kubelet, kube-proxy,
containerd, CoreDNS, dynamic volumes, and NetworkPolicy really enforced, or all that Cilium enforces where it is asked for.
README.md beside this file tells more.
"""

from __future__ import annotations

from ._api import helm, kubeconfig, kubectl, load, make_namespace, own, probe, stop, use, without_cilium
from ._faults import (
    evict,
    kill_apiserver,
    mend,
    restart_containerd,
    start_apiserver,
    start_kubelet,
    stop_kubelet,
)
from ._layout import ClusterError
from ._outside import answering, outside, outside_names

__all__ = (
    "ClusterError",
    "answering",
    "evict",
    "helm",
    "kill_apiserver",
    "kubeconfig",
    "kubectl",
    "load",
    "make_namespace",
    "mend",
    "outside",
    "outside_names",
    "own",
    "probe",
    "restart_containerd",
    "start_apiserver",
    "start_kubelet",
    "stop",
    "stop_kubelet",
    "use",
    "without_cilium",
)
