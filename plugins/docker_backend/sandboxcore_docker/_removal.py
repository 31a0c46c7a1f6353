"""Take an environment away: containers first, then what they held. Whoever does it, and however often."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from sandboxcore.errors import SandboxError

from ._engine import Engine, refused
from ._http import HttpError
from ._labels import selecting

if TYPE_CHECKING:
    from ._leases import Leases

__all__ = ("Remover",)

_ROUNDS = 40
_PAUSE = 0.25


class Remover:
    """Removes all that carries an environment's id."""

    def __init__(self, engine: Engine, leases: Leases) -> None:
        self._engine, self._leases = engine, leases

    async def remove(self, environment_id: str, run_id: str) -> None:
        """Remove, and return when nothing is left.

        Raises:
            SandboxError: The engine did not let something go; all else is gone.
        """
        labels = selecting(environment_id=environment_id)
        for left in range(_ROUNDS, 0, -1):
            try:
                if not await self._round(labels):
                    break
            except HttpError as error:
                # What is still held by what somebody else is removing goes in a moment.
                if left == 1 or error.status not in (403, 409, 500):
                    raise refused(error, f"environment {environment_id} could not be removed whole") from error
                await asyncio.sleep(_PAUSE)
        else:
            raise SandboxError(f"environment {environment_id} could not be removed whole: something of it is left")
        await self._leases.settle(run_id)

    async def _round(self, labels: list[str]) -> bool:
        """Remove what there is; False if there was nothing."""
        containers, networks, volumes, images = await asyncio.gather(
            self._engine.find("containers", labels, all=True),
            self._engine.find("networks", labels),
            self._engine.find("volumes", labels),
            self._engine.find("images", labels),
        )
        await self._each(self._container, [found["Id"] for found in containers])
        await self._each(self._network, [found["Id"] for found in networks])
        await self._each(self._volume, [found["Name"] for found in volumes])
        await self._each(self._image, [found["Id"] for found in images])
        return bool(containers or networks or volumes or images)

    async def _each(self, work: Callable[[str], Coroutine[Any, Any, None]], names: list[str]) -> None:
        async def one(name: str) -> None:
            async with self._engine.busy:
                await work(name)

        outcomes = await asyncio.gather(*(one(name) for name in names), return_exceptions=True)
        failure = next((outcome for outcome in outcomes if isinstance(outcome, BaseException)), None)
        if failure is not None:
            raise failure

    async def _container(self, name: str) -> None:
        try:
            await self._engine.attempt(self._engine.call("DELETE", f"/containers/{name}", query={"force": True, "v": True}))
        except HttpError as error:
            if error.status != 409:
                raise
            # Somebody else is removing it.
            query = {"condition": "removed"}
            await self._engine.attempt(self._engine.call("POST", f"/containers/{name}/wait", query=query))

    async def _network(self, name: str) -> None:
        await self._engine.attempt(self._engine.call("DELETE", f"/networks/{name}"))

    async def _volume(self, name: str) -> None:
        await self._engine.attempt(self._engine.call("DELETE", f"/volumes/{name}", query={"force": True}))

    async def _image(self, name: str) -> None:
        await self._engine.attempt(self._engine.call("DELETE", f"/images/{name}", query={"force": True}))
