"""A sandbox that somebody else took away is missed at once, not when the patience with a broken link ends."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from sandboxcore import SandboxUnavailableError, Session


async def test_a_command_of_a_destroyed_sandbox_fails_at_once(tmp_path: Path) -> None:
    config = {"state_dir": str(tmp_path)}
    async with Session("local", config=config) as ours, Session("local", config=config) as other:
        environment = await ours.provision()
        async with environment.default.start(["sleep", "300"]) as process:  # which waits until it runs
            await (await other.attach(environment.id)).destroy()
            began = time.monotonic()
            with pytest.raises(SandboxUnavailableError) as caught:
                await process.wait()
        assert caught.value.started == "yes"
        with pytest.raises(SandboxUnavailableError) as caught:
            await environment.default.exec(["true"])
        assert caught.value.started == "no"
        assert time.monotonic() - began < 20, "a broken link is tried for 60 s"
