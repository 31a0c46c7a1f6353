# ruff: noqa: E501
"""From a project to a spec: the meaning of each part, and what the report says of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sandboxcore_compose import ComposeTranslator
from sandboxcore_compose.values import escape, helm_values, legal_name

from sandboxcore.errors import SpecError, UsageError
from sandboxcore.report import Loss
from sandboxcore.spec import (
    Dependency,
    EnvironmentSpec,
    FileSpec,
    Healthcheck,
    NetworkPolicy,
    RestartPolicy,
    ServiceSpec,
    VolumeMount,
)
from sandboxcore.values import BackendInfo, Translation

BINDS = BackendInfo(name="b", summary="", capabilities=frozenset(("binds",)))


def translate(
    folder: Path, text: str, *, backend: BackendInfo | None = None, variables: Any = None, **options: Any
) -> Translation:
    file = folder / "compose.yaml"
    file.write_text(text)
    return ComposeTranslator().translate([file], backend=backend, variables=variables, options=options)


def service(folder: Path, text: str, **given: Any) -> ServiceSpec:
    return translate(
        folder, "services:\n  a:\n    image: x\n" + "".join(f"    {line}\n" for line in text.splitlines()), **given
    ).spec.services["a"]


def refused(folder: Path, text: str, **given: Any) -> tuple[str, ...]:
    with pytest.raises(SpecError) as found:
        translate(folder, text, **given)
    return found.value.problems


def entries(done: Translation, *losses: Loss) -> list[tuple[str, str, str]]:
    return [(entry.loss.value, entry.key, entry.option) for entry in (done.report.of(*losses) if losses else done.report.entries)]


@pytest.mark.parametrize(
    "name",
    [
        "compose.yaml",
        "docker-compose.yml",
        "demo.compose.yaml",
        "compose.dev.yml",
        "docker-compose-x.yaml",
        "Compose.YAML",
        "my_compose_alpine.yaml",
    ],
)
def test_names_that_are_claimed(name: str) -> None:
    assert ComposeTranslator().claims(Path("folder") / name)


@pytest.mark.parametrize("name", ["values.yaml", "compose.json", "compose", "composer.yaml", "Dockerfile"])
def test_names_that_are_not_claimed(name: str) -> None:
    assert not ComposeTranslator().claims(Path("folder") / name)


def test_services_keep_their_names_and_default_is_a_pointer(tmp_path: Path) -> None:
    names = "services: {target_env: {image: x}, web.1: {image: x%s}, C: {image: x}}"
    assert list(translate(tmp_path, names % "").spec.services) == ["target_env", "web.1", "C"]
    assert translate(tmp_path, names % "").spec.default_service == "target_env"
    assert translate(tmp_path, names % ", x-default: true").spec.default_service == "web.1"
    assert translate(tmp_path, names % "" + "\nx-sandboxcore: {default: C}").spec.default_service == "C"
    assert (
        translate(tmp_path, "services: {a: {image: x, x-default: true}, default: {image: x}}").spec.default_service == "default"
    )
    assert "did you mean 'target_env'" in refused(tmp_path, names % "" + "\nx-sandboxcore: {default: target_en}")[0]


def test_networks_are_two_rules(tmp_path: Path) -> None:
    text = """
services:
  open: {image: x}
  inner: {image: x, networks: [inside]}
  both: {image: x, networks: {inside: {aliases: [other]}, default: }}
  none: {image: x, network_mode: none}
  bridge: {image: x, network_mode: bridge}
networks: {inside: {internal: true}}
"""
    done = translate(tmp_path, text)
    assert {name: one.networks for name, one in done.spec.services.items()} == {
        "open": {"default": ()}, "inner": {"inside": ()}, "both": {"inside": ("other",), "default": ()}, "none": None, "bridge": None,
    }  # fmt: skip
    assert {name: one.internal for name, one in done.spec.networks.items()} == {"inside": True, "default": False}
    assert not any(one.network_policy.internet for one in done.spec.services.values())
    offline = [key for loss, key, option in entries(done, Loss.POLICY) if option == "internet"]
    assert offline == ["services.open", "services.both.networks", "services.bridge.network_mode"]
    online = translate(tmp_path, text, internet=True)
    assert [name for name, one in online.spec.services.items() if one.network_policy.internet] == ["open", "both", "bridge"]
    assert entries(online, Loss.POLICY) == []


def test_a_grant_of_internet_is_per_service(tmp_path: Path) -> None:
    text = "services: {a: {image: x, x-sandboxcore: {internet: true}}, b: {image: x}, c: {image: x, x-sandboxcore: {internet: false}}}\n"
    assert [one.network_policy.internet for one in translate(tmp_path, text).spec.services.values()] == [True, False, False]
    everywhere = translate(tmp_path, text + "x-sandboxcore: {internet: true}").spec.services.values()
    assert [one.network_policy.internet for one in everywhere] == [True, True, False]
    shut = "services: {a: {image: x, networks: [n], x-sandboxcore: {internet: true}}}\nnetworks: {n: {internal: true}}"
    assert "its networks have none" in refused(tmp_path, shut)[0].replace("the service's", "its")


def test_the_extension_of_inspect_k8s_sandbox(tmp_path: Path) -> None:
    text = """
services:
  default: {image: x, x-k8s: {resources: {limits: {memory: 2Gi, cpu: 500m}}}}
  alone: {image: x, network_mode: none}
x-inspect_k8s_sandbox: {allow_domains: [example.org], allow_entities: [world], service_account_name: me}
"""
    done = translate(tmp_path, text)
    assert done.spec.services["default"].network_policy == NetworkPolicy(
        allow_domains=("example.org",), allow_entities=("world",)
    )
    assert done.spec.services["alone"].network_policy == NetworkPolicy()
    assert (done.spec.services["default"].resources.memory_bytes, done.spec.services["default"].resources.cpus) == (2 << 30, 0.5)
    assert done.spec.options == {"helm": {"service_account_name": "me"}, "kubernetes": {"service_account": "me"}}
    assert "did you mean 'allow_domains'" in refused(tmp_path, "services: {a: {image: x}}\nx-k8s: {allow_domain: [a]}")[0]
    assert "only one of" in refused(tmp_path, "services: {a: {image: x}}\nx-k8s: {}\nx-inspect_k8s_sandbox: {}")[0]
    assert (
        "says something else"
        in refused(tmp_path, "services: {a: {image: x, mem_limit: 1g, x-k8s: {resources: {limits: {memory: 2Gi}}}}}")[0]
    )


def test_our_own_extension_is_checked(tmp_path: Path) -> None:
    text = "services: {a: {image: x, x-sandboxcore: {runtime_class: gvisor, node_selector: {k: v}, options: {docker: {o: 1}}, exec_target: false}}}"
    found = translate(tmp_path, text).spec.services["a"]
    assert (found.runtime, found.exec_target) == ("gvisor", False)
    assert found.options == {
        "docker": {"o": 1},
        "helm": {"node_selector": {"k": "v"}},
        "kubernetes": {"node_selector": {"k": "v"}},
    }
    (problem,) = refused(tmp_path, "services: {a: {image: x, x-sandboxcore: {internt: true}}}")
    assert problem.endswith("compose.yaml:1:42: services.a.x-sandboxcore.internt: unknown key (did you mean 'internet'?)")
    assert "must be true or false" in refused(tmp_path, "services: {a: {image: x}}\nx-sandboxcore: {internet: 1}")[0]


def test_commands_and_entrypoints(tmp_path: Path) -> None:
    found = service(tmp_path, "entrypoint: run \"a b\"\ncommand: ['$$HOME']")
    assert (found.entrypoint, found.command) == (("run", "a b"), ("$HOME",))
    assert service(tmp_path, "command: null").command is None
    assert service(tmp_path, "entrypoint: []\ncommand: x").entrypoint == ()
    assert service(tmp_path, "entrypoint: ['']").entrypoint == ()
    assert "drops '| less'" in refused(tmp_path, "services: {a: {image: x, command: 'cat x | less'}}")[0]


def test_order_health_and_jobs(tmp_path: Path) -> None:
    text = """
services:
  default:
    image: x
    depends_on:
      db: {condition: service_healthy, restart: true}
      job: {condition: service_completed_successfully}
      extra: {condition: service_started, required: false}
  db: {image: x, healthcheck: {test: ping, interval: 90s, timeout: 500ms}, restart: on-failure:3}
  job: {image: x}
  extra: {image: x, profiles: [p]}
  quiet: {image: x, healthcheck: {disable: true}}
"""
    done = translate(tmp_path, text)
    spec = done.spec
    assert spec.services["default"].depends_on == {
        "db": Dependency(condition="healthy"),
        "job": Dependency(condition="completed"),
    }
    assert [name for name, one in spec.services.items() if not one.exec_target] == ["job"]
    assert spec.services["db"].healthcheck == Healthcheck(test=("CMD-SHELL", "ping"), interval=90, timeout=0.5)
    assert spec.services["quiet"].healthcheck == Healthcheck(test=("NONE",))
    assert spec.services["db"].restart == RestartPolicy(name="on-failure", max_retries=3)
    said = [key for _, key, _ in entries(done, Loss.NOOP)]
    assert said == ["services.default.depends_on.db.restart", "services.default.depends_on.extra"]
    assert service(tmp_path, "restart: 'no'\ndeploy: {restart_policy: {condition: any}}").restart == RestartPolicy(name="always")


def test_environment_and_resources(tmp_path: Path) -> None:
    (tmp_path / "some.env").write_text("A=file\nB=file\n")
    text = "environment: {A: 1.50, GONE: , TAKEN: }\nenv_file: some.env\ncpus: 0.5\nmem_limit: 1g\nshm_size: 64m\nulimits: {nofile: {soft: 1, hard: 2}, core: 0}"
    found = service(tmp_path, text, variables={"TAKEN": "yes"})
    assert found.env == {"A": "1.5", "B": "file", "TAKEN": "yes"}
    assert (found.resources.cpus, found.resources.memory_bytes, found.resources.shm_bytes) == (0.5, 1 << 30, 64 << 20)
    assert found.resources.ulimits == {"nofile": (1, 2), "core": (0, 0)}
    gpu = "deploy: {resources: {reservations: {devices: [{capabilities: [gpu], count: %s}]}}}"
    assert service(tmp_path, gpu % 2).resources.gpus == 2
    assert service(tmp_path, gpu % "all", gpus_all=4).resources.gpus == 4
    with pytest.raises(SpecError, match="gpus_all"):
        service(tmp_path, gpu % "all")


def test_mounts(tmp_path: Path) -> None:
    text = """
services:
  a:
    image: x
    volumes: ["shared:/data:ro", /own, {type: tmpfs, target: /t, tmpfs: {size: 1m, mode: 0700}}, "shared:/n:nocopy"]
    tmpfs: "/u:size=2m,mode=755,ro"
  b: {image: x, volumes_from: ["a:ro"]}
volumes: {shared: {driver: local}}
"""
    spec = translate(tmp_path, text).spec
    assert spec.services["a"].volumes == (
        VolumeMount(source="shared", target="/data", read_only=True),
        VolumeMount(target="/own"),
        VolumeMount(type="tmpfs", target="/t", size_bytes=1 << 20, mode=0o700),
        VolumeMount(source="shared", target="/n", no_copy=True),
        VolumeMount(type="tmpfs", target="/u", size_bytes=2 << 20, mode=0o755, read_only=True),
    )
    assert all(mount.read_only for mount in spec.services["b"].volumes)
    assert [mount.target for mount in spec.services["b"].volumes] == ["/data", "/own", "/t", "/n", "/u"]


def test_programs_may_be_run_from_a_tmpfs(tmp_path: Path) -> None:
    found = translate(tmp_path, "services: {a: {image: x, tmpfs: ['/t:exec,size=1m', '/u:noexec,exec']}}")
    assert [(mount.type, mount.size_bytes) for mount in found.spec.services["a"].volumes] == [("tmpfs", 1 << 20), ("tmpfs", None)]
    said = [(entry.key, entry.reason) for entry in found.report.entries if "tmpfs" in entry.key]
    assert said == [("services.a.tmpfs[1]", "noexec: options that are not applied to a tmpfs")]


def test_configs_and_secrets_are_files(tmp_path: Path) -> None:
    (tmp_path / "s.txt").write_bytes(b"\xffsecret")
    text = """
services:
  a: {image: x, configs: [{source: c, target: /etc/c, mode: 0440, uid: "5"}, d], secrets: [s, {source: e, target: named}]}
configs: {c: {content: "A=${A}"}, d: {environment: A}}
secrets: {s: {file: ./s.txt}, e: {environment: A}}
"""
    assert translate(tmp_path, text, variables={"A": "1"}).spec.services["a"].files == {
        "/etc/c": FileSpec(content=b"A=1", mode=0o440, uid=5, read_only=True),
        "/d": FileSpec(content=b"1", mode=0o444, read_only=True),
        "/run/secrets/s": FileSpec(content=b"\xffsecret", mode=0o444, read_only=True),
        "/run/secrets/named": FileSpec(content=b"1", mode=0o444, read_only=True),
    }
    assert "the variable A is not set" in refused(tmp_path, text)[0]
    assert "give a file" in refused(tmp_path, "services: {a: {image: x, secrets: [s]}}\nsecrets: {s: {external: true}}")[0]


def test_paths_of_this_machine(tmp_path: Path) -> None:
    (tmp_path / "dir").mkdir()
    (tmp_path / "dir" / "one").write_text("1")
    (tmp_path / "big").write_bytes(b"x" * (1024 * 1024 + 1))
    read_only = service(tmp_path, "volumes: ['./dir:/d:ro']")
    assert (read_only.volumes, list(read_only.files)) == ((), ["/d/one"])
    assert read_only.files["/d/one"].read_only
    written = translate(tmp_path, "services: {a: {image: x, volumes: ['./dir:/d']}}")
    assert not written.spec.services["a"].files["/d/one"].read_only
    assert ("POLICY", "services.a.volumes[0]", "allow: writable_binds") in entries(written)
    allowed = service(tmp_path, "volumes: ['./dir:/d']", allow=["writable_binds"])
    assert allowed.volumes == (VolumeMount(type="bind", source=str(tmp_path / "dir"), target="/d", create=True),)
    assert service(tmp_path, "volumes: ['./big:/b:ro']").volumes[0].type == "bind"
    assert service(tmp_path, "volumes: ['./dir:/d:ro']", backend=BINDS).volumes[0].type == "bind"
    assert service(tmp_path, "volumes: ['./missing:/m']").volumes == (VolumeMount(target="/m"),)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("/var/run/docker.sock", "socket"),
        ("/dev/kvm", "belongs to this machine"),
        ("/", "belongs to this machine"),
        ("../..", "outside of the project"),
    ],
)
def test_paths_that_are_refused(tmp_path: Path, source: str, said: str) -> None:
    inner = tmp_path / "one" / "two" / "three"
    inner.mkdir(parents=True)
    assert said in refused(inner, f"services: {{a: {{image: x, volumes: ['{source}:/x']}}}}")[0]


def test_a_link_out_of_the_project_is_refused(tmp_path: Path) -> None:
    (tmp_path / "project").mkdir()
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "project" / "link").symlink_to(tmp_path / "secret")
    (tmp_path / "project" / "dir").mkdir()
    (tmp_path / "project" / "dir" / "link").symlink_to(tmp_path / "secret")
    (tmp_path / "project" / "dir" / "file").write_text("fine")
    assert "outside of the project" in refused(tmp_path / "project", "services: {a: {image: x, volumes: ['./link:/x:ro']}}")[0]
    assert list(service(tmp_path / "project", "volumes: ['./dir:/d:ro']").files) == ["/d/file"]


def test_rights_and_names(tmp_path: Path) -> None:
    text = "services: {a: {image: x, privileged: true, container_name: named, links: ['b:alias']}, b: {image: x}}"
    done = translate(tmp_path, text)
    assert not done.spec.services["a"].privileged
    assert (done.spec.services["a"].aliases, done.spec.services["b"].aliases) == (("named",), ("alias",))
    assert ("POLICY", "services.a.privileged", "allow: privileged") in entries(done)
    assert translate(tmp_path, text, allow=["privileged"]).spec.services["a"].privileged
    for line in (
        "network_mode: host",
        "pid: host",
        "devices: [/dev/kvm]",
        "networks: {default: {ipv4_address: 1.2.3.4}}",
        "use_api_socket: true",
    ):
        assert refused(tmp_path, f"services:\n  a:\n    image: x\n    {line}\n")[0].startswith(f"{tmp_path}/compose.yaml:4:")


def test_images_that_have_to_be_built(tmp_path: Path) -> None:
    text = "services: {a: {build: {context: ., args: {A: 1}}}, b: {build: ., image: given}}"
    (tmp_path / "Dockerfile").write_text("FROM x")
    done = translate(tmp_path, text)
    build = done.spec.services["a"].build
    assert done.spec.services["a"].image is None
    assert build is not None
    assert (build.context, build.dockerfile, build.args) == (str(tmp_path), "Dockerfile", {"A": "1"})
    assert done.spec.services["b"].image == "given"
    assert translate(tmp_path, text, images={"a": "reg/a"}).spec.services["a"].image == "reg/a"
    found = translate(tmp_path, text, images="reg/{project}-{service}:{digest}", project_name="p").spec.services["a"].image
    assert found is not None
    assert found.startswith("reg/p-a:")
    (tmp_path / "images.yaml").write_text("a: from/file")
    assert translate(tmp_path, text, images=tmp_path / "images.yaml").spec.services["a"].image == "from/file"
    assert translate(tmp_path, text + "\nx-sandboxcore: {images: {a: own}}").spec.services["a"].image == "own"
    assert "may use {project}" in refused(tmp_path, text, images="x/{nope}")[0]


def test_strict_refuses_what_is_approximated(tmp_path: Path) -> None:
    text = "services: {a: {image: x, cpu_shares: 512, container_name: nn}}"
    assert [key for _, key, _ in entries(translate(tmp_path, text), Loss.APPROX)] == [
        "services.a.cpu_shares",
        "services.a.container_name",
    ]
    assert len(refused(tmp_path, text, strict=True)) == 2


def test_the_process_environment_is_used_on_request_and_then_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FROM_PROCESS", "private")
    text = "services: {a: {image: x, command: ['$FROM_PROCESS']}, b: {image: x, environment: [FROM_PROCESS]}, c: {image: x}}"
    done = translate(tmp_path, text, environment=True)
    assert done.spec.services["a"].command == ("private",)
    assert done.spec.services["b"].env == {"FROM_PROCESS": "private"}
    named = [entry.service for entry in done.report.entries if "FROM_PROCESS" in entry.reason]
    assert named == ["a", "b"]
    assert "private" not in str(done.report)


def test_wrong_options_are_named(tmp_path: Path) -> None:
    for options, said in (
        ({"internt": True}, "did you mean 'internet'"),
        ({"internet": 1}, "true or false"),
        ({"allow": ["x"]}, "there is no 'x'"),
    ):
        with pytest.raises(UsageError, match=said):
            translate(tmp_path, "services: {a: {image: x}}", **options)


def test_values_of_the_environment_are_in_no_message(tmp_path: Path) -> None:
    (problem,) = refused(tmp_path, "services: {a: {image: x, environment: {A: hidden-value}, restart: wrong}}")
    assert "hidden-value" not in problem
    assert "hidden-value" not in repr(translate(tmp_path, "services: {a: {image: x, environment: {A: hidden-value}}}"))


# -- values


def values(spec: EnvironmentSpec) -> dict[str, Any]:
    return helm_values(spec)[0]


def test_values_have_the_services_and_nothing_else(tmp_path: Path) -> None:
    text = """
services:
  target_env: {image: x, command: "echo $$(HOME) $$$$", networks: [my_net], environment: {A: "$$(B)"}}
  Target-Env: {image: y, entrypoint: [], command: [run], networks: {my_net: {aliases: [other]}}, user: "1000:5", restart: always}
  alone: {image: z, network_mode: none, healthcheck: {test: up, interval: 1500ms, start_period: 10s}}
networks: {my_net: {}}
"""
    found = values(translate(tmp_path, text, internet=False).spec)
    assert found["default"] == "target-env"
    assert found["networks"] == {"my-net": {}}
    assert [one["logicalName"] for one in found["services"].values()] == ["target_env", "Target-Env", "alone"]
    first, second, third = found["services"].values()
    assert (first["args"], first["env"]) == (["echo", "$$(HOME)", "$$$$"], [{"name": "A", "value": "$$(B)"}])
    assert (second["command"], "args" in second, second["securityContext"]) == (
        ["run"],
        False,
        {"runAsUser": 1000, "runAsGroup": 5},
    )
    assert (first["additionalDnsRecords"], second["additionalDnsRecords"]) == (["target_env"], ["Target-Env", "other"])
    assert third["networkIsolated"] is True
    assert third["readinessProbe"] == {
        "exec": {"command": ["/bin/sh", "-c", "up"]}, "timeoutSeconds": 30, "periodSeconds": 2, "failureThreshold": 3,
    }  # fmt: skip
    assert third["startupProbe"]["failureThreshold"] == 5
    assert (first["restartPolicy"], second["restartPolicy"]) == ("Never", "Always")


def test_values_of_volumes_and_resources(tmp_path: Path) -> None:
    text = """
services:
  a: {image: x, volumes: ["two:/t:ro", "one:/o:ro"], mem_limit: 1g, cpus: 0.5, shm_size: 1m, extra_hosts: ["h:1.2.3.4"], platform: linux/arm64}
  b: {image: x, volumes: ["two:/t"], depends_on: [a]}
volumes: {one: , two: }
"""
    found = values(translate(tmp_path, text).spec)
    a = found["services"]["a"]
    assert found["volumes"] == {"two": {}}
    assert a["volumes"] == [
        "two:/t:ro",
        {"name": "one", "emptyDir": {}},
        {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "1048576"}},
    ]
    assert a["volumeMounts"][0] == {"name": "one", "mountPath": "/o", "readOnly": True}
    assert a["resources"] == {"limits": {"cpu": "0.5", "memory": "1073741824"}}
    assert (a["hostAliases"], a["nodeSelector"]) == (
        [{"ip": "1.2.3.4", "hostnames": ["h"]}],
        {"kubernetes.io/os": "linux", "kubernetes.io/arch": "arm64"},
    )
    assert found["services"]["b"]["dependsOn"] == {"a": "started"}


def test_values_refuse_what_kubernetes_can_not_do(tmp_path: Path) -> None:
    with pytest.raises(SpecError) as found:
        values(
            translate(
                tmp_path,
                "services: {a: {build: .}, b: {image: x, entrypoint: []}, c: {image: x, extra_hosts: ['h:host-gateway']}}",
            ).spec
        )
    assert [problem.partition(": ")[0] for problem in found.value.problems] == [
        "services.a.image",
        "services.b.entrypoint",
        "services.c.extra_hosts",
    ]


def test_legal_names_and_dollar_signs() -> None:
    assert legal_name("web", set()) == "web"
    assert legal_name("web_1.x", set()) == "web-1-x"
    assert legal_name("Web_1", {"web-1"}).startswith("web-1-")
    assert len(legal_name("x" * 200, set())) <= 63
    assert [escape(text) for text in ("$x", "$(x)", "$$", "$$(x)", "a$")] == ["$x", "$$(x)", "$$$$", "$$$$(x)", "a$"]


def test_offline_shuts_every_way_out(tmp_path: Path) -> None:
    text = "services: {a: {image: x, x-sandboxcore: {internet: true}}, b: {image: x}}\nx-k8s: {allow_domains: [example.org]}"
    done = translate(tmp_path, text, offline=True)
    assert all(one.network_policy == NetworkPolicy() for one in done.spec.services.values())
    assert entries(done) == [("POLICY", "services.a", "offline"), ("POLICY", "services.b", "offline")]
