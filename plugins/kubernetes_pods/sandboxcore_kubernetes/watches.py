"""One watch for all pods of a run and one for the warnings of a namespace, shared by everybody who waits for something."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from .errors import ApiError
from .pods import PodState, pod_state

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from .cluster import Cluster

__all__ = ("EventLog", "PodEvent", "PodWatch")

#: Seconds that a watch goes on when nobody needs it any more: the next one often comes soon.
_LINGER = 5.0
_EVENTS_KEPT = 5000
_EVENTS_EACH = 12

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class PodEvent:
    """A warning that a component of the cluster wrote about an object."""

    uid: str
    kind: str
    name: str
    reason: str
    message: str
    count: int = 1
    source: str = ""


class _Shared:
    """Something that runs while anybody is in its ``async with``, and a moment longer."""

    def __init__(self) -> None:
        self._users = 0
        self._task: asyncio.Task[None] | None = None
        self._synced: asyncio.Future[None] | None = None
        self._end: asyncio.TimerHandle | None = None

    async def _run(self) -> None:
        raise NotImplementedError

    async def __aenter__(self) -> Self:
        self._users += 1
        try:
            if self._end is not None:
                self._end.cancel()
                self._end = None
            if self._task is None or self._task.done():
                loop = asyncio.get_running_loop()
                self._synced = loop.create_future()
                self._synced.add_done_callback(_look)
                self._task = loop.create_task(self._run())
                self._task.add_done_callback(functools.partial(self._ended, self._synced))
            assert self._synced is not None
            await asyncio.shield(self._synced)
        except BaseException:
            self._leave()
            raise
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._leave()

    def _leave(self) -> None:
        self._users -= 1
        if self._users == 0 and self._task is not None:
            self._end = asyncio.get_running_loop().call_later(_LINGER, self._cancel)

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()
            self._task = None

    def _ended(self, synced: asyncio.Future[None], task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if not synced.done():
            if error is None:
                synced.cancel()
            else:
                synced.set_exception(error)
        if error is not None:
            self._failed(error)

    def _failed(self, error: BaseException) -> None:
        """Tell those who wait."""

    async def stop(self) -> None:
        """End it now, whoever uses it."""
        if self._end is not None:
            self._end.cancel()
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, ApiError):
                await task


class EventLog(_Shared):
    """The warnings of a namespace, the newest of each object, bounded in number."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        super().__init__()
        self._cluster = cluster
        self._namespace = namespace
        self._events: OrderedDict[tuple[str, str], dict[str, PodEvent]] = OrderedDict()
        self.listeners: set[Callable[[PodEvent], None]] = set()

    def of(self, kind: str, name: str) -> tuple[PodEvent, ...]:
        """Return the warnings about an object, oldest first."""
        return tuple(self._events.get((kind, name), {}).values())

    def about(self, kinds: Collection[str]) -> tuple[PodEvent, ...]:
        """Return the warnings about all objects of these kinds."""
        return tuple(event for (kind, _), found in self._events.items() if kind in kinds for event in found.values())

    async def _run(self) -> None:
        path = f"/api/v1/namespaces/{self._namespace}/events"
        try:
            async with contextlib.aclosing(self._cluster.watch(path, field_selector="type!=Normal")) as changes:  # type: ignore[type-var]
                async for change in changes:
                    if change.type == "RELIST":
                        for raw in change.object["items"]:
                            self._take(raw)
                        self._set_synced()
                    elif change.type != "DELETED":
                        self._take(change.object)
        except ApiError as error:
            if error.status not in (403, 404):
                raise
            self._set_synced()  # without the right to read events a diagnosis is poorer, no more

    def _set_synced(self) -> None:
        if self._synced is not None and not self._synced.done():
            self._synced.set_result(None)

    def _take(self, raw: Mapping[str, Any]) -> None:
        about = raw.get("involvedObject") or raw.get("regarding") or {}
        event = PodEvent(
            uid=about.get("uid", ""),
            kind=about.get("kind", ""),
            name=about.get("name", ""),
            reason=raw.get("reason") or "",
            message=raw.get("message") or raw.get("note") or "",
            count=int((raw.get("series") or {}).get("count") or raw.get("count") or 1),
            source=(raw.get("source") or {}).get("component") or raw.get("reportingComponent") or "",
        )
        found = self._events.setdefault((event.kind, event.name), {})
        found.pop(raw["metadata"]["name"], None)
        found[raw["metadata"]["name"]] = event  # to the end: the newest
        while len(found) > _EVENTS_EACH:
            del found[next(iter(found))]
        self._events.move_to_end((event.kind, event.name))
        while len(self._events) > _EVENTS_KEPT:
            self._events.popitem(last=False)
        for listener in tuple(self.listeners):
            listener(event)


class PodWatch(_Shared):
    """The pods of a namespace that a selector matches, always up to date while someone is in its ``async with``.

    Several may be in it at once: there is one watch. It costs two lists and two streams, however many pods there are.
    """

    def __init__(self, cluster: Cluster, namespace: str, label_selector: str) -> None:
        super().__init__()
        self.cluster = cluster
        self.namespace = namespace
        self.label_selector = label_selector
        self.events = cluster.event_log(namespace)
        self._pods: dict[str, PodState] = {}
        self._callbacks: set[Callable[[PodState], None]] = set()
        self._by_name: dict[str, set[Callable[[PodState], None]]] = {}
        self._error: BaseException | None = None

    @property
    def pods(self) -> Mapping[str, PodState]:
        """All pods that are there, by name."""
        return self._pods

    def get(self, name: str) -> PodState | None:
        """Return a pod as it was last heard of; None: it is not there."""
        return self._pods.get(name)

    def events_of(self, pod: PodState) -> tuple[PodEvent, ...]:
        """Return the warnings about a pod, oldest first."""
        return tuple(event for event in self.events.of("Pod", pod.name) if event.uid in ("", pod.uid))

    def subscribe(self, callback: Callable[[PodState], None], names: Collection[str] | None = None) -> Callable[[], None]:
        """Call back after each change of a pod; of one that is gone, with ``deleted`` set and ``get`` being None.

        Args:
            names: Only for pods of these names, at no cost for changes of others; None: for all.

        Returns:
            What ends it.
        """
        homes = [self._callbacks] if names is None else [self._by_name.setdefault(name, set()) for name in names]
        for home in homes:
            home.add(callback)

        def end() -> None:
            for home in homes:
                home.discard(callback)
            for name in names or ():
                if not self._by_name.get(name, True):
                    del self._by_name[name]

        return end

    def check(self) -> None:
        """Raise what has ended the watch, if something has."""
        if self._error is not None:
            raise self._error

    async def wait_for(self, predicate: Callable[[PodWatch], T | None], timeout: float | None = None) -> T:
        """Wait until the predicate is true (or at least not None and not False) and return what it said.

        It is asked after changes, of pods and warnings, and should be quick.

        Args:
            timeout: Seconds; None: for ever.

        Raises:
            TimeoutError: It was not true in time.
            ApiError: The watch can't go on.
        """
        changed = asyncio.Event()

        def on_change(_: object) -> None:
            changed.set()

        self._callbacks.add(on_change)
        self.events.listeners.add(on_change)
        try:
            async with asyncio.timeout(timeout):
                while True:
                    self.check()
                    found = predicate(self)
                    if found is not None and found is not False:
                        return found
                    changed.clear()
                    await changed.wait()
        finally:
            self._callbacks.discard(on_change)
            self.events.listeners.discard(on_change)

    async def _run(self) -> None:
        self._error = None
        async with self.events:
            query = self.label_selector or None
            path = f"/api/v1/namespaces/{self.namespace}/pods"
            async with contextlib.aclosing(self.cluster.watch(path, label_selector=query)) as changes:  # type: ignore[type-var]
                async for change in changes:
                    if change.type == "RELIST":
                        self._replace(change.object["items"])
                    elif change.type == "DELETED":
                        self._remove(change.object["metadata"]["name"])
                    else:
                        self._put(change.object)

    def _replace(self, items: list[dict[str, Any]]) -> None:
        for name in self._pods.keys() - {item["metadata"]["name"] for item in items}:
            self._remove(name)
        for item in items:
            self._put(item)
        if self._synced is not None and not self._synced.done():
            self._synced.set_result(None)

    def _put(self, raw: dict[str, Any]) -> None:
        pod = pod_state(raw)
        self._pods[pod.name] = pod
        self._tell(pod)

    def _remove(self, name: str) -> None:
        pod = self._pods.pop(name, None)
        if pod is not None:
            from dataclasses import replace

            self._tell(replace(pod, deleted=True, ready=False))

    def _tell(self, pod: PodState) -> None:
        for callback in (*self._callbacks, *self._by_name.get(pod.name, ())):
            callback(pod)

    def _failed(self, error: BaseException) -> None:
        self._error = error
        nobody = PodState(name="", uid="", namespace=self.namespace)
        for callback in {*self._callbacks, *(each for found in self._by_name.values() for each in found)}:
            callback(nobody)


def _look(future: asyncio.Future[None]) -> None:
    """Look at the outcome: nobody may be waiting for it."""
    if not future.cancelled():
        future.exception()
