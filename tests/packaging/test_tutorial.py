"""The tutorial, done as it says: its files written, its programs and commands run, their output compared."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import sandboxcore

from .conftest import ROOT

TUTORIAL = ROOT / "docs" / "tutorial.md"
BLOCK = re.compile(r"^```\{code-block\} (\w+)\n:caption: (.+?)\n\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks() -> Iterator[tuple[str, str, str]]:
    yield from BLOCK.findall(TUTORIAL.read_text())


def shell_script(text: str) -> tuple[str, str]:
    """Split a console block into the commands and what they print."""
    lines = text.splitlines()
    commands = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
    return "\n".join(commands), "".join(f"{line}\n" for line in lines if not line.startswith("$ "))


def without_ids(text: str) -> str:
    """Blank the lines that are an environment's id, which is another one each time."""
    return re.sub(r"^[a-z][a-z2-7]{9}$", "ID", text, flags=re.MULTILINE)


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Callable[[list[str]], str]]:
    """Runs programs as a reader does, in a folder of their own; what a failure leaves behind is taken away."""
    work = tmp_path / "work"
    work.mkdir()
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "SANDBOXCORE_STATE_DIR": str(tmp_path / "state"), "SANDBOXCORE_BACKEND": "local"}

    def output(command: list[str]) -> str:
        done = subprocess.run(command, cwd=work, env=environment, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    yield output
    output(["sandboxcore", "cleanup", "--all", "--yes"])


@pytest.mark.tier("local")
@pytest.mark.timeout(300)
def test_tutorial_does_what_it_says(shell: Callable[[list[str]], str], tmp_path: Path) -> None:
    ran = 0
    script = expected = ""
    for language, caption, text in blocks():
        if language in ("yaml", "python"):
            (tmp_path / "work" / caption).write_text(text)
        elif language == "text":
            assert shell([sys.executable, caption.removeprefix("python ")]) == text
            ran += 1
        else:
            assert language == "console", f"the tutorial has a block that nobody runs: {language} {caption}"
            commands, printed = shell_script(text)
            script, expected = f"{script}{commands}\n", expected + printed
    assert without_ids(shell(["bash", "-eu", "-c", script])) == without_ids(expected)
    assert ran == 4
    assert json.loads(shell(["sandboxcore", "ls", "--json"]))["environments"] == []


def python_blocks(page: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL)


def compose_file() -> str:
    return next(text for language, caption, text in blocks() if caption == "compose.yaml")


@pytest.mark.tier("local")
def test_example_in_the_readme_runs(shell: Callable[[list[str]], str], tmp_path: Path) -> None:
    (tmp_path / "work" / "compose.yaml").write_text(compose_file())
    [example] = python_blocks("README.md")
    assert shell([sys.executable, "-c", example]) == "0 42\n"


@pytest.mark.tier("local")
def test_examples_for_scripts_and_notebooks_run(shell: Callable[[list[str]], str], tmp_path: Path) -> None:
    for name in ("compose.yaml", "a.compose.yaml", "b.compose.yaml"):
        (tmp_path / "work" / name).write_text(compose_file())
    simple, opened, used, closed, found, many = python_blocks("docs/how-to/scripts-and-notebooks.md")
    assert shell([sys.executable, "-c", simple]).startswith("Python 3.")
    assert "usr" in shell([sys.executable, "-c", f"{simple}\n{opened}\nprint({used.strip()})\n{closed}"])
    kept = "with Session() as session: kept = session.provision(keep=True, lease=60, labels={'suite': 'nightly'}).id"
    found = found.replace('"the id, or the beginning of it"', "kept[:6]")
    assert "('default',)" in shell([sys.executable, "-c", f"from sandboxcore.sync import Session\n{kept}\n{found}"])
    ready = shell([sys.executable, "-c", f"from sandboxcore.sync import Session\n{many}"]).splitlines()
    assert sorted(line.split()[0] for line in ready) == ["0", "1"]
    assert not any("failed" in line for line in ready)


def test_example_of_a_translator_works(tmp_path: Path) -> None:
    [example] = python_blocks("docs/how-to/write-a-translator.md")
    plugin = types.ModuleType("lines_plugin")
    exec(example, vars(plugin))
    (tmp_path / "jobs.services").write_text("web: sleep 60\ndb: sleep 61\n")
    session = sandboxcore.Session("local", plugins=sandboxcore.PluginHost.load(extra=[plugin]))
    translation = session.translate(tmp_path / "jobs.services")
    assert translation.spec.services["db"].command == ("sh", "-c", "sleep 61")
    assert [(entry.line, entry.service) for entry in translation.report.entries] == [(1, "web"), (2, "db")]

    (tmp_path / "bad.services").write_text("web: true\nno colon\n")
    with pytest.raises(sandboxcore.SpecError, match=r"bad\.services:2:1: 'no colon'"):
        session.translate(tmp_path / "bad.services")
