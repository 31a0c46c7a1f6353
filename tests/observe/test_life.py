"""The life of environments and commands, as each kind of observer sees it."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
from collections.abc import Callable

import pytest
from observers import Heard
from opentelemetry.sdk.trace import TracerProvider

from sandboxcore import Event, ExecTimeoutError, PluginHost, ProvisionError, Session, hookimpl
from sandboxcore.errors import SandboxFileNotFoundError

pytestmark = pytest.mark.tier("local")


async def live(session: Session) -> str:
    """Go through a whole life, and return the environment's id."""
    async with session, session.environment() as env:
        await env.default.exec(["sh", "-c", "exit 3"])
        await env.default.write_file("/tmp/f", b"12345")
        await env.default.read_file("/tmp/f")
        with pytest.raises(SandboxFileNotFoundError):
            await env.default.read_file("/nowhere")
        with pytest.raises(ExecTimeoutError):
            await env.default.exec(["sleep", "10"], timeout=0.05)
        async with env.default.start(["cat"]) as process:
            await process.communicate(b"x")
        return env.id


LIFE = [
    "environment.provision.start",
    "service.starting",
    "service.ready",
    "environment.provision.end",
    *("exec.start", "exec.end"),
    *("file.write.start", "file.write.end"),
    *("file.read.start", "file.read.end"),
    *("file.read.start", "file.read.failed"),
    *("exec.start", "exec.failed"),
    *("exec.start", "exec.end"),
    "environment.destroy.start",
    "environment.destroy.end",
]


async def test_all_is_seen_in_order_with_durations(open_session: Callable[..., Session], heard: Heard) -> None:
    environment_id = await live(open_session(run_id="my-run"))
    assert [event.name for event in heard.events] == LIFE
    assert heard.by_plugin == heard.events
    for event in heard.events:
        assert (event.backend, event.run_id, event.environment_id) == ("local", "my-run", environment_id)
        finished = event.name.endswith((".end", ".failed", ".ready"))
        assert (event.duration is not None) is finished
        assert event.duration is None or 0 < event.duration < 60
    times = [event.time for event in heard.events]
    assert times == sorted(times)


async def test_durations_are_those_of_what_happened(open_session: Callable[..., Session], heard: Heard) -> None:
    async with open_session() as session, session.environment() as env:
        await env.default.exec(["sleep", "0.3"])
    (ended,) = [event for event in heard.events if event.name == "exec.end"]
    assert ended.duration is not None
    assert 0.3 <= ended.duration < 30


async def test_commands_at_once_each_have_their_start_and_end(open_session: Callable[..., Session], heard: Heard) -> None:
    async with open_session() as session, session.environment() as env:
        await asyncio.gather(*(env.default.exec(["sh", "-c", f"exit {code}"]) for code in range(50)))
    events = [event for event in heard.events if event.name.startswith("exec.")]
    open_now = 0
    for event in events:
        open_now += 1 if event.name == "exec.start" else -1
        assert open_now >= 0
    assert open_now == 0
    assert sorted(event.attributes["exit_code"] for event in events if event.name == "exec.end") == list(range(50))


async def test_what_fails_is_told_with_the_class_of_its_error(open_session: Callable[..., Session], heard: Heard) -> None:
    async with open_session() as session:
        with pytest.raises(ProvisionError):
            await session.provision({"services": {"default": {"command": ["false"], "healthcheck": {"test": ["CMD", "false"]}}}})
    failed = heard.events[-1]
    assert failed.name == "environment.provision.failed"
    assert failed.attributes["error"] == "ServiceFailedError"
    assert failed.duration is not None


async def test_every_end_is_a_span_with_its_times(open_session: Callable[..., Session], heard: Heard) -> None:
    environment_id = await live(open_session())
    ends = [event for event in heard.events if event.duration is not None]
    spans = heard.spans.get_finished_spans()
    assert len(spans) == len(ends)
    for event, span in zip(ends, spans, strict=True):
        assert event.name.rpartition(".")[0] == span.name or event.name == span.name == "service.ready"
        assert span.attributes is not None
        assert span.attributes["sandboxcore.environment_id"] == environment_id
        assert span.start_time is not None
        assert span.end_time is not None
        assert span.end_time - span.start_time == pytest.approx((event.duration or 0) * 1e9, abs=1e3)
        assert span.end_time == pytest.approx(event.time * 1e9, abs=1e3)
        assert span.status.is_ok is (not event.name.endswith(".failed"))
    assert heard.span("environment.provision").attributes["sandboxcore.services"] == ("default",)  # type: ignore[index]
    errors = {(span.attributes or {}).get("error.type") for span in spans}
    assert errors == {None, "SandboxFileNotFoundError", "ExecTimeoutError"}
    codes = [(span.attributes or {}).get("sandboxcore.exit_code") for span in spans if span.name == "exec"]
    assert codes == [3, None, 0]


async def test_spans_are_below_their_callers_span(
    open_session: Callable[..., Session], heard: Heard, tracing: TracerProvider
) -> None:
    tracer = tracing.get_tracer("program")
    async with open_session() as session, session.environment() as env:

        async def work(name: str) -> None:
            with tracer.start_as_current_span(name):
                await env.default.exec(["true"])

        await asyncio.gather(work("one"), work("two"))
    by_id = {span.context.span_id: span.name for span in heard.spans.get_finished_spans() if span.context}
    parents = sorted(
        by_id[span.parent.span_id] for span in heard.spans.get_finished_spans() if span.name == "exec" and span.parent
    )
    assert parents == ["one", "two"]


async def test_metrics_count_and_time_operations(open_session: Callable[..., Session], heard: Heard) -> None:
    async with open_session() as session:
        kept = await session.provision()
        async with session.environment() as env:
            await env.default.exec(["true"])
            await env.default.exec(["true"])
            await env.default.write_file("/tmp/f", b"12345")
            with pytest.raises(SandboxFileNotFoundError):
                await env.default.read_file("/nowhere")
        (now,) = heard.points("sandboxcore.environments")
        assert now.value == 1
        await kept.destroy()
    counts = {
        (point.attributes["operation"], point.attributes["outcome"]): point.count
        for point in heard.points("sandboxcore.operation.duration")
    }
    assert counts == {
        ("environment.provision", "ok"): 2,
        ("service.ready", "ok"): 2,
        ("exec", "ok"): 2,
        ("file.write", "ok"): 1,
        ("file.read", "failed"): 1,
        ("environment.destroy", "ok"): 2,
    }
    (moved,) = heard.points("sandboxcore.file.bytes")
    assert (moved.value, dict(moved.attributes)) == (5, {"backend": "local", "direction": "write"})
    (now,) = heard.points("sandboxcore.environments")
    assert now.value == 0


async def test_an_observer_that_raises_reaches_nobody(
    open_session: Callable[..., Session], heard: Heard, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken:
        calls = 0

        @hookimpl
        def sandboxcore_event(self, event: Event) -> None:
            self.calls += 1
            raise RuntimeError("an observer's own trouble")

    broken = Broken()

    def bad_callback(event: Event) -> None:
        raise ValueError("a callback's own trouble")

    with caplog.at_level(logging.WARNING):
        await live(open_session(broken, on_event=bad_callback))
    assert [event.name for event in heard.by_plugin] == LIFE
    assert len(heard.spans.get_finished_spans()) == 9
    assert broken.calls == len(LIFE)
    told = [record for record in caplog.records if record.exc_info]
    assert len(told) == 2, "each is told once, not at every event"


def test_observing_without_opentelemetry_says_what_to_install() -> None:
    program = (
        "import sys; sys.modules['opentelemetry'] = None\n"
        "import sandboxcore.observe\n"
        "assert 'rich' not in sys.modules\n"
        "try: sandboxcore.observe.OpenTelemetryObserver()\n"
        "except sandboxcore.UsageError as error: print(error.hint)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "sandboxcore[otel]" in done.stdout


def test_nothing_is_loaded_without_being_asked_for() -> None:
    program = (
        "import sys, sandboxcore\n"
        "sandboxcore.PluginHost.load()\n"
        "assert not [name for name in sys.modules if name.startswith(('opentelemetry', 'rich', 'sandboxcore.observe'))]\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_the_observer_is_a_plugin_like_any_other() -> None:
    from sandboxcore.observe import OpenTelemetryObserver

    host = PluginHost.load(entry_points=False, extra=[OpenTelemetryObserver()])
    assert host.observed
    assert not host.problems
