"""``sandboxcore ls``: what there is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from .._lazy import COMMANDS
from .._options import BackendChoice, backend_options, json_option
from .._values import key_values

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ...values import EnvironmentRef, SandboxRef

__all__ = ("command",)


@click.command(short_help=COMMANDS["ls"])
@backend_options
@click.option("--run", "run_id", metavar="ID", help="Only those of this run.")
@click.option("--label", "labels", multiple=True, metavar="K=V", help="Only those with this label; repeatable.")
@json_option
def command(choice: BackendChoice, run_id: str | None, labels: Sequence[str], as_json: bool) -> int:
    """List the environments of a backend, whoever made them."""
    from .._signals import run_async

    wanted = key_values("--label", labels)
    return run_async(lambda: _ls(choice, run_id, wanted, as_json))


async def _ls(choice: BackendChoice, run_id: str | None, labels: Mapping[str, str], as_json: bool) -> int:
    from .._output import environment_data, print_json
    from .._progress import Progress

    progress = Progress()
    async with choice.session(on_event=progress.on_event) as session:
        async with progress.waiting("listing environments"):
            found = [environment.ref for environment in await session.find(run_id=run_id, labels=labels)]
        found.sort(key=lambda environment: environment.created_at)
        if as_json:
            print_json({"backend": session.backend, "environments": [environment_data(environment) for environment in found]})
        else:
            show(found)
    return 0


def show(environments: Sequence[EnvironmentRef]) -> None:
    """Print a table of environments."""
    import time

    from .._output import age, print_table

    now = time.time()
    named = any(environment.name for environment in environments)
    print_table(
        ("ID", *(("NAME",) if named else ()), "STATE", "AGE", "LEASE LEFT", "OWNER", "RUN", "SERVICES"),
        [
            (
                environment.environment_id,
                *((environment.name,) if named else ()),
                environment.state,
                age(now - environment.created_at),
                age(environment.expires_at - now) if environment.expires_at > now else "expired",
                environment.owner,
                environment.run_id,
                _services(environment),
            )
            for environment in environments
        ],
    )


def _services(environment: EnvironmentRef) -> str:
    return ", ".join(map(_service, environment.sandboxes))


def _service(sandbox: SandboxRef) -> str:
    """Name a service, with what it is unless that is ready: ``job (failed, exit code 3)``."""
    if sandbox.state == "ready":
        return sandbox.service
    code = f", exit code {sandbox.exit_code}" if sandbox.exit_code else ""
    return f"{sandbox.service} ({sandbox.state}{code})"
