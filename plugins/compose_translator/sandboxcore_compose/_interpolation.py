"""Puts variables into the values of a document, and turns strings into the numbers and booleans that their keys want."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from ._marks import Map, Path, Problems, Seq
from ._template import InvalidTemplateError, Lookup, RequiredVariableError, names, substitute

__all__ = ("interpolate",)

_Cast = Callable[[str], Any]

_TRUE = frozenset(("true", "y", "yes", "on"))
_FALSE = frozenset(("false", "n", "no", "off"))


def _boolean(text: str) -> bool:
    lower = text.lower()
    if lower in _TRUE or lower in _FALSE:
        return lower in _TRUE
    raise ValueError(f"{text!r} is neither true nor false")


def _integer(text: str) -> int:
    if text.isascii() and text.lstrip("+-").isdigit() and len(text) - len(text.lstrip("+-")) <= 1:
        return int(text)
    raise ValueError(f"{text!r} is not a whole number")


def _number(text: str) -> float:
    try:
        value = float(text) if text.isascii() and text == text.strip() else math.nan
    except ValueError:
        value = math.nan
    if math.isfinite(value):
        return value
    raise ValueError(f"{text!r} is not a number")


_SERVICE_CASTS: dict[str, _Cast] = {
    **dict.fromkeys(
        (
            "cpu_count",
            "cpu_period",
            "cpu_quota",
            "cpu_rt_period",
            "cpu_rt_runtime",
            "cpu_shares",
            "deploy.replicas",
            "deploy.update_config.parallelism",
            "deploy.rollback_config.parallelism",
            "deploy.restart_policy.max_attempts",
            "deploy.placement.max_replicas_per_node",
            "healthcheck.retries",
            "oom_score_adj",
            "pids_limit",
            "ports.[].target",
            "scale",
            "ulimits.*",
            "ulimits.*.hard",
            "ulimits.*.soft",
        ),
        _integer,
    ),
    **dict.fromkeys(
        ("cpu_percent", "cpus", "deploy.update_config.max_failure_ratio", "deploy.rollback_config.max_failure_ratio"), _number
    ),
    **dict.fromkeys(
        (
            "attach",
            "build.no_cache",
            "build.privileged",
            "build.pull",
            "depends_on.*.restart",
            "env_file.[].required",
            "healthcheck.disable",
            "init",
            "oom_kill_disable",
            "post_start.[].privileged",
            "pre_stop.[].privileged",
            "privileged",
            "read_only",
            "stdin_open",
            "tty",
            "volumes.[].read_only",
            "volumes.[].volume.nocopy",
            "volumes.[].bind.create_host_path",
        ),
        _boolean,
    ),
}
_TOP_CASTS: dict[str, _Cast] = dict.fromkeys(
    (
        "networks.*.external",
        "networks.*.internal",
        "networks.*.attachable",
        "networks.*.enable_ipv4",
        "networks.*.enable_ipv6",
        "volumes.*.external",
        "secrets.*.external",
        "configs.*.external",
    ),
    _boolean,
)


class _Step:
    """What is known about the keys below a place in the document."""

    __slots__ = ("cast", "next")

    def __init__(self) -> None:
        self.cast: _Cast | None = None
        self.next: dict[str, _Step] = {}

    def below(self, key: str) -> _Step | None:
        return self.next.get(key) or self.next.get("*")


def _steps() -> _Step:
    root = _Step()
    casts = {f"services.*.{path}": cast for path, cast in _SERVICE_CASTS.items()} | _TOP_CASTS
    for path, cast in casts.items():
        step = root
        for part in path.split("."):
            step = step.next.setdefault(part, _Step())
        step.cast = cast
    return root


_STEPS = _steps()


class _Interpolation:
    def __init__(self, lookup: Lookup, missing: Callable[[str], None] | None, problems: Problems, marker: Any) -> None:
        self.lookup = lookup
        self.missing = missing
        self.problems = problems
        self.root = marker
        #: Service to the variables that its values name.
        self.used: dict[str, set[str]] = {}

    def value(self, value: Any, path: Path, step: _Step | None) -> Any:
        if isinstance(value, str):
            return self.text(value, path, step)
        if isinstance(value, Map):
            result = Map({}, value.mark, dict(value.marks))
            for key, item in value.items():
                result[key] = self.value(item, (*path, key), step.below(key) if step else None)
            return result
        if isinstance(value, Seq):
            below = step.below("[]") if step else None
            return Seq(
                [self.value(item, (*path, index), below) for index, item in enumerate(value)], value.mark, list(value.marks)
            )
        return value

    def text(self, text: str, path: Path, step: _Step | None) -> Any:
        if "$" in text and path[:1] == ("services",) and len(path) > 1:
            self.used.setdefault(str(path[1]), set()).update(names(text))
        try:
            result = substitute(text, self.lookup, self.missing) if "$" in text else text
        except InvalidTemplateError:
            self.problems.at(self.root, path, f"not a valid variable in {_shorten(text)}; write $$ for a dollar sign")
            return text
        except RequiredVariableError as error:
            self.problems.at(self.root, path, str(error))
            return text
        if step is None or step.cast is None:
            return result
        try:
            return step.cast(result)
        except ValueError as error:
            self.problems.at(self.root, path, str(error))
            return result


def _shorten(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")


def interpolate(
    document: Map, lookup: Lookup, problems: Problems, missing: Callable[[str], None] | None = None
) -> tuple[Map, dict[str, set[str]]]:
    """Replace the variables of a document; keys never hold variables.

    Args:
        missing: Is told of each variable that has no value.

    Returns:
        The new document, and the variables that each of its services names.
    """
    work = _Interpolation(lookup, missing, problems, document)
    result = work.value(document, (), _STEPS)
    assert isinstance(result, Map)
    return result, work.used
