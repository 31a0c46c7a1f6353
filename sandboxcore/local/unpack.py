"""Unpack an image into a directory: ``python -m sandboxcore.local.unpack IMAGE TARGET FIRST_ID``.

A program of its own because it locks itself into the new tree (chroot) before it writes: no link and no name in a layer can
lead out of it. It runs as real root, adding FIRST_ID to all ids, or as the root of a user namespace.
"""

from __future__ import annotations

import contextlib
import fcntl
import gzip
import hashlib
import json
import os
import shutil
import sys
import tarfile
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO, TYPE_CHECKING, cast

from ._image import ImageFormatError, open_image

if TYPE_CHECKING:
    from ._image import Image

_BLOCK = 1 << 20
_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"
_XATTR = "SCHILY.xattr."


def main(argv: list[str]) -> int:
    """Unpack; the target appears whole or not at all."""
    source, target, first_id = Path(argv[0]), Path(argv[1]), int(argv[2])
    sweep(target.parent)
    work = Path(tempfile.mkdtemp(prefix=".unpack-", dir=target.parent))
    lock = os.open(work, os.O_RDONLY | os.O_DIRECTORY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        with open_image(source) as image:
            (work / "config.json").write_text(json.dumps(image.config))
            tree = work / "tree"
            tree.mkdir(mode=0o755)
            os.chown(tree, first_id, first_id)
            _in_child(lambda: _unpack_all(image, tree, first_id))
        with contextlib.suppress(FileExistsError, OSError):
            work.rename(target)
        if not target.is_dir():
            raise ImageFormatError("the unpacked tree could not be put in its place")
    except (ImageFormatError, tarfile.TarError, OSError, zlib.error, EOFError) as error:
        sys.stderr.write(f"unpack: {error}\n")
        return 1
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return 0


def sweep(folder: Path) -> None:
    """Remove what unpackings left that were killed; those at work hold a lock."""
    for path in folder.glob(".unpack-*"):
        with contextlib.suppress(OSError):
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path, ignore_errors=True)
            finally:
                os.close(fd)


def _in_child(work: Callable[[], None]) -> None:
    """Do the locked-in part in a fork, so that this process can still remove and rename."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            work()
            status = 0
        except BaseException as error:
            sys.stderr.write(f"unpack: {error}\n")
        finally:
            os._exit(status)
    if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) != 0:
        raise ImageFormatError("a layer could not be unpacked")


def _unpack_all(image: Image, tree: Path, first_id: int) -> None:
    files = [image.store.open(name) for name in image.layers]
    os.umask(0)
    os.chroot(tree)
    os.chdir("/")
    for file, expected in zip(files, image.diff_ids, strict=True):
        Layer(file, first_id).unpack(expected)


class _Hashed:
    """A stream that is hashed while it is read."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.digest = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self.digest.update(data)
        return data


class Layer:
    """One layer, unpacked over those below it; see layer.md of the OCI image specification."""

    def __init__(self, file: IO[bytes], first_id: int) -> None:
        self._stream = _Hashed(_decompressed(file))
        self._first_id = first_id
        self._made: set[Path] = set()
        self._times: list[tuple[Path, float]] = []

    def unpack(self, expected: str) -> None:
        """Unpack everything.

        Raises:
            ImageFormatError: It is not the layer that the image's configuration names.
        """
        with tarfile.open(fileobj=cast("IO[bytes]", self._stream), mode="r|", errorlevel=2) as archive:
            for member in archive:
                self._member(archive, member)
        while self._stream.read(_BLOCK):
            pass
        for path, modified in reversed(self._times):
            with contextlib.suppress(OSError):
                os.utime(path, (modified, modified), follow_symlinks=False)
        found = f"sha256:{self._stream.digest.hexdigest()}"
        if found != expected:
            raise ImageFormatError(f"a layer is damaged: it has digest {found}, and {expected} was promised")

    def _member(self, archive: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        path = _absolute(member.name)
        if path.name.startswith(_WHITEOUT):
            self._whiteout(path.parent, path.name)
            return
        self._parents(path.parent)
        self._made.add(path)
        if member.isdir():
            _directory(path)
        else:
            _remove(path)
            self._other(archive, member, path)
        if not member.islnk() and not (member.isdev() and not member.isfifo()):
            self._finish(member, path)

    def _parents(self, folder: Path) -> None:
        missing = [parent for parent in (folder, *folder.parents) if not parent.is_dir()]
        for path in reversed(missing):
            _remove(path)
            path.mkdir(0o755)
            self._own(path, 0, 0)

    def _other(self, archive: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> None:
        if member.issym():
            path.symlink_to(member.linkname)
        elif member.islnk():
            os.link(_absolute(member.linkname), path, follow_symlinks=False)
        elif member.isfifo():
            os.mkfifo(path)
        elif member.isfile():
            source = archive.extractfile(member)
            with path.open("xb") as file:
                shutil.copyfileobj(cast("IO[bytes]", source), file, _BLOCK)
        # Devices come from the sandbox's own /dev; here they could not be made, or would be dangerous.

    def _finish(self, member: tarfile.TarInfo, path: Path) -> None:
        self._own(path, member.uid, member.gid)
        if not member.issym():
            path.chmod(member.mode & 0o7777)
            for name, value in member.pax_headers.items():
                if name.startswith(_XATTR):
                    with contextlib.suppress(OSError):
                        os.setxattr(path, name.removeprefix(_XATTR), value.encode("utf-8", "surrogateescape"))
        self._times.append((path, member.mtime))

    def _own(self, path: Path, uid: int, gid: int) -> None:
        try:
            os.chown(path, self._first_id + uid, self._first_id + gid, follow_symlinks=False)
        except OSError:
            # With a single id there is nobody else; real root can give a file to anybody.
            if self._first_id:
                raise

    def _whiteout(self, folder: Path, name: str) -> None:
        if name != _OPAQUE:
            _remove(folder / name.removeprefix(_WHITEOUT))
            return
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            # Only what lower layers brought is hidden, wherever the mark is in this one.
            for path in [path for path in folder.iterdir() if path not in self._made]:
                _remove(path)


def _absolute(name: str) -> Path:
    return Path("/", os.path.normpath(f"/{name}").lstrip("/"))


def _directory(path: Path) -> None:
    if path.is_symlink() or not path.is_dir():
        _remove(path)
        path.mkdir()


def _remove(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _decompressed(file: IO[bytes]) -> IO[bytes]:
    magic = file.read(4)
    file.seek(0)
    if magic[:2] == b"\x1f\x8b":
        return cast("IO[bytes]", gzip.GzipFile(fileobj=file))
    if magic == b"\x28\xb5\x2f\xfd":
        raise ImageFormatError("a layer is compressed with zstd, which is not supported; save the image with gzip")
    return file


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
