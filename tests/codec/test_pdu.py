"""The codec in Python: properties that hold for all PDUs and all bytes."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from array import array
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import ltdic
from ltdic import (
    AcseReason,
    AssociateReject,
    DecodeError,
    Decoder,
    Fragment,
    IncompleteError,
    PresentationReason,
    RejectResult,
    RejectSource,
    UserReason,
    _codec,
    decode,
    encode,
    ffi,
)
from ltdic._native import codec
from support import strategies as my
from support.process import memory_allowed, memory_in_use
from support.rejections import DEFINED

# ---- rejections ------------------------------------------------------------------------------


@given(my.triples, st.binary(min_size=2, max_size=2))
def test_the_codes_of_any_reject_are_received_raw(
    codes: tuple[int, int, int], reserved: bytes
) -> None:
    wire = b"\x03" + reserved[:1] + b"\0\0\0\x04" + reserved[1:] + bytes(codes)
    pdu = decode(wire)
    assert (pdu.result, pdu.source, pdu.reason) == codes
    assert encode(pdu) == b"\x03\0\0\0\0\x04\0" + bytes(codes)
    assert isinstance(str(pdu), str)
    assert isinstance(pdu.advice, str)
    assert pdu.transient is (codes[0] == 2)


def test_defined_codes_are_enum_members_and_others_plain_integers() -> None:
    kinds = {1: UserReason, 2: AcseReason, 3: PresentationReason}
    for codes in DEFINED:
        pdu = AssociateReject(*codes)
        assert type(pdu.result) is RejectResult
        assert type(pdu.source) is RejectSource
        assert type(pdu.reason) is kinds[codes[1]]
    for codes in [(0, 4, 9), (3, 0, 0), (255, 255, 255), (1, 1, 4), (1, 3, 0), (1, 2, 7)]:
        pdu = AssociateReject(*codes)
        assert type(pdu.reason) is int
        assert (pdu.result, pdu.source, pdu.reason) == codes


def test_the_text_of_a_reject_has_its_reason_and_advice() -> None:
    pdu = AssociateReject(1, 1, 7)
    sentence = "Rejected permanently by the service user: called AE title not recognised"
    assert str(pdu) == f"{sentence} (result 1, source 1, reason 7)."
    assert "called AE title" in pdu.advice
    assert "undefined reason 8" in str(AssociateReject(1, 3, 8))


def test_the_reason_of_a_reject_is_an_enum_of_its_source() -> None:
    changed = dataclasses.replace(AssociateReject(1, 1, 7), source=3)
    assert type(changed.reason) is int
    assert changed == AssociateReject(1, 3, 7)


@given(my.pdus)
def test_every_pdu_and_every_fault_can_be_copied(pdu: ltdic.PDU) -> None:
    wire = encode(pdu)
    decoded = decode(wire, exact=True)
    copied = pickle.loads(pickle.dumps(decoded))
    assert (copied, copied.wire, copy.deepcopy(decoded)) == (decoded, wire, decoded)
    for broken in (wire[:-1], b"\x09" + wire[1:]):
        with pytest.raises(DecodeError) as caught:
            decode(broken)
        again = pickle.loads(pickle.dumps(caught.value))
        assert (type(again), str(again), vars(again)) == (
            type(caught.value),
            str(caught.value),
            vars(caught.value),
        )


def test_pdus_are_values() -> None:
    pdu = AssociateReject(2, 3, 1)
    assert pdu == AssociateReject(2, 3, 1)
    assert hash(pdu) == hash(AssociateReject(2, 3, 1))
    assert pickle.loads(pickle.dumps(pdu)) == pdu
    with pytest.raises(dataclasses.FrozenInstanceError):
        pdu.result = 1  # type: ignore[misc]


@given(my.triples, st.integers(0, 0xFFFFFFFF))
def test_a_reject_of_any_other_length_is_refused_at_its_length(
    codes: tuple[int, int, int], length: int
) -> None:
    wire = b"\x03\0" + length.to_bytes(4, "big") + b"\0" + bytes(codes)
    if length == 4:
        assert decode(wire) == AssociateReject(*codes)
        return
    with pytest.raises(DecodeError) as caught:
        decode(wire)
    assert (caught.value.kind, caught.value.offset) == ("bad_length", 2)
    assert caught.value.abort == ltdic.Abort(2, 6)


@given(my.triples, st.integers(0, 9))
def test_a_truncated_reject_needs_more(codes: tuple[int, int, int], size: int) -> None:
    with pytest.raises(IncompleteError) as caught:
        decode(encode(AssociateReject(*codes))[:size])
    assert caught.value.offset == size
    assert caught.value.need == (6 if size < 6 else 10)


@given(my.triples, st.binary(min_size=1, max_size=50))
def test_bytes_after_a_reject_are_trailing(codes: tuple[int, int, int], after: bytes) -> None:
    with pytest.raises(DecodeError) as caught:
        decode(encode(AssociateReject(*codes)) + after)
    assert (caught.value.kind, caught.value.offset) == ("trailing_bytes", 10)


@given(my.mutated(my.rejects.map(encode)))
def test_a_mutated_reject_is_decoded_or_refused_with_a_place(wire: bytes) -> None:
    try:
        decode(wire)
    except DecodeError as e:
        assert 0 <= e.offset <= len(wire)
    else:
        assert wire[0] in (3, 5, 6, 7)


@given(st.lists(my.rejects, max_size=5), st.binary(min_size=1).filter(lambda b: not 1 <= b[0] <= 7))
def test_rejects_before_garbage_are_returned_before_the_error(
    sent: list[AssociateReject], garbage: bytes
) -> None:
    decoder = Decoder()
    decoder.feed(b"".join(map(encode, sent)) + garbage)
    pdus = decoder.pdus()
    assert [next(pdus) for _ in sent] == sent
    for _ in range(2):
        with pytest.raises(DecodeError) as caught:
            next(decoder.pdus())
        assert (caught.value.kind, caught.value.offset) == ("bad_pdu_type", 0)


# ---- all PDUs --------------------------------------------------------------------------------


@pytest.mark.slow
@given(my.pdus)
def test_an_encoded_pdu_is_decoded_to_the_same_value(pdu: ltdic.PDU) -> None:
    assert decode(encode(pdu)) == pdu


@pytest.mark.slow
@given(my.strict_pdus)
def test_strict_mode_accepts_every_pdu_that_the_standard_allows(pdu: ltdic.PDU) -> None:
    wire = encode(pdu)
    assert decode(wire, strict=True) == decode(wire)


@given(st.lists(st.tuples(st.sampled_from([0x54, 0x56]), st.sampled_from(["1", "1.2", "2.1"]))))
def test_strict_mode_finds_the_first_repeated_uid(items: list[tuple[int, str]]) -> None:
    sub_items = [b"\x51\0\0\x04\0\0\0\0", b"\x52\0\0\x031.2"]
    for kind, uid in items:
        value = len(uid).to_bytes(2, "big") + uid.encode() + b"\0\0"
        sub_items.append(bytes([kind, 0]) + len(value).to_bytes(2, "big") + value)
    value = b"".join(sub_items)
    head = encode(request(contexts=(PROPOSED,)))
    wire = bytearray(head + b"\x50\0" + len(value).to_bytes(2, "big") + value)
    wire[2:6] = (len(wire) - 6).to_bytes(4, "big")
    repeats = [n for n, item in enumerate(items) if item in items[:n]]
    if not repeats:
        assert decode(wire, strict=True) == decode(wire)
        return
    with pytest.raises(DecodeError) as caught:
        decode(wire, strict=True)
    before = sum(map(len, sub_items[: 2 + repeats[0]]))
    assert caught.value.kind == "duplicate_item"
    assert caught.value.offset == len(head) + 4 + before


@given(my.pdus, st.data())
def test_every_proper_prefix_needs_more(pdu: ltdic.PDU, data: st.DataObject) -> None:
    wire = encode(pdu)
    size = data.draw(st.integers(0, len(wire) - 1))
    with pytest.raises(IncompleteError) as caught:
        decode(wire[:size])
    assert caught.value.need == (6 if size < 6 else len(wire))


@pytest.mark.slow
@given(my.chopped(my.pdus.map(encode)))
def test_chunking_does_not_change_the_received_pdus(case: tuple[bytes, list[bytes]]) -> None:
    wire, chunks = case
    whole, pieces = Decoder(), Decoder()
    whole.feed(wire)
    received = []
    for chunk in chunks:
        pieces.feed(chunk)
        received += list(pieces.pdus())
    assert received == list(whole.pdus())
    assert b"".join(map(encode, received)) == wire
    assert whole.pending == pieces.pending == 0


@given(my.mutated(my.pdus.map(encode)), st.booleans())
def test_a_mutated_pdu_is_decoded_or_raises_a_decode_error(wire: bytes, strict: bool) -> None:
    try:
        decode(wire, strict=strict)
    except DecodeError as e:
        assert 0 <= e.offset <= len(wire)


@given(st.binary(max_size=300), st.sampled_from([b"", b"\x01", b"\x02", b"\x04"]), st.booleans())
def test_garbage_is_decoded_or_raises_a_decode_error(
    body: bytes, head: bytes, strict: bool
) -> None:
    wire = head + b"\0" + len(body).to_bytes(4, "big") + body if head else body
    try:
        lenient = decode(wire)
    except DecodeError as e:
        assert 0 <= e.offset <= len(wire)
        with pytest.raises(DecodeError):
            decode(wire, strict=True)
        return
    if strict:
        try:
            assert decode(wire, strict=True) == lenient
        except DecodeError as e:
            assert e.kind not in ("need_more", "bad_pdu_type", "too_large")


def joined(decoder: Decoder, chunks: list[bytes]) -> list[ltdic.PDU]:
    """Return what `fragments` yields, with the parts of each P-DATA-TF joined."""
    pdus: list[ltdic.PDU] = []
    pdvs: list[ltdic.PDV] = []
    for chunk in chunks:
        decoder.feed(chunk)
        for piece in decoder.fragments():
            if not isinstance(piece, Fragment):
                assert not pdvs
                pdus.append(piece)
                continue
            before = b"" if piece.begins else bytes(pdvs.pop().data)
            data = before + bytes(piece.data)
            pdvs.append(ltdic.PDV(piece.context_id, piece.is_command, piece.is_last, data))
            if piece.ends_pdu:
                assert piece.ends
                pdus.append(ltdic.DataTransfer(tuple(pdvs)))
                pdvs.clear()
    return pdus


@pytest.mark.slow
@given(my.chopped(my.pdus.map(encode)))
def test_fragments_are_the_same_data(case: tuple[bytes, list[bytes]]) -> None:
    wire, chunks = case
    whole, pieces = Decoder(), Decoder()
    whole.feed(wire)
    assert joined(pieces, chunks) == list(whole.pdus())
    assert pieces.pending == 0


@given(my.mutated(my.transfers.map(encode)), st.booleans())
def test_a_fault_in_fragments_is_the_fault_of_the_whole_pdu(wire: bytes, strict: bool) -> None:
    faults = []
    for method in (Decoder.pdus, Decoder.fragments):
        decoder = Decoder(strict=strict)
        try:
            decoder.feed(wire)
            for _ in method(decoder):
                pass
            faults.append(None)
        except DecodeError as e:
            faults.append((e.kind, e.offset))
    pdus, fragments = faults
    # An incomplete PDU is not a fault, but `fragments` reports a fault inside it at once.
    assert pdus == fragments or pdus is None


def test_fragments_come_before_their_pdu_is_complete() -> None:
    decoder = Decoder()
    decoder.feed(bytes.fromhex("0400ffffffff fffffffb 03 02"))
    decoder.feed(b"abc")
    (piece,) = decoder.fragments()
    assert (piece.context_id, piece.is_command, piece.is_last) == (3, False, True)
    assert (piece.begins, piece.ends, bytes(piece.data)) == (True, False, b"abc")
    assert decoder.pending == 0
    with pytest.raises(RuntimeError, match="fragments"):
        next(decoder.pdus())
    decoder.feed(b"de")
    (piece,) = decoder.fragments()
    assert (piece.begins, bytes(piece.data)) == (False, b"de")


def test_fragments_continue_a_pdu_that_pdus_has_begun() -> None:
    decoder = Decoder()
    decoder.feed(bytes.fromhex("0400ffffffff fffffffb 03 02") + b"abc")
    assert list(decoder.pdus()) == []
    (piece,) = decoder.fragments()
    assert bytes(piece.data) == b"abc"


def test_a_kept_pdus_iterator_raises_after_fragments_and_loses_nothing() -> None:
    decoder, data = Decoder(), bytes.fromhex("0400 0000000a 00000006 03 02 01020304")
    decoder.feed(encode(AssociateReject(1, 1, 1)))
    pdus = decoder.pdus()
    next(pdus)
    decoder.feed(data[:13])
    assert len(list(decoder.fragments())) == 1
    with pytest.raises(RuntimeError, match="fragments"):
        next(pdus)
    decoder.feed(data[13:])
    (piece,) = decoder.fragments()
    assert piece.ends_pdu
    assert list(decoder.pdus()) == []


def test_feeding_anything_but_bytes_is_a_type_error() -> None:
    decoder = Decoder()
    for value in (5, None, [3, 0], "text"):
        with pytest.raises(TypeError):
            decoder.feed(value)  # type: ignore[arg-type]
    assert decoder.pending == 0
    decoder.feed(array("H", [0x0003]))  # type: ignore[arg-type]
    assert decoder.pending == 2


def test_feeding_during_iteration_does_not_copy_the_backlog() -> None:
    decoder, wire = Decoder(), encode(AssociateReject(1, 1, 1))
    decoder.feed(wire * 1000)
    taken = 0
    for _ in decoder.pdus():
        taken += 1
        if taken < 1000:
            decoder.feed(wire)
            assert len(decoder._data) == 10 * 1000
    assert taken == 1999
    assert (decoder.pending, len(decoder._data)) == (0, 0)


def test_a_gibibyte_in_one_pdu_needs_no_memory() -> None:
    size, chunk = 1 << 30, bytes(1 << 16)
    decoder, received, most = Decoder(), 0, 0
    decoder.feed(b"\x04\0" + (size + 6).to_bytes(4, "big"))
    decoder.feed((size + 2).to_bytes(4, "big") + b"\x01\x02")
    before = memory_in_use()
    for n in range(size // len(chunk)):
        decoder.feed(chunk)
        received += sum(len(piece.data) for piece in decoder.fragments())
        if n % 256 == 0:
            most = max(most, memory_in_use() - before)
    assert received == size
    assert not decoder.pending
    assert most < memory_allowed(4 << 20)
    print(f"1 GiB in one P-DATA-TF: at most {most / 1024:.0f} KiB more")


def test_a_pdv_is_a_view_of_the_input() -> None:
    wire = bytearray(bytes.fromhex("04000000000a 00000006 01 03 01020304"))
    pdv = decode(wire).pdvs[0]
    wire[12] = 0xFF
    assert bytes(pdv.data) == b"\xff\x02\x03\x04"
    assert pdv.data.readonly


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_bytes_like_object_is_decoded(kind: Any) -> None:
    wire = encode(AssociateReject(1, 2, 3))
    decoder = Decoder()
    decoder.feed(kind(wire))
    assert list(decoder.pdus()) == [decode(kind(wire))]


# ---- encoding --------------------------------------------------------------------------------


IDENTITY = ltdic.UserIdentity(1, 0, b"jdoe")
RESPONSE = ltdic.UserIdentityResponse(b"")
COMMON = ltdic.CommonExtendedNegotiation(256, "1.2", "1.3")
PROPOSED = ltdic.ProposedContext(1, "1.2.840.10008.1.1", ("1.2.840.10008.1.2",))


def request(**fields: Any) -> ltdic.AssociateRequest:
    return ltdic.AssociateRequest(**{"called_ae": "A", "calling_ae": "B", **fields})


def identified(identity: ltdic.UserIdentity) -> ltdic.AssociateRequest:
    return request(user_info=ltdic.UserInformation(user_identity=identity))


@pytest.mark.parametrize(
    ("pdu", "field"),
    [
        (request(called_ae=""), "called_ae"),
        (request(calling_ae="seventeen letters"), "calling_ae"),
        (request(calling_ae="back\\slash"), "calling_ae"),
        (request(called_ae="snow \u2603"), "called_ae"),
        (request(application_context="1..2"), "application_context"),
        (request(protocol_version=65536), "protocol_version"),
        (request(contexts=(ltdic.ProposedContext(1, "x"),)), "abstract_syntax"),
        (request(contexts=(ltdic.ProposedContext(1, "1.2", ("",)),)), "transfer_syntaxes"),
        (request(contexts=(ltdic.ProposedContext(256, "1.2"),)), "contexts"),
        (request(user_info=ltdic.UserInformation(max_length=-1)), "max_length"),
        (
            request(user_info=ltdic.UserInformation(implementation_version_name="\n")),
            "implementation_version_name",
        ),
        (request(unknown_items=(ltdic.UnknownItem(0x60, bytes(65536)),)), "unknown_items"),
        (request(user_info=ltdic.UserInformation(common_extended=(COMMON,))), "common_extended"),
        (AssociateReject(256, 1, 1), "reject"),
        (ltdic.Abort(0, -1), "abort"),
        (ltdic.DataTransfer(()), "pdvs"),
    ],
)
def test_a_field_that_cannot_be_encoded_is_named(pdu: ltdic.PDU, field: str) -> None:
    with pytest.raises(ValueError, match=f"^{field}(: | is )"):
        encode(pdu)


@pytest.mark.parametrize(
    ("pdu", "field"),
    [
        (request(called_ae=None), "called_ae"),
        (request(contexts=(ltdic.ContextResult(1, 3),)), "contexts"),
        (request(contexts=(ltdic.ProposedContext(1, "1.2", "1.2.3"),)), "transfer_syntaxes"),
        (ltdic.AssociateAccept("A", "B", (PROPOSED,)), "contexts"),
        (identified(ltdic.UserIdentity(1, 0, "a secret")), "user_identity"),
        (identified(ltdic.UserIdentity(1, 0, 5)), "user_identity"),
        (ltdic.DataTransfer((ltdic.PDV(1, True, True, "text"),)), "pdvs"),
        (None, "pdu"),
    ],
)
def test_a_value_of_a_wrong_type_is_named_and_not_shown(pdu: Any, field: str) -> None:
    with pytest.raises(TypeError, match=f"^{field}") as caught:
        encode(pdu)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("pdu", [ltdic.Abort(0.5, 0), request(protocol_version=1.0)])
def test_a_code_that_is_no_integer_is_a_type_error(pdu: Any) -> None:
    with pytest.raises(TypeError):
        encode(pdu)


@pytest.mark.parametrize(
    "pdu",
    [
        request(unknown_items=(ltdic.UnknownItem(0x10, b"1.2"),)),
        request(user_info=ltdic.UserInformation(unknown=(ltdic.UnknownItem(0x51, b"ab"),))),
        request(user_info=ltdic.UserInformation(user_identity_response=RESPONSE)),
        ltdic.AssociateAccept("A", "B", user_info=identified(IDENTITY).user_info),
    ],
)
def test_a_value_that_would_be_decoded_differently_is_not_encoded(pdu: ltdic.PDU) -> None:
    with pytest.raises(ValueError, match="a value is not legal"):
        encode(pdu)


def test_the_bytes_of_a_wide_buffer_are_encoded() -> None:
    numbers = memoryview(array("H", [1, 2, 3]))
    sent = ltdic.DataTransfer((ltdic.PDV(1, True, True, numbers), ltdic.PDV(1, False, True, b"ab")))
    assert [bytes(pdv.data) for pdv in decode(encode(sent)).pdvs] == [bytes(numbers), b"ab"]


@given(my.triples)
def test_codes_of_any_value_are_encoded(codes: tuple[int, int, int]) -> None:
    assert encode(AssociateReject(*codes))[7:] == bytes(codes)
    assert encode(ltdic.Abort(*codes[:2]))[8:] == bytes(codes[:2])


def test_repr_hides_secrets() -> None:
    info = ltdic.UserInformation(
        user_identity=ltdic.UserIdentity(2, 1, b"jdoe", b"hunter2"),
        user_identity_response=ltdic.UserIdentityResponse(b"ticket"),
    )
    text = repr(request(user_info=info))
    assert not any(secret in text for secret in ("jdoe", "hunter2", "ticket"))


# ---- exact encoding --------------------------------------------------------------------------


def test_a_changed_value_leaves_all_other_bytes_unchanged() -> None:
    """A proxy that changes titles does this."""
    wire = bytearray(encode(request(called_ae="ARCHIVE", contexts=(PROPOSED,))))
    wire[1] = wire[8] = wire[60] = 0xEE  # reserved
    pdu = decode(wire, exact=True)
    renamed = encode(dataclasses.replace(pdu, called_ae="ARCHIVE2"))
    wire[10:26] = b"ARCHIVE2".ljust(16)
    assert renamed == wire


@pytest.mark.slow
@given(my.strict_pdus, my.strict_pdus)
def test_a_pdu_with_the_wire_of_another_is_encoded_from_its_fields(
    pdu: ltdic.PDU, other: ltdic.PDU
) -> None:
    assert decode(encode(dataclasses.replace(pdu, wire=encode(other)))) == pdu


def test_an_item_more_or_less_is_encoded_canonically() -> None:
    pdu = decode(encode(request(contexts=(PROPOSED,))), exact=True)
    assert encode(dataclasses.replace(pdu, contexts=())) == encode(request())


@pytest.mark.parametrize(
    "illegal", [{"called_ae": ""}, {"called_ae": "A\x01"}, {"application_context": "no UID"}]
)
def test_a_received_illegal_value_is_encoded_but_a_new_one_is_refused(illegal: Any) -> None:
    wire = bytearray(encode(request(contexts=(PROPOSED,))))
    wire[26:30] = b"\0\1\2\3"  # the calling title
    pdu = decode(wire, exact=True)
    assert encode(dataclasses.replace(pdu, called_ae="OTHER"))[26:30] == b"\0\1\2\3"
    with pytest.raises(ValueError, match=f"^{next(iter(illegal))} is "):
        encode(dataclasses.replace(pdu, **illegal))


def test_a_list_for_a_tuple_and_spaces_around_a_title_change_nothing() -> None:
    wire = bytearray(encode(request(called_ae="A", contexts=(PROPOSED,))))
    wire[1] = 0xEE
    pdu = decode(wire, exact=True)
    same = dataclasses.replace(pdu, contexts=list(pdu.contexts), called_ae=" A ")
    assert encode(same) == wire


def test_a_wire_that_is_not_a_pdu_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"^wire: "):
        encode(AssociateReject(1, 1, 1, wire=b"\x03"))


def test_reserved_bits_of_a_control_header_are_kept() -> None:
    wire = bytes.fromhex("0477 00000006 00000002 01ff")
    pdu = decode(wire, exact=True)
    assert encode(pdu) == wire
    pdv = dataclasses.replace(pdu.pdvs[0], is_last=False)
    assert encode(dataclasses.replace(pdu, pdvs=(pdv,)))[-1:] == b"\xfd"


# ---- rejections in bulk ----------------------------------------------------------------------


@given(st.lists(my.triples, max_size=20))
def test_rejects_in_bulk_are_rows_of_bytes(sent: list[tuple[int, int, int]]) -> None:
    rows = ltdic.decode_rejects(b"".join(encode(AssociateReject(*codes)) for codes in sent))
    assert (rows.shape, rows.format, rows.c_contiguous) == ((len(sent), 3), "B", True)
    assert [tuple(row) for row in rows.tolist()] == sent


@pytest.mark.parametrize(
    ("after", "kind", "offset"),
    [
        ("03", "need_more", 21),
        ("0300000000040001", "need_more", 28),
        ("09", "bad_pdu_type", 20),
        ("03000000000500", "bad_length", 22),
        ("05000000000400000000", "unexpected_pdu", 20),
    ],
)
def test_rejects_in_bulk_end_at_the_first_other_pdu(after: str, kind: str, offset: int) -> None:
    wire = encode(AssociateReject(1, 1, 7)) * 2 + bytes.fromhex(after)
    with pytest.raises(DecodeError) as caught:
        ltdic.decode_rejects(wire)
    assert (caught.value.kind, caught.value.offset) == (kind, offset)
    assert ltdic.decode_rejects(wire[:20]).tolist() == [[1, 1, 7]] * 2


# ---- the boundary ----------------------------------------------------------------------------


def test_a_row_has_the_layout_of_its_c_struct() -> None:
    assert codec.ROW.size == ffi.sizeof("ltdic_item")
    names = ["offset", "length", "kind", "type", "id", "result", "source", "reason", "version"]
    assert [name for name, _ in ffi.typeof("ltdic_item").fields] == names


def test_more_rows_than_expected_are_fetched_in_a_second_call() -> None:
    contexts = tuple(ltdic.ProposedContext(n, "1.2.3", ("1.2.4",) * 20) for n in range(1, 256, 2))
    pdu = request(contexts=contexts)
    assert decode(encode(pdu)) == pdu


# ---- fast paths ------------------------------------------------------------------------------


@pytest.mark.parametrize("wire", _codec._KNOWN, ids=bytes.hex)
def test_the_fast_path_of_decoding_gives_the_same_pdu(wire: bytes) -> None:
    fault, rows = codec.decode(wire, 0, codec.options(True, 0, 0))
    long_way = _codec._build(wire, rows, False)
    assert fault is None
    assert (decode(wire), type(decode(wire))) == (long_way, type(long_way))
    assert decode(bytearray(wire), strict=True) is decode(wire)
    assert decode(wire, exact=True).wire == wire


@pytest.mark.slow
@given(my.pdus)
def test_the_fast_path_of_encoding_gives_the_same_bytes(pdu: Any) -> None:
    at_once = _codec._encode_at_once(pdu)
    assert at_once in (None, _codec._rows_of(pdu).encode())
    assert (at_once is None) == isinstance(pdu, (ltdic.AssociateRequest, ltdic.AssociateAccept))


@given(my.pdus)
def test_a_decoded_pdu_is_frozen_and_equals_one_that_a_user_makes(pdu: Any) -> None:
    made = decode(encode(pdu))
    assert dataclasses.replace(made) == made
    assert hash(made) == hash(dataclasses.replace(made))
    for name in type(pdu).__slots__:
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(made, name, None)
