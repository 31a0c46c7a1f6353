"""What mode ``server`` needs: a server that answers, of a version that the SDK fits, with a key that it takes."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from sandboxcore.errors import SandboxError
from sandboxcore.values import DoctorFinding

from ._server_errors import server_error

if TYPE_CHECKING:
    from ._server_connection import ServerConnection
    from ._server_provisioner import ServerProvisioner

__all__ = ("diagnose_server", "fits")


async def diagnose_server(connection: ServerConnection, provisioner: ServerProvisioner) -> list[DoctorFinding]:
    """Check one after the other; what can't be reached makes the rest needless."""
    try:
        sdk = version("opensandbox")
    except PackageNotFoundError:
        return [DoctorFinding(check="SDK", status="error", detail="is not installed", fix="pip install opensandbox")]
    found = [DoctorFinding(check="SDK", status="ok", detail=f"opensandbox {sdk}")]
    try:
        await connection.get("/health")
    except Exception as error:
        told = _told(error, "reach the server")
        return [*found, DoctorFinding(check="server", status="error", detail=told.message, fix=told.hint or "start it")]
    found.append(DoctorFinding(check="server", status="ok", detail=f"answers at {connection.domain}"))
    found.append(await _version(connection, sdk))
    try:
        await provisioner.find({"sandboxcore.dev/run-id": "doctor"})
    except SandboxError as error:
        found.append(DoctorFinding(check="API key", status="error", detail=error.message, fix=error.hint or "set api_key"))
    else:
        found.append(DoctorFinding(check="API key", status="ok", detail="is taken"))
    return found


async def _version(connection: ServerConnection, sdk: str) -> DoctorFinding:
    try:
        said = str((await connection.get("/version")).get("version", ""))
    except Exception:
        detail = "does not say its version: it is older than 1.0"
        return DoctorFinding(check="version", status="warning", detail=detail, fix="update opensandbox-server to 1.1.1 or newer")
    if fits(said, sdk):
        return DoctorFinding(check="version", status="ok", detail=f"server {said}, SDK {sdk}")
    fix = f"pip install opensandbox=={said}, or update the server"
    return DoctorFinding(check="version", status="warning", detail=f"server {said} and SDK {sdk} differ", fix=fix)


def fits(server: str, sdk: str) -> bool:
    """Tell whether a server and an SDK are of the same minor version."""
    return server.split(".")[:2] == sdk.split(".")[:2]


def _told(error: Exception, doing: str) -> SandboxError:
    try:
        return server_error(error, doing)
    except Exception as unknown:
        return SandboxError(f"{doing}: {type(unknown).__name__}: {unknown}")
