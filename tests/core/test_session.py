"""A session's life: sources, ownership, closing in order, cancellation, finding, cleaning up."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from sandboxcore import (
    BackendNotFoundError,
    CapabilityError,
    EnvironmentNotFoundError,
    EnvironmentSpec,
    Loss,
    PluginError,
    PluginHost,
    Provisioner,
    ProvisionError,
    ReportEntry,
    SandboxError,
    SandboxUnavailableError,
    ServiceNotFoundError,
    ServiceSpec,
    Session,
    SpecError,
    Translation,
    TranslationReport,
    Translator,
    UsageError,
    hookimpl,
)

TWO = EnvironmentSpec(services={"db": ServiceSpec(), "default": ServiceSpec()}, labels={"from": "spec"}, name="two")


async def test_the_main_job(session: Session, world: Any) -> None:
    async with session.environment(TWO) as env:
        assert env.names == ("default", "db")
        assert [sandbox.name for sandbox in env] == ["default", "db"]
        assert env.default is env["default"]
        assert len(env) == 2
        assert "db" in env
        assert "web" not in env
        result = await env["db"].exec(["sh", "-c", "cat; echo $A; exit 3"], stdin="in\n", env={"A": "1"})
        assert (result.exit_code, result.stdout) == (3, b"in\n1\n")
        await env.default.write_file("a/b.bin", b"\x00\xff")
        assert await env.default.read_file("a/b.bin") == b"\x00\xff"
        assert world.folders == [env.id]
    assert world.folders == []
    assert world.environments == {}


async def test_no_source_is_one_empty_service(session: Session) -> None:
    async with session.environment() as env:
        assert env.names == ("default",)


async def test_an_unknown_service_is_named_with_those_there_are(session: Session) -> None:
    async with session.environment({"services": {"web": {}, "db": {}}}) as env:
        with pytest.raises(ServiceNotFoundError, match=r"no service 'wbe' \(did you mean 'web'\?\); it has web, db"):
            env["wbe"]
        with pytest.raises(KeyError):
            env[0]  # type: ignore[index]


async def test_the_claim_says_whose_it_is(make_session: Callable[..., Session], world: Any) -> None:
    async with make_session(run_id="run-1", owner="me", labels={"from": "session", "a": "1"}, lease=77.0) as session:
        env = await session.provision(TWO, labels={"b": "2"}, name="other")
        ref = world.environments[env.id]
        assert re.fullmatch(r"[a-z][a-z2-7]{9}", env.id)
        assert (ref.run_id, ref.owner) == ("run-1", "me")
        assert ref.labels == {"from": "session", "a": "1", "b": "2"}
        assert 75 < ref.expires_at - time.time() <= 77


def test_ids_are_unique_and_sort_by_time(make_session: Callable[..., Session]) -> None:
    first = make_session()
    assert re.fullmatch(r"r\d{12}-[a-z2-7]{5}", first.run_id)
    assert make_session().run_id != first.run_id
    assert re.fullmatch(r".+@.+:\d+", first.owner)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"run_id": "a b"}, UsageError, "run id 'a b'"),
        ({"run_id": ""}, UsageError, "run id ''"),
        ({"run_id": "x" * 64}, UsageError, "run id"),
        ({"lease": 0}, UsageError, "lease is a number of seconds above 0"),
        ({"lease": float("inf")}, UsageError, "lease"),
        ({"timeout": "5"}, UsageError, "timeout is a number"),
        ({"timeout": True}, UsageError, "timeout is a number"),
        ({"labels": {"a": 1}}, UsageError, "label 'a'"),
        ({"labels": {"a": "x\ny"}}, UsageError, "label 'a'"),
        (
            {"config": {"rootf": "/"}},
            SpecError,
            r"config: unknown key 'rootf' for backend 'directory' \(did you mean 'rootfs'\?\)",
        ),
        ({"config": [1]}, UsageError, "config: must be a mapping"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_happens(
    make_session: Callable[..., Session], arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        make_session(**arguments)


def test_the_backend_comes_from_the_environment(host: PluginHost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SANDBOXCORE_BACKEND", "directory")
    assert Session(plugins=host).backend == "directory"
    monkeypatch.setenv("SANDBOXCORE_BACKEND", "nothing")
    with pytest.raises(BackendNotFoundError, match="'nothing'"):
        Session(plugins=host)
    monkeypatch.setenv("SANDBOXCORE_BACKEND", "")
    assert Session(plugins=host).backend == "local"


async def test_a_session_that_is_not_open(make_session: Callable[..., Session]) -> None:
    session = make_session()
    with pytest.raises(UsageError, match="not open"):
        await session.provision()
    async with session:
        env = await session.provision()
    with pytest.raises(UsageError, match="is closed"):
        await session.provision()
    with pytest.raises(UsageError, match="opened once"):
        await session.__aenter__()
    with pytest.raises(UsageError, match="session is closed"):
        await env.default.exec(["true"])


async def test_leaving_closes_in_order(make_session: Callable[..., Session], world: Any) -> None:
    async with make_session() as session:
        first, second = await session.provision(), await session.provision()
        await first.default.exec(["true"])
        await first.destroy()
        await first.destroy()
        await second.default.read_file("/dev/null")
        world.calls.clear()
    assert sorted(world.calls[:2]) == ["close:executor", "close:files"]
    assert world.calls[2:] == [f"destroy:{second.id}", "close:discoverer", "close:provisioner"]


async def test_an_environment_that_was_destroyed_can_not_be_used(session: Session) -> None:
    env = await session.provision()
    sandbox = env.default
    await sandbox.exec(["true"])
    await env.destroy()
    with pytest.raises(SandboxUnavailableError, match="was destroyed") as caught:
        await sandbox.exec(["true"])
    assert caught.value.started == "no"
    with pytest.raises(SandboxUnavailableError):
        await sandbox.read_file("x")
    with pytest.raises(SandboxUnavailableError):
        async with sandbox.start(["true"]):
            pass


async def test_what_is_kept_outlives_the_session(make_session: Callable[..., Session], world: Any) -> None:
    async with make_session() as session:
        env = await session.provision(keep=True, lease=50)
    assert list(world.environments) == [env.id]
    async with make_session() as other:
        found = await other.attach(env.id[:4])
        assert (await found.default.exec(["pwd"])).stdout.decode().strip().endswith(f"{env.id}/default")
        await found.destroy()
    assert world.environments == {}


async def test_an_error_in_the_block_comes_out_and_all_is_gone(make_session: Callable[..., Session], world: Any) -> None:
    async def program() -> None:
        async with make_session() as session, session.environment():
            await session.provision()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await program()
    assert world.environments == {}


async def test_an_error_of_destroying_does_not_hide_the_first(make_session: Callable[..., Session], world: Any) -> None:
    world.destroy_raises = [OSError("boom")]
    with pytest.raises(ZeroDivisionError) as caught:
        async with make_session() as session, session.environment() as env:
            raise ZeroDivisionError
    assert caught.value.__notes__ == [f"environment {env.id} could not be destroyed: OSError: boom"]
    # Closing the session tried again.
    assert world.environments == {}


async def test_an_environment_that_can_not_be_destroyed_is_named(make_session: Callable[..., Session], world: Any) -> None:
    world.destroy_raises = [OSError("boom")]
    with pytest.raises(SandboxError, match=r"environment \w+ could not be destroyed: OSError: boom") as caught:
        async with make_session() as session:
            stays, goes = await session.provision(), await session.provision()
    assert list(world.environments) in ([stays.id], [goes.id])
    assert caught.value.hint == f"sandboxcore down {next(iter(world.environments))}"


async def test_closing_goes_on_when_cancelled(make_session: Callable[..., Session], world: Any) -> None:
    async def program() -> None:
        async with make_session() as session:
            await session.provision()
            entered.set()
            await asyncio.Event().wait()

    entered = asyncio.Event()
    world.destroy_delay = 0.2
    task = asyncio.create_task(program())
    await entered.wait()
    for _ in range(3):
        task.cancel()
        await asyncio.sleep(0.05)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert world.environments == {}
    assert world.calls[-1] == "close:provisioner"


async def test_what_other_tasks_still_make_is_undone(make_session: Callable[..., Session], world: Any) -> None:
    world.stop_at = "ready"
    async with make_session() as session:
        making = asyncio.create_task(session.provision())
        await world.stopped.wait()
    with pytest.raises(ProvisionError, match="session was closed before the environment was ready"):
        await making
    assert world.environments == {}


async def test_what_becomes_ready_while_the_session_closes_is_undone(make_session: Callable[..., Session], world: Any) -> None:
    """Whatever the moment: closing and being ready race here."""
    for turns in range(40):
        async with make_session() as session:
            making = asyncio.create_task(session.provision())
            for _ in range(turns):
                await asyncio.sleep(0)
        await asyncio.gather(making, return_exceptions=True)
        assert world.environments == {}
        assert world.folders == []
        assert world.open_strategies == 0


async def test_cancelling_a_program_at_every_turn_of_the_loop_leaves_nothing(
    make_session: Callable[..., Session], world: Any
) -> None:
    async def program() -> None:
        async with make_session() as session, session.environment(TWO) as env:
            await session.provision()
            await env.default.write_file("x", b"1")
            await env.destroy()

    finished = 0
    for turns in range(300):
        task = asyncio.create_task(program())
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        finished += (await asyncio.gather(task, return_exceptions=True)) == [None]
        assert world.environments == {}
        assert world.folders == []
        assert world.open_strategies == 0
        if finished > 2:
            break
    assert finished > 2


async def test_nothing_is_bound_to_what_is_being_destroyed(session: Session, world: Any) -> None:
    env = await session.provision()
    await env.default.exec(["true"])
    world.destroy_delay, world.destroy_raises = 0.1, [OSError("boom")]
    destroying = asyncio.create_task(env.destroy())
    await asyncio.sleep(0.02)
    with pytest.raises(SandboxUnavailableError, match="was destroyed"):
        await env.default.exec(["true"])
    with pytest.raises(SandboxError, match="boom"):
        await destroying
    # It is still there, and so can be used, and destroyed again.
    assert (await env.default.exec(["true"])).ok
    await env.destroy()


async def test_a_session_that_can_not_be_opened_closes_what_it_opened(plugin: Any, world: Any) -> None:
    class Explodes:
        @hookimpl(tryfirst=True)
        def sandboxcore_discoverer(self) -> None:
            raise OSError("boom")

    host = PluginHost.load(entry_points=False, disabled=(), extra=[plugin, Explodes()])
    with pytest.raises(PluginError, match="sandboxcore_discoverer raised OSError: boom"):
        await Session("directory", plugins=host).__aenter__()
    assert world.calls == ["close:provisioner"]


async def test_closing_has_a_limit(make_session: Callable[..., Session], world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sandboxcore._runtime.DESTROY_SECONDS", 0.1)
    world.destroy_delay = 3600
    began = time.monotonic()
    with pytest.raises(SandboxError, match=r"destroying environment \w+ did not end within 0.1 s"):
        async with make_session() as session:
            await session.provision()
    assert time.monotonic() - began < 30


async def test_a_time_limit_around_the_session_works(make_session: Callable[..., Session], world: Any) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1), make_session() as session, session.environment():
            await asyncio.sleep(3600)
    assert world.environments == {}


async def test_a_strategy_that_fails_to_close_is_logged(
    make_session: Callable[..., Session], world: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with make_session() as session:
        env = await session.provision()
        binding = session._open().bind(env.default.ref)

        async def explode() -> None:
            world.open_strategies -= 1
            raise OSError("boom")

        monkeypatch.setattr(binding.executor, "aclose", explode)
        with caplog.at_level(logging.WARNING):
            await env.destroy()
    assert "closing DirectoryExecutor failed: OSError: boom" in caplog.text
    assert world.environments == {}


# Sources


class Lines(Translator):
    """Reads one service a line."""

    name = "lines"

    def claims(self, path: Path) -> bool:
        return path.suffix == ".lines"

    def translate(self, paths: Any, *, variables: Any = None, backend: Any = None, options: Any = None) -> Translation:
        text = paths[0].read_text().strip()
        if text == "explode":
            raise RuntimeError("boom")
        if text == "wrong":
            return "x"  # type: ignore[return-value]
        spec = EnvironmentSpec(services={name.format(**(variables or {})): ServiceSpec() for name in text.split()})
        entry = ReportEntry(loss=Loss.NOOP, key="x", reason=f"on {backend.name} with {options}")
        return Translation(spec=spec, report=TranslationReport(entries=(entry,)))


class Lingual:
    @hookimpl
    def sandboxcore_translators(self) -> list[Translator]:
        return [Lines()]


@pytest.fixture
def lingual(plugin: Any) -> PluginHost:
    return PluginHost.load(entry_points=False, disabled=(), extra=[plugin, Lingual()])


async def test_a_document_is_translated_and_reported(
    make_session: Callable[..., Session], lingual: PluginHost, tmp_path: Path
) -> None:
    path = tmp_path / "a.lines"
    path.write_text("{first} db")
    async with make_session(plugins=lingual) as session:
        for source in (path, str(path), [path, path]):
            async with session.environment(source, variables={"first": "web"}) as env:
                assert env.names == ("web", "db")
                assert [entry.reason for entry in env.report.entries] == ["on directory with None"]
        found = session.translate(path, variables={"first": "x"}, translator="lines", options={"strict": True})
        assert found.report.entries[0].reason == "on directory with {'strict': True}"


@pytest.mark.parametrize(
    ("name", "text", "error", "message"),
    [
        ("a.lines", "explode", PluginError, "translator 'lines' raised RuntimeError: boom"),
        ("a.lines", "wrong", PluginError, "translator 'lines' returned str"),
        ("a.txt", "", SpecError, r"a\.txt: no translator knows files of that name; installed: lines"),
    ],
)
def test_a_document_that_can_not_be_read(
    make_session: Callable[..., Session],
    lingual: PluginHost,
    tmp_path: Path,
    name: str,
    text: str,
    error: type[Exception],
    message: str,
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(error, match=message):
        make_session(plugins=lingual).translate(tmp_path / name)


@pytest.fixture
def in_a_folder_with_a_document(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("compose.yaml").write_text("services: {}")


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        ("copmose.yaml", SpecError, r"copmose.yaml: no such file \(did you mean 'compose.yaml'\?\)"),
        ("nowhere/compose.yaml", SpecError, "no such file$"),
        (".", SpecError, "is a directory"),
        ("a\nb\x1b[31m.yaml", SpecError, r"^a\\nb\\x1b\[31m.yaml: no such file$"),
        ("x" * 5000, SpecError, "can't be read: File name too long"),
        ("a\0b", SpecError, "can't be read: not a path|no such file"),
        ("compose.yaml", SpecError, "no translator is installed"),
        ([], UsageError, "no document was given"),
        (3, UsageError, "not int"),
        ([3], UsageError, "not int"),
        (b"x", UsageError, "not bytes"),
        ({"services": {"web": {"imgae": "x"}}}, SpecError, r"services.web: unknown key 'imgae' \(did you mean 'image'\?\)"),
        ({1: 2}, SpecError, "services: is required"),
    ],
)
@pytest.mark.usefixtures("in_a_folder_with_a_document")
async def test_a_wrong_source_creates_nothing(
    session: Session, world: Any, source: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        await session.provision(source)
    assert world.calls == []


def test_how_to_get_a_translator(make_session: Callable[..., Session], tmp_path: Path) -> None:
    path = tmp_path / "compose.yaml"
    path.write_text("services: {}")
    with pytest.raises(SpecError) as caught:
        make_session().translate(path)
    assert caught.value.hint == "pip install 'sandboxcore[compose]'"
    with pytest.raises(UsageError, match="no translator is called 'compose'; installed: none"):
        make_session().translate(path, translator="compose")


async def test_what_the_backend_says_of_a_spec(session: Session, world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[Any] = [ReportEntry(loss=Loss.APPROX, key="services.default.gpus", reason="no GPU")]
    provisioner = session._open().provisioner
    monkeypatch.setattr(provisioner, "check", lambda spec: said)
    async with session.environment() as env:
        assert env.report.entries == tuple(said)
    world.calls.clear()
    said.append(ReportEntry(loss=Loss.REJECT, key="services.default.image", reason="no images"))
    with pytest.raises(CapabilityError, match=r"services\.default\.image: REJECT: no images"):
        await session.provision()

    def explode(spec: EnvironmentSpec) -> None:
        raise RuntimeError("boom")

    monkeypatch.setattr(provisioner, "check", explode)
    with pytest.raises(PluginError, match="backend 'directory': check raised RuntimeError: boom"):
        await session.provision()
    assert world.calls == []


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (CapabilityError("services.a.b.user: no", hint="be root"), [("services.a.b.user", "no; be root", "a.b")]),
        (SpecError(problems=["services.a.user: x: y", "options: z"]), [("services.a.user", "x: y", "a"), ("options", "z", "")]),
        (CapabilityError("this machine: can't"), [("backend directory", "this machine: can't", "")]),
        (CapabilityError("can't"), [("backend directory", "can't", "")]),
    ],
)
async def test_a_check_tells_what_would_be_refused(
    make_session: Callable[..., Session], world: Any, monkeypatch: pytest.MonkeyPatch, error: Exception, told: list[Any]
) -> None:
    monkeypatch.setattr(Provisioner, "check", Mock(side_effect=error))
    session = make_session()
    known = ReportEntry(loss=Loss.NOOP, key="x", reason="y")
    translation = session.translate({"services": {"a": {}, "a.b": {}}})
    checked = await session.check(replace(translation, report=translation.report.extended([known])))
    assert checked.spec == translation.spec
    assert checked.report.entries[0] == known
    assert [(one.key, one.reason, one.service) for one in checked.report.of(Loss.REJECT)] == told
    assert world.open_strategies == 0
    monkeypatch.setattr(Provisioner, "check", Mock(side_effect=KeyError("x")))
    with pytest.raises(PluginError, match="check raised KeyError"):
        await session.check(translation)


# Finding and cleaning up


async def test_others_find_it_by_run_id_or_label(make_session: Callable[..., Session]) -> None:
    async with make_session(run_id="one") as one, make_session(run_id="two") as two:
        first = await one.provision(labels={"a": "1"})
        second = await two.provision({"services": {"x": {}, "y": {}}, "default": "y"}, labels={"a": "1", "b": "2"})
        async with make_session() as other:

            async def ids(**selection: Any) -> set[str]:
                return {env.id for env in await other.find(**selection)}

            assert await ids() == {first.id, second.id}
            assert await ids(run_id="one") == {first.id}
            assert await ids(environment_id=second.id) == {second.id}
            assert await ids(labels={"a": "1"}) == {first.id, second.id}
            assert await ids(labels={"a": "1"}, run_id="two") == {second.id}
            assert await ids(labels={"c": ""}) == set()
            (found,) = await other.find(run_id="two")
            assert found.names == ("y", "x")
            assert (await found["x"].exec(["echo", "hi"])).text() == "hi\n"
            again = await other.attach(second.id)
            assert again["x"]._bind() is found["x"]._bind()
        # Leaving took nothing of the others'.
        assert (await first.default.exec(["true"])).ok


async def test_an_owner_finds_its_own_objects(session: Session) -> None:
    env = await session.provision()
    assert await session.attach(env.id) is env
    assert (await session.find())[0] is env


async def test_attach_to_what_is_not_there(session: Session, world: Any) -> None:
    with pytest.raises(EnvironmentNotFoundError, match="no environment 'abc'; there are none"):
        await session.attach("abc")
    env = await session.provision()
    wrong = env.id[:-2] + env.id[-1] + env.id[-2]
    if wrong != env.id:
        with pytest.raises(
            EnvironmentNotFoundError, match=rf"no environment '{wrong}' \(did you mean '{env.id}'\?\); there are {env.id}"
        ):
            await session.attach(wrong)
    with pytest.raises(UsageError, match="empty"):
        await session.attach("")
    world.environments[env.id] = replace(world.environments[env.id], name="release-1")
    assert await session.attach("release-1") is env
    with pytest.raises(EnvironmentNotFoundError, match="no environment 'release'"):
        await session.attach("release")
    for _ in range(60):
        await session.provision()
    letters = [name[0] for name in world.environments]
    common = max(letters, key=letters.count)
    with pytest.raises(EnvironmentNotFoundError, match=rf"\d+ environments begin with '{common}' or are called so: "):
        await session.attach(common)
    # Who is called as another one begins may be either.
    other = next(name for name in world.environments if name != env.id)
    world.environments[env.id] = replace(world.environments[env.id], name=other[:8])
    with pytest.raises(EnvironmentNotFoundError, match=r"2 environments"):
        await session.attach(other[:8])


async def test_cleanup_takes_what_it_is_told_and_no_more(make_session: Callable[..., Session], world: Any) -> None:
    async with make_session(run_id="one") as one, make_session(run_id="two") as two, make_session() as other:
        live = await one.provision()
        kept = await one.provision(keep=True, lease=0.01)
        of_two = await two.provision()
        await asyncio.sleep(0.02)
        assert [ref.environment_id for ref in await other.cleanup(expired=True, dry_run=True)] == [kept.id]
        assert kept.id in world.environments
        assert [ref.environment_id for ref in await other.cleanup(expired=True)] == [kept.id]
        assert set(world.environments) == {live.id, of_two.id}
        assert await other.cleanup(expired=True, run_id="two") == []
        assert [ref.environment_id for ref in await other.cleanup(run_id="two")] == [of_two.id]
        assert await other.cleanup(environment_id="nothing") == []
        assert [ref.environment_id for ref in await other.cleanup(everything=True)] == [live.id]
        assert world.environments == {}
        with pytest.raises(UsageError, match="nothing says what"):
            await other.cleanup()
        with pytest.raises(UsageError, match="nothing says what"):
            await other.cleanup(run_id="")


async def test_cleanup_looks_again_before_it_takes_what_was_renewed(make_session: Callable[..., Session], world: Any) -> None:
    async with make_session() as one, make_session() as other:
        env = await one.provision(keep=True, lease=0.01)
        await asyncio.sleep(0.02)
        find = other._open().discoverer.find
        calls = 0

        async def renewed_meanwhile(selector: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == 2:
                await env.renew(60)
            return await find(selector)

        other._open().discoverer.find = renewed_meanwhile  # type: ignore[method-assign]
        assert await other.cleanup(expired=True) == []
        assert list(world.environments) == [env.id]
        await env.destroy()


async def test_cleanup_goes_on_past_one_that_fails(make_session: Callable[..., Session], world: Any) -> None:
    async with make_session() as one, make_session() as other:
        for _ in range(3):
            await one.provision()
        world.destroy_raises = [OSError("boom")]
        with pytest.raises(SandboxError, match="could not be destroyed: OSError: boom"):
            await other.cleanup(everything=True)
        assert len(world.environments) == 1


async def test_logs_and_doctor(session: Session) -> None:
    async with session.environment(TWO) as env:
        assert [line async for line in env.logs(tail=2)] == [b"default 3\n", b"default 4\n"]
        assert [line async for line in env.logs("db", tail=1)] == [b"db 4\n"]
        with pytest.raises(ServiceNotFoundError):
            [line async for line in env.logs("web")]
    assert await session.doctor() == []


async def test_closing_takes_no_longer_for_many_that_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    from sandboxcore import _closing
    from sandboxcore.abc import Strategy

    class Hangs(Strategy):
        async def aclose(self) -> None:
            await asyncio.Event().wait()

    monkeypatch.setattr(_closing, "CLOSE_SECONDS", 0.5)
    async with asyncio.timeout(10):
        await _closing.close_all([Hangs() for _ in range(2000)])
