"""Who listens in these tests, and what they heard."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from sandboxcore import Event, hookimpl


@dataclass
class Heard:
    """What each observer got."""

    events: list[Event] = field(default_factory=list)
    by_plugin: list[Event] = field(default_factory=list)
    spans: InMemorySpanExporter = field(default_factory=InMemorySpanExporter)
    metrics: InMemoryMetricReader = field(default_factory=InMemoryMetricReader)

    def span(self, name: str) -> ReadableSpan:
        """The only span of a name."""
        (found,) = [span for span in self.spans.get_finished_spans() if span.name == name]
        return found

    def points(self, name: str) -> list[Any]:
        """The data points of a metric."""
        data = self.metrics.get_metrics_data()
        assert data is not None
        return [
            point
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == name
            for point in metric.data.data_points
        ]


class Listener:
    """A plugin that keeps what it hears."""

    def __init__(self, events: list[Event]) -> None:
        self._events = events

    @hookimpl
    def sandboxcore_event(self, event: Event) -> None:
        self._events.append(event)
