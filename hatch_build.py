"""Build the native programs that the wheel carries; run by hatchling, or by hand: ``python hatch_build.py [--check]``.

The guest and the local backend's launcher are C programs without dependencies. Zig's C compiler, a package of PyPI, builds
them static against musl for every machine that sandboxes run on, whatever this machine is. Only what is stale is built.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ZIGLANG = "ziglang==0.15.2"
MACHINES = ("x86_64", "aarch64")
FLAGS = (
    *("-static", "-std=c11", "-Os", "-s", "-Wall", "-Wextra", "-Werror"),
    *("-ffunction-sections", "-fdata-sections", "-fno-asynchronous-unwind-tables", "-Wl,--gc-sections", "-Wl,--build-id=none"),
)


class BuildError(Exception):
    """A program can't be built; the message is for people."""


class Program(NamedTuple):
    """A program that is built from all C files of a folder into ``bin/NAME-MACHINE`` beside them."""

    name: str
    folder: Path

    def sources(self) -> list[Path]:
        """List what it is compiled from, sorted.

        Raises:
            BuildError: There is nothing.
        """
        found = sorted(self.folder.glob("*.c"))
        if not found:
            raise BuildError(f"{self.folder}: no C source of the program {self.name!r} is here; the source tree is not whole")
        return found

    def binary(self, machine: str) -> Path:
        return self.folder / "bin" / f"{self.name}-{machine}"

    @property
    def stamp(self) -> Path:
        return self.folder / "bin" / f"{self.name}.stamp"

    def digest(self) -> str:
        """Hash all that decides what comes out: sources, headers, flags and compiler."""
        total = hashlib.sha256(json.dumps([ZIGLANG, MACHINES, FLAGS]).encode())
        for path in sorted([*self.sources(), *self.folder.glob("*.h")]):
            content = path.read_bytes()
            total.update(f"\n{path.name} {len(content)}\n".encode() + content)
        return total.hexdigest()

    def is_fresh(self) -> bool:
        """Tell whether the binaries are there, whole, executable, and made from these sources."""
        try:
            made = json.loads(self.stamp.read_text())
            binaries = {machine: _file_digest(self.binary(machine)) for machine in MACHINES}
        except (OSError, ValueError):
            return False
        executable = all(os.access(self.binary(machine), os.X_OK) for machine in MACHINES)
        return executable and made == {"sources": self.digest(), "binaries": binaries}

    def build(self) -> None:
        """Compile for every machine. Each file appears whole or not at all, so builds at the same time do no harm.

        Raises:
            BuildError: There is no compiler, or it refused; its own messages are on stderr. Older binaries stay.
        """
        digest = self.digest()
        self.stamp.parent.mkdir(exist_ok=True)
        binaries = {}
        for machine in MACHINES:
            with tempfile.TemporaryDirectory(dir=self.stamp.parent, prefix=".build-") as work:
                made = Path(work, self.name)
                _compile(machine, self.sources(), made)
                made.chmod(0o755)
                binaries[machine] = _file_digest(made)
                made.replace(self.binary(machine))
        with tempfile.TemporaryDirectory(dir=self.stamp.parent, prefix=".build-") as work:
            note = Path(work, "stamp")
            note.write_text(json.dumps({"sources": digest, "binaries": binaries}))
            note.replace(self.stamp)


def programs(root: Path) -> tuple[Program, ...]:
    """Name the programs of a source tree."""
    return (
        Program("guest", root / "sandboxcore" / "guest"),
        Program("launcher", root / "sandboxcore" / "local"),
    )


def stale(root: Path) -> list[str]:
    """Name the programs of a source tree whose binaries are missing or were not made from what is there now."""
    return [program.name for program in programs(root) if not program.is_fresh()]


def demand_fresh(root: Path) -> None:
    """See to it that what is about to be tested or measured is what the sources say.

    Raises:
        BuildError: It is not; the message names the programs.
    """
    old = stale(root)
    if old:
        raise BuildError(f"native programs that are not built from these sources: {', '.join(old)}; run `make setup`")


def ensure(root: Path) -> None:
    """Build what is not fresh. Progress goes to stderr.

    Raises:
        BuildError: As ``Program.build``.
    """
    for program in programs(root):
        if not program.is_fresh():
            print(f"building {program.name} for {' and '.join(MACHINES)} ...", file=sys.stderr, flush=True)
            program.build()


def _file_digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _compile(machine: str, sources: list[Path], output: Path) -> None:
    if importlib.util.find_spec("ziglang") is None:
        raise BuildError(f"the C compiler is missing: {sys.executable} -m pip install {ZIGLANG}")
    names = [source.name for source in sources]
    command = [sys.executable, "-m", "ziglang", "cc", "-target", f"{machine}-linux-musl", *FLAGS, "-o", str(output), *names]
    # Sources are named relative to their folder so that no path of this machine gets into the binary.
    done = subprocess.run(command, cwd=sources[0].parent, env=_environment(), stdin=subprocess.DEVNULL, stdout=sys.stderr)
    if done.returncode != 0:
        raise BuildError(f"{', '.join(names)}: compiling for {machine} failed with exit status {done.returncode}")


def _environment() -> Mapping[str, str]:
    """Give Zig a cache that it can write to; without HOME it would stop."""
    if "ZIG_GLOBAL_CACHE_DIR" in os.environ:
        return os.environ
    home = Path(os.environ.get("HOME") or "/nonexistent")
    if os.access(home, os.W_OK):
        return os.environ
    return {**os.environ, "ZIG_GLOBAL_CACHE_DIR": str(Path(tempfile.gettempdir(), f"zig-cache-{os.getuid()}"))}


def get_build_hook() -> type[BuildHookInterface[Any]]:
    """Make the hook for hatchling, which finds it by this function's name."""
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface

    class NativePrograms(BuildHookInterface[Any]):
        def dependencies(self) -> list[str]:
            """Ask for the compiler (90 MB) only when it has something to do."""
            fresh = all(program.is_fresh() for program in programs(Path(self.root)))
            return [] if fresh else [ZIGLANG]

        def initialize(self, version: str, build_data: dict[str, Any]) -> None:
            ensure(Path(self.root))

    return NativePrograms


def main() -> int:
    """Build what is stale, or with ``--check`` only tell by the exit status whether something is."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--check", action="store_true", help="build nothing; exit status 1 if something is stale")
    root = Path(__file__).resolve().parent
    try:
        if parser.parse_args().check:
            return 1 if stale(root) else 0
        ensure(root)
    except BuildError as error:
        print(f"hatch_build.py: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
