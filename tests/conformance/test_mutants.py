"""The suite can fail: each mutant fails a test of every clause that it breaks, and none of a clause that it leaves alone."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeGuard

import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from mutants import MUTANTS  # noqa: E402

Outcomes = list[dict[str, Any]]

#: Mutants that are run at once: mostly they wait, for what they broke.
AT_ONCE = 3


class Driver:
    """A process that runs the suite against one mutant after the other."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._log = folder / "log"
        command = [sys.executable, str(HERE / "drive_mutants.py"), str(folder)]
        # Temporary folders of its own: one pytest that cleans up can stumble over what another one removes.
        self._own = tempfile.TemporaryDirectory(prefix="mutants-", ignore_cleanup_errors=True)
        environ = os.environ | {"PYTEST_DEBUG_TEMPROOT": self._own.name}
        self._process = subprocess.Popen(
            command, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1, cwd=HERE
        )

    def run(self, name: str) -> Outcomes:
        """Run the suite against a mutant."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{name}\n")
        answer = self._process.stdout.readline().rstrip("\n")
        assert answer, f"the driver ended with {self._process.wait()}:\n{self._log.read_text()[-3000:]}"
        return [json.loads(line) for line in Path(answer).read_text().splitlines()]

    def close(self) -> None:
        """End the process."""
        self._process.communicate()
        self._own.cleanup()


@pytest.fixture(scope="module")
def run_mutant(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Callable[[str], Outcomes]]:
    """Begin with all mutants that were chosen, some at once, and hand out what became of each."""
    folder = tmp_path_factory.mktemp("mutants")
    idle: queue.SimpleQueue[Driver] = queue.SimpleQueue()
    drivers = [Driver(folder / str(number)) for number in range(AT_ONCE)]
    for driver in drivers:
        idle.put(driver)

    def run(name: str) -> Outcomes:
        driver = idle.get()
        try:
            return driver.run(name)
        finally:
            idle.put(driver)

    chosen = [item.callspec.params["name"] for item in request.session.items if _is_of_a_mutant(item)]
    with ThreadPoolExecutor(AT_ONCE) as threads:
        results = {name: threads.submit(run, name) for name in chosen}
        yield lambda name: results[name].result()
        threads.shutdown(cancel_futures=True)
    for driver in drivers:
        driver.close()


def _is_of_a_mutant(item: pytest.Item) -> TypeGuard[pytest.Function]:
    return isinstance(item, pytest.Function) and item.originalname == "test_a_mutant_fails_what_it_breaks"


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_fails_what_it_breaks(name: str, run_mutant: Callable[[str], Outcomes]) -> None:
    mutant = MUTANTS[name]
    lines = run_mutant(name)
    failed = [line for line in lines if line["outcome"] == "failed"]
    survived = [clause for clause in mutant.breaks if not any(clause in line["clauses"] for line in failed)]
    allowed = {*mutant.breaks, *mutant.touches}
    beyond = [
        f"{line['test']} ({', '.join(line['clauses'])}): {line['text']}" for line in failed if not allowed & set(line["clauses"])
    ]
    assert lines
    assert not survived, f"no test of these failed: {survived}"
    assert not beyond, "these should not have failed:\n" + "\n".join(beyond)
    assert any(line["outcome"] == "passed" for line in lines)
