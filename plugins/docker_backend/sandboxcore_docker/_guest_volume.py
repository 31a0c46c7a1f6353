"""The guest on an engine: one volume an engine and version, which every container mounts read-only.

It is filled through the archive call on a container that is never started, so the engine may be anywhere and the image may
hold nothing at all. It stays, as an image does: the next session finds it filled.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Mapping
from typing import Any

from sandboxcore.errors import ProvisionError
from sandboxcore.guest import guest_binary

from ._container import GUEST_FOLDER
from ._engine import Engine
from ._files import program_archive
from ._http import HttpError
from ._labels import label

__all__ = ("GuestVolume",)

_MACHINES = ("x86_64", "aarch64")
#: Seconds after which a container that fills the volume is taken to be left over from a process that died.
_FILLING = 20.0
_log = logging.getLogger("sandboxcore")


class GuestVolume:
    """Sees to it that the volume is there, once a session."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._programs = {f"guest-{machine}": guest_binary(machine).read_bytes() for machine in _MACHINES}
        digest = hashlib.sha256(b"".join(self._programs.values())).hexdigest()[:12]
        self.name = f"sandboxcore-guest-{digest}"
        self._lock = asyncio.Lock()
        self._filled = False

    async def ensure(self, image: str, labels: Mapping[str, str]) -> str:
        """Return the volume's name when it holds the guest.

        Args:
            image: Any image that the engine has; a container of it is made for a moment, not started.
            labels: Of the environment that needs it, so that what a killed process leaves is found.
        """
        async with self._lock:
            if not self._filled:
                await self._fill(image, labels)
                self._filled = True
        return self.name

    async def _fill(self, image: str, labels: Mapping[str, str]) -> None:
        """The container's name is the lock between processes: there can be only one of it."""
        await self._engine.change("POST", "/volumes/create", json_body={"Name": self.name, "Labels": {label("role"): "guest"}})
        container = await self._claim(image, labels)
        try:
            if not await self._is_filled(container):
                _log.debug("putting the guest into volume %s", self.name)
                query = {"path": GUEST_FOLDER}
                headers = {"Content-Type": "application/x-tar"}
                body = program_archive(self._programs)
                await self._engine.change("PUT", f"/containers/{container}/archive", query=query, body=body, headers=headers)
        finally:
            await asyncio.shield(self._remove(container))

    async def _claim(self, image: str, labels: Mapping[str, str]) -> str:
        name = f"{self.name}-filling"
        mount = {"Type": "volume", "Source": self.name, "Target": GUEST_FOLDER, "VolumeOptions": {"NoCopy": True}}
        host = {"Mounts": [mount], "NetworkMode": "none"}
        body = {
            "Image": image,
            "Entrypoint": ["/"],
            "Cmd": [],
            "Labels": {**labels, label("role"): "filling"},
            "HostConfig": host,
        }
        waited = 0.0
        while True:
            try:
                made: dict[str, Any] = await self._engine.change(
                    "POST", "/containers/create", query={"name": name}, json_body=body
                )
            except HttpError as error:
                if error.status != 409:
                    raise
            else:
                return str(made["Id"])
            if waited > _FILLING:
                await self._remove(name)
                waited = 0.0
            # There is no event that would be worth a stream for this: it happens once an engine and version.
            await asyncio.sleep(0.1)
            waited += 0.1

    async def _is_filled(self, container: str) -> bool:
        """Whether both programs are there, whole; the answer's header has the size (``X-Docker-Container-Path-Stat``)."""
        import base64
        import json

        for name, program in self._programs.items():
            try:
                query = {"path": f"{GUEST_FOLDER}/{name}"}
                async with self._engine.open("HEAD", f"/containers/{container}/archive", query=query) as response:
                    stat = json.loads(base64.b64decode(response.headers["x-docker-container-path-stat"]))
            except HttpError as error:
                if error.status == 404:
                    return False
                raise ProvisionError(f"the guest's volume {self.name} can't be looked into: {error.message}") from error
            if stat["size"] != len(program):
                return False
        return True

    async def _remove(self, container: str) -> None:
        query = {"force": True, "v": True}
        await self._engine.attempt(self._engine.call("DELETE", f"/containers/{container}", query=query), fine=(404, 409))
