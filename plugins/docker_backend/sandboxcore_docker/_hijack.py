"""The stream of an exec: an HTTP request that stops being one (``POST /exec/ID/start``, ``Upgrade: tcp``).

What is written goes to the command's stdin as it is; what comes has frames, of which only stdout's are passed on.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

from sandboxcore.errors import SandboxUnavailableError

from ._errors import first_line
from ._http import HttpError, message_of, request_head
from ._multiplex import Demultiplexer

if TYPE_CHECKING:
    from ._http import HttpClient

__all__ = ("feed", "hijack")

_SMALL, _LARGE = 8 * 1024, 256 * 1024
_ERRORS_MOST = 4096
_HEAD_MOST = 64 * 1024
_ORDER = json.dumps({"Detach": False, "Tty": False}).encode()
_HEADERS = {"Content-Type": "application/json", "Connection": "Upgrade", "Upgrade": "tcp", "Content-Length": str(len(_ORDER))}


def feed(protocol: asyncio.BaseProtocol, data: memoryview) -> None:
    """Give a protocol bytes, in the way that it takes them."""
    if not isinstance(protocol, asyncio.BufferedProtocol):
        cast(asyncio.Protocol, protocol).data_received(bytes(data))
        return
    while data:
        space = memoryview(protocol.get_buffer(len(data)))
        count = min(len(space), len(data))
        space[:count] = data[:count]
        space.release()
        protocol.buffer_updated(count)
        data = data[count:]


async def hijack(
    http: HttpClient,
    where: str,
    protocol: asyncio.BaseProtocol,
    *,
    speaks_first: bool = False,
    connected: Callable[[asyncio.Transport], None] | None = None,
) -> asyncio.Transport:
    """Start an exec and connect its stdin and stdout to a protocol.

    Args:
        speaks_first: The program writes before it reads: return only when it has. The engine answers before it has
            started the program, and tells of a failure on the stream.
        connected: Called with the transport before the engine has answered, for whoever knows better when to give up.

    Raises:
        HttpError: The engine refused.
        OSError: The engine can't be reached.
        SandboxUnavailableError: The program could not be started.
    """
    hijacked = _Hijacked(protocol, speaks_first)
    transport = await http.create_connection(hijacked)
    if connected is not None:
        connected(transport)
    try:
        transport.write(request_head("POST", where, _HEADERS) + _ORDER)
        await hijacked.open
    except BaseException:
        transport.abort()
        raise
    return transport


class _Hijacked(asyncio.BufferedProtocol):
    """Reads the head of the answer, then takes the stream apart."""

    def __init__(self, inner: asyncio.BaseProtocol, speaks_first: bool) -> None:
        self._inner = inner
        self._speaks_first = speaks_first
        self._buffer = bytearray(_SMALL)
        self._size = _SMALL
        self._head: bytearray | None = bytearray()
        self._status = 0
        self._demultiplexer = Demultiplexer()
        self._errors = b""
        self._spoke = False
        self._transport: asyncio.Transport | None = None
        self.open: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.open.add_done_callback(lambda future: future.cancelled() or future.exception())

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def get_buffer(self, sizehint: int) -> memoryview:
        if len(self._buffer) != self._size:
            self._buffer = bytearray(self._size)
        # asyncio's TLS writes into slices of it, which of a bytearray would be copies.
        return memoryview(self._buffer)

    def buffer_updated(self, nbytes: int) -> None:
        # A stream that fills all it is given gets more, one that does not gives it back.
        if nbytes == self._size:
            self._size = min(4 * self._size, _LARGE)
        elif nbytes < self._size // 16:
            self._size = max(self._size // 2, _SMALL)
        with memoryview(self._buffer) as view, view[:nbytes] as data:
            if self._head is None:
                self._take(data)
            else:
                self._read_head(bytes(data))

    def _read_head(self, data: bytes) -> None:
        assert self._head is not None
        self._head += data
        head, end, rest = bytes(self._head).partition(b"\r\n\r\n")
        if not end:
            if len(self._head) > _HEAD_MOST and self._transport is not None:
                self._transport.abort()
            return
        self._status = int(head.split(None, 2)[1])
        if self._status not in (101, 200):
            return  # the rest of the answer says why
        self._head = None
        if self._transport is not None:
            self._inner.connection_made(self._transport)
        if not self._speaks_first:
            self._is_open()
        self._take(memoryview(rest))

    def _is_open(self) -> None:
        if not self.open.done():
            self.open.set_result(None)

    def _take(self, data: memoryview) -> None:
        try:
            for stream, piece in self._demultiplexer.feed(data):
                if stream == 1:
                    self._spoke = True
                    self._is_open()
                    feed(self._inner, piece)
                else:
                    self._errors = (self._errors + bytes(piece))[-_ERRORS_MOST:]
        except ValueError:
            # Older engines write the failure of a start as it is.
            self._errors = bytes(data)[:_ERRORS_MOST]
            if self._transport is not None:
                self._transport.abort()

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()

    def eof_received(self) -> bool | None:
        if self._head is not None:
            return False
        return cast(asyncio.Protocol, self._inner).eof_received()

    def connection_lost(self, error: Exception | None) -> None:
        if self._head is not None:
            if not self.open.done():
                self.open.set_exception(self._refusal(error))
            return
        if not self._spoke and self._errors:
            said = first_line(self._errors.decode(errors="replace"))
            error = SandboxUnavailableError(f"the sandbox's guest could not be started: {said}", started="no")
        if not self.open.done():
            self.open.set_exception(error or ConnectionResetError("the stream ended before the program spoke"))
        with contextlib.suppress(Exception):
            self._inner.connection_lost(error)

    def _refusal(self, error: Exception | None) -> Exception:
        assert self._head is not None
        if self._status:
            body = bytes(self._head).partition(b"\r\n\r\n")[2]
            if b"\r\n" in body:  # chunked: the first line is a length
                body = body.partition(b"\r\n")[2].rpartition(b"}")[0] + b"}"
            return HttpError(self._status, message_of(body), "exec")
        return error or ConnectionResetError("the engine closed the connection")
