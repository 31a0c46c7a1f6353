# ruff: noqa: E501
"""Values for every key of a Compose file, good and bad, and files made of them."""

from __future__ import annotations

import random

#: Written as YAML flow values.
SERVICE: dict[str, list[str]] = {
    "annotations": ["{a: b}", "[a=b, c]", "{a: 1, b: true, c: 1.50}", "{a: null}", "[a=b, a=c]"],
    "attach": ["true", "false", "no", '"x"'],
    "blkio_config": [
        "{weight: 300}",
        "{weight_device: [{path: /dev/sda, weight: 400}]}",
        "{device_read_bps: [{path: /a, rate: 1mb}]}",
    ],
    "build": [
        ".",
        "./dir",
        "{context: ., args: {A: 1, B: null}}",
        "{context: ../x, dockerfile: D, target: t}",
        "{dockerfile_inline: FROM x}",
        "{context: ., args: [A=1, SET, NOPE], labels: [a=b]}",
        "{context: 'https://x.y/z.git#main:a'}",
        "{context: ., additional_contexts: {a: ./x, b: 'docker-image://y'}, ssh: [default, 'a=./k'], no_cache: true}",
        "{context: ., platforms: [linux/amd64], tags: [a, b, a], shm_size: 64m, ulimits: {nofile: 3}}",
        "{context: ., secrets: [sec], extra_hosts: {a: 1.2.3.4}, network: host, pull: true, privileged: true}",
        "{context: ., dockerfile: a, dockerfile_inline: b}",
        "{}",
        "{contxt: .}",
    ],
    "cap_add": ["[A]", "[A, B]", "[A, A]", "A"],
    "cap_drop": ["[ALL]", "[]"],
    "cgroup": ["host", "private", "x"],
    "cgroup_parent": ["a"],
    "command": [
        "a b",
        "[a, b]",
        "'a \"b c\"'",
        "null",
        "[]",
        "''",
        "a | b",
        "[1]",
        "'a $$b ${SET}'",
        "bash -c 'echo hi && ls'",
        '"a \'b"',
    ],
    "configs": ["[conf]", "[{source: conf, target: /x, mode: 0440, uid: '1'}]", "[nope]", "[{source: conf, mode: '0400'}]"],
    "container_name": ["abc", "a", "'-x'", "''"],
    "cpu_count": ["2", "'2'"],
    "cpu_percent": ["50", "50.5", "'5'"],
    "cpu_period": ["100000", "'1000'", "50ms"],
    "cpu_quota": ["5000", "'5000'"],
    "cpu_rt_period": ["100", "'400ms'"],
    "cpu_rt_runtime": ["100"],
    "cpu_shares": ["73", "'73'", "7.5"],
    "cpus": ["1", "0.5", "'1.5'", "'x'", "0", "1e1"],
    "cpuset": ["0-3", "'0,1'", "1"],
    "credential_spec": ["{file: ./a}", "{config: c}", "{registry: r}"],
    "depends_on": [
        "[b]",
        "[c]",
        "{b: {condition: service_healthy}}",
        "{b: {condition: service_started, required: false, restart: true}}",
        "{nope: {condition: service_started, required: false}}",
        "[nope]",
        "{b: {condition: bad}}",
        "{b: null}",
        "[b, c, b]",
        "{off: {condition: service_started}}",
        "[a]",
    ],
    "deploy": [
        "{replicas: 2}",
        "{mode: global}",
        "{resources: {limits: {cpus: '0.5', memory: 50M, pids: 3}}}",
        "{resources: {limits: {memory: 1g}, reservations: {memory: 20M, cpus: 0.25}}}",
        "{resources: {reservations: {devices: [{capabilities: [gpu], count: 2, driver: nvidia}]}}}",
        "{resources: {reservations: {devices: [{capabilities: [gpu], device_ids: ['0'], options: {a: 1}}]}}}",
        "{resources: {reservations: {devices: [{driver: nvidia}]}}}",
        "{resources: {reservations: {generic_resources: [{discrete_resource_spec: {kind: g, value: 2}}]}}}",
        "{update_config: {parallelism: 2, delay: 10s, max_failure_ratio: 0.1, order: start-first}, labels: {a: b}}",
        "{restart_policy: {condition: on-failure, delay: 5s, max_attempts: 3, window: 120s}}",
        "{placement: {constraints: [a==b], preferences: [{spread: x}], max_replicas_per_node: 2}, endpoint_mode: vip}",
        "null",
        "{}",
        "{replicas: '3'}",
    ],
    "develop": [
        "{watch: [{path: ./a, action: sync, target: /b}]}",
        "{watch: [{path: ./a, action: rebuild, ignore: [x]}]}",
        "null",
    ],
    "device_cgroup_rules": ["['c 1:3 mr']"],
    "devices": ["[/dev/a:/dev/b]", "[/dev/a]", "['/dev/a:/dev/b:r']", "[{source: /dev/x, target: /dev/y, permissions: r}]"],
    "dns": ["8.8.8.8", "[8.8.8.8, 9.9.9.9]", "[8.8.8.8, 8.8.8.8]", "''", "['', 1.1.1.1]"],
    "dns_opt": ["[a, b]", "[a, a]"],
    "dns_search": ["x.y", "[x.y, z]"],
    "domainname": ["x.y"],
    "entrypoint": ["a b", "[a, b]", "[]", "''", "null", "['']"],
    "env_file": [
        "some.env",
        "[some.env]",
        "[{path: some.env, required: false}]",
        "[{path: missing.env, required: false}]",
        "missing.env",
        "[{path: some.env, format: raw}]",
        "[some.env, some.env]",
    ],
    "environment": [
        "{A: 1, B: yes, C: 1.50, D: null, E: true}",
        "[A=1, B, 'C=a=b']",
        "{SET: , NOPE: , EMPTY: }",
        "[SET, NOPE, EMPTY, A=]",
        "{A: 0x10, B: 017, C: 1e6, D: 1_000, E: 0o17, F: 1e-7, G: 123456789.5, H: 1.0}",
        "{A: 2001-01-02}",
        "{A: '${SET}', B: '${NOPE:-d}', C: '$$x', D: '${EMPTY-z}', E: '${SET:+alt}'}",
        "{A: [1]}",
        "[A: 1]",
        "{A: ~, B: Null, C: .5, D: +1, E: -0, F: 0b11}",
        "{A: '${NOPE?gone}'}",
        "{A: '${'}",
        "['A = 1', 'B=', '=x']",
        "{A: 12:30:45, B: 1:2, C: on, D: Off, E: TRUE, F: '1'}",
    ],
    "expose": ["[80]", "['80']", "['80-82']", "[80, '80']", "[80.5]", "['80/udp']"],
    "extends": [
        "b",
        "{service: b}",
        "{service: b, file: other.yaml}",
        "{service: nope}",
        "{file: other.yaml}",
        "{service: a}",
        "{service: base, file: ./other.yaml}",
        "{service: b, file: missing.yaml}",
    ],
    "external_links": ["[x:y]"],
    "extra_hosts": [
        "{a: 1.2.3.4}",
        "['a:1.2.3.4', 'b=::1']",
        "['a:host-gateway']",
        "{a: [1.1.1.1, 2.2.2.2]}",
        "[a]",
        "['a:[::1]']",
        "['a:::1']",
    ],
    "gpus": ["all", "[{driver: x, count: 2}]", "[{capabilities: [gpu], device_ids: [a]}]", "[{}]", "some"],
    "group_add": ["[1, a]", "[a, a]"],
    "healthcheck": [
        "{test: [CMD, a]}",
        "{test: a b, interval: 1m30s, timeout: 10s, retries: 3, start_period: 1.5s, start_interval: 500ms}",
        "{test: [a]}",
        "{test: NONE}",
        "{test: [NONE]}",
        "{disable: true}",
        "{interval: 5s}",
        "{test: [CMD-SHELL, x], interval: 10}",
        "{test: [CMD-SHELL, x], interval: '10'}",
        "{test: [CMD-SHELL, x], retries: '5'}",
        "{test: x, interval: 0s}",
        "{test: []}",
        "{}",
        "{test: x, disable: false}",
    ],
    "hostname": ["h", "h_x"],
    "image": ["x", "x:1", "${SET}:tag", "''", "1", "'x@sha256:1'", "${NOPE:?need}", "[a]"],
    "init": ["true", "no", "'yes'", "1"],
    "ipc": ["host", "shareable", "service:b", "service:nope"],
    "isolation": ["default"],
    "label_file": ["some.env", "[some.env]"],
    "labels": ["{a: b, c: 1, d: null}", "[a=b, c]", "{a: ${SET}}", "[a=b, a=b]", "{a: true, b: 2.0}"],
    "links": ["[b]", "['b:x']", "[nope]", "[b, b]"],
    "logging": ["{driver: a, options: {x: 1, y: 'z'}}", "{driver: b, options: {z: 2}}", "{options: {q: null}}", "{}"],
    "mac_address": ["02:42:ac:11:65:43"],
    "mem_limit": ["1g", "1.5G", "100", "1e3", "-1", "'1 m'", "1x", "0", "'512'"],
    "mem_reservation": ["1g", "100m", "5"],
    "mem_swappiness": ["3", "'3'"],
    "memswap_limit": ["1g", "-1", "0"],
    "models": ["[m]", "{m: {endpoint_var: A}}", "[nope]", "{m: null}"],
    "network_mode": ["none", "host", "bridge", "service:b", "container:x", "service:nope", "''"],
    "networks": [
        "[n1]",
        "[n1, n2]",
        "{n1: null}",
        "{n1: {aliases: [x, y], ipv4_address: 1.2.3.4}}",
        "{n1: {priority: 3, driver_opts: {a: 1}, mac_address: 'aa'}, n2: {}}",
        "[nope]",
        "[]",
        "[default]",
        "{}",
        "{n1: {aliases: [x, x]}}",
        "{n2: {link_local_ips: [1.1.1.1], interface_name: e0, gw_priority: 2}}",
    ],
    "oom_kill_disable": ["true", "'true'"],
    "oom_score_adj": ["-500", "'5'", "5000"],
    "pid": ["host", "service:b", "null"],
    "pids_limit": ["5", "-1", "'7'"],
    "platform": ["linux/amd64"],
    "ports": [
        "[80]",
        "['8080:80']",
        "['127.0.0.1:8080:80/udp', 81]",
        "['3000-3002:3000-3002']",
        "[{target: 80, published: 8080}]",
        "[{target: 80, published: '8080', mode: host, protocol: udp, name: a, host_ip: 1.2.3.4, app_protocol: http}]",
        "['80:80', '80:80']",
        "[22:22]",
        "['x']",
        "[{published: 80}]",
        "['${SET:+90}:80']",
        "[8-11]",
        "['8000-9000:80']",
        "['[::1]:80:80', '::80']",
        "[80.5]",
        "['1-3:1-2']",
        "['80:80', {target: 80, published: 80}]",
        "[1e3]",
        "[0]",
        "[70000]",
        "['70000:1']",
        "[{target: '80'}]",
    ],
    "post_start": ["[{command: a b}]", "[{command: [a], user: root, privileged: true, environment: [A=1]}]", "[{}]"],
    "pre_stop": ["[{command: a, working_dir: /x, environment: {A: 1}}]"],
    "privileged": ["true", "yes", "'${SET}'", "'true'"],
    "profiles": ["[dev]", "[]", "[a, b]"],
    "provider": ["{type: x}", "{type: x, options: {a: 1, b: [c, true]}}", "{}"],
    "pull_policy": ["always", "if_not_present", "missing", "build", "daily", "every_2d", "x", "never"],
    "pull_refresh_after": ["1d"],
    "read_only": ["true", "false", "on"],
    "restart": ["always", "no", "'no'", "on-failure:3", "unless-stopped", "whatever"],
    "runtime": ["runc"],
    "scale": ["1", "2", "0", "'3'"],
    "secrets": [
        "[sec]",
        "[{source: sec, target: t, uid: '1', gid: '2', mode: 288}]",
        "[nope]",
        "[sec, sec]",
        "[{source: sec, target: /a/b}]",
    ],
    "security_opt": ["[a]", "[a, a]", "['seccomp:unconfined']"],
    "shm_size": ["64m", "67108864", "'1gb'"],
    "stdin_open": ["true"],
    "stop_grace_period": ["1s", "1m30s", "10", "0s", "1.5d"],
    "stop_signal": ["SIGINT"],
    "storage_opt": ["{size: 1G}", "{a: 1}"],
    "sysctls": ["{a.b: 1}", "['a.b=1']", "{a: null}"],
    "tmpfs": ["/x", "[/x, /y]", "['/x:size=1m']", "[/data]"],
    "tty": ["true", "'on'"],
    "ulimits": ["{nofile: 100}", "{nofile: {soft: 1, hard: 2}}", "{nproc: '5'}", "{nofile: {soft: 1}}", "{core: 0}"],
    "use_api_socket": ["true", "false"],
    "user": ["root", "'1000'", "1000", "1:2"],
    "userns_mode": ["host"],
    "uts": ["host"],
    "volumes": [
        "['vol:/data']",
        "['./a:/a:ro']",
        "[/anon]",
        "['/abs:/b', 'vol:/data:nocopy']",
        "['~/x:/y']",
        "[{type: bind, source: ./x, target: /y}]",
        "[{type: bind, source: ./x, target: /y, bind: {create_host_path: false, propagation: shared}}]",
        "[{type: volume, source: vol, target: /d, volume: {nocopy: true, subpath: s, labels: {a: b}}}]",
        "[{type: tmpfs, target: /t, tmpfs: {size: 10m, mode: 0755}}]",
        "[{type: tmpfs, target: /t, tmpfs: {size: 1000, mode: 1777}}]",
        "[{type: image, source: x, target: /i, image: {subpath: q}}]",
        "['nope:/x']",
        "['v:/x']",
        "[{type: volume, target: /anon}]",
        "['vol:/data', 'vol:/data']",
        "['vol:/data/', './b:/data']",
        "[{type: bind, target: /y}]",
        "[{source: x, target: /y}]",
        "['vol:relative']",
        "['./a:/a:z,ro', './b:/b:rshared']",
        "[{type: npipe, source: '\\\\\\\\.\\\\pipe\\\\x', target: /p}]",
        "[{type: volume, source: vol, target: /d, read_only: true, consistency: cached}]",
        "['vol:/a:ro:b']",
        "['..:/up', '.:/here']",
    ],
    "volumes_from": ["[b]", "['b:ro']", "['container:x']", "[nope]"],
    "working_dir": ["/w", "w"],
    "x-any": ["{a: 1}", "1"],
    "unknwon": ["1"],
    "link": ["[a]"],
}

TOP: dict[str, list[str]] = {
    "networks": [
        "{n1: , n2: {internal: true}}",
        "{n1: {driver: bridge, driver_opts: {a: 1}, labels: [x=y]}, n2: {ipam: {config: [{subnet: 10.0.0.0/8}]}}}",
        "{n1: {external: true}, n2: {name: real}}",
        "{n1: {external: {name: ext}}, n2: {enable_ipv6: true, attachable: true}}",
        "{n1: {external: true, driver: x}, n2: }",
        "{default: {driver: overlay}, n1: , n2: {x-a: 1}}",
        "{n1: {internal: 'yes'}, n2: {labels: {a: 1}, enable_ipv4: false}}",
        "{n1: {ipam: {driver: d, options: {a: b}, config: [{subnet: 1.0.0.0/8, gateway: 1.1.1.1, aux_addresses: {a: b}}]}}, n2: }",
    ],
    "volumes": [
        "{vol: }",
        "{vol: {driver: local, driver_opts: {type: none, o: bind, device: ./x}}}",
        "{vol: {external: true}}",
        "{vol: {name: v2, labels: {a: b}}}",
        "{vol: {external: true, name: q}}",
        "{vol: {external: {name: ext}}, unused: }",
        "{vol: {external: true, driver: x}}",
        "{vol: null, v: {}}",
        "{vol: {driver_opts: {size: 10}}}",
    ],
    "secrets": [
        "{sec: {file: ./s}}",
        "{sec: {environment: SET}}",
        "{sec: {external: true}}",
        "{sec: {file: ./s, environment: A}}",
        "{sec: {}}",
        "{sec: {file: ./s, name: other, labels: [a=b]}}",
        "{sec: {external: true, name: n}}",
        "{sec: {driver: d, driver_opts: {a: 1}, template_driver: t}}",
        "{sec: {environment: NOPE}}",
    ],
    "configs": [
        "{conf: {file: ./c}}",
        "{conf: {content: 'a ${SET} $$'}}",
        "{conf: {environment: SET}}",
        "{conf: {external: true}}",
        "{conf: {}}",
    ],
    "models": ["{m: {model: ai/x}}"],
    "name": ["other", "${SET}", "BAD"],
    "version": ["'3'", "3"],
    "x-top": ["{a: [1, 2.0, null]}", "text"],
    "include": [
        "[other.yaml]",
        "[{path: other.yaml}]",
        "[missing.yaml]",
        "other.yaml",
        "[{path: [other.yaml], project_directory: ., env_file: some.env}]",
    ],
    "servces": ["{}"],
}


def _service(chance: random.Random, most: int) -> list[str]:
    keys = chance.sample(sorted(SERVICE), chance.randint(0, most))
    lines = []
    if chance.random() < 0.97 and "image" not in keys:
        lines.append("image: img")
    for key in keys:
        if key in ("unknwon", "link", "extends", "credential_spec", "ipc", "pid", "links") and chance.random() < 0.8:
            continue
        tag = ""
        if chance.random() < 0.02:
            tag = chance.choice(("!reset ", "!override "))
        # The first values of a key are good ones; bad ones would hide everything else.
        values = SERVICE[key]
        value = chance.choice(values if chance.random() < 0.15 else values[: max(1, len(values) // 2)])
        lines.append(f"{key}: {tag}{value}")
    return lines


def document(chance: random.Random, number: int) -> str:
    """Write a document with services a, b, c, off and base."""
    lines = ["services:"]
    names = ["a"] + [name for name in ("b", "c", "base") if chance.random() < 0.7]
    if number and chance.random() < 0.5:
        names = ["a"]
    for name in names:
        lines.append(f"  {name}:")
        found = _service(chance, 5 if name == "a" else 2)
        if number and found and chance.random() < 0.5:
            found = [line for line in found if not line.startswith("image: img")]
        lines += [f"    {line}" for line in found] or ["    {}"]
    if chance.random() < 0.3:
        lines += ["  off:", "    image: x", "    profiles: [never]"]
    for key, values in TOP.items():
        wanted = {"networks": 0.8, "volumes": 0.8, "secrets": 0.6, "configs": 0.6, "models": 0.3, "servces": 0.01}.get(key, 0.06)
        if number == 9 and key == "include":
            continue
        if chance.random() < wanted:
            value = chance.choice(values) if chance.random() < 0.3 else values[0]
            lines.append(f"{key}: {value}")
    return "\n".join(lines) + "\n"


_ENV = [
    "A=1",
    "B='x y'",
    'C="a\\nb"',
    "D=$SET",
    "E=${NOPE:-z}",
    "export F=1",
    "G",
    "H: yaml",
    "I=a # c",
    "J=a#b",
    "# c",
    "",
    "K=",
    "L='$SET'",
]
_ENV += [
    'M="$SET"',
    "N=a=b",
    "SET=other",
    "SET",
    'O="a\\"b"',
    "P='a\\'b'",
    "Q=  spaced  ",
    "R.x=1",
    "S-y=2",
    'T="multi\nline"',
    "U=$$x",
    "V=\\n",
]


def env_file(chance: random.Random) -> str:
    """Write an environment file."""
    return "\n".join(chance.sample(_ENV, chance.randint(0, 6))) + "\n"


_SCALARS = [
    "1",
    "yes",
    "null",
    "~",
    "true",
    "[]",
    "{}",
    "''",
    "1.5",
    "-1",
    "2001-01-01",
    "'x y'",
    "0x1F",
    "017",
    "${SET}",
    "${NOPE}",
    "$$",
    "a: b",
    "*x",
    "&x 1",
]


def change(chance: random.Random, lines: list[str]) -> None:
    """Change one line of a file: drop it, repeat it, move it, or give it another value."""
    if not lines:
        return
    place = chance.randrange(len(lines))
    line = lines[place]
    choice = chance.randrange(7)
    if choice == 0:
        del lines[place]
    elif choice == 1:
        lines.insert(place, line)
    elif choice == 2 and ":" in line:
        lines[place] = line.partition(":")[0] + ": " + chance.choice(_SCALARS)
    elif choice == 3:
        lines[place] = " " * chance.choice((0, 1, 2, 4, 6)) + line.lstrip()
    elif choice == 4 and line:
        at = chance.randrange(len(line))
        lines[place] = line[:at] + chance.choice("abc:-#'\"[]{},&*!|>%@ \t$1") + line[at + chance.randrange(2) :]
    elif choice == 5:
        indent = len(line) - len(line.lstrip())
        key = chance.choice(sorted(SERVICE))
        lines.insert(place, " " * indent + f"{key}: {chance.choice(SERVICE[key])}")
    else:
        lines[place] = line.replace(chance.choice("aeiou :-"), chance.choice(("", "x", ": ")), 1)
