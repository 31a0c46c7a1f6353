"""Pods that others must be so far for: each is held back by a scheduling gate until the client takes it away."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING

from .errors import ApiError, sandbox_error

if TYPE_CHECKING:
    from .cluster import Cluster
    from .pods import PodState
    from .watches import PodWatch

__all__ = ("GATE", "Gates", "dependency_holds")

#: What keeps a pod from being scheduled until what it depends on is so far.
GATE = "sandboxcore.dev/depends-on"


def dependency_holds(condition: str, pod: PodState | None) -> bool:
    """Tell whether a service is so far that another one may start (``started``, ``healthy``, ``completed``)."""
    if pod is None or pod.deleted:
        return False
    if condition == "completed":
        return pod.succeeded
    if condition == "healthy":
        return pod.ready
    return pod.succeeded or any(one.state in ("running", "terminated") for one in pod.containers[:1])


class Gates:
    """Takes the gate from each pod when what it depends on is so far.

    Args:
        needs: Pod with a gate to the pods that it depends on, and what must be true of each.
        before: What else is to be done before a pod is let go.
    """

    def __init__(
        self,
        cluster: Cluster,
        watch: PodWatch,
        needs: Mapping[str, Mapping[str, str]],
        namespace: str,
        *,
        before: Callable[[str], Awaitable[None]] | None = None,
    ) -> None:
        self._cluster = cluster
        self._watch = watch
        self._needs = needs
        self._namespace = namespace
        self._before = before
        self._opened: set[str] = set()
        self._opening: set[asyncio.Task[None]] = set()
        self._unsubscribe: Callable[[], None] | None = None
        self._failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def __enter__(self) -> Gates:
        if self._needs:
            names = self._needs.keys() | {other for needs in self._needs.values() for other in needs}
            self._unsubscribe = self._watch.subscribe(self._look, names)
            self._look()
        return self

    def __exit__(self, *exc: object) -> None:
        if self._unsubscribe is not None:
            self._unsubscribe()
        for task in self._opening:
            task.cancel()
        self._failure.cancel()

    async def failed(self) -> None:
        """Wait until a gate could not be taken away.

        Raises:
            SandboxError: That happened.
        """
        await self._failure

    def held_by(self, name: str) -> tuple[str, str] | None:
        """Tell for which other pod one is held back, and what must become true of that; None: for none."""
        pod = self._watch.get(name)
        needs = self._needs.get(name, {}) if pod is not None and GATE in _gates(pod) else {}
        return next((need for need in needs.items() if not dependency_holds(need[1], self._watch.get(need[0]))), None)

    def _look(self, _: PodState | None = None) -> None:
        for name in self._needs:
            pod = self._watch.get(name)
            # By its uid: what makes pods may make one anew, which has a gate again.
            if pod is not None and pod.uid not in self._opened and GATE in _gates(pod) and self.held_by(name) is None:
                self._opened.add(pod.uid)
                task = asyncio.ensure_future(self._open(pod))
                self._opening.add(task)
                task.add_done_callback(self._opening.discard)

    async def _open(self, pod: PodState) -> None:
        left = [{"name": gate} for gate in _gates(pod) if gate != GATE]
        try:
            if self._before is not None:
                await self._before(pod.name)
            await self._cluster.patch("Pod", pod.name, {"spec": {"schedulingGates": left}}, namespace=self._namespace)
        except ApiError as error:
            if not self._failure.done():
                self._failure.set_exception(sandbox_error(error, f"pod {pod.name!r} could not be let go"))


def _gates(pod: PodState) -> list[str]:
    return [gate["name"] for gate in (pod.raw.get("spec") or {}).get("schedulingGates") or ()]
