"""What the contract is checked on: each backend with each kind of sandbox that it is made for, and the whole of it on each."""

from __future__ import annotations

from collections.abc import Sequence

from . import places
from .matrix import Variant

#: One variant a backend streams 64 MiB, the others this.
SMALL = ("--stream-bytes", str(8 << 20))
BARE = ("--no-shell", *SMALL)

DOCKER = (
    Variant(name="docker-busybox", tier="docker", backend="docker", spec="busybox.compose.yaml"),
    Variant(name="docker-nonroot", tier="docker", backend="docker", spec="nonroot.compose.yaml", options=SMALL),
    Variant(name="docker-readonly", tier="docker", backend="docker", spec="readonly.compose.yaml", options=SMALL),
    Variant(name="docker-binary", tier="docker", backend="docker", spec="binary.compose.yaml", options=BARE, least=45),
)
HELM = (
    Variant(name="helm-busybox", tier="kubernetes", backend="helm", spec="busybox.compose.yaml", config=places.helm),
    Variant(
        name="helm-nonroot",
        tier="kubernetes",
        backend="helm",
        spec="nonroot.compose.yaml",
        config=places.helm,
        options=(*SMALL, "--lacks", "user"),
        least=200,
    ),
    Variant(
        name="helm-readonly",
        tier="kubernetes",
        backend="helm",
        spec="readonly.compose.yaml",
        config=places.helm,
        options=SMALL,
        least=205,
    ),
    Variant(
        name="helm-binary",
        tier="kubernetes",
        backend="helm",
        spec="binary.compose.yaml",
        config=places.helm,
        options=BARE,
        least=45,
    ),
)
OPENSANDBOX = (
    Variant(
        name="opensandbox-crd",
        tier="opensandbox",
        backend="opensandbox",
        spec="busybox.compose.yaml",
        config=places.opensandbox_crd,
        options=SMALL,
        least=180,
    ),
    Variant(
        name="opensandbox-pool",
        tier="opensandbox",
        backend="opensandbox",
        spec="debian.compose.yaml",
        config=places.opensandbox_pooled,
        options=SMALL,
        least=190,
    ),
    Variant(
        name="opensandbox-server",
        tier="opensandbox",
        backend="opensandbox",
        spec="debian.compose.yaml",
        config=places.opensandbox_server,
        options=SMALL,
        least=150,
    ),
)
LOCAL = (
    Variant(
        name="local-binary",
        tier="local",
        backend="local",
        spec="binary.compose.yaml",
        config=places.local_rootfs,
        options=BARE,
        least=45,
    ),
)
#: The longest first of those that run side by side.
VARIANTS: Sequence[Variant] = (*LOCAL, *DOCKER, *OPENSANDBOX, *HELM)
