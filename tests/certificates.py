"""Certificates for servers of the tests on this machine."""

from __future__ import annotations

import subprocess
from pathlib import Path

__all__ = ("self_signed",)


def self_signed(folder: Path, name: str, *, host: str = "IP:127.0.0.1") -> tuple[Path, Path]:
    """Make a certificate that is its own authority: its file and the key's, ``NAME.pem`` and ``NAME.key`` in the folder."""
    certificate, key = folder / f"{name}.pem", folder / f"{name}.key"
    argv = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={name}"]
    argv += ["-addext", f"subjectAltName={host}", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(argv, check=True, capture_output=True)
    return certificate, key
