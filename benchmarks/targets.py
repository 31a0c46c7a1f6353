"""The numbers to reach, and whether a run reached them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .commands import BARE, BWRAP, OURS, SPAWN
from .transfers import CAT, STREAMED

__all__ = ("Verdict", "verdicts")

Report = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """One number to reach. ``most`` True: not above ``bound``; False: not below."""

    what: str
    value: float
    bound: float
    unit: str
    most: bool = True

    @property
    def reached(self) -> bool:
        """Whether it was reached."""
        return self.value <= self.bound if self.most else self.value >= self.bound


def verdicts(report: Report) -> Sequence[Verdict]:
    """Hold a report against the numbers to reach; what a quick run did not measure is left out."""
    return [*_commands(report), *_files(report), *_weights(report), *_starts(report)]


def _commands(report: Report) -> Sequence[Verdict]:
    found = []
    rows = {row["in_flight"]: row["contenders"] for row in report["commands"]}
    if 1 in rows:
        for name in (BARE, SPAWN):
            ratio = rows[1][OURS]["p50_ms"] / rows[1][name]["p50_ms"]
            found.append(Verdict(what=f"a command alone, p50, beside {_CALLED[name]}", value=ratio, bound=3, unit="x"))
    if 100 in rows:
        ratio = rows[100][OURS]["per_second"] / rows[100][BWRAP]["per_second"]
        what = "commands a second at 100 in flight, beside a fresh bubblewrap each"
        found.append(Verdict(what=what, value=ratio, bound=5, unit="x", most=False))
    return found


_CALLED = {BARE: "`asyncio.create_subprocess_exec` on the host", SPAWN: "a blocking `posix_spawn` on the host"}


def _files(report: Report) -> Sequence[Verdict]:
    found = []
    largest = report["files"]["rows"][-1]
    size = size_text(largest["size_bytes"])
    for way, what in (("down", "read"), ("up", "written")):
        share = 100 * largest[way][STREAMED]["mib_per_second"] / largest[way][CAT]["mib_per_second"]
        found.append(
            Verdict(what=f"{size} {what} in pieces, beside `cat` through a pipe", value=share, bound=60, unit="%", most=False)
        )
    for way, what in (("down", "read"), ("up", "written")):
        grown = report["files"]["memory"]["growth_bytes"][way] / 2**20
        found.append(Verdict(what=f"growth of the client's memory while {size} is {what}", value=grown, bound=32, unit="MiB"))
    return found


def _weights(report: Report) -> Sequence[Verdict]:
    weights, found = report["weights"], []
    for kind, called in (("rss", "resident"), ("allocated", "allocated")):
        each = weights[kind]["bytes_each"]
        for state, bound in (("active", 320), ("idle, connected", 8)):
            what = f"memory of each of {weights['count']:,} open sandboxes, {state} ({called})"
            found.append(Verdict(what=what, value=each[state] / 1024, bound=bound, unit="KiB"))
    return found


def _starts(report: Report) -> Sequence[Verdict]:
    cpu = report["starts"]["cpu_ms"]
    return [
        Verdict(what="`import sandboxcore`, CPU", value=cpu["import sandboxcore"], bound=60, unit="ms"),
        Verdict(what="`sandboxcore --help`, CPU", value=cpu["sandboxcore --help"], bound=120, unit="ms"),
    ]


def size_text(size_bytes: int) -> str:
    """Write a size as people do."""
    for shift, unit in ((30, "GiB"), (20, "MiB"), (10, "KiB")):
        if size_bytes >> shift:
            return f"{size_bytes >> shift} {unit}"
    return f"{size_bytes} B"
