"""What goes wrong becomes one line, a hint and an exit code."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable

import click
import pytest

from sandboxcore.cli import _lazy
from sandboxcore.cli._main import run_cli
from sandboxcore.errors import (
    CapabilityError,
    ExecTimeoutError,
    ProvisionError,
    SandboxError,
    SandboxUnavailableError,
    SpecError,
    UsageError,
    file_error,
)

Failing = Callable[[BaseException], int]


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Failing:
    """Run the command line with a command that raises what it is given."""

    def run(error: BaseException, *arguments: str) -> int:
        @click.command()
        def command() -> None:
            raise error

        module = types.ModuleType("sandboxcore.cli.commands.fail")
        module.command = command  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, module.__name__, module)
        monkeypatch.setitem(_lazy.COMMANDS, "fail", "Fail.")
        return run_cli([*arguments, "fail"])

    return run


@pytest.mark.parametrize(
    ("error", "code", "lines"),
    [
        (UsageError("wrong", hint="do it right"), 2, ["sandboxcore: error: wrong", "hint: do it right"]),
        (
            SpecError(problems=["a.yaml:1:2: x: no", "a.yaml:3:4: y: no"], hint="look"),
            2,
            ["sandboxcore: error: a.yaml:1:2: x: no", "sandboxcore: error: a.yaml:3:4: y: no", "hint: look"],
        ),
        (CapabilityError("can't"), 1, ["sandboxcore: error: can't"]),
        (
            ProvisionError("it crashed\nlast line\nof its log"),
            1,
            ["sandboxcore: error: it crashed", "  last line", "  of its log"],
        ),
        (ExecTimeoutError("too long"), 124, ["sandboxcore: error: too long"]),
        (
            SandboxUnavailableError("lost", started="yes"),
            1,
            ["sandboxcore: error: lost", "hint: the command had started"],
        ),
        (file_error(2, "/x"), 1, ["sandboxcore: error: No such file or directory: '/x'"]),
        (PermissionError(13, "Permission denied", "/etc/x"), 1, ["sandboxcore: error: Permission denied: /etc/x"]),
        (KeyboardInterrupt(), 130, ["sandboxcore: error: interrupted"]),
        (SandboxError(), 1, ["sandboxcore: error: SandboxError"]),
    ],
)
def test_an_error_is_told_in_lines(
    failing: Failing, capfd: pytest.CaptureFixture[str], error: BaseException, code: int, lines: list[str]
) -> None:
    assert failing(error) == code
    out, err = capfd.readouterr()
    assert (out, err.strip().splitlines()) == ("", lines)


def test_notes_of_an_error_are_shown(failing: Failing, capfd: pytest.CaptureFixture[str]) -> None:
    error = ProvisionError("failed")
    error.add_note("environment x may be left behind: gone")
    failing(error)
    assert "  environment x may be left behind: gone\n" in capfd.readouterr().err


def test_a_bug_is_one_line_and_70(failing: Failing, capfd: pytest.CaptureFixture[str]) -> None:
    assert failing(ZeroDivisionError("division by zero\nsecond line")) == 70
    assert capfd.readouterr().err.splitlines() == [
        "sandboxcore: error: ZeroDivisionError: division by zero",
        "hint: this is a bug, run with --debug to see where it comes from",
    ]


@pytest.mark.parametrize("error", [ZeroDivisionError("x"), UsageError("x")])
def test_debug_shows_the_traceback(
    failing: Callable[..., int], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    failing(error, "--debug")
    assert "Traceback (most recent call last)" in capfd.readouterr().err
    assert run_cli(["run", "--debug", "--option", "x", "--", "true"]) == 2
    assert "Traceback (most recent call last)" in capfd.readouterr().err
    monkeypatch.setenv("SANDBOXCORE_DEBUG", "1")
    failing(error)
    assert "Traceback (most recent call last)" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["rnu"], "no command is called 'rnu' (did you mean 'run'?)"),
        (["--nope"], "No such option"),
        (["run", "--nope"], "No such option"),
        (["run"], "there is no command to run"),
        (["run", "--timeout", "soon", "--", "true"], "'soon' is no duration"),
        (["run", "--timeout", "-1", "--", "true"], "'-1' is no duration"),
        (["run", "-e", "SURELY_NOT_SET_ANYWHERE", "--", "true"], "-e SURELY_NOT_SET_ANYWHERE: it is not set here"),
        (["run", "--config", "x", "--", "true"], "--config: a value is missing"),
        (["run", "--config-file", "missing.toml", "--", "true"], "missing.toml: No such file"),
        (["run", "--label", "x", "--", "true"], "--label: a value is missing"),
        (["run", "-i", "-t", "--", "true"], "-i -t: standard input is no terminal"),
        (["exec"], "Missing argument 'ENV'"),
        (["exec", "abc"], "there is no command to run"),
        (["exec", "abc", "--nope", "--", "true"], "No such option"),
        (["exec", "abc", "-u"], "requires an argument"),
        (["cp", "a", "b"], "neither side is in a sandbox"),
        (["cp", "a"], "Missing argument 'TARGET'"),
        (["cp", "a", "env:"], "env:: a path is missing"),
        (["cp", "--json", "env:/a", "-"], "both want standard output"),
        (["cleanup"], "there is no terminal to ask on"),
        (["cleanup", "--all", "--expired", "--yes"], "exclude each other"),
        (["down"], "Missing argument 'ENV...'"),
        (["logs", "abc", "-n", "-3"], "-3"),
        (["up", "--ttl", "0"], "a duration has to be above 0"),
        (["completion", "csh"], "'csh' is not one of"),
    ],
)
def test_bad_input_is_one_line_with_a_hint_and_2(capfd: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    assert run_cli(arguments) == 2
    out, err = capfd.readouterr()
    first, second = err.splitlines()
    assert out == ""
    assert first.startswith("sandboxcore: error: ")
    assert message in first
    assert second.startswith("hint: ")
