"""Recognises by its first bytes which protocol a peer uses instead of DICOM."""

from __future__ import annotations

import re

FIRST = 32
"""Number of first bytes of a peer that are kept for this."""

# Protocols that are found on such ports or connections, and how each begins.
_PROTOCOLS = {
    "HTTP": rb"(GET|HEAD|POST|PUT|DELETE|OPTIONS|CONNECT|PATCH|TRACE|PRI) |HTTP/\d",
    "SSH": rb"SSH-",
    "TLS": rb"[\x14-\x17]\x03[\x00-\x04]",
    "HL7 (MLLP)": rb"\x0b|MSH\|",
    "the PROXY protocol": rb"PROXY |\r\n\r\n\x00\r\nQUIT\n",
    "SMB": rb"\x00...[\xfe\xff]SMB",
    "SMTP or FTP": rb"220[ -]",
}
_BEGINNINGS = {name: re.compile(start, re.DOTALL) for name, start in _PROTOCOLS.items()}


def protocol_of(first: bytes) -> str | None:
    """Return the name of the protocol that begins with these bytes; None if it is not known."""
    for name, beginning in _BEGINNINGS.items():
        if beginning.match(first):
            return name
    return None
