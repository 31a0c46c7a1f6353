"""The main job, from a Compose file to a clean machine: ``make demo``.

Everything that is said on the way is checked. The exit code is 0 if all of it holds, and 1 at the first thing that does not.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from scissors import Scissors

import sandboxcore
from sandboxcore import Environment, ExecTimeoutError, PluginHost, Sandbox, Session

HERE = Path(__file__).parent
#: The store serves HTTP with Python; which Python there is, and where, differs from machine to machine.
PYTHON = os.path.realpath(sys.executable)
CONFIG = {"host_paths": sorted({sys.base_prefix, str(Path(PYTHON).parents[1])})}

ALL_BYTES = bytes(range(256)) * 4096

STUBBORN = "echo 'line before the deadline'; setsid sleep 4711 & trap '' TERM; sleep 4711"
TIMEOUT = 3.0
COUNT_TO_TEN = "echo started >> runs; for i in 1 2 3 4 5 6 7 8 9 10; do echo $i; sleep 0.3; done"


class Claims:
    """Counts what was claimed, and stops at the first claim that does not hold."""

    def __init__(self) -> None:
        self.count = 0

    def hold(self, condition: object, claim: str) -> None:
        """Say what is so, if it is."""
        if not condition:
            raise SystemExit(f"  ✗ {claim}: NOT SO")
        self.count += 1
        print(f"  ✓ {claim}", flush=True)


def headline(text: str) -> None:
    """Begin a part."""
    print(f"\n{text}", flush=True)


async def show(sandbox: Sandbox, argv: Sequence[str]) -> str:
    """Run a command, show it with what it printed, and return that."""
    result = await sandbox.exec(argv, timeout=30)
    text = result.text().strip()
    print(f"  {sandbox.name}$ {' '.join(argv)}\n" + "".join(f"    {line}\n" for line in text.splitlines()), end="")
    if not result.ok:
        raise SystemExit(f"  ✗ it ended with {result.exit_code}: {result.error_text().strip()}")
    return text


async def commands(environment: Environment, claims: Claims) -> None:
    """Run commands in both services."""
    default, store = environment["default"], environment["store"]
    claims.hold(environment.names == ("default", "store"), "the default service comes first, the other keeps its name")
    where = await show(default, ["pwd"])
    claims.hold(where == "/work", "commands start in the service's own working directory")
    await show(store, ["sh", "-c", "echo 'from the shelf' > /shelf/hello"])
    fetch = "import os, urllib.request as u; print(u.urlopen(os.environ['STORE'] + '/hello').read().decode())"
    answer = await default.exec([PYTHON, "-c", fetch], timeout=30)
    claims.hold(
        answer.text().strip() == "from the shelf", "the default service reaches its sibling by name: http://store:8000/hello"
    )
    result = await default.exec(["sh", "-c", r"printf '\377\0out'; printf err >&2; exit 42"])
    claims.hold(
        (result.exit_code, result.stdout, result.stderr) == (42, b"\xff\x00out", b"err"),
        "exit code 42, stdout and stderr come back apart, as bytes",
    )
    echoed = await default.exec(["cat"], stdin=ALL_BYTES)
    claims.hold(echoed.stdout == ALL_BYTES, f"{len(ALL_BYTES):,} bytes of every value went in and out of `cat` untouched")


async def files(environment: Environment, claims: Claims) -> None:
    """Pass files in and out."""
    default = environment["default"]
    await default.write_file("in/data.bin", ALL_BYTES)
    digest = (await show(default, ["sha256sum", "/work/in/data.bin"])).split()[0]
    claims.hold(digest == hashlib.sha256(ALL_BYTES).hexdigest(), "a file that went in has the same checksum inside")
    await show(default, ["cp", "in/data.bin", "/shelf/copy"])
    claims.hold(await default.read_file("/shelf/copy") == ALL_BYTES, "what a command made of it comes out as it should be")
    info = await environment["store"].stat("/shelf/copy")
    claims.hold(info.size_bytes == len(ALL_BYTES), "the store sees it on the volume that both share")


async def deadline(environment: Environment, claims: Claims) -> None:
    """Let a command run into its timeout."""
    default = environment["default"]
    print(f"  default$ {STUBBORN}   (timeout {TIMEOUT:g} s)")
    began = time.monotonic()
    try:
        await default.exec(["sh", "-c", STUBBORN], timeout=TIMEOUT)
    except ExecTimeoutError as error:
        partial = error.result.text().strip() if error.result else ""
    else:
        raise SystemExit("  ✗ it came back without an ExecTimeoutError")
    took = time.monotonic() - began
    print(f"    {partial}\n    ... killed after {took:.1f} s")
    claims.hold(took < TIMEOUT + 10, "it ended when its time was up, though it ignores SIGTERM")
    claims.hold(partial == "line before the deadline", "the output up to then is there")
    left = await default.exec(["sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' ' | grep -o '[s]leep 4711' | wc -l"])
    claims.hold(left.text().strip() == "0", "nothing of it is left, not even the child in a session of its own")


async def broken_link(environment: Environment, scissors: Scissors, claims: Claims) -> None:
    """Cut the link to the sandbox while a command runs."""
    default = environment["default"]
    print(f"  default$ {COUNT_TO_TEN}")
    opened, cuts, lines = len(scissors.links), 0, list[bytes]()
    cut_after = [1, 3]
    async with default.start(["sh", "-c", COUNT_TO_TEN], timeout=30) as process:
        await process.stdin.close()
        async for chunk in process.output():
            lines += chunk.data.split()
            cut = cuts < len(cut_after) and len(lines) >= cut_after[cuts] and scissors.cut() > 0
            cuts += cut
            print(f"    {chunk.data.decode().strip()}" + ("   ✂ link cut" if cut else ""), flush=True)
        result = await process.wait()
    claims.hold(cuts == 2 and len(scissors.links) > opened, "the link was cut twice in mid-command, and opened again")
    claims.hold(result.exit_code == 0 and b" ".join(lines) == b"1 2 3 4 5 6 7 8 9 10", "no output was lost or came twice")
    runs = await default.read_file("runs")
    claims.hold(runs == b"started\n", "the command ran exactly once: its counter file has one line")


async def main() -> None:
    """Do it all."""
    began = time.monotonic()
    claims, scissors = Claims(), Scissors()
    plugins = PluginHost.load(extra=[scissors])
    print(f"sandboxcore {sandboxcore.__version__}: examples/demo/compose.yaml on the local backend")

    async with Session("local", config=CONFIG, plugins=plugins) as session:
        headline("1. Provision two services from a Compose file")
        async with session.environment(HERE / "compose.yaml", variables={"PYTHON": PYTHON}) as environment:
            print(f"  environment {environment.id}: {', '.join(environment.names)}, ready after {time.monotonic() - began:.1f} s")
            for entry in environment.report.entries:
                print(f"  report: {entry}")
            headline("2. Run commands in both")
            await commands(environment, claims)
            headline("3. Pass files in and out")
            await files(environment, claims)
            headline("4. Let a command run into its timeout")
            await deadline(environment, claims)
            headline("5. Cut the link in mid-command")
            await broken_link(environment, scissors, claims)
            headline("6. Clean up")
            found = [one.id for one in await session.find(run_id=session.run_id)]
            claims.hold(found == [environment.id], "discovery finds the environment by its run")
        left = await session.find(run_id=session.run_id)
        claims.hold(left == [], "after the block nothing is left of it")

    print(f"\nDone: all {claims.count} claims hold, in {time.monotonic() - began:.1f} s.")


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except sandboxcore.SandboxError as failure:
        hint = f"\nhint: {failure.hint}" if failure.hint else ""
        raise SystemExit(f"demo: {failure}{hint}") from None
