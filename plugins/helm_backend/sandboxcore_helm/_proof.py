"""Proves that a chart's rendering depends on the release's name by nothing but the name's own letters, and makes a pattern of it.

The renderings of several markers are compared as parsed YAML: after putting one sign for each rendering's own marker they must
be the same, key by key. What this can't see (an object that two releases would share, say) is refused apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sandboxcore.errors import UsageError

from ._manifest import Document, documents
from ._pattern import NAME_SIGN, HookPattern, ObjectPattern, Pattern, has_hole, hole_sign, seal
from ._release import Hook, Release

__all__ = ("Marked", "NotProvenError", "prove")


class NotProvenError(Exception):
    """Substituting would not be exact, or can't be shown to be.

    Args:
        reason: What stands against it, for traces.
        holes: Whether it is about the values that differ, and not about the name.
    """

    def __init__(self, reason: str, *, holes: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.holes = holes


@dataclass(frozen=True, kw_only=True, slots=True)
class Marked:
    """A rendering, and the texts that stood for the values that differ from release to release."""

    release: Release
    texts: tuple[str, ...] = ()

    def signed(self, text: str) -> str:
        """Put signs in the place of the markers."""
        for index, marker in enumerate(self.texts):
            text = text.replace(marker, hole_sign(index))
        return text.replace(self.release.name, NAME_SIGN)


def prove(renderings: Sequence[Marked], namespace: str) -> Pattern:
    """Make a pattern of renderings of one chart with the same values under different names.

    Raises:
        NotProvenError: They differ in more than the markers, or an object is of a kind that this can't be shown for.
    """
    first = renderings[0]
    parsed = [_parsed(one) for one in renderings]
    objects = _objects([documents for documents, _ in parsed], renderings)
    hooks = _hooks(renderings)
    for pattern in objects:
        _check(pattern, namespace)
    exact_text = not first.texts and _same([[one.text for one in documents] for documents, _ in parsed], renderings)
    return Pattern(
        objects=tuple(objects),
        manifest=first.signed(first.release.manifest) if exact_text else None,
        hooks=tuple(hooks),
        notes=_common([one.signed(one.release.notes) for one in renderings]),
        chart=first.release.chart,
        config=_merged([one.release.config for one in renderings], renderings, "values"),
    )


def _parsed(one: Marked) -> tuple[list[Document], None]:
    try:
        return list(documents(one.release.manifest)), None
    except UsageError as error:
        raise NotProvenError(str(error), holes=bool(one.texts)) from None


def _same(texts: list[list[str]], renderings: Sequence[Marked]) -> bool:
    signed = [[one.signed(text) for text in each] for one, each in zip(renderings, texts, strict=True)]
    return all(each == signed[0] for each in signed)


def _common(texts: list[str]) -> str:
    return texts[0] if all(text == texts[0] for text in texts) else ""


def _objects(rendered: list[list[Document]], renderings: Sequence[Marked]) -> list[ObjectPattern]:
    if len({len(found) for found in rendered}) != 1:
        raise NotProvenError("how many objects there are depends on the name")
    patterns = []
    for same in zip(*rendered, strict=True):
        where = f"{same[0].source or 'manifest'} ({same[0].body['kind']})"
        body = _merged([document.body for document in same], renderings, where)
        patterns.append(ObjectPattern(source=same[0].source, body=body, sealed=seal(body)))
    return patterns


def _hooks(renderings: Sequence[Marked]) -> list[HookPattern]:
    rendered = [sorted(one.release.hooks, key=lambda hook: (hook.weight, hook.raw.get("path", ""))) for one in renderings]
    if len({len(found) for found in rendered}) != 1:
        raise NotProvenError("how many hooks there are depends on the name")
    patterns = []
    for same in zip(*rendered, strict=True):
        where = f"hook {same[0].raw.get('path', same[0].name)}"
        raw = _merged([_without_manifest(hook) for hook in same], renderings, where)
        bodies = [[document.body for document in documents(hook.manifest)] for hook in same]
        merged = _merged(bodies, renderings, where)
        patterns.append(HookPattern(raw=raw, bodies=seal(merged), sealed=seal(raw)))
    return patterns


def _without_manifest(hook: Hook) -> dict[str, Any]:
    return {key: value for key, value in hook.raw.items() if key not in ("manifest", "last_run")}


def _merged(values: Sequence[Any], renderings: Sequence[Marked], where: str) -> Any:
    """Return the one value that all of these are once markers are signs.

    Raises:
        NotProvenError: There is no such one; the message has the path to the difference.
    """
    first = values[0]
    if any(type(value) is not type(first) for value in values):
        raise _difference(values, renderings, where)
    if isinstance(first, dict):
        return _merged_mapping(values, renderings, where)
    if isinstance(first, list):
        if any(len(value) != len(first) for value in values):
            raise _difference(values, renderings, where)
        return [_merged(same, renderings, f"{where}[{index}]") for index, same in enumerate(zip(*values, strict=True))]
    if isinstance(first, str):
        signed = [one.signed(value) for one, value in zip(renderings, values, strict=True)]
        if any(text != signed[0] for text in signed):
            raise _difference(values, renderings, where)
        return signed[0]
    if any(value != first for value in values):
        raise _difference(values, renderings, where)
    return first


def _merged_mapping(values: Sequence[Mapping[str, Any]], renderings: Sequence[Marked], where: str) -> dict[str, Any]:
    signed = [{one.signed(key): value for key, value in each.items()} for one, each in zip(renderings, values, strict=True)]
    # A text as a key may be one that is there already.
    if any(each.keys() != signed[0].keys() for each in signed) or any(has_hole(key) for key in signed[0]):
        raise _difference(values, renderings, where)
    return {key: _merged([each[key] for each in signed], renderings, f"{where}.{key}") for key in signed[0]}


def _difference(values: Sequence[Any], renderings: Sequence[Marked], where: str) -> NotProvenError:
    """Name the place of a difference; never the values, which may be secrets."""
    about_holes = any(marker in str(value) for one, value in zip(renderings, values, strict=True) for marker in one.texts)
    place = "".join(letter if letter.isprintable() else "?" for letter in where)
    return NotProvenError(f"{place} depends on the name by more than its letters", holes=about_holes or bool(renderings[0].texts))


def _check(pattern: ObjectPattern, namespace: str) -> None:
    """Refuse objects that releases would share, that another namespace has, or whose names the server makes."""
    body = pattern.body
    where = f"{pattern.source or 'manifest'} ({body['kind']})"
    metadata = body.get("metadata")
    if body["kind"].endswith("List"):
        raise NotProvenError(f"{where} is a list of objects")
    if not isinstance(metadata, dict) or not isinstance(metadata.get("name"), str):
        raise NotProvenError(f"{where} has no name of its own")
    if NAME_SIGN not in metadata["name"]:
        raise NotProvenError(f"{where} has a name that every release would share")
    if metadata.get("namespace") not in (None, namespace):
        raise NotProvenError(f"{where} is in another namespace")
