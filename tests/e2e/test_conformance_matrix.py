"""The whole contract on every backend with every kind of sandbox; each run is a pytest of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .matrix import Matrix, Variant
from .variants import VARIANTS

#: Tiers that can run when another one can.
READY_WITH = {"opensandbox": {"opensandbox", "kubernetes"}}


@pytest.fixture(scope="module")
def matrix(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Matrix]:
    """Keep the runs, each of which may begin while another test waits for its own."""
    matrix = Matrix(tmp_path_factory.mktemp("matrix"))
    yield matrix
    matrix.close()


@pytest.fixture
def chosen(request: pytest.FixtureRequest) -> list[Variant]:
    """List the variants of this test run, in its order."""
    return [item.callspec.params["variant"] for item in request.session.items if item.path == request.path]


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("variant", [pytest.param(each, id=each.name, marks=pytest.mark.tier(each.tier)) for each in VARIANTS])
def test_it_keeps_the_contract(variant: Variant, matrix: Matrix, chosen: list[Variant]) -> None:
    matrix.begin(each for each in chosen if each.tier in READY_WITH.get(variant.tier, {variant.tier}))
    outcome = matrix.outcome(variant)
    if outcome.complaints:
        pytest.fail(
            f"{variant.name}: {len(outcome.complaints)} tests failed\n\n" + "\n\n".join(outcome.complaints), pytrace=False
        )
    assert outcome.passed >= variant.least
