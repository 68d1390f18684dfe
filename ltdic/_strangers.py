"""What does not speak DICOM, known by its first bytes."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass

from ._native import codec

logger = logging.getLogger("ltdic")

# What else is met on ports and in connections, and how it begins.
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
    """The protocol that begins with these bytes, in words; None where it is not known."""
    for name, beginning in _BEGINNINGS.items():
        if beginning.match(first):
            return name
    return None


@dataclass(frozen=True)
class Stranger:
    """A connection to a server that ended without an A-ASSOCIATE-RQ."""

    peer: tuple[str, int]
    """Address and port."""
    protocol: str | None
    """What it speaks instead, as far as its first bytes tell."""
    fault: str | None
    """What is wrong with what it sent, a kind of `DecodeError`; None: it sent too little."""
    offset: int | None
    """Of the field at fault, from the first byte of the PDU."""
    seconds: float
    text: str
    """All that in words."""

    def log(self) -> None:
        """One line at INFO, and this as the record's attribute `stranger`."""
        logger.info("%s port %d: %s", *self.peer, self.text, extra={"stranger": self})


def stranger_of(
    peer: tuple[str, int], status: int, offset: int, first: bytes, seconds: float
) -> Stranger:
    """`status` is a fault of the upper layer, or says how the connection ended."""
    protocol = protocol_of(first)
    is_fault = codec.is_fault(status)
    if protocol is not None:
        what = f"no association: it speaks {protocol}, not DICOM"
    elif is_fault:
        what = "no association: what it sent is no A-ASSOCIATE-RQ"
    elif first:
        what = "no association: it sent no whole A-ASSOCIATE-RQ"
    else:
        what = "no association: it sent nothing"
    fault = codec.name_of(status) if is_fault else None
    why = f" ({fault} at byte {offset}: {codec.text_of(status)})" if is_fault else ""
    where = offset if is_fault else None
    return Stranger(peer, protocol, fault, where, seconds, f"{what}{why}, after {seconds:.3f} s")


def tls_stranger(peer: tuple[str, int], first: bytes, why: str, seconds: float) -> Stranger:
    """One that did not get through the TLS handshake."""
    protocol = protocol_of(first)
    if protocol == "TLS":
        what = "no TLS: the handshake failed"
    elif protocol is not None:
        what = f"no TLS: it speaks {protocol} in plain"
    elif first[:1] == b"\1":
        what = "no TLS: it sent an A-ASSOCIATE-RQ in plain"
    else:
        what = "no TLS: what it sent is no handshake"
    text = f"{what} ({why}), after {seconds:.3f} s"
    return Stranger(peer, protocol, "tls", None, seconds, text)
