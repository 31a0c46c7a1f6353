"""What all classes of the suite share: the ids of clauses, capabilities, and an end to tests that hang."""

from __future__ import annotations

import asyncio
import functools
import inspect
import re
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import pytest

from .target import Target

__all__ = ("Conformance", "clauses_of", "needs", "sh", "shell_free")

Test = TypeVar("Test", bound=Callable[..., Any])
_CLAUSE = re.compile(r"\b(?:EXEC|FILE|PROV|DISC|CAP)-\d+\b")


def clauses_of(test: Callable[..., Any]) -> tuple[str, ...]:
    """Read the ids that begin a test's docstring."""
    return tuple(_CLAUSE.findall((inspect.getdoc(test) or "").partition(":")[0]))


def needs(*capabilities: str) -> Callable[[Test], Test]:
    """Skip a test on backends that lack one of these capabilities.

    What asking for them must do there is a test of its own, in ``CapabilityConformance``.
    """

    def mark(test: Test) -> Test:
        test.needs = capabilities  # type: ignore[attr-defined]
        return test

    return mark


def shell_free(test: Test) -> Test:
    """Run a test also where the sandbox has neither a shell nor any other program of its own."""
    test.shell_free = True  # type: ignore[attr-defined]
    return test


def sh(script: str, *arguments: str) -> list[str]:
    """Build the argv that runs a shell script with ``$1`` and so on."""
    return ["/bin/sh", "-c", script, "sh", *arguments]


class Conformance:
    """Base of the suite's classes. The fixtures are those of ``sandboxcore.testing.fixtures``."""

    pytestmark = pytest.mark.asyncio(loop_scope="module")

    #: Whether the tests of the class run shell scripts in the sandbox, but for those that are ``shell_free``.
    needs_shell = True

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        for name, member in list(vars(cls).items()):
            if name.startswith("test_") and inspect.iscoroutinefunction(member):
                setattr(cls, name, _bounded(member))

    @pytest.fixture(autouse=True)
    def _fits(self, request: pytest.FixtureRequest, target: Target, capabilities: frozenset[str]) -> None:
        if self.needs_shell and not target.shell and not getattr(request.function, "shell_free", False):
            pytest.skip("the target's sandboxes have no shell")
        missing = sorted(set(getattr(request.function, "needs", ())) - capabilities)
        if missing:
            pytest.skip(f"the backend is not capable of: {', '.join(missing)}")


def _bounded(test: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    """Give a test up after the target's patience: a backend that hangs must fail the clause, not stop the run."""

    @functools.wraps(test)
    async def bounded(self: Conformance, *args: Any, target: Target, **kwargs: Any) -> None:
        if "target" in inspect.signature(test).parameters:
            kwargs["target"] = target
        async with asyncio.timeout(target.patience):
            await test(self, *args, **kwargs)

    parameters = dict(inspect.signature(test).parameters)
    parameters.setdefault("target", inspect.Parameter("target", inspect.Parameter.KEYWORD_ONLY))
    bounded.__signature__ = inspect.Signature(list(parameters.values()))  # type: ignore[attr-defined]
    return bounded
