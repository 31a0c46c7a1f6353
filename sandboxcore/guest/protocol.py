"""Frames to values and back. Pure: no I/O, no clock; the twin of ``guest.h``, which has the same numbers.

A frame is a u32 length of what follows, a u8 type, a u32 command id and a payload, all little endian. Strings are a u32
length without the NUL that follows their bytes.
"""

from __future__ import annotations

import enum
import os
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ..values import ExecRequest, FileInfo

__all__ = (
    "HEADER",
    "MAX_FRAME",
    "STDIN_CLOSED",
    "VERSION",
    "End",
    "FileOp",
    "FrameType",
    "Phase",
    "ProtocolError",
    "Refusal",
    "Welcome",
    "Why",
)

VERSION = 1
MAX_FRAME = 4 << 20
STDIN_CLOSED = (1 << 64) - 1
HEADER = struct.Struct("<IBI")


class ProtocolError(Exception):
    """The other side sent what no guest of this version sends."""


class FrameType(enum.IntEnum):
    """What a frame is; below 64 from the client, above from the guest."""

    HELLO = 1
    SPAWN = 2
    FILE = 3
    STDIN = 4
    STDIN_EOF = 5
    ACK = 6
    EXIT_ACK = 7
    SIGNAL = 8
    RESIZE = 9
    PING = 10
    WELCOME = 65
    REFUSED = 66
    STARTED = 67
    OUTPUT = 68
    STDIN_ACK = 69
    EXIT = 70
    FAILED = 71
    PONG = 72


class Why(enum.IntEnum):
    """Why a command ended."""

    ITSELF = 0
    TIMEOUT = 1
    OUTPUT = 2
    KILLED = 3
    LOST = 4
    LEASE = 5


class Phase(enum.IntEnum):
    """Where a command that never ran came to grief."""

    SPAWN = 1
    USER = 2
    CWD = 3
    EXEC = 4
    PTY = 5
    FILE = 6
    FORGOTTEN = 7


class Refusal(enum.IntEnum):
    """Why a guest won't speak with this client."""

    VERSION = 1
    STALE = 2
    PEER = 3
    FULL = 4
    PROTOCOL = 5


class FileOp(enum.IntEnum):
    """File operations of the guest."""

    READ = 1
    WRITE = 2
    STAT = 3
    LIST = 4
    REMOVE = 5
    MKDIR = 6


@dataclass(frozen=True, slots=True)
class Welcome:
    """The guest's answer to HELLO. ``commands`` has the ids it still knows, with the bytes of stdin it has of each."""

    version: int
    boot_id: bytes
    uid: int
    pid: int
    highest: int
    commands: Mapping[int, int]


@dataclass(frozen=True, slots=True)
class End:
    """How a command ended: EXIT (``phase`` 0) or FAILED (``errno`` and ``phase``)."""

    why: Why
    exit_code: int = 0
    signal: int = 0
    errno: int = 0
    phase: int = 0
    unkillable: int = 0
    cpu_time: float = 0.0
    max_rss_bytes: int = 0


_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")
_SPAWN = struct.Struct("<IBI B IQQHH")
_FILE = struct.Struct("<IBI BBiQ")
_STDIN = struct.Struct("<IBIQ")
_ACK = struct.Struct("<IBIBQ")
_SIGNAL = struct.Struct("<IBIiB")
_RESIZE = struct.Struct("<IBIHH")
_HELLO = struct.Struct("<IBI B16sIII")
_RESUME = struct.Struct("<IQQ")
_WELCOME = struct.Struct("<B16sIIII")
_KNOWN = struct.Struct("<IQ")
_EXIT = struct.Struct("<BBiIQQQQQ")
_FAILED = struct.Struct("<iBB")
_OUTPUT = struct.Struct("<BQ")
_RECORD = struct.Struct("<BIIIQQI")

_EMPTY = b"\0\0\0\0\0"


def _string(text: str) -> bytes:
    data = os.fsencode(text)
    return b"%b%b\0" % (_U32.pack(len(data)), data)


def _strings(words: Iterable[str]) -> bytes:
    packed = [_string(word) for word in words]
    return _U32.pack(len(packed)) + b"".join(packed)


def _framed(head: struct.Struct, *values: object, rest: bytes = b"") -> bytes:
    return head.pack(head.size - 4 + len(rest), *values) + rest


def hello(client_id: bytes, generation: int, lease_ms: int, resume: Iterable[tuple[int, int, int]]) -> bytes:
    """Open the conversation; ``resume`` has each command in flight with the bytes that are here of stdout and stderr."""
    entries = [_RESUME.pack(*entry) for entry in resume]
    rest = b"".join(entries)
    return _framed(_HELLO, FrameType.HELLO, 0, VERSION, client_id, generation, lease_ms, len(entries), rest=rest)


def spawn(command_id: int, request: ExecRequest, *, stdin: bool) -> bytes:
    """Ask for a command. ``stdin``: bytes or an end of its standard input will follow."""
    limit = request.output_limit_bytes or 0
    timeout_ms = 0 if request.timeout is None else max(1, min(round(request.timeout * 1000), 0xFFFFFFFF))
    columns, rows = request.terminal_size
    rest = b"".join(
        (
            _string(request.user) if request.user else _EMPTY,
            _string(request.cwd) if request.cwd else _EMPTY,
            _strings(request.argv),
            _strings(f"{name}={value}" for name, value in request.env.items()) if request.env else b"\0\0\0\0",
        )
    )
    flags = (1 if request.pty else 0) | (2 if stdin else 0)
    return _framed(_SPAWN, 2, command_id, flags, timeout_ms, limit, limit, columns, rows, rest=rest)


def file(command_id: int, op: FileOp, path: str, *, flag: bool = False, mode: int = -1, offset: int = 0, user: str = "") -> bytes:
    """Ask for a file operation.

    Args:
        flag: stat follows links, mkdir makes parents, remove takes the whole tree, read refuses more than 64 KiB (``EFBIG``).
    """
    return _framed(_FILE, FrameType.FILE, command_id, op, flag, mode, offset, rest=_string(user) + _string(path))


def stdin(command_id: int, offset: int, data: bytes | memoryview) -> bytes:
    """Carry bytes of standard input that begin at ``offset`` of the stream."""
    return b"".join((stdin_head(command_id, offset, len(data)), data))


def stdin_head(command_id: int, offset: int, length: int) -> bytes:
    """Build all but the bytes themselves of a ``stdin`` frame."""
    return _STDIN.pack(_STDIN.size - 4 + length, 4, command_id, offset)


def stdin_eof(command_id: int, total: int) -> bytes:
    """End standard input after ``total`` bytes."""
    return _framed(_STDIN, FrameType.STDIN_EOF, command_id, total)


def ack(command_id: int, stream: int, offset: int) -> bytes:
    """Tell that all bytes of the stream before ``offset`` are here for good."""
    return _ACK.pack(_ACK.size - 4, 6, command_id, stream, offset)


def exit_ack(command_id: int) -> bytes:
    """Tell that the end of the command is known here, so that the guest may forget it."""
    return HEADER.pack(5, 7, command_id)


def signal(command_id: int, number: int, *, tree: bool = False) -> bytes:
    """Send a signal to the program, or with ``tree`` kill it and all that it started."""
    return _framed(_SIGNAL, FrameType.SIGNAL, command_id, number, tree)


def resize(command_id: int, columns: int, rows: int) -> bytes:
    """Change the size of the command's terminal."""
    return _framed(_RESIZE, FrameType.RESIZE, command_id, columns, rows)


def ping(number: int) -> bytes:
    """Ask for a PONG with the same number."""
    return _framed(HEADER, FrameType.PING, 0, rest=_U64.pack(number))


def parse_welcome(payload: bytes | memoryview) -> Welcome:
    """Read the guest's answer to HELLO.

    Raises:
        ProtocolError: The payload is malformed.
    """
    try:
        version, boot_id, uid, pid, highest, count = _WELCOME.unpack_from(payload)
        if len(payload) != _WELCOME.size + count * _KNOWN.size:
            raise ProtocolError("WELCOME has the wrong length")
        known = dict(_KNOWN.iter_unpack(payload[_WELCOME.size :]))
    except struct.error as error:
        raise ProtocolError(f"malformed WELCOME: {error}") from error
    return Welcome(version, boot_id, uid, pid, highest, known)


def parse_refused(payload: bytes | memoryview) -> tuple[int, str]:
    """Read why the guest refuses: one of ``Refusal``, and a text."""
    if len(payload) < 5:
        raise ProtocolError("malformed REFUSED")
    return payload[0], bytes(payload[5:]).decode(errors="replace")


def parse_output(payload: memoryview) -> tuple[int, int, memoryview]:
    """Read a piece of output: stream (0 stdout, 1 stderr), offset and bytes."""
    try:
        stream, offset = _OUTPUT.unpack_from(payload)
    except struct.error as error:
        raise ProtocolError(f"malformed OUTPUT: {error}") from error
    if stream > 1:
        raise ProtocolError(f"OUTPUT of stream {stream}")
    return stream, offset, payload[_OUTPUT.size :]


def parse_number(payload: bytes | memoryview, size: int) -> int:
    """Read a payload that is one number of ``size`` bytes."""
    if len(payload) != size:
        raise ProtocolError(f"{len(payload)} bytes where a number of {size} was expected")
    return int.from_bytes(payload, "little")


def parse_exit(payload: bytes | memoryview) -> tuple[End, tuple[int, int]]:
    """Read how a command ended, and how many bytes each of its output streams had."""
    try:
        signaled, why, value, unkillable, out, err, user_us, system_us, rss_kib = _EXIT.unpack(payload)
        end = End(
            Why(why),
            exit_code=128 + value if signaled else value,
            signal=value if signaled else 0,
            unkillable=unkillable,
            cpu_time=(user_us + system_us) / 1e6,
            max_rss_bytes=rss_kib * 1024,
        )
    except (struct.error, ValueError) as error:
        raise ProtocolError(f"malformed EXIT: {error}") from error
    return end, (out, err)


def parse_failed(payload: bytes | memoryview) -> End:
    """Read why a command did not run, or a file operation failed."""
    try:
        errno, phase, why = _FAILED.unpack(payload)
        return End(Why(why), errno=errno, phase=Phase(phase))
    except (struct.error, ValueError) as error:
        raise ProtocolError(f"malformed FAILED: {error}") from error


_TYPES = {1: "file", 2: "directory", 3: "symlink", 4: "other"}


def parse_files(data: bytes, folder: str | None) -> list[FileInfo]:
    """Read the records of a stat or a listing; ``folder`` is put before the names, None: the names are paths already."""
    found: list[FileInfo] = []
    at = 0
    try:
        while at < len(data):
            kind, mode, uid, gid, size, modified, length = _RECORD.unpack_from(data, at)
            at += _RECORD.size
            name = os.fsdecode(data[at : at + length])
            at += length
            (linked,) = _U32.unpack_from(data, at)
            at += 4
            target = os.fsdecode(data[at : at + linked])
            at += linked
            path = name if folder is None else f"{folder.rstrip('/')}/{name}" if folder else name
            found.append(
                FileInfo(
                    path=path,
                    name=name.rstrip("/").rpartition("/")[2] or name,
                    type=_TYPES[kind],  # type: ignore[arg-type]
                    size_bytes=size,
                    mode=mode,
                    uid=uid,
                    gid=gid,
                    # Divided as a float it would be rounded twice.
                    modified=(modified - (1 << 64) if modified >> 63 else modified) / 1_000_000_000,
                    target=target,
                )
            )
    except (struct.error, KeyError) as error:
        raise ProtocolError(f"malformed file record: {error}") from error
    if at != len(data):
        raise ProtocolError("a file record is cut off")
    return found
