"""Takes releases away, many with a few requests, and waits until they are gone: objects first, records last.

What a release consists of is read from its records, so that any process can do it, also for one that was half-made: the record is
the first thing that is created and the last that is deleted.
"""

from __future__ import annotations

import asyncio
import re
from collections import defaultdict
from collections.abc import AsyncIterator, Collection, Coroutine, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, TypeVar, cast

from sandboxcore.errors import SandboxError
from sandboxcore_kubernetes.errors import ApiError, sandbox_error

from ._doomed import Claims, Doomed, Kind, Named, instances, look, ours, plain
from ._hookrun import run_delete_hooks
from ._manifest import WORKLOADS
from ._record import OWNED

if TYPE_CHECKING:
    from sandboxcore_kubernetes.cluster import Cluster

__all__ = ("GUEST", "Remover")

T = TypeVar("T")
#: Environments to what becomes of the removal of each.
_Outcomes: TypeAlias = dict[str, asyncio.Future[None]]

#: Label of a ConfigMap with the guest.
GUEST = "sandboxcore.dev/guest"

#: Seconds in which removals that are asked for together become one.
_TOGETHER = 0.02
#: Most environments that one selector names: URLs of some servers and proxies end at 8 KiB.
_MOST = 200
_LOOK_SECONDS = (0.05, 0.1, 0.2, 0.3, 0.5, 1.0)
_GIVE_UP_SECONDS = 110.0
#: Most objects that a message names.
_MOST_NAMED = 5

#: From how many objects of a kind on one list is read in place of each.
_WORTH_A_LIST = 2
#: What the helm program gives to every object of a release, though not to hooks.
_BY_HELM = "app.kubernetes.io/managed-by=Helm"


class Remover:
    """Gathers removals of environments and does them together."""

    def __init__(self, cluster: Cluster, *, grace: float | None) -> None:
        self._cluster = cluster
        self._grace = grace
        self._asked: dict[tuple[str, bool], _Outcomes] = {}

    async def remove(self, namespace: str, environment_id: str, *, hooks: bool = True) -> None:
        """Take an environment away and wait until it is gone. Idempotent.

        Args:
            hooks: Run the hooks of its deletion, if it was ever whole.

        Raises:
            SandboxError: It is not gone, with what is left and why. It is found again by discovery.
        """
        asked = self._asked.get((namespace, hooks))
        if asked is None:
            asked = self._asked[namespace, hooks] = {}
            task = asyncio.ensure_future(self._gather(namespace, hooks))
            task.add_done_callback(_log_nothing)
        outcome = asked.get(environment_id)
        if outcome is None:
            outcome = asked[environment_id] = asyncio.get_running_loop().create_future()
            outcome.add_done_callback(_log_nothing)
        await asyncio.shield(outcome)

    async def _gather(self, namespace: str, hooks: bool) -> None:
        await asyncio.sleep(_TOGETHER)
        asked = list(self._asked.pop((namespace, hooks)).items())
        deadline = asyncio.get_running_loop().time() + _GIVE_UP_SECONDS
        await _every(
            self._batch(namespace, dict(asked[start : start + _MOST]), deadline, hooks=hooks)
            for start in range(0, len(asked), _MOST)
        )

    async def _batch(self, namespace: str, asked: _Outcomes, deadline: float, *, hooks: bool) -> None:
        """Remove these and settle each one's outcome as soon as it is known."""
        try:
            async with asyncio.timeout_at(deadline):
                doomed = await look(self._cluster, namespace, asked)
        except Exception as error:
            _fail(asked.values(), error)
            return
        if not hooks:
            doomed.departing.clear()
        for name, outcome in asked.items():
            if name in doomed.failed:
                _fail([outcome], doomed.failed[name])
            elif name not in doomed.environments:
                outcome.set_result(None)
        # Hooks may take long; those of one hold no other one.
        apart = doomed.hooked - doomed.failed.keys()
        parts = [{name} for name in apart] + [doomed.environments - doomed.failed.keys() - apart]
        await _every(self._part(doomed.of(part), asked, deadline) for part in parts if part)

    async def _part(self, doomed: Doomed, asked: _Outcomes, deadline: float) -> None:
        """Remove some, of which one alone may have hooks."""
        try:
            async with asyncio.timeout_at(deadline):
                await self._remove(doomed, asked)
        except Exception as error:
            for name in doomed.environments:
                _fail([asked[name]], error, doomed.left.get(name, ()))

    async def _remove(self, doomed: Doomed, asked: _Outcomes) -> None:
        await self._run_hooks(doomed, "pre-delete")
        await self._delete(doomed)
        async for done in self._going(doomed):
            if not doomed.failed.keys() & done:
                await self._run_hooks(doomed, "post-delete")
            if gone := done - doomed.failed.keys():
                selector = f"{OWNED},{ours(gone)}"
                await self._cluster.delete_collection("Secret", label_selector=selector, namespace=doomed.namespace)
            for name in done:
                if name in gone:
                    asked[name].set_result(None)
                else:
                    _fail([asked[name]], doomed.failed[name])

    async def _run_hooks(self, doomed: Doomed, event: str) -> None:
        """Run the hooks of an event, and take away what those after the deletion have left."""
        departing = [one for one in doomed.departing.values() if any(event in hook.events for hook in one.hooks)]
        await _every(run_delete_hooks(self._cluster, one.identity, one.hooks, event) for one in departing)
        if event == "post-delete" and departing:
            again = doomed.of_hooks()
            await self._delete(again)
            async for _ in self._going(again):
                pass

    async def _for(self, doomed: Doomed, work: Iterable[tuple[Iterable[str], Coroutine[Any, Any, T]]]) -> list[T | None]:
        """Do all of it at once; what fails stands against the environments that it is for, and against no other."""
        begun = list(work)
        outcomes = await asyncio.gather(*(one for _, one in begun), return_exceptions=True)
        for (environments, _), outcome in zip(begun, outcomes, strict=True):
            if isinstance(outcome, Exception):
                doomed.fail(environments, outcome)
        return [None if isinstance(outcome, BaseException) else outcome for outcome in outcomes]

    # -- deleting

    async def _delete(self, doomed: Doomed) -> None:
        namespace, pods = doomed.namespace, {"v1/Pod"} & doomed.kinds.keys()
        doomed.there = await self._find(doomed, doomed.named)
        # What makes pods goes first, then the pods, then what they use.
        makers = {kind for kind in doomed.kinds if plain(kind) in WORKLOADS} - pods
        await self._collections(doomed, makers)
        await self._for(doomed, ((_whose(one), self._named(*one)) for one in doomed.there.items() if _makes_pods(one[0])))
        await self._collections(doomed, pods)
        if doomed.controllers:
            made = instances(release for release, name in doomed.releases.items() if name in doomed.controllers)
            deletion = self._cluster.delete_collection("Pod", label_selector=made, namespace=namespace, grace=self._grace)
            await self._for(doomed, [(doomed.controllers, deletion)])
        await self._collections(doomed, doomed.kinds.keys() - makers - pods)
        await self._for(doomed, ((_whose(one), self._named(*one)) for one in doomed.there.items() if not _makes_pods(one[0])))
        await self._for(doomed, (((claims.environment,), self._claims(namespace, claims)) for claims in doomed.claims))
        guests = f"{ours(doomed.environments)},{GUEST}"
        await self._cluster.delete_collection("ConfigMap", label_selector=guests, namespace=namespace)

    async def _collections(self, doomed: Doomed, kinds: Iterable[Kind]) -> None:
        await self._for(doomed, ((doomed.kinds[kind], self._collection(doomed, kind)) for kind in kinds))

    async def _collection(self, doomed: Doomed, kind: Kind) -> None:
        await self._cluster.delete_collection(kind, label_selector=ours(doomed.kinds[kind]), namespace=doomed.namespace)

    async def _named(self, one: Named, found: Mapping[str, Any]) -> None:
        """Delete an object by its name and uid: another one may have that name by now."""
        grace = None
        if plain(one.kind) == "Pod" and self._grace is not None:
            grace = min(self._grace, float(found["spec"].get("terminationGracePeriodSeconds") or 0))
        await self._cluster.delete(one.kind, one.name, namespace=one.namespace, uid=found["metadata"]["uid"], grace=grace)

    async def _find(self, doomed: Doomed, named: Iterable[Named]) -> dict[Named, dict[str, Any]]:
        """Read those that are there and are their environments'; several of a kind with one request.

        One that a list has shown before is gone when it does not show it any more.
        """
        places: dict[tuple[Kind, str], list[Named]] = {}
        for one in named:
            places.setdefault((one.kind, one.namespace), []).append(one)
        found: dict[Named, dict[str, Any]] = {}
        await self._for(
            doomed,
            (
                ({one.environment for one in ones}, self._find_in(kind, place, ones, doomed, found))
                for (kind, place), ones in places.items()
            ),
        )
        return found

    async def _find_in(
        self, kind: Kind, place: str, ones: list[Named], doomed: Doomed, found: dict[Named, dict[str, Any]]
    ) -> None:
        listed = doomed.listed
        if len(ones) >= _WORTH_A_LIST or not listed.isdisjoint(ones):
            items = (await self._cluster.list(kind, namespace=place, label_selector=_BY_HELM))["items"]
            bodies = {item["metadata"]["name"]: item for item in items}
            shown = {one: bodies[one.name] for one in ones if one.name in bodies}
            listed.update(shown)
            found.update({one: body for one, body in shown.items() if one.is_shown_by(body)})
        await self._for(doomed, (((one.environment,), self._get(one, found)) for one in ones if one not in listed))

    async def _get(self, one: Named, found: dict[Named, dict[str, Any]]) -> None:
        try:
            body = await self._cluster.get(one.kind, one.name, namespace=one.namespace)
        except ApiError as error:
            if error.status != 404:
                raise
        else:
            if one.is_shown_by(body):
                found[one] = body

    async def _claims(self, namespace: str, claims: Claims) -> None:
        wanted = re.compile(rf"({'|'.join(map(re.escape, claims.templates))})-{re.escape(claims.owner)}-\d+")
        found = await self._cluster.list("PersistentVolumeClaim", namespace=namespace, label_selector=claims.selector)
        for item in found["items"]:
            name = item["metadata"]["name"]
            if wanted.fullmatch(name):
                await self._cluster.delete("PersistentVolumeClaim", name, namespace=namespace)

    # -- waiting

    async def _going(self, doomed: Doomed) -> AsyncIterator[set[str]]:
        """Yield environments of which nothing is left, or that failed, as that comes to be so, until it is so for all."""
        waiting, looks = doomed.environments, 0
        lists = [_List(kind) for kind in doomed.kinds] + ([_List("v1/Pod", by_release=True)] if doomed.controllers else [])
        while waiting:
            if failed := waiting & doomed.failed.keys():
                waiting -= failed
                yield failed
                continue
            # What goes soon goes together; only when one is slow is it worth to read whose the rest is.
            apart = len(waiting) == 1 or looks >= len(_LOOK_SECONDS)
            shown = await self._for(
                doomed, ((one.whose(doomed) & waiting, self._shown(one, doomed, waiting, apart=apart)) for one in lists)
            )
            left: defaultdict[str, list[str]] = defaultdict(list)
            for one, items in zip(lists, shown, strict=True):
                for item in items or ():
                    left[doomed.owner(item)].append(_described(one.kind, item))
            lists = [one for one, items in zip(lists, shown, strict=True) if items]
            if apart or not left:
                doomed.there = await self._still_there(doomed)
                for named, body in doomed.there.items():
                    left[named.environment].append(_described(named.kind, body))
                doomed.left |= {name: left[name] for name in waiting}
                gone = {name for name in waiting if not left[name]} - doomed.failed.keys()
                waiting -= gone
                if gone:
                    yield gone
            if waiting:
                await asyncio.sleep(_LOOK_SECONDS[min(looks, len(_LOOK_SECONDS) - 1)])
                looks += 1

    async def _shown(self, one: _List, doomed: Doomed, waiting: Collection[str], *, apart: bool) -> list[dict[str, Any]]:
        """List what is left of environments; unless they are to be told apart, whether anything is."""
        names = one.whose(doomed) & set(waiting)
        if not names:
            return []
        releases = [release for release, name in doomed.releases.items() if name in names]
        selector = instances(releases) if one.by_release else ours(names)
        path = (await self._cluster.resource(one.kind)).path(doomed.namespace)
        if apart:
            return list((await self._cluster.list_path(path, query={"labelSelector": selector}))["items"])
        found = await self._cluster.request("GET", path, query={"labelSelector": selector, "limit": "1"})
        return found.get("items") or []

    async def _still_there(self, doomed: Doomed) -> dict[Named, dict[str, Any]]:
        there = await self._find(doomed, doomed.there)
        uids = {one: body["metadata"]["uid"] for one, body in doomed.there.items()}
        return {one: body for one, body in there.items() if body["metadata"]["uid"] == uids[one]}


class _List(NamedTuple):
    """A kind of which the objects of environments are listed: by their label, or by that of their releases."""

    kind: Kind
    by_release: bool = False

    def whose(self, doomed: Doomed) -> set[str]:
        return doomed.controllers if self.by_release else doomed.kinds[self.kind]


def _whose(one: tuple[Named, Any]) -> tuple[str]:
    return (one[0].environment,)


def _makes_pods(one: Named) -> bool:
    return plain(one.kind) in WORKLOADS


def _described(kind: Kind, body: Mapping[str, Any]) -> str:
    metadata = body["metadata"]
    held = [f"finalizer {name!r}" for name in metadata.get("finalizers") or ()]
    node = (body.get("spec") or {}).get("nodeName") if plain(kind) == "Pod" else None
    held += [f"on node {node!r}"] if node else []
    return f"{plain(kind)} {metadata['name']!r}" + (f" ({', '.join(held)})" if held else "")


async def _every(work: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Do all of it at once; the first failure is raised when all have ended."""
    outcomes = await asyncio.gather(*work, return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
    return cast("list[T]", outcomes)


def _fail(outcomes: Iterable[asyncio.Future[None]], error: Exception, left: Sequence[str] = ()) -> None:
    for outcome in outcomes:
        if not outcome.done():
            outcome.set_exception(_not_gone(error, left))


def _not_gone(error: Exception, left: Sequence[str]) -> SandboxError:
    if isinstance(error, TimeoutError):
        listed = ", ".join(dict.fromkeys(left[:_MOST_NAMED])) + (
            f" and {len(left) - _MOST_NAMED} more" if left[_MOST_NAMED:] else ""
        )
        return SandboxError(
            f"it was not gone after {_GIVE_UP_SECONDS:g} s" + (f", there is still {listed}" if left else ""),
            hint="something holds its objects: a finalizer that nobody takes away, or a lost node",
        )
    try:
        return sandbox_error(error, "it could not be taken away")
    except Exception:
        return SandboxError(f"it could not be taken away: {type(error).__name__}: {error}")


def _log_nothing(future: asyncio.Future[Any]) -> None:
    """Look at the outcome: nobody may be waiting for it."""
    if not future.cancelled():
        future.exception()
