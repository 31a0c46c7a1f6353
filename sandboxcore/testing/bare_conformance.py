"""Sandboxes of one program and nothing else: no shell, no ``cat``, no ``ls``. The others' clauses, by the API alone."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import time
from typing import TYPE_CHECKING, Any

import pytest

from sandboxcore.errors import ExecTimeoutError, SandboxUnavailableError, SandboxUserUnsupportedError

from ._conformance import Conformance
from .target import Target

if TYPE_CHECKING:
    from sandboxcore.environment import Environment, Sandbox
    from sandboxcore.session import Session
    from sandboxcore.spec import EnvironmentSpec

__all__ = ("BareConformance",)

MIB = 1 << 20
LATE = 2.0


class BareConformance(Conformance):
    """What needs no program but the image's own."""

    needs_shell = False

    @pytest.fixture(autouse=True)
    def _is_bare(self, target: Target) -> None:
        if target.shell:
            pytest.skip("the target's sandboxes have a shell, so the tests with more in them run")

    async def test_it_can_be_used_at_once(self, environment: Environment, scratch: str) -> None:
        """PROV-1: every sandbox of it."""
        for sandbox in environment:
            assert (await sandbox.exec(["/no/such/program"])).exit_code == 127
        assert (await environment.default.stat(scratch)).type == "directory"

    async def test_a_timeout_kills_it(self, sandbox: Sandbox, target: Target, scratch: str) -> None:
        """EXEC-9, EXEC-10: in time, and not before."""
        begin = time.monotonic()
        with pytest.raises(ExecTimeoutError) as caught:
            await sandbox.exec(target.program, cwd=scratch, timeout=0.6)
        assert 0.6 <= time.monotonic() - begin <= 0.6 + LATE + target.slack
        assert caught.value.result is not None
        assert caught.value.result.exit_code == 137
        assert await _running_in(sandbox, scratch) == []

    async def test_cancelling_kills_it(self, sandbox: Sandbox, target: Target, scratch: str) -> None:
        """EXEC-12."""
        task = asyncio.ensure_future(sandbox.exec(target.program, cwd=scratch))
        while not await _running_in(sandbox, scratch):
            assert not task.done(), task.result()
            await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await _running_in(sandbox, scratch) == []

    async def test_kill_takes_it(self, sandbox: Sandbox, target: Target, scratch: str) -> None:
        """EXEC-5, EXEC-21."""
        async with sandbox.start(target.program, cwd=scratch) as process:
            await process.kill()
            result = await process.wait()
        assert (result.exit_code, result.signal) == (137, 9)
        assert await _running_in(sandbox, scratch) == []

    @pytest.mark.parametrize("user", ["no-such-user-here", "0:no-such-group-here"])
    async def test_an_unknown_user_is_refused(self, sandbox: Sandbox, target: Target, scratch: str, user: str) -> None:
        """EXEC-17: before anything runs, though there is no /etc/passwd."""
        with pytest.raises(SandboxUserUnsupportedError):
            await sandbox.exec(target.program, cwd=scratch, user=user, timeout=10)

    async def test_files_come_back_as_they_went(self, sandbox: Sandbox, scratch: str, target: Target) -> None:
        """FILE-1, FILE-7: whole, of any size."""
        for size in (0, 1, 4096, 65537, 3 * MIB + 1):
            data = os.urandom(size)
            await sandbox.write_file(f"{scratch}/{size}", data)
            assert await sandbox.read_file(f"{scratch}/{size}") == data
        assert [(entry.name, entry.size_bytes) for entry in await sandbox.list_dir(scratch)] == sorted(
            (str(size), size) for size in (0, 1, 4096, 65537, 3 * MIB + 1)
        )
        assert (await sandbox.read_file("/proc/self/status")).startswith(b"Name:")

    async def test_a_big_file_streams(self, sandbox: Sandbox, scratch: str, target: Target) -> None:
        """FILE-2."""
        sent, received, piece = hashlib.sha256(), hashlib.sha256(), os.urandom(MIB)
        async with await sandbox.open_write(f"{scratch}/big") as writer:
            for _ in range(target.stream_bytes // MIB):
                sent.update(piece)
                await writer.write(piece)
        async with await sandbox.open_read(f"{scratch}/big") as reader:
            async for data in reader:
                received.update(data)
        await sandbox.remove(f"{scratch}/big")
        assert received.digest() == sent.digest()

    async def test_a_given_mode_wins(self, sandbox: Sandbox, scratch: str) -> None:
        """FILE-5."""
        modes: list[int] = []
        for mode in (None, 0o700, 0o622, None):
            await sandbox.write_file(f"{scratch}/file", b"", mode=mode)
            modes.append((await sandbox.stat(f"{scratch}/file")).mode)
        assert modes == [0o644, 0o700, 0o622, 0o622]

    async def test_finding_takes_nothing_over(self, target: Target, environment: Environment, scratch: str) -> None:
        """DISC-1, DISC-2: and what was found is used as if it were one's own."""
        async with target.session() as other:
            same = (await other.attach(environment.id)).default
            await same.write_file(f"{scratch}/from-another", b"session")
        assert await environment.default.read_file(f"{scratch}/from-another") == b"session"

    async def test_leaving_the_session_leaves_nothing(self, target: Target, base_spec: EnvironmentSpec) -> None:
        """PROV-3: also when an error leaves it, and with a command that runs."""
        with contextlib.suppress(KeyError):
            async with target.session() as session:
                environment = await session.provision(base_spec)
                running = asyncio.ensure_future(environment.default.exec(target.program))
                await asyncio.sleep(0.1)
                raise KeyError
        await asyncio.gather(running, return_exceptions=True)
        async with target.session() as other:
            assert await other.find(run_id=session.run_id) == []
        assert list(target.leftovers(session.run_id) if target.leftovers else ()) == []

    async def test_a_sandbox_that_is_gone_starts_nothing(
        self, session: Session, base_spec: EnvironmentSpec, target: Target
    ) -> None:
        """EXEC-19."""
        environment = await session.provision(base_spec)
        await environment.destroy()
        with pytest.raises(SandboxUnavailableError) as caught:
            await environment.default.exec(target.program)
        assert caught.value.started == "no"


async def _running_in(sandbox: Sandbox, directory: str) -> list[str]:
    """List the processes whose working directory it is, as ``/proc`` shows them."""
    found: list[str] = []
    for entry in await sandbox.list_dir("/proc"):
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                link: Any = await sandbox.stat(f"/proc/{entry.name}/cwd", follow=False)
                found += [entry.name] if link.target == directory else []
    return found
