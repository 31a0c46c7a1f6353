"""What goes wrong between this machine, the API server and a pod, and which of the core's errors it becomes."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Callable, Mapping
from typing import Any

from sandboxcore.errors import CapabilityError, ProvisionError, SandboxError, SandboxUnavailableError, UsageError

__all__ = ("ApiError", "UnreachableError", "api_error", "connection_error", "sandbox_error")


class ApiError(SandboxError):
    """The API server refused a request.

    Args:
        message: The server's own, or what kept the request from it.
        status: The HTTP status; 0 where no answer came.
        reason: The server's word for it (``NotFound``, ``AlreadyExists``, ``Forbidden``, ...).
        retry_after: Seconds after which it wants to be asked again, where it said so.
        causes: ``reason``, ``message`` and ``field`` of each cause that it listed.
    """

    def __init__(
        self,
        message: str = "",
        *,
        status: int = 0,
        reason: str = "",
        retry_after: float | None = None,
        causes: tuple[Mapping[str, str], ...] = (),
        hint: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.status = status
        self.reason = reason
        self.retry_after = retry_after
        self.causes = causes


class UnreachableError(ApiError):
    """The API server can't be reached, or the connection to it broke; ``status`` is 0.

    Args:
        sent: Whether the request may have reached the server.
    """

    def __init__(self, message: str = "", *, sent: bool = True, hint: str | None = None) -> None:
        super().__init__(message, reason="Unreachable", hint=hint)
        self.sent = sent


def api_error(status: int, body: bytes, retry_after: str | None = None) -> ApiError:
    """Read an answer of 400 and more; what is no ``Status`` object (a proxy's page, say) is quoted, shortened.

    Source: https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/status/
    """
    try:
        document: Any = json.loads(body)
    except ValueError:
        document = None
    if not isinstance(document, dict) or document.get("kind") != "Status":
        text = " ".join(body[:500].decode(errors="replace").split())
        document = {"message": f"HTTP status {status}: {text}" if text else f"HTTP status {status}"}
    details = document.get("details") or {}
    message = document.get("message") or f"HTTP status {status}"
    seconds = details.get("retryAfterSeconds") or (int(retry_after) if retry_after and retry_after.isdigit() else None)
    return ApiError(
        message,
        status=status,
        reason=document.get("reason") or "",
        retry_after=float(seconds) if seconds else None,
        causes=tuple(details.get("causes") or ()),
        hint=None if status == 403 and " cannot " not in message else _HINTS.get(status),  # a quota is no matter of rights
    )


_HINTS = {
    401: "the API server does not accept the credentials: log in again, or check the context's user",
    403: "`sandboxcore doctor` lists the rights that are missing and prints the Role that gives them",
}


def connection_error(error: BaseException, server: str = "") -> UnreachableError:
    """Say why no answer came: one row for each exception that aiohttp, ssl and asyncio have for it.

    Raises:
        BaseException: ``error`` itself, where it is nothing that this table knows.
    """
    where = f"the API server{' at ' + server if server else ''}"
    for name, (what, sent) in CONNECTION_ERRORS.items():
        if any(cls.__name__ == name for cls in type(error).__mro__):
            detail = str(error).strip() or type(error).__name__
            return UnreachableError(f"{where} {what}: {detail}", sent=sent)
    raise error


#: Exception (by name: aiohttp is not imported for this) to what happened and whether the request may have been sent.
#: The first row that matches counts, so the narrow ones come first.
CONNECTION_ERRORS: Mapping[str, tuple[str, bool]] = {
    "ClientConnectorCertificateError": ("has a certificate that this machine does not trust", False),
    "ClientConnectorDNSError": ("has a name that can't be resolved", False),
    "ClientConnectorSSLError": ("speaks no TLS that this machine understands", False),
    "ClientProxyConnectionError": ("is behind a proxy that can't be reached", False),
    "ClientHttpProxyError": ("is behind a proxy that refuses", False),
    "ClientConnectorError": ("can't be reached", False),
    "ConnectionTimeoutError": ("did not take the connection in time", False),
    "ServerTimeoutError": ("did not answer in time", True),
    "TimeoutError": ("did not answer in time", True),
    "ServerDisconnectedError": ("closed the connection", True),
    "ClientPayloadError": ("ended its answer too early", True),
    "ClientError": ("can't be spoken to", True),
    "SSLError": ("broke off", True),
    "OSError": ("broke off", True),
}


def sandbox_error(error: BaseException, doing: str) -> SandboxError:
    """Turn what a request raised into the error that a caller of the core expects: one table, by status and reason.

    Args:
        doing: What was attempted, as ``"create Pod 'a'"``; begins the message.

    Raises:
        BaseException: ``error`` itself, where it is no ``ApiError`` and no connection's.
    """
    if isinstance(error, SandboxError) and not isinstance(error, ApiError):
        return error
    if not isinstance(error, ApiError):
        error = connection_error(error)
    make = SANDBOX_ERRORS.get(error.reason) or SANDBOX_ERRORS.get(str(error.status), ProvisionError)
    found = make(f"{doing}: {error.message}", hint=error.hint)
    found.__cause__ = error
    return found


def _unavailable(message: str, *, hint: str | None = None) -> SandboxError:
    return SandboxUnavailableError(message, started="no", hint=hint)


#: Reason, else HTTP status, to the core's error; what is not in here is a ``ProvisionError``.
#: Source: https://github.com/kubernetes/apimachinery/blob/master/pkg/apis/meta/v1/types.go, StatusReason.
SANDBOX_ERRORS: Mapping[str, Callable[..., SandboxError]] = {
    "Unreachable": _unavailable,
    "Unauthorized": UsageError,
    "Forbidden": ProvisionError,
    "NotFound": ProvisionError,
    "AlreadyExists": ProvisionError,
    "Conflict": ProvisionError,
    "Gone": ProvisionError,
    "Invalid": ProvisionError,
    "ServerTimeout": _unavailable,
    "StoreReadError": ProvisionError,
    "Timeout": _unavailable,
    "TooManyRequests": _unavailable,
    "BadRequest": ProvisionError,
    "MethodNotAllowed": CapabilityError,
    "NotAcceptable": CapabilityError,
    "RequestEntityTooLarge": ProvisionError,
    "UnsupportedMediaType": CapabilityError,
    "InternalError": ProvisionError,
    "Expired": ProvisionError,
    "ServiceUnavailable": _unavailable,
}

#: Every exception type that may come out of a connection, for ``except``.
NETWORK_ERRORS: tuple[type[BaseException], ...] = (OSError, asyncio.TimeoutError, ssl.SSLError)
