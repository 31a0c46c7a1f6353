"""Provisioning ends with an environment, or with nothing: failures, cancellation and time limits at every point."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from sandboxcore import (
    CapabilityError,
    EnvironmentSpec,
    PluginError,
    ProvisionError,
    ProvisionTimeoutError,
    ServiceFailedError,
    ServiceSpec,
    Session,
    UsageError,
)
from sandboxcore._lease import LeaseKeeper
from sandboxcore.values import EnvironmentRef

SPEC = EnvironmentSpec(services={"a": ServiceSpec(), "b": ServiceSpec()})
POINTS = ("begin", "created:a", "created:b", "ready", "end")


@pytest.mark.parametrize("careless", [False, True], ids=["tidy", "careless"])
@pytest.mark.parametrize("point", POINTS)
async def test_cancelling_at_any_point_leaves_nothing(session: Session, world: Any, point: str, careless: bool) -> None:
    world.stop_at, world.careless = point, careless
    other = None
    task = asyncio.create_task(session.provision(SPEC))
    await world.stopped.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert world.environments == {}
    assert world.folders == []
    world.stop_at = ""
    other = await session.provision(SPEC)
    assert list(world.environments) == [other.id]


@pytest.mark.parametrize("careless", [False, True], ids=["tidy", "careless"])
@pytest.mark.parametrize("point", POINTS)
async def test_failing_at_any_point_leaves_nothing(session: Session, world: Any, point: str, careless: bool) -> None:
    world.stop_at, world.careless, world.raises = point, careless, ServiceFailedError("a: exited with 1", service="a")
    with pytest.raises(ServiceFailedError, match="a: exited with 1"):
        await session.provision(SPEC)
    assert world.environments == {}
    assert world.folders == []


@pytest.mark.parametrize("cancels", range(1, 5))
async def test_cancelling_again_while_it_is_undone_leaves_nothing(session: Session, world: Any, cancels: int) -> None:
    world.stop_at, world.careless, world.destroy_delay = "ready", True, 0.1
    task = asyncio.create_task(session.provision(SPEC))
    await world.stopped.wait()
    for _ in range(cancels):
        task.cancel()
        await asyncio.sleep(0.02)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert world.environments == {}
    assert world.folders == []


async def test_cancelling_at_every_turn_of_the_loop_leaves_nothing(session: Session, world: Any) -> None:
    """Not only where the backend waits: after each single step of the event loop."""
    finished = False
    for turns in range(200):
        task = asyncio.create_task(session.provision(SPEC))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        try:
            environment = await task
        except asyncio.CancelledError:
            assert world.environments == {}
            assert world.folders == []
        else:
            finished = True
            await environment.destroy()
            break
    assert finished
    assert turns > 8


async def test_what_the_backend_does_not_map_is_a_provision_error(session: Session, world: Any) -> None:
    world.stop_at, world.raises = "ready", ConnectionResetError("boom")
    with pytest.raises(ProvisionError, match="backend 'directory' failed: ConnectionResetError: boom") as caught:
        await session.provision(SPEC)
    assert isinstance(caught.value.__cause__, ConnectionResetError)


async def test_a_backend_that_cancels_itself_does_not_cancel_the_caller(session: Session, world: Any) -> None:
    world.stop_at, world.raises = "ready", asyncio.CancelledError()
    with pytest.raises(ProvisionError, match="gave up without saying why"):
        await session.provision(SPEC)


async def test_refusing_leaves_nothing_either(session: Session, world: Any) -> None:
    world.stop_at, world.raises, world.careless = "created:a", CapabilityError("no GPUs"), True
    with pytest.raises(CapabilityError, match="no GPUs"):
        await session.provision(SPEC)
    assert world.environments == {}


@pytest.mark.parametrize("careless", [False, True])
async def test_the_time_limit(
    make_session: Callable[..., Session], world: Any, monkeypatch: pytest.MonkeyPatch, careless: bool
) -> None:
    monkeypatch.setattr("sandboxcore._making.GRACE", 0.05)
    world.stop_at, world.careless = "created:b", careless
    began = time.monotonic()
    async with make_session(timeout=0.1) as session:
        with pytest.raises(ProvisionTimeoutError, match=r"not ready within 0\.1 s"):
            await session.provision(SPEC)
        assert world.environments == {}
    assert time.monotonic() - began < 30


async def test_what_can_not_be_undone_is_told(session: Session, world: Any, caplog: pytest.LogCaptureFixture) -> None:
    world.stop_at, world.careless, world.raises = "ready", True, ServiceFailedError("crashed")
    world.destroy_raises = [OSError("boom")]
    with pytest.raises(ServiceFailedError, match="crashed") as caught:
        await session.provision(SPEC)
    (left,) = world.environments
    assert caught.value.__notes__ == [f"environment {left} may be left behind: OSError: boom"]
    assert f"environment {left} may be left behind" in caplog.text


async def test_a_backend_that_does_not_stop_is_not_waited_for(
    session: Session, world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sandboxcore._making.UNDO_SECONDS", 0.1)
    release = asyncio.Event()

    async def stubborn(spec: Any, claim: Any, emit: Any) -> Any:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue

    monkeypatch.setattr(session._open().provisioner, "provision", stubborn)
    task = asyncio.create_task(session.provision(SPEC))
    await asyncio.sleep(0.05)
    task.cancel()
    try:
        with pytest.raises(asyncio.CancelledError) as caught:
            await asyncio.wait_for(task, 30)
        assert "did not stop within 0.1 s" in caught.value.__notes__[0]
    finally:
        release.set()
        await asyncio.sleep(0)


@pytest.mark.parametrize("value", [None, "x"])
async def test_a_backend_that_returns_what_it_must_not(
    session: Session, world: Any, monkeypatch: pytest.MonkeyPatch, value: Any
) -> None:
    provisioner = session._open().provisioner
    provision = provisioner.provision

    async def wrong(spec: Any, claim: Any, emit: Any) -> Any:
        await provision(spec, claim, emit)
        return value

    monkeypatch.setattr(provisioner, "provision", wrong)
    with pytest.raises(PluginError, match="has to return an EnvironmentRef"):
        await session.provision(SPEC)
    assert world.environments == {}


async def test_an_environment_of_another_id_is_refused(session: Session, world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    first = await session.provision(SPEC)

    async def wrong(spec: Any, claim: Any, emit: Any) -> Any:
        return first.ref

    monkeypatch.setattr(session._open().provisioner, "provision", wrong)
    with pytest.raises(PluginError, match="was not asked for"):
        await session.provision(SPEC)


# Leases


async def renewed(world: Any, times: int) -> None:
    """Wait for renewals; how long that takes depends on how busy the machine is."""
    async with asyncio.timeout(20):
        while len(world.renewals) < times:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_one_task_renews_all_in_one_call(make_session: Callable[..., Session], world: Any) -> None:
    async with make_session(lease=0.6) as session:
        ids = {(await session.provision()).id for _ in range(5)}
        kept = await session.provision(keep=True)
        # On a slow machine some were due before all were made.
        async with asyncio.timeout(20):
            while not any(set(names) == ids for _, names, _ in world.renewals):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        earlier = len(world.renewals)
        before = {name: world.environments[name].expires_at for name in world.environments}
        await renewed(world, earlier + 3)
        assert {frozenset(names) for _, names, _ in world.renewals[earlier:]} == {frozenset(ids)}
        assert all(world.environments[name].expires_at > before[name] for name in ids)
        assert world.environments[kept.id].expires_at == before[kept.id]
        await (await session.attach(kept.id)).destroy()


async def test_leases_of_their_own_are_renewed_in_their_own_time(make_session: Callable[..., Session], world: Any) -> None:
    async with make_session(lease=60.0) as session:
        await session.provision()
        short = await session.provision(lease=0.3)
        await renewed(world, 2)
        assert {(names, lease) for _, names, lease in world.renewals} == {((short.id,), 0.3)}


async def test_what_is_destroyed_is_no_longer_renewed(make_session: Callable[..., Session], world: Any) -> None:
    async with make_session(lease=0.15) as session:
        env = await session.provision()
        await env.destroy()
        before = list(world.renewals)
        await asyncio.sleep(0.2)
        assert world.renewals == before


async def test_a_lease_is_renewed_while_provisioning_takes_long(make_session: Callable[..., Session], world: Any) -> None:
    world.delay = 0.1
    async with make_session(lease=0.3) as session:
        env = await session.provision(SPEC)
        assert {name for _, names, _ in world.renewals for name in names} == {env.id}


async def test_a_kept_lease_counts_from_when_it_is_ready(make_session: Callable[..., Session], world: Any) -> None:
    world.delay = 0.05
    async with make_session(lease=2.0) as session:
        begun = time.time()
        env = await session.provision(SPEC, keep=True)
        ready = begun + len(POINTS) * world.delay - 0.05  # clocks differ by a little
        assert env.ref.expires_at >= ready + 2.0
        assert world.environments[env.id].expires_at >= ready + 2.0
        await env.destroy()


async def test_a_short_kept_lease_is_not_over_before_it_is_ready(make_session: Callable[..., Session], world: Any) -> None:
    world.delay = 0.05
    async with make_session(lease=60.0) as session:
        provisioner = session._open().provisioner
        provision, leases = provisioner.provision, []

        async def noting(spec: Any, claim: Any, emit: Any) -> Any:
            leases.append(claim.lease)
            return await provision(spec, claim, emit)

        provisioner.provision = noting  # type: ignore[method-assign]
        short = await session.provision(SPEC, keep=True, lease=0.1)
        long = await session.provision(SPEC, keep=True, lease=5000.0)
        assert leases == [60.0, 5000.0]
        assert world.renewals[0][1:] == ((short.id,), 0.1)
        for env in (short, long):
            assert world.environments[env.id].expires_at == pytest.approx(env.ref.expires_at, abs=1)
            await env.destroy()


async def test_what_is_kept_outlives_its_session(make_session: Callable[..., Session], world: Any) -> None:
    async with make_session(lease=60.0) as session:
        env, other = await session.provision(), await session.provision()
        await env.keep(5000.0)
        assert env.ref.expires_at > time.time() + 4000
        with pytest.raises(UsageError, match="a lease is a number of seconds"):
            await other.keep(0)
    assert list(world.environments) == [env.id]
    assert [names for _, names, _ in world.renewals] == [(env.id,)]


async def test_renewing_goes_on_after_a_failure(
    make_session: Callable[..., Session], world: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async with make_session(lease=0.3) as session:
        provisioner = session._open().provisioner
        renew, failures = provisioner.renew, [OSError("boom")]

        async def fails_once(environments: Any, lease: float) -> None:
            if failures:
                raise failures.pop()
            await renew(environments, lease)

        session._open().leases._renew = fails_once
        await session.provision()
        await renewed(world, 1)
    assert "renewing leases failed and will be tried again: OSError: boom" in caplog.text


async def test_many_new_claims_do_not_put_off_the_renewal(make_session: Callable[..., Session], world: Any) -> None:
    async with make_session(lease=0.3) as session:
        await session.provision()
        for _ in range(25):
            await session.provision()
            await asyncio.sleep(0.01)
        assert world.renewals


@pytest.mark.parametrize("lease", [0, -1, float("nan"), float("inf")])
async def test_a_lease_that_is_none(session: Session, lease: float) -> None:
    with pytest.raises(UsageError, match="lease is a number"):
        await session.provision(lease=lease)
    env = await session.provision()
    with pytest.raises(UsageError, match="a lease is a number"):
        await env.renew(lease)
    await env.renew(500)
    assert env.ref.expires_at > time.time() + 499


# Many


async def test_many_come_as_they_become_ready(session: Session, world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    provisioner = session._open().provisioner
    provision = provisioner.provision

    async def slow_first(spec: Any, claim: Any, emit: Any) -> Any:
        if spec.name == "slow":
            await asyncio.sleep(0.3)
        return await provision(spec, claim, emit)

    monkeypatch.setattr(provisioner, "provision", slow_first)
    specs = [{"services": {"a": {}}, "name": name} for name in ("slow", "", "")]
    order = [outcome.index async for outcome in session.provision_many(specs)]
    assert order == [1, 2, 0]


async def test_one_failure_never_blocks_another(session: Session, world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    provisioner = session._open().provisioner
    provision = provisioner.provision

    async def some_fail(spec: Any, claim: Any, emit: Any) -> Any:
        if spec.name == "fails":
            raise ServiceFailedError("crashed")
        if spec.name == "hangs":
            await asyncio.Event().wait()
        return await provision(spec, claim, emit)

    monkeypatch.setattr(provisioner, "provision", some_fail)
    names = ["hangs", "fails", "", "fails", "", ""]
    sources: list[Any] = [{"services": {"a": {}}, "name": name} for name in names]
    sources.append({"services": {}})
    sources.append("/nowhere/compose.yaml")
    outcomes: dict[int, Any] = {}
    async for outcome in session.provision_many(sources, max_in_flight=2):
        outcomes[outcome.index] = outcome
        assert (outcome.environment is None) is not (outcome.error is None)
        if len(outcomes) == len(sources) - 1:
            break
    assert {index for index, outcome in outcomes.items() if outcome.environment} == {2, 4, 5}
    assert {type(outcomes[index].error).__name__ for index in (1, 3)} == {"ServiceFailedError"}
    assert {type(outcomes[index].error).__name__ for index in (6, 7)} == {"SpecError"}


@pytest.mark.parametrize("at_once", [1, 3])
async def test_no_more_than_allowed_are_made_at_once(session: Session, world: Any, at_once: int) -> None:
    world.delay = 0.005
    outcomes = [outcome async for outcome in session.provision_many([None] * 9, max_in_flight=at_once)]
    assert len(outcomes) == 9
    assert world.most_running == at_once


async def test_breaking_out_undoes_what_was_not_handed_over(session: Session, world: Any) -> None:
    async for outcome in session.provision_many([None] * 10, max_in_flight=4):
        handed = outcome.environment
        assert handed is not None
        await asyncio.sleep(0.05)
        break
    async with asyncio.timeout(30):
        while len(world.environments) > 1:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert list(world.environments) == [handed.id]
    assert (await handed.default.exec(["true"])).ok


async def test_a_batch_that_is_broken_out_of_is_settled_when_the_session_ends(
    make_session: Callable[..., Session], world: Any
) -> None:
    async with make_session() as session:
        outcomes = session.provision_many([None] * 6, max_in_flight=6)
        await anext(outcomes)
    assert world.environments == {}
    assert world.folders == []
    await outcomes.aclose()


async def test_cancelling_a_batch_leaves_nothing(make_session: Callable[..., Session], world: Any) -> None:
    world.delay = 0.02

    async def program() -> None:
        async with make_session() as session:
            async for _ in session.provision_many([SPEC] * 10, max_in_flight=5):
                await asyncio.sleep(3600)

    task = asyncio.create_task(program())
    await asyncio.sleep(0.2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert world.environments == {}
    assert world.folders == []


async def test_an_iterable_that_fails_is_the_callers(session: Session, world: Any) -> None:
    def sources() -> Any:
        yield None
        raise LookupError("mine")

    outcomes = session.provision_many(sources(), max_in_flight=1)
    made = (await anext(outcomes)).environment
    with pytest.raises(LookupError, match="mine"):
        await anext(outcomes)
    assert made is not None
    assert [made.id] == list(world.environments)


async def test_many_of_nothing_and_a_limit_of_none(session: Session) -> None:
    assert [outcome async for outcome in session.provision_many([])] == []
    with pytest.raises(UsageError, match="max_in_flight"):
        await anext(session.provision_many([None], max_in_flight=0))


async def test_what_is_dropped_is_renewed_by_nobody_from_then_on() -> None:
    """Also not by a round that is on its way, which would undo what is claimed next."""
    entered, free = asyncio.Event(), asyncio.Event()

    async def renew(refs: Sequence[EnvironmentRef], lease: float) -> None:
        entered.set()
        await free.wait()

    async def find_mine() -> Sequence[EnvironmentRef]:
        return ()

    keeper = LeaseKeeper(renew, find_mine)
    keeper.claim("e", 0.03)
    keeper.ready(
        EnvironmentRef(
            backend="b", environment_id="e", run_id="r", owner="", created_at=0.0, expires_at=0.0, default="", sandboxes=()
        )
    )
    await entered.wait()
    keeper.drop("e")
    settled = asyncio.create_task(keeper.settled())
    await asyncio.sleep(0.05)
    assert not settled.done()
    free.set()
    await settled
    await keeper.aclose()
