"""Observers of a session's events: progress on a terminal, and OpenTelemetry. Importing this costs nothing of either.

::

    async with Session(on_event=Progress().on_event) as session: ...

    host = PluginHost.load(extra=[OpenTelemetryObserver()])   # pip install 'sandboxcore[otel]'
    async with Session(plugins=host) as session: ...
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .otel import OpenTelemetryObserver
    from .progress import Progress

__all__ = ("OpenTelemetryObserver", "Progress")


def __getattr__(name: str) -> object:
    if name == "OpenTelemetryObserver":
        from .otel import OpenTelemetryObserver

        return OpenTelemetryObserver
    if name == "Progress":
        from .progress import Progress

        return Progress
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
