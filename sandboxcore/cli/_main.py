"""From the arguments to the exit code: the one place where errors become lines on stderr."""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING

import click

from ..errors import ExecTimeoutError, SandboxError, SandboxUnavailableError, SpecError, UsageError
from ._lazy import LazyGroup
from ._settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ("cli", "main_code", "run_cli")

PROGRAM = "sandboxcore"
#: Holds what the shell's completion script asks for.
COMPLETE_VARIABLE = "_SANDBOXCORE_COMPLETE"

EXIT_USAGE = 2
EXIT_ERROR = 1
EXIT_TIMEOUT = 124
EXIT_BUG = 70
EXIT_BROKEN_PIPE = 128 + signal.SIGPIPE


def _version(ctx: click.Context, _param: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        import sandboxcore

        click.echo(f"sandboxcore {sandboxcore.__version__}")
        ctx.exit()


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
    epilog="SANDBOXCORE_BACKEND sets the backend where -b is not given; without it the backend is 'local'. "
    "Plugins may bring further commands: 'sandboxcore plugins' lists them.",
)
@click.option("--version", is_flag=True, expose_value=False, is_eager=True, callback=_version, help="Show the version and exit.")
@click.option("--debug", is_flag=True, help="Log to stderr, and show tracebacks.")
@click.pass_obj
def cli(settings: Settings, debug: bool) -> None:
    """Provision sandboxes, run commands in them and move files, on whatever backend there is."""
    if debug or os.environ.get("SANDBOXCORE_DEBUG"):
        settings.start_debugging()


def main_code(arguments: Sequence[str]) -> int:
    """Run the command line as a process's last deed: what it printed is out, or the exit code says that it is not."""
    code = run_cli(arguments)
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _silence(sys.stdout.fileno())
        code = code or EXIT_BROKEN_PIPE
    except OSError as error:
        _show(f"can't write to standard output: {error.strerror}")
        _silence(sys.stdout.fileno())
        code = code or EXIT_ERROR
    return code


def run_cli(arguments: Sequence[str]) -> int:
    """Run the command line and return its exit code; what went wrong is on stderr by then."""
    settings = Settings()
    try:
        return _invoke(list(arguments), settings)
    except (SandboxError, click.ClickException, OSError, KeyboardInterrupt, click.Abort) as error:
        if settings.debug and not isinstance(error, click.ClickException):
            _traceback(error)
        return _report(error)
    except Exception as error:  # the last line of defence: no traceback reaches those who did not ask for it
        if settings.debug:
            _traceback(error)
        _show(f"{type(error).__name__}: {_first_line(error)}", "this is a bug, run with --debug to see where it comes from")
        return EXIT_BUG


def _invoke(arguments: list[str], settings: Settings) -> int:
    """Parse and run. Not with ``cli.main``: that has its own ideas of broken pipes and interrupts."""
    instruction = os.environ.get(COMPLETE_VARIABLE)
    if instruction:
        from click.shell_completion import shell_complete

        from ._bash import register

        register()
        return shell_complete(cli, {}, PROGRAM, COMPLETE_VARIABLE, instruction)
    try:
        with cli.make_context(PROGRAM, arguments or ["--help"], obj=settings) as context:
            result = cli.invoke(context)
    except click.exceptions.Exit as end:
        return end.exit_code
    return result if isinstance(result, int) else 0


def _report(error: BaseException) -> int:
    """Show an error that users can do something about, and tell its exit code."""
    if isinstance(error, (KeyboardInterrupt, click.Abort)):
        _show("interrupted")
        return 128 + signal.SIGINT
    if isinstance(error, BrokenPipeError) and not isinstance(error, SandboxError):
        _silence(sys.stdout.fileno())
        return EXIT_BROKEN_PIPE
    for line in _lines(error):
        _show(line)
    for line in getattr(error, "__notes__", ()):
        click.echo(f"  {line}", err=True)
    if hint := _hint(error):
        click.echo(f"hint: {hint}", err=True)
    return _exit_code(error)


def _exit_code(error: BaseException) -> int:
    if isinstance(error, (UsageError, click.UsageError)):
        return EXIT_USAGE
    return EXIT_TIMEOUT if isinstance(error, ExecTimeoutError) else EXIT_ERROR


def _lines(error: BaseException) -> Iterator[str]:
    if isinstance(error, SpecError):
        yield from error.problems
    elif isinstance(error, click.ClickException):
        yield error.format_message()
    elif isinstance(error, OSError) and not isinstance(error, SandboxError):
        where = f": {error.filename}" if error.filename else ""
        yield f"{error.strerror or error}{where}"
    else:
        yield str(error) or type(error).__name__


def _hint(error: BaseException) -> str | None:
    if isinstance(error, SandboxError) and error.hint:
        return error.hint
    if isinstance(error, SandboxUnavailableError):
        known = {"yes": "the command had started", "no": "the command had not started", "unknown": "the command may have started"}
        return known[error.started]
    if isinstance(error, click.UsageError):
        return f"{error.ctx.command_path if error.ctx else 'sandboxcore'} --help"
    return None


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [""])[0]


def _show(message: str, hint: str | None = None) -> None:
    head, *rest = message.splitlines() or [""]
    click.echo(f"sandboxcore: error: {head}", err=True)
    for line in rest:
        click.echo(f"  {line}", err=True)
    if hint:
        click.echo(f"hint: {hint}", err=True)


def _traceback(error: BaseException) -> None:
    import traceback

    traceback.print_exception(error, file=sys.stderr)


def _silence(descriptor: int) -> None:
    """Point a dead standard output at nothing, so that the interpreter's last flush does not complain."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, descriptor)
    os.close(null)
