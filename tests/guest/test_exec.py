"""The contract of exec, kept by the guest itself: bytes, status, environment, and how a command is started and ended."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
from keepers import Keeper, children

from sandboxcore import errors
from sandboxcore.guest import Guest
from sandboxcore.values import ExecRequest, ExecResult

MIB = 1 << 20


def sh(line: str, **options: object) -> ExecRequest:
    return ExecRequest(argv=["/bin/sh", "-c", line], **options)  # type: ignore[arg-type]


def py(code: str, *arguments: str, **options: object) -> ExecRequest:
    argv = [sys.executable, "-S", "-c", textwrap.dedent(code), *arguments]
    return ExecRequest(argv=argv, **options)  # type: ignore[arg-type]


async def run(guest: Guest, request: ExecRequest) -> ExecResult:
    return await asyncio.wait_for(guest.executor.exec(request), 60)


async def until(condition: Callable[[], bool], seconds: float = 5.0) -> bool:
    for _ in range(int(seconds / 0.02)):
        if condition():
            return True
        await asyncio.sleep(0.02)
    return condition()


# --- bytes ---


async def test_every_byte_comes_back_untouched_on_its_own_stream(guest: Guest) -> None:
    code = "import os; os.write(1, bytes(range(256)) * 700); os.write(2, bytes(range(255, -1, -1)) + b'\\r\\n\\0')"
    result = await run(guest, py(code))
    assert result.stdout == bytes(range(256)) * 700
    assert result.stderr == bytes(range(255, -1, -1)) + b"\r\n\0"


@pytest.mark.parametrize(
    "data", [None, b"", b"\0", b"no newline", os.urandom(5 * MIB)], ids=["none", "empty", "nul", "line", "5MiB"]
)
async def test_stdin_comes_through(guest: Guest, data: bytes | None) -> None:
    result = await run(guest, ExecRequest(argv=["cat"], stdin=data))
    assert (result.exit_code, result.stdout) == (0, data or b"")


async def test_stdin_that_is_never_read_holds_nobody_up(guest: Guest, tmp_path: Path) -> None:
    slow = await guest.executor.start(
        sh("read line; while [ ! -e go ]; do sleep 0.05; done; echo done", stdin_stream=True, cwd=str(tmp_path))
    )
    await slow.write(b"line\n")
    feeding = asyncio.create_task(slow.write(bytes(5 * MIB)))
    quick = await asyncio.wait_for(run(guest, sh("echo quick", stdin=bytes(5 * MIB))), 30)
    assert quick.stdout == b"quick\n"
    (tmp_path / "go").touch()
    assert b"".join([chunk.data async for chunk in slow.output()]) == b"done\n"
    with pytest.raises(BrokenPipeError):
        await feeding


async def test_stdin_that_is_closed_early_is_no_error(guest: Guest) -> None:
    result = await run(guest, sh("exec 0<&-; sleep 0.1; echo closed; exit 3", stdin=bytes(5 * MIB)))
    assert (result.exit_code, result.stdout) == (3, b"closed\n")


async def test_stdin_that_is_read_in_part_is_no_error(guest: Guest) -> None:
    result = await run(guest, ExecRequest(argv=["head", "-c", "3"], stdin=b"abcdef" * MIB))
    assert (result.exit_code, result.stdout) == (0, b"abc")


# --- environment and directory ---


async def test_env_adds_to_and_overrides_the_guests(start_keeper: Callable[..., Keeper]) -> None:
    base = {"PATH": "/usr/bin:/bin", "KEEP": "kept", "OVER": "old", "PWD": "/x", "OLDPWD": "/y", "SHLVL": "3", "_": "/bin/z"}
    guest = Guest(start_keeper(env=base).channel())
    result = await run(guest, ExecRequest(argv=["env"], env={"OVER": "new=with=signs", "ADD": "a\nb", "EMPTY": ""}))
    found = result.stdout.split(b"\n")
    assert sorted(found) == sorted([b"PATH=/usr/bin:/bin", b"KEEP=kept", b"OVER=new=with=signs", b"ADD=a", b"b", b"EMPTY=", b""])
    await guest.aclose()


async def test_env_holds_bytes_that_are_no_text(guest: Guest) -> None:
    value = os.fsdecode(b"\xff\xfe")
    result = await run(guest, py("import os; os.write(1, os.environb[b'RAW'])", env={"RAW": value}))
    assert result.stdout == b"\xff\xfe"


async def test_the_path_of_the_request_is_used(guest: Guest, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    (tmp_path / "b" / "tool").write_text("#!/bin/sh\necho mine\n")
    (tmp_path / "b" / "tool").chmod(0o755)
    (tmp_path / "a" / "tool").write_text("not for running")
    path = f"{tmp_path}/missing:{tmp_path}/a:{tmp_path}/b"
    assert (await run(guest, ExecRequest(argv=["tool"], env={"PATH": path}))).stdout == b"mine\n"
    assert (await run(guest, ExecRequest(argv=["tool"], env={"PATH": f"{tmp_path}/a"}))).exit_code == 126
    assert (await run(guest, ExecRequest(argv=["tool"], env={"PATH": "/nowhere"}))).exit_code == 127
    assert (await run(guest, ExecRequest(argv=["tool"], env={"PATH": ""}, cwd=f"{tmp_path}/b"))).stdout == b"mine\n"


async def test_cwd_is_the_guests_own_or_below_it_or_absolute(start_keeper: Callable[..., Keeper], tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    guest = Guest(start_keeper(cwd=tmp_path).channel())
    for cwd, expected in ((None, tmp_path), ("below", tmp_path / "below"), ("below/..", tmp_path), ("/", Path("/"))):
        result = await run(guest, ExecRequest(argv=["/bin/pwd", "-P"], cwd=cwd))
        assert os.fsencode(expected) + b"\n" == result.stdout
    await guest.aclose()


@pytest.mark.parametrize(
    ("cwd", "error"), [("/does/not/exist", FileNotFoundError), ("/etc/passwd", NotADirectoryError), ("x" * 300, OSError)]
)
async def test_a_wrong_cwd_is_a_file_error_and_nothing_runs(guest: Guest, tmp_path: Path, cwd: str, error: type[OSError]) -> None:
    with pytest.raises(error) as caught:
        await run(guest, sh(f"touch {tmp_path}/ran", cwd=cwd))
    assert isinstance(caught.value, errors.SandboxFileError)
    assert caught.value.filename == cwd
    assert not (tmp_path / "ran").exists()


# --- status ---


@pytest.mark.parametrize("code", [0, 1, 2, 124, 126, 127, 137, 255])
async def test_the_exit_code_is_what_the_program_returned(guest: Guest, code: int) -> None:
    result = await run(guest, sh(f"exit {code}"))
    assert (result.exit_code, result.signal) == (code, 0)


@pytest.mark.parametrize("name", ["HUP", "INT", "KILL", "PIPE", "TERM", "USR1", "SEGV"])
async def test_a_signal_shows_as_128_and_its_number(guest: Guest, name: str) -> None:
    number = int(signal.Signals[f"SIG{name}"])
    result = await run(guest, sh(f"ulimit -c 0; kill -{name} $$"))
    assert (result.exit_code, result.signal) == (128 + number, number)


async def test_what_cannot_be_run_is_126_or_127(guest: Guest, tmp_path: Path) -> None:
    made = {
        "bare": ("echo no shebang\n", 0o755, 126),
        "plain": ("#!/bin/sh\n", 0o644, 126),
        "lost": ("#!/no/such/interpreter\n", 0o755, 127),
        "junk": ("\x7fELF and then nothing", 0o755, 126),
        "empty": ("", 0o755, 126),
    }
    for name, (content, mode, _) in made.items():
        (tmp_path / name).write_text(content)
        (tmp_path / name).chmod(mode)
    (tmp_path / "loop").symlink_to("loop")
    expected = {str(tmp_path / name): code for name, (_, _, code) in made.items()}
    expected |= {str(tmp_path): 126, "/": 126, str(tmp_path / "absent"): 127, "/etc/passwd/x": 127, "no-such-tool": 127, "": 127}
    expected |= {str(tmp_path / "loop"): 126}
    for program, code in expected.items():
        result = await run(guest, ExecRequest(argv=[program]))
        assert (program, result.exit_code, result.stdout) == (program, code, b"")
        assert result.stderr.startswith(b"sandboxcore: can't run "), program


async def test_arguments_that_are_too_long_are_126_and_harm_nobody(guest: Guest) -> None:
    for argv in (["true", "x" * 200_000], ["true", *["y" * 100_000] * 30]):
        assert (await run(guest, ExecRequest(argv=argv))).exit_code == 126
    assert (await run(guest, sh("exit 5"))).exit_code == 5


async def test_a_request_that_fits_no_frame_is_refused_and_harms_nobody(guest: Guest) -> None:
    slow = asyncio.create_task(run(guest, sh("sleep 0.3; echo still here")))
    await asyncio.sleep(0.1)
    result = await asyncio.wait_for(run(guest, ExecRequest(argv=["true", *["y" * 100_000] * 50])), 30)
    assert result.exit_code == 126
    assert (await slow).stdout == b"still here\n"


async def test_the_status_cannot_be_forged(guest: Guest) -> None:
    """No descriptor but the three leads out of the command, and bytes like frames are only bytes."""
    code = """
        import os, struct
        held = [int(name) for name in os.listdir('/proc/self/fd')]
        frame = struct.pack('<IBIBBiIQQQQQ', 59, 70, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0)
        for fd in range(3, 64):
            try: os.write(fd, frame)
            except OSError: pass
        os.write(1, frame)
        os.write(2, repr(sorted(held)).encode())
        os._exit(7)
    """
    result = await run(guest, py(code))
    assert result.exit_code == 7
    assert result.stderr in (b"[0, 1, 2]", b"[0, 1, 2, 3]")  # 3 is the listing of the folder itself
    assert len(result.stdout) == 59


async def test_only_three_descriptors_are_open(guest: Guest) -> None:
    busy = [asyncio.create_task(run(guest, sh("sleep 0.4"))) for _ in range(5)]
    await asyncio.sleep(0.1)
    result = await run(guest, sh("ls -l /proc/self/fd | grep -v /proc/ | grep -c -- '->'"))
    assert result.stdout == b"3\n"
    await asyncio.gather(*busy)


# --- how a command finds itself ---


async def test_limits_signals_and_session_are_a_fresh_programs(guest: Guest) -> None:
    code = """
        import os, resource, signal
        status = dict(line.split(':\\t') for line in open('/proc/self/status').read().splitlines())
        print(resource.getrlimit(resource.RLIMIT_NOFILE))
        print(int(status['SigBlk'], 16), int(status['SigIgn'], 16) & ~(1 << signal.SIGPIPE - 1 | 1 << 24))
        print(os.getsid(0) == os.getpid() == os.getpgrp())
        try: os.open('/dev/tty', os.O_RDWR)
        except OSError: print('no terminal')
    """
    import resource

    result = await run(guest, py(code))
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert result.stdout.decode() == f"{limit}\n0 0\nTrue\nno terminal\n"


async def test_a_broken_pipe_kills_as_it_does_under_a_shell(guest: Guest) -> None:
    # The reader is gone: `yes` dies of SIGPIPE silently; were the signal ignored it would complain.
    result = await run(guest, sh("grep SigIgn /proc/self/status; (yes; echo $? >&2) | head -n 1"))
    assert result.stdout == b"SigIgn:\t0000000000000000\ny\n"
    assert result.stderr == b"141\n"


async def test_umask_is_usual(guest: Guest) -> None:
    assert (await run(guest, sh("umask"))).stdout == b"0022\n"


async def test_commands_are_taken_before_the_keeper_when_memory_runs_out(guest: Guest, keeper: Keeper) -> None:
    line = "cat /proc/$$/oom_score_adj"
    if os.geteuid() != 0:  # then it is told after the program has begun
        line = f"until {line} | grep 1000; do sleep 0.05; done"
    assert (await run(guest, sh(line, timeout=30))).stdout == b"1000\n"
    assert int(Path(f"/proc/{keeper.pid}/oom_score_adj").read_text()) < 1000


async def test_what_a_command_used_is_told(guest: Guest) -> None:
    result = await run(guest, py("x = bytearray(64 << 20)\nn = 0\nwhile n < 3_000_000: n += 1"))
    assert 0.02 < result.cpu_time < 30
    assert 64 * MIB < result.max_rss_bytes < 400 * MIB
    assert result.duration >= result.cpu_time / 2


# --- the end ---


async def test_a_background_child_that_holds_stdout_does_not_delay(guest: Guest, tmp_path: Path) -> None:
    line = "(until [ -e go ]; do sleep 0.05; done; echo late; echo $? > status) & echo early"
    result = await asyncio.wait_for(run(guest, sh(line, cwd=str(tmp_path))), 30)
    assert result.stdout == b"early\n"
    (tmp_path / "go").touch()
    # It lives on, and writing hurts it not.
    status = tmp_path / "status"
    assert await until(lambda: status.exists() and status.read_text() == "0\n")


async def test_all_that_was_written_before_the_end_arrives(guest: Guest) -> None:
    code = "import os, sys\nfor _ in range(16): os.write(1, b'x' * 4096)\nos.write(2, b'y' * 65536)\nos._exit(0)"
    for _ in range(50):
        result = await run(guest, py(code))
        assert (len(result.stdout), len(result.stderr)) == (65536, 65536)


# --- limits of output ---


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
async def test_output_over_the_limit_ends_the_command_with_the_exact_head(guest: Guest, stream: str) -> None:
    limit = 100_001
    code = f"""
        import os
        data = bytes(i % 251 for i in range(65536))
        os.write({2 if stream == "stdout" else 1}, b'other')
        while True: os.write({1 if stream == "stdout" else 2}, data)
    """
    with pytest.raises(errors.OutputLimitExceededError) as caught:
        await run(guest, py(code, output_limit_bytes=limit))
    error = caught.value
    assert (error.stream, error.limit_bytes) == (stream, limit)
    assert error.result is not None
    data = bytes(i % 251 for i in range(65536)) * 2
    assert getattr(error.result, stream) == data[:limit]
    assert (error.result.stderr if stream == "stdout" else error.result.stdout) == b"other"


async def test_output_of_just_the_limit_is_a_result(guest: Guest) -> None:
    result = await run(guest, sh("head -c 5000 /dev/zero", output_limit_bytes=5000))
    assert (result.exit_code, len(result.stdout)) == (0, 5000)
    with pytest.raises(errors.OutputLimitExceededError):
        await run(guest, sh("head -c 5001 /dev/zero", output_limit_bytes=5000))


async def test_a_program_that_ended_by_itself_over_the_limit_is_over_it_too(guest: Guest) -> None:
    for _ in range(20):
        with pytest.raises(errors.OutputLimitExceededError) as caught:
            await run(guest, py("import os; os.write(1, b'z' * 60000)", output_limit_bytes=10))
        assert caught.value.result is not None
        assert caught.value.result.stdout == b"z" * 10


async def test_the_whole_tree_is_gone_after_the_output_limit(guest: Guest, keeper: Keeper, tmp_path: Path) -> None:
    with pytest.raises(errors.OutputLimitExceededError):
        await run(guest, sh(f"(while :; do echo x >> {tmp_path}/beat; sleep 0.02; done) & yes", output_limit_bytes=1000))
    assert children(keeper.pid) == [] or await until(lambda: children(keeper.pid) == [], 1)
    size = (tmp_path / "beat").stat().st_size if (tmp_path / "beat").exists() else 0
    await asyncio.sleep(0.2)
    assert size == ((tmp_path / "beat").stat().st_size if (tmp_path / "beat").exists() else 0)


# --- many, and large ---


async def test_a_thousand_at_once_over_one_stream(guest: Guest) -> None:
    async def one(number: int) -> None:
        result = await run(guest, sh(f"printf %s {number}; exit {number % 200}", stdin=b"x"))
        assert (result.exit_code, result.stdout) == (number % 200, str(number).encode())

    await asyncio.gather(*(one(number) for number in range(1000)))


async def test_small_commands_pass_a_gigabyte_on_the_same_stream(guest: Guest) -> None:
    process = await guest.executor.start(sh("head -c 1073741824 /dev/zero", output_limit_bytes=None))
    seen = 0
    beside: list[int] = []

    async def reading() -> None:
        nonlocal seen
        async for chunk in process.output():
            seen += len(chunk.data)

    reader = asyncio.create_task(reading())
    while not reader.done():
        before = seen
        assert (await run(guest, sh("echo small"))).stdout == b"small\n"
        beside.append(seen - before)
    await reader
    assert seen == 1 << 30
    assert (await process.wait()).exit_code == 0
    # Each ended while the transfer went on, and none waited for more than a part of it.
    assert len(beside) > 20
    assert sorted(beside)[len(beside) // 2] < 200 * MIB
