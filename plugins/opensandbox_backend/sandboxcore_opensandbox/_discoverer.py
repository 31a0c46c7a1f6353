"""Find environments by what is written on their BatchSandboxes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any

from sandboxcore.abc import Discoverer
from sandboxcore.errors import SandboxUnavailableError
from sandboxcore_kubernetes import ApiError
from sandboxcore_kubernetes.naming import MANAGED_BY, RUN_ID
from sandboxcore_kubernetes.pods import PodState, pod_state

from ._batch_watch import KIND
from ._describe import environments
from ._errors import mapped
from ._names import POOL_LABEL
from ._notes import BATCH, MANAGER, Notes, allocated, read
from ._task_ends import TaskEnds
from ._task_logs import task_logs

if TYPE_CHECKING:
    from sandboxcore.values import EnvironmentRef, SandboxRef, Selector
    from sandboxcore_kubernetes import Cluster

    from ._provisioner import CrdProvisioner

__all__ = ("CrdDiscoverer",)

Object = dict[str, Any]


class CrdDiscoverer(Discoverer):
    """Asks the API server; what it finds is anybody's, in the configured namespace.

    Args:
        own: The provisioner is nobody else's, and is closed with this.
    """

    def __init__(self, provisioner: CrdProvisioner, *, own: bool = False) -> None:
        self._provisioner = provisioner
        self._connection = provisioner.connection
        self._own = own
        self._ends = TaskEnds()

    async def aclose(self) -> None:
        """Close the connection, if it is this one's own."""
        if self._own:
            await self._provisioner.aclose()

    async def find(self, selector: Selector) -> Sequence[EnvironmentRef]:
        """List the environments that the selector matches, also half-made and expired ones.

        Raises:
            SandboxError: The cluster can't be asked.
        """
        try:
            cluster = await self._connection.cluster()
            objects = await _objects(cluster, selector)
            pods = await _pods(cluster, objects)
            ends = await self._ends.of(cluster, objects, pods, selector.environment_id)
        except ApiError as error:
            raise mapped(error, "look for environments") from error
        return [environment for environment in environments(objects, pods, ends) if selector.matches(environment)]

    async def logs(self, sandbox: SandboxRef, *, tail: int | None = None, follow: bool = False) -> AsyncIterator[bytes]:
        """Yield what the service's own command wrote; of a task its output, then its errors, then how it ended, as of now.

        Raises:
            CapabilityError: It is from a pool, and runs nothing of its own.
            SandboxUnavailableError: The pod is gone.
        """
        data = sandbox.data
        if data.get("pool"):
            async for chunk in task_logs(sandbox, self._connection, tail):
                yield chunk
            return
        try:
            cluster = await self._connection.cluster()
            chunks = cluster.logs(data["pod"], data.get("container"), namespace=data["namespace"], tail=tail, follow=follow)
            async for chunk in chunks:
                yield chunk
        except ApiError as error:
            found = mapped(error, f"read the log of service {sandbox.service!r}")
            raise SandboxUnavailableError(found.message, started="no", hint=found.hint) from error

    async def open_port(self, sandbox: SandboxRef, port: int, protocol: asyncio.BaseProtocol) -> asyncio.Transport:
        """Connect the protocol to a TCP port of the pod.

        Raises:
            SandboxUnavailableError: The pod is gone.
        """
        data = sandbox.data
        try:
            cluster = await self._connection.cluster()
            return await cluster.port_forward(data["pod"], port, protocol, namespace=data["namespace"])
        except ApiError as error:
            found = mapped(error, f"reach port {port} of service {sandbox.service!r}")
            raise SandboxUnavailableError(found.message, started="no", hint=found.hint) from error


async def _objects(cluster: Cluster, selector: Selector) -> list[Object]:
    """Read the BatchSandboxes that may hold what is looked for."""
    wanted = {MANAGED_BY: MANAGER} | ({RUN_ID: selector.run_id} if selector.run_id is not None else {})
    query = ",".join([BATCH, *(f"{name}={value}" for name, value in wanted.items())])
    try:
        found = (await cluster.list(KIND, label_selector=query))["items"]
    except ApiError as error:
        if error.status == 404:  # the cluster has no OpenSandbox, so nobody made any
            return []
        raise
    if selector.environment_id is None:
        return list(found)
    batches = {notes.batch for obj in found if (notes := read(obj)) and selector.environment_id in notes.environments}
    return [obj for obj in found if obj["metadata"]["labels"][BATCH] in batches]


async def _pods(cluster: Cluster, objects: Sequence[Object]) -> dict[str, PodState]:
    """Read the pods of these, with as few requests as there are runs and pools."""
    noted = [(obj, notes) for obj in objects if (notes := read(obj))]
    selectors = {_selector(notes) for obj, notes in noted if not notes.pool or allocated(obj)}
    lists = await asyncio.gather(*(cluster.list("Pod", label_selector=text) for text in sorted(selectors)))
    return {item["metadata"]["name"]: pod_state(item) for found in lists for item in found["items"]}


def _selector(notes: Notes) -> str:
    return f"{POOL_LABEL}={notes.pool}" if notes.pool else f"{RUN_ID}={notes.run_id},{BATCH}"
