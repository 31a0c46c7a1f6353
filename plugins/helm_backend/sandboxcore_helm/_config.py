"""What can be set: for the backend, and for one environment under ``options.helm``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from sandboxcore_kubernetes.config import ClusterConfig

__all__ = ("LABEL_VALUE", "EnvironmentOptions", "HelmConfig", "ServiceOptions")

_LABEL_NAME = r"^([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$"
LABEL_VALUE = r"^([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?$"
LabelName = Annotated[str, Field(pattern=_LABEL_NAME)]
LabelValue = Annotated[str, Field(pattern=LABEL_VALUE)]
#: Labels that Helm keeps for itself on its records.
RESERVED = frozenset(("name", "owner", "status", "version", "createdAt", "modifiedAt"))


class HelmConfig(ClusterConfig):
    """Configuration of the Helm backend, beside how the cluster is reached."""

    #: Chart for every environment that names none: a folder, a ``.tgz``, ``oci://...``, ``repo/chart`` or a URL. None: the
    #: built-in one.
    chart: str | None = None
    #: Version of a chart that is downloaded; None: the newest.
    chart_version: str | None = None
    #: URL of the chart repository that ``chart`` is a name in.
    chart_repo: str | None = None
    #: Values under those of each environment: a file, or the values themselves.
    values: Path | dict[str, Any] | None = None
    #: ``auto`` renders a chart once where that is proven safe, and else runs helm for each release; ``render-once`` refuses
    #: instead of running helm; ``helm`` always runs it.
    engine: Literal["auto", "render-once", "helm"] = "auto"
    #: The helm program: a name on the PATH, or a path.
    helm: str = "helm"
    #: Make the namespace where it is missing. It is not removed.
    create_namespace: bool = False
    #: Put on Helm's records, and given to charts as ``labels``.
    labels: dict[LabelName, LabelValue] = Field(default_factory=dict)
    #: Given to charts as ``annotations``.
    annotations: dict[str, str] = Field(default_factory=dict)
    #: How the guest gets into pods of the built-in chart: mounted, which works in any image, or carried in through ``sh``.
    guest: Literal["mount", "carry"] = "mount"
    #: How many releases are created at the same moment; a place is free again when the API server has the objects.
    creations_at_once: Annotated[int, Field(ge=1)] = 16
    #: How many helm programs run at the same moment.
    helm_at_once: Annotated[int, Field(ge=1)] = Field(default_factory=lambda: max(2, os.cpu_count() or 2))
    #: Part of the natively created releases that are rendered by helm under their own name as well, and compared.
    audit: Annotated[float, Field(ge=0, le=1)] = 0.01
    #: Wait for Jobs of the chart to complete, as ``helm --wait-for-jobs``.
    wait_for_jobs: bool = False
    #: Seconds that pods of one's own charts get to end if controllers or helm made them; None: as the pods say.
    grace: Annotated[float, Field(ge=0)] | None = 1.0

    @model_validator(mode="after")
    def _helm_can_be_it(self) -> Self:
        if self.in_cluster and self.impersonate_user:
            raise ValueError("helm can't impersonate with a pod's service account: leave in_cluster or impersonate_user out")
        return self

    @field_validator("labels")
    @classmethod
    def _not_reserved(cls, labels: dict[str, str]) -> dict[str, str]:
        for name in labels:
            if name in RESERVED or name.startswith("sandboxcore.dev/"):
                raise ValueError(f"{name!r} is kept for Helm's or sandboxcore's own use")
        return labels


class EnvironmentOptions(BaseModel):
    """What an environment may say under ``options.helm`` of the release that it becomes."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    #: As in the configuration; ``builtin`` where the configuration names another one.
    chart: str | None = None
    version: str | None = None
    repo: str | None = None
    #: A file, or the values themselves.
    values: Path | dict[str, Any] | None = None
    #: Values that are other ones in each environment (a sample's id, metadata): texts in the places where they go.
    per_release: dict[str, Any] = Field(default_factory=dict)
    #: Name of the release; None: one is made.
    release: Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]{0,51}[a-z0-9])?$")] | None = None
    #: What the built-in chart's values are made of besides the services, where ``values`` are not given.
    node_selector: dict[str, str] = Field(default_factory=dict)
    service_account_name: str | None = None
    service_account_create: bool = False
    automount_service_account_token: bool = False


class ServiceOptions(BaseModel):
    """What a service may say under ``options.helm``, for the built-in chart."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    #: Laid over the values that are written for the service.
    values: dict[str, Any] = Field(default_factory=dict)
    #: In place of the environment's.
    node_selector: dict[str, str] = Field(default_factory=dict)
