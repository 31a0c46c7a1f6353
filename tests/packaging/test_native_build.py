"""The build hook on small programs: what is stale, what is said when something is missing, and builds at the same time."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from .conftest import ROOT, run

SOURCE = '#include <stdio.h>\nint answer(void);\nint main(void) { return printf("%d\\n", answer()) < 0; }\n'
ANSWER = '#include "answer.h"\nint answer(void);\nint answer(void) { return ANSWER; }\n'

pytestmark = pytest.mark.timeout(600)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A source tree with a guest of two files and a header, and a launcher of one."""
    for folder in ("guest", "local"):
        (tmp_path / "sandboxcore" / folder).mkdir(parents=True)
    guest = tmp_path / "sandboxcore" / "guest"
    (guest / "main.c").write_text(SOURCE)
    (guest / "answer.c").write_text(ANSWER)
    (guest / "answer.h").write_text("#define ANSWER 42\n")
    (tmp_path / "sandboxcore" / "local" / "launcher.c").write_text("int main(void) { return 0; }\n")
    shutil.copy(ROOT / "hatch_build.py", tmp_path)
    return tmp_path


def build(python: Path, tree: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [python, "hatch_build.py", *arguments]
    return subprocess.run(command, cwd=tree, capture_output=True, text=True, timeout=300, check=False)


def binaries(tree: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(tree.glob("sandboxcore/*/bin/*")) if path.suffix != ".stamp"}


def test_builds_what_is_stale_and_only_that(build_python: Path, tree: Path) -> None:
    guest = tree / "sandboxcore" / "guest"
    assert build(build_python, tree, "--check").returncode == 1
    assert build(build_python, tree).returncode == 0
    assert build(build_python, tree, "--check").returncode == 0
    native = guest / "bin" / f"guest-{os.uname().machine}"
    assert run([native]) == "42\n"

    (guest / "answer.h").write_text("#define ANSWER 43\n")
    assert build(build_python, tree, "--check").returncode == 1
    again = build(build_python, tree)
    assert "building guest" in again.stderr
    assert "building launcher" not in again.stderr
    assert run([native]) == "43\n"

    native.write_bytes(b"cut short")
    assert build(build_python, tree, "--check").returncode == 1


def test_same_sources_give_the_same_bytes_wherever_they_are(
    build_python: Path, tree: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = tmp_path_factory.mktemp("else") / "where"
    shutil.copytree(tree, elsewhere)
    assert build(build_python, tree).returncode == build(build_python, elsewhere).returncode == 0
    assert len(binaries(tree)) == 4
    assert binaries(tree) == binaries(elsewhere)


def test_two_builds_at_once_do_no_harm(build_python: Path, tree: Path) -> None:
    results: list[int] = []
    threads = [threading.Thread(target=lambda: results.append(build(build_python, tree).returncode)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [0, 0]
    assert build(build_python, tree, "--check").returncode == 0
    assert not list(tree.glob("sandboxcore/*/bin/.build-*"))


def test_missing_source_is_named(build_python: Path, tree: Path) -> None:
    (tree / "sandboxcore" / "local" / "launcher.c").unlink()
    done = build(build_python, tree)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("hatch_build.py: ")
    assert "no C source of the program 'launcher'" in done.stderr


def test_refused_source_leaves_the_older_binary(build_python: Path, tree: Path) -> None:
    assert build(build_python, tree).returncode == 0
    before = binaries(tree)
    (tree / "sandboxcore" / "guest" / "main.c").write_text("int main(void) { return unknown; }\n")
    done = build(build_python, tree)
    assert done.returncode == 2
    assert "unknown" in done.stderr
    assert "compiling for x86_64 failed" in done.stderr
    assert binaries(tree) == before
    assert build(build_python, tree, "--check").returncode == 1


def test_missing_compiler_is_one_line_with_the_command_to_run(tree: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-S", "-E", "hatch_build.py"], cwd=tree, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2
    assert "the C compiler is missing" in done.stderr.splitlines()[-1]
    assert "pip install ziglang==" in done.stderr
