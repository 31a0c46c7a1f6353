"""Install and remove OpenSandbox's controller: thin over helm, in an order that does not hang."""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sandboxcore.errors import ProvisionError, UsageError

from ._batch_watch import KIND
from ._errors import mapped
from ._names import API_VERSION, GROUP
from ._pool_fit import POOL
from ._seed_names import translate_values
from ._stuck import free, why_stuck

if TYPE_CHECKING:
    from sandboxcore_kubernetes import Cluster

__all__ = ("Installation",)

SYSTEM = "opensandbox-system"
_POLL = 0.5
_DEFINITION = "CustomResourceDefinition"
_SNAPSHOT = f"{API_VERSION}/SandboxSnapshot"
#: What only the controller lets go, in the order in which it does.
_IN_ORDER = (KIND, _SNAPSHOT, POOL)


class Installation:
    """The controller's release on one cluster.

    Args:
        config: ``kubeconfig``, ``context`` and ``namespace`` (that of the controller; None: ``opensandbox-system``).
        release: Name of the Helm release.
        helm: The program; None: ``helm`` of ``$PATH``.
    """

    def __init__(self, config: Mapping[str, Any], *, release: str = "opensandbox", helm: str | None = None) -> None:
        self._config = {key: value for key, value in config.items() if value is not None}
        self._namespace = str(self._config.get("namespace") or SYSTEM)
        self._release = release
        self._helm = helm or shutil.which("helm")

    async def install(
        self,
        *,
        chart: str,
        values: Sequence[Mapping[str, Any]] = (),
        crds: Sequence[str] = (),
        image: str | None = None,
        replicas: int | None = None,
        timeout: float = 180.0,
    ) -> list[str]:
        """Install or upgrade, and wait until the controller is ready.

        Args:
            values: In today's names or those of old; later ones win.
            crds: Files or folders with definitions to apply before the chart.

        Returns:
            A line for each value that was renamed, and one that says what was done.

        Raises:
            UsageError: There is no helm.
            ProvisionError: helm fails; the message is its last line.
        """
        lines: list[str] = []
        for path in crds:
            await self._apply_definitions(Path(path))
        files = []
        with tempfile.TemporaryDirectory() as folder:
            for number, given in enumerate([*values, _own(image, replicas)]):
                made, told = translate_values(given)
                lines += told
                files.append(Path(folder, f"{number}.json"))
                files[-1].write_text(json.dumps(made))
            options = [word for file in files for word in ("--values", str(file))]
            wait = ["--create-namespace", "--wait", "--timeout", f"{int(timeout)}s"]
            await self._run("upgrade", "--install", self._release, chart, *options, *wait)
        return [*lines, f"{self._release}: installed in namespace {self._namespace}"]

    async def uninstall(self, *, crds: bool = False, timeout: float = 120.0) -> list[str]:
        """Remove the release; with ``crds`` first every BatchSandbox, snapshot and Pool, then the definitions.

        Raises:
            UsageError: Something is left that needs the controller, and ``crds`` is not set; or there is no helm.
            ProvisionError: helm fails, or something does not go.
        """
        from sandboxcore_kubernetes import Cluster

        from ._config import OpenSandboxConfig

        lines = []
        async with await Cluster.connect(OpenSandboxConfig(**self._config)) as cluster:
            left = {kind: await _all_of(cluster, kind) for kind in _IN_ORDER}
            total = sum(map(len, left.values()))
            if total and not crds:
                hint = "destroy them first, or give --crds to remove all of it"
                raise UsageError(f"without the controller these could never be deleted: {_counted(left)}", hint=hint)
            if total:
                await _remove(cluster, timeout)
                lines.append(f"removed {_counted(left)}")
            await self._run("uninstall", self._release, "--wait", "--timeout", f"{int(timeout)}s", "--ignore-not-found")
            lines.append(f"{self._release}: removed from namespace {self._namespace}")
            if crds:
                await _remove_definitions(cluster, timeout)
                lines.append("removed the definitions")
        return lines

    async def _apply_definitions(self, path: Path) -> None:
        from sandboxcore_kubernetes import Cluster
        from sandboxcore_kubernetes.cluster import APPLY_PATCH

        from ._config import OpenSandboxConfig

        documents = _definitions(path)
        async with await Cluster.connect(OpenSandboxConfig(**self._config)) as cluster:
            for document in documents:
                if document.get("kind") != _DEFINITION:
                    raise UsageError(f"{path}: {document.get('kind')} is no CustomResourceDefinition")
                name = document["metadata"]["name"]
                await cluster.patch(
                    _DEFINITION,
                    name,
                    document,
                    content_type=APPLY_PATCH,
                    field_manager="sandboxcore",
                    force=True,
                )

    async def _run(self, *argv: str) -> None:
        if self._helm is None:
            raise UsageError("there is no helm program in $PATH", hint="install Helm 3 or 4, or name it with --helm")
        where = ["--namespace", self._namespace]
        for option, key in (("--kubeconfig", "kubeconfig"), ("--kube-context", "context")):
            where += [option, self._config[key]] if key in self._config else []
        process = await asyncio.create_subprocess_exec(
            self._helm, *argv, *where, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
        )
        try:
            _, err = await process.communicate()
        except BaseException:
            if process.returncode is None:
                process.terminate()
                await process.wait()
            raise
        if process.returncode:
            said = err.decode(errors="replace").strip().splitlines()
            raise ProvisionError(f"helm {argv[0]} failed: {said[-1] if said else f'exit code {process.returncode}'}")


def _definitions(path: Path) -> list[dict[str, Any]]:
    import yaml

    files = sorted(path.glob("*.yaml")) if path.is_dir() else [path]
    if not files or not all(file.is_file() for file in files):
        raise UsageError(f"{path}: has no definitions (*.yaml)")
    return [document for file in files for document in yaml.safe_load_all(file.read_text()) if document]


def _own(image: str | None, replicas: int | None) -> dict[str, Any]:
    controller: dict[str, Any] = {}
    if image is not None:
        repository, colon, tag = image.rpartition(":")
        if not colon or "/" in tag:
            raise UsageError(f"--image {image!r}: must be REPOSITORY:TAG")
        controller["image"] = {"repository": repository, "tag": tag}
    if replicas is not None:
        controller["replicaCount"] = replicas
    return {"controller": controller} if controller else {}


async def _all_of(cluster: Cluster, kind: str) -> list[dict[str, Any]]:
    """List a kind in all namespaces; none where it is not defined (any more)."""
    from sandboxcore_kubernetes import ApiError

    try:
        found: list[dict[str, Any]] = (await cluster.list(kind, all_namespaces=True))["items"]
    except ApiError as error:
        if error.status != 404:
            raise mapped(error, "look for what is left") from error
        return []
    return found


def _counted(left: Mapping[str, Sequence[object]]) -> str:
    return ", ".join(f"{len(found)} {kind.rpartition('/')[2]}" for kind, found in left.items() if found)


async def _remove_definitions(cluster: Cluster, timeout: float) -> None:
    """Delete the definitions and wait until they are gone: what is applied while they go would go with them."""
    from sandboxcore_kubernetes import ApiError

    deadline = asyncio.get_running_loop().time() + timeout
    names = [f"{plural}.{GROUP}" for plural in ("batchsandboxes", "sandboxsnapshots", "pools")]
    for name in names:
        await cluster.delete(_DEFINITION, name)
    for name in names:
        while True:
            try:
                await cluster.get(_DEFINITION, name)
            except ApiError as error:
                if error.status == 404:
                    break
                raise mapped(error, f"look whether {name} is gone") from error
            if asyncio.get_running_loop().time() > deadline:
                raise ProvisionError(f"definition {name} does not go", hint="something of its kind has a finalizer")
            await asyncio.sleep(_POLL)


async def _remove(cluster: Cluster, timeout: float) -> None:
    """Delete BatchSandboxes, then what they came from or became; one that nobody will ever let go is freed in the end."""
    deadline = asyncio.get_running_loop().time() + timeout
    for kind in _IN_ORDER:
        while left := await _all_of(cluster, kind):
            late = asyncio.get_running_loop().time() > deadline - timeout / 2
            for obj in left:
                metadata = obj["metadata"]
                if "deletionTimestamp" not in metadata:
                    await cluster.delete(kind, metadata["name"], namespace=metadata["namespace"])
                elif kind == KIND and (late or await why_stuck(cluster, obj) is not None):
                    await free(cluster, obj)
            if asyncio.get_running_loop().time() > deadline:
                raise ProvisionError(f"{len(left)} objects of {kind} do not go", hint="look at their finalizers")
            await asyncio.sleep(_POLL)
