"""The script behind ``make test``."""

from __future__ import annotations

import importlib.util
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """The script as a module, with a folder of its own and nothing begun in the background."""
    monkeypatch.delenv("CI", raising=False)
    found = importlib.util.spec_from_file_location("check_script", ROOT / "scripts" / "check.py")
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    (tmp_path / ".venv").mkdir()
    monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(module, "begin_tiers", lambda: None)
    return module


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_what_runs_aside_is_told_last_and_whole(script: ModuleType, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    aside = "import time; print({!r}, flush=True); time.sleep(1.5); print('the end')"
    commands = {
        "format": python("pass"),
        "tests": python("import time; time.sleep(0.5); print('in front')"),
        **{name: python(aside.format(f"said by {name}")) for name in script.BESIDE},
    }
    assert script.check(list(commands), commands) == 0
    said = capfdbinary.readouterr().out.decode()
    positions = [said.index(words) for words in ("in front", *(f"\nsaid by {name}\n" for name in script.BESIDE), "all passed")]
    assert positions == sorted(positions)
    assert said.count("the end") == len(script.BESIDE)


@pytest.mark.parametrize("failing", ["tests", "cluster-tests", "opensandbox-tests"])
def test_a_phase_that_fails_fails_all(script: ModuleType, failing: str, capfd: pytest.CaptureFixture[str]) -> None:
    names = ["tests", *script.BESIDE]
    commands = {name: python(f"raise SystemExit({int(name == failing)})") for name in names}
    assert script.check(names, commands) == 1
    assert f"FAILED: {failing}\n" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("phases", "order"),
    [
        # Each with what has to have begun before it goes on.
        ({"format": "c", "tests": "cfo", "opensandbox-tests": "cf", "cluster-tests": ""}, "cfot"),
        ({"tests": "c", "cluster-tests": ""}, "ct"),
        ({"format": "co", "cluster-tests": "o", "opensandbox-tests": ""}, "ocf"),
    ],
    ids=["all", "without-partner", "one-without-partner"],
)
def test_what_runs_aside_begins_with_its_partner_or_at_once(
    script: ModuleType, tmp_path: Path, phases: dict[str, str], order: str
) -> None:
    begun = tmp_path / "begun"
    begun.touch()
    code = """import pathlib, time
begun = pathlib.Path({!r})
while not set({!r}) <= set(begun.read_text()): time.sleep(0.02)
with begun.open("a") as file: file.write({!r})
"""
    commands = {name: python(code.format(str(begun), before, name[0])) for name, before in phases.items()}
    assert script.check(list(commands), commands) == 0
    assert begun.read_text() == order


def test_a_run_that_is_given_up_stops_what_runs_aside(script: ModuleType, tmp_path: Path) -> None:
    code = (
        "import signal, time\nsignal.signal(signal.SIGINT, signal.default_int_handler)\ntry:\n    print('ready', flush=True)\n"
        "    time.sleep(60)\nexcept KeyboardInterrupt:\n    print('told')\n    raise SystemExit(3)\n"
    )
    aside = script.Aside("cluster-tests", python(code))
    output = tmp_path / ".venv" / "cluster-tests.log"
    while not output.read_text():
        time.sleep(0.05)
    aside.stop()
    assert output.read_text().split() == ["ready", "told"]
    assert not aside.wait()


def test_the_shares_are_all_tests(script: ModuleType, request: pytest.FixtureRequest) -> None:
    commands = script.phases([])
    run = [command[-1] for command in commands.values() if command[1:3] == ["-m", "pytest"]]
    option = next(each for each in request.config._parser._anonymous.options if "--cluster" in each.names())
    assert sorted(run) == sorted(f"--cluster={share}" for share in option.attrs()["choices"])
    assert not script.BESIDE.keys() & script.phases(["-k", "something"]).keys()
