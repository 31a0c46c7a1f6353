"""Write docs/explanation/performance.md from a report, so that no figure in it was typed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from . import docker_page
from .commands import BARE, BWRAP, OURS, SPAWN
from .tables import machine_text, short, table, verdict_table
from .targets import Verdict, size_text, verdicts
from .transfers import CAT, STREAMED, WHOLE

__all__ = ("all_verdicts", "write")

_HEAD = """# Performance

This page is written by `make bench` from one run; [its figures as JSON](../_static/performance.json) hold more. Rivals take turns
within the run, forth and back, and each figure is the median of its runs. Absolute times are those of the machine below, with
whatever else it was doing: read the ratios, and run it on yours.

{machine}

## Numbers to reach

{verdicts}

![Latency and rate of commands, and throughput of files](../_static/performance.svg)

## Commands

`/bin/true`, with its output collected, in four ways: sandboxcore's `local` backend; `asyncio.create_subprocess_exec` of the
same program on the host, with no sandbox at all; the same with a fresh bubblewrap around each command; and, alone only, a
blocking `posix_spawn` and `waitpid`, which is the least that starting a program can cost. Client CPU is the processor time of
the measuring process itself, a command.

{commands}

A sandbox that is there already costs one more process than a bare command: the one that minds it. It gains what starting a
process from a large Python program costs, because the small guest forks in its place. A fresh bubblewrap pays for its namespaces
and mounts each time. Far beyond the number of cores all latencies are queueing.

## Files

Between memory (`/dev/shm`) on both sides, so that no disk is measured. `cat` is `cat FILE | cat > FILE`: two processes and a
pipe, no Python. *Whole* is `write_file` and `read_file`, whose memory is the file's size; *in pieces* is `open_write` and
`open_read`.

{files}

Small files cost one process in the sandbox each, as a command does. The memory of the measuring process rose by
{grown_up:.1f} MiB while {largest} was written in pieces, and by {grown_down:.1f} MiB while it was read.

## Open sandboxes

What {count:,} sandboxes of one session take in the client's process, a sandbox: whole environments, provisioned through the
public face, whose guests are played by another process. *Active* is one command in flight each, with {output} of output received.
*Resident* is what the kernel counts, *allocated* what Python gave out.

{weights}

An open sandbox has no thread and no task; one that is connected has a file descriptor. A link on which nothing happened for a
minute is closed, and opened again on use.

## Starting

Processor time, user and system, of a fresh Python process.

{starts}

Beyond the standard library, `import sandboxcore` imports {modules}.

{docker}## Run it yourself

```console
$ make bench                         # all of it, about five minutes; writes this page
$ python -m benchmarks --quick       # a few seconds, figures without meaning: does it run at all?
$ python -m benchmarks --only files  # one part: commands, files, weights, starts, docker
$ python -m benchmarks --renew docker --docs   # the section about Docker anew, the rest of this page as it is
$ python -m benchmarks --without docker --docs # where there is no engine and none can be started
```
"""


def all_verdicts(report: Mapping[str, Any]) -> Sequence[Verdict]:
    """Hold a report against all numbers to reach."""
    return [*verdicts(report), *(docker_page.verdicts(report["docker"]) if "docker" in report else ())]


def write(report: Mapping[str, Any]) -> str:
    """Return the page's text."""
    files, weights = report["files"], report["weights"]
    grown = files["memory"]["growth_bytes"]
    return _HEAD.format(
        machine=machine_text(report["machine"]),
        verdicts=verdict_table(all_verdicts(report)),
        commands=_commands(report["commands"]),
        files=_files(files["rows"]),
        grown_up=grown["up"] / 2**20,
        grown_down=grown["down"] / 2**20,
        largest=size_text(files["memory"]["size_bytes"]),
        count=weights["count"],
        output=size_text(weights["rss"]["output_bytes_each"]),
        weights=_weights(weights),
        starts=_starts(report["starts"]["cpu_ms"]),
        docker=f"{docker_page.section(report['docker'])}\n" if "docker" in report else "",
        modules=", ".join(f"`{name}`" for name in report["starts"]["modules"] if name != "sandboxcore") or "nothing",
    )


def _commands(rows: Sequence[Mapping[str, Any]]) -> str:
    def lines() -> Iterable[Sequence[str]]:
        for row in rows:
            for name in (OURS, BARE, SPAWN, BWRAP):
                if name in row["contenders"]:
                    yield _command_line(row["in_flight"], name, row["contenders"])

    head = ("in flight", "by", "p50 ms", "p99 ms", "commands/s", "client CPU, µs", "p50, ours to it", "rate, ours to it")
    return table(head, lines())


def _command_line(in_flight: int, name: str, contenders: Mapping[str, Mapping[str, float]]) -> Sequence[str]:
    its, ours = contenders[name], contenders[OURS]
    figures = [short(its[figure]) for figure in ("p50_ms", "p99_ms", "per_second", "client_cpu_us")]
    ratios = [f"{ours[figure] / its[figure]:.2f}x" if name != OURS else "" for figure in ("p50_ms", "per_second")]
    return [f"{in_flight:,}", name, *figures, *ratios]


def _files(rows: Sequence[Mapping[str, Any]]) -> str:
    def lines() -> Iterable[Sequence[str]]:
        for row in rows:
            for way, word in (("up", "in"), ("down", "out")):
                cat = row[way][CAT]["mib_per_second"]
                cells = [short(cat)]
                for name in (WHOLE, STREAMED):
                    speed = row[way][name]["mib_per_second"]
                    cells.append(f"{short(speed)} ({speed / cat:.2f}x)")
                yield [f"{size_text(row['size_bytes'])} {word}", short(row[way][WHOLE]["ms"]), *cells]

    return table(("file", "whole, ms", "`cat`, MiB/s", "whole, MiB/s", "in pieces, MiB/s"), lines())


def _weights(weights: Mapping[str, Any]) -> str:
    states = weights["rss"]["bytes_each"]
    rows = [[state, *(f"{weights[kind]['bytes_each'][state] / 1024:.1f}" for kind in ("rss", "allocated"))] for state in states]
    return table(("state", "resident, KiB", "allocated, KiB"), rows)


def _starts(cpu_ms: Mapping[str, float]) -> str:
    return table(("program", "CPU ms"), ([f"`{name}`", f"{value:.0f}"] for name, value in cpu_ms.items()))
