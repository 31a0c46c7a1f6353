"""What the shell offers for an argument. Nothing in here may fail or take long: then there is just nothing to offer."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    import click

    from ..session import Session
    from ..values import EnvironmentRef

__all__ = ("complete_backend", "complete_environment", "complete_place", "complete_service")

T = TypeVar("T")

#: Seconds after which the shell gets nothing.
PATIENCE = 3.0


def complete_backend(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Offer the names of the backends that are installed."""
    with contextlib.suppress(Exception):
        from ..plugins import PluginHost

        return _starting(incomplete, sorted(PluginHost.load().backends))
    return []


def complete_environment(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Offer the ids of the environments that are up."""
    return _starting(incomplete, [environment.environment_id for environment in _environments(ctx)])


def complete_service(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Offer the services of the environment that was named, or of the document that was."""
    prefix = ctx.params.get("environment")
    if prefix:
        return _starting(incomplete, _services(_environments(ctx), prefix))
    return _starting(incomplete, _document_services(ctx))


def complete_place(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:
    """Offer ``ENV:`` and ``ENV:SERVICE:`` for ``cp``, and the shell's own file names."""
    from click.shell_completion import CompletionItem

    environment, colon, rest = incomplete.partition(":")
    if colon and "/" not in environment:
        names = [f"{environment}:{name}:" for name in _services(_environments(ctx), environment)]
        return _starting(incomplete, names) if ":" not in rest else []
    if incomplete.startswith((".", "/", "~")):
        return [CompletionItem(incomplete, type="file")]
    ids = [f"{environment.environment_id}:" for environment in _environments(ctx)]
    return [*_starting(incomplete, ids), CompletionItem(incomplete, type="file")]


def _starting(incomplete: str, names: Sequence[str]) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]


def _services(environments: Sequence[EnvironmentRef], prefix: str) -> list[str]:
    from .._selecting import is_meant

    found = [environment for environment in environments if is_meant(prefix, environment)]
    return sorted({sandbox.service for environment in found for sandbox in environment.sandboxes})


def _environments(ctx: click.Context) -> list[EnvironmentRef]:
    async def find(session: Session) -> list[EnvironmentRef]:
        return [environment.ref for environment in await session.find()]

    return _ask(ctx, find, [])


def _document_services(ctx: click.Context) -> list[str]:
    files = ctx.params.get("files") or ()

    async def names(session: Session) -> list[str]:
        return list(session.translate(list(files)).spec.services)

    return _ask(ctx, names, []) if files else []


def _ask(ctx: click.Context, question: Callable[[Session], Coroutine[Any, Any, T]], nothing: T) -> T:
    async def ask() -> T:
        import asyncio

        from ..session import Session
        from ._values import backend_config

        config = backend_config(ctx.params.get("config") or (), ctx.params.get("config_file"))
        async with asyncio.timeout(PATIENCE), Session(ctx.params.get("backend"), config=config) as session:
            return await question(session)

    with contextlib.suppress(Exception):
        import asyncio

        return asyncio.run(ask())
    return nothing
