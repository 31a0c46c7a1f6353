"""What breaks on the way: nothing hangs, nothing is left, and every error says what it was."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Any

import pytest
from sandboxcore_kubernetes import Cluster
from sandboxcore_opensandbox.pools import Pools

from sandboxcore import Session
from sandboxcore.errors import ProvisionError, SandboxError
from tests.cluster import kubectl
from tests.opensandbox import places
from tests.opensandbox.kit import DEPLOYMENT, SYSTEM

KIND = "sandbox.opensandbox.io/v1alpha1/BatchSandbox"
EMPTY = {"services": {"default": {}}}
#: A client that provisions until it is killed; it says when it begins.
CLIENT = """
import asyncio, json, sys
from sandboxcore import Session
async def main(config, spec, run_id):
    async with Session("opensandbox", config=config, run_id=run_id, lease=5.0) as session:
        print("begun", flush=True)
        await session.provision(spec)
        await asyncio.sleep(60)
asyncio.run(main(*json.loads(sys.argv[1])))
"""


async def test_the_controller_killed_in_mid_allocation(crd: Mapping[str, Any], session: Session, pool: str) -> None:
    """What is asked for while there is no controller comes when there is one again."""
    kubectl(
        "-n", SYSTEM, "delete", "pod", "-l", "control-plane=controller-manager", "--grace-period=0", "--force", "--wait=false"
    )
    async with Session("opensandbox", config={**crd, "pool": pool, "pool_wait": 100.0}) as other:
        outcomes = [outcome async for outcome in other.provision_many([EMPTY] * 2)]
        assert [outcome.error for outcome in outcomes] == [None, None]
    kubectl("-n", SYSTEM, "rollout", "status", "--timeout=90s", f"deployment/{DEPLOYMENT}")


async def test_a_pool_deleted_under_its_users(crd: Mapping[str, Any], cluster: Cluster) -> None:
    """The controller never lets go of them: that is said, with the way out, and done where it was asked for."""
    where = crd["namespace"]
    await asyncio.to_thread(places.make_pool, where, "doomed", buffer=1, maximum=1)
    async with Session("opensandbox", config={**crd, "pool": "doomed"}) as session:
        environment = await session.provision(EMPTY)
        await cluster.delete("sandbox.opensandbox.io/v1alpha1/Pool", "doomed")
        [error] = await asyncio.gather(environment.destroy(), return_exceptions=True)
        if error is not None:  # controllers since August 2026 let go by themselves
            assert isinstance(error, SandboxError)
            assert "will stay for ever" in error.message
            assert f"unstick {environment.id}" in (error.hint or "")
            async with Session("opensandbox", config={**crd, "strip_finalizers": True}) as other:
                await other.cleanup(environment_id=environment.id)
        assert await session.find(run_id=session.run_id) == []


async def test_a_pool_whose_pods_can_not_start(crd: Mapping[str, Any], cluster: Cluster) -> None:
    """OpenSandbox says nothing of it: its objects have no status at all."""
    from sandboxcore_opensandbox.pools import pool_objects

    pools = Pools(cluster)
    await pools.apply(pool_objects("broken", "registry.invalid/no/such:image", buffer=1, maximum=2, namespace=crd["namespace"]))
    async with Session("opensandbox", config={**crd, "pool": "broken"}) as session:
        with pytest.raises(ProvisionError) as caught:
            await session.provision(EMPTY)
        assert "pods of pool 'broken' can't start" in caught.value.message.splitlines()[0]
        assert "registry.invalid/no/such" in caught.value.message
        assert await session.find(run_id=session.run_id) == []
    await pools.delete("broken")


async def test_a_client_killed_at_any_moment_leaves_nothing_for_long(crd: Mapping[str, Any], pool: str) -> None:
    """Half of ten moments out of a pool, half from an image: what there is by then carries its claim, and can be found."""
    for begin in (0, 5):  # five at once are enough for the machine
        await asyncio.gather(*(_killed(crd, pool, moment) for moment in range(begin, begin + 5)))


async def _killed(crd: Mapping[str, Any], pool: str, moment: int) -> None:
    run_id = f"killed-{moment}-{os.getpid()}-{int(time.time())}"
    pooled = moment % 2 == 0
    spec = EMPTY if pooled else {"services": {"default": {"image": places.BUSYBOX, "command": ["sleep", "infinity"]}}}
    config = {**crd, "expire_grace": 1.0} | ({"pool": pool} if pooled else {})
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", CLIENT, json.dumps([config, spec, run_id]), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"begun\n"
    await asyncio.sleep(0.15 * moment)
    process.kill()
    await process.wait()
    deadline = time.monotonic() + 90
    async with Session("opensandbox", config=dict(crd)) as session:
        # A request that was on its way may arrive after the first look.
        while left := [*await session.find(run_id=run_id), *await asyncio.to_thread(places.left_over, crd["namespace"], run_id)]:
            assert time.monotonic() < deadline, left
            await session.cleanup(run_id=run_id)
            await asyncio.sleep(0.2)
