"""Rules that hang on paths of the document, with ``*`` for any key and any list item."""

from __future__ import annotations

from typing import Generic, TypeVar

__all__ = ("Rules",)

_Rule = TypeVar("_Rule")


class Rules(Generic[_Rule]):
    """A tree of rules, walked along with the document."""

    __slots__ = ("below", "rule")

    def __init__(self, rules: dict[str, _Rule] | None = None) -> None:
        self.rule: _Rule | None = None
        self.below: dict[str, Rules[_Rule]] = {}
        for path, rule in (rules or {}).items():
            self._at(path.split(".")).rule = rule

    def _at(self, parts: list[str]) -> Rules[_Rule]:
        node = self
        for part in parts:
            node = node.below.setdefault(part, Rules())
        return node

    def step(self, key: str) -> Rules[_Rule] | None:
        """Follow a key; None where no rule lies further down."""
        return self.below.get(key) or self.below.get("*")
