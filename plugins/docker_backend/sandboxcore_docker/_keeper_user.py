"""As whom the guest's keeper runs in a container whose service is not root's."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sandboxcore.spec import ServiceSpec

    from ._container import ImageFacts

__all__ = ("is_root", "keeper_user")

_ROOT = ("", "root", "0")
_NEEDED = ("SETUID", "SETGID", "KILL")


def is_root(user: str) -> bool:
    """Tell whether a user, as images and services name it, is root."""
    return user.partition(":")[0] in _ROOT


def keeper_user(service: ServiceSpec, image: ImageFacts) -> tuple[str, str]:
    """Return the service's user where the keeper is to be root's and has to become that user for each command, and its HOME.

    Root's keeper can run commands as any user, and the service's own processes can't reach it. Two empty strings where the
    keeper runs as the service does: the service is root's, root could not change its user there, or further groups were given,
    which only the engine can give.
    """
    user = image.user if service.user is None else service.user
    if is_root(user) or service.groups or not _may_change_users(service):
        return "", ""
    return user, {**image.env, **service.env}.get("HOME", "")


def _may_change_users(service: ServiceSpec) -> bool:
    if service.privileged:
        return True
    added, dropped = ({name.upper().removeprefix("CAP_") for name in names} for names in (service.cap_add, service.cap_drop))
    return all(name in added or "ALL" in added or not dropped & {name, "ALL"} for name in _NEEDED)
