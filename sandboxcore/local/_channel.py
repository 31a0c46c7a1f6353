"""The way into a local sandbox: the socket that its guest listens on."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
from collections.abc import Sequence
from pathlib import Path

from ..abc import Channel
from ..errors import GuestUnavailableError, SandboxUnavailableError
from ._status import last_words, read_status

__all__ = ("SOCKET", "LocalChannel", "listen")

SOCKET = "socket"
_BACKLOG = 512


def listen(folder: Path) -> socket.socket:
    """Bind the socket in a service's folder. The path may be longer than the 107 bytes that an address holds."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    directory = os.open(folder, os.O_PATH | os.O_CLOEXEC)
    try:
        listener.bind(f"/proc/self/fd/{directory}/{SOCKET}")
        listener.listen(_BACKLOG)
    except OSError:
        listener.close()
        raise
    finally:
        os.close(directory)
    return listener


class LocalChannel(Channel):
    """Opens streams to the guest of one sandbox."""

    lands_in = "guest"

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._name = name

    async def open(self, argv: Sequence[str], protocol: asyncio.BaseProtocol) -> asyncio.Transport:
        """Connect to the guest's socket.

        Raises:
            GuestUnavailableError: The sandbox is gone: nobody listens there, and nobody will.
            SandboxUnavailableError: Its guest is too busy to answer.
        """
        loop = asyncio.get_running_loop()
        stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        stream.setblocking(False)
        try:
            await self._connect(stream)
            transport, _ = await loop.create_unix_connection(lambda: protocol, sock=stream)
        except OSError as error:
            stream.close()
            if isinstance(error, (FileNotFoundError, ConnectionRefusedError)):
                raise self._gone(error) from error
            message = f"service {self._name!r} does not answer: {error.strerror or error}"
            raise SandboxUnavailableError(message, started="no") from error
        except BaseException:
            stream.close()
            raise
        return transport

    def _gone(self, error: OSError) -> GuestUnavailableError:
        """Tell how the service ended, as far as its folder still says."""
        code = read_status(self._folder).exit_code
        if code is not None:
            return GuestUnavailableError(f"service {self._name!r} ended: exit code {code}{last_words(self._folder)}")
        hint = "`sandboxcore logs` shows what its command wrote" if self._folder.exists() else None
        return GuestUnavailableError(f"service {self._name!r} is not running: {error.strerror or error}", hint=hint)

    async def _connect(self, stream: socket.socket) -> None:
        directory = os.open(self._folder, os.O_PATH | os.O_CLOEXEC)
        try:
            for pause in (0.0, 0.005, 0.02, 0.05, 0.1, 0.2, 0.4):
                await asyncio.sleep(pause)
                # Connecting to a local socket never takes time; EAGAIN means that its queue is full.
                with contextlib.suppress(BlockingIOError):
                    stream.connect(f"/proc/self/fd/{directory}/{SOCKET}")
                    return
            raise BlockingIOError(errno.EAGAIN, "its guest does not answer")
        finally:
            os.close(directory)
