"""What can be set: for the backend, for an environment, and for one service under ``options.opensandbox``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator
from sandboxcore_kubernetes.config import ClusterConfig

if TYPE_CHECKING:
    from sandboxcore.spec import EnvironmentSpec, ServiceSpec

__all__ = ("EnvironmentOptions", "OpenSandboxConfig", "ServiceOptions", "capabilities_under", "pod_words", "task_timeout")

_EVERYWHERE = frozenset({"stdin", "pty", "user", "files"})
_ON_PODS = _EVERYWHERE | {"multi_service", "siblings", "batch", "ports"}
_TEMPLATE = _ON_PODS | {"internet", "network_policy", "volumes", "resources", "healthcheck", "images", "logs"}
_POOLED = _ON_PODS | {"pool"}
_SERVER = _EVERYWHERE | {"images", "resources", "pool"}
#: Every word that is true in some mode.
ALL_CAPABILITIES = _TEMPLATE | _POOLED | _SERVER

Seconds = Annotated[float, Field(gt=0)]


class OpenSandboxConfig(ClusterConfig):
    """Configuration of the OpenSandbox backend: how the cluster is reached, and what is made there."""

    #: ``crd``: BatchSandbox objects, made by us. ``server``: through opensandbox-server.
    mode: Literal["crd", "server"] = "crd"
    #: Pool that all services come from; None: they are made from their images.
    pool: str | None = None
    #: Service to the pool that it comes from, over ``pool``.
    pools: dict[str, str] = Field(default_factory=dict)
    #: Seconds to wait for a full pool before its holders are named and the attempt is given up. One that still makes pods is
    #: waited for until the environment's own time limit.
    pool_wait: Annotated[float, Field(ge=0)] = 60.0
    #: Seconds past the end of a lease at which the controller itself deletes an environment that nobody cleaned up.
    expire_grace: Annotated[float, Field(ge=0)] = 30.0
    #: Take a finalizer away that nobody will ever take away (of a pool that is gone), where an environment is destroyed.
    strip_finalizers: bool = False
    #: Whether the cluster has Cilium, so that domains can be allowed.
    cilium: bool = False
    #: Address ranges of the cluster that ``network_policy.internet`` does not open, besides the private ones.
    cluster_ranges: tuple[str, ...] = ()
    #: For volumes that several services share; None: the cluster's default.
    storage_class: str | None = None
    #: Strategic merge patch on every pod that is made from an image (``{"spec": {"nodeSelector": ...}}``).
    pod_patch: dict[str, Any] = Field(default_factory=dict)

    # -- mode ``server``

    #: Host (and port) of opensandbox-server; None: ``$OPEN_SANDBOX_DOMAIN``, else ``localhost:8080``.
    domain: str | None = None
    protocol: Literal["http", "https"] = "http"
    #: None: ``$OPEN_SANDBOX_API_KEY``.
    api_key: SecretStr | None = None
    #: ``direct``: ``domain`` is reached as it stands (in the cluster by its name, by NodePort, LoadBalancer or Ingress).
    #: ``port-forward``: through the API server, to the Service ``server_service``.
    access: Literal["direct", "port-forward"] = "direct"
    #: ``namespace/name:port`` of the server's Service, for ``port-forward``.
    server_service: Annotated[str, Field(pattern=r"^[a-z0-9-]+/[a-z0-9-]+:\d+$")] = "opensandbox-system/opensandbox-server:80"
    #: Reach sandboxes through the server instead of at their own addresses; ``port-forward`` implies it.
    use_server_proxy: bool = False
    #: File with certificates to trust besides the system's, for ``https``.
    ca_file: str | None = None
    #: Headers on every request to the server.
    headers: dict[str, str] = Field(default_factory=dict, repr=False)
    #: Seconds that the server may take to create a sandbox.
    create_timeout: Seconds = 120.0

    @model_validator(mode="after")
    def _of_one_mode(self) -> OpenSandboxConfig:
        if self.mode == "server" and self.pools:
            raise ValueError("pools: the server makes environments of one service; use pool")
        return self

    def pool_of(self, service: str) -> str:
        """Name the pool that a service comes from as far as the configuration says; empty: from none."""
        return self.pools.get(service, self.pool or "")


def capabilities_under(config: OpenSandboxConfig) -> frozenset[str]:
    """Tell what can be done in the configured mode."""
    if config.mode == "server":
        return _SERVER - ({"pool"} if config.pool is None else {"images"})
    if config.pool is not None:
        return _POOLED
    # The word is for all that a policy can allow, and names need Cilium.
    return _TEMPLATE - (set() if config.cilium else {"network_policy"}) | ({"pool"} if config.pools else set())


class EnvironmentOptions(BaseModel):
    """What an environment may say under ``options.opensandbox``."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    #: As ``OpenSandboxConfig.pool``, for this environment; empty: none, whatever is configured.
    pool: str | None = Field(default=None, alias="poolRef")


class ServiceOptions(BaseModel):
    """What a service may say under ``options.opensandbox``."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    #: As ``EnvironmentOptions.pool``, for this service.
    pool: str | None = Field(default=None, alias="poolRef")
    #: For a service from a pool: run its command as a task; None: where it has one.
    task: bool | None = None
    #: Seconds that the task may take; None: as long as it likes.
    task_timeout: Seconds | None = None


def task_timeout(service: ServiceSpec) -> float | None:
    """Tell how many seconds a service's task may take; None: as long as it likes."""
    return ServiceOptions.model_validate(service.options.get("opensandbox", {})).task_timeout


def pod_words(spec: EnvironmentSpec, service: str) -> tuple[str, ...]:
    """Name what is said of a service's pod under ``options.kubernetes``, for it or for the whole environment.

    Raises:
        SpecError: An unknown key, or a wrong value.
    """
    from sandboxcore_kubernetes.objects import pod_options

    return tuple(pod_options(spec, service).model_dump(exclude_defaults=True))
