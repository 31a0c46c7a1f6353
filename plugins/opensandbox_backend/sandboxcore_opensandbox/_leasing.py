"""Leases: the end of a BatchSandbox is moved while its owner lives, with one request an object."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sandboxcore_kubernetes import ApiError

from ._batch_watch import KIND
from ._errors import mapped
from ._notes import LEASE, expire_time

if TYPE_CHECKING:
    from sandboxcore.values import EnvironmentRef

    from ._connection import Connection

__all__ = ("renew",)


async def renew(connection: Connection, environments: Sequence[EnvironmentRef], lease: float) -> None:
    """Move the end of the leases to ``lease`` seconds from now; those that are gone are passed over.

    Environments of one batch share an object and so a lease: renewing one of them renews all.

    Raises:
        SandboxError: The cluster refuses, or can't be reached.
    """
    import time

    cluster = await connection.cluster()
    end = time.time() + lease
    change = {
        "metadata": {"annotations": {LEASE: f"{end:.3f}"}},
        "spec": {"expireTime": expire_time(end + connection.config.expire_grace)},
    }
    parts = {(ref.data["namespace"], name) for ref in environments for name in ref.data["parts"]}

    async def one(namespace: str, name: str) -> None:
        try:
            await cluster.patch(KIND, name, change, namespace=namespace)
        except ApiError as error:
            if error.status != 404:
                raise mapped(error, f"renew the lease of BatchSandbox {name}") from error

    await asyncio.gather(*(one(namespace, name) for namespace, name in sorted(parts)))
