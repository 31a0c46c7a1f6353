"""The engine over TCP with TLS: a proxy of this process in front of the real one."""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import pytest_asyncio

from sandboxcore import Session
from sandboxcore.errors import SandboxUnavailableError
from tests.certificates import self_signed

from .conftest import Leftovers, one, several

pytestmark = pytest.mark.timeout(400)


def certificates(folder: Path) -> None:
    """Make a certificate that is its own authority, for both ends."""
    cert, key = self_signed(folder, "cert", host="DNS:localhost")
    key.rename(folder / "key.pem")
    (folder / "ca.pem").write_bytes(cert.read_bytes())


async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError, ssl.SSLError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


@pytest_asyncio.fixture
async def far(host: str, tmp_path: Path) -> AsyncIterator[tuple[str, Path, list[asyncio.StreamWriter]]]:
    """Serve the engine on TCP; gives its address, the folder of certificates, and the connections."""
    parts = urlsplit(host)
    if parts.scheme != "unix":
        pytest.skip("the engine is no socket of this machine")
    certificates(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(tmp_path / "ca.pem"))
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    open_ones: list[asyncio.StreamWriter] = []
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_unix_connection(parts.path)
        open_ones.append(writer)
        await asyncio.gather(copy(reader, inner_writer), copy(inner_reader, writer))

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(serve(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=context)
    yield f"tcp://localhost:{server.sockets[0].getsockname()[1]}", tmp_path, open_ones
    server.close()
    for task in set(tasks):
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for writer in open_ones:
        writer.transport.abort()


async def test_everything_works_over_tls(far: tuple[str, Path, list[asyncio.StreamWriter]], leftovers: Leftovers) -> None:
    url, folder, _ = far
    check = {"test": ["CMD", "true"], "interval": 0.2}
    async with Session("docker", config={"host": url, "cert_path": str(folder)}) as session:
        async with session.environment(
            several(default={"files": {"/etc/x": {"content": b"x"}}, "healthcheck": check})
        ) as environment:
            data = os.urandom(3_000_000)
            await environment.default.write_file("/tmp/big", data)
            assert await environment.default.read_file("/tmp/big") == data
            assert (await environment.default.exec(["cat"], stdin=b"in")).stdout == b"in"
            assert (await environment.default.exec(["cat", "/etc/x"])).stdout == b"x"
        assert await leftovers(session.run_id) == []


async def test_connections_that_break_are_made_again(far: tuple[str, Path, list[asyncio.StreamWriter]]) -> None:
    """The stream of events and the guest's: a command goes on, and a death is still heard of."""
    url, folder, connections = far
    command = ["/bin/sh", "-c", "until [ -e /tmp/end ]; do sleep 0.1; done; exit 9"]
    async with (
        Session("docker", config={"host": url, "cert_path": str(folder)}) as session,
        session.environment(one(command=command)) as environment,
    ):
        task = asyncio.ensure_future(environment.default.exec(["/bin/sh", "-c", "echo begun; sleep 1; echo done"]))
        await environment.default.exec(["true"])
        for connection in connections:
            connection.transport.abort()
        assert (await asyncio.wait_for(task, 60)).stdout == b"begun\ndone\n"
        running = asyncio.ensure_future(environment.default.exec(["/bin/sleep", "300"]))
        with contextlib.suppress(SandboxUnavailableError):  # the end that it brings about may come before its own
            await environment.default.write_file("/tmp/end", b"")
        with pytest.raises(SandboxUnavailableError, match="exit code 9"):
            await asyncio.wait_for(running, 90)


async def test_a_wrong_certificate_is_told(
    far: tuple[str, Path, list[asyncio.StreamWriter]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    url, _, _ = far
    other = tmp_path_factory.mktemp("other")
    certificates(other)
    async with Session("docker", config={"host": url, "cert_path": str(other)}) as session:
        with pytest.raises(SandboxUnavailableError, match="TLS failed") as caught:
            await session.find()
        assert "certificates" in (caught.value.hint or "")
