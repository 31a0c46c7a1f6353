"""Takes away what evals have left, and tells what there is to take away."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import rich
from rich import box
from rich.markup import escape
from rich.table import Table
from sandboxcore._selecting import is_meant
from sandboxcore.errors import SandboxError
from sandboxcore.session import Session

from ._config import default_backend
from ._records import forget, owner_is_gone, places, records
from ._session import MARK

if TYPE_CHECKING:
    from sandboxcore.environment import Environment
    from sandboxcore.values import EnvironmentRef

    from ._session import Shared, Tenant

__all__ = ("clean_up", "close", "keep")

#: Seconds for which environments stay claimed that somebody wanted to keep.
KEPT_SECONDS = 24 * 3600.0
_COMMAND = "inspect sandbox cleanup sandboxcore"


async def close(open_ones: Sequence[Shared]) -> None:
    """Destroy what is left of an eval and let go of its backends. What fails is told, with what to do about it."""
    left = sum(len(shared.tenants) for shared in open_ones)
    if left:
        rich.print(f"\n[bold]Destroying {left} sandbox environments (please do not interrupt this).[/bold]")
    for outcome in await asyncio.gather(*(shared.close() for shared in open_ones), return_exceptions=True):
        if isinstance(outcome, SandboxError):
            rich.print(f"[red]{escape(str(outcome))}[/red]\nTry again: [blue]{_COMMAND}[/blue]")
        elif isinstance(outcome, BaseException):
            raise outcome


async def keep(open_ones: Sequence[Shared]) -> None:
    """Let environments outlive the eval that did not want them cleaned up, and say how they are removed."""
    kept: list[Tenant] = []
    for shared in open_ones:
        for tenant in list(shared.tenants.values()):
            try:
                await tenant.environment.keep(KEPT_SECONDS)
            except SandboxError as error:
                rich.print(f"[red]environment {tenant.environment.id} can't be kept: {escape(str(error))}[/red]")
            else:
                kept.append(tenant)
                shared.kept = True
                del shared.tenants[tenant.environment.id]
    await close(open_ones)
    if kept:
        _show(kept)


def _show(kept: Sequence[Tenant]) -> None:
    table = Table(title="sandboxcore environments (not yet cleaned up):", box=box.SQUARE, title_justify="left")
    for column in ("Sample ID", "Epoch", "Environment", "Backend", "Services"):
        table.add_column(column, no_wrap=column == "Environment")
    for tenant in kept:
        environment = tenant.environment
        names = ", ".join(environment.names)
        table.add_row(escape(tenant.sample), tenant.epoch, environment.id, environment.ref.backend, escape(names))
    rich.print("")
    rich.print(table)
    rich.print(f"\nClean up all environments: [blue]{_COMMAND}[/blue]\nClean up single ones:")
    for tenant in kept:
        rich.print(f"  [blue]{_COMMAND} {tenant.environment.id}[/blue]")
    rich.print("")


async def clean_up(wanted: str | None) -> None:
    """Destroy environments of evals whose process has ended, or those that are named.

    Args:
        wanted: Id of an environment, the beginning of one, what its backend calls it, or the id of a run; None: all that no
            living eval holds.

    Raises:
        SystemExit: Something could not be destroyed, or nothing has that id.
    """
    known = records()
    done = failed = 0
    for backend, options in places(known, default_backend()):
        try:
            async with Session(backend, config=options) as session:
                found = await session.find(labels=MARK)
                chosen = [environment for environment in found if _chosen(environment.ref, wanted)]
                failures = [error for error in await asyncio.gather(*map(_destroy, chosen)) if error]
                failed += len(failures)
                done += len(chosen) - len(failures)
                if not wanted:
                    _show_held([environment for environment in found if environment not in chosen])
        except SandboxError as error:
            failed += 1
            rich.print(f"[red]{escape(backend)}: {escape(str(error))}[/red]")
            continue
        left = {environment.ref.run_id for environment in found if environment not in chosen}
        for record in known:
            here = (record.backend, record.options) == (backend, options)
            if here and not failures and record.run_id not in left and owner_is_gone(record.owner):
                forget(record)
    rich.print(f"{done} environments destroyed.")
    if failed or (wanted and not done):
        if not failed:
            rich.print(f"[red]no environment or run {escape(wanted or '')!r}; see: sandboxcore ls[/red]")
        sys.exit(1)


def _chosen(ref: EnvironmentRef, wanted: str | None) -> bool:
    if wanted:
        return is_meant(wanted, ref) or ref.run_id == wanted
    return ref.expires_at <= time.time() or owner_is_gone(ref.owner)


async def _destroy(environment: Environment) -> SandboxError | None:
    try:
        await environment.destroy()
    except SandboxError as error:
        rich.print(f"[red]{environment.id}: {escape(str(error))}[/red]")
        return error
    rich.print(f"destroyed {environment.id} ({escape(environment.ref.owner)})")
    return None


def _show_held(held: Sequence[Environment]) -> None:
    for environment in held:
        rich.print(
            f"left: {environment.id}, which {escape(environment.ref.owner)} holds; to destroy it: {_COMMAND} {environment.id}"
        )
