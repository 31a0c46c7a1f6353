"""Build images with the engine (``POST /build``), for services that say how and have none."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import re
from collections.abc import AsyncIterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from sandboxcore.abc import ImageResolver
from sandboxcore.errors import ProvisionError, SandboxUnavailableError

from ._engine import Engine
from ._errors import explain
from ._http import HttpError
from ._labels import label

if TYPE_CHECKING:
    from sandboxcore.spec import BuildSpec

    from ._config import DockerConfig

__all__ = ("EngineBuilder",)

_PIECE = 1 << 20
_LAST_LINES = 20
_KNOWN = frozenset({"no_cache", "pull", "labels", "network", "shm_size", "extra_hosts", "cache_from", "tags"})
_log = logging.getLogger("sandboxcore.docker.build")


class EngineBuilder(ImageResolver):
    """Builds each image once: its tag is a digest of all that goes into it, and an image with that tag is taken as it is."""

    def __init__(self, config: DockerConfig) -> None:
        self._config = config
        self._engine = Engine(config)

    async def aclose(self) -> None:
        """Close the connections. Idempotent."""
        await self._engine.aclose()

    async def resolve(self, project: str, service: str, build: BuildSpec) -> str | None:
        """Return the tag of the image when the engine has it.

        Raises:
            ProvisionError: It could not be built; the message ends with the last lines of the build.
        """
        unknown = sorted(set(build.extra) - _KNOWN)
        if unknown:
            _log.warning(
                "service %r: build keys that the engine's builder does not know are left out: %s", service, ", ".join(unknown)
            )
        try:
            context = await asyncio.to_thread(_pack, service, build)
        except OSError as error:
            raise ProvisionError(f"service {service!r} can't be built: {error}", service=service) from error
        with context.file:
            return await self._once(_tag(project, service, context.digest), service, build, context)

    async def _once(self, tag: str, service: str, build: BuildSpec, context: _Context) -> str:
        """Let equal builds of one session wait for the first."""
        lock = self._config._builds.setdefault(tag, asyncio.Lock())
        async with lock:
            try:
                known = await self._engine.attempt(self._engine.call("GET", f"/images/{tag}/json"))
                if known is None or _flag(build.extra.get("no_cache")):
                    await self._build(tag, service, build, context)
            except HttpError as error:
                raise _failed(service, error.message, []) from error
            except SandboxUnavailableError as error:
                raise ProvisionError(error.message, service=service, hint=error.hint) from error
        return tag

    async def _build(self, tag: str, service: str, build: BuildSpec, context: _Context) -> None:
        _log.info("building %s for service %r", tag, service)
        query = {
            "t": tag,
            "dockerfile": context.dockerfile,
            "buildargs": {name: value for name, value in build.args.items() if value is not None} or None,
            "target": build.target,
            "platform": build.platforms[0] if len(build.platforms) == 1 else None,
            "nocache": _flag(build.extra.get("no_cache")) or None,
            "pull": _flag(build.extra.get("pull")) or None,
            "networkmode": build.extra.get("network"),
            "labels": {label("role"): "build", **_labels(build.extra.get("labels"))},
            "rm": True,
            "forcerm": True,
        }
        headers = {"Content-Type": "application/x-tar", **await asyncio.to_thread(_logins)}
        lines: list[str] = []
        async with self._engine.open("POST", "/build", query=query, body=_read(context.file), headers=headers) as answer:
            rest = b""
            async for piece in answer.pieces():
                *whole, rest = (rest + piece).split(b"\n")
                for line in filter(None, map(bytes.strip, whole)):
                    _take(json.loads(line), lines, service)


class _Context:
    """A packed context: an open file, the name of the Dockerfile in it, and a digest of all that decides the image."""

    def __init__(self, file: IO[bytes], dockerfile: str, digest: str) -> None:
        self.file, self.dockerfile, self.digest = file, dockerfile, digest


def _take(message: Mapping[str, Any], lines: list[str], service: str) -> None:
    if "error" in message:
        raise _failed(service, str(message["error"]), lines)
    text = str(message.get("stream") or message.get("status") or "").rstrip()
    if text:
        lines.extend(text.splitlines())
        del lines[:-_LAST_LINES]
        _log.info("%s: %s", service, text)


def _failed(service: str, message: str, lines: list[str]) -> ProvisionError:
    text, hint = explain(message)
    tail = "; the build's last lines:\n" + "\n".join(lines) if lines else ""
    return ProvisionError(f"service {service!r} can't be built: {text}{tail}", service=service, hint=hint)


def _pack(service: str, build: BuildSpec) -> _Context:
    """Pack the context as the docker command does; the Dockerfile may lie elsewhere or be given inline."""
    packing: Any = import_module("docker.utils.build")

    root = Path(build.context)
    if not root.is_dir():
        raise ProvisionError(f"service {service!r} can't be built: context {build.context!r} is no folder", service=service)
    dockerfile, content = _dockerfile(service, root, build)
    ignore = next((path for path in (root / f"{dockerfile}.dockerignore", root / ".dockerignore") if path.is_file()), None)
    patterns = ignore.read_text().splitlines() if ignore is not None else []
    patterns = [line.strip() for line in patterns if line.strip() and not line.startswith("#")]
    extra = [(dockerfile, content)] if content is not None else []
    names = sorted(packing.exclude_paths(str(root), patterns, dockerfile=None if extra else dockerfile))
    file: IO[bytes] = packing.create_archive(root=str(root), files=names, extra_files=extra)
    what = {"dockerfile": dockerfile, "args": build.args, "target": build.target, "platforms": build.platforms}
    digest = hashlib.sha256(json.dumps(what, sort_keys=True).encode())
    digest.update((content or "").encode())
    for name in names:
        _digest(root, name, digest)
    file.seek(0)
    return _Context(file, dockerfile, digest.hexdigest()[:16])


def _dockerfile(service: str, root: Path, build: BuildSpec) -> tuple[str, str | None]:
    """Return its name in the context, and its content where it is not one of the context's files."""
    if build.dockerfile_inline is not None:
        return ".sandboxcore.Dockerfile", build.dockerfile_inline
    path = root / (build.dockerfile or "Dockerfile")
    if not path.is_file():
        raise ProvisionError(f"service {service!r} can't be built: there is no {path}", service=service)
    if path.resolve().is_relative_to(root.resolve()):
        return str(path.resolve().relative_to(root.resolve())), None
    return ".sandboxcore.Dockerfile", path.read_text()


def _digest(root: Path, name: str, digest: Any) -> None:
    """Take name, mode and content of a file into a digest; times are left out, or every checkout would be another image."""
    path = root / name
    if path.is_symlink():
        digest.update(f"\0{name}\0link\0{path.readlink()}".encode())
    elif path.is_file():
        digest.update(f"\0{name}\0{path.stat().st_mode & 0o777:o}\0".encode())
        with path.open("rb") as file:
            while data := file.read(_PIECE):
                digest.update(data)
    else:
        digest.update(f"\0{name}/".encode())


def _tag(project: str, service: str, digest: str) -> str:
    words = (re.sub(r"[^a-z0-9]+", "-", word.lower()).strip("-") for word in (project, service))
    return f"sandboxcore-build/{'-'.join(word for word in words if word) or 'image'}:{digest}"


async def _read(file: IO[bytes]) -> AsyncIterator[bytes]:
    file.seek(0)
    while data := await asyncio.to_thread(file.read, _PIECE):
        yield data


def _logins() -> dict[str, str]:
    """Write the logins of all registries, as base images may come from any."""
    import base64

    auth: Any = import_module("docker.auth")
    found = auth.load_config().get_all_credentials()
    return {"X-Registry-Config": base64.urlsafe_b64encode(json.dumps(found).encode()).decode()} if found else {}


def _labels(given: Any) -> dict[str, str]:
    if isinstance(given, Mapping):
        return {str(name): str(value) for name, value in given.items()}
    pairs = (str(line).partition("=") for line in given or ())
    return {name: value for name, _, value in pairs}


def _flag(value: Any) -> bool:
    return value is True or str(value).lower() in ("true", "1")
