"""Runs Inspect from the command line, as its users do, and reads what it has logged."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sandboxcore import EnvironmentRef, Session

TASKS = Path(__file__).parent / "tasks"
BIN = Path(sys.executable).parent
#: Seconds that anything here may take on a machine with much else to do.
PATIENCE = 240.0


@dataclass
class Evals:
    """A folder with tasks, and the surroundings in which Inspect runs there.

    Args:
        backend: Where sandboxes run.
        config: Of the backend, for looking at what is there.
    """

    folder: Path
    backend: str
    config: dict[str, Any] = field(default_factory=dict)
    variables: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("capture", "chart", "forms"):
            shutil.copytree(TASKS / name, self.folder / name)
            shutil.copy(TASKS / "model.py", self.folder / name)
        self.variables = {
            **os.environ,
            "SANDBOXCORE_BACKEND": self.backend,
            "XDG_DATA_HOME": str(self.folder / "data"),
            "SANDBOXCORE_STATE_DIR": str(self.folder / "state"),
            "INSPECT_LOG_FORMAT": "json",
            "INSPECT_LOG_DIR": str(self.folder / "logs"),
            "INSPECT_DISPLAY": "plain",
            "COLUMNS": "160",
            "PYTHONWARNINGS": "",
            **self.variables,
        }

    def command(self, *argv: str, cwd: str = "capture", check: bool = True, **variables: str) -> str:
        """Run ``inspect`` or ``sandboxcore`` and return what it printed.

        Raises:
            AssertionError: It failed, and ``check`` is set.
        """
        done = subprocess.run(
            [BIN / argv[0], *argv[1:]],
            cwd=self.folder / cwd,
            env=self.variables | variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert not check or done.returncode == 0, done.stdout
        return done.stdout

    def eval(self, *argv: str, cwd: str = "capture", **variables: str) -> dict[str, Any]:
        """Run ``inspect eval`` and return the log."""
        printed = self.command("inspect", "eval", *argv, cwd=cwd, **variables)
        return self.log(printed)

    def log(self, printed: str = "") -> dict[str, Any]:
        """Read the newest log."""
        logs = sorted((self.folder / "logs").glob("*.json"), key=lambda path: path.stat().st_mtime)
        assert logs, printed
        found: dict[str, Any] = json.loads(logs[-1].read_text(encoding="utf-8"))
        assert found["status"] == "success" or not printed, printed
        return found

    @contextlib.contextmanager
    def running(self, *argv: str, cwd: str = "capture", **variables: str) -> Iterator[subprocess.Popen[str]]:
        """Start ``inspect eval``; what still runs of it at the end of the block is killed."""
        with (self.folder / "output").open("a") as file:
            process = subprocess.Popen(
                [BIN / "inspect", "eval", *argv],
                cwd=self.folder / cwd,
                env=self.variables | variables,
                stdout=file,
                stderr=subprocess.STDOUT,
                text=True,
            )
        try:
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
            process.wait(timeout=PATIENCE)

    def printed(self) -> str:
        """Return what the evals that were started have printed."""
        return (self.folder / "output").read_text(encoding="utf-8")

    def traced(self) -> str:
        """Return Inspect's trace logs."""
        files = [*(self.folder / "data" / "inspect_ai" / "traces").iterdir()]
        return "".join(
            (gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()).decode() for file in files
        )

    def left(self, pid: int | None = None) -> list[EnvironmentRef]:
        """List the environments of an eval's process; None: all that there are."""
        found = asyncio.run(self._found())
        return [ref for ref in found if pid is None or ref.owner.endswith(f"@{socket.gethostname()}:{pid}")]

    async def _found(self) -> list[EnvironmentRef]:
        own = {"state_dir": str(self.folder / "state")} if self.backend == "local" else {}
        async with Session(self.backend, config={**own, **self.config}) as session:
            return [environment.ref for environment in await session.find()]


def until(condition: Callable[[], Any], what: str, seconds: float = PATIENCE) -> None:
    """Wait for a condition.

    Raises:
        AssertionError: It did not come true in time.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited for {what}"
        time.sleep(0.2)


def answers(log: dict[str, Any]) -> list[str]:
    """Return what the model said at last, sample by sample."""
    assert all(not sample.get("error") for sample in log["samples"]), [sample.get("error") for sample in log["samples"]]
    return [sample["output"]["choices"][0]["message"]["content"] for sample in log["samples"]]


def tool_results(sample: dict[str, Any]) -> list[tuple[str, str]]:
    """Return each tool's name and what it gave."""
    return [(message["function"], message["content"]) for message in sample["messages"] if message["role"] == "tool"]
