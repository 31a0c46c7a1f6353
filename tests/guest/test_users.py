"""Who a command runs as, and who is kept out."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from keepers import Keeper

from sandboxcore import errors
from sandboxcore.guest import Guest, protocol
from sandboxcore.guest._process import ProcessChannel
from sandboxcore.values import ExecRequest, ExecResult

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: only root becomes another user")

PASSWD = """root:x:0:0:root:/root:/bin/sh
alice:x:2001:3001::/home/alice:/bin/sh
bob:x:2002:3002::/home/bob:/bin/sh
broken line
homeless:x:2003:3003:::/bin/sh
2001:x:2004:3004::/home/number:/bin/sh
"""
GROUP = """root:x:0:
alice:x:3001:
wheel:x:4001:bob,alice
audio:x:4002:alice
twice:x:3001:alice
staff:x:4003:bob
"""


def sh(line: str, **options: object) -> ExecRequest:
    return ExecRequest(argv=["/bin/sh", "-c", line], **options)  # type: ignore[arg-type]


async def who(guest: Guest, user: str | None) -> tuple[int, int, list[int], str]:
    """Uid, gid, supplementary groups and HOME that a command finds."""
    result = await guest.executor.exec(sh("id -u; id -g; grep ^Groups /proc/self/status; echo $HOME", user=user))
    assert result.exit_code == 0, result.stderr
    uid, gid, groups, home = result.text().splitlines()
    return int(uid), int(gid), sorted(map(int, groups.split()[1:])), home


@pytest.fixture
def programs() -> Iterator[Path]:
    """A folder that everybody reads, with the guest in it."""
    from sandboxcore.guest import guest_binary

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "guest").write_bytes(guest_binary().read_bytes())
        (folder / "guest").chmod(0o755)
        yield folder


def script(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def image(programs: Path) -> Path:
    """A guest among users and groups of its own."""
    (programs / "passwd").write_text(PASSWD)
    (programs / "group").write_text(GROUP)
    inner = f'mount --bind {programs}/passwd /etc/passwd; mount --bind {programs}/group /etc/group; exec {programs}/guest "$@"'
    return script(programs / "image", f"exec unshare -m /bin/sh -c '{inner}' sh \"$@\"")


@pytest.fixture
async def users(start_keeper: Callable[..., Keeper], image: Path) -> AsyncIterator[Guest]:
    guest = Guest(start_keeper(program=image, env={"PATH": "/usr/bin:/bin", "HOME": "/root"}).channel())
    yield guest
    await guest.aclose()


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        (None, (0, 0, None, "/root")),
        ("root", (0, 0, None, "/root")),
        ("0", (0, 0, None, "/root")),
        ("alice", (2001, 3001, [4001, 4002], "/home/alice")),
        ("bob", (2002, 3002, [4001, 4003], "/home/bob")),
        ("2002", (2002, 3002, [4001, 4003], "/home/bob")),
        ("alice:wheel", (2001, 4001, [], "/home/alice")),
        ("alice:4003", (2001, 4003, [], "/home/alice")),
        ("bob:77", (2002, 77, [], "/home/bob")),
        ("5555", (5555, 0, [], "/")),
        ("5555:6666", (5555, 6666, [], "/")),
        ("5555:audio", (5555, 4002, [], "/")),
        ("homeless", (2003, 3003, [], "/")),
    ],
)
async def test_who_a_command_runs_as(users: Guest, user: str | None, expected: tuple[int, int, list[int] | None, str]) -> None:
    uid, gid, groups, home = await who(users, user)
    assert (uid, gid, home) == (expected[0], expected[1], expected[3])
    if expected[2] is not None:
        assert [group for group in groups if group != gid] == [group for group in expected[2] if group != gid]


async def test_a_name_goes_before_a_number(users: Guest) -> None:
    assert (await who(users, "2001"))[:2] == (2004, 3004)


@pytest.mark.parametrize(
    "user", ["nobody-here", "alice:no-such-group", "-1", "4294967295", "99999999999", ":", ":0", "alice:", "a b"]
)
async def test_unknown_users_are_refused_and_nothing_runs(users: Guest, tmp_path: Path, user: str) -> None:
    with pytest.raises(errors.SandboxUserUnsupportedError) as caught:
        await users.executor.exec(sh(f"touch {tmp_path}/ran", user=user))
    assert user in str(caught.value)
    with pytest.raises(errors.SandboxUserUnsupportedError):
        await users.files.read_file("/etc/passwd", user=user)
    assert not (tmp_path / "ran").exists()


async def test_home_of_the_request_wins(users: Guest) -> None:
    result = await users.executor.exec(sh("echo $HOME", user="alice", env={"HOME": "/mine"}))
    assert result.stdout == b"/mine\n"


async def test_the_folder_is_entered_as_the_user(users: Guest, tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    with pytest.raises(errors.SandboxPermissionError):
        await users.executor.exec(sh("true", user="alice", cwd=str(tmp_path)))


async def test_a_terminal_belongs_to_its_user(users: Guest) -> None:
    result = await users.executor.exec(sh("stat -c %u $(tty); echo hello > /dev/tty", user="alice", pty=True, cwd="/"))
    assert (result.exit_code, result.stdout) == (0, b"2001\r\nhello\r\n")


async def test_killing_reaches_another_users_tree(users: Guest) -> None:
    with pytest.raises(errors.ExecTimeoutError) as caught:
        await users.executor.exec(sh("sleep 60 & setsid sleep 60", user="alice", timeout=0.3, cwd="/"))
    assert "could not be killed" not in str(caught.value)


async def test_the_default_user_is_for_commands_and_files(
    start_keeper: Callable[..., Keeper], image: Path, programs: Path
) -> None:
    guest = Guest(start_keeper("--user", "alice", program=image).channel())
    assert await who(guest, None) == (2001, 3001, [4001, 4002], "/home/alice")
    assert (await who(guest, "root"))[0] == 0
    (programs / "open").mkdir()
    (programs / "open").chmod(0o777)
    await guest.files.write_file(f"{programs}/open/f", b"x")
    assert (programs / "open/f").stat().st_uid == 2001
    await guest.aclose()


async def test_a_guest_that_is_not_root_refuses_others(start_keeper: Callable[..., Keeper], programs: Path) -> None:
    program = script(programs / "small", f'exec setpriv --reuid 65534 --regid 65534 --clear-groups {programs}/guest "$@"')
    guest = Guest(start_keeper(program=program, cwd=programs).channel())
    assert (await who(guest, None))[:2] == (65534, 65534)
    assert (await who(guest, "65534:65534"))[:2] == (65534, 65534)
    for user in ("root", "0", "1", "65534:0"):
        with pytest.raises(errors.SandboxUserUnsupportedError):
            await guest.executor.exec(sh("true", user=user))
        with pytest.raises(errors.SandboxUserUnsupportedError):
            await guest.files.stat("/", user=user)
    await guest.aclose()


# --- who is kept out of a keeper that a relay started ---


class RelayChannel(ProcessChannel):
    """Runs a relay with a folder of its own."""

    guest_path = "relay"

    def __init__(self, program: Path, folder: Path, *prefix: str) -> None:
        super().__init__(prefix)
        self.words = (str(program), "relay", "--dir", str(folder))

    async def open(self, argv: object, protocol: asyncio.BaseProtocol) -> asyncio.Transport:
        return await super().open(self.words, protocol)


def keeper_of(folder: Path) -> int:
    """Process id of the keeper that a relay of this folder started."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
            state = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if os.fsencode(folder) in words and b"relay" in words and state[3] == entry.name:  # its session's leader
            return int(entry.name)
    raise AssertionError("no keeper")


@pytest.fixture
async def relayed(programs: Path) -> AsyncIterator[Guest]:
    guest = Guest(RelayChannel(programs / "guest", programs / "keep"))
    await guest.connect()
    keeper = keeper_of(programs / "keep")
    yield guest
    await guest.aclose()
    os.kill(keeper, signal.SIGKILL)


BECOME = """
    import ctypes, os, socket, sys
    os.setgroups([])
    os.setresgid(65534, 65534, 65534)
    os.setresuid(65534, 65534, 65534)
"""


def as_nobody(code: str, *arguments: object) -> subprocess.CompletedProcess[bytes]:
    """Run Python code as a user that is nobody; the interpreter itself may be out of that user's reach."""
    words = [sys.executable, "-S", "-c", textwrap.dedent(BECOME) + textwrap.dedent(code), *map(str, arguments)]
    return subprocess.run(words, capture_output=True, timeout=20, cwd="/", check=False)


PROBE = """
    def attempt(what):
        try: what()
        except OSError as error: print(type(error).__name__)
        else: print('done')
    pid = int(sys.argv[1])
    attempt(lambda: open(f'/proc/{pid}/mem', 'rb'))
    attempt(lambda: open(f'/proc/{pid}/environ', 'rb'))
    attempt(lambda: os.listdir(f'/proc/{pid}/fd'))
    attempt(lambda: os.kill(pid, 0))
    libc = ctypes.CDLL(None, use_errno=True)
    print('traced' if libc.ptrace(16, pid, 0, 0) == 0 else os.strerror(ctypes.get_errno()))
"""


async def test_another_user_cannot_reach_the_keeper(relayed: Guest, programs: Path) -> None:
    keep = programs / "keep"
    (path,) = keep.glob("*.sock")
    assert stat.S_IMODE(keep.stat().st_mode) == 0o700
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    connect = "socket.socket(socket.AF_UNIX).connect(sys.argv[1])"
    assert b"PermissionError" in as_nobody(connect, path).stderr
    keep.chmod(0o755)  # the socket alone keeps them out too
    assert b"PermissionError" in as_nobody(connect, path).stderr
    keep.chmod(0o700)
    done = as_nobody(PROBE, keeper_of(keep))
    assert done.stdout.split(b"\n")[:5] == [b"PermissionError"] * 4 + [b"Operation not permitted"], done.stderr


async def test_the_same_user_cannot_read_or_trace_the_keeper(programs: Path) -> None:
    (programs / "work").mkdir()
    os.chown(programs / "work", 65534, 65534)
    prefix = ("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups")
    guest = Guest(RelayChannel(programs / "guest", programs / "work/keep", *prefix))
    await guest.connect()
    keeper = keeper_of(programs / "work/keep")
    try:
        done = as_nobody(PROBE, keeper)
        assert done.stdout.split(b"\n")[:3] == [b"PermissionError"] * 3, done.stderr
        assert done.stdout.split(b"\n")[4] == b"Operation not permitted"
        await guest.aclose()
    finally:
        os.kill(keeper, signal.SIGKILL)


CLIENT = """
    import os, socket, struct, sys
    if sys.argv[2] == 'away' and os.fork():
        os._exit(0)
    if sys.argv[2] == 'away':
        os.setsid()
        if os.fork(): os._exit(0)
    one = socket.socket(socket.AF_UNIX)
    one.connect(sys.argv[1])
    try: one.sendall(bytes.fromhex(sys.argv[3]))
    except BrokenPipeError: pass  # the answer was there before the question
    length, kind, command, reason = struct.unpack('<IBIB', one.recv(4096)[:10])
    open(sys.argv[4], 'w').write(f'{kind} {reason}')
"""


@pytest.mark.parametrize("where", ["here", "away"])
async def test_a_command_of_the_sandbox_is_refused_as_a_client(relayed: Guest, programs: Path, where: str) -> None:
    (path,) = (programs / "keep").glob("*.sock")
    hello = protocol.hello(os.urandom(16), 1, 1000, []).hex()
    answer = programs / "answer"
    argv = [sys.executable, "-S", "-c", textwrap.dedent(CLIENT), str(path), where, hello, str(answer)]
    result: ExecResult = await relayed.executor.exec(ExecRequest(argv=argv))
    assert result.exit_code == 0, result.stderr
    for _ in range(500):
        if answer.exists() and answer.read_text():
            break
        await asyncio.sleep(0.02)
    assert answer.read_text() == f"{protocol.FrameType.REFUSED} {protocol.Refusal.PEER}"


async def test_a_peer_from_outside_is_welcome(relayed: Guest, programs: Path) -> None:
    """The counterpart: were everybody refused, the test before would prove nothing."""
    (path,) = (programs / "keep").glob("*.sock")
    with socket.socket(socket.AF_UNIX) as one:
        one.connect(str(path))
        one.sendall(protocol.hello(os.urandom(16), 1, 1000, []))
        data = await asyncio.to_thread(one.recv, 4096)
    assert data[4] == protocol.FrameType.WELCOME


async def test_a_folder_that_another_user_made_first_is_not_used(programs: Path) -> None:
    keep = programs / "keep"
    keep.mkdir()
    os.chown(keep, 65534, 65534)
    guest = Guest(RelayChannel(programs / "guest", keep))
    with pytest.raises(errors.SandboxUnavailableError):
        await guest.connect()
    await guest.aclose()
    assert list(keep.iterdir()) == []
