"""``sandboxcore up``: an environment that stays."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from .._lazy import COMMANDS
from .._options import BackendChoice, Source, backend_options, json_option, label_option, source_options
from .._values import DURATION, key_values

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ...environment import Environment

__all__ = ("command",)


@click.command(short_help=COMMANDS["up"])
@source_options
@backend_options
@click.option("--ttl", type=DURATION, default="8h", show_default=True, metavar="TIME", help="Time until anyone may clean it up.")
@label_option
@json_option
def command(choice: BackendChoice, source: Source, ttl: float, labels: Sequence[str], as_json: bool) -> int:
    """Provision an environment that stays when this command ends, and print its id.

    Use it with exec, cp and logs; end it with down.
    """
    from .._signals import run_async

    named = key_values("--label", labels)
    return run_async(lambda: _up(choice, source, ttl, named, as_json))


async def _up(choice: BackendChoice, source: Source, ttl: float, labels: Mapping[str, str], as_json: bool) -> int:
    from .._environments import load, show_own_losses
    from .._progress import Progress

    progress = Progress()
    async with choice.session(on_event=progress.on_event) as session:
        spec = load(session, source)
        async with progress.waiting(f"provisioning {source.title}"):
            environment = await session.provision(spec, labels=labels, lease=ttl, keep=True)
        show_own_losses(environment, source)
        try:
            _announce(environment, as_json)
        except OSError:
            # Nobody would ever know its id.
            await environment.destroy()
            raise
    return 0


def _announce(environment: Environment, as_json: bool) -> None:
    from .._output import environment_data, print_json

    if as_json:
        print_json(environment_data(environment.ref))
    else:
        click.echo(environment.id)
