"""The test vectors in Python and in C; exact decoding and encoding gives the same bytes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from random import Random
from typing import Any

import pytest

import ltdic
from ltdic import DecodeError, Decoder, decode, encode
from support.paths import TESTS
from support.strategies import Untidy, reserved_bytes
from support.toolchain import Toolchain, run
from support.vectors import read_line, vectors

VALID, INVALID, STREAMS = (
    [param.values[0] for param in vectors(name)]
    for name in ("valid.json", "invalid.json", "streams.json")
)
TOLERATED = [vector for vector in INVALID if vector["lenient"]["ok"]]
MODES = ("strict", "lenient")
LIMITS = {"max_pdata": 0, "max_associate": 1 << 20}

Answer = dict[str, Any]
Question = tuple[bytes, str, dict[str, int]]  # a PDU, the mode, the limits


def plain(value: Any) -> Any:
    """Return a decoded value in the form of the vectors."""
    if isinstance(value, (bytes, memoryview)):
        return bytes(value).hex()
    if dataclasses.is_dataclass(value):
        names = [f.name for f in dataclasses.fields(value) if f.name != "wire"]
        return {name: plain(getattr(value, name)) for name in names}
    return [plain(item) for item in value] if isinstance(value, tuple) else value


def value_of(pdu: ltdic.PDU, size: int) -> dict[str, Any]:
    """Return a PDU of this size in the form of the vectors."""
    value: dict[str, Any] = {"type": pdu.type, "pdu_length": size - 6, **plain(pdu)}
    if value.get("user_info"):
        foreign = "user_identity_response" if pdu.type == 1 else "user_identity"
        assert value["user_info"].pop(foreign) is None
    for pdv in value.get("pdvs", ()):
        pdv["length"] = len(pdv["data"]) // 2
        if pdv["length"] > 64:
            del pdv["data"]
    return value


def fault_of(kind: str, offset: int, need: int) -> Answer:
    more = {"need": need} if kind == "need_more" else {}
    return {"ok": False, "kind": kind, "offset": offset, **more}


# ---- in Python -------------------------------------------------------------------------------


def decoded(wire: bytes, mode: str, limits: dict[str, int]) -> Answer:
    try:
        pdu = decode(wire, strict=mode == "strict", **limits)
    except DecodeError as e:
        return fault_of(e.kind, e.offset, getattr(e, "need", 0))
    return {"ok": True, "consumed": len(wire), "expect": value_of(pdu, len(wire))}


def python(questions: list[Question]) -> list[Answer]:
    return [decoded(*question) for question in questions]


def python_streams(streams: list[Any]) -> list[Answer]:
    """Return for each stream the types and sizes of its PDUs, and its end."""
    answers = []
    for stream in streams:
        decoder = Decoder(strict=stream["mode"] == "strict", **stream.get("config", {}), exact=True)
        pdus, final = [], None
        for chunk in stream["chunks"]:
            decoder.feed(bytes.fromhex(chunk))
            try:
                for pdu in decoder.pdus():
                    pdus.append({"type": pdu.type, "consumed": len(pdu.wire)})
            except DecodeError as e:
                final = fault_of(e.kind, e.offset, 0)
                break
        final = final or fault_of("need_more", decoder.pending, decoder.need)
        answers.append({"pdus": pdus, "final": final})
    return answers


# ---- in C ------------------------------------------------------------------------------------


def line_of(mode: str, limits: dict[str, int]) -> str:
    limits = LIMITS | limits
    return f"{mode == 'strict':d} {limits['max_pdata']} {limits['max_associate']}"


def answer_of(line: str, wire: bytes) -> Answer:
    found, at, more = read_line(line, wire)
    if isinstance(found, str):
        return fault_of(found, at, more)
    return {"ok": True, "consumed": at, "expect": value_of(found, at)}


class InC:
    """The program vectors.c as one compiler builds it."""

    def __init__(self, toolchain: Toolchain) -> None:
        self._program = toolchain.program(TESTS / "c" / "vectors.c", "c11")

    def _ask(self, lines: list[str]) -> list[str]:
        answers = run(self._program, input="\n".join(lines)).splitlines()
        assert len(answers) == len(lines)
        return answers

    def pdus(self, questions: list[Question]) -> list[Answer]:
        lines = [f"{line_of(mode, limits)} {w.hex() or '-'}" for w, mode, limits in questions]
        answers = self._ask(lines)
        return [answer_of(answer, w) for answer, (w, _, _) in zip(answers, questions, strict=True)]

    def streams(self, streams: list[Any]) -> list[Answer]:
        lines = []
        for stream in streams:
            head = line_of(stream["mode"], stream.get("config", {}))
            lines.append(f"stream {head} {' '.join(stream['chunks'])}")
        answers = []
        for line in self._ask(lines):
            *pdus, kind, offset, need = line.split()
            sizes = [pdu.split(":") for pdu in pdus]
            found = [{"type": int(kind), "consumed": int(size)} for kind, size in sizes]
            answers.append({"pdus": found, "final": fault_of(kind, int(offset), int(need))})
        return answers


# ---- all vectors -----------------------------------------------------------------------------


def questions_of(vector: dict[str, Any]) -> list[tuple[Question, Answer]]:
    """Return the questions for both modes of a vector, with the expected answers."""
    wire = bytes.fromhex(vector["hex"])
    valid = {"ok": True, "consumed": vector.get("consumed"), "expect": vector.get("expect")}
    limits = vector.get("config", {})
    return [((wire, mode, limits), vector.get(mode, valid)) for mode in MODES]


def check_all(
    name: str,
    pdus: Callable[[list[Question]], list[Answer]],
    streams: Callable[[list[Any]], list[Answer]],
) -> None:
    asked = [(v["id"], *case) for v in [*VALID, *INVALID] for case in questions_of(v)]
    answers = pdus([question for _, question, _ in asked])
    wrong = {
        ident: (question[1], answer, expected)
        for (ident, question, expected), answer in zip(asked, answers, strict=True)
        if answer != expected
    }
    for vector, answer in zip(STREAMS, streams(STREAMS), strict=True):
        expected = {"pdus": vector["pdus"], "final": {"ok": False, **vector["final"]}}
        if answer != expected:
            wrong[vector["id"]] = (vector["mode"], answer, expected)
    total = len(VALID) + len(INVALID) + len(STREAMS)
    print(f"{total - len(wrong)} of {total} vectors in {name}")
    assert not wrong
    assert total == 454


def test_every_vector_gives_its_expected_answer_in_python() -> None:
    check_all("Python", python, python_streams)


@pytest.mark.slow
def test_every_vector_gives_its_expected_answer_in_c(codec_toolchain: Toolchain) -> None:
    in_c = InC(codec_toolchain)
    check_all(f"C ({codec_toolchain.name})", in_c.pdus, in_c.streams)


def test_every_canonical_vector_is_encoded_to_the_byte() -> None:
    canonical = [vector for vector in VALID if vector["reencode"]]
    assert len(canonical) > 100
    for vector in canonical:
        assert encode(decode(bytes.fromhex(vector["hex"]))).hex() == vector["hex"], vector["id"]


def test_every_fault_has_the_a_abort_reason_of_the_standard() -> None:
    """PS3.8 table 9-26: unrecognised PDU, unexpected or invalid PDU parameter."""
    reasons = {"bad_pdu_type": 1, "need_more": 0}
    for vector in INVALID:
        wire = bytes.fromhex(vector["hex"])
        with pytest.raises(DecodeError) as caught:
            decode(wire, strict=True, **vector.get("config", {}))
        reason = 5 if vector["id"].startswith("dir-") else reasons.get(caught.value.kind, 6)
        assert caught.value.abort == ltdic.Abort(2, reason), vector["id"]


# ---- to the byte -----------------------------------------------------------------------------


def with_random_reserved_bytes(wire: bytes, random: Random) -> bytes:
    changed = bytearray(wire)
    for place in reserved_bytes(wire):
        changed[place] = random.randrange(256)
    return bytes(changed)


def untested_bytes() -> list[tuple[bytes, Answer]]:
    """Return each valid vector with ten sets of random reserved bytes, and its expected answer."""
    random = Random(1)
    cases = []
    for vector in VALID:
        wire = bytes.fromhex(vector["hex"])
        expected = {"ok": True, "consumed": len(wire), "expect": vector["expect"]}
        cases += [(with_random_reserved_bytes(wire, random), expected) for _ in range(10)]
    return cases


@pytest.mark.slow
def test_reserved_bytes_change_no_value_and_are_encoded_again() -> None:
    cases = untested_bytes()
    for wire, expected in cases:
        for mode in MODES:
            assert decoded(wire, mode, {}) == expected
        assert encode(decode(wire, exact=True)) == wire
    print(f"{len(VALID)} of {len(VALID)} valid vectors with {len(cases)} random fillings")


@pytest.mark.slow
def test_reserved_bytes_change_no_value_and_are_encoded_again_in_c(
    codec_toolchain: Toolchain,
) -> None:
    cases = untested_bytes()
    answers = InC(codec_toolchain).pdus([(wire, "strict", {}) for wire, _ in cases])
    assert answers == [expected for _, expected in cases]


@pytest.mark.slow
def test_ten_thousand_untidy_pdus_are_encoded_to_the_same_bytes() -> None:
    untidy = Untidy(seed=2)
    for _ in range(10_000):
        wire = untidy.pdu()
        pdu = decode(wire, strict=True, exact=True)
        assert encode(pdu) == wire
        assert decode(wire) == pdu
    print("10000 of 10000 untidy PDUs")


@pytest.mark.slow
def test_ten_thousand_untidy_pdus_are_encoded_to_the_same_bytes_in_c(
    codec_toolchain: Toolchain,
) -> None:
    untidy = Untidy(seed=3)
    questions = [(untidy.pdu(), "strict", LIMITS) for _ in range(10_000)]
    assert all(answer["ok"] for answer in InC(codec_toolchain).pdus(questions))


@pytest.mark.parametrize("vector", TOLERATED, ids=lambda vector: vector["id"])
def test_a_pdu_that_only_lenient_mode_accepts_is_encoded_to_the_same_bytes(
    vector: dict[str, Any],
) -> None:
    wire = bytes.fromhex(vector["hex"])[: vector["lenient"]["consumed"]]
    assert encode(decode(wire, exact=True)) == wire
