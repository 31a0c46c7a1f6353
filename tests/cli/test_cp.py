"""``cp`` on real sandboxes."""

from __future__ import annotations

import os
import signal
import stat
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from .conftest import CommandLine

pytestmark = pytest.mark.tier("local")

Exec = Callable[[Sequence[str]], bytes]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A directory with a bit of everything."""
    root = tmp_path / "tree"
    (root / "sub" / "closed").mkdir(parents=True)
    (root / "data").write_bytes(bytes(range(256)) * 5000)
    (root / "program").write_text("#!/bin/sh\necho it runs\n")
    (root / "program").chmod(0o750)
    (root / "sub" / "name with space").write_bytes(b"")
    (root / "sub" / "link").symlink_to("../data")
    (root / "dangling").symlink_to("nowhere")
    (root / "sub" / "closed").chmod(0o555)
    return root


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def test_a_tree_goes_in_and_comes_out_as_it_was(
    cli: CommandLine, environment: str, exec_in: Exec, tree: Path, tmp_path: Path
) -> None:
    counted = cli.json("cp", str(tree), f"{environment}:/tmp/new")
    assert counted == {"files": 3, "directories": 3, "links": 2, "bytes": 1280023, "skipped": []}
    assert exec_in(["/tmp/new/program"]) == b"it runs\n"
    assert exec_in(["readlink", "/tmp/new/sub/link", "/tmp/new/dangling"]) == b"../data\nnowhere\n"
    assert exec_in(["stat", "-c", "%a", "/tmp/new/program", "/tmp/new/sub/closed"]) == b"750\n555\n"

    cli.ok("cp", f"{environment}:default:/tmp/new/.", str(tmp_path / "back"))
    back = tmp_path / "back"
    assert (back / "data").read_bytes() == (tree / "data").read_bytes()
    assert (back / "sub" / "link").readlink() == Path("../data")
    assert (back / "dangling").readlink() == Path("nowhere")
    assert (mode(back / "program"), mode(back / "sub" / "closed")) == (0o750, 0o555)
    assert {path.name for path in back.iterdir()} == {path.name for path in tree.iterdir()}


def test_an_existing_directory_gets_it_below_and_a_dot_means_the_contents(
    cli: CommandLine, environment: str, exec_in: Exec, tree: Path
) -> None:
    exec_in(["mkdir", "/tmp/there", "/tmp/contents"])
    cli.ok("cp", str(tree), f"{environment}:/tmp/there")
    cli.ok("cp", f"{tree}/.", f"{environment}:/tmp/contents/")
    cli.ok("cp", str(tree / "data"), f"{environment}:/tmp/contents/sub")
    assert exec_in(["ls", "/tmp/there"]) == b"tree\n"
    assert exec_in(["ls", "/tmp/contents"]) == b"dangling\ndata\nprogram\nsub\n"
    assert b"data\n" in exec_in(["ls", "/tmp/contents/sub"])


def test_standard_input_and_output_are_files_too(cli: CommandLine, environment: str) -> None:
    data = os.urandom(2_000_000)
    cli.ok("cp", "-", f"{environment}:store:/tmp/deep/er/blob", stdin=data)
    assert cli.ok("cp", f"{environment}:store:/tmp/deep/er/blob", "-") == data


def test_an_interrupted_copy_leaves_no_half_of_a_file(cli: CommandLine, environment: str, exec_in: Exec) -> None:
    exec_in(["mkdir", "/tmp/interrupted"])
    with cli.start("cp", "-", f"{environment}:/tmp/interrupted/file") as process:
        assert process.stdin is not None
        process.stdin.write(bytes(3_000_000))
        process.stdin.flush()
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
    assert exec_in(["ls", "-A", "/tmp/interrupted"]) == b""


def test_sandboxes_copy_to_each_other(cli: CommandLine, environment: str, exec_in: Exec, tree: Path) -> None:
    cli.ok("cp", str(tree / "program"), f"{environment}:store:/tmp/program")
    cli.ok("cp", f"{environment}:store:/tmp/program", f"{environment}:default:/tmp/from-store")
    assert exec_in(["/tmp/from-store"]) == b"it runs\n"


def test_a_link_is_copied_as_a_link_unless_told_to_follow(
    cli: CommandLine, environment: str, exec_in: Exec, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "link").symlink_to("file")
    cli.ok("cp", str(tmp_path / "link"), f"{environment}:/tmp/as-link")
    cli.ok("cp", "-L", str(tmp_path / "link"), f"{environment}:/tmp/as-file")
    assert exec_in(["readlink", "/tmp/as-link"]) == b"file\n"
    assert exec_in(["cat", "/tmp/as-file"]) == b"content"


def test_relative_paths_start_at_the_working_directory(cli: CommandLine, environment: str, exec_in: Exec, tmp_path: Path) -> None:
    (tmp_path / "note").write_bytes(b"x")
    cli.ok("cp", str(tmp_path / "note"), f"{environment}:note")
    assert exec_in(["cat", "/work/note"]) == b"x"


@pytest.mark.parametrize(
    ("source", "target", "code", "message"),
    [
        ("{env}:/no/such", "{tmp}/x", 2, "no such file or directory"),
        ("{tmp}/none", "{env}:/tmp/x", 2, "none: no such file or directory"),
        ("{tmp}", "{env}:/etc/passwd", 2, "is a file"),
        ("{env}:/etc/passwd", "{tmp}/none/", 2, "no such directory"),
        ("{env}:/etc/passwd", "{tmp}/none/x", 1, "No such file or directory"),
        ("{env}:/etc", "-", 2, "is no file"),
        ("-", "{env}:/tmp", 2, "is a directory"),
        ("{env}:nosuch:/x", "{tmp}/x", 2, "no service is called 'nosuch'"),
        ("nosuchenv:/x", "{tmp}/x", 1, "no environment 'nosuchenv'"),
    ],
)
def test_what_can_not_be_copied_is_told_in_one_line(
    cli: CommandLine, environment: str, tmp_path: Path, source: str, target: str, code: int, message: str
) -> None:
    places = [text.format(env=environment, tmp=tmp_path) for text in (source, target)]
    result = cli("cp", *places)
    assert result.returncode == code, result.stderr
    assert message in result.stderr.decode().splitlines()[0]
    assert result.stdout == b""
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_file_is_skipped_with_a_warning(cli: CommandLine, environment: str, exec_in: Exec, tmp_path: Path) -> None:
    exec_in(["sh", "-c", "mkdir /tmp/odd && mkfifo /tmp/odd/pipe && echo x > /tmp/odd/file"])
    result = cli("cp", f"{environment}:/tmp/odd", str(tmp_path / "odd"))
    assert result.returncode == 0
    assert result.stderr == b"sandboxcore: warning: /tmp/odd/pipe: is neither a file, a directory nor a link, and was skipped\n"
    assert [path.name for path in (tmp_path / "odd").iterdir()] == ["file"]
