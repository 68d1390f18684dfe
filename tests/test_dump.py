"""`ltdic dump`, as a user runs it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import vectors

from ltdic import (
    AssociateReject,
    AssociateRequest,
    ProposedContext,
    UserIdentity,
    UserInformation,
    encode,
)
from ltdic.layout import lay_out

REJECT = encode(AssociateReject(1, 1, 7))
SECRET = AssociateRequest(
    "A~[2J",
    "B",
    (ProposedContext(1, "1.2.840.10008.1.1", ("1.2.840.10008.1.2",)),),
    user_info=UserInformation(
        max_length=16384,
        implementation_class_uid="1.2.3",
        user_identity=UserIdentity(2, 1, b"jdoe", b"hunter2"),
    ),
)


def dump(data: bytes, *options: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-I", "-m", "ltdic", "dump", *options]
    return subprocess.run(command, input=data, capture_output=True, timeout=60)


def test_dump_shows_pdus_field_by_field_and_keeps_secrets() -> None:
    result = dump(encode(SECRET) + REJECT)
    text = result.stdout.decode()
    assert result.returncode == 0
    assert "       0  A-ASSOCIATE-RQ, " in text
    assert "      10    called AE title: 'A~[2J'" in text
    assert "maximum length: 16384" in text
    assert "Rejected permanently by the service user" in text
    assert "jdoe" not in text
    assert "hunter2" not in text


def test_dump_shows_the_fault_after_the_pdus_before_it() -> None:
    wire = REJECT + bytes.fromhex("05 00 00000005 00000000 00") + REJECT
    result = dump(wire)
    lines = result.stdout.decode().splitlines()
    assert result.returncode == 65
    assert lines[0] == "       0  A-ASSOCIATE-RJ, 10 bytes"
    assert lines[2].startswith("      12  bad_length at byte 2: ")
    assert lines[2].endswith("of the PDU at 10 (PS3.8 9.3.6)")
    assert lines[3][lines[4].index("^^") :].startswith("00 00 00 05")
    assert len(lines) == 5


def test_dump_escapes_what_a_peer_wrote() -> None:
    wire = bytearray(encode(SECRET))
    wire[10:16] = b"\x1b[31m\xff"
    text = dump(bytes(wire)).stdout
    assert b"\x1b" not in text
    assert b"called AE title: '\\x1b[31m\\xff" in text


def test_dump_reads_files_and_digits_and_writes_json(tmp_path: Path) -> None:
    file = tmp_path / "wire"
    file.write_bytes(REJECT * 2)
    from_file = dump(b"", "--json", str(file))
    objects = [json.loads(line) for line in from_file.stdout.splitlines()]
    assert [(o["offset"], o["pdu"], o["length"]) for o in objects] == [
        (0, "A-ASSOCIATE-RJ", 10),
        (10, "A-ASSOCIATE-RJ", 10),
    ]
    assert dump(b"", "--json", (REJECT * 2).hex()).stdout == from_file.stdout
    assert dump(b"", "--json", "0x" + (REJECT * 2).hex()).stdout == from_file.stdout
    assert dump(b"").stdout == b""


def test_dump_writes_a_fault_as_json_with_what_came_before_it() -> None:
    first, broken = map(json.loads, dump(REJECT + b"\x09", "--json").stdout.splitlines())
    fault = {
        "offset": 10,
        "kind": "bad_pdu_type",
        "text": "this is no DICOM PDU type",
        "clause": "PS3.8 9.3.1",
    }
    assert "fault" not in first
    assert broken == {"offset": 10, "pdu": None, "length": 0, "fields": [], "fault": fault}


@pytest.mark.parametrize("source", ["neither a file nor digits", "."])
def test_dump_says_what_it_cannot_read(source: str) -> None:
    result = dump(b"", source)
    assert result.returncode == 66
    assert result.stderr.startswith(b"ltdic dump: ")
    assert result.stderr.count(b"\n") == 1


def test_dump_ends_quietly_where_nobody_reads_on() -> None:
    command = f"{sys.executable} -I -m ltdic dump - | head -1"
    result = subprocess.run(
        command, shell=True, input=REJECT * 10_000, capture_output=True, timeout=60
    )
    assert result.stdout == b"       0  A-ASSOCIATE-RJ, 10 bytes\n"
    assert result.stderr == b""


def test_dump_shows_the_fields_before_a_fault_and_no_secret_around_it() -> None:
    wire = encode(SECRET).replace(b"\x02\x01\x00\x04jdoe", b"\x01\x01\x00\x04jdoe")
    result = dump(wire, "--strict")
    text = result.stdout.decode()
    assert result.returncode == 65
    assert "maximum length: 16384" in text
    assert "bad_value at byte" in text
    assert "(PS3.7 D.3.3.7)" in text
    assert "a user identity, not shown" in text
    assert not any(secret in text for secret in ("jdoe", "6a 64", "hunter2"))


def test_dump_in_strict_mode_refuses_what_the_standard_forbids() -> None:
    undefined = encode(AssociateReject(1, 3, 8))
    assert dump(undefined).returncode == 0
    result = dump(undefined, "--strict")
    assert result.returncode == 65
    assert b"bad_value at byte 9" in result.stdout


CLAUSES = [
    ("len-rj-2", "PS3.8 9.3.4"),
    ("type-0", "PS3.8 9.3.1"),
    ("miss-10-rq", "PS3.8 9.3.2"),
    ("miss-40", "PS3.8 9.3.2.2"),
    ("dup-30", "PS3.8 9.3.2.2.1"),
    ("miss-40-ac", "PS3.8 9.3.3.2"),
    ("dup-40-ac", "PS3.8 9.3.3.2.1"),
    ("dup-51", "PS3.8 D.1"),
    ("dup-54-uid", "PS3.7 D.3.3.4"),
    ("dup-57-uid", "PS3.7 D.3.3.6"),
]


@pytest.mark.parametrize(("ident", "clause"), CLAUSES)
def test_dump_names_the_clause_of_the_item_at_fault(ident: str, clause: str) -> None:
    (wire,) = (v.values[0]["hex"] for v in vectors("invalid.json") if v.id == ident)
    assert f" ({clause})\n" in dump(bytes.fromhex(wire), "--strict").stdout.decode()


@pytest.mark.parametrize("vector", vectors("valid.json"))
def test_every_valid_vector_is_laid_out_within_its_bounds(vector: dict[str, Any]) -> None:
    wire = bytes.fromhex(vector["hex"])
    layout = lay_out(wire)
    assert layout.size == len(wire)
    assert all(6 <= field.offset <= len(wire) for field in layout.fields)
    assert all(str(field.value).isprintable() for field in layout.fields)
