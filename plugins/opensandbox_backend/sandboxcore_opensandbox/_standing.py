"""Causes that keep a pool's pods from starting, once they have stood long enough to be believed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sandboxcore_kubernetes import diagnose

if TYPE_CHECKING:
    from sandboxcore_kubernetes import Cause, PodWatch

__all__ = ("Standing",)


class Standing:
    """Remembers since when each cause was seen: some are gone a second later."""

    def __init__(self) -> None:
        self._since: dict[tuple[str, str], float] = {}

    def ripe(self, watch: PodWatch, now: float) -> list[Cause]:
        """Return the certain causes that stand for their time, the first one first.

        Args:
            now: Seconds by any clock that only goes forward.
        """
        found = {
            (state.name, cause.kind): cause
            for state in watch.pods.values()
            if not state.ready and not state.deleted
            for cause in diagnose(state, watch.events_of(state))
            if cause.certain
        }
        self._since = {key: self._since.get(key, now) for key in found}
        return [cause for key, cause in found.items() if now - self._since[key] >= cause.grace]
