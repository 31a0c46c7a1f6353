"""Pools from manifests: what belongs to whom, what a changed manifest changes, and where it all goes."""

from __future__ import annotations

import contextlib
import json
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from sandboxcore_kubernetes import ApiError, Cluster
from sandboxcore_opensandbox._config import OpenSandboxConfig
from sandboxcore_opensandbox._doctor import RULES
from sandboxcore_opensandbox.pools import Pools, pool_objects

from sandboxcore.errors import ProvisionError, SandboxError, UsageError
from tests.cluster import kubectl
from tests.granting import grant, until_granted
from tests.opensandbox import places
from tests.opensandbox.test_commands import run, where

KIND = "pools.sandbox.opensandbox.io"
POLICY, CONFIG_MAP = "networking.k8s.io/v1/NetworkPolicy", "ConfigMap"


def objects(name: str, *, guest: str = "", **options: Any) -> list[dict[str, Any]]:
    """Build a pool of no pods as its manifest has it: without the guest's programs."""
    options = {"buffer": 0, "maximum": 1} | options
    made = [obj for obj in pool_objects(name, places.BUSYBOX, **options) if obj["kind"] != "ConfigMap"]
    if guest:
        [volume] = made[-1]["spec"]["template"]["spec"]["volumes"]
        volume["configMap"]["name"] = guest
    return made


async def owners(cluster: Cluster, kind: str, name: str) -> list[str]:
    found = await cluster.get(kind, name)
    return sorted(reference["name"] for reference in found["metadata"].get("ownerReferences") or ())


async def remaining(cluster: Cluster, kind: str) -> set[str]:
    return {obj["metadata"]["name"] for obj in (await cluster.list(kind))["items"]}


async def test_every_pool_of_a_manifest_has_its_own_and_no_more(cluster: Cluster) -> None:
    """The policy of a pool that went with another one would leave its sandboxes open to the world."""
    pools = Pools(cluster)
    note = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "note"}, "data": {"key": "value"}}
    assert await pools.apply([*objects("one"), *objects("two"), note]) == ["one", "two"]
    for name in ("one", "two"):
        assert await owners(cluster, POLICY, f"{name}-pool") == [name]
        assert await owners(cluster, CONFIG_MAP, f"{name}-guest") == [name]
    assert await owners(cluster, CONFIG_MAP, "note") == []
    await pools.delete("one")
    await pools.delete("two")
    await cluster.delete(CONFIG_MAP, "note")


async def test_a_guest_that_is_there_is_never_taken_away_from_others(cluster: Cluster) -> None:
    pools = Pools(cluster)
    theirs = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "their-guest"}, "data": {"key": "value"}}
    await cluster.create(theirs)
    await pools.apply(objects("borrower", guest="their-guest"))
    assert await owners(cluster, CONFIG_MAP, "their-guest") == []
    assert (await cluster.get(CONFIG_MAP, "their-guest"))["data"] == {"key": "value"}
    for name in ("first", "second", "second"):  # a manifest each, and one of them twice
        await pools.apply(objects(name, guest="our-guest"))
    assert await owners(cluster, CONFIG_MAP, "our-guest") == ["first", "second"]
    for name in ("borrower", "first", "second"):
        await pools.delete(name)
    await cluster.delete(CONFIG_MAP, "their-guest")


async def test_a_pool_becomes_what_its_manifest_says_now(cluster: Cluster) -> None:
    """What the manifest no longer has is gone, too."""
    pools = Pools(cluster)
    first = objects("changing", recycle="Noop")
    first[-1]["metadata"]["labels"] = {"team": "red"}
    first[-1]["spec"]["template"]["spec"]["nodeSelector"] = {"example.com/disk": "fast"}
    first[0]["spec"] |= {"policyTypes": ["Egress", "Ingress"], "ingress": [{}]}
    await pools.apply(first)
    second = objects("changing")
    del second[-1]["spec"]["recycleStrategy"], second[-1]["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    second[-1]["spec"]["template"]["spec"].pop("nodeSelector", None)
    second[-1]["spec"]["capacitySpec"]["poolMax"] = 7
    await pools.apply(second)
    found = await cluster.get(f"{second[-1]['apiVersion']}/Pool", "changing")
    assert found["spec"]["capacitySpec"] == second[-1]["spec"]["capacitySpec"]
    assert found["spec"]["template"] == second[-1]["spec"]["template"]
    assert "Noop" not in json.dumps(found["spec"])
    assert found["metadata"]["labels"]["team"] == "red"
    policy = (await cluster.get(POLICY, "changing-pool"))["spec"]
    assert (policy["policyTypes"], policy.get("ingress")) == (["Egress"], None)
    await pools.delete("changing")


async def test_nothing_is_left_of_a_manifest_that_is_refused(cluster: Cluster) -> None:
    bad = objects("bad")
    bad[-1]["spec"]["capacitySpec"]["poolMax"] = "many"
    with pytest.raises(ProvisionError, match="create Pool 'bad'"):
        await Pools(cluster).apply([*objects("good"), *bad])
    assert "good" not in {pool.name for pool in await Pools(cluster).all()}
    assert not await remaining(cluster, POLICY) & {"good-pool", "bad-pool"}
    assert not await remaining(cluster, CONFIG_MAP) & {"good-guest", "bad-guest"}


async def test_the_role_that_the_doctor_prints_is_enough_to_manage_pools(crd: Mapping[str, Any], cluster: Cluster) -> None:
    user = f"user-{uuid.uuid4().hex[:6]}"
    await grant(cluster, user, RULES)
    async with await Cluster.connect(OpenSandboxConfig(**crd, impersonate_user=user)) as theirs:
        await until_granted(theirs, RULES)
        pools = Pools(theirs)
        for maximum in (1, 2):
            await pools.apply(objects("ruled", maximum=maximum))
        bad = objects("unruly")
        bad[-1]["spec"]["capacitySpec"]["poolMax"] = "many"
        with pytest.raises(ProvisionError, match="create Pool 'unruly'"):
            await pools.apply(bad)
        await pools.delete("ruled")
    assert "unruly-pool" not in await remaining(cluster, POLICY)
    assert "unruly-guest" not in await remaining(cluster, CONFIG_MAP)


@pytest.mark.parametrize("refused", [False, True])
async def test_two_that_create_a_pool_at_once_take_nothing_away_from_each_other(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, refused: bool
) -> None:
    """Also where the slower one is refused what it wants to change."""
    create, patch_object = Cluster.create, Cluster.patch
    ahead: list[str] = []

    async def overtaken(self: Cluster, obj: Mapping[str, Any], **options: Any) -> Any:
        if obj["kind"] == "Pool" and not ahead:
            ahead.append("raced")
            assert await Pools(cluster).apply(objects("raced")) == ahead
        return await create(self, obj, **options)

    async def refusing(self: Cluster, kind: str, *args: Any, **options: Any) -> Any:
        if refused and kind.endswith("/Pool"):
            raise ApiError("no", status=403, reason="Forbidden")
        return await patch_object(self, kind, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Cluster, "create", overtaken)
        patch.setattr(Cluster, "patch", refusing)
        with pytest.raises(SandboxError, match="change Pool 'raced'") if refused else contextlib.nullcontext():
            await Pools(cluster).apply(objects("raced"))
    assert ahead == ["raced"]
    for kind, name in ((POLICY, "raced-pool"), (CONFIG_MAP, "raced-guest")):
        assert await owners(cluster, kind, name) == ([] if refused else ["raced"])
    await Pools(cluster).delete("raced")
    if refused:  # so they are nobody's, and stay
        for kind, name in ((POLICY, "raced-pool"), (CONFIG_MAP, "raced-guest")):
            await cluster.delete(kind, name)


def documents(path: Path, made: Sequence[Mapping[str, Any]]) -> str:
    path.write_text(yaml.safe_dump_all(made))
    return str(path)


def test_the_namespace_of_a_manifest_is_that_of_all_that_is_done_with_it(crd: Mapping[str, Any], tmp_path: Path) -> None:
    """A pool of the same name in the namespace of the context is another one."""
    there, elsewhere = places.namespace(), crd["namespace"]
    config = json.loads(kubectl("config", "view", "--raw", "--minify", "-o", "json"))
    config["contexts"][0]["context"]["namespace"] = elsewhere
    (tmp_path / "config").write_text(json.dumps(config))
    kubeconfig = ("--kubeconfig", str(tmp_path / "config"))
    file = documents(tmp_path / "pool.yaml", objects("namesake", namespace=there, buffer=1))
    here = documents(tmp_path / "here.yaml", objects("namesake"))
    assert run("pool", "create", "-f", here, *where(crd)).exit_code == 0

    made = run("pool", "create", "-f", file, "--warm", "1", *kubeconfig)
    assert (made.exit_code, made.stdout) == (0, "namesake\n"), made.exception
    for command in ("create", "delete"):
        refused = run("pool", command, "-f", file, *where(crd))
        assert isinstance(refused.exception, UsageError)
        assert f"has metadata.namespace '{there}', and -n is '{elsewhere}'" in refused.exception.message
    assert run("pool", "delete", "-f", file, "--holders", *kubeconfig).stdout == "namesake\n"
    assert kubectl("-n", there, "get", KIND, "-o", "name") == ""
    assert kubectl("-n", elsewhere, "get", KIND, "namesake", "-o", "name") == f"{KIND.replace('pools', 'pool', 1)}/namesake\n"
    assert run("pool", "delete", "-f", here, *where(crd)).exit_code == 0


@pytest.mark.tier("none")
def test_a_manifest_of_several_namespaces_is_refused(tmp_path: Path) -> None:
    file = documents(tmp_path / "pool.yaml", [*objects("one", namespace="red"), *objects("two", namespace="blue")])
    refused = run("pool", "delete", "-f", file)
    assert "has objects of several namespaces: blue, red" in str(refused.exception)
    assert "both names and" in str(run("pool", "delete", "one", "-f", file).exception)


async def test_a_client_of_another_namespace_is_told(crd: Mapping[str, Any]) -> None:
    async with await Cluster.connect(OpenSandboxConfig(**crd)) as cluster:
        with pytest.raises(UsageError, match=f"'elsewhere', and '{crd['namespace']}' is asked for"):
            await Pools(cluster).apply(objects("lost", namespace="elsewhere"))
        assert "lost-pool" not in await remaining(cluster, POLICY)
