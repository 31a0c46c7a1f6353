"""What comes out when making fails and taking it away again fails, too."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from sandboxcore_opensandbox import _batch_making, _making

from sandboxcore.errors import SandboxError, ServiceFailedError

pytestmark = pytest.mark.tier("none")


class _Remover:
    """Takes away what was made of every batch but one."""

    def __init__(self, stuck: str) -> None:
        self._stuck = stuck
        self.asked: list[str] = []

    async def remove(self, namespace: str, batch: str, run_id: str) -> None:
        self.asked.append(batch)
        if batch == self._stuck:
            raise SandboxError(f"destroy batch {batch}: it is still there")


@pytest.mark.parametrize("stuck", ["one", "other", ""])
async def test_the_cause_comes_out_and_every_batch_is_gone_through(stuck: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first of two batches fails while the other is made."""
    claims = [SimpleNamespace(environment_id=name, run_id="r", timeout=60.0) for name in ("one", "other")]
    jobs = [SimpleNamespace(namespace="n", batch=claim.environment_id, claims=[claim]) for claim in claims]
    begun = asyncio.Event()

    async def plan(*_: Any) -> list[Any]:
        return jobs

    async def make_batch(job: Any) -> None:
        if job is jobs[0]:
            await begun.wait()
            raise ServiceFailedError("service 'a': its command failed")
        begun.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(_making, "_plan", plan)
    monkeypatch.setattr(_batch_making, "make_batch", make_batch)
    remover: Any = _Remover(stuck)
    nothing: Any = None
    with pytest.raises(ServiceFailedError, match="its command failed") as caught:
        await _making.make(nothing, remover, nothing, claims, nothing)  # type: ignore[arg-type]
    assert remover.asked == ["one", "other"]
    left = f"environment {stuck} may be left behind: destroy batch {stuck}: it is still there"
    assert caught.value.__notes__ == [left if stuck else "all 2 environments of the batch were released"]
