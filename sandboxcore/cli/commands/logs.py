"""``sandboxcore logs``: what a service's own command wrote."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import click

from .._completion import complete_environment, complete_service
from .._lazy import COMMANDS
from .._options import BackendChoice, backend_options

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

__all__ = ("command",)


@click.command(short_help=COMMANDS["logs"])
@click.argument("environment", metavar="ENV", shell_complete=complete_environment)
@click.argument("service", required=False, shell_complete=complete_service)
@click.option("-n", "--tail", type=click.IntRange(min=0), metavar="N", help="Only the last N lines.")
@click.option("--follow", is_flag=True, help="Go on with what is written from now on.")
@backend_options
def command(choice: BackendChoice, environment: str, service: str | None, tail: int | None, follow: bool) -> int:
    """Show what a service's own command wrote: the default service's, unless SERVICE names another."""
    from .._signals import run_async

    return run_async(lambda: _logs(choice, environment, service, tail, follow))


async def _logs(choice: BackendChoice, environment_id: str, service: str | None, tail: int | None, follow: bool) -> int:
    from contextlib import aclosing

    from .._environments import check_service
    from .._stdio import STDOUT, ByteOutput

    output = ByteOutput(STDOUT)
    async with choice.session() as session:
        environment = await session.attach(environment_id)
        check_service(service, environment.names)
        written = cast("AsyncGenerator[bytes, None]", environment.logs(service, tail=tail, follow=follow))
        async with aclosing(written) as lines:
            async for data in lines:
                await output.write(data)
    return 0
