"""Files: the same bytes, whole or not at all, and Python's own errors (FILE-1 to 7)."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import tracemalloc
from collections.abc import Awaitable, Callable, Iterator
from typing import TYPE_CHECKING

import pytest

from sandboxcore.errors import (
    SandboxError,
    SandboxFileError,
    SandboxFileExistsError,
    SandboxFileNotFoundError,
    SandboxIsADirectoryError,
    SandboxNotADirectoryError,
    SandboxPermissionError,
)

from ._conformance import Conformance, needs, sh, shell_free
from .fixtures import SMALL_DISK, SMALL_DISK_BYTES
from .target import Target

if TYPE_CHECKING:
    from sandboxcore.environment import Sandbox

__all__ = ("FileConformance",)

MIB = 1 << 20
NAMES = [
    "plain",
    "two words",
    "-rf",
    "--help",
    "two\nlines",
    "é漢🐚",
    "'quo\"tes`",
    "$HOME",
    "*",
    "a\\b",
    ".hidden",
    "x" * 200,
    "~",
    "%s%n",
]


class FileConformance(Conformance):
    """Reading, writing, listing and removing."""

    @pytest.mark.parametrize("size", [0, 1, 4095, 4096, 65537, MIB, 5 * MIB + 3])
    async def test_the_same_bytes_come_out(self, sandbox: Sandbox, scratch: str, size: int) -> None:
        """FILE-1."""
        data = _pattern(size)
        await sandbox.write_file(f"{scratch}/file", data)
        seen = await sandbox.exec(sh('wc -c < "$1"; tail -c 3 "$1"', f"{scratch}/file"))
        count, _, tail = seen.stdout.partition(b"\n")
        assert (int(count), tail) == (size, data[-3:])
        assert await sandbox.read_file(f"{scratch}/file") == data

    async def test_what_a_command_wrote_is_read(self, sandbox: Sandbox, scratch: str) -> None:
        """FILE-1: any bytes, also in files that have no size of their own."""
        every = bytes(range(256)) * 3
        await sandbox.exec(sh('cat > "$1/file"', scratch), stdin=every)
        assert await sandbox.read_file(f"{scratch}/file") == every
        assert (await sandbox.read_file("/proc/self/status")).startswith(b"Name:")

    @pytest.mark.parametrize("name", NAMES)
    async def test_any_name_will_do(self, sandbox: Sandbox, scratch: str, name: str) -> None:
        """FILE-1, FILE-7."""
        path = f"{scratch}/{name}"
        await sandbox.write_file(path, name)
        seen = await sandbox.exec(sh('cat "$1"', path))
        assert (seen.stdout, await sandbox.read_file(path)) == (name.encode(), name.encode())
        assert [entry.name for entry in await sandbox.list_dir(scratch)] == [name]
        await sandbox.remove(path)
        assert not await sandbox.exists(path)

    async def test_a_relative_path_starts_where_commands_do(self, sandbox: Sandbox, scratch: str) -> None:
        """FILE-1: at the service's working directory."""
        up = "../" * (await sandbox.exec(["pwd"])).text().strip().strip("/").count("/")
        relative = f"{up}..{scratch}/file" if (await sandbox.exec(["pwd"])).text() != "/\n" else f".{scratch}/file"
        await sandbox.write_file(relative, b"here")
        assert await sandbox.read_file(f"{scratch}/file") == b"here"

    async def test_a_big_file_streams_in_bounded_memory(self, sandbox: Sandbox, scratch: str, target: Target) -> None:
        """FILE-1, FILE-2."""
        piece = _pattern(MIB)
        pieces = target.stream_bytes // MIB
        sent, received = hashlib.sha256(), hashlib.sha256()
        with _growth() as grown:
            async with await sandbox.open_write(f"{scratch}/big") as writer:
                for _ in range(pieces):
                    sent.update(piece)
                    await writer.write(piece)
            seen = await sandbox.exec(sh('wc -c < "$1/big"; sha256sum < "$1/big"', scratch), timeout=target.patience)
            async with await sandbox.open_read(f"{scratch}/big") as reader:
                while data := await reader.read():
                    received.update(data)
        await sandbox.remove(f"{scratch}/big")
        assert seen.text().split()[:2] == [str(pieces * MIB), sent.hexdigest()]
        assert received.hexdigest() == sent.hexdigest()
        assert grown() < 32 * MIB

    async def test_readers_see_the_old_or_the_new(self, sandbox: Sandbox, scratch: str) -> None:
        """FILE-3: never a mixture or a part, whether they read from inside or from outside."""
        path = f"{scratch}/file"
        versions = [bytes([letter]) * (2 * MIB) for letter in b"AB"]
        await sandbox.write_file(path, versions[0])
        loop = 'while [ ! -e "$2" ]; do md5sum < "$1" || echo missing; done | sort -u'
        inside = asyncio.ensure_future(sandbox.exec(sh(loop, path, f"{scratch}/stop")))
        outside = asyncio.ensure_future(_read_often(sandbox, path))
        for number in range(1, 13):
            await sandbox.write_file(path, versions[number % 2])
        outside.cancel()
        await sandbox.write_file(f"{scratch}/stop", b"")
        assert len((await inside).text().splitlines()) <= 2
        assert b"missing" not in (await inside).stdout
        with pytest.raises(asyncio.CancelledError):
            await outside

    @shell_free
    async def test_a_write_that_fails_leaves_the_old_file(self, sandbox: Sandbox, scratch: str) -> None:
        """FILE-3: and nothing beside it."""
        await sandbox.write_file(f"{scratch}/file", b"old")
        with contextlib.suppress(KeyError):
            async with await sandbox.open_write(f"{scratch}/file") as writer:
                await writer.write(b"new" * MIB)
                raise KeyError
        writer = await sandbox.open_write(f"{scratch}/file")
        await writer.write(b"new")
        await writer.abort()
        await writer.abort()
        assert await _everything(sandbox, scratch) == {"file": b"old"}

    @shell_free
    async def test_a_write_that_is_cancelled_leaves_the_old_file(self, sandbox: Sandbox, scratch: str) -> None:
        """FILE-3: or, if the cancelling came too late, the whole new one; and then it stays so."""
        new = b"new" * MIB
        for moment in (0.0, 0.001, 0.002, 0.003, 0.005, 0.01):
            await sandbox.write_file(f"{scratch}/file", b"old")
            task = asyncio.ensure_future(sandbox.write_file(f"{scratch}/file", new))
            await asyncio.sleep(moment)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            at_once = await _everything(sandbox, scratch)
            await asyncio.sleep(0.05)
            assert await _everything(sandbox, scratch) == at_once
            assert at_once in ({"file": b"old"}, {"file": new})

    @shell_free
    async def test_a_write_does_not_appear_before_its_end(self, sandbox: Sandbox, scratch: str) -> None:
        """FILE-3."""
        async with await sandbox.open_write(f"{scratch}/file") as writer:
            await writer.write(bytes(2 * MIB))
            assert not await sandbox.exists(f"{scratch}/file")
        assert (await sandbox.stat(f"{scratch}/file")).size_bytes == 2 * MIB

    @shell_free
    async def test_parents_are_made(self, sandbox: Sandbox, scratch: str) -> None:
        """FILE-4."""
        await sandbox.write_file(f"{scratch}/a/b c/d/file", b"deep")
        assert await sandbox.read_file(f"{scratch}/a/b c/d/file") == b"deep"

    @pytest.mark.parametrize("mode", [0o755, 0o600, 0o640, 0o654, 0o4755])
    async def test_overwriting_keeps_the_mode(self, sandbox: Sandbox, scratch: str, mode: int) -> None:
        """FILE-5: and what the sandbox's user may not write stays as it is."""
        made = await sandbox.exec(sh('echo old > "$1" && chmod "$2" "$1" && test -w "$1"', f"{scratch}/file", f"{mode:o}"))
        if made.exit_code:
            with pytest.raises(PermissionError):
                await sandbox.write_file(f"{scratch}/file", b"new")
            return
        await sandbox.write_file(f"{scratch}/file", b"new")
        assert await _mode(sandbox, f"{scratch}/file") == mode
        assert await sandbox.read_file(f"{scratch}/file") == b"new"

    async def test_a_given_mode_wins(self, sandbox: Sandbox, scratch: str) -> None:
        """FILE-5: for a new file and for an old one; a new one without has 0644, whatever the sandbox's umask."""
        await sandbox.write_file(f"{scratch}/file", b"1")
        modes = [await _mode(sandbox, f"{scratch}/file")]
        for mode in (0o700, 0o622):
            await sandbox.write_file(f"{scratch}/file", b"2", mode=mode)
            modes.append(await _mode(sandbox, f"{scratch}/file"))
        await sandbox.write_file(f"{scratch}/new", b"3", mode=0o666)
        assert [*modes, await _mode(sandbox, f"{scratch}/new")] == [0o644, 0o700, 0o622, 0o666]

    async def test_writing_through_a_link_keeps_the_link(self, sandbox: Sandbox, scratch: str) -> None:
        """FILE-3, FILE-5: what the link points at is written."""
        await sandbox.exec(sh('cd "$1" && echo old > real && ln -s real link', scratch))
        await sandbox.write_file(f"{scratch}/link", b"new")
        assert await sandbox.read_file(f"{scratch}/real") == b"new"
        assert (await sandbox.stat(f"{scratch}/link", follow=False)).type == "symlink"

    @shell_free
    @pytest.mark.parametrize("operation", ["read_file", "open_read", "stat", "list_dir", "remove"])
    async def test_what_is_missing_is_not_found(self, sandbox: Sandbox, scratch: str, operation: str) -> None:
        """FILE-6."""
        path = f"{scratch}/missing"
        with pytest.raises(FileNotFoundError) as caught:
            await getattr(sandbox, operation)(path)
        _is_told(caught.value, SandboxFileNotFoundError, errno.ENOENT, path)
        assert not await sandbox.exists(path)

    @pytest.mark.parametrize("operation", ["read_file", "open_read", "write_file", "open_write"])
    async def test_a_directory_is_no_file(self, sandbox: Sandbox, scratch: str, operation: str) -> None:
        """FILE-6: and nothing appears in or beside it."""
        await sandbox.make_dir(f"{scratch}/dir")
        with pytest.raises(IsADirectoryError) as caught:
            await _do(sandbox, operation, f"{scratch}/dir")
        _is_told(caught.value, SandboxIsADirectoryError, errno.EISDIR, f"{scratch}/dir")
        assert (await sandbox.exec(["find", scratch])).text().split() == [scratch, f"{scratch}/dir"]

    @shell_free
    @pytest.mark.parametrize("operation", ["read_file", "write_file", "list_dir", "stat", "make_dir"])
    async def test_a_file_is_no_directory(self, sandbox: Sandbox, scratch: str, operation: str) -> None:
        """FILE-6."""
        await sandbox.write_file(f"{scratch}/file", b"")
        path = f"{scratch}/file" if operation == "list_dir" else f"{scratch}/file/below"
        with pytest.raises(NotADirectoryError) as caught:
            await _do(sandbox, operation, path)
        _is_told(caught.value, SandboxNotADirectoryError, errno.ENOTDIR, path)

    @shell_free
    async def test_a_directory_where_a_file_is_exists(self, sandbox: Sandbox, scratch: str) -> None:
        """FILE-6."""
        await sandbox.write_file(f"{scratch}/file", b"")
        with pytest.raises(FileExistsError) as caught:
            await sandbox.make_dir(f"{scratch}/file")
        _is_told(caught.value, SandboxFileExistsError, errno.EEXIST, f"{scratch}/file")

    async def test_what_is_not_permitted(self, sandbox: Sandbox) -> None:
        """FILE-6: by a file that the sandbox itself may not read, or by another user's."""
        path = await _forbidden(sandbox)
        with pytest.raises(PermissionError) as caught:
            await sandbox.read_file(path)
        _is_told(caught.value, SandboxPermissionError, caught.value.errno or 0, path)

    @shell_free
    @needs("user")
    async def test_a_user_without_rights_is_not_permitted(self, sandbox: Sandbox, scratch: str) -> None:
        """FILE-6: file operations are done as the user that is named, and so are the files."""
        await sandbox.write_file(f"{scratch}/secret", b"secret", mode=0o600)
        with pytest.raises(PermissionError) as caught:
            await sandbox.read_file(f"{scratch}/secret", user="4711:4712")
        _is_told(caught.value, SandboxPermissionError, errno.EACCES, f"{scratch}/secret")
        await sandbox.write_file(f"{scratch}/mine", b"", user="4711:4712")
        info = await sandbox.stat(f"{scratch}/mine")
        assert (info.uid, info.gid) == (4711, 4712)

    @shell_free
    @needs("volumes")
    async def test_a_full_disk_is_told(self, sandbox: Sandbox) -> None:
        """FILE-3, FILE-6: the old file stays, nothing is left beside it, and there is room again."""
        await sandbox.write_file(f"{SMALL_DISK}/file", b"old")
        with pytest.raises(OSError) as caught:  # noqa: PT011 - its errno is looked at below
            await sandbox.write_file(f"{SMALL_DISK}/file", bytes(2 * SMALL_DISK_BYTES))
        _is_told(caught.value, SandboxFileError, errno.ENOSPC, f"{SMALL_DISK}/file")
        assert await _everything(sandbox, SMALL_DISK) == {"file": b"old"}
        await sandbox.write_file(f"{SMALL_DISK}/file", bytes(SMALL_DISK_BYTES // 2))

    async def test_other_errors_keep_their_number(self, sandbox: Sandbox, scratch: str) -> None:
        """FILE-6."""
        await sandbox.exec(sh('cd "$1" && ln -s loop loop && mkdir full && echo > full/file', scratch))
        operations: list[tuple[Callable[[], Awaitable[object]], int]] = [
            (lambda: sandbox.read_file(f"{scratch}/loop"), errno.ELOOP),
            (lambda: sandbox.remove(f"{scratch}/full"), errno.ENOTEMPTY),
            (lambda: sandbox.read_file(f"{scratch}/{'x' * 300}"), errno.ENAMETOOLONG),
            (lambda: sandbox.write_file(f"{scratch}/{'x' * 300}", b""), errno.ENAMETOOLONG),
        ]
        for operation, number in operations:
            with pytest.raises(SandboxFileError) as caught:
                await operation()
            assert caught.value.errno == number

    async def test_a_listing_is_sorted_and_true(self, sandbox: Sandbox, scratch: str) -> None:
        """FILE-7."""
        await sandbox.exec(
            sh('cd "$1" && echo 12 > b && chmod 640 b && mkdir a && chmod 750 a && ln -s b c && mkfifo d', scratch)
        )
        entries = await sandbox.list_dir(scratch)
        assert [(entry.name, entry.path, entry.type) for entry in entries] == [
            ("a", f"{scratch}/a", "directory"),
            ("b", f"{scratch}/b", "file"),
            ("c", f"{scratch}/c", "symlink"),
            ("d", f"{scratch}/d", "other"),
        ]
        assert (entries[0].mode, entries[1].mode, entries[1].size_bytes, entries[2].target) == (0o750, 0o640, 3, "b")

    async def test_a_large_directory_is_listed_whole(self, sandbox: Sandbox, scratch: str) -> None:
        """FILE-7."""
        await sandbox.exec(
            sh('cd "$1" && i=0; while [ $i -lt 3000 ]; do : > "file-with-a-rather-long-name-$i"; i=$((i+1)); done', scratch)
        )
        names = [entry.name for entry in await sandbox.list_dir(scratch)]
        assert names == sorted(f"file-with-a-rather-long-name-{number}" for number in range(3000))

    async def test_stat_follows_links_or_not(self, sandbox: Sandbox, scratch: str) -> None:
        """FILE-7."""
        await sandbox.exec(sh('cd "$1" && echo 1234 > file && ln -s file link && ln -s nowhere dangling', scratch))
        followed = await sandbox.stat(f"{scratch}/link")
        itself = await sandbox.stat(f"{scratch}/link", follow=False)
        assert (followed.type, followed.size_bytes, itself.type, itself.target) == ("file", 5, "symlink", "file")
        assert (await sandbox.stat(f"{scratch}/dangling", follow=False)).type == "symlink"
        with pytest.raises(FileNotFoundError):
            await sandbox.stat(f"{scratch}/dangling")
        seen = (await sandbox.exec(["stat", "-c", "%u %g %Y", f"{scratch}/file"])).text().split()
        assert [followed.uid, followed.gid, int(followed.modified)] == [int(word) for word in seen]

    async def test_remove_never_follows_a_link(self, sandbox: Sandbox, scratch: str) -> None:
        """FILE-7."""
        await sandbox.exec(
            sh('cd "$1" && mkdir -p keep tree/sub && echo kept > keep/file && ln -s ../keep tree/link && ln -s keep top', scratch)
        )
        await sandbox.remove(f"{scratch}/tree", recursive=True)
        await sandbox.remove(f"{scratch}/top", recursive=True)
        assert (await sandbox.exec(sh('cd "$1" && find . | sort', scratch))).text().split() == [".", "./keep", "./keep/file"]

    @shell_free
    async def test_directories_are_made_and_removed(self, sandbox: Sandbox, scratch: str) -> None:
        """FILE-7: with their parents; one that is there already is no error."""
        for _ in range(2):
            await sandbox.make_dir(f"{scratch}/a/b")
        assert (await sandbox.stat(f"{scratch}/a/b")).type == "directory"
        await sandbox.remove(f"{scratch}/a/b")
        assert list(await sandbox.list_dir(f"{scratch}/a")) == []


async def _do(sandbox: Sandbox, operation: str, path: str) -> None:
    if operation == "open_write":
        async with await sandbox.open_write(path) as writer:
            await writer.write(b"data")
    elif operation == "write_file":
        await sandbox.write_file(path, b"data")
    else:
        await getattr(sandbox, operation)(path)


def _pattern(size: int) -> bytes:
    """Make bytes that differ from block to block, so that a swap or a repetition shows."""
    blocks = -(-size // 32)
    return b"".join(hashlib.sha256(number.to_bytes(8, "little")).digest() for number in range(blocks))[:size]


@contextlib.contextmanager
def _growth() -> Iterator[Callable[[], int]]:
    """Yield what tells by how many bytes Python's memory grew at most in the block.

    Not the size of the process: what earlier tests freed and the allocator kept takes in tens of MiB without a sign.
    """
    peak = 0
    tracing = tracemalloc.is_tracing()
    if not tracing:
        tracemalloc.start()
    tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0]
    try:
        yield lambda: peak - before
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        if not tracing:
            tracemalloc.stop()


def _is_told(error: BaseException, kind: type[OSError], number: int, path: str) -> None:
    assert isinstance(error, kind)
    assert isinstance(error, SandboxError)
    assert number > 0
    assert (error.errno, error.filename) == (number, path)


async def _read_often(sandbox: Sandbox, path: str) -> None:
    while True:
        data = await sandbox.read_file(path)
        assert (len(data), len(set(data))) == (2 * MIB, 1)


async def _everything(sandbox: Sandbox, directory: str) -> dict[str, bytes]:
    return {entry.name: await sandbox.read_file(entry.path) for entry in await sandbox.list_dir(directory)}


async def _mode(sandbox: Sandbox, path: str) -> int:
    return int((await sandbox.exec(["stat", "-c", "%a", path])).text(), 8)


async def _forbidden(sandbox: Sandbox) -> str:
    """Find a file that the sandbox's own user may not open."""
    for path in ("/proc/kmsg", "/proc/1/mem", "/etc/shadow", "/proc/kcore", "/dev/kmsg"):
        tried = await sandbox.exec(sh('exec 2>&1; head -c 0 "$1"', path), timeout=5)
        if any(words in tried.stdout for words in (b"denied", b"not permitted")):
            return path
    return pytest.skip("this sandbox may open everything")
