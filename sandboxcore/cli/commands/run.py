"""``sandboxcore run``: an environment for the time of one command."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from .._lazy import COMMANDS
from .._options import BackendChoice, Source, backend_options, exec_options, label_option, service_option, source_options
from .._values import key_values

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .._attach import CommandLine

__all__ = ("command",)


@click.command(
    short_help=COMMANDS["run"], options_metavar="[-f FILE] [OPTIONS]", context_settings={"allow_interspersed_args": False}
)
@source_options
@backend_options
@service_option
@exec_options
@label_option
@click.argument("argv", metavar="-- CMD [ARG]...", nargs=-1, type=click.UNPROCESSED)
def command(choice: BackendChoice, source: Source, service: str | None, command_line: CommandLine, labels: Sequence[str]) -> int:
    """Provision an environment, run a command in it and destroy it, whatever happens in between.

    The exit code is the command's own, 128 + n where signal n ended it, 124 after --timeout.
    """
    from .._signals import run_async

    named = key_values("--label", labels)
    return run_async(lambda: _run(choice, source, service, command_line, named))


async def _run(
    choice: BackendChoice, source: Source, service: str | None, command_line: CommandLine, labels: Mapping[str, str]
) -> int:
    from .._attach import run_attached
    from .._environments import load, sandbox_of, show_own_losses
    from .._progress import Progress

    progress = Progress()
    async with choice.session(on_event=progress.on_event) as session:
        spec = load(session, source, service)
        async with progress.waiting(f"provisioning {source.title}"):
            environment = await session.provision(spec, labels=labels)
        show_own_losses(environment, source)
        try:
            return await run_attached(sandbox_of(environment, service), command_line)
        finally:
            async with progress.waiting("cleaning up"):
                await environment.destroy()
