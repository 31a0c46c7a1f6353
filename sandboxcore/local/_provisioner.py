"""Make environments on this machine, and take them away."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ..abc import Provisioner
from ..errors import ProvisionError, ProvisionTimeoutError, SandboxError
from . import _check
from ._config import EnvironmentOptions, ServiceOptions
from ._describe import describe, environment_ref
from ._explain import explain
from ._ids import choose_mapping
from ._launch import Process, run
from ._networks import NetworkPlan, plan_networks
from ._orchestra import TO_BE_STARTED, Orchestra
from ._plan import Folders, Launch, Tree, plan_service
from ._programs import Programs, find_programs, launcher_binary
from ._removal import Remover, finish
from ._rootfs import RootfsCache
from ._service import own_directory
from ._state import EnvironmentFolder, State, state_path
from ._userland import Userland

if TYPE_CHECKING:
    from ..abc import Emit
    from ..report import ReportEntry
    from ..spec import EnvironmentSpec
    from ..values import Claim, DoctorFinding, EnvironmentRef
    from ._config import LocalConfig

__all__ = ("LocalProvisioner",)


class _Begun:
    """How far the making of one environment is."""

    def __init__(self, claim: Claim, services: Iterable[str]) -> None:
        self.claim = claim
        #: What each service that is not ready waits for.
        self.waiting: dict[str, str] = {}
        self.wait(services)
        self.folder: EnvironmentFolder | None = None
        self.orchestra: Orchestra | None = None

    def wait(self, services: Iterable[str], what: str = TO_BE_STARTED) -> None:
        """Note what these services wait for."""
        self.waiting.update(dict.fromkeys(services, what))

    def close(self) -> None:
        """Stop watching the services."""
        if self.orchestra is not None:
            self.orchestra.close()

    def failure(self, error: OSError) -> ProvisionError:
        """Say what an error of the system, or the end of the time, means for the environment."""
        name = self.claim.environment_id
        if not isinstance(error, TimeoutError):
            return ProvisionError(f"environment {name!r} could not be made: {error}")
        waited = ", ".join(f"service {service!r} {what}" for service, what in self.waiting.items())
        return ProvisionTimeoutError(
            f"environment {name!r} was not ready after {self.claim.timeout:g} s; it still waited for {waited}"
        )


class LocalProvisioner(Provisioner):
    """Environments of bubblewrap sandboxes, each under a holder process of its own."""

    def __init__(self, config: LocalConfig) -> None:
        self._config = config
        self.state = State(state_path(config.state_dir))
        self.mapping = choose_mapping()
        self._programs: Programs | None = None
        self._rootfs: RootfsCache | None = None
        self._userland = Userland(config.host_paths)
        self._starts = asyncio.Semaphore(config.starts_at_once)
        self._remover = Remover(self.state, self.mapping, self._starts)
        self._reaping: asyncio.Future[None] | None = None

    async def aclose(self) -> None:
        """Wait for what is being cleaned up in the background."""
        if self._reaping is not None:
            with contextlib.suppress(Exception):
                await self._reaping
            self._reaping = None
        if self._rootfs is not None:
            await self._rootfs.aclose()

    def check(self, spec: EnvironmentSpec) -> Sequence[ReportEntry]:
        """Tell what becomes of each field.

        Raises:
            CapabilityError: The backend can't do what the spec asks for.
            SpecError: The spec names what does not exist.
        """
        return _check.check(spec, self._config, self._userland, self.mapping, self._archives(spec))

    async def doctor(self) -> Sequence[DoctorFinding]:
        """Check programs, namespaces, ids, overlays and the state folder, by using them."""
        from ._doctor import diagnose

        return await diagnose(self.state, self._config)

    def _archives(self, spec: EnvironmentSpec) -> dict[str, Path | None]:
        """Find the file tree of each service: its own option, or the configuration's for its name or image."""
        from .._validation import validated

        validated(EnvironmentOptions, spec.options.get("local", {}), what="options.local")
        found: dict[str, Path | None] = {}
        for name, service in spec.services.items():
            options = validated(ServiceOptions, service.options.get("local", {}), what=f"services.{name}.options.local")
            configured = self._config.rootfs.get(name) or self._config.rootfs.get(service.image or "")
            path = options.rootfs or configured
            found[name] = path.expanduser().absolute() if path else None
        return found

    # -- making

    async def provision(self, spec: EnvironmentSpec, claim: Claim, emit: Emit) -> EnvironmentRef:
        """Create the environment and wait until every service is ready.

        Raises:
            CapabilityError: The backend can't do what the spec asks for. Nothing was created.
            ProvisionError: With its cause. Nothing is left.
        """
        self.check(spec)
        self.state.ensure()
        self._reap_in_background()
        begun = _Begun(claim, spec.services)
        try:
            async with asyncio.timeout(claim.timeout):
                await self._build(spec, begun, emit)
        except BaseException as error:
            if begun.folder is not None:
                await finish(partial(self._remover.clear_away, begun.folder, error))
            if isinstance(error, OSError) and not isinstance(error, SandboxError):
                raise begun.failure(error) from error
            raise
        finally:
            begun.close()
        found = environment_ref(begun.folder) if begun.folder else None
        if found is None:
            raise ProvisionError(f"environment {claim.environment_id!r} was destroyed while it was being made")
        return found

    async def _build(self, spec: EnvironmentSpec, begun: _Begun, emit: Emit) -> None:
        claim, programs = begun.claim, self._find_programs()
        trees = await self._trees(spec, begun)
        network = plan_networks(spec)
        description = describe(spec, claim)
        folder = begun.folder = self.state.create(claim.environment_id, description, claim.lease)
        launches = self._launches(spec, folder, network, trees, programs)
        begun.wait(spec.services, "for the environment's holder to be started")
        holder = await self._hold(folder, network, programs)
        begun.wait(spec.services)
        await self._fill_volumes(launches, trees, begun)
        begun.orchestra = Orchestra(
            spec, claim, emit, folder, holder, launches, self.mapping, programs, self._starts, begun.waiting
        )
        await begun.orchestra.play()
        folder.write({**description, "state": "ready"})

    def _find_programs(self) -> Programs:
        if self._programs is None:
            self._programs = find_programs()
        return self._programs

    async def _trees(self, spec: EnvironmentSpec, begun: _Begun) -> dict[str, Tree | None]:
        if self._rootfs is None:
            self._rootfs = RootfsCache(self.state.rootfs, self.mapping)
        cache = self._rootfs
        archives = self._archives(spec)
        wanted = list(dict.fromkeys(path for path in archives.values() if path is not None))

        async def load(path: Path) -> Tree:
            services = [name for name, its in archives.items() if its == path]
            begun.wait(services, "for its image to be unpacked")
            tree = await cache.load(path)
            begun.wait(services)
            return tree

        loaded = dict(zip(wanted, await asyncio.gather(*map(load, wanted)), strict=True))
        trees = {name: loaded[path] if path is not None else None for name, path in archives.items()}
        for name, tree in trees.items():
            if tree is not None and spec.services[name].user is None:
                _check.check_user_is_had(name, tree.image.user, self.mapping)
        return trees

    def _launches(
        self,
        spec: EnvironmentSpec,
        folder: EnvironmentFolder,
        network: NetworkPlan,
        trees: Mapping[str, Tree | None],
        programs: Programs,
    ) -> dict[str, Launch]:
        volumes = {name: folder.path / "volumes" / str(index) for index, name in enumerate(spec.volumes)}
        self._make_volumes(spec, volumes)
        launches: dict[str, Launch] = {}
        for index, name in enumerate(spec.services):
            folder.service(index).mkdir(mode=0o700, parents=True)
            launches[name] = plan_service(
                spec,
                name,
                network=network,
                tree=trees[name],
                folders=Folders(service=folder.service(index), volumes=volumes),
                config=self._config,
                userland=self._userland,
                mapping=self.mapping,
                programs=programs,
            )
        _make_binds(spec)
        return launches

    def _make_volumes(self, spec: EnvironmentSpec, volumes: Mapping[str, Path]) -> None:
        """Make volumes and their parts now: once a sandbox runs, it could have put links in the way."""
        for path in volumes.values():
            own_directory(path, self.mapping)
        for service in spec.services.values():
            for mount in service.volumes:
                if mount.type == "volume" and mount.source and mount.subpath:
                    volume = volumes[mount.source]
                    inner = volume / mount.subpath
                    for path in reversed([inner, *(parent for parent in inner.parents if volume in parent.parents)]):
                        own_directory(path, self.mapping)

    async def _fill_volumes(self, launches: Mapping[str, Launch], trees: Mapping[str, Tree | None], begun: _Begun) -> None:
        """Copy what images have where new volumes are mounted, the first service's for a shared one."""
        done: set[Path] = set()
        for name, launch in launches.items():
            tree = trees[name]
            for volume, target in launch.copies:
                source = tree.path / target.lstrip("/") if tree else None
                if source is None or volume in done or not source.is_dir():
                    continue
                done.add(volume)
                own_directory(volume, self.mapping)
                begun.wait([name], "for its volumes to be filled")
                await self._as_sandbox_root("cp", "-a", "--reflink=auto", f"{source}/.", f"{volume}/")
                begun.wait([name])

    async def _as_sandbox_root(self, *argv: str) -> None:
        prefix: tuple[str, ...] = ()
        if self.mapping.kind != "root":
            prefix = (str(launcher_binary()), "map", *self.mapping.arguments(), "--")
        done = await run([*prefix, *argv], env=dict(os.environ))
        if done.status != 0:
            raise ProvisionError(f"{argv[0]} failed: {explain(done.stderr)[0]}")

    async def _hold(self, folder: EnvironmentFolder, network: NetworkPlan, programs: Programs) -> Process:
        options = ("--dir", str(folder.path), "--nets", str(network.count), *self.mapping.arguments())
        argv = [str(programs.launcher), "hold", *options]
        async with self._starts:
            done = await run(argv, env={"PATH": os.environ.get("PATH", os.defpath)})
        holder = Process.parse(done.stdout)
        if done.status != 0 or holder is None:
            message, hint = explain(done.stderr)
            raise ProvisionError(f"the environment's holder could not be started: {message}", hint=hint)
        return holder

    # -- keeping and taking away

    async def renew(self, environments: Sequence[EnvironmentRef], lease: float) -> None:
        """Move the end of the leases; environments that are gone are passed over."""
        for environment in environments:
            with contextlib.suppress(FileNotFoundError):
                self.state.folder(environment.environment_id).set_lease(lease)

    async def destroy(self, environment: EnvironmentRef) -> None:
        """Kill all that runs in the environment at once, and remove its files. Idempotent."""
        await self._remover.remove(self.state.folder(environment.environment_id))

    def _reap_in_background(self) -> None:
        if self._reaping is None:
            self._reaping = asyncio.ensure_future(self._remover.reap())


def _make_binds(spec: EnvironmentSpec) -> None:
    for service in spec.services.values():
        for mount in service.volumes:
            if mount.type == "bind" and mount.create:
                Path(mount.source, mount.subpath).mkdir(parents=True, exist_ok=True)
