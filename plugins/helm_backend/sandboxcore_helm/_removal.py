"""Takes releases away, many with a few requests, and waits until they are gone: objects first, records last.

What a release consists of is read from its records, so that any process can do it, also for one that was half-made: the record is
the first thing that is created and the last that is deleted.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from sandboxcore.errors import SandboxError
from sandboxcore_kubernetes.errors import ApiError, sandbox_error
from sandboxcore_kubernetes.naming import ENVIRONMENT_ID, INSTANCE

from ._creating import is_kept
from ._identity import ENGINE
from ._manifest import WORKLOADS, documents, objects_of
from ._record import OWNED, decode

if TYPE_CHECKING:
    from sandboxcore_kubernetes.cluster import Cluster

__all__ = ("Remover",)

#: Seconds in which removals that are asked for together become one.
_TOGETHER = 0.02
#: Most environments that one selector names: URLs of some servers and proxies end at 8 KiB.
_MOST = 200
_LOOK_SECONDS = (0.05, 0.1, 0.2, 0.3, 0.5, 1.0)
_GIVE_UP_SECONDS = 110.0

#: From how many objects of a kind on one list is read in place of each.
_WORTH_A_LIST = 2
#: What the helm program gives to every object of a release, though not to hooks.
_BY_HELM = "app.kubernetes.io/managed-by=Helm"

Kind = str


class _Named(NamedTuple):
    """An object that has to be named. ``release`` is empty where it may be anybody's."""

    kind: Kind
    namespace: str
    name: str
    release: str


@dataclass
class _Doomed:
    """What is to go, of one batch of environments in one namespace."""

    environments: tuple[str, ...]
    #: Releases whose objects all carry the environment's label.
    releases: set[str] = field(default_factory=set)
    #: Kinds of objects that carry it.
    kinds: set[Kind] = field(default_factory=set)
    named: set[_Named] = field(default_factory=set)
    #: Those of them that lists have shown, and those that are there.
    listed: set[_Named] = field(default_factory=set)
    there: dict[_Named, dict[str, Any]] = field(default_factory=dict)
    #: StatefulSets with volume claims: their names, claims and selector.
    claims: list[tuple[str, tuple[str, ...], str]] = field(default_factory=list)
    #: What the charts want to outlive their releases.
    kept: set[tuple[Kind, str]] = field(default_factory=set)
    all_releases: set[str] = field(default_factory=set)
    controllers: bool = False


class Remover:
    """Gathers removals of environments and does them together."""

    def __init__(self, cluster: Cluster, *, grace: float | None) -> None:
        self._cluster = cluster
        self._grace = grace
        self._asked: dict[str, dict[str, asyncio.Future[frozenset[tuple[Kind, str]]]]] = {}

    async def remove(self, namespace: str, environment_id: str) -> frozenset[tuple[Kind, str]]:
        """Take an environment away and wait until it is gone. Idempotent.

        Returns:
            What its chart wants to be kept: kind and name of each object.

        Raises:
            SandboxError: It is not gone, with what is left and why. It is found again by discovery.
        """
        asked = self._asked.get(namespace)
        if asked is None:
            asked = self._asked[namespace] = {}
            task = asyncio.ensure_future(self._gather(namespace))
            task.add_done_callback(_log_nothing)
        outcome = asked.get(environment_id)
        if outcome is None:
            outcome = asked[environment_id] = asyncio.get_running_loop().create_future()
            outcome.add_done_callback(_log_nothing)
        return await asyncio.shield(outcome)

    async def _gather(self, namespace: str) -> None:
        await asyncio.sleep(_TOGETHER)
        asked = self._asked.pop(namespace)
        names = list(asked)
        for start in range(0, len(names), _MOST):
            part = names[start : start + _MOST]
            try:
                async with asyncio.timeout(_GIVE_UP_SECONDS):
                    kept = await self._remove(namespace, part)
            except Exception as error:
                for name in part:
                    asked[name].set_exception(_not_gone(error))
            else:
                for name in part:
                    asked[name].set_result(kept)

    async def _remove(self, namespace: str, environments: list[str]) -> frozenset[tuple[Kind, str]]:
        doomed = await self._look(namespace, environments)
        if not doomed.all_releases:
            return frozenset()
        ours = f"{ENVIRONMENT_ID} in ({','.join(sorted(environments))})"
        await self._delete(namespace, doomed, ours)
        await self._gone(namespace, doomed, ours)
        await self._cluster.delete_collection("Secret", label_selector=f"{OWNED},{ours}", namespace=namespace)
        return frozenset(doomed.kept)

    async def _look(self, namespace: str, environments: list[str]) -> _Doomed:
        """Read what the environments consist of from all records of theirs."""
        selector = f"{OWNED},{ENVIRONMENT_ID} in ({','.join(sorted(environments))})"
        found = await self._cluster.list("Secret", namespace=namespace, label_selector=selector)
        doomed = _Doomed(environments=tuple(environments))
        for secret in found["items"]:
            await self._take_in(doomed, secret, namespace)
        return doomed

    async def _take_in(self, doomed: _Doomed, secret: Mapping[str, Any], namespace: str) -> None:
        labels = secret["metadata"]["labels"]
        release = labels["name"]
        doomed.all_releases.add(release)
        try:
            record = decode((secret.get("data") or {}).get("release", ""))
        except ValueError as error:
            raise SandboxError(f"the record of release {release!r} can't be read: {error}") from None
        # What a later `helm upgrade` made carries no label of ours.
        labelled = labels.get(ENGINE) == "render-once" and labels.get("version") == "1"
        bodies = [(body, False) for body in objects_of(record.manifest)]
        bodies += [(document.body, True) for hook in record.hooks for document in documents(hook.manifest)]
        for body, is_hook in bodies:
            await self._take_in_object(doomed, body, release, namespace, labelled=labelled, is_hook=is_hook)

    async def _take_in_object(
        self, doomed: _Doomed, body: Mapping[str, Any], release: str, namespace: str, *, labelled: bool, is_hook: bool
    ) -> None:
        kind, metadata = f"{body.get('apiVersion')}/{body['kind']}", body.get("metadata") or {}
        name = metadata.get("name", "")
        if is_kept(body):
            doomed.kept.add((body["kind"], name))
            return
        doomed.controllers = doomed.controllers or (body["kind"] in WORKLOADS and body["kind"] != "Pod")
        if body["kind"] == "StatefulSet":
            _take_in_claims(doomed, body)
        try:
            resource = await self._cluster.resource(kind)
        except ApiError as error:
            if error.status == 404:
                return  # without its kind there is no such object any more
            raise
        place = metadata.get("namespace") or namespace
        if resource.namespaced and place == namespace and (labelled or is_hook):
            doomed.kinds.add(kind)
        if not labelled or not resource.namespaced or place != namespace:
            doomed.named.add(_Named(kind, place, name, "" if is_hook else release))

    async def _delete(self, namespace: str, doomed: _Doomed, ours: str) -> None:
        doomed.there = await self._find(doomed.named, doomed.listed)
        # What makes pods goes first, then the pods, then what they use.
        makers = {kind for kind in doomed.kinds if _plain(kind) in WORKLOADS and _plain(kind) != "Pod"}
        await _every(self._collection(kind, namespace, ours) for kind in makers)
        await _every(self._named(one, body) for one, body in doomed.there.items() if _plain(one.kind) in WORKLOADS)
        if "v1/Pod" in doomed.kinds:
            await self._collection("v1/Pod", namespace, ours)
        if doomed.controllers:
            await self._cluster.delete_collection(
                "Pod", label_selector=_instances(doomed.all_releases), namespace=namespace, grace=self._grace
            )
        await _every(self._collection(kind, namespace, ours) for kind in doomed.kinds - makers - {"v1/Pod"})
        await _every(self._named(one, body) for one, body in doomed.there.items() if _plain(one.kind) not in WORKLOADS)
        for owner, templates, selector in doomed.claims:
            await self._claims(namespace, owner, templates, selector)
        await self._cluster.delete_collection("ConfigMap", label_selector=f"{ours},{GUEST}", namespace=namespace)

    async def _collection(self, kind: Kind, namespace: str, selector: str) -> None:
        await self._cluster.delete_collection(kind, label_selector=selector, namespace=namespace)

    async def _named(self, one: _Named, found: Mapping[str, Any]) -> None:
        """Delete an object by its name and uid: another one may have that name by now."""
        grace = None
        if _plain(one.kind) == "Pod" and self._grace is not None:
            grace = min(self._grace, float(found["spec"].get("terminationGracePeriodSeconds") or 0))
        await self._cluster.delete(one.kind, one.name, namespace=one.namespace, uid=found["metadata"]["uid"], grace=grace)

    async def _find(self, named: Iterable[_Named], listed: set[_Named]) -> dict[_Named, dict[str, Any]]:
        """Read those that are there and are their releases'; several of a kind with one request.

        Args:
            listed: Those that a list is known to show, so that one that it does not show is gone; it grows here.
        """
        places: dict[tuple[Kind, str], list[_Named]] = {}
        for one in named:
            places.setdefault((one.kind, one.namespace), []).append(one)
        found: dict[_Named, dict[str, Any]] = {}
        await _every(self._find_in(kind, place, ones, listed, found) for (kind, place), ones in places.items())
        return found

    async def _find_in(
        self, kind: Kind, place: str, ones: list[_Named], listed: set[_Named], found: dict[_Named, dict[str, Any]]
    ) -> None:
        if len(ones) >= _WORTH_A_LIST or not listed.isdisjoint(ones):
            items = (await self._cluster.list(kind, namespace=place, label_selector=_BY_HELM))["items"]
            bodies = {item["metadata"]["name"]: item for item in items}
            shown = {one: bodies[one.name] for one in ones if one.name in bodies}
            listed.update(shown)
            found.update({one: body for one, body in shown.items() if _is_of(body, one.release)})
        await _every(self._get(one, found) for one in ones if one not in listed)

    async def _get(self, one: _Named, found: dict[_Named, dict[str, Any]]) -> None:
        try:
            body = await self._cluster.get(one.kind, one.name, namespace=one.namespace)
        except ApiError as error:
            if error.status != 404:
                raise
        else:
            if _is_of(body, one.release):
                found[one] = body

    async def _claims(self, namespace: str, owner: str, templates: tuple[str, ...], selector: str) -> None:
        """Delete the volume claims that a StatefulSet made, which neither Kubernetes nor Helm does."""
        wanted = re.compile(rf"({'|'.join(map(re.escape, templates))})-{re.escape(owner)}-\d+")
        found = await self._cluster.list("PersistentVolumeClaim", namespace=namespace, label_selector=selector)
        for item in found["items"]:
            name = item["metadata"]["name"]
            if wanted.fullmatch(name):
                await self._cluster.delete("PersistentVolumeClaim", name, namespace=namespace)

    async def _gone(self, namespace: str, doomed: _Doomed, ours: str) -> None:
        """Wait until nothing is left.

        Raises:
            TimeoutError: From the caller's limit.
        """
        lists = [(kind, ours) for kind in doomed.kinds]
        if doomed.controllers:
            lists.append(("v1/Pod", _instances(doomed.all_releases)))
        await _every(self._until(self._any_listed, kind, namespace, selector) for kind, selector in lists)
        await self._until(self._any_there, doomed)

    async def _any_listed(self, kind: Kind, namespace: str, selector: str) -> object:
        path = (await self._cluster.resource(kind)).path(namespace)
        found = await self._cluster.request("GET", path, query={"labelSelector": selector, "limit": "1"})
        return found.get("items")

    async def _any_there(self, doomed: _Doomed) -> object:
        there = await self._find(doomed.there, doomed.listed)
        uids = {one: body["metadata"]["uid"] for one, body in doomed.there.items()}
        doomed.there = {one: body for one, body in there.items() if body["metadata"]["uid"] == uids[one]}
        return doomed.there

    async def _until(self, look: Any, *what: Any) -> None:
        looks = 0
        while await look(*what):
            await asyncio.sleep(_LOOK_SECONDS[min(looks, len(_LOOK_SECONDS) - 1)])
            looks += 1


#: Label of a ConfigMap with the guest.
GUEST = "sandboxcore.dev/guest"


def _take_in_claims(doomed: _Doomed, body: Mapping[str, Any]) -> None:
    spec = body.get("spec") or {}
    templates = tuple((one.get("metadata") or {}).get("name", "") for one in spec.get("volumeClaimTemplates") or ())
    labels = (spec.get("selector") or {}).get("matchLabels") or {}
    if templates and labels:
        selector = ",".join(f"{name}={value}" for name, value in labels.items())
        doomed.claims.append((body["metadata"]["name"], templates, selector))


def _is_of(body: Mapping[str, Any], release: str) -> bool:
    """Tell whether an object is a release's: another release may have made one of that name."""
    return not release or (body["metadata"].get("annotations") or {}).get("meta.helm.sh/release-name") == release


def _plain(kind: Kind) -> str:
    return kind.rpartition("/")[2]


def _instances(releases: Collection[str]) -> str:
    return f"{INSTANCE} in ({','.join(sorted(releases))})"


async def _every(work: Iterable[Any]) -> None:
    """Do all of it at once; the first failure is raised when all have ended."""
    outcomes = await asyncio.gather(*work, return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome


def _not_gone(error: Exception) -> SandboxError:
    if isinstance(error, TimeoutError):
        return SandboxError(
            f"it was not gone after {_GIVE_UP_SECONDS:g} s: something holds its objects (a finalizer, a lost node)"
        )
    try:
        return sandbox_error(error, "it could not be taken away")
    except Exception:
        return SandboxError(f"it could not be taken away: {type(error).__name__}: {error}")


def _log_nothing(future: asyncio.Future[Any]) -> None:
    """Look at the outcome: nobody may be waiting for it."""
    if not future.cancelled():
        future.exception()
