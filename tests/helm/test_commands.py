"""What a person does with the backend from the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sandboxcore import EnvironmentSpec
from sandboxcore.errors import UsageError
from tests.cluster import kubeconfig
from tests.images import reference

from .conftest import Place

#: Helm programs and pods are slow on a machine that is busy with other tests.
pytestmark = pytest.mark.timeout(300)


def _sandboxcore(*argv: str) -> str:
    environ = os.environ | {"KUBECONFIG": str(kubeconfig())}
    done = subprocess.run(
        [sys.executable, "-m", "sandboxcore", *argv],
        capture_output=True,
        text=True,
        check=False,
        env=environ,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_an_environment_is_found_by_its_release(place: Place, tmp_path: Path) -> None:
    """From another process, and the other way round: Helm finds the release by the environment's id."""
    service = f"{{image: {reference('busybox')}, command: [sleep, infinity], pull_policy: never}}"
    file = tmp_path / "compose.yaml"
    file.write_text(f"services: {{default: {service}}}\nx-sandboxcore: {{options: {{helm: {{release: lab-1}}}}}}")
    where = ["-b", "helm", *(f"--config={key}={value}" for key, value in place.config().items())]
    made = json.loads(_sandboxcore("up", *where, "-q", "-f", str(file), "--json"))
    assert made["name"] == "lab-1"
    assert [(one["id"], one["name"]) for one in json.loads(_sandboxcore("ls", *where, "--json"))["environments"]] == [
        (made["id"], "lab-1")
    ]
    assert _sandboxcore("exec", *where, "lab-1", "--", "echo", "inside") == "inside\n"
    selector = f"sandboxcore.dev/environment-id={made['id']}"
    assert place.helm(3, "list", "--short", "--selector", selector).split() == ["lab-1"]
    assert _sandboxcore("down", *where, "lab-1").split() == [made["id"]]


def test_the_reaper_is_what_the_cluster_takes(place: Place) -> None:
    """Its rights are those that reaping needs: the API server is asked as the reaper."""
    manifest = _sandboxcore("helm", "reaper", "--namespace", place.namespace, "--image", "sandboxcore.test/reaper:1")
    place.kubectl("apply", "-f", "-", text=manifest)
    account = f"system:serviceaccount:{place.namespace}:sandboxcore-reaper"
    assert place.get("cronjob/sandboxcore-reaper")["spec"]["concurrencyPolicy"] == "Forbid"
    for verb, what in (("list", "secrets"), ("deletecollection", "pods"), ("delete", "leases.coordination.k8s.io")):
        deadline = time.monotonic() + 60
        # The API server learns of new roles a moment after it took them.
        while (said := place.kubectl("auth", "can-i", verb, what, "--as", account, check=False).strip()) != "yes":
            assert time.monotonic() < deadline, said
            time.sleep(0.2)
    assert place.kubectl("auth", "can-i", "create", "pods", "--as", account, check=False).strip() in ("no", "")


async def test_the_reaper_may_delete_what_charts_make(place: Place, busybox: EnvironmentSpec) -> None:
    """An account of a release's own without being told, all else when it is."""
    ingress = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": {"name": "{{ .Release.Name }}"},
        "spec": {"defaultBackend": {"service": {"name": "nowhere", "port": {"number": 80}}}},
    }
    values = {"serviceAccountCreate": True, "serviceAccountName": "its-own", "additionalResources": [ingress]}
    argv = ("helm", "reaper", "--namespace", place.namespace, "--image", "sandboxcore.test/reaper:1", "--name", "other-reaper")
    place.kubectl("apply", "-f", "-", text=_sandboxcore(*argv, "--resource", "ingresses.networking.k8s.io"))
    account = f"system:serviceaccount:{place.namespace}:other-reaper"
    config = {"helm": "no-such-program", "impersonate_user": account}
    async with place.session(values=values) as session, place.session(**config) as reaper:
        made = await session.provision(busybox, keep=True)
        assert place.objects("ingresses") != set()
        await reaper.cleanup(environment_id=made.id)
        assert place.objects("ingresses") == set()
        assert "serviceaccount/its-own" not in place.objects("serviceaccounts")
        assert await session.find() == []


def test_a_resource_that_is_none_is_refused() -> None:
    from sandboxcore_helm._rights import reaper_rules

    with pytest.raises(UsageError, match="'Ingress' is no resource"):
        reaper_rules(["Ingress"])


async def test_reaping_takes_what_is_expired(place: Place, busybox: EnvironmentSpec) -> None:
    """With the rights of the reaper's Role and no others, and without a helm program."""
    async with place.session() as session:
        expired = await session.provision(busybox, keep=True, lease=1.0)
        live = await session.provision(busybox)
        account = f"system:serviceaccount:{place.namespace}:sandboxcore-reaper"
        config = {**place.config(), "helm": "no-such-program", "impersonate_user": account}
        said = _sandboxcore("helm", "reap", "--config", json.dumps(config))
        assert expired.id in said
        assert live.id not in said
        assert (await live.default.exec(["true"])).exit_code == 0
        assert {one.id for one in await session.find(run_id=session.run_id)} == {live.id}


def test_the_doctor_tells_what_is_missing(place: Place) -> None:
    found = json.loads(
        _sandboxcore("doctor", "-b", "helm", "--json", *(f"--config={key}={value}" for key, value in place.config().items()))
    )
    findings = found if isinstance(found, list) else found["findings"]
    status = {one["check"]: one["status"] for one in findings}
    assert {"cluster", "helm", "namespace", "rights", "quota", "nodes", "cilium", "runtime classes", "storage"} <= status.keys()
    assert status["rights"] == status["helm"] == "ok"


async def test_missing_rights_are_named_with_the_role(place: Place) -> None:
    async with place.session(impersonate_user="nobody-in-particular") as session:
        [finding] = [one for one in await session.doctor() if one.check == "rights"]
    assert finding.status == "error"
    assert "pods/exec" in finding.detail
    assert '"kind": "Role"' in finding.fix
