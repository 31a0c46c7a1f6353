"""Which networks of the engine carry an environment: who reaches whom, and who reaches the internet. Decided without I/O."""

from __future__ import annotations

import ipaddress
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sandboxcore.errors import SpecError

if TYPE_CHECKING:
    from sandboxcore.spec import EnvironmentSpec

__all__ = ("OFFLINE_RESOLVER", "NetworkPlan", "PlannedNetwork", "check_pool", "network_body", "pick_subnet", "plan_networks")

#: Where nobody answers: the engine's resolver knows the siblings, and all other names end there at once instead of outside.
OFFLINE_RESOLVER = "127.0.0.53"
_SMALLEST = 29


@dataclass(frozen=True, kw_only=True)
class PlannedNetwork:
    """A network to be made.

    Args:
        key: ``network:NAME`` for one of the spec, ``egress:SERVICE`` for a service's own way out.
        members: Service to its aliases there.
    """

    key: str
    internal: bool
    members: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, kw_only=True)
class NetworkPlan:
    """All networks of an environment."""

    networks: tuple[PlannedNetwork, ...]

    def of(self, service: str) -> tuple[PlannedNetwork, ...]:
        """List those that a service is on."""
        return tuple(network for network in self.networks if service in network.members)

    def is_online(self, service: str) -> bool:
        """Tell whether a service has a way out."""
        return any(not network.internal for network in self.of(service))


def plan_networks(spec: EnvironmentSpec) -> NetworkPlan:
    """Plan as few networks as do: siblings meet on shared ones, and only who may use the internet is on one that leads there.

    A network whose members all may is left open; on any other, each that may gets a way out of its own, where nobody else is.
    One on which a service would be alone is not made.
    """
    planned: list[PlannedNetwork] = []
    for name, network in spec.networks.items():
        members = {
            service: _aliases(spec, service, name) for service in spec.services if name in (spec.services[service].networks or ())
        }
        if len(members) < 2:
            continue
        all_online = all(spec.services[service].network_policy.internet for service in members)
        planned.append(PlannedNetwork(key=f"network:{name}", internal=network.internal or not all_online, members=members))
    for name, service in spec.services.items():
        wants = service.network_policy.internet and service.networks is not None
        if wants and not any(name in network.members and not network.internal for network in planned):
            planned.append(PlannedNetwork(key=f"egress:{name}", internal=False, members={name: ()}))
    return NetworkPlan(networks=tuple(planned))


def _aliases(spec: EnvironmentSpec, name: str, network: str) -> tuple[str, ...]:
    service = spec.services[name]
    own = (service.networks or {}).get(network, ())
    names = (name, name.lower(), *service.aliases, *own, *((service.hostname,) if service.hostname else ()))
    return tuple(dict.fromkeys(names))


def check_pool(pool: str) -> ipaddress.IPv4Network:
    """Read the pool of addresses.

    Raises:
        SpecError: It is no range of IPv4 addresses, or too small to be cut.
    """
    try:
        network = ipaddress.IPv4Network(pool)
    except ValueError as error:
        raise SpecError(f"config: address_pool: {error}") from None
    if network.prefixlen > _SMALLEST - 4:
        raise SpecError(f"config: address_pool: {pool!r} is too small; give it a /{_SMALLEST - 4} at least")
    return network


def pick_subnet(pool: ipaddress.IPv4Network, members: int) -> ipaddress.IPv4Network:
    """Choose a subnet at random that has room for so many; the engine refuses one that overlaps, and another is tried."""
    prefix = _SMALLEST
    # Network, broadcast and gateway take three addresses.
    while (1 << (32 - prefix)) - 3 < members:
        prefix -= 1
    count = 1 << (prefix - pool.prefixlen)
    index = random.randrange(count)
    return ipaddress.IPv4Network((int(pool.network_address) + (index << (32 - prefix)), prefix))


def network_body(name: str, network: PlannedNetwork, subnet: ipaddress.IPv4Network, labels: Mapping[str, str]) -> dict[str, Any]:
    """Write the body of ``POST /networks/create``.

    An internal bridge without an address of its own keeps the containers from what listens on the engine's machine, too.
    """
    return {
        "Name": name,
        "Driver": "bridge",
        "CheckDuplicate": True,
        "Internal": network.internal,
        "IPAM": {"Driver": "default", "Config": [{"Subnet": str(subnet)}]},
        "Options": {"com.docker.network.bridge.inhibit_ipv4": "true"} if network.internal else {},
        "Labels": dict(labels),
    }


def own_names(spec: EnvironmentSpec, service: str, plan: NetworkPlan) -> Sequence[str]:
    """List the names that a service has, for where no network of the engine knows them."""
    described = spec.services[service]
    names = (service, *described.aliases, *(alias for names in (described.networks or {}).values() for alias in names))
    if any(network.key.startswith("network:") for network in plan.of(service)):
        return ()
    return tuple(dict.fromkeys(name for name in names if name.isprintable() and not any(c.isspace() or c in "#:" for c in name)))
