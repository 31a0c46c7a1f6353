"""The client against a real API server."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sandboxcore_kubernetes import ApiError, Cluster, ClusterConfig, UnreachableError, leases
from sandboxcore_kubernetes.doctor import check_cluster
from sandboxcore_kubernetes.rbac import POD_RULES, missing

from sandboxcore.errors import UsageError
from tests.granting import grant, until_granted

from .conftest import open_connections, pod, running


def _map(name: str, **labels: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": labels}, "data": {"a": "1"}}


async def test_objects_are_made_read_changed_and_deleted(cluster: Cluster) -> None:
    assert cluster.version >= (1, 20)
    made = await cluster.create(_map("one", kind="x"))
    with pytest.raises(ApiError) as caught:
        await cluster.create(_map("one"))
    assert (caught.value.status, caught.value.reason) == (409, "AlreadyExists")
    await cluster.patch("ConfigMap", "one", {"data": {"b": "2"}})
    assert (await cluster.get("ConfigMap", "one"))["data"] == {"a": "1", "b": "2"}
    assert not await cluster.delete("ConfigMap", "one", uid="another")
    assert await cluster.delete("ConfigMap", "one", uid=made["metadata"]["uid"])
    assert not await cluster.delete("ConfigMap", "one")
    with pytest.raises(ApiError) as caught:
        await cluster.get("ConfigMap", "one")
    assert caught.value.status == 404


async def test_long_lists_come_in_pages(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sandboxcore_kubernetes._transport._PAGE", 3)
    await asyncio.gather(*(cluster.create(_map(f"page-{n}", kind="page")) for n in range(8)))
    before = cluster.requests
    found = await cluster.list("ConfigMap", label_selector="kind=page")
    assert sorted(each["metadata"]["name"] for each in found["items"]) == [f"page-{n}" for n in range(8)]
    assert cluster.requests - before == 3
    await cluster.delete_collection("ConfigMap", label_selector="kind=page")
    assert (await cluster.list("ConfigMap", label_selector="kind=page"))["items"] == []
    with pytest.raises(ValueError, match="everything"):
        await cluster.delete_collection("ConfigMap", label_selector="")


async def test_a_kind_that_is_not_well_known_is_asked_for_once(cluster: Cluster) -> None:
    with pytest.raises(LookupError, match="API version"):
        await cluster.list("CSIDriver")
    with pytest.raises(LookupError, match="not known yet"):
        cluster.path("storage.k8s.io/v1", "CSIDriver")
    before = cluster.requests
    await asyncio.gather(*(cluster.list("storage.k8s.io/v1/CSIDriver") for _ in range(10)))
    assert cluster.requests - before == 1 + 10
    assert cluster.path("storage.k8s.io/v1", "CSIDriver") == "/apis/storage.k8s.io/v1/csidrivers"
    with pytest.raises(ApiError) as caught:
        await cluster.get("storage.k8s.io/v1/NoSuchKind", "x")
    assert caught.value.status == 404


async def test_a_node_s_machine_is_asked_for_once_by_many(cluster: Cluster) -> None:
    node = (await cluster.list("Node", all_namespaces=True))["items"][0]
    before = cluster.requests
    found = await asyncio.gather(*(cluster.machine(node["metadata"]["name"]) for _ in range(20)))
    assert set(found) == {os.uname().machine}
    assert cluster.requests - before == 1
    assert await asyncio.gather(cluster.machine("no-such-node"), cluster.machine("no-such-node")) == ["", ""]
    assert cluster.requests - before == 2


async def test_a_watch_tells_what_is_there_and_what_changes(cluster: Cluster) -> None:
    """Also when its stream is cut, and when the version that it would go on from is too old."""
    await cluster.create(_map("w-0", kind="watched"))
    path = cluster.path("v1", "ConfigMap", cluster.namespace)
    seen: list[tuple[str, str]] = []

    async def until(name: str, changes: Any) -> None:
        async for change in changes:
            items = change.object["items"] if change.type == "RELIST" else [change.object]
            seen.extend((change.type, item["metadata"]["name"]) for item in items)
            if any(item["metadata"]["name"] == name for item in items):
                return

    async with asyncio.timeout(60), contextlib.aclosing(cluster.watch(path, label_selector="kind=watched")) as changes:  # type: ignore[type-var]
        await until("w-0", changes)
        assert seen == [("RELIST", "w-0")]
        for number in (1, 2):
            waiting = asyncio.create_task(until(f"w-{number}", changes))
            await asyncio.sleep(0)
            await cluster.create(_map(f"w-{number}", kind="watched"))
            await waiting
            if number == 1:
                for connection in open_connections(cluster):
                    connection.abort()
    assert ("ADDED", "w-1") in seen
    assert seen[-1][1] == "w-2"
    async with asyncio.timeout(60):
        old = cluster.watch(path, label_selector="kind=watched", resource_version="1")
        async with contextlib.aclosing(old) as changes:  # type: ignore[type-var]
            await until("w-2", changes)
    await cluster.delete_collection("ConfigMap", label_selector="kind=watched")


async def test_a_watch_without_the_right_ends(config: ClusterConfig) -> None:
    nobody = config.model_copy(update={"impersonate_user": "nobody-at-all"})
    async with await Cluster.connect(nobody) as cluster:
        with pytest.raises(ApiError) as caught:
            async for _ in cluster.watch(cluster.path("v1", "Secret", cluster.namespace)):
                pass
        assert caught.value.status == 403
        assert "doctor" in (caught.value.hint or "")
        with pytest.raises(ApiError):
            async with cluster.pods():
                pass


async def test_rights_that_are_missing_come_with_the_role_that_gives_them(config: ClusterConfig, cluster: Cluster) -> None:
    user = f"user-{uuid.uuid4().hex[:6]}"
    limited = config.model_copy(update={"impersonate_user": user, "impersonate_groups": ("system:authenticated",)})
    async with await Cluster.connect(limited) as theirs:
        lacking = await missing(theirs)
        assert {rule.resource for rule in lacking} == {rule.resource for rule in POD_RULES}
        findings = {finding.check: finding for finding in await check_cluster(limited)}
        assert findings["rights"].status == "error"
        assert '"kind": "Role"' in findings["rights"].fix
        await grant(cluster, user, lacking)
        await until_granted(theirs, POD_RULES)
    findings = {finding.check: finding for finding in await check_cluster(limited)}
    assert findings["rights"].status == "ok"


async def test_wrong_configurations_say_what_there_is(
    config: ClusterConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError) as caught:
        await Cluster.connect(config.model_copy(update={"context": "nowhere"}))
    assert "nowhere" in str(caught.value)
    assert "test" in (caught.value.hint or "")
    with pytest.raises(UsageError, match="there is no file"):
        await Cluster.connect(config.model_copy(update={"kubeconfig": str(tmp_path / "none")}))
    broken = tmp_path / "broken"
    broken.write_text("contexts: {")
    with pytest.raises(UsageError, match="broken"):
        await Cluster.connect(config.model_copy(update={"kubeconfig": str(broken)}))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    with pytest.raises(UsageError, match="no Kubernetes configuration"):
        await Cluster.connect(ClusterConfig())
    with pytest.raises(UsageError, match="no service account here"):
        await Cluster.connect(ClusterConfig(in_cluster=True))
    with pytest.raises(UsageError, match="service account"):
        await Cluster.connect(ClusterConfig(in_cluster=True, context="x"))


def _kubeconfig(path: Path, original: Path, user: dict[str, Any], **cluster: Any) -> str:
    import yaml

    document = yaml.safe_load(original.read_text())
    name = document["current-context"]
    context = next(each["context"] for each in document["contexts"] if each["name"] == name)
    place = next(each["cluster"] for each in document["clusters"] if each["name"] == context["cluster"])
    written = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u", "namespace": "from-context"}}],
        "clusters": [{"name": "c", "cluster": place | cluster}],
        "users": [{"name": "u", "user": user}],
    }
    path.write_text(yaml.safe_dump(written))
    return str(path)


async def test_a_server_that_is_not_there_is_told_at_once(kubeconfig: Path, tmp_path: Path) -> None:
    path = _kubeconfig(tmp_path / "k", kubeconfig, {"token": "x"}, server="https://127.0.0.1:9")
    with pytest.raises(UnreachableError, match=r"127\.0\.0\.1:9"):
        await Cluster.connect(ClusterConfig(kubeconfig=path))


async def _token(cluster: Cluster, account: str) -> str:
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 600}}
    path = f"/api/v1/namespaces/{cluster.namespace}/serviceaccounts/{account}/token"
    return str((await cluster.request("POST", path, body=body))["status"]["token"])


_PLUGIN = """
import json, sys, datetime, pathlib
home = pathlib.Path(sys.argv[1])
with open(home / "runs", "a") as runs:
    runs.write("x")
seconds = float((home / "life").read_text())
end = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=seconds)
status = {"token": (home / "token").read_text(), "expirationTimestamp": end.strftime("%Y-%m-%dT%H:%M:%SZ")}
print(json.dumps({"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": status}))
"""


async def test_a_credential_program_is_asked_again_before_its_token_ends(
    cluster: Cluster, kubeconfig: Path, tmp_path: Path
) -> None:
    """Not with every request: with those in the last minutes of the token."""
    await cluster.create({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "plugged"}})
    (tmp_path / "plugin.py").write_text(_PLUGIN)
    (tmp_path / "token").write_text(await _token(cluster, "plugged"))
    (tmp_path / "life").write_text("3600")
    call = {"command": sys.executable, "args": [str(tmp_path / "plugin.py"), str(tmp_path)]}
    plugin = {"apiVersion": "client.authentication.k8s.io/v1", "interactiveMode": "Never", **call}
    path = _kubeconfig(tmp_path / "k", kubeconfig, {"exec": plugin})
    async with await Cluster.connect(ClusterConfig(kubeconfig=path)) as theirs:
        assert theirs.namespace == "from-context"
        for _ in range(3):
            await theirs.request("GET", "/version")
        assert (tmp_path / "runs").read_text() == "x"
        (tmp_path / "life").write_text("200")
        theirs._access.loader.exec_plugin_expiry = theirs._access.loader.exec_plugin_expiry.replace(year=2001)
        for _ in range(3):
            assert not await theirs.can_i("get", "pods", namespace="default")
        assert (tmp_path / "runs").read_text() == "xx", "a program that keeps its token until the end is asked now and then only"
        theirs._access._renewed = None
        assert not await theirs.can_i("get", "pods", namespace="default")
        assert (tmp_path / "runs").read_text() == "xxx"
    (tmp_path / "life").unlink()
    with pytest.raises(UsageError, match="credential program"):
        await Cluster.connect(ClusterConfig(kubeconfig=path))


async def _refusal(cluster: Cluster) -> ApiError | None:
    try:
        await cluster.can_i("get", "pods")
    except ApiError as error:
        return error
    return None


async def test_credentials_that_are_refused_are_read_anew_once(cluster: Cluster, kubeconfig: Path, tmp_path: Path) -> None:
    """A token that was taken back is replaced by what the kubeconfig has now."""
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "renewed"}}
    await cluster.create(account)
    path = _kubeconfig(tmp_path / "k", kubeconfig, {"token": await _token(cluster, "renewed")})
    async with await Cluster.connect(ClusterConfig(kubeconfig=path, namespace=cluster.namespace)) as theirs:
        await cluster.delete("ServiceAccount", "renewed")  # which takes its tokens back
        await cluster.create(account)
        async with asyncio.timeout(30):
            while True:
                refused = await _refusal(theirs)
                if refused is not None:
                    break
                await asyncio.sleep(0.2)
        assert refused.status == 401
        assert "log in" in (refused.hint or "")
        _kubeconfig(tmp_path / "k", kubeconfig, {"token": await _token(cluster, "renewed")})
        async with asyncio.timeout(30):
            while True:
                with contextlib.suppress(ApiError):  # until all of the server has heard of the new account
                    assert not await theirs.can_i("get", "pods")
                    break
                await asyncio.sleep(0.2)


async def test_no_private_key_stays_in_a_file(config: ClusterConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    async with await Cluster.connect(config):
        assert list(tmp_path.iterdir()) == []
    async with await Cluster.connect(config):  # a second time, though the package remembers the files
        assert list(tmp_path.iterdir()) == []


async def test_requests_go_through_a_proxy(config: ClusterConfig) -> None:
    seen: list[str] = []
    async with _proxy(seen) as address, await Cluster.connect(config.model_copy(update={"proxy": address})) as cluster:
        await cluster.list("Pod")
        assert seen
        assert all(line.startswith("CONNECT ") for line in seen)
    with pytest.raises(UnreachableError):
        await Cluster.connect(config.model_copy(update={"proxy": "http://127.0.0.1:9"}))


@contextlib.asynccontextmanager
async def _proxy(seen: list[str]) -> AsyncIterator[str]:
    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        seen.append(head.splitlines()[0])
        host, _, port = head.split()[1].rpartition(":")
        there, back = await asyncio.open_connection(host, int(port))
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        await asyncio.gather(pump(reader, back), pump(there, writer))

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


async def test_one_watch_serves_everybody(cluster: Cluster) -> None:
    """Ten pods that are waited for one by one cost a creation each, and two lists and two streams together."""
    before = cluster.requests
    names = [f"shared-{number}" for number in range(10)]

    async def one(name: str) -> str:
        async with cluster.pods(label_selector="group=shared") as watch:
            await cluster.create(pod(name, labels={"group": "shared"}))
            return await watch.wait_for(lambda watch: name if (found := watch.get(name)) and found.ready else None, 90)

    assert await asyncio.gather(*(one(name) for name in names)) == names
    assert cluster.requests - before <= len(names) + 4 + 6  # some to spare, for streams that a loaded server ends
    async with cluster.pods(label_selector="group=shared") as watch:
        await cluster.delete_collection("Pod", label_selector="group=shared", grace=0)
        await watch.wait_for(lambda watch: not watch.pods, 90)


async def test_logs_are_read_and_followed(cluster: Cluster) -> None:
    line = "i=0; while true; do i=$((i+1)); echo line $i; sleep 0.1; done"
    await running(cluster, pod("talks", command=["sh", "-c", line]))
    got = b""
    async with asyncio.timeout(60), contextlib.aclosing(cluster.logs("talks", follow=True)) as chunks:  # type: ignore[type-var]
        async for chunk in chunks:
            got += chunk
            if got.count(b"\n") > 5:
                break
    assert got.startswith(b"line 1\nline 2\n")
    tail = b"".join([chunk async for chunk in cluster.logs("talks", tail=2)])
    assert tail.count(b"\n") == 2
    with pytest.raises(ApiError):
        async for _ in cluster.logs("no-such-pod"):
            pass


async def test_a_runs_lease_is_held_renewed_and_seen_to_end(cluster: Cluster) -> None:
    run = f"r-{uuid.uuid4().hex[:8]}"
    made = await leases.acquire(cluster, run, "me@here:1", 600)
    assert made.run_id == run
    assert abs(made.expires_at - await cluster.server_time() - 600) < 60
    again = await leases.acquire(cluster, run, "other@there:2", 900)
    assert again.owner == "me@here:1"
    assert again.expires_at > made.expires_at
    assert run not in {lease.run_id for lease in await leases.expired(cluster)}
    past = await cluster.patch("Lease", made.name, {"spec": {"renewTime": "2001-01-01T00:00:00.000000Z"}})
    assert json.dumps(past)
    assert run in {lease.run_id for lease in await leases.expired(cluster)}
    assert (await leases.renew(cluster, run, 600)).expires_at > made.acquired_at + 300
    await leases.drop(cluster, run)
    await leases.drop(cluster, run)
    assert await leases.read(cluster, run) is None
    with pytest.raises(ApiError) as caught:
        await leases.renew(cluster, run, 600)
    assert caught.value.status == 404
