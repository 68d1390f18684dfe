"""`ltdic dump`: prints the PDUs of a byte stream, field by field."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path

from .._rules import ASSOCIATE, clause_of
from .fields import PDUFields, pdu_fields
from .terminal import EX_DATAERR, EX_NOINPUT

_DIGITS = re.compile(rb"\s*+(?:0x)?([0-9a-fA-F\s]*+)")  # possessive: takes linear time


def from_digits(text: bytes) -> bytes | None:
    """Return the bytes that hexadecimal digits stand for, or None if the text has anything else.

    Raises `ValueError` for an odd number of digits.
    """
    found = _DIGITS.fullmatch(text)
    if found is None:
        return None
    digits = b"".join(found[1].split()).decode()
    if len(digits) % 2:
        raise ValueError(f"an odd number of hexadecimal digits: {len(digits)}")
    return bytes.fromhex(digits)


def read_input(source: str) -> bytes:
    """Return the bytes that an argument stands for: standard input, a file, or hexadecimal digits.

    Standard input may be digits, too: no PDU begins with the character code of a digit.
    """
    if source == "-":
        if sys.stdin is None:
            raise OSError("standard input is closed")
        data = sys.stdin.buffer.read()
        digits = from_digits(data)
        return data if digits is None else digits
    digits = None if os.path.exists(source) else from_digits(os.fsencode(source))
    return Path(source).read_bytes() if digits is None else digits


def around(data: bytes, offset: int, shown: list[range]) -> str:
    """Return the bytes near an offset as text, with a mark under it. Bytes that are not in `shown`
    become `**`."""
    start = max(0, offset - 8)
    places = range(start, min(offset + 9, len(data)))
    near = (f"{data[n]:02x}" if any(n in part for part in shown) else "**" for n in places)
    return f"{start:8}  {' '.join(near)}\n{'':10}{'   ' * (offset - start)}^^"


def print_as_json(data: bytes, at: int, pdu: PDUFields) -> None:
    """Print the PDU that starts at `at` as one JSON object; all offsets count from the first
    byte."""
    whole: dict[str, object] = {"offset": at, "pdu": pdu.name or None, "length": pdu.size}
    whole["fields"] = [
        {"offset": at + field.offset, "name": field.name, **field.values} for field in pdu.fields
    ]
    if pdu.fault is not None:
        fault = pdu.fault
        whole["fault"] = {
            "offset": at + fault.offset,
            "kind": fault.kind,
            "text": fault.text,
            "clause": clause_of(data[at:], fault.offset),
        }
    print(json.dumps(whole))


def print_as_text(data: bytes, at: int, pdu: PDUFields) -> None:
    """Print the PDU that starts at `at`, one line for each field."""
    if pdu.name:
        print(f"{at:8}  {pdu.name}, {pdu.size} bytes")
    for field in pdu.fields:
        print(f"{at + field.offset:8}    {'  ' * field.depth}{field.name}: {field.text}")
    if pdu.fault is not None:
        clause = clause_of(data[at:], pdu.fault.offset)
        print(f"{at + pdu.fault.offset:8}  {pdu.fault}, of the PDU at {at} ({clause})")


def shown_near(at: int, pdu: PDUFields, hidden: int) -> list[range]:
    """Return the bytes that may be shown around the fault of the PDU at `at`.

    `hidden` is the end of the last A-ASSOCIATE-RQ or -AC before it, or 0. No byte before `hidden`
    is shown. Of the PDU at fault only the byte at fault is shown then: if the length of the RQ or
    AC was damaged, the bytes at `at` may belong to it.
    """
    if hidden and pdu.fault is not None:
        place = at + pdu.fault.offset
        return [range(hidden, at), range(place, place + 1)]
    return [range(at), *(range(at + part.start, at + part.stop) for part in pdu.shown)]


def dump(data: bytes, as_json: bool, strict: bool) -> int:
    """Print every PDU of a stream. Return 0, or EX_DATAERR if it has a fault or an incomplete
    PDU."""
    at = hidden = 0
    while at < len(data):
        pdu = pdu_fields(data, at, strict=strict)
        (print_as_json if as_json else print_as_text)(data, at, pdu)
        if pdu.fault is not None:
            if not as_json:
                shown = shown_near(at, pdu, hidden)
                print(around(data, at + pdu.fault.offset, shown))
            return EX_DATAERR
        is_associate = data[at] in ASSOCIATE
        at += pdu.size
        hidden = at if is_associate else hidden
    return 0


def run_dump(source: str, as_json: bool, strict: bool) -> int:
    """Print the PDUs that an argument stands for. Return the exit code: 0, EX_DATAERR, or
    EX_NOINPUT if it cannot be read."""
    try:
        data = read_input(source)
    except OSError as e:  # the argument is not printed: it may be a PDU with a typing error
        print(f"ltdic dump: {e.strerror or e}", file=sys.stderr)
        return EX_NOINPUT
    except ValueError as e:
        print(f"ltdic dump: {e}", file=sys.stderr)
        return EX_DATAERR
    return dump(data, as_json, strict)
