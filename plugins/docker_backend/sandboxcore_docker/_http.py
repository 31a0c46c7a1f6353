"""HTTP/1.1 with an engine, on asyncio: connections that are used again, bodies that come in pieces, and streams."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

if TYPE_CHECKING:
    from ._endpoint import Endpoint

__all__ = ("Body", "HttpClient", "HttpError", "Response", "message_of", "request_head", "target")

Body = bytes | AsyncIterator[bytes] | None

_IDLE_MOST = 16
_PIECE = 64 * 1024
_CONNECT_SECONDS = 10.0
_LINE_MOST = 64 * 1024
_AGAIN = ("GET", "HEAD", "DELETE")


class HttpError(Exception):
    """The engine said no: its status and its own words."""

    def __init__(self, status: int, message: str, path: str = "") -> None:
        super().__init__(f"{status}: {message}")
        self.status, self.message, self.path = status, message, path


def target(path: str, query: Mapping[str, Any] | None = None) -> str:
    """Write path and query; values that are mappings or lists go as JSON, None is left out."""
    given = {name: _word(value) for name, value in (query or {}).items() if value is not None}
    return quote(path, safe="/:@.-_~") + (f"?{urlencode(given)}" if given else "")


def _word(value: Any) -> str:
    if isinstance(value, bool):
        return "1" if value else "0"
    return json.dumps(value) if isinstance(value, (dict, list)) else str(value)


def request_head(method: str, where: str, headers: Mapping[str, str]) -> bytes:
    """Write the head of a request."""
    lines = [f"{method} {where} HTTP/1.1", "Host: docker", *(f"{name}: {value}" for name, value in headers.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def message_of(data: bytes) -> str:
    """Read what the engine says of a failure."""
    try:
        return str(json.loads(data)["message"]).strip()
    except (ValueError, KeyError, TypeError):
        return data.decode(errors="replace").strip()


class Response:
    """The head of an answer, and its body as it comes."""

    def __init__(self, status: int, headers: Mapping[str, str], reader: asyncio.StreamReader, *, has_body: bool) -> None:
        self.status, self.headers = status, headers
        self._reader = reader
        self._chunked = headers.get("transfer-encoding", "").lower() == "chunked"
        self._left: int | None = (
            None if self._chunked else int(headers["content-length"]) if "content-length" in headers else None
        )
        #: Whether the body has been read to its end, so that the connection can be used again.
        self.complete = not has_body
        self.keeps = headers.get("connection", "").lower() != "close" and (
            self._chunked or self._left is not None or not has_body
        )

    async def pieces(self) -> AsyncIterator[bytes]:
        """Yield the body."""
        while not self.complete:
            data = await (self._chunk() if self._chunked else self._plain())
            if data:
                yield data

    async def read(self) -> bytes:
        """Read the whole body."""
        return b"".join([piece async for piece in self.pieces()])

    async def _chunk(self) -> bytes:
        if self._left is None:
            line = await self._reader.readline()
            if not line:
                raise ConnectionResetError("the engine closed the connection")
            self._left = int(line.split(b";")[0], 16)
            if self._left == 0:
                while (await self._reader.readline()).strip():
                    continue
                self.complete = True
                return b""
        data = await self._some(min(self._left, _PIECE))
        self._left -= len(data)
        if self._left == 0:
            await self._reader.readexactly(2)
            self._left = None
        return data

    async def _plain(self) -> bytes:
        if self._left is None:
            data = await self._reader.read(_PIECE)
            self.complete = not data
            return data
        data = await self._some(min(self._left, _PIECE)) if self._left else b""
        self._left -= len(data)
        self.complete = self._left == 0
        return data

    async def _some(self, most: int) -> bytes:
        data = await self._reader.read(most)
        if not data:
            raise ConnectionResetError("the engine closed the connection")
        return data


class _Connection:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.used = False

    @property
    def stale(self) -> bool:
        return self.reader.at_eof() or self.writer.is_closing()

    def close(self) -> None:
        self.writer.transport.abort()

    async def send(self, head: bytes, body: Body) -> None:
        self.writer.write(head)
        if isinstance(body, bytes):
            self.writer.write(body)
        elif body is not None:
            async for piece in body:
                self.writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
                await self.writer.drain()
            self.writer.write(b"0\r\n\r\n")
        await self.writer.drain()

    async def receive(self, method: str) -> Response:
        status = 100
        headers: dict[str, str] = {}
        while status < 200 and status != 101:
            first = await self.reader.readline()
            if not first:
                raise ConnectionResetError("the engine closed the connection")
            status, headers = int(first.split()[1]), {}
            while (line := (await self.reader.readline()).strip()) != b"":
                name, _, value = line.decode("latin-1").partition(":")
                headers[name.strip().lower()] = value.strip()
        return Response(status, headers, self.reader, has_body=method != "HEAD" and status not in (204, 304))


class HttpClient:
    """Connections to one engine. Used in one event loop."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self._idle: list[_Connection] = []
        self._closed = False

    async def aclose(self) -> None:
        """Close what is idle; connections in use close when they are given back. Idempotent."""
        self._closed = True
        idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Open a connection. Raises OSError (TimeoutError is one)."""
        endpoint = self.endpoint
        async with asyncio.timeout(_CONNECT_SECONDS):
            if endpoint.path:
                return await asyncio.open_unix_connection(endpoint.path, limit=_LINE_MOST)
            reader, writer = await asyncio.open_connection(endpoint.host, endpoint.port, ssl=endpoint.tls, limit=_LINE_MOST)
        # The stream of events may say nothing for hours; the other end may be gone without a word.
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        return reader, writer

    async def create_connection(self, protocol: asyncio.BaseProtocol) -> asyncio.Transport:
        """Open a connection that belongs to a protocol. Raises OSError."""
        loop, endpoint = asyncio.get_running_loop(), self.endpoint
        async with asyncio.timeout(_CONNECT_SECONDS):
            if endpoint.path:
                transport, _ = await loop.create_unix_connection(lambda: protocol, endpoint.path)
            else:
                transport, _ = await loop.create_connection(lambda: protocol, endpoint.host, endpoint.port, ssl=endpoint.tls)
        return transport

    @asynccontextmanager
    async def stream(
        self, method: str, where: str, *, body: Body = None, headers: Mapping[str, str] | None = None
    ) -> AsyncIterator[Response]:
        """Send a request and give the answer before its body has come.

        Raises:
            HttpError: Status 400 or more.
            OSError: The engine can't be reached, or the connection broke.
        """
        connection, response = await self._exchange(method, where, body, dict(headers or {}))
        try:
            if response.status >= 400:
                raise HttpError(response.status, message_of(await response.read()), where)
            yield response
        finally:
            if response.complete and response.keeps and not self._closed and len(self._idle) < _IDLE_MOST:
                connection.used = True
                self._idle.append(connection)
            else:
                connection.close()

    async def _exchange(self, method: str, where: str, body: Body, headers: dict[str, str]) -> tuple[_Connection, Response]:
        if isinstance(body, bytes):
            headers["Content-Length"] = str(len(body))
        elif body is not None:
            headers["Transfer-Encoding"] = "chunked"
        elif method in ("POST", "PUT"):
            headers["Content-Length"] = "0"
        head = request_head(method, where, headers)
        while True:
            connection = await self._take()
            try:
                await self._send(connection, head, body)
                return connection, await connection.receive(method)
            except BaseException as error:
                connection.close()
                # One that was idle may have been closed by the other end just then.
                if not (isinstance(error, ConnectionError) and connection.used and method in _AGAIN):
                    raise

    async def _send(self, connection: _Connection, head: bytes, body: Body) -> None:
        try:
            await connection.send(head, body)
        except ConnectionError:
            # An engine that refuses what is being sent answers and closes before it has read all.
            if body is None or isinstance(body, bytes):
                raise

    async def _take(self) -> _Connection:
        while self._idle:
            connection = self._idle.pop()
            if not connection.stale:
                return connection
            connection.close()
        return _Connection(*await self.connect())
