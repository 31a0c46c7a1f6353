"""Which rights a client needs, which of them are missing, and the Role that gives them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .cluster import Cluster

__all__ = ("POD_RULES", "Rule", "missing", "role")


@dataclass(frozen=True, slots=True)
class Rule:
    """Verbs on a resource (``pods`` or ``pods/exec``) and what they are needed for; an optional one only makes things better."""

    group: str
    resource: str
    verbs: tuple[str, ...]
    purpose: str
    optional: bool = False


#: What reaching sandboxes needs, whatever made them.
POD_RULES: tuple[Rule, ...] = (
    Rule("", "pods", ("get", "list", "watch"), "to find sandboxes and to see when they are ready"),
    Rule("", "pods/exec", ("create", "get"), "to run commands and move files"),
    Rule("", "pods/log", ("get",), "to show what services wrote", optional=True),
    Rule("", "pods/portforward", ("create", "get"), "to reach ports of services", optional=True),
    Rule("", "events", ("list", "watch"), "to say why a pod does not start", optional=True),
)


async def missing(cluster: Cluster, rules: Sequence[Rule] = POD_RULES, *, namespace: str | None = None) -> tuple[Rule, ...]:
    """Ask for every right and return those that are missing, each with only the verbs that are.

    Raises:
        ApiError: The server does not answer such questions.
    """
    import asyncio

    asked = [(rule, verb) for rule in rules for verb in rule.verbs]

    async def ask(rule: Rule, verb: str) -> bool:
        resource, _, subresource = rule.resource.partition("/")
        return await cluster.can_i(verb, resource, group=rule.group, subresource=subresource, namespace=namespace)

    answers = await asyncio.gather(*(ask(rule, verb) for rule, verb in asked))
    lacking: dict[Rule, list[str]] = {}
    for (rule, verb), allowed in zip(asked, answers, strict=True):
        if not allowed:
            lacking.setdefault(rule, []).append(verb)
    return tuple(Rule(rule.group, rule.resource, tuple(verbs), rule.purpose, rule.optional) for rule, verbs in lacking.items())


def role(rules: Sequence[Rule], *, name: str = "sandboxcore", namespace: str) -> dict[str, Any]:
    """Build the Role that gives these rights."""
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "Role",
        "metadata": {"name": name, "namespace": namespace},
        "rules": [{"apiGroups": [rule.group], "resources": [rule.resource], "verbs": list(rule.verbs)} for rule in rules],
    }
