"""Files through the guest: the same bytes, atomic writes, Python's own errors, and nothing left behind."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import platform
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from keepers import Keeper, children

from sandboxcore import errors
from sandboxcore.guest import Guest
from sandboxcore.guest.files import GuestFileStore

MIB = 1 << 20
ROOT = os.geteuid() == 0
needs_root = pytest.mark.skipif(not ROOT, reason="needs root: another user's files, or a mount")


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))  # noqa: PTH208


def peak(pid: int | str) -> int:
    """Bytes of memory that a process has held at most."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024


def mounting(*words: str | Path) -> None:
    subprocess.run(["mount", *words], check=True, capture_output=True)


def unmounting(folder: Path) -> None:
    subprocess.run(["umount", "-l", folder], check=True)


@contextlib.contextmanager
def failing(number: int) -> Iterator[None]:
    """Expect a file error with this errno."""
    with pytest.raises(errors.SandboxFileError) as caught:
        yield
    assert caught.value.errno == number


# --- bytes ---


@pytest.mark.parametrize("size", [0, 1, 4095, 65536, 200_001, 5 * MIB])
async def test_bytes_in_are_bytes_out(guest: Guest, tmp_path: Path, size: int) -> None:
    data = os.urandom(size)
    path = tmp_path / "file"
    await guest.files.write_file(str(path), data)
    assert path.read_bytes() == data
    assert await guest.files.read_file(str(path)) == data
    assert names(tmp_path) == ["file", "k0"]


async def test_a_read_may_refuse_what_is_large(guest: Guest, tmp_path: Path) -> None:
    """For callers that have another way for that; what has no size of its own (in /proc) is no large file."""
    files = guest.files
    assert isinstance(files, GuestFileStore)
    for size, given in ((64 * 1024, True), (64 * 1024 + 1, False)):
        data = os.urandom(size)
        (tmp_path / "f").write_bytes(data)
        assert await files.read_if_small(str(tmp_path / "f")) == (data if given else None)
    assert b"VmRSS" in (await files.read_if_small("/proc/self/status") or b"")
    with failing(errno.ENOENT):
        await files.read_if_small(str(tmp_path / "none"))


@pytest.fixture
def fast_folder(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory, where there is one: a disk is not what is tested."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else tmp_path) as folder:
        yield Path(folder)


async def test_a_gigabyte_streams_in_and_out_of_little_memory(guest: Guest, keeper: Keeper, fast_folder: Path) -> None:
    piece = os.urandom(4 * MIB)
    path = str(fast_folder / "large")
    before = peak("self")
    async with await guest.files.open_write(path) as writer:
        for _ in range(256):
            await writer.write(piece)
    size = 0
    async with await guest.files.open_read(path) as reader:
        async for data in reader:
            while data:  # compared piece by piece, of which the bytes repeat
                at = size % len(piece)
                head, data = data[: len(piece) - at], data[len(piece) - at :]
                assert piece.startswith(head, at)
                size += len(head)
    assert size == 1 << 30
    assert peak("self") - before < 64 * MIB
    assert peak(keeper.pid) < 32 * MIB


async def test_reading_in_small_bites(guest: Guest, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(bytes(range(256)) * 4)
    async with await guest.files.open_read(str(tmp_path / "f")) as reader:
        bites = [await reader.read(100) for _ in range(12)]
    assert b"".join(bites) == bytes(range(256)) * 4
    assert max(map(len, bites)) <= 100
    assert bites[-1] == b""


async def test_a_reader_that_stops_early_leaves_no_worker(guest: Guest, keeper: Keeper) -> None:
    async with await guest.files.open_read("/dev/zero") as reader:
        assert (await reader.read(10)) == bytes(10)
    await workers_gone(keeper)


@pytest.mark.parametrize(
    "name", ["with\nnewline", "café", os.fsdecode(b"\xff\xfe\x01"), " ", "-rf", "a" * 255, 'it\'s "quoted" $HOME']
)
async def test_names_of_any_bytes(guest: Guest, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "names"
    path = str(folder / name)
    await guest.files.write_file(path, b"content")
    assert names(folder) == [name]
    assert await guest.files.read_file(path) == b"content"
    (info,) = await guest.files.list_dir(str(folder))
    assert (info.name, info.path, info.type, info.size_bytes) == (name, path, "file", 7)
    assert (await guest.files.stat(path)).name == name
    await guest.files.remove(path)
    assert names(folder) == []


async def test_relative_paths_start_at_the_guests_folder(guest: Guest, keeper: Keeper) -> None:
    home = keeper.socket.parent
    await guest.files.write_file("sub/file", b"x")
    assert (home / "sub" / "file").read_bytes() == b"x"
    assert [info.path for info in await guest.files.list_dir("sub")] == ["sub/file"]
    assert "sub" in [info.path for info in await guest.files.list_dir(".")]


# --- writing ---


async def test_parents_are_made(guest: Guest, tmp_path: Path) -> None:
    await guest.files.write_file(str(tmp_path / "a/b/c/file"), b"x")
    assert (tmp_path / "a/b/c/file").read_bytes() == b"x"
    assert stat.S_IMODE((tmp_path / "a/b").stat().st_mode) == 0o755


async def test_modes(guest: Guest, tmp_path: Path) -> None:
    path = tmp_path / "f"

    def mode() -> int:
        return stat.S_IMODE(path.stat().st_mode)

    await guest.files.write_file(str(path), b"1")
    assert mode() == 0o644
    await guest.files.write_file(str(path), b"2", mode=0o751)
    assert mode() == 0o751
    await guest.files.write_file(str(path), b"3")
    assert mode() == 0o751, "kept on overwriting"
    path.unlink()
    await guest.files.write_file(str(path), b"4", mode=0)
    assert mode() == 0


@needs_root
async def test_the_owner_of_a_file_is_kept(guest: Guest, tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"old")
    os.chown(path, 1234, 2345)
    path.chmod(0o4750)
    await guest.files.write_file(str(path), b"new")
    now = path.stat()
    assert (now.st_uid, now.st_gid, stat.S_IMODE(now.st_mode)) == (1234, 2345, 0o4750)


async def test_writing_through_a_link_keeps_the_link(guest: Guest, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    real, link = tmp_path / "there" / "real", tmp_path / "link"
    real.write_bytes(b"old")
    link.symlink_to("there/real")
    await guest.files.write_file(str(link), b"new")
    assert link.is_symlink()
    assert real.read_bytes() == b"new"


async def test_writing_through_a_link_to_nothing_makes_what_it_points_to(guest: Guest, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    link = tmp_path / "link"
    link.symlink_to("there/second")
    (tmp_path / "there" / "second").symlink_to("real")
    await guest.files.write_file(str(link), b"new")
    assert link.is_symlink()
    assert (tmp_path / "there" / "second").is_symlink()
    assert (tmp_path / "there" / "real").read_bytes() == b"new"


@pytest.mark.parametrize("size", [300_000, 1_200_000])
async def test_writing_is_atomic_under_readers(guest: Guest, tmp_path: Path, size: int) -> None:
    """Large files are exchanged for the old ones, which then go."""
    path, other = tmp_path / "f", tmp_path / "g"
    versions = [bytes([65 + n]) * size for n in range(4)]
    path.write_bytes(versions[0])
    other.hardlink_to(path)
    seen: set[bytes] = set()
    done = False

    async def look() -> None:
        while not done:
            seen.add(path.read_bytes())
            seen.add(await guest.files.read_file(str(path)))

    watcher = asyncio.create_task(look())
    await asyncio.gather(*(guest.files.write_file(str(path), versions[n % 4]) for n in range(60)))
    done = True
    await watcher
    assert seen <= set(versions)
    assert names(tmp_path) == ["f", "g", "k0"]
    assert other.read_bytes() == versions[0]


async def test_leaving_a_writer_with_an_error_leaves_nothing(guest: Guest, tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"old")
    writer = await guest.files.open_write(str(path))
    await writer.write(b"x" * MIB)
    await writer.__aexit__(KeyError, KeyError(), None)
    assert names(tmp_path) == ["f", "k0"]
    assert path.read_bytes() == b"old"


async def test_commit_and_abort_in_any_order(guest: Guest, tmp_path: Path) -> None:
    writer = await guest.files.open_write(str(tmp_path / "f"))
    await writer.write(b"x")
    await writer.commit()
    await writer.commit()
    await writer.abort()
    assert (tmp_path / "f").read_bytes() == b"x"
    other = await guest.files.open_write(str(tmp_path / "g"))
    await other.abort()
    await other.abort()
    with pytest.raises(errors.SandboxFileError):
        await other.write(b"late")
    assert names(tmp_path) == ["f", "k0"]


async def test_cancelling_a_write_leaves_nothing(guest: Guest, keeper: Keeper, tmp_path: Path) -> None:
    data = bytes(1000 * MIB)  # more than any machine writes in that time; it costs no memory, being zeros that nobody touched
    for pause in (0, 0.001, 0.005, 0.02):
        task = asyncio.create_task(guest.files.write_file(str(tmp_path / "f"), data))
        await asyncio.sleep(pause)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    await guest.files.stat("/")
    await workers_gone(keeper)
    assert names(tmp_path) == ["k0"]


async def test_a_killed_worker_leaves_nothing_and_is_told(guest: Guest, keeper: Keeper, tmp_path: Path) -> None:
    writer = await guest.files.open_write(str(tmp_path / "f"))
    await writer.write(bytes(MIB))
    (worker,) = children(keeper.pid)
    os.kill(worker, 9)
    with pytest.raises(errors.SandboxUnavailableError) as caught:
        await writer.commit()
    assert caught.value.started == "yes"
    assert names(tmp_path) == ["k0"]


# --- what is there ---


async def test_stat_and_list(guest: Guest, tmp_path: Path) -> None:
    folder = tmp_path / "d"
    folder.mkdir()
    (folder / "file").write_bytes(b"12345")
    (folder / "file").chmod(0o640)
    os.utime(folder / "file", ns=(1, 1_700_000_000_250_000_000))
    (folder / "link").symlink_to("file")
    (folder / "lost").symlink_to("nowhere")
    (folder / "sub").mkdir()
    os.mkfifo(folder / "fifo")
    found = {info.name: info for info in await guest.files.list_dir(str(folder))}
    assert list(found) == ["fifo", "file", "link", "lost", "sub"]
    assert {name: info.type for name, info in found.items()} == {
        "fifo": "other",
        "file": "file",
        "link": "symlink",
        "lost": "symlink",
        "sub": "directory",
    }
    assert (found["link"].target, found["file"].size_bytes, found["file"].mode) == ("file", 5, 0o640)
    assert found["file"].modified == 1_700_000_000.25
    assert (found["file"].uid, found["file"].gid) == (os.geteuid(), os.getegid())
    assert (await guest.files.stat(str(folder / "link"))).type == "file"
    assert (await guest.files.stat(str(folder / "link"), follow=False)).type == "symlink"
    with pytest.raises(FileNotFoundError):
        await guest.files.stat(str(folder / "lost"))
    assert (await guest.files.stat(str(folder / "lost"), follow=False)).target == "nowhere"


async def test_a_time_before_the_epoch(guest: Guest, tmp_path: Path) -> None:
    (tmp_path / "old").touch()
    os.utime(tmp_path / "old", ns=(0, -1_500_000_000))
    assert (await guest.files.stat(str(tmp_path / "old"))).modified == -1.5


async def test_a_large_folder_lists_and_goes(guest: Guest, tmp_path: Path) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(1500):
        (folder / f"{number:05}").touch()
    assert [info.name for info in await guest.files.list_dir(str(folder))] == [f"{number:05}" for number in range(1500)]
    await guest.files.remove(str(folder), recursive=True)
    assert not folder.exists()


# --- removing and making ---


async def test_remove_never_follows_links(guest: Guest, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").touch()
    tree = tmp_path / "tree"
    (tree / "deep").mkdir(parents=True)
    (tree / "deep" / "link").symlink_to(kept)
    (tmp_path / "top").symlink_to(kept)
    await guest.files.remove(str(tree), recursive=True)
    await guest.files.remove(str(tmp_path / "top"), recursive=True)
    assert names(tmp_path) == ["k0", "kept"]
    assert names(kept) == ["file"]


async def test_remove_of_one_thing(guest: Guest, tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "f").touch()
    with failing(errno.ENOTEMPTY):
        await guest.files.remove(str(tmp_path / "d"))
    await guest.files.remove(str(tmp_path / "d" / "f"))
    await guest.files.remove(str(tmp_path / "d"))
    assert names(tmp_path) == ["k0"]
    for recursive in (False, True):
        with pytest.raises(FileNotFoundError):
            await guest.files.remove(str(tmp_path / "d"), recursive=recursive)


async def test_a_deep_tree_goes(guest: Guest, tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)
    for _ in range(400):
        os.mkdir("d" * 50, dir_fd=fd)
        inner = os.open("d" * 50, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = inner
    os.close(fd)
    await guest.files.remove(str(tmp_path / ("d" * 50)), recursive=True)
    assert names(tmp_path) == ["k0"]


async def test_make_dir(guest: Guest, tmp_path: Path) -> None:
    await guest.files.make_dir(str(tmp_path / "a/b"), mode=0o2770)
    assert stat.S_IMODE((tmp_path / "a/b").stat().st_mode) == 0o2770
    await guest.files.make_dir(str(tmp_path / "a/b"))
    assert stat.S_IMODE((tmp_path / "a/b").stat().st_mode) == 0o2770
    with pytest.raises(FileExistsError):
        await guest.files.make_dir(str(tmp_path / "a/b"), parents=False)
    with pytest.raises(FileNotFoundError):
        await guest.files.make_dir(str(tmp_path / "x/y"), parents=False)
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError):
        await guest.files.make_dir(str(tmp_path / "file"))
    with pytest.raises(NotADirectoryError):
        await guest.files.make_dir(str(tmp_path / "file/x"))


# --- special files ---


async def test_proc_and_devices(guest: Guest, tmp_path: Path) -> None:
    assert b"MemTotal" in await guest.files.read_file("/proc/meminfo")
    assert await guest.files.read_file("/dev/null") == b""
    await guest.files.write_file("/dev/null", bytes(100_000))
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)  # noqa: PTH116
    with failing(errno.ENOSPC):
        await guest.files.write_file("/dev/full", b"x")


async def test_a_fifo_never_hangs(guest: Guest, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for operation in (guest.files.read_file(str(tmp_path / "fifo")), guest.files.write_file(str(tmp_path / "fifo"), b"x")):
        with pytest.raises(errors.SandboxFileError):
            await asyncio.wait_for(operation, 30)
    assert stat.S_ISFIFO((tmp_path / "fifo").stat().st_mode)


async def test_a_fifo_with_a_reader_takes_all(guest: Guest, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    begun = os.open(tmp_path / "fifo", os.O_RDONLY | os.O_NONBLOCK)  # so that it has a reader from now on
    reading = asyncio.create_task(asyncio.to_thread((tmp_path / "fifo").read_bytes))
    await guest.files.write_file(str(tmp_path / "fifo"), b"y" * 500_000)
    assert await reading == b"y" * 500_000
    os.close(begun)


async def test_a_fifo_whose_reader_stands_still_is_given_up(guest: Guest, keeper: Keeper, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    reader = os.open(tmp_path / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(guest.files.write_file(str(tmp_path / "fifo"), b"y" * 500_000), 0.3)
    await workers_gone(keeper)
    os.close(reader)


async def workers_gone(keeper: Keeper) -> None:
    for _ in range(100):
        if not children(keeper.pid):
            return
        await asyncio.sleep(0.02)
    raise AssertionError(f"still there: {children(keeper.pid)}")


# --- errors ---

ERRORS = [
    ("absent", FileNotFoundError, errno.ENOENT),
    ("dir", IsADirectoryError, errno.EISDIR),
    ("file/below", NotADirectoryError, errno.ENOTDIR),
    ("n" * 256, errors.SandboxFileError, errno.ENAMETOOLONG),
    ("p/" * 2100 + "x", errors.SandboxFileError, errno.ENAMETOOLONG),
    ("loop", errors.SandboxFileError, errno.ELOOP),
]


@pytest.mark.parametrize(("name", "kind", "number"), ERRORS, ids=[os.strerror(item[2]) + str(len(item[0])) for item in ERRORS])
async def test_errors_are_pythons_own(guest: Guest, tmp_path: Path, name: str, kind: type[OSError], number: int) -> None:
    (tmp_path / "dir").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    path = f"{tmp_path}/{name}"
    attempts = [guest.files.read_file(path), guest.files.open_read(path)]
    if number != errno.ENOENT:
        attempts += [guest.files.write_file(path, b"x"), guest.files.open_write(path)]
    for attempt in attempts:
        with pytest.raises(kind) as caught:
            await attempt
        assert isinstance(caught.value, errors.SandboxFileError)
        assert (caught.value.errno, caught.value.filename) == (number, path)
    assert names(tmp_path) == ["dir", "file", "k0", "loop"]


async def test_more_errors(guest: Guest, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        await guest.files.list_dir(str(tmp_path / "file"))
    for path in ("", str(tmp_path / "new") + "/"):
        with pytest.raises(errors.SandboxFileError):
            await guest.files.write_file(path, b"x")
    with pytest.raises(errors.SandboxFileError) as caught:
        await guest.files.read_file("a\0b")
    assert caught.value.errno == errno.EINVAL
    with pytest.raises(errors.SandboxFileError) as caught:
        await guest.files.write_file("/x" * (3 * MIB), b"")
    assert caught.value.errno == errno.ENAMETOOLONG


@needs_root
async def test_another_users_errors_and_files(guest: Guest, tmp_path: Path) -> None:
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    (private / "secret").write_text("s")
    for folder in (tmp_path, tmp_path.parent, tmp_path.parent.parent):
        folder.chmod(0o755)
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared").chmod(0o777)
    (tmp_path / "readonly").write_text("r")
    files, user = guest.files, "65534:65534"
    for attempt in (
        files.read_file(f"{private}/secret", user=user),
        files.write_file(f"{private}/new", b"", user=user),
        files.write_file(f"{tmp_path}/readonly", b"", user=user),
        files.list_dir(str(private), user=user),
        files.remove(f"{tmp_path}/readonly", user=user),
        files.make_dir(f"{private}/d", user=user),
    ):
        with pytest.raises(PermissionError) as caught:
            await attempt
        assert caught.value.errno == errno.EACCES
    await files.write_file(f"{tmp_path}/shared/deep/mine", b"x", user=user)
    mine = (tmp_path / "shared/deep/mine").stat()
    assert (mine.st_uid, mine.st_gid) == (65534, 65534)
    with pytest.raises(errors.SandboxUserUnsupportedError):
        await files.read_file("/etc/hostname", user="no-such-user")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounting("-t", "tmpfs", "-o", "size=1m", "sandboxcore-test", folder)
    yield folder
    unmounting(folder)


@needs_root
async def test_a_full_disk(guest: Guest, small_disk: Path) -> None:
    (small_disk / "f").write_bytes(b"old")
    for data in (bytes(3 * MIB), bytes(20 * MIB)):
        with failing(errno.ENOSPC):
            await guest.files.write_file(str(small_disk / "f"), data)
    writer = await guest.files.open_write(str(small_disk / "g"))
    with failing(errno.ENOSPC):
        for _ in range(40):
            await writer.write(bytes(MIB))
    assert names(small_disk) == ["f"]
    assert (small_disk / "f").read_bytes() == b"old"
    await guest.files.write_file(str(small_disk / "f"), b"fits")
    for _ in range(300):  # the room of a failed write is free again when the failure is told
        with failing(errno.ENOSPC):
            await guest.files.write_file(str(small_disk / "f"), bytes(2 * MIB))
        await guest.files.write_file(str(small_disk / "f"), bytes(MIB // 2))


@needs_root
async def test_a_read_only_disk(guest: Guest, small_disk: Path) -> None:
    (small_disk / "f").write_bytes(b"old")
    mounting("-o", "remount,ro", small_disk)
    for attempt in (
        guest.files.write_file(str(small_disk / "f"), b"x"),
        guest.files.write_file(str(small_disk / "a/b"), b"x"),
        guest.files.remove(str(small_disk / "f")),
        guest.files.make_dir(str(small_disk / "d")),
    ):
        with failing(errno.EROFS):
            await attempt
    assert await guest.files.read_file(str(small_disk / "f")) == b"old"
    await guest.files.make_dir(str(small_disk))


@needs_root
async def test_a_file_that_is_a_mount_point_is_written_in_place(guest: Guest, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(b"old and longer")
    target.touch()
    mounting("--bind", source, target)
    try:
        await guest.files.write_file(str(target), b"new")
        assert source.read_bytes() == b"new"
        assert names(tmp_path) == ["k0", "source", "target"]
    finally:
        unmounting(target)


#: Runs a program under a filter that refuses open() and openat() of unnamed files, as some file systems do.
WITHOUT_TMPFILE = """#!{python} -S
import ctypes, os, struct, sys

def step(code, jt, jf, k):
    return struct.pack('<HBBI', code, jt, jf, k)

TMPFILE = os.O_TMPFILE & ~os.O_DIRECTORY
steps = [
    step(0x20, 0, 0, 0),           # which system call
    step(0x15, 1, 0, {open_}), step(0x15, 2, 5, {openat}),
    step(0x20, 0, 0, 24), step(0x05, 0, 0, 1),  # open: its second argument
    step(0x20, 0, 0, 32),          # openat: its third
    step(0x45, 0, 1, TMPFILE),
    step(0x06, 0, 0, 0x00050000 | 95),          # EOPNOTSUPP
    step(0x06, 0, 0, 0x7FFF0000),
]
code = ctypes.create_string_buffer(b''.join(steps))
program = struct.pack('<HxxxxxxQ', len(steps), ctypes.addressof(code))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, program, 0, 0) == 0, os.strerror(ctypes.get_errno())
os.execv({guest!r}, [{guest!r}, *sys.argv[1:]])
"""


async def test_a_disk_without_unnamed_files(start_keeper: Callable[..., Keeper], guest_program: Path, tmp_path: Path) -> None:
    """A named draft stands in; it goes on every failure that the worker lives to see."""
    if platform.machine() != "x86_64":
        pytest.skip("the filter knows x86_64's system calls only")
    wrapper = tmp_path / "wrapper"
    wrapper.write_text(WITHOUT_TMPFILE.format(python=sys.executable, guest=str(guest_program), open_=2, openat=257))
    wrapper.chmod(0o755)
    guest = Guest(start_keeper(program=wrapper).channel())
    folder = tmp_path / "folder"
    await guest.files.write_file(str(folder / "f"), b"x" * MIB, mode=0o600)
    assert ((folder / "f").stat().st_size, stat.S_IMODE((folder / "f").stat().st_mode)) == (MIB, 0o600)
    writer = await guest.files.open_write(str(folder / "f"))
    await writer.write(b"half")
    assert len(names(folder)) == 2, "the filter works"
    await writer.abort()
    assert names(folder) == ["f"]
    await guest.aclose()
