"""One client of one API server: plain JSON over one session, on one event loop, without a thread."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from ._access import Access, open_access
from ._kinds import Resource, Resources, split_kind
from ._transport import Transport
from .errors import ApiError

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from .config import ClusterConfig
    from .watches import EventLog, PodWatch
    from .watching import WatchEvent

__all__ = ("Cluster",)

MERGE_PATCH = "application/merge-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"
JSON_PATCH = "application/json-patch+json"
#: Lists are merged by their keys.
STRATEGIC_MERGE_PATCH = "application/strategic-merge-patch+json"


class Cluster(Transport):
    """A cluster as one user sees it. Objects are the API's JSON, as dicts.

    Where a method takes ``kind`` it is a well-known one (``"Pod"``, ``"StatefulSet"``) or any with its API version before it
    (``"example.com/v1/Widget"``). ``namespace`` None is the client's own.
    """

    def __init__(self, access: Access, config: ClusterConfig) -> None:
        super().__init__(access, config)
        self._openings: dict[str, asyncio.Semaphore] = {}
        self._resources = Resources()
        self._discovered: set[str] = set()
        self._watches: dict[tuple[str, str], PodWatch] = {}
        self._logs: dict[str, EventLog] = {}
        self.version: tuple[int, int] = (0, 0)
        #: Node to ``uname -m``.
        self.machines: dict[str, str] = {}
        #: A node or an API version to the lock of those who are about to ask for it.
        self._asking: dict[str, asyncio.Lock] = {}

    @classmethod
    async def connect(cls, config: ClusterConfig) -> Cluster:
        """Read the configuration, log in, and ask the server for its version.

        Raises:
            UsageError: The configuration is missing, broken, or has no such context (the message has those that it has).
            UnreachableError: Nobody answers there. It is not tried again.
            ApiError: The server does not let this user in.
        """
        self = cls(await open_access(config), config)
        try:
            found = await self.request("GET", "/version", patience=0)
        except BaseException:
            await self.aclose()
            raise
        self.version = (_digits(found["major"]), _digits(found["minor"]))
        return self

    @property
    def namespace(self) -> str:
        """Where things are made when nobody says otherwise."""
        return self._access.namespace

    @property
    def context(self) -> str:
        """Name of the kubeconfig's context; ``in-cluster`` for a service account."""
        return self._access.context

    async def aclose(self) -> None:
        """End all watches and close all connections. Idempotent."""
        for held in (*self._watches.values(), *self._logs.values()):
            await held.stop()
        self._watches.clear()
        self._logs.clear()
        await self.close_connections()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.aclose()

    # --- objects ---

    async def resource(self, kind: str) -> Resource:
        """Find where a kind is kept; for one that is not well known the server is asked, once.

        Raises:
            ApiError: With status 404: the cluster does not know this kind.
        """
        version, word = split_kind(kind)
        found = self._resources.get(version, word)
        if found is None:
            await self._discover(version)
            found = self._resources.get(version, word)
        if found is None:
            raise ApiError(f"the cluster knows no kind {word!r} in {version}", status=404, reason="NotFound")
        return found

    async def _discover(self, version: str) -> None:
        root = "/api" if "/" not in version else "/apis"
        async with self._asking.setdefault(version, asyncio.Lock()):
            if version not in self._discovered:
                self._resources.learn(version, await self.request("GET", f"{root}/{version}"))
                self._discovered.add(version)

    def path(self, api_version: str, kind: str, namespace: str | None = None, name: str | None = None) -> str:
        """Build the path of a kind that is well known or was asked for before; without a namespace, of all namespaces.

        Raises:
            LookupError: The kind is neither; ``await resource(...)`` first.
        """
        found = self._resources.get(api_version, kind)
        if found is None:
            raise LookupError(f"kind {kind!r} of {api_version} is not known yet: `await cluster.resource(...)` first")
        return found.path(namespace, name)

    async def _place(self, kind: str, namespace: str | None, name: str | None = None) -> str:
        return (await self.resource(kind)).path(namespace or self.namespace, name)

    async def create(self, obj: Mapping[str, Any], *, field_manager: str | None = None) -> dict[str, Any]:
        """Create an object in its own namespace (``metadata.namespace``), else in the client's.

        Raises:
            ApiError: With reason ``AlreadyExists``, where it is there already.
        """
        kind = f"{obj['apiVersion']}/{obj['kind']}"
        path = await self._place(kind, (obj.get("metadata") or {}).get("namespace"))
        return await self.request("POST", path, body=obj, query=_managed(field_manager))

    async def get(self, kind: str, name: str, *, namespace: str | None = None) -> dict[str, Any]:
        """Read an object."""
        return await self.request("GET", await self._place(kind, namespace, name))

    async def list(
        self,
        kind: str,
        *,
        namespace: str | None = None,
        label_selector: str | None = None,
        field_selector: str | None = None,
        all_namespaces: bool = False,
    ) -> dict[str, Any]:
        """Read all objects of a kind that the selectors match, page by page; they are in ``items``."""
        path = (await self.resource(kind)).path(None if all_namespaces else namespace or self.namespace)
        query = {"labelSelector": label_selector, "fieldSelector": field_selector}
        return await self.list_path(path, query={name: value for name, value in query.items() if value})

    async def patch(
        self,
        kind: str,
        name: str,
        body: Any,
        *,
        namespace: str | None = None,
        content_type: str = MERGE_PATCH,
        field_manager: str | None = None,
        force: bool = False,
    ) -> dict[str, Any]:
        """Change an object: by a merge patch, or with ``content_type`` any other kind (``APPLY_PATCH`` creates it, too)."""
        query = _managed(field_manager) | ({"force": "true"} if force else {})
        path = await self._place(kind, namespace, name)
        return await self.request("PATCH", path, body=body, content_type=content_type, query=query)

    async def delete(
        self,
        kind: str,
        name: str,
        *,
        namespace: str | None = None,
        propagation: str = "Background",
        grace: float | None = None,
        uid: str | None = None,
    ) -> bool:
        """Delete an object; one that is gone already (or is another than ``uid``) is no error.

        Args:
            propagation: What becomes of what it owns: ``Background``, ``Foreground`` or ``Orphan``.
            grace: Seconds that a pod gets to end by itself; None: as it says.

        Returns:
            Whether there was one.
        """
        options = _delete_options(propagation, grace)
        if uid is not None:
            options["preconditions"] = {"uid": uid}
        try:
            await self.request("DELETE", await self._place(kind, namespace, name), body=options)
        except ApiError as error:
            if error.status == 404 or (uid is not None and error.status == 409):
                return False
            raise
        return True

    async def delete_collection(
        self,
        kind: str,
        *,
        label_selector: str,
        namespace: str | None = None,
        propagation: str = "Background",
        grace: float | None = None,
    ) -> None:
        """Delete all objects of a kind that the selector matches, with one request.

        Raises:
            ValueError: The selector is empty, which would mean everything.
        """
        if not label_selector:
            raise ValueError("delete_collection without a selector would delete everything of that kind")
        path = await self._place(kind, namespace)
        await self.request("DELETE", path, query={"labelSelector": label_selector}, body=_delete_options(propagation, grace))

    def watch(
        self,
        path: str,
        *,
        label_selector: str | None = None,
        field_selector: str | None = None,
        resource_version: str | None = None,
    ) -> AsyncIterator[WatchEvent]:
        """Yield what is there and each change from then on; see ``watching.watch``. Close it with ``contextlib.aclosing``."""
        from .watching import watch

        return watch(self, path, label_selector=label_selector, field_selector=field_selector, resource_version=resource_version)

    def pods(self, namespace: str | None = None, label_selector: str = "") -> PodWatch:
        """Return the one watch of the pods that a selector matches; it runs while someone is in its ``async with``."""
        from .watches import PodWatch

        key = (namespace or self.namespace, label_selector)
        if key not in self._watches:
            self._watches[key] = PodWatch(self, *key)
        return self._watches[key]

    def event_log(self, namespace: str) -> EventLog:
        """Return the one watch of a namespace's warnings."""
        from .watches import EventLog

        if namespace not in self._logs:
            self._logs[namespace] = EventLog(self, namespace)
        return self._logs[namespace]

    # --- questions ---

    async def can_i(
        self, verb: str, resource: str, *, group: str = "", subresource: str = "", namespace: str | None = None
    ) -> bool:
        """Ask whether this user may do something (a SelfSubjectAccessReview).

        Args:
            resource: The plural (``pods``), as in a Role.
            namespace: None: the client's own; ``""``: all of them.
        """
        asked = {
            "verb": verb,
            "group": group,
            "resource": resource,
            "subresource": subresource,
            "namespace": self.namespace if namespace is None else namespace,
        }
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": asked},
        }
        answer = await self.request("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", body=review)
        return bool((answer.get("status") or {}).get("allowed"))

    async def logs(
        self,
        pod: str,
        container: str | None = None,
        *,
        namespace: str | None = None,
        tail: int | None = None,
        follow: bool = False,
        previous: bool = False,
    ) -> AsyncIterator[bytes]:
        """Yield what a container wrote, as it comes.

        Args:
            container: None: the first.
            tail: Number of lines from the end; None: all that is kept.
            follow: Go on with what it writes from now on.
            previous: Of the container that ran before the last restart.
        """
        query = {"container": container or "", "tailLines": "" if tail is None else str(tail)}
        query |= {"follow": "true" if follow else "", "previous": "true" if previous else ""}
        path = f"{await self._place('Pod', namespace, quote(pod))}/log"
        async with self.read_stream(path, query={name: value for name, value in query.items() if value}) as chunks:
            async for chunk in chunks:
                yield chunk

    async def port_forward(
        self, pod: str, port: int, protocol: asyncio.BaseProtocol, *, namespace: str | None = None
    ) -> asyncio.Transport:
        """Open a byte stream to a TCP port of a pod; the pod needs no program for it.

        Raises:
            UnreachableError: The API server can't be reached.
            ApiError: It refuses, as where there is no such pod. That nobody listens on the port ends the stream.
        """
        from .streams import open_port

        return await open_port(self, namespace or self.namespace, pod, port, protocol)

    async def machine(self, node: str) -> str:
        """Return a node's ``uname -m``, asked for once; empty where this user may not read nodes."""
        async with self._asking.setdefault(node, asyncio.Lock()):
            if node not in self.machines:
                self.machines[node] = await self._ask_machine(node)
            return self.machines[node]

    async def _ask_machine(self, node: str) -> str:
        try:
            found = await self.get("Node", node)
        except ApiError as error:
            if error.status not in (403, 404):
                raise
            return ""
        architecture: str = ((found.get("status") or {}).get("nodeInfo") or {}).get("architecture", "")
        return {"amd64": "x86_64", "arm64": "aarch64"}.get(architecture, architecture)

    def opening(self, node: str) -> asyncio.Semaphore:
        """Return the gate that streams into pods of a node pass while they are in the making."""
        if node not in self._openings:
            self._openings[node] = asyncio.Semaphore(self._config.openings_at_once)
        return self._openings[node]


def _digits(text: str) -> int:
    return int("".join(character for character in text if character.isdigit()) or 0)


def _managed(field_manager: str | None) -> dict[str, str]:
    return {"fieldManager": field_manager} if field_manager else {}


def _delete_options(propagation: str, grace: float | None) -> dict[str, Any]:
    options: dict[str, Any] = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": propagation}
    if grace is not None:
        options["gracePeriodSeconds"] = int(grace)
    return options
