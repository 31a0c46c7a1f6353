"""Networks as two rules: which services reach each other, and which may leave the environment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sandboxcore.spec import NetworkPolicy, NetworkSpec

from ._extensions import Grant
from ._marks import Map, Path
from ._notes import Notes

__all__ = ("Networking", "declare_networks", "service_network")

_LOCAL_DRIVERS = ("", "bridge", "default", "overlay")
_LEFT_OUT = {
    "name": "a network has its name within the environment only",
    "ipam": "the backend chooses the addresses",
    "attachable": "containers from outside are never attached",
    "enable_ipv4": "the backend chooses the addresses",
    "enable_ipv6": "the backend chooses the addresses",
    "labels": "the backend puts its own labels on a network",
    "driver_opts": "options of a network driver are not used",
}


def declare_networks(declared: dict[str, Any], notes: Notes) -> dict[str, NetworkSpec]:
    """Describe the networks that services use; each key that is not carried over is noted."""
    networks: dict[str, NetworkSpec] = {}
    sources = notes.tree.get("networks") or Map()
    for name, network in declared.items():
        networks[name] = NetworkSpec(internal=bool(network.get("internal")))
        source = sources.get(name)
        if not isinstance(source, Map):
            continue
        for key in source:
            _network_key(key, source, ("networks", name, key), notes)
    for name in sources:
        if name not in networks:
            notes.noop(("networks", name), "no service uses it")
    return networks


def _network_key(key: str, source: Map, path: Path, notes: Notes) -> None:
    value = source[key]
    if key == "driver":
        if value in _LOCAL_DRIVERS:
            notes.noop(path, "the backend chooses how a network is made")
        else:
            notes.reject(path, f"networks of the driver {value!r} can't be had")
    elif key == "external":
        if value:
            notes.policy(path, "the network is one of the environment's own; nothing outside of it is reached", "internet")
    elif key in _LEFT_OUT and key in source.marks:
        notes.noop(path, _LEFT_OUT[key])
    elif key.startswith("x-"):
        notes.noop(path, "an extension that is not known here")


@dataclass
class Networking:
    """What the networks of a service come to."""

    networks: dict[str, tuple[str, ...]] | None
    #: Compose gives the service a way to the internet.
    lets_out: bool


def service_network(service: dict[str, Any], declared: dict[str, NetworkSpec], path: Path, notes: Notes) -> Networking:
    """Tell which networks a service is on, and whether they lead out."""
    mode = str(service.get("network_mode", ""))
    if mode:
        return _by_mode(mode, (*path, "network_mode"), notes)
    networks: dict[str, tuple[str, ...]] = {}
    for name, endpoint in (service.get("networks") or {}).items():
        networks[name] = tuple((endpoint or {}).get("aliases", ()))
        for key in endpoint or ():
            _endpoint_key(key, (*path, "networks", name, key), notes)
    lets_out = any(not declared[name].internal for name in networks if name in declared)
    return Networking(networks, lets_out)


def _by_mode(mode: str, path: Path, notes: Notes) -> Networking:
    if mode == "none":
        return Networking(None, False)
    if mode == "bridge":
        notes.approx(path, "the service is on no network with its siblings; Docker's own bridge has others on it")
        return Networking(None, True)
    if mode == "host":
        notes.reject(path, "a sandbox can't share this machine's network; publish ports, or put services on one network")
    elif mode.startswith("service:"):
        notes.reject(path, "a service can't share another's network; put both on one network and use the service's name")
    else:
        notes.reject(path, f"network mode {mode!r} can't be had; there are none and bridge")
    return Networking(None, False)


def _endpoint_key(key: str, path: Path, notes: Notes) -> None:
    if key in ("ipv4_address", "ipv6_address", "link_local_ips"):
        notes.reject(path, "a sandbox can't have an address of its own choice; use the service's name")
    elif key == "mac_address":
        notes.reject(path, "a sandbox can't have a MAC address of its own choice")
    elif key == "interface_name":
        notes.approx(path, "the backend names the interface")
    elif key != "aliases":
        notes.noop(path, "the backend chooses the order and the options of a service's networks")


def policy(networking: Networking, grant: Grant, shared: Grant, path: Path, notes: Notes) -> NetworkPolicy:
    """Decide where a service may connect to outside.

    The internet is off unless somebody asks for it: Compose's own silence is no request.
    """
    own = grant.internet or grant.allow_domains or grant.allow_cidrs or grant.allow_entities
    if not networking.lets_out:
        if own:
            notes.reject((*path, grant.key), "grants a way out, but the service's networks have none; take one of the two away")
        return NetworkPolicy()
    if notes.options.offline:
        return _shut(grant, shared, path, notes)
    asked = grant.internet if grant.internet is not None else (shared.internet or notes.options.internet)
    domains = (*shared.allow_domains, *grant.allow_domains)
    cidrs = (*shared.allow_cidrs, *grant.allow_cidrs)
    entities = (*shared.allow_entities, *grant.allow_entities)
    where = next(((*path, key) for key in ("network_mode", "networks") if key in _written(notes, path)), path)
    if not asked:
        limited = ", only what the allow lists name" if domains or cidrs or entities else ""
        notes.policy(where, f"in Compose the service can use the internet; here it can't{limited}", "internet")
    return NetworkPolicy(internet=bool(asked), allow_domains=domains, allow_cidrs=cidrs, allow_entities=entities)


def _shut(grant: Grant, shared: Grant, path: Path, notes: Notes) -> NetworkPolicy:
    asks = any(one.internet or one.allow_domains or one.allow_cidrs or one.allow_entities for one in (grant, shared))
    lists = ", nor is what the document allows" if asks else ""
    notes.policy(path, f"in Compose the service can use the internet; here it can't{lists}", "offline")
    return NetworkPolicy()


def _written(notes: Notes, path: Path) -> Any:
    service = (notes.tree.get("services") or Map()).get(str(path[1]))
    return service.marks if isinstance(service, Map) else ()
