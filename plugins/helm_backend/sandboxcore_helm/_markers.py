"""The names and texts that a chart is rendered with to see where they come out.

Two names that are alike can hide what a chart does with them: ``now`` in the same second, a sorted list, a truncation, a
``contains``. These differ at every position, mix letters and digits, begin and end the alphabet, and have no short
word in common.
"""

from __future__ import annotations

import random
from collections.abc import Iterable

__all__ = ("NAMES", "TEXTS", "new_release_name", "own_name")

NAMES = ("kzqwvxjm", "a2b3c4d5", "z9y8x7w6", "wjvbkqzx", "h5n6p7r8", "9x7k3f5t")
_PLAIN = (
    "Qz7kVw3xJm9Tb",
    "4815162342108",
    "yN k: 'Wv' \"pJ\" #4 {x} %d,\t\\t",
    "V3b" + "kQ8zLw5Xj-Ht_" * 6,
    "07h.Mx-2Rw",
    "Zj-x9_Kd.4vB",
)
_LINES = "yN k: 'Wv'\n\n---\n  \"pJ\" #4 {x}\n%d,\t\\t"
#: For values that differ from release to release, one a name; a number, and text that YAML must have in quotes, show up who does
#: not quote. Texts of several lines are written in other ways than those of one; where a label goes only some are taken.
TEXTS = {
    "plain": _PLAIN,
    "lines": (*_PLAIN[:2], _LINES, *_PLAIN[3:]),
    "label": (*_PLAIN[:2], "yN.k-Wv_pJ-4x", "V3b" + "kQ8zLw5Xj-Ht_" * 3, *_PLAIN[4:]),
}
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_ALPHABET = _LETTERS + "0123456789"
_TRIES = 200


def own_name(name: str) -> bool:
    """Tell whether a name is of the form that substitution is proven for: 8 letters and digits, a letter first.

    Such a name is text in any YAML, quoted or not, which ``12345678`` and ``2e000003`` are not.
    """
    return len(name) == 8 and name.isascii() and name.isalnum() and name.islower() and name[0] in _LETTERS


def new_release_name(preferred: str, avoid: Iterable[str]) -> str | None:
    """Choose a release name that has none of the words in it, the preferred one if it will do; None if none can be found."""
    words = tuple(avoid)
    candidates = [preferred] if own_name(preferred) else []
    chooser = random.SystemRandom()
    for _ in range(_TRIES):
        name = candidates.pop() if candidates else chooser.choice(_LETTERS) + "".join(chooser.choices(_ALPHABET, k=7))
        if own_name(name) and not any(word in name for word in words):
            return name
    return None
