"""Make a pod that was made in advance what a service wants: proven clean, its files, its directory, the names of its siblings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from sandboxcore._at_once import together
from sandboxcore.errors import ProvisionError, SandboxError, SandboxUnavailableError
from sandboxcore.values import ExecRequest

from ._names import USED_BY
from ._notes import Notes

if TYPE_CHECKING:
    from sandboxcore.guest import Guest
    from sandboxcore.spec import ServiceSpec
    from sandboxcore_kubernetes import Cluster, PodState

    from ._making import Job

__all__ = ("fill", "prepare")

_APPEND = "cat >> /etc/hosts"


async def prepare(job: Job, cluster: Cluster, parts: Sequence[tuple[Notes, Sequence[PodState]]]) -> None:
    """Do to each pod what its service and its environment need, as far as anything is needed at all.

    Args:
        parts: All that come from pools, with their pods.

    Raises:
        ProvisionError: It can't be done; the message names the service.
    """
    hosts = _hosts(parts) if len(parts[0][0].services) > 1 else {}
    await together(_one(job, cluster, notes, index, state, hosts) for notes, pods in parts for index, state in enumerate(pods))


def _hosts(parts: Sequence[tuple[Notes, Sequence[PodState]]]) -> dict[int, dict[str, str]]:
    """Collect the addresses of each environment's services."""
    found: dict[int, dict[str, str]] = {}
    for notes, pods in parts:
        for index, state in enumerate(pods):
            place = notes.place(index)
            if place is not None:
                found.setdefault(place[0], {})[place[1]] = state.ip
    return found


async def _one(
    job: Job, cluster: Cluster, notes: Notes, index: int, state: PodState, hosts: Mapping[int, Mapping[str, str]]
) -> None:
    place = notes.place(index)
    if place is None:
        return
    environment, name = place
    service = job.spec.services[name]
    guest: Guest | None = None
    try:
        if notes.recycle != "Delete":
            await _claim(cluster, notes, environment, state)
        dirty = notes.recycle == "Noop"
        if not (dirty or service.files or service.working_dir or hosts):
            return
        guest = _guest(cluster, notes, name, state)
        if dirty:
            from ._cleanness import prove_clean

            await prove_clean(guest, state)
        await fill(guest, service, _lines(job, hosts.get(environment, {}), name))
    except (SandboxError, OSError) as error:
        if isinstance(error, ProvisionError):
            raise
        hint = getattr(error, "hint", None)
        raise ProvisionError(f"service {name!r}: pod {state.name} can't be prepared: {error}", service=name, hint=hint) from error
    finally:
        if guest is not None:
            await guest.aclose()


async def _claim(cluster: Cluster, notes: Notes, environment: int, state: PodState) -> None:
    """Write on the pod who has it: it outlives us, and whoever has it next must know."""
    before = state.annotations.get(USED_BY)
    if before and notes.recycle == "Noop":
        raise ProvisionError(
            f"pod {state.name} of pool {notes.pool!r} was used by environment {before} and given back as it was (Noop)",
            hint=f"delete it, and the pool makes a clean one: kubectl delete pod {state.name}; or use Delete or Restart",
        )
    change = {"metadata": {"annotations": {USED_BY: notes.environments[environment]}}}
    await cluster.patch("Pod", state.name, change, namespace=state.namespace)


def _guest(cluster: Cluster, notes: Notes, service: str, state: PodState) -> Guest:
    from sandboxcore.guest import Guest
    from sandboxcore_kubernetes import PodChannel

    from ._pool_template import GUEST_HINT

    settings = notes.settings.get(service) or {}
    channel = PodChannel(
        cluster,
        namespace=state.namespace,
        pod=state.name,
        container=settings.get("container"),
        uid=state.uid,
        guest_path=settings.get("guest", ""),
        mount_hint=GUEST_HINT,
    )
    return Guest(channel)


def _lines(job: Job, addresses: Mapping[str, str], own: str) -> bytes:
    """Write what the pod's /etc/hosts needs to know its siblings by their names."""
    lines = []
    for name, address in addresses.items():
        service = job.spec.services[name]
        if name == own or not _share_a_network(job.spec.services[own], service):
            continue
        aliases = [alias for aliases in (service.networks or {}).values() for alias in aliases]
        words = dict.fromkeys((name, *service.aliases, *aliases, *((service.hostname,) if service.hostname else ())))
        lines.append(f"{address}\t{' '.join(words)}\n")
    return "".join(lines).encode()


def _share_a_network(one: ServiceSpec, other: ServiceSpec) -> bool:
    return bool(set(one.networks or ()) & set(other.networks or ()))


async def fill(guest: Guest, service: ServiceSpec, hosts: bytes) -> None:
    """Give a sandbox its service's directory and files, and further lines for its hosts file."""
    if service.working_dir:
        await guest.files.make_dir(service.working_dir, parents=True)
    for path, file in service.files.items():
        await guest.files.write_file(path, file.content, mode=file.mode)
        if file.uid or file.gid:
            await _run(guest, ("chown", f"{file.uid}:{file.gid}", path))
    if hosts:
        await _run(guest, ("/bin/sh", "-c", _APPEND), stdin=hosts)


async def _run(guest: Guest, argv: tuple[str, ...], stdin: bytes | None = None) -> None:
    result = await guest.executor.exec(ExecRequest(argv=argv, stdin=stdin, timeout=30.0))
    if not result.ok:
        words = result.error_text().strip() or f"exit code {result.exit_code}"
        raise SandboxUnavailableError(f"{argv[0]}: {words}", started="yes", hint="it needs root in the container, and a shell")
