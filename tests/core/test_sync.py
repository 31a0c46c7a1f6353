"""The blocking session: the same names, in scripts, in notebooks, and under Ctrl-C."""

from __future__ import annotations

import asyncio
import inspect
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import sandboxcore
from sandboxcore import EnvironmentNotFoundError, PluginHost, ServiceFailedError, UsageError, environment, process, session, sync

PAIRS = [
    (sync.Session, session.Session),
    (sync.Environment, environment.Environment),
    (sync.Sandbox, environment.Sandbox),
    (sync.Process, process.Process),
    (sync.ProcessInput, process.ProcessInput),
]


@pytest.fixture
def make_sync(host: PluginHost) -> Callable[..., sync.Session]:
    return lambda **arguments: sync.Session("directory", plugins=host, **arguments)


@pytest.fixture
def opened(make_sync: Callable[..., sync.Session]) -> Iterator[sync.Session]:
    with make_sync() as opened:
        yield opened


@pytest.mark.parametrize(("blocking", "asynchronous"), PAIRS, ids=lambda cls: cls.__name__)
def test_names_and_arguments_are_the_same(blocking: type[Any], asynchronous: type[Any]) -> None:
    for name, function in vars(asynchronous).items():
        if name.startswith("_") or not callable(function):
            continue
        expected = inspect.signature(function).parameters
        assert inspect.signature(getattr(blocking, name)).parameters == expected, name
    properties = {name for name, value in vars(asynchronous).items() if isinstance(value, property)}
    assert properties <= set(dir(blocking))


def test_the_main_job(opened: sync.Session, world: Any) -> None:
    with opened.environment({"services": {"db": {}, "default": {}}}, labels={"a": "1"}) as env:
        assert env.names == ("default", "db")
        assert [sandbox.name for sandbox in env] == ["default", "db"]
        assert (len(env), "db" in env, env.default.name, env["db"].name) == (2, True, "default", "db")
        sandbox = env["default"]
        assert sandbox.environment_id == env.id == env.ref.environment_id == sandbox.ref.environment_id
        assert sandbox.exec(["cat"], stdin=b"hi").stdout == b"hi"
        sandbox.write_file("a/b", "text")
        assert sandbox.read_file("a/b") == b"text"
        sandbox.make_dir("d")
        assert [info.name for info in sandbox.list_dir()] == ["a", "d"]
        assert sandbox.stat("d").type == "directory"
        assert sandbox.exists("d")
        sandbox.remove("d")
        assert not sandbox.exists("d")
        with sandbox.open_write("big") as writer:
            writer.write(b"x" * 10)
        with sandbox.open_read("big") as reader:
            assert b"".join(reader) == b"x" * 10
        with pytest.raises(FileNotFoundError):
            sandbox.read_file("nowhere")
        assert list(env.logs(tail=1)) == [b"default 4\n"]
        assert [found.id for found in opened.find(labels={"a": "1"})] == [env.id]
        assert opened.attach(env.id).names == env.names
        with pytest.raises(EnvironmentNotFoundError):
            opened.attach("0")
        env.renew(500)
        assert env.ref.expires_at > time.time() + 490
        assert env.report.entries == ()
    assert world.environments == {}
    assert opened.doctor() == []
    assert opened.backend == opened.info.name == "directory"
    assert opened.translate(None).spec.default_service == "default"


def test_a_writer_whose_block_fails_leaves_nothing(opened: sync.Session) -> None:
    def breaks(sandbox: sync.Sandbox) -> None:
        with sandbox.open_write("half") as writer:
            writer.write(b"x")
            raise ZeroDivisionError

    with opened.environment() as env:
        with pytest.raises(ZeroDivisionError):
            breaks(env.default)
        assert env.default.list_dir() == []


def test_processes(opened: sync.Session) -> None:
    with opened.environment() as env:
        with env.default.start(["cat"], stdin="a") as running:
            running.stdin.write("b")
            running.stdin.close()
            assert b"".join(chunk.data for chunk in running.output()) == b"ab"
            assert running.wait().ok
        with env.default.start(["sleep", "60"]) as running:
            assert running.pid
            running.resize(1, 1)
            running.signal(signal.SIGTERM)
            assert running.wait().exit_code == 143
        with env.default.start(["cat"]) as running:
            assert running.communicate("x").stdout == b"x"
        with env.default.start(["sleep", "60"]) as running:
            running.kill()


def test_what_is_left_open_goes_with_the_session(make_sync: Callable[..., sync.Session], world: Any) -> None:
    with make_sync() as opened:
        opened.provision()
        kept = opened.provision(keep=True)
    assert list(world.environments) == [kept.id]
    with make_sync() as opened:
        assert [ref.environment_id for ref in opened.cleanup(everything=True)] == [kept.id]
    assert not [thread for thread in threading.enumerate() if thread.name == "sandboxcore loop"]


def test_many(opened: sync.Session, world: Any) -> None:
    outcomes = list(opened.provision_many([None, {"services": {}}, None]))
    assert sorted((outcome.index, outcome.error is None) for outcome in outcomes) == [(0, True), (1, False), (2, True)]
    assert all(outcome.environment.default.exec(["true"]).ok for outcome in outcomes if outcome.environment)
    before = set(world.environments)
    for outcome in opened.provision_many([None] * 6):  # noqa: B007
        break
    assert outcome.environment is not None
    assert set(world.environments) - before == {outcome.environment.id}


def test_errors_come_out_as_they_are(opened: sync.Session, world: Any) -> None:
    world.stop_at, world.raises = "ready", ServiceFailedError("crashed")
    with pytest.raises(ServiceFailedError, match="crashed"):
        opened.provision()


def test_a_session_that_is_not_open(make_sync: Callable[..., sync.Session]) -> None:
    unopened = make_sync()
    with pytest.raises(UsageError, match="not open"):
        unopened.provision()
    with unopened:
        env = unopened.provision()
    with pytest.raises(UsageError, match="closed"):
        env.default.exec(["true"])
    with pytest.raises(UsageError, match="opened once"):
        unopened.__enter__()
    assert not [thread for thread in threading.enumerate() if thread.name == "sandboxcore loop"]


async def test_it_works_where_a_loop_runs_already(make_sync: Callable[..., sync.Session]) -> None:
    """As in a notebook's cell."""
    assert asyncio.get_running_loop()
    with make_sync() as opened, opened.environment() as env:
        assert env.default.exec(["echo", "hi"]).text() == "hi\n"


def test_threads_may_share_a_session(opened: sync.Session) -> None:
    with opened.environment() as env:
        codes: list[int] = []
        # Each waits for all the others, so none would end if one held up another.
        wait = "touch {0}; while [ $(ls | wc -l) -lt 5 ]; do sleep 0.02; done; exit {0}"

        def one(number: int) -> None:
            codes.append(env.default.exec(["sh", "-c", wait.format(number)], timeout=30).exit_code)

        threads = [threading.Thread(target=one, args=(number,)) for number in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(codes) == [0, 1, 2, 3, 4]


def test_an_observer_that_calls_back_is_told(make_sync: Callable[..., sync.Session], caplog: pytest.LogCaptureFixture) -> None:
    sessions: list[sync.Session] = []

    def observer(event: Any) -> None:
        sessions[0].find()

    with make_sync(on_event=observer) as opened:
        sessions.append(opened)
        opened.provision().destroy()
    assert "can't be used by its own event observers" in caplog.text


def test_an_interrupt_cancels_what_is_awaited(opened: sync.Session, tmp_path: Path) -> None:
    with opened.environment() as env:
        pid_file = tmp_path / "pid"
        pid_file.touch()

        def interrupt_when_it_runs() -> None:
            deadline = time.monotonic() + 30
            while not pid_file.read_text().endswith("\n") and time.monotonic() < deadline:
                time.sleep(0.02)
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

        threading.Thread(target=interrupt_when_it_runs).start()
        with pytest.raises(KeyboardInterrupt):
            env.default.exec(["sh", "-c", f"echo $$ >{pid_file}; exec sleep 60"])
        with pytest.raises(ProcessLookupError):
            os.kill(int(pid_file.read_text()), 0)
        # The session goes on working.
        assert env.default.exec(["true"]).ok


def test_an_interrupt_while_provisioning_leaves_nothing(opened: sync.Session, world: Any) -> None:
    world.stop_at, world.destroy_delay = "ready", 0.1
    threading.Timer(0.3, lambda: signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        opened.provision()
    assert world.environments == {}
    assert world.folders == []


def test_a_script_that_forgets_to_close_still_ends() -> None:
    script = """
    import sandboxcore
    session = sandboxcore.sync.Session(plugins=sandboxcore.PluginHost.load(entry_points=False))
    thread = sandboxcore.sync.LoopThread()
    async def hello():
        return "hello"
    print(thread.run(hello()))
    """
    root = Path(sandboxcore.__file__).parent.parent
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], cwd=root, capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout == "hello\n"
