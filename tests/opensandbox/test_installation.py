"""The controller's whole life: everything removed in an order that does not hang, and installed again so that it works."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from sandboxcore.errors import UsageError
from tests.cluster import helm, kubectl
from tests.opensandbox import kit, places
from tests.opensandbox.test_commands import run

ALONE = "SANDBOXCORE_TEST_INSTALL"
DEFINITIONS = ("batchsandboxes", "pools", "sandboxsnapshots")


def batch(name: str, **spec: Any) -> dict[str, Any]:
    return {"apiVersion": "sandbox.opensandbox.io/v1alpha1", "kind": "BatchSandbox", "metadata": {"name": name}, "spec": spec}


def made(where: str, *objects: Mapping[str, Any]) -> None:
    """Make BatchSandboxes and wait until each has a pod that is ready."""
    kubectl("-n", where, "apply", "-f", "-", text=json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))
    for each in objects:
        target = f"batchsandboxes.sandbox.opensandbox.io/{each['metadata']['name']}"
        kubectl("-n", where, "wait", "--for=jsonpath={.status.ready}=1", "--timeout=120s", target)


@pytest.mark.skipif(not os.environ.get(ALONE), reason=f"removes all of OpenSandbox in the cluster: set {ALONE}, and run it alone")
@pytest.mark.timeout(600)
def test_removed_with_all_that_it_looks_after_and_installed_again(crd: Mapping[str, Any], tmp_path: Path) -> None:
    where = crd["namespace"]
    options = ("--kubeconfig", crd["kubeconfig"], "-n", kit.SYSTEM, "--helm", str(helm(3)))
    for pool in ("kept", "lost"):
        places.make_pool(where, pool, places.BUSYBOX, buffer=1, maximum=1)
    container = {"name": "sandbox", "image": places.BUSYBOX, "imagePullPolicy": "Never", "command": ["sleep", "infinity"]}
    pod = {"spec": {"containers": [container], "terminationGracePeriodSeconds": 0}}
    made(
        where,
        batch("of-its-own", replicas=1, template=pod),
        batch("of-a-pool", replicas=1, poolRef="kept"),
        batch("of-none", replicas=1, poolRef="lost"),
    )
    kubectl("-n", where, "delete", "pools.sandbox.opensandbox.io", "lost", "--timeout=60s")

    refused = run("uninstall", *options)
    assert isinstance(refused.exception, UsageError)
    assert "3 BatchSandbox, 1 Pool" in refused.exception.message
    assert kit._is_up()

    removed = run("uninstall", "--crds", *options)
    assert removed.exit_code == 0, removed.output
    assert removed.stdout.splitlines()[0] == "removed 3 BatchSandbox, 1 Pool"
    for plural in DEFINITIONS:
        assert kubectl("get", "crd", f"{plural}.sandbox.opensandbox.io", "-o", "name", check=False) == ""
    assert not kit._is_up()
    kubectl("-n", where, "wait", "--for=delete", "pods", "--all", "--timeout=120s")
    assert run("uninstall", "--crds", *options).exit_code == 0, "there is nothing left to do, and that is no error"

    (tmp_path / "values.yaml").write_text(json.dumps(kit.values()))
    chart, crds = kit.folder() / "charts" / "opensandbox-controller", kit.folder() / "crd"
    installed = run("install", "--chart", str(chart), "--crds", str(crds), "-f", str(tmp_path / "values.yaml"), *options)
    assert installed.exit_code == 0, installed.output
    assert kit._is_up()
    places.make_pool(where, "again", places.BUSYBOX, buffer=1, maximum=1)
    made(where, batch("again", replicas=1, poolRef="again"))
    kubectl("-n", where, "delete", "batchsandboxes.sandbox.opensandbox.io", "--all", "--timeout=60s")
    kubectl("-n", where, "delete", "pools.sandbox.opensandbox.io", "--all", "--timeout=60s")
