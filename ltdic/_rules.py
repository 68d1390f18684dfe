"""The rules of the standard for the fields of a PDU, in words, and their clauses."""

from __future__ import annotations

from collections.abc import Iterator

TITLE = "1 to 16 characters of ISO 646 without backslash and controls, not only spaces (PS3.5 6.2)"
UID = "1 to 64 characters, numbers without leading zeros between full stops (PS3.5 9.1)"
VERSION_NAME = "1 to 16 characters of ISO 646 without backslash and controls (PS3.7 D.3.3.2)"

PDU_NAMES = {
    1: "A-ASSOCIATE-RQ",
    2: "A-ASSOCIATE-AC",
    3: "A-ASSOCIATE-RJ",
    4: "P-DATA-TF",
    5: "A-RELEASE-RQ",
    6: "A-RELEASE-RP",
    7: "A-ABORT",
}
ASSOCIATE = (1, 2)
_FIXED = (3, 5, 6, 7)
# Names of the items of an RQ, and clauses of each PDU type (in PS3.8 9.3) and item.
_PDU_CLAUSES = {1: "2", 2: "3", 3: "4", 4: "5", 5: "6", 6: "7", 7: "8"}
_ITEMS = {
    0x10: ("application context", "PS3.8 9.3.2.1"),
    0x20: ("presentation context", "PS3.8 9.3.2.2"),
    0x30: ("abstract syntax", "PS3.8 9.3.2.2.1"),
    0x40: ("transfer syntax", "PS3.8 9.3.2.2.2"),
    0x50: ("user information", "PS3.8 9.3.2.3"),
    0x51: ("maximum length", "PS3.8 D.1"),
    0x52: ("implementation class UID", "PS3.7 D.3.3.2"),
    0x53: ("asynchronous operations window", "PS3.7 D.3.3.3"),
    0x54: ("role selection", "PS3.7 D.3.3.4"),
    0x55: ("implementation version name", "PS3.7 D.3.3.2"),
    0x56: ("SOP class extended negotiation", "PS3.7 D.3.3.5"),
    0x57: ("SOP class common extended negotiation", "PS3.7 D.3.3.6"),
    0x58: ("user identity", "PS3.7 D.3.3.7"),
    0x59: ("user identity response", "PS3.7 D.3.3.7"),
}
# The same for an AC, where it differs.
_ACCEPT_ITEMS = {
    0x10: ("application context", "PS3.8 9.3.3.1"),
    0x21: ("presentation context", "PS3.8 9.3.3.2"),
    0x40: ("transfer syntax", "PS3.8 9.3.3.2.1"),
    0x50: ("user information", "PS3.8 9.3.3.3"),
}
_FIRST_SUB_ITEM = {0x20: 8, 0x21: 8, 0x50: 4}
_VALUES = {
    **dict.fromkeys((0x10, 0x30, 0x40, 0x52), UID),
    0x55: VERSION_NAME,
}


def items_of(kind: int) -> dict[int, tuple[str, str]]:
    """Return the item types that a PDU of this type may have, with name and clause of each."""
    return _ITEMS | (_ACCEPT_ITEMS if kind == 2 else {})


def items_at(pdu: bytes | bytearray | memoryview, offset: int) -> Iterator[tuple[int, int]]:
    """Yield offset and type of the item that contains this offset, then those of the sub-item."""
    at = 74 if pdu[0] in ASSOCIATE else len(pdu)
    while at <= offset and at + 4 <= len(pdu):
        item, end = pdu[at], at + 4 + int.from_bytes(pdu[at + 2 : at + 4], "big")
        if offset < end:
            yield at, item
            end = at + _FIRST_SUB_ITEM.get(item, len(pdu))
        at = end


def clause_of(pdu: bytes | bytearray | memoryview, offset: int) -> str:
    """Return the clause of the standard for the field at this offset of a PDU, which may be
    damaged."""
    clause = f"PS3.8 9.3.{_PDU_CLAUSES.get(pdu[0], '1')}"
    for _, item in items_at(pdu, offset):
        clause = items_of(pdu[0]).get(item, ("", clause))[1]
    return clause


def place_of(pdu: bytes | bytearray | memoryview, offset: int) -> str:
    """Return the name of the field at this offset of a PDU, with its rule if there is one; empty if
    the field is not known."""
    kind = pdu[0]
    if offset == 2 and kind in _FIXED:
        return f"the PDU length of an {PDU_NAMES[kind]} is 4"
    if kind not in ASSOCIATE:
        return ""
    if 10 <= offset < 42:
        return f"the {'called' if offset < 26 else 'calling'} AE title has {TITLE}"
    name, rule = "", ""
    for at, item in items_at(pdu, offset):
        name = items_of(kind).get(item, (f"item {item:02X}", ""))[0]
        rule = f" has {_VALUES[item]}" if item in _VALUES and offset >= at + 4 else ""
    return f"the {name}{rule}" if name else ""
