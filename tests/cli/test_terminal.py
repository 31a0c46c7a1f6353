"""``-t``: a real terminal at both ends."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pytest

from .conftest import CommandLine

pytestmark = pytest.mark.tier("local")


class Terminal:
    """A terminal with ``sandboxcore`` on it, driven from its other end."""

    def __init__(self, line: CommandLine, *arguments: str) -> None:
        self.master, self.slave = pty.openpty()
        self.resize(97, 31)
        self.before = termios.tcgetattr(self.slave)
        self.process = subprocess.Popen(
            line.argv(*arguments),
            stdin=self.slave,
            stdout=self.slave,
            stderr=self.slave,
            env=line.environ | {"TERM": "xterm-256color"},
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        self.seen = b""

    def resize(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, data: bytes) -> None:
        os.write(self.master, data)

    def expect(self, text: bytes, seconds: float = 30) -> None:
        """Read until the text has come."""
        deadline = time.monotonic() + seconds
        while text not in self.seen:
            ready, _, _ = select.select([self.master], [], [], max(deadline - time.monotonic(), 0))
            assert ready, f"{text!r} did not come; there was {self.seen!r}"
            self.seen += os.read(self.master, 65536)
        self.seen = self.seen.partition(text)[2]

    def end(self) -> int:
        code = self.process.wait(30)
        assert termios.tcgetattr(self.slave) == self.before, "the terminal was not restored"
        return code

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.master)
        os.close(self.slave)


@pytest.fixture
def shell(cli: CommandLine, environment: str) -> Iterator[Terminal]:
    with Terminal(cli, "exec", environment, "-i", "-t", "-e", "PS1=ready> ", "--", "sh") as terminal:
        terminal.expect(b"ready> ")
        yield terminal


def test_the_command_has_a_terminal_of_the_same_size(shell: Terminal) -> None:
    shell.type(b"stty size; tty; echo $TERM\n")
    shell.expect(b"31 97\r\n")
    shell.expect(b"/dev/pts/")
    shell.expect(b"xterm-256color\r\n")
    shell.resize(120, 40)
    shell.type(b"sleep 0.5; stty size\n")
    shell.expect(b"40 120\r\n")
    shell.type(b"exit 3\n")
    assert shell.end() == 3


def test_control_c_goes_to_the_command(shell: Terminal) -> None:
    shell.type(b"sleep 1000\n")
    shell.expect(b"sleep 1000\r\n")
    time.sleep(0.5)
    shell.type(b"\x03")
    shell.expect(b"ready> ")
    shell.type(b"echo $?\n")
    shell.expect(b"130\r\n")
    shell.type(b"\x04")
    shell.end()


def test_a_signal_restores_the_terminal(shell: Terminal) -> None:
    assert termios.tcgetattr(shell.slave) != shell.before
    shell.process.send_signal(signal.SIGTERM)
    shell.expect(b"SIGTERM: cleaning up")
    assert shell.end() == 143


def test_a_timeout_restores_the_terminal(cli: CommandLine, environment: str) -> None:
    with Terminal(cli, "exec", environment, "-i", "-t", "--timeout", "1", "--", "cat") as terminal:
        terminal.expect(b"sandboxcore: error:")
        assert terminal.end() == 124


def test_without_i_only_the_output_is_raw_and_control_c_ends_us(cli: CommandLine, environment: str) -> None:
    with Terminal(cli, "exec", environment, "-t", "--", "sh", "-c", "stty size; sleep 1000") as terminal:
        terminal.expect(b"31 97\r\n")
        assert termios.tcgetattr(terminal.slave)[3] == terminal.before[3]
        terminal.type(b"\x03")
        terminal.expect(b"SIGINT: cleaning up")
        assert terminal.end() == 130


def test_cleanup_asks_on_a_terminal(cli: CommandLine) -> None:
    name = cli.ok("up").decode().strip()
    with Terminal(cli, "cleanup", "--all") as terminal:
        terminal.expect(name.encode())
        terminal.expect(b"[y/N] ")
        terminal.type(b"no\n")
        terminal.expect(b"nothing was destroyed")
        assert terminal.end() == 1
    assert name in [one["id"] for one in cli.environments()]
    run = next(one["run_id"] for one in cli.environments() if one["id"] == name)
    with Terminal(cli, "cleanup", "--run", run) as terminal:
        terminal.expect(b"[y/N] ")
        terminal.type(b"y\n")
        assert terminal.end() == 0
    assert name not in [one["id"] for one in cli.environments()]


def test_progress_shows_on_a_terminal_after_a_second(cli: CommandLine, tmp_path: Path) -> None:
    document = tmp_path / "compose.yaml"
    document.write_text(
        "services:\n  default:\n    image: busybox\n    command: [sleep, '1000']\n"
        "    healthcheck: {test: [CMD-SHELL, 'sleep 2'], interval: 1s}\n"
    )
    with Terminal(cli, "run", "-q", "-f", str(document), "--", "echo", "done") as terminal:
        terminal.expect(b"provisioning ")
        terminal.expect(b"done\r\n")
        assert terminal.end() == 0
