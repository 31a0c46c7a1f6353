"""Looks through a chart's files for what the comparison of renderings can't see."""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import yaml
from sandboxcore.errors import UsageError

from ._goyaml import load
from ._uses import Source, calls_tpl

__all__ = ("ChartScan", "early_hooks_in", "scan_chart", "scan_values", "stamp", "value_sources", "value_words")

#: Template functions whose result is another one each time, or that ask the world.
VOLATILE = re.compile(
    r"(?<![.\w$\"])(now|ago|date|dateInZone|date_in_zone|htmlDate|htmlDateInZone|rand\w+|gen[A-Z]\w+|uuidv4|shuffle|bcrypt|htpasswd"
    r"|encryptAES|lookup|getHostByName)\b"
)
_ACTION = re.compile(r"\{\{-?(.*?)-?\}\}", re.DOTALL)
_COMMENT = re.compile(r"\A\s*/\*.*\*/\s*\Z", re.DOTALL)
_LITERAL = re.compile(r"[\"`]([^\"`\n]*)[\"`]")
_WORD = re.compile(r"[a-z0-9]{2,8}")
_TEMPLATE = re.compile(r"(^|/)templates/")
#: The chart's own files, and where it is plain which: what their names begin with, or a variable.
_FILES = re.compile(
    r"\.Files\b(?:\.(?:Get|GetBytes|Lines|Glob)\s+(?:[\"`](?P<name>[^\"`*?\[{\\]*)[^\"`]*[\"`]|\$(?P<variable>\w+)))?|[\"`]Files[\"`]"
)
_EARLY = "pre-install"
_MAX_FILE_BYTES = 8 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class ChartScan:
    """What a chart's files say of it.

    Args:
        digest: Of all its files.
        name: From its ``Chart.yaml``.
        reasons: Why its renderings can't be substituted; empty where nothing stands against it.
        words: Short words that a release name should not have in it.
        sources: All that may have template actions.
        schemas: Of its values and those of the charts below it, by file.
        imports: The file that makes values of one chart values of another; empty: there is none.
        early_hooks: Whether it may have hooks that run before its objects are created.
        definitions: Whether it brings custom resource definitions, which only helm creates.
    """

    digest: str
    name: str
    reasons: tuple[str, ...] = ()
    words: frozenset[str] = frozenset()
    sources: tuple[Source, ...] = field(default=(), repr=False)
    schemas: Mapping[str, Any] = field(default_factory=dict, repr=False)
    imports: str = ""
    early_hooks: bool = False
    definitions: bool = False


def stamp(path: Path) -> tuple[tuple[str, int, int], ...]:
    """Tell cheaply whether a chart on disk is still the same: name, size and time of its files."""
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    stats = [(str(file), file.stat()) for file in files if file.is_file()]
    return tuple((name, found.st_size, found.st_mtime_ns) for name, found in stats)


def scan_chart(path: Path) -> ChartScan:
    """Read a chart directory or archive.

    Raises:
        UsageError: It is no chart.
    """
    files = dict(_directory(path) if path.is_dir() else _archive(path.read_bytes(), str(path)))
    charts = {name: data for name, data in files.items() if PurePosixPath(name).name == "Chart.yaml"}
    if "Chart.yaml" not in charts:
        raise UsageError(f"chart {str(path)!r} has no Chart.yaml", hint="give the folder that has it, or a packaged chart (.tgz)")
    digest = hashlib.sha256()
    reasons: list[str] = []
    words: set[str] = set()
    sources: list[Source] = []
    definitions = False
    rendered = _rendered(files)
    for name, data in sorted(files.items()):
        digest.update(f"{name}\0{len(data)}\0".encode() + data)
        if re.search(r"(^|/)crds/.+", name):
            definitions = True
            reasons.append(f"{name}: the chart brings custom resource definitions")
        if name in rendered:
            text = data.decode(errors="replace")
            sources.append(Source(name=name, text=text, scope=name, by_tpl=not _TEMPLATE.search(name)))
            found = _scan_text(text, name)
            reasons += found.reasons
            words |= found.words
    metadata = [_mapping(data, name) for name, data in charts.items()]
    names = {str(one.get("name", "")) for one in metadata}
    names |= {str(each.get("alias")) for one in metadata for each in one.get("dependencies") or () if each.get("alias")}
    values = [_mapping(data, name) for name, data in files.items() if PurePosixPath(name).name == "values.yaml"]
    for one in values:
        reasons += scan_values(one)
        words |= value_words(one)
        sources += value_sources(one)
    schemas = {name: data for name, data in files.items() if PurePosixPath(name).name == "values.schema.json"}
    lists = [name for name in files if PurePosixPath(name).name in ("Chart.yaml", "requirements.yaml")]
    return ChartScan(
        digest=digest.hexdigest(),
        name=str(_mapping(charts["Chart.yaml"], "Chart.yaml").get("name", "")),
        reasons=tuple(dict.fromkeys(reasons)),
        words=frozenset(word for word in words | names if word),
        sources=tuple(sources),
        schemas={name: _mapping(data, name) for name, data in schemas.items()},
        imports=next((name for name in lists if b"import-values" in files[name]), ""),
        early_hooks=any(_EARLY.encode() in data for data in files.values()),
        definitions=definitions,
    )


def _rendered(files: Mapping[str, bytes]) -> set[str]:
    """Name the files that are rendered: the templates, and what a template may hand to ``tpl`` of the chart's own files."""
    templates = {name for name in files if _TEMPLATE.search(name)}
    texts = [files[name].decode(errors="replace") for name in sorted(templates)]
    if not any(map(calls_tpl, texts)):
        return templates
    begun = {beginning for text in texts for beginning in _file_names(text)}
    others = {name for name, data in files.items() if b"{{" in data and not name.endswith(".tgz")}
    return templates | {name for name in others if any(f"/{beginning}" in f"/{name}" for beginning in begun)}


def _file_names(text: str) -> Iterator[str]:
    """List what the names of files begin with that a template takes; empty: any may be taken."""
    for found in _FILES.finditer(text):
        variable = found["variable"]
        if variable is None:
            yield found["name"] or ""
            continue
        # The names that a glob found are as good as the glob.
        ranged = re.findall(rf"\brange\s+\${variable}\s*,\s*\$\w+\s*:=\s*\$?\w*\.Files\.Glob\s", text)
        if not ranged or len(ranged) != len(re.findall(rf"\${variable}\b\s*(?:,\s*\$\w+\s*)?:?=|,\s*\${variable}\b", text)):
            yield ""


def _mapping(data: bytes, name: str) -> dict[str, Any]:
    try:
        found = load(data.decode())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"{name}: is no YAML: {' '.join(str(error).split())}") from None
    return found if isinstance(found, dict) else {}


def _directory(path: Path) -> Iterator[tuple[str, bytes]]:
    for file in sorted(path.rglob("*")):
        name = file.relative_to(path).as_posix()
        if file.is_file():
            data = file.read_bytes()
            yield name, data
            if name.startswith("charts/") and name.endswith(".tgz"):
                yield from ((f"{name}/{inner}", each) for inner, each in _archive(data, name))


def _archive(data: bytes, name: str) -> Iterator[tuple[str, bytes]]:
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:*") as archive:
            for member in archive:
                file = archive.extractfile(member) if member.isfile() and member.size <= _MAX_FILE_BYTES else None
                if file is not None:
                    inner = member.name.partition("/")[2] or member.name
                    content = file.read()
                    yield inner, content
                    if inner.endswith(".tgz"):
                        yield from ((f"{inner}/{deeper}", each) for deeper, each in _archive(content, inner))
    except (tarfile.TarError, OSError, EOFError) as error:
        raise UsageError(f"chart {name!r} is no folder and no packaged chart: {error}") from None


@dataclass(frozen=True, slots=True)
class _Text:
    reasons: tuple[str, ...]
    words: frozenset[str]


def _scan_text(text: str, name: str) -> _Text:
    reasons: list[str] = []
    words: set[str] = set()
    for action in _ACTION.finditer(text):
        body = action[1]
        if _COMMENT.match(body):
            continue
        literals = _LITERAL.findall(body)
        words |= {word for literal in literals for word in _WORD.findall(literal) if len(word) == len(literal) or len(word) >= 2}
        found = VOLATILE.search(_LITERAL.sub('""', body))
        if found:
            line = text.count("\n", 0, action.start()) + 1
            reasons.append(f"{name}:{line}: uses {found[1]!r}")
    return _Text(tuple(reasons), frozenset(words))


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield str(key)
            yield from _strings(inner)
    elif isinstance(value, Iterable):
        for inner in value:
            yield from _strings(inner)


def scan_values(values: Mapping[str, Any]) -> list[str]:
    """Find template actions in values (for ``tpl``) that are volatile."""
    if "{{" not in json.dumps(values, default=str):
        return []
    return [reason for text in _strings(values) if "{{" in text for reason in _scan_text(text, "values").reasons]


def value_sources(values: Mapping[str, Any]) -> list[Source]:
    """List the texts of values that a template may hand to ``tpl``."""
    if "{{" not in json.dumps(values, default=str):
        return []
    return [Source(name="values", text=text, scope="values", by_tpl=True) for text in _strings(values) if "{{" in text]


def early_hooks_in(values: Mapping[str, Any]) -> bool:
    """Tell whether values may make a hook of an object that runs before the others are created."""
    return _EARLY in json.dumps(values, default=str)


def value_words(values: Mapping[str, Any]) -> set[str]:
    """List short words of the values that a template could look for in the release's name."""
    return {text for text in _strings(values) if _WORD.fullmatch(text)}
