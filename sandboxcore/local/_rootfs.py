"""Unpacked images, kept by what is in them, so that each is unpacked once."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ProvisionError, SpecError
from ._explain import explain
from ._image import ImageFormatError, open_image
from ._launch import run
from ._plan import Tree
from ._programs import launcher_binary
from ._tree import ImageConfig

if TYPE_CHECKING:
    from ._ids import IdMapping

__all__ = ("RootfsCache",)


class RootfsCache:
    """Turns what a user names as a rootfs into a directory that can be mounted."""

    def __init__(self, folder: Path, mapping: IdMapping) -> None:
        self._folder = folder
        self._mapping = mapping
        self._loading: dict[Path, asyncio.Future[Tree]] = {}
        self._known: dict[tuple[Path, int, int, int], tuple[str, Mapping[str, Any]]] = {}

    async def aclose(self) -> None:
        """Stop what is being unpacked; the next one sweeps up what is left of it."""
        for loading in [*self._loading.values()]:
            loading.cancel()
            await asyncio.gather(loading, return_exceptions=True)

    async def load(self, path: Path) -> Tree:
        """Return the file tree; several that ask for the same one wait for one unpacking.

        Raises:
            SpecError: It is neither a directory nor an image archive.
            ProvisionError: It could not be unpacked. Nothing is left of it.
        """
        loading = self._loading.get(path)
        if loading is None:
            loading = self._loading[path] = asyncio.ensure_future(self._load(path))
            loading.add_done_callback(lambda _: self._loading.pop(path, None))
        return await asyncio.shield(loading)

    async def _load(self, path: Path) -> Tree:
        if _is_tree(path):
            return Tree(path=path, plain_ids=True)
        try:
            key, document = await self._look_into(path)
        except (ImageFormatError, OSError) as error:
            raise SpecError(f"rootfs {str(path)!r}: {error}") from None
        target = self._folder / f"{key}-{self._mapping.kind}"
        if not _is_there(target):
            await self._unpack(path, target)
        return Tree(path=target / "tree", image=ImageConfig.from_oci(document))

    async def _look_into(self, path: Path) -> tuple[str, Mapping[str, Any]]:
        """Read which image it is, again only when the file has changed: a compressed archive has to be read to its end."""
        info = _stat(path)
        known = (path, info.st_ino, info.st_size, info.st_mtime_ns)
        if known not in self._known:
            self._known[known] = await asyncio.to_thread(_key_and_config, path)
        return self._known[known]

    async def _unpack(self, path: Path, target: Path) -> None:
        """Unpack in a process of its own, which locks itself into the new tree; the last step gives it its name."""
        root_id = self._mapping.root_id
        unpack = [sys.executable, "-P", "-m", f"{__package__}.unpack", str(path), str(target), str(root_id or 0)]
        prefix = [] if root_id is not None else [str(launcher_binary()), "map", *self._mapping.arguments(), "--"]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        done = await run([*prefix, *unpack], env=environment)
        if done.status != 0 and not _is_there(target):
            message, hint = explain(done.stderr)
            raise ProvisionError(f"rootfs {str(path)!r} could not be unpacked: {message}", hint=hint)


def _key_and_config(path: Path) -> tuple[str, Mapping[str, Any]]:
    with open_image(path) as image:
        return image.key, image.config


def _stat(path: Path) -> os.stat_result:
    return (path / "index.json" if path.is_dir() else path).stat()


def _is_tree(path: Path) -> bool:
    return path.is_dir() and not (path / "oci-layout").is_file()


def _is_there(target: Path) -> bool:
    return target.is_dir()
