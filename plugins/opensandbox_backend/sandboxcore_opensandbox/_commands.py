"""``sandboxcore opensandbox``: pools, installation, and manifests with names of old."""

from __future__ import annotations

import functools
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from sandboxcore.errors import UsageError

if TYPE_CHECKING:
    from sandboxcore_kubernetes import Cluster

    from .pools import Pool, Pools

__all__ = ("opensandbox",)

F = TypeVar("F", bound=Callable[..., Any])


@click.group("opensandbox")
def opensandbox() -> None:
    """Manage OpenSandbox on a cluster: its pools, its installation, and manifests with names of old."""


@opensandbox.group()
def pool() -> None:
    """Manage pools of warm pods."""


def _cluster_options(function: F) -> F:
    """Add what says which cluster; the command gets it as ``config``."""

    @click.option("--kubeconfig", metavar="FILE", help="Kubeconfig. [default: $KUBECONFIG, else ~/.kube/config]")
    @click.option("--context", metavar="NAME", help="Context of the kubeconfig. [default: its current one]")
    @click.option("-n", "--namespace", metavar="NAME", help="Namespace. [default: the context's]")
    @functools.wraps(function)
    def wrapper(*args: Any, kubeconfig: str | None, context: str | None, namespace: str | None, **options: Any) -> Any:
        config = {"kubeconfig": kubeconfig, "context": context, "namespace": namespace}
        return function(*args, config=config, **options)

    return wrapper  # type: ignore[return-value]


def _with_cluster(config: Mapping[str, Any], work: Callable[[Cluster], Awaitable[int | None]]) -> int:
    from sandboxcore.cli._signals import run_async

    async def run() -> int:
        from sandboxcore_kubernetes import Cluster

        from ._config import OpenSandboxConfig

        async with await Cluster.connect(OpenSandboxConfig(**config)) as cluster:
            return await work(cluster) or 0

    return run_async(run)


def _with_pools(config: Mapping[str, Any], work: Callable[[Pools], Awaitable[int | None]]) -> int:
    from .pools import Pools

    return _with_cluster(config, lambda cluster: work(Pools(cluster)))


_NUMBERS = ("buffer_min", "buffer_max", "pool_min", "pool_max")


def _numbers(function: F) -> F:
    for name in reversed(_NUMBERS):
        option = click.option(f"--{name.replace('_', '-')}", name, type=click.IntRange(min=0), help=f"capacitySpec: {name}.")
        function = option(function)
    return function


@pool.command("template")
@click.option("--image", required=True, help="Image of the sandboxes.")
@click.option("--name", default="agents", show_default=True, help="Name of the pool.")
@click.option("--buffer", type=click.IntRange(min=0), default=2, show_default=True, help="Pods that are kept ready.")
@click.option("--max", "maximum", type=click.IntRange(min=1), default=10, show_default=True, help="Most pods it may have.")
@click.option("--cpus", type=float, help="Processors of a pod.")
@click.option("--memory", help="Memory of a pod, as 512Mi.")
@click.option("--recycle", type=click.Choice(["Delete", "Restart", "Noop"]), default="Delete", show_default=True,
              help="What becomes of pods that come back.")  # fmt: skip
@click.option("--arch", "architecture", type=click.Choice(["amd64", "arm64"]),
              help="Nodes that the pods run on. [default: amd64; with --tasks any that its image runs on]")  # fmt: skip
@click.option("--tasks", "task_executor", metavar="IMAGE", help="Run commands of services, by the task-executor in this image.")
@click.option("--open-network", is_flag=True, help="Leave the pods' way out as the cluster has it.")
def _template(**options: Any) -> None:
    """Print a good Pool as YAML: with the guest, and with a policy that closes the way out."""
    from .pools import pool_objects, pool_yaml

    name, image = options.pop("name"), options.pop("image")
    click.echo(pool_yaml(pool_objects(name, image, **options)), nl=False)


@pool.command("create")
@click.option("-f", "--file", "file", type=click.Path(path_type=Path), required=True, help="Manifest with a Pool; - for stdin.")
@click.option("--warm", type=click.IntRange(min=1), help="Wait until so many pods are ready.")
@_cluster_options
def _create(config: Mapping[str, Any], file: Path, warm: int | None) -> int:
    """Create pools, or change them to what the file says."""
    documents = _documents(file)
    config = _namespace_of(documents, config, file)

    async def work(pools: Pools) -> int:
        for name in await pools.apply(documents):
            if warm is not None:
                await pools.warm(name, warm)
            click.echo(name)
        return 0

    return _with_pools(config, work)


@pool.command("ls")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@_cluster_options
def _ls(config: Mapping[str, Any], as_json: bool) -> int:
    """List pools: what they have, what is free, and who holds the rest."""

    async def work(pools: Pools) -> int:
        _show(await pools.all(), as_json)
        return 0

    return _with_pools(config, work)


def _show(pools: Sequence[Pool], as_json: bool) -> None:
    from sandboxcore.cli._output import print_json, print_table

    if as_json:
        keys = ("name", "total", "allocated", "available", "maximum", "minimum", "buffer", "holders", "problem")
        described = [{key: getattr(found, key) for key in keys} for found in pools]
        for entry, found in zip(described, pools, strict=True):
            entry |= {"image": found.fit.image, "recycle": found.fit.recycle, "tasks": found.fit.tasks} if found.fit else {}
        print_json(described)
        return
    rows = [
        (
            found.name,
            str(found.total),
            str(found.allocated),
            str(found.available),
            str(found.maximum),
            found.fit.image if found.fit else f"({found.problem})",
            found.fit.recycle if found.fit else "",
            ", ".join(f"{name}: {count}" for name, count in found.holders.items()),
        )
        for found in pools
    ]
    print_table(("POOL", "TOTAL", "ALLOCATED", "AVAILABLE", "MAX", "IMAGE", "RECYCLE", "HELD BY"), rows)


@pool.command("scale")
@click.argument("name")
@_numbers
@_cluster_options
def _scale(config: Mapping[str, Any], name: str, **numbers: int | None) -> int:
    """Change how many pods a pool keeps and may have."""
    if all(value is None for value in numbers.values()):
        raise UsageError("nothing says how the pool is to be scaled", hint="give --pool-max, --buffer-min, ...")

    async def work(pools: Pools) -> int:
        now = await pools.scale(name, **numbers)
        click.echo(f"{name}: buffer {now.buffer[0]} to {now.buffer[1]}, pool {now.minimum} to {now.maximum}")
        return 0

    return _with_pools(config, work)


@pool.command("drain")
@click.argument("name")
@_cluster_options
def _drain(config: Mapping[str, Any], name: str) -> int:
    """Let a pool have no pods but those that somebody has."""

    async def work(pools: Pools) -> int:
        now = await pools.drain(name)
        click.echo(f"{name}: {now.total} pods, all of them in use" if now.total else f"{name}: empty")
        return 0

    return _with_pools(config, work)


@pool.command("delete")
@click.argument("names", nargs=-1)
@click.option("-f", "--file", "file", type=click.Path(path_type=Path), help="Delete the pools of this manifest.")
@click.option("--holders", is_flag=True, help="Delete the BatchSandboxes that hold its pods, too.")
@_cluster_options
def _delete(config: Mapping[str, Any], names: Sequence[str], file: Path | None, holders: bool) -> int:
    """Delete pools, in an order that does not hang."""
    if names and file:
        raise UsageError(f"both names and {file} say which pools are to be deleted", hint="give names, or -f, not both")
    wanted = list(names)
    if file:
        documents = _documents(file)
        config = _namespace_of(documents, config, file)
        wanted = [document["metadata"]["name"] for document in documents if document["kind"] == "Pool"]
    if not wanted:
        raise UsageError("nothing says which pool is to be deleted", hint="give its name, or -f with its manifest")

    async def work(pools: Pools) -> int:
        for name in wanted:
            await pools.delete(name, holders=holders)
            click.echo(name)
        return 0

    return _with_pools(config, work)


@opensandbox.command("translate")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--values", is_flag=True, help="The file has values of the chart, not manifests.")
def _translate(file: Path, values: bool) -> None:
    """Print a manifest, or chart values, with names of old in today's names; what was renamed is on stderr."""
    import yaml
    from sandboxcore.cli._output import warn

    from ._seed_names import translate_values

    documents = _documents(file, quiet=True, kinds=not values)
    if values:
        made, lines = translate_values(documents[0] if documents else {})
        click.echo(yaml.safe_dump(made, sort_keys=False), nl=False)
    else:
        documents, lines = _translated(documents)
        click.echo("---\n".join(yaml.safe_dump(document, sort_keys=False) for document in documents), nl=False)
    for line in lines:
        warn(line)


@opensandbox.command("unstick")
@click.argument("name")
@_cluster_options
def _unstick(config: Mapping[str, Any], name: str) -> int:
    """Let go of a BatchSandbox that is being deleted and that nobody will ever let go."""

    async def work(cluster: Cluster) -> int:
        from sandboxcore_kubernetes import ApiError

        from ._batch_watch import KIND
        from ._errors import mapped
        from ._stuck import free, why_stuck

        try:
            found = await cluster.get(KIND, name)
            reason = await why_stuck(cluster, found)
        except ApiError as error:
            raise mapped(error, f"look at BatchSandbox {name!r}") from error
        if "deletionTimestamp" not in found["metadata"] or reason is None:
            raise UsageError(f"BatchSandbox {name!r} is not stuck", hint="only one that is being deleted can be")
        await free(cluster, found)
        click.echo(f"{name}: {reason.message.partition(': ')[2]}; its finalizer was taken away")
        return 0

    return _with_cluster(config, work)


def _chart_options(function: F) -> F:
    for option in (
        click.option("--release", default="opensandbox", show_default=True, help="Name of the Helm release."),
        click.option("--helm", "helm", metavar="PROGRAM", help="The helm program. [default: helm]"),
    ):
        function = option(function)
    return function


@opensandbox.command("install")
@click.option("--chart", required=True, metavar="PATH", help="The controller's chart: a folder, an archive or an OCI address.")
@click.option("-f", "--values", "files", multiple=True, type=click.Path(path_type=Path),
              help="Values, in today's names or those of old; repeatable.")  # fmt: skip
@click.option("--crds", "crds", multiple=True, metavar="PATH", help="Definitions to apply before the chart; repeatable.")
@click.option("--image", help="Image of the controller, as REPOSITORY:TAG.")
@click.option("--replicas", type=click.IntRange(min=1), help="Copies of the controller.")
@click.option("--timeout", type=float, default=180.0, show_default=True, help="Seconds to wait until it is healthy.")
@_chart_options
@_cluster_options
def _install(config: Mapping[str, Any], **options: Any) -> int:
    """Install the controller with helm, and wait until it works."""
    from sandboxcore.cli._signals import run_async

    from ._installation import Installation

    release, helm = options.pop("release"), options.pop("helm")
    documents = [_documents(file, quiet=True, kinds=False) for file in options.pop("files")]
    options["values"] = [document for found in documents for document in found]
    return run_async(lambda: _told(Installation(config, release=release, helm=helm).install(**options)))


@opensandbox.command("uninstall")
@click.option("--crds", is_flag=True, help="Remove the definitions too, and with them every Pool and BatchSandbox.")
@click.option("--timeout", type=float, default=120.0, show_default=True, help="Seconds for everything to go.")
@_chart_options
@_cluster_options
def _uninstall(config: Mapping[str, Any], **options: Any) -> int:
    """Remove the controller, unless there is something left that only it can delete; --crds removes that first."""
    from sandboxcore.cli._signals import run_async

    from ._installation import Installation

    release, helm = options.pop("release"), options.pop("helm")
    return run_async(lambda: _told(Installation(config, release=release, helm=helm).uninstall(**options)))


async def _told(work: Awaitable[list[str]]) -> int:
    for line in await work:
        click.echo(line)
    return 0


def _documents(file: Path, *, quiet: bool = False, kinds: bool = True) -> list[dict[str, Any]]:
    """Read YAML documents, in today's names; what was renamed is warned of, unless ``quiet``."""
    import yaml

    try:
        text = sys.stdin.read() if str(file) == "-" else file.read_text()
        found = [document for document in yaml.safe_load_all(text) if document is not None]
    except OSError as error:
        raise UsageError(f"{file}: {error.strerror}") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{file}:{mark.line + 1}:{mark.column + 1}" if mark else str(file)
        raise UsageError(f"{where}: is no YAML: {getattr(error, 'problem', None) or error}") from None
    for document in found:
        if not isinstance(document, dict) or (kinds and not _is_object(document)):
            raise UsageError(f"{file}: every document must be an object with apiVersion, kind and metadata.name")
    if quiet or not kinds:
        return found
    from sandboxcore.cli._output import warn

    made, lines = _translated(found)
    for line in lines:
        warn(f"{file}: {line}")
    return made


def _namespace_of(documents: Sequence[Mapping[str, Any]], config: Mapping[str, Any], file: Path) -> Mapping[str, Any]:
    """Configure the namespace that a manifest names, if it does: it must not be one thing to this command and another to that."""
    named = sorted({str(space) for document in documents if (space := document["metadata"].get("namespace"))})
    if len(named) > 1:
        raise UsageError(f"{file}: has objects of several namespaces: {', '.join(named)}", hint="give each a file of its own")
    if named and config.get("namespace") not in (None, *named):
        raise UsageError(
            f"{file}: has metadata.namespace {named[0]!r}, and -n is {config['namespace']!r}",
            hint="leave -n out, or take metadata.namespace out of the file",
        )
    return {**config, "namespace": named[0]} if named else config


def _is_object(document: Mapping[str, Any]) -> bool:
    metadata = document.get("metadata")
    return "apiVersion" in document and "kind" in document and isinstance(metadata, Mapping) and bool(metadata.get("name"))


def _translated(documents: Sequence[Mapping[str, Any]]) -> tuple[list[dict[str, Any]], list[str]]:
    from ._seed_names import translate_manifest

    pairs = [translate_manifest(document) for document in documents]
    return [made for made, _ in pairs], [line for _, lines in pairs for line in lines]
