"""``sandboxcore cleanup``: what nobody holds any more."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from ...errors import UsageError
from .._completion import complete_environment
from .._lazy import COMMANDS
from .._options import BackendChoice, backend_options, json_option

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ...session import Session
    from ...values import EnvironmentRef

__all__ = ("command",)


@click.command(short_help=COMMANDS["cleanup"])
@click.argument("environments", metavar="[ENV]...", nargs=-1, shell_complete=complete_environment)
@backend_options
@click.option("--run", "run_id", metavar="ID", help="All of this run, whether somebody still holds them or not.")
@click.option("--expired", is_flag=True, help="All whose lease has run out. This is the default.")
@click.option("--all", "everything", is_flag=True, help="All that there are, whoever holds them.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.option("--dry-run", is_flag=True, help="Only show what would be destroyed.")
@json_option
def command(
    choice: BackendChoice,
    environments: Sequence[str],
    run_id: str | None,
    expired: bool,
    everything: bool,
    yes: bool,
    dry_run: bool,
    as_json: bool,
) -> int:
    """Destroy environments that nobody holds any more; by id, with --run or --all also those that somebody does."""
    if sum((bool(environments), run_id is not None, expired, everything)) > 1:
        raise UsageError("ENV, --run, --expired and --all exclude each other", hint="give one of them")
    if not (yes or dry_run or sys.stdin.isatty()):
        raise UsageError("cleanup destroys, and there is no terminal to ask on", hint="add --yes, or look first with --dry-run")
    from .._signals import run_async

    selections: list[dict[str, Any]] = [{"everything": True} if everything else {"expired": True}]
    if run_id is not None:
        selections = [{"run_id": run_id}]
    if environments:
        selections = [{"environment_id": name} for name in environments]
    return run_async(lambda: _cleanup(choice, selections, yes, dry_run, as_json))


async def _cleanup(
    choice: BackendChoice, selections: Sequence[Mapping[str, Any]], yes: bool, dry_run: bool, as_json: bool
) -> int:
    from .._progress import Progress

    progress = Progress()
    async with choice.session(on_event=progress.on_event) as session:
        async with progress.waiting("looking for environments"):
            found = [one for selection in selections for one in await session.cleanup(**selection, dry_run=True)]
        if dry_run or not found:
            _show(found, "would_destroy" if dry_run else "destroyed", as_json)
            return 0
        if not yes and not await _agreed(found):
            click.echo("nothing was destroyed", err=True)
            return 1
        async with progress.waiting(f"destroying {len(found)} environments"):
            gone = await _destroy(session, selections, found)
        _show(gone, "destroyed", as_json)
    return 0


async def _destroy(
    session: Session, selections: Sequence[Mapping[str, Any]], found: Sequence[EnvironmentRef]
) -> list[EnvironmentRef]:
    """Destroy what was shown and nothing that came later; of expired ones only those that nobody has renewed since."""
    import asyncio

    from .._environments import raise_first

    if selections[0].get("expired"):
        return await session.cleanup(expired=True)
    results = await asyncio.gather(
        *(session.cleanup(environment_id=environment.environment_id) for environment in found), return_exceptions=True
    )
    raise_first([result for result in results if isinstance(result, BaseException)])
    return [environment for result in results if not isinstance(result, BaseException) for environment in result]


async def _agreed(environments: Sequence[EnvironmentRef]) -> bool:
    """Ask on the terminal, without holding up the event loop; a signal ends the question."""
    from .._stdio import STDIN, read_bytes
    from .ls import show

    show(environments)
    count = len(environments)
    click.echo(f"Destroy {'this environment' if count == 1 else f'these {count} environments'}? [y/N] ", nl=False, err=True)
    async for answer in read_bytes(STDIN):
        return answer.strip().lower() in (b"y", b"yes")
    return False


def _show(environments: Sequence[EnvironmentRef], key: str, as_json: bool) -> None:
    from .._output import environment_data, print_json

    if as_json:
        print_json({key: [environment_data(environment) for environment in environments]})
        return
    for environment in environments:
        click.echo(environment.environment_id)
    if not environments:
        click.echo("nothing to clean up", err=True)
