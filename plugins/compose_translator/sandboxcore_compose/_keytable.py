"""The key table: every key of a Compose service and of the top level, and what becomes of it.

``FIXED`` is used by the translator for keys that no code of its own looks at; ``CARRIED`` describes those that have some.
``python -m sandboxcore_compose._keytable`` prints the whole table for the documentation.
"""

from __future__ import annotations

from dataclasses import dataclass

from sandboxcore.report import Loss

__all__ = ("CARRIED", "FIXED", "Rule", "table")


@dataclass(frozen=True)
class Rule:
    """What becomes of a key."""

    loss: Loss
    reason: str
    option: str = ""


def _noop(reason: str) -> Rule:
    return Rule(Loss.NOOP, reason)


def _approx(reason: str) -> Rule:
    return Rule(Loss.APPROX, reason)


def _reject(reason: str, option: str = "") -> Rule:
    return Rule(Loss.REJECT, reason, option)


_TUNING = _noop("a tuning of the host's scheduler; the service runs without it")

#: Keys of a service that are not carried over, whatever they say.
FIXED: dict[str, Rule] = {
    "attach": _noop("only says whether docker compose shows the output"),
    "blkio_config": _TUNING,
    "cgroup_parent": _TUNING,
    "cpu_count": _TUNING,
    "cpu_percent": _TUNING,
    "cpu_rt_period": _TUNING,
    "cpu_rt_runtime": _TUNING,
    "cpuset": _approx("the service may run on every CPU"),
    "credential_spec": _reject("credential specs are Windows only"),
    "develop": _noop("only concerns `docker compose watch`"),
    "device_cgroup_rules": _reject("a sandbox gets no device of the host"),
    "devices": _reject("a sandbox gets no device of the host; for GPUs use deploy.resources.reservations.devices"),
    "dns": Rule(Loss.POLICY, "own name servers are not set: they would go around the sandbox's network policy"),
    "dns_opt": Rule(Loss.POLICY, "resolver options are not set: they would go around the sandbox's network policy"),
    "dns_search": Rule(Loss.POLICY, "search domains are not set: they would go around the sandbox's network policy"),
    "expose": _noop("services on a network reach each other's ports anyway"),
    "external_links": _reject("a sandbox can't be linked to a container outside of its environment"),
    "isolation": _reject("isolation modes are Windows only"),
    "logging": _noop("the backend keeps the service's output"),
    "mac_address": _reject("a sandbox can't have a MAC address of its own choice"),
    "mem_swappiness": _TUNING,
    "memswap_limit": _noop("swap is not limited apart from memory"),
    "models": _reject("models are not provisioned; start the model server as a service"),
    "oom_kill_disable": _approx("the service is killed when it runs out of memory"),
    "oom_score_adj": _TUNING,
    "post_start": _reject("hooks are not run; run the command through the sandbox once the environment is ready"),
    "pre_stop": _approx("not run: an environment is thrown away, not shut down"),
    "provider": _reject("provider services need the provider's own program"),
    "pull_refresh_after": _noop("images are pulled by pull_policy alone"),
    "use_api_socket": _reject("a sandbox gets no way to the container engine"),
    "userns_mode": Rule(Loss.POLICY, "the backend decides on user namespaces"),
}

#: Keys of a service that the translator looks at, with what it does in general.
CARRIED: dict[str, Rule] = {
    "annotations": _approx("become labels"),
    "build": Rule(Loss.POLICY, "the image is built by an image resolver, or named by the option images", "images"),
    "cap_add": Rule(Loss.EXACT, "carried over"),
    "cap_drop": Rule(Loss.EXACT, "carried over"),
    "cgroup": _noop("private is the rule; host is refused"),
    "command": Rule(Loss.EXACT, "split into words as docker compose does it; what docker compose would cut off is refused"),
    "configs": Rule(Loss.EXACT, "files with the config's content"),
    "container_name": _approx("one more name of the service on its networks"),
    "cpu_period": _approx("with cpu_quota, a limit of CPUs"),
    "cpu_quota": _approx("with cpu_period, a limit of CPUs"),
    "cpu_shares": _approx("1024 shares become a request of one CPU"),
    "cpus": Rule(Loss.EXACT, "carried over"),
    "depends_on": Rule(Loss.EXACT, "carried over with its conditions; restart is left out"),
    "deploy": Rule(Loss.EXACT, "resources and restart policy are carried over; what only concerns Swarm is left out"),
    "domainname": _approx("is not set; the host name stays"),
    "entrypoint": Rule(Loss.EXACT, "as command; an empty one clears the image's"),
    "env_file": Rule(Loss.EXACT, "read into the environment"),
    "environment": Rule(Loss.EXACT, "carried over; a variable that has no value anywhere is left out"),
    "extends": Rule(Loss.EXACT, "resolved while loading"),
    "extra_hosts": Rule(Loss.EXACT, "carried over; host-gateway is the backend's to interpret"),
    "gpus": Rule(Loss.EXACT, "counted; a request for all of them needs the option gpus_all", "gpus_all"),
    "group_add": Rule(Loss.EXACT, "carried over"),
    "healthcheck": Rule(Loss.EXACT, "carried over with Compose's defaults"),
    "hostname": Rule(Loss.EXACT, "carried over"),
    "image": Rule(Loss.EXACT, "carried over"),
    "init": Rule(Loss.EXACT, "carried over"),
    "ipc": _noop("private and shareable are the rule; others are refused"),
    "label_file": Rule(Loss.EXACT, "read into the labels"),
    "labels": Rule(Loss.EXACT, "carried over"),
    "links": _approx("aliases that every service on the same network sees"),
    "mem_limit": Rule(Loss.EXACT, "carried over"),
    "mem_reservation": Rule(Loss.EXACT, "carried over"),
    "network_mode": Rule(Loss.EXACT, "none: no network; bridge: a network of its own; others are refused"),
    "networks": Rule(Loss.EXACT, "who reaches whom is carried over; the internet needs the option internet", "internet"),
    "pid": _reject("a service can't share processes with others"),
    "pids_limit": Rule(Loss.EXACT, "carried over"),
    "platform": Rule(Loss.EXACT, "carried over"),
    "ports": _approx("declared, and reached by port forwarding; whether they are published is the backend's to say"),
    "privileged": Rule(Loss.POLICY, "left out unless allowed", "allow: privileged"),
    "profiles": Rule(Loss.EXACT, "resolved while loading"),
    "pull_policy": Rule(Loss.EXACT, "carried over; refresh intervals become always"),
    "read_only": Rule(Loss.EXACT, "carried over"),
    "restart": Rule(Loss.EXACT, "carried over"),
    "runtime": Rule(Loss.EXACT, "carried over"),
    "scale": _approx("one container is run, none for 0"),
    "secrets": Rule(Loss.EXACT, "files with the secret's content"),
    "security_opt": Rule(Loss.EXACT, "carried over; seccomp profiles in files are refused"),
    "shm_size": Rule(Loss.EXACT, "carried over"),
    "stdin_open": Rule(Loss.EXACT, "carried over"),
    "stop_grace_period": Rule(Loss.EXACT, "carried over"),
    "stop_signal": Rule(Loss.EXACT, "carried over"),
    "storage_opt": _approx("size becomes a limit of storage"),
    "sysctls": Rule(Loss.EXACT, "carried over"),
    "tmpfs": Rule(Loss.EXACT, "carried over with size and mode; programs may be run there, other options are approximated"),
    "tty": Rule(Loss.EXACT, "carried over"),
    "ulimits": Rule(Loss.EXACT, "carried over"),
    "user": Rule(Loss.EXACT, "carried over, names as names"),
    "uts": _reject("a service can't share the host's name"),
    "volumes": Rule(Loss.EXACT, "volumes and tmpfs are carried over; paths of this machine are read in or refused"),
    "volumes_from": Rule(Loss.EXACT, "the other service's mounts"),
    "working_dir": Rule(Loss.EXACT, "carried over"),
}


def table() -> str:
    """Write the table as Markdown."""
    lines = ["| key | class | what happens | changed by |", "|---|---|---|---|"]
    for key, rule in sorted((FIXED | CARRIED).items()):
        lines.append(f"| `{key}` | {rule.loss.value} | {rule.reason} | {rule.option and f'`{rule.option}`'} |")
    return "\n".join(lines)


if __name__ == "__main__":
    import sys

    sys.stdout.write(table() + "\n")
