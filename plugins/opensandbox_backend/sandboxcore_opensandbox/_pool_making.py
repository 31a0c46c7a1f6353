"""Fill parts of a batch from their pools: all of them, or an error that says who has the pods."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime
import itertools
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sandboxcore._at_once import together
from sandboxcore.errors import ProvisionError, ProvisionTimeoutError, ServiceFailedError
from sandboxcore.values import Event
from sandboxcore_kubernetes import ApiError, diagnose

from ._batch_making import create_part
from ._batch_watch import KIND
from ._contest import Claimant, Contest
from ._names import POOL_LABEL
from ._notes import READY, Notes, allocated, read, released
from ._objects import owned
from ._pool_fit import room
from ._pool_looks import LOOK_SECONDS
from ._secrets import secret_object
from ._standing import Standing
from ._stuck import PATIENCE, until_gone
from ._tasks import task_spec, tasks_running

if TYPE_CHECKING:
    from sandboxcore_kubernetes import Cluster, PodState

    from ._batch_watch import BatchWatch
    from ._contest import PoolRoom
    from ._making import Job
    from ._pool_looks import PoolLooks

__all__ = ("Patience", "claimants", "exhausted", "fill_from_pools")

Object = Mapping[str, Any]
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

    looks = await job.connection.looks()
    patience = Patience(job.connection.config.pool_wait)
    for attempt in itertools.count(1):
        asked = [(name, _of_attempt(notes, attempt)) for name, notes in parts]
        await together(_ask(job, cluster, name, notes) for name, notes in asked)
        elders = await _given(job, cluster, watch, looks, asked, patience)
        if not elders:
            break
        patience.looked(asyncio.get_running_loop().time(), full=False)  # until its pods were taken back, the time does not count
        await _let_go(job, cluster, watch, tuple(name for name, _ in asked))
        await _until_served(job, looks, elders, asked, patience)
    states = await together(_take(job, cluster, watch, name, notes) for name, notes in asked)
    await prepare(job, cluster, [(notes, pods) for (_, notes), pods in zip(asked, states, strict=True)])
    await together(tasks_running(job, watch, name, notes) for name, notes in asked)
    for (_, notes), pods in zip(asked, states, strict=True):
        _tell(job, notes, pods)
    return {state.name: state for pods in states for state in pods}


def _of_attempt(notes: Notes, attempt: int) -> Notes:
    """Give a part's Secret another name each time: the one of the last attempt may be there for a while."""
    return notes if attempt == 1 or not notes.secret else dataclasses.replace(notes, secret=f"{notes.secret}-{attempt}")


async def _ask(job: Job, cluster: Cluster, name: str, notes: Notes) -> None:
    """Create the object that asks a pool for pods, and the Secret that goes with it."""
    wanted = len(notes.part) * len(job.claims)
    owner = await create_part(job, cluster, name, notes, replicas=wanted, task=task_spec(job.spec, notes, len(job.claims)))
    secret = secret_object(notes.secret, job.spec, notes.part) if notes.secret else None
    if secret is not None:
        secret["metadata"] |= {"namespace": job.namespace, "labels": owner["metadata"]["labels"]}
        await cluster.create(owned([secret], owner)[0])


# -- waiting for pods


class Patience:
    """How long pools that are full are waited for.

    Args:
        seconds: In all; while a pool is not full, the time does not count.
    """

    def __init__(self, seconds: float) -> None:
        self._left = seconds
        self._full_since: float | None = None

    def looked(self, now: float, *, full: bool) -> bool:
        """Take what was seen; returns whether it is over."""
        if self._full_since is not None:
            self._left -= now - self._full_since
        self._full_since = now if full else None
        return full and self._left <= 0


async def _given(
    job: Job, cluster: Cluster, watch: BatchWatch, looks: PoolLooks, parts: Sequence[tuple[str, Notes]], patience: Patience
) -> tuple[str, ...]:
    """Wait until all pods were given. Returns the older batches that have to be let past, if there are any."""
    loop = asyncio.get_running_loop()
    names = tuple(name for name, _ in parts)
    wanted = {name: len(notes.part) * len(job.claims) for name, notes in parts}
    contest = Contest(job.batch)
    pools = {pool: _OfPool(pool, [part for part in parts if part[1].pool == pool], wanted) for pool in {n.pool for _, n in parts}}

    def complete() -> bool | None:
        return not any(pool.lacks(watch) for pool in pools.values()) or None

    def left() -> float:
        return max(0.0, job.deadline - loop.time())

    while await watch.wait_for(names, complete, timeout=min(LOOK_SECONDS, left())) is None:
        lost = next((name for name in names if watch.get(name) is None), None)
        if lost is not None:
            raise ProvisionError(f"BatchSandbox {lost!r} was deleted by somebody else while it waited for its pool")
        found, everyone = await together(looks.pool(name) for name in pools), await looks.requests()
        rooms = {name: room(pool) for name, pool in zip(pools, found, strict=True)}
        full = [name for name, pool in pools.items() if pool.lacks(watch) > rooms[name].free]
        over = patience.looked(loop.time(), full=bool(full)) or not left()
        if not over and (elders := _elders(contest, loop.time(), everyone, rooms, names)):
            return elders
        for (name, pool), obj in zip(pools.items(), found, strict=True):
            if pool.wanted > rooms[name].maximum or (over and name in full):
                raise exhausted(obj, everyone, pool.wanted, job.batch)
            if pool.lacks(watch):
                await pool.check(job, cluster, obj, everyone, late=not left())
    return ()


def _elders(
    contest: Contest, now: float, objects: Sequence[Object], rooms: Mapping[str, PoolRoom], names: Sequence[str]
) -> tuple[str, ...]:
    if not {obj["metadata"]["name"] for obj in objects}.issuperset(names):  # they were not listed yet
        return ()
    return contest.look(now, claimants(objects), rooms).elders


class _OfPool:
    """What a batch wants of one pool."""

    def __init__(self, name: str, parts: Sequence[tuple[str, Notes]], wanted: Mapping[str, int]) -> None:
        self._name = name
        self._each = {part: wanted[part] for part, _ in parts}
        self._service = parts[0][1].part[0]
        self._standing = Standing()
        self.wanted = sum(self._each.values())

    def lacks(self, watch: BatchWatch) -> int:
        """Count the pods that were not given yet."""
        return sum(max(0, wanted - len(allocated(watch.get(part) or _NOTHING))) for part, wanted in self._each.items())

    async def check(self, job: Job, cluster: Cluster, pool: Object, objects: Iterable[Object], *, late: bool) -> None:
        """Give up when the pool's own pods can't start, since it says nothing of that, or when the time is up.

        Raises:
            ProvisionError: With the cause.
        """
        taken = {pod for obj in objects for pod in set(allocated(obj)) - set(released(obj))}
        async with cluster.pods(job.namespace, f"{POOL_LABEL}={self._name}") as watch:
            ripe = self._standing.ripe(watch, asyncio.get_running_loop().time())
            causes = [cause for cause in ripe if cause.pod not in taken]
            hopeless = {*taken, *(cause.pod for cause in causes)}
            working = any(state.name not in hopeless and not state.deleted for state in watch.pods.values())
        why = f"{causes[0].message} (pod {causes[0].pod})" if causes else ""
        if causes and not working:
            what = f"pods of pool {self._name!r} can't start: {why}"
            raise ProvisionError(what, service=self._service, hint=causes[0].hint or None)
        if late:
            raise ProvisionTimeoutError(
                f"service {self._service!r}: pool {self._name!r} gave less than {self.wanted} pods in time: {_numbers(pool)}"
                + (f"; {why}" if why else ""),
                service=self._service,
                hint="is the OpenSandbox controller running, and has the cluster room? sandboxcore doctor -b opensandbox",
            )


_NOTHING: Object = {"metadata": {}}


def claimants(objects: Iterable[Object]) -> list[Claimant]:
    """Read who asks a pool for what; one that is ready, or on its way out, asks for nothing more."""
    found = []
    for obj in objects:
        metadata, given = obj["metadata"], len(allocated(obj))
        satisfied = READY in (metadata.get("annotations") or {}) or "deletionTimestamp" in metadata
        notes = read(obj)
        created = metadata.get("creationTimestamp")
        found.append(
            Claimant(
                batch=notes.batch if notes else metadata["name"],
                pool=obj["spec"]["poolRef"],
                queued=notes.queued if notes else datetime.datetime.fromisoformat(created).timestamp() if created else 0.0,
                wants=given if satisfied else int(obj["spec"].get("replicas") or 0),
                has=given,
            )
        )
    return found


def exhausted(pool: Object, objects: Iterable[Object], wanted: int, batch: str) -> ProvisionError:
    """Say what a pool has, and who besides the batch has the rest."""
    pool_name = pool["metadata"]["name"]
    holders = [
        (len(allocated(obj)), f"{obj['metadata']['name']} ({_owner(obj)}): {len(allocated(obj))}")
        for obj in objects
        if allocated(obj) and obj["spec"]["poolRef"] == pool_name and _batch(obj) != batch
    ]
    listed = ", ".join(text for _, text in sorted(holders, key=lambda holder: (-holder[0], holder[1]))[:10])
    return ProvisionError(
        f"pool {pool_name!r} has no room for {wanted} pods: {_numbers(pool)}; held by {listed or 'nobody that can be seen'}",
        hint=f"sandboxcore opensandbox pool scale {pool_name} --pool-max N, or wait longer: pool_wait",
    )


def _numbers(pool: Object) -> str:
    has = room(pool)
    return f"total {has.total}, allocated {has.allocated}, available {has.available}, poolMax {has.maximum}"


def _owner(obj: Object) -> str:
    notes = read(obj)
    return notes.owner if notes else "not sandboxcore's"


def _batch(obj: Object) -> str:
    notes = read(obj)
    return notes.batch if notes else ""


# -- letting others past


async def _let_go(job: Job, cluster: Cluster, watch: BatchWatch, names: tuple[str, ...]) -> None:
    """Give all pods back, and wait until the pools have taken them.

    Raises:
        ApiError: One is still there; the message says what keeps it.
        ProvisionTimeoutError: The time is up before that can be said.
    """
    await asyncio.gather(*(cluster.delete(KIND, name, namespace=job.namespace) for name in names))
    left = max(0.1, job.deadline - asyncio.get_running_loop().time())
    strip = job.connection.config.strip_finalizers
    try:
        await until_gone(cluster, watch, names, strip=strip, patience=min(PATIENCE, left))
    except ApiError as error:
        if asyncio.get_running_loop().time() < job.deadline:
            raise
        raise ProvisionTimeoutError(
            f"the pods of batch {job.batch} did not come in time; it let older batches past, and {error.message}",
            hint="give it more time: timeout",
        ) from error


async def _until_served(
    job: Job, looks: PoolLooks, elders: Sequence[str], parts: Sequence[tuple[str, Notes]], patience: Patience
) -> None:
    """Wait until older batches have what they need, or are gone; or until the time is up.

    Raises:
        ProvisionError: The pools were full for as long as that may be waited for.
    """
    loop = asyncio.get_running_loop()
    wanted: Counter[str] = Counter()
    for _, notes in parts:
        wanted[notes.pool] += len(notes.part) * len(job.claims)
    while loop.time() < job.deadline:
        everyone = await looks.requests()
        if not any(claimant.hungry for claimant in claimants(everyone) if claimant.batch in elders):
            return
        full = [pool for name in wanted if wanted[name] > room(pool := await looks.pool(name)).free]
        if patience.looked(loop.time(), full=bool(full)):
            raise exhausted(full[0], everyone, wanted[full[0]["metadata"]["name"]], job.batch)
        await asyncio.sleep(LOOK_SECONDS)


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
