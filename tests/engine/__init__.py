"""Find a Docker engine for the tests, or start one.

The user's own is taken where there is one: ``DOCKER_HOST``, else the default socket. Otherwise, as root on Debian, ``dockerd``
is started (installed first, if it is missing) with socket, data and bridge of its own; all test runs of a machine share
it, and it ends with the last of them, however that ends. ``python -m tests.engine`` holds one by hand.

The images of ``tests.images`` stay where they are loaded, so that the next run needn't load them; all else that a test makes
it removes.
"""

from __future__ import annotations

import functools
import os
from pathlib import Path

from tests.engine._client import EngineError, problem_of
from tests.engine._images import load_images
from tests.engine._own import own_engine

__all__ = ("EngineError", "docker_host", "probe")

DEFAULT_SOCKET = Path("/var/run/docker.sock")


@functools.cache
def docker_host() -> str:
    """Return the address of an engine that answers; from then on it is in ``DOCKER_HOST``, for subprocesses too.

    Raises:
        EngineError: There is none and none can be started here; the message is one line.
    """
    host = os.environ.get("DOCKER_HOST", "")
    if host:
        problem = problem_of(host)
        if problem:
            raise EngineError(f"the engine of DOCKER_HOST={host} does not answer: {problem}")
    elif DEFAULT_SOCKET.exists() and not problem_of(f"unix://{DEFAULT_SOCKET}"):
        host = f"unix://{DEFAULT_SOCKET}"
    else:
        host = own_engine()
    os.environ["DOCKER_HOST"] = host
    return host


@functools.cache
def probe() -> str:
    """Make an engine with the test images ready; returns why that can't be, in one line, or nothing."""
    from tests.images import NAMES, ImageError

    try:
        load_images(docker_host(), NAMES)
    except (EngineError, ImageError) as error:
        return str(error)
    return ""
