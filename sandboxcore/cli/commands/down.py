"""``sandboxcore down``: the end of environments."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from .._completion import complete_environment
from .._lazy import COMMANDS
from .._options import BackendChoice, backend_options, json_option

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ("command",)


@click.command(short_help=COMMANDS["down"])
@click.argument("environments", metavar="ENV...", nargs=-1, required=True, shell_complete=complete_environment)
@backend_options
@json_option
def command(choice: BackendChoice, environments: Sequence[str], as_json: bool) -> int:
    """Destroy environments and wait until they are gone. ENV is an id, a unique beginning of one, or a name that ls shows.

    If one of them does not exist, none is destroyed.
    """
    from .._signals import run_async

    return run_async(lambda: _down(choice, environments, as_json))


async def _down(choice: BackendChoice, ids: Sequence[str], as_json: bool) -> int:
    import asyncio

    from .._environments import raise_first
    from .._output import print_json
    from .._progress import Progress

    progress = Progress()
    async with choice.session(on_event=progress.on_event) as session:
        found = {environment.id: environment for environment in [await session.attach(name) for name in ids]}
        async with progress.waiting(f"destroying {', '.join(found)}"):
            results = await asyncio.gather(*(one.destroy() for one in found.values()), return_exceptions=True)
        gone = [name for name, result in zip(found, results, strict=True) if result is None]
        if as_json:
            print_json({"destroyed": gone})
        else:
            click.echo("".join(f"{name}\n" for name in gone), nl=False)
        raise_first(results)
    return 0
