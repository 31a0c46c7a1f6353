"""The distributions as they are built: sdists from the checkout, wheels from the sdists."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(command: Sequence[str | Path], *, cwd: Path = ROOT, **environment: str) -> str:
    """Run a program to its end and return its stdout; a failure shows all that it wrote."""
    done = subprocess.run(
        command, cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, f"{' '.join(map(str, command))} ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="session")
def hatch_build():
    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def build_python(hatch_build, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python that has all that a build needs, the C compiler too."""
    if importlib.util.find_spec("ziglang") and importlib.util.find_spec("hatchling"):
        return Path(sys.executable)
    folder = tmp_path_factory.mktemp("build-env")
    run([sys.executable, "-m", "uv", "venv", "--python", sys.executable, folder / "venv"])
    python = folder / "venv" / "bin" / "python"
    run([sys.executable, "-m", "uv", "pip", "install", "--python", python, "hatchling", hatch_build.ZIGLANG])
    return python


@dataclass(frozen=True)
class Built:
    """One distribution's files."""

    sdist: Path
    wheel: Path


def _build(folder: Path, python: Path, source: Path) -> Built:
    uv = [sys.executable, "-m", "uv", "build", "--python", python, "--no-build-isolation", "--out-dir", folder]
    run([*uv, "--sdist", source])
    [sdist] = folder.glob("*.tar.gz")
    run([*uv, "--wheel", sdist])
    [wheel] = folder.glob("*.whl")
    return Built(sdist, wheel)


@pytest.fixture(scope="session")
def core(build_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Built:
    return _build(tmp_path_factory.mktemp("core"), build_python, ROOT)


@pytest.fixture(scope="session")
def plugins(build_python: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Built]:
    """Build every plugin of the workspace; they are named by their folders."""
    sources = sorted(path.parent for path in ROOT.glob("plugins/*/pyproject.toml"))
    return {source.name: _build(tmp_path_factory.mktemp(source.name), build_python, source) for source in sources}


@pytest.fixture(scope="session")
def compose(plugins: dict[str, Built]) -> Built:
    return plugins["compose_translator"]
