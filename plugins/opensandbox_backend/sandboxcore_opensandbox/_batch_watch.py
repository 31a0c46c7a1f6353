"""One watch for the BatchSandboxes of a run, shared by all that wait for something of them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from sandboxcore_kubernetes.naming import RUN_ID

from ._names import API_VERSION

if TYPE_CHECKING:
    from sandboxcore_kubernetes import Cluster

__all__ = ("BatchWatch",)

T = TypeVar("T")
Object = Mapping[str, Any]
KIND = f"{API_VERSION}/BatchSandbox"


class BatchWatch:
    """The BatchSandboxes of one run; it begins with the first question and ends with ``aclose``."""

    def __init__(self, cluster: Cluster, namespace: str, run_id: str) -> None:
        self._cluster = cluster
        self._namespace = namespace
        self._selector = f"{RUN_ID}={run_id}"
        self._objects: dict[str, Object] = {}
        self._listeners: dict[str, set[asyncio.Event]] = {}
        self._task: asyncio.Task[None] | None = None
        self._synced = asyncio.Event()
        self._error: BaseException | None = None

    async def begin(self) -> None:
        """Begin to watch, and wait until what is there is known. Idempotent.

        Raises:
            ApiError: The server refuses for good.
        """
        if self._task is None or self._task.done():
            self._error = None
            self._synced.clear()
            self._task = asyncio.create_task(self._run(), name="sandboxcore BatchSandbox watch")
        await self._synced.wait()
        if self._error is not None:
            raise self._error

    def get(self, name: str) -> Object | None:
        """Return an object as it was last heard of; None: it is not there."""
        return self._objects.get(name)

    @property
    def is_empty(self) -> bool:
        """Whether the run has no objects, as far as has been heard."""
        return not self._objects

    def put(self, obj: Object) -> None:
        """Take what a request has answered, which may be newer than what the watch has told."""
        name = obj["metadata"]["name"]
        known = self._objects.get(name)
        if known is None or known["metadata"]["uid"] != obj["metadata"]["uid"]:
            self._objects[name] = obj

    async def wait_for(self, names: tuple[str, ...], predicate: Callable[[], T | None], timeout: float | None = None) -> T | None:
        """Wait until the predicate says something; it is asked after each change of one of these objects.

        Args:
            timeout: Seconds after which to give up; None: never.

        Returns:
            What the predicate said; None: the time is over.

        Raises:
            ApiError: The watch can't go on.
        """
        changed = asyncio.Event()
        for name in names:
            self._listeners.setdefault(name, set()).add(changed)
        try:
            async with asyncio.timeout(timeout):
                while (found := predicate()) is None:
                    if self._error is not None:
                        raise self._error
                    await changed.wait()
                    changed.clear()
                return found
        except TimeoutError:
            return None
        finally:
            for name in names:
                listeners = self._listeners.get(name, set())
                listeners.discard(changed)
                if not listeners:
                    self._listeners.pop(name, None)

    async def aclose(self) -> None:
        """End the watch. Idempotent."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait((task,))

    async def _run(self) -> None:
        try:
            path = (await self._cluster.resource(KIND)).path(self._namespace)
            changes = self._cluster.watch(path, label_selector=self._selector)
            async with contextlib.aclosing(changes) as events:  # type: ignore[type-var]
                async for event in events:
                    self._take(event.type, event.object)
        except Exception as error:
            self._error = error
            for name in list(self._listeners):
                self._wake(name)
        finally:
            self._synced.set()

    def _take(self, kind: str, body: Object) -> None:
        if kind == "RELIST":
            found = {item["metadata"]["name"]: item for item in body["items"]}
            changed = found.keys() | self._objects.keys()
            self._objects = found
            self._synced.set()
        else:
            name = body["metadata"]["name"]
            changed = {name}
            if kind == "DELETED":
                self._objects.pop(name, None)
            else:
                self._objects[name] = body
        for name in changed:
            self._wake(name)

    def _wake(self, name: str) -> None:
        for event in self._listeners.get(name, ()):
            event.set()
