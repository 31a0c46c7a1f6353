"""When a service counts as healthy: Docker's rules, but looking earlier than Docker does."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ..errors import ExecTimeoutError, OutputLimitExceededError, SandboxError
from ..values import ExecRequest

if TYPE_CHECKING:
    from ..abc import Executor
    from ..spec import Healthcheck

__all__ = ("Schedule", "probe_argv", "wait_healthy")

_FIRST_PAUSE = 0.1
_LEAST_PAUSE = 0.05


def probe_argv(test: tuple[str, ...]) -> tuple[str, ...] | None:
    """Return the command of a check: ``CMD argv...``, ``CMD-SHELL line`` or a bare argv; None where there is none."""
    kind, *rest = test
    if kind == "NONE":
        return None
    if kind == "CMD-SHELL":
        return ("/bin/sh", "-c", " ".join(rest))
    return tuple(rest) if kind == "CMD" else test


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Decides when to look next and which failures count. All times are seconds since the service started.

    Docker looks every ``interval`` only, so that nothing is healthy before the first has passed. Here looks in between, at
    growing distances, may end the wait sooner; but only those at Docker's times, after ``start_period``, count as failures.
    """

    check: Healthcheck
    next_counted: float
    pause: float = _FIRST_PAUSE
    failures: int = 0

    @classmethod
    def of(cls, check: Healthcheck) -> Schedule:
        """Begin at the start of the service."""
        return cls(check=check, next_counted=min(_step(check, 0.0), check.interval))

    def after_failure(self, began: float) -> Schedule:
        """Go on after a check that began then and failed."""
        pause = min(self.pause * 2, _step(self.check, began))
        if began < self.next_counted:
            return replace(self, pause=pause)
        counts = began >= self.check.start_period
        return replace(
            self, pause=pause, next_counted=began + _step(self.check, began), failures=self.failures + 1 if counts else 0
        )

    def next_look(self, now: float) -> float:
        """Tell when to look again."""
        return max(now, min(now + self.pause, max(self.next_counted, now)))

    @property
    def unhealthy(self) -> bool:
        """Whether enough failures in a row have counted."""
        return self.failures >= max(1, self.check.retries)


def _step(check: Healthcheck, at: float) -> float:
    return max(_LEAST_PAUSE, check.start_interval if at < check.start_period else check.interval)


async def wait_healthy(check: Healthcheck, executor: Executor) -> str | None:
    """Look until the check succeeds.

    Returns:
        None when it did; else how the last of too many failures ended.
    """
    argv = probe_argv(check.test)
    if argv is None:
        return None
    loop = asyncio.get_running_loop()
    start = loop.time()
    schedule = Schedule.of(check)
    while True:
        began = loop.time() - start
        failure = await _probe(argv, check, executor)
        if failure is None:
            return None
        schedule = schedule.after_failure(began)
        if schedule.unhealthy:
            return failure
        now = loop.time() - start
        await asyncio.sleep(schedule.next_look(now) - now)


async def _probe(argv: tuple[str, ...], check: Healthcheck, executor: Executor) -> str | None:
    try:
        result = await executor.exec(ExecRequest(argv=argv, timeout=check.timeout or None))
    except ExecTimeoutError:
        return f"its healthcheck took longer than {check.timeout:g} s"
    except OutputLimitExceededError:
        return "its healthcheck wrote too much"
    except SandboxError as error:
        return f"its healthcheck could not be run: {error}"
    return None if result.ok else f"its healthcheck ended with exit code {result.exit_code}"
