"""The rights that the Helm backend needs in its namespace."""

from __future__ import annotations

import re
from collections.abc import Iterable

from sandboxcore.errors import UsageError
from sandboxcore_kubernetes.rbac import POD_RULES, Rule

__all__ = ("RULES", "reaper_rules")

_RESOURCE = re.compile(r"([a-z][a-z0-9-]*)(?:\.([a-z0-9.-]*[a-z0-9]))?")
_MADE = ("create", "get", "list", "delete", "deletecollection")

#: What making, finding and taking away releases needs; the last ones only charts that have such objects.
RULES: tuple[Rule, ...] = (
    *POD_RULES,
    Rule("", "pods", ("create", "delete", "deletecollection", "patch"), "to make sandboxes and take them away"),
    Rule("", "secrets", (*_MADE, "patch", "update"), "for Helm's records of releases, and for files"),
    Rule("", "configmaps", _MADE, "to bring the guest into pods"),
    Rule("", "services", _MADE, "for the names of services"),
    Rule("coordination.k8s.io", "leases", ("create", "get", "list", "patch", "delete"), "to claim environments"),
    Rule("networking.k8s.io", "networkpolicies", _MADE, "to keep sandboxes apart"),
    Rule("", "persistentvolumeclaims", _MADE, "for volumes that services share", optional=True),
    Rule("", "serviceaccounts", _MADE, "for releases with an account of their own", optional=True),
    Rule("apps", "statefulsets", _MADE, "for charts that have them", optional=True),
    Rule("apps", "deployments", _MADE, "for charts that have them", optional=True),
    Rule("batch", "jobs", _MADE, "for charts that have hooks", optional=True),
    Rule("cilium.io", "ciliumnetworkpolicies", _MADE, "for rules with names, on clusters with Cilium", optional=True),
)


def reaper_rules(more: Iterable[str] = ()) -> tuple[Rule, ...]:
    """Write what the reaper needs: to see all that a release may have, and to delete it.

    Args:
        more: Further resources that charts make, as kubectl has them: ``ingresses.networking.k8s.io``.

    Raises:
        UsageError: One of them is none.
    """
    made = [(rule.group, rule.resource) for rule in RULES if "create" in rule.verbs and "/" not in rule.resource]
    made += [_resource(text) for text in more]
    verbs = ("get", "list", "delete", "deletecollection")
    return tuple(Rule(group, resource, verbs, "to take away what is expired") for group, resource in dict.fromkeys(made))


def _resource(text: str) -> tuple[str, str]:
    found = _RESOURCE.fullmatch(text)
    if found is None:
        raise UsageError(
            f"{text!r} is no resource", hint="as `kubectl api-resources -o name` has it: ingresses.networking.k8s.io"
        )
    return found[2] or "", found[1]
