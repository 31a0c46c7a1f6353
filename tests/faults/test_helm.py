"""Faults while environments are made and destroyed: all or nothing, and nothing is left that cleanup does not find."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from sandboxcore import EnvironmentSpec, ServiceSpec, Session
from sandboxcore.errors import SandboxError
from tests.cluster import (
    helm,
    kill_apiserver,
    kubeconfig,
    kubectl,
    make_namespace,
    mend,
    own,
    restart_containerd,
    start_apiserver,
    start_kubelet,
    stop_kubelet,
)
from tests.images import reference

from .conftest import in_thread

pytestmark = pytest.mark.timeout(600)

NAMESPACE = f"test-faults-helm-{os.getpid()}"
KINDS = "pods,services,secrets,configmaps,statefulsets,deployments,jobs,persistentvolumeclaims,networkpolicies,leases"
SERVICE = ServiceSpec(image=reference("busybox"), command=("sleep", "infinity"), pull_policy="never")
#: After which event a client dies, and how many seconds later: a start, objects made, one service ready, all ready, the next.
MOMENTS = ((1, 0.1), (2, 0.0), (3, 0.0), (5, 0.0), (7, 0.05))
SPEC = EnvironmentSpec(services={"default": SERVICE, "other": SERVICE})

#: Makes environments, destroys one, and kills itself with all its programs a moment after one of its events.
CLIENT = """
import asyncio, json, os, signal, sys
from sandboxcore import EnvironmentSpec, Session
async def main():
    config, spec, last, moment = json.load(sys.stdin)
    spec, seen = EnvironmentSpec.model_validate(spec), []
    def note(event):
        seen.append(event)
        if len(seen) == last:
            asyncio.get_running_loop().call_later(moment, os.killpg, 0, signal.SIGKILL)
    async with Session("helm", config=config, lease=3.0, on_event=note) as session:
        while True:
            first = await session.provision(spec)
            await session.provision(spec)
            await first.destroy()
asyncio.run(main())
"""


@pytest.fixture(scope="module")
def namespace() -> Iterator[str]:
    if own() is None:
        pytest.skip("this cluster is not ours to break")
    make_namespace(NAMESPACE)
    yield NAMESPACE
    mend()
    kubectl("delete", "namespace", NAMESPACE, "--wait=false")


def config(**more: Any) -> dict[str, Any]:
    return {"kubeconfig": str(kubeconfig()), "namespace": NAMESPACE, "helm": str(helm(3)), "audit": 0, **more}


def left() -> set[str]:
    """Name what is in the namespace, except for what every namespace has."""
    return {*kubectl("-n", NAMESPACE, "get", KINDS, "-o", "name").split()} - {"configmap/kube-root-ca.crt"}


def clean() -> None:
    """Clean up from the command line until nothing is left, which it must be after two minutes."""
    command = [sys.executable, "-m", "sandboxcore", "cleanup", "--expired", "--yes", "-b", "helm"]
    for key, value in config().items():
        command += ["--config", f"{key}={value}"]
    deadline = time.monotonic() + 120
    while True:
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if not (there := left()):
            return
        late = time.monotonic() > deadline
        assert not late, f"left after a cleanup that ended with {done.returncode}: {sorted(there)}\n{done.stderr}"
        time.sleep(0.5)


#: What is done one after the other while environments are made.
FAULTS: dict[str, list[Callable[[], None]]] = {
    "API server killed and restarted": [kill_apiserver, start_apiserver],
    "containerd killed and restarted": [restart_containerd],
    "kubelet killed and restarted": [stop_kubelet, start_kubelet],
}


async def test_environments_are_made_whole_or_not_at_all(namespace: str) -> None:
    try:
        # What an undoing can't take away expires while it is cleaned up, and yet a broken link is tried again for as long.
        async with Session("helm", config=config(), lease=20.0) as session:
            await (await session.provision(SPEC)).destroy()  # the chart is rendered by now
            for name, faults in FAULTS.items():
                making = [asyncio.create_task(session.provision(SPEC)) for _ in range(3)]
                await asyncio.sleep(0.3)
                await in_thread(*faults)
                made = await asyncio.gather(*making, return_exceptions=True)
                assert [one for one in made if isinstance(one, BaseException) and not isinstance(one, SandboxError)] == [], name
                for environment in made:
                    if not isinstance(environment, BaseException):
                        assert (await environment.default.exec(["echo", "well"])).stdout == b"well\n", name
                await (await session.provision(SPEC)).destroy()
    finally:
        await asyncio.to_thread(mend)
    await asyncio.to_thread(clean)


async def test_an_api_server_that_dies_under_a_destroy_leaves_nothing(namespace: str) -> None:
    try:
        async with Session("helm", config=config(), lease=3.0) as session:
            made = [await session.provision(SPEC) for _ in range(2)]
            destroying = [asyncio.create_task(environment.destroy()) for environment in made]
            await asyncio.sleep(0.1)
            await in_thread(kill_apiserver, start_apiserver)
            outcomes = await asyncio.gather(*destroying, return_exceptions=True)
            assert [one for one in outcomes if one is not None and not isinstance(one, SandboxError)] == []
    finally:
        await asyncio.to_thread(mend)
    await asyncio.to_thread(clean)


async def test_a_client_killed_at_any_moment_leaves_what_cleanup_finds(namespace: str) -> None:
    """Of two engines, after events that tell of a start, of objects that were made, of readiness and of an end."""
    at_once = asyncio.Semaphore(4)

    async def live(engine: str, last: int, moment: float) -> int:
        async with at_once:
            client = await asyncio.create_subprocess_exec(
                *(sys.executable, "-c", CLIENT), stdin=asyncio.subprocess.PIPE, start_new_session=True
            )
            settings = [config(engine=engine), SPEC.model_dump(mode="json"), last, moment]
            await client.communicate(json.dumps(settings).encode())
            return client.returncode or 0

    lives = [live("render-once", *moment) for moment in MOMENTS] + [live("helm", *moment) for moment in MOMENTS[:3]]
    assert set(await asyncio.gather(*lives)) == {-signal.SIGKILL}
    assert left(), "no client lived long enough to leave anything"
    await asyncio.to_thread(clean)
