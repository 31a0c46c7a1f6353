"""Make one batch: its objects, the pods from images as they depend on each other, those from pools as they are given."""

from __future__ import annotations

import asyncio
import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sandboxcore._at_once import first_of, together
from sandboxcore.errors import ProvisionError, ProvisionTimeoutError
from sandboxcore_kubernetes import wait_ready
from sandboxcore_kubernetes.gates import Gates
from sandboxcore_kubernetes.naming import ENVIRONMENT_ID, RUN_ID
from sandboxcore_kubernetes.objects import alias_slice

from ._batch_watch import KIND
from ._describe import BACKEND, environments
from ._health import until_unhealthy
from ._notes import READY, Notes, labels
from ._objects import owned, placement, pod, template_objects
from ._parts import Pods, batch_sandbox, dependencies, template_pods

if TYPE_CHECKING:
    from sandboxcore.spec import EnvironmentSpec
    from sandboxcore.values import EnvironmentRef, Event
    from sandboxcore_kubernetes import Cluster, PodState, PodWatch

    from ._connection import Connection
    from ._making import Job

__all__ = ("create_part", "make_batch", "template_of")

Object = dict[str, Any]


async def make_batch(job: Job) -> list[EnvironmentRef]:
    """Make all parts of a batch and wait until every service of every environment is ready.

    Raises:
        ProvisionError: With the cause; what was made is there still.
        ApiError: The cluster refused something; likewise.
    """
    cluster = await job.connection.cluster()
    templates = [(name, notes) for name, notes in job.parts if not notes.pool]
    pooled = [(name, notes) for name, notes in job.parts if notes.pool]
    pods: dict[str, PodState] = {}
    works = [_from_images(job, cluster, name, notes) for name, notes in templates]
    if pooled:
        works.append(_from_pools(job, cluster, pooled))
    for made in await together(works):
        pods |= made
    objects = await together(_mark_ready(cluster, job, name) for name, _ in job.parts)
    found = {ref.environment_id: ref for ref in environments(objects, pods) if ref.state != "destroying"}
    missing = [claim.environment_id for claim in job.claims if claim.environment_id not in found]
    if missing:
        raise ProvisionError(f"environment {missing[0]!r} was destroyed while it was being made")
    return [dataclasses.replace(found[claim.environment_id], state="ready") for claim in job.claims]


async def _from_pools(job: Job, cluster: Cluster, parts: Sequence[tuple[str, Notes]]) -> dict[str, PodState]:
    from ._pool_making import fill_from_pools

    async with job.connection.batches(job.claims[0].run_id) as watch:
        return await fill_from_pools(job, cluster, watch, parts)


async def _mark_ready(cluster: Cluster, job: Job, name: str) -> Object:
    return await cluster.patch(KIND, name, {"metadata": {"annotations": {READY: "true"}}}, namespace=job.namespace)


async def create_part(
    job: Job,
    cluster: Cluster,
    name: str,
    notes: Notes,
    *,
    replicas: int,
    pods: Pods | None = None,
    task: Mapping[str, Any] | None = None,
) -> Object:
    """Create the object of a part.

    Raises:
        ApiError: The cluster refused it.
    """
    obj = batch_sandbox(
        name,
        job.namespace,
        notes,
        lease_end=await cluster.server_time() + job.lease,
        grace=job.connection.config.expire_grace,
        replicas=replicas,
        pods=pods,
        task=task,
    )
    made = await cluster.create(obj)
    job.connection.put(notes.run_id, made)
    return made


# -- from images


def template_of(connection: Connection, spec: EnvironmentSpec, notes: Notes, namespace: str) -> Pods:
    """Build the pods of a part that is made from images."""
    places = _places(connection, notes, namespace)
    held = dependencies(spec, notes.part, len(places))
    wanted = [(service, place) for service in notes.part for place in places]
    bodies = [
        pod(spec, service, place, connection.config, held_back=index in held) for index, (service, place) in enumerate(wanted)
    ]
    return template_pods(bodies)


def _places(connection: Connection, notes: Notes, namespace: str) -> list[Any]:
    common = labels(notes)
    return [placement(name, notes, namespace, common | {ENVIRONMENT_ID: name}, connection.config) for name in notes.environments]


async def _from_images(job: Job, cluster: Cluster, name: str, notes: Notes) -> dict[str, PodState]:
    """Make the object without pods, what the pods need, and then the pods: so everything belongs to the one object."""
    async with cluster.pods(job.namespace, f"{RUN_ID}={notes.run_id}") as watch:
        pods = template_of(job.connection, job.spec, notes, job.namespace)
        owner = await create_part(job, cluster, name, notes, replicas=0, pods=pods)
        needed = owned(template_objects(job.spec, notes, _places(job.connection, notes, job.namespace)), owner)
        await together(cluster.create(obj) for obj in needed)
        replicas = len(notes.part) * len(job.claims)
        await cluster.patch(KIND, name, {"spec": {"replicas": replicas}}, namespace=job.namespace)
        ready = await _ready(job, cluster, watch, name, notes, _Aliases(job, cluster, watch, notes, owner))
        return {state.name: state for state in ready}


async def _ready(job: Job, cluster: Cluster, watch: PodWatch, name: str, notes: Notes, aliases: _Aliases) -> list[PodState]:
    places = {f"{name}-{index}": place for index in range(len(notes.part) * len(job.claims)) if (place := notes.place(index))}
    needs = {
        f"{name}-{index}": {f"{name}-{other}": condition for other, condition in others.items()}
        for index, others in dependencies(job.spec, notes.part, len(job.claims)).items()
    }

    async def named(pod: str) -> None:
        await together(aliases.of(other, places[other]) for other in needs[pod])

    ready = wait_ready(
        watch,
        list(places),
        owners=[name],
        emit=_of_environment(job, notes, name),
        deadline=job.deadline,
        done=_done(job),
        backend=BACKEND,
        run_id=notes.run_id,
    )
    services = {pod: service for pod, (_, service) in places.items()}
    with Gates(cluster, watch, needs, job.namespace, before=named) as gates:
        try:
            found = await first_of(ready, until_unhealthy(watch, job.spec, services), gates.failed())
        except ProvisionError as error:
            if error.service == name:
                raise _of_service(error, name, notes) from error
            better = _of_dependency(error, gates, services) if isinstance(error, ProvisionTimeoutError) else None
            if better is not None:
                raise better from error
            if not error.service:  # no pod is there that it could be about
                waited = ", ".join(map(repr, notes.part))
                raise type(error)(f"services {waited}: {error.message}", hint=error.hint) from error
            raise
    await together(aliases.of(pod, place) for pod, place in places.items())
    return found


def _of_dependency(error: ProvisionTimeoutError, gates: Gates, services: Mapping[str, str]) -> ProvisionTimeoutError | None:
    """Name what a service waited for, where it was not started in time and nothing worse is known."""
    for waiting, service in services.items():
        need = gates.held_by(waiting)
        if need is not None and error.service in (service, None):
            other, condition = services[need[0]], need[1]
            what = f"service {service!r} was not started in time: service {other!r}, which it depends on, was not {condition}"
            return ProvisionTimeoutError(what, service=other, hint=f"give {other!r} more time, or correct the dependency")
    return None


def _of_service(error: ProvisionError, name: str, notes: Notes) -> ProvisionError:
    """Name the service where the cluster named the BatchSandbox: it refused one of its pods."""
    found = re.search(rf"\b{re.escape(name)}-(\d+)\b", error.message)
    place = notes.place(int(found[1]) if found else 0)
    service = place[1] if place else notes.part[0]
    message = error.message.replace(f"service {name!r}", f"service {service!r}", 1)
    return type(error)(message, service=service, hint=error.hint)


class _Aliases:
    """The further names of services: each is there before what depends on its service starts."""

    def __init__(self, job: Job, cluster: Cluster, watch: PodWatch, notes: Notes, owner: Object) -> None:
        self._spec = job.spec
        self._cluster = cluster
        self._watch = watch
        self._owner = owner
        self._places = _places(job.connection, notes, job.namespace)
        self._locks: dict[str, asyncio.Lock] = {}
        self._made: set[str] = set()

    async def of(self, pod: str, place: tuple[int, str]) -> None:
        """Make those of a pod, which has its address. Idempotent."""
        async with self._locks.setdefault(pod, asyncio.Lock()):
            state = self._watch.get(pod)
            if pod in self._made or state is None or not state.ip:
                return
            made = alias_slice(self._spec, place[1], self._places[place[0]], state.ip)
            if made is not None:
                await self._cluster.create(owned([made], self._owner)[0])
            self._made.add(pod)


def _done(job: Job) -> Any:
    default = job.spec.default_service

    def done(state: PodState) -> bool:
        return (state.ready and not state.deleted) or (state.succeeded and state.service != default)

    return done


def _of_environment(job: Job, notes: Notes, name: str) -> Any:
    """Say of which environment of the batch an event is, by the pod that it is about."""

    def emit(event: Event) -> None:
        text = str(event.attributes.get("pod", "")).removeprefix(f"{name}-")
        place = notes.place(int(text)) if text.isdigit() else None
        job.emit(event.replace(environment_id=notes.environments[place[0] if place else 0]))

    return emit
