"""The conformance suite as a process of its own, on a backend and a kind of sandbox; several side by side."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
SUITE = ROOT / "tests" / "conformance" / "test_contract.py"

#: Suites side by side: they wait more than they work.
AT_ONCE = 4
#: A machine with that many suites on it is slow now and then, with a whole cluster on it more so; no clause is about exact time.
PATIENT = ("--patience", "150", "-o", "timeout=240")
SLACK = {"local": "10", "docker": "10", "kubernetes": "40", "opensandbox": "40"}
#: A session renews its lease after a third of it, so that one slow request must not take the other two.
LEASE = {"local": "4", "docker": "4", "kubernetes": "10", "opensandbox": "10"}
SECONDS = 900


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A backend, and what its sandboxes are like. ``least`` tests have to pass: fewer, and something was left out."""

    name: str
    tier: str
    backend: str
    spec: str
    config: Callable[[], Mapping[str, Any]] = field(default=dict)
    options: Sequence[str] = ()
    least: int = 190

    def command(self, config: Mapping[str, Any], outcomes: Path) -> list[str]:
        """Build the command line of its run."""
        spec = HERE / "specs" / self.spec
        patient = [*PATIENT, "--slack", SLACK[self.tier], "--lease", LEASE[self.tier]]
        chosen = ["--backend", self.backend, "--backend-config", json.dumps(dict(config)), "--spec", str(spec)]
        return [sys.executable, "-m", "pytest", "-q", str(SUITE), *patient, *chosen, *self.options, "--outcomes", str(outcomes)]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a run ended: how many tests passed, and what to say of those that did not."""

    passed: int
    complaints: Sequence[str]


class Matrix:
    """The runs that were begun; they end with the test run."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._pool = ThreadPoolExecutor(AT_ONCE)
        self._outcomes: dict[str, Future[Outcome]] = {}
        self._running: set[subprocess.Popen[bytes]] = set()

    def begin(self, variants: Iterable[Variant]) -> None:
        """Queue the runs of variants that were not begun yet."""
        for variant in variants:
            if variant.name not in self._outcomes:
                command = variant.command(variant.config(), self._folder / f"{variant.name}.jsonl")
                self._outcomes[variant.name] = self._pool.submit(self._run, variant.name, command)

    def outcome(self, variant: Variant) -> Outcome:
        """Wait for the end of a run."""
        return self._outcomes[variant.name].result()

    def close(self) -> None:
        """Stop what nobody waits for any more."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        for process in tuple(self._running):
            process.terminate()
        self._pool.shutdown()

    def _run(self, name: str, command: list[str]) -> Outcome:
        outcomes, log = self._folder / f"{name}.jsonl", self._folder / f"{name}.log"
        # Each with temporary folders of its own: one pytest that cleans up can stumble over what another one removes.
        own = tempfile.TemporaryDirectory(prefix="matrix-", ignore_cleanup_errors=True)
        with log.open("wb") as output, own as temporary:
            environ = os.environ | {"PYTEST_DEBUG_TEMPROOT": temporary}
            process = subprocess.Popen(command, cwd=ROOT, env=environ, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
            self._running.add(process)
            try:
                code = process.wait(SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                code = process.wait()
            finally:
                self._running.discard(process)
        lines = [json.loads(line) for line in outcomes.read_text().splitlines()] if outcomes.exists() else []
        complaints = [_complaint(line) for line in lines if line["outcome"] == "failed"]
        if code and not complaints:
            complaints = [f"pytest ended with {code}:\n{log.read_text(errors='replace')[-3000:]}"]
        passed = sum(line["outcome"] == "passed" and line["phase"] == "call" for line in lines)
        return Outcome(passed=passed, complaints=complaints)


def _complaint(line: Mapping[str, Any]) -> str:
    return f"{line['test']} ({', '.join(line['clauses'])}), {line['phase']}:\n{line['text']}"
