"""A registry of one chart, over TLS: as much of the distribution protocol as a pull needs.

Source: https://github.com/opencontainers/distribution-spec/blob/v1.1.0/spec.md and
https://helm.sh/docs/topics/registries/ (the media types of a chart).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

from tests.certificates import self_signed

__all__ = ("registry_of",)

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.cncf.helm.config.v1+json"
LAYER = "application/vnd.cncf.helm.chart.content.v1.tar+gzip"


@contextmanager
def registry_of(archive: Path, name: str, version: str) -> Iterator[tuple[str, Path]]:
    """Serve a packaged chart; gives its reference (``oci://...``) and the certificate to trust."""
    blobs: dict[str, bytes] = {}

    def describe(kind: str, data: bytes) -> dict[str, Any]:
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        blobs[digest] = data
        return {"mediaType": kind, "digest": digest, "size": len(data)}

    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": describe(CONFIG, json.dumps({"name": name, "version": version, "apiVersion": "v2"}).encode()),
        "layers": [describe(LAYER, archive.read_bytes())],
    }
    described = describe(MANIFEST, json.dumps(manifest).encode())
    base = f"/v2/charts/{name}"
    answers = {
        "/v2/": ("application/json", b"{}"),
        f"{base}/tags/list": ("application/json", json.dumps({"name": f"charts/{name}", "tags": [version]}).encode()),
        f"{base}/manifests/{version}": (MANIFEST, blobs[described["digest"]]),
        f"{base}/manifests/{described['digest']}": (MANIFEST, blobs[described["digest"]]),
        **{f"{base}/blobs/{digest}": ("application/octet-stream", data) for digest, data in blobs.items()},
    }

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            kind, data = answers.get(self.path.partition("?")[0], ("", b""))
            self.send_response(200 if kind else 404)
            if kind:
                self.send_header("Content-Type", kind)
                self.send_header("Docker-Content-Digest", f"sha256:{hashlib.sha256(data).hexdigest()}")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(data)

        do_HEAD = do_GET

        def handle(self) -> None:
            with contextlib.suppress(OSError):  # a client that does not trust us hangs up
                super().handle()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    certificate, key = self_signed(archive.parent, "registry")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"oci://127.0.0.1:{server.server_port}/charts/{name}", certificate
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
