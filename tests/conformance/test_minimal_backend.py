"""The example of a third party's backend: built, installed, and held to the whole contract."""

from __future__ import annotations

import ast
import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "minimal_backend"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Build the example's wheel and put it, with its entry point, where a new interpreter finds it."""
    folder = tmp_path_factory.mktemp("example")
    source = shutil.copytree(EXAMPLE, folder / "source", ignore=shutil.ignore_patterns("__pycache__", ".pytest_cache"))
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=source, check=True, capture_output=True)
    [wheel] = folder.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(folder / "site")
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder / "site"), *(path for path in sys.path if path)])}


#: How those of other tests, which run on this machine at the same time, do not sleep.
SLEEPS = re.compile(rb"/bin/sleep inf(?!inity)")


def sandboxes() -> set[str]:
    """Find the processes that sandboxes of the example are, but for those of another checkout's run."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if SLEEPS.search(path.read_bytes().replace(b"\0", b" ")) and (path.parent / "cwd").samefile(EXAMPLE):
                found.add(path.parent.name)
    return found


@pytest.mark.skipif(shutil.which("nsenter") is None, reason="needs nsenter and unshare of util-linux")
@pytest.mark.timeout(300)
def test_it_keeps_the_contract(installed: dict[str, str]) -> None:
    before = sandboxes()
    command = [sys.executable, "-m", "pytest", "-q", "--tb=short", "-p", "no:cacheprovider", "-c", "pyproject.toml", "tests"]
    # Temporary folders of its own: one pytest that cleans up can stumble over what another one removes.
    with tempfile.TemporaryDirectory(prefix="example-", ignore_cleanup_errors=True) as own:
        environ = installed | {"PYTEST_DEBUG_TEMPROOT": own}
        run = subprocess.run(command, cwd=EXAMPLE, env=environ, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout[-6000:] + run.stderr[-2000:]
    passed = re.search(r"(\d+) passed", run.stdout)
    assert passed is not None
    assert int(passed[1]) >= 150
    deadline = time.monotonic() + 20  # one whose making was cancelled ends when it reads from a closed socket, a moment later
    while left := sandboxes() - before:
        assert time.monotonic() < deadline, [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in left]
        time.sleep(0.05)


def test_it_is_found_by_its_entry_point(installed: dict[str, str]) -> None:
    code = "import sandboxcore; host = sandboxcore.PluginHost.load(); print(host.backends['minimal'].summary, host.problems)"
    run = subprocess.run([sys.executable, "-c", code], env=installed, capture_output=True, text=True, check=True)
    assert run.stdout == "namespaces, by unshare and nsenter ()\n"


def test_it_is_as_small_as_it_says() -> None:
    text = (EXAMPLE / "src" / "sandboxcore_minimal" / "__init__.py").read_text()
    docstring = ast.parse(text).body[0]
    lines = text.splitlines()[docstring.end_lineno :]
    assert len([line for line in lines if line.strip() and not line.lstrip().startswith("#")]) <= 100
