"""Environments whose services are made from images: one BatchSandbox, whatever is in it."""

from __future__ import annotations

import asyncio
import datetime
import time
from collections.abc import Mapping
from typing import Any

import pytest
from sandboxcore_kubernetes import Cluster

from sandboxcore import Session
from sandboxcore.errors import (
    CapabilityError,
    ProvisionError,
    ProvisionTimeoutError,
    SandboxUnavailableError,
    ServiceFailedError,
)
from tests.opensandbox.places import BUSYBOX, DEBIAN

KIND = "sandbox.opensandbox.io/v1alpha1/BatchSandbox"
IDLE = ["sleep", "infinity"]
TWO = {
    "services": {
        "agent": {
            "image": DEBIAN,
            "command": IDLE,
            "env": {"ONLY": "agent's"},
            "depends_on": {"victim": {"condition": "healthy"}},
        },
        "victim": {
            "image": BUSYBOX,
            "command": ["sh", "-c", "sleep 1; touch /tmp/up; exec sleep infinity"],
            "healthcheck": {"test": ["CMD", "test", "-e", "/tmp/up"], "interval": 1, "retries": 60},
            "aliases": ["target"],
        },
    },
    "default": "agent",
}


async def test_an_environment_of_two_services_is_one_object(session: Session, cluster: Cluster) -> None:
    """With its own image, environment and name a service, started in their order, and found by each other."""
    async with session.environment(TWO) as environment:
        found = await cluster.list(KIND, label_selector=f"sandboxcore.dev/run-id={session.run_id}")
        assert [obj["metadata"]["name"] for obj in found["items"]] == [environment.id]
        assert environment.names == ("agent", "victim")
        seen = {sandbox.name: (await sandbox.exec(["sh", "-c", "echo $ONLY; hostname"])).text() for sandbox in environment}
        assert seen == {"agent": "agent's\nagent\n", "victim": "\nvictim\n"}
        for name in ("victim", "target"):
            result = await environment["agent"].exec(["getent", "hosts", name], timeout=30)
            assert result.exit_code == 0, name
        pods = {pod["metadata"]["name"]: pod for pod in (await cluster.list("Pod"))["items"]}
        first, second = (pods[f"{environment.id}-{index}"]["metadata"]["creationTimestamp"] for index in (0, 1))
        assert first <= second
        assert pods[f"{environment.id}-0"]["metadata"]["labels"]["inspect/service"] == "victim"


async def test_a_service_starts_after_the_end_of_what_it_waits_for(session: Session) -> None:
    """The other runs for a while, and runs as well as it can be told without a health check."""
    spec = _depending("completed", first="sleep 2; touch /all/done", then="test -e /all/done && exec sleep infinity")
    async with session.environment(spec) as environment:
        assert (await environment["then"].exec(["true"])).ok


async def test_what_was_waited_for_and_failed_is_told(session: Session) -> None:
    spec = _depending("completed", first="sleep 2; echo no such table; exit 3", then="exec sleep infinity")
    with pytest.raises(ServiceFailedError, match="no such table") as caught:
        await session.provision(spec)
    assert caught.value.service == "first"


async def test_what_is_waited_for_and_never_ends_is_told(crd: Mapping[str, Any]) -> None:
    spec = _depending("completed", first="exec sleep infinity", then="exec sleep infinity")
    with pytest.raises(ProvisionTimeoutError, match=r"'then' was not started in time: service 'first', .* was not completed"):
        async with Session("opensandbox", config=dict(crd), timeout=60) as session:
            await session.provision(spec)


async def test_what_was_started_may_need_who_waited_for_that(session: Session) -> None:
    """Its health check succeeds when the other one has started."""
    spec = _depending("started", first="exec sleep infinity", then="touch /all/up; exec sleep infinity")
    spec["services"]["first"]["healthcheck"] = {"test": ["CMD", "test", "-e", "/all/up"], "interval": 1, "retries": 200}
    async with session.environment(spec) as environment:
        assert environment.names == ("then", "first")


def _depending(condition: str, *, first: str, then: str) -> dict[str, Any]:
    """Make a spec of one service that depends on the other, and a folder that both have."""
    volumes = [{"source": "all", "target": "/all"}]
    services = {
        name: {"image": BUSYBOX, "command": ["sh", "-c", line], "volumes": volumes}
        for name, line in (("then", then), ("first", first))
    }
    services["then"]["depends_on"] = {"first": {"condition": condition}}
    return {"services": services, "default": "then", "volumes": {"all": {}}}


async def test_the_lease_is_on_the_object(session: Session, cluster: Cluster) -> None:
    """Renewing moves the end that the controller goes by, some time past our own."""
    environment = await session.provision({"services": {"default": {"image": BUSYBOX, "command": IDLE}}})
    await environment.renew(1000.0)
    spec = (await cluster.get(KIND, environment.id))["spec"]
    [found] = await session.find(environment_id=environment.id)
    assert 990 < found.ref.expires_at - time.time() < 1001
    end = datetime.datetime.fromisoformat(spec["expireTime"]).timestamp()
    assert end - found.ref.expires_at == pytest.approx(30.0, abs=1.5)  # the cluster tells its time in whole seconds
    await environment.destroy()


async def test_the_controller_takes_away_what_nobody_renews(crd: Mapping[str, Any], cluster: Cluster) -> None:
    """Though no client of ours is there any more: with everything that belongs to it."""
    config = dict(crd) | {"expire_grace": 1.0}
    async with Session("opensandbox", config=config) as session:
        spec = {"services": {"default": {"image": BUSYBOX, "command": IDLE}}}
        environment = await session.provision(spec, lease=2.0, keep=True)
    deadline = time.monotonic() + 60
    selector = f"sandboxcore.dev/run-id={session.run_id}"
    while left := [
        kind for kind in (KIND, "Pod", "ConfigMap", "NetworkPolicy", "Service") if await _some(cluster, kind, selector)
    ]:
        assert time.monotonic() < deadline, f"{environment.id} left {left}"
        await asyncio.sleep(0.2)


async def _some(cluster: Cluster, kind: str, selector: str) -> bool:
    return bool((await cluster.list(kind, label_selector=selector))["items"])


async def test_a_bad_image_in_one_service_names_it(session: Session) -> None:
    services = {name: dict(body) for name, body in TWO["services"].items()}
    services["agent"]["image"] = "registry.invalid/no/such:image"
    with pytest.raises(ProvisionError) as caught:
        await session.provision({**TWO, "services": services})
    assert caught.value.service == "agent"
    assert "registry.invalid/no/such" in caught.value.message.splitlines()[0]
    assert await session.find(run_id=session.run_id) == []


async def test_a_default_service_that_ends_at_once_is_told_at_once(session: Session) -> None:
    """A shell of an image that has no terminal, most of all."""
    with pytest.raises(ServiceFailedError, match=r"service 'default': .*ended, though it should go on") as caught:
        await session.provision({"services": {"default": {"image": DEBIAN}}})
    assert "does not end" in (caught.value.hint or "")


async def test_what_the_cluster_refuses_shows_no_environment(session: Session) -> None:
    """The controller's warning ends with the whole pod."""
    service = {"image": BUSYBOX, "command": IDLE, "env": {"TOKEN": "s3cret-words"}, "runtime": "no-such-runtime"}
    with pytest.raises(ProvisionError) as caught:
        await session.provision({"services": {"default": service}})
    assert caught.value.service == "default"
    assert "s3cret" not in f"{caught.value!s} {caught.value!r} {caught.value.hint} {getattr(caught.value, '__notes__', '')}"


async def test_a_pod_that_is_replaced_is_another_sandbox(session: Session, cluster: Cluster) -> None:
    """The controller makes a deleted pod again, at its index and empty: that must not pass for the old one."""
    async with session.environment({"services": {"default": {"image": BUSYBOX, "command": IDLE}}}) as environment:
        await environment.default.write_file("/tmp/mine", b"here")
        before = environment.ref.sandboxes[0].data["uid"]
        await cluster.delete("Pod", f"{environment.id}-0", grace=0)
        deadline = time.monotonic() + 60
        selector = f"sandboxcore.dev/run-id={session.run_id}"
        while await _uids(cluster, selector) in ([], [before]):
            assert time.monotonic() < deadline
            await asyncio.sleep(0.1)
        with pytest.raises(SandboxUnavailableError):
            while time.monotonic() < deadline:  # the old container may outlive its pod for a moment
                assert (await environment.default.exec(["cat", "/tmp/mine"])).stdout == b"here"
                await asyncio.sleep(0.1)


async def _uids(cluster: Cluster, selector: str) -> list[str]:
    return [pod["metadata"]["uid"] for pod in (await cluster.list("Pod", label_selector=selector))["items"]]


async def test_pausing_is_refused_with_the_reason(session: Session) -> None:
    async with session.environment({"services": {"default": {"image": BUSYBOX, "command": IDLE}}}) as environment:
        with pytest.raises(CapabilityError, match="whether or not the controller has a registry"):
            await environment.pause()
