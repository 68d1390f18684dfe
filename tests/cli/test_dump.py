"""`ltdic dump`, run as a program; it shows no secret."""

from __future__ import annotations

import dataclasses
import io
import json
import string
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ltdic import (
    Abort,
    Admission,
    AssociateAccept,
    AssociateReject,
    AssociateRequest,
    CommonExtendedNegotiation,
    DecodeError,
    Decoder,
    ExtendedNegotiation,
    ProposedContext,
    ReleaseRequest,
    UserIdentity,
    UserIdentityResponse,
    UserInformation,
    decode,
    encode,
)
from ltdic.cli.dump import run_dump
from ltdic.cli.fields import pdu_fields
from support.dumped import REJECT, SECRET
from support.hostile import associate, counted, item, lengths, pdu, with_info
from support.strategies import accepts, pdus, requests
from support.uids import CT
from support.vectors import vectors


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


def test_dump_shows_whole_pdus_and_then_the_fault() -> None:
    wire = REJECT + bytes.fromhex("05 00 00000005 00000000 00") + REJECT
    result = dump(wire)
    lines = result.stdout.decode().splitlines()
    assert result.returncode == 65
    assert lines[0] == "       0  A-ASSOCIATE-RJ, 10 bytes"
    assert lines[2].startswith("      12  bad_length at byte 2: ")
    assert lines[2].endswith("of the PDU at 10 (PS3.8 9.3.6)")
    assert lines[3][lines[4].index("^^") :].startswith("00 00 00 05")
    assert len(lines) == 5


def test_dump_escapes_terminal_control_sequences() -> None:
    wire = bytearray(encode(SECRET))
    wire[10:16] = b"\x1b[31m\xff"
    text = dump(bytes(wire)).stdout
    assert b"\x1b" not in text
    assert b"called AE title: 16 bytes, not shown\n" in text


@pytest.mark.slow
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


def test_dump_writes_a_fault_as_json_after_the_pdus_before_it() -> None:
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
def test_dump_names_a_source_that_it_cannot_read(source: str) -> None:
    result = dump(b"", source)
    assert result.returncode == 66
    assert result.stderr.startswith(b"ltdic dump: ")
    assert result.stderr.count(b"\n") == 1


def test_dump_ends_without_an_error_when_its_output_is_closed() -> None:
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
    start = wire.index(b"jdoe") - 4
    assert f"\n{start:8}  01 01{' **' * 15}\n{'':34}^^\n" in text
    assert not any(secret in text for secret in ("jdoe", "6a 64", "hunter2"))


def test_dump_in_strict_mode_refuses_pdus_that_the_standard_forbids() -> None:
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


@pytest.mark.slow
@pytest.mark.parametrize(("ident", "clause"), CLAUSES)
def test_dump_names_the_clause_of_the_item_at_fault(ident: str, clause: str) -> None:
    (wire,) = (v.values[0]["hex"] for v in vectors("invalid.json") if v.id == ident)
    assert f" ({clause})\n" in dump(bytes.fromhex(wire), "--strict").stdout.decode()


@pytest.mark.parametrize("vector", vectors("valid.json"))
def test_every_valid_vector_is_laid_out_within_its_bounds(vector: dict[str, Any]) -> None:
    wire = bytes.fromhex(vector["hex"])
    found = pdu_fields(wire)
    assert found.size == len(wire)
    assert all(6 <= field.offset <= len(wire) for field in found.fields)
    assert all(field.text.isascii() and field.text.isprintable() for field in found.fields)


# ---- JSON ----------------------------------------------------------------------------------------


def fields_of(wire: bytes) -> dict[str, dict[str, Any]]:
    """Return the fields of one PDU in JSON, by name."""
    (whole,) = map(json.loads, dump(wire, "--json").stdout.splitlines())
    return {field.pop("name"): field for field in whole["fields"]}


def test_codes_are_numbers_in_json() -> None:
    sentence = str(AssociateReject(1, 3, 8))
    codes = {"offset": 7, "value": sentence, "result": 1, "source": 3, "reason": 8}
    assert fields_of(encode(AssociateReject(1, 3, 8))) == {"codes": codes}
    assert fields_of(encode(Abort(2, 6))) == {
        "source": {"offset": 8, "value": 2},
        "reason": {"offset": 9, "value": 6},
    }


INFO = (
    item(0x53, b"\0\1\0\2"),
    item(0x54, counted(CT.encode()), b"\1\0"),
    item(0x55, b"VERSION1"),
    item(0x56, counted(CT.encode()), b"\1\1"),
    item(0x58, b"\2\1", counted(b"anna"), counted(b"geheim12")),
    item(0x77, b"unknown"),
)


def test_the_fields_of_a_request_have_values_of_their_own_types_in_json() -> None:
    wire = with_info(*INFO)
    fields = fields_of(wire)
    places = {name: field.pop("offset") for name, field in fields.items()}
    assert places["called AE title"] == 10
    assert places["implementation version name"] == wire.index(b"VERSION")
    assert fields == {
        "protocol version": {"value": 1},
        "called AE title": {"value": "A"},
        "calling AE title": {"value": "B"},
        "application context": {
            "value": "1.2.840.10008.3.1.1.1",
            "uid_name": "DICOM Application Context Name",
        },
        "presentation context": {"id": 1},
        "abstract syntax": {"value": "1.2.3"},
        "transfer syntax": {"value": "1.2.4"},
        "user information": {"size": len(wire) - places["user information"]},
        "maximum length": {"value": 16384},
        "implementation class UID": {"value": "1.2.5"},
        "asynchronous operations": {"invoked": 1, "performed": 2},
        "role selection": {"value": CT, "uid_name": "CT Image Storage", "scu": 1, "scp": 0},
        "implementation version name": {"value": "VERSION1"},
        "SOP class extended negotiation": {"value": CT, "uid_name": "CT Image Storage"},
        "application information": {"size": 2},
        "user identity": {"type": 2, "response_requested": 1, "size": 4},
        "user identity, secondary field": {"size": 8},
        "unknown sub-item 77": {"type": 0x77, "size": 7},
    }


def test_context_results_and_pdv_kinds_are_values_in_json() -> None:
    wire = with_info(kind=2)
    assert fields_of(wire)["presentation context"] == {"offset": 103, "id": 1, "result": 0}
    assert fields_of(pdu(4, bytes.fromhex("00000004 03 02 0102")))["PDV"] == {
        "offset": 12,
        "context": 3,
        "command": False,
        "last": True,
        "size": 2,
        "first_bytes": "0102",
    }


def test_uids_of_the_standard_have_their_names_in_text() -> None:
    text = dump(encode(SECRET)).stdout.decode()
    assert "abstract syntax: '1.2.840.10008.1.1' (Verification SOP Class)\n" in text
    assert "transfer syntax: '1.2.840.10008.1.2' (Implicit VR Little Endian)\n" in text
    assert "implementation class UID: '1.2.3'\n" in text


def test_pydicom_is_not_imported_without_a_uid_to_name() -> None:
    command = f"from ltdic.cli.dump import run_dump; run_dump({REJECT.hex()!r}, False, False)"
    command += "; import sys; sys.exit('pydicom' in sys.modules)"
    subprocess.run([sys.executable, "-I", "-c", command], check=True, timeout=60)


# ---- hexadecimal digits --------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    "digits", ["{0}", "0x{0}", " {0}\r\n", "0x{1}", "{1}\n", "{2}\n", "\n0x{3}\t"]
)
def test_digits_on_standard_input_are_understood_as_those_of_an_argument(digits: str) -> None:
    lines = "\n".join(REJECT.hex()[n : n + 5] for n in range(0, 20, 5))
    text = digits.format(REJECT.hex(), REJECT.hex(" "), REJECT.hex().upper(), lines)
    assert dump(text.encode()).stdout == dump(b"", text).stdout == dump(REJECT).stdout


def test_an_odd_number_of_digits_is_reported_in_one_sentence() -> None:
    digits = encode(SECRET).hex()[:-1]
    for result in (dump(digits.encode()), dump(b"", digits)):
        assert result.returncode == 65
        assert result.stdout == b""
        sentence = f"ltdic dump: an odd number of hexadecimal digits: {len(digits)}\n"
        assert result.stderr.decode() == sentence


@pytest.mark.slow
@pytest.mark.parametrize("data", [b"0x03g", b"0300000000040001010x", b"\x0500", b"\xa003"])
def test_input_with_other_characters_is_not_read_as_digits(data: bytes) -> None:
    result = dump(data)
    assert result.returncode == 65
    assert b" at byte " in result.stdout


# ---- secrets -------------------------------------------------------------------------------------

PASSCODE = b"geheim12"
FULL = with_info(*INFO)  # with a version name that is as long as the passcode
OTHERS = [REJECT, encode(ReleaseRequest()), pdu(4, b"\0\0\2\2\1\3", bytes(512))]


def dumped(stream: bytes) -> str:
    """Return everything that dump prints for a stream: as text and JSON, strict and lenient."""
    with redirect_stdout(io.StringIO()) as printed:
        for as_json in (False, True):
            for strict in (False, True):
                run_dump(stream.hex(), as_json, strict)
    return printed.getvalue()


def decoded(stream: bytes) -> Iterator[str]:
    """Yield the repr of the PDUs of a stream and the texts of the exceptions for it."""
    for strict in (False, True):
        for take in (Decoder.pdus, Decoder.fragments):
            decoder = Decoder(strict=strict)
            decoder.feed(stream)
            try:
                for each in take(decoder):
                    yield f"{each!r} {each}"
                decode(stream, strict=strict)
            except DecodeError as e:
                yield f"{e!r} {e} {e.__context__!r}"


def forms(secret: bytes) -> set[str]:
    text = secret.decode("latin-1")
    escaped = {ascii(text)[1:-1], json.dumps(text)[1:-1], repr(secret)[2:-1]}
    return {text, *escaped, secret.hex(), secret.hex(" ")}


def assert_kept(printed: str, *secrets: bytes) -> None:
    for secret in secrets:
        for form in forms(secret):
            assert form not in printed, printed


def test_a_cut_request_shows_no_part_of_a_passcode() -> None:
    wire = with_info(*INFO[:5])
    for end in range(len(wire)):
        text = dumped(REJECT + wire[:end])
        assert_kept(text, *(PASSCODE[n : n + 3] for n in range(6)))
    window = dumped(wire[:-2]).splitlines()[1]
    assert window == f"{len(wire) - 10:8}  ** ** ** ** ** ** ** **"


def test_the_first_bytes_of_another_protocol_are_shown_unless_a_request_came_before() -> None:
    foreign = b"HTTP/1.1 200 OK\r\n"
    before = "00 04 00 01 01 07 "
    shown = "48 54 54 50 2f 31 ** ** **"
    assert f"       0  {shown}\n          ^^\n" in dumped(foreign)
    assert f"       2  00 00 {before}{shown}\n" in dumped(REJECT + foreign)
    assert f"  {'** ' * 8}48{' **' * 8}\n" in dumped(FULL + foreign)
    assert f"  00 00 {before}48{' **' * 8}\n" in dumped(FULL + REJECT + foreign)


def test_the_header_of_the_item_at_fault_is_shown() -> None:
    wire = associate(1, item(0x10, b"1.2.3"), b"\x20\0\xff\xff\1\0\0\0")
    assert "  05 31 2e 32 2e 33 20 00 ff ff ** ** ** **\n" in dumped(wire)


def test_illegal_text_is_not_shown() -> None:
    wire = FULL.replace(b"\x55\0\0\x08", b"\x55\0\0\x0c")  # the length covers four more bytes
    assert "implementation version name: 12 bytes, not shown" in dumped(wire)
    for kind in (0x52, 0x55, 0x56):
        assert_kept(dumped(with_info(item(kind, counted(PASSCODE)))), PASSCODE)


@pytest.mark.slow
@pytest.mark.parametrize("after", [b"", *OTHERS, *(2 * other for other in OTHERS)])
def test_a_passcode_is_hidden_when_bytes_before_it_are_missing_or_added(after: bytes) -> None:
    passcode_at = FULL.index(PASSCODE)
    for at in range(passcode_at):
        assert_kept(dumped(FULL[:at] + FULL[passcode_at:] + after), PASSCODE)
        assert_kept(dumped(FULL[at:] + after), PASSCODE)
    for count in range(40):
        more = bytes(count)
        assert_kept(dumped(FULL[:passcode_at] + more + FULL[passcode_at:] + after), PASSCODE)


@pytest.mark.slow
def test_a_passcode_is_hidden_when_any_one_byte_of_the_request_changes() -> None:
    wire = with_info(*INFO[:5])
    for at in range(len(wire)):
        # The titles and the reserved bytes before the first item are read alike: a few values do.
        for value in (0, 1, 0xFF) if 10 <= at < 74 else (*range(5), *range(0x57, 0x5A), 0xFF):
            stream = wire[:at] + bytes([value]) + wire[at + 1 :] + REJECT
            assert_kept(dumped(stream) + "".join(decoded(stream)), PASSCODE)


def random_bytes(seed: int, size: int) -> bytes:
    """Return random bytes of every value, or letters alone, which are legal in titles and names."""
    random = Random(seed)
    if seed % 2:
        return random.randbytes(size)
    return "".join(random.choices(string.ascii_letters, k=size)).encode()


sizes = st.just(8) | st.integers(8, 40) | st.just(300)
passcodes = st.builds(random_bytes, st.integers(0, 1 << 32), sizes)
identities = st.builds(UserIdentity, st.integers(0, 5), st.integers(0, 1), passcodes, passcodes)


@st.composite
def with_secrets(draw: Any) -> tuple[bytes, tuple[bytes, ...]]:
    """An RQ or AC with a user identity or its response, and the secrets in it."""
    made: AssociateRequest | AssociateAccept = draw(requests | accepts)
    if isinstance(made, AssociateRequest):
        who = draw(identities)
        known, secrets = {"user_identity": who}, (who.primary, who.secondary)
    else:
        response = draw(passcodes)
        known, secrets = {"user_identity_response": UserIdentityResponse(response)}, (response,)
    info = dataclasses.replace(made.user_info, **known)
    return encode(dataclasses.replace(made, user_info=info)), secrets


@st.composite
def damaged(draw: Any, wire: bytes, places: Any) -> bytes:
    """Cut a wire, or change, remove or insert some of its bytes."""
    start, end = sorted((min(draw(places), len(wire)), min(draw(places), len(wire))))
    kind = draw(st.sampled_from(["cut", "changed", "changed", "deleted", "inserted"]))
    if kind == "cut":
        return wire[:start]
    if kind == "deleted":
        return wire[:start] + wire[end:]
    if kind == "inserted":
        return wire[:end] + draw(st.binary(max_size=40) | st.just(wire[start:end])) + wire[end:]
    value = draw(st.integers(0, 255) | st.integers(0, 9) | st.integers(0x50, 0x59))
    return wire[:start] + bytes([value]) + wire[start + 1 :]


@st.composite
def damaged_streams(draw: Any) -> tuple[bytes, tuple[bytes, ...]]:
    """Several PDUs with some damage, mostly next to lengths and secrets of an RQ or AC."""
    wire, secrets = draw(with_secrets())
    others = st.lists(pdus.map(encode) | st.sampled_from(OTHERS), max_size=2).map(b"".join)
    before, after = draw(others), draw(others)
    fields = [n for f in lengths(wire) for n in range(f.at - 2, f.at + f.size + 2)]
    ends = [wire.index(secret) + n for secret in secrets for n in (0, len(secret))]
    stream = before + wire + after
    near = (st.sampled_from(fields) | st.sampled_from(ends)).map(lambda n: n + len(before))
    places = near | st.integers(0, len(stream))
    for _ in range(draw(st.integers(0, 3))):
        stream = draw(damaged(stream, places))
    return stream, secrets


@pytest.mark.slow
@settings(max_examples=3 * settings().max_examples, deadline=None)
@given(damaged_streams())
def test_no_secret_of_a_damaged_stream_is_shown(
    case: tuple[bytes, tuple[bytes, ...]],
) -> None:
    stream, secrets = case
    assert_kept(dumped(stream) + "".join(decoded(stream)), *secrets)


@pytest.mark.slow
def test_an_argument_that_cannot_be_read_is_not_repeated() -> None:
    for wrong in (encode(SECRET).hex(":"), (encode(SECRET) * 9).hex(":")):
        result = dump(b"", wrong)
        assert result.returncode == 66
        assert len(result.stderr) < 80


def test_the_repr_of_a_value_hides_its_secret() -> None:
    text = PASSCODE.decode()
    info = UserInformation(
        implementation_class_uid=text,
        implementation_version_name=f"\2\1\0{text}",
        extended=(ExtendedNegotiation(text, PASSCODE),),
        common_extended=(CommonExtendedNegotiation(0, text, "1.2", (text,)),),
        user_identity=UserIdentity(2, 1, b"anna", PASSCODE),
        user_identity_response=UserIdentityResponse(PASSCODE),
    )
    contexts = (ProposedContext(1, text, (text,)),)
    shown = repr(AssociateRequest(f"\1{text}", f"\2{text}", contexts, text, info))
    assert_kept(shown, PASSCODE, b"anna")
    assert_kept(repr(Admission(identity={"anna": text})), PASSCODE, b"anna")
    assert repr(ExtendedNegotiation("1.2", b"")) == "ExtendedNegotiation(sop_class_uid='1.2')"
    proposed = "ProposedContext(id=1, abstract_syntax=<not shown>, transfer_syntaxes=('1.2',))"
    assert repr(ProposedContext(1, text, ("1.2",))) == proposed


def test_an_admission_that_is_refused_does_not_show_its_passcodes() -> None:
    for who in ({"anna": "geheim12\udcff"}, {"anna\udcff": "geheim12"}):
        with pytest.raises(ValueError, match="identity") as caught:
            Admission(identity=who).policy(0, False)
        assert_kept(repr(caught.value) + repr(caught.value.__context__), PASSCODE)
