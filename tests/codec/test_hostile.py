"""The codec against hostile bytes: C and Python give the same answer, and the expected one."""

from __future__ import annotations

import dataclasses
import functools
import re
import subprocess
import sys
import time
import timeit
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import ltdic
from ltdic import DecodeError, Decoder, IncompleteError, decode, encode
from ltdic.cli.fields import pdu_fields
from support import hostile as my
from support.hostile import associate, counted, item, pdu, with_info
from support.paths import TESTS
from support.process import memory_allowed, memory_in_use
from support.toolchain import Toolchain, run
from support.vectors import read_line, vectors

Group = Callable[[], Iterator[my.Case]]
groups = pytest.mark.parametrize("group", my.GROUPS, ids=lambda group: group.__name__)


# ---- answers ---------------------------------------------------------------------------------


def answer(wire: bytes, strict: bool = False) -> Any:
    """Return the PDU, or the fault in the form of the expected ones."""
    try:
        return decode(wire, strict=strict, max_associate=0)
    except IncompleteError as e:
        return e.kind, e.offset, e.need
    except DecodeError as e:
        return e.kind, e.offset


@functools.cache
def answers(group: Group) -> list[tuple[my.Case, Any, Any]]:
    """Return each case with its answers in Python, lenient and strict."""
    return [(case, answer(case.wire), answer(case.wire, strict=True)) for case in group()]


@pytest.fixture(scope="module", autouse=True)
def answers_are_freed() -> Iterator[None]:
    """Free the answers after this module: they are many objects, which slow down the collector."""
    yield
    answers.cache_clear()


def is_expected(said: Any, expected: my.Fault | None) -> bool:
    if expected == my.DECODES:
        return not isinstance(said, tuple)
    return expected is None or bool(said == expected)


@pytest.mark.slow
@groups
def test_hostile_bytes_give_a_value_or_the_expected_fault_at_its_offset(group: Group) -> None:
    for case, lenient, strict in answers(group):
        for said, expected in ((lenient, case.lenient), (strict, case.strict)):
            assert is_expected(said, expected), case.wire.hex()
            assert not isinstance(said, tuple) or 0 <= said[1] <= len(case.wire)
        assert isinstance(strict, tuple) or strict == lenient
    print(f"{len(answers(group))} inputs")


@functools.cache
def program(toolchain: Toolchain) -> Path:
    return toolchain.program(TESTS / "c" / "vectors.c", "c11")


def same(wire: bytes, in_c: str, in_python: Any) -> bool:
    found, at, more = read_line(in_c, wire)
    if isinstance(found, str):
        return bool(in_python == ((found, at, more) if more else (found, at)))
    if at < len(wire):  # C decodes the first PDU, Python the only one
        return bool(in_python == ("trailing_bytes", at))
    return more <= 4 + at // 2 and bool(found == in_python)


@pytest.mark.slow
@groups
def test_c_gives_the_same_for_hostile_bytes(codec_toolchain: Toolchain, group: Group) -> None:
    said = answers(group)
    lines = "\n".join(f"{s} 0 0 {case.wire.hex() or '-'}" for case, _, _ in said for s in (0, 1))
    printed = iter(run(program(codec_toolchain), input=lines).splitlines())
    for case, lenient, strict in said:
        assert same(case.wire, next(printed), lenient), case.wire.hex()
        assert same(case.wire, next(printed), strict), case.wire.hex()
    assert next(printed, None) is None


@pytest.mark.slow
@groups
def test_accepted_hostile_bytes_are_encoded_unchanged(group: Group) -> None:
    for case, lenient, _ in answers(group):
        if not isinstance(lenient, tuple):
            exact = decode(case.wire, max_associate=0, exact=True)
            assert exact == lenient
            assert encode(exact) == case.wire, case.wire.hex()


def test_the_expected_faults_cover_every_length_field() -> None:
    for wire in my.VALID + my.RICH:
        for field in my.lengths(wire):
            assert field.least <= field.value <= field.most
            assert all(outer.end >= field.end for outer in field.outer)
    found = [[field.kind for field in my.lengths(wire)] for wire in my.RICH]
    kinds = {0x10, 0x20, 0x21, 0x30, 0x40, *range(0x50, 0x5A)}
    assert kinds < {*found[0], *found[1]}
    assert [len(fields) for fields in found] == [26, 18, 4]  # counted by hand


# ---- values ----------------------------------------------------------------------------------


def texts_in(value: Any) -> Iterator[Any]:
    """Yield every text and byte string of a PDU."""
    if dataclasses.is_dataclass(value):
        value = tuple(getattr(value, field.name) for field in dataclasses.fields(value))
    if isinstance(value, tuple):
        for part in value:
            yield from texts_in(part)
    elif isinstance(value, (str, bytes)):
        yield value


def assert_only_this_text_differs(text: my.TextCase, expected: str | bytes) -> None:
    usual = my.TEXTS[text.kind][text.name]
    old = usual if isinstance(expected, bytes) else usual.decode()
    before = list(texts_in(answer(my.rich(text.kind))))
    after = list(texts_in(answer(text.case.wire)))
    assert after == [expected if found == old else found for found in before] != before


def test_a_long_name_is_decoded_whole() -> None:
    for text in my.long_texts():
        assert_only_this_text_differs(text, text.text.decode())


def test_hostile_text_is_decoded_unchanged_up_to_its_first_nul() -> None:
    for text in my.hostile_texts():
        is_text = text.name not in my.BYTES[text.kind]
        expected = text.text.partition(b"\0")[0].decode("latin-1") if is_text else text.text
        assert_only_this_text_differs(text, expected)


def test_hostile_text_is_shown_only_in_a_printable_title_or_version_name() -> None:
    for case in my.hostile_texts():
        texts = [field.text for field in pdu_fields(case.case.wire).fields]
        assert all(text.isascii() and text.isprintable() for text in texts)
        printable = all(0x20 <= byte <= 0x7E for byte in case.text)
        is_shown = any(text.startswith(ascii(case.text.decode("latin-1"))) for text in texts)
        assert is_shown == (printable and case.name in (*my.TITLES, "name"))


def test_an_identity_in_a_wrong_place_is_not_shown() -> None:
    for kind, who in (
        (2, item(0x58, b"\2\1", counted(b"jdoe"), counted(b"hunter2"))),
        (1, item(0x59, counted(b"jdoe hunter2"))),
    ):
        wire = with_info(who, kind=kind)
        assert answer(wire).user_info.unknown[0].value == who[4:]
        shown = repr(answer(wire)) + repr(pdu_fields(wire))
        assert not any(secret in shown for secret in ("jdoe", "6a 64 6f 65", "hunter2"))


def test_the_first_four_bytes_of_a_longer_fixed_item_count() -> None:
    for size in range(4, 9):
        value = bytes(range(1, size + 1))
        info = answer(associate(1, item(0x50, item(0x51, value), item(0x53, value)))).user_info
        assert info.max_length == 0x01020304
        assert info.async_ops == ltdic.AsyncOperations(0x0102, 0x0304)


@pytest.mark.parametrize("name", my.OTHERS)
def test_another_protocol_is_refused_at_its_first_byte_or_its_sixth(name: str) -> None:
    sent, fault = my.OTHERS[name]
    decoder = Decoder(max_pdata=16384)
    for count, byte in enumerate(sent, 1):
        decoder.feed(bytes([byte]))
        try:
            assert list(decoder.pdus()) == []
        except DecodeError as e:
            assert (count, e.kind, e.offset) == (1 if fault == my.NO_TYPE else 6, *fault)
            return
        assert decoder.need == 6
    pytest.fail("nothing is wrong with it")


SCRIPT = """
import json, sys
from ltdic import decode
for vector in json.load(open(sys.argv[1]))["vectors"]:
    for strict in (False, True):
        try:
            pdu = decode(bytes.fromhex(vector["hex"]), strict=strict, **vector.get("config", {}))
            print([bytes(pdv.data) for pdv in pdu.pdvs] if pdu.type == 4 else pdu)
        except ValueError as e:
            print(e)
print(__debug__)
"""


@pytest.mark.slow
def test_decoding_does_not_depend_on_assertions() -> None:
    said = []
    for options in ([], ["-O"]):
        command = [sys.executable, *options, "-c", SCRIPT, TESTS / "vectors" / "invalid.json"]
        ran = subprocess.run(command, capture_output=True, check=True, text=True, cwd=TESTS)
        said.append(ran.stdout.splitlines())
    assert [lines.pop() for lines in said] == ["True", "False"]
    assert said[0] == said[1]
    assert len(said[0]) == 2 * 257


# ---- time and memory -------------------------------------------------------------------------


def full_context(n: int) -> bytes:
    """Return a context of 65535 bytes."""
    transfers = item(0x40, b"1.2." + b"3" * 60) * 963
    return item(0x20, bytes([2 * n + 1, 0, 0, 0]), item(0x30, b"1" * 43), transfers)


def largest(count: int) -> bytes:
    contexts = map(full_context, range(count))
    return associate(1, item(0x10, b"1" * 65535), *contexts, item(0x50, item(0x77, bytes(65531))))


def test_the_largest_possible_request_is_decoded() -> None:
    wire = largest(128)
    assert len(wire) == 6 + 8_520_138
    assert len(answer(wire).contexts) == 128


# A function that repeats an item, and the number of repetitions to start from.
GROWING: dict[str, tuple[Callable[[int], bytes], int]] = {
    "contexts of 65535 bytes": (largest, 16),
    "transfer syntaxes": (lambda n: associate(1, item(0x20, bytes(4), item(0x40) * n)), 2_000),
    "roles": (lambda n: with_info(*my.distinct(0x54, n)), 500),
    "extended negotiations": (lambda n: with_info(*my.distinct(0x56, n)), 500),
    "identities": (lambda n: with_info(item(0x58, bytes(6)) * n), 800),
    "related UIDs": (lambda n: with_info(item(0x57, bytes(4), counted(bytes(2 * n)))), 4_000),
    "unknown sub-items": (lambda n: with_info(item(0x77) * n), 2_000),
    "unknown items": (lambda n: associate(1, item(0x77) * n), 10_000),
    "user information items": (lambda n: associate(1, item(0x50, item(0x77)) * n), 10_000),
    "PDVs": (lambda n: pdu(4, bytes.fromhex("00000002 0100") * n), 10_000),
}


@pytest.mark.slow
@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("what", GROWING)
def test_eight_times_the_bytes_take_about_eight_times_as_long(what: str, strict: bool) -> None:
    make, n = GROWING[what]

    def per_byte(wire: bytes) -> float:
        timer = timeit.Timer(lambda: answer(wire, strict), timer=time.thread_time)
        return min(timer.repeat(number=1, repeat=3)) / len(wire)

    def growth() -> float:
        return per_byte(make(8 * n)) / per_byte(make(n))

    # Quadratic time would give 8 in every round.
    assert any(growth() < 4 for _ in range(5))


@pytest.mark.slow
def test_malformed_pdus_leave_no_memory_behind() -> None:
    wires = [bytes.fromhex(param.values[0]["hex"]) for param in vectors("invalid.json")]
    before = 0
    for n in range(100_000):
        if n == 5_000:
            before = memory_in_use()
        answer(wires[n % len(wires)], strict=n // len(wires) % 2 == 1)
    assert memory_in_use() - before < memory_allowed(1 << 20)


@pytest.mark.parametrize("kind", [1, 2, 4])
def test_a_length_of_4_gib_takes_no_memory(kind: int) -> None:
    before = memory_in_use()
    decoder = Decoder(max_associate=0)
    decoder.feed(bytes([kind, 0]) + b"\xff" * 4 + bytes(1000))
    assert list(decoder.pdus()) == []
    assert (decoder.pending, decoder.need) == (1006, 6 + 0xFFFFFFFF)
    assert memory_in_use() - before < memory_allowed(1 << 20)


@pytest.mark.slow
def test_the_codec_calls_no_allocator(codec_toolchain: Toolchain) -> None:
    folder = codec_toolchain.library.parent
    allocators = {"malloc", "calloc", "realloc", "reallocarray", "free", "strdup", "aligned_alloc"}

    def called_by(name: str) -> set[str]:
        printed = run("nm", "--undefined-only", folder / f"{name}.o")
        return {re.sub("^_+|@.*", "", line.split()[-1]) for line in printed.splitlines()}

    for name in ("framing", "text", "rejects", "pdu_decode", "pdu_encode", "stream", "status"):
        assert not called_by(name) & allocators
    assert called_by("endpoint") & allocators
