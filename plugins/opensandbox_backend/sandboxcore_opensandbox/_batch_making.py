"""Make one batch: its objects, the pods from images stage by stage, those from pools as they are given; then what they need."""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from sandboxcore.errors import ProvisionError
from sandboxcore_kubernetes import wait_ready
from sandboxcore_kubernetes.naming import ENVIRONMENT_ID, RUN_ID
from sandboxcore_kubernetes.objects import alias_slice

from ._batch_watch import KIND
from ._describe import BACKEND, environments
from ._health import until_unhealthy
from ._notes import READY, Notes, labels
from ._objects import owned, placement, pod, template_objects
from ._parts import Pods, Stage, batch_sandbox, stages, template_pods
from ._together import first_of, together

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
    from ._pool_making import fill_from_pools

    cluster = await job.connection.cluster()
    watch = await job.connection.batches(job.claims[0].run_id)
    templates = [(name, notes) for name, notes in job.parts if not notes.pool]
    pooled = [(name, notes) for name, notes in job.parts if notes.pool]
    pods: dict[str, PodState] = {}
    works = [_from_images(job, cluster, name, notes) for name, notes in templates]
    if pooled:
        works.append(fill_from_pools(job, cluster, watch, pooled))
    for made in await together(works):
        pods |= made
    objects = await together(_mark_ready(cluster, job, name) for name, _ in job.parts)
    found = {ref.environment_id: ref for ref in environments(objects, pods)}
    missing = [claim.environment_id for claim in job.claims if claim.environment_id not in found]
    if missing:
        raise ProvisionError(f"environment {missing[0]!r} was destroyed while it was being made")
    return [dataclasses.replace(found[claim.environment_id], state="ready") for claim in job.claims]


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
        lease_end=time.time() + job.lease,
        grace=job.connection.config.expire_grace,
        replicas=replicas,
        pods=pods,
        task=task,
    )
    made = await cluster.create(obj)
    (await job.connection.batches(notes.run_id)).put(made)
    return made


# -- from images


def template_of(connection: Connection, spec: EnvironmentSpec, notes: Notes, namespace: str) -> Pods:
    """Build the pods of a part that is made from images."""
    places = _places(connection, notes, namespace)
    bodies = [pod(spec, service, place, connection.config) for service in notes.part for place in places]
    return template_pods(bodies)


def _places(connection: Connection, notes: Notes, namespace: str) -> list[Any]:
    common = labels(notes)
    return [placement(name, notes, namespace, common | {ENVIRONMENT_ID: name}, connection.config) for name in notes.environments]


async def _from_images(job: Job, cluster: Cluster, name: str, notes: Notes) -> dict[str, PodState]:
    """Make the object without pods, what the pods need, and then the pods: so everything belongs to the one object."""
    waves = stages(job.spec, notes.part, len(job.claims))
    async with cluster.pods(job.namespace, f"{RUN_ID}={notes.run_id}") as watch:
        pods = template_of(job.connection, job.spec, notes, job.namespace)
        owner = await create_part(job, cluster, name, notes, replicas=0, pods=pods)
        needed = owned(template_objects(job.spec, notes, _places(job.connection, notes, job.namespace)), owner)
        await together(cluster.create(obj) for obj in needed)
        found: dict[str, PodState] = {}
        for wave in waves:
            await cluster.patch(KIND, name, {"spec": {"replicas": wave.upto}}, namespace=job.namespace)
            ready = await _ready(job, watch, name, notes, wave)
            found |= {state.name: state for state in ready}
            slices = list(_aliases(job, notes, dict(zip(wave.indices, ready, strict=True))))
            await together(cluster.create(obj) for obj in owned(slices, owner))
        return found


async def _ready(job: Job, watch: PodWatch, name: str, notes: Notes, wave: Stage) -> list[PodState]:
    names = [f"{name}-{index}" for index in wave.indices]
    services = {f"{name}-{index}": place[1] for index in wave.indices if (place := notes.place(index))}
    ready = wait_ready(
        watch,
        names,
        owners=[name],
        emit=_of_environment(job, notes, name),
        deadline=job.deadline,
        done=_done(job),
        backend=BACKEND,
        run_id=notes.run_id,
    )
    try:
        return await first_of(ready, until_unhealthy(watch, job.spec, services))
    except ProvisionError as error:
        if error.service == name:
            raise _of_service(error, name, notes, wave) from error
        raise


def _of_service(error: ProvisionError, name: str, notes: Notes, wave: Stage) -> ProvisionError:
    """Name the service where the cluster named the BatchSandbox: it refused one of its pods."""
    found = re.search(rf"\b{re.escape(name)}-(\d+)\b", error.message)
    place = notes.place(int(found[1]) if found else wave.indices[0])
    service = place[1] if place else notes.part[0]
    message = error.message.replace(f"service {name!r}", f"service {service!r}", 1)
    return type(error)(message, service=service, hint=error.hint)


def _aliases(job: Job, notes: Notes, ready: Mapping[int, PodState]) -> Iterator[Object]:
    """Build the further names of services, now that their pods have addresses."""
    places = _places(job.connection, notes, job.namespace)
    for index, state in ready.items():
        place = notes.place(index)
        if place is not None and state.ip:
            found = alias_slice(job.spec, place[1], places[place[0]], state.ip)
            if found is not None:
                yield found


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
