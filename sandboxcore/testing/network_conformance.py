"""Networks: siblings, the way out, and ports (CAP-1 and 2)."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import pytest

from sandboxcore.errors import CapabilityError
from sandboxcore.spec import EnvironmentSpec

from ._conformance import Conformance, needs, sh
from .target import changed

if TYPE_CHECKING:
    from sandboxcore.environment import Sandbox
    from sandboxcore.session import Session

__all__ = ("NetworkConformance",)

SECOND = "conformance-second"
PORT = 7001
#: Exit status of the scripts where the sandbox has none of the programs that could do it.
NO_PROGRAM = 44

_LISTEN = f"""
import socket
with socket.create_server(("", {PORT})) as server:
    print("listening", flush=True)
    while True:
        client, _ = server.accept()
        client.sendall(b"answer")
        client.close()
"""
LISTEN = f"""
if command -v python3 > /dev/null; then exec python3 -c "$1"; fi
command -v nc > /dev/null || exit {NO_PROGRAM}
echo listening
while :; do printf answer | nc -l -p {PORT}; done
"""
_CONNECT = """
import socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2])), 3) as client:
    sys.stdout.write(client.recv(6).decode())
"""
CONNECT = f"""
if command -v python3 > /dev/null; then exec python3 -c "$3" "$1" "$2"; fi
command -v nc > /dev/null || exit {NO_PROGRAM}
sleep 1 | nc -w 3 "$1" "$2"
"""


class NetworkConformance(Conformance):
    """Who reaches whom. The only machine beyond the sandboxes that is ever tried is the one that the tests run on."""

    @needs("multi_service", "siblings")
    async def test_siblings_reach_each_other_by_name(self, session: Session, base_spec: EnvironmentSpec) -> None:
        """CAP-1."""
        async with session.environment(_two(base_spec)) as environment, _listening(environment[SECOND]):
            assert await _answer(environment.default, SECOND, PORT) == b"answer"

    @needs("multi_service", "siblings")
    async def test_a_service_without_a_network_reaches_nobody(self, session: Session, base_spec: EnvironmentSpec) -> None:
        """CAP-2: neither by name nor by address, unless the backend refuses such a spec."""
        try:
            environment = await session.provision(_two(changed(base_spec, networks=None)))
        except CapabilityError:
            pytest.skip("the backend refuses it")
        async with _destroyed(environment), _listening(environment[SECOND]):
            found = (await environment[SECOND].exec(["hostname", "-i"])).text().split()
            for name in (SECOND, *[address for address in found if not address.startswith("127.")]):
                assert await _try(environment.default, name, PORT) == b""

    @needs("ports")
    async def test_a_port_is_reached_from_here(self, sandbox: Sandbox) -> None:
        """CAP-1."""
        async with _listening(sandbox), sandbox.port_forward(PORT) as (host, port):
            for _ in range(3):
                assert await _answer_here(host, port) == b"answer"

    async def test_the_way_out_is_closed_where_nothing_is_said(self, sandbox: Sandbox, capabilities: frozenset[str]) -> None:
        """CAP-2: a backend that can open the way out keeps it shut until the spec says so."""
        if not {"internet", "network_policy"} & capabilities:
            pytest.skip("the backend is not capable of: internet")
        async with _server_of_this_machine() as (address, port):
            assert await _try(sandbox, address, port) == b""


def _two(spec: EnvironmentSpec) -> EnvironmentSpec:
    like = spec.services[spec.default_service].model_copy(update={"networks": {"default": ()}})
    return spec.model_copy(update={"services": {**spec.services, SECOND: like}})


@asynccontextmanager
async def _destroyed(environment: object) -> AsyncIterator[None]:
    try:
        yield
    finally:
        await environment.destroy()  # type: ignore[attr-defined]


@asynccontextmanager
async def _listening(sandbox: Sandbox) -> AsyncIterator[None]:
    """Have something in the sandbox that answers on the port."""
    async with sandbox.start(sh(LISTEN, _LISTEN)) as process:
        said = await anext(process.output(), None)
        if said is None and (await process.wait()).exit_code == NO_PROGRAM:
            pytest.skip("the sandbox has no program that could listen")
        assert said is not None
        assert said.data == b"listening\n", said.data
        yield


async def _answer(sandbox: Sandbox, host: str, port: int) -> bytes:
    """Try until there is an answer: names and addresses of a new service may take a moment to get about."""
    while True:
        if answer := await _try(sandbox, host, port):
            return answer
        await asyncio.sleep(0.2)


async def _answer_here(host: str, port: int) -> bytes:
    """Connect from this machine; again while it only ends, since netcat takes one client and is started anew for the next."""
    for _ in range(100):
        reader, writer = await asyncio.open_connection(host, port)
        answer = b""
        with suppress(ConnectionError):
            answer = await reader.read(6)
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
        if answer:
            return answer
        await asyncio.sleep(0.1)
    return b""


async def _try(sandbox: Sandbox, host: str, port: int) -> bytes:
    result = await sandbox.exec(sh(CONNECT, host, str(port), _CONNECT), timeout=30)
    if result.exit_code == NO_PROGRAM:
        pytest.skip("the sandbox has no program that could connect")
    return result.stdout


@asynccontextmanager
async def _server_of_this_machine() -> AsyncIterator[tuple[str, int]]:
    """Listen where a sandbox that is let out could come."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        asked.connect(("192.0.2.1", 9))  # sends nothing; it only says which address this machine would use
        address = asked.getsockname()[0]

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"answer")
        writer.close()

    async with await asyncio.start_server(greet, address, 0) as server:
        yield address, server.sockets[0].getsockname()[1]
