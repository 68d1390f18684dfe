"""Bytes made to break a codec, one group for each kind of known vulnerability.

The length fields and the expected faults come from the tables of PS3.8 9.3 and PS3.7 D.3.3 alone.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from itertools import product
from typing import Any, NamedTuple

from support.vectors import vectors

VALID = [bytes.fromhex(param.values[0]["hex"]) for param in vectors("valid.json")]
LARGE = 2000  # bytes; the lengths inside larger PDUs are not changed

Fault = tuple[Any, ...]  # kind, offset, and the size needed if the kind is need_more
DECODES = ("decodes",)


class Case(NamedTuple):
    """Bytes, and the expected answers in each mode, where they are known."""

    wire: bytes
    lenient: Fault | None = None
    strict: Fault | None = None


# ---- PDUs ------------------------------------------------------------------------------------


def u16(number: int) -> bytes:
    return number.to_bytes(2, "big")


def counted(*parts: bytes) -> bytes:
    value = b"".join(parts)
    return u16(len(value)) + value


def item(kind: int, *parts: bytes) -> bytes:
    return bytes([kind, 0]) + counted(*parts)


def pdu(kind: int, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return bytes([kind, 0]) + len(body).to_bytes(4, "big") + body


def associate(kind: int, *items: bytes, called: bytes = b"A", calling: bytes = b"B") -> bytes:
    titles = called.ljust(16) + calling.ljust(16)
    return pdu(kind, b"\0\1\0\0", titles, bytes(32), *items)


APPLICATION = item(0x10, b"1.2.840.10008.3.1.1.1")
PROPOSED = item(0x20, b"\1\0\0\0", item(0x30, b"1.2.3"), item(0x40, b"1.2.4"))
ACCEPTED = item(0x21, b"\1\0\0\0", item(0x40, b"1.2.4"))
REQUIRED = item(0x51, b"\0\0\x40\0") + item(0x52, b"1.2.5")
ROLE = item(0x54, counted(b"1.2"), b"\1\1")


def with_info(*sub_items: bytes, kind: int = 1) -> bytes:
    """Return a small RQ or AC with these sub-items in its user information, at the end."""
    context = PROPOSED if kind == 1 else ACCEPTED
    return associate(kind, APPLICATION, context, item(0x50, REQUIRED, *sub_items))


def distinct(kind: int, count: int) -> list[bytes]:
    """Return sub-items 54 or 56 for so many SOP classes."""
    return [item(kind, counted(b"1.2.%d" % n), b"\1\1") for n in range(count)]


BOTH = ["application", "transfer", "class_uid", "role", "extended"]
UIDS = {1: [*BOTH, "abstract", "common", "service", "related"], 2: BOTH}
BYTES = {1: ["primary", "secondary"], 2: ["response"]}
TITLES = {"called": 10, "calling": 26}
# The texts of a PDU by its type, each with a value that no other one has.
TEXTS = {
    kind: {
        name: b"1.2.%d" % n for n, name in enumerate([*UIDS[kind], *BYTES[kind], *TITLES, "name"])
    }
    for kind in (1, 2)
}


def rich(kind: int, **given: bytes) -> bytes:
    """Return an RQ or AC with every possible item, and with these texts."""
    t = TEXTS[kind] | given
    info = [item(0x51, b"\0\0\x40\0"), item(0x52, t["class_uid"]), item(0x53, b"\0\1\0\1")]
    info += [item(0x54, counted(t["role"]), b"\1\0"), item(0x55, t["name"])]
    info += [item(0x56, counted(t["extended"]), b"\1\1"), item(0x77, b"unknown")]
    transfer = item(0x40, t["transfer"])
    if kind == 1:
        contexts = item(0x20, b"\1\0\0\0", item(0x30, t["abstract"]), transfer, item(0x40, b"1.2"))
        related = counted(counted(t["related"]), counted(b"1.2"))
        info.append(item(0x57, counted(t["common"]), counted(t["service"]), related))
        info.append(item(0x58, b"\2\1", counted(t["primary"]), counted(t["secondary"])))
    else:
        rejected = item(0x21, b"\3\0\3\0", b"\x40\0\xff\xff")  # its sub-item must not be read
        contexts = item(0x21, b"\1\0\0\0", transfer) + rejected
        info.append(item(0x59, counted(t["response"])))
    items = [item(0x10, t["application"]), contexts, item(0x50, *info), item(0x60, b"unknown")]
    return associate(kind, *items, called=t["called"], calling=t["calling"])


DATA = pdu(4, bytes.fromhex("00000006 01 03 01020304 00000002 01 00 0000000a 01 02"), bytes(8))
RICH = [rich(1), rich(2), DATA]


# ---- their lengths ---------------------------------------------------------------------------

# The least length of an item, by the type of the PDU and of the item that it is in.
SUB_ITEMS = {0x51: 4, 0x53: 4, 0x54: 4, 0x56: 2}
LEAST = {
    (1, 0): {0x20: 4},
    (2, 0): {0x21: 4},
    (1, 0x50): {**SUB_ITEMS, 0x57: 6, 0x58: 6},
    (2, 0x50): {**SUB_ITEMS, 0x59: 2},
}
# Sub-items with inner lengths: the bytes before each length, and the bytes needed behind it.
INNER = {0x54: (0, [2]), 0x56: (0, [0]), 0x57: (0, [0, 0, 0]), 0x58: (2, [2, 0]), 0x59: (0, [0])}


class Length(NamedTuple):
    """A length field, its valid range, and the length fields around it."""

    at: int
    size: int
    value: int
    least: int
    most: int
    kind: int = 0  # type of the item; 0 if the field is not that of an item
    outer: tuple[Length, ...] = ()

    @property
    def start(self) -> int:
        """The offset of the item or PDV; its header has four bytes and ends with this field."""
        return self.at + self.size - 4

    @property
    def first(self) -> int:
        """The offset of the first item inside, if any."""
        return self.at + self.size + {0: 68, 0x20: 4, 0x21: 4}.get(self.kind, 0)

    @property
    def end(self) -> int:
        return self.at + self.size + self.value


def number(wire: bytes, at: int, size: int = 2) -> int:
    return int.from_bytes(wire[at : at + size], "big")


def lengths(wire: bytes) -> Iterator[Length]:
    """Yield every length field of a valid PDU, by offset."""
    least = {1: 68, 2: 68, 4: 6}.get(wire[0], 4)
    whole = Length(2, 4, number(wire, 2, 4), least, len(wire) - 6)
    yield whole
    if wire[0] in (1, 2):
        yield from item_lengths(wire, whole)
    at = 6
    while wire[0] == 4 and at < len(wire):
        yield Length(at, 4, number(wire, at, 4), 2, len(wire) - at - 4, 0, (whole,))
        at += 4 + number(wire, at, 4)


def item_lengths(wire: bytes, container: Length) -> Iterator[Length]:
    least = LEAST.get((wire[0], container.kind), {})
    outer = (*container.outer, container)
    at = container.first
    while at < container.end:
        kind, value, most = wire[at], number(wire, at + 2), container.end - at - 4
        found = Length(at + 2, 2, value, least.get(kind, 0), most, kind, outer)
        yield found
        if len(outer) == 1 and (kind == 0x50 or kind in least):
            if kind != 0x21 or wire[at + 6] == 0:  # the items of a rejected context are not read
                yield from item_lengths(wire, found)
        elif kind in INNER and kind in least:
            yield from inner_lengths(wire, found)
        at = found.end


def inner_lengths(wire: bytes, sub_item: Length) -> Iterator[Length]:
    before, behinds = INNER[sub_item.kind]
    outer = (*sub_item.outer, sub_item)
    at = sub_item.first + before
    for behind in behinds:
        last = Length(at, 2, number(wire, at), 0, sub_item.end - at - 2 - behind, 0, outer)
        yield last
        at = last.end
    at = last.at + 2
    while sub_item.kind == 0x57 and at < last.end:
        yield Length(at, 2, number(wire, at), 0, last.end - at - 2, 0, (*outer, last))
        at += 2 + number(wire, at)


def with_value(wire: bytes, field: Length, value: int) -> bytes:
    return wire[: field.at] + value.to_bytes(field.size, "big") + wire[field.at + field.size :]


def inserted(wire: bytes, at: int, piece: bytes, *around: Length) -> bytes:
    """Insert a piece and correct the lengths around it."""
    for field in around:
        wire = with_value(wire, field, field.value + len(piece))
    return wire[:at] + piece + wire[at:]


# ---- groups ----------------------------------------------------------------------------------


def step_in(wire: bytes) -> int:
    """Return the distance between the offsets to try: the larger the PDU, the more its parts
    repeat."""
    return 1 if len(wire) <= 600 else 7 if len(wire) <= LARGE else 4999


def prefixes() -> Iterator[Case]:
    """Yield cases for reads beyond the received bytes."""
    for wire in VALID:
        for size in {*range(0, len(wire), step_in(wire)), *range(len(wire) - 8, len(wire))}:
            fault = ("need_more", size, 6 if size < 6 else len(wire))
            yield Case(wire[:size], fault, fault)


def cut_short() -> Iterator[Case]:
    """Yield cases for reads beyond the end of a PDU that was cut and has the shorter length."""
    for wire in VALID:
        whole, *others = lengths(wire)
        for size in range(6, len(wire), step_in(wire)):
            faults = [
                ("item_overrun", field.at if size >= field.at + field.size else field.start)
                for field in others
                if len(field.outer) == 1 and field.start < size < field.end
            ]
            if size - 6 < whole.least:
                faults = [("bad_length", 2)]
            # A cut between two items leaves a PDU that lacks the items after it.
            yield Case(with_value(wire, whole, size - 6)[:size], *(faults * 2 or [DECODES]))


KINDS = [0x00, 0x10, 0x11, 0x20, 0x21, 0x30, 0x40, 0x50, *range(0x51, 0x5A), 0x60, 0xFF]


def empty_items() -> Iterator[Case]:
    """Yield cases for endless loops over empty items: one more, first and last at each nesting.

    `impossible_lengths` makes the existing items empty.
    """
    for wire in RICH[:2]:
        for field in lengths(wire):
            if field.outer and field.kind not in (0x20, 0x21, 0x50):
                continue
            for at, kind in product((field.first, field.end), KINDS):
                refused = kind in LEAST.get((wire[0], field.kind), {})
                fault = ("bad_length", at + 2) if refused else DECODES
                yield Case(inserted(wire, at, item(kind), *field.outer, field), fault)
    for size, fault in ((0, ("bad_length", 6)), (1, ("bad_length", 6)), (2, DECODES)):
        piece = size.to_bytes(4, "big") + bytes([1, 3])[:size]
        yield Case(inserted(DATA, 6, piece, next(lengths(DATA))), fault, fault)


def only_empty_items() -> Iterator[Case]:
    """Yield PDUs with thousands of empty items; of two types nearly as many as fit."""
    for kind in KINDS:
        count = 16_370 if kind in (0x40, 0xFF) else 2_000
        yield Case(with_info(item(kind) * count))
        yield Case(associate(1, item(0x20, b"\1\0\0\0", item(kind) * count)), DECODES)
        yield Case(associate(2, item(kind) * count))
    yield Case(with_info(item(0x57, bytes(4), counted(bytes(65_500)))), DECODES)
    yield Case(pdu(4, bytes.fromhex("00000002 0100") * 16_382), DECODES, DECODES)


GRID = {
    2: [0, 1, 0x7FFF, 0x8000, 0xFFFE, 0xFFFF],
    4: [0, 1, 0x7FFFFFFF, 0x80000000, *range(0xFFFFFFFB, 0x100000000)],
}


def expected_fault(wire: bytes, field: Length, value: int) -> Fault | None:
    """Return the fault of a valid PDU with another value in this field; None if unknown."""
    if field.outer and value > field.most:
        return ("item_overrun", field.at)
    if value < field.least or wire[0] not in (1, 2, 4):
        return ("bad_length", field.at)
    return ("need_more", len(wire), 6 + value) if value > field.most else None


def impossible_lengths() -> Iterator[Case]:
    """Yield cases for sums that wrap and differences below zero, in every length field.

    The values are smaller and larger than the lengths around it.
    """
    for wire in [*VALID, *RICH]:
        for field in lengths(wire) if len(wire) <= LARGE else ():
            near = {field.value - 1, field.value + 1, field.most, field.most + 1}
            for value in {*GRID[field.size], *near} - {field.value, -1}:
                fault = expected_fault(wire, field, value)
                yield Case(with_value(wire, field, value), fault, fault)


def fixed_items() -> Iterator[Case]:
    """Yield items of a fixed size with another size."""
    for kind, size, behind in product((0x51, 0x53), range(9), (b"", ROLE)):
        piece = item(kind, bytes(range(1, size + 1)))
        first = item(0x52, b"1.2.5") if kind == 0x51 else REQUIRED
        wire = associate(1, APPLICATION, PROPOSED, item(0x50, first, piece, behind))
        fault = ("bad_length", wire.index(piece) + 2)
        yield Case(wire, fault if size < 4 else DECODES, fault if size != 4 else DECODES)


# Type, bytes before the inner length, bytes needed after the bytes that it counts.
INNER_FIELDS = [(0x54, 0, 2), (0x56, 0, 0), (0x57, 0, 4), (0x57, 2, 2), (0x57, 4, 0)]
INNER_FIELDS += [(0x58, 2, 2), (0x58, 4, 0), (0x59, 0, 0)]


def inner_against_outer() -> Iterator[Case]:
    """Yield cases for reads beyond an item whose inner length is too large."""
    for (kind, before, behind), *sizes in product(INNER_FIELDS, range(13), range(13), (b"", ROLE)):
        outer, inner, after = sizes
        piece = item(kind, (bytes(before) + u16(inner) + bytes(inner + 12))[:outer])
        wire = with_info(piece, after, kind=2 if kind == 0x59 else 1)
        at = wire.index(piece) + 2
        fault: Fault | None = DECODES
        if outer < (4 if kind == 0x54 else 2 if kind in (0x56, 0x59) else 6):
            fault = ("bad_length", at)
        elif inner > outer - before - 2 - (0 if kind == 0x57 else behind):
            fault = ("item_overrun", at + 2 + before)
        elif kind == 0x57 and (inner > outer - before - 2 - behind or (before == 4 and inner % 2)):
            fault = None  # it is at the next length, or at the last one in the list
        yield Case(wire, fault)


def text_field(kind: int, name: str) -> tuple[int, int]:
    """Return the offset of this text in a rich PDU, and its greatest length."""
    wire = rich(kind, **{name: b"999"})
    at = wire.index(b"999")
    (field,) = [field for field in lengths(wire) if field.at == at - 2]
    return at, 3 + 65535 - max(f.value for f in (field, *field.outer) if f.size == 2)


class TextCase(NamedTuple):
    """A rich PDU of this type with this text under this name."""

    kind: int
    name: str
    text: bytes
    case: Case


def long_texts() -> Iterator[TextCase]:
    """Yield cases for names copied into a buffer of 64 bytes."""
    for kind in (1, 2):
        for name in [*UIDS[kind], "name"]:
            at, most = text_field(kind, name)
            for size in (64, 65, 66, 255, most):
                text = b"1." + b"2" * (size - 2)
                fault = ("bad_value", at - 2) if size > 64 or name == "name" else DECODES
                yield TextCase(kind, name, text, Case(rich(kind, **{name: text}), DECODES, fault))


HOSTILE = [b"%n%s%x", b"../../x", b"/etc", b"\\", b"a\0b", b"a;`id`", b"\x07\x1b[2J", b"\xff\xfe"]


def hostile_texts() -> Iterator[TextCase]:
    """Yield texts that are a format, a path, a command or a control sequence of a terminal."""
    for kind in (1, 2):
        for name, text in product(TEXTS[kind], HOSTILE):
            printable = all(0x20 <= byte <= 0x7E for byte in text)
            strict = DECODES
            if name in UIDS[kind] or (name == "name" and not printable):
                strict = ("bad_value", text_field(kind, name)[0])
            elif name in TITLES and kind == 1 and (not printable or b"\\" in text):
                strict = ("bad_value", TITLES[name])
            yield TextCase(kind, name, text, Case(rich(kind, **{name: text}), DECODES, strict))


def repeated() -> Iterator[Case]:
    """Yield PDUs with repeated items, for decoders that keep a value until the next item."""
    subs = [item(0x53, bytes(4)), ROLE, item(0x55, b"NAME"), item(0x56, counted(b"1.2"), b"\1")]
    subs += [item(0x57, *[counted(b"1.2")] * 2, bytes(2)), item(0x59, counted(b"ok"))]
    subs += [item(0x58, b"\2\1", counted(b"user"), counted(b"pass"))]
    for sub in subs:
        wire = with_info(sub * (65_500 // len(sub)), kind=2 if sub[0] == 0x59 else 1)
        yield Case(wire, DECODES, ("duplicate_item", wire.index(sub) + len(sub)))
    related = counted(counted(b"1.2.3") * 9_000)
    yield Case(with_info(item(0x57, *[counted(b"1.2")] * 2, related)), DECODES, DECODES)
    for kind in (0x54, 0x56):
        yield Case(with_info(*distinct(kind, 4_000)), DECODES, DECODES)
        wire = with_info(*distinct(kind, 200), item(kind, u16(9), b"1.2.3"))
        fault = ("item_overrun", len(wire) - 7)
        yield Case(wire, fault, fault)


NO_TYPE, NO_LENGTH = ("bad_pdu_type", 0), ("bad_length", 2)
OTHERS: dict[str, tuple[bytes, Fault]] = {
    "HTTP": (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", NO_TYPE),
    "TLS": (bytes.fromhex("16030100c8010000c40303"), NO_TYPE),
    "TLS after SSL 2": (bytes.fromhex("802e010301001500000010"), NO_TYPE),
    "SSH": (b"SSH-2.0-OpenSSH_9.2\r\n", NO_TYPE),
    "SMB": (bytes.fromhex("00000085ff534d4272000000"), NO_TYPE),
    "NetBIOS": (bytes.fromhex("8100004420434b46"), NO_TYPE),
    "RDP": (bytes.fromhex("030000130ee00000000000010008000300"), NO_LENGTH),  # an RJ?
    "SOCKS 4": (bytes.fromhex("04010050c000020100"), ("too_large", 2)),  # a P-DATA-TF?
    "SOCKS 5": (bytes.fromhex("050400010203"), NO_LENGTH),  # an A-RELEASE-RQ?
    "SMTP client": (b"EHLO example.org\r\n", NO_TYPE),
    "SMTP server": (b"220 example.org ESMTP\r\n", NO_TYPE),
    "PostgreSQL": (bytes.fromhex("0000000804d2162f"), NO_TYPE),
    "zeroes": (bytes(16), NO_TYPE),
    "ones": (b"\xff" * 16, NO_TYPE),
}


def other_protocols() -> Iterator[Case]:
    """Yield bytes of other protocols, for decoders that wait for the rest of a supposed PDU."""
    for sent, fault in OTHERS.values():
        for size in range(1, len(sent) + 1):
            expected = fault
            if fault != NO_TYPE and size < 6:
                expected = ("need_more", size, 6)
            elif fault[0] == "too_large":  # the limit does not apply here
                expected = ("need_more", size, 6 + 0x0050C000)
            yield Case(sent[:size], expected, expected)


def rejections_of_another_size() -> Iterator[Case]:
    """Yield rejections of a wrong size, for decoders that read codes beyond the end."""
    for size in (0, 1, 2, 3, 5):
        yield Case(pdu(3, bytes(size)), NO_LENGTH, NO_LENGTH)
        fault = ("need_more", 6 + size, 10) if size < 4 else ("trailing_bytes", 10)
        yield Case(b"\3\0\0\0\0\4" + b"\0\1\1\1\0"[:size], fault, fault)


def cases_of(texts: Callable[[], Iterator[TextCase]]) -> Callable[[], Iterator[Case]]:
    return functools.wraps(texts)(lambda: (text.case for text in texts()))


GROUPS: list[Callable[[], Iterator[Case]]] = [
    *[prefixes, cut_short, empty_items, only_empty_items, impossible_lengths, fixed_items],
    *[inner_against_outer, cases_of(long_texts), cases_of(hostile_texts), repeated],
    *[other_protocols, rejections_of_another_size],
]
