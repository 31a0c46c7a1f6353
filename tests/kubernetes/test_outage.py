"""An API server that goes away for a while, seen from a client: connections break, then are refused, then are taken again."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from sandboxcore_kubernetes import Cluster, ClusterConfig, PodChannel

from sandboxcore.guest import Guest
from sandboxcore.values import ExecRequest

from .conftest import pod, running


class _Forwarder:
    """A TCP forwarder that can be switched off."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self.port = 0

    async def on(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def off(self) -> None:
        assert self._server is not None
        self._server.close()
        for writer in tuple(self._writers):
            writer.transport.abort()
        await asyncio.sleep(0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(*self._target)
        self._writers |= {writer, back}
        await asyncio.gather(self._pump(reader, back), self._pump(there, writer))
        self._writers -= {writer, back}

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()


def _through(path: Path, kubeconfig: Path, port: int) -> tuple[str, str, int]:
    import yaml

    document: dict[str, Any] = yaml.safe_load(kubeconfig.read_text())
    place = document["clusters"][0]["cluster"]
    real = urlsplit(place["server"])
    place |= {"server": f"https://127.0.0.1:{port}", "tls-server-name": "kubernetes"}
    path.write_text(yaml.safe_dump(document))
    return str(path), str(real.hostname), real.port or 443


async def test_an_outage_loses_nothing(kubeconfig: Path, namespace: str, tmp_path: Path) -> None:
    """A command goes on and its output is complete; the watch and requests come back by themselves."""
    _, host, port = _through(tmp_path / "k", kubeconfig, 1)
    forwarder = _Forwarder(host, port)
    await forwarder.on()
    path, *_ = _through(tmp_path / "k", kubeconfig, forwarder.port)
    async with await Cluster.connect(ClusterConfig(kubeconfig=path, namespace=namespace)) as cluster, cluster.pods() as watch:
        await running(cluster, pod("outage"))
        guest = Guest(PodChannel(cluster, namespace=namespace, pod="outage"))
        line = (
            "echo begin; while [ ! -e /tmp/go ]; do usleep 20000; done; i=0; while [ $i -lt 2000 ]; do echo $i; i=$((i+1)); done"
        )
        command = asyncio.create_task(guest.executor.exec(ExecRequest(argv=["sh", "-c", line])))
        await guest.files.write_file("/tmp/there", b"")
        await forwarder.off()
        request = asyncio.create_task(cluster.list("ConfigMap"))
        late = asyncio.create_task(guest.files.write_file("/tmp/go", b""))
        await asyncio.sleep(1.5)
        assert not command.done()
        await forwarder.on()
        await asyncio.wait_for(late, 90)
        done = await asyncio.wait_for(command, 90)
        assert done.exit_code == 0
        assert done.stdout == b"begin\n" + b"".join(b"%d\n" % number for number in range(2000))
        assert (await asyncio.wait_for(request, 90))["items"]
        await cluster.create(pod("after-outage"))
        await watch.wait_for(lambda watch: watch.get("after-outage"), 90)
        await guest.aclose()
    await forwarder.off()
