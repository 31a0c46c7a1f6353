"""Ways to opensandbox-server: TLS with an authority of one's own, a path of its own behind an entrance, and a proxy."""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from sandboxcore_opensandbox._config import OpenSandboxConfig
from sandboxcore_opensandbox._server_connection import ServerConnection

from sandboxcore import Session
from sandboxcore.environment import Sandbox
from sandboxcore.errors import SandboxUnavailableError, UsageError
from tests.opensandbox import places
from tests.opensandbox.serving import free_port, serving
from tests.opensandbox.ways import certificate, entrance, proxy

ONE = {"services": {"default": {"image": places.DEBIAN}}}
PREFIX = "/opensandbox"


@dataclass(kw_only=True)
class Entered:
    """The real server behind an entrance that ends TLS and takes a prefix away, and what was asked for there."""

    config: Mapping[str, Any]
    plain: str
    seen: list[str]


@pytest_asyncio.fixture
async def entered(tmp_path: Path) -> AsyncIterator[Entered]:
    """Start the server so that it and its sandboxes are reached through the entrance."""
    ca, context = certificate(tmp_path, "right")
    seen: list[str] = []
    port = free_port()
    async with entrance(port, PREFIX, context, seen) as listening:
        domain = f"127.0.0.1:{listening}{PREFIX}"
        with contextlib.ExitStack() as stack:
            where = await asyncio.to_thread(places.namespace)
            running = await asyncio.to_thread(stack.enter_context, serving(where, port=port, eip=f"{domain}/v1"))
            server = {"mode": "server", "api_key": running.key, "use_server_proxy": True}
            config = {**server, "domain": domain, "protocol": "https", "ca_file": str(ca)}
            yield Entered(config=config, plain=running.domain, seen=seen)


async def works(box: Sandbox) -> None:
    data = os.urandom(600 * 1024)
    await box.write_file("/tmp/data", data)
    assert await box.read_file("/tmp/data") == data
    assert (await box.exec(["cat"], stdin=b"\x00in")).stdout == b"\x00in"


async def test_tls_a_path_of_its_own_and_a_proxy(entered: Entered, tmp_path: Path) -> None:
    async with Session("opensandbox", config=dict(entered.config)) as maker, maker.environment(ONE) as environment:
        await works(environment.default)
        assert {finding.status for finding in await maker.doctor()} == {"ok"}
        assert any("/ws?pty=0" in request for request in entered.seen)
        assert all(request.split(" ")[1].startswith(f"{PREFIX}/") for request in entered.seen)
        tunnels: list[str] = []
        async with proxy(tunnels) as listening:
            config = {**entered.config, "proxy": f"http://127.0.0.1:{listening}"}
            before = len(entered.seen)
            async with Session("opensandbox", config=config) as other:
                [found] = await other.find(run_id=maker.run_id)
                await works(found.default)
                assert {finding.status for finding in await other.doctor()} == {"ok"}
            assert set(tunnels) == {f"CONNECT {entered.config['domain'].removesuffix(PREFIX)}"}
            assert len(tunnels) >= len(entered.seen) - before, "nothing went past the proxy"
    wrong, _ = certificate(tmp_path, "wrong")
    for ca in (str(wrong), None):
        async with Session("opensandbox", config={**entered.config, "ca_file": ca}) as session:
            with pytest.raises(SandboxUnavailableError) as caught:
                await session.find()
            assert "ca_file" in (caught.value.hint or "")
            [finding] = [finding for finding in await session.doctor() if finding.status != "ok"]
            assert (finding.check, "ca_file" in finding.fix) == ("server", True)


@pytest.mark.tier("none")
@pytest.mark.parametrize("content", [None, "no certificate"])
async def test_a_file_without_certificates_is_told(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_text(content)
    config = {"mode": "server", "domain": "127.0.0.1:1", "protocol": "https", "ca_file": str(path), "api_key": "k"}
    async with Session("opensandbox", config=config) as session:
        with pytest.raises(UsageError, match=str(path)):
            await session.find()


@pytest.mark.tier("none")
def test_certificates_of_ones_own_come_besides_those_of_the_system(tmp_path: Path) -> None:
    ca, _ = certificate(tmp_path, "mine")
    ours = ServerConnection(OpenSandboxConfig(mode="server", ca_file=str(ca)))._verify
    assert isinstance(ours, ssl.SSLContext)
    assert (ours.verify_mode, ours.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert len(ours.get_ca_certs()) == len(ssl.create_default_context().get_ca_certs()) + 1
