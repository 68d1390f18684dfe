"""The fields of a PDU for `ltdic dump`, each with offset, name and text."""

from __future__ import annotations

from importlib import import_module
from typing import NamedTuple

from .._arguments import number_of, view_of
from .._codec import MAX_ASSOCIATE, error_of, flags_of
from .._native import codec
from .._native.codec import Buffer
from .._rules import ASSOCIATE, PDU_NAMES, items_at, items_of
from ..errors import DecodeError
from ..pdu import Abort, AssociateReject, is_like_name, is_like_uid


class Field(NamedTuple):
    """A field of a PDU: `text` is for a person to read, `values` are for a program, by name.

    A value that may hold a secret is not shown: `values` has its `size` instead.
    """

    offset: int
    depth: int
    name: str
    text: str
    values: dict[str, object]


class PDUFields(NamedTuple):
    """A PDU field by field: its name, its size with the header, and its fields in order.

    With a fault, `fields` are those before it; `name` is empty and `size` is 0 if the PDU is
    incomplete. `shown` are ranges of its bytes, those that hold no secret.
    """

    name: str
    size: int
    fields: list[Field]
    fault: DecodeError | None
    shown: list[range]


# ---- fields ----------------------------------------------------------------------------------

# Depth and name of the field for each kind of row.
_UIDS = {
    codec.KIND_APPLICATION_CONTEXT: (0, "application context"),
    codec.KIND_ABSTRACT_SYNTAX: (1, "abstract syntax"),
    codec.KIND_TRANSFER_SYNTAX: (1, "transfer syntax"),
    codec.KIND_CLASS_UID: (1, "implementation class UID"),
    codec.KIND_ROLE: (1, "role selection"),
    codec.KIND_EXTENDED: (1, "SOP class extended negotiation"),
    codec.KIND_COMMON_EXTENDED: (1, "SOP class common extended negotiation"),
    codec.KIND_COMMON_SERVICE: (2, "service class"),
    codec.KIND_COMMON_RELATED: (2, "related general SOP class"),
}
_NAMES = {
    codec.KIND_CALLED_AE: (0, "called AE title"),
    codec.KIND_CALLING_AE: (0, "calling AE title"),
    codec.KIND_VERSION_NAME: (1, "implementation version name"),
}
_NUMBERS = {
    codec.KIND_MAX_LENGTH: (1, "maximum length"),
    codec.KIND_ASYNC_OPERATIONS: (1, "asynchronous operations"),
}
# Values of these are never shown: a user identity with a damaged type byte becomes one of them.
_HIDDEN = {
    codec.KIND_USER_INFORMATION: (0, "user information"),
    codec.KIND_EXTENDED_INFO: (2, "application information"),
    codec.KIND_USER_IDENTITY: (1, "user identity"),
    codec.KIND_USER_IDENTITY_SECOND: (2, "user identity, secondary field"),
    codec.KIND_USER_IDENTITY_RESPONSE: (1, "user identity response"),
    codec.KIND_UNKNOWN_ITEM: (0, "unknown item"),
    codec.KIND_UNKNOWN_SUB_ITEM: (1, "unknown sub-item"),
}


def _text_of(value: Buffer) -> str:
    """Return a text without its padding."""
    return bytes(value).strip(b" \0").decode("latin-1")


def _uid_name(uid: str) -> str | None:
    """Return the name of a UID, from pydicom's dictionary of PS3.6, which is imported when first
    needed."""
    if not uid.startswith("1.2.840.10008."):
        return None
    entry = import_module("pydicom.uid").UID_dictionary.get(uid)
    return str(entry[0]) if entry else None


def _uid_field(row: codec.Row, value: bytes) -> Field:
    depth, name = _UIDS[row[2]]
    uid = _text_of(value)
    uid_name = _uid_name(uid)
    values: dict[str, object] = {"value": uid}
    text = f"'{uid}'"
    if not is_like_uid(uid):
        text = f"{len(value)} bytes, not shown"
        values = {"size": len(value)}
    elif uid_name is not None:
        text, values["uid_name"] = f"{text} ({uid_name})", uid_name
    if row[2] == codec.KIND_ROLE:
        text = f"{text}, SCU {row[4]}, SCP {row[5]}"
        values |= {"scu": row[4], "scp": row[5]}
    return Field(row[0], depth, name, text, values)


def _titles_are_in_place(pdu: memoryview) -> bool:
    """Tell whether the bytes at the offsets of the titles are titles.

    If bytes of the PDU are missing, other fields are there. Then other fields are also in the 32
    reserved bytes after the titles, which are sent as zero.
    """
    titles = _text_of(pdu[10:26]), _text_of(pdu[26:42])
    return all(map(is_like_name, titles)) and not any(pdu[42:74])


def _name_field(row: codec.Row, value: bytes, may_be_shown: bool) -> Field:
    depth, name = _NAMES[row[2]]
    text = _text_of(value)
    if may_be_shown and is_like_name(text):
        return Field(row[0], depth, name, repr(text), {"value": text})
    return Field(row[0], depth, name, f"{len(value)} bytes, not shown", {"size": len(value)})


def _number_field(row: codec.Row, value: bytes) -> Field:
    depth, name = _NUMBERS[row[2]]
    if row[2] == codec.KIND_MAX_LENGTH:
        number = int.from_bytes(value, "big")
        return Field(row[0], depth, name, str(number), {"value": number})
    invoked, performed = int.from_bytes(value[:2], "big"), int.from_bytes(value[2:], "big")
    text = f"invoked {invoked}, performed {performed}"
    return Field(row[0], depth, name, text, {"invoked": invoked, "performed": performed})


def _hidden_field(row: codec.Row) -> Field:
    depth, name = _HIDDEN[row[2]]
    text = f"{row[1]} bytes, not shown"
    values: dict[str, object] = {"size": row[1]}
    if row[2] == codec.KIND_USER_INFORMATION:
        text = f"{row[1]} bytes"
    elif row[2] == codec.KIND_USER_IDENTITY:
        text = f"type {row[4]}, response requested {row[5]}, {text}"
        values |= {"type": row[4], "response_requested": row[5]}
    elif row[2] in (codec.KIND_UNKNOWN_ITEM, codec.KIND_UNKNOWN_SUB_ITEM):
        name = f"{name} {row[3]:02X}"
        values["type"] = row[3]
    return Field(row[0], depth, name, text, values)


def _pdv_field(row: codec.Row, value: bytes, may_be_shown: bool) -> Field:
    is_command, is_last = flags_of(row[5])
    values: dict[str, object] = {"context": row[4], "command": is_command, "last": is_last}
    values["size"] = row[1]
    shown = "not shown"
    if may_be_shown:
        values["first_bytes"] = value[:16].hex()
        shown = value[:16].hex(" ") + (" ..." if len(value) > 16 else "")
    kind = f"{'command' if is_command else 'data'}{', last' if is_last else ''}"
    text = f"context {row[4]}, {kind}, {row[1]} bytes {shown}".rstrip()
    return Field(row[0], 0, "PDV", text, values)


def _context_field(row: codec.Row) -> Field:
    text = str(row[4])
    values: dict[str, object] = {"id": row[4]}
    if row[3] == 0x21:
        text, values["result"] = f"{text}, result {row[5]}", row[5]
    return Field(row[0], 0, "presentation context", text, values)


def _codes(pdu: codec.Row) -> list[Field]:
    kind, result, source, reason, version = pdu[3], pdu[5], pdu[6], pdu[7], pdu[8]
    if kind == AssociateReject.type:
        text = str(AssociateReject(result, source, reason))
        values = {"value": text, "result": result, "source": source, "reason": reason}
        return [Field(7, 0, "codes", text, values)]
    if kind == Abort.type:
        codes = (8, "source", source), (9, "reason", reason)
        return [Field(at, 0, name, str(code), {"value": code}) for at, name, code in codes]
    if kind in ASSOCIATE:
        return [Field(6, 0, "protocol version", f"{version:04X}", {"value": version})]
    return []


def _field(pdu: memoryview, row: codec.Row, sound: bool) -> Field:
    kind, value = row[2], bytes(pdu[row[0] : row[0] + row[1]])
    if kind in _UIDS:
        return _uid_field(row, value)
    if kind in _NAMES:
        is_title = kind != codec.KIND_VERSION_NAME
        return _name_field(row, value, _titles_are_in_place(pdu) if is_title else sound)
    if kind in _NUMBERS:
        return _number_field(row, value)
    if kind == codec.KIND_CONTEXT:
        return _context_field(row)
    return _pdv_field(row, value, sound) if kind == codec.KIND_PDV else _hidden_field(row)


# ---- the whole PDU ---------------------------------------------------------------------------


def _shown(row: codec.Row, field: Field) -> range:
    """Return the bytes that a field shows."""
    start, end = row[0], row[0] + row[1]
    if row[2] == codec.KIND_USER_IDENTITY:
        return range(start - 4, start - 2)  # type, response requested
    if "size" in field.values or row[2] == codec.KIND_CONTEXT:
        return range(0)
    return range(start, end + 2) if row[2] == codec.KIND_ROLE else range(start, end)


def _read(pdu: memoryview, rows: list[codec.Row], sound: bool) -> tuple[list[Field], list[range]]:
    """Return the fields of a PDU, and the bytes that are headers of items or shown by a field."""
    fields, shown = _codes(rows[0]), []
    for row in rows[1:]:
        if row[2] == codec.KIND_HEADER:
            shown.append(range(row[0], row[0] + row[1]))
        elif row[2] != codec.KIND_IGNORED:
            fields.append(_field(pdu, row, sound))
            shown.append(_shown(row, fields[-1]))
    return fields, shown


def pdu_fields(data: Buffer, start: int = 0, *, strict: bool = False) -> PDUFields:
    """Return the fields of the first PDU of `data[start:]`; offsets count from its start.

    Texts have no control characters. Bytes that may belong to a user identity are not shown; in a
    damaged A-ASSOCIATE-RQ or -AC that may be any text except a UID.
    """
    whole = view_of("data", data)
    start = number_of("start", start, len(whole))
    fault, rows = codec.decode(
        whole, start, codec.options(bool(strict), 0, MAX_ASSOCIATE, exact=True)
    )
    error = error_of(*fault) if fault is not None else None
    around = [range(6), range(error.offset, error.offset + 1)] if error is not None else []
    if not rows:
        return PDUFields("", 0, [], error, around)
    lenient = pdu_fields(whole, start) if strict and error is not None else None
    sound = error is None or (lenient is not None and lenient.fault is None)
    size, kind = 6 + rows[0][1], rows[0][3]
    pdu = whole[start : start + size]
    fields, shown = _read(pdu, rows, sound)
    if lenient is not None:
        shown = lenient.shown
    elif kind not in ASSOCIATE:
        shown = [range(size)] if sound else around
    elif error is not None:
        items = items_at(pdu, error.offset)
        shown += [range(at, at + 4) for at, item in items if item in items_of(pdu[0])]
    return PDUFields(PDU_NAMES[kind], size, fields, error, shown)
