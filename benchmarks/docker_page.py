"""The docker part of a report: its verdicts, its section of the page, its picture."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .docker_backend import API, NO_NETWORK, OURS, RUN
from .docker_inspect import ADAPTER, PROVIDER
from .drawing import grid_and_legend, picture
from .tables import short, table
from .targets import Verdict, size_text

__all__ = ("draw", "section", "verdicts")

_COLOURS = {OURS: "#0b6e99", API: "#8a8a8a", RUN: "#8a8a8a", NO_NETWORK: "#c4622d"}

_SECTION = """## The docker backend

{machine} {engine}, an image of Debian, all in one run; the client is on the engine's machine.

![The docker backend beside the engine's own API](../_static/performance-docker.svg)

`/bin/true` in one container, beside the engine's own API: create, start and inspect, over its socket, by a client that does not
block and keeps its connections, without any library.

{commands}

A file in and out, whole, beside `put_archive` and `get_archive` over the same socket:

{files}

The client is root on the engine's machine, so files go past the engine, through the guest's own socket. Elsewhere they go through
the stream of one exec, as commands do: small files are as far ahead there, one of 100 MiB takes about as long as by the archives.

{count} environments of one container, until all of them are ready to be used (ours) or started (`docker run`), {at_once} at a
time. `docker run` stands in a shell loop, `xargs -P {at_once}`. Ours have no network: the spec asks for none.

{environments}
{inspect}"""

_INSPECT = """
Inspect's own docker provider and the adapter, through the interface that Inspect uses ({samples} samples at once; Inspect lets as
many `docker` commands run at a time as there are processors):

{inspect}
"""


def verdicts(report: Mapping[str, Any]) -> Sequence[Verdict]:
    """Hold the part against the numbers to reach."""
    found = []
    rows = {row["in_flight"]: row["contenders"] for row in report["commands"]}
    if 1 in rows:
        ratio = rows[1][API]["p50_ms"] / rows[1][OURS]["p50_ms"]
        what = "docker: a command alone, p50, times faster than by the engine's API"
        found.append(Verdict(what=what, value=ratio, bound=20, unit="x", most=False))
    if 100 in rows:
        ratio = rows[100][OURS]["per_second"] / rows[100][API]["per_second"]
        what = "docker: commands a second at 100 in flight, beside the engine's API"
        found.append(Verdict(what=what, value=ratio, bound=30, unit="x", most=False))
    for row in report["files"]:
        for way, word in (("up", "written"), ("down", "read")):
            ratio = row[way][API]["ms"] / row[way][OURS]["ms"]
            what = f"docker: {size_text(row['size_bytes'])} {word}, times faster than by the engine's archives"
            found.append(Verdict(what=what, value=ratio, bound=3, unit="x", most=False))
    made = report["environments"]
    what = f"docker: {made['count']} environments of one container, beside a shell loop of `docker run -d`"
    found.append(Verdict(what=what, value=made["seconds"][OURS] / made["seconds"][RUN], bound=1.2, unit="x"))
    return found


def section(report: Mapping[str, Any]) -> str:
    """Write the section of the page."""
    made = report["environments"]
    return _SECTION.format(
        machine=f"Measured {report['machine']['date']}, load average {report['machine']['load_before'][0]:g} before and "
        f"{report['machine']['load_after'][0]:g} after.",
        engine=report["engine"],
        commands=_commands(report["commands"], (OURS, API)),
        files=_files(report["files"], OURS, API),
        count=made["count"],
        at_once=made["at_once"],
        environments=_environments(made),
        inspect=_inspect(report.get("inspect", {})),
    )


def _commands(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> str:
    ours, theirs = names

    def lines() -> Iterable[Sequence[str]]:
        for row in rows:
            for name in names:
                its = row["contenders"][name]
                figures = [short(its[figure]) for figure in ("p50_ms", "p99_ms", "per_second", "client_cpu_us")]
                yield [str(row["in_flight"]), name, *figures, *_ratios(row["contenders"], ours, theirs, name)]

    return table(("in flight", "by", "p50 ms", "p99 ms", "commands/s", "client CPU, µs", "p50", "rate"), lines())


def _ratios(contenders: Mapping[str, Mapping[str, float]], ours: str, theirs: str, name: str) -> Sequence[str]:
    if name != ours:
        return ("", "")
    latency = contenders[theirs]["p50_ms"] / contenders[ours]["p50_ms"]
    rate = contenders[ours]["per_second"] / contenders[theirs]["per_second"]
    return (f"{latency:.1f}x faster", f"{rate:.1f}x")


def _files(rows: Sequence[Mapping[str, Any]], ours: str, theirs: str) -> str:
    def lines() -> Iterable[Sequence[str]]:
        for row in rows:
            for way, word in (("up", "in"), ("down", "out")):
                mine, its = (_milliseconds(row[way][name]) for name in (ours, theirs))
                yield [f"{size_text(row['size_bytes'])} {word}", short(mine), short(its), f"{its / mine:.1f}x"]

    return table(("file", f"{ours}, ms", f"{theirs}, ms", "times faster"), lines())


def _milliseconds(figures: Mapping[str, float]) -> float:
    return figures["ms"] if "ms" in figures else figures["p50_ms"]


def _environments(made: Mapping[str, Any]) -> str:
    def line(name: str) -> Sequence[str]:
        seconds, gone = made["seconds"][name], made["removal_seconds"][name]
        called = name if name == OURS else f"`{name}`"
        return [called, short(seconds), f"{made['seconds'][OURS] / seconds:.2f}x", short(gone)]

    return table(("by", "made, s", "ours to it", "removed, s"), map(line, (OURS, RUN, NO_NETWORK)))


def _inspect(report: Mapping[str, Any]) -> str:
    if "init_s" not in report:
        return ""
    made = [[name, *(short(report["init_s"][name][key]) for key in ("alone", "together"))] for name in (ADAPTER, PROVIDER)]
    tables = [
        table(("by", "one sample made, s", f"{report['samples']} samples at once, s"), made),
        _commands(report["commands"], (ADAPTER, PROVIDER)),
        _files(report["files"], ADAPTER, PROVIDER),
    ]
    return _INSPECT.format(samples=report["samples"], inspect="\n\n".join(tables))


def draw(report: Mapping[str, Any], path: Path) -> None:
    """Write the picture; its format is that of the name's ending."""
    with picture(path, 2, 2, (10, 7.5)) as axes:
        _draw_commands(axes[0][0], report["commands"], "p50_ms", "median latency of /bin/true, ms")
        _draw_commands(axes[0][1], report["commands"], "per_second", "commands a second")
        _draw_files(axes[1][0], report["files"])
        _draw_environments(axes[1][1], report["environments"])


def _draw_commands(axis: Any, rows: Sequence[Mapping[str, Any]], figure: str, title: str) -> None:
    for name in (API, OURS):
        values = [row["contenders"][name][figure] for row in rows]
        axis.plot([row["in_flight"] for row in rows], values, marker="o", label=name, color=_COLOURS[name])
    axis.set(title=title, xlabel="in flight", xscale="log", yscale="log")
    grid_and_legend(axis)


def _draw_files(axis: Any, rows: Sequence[Mapping[str, Any]]) -> None:
    for name, label in ((API, "engine's archives"), (OURS, OURS)):
        for way, word, style in (("up", "in", "-"), ("down", "out", "--")):
            values = [row[way][name]["ms"] for row in rows]
            axis.plot(range(len(rows)), values, style, marker="o", label=f"{label}, {word}", color=_COLOURS[name])
    axis.set(
        title="a file, ms", xticks=range(len(rows)), xticklabels=[size_text(row["size_bytes"]) for row in rows], yscale="log"
    )
    grid_and_legend(axis)


def _draw_environments(axis: Any, made: Mapping[str, Any]) -> None:
    names = (OURS, RUN, NO_NETWORK)
    axis.bar(names, [made["seconds"][name] for name in names], color=[_COLOURS[name] for name in names], label="made")
    axis.set(title=f"{made['count']} environments, {made['at_once']} at a time, s")
    axis.tick_params(axis="x", labelsize=7)
    axis.grid(visible=True, axis="y", alpha=0.3)
