"""The shape of a project as docker compose prints it: every key, and the kind of its value."""

from __future__ import annotations

import re
from typing import Any

from ._decode import (
    OMIT,
    Decoder,
    Kind,
    Struct,
    always,
    boolean,
    command,
    duration,
    integer,
    mapping,
    mapping_or_null,
    maps_of,
    nonzero_duration,
    number,
    optional,
    read_mapping,
    sequence,
    size,
    strict_integer,
    string,
    strings,
)
from ._marks import Map, Path, Seq
from ._merging import as_sequence
from ._scalars import go_text

__all__ = ("CONFIG", "NETWORK", "SECRET", "SERVICE", "VOLUME")


def _hosts(decoder: Decoder, value: Any, path: Path) -> Any:
    found: dict[str, list[str]] = {}
    for item in as_sequence(value):
        text = go_text(item)
        name, separator, address = text.partition("=") if "=" in text else text.partition(":")
        if not separator:
            return decoder.fail(path, f"{text!r} names a host without an address")
        address = address[1:-1] if address.startswith("[") and address.endswith("]") else address
        found.setdefault(name, []).append(address)
    return [f"{name}={address}" for name in sorted(found) for address in found[name]] or OMIT


def _test(decoder: Decoder, value: Any, path: Path) -> Any:
    if isinstance(value, str):
        return ["CMD-SHELL", value]
    return strings(decoder, value, path)


def _count(decoder: Decoder, value: Any, path: Path) -> Any:
    return -1 if isinstance(value, str) and value.lower() == "all" else integer(decoder, value, path)


def _mode(decoder: Decoder, value: Any, path: Path) -> Any:
    text = value if isinstance(value, str) else f"{int(value or 0):o}"
    if isinstance(value, float) or not re.fullmatch(r"[0-7]+", text):
        return decoder.fail(path, f"{text!r} is not a file mode; write it in octal, such as '0440'")
    return f"{int(text, 8):04o}"


def _ulimit(decoder: Decoder, value: Any, path: Path) -> Any:
    if isinstance(value, Map):
        return _ULIMIT(decoder, value, path)
    found = integer(decoder, value, path)
    return {} if found is OMIT else found


def _ssh(decoder: Decoder, value: Any, path: Path) -> Any:
    found = read_mapping(value)
    return [name if text is None or not text else f"{name}={text}" for name, text in found.items()] or OMIT


def _options(decoder: Decoder, value: Any, path: Path) -> Any:
    items = value if isinstance(value, Map) else {}
    return {key: [go_text(one) for one in (item if isinstance(item, Seq) else [item])] for key, item in items.items()} or OMIT


def _args(decoder: Decoder, value: Any, path: Path) -> Any:
    found = mapping_or_null(decoder, value, path)
    return OMIT if found is OMIT else {key: item for key, item in found.items() if item is not None} or OMIT


def _renamed(struct: Struct, **names: str) -> Kind:
    """Print other names than the file has; docker compose does so for these."""

    def read(decoder: Decoder, value: Any, path: Path) -> Any:
        found = struct(decoder, value, path)
        return {names[key]: item for key, item in found.items()} if isinstance(found, dict) else found

    return read


_flag = optional(boolean, False)
_whole = optional(integer, 0)
_span = optional(duration, "0s")
_ULIMIT = Struct({"soft": integer, "hard": integer})
_ulimits = maps_of(_ulimit)

_FILE_MOUNT = Struct({"source": string, "target": string, "uid": string, "gid": string, "mode": optional(_mode, "0000")})
_HOOK = Struct(
    {
        "command": always(command, lambda: None),
        "user": string,
        "privileged": boolean,
        "working_dir": string,
        "environment": mapping_or_null,
    }
)
_THROTTLE = _renamed(Struct({"path": always(string, str), "rate": always(size, lambda: "0")}), path="Path", rate="Rate")
_WEIGHT = _renamed(Struct({"path": always(string, str), "weight": always(strict_integer, int)}), path="Path", weight="Weight")

_BUILD = Struct(
    {
        "context": string,
        "dockerfile": string,
        "dockerfile_inline": string,
        "entitlements": strings,
        "args": _args,
        "ssh": _ssh,
        "labels": mapping,
        "cache_from": strings,
        "cache_to": strings,
        "no_cache": boolean,
        "additional_contexts": mapping,
        "network": string,
        "provenance": string,
        "sbom": string,
        "pull": boolean,
        "target": string,
        "shm_size": size,
        "extra_hosts": _hosts,
        "isolation": string,
        "privileged": boolean,
        "secrets": sequence(_FILE_MOUNT),
        "tags": strings,
        "ulimits": _ulimits,
        "platforms": strings,
    }
)
_DEVICE_REQUEST = Struct({"capabilities": strings, "driver": string, "count": _count, "device_ids": strings, "options": mapping})
_UPDATE = Struct(
    {
        "parallelism": _whole,
        "delay": nonzero_duration,
        "failure_action": string,
        "monitor": nonzero_duration,
        "max_failure_ratio": number,
        "order": string,
    }
)
_GENERIC = Struct({"discrete_resource_spec": Struct({"kind": always(string, str), "value": always(integer, int)})})
_RESOURCE = Struct(
    {
        "cpus": number,
        "memory": size,
        "pids": integer,
        "devices": sequence(_DEVICE_REQUEST),
        "generic_resources": sequence(_GENERIC),
    }
)
_DEPLOY = Struct(
    {
        "mode": string,
        "replicas": _whole,
        "labels": mapping,
        "update_config": _UPDATE,
        "rollback_config": _UPDATE,
        "resources": always(Struct({"limits": _RESOURCE, "reservations": _RESOURCE}), dict),
        "restart_policy": Struct({"condition": string, "delay": _span, "max_attempts": _whole, "window": _span}),
        "placement": always(
            Struct(
                {
                    "constraints": strings,
                    "preferences": sequence(Struct({"spread": string})),
                    "max_replicas_per_node": integer,
                }
            ),
            dict,
        ),
        "endpoint_mode": string,
    }
)
_HEALTHCHECK = Struct(
    {
        "test": _test,
        "timeout": _span,
        "interval": _span,
        "retries": _whole,
        "start_period": _span,
        "start_interval": _span,
        "disable": boolean,
    }
)
_ENDPOINT = Struct(
    {
        "aliases": strings,
        "driver_opts": mapping,
        "gw_priority": integer,
        "interface_name": string,
        "ipv4_address": string,
        "ipv6_address": string,
        "link_local_ips": strings,
        "mac_address": string,
        "priority": integer,
    },
    nullable=True,
)
_PORT = Struct(
    {
        "name": string,
        "mode": string,
        "host_ip": string,
        "target": integer,
        "published": string,
        "protocol": string,
        "app_protocol": string,
    }
)
_MOUNT = Struct(
    {
        "type": string,
        "source": string,
        "target": string,
        "read_only": boolean,
        "consistency": string,
        "bind": Struct({"selinux": string, "propagation": string, "create_host_path": boolean, "recursive": string}),
        "volume": Struct({"labels": mapping, "nocopy": boolean, "subpath": string}),
        "tmpfs": Struct({"size": size, "mode": strict_integer}),
        "image": Struct({"subpath": string}),
    }
)
_WATCH = Struct(
    {
        "path": string,
        "action": string,
        "target": string,
        "exec": always(_HOOK, lambda: {"command": None}),
        "ignore": strings,
        "include": strings,
        "initial_sync": boolean,
    }
)

SERVICE = Struct(
    {
        "annotations": mapping,
        "attach": _flag,
        "blkio_config": Struct(
            {
                "weight": strict_integer,
                "weight_device": sequence(_WEIGHT),
                "device_read_bps": sequence(_THROTTLE),
                "device_read_iops": sequence(_THROTTLE),
                "device_write_bps": sequence(_THROTTLE),
                "device_write_iops": sequence(_THROTTLE),
            }
        ),
        "build": _BUILD,
        "cap_add": strings,
        "cap_drop": strings,
        "cgroup": string,
        "cgroup_parent": string,
        "command": always(command, lambda: None),
        "configs": sequence(_FILE_MOUNT),
        "container_name": string,
        "cpu_count": integer,
        "cpu_percent": number,
        "cpu_period": integer,
        "cpu_quota": integer,
        "cpu_rt_period": integer,
        "cpu_rt_runtime": integer,
        "cpu_shares": integer,
        "cpus": number,
        "cpuset": string,
        "credential_spec": Struct({"config": string, "file": string, "registry": string}),
        "depends_on": maps_of(Struct({"condition": string, "restart": boolean, "required": always(boolean, lambda: False)})),
        "deploy": _DEPLOY,
        "develop": Struct({"watch": sequence(_WATCH)}),
        "device_cgroup_rules": strings,
        "devices": sequence(Struct({"source": string, "target": string, "permissions": string})),
        "dns": strings,
        "dns_opt": strings,
        "dns_search": strings,
        "domainname": string,
        "entrypoint": always(command, lambda: None),
        "environment": mapping_or_null,
        "expose": strings,
        "external_links": strings,
        "extra_hosts": _hosts,
        "gpus": sequence(_DEVICE_REQUEST),
        "group_add": strings,
        "healthcheck": _HEALTHCHECK,
        "hostname": string,
        "image": string,
        "init": _flag,
        "ipc": string,
        "isolation": string,
        "labels": mapping,
        "links": strings,
        "logging": Struct({"driver": string, "options": mapping}),
        "mac_address": string,
        "mem_limit": size,
        "mem_reservation": size,
        "mem_swappiness": size,
        "memswap_limit": size,
        "models": maps_of(Struct({"endpoint_var": string, "model_var": string}, nullable=True)),
        "network_mode": string,
        "networks": maps_of(_ENDPOINT),
        "oom_kill_disable": boolean,
        "oom_score_adj": integer,
        "pid": string,
        "pids_limit": integer,
        "platform": string,
        "ports": sequence(_PORT),
        "post_start": sequence(_HOOK),
        "pre_stop": sequence(_HOOK),
        "privileged": boolean,
        "profiles": strings,
        "provider": Struct({"type": string, "options": _options}),
        "pull_policy": string,
        "read_only": boolean,
        "restart": string,
        "runtime": string,
        "scale": _whole,
        "secrets": sequence(_FILE_MOUNT),
        "security_opt": strings,
        "shm_size": size,
        "stdin_open": boolean,
        "stop_grace_period": _span,
        "stop_signal": string,
        "storage_opt": mapping,
        "sysctls": mapping,
        "tmpfs": strings,
        "tty": boolean,
        "ulimits": _ulimits,
        "use_api_socket": boolean,
        "user": string,
        "userns_mode": string,
        "uts": string,
        "volumes": sequence(_MOUNT),
        "volumes_from": strings,
        "working_dir": string,
    }
)
_SUBNET = Struct({"subnet": string, "gateway": string, "ip_range": string, "aux_addresses": mapping})
NETWORK = Struct(
    {
        "name": string,
        "driver": string,
        "driver_opts": mapping,
        "ipam": always(Struct({"driver": string, "config": sequence(_SUBNET)}), dict),
        "external": boolean,
        "internal": boolean,
        "attachable": boolean,
        "labels": mapping,
        "enable_ipv4": _flag,
        "enable_ipv6": _flag,
    }
)
VOLUME = Struct({"name": string, "driver": string, "driver_opts": mapping, "external": boolean, "labels": mapping})
CONFIG = Struct(
    {
        "name": string,
        "file": string,
        "environment": string,
        "content": string,
        "external": boolean,
        "labels": mapping,
        "driver": string,
        "driver_opts": mapping,
        "template_driver": string,
    }
)
SECRET = CONFIG
