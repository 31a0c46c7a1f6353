"""Cases of Compose files: where they lie, and how what we print is compared with what docker compose prints."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
REPOSITORY = HERE.parent.parent


def differences(ours: Any, docker: Any, path: str = "") -> Iterator[str]:
    """Yield where two values differ, one line each."""
    if isinstance(ours, dict) and isinstance(docker, dict):
        for key in {**ours, **docker}:
            if key not in ours:
                yield f"{path}.{key}: lacks {docker[key]!r}"
            elif key not in docker:
                yield f"{path}.{key}: has {ours[key]!r} too much"
            else:
                yield from differences(ours[key], docker[key], f"{path}.{key}")
    elif isinstance(ours, list) and isinstance(docker, list) and len(ours) == len(docker):
        for index, (mine, theirs) in enumerate(zip(ours, docker, strict=True)):
            yield from differences(mine, theirs, f"{path}[{index}]")
    elif ours != docker or isinstance(ours, bool) is not isinstance(docker, bool):
        yield f"{path}: {ours!r} instead of {docker!r}"


def expected_form(text: str, root: Path) -> Any:
    """Read what docker compose printed; ``{{ROOT}}`` stands for the folder of the case."""
    return json.loads(re.sub(r'\{\{ROOT\}\}[^"]*', lambda found: os.path.normpath(found[0].replace("{{ROOT}}", str(root))), text))


@pytest.fixture(scope="session")
def corpus() -> Path:
    """The folder with real files of other projects, which is not part of this repository."""
    given = os.environ.get("SANDBOXCORE_COMPOSE_CORPUS")
    folder = Path(given) if given else REPOSITORY.parent / "shared" / "corpus" / "compose"
    if not folder.is_dir():
        pytest.skip("the corpus of Compose files is not here; SANDBOXCORE_COMPOSE_CORPUS says where it is")
    return folder


@pytest.fixture(scope="session")
def compare() -> Any:
    """Return the function that compares our canonical form with docker compose's."""

    def compare(ours: Any, text: str, root: Path) -> list[str]:
        return list(differences(ours, expected_form(text, root)))

    return compare
