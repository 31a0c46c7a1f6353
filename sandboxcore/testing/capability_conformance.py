"""Capabilities: what a backend can't do it says before anything happens (CAP-1 and 2)."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from sandboxcore.errors import CapabilityError, ProvisionError, SandboxUserUnsupportedError
from sandboxcore.spec import EnvironmentSpec, Healthcheck, NetworkPolicy, Resources, VolumeMount, VolumeSpec

from ._conformance import Conformance, needs, sh, shell_free
from .target import Target, changed

if TYPE_CHECKING:
    from sandboxcore.environment import Sandbox
    from sandboxcore.session import Session

__all__ = ("ASKING", "CapabilityConformance")


def _volume(spec: EnvironmentSpec) -> EnvironmentSpec:
    mounts = (VolumeMount(source="conformance", target="/conformance-volume"),)
    return changed(spec, volumes=mounts).model_copy(update={"volumes": {**spec.volumes, "conformance": VolumeSpec()}})


def _two_services(spec: EnvironmentSpec) -> EnvironmentSpec:
    like = spec.services[spec.default_service]
    return spec.model_copy(update={"services": {**spec.services, "conformance-second": like}})


def _domains(spec: EnvironmentSpec) -> EnvironmentSpec:
    return changed(spec, network_policy=NetworkPolicy(allow_domains=("example.org",)))


def _internet(spec: EnvironmentSpec) -> EnvironmentSpec:
    return changed(spec, network_policy=NetworkPolicy(internet=True))


def _resources(spec: EnvironmentSpec) -> EnvironmentSpec:
    return changed(spec, resources=Resources(memory_bytes=1 << 30, pids=512))


def _healthcheck(spec: EnvironmentSpec) -> EnvironmentSpec:
    return changed(spec, healthcheck=Healthcheck(test=("CMD", "true"), interval=0.2, start_interval=0.2))


def _image(spec: EnvironmentSpec) -> EnvironmentSpec:
    return changed(spec, image="registry.invalid/sandboxcore/conformance:none")


#: Capability to a spec that asks for it, made from the target's own.
ASKING: dict[str, Callable[[EnvironmentSpec], EnvironmentSpec]] = {
    "healthcheck": _healthcheck,
    "images": _image,
    "internet": _internet,
    "multi_service": _two_services,
    "network_policy": _domains,
    "resources": _resources,
    "volumes": _volume,
}


class CapabilityConformance(Conformance):
    """A capability that is stated is there; one that is not is refused, never passed over."""

    @shell_free
    async def test_capabilities_are_words(self, session: Session, target: Target) -> None:
        """CAP-1."""
        assert session.info.name == session.backend == target.backend
        assert session.info.summary
        assert isinstance(session.info.capabilities, frozenset)
        assert all(re.fullmatch(r"[a-z][a-z0-9_]*", word) for word in session.info.capabilities)

    @shell_free
    @pytest.mark.parametrize("capability", ASKING)
    async def test_what_it_can_not_do_is_refused(self, target: Target, base_spec: EnvironmentSpec, capability: str) -> None:
        """CAP-2: with ``CapabilityError`` and nothing made, or with a line in the report."""
        async with target.session() as session:
            if capability in session.info.capabilities:
                pytest.skip("it can")
            with contextlib.suppress(CapabilityError):
                environment = await session.provision(ASKING[capability](base_spec))
                assert [entry for entry in environment.report.entries if entry.reason], f"{capability} was passed over in silence"
                await environment.destroy()
            assert await session.find(run_id=session.run_id) == []
            if target.leftovers is not None:
                assert list(target.leftovers(session.run_id)) == []

    async def test_another_user_is_had_or_refused(self, sandbox: Sandbox, scratch: str, capabilities: frozenset[str]) -> None:
        """CAP-2, EXEC-17: before anything runs."""
        if "user" in capabilities:
            assert (await sandbox.exec(["id", "-u"], user="4711")).stdout == b"4711\n"
            return
        with pytest.raises(SandboxUserUnsupportedError):
            await sandbox.exec(sh('echo ran > "$1/ran"', scratch), user="4711")
        assert (await sandbox.exec(["ls", scratch])).stdout == b""

    async def test_a_terminal_is_had_or_refused(self, sandbox: Sandbox, scratch: str, capabilities: frozenset[str]) -> None:
        """CAP-2, EXEC-22: before anything runs."""
        if "pty" in capabilities:
            async with sandbox.start(["test", "-t", "0"], pty=True) as process:
                assert (await process.wait()).exit_code == 0
            return
        with pytest.raises(CapabilityError):
            async with sandbox.start(sh('echo ran > "$1/ran"', scratch), pty=True):
                pass
        assert (await sandbox.exec(["ls", scratch])).stdout == b""

    async def test_input_is_had_or_refused(self, sandbox: Sandbox, scratch: str, capabilities: frozenset[str]) -> None:
        """CAP-2, EXEC-2."""
        if "stdin" in capabilities:
            assert (await sandbox.exec(["cat"], stdin=b"read")).stdout == b"read"
            return
        with pytest.raises(CapabilityError):
            await sandbox.exec(sh('echo ran > "$1/ran"', scratch), stdin=b"read")
        assert (await sandbox.exec(["ls", scratch])).stdout == b""

    async def test_services_share_a_volume(
        self, session: Session, base_spec: EnvironmentSpec, capabilities: frozenset[str]
    ) -> None:
        """CAP-1: who states ``multi_service`` and ``volumes`` has both. A new volume may be root's, as it is in Docker."""
        if not {"multi_service", "volumes"} <= capabilities:
            pytest.skip("the backend is not capable of both")
        user = "0" if "user" in capabilities else None
        async with session.environment(_two_services(_volume(base_spec))) as environment:
            if user is None and (await environment.default.exec(sh("id -u"))).stdout != b"0\n":
                pytest.skip("a new volume may be root's, and nobody here can act as root")
            names = [base_spec.default_service, "conformance-second"]
            for name, other in (names, names[::-1]):
                await environment[name].write_file("/conformance-volume/from", name, user=user)
                assert await environment[other].read_file("/conformance-volume/from") == name.encode()

    async def test_services_are_apart(self, session: Session, base_spec: EnvironmentSpec) -> None:
        """CAP-1: each has its own files."""
        if "multi_service" not in session.info.capabilities:
            pytest.skip("the backend is not capable of: multi_service")
        async with session.environment(_two_services(base_spec)) as environment:
            path = "/tmp/conformance-own"
            for sandbox in environment:
                await sandbox.write_file(path, sandbox.name)
            assert {sandbox.name: (await sandbox.read_file(path)).decode() for sandbox in environment} == {
                n: n for n in environment.names
            }

    @needs("batch")
    async def test_equal_environments_are_made_together(self, session: Session, base_spec: EnvironmentSpec) -> None:
        """CAP-1: each is one of its own."""
        outcomes = [outcome async for outcome in session.provision_many([base_spec] * 3)]
        environments = [outcome.environment for outcome in outcomes if outcome.environment]
        assert [outcome.error for outcome in outcomes] == [None] * 3
        assert len({environment.id for environment in environments}) == 3
        for environment in environments:
            await environment.default.write_file("/tmp/conformance-batch", environment.id)
        for environment in environments:
            assert (await environment.default.read_file("/tmp/conformance-batch")).decode() == environment.id
            await environment.destroy()

    @needs("batch", "images")
    async def test_a_batch_that_fails_leaves_nothing(self, target: Target, base_spec: EnvironmentSpec) -> None:
        """CAP-1, PROV-3: all of it fails, with the cause."""
        async with target.session() as session:
            bad = changed(base_spec, image=target.bad_image)
            outcomes = [outcome async for outcome in session.provision_many([bad] * 3)]
            assert all(isinstance(outcome.error, ProvisionError) for outcome in outcomes), outcomes
            assert await session.find(run_id=session.run_id) == []
            if target.leftovers is not None:
                assert list(target.leftovers(session.run_id)) == []
