"""What a spec may say under ``options.kubernetes``, for a service or for the whole environment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from sandboxcore.errors import SpecError

if TYPE_CHECKING:
    from sandboxcore.spec import EnvironmentSpec

__all__ = ("PodOptions", "pod_options")


class PodOptions(BaseModel):
    """Words of Kubernetes for which a neutral spec has none; those of a service go over those of its environment."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    node_selector: dict[str, str] = Field(default_factory=dict)
    tolerations: tuple[dict[str, Any], ...] = ()
    affinity: dict[str, Any] | None = None
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)
    image_pull_secrets: tuple[str, ...] = ()
    service_account: str | None = None
    #: Nothing here makes accounts; the report says so.
    service_account_create: bool = False
    automount_service_account_token: bool = False
    priority_class: str | None = None
    scheduler: str | None = None


def pod_options(spec: EnvironmentSpec, service: str) -> PodOptions:
    """Read a service's options.

    Raises:
        SpecError: An unknown key or a value of the wrong type; the message has those that there are.
    """
    common = spec.options.get("kubernetes", {})
    own = spec.services[service].options.get("kubernetes", {})
    try:
        PodOptions.model_validate(common)
        options = PodOptions.model_validate(own)
        merged = {**common, **own}
        for key in ("node_selector", "labels", "annotations"):
            merged[key] = {**common.get(key, {}), **getattr(options, key)}
        return PodOptions.model_validate(merged)
    except ValidationError as error:
        problems = [
            f"services.{service}.options.kubernetes.{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()
        ]
        raise SpecError(problems=problems, hint=f"there are {', '.join(PodOptions.model_fields)}") from None
