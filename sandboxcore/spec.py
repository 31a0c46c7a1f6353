"""What to provision: the neutral description that every translator makes and every backend takes.

Nothing in here belongs to one backend; what does goes into ``options``, under the backend's name. The values are frozen,
unknown keys are errors, and environment values and file contents never show in a ``repr``.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

__all__ = (
    "BuildSpec",
    "Dependency",
    "EnvironmentSpec",
    "FileSpec",
    "Healthcheck",
    "NetworkPolicy",
    "NetworkSpec",
    "PortSpec",
    "Resources",
    "RestartPolicy",
    "ServiceSpec",
    "VolumeMount",
    "VolumeSpec",
)


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=False, hide_input_in_errors=True)


Seconds = Annotated[float, Field(ge=0)]
Bytes = Annotated[int, Field(ge=0)]


class Resources(_Value):
    """What a service may use at most (limits) and what is kept for it (requests). None means not asked for."""

    cpus: Annotated[float, Field(gt=0)] | None = None
    memory_bytes: Annotated[int, Field(gt=0)] | None = None
    cpus_request: Annotated[float, Field(ge=0)] | None = None
    memory_request_bytes: Bytes | None = None
    pids: Annotated[int, Field(gt=0)] | None = None
    storage_bytes: Annotated[int, Field(gt=0)] | None = None
    shm_bytes: Bytes | None = None
    gpus: Annotated[int, Field(ge=0)] = 0
    #: Name (``nofile``) to soft and hard limit; -1 means unlimited.
    ulimits: dict[str, tuple[int, int]] = Field(default_factory=dict)


class Healthcheck(_Value):
    """A command that decides whether a service is ready. Times are seconds; the defaults are Compose's.

    ``test`` is written as OCI images have it: ``CMD`` and an argv, ``CMD-SHELL`` and a line for the service's shell, or ``NONE``
    to switch off what the image brings; a bare argv is taken as it is.
    """

    test: tuple[str, ...]
    interval: Seconds = 30.0
    timeout: Seconds = 30.0
    retries: Annotated[int, Field(ge=0)] = 3
    start_period: Seconds = 0.0
    start_interval: Seconds = 5.0

    @field_validator("test")
    @classmethod
    def _not_empty(cls, test: tuple[str, ...]) -> tuple[str, ...]:
        if not test:
            raise ValueError("must name a command")
        return test


class Dependency(_Value):
    """What must be true of another service before this one starts."""

    condition: Literal["started", "healthy", "completed"] = "started"
    required: bool = True


class RestartPolicy(_Value):
    """What happens when the service's command ends. ``max_retries`` counts only for ``on-failure``; None is unlimited."""

    name: Literal["no", "always", "on-failure", "unless-stopped"] = "no"
    max_retries: Annotated[int, Field(ge=0)] | None = None


class VolumeMount(_Value):
    """A place in the service's file tree that is not part of its image.

    ``volume`` mounts the environment's volume ``source`` (empty: one of its own), ``tmpfs`` is memory, ``bind`` is a path of
    the client's machine.
    """

    type: Literal["volume", "bind", "tmpfs"] = "volume"
    source: str = ""
    target: str
    read_only: bool = False
    subpath: str = ""
    size_bytes: Bytes | None = None
    mode: int | None = None
    #: For ``volume``: do not fill an empty volume with what the image has at the target.
    no_copy: bool = False
    #: For ``bind``: make the source directory where it is missing.
    create: bool = False

    @field_validator("target")
    @classmethod
    def _absolute(cls, target: str) -> str:
        if not target.startswith("/"):
            raise ValueError(f"must be an absolute path in the sandbox, not {target!r}")
        return target


class VolumeSpec(_Value):
    """A volume that services of the environment share by name; it lives and dies with the environment."""

    external: bool = False
    labels: dict[str, str] = Field(default_factory=dict)


class NetworkSpec(_Value):
    """A network that services of the environment share by name; ``internal`` has no way out."""

    internal: bool = False


class NetworkPolicy(_Value):
    """Where a service may connect to outside its environment. The default is nowhere."""

    internet: bool = False
    #: Host names, ``*.`` wildcards allowed, that may be reached though ``internet`` is off.
    allow_domains: tuple[str, ...] = ()
    #: Address ranges that may be reached though ``internet`` is off.
    allow_cidrs: tuple[str, ...] = ()
    #: Well-known groups of peers (``world``, ``cluster``, ``host``), for backends that know them.
    allow_entities: tuple[str, ...] = ()


class PortSpec(_Value):
    """A port that the service listens on."""

    container_port: Annotated[int, Field(ge=1, le=65535)]
    protocol: Literal["tcp", "udp", "sctp"] = "tcp"
    #: The client's side; None lets the backend choose. Empty address: every one.
    host_port: Annotated[int, Field(ge=0, le=65535)] | None = None
    host_address: str = ""
    name: str = ""


class FileSpec(_Value):
    """A file that is put into the sandbox before its command starts."""

    content: bytes = Field(repr=False)
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    read_only: bool = False


class BuildSpec(_Value):
    """How the image of a service is built, for an image resolver. Paths are absolute paths of the client's machine."""

    context: str
    dockerfile: str | None = None
    dockerfile_inline: str | None = None
    args: dict[str, str | None] = Field(default_factory=dict, repr=False)
    target: str | None = None
    platforms: tuple[str, ...] = ()
    #: All other keys as the document gave them, for resolvers that know more.
    extra: dict[str, Any] = Field(default_factory=dict)


def _implicit_networks() -> dict[str, tuple[str, ...]] | None:
    return {"default": ()}


class ServiceSpec(_Value):
    """One named container.

    ``entrypoint`` and ``command`` follow the OCI image rules: None keeps what the image says (a given entrypoint drops the
    image's command), an empty tuple clears it.
    """

    image: str | None = None
    build: BuildSpec | None = None
    entrypoint: tuple[str, ...] | None = None
    command: tuple[str, ...] | None = None
    env: dict[str, str] = Field(default_factory=dict, repr=False)
    working_dir: str | None = None
    #: Name or ``uid``, with ``:group`` or ``:gid`` where given.
    user: str | None = None
    groups: tuple[str, ...] = ()
    resources: Resources = Resources()
    healthcheck: Healthcheck | None = None
    depends_on: dict[str, Dependency] = Field(default_factory=dict)
    restart: RestartPolicy = RestartPolicy()
    volumes: tuple[VolumeMount, ...] = ()
    files: dict[str, FileSpec] = Field(default_factory=dict)
    #: Networks of the environment to the aliases that the service has there; None: none at all, not even siblings.
    networks: dict[str, tuple[str, ...]] | None = Field(default_factory=_implicit_networks)
    network_policy: NetworkPolicy = NetworkPolicy()
    ports: tuple[PortSpec, ...] = ()
    hostname: str | None = None
    aliases: tuple[str, ...] = ()
    #: Host name to addresses, as in /etc/hosts.
    extra_hosts: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    labels: dict[str, str] = Field(default_factory=dict)
    platform: str | None = None
    init: bool = False
    tty: bool = False
    stdin_open: bool = False
    read_only: bool = False
    privileged: bool = False
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    security_opt: tuple[str, ...] = ()
    sysctls: dict[str, str] = Field(default_factory=dict)
    runtime: str | None = None
    pull_policy: Literal["always", "missing", "never"] | None = None
    stop_signal: str | None = None
    stop_grace_period: Seconds | None = None
    #: The service does not end up as a sandbox that commands run in (a one-shot job, a sidecar).
    exec_target: bool = True
    #: Backend name to that backend's own options for this service; other backends ignore them.
    options: dict[str, dict[str, Any]] = Field(default_factory=dict)

    @field_validator("working_dir")
    @classmethod
    def _absolute(cls, working_dir: str | None) -> str | None:
        if working_dir is not None and not working_dir.startswith("/"):
            raise ValueError(f"must be an absolute path in the sandbox, not {working_dir!r}")
        return working_dir

    @field_validator("env")
    @classmethod
    def _env_names(cls, env: dict[str, str]) -> dict[str, str]:
        for name, value in env.items():
            if not name or "=" in name or "\0" in name:
                raise ValueError(f"{name!r} can't be the name of an environment variable")
            if "\0" in value:
                raise ValueError(f"the value of {name!r} can't hold a NUL byte")
        return env


class EnvironmentSpec(_Value):
    """Everything that is provisioned together. Services keep their names whatever they are.

    ``default`` names the service that commands go to when nobody says which; None: the service ``default`` where there is
    one, else the first.
    """

    services: dict[str, ServiceSpec]
    default: str | None = None
    networks: dict[str, NetworkSpec] = Field(default_factory=lambda: {"default": NetworkSpec()})
    volumes: dict[str, VolumeSpec] = Field(default_factory=dict)
    name: str = ""
    labels: dict[str, str] = Field(default_factory=dict)
    #: Backend name to that backend's own options for the environment; other backends ignore them.
    options: dict[str, dict[str, Any]] = Field(default_factory=dict)

    @property
    def default_service(self) -> str:
        """Name of the service that commands go to when nobody says which."""
        if self.default is not None:
            return self.default
        return "default" if "default" in self.services else next(iter(self.services))

    @model_validator(mode="after")
    def _consistent(self) -> EnvironmentSpec:
        if not self.services:
            raise ValueError("services: an environment needs at least one service")
        if self.default is not None and self.default not in self.services:
            raise ValueError(f"default: no service is called {self.default!r}; there are {', '.join(self.services)}")
        for name, service in self.services.items():
            if not name:
                raise ValueError("services: a service needs a name")
            for other, dependency in service.depends_on.items():
                if other == name or (dependency.required and other not in self.services):
                    what = "itself" if other == name else f"{other!r}, which is not a service"
                    raise ValueError(f"services.{name}.depends_on: depends on {what}")
            for network in service.networks or ():
                if network not in self.networks:
                    raise ValueError(f"services.{name}.networks: no network is called {network!r}")
            for mount in service.volumes:
                if mount.type == "volume" and mount.source and mount.source not in self.volumes:
                    raise ValueError(f"services.{name}.volumes: no volume is called {mount.source!r}")
        self.start_order()
        return self

    def start_order(self) -> tuple[tuple[str, ...], ...]:
        """Sort the services into waves: each starts only when what it depends on is in an earlier one.

        Raises:
            ValueError: Services depend on each other in a circle; the message names them.
        """
        waiting = {
            name: {other for other in service.depends_on if other in self.services} for name, service in self.services.items()
        }
        waves: list[tuple[str, ...]] = []
        while waiting:
            ready = tuple(name for name, needs in waiting.items() if not needs & waiting.keys())
            if not ready:
                raise ValueError(f"services.depends_on: these depend on each other in a circle: {', '.join(sorted(waiting))}")
            waves.append(ready)
            for name in ready:
                del waiting[name]
        return tuple(waves)
