"""Tells whether templates do no more with a value than write it.

All markers may take the same branch of a condition which a real text would take another one of, and no comparison of renderings
shows that. So the templates are read: wherever the value may have got to, through variables, blocks and named templates, it has
to be written as it is. What can't be followed counts as more than that.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

__all__ = ("Source", "more_than_written")

_ACTION = re.compile(
    r"\{\{-?((?:/\*.*?\*/|\"(?:\\.|[^\"\\\n])*\"|`[^`]*`|'(?:\\.|[^'\\\n])+'|[^\"`'])*?)-?\}\}",
    re.DOTALL,
)
_COMMENT = re.compile(r"\A\s*/\*.*\*/\s*\Z", re.DOTALL)
_LITERAL = re.compile(r"\"((?:\\.|[^\"\\\n])*)\"|`([^`]*)`|'(?:\\.|[^'\\\n])+'")
_DECLARED = re.compile(r"(\$\w+)(?:\s*,\s*(\$\w+))?\s*:?=(?!=)")
_CALLED = re.compile(r"\b(?:include|template|block)\s+(?:\"([^\"]*)\"|`([^`]*)`|(?=\S))")
_DEFINED = re.compile(r"\A(?:define|block)\s+[\"`]([^\"`]*)[\"`]")
#: What a reference begins with, and its fields.
_REFERENCE = re.compile(r"(\$\w*|\))?((?:\.[^\W\d]\w*)+)|(\$\w*)|(?<![\w.])\.(?![\w.])")
_WORD = re.compile(r"(?<![.\w$])[A-Za-z_]\w*")
#: The root goes on under its own name, and what is taken from it there is seen there.
_ROOT_HANDED_ON = re.compile(r"\b(?:include|template)\s+\S+\s+[.$](?![\w.])")
_TPL = re.compile(r"\btpl\s+(?:\([^()]*\)|[$.\w]+)\s+[.$](?=\s*(?:[)|]|$))")
#: Functions that show what is in a whole mapping.
_SHOWING = re.compile(r"\b(range|values|quote|squote|cat|join|print\w*|(must)?[tT]o[A-Z]\w*|html|js|urlquery)\b")
_FORMAT = re.compile(r"%(?![svdq%])")
#: Methods of Values, which a template may call as if they were fields.
_METHODS = frozenset(("AsMap", "Encode", "PathValue", "Table", "YAML"))
_CONSTANTS = frozenset(("true", "false", "nil", "dict", "list", "default"))
_WRITING = _CONSTANTS | frozenset(
    (
        *("quote", "squote", "toYaml", "toJson", "toPrettyJson", "toRawJson", "toYamlPretty", "mustToYaml", "mustToJson"),
        *("toString", "print", "printf", "println", "indent", "nindent", "trim", "required", "include", "template", "tpl"),
    )
)
#: What only asks whether there is something, which is so for every text that is not empty.
_ASKING = _CONSTANTS | frozenset(("and", "or", "not", "empty"))
_BLOCKS = ("if", "with", "range", "define", "block")
#: Stands for what ``tpl`` may bring in.
_ANY_TPL = "tpl of values"


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """Text with template actions.

    Args:
        name: For reasons.
        scope: Sources of one scope may share variables.
        by_tpl: It is rendered only where a template hands it to ``tpl``.
        trusted: It is known to do no more than write, whatever the reading says.
    """

    name: str
    text: str
    scope: str
    by_tpl: bool = False
    trusted: bool = False


@dataclass(frozen=True, slots=True)
class _Action:
    line: int
    before: str
    keyword: str
    body: str  # without its literals
    literals: tuple[str, ...]
    called: tuple[str, ...]
    declared: tuple[str, ...]
    defined: str


def more_than_written(path: Sequence[str], sources: Iterable[Source]) -> str:
    """Find a place where the value at a path may be more than written; empty: there is none, for texts that are not empty."""
    read = []
    for source in sources:
        actions = _actions(source.text)
        if actions is None:
            return f"{source.name}: has template actions that can't be followed"
        read.append((source, actions))
    return _Following(path).through(read)


@functools.lru_cache(maxsize=512)
def _actions(text: str) -> Sequence[_Action] | None:
    """Take a text apart; None: it can't be, or its blocks don't end within it."""
    found = []
    depth = 0
    if "{{" in _ACTION.sub("", text):
        return None
    for match in _ACTION.finditer(text):
        if _COMMENT.match(match[1]):
            continue
        action = _action(match, text)
        depth += (action.keyword in _BLOCKS) - (action.keyword == "end")
        if depth < 0:
            return None
        found.append(action)
    return found if depth == 0 else None


def _action(match: re.Match[str], text: str) -> _Action:
    whole = match[1].strip()
    body = _LITERAL.sub('""', whole)
    keyword = body.split(None, 1)[0] if body else ""
    if keyword == "else" and len(body.split()) > 1:
        keyword = f"else {body.split()[1]}"
    defined = _DEFINED.match(whole)
    return _Action(
        line=text.count("\n", 0, match.start()) + 1,
        before=text[text.rfind("\n", 0, match.start()) + 1 : match.start()],
        keyword=keyword,
        body=body,
        literals=tuple(one or other for one, other in _LITERAL.findall(whole)),
        called=tuple(one or other for one, other in _CALLED.findall(whole)),
        declared=tuple(name for found in _DECLARED.findall(body) for name in found if name),
        defined=defined[1] if defined else "",
    )


class _Following:
    """Follows one value: ``touched`` are the named templates, ``variables`` those of each scope that may hold it."""

    def __init__(self, path: Sequence[str]) -> None:
        self._path = tuple(path)
        self._touched: set[str] = set()
        self._variables: set[tuple[str, str]] = set()
        self._anywhere = False

    def through(self, read: Sequence[tuple[Source, Sequence[_Action]]]) -> str:
        """Go through all sources until nothing new is reached."""
        known = None
        while known != (known := (len(self._touched), len(self._variables), self._anywhere)):
            for source, actions in read:
                for action in self._wrong(source, actions):
                    return f"{source.name}:{action.line}: does more with {'.'.join(self._path)} than write it"
        return ""

    def _wrong(self, source: Source, actions: Iterable[_Action]) -> Iterator[_Action]:
        dots = [False]
        outer = [""]  # named templates around
        for action in actions:
            keyword = action.keyword.removeprefix("else ")
            if action.keyword == "end":
                dots.pop()
                outer.pop()
                continue
            if action.keyword.startswith("else"):
                dots[-1] = dots[-2]
            held, brought = self._held(source, action, dots[-1]), self._brought(action)
            if held or brought:
                self._anywhere = True
                self._variables |= {(source.scope, name) for name in action.declared}
                self._touched |= {name for name in outer if name}
                if source.by_tpl:
                    self._touched.add(_ANY_TPL)
                if source.trusted:
                    self._touched |= set(action.called) if held else set()
                elif not _is_written(action, keyword, held=held, brought=brought):
                    yield action
            if action.keyword in _BLOCKS:
                dots.append(dots[-1])
                outer.append(action.defined)
            if keyword in ("with", "range"):
                dots[-1] = held or brought
            elif keyword in ("define", "block"):
                dots[-1] = False

    def _held(self, source: Source, action: _Action, dot: bool) -> bool:
        """Tell whether an action refers to the value, or to what it is in."""
        if "Values" in action.literals:
            return True
        rest = _TPL.sub(lambda found: found[0][:-1], _ROOT_HANDED_ON.sub("include", action.body)) if not dot else action.body
        for before, fields, alone in _REFERENCE.findall(rest):
            start = before or alone
            chain = tuple(field for field in fields.split(".") if field)
            if (source.scope, start) in self._variables or (dot and not start):
                return True
            if not chain and start in ("", "$") and _SHOWING.search(action.body):
                return True
            for index, field in enumerate(chain):
                if field == "Values" and self._leads(chain[index + 1 :]):
                    return True
        return False

    def _leads(self, chain: tuple[str, ...]) -> bool:
        """Tell whether fields of the values lead to the value, in the chart or in one below it, whose values are a part."""
        if not chain or chain[0] in _METHODS:
            return True
        ends = [self._path[start:] for start in range(len(self._path))]
        return any(all(one == other for one, other in zip(chain, end, strict=False)) for end in ends)

    def _brought(self, action: _Action) -> bool:
        """Tell whether a named template, or one in the values, may bring the value."""
        if _ANY_TPL in self._touched and re.search(r"\btpl\b", action.body):
            return True
        return any(name in self._touched if name else self._anywhere for name in action.called)


def _is_written(action: _Action, keyword: str, *, held: bool, brought: bool) -> bool:
    if any("{{" in literal for literal in action.literals) or "helm.sh/" in action.before:
        return False
    words = set(_WORD.findall(action.body)) - {"else"}
    if keyword in ("if", "with"):
        return not brought and words <= _ASKING | {keyword}
    if keyword == "range":
        return not brought and words <= _CONSTANTS | {keyword}
    if held and action.called:
        return False
    if held and "tpl" in words and (len(_TPL.findall(action.body)) != 1 or action.body.count("tpl") != 1):
        return False
    if "printf" in words and any(_FORMAT.search(literal) for literal in action.literals):
        return False
    return words <= _WRITING
