"""Which engine: the same answer that the docker command gives."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from sandboxcore.errors import UsageError

if TYPE_CHECKING:
    from ._config import DockerConfig

__all__ = ("Endpoint", "find_endpoint")

_DEFAULT = "unix:///var/run/docker.sock"
_LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """Where an engine listens.

    Args:
        url: As the docker command writes it.
        path: Of its socket; empty for TCP.
        source: What said so, for messages.
    """

    url: str
    path: str = ""
    host: str = ""
    port: int = 0
    tls: ssl.SSLContext | None = None
    source: str = ""

    @property
    def is_local(self) -> bool:
        """Whether paths of this machine mean the same to the engine."""
        return bool(self.path) or self.host in _LOCAL_NAMES


def find_endpoint(config: DockerConfig) -> Endpoint:
    """Decide by the configuration, then by what the docker command would use.

    Raises:
        UsageError: It is no address that can be used, or there is no such context.
    """
    environ = os.environ
    if config.host and config.context:
        raise UsageError("config: host and context: give one of them")
    if config.host:
        return _parse(config.host, _certificates(config.cert_path), "config host")
    if config.context:
        return _of_context(config.context, "config context")
    if url := environ.get("DOCKER_HOST"):
        return _parse(url, _certificates(config.cert_path), "$DOCKER_HOST")
    if name := environ.get("DOCKER_CONTEXT") or _current_context():
        return _of_context(name, f"context {name!r}")
    return _parse(_DEFAULT, None, "default")


def _certificates(folder: Path | None) -> dict[str, Any] | None:
    """Name the files for TLS, or None for none."""
    if folder is None and os.environ.get("DOCKER_TLS_VERIFY"):
        folder = Path(os.environ.get("DOCKER_CERT_PATH") or Path.home() / ".docker")
    if folder is None:
        return None
    return {name: folder / f"{name}.pem" for name in ("ca", "cert", "key")}


def _folder() -> Path:
    return Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker")


def _current_context() -> str:
    try:
        name = json.loads((_folder() / "config.json").read_text()).get("currentContext", "")
    except (OSError, ValueError, AttributeError):
        return ""
    return "" if name == "default" else str(name)


def _of_context(name: str, source: str) -> Endpoint:
    """Read a context from where the docker command keeps it: in folders named by the digest of its name."""
    if name == "default":
        return _parse(_DEFAULT, None, source)
    contexts, digest = _folder() / "contexts", hashlib.sha256(name.encode()).hexdigest()
    try:
        host = str(json.loads((contexts / "meta" / digest / "meta.json").read_text())["Endpoints"]["docker"]["Host"])
    except (OSError, ValueError, KeyError, TypeError):
        known = ", ".join(sorted(_contexts(contexts))) or "none"
        raise UsageError(f"{source}: there is no docker context {name!r}; there are {known}", hint="docker context ls") from None
    folder = contexts / "tls" / digest / "docker"
    files = {name: folder / f"{name}.pem" for name in ("ca", "cert", "key") if (folder / f"{name}.pem").is_file()}
    return _parse(host, files or None, source)


def _contexts(folder: Path) -> Iterator[str]:
    for path in folder.glob("meta/*/meta.json"):
        with contextlib.suppress(OSError, ValueError, KeyError):
            yield str(json.loads(path.read_text())["Name"])


def _parse(url: str, certificates: dict[str, Any] | None, source: str) -> Endpoint:
    parts = urlsplit(url)
    if parts.scheme == "unix" and parts.path:
        return Endpoint(url=url, path=parts.path, source=source)
    if parts.scheme in ("tcp", "http", "https") and parts.hostname:
        wants_tls = certificates is not None or parts.scheme == "https"
        tls = _tls(certificates or {}, source) if wants_tls else None
        port = parts.port or (2376 if wants_tls else 2375)
        return Endpoint(url=url, host=parts.hostname, port=port, tls=tls, source=source)
    if parts.scheme == "ssh":
        hint = "forward the socket and name it: ssh -nNT -L /tmp/docker.sock:/var/run/docker.sock HOST, unix:///tmp/docker.sock"
        raise UsageError(f"{source}: an engine can't be reached over ssh:// here", hint=hint)
    raise UsageError(f"{source}: {url!r} is no address of an engine", hint="use unix:///path/to/docker.sock or tcp://host:port")


def _tls(files: dict[str, Any], source: str) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=_text(files.get("ca")))
        if files.get("cert"):
            context.load_cert_chain(str(files["cert"]), _text(files.get("key")))
    except (OSError, ssl.SSLError) as error:
        where = getattr(error, "filename", None) or files.get("ca") or "the certificates"
        raise UsageError(f"{source}: TLS: {where} can't be used: {error}") from error
    return context


def _text(path: object) -> str | None:
    return None if path is None else str(path)
