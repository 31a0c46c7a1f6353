"""Waiting for pods, with the reason at hand when they don't come."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import TYPE_CHECKING

from sandboxcore.errors import ProvisionError, ProvisionTimeoutError, ServiceFailedError
from sandboxcore.values import Event

from .diagnosis import Cause, diagnose, diagnose_owner, ended_well
from .errors import ApiError

if TYPE_CHECKING:
    from .pods import PodState
    from .watches import PodEvent, PodWatch

__all__ = ("failure", "wait_ready")

_FAILED_BY_ITSELF = frozenset(
    {"CrashLoop", "ContainerFailed", "ContainerEnded", "OOMKilled", "ContainerStart", "CrashedOnce", "Hook"}
)
#: Seconds for the last lines of a log, within the caller's deadline; where that is near or over, no more than this.
_LOG_PATIENCE = 15.0
_LOG_PATIENCE_LATE = 0.4


async def wait_ready(
    watch: PodWatch,
    names: Collection[str] | None = None,
    *,
    labels: Mapping[str, str] | None = None,
    count: int | None = None,
    owners: Collection[str] = (),
    emit: Callable[[Event], None],
    deadline: float,
    done: Callable[[PodState], bool] | None = None,
    backend: str = "",
    run_id: str = "",
    environment_id: str = "",
    crashes: int = 3,
    log_lines: int = 20,
) -> list[PodState]:
    """Wait until pods are ready: those with these names, or ``count`` of those that carry all ``labels``.

    What keeps them waiting is told as events ``service.waiting`` (attributes ``cause``, ``reason``, ``pod``), each once; a
    pod that is ready as ``service.ready``. The caller is in ``async with watch``.

    Args:
        owners: Names of the objects that make the pods (StatefulSets, ...), whose failures to make them are causes too.
        deadline: By the event loop's clock (``loop.time()``).
        done: What ready means; None: the pod's own condition, or that it ended well.
        crashes: How often a container may end before that is taken for certain.
        log_lines: How many lines of a crashed container's log the error ends with.

    Returns:
        The pods, in the order of ``names``, else by name.

    Raises:
        ProvisionError: A certain cause, in the first line, as soon as it is certain; nothing was removed.
        ProvisionTimeoutError: The deadline passed; the first line has the most likely cause.
        ServiceFailedError: A container ended or crashed; with its last log lines.
    """
    told = _Teller(emit, backend, run_id, environment_id)
    waiting = _Waiting(watch, names, labels or {}, count, owners, done or _is_done, crashes, told)
    found = await waiting.run(deadline)
    if isinstance(found, list):
        return found
    left = deadline - asyncio.get_running_loop().time()
    raise await failure(watch, found.cause, timed_out=found.timed_out, log_lines=log_lines, left=left)


def _is_done(pod: PodState) -> bool:
    return (pod.ready and not pod.deleted) or pod.succeeded


async def failure(
    watch: PodWatch, cause: Cause | None, *, timed_out: bool = False, log_lines: int = 20, left: float = math.inf
) -> ProvisionError:
    """Build the error of a cause, with log lines where the cause has some; None: nothing is known but that time is up.

    Args:
        left: Seconds until somebody gives up waiting for this error.
    """
    if cause is None:
        return ProvisionTimeoutError("the environment was not ready in time, and the cluster gave no reason")
    where = f"service {cause.service!r}: " if cause.service else ""
    text = f"{where}{cause.message}"
    if timed_out:
        text = f"{text} (until the time was up)"
    lines = []
    if cause.logs and cause.pod:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LOG_PATIENCE_LATE if timed_out else max(_LOG_PATIENCE_LATE, min(_LOG_PATIENCE, left))):
                lines = await _last_lines(watch, cause, log_lines)
    if lines:
        text = "\n".join([f"{text}; its last lines:", *lines])
    own = cause.kind in _FAILED_BY_ITSELF
    kind = ProvisionTimeoutError if timed_out else ServiceFailedError if own else ProvisionError
    return kind(text, service=cause.service or None, hint=cause.hint or None)


async def _last_lines(watch: PodWatch, cause: Cause, number: int) -> list[str]:
    """Read the end of a container's log; no log is no error."""
    for previous in (True, False) if cause.logs == "previous" else (False, True):
        data = b""
        with contextlib.suppress(ApiError):
            logs = watch.cluster.logs(
                cause.pod, cause.container or None, namespace=watch.namespace, tail=number, previous=previous
            )
            async with contextlib.aclosing(logs):  # type: ignore[type-var]
                data = b"".join([chunk async for chunk in logs])
        if data.strip() and not data.startswith(b"unable to retrieve container logs"):  # the API server says so with status 200
            return data.decode(errors="replace").rstrip().splitlines()[-number:]
    return []


class _Teller:
    """Tells each thing once."""

    def __init__(self, emit: Callable[[Event], None], backend: str, run_id: str, environment_id: str) -> None:
        self._emit = emit
        self._where = {"backend": backend, "run_id": run_id, "environment_id": environment_id}
        self._told: set[tuple[str, ...]] = set()
        self._began = time.monotonic()

    def waiting(self, cause: Cause) -> None:
        """Say what a service waits for."""
        if self._new("waiting", cause.pod, cause.service, cause.kind):
            attributes = {"cause": cause.kind, "reason": cause.message, "pod": cause.pod}
            self._send("service.waiting", cause.service, attributes)

    def ready(self, pod: PodState) -> None:
        """Say that a service is ready."""
        if self._new("ready", pod.name, pod.uid):
            duration = time.monotonic() - self._began
            self._send("service.ready", pod.service or pod.name, {"pod": pod.name, "node": pod.node}, duration)

    def _new(self, *key: str) -> bool:
        new = key not in self._told
        self._told.add(key)
        return new

    def _send(self, name: str, service: str, attributes: Mapping[str, object], duration: float | None = None) -> None:
        self._emit(Event(name=name, time=time.time(), service=service, duration=duration, attributes=attributes, **self._where))


class _Verdict:
    """Why waiting ended without success."""

    def __init__(self, cause: Cause | None, *, timed_out: bool) -> None:
        self.cause = cause
        self.timed_out = timed_out


class _Waiting:
    """One wait: it looks only at pods that changed."""

    def __init__(
        self,
        watch: PodWatch,
        names: Collection[str] | None,
        labels: Mapping[str, str],
        count: int | None,
        owners: Collection[str],
        done: Callable[[PodState], bool],
        crashes: int,
        told: _Teller,
    ) -> None:
        self._watch = watch
        self._names = None if names is None else tuple(names)
        self._labels = labels
        self._count = count if count is not None else (1 if names is None else len(self._names or ()))
        self._owners = owners
        self._done = done
        self._crashes = crashes
        self._told = told
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        self._seen: dict[str, str] = {}  # name to service
        self._since: dict[tuple[str, str, str], float] = {}

    async def run(self, deadline: float) -> list[PodState] | _Verdict:
        """Wait; return the pods, or why they won't come."""
        stop = self._watch.subscribe(self._on_pod, self._names)
        self._watch.events.listeners.add(self._on_event)
        try:
            while True:
                self._changed.clear()
                ready = self._ready()
                if ready is not None:
                    return ready
                causes = list(self._causes())
                wake = deadline
                for cause in causes:
                    ripe = self._ripe_at(cause)
                    if ripe <= self._loop.time():
                        return _Verdict(cause, timed_out=False)
                    wake = min(wake, ripe)
                    self._told.waiting(cause)
                self._forget_but(causes)
                if self._loop.time() >= deadline:
                    return _Verdict(causes[0] if causes else self._unready(), timed_out=True)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout_at(wake):
                        await self._changed.wait()
                self._watch.check()
        finally:
            stop()
            self._watch.events.listeners.discard(self._on_event)

    def _mine(self, pod: PodState) -> bool:
        if self._names is not None:
            return pod.name in self._names
        return all(pod.labels.get(name) == value for name, value in self._labels.items())

    def _on_pod(self, pod: PodState) -> None:
        if not pod.name or self._mine(pod):
            self._changed.set()

    def _on_event(self, event: PodEvent) -> None:
        if event.kind != "Pod":
            relevant = any(_made_by(event, owner) for owner in self._owners)
        else:
            pod = self._watch.get(event.name)
            relevant = pod is not None and self._mine(pod)
        if relevant:
            self._changed.set()

    def _pods(self) -> list[PodState]:
        if self._names is not None:
            return [pod for name in self._names if (pod := self._watch.get(name)) is not None]
        return sorted((pod for pod in self._watch.pods.values() if self._mine(pod)), key=lambda pod: pod.name)

    def _ready(self) -> list[PodState] | None:
        good = []
        for pod in self._pods():
            if self._done(pod):
                self._told.ready(pod)
                good.append(pod)
        return good if len(good) >= self._count else None

    def _causes(self) -> Iterator[Cause]:
        pods = self._pods()
        found = [
            cause
            for pod in pods
            if not self._done(pod)
            for cause in diagnose(pod, self._watch.events_of(pod), crashes=self._crashes)
            if not (cause.kind == "PodDeleted" and self._names is None)  # a controller makes another
        ]
        found += [ended_well(pod) for pod in pods if pod.succeeded and not self._done(pod)]
        found += self._lost({pod.name for pod in pods})
        if len(pods) < self._count:
            events = [event for event in self._watch.events.about(_OWNER_KINDS) if event.reason == "FailedCreate"]
            for owner in self._owners:
                found += diagnose_owner(owner, "", [event for event in events if _made_by(event, owner)])
        self._seen |= {pod.name: pod.service or pod.name for pod in pods}
        return iter(sorted(found, key=lambda cause: not cause.certain))

    def _lost(self, there: set[str]) -> list[Cause]:
        """Name the pods that were there and are gone, where nothing makes them anew."""
        if self._names is None or self._owners:
            return []
        gone = [name for name in self._names if name in self._seen and name not in there]
        row = "the pod was deleted while it was waited for"
        return [
            Cause(
                kind="PodDeleted",
                service=self._seen[name],
                severity="error",
                certain=True,
                message=row,
                pod=name,
                hint="something else removes pods here",
            )
            for name in gone
        ]

    def _ripe_at(self, cause: Cause) -> float:
        """Tell from when on a cause counts (loop time)."""
        if not cause.certain:
            return float("inf")
        return self._since.setdefault((cause.pod, cause.container, cause.kind), self._loop.time()) + cause.grace

    def _forget_but(self, causes: Collection[Cause]) -> None:
        standing = {(cause.pod, cause.container, cause.kind) for cause in causes}
        for key in self._since.keys() - standing:
            del self._since[key]

    def _unready(self) -> Cause:
        """Describe what is missing where the cluster has no reason for it."""
        pods = self._pods()
        slow = next((pod for pod in pods if not self._done(pod)), None)
        if slow is not None:
            states = ", ".join(f"{each.name} {each.reason or each.state}" for each in slow.containers)
            message = f"not ready in time: pod {slow.name} is {slow.phase or 'new'} ({states})"
            return Cause(kind="Slow", service=slow.service or slow.name, severity="warning", certain=False, message=message)
        message = f"{len(pods)} of {self._count} pods were there in time"
        return Cause(kind="Slow", service="", severity="warning", certain=False, message=message)


_OWNER_KINDS = frozenset({"StatefulSet", "ReplicaSet", "Job", "DaemonSet", "Deployment", "BatchSandbox", "Pool"})


def _made_by(event: PodEvent, owner: str) -> bool:
    """Tell whether a warning is about an owner, or about the ReplicaSet of one."""
    return event.name == owner or event.name.startswith(f"{owner}-")
