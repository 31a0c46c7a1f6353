"""Configurations of the backends for the matrix: what they need is made here, and removed when the process ends."""

from __future__ import annotations

import atexit
import functools
import uuid
from collections.abc import Mapping
from typing import Any


def local_rootfs() -> Mapping[str, Any]:
    """Run the image of one program from its archive."""
    from tests.images import archive, reference

    return {"host_userland": False, "rootfs": {reference("binary"): str(archive("binary"))}}


@functools.cache
def helm() -> Mapping[str, Any]:
    """Give a namespace of the test cluster to the Helm backend, for all of its variants."""
    from tests.cluster import helm, kubeconfig, kubectl, make_namespace

    namespace = f"test-matrix-{uuid.uuid4().hex[:6]}"
    make_namespace(namespace)
    atexit.register(lambda: kubectl("delete", "namespace", namespace, "--wait=false", check=False))
    # The resolver of services whose names are no host names; nothing can be pulled here.
    resolver = {"corednsImage": "sandboxcore.test/coredns:1", "corednsCommand": ["/app", "-conf", "/etc/coredns/Corefile"]}
    return {"kubeconfig": str(kubeconfig()), "namespace": namespace, "helm": str(helm(3)), "values": resolver}


def opensandbox_crd() -> Mapping[str, Any]:
    """Take the mode ``crd`` without a pool."""
    from tests.opensandbox import places

    return places.crd()


def opensandbox_pooled() -> Mapping[str, Any]:
    """Take the mode ``crd`` with a pool."""
    from tests.opensandbox import places

    return places.pooled()


def opensandbox_server() -> Mapping[str, Any]:
    """Take the mode ``server``."""
    from tests.opensandbox import places

    return places.server()
