"""What only some backends can: batches, ports and pauses; and the commands that plugins bring."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

import click
import pytest

from sandboxcore import (
    BackendInfo,
    CapabilityError,
    Claim,
    Discoverer,
    EnvironmentRef,
    EnvironmentSpec,
    PluginHost,
    Provisioner,
    ServiceFailedError,
    ServiceSpec,
    Session,
    UsageError,
    hookimpl,
    sync,
)


def spec(name: str = "") -> EnvironmentSpec:
    return EnvironmentSpec(services={"a": ServiceSpec()}, name=name)


class Able:
    """The directory backend with more capabilities, over the one of conftest."""

    def __init__(self, plugin: Any) -> None:
        self.plugin = plugin
        self.batches: list[tuple[str, int]] = []
        self.most: int | None = None

    @hookimpl
    def sandboxcore_backend_info(self) -> BackendInfo:
        info: BackendInfo = self.plugin.sandboxcore_backend_info()
        return dataclasses.replace(info, name="able", capabilities=frozenset({"batch", "ports", "pause"}))

    @hookimpl
    def sandboxcore_provisioner(self, backend: str, config: Any) -> Provisioner | None:
        if backend != "able":
            return None
        made = self.plugin.sandboxcore_provisioner("directory", config)
        made.max_in_flight = self.most
        made.provision_batch = self._batch_of(made)
        made.pause, made.resume = self._pause, self._resume
        return made

    @hookimpl
    def sandboxcore_discoverer(self, backend: str) -> Discoverer | None:
        if backend != "able":
            return None
        found = self.plugin.sandboxcore_discoverer("directory")
        found.open_port = self._open_port
        return found

    def _batch_of(self, provisioner: Any) -> Callable[..., Any]:
        async def provision_batch(spec: EnvironmentSpec, claims: Sequence[Claim], emit: Any) -> list[EnvironmentRef]:
            self.batches.append((spec.name, len(claims)))
            made = [await provisioner.provision(spec, claim, emit) for claim in claims]
            if spec.name == "fails":
                raise ServiceFailedError("shard 1: exited with 3")
            return made

        return provision_batch

    async def _open_port(self, sandbox: Any, port: int, protocol: asyncio.BaseProtocol) -> asyncio.Transport:
        return (await asyncio.get_running_loop().create_connection(lambda: protocol, "127.0.0.1", port))[0]

    async def _pause(self, environment: EnvironmentRef) -> None:
        self.plugin.world.calls.append(f"pause:{environment.environment_id}")

    async def _resume(self, environment: EnvironmentRef) -> EnvironmentRef:
        moved = [dataclasses.replace(sandbox, data={**sandbox.data, "moved": True}) for sandbox in environment.sandboxes]
        return dataclasses.replace(environment, sandboxes=tuple(moved))


@pytest.fixture
def able(plugin: Any) -> Able:
    return Able(plugin)


@pytest.fixture
async def session(able: Able, plugin: Any) -> AsyncIterator[Session]:
    host = PluginHost.load(entry_points=False, disabled=(), extra=[plugin, able])
    async with Session("able", plugins=host) as session:
        yield session


async def test_equal_specs_are_made_together(session: Session, able: Able) -> None:
    sources: list[Any] = [spec("x"), spec("y"), spec("x"), {"services": {}}, spec("x"), {"services": {"a": {}}, "name": "y"}]
    outcomes = {outcome.index: outcome async for outcome in session.provision_many(sources)}
    assert sorted(able.batches) == [("x", 3), ("y", 2)]
    assert {index for index, outcome in outcomes.items() if outcome.environment} == {0, 1, 2, 4, 5}
    assert type(outcomes[3].error).__name__ == "SpecError"
    environments = [outcome.environment for outcome in outcomes.values() if outcome.environment]
    assert len({environment.id for environment in environments}) == 5
    assert all([(await environment.default.exec(["true"])).ok for environment in environments])


async def test_a_limit_splits_a_batch(session: Session, able: Able) -> None:
    outcomes = [outcome async for outcome in session.provision_many([spec("x")] * 5, max_in_flight=2)]
    assert [size for _, size in able.batches] == [2, 2, 1]
    assert sorted(outcome.index for outcome in outcomes) == [0, 1, 2, 3, 4]


async def test_a_batch_that_fails_leaves_nothing_and_harms_no_other(session: Session, able: Able, world: Any) -> None:
    sources = [spec("fails"), spec("fine"), spec("fails"), spec("fine")]
    outcomes = {outcome.index: outcome async for outcome in session.provision_many(sources)}
    assert {index for index, outcome in outcomes.items() if outcome.environment} == {1, 3}
    assert [str(outcomes[index].error) for index in (0, 2)] == ["shard 1: exited with 3"] * 2
    assert len(world.environments) == 2


async def test_cancelling_a_batch_that_is_made_leaves_nothing(session: Session, world: Any) -> None:
    async def use() -> None:
        async for _ in session.provision_many([spec("x")] * 4):
            pass

    world.stop_at = "ready"
    task = asyncio.create_task(use())
    await world.stopped.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert world.environments == {}


async def test_environments_of_a_batch_go_with_the_session(able: Able, plugin: Any, world: Any) -> None:
    host = PluginHost.load(entry_points=False, disabled=(), extra=[plugin, able])
    async with Session("able", plugins=host, lease=0.3) as session:
        made = [outcome.environment async for outcome in session.provision_many([spec()] * 3)]
        async with asyncio.timeout(10):
            while not any(len(names) == 3 for _, names, _ in world.renewals):  # noqa: ASYNC110
                await asyncio.sleep(0.02)
    assert len(made) == 3
    assert world.environments == {}


async def test_the_backend_says_how_many_it_takes(able: Able, plugin: Any, world: Any) -> None:
    able.most, world.delay = 2, 0.005
    host = PluginHost.load(entry_points=False, disabled=(), extra=[plugin, able])
    async with Session("able", plugins=host) as session:
        sources = [spec(f"n{number}") for number in range(6)]
        assert len([outcome async for outcome in session.provision_many(sources)]) == 6
    assert world.most_running == 2


async def _upper(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write((await reader.read()).upper())
    writer.close()


async def test_forwarding_a_port(session: Session) -> None:
    server = await asyncio.start_server(_upper, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    environment = await session.provision(spec())
    async with server, environment.default.port_forward(port) as (host, local):
        for text in (b"first", b"second" * 100_000):
            reader, writer = await asyncio.open_connection(host, local)
            writer.write(text)
            writer.write_eof()
            assert await reader.read() == text.upper()
            writer.close()
            await writer.wait_closed()
    with pytest.raises(OSError, match=str(local)):
        await asyncio.open_connection(host, local)


async def test_a_port_that_nobody_listens_on_ends_that_connection_alone(session: Session) -> None:
    environment = await session.provision(spec())
    async with environment.default.port_forward(1) as (host, local):
        for _ in range(2):
            reader, writer = await asyncio.open_connection(host, local)
            assert await reader.read() == b""
            writer.close()
            await writer.wait_closed()
    with pytest.raises(UsageError, match="65535"):
        environment.default.port_forward(0)


def test_forwarding_a_port_for_programs_without_an_event_loop(able: Able, plugin: Any) -> None:
    import socket
    import threading

    host = PluginHost.load(entry_points=False, disabled=(), extra=[plugin, able])

    def greet(listening: socket.socket) -> None:
        with listening.accept()[0] as accepted:
            accepted.sendall(b"hello")

    with socket.create_server(("127.0.0.1", 0)) as listening, sync.Session("able", plugins=host) as session:
        answer = threading.Thread(target=greet, args=(listening,), daemon=True)
        answer.start()
        environment = session.provision(spec())
        with (
            environment.default.port_forward(listening.getsockname()[1]) as address,
            socket.create_connection(address, timeout=10) as client,
        ):
            assert client.recv(5) == b"hello"
        answer.join(10)


async def test_pausing_and_resuming(session: Session, world: Any) -> None:
    environment = await session.provision(spec())
    sandbox = environment.default
    await environment.pause()
    assert f"pause:{environment.id}" in world.calls
    await environment.resume()
    assert environment.default is sandbox
    assert sandbox.ref.data["moved"]
    assert (await sandbox.exec(["true"])).ok


async def test_what_a_backend_can_not_do(make_session: Callable[..., Session]) -> None:
    async with make_session() as session:
        environment = await session.provision(spec())
        with pytest.raises(CapabilityError, match="pause"):
            await environment.pause()
        with pytest.raises(CapabilityError, match="resume"):
            await environment.resume()
        with pytest.raises(CapabilityError, match="ports"):
            environment.default.port_forward(80)


class WithCommands:
    def __init__(self, **commands: Callable[[], click.Command]) -> None:
        self._commands = commands

    @hookimpl
    def sandboxcore_commands(self) -> Mapping[str, Callable[[], click.Command]]:
        return self._commands


class WithMoreCommands(WithCommands):
    pass


def _pool() -> click.Command:
    """Look after pools."""
    return click.Command("pool")


def test_commands_of_plugins() -> None:
    several = [WithCommands(pool=_pool), WithMoreCommands(pool=lambda: click.Command("x"), other=_pool)]
    host = PluginHost.load(entry_points=False, disabled=(), extra=several)
    assert sorted(host.commands()) == ["other", "pool"]
    [problem] = host.problems
    assert problem.problem == "brings a command 'pool', of which there is one already; it is not used"
