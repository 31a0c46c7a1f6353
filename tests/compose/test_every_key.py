# ruff: noqa: E501
"""Nothing is ever dropped without a word: every key of the Compose schema is in the spec, in the report, or refused by name."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sandboxcore_compose import ComposeTranslator
from sandboxcore_compose._keytable import CARRIED, FIXED, table
from sandboxcore_compose._schema import schema

from sandboxcore.errors import SpecError
from sandboxcore.report import Loss
from sandboxcore.spec import EnvironmentSpec

BASE: dict[str, Any] = {
    "services": {"a": {"image": "x"}, "b": {"image": "y", "healthcheck": {"test": "true"}}},
}
WITH = {
    "networks": {"services": {"a": {"networks": ["n"]}}, "networks": {"n": {}}},
    "volumes": {"services": {"a": {"volumes": ["vol:/v"]}}, "volumes": {"vol": {}}},
    "configs": {"services": {"a": {"configs": ["c"]}}, "configs": {"c": {"content": "text"}}},
    "secrets": {"services": {"a": {"secrets": ["s"]}}, "secrets": {"s": {"environment": "SET"}}},
}
GPU = {"capabilities": ["gpu"], "count": 1}

#: Key of the service to a value, and what else the document needs.
SERVICE: dict[str, Any] = {
    "annotations": {"k": "v"}, "attach": False, "blkio_config": {"weight": 300}, "build": ".", "cap_add": ["SYS_PTRACE"],
    "cap_drop": ["ALL"], "cgroup": "private", "cgroup_parent": "p", "command": ["c"], "configs": ["c"], "container_name": "name",
    "cpu_count": 2, "cpu_percent": 50, "cpu_period": 1000, "cpu_quota": 500, "cpu_rt_period": 10, "cpu_rt_runtime": 5,
    "cpu_shares": 512, "cpus": 2, "cpuset": "0", "credential_spec": {"file": "f"}, "depends_on": ["b"], "deploy": {"replicas": 3},
    "develop": {"watch": [{"path": "p", "action": "rebuild"}]}, "device_cgroup_rules": ["c 1:3 mr"], "devices": ["/dev/kvm"],
    "dns": "1.1.1.1", "dns_opt": ["o"], "dns_search": "d", "domainname": "d", "entrypoint": ["e"], "env_file": "some.env",
    "environment": {"K": "v"}, "expose": ["80"], "extends": "b", "external_links": ["l"], "extra_hosts": ["h=1.2.3.4"],
    "gpus": [GPU], "group_add": ["g"], "healthcheck": {"test": "t"}, "hostname": "h", "image": "other", "init": True,
    "ipc": "shareable", "isolation": "hyperv", "label_file": "some.env", "labels": {"k": "v"}, "links": ["b:other"],
    "logging": {"driver": "d"}, "mac_address": "02:42:ac:11:65:43", "mem_limit": "1g", "mem_reservation": "1g",
    "mem_swappiness": 5, "memswap_limit": "1g", "models": ["m"], "network_mode": "none", "networks": ["n"],
    "oom_kill_disable": True, "oom_score_adj": 5, "pid": "host", "pids_limit": 5, "platform": "linux/amd64", "ports": ["80"],
    "post_start": [{"command": "c"}], "pre_stop": [{"command": "c"}], "privileged": True, "profiles": ["p"],
    "provider": {"type": "t"}, "pull_policy": "always", "pull_refresh_after": "1d", "read_only": True, "restart": "always",
    "runtime": "r", "scale": 2, "secrets": ["s"], "security_opt": ["no-new-privileges"], "shm_size": "1m", "stdin_open": True,
    "stop_grace_period": "3s", "stop_signal": "SIGINT", "storage_opt": {"size": "1g"}, "sysctls": {"a": 1}, "tmpfs": "/t",
    "tty": True, "ulimits": {"nofile": 5}, "use_api_socket": True, "user": "u", "userns_mode": "host", "uts": "host",
    "volumes": ["/anonymous"], "volumes_from": ["b"], "working_dir": "/w",
}  # fmt: skip
MORE: dict[str, dict[str, Any]] = {
    "configs": {"configs": {"c": {"content": "text"}}},
    "secrets": {"secrets": {"s": {"environment": "SET"}}},
    "models": {"models": {"m": {"model": "ai/x"}}},
    "networks": {"networks": {"n": {}}},
    "volumes_from": {"services": {"b": {"volumes": ["/shared"]}}},
}
NESTED: dict[tuple[str, ...], dict[str, Any]] = {
    ("build",): {
        "context": "./other", "dockerfile": "D", "dockerfile_inline": "FROM x", "entitlements": ["e"], "args": {"A": "1"},
        "ssh": ["default"], "labels": {"k": "v"}, "cache_from": ["c"], "cache_to": ["c"], "no_cache": True,
        "additional_contexts": {"k": "./v"}, "network": "host", "provenance": "true", "sbom": "true", "pull": True, "target": "t",
        "shm_size": "1m", "extra_hosts": ["h=1.2.3.4"], "isolation": "i", "privileged": True, "secrets": ["s"], "tags": ["t"],
        "ulimits": {"nofile": 5}, "platforms": ["linux/amd64"],
    },
    ("healthcheck",): {
        "disable": True, "interval": "7s", "retries": 7, "test": "t", "timeout": "7s", "start_period": "7s", "start_interval": "7s",
    },
    ("deploy",): {
        "mode": "replicated", "endpoint_mode": "vip", "replicas": 2, "labels": {"k": "v"}, "rollback_config": {"parallelism": 1},
        "update_config": {"parallelism": 1}, "resources": {"limits": {"cpus": 1}}, "restart_policy": {"condition": "any"},
        "placement": {"constraints": ["c"]},
    },
    ("deploy", "resources", "limits"): {"cpus": 1, "memory": "1g", "pids": 5},
    ("deploy", "resources", "reservations"): {
        "cpus": 1, "memory": "1g", "generic_resources": [{"discrete_resource_spec": {"kind": "k", "value": 1}}], "devices": [GPU],
    },
    ("deploy", "restart_policy"): {"condition": "any", "delay": "1s", "max_attempts": 3, "window": "1s"},
    ("deploy", "placement"): {"constraints": ["c"], "preferences": [{"spread": "s"}], "max_replicas_per_node": 1},
}  # fmt: skip
ITEMS: dict[tuple[str, ...], tuple[dict[str, Any], dict[str, Any]]] = {
    ("ports", "0"): (
        {"target": 80, "published": 8080},
        {"name": "n", "mode": "odd", "host_ip": "127.0.0.1", "target": 81, "published": 81, "protocol": "udp", "app_protocol": "h"},
    ),
    ("volumes", "0"): (
        {"type": "volume", "source": "vol", "target": "/v"},
        {
            "type": "tmpfs", "source": "vol2", "target": "/w", "read_only": True, "consistency": "c", "bind": {"selinux": "z"},
            "volume": {"nocopy": True}, "tmpfs": {"size": 5}, "image": {"subpath": "s"},
        },
    ),
}  # fmt: skip
NETWORK: dict[str, Any] = {
    "name": "n", "driver": "macvlan", "driver_opts": {"k": "v"}, "ipam": {"driver": "d"}, "external": True, "internal": True,
    "enable_ipv4": True, "enable_ipv6": True, "attachable": True, "labels": {"k": "v"},
}  # fmt: skip
ENDPOINT: dict[str, Any] = {
    "aliases": ["a"], "interface_name": "i", "ipv4_address": "1.2.3.4", "ipv6_address": "::1", "link_local_ips": ["1.2.3.4"],
    "mac_address": "02:42:ac:11:65:43", "driver_opts": {"k": "v"}, "priority": 1, "gw_priority": 1,
}  # fmt: skip
VOLUME: dict[str, Any] = {"name": "n", "driver": "other", "driver_opts": {"k": "v"}, "external": True, "labels": {"k": "v"}}
FILE: dict[str, Any] = {"uid": "1", "gid": "1", "mode": 0o400, "target": "/t"}
SECRET: dict[str, Any] = {
    "name": "n", "environment": "OTHER", "file": "some.env", "external": True, "labels": {"k": "v"}, "driver": "d",
    "driver_opts": {"k": "v"}, "template_driver": "t",
}  # fmt: skip
CONFIG: dict[str, Any] = {
    "name": "n", "content": "other", "environment": "SET", "file": "some.env", "external": True, "labels": {"k": "v"},
    "template_driver": "t",
}  # fmt: skip
#: A name within an environment that lives and dies with it: nothing is lost, and nothing hangs on it.
NAMES_ONLY = {("secrets", "s", "name"), ("configs", "c", "name")}


def merged(base: Any, over: Any) -> Any:
    if isinstance(base, dict) and isinstance(over, dict):
        return {**base, **{key: merged(base.get(key), value) for key, value in over.items()}}
    return copy.deepcopy(over)


def at(path: tuple[str, ...], value: Any) -> dict[str, Any]:
    for part in reversed(path):
        value = [value] if part == "0" else {part: value}
    assert isinstance(value, dict)
    return value


def translate(folder: Path, document: Any) -> tuple[EnvironmentSpec | None, list[str]]:
    """Return the spec, and the keys that the report or the refusal names."""
    (folder / "some.env").write_text("FROM_FILE=1\n")
    file = folder / "compose.yaml"
    file.write_text(json.dumps(document))
    try:
        done = ComposeTranslator().translate([file], variables={"SET": "v", "OTHER": "o", "HOME": "/root"})
    except SpecError as error:
        return None, [problem.split(": ", 2)[1] for problem in error.problems]
    return done.spec, [entry.key for entry in done.report.entries]


def every() -> Iterator[tuple[tuple[str, ...], dict[str, Any], dict[str, Any]]]:
    """Yield every key with a document without it, and one with it."""
    for key, value in SERVICE.items():
        without = merged(BASE, MORE.get(key, {}))
        yield ("services", "a", key), without, merged(without, at(("services", "a", key), value))
    for inner, values in NESTED.items():
        for key, value in values.items():
            base = merged(BASE, MORE.get("secrets", {}))
            if inner == ("build",):
                base = merged(
                    base,
                    {"services": {"a": {"build": {"dockerfile_inline": "FROM y"} if key[:6] == "docker" else {"tags": ["b"]}}}},
                )
                del base["services"]["a"]["image"]
                if key == "dockerfile":
                    base["services"]["a"]["build"] = {}
            elif inner == ("healthcheck",):
                base = merged(base, {"services": {"a": {"healthcheck": {"test": "before"}}}})
            elif inner == ("deploy", "restart_policy"):
                base = merged(base, {"services": {"a": {"deploy": {"restart_policy": {"condition": "on-failure"}}}}})
            path = ("services", "a", *inner, key)
            yield path, base, merged(base, at(path, value))
    for inner, (item, values) in ITEMS.items():
        for key, value in values.items():
            base = merged(BASE, {"volumes": {"vol": {}, "vol2": {}}})
            full = {**item, key: value}
            if key == "bind":
                item, full = (
                    {"type": "bind", "source": ".", "target": "/v"},
                    {"type": "bind", "source": ".", "target": "/v", key: value},
                )
            elif key in ("tmpfs", "image"):
                item, full = {**item, "type": key}, {**item, "type": key, key: value}
            yield (
                ("services", "a", *inner, key),
                merged(base, at(("services", "a", *inner), item)),
                merged(base, at(("services", "a", *inner), full)),
            )
    for key, value in ENDPOINT.items():
        base = merged(BASE, WITH["networks"])
        yield ("services", "a", "networks", "n", key), base, merged(base, {"services": {"a": {"networks": {"n": {key: value}}}}})
    for section, name, values in (
        ("networks", "n", NETWORK),
        ("volumes", "vol", VOLUME),
        ("secrets", "s", SECRET),
        ("configs", "c", CONFIG),
    ):
        for key, value in values.items():
            base = merged(BASE, WITH[section])
            changed = merged(base, {section: {name: {key: value}}})
            if key in ("environment", "file", "content", "external") and section in ("secrets", "configs"):
                changed[section][name] = {key: value}
            yield (section, name, key), base, changed
    for section, name in (("secrets", "s"), ("configs", "c")):
        for key, value in FILE.items():
            base = merged(BASE, WITH[section])
            long = {"services": {"a": {section: [{"source": name, key: value}]}}}
            yield ("services", "a", section, "0", key), base, merged(base, long)
    for key in ("restart", "required", "condition"):
        base = merged(BASE, {"services": {"a": {"depends_on": {"b": {"condition": "service_started"}}}}})
        value = {"restart": True, "required": False, "condition": "service_healthy"}[key]
        yield (
            ("services", "a", "depends_on", "b", key),
            base,
            merged(base, {"services": {"a": {"depends_on": {"b": {key: value}}}}}),
        )
    for key, value in {"name": "named", "version": "3", "models": {"m": {"model": "x"}}, "x-unknown": 1}.items():
        yield (key,), BASE, merged(BASE, {key: value})


CASES = [case for case in every() if case[0] not in NAMES_ONLY]


@pytest.mark.parametrize(("path", "without", "document"), CASES, ids=[".".join(path) for path, _, _ in CASES])
def test_a_key_is_in_the_spec_or_in_the_report(tmp_path: Path, path: tuple[str, ...], without: Any, document: Any) -> None:
    before, said_before = translate(tmp_path, without)
    after, said = translate(tmp_path, document)
    key = ".".join(path).replace(".0", "[0]")
    if path == ("services", "a", "profiles"):
        assert after is not None
        assert "a" not in after.services
    elif after is None or after == before:
        near = [one for one in said if one.startswith(key) or (key.startswith(one) and (after is None or one not in said_before))]
        assert near, f"{key} is neither in the spec nor in the report, which has {said}"


def test_every_key_of_the_schema_is_tried() -> None:
    definitions = schema()["definitions"]
    assert set(SERVICE) == set(definitions["service"]["properties"])
    assert set(FIXED) | set(CARRIED) == set(SERVICE)
    build = next(choice for choice in definitions["service"]["properties"]["build"]["oneOf"] if choice["type"] == "object")
    assert set(NESTED["build",]) == set(build["properties"])
    assert set(NESTED["healthcheck",]) == set(definitions["healthcheck"]["properties"])
    deploy = definitions["deployment"]["properties"]
    assert set(NESTED["deploy",]) == set(deploy)
    for inner in ("limits", "reservations"):
        assert set(NESTED["deploy", "resources", inner]) == set(deploy["resources"]["properties"][inner]["properties"])
    for inner in ("restart_policy", "placement"):
        assert set(NESTED["deploy", inner]) == set(deploy[inner]["properties"])
    assert set(NETWORK) == set(definitions["network"]["properties"])
    assert set(VOLUME) == set(definitions["volume"]["properties"])
    assert set(SECRET) == set(definitions["secret"]["properties"])
    assert set(CONFIG) == set(definitions["config"]["properties"])


def test_the_key_table_has_a_row_for_every_key() -> None:
    rows = table().splitlines()[2:]
    assert {row.split("`")[1] for row in rows} == set(SERVICE)
    assert all(f"| {loss.value} |" in table() for loss in Loss)


def test_the_docs_have_the_key_table() -> None:
    page = Path(__file__).parents[2] / "docs" / "reference" / "compose.md"
    assert table() in page.read_text()
