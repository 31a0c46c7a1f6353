"""The commands by name. None is imported before it is used, so that ``--help`` and completion stay fast."""

from __future__ import annotations

import difflib
import functools
import importlib
from typing import TYPE_CHECKING

import click

from ..errors import PluginError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ("COMMANDS", "LazyGroup")

#: Name to the line that ``--help`` shows; the command itself is ``command`` of the module of the same name.
COMMANDS: Mapping[str, str] = {
    "run": "Provision an environment, run a command in it and destroy it.",
    "up": "Provision an environment that stays, and print its id.",
    "exec": "Run a command in an environment that is up.",
    "cp": "Copy files and directories into and out of sandboxes.",
    "ls": "List the environments of a backend.",
    "logs": "Show what a service's own command wrote.",
    "down": "Destroy environments.",
    "cleanup": "Destroy environments that nobody holds any more.",
    "translate": "Show what a document becomes, and what is lost on the way.",
    "plugins": "List backends, translators and plugins, and what is wrong with them.",
    "doctor": "Check what a backend needs, and say the fix for what is missing.",
    "completion": "Print the shell's completion script.",
}


class LazyGroup(click.Group):
    """A group whose commands are modules, and those that plugins bring; ``sandboxcore plugins`` lists the latter."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*COMMANDS, *_of_plugins()]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return _made(cmd_name, quiet=ctx.resilient_parsing)
        module = importlib.import_module(f"sandboxcore.cli.commands.{cmd_name}")
        command = module.command
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name not in COMMANDS and not name.startswith("-"):
            known = self.list_commands(ctx)
            near = difflib.get_close_matches(name, known, n=1)
            guess = f" (did you mean {near[0]!r}?)" if near else ""
            if name not in known:
                raise click.UsageError(f"no command is called {name!r}{guess}", ctx)
        return super().resolve_command(ctx, args)


def _made(name: str, *, quiet: bool) -> click.Command | None:
    """Make a plugin's command; while the shell completes, one that can't be made is none."""
    make = _of_plugins().get(name)
    if make is None:
        return None
    try:
        return make()
    except Exception as error:
        if quiet:
            return None
        raise PluginError(f"command {name!r} of a plugin can't be loaded: {type(error).__name__}: {error}") from error


@functools.cache
def _of_plugins() -> Mapping[str, Callable[[], click.Command]]:
    from ..plugins import PluginHost

    return {name: make for name, make in PluginHost.load().commands().items() if name not in COMMANDS}
