"""Which of the core's errors becomes of what the cluster answers to requests about BatchSandboxes and Pools."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from sandboxcore.errors import CapabilityError, ProvisionError, SandboxError
from sandboxcore_kubernetes import ApiError, sandbox_error

from ._names import GROUP

__all__ = ("NO_CRDS", "OWN_ERRORS", "mapped")

NO_CRDS = "install the controller: sandboxcore opensandbox install (sandboxcore doctor -b opensandbox says what is there)"


def mapped(error: BaseException, doing: str) -> SandboxError:
    """Turn what a request raised into the error that a caller expects.

    Args:
        doing: What was attempted; begins the message.

    Raises:
        BaseException: ``error`` itself, where it is no request's.
    """
    if isinstance(error, ApiError):
        for applies, make in OWN_ERRORS.items():
            if applies(error):
                found = make(error, doing)
                found.__cause__ = error
                return found
    return sandbox_error(error, doing)


def _no_such_kind(error: ApiError) -> bool:
    return error.status == 404 and (GROUP in error.message or "could not find the requested resource" in error.message)


def _too_large(error: ApiError) -> bool:
    return error.status == 413 or (error.status in (400, 422, 500) and "too large" in error.message.lower())


def _quota(error: ApiError) -> bool:
    return error.status == 403 and "exceeded quota" in error.message


def _unknown_kind(error: ApiError, doing: str) -> SandboxError:
    return CapabilityError(f"{doing}: the cluster has no OpenSandbox", hint=NO_CRDS)


def _split_more(error: ApiError, doing: str) -> SandboxError:
    return ProvisionError(f"{doing}: the object is too large for the API server", hint="use fewer or smaller services")


def _no_quota(error: ApiError, doing: str) -> SandboxError:
    return ProvisionError(f"{doing}: {error.message}", hint="raise the namespace's ResourceQuota, or free what is no longer used")


#: What is special here, before the table of all Kubernetes backends. The first row that applies counts.
OWN_ERRORS: Mapping[Callable[[ApiError], bool], Callable[[ApiError, str], SandboxError]] = {
    _no_such_kind: _unknown_kind,
    _quota: _no_quota,
    _too_large: _split_more,
}
