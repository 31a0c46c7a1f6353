"""The life of environments: leases, killed clients, cancellations, deaths, restarts, logs, pauses, ports."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from typing import Any

import pytest
from sandboxcore_docker._engine import Engine
from sandboxcore_docker._leases import Leases

from sandboxcore import Session
from sandboxcore.environment import Environment
from sandboxcore.errors import SandboxError, SandboxUnavailableError

from .conftest import Leftovers, Opener, listens, one, output, several

pytestmark = pytest.mark.timeout(400)

#: Enough of everything: a network, a way out, a volume, files, a healthcheck, an order.
WHOLE: dict[str, Any] = several(
    default={
        "depends_on": {"db": {"condition": "healthy"}},
        "files": {"/etc/x": {"content": b"x"}},
        "volumes": [{"source": "v", "target": "/v"}, {"target": "/a"}],
        "network_policy": {"internet": True},
    },
    db={"healthcheck": {"test": ["CMD", "true"], "interval": 0.1}, "read_only": True, "files": {"/etc/y": {"content": b"y"}}},
) | {"volumes": {"v": {}}}


async def until(condition: Any, seconds: float = 60.0) -> None:
    """Wait for a condition, which is asked again and again."""
    deadline = time.monotonic() + seconds
    while not await condition():
        assert time.monotonic() < deadline, "it did not come about"
        await asyncio.sleep(0.1)


async def test_a_cancellation_at_any_moment_leaves_nothing(opened: Opener, leftovers: Leftovers) -> None:
    async with opened() as session:
        begin = time.monotonic()
        await (await session.provision(WHOLE)).destroy()
        whole = time.monotonic() - begin
        for part in (0.02, 0.12, 0.25, 0.37, 0.5, 0.65):
            task = asyncio.ensure_future(session.provision(WHOLE))
            await asyncio.sleep(whole * part)
            task.cancel()
            outcome = (await asyncio.gather(task, return_exceptions=True))[0]
            if isinstance(outcome, Environment):
                await outcome.destroy()
            assert await leftovers(session.run_id) == [], part


CLIENT = """
import asyncio, json, sys
from sandboxcore import Session
async def main():
    host, run, spec = json.loads(sys.stdin.read())
    for service in spec["services"].values():
        for file in service.get("files", {}).values():
            file["content"] = file["content"].encode()
    async with Session("docker", config={"host": host}, run_id=run, lease=1.0) as session:
        print("open", flush=True)
        while True:
            environment = await session.provision(spec)
            print("ready", flush=True)
            await environment.destroy()
asyncio.run(main())
"""


async def test_a_killed_client_leaves_only_what_cleaning_up_finds(opened: Opener, leftovers: Leftovers, host: str) -> None:
    """At ten moments of provisioning and destroying, and with renewals of a lease of one second going on."""
    spec = json.dumps([host, "RUN", WHOLE], default=lambda data: data.decode())
    runs = [f"test-killed-{os.getpid()}-{index}" for index in range(10)]
    for index, run_id in enumerate(runs):
        client = await asyncio.create_subprocess_exec(
            sys.executable, "-c", CLIENT, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )
        assert client.stdin is not None
        assert client.stdout is not None
        client.stdin.write(spec.replace("RUN", run_id).encode())
        client.stdin.close()
        assert await client.stdout.readline() == b"open\n"
        await asyncio.sleep(0.17 * index)
        client.send_signal(signal.SIGKILL)
        await client.wait()
    async with opened() as session:
        for run_id in runs:

            async def is_gone(run_id: str = run_id) -> bool:
                await session.cleanup(expired=True, run_id=run_id)
                return await leftovers(run_id) == []

            await until(is_gone)


async def test_leases_are_renewed_for_all_at_once_and_seen_by_others(
    opened: Opener, engine: Engine, leftovers: Leftovers
) -> None:
    async with opened(lease=3.0) as session, opened() as other:
        made = [await session.provision(one(), keep=True) for _ in range(2)]
        for environment in made:
            assert environment.ref.expires_at <= time.time() + 3.0
        await session._open().provisioner.renew([environment.ref for environment in made], 500.0)
        records = await Leases(engine).read(session.run_id)
        assert [len(record.environments) for record in records] == [2]
        for environment in await other.find(run_id=session.run_id):
            assert 400 < environment.ref.expires_at - time.time() <= 500
        await made[0].renew(50.0)
        found = {one.id: one.ref.expires_at - time.time() for one in await other.find(run_id=session.run_id)}
        assert found[made[0].id] <= 50 < found[made[1].id]
        for environment in made:
            await environment.destroy()
        # One that is gone can't be claimed again.
        await session._open().provisioner.renew([made[0].ref], 500.0)
        assert await leftovers(session.run_id) == []


async def test_a_record_that_was_left_alone_is_found_and_cleaned_up(
    session: Session, engine: Engine, leftovers: Leftovers
) -> None:
    run_id = f"test-ghost-{os.getpid()}"
    labels = {"role": "lease", "run-id": run_id, "environments": '["gone"]', "renewed-at": "1", "expires-at": "2"}
    body = {"Name": f"sandboxcore-{run_id}", "Labels": {f"sandboxcore.dev/{name}": value for name, value in labels.items()}}
    await engine.call("POST", "/volumes/create", json_body=body)
    assert [ref.environment_id for ref in await session.cleanup(run_id=run_id, expired=True)] == ["gone"]
    assert await leftovers(run_id) == []


async def test_a_container_that_dies_takes_its_commands_along_and_says_why(
    session: Session, opened: Opener, engine: Engine
) -> None:
    async with session.environment(one()) as environment, opened() as other:
        container = environment.default.ref.data["id"]
        await environment.default.exec(["true"])
        running = asyncio.ensure_future(environment.default.exec(["/bin/sleep", "300"]))
        waiting = asyncio.ensure_future(environment.default.exec(["/bin/sh", "-c", "echo here > /tmp/here; exec sleep 300"]))
        await until(lambda: environment.default.exists("/tmp/here"))
        await engine.call("POST", f"/containers/{container}/kill")
        for task in (running, waiting):
            with pytest.raises(SandboxUnavailableError, match=r"not running.*exit code 137") as caught:
                await asyncio.wait_for(task, 60)
            assert caught.value.started in ("yes", "unknown")
        with pytest.raises(SandboxUnavailableError, match="exit code 137") as caught:
            await environment.default.exec(["true"])
        assert caught.value.started == "no"

        async def is_failed() -> bool:
            [found] = await other.find(environment_id=environment.id)
            seen = found.default.ref
            return (found.ref.state, seen.state, seen.exit_code) == ("failed", "failed", 137)

        await until(is_failed)


async def test_a_restarted_container_serves_again_and_lost_commands_are_told(session: Session) -> None:
    command = ["/bin/sh", "-c", "until [ -e /tmp/end ]; do sleep 0.05; done; rm /tmp/end; exit 3"]
    async with session.environment(one(command=command, restart={"name": "always"})) as environment:
        running = asyncio.ensure_future(environment.default.exec(["/bin/sh", "-c", "echo on > /tmp/on; exec sleep 300"]))
        await until(lambda: environment.default.exists("/tmp/on"))
        with contextlib.suppress(SandboxUnavailableError):  # the end that it brings about may come before its own
            await environment.default.write_file("/tmp/end", b"")
        with pytest.raises(SandboxUnavailableError) as caught:
            await asyncio.wait_for(running, 90)
        assert caught.value.started in ("yes", "unknown")

        async def serves() -> bool:
            try:
                return (await environment.default.exec(["true"], timeout=20)).ok
            except SandboxError:
                return False

        await until(serves)


async def test_logs_are_read_from_anywhere(session: Session, opened: Opener) -> None:
    script = "echo one; echo two; until [ -e /tmp/go ]; do sleep 0.05; done; echo three; exit 0"
    terminal = {"tty": True, "command": ["/bin/sh", "-c", "echo tty; exec sleep 300"]}
    spec = several(default={}, job={"command": ["/bin/sh", "-c", script]}, terminal=terminal)
    async with session.environment(spec) as environment, opened() as other:
        same = await other.attach(environment.id)

        async def has_two() -> bool:
            return b"".join([data async for data in same.logs("job", tail=1)]) == b"two\n"

        await until(has_two)
        with contextlib.suppress(SandboxUnavailableError):  # the end that it brings about may come before its own
            await environment["job"].write_file("/tmp/go", b"")
        assert b"".join([data async for data in same.logs("job", follow=True)]) == b"one\ntwo\nthree\n"

        async def has_spoken() -> bool:
            return b"".join([data async for data in same.logs("terminal")]) == b"tty\r\n"

        await until(has_spoken)


async def test_an_environment_is_paused_and_goes_on(session: Session) -> None:
    async with session.environment(one()) as environment:
        await environment.default.exec(["true"])
        await environment.pause()
        with pytest.raises(SandboxUnavailableError, match="'default' is paused") as caught:
            await environment.default.exec(["echo", "now"])
        assert caught.value.started == "no"
        await environment.resume()
        assert (await environment.default.exec(["echo", "later"])).stdout == b"later\n"


async def test_ports_are_reached_through_the_guest(session: Session) -> None:
    command = ["/bin/sh", "-c", "while :; do nc -l -p 7000 -e /bin/cat; done"]
    async with session.environment(one(command=command, networks=None)) as environment:
        await listens(environment, "default")
        async with environment.default.port_forward(7000) as (address, port):
            reader, writer = await asyncio.open_connection(address, port)
            payload = os.urandom(300_000)
            writer.write(payload)
            assert await asyncio.wait_for(reader.readexactly(len(payload)), 60) == payload
            writer.close()
            await writer.wait_closed()
        async with environment.default.port_forward(7001) as (address, port):
            reader, writer = await asyncio.open_connection(address, port)
            assert await asyncio.wait_for(reader.read(), 60) == b""
            writer.close()


async def test_many_are_made_at_once_and_each_fails_by_itself(opened: Opener, leftovers: Leftovers) -> None:
    async with opened() as session:
        specs = [one() if index % 5 else one(command=["/no/such"]) for index in range(10)]
        outcomes = {outcome.index: outcome async for outcome in session.provision_many(specs)}
        assert {index for index, outcome in outcomes.items() if outcome.error is not None} == {0, 5}
        made = [outcome.environment for outcome in outcomes.values() if outcome.environment is not None]
        assert await asyncio.gather(*(output(environment, "echo here") for environment in made)) == ["here"] * 8
    assert await leftovers(session.run_id) == []
