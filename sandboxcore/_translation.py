"""Turn whatever describes an environment into an ``EnvironmentSpec`` and a report."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from ._validation import did_you_mean, printable, validated
from .errors import PluginError, SandboxError, SpecError, UsageError
from .report import TranslationReport
from .spec import EnvironmentSpec, ServiceSpec
from .values import Translation

if TYPE_CHECKING:
    from .abc import Translator
    from .plugins import PluginHost
    from .values import BackendInfo

    Source: TypeAlias = EnvironmentSpec | Mapping[str, object] | str | os.PathLike[str] | Sequence[str | os.PathLike[str]]

__all__ = ("translate",)


def translate(
    source: Source | None,
    *,
    host: PluginHost,
    backend: BackendInfo,
    variables: Mapping[str, str] | None = None,
    translator: str | None = None,
    options: Mapping[str, object] | None = None,
) -> Translation:
    """Make a spec of a spec, a mapping, the path of a document or several paths; None is one service with nothing in it.

    Raises:
        SpecError: The source is wrong, missing, or nothing that an installed translator knows.
        UsageError: The source is of a type that can't be one, or there is no such translator.
        PluginError: The translator itself failed.
    """
    if source is None:
        return _as_is(EnvironmentSpec(services={"default": ServiceSpec()}))
    if isinstance(source, EnvironmentSpec):
        return _as_is(source)
    if isinstance(source, Mapping):
        return _as_is(validated(EnvironmentSpec, dict(source)))
    paths = _paths(source)
    chosen = _named(translator, host) if translator else _claiming(paths[0], host)
    try:
        found = chosen.translate(paths, variables=variables, backend=backend, options=options)
    except SandboxError:
        raise
    except Exception as error:
        raise PluginError(f"translator {chosen.name!r} raised {type(error).__name__}: {error}") from error
    if not isinstance(found, Translation):
        raise PluginError(f"translator {chosen.name!r} returned {type(found).__name__}; it has to return a Translation")
    return found


def _as_is(spec: EnvironmentSpec) -> Translation:
    return Translation(spec=spec, report=TranslationReport())


def _paths(source: object) -> list[Path]:
    items = list(source) if isinstance(source, Sequence) and not isinstance(source, (str, bytes)) else [source]
    if not items:
        raise UsageError("no document was given", hint="name at least one file")
    paths: list[Path] = []
    for item in items:
        if not isinstance(item, (str, os.PathLike)) or isinstance(os.fspath(item), bytes):
            raise UsageError(f"a source is a spec, a mapping or the path of a document, not {type(item).__name__}")
        paths.append(Path(os.fspath(item)))
    for path in paths:
        _check_file(path)
    return paths


def _check_file(path: Path) -> None:
    try:
        if path.is_file():
            return
        is_directory, exists = path.is_dir(), path.exists()
        beside = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() and not exists else []
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a path"
        raise SpecError(f"{str(path)!r}: can't be read: {reason}") from None
    if is_directory:
        raise SpecError(f"{printable(str(path))}: is a directory", hint="name the file in it")
    if not exists:
        raise SpecError(f"{printable(str(path))}: no such file{printable(did_you_mean(path.name, beside))}")
    # What is neither (a pipe, say) the translator may read.


def _named(name: str, host: PluginHost) -> Translator:
    translators = {translator.name: translator for translator in host.translators()}
    if name in translators:
        return translators[name]
    near = did_you_mean(name, translators)
    raise UsageError(f"no translator is called {name!r}{near}; installed: {', '.join(translators) or 'none'}")


def _claiming(path: Path, host: PluginHost) -> Translator:
    translators = host.translators()
    for translator in translators:
        if _claims(translator, path):
            return translator
    if not translators:
        broken = next(
            (problem for problem in host.problems if "translator" in problem.problem or problem.name == "compose"), None
        )
        hint = str(broken) if broken else "pip install 'sandboxcore[compose]'"
        raise SpecError(f"{printable(str(path))}: no translator is installed that could read it", hint=hint)
    names = ", ".join(translator.name for translator in translators)
    raise SpecError(
        f"{printable(str(path))}: no translator knows files of that name; installed: {names}", hint="say which one to use"
    )


def _claims(translator: Translator, path: Path) -> bool:
    try:
        return bool(translator.claims(path))
    except Exception as error:
        raise PluginError(f"translator {translator.name!r} raised {type(error).__name__}: {error}") from error
