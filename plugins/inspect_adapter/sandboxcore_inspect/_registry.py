"""What Inspect loads to find the provider."""

from __future__ import annotations

from inspect_ai.util import sandboxenv

from ._environment import SandboxcoreEnvironment

sandboxenv(name="sandboxcore")(SandboxcoreEnvironment)
