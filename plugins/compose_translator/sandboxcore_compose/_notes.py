"""Collects what a translation says about a document: report entries, and refusals."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from sandboxcore.report import Loss, ReportEntry

from ._marks import Map, Mark, Path, Problems, dotted, locate

__all__ = ("Notes", "Options")


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the caller decides about a translation.

    Args:
        internet: Services whose networks let them out may use the internet.
        offline: No service gets a way out, whatever the document asks for.
        allow: What is refused or dropped unless it is named here: ``privileged``, ``writable_binds``, ``host_paths``.
        images: Service to image, or a template with ``{project}``, ``{service}`` and ``{digest}``, for services that are built.
        gpus_all: How many GPUs ``count: all`` means; None refuses it.
        strict: What is only approximated is refused.
    """

    internet: bool = False
    offline: bool = False
    allow: frozenset[str] = frozenset()
    images: Any = None
    gpus_all: int | None = None
    strict: bool = False


@dataclass
class Notes:
    """The report in the making."""

    tree: Map
    options: Options
    #: In the order in which they were found, each once.
    entries: dict[ReportEntry, None] = field(default_factory=dict)
    problems: Problems = field(default_factory=Problems)

    def note(self, loss: Loss, path: Path, reason: str, *, option: str = "", mark: Mark | None = None) -> None:
        """Add an entry; a rejection, and in strict mode an approximation, becomes a problem as well."""
        place = mark or locate(self.tree, path)
        service = str(path[1]) if path[:1] == ("services",) and len(path) > 1 else ""
        entry = ReportEntry(
            loss=loss,
            key=dotted(path),
            reason=reason,
            file=place.file,
            line=place.line,
            column=place.column,
            service=service,
            option=option,
        )
        self.entries.setdefault(entry)
        if loss is Loss.REJECT or (loss is Loss.APPROX and self.options.strict):
            self.problems.add(place, path, reason + (f" ({option})" if option else ""))

    def exact(self, path: Path, reason: str) -> None:
        self.note(Loss.EXACT, path, reason)

    def approx(self, path: Path, reason: str, *, option: str = "") -> None:
        self.note(Loss.APPROX, path, reason, option=option)

    def noop(self, path: Path, reason: str) -> None:
        self.note(Loss.NOOP, path, reason)

    def policy(self, path: Path, reason: str, option: str) -> None:
        self.note(Loss.POLICY, path, reason, option=option)

    def reject(self, path: Path, reason: str, *, option: str = "") -> None:
        self.note(Loss.REJECT, path, reason, option=option)
