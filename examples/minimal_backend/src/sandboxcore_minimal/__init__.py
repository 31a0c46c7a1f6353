"""A whole backend: a sandbox is one process in Linux namespaces of its own, and a JSON file that says where it is.

It brings what makes, finds and removes environments, and a channel that runs a program in one; commands, files, timeouts and
cut links are the core's work. It shuts nobody in: a sandbox has its own processes and /tmp, but this machine's other files.
"""

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from sandboxcore import BackendInfo, CapabilityError, ProvisionError, hookimpl
from sandboxcore.abc import Channel, Discoverer, Emit, Provisioner
from sandboxcore.spec import EnvironmentSpec
from sandboxcore.values import Claim, EnvironmentRef, SandboxRef, Selector

NAME, REF = "minimal", TypeAdapter(EnvironmentRef)
# The old /proc is still there and knows the outside's process id. It goes on only when told to: if we die, it ends.
# The service's PATH is for its commands, not for ours; its environment is kept by the process itself, and nowhere else.
INIT = """path=$PATH PATH=/usr/sbin:/usr/bin:/sbin:/bin; read pid rest < /proc/self/stat; mount -t proc proc /proc &&
mount -t tmpfs tmpfs /tmp && echo $pid && read go && PATH=$path && exec /bin/sleep inf > /dev/null 2>&1 < /dev/null"""
MAKE = ("/usr/bin/setsid", "-f", "/usr/bin/unshare", "-Urmpf", "/bin/sh", "-c", INIT)


class Minimal(Provisioner, Discoverer):
    def __init__(self, config: Mapping[str, Any]) -> None:
        self.root = Path(config.get("root", "~/.sandboxcore-minimal")).expanduser()
        self.root.mkdir(parents=True, exist_ok=True)

    def check(self, spec: EnvironmentSpec) -> Sequence[Any]:
        asked = set(spec.services[spec.default_service].model_dump(exclude_defaults=True)) - {"env", "working_dir"}
        if asked or len(spec.services) > 1:
            raise CapabilityError(f"backend 'minimal' can't do: {', '.join(sorted(asked)) or 'more than one service'}")
        return ()

    async def provision(self, spec: EnvironmentSpec, claim: Claim, emit: Emit) -> EnvironmentRef:
        name, service = spec.default_service, spec.services[spec.default_service]
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        env = {"PATH": os.defpath} | service.env
        with ours:
            with theirs:
                end = theirs.fileno()
                await (await asyncio.create_subprocess_exec(*MAKE, stdin=end, stdout=end, stderr=end, env=env)).wait()
            said = (await asyncio.get_running_loop().sock_recv(ours, 1000)).decode().strip()
            if not said.isdecimal():
                raise ProvisionError(f"service {name!r}: unshare: {said}", service=name)
            whose: Any = {"backend": NAME, "environment_id": claim.environment_id, "run_id": claim.run_id, "state": "ready"}
            data = {"pid": int(said), "cwd": service.working_dir or "/tmp"}
            whose |= {"sandboxes": (SandboxRef(**whose, service=name, data=data),), "default": name, "labels": dict(claim.labels)}
            ref = EnvironmentRef(**whose, owner=claim.owner, created_at=time.time(), expires_at=time.time() + claim.lease)
            self.save(ref)
            ours.send(b"go\n")
        return ref

    async def destroy(self, environment: EnvironmentRef) -> None:
        process = Path(f"/proc/{environment.sandboxes[0].data['pid']}")
        with contextlib.suppress(OSError):
            while not (line := (process / "cmdline").read_bytes()):  # noqa: ASYNC110 - while one program becomes the other
                await asyncio.sleep(0.005)
            if b"sleep inf" in line.replace(b"\0", b" "):  # it may be INIT still
                os.kill(int(process.name), signal.SIGKILL)
                while process.exists():  # noqa: ASYNC110, ASYNC240 - until all that runs in it is gone
                    await asyncio.sleep(0.005)
        self.file(environment).unlink(missing_ok=True)

    async def renew(self, environments: Sequence[EnvironmentRef], lease: float) -> None:
        for environment in environments:
            if self.file(environment).exists():
                self.save(replace(environment, expires_at=time.time() + lease))

    async def find(self, selector: Selector) -> Sequence[EnvironmentRef]:
        return [ref for path in self.root.glob("*.json") if selector.matches(ref := REF.validate_json(path.read_bytes()))]

    def file(self, environment: EnvironmentRef) -> Path:
        return self.root / f"{environment.environment_id}.json"

    def save(self, environment: EnvironmentRef) -> None:
        new = self.root / f"{environment.environment_id}.new"
        new.write_bytes(REF.dump_json(environment))
        new.replace(self.file(environment))


class Entrance(Channel):
    def __init__(self, data: Mapping[str, Any]) -> None:
        self.data, self.processes = data, list[asyncio.subprocess.Process]()

    async def open(self, argv: Sequence[str], protocol: asyncio.BaseProtocol) -> asyncio.Transport:
        nsenter = [shutil.which("nsenter") or "nsenter", "-t", str(self.data["pid"]), "-U", "-m", "-p"]
        command = [*nsenter, "/bin/sh", "-c", 'cd "$0" && exec "$@"', self.data["cwd"], *argv]
        ours, theirs = socket.socketpair()
        with theirs:
            end, kept = theirs.fileno(), Path(f"/proc/{self.data['pid']}/environ").read_bytes()  # noqa: ASYNC240
            env = dict(pair.split("=", 1) for pair in os.fsdecode(kept).split("\0") if pair)
            self.processes.append(await asyncio.create_subprocess_exec(*command, stdin=end, stdout=end, env=env))
        return (await asyncio.get_running_loop().create_connection(lambda: protocol, sock=ours))[0]

    async def aclose(self) -> None:
        for process in self.processes:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


@hookimpl
def sandboxcore_backend_info() -> BackendInfo:
    return BackendInfo(name=NAME, summary="namespaces, by unshare and nsenter", capabilities=frozenset({"stdin", "pty"}))


@hookimpl
def sandboxcore_provisioner(backend: str, config: Any) -> Provisioner | None:
    return Minimal(config) if backend == NAME else None


@hookimpl
def sandboxcore_discoverer(backend: str, config: Any) -> Discoverer | None:
    return Minimal(config) if backend == NAME else None


@hookimpl
def sandboxcore_channel(sandbox: SandboxRef) -> Channel | None:
    return Entrance(sandbox.data) if sandbox.backend == NAME else None
