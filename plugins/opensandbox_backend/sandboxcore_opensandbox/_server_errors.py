"""Which of the core's errors becomes of what the SDK raises: one table, by its exceptions, statuses and codes.

The SDK puts the server's own code into the message where the answer has none of the forms that it knows, so codes are looked
for there too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sandboxcore.errors import (
    CapabilityError,
    ProvisionError,
    ProvisionTimeoutError,
    SandboxError,
    SandboxUnavailableError,
    UsageError,
)

__all__ = ("BY_CLASS", "BY_CODE", "BY_STATUS", "is_lost", "is_missing", "retry_after", "server_error", "was_sent")

Make = Callable[[str, "str | None"], SandboxError]


def _usage(message: str, hint: str | None) -> SandboxError:
    return UsageError(message, hint=hint)


def _provision(message: str, hint: str | None) -> SandboxError:
    return ProvisionError(message, hint=hint)


def _timeout(message: str, hint: str | None) -> SandboxError:
    return ProvisionTimeoutError(message, hint=hint)


def _capability(message: str, hint: str | None) -> SandboxError:
    return CapabilityError(message, hint=hint)


def _unavailable(message: str, hint: str | None) -> SandboxError:
    return SandboxUnavailableError(message, started="no", hint=hint)


#: The server's code to the error and what to do. Source: server/opensandbox_server/services/constants.py.
BY_CODE: Mapping[str, tuple[Make, str]] = {
    "POOL_NOT_FOUND": (_usage, "the pool has to be in the server's namespace: sandboxcore opensandbox pool ls -n NAMESPACE"),
    "POOL_CAPACITY_EXHAUSTED": (_provision, "raise the pool's poolMax, or wait until somebody gives a sandbox back"),
    "UNSUPPORTED_POOL_REF": (_capability, "pools need a server whose runtime is Kubernetes"),
    "POD_READY_TIMEOUT": (_timeout, "is there a node with room, and can the image be pulled? kubectl describe the BatchSandbox"),
    "POD_FAILED": (_provision, "look at the pod's events; is the image one that can be pulled?"),
    "TASK_FAILED": (_provision, "the pool's pods need a task-executor and /opt/opensandbox/bootstrap.sh"),
    "QUOTA_EXCEEDED": (_provision, "the tenant's quota is used up"),
    "INVALID_IMAGE": (_usage, "name an image that the cluster can pull"),
    "INVALID_TIMEOUT": (_usage, "a sandbox of the server lives 60 seconds at least"),
    "UNAUTHORIZED": (_usage, "set api_key, or $OPEN_SANDBOX_API_KEY"),
    "MISSING_API_KEY": (_usage, "set api_key, or $OPEN_SANDBOX_API_KEY"),
    "INVALID_API_KEY": (_usage, "set api_key, or $OPEN_SANDBOX_API_KEY"),
}
#: Where no code is known.
BY_STATUS: Mapping[int, tuple[Make, str]] = {
    400: (_usage, "the server does not take the request as it is"),
    401: (_usage, "set api_key, or $OPEN_SANDBOX_API_KEY"),
    403: (_provision, "the server forbids it: is it a quota, or a tenant without the right?"),
    404: (_provision, "it is not there any more, or is no server of OpenSandbox"),
    409: (_provision, "somebody else is at the same sandbox"),
    422: (_usage, "the server does not take the request as it is"),
    429: (_provision, "the server is at its limits; try again later"),
    500: (_provision, "the server's log says more"),
    501: (_capability, "the server's runtime can't do that"),
    502: (_unavailable, "what is between here and the server does not reach it"),
    503: (_unavailable, "the server is not ready"),
    504: (_timeout, "the server's log and the BatchSandbox's events say more"),
}
#: Exceptions of the SDK without a status, by name: the SDK is not imported for this.
BY_CLASS: Mapping[str, tuple[Make, str]] = {
    "SandboxReadyTimeoutException": (
        _timeout,
        "its execd does not answer: is its address reachable from here? use_server_proxy=true goes around",
    ),
    "SandboxUnhealthyException": (_provision, "its execd answers, and says that it is not well"),
    "SandboxTimeoutException": (_timeout, "the server took longer than create_timeout"),
    "SandboxConnectionException": (
        _unavailable,
        "is domain right, and the server up? access=port-forward goes through the cluster",
    ),
    "SandboxRateLimitException": (_provision, "the server is at its limits; try again later"),
    "SandboxApiException": (_provision, "the server's log says more"),
    "SandboxInternalException": (_provision, "the server's log says more"),
    "InvalidArgumentException": (_usage, "the SDK does not take the request as it is"),
    "PoolEmptyException": (_provision, "the client-side pool is empty"),
    "PoolAcquireFailedException": (_provision, "the client-side pool could not give a sandbox"),
    "PoolStateStoreUnavailableException": (_unavailable, "the client-side pool's store can't be reached"),
    "PoolNotRunningException": (_provision, "the client-side pool was not started"),
    "PoolDestroyedException": (_provision, "the client-side pool is gone"),
    "PoolDestroyIncompleteException": (_provision, "the client-side pool left sandboxes behind"),
    "SandboxException": (_provision, "the server's log says more"),
}
#: Statuses of what is between here and the server, which may have got the request.
_BY_THE_WAY = (502, 504)
#: Exceptions of the SDK for an answer that did not come, and of httpx for a request that nobody got.
_BROKEN_OFF = ("SandboxTimeoutException", "SandboxConnectionException", "SandboxInternalException")
_NOT_SENT = ("ConnectError", "ConnectTimeout", "PoolTimeout")
_TLS = ("certificate", "ssl", "tls")


def server_error(error: BaseException, doing: str) -> SandboxError:
    """Turn what the SDK raised into the core's error.

    Args:
        doing: What was attempted; begins the message.

    Raises:
        BaseException: ``error`` itself, where it is not the SDK's and no connection's.
    """
    if isinstance(error, SandboxError):
        return error
    text = _text(error)
    found = _row(error, text)
    if found is None:
        raise error
    make, hint = found
    if any(word in text.lower() for word in _TLS) and make is _unavailable:
        hint = "the server's certificate is not trusted here: set ca_file, or is it http?"
    made = make(f"{doing}: {text}", hint)
    made.__cause__ = error
    return made


def _row(error: BaseException, text: str) -> tuple[Make, str] | None:
    for code, row in BY_CODE.items():
        if code in text:
            return row
    status = getattr(error, "status_code", None)
    if isinstance(status, int) and status in BY_STATUS:
        return BY_STATUS[status]
    for cls in type(error).__mro__:
        if cls.__name__ in BY_CLASS:
            return BY_CLASS[cls.__name__]
    if isinstance(error, OSError) or type(error).__module__.startswith(("httpx", "aiohttp")):
        return BY_CLASS["SandboxConnectionException"]
    return None


def _text(error: BaseException) -> str:
    """Say it in one line, with the server's own words where the SDK has them."""
    detail = getattr(getattr(error, "error", None), "message", None)
    parts = dict.fromkeys(" ".join(str(part).split()) for part in (error, detail) if part)
    return "; ".join(part for part in parts if part)[:500] or type(error).__name__


def is_missing(error: BaseException) -> bool:
    """Tell whether what was asked for is not there (any more)."""
    return getattr(error, "status_code", None) == 404


def was_sent(error: BaseException) -> bool:
    """Tell whether the server may have got the request: not where no connection came about."""
    return not any(type(one).__name__ in _NOT_SENT for one in (error, error.__cause__))


def is_lost(error: BaseException) -> bool:
    """Tell whether the server may go on with what it was asked for, though its answer will not come."""
    if any(code in _text(error) for code in BY_CODE):  # it is the server's answer, whatever its status
        return False
    status = getattr(error, "status_code", None)
    if status is not None:
        return status in _BY_THE_WAY
    return type(error).__name__ in _BROKEN_OFF and was_sent(error)


def retry_after(error: BaseException) -> float | None:
    """Return the seconds after which a server that is at its limits wants to be asked again; None: it does not say."""
    said: Any = getattr(error, "retry_after", None)
    return float(said.total_seconds()) if said is not None else None
