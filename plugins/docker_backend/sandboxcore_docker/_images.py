"""Have the images of an environment on the engine: there already, loaded from an archive, or pulled."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from sandboxcore.errors import ProvisionError

from ._container import ImageFacts
from ._errors import explain
from ._http import HttpError

if TYPE_CHECKING:
    from ._engine import Engine

__all__ = ("Images", "Wanted", "read_image", "split_reference")

Policy = Literal["always", "missing", "never"]
Tell = Callable[[str, dict[str, Any]], None]

_MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}
_TELL_EVERY = 0.5
_PIECE = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """An image that a service is made of. ``archive`` is a file that ``docker save`` made."""

    reference: str
    policy: Policy
    platform: str | None = None
    archive: Path | None = None


class Images:
    """Fetches each image once a session, however many services wait for it; what it says is asked each time, as tags move."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._fetched: set[Wanted] = set()
        self._locks: dict[str, asyncio.Lock] = {}

    async def have(self, wanted: Wanted, tell: Tell, *, service: str) -> ImageFacts:
        """Return what an image says when the engine has it.

        Args:
            tell: Called with the rest of an event's name and its attributes while the image is being fetched.

        Raises:
            ProvisionError: The engine can't get it.
        """
        async with self._locks.setdefault(wanted.reference, asyncio.Lock()):
            found = await self.inspect(wanted.reference)
            if found is None or (wanted.policy == "always" and wanted not in self._fetched):
                found = await self._fetch(wanted, found, tell, service)
                self._fetched.add(wanted)
        return found

    async def _fetch(self, wanted: Wanted, found: ImageFacts | None, tell: Tell, service: str) -> ImageFacts:
        if found is None and wanted.archive is not None:
            await self._load(wanted, tell, service)
            found = await self.inspect(wanted.reference)
            if found is None:
                raise ProvisionError(
                    f"service {service!r}: {wanted.archive} holds no image {wanted.reference!r}", service=service
                )
        elif wanted.policy != "never":
            await self._pull(wanted, tell, service)
            found = await self.inspect(wanted.reference)
        if found is None:
            raise ProvisionError(
                f"service {service!r}: image {wanted.reference!r} is not on the engine, and is not to be pulled",
                service=service,
                hint="pull it, or let pull_policy be 'missing'",
            )
        return found

    async def inspect(self, reference: str) -> ImageFacts | None:
        """Return what an image says; None if the engine does not have it."""
        try:
            found = await self._engine.attempt(self._engine.call("GET", f"/images/{reference}/json"))
        except HttpError as error:
            if error.status == 400:
                raise ProvisionError(f"image {reference!r}: {explain(error.message)[0]}") from error
            raise
        return None if found is None else read_image(reference, found)

    async def _load(self, wanted: Wanted, tell: Tell, service: str) -> None:
        assert wanted.archive is not None
        path = wanted.archive.expanduser()
        tell("image.load", {"image": wanted.reference, "archive": str(path)})
        headers = {"Content-Type": "application/x-tar"}
        try:
            async with self._engine.open(
                "POST", "/images/load", query={"quiet": True}, body=_read(path), headers=headers
            ) as answer:
                await _messages(answer.pieces(), lambda message: None)
        except HttpError as error:
            raise _failed(service, f"{path} can't be loaded", error.message) from error
        except _PullError as error:
            raise _failed(service, f"{path} can't be loaded", str(error)) from error

    async def _pull(self, wanted: Wanted, tell: Tell, service: str) -> None:
        name, tag = split_reference(wanted.reference)
        tell("image.pull", {"image": wanted.reference})
        query = {"fromImage": name, "tag": tag, "platform": wanted.platform}
        what = f"image {wanted.reference!r} can't be pulled"
        try:
            headers = await asyncio.to_thread(_login, name)
            progress = _Progress(wanted.reference, tell)
            async with self._engine.open("POST", "/images/create", query=query, headers=headers) as answer:
                await _messages(answer.pieces(), progress.take)
        except HttpError as error:
            raise _failed(service, what, error.message) from error
        except _PullError as error:
            raise _failed(service, what, str(error)) from error
        tell("image.pulled", {"image": wanted.reference})


class _PullError(Exception):
    """The engine's own words, in the midst of its answer."""


def _failed(service: str, what: str, message: str) -> ProvisionError:
    text, hint = explain(message)
    return ProvisionError(f"service {service!r}: {what}: {text}", service=service, hint=hint)


class _Progress:
    """Counts layers, and tells of it now and then."""

    def __init__(self, reference: str, tell: Tell) -> None:
        self._reference, self._tell = reference, tell
        self._layers: dict[str, str] = {}
        self._told = time.monotonic()

    def take(self, message: dict[str, Any]) -> None:
        layer, status = message.get("id"), str(message.get("status", ""))
        if layer and not status.startswith("Pulling from"):
            self._layers[str(layer)] = status
        if time.monotonic() - self._told > _TELL_EVERY:
            self._told = time.monotonic()
            done = sum(status in ("Pull complete", "Already exists") for status in self._layers.values())
            self._tell("image.progress", {"image": self._reference, "layers": len(self._layers), "layers_done": done})


async def _messages(pieces: AsyncIterator[bytes], take: Callable[[dict[str, Any]], None]) -> None:
    """Read a stream of JSON objects, a line each. Raises _PullError on one that says so."""
    rest = b""
    async for piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        for line in filter(None, map(bytes.strip, lines)):
            message = json.loads(line)
            if "error" in message:
                raise _PullError(str(message["error"]))
            take(message)


async def _read(path: Path) -> AsyncIterator[bytes]:
    with path.open("rb") as file:
        while data := await asyncio.to_thread(file.read, _PIECE):
            yield data


def split_reference(reference: str) -> tuple[str, str]:
    """Separate what is pulled from its tag or digest; no tag means ``latest``, and never all there are."""
    name, at, digest = reference.partition("@")
    if at:
        return name, digest
    head, colon, tag = reference.rpartition(":")
    return (head, tag) if colon and "/" not in tag else (reference, "latest")


def _login(name: str) -> dict[str, str]:
    """Look up who this user is for the image's registry, as the docker command does; may run a credential helper."""
    auth: Any = import_module("docker.auth")

    registry, _ = auth.resolve_repository_name(name)
    found = auth.load_config().resolve_authconfig(registry)
    return {"X-Registry-Auth": auth.encode_header(found).decode()} if found else {}


def read_image(reference: str, found: dict[str, Any]) -> ImageFacts:
    """Read the answer of ``GET /images/NAME/json``."""
    config = found.get("Config") or {}
    check = config.get("Healthcheck") or {}
    variables = (variable.partition("=") for variable in config.get("Env") or ())
    return ImageFacts(
        id=found["Id"],
        reference=reference,
        machine=_MACHINES.get(found.get("Architecture", ""), found.get("Architecture", "")),
        user=config.get("User") or "",
        entrypoint=tuple(config.get("Entrypoint") or ()),
        command=tuple(config.get("Cmd") or ()),
        env={name: value for name, _, value in variables},
        has_healthcheck=bool(check.get("Test")) and check["Test"][0] != "NONE",
    )
