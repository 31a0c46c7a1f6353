"""Whatever a file holds, it is loaded and translated, or refused with a place: no other error leaves the translator."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from sandboxcore_compose import ComposeTranslator

from sandboxcore.errors import SpecError

_FILES = ("compose.yaml", "other.yaml", "some.env")


@pytest.mark.parametrize("seed", range(4))
def test_only_spec_errors_come_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    import _values

    monkeypatch.chdir(tmp_path)
    chance = random.Random(seed)
    outcomes = {True: 0, False: 0}
    without_a_place = 0
    for _ in range(120):
        lines = _values.document(chance, chance.choice((0, 0, 1))).splitlines()
        for _ in range(chance.choice((0, 0, 1, 3))):
            _values.change(chance, lines)
        text = "\n".join(lines)
        if chance.random() < 0.05:
            text = "".join(chance.choice(text + "{}[]:&*!|>-\n\t\0é") for _ in range(200))
        Path("compose.yaml").write_text(text)
        Path("other.yaml").write_text(_values.document(chance, 9))
        Path("some.env").write_text(_values.env_file(chance))
        try:
            ComposeTranslator().translate([Path("compose.yaml")], variables={"SET": "value", "EMPTY": ""})
            outcomes[True] += 1
        except SpecError as error:
            outcomes[False] += 1
            without_a_place += not all(problem.startswith(_FILES) for problem in error.problems)
    assert not without_a_place
    assert outcomes[True] > 5
    assert outcomes[False] > 5
