"""Events as OpenTelemetry spans and metrics; the extra ``otel`` brings what this needs.

A span is made when something ends, from the time and the duration of its last event, below whatever span its caller is in.
Events hold no secrets; only attributes that are named here are passed on all the same, so that those of a backend that is
less careful stay where they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from .._identity import installed_version
from .._markers import PROJECT, hookimpl
from ..errors import UsageError

if TYPE_CHECKING:
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import TracerProvider

    from ..values import Event

__all__ = ("OpenTelemetryObserver",)

_PASSED_ON = ("argv0", "exit_code", "error", "path", "pty", "reason", "services", "size_bytes")
_ENDINGS = ("end", "failed", "ready")


class OpenTelemetryObserver:
    """A plugin that turns events into spans, counters and histograms.

    Spans are called after what ended (``environment.provision``, ``environment.destroy``, ``service.ready``, ``exec``,
    ``file.read``, ...). Metrics: the histogram ``sandboxcore.operation.duration`` (seconds; it counts too), the counter
    ``sandboxcore.file.bytes`` and the gauge-like ``sandboxcore.environments``, those that this process has provisioned
    and not destroyed.

    Args:
        tracer_provider: Where spans go; None: the program's global one.
        meter_provider: Where metrics go; None: the program's global one.

    Raises:
        UsageError: OpenTelemetry is not installed.
    """

    def __init__(self, tracer_provider: TracerProvider | None = None, meter_provider: MeterProvider | None = None) -> None:
        try:
            from opentelemetry import metrics, trace
        except ImportError as error:
            hint = "pip install 'sandboxcore[otel]'"
            raise UsageError("OpenTelemetry is not installed", hint=hint) from error
        version = installed_version(PROJECT)
        self._failed_status = trace.Status(trace.StatusCode.ERROR)
        self._tracer = trace.get_tracer(PROJECT, version, tracer_provider)
        meter = metrics.get_meter(PROJECT, version, meter_provider)
        self._durations = meter.create_histogram("sandboxcore.operation.duration", "s", "How long operations took")
        self._bytes = meter.create_counter("sandboxcore.file.bytes", "By", "Bytes of files that were moved whole")
        self._environments = meter.create_up_down_counter("sandboxcore.environments", "{environment}", "Environments in use")

    @hookimpl
    def sandboxcore_event(self, event: Event) -> None:
        """Take what has ended."""
        operation, _, how = event.name.rpartition(".")
        if event.duration is None or how not in _ENDINGS:
            return
        self._trace(event, operation if how != "ready" else event.name)
        self._measure(event, operation if how != "ready" else event.name, failed=how == "failed")

    def _trace(self, event: Event, name: str) -> None:
        assert event.duration is not None
        end = round(event.time * 1e9)
        span = self._tracer.start_span(name, start_time=end - round(event.duration * 1e9), attributes=dict(_described(event)))
        if event.name.endswith(".failed"):
            span.set_status(self._failed_status)
        span.end(end)

    def _measure(self, event: Event, name: str, *, failed: bool) -> None:
        assert event.duration is not None
        kind: dict[str, str] = {"operation": name, "backend": event.backend, "outcome": "failed" if failed else "ok"}
        if failed:
            kind["error.type"] = str(event.attributes.get("error", ""))
        self._durations.record(event.duration, kind)
        if failed:
            return
        where = {"backend": event.backend}
        if name in ("file.read", "file.write"):
            self._bytes.add(_size(event.attributes), {**where, "direction": name.removeprefix("file.")})
        elif name in ("environment.provision", "environment.destroy"):
            self._environments.add(1 if name == "environment.provision" else -1, where)


def _size(attributes: Mapping[str, Any]) -> int:
    size = attributes.get("size_bytes", 0)
    return size if isinstance(size, int) else 0


def _described(event: Event) -> Iterator[tuple[str, Any]]:
    for name in ("backend", "run_id", "environment_id", "service"):
        if value := getattr(event, name):
            yield f"sandboxcore.{name}", value
    for name in _PASSED_ON:
        if (value := event.attributes.get(name)) is not None:
            if name == "error":
                yield "error.type", str(value)
            else:
                yield (
                    f"sandboxcore.{name}",
                    value if isinstance(value, (bool, int, float, str)) else [str(each) for each in value],
                )
