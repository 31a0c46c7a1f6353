"""The page about the OpenSandbox backend's speed, written from a report of ``benchmarks.opensandbox``, and its picture."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .drawing import picture
from .tables import machine_text, short, table, verdict_table
from .targets import Verdict, size_text

__all__ = ("draw", "verdicts", "write")

_WAYS = (("write", "in"), ("read", "out"))
_FIGURES = ("ready", "first_exec", "client_cpu")
_COMMAND = "server: a command alone, p50, times faster than the SDK"
_COLOURS = {"ours": "#0b6e99", "sdk": "#8a8a8a"}
_CALLED = {"ours": "sandboxcore", "sdk": "SDK and execd"}

_PAGE = """# Performance of the opensandbox backend

This page is written by `benchmarks.opensandbox` from one run; [its figures as JSON](../_static/performance-opensandbox.json) hold
more. It needs a cluster with OpenSandbox. Absolute times are those of the machine below, which is client and node at once: read
the ratios.

{machine}

## Numbers to reach

{verdicts}

![Sandboxes from a pool and from an image, commands and files beside the SDK](../_static/performance-opensandbox.svg)

## Many sandboxes

{count} at once, from `provision_many` to the first command's end in the last of them, in mode `crd`: from a pool that is warm,
and from an image that is on the node. Client CPU is this client's, for all of them. Either begins on an idle machine.

{many}

## Commands

`true` in one sandbox of the server, one at a time, beside `commands.run` of the SDK.

{commands}

## Files

Whole, in and out of one sandbox of the server, beside `files.write_file` and `files.read_bytes` of the SDK.

{files}

All of them go through execd in the sandbox, which is the limit for large ones: its WebSocket for what the guest sends and
takes, its own downloads for large files out.

## Run it yourself

```console
$ python -m benchmarks.opensandbox --docs   # on the cluster of the tests; writes this page
```
"""


def verdicts(report: Mapping[str, Any]) -> Sequence[Verdict]:
    """Hold a report against the numbers to reach."""
    crd, server = report["crd"], report["server"]
    what = f"{crd['count']} sandboxes to the first command, times faster from a warm pool than from an image"
    found = [
        Verdict(what=what, value=crd["ratio"], bound=10, unit="x", most=False),
        Verdict(what="processor time of this client for the pooled ones", value=crd["pool"]["client_cpu"], bound=0.5, unit="s"),
        Verdict(what=_COMMAND, value=server["exec"]["ratio"], bound=100, unit="x", most=False),
    ]
    for row in server["files"]:
        for way, word in _WAYS:
            what = f"server: {size_text(row['bytes'])} {word}, times faster than the SDK"
            found.append(Verdict(what=what, value=row["ratios"][way], bound=3, unit="x", most=False))
    return found


def write(report: Mapping[str, Any]) -> str:
    """Return the page's text."""
    return _PAGE.format(
        machine=machine_text(report["machine"]),
        verdicts=verdict_table(verdicts(report)),
        count=report["crd"]["count"],
        many=_many(report["crd"]),
        commands=_commands(report["server"]["exec"]),
        files=_files(report["server"]["files"]),
    )


def _many(crd: Mapping[str, Any]) -> str:
    sources = (("pool", "a warm pool"), ("image", "an image"))
    rows = [[name, *(short(crd[key][figure]) for figure in _FIGURES)] for key, name in sources]
    return table(("from", "ready, s", "first command, s", "client CPU, s"), rows)


def _commands(row: Mapping[str, Any]) -> str:
    rows = [[_CALLED[name], *(short(1e3 * row[name][key]) for key in ("p50", "p95"))] for name in ("ours", "sdk")]
    return table(("by", "p50 ms", "p95 ms"), rows)


def _files(rows: Sequence[Mapping[str, Any]]) -> str:
    def lines() -> Iterable[Sequence[str]]:
        for row in rows:
            for way, word in _WAYS:
                figures = [short(1e3 * row[f"{name}_{way}"]["p50"]) for name in ("ours", "sdk")]
                yield [f"{size_text(row['bytes'])} {word}", *figures, f"{row['ratios'][way]:.1f}x"]

    return table(("file", f"{_CALLED['ours']}, ms", f"{_CALLED['sdk']}, ms", "times faster"), lines())


def draw(report: Mapping[str, Any], path: Path) -> None:
    """Write the picture; its format is that of the name's ending."""
    crd, server = report["crd"], report["server"]
    with picture(path, 1, 3, (12, 3.8)) as axes:
        seconds = {"a warm pool": crd["pool"]["first_exec"], "an image": crd["image"]["first_exec"]}
        axes[0].bar(list(seconds), list(seconds.values()), color=[_COLOURS["ours"], "#6fb3cf"])
        axes[0].set(title=f"{crd['count']} sandboxes, seconds to the first command")
        names = ("ours", "sdk")
        values = [1e3 * server["exec"][name]["p50"] for name in names]
        axes[1].bar([_CALLED[name] for name in names], values, color=[_COLOURS[name] for name in names])
        axes[1].set(title="a command through the server, p50, ms", yscale="log")
        rows = server["files"]
        for name in names:
            for (way, word), style in zip(_WAYS, ("-", "--"), strict=True):
                values = [1e3 * row[f"{name}_{way}"]["p50"] for row in rows]
                axes[2].plot(range(len(rows)), values, style, marker="o", label=f"{_CALLED[name]}, {word}", color=_COLOURS[name])
        axes[2].set(
            title="a file, p50, ms", xticks=range(len(rows)), xticklabels=[size_text(row["bytes"]) for row in rows], yscale="log"
        )
        axes[2].legend(fontsize=8)
        for axis in axes:
            axis.grid(visible=True, axis="y", alpha=0.3)
