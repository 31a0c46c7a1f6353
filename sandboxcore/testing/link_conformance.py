"""What a broken link does to commands: at most once, and an honest word (EXEC-18 and 19)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from sandboxcore.errors import SandboxUnavailableError
from sandboxcore.values import ExecResult

from ._conformance import Conformance, sh
from .links import LinkCutter
from .target import Target

if TYPE_CHECKING:
    from sandboxcore.environment import Sandbox
    from sandboxcore.session import Session
    from sandboxcore.spec import EnvironmentSpec

__all__ = ("LinkConformance",)

#: Counts its own runs in a file, and takes its time.
COUNT = 'echo run >> "$1"; echo begun; sleep "$2"; echo ended'


class LinkConformance(Conformance):
    """A command that may have started is never started again."""

    @pytest_asyncio.fixture(autouse=True, loop_scope="module")
    async def _cuttable(self, sandbox: Sandbox, cutter: LinkCutter) -> None:
        await sandbox.exec(["true"])
        if not cutter.opened:
            pytest.skip("no channel was opened: the backend's executor has links of its own, which the suite can't cut")

    async def test_a_cut_in_mid_command_does_not_run_it_twice(self, sandbox: Sandbox, scratch: str, cutter: LinkCutter) -> None:
        """EXEC-18, EXEC-19."""
        task = asyncio.ensure_future(sandbox.exec(sh(COUNT, f"{scratch}/runs", "0.8")))
        while not (await sandbox.exec(["ls", scratch])).stdout:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        assert cutter.cut() > 0
        outcome = (await asyncio.gather(task, return_exceptions=True))[0]
        await asyncio.sleep(0.3)
        assert await _runs(sandbox, f"{scratch}/runs") == 1
        if isinstance(outcome, ExecResult):
            assert outcome.stdout == b"begun\nended\n"
        else:
            assert isinstance(outcome, SandboxUnavailableError)
            assert outcome.started in ("yes", "unknown")

    async def test_cuts_at_every_moment(self, sandbox: Sandbox, scratch: str, cutter: LinkCutter) -> None:
        """EXEC-18, EXEC-19: a result means one run, ``started="no"`` none, anything else at most one."""
        for number, moment in enumerate((0.0, 0.0005, 0.001, 0.0015, 0.002, 0.003, 0.004, 0.006, 0.01, 0.02)):
            path = f"{scratch}/{number}"
            task = asyncio.ensure_future(sandbox.exec(sh(COUNT, path, "0.01")))
            await asyncio.sleep(moment)
            cutter.cut()
            outcome = (await asyncio.gather(task, return_exceptions=True))[0]
            runs = await _runs(sandbox, path)
            if isinstance(outcome, ExecResult):
                assert (outcome.stdout, runs) == (b"begun\nended\n", 1)
            else:
                assert isinstance(outcome, SandboxUnavailableError)
                assert runs in {"yes": (1,), "no": (0,), "unknown": (0, 1)}[outcome.started]

    async def test_a_cut_loses_no_output_in_silence(self, sandbox: Sandbox, cutter: LinkCutter) -> None:
        """EXEC-18: either everything comes, in order and once, or an error."""
        script = "i=0; while [ $i -lt 3000 ]; do echo line-$i; i=$((i+1)); [ $((i % 300)) = 0 ] && sleep 0.05; done"
        task = asyncio.ensure_future(sandbox.exec(sh(script)))
        pause = 0.08
        while not task.done():
            await asyncio.sleep(pause)
            cutter.cut()
            pause = min(pause * 1.5, 5.0)  # so that a slow way in can be taken between two cuts
        outcome = (await asyncio.gather(task, return_exceptions=True))[0]
        if isinstance(outcome, ExecResult):
            assert outcome.stdout == b"".join(b"line-%d\n" % number for number in range(3000))
        else:
            assert isinstance(outcome, SandboxUnavailableError)

    async def test_a_sandbox_lost_in_mid_command_is_told(self, target: Target, base_spec: EnvironmentSpec) -> None:
        """EXEC-19: the command had started, so the error may not say that it had not.

        The lease is short, since a client may well look for a lost sandbox for as long as that.
        """
        async with (
            target.session() as other,
            target.session(lease=2 * target.lease) as session,
            session.environment(base_spec) as environment,
            environment.default.start(sh("echo begun; sleep 300")) as process,
        ):
            async for chunk in process.output():
                assert chunk.data == b"begun\n"
                break
            await (await other.attach(environment.id)).destroy()
            with pytest.raises(SandboxUnavailableError) as caught:
                await process.wait()
        assert caught.value.started in ("yes", "unknown")

    async def test_a_sandbox_that_is_gone_starts_nothing(self, session: Session, base_spec: EnvironmentSpec) -> None:
        """EXEC-19: which is certain, so it says so."""
        environment = await session.provision(base_spec)
        await environment.destroy()
        with pytest.raises(SandboxUnavailableError) as caught:
            await environment.default.exec(["true"])
        assert caught.value.started == "no"


async def _runs(sandbox: Sandbox, path: str) -> int:
    counted = await sandbox.exec(sh('[ ! -e "$1" ] || cat "$1"', path))
    return counted.stdout.count(b"run\n")
