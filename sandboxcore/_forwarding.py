"""Listen on this machine and connect whoever comes to a port of a sandbox."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

__all__ = ("dial", "forwarded")

_log = logging.getLogger("sandboxcore")

#: Most bytes that wait in one direction of a connection.
PIECE_BYTES = 1 << 16

Open = Callable[[asyncio.BaseProtocol], Awaitable[asyncio.Transport]]


@asynccontextmanager
async def forwarded(open_port: Open, *, host: str, local_port: int) -> AsyncIterator[tuple[str, int]]:
    """Serve connections until the block ends; gives the address and port that it listens on."""
    tasks: set[asyncio.Task[None]] = set()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(_serve(open_port, reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(connected, host, local_port, limit=PIECE_BYTES)
    try:
        address = server.sockets[0].getsockname()
        yield str(address[0]), int(address[1])
    finally:
        server.close()
        for task in set(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _serve(open_port: Open, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copy both ways until both have ended; a failure ends this connection alone."""
    try:
        inner_reader, inner_writer = await dial(open_port)
        try:
            await asyncio.gather(_copy(reader, inner_writer), _copy(inner_reader, writer))
        finally:
            inner_writer.transport.abort()
    except Exception as error:
        _log.warning("a forwarded connection failed: %s: %s", type(error).__name__, error)
    except BaseException:
        writer.transport.abort()  # a client that does not read would hold up the end for ever
        raise
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def dial(open_port: Open) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Open a port of a sandbox for reading and writing."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=PIECE_BYTES, loop=loop)
    protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
    transport: Any = await open_port(protocol)
    return reader, asyncio.StreamWriter(transport, protocol, reader, loop)


async def _copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    while data := await source.read(PIECE_BYTES):
        target.write(data)
        await target.drain()
    # Where half of a connection can't be closed, all of it is: else the far side would never learn that this one has gone.
    if target.can_write_eof():
        target.write_eof()
    else:
        target.close()
