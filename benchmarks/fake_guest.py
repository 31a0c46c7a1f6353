"""A stand-in for many guests that speaks their protocol and runs nothing: ``python -m benchmarks.fake_guest SOCKET``.

It is there to weigh the client's side alone. Every command is started at once; ``wait`` writes 64 KiB and then runs for ever,
anything else ends with 0.
"""

from __future__ import annotations

import asyncio
import struct
import sys

from sandboxcore.guest.protocol import HEADER, FrameType

__all__ = ("OUTPUT_BYTES", "serve")

OUTPUT_BYTES = 64 * 1024


def _frame(kind: FrameType, command_id: int, payload: bytes) -> bytes:
    return HEADER.pack(len(payload) + 5, kind, command_id) + payload


class FakeGuest(asyncio.Protocol):
    """One connection of a client."""

    def __init__(self) -> None:
        self._received = bytearray()
        self._transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        while len(self._received) >= HEADER.size:
            length, kind, command_id = HEADER.unpack_from(self._received)
            if len(self._received) < 4 + length:
                return
            payload = bytes(self._received[HEADER.size : 4 + length])
            del self._received[: 4 + length]
            self._answer(kind, command_id, payload)

    def _answer(self, kind: int, command_id: int, payload: bytes) -> None:
        assert self._transport is not None
        if kind == FrameType.HELLO:
            self._transport.write(_frame(FrameType.WELCOME, 0, struct.pack("<B16sIIII", 1, b"fake guest......", 0, 1, 0, 0)))
        if kind == FrameType.SIGNAL:
            self._end(command_id)
        if kind != FrameType.SPAWN:
            return
        self._transport.write(_frame(FrameType.STARTED, command_id, struct.pack("<I", 2)))
        if b"wait\0" in payload:
            self._transport.write(_frame(FrameType.OUTPUT, command_id, struct.pack("<BQ", 0, 0) + bytes(OUTPUT_BYTES)))
        else:
            self._end(command_id)

    def _end(self, command_id: int) -> None:
        assert self._transport is not None
        self._transport.write(_frame(FrameType.EXIT, command_id, struct.pack("<BBiIQQQQQ", 0, 0, 0, 0, 0, 0, 0, 0, 0)))


async def serve(path: str) -> None:
    """Serve until standard input ends."""
    loop = asyncio.get_running_loop()
    server = await loop.create_unix_server(FakeGuest, path, backlog=1024)
    print("ready", flush=True)
    async with server:
        await loop.run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    from .machine import raise_file_limit

    raise_file_limit()
    asyncio.run(serve(sys.argv[1]))
