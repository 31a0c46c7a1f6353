"""opensandbox-server from PyPI as a process of this machine, for the test cluster."""

from __future__ import annotations

import contextlib
import random
import secrets
import socket
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.opensandbox.kit import IMAGES, server_program

_CONFIG = """\
[server]
host = "{host}"
port = {port}
api_key = "{key}"
eip = "{eip}"

[runtime]
type = "kubernetes"
execd_image = "{execd}"

[kubernetes]
kubeconfig_path = "{kubeconfig}"
namespace = "{namespace}"
workload_provider = "batchsandbox"
image_pull_policy = "IfNotPresent"
batchsandbox_template_file = "{folder}/template.yaml"
sandbox_create_timeout_seconds = {patience}

[store]
type = "sqlite"
path = "{folder}/server.db"

[ingress]
mode = "direct"
"""
#: Merged by the server into every BatchSandbox that it makes from an image.
_TEMPLATE = "spec: {template: {spec: {terminationGracePeriodSeconds: 0}}}\n"


@dataclass
class Server:
    """A running server."""

    port: int
    key: str
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def domain(self) -> str:
        """Give its host and port."""
        return f"127.0.0.1:{self.port}"

    def kill(self) -> None:
        """End it at once."""
        self.process.kill()
        self.process.wait()


@contextlib.contextmanager
def serving(
    namespace: str, *, host: str = "127.0.0.1", port: int = 0, key: str = "", patience: int = 60, eip: str = ""
) -> Iterator[Server]:
    """Start the server, wait until it answers, and end it with the block. Its sandboxes are in ``namespace``, which exists.

    Args:
        host: Address that it listens on; it is asked at 127.0.0.1.
        patience: Seconds that the server waits for a sandbox to become ready.
        eip: Where clients reach the server, if not as they say themselves.
    """
    from tests.cluster import kubeconfig

    program, key, port = server_program(), key or secrets.token_hex(16), port or free_port()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "template.yaml").write_text(_TEMPLATE)
        settings = {"host": host, "port": port, "key": key, "eip": eip, "execd": IMAGES["execd"], "namespace": namespace}
        text = _CONFIG.format(**settings, kubeconfig=kubeconfig(), folder=folder, patience=patience)
        (folder / "server.toml").write_text(text)
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [program, "--config", folder / "server.toml"], stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=folder
            )
        server = Server(port, key, process, folder / "log")
        try:
            _until_it_answers(server)
            yield server
        finally:
            server.process.terminate()
            try:
                server.process.wait(10)
            except subprocess.TimeoutExpired:
                server.kill()


def _until_it_answers(server: Server) -> None:
    deadline = time.monotonic() + 90
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    while True:
        with contextlib.suppress(OSError), opener.open(f"http://{server.domain}/health", timeout=5) as answer:
            if answer.status == 200:
                return
        if server.process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"opensandbox-server did not start: {server.log.read_text()[-1000:]}")
        time.sleep(0.1)


def free_port() -> int:
    """Find a port that nobody listens at, and that the kernel gives nobody who asks for any."""
    while True:
        port = random.randint(20000, 32000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
