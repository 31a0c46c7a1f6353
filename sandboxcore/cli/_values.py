"""What people type as the value of an option: ``K=V``, durations, configuration files. Pure."""

from __future__ import annotations

import json
import os
import re
from typing import TYPE_CHECKING, Any

import click

from ..errors import SpecError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, MutableMapping
    from pathlib import Path

__all__ = (
    "DURATION",
    "backend_config",
    "environment_variables",
    "json_or_text",
    "key_values",
    "parse_duration",
    "read_config_file",
)

_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_DURATION = re.compile(r"(?:[0-9]{1,12}(?:\.[0-9]+)?[smhdw])+|[0-9]{1,12}(?:\.[0-9]+)?")
_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)([smhdw]?)")


def parse_duration(text: str) -> float:
    """Read ``90``, ``90s``, ``8h`` or ``1h30m`` as seconds.

    Raises:
        ValueError: It is none, or not above 0.
    """
    if not _DURATION.fullmatch(text):
        raise ValueError(f"{text!r} is no duration; write 90s, 15m, 8h or 2d")
    seconds = sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text))
    if seconds <= 0:
        raise ValueError("a duration has to be above 0")
    return seconds


class _Duration(click.ParamType):  # type: ignore[type-arg]
    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, (int, float)):
            return float(value)
        try:
            return parse_duration(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


DURATION = _Duration()


def key_values(option: str, items: Iterable[str]) -> dict[str, str]:
    """Read ``K=V`` words; the last of several with one key counts.

    Raises:
        UsageError: One has no ``=`` or no key. The value is not repeated in the message: it may be a secret.
    """
    values: dict[str, str] = {}
    for item in items:
        key, separator, value = item.partition("=")
        if not separator:
            raise UsageError(f"{option}: a value is missing", hint=f"write {option} NAME=VALUE")
        if not key:
            raise UsageError(f"{option}: the name before '=' is missing", hint=f"write {option} NAME=VALUE")
        values[key] = value
    return values


def environment_variables(items: Iterable[str], own: Mapping[str, str] | None = None) -> dict[str, str]:
    """Read the words of ``-e``: ``K=V``, or ``K`` for the value that it has here.

    Raises:
        UsageError: ``K`` alone is not set here.
    """
    own = os.environ if own is None else own
    words = []
    for item in items:
        if "=" not in item and item not in own:
            raise UsageError(f"-e {item}: it is not set here", hint=f"write -e {item}=VALUE, or set it first")
        words.append(item if "=" in item else f"{item}={own[item]}")
    return key_values("-e", words)


def backend_config(items: Iterable[str], file: Path | None) -> dict[str, Any]:
    """Put the backend's configuration together: the file first, then each ``--config``.

    A dot in a key goes one level down. A value that starts with ``[``, ``{`` or ``"`` is JSON, any other is text; the
    backend's own model makes numbers of text.

    Raises:
        UsageError: A word or the file can't be read.
    """
    config = read_config_file(file) if file else {}
    for key, text in key_values("--config", items).items():
        _put(config, key.split("."), _config_value(key, text))
    return config


def json_or_text(text: str) -> Any:
    """Read ``true``, ``3`` or ``["a"]`` as JSON, and what is none as text."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _config_value(key: str, text: str) -> Any:
    if text[:1] not in ("[", "{", '"'):
        return text
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise UsageError(
            f"--config {key}: column {error.colno}: {error.msg}", hint="the value has to be JSON, or plain text"
        ) from None


def _put(config: MutableMapping[str, Any], path: list[str], value: Any) -> None:
    for name in path[:-1]:
        inner = config.setdefault(name, {})
        if not isinstance(inner, dict):
            raise UsageError(f"--config {'.'.join(path)}: {name!r} already has a value that holds no keys")
        config = inner
    config[path[-1]] = value


def read_config_file(path: Path) -> dict[str, Any]:
    """Read a configuration file: TOML, or JSON where the name says so.

    Raises:
        UsageError: It can't be read, or is no table; with line and column where they are known.
    """
    import tomllib

    try:
        text = path.read_text(encoding="utf-8")
        data = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}", hint="--config-file takes a TOML or .json file") from None
    except UnicodeDecodeError as error:
        raise SpecError(f"{path}: byte {error.start} is not UTF-8", hint="--config-file takes a TOML or .json file") from None
    except json.JSONDecodeError as error:
        raise SpecError(f"{path}:{error.lineno}:{error.colno}: {error.msg}", hint="a .json file is read as JSON") from None
    except tomllib.TOMLDecodeError as error:
        raise SpecError(_toml_message(path, str(error)), hint="a file that is not called .json is read as TOML") from None
    if not isinstance(data, dict):
        raise SpecError(f"{path}:1:1: expected a table of keys, not {type(data).__name__}")
    return data


def _toml_message(path: Path, message: str) -> str:
    """Move the place that tomllib puts at the end of its message to the front."""
    found = re.search(r" \(at line (\d+), column (\d+)\)$", message)
    if not found:
        return f"{path}: {message}"
    return f"{path}:{found[1]}:{found[2]}: {message[: found.start()]}"
