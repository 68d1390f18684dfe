"""PDUs as a person reads them: one line for each field, with its place."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from . import _lib
from ._lib import Buffer
from .errors import DecodeError
from .pdu import (
    MAX_ASSOCIATE,
    Abort,
    AssociateAccept,
    AssociateReject,
    AssociateRequest,
    error_of,
)

# Where the standard has each PDU type, and each item of an RQ.
_PDU_CLAUSES = {1: "2", 2: "3", 3: "4", 4: "5", 5: "6", 6: "7", 7: "8"}
_ITEM_CLAUSES = {
    0x10: "PS3.8 9.3.2.1",
    0x20: "PS3.8 9.3.2.2",
    0x30: "PS3.8 9.3.2.2.1",
    0x40: "PS3.8 9.3.2.2.2",
    0x50: "PS3.8 9.3.2.3",
    0x51: "PS3.8 D.1",
    0x52: "PS3.7 D.3.3.2",
    0x53: "PS3.7 D.3.3.3",
    0x54: "PS3.7 D.3.3.4",
    0x55: "PS3.7 D.3.3.2",
    0x56: "PS3.7 D.3.3.5",
    0x57: "PS3.7 D.3.3.6",
    0x58: "PS3.7 D.3.3.7",
    0x59: "PS3.7 D.3.3.7",
}
# The same of an AC, where it differs.
_ACCEPT_CLAUSES = {
    0x10: "PS3.8 9.3.3.1",
    0x21: "PS3.8 9.3.3.2",
    0x40: "PS3.8 9.3.3.2.1",
    0x50: "PS3.8 9.3.3.3",
}
_IDENTITIES = (0x58, 0x59)  # in the wrong place they are unknown sub-items, and as secret
_FIRST_SUB_ITEM = {0x20: 8, 0x21: 8, 0x50: 4}


def clause_of(pdu: bytes, offset: int) -> str:
    """Where the standard has what stands at this place of a PDU, which may be a broken one."""
    kind = pdu[0] if pdu else 0
    clauses = _ITEM_CLAUSES | (_ACCEPT_CLAUSES if kind == AssociateAccept.type else {})
    clause = f"PS3.8 9.3.{_PDU_CLAUSES.get(kind, '1')}"
    for item in _items_at(pdu, offset):
        clause = clauses.get(item, clause)
    return clause


def is_secret(pdu: bytes, offset: int) -> bool:
    """Is this place of a PDU inside a user identity?"""
    return any(item in _IDENTITIES for item in _items_at(pdu, offset))


def _items_at(pdu: bytes, offset: int) -> Iterator[int]:
    """The types of the item that this place is in, and of the sub-item."""
    at = 74 if pdu[:1] in (b"\1", b"\2") else len(pdu)
    while at <= offset and at + 4 <= len(pdu):
        item, end = pdu[at], at + 4 + int.from_bytes(pdu[at + 2 : at + 4], "big")
        if offset < end:
            yield item
            end = at + _FIRST_SUB_ITEM.get(item, len(pdu))
        at = end


_PDU_NAMES = {
    1: "A-ASSOCIATE-RQ",
    2: "A-ASSOCIATE-AC",
    3: "A-ASSOCIATE-RJ",
    4: "P-DATA-TF",
    5: "A-RELEASE-RQ",
    6: "A-RELEASE-RP",
    7: "A-ABORT",
}


class Field(NamedTuple):
    """A field of a PDU as a person reads it."""

    offset: int
    depth: int
    name: str
    value: str


class Layout(NamedTuple):
    """A PDU laid out: its name, its size with the header, and its fields in order.

    Where there is a fault, the fields are those before it; there is no name and no size unless the
    whole PDU was there.
    """

    name: str
    size: int
    fields: list[Field]
    fault: DecodeError | None = None


# Rows whose value is text: depth and name.
_TEXTS = {
    _lib.CALLED_AE: (0, "called AE title"),
    _lib.CALLING_AE: (0, "calling AE title"),
    _lib.APPLICATION_CONTEXT: (0, "application context"),
    _lib.ABSTRACT_SYNTAX: (1, "abstract syntax"),
    _lib.TRANSFER_SYNTAX: (1, "transfer syntax"),
    _lib.CLASS_UID: (1, "implementation class UID"),
    _lib.VERSION_NAME: (1, "implementation version name"),
    _lib.EXTENDED: (1, "SOP class extended negotiation"),
    _lib.COMMON_EXTENDED: (1, "SOP class common extended negotiation"),
    _lib.COMMON_SERVICE: (2, "service class"),
    _lib.COMMON_RELATED: (2, "related general SOP class"),
}
# Rows whose value is bytes; those of a user identity are secrets.
_BYTES = {
    _lib.EXTENDED_INFO: (2, "application information", False),
    _lib.USER_IDENTITY: (1, "user identity", True),
    _lib.USER_IDENTITY_SECOND: (2, "user identity, secondary field", True),
    _lib.USER_IDENTITY_RESPONSE: (1, "user identity response", True),
    _lib.UNKNOWN_ITEM: (0, "unknown item", False),
    _lib.UNKNOWN_SUB_ITEM: (1, "unknown sub-item", False),
    _lib.PDV: (0, "PDV", False),
}


def _hex(data: bytes) -> str:
    shown = data[:16].hex(" ") + (" ..." if len(data) > 16 else "")
    return f"{len(data)} bytes {shown}".rstrip()


def _bytes_field(row: _lib.Row, data: bytes) -> Field:
    depth, name, secret = _BYTES[row[2]]
    secret = secret or row[3] in _IDENTITIES
    value = f"{len(data)} bytes, not shown" if secret else _hex(data)
    if row[2] == _lib.PDV:
        kind = "command" if row[5] & 1 else "data"
        value = f"context {row[4]}, {kind}{', last' if row[5] & 2 else ''}, {value}"
    elif row[2] == _lib.USER_IDENTITY:
        value = f"type {row[4]}, response requested {row[5]}, {value}"
    elif row[2] in (_lib.UNKNOWN_ITEM, _lib.UNKNOWN_SUB_ITEM):
        name = f"{name} {row[3]:02X}"
    return Field(row[0], depth, name, value)


def _number_field(row: _lib.Row, data: bytes) -> Field:
    if row[2] == _lib.CONTEXT:
        result = f", result {row[5]}" if row[3] == 0x21 else ""
        return Field(row[0], 0, "presentation context", f"{row[4]}{result}")
    if row[2] == _lib.MAX_LENGTH:
        return Field(row[0], 1, "maximum length", str(int.from_bytes(data, "big")))
    if row[2] == _lib.ASYNC_OPERATIONS:
        counts = int.from_bytes(data[:2], "big"), int.from_bytes(data[2:], "big")
        value = f"invoked {counts[0]}, performed {counts[1]}"
        return Field(row[0], 1, "asynchronous operations", value)
    return Field(row[0], 0, "user information", f"{row[1]} bytes")


def _codes(pdu: _lib.Row) -> list[Field]:
    kind = pdu[3]
    if kind == AssociateReject.type:
        return [Field(7, 0, "codes", str(AssociateReject(*pdu[5:8])))]
    if kind == Abort.type:
        return [Field(8, 0, "source", str(pdu[6])), Field(9, 0, "reason", str(pdu[7]))]
    if kind in (AssociateRequest.type, AssociateAccept.type):
        return [Field(6, 0, "protocol version", f"{pdu[8]:04X}")]
    return []


def lay_out(data: Buffer, start: int = 0, *, strict: bool = False) -> Layout:
    """The first PDU of `data[start:]`, for a person to read; offsets count from its start.

    Text is escaped, so that it can be printed anywhere.
    """
    fault, rows = _lib.decode(data, start, _lib.options(strict, 0, MAX_ASSOCIATE))
    error = error_of(*fault) if fault is not None else None
    if not rows:
        return Layout("", 0, [], error)
    view = memoryview(data).cast("B")[start:]
    fields = _codes(rows[0])
    for row in rows[1:]:
        fields.append(_field(row, bytes(view[row[0] : row[0] + row[1]])))
    return Layout(_PDU_NAMES[rows[0][3]], 6 + rows[0][1], fields, error)


def _field(row: _lib.Row, value: bytes) -> Field:
    if row[2] in _TEXTS:
        depth, name = _TEXTS[row[2]]
        return Field(row[0], depth, name, ascii(value.decode("latin-1")))
    if row[2] == _lib.ROLE:
        roles = f"{value.decode('latin-1')!a}, SCU {row[4]}, SCP {row[5]}"
        return Field(row[0], 1, "role selection", roles)
    if row[2] in _BYTES:
        return _bytes_field(row, value)
    return _number_field(row, value)
