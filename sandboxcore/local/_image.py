"""Image archives and layouts: which layers, and what the image says about itself.

Formats: ``docker save`` (manifest.json) and the OCI image layout (oci-layout, index.json, blobs), as a directory or a
tar file, which may be compressed. See the OCI image specification, image-layout.md.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import platform
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

__all__ = ("Image", "ImageFormatError", "open_image")

_MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}
_INDEXES = ("application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json")


class ImageFormatError(Exception):
    """It is not an image that can be read."""


class _Store:
    """Where the blobs are: a directory or a tar file."""

    def __init__(self, path: Path, archive: tarfile.TarFile | None) -> None:
        self._path, self._archive = path, archive

    def open(self, name: str) -> IO[bytes]:
        """Open a member.

        Raises:
            KeyError: There is none of that name.
        """
        parts = PurePosixPath(name).parts
        if ".." in parts or name.startswith("/"):
            raise ImageFormatError(f"member {name!r} leads out of the image")
        if self._archive is None:
            try:
                return (self._path / name).open("rb")
            except OSError:
                raise KeyError(name) from None
        for spelling in (name, f"./{name}"):
            with contextlib.suppress(KeyError):
                file = self._archive.extractfile(spelling)
                if file is not None:
                    return file
        raise KeyError(name)

    def document(self, name: str) -> Any:
        with self.open(name) as file:
            return json.loads(file.read(16 << 20))


@dataclass(frozen=True, kw_only=True)
class Image:
    """One image: its configuration document and where its layers are, the lowest first."""

    key: str
    config: Mapping[str, Any]
    layers: tuple[str, ...]
    store: _Store

    @property
    def diff_ids(self) -> tuple[str, ...]:
        """The digests of the layers, uncompressed."""
        found = (self.config.get("rootfs") or {}).get("diff_ids") or ()
        return tuple(found)


@contextlib.contextmanager
def open_image(path: Path) -> Iterator[Image]:
    """Open an image for reading.

    Raises:
        ImageFormatError: It is none, or has no image for this machine.
    """
    with contextlib.ExitStack() as stack:
        archive = None
        if not path.is_dir():
            try:
                archive = stack.enter_context(tarfile.open(path))
            except tarfile.TarError as error:
                raise ImageFormatError(f"not a directory, and not an archive that can be read ({error})") from None
        store = _Store(path, archive)
        try:
            yield _find(store)
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            raise ImageFormatError(f"not a whole image: {type(error).__name__} {error}") from None


def _find(store: _Store) -> Image:
    try:
        entries = store.document("manifest.json")
    except KeyError:
        return _from_layout(store)
    if len(entries) != 1:
        raise ImageFormatError(f"it holds {len(entries)} images; save one alone")
    return _image(store, entries[0]["Config"], tuple(entries[0]["Layers"]))


def _from_layout(store: _Store) -> Image:
    try:
        index = store.document("index.json")
    except KeyError:
        raise ImageFormatError("neither manifest.json nor index.json is in it, so it is no image") from None
    for _ in range(4):
        descriptor = _choose(index["manifests"])
        document = store.document(_blob(descriptor["digest"]))
        if descriptor.get("mediaType") not in _INDEXES:
            layers = tuple(_blob(layer["digest"]) for layer in document["layers"])
            return _image(store, _blob(document["config"]["digest"]), layers)
        index = document
    raise ImageFormatError("its indexes are nested too deeply")


def _choose(manifests: list[dict[str, Any]]) -> dict[str, Any]:
    wanted = _MACHINES.get(platform.machine(), platform.machine())
    fitting = [entry for entry in manifests if (entry.get("platform") or {}).get("architecture", wanted) == wanted]
    if not fitting:
        raise ImageFormatError(f"it holds no image for linux/{wanted}")
    return fitting[0]


def _blob(digest: str) -> str:
    kind, _, value = digest.partition(":")
    if not (kind.isalnum() and value.isalnum()):
        raise ImageFormatError(f"malformed digest {digest!r}")
    return f"blobs/{kind}/{value}"


def _image(store: _Store, config: str, layers: tuple[str, ...]) -> Image:
    with store.open(config) as file:
        content = file.read(16 << 20)
    document = json.loads(content)
    if len((document.get("rootfs") or {}).get("diff_ids") or ()) != len(layers):
        raise ImageFormatError("its configuration and its manifest differ in the number of layers")
    return Image(key=hashlib.sha256(content).hexdigest(), config=document, layers=layers, store=store)
