"""How commands end: by themselves, by timeout, by cancelling, by their output (EXEC-9, 10 and 12 to 14)."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest

from sandboxcore.errors import ExecTimeoutError, OutputLimitExceededError

from ._conformance import Conformance, sh
from .hearts import FAMILY, beating, family, started_hearts
from .target import Target

if TYPE_CHECKING:
    from sandboxcore.environment import Sandbox

__all__ = ("EndingConformance",)

LATE = 2.0


class EndingConformance(Conformance):
    """Every end of a command but its own reaches all that it started, in time, and keeps what was said."""

    async def test_a_timeout_kills_the_whole_family(self, sandbox: Sandbox, scratch: str) -> None:
        """EXEC-9, EXEC-10: children, daemons, other sessions, those who ignore signals or drop their environment."""
        for seconds in (2.0, 8.0, 30.0):  # on a busy machine the family takes its time to be complete
            folder = f"{scratch}/{seconds:g}"
            await sandbox.exec(["mkdir", folder])
            with pytest.raises(ExecTimeoutError) as caught:
                await sandbox.exec(family(folder), timeout=seconds)
            assert await beating(sandbox, folder) == []
            if (result := caught.value.result) is None or result.stderr:
                break
        assert result is not None
        assert await started_hearts(sandbox, folder) == set(FAMILY)
        assert (result.stdout, result.stderr, result.exit_code) == (b"up\n", b"up\n", 137)

    @pytest.mark.parametrize(
        "script", ["sleep 300", "exec >&- 2>&- <&-; sleep 300", "trap '' TERM INT HUP; while :; do sleep 1; done"]
    )
    async def test_a_timeout_is_in_time(self, sandbox: Sandbox, target: Target, script: str) -> None:
        """EXEC-10: never before the timeout, at most two seconds after it."""
        for seconds in (0.6, 3.0, 12.0):  # on a busy machine it may not have begun in less
            begin = time.monotonic()
            with pytest.raises(ExecTimeoutError) as caught:
                await sandbox.exec(sh(f"printf partial; {script}"), timeout=seconds)
            took = time.monotonic() - begin
            assert seconds <= took <= seconds + LATE + target.slack
            if (result := caught.value.result) is None or result.stdout:
                break
        assert result is not None
        assert result.stdout == b"partial"

    async def test_a_timeout_error_is_pythons_too(self, sandbox: Sandbox) -> None:
        """EXEC-10: and it does not show what the command was given to read."""
        with pytest.raises(TimeoutError) as caught:
            await sandbox.exec(sh("cat; sleep 300"), stdin=b"s3cret-words", env={"A": "s3cret-words"}, timeout=0.4)
        assert "s3cret" not in str(caught.value)

    async def test_a_command_within_its_timeout_is_left_alone(self, sandbox: Sandbox) -> None:
        """EXEC-10."""
        result = await sandbox.exec(sh("sleep 0.2; echo done"), timeout=20)
        assert result.stdout == b"done\n"

    async def test_cancelling_kills_the_whole_family(self, sandbox: Sandbox, scratch: str, target: Target) -> None:
        """EXEC-12."""
        task = asyncio.ensure_future(sandbox.exec(family(scratch)))
        while await started_hearts(sandbox, scratch) != set(FAMILY):
            assert not task.done(), task.result()
            await asyncio.sleep(0.05)
        task.cancel()
        begin = time.monotonic()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert time.monotonic() - begin <= LATE + target.slack
        assert await beating(sandbox, scratch) == []

    async def test_cancelling_early_leaves_nothing(self, sandbox: Sandbox, scratch: str) -> None:
        """EXEC-12: at every moment of a command's short beginning."""
        script = 'echo x >> "$1/child"; exec sh -c \'while :; do echo x >> "$0"; sleep 0.1; done\' "$1/child"'
        for moment in (0.0, 0.0005, 0.001, 0.002, 0.004, 0.008, 0.016):
            task = asyncio.ensure_future(sandbox.exec(sh(script, scratch)))
            await asyncio.sleep(moment)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert await beating(sandbox, scratch) == []

    async def test_cancelling_leaves_its_neighbours_alone(self, sandbox: Sandbox) -> None:
        """EXEC-12: another command in the same sandbox goes on."""
        other = asyncio.ensure_future(sandbox.exec(sh("sleep 0.6; echo unharmed")))
        task = asyncio.ensure_future(sandbox.exec(["sleep", "300"]))
        await asyncio.sleep(0.2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (await other).stdout == b"unharmed\n"

    async def test_it_returns_though_a_child_holds_its_output(self, sandbox: Sandbox, target: Target) -> None:
        """EXEC-13."""
        begin = time.monotonic()
        result = await sandbox.exec(sh("sleep 300 & echo done; echo also >&2; exit 6"))
        assert time.monotonic() - begin <= LATE + target.slack
        assert (result.exit_code, result.stdout, result.stderr) == (6, b"done\n", b"also\n")

    async def test_nothing_is_lost_when_it_ends(self, sandbox: Sandbox) -> None:
        """EXEC-13: all that the program itself had written is there, though a child still holds the pipe."""
        result = await sandbox.exec(sh("sleep 8 & head -c 1000000 /dev/zero; printf end; exit 0"))
        assert (len(result.stdout), result.stdout[-3:]) == (1_000_003, b"end")

    async def test_output_over_the_limit_kills_the_whole_family(self, sandbox: Sandbox, scratch: str) -> None:
        """EXEC-14."""
        with pytest.raises(OutputLimitExceededError) as caught:
            await sandbox.exec(family(scratch, then="while :; do printf 0123456789; done"), output_limit_bytes=5000)
        assert await beating(sandbox, scratch) == []
        error = caught.value
        assert error.result is not None
        assert (error.stream, error.limit_bytes) == ("stdout", 5000)
        assert error.result.stdout == (b"up\n" + b"0123456789" * 500)[:5000]

    async def test_the_limit_counts_for_each_stream(self, sandbox: Sandbox) -> None:
        """EXEC-14: exactly the limit is allowed, on both; one byte more is not."""
        exactly = await sandbox.exec(sh("head -c 1000 /dev/zero; head -c 1000 /dev/zero >&2"), output_limit_bytes=1000)
        assert (len(exactly.stdout), len(exactly.stderr)) == (1000, 1000)
        with pytest.raises(OutputLimitExceededError) as caught:
            await sandbox.exec(sh("printf out; head -c 1001 /dev/zero >&2; sleep 300"), output_limit_bytes=1000)
        assert caught.value.stream == "stderr"
        assert caught.value.result is not None
        assert (caught.value.result.stdout, len(caught.value.result.stderr)) == (b"out", 1000)

    async def test_the_limit_is_ten_mebibytes_where_nothing_is_said(self, sandbox: Sandbox) -> None:
        """EXEC-14."""
        limit = 10 << 20
        within = await sandbox.exec(["head", "-c", str(limit), "/dev/zero"])
        assert len(within.stdout) == limit
        with pytest.raises(OutputLimitExceededError) as caught:
            await sandbox.exec(["head", "-c", str(limit + 1), "/dev/zero"])
        assert caught.value.result is not None
        assert (caught.value.limit_bytes, len(caught.value.result.stdout)) == (limit, limit)

    async def test_the_limit_can_be_lifted(self, sandbox: Sandbox) -> None:
        """EXEC-14."""
        result = await sandbox.exec(["head", "-c", str(11 << 20), "/dev/zero"], output_limit_bytes=None)
        assert len(result.stdout) == 11 << 20
