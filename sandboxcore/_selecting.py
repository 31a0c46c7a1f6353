"""Choose environments out of those that were found."""

from __future__ import annotations

from collections.abc import Sequence

from ._validation import nearest
from .errors import EnvironmentNotFoundError
from .values import EnvironmentRef

__all__ = ("by_prefix", "doomed")


def by_prefix(prefix: str, found: Sequence[EnvironmentRef]) -> EnvironmentRef:
    """Return the one whose id begins so.

    Raises:
        EnvironmentNotFoundError: None does, or more than one.
    """
    ids = {ref.environment_id: ref for ref in found}
    matching = sorted(name for name in ids if name.startswith(prefix))
    if len(matching) == 1:
        return ids[matching[0]]
    if matching:
        raise EnvironmentNotFoundError(f"{len(matching)} environments begin with {prefix!r}: {_listed(matching)}")
    near = nearest(prefix, ids)
    suggestion = f" (did you mean {near!r}?)" if near else ""
    there_are = f"there are {_listed(sorted(ids))}" if ids else "there are none"
    raise EnvironmentNotFoundError(f"no environment {prefix!r}{suggestion}; {there_are}", hint="sandboxcore ls")


def doomed(found: Sequence[EnvironmentRef], *, expired: bool, now: float) -> list[EnvironmentRef]:
    """Select what may be destroyed: all, or with ``expired`` what nobody claims any more at this time."""
    return [ref for ref in found if not expired or ref.expires_at <= now]


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:10])
    return f"{shown} and {len(names) - 10} more" if len(names) > 10 else shown
