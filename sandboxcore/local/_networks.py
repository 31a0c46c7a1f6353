"""Which services share a network stack, and what they call each other."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

from ..errors import CapabilityError

if TYPE_CHECKING:
    from ..spec import EnvironmentSpec, ServiceSpec

__all__ = ("HOST", "NetworkPlan", "hosts_file", "plan_networks")

#: In place of a group's number: the service is on the host's network.
HOST = -1


@dataclass(frozen=True, kw_only=True)
class NetworkPlan:
    """Groups of services that reach each other, and everybody's address.

    Args:
        groups: Service to the number of its group; ``HOST`` for those on the host's network.
        count: How many groups have a network of their own.
        addresses: Service to its own loopback address.
    """

    groups: Mapping[str, int]
    count: int
    addresses: Mapping[str, str]

    def siblings(self, service: str) -> tuple[str, ...]:
        """List the other services that it reaches."""
        group = self.groups[service]
        return tuple(name for name, other in self.groups.items() if name != service and other == group)


def plan_networks(spec: EnvironmentSpec) -> NetworkPlan:
    """Put services that reach each other into one network stack.

    Raises:
        CapabilityError: Two services reach a third but not each other, or only one of two that share a network may leave it.
    """
    components = _components(spec)
    for names in components:
        _check_mutual(spec, names)
        _check_internet(spec, names)
    groups: dict[str, int] = {}
    count = 0
    for names in components:
        online = spec.services[names[0]].network_policy.internet
        groups.update(dict.fromkeys(names, HOST if online else count))
        count += not online
    addresses = {name: f"127.0.{1 + index // 250}.{1 + index % 250}" for index, name in enumerate(spec.services)}
    return NetworkPlan(groups=groups, count=count, addresses=addresses)


def _shared(spec: EnvironmentSpec, one: str, other: str) -> list[str]:
    theirs = spec.services[other].networks or ()
    return [network for network in spec.services[one].networks or () if network in theirs]


def _components(spec: EnvironmentSpec) -> list[list[str]]:
    components: list[list[str]] = []
    for name in spec.services:
        touching = [names for names in components if any(_shared(spec, name, other) for other in names)]
        merged = [other for names in touching for other in names]
        components = [names for names in components if names not in touching]
        components.append([*merged, name])
    return components


def _check_mutual(spec: EnvironmentSpec, names: Sequence[str]) -> None:
    for one, other in combinations(names, 2):
        if _shared(spec, one, other):
            continue
        between = next((name for name in names if _shared(spec, one, name) and _shared(spec, name, other)), None)
        via = f"both reach {between!r}" if between else "are connected through others"
        raise CapabilityError(
            f"networks: services {one!r} and {other!r} share no network but {via}; the local backend can only keep services "
            "apart that have no neighbour in common",
            hint="put these services on one network, or use a backend with real networks",
        )


def _check_internet(spec: EnvironmentSpec, names: Sequence[str]) -> None:
    online = [name for name in names if spec.services[name].network_policy.internet]
    offline = [name for name in names if name not in online]
    if online and offline:
        raise CapabilityError(
            f"network_policy.internet: service {online[0]!r} has it and {offline[0]!r}, on the same network, has not; "
            "the local backend can't connect the two",
            hint="give it to both or to neither, put them on different networks, or use a backend with real networks",
        )


def hosts_file(spec: EnvironmentSpec, plan: NetworkPlan, service: str) -> str:
    """Render /etc/hosts of a service."""
    lines = ["127.0.0.1 localhost", "::1 localhost ip6-localhost ip6-loopback"]
    for name in (service, *plan.siblings(service)):
        names = [word for word in _names(name, spec.services[name], spec.services[service]) if _is_host_name(word)]
        if names:
            lines.append(f"{plan.addresses[name]} {' '.join(dict.fromkeys(names))}")
    for host, addresses in spec.services[service].extra_hosts.items():
        lines.extend(f"{_address(address)} {host}" for address in addresses)
    return "\n".join(lines) + "\n"


def _names(name: str, service: ServiceSpec, seen_from: ServiceSpec) -> list[str]:
    mine = seen_from.networks or {}
    aliases = [alias for network, names in (service.networks or {}).items() if network in mine for alias in names]
    return [name, *([service.hostname] if service.hostname else []), *service.aliases, *aliases]


def _is_host_name(word: str) -> bool:
    return bool(word) and word.isprintable() and not any(letter.isspace() or letter == "#" for letter in word)


def _address(text: str) -> str:
    """Return the address; names such as ``host-gateway`` are this machine."""
    try:
        return str(ipaddress.ip_address(text.strip("[]")))
    except ValueError:
        return "127.0.0.1"
