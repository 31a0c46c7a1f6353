"""The real command line, in processes of its own, on the real local backend, with a state folder of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

Result = subprocess.CompletedProcess[bytes]

#: Labels of the environment that the tests of a module share.
SHARED = {"shared": "yes"}

COMPOSE = """\
services:
  default:
    image: busybox
    command: ["sh", "-c", "echo started; echo complaint >&2; exec sleep 1000"]
    working_dir: /work
    environment:
      GREETING: hello
  store:
    image: busybox
    command: ["sh", "-c", "i=0; while [ $$i -lt 30 ]; do echo line $$i; i=$$((i+1)); done; exec sleep 1000"]
"""


@dataclass
class CommandLine:
    """Runs ``sandboxcore`` as a user would.

    Args:
        state: Folder that the backend keeps its environments in.
    """

    state: Path
    extra: dict[str, str] = field(default_factory=dict)

    @property
    def environ(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("SANDBOXCORE_DEBUG")}
        backend = os.environ.get("SANDBOXCORE_TEST_BACKEND", "local")
        return kept | {"SANDBOXCORE_STATE_DIR": str(self.state), "SANDBOXCORE_BACKEND": backend} | self.extra

    @staticmethod
    def argv(*arguments: str) -> list[str]:
        return [sys.executable, "-m", "sandboxcore", *arguments]

    def __call__(self, *arguments: str, stdin: bytes = b"", cwd: Path | None = None, timeout: float = 60) -> Result:
        return subprocess.run(
            self.argv(*arguments), input=stdin, capture_output=True, env=self.environ, cwd=cwd, timeout=timeout, check=False
        )

    def start(self, *arguments: str, **options: Any) -> subprocess.Popen[bytes]:
        pipe = subprocess.PIPE
        streams: dict[str, Any] = {"stdin": pipe, "stdout": pipe, "stderr": pipe} | options
        process: subprocess.Popen[bytes] = subprocess.Popen(self.argv(*arguments), env=self.environ, **streams)
        return process

    def ok(self, *arguments: str, stdin: bytes = b"") -> bytes:
        """Run it, insist on success, and return its standard output."""
        result = self(*arguments, stdin=stdin)
        assert result.returncode == 0, result.stderr.decode()
        return result.stdout

    def json(self, *arguments: str) -> Any:
        return json.loads(self.ok(*arguments, "--json"))

    def environments(self) -> list[dict[str, Any]]:
        """List the environments, without the one that the module's tests share."""
        found: list[dict[str, Any]] = self.json("ls")["environments"]
        return [one for one in found if one["labels"] != SHARED]


@pytest.fixture(scope="module")
def cli(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CommandLine]:
    """The command line; at the end of the module there must be no environment left."""
    line = CommandLine(state=tmp_path_factory.mktemp("state"))
    yield line
    left = line.json("ls")["environments"]
    line("cleanup", "--all", "--yes")
    assert left == []


@pytest.fixture(scope="module")
def compose(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Compose file with two services."""
    path = tmp_path_factory.mktemp("project") / "compose.yaml"
    path.write_text(COMPOSE)
    return path


@pytest.fixture(scope="module")
def environment(cli: CommandLine, compose: Path) -> Iterator[str]:
    """The id of an environment that is up."""
    name = cli.ok("up", "-q", "-f", str(compose), "--label", "shared=yes").decode().strip()
    yield name
    cli.ok("down", name)


@pytest.fixture
def exec_in(cli: CommandLine, environment: str) -> Callable[[Sequence[str]], bytes]:
    """Run a command in the default service and return its output."""
    return lambda argv: cli.ok("exec", environment, "--", *argv)
