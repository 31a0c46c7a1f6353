"""Finds what people name: environments by a unique prefix of their id, services by their name."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from ..errors import SandboxError, UsageError
from ..report import Loss
from ._output import warn

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ..environment import Environment, Sandbox
    from ..report import TranslationReport
    from ..session import Session
    from ..spec import EnvironmentSpec
    from ._options import Source

__all__ = ("check_service", "load", "raise_first", "sandbox_of", "show_losses", "show_own_losses")

#: Lines of warning before they are only counted.
_MOST_WARNINGS = 10


def show_own_losses(environment: Environment, source: Source) -> None:
    """Warn of what the backend itself makes different; what the translation did was shown before."""
    if not source.quiet:
        show_losses(environment.report)


def load(session: Session, source: Source, service: str | None = None) -> EnvironmentSpec:
    """Translate the documents, warn of what is lost, and make sure that the service is one of theirs.

    Raises:
        UsageError: The documents are wrong or have no such service. Nothing was created.
    """
    translation = source.translate(session)
    if not source.quiet:
        show_losses(translation.report)
    check_service(service, tuple(translation.spec.services))
    return translation.spec


def show_losses(report: TranslationReport) -> None:
    """Warn on stderr of what is refused, behaves differently or was dropped."""
    losses = (*report.of(Loss.REJECT), *report.of(Loss.APPROX, Loss.POLICY))
    for entry in losses[:_MOST_WARNINGS]:
        option = f" [option: {entry.option}]" if entry.option else ""
        warn(f"{entry}{option}")
    if len(losses) > _MOST_WARNINGS:
        warn(f"and {len(losses) - _MOST_WARNINGS} more; see: sandboxcore translate --report")


def check_service(service: str | None, names: Iterable[str]) -> None:
    """Refuse a service that is not among the names.

    Raises:
        UsageError: With the nearest name.
    """
    names = tuple(names)
    if service is None or service in names:
        return
    near = difflib.get_close_matches(service, names, n=1)
    guess = f" (did you mean {near[0]!r}?)" if near else ""
    raise UsageError(f"no service is called {service!r}{guess}", hint=f"there are: {', '.join(names)}")


def sandbox_of(environment: Environment, service: str | None) -> Sandbox:
    """Select a sandbox by its service's name; None selects the default one.

    Raises:
        UsageError: With the nearest name.
    """
    check_service(service, environment.names)
    return environment.default if service is None else environment[service]


def raise_first(errors: Sequence[BaseException | None]) -> None:
    """Raise the first of several errors; one that is no SandboxError comes before those that are."""
    found = [error for error in errors if error is not None]
    found.sort(key=lambda error: isinstance(error, SandboxError))
    if found:
        raise found[0]
