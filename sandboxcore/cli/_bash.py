"""Completion for bash, which splits words at colons: ``ENV:SERVICE:PATH`` would be five words to it."""

from __future__ import annotations

import os

from click.shell_completion import BashComplete, CompletionItem, add_completion_class, split_arg_string

__all__ = ("ColonBashComplete", "register")

_SCRIPT = """\
%(complete_func)s() {
    local IFS=$'\\n' completion type value
    COMPREPLY=()
    for completion in $(env COMP_TYPED="${COMP_LINE:0:$COMP_POINT}" COMP_BREAKS="$COMP_WORDBREAKS" \
%(complete_var)s=bash_complete $1); do
        IFS=',' read -r type value <<< "$completion"
        case $type in
            dir) compopt -o dirnames ;;
            file) compopt -o default ;;
            plain) COMPREPLY+=("$value"); [[ $value != *: ]] || compopt -o nospace ;;
        esac
    done
    return 0
}
complete -o nosort -F %(complete_func)s %(prog_name)s
"""


class ColonBashComplete(BashComplete):
    """Works from the line as it was typed, and answers with what bash takes for the last word."""

    source_template = _SCRIPT

    def get_completion_args(self) -> tuple[list[str], str]:
        typed = os.environ.get("COMP_TYPED", "")
        words = split_arg_string(typed)[1:]
        if not words or typed[-1:].isspace():
            return words, ""
        return words[:-1], words[-1]

    def get_completions(self, args: list[str], incomplete: str) -> list[CompletionItem]:
        found = super().get_completions(args, incomplete)
        known, colon, _ = incomplete.rpartition(":")
        if not colon or ":" not in os.environ.get("COMP_BREAKS", ""):
            return found
        return [CompletionItem(str(item.value).removeprefix(known + colon), item.type, item.help) for item in found]


def register() -> None:
    """Use it for bash."""
    add_completion_class(ColonBashComplete, "bash")
