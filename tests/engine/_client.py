"""Talk to an engine: does it answer, and what is in it."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import docker


class EngineError(Exception):
    """There is no engine, and none can be started; the message is one line for people."""


@contextmanager
def connected(host: str, timeout: int = 300) -> Iterator[docker.DockerClient]:
    """Give a client of an engine."""
    import docker

    client = docker.DockerClient(base_url=host, timeout=timeout)
    try:
        yield client
    finally:
        client.close()


def problem_of(host: str) -> str:
    """Tell why an engine does not answer, in one line, or nothing."""
    import docker

    try:
        _knock(host)
        with connected(host, timeout=20) as client:
            client.ping()
    except (docker.errors.DockerException, OSError) as error:
        return str(error).splitlines()[0]
    return ""


def _knock(host: str) -> None:
    """See whether anybody listens: the docker package leaves a socket unclosed each time that nobody does."""
    scheme, _, path = host.partition("://")
    if scheme == "unix":
        with socket.socket(socket.AF_UNIX) as knocking:
            knocking.settimeout(20)
            knocking.connect(path)


def sweep(host: str) -> None:
    """Remove all containers, networks and volumes of an engine that is ours alone."""
    import docker

    with connected(host) as client:
        for container in client.containers.list(all=True, ignore_removed=True):
            try:
                container.remove(force=True, v=True)
            except docker.errors.NotFound:
                continue
        client.networks.prune()
        for volume in client.volumes.list():
            volume.remove(force=True)
