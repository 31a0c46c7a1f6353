"""The objects of a spec, on a real cluster: names, networks, files, rights."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from sandboxcore_kubernetes import GUEST_PATH, Cluster, PodChannel, wait_ready
from sandboxcore_kubernetes.objects import Placement, alias_slice, environment_objects, pod_name

from sandboxcore.guest import Guest
from sandboxcore.spec import EnvironmentSpec, FileSpec, NetworkSpec, Resources, ServiceSpec, VolumeMount, VolumeSpec
from sandboxcore.values import ExecRequest
from tests.images import reference

_SERVER = ("sh", "-c", "while true; do echo hello | nc -l -p 9000; done")


def _service(**keys: object) -> ServiceSpec:
    defaults = {"image": reference("busybox"), "pull_policy": "never", "command": ("sleep", "3600")}
    return ServiceSpec.model_validate(defaults | keys)


_SPEC = EnvironmentSpec(
    services={
        "default": _service(
            env={"LITERAL": "$(HOME) $$ $x"},
            files={"/etc/app/token": FileSpec(content=b"s3cret\n", mode=0o644)},
            read_only=True,
            user="1000:1000",
            cap_drop=("ALL",),
            security_opt=("no-new-privileges",),
            resources=Resources(shm_bytes=4 << 20),
            volumes=(VolumeMount(type="tmpfs", target="/scratch", size_bytes=1 << 20), VolumeMount(source="own", target="/own")),
        ),
        "victim": _service(command=_SERVER, networks={"default": ("target",)}, aliases=("www",)),
        "Other_One": _service(networks={"second": ()}),
        "alone": _service(networks=None),
    },
    networks={"default": NetworkSpec(), "second": NetworkSpec()},
    volumes={"own": VolumeSpec()},
)


async def test_an_environment_is_what_its_spec_says(cluster: Cluster) -> None:
    place = Placement(instance="env1", namespace=cluster.namespace, labels={"sandboxcore.dev/run-id": "r1"})
    names = {service: pod_name(place, service) for service in _SPEC.services}
    async with contextlib.AsyncExitStack() as stack:
        watch = await stack.enter_async_context(cluster.pods(label_selector="sandboxcore.dev/run-id=r1"))
        for each in environment_objects(_SPEC, place):
            await cluster.create(each)
        deadline = asyncio.get_running_loop().time() + 90
        pods = await wait_ready(watch, list(names.values()), emit=lambda event: None, deadline=deadline)
        assert [state.service for state in pods] == list(_SPEC.services)
        slices = alias_slice(_SPEC, "victim", place, pods[1].ip)
        assert slices is not None
        await cluster.create(slices)
        guests = {}
        for service, name in names.items():
            channel = PodChannel(cluster, namespace=cluster.namespace, pod=name, guest_path=GUEST_PATH)
            guests[service] = Guest(channel)
            stack.push_async_callback(guests[service].aclose)

        async def sh(service: str, line: str) -> tuple[int, str]:
            done = await guests[service].executor.exec(ExecRequest(argv=["sh", "-c", line], timeout=60))
            return done.exit_code, done.text().strip()

        assert await sh("default", 'echo "$LITERAL"; id -u; cat /etc/app/token; hostname') == (
            0,
            "$(HOME) $$ $x\n1000\ns3cret\ndefault",
        )
        assert (await sh("default", "touch /scratch/x /own/x /dev/shm/x"))[0] == 0
        assert (await sh("default", "touch /x"))[0] != 0
        assert (await sh("Other_One", "hostname"))[1] == "other-one-f5b3fe"
        # A resolver remembers for seconds that there was no such name.
        fetch = "n=0; while [ $n -lt 60 ]; do nc -w 5 {} 9000 </dev/null && exit; n=$((n+1)); sleep 0.5; done; exit 1"
        for name in ("victim", "target", "www"):
            assert await sh("default", fetch.format(name)) == (0, "hello"), name
        address = pods[1].ip
        blocked = await asyncio.gather(*(sh(service, f"nc -w 2 {address} 9000 </dev/null") for service in ("Other_One", "alone")))
        assert [text for _, text in blocked] == ["", ""]
        assert all(code != 0 for code, _ in blocked)
        assert (await sh("alone", "nslookup victim"))[0] != 0
    for kind in ("Pod", "NetworkPolicy", "Secret", "ConfigMap", "EndpointSlice", "Service"):
        if kind != "Service":  # which has no collection that can be deleted on all servers
            await cluster.delete_collection(kind, label_selector="sandboxcore.dev/run-id=r1", grace=0)


@pytest.mark.tier("none")
def test_the_spec_is_one_that_can_be_had() -> None:
    place = Placement(instance="env1", namespace="n")
    assert len(environment_objects(_SPEC, place)) >= 8
