"""What a service may use, from the many keys that Compose has for it."""

from __future__ import annotations

from typing import Any

from sandboxcore.spec import Resources

from ._extensions import Extensions, read_quantity
from ._marks import Map, Path
from ._notes import Notes
from ._units import parse_bytes

__all__ = ("service_resources",)


def service_resources(service: dict[str, Any], source: Map, extensions: Extensions, path: Path, notes: Notes) -> Resources:
    """Collect limits and requests of a service."""
    found: dict[str, Any] = {}
    _plain(service, found)
    _shares(service, found, path, notes)
    _deploy(((service.get("deploy") or {}).get("resources")) or {}, found, (*path, "deploy", "resources"), notes)
    for index, device in enumerate(service.get("gpus", ())):
        _device(device, found, (*path, "gpus", index), notes, implied=True)
    _storage(service, found, path, notes)
    found["ulimits"] = _ulimits(service.get("ulimits") or {})
    _kubernetes(extensions, found, path, notes)
    _fractions(source, path, notes)
    return Resources(**{key: value for key, value in found.items() if value not in (None, 0) or key == "gpus"})


def _plain(service: dict[str, Any], found: dict[str, Any]) -> None:
    if service.get("cpus", 0) > 0:
        found["cpus"] = float(service["cpus"])
    for key, name in (("mem_limit", "memory_bytes"), ("mem_reservation", "memory_request_bytes"), ("shm_size", "shm_bytes")):
        if int(service.get(key, 0)) > 0:
            found[name] = int(service[key])
    if service.get("pids_limit", 0) > 0:
        found["pids"] = service["pids_limit"]


def _shares(service: dict[str, Any], found: dict[str, Any], path: Path, notes: Notes) -> None:
    quota, period = service.get("cpu_quota", 0), service.get("cpu_period", 100_000)
    if quota > 0:
        found.setdefault("cpus", quota / period)
        notes.approx((*path, "cpu_quota"), f"a limit of {quota / period:g} CPUs")
    if "cpu_period" in service:
        if quota > 0:
            notes.approx((*path, "cpu_period"), "only its ratio to cpu_quota is kept")
        else:
            notes.noop((*path, "cpu_period"), "means nothing without cpu_quota")
    if service.get("cpu_shares", 0) > 0:
        found["cpus_request"] = service["cpu_shares"] / 1024
        notes.approx((*path, "cpu_shares"), f"a request of {service['cpu_shares'] / 1024:g} CPUs")


def _deploy(resources: dict[str, Any], found: dict[str, Any], path: Path, notes: Notes) -> None:
    limits, reservations = resources.get("limits") or {}, resources.get("reservations") or {}
    for values, cpus, memory in ((limits, "cpus", "memory_bytes"), (reservations, "cpus_request", "memory_request_bytes")):
        if values.get("cpus", 0) > 0:
            found[cpus] = float(values["cpus"])
        if int(values.get("memory", 0)) > 0:
            found[memory] = int(values["memory"])
    if limits.get("pids", 0) > 0:
        found["pids"] = limits["pids"]
    for index, device in enumerate(reservations.get("devices", ())):
        _device(device, found, (*path, "reservations", "devices", index), notes, implied=False)
    if reservations.get("generic_resources"):
        notes.reject((*path, "reservations", "generic_resources"), "generic resources are a matter of Swarm")


def _device(device: dict[str, Any], found: dict[str, Any], path: Path, notes: Notes, *, implied: bool) -> None:
    capabilities = device.get("capabilities", ["gpu"] if implied else [])
    if not any(name in ("gpu", "nvidia", "compute") for name in capabilities):
        notes.reject((*path, "capabilities"), f"only GPUs can be reserved, not {', '.join(capabilities) or 'nothing'}")
        return
    if device.get("device_ids"):
        notes.reject((*path, "device_ids"), "a GPU can't be chosen by its id; ask for a count")
        return
    count = device.get("count", -1)
    if count == -1:
        if notes.options.gpus_all is None:
            notes.reject(path, "all GPUs can't be asked for; give a count", option="gpus_all")
            return
        count = notes.options.gpus_all
    found["gpus"] = found.get("gpus", 0) + count
    if device.get("driver"):
        notes.noop((*path, "driver"), "the backend knows which driver its GPUs have")
    if device.get("options"):
        notes.approx((*path, "options"), "options of the driver are not used")


def _storage(service: dict[str, Any], found: dict[str, Any], path: Path, notes: Notes) -> None:
    for key, value in (service.get("storage_opt") or {}).items():
        if key != "size":
            notes.noop((*path, "storage_opt", key), "an option of Docker's storage driver")
            continue
        try:
            found["storage_bytes"] = parse_bytes(value)
            notes.approx((*path, "storage_opt", key), "a limit of what the service may write")
        except ValueError as error:
            notes.problems.at(notes.tree, (*path, "storage_opt", key), str(error))


def _ulimits(ulimits: dict[str, Any]) -> dict[str, tuple[int, int]]:
    return {
        name: (value.get("soft", 0), value.get("hard", 0)) if isinstance(value, dict) else (value, value)
        for name, value in ulimits.items()
    }


def _kubernetes(extensions: Extensions, found: dict[str, Any], path: Path, notes: Notes) -> None:
    places = {
        ("limits", "cpu"): "cpus",
        ("limits", "memory"): "memory_bytes",
        ("limits", "ephemeral-storage"): "storage_bytes",
        ("requests", "cpu"): "cpus_request",
        ("requests", "memory"): "memory_request_bytes",
    }
    for part, values in extensions.resources.items():
        for name, value in values.items():
            where = (*path, "x-inspect_k8s_sandbox", "resources", part, name)
            key = places.get((part, name))
            if key is None:
                notes.reject(where, f"{name} can't be asked for in {part}")
                continue
            try:
                amount = read_quantity(value)
            except ValueError as error:
                notes.problems.at(notes.tree, where, str(error))
                continue
            amount = amount if key.startswith("cpus") else int(amount)
            if found.get(key) not in (None, amount):
                notes.problems.at(notes.tree, where, f"says something else than the service's own {key.partition('_')[0]}")
            found[key] = amount


def _fractions(source: Map, path: Path, notes: Notes) -> None:
    """Point at sizes that docker compose takes for none: numbers with a fraction, or written like 1e9."""
    for key in ("mem_limit", "mem_reservation", "memswap_limit", "shm_size"):
        if isinstance(source.get(key), float):
            notes.reject((*path, key), "docker compose ignores a size that is no whole number; write it as one, or with a unit")
