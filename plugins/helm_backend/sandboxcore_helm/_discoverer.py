"""Finds environments by their records; asks the API server three times, however many there are."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sandboxcore.abc import Discoverer
from sandboxcore.errors import SandboxUnavailableError
from sandboxcore_kubernetes.errors import ApiError, sandbox_error
from sandboxcore_kubernetes.naming import ENVIRONMENT_ID, INSTANCE, RUN_ID

from ._describe import Record, environment_ref, lone_lease
from ._record import OWNED

if TYPE_CHECKING:
    from sandboxcore.values import EnvironmentRef, SandboxRef, Selector
    from sandboxcore_kubernetes.cluster import Cluster
    from sandboxcore_kubernetes.leases import RunLease
    from sandboxcore_kubernetes.pods import PodState

    from ._provisioner import HelmProvisioner

__all__ = ("HelmDiscoverer", "find_environments")

_NAMED = 50


class HelmDiscoverer(Discoverer):
    """Reads records, pods and Leases; shares the provisioner's connection.

    Args:
        own: The provisioner is nobody else's, and is closed with this.
    """

    def __init__(self, provisioner: HelmProvisioner, *, own: bool = False) -> None:
        self._provisioner = provisioner
        self._own = own

    async def aclose(self) -> None:
        """Close the connection, if it is this one's own."""
        if self._own:
            await self._provisioner.aclose()

    async def find(self, selector: Selector) -> Sequence[EnvironmentRef]:
        """List the environments that the selector matches, also half-made and expired ones.

        Raises:
            SandboxUnavailableError: The API server can't be reached.
        """
        cluster = await self._provisioner.cluster()
        try:
            return await find_environments(cluster, self._provisioner.namespace(cluster), selector)
        except ApiError as error:
            raise sandbox_error(error, "environments can't be listed") from error

    async def logs(self, sandbox: SandboxRef, *, tail: int | None = None, follow: bool = False) -> AsyncIterator[bytes]:
        """Yield what the service's own command wrote, oldest first; ``tail`` is a number of lines."""
        cluster = await self._provisioner.cluster()
        data = sandbox.data
        try:
            async for chunk in cluster.logs(
                data["pod"], data["container"], namespace=data["namespace"], tail=tail, follow=follow
            ):
                yield chunk
        except ApiError as error:
            raise sandbox_error(error, f"logs of {sandbox.service!r}") from error

    async def open_port(self, sandbox: SandboxRef, port: int, protocol: asyncio.BaseProtocol) -> asyncio.Transport:
        """Connect the protocol to a TCP port of the sandbox.

        Raises:
            SandboxUnavailableError: The sandbox is gone, or the API server can't be reached.
        """
        cluster = await self._provisioner.cluster()
        try:
            return await cluster.port_forward(sandbox.data["pod"], port, protocol, namespace=sandbox.data["namespace"])
        except ApiError as error:
            raise SandboxUnavailableError(f"port {port} of {sandbox.service!r}: {error.message}", started="no") from error


async def find_environments(cluster: Cluster, namespace: str, selector: Selector) -> list[EnvironmentRef]:
    """List the environments of a namespace, and Leases of runs that have none.

    Raises:
        ApiError: The server refuses.
    """
    from sandboxcore_kubernetes import leases

    # An id that no label can have is nobody's; a selector with it would be refused.
    if not all(_legal(value) for value in (selector.run_id, selector.environment_id)):
        return []
    by_run = f"{RUN_ID}={selector.run_id}" if selector.run_id else RUN_ID
    by_environment = f"{ENVIRONMENT_ID}={selector.environment_id}" if selector.environment_id else ENVIRONMENT_ID
    query = f"{OWNED},{by_run},{by_environment}"
    found, claims = await asyncio.gather(
        cluster.list("Secret", namespace=namespace, label_selector=query), leases.read_all(cluster, namespace=namespace)
    )
    ahead = await cluster.clock_ahead()
    records = _records(found["items"], ahead)
    pods = await _pods(cluster, namespace, [record.release for record in records]) if records else {}
    by_name = {lease.name: lease for lease in claims}
    refs = [environment_ref(record, pods.get(record.release, ()), by_name) for record in records]
    refs += [lone_lease(lease, ahead=ahead) for lease in await _lone(cluster, claims, refs, namespace, selector)]
    return [ref for ref in refs if selector.matches(ref)]


def _legal(value: str | None) -> bool:
    import re

    return value is None or bool(re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?", value))


def _records(secrets: Iterable[Mapping[str, Any]], ahead: float) -> list[Record]:
    by_release: defaultdict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for secret in secrets:
        by_release[secret["metadata"]["labels"]["name"]].append(secret)
    return [Record(each, ahead=ahead) for _, each in sorted(by_release.items())]


async def _pods(cluster: Cluster, namespace: str, releases: Sequence[str]) -> dict[str, list[PodState]]:
    from sandboxcore_kubernetes.pods import pod_state

    chosen = f"{INSTANCE} in ({','.join(sorted(releases))})" if len(releases) <= _NAMED else INSTANCE
    listed = await cluster.list("Pod", namespace=namespace, label_selector=chosen)
    found: defaultdict[str, list[PodState]] = defaultdict(list)
    for raw in listed["items"]:
        pod = pod_state(raw)
        found[pod.labels[INSTANCE]].append(pod)
    return found


async def _lone(
    cluster: Cluster, claims: Sequence[RunLease], refs: Sequence[EnvironmentRef], namespace: str, selector: Selector
) -> list[RunLease]:
    """Select the Leases that are past and claim nothing: what a client that was killed leaves at worst."""
    now = await cluster.server_time()
    past = [lease for lease in claims if lease.expires_at < now and selector.run_id in (None, lease.run_id)]
    if not past or selector.environment_id not in (None, *(lease.name for lease in past)):
        return []
    runs = {ref.run_id for ref in refs}
    if selector.environment_id is not None:
        everything = await cluster.list("Secret", namespace=namespace, label_selector=f"{OWNED},{RUN_ID}")
        runs = {secret["metadata"]["labels"][RUN_ID] for secret in everything["items"]}
    return [lease for lease in past if lease.run_id not in runs]
