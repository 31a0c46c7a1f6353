"""Faults under running commands in pods: each command runs exactly once, or its error says honestly what is not known."""

from __future__ import annotations

import asyncio
import functools
import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from sandboxcore.errors import SandboxUnavailableError, Started
from sandboxcore.values import ExecRequest
from tests.cluster import evict, kill_apiserver, kubectl, mend, restart_containerd, start_apiserver, start_kubelet, stop_kubelet

from .conftest import NAMESPACE, Outcome, Sandbox, in_thread, make_pod, reached, wired

pytestmark = pytest.mark.timeout(300)

AT_ONCE = 10


async def underway(sandbox: Sandbox, names: list[str]) -> None:
    """Wait until commands of these names have started."""
    async with asyncio.timeout(60):
        while True:
            result = await sandbox.guest.executor.exec(ExecRequest(argv=["cat", "/tmp/ran"]))
            if set(names) <= set(result.stdout.decode().split()):
                return
            await asyncio.sleep(0.1)


async def through(sandbox: Sandbox, *faults: Callable[[], object]) -> list[Outcome]:
    """Let faults come in the midst of commands, start one more while they last, and return what became of all."""
    names = [f"before{number}" for number in range(AT_ONCE)]
    running = [asyncio.create_task(sandbox.count(name)) for name in names]
    await underway(sandbox, names)
    making = in_thread(*faults)
    late = asyncio.create_task(sandbox.count("during", 3))
    try:
        await making
    finally:
        await asyncio.to_thread(mend)
        outcomes = await asyncio.gather(*running, late)
    return outcomes


@pytest.mark.parametrize(
    "faults",
    [
        pytest.param([kill_apiserver, start_apiserver], id="API server killed and restarted"),
        pytest.param([restart_containerd], id="containerd killed and restarted"),
        pytest.param([stop_kubelet, start_kubelet], id="kubelet killed and restarted"),
    ],
)
async def test_commands_outlive_the_clusters_daemons(sandbox: Sandbox, faults: list[Callable[[], object]]) -> None:
    outcomes = await through(sandbox, *faults)
    assert [outcome for outcome in outcomes if outcome.started is not None and outcome.name != "during"] == []
    await sandbox.honest(outcomes)
    await asyncio.to_thread(sandbox.alone)


async def test_commands_outlive_cuts_at_any_byte(busybox: str, tmp_path: Path) -> None:
    rolls = random.Random(5)
    async with wired(tmp_path) as (wire, kubeconfig), reached(busybox, kubeconfig) as sandbox:
        await sandbox.run("rm", "-f", "/tmp/ran")
        running = [asyncio.create_task(sandbox.count(f"cut{number}", 40, bytes(300_000))) for number in range(AT_ONCE)]
        while not all(task.done() for task in running) and wire.cuts < 12:
            await asyncio.sleep(rolls.uniform(0.1, 0.8))
            wire.cut()
        outcomes = await asyncio.gather(*running)
        assert wire.cuts >= 3
        assert [outcome for outcome in outcomes if outcome.started is not None] == []
        await sandbox.honest(outcomes)


async def test_a_link_that_has_gone_silent_is_left_for_another(busybox: str, tmp_path: Path) -> None:
    """A link that carries nothing any more and does not break, as when a machine between has forgotten it."""
    async with wired(tmp_path) as (wire, kubeconfig), reached(busybox, kubeconfig, keepalive=2.0) as sandbox:
        await sandbox.run("rm", "-f", "/tmp/ran", "/tmp/frozen")
        running = asyncio.create_task(sandbox.count("silent", 60, after="/tmp/frozen"))
        await underway(sandbox, ["silent"])
        wire.freeze()
        await asyncio.to_thread(kubectl, "-n", NAMESPACE, "exec", busybox, "--", "touch", "/tmp/frozen")
        outcome = await running
        assert outcome.started is None, outcome
        await sandbox.honest([outcome])


@pytest.mark.parametrize("end", ["deleted", "evicted"])
async def test_a_pod_that_goes_is_said_at_once(namespace: str, end: str) -> None:
    make_pod(end)
    async with reached(end) as sandbox:
        names = [f"going{number}" for number in range(3)]
        running = [asyncio.create_task(sandbox.count(name, 2000)) for name in names]
        await underway(sandbox, names)
        if end == "deleted":
            await asyncio.to_thread(kubectl, "-n", namespace, "delete", "pod", end, "--wait=false")
        else:
            await asyncio.to_thread(evict, namespace, end)
        async with asyncio.timeout(60):
            outcomes = await asyncio.gather(*running)
        assert {outcome.started for outcome in outcomes} <= {"yes", "unknown"}, outcomes
        assert all(end in outcome.problem for outcome in outcomes), "the error does not name the pod"
        with pytest.raises(SandboxUnavailableError) as error:
            await sandbox.run("true")
        assert error.value.started == "no"


async def eaten(sandbox: Sandbox) -> tuple[Started | None, int | None]:
    """Take more memory than there is, and return what is said of that: of the link, or of the command."""
    command = ["dd", "if=/dev/zero", "of=/dev/null", "bs=200M", "count=1"]
    try:
        result = await sandbox.guest.executor.exec(ExecRequest(argv=command, timeout=60))
    except SandboxUnavailableError as error:
        return error.started, None
    return None, result.exit_code


async def test_memory_that_runs_out_kills_the_command_alone_or_is_said(namespace: str) -> None:
    make_pod("small", container={"resources": {"limits": {"memory": "64Mi"}}})
    async with reached("small") as sandbox:
        started, exit_code = await eaten(sandbox)
        assert started in ("yes", "unknown") or exit_code == 137
        async with asyncio.timeout(60):
            outcome = await sandbox.count("after", 3)
        restarts = kubectl("-n", namespace, "get", "pod", "small", "-o", "jsonpath={.status.containerStatuses[0].restartCount}")
        assert outcome.started is None or restarts != "0", outcome


async def test_policies_do_not_touch_commands(sandbox: Sandbox) -> None:
    """Commands come through the node, so what pods may send and receive changes nothing for them."""
    running = asyncio.create_task(sandbox.count("flipped", 60))
    await underway(sandbox, ["flipped"])
    policy = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "flip"},
        "spec": {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]},
    }
    flip = functools.partial(kubectl, "-n", NAMESPACE, "apply", "-f", "-", text=json.dumps(policy))
    flop = functools.partial(kubectl, "-n", NAMESPACE, "delete", "networkpolicy", "flip")
    for _ in range(2):
        await in_thread(flip)
        await sandbox.run("true")
        await in_thread(flop)
    outcome = await running
    assert outcome.started is None
    await sandbox.honest([outcome])
