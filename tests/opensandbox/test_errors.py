"""What the cluster answers, in the core's words."""

from __future__ import annotations

import pytest
from sandboxcore_kubernetes import ApiError
from sandboxcore_opensandbox._errors import NO_CRDS, OWN_ERRORS, mapped
from sandboxcore_opensandbox._pool_making import claimants, exhausted

from sandboxcore.errors import CapabilityError, ProvisionError, SandboxError, UsageError

pytestmark = pytest.mark.tier("none")

ROWS = {
    "no OpenSandbox": (
        ApiError("the server could not find the requested resource", status=404, reason="NotFound"),
        CapabilityError,
    ),
    "quota": (ApiError('pods "a" is forbidden: exceeded quota: q', status=403, reason="Forbidden"), ProvisionError),
    "too large": (ApiError("etcdserver: request is too large", status=500, reason="InternalError"), ProvisionError),
}


@pytest.mark.parametrize("name", ROWS)
def test_each_row_has_its_error_and_says_what_to_do(name: str) -> None:
    error, kind = ROWS[name]
    found = mapped(error, "create BatchSandbox 'a'")
    assert type(found) is kind
    assert found.hint
    assert found.message.startswith("create BatchSandbox 'a': ")
    assert found.__cause__ is error


def test_every_row_of_the_table_is_met() -> None:
    met = {applies for applies in OWN_ERRORS for error, _ in ROWS.values() if applies(error)}
    assert met == set(OWN_ERRORS)


def test_the_hint_is_a_command() -> None:
    assert "sandboxcore opensandbox install" in NO_CRDS


def test_what_is_not_special_is_as_for_all_of_kubernetes() -> None:
    assert isinstance(mapped(ApiError("no", status=401, reason="Unauthorized"), "ask"), UsageError)
    with pytest.raises(ZeroDivisionError):
        mapped(ZeroDivisionError(), "ask")
    known = SandboxError("as it is")
    assert mapped(known, "ask") is known


def batch(
    name: str, replicas: int, given: int, *, created: str = "2026-01-01T00:00:00Z", **annotations: str
) -> dict[str, object]:
    pods = ",".join(f'"{name}-{number}"' for number in range(given))
    marks = {"sandbox.opensandbox.io/alloc-status": f'{{"pods":[{pods}]}}', **annotations}
    metadata = {"name": name, "annotations": marks, "creationTimestamp": "2026-01-01T00:00:00Z"}
    return {"metadata": metadata, "spec": {"replicas": replicas, "poolRef": "p"}}


def test_those_who_are_served_or_leave_ask_for_nothing() -> None:
    leaving = batch("leaving", 4, 2)
    leaving["metadata"] |= {"deletionTimestamp": "2026-01-01T00:00:00Z"}  # type: ignore[operator]
    found = claimants([batch("hungry", 4, 2), batch("served", 4, 2, **{"sandboxcore.dev/ready": "true"}), leaving])
    assert {claimant.batch: claimant.hungry for claimant in found} == {"hungry": True, "served": False, "leaving": False}


def test_a_full_pool_is_told_with_the_largest_holders_first() -> None:
    pool = {"metadata": {"name": "p"}, "spec": {"capacitySpec": {"poolMax": 9}}, "status": {"total": 9, "allocated": 9}}
    error = exhausted(pool, [batch("few", 1, 1), batch("many", 8, 8), batch("me", 3, 0)], 3, "me")
    assert "total 9, allocated 9, available 0, poolMax 9; held by many (not sandboxcore's): 8, few" in error.message
