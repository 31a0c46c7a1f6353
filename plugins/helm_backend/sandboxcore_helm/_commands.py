"""``sandboxcore helm``: what only the Helm backend has."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import click

__all__ = ("commands",)


def commands() -> click.Group:
    """Make the group of commands."""
    group = click.Group("helm", help="Work with the Helm backend's releases on a cluster.")
    for command in (_reaper, _reap):
        group.add_command(command)
    return group


@click.command("reaper")
@click.option("--namespace", required=True, help="Where the environments are.")
@click.option("--image", required=True, help="An image with sandboxcore[helm] installed.")
@click.option("--schedule", default="*/5 * * * *", show_default=True, help="When it runs, as cron has it.")
@click.option("--name", default="sandboxcore-reaper", show_default=True, help="Name of its objects.")
@click.option(
    "--resource",
    "resources",
    multiple=True,
    metavar="NAME[.GROUP]",
    help="A further resource that your charts make, as ingresses.networking.k8s.io; can be given again.",
)
def _reaper(namespace: str, image: str, schedule: str, name: str, resources: tuple[str, ...]) -> None:
    """Print a CronJob that takes expired environments away: pipe it to kubectl apply -f -."""
    import yaml

    from ._reaper import reaper_objects

    objects = reaper_objects(namespace=namespace, image=image, schedule=schedule, name=name, resources=resources)
    click.echo(yaml.safe_dump_all(objects, sort_keys=False), nl=False)


@click.command("reap")
@click.option("--config", "config", default="{}", help="Configuration of the backend, as JSON.")
def _reap(config: str) -> None:
    """Take expired environments away, once: what the CronJob of `reaper` runs."""
    from sandboxcore import Session
    from sandboxcore.errors import UsageError

    try:
        given: dict[str, Any] = json.loads(config)
    except ValueError as error:
        raise UsageError(f"--config: is no JSON: {error}") from None

    async def reap() -> list[str]:
        async with Session("helm", config=given) as session:
            return [ref.environment_id for ref in await session.cleanup(expired=True)]

    removed = asyncio.run(reap())
    click.echo(f"{len(removed)} environments were expired" + "".join(f"\n{name}" for name in removed))
