"""Ports of sandboxes on this machine: whoever comes is connected, and nobody holds up the end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from sandboxcore._forwarding import forwarded

SECONDS = 30


@pytest.fixture
async def flood() -> AsyncIterator[int]:
    """Serve a port that sends without end."""

    async def send(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                writer.write(bytes(1 << 20))
                await writer.drain()
        except OSError:
            writer.close()

    server = await asyncio.start_server(send, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()


async def test_a_client_that_does_not_read_does_not_hold_up_the_end(flood: int) -> None:
    async def dial(protocol: asyncio.BaseProtocol) -> asyncio.Transport:
        transport, _ = await asyncio.get_running_loop().create_connection(lambda: protocol, "127.0.0.1", flood)
        return transport

    async with asyncio.timeout(SECONDS):
        async with forwarded(dial, host="127.0.0.1", local_port=0) as (host, port):
            _, writer = await asyncio.open_connection(host, port, limit=1)
            transport: Any = writer.transport
            transport.pause_reading()
            await asyncio.sleep(0.5)  # what lies between the two fills
        writer.close()
