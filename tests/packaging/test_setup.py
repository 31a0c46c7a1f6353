"""What the set-up script says on machines that lack something: one line, and no traceback."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from .conftest import ROOT

TOO_OLD = "#!/bin/sh\nexit 1\n"
#: Runs, is new enough, and lacks the module venv, as on Debian without python3-venv.
WITHOUT_VENV = '#!/bin/sh\ncase "$2" in *ensurepip*) exit 1 ;; esac\n'
NO_SHIM_TARGET = "#!/bin/sh\necho 'pyenv: python3.13: command not found' >&2\nexit 127\n"
NAMES = ("python3.13", "python3.12", "python3.11", "python3")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The files that set-up reads, and a folder for programs that hide the machine's own."""
    (tmp_path / "scripts").mkdir()
    (tmp_path / "programs").mkdir()
    shutil.copy(ROOT / "scripts" / "setup.sh", tmp_path / "scripts")
    for name in ("pyproject.toml", "hatch_build.py"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def setup(checkout: Path, programs: dict[str, str], **environment: str) -> tuple[int, list[str]]:
    for name, script in programs.items():
        program = checkout / "programs" / name
        program.write_text(script)
        program.chmod(0o755)
    inherited = {name: value for name, value in os.environ.items() if name not in ("PYTHON", "VIRTUAL_ENV")}
    environment = {**inherited, "PATH": f"{checkout / 'programs'}:/usr/bin:/bin", **environment}
    command = ["/bin/sh", checkout / "scripts" / "setup.sh"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    return done.returncode, done.stderr.splitlines()


def test_python_that_is_too_old_or_an_empty_shim_is_passed_over(checkout: Path) -> None:
    code, lines = setup(checkout, dict.fromkeys(NAMES, TOO_OLD) | {"python3.13": NO_SHIM_TARGET})
    assert code == 1
    assert lines == ["setup: Python 3.11 or newer is missing: install the packages python3 and python3-venv"]


def test_missing_venv_is_named(checkout: Path) -> None:
    code, lines = setup(checkout, dict.fromkeys(NAMES, TOO_OLD) | {"python3": WITHOUT_VENV})
    assert code == 1
    assert lines == ["setup: python3 has no venv: install the package python3-venv (Debian, Ubuntu)"]


def test_chosen_python_is_not_replaced_by_another(checkout: Path) -> None:
    code, lines = setup(checkout, {"python9": TOO_OLD}, PYTHON="python9")
    assert code == 1
    assert lines == ["setup: python9 is missing or older than 3.11"]


def test_other_systems_are_refused_in_one_line(checkout: Path) -> None:
    code, lines = setup(checkout, {"uname": "#!/bin/sh\necho Darwin\n"})
    assert code == 1
    assert lines == ["setup: the tests and the demo need Linux; this is Darwin"]


def test_unreachable_package_index_is_said(checkout: Path) -> None:
    nowhere = "http://127.0.0.1:9/simple"
    unset = {"PIP_FIND_LINKS": "", "PIP_RETRIES": "0", "PIP_INDEX_URL": nowhere}
    code, lines = setup(checkout, {}, **unset)
    assert code == 1
    assert lines[-1].startswith("setup: installing uv failed (all of it is in .venv/setup.log); is PyPI reached")
