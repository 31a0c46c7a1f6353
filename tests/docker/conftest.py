"""Real environments on the tests' engine, and a look at what is left of them without the backend's help."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest
import pytest_asyncio
from sandboxcore_docker._config import DockerConfig
from sandboxcore_docker._engine import Engine

from sandboxcore import Session
from sandboxcore.environment import Environment
from sandboxcore.values import Event

BUSYBOX, DEBIAN, NONROOT, BINARY = (f"sandboxcore.test/{name}:1" for name in ("busybox", "debian", "nonroot", "binary"))
STAYS = ["/bin/sleep", "300"]

Opener = Callable[..., AbstractAsyncContextManager[Session]]
Leftovers = Callable[[str], Any]


def one(**service: Any) -> dict[str, Any]:
    """Write a spec of one service that stays."""
    return {"services": {"default": {"image": BUSYBOX, "command": STAYS, **service}}}


def several(**services: dict[str, Any]) -> dict[str, Any]:
    """Write a spec of several services that stay."""
    return {"services": {name: {"image": BUSYBOX, "command": STAYS, **service} for name, service in services.items()}}


async def output(environment: Environment, line: str, service: str | None = None, **more: Any) -> str:
    """Run a shell line that succeeds."""
    sandbox = environment.default if service is None else environment[service]
    result = await sandbox.exec(["/bin/sh", "-c", line], timeout=60, **more)
    assert result.ok, result.error_text()
    return result.text().strip()


async def listens(environment: Environment, service: str) -> None:
    """Wait until something in the sandbox listens on port 7000."""
    await output(environment, "until cat /proc/net/tcp /proc/net/tcp6 | grep -q ':1B58 0*:0000 0A'; do sleep 0.05; done", service)


@pytest.fixture(scope="session")
def host() -> str:
    """Say where the engine is."""
    from tests.engine import docker_host

    return docker_host()


@pytest_asyncio.fixture
async def engine(host: str) -> AsyncIterator[Engine]:
    """Speak with the engine directly."""
    engine = Engine(DockerConfig(host=host))
    yield engine
    await engine.aclose()


@pytest.fixture
def events() -> list[Event]:
    """Collect the events of the sessions that ``opened`` makes."""
    return []


@pytest.fixture
def opened(host: str, events: list[Event]) -> Opener:
    """Open sessions on the engine."""

    @asynccontextmanager
    async def open_session(config: dict[str, Any] | None = None, **options: Any) -> AsyncIterator[Session]:
        async with Session("docker", config={"host": host, **(config or {})}, on_event=events.append, **options) as session:
            yield session

    return open_session


@pytest_asyncio.fixture
async def session(opened: Opener) -> AsyncIterator[Session]:
    """Open a session."""
    async with opened() as session:
        yield session


@pytest.fixture
def leftovers(engine: Engine) -> Leftovers:
    """List all that carries a run id: containers, networks, volumes, images."""

    async def look(run_id: str) -> list[str]:
        labels = [f"sandboxcore.dev/run-id={run_id}"]
        return [
            f"{kind} {thing.get('Name') or thing.get('Names') or thing['Id']}"
            for kind, more in (("containers", {"all": True}), ("networks", {}), ("volumes", {}), ("images", {}))
            for thing in await engine.find(kind, labels, **more)
        ]

    return look
