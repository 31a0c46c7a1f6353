"""The objects of a spec on a cluster with Cilium: who reaches which names, addresses and peers."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Mapping

import pytest
from sandboxcore_kubernetes import GUEST_PATH, Cluster, PodChannel, wait_ready
from sandboxcore_kubernetes.objects import Placement, environment_objects, pod_name

from sandboxcore.guest import Guest
from sandboxcore.spec import EnvironmentSpec, NetworkPolicy, NetworkSpec, ServiceSpec
from sandboxcore.values import ExecRequest
from tests.cluster import answering, kubectl, outside_names
from tests.images import reference

pytestmark = [pytest.mark.tier("cilium"), pytest.mark.timeout(400)]

SECONDS = 180
ALLOWED, WWW, DENIED = (f"{name}.outside.test" for name in ("allowed", "www.allowed", "denied"))


def _service(*command: str, **policy: object) -> ServiceSpec:
    rest = {"network_policy": NetworkPolicy.model_validate(policy), "networks": {"default": ()}}
    return ServiceSpec(image=reference("busybox"), pull_policy="never", command=command or ("sleep", "3600"), **rest)


@contextlib.asynccontextmanager
async def _environment(cluster: Cluster, spec: EnvironmentSpec) -> AsyncIterator[dict[str, Guest]]:
    """Make a spec's objects and give a way into each of its pods."""
    place = Placement(instance="names", namespace=cluster.namespace, labels={"sandboxcore.dev/run-id": "c1"}, cilium=True)
    async with contextlib.AsyncExitStack() as stack:
        watch = await stack.enter_async_context(cluster.pods(label_selector="sandboxcore.dev/run-id=c1"))
        for each in environment_objects(spec, place):
            await cluster.create(each)
        names = {service: pod_name(place, service) for service in spec.services}
        deadline = asyncio.get_running_loop().time() + SECONDS
        await wait_ready(watch, list(names.values()), emit=lambda event: None, deadline=deadline)
        guests = {}
        for service, name in names.items():
            guests[service] = Guest(PodChannel(cluster, namespace=cluster.namespace, pod=name, guest_path=GUEST_PATH))
            stack.push_async_callback(guests[service].aclose)
        yield guests


async def _reached(guest: Guest, targets: Mapping[str, tuple[str, int]]) -> set[str]:
    """Tell which of the targets a pod can connect to; all are tried at once."""
    tries = [f"nc -w 2 {host} {port} </dev/null >/dev/null 2>&1 && echo {name} &" for name, (host, port) in targets.items()]
    done = await guest.executor.exec(ExecRequest(argv=["sh", "-c", "\n".join([*tries, "wait"])], timeout=60))
    return set(done.text().split())


async def test_names_addresses_and_peers_are_reached_by_those_who_may(cluster: Cluster) -> None:
    addresses = outside_names()
    nodes = json.loads(kubectl("get", "nodes", "-o", "json"))["items"][0]["status"]["addresses"]
    node = next(each["address"] for each in nodes if each["type"] == "InternalIP")
    spec = EnvironmentSpec(
        services={
            "shut": _service(),
            "named": _service(allow_domains=(ALLOWED,)),
            "wild": _service(allow_domains=(f"*.{ALLOWED}",)),
            "ranged": _service(allow_cidrs=(f"{addresses[DENIED]}/32",)),
            "peers": _service(allow_entities=("cluster",)),
            "server": _service("httpd", "-f", "-p", "80"),
        },
        networks={"default": NetworkSpec()},
    )
    with contextlib.ExitStack() as outside:
        port = 80  # a name is reached on this one and on 443
        for name in (ALLOWED, DENIED, WWW):
            outside.enter_context(answering(addresses[name], port))
        other = outside.enter_context(answering(addresses[ALLOWED]))
        dns = kubectl("-n", "kube-system", "get", "pods", "-l", "k8s-app=kube-dns", "-o", "jsonpath={.items[0].status.podIP}")
        targets = {
            "allowed": (ALLOWED, port),
            "allowed-other": (ALLOWED, other),
            "denied": (DENIED, port),
            "address": (addresses[DENIED], port),
            "node": (node, 10250),
            "dns-health": (dns, 8080),
            "sibling": ("server", 80),
        }
        wanted = {
            "shut": {"sibling"},
            "named": {"allowed", "sibling"},
            "wild": {"sibling"},
            "ranged": {"denied", "address", "sibling"},
            "peers": {"dns-health", "sibling"},
        }
        async with _environment(cluster, spec) as guests:

            async def look(targets: Mapping[str, tuple[str, int]], *services: str) -> dict[str, set[str]]:
                found = await asyncio.gather(*(_reached(guests[service], targets) for service in services))
                return dict(zip(services, found, strict=True))

            end = asyncio.get_running_loop().time() + SECONDS
            found: dict[str, set[str]] = {}
            while found != wanted and asyncio.get_running_loop().time() < end:
                found = await look(targets, *wanted)
            assert found == wanted
            assert await look({"www": (WWW, port), "denied": (DENIED, port)}, "wild", "shut") == {"wild": {"www"}, "shut": set()}
    for kind in ("Pod", "NetworkPolicy", "CiliumNetworkPolicy", "ConfigMap"):
        await cluster.delete_collection(kind, label_selector="sandboxcore.dev/run-id=c1", grace=0)
