"""`ltdic dump`: the PDUs of a byte stream, field by field."""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from pathlib import Path

from ._terminal import EX_DATAERR, EX_NOINPUT
from .layout import Layout, clause_of, is_secret, lay_out


def read_input(source: str) -> bytes:
    """The bytes that an argument stands for: standard input, a file, or hexadecimal digits."""
    if source == "-":
        return sys.stdin.buffer.read()
    if not os.path.exists(source):
        with suppress(ValueError):
            return bytes.fromhex(source.removeprefix("0x"))
    return Path(source).read_bytes()


def around(data: bytes, offset: int) -> str:
    """The bytes near an offset, with a mark under it."""
    start = max(0, offset - 8)
    shown = data[start : offset + 9].hex(" ")
    return f"{start:8}  {shown}\n{'':10}{'   ' * (offset - start)}^^"


def print_as_json(data: bytes, at: int, layout: Layout) -> None:
    """The PDU that starts at `at` as one JSON object; all offsets count from the first byte."""
    whole: dict[str, object] = {"offset": at, "pdu": layout.name or None, "length": layout.size}
    whole["fields"] = [
        {"offset": at + field.offset, "name": field.name, "value": field.value}
        for field in layout.fields
    ]
    if layout.fault is not None:
        fault = layout.fault
        whole["fault"] = {
            "offset": at + fault.offset,
            "kind": fault.kind,
            "text": fault.text,
            "clause": clause_of(data[at:], fault.offset),
        }
    print(json.dumps(whole))


def print_as_text(data: bytes, at: int, layout: Layout) -> None:
    """The PDU that starts at `at`, one line for each field."""
    if layout.name:
        print(f"{at:8}  {layout.name}, {layout.size} bytes")
    for field in layout.fields:
        print(f"{at + field.offset:8}    {'  ' * field.depth}{field.name}: {field.value}")
    if layout.fault is not None:
        fault, place = layout.fault, at + layout.fault.offset
        clause = clause_of(data[at:], fault.offset)
        print(f"{place:8}  {fault}, of the PDU at {at} ({clause})")
        secret = is_secret(data[at:], fault.offset)
        print("          a user identity, not shown" if secret else around(data, place))


def run_dump(source: str, as_json: bool, strict: bool) -> int:
    """Print every PDU of a stream.

    EX_DATAERR if it ends in anything but a whole one, EX_NOINPUT if it cannot be read.
    """
    try:
        data, at = read_input(source), 0
    except OSError as e:
        print(f"ltdic dump: {e}", file=sys.stderr)
        return EX_NOINPUT
    while at < len(data):
        layout = lay_out(data, at, strict=strict)
        (print_as_json if as_json else print_as_text)(data, at, layout)
        if layout.fault is not None:
            return EX_DATAERR
        at += layout.size
    return 0
