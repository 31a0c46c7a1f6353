"""Guests to test: the real program, as a plain process of this machine with no sandbox around it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from sandboxcore.abc import Channel
from sandboxcore.errors import ExecTimeoutError
from sandboxcore.guest import Guest
from sandboxcore.values import ExecRequest, ExecResult


class SocketChannel(Channel):
    """Connects to a guest that listens on a socket of this machine, and counts and cuts its streams."""

    lands_in = "guest"

    def __init__(self, path: Path) -> None:
        self.path = path
        self.transports: list[asyncio.Transport] = []

    async def open(self, argv: Sequence[str], protocol: asyncio.BaseProtocol) -> asyncio.Transport:
        transport, _ = await asyncio.get_running_loop().create_unix_connection(lambda: protocol, str(self.path))
        self.transports.append(transport)
        return transport

    def cut(self) -> None:
        """Break the newest stream without a word."""
        self.transports[-1].abort()


class Keeper:
    """A guest process with its listening socket."""

    def __init__(
        self, folder: Path, program: Path, *argv: str, cwd: Path | None = None, env: dict[str, str] | None = None
    ) -> None:
        self.socket = folder / "s"
        self.log, self.status = folder / "log", folder / "status"
        with socket.socket(socket.AF_UNIX) as listener, self.log.open("ab") as log, self.status.open("ab") as status:
            listener.bind(str(self.socket))
            listener.listen(64)
            fds = (listener.fileno(), log.fileno(), status.fileno())
            words = [str(program), "init", "--listen", str(fds[0]), "--log", str(fds[1]), "--status", str(fds[2]), *argv]
            self.process = subprocess.Popen(
                words, pass_fds=fds, cwd=cwd or folder, env=env, stdin=subprocess.DEVNULL, start_new_session=True
            )
        self.pid = self.process.pid

    def channel(self) -> SocketChannel:
        return SocketChannel(self.socket)

    def stop(self) -> None:
        for pid in descendants(self.pid):
            _kill(pid)
        self.process.kill()
        self.process.wait()


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def children(pid: int) -> list[int]:
    """Process ids of a process's children."""
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def descendants(pid: int) -> list[int]:
    """Process ids of everything below a process."""
    found = children(pid)
    for child in list(found):
        found += descendants(child)
    return found


def marked(mark: str) -> list[int]:
    """Process ids of this machine that have the mark in their environment."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if f"MARK={mark}".encode() in (entry / "environ").read_bytes():
                found.append(int(entry.name))
        except OSError:  # ended meanwhile
            continue
    return found


async def timed_out(guest: Guest, request: Callable[[float], ExecRequest], said: Callable[[ExecResult], bytes]) -> ExecResult:
    """Run a command into its timeout, a longer one if it had said nothing: on a busy machine it may not have begun in less."""
    for seconds in (0.5, 3, 15):
        with pytest.raises(ExecTimeoutError) as caught:
            await guest.executor.exec(request(seconds))
        result = caught.value.result
        assert result is not None
        if said(result):
            break
    return result


async def in_time(guest: Guest, request: ExecRequest, after: Callable[[], None]) -> None:
    """Run a command into its timeout, and see that it ends within 2 seconds after that: a stall spoils one try, a defect all.

    Args:
        after: Looks, after each try, whether anything is left of it.
    """
    assert request.timeout is not None
    late: list[float] = []
    while len(late) < 4 and (not late or late[-1] > 2):
        began = time.monotonic()
        with pytest.raises(ExecTimeoutError):
            await guest.executor.exec(request)
        late.append(time.monotonic() - began - request.timeout)
        after()
    assert min(late) <= 2


async def until(condition: Callable[[], bool], seconds: float = 5.0) -> bool:
    """Wait until something is so; tell whether it is."""
    for _ in range(int(seconds / 0.02)):
        if condition():
            return True
        await asyncio.sleep(0.02)
    return condition()
