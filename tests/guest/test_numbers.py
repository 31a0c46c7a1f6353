"""The wire has two descriptions, guest.h and protocol.py; their numbers are the same."""

from __future__ import annotations

import enum
import re
from pathlib import Path

import pytest

import sandboxcore.guest
from sandboxcore.guest import protocol

FOLDER = Path(sandboxcore.guest.__file__).parent


def c_numbers(text: str) -> dict[str, int]:
    """Read ``NAME = expression`` of all enums, and what follows a name by counting up."""
    found: dict[str, int] = {}
    for body in re.findall(r"\benum\b[^{;]*\{([^}]*)\}", re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)):
        last = -1
        for item in filter(None, (part.strip() for part in body.split(","))):
            name, _, expression = item.partition("=")
            last = _value(expression) if expression else last + 1
            found[name.strip()] = last
    return found


def _value(expression: str) -> int:
    number, _, shift = expression.partition("<<")
    return int(number, 0) << int(shift or "0", 0)


NUMBERS = c_numbers((FOLDER / "guest.h").read_text() + (FOLDER / "keeper.h").read_text())


@pytest.mark.parametrize(
    ("enumeration", "prefix"),
    [
        (protocol.FrameType, "F_"),
        (protocol.Why, "WHY_"),
        (protocol.Phase, "PHASE_"),
        (protocol.Refusal, "REFUSE_"),
        (protocol.FileOp, "OP_"),
    ],
)
def test_enumerations_are_the_same(enumeration: type[enum.IntEnum], prefix: str) -> None:
    in_c = {name.removeprefix(prefix): value for name, value in NUMBERS.items() if name.startswith(prefix)}
    assert in_c == {member.name: int(member) for member in enumeration}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PROTOCOL_VERSION", protocol.VERSION),
        ("HEADER", protocol.HEADER.size),
        ("CLIENT_ID", 16),
        ("BOOT_ID", 16),
        ("SPAWN_PTY", 1),
        ("SPAWN_STDIN", 2),
        ("FILE_FLAG", 1),
    ],
)
def test_constants_are_the_same(name: str, value: int) -> None:
    assert NUMBERS[name] == value


def test_no_frame_that_one_side_sends_is_too_long_for_the_other() -> None:
    # guest.h counts the whole frame, protocol.py what follows the length.
    assert NUMBERS["MAX_FRAME"] <= protocol.MAX_FRAME + 4
    assert NUMBERS["OUTPUT_CHUNK"] + 64 < protocol.MAX_FRAME


def test_the_client_gives_less_stdin_than_the_guest_takes() -> None:
    from sandboxcore.guest import command, link

    assert NUMBERS["EXEC_WINDOW"] >= command._EXEC_WINDOW
    assert NUMBERS["FILE_WINDOW"] >= command._FILE_WINDOW
    assert 2 * NUMBERS["FILE_WINDOW"] >= command._FILE_WINDOW_ALONE
    assert NUMBERS["MAX_FRAME"] > link._FILE_PIECE_HERE + 64


async def test_a_file_has_more_on_its_way_while_it_is_alone() -> None:
    from sandboxcore.guest.command import Command

    command = Command(1, b"", is_file=True)
    command.give_stdin(bytes(8 << 20))
    sent = [0]
    for alone in (False, True, False):
        while parts := command.next_stdin(1 << 18, alone=alone):
            sent[-1] += len(parts[1])
        sent.append(sent[-1])
    assert sent[:3] == [3 << 19, 7 << 19, 7 << 19]
    command.stdin_taken(6 << 19)
    assert len(command.next_stdin(1 << 20)[1]) == 1 << 20
    assert command.next_stdin(1 << 20) == []


def test_closed_stdin_is_one_number() -> None:
    header = (FOLDER / "guest.h").read_text()
    assert re.search(r"#define STDIN_CLOSED UINT64_MAX\b", header)
    assert protocol.STDIN_CLOSED == 2**64 - 1
