"""The page about the Helm backend's speed, written from a report of ``benchmarks.helm``, and its picture."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .drawing import picture
from .tables import machine_text, short, table, verdict_table
from .targets import Verdict, size_text

__all__ = ("OURS", "PEER", "draw", "verdicts", "write")

OURS = "sandboxcore"
PEER = "inspect_k8s_sandbox"
_ROOM = "with room"
_NODE = "on this node"
_CHARTS = {"own_chart": "its own chart", "same_chart": "one chart"}
_COLOURS = {OURS: "#0b6e99", PEER: "#8a8a8a"}

_PAGE = """# Performance of the helm backend

This page is written by `benchmarks.helm` from one run; [its figures as JSON](../_static/performance-helm.json) hold more. The
peer is `{peer}`, in a venv of its own, through the interface that Inspect uses. Both work on one cluster,
one after the other; commands and files go to a pod of one chart. Absolute times are those of the machine below, which is client
and node at once: read the ratios.

{machine}

## Numbers to reach

{verdicts}

![Commands, and releases until they are ready, beside the peer](../_static/performance-helm.svg)

## Commands

`/bin/true` in one pod. Client CPU is the processor time of the client's process, a command.

{commands}

## Files

Whole, in and out of one pod, through the stream of an exec of the API server. The peer reads files of up to 100 MiB, so the
largest is a little smaller.

{files}

## Releases

All at once, until every one is ready; then all are taken away. *render-once* renders a chart once and creates its objects itself;
*helm* runs the helm program for each release, as the peer does. One sandbox of one image and one command, each: with *its own
chart*, as a user of either gets it, and both with *one chart* of a StatefulSet, a Service and a ConfigMap. Client CPU is the
processor time of the client and of the programs that it runs, a release.

**With room**: on a simulated node (`benchmarks/simulated_node.py`), whose pods are ready a second after they were bound. API
server, scheduler and controllers are the real ones, nothing runs in the pods: this is what the tools themselves take, as on a
cluster with nodes enough.

{simulated}

**On this node**, which really starts them, two processors for the node, the API server and the client together:

{releases}

- The peer's own chart puts a resolver beside each sandbox, which asks for 100m CPU: some 16 fit on such a node, and the rest fail
  after 600 s. In the copy that is installed here it asks for 10m, so that all of them fit. Its Cilium policies are stored, and
  nothing enforces them here; the plain ones of our chart are enforced.
- Nobody can be faster than bare pods created in one go, with nothing beside them.
- The one chart makes its pod by a StatefulSet. The controller manager sends 20 requests a second, as it is delivered, and each
  StatefulSet takes it four or more: all tools wait for that. The chart that comes with sandboxcore has bare pods.
- Each measurement waits until the processors have been idle: a node works on a pod for seconds after
  the API server has forgotten it.

What a sandbox costs the API server in requests, made and taken away, with other numbers of releases:

{requests}

## An image that can't be pulled

From `provision` to the typed error that names the service and the reason: {bad_image} s. The peer waits until helm gives up,
600 s as it is delivered.

## Run it yourself

```console
$ python -m venv peer && peer/bin/pip install {peer_pin}
$ peer/bin/pip install 'kubernetes<34'   # pip warns; with version 37 the peer's reads fail
$ python -m benchmarks.helm --peer peer/bin/python --docs   # on the cluster of the tests; writes this page
```
"""


def _file_bound(size_bytes: int) -> float:
    return 15 if size_bytes < 1 << 20 else 3 if size_bytes < 10 << 20 else 2.5


def verdicts(report: Mapping[str, Any]) -> Sequence[Verdict]:
    """Hold a report against the numbers to reach."""
    mine, other = report[OURS], report[PEER]
    commands = {row["in_flight"]: (row, its) for row, its in zip(mine["commands"], other["commands"], strict=True)}
    found = []

    def least(what: str, value: float, bound: float) -> None:
        found.append(Verdict(what=what, value=value, bound=bound, unit="x", most=False))

    if 1 in commands:
        row, its = commands[1]
        least("a command alone, p50, times faster", its["p50_ms"] / row["p50_ms"], 20)
        least("client CPU of a command alone, times less", its["client_cpu_us"] / row["client_cpu_us"], 25)
    if 100 in commands:
        row, its = commands[100]
        least("commands a second at 100 in flight", row["per_second"] / its["per_second"], 30)
    failures = sum(row["failures"] for row in mine["commands"])
    found.append(Verdict(what="commands that failed", value=failures, bound=0, unit=""))
    for row, its in zip(mine["files"], other["files"], strict=True):
        size = row["size_bytes"]
        for way, word in (("up_ms", "written"), ("down_ms", "read")):
            least(f"{size_text(size)} {word}, times faster", its[way] / row[way], _file_bound(size))
    for place, (ours, theirs, _) in _places(report).items():
        for chart, word in _CHARTS.items():
            for engine, bound in (("render-once", 5), ("helm", 2)):
                made = ours[chart][engine]
                what = f"{made['releases']} releases {place}, {word}, {engine}: times faster"
                least(what, theirs[chart]["provision_s"] / made["provision_s"], bound)
    for row in [*mine["releases"]["same_chart"].values(), *mine.get("scales", ())]:
        what = f"API requests a sandbox, {row['releases']} releases with {row['engine']}"
        found.append(Verdict(what=what, value=row["requests_each"], bound=12, unit=""))
    found.append(Verdict(what="bad image to the typed error", value=mine["bad_image_s"], bound=15, unit="s"))
    return found


def write(report: Mapping[str, Any]) -> str:
    """Return the page's text."""
    pin = report["peer"]
    return _PAGE.format(
        peer=pin.replace("==", " "),
        peer_pin=pin,
        machine=f"{machine_text(report['machine'])} Kubernetes {report['kubernetes']}, Helm {report['helm']}.",
        verdicts=verdict_table(verdicts(report)),
        commands=_commands(report),
        files=_files(report),
        simulated=_releases(*_places(report)[_ROOM]),
        releases=_releases(*_places(report)[_NODE]),
        requests=_scales(report[OURS].get("scales", ())),
        bad_image=short(report[OURS]["bad_image_s"]),
    )


def _commands(report: Mapping[str, Any]) -> str:
    def lines() -> Iterable[Sequence[str]]:
        for mine, its in zip(report[OURS]["commands"], report[PEER]["commands"], strict=True):
            for name, row in ((OURS, mine), (PEER, its)):
                ratios = ("", "")
                if row is mine:
                    faster, rate = its["p50_ms"] / mine["p50_ms"], mine["per_second"] / its["per_second"]
                    ratios = (f"{faster:.1f}x faster", f"{rate:.1f}x")
                figures = [short(row[key]) for key in ("p50_ms", "per_second", "client_cpu_us")]
                yield [str(row["in_flight"]), name, *figures, str(row["failures"]), *ratios]

    return table(("in flight", "by", "p50 ms", "commands/s", "client CPU, µs", "failures", "p50", "rate"), lines())


def _files(report: Mapping[str, Any]) -> str:
    def lines() -> Iterable[Sequence[str]]:
        for mine, its in zip(report[OURS]["files"], report[PEER]["files"], strict=True):
            for way, word in (("up_ms", "in"), ("down_ms", "out")):
                size = f"{size_text(mine['size_bytes'])} {word}"
                yield [size, short(mine[way]), short(its[way]), f"{its[way] / mine[way]:.1f}x"]

    return table(("file", f"{OURS}, ms", f"{PEER}, ms", "times faster"), lines())


def _places(report: Mapping[str, Any]) -> dict[str, tuple[Mapping[str, Any], Mapping[str, Any], float]]:
    """Return where releases were made: ours, the peer's, and what bare pods take there."""
    room = report["simulated"]
    return {
        _ROOM: (room[OURS], room[PEER], room["floor_s"]),
        _NODE: (report[OURS]["releases"], report[PEER]["releases"], report["floor_s"]),
    }


def _releases(ours: Mapping[str, Any], theirs: Mapping[str, Any], floor: float) -> str:
    def lines() -> Iterable[Sequence[str]]:
        for chart, word in _CHARTS.items():
            its = theirs[chart]
            for engine, row in ours[chart].items():
                times = f"{its['provision_s'] / row['provision_s']:.1f}x"
                yield [word, f"{OURS}, {engine}", *figures(row), short(row["requests_each"]), times]
            yield [word, PEER, *figures(its), "", ""]
        yield ["none", "bare pods", str(its["releases"]), "0", short(floor), "", "", "", ""]

    def figures(row: Mapping[str, Any]) -> Sequence[str]:
        cpu = short(row["client_cpu_s"] / row["releases"])
        return [str(row["releases"]), str(row["failures"]), short(row["provision_s"]), short(row["destroy_s"]), cpu]

    head = (
        "chart",
        "by",
        "releases",
        "failures",
        "ready, s",
        "gone, s",
        "client CPU each, s",
        "API requests each",
        "times faster",
    )
    return table(head, lines())


def _scales(rows: Sequence[Mapping[str, Any]]) -> str:
    def lines() -> Iterable[Sequence[str]]:
        for row in rows:
            figures = [short(row[key]) for key in ("provision_s", "destroy_s", "requests_each")]
            yield [row["engine"], str(row["releases"]), str(row["failures"]), *figures]

    return table(("by", "releases", "failures", "ready, s", "gone, s", "API requests each"), lines())


def draw(report: Mapping[str, Any], path: Path) -> None:
    """Draw commands and provisioning of both; the format is that of the name's ending."""
    with picture(path, 2, 2, (10, 7.5)) as axes:
        for name, colour in _COLOURS.items():
            rows = report[name]["commands"]
            for axis, key in ((axes[0][0], "p50_ms"), (axes[0][1], "per_second")):
                axis.plot([row["in_flight"] for row in rows], [row[key] for row in rows], marker="o", label=name, color=colour)
            rows = report[name]["files"]
            for key, word, style in (("up_ms", "in", "-"), ("down_ms", "out", "--")):
                values = [row[key] for row in rows]
                axes[1][0].plot(range(len(rows)), values, style, marker="o", label=f"{name}, {word}", color=colour)
        axes[0][0].set(title="median latency of /bin/true, ms", xlabel="in flight", xscale="log", yscale="log")
        axes[0][1].set(title="commands a second", xlabel="in flight", xscale="log", yscale="log")
        sizes = [size_text(row["size_bytes"]) for row in report[OURS]["files"]]
        axes[1][0].set(title="a file, ms", xticks=range(len(sizes)), xticklabels=sizes, yscale="log")
        _draw_releases(axes[1][1], report)
        for axis in (axes[0][0], axes[0][1], axes[1][0]):
            axis.grid(visible=True, alpha=0.3)
            axis.legend(fontsize=8)


def _draw_releases(axis: Any, report: Mapping[str, Any]) -> None:
    places = _places(report)
    bars: dict[str, list[float]] = {}
    for ours, theirs, floor in places.values():
        for engine, row in ours["own_chart"].items():
            bars.setdefault(f"{OURS}, {engine}", []).append(row["provision_s"])
        bars.setdefault(PEER, []).append(theirs["own_chart"]["provision_s"])
        bars.setdefault("bare pods", []).append(floor)
    colours = ("#0b6e99", "#6fb3cf", "#8a8a8a", "#d5d5d5")
    for offset, ((name, seconds), colour) in enumerate(zip(bars.items(), colours, strict=True)):
        axis.bar([place + 0.21 * (offset - 1.5) for place in range(len(seconds))], seconds, width=0.2, label=name, color=colour)
    count = report[PEER]["releases"]["own_chart"]["releases"]
    title = f"seconds until {count} releases are ready, each of its own chart"
    axis.set(title=title, xticks=range(len(places)), xticklabels=list(places))
    axis.grid(visible=True, axis="y", alpha=0.3)
    axis.legend(fontsize=8)
