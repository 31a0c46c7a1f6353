"""``--help`` is fast: it loads click and the names of the commands, and nothing else."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from sandboxcore.cli._lazy import COMMANDS
from sandboxcore.cli._main import cli

HEAVY = ("rich", "pydantic", "pluggy", "asyncio", "yaml", "importlib.metadata", "sandboxcore.cli.commands")


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=60, check=False)


def test_help_imports_nothing_heavy() -> None:
    script = (
        "import atexit, sys\n"
        "atexit.register(lambda: print('MODULES', *sys.modules))\n"
        "sys.argv = ['sandboxcore', '--help']\n"
        "from sandboxcore.cli import main\n"
        "main()\n"
    )
    result = python("-c", script)
    assert result.returncode == 0, result.stderr
    text, _, modules = result.stdout.partition("MODULES ")
    assert "Usage: sandboxcore" in text
    loaded = modules.split()
    assert "click" in loaded
    assert [name for name in loaded if name.startswith(HEAVY)] == []
    assert [name for name in loaded if name.startswith("sandboxcore_")] == []


def test_no_import_of_the_command_line_is_expensive() -> None:
    result = python("-X", "importtime", "-c", "import sandboxcore.cli._main")
    assert result.returncode == 0
    spent = {m[2]: int(m[1]) for m in re.finditer(r"\|\s+(\d+) \|\s+(\S+)$", result.stderr, re.MULTILINE)}
    own = [name for name in spent if name.startswith("sandboxcore")]
    assert "sandboxcore.cli._main" in own
    assert not [name for name in spent if name.startswith(HEAVY)]


def test_the_table_says_what_the_commands_say() -> None:
    import click

    context = click.Context(cli)
    for name, text in COMMANDS.items():
        command = cli.get_command(context, name)
        assert command is not None
        assert command.short_help == text
        assert command.name == "command" or command.name == name
        assert command.help, name


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself_without_a_backend(name: str) -> None:
    result = python("-W", "error", "-m", "sandboxcore", name, "--help")
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith(f"Usage: sandboxcore {name}")
    assert result.stderr == ""


def test_the_version_is_printed() -> None:
    result = python("-m", "sandboxcore", "--version")
    assert re.fullmatch(r"sandboxcore \S+\n", result.stdout)


def test_a_plugins_command_that_can_not_be_made_is_told_and_hides_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    import click

    from sandboxcore.cli import _lazy
    from sandboxcore.cli._main import run_cli
    from sandboxcore.errors import PluginError

    def broken() -> click.Command:
        raise ModuleNotFoundError("No module named 'heavy'")

    monkeypatch.setattr(_lazy, "_of_plugins", lambda: {"broken": broken, "fine": lambda: click.Command("fine")})
    with pytest.raises(PluginError, match=r"'broken' .* No module named 'heavy'"):
        cli.get_command(click.Context(cli), "broken")
    assert cli.get_command(click.Context(cli, resilient_parsing=True), "broken") is None
    assert run_cli(["fine"]) == 0
    assert run_cli(["broken"]) == 2
