"""Run the checks of the project, say what failed, and end with 1 if anything did.

They run one after the other, but for the tests that need a cluster: those mostly wait, and run beside all others.
``--only PHASE[,PHASE...]`` runs some of them; further arguments go to pytest, which then runs once.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PYTHON = sys.executable
#: Phases that run aside, each with the one that it begins with; what they said comes when the others have ended. Tests that
#: break the cluster are in the first, which is to have it before the second comes. CI has time, and a machine that is less full
#: is kinder to all: there the second runs when the others in front have ended.
BESIDE = {"cluster-tests": "format"} | ({} if os.environ.get("CI") else {"opensandbox-tests": "tests"})
STOP_SECONDS = 60.0


def packages() -> list[str]:
    """Name the folders that are checked for types: every package, and the scripts."""
    found = [path.parent for path in (ROOT / "plugins").glob("*/*/__init__.py")]
    return ["sandboxcore", *sorted(str(path.relative_to(ROOT)) for path in found), "benchmarks", "hatch_build.py", "scripts"]


def phases(pytest_arguments: Sequence[str]) -> dict[str, list[str]]:
    """Name the phases, in order, with their commands; the tests come last so that their summary ends the output."""
    shares: dict[str, Sequence[str]] = {
        "tests": ["--cluster=without"],
        "cluster-tests": ["--cluster=kubernetes"],
        "opensandbox-tests": ["--cluster=opensandbox"],
    }
    if pytest_arguments:
        shares = {"tests": pytest_arguments}
    docs = ["-n", "-W", "--keep-going", "-q", "-b", "html", "-d", "docs/_build/doctrees", "docs", "docs/_build/html"]
    return {
        "format": [PYTHON, "-m", "ruff", "format", "--check", "."],
        "lint": [PYTHON, "-m", "ruff", "check", "."],
        "types": [PYTHON, "-m", "mypy", *packages()],
        "docs": [PYTHON, "-m", "sphinx", *docs],
        **{name: [PYTHON, "-m", "pytest", *arguments] for name, arguments in shares.items()},
    }


def begin_tiers() -> None:
    """Begin what the tests need and what takes minutes on a new machine, beside the other phases: Kubernetes and images.

    Both are safe to run twice at once, and what goes wrong is told by the tests, which need the same.
    """
    if sys.platform != "linux" or os.geteuid() != 0:
        return
    for what in (["tests.images"], ["tests.cluster", "build"]):
        with (ROOT / ".venv" / f"{what[0]}.log").open("w") as log:
            command = ["nice", PYTHON, "-m", *what]
            subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)


def run(name: str, command: Sequence[str]) -> bool:
    """Run a phase with its output shown as it comes; true if it passed."""
    print(f"\n== {name} ==", flush=True)
    began = time.monotonic()
    passed = subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, check=False).returncode == 0
    return tell(name, passed, began)


def tell(name: str, passed: bool, began: float) -> bool:
    """Say how a phase ended."""
    print(f"== {name}: {'passed' if passed else 'FAILED'} in {time.monotonic() - began:.0f} s ==", flush=True)
    return passed


class Aside:
    """A phase that runs while others do: its output is kept in a file until it is waited for."""

    def __init__(self, name: str, command: Sequence[str]) -> None:
        self._name = name
        self._began = time.monotonic()
        self._output = ROOT / ".venv" / f"{name}.log"
        # One pytest that cleans up its temporary folders can stumble over what another one removes.
        self._own = tempfile.TemporaryDirectory(prefix="beside-", ignore_cleanup_errors=True)
        environ = os.environ | {"PYTEST_DEBUG_TEMPROOT": self._own.name}
        with self._output.open("wb") as file:
            # Ctrl-C is for us; what we then tell it, it is told once.
            self._process = subprocess.Popen(
                command, cwd=ROOT, env=environ, stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True
            )

    def wait(self) -> bool:
        """Show what it has said and still says, until it ends; true if it passed."""
        print(f"\n== {self._name} ==", flush=True)
        with self._output.open("rb") as file:
            running = True
            while running:
                running = self._process.poll() is None  # before the last look at the file
                shutil.copyfileobj(file, sys.stdout.buffer)
                sys.stdout.buffer.flush()
                time.sleep(0.5 if running else 0)
        return tell(self._name, self._process.returncode == 0, self._began)

    def stop(self) -> None:
        """End it as Ctrl-C does, with time to clean up, unless it has ended."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._own.cleanup()


def check(chosen: Sequence[str], commands: dict[str, list[str]]) -> int:
    """Run the chosen phases, all of them though one fails, and return the exit status."""
    if BESIDE.keys() & set(chosen):
        begin_tiers()
    if "docs" in chosen:
        # Sphinx warns only about pages that it reads, so a page must not be taken from an earlier build.
        shutil.rmtree(ROOT / "docs" / "_build", ignore_errors=True)
    asides: dict[str, Aside] = {}
    in_front = [name for name in chosen if name not in BESIDE]
    failed = []
    try:
        waiting = [name for name in BESIDE if name in chosen]
        for front in ("", *in_front):
            # One whose partner was not chosen waits for nobody.
            for name in [name for name in waiting if BESIDE[name] == front or BESIDE[name] not in in_front]:
                waiting.remove(name)
                asides[name] = Aside(name, commands[name])
            if front and not run(front, commands[front]):
                failed.append(front)
        failed += [name for name, aside in asides.items() if not aside.wait()]
    finally:
        for aside in asides.values():
            aside.stop()
    print(f"\nFAILED: {', '.join(failed)}" if failed else f"\nall passed: {', '.join(chosen)}", flush=True)
    return 1 if failed else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", metavar="PHASE[,PHASE...]", default="")
    arguments, rest = parser.parse_known_args()
    commands = phases(rest)
    chosen = arguments.only.split(",") if arguments.only else list(commands)
    unknown = [name for name in chosen if name not in commands]
    if unknown:
        parser.error(f"no phase is called {unknown[0]!r}; there are {', '.join(commands)}")
    return check(chosen, commands)


if __name__ == "__main__":
    sys.exit(main())
