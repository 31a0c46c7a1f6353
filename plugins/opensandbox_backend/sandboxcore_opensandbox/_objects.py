"""What an environment needs besides its pods. All of it belongs to the first BatchSandbox, and goes with it."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sandboxcore_kubernetes.gates import GATE
from sandboxcore_kubernetes.guest_mount import GUEST_PATH, guest_mount
from sandboxcore_kubernetes.objects import Placement, pod_template, service_objects, shared_objects

from ._names import API_VERSION
from ._patching import strategic_merge

if TYPE_CHECKING:
    from sandboxcore.spec import EnvironmentSpec

    from ._config import OpenSandboxConfig
    from ._notes import Notes

__all__ = ("GUEST_PATH", "owned", "placement", "pod", "template_objects")

Object = dict[str, Any]


def placement(
    environment_id: str, notes: Notes, namespace: str, labels: Mapping[str, str], config: OpenSandboxConfig
) -> Placement:
    """Say where an environment of a batch goes; the batch's environments share one guest."""
    return Placement(
        instance=environment_id,
        namespace=namespace,
        labels=labels,
        guest_config_map=f"{notes.batch}-guest",
        cilium=config.cilium,
        cluster_ranges=config.cluster_ranges,
        storage_class=config.storage_class,
    )


def pod(spec: EnvironmentSpec, service: str, place: Placement, config: OpenSandboxConfig, *, held_back: bool = False) -> Object:
    """Build a service's pod as its template is.

    Args:
        held_back: Whether it has a gate, since it waits for others.
    """
    made = pod_template(spec, service, place)
    if held_back:
        made["spec"]["schedulingGates"] = [{"name": GATE}]
    return strategic_merge(made, config.pod_patch) if config.pod_patch else made


def template_objects(spec: EnvironmentSpec, notes: Notes, places: Sequence[Placement]) -> list[Object]:
    """Build everything but the pods of the services that are made from images: for all environments of a batch."""
    found: list[Object] = []
    for place in places:
        found += shared_objects(spec, place)
        for service in notes.part:
            found += service_objects(spec, service, place)
    guest = guest_mount(f"{notes.batch}-guest", namespace=places[0].namespace, labels=places[0].labels)
    return [guest.config_map, *found]


def owned(objects: Sequence[Object], owner: Mapping[str, Any]) -> list[Object]:
    """Make all of these go when the owner goes."""
    metadata = owner["metadata"]
    reference = {"apiVersion": API_VERSION, "kind": "BatchSandbox", "name": metadata["name"], "uid": metadata["uid"]}
    made = []
    for obj in objects:
        made.append(copy.deepcopy(obj))
        made[-1]["metadata"]["ownerReferences"] = [reference]
    return made
