"""A directive that writes the command line's reference from the commands themselves, so that it can't be out of date."""

from __future__ import annotations

from collections.abc import Iterator

import click
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

WIDTH = 100


def help_text(path: str, command: click.Command) -> str:
    """Render what ``--help`` shows."""
    context = click.Context(
        command, info_name=path, max_content_width=WIDTH, terminal_width=WIDTH, help_option_names=["-h", "--help"]
    )
    return command.get_help(context)


def commands(path: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
    """Yield the command and all below it, each with what a person types."""
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command, info_name=path)
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            if below is not None and not below.hidden:
                yield from commands(f"{path} {name}", below)


class CommandLine(SphinxDirective):
    """``command-line``: a section a command, with its help."""

    def run(self) -> list[nodes.Node]:
        from sandboxcore.cli._main import cli

        return [self._section(path, command) for path, command in commands("sandboxcore", cli)]

    def _section(self, path: str, command: click.Command) -> nodes.section:
        section = nodes.section(ids=[path.replace(" ", "-")])
        section += nodes.title(text=path)
        text = help_text(path, command)
        section += nodes.literal_block(text, text, language="text")
        return section


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("command-line", CommandLine)
    return {"parallel_read_safe": True}
