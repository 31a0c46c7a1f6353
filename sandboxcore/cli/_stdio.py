"""Standard input and output as bytes on the event loop, without threads and without touching O_NONBLOCK.

The descriptors belong to the shell as well: making them non-blocking would break the programs that share them.
"""

from __future__ import annotations

import asyncio
import os
import select
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = ("STDERR", "STDIN", "STDOUT", "ByteOutput", "read_bytes")

STDIN, STDOUT, STDERR = 0, 1, 2

#: poll() calls a pipe writable while it has a free page: that much never blocks.
_WINDOW_BYTES = select.PIPE_BUF
_READ_BYTES = 1 << 16


class ByteOutput:
    """Writes to a descriptor; a reader that is slow holds up the writer and nobody else."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLOUT)

    async def write(self, data: bytes) -> None:
        """Write all of it.

        Raises:
            BrokenPipeError: Nobody reads any more.
        """
        view = memoryview(data)
        while view:
            if not self._poll.poll(0):
                await _until_writable(self._descriptor)
            view = view[os.write(self._descriptor, view[:_WINDOW_BYTES]) :]


async def _until_writable(descriptor: int) -> None:
    loop = asyncio.get_running_loop()
    ready = loop.create_future()
    loop.add_writer(descriptor, _set, ready)
    try:
        await ready
    finally:
        loop.remove_writer(descriptor)


def _set(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


async def read_bytes(descriptor: int) -> AsyncIterator[bytes]:
    """Yield what arrives, as it arrives, until end of file."""
    while data := await _read_some(descriptor):
        yield data


async def _read_some(descriptor: int) -> bytes:
    loop = asyncio.get_running_loop()
    ready = loop.create_future()
    try:
        loop.add_reader(descriptor, _set, ready)
    except PermissionError:
        # epoll takes no regular files: they are always ready.
        return os.read(descriptor, _READ_BYTES)
    try:
        await ready
    finally:
        loop.remove_reader(descriptor)
    try:
        return os.read(descriptor, _READ_BYTES)
    except OSError:
        # A terminal that hung up is at its end.
        return b""
