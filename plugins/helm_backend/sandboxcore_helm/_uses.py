"""Tells whether templates do no more with a value than write it.

All markers may take the same branch of a condition which a real text would take another one of, and no comparison of renderings
shows that. So the templates are read: wherever the value may have got to, through variables, blocks and named templates, it has
to be written as it is. What can't be followed counts as more than that.
"""

from __future__ import annotations

import enum
import functools
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

__all__ = ("Source", "calls_tpl", "more_than_written")

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
_REFERENCE = re.compile(r"(\$\w*|\))?((?:\.[^\W\d][\w-]*)+)|(\$\w*)|(?<![\w.])\.(?![\w.])")
_WORD = re.compile(r"(?<![.\w$\"-])[A-Za-z_]\w*")
_ENDS = r"(?=\s*(?:[)|]|$))"
#: A field by its name, which is as good as written with a dot; what a pipe brings would be one name more.
_FIELD = re.compile(rf"(\|\s*)?\b(?:index|get)\s+([.$][\w.]*)((?:\s+(?:\"[A-Za-z_][\w-]*\"|`[A-Za-z_][\w-]*`))+){_ENDS}")
#: Which keys there are is the same for all texts.
_HAS_KEY = re.compile(rf"\bhasKey\s+[.$][\w.-]*\s+\"\"{_ENDS}")
#: The root goes on under its own name, and so do all values: what is taken from them there is seen there.
_HANDED_ON = re.compile(rf"\b(?:include|template)\s+\S+\s+([.$][\w.-]*){_ENDS}")
_HANDED_ON_WITHIN = re.compile(r"\b(?:include|template)\s+\S+\s+\(dict\s(?:[^()]|\([^()]*\))*\)")
_NAMED_VALUES = re.compile(r"\"Values\"\s+([.$][\w.-]*)(?=[\s)])")
#: A name or the dot for what a reference is, and no more.
_RENAMED = re.compile(r"(?:(?:else\s+)?with\s+(?:\$\w+\s*:?=\s*)?|\$\w+\s*:?=\s*)(?:(?:deepCopy|mustDeepCopy)\s+)?[.$][\w.-]*")
_TPL = re.compile(rf"\btpl\s+(?:\([^()]*\)|[$.\w-]+)\s+([.$]){_ENDS}")
#: A mapping whose keys are written in the template.
_DICT = re.compile(rf"\bdefault\s+dict\b|\bdict(?:\s+\"(?:Values)?\"\s+(?:\"\"|[$.\w-]+))*{_ENDS}")
_DICT_OF_CALLED = re.compile(r"\bdict\b.*\b(?:include|template|tpl)\b", re.DOTALL)
#: Functions that show what is in a whole mapping.
_SHOWING = re.compile(r"\b(range|values|quote|squote|cat|join|print\w*|(must)?[tT]o[A-Z]\w*|html|js|urlquery)\b")
_OTHER_FORMAT = re.compile(r"\bprintf\b(?!\s+\"\")")
_FORMAT = re.compile(r"%(?![svdq%])")
#: Methods of Values, which a template may call as if they were fields.
_METHODS = frozenset(("AsMap", "Encode", "PathValue", "Table", "YAML"))
_CONSTANTS = frozenset(("true", "false", "nil", "dict", "list", "default"))
_WRITING = _CONSTANTS | frozenset(
    (
        *("quote", "squote", "toYaml", "toJson", "toPrettyJson", "toRawJson", "toYamlPretty", "mustToYaml", "mustToJson"),
        *(
            "deepCopy",
            "mustDeepCopy",
            "toString",
            "print",
            "printf",
            "println",
            "indent",
            "nindent",
            "trim",
            "required",
            "include",
            "template",
            "tpl",
        ),
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


class _Holds(enum.IntEnum):
    """What a variable or the dot may be: nothing of the value, all values with it among them, or what the value is in."""

    NOTHING = 0
    ALL = 1
    VALUE = 2


@dataclass(frozen=True, slots=True)
class _Place:
    scope: str
    dot: _Holds
    dollar: _Holds


@dataclass(frozen=True, slots=True)
class _Action:
    line: int
    before: str
    keyword: str
    body: str  # its literals are empty, except for "Values"
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


def calls_tpl(text: str) -> bool:
    """Tell whether a template may hand something to ``tpl``."""
    actions = _actions(text)
    return actions is None or any("tpl" in _WORD.findall(action.body) for action in actions)


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
    dotted = _FIELD.sub(_with_dots, whole)
    body = _LITERAL.sub(lambda found: '"Values"' if "Values" in found.groups() else '""', dotted)
    body = _HAS_KEY.sub("true", body)
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


def _with_dots(found: re.Match[str]) -> str:
    piped, start, names = found.groups()
    return found[0] if piped else ".".join((start.rstrip("."), *(name.strip('"`') for name in names.split())))


class _Following:
    """Follows one value.

    ``touched`` are the named templates, ``variables`` those of each scope that may hold it; ``handed`` and ``renamed`` are those
    that may get or hold all values.
    """

    def __init__(self, path: Sequence[str]) -> None:
        self._path = tuple(path)
        self._touched: set[str] = set()
        self._variables: set[tuple[str, str]] = set()
        self._handed: set[str] = set()
        self._renamed: set[tuple[str, str]] = set()
        self._anywhere = False

    def through(self, read: Sequence[tuple[Source, Sequence[_Action]]]) -> str:
        """Go through all sources until nothing new is reached."""
        known = None
        while known != (known := self._reached()):
            for source, actions in read:
                for action in self._wrong(source, actions):
                    return f"{source.name}:{action.line}: does more with {'.'.join(self._path)} than write it"
        return ""

    def _reached(self) -> tuple[int, ...]:
        return (len(self._touched), len(self._variables), len(self._handed), len(self._renamed), self._anywhere)

    def _wrong(self, source: Source, actions: Iterable[_Action]) -> Iterator[_Action]:
        dots = [_Holds.NOTHING]
        outer = [""]  # named templates around
        for action in actions:
            keyword = action.keyword.removeprefix("else ")
            if action.keyword == "end":
                dots.pop()
                outer.pop()
                continue
            if action.keyword.startswith("else"):
                dots[-1] = dots[-2]
            place = _Place(source.scope, dots[-1], max(map(self._got, outer)))
            holds, brought = self._holds(action, place), self._brought(action)
            held = holds is _Holds.VALUE
            if held or brought:
                self._anywhere = True
                self._variables |= {(source.scope, name) for name in action.declared}
                self._touched |= {name for name in outer if name}
                if source.by_tpl:
                    self._touched.add(_ANY_TPL)
                if source.trusted:
                    self._touched |= set(action.called) if held else set()
                elif self._shows_to_tpl(action, place) or not _is_written(action, keyword, held=held, brought=brought):
                    yield action
            elif holds is _Holds.ALL:
                self._renamed |= {(source.scope, name) for name in action.declared}
            if action.keyword in _BLOCKS:
                dots.append(dots[-1])
                outer.append(action.defined)
            if keyword in ("with", "range"):
                dots[-1] = _Holds.VALUE if brought else holds
            elif keyword in ("define", "block"):
                dots[-1] = self._got(action.defined)

    def _got(self, name: str) -> _Holds:
        """Tell what a named template may get."""
        return _Holds.ALL if name and (name in self._handed or "" in self._handed) else _Holds.NOTHING

    def _holds(self, action: _Action, place: _Place) -> _Holds:
        """Tell whether an action refers to the value, or to what it is in, or is another name for all values."""
        rest = _HANDED_ON_WITHIN.sub(lambda within: _NAMED_VALUES.sub(lambda one: self._let(one, place), within[0]), action.body)
        rest = _HANDED_ON.sub(lambda one: self._hand(one, action, place), rest)
        rest = _TPL.sub(lambda one: one[0] if self._of(one[1], place) else one[0][:-1], rest)
        if '"Values"' in rest:
            return _Holds.VALUE
        references = [found[0] for found in _REFERENCE.finditer(rest)]
        found = max((self._of(reference, place) for reference in references), default=_Holds.NOTHING)
        if found is _Holds.ALL and not _RENAMED.fullmatch(rest):
            return _Holds.VALUE
        if any(reference in (".", "$") for reference in references) and _SHOWING.search(action.body):
            return _Holds.VALUE
        return found

    def _let(self, named: re.Match[str], place: _Place) -> str:
        return "true" if self._of(named[1], place) is _Holds.ALL else named[0]

    def _hand(self, handed: re.Match[str], action: _Action, place: _Place) -> str:
        holds = self._of(handed[1], place)
        if holds is _Holds.ALL:
            self._handed |= set(action.called)
            return "include"
        return "include" if holds is _Holds.NOTHING and handed[1] in (".", "$") else handed[0]

    def _of(self, reference: str, place: _Place) -> _Holds:
        """Tell what a reference holds."""
        start, *chain = reference.split(".")
        if reference == ".":
            chain = []
        if (place.scope, start) in self._variables or (not start and place.dot is _Holds.VALUE):
            return _Holds.VALUE
        holds = {"": place.dot, "$": place.dollar}.get(start, _Holds.NOTHING)
        if holds is _Holds.ALL or (place.scope, start) in self._renamed:
            chain = ["Values", *chain]
        ends = [tuple(chain[index + 1 :]) for index, field in enumerate(chain) if field == "Values"]
        if any(end and self._leads(end) for end in ends):
            return _Holds.VALUE
        return _Holds.ALL if () in ends else _Holds.NOTHING

    def _shows_to_tpl(self, action: _Action, place: _Place) -> bool:
        """Tell whether a template in the values gets what is not the root: what it takes from that can't be followed."""
        return any(self._of(found[1], place) for found in _TPL.finditer(action.body))

    def _leads(self, chain: tuple[str, ...]) -> bool:
        """Tell whether fields of the values lead to the value, in the chart or in one below it, whose values are a part."""
        if chain[0] in _METHODS:
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
    if brought and _DICT_OF_CALLED.search(action.body):
        return False
    if held and len(_DICT.findall(action.body)) != len(re.findall(r"\bdict\b", action.body)):
        return False
    if keyword in ("if", "with"):
        return not brought and words <= _ASKING | {keyword}
    if keyword == "range":
        return not brought and words <= _CONSTANTS | {keyword}
    if held and action.called:
        return False
    if held and "tpl" in words and (len(_TPL.findall(action.body)) != 1 or action.body.count("tpl") != 1):
        return False
    if _OTHER_FORMAT.search(action.body):
        return False
    if "printf" in words and any(_FORMAT.search(literal) for literal in action.literals):
        return False
    return words <= _WRITING
