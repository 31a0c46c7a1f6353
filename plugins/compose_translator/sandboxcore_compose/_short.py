"""The short forms of Compose: ports, volumes and devices written as one string."""

from __future__ import annotations

import ipaddress
import re
from typing import Any

__all__ = ("ShortFormError", "parse_device", "parse_ports", "parse_volume")


class ShortFormError(ValueError):
    """The text is not of the short form."""


_PROPAGATIONS = frozenset(("rprivate", "private", "rshared", "shared", "rslave", "slave"))


def parse_volume(text: str) -> dict[str, Any]:
    """Read ``[source:]target[:options]``.

    A source that begins with ``.``, ``/`` or ``~`` is a path, and so is a single letter before a colon: a Windows drive.

    Raises:
        ShortFormError: A part is empty, or there are too many.
    """
    if not text:
        raise ShortFormError("an empty volume")
    if len(text) <= 2:
        return {"type": "volume", "target": text}
    volume: dict[str, Any] = {}
    parts = _volume_parts(text)
    if len(parts) > 3:
        raise ShortFormError(f"{text!r} has too many colons for a volume")
    if not all(parts):
        raise ShortFormError(f"{text!r} has nothing between two colons")
    if len(parts) == 1:
        volume["target"] = parts[0]
    else:
        volume["source"], volume["target"] = parts[:2]
    options = parts[2].split(",") if len(parts) == 3 else []
    _apply_volume_options(volume, options)
    if _is_path(volume.get("source", "")):
        volume["type"] = "bind"
        volume.setdefault("bind", {})["create_host_path"] = True
    else:
        volume["type"] = "volume"
        volume.setdefault("volume", {})
    return volume


def _volume_parts(text: str) -> list[str]:
    parts, begin, depth = [], 0, 0
    for index, character in enumerate(text):
        if text.startswith("${", index):
            depth += 1
        elif character == "}" and depth:
            depth -= 1
        elif character == ":" and not depth and not (index - begin == 1 and text[begin].isalpha()):
            parts.append(text[begin:index])
            begin = index + 1
    return [*parts, text[begin:]]


def _apply_volume_options(volume: dict[str, Any], options: list[str]) -> None:
    for option in options:
        if option in ("ro", "rw"):
            volume["read_only"] = option == "ro"
        elif option == "nocopy":
            volume["volume"] = {"nocopy": True}
        elif option in _PROPAGATIONS:
            volume.setdefault("bind", {})["propagation"] = option
        elif option in ("z", "Z"):
            volume.setdefault("bind", {})["selinux"] = option


def _is_path(source: str) -> bool:
    drive = source[1:2] == ":" and source[0].isalpha()
    return source.startswith((".", "/", "~", "\\\\")) or drive


def parse_device(text: str) -> dict[str, Any]:
    """Read ``source[:target[:permissions]]``.

    Raises:
        ShortFormError: There are too many colons.
    """
    parts = text.split(":")
    if len(parts) > 3:
        raise ShortFormError(f"{text!r} has too many colons for a device")
    source = parts[0]
    return {
        "source": source,
        "target": parts[1] if len(parts) > 1 else source,
        "permissions": parts[2] if len(parts) > 2 else "rwm",
    }


_PORT = re.compile(r"[0-9]+(-[0-9]+)?\Z")


def parse_ports(text: str) -> list[dict[str, Any]]:
    """Read ``[[address:]published:]target[/protocol]``, with ranges, one entry for each port.

    Raises:
        ShortFormError: It is none of these, or the ranges differ in length.
    """
    body, slash, protocol = text.partition("/")
    protocol = protocol.lower() if slash and protocol else "tcp"
    if protocol not in ("tcp", "udp", "sctp"):
        raise ShortFormError(f"{text!r} has an unknown protocol; there are tcp, udp and sctp")
    address, published, target = _split_port(body)
    if not target:
        raise ShortFormError(f"{text!r} names no port of the service")
    if address:
        try:
            if ipaddress.ip_address(address.strip("[]")).version == 6 and "%" in address:
                raise ValueError
        except ValueError:
            raise ShortFormError(f"{address!r} in {text!r} is not an IP address") from None
    first, last = _range(target, text)
    if not first:
        raise ShortFormError(f"{text!r} names no port of the service; ports begin at 1")
    return sorted(_expanded(text, address.strip("[]"), published, (first, last), protocol), key=lambda port: str(port["target"]))


def _expanded(text: str, address: str, published: str, targets: tuple[int, int], protocol: str) -> list[dict[str, Any]]:
    first, last = targets
    if not published:
        return [_port(address, "", number, protocol) for number in range(first, last + 1)]
    begin, end = _range(published, text)
    if end - begin != last - first:
        # One target may be published on the first free port of a range.
        if last != first:
            raise ShortFormError(f"{text!r} has two port ranges of different lengths")
        return [_port(address, f"{begin}-{end}", first, protocol)]
    return [_port(address, str(begin + step), first + step, protocol) for step in range(last - first + 1)]


def _split_port(body: str) -> tuple[str, str, str]:
    head, colon, target = body.rpartition(":")
    if not colon:
        return "", "", body
    address, colon, published = head.rpartition(":")
    if not colon:
        return "", head, target
    return address, published, target


def _range(text: str, whole: str) -> tuple[int, int]:
    if not _PORT.match(text):
        raise ShortFormError(f"{text!r} in {whole!r} is neither a port nor a range of ports")
    first, _, last = text.partition("-")
    begin, end = int(first), int(last or first)
    if end < begin or end > 65535:
        raise ShortFormError(f"{text!r} in {whole!r} is no range of ports between 0 and 65535")
    return begin, end


def _port(address: str, published: str, target: int, protocol: str) -> dict[str, Any]:
    port: dict[str, Any] = {"mode": "ingress", "target": target, "protocol": protocol}
    if address:
        port["host_ip"] = address
    if published:
        port["published"] = published
    return port
