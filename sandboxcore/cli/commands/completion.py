"""``sandboxcore completion``: completion for the shell."""

from __future__ import annotations

import click

from .._lazy import COMMANDS

__all__ = ("command",)


@click.command(short_help=COMMANDS["completion"])
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def command(ctx: click.Context, shell: str) -> int:
    """Print the shell's completion script.

    \b
    bash: echo 'eval "$(sandboxcore completion bash)"' >> ~/.bashrc
    zsh:  echo 'eval "$(sandboxcore completion zsh)"' >> ~/.zshrc
    fish: sandboxcore completion fish > ~/.config/fish/completions/sandboxcore.fish
    """
    from click.shell_completion import get_completion_class

    from .._bash import register

    register()
    completer = get_completion_class(shell)
    assert completer is not None
    click.echo(completer(ctx.find_root().command, {}, "sandboxcore", "_SANDBOXCORE_COMPLETE").source())
    return 0
