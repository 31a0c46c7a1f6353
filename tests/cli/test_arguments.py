"""Where options end and the command begins."""

from __future__ import annotations

import pytest

from sandboxcore.cli.commands import exec as exec_module
from sandboxcore.cli.commands import run as run_module


@pytest.mark.parametrize(
    ("arguments", "argv"),
    [
        (["-i", "--", "ls", "-l"], ("ls", "-l")),
        (["-i", "ls", "-l"], ("ls", "-l")),
        (["-i", "--", "sh", "-c", "x", "--", "-i"], ("sh", "-c", "x", "--", "-i")),
        (["-i", "python3", "script", "--", "-x"], ("python3", "script", "--", "-x")),
        (["-i", "--", "--odd-name"], ("--odd-name",)),
        (["-i", "--", ""], ("",)),
    ],
)
def test_run_takes_no_option_of_the_command(arguments: list[str], argv: tuple[str, ...]) -> None:
    with run_module.command.make_context("run", list(arguments)) as context:
        assert context.params["argv"] == argv
        assert context.params["interactive"] is True


@pytest.mark.parametrize(
    ("arguments", "argv"),
    [
        (["env1", "--", "ls", "-l"], ("ls", "-l")),
        (["env1", "-s", "web", "--", "ls", "-l"], ("ls", "-l")),
        (["-s", "web", "env1", "ls", "-s", "db"], ("ls", "-s", "db")),
        (["-s", "web", "env1", "-i", "ls", "-s", "db"], ("ls", "-s", "db")),
        (["-s", "web", "--", "env1", "ls"], ("ls",)),
        (["env1", "-s", "web", "-e", "A=--", "--", "a", "--", "b"], ("a", "--", "b")),
        (["env1", "-sweb", "--", "--odd"], ("--odd",)),
    ],
)
def test_exec_takes_options_around_the_environment(arguments: list[str], argv: tuple[str, ...]) -> None:
    with exec_module.command.make_context("exec", list(arguments)) as context:
        assert context.params["environment"] == "env1"
        assert context.params["argv"] == argv
        assert context.params["service"] == ("web" if any("web" in word for word in arguments) else None)
