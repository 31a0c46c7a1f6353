"""What environments consist of, as their records have it: all that is to go with them, and nothing else."""

from __future__ import annotations

import re
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
    #: Kinds of objects that carry the label of an environment.
    kinds: set[Kind] = field(default_factory=set)
    named: set[Named] = field(default_factory=set)
    #: Those of them that lists have shown, and those that are there.
    listed: set[Named] = field(default_factory=set)
    there: dict[Named, dict[str, Any]] = field(default_factory=dict)
    claims: list[Claims] = field(default_factory=list)
    #: Whether some of the pods are made by controllers, and carry the release's label only.
    controllers: bool = False
    departing: dict[str, Departing] = field(default_factory=dict)
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

    def of(self, releases: Collection[str]) -> Doomed:
        """Select what hooks of some of the releases may have made."""
        chosen = {release: name for release, name in self.releases.items() if release in releases}
        hooks = {one for one in self.named if one.is_hook and one.release in releases}
        return Doomed(
            namespace=self.namespace,
            releases=chosen,
            kinds=self.kinds,
            named=hooks,
            controllers=self.controllers,
            left=self.left,
        )

    def departing_of(self, environments: Collection[str], event: str) -> list[Departing]:
        """Select the releases of environments that have hooks of an event."""
        return [
            one
            for one in self.departing.values()
            if one.identity.environment_id in environments and any(event in hook.events for hook in one.hooks)
        ]


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

    Raises:
        SandboxError: A record can't be read.
        ApiError: The server refuses.
    """
    found = await cluster.list("Secret", namespace=namespace, label_selector=f"{OWNED},{ours(environments)}")
    doomed = Doomed(namespace=namespace)
    for secret in found["items"]:
        await _Reading(cluster, doomed, secret).take_in()
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

    async def take_in(self) -> None:
        doomed, identity = self._doomed, self._identity
        doomed.releases[identity.release] = identity.environment_id
        record = self._decoded()
        known = doomed.departing.get(identity.release)
        if known is None or known.version < self._version:
            doomed.departing[identity.release] = Departing(identity=identity, version=self._version, hooks=record.hooks)
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
            self._doomed.kinds.add(found.named.kind)
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
            self._doomed.kinds.add(found.named.kind)
        if by_helm or not found.among_others:
            since = self._secret["metadata"]["creationTimestamp"] if by_helm else ""
            self._doomed.named.add(found.named._replace(is_hook=True, since=since))

    async def _find(self, body: Mapping[str, Any]) -> _Found | None:
        """Find out where an object is; None: it stays, or the cluster has its kind no more."""
        if is_kept(body):
            return None
        identity, metadata = self._identity, body.get("metadata") or {}
        self._doomed.controllers = self._doomed.controllers or (body["kind"] in WORKLOADS and body["kind"] != "Pod")
        self._doomed.claims += _claims(body)
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


def _claims(body: Mapping[str, Any]) -> Iterator[Claims]:
    if body["kind"] != "StatefulSet":
        return
    spec = body.get("spec") or {}
    templates = tuple((one.get("metadata") or {}).get("name", "") for one in spec.get("volumeClaimTemplates") or ())
    labels = (spec.get("selector") or {}).get("matchLabels") or {}
    if templates and labels:
        yield Claims(body["metadata"]["name"], templates, ",".join(f"{name}={value}" for name, value in labels.items()))
