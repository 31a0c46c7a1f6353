"""``sandboxcore opensandbox``, the doctor, and manifests of old, on the command line."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result
from sandboxcore_opensandbox._commands import opensandbox
from sandboxcore_opensandbox._doctor import CRD_FIELDS, crd_findings

from sandboxcore import Session
from sandboxcore.errors import UsageError
from tests.cluster import helm, kubectl
from tests.opensandbox import places
from tests.opensandbox.kit import IMAGES, folder
from tests.opensandbox.test_seed_names import POOL


def run(*argv: str, text: str | None = None) -> Result:
    return CliRunner().invoke(opensandbox, argv, input=text)


def where(crd: Mapping[str, Any]) -> Sequence[str]:
    return ("--kubeconfig", crd["kubeconfig"], "-n", crd["namespace"])


def test_a_pool_from_its_template_to_its_end(crd: Mapping[str, Any], tmp_path: Path) -> None:
    printed = run("pool", "template", "--image", places.BUSYBOX, "--name", "by-hand", "--buffer", "1", "--max", "2")
    assert printed.exit_code == 0, printed.output
    (tmp_path / "pool.yaml").write_text(printed.output)
    made = run("pool", "create", "-f", str(tmp_path / "pool.yaml"), "--warm", "1", *where(crd))
    assert (made.exit_code, made.stdout) == (0, "by-hand\n"), made.output
    listed = json.loads(run("pool", "ls", "--json", *where(crd)).stdout)
    [entry] = [entry for entry in listed if entry["name"] == "by-hand"]
    assert (entry["available"], entry["maximum"], entry["image"], entry["recycle"]) == (1, 2, places.BUSYBOX, "Delete")
    assert "by-hand" in run("pool", "ls", *where(crd)).stdout
    assert run("pool", "scale", "by-hand", "--pool-max", "3", *where(crd)).stdout == "by-hand: buffer 1 to 1, pool 1 to 3\n"
    assert run("pool", "drain", "by-hand", *where(crd)).stdout == "by-hand: empty\n"
    assert run("pool", "delete", "-f", str(tmp_path / "pool.yaml"), *where(crd)).stdout == "by-hand\n"


async def test_the_doctor_looks_at_everything(session: Session, pool: str) -> None:
    findings = {finding.check: finding for finding in await session.doctor()}
    for plural in CRD_FIELDS:
        assert findings[f"definition {plural}.sandbox.opensandbox.io"].status == "ok"
    assert findings["controller"].status == "ok"
    assert findings["rights"].status == "ok"
    assert "at most 5" in findings[f"pool {pool}"].detail


@pytest.mark.tier("none")
def test_nothing_is_missed_that_is_of_no_use() -> None:
    """Pause is refused always, whatever the definition has."""
    [finding] = crd_findings("batchsandboxes", {"spec": {"versions": [{"name": "v1alpha1", "served": True}]}})
    assert finding.status == "warning"
    assert "pause" not in finding.detail


@pytest.mark.tier("none")
def test_definitions_that_prune_are_found_out() -> None:
    """Those of the chart itself lack what those of the source have."""
    charts = folder() / "charts" / "opensandbox-controller" / "templates" / "crds" / "pools.yaml"
    if not charts.is_file():
        pytest.skip("the OpenSandbox charts are not here")
    text = "\n".join(line for line in charts.read_text().splitlines() if "{{" not in line)
    [finding] = crd_findings("pools", yaml.safe_load(text))
    assert finding.status == "warning"
    for name in ("scaleStrategy", "recycleStrategy", "updateStrategy"):
        assert f"spec.{name} is missing" in finding.detail


@pytest.mark.tier("none")
def test_manifests_of_old_are_translated(tmp_path: Path) -> None:
    (tmp_path / "old.yaml").write_text(POOL)
    done = run("translate", str(tmp_path / "old.yaml"))
    assert yaml.safe_load(done.stdout)["spec"]["capacitySpec"]["poolMax"] == 20
    assert "spec.capacitySpec.poolMax" in done.stderr
    (tmp_path / "values.yaml").write_text("controllerManager: {replicas: 2}\n")
    assert yaml.safe_load(run("translate", "--values", str(tmp_path / "values.yaml")).stdout) == {
        "controller": {"replicaCount": 2}
    }


@pytest.mark.tier("none")
@pytest.mark.parametrize(
    ("text", "words"), [("{", "old.yaml:2:1: is no YAML"), ("- a", "must be an object"), ("kind: Pool", "metadata.name")]
)
def test_bad_files_are_told_with_their_place(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "old.yaml").write_text(text + "\n")
    done = run("translate", str(tmp_path / "old.yaml"))
    assert words in str(done.exception)


@pytest.mark.tier("none")
def test_what_says_nothing_is_refused() -> None:
    assert "nothing says how" in str(run("pool", "scale", "agents").exception)
    assert "nothing says which" in str(run("pool", "delete").exception)


def test_the_chart_is_installed_with_values_of_old_and_never_removed_from_under_its_users(
    crd: Mapping[str, Any], pool: str, tmp_path: Path
) -> None:
    """A second release without a controller in it, so that the real one is left in peace."""
    repository, _, tag = IMAGES["controller"].rpartition(":")
    values = {
        "controllerManager": {"image": {"repository": repository, "tag": tag}, "replicas": 0},
        "namespaceOverride": crd["namespace"],
        "crds": {"install": False},
        "rbac": {"create": False, "serviceAccount": {"create": False}},
    }
    (tmp_path / "values.yaml").write_text(yaml.safe_dump(values))
    chart = str(folder() / "charts" / "opensandbox-controller")
    release = ("--release", "spare", "--helm", str(helm(3)))
    crds = ("--crds", str(folder() / "crd"))
    done = run("install", "--chart", chart, "-f", str(tmp_path / "values.yaml"), *crds, *release, *where(crd))
    assert done.exit_code == 0, done.output
    assert "controllerManager.replicas: is called controller.replicaCount" in done.stdout
    image = "jsonpath={.items[*].spec.template.spec.containers[*].image}"
    found = kubectl("-n", crd["namespace"], "get", "deployments", "-o", image)
    assert found.strip() == IMAGES["controller"]
    refused = run("uninstall", *release, *where(crd))
    assert isinstance(refused.exception, UsageError)
    assert "without the controller these could never be deleted" in refused.exception.message
    subprocess.run([str(helm(3)), "--kubeconfig", crd["kubeconfig"], "-n", crd["namespace"], "uninstall", "spare"], check=True)
