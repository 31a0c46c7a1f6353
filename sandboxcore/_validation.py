"""Turn what pydantic says about bad input into one line a problem: where, what, and the nearest name that is known.

No line repeats a value that was given: values may be secrets.
"""

from __future__ import annotations

import types
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, Union, get_args, get_origin

from .errors import SpecError

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError
    from pydantic_core import ErrorDetails

    Model = TypeVar("Model", bound=BaseModel)

__all__ = ("did_you_mean", "nearest", "printable", "problems", "validated")


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Return the known word that is most like this one; None if none is."""
    from difflib import get_close_matches

    by_folded = {name.casefold().replace("-", "_"): name for name in known}
    found = get_close_matches(word.casefold().replace("-", "_"), by_folded, n=1, cutoff=0.6)
    return by_folded[found[0]] if found else None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return `` (did you mean 'x'?)`` for the nearest known word; empty if none is near."""
    found = nearest(word, known)
    return f" (did you mean {found!r}?)" if found else ""


def validated(model: type[Model], data: object, *, what: str = "", owner: str = "") -> Model:
    """Build the model from data that somebody gave.

    Args:
        what: Name of the whole, before the key in each line (``config``).
        owner: Whose keys these are (``backend 'local'``), for lines about unknown ones.

    Raises:
        SpecError: With one problem for each key that is wrong.
    """
    from pydantic import ValidationError

    try:
        return model.model_validate(data)
    except ValidationError as error:
        found = problems(error, model, what=what, owner=owner)
    # Raised out here because the context of the first error would carry the values that were given.
    raise SpecError(problems=found)


def problems(error: ValidationError, model: type[BaseModel], *, what: str = "", owner: str = "") -> tuple[str, ...]:
    """Describe each mistake in a line of its own: ``[what: ]path.to.key: message (did you mean ...)``."""
    found = error.errors(include_url=False, include_context=False, include_input=False)
    return tuple(dict.fromkeys(_line(details, model, what, owner) for details in found))


def _line(details: ErrorDetails, model: type[BaseModel], what: str, owner: str) -> str:
    path = [str(part) for part in _without_union_tags(details["loc"], model)]
    if details["type"] == "extra_forbidden":
        fields = _fields_at(details["loc"][:-1], model)
        of = f" for {owner}" if owner else ""
        key = path.pop()
        message = f"unknown key {key!r}{of}{did_you_mean(key, fields)}"
    elif details["type"] == "missing":
        message = "is required"
    else:
        message = _message(details["msg"])
    return printable(": ".join(part for part in (what, ".".join(path), message) if part))


def printable(line: str) -> str:
    """Escape what would break a line into two, or do worse to a terminal."""
    return line if line.isprintable() else "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in line)


def _message(text: str) -> str:
    for prefix in ("Value error, ", "Assertion failed, "):
        text = text.removeprefix(prefix)
    text = text.replace("Input should be", "must be", 1)
    return text if text.startswith("must") else text[:1].lower() + text[1:] if text[1:2].islower() else text


def _fields_at(location: Sequence[int | str], model: type[BaseModel]) -> tuple[str, ...]:
    """List the keys that are known where the path leads."""
    annotation: Any = model
    for part in location:
        annotation = _step(annotation, part)
    names: list[str] = []
    for candidate in _models(annotation):
        names.extend(field.alias or name for name, field in candidate.model_fields.items())
    return tuple(names)


def _without_union_tags(location: Sequence[int | str], model: type[BaseModel]) -> list[int | str]:
    """Drop what pydantic puts into a path to say which member of a union it tried."""
    kept: list[int | str] = []
    annotation: Any = model
    for part in location:
        following = _step(annotation, part)
        if following is None and isinstance(part, str) and _is_union(annotation):
            continue
        kept.append(part)
        annotation = following
    return kept


def _step(annotation: Any, part: int | str) -> Any:
    """Return the type of a key of a model, or of the items of a collection."""
    from pydantic import BaseModel

    for member in _members(annotation):
        if isinstance(member, type) and issubclass(member, BaseModel):
            for name, field in member.model_fields.items():
                if part in (name, field.alias):
                    return field.annotation
            continue
        arguments = [argument for argument in get_args(member) if argument is not Ellipsis]
        if get_origin(member) in (tuple, list, set, frozenset) and isinstance(part, int) and arguments:
            return arguments[min(part, len(arguments) - 1)]
        if isinstance(get_origin(member), type) and issubclass(get_origin(member) or object, dict) and len(arguments) == 2:
            return arguments[1]
    return None


def _models(annotation: Any) -> list[type[BaseModel]]:
    from pydantic import BaseModel

    return [member for member in _members(annotation) if isinstance(member, type) and issubclass(member, BaseModel)]


def _members(annotation: Any) -> list[Any]:
    """Flatten unions and ``Annotated``."""
    if get_origin(annotation) is Annotated:
        return _members(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return [member for argument in get_args(annotation) for member in _members(argument)]
    return [] if annotation is type(None) else [annotation]


def _is_union(annotation: Any) -> bool:
    return len(_members(annotation)) > 1
