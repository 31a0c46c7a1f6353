"""Copies between two trees of this machine: everything but the sandbox."""

from __future__ import annotations

import os
import stat
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from pathlib import Path

import pytest

from sandboxcore.cli._copy import copy, plan
from sandboxcore.cli._local_tree import LocalTree
from sandboxcore.cli._sandbox_tree import SandboxTree
from sandboxcore.cli._trees import Entry
from sandboxcore.errors import SandboxError
from sandboxcore.values import FileInfo


async def copied(source: LocalTree, target: LocalTree) -> int:
    """Copy all of a tree and return the bytes that were counted."""
    counted: list[int] = []
    root = await source.look()
    assert root is not None
    await copy(await plan(source, root), source, target, counted.append)
    return sum(counted)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


async def test_a_tree_arrives_whole(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "sub" / "empty").mkdir(parents=True)
    (source / "program").write_bytes(b"\x7fELF\x00\xff\r\n")
    (source / "program").chmod(0o751)
    (source / "sub" / "large").write_bytes(os.urandom(3_000_000))
    (source / "sub" / "name with \n newline").write_bytes(b"")
    (source / "link").symlink_to("sub/large")
    (source / "dangling").symlink_to("/nowhere/at all")
    (source / "sub" / "empty").chmod(0o555)
    target = tmp_path / "target"

    assert await copied(LocalTree(str(source)), LocalTree(str(target))) == 3_000_008

    assert (target / "program").read_bytes() == b"\x7fELF\x00\xff\r\n"
    assert mode(target / "program") == 0o751
    assert (target / "sub" / "large").read_bytes() == (source / "sub" / "large").read_bytes()
    assert (target / "sub" / "name with \n newline").read_bytes() == b""
    assert (target / "link").readlink() == Path("sub/large")
    assert (target / "dangling").readlink() == Path("/nowhere/at all")
    assert mode(target / "sub" / "empty") == 0o555
    assert sorted(path.name for path in target.iterdir()) == ["dangling", "link", "program", "sub"]


async def test_setuid_bits_do_not_arrive(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"")
    (tmp_path / "a").chmod(0o6755)
    await copied(LocalTree(str(tmp_path / "a")), LocalTree(str(tmp_path / "b")))
    assert mode(tmp_path / "b") == 0o755


async def test_what_is_no_file_is_skipped_and_named(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    os.mkfifo(tmp_path / "d" / "fifo")
    (tmp_path / "d" / "file").write_bytes(b"x")
    tree = LocalTree(str(tmp_path / "d"))
    root = await tree.look()
    assert root is not None
    found = await plan(tree, root)
    assert [entry.path for entry in found.skipped] == ["fifo"]
    assert [entry.path for entry in found.files] == ["file"]


async def test_a_copy_overwrites_files_and_keeps_others(tmp_path: Path) -> None:
    for name, files in {"a": {"x": b"new", "y": b"y"}, "b": {"x": b"old", "z": b"z"}}.items():
        (tmp_path / name).mkdir()
        for file, content in files.items():
            (tmp_path / name / file).write_bytes(content)
    await copied(LocalTree(str(tmp_path / "a")), LocalTree(str(tmp_path / "b")))
    assert {path.name: path.read_bytes() for path in (tmp_path / "b").iterdir()} == {"x": b"new", "y": b"y", "z": b"z"}


async def test_a_link_at_the_target_is_replaced_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").write_bytes(b"precious")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x").write_bytes(b"evil")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "x").symlink_to(tmp_path / "precious")
    await copied(LocalTree(str(tmp_path / "a")), LocalTree(str(tmp_path / "b")))
    assert (tmp_path / "precious").read_bytes() == b"precious"
    assert (tmp_path / "b" / "x").read_bytes() == b"evil"


async def test_a_link_in_place_of_a_directory_does_not_lead_out(tmp_path: Path) -> None:
    """A first copy may have brought the link, the second one the directory of the same name."""
    (tmp_path / "precious").mkdir()
    (tmp_path / "a" / "x").mkdir(parents=True)
    (tmp_path / "a" / "x" / "file").write_bytes(b"evil")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "x").symlink_to(tmp_path / "precious")
    with pytest.raises(SandboxError, match="b/x: Not a directory"):
        await copied(LocalTree(str(tmp_path / "a")), LocalTree(str(tmp_path / "b")))
    assert list((tmp_path / "precious").iterdir()) == []


async def test_a_tree_that_lies_can_not_write_through_its_own_link(tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "b").mkdir()

    class Liar(LocalTree):
        async def names(self, path: str) -> Sequence[Entry]:
            return [
                Entry(path="x", kind="symlink", mode=0o777, target=str(tmp_path / "precious")),
                Entry(path="x/file", kind="file", mode=0o644, size_bytes=1),
            ]

        async def read(self, path: str) -> AsyncGenerator[bytes, None]:
            yield b"evil"

    target = LocalTree(str(tmp_path / "b"))
    await target.make_link("x", str(tmp_path / "precious"))
    with pytest.raises(SandboxError, match=r"b/x/file"):
        await copied(Liar(str(tmp_path)), target)
    assert list((tmp_path / "precious").iterdir()) == []


@pytest.mark.parametrize("name", ["..", ".", "", "a/b", "../../etc/x", "a\0b", "twice"])
async def test_a_sandbox_that_lists_impossible_names_is_not_believed(tmp_path: Path, name: str) -> None:
    """No guest says so; one that was taken over might."""

    class Lying:
        async def list_dir(self, path: str) -> list[FileInfo]:
            info = {"path": path, "type": "file", "size_bytes": 1, "mode": 0o644, "uid": 0, "gid": 0, "modified": 0.0}
            return [FileInfo(name="twice", **info), FileInfo(name=name, **info)]  # type: ignore[arg-type]

    tree = SandboxTree(Lying(), "/x")  # type: ignore[arg-type]
    with pytest.raises(SandboxError, match="listed a name that no file there can have"):
        await copy(await plan(tree, Entry(path="", kind="directory", mode=0o755)), tree, LocalTree(str(tmp_path / "out")), print)
    assert not (tmp_path / "out").exists()


async def test_a_file_that_breaks_off_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"old")

    async def blocks() -> AsyncIterator[bytes]:
        yield b"half"
        raise RuntimeError("the link broke")

    with pytest.raises(RuntimeError):
        await LocalTree(str(tmp_path / "x")).write("", blocks(), 0o600)
    assert (tmp_path / "x").read_bytes() == b"old"
    assert [entry.path for entry in await LocalTree(str(tmp_path)).names("")] == ["x"]


async def test_the_first_failure_is_reported_as_itself(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for number in range(20):
        (tmp_path / "a" / f"{number}").write_bytes(b"x")
    (tmp_path / "b").write_bytes(b"")
    with pytest.raises(SandboxError, match="b: Not a directory"):
        await copied(LocalTree(str(tmp_path / "a")), LocalTree(str(tmp_path / "b")))


async def test_missing_and_forbidden_files_are_told_in_one_line(tmp_path: Path) -> None:
    assert await LocalTree(str(tmp_path / "none")).look() is None
    with pytest.raises(SandboxError, match=r"none/x: No such file or directory"):
        await LocalTree(str(tmp_path / "none" / "x")).make_directory("", 0o755)
