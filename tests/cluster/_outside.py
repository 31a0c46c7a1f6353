"""Addresses of this machine that for pods are outside of the cluster, as the internet's are."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from ._api import own
from ._layout import ClusterError


def outside() -> str:
    """Return an address of this machine that for pods is neither pod, service nor node, as the internet's are."""
    layout = own()
    if layout is None:
        raise ClusterError("only our own cluster knows an address outside that is this machine's")
    return layout.outside


def outside_names() -> dict[str, str]:
    """Return names that pods can look up, with the addresses of this machine that they mean, which are outside as well.

    They are ``allowed.outside.test``, ``denied.outside.test`` and ``www.allowed.outside.test``. Each has an address of its
    own, since Cilium opens what any pod of a node was answered to all those that may reach the name.
    """
    layout = own()
    if layout is None:
        raise ClusterError("only our own cluster knows names outside that are this machine's")
    return layout.outside_names


@contextmanager
def answering(address: str, port: int = 0) -> Iterator[int]:
    """Listen on an address of this machine and hang up on everybody; gives the port."""
    with socket.create_server((address, port)) as listening:
        threading.Thread(target=_answer, args=(listening,), daemon=True).start()
        yield int(listening.getsockname()[1])
        listening.shutdown(socket.SHUT_RDWR)


def _answer(listening: socket.socket) -> None:
    """Close what connects, until the listener is gone."""
    try:
        while True:
            listening.accept()[0].close()
    except OSError:
        return
