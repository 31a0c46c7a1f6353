"""Fill parts of a batch from their pools: all of them, or an error that says who has the pods."""

from __future__ import annotations

import asyncio
import datetime
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sandboxcore.errors import ProvisionError, ProvisionTimeoutError, ServiceFailedError
from sandboxcore.values import Event
from sandboxcore_kubernetes import ApiError, diagnose

from ._batch_making import create_part
from ._batch_watch import KIND
from ._contest import Claimant, Contest, Decision, Verdict
from ._names import POOL_LABEL
from ._notes import READY, Notes, allocated, read
from ._objects import owned
from ._pool_fit import POOL, no_pool, room
from ._secrets import secret_object
from ._standing import Standing
from ._tasks import task_spec, tasks_running
from ._together import together

if TYPE_CHECKING:
    from sandboxcore_kubernetes import Cluster, PodState

    from ._batch_watch import BatchWatch
    from ._making import Job

__all__ = ("claimants", "exhausted", "fill_from_pools")

Object = Mapping[str, Any]
#: Seconds between looks at a pool while pods are missing.
_LOOK = 0.5
#: Seconds that pods which were handed out may take to show up in the watch, or to be ready again.
_HANDED_OUT = 15.0


async def fill_from_pools(
    job: Job, cluster: Cluster, watch: BatchWatch, parts: Sequence[tuple[str, Notes]]
) -> dict[str, PodState]:
    """Have the pools give all pods that the parts need, and make them what their services want.

    Raises:
        ProvisionError: The pools can't; the message has their numbers and who holds their pods. The parts are there still.
    """
    from ._preparing import prepare

    loop = asyncio.get_running_loop()
    give_up = min(job.deadline, loop.time() + job.connection.config.pool_wait)
    while True:
        await together(_ask(job, cluster, name, notes) for name, notes in parts)
        elders = await _given(job, cluster, watch, parts, give_up)
        if not elders:
            break
        await _let_go(cluster, watch, job, parts)
        await _until_served(cluster, job, elders, give_up)
    states = await together(_take(job, cluster, watch, name, notes) for name, notes in parts)
    await prepare(job, cluster, [(notes, pods) for (_, notes), pods in zip(parts, states, strict=True)])
    await together(tasks_running(job, watch, name, notes) for name, notes in parts)
    for (_, notes), pods in zip(parts, states, strict=True):
        _tell(job, notes, pods)
    return {state.name: state for pods in states for state in pods}


async def _ask(job: Job, cluster: Cluster, name: str, notes: Notes) -> None:
    """Create the object that asks a pool for pods, and the Secret that goes with it."""
    wanted = len(notes.part) * len(job.claims)
    owner = await create_part(job, cluster, name, notes, replicas=wanted, task=task_spec(job.spec, notes, len(job.claims)))
    secret = secret_object(notes.secret, job.spec, notes.part) if notes.secret else None
    if secret is not None:
        secret["metadata"] |= {"namespace": job.namespace, "labels": owner["metadata"]["labels"]}
        await cluster.create(owned([secret], owner)[0])


# -- waiting for pods


async def _given(
    job: Job, cluster: Cluster, watch: BatchWatch, parts: Sequence[tuple[str, Notes]], give_up: float
) -> tuple[str, ...]:
    """Wait until all pods were given. Returns the names of older requests that have to be let past, if there are any."""
    loop = asyncio.get_running_loop()
    names = tuple(name for name, _ in parts)
    wanted = {name: len(notes.part) * len(job.claims) for name, notes in parts}
    contests = {name: Contest(name) for name in names}
    standing = {name: Standing() for name in names}

    def complete() -> bool | None:
        return all(len(allocated(watch.get(name) or _NOTHING)) >= wanted[name] for name in names) or None

    while await watch.wait_for(names, complete, timeout=_LOOK) is None:
        lost = next((name for name in names if watch.get(name) is None), None)
        if lost is not None:
            raise ProvisionError(f"BatchSandbox {lost!r} was deleted by somebody else while it waited for its pool")
        for name, notes in parts:
            pool, everyone = await _look(cluster, notes.pool)
            verdict = _judge(contests[name], loop.time(), everyone, pool, name)
            late = loop.time() >= give_up
            if verdict.decision is Decision.YIELD and not late:
                return verdict.elders
            full = room(pool).free < wanted[name] - len(allocated(watch.get(name) or _NOTHING))
            if verdict.decision is Decision.IMPOSSIBLE or (late and full):
                raise exhausted(pool, everyone, wanted[name], name)
            if verdict.decision is not Decision.GRANTED:
                await _check_pods(cluster, job, pool, notes, standing[name], late=late, wanted=wanted[name])
    return ()


_NOTHING: Object = {"metadata": {}}


async def _look(cluster: Cluster, name: str) -> tuple[Object, list[Object]]:
    try:
        pool, found = await asyncio.gather(cluster.get(POOL, name), cluster.list(KIND))
    except ApiError as error:
        if error.status == 404:
            raise await no_pool(cluster, name) from error
        raise
    return pool, [obj for obj in found["items"] if obj["spec"].get("poolRef") == name and "template" not in obj["spec"]]


def _judge(contest: Contest, now: float, objects: Iterable[Object], pool: Object, name: str) -> Verdict:
    everyone = claimants(objects)
    if name not in {claimant.name for claimant in everyone}:  # it was not listed yet
        return Verdict(decision=Decision.WAIT)
    return contest.look(now, everyone, room(pool))


def claimants(objects: Iterable[Object]) -> list[Claimant]:
    """Read who asks a pool for what; one that is ready, or on its way out, asks for nothing more."""
    found = []
    for obj in objects:
        metadata, given = obj["metadata"], len(allocated(obj))
        satisfied = READY in (metadata.get("annotations") or {}) or "deletionTimestamp" in metadata
        notes = read(obj)
        created = metadata.get("creationTimestamp")
        since = notes.queued if notes else datetime.datetime.fromisoformat(created).timestamp() if created else 0.0
        wants = given if satisfied else int(obj["spec"].get("replicas") or 0)
        found.append(Claimant(name=metadata["name"], queued=since, wants=wants, has=given))
    return found


def exhausted(pool: Object, objects: Iterable[Object], wanted: int, name: str) -> ProvisionError:
    """Say what a pool has, and who has the rest."""
    has, pool_name = room(pool), pool["metadata"]["name"]
    holders = sorted(
        (f"{obj['metadata']['name']} ({_owner(obj)}): {len(allocated(obj))}", len(allocated(obj)))
        for obj in objects
        if allocated(obj) and obj["metadata"]["name"] != name
    )
    listed = ", ".join(text for text, _ in sorted(holders, key=lambda holder: -holder[1])[:10]) or "nobody that can be seen"
    numbers = f"total {has.total}, allocated {has.allocated}, available {has.available}, poolMax {has.maximum}"
    return ProvisionError(
        f"pool {pool_name!r} has no room for {wanted} pods: {numbers}; held by {listed}",
        hint=f"sandboxcore opensandbox pool scale {pool_name} --pool-max N, or wait longer: pool_wait",
    )


def _owner(obj: Object) -> str:
    notes = read(obj)
    return notes.owner if notes else "not sandboxcore's"


async def _check_pods(
    cluster: Cluster, job: Job, pool: Object, notes: Notes, standing: Standing, *, late: bool, wanted: int
) -> None:
    """Give up when the pool's own pods can't start: it says nothing of that."""
    async with cluster.pods(job.namespace, f"{POOL_LABEL}={notes.pool}") as watch:
        causes = standing.ripe(watch, asyncio.get_running_loop().time())
        working = any(state.ready for state in watch.pods.values())
    has = room(pool)
    if causes and not working:
        worst = causes[0]
        what = f"pods of pool {notes.pool!r} can't start: {worst.message} (pod {worst.pod})"
        raise ProvisionError(what, service=notes.part[0], hint=worst.hint or None)
    if late:
        numbers = f"total {has.total}, allocated {has.allocated}, available {has.available}, poolMax {has.maximum}"
        raise ProvisionTimeoutError(
            f"service {notes.part[0]!r}: pool {notes.pool!r} gave less than {wanted} pods in time: {numbers}",
            service=notes.part[0],
            hint="is the OpenSandbox controller running, and has the cluster room? sandboxcore doctor -b opensandbox",
        )


# -- letting others past


async def _let_go(cluster: Cluster, watch: BatchWatch, job: Job, parts: Sequence[tuple[str, Notes]]) -> None:
    """Give all pods back."""
    names = tuple(name for name, _ in parts)
    await asyncio.gather(*(cluster.delete(KIND, name, namespace=job.namespace) for name in names))
    await watch.wait_for(names, lambda: all(watch.get(name) is None for name in names) or None, timeout=60.0)


async def _until_served(cluster: Cluster, job: Job, elders: Sequence[str], give_up: float) -> None:
    """Wait until older requests have what they need, or are gone."""
    loop = asyncio.get_running_loop()
    while loop.time() < give_up:
        objects = (await cluster.list(KIND))["items"]
        if not any(claimant.hungry for claimant in claimants(objects) if claimant.name in elders):
            return
        await asyncio.sleep(_LOOK)


# -- having them


async def _take(job: Job, cluster: Cluster, watch: BatchWatch, name: str, notes: Notes) -> list[PodState]:
    """See that the pods which were given are there and ready; the controller does not replace one that is not."""
    obj = watch.get(name)
    if obj is None:
        raise ProvisionError(f"BatchSandbox {name!r} was deleted by somebody else while it was being made")
    names = allocated(obj)[: len(notes.part) * len(job.claims)]
    left = max(0.1, min(job.deadline - asyncio.get_running_loop().time(), _HANDED_OUT))
    async with cluster.pods(job.namespace, f"{POOL_LABEL}={notes.pool}") as pods:
        try:
            await pods.wait_for(lambda now: all((pod := now.get(each)) is not None and pod.ready for each in names), timeout=left)
        except TimeoutError:
            raise _dead(pods.pods, names, notes) from None
        return [state for each in names if (state := pods.get(each)) is not None]


def _dead(pods: Mapping[str, PodState], names: Sequence[str], notes: Notes) -> ProvisionError:
    index, bad = next((index, each) for index, each in enumerate(names) if each not in pods or not pods[each].ready)
    place = notes.place(index)
    service = place[1] if place else notes.part[0]
    state = pods.get(bad)
    causes = diagnose(state) if state is not None else ()
    why = causes[0].message if causes else "it is gone" if state is None else f"it is {state.phase}"
    return ServiceFailedError(
        f"service {service!r}: pod {bad} that pool {notes.pool!r} gave is not ready: {why}",
        service=service,
        hint="the controller does not replace pods that it has handed out; try again",
    )


def _tell(job: Job, notes: Notes, pods: Sequence[PodState]) -> None:
    for index, state in enumerate(pods):
        place = notes.place(index)
        if place is not None:
            attributes = {"pod": state.name, "node": state.node, "pool": notes.pool}
            environment_id = notes.environments[place[0]]
            event = Event(name="service.ready", time=time.time(), service=place[1], attributes=attributes)
            job.emit(event.replace(environment_id=environment_id))
