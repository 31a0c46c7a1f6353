"""Translates one service: each key becomes a field of the spec, or an entry of the report."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError
from sandboxcore.spec import Dependency, Healthcheck, PortSpec, RestartPolicy, ServiceSpec

from ._extensions import Extensions
from ._images import build_spec, named_image
from ._keytable import CARRIED, FIXED
from ._marks import Map, Path
from ._mounts import Mounts
from ._networks import Networking, policy
from ._notes import Notes
from ._resources import service_resources
from ._units import parse_duration, split_command
from .project import Project

__all__ = ("ServiceTranslation",)

_CONDITIONS = {
    "service_started": "started",
    "service_healthy": "healthy",
    "service_completed_successfully": "completed",
}


class ServiceTranslation:
    """The translation of one service of a project."""

    def __init__(self, project: Project, name: str, notes: Notes, shared: Extensions, extensions: Extensions) -> None:
        self.project, self.name, self.notes, self.shared, self.extensions = project, name, notes, shared, extensions
        self.service: dict[str, Any] = project.services[name]
        self.source: Map = project.tree["services"][name]
        self.path: Path = ("services", name)

    def spec(self, networking: Networking, mounts: Mounts, aliases: tuple[str, ...]) -> ServiceSpec | None:
        """Return the service's spec; None where it can't be made, which the notes say."""
        self.fixed_keys()
        service = self.service
        fields: dict[str, Any] = {
            **self.image(),
            **self.commands(),
            **self.plain(),
            "env": self.environment(),
            "resources": service_resources(service, self.source, self.extensions, self.path, self.notes),
            "healthcheck": self.healthcheck(),
            "depends_on": self.depends_on(),
            "restart": self.restart(),
            "volumes": tuple(mounts.volumes),
            "files": mounts.files,
            "networks": networking.networks,
            "network_policy": policy(networking, self.extensions.grant, self.shared.grant, self.path, self.notes),
            "ports": self.ports(),
            "aliases": (*self.container_name(), *aliases),
            "labels": self.labels(),
            "privileged": self.privileged(),
            "options": self.extensions.options,
        }
        self.namespaces()
        self.deploy()
        try:
            return ServiceSpec(**fields)
        except ValidationError as error:
            for found in error.errors():
                key = str(found["loc"][0]) if found["loc"] else ""
                where = (*self.path, key) if key in self.source else self.path
                self.notes.problems.at(self.notes.tree, where, str(found["msg"]).removeprefix("Value error, "))
            return None

    def given(self, key: str) -> Path:
        return (*self.path, key)

    def fixed_keys(self) -> None:
        """Note the keys that are never carried over, and refuse those that nobody has thought of."""
        for key, value in self.source.items():
            if key.startswith("x-") or key in CARRIED or (not value and key != "attach"):
                continue
            rule = FIXED.get(key)
            if rule is None:
                self.notes.reject(self.given(key), "this key is not known here yet")
            else:
                self.notes.note(rule.loss, self.given(key), rule.reason, option=rule.option)

    # -- image and command

    def image(self) -> dict[str, Any]:
        service = self.service
        image = service.get("image")
        if "build" not in service:
            return {"image": image}
        build = build_spec(service["build"])
        where = self.given("build")
        images = self.notes.options.images if self.notes.options.images is not None else self.shared.images
        if image is None:
            image = self.extensions.image or named_image(images, self.name, self.project.name, build, where, self.notes)
            if image is not None:
                self.notes.exact(where, f"the image is {image}")
                return {"image": image}
            self.notes.policy(where, "the image has to be built by the backend or an image resolver", "images")
            return {"build": build}
        if service.get("pull_policy") == "build":
            self.notes.approx(where, f"not built: {image} is used as it is", option="images")
        else:
            self.notes.noop(where, f"not built: the service has an image, {image}")
        return {"image": image}

    def commands(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key in ("entrypoint", "command"):
            raw = self.source.get(key)
            if isinstance(raw, str) and (cut := split_command(raw)[1]):
                self.notes.reject(
                    self.given(key), f"docker compose drops {cut!r} without a word; write it as ['sh', '-c', '...']"
                )
            words = self.service.get(key)
            if words is not None:
                found[key] = () if words == [""] and key == "entrypoint" else tuple(words)
        return found

    def plain(self) -> dict[str, Any]:
        """Carry over the keys that mean the same on both sides."""
        service = self.service
        found: dict[str, Any] = {
            "groups": tuple(service.get("group_add", ())),
            "cap_add": tuple(service.get("cap_add", ())),
            "cap_drop": tuple(service.get("cap_drop", ())),
            "security_opt": self.security_opt(),
            "sysctls": service.get("sysctls") or {},
            "extra_hosts": self.extra_hosts(),
            "runtime": service.get("runtime") or self.extensions.runtime or self.shared.runtime,
            "pull_policy": "never" if self.extensions.local else self.pull_policy(),
            "init": bool(service.get("init")),
        }
        for key in ("working_dir", "user", "hostname", "platform", "stop_signal"):
            found[key] = service.get(key)
        for key in ("tty", "stdin_open", "read_only"):
            found[key] = bool(service.get(key))
        if "stop_grace_period" in service:
            found["stop_grace_period"] = parse_duration(service["stop_grace_period"]) / 1e9
        if self.extensions.exec_target is not None:
            found["exec_target"] = self.extensions.exec_target
        if service.get("domainname"):
            self.notes.approx(self.given("domainname"), "is not set; the host name stays without a domain")
        return found

    def security_opt(self) -> tuple[str, ...]:
        found = tuple(self.service.get("security_opt", ()))
        for index, option in enumerate(found):
            kind, _, value = option.replace(":", "=", 1).partition("=")
            if kind == "seccomp" and value not in ("unconfined", "builtin"):
                self.notes.reject((*self.given("security_opt"), index), f"the seccomp profile {value!r} can't be brought along")
        return found

    def extra_hosts(self) -> dict[str, tuple[str, ...]]:
        found: dict[str, list[str]] = {}
        for item in self.service.get("extra_hosts", ()):
            name, _, address = item.partition("=")
            found.setdefault(name, []).append(address)
            if address == "host-gateway":
                where = self.given("extra_hosts")
                self.notes.approx(where, f"{name}: which machine host-gateway means is the backend's to say")
        return {name: tuple(addresses) for name, addresses in found.items()}

    def pull_policy(self) -> str | None:
        value = self.service.get("pull_policy")
        if value in (None, "always", "never", "missing"):
            return value
        if value != "build":
            self.notes.approx(self.given("pull_policy"), f"{value}: the image is pulled every time")
            return "always"
        if "build" not in self.source:
            self.notes.noop(self.given("pull_policy"), "there is nothing to build")
        return None

    def environment(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for name, value in (self.service.get("environment") or {}).items():
            if value is None:
                where = (*self.given("environment"), name)
                self.notes.policy(where, "has no value anywhere, and is left out", f"variables: {name}")
            else:
                found[name] = value
        return found

    def labels(self) -> dict[str, str]:
        found = dict(self.service.get("labels") or {})
        for name, value in (self.service.get("annotations") or {}).items():
            self.notes.approx((*self.given("annotations"), name), "becomes a label")
            found.setdefault(name, value)
        return found

    def privileged(self) -> bool:
        if not self.service.get("privileged"):
            return False
        if "privileged" in self.notes.options.allow:
            return True
        self.notes.policy(self.given("privileged"), "the service runs without these rights", "allow: privileged")
        return False

    # -- health, order, restarts

    def healthcheck(self) -> Healthcheck | None:
        check = self.service.get("healthcheck")
        if check is None:
            return None
        where = self.given("healthcheck")
        if check.get("disable"):
            return Healthcheck(test=("NONE",))
        test = tuple(check.get("test", ()))
        if not test:
            self.notes.approx(where, "has no test: that of the image is used, with its own times")
            return None
        if test == ("NONE",):
            return Healthcheck(test=test)
        times = {key: parse_duration(check[key]) / 1e9 for key in _TIMES if key in check and check[key] != "0s"}
        retries = check.get("retries") or 3
        try:
            return Healthcheck(test=test, retries=retries, **times)
        except ValidationError as error:
            key = str(error.errors()[0]["loc"][0])
            self.notes.problems.at(self.notes.tree, (*where, key), str(error.errors()[0]["msg"]))
            return None

    def depends_on(self) -> dict[str, Dependency]:
        found: dict[str, Dependency] = {}
        for name, dependency in (self.service.get("depends_on") or {}).items():
            where = (*self.given("depends_on"), name)
            if name in self.project.disabled:
                self.notes.noop(where, "no active profile enables that service")
                continue
            condition = _CONDITIONS[dependency["condition"]]
            found[name] = Dependency(condition=condition, required=dependency["required"])
            if dependency.get("restart") and "restart" in getattr(self.source["depends_on"].get(name), "marks", ()):
                self.notes.noop((*where, "restart"), "services are not restarted together")
            other = self.project.services.get(name, {})
            if condition == "healthy" and "healthcheck" not in other:
                self.notes.approx(where, f"{name} has no healthcheck in this file: its image must have one")
        return found

    def restart(self) -> RestartPolicy:
        text = str(self.service.get("restart", ""))
        name, _, count = text.partition(":")
        retries = int(count) if count.isdigit() else None
        if name not in ("", "no", "always", "on-failure", "unless-stopped"):
            known = "no, always, on-failure and unless-stopped"
            self.notes.problems.at(self.notes.tree, self.given("restart"), f"unknown policy {text!r}; there are {known}")
            return RestartPolicy()
        swarm = (self.service.get("deploy") or {}).get("restart_policy") or {}
        where = (*self.given("deploy"), "restart_policy")
        for key in ("delay", "window"):
            if key in swarm:
                self.notes.noop((*where, key), "the backend chooses its own pauses")
        if "condition" in swarm:
            name = {"any": "always", "none": "no"}.get(swarm["condition"], swarm["condition"])
            retries = swarm.get("max_attempts") or None
        if name not in ("no", "always", "on-failure", "unless-stopped"):
            return RestartPolicy()
        return RestartPolicy(name=name, max_retries=retries if name == "on-failure" else None)

    # -- ports and names

    def ports(self) -> tuple[PortSpec, ...]:
        found: list[PortSpec] = []
        for index, port in enumerate(self.service.get("ports", ())):
            where = (*self.given("ports"), index)
            published = str(port.get("published", ""))
            if "app_protocol" in port:
                self.notes.noop((*where, "app_protocol"), "only a hint to load balancers")
            if port.get("mode") not in (None, "ingress", "host"):
                self.notes.noop((*where, "mode"), "only concerns Swarm")
            if published and not published.isdigit():
                self.notes.approx(where, f"the backend chooses a port, not one of {published}")
            elif published:
                self.notes.approx(where, "declared; the backend says how it is reached from this machine")
            try:
                found.append(
                    PortSpec(
                        container_port=port.get("target", 0),
                        protocol=port.get("protocol", "tcp"),
                        host_port=int(published) if published.isdigit() else None,
                        host_address=port.get("host_ip", ""),
                        name=port.get("name", ""),
                    )
                )
            except ValidationError as error:
                self.notes.problems.at(self.notes.tree, where, str(error.errors()[0]["msg"]))
        return tuple(found)

    def container_name(self) -> tuple[str, ...]:
        name = self.service.get("container_name")
        if not name:
            return ()
        self.notes.approx(self.given("container_name"), "one more name of the service on its networks")
        return (name,)

    # -- what is left of deploy, and the namespaces

    def namespaces(self) -> None:
        for key, harmless in _HARMLESS.items():
            value = self.service.get(key)
            if value in harmless:
                self.notes.noop(self.given(key), f"{value} is the rule")
            elif value:
                self.notes.reject(self.given(key), f"a sandbox can't share a namespace ({value}) with anything else")

    def deploy(self) -> None:
        deploy = self.service.get("deploy") or {}
        where = self.given("deploy")
        for key in ("update_config", "rollback_config", "endpoint_mode"):
            if key in deploy:
                self.notes.noop((*where, key), "only concerns Swarm")
        if deploy.get("labels"):
            self.notes.noop((*where, "labels"), "labels of a Swarm service, not of its containers")
        if deploy.get("mode") not in (None, "replicated"):
            self.notes.reject((*where, "mode"), f"{deploy['mode']}: a service is one sandbox")
        elif "mode" in deploy:
            self.notes.noop((*where, "mode"), "only concerns Swarm")
        placement = deploy.get("placement") or {}
        for key in placement:
            self.notes.approx((*where, "placement", key), "the backend chooses where the service runs")
        for count, place in ((self.service.get("scale"), self.given("scale")), (deploy.get("replicas"), (*where, "replicas"))):
            if count is not None and count > 1:
                self.notes.approx(place, f"one container is run instead of {count}")


_HARMLESS: dict[str, tuple[str, ...]] = {"ipc": ("private", "shareable", "none"), "cgroup": ("private",), "pid": (), "uts": ()}
_TIMES = ("interval", "timeout", "start_period", "start_interval")
