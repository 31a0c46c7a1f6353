"""Choose environments out of those that were found."""

from __future__ import annotations

from collections.abc import Sequence

from ._validation import nearest
from .errors import EnvironmentNotFoundError
from .values import EnvironmentRef

__all__ = ("by_prefix", "doomed", "is_meant")


def is_meant(word: str, environment: EnvironmentRef) -> bool:
    """Tell whether people may mean this environment: its id begins so, or its backend calls it so."""
    return environment.environment_id.startswith(word) or environment.name == word


def by_prefix(prefix: str, found: Sequence[EnvironmentRef]) -> EnvironmentRef:
    """Return the one whose id begins so, or that its backend calls so.

    Raises:
        EnvironmentNotFoundError: None is, or more than one.
    """
    ids = {ref.environment_id: ref for ref in found}
    matching = sorted(name for name, ref in ids.items() if is_meant(prefix, ref))
    if len(matching) == 1:
        return ids[matching[0]]
    if matching:
        what = f"{len(matching)} environments begin with {prefix!r} or are called so"
        raise EnvironmentNotFoundError(f"{what}: {_listed(matching)}")
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
