"""Make what an environment is of, before anything is started: networks, volumes, containers with their files."""

from __future__ import annotations

import tarfile
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sandboxcore._at_once import together
from sandboxcore.errors import ProvisionError

from ._check import service_options
from ._container import ImageFacts, Placement, command_line, container_body
from ._errors import provision_error
from ._files import archive, open_folder
from ._http import HttpError
from ._images import Wanted
from ._keeper_user import is_root, keeper_user
from ._labels import environment_labels, label, service_labels
from ._networks import PlannedNetwork, check_pool, network_body, own_names, pick_subnet, plan_networks
from ._orchestra import Part, Teller

if TYPE_CHECKING:
    from sandboxcore.spec import EnvironmentSpec
    from sandboxcore.values import Claim

    from ._config import DockerConfig
    from ._engine import Engine
    from ._guest_volume import GuestVolume
    from ._images import Images

__all__ = ("Maker",)

_SUBNET_TRIES = 30


class Maker:
    """Makes the objects of one environment."""

    def __init__(
        self,
        spec: EnvironmentSpec,
        claim: Claim,
        tell: Teller,
        *,
        engine: Engine,
        config: DockerConfig,
        images: Images,
        guest: GuestVolume,
    ) -> None:
        self._spec, self._tell, self._engine, self._config, self._images, self._guest = spec, tell, engine, config, images, guest
        self._prefix = f"sandboxcore-{claim.environment_id}"
        self._labels = environment_labels(spec, claim, time.time())
        self._plan = plan_networks(spec)
        self._options = service_options(spec)
        self._facts: dict[str, ImageFacts] = {}
        self._networks: dict[str, str] = {}
        self._volumes: dict[tuple[str, str], str] = {}

    async def make(self) -> dict[str, Part]:
        """Make everything; nothing runs yet.

        Raises:
            ProvisionError: The engine can't.
        """
        names = list(self._spec.services)
        facts = await together(self._images.have(self._wanted(name), self._teller(name), service=name) for name in names)
        self._facts = dict(zip(names, facts, strict=True))
        guest = await self._guest.ensure(facts[0].reference, self._labels)
        # The volumes' names are known to whoever mounts them, made or not.
        networks = (self._network(index, network) for index, network in enumerate(self._plan.networks))
        volumes = (self._volume(index, source, subpath) for index, (source, subpath) in enumerate(self._mounted()))
        await together((*networks, *volumes))
        parts = await together(self._part(index, name, guest) for index, name in enumerate(names))
        return dict(zip(names, parts, strict=True))

    def _wanted(self, name: str) -> Wanted:
        service = self._spec.services[name]
        reference = service.image or self._config.default_image or ""
        return Wanted(
            reference=reference,
            policy=service.pull_policy or self._config.pull_policy,
            platform=service.platform,
            archive=self._options[name].archive or self._config.archives.get(reference),
        )

    def _teller(self, name: str) -> Any:
        return lambda what, attributes: self._tell(what, name, **attributes)

    def _mounted(self) -> list[tuple[str, str]]:
        mounts = (mount for service in self._spec.services.values() for mount in service.volumes)
        return list(dict.fromkeys((mount.source, mount.subpath) for mount in mounts if mount.type == "volume" and mount.source))

    async def _network(self, index: int, network: PlannedNetwork) -> None:
        """Make a network; addresses that are taken are found out by trying."""
        name, pool = f"{self._prefix}-{index}", check_pool(self._config.address_pool)
        for left in range(_SUBNET_TRIES, 0, -1):
            subnet = pick_subnet(pool, len(network.members))
            try:
                await self._engine.change("POST", "/networks/create", json_body=network_body(name, network, subnet, self._labels))
            except HttpError as error:
                if left > 1 and ("overlap" in error.message or "conflict" in error.message.lower()):
                    continue
                raise provision_error(error, doing=f"network {network.key.partition(':')[2]!r} can't be made") from error
            self._networks[network.key] = name
            return

    async def _volume(self, index: int, source: str, subpath: str) -> None:
        volume = self._spec.volumes[source]
        if volume.external:
            if await self._engine.attempt(self._engine.call("GET", f"/volumes/{source}")) is None:
                raise ProvisionError(
                    f"volume {source!r} is external, and the engine has none", hint=f"docker volume create {source}"
                )
            self._volumes[source, subpath] = source
            return
        name = f"{self._prefix}-{index}"
        body = {"Name": name, "Labels": {**volume.labels, **self._labels}}
        try:
            await self._engine.change("POST", "/volumes/create", json_body=body)
        except HttpError as error:
            raise provision_error(error, doing=f"volume {source!r} can't be made") from error
        self._volumes[source, subpath] = name

    async def _part(self, index: int, name: str, guest: str) -> Part:
        service, facts = self._spec.services[name], self._facts[name]
        body = container_body(service, facts, self._place(index, name, guest), self._options[name], await self._engine.version())
        try:
            if service.read_only:
                body["Image"] = await self._prepare(index, name, body)
            async with self._engine.busy:
                container = await self._create(f"{self._prefix}-{index}", name, body)
            if not service.read_only:
                await self._fill(container, name)
            for network in self._plan.of(name)[1:]:
                await self._connect(container, name, network)
        except HttpError as error:
            raise provision_error(error, service=name) from error
        check = service.healthcheck
        has_healthcheck = facts.has_healthcheck if check is None else check.test[0] != "NONE"
        command = bool(command_line(service, facts))
        return Part(container=container, has_healthcheck=has_healthcheck, command=command, init=service.init)

    def _place(self, index: int, name: str, guest: str) -> Placement:
        service, facts, networks = self._spec.services[name], self._facts[name], self._plan.of(name)
        user, home = keeper_user(service, facts)
        about = service_labels(
            name, index=index, exec_target=service.exec_target, machine=facts.machine, user=user, home=home, tty=service.tty
        )
        return Placement(
            labels={**self._labels, **about},
            guest_volume=guest,
            network_mode=self._networks[networks[0].key] if networks else "none",
            aliases=networks[0].members[name] if networks else (),
            online=self._plan.is_online(name),
            volumes=self._volumes,
            own_names=tuple(own_names(self._spec, name, self._plan)),
        )

    async def _create(self, container: str, name: str, body: Mapping[str, Any]) -> str:
        query = {"name": container, "platform": self._spec.services[name].platform}
        made = await self._engine.change("POST", "/containers/create", query=query, json_body=body)
        return str(made["Id"])

    def _to_open(self, name: str) -> list[str]:
        """List the volumes that everybody is to be let write to: new ones of a service that is not root's.

        A new volume is root's unless the image has something at its place, which then says whose it is.
        """
        service = self._spec.services[name]
        if is_root(self._facts[name].user if service.user is None else service.user):
            return []
        ours = (mount for mount in service.volumes if mount.type == "volume" and not mount.read_only)
        return [mount.target for mount in ours if not mount.source or not self._spec.volumes[mount.source].external]

    async def _open_volume(self, container: str, target: str) -> None:
        path = f"/containers/{container}/archive"
        async with self._engine.open("GET", path, query={"path": target}) as answer:
            head = await anext(answer.pieces())
        folder = tarfile.TarInfo.frombuf(head[: tarfile.BLOCKSIZE], "utf-8", "surrogateescape")
        if folder.uid == 0 and not folder.mode & 0o002:
            headers = {"Content-Type": "application/x-tar"}
            await self._engine.change("PUT", path, query={"path": "/"}, body=open_folder(target), headers=headers)

    async def _put(self, container: str, name: str) -> None:
        headers = {"Content-Type": "application/x-tar"}
        body = archive(self._spec.services[name].files)
        try:
            await self._engine.change("PUT", f"/containers/{container}/archive", query={"path": "/"}, body=body, headers=headers)
        except HttpError as error:
            raise provision_error(error, service=name, doing="its files can't be put in") from error

    async def _connect(self, container: str, name: str, network: PlannedNetwork) -> None:
        body = {"Container": container, "EndpointConfig": {"Aliases": list(network.members[name])}}
        await self._engine.change("POST", f"/networks/{self._networks[network.key]}/connect", json_body=body)

    async def _fill(self, container: str, name: str) -> None:
        for target in self._to_open(name):
            await self._open_volume(container, target)
        if self._spec.services[name].files:
            await self._put(container, name)

    async def _prepare(self, index: int, name: str, body: Mapping[str, Any]) -> str:
        """Fill a container with a read-only file tree, which takes nothing itself: by another one, that is not started.

        Returns:
            The image to use: one of the environment's own with the files, or the service's where there are none.
        """
        service = self._spec.services[name]
        if not service.files and not self._to_open(name):
            return str(body["Image"])
        labels = {**self._labels, label("role"): "files"}
        host = {"Mounts": body["HostConfig"]["Mounts"], "NetworkMode": "none"}
        plain = {"Image": body["Image"], "Entrypoint": ["/"], "Cmd": [], "Labels": labels, "HostConfig": host}
        container = await self._create(f"{self._prefix}-{index}-files", name, plain)
        await self._fill(container, name)
        image = str(body["Image"])
        if service.files:
            query = {"container": container, "repo": "sandboxcore-files", "tag": f"{self._prefix}-{index}", "pause": False}
            image = str((await self._engine.change("POST", "/commit", query=query, json_body={"Labels": labels}))["Id"])
        await self._engine.attempt(self._engine.change("DELETE", f"/containers/{container}", query={"force": True, "v": True}))
        return image
