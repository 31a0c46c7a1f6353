"""Whenever it is cut off, nothing is left but what cleanup finds; and any process finds it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from sandboxcore import EnvironmentSpec, Session
from sandboxcore.errors import SpecError

from .charts import BARE_POD, config_map, write_chart
from .conftest import Place

#: Helm programs and pods are slow on a machine that is busy with other tests.
pytestmark = pytest.mark.timeout(300)

Own = Callable[..., EnvironmentSpec]

#: Makes environments, says so, and goes on until it is killed.
CLIENT = """
import asyncio, json, sys
from sandboxcore import EnvironmentSpec, Session
async def main():
    config, spec, options = json.load(sys.stdin)
    async with Session("helm", config=config, **options) as session:
        print("open", flush=True)
        environment = await session.provision(EnvironmentSpec.model_validate(spec))
        print(environment.id, flush=True)
        await asyncio.sleep(600)
asyncio.run(main())
"""

#: Forks clients that kill themselves, each after another number of answers from the API server, four at a time.
NURSERY = """
import asyncio, json, os, signal, sys
from sandboxcore import EnvironmentSpec, Session
import aiohttp, kubernetes.aio, sandboxcore_helm._provisioner, sandboxcore_kubernetes.cluster as module

def die_after(answers):
    send, heard = module.Cluster._send, 0
    async def counted(self, *arguments):
        nonlocal heard
        try:
            return await send(self, *arguments)
        finally:
            heard += 1
            if heard == answers:
                os.kill(os.getpid(), signal.SIGKILL)
    module.Cluster._send = counted

async def live(config, spec):
    async with Session("helm", config=config, lease=2.0) as session:
        first = await session.provision(spec)
        await (await session.provision(spec)).destroy()
        await first.default.exec(["true"])

config, spec, count = json.load(sys.stdin)
endings, waiting, running = [], list(range(1, count + 1)), 0
while waiting or running:
    if waiting and running < 4:
        point = waiting.pop(0)
        if os.fork() == 0:
            die_after(point)
            asyncio.run(live(config, EnvironmentSpec.model_validate(spec)))
            os._exit(0)
        running += 1
        continue
    endings.append(os.waitstatus_to_exitcode(os.wait()[1]))
    running -= 1
print(json.dumps(endings))
"""


async def _client(place: Place, spec: EnvironmentSpec, **options: object) -> asyncio.subprocess.Process:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", CLIENT, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, start_new_session=True
    )
    assert process.stdin is not None
    process.stdin.write(json.dumps([place.config(), spec.model_dump(mode="json"), options]).encode())
    process.stdin.close()
    return process


async def _kill(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    await process.communicate()


async def _reaped(place: Place, session: Session) -> None:
    """Clean up what is expired until nothing is left, which must not take long once the lease is past."""
    deadline = time.monotonic() + 60
    while True:
        await session.cleanup(expired=True)
        if not place.objects():
            return
        assert time.monotonic() < deadline, place.objects()
        await asyncio.sleep(0.5)


@pytest.mark.parametrize(("engine", "points"), [("render-once", 6), ("helm", 4)])
async def test_cancelling_anywhere_leaves_nothing(place: Place, own: Own, tmp_path: Path, engine: str, points: int) -> None:
    chart = write_chart(tmp_path, {**BARE_POD, "more.yaml": config_map("{{ .Release.Name }}")})
    async with place.session(engine=engine) as session:
        begin = time.monotonic()
        await (await session.provision(own(chart))).destroy()
        whole = time.monotonic() - begin
        for part in range(points):
            task = asyncio.ensure_future(session.provision(own(chart)))
            await asyncio.sleep(whole * part / points)
            task.cancel()
            outcome = (await asyncio.gather(task, return_exceptions=True))[0]
            if not isinstance(outcome, BaseException):
                await outcome.destroy()
            assert place.objects() == set()
            assert await session.find() == []


async def test_a_killed_client_leaves_what_cleanup_finds(place: Place, busybox: EnvironmentSpec) -> None:
    """At twenty moments of its life: after each answer of the API server, whatever it was to."""
    nursery = await asyncio.create_subprocess_exec(
        sys.executable, "-c", NURSERY, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    orders = json.dumps([place.config(), busybox.model_dump(mode="json"), 20]).encode()
    out, _ = await nursery.communicate(orders)
    endings = json.loads(out)
    assert endings.count(-signal.SIGKILL) >= 15, endings
    async with place.session() as session:
        await _reaped(place, session)
        assert await session.find() == []


async def test_another_process_finds_and_takes_over(place: Place, busybox: EnvironmentSpec) -> None:
    process = await _client(place, busybox, lease=120.0, run_id="of-another-process", labels={"task": "any text / at all"})
    assert process.stdout is not None
    assert await process.stdout.readline() == b"open\n"
    made = (await process.stdout.readline()).decode().strip()
    async with place.session() as session:
        for selection in ({"run_id": "of-another-process"}, {"labels": {"task": "any text / at all"}}, {"environment_id": made}):
            found = await session.find(**selection)  # type: ignore[arg-type]
            assert made in {one.id for one in found}
        environment = await session.attach(made)
        assert environment.ref.data["release"]
        assert (await environment.default.exec(["cat"], stdin=b"through")).stdout == b"through"
        assert await session.cleanup(expired=True) == []
        await _kill(process)
        removed = await session.cleanup(run_id="of-another-process")
        assert made in {ref.environment_id for ref in removed}
        await session.cleanup(run_id="of-another-process")
    place.kubectl("delete", "leases,configmaps", "-l", "sandboxcore.dev/run-id=of-another-process")
    assert place.objects() == set()


async def test_one_renewal_for_all_of_a_run(place: Place, busybox: EnvironmentSpec) -> None:
    """Those that outlive the session have claims of their own, and a guest of their own."""
    async with place.session(session={"lease": 300.0}) as session, place.session() as other:
        kept = await session.provision(busybox, keep=True, lease=2000.0)
        held = [await session.provision(busybox) for _ in range(2)]
        [lease] = place.objects("leases")
        provisioner = session._open().provisioner
        cluster = await provisioner.cluster()  # type: ignore[attr-defined]
        before = cluster.requests
        now = time.time()
        await provisioner.renew([one.ref for one in held], 300.0)
        assert cluster.requests - before == 1
        found = {one.id: one.ref.expires_at for one in await other.find()}
        left = [found[one.id] - now for one in held]
        assert [seconds for seconds in left if not 280 < seconds < 360] == []
        assert abs(found[kept.id] - kept.ref.expires_at) < 2
        await held[0].renew(5000.0)
        found = {one.id: one.ref.expires_at for one in await other.find()}
        assert found[held[0].id] > now + 4500
        assert found[held[1].id] < now + 2000
        assert lease
    assert place.objects("leases") == set()
    async with place.session() as other:
        environment = await other.attach(kept.id)
        assert (await environment.default.exec(["true"])).exit_code == 0
        await environment.destroy()
    assert place.objects() == set()


async def test_a_run_that_others_cleaned_up_can_go_on(place: Place, busybox: EnvironmentSpec) -> None:
    """With its environments went what they shared; the next one makes that anew."""
    async with place.session() as session, place.session() as other:
        await session.provision(busybox)
        await other.cleanup(run_id=session.run_id)
        assert place.objects() == set()
        environment = await session.provision(busybox)
        assert (await environment.default.exec(["true"])).exit_code == 0
    assert place.objects() == set()


async def test_nobody_s_clock_but_the_server_s_ends_a_claim(
    place: Place, busybox: EnvironmentSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine that is ahead by more than a lease takes nothing that is claimed, and claims for no longer than it says."""
    right = time.time
    async with place.session() as session, place.session() as ahead:
        live = [await session.provision(busybox), await session.provision(busybox, keep=True, lease=300.0)]
        monkeypatch.setattr(time, "time", lambda: right() + 900)
        assert await ahead.cleanup(expired=True, dry_run=True) == []
        found = await ahead.find(run_id=session.run_id)
        assert {one.id for one in found} == {one.id for one in live}
        assert [one.ref.expires_at - time.time() for one in found if not 0 < one.ref.expires_at - time.time() < 302] == []
        expired = await ahead.provision(busybox, keep=True, lease=1.0)
        monkeypatch.undo()
        doomed = await session.cleanup(expired=True, dry_run=True)
        while not doomed:
            await asyncio.sleep(0.2)
            doomed = await session.cleanup(expired=True, dry_run=True)
        assert {ref.environment_id for ref in doomed} == {expired.id}
        await expired.destroy()
        await live[1].destroy()
    assert place.objects() == set()


async def test_what_helm_refuses_leaves_no_guest(place: Place, busybox: EnvironmentSpec) -> None:
    """One that would outlive its run has a guest of its own, which only its record leads to."""
    unknown = {"apiVersion": "sandboxcore.test/v1", "kind": "Unknown", "metadata": {"name": "some"}}
    async with place.session(engine="helm", values={"additionalResources": [unknown]}) as session:
        with pytest.raises(SpecError, match="no matches for kind"):
            await session.provision(busybox, keep=True)
        assert place.objects() == set()
    async with place.session(engine="helm") as session:
        environment = await session.provision(busybox, keep=True)
        assert (await environment.default.exec(["true"])).exit_code == 0
        await environment.destroy()
    assert place.objects() == set()
