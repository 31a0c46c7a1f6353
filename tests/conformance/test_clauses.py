"""The contract and the suite say the same: each clause has a test, and each test a clause."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path

from sandboxcore.testing import clauses_of, suite

CONTRACT = Path(__file__).parents[2] / "docs" / "explanation" / "contract.md"
WRITTEN = set(re.findall(r"^((?:EXEC|FILE|PROV|DISC|CAP)-\d+)$", CONTRACT.read_text(), re.MULTILINE))


def every_test() -> Iterator[tuple[str, tuple[str, ...]]]:
    for name, group in inspect.getmembers(suite, inspect.isclass):
        if name.startswith("Test"):
            for test, function in inspect.getmembers(group, inspect.isfunction):
                if test.startswith("test_"):
                    yield f"{name}.{test}", clauses_of(function)


def test_the_contract_is_read() -> None:
    assert {"EXEC-1", "FILE-7", "PROV-7", "DISC-3", "CAP-2"} <= WRITTEN


def test_every_clause_has_a_test() -> None:
    assert WRITTEN - {clause for _, clauses in every_test() for clause in clauses} == set()


def test_every_test_names_clauses_of_the_contract() -> None:
    assert {name: clauses for name, clauses in every_test() if not clauses or not set(clauses) <= WRITTEN} == {}
