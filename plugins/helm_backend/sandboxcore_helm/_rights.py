"""The rights that the Helm backend needs in its namespace."""

from __future__ import annotations

from sandboxcore_kubernetes.rbac import POD_RULES, Rule

__all__ = ("REAPER_RULES", "RULES")

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
    Rule("apps", "statefulsets", _MADE, "for charts that have them", optional=True),
    Rule("apps", "deployments", _MADE, "for charts that have them", optional=True),
    Rule("batch", "jobs", _MADE, "for charts that have hooks", optional=True),
    Rule("cilium.io", "ciliumnetworkpolicies", _MADE, "for rules with names, on clusters with Cilium", optional=True),
)

#: What the reaper needs: to see all of it, and to delete it.
REAPER_RULES: tuple[Rule, ...] = tuple(
    Rule(rule.group, rule.resource, ("get", "list", "delete", "deletecollection"), "to take away what is expired")
    for rule in RULES
    if "create" in rule.verbs and "/" not in rule.resource
)
