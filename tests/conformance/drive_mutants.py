"""Runs the suite against one mutant after the other, in one process: starting pytest anew would take longer than most runs.

Each line on stdin is the name of a mutant; each line on stdout is the file with the outcomes of its tests.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from mutants import MUTANTS  # noqa: E402

#: Seconds after which a test that a mutant may fail is given up: some of them hang, which is how they fail.
HURRY = 8.0
#: As generous to a busy machine as can be: what is late, or outlives its lease, has to show before a test is given up.
LIMITS = ["--slack=3", "--lease=2"]
#: What a broken backend leaves unawaited or unclosed is not what is tested here, and may not end the driver.
WITHOUT = ["-p", "no:faulthandler", "-p", "no:unraisableexception", "-p", "no:threadexception"]


def main(folder: Path) -> None:
    """Serve until stdin ends; what pytest prints goes to a file in the folder."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(folder / "log", os.O_CREAT | os.O_WRONLY | os.O_APPEND), 1)
    for number, line in enumerate(sys.stdin):
        name = line.rstrip("\n")
        outcomes = folder / f"{number}.jsonl"
        outcomes.touch()
        mutant = MUTANTS[name]
        clauses, failing = ",".join((*mutant.breaks, *mutant.beside)), ",".join((*mutant.breaks, *mutant.touches))
        options = [f"--mutant={name}", f"--outcomes={outcomes}", f"--clauses={clauses}"]
        options += [f"--hurry={HURRY}", f"--hurry-clauses={failing}", *LIMITS]
        pytest.main([str(HERE / "test_contract.py"), *options, "-q", "--tb=short", "-p", "no:cacheprovider", *WITHOUT])
        answers.write(f"{outcomes}\n")
        answers.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
