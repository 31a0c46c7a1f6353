"""Random operations on one sandbox, against a model of what the contract says that it holds."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from sandboxcore import Session
from sandboxcore.environment import Sandbox
from sandboxcore.errors import ExecTimeoutError, OutputLimitExceededError, SandboxFileNotFoundError
from sandboxcore.plugins import PluginHost
from sandboxcore.process import Process
from sandboxcore.testing import LinkCutter

T = TypeVar("T")

NAMES = st.sampled_from(["a", "b c", "-d", "é", "deep/er/e"])
SIZES = st.sampled_from([0, 1, 4096, 70_001, 1_000_003])
MOMENTS = st.sampled_from([0.0, 0.001, 0.003, 0.01, 0.03, 0.1])
FOLDER = "/tmp/soak"
HEART = 'while :; do echo x >> "$0"; sleep 0.05; done'


def content(seed: int, size: int) -> bytes:
    """Make bytes that tell of what and how many they are."""
    return (hashlib.sha512(f"{seed} {size}".encode()).digest() * (size // 64 + 1))[:size]


class SandboxMachine(RuleBasedStateMachine):
    """Every rule is an operation, with what must be seen of it; ``state`` is set before the machine is run."""

    state: Path

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.files: dict[str, bytes] = {}
        self.dead_hearts: list[str] = []
        self.number = 0
        self.cat: Process | None = None
        self.cat_input = b""

    def run(self, operation: Coroutine[Any, Any, T]) -> T:
        async def bounded() -> T:
            async with asyncio.timeout(30):
                return await operation

        return self.loop.run_until_complete(bounded())

    def sh(self, script: str, *words: str, **options: Any) -> Coroutine[Any, Any, Any]:
        return self.sandbox.exec(["/bin/sh", "-c", script, "sh", *words], **options)

    def next(self) -> str:
        self.number += 1
        return f"{FOLDER}-{self.number}"

    @initialize()
    def begin(self) -> None:
        self.cutter = LinkCutter()
        host = PluginHost.load(entry_points=False, extra=[self.cutter])
        self.session = Session("local", config={"state_dir": str(self.state)}, plugins=host)
        self.run(self.session.__aenter__())
        self.sandbox: Sandbox = self.run(self.session.provision()).default
        self.run(self.sandbox.make_dir(FOLDER))

    @rule(size=SIZES, status=st.integers(0, 255))
    def command(self, size: int, status: int) -> None:
        data = content(self.number, size)
        result = self.run(self.sh(f"cat; cat >&2 /dev/null; exit {status}", stdin=data))
        assert (result.exit_code, result.stdout, result.stderr) == (status, data, b"")

    @rule(count=st.integers(2, 20), moment=MOMENTS)
    def many_commands_and_a_cut(self, count: int, moment: float) -> None:
        async def all_at_once() -> list[Any]:
            tasks = [asyncio.ensure_future(self.sh('echo run >> "$1"; echo "$2"', path, str(n))) for n in range(count)]
            await asyncio.sleep(moment)
            self.cutter.cut()
            return await asyncio.gather(*tasks)

        path = self.next()
        results = self.run(all_at_once())
        assert [result.stdout for result in results] == [b"%d\n" % n for n in range(count)]
        assert self.run(self.sandbox.read_file(path)) == b"run\n" * count

    @rule(name=NAMES, size=SIZES, seed=st.integers(0, 1000))
    def write(self, name: str, size: int, seed: int) -> None:
        self.files[name] = content(seed, size)
        self.run(self.sandbox.write_file(f"{FOLDER}/{name}", self.files[name]))

    @rule(name=NAMES, seed=st.integers(0, 1000), moment=MOMENTS, cut=st.booleans())
    def disturbed_write(self, name: str, seed: int, moment: float, cut: bool) -> None:
        async def write() -> BaseException | None:
            task = asyncio.ensure_future(self.sandbox.write_file(f"{FOLDER}/{name}", new))
            await asyncio.sleep(moment)
            if cut:
                self.cutter.cut()
            else:
                task.cancel()
            return (await asyncio.gather(task, return_exceptions=True))[0]

        new = content(seed, 1_000_003)
        outcome = self.run(write())
        if outcome is None:
            self.files[name] = new
        seen = self.run(self.seen(name))
        assert seen in (self.files.get(name), new)
        if seen is not None:
            self.files[name] = seen

    @rule(name=NAMES)
    def read(self, name: str) -> None:
        assert self.run(self.seen(name)) == self.files.get(name)

    async def seen(self, name: str) -> bytes | None:
        try:
            return await self.sandbox.read_file(f"{FOLDER}/{name}")
        except SandboxFileNotFoundError:
            return None

    @rule(name=NAMES)
    def remove(self, name: str) -> None:
        if self.files.pop(name, None) is not None:
            self.run(self.sandbox.remove(f"{FOLDER}/{name}"))

    @rule()
    def listing(self) -> None:
        found = self.run(self.sh('cd "$1" && find . -type f | sort', FOLDER, env={"LC_ALL": "C"})).text().splitlines()
        assert sorted(found) == sorted(f"./{name}" for name in self.files)
        plain = sorted(name for name in self.files if "/" not in name)
        assert [info.name for info in self.run(self.sandbox.list_dir(FOLDER)) if info.type == "file"] == plain

    @rule(moment=MOMENTS, cut=st.booleans())
    def cancelled(self, moment: float, cut: bool) -> None:
        async def cancel() -> None:
            task = asyncio.ensure_future(self.sh(f"setsid sh -c '{HEART}' \"$1\" & wait", heart))
            await asyncio.sleep(moment)
            if cut:
                self.cutter.cut()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert task.cancelled()

        heart = self.next()
        self.run(cancel())
        self.dead_hearts.append(heart)

    @rule(timeout=st.sampled_from([0.05, 0.2]), how=st.sampled_from(["timeout", "limit", "kill"]))
    def killed(self, timeout: float, how: str) -> None:
        heart = self.next()
        self.run(self.die(heart, timeout, how))
        self.dead_hearts.append(heart)

    async def die(self, heart: str, timeout: float, how: str) -> None:
        background = f"setsid sh -c '{HEART}' \"$1\" & "
        if how == "timeout":
            with pytest.raises(ExecTimeoutError):
                await self.sh(background + "sleep 60", heart, timeout=timeout)
        elif how == "limit":
            with pytest.raises(OutputLimitExceededError) as caught:
                await self.sh(background + "while :; do printf 0123456789; done", heart, output_limit_bytes=100)
            assert caught.value.result is not None
            assert caught.value.result.stdout == b"0123456789" * 10
        else:
            argv = ["/bin/sh", "-c", background + "wait", "sh", heart]
            async with self.sandbox.start(argv) as process:
                await asyncio.sleep(timeout)
                await process.kill()
                assert (await process.wait()).exit_code == 137

    @precondition(lambda self: self.cat is None)
    @rule()
    def open_cat(self) -> None:
        self.starting = self.sandbox.start(["cat"])
        self.cat = self.run(self.starting.__aenter__())
        self.cat_input = b""

    @precondition(lambda self: self.cat is not None)
    @rule(size=st.sampled_from([0, 10, 50_000]), cut=st.booleans())
    def feed_cat(self, size: int, cut: bool) -> None:
        assert self.cat is not None
        if len(self.cat_input) + size <= 60_000:  # what pipes and credit hold, since nobody reads yet
            self.cat_input += content(self.number, size)
            self.run(self.cat.stdin.write(content(self.number, size)))
        if cut:
            self.cutter.cut()

    @precondition(lambda self: self.cat is not None)
    @rule()
    def end_cat(self) -> None:
        assert self.cat is not None
        result = self.run(self.cat.communicate())
        assert (result.exit_code, result.stdout) == (0, self.cat_input)
        self.run(self.starting.__aexit__(None, None, None))
        self.cat = None

    @rule()
    def cut(self) -> None:
        self.cutter.cut()

    @invariant()
    def nothing_half_written(self) -> None:
        if hasattr(self, "sandbox") and self.number % 5 == 0:
            found = self.run(self.sh('ls -A "$1"', FOLDER)).text().splitlines()
            assert set(found) <= {name.split("/")[0] for name in self.files} | {"deep"}

    def teardown(self) -> None:
        try:
            if hasattr(self, "sandbox"):
                self.run(self.the_dead_are_dead())
                if self.cat is not None:
                    self.run(self.starting.__aexit__(None, None, None))
            if hasattr(self, "session"):
                self.run(self.session.__aexit__(None, None, None))
        finally:
            self.loop.run_until_complete(self.loop.shutdown_asyncgens())
            self.loop.close()

    async def the_dead_are_dead(self) -> None:
        count = 'for f; do [ ! -e "$f" ] || wc -c < "$f"; done'
        deadline = self.loop.time() + 10  # a kill that had to wait for the next link may come a moment after the first count
        while True:
            before = (await self.sh(count, *self.dead_hearts)).stdout
            await asyncio.sleep(0.2 if self.dead_hearts else 0)
            after = (await self.sh(count, *self.dead_hearts)).stdout
            if after == before:
                break
            assert self.loop.time() < deadline, (before, after)
