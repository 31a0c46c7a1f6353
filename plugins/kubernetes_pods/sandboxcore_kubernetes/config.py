"""How a cluster is reached; the backends' configuration models begin with this one."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = ("ClusterConfig",)


class ClusterConfig(BaseModel):
    """Which cluster to use, as whom, and how patiently.

    Without anything said it is what ``kubectl`` would use: ``$KUBECONFIG`` or ``~/.kube/config``, its current context and
    that context's namespace; in a pod without a kubeconfig, the pod's service account.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    #: Kubeconfig file, or several with ``:`` between them; None: ``$KUBECONFIG``, else ``~/.kube/config``.
    kubeconfig: str | None = None
    #: Context of the kubeconfig; None: its current one.
    context: str | None = None
    #: Namespace for everything that is made; None: the context's, else the service account's, else ``default``.
    namespace: str | None = None
    #: Whether to use the service account of the pod that this runs in; None: where there is no kubeconfig.
    in_cluster: bool | None = None
    #: User to act as, and groups with it (the API server must allow ``impersonate``).
    impersonate_user: str | None = None
    impersonate_groups: tuple[str, ...] = ()
    #: URL of an HTTP proxy; None: the kubeconfig's ``proxy-url``, else ``$HTTPS_PROXY`` and ``$NO_PROXY``.
    proxy: str | None = None
    #: Seconds that one request may take.
    request_timeout: Annotated[float, Field(gt=0)] = 30.0
    #: Seconds that requests are tried again while the API server can't be reached or sends them away (429, 503).
    patience: Annotated[float, Field(ge=0)] = 30.0
    #: How many requests are in flight at once; watches and streams are not counted.
    requests_at_once: Annotated[int, Field(ge=1)] = 32
    #: How many streams into pods of one node are in the making at once; the runtime stalls on more.
    openings_at_once: Annotated[int, Field(ge=1)] = 8
    #: Version of the exec protocol; ``v4`` is the faster one, ``v5`` for servers that have no other.
    exec_protocol: Literal["v4", "v5"] = "v4"
