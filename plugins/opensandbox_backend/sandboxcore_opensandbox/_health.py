"""Give up on a service whose health check has failed as often as it may: Kubernetes would go on for ever."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, NoReturn

from sandboxcore.errors import ServiceFailedError

if TYPE_CHECKING:
    from sandboxcore.spec import EnvironmentSpec, Healthcheck
    from sandboxcore_kubernetes import PodState, PodWatch
    from sandboxcore_kubernetes.watches import PodEvent

__all__ = ("failed_checks", "until_unhealthy")

_LOOK = 1.0


async def until_unhealthy(watch: PodWatch, spec: EnvironmentSpec, services: Mapping[str, str]) -> NoReturn:
    """Wait until a check has failed ``retries`` times after the start period, and raise.

    Args:
        services: Pod to its service.

    Raises:
        ServiceFailedError: Always; it names the service and what the check said last.
    """
    checked = {pod: (service, check) for pod, service in services.items() if (check := spec.services[service].healthcheck)}
    since: dict[str, float] = {}
    while True:
        for name, (service, check) in checked.items():
            state = watch.get(name)
            if state is None or state.ready or state.main is None or state.main.state == "waiting":
                continue
            begun = since.setdefault(name, time.monotonic())
            events = watch.events_of(state)
            failures = failed_checks(events)
            if failures >= max(1, check.retries) and time.monotonic() - begun >= check.start_period:
                raise _unhealthy(service, check, failures, _last_words(state, events))
        await _changed(watch)


async def _changed(watch: PodWatch) -> None:
    """Wait until something is told of any pod, a moment at most: the start period ends without a word."""
    changed = asyncio.Event()

    def listener(_: object) -> None:
        changed.set()

    stop = watch.subscribe(listener)
    watch.events.listeners.add(listener)
    try:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LOOK):
                await changed.wait()
    finally:
        stop()
        watch.events.listeners.discard(listener)


def failed_checks(events: tuple[PodEvent, ...]) -> int:
    """Count the failures of probes that the kubelet told of."""
    return sum(event.count for event in events if event.reason == "Unhealthy")


def _last_words(state: PodState, events: tuple[PodEvent, ...]) -> str:
    said = [event.message for event in events if event.reason == "Unhealthy"]
    return " ".join((said[-1].partition("failed:")[2] or said[-1]).split())[:300] if said else state.phase


def _unhealthy(service: str, check: Healthcheck, failures: int, said: str) -> ServiceFailedError:
    what = f"service {service!r}: is unhealthy: its health check failed {failures} times (retries {check.retries}): {said}"
    return ServiceFailedError(what, service=service, hint="correct the check, or give the service more time")
