"""What the contract is checked on: each backend with each kind of sandbox that it is made for, and the whole of it on each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from . import places
from .matrix import Variant

#: One variant a backend streams 64 MiB, the others this.
SMALL = ("--stream-bytes", str(8 << 20))
#: For images without a shell; fewer tests fit them.
BARE = ("--no-shell", *SMALL)
FIT_BARE = 45


def _docker(kind: str, *, options: Sequence[str] = SMALL, least: int = 190) -> Variant:
    return Variant(
        name=f"docker-{kind}", tier="docker", backend="docker", spec=f"{kind}.compose.yaml", options=options, least=least
    )


def _helm(kind: str, *, options: Sequence[str] = SMALL, least: int = 190) -> Variant:
    return Variant(
        name=f"helm-{kind}",
        tier="kubernetes",
        backend="helm",
        spec=f"{kind}.compose.yaml",
        config=places.helm,
        options=options,
        least=least,
    )


def _opensandbox(mode: str, image: str, config: Callable[[], Mapping[str, Any]], least: int) -> Variant:
    return Variant(
        name=f"opensandbox-{mode}",
        tier="opensandbox",
        backend="opensandbox",
        spec=f"{image}.compose.yaml",
        config=config,
        options=SMALL,
        least=least,
    )


LOCAL = Variant(
    name="local-binary",
    tier="local",
    backend="local",
    spec="binary.compose.yaml",
    config=places.local_rootfs,
    options=BARE,
    least=FIT_BARE,
)
DOCKER = (
    _docker("busybox", options=()),
    _docker("nonroot"),
    _docker("readonly"),
    _docker("binary", options=BARE, least=FIT_BARE),
)
OPENSANDBOX = (
    _opensandbox("crd", "busybox", places.opensandbox_crd, 180),
    _opensandbox("server", "debian", places.opensandbox_server, 150),
    _opensandbox("pool", "debian", places.opensandbox_pooled, 190),
)
HELM = (
    _helm("busybox", options=()),
    _helm("debian", least=205),
    _helm("nonroot", options=(*SMALL, "--lacks", "user"), least=200),
    _helm("readonly", least=205),
    _helm("binary", options=BARE, least=FIT_BARE),
)
#: The longest first of those that run side by side.
VARIANTS: Sequence[Variant] = (LOCAL, *DOCKER, *OPENSANDBOX, *HELM)
