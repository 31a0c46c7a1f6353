"""Leases of environments that share an object: each has its own end, and the controller goes by the last."""

from __future__ import annotations

import contextlib
import datetime
import time
from collections.abc import Mapping
from typing import Any

import pytest
from sandboxcore_kubernetes import Cluster
from sandboxcore_opensandbox._config import OpenSandboxConfig
from sandboxcore_opensandbox._leasing import lease_change
from sandboxcore_opensandbox._notes import Notes, gone_key, lease_end
from sandboxcore_opensandbox._parts import batch_sandbox
from sandboxcore_opensandbox._provisioner import CrdProvisioner

from sandboxcore import Session
from sandboxcore.environment import Environment
from tests.opensandbox.places import BUSYBOX

KIND = "sandbox.opensandbox.io/v1alpha1/BatchSandbox"
SPEC = {"services": {"default": {"image": BUSYBOX, "command": ["sleep", "infinity"]}}}
GRACE = 30.0


async def three(session: Session) -> list[Environment]:
    made = [outcome.environment async for outcome in session.provision_many([SPEC] * 3)]
    return [environment for environment in made if environment is not None]


def expiry(obj: Mapping[str, Any]) -> float:
    return datetime.datetime.fromisoformat(obj["spec"]["expireTime"]).timestamp()


async def test_what_is_kept_of_a_batch_outlives_its_siblings(crd: Mapping[str, Any], session: Session, cluster: Cluster) -> None:
    """The renewals of the others, and in the end that they are gone, take nothing from what it was promised."""
    first, *others = await three(session)
    await first.keep(3600.0)
    async with contextlib.aclosing(CrdProvisioner(OpenSandboxConfig(**crd))) as provisioner:
        await provisioner.renew([other.ref for other in others], 300.0)  # as a round of renewals does
    ends = {found.id: found.ref.expires_at - time.time() for found in await session.find(run_id=session.run_id)}
    assert 3500 < ends.pop(first.id) <= 3601
    assert all(290 < end <= 301 for end in ends.values())
    for other in others:
        await other.destroy()
    left = expiry(await cluster.get(KIND, first.ref.data["batch"])) - time.time()
    assert 3500 < left - GRACE <= 3601
    await first.destroy()


async def test_what_one_environment_has_for_itself_is_renewed_with_one_request(
    session: Session, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = await session.provision(SPEC)
    asked: list[str] = []
    get = Cluster.get

    async def noted(self: Cluster, kind: str, *args: Any, **options: Any) -> Any:
        asked.append(kind)
        return await get(self, kind, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Cluster, "get", noted)
        await environment.renew(3600.0)
    assert KIND not in asked
    obj = await cluster.get(KIND, environment.id)
    assert 3500 < expiry(obj) - GRACE - time.time() <= 3601
    assert abs(lease_end(obj, environment.id) - (expiry(obj) - GRACE)) < 0.01
    await environment.destroy()


async def test_a_clock_that_is_wrong_ends_nothing(session: Session, cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """The controller judges by its own clock, so what it is told comes from there."""
    right = time.time
    with monkeypatch.context() as patch:
        patch.setattr(time, "time", lambda: right() - 7200.0)
        environment = await session.provision(SPEC)
        assert expiry(await cluster.get(KIND, environment.id)) > right() + GRACE
        await environment.renew(600.0)
        assert 590 < expiry(await cluster.get(KIND, environment.id)) - GRACE - right() < 601
    await environment.destroy()


def batch(*names: str, **marks: str) -> dict[str, Any]:
    notes = Notes(batch=names[0], run_id="r", environments=names, services=("s",), part=("s",), owner="me", created=1.0)
    obj = batch_sandbox(names[0], "ns", notes, lease_end=100.0, grace=GRACE, replicas=len(names))
    obj["metadata"]["annotations"] |= marks
    return obj


def renewed(obj: dict[str, Any], *names: str, end: float) -> dict[str, Any]:
    """Do what the cluster does with the patch."""
    patch = lease_change(obj, names, end, GRACE)
    assert patch is not None
    marks = obj["metadata"]["annotations"] | patch["metadata"]["annotations"]
    metadata = obj["metadata"] | {"annotations": {key: value for key, value in marks.items() if value is not None}}
    return {**obj, "metadata": metadata, "spec": obj["spec"] | patch["spec"]}


def ends(obj: dict[str, Any], *names: str) -> list[float]:
    return [*(lease_end(obj, name) for name in names), expiry(obj) - GRACE]


@pytest.mark.tier("none")
def test_each_has_its_own_end_and_the_last_one_counts() -> None:
    obj = batch("a", "b", "c")
    assert ends(obj, "a", "b", "c") == [100, 100, 100, 100]
    obj = renewed(obj, "a", end=900.0)
    assert ends(obj, "a", "b", "c") == [900, 100, 100, 900]
    obj = renewed(obj, "b", "c", end=200.0)
    assert ends(obj, "a", "b", "c") == [900, 200, 200, 900]
    obj = renewed(obj, "a", end=150.0)  # a promise may be shortened by who made it
    assert ends(obj, "a", "b", "c") == [150, 200, 200, 200]
    before = len(obj["metadata"]["annotations"])
    obj = renewed(obj, "a", "b", "c", end=300.0)
    assert ends(obj, "a", "b", "c") == [300, 300, 300, 300]
    assert len(obj["metadata"]["annotations"]) == before - 1


@pytest.mark.tier("none")
def test_what_is_gone_keeps_nothing() -> None:
    obj = batch("a", "b", **{"lease.sandboxcore.dev/a": "900.000", gone_key("a"): ""})
    assert ends(renewed(obj, "b", end=200.0), "b") == [200, 200]
    assert lease_change(obj, ["a"], 300.0, GRACE) is None
