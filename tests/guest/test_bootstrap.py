"""The way in: whatever shell and tools an image has, wherever it can be written, and one keeper however many come."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import resource
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import trees
from keepers import in_time, until
from trees import MACHINE, PROC, Tree

from sandboxcore import errors
from sandboxcore.guest import Guest, guest_binary
from sandboxcore.guest._process import ProcessChannel
from sandboxcore.values import ExecRequest, ExecResult

why_not = functools.cache(trees.why_not)

MakeTree = Callable[..., Tree]
SHELL = ("--symlink", "usr/bin", "/bin")
TMP = ("--tmpfs", "/tmp")
#: What the way in may use, besides the shell.
TOOLS = ("id", "uname", "chmod", "mv", "mkdir", "rm", "cat")


@pytest.fixture
def make_tree() -> Iterator[MakeTree]:
    if reason := why_not():
        if os.environ.get("CI"):
            pytest.fail(f"no small sandbox can be made, and in CI it must: {reason}", pytrace=False)
        pytest.skip(f"no small sandbox can be made: {reason}")
    with contextlib.ExitStack() as stack:
        yield lambda *arguments: stack.enter_context(trees.tree(*arguments))


@contextlib.asynccontextmanager
async def entering(channel: ProcessChannel) -> AsyncIterator[Guest]:
    guest = Guest(channel)
    try:
        await asyncio.wait_for(guest.connect(), 30)
        yield guest
    finally:
        await guest.aclose()


async def say(guest: Guest, *argv: str) -> ExecResult:
    return await asyncio.wait_for(guest.executor.exec(ExecRequest(argv=argv)), 20)


async def works(guest: Guest) -> None:
    result = await asyncio.wait_for(guest.executor.exec(ExecRequest(argv=["cat"], stdin=b"\0\xff\n")), 20)
    assert (result.exit_code, result.stdout) == (0, b"\0\xff\n")


def tools(*names: str) -> list[str]:
    """Bind single programs of this machine into /bin."""
    words: list[str] = []
    for name in names:
        path = shutil.which(name, path="/usr/bin:/bin")
        assert path is not None
        words += ["--ro-bind", str(Path(path).resolve()), f"/bin/{name}"]
    return words


def libraries() -> list[str]:
    words: list[str] = []
    for folder in ("/usr/lib", "/usr/lib64", "/lib", "/lib64"):
        path = Path(folder)
        if path.is_symlink():
            words += ["--symlink", str(path.readlink()), folder]
        elif path.is_dir():
            words += ["--ro-bind", folder, folder]
    return words


# --- shells and tools ---


@pytest.mark.parametrize("shell", ["dash", "bash"])
async def test_shells(make_tree: MakeTree, shell: str) -> None:
    path = shutil.which(shell)
    if path is None:
        pytest.skip(f"this machine has no {shell}")
    tree = make_tree(*libraries(), *PROC, *TMP, *tools(*TOOLS, "head"), "--ro-bind", path, "/bin/sh")
    async with entering(tree.channel()) as guest:
        await works(guest)


@pytest.mark.parametrize(
    ("container", "given", "wanted"),
    [
        ((50, 100), (100, 100), "50 100"),  # runc let its own runtime's raise through
        ((50, 100), (99, 100), "50 100"),
        ((50, 100), (60, 100), "60 100"),
        ((50, 200), (100, 100), "100 100"),
        ((100, 100), (100, 100), "100 100"),
    ],
)
async def test_commands_have_the_containers_descriptor_limit(
    make_tree: MakeTree, container: tuple[int, int], given: tuple[int, int], wanted: str
) -> None:
    tree = make_tree(*MACHINE, *PROC, *TMP, *SHELL)
    # Its first process, a guest that waits, raises its own limit and then makes its loop's descriptor.
    assert await until(lambda: "anon_inode:[eventpoll]" in tree.descriptors(), 30)
    resource.prlimit(tree.pid, resource.RLIMIT_NOFILE, container)
    limited = ("/bin/sh", "-c", f'ulimit -Sn {given[0]}; ulimit -Hn {given[1]}; exec "$@"', "sh")
    async with entering(tree.channel(before=limited)) as guest:
        assert (await say(guest, "/bin/sh", "-c", "echo $(ulimit -Sn; ulimit -Hn)")).text() == wanted + "\n"


def busybox(*applets: str) -> list[str]:
    path = shutil.which("busybox")
    if path is None:
        pytest.skip("this machine has no busybox (a static one is in the package busybox-static)")
    words = ["--perms", "0755", "--dir", "/bin", "--ro-bind", path, "/bin/busybox"]
    for applet in applets:
        words += ["--symlink", "busybox", f"/bin/{applet}"]
    return words


@pytest.mark.parametrize("reads_with", ["head", "dd"])
async def test_busybox(make_tree: MakeTree, reads_with: str) -> None:
    tree = make_tree(*libraries(), *busybox("sh", *TOOLS, reads_with), *PROC, *TMP)
    async with entering(tree.channel()) as guest:
        await works(guest)


async def test_without_head_there_is_dd(make_tree: MakeTree) -> None:
    tree = make_tree(*libraries(), *PROC, *TMP, *tools("dash", "dd", *TOOLS), "--symlink", "dash", "/bin/sh")
    async with entering(tree.channel()) as guest:
        await works(guest)
        assert (await say(guest, "head")).exit_code == 127


async def test_a_path_of_the_image_that_leads_nowhere(make_tree: MakeTree) -> None:
    tree = make_tree(*MACHINE, *SHELL, *PROC, *TMP)
    async with entering(tree.channel(path="/nowhere")) as guest:
        assert (await say(guest, "/usr/bin/env")).stdout.splitlines().count(b"PATH=/nowhere") == 1


@pytest.mark.parametrize(
    "noise",
    ["echo Welcome; echo; echo 'SANDBOXCORE is a word'", "printf 'no newline'", "head -c 60000 /dev/zero | tr '\\0' 'x'; echo"],
)
async def test_what_a_login_says_first_is_passed_over(make_tree: MakeTree, noise: str) -> None:
    tree = make_tree(*MACHINE, *SHELL, *PROC, *TMP)
    for _ in range(2):  # with the program sent, and with it found
        async with entering(tree.channel(before=("/bin/sh", "-c", f'{noise}; exec "$@"', "sh"))) as guest:
            await works(guest)


async def test_no_trace_of_the_way_in_is_in_the_environment(make_tree: MakeTree) -> None:
    tree = make_tree(*MACHINE, *SHELL, *PROC, *TMP)
    async with entering(tree.channel()) as guest:
        found = sorted((await say(guest, "/usr/bin/env")).stdout.splitlines())
        assert found == [b"HOME=/root", b"PATH=/usr/bin:/bin"]


# --- places ---


def without_programs(tree: Tree, folder: str) -> None:
    """Let nothing be run from a folder of a tree, as /dev/shm is everywhere."""
    if os.geteuid() != 0:
        pytest.skip("needs root: to mount a folder noexec")
    tree.run("/usr/bin/mount", "-o", "remount,noexec", folder)


async def test_a_folder_that_runs_no_programs_is_passed_over(make_tree: MakeTree) -> None:
    tree = make_tree(*MACHINE, *SHELL, *PROC, *TMP, "--tmpfs", "/var/tmp")
    without_programs(tree, "/tmp")
    for _ in range(2):
        async with entering(tree.channel()) as guest:
            await works(guest)
    assert list(tree.root("/var/tmp").glob(".sandboxcore-*/guest-*"))
    assert len(tree.keepers()) == 1


async def test_only_folders_without_programs_is_an_error_that_says_so(make_tree: MakeTree) -> None:
    tree = make_tree(*MACHINE, *SHELL, *PROC, *TMP, "--remount-ro", "/")
    without_programs(tree, "/tmp")
    with pytest.raises(errors.GuestUnavailableError) as caught:
        async with entering(tree.channel()):
            pass
    assert "/tmp/.sandboxcore-0: can't run programs" in str(caught.value)
    assert "/var/tmp/" in str(caught.value)
    assert caught.value.started == "no"
    assert caught.value.hint


async def test_nothing_writable_is_an_error_that_says_what_was_tried(make_tree: MakeTree) -> None:
    tree = make_tree(*MACHINE, *SHELL, *PROC, "--remount-ro", "/")
    with pytest.raises(errors.GuestUnavailableError) as caught:
        async with entering(tree.channel()):
            pass
    for folder in ("/tmp", "/var/tmp", "/run", "/root"):
        assert f"{folder}/.sandboxcore" in str(caught.value)


async def test_no_shell_is_an_error_that_says_what_to_do(make_tree: MakeTree) -> None:
    tree = make_tree(*PROC, *TMP)
    with pytest.raises(errors.SandboxUnavailableError) as caught:
        async with entering(tree.channel()):
            pass
    assert caught.value.started == "no"
    assert "sh" in (caught.value.hint or "")


async def test_a_mounted_guest_needs_no_shell_and_one_writable_folder(make_tree: MakeTree) -> None:
    tree = make_tree("--ro-bind", str(guest_binary()), "/guest", *PROC, "--tmpfs", "/dev/shm", "--remount-ro", "/")
    for _ in range(2):
        async with entering(tree.channel(guest_path="/guest")) as guest:
            result = await say(guest, "/guest", "version")
            assert (result.exit_code, result.stdout) == (0, b"1\n")
            await guest.files.write_file("/dev/shm/f", b"x" * 100_000)
            assert len(await guest.files.read_file("/dev/shm/f")) == 100_000
            with pytest.raises(errors.SandboxFileError):
                await guest.files.write_file("/f", b"")
    assert len(tree.keepers()) == 1


async def test_a_mounted_guest_without_any_writable_folder(make_tree: MakeTree) -> None:
    tree = make_tree("--ro-bind", str(guest_binary()), "/guest", "--proc", "/proc", "--remount-ro", "/")
    with pytest.raises(errors.GuestUnavailableError):
        async with entering(tree.channel(guest_path="/guest")):
            pass


@pytest.mark.parametrize("user", ["", "1234:1234"])
async def test_without_proc_trees_are_killed_and_files_written(make_tree: MakeTree, user: str) -> None:
    shell = busybox("sh", "sleep", "setsid", "cat", *TOOLS, "head")
    tree = make_tree(*shell, *TMP, "--dev", "/dev", "--chmod", "0777", "/tmp")
    line = "for n in 1 2 3; do (setsid sleep 60 &) ; done; sleep 60"
    async with entering(tree.channel()) as guest:
        await works(guest)
        request = ExecRequest(argv=["/bin/sh", "-c", line], timeout=0.4, user=user or None)

        def nothing_is_left() -> None:
            assert [words for words in tree.commands().values() if b"sleep" in words] == []

        await in_time(guest, request, nothing_is_left)
        await guest.files.write_file("/tmp/f", b"without /proc", user=user or None)
        assert await guest.files.read_file("/tmp/f") == b"without /proc"
        assert sorted(info.name for info in await guest.files.list_dir("/tmp") if not info.name.startswith(".sandbox")) == ["f"]


# --- one keeper ---


async def test_a_second_relay_finds_the_firsts_keeper(make_tree: MakeTree) -> None:
    tree = make_tree(*MACHINE, *SHELL, *PROC, *TMP)
    async with entering(tree.channel()) as first, entering(tree.channel()) as second:
        assert first.connection._boot_id == second.connection._boot_id
        await asyncio.gather(works(first), works(second))
    assert len(tree.keepers()) == 1


async def test_relays_at_once_start_one_keeper(make_tree: MakeTree) -> None:
    tree = make_tree(*MACHINE, *SHELL, *PROC, *TMP)
    for number in range(20):
        if number % 5 == 0:  # also with the program not there yet
            tree.run("/bin/sh", "-c", "rm -rf /tmp/.sandboxcore-*")
        async with entering_all(tree, 2) as guests:
            assert len({guest.connection._boot_id for guest in guests}) == 1
        assert len(tree.keepers()) == 1
        tree.clear()


@contextlib.asynccontextmanager
async def entering_all(tree: Tree, count: int) -> AsyncIterator[list[Guest]]:
    guests = [Guest(tree.channel()) for _ in range(count)]
    try:
        await asyncio.gather(*(asyncio.wait_for(guest.connect(), 30) for guest in guests))
        yield guests
    finally:
        await asyncio.gather(*(guest.aclose() for guest in guests))


async def test_the_keeper_and_its_commands_outlive_the_exec(make_tree: MakeTree) -> None:
    tree = make_tree(*MACHINE, *SHELL, *PROC, *TMP)
    async with entering(tree.channel()) as guest:
        boot_id = guest.connection._boot_id
        line = "echo ran >> /tmp/count; sleep 0.5; echo done"
        task = asyncio.create_task(guest.executor.exec(ExecRequest(argv=["/bin/sh", "-c", line])))
        await asyncio.sleep(0.2)
        guest.connection.cut()
        assert (await asyncio.wait_for(task, 20)).stdout == b"done\n"
        assert guest.connection._boot_id == boot_id
    assert tree.root("/tmp/count").read_text() == "ran\n"
    await asyncio.sleep(0.1)
    assert len(tree.keepers()) == 1, "the keeper stays, for whoever comes next"
    async with entering(tree.channel()) as other:
        assert other.connection._boot_id == boot_id


async def test_a_keeper_that_was_killed_is_replaced(make_tree: MakeTree) -> None:
    tree = make_tree(*MACHINE, *SHELL, *PROC, *TMP)
    async with entering(tree.channel()) as guest:
        before = guest.connection._boot_id
        tree.clear()
        # A command on the link that is breaking would be an honest unknown.
        assert await until(lambda: not guest.connection.connected, 30)
        await works(guest)
        assert guest.connection._boot_id != before
    assert len(tree.keepers()) == 1


async def test_a_relay_ends_with_its_stream(make_tree: MakeTree) -> None:
    tree = make_tree(*MACHINE, *SHELL, *PROC, *TMP)
    async with entering(tree.channel()):
        assert len(tree.inside()) == 2
    for _ in range(100):
        if len(tree.inside()) == 1:
            break
        await asyncio.sleep(0.02)
    assert tree.inside() == tree.keepers()


async def test_through_the_machines_own_shell(shell_guest: Guest) -> None:
    """No sandbox at all, for machines on which none can be made. Its keeper is shared by all who come that way."""
    result = await say(shell_guest, "/bin/echo", "hello")
    assert result.stdout == b"hello\n"
