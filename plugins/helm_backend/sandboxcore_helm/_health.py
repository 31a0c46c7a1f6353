"""Health checks of a spec are promises: one that fails as often as it may ends the waiting, which no probe of Kubernetes does."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING

from sandboxcore.errors import ServiceFailedError
from sandboxcore_kubernetes.diagnosis import diagnose
from sandboxcore_kubernetes.readiness import failure

if TYPE_CHECKING:
    from sandboxcore.spec import EnvironmentSpec
    from sandboxcore_kubernetes.watches import PodEvent, PodWatch

__all__ = ("HealthWatch", "limits")

_FAILED = "Readiness probe failed"


def limits(spec: EnvironmentSpec) -> dict[str, int]:
    """Tell for each service with a health check how often in a row it may fail."""
    checks = {name: service.healthcheck for name, service in spec.services.items()}
    return {name: max(1, check.retries) for name, check in checks.items() if check is not None and check.test[0] != "NONE"}


class HealthWatch:
    """Listens to what the kubelet says of the readiness probes of some pods.

    Args:
        pods: Name of each pod to how often in a row its check may fail.
    """

    def __init__(self, watch: PodWatch, pods: Mapping[str, int]) -> None:
        self._watch = watch
        self._pods = pods
        self._failed: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def __enter__(self) -> HealthWatch:
        if self._pods:
            self._watch.events.listeners.add(self._listen)
        return self

    def __exit__(self, *exc: object) -> None:
        self._watch.events.listeners.discard(self._listen)
        self._failed.cancel()

    def _listen(self, event: PodEvent) -> None:
        limit = self._pods.get(event.name)
        if event.kind != "Pod" or limit is None or not event.message.startswith(_FAILED) or self._failed.done():
            return
        pod = self._watch.get(event.name)
        # What was ready once is left to the one who waits for it: it may be between two events.
        if pod is not None and not pod.ready and event.uid == pod.uid and event.count >= limit:
            self._failed.set_result(event.name)

    async def failed(self) -> None:
        """Wait until a check has failed too often.

        Raises:
            ServiceFailedError: It has; with what the check said.
        """
        pod = self._watch.get(await self._failed)
        if pod is None:
            return
        causes = [cause for cause in diagnose(pod, self._watch.events_of(pod)) if cause.kind == "ProbeFailed"]
        found = await failure(self._watch, causes[0] if causes else None)
        raise ServiceFailedError(str(found), service=pod.service, hint=found.hint)
