"""``sandboxcore plugins``: what is installed, and what is wrong with it."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import click

from .._lazy import COMMANDS
from .._options import json_option
from .._settings import debug_option

if TYPE_CHECKING:
    from collections.abc import Callable

    from ...plugins import PluginHost, PluginRecord

__all__ = ("command",)


@click.command(short_help=COMMANDS["plugins"])
@json_option
@debug_option
def command(as_json: bool) -> int:
    """List backends, translators and plugins, how long each takes to import, and what is wrong with them.

    The exit code is 1 if one of them is broken.
    """
    from ...plugins import PluginHost

    host = PluginHost.load()
    document = _document(host)
    if as_json:
        from .._output import print_json

        print_json(document)
    else:
        _show(host, document)
    return 0 if document["ok"] else 1


def _document(host: PluginHost) -> dict[str, Any]:
    # Asked first: what goes wrong there is among the problems afterwards.
    translators = [translator.name for translator in host.translators()]
    commands = {name: _summary(make) for name, make in sorted(host.commands().items())}
    problems = [dataclasses.asdict(problem) for problem in host.problems]
    return {
        "ok": not problems,
        "backends": [
            {
                "name": info.name,
                "summary": info.summary,
                "capabilities": sorted(info.capabilities),
                "config": sorted(info.config_model.model_fields) if info.config_model else [],
            }
            for info in host.backends.values()
        ],
        "translators": translators,
        "commands": commands,
        "plugins": [dataclasses.asdict(record) for record in host.plugins],
        "problems": problems,
    }


def _show(host: PluginHost, document: dict[str, Any]) -> None:
    from .._output import print_table

    print_table(
        ("PLUGIN", "VERSION", "FROM", "STATUS", "IMPORT", "HOOKS"),
        [
            (
                record.name,
                record.version,
                record.distribution or record.module,
                record.status,
                _milliseconds(record),
                _hooks(record),
            )
            for record in host.plugins
        ],
    )
    for backend in document["backends"]:
        click.echo(f"backend {backend['name']}: {backend['summary']}; {', '.join(backend['capabilities']) or 'no capabilities'}")
    for name in document["translators"]:
        click.echo(f"translator {name}")
    for name, summary in document["commands"].items():
        click.echo(f"command {name}: {summary}")
    for record in host.plugins:
        if record.warning:
            click.echo(f"warning: plugin {record.name!r} {record.warning}")
    for problem in document["problems"]:
        origin = " ".join(problem[key] for key in ("distribution", "version") if problem.get(key))
        name = f"plugin {problem['name']!r}{f' ({origin})' if origin else ''}: " if problem["name"] else ""
        click.echo(f"problem: {name}{problem['problem']}\n  fix: {problem['fix']}")


def _summary(make: Callable[[], click.Command]) -> str:
    return ((make.__doc__ or "").strip().splitlines() or [""])[0]


def _milliseconds(record: PluginRecord) -> str:
    return f"{record.import_seconds * 1000:.0f} ms"


def _hooks(record: PluginRecord) -> str:
    return ", ".join(hook.removeprefix("sandboxcore_") for hook in record.hooks)
