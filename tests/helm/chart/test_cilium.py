"""Rules that only Cilium enforces, on a cluster that really has it: domains, entities, and what may be looked up."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from sandboxcore import EnvironmentSpec, NetworkPolicy, ServiceSpec
from tests.cluster import answering, kubectl, outside_names
from tests.helm.chart.town import Town, box, node_address, server, settled
from tests.images import reference

#: The first test installs everything, on a machine that may be busy.
pytestmark = [pytest.mark.tier("cilium"), pytest.mark.timeout(600)]

ALLOWED, WWW, DENIED = (f"{name}.outside.test" for name in ("allowed", "www.allowed", "denied"))
#: Identities are checked by Cilium's Envoy, which the tests' cluster has not got.
UNCHECKED = {"networkPolicy": {"checkIdentity": False}, "agentEnv": False}
POLICIES = "ciliumnetworkpolicies"
#: Asks for a name once and says what came of it; a search domain is not added.
ASK = """
import random, socket, struct, sys
asked, server = sys.argv[1], open('/etc/resolv.conf').read().split('nameserver ')[1].split()[0]
name = b''.join(bytes([len(part)]) + part.encode() for part in asked.split('.')) + b'\\0'
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
    link.settimeout(5)
    for _ in range(5):
        link.sendto(struct.pack('>6H', random.randrange(65536), 256, 1, 0, 0, 0) + name + struct.pack('>2H', 1, 1), (server, 53))
        try:
            print(['found', '', 'failed', 'none', '', 'refused'][link.recv(4096)[3] & 15])
            break
        except TimeoutError:
            continue
"""


def service_address(name: str, namespace: str) -> str:
    return kubectl("-n", namespace, "get", "service", name, "-o", "jsonpath={.spec.clusterIP}")


@pytest.fixture(scope="module")
def ports() -> Iterator[dict[str, int]]:
    """Listen outside, on what a domain's rule opens and on what it does not; gives the numbers by name."""
    with ExitStack() as stack:
        addresses = set(outside_names().values())
        for address in addresses:
            for port in (80, 443, 8080, 8081):
                stack.enter_context(answering(address, port))
        yield {"http": 80, "https": 443, "scoped": 8080, "other": 8081}


@pytest.fixture(scope="module")
def town(place: Any, ports: dict[str, int]) -> Iterator[Town]:
    found = Town(place)
    denied = outside_names()[DENIED]
    # Nodes have a search domain here, in which Cilium refuses names; pods that know the resolver don't have it.
    resolver = {"dns": {"nameservers": [service_address("kube-dns", "kube-system")]}}
    some = {
        "shut": box(),
        "named": box(egress={"allowDomains": [ALLOWED]}),
        "wild": box("debian", egress={"allowDomains": [f"*.{ALLOWED}"]}),
        "ranged": box(egress={"allowCIDR": [f"{denied}/32"]}),
        "world": box(egress={"allowEntities": ["world"]}),
        "open": box(egress={"internet": True}),
        "noded": box(egress={"allowEntities": ["host"]}),
        "server": server(),
    }
    all_of_it = {"allowDomains": [ALLOWED], "allowDomainsPorts": [{"port": 8080, "protocol": "TCP", "domain": ALLOWED}]}
    nets = {
        "web": server(networks=["a"]),
        "db": server(networks=["b"]),
        "app": box(networks=["a", "b"]),
        "narrow": server(networks=["a"], ports=[{"protocol": "TCP", "port": 80}]),
        "cut": server(networks=["a"], networkIsolated=True),
    }
    try:
        found.install(
            {
                "some": {**UNCHECKED, **resolver, "networkPolicy": {"checkIdentity": False, "notInternet": []}, "services": some},
                "all": {**UNCHECKED, **all_of_it, "services": {"one": box(), "two": server(), "asker": box("debian")}},
                "nets": {**UNCHECKED, **resolver, "networks": {"a": {}, "b": {}}, "services": nets},
            }
        )
        found.wait("some", "all", "nets")
        yield found
    finally:
        found.uninstall()
        settled(lambda: place.objects(f"pods,services,networkpolicies,{POLICIES}"), set())


def targets(ports: dict[str, int]) -> dict[str, tuple[str, int]]:
    """Name what may be there outside, by name and by address."""
    addresses = outside_names()
    return {
        "allowed": (ALLOWED, ports["http"]),
        "allowed-tls": (ALLOWED, ports["https"]),
        "allowed-scoped": (ALLOWED, ports["scoped"]),
        "allowed-other": (ALLOWED, ports["other"]),
        "denied": (DENIED, ports["http"]),
        "denied-tls": (DENIED, ports["https"]),
        "denied-address": (addresses[DENIED], ports["http"]),
        "denied-address-other": (addresses[DENIED], ports["other"]),
    }


BY_ADDRESS = {"denied-address", "denied-address-other"}
EVERYTHING = {"allowed", "allowed-tls", "allowed-scoped", "allowed-other", "denied", "denied-tls"} | BY_ADDRESS
REACHED = {
    "some-shut": set(),
    "some-server": set(),
    "some-noded": set(),
    "some-named": {"allowed", "allowed-tls"},
    "some-ranged": BY_ADDRESS,
    "some-world": EVERYTHING,
    "some-open": EVERYTHING,
    "all-one": {"allowed", "allowed-tls", "allowed-scoped"},
    "all-two": {"allowed", "allowed-tls", "allowed-scoped"},
    "nets-app": set(),
    "nets-cut": set(),
}


def test_outside_is_reached_by_those_who_may_and_as_they_may(town: Town, ports: dict[str, int]) -> None:
    settled(lambda: town.reach_all(dict.fromkeys(REACHED, targets(ports))), REACHED)


def test_an_address_is_let_through_for_its_name_only(town: Town, ports: dict[str, int]) -> None:
    """The address of an allowed name is open to whom that name was answered, to nobody else."""
    target = {"address": (outside_names()[ALLOWED], ports["http"])}
    settled(lambda: town.reach("some-named", {"name": (ALLOWED, ports["http"])}), {"name"})
    settled(lambda: town.reach_all({"some-shut": target, "some-ranged": target}), {"some-shut": set(), "some-ranged": set()})


def ask(town: Town, service: str, *names: str) -> dict[str, str]:
    """Ask the cluster's resolver for names as they are, and return what it said of each."""
    pod = ["exec", f"sandboxcore-{service}", "-c", service.partition("-")[2], "--"]
    return {name: town.place.kubectl(*pod, "python3", "-c", ASK, name).strip() for name in names}


def test_only_names_that_may_be_reached_are_looked_up(town: Town) -> None:
    wanted = {ALLOWED: "found", DENIED: "refused", WWW: "refused", "secret.elsewhere.example": "refused"}
    settled(lambda: ask(town, "all-asker", *wanted), wanted)
    wanted = {WWW: "found", DENIED: "refused", f"deep.{WWW}": "refused"}
    settled(lambda: ask(town, "some-wild", *wanted), wanted)


def test_no_search_ends_before_an_allowed_name_is_asked_for(town: Town) -> None:
    """Not all resolvers go on after a refusal (musl's gives up), so a name is not refused with a search domain behind it."""
    for pod, name in (("all-asker", ALLOWED), ("some-wild", WWW)):
        line = town.run(pod, "grep ^search /etc/resolv.conf").split()
        searched = [domain for domain in line[1:] if domain.endswith("cluster.local")]
        assert searched
        wanted = {f"{one}.{domain}": "none" for one in (name, "nobody") for domain in searched}
        wanted[f"secret.{searched[-1]}.example"] = wanted[f"secret.data.{searched[-1]}"] = "refused"
        settled(lambda pod=pod, wanted=wanted: ask(town, pod, *wanted), wanted)


def test_well_known_peers_are_reached_by_those_who_may(town: Town) -> None:
    api = service_address("kubernetes", "default")
    names = {
        "node": (node_address(), 10250),
        "api": (api, 443),
        "sibling": ("server", 80),
        "other": (town.address("all-two"), 80),
    }
    wanted = {f"some-{service}": {"sibling"} for service in ("world", "open", "shut")} | {
        "some-noded": {"sibling", "node", "api"}
    }
    settled(lambda: town.reach_all(dict.fromkeys(wanted, names)), wanted)


def test_siblings_are_reached_on_common_networks_only(town: Town) -> None:
    names = {name: (name, 80) for name in ("web", "db", "narrow")} | {"narrow81": ("narrow", 81), "web81": ("web", 81)}
    cut = {"cut": (town.address("nets-cut"), 80)}
    addresses = {name: (town.address(f"nets-{name}"), 80) for name in ("web", "db", "narrow")}
    tried = {"nets-app": names | cut, "nets-web": names | cut, "nets-db": names | cut, "nets-cut": addresses}
    wanted = {
        "nets-app": {"web", "web81", "db", "narrow"},
        "nets-web": {"web", "web81", "narrow"},
        "nets-db": {"db"},
        "nets-cut": set(),
    }
    settled(lambda: town.reach_all(tried), wanted)


async def test_a_spec_lets_an_allowed_name_through(place: Any, ports: dict[str, int]) -> None:
    policy = NetworkPolicy(allow_domains=(ALLOWED,))
    common = {"image": reference("busybox"), "command": ("sleep", "infinity"), "pull_policy": "never"}
    http = common | {"command": ("httpd", "-f", "-p", "80")}
    services = {"default": ServiceSpec(**common, network_policy=policy), "shut": ServiceSpec(**http)}
    spec = EnvironmentSpec(services=services)
    values = {"networkPolicy": {"checkIdentity": False}}
    before = place.objects(POLICIES)
    async with place.session(values=values) as session:
        environment = await session.provision(spec)
        for host in (ALLOWED, "shut"):
            connect = f"for n in $(seq 30); do nc -w 2 {host} {ports['http']} </dev/null && exit 0; sleep 1; done; exit 1"
            assert (await environment["default"].exec(["sh", "-c", connect], timeout=120)).exit_code == 0, host
        for service, host in (("default", DENIED), ("default", outside_names()[DENIED]), ("shut", ALLOWED)):
            done = await environment[service].exec(["nc", "-w", "2", host, str(ports["http"])], timeout=60)
            assert done.exit_code != 0, f"{service} reaches {host}"
        assert place.objects(POLICIES) > before
    assert place.objects(POLICIES) == before
