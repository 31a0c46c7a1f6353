"""What a translation did to each key of a document that is not carried over as it stands."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass, field

__all__ = ("Loss", "ReportEntry", "TranslationReport")


class Loss(enum.StrEnum):
    """How much of a key's meaning survives."""

    EXACT = "EXACT"  #: carried over in another form, same meaning
    APPROX = "APPROX"  #: carried over, but it behaves differently
    NOOP = "NOOP"  #: dropped, and nothing is lost by it
    POLICY = "POLICY"  #: dropped unless an option allows it
    REJECT = "REJECT"  #: can't be had: the document is refused


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportEntry:
    """One key of a document, and what became of it.

    ``line`` and ``column`` count from 1; 0 where the key has no place in a file. ``option`` is what would change it.
    """

    loss: Loss
    key: str
    reason: str
    file: str = ""
    line: int = 0
    column: int = 0
    service: str = ""
    option: str = ""

    @property
    def where(self) -> str:
        """``file:line:column``, as far as it is known."""
        parts = [self.file, *(str(number) for number in (self.line, self.column) if number)]
        return ":".join(part for part in parts if part)

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        return f"{place}{self.key}: {self.loss.value}: {self.reason}"


@dataclass(frozen=True, kw_only=True, slots=True)
class TranslationReport:
    """All entries of a translation, in the order of the document, then those that the backend adds."""

    entries: tuple[ReportEntry, ...] = field(default=())

    def of(self, *losses: Loss) -> tuple[ReportEntry, ...]:
        """Select the entries of these classes."""
        return tuple(entry for entry in self.entries if entry.loss in losses)

    def extended(self, entries: Iterable[ReportEntry]) -> TranslationReport:
        """Return a report with further entries at its end."""
        return TranslationReport(entries=(*self.entries, *entries))
