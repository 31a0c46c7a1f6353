"""What stands between a client and opensandbox-server: an entrance that ends TLS and has a path of its own, and a proxy."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from tests.certificates import self_signed

__all__ = ("certificate", "entrance", "proxy")

#: Method and target of a request to the target to pass on (empty: a tunnel) and the address to pass it to.
Rewrite = Callable[[str, str], tuple[str, str, int]]


def certificate(folder: Path, name: str) -> tuple[Path, ssl.SSLContext]:
    """Make an authority that has signed itself, for this machine: its file, and what a server needs."""
    cert, key = self_signed(folder, name)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(cert, key)
    return cert, context


@contextlib.asynccontextmanager
async def entrance(port: int, prefix: str, context: ssl.SSLContext, seen: list[str]) -> AsyncIterator[int]:
    """Listen with TLS, as an Ingress does, for a server at another port, which never hears of the prefix; gives the port."""

    def rewrite(method: str, target: str) -> tuple[str, str, int]:
        seen.append(f"{method} {target}")
        return target.removeprefix(prefix) if target.startswith(prefix) else "/nowhere", "127.0.0.1", port

    async with _listening(rewrite, context) as listening:
        yield listening


@contextlib.asynccontextmanager
async def proxy(seen: list[str]) -> AsyncIterator[int]:
    """Listen as an HTTP proxy does: for tunnels, and for requests that name their server; gives the port."""

    def rewrite(method: str, target: str) -> tuple[str, str, int]:
        seen.append(f"{method} {target}")
        if method == "CONNECT":
            host, _, port = target.rpartition(":")
            return "", host, int(port)
        url = urlsplit(target)
        assert url.hostname is not None, target
        return urlunsplit(("", "", url.path, url.query, "")), url.hostname, url.port or 80

    async with _listening(rewrite, None) as listening:
        yield listening


@contextlib.asynccontextmanager
async def _listening(rewrite: Rewrite, context: ssl.SSLContext | None) -> AsyncIterator[int]:
    tasks: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await _carry(reader, writer, rewrite)
        finally:
            tasks.discard(task)
            writer.transport.abort()

    server = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks)


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, rewrite: Rewrite) -> None:
    """Pass one request on, and all that comes after it both ways: a connection has one, so that each is looked at."""
    head = await reader.readuntil(b"\r\n\r\n")
    line, *fields = head.decode("latin-1").split("\r\n")
    method, target, version = line.split(" ")
    target, host, port = rewrite(method, target)
    far_reader, far_writer = await asyncio.open_connection(host, port)
    try:
        if target:
            upgrade = any(field.lower().startswith("upgrade:") for field in fields)
            kept = [field for field in fields if upgrade or not field.lower().startswith("connection:")]
            kept = kept if upgrade else ["Connection: close", *kept]
            far_writer.write("\r\n".join((f"{method} {target} {version}", *kept)).encode("latin-1"))
        else:
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        ways = [asyncio.create_task(_pump(reader, far_writer)), asyncio.create_task(_pump(far_reader, writer))]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
        with contextlib.suppress(OSError):
            await asyncio.wait_for(writer.drain(), 5.0)
            writer.close()
            await asyncio.wait_for(writer.wait_closed(), 5.0)
    finally:
        far_writer.transport.abort()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(1 << 18):
        writer.write(data)
        await writer.drain()
