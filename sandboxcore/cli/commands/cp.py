"""``sandboxcore cp``: files in and out."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

import click

from ...errors import UsageError
from .._completion import complete_place
from .._lazy import COMMANDS
from .._options import BackendChoice, backend_options, json_option
from .._places import Local, Place, Remote, Stream, landing, parse_place

if TYPE_CHECKING:
    from ...session import Session
    from .._copy import Plan
    from .._progress import Progress
    from .._trees import Entry, Tree

__all__ = ("command",)


@click.command(short_help=COMMANDS["cp"])
@click.argument("source", shell_complete=complete_place)
@click.argument("target", shell_complete=complete_place)
@click.option("-L", "--follow-link", is_flag=True, help="If SOURCE is a symbolic link, copy what it points at.")
@backend_options
@json_option
def command(choice: BackendChoice, source: str, target: str, follow_link: bool, as_json: bool) -> int:
    """Copy files and directories: ENV:PATH or ENV:SERVICE:PATH is in a sandbox, - is standard input or output.

    \b
    A directory goes below a TARGET that is a directory, and becomes a TARGET that does not exist.
    SOURCE/. means what is in the directory. Modes and symbolic links are kept.
    """
    from .._signals import run_async

    places = parse_place(source), parse_place(target)
    if not any(isinstance(place, Remote) for place in places):
        raise UsageError("neither side is in a sandbox", hint="write ENV:PATH or ENV:SERVICE:PATH on at least one side")
    if as_json and isinstance(places[1], Stream):
        raise UsageError("--json and - both want standard output", hint="leave one of them out")
    return run_async(lambda: _cp(choice, *places, follow_link, as_json))


async def _cp(choice: BackendChoice, source: Place, target: Place, follow_link: bool, as_json: bool) -> int:
    from .._progress import Progress

    progress = Progress()
    async with choice.session(on_event=progress.on_event) as session:
        if isinstance(source, Stream):
            return await _from_input(session, target, progress)
        tree, root = await _open(session, source, follow_link)
        if isinstance(target, Stream):
            return await _to_output(tree, root, source, progress)
        plan = await _copy(session, (tree, root, source), target, progress)
    _report(plan, tree, as_json)
    return 0


async def _open(session: Session, place: Place, follow: bool) -> tuple[Tree, Entry]:
    tree = await _tree(session, place)
    entry = await tree.look(follow=follow)
    if entry is None:
        raise UsageError(f"{place}: no such file or directory", hint="nothing was copied")
    if entry.kind == "other":
        raise UsageError(
            f"{place}: is neither a file, a directory nor a link", hint="pass its bytes through standard input: cp - TARGET"
        )
    return tree, entry


async def _tree(session: Session, place: Place) -> Tree:
    if isinstance(place, Local):
        from .._local_tree import LocalTree

        return LocalTree(place.path)
    from .._environments import sandbox_of
    from .._sandbox_tree import SandboxTree

    assert isinstance(place, Remote)
    environment = await session.attach(place.environment)
    return SandboxTree(sandbox_of(environment, place.service), place.path)


async def _copy(session: Session, source: tuple[Tree, Entry, Place], target: Place, progress: Progress) -> Plan:
    from .._copy import copy, plan

    tree, root, place = source
    into = await _tree(session, target)
    there = await into.look(follow=True)
    kind = None if there is None else "directory" if there.kind == "directory" else "file"
    typed = into.root
    assert isinstance(place, (Local, Remote))
    landed = landing(place.path, typed, source_is_directory=root.kind == "directory", target_kind=kind)
    # Links in what was typed are the user's own and are followed; those below are not.
    own = os.path.realpath(typed) if isinstance(target, Local) else typed.rstrip("/") or "/"  # noqa: ASYNC240
    into.root = own if landed == typed else os.path.join(own, landed.rpartition("/")[2])  # noqa: PTH118
    async with progress.waiting(f"looking through {place}"):
        todo = await plan(tree, root)
    async with progress.waiting(f"copying {place} to {target}", total_bytes=todo.total_bytes):
        await copy(todo, tree, into, progress.advance)
    return todo


async def _from_input(session: Session, target: Place, progress: Progress) -> int:
    from .._stdio import STDIN, read_bytes

    into = await _tree(session, target)
    there = await into.look(follow=True)
    if there is not None and there.kind == "directory":
        raise UsageError(f"{target}: is a directory", hint="name the file that standard input becomes")
    async with progress.waiting(f"copying standard input to {target}"):
        await into.write("", read_bytes(STDIN), None)
    return 0


async def _to_output(tree: Tree, root: Entry, source: Place, progress: Progress) -> int:
    from .._stdio import STDOUT, ByteOutput

    if root.kind == "symlink":
        followed = await tree.look(follow=True)
        root = followed or root
    if root.kind != "file":
        raise UsageError(f"{source}: is no file", hint="only a file can go to standard output")
    output = ByteOutput(STDOUT)
    waiting = progress.waiting(f"copying {source}", total_bytes=root.size_bytes)
    async with waiting if not os.isatty(STDOUT) else contextlib.nullcontext():
        async for data in tree.read(""):
            await output.write(data)
            progress.advance(len(data))
    return 0


def _report(plan: Plan, tree: Tree, as_json: bool) -> None:
    from .._output import print_json, warn

    for entry in plan.skipped:
        warn(f"{tree.at(entry.path)}: is neither a file, a directory nor a link, and was skipped")
    if as_json:
        print_json(
            {
                "files": len(plan.files),
                "directories": len(plan.directories),
                "links": len(plan.links),
                "bytes": plan.total_bytes,
                "skipped": [tree.at(entry.path) for entry in plan.skipped],
            }
        )
