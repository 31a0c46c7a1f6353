"""The images of a cluster: what it needs itself, and those of the tests."""

from __future__ import annotations

from pathlib import Path

from tests.images import NAMES, archive
from tests.images._archive import add_program, write_image, write_layer
from tests.images._cache import kept

from ._layout import Layout
from ._tools import ctr

COREDNS = "sandboxcore.test/coredns:1"


def own_images(binaries: Path) -> list[Path]:
    """Make the archives of the pods' pause image and of CoreDNS; kept if they are there."""
    program = binaries / "coredns"

    def make(work: Path) -> Path:
        layer = write_layer(work, lambda tar: add_program(tar, "app", program))
        return write_image(work, COREDNS, {"Entrypoint": ["/app"]}, layer)

    return [archive("pause"), kept(f"coredns-{program.stat().st_mtime_ns}.tar", make)]


def images_of_tests() -> list[Path]:
    """Make the archives of the images that tests name."""
    return [archive(name) for name in NAMES if name != "pause"]


def load(layout: Layout, path: Path) -> None:
    """Load an archive of images (`docker save`, or OCI) into the node; no-op if this very file was loaded."""
    stamp = layout.root / "run" / f"loaded-{path.name}"
    state = f"{path.resolve()} {path.stat().st_mtime_ns}"
    if stamp.exists() and stamp.read_text() == state:
        return
    ctr(layout, "images", "import", str(path.resolve()))
    stamp.write_text(state)
