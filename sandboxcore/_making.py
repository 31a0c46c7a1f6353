"""Have a backend make one environment, and see to it that nothing is left when that does not end well."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from ._closing import each, finish
from .errors import PluginError, ProvisionError, ProvisionTimeoutError, SandboxError
from .values import Claim, EnvironmentRef, Selector

if TYPE_CHECKING:
    from ._runtime import Runtime
    from .spec import EnvironmentSpec

__all__ = ("Making", "make", "make_batch")

Making: TypeAlias = "asyncio.Task[Sequence[EnvironmentRef]]"

_log = logging.getLogger("sandboxcore")

#: Seconds past its time limit that a backend has for failing by itself, which says more than our own limit could.
GRACE = 3.0
#: Seconds that a backend gets for undoing what it began, before what it left is looked for and destroyed.
UNDO_SECONDS = 60.0


async def make(runtime: Runtime, spec: EnvironmentSpec, claim: Claim) -> EnvironmentRef:
    """Provision an environment.

    Raises:
        CapabilityError: The backend can't do what the spec asks for. Nothing is left.
        ProvisionError: With the cause. Nothing is left, also when the awaiting task is cancelled.
    """
    emit = runtime.events.of_environment(claim.environment_id)

    async def alone() -> Sequence[EnvironmentRef]:
        return (await runtime.provisioner.provision(spec, claim, emit),)

    return (await _make(runtime, spec, alone(), (claim,)))[0]


async def make_batch(runtime: Runtime, spec: EnvironmentSpec, claims: Sequence[Claim]) -> Sequence[EnvironmentRef]:
    """Provision one environment a claim, all or none, and return them in the order of the claims.

    Raises:
        CapabilityError: The backend can't do what the spec asks for. Nothing is left.
        ProvisionError: With the cause. Nothing is left of any, also when the awaiting task is cancelled.
    """
    emit = runtime.events.of_environment("")
    return await _make(runtime, spec, runtime.provisioner.provision_batch(spec, claims, emit), claims)


async def _make(
    runtime: Runtime, spec: EnvironmentSpec, work: Coroutine[Any, Any, Sequence[EnvironmentRef]], claims: Sequence[Claim]
) -> Sequence[EnvironmentRef]:
    claim = claims[0]
    task = asyncio.create_task(work, name=f"provision {claim.environment_id}")
    runtime.provisioning.add(task)
    task.add_done_callback(runtime.provisioning.discard)
    try:
        # The time limit and a cancellation reach the backend once each, so that neither cuts into its own undoing.
        await asyncio.wait((task,), timeout=claim.timeout + GRACE)
        if runtime.closing:
            raise ProvisionError("the session was closed before the environment was ready")
        return _result(task, spec, runtime.backend, claims)
    except BaseException as error:
        try:
            undo = _undo(runtime, task, claims)
            failures = await finish(undo, seconds=2 * UNDO_SECONDS, what=f"undoing environment {claim.environment_id}")
        except SandboxError as late:
            failures = [f"environment {claim.environment_id} may be left behind: {late}"]
        said = _said(task) if isinstance(error, ProvisionTimeoutError) else None
        for failure in failures:
            (said or error).add_note(failure)
        if said is not None:
            raise said from None
        raise


def _said(task: Making) -> ProvisionError | None:
    """Return what the backend itself said of the failure, though it took longer than it should have."""
    error = task.exception() if task.done() and not task.cancelled() else None
    return error if isinstance(error, ProvisionError) else None


def _result(task: Making, spec: EnvironmentSpec, backend: str, claims: Sequence[Claim]) -> Sequence[EnvironmentRef]:
    claim = claims[0]
    if not task.done():
        services = ", ".join(repr(name) for name in spec.services)
        raise ProvisionTimeoutError(
            f"{services} not ready within {claim.timeout:g} s; backend {backend!r} does not say what it waits for"
        )
    if task.cancelled():
        raise ProvisionError(f"backend {backend!r} gave up without saying why")
    error = task.exception()
    if error is not None:
        if isinstance(error, Exception) and not isinstance(error, SandboxError):
            raise ProvisionError(f"backend {backend!r} failed: {type(error).__name__}: {error}") from error
        raise error
    refs = task.result()
    for ref in refs:
        if not isinstance(ref, EnvironmentRef):
            raise PluginError(f"backend {backend!r}: provision returned {type(ref).__name__}; it has to return an EnvironmentRef")
    asked = [claim.environment_id for claim in claims]
    if [ref.environment_id for ref in refs] != asked or not all(ref.sandboxes for ref in refs):
        raise PluginError(f"backend {backend!r}: provision returned an environment that was not asked for, or is empty")
    return refs


async def _undo(runtime: Runtime, task: Making, claims: Sequence[Claim]) -> list[str]:
    """Wait for the backend's own undoing, then destroy what it left. Returns what could not be done."""
    task.cancel()
    await asyncio.wait((task,), timeout=UNDO_SECONDS)
    leftovers: dict[str, EnvironmentRef] = {}
    failures: list[str] = []
    which = claims[0].environment_id
    if not task.done():
        stuck = f"backend {runtime.backend!r} did not stop within {UNDO_SECONDS:g} s"
        failures.append(f"environment {which} may be left behind: {stuck}")
    elif not task.cancelled() and task.exception() is None:
        leftovers = {ref.environment_id: ref for ref in task.result() if isinstance(ref, EnvironmentRef)}
    for environment_id in [claim.environment_id for claim in claims]:
        try:
            leftovers |= {ref.environment_id: ref for ref in await runtime.find(Selector(environment_id=environment_id))}
        except Exception as error:
            failures.append(f"environment {environment_id} may be left behind: {type(error).__name__}: {error}")

    async def destroy(ref: EnvironmentRef) -> None:
        await runtime.provisioner.destroy(ref)

    for ref, cause in await each(list(leftovers.values()), destroy):
        failures.append(f"environment {ref.environment_id} may be left behind: {type(cause).__name__}: {cause}")
    for failure in failures:
        _log.warning("%s", failure)
    return failures
