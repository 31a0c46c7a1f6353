"""The guest under AddressSanitizer and UndefinedBehaviorSanitizer, with friends and with enemies at its socket."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import random
import select
import shutil
import socket
import struct
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from keepers import Keeper, children

import sandboxcore.guest
from sandboxcore import errors
from sandboxcore.guest import Guest, protocol
from sandboxcore.guest.protocol import FileOp, FrameType
from sandboxcore.values import ExecRequest

FOLDER = Path(sandboxcore.guest.__file__).parent
FLAGS = ("-std=gnu11", "-O1", "-g", "-fno-omit-frame-pointer", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined")
OPTIONS = "detect_leaks=0:abort_on_error=0:exitcode=99:log_path={log}"


def unavailable(reason: str) -> None:
    if os.environ.get("CI"):
        pytest.fail(f"{reason}, and in CI it must", pytrace=False)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def sanitized(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The guest, compiled for this machine with everything that watches it."""
    compiler = shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        unavailable("no gcc and no clang: the guest can't be built with sanitizers")
        raise AssertionError
    program = tmp_path_factory.mktemp("sanitized") / "guest"
    sources = sorted(map(str, FOLDER.glob("*.c")))
    done = subprocess.run([compiler, *FLAGS, "-o", str(program), *sources], capture_output=True, text=True)
    if done.returncode and "asan" in done.stderr:
        unavailable(f"{compiler} has no sanitizers: {done.stderr.splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    return program


@pytest.fixture
def watched(start_keeper: Callable[..., Keeper], sanitized: Path, tmp_path: Path) -> Iterator[Keeper]:
    """A guest that is watched; any report of any of its processes fails the test."""
    log = tmp_path / "report"
    options = OPTIONS.format(log=log)
    keeper = start_keeper(program=sanitized, env={**os.environ, "ASAN_OPTIONS": options, "UBSAN_OPTIONS": options})
    yield keeper
    assert keeper.process.poll() is None, f"the guest ended with {keeper.process.poll()}: {reports(tmp_path)}"
    assert reports(tmp_path) == ""


def reports(folder: Path) -> str:
    return "\n".join(path.read_text() for path in sorted(folder.glob("report.*")))


@pytest.fixture
async def friend(watched: Keeper) -> AsyncIterator[Guest]:
    guest = Guest(watched.channel())
    yield guest
    await guest.aclose()


def sh(line: str, **options: object) -> ExecRequest:
    return ExecRequest(argv=["/bin/sh", "-c", line], **options)  # type: ignore[arg-type]


async def behaves(guest: Guest) -> None:
    """Whatever happened: who behaves is answered."""
    result = await asyncio.wait_for(guest.executor.exec(sh("cat; exit 3", stdin=b"still here")), 10)
    assert (result.exit_code, result.stdout) == (3, b"still here")


# --- what friends do ---


async def test_commands(friend: Guest) -> None:
    data = os.urandom(1 << 20)
    assert (await friend.executor.exec(ExecRequest(argv=["cat"], stdin=data))).stdout == data
    assert (await friend.executor.exec(sh("kill -9 $$"))).exit_code == 137
    assert (await friend.executor.exec(ExecRequest(argv=["no-such-program"], env={"A": "1", "PATH": "/x::/y"}))).exit_code == 127
    assert (await friend.executor.exec(sh("tty; cat", pty=True, stdin=b"x"))).exit_code == 0
    with pytest.raises(errors.ExecTimeoutError):
        await friend.executor.exec(sh("sleep 60 & setsid sleep 60", timeout=0.2))
    with pytest.raises(errors.OutputLimitExceededError):
        await friend.executor.exec(sh("yes", output_limit_bytes=100_000))
    with pytest.raises(errors.SandboxUserUnsupportedError):
        await friend.executor.exec(sh("true", user="no-such-user"))
    with pytest.raises(FileNotFoundError):
        await friend.executor.exec(sh("true", cwd="/no/such/folder"))
    for _ in range(3):
        await asyncio.gather(*(friend.executor.exec(sh(f"head -c {n * 999} /dev/zero; (sleep 0.05; echo) &")) for n in range(40)))
    task = asyncio.create_task(friend.executor.exec(sh("sleep 60", stdin=data)))
    await asyncio.sleep(0.1)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await behaves(friend)


async def test_processes(friend: Guest) -> None:
    process = await friend.executor.start(sh("cat; exit 4", pty=True, stdin_stream=True))
    await process.resize(10, 10)
    await process.write(b"line\n")
    await process.signal(28)
    await process.write_eof()
    assert (await process.wait()).exit_code == 4
    held = [await friend.executor.start(sh("yes | tee /dev/stderr", output_limit_bytes=None)) for _ in range(5)]
    await asyncio.sleep(0.2)
    await asyncio.gather(*(process.kill() for process in held))
    await behaves(friend)


async def test_files(friend: Guest, tmp_path: Path) -> None:
    files, folder = friend.files, tmp_path / "d"
    data = os.urandom(5 << 20)
    await files.write_file(f"{folder}/a/f", data, mode=0o600)
    assert await files.read_file(f"{folder}/a/f") == data
    (folder / "link").symlink_to("a/new")
    await files.write_file(f"{folder}/link", b"x")
    assert len(await files.list_dir(str(folder))) == 2
    assert (await files.stat(f"{folder}/link", follow=False)).type == "symlink"
    await files.read_file("/proc/meminfo")
    writer = await files.open_write(f"{folder}/b")
    await writer.write(data)
    await writer.abort()
    for path in ("/" + "x" * 5000, "/" + "y/" * 2047, "", "/dev/full", "/etc/passwd/x"):
        with pytest.raises(OSError, match=r".+"):
            await files.write_file(path, b"x")
    await files.make_dir(f"{folder}/c/d", mode=0o700)
    await files.remove(str(folder), recursive=True)
    await behaves(friend)


async def test_cuts(friend: Guest, watched: Keeper) -> None:
    data = os.urandom(2 << 20)
    task = asyncio.create_task(friend.executor.exec(ExecRequest(argv=["cat"], stdin=data)))
    for _ in range(12):
        await asyncio.sleep(0.03)
        friend.connection.cut()
    assert (await asyncio.wait_for(task, 30)).stdout == data


# --- what enemies do ---


def frame(kind: int, command_id: int, payload: bytes) -> bytes:
    return struct.pack("<IBI", len(payload) + 5, kind, command_id) + payload


class Enemy:
    """Speaks to a guest's socket in whatever way."""

    def __init__(self, keeper: Keeper, *, greet: bool = True, client_id: bytes | None = None, generation: int = 1) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(str(keeper.socket))
        self.socket.settimeout(30)
        if greet:
            self.say(protocol.hello(client_id or os.urandom(16), generation, 1000, []))
            assert self.hear()[:1] == [FrameType.WELCOME]

    def say(self, data: bytes) -> None:
        with contextlib.suppress(OSError):  # it may have hung up on us
            self.socket.sendall(data)

    def hear(self, seconds: float = 30.0) -> list[int]:
        """Types of the frames of what comes next; empty: the end, or nothing."""
        ready, _, _ = select.select([self.socket], [], [], seconds)
        try:
            data = self.socket.recv(1 << 20) if ready else b""
        except OSError:
            return []
        kinds, at = [], 0
        while len(data) - at >= 9:
            length, kind = struct.unpack_from("<IB", data, at)
            kinds.append(kind)
            at += 4 + length
        return kinds

    def hangs_up(self) -> bool:
        """Whether the guest ends the stream within 30 s."""
        limit = time.monotonic() + 30
        while time.monotonic() < limit:
            if select.select([self.socket], [], [], 0.1)[0]:
                try:
                    if not self.socket.recv(1 << 20):
                        return True
                except OSError:
                    return True
        return False

    def close(self) -> None:
        self.socket.close()


@pytest.fixture
def enemy(watched: Keeper) -> Iterator[Callable[..., Enemy]]:
    made: list[Enemy] = []

    def make(**options: object) -> Enemy:
        made.append(Enemy(watched, **options))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for one in made:
        one.close()


def spawn(command_id: int, line: str = "cat", **options: object) -> bytes:
    return protocol.spawn(command_id, sh(line, **options), stdin=True)


BROKEN: dict[str, list[bytes]] = {
    "no length": [struct.pack("<I", 0)],
    "too short": [struct.pack("<IBI", 4, 2, 1)],
    "too long": [struct.pack("<IBI", 4 << 20, 2, 1)],
    "as long as can be said": [struct.pack("<IBI", 0xFFFFFFFF, 2, 1)],
    "unknown type": [frame(99, 1, b"")],
    "a guest's own frame": [frame(FrameType.EXIT, 1, bytes(60))],
    "hello again": [protocol.hello(bytes(16), 5, 1000, [])],
    "spawn of nothing": [frame(FrameType.SPAWN, 1, b"")],
    "spawn of absurd counts": [frame(2, 1, bytes(25) + struct.pack("<IB", 0, 0) * 2 + b"\xff\xff\xff\xff" + bytes(40))],
    "spawn of an absurd length": [frame(2, 1, bytes(25) + b"\xff\xff\xff\xff" + bytes(40))],
    "spawn with argc 0": [frame(2, 1, bytes(25) + struct.pack("<IB", 0, 0) * 2 + struct.pack("<II", 0, 0))],
    "spawn with a NUL inside": [spawn(1).replace(b"cat", b"c\0t")],
    "spawn with more behind": [frame(2, 1, spawn(1)[9:] + b"x")],
    "file of no operation": [protocol.file(1, 0, "/")],  # type: ignore[arg-type]
    "file cut off": [frame(3, 1, protocol.file(1, FileOp.READ, "/etc/passwd")[9:-1])],
    "stdin ahead of itself": [spawn(1), protocol.stdin(1, 10, b"x")],
    "stdin over every window": [spawn(1, "sleep 5"), *(protocol.stdin(1, n << 20, bytes(1 << 20)) for n in range(7))],
    "stdin cut off": [spawn(1), frame(FrameType.STDIN, 1, b"123")],
    "end of stdin ahead of itself": [spawn(1), protocol.stdin_eof(1, 5)],
    "ack beyond what was sent": [spawn(1), protocol.ack(1, 0, 1 << 40)],
    "ack of a third stream": [spawn(1), protocol.ack(1, 2, 0)],
    "ack cut off": [frame(FrameType.ACK, 1, b"")],
    "signal cut off": [frame(FrameType.SIGNAL, 1, b"\1")],
    "resize cut off": [frame(FrameType.RESIZE, 1, b"\1\1\1")],
    "ping that is too long": [frame(FrameType.PING, 0, bytes(9))],
}


@pytest.mark.parametrize("name", BROKEN)
async def test_what_breaks_the_protocol_is_hung_up_on(friend: Guest, enemy: Callable[..., Enemy], name: str) -> None:
    one = enemy()
    for data in BROKEN[name]:
        one.say(data)
    assert one.hangs_up()
    await behaves(friend)


HARMLESS: dict[str, list[bytes]] = {
    "frames of unknown commands": [
        protocol.stdin(77, 0, b"x"),
        protocol.stdin_eof(77, 3),
        protocol.ack(77, 1, 5),
        protocol.exit_ack(77),
        protocol.signal(77, 9, tree=True),
        protocol.resize(77, 1, 1),
    ],
    "signals of any number": [spawn(1), *(protocol.signal(1, n) for n in (-(2**31), -1, 0, 28, 65, 2**31 - 1))],
    "sizes of any number": [spawn(1, pty=True), *(protocol.resize(1, n, 65535 - n) for n in (0, 1, 65535))],
    "a size for what has no terminal": [spawn(1), protocol.resize(1, 1, 1)],
    "every flag": [frame(2, 1, b"\xff" + spawn(1)[10:])],
    "the same twice": [spawn(1), spawn(1), spawn(1)],
    "one that was forgotten": [spawn(5), protocol.exit_ack(5), spawn(5), spawn(4)],
    "an unknown file operation": [protocol.file(1, 200, "/")],  # type: ignore[arg-type]
    "stdin again": [spawn(1), protocol.stdin(1, 0, b"abc"), protocol.stdin(1, 1, b"bcd"), protocol.stdin(1, 0, b"ab")],
    "stdin after its end": [spawn(1), protocol.stdin_eof(1, 0), protocol.stdin(1, 0, b"x"), protocol.stdin_eof(1, 0)],
    "forgetting while it runs": [spawn(1, "sleep 0.2; yes"), protocol.exit_ack(1), protocol.ack(1, 0, 0)],
    "killing often": [spawn(1, "yes"), *[protocol.signal(1, 9, tree=True)] * 50],
    "environment without names": [frame(2, 1, spawn(1)[9:-4] + struct.pack("<I", 3) + (struct.pack("<I", 1) + b"=\0") * 3)],
    "a whole table of words": [
        frame(2, 1, spawn(1)[9:-4] + struct.pack("<I", 100_000) + (struct.pack("<I", 0) + b"\0") * 100_000)
    ],
    "a user of many colons": [spawn(1, user=":" * 300), spawn(2, user="0:" + "9" * 300), spawn(3, user="x" * 300)],
}


@pytest.mark.parametrize("name", HARMLESS)
async def test_what_is_odd_harms_nobody(friend: Guest, enemy: Callable[..., Enemy], name: str) -> None:
    one = enemy()
    for data in HARMLESS[name]:
        one.say(data)
    one.say(protocol.ping(1))
    limit = time.monotonic() + 30
    while FrameType.PONG not in one.hear(0.5):
        assert time.monotonic() < limit, "the connection is dead"
    await behaves(friend)


async def test_hello_of_any_kind(friend: Guest, enemy: Callable[..., Enemy]) -> None:
    for data in (
        frame(1, 0, b""),
        frame(1, 0, b"\2" + bytes(40)),
        frame(1, 0, struct.pack("<B16sIII", 1, bytes(16), 1, 1, 0xFFFFFFFF)),
        frame(1, 0, struct.pack("<B16sIII", 1, bytes(16), 1, 1, 2) + bytes(20)),
        spawn(1),
        b"GET / HTTP/1.1\r\n\r\n",
    ):
        one = enemy(greet=False)
        one.say(data)
        assert one.hangs_up()
    await behaves(friend)


async def test_an_old_generation_is_fenced(friend: Guest, enemy: Callable[..., Enemy]) -> None:
    client_id = os.urandom(16)
    first = enemy(client_id=client_id, generation=7)
    for generation in (7, 6, 0):
        late = enemy(greet=False)
        late.say(protocol.hello(client_id, generation, 1000, []))
        assert late.hear() == [FrameType.REFUSED]
    second = enemy(client_id=client_id, generation=8)
    assert first.hangs_up()
    second.say(spawn(1, "yes"))
    time.sleep(0.1)
    liar = enemy(greet=False)
    liar.say(protocol.hello(client_id, 9, 1000, [(1, 1 << 50, 0)]))
    assert FrameType.REFUSED in liar.hear()
    await behaves(friend)


async def test_descriptors_that_come_along(friend: Guest, watched: Keeper, enemy: Callable[..., Enemy]) -> None:
    """A relay hands over two; any other number is not kept open."""
    await behaves(friend)
    before = descriptors(watched)
    for count in (1, 1, 1, 2, 3, 5):
        with socket.socket(socket.AF_UNIX) as one, open(os.devnull) as null:  # noqa: PTH123
            one.connect(str(watched.socket))
            socket.send_fds(one, [b"F"], [null.fileno()] * count)
            time.sleep(0.05)
    await behaves(friend)
    await settled(lambda: descriptors(watched) <= before)


def descriptors(keeper: Keeper) -> int:
    return sum(1 for _ in Path(f"/proc/{keeper.pid}/fd").iterdir())


async def settled(condition: Callable[[], bool]) -> None:
    for _ in range(150):
        if condition():
            return
        await asyncio.sleep(0.02)
    raise AssertionError("it does not settle")


async def test_many_connections_and_half_open_handshakes(friend: Guest, enemy: Callable[..., Enemy]) -> None:
    await behaves(friend)
    for number in range(300):
        one = enemy(greet=False)
        one.say(b"\x30\0\0\0\1"[: number % 6])
    await behaves(friend)


async def test_connections_that_come_and_go(friend: Guest, watched: Keeper) -> None:
    for number in range(400):
        one = Enemy(watched, greet=False)
        if number % 3:
            one.say(protocol.hello(os.urandom(16), 1, 1, []) + (spawn(1, "sleep 1") if number % 30 == 1 else b""))
        one.close()
    await behaves(friend)


async def test_more_clients_than_are_remembered(friend: Guest, watched: Keeper) -> None:
    for _ in range(1100):
        one = Enemy(watched)
        one.close()
    await behaves(friend)


async def test_a_reader_that_never_reads(friend: Guest, enemy: Callable[..., Enemy]) -> None:
    one = enemy()
    one.say(b"".join(spawn(number, "yes") for number in range(1, 20)))
    one.socket.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        for _ in range(2000):
            one.socket.send(protocol.ping(1) * 1000)
    await behaves(friend)


def mutated(random_: random.Random, data: bytes) -> bytes:
    """Change a few bytes, or the length, or where it ends."""
    spoilt = bytearray(data)
    for _ in range(random_.randint(1, 4)):
        kind = random_.randrange(5)
        at = random_.randrange(len(spoilt))
        if kind == 0:
            spoilt[at] = random_.choice((0, 1, 0x7F, 0x80, 0xFF, random_.randrange(256)))
        elif kind == 1:
            spoilt[at : at + 4] = struct.pack("<I", random_.choice((0, 1, 0x7FFFFFFF, 0xFFFFFFFF, random_.getrandbits(32))))
        elif kind == 2 and len(spoilt) > 9:
            del spoilt[random_.randrange(9, len(spoilt)) :]
        elif kind == 3:
            spoilt += random_.randbytes(random_.randrange(20))
    if random_.random() < 0.8 and len(spoilt) >= 9:
        spoilt[:4] = struct.pack("<I", len(spoilt) - 4)
    return bytes(spoilt)


def seeds() -> list[bytes]:
    return [
        spawn(1),
        spawn(2, "head -c 100000 /dev/zero"),
        spawn(3, pty=True, env={"A": "b"}, cwd="/", user="0:0", timeout=1.0),
        protocol.file(4, FileOp.READ, "/etc/passwd"),
        protocol.file(5, FileOp.STAT, "/etc", flag=True),
        protocol.file(6, FileOp.LIST, "/etc"),
        protocol.stdin(1, 0, b"hello"),
        protocol.stdin_eof(1, 5),
        protocol.ack(2, 0, 5000),
        protocol.signal(1, 15),
        protocol.signal(2, 9, tree=True),
        protocol.resize(3, 5, 5),
        protocol.exit_ack(2),
        protocol.ping(3),
    ]


@pytest.mark.parametrize("seed", range(4))
async def test_frames_with_changed_bytes(friend: Guest, watched: Keeper, seed: int) -> None:
    """No write, remove or make goes in: a changed path of one of those would be a real one of this machine."""
    random_ = random.Random(seed)
    harmless = (FileOp.READ, FileOp.STAT, FileOp.LIST)
    limit = time.monotonic() + 2.5
    while time.monotonic() < limit:
        one = Enemy(watched)
        for _ in range(random_.randint(1, 12)):
            data = random_.choice(seeds())
            if random_.random() < 0.6:
                data = mutated(random_, data)
            kind, op = (data[4], data[9]) if len(data) > 9 else (0, 0)
            if kind == FrameType.SPAWN:  # argv is not for changing
                data = data if data in seeds() else data[: random_.randrange(9, len(data))]
            if kind == FrameType.FILE and op not in harmless:
                continue
            one.say(data)
        one.hear(0.002)
        one.close()
    await behaves(friend)


@pytest.mark.parametrize("greet", [False, True])
async def test_garbage(friend: Guest, watched: Keeper, greet: bool) -> None:
    random_ = random.Random(99)
    for _ in range(200):
        one = Enemy(watched, greet=greet)
        one.say(random_.randbytes(random_.randrange(1, 300)))
        one.close()
    await behaves(friend)


# --- over time ---


async def test_nothing_piles_up_over_two_thousand_commands(guest: Guest, keeper: Keeper) -> None:
    """The guest as it is shipped: descriptors and memory are as flat after as before."""

    def held() -> tuple[int, int]:
        lines = Path(f"/proc/{keeper.pid}/status").read_text()
        return descriptors(keeper), int(lines.split("VmRSS:")[1].split()[0])

    async def round_() -> None:
        await asyncio.gather(*(guest.executor.exec(sh("echo x", stdin=b"y")) for _ in range(25)))
        await guest.files.read_file("/etc/passwd")
        with contextlib.suppress(errors.ExecTimeoutError):
            await guest.executor.exec(ExecRequest(argv=["sleep", "9"], timeout=0.001))

    for _ in range(10):
        await round_()
    await settled(lambda: not children(keeper.pid))
    open_before, memory = held()
    for _ in range(80):
        await round_()
    await settled(lambda: not children(keeper.pid))
    await settled(lambda: held()[0] <= open_before)
    assert held()[1] <= memory + 128


async def test_file_worker_errors_pile_up_nothing(guest: Guest, keeper: Keeper) -> None:
    for _ in range(100):
        with pytest.raises(OSError, match="No such file") as caught:
            await guest.files.read_file("/no/such/file")
        assert caught.value.errno == errno.ENOENT
    await settled(lambda: not children(keeper.pid))
