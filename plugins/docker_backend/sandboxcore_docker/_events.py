"""One stream of events a run: who has started, ended or become healthy, without asking again and again."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from sandboxcore.errors import SandboxError

from ._http import HttpError
from ._labels import label

if TYPE_CHECKING:
    from ._engine import Engine

__all__ = ("EventStream", "read_event")

_ACTIONS = ["start", "die", "oom", "health_status", "destroy", "pause", "unpause"]
_PAUSES = (0.1, 0.5, 1.0, 2.0)
_log = logging.getLogger("sandboxcore")

#: Called with an action and its attributes; ``resync`` after a gap, when everything may have happened.
Listener = Callable[[str, Mapping[str, str]], None]


class EventStream:
    """The events of a run's containers, to whoever listens for one of them."""

    def __init__(self, engine: Engine, run_id: str) -> None:
        self._engine = engine
        self._run_id = run_id
        self._listeners: dict[str, list[Listener]] = {}
        self._task: asyncio.Task[None] | None = None
        self._open: asyncio.Future[None] | None = None
        self._since = ""

    def listen(self, container: str, listener: Listener) -> None:
        """Hear of a container, until ``forget``."""
        self._listeners.setdefault(container, []).append(listener)

    def forget(self, container: str, listener: Listener) -> None:
        """Hear of it no more. Idempotent."""
        listeners = self._listeners.get(container, [])
        if listener in listeners:
            listeners.remove(listener)
        if not listeners:
            self._listeners.pop(container, None)

    async def ready(self) -> None:
        """Wait until events come in: what happens from now on is heard of.

        Raises:
            SandboxUnavailableError: The engine can't be reached.
        """
        if self._task is None or self._task.done():
            self._open = asyncio.get_running_loop().create_future()
            self._open.add_done_callback(_retrieve)
            self._since = self._since or str(await self._engine_time())
            self._task = asyncio.create_task(self._run(self._open), name="sandboxcore docker events")
        assert self._open is not None
        await asyncio.shield(self._open)

    async def aclose(self) -> None:
        """Stop. Idempotent."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait((task,), timeout=5.0)

    async def _engine_time(self) -> int:
        """By the engine's own clock: the date of an answer that was given before."""
        about = await self._engine.about()
        try:
            return int(parsedate_to_datetime(about["Date"]).timestamp())
        except (TypeError, ValueError):
            return 0

    async def _run(self, opened: asyncio.Future[None]) -> None:
        attempt = 0
        while True:
            try:
                await self._follow(opened)
                attempt = 0
            except (SandboxError, HttpError) as error:
                if not opened.done():
                    opened.set_exception(error)
                    return
                _log.debug("the engine's events stopped: %s", error)
            await asyncio.sleep(_PAUSES[min(attempt, len(_PAUSES) - 1)])
            attempt += 1

    async def _follow(self, opened: asyncio.Future[None]) -> None:
        filters = {"type": ["container"], "label": [f"{label('run-id')}={self._run_id}"], "event": _ACTIONS}
        async with self._engine.open("GET", "/events", query={"filters": filters, "since": self._since}) as answer:
            if opened.done():
                self._tell_all("resync")
            else:
                opened.set_result(None)
            rest = b""
            async for piece in answer.pieces():
                *lines, rest = (rest + piece).split(b"\n")
                for line in filter(None, map(bytes.strip, lines)):
                    self._take(json.loads(line))

    def _take(self, event: dict[str, Any]) -> None:
        if "timeNano" in event:
            self._since = f"{event['timeNano'] // 1_000_000_000}.{event['timeNano'] % 1_000_000_000:09d}"
        container, action, attributes = read_event(event)
        for listener in tuple(self._listeners.get(container, ())):
            listener(action, attributes)

    def _tell_all(self, action: str) -> None:
        for listeners in tuple(self._listeners.values()):
            for listener in tuple(listeners):
                listener(action, {})


def read_event(event: Mapping[str, Any]) -> tuple[str, str, Mapping[str, str]]:
    """Read container, action and attributes; ``health_status: healthy`` becomes ``healthy``."""
    actor = event.get("Actor") or {}
    action = str(event.get("Action") or event.get("status") or "")
    if action.startswith("health_status"):
        action = action.partition(":")[2].strip() or str((actor.get("Attributes") or {}).get("health_status", ""))
    return str(actor.get("ID") or event.get("id") or ""), action, actor.get("Attributes") or {}


def _retrieve(future: asyncio.Future[None]) -> None:
    if not future.cancelled():
        future.exception()
