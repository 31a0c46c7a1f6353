"""What can be set: for the backend, and for one service under ``options.docker``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr

__all__ = ("DockerConfig", "EnvironmentOptions", "ServiceOptions")


class DockerConfig(BaseModel):
    """Configuration of the docker backend."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    #: Where the engine is: ``unix:///run/docker.sock``, ``tcp://host:2376``. None: the context, as the docker command has it.
    host: str | None = None
    #: Name of a docker context. None: ``$DOCKER_HOST``, ``$DOCKER_CONTEXT``, the current context, this machine's socket.
    context: str | None = None
    #: Folder with ``ca.pem``, ``cert.pem`` and ``key.pem``; None: ``$DOCKER_CERT_PATH`` where ``$DOCKER_TLS_VERIFY`` is set.
    cert_path: Path | None = None
    #: Image of services that name none and are not built.
    default_image: str | None = None
    #: Image to a file made by ``docker save``, which the engine loads where it does not have the image.
    archives: dict[str, Path] = Field(default_factory=dict)
    #: When images are pulled, where the service does not say.
    pull_policy: Literal["always", "missing", "never"] = "missing"
    #: ``spec``: services that ask for the internet have it. ``never``: they are refused.
    internet: Literal["spec", "never"] = "spec"
    #: Which paths of this machine services may mount.
    binds: Literal["allow", "read_only", "never"] = "allow"
    #: Addresses that networks are cut from, so that many environments do not use up the engine's own pool of some thirty.
    address_pool: str = "198.18.0.0/15"
    #: How many containers are started or removed at the same moment; further ones wait.
    at_once: Annotated[int, Field(ge=1)] = 8
    #: How many environments ``provision_many`` keeps in the making, where its caller does not say.
    max_in_flight: Annotated[int, Field(ge=1)] = 16

    #: Builds that are going on, by tag, so that equal ones wait for each other.
    _builds: dict[str, Any] = PrivateAttr(default_factory=dict)


class EnvironmentOptions(BaseModel):
    """What an environment may say under ``options.docker``: nothing yet."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ServiceOptions(BaseModel):
    """What a service may say under ``options.docker``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    #: As ``DockerConfig.archives``, for the image of this service.
    archive: Path | None = None
    #: Devices of the engine's machine, as ``docker run --device`` takes them: ``/dev/fuse`` or ``/dev/sda:/dev/xvda:r``.
    devices: tuple[str, ...] = ()
