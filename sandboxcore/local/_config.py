"""What can be set: for the backend, and for one service under ``options.local``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

__all__ = ("EnvironmentOptions", "LocalConfig", "ServiceOptions")


class LocalConfig(BaseModel):
    """Configuration of the local backend."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    #: Image or service name to the file tree to use for it: a directory, a ``docker save`` archive, or an OCI archive or layout.
    rootfs: dict[str, Path] = Field(default_factory=dict)
    #: Whether services without a rootfs run on the host's own programs; if not, they are refused.
    host_userland: bool = True
    #: Further paths of the host that services on its userland see, read-only.
    host_paths: tuple[Path, ...] = ()
    #: Further users to make in the host's userland, beside root, the host's system users and ``agent``.
    users: tuple[Annotated[str, Field(pattern=r"^[a-z_][a-z0-9_-]{0,30}$")], ...] = ()
    #: Where environments and unpacked images are kept; None: ``$SANDBOXCORE_STATE_DIR``, else ``~/.local/state/sandboxcore``.
    state_dir: Path | None = None
    #: How many services are started at the same moment; further ones wait.
    starts_at_once: Annotated[int, Field(ge=1)] = 8


class EnvironmentOptions(BaseModel):
    """What an environment may say under ``options.local``: nothing yet."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ServiceOptions(BaseModel):
    """What a service may say under ``options.local``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    #: As ``LocalConfig.rootfs``, for this service.
    rootfs: Path | None = None
