"""Specs by chance: most are sound, many ask for what can't be had, some are nonsense."""

from __future__ import annotations

import random
from typing import Any

TEXTS = ["", "x", "two words", "é漢🐚", "a\nb", "$HOME", "-rf", "x" * 300, "\x7f", "../..", "0", "null"]
PATHS = [
    "/work",
    "/",
    "/tmp/a/b c",
    "/proc/1",
    "/dev/null",
    "/etc",
    "relative",
    "",
    "/no\nline",
    "/tmp/../tmp/x",
    "/" + "d" * 300,
]
CONDITIONS = ["started", "healthy", "completed"]
COMMANDS = [
    ["sleep", "60"], ["sh", "-c", "echo started; sleep 60"], ["true"], ["false"], ["/no/such/program"], ["/etc"], [""],
    ["sh", "-c", "kill -9 $$"], ["sh", "-c", "exec >&- 2>&-; sleep 60"], [],
]  # fmt: skip


def _often(chance: random.Random, value: Any, share: float = 0.8) -> Any:
    return value if chance.random() < share else chance.choice(TEXTS)


def _healthcheck(chance: random.Random) -> dict[str, Any]:
    test = chance.choice(
        [
            ["CMD", "true"],
            ["CMD", "true"],
            ["CMD", "false"],
            ["CMD-SHELL", "exit 0"],
            ["NONE"],
            ["CMD"],
            ["CMD", "sleep", "60"],
            ["odd"],
            [],
        ]
    )
    return {"test": test, "interval": 0.05, "timeout": 0.3, "retries": chance.choice([0, 1, 2]), "start_interval": 0.05}


def _resources(chance: random.Random) -> dict[str, Any]:
    what = chance.choice(["cpus", "memory_bytes", "pids", "gpus", "shm_bytes"])
    return {what: chance.choice([0, 1, 1 << 30, -1])}


def _volume(chance: random.Random) -> dict[str, Any]:
    kind = chance.choice(["volume", "volume", "tmpfs", "tmpfs", "bind", "pipe"])
    source = {
        "volume": chance.choice(["shared", "shared", "", "unknown"]),
        "bind": chance.choice(["/usr", "/no/such/place", "rel"]),
    }.get(kind, "")
    size = chance.choice([None, None, None, 0, 4096, 1 << 20, -1])
    return {
        "type": kind,
        "source": source,
        "target": chance.choice(PATHS),
        "read_only": chance.random() < 0.3,
        "size_bytes": size,
    }


def service(chance: random.Random, names: list[str]) -> dict[str, Any]:
    """Make a service of a few keys."""
    keys: dict[str, Any] = {
        "image": lambda: chance.choice([None, "alpine:3", "no such image", ""]),
        "command": lambda: chance.choice(COMMANDS),
        "entrypoint": lambda: chance.choice([*COMMANDS, None]),
        "env": lambda: {chance.choice(["A", "A", "B", "PATH", "A B", "LD_PRELOAD", "", "a=b"]): chance.choice(TEXTS)},
        "working_dir": lambda: chance.choice(PATHS),
        "user": lambda: chance.choice(["0", "root", "nobody", "4711:4712", "no-such-user", "1:", ":1", "-1", "99999999999"]),
        "groups": lambda: [chance.choice(["0", "audio", "nope"])],
        "resources": lambda: _resources(chance),
        "healthcheck": lambda: _healthcheck(chance),
        "depends_on": lambda: {chance.choice([*names, "ghost"]): {"condition": chance.choice(CONDITIONS)}},
        "restart": lambda: {"name": chance.choice(["no", "always", "on-failure"]), "max_retries": chance.choice([None, 0, 2])},
        "volumes": lambda: [_volume(chance) for _ in range(chance.randint(1, 2))],
        "files": lambda: {chance.choice(PATHS): {"content": b"x" * chance.choice([0, 70_000]), "mode": chance.choice([420, 0])}},
        "networks": lambda: chance.choice([None, {"default": []}, {"default": ["alias", "two words"]}, {"ghost": []}]),
        "network_policy": lambda: chance.choice([{"internet": True}, {"allow_domains": ["example.org"]}]),
        "ports": lambda: [{"container_port": chance.choice([0, 80, 70_000]), "host_port": chance.choice([None, 1, 0])}],
        "hostname": lambda: chance.choice(TEXTS),
        "aliases": lambda: [chance.choice(TEXTS)],
        "extra_hosts": lambda: {chance.choice(TEXTS): [chance.choice(["10.0.0.1", "odd", ""])]},
        "labels": lambda: {chance.choice(TEXTS): chance.choice(TEXTS)},
        "platform": lambda: chance.choice(["linux/amd64", "linux/arm64", "plan9", ""]),
        "tty": lambda: True,
        "stdin_open": lambda: True,
        "init": lambda: True,
        "read_only": lambda: True,
        "privileged": lambda: True,
        "cap_add": lambda: [chance.choice(["NET_ADMIN", "ALL", "odd"])],
        "security_opt": lambda: [chance.choice(["no-new-privileges", "seccomp=unconfined", "odd"])],
        "sysctls": lambda: {chance.choice(["net.core.somaxconn", "odd"]): chance.choice(["1", "odd"])},
        "runtime": lambda: chance.choice(["runsc", "odd"]),
        "stop_signal": lambda: chance.choice(["SIGINT", "odd", "9"]),
        "exec_target": lambda: False,
        "unknown_key": lambda: 1,
    }  # fmt: skip
    common = ["command", "env", "working_dir", "healthcheck", "volumes", "files", "tty", "hostname", "restart"]
    chosen = chance.sample(common, chance.randint(0, 2)) + chance.sample(list(keys), chance.choice([0, 0, 1, 1, 2]))
    return {key: keys[key]() for key in dict.fromkeys(chosen) if key != "unknown_key" or chance.random() < 0.2}


def spec(chance: random.Random) -> dict[str, Any]:
    """Make an environment of one to three services."""
    names = chance.sample(["default", "web", "Data_base", "two words", "x" * 70, "-odd", "é"], chance.choice([1, 1, 1, 2, 3]))
    made: dict[str, Any] = {"services": {name: service(chance, names) for name in names}, "volumes": {"shared": {}}}
    if chance.random() < 0.1:
        made["default"] = chance.choice([*names, "ghost"])
    if chance.random() < 0.1:
        made["labels"] = {"k": _often(chance, "v")}
    return made
