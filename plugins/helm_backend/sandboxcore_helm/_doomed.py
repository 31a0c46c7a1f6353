"""What environments consist of, as their records have it: all that is to go with them, and nothing else."""

from __future__ import annotations

import dataclasses
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from sandboxcore.errors import SandboxError
from sandboxcore_kubernetes.errors import ApiError
from sandboxcore_kubernetes.naming import ENVIRONMENT_ID, INSTANCE, RUN_ID

from ._creating import is_kept
from ._identity import ENGINE, Identity
from ._manifest import WORKLOADS, documents, objects_of
from ._record import OWNED, decode

if TYPE_CHECKING:
    from sandboxcore_kubernetes.cluster import Cluster

    from ._release import Hook, Release

__all__ = ("Claims", "Departing", "Doomed", "Kind", "Named", "instances", "look", "ours", "plain")

Kind = str

#: Events whose hooks this library runs, under the environment's label.
_OWN_EVENTS = frozenset(("pre-install", "post-install", "pre-delete", "post-delete"))
_DELETE_EVENTS = frozenset(("pre-delete", "post-delete"))


class Named(NamedTuple):
    """An object that has to be named, and what shows that it is the environment's: others may have one of that name.

    Args:
        release: It carries Helm's annotation with this name, if it is no hook.
        since: A hook that helm made is not older than the record, whose time of creation this is; empty for other hooks.
    """

    kind: Kind
    namespace: str
    name: str
    environment: str
    release: str
    is_hook: bool = False
    since: str = ""

    def is_shown_by(self, body: Mapping[str, Any]) -> bool:
        """Tell whether the object that has this name is the one that is meant."""
        metadata = body["metadata"]
        if not self.is_hook:
            return bool((metadata.get("annotations") or {}).get("meta.helm.sh/release-name") == self.release)
        owner = (metadata.get("labels") or {}).get(ENVIRONMENT_ID)
        if owner is not None or not self.since:
            return bool(owner == self.environment)
        # Helm marks no hook as its own. One that is called as any release would call it may be anybody's.
        named = re.search(rf"(?<![a-z0-9]){re.escape(self.release)}(?![a-z0-9])", self.name)
        return named is not None and bool(metadata["creationTimestamp"] >= self.since)


class Claims(NamedTuple):
    """A StatefulSet's volume claims, which neither Kubernetes nor Helm deletes."""

    environment: str
    owner: str
    templates: tuple[str, ...]
    selector: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Departing:
    """The last revision of a release, whose hooks run when it goes."""

    identity: Identity
    version: int
    hooks: tuple[Hook, ...]


@dataclass(kw_only=True)
class Doomed:
    """What is to go, of one batch of environments in one namespace."""

    namespace: str
    #: Releases to their environments.
    releases: dict[str, str] = field(default_factory=dict)
    #: Kinds of objects that carry the label of an environment, to the environments that have some.
    kinds: defaultdict[Kind, set[str]] = field(default_factory=lambda: defaultdict(set))
    named: set[Named] = field(default_factory=set)
    #: Those of them that lists have shown, and those that are there.
    listed: set[Named] = field(default_factory=set)
    there: dict[Named, dict[str, Any]] = field(default_factory=dict)
    claims: list[Claims] = field(default_factory=list)
    #: Environments of which some pods are made by controllers, and carry the release's label only.
    controllers: set[str] = field(default_factory=set)
    departing: dict[str, Departing] = field(default_factory=dict)
    #: Environments to what first stood against theirs going.
    failed: dict[str, Exception] = field(default_factory=dict)
    #: Environments to what was left of them when each was looked at last.
    left: dict[str, list[str]] = field(default_factory=dict)

    @property
    def environments(self) -> set[str]:
        """Those that have records."""
        return set(self.releases.values())

    def owner(self, body: Mapping[str, Any]) -> str:
        """Tell which environment an object that a selector found belongs to."""
        labels = body["metadata"].get("labels") or {}
        return labels.get(ENVIRONMENT_ID) or self.releases.get(labels.get(INSTANCE, ""), "")

    def fail(self, environments: Iterable[str], error: Exception) -> None:
        """Keep what stands against the going of environments, unless something did before."""
        self.failed |= {name: error for name in environments if name not in self.failed}

    @property
    def hooked(self) -> set[str]:
        """Environments for which hooks run when they go."""
        events = [(one.identity.environment_id, hook.events) for one in self.departing.values() for hook in one.hooks]
        return {name for name, its in events if not _DELETE_EVENTS.isdisjoint(its)}

    def of(self, environments: Collection[str]) -> Doomed:
        """Select what is to go with some of the environments."""
        return Doomed(
            namespace=self.namespace,
            releases={release: name for release, name in self.releases.items() if name in environments},
            kinds=defaultdict(
                set, {kind: some for kind, names in self.kinds.items() if (some := names.intersection(environments))}
            ),
            named={one for one in self.named if one.environment in environments},
            claims=[one for one in self.claims if one.environment in environments],
            controllers=self.controllers.intersection(environments),
            departing={name: one for name, one in self.departing.items() if one.identity.environment_id in environments},
        )

    def of_hooks(self) -> Doomed:
        """Select what hooks may have made."""
        hooks = {one for one in self.named if one.is_hook}
        return dataclasses.replace(self, named=hooks, listed=set(), there={}, claims=[])


def plain(kind: Kind) -> str:
    """Return a kind without its version."""
    return kind.rpartition("/")[2]


def ours(environments: Collection[str]) -> str:
    """Select what carries the label of one of these environments."""
    return f"{ENVIRONMENT_ID} in ({','.join(sorted(environments))})"


def instances(releases: Iterable[str]) -> str:
    """Select what carries the label of one of these releases."""
    return f"{INSTANCE} in ({','.join(sorted(releases))})"


async def look(cluster: Cluster, namespace: str, environments: Collection[str]) -> Doomed:
    """Read what environments consist of from all records of theirs; those without one have nothing.

    One with a record that can't be read fails, and no other one for that.

    Raises:
        ApiError: The server refuses.
    """
    found = await cluster.list("Secret", namespace=namespace, label_selector=f"{OWNED},{ours(environments)}")
    doomed = Doomed(namespace=namespace)
    for secret in found["items"]:
        try:
            await _Reading(cluster, doomed, secret).take_in()
        except Exception as error:
            doomed.fail([secret["metadata"]["labels"][ENVIRONMENT_ID]], error)
    return doomed


class _Reading:
    """One record, whose objects are added to what is to go."""

    def __init__(self, cluster: Cluster, doomed: Doomed, secret: Mapping[str, Any]) -> None:
        labels = secret["metadata"]["labels"]
        self._cluster = cluster
        self._doomed = doomed
        self._secret = secret
        self._version = int(labels.get("version") or 1)
        self._identity = Identity(
            namespace=doomed.namespace,
            release=labels["name"],
            run_id=labels.get(RUN_ID, ""),
            environment_id=labels[ENVIRONMENT_ID],
        )
        # What a later `helm upgrade` made carries no label of ours.
        self._labelled = labels.get(ENGINE) == "render-once" and self._version == 1
        # It was never whole: hooks of the deletion may need what there is not.
        self._is_pending = labels.get("status") == "pending-install"

    async def take_in(self) -> None:
        doomed, identity = self._doomed, self._identity
        doomed.releases[identity.release] = identity.environment_id
        record = self._decoded()
        known = doomed.departing.get(identity.release)
        if known is None or known.version < self._version:
            hooks = () if self._is_pending else record.hooks
            doomed.departing[identity.release] = Departing(identity=identity, version=self._version, hooks=hooks)
        for body in objects_of(record.manifest):
            await self._take_in_object(body)
        for hook in record.hooks:
            for document in documents(hook.manifest):
                await self._take_in_hook(hook, document.body)

    def _decoded(self) -> Release:
        try:
            return decode((self._secret.get("data") or {}).get("release", ""))
        except ValueError as error:
            name = self._secret["metadata"]["name"]
            raise SandboxError(
                f"the record of release {self._identity.release!r} (Secret {name!r}) can't be read: {error}"
            ) from None

    async def _take_in_object(self, body: Mapping[str, Any]) -> None:
        found = await self._find(body)
        if found is None:
            return
        if self._labelled and found.among_others:
            self._doomed.kinds[found.named.kind].add(self._identity.environment_id)
        else:
            self._doomed.named.add(found.named)

    async def _take_in_hook(self, hook: Hook, body: Mapping[str, Any]) -> None:
        """Take in what was made for a hook: by this library under the environment's label, by helm under its name alone."""
        by_us = not _OWN_EVENTS.isdisjoint(hook.events)
        by_helm = bool((hook.raw.get("last_run") or {}).get("phase"))
        found = await self._find(body) if by_us or by_helm else None
        if found is None:
            return
        if by_us and found.among_others:
            self._doomed.kinds[found.named.kind].add(self._identity.environment_id)
        if by_helm or not found.among_others:
            since = self._secret["metadata"]["creationTimestamp"] if by_helm else ""
            self._doomed.named.add(found.named._replace(is_hook=True, since=since))

    async def _find(self, body: Mapping[str, Any]) -> _Found | None:
        """Find out where an object is; None: it stays, or the cluster has its kind no more."""
        if is_kept(body):
            return None
        identity, metadata = self._identity, body.get("metadata") or {}
        if body["kind"] in WORKLOADS and body["kind"] != "Pod":
            self._doomed.controllers.add(identity.environment_id)
        self._doomed.claims += _claims(body, identity.environment_id)
        kind, place = f"{body.get('apiVersion')}/{body['kind']}", metadata.get("namespace") or identity.namespace
        try:
            resource = await self._cluster.resource(kind)
        except ApiError as error:
            if error.status == 404:
                return None
            raise
        named = Named(kind, place, metadata.get("name", ""), identity.environment_id, identity.release)
        return _Found(named, resource.namespaced and place == identity.namespace)


class _Found(NamedTuple):
    named: Named
    #: It is in the environment's namespace, where its label finds it if it has one.
    among_others: bool


def _claims(body: Mapping[str, Any], environment: str) -> Iterator[Claims]:
    if body["kind"] != "StatefulSet":
        return
    spec = body.get("spec") or {}
    templates = tuple((one.get("metadata") or {}).get("name", "") for one in spec.get("volumeClaimTemplates") or ())
    labels = (spec.get("selector") or {}).get("matchLabels") or {}
    if templates and labels:
        selector = ",".join(f"{name}={value}" for name, value in labels.items())
        yield Claims(environment, body["metadata"]["name"], templates, selector)
