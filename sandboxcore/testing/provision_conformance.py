"""Environments: made whole or not at all, and taken away (PROV-1 to 7)."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from sandboxcore.errors import ProvisionError, ProvisionTimeoutError, SandboxError, ServiceFailedError
from sandboxcore.spec import Dependency, EnvironmentSpec, Healthcheck, ServiceSpec
from sandboxcore.values import ExecResult

from ._conformance import Conformance, needs, sh, shell_free
from .target import Target, changed

if TYPE_CHECKING:
    from sandboxcore.environment import Environment
    from sandboxcore.session import Session

__all__ = ("ProvisionConformance",)

FAST = {"interval": 0.1, "timeout": 5.0, "retries": 2, "start_interval": 0.1}


def _command(script: str) -> dict[str, Any]:
    return {"entrypoint": ("/bin/sh", "-c", script), "command": ()}


def _ends(spec: EnvironmentSpec) -> EnvironmentSpec:
    check = Healthcheck(test=("CMD", "test", "-e", "/never"), **(FAST | {"retries": 100_000}))
    return changed(spec, healthcheck=check, **_command("echo last-words-on-stdout; echo last-words >&2; sleep 0.3; exit 43"))


def _unhealthy(spec: EnvironmentSpec) -> EnvironmentSpec:
    check = Healthcheck(test=("CMD-SHELL", "echo the-check-said-this; exit 1"), **FAST)
    return changed(spec, healthcheck=check, **_command("sleep 300"))


def _no_program(spec: EnvironmentSpec) -> EnvironmentSpec:
    return changed(spec, entrypoint=("/no/such/program",), command=())


FAILURES: dict[str, tuple[Callable[[EnvironmentSpec], EnvironmentSpec], type[ProvisionError], tuple[str, ...]]] = {
    "ends": (_ends, ServiceFailedError, ("43", "last-words")),
    "unhealthy": (_unhealthy, ServiceFailedError, ("health",)),
    "no-program": (_no_program, ProvisionError, ("o such file",)),
}


class ProvisionConformance(Conformance):
    """What ``provision`` returns, how it fails, what it leaves, and who may take it away."""

    @needs("healthcheck")
    async def test_it_is_ready_when_it_returns(self, session: Session, base_spec: EnvironmentSpec) -> None:
        """PROV-1: a healthcheck has been passed, not only begun."""
        check = Healthcheck(test=("CMD", "test", "-e", "/tmp/conformance-ready"), **(FAST | {"retries": 1000}))
        spec = changed(base_spec, healthcheck=check, **_command("sleep 0.7; : > /tmp/conformance-ready; exec sleep 300"))
        async with session.environment(spec) as environment:
            looked = await environment.default.exec(["test", "-e", "/tmp/conformance-ready"])
        assert looked.exit_code == 0

    async def test_it_can_be_used_at_once(self, environment: Environment) -> None:
        """PROV-1: every sandbox of it."""
        for sandbox in environment:
            result = await sandbox.exec(sh("echo here"))
            assert (sandbox.name, result.stdout) == (sandbox.name, b"here\n")

    @needs("multi_service")
    async def test_the_default_service_comes_first(self, session: Session, base_spec: EnvironmentSpec) -> None:
        """PROV-1: wherever the spec has it, and services keep their names."""
        like = base_spec.services[base_spec.default_service]
        names = ("zebra", "second", "with-dash", "Upper_and_under")
        spec = base_spec.model_copy(update={"services": dict.fromkeys(names, like), "default": "second"})
        async with session.environment(spec) as environment:
            assert environment.names[0] == "second"
            assert sorted(environment.names) == sorted(names)
            assert [sandbox.name for sandbox in environment] == list(environment.names)
            assert environment.default.name == environment["second"].name == "second"

    @needs("multi_service", "healthcheck")
    async def test_what_others_depend_on_is_ready_first(self, session: Session, base_spec: EnvironmentSpec) -> None:
        """PROV-1: a service starts when what it waits for is healthy, not before."""
        like = base_spec.services[base_spec.default_service]
        check = Healthcheck(test=("CMD", "test", "-e", "/tmp/conformance-up"), **(FAST | {"retries": 1000}))
        note = "date +%s > /tmp/conformance-up; exec sleep 300"
        first = like.model_copy(update=_command(f"sleep 1.2; {note}") | {"healthcheck": check})
        then = like.model_copy(update=_command(note) | {"depends_on": {"first": Dependency(condition="healthy")}})
        spec = base_spec.model_copy(update={"services": {"then": then, "first": first}, "default": "then"})
        async with session.environment(spec) as environment:
            looked = sh("until [ -s /tmp/conformance-up ]; do sleep 0.05; done; cat /tmp/conformance-up")
            up, began = [int((await environment[name].exec(looked, timeout=20)).text()) for name in ("first", "then")]
        assert began >= up

    @needs("healthcheck")
    @pytest.mark.parametrize("failure", FAILURES)
    async def test_a_failure_names_its_cause(
        self, session: Session, base_spec: EnvironmentSpec, target: Target, failure: str
    ) -> None:
        """PROV-2, PROV-3: in the first line, as soon as it is certain; and nothing is left."""
        break_it, kind, words = FAILURES[failure]
        begin = time.monotonic()
        with pytest.raises(kind) as caught:
            await session.provision(break_it(base_spec))
        assert time.monotonic() - begin < 10 + target.slack
        assert not isinstance(caught.value, ProvisionTimeoutError)
        message = str(caught.value)
        assert base_spec.default_service in message.splitlines()[0]
        assert [word for word in words if word not in message] == [], message
        assert caught.value.service == base_spec.default_service

    @needs("healthcheck")
    async def test_the_causes_first_line_has_it(self, session: Session, base_spec: EnvironmentSpec) -> None:
        """PROV-2: how the service ended is not buried under its log."""
        with pytest.raises(ServiceFailedError) as caught:
            await session.provision(_ends(base_spec))
        assert "43" in str(caught.value).splitlines()[0]

    @needs("healthcheck")
    async def test_a_failure_shows_no_secret(self, session: Session, base_spec: EnvironmentSpec) -> None:
        """PROV-2: values of the environment are not for messages."""
        with pytest.raises(ProvisionError) as caught:
            await session.provision(changed(_no_program(base_spec), env={"TOKEN": "s3cret-words"}))
        assert "s3cret" not in f"{caught.value!s} {caught.value!r} {caught.value.hint}"

    @shell_free
    @needs("images")
    async def test_an_image_that_can_not_be_pulled_is_told(
        self, session: Session, base_spec: EnvironmentSpec, target: Target
    ) -> None:
        """PROV-2, PROV-3."""
        with pytest.raises(SandboxError) as caught:
            await session.provision(changed(base_spec, image=target.bad_image))
        assert target.bad_image.rpartition(":")[0] in str(caught.value).splitlines()[0]

    @needs("healthcheck")
    async def test_time_that_runs_out_names_what_it_waited_for(self, target: Target, base_spec: EnvironmentSpec) -> None:
        """PROV-2, PROV-3."""
        check = Healthcheck(test=("CMD", "test", "-e", "/never"), **(FAST | {"retries": 100_000}))
        async with target.session(timeout=1.5 + target.slack / 10) as session:
            with pytest.raises(ProvisionTimeoutError) as caught:
                await session.provision(changed(base_spec, healthcheck=check, **_command("sleep 300")))
            assert base_spec.default_service in str(caught.value).splitlines()[0]
            await _nothing_left(target, session)

    @needs("healthcheck")
    @pytest.mark.parametrize("failure", FAILURES)
    async def test_a_failure_leaves_nothing(self, target: Target, base_spec: EnvironmentSpec, failure: str) -> None:
        """PROV-3: not even before the session ends."""
        async with target.session() as session:
            with pytest.raises(ProvisionError):
                await session.provision(FAILURES[failure][0](base_spec))
            await _nothing_left(target, session)

    @shell_free
    async def test_cancelling_at_any_point_leaves_nothing(self, target: Target, base_spec: EnvironmentSpec) -> None:
        """PROV-3."""
        async with target.session() as session:
            whole = math.inf
            for _ in range(2):  # one of them may have been held up
                begin = time.monotonic()
                await (await session.provision(base_spec)).destroy()
                whole = min(whole, time.monotonic() - begin)
            for part in (0.0, 0.05, 0.15, 0.3, 0.45, 0.6, 0.75, 0.9):
                task = asyncio.ensure_future(session.provision(base_spec))
                await asyncio.sleep(whole * part)
                task.cancel()
                outcome = (await asyncio.gather(task, return_exceptions=True))[0]
                if not isinstance(outcome, BaseException):
                    await outcome.destroy()
                await _nothing_left(target, session)

    async def test_leaving_the_session_leaves_nothing(self, target: Target, base_spec: EnvironmentSpec) -> None:
        """PROV-3: also when an error leaves it, and with commands that run."""
        with contextlib.suppress(KeyError):
            async with target.session() as session:
                environment = await session.provision(base_spec)
                running = asyncio.ensure_future(environment.default.exec(["sleep", "300"]))
                await asyncio.sleep(0.1)
                raise KeyError
        outcome = (await asyncio.gather(running, return_exceptions=True))[0]
        assert isinstance(outcome, SandboxError) or (isinstance(outcome, ExecResult) and outcome.exit_code == 137)
        async with target.session() as other:
            assert await other.find(run_id=session.run_id) == []
        _no_leftovers(target, session)

    @shell_free
    async def test_destroy_can_be_repeated(self, target: Target, base_spec: EnvironmentSpec) -> None:
        """PROV-4: by whoever, one after the other or at once; it is gone when it returns."""
        async with target.session() as session, target.session() as other:
            environment = await session.provision(base_spec)
            same = await other.attach(environment.id)
            await environment.destroy()
            await _nothing_left(target, session)
            await environment.destroy()
            await same.destroy()
            environment = await session.provision(base_spec)
            same = await other.attach(environment.id)
            await asyncio.gather(environment.destroy(), environment.destroy(), same.destroy())
            await _nothing_left(target, session)

    @shell_free
    async def test_everything_carries_its_claim(self, target: Target, base_spec: EnvironmentSpec) -> None:
        """PROV-5."""
        options = {"owner": "the-owner", "lease": 90.0, "labels": {"of": "the-session"}}
        async with target.session(**options) as session, target.session() as other:
            before = time.time()
            environment = await session.provision(base_spec, labels={"mine": "Any Word/1"})
            after = time.time()
            refs = [environment.ref, *(found.ref for found in await other.find(run_id=session.run_id))]
            assert len(refs) == 2
            for ref in refs:
                assert (ref.run_id, ref.environment_id, ref.owner) == (session.run_id, environment.id, "the-owner")
                assert before - 2 <= ref.created_at <= after + 2
                assert before + 88 <= ref.expires_at <= time.time() + 92
                assert dict(ref.labels).items() >= {"of": "the-session", "mine": "Any Word/1"}.items()
                assert {sandbox.environment_id for sandbox in ref.sandboxes} == {environment.id}

    @shell_free
    async def test_cleanup_takes_what_is_expired(self, target: Target, base_spec: EnvironmentSpec) -> None:
        """PROV-6, PROV-7: and what has been renewed it leaves."""
        async with target.session() as session:
            try:
                expiring = await session.provision(base_spec, lease=target.lease, keep=True)
                renewed = await session.provision(base_spec, lease=target.lease, keep=True)
                await renewed.renew(120.0)
                await asyncio.sleep(target.lease + 0.5)
                planned = await session.cleanup(expired=True, run_id=session.run_id, dry_run=True)
                assert [ref.environment_id for ref in planned] in ([expiring.id], [])
                await session.cleanup(expired=True, run_id=session.run_id)
                left = {environment.id for environment in await session.find(run_id=session.run_id)}
                assert left == {renewed.id}
            finally:
                await session.cleanup(run_id=session.run_id)

    async def test_cleanup_never_takes_what_is_held(self, target: Target, base_spec: EnvironmentSpec) -> None:
        """PROV-7: a session that lives renews its leases by itself, long past the first one."""
        async with target.session(lease=target.lease) as holder, target.session() as other:
            environment = await holder.provision(base_spec)
            until = time.monotonic() + 2.5 * target.lease
            while time.monotonic() < until:
                removed = await other.cleanup(expired=True, run_id=holder.run_id)
                assert environment.id not in {ref.environment_id for ref in removed}
                await asyncio.sleep(target.lease / 5)
            assert (await environment.default.exec(["true"])).exit_code == 0

    @shell_free
    async def test_cleanup_takes_a_run_or_an_environment(self, target: Target, base_spec: EnvironmentSpec) -> None:
        """PROV-6: by id also what a live owner holds, and nothing else; a dry run takes nothing."""
        async with target.session() as session, target.session() as other, target.session() as bystander:
            first, second = await session.provision(base_spec), await session.provision(base_spec)
            untouched = await bystander.provision(base_spec)
            planned = await other.cleanup(run_id=session.run_id, dry_run=True)
            assert {ref.environment_id for ref in planned} == {first.id, second.id}
            assert len(await other.find(run_id=session.run_id)) == 2
            removed = await other.cleanup(environment_id=first.id)
            assert [ref.environment_id for ref in removed] == [first.id]
            assert [environment.id for environment in await other.find(run_id=session.run_id)] == [second.id]
            await other.cleanup(run_id=session.run_id)
            await _nothing_left(target, session)
            assert [environment.id for environment in await other.find(run_id=bystander.run_id)] == [untouched.id]

    @needs("multi_service", "healthcheck")
    async def test_one_failing_service_takes_all_away(self, target: Target, base_spec: EnvironmentSpec) -> None:
        """PROV-2, PROV-3: and it is the one that is named."""
        healthy = base_spec.services[base_spec.default_service]
        broken = _no_program(base_spec).services[base_spec.default_service]
        services = {"fine": healthy, "broken": broken, "fine-too": ServiceSpec.model_validate(healthy.model_dump())}
        spec = base_spec.model_copy(update={"services": services, "default": "fine"})
        async with target.session() as session:
            with pytest.raises(ProvisionError) as caught:
                await session.provision(spec)
            assert caught.value.service == "broken"
            await _nothing_left(target, session)

    @needs("healthcheck")
    async def test_one_failure_blocks_nobody_else(self, target: Target, base_spec: EnvironmentSpec) -> None:
        """PROV-2: many are provisioned at once, each with an outcome of its own."""
        async with target.session() as session:
            specs = [base_spec, _no_program(base_spec), base_spec]
            outcomes = {outcome.index: outcome async for outcome in session.provision_many(specs)}
            assert sorted(outcomes) == [0, 1, 2]
            assert isinstance(outcomes[1].error, ProvisionError)
            for index in (0, 2):
                environment = outcomes[index].environment
                assert environment is not None
                assert (await environment.default.exec(["true"])).exit_code == 0


async def _nothing_left(target: Target, session: Session) -> None:
    assert await session.find(run_id=session.run_id) == []
    _no_leftovers(target, session)


def _no_leftovers(target: Target, session: Session) -> None:
    if target.leftovers is not None:
        assert list(target.leftovers(session.run_id)) == []
