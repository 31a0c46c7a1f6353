"""Guests to test: the real program, as a plain process of this machine (no sandbox around it) or through ``sh``."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from keepers import Keeper, SocketChannel

from sandboxcore.guest import Guest, guest_binary
from sandboxcore.guest._process import ProcessChannel


@pytest.fixture(scope="session")
def guest_program() -> Path:
    return guest_binary()


@pytest.fixture
def start_keeper(tmp_path: Path, guest_program: Path) -> Iterator[Callable[..., Keeper]]:
    """Start a guest; any number a test."""
    made: list[Keeper] = []

    def start(*argv: str, program: Path | None = None, **options: object) -> Keeper:
        folder = tmp_path / f"k{len(made)}"
        folder.mkdir()
        made.append(Keeper(folder, program or guest_program, *argv, **options))  # type: ignore[arg-type]
        return made[-1]

    yield start
    for keeper in made:
        keeper.stop()


@pytest.fixture
def keeper(start_keeper: Callable[..., Keeper]) -> Keeper:
    return start_keeper()


@pytest.fixture
def channel(keeper: Keeper) -> SocketChannel:
    return keeper.channel()


@pytest.fixture
async def guest(channel: SocketChannel) -> AsyncIterator[Guest]:
    guest = Guest(channel)
    yield guest
    await guest.aclose()


@pytest.fixture
async def shell_guest(tmp_path: Path) -> AsyncIterator[Guest]:
    """A guest that is carried in through ``sh``, as into a container."""
    home = tmp_path / "home"
    home.mkdir()
    guest = Guest(ProcessChannel((), env={"HOME": str(home), "PATH": "/usr/bin:/bin"}))
    yield guest
    await guest.aclose()


@pytest.fixture
def mark(tmp_path: Path) -> str:
    return f"{tmp_path.name}-{os.getpid()}-{time.monotonic_ns()}"
