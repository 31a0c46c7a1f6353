"""Tell observers what happens, without ever letting them get in the way.

Observers are called in the event loop, in the order of what happened; they have to return at once. No event carries
environment values, standard input, output, or more of a command than its first word.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from .values import Event

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from .plugins import PluginHost

__all__ = ("EventSink", "Span")

_log = logging.getLogger("sandboxcore.events")
_NOTHING: Mapping[str, Any] = MappingProxyType({})


class EventSink:
    """Where a session's events go. ``active`` is False when nobody listens: then nothing needs to be built."""

    __slots__ = ("_callback", "_failed", "_host", "active", "backend", "run_id")

    def __init__(self, host: PluginHost, callback: Callable[[Event], None] | None, *, backend: str, run_id: str) -> None:
        self._host = host if host.observed else None
        self._callback = callback
        self._failed = False
        self.active = callback is not None or self._host is not None
        self.backend = backend
        self.run_id = run_id

    def emit(
        self,
        name: str,
        *,
        environment_id: str = "",
        service: str = "",
        duration: float | None = None,
        attributes: Mapping[str, Any] = _NOTHING,
    ) -> None:
        """Build an event, if anybody listens, and pass it on."""
        if self.active:
            event = Event(
                name=name,
                time=time.time(),
                backend=self.backend,
                run_id=self.run_id,
                environment_id=environment_id,
                service=service,
                duration=duration,
                attributes=attributes,
            )
            self._send(event)

    def of_environment(self, environment_id: str) -> Callable[[Event], None]:
        """Return what a backend reports its progress to; it fills in whose events they are."""

        def forward(event: Event) -> None:
            if not self.active:
                return
            filled = event.replace(
                backend=event.backend or self.backend,
                run_id=event.run_id or self.run_id,
                environment_id=event.environment_id or environment_id,
            )
            self._send(filled)

        return forward

    def span(self, name: str, *, environment_id: str = "", service: str = "", **attributes: Any) -> Span:
        """Announce the start of something, and return what announces its end."""
        if not self.active:
            return _QUIET
        self.emit(f"{name}.start", environment_id=environment_id, service=service, attributes=attributes)
        return Span(self, name, environment_id, service, attributes)

    def _send(self, event: Event) -> None:
        if self._host is not None:
            self._host.emit(event)
        if self._callback is None:
            return
        try:
            self._callback(event)
        except Exception:
            if not self._failed:
                _log.exception("on_event raised; further failures of it are not logged")
            self._failed = True


class Span:
    """Something that has begun and of which the end will be told, once."""

    __slots__ = ("_attributes", "_began", "_environment_id", "_name", "_service", "_sink")

    def __init__(
        self, sink: EventSink | None, name: str, environment_id: str, service: str, attributes: Mapping[str, Any]
    ) -> None:
        self._sink = sink
        self._name = name
        self._environment_id = environment_id
        self._service = service
        self._attributes = attributes
        self._began = time.perf_counter()

    def end(self, **attributes: Any) -> None:
        """Tell that it ended well."""
        self._finish("end", attributes)

    def failed(self, error: BaseException) -> None:
        """Tell that it failed, and with which class of error; the message may hold what is nobody's business."""
        self._finish("failed", {"error": type(error).__name__})

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is None:
            self.end()
        else:
            self.failed(error)

    def _finish(self, how: str, attributes: Mapping[str, Any]) -> None:
        sink, self._sink = self._sink, None
        if sink is not None:
            sink.emit(
                f"{self._name}.{how}",
                environment_id=self._environment_id,
                service=self._service,
                duration=time.perf_counter() - self._began,
                attributes={**self._attributes, **attributes},
            )


#: What nobody listens to.
_QUIET = Span(None, "", "", "", _NOTHING)
