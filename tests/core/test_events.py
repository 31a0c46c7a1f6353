"""Events: the life of environments and commands, for whoever listens, and never with a secret in it."""

from __future__ import annotations

import asyncio
import logging
import pickle
import traceback
from collections.abc import Callable
from typing import Any

import pytest

from sandboxcore import Event, ExecTimeoutError, PluginHost, Session, SpecError, hookimpl

SECRET = "hunter2-"


@pytest.fixture
def events() -> list[Event]:
    return []


def names(events: list[Event]) -> list[str]:
    return [event.name for event in events]


async def test_the_life_of_an_environment(make_session: Callable[..., Session], events: list[Event]) -> None:
    async with make_session(on_event=events.append) as session, session.environment({"services": {"a": {}}}) as env:
        await env.default.exec(["sh", "-c", "exit 3"])
        await env.default.write_file("x", b"123")
        await env.default.read_file("x")
        async with env.default.start(["cat"]) as process:
            await process.communicate()
    assert names(events) == [
        "environment.provision.start",
        "service.created",
        "environment.provision.end",
        "exec.start",
        "exec.end",
        "file.write.start",
        "file.write.end",
        "file.read.start",
        "file.read.end",
        "exec.start",
        "exec.end",
        "environment.destroy.start",
        "environment.destroy.end",
    ]
    assert {event.environment_id for event in events} == {env.id}
    assert {event.run_id for event in events} == {session.run_id}
    assert {event.backend for event in events} == {"directory"}
    by_name = {event.name: event for event in events}
    assert by_name["service.created"].service == "a"
    assert events[4].attributes == {"argv0": "sh", "exit_code": 3}
    assert by_name["file.read.end"].attributes == {"path": "x", "size_bytes": 3}
    assert all((event.duration is not None) is event.name.endswith(".end") for event in events)
    assert [event.time for event in events] == sorted(event.time for event in events)


async def test_failures_are_told_by_class_only(make_session: Callable[..., Session], events: list[Event], world: Any) -> None:
    async with make_session(on_event=events.append) as session:
        async with session.environment() as env:
            with pytest.raises(ExecTimeoutError):
                await env.default.exec(["sleep", "60"], timeout=0.05)
            with pytest.raises(FileNotFoundError):
                await env.default.read_file("nowhere")
            with pytest.raises(FileNotFoundError):
                await env.default.start(["true"], cwd="nowhere").__aenter__()
        world.stop_at, world.raises = "ready", ValueError(SECRET)
        with pytest.raises(Exception, match=SECRET):
            await session.provision()
    failed = {event.name: event.attributes["error"] for event in events if event.name.endswith(".failed")}
    assert failed == {
        "exec.failed": "FileNotFoundError",
        "file.read.failed": "SandboxFileNotFoundError",
        "environment.provision.failed": "ProvisionError",
    }
    assert SECRET not in repr(events)


async def test_an_observer_that_fails_is_logged_once_and_changes_nothing(
    make_session: Callable[..., Session], caplog: pytest.LogCaptureFixture
) -> None:
    def fails(event: Event) -> None:
        raise ValueError("boom")

    async with make_session(on_event=fails) as session, session.environment() as env:
        assert (await env.default.exec(["true"])).ok
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == [
        "on_event raised; further failures of it are not logged"
    ]


async def test_plugins_observe_too(plugin: Any, events: list[Event]) -> None:
    class Observer:
        @hookimpl
        def sandboxcore_event(self, event: Event) -> None:
            events.append(event)

    host = PluginHost.load(entry_points=False, disabled=(), extra=[plugin, Observer()])
    async with Session("directory", plugins=host) as session, session.environment():
        pass
    assert names(events)[0] == "environment.provision.start"
    assert names(events)[-1] == "environment.destroy.end"


async def test_without_listeners_no_event_is_built(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    def explode(*arguments: Any, **named: Any) -> None:
        raise AssertionError("an event was built")

    async with session.environment() as env:
        monkeypatch.setattr("sandboxcore._events.Event", explode)
        assert (await env.default.exec(["true"])).ok
        await env.default.write_file("x", b"")
        async with env.default.start(["true"]) as process:
            await process.wait()


async def test_secrets_show_in_no_event_error_log_or_repr(
    make_session: Callable[..., Session], events: list[Event], caplog: pytest.LogCaptureFixture
) -> None:
    """Environment values and standard input go in; nothing that could be printed may have them."""
    shown: list[str] = []
    with caplog.at_level(logging.DEBUG):
        async with make_session(on_event=events.append) as session:
            async with session.environment({"services": {"a": {"env": {"TOKEN": SECRET + "spec"}}}}) as env:
                sandbox = env.default
                arguments: dict[str, Any] = {"env": {"TOKEN": SECRET + "env"}, "stdin": SECRET + "stdin"}
                await sandbox.exec(["cat", "-"], **arguments)
                for bad in ({"timeout": 0.05}, {"cwd": "nowhere"}):
                    with pytest.raises(Exception) as caught:
                        await sandbox.exec(["sh", "-c", "sleep 60"], **arguments, **bad)
                    shown += traceback.format_exception(caught.value)
                    shown.append(repr(pickle.dumps(caught.value)))
                for wrong in ({"A": SECRET + "\0"}, {SECRET[:3] + "=": SECRET}):
                    with pytest.raises(ValueError) as refused:
                        await sandbox.exec(["true"], env=wrong)
                    shown.append(str(refused.value))
                async with sandbox.start(["cat"], **arguments) as process:
                    await process.communicate(SECRET + "more")
                shown += [repr(env), repr(sandbox), repr(process), repr(env.ref), repr(session)]
            for spec in ({"services": {"a": {"env": [SECRET]}}}, {"services": {"a": {"env": {"T": {"x": SECRET}}}}}):
                with pytest.raises(SpecError) as unread:
                    await session.provision(spec)
                shown += traceback.format_exception(unread.value)
    shown += [repr(events), caplog.text]
    # A traceback shows lines of this file, which have the word SECRET but not its value.
    assert not [text for text in shown if SECRET in text]


async def test_events_of_commands_at_once_are_paired(make_session: Callable[..., Session], events: list[Event]) -> None:
    async with make_session(on_event=events.append) as session, session.environment() as env:
        await asyncio.gather(*(env.default.exec(["sh", "-c", f"exit {number}"]) for number in range(5)))
    ends = [event.attributes["exit_code"] for event in events if event.name == "exec.end"]
    assert sorted(ends) == list(range(5))
