"""How a task says where and how its sandboxes run."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, JsonValue, field_validator, model_validator
from sandboxcore.session import BACKEND_VARIABLE, DEFAULT_BACKEND
from sandboxcore.spec import EnvironmentSpec

__all__ = ("SandboxcoreConfig", "default_backend")

Seconds = Annotated[float, Field(gt=0)]


def default_backend() -> str:
    """Name the backend of tasks that name none."""
    return os.environ.get(BACKEND_VARIABLE) or DEFAULT_BACKEND


class SandboxcoreConfig(BaseModel):
    """The configuration of a task's or a sample's sandbox. It is written to the eval's log, so keep secrets out of it.

    Args:
        backend: Name of the backend; None: ``$SANDBOXCORE_BACKEND``, else ``local``.
        spec: Path of a Compose file, Helm values or a Dockerfile (relative to the folder of the task's file), or an
            ``EnvironmentSpec``, or a mapping with its keys. None: what the backend has by default.
        options: The backend's configuration.
        translator: Options for reading ``spec`` (``{"internet": True}``, say).
        variables: For interpolation in ``spec``, before the sample's metadata and the process environment.
        user: Who commands run as and files are written by; None: the service's own user.
        timeout: Seconds for provisioning one environment.
        lease: Seconds for which environments stay claimed when the eval dies.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    backend: str | None = None
    spec: str | EnvironmentSpec | None = None
    options: dict[str, JsonValue] = Field(default_factory=dict)
    translator: dict[str, JsonValue] = Field(default_factory=dict)
    variables: dict[str, str] = Field(default_factory=dict)
    user: str | None = None
    timeout: Seconds = 600.0
    lease: Seconds = 300.0

    def __hash__(self) -> int:
        return hash(self.model_dump_json())

    @field_validator("spec", mode="before")
    @classmethod
    def _absolute(cls, spec: object) -> object:
        # Samples are made in another folder than that of the task, in which this is evaluated.
        return str(Path(spec).absolute()) if isinstance(spec, (str, Path)) else spec

    @model_validator(mode="after")
    def _serialisable(self) -> SandboxcoreConfig:
        try:
            self.model_dump_json()
        except ValueError:
            raise ValueError("spec: the contents of files must be UTF-8 text, as they are written to the eval's log") from None
        return self

    @property
    def backend_name(self) -> str:
        """Name of the backend that is meant."""
        return self.backend or default_backend()
