"""A signal ends a command in good order: what it made is taken away first. Real processes, real signals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator

import pytest

SCRIPT = textwrap.dedent("""
    import asyncio, sys
    from sandboxcore.cli._signals import run_async

    async def main():
        try:
            print("running", flush=True)
            await asyncio.sleep(30)
        finally:
            print("cleaning", flush=True)
            sys.stdin.readline()
            await asyncio.sleep(0.2)
            print("clean", flush=True)
        return 0

    sys.exit(run_async(main))
""")


@pytest.fixture
def process() -> Iterator[subprocess.Popen[str]]:
    pipe = subprocess.PIPE
    # Whoever started the tests may have chosen to ignore SIGHUP (nohup does), and that is inherited.
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    started = subprocess.Popen([sys.executable, "-c", SCRIPT], stdin=pipe, stdout=pipe, stderr=pipe, text=True)
    signal.signal(signal.SIGHUP, before)
    with started:
        assert started.stdout is not None
        assert started.stdout.readline() == "running\n"
        yield started
        started.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_cleans_up_and_shows_in_the_exit_code(process: subprocess.Popen[str], number: signal.Signals) -> None:
    process.send_signal(number)
    out, err = process.communicate("\n", timeout=20)
    assert out == "cleaning\nclean\n"
    assert err.strip() == f"sandboxcore: {number.name}: cleaning up"
    assert process.returncode == 128 + number


def test_a_second_signal_is_answered_and_does_not_cut_the_cleaning(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    assert process.stdin is not None
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "cleaning\n"
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate("\n", timeout=20)
    assert out == "clean\n"
    assert "SIGINT: cleaning up" in err
    assert "still cleaning up" in err
    assert "Traceback" not in err
    assert process.returncode == 130


def test_what_is_logged_is_a_line_without_a_traceback() -> None:
    script = textwrap.dedent(r"""
        import asyncio, logging
        from sandboxcore.cli._signals import run_async

        async def main():
            asyncio.get_running_loop().call_soon(lambda: 1 / 0)
            await asyncio.sleep(0.01)
            logging.getLogger("sandboxcore").warning("environment %s may be left behind\nmore", "x")
            return 0

        run_async(main)
    """)
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=False)
    first, second = result.stderr.splitlines()
    assert first.startswith("sandboxcore: warning: Exception in callback")
    assert first.endswith(": ZeroDivisionError: division by zero (--debug shows more)")
    assert second == "sandboxcore: warning: environment x may be left behind"


def test_a_signal_that_was_ignored_from_the_start_stays_ignored() -> None:
    script = SCRIPT.replace("asyncio.sleep(30)", "asyncio.sleep(1)")
    argv = ["sh", "-c", 'trap "" HUP; exec "$0" -c "$1"', sys.executable, script]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "running\n"
        os.kill(process.pid, signal.SIGHUP)
        out, _ = process.communicate("\n", timeout=20)
    assert out == "cleaning\nclean\n"
    assert process.returncode == 0


def test_control_c_while_it_starts_is_no_traceback() -> None:
    """Most of the start is importing; only what comes before our first line is Python's own."""
    script = textwrap.dedent("""
        import builtins, os, signal, sys
        real = builtins.__import__

        def interrupting(name, *others):
            if name == module:
                os.kill(os.getpid(), signal.SIGINT)
            return real(name, *others)

        module, sys.argv = sys.argv[1], ["sandboxcore", "run", "--", "true"]
        from sandboxcore.cli import main
        builtins.__import__ = interrupting
        main()
    """)
    for module in ("click", "dataclasses", "asyncio"):
        result = subprocess.run([sys.executable, "-c", script, module], capture_output=True, text=True, timeout=30, check=False)
        assert result.returncode == 130, (module, result.stderr)
        assert "Traceback" not in result.stderr
