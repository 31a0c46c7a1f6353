"""Measure, print what was reached, and write JSON, a picture and, if asked, the page in the docs."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import sandboxcore

from . import commands, docker_backend, docker_page, machine, plot, starting, transfers, weights
from .page import all_verdicts, write

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PARTS = ("files", "commands", "weights", "starts", "docker")
#: Parts with a section of their own, which can be measured at another time than the others.
SECTIONS = ("docker",)

FULL: Mapping[str, Any] = {
    "commands": {"in_flight": (1, 10, 100, 1000), "seconds": 1.5, "passes": 3},
    "files": {"sizes": (1 << 10, 1 << 16, 1 << 20, 100 << 20, 1 << 30), "seconds": 0.5, "passes": 2},
    "weights": {"count": 1000},
    "starts": {"passes": 6},
    "docker": {
        "in_flight": (1, 10, 100),
        "seconds": 3.0,
        "passes": 1,
        "sizes": (1 << 10, 1 << 20, 100 << 20),
        "file_seconds": 1.0,
        "environments": 100,
        "at_once": 8,
        "inspect_samples": 8,
    },
}
QUICK: Mapping[str, Any] = {
    "commands": {"in_flight": (1, 10), "seconds": 0.1, "passes": 1},
    "files": {"sizes": (1 << 10, 1 << 20), "seconds": 0.05, "passes": 1},
    "weights": {"count": 20},
    "starts": {"passes": 1},
    "docker": {
        "in_flight": (1, 4),
        "seconds": 0.1,
        "passes": 1,
        "sizes": (1 << 10,),
        "file_seconds": 0.05,
        "environments": 2,
        "at_once": 2,
        "inspect_samples": 0,
    },
}


async def measure(plan: Mapping[str, Any], parts: Sequence[str]) -> dict[str, Any]:
    """Run the parts; the order is that of what each leaves behind in memory."""
    report: dict[str, Any] = {"machine": machine.facts()}
    if set(parts) & {"files", "commands"}:
        await _measure_local(plan, parts, report)
    if "weights" in parts:
        _say("weights")
        report["weights"] = weights.measure(**plan["weights"])
    if "starts" in parts:
        _say("starts")
        report["starts"] = starting.measure(**plan["starts"])
    report["machine"]["load_after"] = machine.load()
    if "docker" in parts:
        _say("docker")
        report["docker"] = await docker_backend.measure(**plan["docker"])
    return report


async def _measure_local(plan: Mapping[str, Any], parts: Sequence[str], report: dict[str, Any]) -> None:
    async with sandboxcore.Session("local") as session, session.environment() as environment:
        sandbox = environment.default
        await sandbox.exec(commands.ARGV)
        if "files" in parts:
            _say("files")
            report["files"] = await transfers.measure(sandbox, **plan["files"])
        if "commands" in parts:
            _say("commands")
            report["commands"] = await commands.measure(sandbox, **plan["commands"])


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few seconds; the figures mean nothing")
    parser.add_argument("--without", choices=SECTIONS, action="append", default=[], help="leave a section out")
    parser.add_argument("--renew", choices=SECTIONS, action="append", help="measure a section, keep the rest of the last report")
    parser.add_argument("--only", choices=PARTS, action="append", help="measure one part, and print it")
    parser.add_argument("--output", type=Path, default=ROOT / "build" / "benchmarks", help="folder for the JSON and the picture")
    parser.add_argument("--from", dest="given", type=Path, metavar="JSON", help="take this report; measure nothing")
    parser.add_argument("--docs", action="store_true", help="write the page in docs/ too")
    options = parser.parse_args()
    if options.docs and (options.only or options.quick):
        parser.error("the page is written from a whole run, without --quick and --only")
    machine.raise_file_limit()
    if options.given:
        report = json.loads(options.given.read_text())
    elif options.renew:
        fresh = asyncio.run(measure(FULL, options.renew))
        report = json.loads((DOCS / "_static" / "performance.json").read_text()) | {part: fresh[part] for part in options.renew}
    else:
        parts = options.only or [part for part in PARTS if part not in options.without]
        report = asyncio.run(measure(QUICK if options.quick else FULL, parts))
    if options.only:
        print(json.dumps({part: report[part] for part in options.only}, indent=1))
        return 0
    _save(report, options.output, docs=options.docs)
    _print(report)
    return 0


def _save(report: Mapping[str, Any], folder: Path, *, docs: bool) -> None:
    folders = [folder, *([DOCS / "_static"] if docs else [])]
    for place in folders:
        place.mkdir(parents=True, exist_ok=True)
        (place / "performance.json").write_text(json.dumps(report, indent=1) + "\n")
        plot.draw(report, place / "performance.svg")
        if "docker" in report:
            docker_page.draw(report["docker"], place / "performance-docker.svg")
    if docs:
        (DOCS / "explanation" / "performance.md").write_text(write(report))


def _print(report: Mapping[str, Any]) -> None:
    for verdict in all_verdicts(report):
        sign = "<=" if verdict.most else ">="
        mark = "ok  " if verdict.reached else "MISS"
        print(f"{mark} {verdict.what}: {verdict.value:.3g} {verdict.unit} ({sign} {verdict.bound:g})")


def _say(part: str) -> None:
    print(f"measuring {part} ...", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
