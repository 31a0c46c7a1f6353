"""Load the test images into an engine."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from tests.engine._client import connected
from tests.images import archive, reference

if TYPE_CHECKING:
    import docker


def load_images(host: str, names: Iterable[str]) -> None:
    """Load those that the engine has not got yet, or has in another version."""
    with connected(host) as client:
        for name in names:
            path = archive(name)
            if not _has(client, reference(name), path):
                with path.open("rb") as file:
                    client.images.load(file)


def _has(client: docker.DockerClient, name: str, path: Path) -> bool:
    import docker

    try:
        return str(client.images.get(name).id) == f"sha256:{_config_digest(path)}"
    except docker.errors.ImageNotFound:
        return False


def _config_digest(path: Path) -> str:
    """Read the digest of an image's configuration, which Docker's own store takes as the image's id."""
    with tarfile.open(path) as tar:
        manifest = tar.extractfile("manifest.json")
        assert manifest is not None
        return str(json.load(manifest)[0]["Config"]).removesuffix(".json")
