"""Frames both ways, on paper: round trips of what is valid, and one kind of error for all that is not."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import struct
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sandboxcore.guest import protocol
from sandboxcore.guest.link import Link
from sandboxcore.guest.protocol import End, FileOp, FrameType, Phase, ProtocolError, Why
from sandboxcore.values import ExecRequest

u8, u16, u32, u64 = (st.integers(0, 2**bits - 1) for bits in (8, 16, 32, 64))
i32 = st.integers(-(2**31), 2**31 - 1)
#: What argv and paths may hold: any bytes but NUL, as Python spells them.
text = st.binary(max_size=40).map(lambda data: os.fsdecode(data.replace(b"\0", b"")))
names = text.filter(lambda name: bool(name) and "=" not in name)

brief = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


class Reader:
    """A second opinion on the wire, written after guest.h."""

    def __init__(self, frame: bytes) -> None:
        length, self.type, self.id = struct.unpack_from("<IBI", frame)
        assert length == len(frame) - 4
        self.rest = frame[9:]

    def take(self, shape: str) -> Any:
        (value,) = struct.unpack_from("<" + shape, self.rest)
        self.rest = self.rest[struct.calcsize("<" + shape) :]
        return value

    def string(self) -> str:
        length = self.take("I")
        data, self.rest = self.rest[:length], self.rest[length:]
        assert len(data) == length
        assert self.take("B") == 0
        return os.fsdecode(data)

    def strings(self) -> list[str]:
        return [self.string() for _ in range(self.take("I"))]

    def done(self) -> bool:
        return not self.rest


# --- client to guest ---


@brief
@given(st.binary(min_size=16, max_size=16), u32, u32, st.lists(st.tuples(u32, u64, u64), max_size=5))
def test_hello(client_id: bytes, generation: int, lease: int, resume: list[tuple[int, int, int]]) -> None:
    frame = Reader(protocol.hello(client_id, generation, lease, resume))
    assert (frame.type, frame.id, frame.take("B")) == (FrameType.HELLO, 0, protocol.VERSION)
    assert (frame.take("16s"), frame.take("I"), frame.take("I")) == (client_id, generation, lease)
    assert [(frame.take("I"), frame.take("Q"), frame.take("Q")) for _ in range(frame.take("I"))] == resume
    assert frame.done()


@brief
@given(
    command_id=u32,
    stdin=st.booleans(),
    argv=st.lists(text, min_size=1, max_size=4),
    env=st.dictionaries(names, text, max_size=3),
    cwd=st.none() | text,
    user=st.none() | text,
    timeout=st.none() | st.floats(0.0001, 1e9),
    limit=st.none() | u64.filter(bool),
    pty=st.booleans(),
    size=st.tuples(u16, u16),
)
def test_spawn(command_id: int, stdin: bool, **fields: Any) -> None:
    request = ExecRequest(
        argv=fields["argv"],
        env=fields["env"],
        cwd=fields["cwd"],
        user=fields["user"],
        timeout=fields["timeout"],
        output_limit_bytes=fields["limit"],
        pty=fields["pty"],
        terminal_size=fields["size"],
    )
    frame = Reader(protocol.spawn(command_id, request, stdin=stdin))
    assert (frame.type, frame.id) == (FrameType.SPAWN, command_id)
    assert frame.take("B") == request.pty | stdin << 1
    milliseconds = frame.take("I")
    assert (milliseconds == 0) == (request.timeout is None), "a tiny timeout must not become none"
    if request.timeout is not None and 0.001 < request.timeout < 4e6:
        assert abs(milliseconds - request.timeout * 1000) <= 0.5
    assert frame.take("Q") == frame.take("Q") == (request.output_limit_bytes or 0)
    assert (frame.take("H"), frame.take("H")) == request.terminal_size
    assert (frame.string(), frame.string()) == (request.user or "", request.cwd or "")
    assert frame.strings() == list(request.argv)
    assert frame.strings() == [f"{name}={value}" for name, value in request.env.items()]
    assert frame.done()


@brief
@given(u32, st.sampled_from(FileOp), text, st.booleans(), i32, u64, text)
def test_file(command_id: int, op: FileOp, path: str, flag: bool, mode: int, offset: int, user: str) -> None:
    frame = Reader(protocol.file(command_id, op, path, flag=flag, mode=mode, offset=offset, user=user))
    assert (frame.type, frame.id) == (FrameType.FILE, command_id)
    assert (frame.take("B"), frame.take("B"), frame.take("i"), frame.take("Q")) == (op, flag, mode, offset)
    assert (frame.string(), frame.string()) == (user, path)
    assert frame.done()


@brief
@given(u32, u64, st.binary(max_size=300))
def test_stdin_and_its_end(command_id: int, offset: int, data: bytes) -> None:
    frame = Reader(protocol.stdin(command_id, offset, memoryview(data)))
    assert (frame.type, frame.id, frame.take("Q"), frame.rest) == (FrameType.STDIN, command_id, offset, data)
    end = Reader(protocol.stdin_eof(command_id, offset))
    assert (end.type, end.id, end.take("Q")) == (FrameType.STDIN_EOF, command_id, offset)
    assert end.done()


@brief
@given(u32, st.integers(0, 1), u64, i32, st.booleans(), u16, u16)
def test_small_frames(command_id: int, stream: int, offset: int, number: int, tree: bool, columns: int, rows: int) -> None:
    ack = Reader(protocol.ack(command_id, stream, offset))
    assert (ack.type, ack.id, ack.take("B"), ack.take("Q")) == (FrameType.ACK, command_id, stream, offset)
    exit_ack = Reader(protocol.exit_ack(command_id))
    assert (exit_ack.type, exit_ack.id) == (FrameType.EXIT_ACK, command_id)
    signal = Reader(protocol.signal(command_id, number, tree=tree))
    assert (signal.type, signal.id, signal.take("i"), signal.take("B")) == (FrameType.SIGNAL, command_id, number, tree)
    resize = Reader(protocol.resize(command_id, columns, rows))
    assert (resize.type, resize.id, resize.take("H"), resize.take("H")) == (FrameType.RESIZE, command_id, columns, rows)
    ping = Reader(protocol.ping(offset))
    assert (ping.type, ping.id, ping.take("Q")) == (FrameType.PING, 0, offset)
    assert all(frame.done() for frame in (ack, exit_ack, signal, resize, ping))


# --- guest to client ---


@brief
@given(u8, st.binary(min_size=16, max_size=16), u32, u32, u32, st.dictionaries(u32, u64, max_size=5))
def test_welcome(version: int, boot_id: bytes, uid: int, pid: int, highest: int, known: dict[int, int]) -> None:
    payload = struct.pack("<B16sIIII", version, boot_id, uid, pid, highest, len(known))
    payload += b"".join(struct.pack("<IQ", *item) for item in known.items())
    assert protocol.parse_welcome(payload) == protocol.Welcome(version, boot_id, uid, pid, highest, known)


@brief
@given(st.booleans(), st.sampled_from(Why), st.integers(0, 255), u32, u64, u64, st.integers(0, 10**12), st.integers(0, 10**9))
def test_exit(signaled: bool, why: Why, value: int, unkillable: int, out: int, err: int, micro: int, rss: int) -> None:
    payload = struct.pack("<BBiIQQQQQ", signaled, why, value, unkillable, out, err, micro, micro, rss)
    end, totals = protocol.parse_exit(payload)
    assert totals == (out, err)
    assert (end.why, end.phase, end.errno, end.unkillable) == (why, 0, 0, unkillable)
    assert (end.exit_code, end.signal) == ((128 + value, value) if signaled else (value, 0))
    assert (end.cpu_time, end.max_rss_bytes) == (2 * micro / 1e6, rss * 1024)


@brief
@given(i32, st.sampled_from(Phase), st.sampled_from(Why))
def test_failed(errno: int, phase: Phase, why: Why) -> None:
    end = protocol.parse_failed(struct.pack("<iBB", errno, phase, why))
    assert end == End(why, errno=errno, phase=phase)


@brief
@given(st.integers(0, 1), u64, st.binary(max_size=100))
def test_output(stream: int, offset: int, data: bytes) -> None:
    found = protocol.parse_output(memoryview(struct.pack("<BQ", stream, offset) + data))
    assert (*found[:2], bytes(found[2])) == (stream, offset, data)


@brief
@given(u8, st.text(max_size=50))
def test_refused(reason: int, said: str) -> None:
    data = said.encode(errors="replace")
    assert protocol.parse_refused(bytes([reason]) + struct.pack("<I", len(data)) + data) == (reason, data.decode())


@brief
@given(
    st.lists(
        st.tuples(st.sampled_from([1, 2, 3, 4]), u16, u32, u32, u64, st.integers(-(2**63), 2**63 - 1), text, text), max_size=4
    )
)
def test_file_records(records: list[tuple[int, int, int, int, int, int, str, str]]) -> None:
    data = b""
    for kind, mode, uid, gid, size, modified, name, target in records:
        raw, linked = os.fsencode(name), os.fsencode(target)
        data += struct.pack("<BIIIQqI", kind, mode, uid, gid, size, modified, len(raw)) + raw
        data += struct.pack("<I", len(linked)) + linked
    found = protocol.parse_files(data, "/folder/")
    assert [info.path for info in found] == [f"/folder/{record[6]}" for record in records]
    assert [(info.mode, info.uid, info.gid, info.size_bytes) for info in found] == [record[1:5] for record in records]
    assert [info.modified for info in found] == [record[5] / 10**9 for record in records]
    assert [info.target for info in found] == [record[7] for record in records]


PARSERS: dict[str, Callable[[bytes], object]] = {
    "welcome": protocol.parse_welcome,
    "refused": protocol.parse_refused,
    "output": lambda data: protocol.parse_output(memoryview(data)),
    "number": lambda data: protocol.parse_number(data, 8),
    "exit": protocol.parse_exit,
    "failed": protocol.parse_failed,
    "files": lambda data: protocol.parse_files(data, None),
    "files in a folder": lambda data: protocol.parse_files(data, "/x"),
}


@settings(max_examples=80, deadline=None)
@given(data=st.binary(max_size=120), also=st.binary(max_size=30))
@pytest.mark.parametrize("parser", PARSERS)
def test_arbitrary_bytes_raise_protocol_errors_only(parser: str, data: bytes, also: bytes) -> None:
    for payload in (data, also + data, data[:3]):
        with contextlib.suppress(ProtocolError):
            PARSERS[parser](payload)


@pytest.mark.parametrize("parser", ["welcome", "exit", "failed", "output", "files"])
def test_a_payload_that_is_cut_anywhere_is_refused(parser: str) -> None:
    whole = {
        "welcome": struct.pack("<B16sIIIIIQ", 1, bytes(16), 0, 1, 2, 1, 3, 4),
        "exit": struct.pack("<BBiIQQQQQ", 0, 0, 0, 0, 1, 1, 1, 1, 1),
        "failed": struct.pack("<iBB", 2, 4, 0),
        "output": struct.pack("<BQ", 0, 0),
        "files": struct.pack("<BIIIQqI", 1, 0o644, 0, 0, 1, 1, 4) + b"name" + struct.pack("<I", 3) + b"abc",
    }[parser]
    PARSERS[parser](whole)
    for length in range(1 if parser == "files" else 0, len(whole)):
        with pytest.raises(ProtocolError):
            PARSERS[parser](whole[:length])


# --- the link ---


class Wire(asyncio.Transport):
    """A transport that is only looked at: what was written, and whether it was aborted."""

    def __init__(self) -> None:
        super().__init__()
        self.aborted = False
        self.written: list[bytes] = []

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written.append(bytes(data))

    def is_closing(self) -> bool:
        return self.aborted

    def close(self) -> None:
        self.aborted = True

    def abort(self) -> None:
        self.aborted = True


class Feeding:
    """A link that is fed by hand; it keeps the frames that come out."""

    def __init__(self, *, copying: bool = False) -> None:
        self.frames: list[tuple[int, int, bytes]] = []
        self.copying = copying
        self.wire = Wire()
        self.link = Link(
            lambda kind, command_id, payload: self.frames.append((kind, command_id, bytes(payload))), lambda *_: None
        )
        self.link.connection_made(self.wire)
        self.link.begin_frames()

    def feed(self, data: bytes) -> None:
        """Give bytes as a transport does; one that was aborted gives no more."""
        if self.copying:
            self.link.data_received(data)
            return
        while data and not self.wire.aborted:
            space = self.link.get_buffer(-1)
            assert len(space) > 0, "a transport that is offered no room takes that for the end of the stream"
            n = min(len(space), len(data))
            space[:n] = data[:n]
            space.release()
            self.link.buffer_updated(n)
            data = data[n:]

    @property
    def held(self) -> int:
        return len(self.link._buffer)


def frame(kind: int, command_id: int, payload: bytes) -> bytes:
    return struct.pack("<IBI", len(payload) + 5, kind, command_id) + payload


def pieces(data: bytes, cuts: list[int]) -> Iterator[bytes]:
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    for start, end in itertools.pairwise(places):
        yield data[start:end]


async def test_what_nobody_waits_for_leaves_with_what_comes_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sandboxcore.guest.link._LATER", 3600.0)
    feeding = Feeding()
    written = feeding.wire.written
    for number in range(3):
        feeding.link.write_later(b"ack%d" % number)
        await asyncio.sleep(0)
        assert written == []
    feeding.link.write(b"next")
    await asyncio.sleep(0)
    assert written == [b"ack0ack1ack2next"]
    feeding.link.write_later(b"farewell")
    feeding.link.close()
    assert written[1:] == [b"farewell"]


async def test_what_nobody_waits_for_leaves_alone_in_the_end() -> None:
    feeding = Feeding()
    for word in (b"one", b"two"):
        feeding.wire.written.clear()
        feeding.link.write_later(word)
        await settled(lambda: bool(feeding.wire.written))
        assert feeding.wire.written == [word]


async def settled(condition: Callable[[], bool]) -> None:
    for _ in range(500):
        if condition():
            return
        await asyncio.sleep(0.02)
    raise AssertionError("it does not settle")


in_loop = settings(max_examples=80, deadline=None)


def fed(chunks: list[bytes], *, copying: bool) -> Feeding:
    async def run() -> Feeding:
        feeding = Feeding(copying=copying)
        for chunk in chunks:
            feeding.feed(chunk)
        return feeding

    return asyncio.run(run())


frames = st.lists(st.tuples(u8, u32, st.binary(max_size=200) | st.integers(0, 600_000).map(bytes)), max_size=5)


@in_loop
@given(frames, st.lists(st.integers(0, 2**31), max_size=12), st.booleans())
def test_frames_come_out_whole_however_the_stream_is_split(
    wanted: list[tuple[int, int, bytes]], cuts: list[int], copying: bool
) -> None:
    stream = b"".join(frame(*item) for item in wanted)
    feeding = fed(list(pieces(stream, cuts)), copying=copying)
    assert feeding.frames == wanted
    assert not feeding.wire.aborted


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(u8, u32, st.binary(max_size=30)), max_size=4))
def test_frames_come_out_whole_byte_by_byte(wanted: list[tuple[int, int, bytes]]) -> None:
    stream = b"".join(frame(*item) for item in wanted)
    assert fed([bytes([byte]) for byte in stream], copying=False).frames == wanted


async def test_the_longest_frame_passes_and_its_room_is_given_back() -> None:
    here = Feeding()
    payload = os.urandom(protocol.MAX_FRAME - 5)
    here.feed(frame(1, 2, payload) + frame(3, 4, b"x"))
    assert here.frames == [(1, 2, payload), (3, 4, b"x")]
    assert here.held <= 256 * 1024


@pytest.mark.parametrize("length", [0, 4, protocol.MAX_FRAME + 1, 2**31, 2**32 - 1])
@pytest.mark.parametrize("split", [4, 5, 9, 200])
@pytest.mark.parametrize("copying", [False, True])
async def test_an_impossible_length_ends_the_stream_and_takes_no_memory(length: int, split: int, copying: bool) -> None:
    here = Feeding(copying=copying)
    data = struct.pack("<I", length) + bytes(300)
    here.feed(frame(9, 9, b"before") + data[:split])
    assert here.held <= 256 * 1024
    here.feed(data[split:])
    assert here.wire.aborted
    assert here.frames == [(9, 9, b"before")]


async def test_nothing_is_heard_after_a_malformed_frame() -> None:
    here = Feeding(copying=True)
    here.feed(struct.pack("<IBI", 1, 1, 1) + bytes(400_000) + frame(1, 1, b"late"))
    here.feed(frame(1, 1, b"later"))
    assert here.wire.aborted
    assert here.frames == []


async def test_a_handler_that_finds_a_frame_wrong_ends_the_stream() -> None:
    heard: list[int] = []

    def refuse(kind: int, command_id: int, payload: memoryview) -> None:
        heard.append(kind)
        raise ProtocolError("not now")

    lost: list[BaseException | None] = []
    link = Link(refuse, lambda _, error: lost.append(error))
    wire = Wire()
    link.connection_made(wire)
    link.begin_frames()
    link.data_received(frame(1, 1, b"") + frame(2, 2, b""))
    assert wire.aborted
    link.connection_lost(None)
    assert heard == [1]
    assert isinstance(lost[0], ProtocolError)


@in_loop
@given(st.lists(st.binary(max_size=2000), max_size=8), st.booleans())
def test_garbage_ends_in_an_abort_or_waits_for_more_but_never_raises(chunks: list[bytes], copying: bool) -> None:
    feeding = fed(chunks, copying=copying)
    assert feeding.held <= protocol.MAX_FRAME + 4 + 256 * 1024


@in_loop
@given(frames, st.binary(min_size=9, max_size=50), st.lists(st.integers(0, 2**31), max_size=6))
def test_garbage_behind_frames_costs_none_of_them(wanted: list[tuple[int, int, bytes]], junk: bytes, cuts: list[int]) -> None:
    stream = b"".join(frame(*item) for item in wanted) + b"\xff\xff\xff\xff" + junk
    feeding = fed(list(pieces(stream, cuts)), copying=False)
    assert feeding.frames == wanted
    assert feeding.wire.aborted


# --- the client, before a guest that says anything ---


def well_formed_but_any(draw: st.DrawFn) -> bytes:
    kinds = st.sampled_from([int(kind) for kind in FrameType]) | u8
    return frame(draw(kinds), draw(st.integers(0, 4)), draw(st.binary(max_size=80)))


anything = st.composite(well_formed_but_any)()


@settings(max_examples=100, deadline=None)
@given(st.lists(anything | st.binary(max_size=40), max_size=8), st.booleans())
def test_the_client_survives_whatever_a_guest_says(said: list[bytes], welcomed: bool) -> None:
    """Each command ends with an answer or an error of ours, and the connection closes."""
    from sandboxcore.abc import Channel
    from sandboxcore.errors import SandboxError
    from sandboxcore.guest.connection import Connection
    from sandboxcore.guest.executor import GuestExecutor

    class Liar(Channel):
        lands_in = "guest"

        async def open(self, argv: object, protocol: asyncio.BaseProtocol) -> asyncio.Transport:
            assert isinstance(protocol, Link)
            wire = LiarWire(protocol, said, welcomed)
            protocol.connection_made(wire)
            return wire

    async def run() -> None:
        problems: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: problems.append(context))
        connection = Connection(Liar(), patience=0.05)
        request = ExecRequest(argv=["true"], stdin=b"x" * 1000)
        with contextlib.suppress(SandboxError, TimeoutError):
            await asyncio.wait_for(GuestExecutor(connection).exec(request), 0.1)
        connection._closed = True  # no guest is there to kill anything
        await connection.aclose()
        assert problems == []

    asyncio.run(run())


class LiarWire(asyncio.Transport):
    """Answers the first write with frames of any kind, and then ends."""

    def __init__(self, link: Link, said: list[bytes], welcomed: bool) -> None:
        super().__init__()
        self._link, self._said, self._welcomed = link, said, welcomed
        self._closed = False

    def write(self, data: Any) -> None:
        said, self._said = self._said, []
        if not said and not self._welcomed:
            return
        loop = asyncio.get_running_loop()
        if self._welcomed:
            self._welcomed = False
            said.insert(0, frame(FrameType.WELCOME, 0, struct.pack("<B16sIIII", 1, bytes(16), 0, 1, 0, 0)))
        for data_said in said:
            loop.call_soon(self._say, data_said)
        loop.call_soon(self.abort)

    def _say(self, data: bytes) -> None:
        if not self._closed:
            self._link.data_received(data)

    def is_closing(self) -> bool:
        return self._closed

    def close(self) -> None:
        self.abort()

    def abort(self) -> None:
        if not self._closed:
            self._closed = True
            asyncio.get_running_loop().call_soon(self._link.connection_lost, None)
