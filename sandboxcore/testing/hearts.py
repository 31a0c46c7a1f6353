"""Processes that show by a file that they live: what a kill has to reach."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from ._conformance import sh

if TYPE_CHECKING:
    from sandboxcore.environment import Sandbox

__all__ = ("FAMILY", "beating", "family", "started_hearts")

_BEAT = 'while :; do echo x >> "$0"; sleep 0.1; done'

#: Ways to leave the program's process group, session or parent, all of which a kill has to follow.
FAMILY = ("child", "deaf", "daemon", "session", "stranger")

_FAMILY = r"""
cd "$1" || exit 9
beat="$2"
command -v setsid >/dev/null || setsid() { "$@"; }
sh -c "$beat" child &
sh -c "trap '' HUP INT TERM; $beat" deaf &
setsid sh -c "$beat" session &
(setsid sh -c "sh -c '$beat' daemon & exit 0" &)
setsid env -i PATH="$PATH" sh -c "$beat" stranger &
until [ -s child ] && [ -s deaf ] && [ -s session ] && [ -s daemon ] && [ -s stranger ]; do sleep 0.02; done
echo up
echo up >&2
"""


def family(directory: str, then: str = "sleep 300") -> list[str]:
    """Build a command that starts every kind of heart in the directory, says ``up`` on both streams, and goes on."""
    return sh(_FAMILY + then, directory, _BEAT)


async def _sizes(sandbox: Sandbox, directory: str) -> dict[str, int]:
    script = 'cd "$1" && for f in ' + " ".join(FAMILY) + '; do [ -e "$f" ] && echo "$f" $(wc -c < "$f"); done; exit 0'
    result = await sandbox.exec(sh(script, directory))
    return {name: int(size) for name, size in (line.split() for line in result.text().splitlines())}


async def started_hearts(sandbox: Sandbox, directory: str) -> set[str]:
    """Tell which hearts have ever beaten."""
    return set(await _sizes(sandbox, directory))


async def beating(sandbox: Sandbox, directory: str, seconds: float = 0.7) -> list[str]:
    """Tell which hearts still beat; they do so ten times a second."""
    before = await _sizes(sandbox, directory)
    await asyncio.sleep(seconds)
    after = await _sizes(sandbox, directory)
    return sorted(name for name in after if after[name] != before.get(name))
