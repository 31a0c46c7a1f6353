"""What the docker backend is measured against: the engine's own API, spoken without blocking and with connections kept open."""

from __future__ import annotations

import asyncio
import json
import tarfile
from collections.abc import Iterator
from typing import Any, NamedTuple

__all__ = ("EngineApi",)

_BLOCK, _PIECE = 512, 1 << 20
_ZEROS = bytes(2 * _BLOCK)


class _Connection(NamedTuple):
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter


class EngineApi:
    """A lean client of one engine behind a Unix socket: commands and archives, nothing else."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._idle: list[_Connection] = []

    async def exec(self, container: str, argv: tuple[str, ...]) -> tuple[int, bytes]:
        """Run a command as the engine wants it: create, start, read to the end, and ask how it ended."""
        order = {"Cmd": argv, "AttachStdout": True, "AttachStderr": True}
        created = await self._json("POST", f"/containers/{container}/exec", order)
        output = await self._start(created["Id"])
        ended = await self._json("GET", f"/exec/{created['Id']}/json")
        return int(ended["ExitCode"]), output

    async def put(self, container: str, folder: str, name: str, data: bytes) -> None:
        """Write one file by ``put_archive``."""
        header = tarfile.TarInfo(name)
        header.size = len(data)
        pieces = [header.tobuf(), data, _padding(len(data)), _ZEROS]
        head = f"Content-Type: application/x-tar\r\nContent-Length: {sum(map(len, pieces))}\r\n"
        connection = await self._connect()
        await self._send(connection, f"PUT /containers/{container}/archive?path={folder}", head, *pieces)
        await self._answer(connection)

    async def get(self, container: str, path: str) -> bytes:
        """Read one file by ``get_archive``."""
        connection = await self._connect()
        await self._send(connection, f"GET /containers/{container}/archive?path={path}", "")
        archive = memoryview(await self._answer(connection))
        size = tarfile.TarInfo.frombuf(bytes(archive[:_BLOCK]), "utf-8", "strict").size
        return bytes(archive[_BLOCK : _BLOCK + size])

    async def inspect(self, container: str) -> Any:
        """Ask for all about a container."""
        return await self._json("GET", f"/containers/{container}/json")

    async def aclose(self) -> None:
        """Close the connections that nobody uses."""
        for connection in self._idle:
            connection.writer.close()
        await asyncio.gather(*(connection.writer.wait_closed() for connection in self._idle), return_exceptions=True)
        self._idle.clear()

    async def _start(self, exec_id: str) -> bytes:
        connection = await self._connect()
        body = b'{"Detach":false,"Tty":false}'
        head = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n"
        await self._send(connection, f"POST /exec/{exec_id}/start", head, body)
        await connection.reader.readuntil(b"\r\n\r\n")
        output = bytearray()
        while header := await connection.reader.read(8):
            header += await connection.reader.readexactly(8 - len(header))
            output += await connection.reader.readexactly(int.from_bytes(header[4:], "big"))
        connection.writer.close()
        return bytes(output)

    async def _json(self, method: str, where: str, order: Any = None) -> Any:
        body = b"" if order is None else json.dumps(order).encode()
        head = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n" if body else ""
        connection = await self._connect()
        await self._send(connection, f"{method} {where}", head, body)
        return json.loads(await self._answer(connection))

    async def _connect(self) -> _Connection:
        if self._idle:
            return self._idle.pop()
        return _Connection(*await asyncio.open_unix_connection(self._path, limit=4 * _PIECE))

    async def _send(self, connection: _Connection, line: str, head: str, *body: bytes) -> None:
        connection.writer.write(f"{line} HTTP/1.1\r\nHost: docker\r\n{head}\r\n".encode())
        for part in body:
            for piece in _pieces(part):
                connection.writer.write(piece)
                await connection.writer.drain()

    async def _answer(self, connection: _Connection) -> bytes:
        """Read a whole answer and keep the connection for the next one."""
        reader = connection.reader
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        if "transfer-encoding: chunked" in head:
            body = await _chunks(reader)
        else:
            body = (
                await reader.readexactly(int(head.partition("content-length:")[2].split()[0]))
                if "content-length:" in head
                else b""
            )
        if not 200 <= int(head.split()[1]) < 300:
            raise RuntimeError(f"the engine said {head.split()[1]}: {body[:200].decode(errors='replace')}")
        self._idle.append(connection)
        return body


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    body = bytearray()
    while size := int(await reader.readline(), 16):
        body += await reader.readexactly(size)
        await reader.readline()
    await reader.readline()
    return bytes(body)


def _pieces(data: bytes) -> Iterator[memoryview]:
    view = memoryview(data)
    for start in range(0, len(view), _PIECE):
        yield view[start : start + _PIECE]


def _padding(size: int) -> bytes:
    return bytes(-size % _BLOCK)
