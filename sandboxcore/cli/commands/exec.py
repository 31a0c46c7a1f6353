"""``sandboxcore exec``: a command in an environment that is up."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from .._completion import complete_environment
from .._lazy import COMMANDS
from .._options import BackendChoice, backend_options, exec_options, service_option

if TYPE_CHECKING:
    from .._attach import CommandLine

__all__ = ("command",)


class _OptionsAroundFirstArgument(click.Command):
    """Takes options before and after the first argument; the next other word, or what follows ``--``, begins the command.

    So ``exec ENV -s web -- ls -l`` and ``exec -s web ENV ls -l`` are both what they look like.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        before, rest = self._split(ctx, args)
        after, command = self._split(ctx, rest[1:])
        return super().parse_args(ctx, [*before, *after, "--", *rest[:1], *command])

    def _split(self, ctx: click.Context, args: list[str]) -> tuple[list[str], list[str]]:
        options = click.Command(
            None, add_help_option=False, params=[param for param in self.get_params(ctx) if isinstance(param, click.Option)]
        )
        parser = options.make_parser(ctx)
        _, rest, _ = parser.parse_args(list(args))
        head = args[: len(args) - len(rest)]
        return (head[:-1] if head[-1:] == ["--"] else head), rest


@click.command(
    cls=_OptionsAroundFirstArgument,
    short_help=COMMANDS["exec"],
    context_settings={"allow_interspersed_args": False},
)
@click.argument("environment", metavar="ENV", shell_complete=complete_environment)
@backend_options
@service_option
@exec_options
@click.argument("argv", metavar="-- CMD [ARG]...", nargs=-1, type=click.UNPROCESSED)
def command(choice: BackendChoice, environment: str, service: str | None, command_line: CommandLine) -> int:
    """Run a command in an environment that is up. ENV is its id, a unique beginning of it, or its name if ls shows one.

    The exit code is the command's own, 128 + n where signal n ended it, 124 after --timeout.
    """
    from .._signals import run_async

    return run_async(lambda: _exec(choice, environment, service, command_line))


async def _exec(choice: BackendChoice, environment_id: str, service: str | None, command_line: CommandLine) -> int:
    from .._attach import run_attached
    from .._environments import sandbox_of
    from .._progress import Progress

    progress = Progress()
    async with choice.session(on_event=progress.on_event) as session:
        async with progress.waiting(f"looking for {environment_id}"):
            environment = await session.attach(environment_id)
        return await run_attached(sandbox_of(environment, service), command_line)
