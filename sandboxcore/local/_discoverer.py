"""Find environments of this machine, and what their services wrote."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..abc import Discoverer
from ._describe import environment_ref
from ._logs import follow_log, tail_log

if TYPE_CHECKING:
    from ..values import EnvironmentRef, SandboxRef, Selector
    from ._state import State

__all__ = ("LocalDiscoverer",)


class LocalDiscoverer(Discoverer):
    """Reads the state folder; asks nobody."""

    def __init__(self, state: State) -> None:
        self._state = state

    async def find(self, selector: Selector) -> Sequence[EnvironmentRef]:
        """List the environments that the selector matches, also half-made and expired ones."""
        if selector.environment_id is not None:
            found = [environment_ref(self._state.folder(selector.environment_id))]
        else:
            found = [environment_ref(folder) for folder in self._state.folders()]
        return [environment for environment in found if environment is not None and selector.matches(environment)]

    async def logs(self, sandbox: SandboxRef, *, tail: int | None = None, follow: bool = False) -> AsyncIterator[bytes]:
        """Yield what the service's own command wrote: up to 16 MiB back, oldest first.

        Args:
            tail: Begin with this many of the last lines; None: with all that is kept.
            follow: Go on until the service ends.
        """
        folder = Path(sandbox.data["folder"])
        if follow:
            async for data in follow_log(folder, tail):
                yield data
            return
        for data in tail_log(folder, tail):
            yield data
