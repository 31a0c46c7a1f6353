"""What is said of pods under ``options.kubernetes`` and is not in a release: this backend has words of its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from sandboxcore.report import Loss, ReportEntry

if TYPE_CHECKING:
    from sandboxcore.spec import EnvironmentSpec

__all__ = ("unsaid_words",)

#: Word to the service's value that says it to the built-in chart.
_OF_A_SERVICE = {
    "affinity": "affinity",
    "annotations": "annotations",
    "node_selector": "nodeSelector",
    "priority_class": "priorityClassName",
    "tolerations": "tolerations",
}
#: Word to where all pods of the built-in chart are told it.
_OF_ALL = {
    "automount_service_account_token": "options.helm.automount_service_account_token at the top",
    "image_pull_secrets": "imagePullSecrets in the values of the configuration",
    "labels": "labels in the configuration",
    "service_account": "options.helm.service_account_name at the top",
    "service_account_create": "options.helm.service_account_create at the top",
}


def unsaid_words(spec: EnvironmentSpec, values: Mapping[str, Any], *, written: bool) -> Iterator[ReportEntry]:
    """Tell of each word that neither the release's values nor the service's own words for Helm say.

    Args:
        values: Those of the release.
        written: They are the built-in chart's, written from the services; what others make of a word is not known.

    Raises:
        SpecError: An unknown word, or a wrong value.
    """
    for name, service in spec.services.items():
        if "kubernetes" not in spec.options and "kubernetes" not in service.options:
            continue
        from sandboxcore_kubernetes.objects import pod_options

        words = pod_options(spec, name).model_dump(exclude_defaults=True)
        said = _said(words, spec.options.get("helm", {}), service.options.get("helm", {}), values) if written else set()
        for word in words:
            if word not in said:
                yield ReportEntry(
                    loss=Loss.APPROX,
                    key=f"services.{name}.options.kubernetes.{word}",
                    reason=_way(word) if written else "the values that are given decide",
                    service=name,
                )


def _said(words: Mapping[str, Any], common: Mapping[str, Any], own: Mapping[str, Any], values: Mapping[str, Any]) -> set[str]:
    found = {word for word, key in _OF_A_SERVICE.items() if key in own.get("values", {})}
    if "node_selector" in own or "node_selector" in common:
        found.add("node_selector")
    secrets = {one.get("name") for one in values.get("imagePullSecrets") or ()}
    labels: Mapping[str, Any] = values.get("labels") or {}
    of_all = {
        "automount_service_account_token": bool(values.get("automountServiceAccountToken")),
        "image_pull_secrets": secrets.issuperset(words.get("image_pull_secrets", ())),
        "labels": labels.items() >= words.get("labels", {}).items(),
        "service_account": values.get("serviceAccountName") == words.get("service_account"),
        "service_account_create": bool(values.get("serviceAccountCreate")),
    }
    return found | {word for word, is_said in of_all.items() if is_said}


def _way(word: str) -> str:
    if word in _OF_A_SERVICE:
        return f"is not for Helm: say {_OF_A_SERVICE[word]} in the service's options.helm.values"
    if word in _OF_ALL:
        return f"is not for Helm: say {_OF_ALL[word]}"
    return "is not for Helm: the built-in chart has no word for it"
