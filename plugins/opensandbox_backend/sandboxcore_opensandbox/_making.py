"""Make environments: plan the objects, make them, and take all away again when one of them fails."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sandboxcore._at_once import together
from sandboxcore._closing import each, finish
from sandboxcore.errors import ProvisionTimeoutError, SandboxError
from sandboxcore_kubernetes import ApiError

from ._errors import mapped
from ._notes import Notes
from ._parts import Group, divide, ordered_services, part_name, services_by_pool, size
from ._splitting import Footprint, split

if TYPE_CHECKING:
    from sandboxcore.abc import Emit
    from sandboxcore.spec import EnvironmentSpec
    from sandboxcore.values import Claim, EnvironmentRef

    from ._connection import Connection
    from ._pool_fit import PoolFit
    from ._removal import Remover

__all__ = ("Job", "make")

#: Kinds of what services from images may need besides pods.
TEMPLATE_KINDS = ("ConfigMap", "EndpointSlice", "NetworkPolicy", "PersistentVolumeClaim", "Secret", "Service")
_UNDO_SECONDS = 110.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """One batch in the making: all that its parts share.

    Args:
        deadline: By the event loop's clock.
        lease: Seconds.
    """

    connection: Connection
    spec: EnvironmentSpec
    claims: Sequence[Claim]
    parts: tuple[tuple[str, Notes], ...]
    pools: dict[str, PoolFit]
    emit: Emit
    deadline: float
    lease: float
    namespace: str

    @property
    def batch(self) -> str:
        """Name of the batch."""
        return self.claims[0].environment_id

    @property
    def names(self) -> tuple[str, ...]:
        """Names of its objects."""
        return tuple(name for name, _ in self.parts)


async def make(
    connection: Connection, remover: Remover, spec: EnvironmentSpec, claims: Sequence[Claim], emit: Emit
) -> list[EnvironmentRef]:
    """Make one environment a claim, all or none.

    Raises:
        CapabilityError: They can't be had. Nothing was created.
        ProvisionError: With the cause; nothing is left of any of them.
    """
    deadline = asyncio.get_running_loop().time() + claims[0].timeout
    try:
        jobs = await _plan(connection, spec, claims, emit, deadline)
    except ApiError as error:
        raise mapped(error, "look at the pools") from error
    begun: list[Job] = []
    try:
        return await _all(jobs, begun)
    except BaseException as error:
        told = _told(error)
        undo = finish(_undo(remover, begun, told), seconds=_UNDO_SECONDS, what="undoing what was made")
        try:
            await undo
        except asyncio.CancelledError:
            # The time limit of the core comes while this is undone; what failed before that says more.
            if isinstance(error, asyncio.CancelledError):
                raise
        except SandboxError as late:
            told.add_note(_left_behind(begun, late))
        raise told from error.__cause__ if isinstance(error, SandboxError) else error


async def _all(jobs: Sequence[Job], begun: list[Job]) -> list[EnvironmentRef]:
    from ._batch_making import make_batch

    async def one(job: Job) -> list[EnvironmentRef]:
        begun.append(job)
        return await make_batch(job)

    made = await together(one(job) for job in jobs)
    return [ref for refs in made for ref in refs]


async def _undo(remover: Remover, jobs: Sequence[Job], error: BaseException) -> None:
    """Take all of them away, and write into the error that this was done, or what could not be."""
    failures = await each(jobs, lambda job: remover.remove(job.namespace, job.batch, job.claims[0].run_id))
    for job, failure in failures:
        error.add_note(_left_behind([job], failure))
    total = sum(len(job.claims) for job in jobs)
    if total > 1 and not failures:
        error.add_note(f"all {total} environments of the batch were released")


def _left_behind(jobs: Sequence[Job], why: Exception) -> str:
    names = [claim.environment_id for job in jobs for claim in job.claims]
    which = f"environment {names[0]}" if len(names) == 1 else f"environments {names[0]} and {len(names) - 1} more"
    return f"{which} may be left behind: {why}"


def _told(error: BaseException) -> BaseException:
    """Turn what a request raised into the core's error."""
    if isinstance(error, ApiError):
        return mapped(error, "make the environment")
    if isinstance(error, TimeoutError) and not isinstance(error, SandboxError):
        return ProvisionTimeoutError("the environment was not ready in time; it still waited for the cluster to answer")
    return error


async def _plan(connection: Connection, spec: EnvironmentSpec, claims: Sequence[Claim], emit: Emit, deadline: float) -> list[Job]:
    from ._pool_fit import look_at_pools

    cluster = await connection.cluster()
    pools = await look_at_pools(cluster, spec, services_by_pool(spec, connection.config), len(claims))
    groups = divide(spec, connection.config, pools)
    now = await cluster.server_time()
    each = _footprint(connection, spec, claims, groups, pools, now, cluster.namespace)
    jobs = []
    for part in split(len(claims), each, fixed=Footprint(annotations=4096, body=16384)):
        chosen = [claims[index] for index in part]
        parts = _notes(spec, chosen, groups, pools, now)
        job = Job(
            connection=connection,
            spec=spec,
            claims=chosen,
            parts=parts,
            pools=pools,
            emit=emit,
            deadline=deadline,
            lease=claims[0].lease,
            namespace=cluster.namespace,
        )
        jobs.append(job)
    return jobs


def _footprint(
    connection: Connection,
    spec: EnvironmentSpec,
    claims: Sequence[Claim],
    groups: Sequence[Group],
    pools: dict[str, PoolFit],
    now: float,
    namespace: str,
) -> Footprint:
    """Estimate the largest share that one environment has in any of the objects."""
    if len(claims) == 1:
        return Footprint(annotations=1, body=1)
    from ._batch_making import template_of

    shares = []
    for _, notes in _notes(spec, claims[:2], groups, pools, now):
        pods = None if notes.pool else template_of(connection, spec, notes, namespace)
        share = size(notes, pods)
        shares.append(share if pods is None else dataclasses.replace(share, body=share.body // 2))
    return Footprint(annotations=max(s.annotations for s in shares), body=max(s.body for s in shares))


def _notes(
    spec: EnvironmentSpec,
    claims: Sequence[Claim],
    groups: Sequence[Group],
    pools: dict[str, PoolFit],
    now: float,
) -> tuple[tuple[str, Notes], ...]:
    first = claims[0]
    made = []
    for position, group in enumerate(groups):
        pool, part = group.pool, group.services
        name = part_name(first.environment_id, position)
        fit = pools.get(pool)
        notes = Notes(
            batch=first.environment_id,
            run_id=first.run_id,
            environments=tuple(claim.environment_id for claim in claims),
            services=ordered_services(spec),
            part=part,
            owner=first.owner,
            created=round(time.time(), 3),
            pool=pool,
            labels=dict(first.labels),
            settings=_settings(spec, part, fit),
            secret=f"{name}-env" if pool and any(spec.services[service].env for service in part) else "",
            kinds=("Secret",) if pool else TEMPLATE_KINDS,
            recycle=fit.recycle if fit else "",
            tasks=group.tasks,
            queued=round(now, 3) if pool else 0.0,
        )
        made.append((name, notes))
    return tuple(made)


def _settings(spec: EnvironmentSpec, part: Sequence[str], fit: PoolFit | None) -> dict[str, dict[str, Any]]:
    from sandboxcore_kubernetes import GUEST_PATH

    if fit is None:
        return {service: {"guest": GUEST_PATH} for service in part}
    found = {}
    for service in part:
        wanted = spec.services[service]
        settings = {"guest": fit.guest_path, "container": fit.container, "user": wanted.user, "working_dir": wanted.working_dir}
        found[service] = {key: value for key, value in settings.items() if value}
    return found
