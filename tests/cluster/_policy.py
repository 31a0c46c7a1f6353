"""What the packet filter must hold so that every NetworkPolicy is kept: a pure function of the cluster's objects.

A packet between pods passes the sender's egress chain, then the receiver's ingress chain; replies pass by connection
tracking. What the node itself sends to its pods (probes, exec) is always allowed, as Kubernetes asks. The rules live in
the table `mangle`, which comes before kube-proxy's, so that no accepted packet gets by them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from ipaddress import IPv4Network
from typing import Any

Object = Mapping[str, Any]
Key = tuple[str, str]
ROOTS = {"SBX-FORWARD": "FORWARD", "SBX-INPUT": "INPUT"}


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """The objects that policies speak of, by namespace and name; `addresses` are those of pods that start now."""

    pods: Mapping[Key, Object] = field(default_factory=dict)
    namespaces: Mapping[Key, Object] = field(default_factory=dict)
    policies: Mapping[Key, Object] = field(default_factory=dict)
    addresses: Mapping[Key, str] = field(default_factory=dict)

    def address(self, key: Key) -> str:
        pod = self.pods[key]
        if pod["status"].get("phase") in ("Succeeded", "Failed") or pod["spec"].get("hostNetwork"):
            return ""
        return self.addresses.get(key) or pod["status"].get("podIP") or ""


@dataclass(frozen=True)
class Rules:
    """A rule set of the packet filter."""

    chains: tuple[str, ...]
    lines: tuple[str, ...]

    def text(self, stale: Collection[str] = ()) -> str:
        """Write it for `iptables-restore --noflush`, which swaps it in at once; `stale` chains that it lacks are removed."""
        gone = [chain for chain in stale if chain not in self.chains]
        heads = [f":{chain} - [0:0]" for chain in [*self.chains, *gone]]
        return "\n".join(["*mangle", *heads, *self.lines, *(f"-X {chain}" for chain in gone), "COMMIT", ""])


def rules(snapshot: Snapshot, bridge: str) -> Rules:
    """Work out the rule set for pods behind a bridge."""
    jumps = [f"-A {root} -m conntrack --ctstate RELATED,ESTABLISHED -j RETURN" for root in ROOTS]
    chains, verdicts = list(ROOTS), []
    for direction, mine in (("Egress", "-s"), ("Ingress", "-d")):
        for key in snapshot.pods:
            address, policies = snapshot.address(key), _selecting(snapshot, key, direction)
            if not address or not policies:
                continue
            chain = f"SBX-{direction[0]}-{sha256('/'.join(key).encode()).hexdigest()[:16]}"
            chains.append(chain)
            jumps.append(f"-A SBX-FORWARD {mine} {address}/32 -j {chain}")
            if direction == "Egress":
                jumps.append(f"-A SBX-INPUT -i {bridge} -s {address}/32 -j {chain}")
            verdicts += [f"-A {chain} {rule}" for policy in policies for rule in _allowed(snapshot, key, policy, direction)]
            verdicts.append(f"-A {chain} -j DROP")
    return Rules(tuple(chains), (*jumps, *verdicts))


def _selecting(snapshot: Snapshot, key: Key, direction: str) -> list[Object]:
    labels = _labels(snapshot.pods[key])
    return [
        policy
        for (namespace, _), policy in snapshot.policies.items()
        if namespace == key[0] and direction in _types(policy) and matches(policy["spec"].get("podSelector"), labels)
    ]


def _types(policy: Object) -> Sequence[str]:
    spec = policy["spec"]
    return spec.get("policyTypes") or (["Ingress", "Egress"] if spec.get("egress") else ["Ingress"])


def _allowed(snapshot: Snapshot, key: Key, policy: Object, direction: str) -> list[str]:
    """Write the matches, each with its verdict, of what one policy lets one pod send or receive."""
    there, word = ("-d", "to") if direction == "Egress" else ("-s", "from")
    found = []
    for rule in policy["spec"].get(direction.lower()) or []:
        listed = rule.get(word)
        targets = [target for peer in listed for target in _peers(snapshot, peer, key[0])] if listed else [("0.0.0.0/0", None)]
        for network, pod in targets:
            receiver = pod if direction == "Egress" else snapshot.pods[key]
            found += [f"{there} {network}{port} -j RETURN" for port in _ports(rule.get("ports"), receiver)]
    return found


def _peers(snapshot: Snapshot, peer: Object, namespace: str) -> list[tuple[str, Object | None]]:
    """Name the networks, with the pod where it is one, that a policy's peer means."""
    if block := peer.get("ipBlock"):
        return [(network, None) for network in subtract(block["cidr"], block.get("except") or [])]
    found: list[tuple[str, Object | None]] = []
    for key, pod in snapshot.pods.items():
        labels = _labels(snapshot.namespaces.get(("", key[0]), {"metadata": {}}))
        inside = matches(peer["namespaceSelector"], labels) if "namespaceSelector" in peer else key[0] == namespace
        if inside and matches(peer.get("podSelector"), _labels(pod)) and (address := snapshot.address(key)):
            found.append((f"{address}/32", pod))
    return found


def _ports(ports: Sequence[Object] | None, receiver: Object | None) -> list[str]:
    """Write the matches of a rule's ports; a named one is looked up in the receiving pod."""
    if not ports:
        return [""]
    found = []
    for port in ports:
        protocol, number = str(port.get("protocol", "TCP")).lower(), port.get("port")
        if isinstance(number, str):
            containers = receiver["spec"]["containers"] if receiver else []
            named = [p["containerPort"] for c in containers for p in c.get("ports") or [] if p.get("name") == number]
            if not named:
                continue
            number = named[0]
        end = f":{port['endPort']}" if port.get("endPort") else ""
        found.append(f" -p {protocol} -m {protocol}" + ("" if number is None else f" --dport {number}{end}"))
    return found


def matches(selector: Object | None, labels: Mapping[str, str]) -> bool:
    """Say whether labels match a label selector; an empty or absent one matches all."""
    selector = selector or {}
    if any(labels.get(key) != value for key, value in (selector.get("matchLabels") or {}).items()):
        return False
    return all(_term(term, labels) for term in selector.get("matchExpressions") or [])


def _term(term: Object, labels: Mapping[str, str]) -> bool:
    value, values = labels.get(term["key"]), term.get("values") or []
    answers = {"In": value in values, "NotIn": value not in values, "Exists": value is not None, "DoesNotExist": value is None}
    return answers[term["operator"]]


def subtract(network: str, holes: Sequence[str]) -> list[str]:
    """Name the networks that remain of one without holes (IPv4 only: a test cluster has no other)."""
    left = [IPv4Network(network)] if ":" not in network else []
    for hole in (IPv4Network(hole) for hole in holes if ":" not in hole):
        left = [part for net in left for part in _without(net, hole)]
    return [str(net) for net in left]


def _without(network: IPv4Network, hole: IPv4Network) -> list[IPv4Network]:
    if hole.subnet_of(network):
        return list(network.address_exclude(hole))
    return [] if network.subnet_of(hole) else [network]


def _labels(item: Object) -> Mapping[str, str]:
    return item["metadata"].get("labels") or {}
