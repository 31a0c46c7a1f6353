"""Templates that lack the guest, or are for other machines: what is said of them, and that the lines that are given do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import yaml
from sandboxcore_kubernetes import Cluster
from sandboxcore_opensandbox._patching import strategic_merge
from sandboxcore_opensandbox._pool_fit import fit
from sandboxcore_opensandbox._pool_template import GUEST_LINES
from sandboxcore_opensandbox.pools import Pools, pool_objects

from sandboxcore import Session
from sandboxcore.errors import CapabilityError, SandboxUnavailableError, UsageError
from tests.opensandbox import places
from tests.opensandbox.test_commands import run
from tests.opensandbox.test_pools import one

BINARY = "sandboxcore.test/binary:1"


def plain(name: str, image: str, **container: Any) -> dict[str, Any]:
    """Build a pool as somebody writes it who knows nothing of the guest."""
    pool = next(obj for obj in pool_objects(name, image, buffer=1, maximum=1) if obj["kind"] == "Pool")
    given = {"name": "sandbox", "image": image, **container}
    pool["spec"]["template"]["spec"] = {"containers": [given], "terminationGracePeriodSeconds": 1}
    return pool


def mended(pool: Mapping[str, Any]) -> dict[str, Any]:
    """Add the lines that are given."""
    body = strategic_merge(pool["spec"]["template"]["spec"], yaml.safe_load(GUEST_LINES)["spec"]["template"]["spec"])
    return {**pool, "spec": {**pool["spec"], "template": {**pool["spec"]["template"], "spec": body}}}


async def replaced(cluster: Cluster, pool: Mapping[str, Any]) -> None:
    """Make a pool anew, with all of its pods."""
    name, pools = pool["metadata"]["name"], Pools(cluster)
    if name in {known.name for known in await pools.all()}:
        await pools.delete(name)
    await pools.apply([pool])
    await pools.warm(name, 1)


async def test_an_image_without_a_shell_gets_the_lines_that_it_lacks(session: Session, cluster: Cluster) -> None:
    pool = plain("shell-less", BINARY)
    await replaced(cluster, pool)
    async with session.environment(one("shell-less")) as environment:
        with pytest.raises(SandboxUnavailableError, match="nothing can be started") as caught:
            await environment.default.exec(["/app"])
        assert GUEST_LINES in (caught.value.hint or "")
    findings = {finding.check: finding for finding in await session.doctor()}
    assert GUEST_LINES in (findings["pool shell-less"].fix or "")
    await replaced(cluster, mended(pool))
    async with session.environment(one("shell-less")) as environment:
        await environment.default.write_file("/dev/shm/file", b"there")
        assert await environment.default.read_file("/dev/shm/file") == b"there"
    await Pools(cluster).delete("shell-less")


async def test_a_read_only_root_without_the_guest_is_refused_with_the_lines(
    session: Session, cluster: Cluster, pool: str
) -> None:
    secure = {"securityContext": {"readOnlyRootFilesystem": True}, "command": ["sleep", "infinity"]}
    locked = plain("read-only", places.BUSYBOX, **secure)
    await replaced(cluster, locked)
    with pytest.raises(CapabilityError, match=r"services.default: .* pool 'read-only' can't run commands") as caught:
        await session.provision(one("read-only"))
    assert GUEST_LINES in (caught.value.hint or "")
    findings = {finding.check: finding for finding in await session.doctor()}
    assert (findings["pool read-only"].status, findings[f"pool {pool}"].status) == ("error", "ok")
    await replaced(cluster, mended(locked))
    async with session.environment(one("read-only")) as environment:
        assert (await environment.default.exec(["true"])).ok
    await Pools(cluster).delete("read-only")


@pytest.mark.tier("none")
@pytest.mark.parametrize(("mount", "writable"), [({"readOnly": True}, False), ({}, True)])
def test_a_read_only_root_may_have_a_place_to_write_to(mount: dict[str, Any], writable: bool) -> None:
    """Where the guest is carried to it."""
    secure = {"readOnlyRootFilesystem": True}
    pool = plain("read-only", "busybox", securityContext=secure, volumeMounts=[{"name": "tmp", "mountPath": "/tmp", **mount}])
    assert fit(pool).writable is writable
    assert fit(plain("plain", "busybox")).writable


@pytest.mark.tier("none")
@pytest.mark.parametrize(("given", "guest", "node"), [((), "x86_64", "amd64"), (("--arch", "arm64"), "aarch64", "arm64")])
def test_a_template_is_for_nodes_that_can_run_it(given: tuple[str, ...], guest: str, node: str) -> None:
    """A pod with a program for another machine would start over for ever."""
    documents = yaml.safe_load_all(run("pool", "template", "--image", "python:3.12", *given).stdout)
    body = next(each for each in documents if each["kind"] == "Pool")["spec"]["template"]["spec"]
    assert body["containers"][0]["command"] == [f"/.sandboxcore/guest-{guest}", "pause"]
    assert body["nodeSelector"] == {"kubernetes.io/arch": node}


@pytest.mark.tier("none")
def test_a_template_with_tasks_is_for_nodes_of_its_image() -> None:
    found = []
    for given in (None, "arm64"):
        objects = pool_objects("agents", "python:3.12", task_executor="tasks:1", architecture=given)
        found.append(objects[-1]["spec"]["template"]["spec"].get("nodeSelector"))
    assert found == [None, {"kubernetes.io/arch": "arm64"}]
    with pytest.raises(UsageError, match="architecture 'sparc': must be one of amd64, arm64"):
        pool_objects("agents", "python:3.12", architecture="sparc")
