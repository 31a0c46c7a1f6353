"""From what an engine says to what went wrong and how to mend it: the one table."""

from __future__ import annotations

import re
import socket
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sandboxcore.errors import ProvisionError, SandboxUnavailableError

from ._http import HttpError

if TYPE_CHECKING:
    from ._endpoint import Endpoint

__all__ = ("RULES", "Rule", "explain", "first_line", "provision_error", "unreachable")


@dataclass(frozen=True, kw_only=True, slots=True)
class Rule:
    """What engines say, what it means, and what to do. ``text`` may use the groups of ``pattern``; None: the engine's words."""

    name: str
    pattern: re.Pattern[str]
    text: str | None = None
    hint: str | None = None


def _rule(name: str, pattern: str, text: str | None = None, hint: str | None = None) -> Rule:
    return Rule(name=name, pattern=re.compile(pattern, re.IGNORECASE | re.DOTALL), text=text, hint=hint)


#: The first that matches counts. The words are those of Docker Engine 20.10 to 28 and of Podman's service.
RULES: tuple[Rule, ...] = (
    _rule(
        "port-taken",
        r"bind for (?P<address>\S+):(?P<port>\d+) failed: port is already allocated",
        "port {port} of the engine's machine is taken by another container ({address}:{port})",
        "name another host_port, or none and let the engine choose",
    ),
    _rule(
        "port-in-use",
        r"(?:listen|bind)\D*(?P<protocol>tcp|udp)\S* (?P<address>\S+):(?P<port>\d+): bind: address already in use",
        "port {port} of the engine's machine is in use by another program ({address}:{port})",
        "name another host_port, or none and let the engine choose",
    ),
    _rule("port-in-use", r"address already in use", "a port of the engine's machine is in use: {line}"),
    _rule(
        "no-command",
        r"exec(?:: |\s)+\\?\"(?P<program>[^\"\\]+)\\?\": (?:stat \S+: )?(?P<why>executable file not found in \$PATH|"
        r"no such file or directory|permission denied|is a directory)",
        "its command can't be started: {program}: {why}",
        "look at entrypoint and command; a script also needs the program of its first line",
    ),
    _rule(
        "no-command",
        r"(?P<why>exec format error|no such file or directory|permission denied): unknown",
        "its command can't be started: {why}",
        "is the image made for this machine, and is the command in it?",
    ),
    _rule("no-user", r"unable to find (?P<kind>user|group) (?P<who>[^:]+):.*", "the image has no {kind} {who!r}"),
    _rule("no-user", r"(?:user|group) .*not found in /etc|no matching entries in (?P<file>passwd|group) file", "{line}"),
    _rule(
        "no-runtime",
        r"unknown (?:or invalid )?runtime (?:specified|name):? ?(?P<runtime>\S+)",
        "the engine has no runtime {runtime}",
        "`docker info` lists those that it has",
    ),
    _rule(
        "no-gpu",
        r"could not select device driver",
        "the engine has no driver for GPUs",
        "install the NVIDIA container toolkit on the engine's machine",
    ),
    _rule("no-device", r"error gathering device information.*\"(?P<device>/[^\"]*)\"", "the engine's machine has no {device}"),
    _rule("no-bind", r"bind source path does not exist: (?P<path>\S+)", "the engine's machine has no {path}"),
    _rule(
        "no-addresses",
        r"non-overlapping IPv4 address pool|predefined address pools have been fully subnetted",
        "the engine has no addresses left for another network",
        "remove networks (`docker network prune`), or set config address_pool",
    ),
    _rule(
        "address-taken", r"pool overlaps with other one", "the network's addresses are taken: {line}", "set config address_pool"
    ),
    _rule(
        "disk-full",
        r"no space left on device",
        "the disk of the engine's machine is full",
        "`docker system df` tells what takes the room",
    ),
    _rule("resources", r"(?P<what>minimum memory limit allowed is \S+|range of CPUs is from .*? available)", "{what}"),
    _rule("resources", r"(?P<what>(?:invalid|cpu|memory|pids|ulimit|shm)[^.]*limit[^.]*)", "{what}"),
    _rule("security", r"seccomp|apparmor|unknown capability|invalid CapAdd|invalid CapDrop|security-opt", None),
    _rule("sysctl", r"sysctl", None),
    _rule("mount", r"invalid mount|duplicate mount point|mount config|invalid volume", None),
    _rule("platform", r"no matching manifest|does not (?:match|provide) the (?:specified|detected) platform", None),
    _rule(
        "pull-denied",
        r"pull access denied for (?P<repository>[^,]+)",
        "there is no such image, or the registry wants a login",
        "check its name; `docker login` where the registry wants one",
    ),
    _rule("pull-denied", r"unauthorized|authentication required|denied: ", "the registry refused: {line}", "docker login"),
    _rule("no-manifest", r"manifest unknown|manifest for .* not found|not found: manifest", "the registry has no such tag"),
    _rule(
        "no-registry",
        r"lookup (?P<host>\S+?)(?: on \S+)?: (?P<why>no such host|server misbehaving|[^:]*|.*i/o timeout)$",
        "the registry {host!r} can't be found ({why})",
        "check the name; without a way to a registry load the image with `docker load` or config archives",
    ),
    _rule(
        "no-registry",
        r"(?P<why>dial tcp.*|connection refused|i/o timeout|tls: .*|x509: .*|client\.timeout.*|server gave HTTP response.*|EOF)$",
        "the registry can't be reached ({why})",
        "without a way to a registry load the image with `docker load` or config archives",
    ),
    _rule("too-many-pulls", r"toomanyrequests", "the registry lets nobody pull so often", "docker login, or load the image"),
    _rule("bad-name", r"invalid reference format", "that is no legal name of an image"),
    _rule("no-image", r"no such image", "the engine does not have the image", "pull it, or let pull_policy be 'missing'"),
    _rule("unsupported", r"not supported|is not implemented|unsupported", None),
)


def first_line(text: str) -> str:
    """Return the first line that says something."""
    return next((line.strip() for line in text.splitlines() if line.strip()), "it does not say why")


def explain(message: str) -> tuple[str, str | None]:
    """Return a line and a hint, if there is one, for what an engine said."""
    line = first_line(message).removeprefix("Error response from daemon: ")
    for rule in RULES:
        found = rule.pattern.search(message)
        if found is not None:
            groups = {name: (value or "").strip() for name, value in found.groupdict().items()}
            return (rule.text.format(line=line, **groups) if rule.text else line), rule.hint
    return line, None


def provision_error(error: HttpError, *, service: str | None = None, doing: str = "") -> ProvisionError:
    """Say what an engine's refusal means for an environment in the making."""
    text, hint = explain(error.message)
    who = f"service {service!r}: " if service else ""
    return ProvisionError(f"{who}{doing + ': ' if doing else ''}{text}", service=service, hint=hint)


def unreachable(endpoint: Endpoint, error: OSError) -> SandboxUnavailableError:
    """Say why an engine does not answer, which one, and what to do."""
    where = f"{endpoint.url} ({endpoint.source})" if endpoint.source else endpoint.url
    if isinstance(error, PermissionError):
        what, hint = "this user may not use its socket", "sudo usermod -aG docker $USER, then log in again"
    elif isinstance(error, FileNotFoundError):
        what, hint = "there is no such socket", "start Docker (sudo systemctl start docker), or set DOCKER_HOST or config host"
    elif isinstance(error, ConnectionRefusedError):
        what, hint = "nobody listens there", "start Docker (sudo systemctl start docker), or set DOCKER_HOST or config host"
    elif isinstance(error, ssl.SSLError):
        what, hint = f"TLS failed: {error.reason or error}", "check the certificates (config cert_path, $DOCKER_CERT_PATH)"
    elif isinstance(error, socket.gaierror):
        what, hint = "its name can't be resolved", "check DOCKER_HOST or config host"
    elif isinstance(error, TimeoutError):
        what, hint = "it does not answer", "check DOCKER_HOST or config host, and the way there"
    else:
        what, hint = f"the connection broke: {error.strerror or error}", "is the engine still running? docker info"
    return SandboxUnavailableError(f"the Docker engine at {where} can't be reached: {what}", started="no", hint=hint)
