"""A session on the local backend that everybody listens to: callback, plugin and OpenTelemetry."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from sandboxcore import PluginHost, Session

pytest.importorskip("opentelemetry.sdk", reason="the extra `otel` is not installed")

from observers import Heard, Listener
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from sandboxcore.observe import OpenTelemetryObserver


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def tracing(heard: Heard) -> TracerProvider:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(heard.spans))
    return provider


@pytest.fixture
async def open_session(heard: Heard, tracing: TracerProvider) -> AsyncIterator[Callable[..., Session]]:
    """Make sessions with all observers, and further plugins."""
    meters = MeterProvider(metric_readers=[heard.metrics])

    def make(*plugins: object, **options: Any) -> Session:
        observers = [*plugins, Listener(heard.by_plugin), OpenTelemetryObserver(tracing, meters)]
        host = PluginHost.load(entry_points=False, extra=observers)
        assert not host.problems
        return Session("local", plugins=host, **{"on_event": heard.events.append, **options})

    yield make
    meters.shutdown()
    tracing.shutdown()
