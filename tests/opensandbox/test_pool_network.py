"""Who reaches the pods of a pool: siblings and the controller do, and nobody gets at the task-executor of somebody else."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest
from sandboxcore_kubernetes import Cluster
from sandboxcore_opensandbox.pools import Pools

from sandboxcore import Sandbox, Session
from tests.opensandbox import places
from tests.opensandbox.kit import IMAGES
from tests.opensandbox.test_pools import config_of

TASKS = 5758
#: A line on standard output if somebody listens there.
KNOCK = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 5); print('open')"
SERVE = "import socket; s = socket.create_server(('', 8080)); print('ready', flush=True)\nwhile True: s.accept()"

#: One from its image, which may go anywhere in the cluster.
OUTSIDER = {
    "services": {
        "default": {
            "image": places.DEBIAN,
            "command": ["sleep", "infinity"],
            "network_policy": {"allow_entities": ["cluster"]},
        }
    }
}


async def knock(sandbox: Sandbox, address: str, port: int) -> bool:
    done = await sandbox.exec(["python3", "-c", KNOCK, address, str(port)], timeout=60)
    assert done.ok or "timed out" in done.error_text() or "refused" in done.error_text(), done.error_text()
    return done.stdout == b"open\n"


async def _until_open(sandbox: Sandbox, name: str) -> None:
    while not await knock(sandbox, name, 8080):
        pass


async def address(cluster: Cluster, sandbox: Sandbox) -> str:
    found: str = (await cluster.get("Pod", sandbox.ref.data["pod"]))["status"]["podIP"]
    return found


@pytest.mark.parametrize("options", [{}, {"open_network": True}], ids=["closed", "open"])
async def test_no_sandbox_gives_tasks_to_another(crd: Mapping[str, Any], cluster: Cluster, options: dict[str, Any]) -> None:
    """The executor asks nobody who they are; the controller must reach it all the same, or no command would run."""
    executor = IMAGES["task-executor"]
    await asyncio.to_thread(places.make_pool, crd["namespace"], "watched", buffer=3, maximum=3, task_executor=executor, **options)
    serve = {"services": {"agent": {}, "victim": {"command": ["python3", "-c", SERVE]}}}
    alone = {"services": {"default": {}}}
    async with (
        Session("opensandbox", config=config_of(crd, pool="watched")) as session,
        Session("opensandbox", config=dict(crd)) as unpooled,
        session.environment(serve) as environment,
        session.environment(alone) as stranger,
        unpooled.environment(OUTSIDER) as made,
    ):
        victim = environment["victim"]
        assert await knock(victim, "127.0.0.1", TASKS)
        await asyncio.wait_for(_until_open(environment["agent"], "victim"), 60)
        there = await address(cluster, victim)
        for other in (stranger.default, environment["agent"], made.default):
            assert not await knock(other, there, TASKS)
    await Pools(cluster).delete("watched")


async def test_names_are_asked_of_the_clusters_resolver_only(crd: Mapping[str, Any], cluster: Cluster) -> None:
    """Whoever listens on port 53 elsewhere would be a way out."""
    await asyncio.to_thread(places.make_pool, crd["namespace"], "named", buffer=1, maximum=1)
    await asyncio.to_thread(places.make_pool, crd["namespace"], "free", buffer=2, maximum=2, open_network=True)
    async with (
        Session("opensandbox", config=config_of(crd, pool="named")) as session,
        Session("opensandbox", config=config_of(crd, pool="free")) as free,
        session.environment({"services": {"default": {}}}) as environment,
        free.environment({"services": {"control": {}, "elsewhere": {}}}) as others,
        others["elsewhere"].start(["python3", "-c", SERVE.replace("8080", "53")]),
    ):
        there = await address(cluster, others["elsewhere"])
        while not await knock(others["control"], there, 53):
            pass
        assert not await knock(environment.default, there, 53)
        resolver = (await environment.default.exec(["cat", "/etc/resolv.conf"])).text().split("nameserver ")[1].split()[0]
        assert await knock(environment.default, resolver, 53)
        looked = "import socket; print(socket.gethostbyname('kubernetes.default.svc.cluster.local'))"
        assert (await environment.default.exec(["python3", "-c", looked], timeout=60)).ok
    for pool in ("named", "free"):
        await Pools(cluster).delete(pool)
