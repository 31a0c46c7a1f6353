"""A channel over a program that this machine runs, for every system that has a command line of its own."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping, Sequence

from ..abc import Channel
from ..errors import SandboxUnavailableError

__all__ = ("ProcessChannel",)

_PATIENCE = 2.0


class ProcessChannel(Channel):
    """Runs ``prefix + argv`` and speaks with it over its stdin and stdout.

    Args:
        prefix: What leads into the sandbox: ``("docker", "exec", "-i", name)``; empty: this machine itself.
        env: The environment of that program; None: this process's.
    """

    def __init__(self, prefix: Sequence[str], *, env: Mapping[str, str] | None = None) -> None:
        self._prefix = tuple(prefix)
        self._env = env
        self._running: list[asyncio.subprocess.Process] = []

    async def open(self, argv: Sequence[str], protocol: asyncio.BaseProtocol) -> asyncio.Transport:
        """Start the program; the stream ends with it, and it with the stream."""
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                process = await self._run(argv, theirs)
            self._running = [*(other for other in self._running if other.returncode is None), process]
            transport, _ = await asyncio.get_running_loop().create_unix_connection(lambda: protocol, sock=ours)
        except BaseException:
            ours.close()
            raise
        return transport

    async def _run(self, argv: Sequence[str], stream: socket.socket) -> asyncio.subprocess.Process:
        words = (*self._prefix, *argv)
        try:
            return await asyncio.create_subprocess_exec(
                *words, stdin=stream.fileno(), stdout=stream.fileno(), stderr=asyncio.subprocess.DEVNULL, env=self._env
            )
        except OSError as error:
            raise SandboxUnavailableError(f"can't run {words[0]!r}: {error}", started="no") from error

    async def aclose(self) -> None:
        """Wait for the programs to end, as they do with their streams; kill those that don't."""
        running, self._running = self._running, []
        if running:
            await asyncio.wait([asyncio.ensure_future(process.wait()) for process in running], timeout=_PATIENCE)
        for process in running:
            if process.returncode is None:
                process.kill()
                await process.wait()
