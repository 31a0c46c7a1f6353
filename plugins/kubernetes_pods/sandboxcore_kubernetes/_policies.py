"""Which traffic is let through: nothing, but DNS, siblings on one network, and what a service asks for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from .naming import INSTANCE, SERVICE_NAME, dns_label, label_value, object_name

if TYPE_CHECKING:
    from sandboxcore.spec import EnvironmentSpec, ServiceSpec

    from .objects import Placement

__all__ = ("DNS", "PRIVATE_RANGES", "leaves", "network_label", "network_policies")

#: What ``internet`` does not cover: private, shared, link-local and loopback addresses (RFC 1918, 6598, 3927, 4193, 4291).
PRIVATE_RANGES = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "169.254.0.0/16", "127.0.0.0/8")
_PRIVATE_RANGES_6 = ("fc00::/7", "fe80::/10", "::1/128")
#: The way out to the cluster's resolver, as a rule of a NetworkPolicy.
DNS: Mapping[str, Any] = {
    "to": [
        {
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}},
            "podSelector": {"matchExpressions": [{"key": "k8s-app", "operator": "In", "values": ["kube-dns", "node-local-dns"]}]},
        },
        {"ipBlock": {"cidr": "169.254.20.10/32"}},  # a node's own cache of it
    ],
    "ports": [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}],
}


def network_label(network: str) -> str:
    """Label of the pods that are on a network."""
    return f"sandboxcore.dev/network-{dns_label(network, 50)}"


def leaves(spec: EnvironmentSpec, service: ServiceSpec) -> bool:
    """Tell whether a service has a way out: an ``internal`` network has none."""
    if service.networks is None:
        return True
    return not service.networks or any(not spec.networks[name].internal for name in service.networks)


def network_policies(spec: EnvironmentSpec, placement: Placement) -> list[dict[str, Any]]:
    """Build the policies of an environment."""
    everyone = {"matchLabels": {INSTANCE: placement.instance}}
    found = [_policy(placement, "deny", {"podSelector": everyone, "policyTypes": ["Ingress", "Egress"]})]
    alone = [label_value(name) for name, service in spec.services.items() if service.networks is None]
    resolvers: dict[str, Any] = dict(everyone)
    if alone:
        resolvers["matchExpressions"] = [{"key": SERVICE_NAME, "operator": "NotIn", "values": alone}]
    found.append(_policy(placement, "dns", {"podSelector": resolvers, "policyTypes": ["Egress"], "egress": [DNS]}))
    found += _networks(spec, placement)
    for name, service in spec.services.items():
        found += _outside(spec, name, service, placement)
    return found


def _networks(spec: EnvironmentSpec, placement: Placement) -> Iterator[dict[str, Any]]:
    for network in spec.networks:
        if sum(network in (service.networks or ()) for service in spec.services.values()) < 2:
            continue
        members = {"matchLabels": {INSTANCE: placement.instance, network_label(network): "true"}}
        body = {
            "podSelector": members,
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"from": [{"podSelector": members}]}],
            "egress": [{"to": [{"podSelector": members}]}],
        }
        yield _policy(placement, f"network-{network}", body)


def _outside(spec: EnvironmentSpec, name: str, service: ServiceSpec, placement: Placement) -> Iterator[dict[str, Any]]:
    if not leaves(spec, service):
        return
    policy = service.network_policy
    peers: list[dict[str, Any]] = []
    if policy.internet or "world" in policy.allow_entities:
        except4 = [*PRIVATE_RANGES, *(each for each in placement.cluster_ranges if ":" not in each)]
        except6 = [*_PRIVATE_RANGES_6, *(each for each in placement.cluster_ranges if ":" in each)]
        peers.append({"ipBlock": {"cidr": "0.0.0.0/0", "except": list(dict.fromkeys(except4))}})
        peers.append({"ipBlock": {"cidr": "::/0", "except": list(dict.fromkeys(except6))}})
    peers += [{"ipBlock": {"cidr": cidr}} for cidr in policy.allow_cidrs]
    if "cluster" in policy.allow_entities:
        peers.append({"namespaceSelector": {}})
    own = {"matchLabels": {INSTANCE: placement.instance, SERVICE_NAME: label_value(name)}}
    if peers:
        yield _policy(placement, f"egress-{name}", {"podSelector": own, "policyTypes": ["Egress"], "egress": [{"to": peers}]})
    if policy.allow_domains and placement.cilium:
        yield _domains(name, policy.allow_domains, own, placement)


def _domains(name: str, domains: tuple[str, ...], own: dict[str, Any], placement: Placement) -> dict[str, Any]:
    """Build Cilium's rule for names: their ports 80 and 443, or all where any name will do, as the Helm backend's chart does.

    Source: https://docs.cilium.io/en/stable/security/policy/language/#dns-based
    """
    names = [{"matchPattern": each} if "*" in each else {"matchName": each} for each in domains]
    resolver = {"matchLabels": {"k8s:io.kubernetes.pod.namespace": "kube-system", "k8s:k8s-app": "kube-dns"}}
    dns = {
        "toEndpoints": [resolver],
        "toPorts": [{"ports": [{"port": "53", "protocol": "ANY"}], "rules": {"dns": [{"matchPattern": "*"}]}}],
    }
    allowed: dict[str, Any] = {"toFQDNs": names}
    if "*" not in domains:
        allowed["toPorts"] = [{"ports": [{"port": port, "protocol": "TCP"} for port in ("80", "443")]}]
    return {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumNetworkPolicy",
        "metadata": placement.metadata(object_name(placement.instance, f"domains-{name}")),
        "spec": {"endpointSelector": own, "egress": [dns, allowed]},
    }


def _policy(placement: Placement, name: str, body: dict[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": placement.metadata(object_name(placement.instance, name)),
        "spec": body,
    }
