"""What the shell offers. The script runs in a real bash, where there is one."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sandboxcore.cli._lazy import COMMANDS

from .conftest import CommandLine


def offered(line: CommandLine, *words: str, extra: dict[str, str] | None = None) -> list[str]:
    """Ask as the script does: with the line as it was typed, its last word incomplete."""
    typed = {"_SANDBOXCORE_COMPLETE": "bash_complete", "COMP_TYPED": " ".join(["sandboxcore", *words])}
    result = CommandLine(state=line.state, extra=typed | (extra or {}))()
    assert result.returncode == 0, result.stderr
    assert result.stderr == b""
    return [answer.partition(",")[2] for answer in result.stdout.decode().split()]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_has_its_script(tmp_path: Path, shell: str) -> None:
    script = CommandLine(state=tmp_path).ok("completion", shell).decode()
    assert "_SANDBOXCORE_COMPLETE" in script
    if found := shutil.which(shell):
        checked = subprocess.run([found, "-n"], input=script, text=True, capture_output=True, timeout=30, check=False)
        assert (checked.returncode, checked.stderr) == (0, "")


def test_commands_and_options_are_offered(tmp_path: Path) -> None:
    line = CommandLine(state=tmp_path)
    assert offered(line, "")[: len(COMMANDS)] == list(COMMANDS), "those of plugins come after"
    assert offered(line, "cl") == ["cleanup"]
    assert "--timeout" in offered(line, "run", "--t")
    assert "local" in offered(line, "run", "-b", "")


@pytest.mark.tier("local")
def test_environments_and_services_are_offered(cli: CommandLine, environment: str, compose: Path) -> None:
    assert environment in offered(cli, "exec", environment[:3])
    assert offered(cli, "exec", environment, "-s", "") == ["default", "store"]
    assert offered(cli, "logs", environment, "st") == ["store"]
    assert offered(cli, "run", "-f", str(compose), "-s", "st") == ["store"]
    assert f"{environment}:" in offered(cli, "cp", environment[:3])
    assert offered(cli, "cp", f"{environment}:st") == [f"{environment}:store:"]


def test_a_backend_that_fails_offers_nothing(tmp_path: Path) -> None:
    assert offered(CommandLine(state=tmp_path), "exec", "", extra={"SANDBOXCORE_BACKEND": "nosuch"}) == []


@pytest.mark.tier("local")
def test_bash_completes_places_though_it_splits_words_at_colons(cli: CommandLine, environment: str, tmp_path: Path) -> None:
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("there is no bash here")
    program = tmp_path / "sandboxcore"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m sandboxcore "$@"\n')
    program.chmod(0o755)
    script = f"""
        eval "$({program} completion bash)"
        complete_line() {{
            COMP_LINE="$1"; COMP_POINT=${{#COMP_LINE}}
            "$(complete -p sandboxcore | sed 's/.*-F \\([^ ]*\\).*/\\1/')" sandboxcore
            printf '%s\\n' "${{COMPREPLY[@]}}"
        }}
        complete_line "sandboxcore cp {environment}:st"
        complete_line "sandboxcore exec {environment[:4]}"
    """
    environ = cli.environ | {"PATH": f"{tmp_path}:{cli.environ['PATH']}"}
    result = subprocess.run([bash, "-c", script], capture_output=True, text=True, env=environ, timeout=60, check=False)
    assert result.stdout.split() == ["store:", environment], result.stderr
