"""The environments of services that come from pools: in a Secret that its BatchSandbox owns.

That of a service whose command runs as a task is in the BatchSandbox, too, for all to see who may read that: the controller hands
a task on as it is written there, and its task-executor hears plain values only.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sandboxcore.errors import SandboxUnavailableError

if TYPE_CHECKING:
    from sandboxcore.abc import Provisioner
    from sandboxcore.spec import EnvironmentSpec

    from ._config import OpenSandboxConfig

__all__ = ("secret_object", "service_environment")


def secret_object(name: str, spec: EnvironmentSpec, services: tuple[str, ...]) -> dict[str, Any] | None:
    """Build the Secret with the environments of these services; None where none has any."""
    content = {service: spec.services[service].env for service in services if spec.services[service].env}
    if not content:
        return None
    text = base64.b64encode(json.dumps(content).encode()).decode()
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "immutable": True, "data": {"env": text}}


async def service_environment(
    config: OpenSandboxConfig, provisioner: Provisioner, namespace: str, name: str, service: str
) -> Mapping[str, str]:
    """Read a service's environment.

    Raises:
        SandboxUnavailableError: The Secret is gone, and with it the environment, or it can't be read; nothing was started.
    """
    from sandboxcore_kubernetes import ApiError

    from ._connection import Connection
    from ._provisioner import CrdProvisioner

    shared = isinstance(provisioner, CrdProvisioner)
    connection = provisioner.connection if isinstance(provisioner, CrdProvisioner) else Connection(config)
    try:
        found = await (await connection.cluster()).get("Secret", name, namespace=namespace)
    except ApiError as error:
        message = f"the environment of service {service!r} can't be read: {error.message}"
        raise SandboxUnavailableError(message, started="no", hint=error.hint) from error
    finally:
        if not shared:
            await connection.aclose()
    content: dict[str, dict[str, str]] = json.loads(base64.b64decode(found["data"]["env"]))
    return content.get(service, {})
