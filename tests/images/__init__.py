"""Make the images that tests use, on this machine and without a registry.

``archive(name)`` gives a file that both ``docker load`` and ``ctr images import`` take; ``python -m tests.images [NAME...]``
prints where the files are. They are kept in ``~/.cache/sandboxcore-test-images`` (or ``$SANDBOXCORE_TEST_CACHE``).

==================  ============================================================================================
``busybox``         root; ``/bin/sh`` and the usual small programs, nothing else
``debian``          root; Debian with bash, Python, GNU tools, procps, adduser; user ``agent`` (1000)
``nonroot``         the same, run as user 1000
``binary``          one static program that sleeps (``/app``), no shell, no other file
``pause``           what holds a pod's namespaces: waits and reaps
==================  ============================================================================================
"""

from __future__ import annotations

from tests.images._packages import ImageError
from tests.images._recipes import RECIPES, archive, reference

__all__ = ("NAMES", "ImageError", "archive", "reference")

#: The images that there are.
NAMES = tuple(RECIPES)
