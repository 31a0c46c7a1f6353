"""The way in: from a stream on which ``argv`` is run to one on which the guest speaks frames.

One runtime exec: ``sh`` looks for a guest that an earlier one has left, or for a folder to run one from; it asks for the
binary, which travels on the same stream, and becomes its relay. ``head -c`` may read more than it is told to (busybox), so
nothing is sent after the binary until the guest's banner.
"""

from __future__ import annotations

import functools
import hashlib
import platform
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import GuestUnavailableError, SandboxUnavailableError
from .protocol import VERSION

if TYPE_CHECKING:
    from ..abc import Channel
    from .link import Link

__all__ = ("SOCKETS", "enter", "guest_binary")

_BANNER = "SANDBOXCORE GUEST 1"
_ARCHITECTURES = {"x86_64": "x86_64", "amd64": "x86_64", "aarch64": "aarch64", "arm64": "aarch64"}
_FOLDERS = ("/dev/shm", "/tmp", "/var/tmp", "/run", "/root", "/home", "/")
#: Where the relay of a mounted guest has its keeper listen: in the first of the folders that it may use.
SOCKETS = tuple(f"{folder.rstrip('/')}/.sandboxcore/v{VERSION}.sock" for folder in _FOLDERS)
#: /dev/shm is good for the socket and never for the binary (noexec); a mounted guest needs the former only.
#: Each word to the client begins a line, whatever a login has said before without ending its own.
#: What it needs for itself comes from where systems keep it; the image's own PATH comes last, and is put back for the guest.
_SCRIPT = r"""umask 077
o=$PATH
PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin:$PATH
u=`id -u 2>/dev/null` || u=x
n={size} v={digest}
works() {{ test -x "$1" && test "`"$1" version 2>/dev/null`" = 1; }}
mine() {{ test -d "$1" && test -O "$1" && test ! -L "$1"; }}
for p in {folders} "$HOME"; do d=$p/.sandboxcore-$u
mine "$d" && works "$d/guest-$v" && PATH=$o exec "$d/guest-$v" relay --dir "$d"
done
first= tried=
for p in {folders} "$HOME"; do d=$p/.sandboxcore-$u
mkdir "$d" 2>/dev/null
if mine "$d" && test -w "$d" && : > "$d/.t$$" 2>/dev/null
then rm -f "$d/.t$$"; first="$first $d"; else tried="$tried $d: not writable;"; fi
done
set -- $first
test $# = 0 && {{ printf '\nSANDBOXCORE FAIL %s\n' "$tried"; exit 1; }}
f=$1/.guest-$v.$$
printf '\nSANDBOXCORE SEND %s\n' "`uname -m 2>/dev/null`"
head -c $n > "$f" 2>/dev/null
test -s "$f" || dd bs=4096 count=$((n / 4096)) iflag=fullblock of="$f" 2>/dev/null
chmod 700 "$f"
for d in "$@"; do g=$d/guest-$v
test "$d" = "$1" || cat "$f" > "$g.$$" 2>/dev/null && chmod 700 "$g.$$" 2>/dev/null
test "$d" = "$1" && mv "$f" "$g.$$"
mv "$g.$$" "$g" 2>/dev/null
f=$g
works "$g" && PATH=$o exec "$g" relay --dir "$d"
tried="$tried $d: can't run programs (noexec?);"
done
printf '\nSANDBOXCORE FAIL %s\n' "$tried"
"""


def guest_binary(arch: str = "") -> Path:
    """Find the static guest program for a machine (``uname -m``; empty: this one).

    Raises:
        GuestUnavailableError: There is none for that machine, or it was not built.
    """
    machine = arch or platform.machine()
    known = _ARCHITECTURES.get(machine.lower())
    if known is None:
        raise GuestUnavailableError(f"there is no guest for machine {machine!r}", hint="x86_64 and aarch64 are supported")
    path = Path(str(resources.files(__package__))) / "bin" / f"guest-{known}"
    if not path.is_file():
        hint = "install sandboxcore from a wheel, or run `python hatch_build.py` in its source tree"
        raise GuestUnavailableError(f"the guest program for {known} was not built", hint=hint)
    return path


@functools.cache
def _payload(machine: str) -> bytes:
    """The program, padded to whole blocks for ``dd``."""
    data = guest_binary(machine).read_bytes()
    return data + bytes(-len(data) % 4096)


@functools.cache
def _script(machine: str) -> str:
    data = _payload(machine)
    return _SCRIPT.format(size=len(data), digest=hashlib.sha256(data).hexdigest()[:12], folders=" ".join(_FOLDERS[1:-1]))


async def enter(channel: Channel, link: Link) -> None:
    """Open the channel and bring the stream to where the guest speaks.

    Raises:
        GuestUnavailableError: No guest can run there; the message says what was tried.
        SandboxUnavailableError: The stream broke on the way, with ``started="no"``.
    """
    if channel.lands_in == "guest":
        await channel.open((), link)
        return
    machine = channel.machine or "x86_64"
    if channel.guest_path:
        folders = [word for folder in _FOLDERS for word in ("--dir", f"{folder.rstrip('/')}/.sandboxcore")]
        await channel.open((channel.guest_path, "relay", *folders), link)
    else:
        await channel.open(("/bin/sh", "-c", _script(machine)), link)
    await _follow(channel, link, machine)


async def _follow(channel: Channel, link: Link, machine: str) -> None:
    while (line := await link.line()) is not None:
        word, _, rest = line.partition(" ")
        if line == _BANNER:
            return
        if word == "SANDBOXCORE" and rest.startswith("FAIL"):
            hint = "mount a writable folder that allows programs (an emptyDir or tmpfs with exec), or mount the guest itself"
            raise GuestUnavailableError(f"the guest can't be put into the sandbox:{rest[4:]}", hint=hint)
        if word == "SANDBOXCORE" and rest.startswith("SEND"):
            found = _ARCHITECTURES.get(rest[5:].strip().lower(), rest[5:].strip() or machine)
            if found != _ARCHITECTURES[machine]:
                channel.machine = found
                guest_binary(found)  # says so where there is none
                raise SandboxUnavailableError("the sandbox is of another machine type than was thought", started="no")
            link.write(_payload(machine))
    if isinstance(link.reason, SandboxUnavailableError):  # the channel knows why
        raise link.reason
    raise SandboxUnavailableError("the stream ended before the guest answered", started="no", hint=_NO_SHELL)


_NO_SHELL = "an image without sh needs the guest mounted (see the backend's documentation)"
