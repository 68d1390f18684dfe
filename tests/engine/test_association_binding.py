"""One association by its C functions: bytes and the time in; indications and bytes out."""

from __future__ import annotations

import struct
from copy import copy
from dataclasses import replace
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ltdic import (
    Abort,
    AssociateAccept,
    AssociateReject,
    AssociateRequest,
    Association,
    ContextResult,
    ProposedContext,
    ReleaseRequest,
    ReleaseResponse,
    UserInformation,
    decode,
    encode,
    ffi,
    lib,
)
from support.pdus import COMMAND, LAST
from support.pdus import p_data_of as p_data
from support.process import memory_allowed, memory_in_use
from support.uids import EXPLICIT, IMPLICIT, VERIFICATION
from support.vectors import CELLS

OK, NEED_MORE = lib.LTDIC_OK, lib.LTDIC_NEED_MORE
WRONG_STATE, BAD_VALUE = lib.LTDIC_ERR_WRONG_STATE, lib.LTDIC_ERR_BAD_VALUE
ROOM, TOO_LARGE = lib.LTDIC_ERR_ROOM, lib.LTDIC_ERR_TOO_LARGE
LOST, TIMEOUT, ABORTED = lib.LTDIC_ERR_CLOSED, lib.LTDIC_ERR_TIMEOUT, lib.LTDIC_ERR_ABORTED
RECEIVED, SENT, CLOSED = lib.LTDIC_RECEIVED, lib.LTDIC_SENT, lib.LTDIC_CLOSED
REFUSED = lib.LTDIC_REFUSED

ARTIM, RESPONSE, IDLE = 30_000, 20_000, 50_000
START = 1_000_000  # the clock, ms
MAX = 16384
NEVER = "1.2.3.4"
PROPOSED = (
    ProposedContext(1, VERIFICATION, (IMPLICIT, EXPLICIT)),
    ProposedContext(3, "1.2.840.10008.5.1.4.1.1.7", (EXPLICIT,)),
    ProposedContext(255, "1.2.840.10008.5.1.4.1.1.2", (IMPLICIT,)),
)
# The answers stand in another order than the proposals; one context is refused.
ANSWERED = (
    ContextResult(3, 0, EXPLICIT),
    ContextResult(1, 0, IMPLICIT),
    ContextResult(255, 3, IMPLICIT),
)


def request(most: int = MAX, **changes: Any) -> AssociateRequest:
    pdu = AssociateRequest("CALLED", "CALLING", PROPOSED, user_info=UserInformation(most, "1.2.3"))
    return replace(pdu, **changes)


def accept(most: int = MAX, **changes: Any) -> AssociateAccept:
    pdu = AssociateAccept("AE", "AE", ANSWERED, user_info=UserInformation(most, "1.2.3"))
    return replace(pdu, **changes)


RQ, AC = encode(request()), encode(accept())
RJ = encode(AssociateReject(1, 1, 7))
RELEASE_RQ, RELEASE_RP = encode(ReleaseRequest()), encode(ReleaseResponse())
ABORT = encode(Abort(0, 0))


P_DATA = p_data((1, COMMAND, b"ab"))
EVENTS = {1: 1, 2: 7, 3: 8, 4: 9, 5: 11, 6: 14, 7: 15}  # PDU type that the user sends: event


# ---- the harness -----------------------------------------------------------------------------


class Piece(NamedTuple):
    data: bytes
    id: int
    control: int
    first: bool
    last: bool
    end: bool


class Echo(NamedTuple):
    field: int
    message: int
    status: int
    sop_class: str


class Told(NamedTuple):
    """An indication, copied."""

    kind: int
    status: int
    type: int
    size: int
    pdu: bytes
    piece: Piece
    echo: Echo
    codes: tuple[int, int, int]


def contents(data: Any) -> bytes:
    return bytes(ffi.buffer(data.data, data.size)) if data.size else b""


def echo_of(echo: Any) -> Echo:
    return Echo(echo.field, echo.message, echo.status, ffi.string(echo.sop_class).decode())


class Engine:
    """One association, the bytes that its transport has taken, and its indications."""

    def __init__(self, artim: int = ARTIM, response: int = RESPONSE, idle: int = IDLE) -> None:
        self.association = ffi.gc(lib.ltdic_association_new(), lib.ltdic_association_free)
        size = ffi.sizeof("ltdic_timeouts")
        timeouts = ffi.new("ltdic_timeouts *", (size, artim, response, idle))
        lib.ltdic_association_set_timeouts(self.association, timeouts)
        self.now = START
        self.inbox = bytearray()
        self.told: list[Told] = []
        self.echoes = ffi.gc(ffi.new("ltdic_echo_reader *"), lib.ltdic_echo_reader_clear)

    @property
    def state(self) -> int:
        return int(lib.ltdic_association_state(self.association))

    @property
    def deadline(self) -> int:
        return int(lib.ltdic_association_deadline(self.association))

    def opened(self, event: int) -> int:
        return int(lib.ltdic_association_opened(self.association, event, self.now))

    def connected(self) -> None:
        assert self.opened(lib.LTDIC_EVT_CONNECTED) == OK

    def accepted(self) -> None:
        assert self.opened(lib.LTDIC_EVT_ACCEPTED) == OK

    def closed(self, status: int = LOST) -> list[Told]:
        lib.ltdic_association_closed(self.association, status, self.now)
        return self.pump()

    def send(self, pdu: bytes) -> int:
        with ffi.from_buffer(pdu) as raw:
            return int(lib.ltdic_association_send(self.association, (raw, len(raw)), self.now))

    def send_data(
        self, data: bytes, context: int = 1, control: int = COMMAND | LAST, taken: int = 0
    ) -> int:
        """Lend the data and let the transport take some; then overwrite it, since the association
        has kept a copy of the rest."""
        lent = bytearray(data)
        with ffi.from_buffer(lent) as raw:
            pdv = ffi.new("ltdic_pdv *", (context, control, (raw, len(raw))))
            status = int(lib.ltdic_association_send_data(self.association, pdv, self.now))
            self.took = self.take(taken) if taken and status == OK else b""
            assert lib.ltdic_association_keep(self.association) == OK
        lent[:] = b"\xee" * len(lent)
        return status

    def output(self) -> bytes:
        """Return the bytes for one writev."""
        output = ffi.new("ltdic_output *")
        lib.ltdic_association_output(self.association, output)
        return b"".join(contents(output.parts[i]) for i in range(output.count))

    def take(self, size: int | None = None) -> bytes:
        """Take so many bytes, or all that wait, as the transport."""
        taken = bytearray()
        while (size is None or len(taken) < size) and (part := self.output()):
            part = part if size is None else part[: size - len(taken)]
            lib.ltdic_association_sent(self.association, len(part), self.now)
            taken += part
        return bytes(taken)

    def next(self) -> Told | None:
        indication = ffi.new("ltdic_indication *")
        with ffi.from_buffer(self.inbox) as raw:
            left = ffi.new("ltdic_bytes *", (raw, len(raw)))
            status = lib.ltdic_association_next(self.association, indication, left, self.now)
            p = indication.piece
            told = Told(
                indication.kind,
                indication.status,
                indication.type,
                indication.size,
                contents(indication.pdu),
                Piece(contents(p.data), p.id, p.control, bool(p.first), bool(p.last), bool(p.end)),
                self.echo_in(indication),
                (indication.codes.result, indication.codes.source, indication.codes.reason),
            )
            used = len(raw) - left.size
        del self.inbox[:used]
        assert status in (OK, NEED_MORE)
        return told if status == OK else None

    def echo_in(self, indication: Any) -> Echo:
        """The C-ECHO that ends with this."""
        echo = ffi.new("ltdic_echo *")
        if indication.kind == CLOSED:
            lib.ltdic_echo_reader_clear(self.echoes)
        if indication.kind == RECEIVED and indication.type == 4 and indication.status == OK:
            piece = ffi.addressof(indication, "piece")
            status = lib.ltdic_echo_reader_take(self.echoes, echo, piece)
            assert (status == OK) == (echo.field != 0)
        return echo_of(echo)

    def pump(self) -> list[Told]:
        """Return all indications that are due now."""
        start = len(self.told)
        while told := self.next():
            self.told.append(told)
            if told.kind == CLOSED:  # unread bytes are lost with the connection
                self.inbox.clear()
        return self.told[start:]

    def receive(self, data: bytes) -> list[Told]:
        self.inbox += data
        return self.pump()

    def at(self, now: int) -> list[Told]:
        self.now = now
        return self.pump()


def acceptor(ours: int = MAX, theirs: int = MAX, **timeouts: int) -> Engine:
    """In Sta6, with nothing left to send or tell."""
    engine = Engine(**timeouts)
    engine.accepted()
    engine.receive(encode(request(theirs)))
    assert engine.send(encode(accept(ours))) == OK
    return rested(engine)


def requestor(ours: int = MAX, theirs: int = MAX, **timeouts: int) -> Engine:
    """In Sta6, with nothing left to send or tell."""
    engine = Engine(**timeouts)
    assert engine.send(encode(request(ours))) == OK
    engine.connected()
    engine.take()
    engine.receive(encode(accept(theirs)))
    return rested(engine)


def rested(engine: Engine) -> Engine:
    engine.take()
    engine.pump()
    engine.told.clear()
    return engine


def engine_in(state: int, **timeouts: int) -> Engine:
    """Return an engine in this state, with nothing left to send or tell."""
    if state <= 5:
        engine = Engine(**timeouts)
        if state in (4, 5):
            assert engine.send(RQ) == OK
        if state == 5:
            engine.connected()
        if state in (2, 3):
            engine.accepted()
            engine.receive(RQ if state == 3 else b"")
    else:
        engine = requestor(**timeouts) if state in (9, 11) else acceptor(**timeouts)
        for sent, pdu in {
            7: [(1, RELEASE_RQ)],
            8: [(0, RELEASE_RQ)],
            9: [(1, RELEASE_RQ), (0, RELEASE_RQ)],
            10: [(1, RELEASE_RQ), (0, RELEASE_RQ)],
            11: [(1, RELEASE_RQ), (0, RELEASE_RQ), (1, RELEASE_RP)],
            12: [(1, RELEASE_RQ), (0, RELEASE_RQ), (0, RELEASE_RP)],
            13: [(1, ABORT)],
        }.get(state, []):
            assert not sent or engine.send(pdu) == OK
            engine.receive(b"" if sent else pdu)
    assert engine.state == state
    return engine if state == 4 else rested(engine)


def received(told: list[Told]) -> list[Told]:
    return [t for t in told if t.kind == RECEIVED]


def ends(told: list[Told]) -> list[int]:
    """Return the status of each LTDIC_CLOSED."""
    return [t.status for t in told if t.kind == CLOSED]


def pdus_of(wire: bytes) -> list[bytes]:
    """Return the whole PDUs; drop an incomplete one at the end."""
    found, at = [], 0
    while at + 6 <= len(wire) and at + 6 + int.from_bytes(wire[at + 2 : at + 6], "big") <= len(
        wire
    ):
        end = at + 6 + int.from_bytes(wire[at + 2 : at + 6], "big")
        found.append(wire[at:end])
        at = end
    return found


# ---- faults ------------------------------------------------------------------------------------


def abort_by_provider(reason: int) -> bytes:
    return encode(Abort(2, reason))


def changed(wire: bytes, at: int, value: int) -> bytes:
    return wire[:at] + bytes([value]) + wire[at + 1 :]


OVERRUN = bytes.fromhex("04000000000800000009010300ff")
PDV_TOO_SHORT = bytes.fromhex("040000000006000000010103")
UNKNOWN_TYPE = b"\x08"
BAD_RELEASE = bytes.fromhex("050000000005")
OVERLONG_AC = changed(AC, 77, 0xFF)  # its application context runs past its end
DATA_OF_1 = p_data((1, 0, b"ab"))


def short(value: Any) -> str | None:
    """Return a name for a case from its bytes."""
    return f"{value[:12].hex()}-{len(value)}" if isinstance(value, bytes) else None


FAULTS = [
    # state, what the peer sends, status told, reason of the A-ABORT
    (6, p_data((255, COMMAND, b"ab")), "UNEXPECTED_PDV", 5),
    (6, p_data((5, COMMAND, b"ab")), "UNEXPECTED_PDV", 5),
    (7, p_data((5, COMMAND, b"ab")), "UNEXPECTED_PDV", 5),
    (6, DATA_OF_1, "UNEXPECTED_PDV", 5),
    (6, P_DATA + DATA_OF_1, "UNEXPECTED_PDV", 5),
    (6, P_DATA + p_data((3, COMMAND, b"ab")), "UNEXPECTED_PDV", 5),
    (6, p_data((1, 3, b"ab")) + p_data((3, 0, b"ab")), "UNEXPECTED_PDV", 5),
    (6, p_data((1, 3, b"ab"), (1, 0, b"ab")) + P_DATA, "UNEXPECTED_PDV", 5),
    (6, p_data((1, 3, b"ab"), (1, 2, b"ab"), (1, 0, b"ab")), "UNEXPECTED_PDV", 5),
    (6, p_data((1, 3, b"a" * (MAX - 4))), "TOO_LARGE", 6),
    (5, changed(RJ, 5, 5), "BAD_LENGTH", 6),
    (6, OVERRUN, "ITEM_OVERRUN", 6),
    (6, PDV_TOO_SHORT, "BAD_LENGTH", 6),
    (5, encode(accept(protocol_version=2)), "BAD_VALUE", 6),
    (5, encode(accept(contexts=(ContextResult(1, 0, NEVER),))), "BAD_VALUE", 6),
    (5, encode(accept(contexts=(ContextResult(3, 0, IMPLICIT),))), "BAD_VALUE", 6),
    (5, encode(accept(contexts=(ContextResult(1, 0),))), "BAD_VALUE", 6),
    (5, OVERLONG_AC, "ITEM_OVERRUN", 6),
    *[(s, UNKNOWN_TYPE, "BAD_PDU_TYPE", 1) for s in (3, 5, 6, 7, 8, 9, 10, 11, 12)],
    *[(s, BAD_RELEASE, "BAD_LENGTH", 6) for s in (3, 5, 6, 7, 8, 9, 10, 11, 12)],
    *[(s, RQ, "UNEXPECTED_PDU", 2) for s in (3, 5, 6, 7, 8, 9, 10, 11, 12)],
    *[(s, AC, "UNEXPECTED_PDU", 2) for s in (3, 6, 7, 8, 9, 10, 11, 12)],
    *[(s, RJ, "UNEXPECTED_PDU", 2) for s in (3, 6, 7, 8, 9, 10, 11, 12)],
    *[(s, P_DATA, "UNEXPECTED_PDU", 2) for s in (3, 5, 8, 9, 10, 11, 12)],
    *[(s, P_DATA[:6], "UNEXPECTED_PDU", 2) for s in (3, 5, 8, 9, 10, 11, 12)],
    *[(s, P_DATA[:12], "UNEXPECTED_PDU", 2) for s in (3, 5, 8, 9, 10, 11, 12)],
    *[(s, RELEASE_RQ, "UNEXPECTED_PDU", 2) for s in (3, 5, 8, 9, 10, 11, 12)],
    *[(s, RELEASE_RP, "UNEXPECTED_PDU", 2) for s in (3, 5, 6, 8, 9, 12)],
]


@pytest.mark.parametrize("chopped", [False, True])
@pytest.mark.parametrize(("state", "wire", "name", "reason"), FAULTS, ids=short)
def test_a_fault_is_aborted_with_its_reason_and_told_once(
    state: int, wire: bytes, name: str, reason: int, chopped: bool
) -> None:
    engine = engine_in(state)
    for chunk in [bytes([byte]) for byte in wire] if chopped else [wire]:
        engine.receive(chunk)
    faults = [t for t in received(engine.told) if t.status != OK]
    status = getattr(lib, f"LTDIC_ERR_{name}")
    assert [t.status for t in faults] == [status]
    assert faults[0].type == (0 if wire == UNKNOWN_TYPE else wire[0])
    assert engine.state == 13
    assert engine.take() == abort_by_provider(reason)
    assert engine.deadline == engine.now + ARTIM
    assert ends(engine.closed()) == [status]


@pytest.mark.parametrize(
    "wire",
    [
        *[UNKNOWN_TYPE, AC, RJ, P_DATA, P_DATA[:6], P_DATA[:12], RELEASE_RQ, RELEASE_RP],
        *[BAD_RELEASE, changed(RQ, 76, 1), b"\x01\0\0\0\0\x43"],
    ],
    ids=short,
)
def test_any_fault_before_the_request_is_aborted_without_a_reason_and_not_told(wire: bytes) -> None:
    engine = engine_in(2)
    engine.receive(wire)
    assert received(engine.told) == []
    assert (engine.state, engine.deadline) == (13, engine.now + ARTIM)
    assert engine.take() == encode(Abort(0, 0))
    assert len(ends(engine.closed())) == 1


@pytest.mark.parametrize("chopped", [False, True])
def test_an_answer_to_a_context_that_was_not_proposed_is_ignored(chopped: bool) -> None:
    engine = engine_in(5)
    wire = encode(accept(contexts=(ContextResult(7, 0, NEVER), *ANSWERED)))
    for chunk in [bytes([byte]) for byte in wire] if chopped else [wire]:
        engine.receive(chunk)
    assert [(t.status, t.pdu) for t in engine.told] == [(OK, wire)]
    assert engine.state == 6
    assert engine.send_data(b"ab", context=7) == BAD_VALUE
    assert engine.send_data(b"ab", context=1) == OK


def test_the_first_of_two_answers_to_a_context_counts() -> None:
    engine = engine_in(5)
    again = (ContextResult(1, 0, NEVER), ContextResult(255, 0, IMPLICIT))
    engine.receive(encode(accept(contexts=(*ANSWERED, *again))))
    assert engine.state == 6
    assert engine.send_data(b"ab", context=255) == BAD_VALUE


def test_a_context_without_an_answer_is_not_accepted() -> None:
    engine = engine_in(5)
    engine.receive(encode(accept(contexts=ANSWERED[:1])))
    assert engine.state == 6
    assert engine.send_data(b"ab", context=1) == BAD_VALUE
    assert engine.send_data(b"ab", context=3) == OK


def test_the_transfer_syntax_of_a_refused_context_is_ignored() -> None:
    engine = engine_in(5)
    refused = tuple(ContextResult(c.id, 4, NEVER) for c in PROPOSED)
    engine.receive(encode(accept(contexts=refused)))
    assert engine.state == 6


# ---- refusals by the provider, and negotiation -------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "codes"),
    [
        ({"protocol_version": 2}, (1, 2, 2)),
        ({"protocol_version": 2, "application_context": None}, (1, 2, 2)),
        ({"application_context": None}, (1, 1, 2)),
        ({"application_context": "1.2.840.10008.3.1.1.2"}, (1, 1, 2)),
    ],
)
def test_a_refusal_by_the_provider_is_told(
    changes: dict[str, Any], codes: tuple[int, int, int]
) -> None:
    engine, wire = engine_in(2), encode(request(**changes))
    told = engine.receive(wire)
    assert [(t.kind, t.status, t.type, t.pdu) for t in told] == [(REFUSED, OK, 1, wire)]
    assert told[0].codes == codes
    assert (engine.state, engine.deadline) == (13, engine.now + ARTIM)
    assert engine.take() == encode(AssociateReject(*codes))
    told = engine.closed()
    assert [(t.kind, t.status, t.type) for t in told] == [(SENT, OK, 3), (CLOSED, OK, 0)]


def test_other_protocol_versions_beside_version_1_are_accepted() -> None:
    engine = engine_in(2)
    engine.receive(encode(request(protocol_version=3)))
    assert engine.state == 3


def test_an_accept_repeats_bytes_10_to_73_of_the_request() -> None:
    engine = engine_in(2)
    wire = RQ[:10] + bytes(range(0x20, 0x40)) + bytes(range(200, 232)) + RQ[74:]
    engine.receive(wire)
    assert engine.send(AC) == OK
    sent = engine.take()
    assert sent[10:74] == wire[10:74]
    assert sent[:10] + sent[74:] == AC[:10] + AC[74:]


@pytest.mark.parametrize(
    "contexts",
    [
        ANSWERED[:2],
        (*ANSWERED, ContextResult(1, 1)),
        (*ANSWERED, ContextResult(7, 3)),
        (*ANSWERED[:2], ContextResult(255, 0, EXPLICIT)),
        (*ANSWERED[:2], ContextResult(255, 0, NEVER)),
        (ContextResult(1, 1),) * 3,
    ],
)
def test_an_accept_that_does_not_fit_the_request_is_not_sent(
    contexts: tuple[ContextResult, ...],
) -> None:
    engine = engine_in(3)
    assert engine.send(encode(accept(contexts=contexts))) == BAD_VALUE
    assert (engine.state, engine.output()) == (3, b"")
    assert engine.send(AC) == OK
    assert engine.state == 6


@pytest.mark.parametrize(
    ("state", "wire"),
    [
        (1, changed(RQ, 77, 0xFF)),
        (3, changed(AC, 77, 0xFF)),
        (3, changed(RJ, 5, 5) + b"\0"),
        (6, changed(RELEASE_RQ, 5, 3)),
        (8, changed(RELEASE_RP, 5, 5)),
        (6, RELEASE_RQ + b"\0"),
        (6, changed(ABORT, 2, 1)),
    ],
    ids=short,
)
def test_bytes_that_are_not_one_whole_pdu_are_not_sent(state: int, wire: bytes) -> None:
    engine = engine_in(state) if state > 1 else Engine()
    assert engine.send(wire) == BAD_VALUE
    assert (engine.state, engine.output()) == (state, b"")


def test_the_first_of_two_proposals_with_one_id_counts() -> None:
    engine = engine_in(2)
    again = ProposedContext(1, VERIFICATION, (NEVER,))
    engine.receive(encode(request(contexts=(*PROPOSED, again))))
    other = (ContextResult(1, 0, NEVER), *ANSWERED[::2])
    assert engine.send(encode(accept(contexts=other))) == BAD_VALUE
    assert engine.send(AC) == OK


@pytest.mark.parametrize("info", [None, UserInformation(None, "1.2.3")])
def test_a_peer_without_a_maximum_length_accepts_any_length(info: UserInformation | None) -> None:
    engine = engine_in(5)
    engine.receive(encode(accept(user_info=info)))
    assert engine.send_data(bytes(100_000)) == OK
    assert len(pdus_of(engine.take())) == 1


@pytest.mark.parametrize("wire", [RQ, AC, RJ, P_DATA, RELEASE_RQ, RELEASE_RP], ids=short)
@pytest.mark.parametrize("state", range(1, 14))
def test_a_call_without_a_cell_in_the_table_is_refused_and_changes_nothing(
    state: int, wire: bytes
) -> None:
    engine = engine_in(state) if state > 1 else Engine()
    before = engine.state, engine.deadline, engine.output()
    status = engine.send_data(b"ab") if wire == P_DATA else engine.send(wire)
    if (state, EVENTS[wire[0]]) in CELLS:
        assert status == OK
    else:
        assert status == WRONG_STATE
        assert (engine.state, engine.deadline, engine.output()) == before
        assert engine.pump() == []


# ---- data ------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", [requestor, acceptor])
@pytest.mark.parametrize(
    ("most", "fragment"), [(8, 2), (9, 2), (10, 4), (100, 94), (MAX, MAX - 6), (0xFFFFFFFF, None)]
)
def test_data_is_cut_to_even_fragments_as_large_as_the_peer_takes(
    most: int, fragment: int | None, side: Any
) -> None:
    engine = side(theirs=most)
    data = bytes(range(256)) * 4 if most < 200 else bytes(100_000)
    assert engine.send_data(data) == OK
    pdus = pdus_of(engine.take())
    size = fragment or len(data)
    pieces = [data[i : i + size] for i in range(0, len(data), size)]
    controls = [COMMAND] * (len(pieces) - 1) + [COMMAND | LAST]
    expected = [p_data((1, c, piece)) for c, piece in zip(controls, pieces, strict=True)]
    assert pdus == expected
    sent = [(t.kind, t.status, t.type, t.size) for t in engine.pump()]
    assert sent == [(SENT, OK, 4, len(pdu)) for pdu in expected]


def test_a_peer_without_a_maximum_length_is_sent_a_mebibyte_in_one_pdu() -> None:
    engine = acceptor(theirs=0)
    assert engine.send_data(bytes(3 << 20)) == OK
    lengths = [len(pdu) - 6 for pdu in pdus_of(engine.take())]
    assert lengths == [1 << 20] * 3 + [18 + 6]


@pytest.mark.parametrize("most", range(1, 8))
def test_no_data_is_sent_to_a_peer_whose_maximum_leaves_no_room(most: int) -> None:
    engine = acceptor(theirs=most)
    before = engine.deadline
    assert engine.send_data(b"ab") == TOO_LARGE
    assert engine.send_data(b"") == TOO_LARGE
    assert (engine.state, engine.deadline, engine.output()) == (6, before, b"")


def test_data_of_no_bytes_is_one_pdu() -> None:
    engine = acceptor()
    assert engine.send_data(b"") == OK
    assert engine.take() == p_data((1, COMMAND | LAST, b""))
    assert [(t.kind, t.size) for t in engine.pump()] == [(SENT, 12)]


@pytest.mark.parametrize("control", range(4))
@pytest.mark.parametrize(
    ("before", "legal"),
    [
        ([], {(1, 1), (1, 3), (3, 1), (3, 3)}),
        ([(1, 1)], {(1, 1), (1, 3)}),
        ([(1, 3)], {(1, 0), (1, 2), (1, 1), (1, 3), (3, 1), (3, 3)}),
        ([(1, 3), (1, 0)], {(1, 0), (1, 2)}),
        ([(1, 3), (1, 2)], {(1, 1), (1, 3), (3, 1), (3, 3)}),
    ],
)
@pytest.mark.parametrize("context", [1, 3])
def test_both_directions_keep_to_whole_messages(
    before: list[tuple[int, int]], legal: set[tuple[int, int]], context: int, control: int
) -> None:
    sender, receiver = acceptor(), acceptor()
    for c, k in before:
        assert sender.send_data(b"ab", c, k) == OK
        receiver.receive(p_data((c, k, b"ab")))
    expected = (context, control) in legal
    waits = sender.output()
    assert sender.send_data(b"ab", context, control) == (OK if expected else WRONG_STATE)
    assert expected or sender.output() == waits
    receiver.receive(p_data((context, control, b"ab")))
    assert receiver.state == (6 if expected else 13)


@given(
    st.sampled_from([8, 10, 100]),
    st.binary(max_size=60).filter(lambda d: len(d) % 2 == 0),
    st.data(),
)
def test_parts_of_any_size_are_the_same_message_in_even_fragments(
    most: int, whole: bytes, data: Any
) -> None:
    engine = acceptor(theirs=most)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=6)))
    parts = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    taken = b""
    for n, part in enumerate(parts):
        control = COMMAND | (LAST if n == len(parts) - 1 else 0)
        assert engine.send_data(part, control=control, taken=data.draw(st.integers(0, 30))) == OK
        taken += engine.took
    wire = taken + engine.take()
    pdvs = [decode(pdu).pdvs[0] for pdu in pdus_of(wire)]
    assert b"".join(pdv.data for pdv in pdvs) == whole
    assert all(len(pdv.data) % 2 == 0 and len(pdv.data) <= most - 6 for pdv in pdvs)
    assert [pdv.is_last for pdv in pdvs] == [False] * (len(pdvs) - 1) + [True]
    sent = [t for t in engine.pump() if t.kind == SENT]
    assert [t.size for t in sent] == [len(pdu) for pdu in pdus_of(wire)]


def test_a_part_that_makes_the_whole_odd_is_refused_and_changes_nothing() -> None:
    engine = acceptor()
    assert engine.send_data(b"abc", control=COMMAND) == OK
    assert engine.send_data(b"de", control=COMMAND | LAST) == BAD_VALUE
    assert engine.send_data(b"", control=COMMAND | LAST) == BAD_VALUE
    assert engine.send_data(b"d", control=COMMAND | LAST) == OK
    assert engine.take() == p_data((1, COMMAND, b"ab")) + p_data((1, COMMAND | LAST, b"cd"))


def test_an_odd_byte_is_not_kept_for_the_next_association() -> None:
    engine = acceptor()
    assert engine.send_data(b"a", control=COMMAND) == OK
    assert engine.output() == b""
    engine.closed()
    engine.accepted()
    engine.receive(RQ)
    assert engine.send(AC) == OK
    engine.take()
    assert engine.send_data(b"ab") == OK
    assert engine.take() == p_data((1, COMMAND | LAST, b"ab"))


def test_an_exact_association_keeps_reserved_bytes() -> None:
    """A proxy passes on fields that it does not know."""
    wire = changed(changed(RQ, 9, 7), 45, 3)
    ours = Association(requestor=False, exact=True)
    ours.receive_data(wire)
    (told,) = ours.events()
    assert encode(told) == wire
    theirs = Association(requestor=True, exact=True)
    theirs.send(told)
    assert theirs.data_to_send() == wire


def test_data_is_passed_on_in_pieces_of_any_size() -> None:
    """A peer can make pieces of any size, also odd ones."""
    ours, theirs = Association(requestor=False), Association(requestor=True)
    ours.receive_data(RQ)
    for told in ours.events():
        theirs.send(told)
    theirs.receive_data(AC)
    for told in theirs.events():
        ours.send(told)
    theirs.data_to_send()
    wire = p_data((1, COMMAND | LAST, b"command.")) + p_data((1, LAST, bytes(range(100))))
    passed = b""
    for n in range(len(wire)):
        ours.receive_data(wire[n : n + 1])
        for told in ours.events():
            theirs.send(told)
        passed += theirs.data_to_send()
    pdvs = [decode(pdu).pdvs[0] for pdu in pdus_of(passed)]
    assert b"".join(pdv.data for pdv in pdvs) == b"command." + bytes(range(100))
    assert [pdv.is_last for pdv in pdvs if pdv.is_last] == [True, True]


@pytest.mark.parametrize(
    ("data", "context", "control"), [(b"abc", 1, 3), (b"ab", 255, 3), (b"ab", 5, 3), (b"ab", 1, 4)]
)
def test_data_that_the_protocol_forbids_is_refused(data: bytes, context: int, control: int) -> None:
    engine = acceptor()
    assert engine.send_data(data, context, control) == BAD_VALUE
    assert (engine.state, engine.output()) == (6, b"")


@given(st.sampled_from([0, COMMAND]), st.data())
def test_a_p_data_tf_in_pieces_is_the_same_bytes_with_its_end_told_last(
    kind: int, data: Any
) -> None:
    fragments = [bytes([i]) * (2 * size) for i, size in enumerate(data.draw(SIZES))]
    controls = [kind] * (len(fragments) - 1) + [kind | LAST]
    pdvs = [(1, control, part) for control, part in zip(controls, fragments, strict=True)]
    wire = p_data(*pdvs)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(wire)), max_size=12)))
    engine = acceptor()
    engine.receive(p_data((1, COMMAND | LAST, b"ab")))
    engine.told.clear()
    for a, b in zip([0, *cuts], [*cuts, len(wire)], strict=True):
        engine.receive(wire[a:b])
    told = engine.told
    assert {(t.kind, t.status, t.type) for t in told} == {(RECEIVED, OK, 4)}
    assert b"".join(t.pdu for t in told) == wire
    assert b"".join(t.piece.data for t in told) == b"".join(fragments)
    assert [t.piece.end for t in told] == [False] * (len(told) - 1) + [True]
    assert [t.piece.control for t in told] == [kind] * (len(told) - 1) + [kind | LAST]
    assert sum(t.piece.first for t in told) == sum(t.piece.last for t in told) == len(pdvs)
    starts = [t.piece for t in told if t.piece.first]
    assert all(p.data or p.last for p in starts)  # a header is told with its data only
    assert engine.inbox == b""


SIZES = st.lists(st.integers(0, 20), min_size=1, max_size=4)


TAKEN = st.tuples(st.integers(1, 3000) | st.just(1006), st.booleans())


@given(st.lists(TAKEN, max_size=12))
def test_a_pdu_is_told_as_sent_when_its_last_byte_has_been_taken(
    steps: list[tuple[int, bool]],
) -> None:
    engine = acceptor(theirs=1000)
    assert engine.send_data(bytes(9000)) == OK
    sizes = [1006] * 9 + [9000 - 9 * 994 + 12]
    ends_at = [sum(sizes[: i + 1]) for i in range(len(sizes))]
    taken = 0
    for step, pumped in steps:
        taken += len(engine.take(step))
        if pumped:
            engine.pump()
            assert len(engine.told) == sum(end <= taken for end in ends_at)
    engine.closed()
    sent = [(t.size, t.status) for t in engine.told[:-1]]
    statuses = [OK if end <= taken else LOST for end in ends_at]
    assert sent == list(zip(sizes, statuses, strict=True))
    assert engine.told[-1].kind == CLOSED


def test_one_output_has_the_queued_bytes_and_then_the_lent_ones() -> None:
    engine = acceptor(theirs=10)
    assert engine.send_data(b"12345678", control=COMMAND, taken=5) == OK
    lent = ffi.new("uint8_t[]", b"abcd" * 50)
    pdv = ffi.new("ltdic_pdv *", (1, COMMAND, (lent, 200)))
    assert lib.ltdic_association_send_data(engine.association, pdv, engine.now) == OK
    output = ffi.new("ltdic_output *")
    lib.ltdic_association_output(engine.association, output)
    parts = [contents(output.parts[i]) for i in range(output.count)]
    assert parts[0] == (p_data((1, 1, b"1234")) + p_data((1, 1, b"5678")))[5:]
    assert parts[2::2] == [b"abcd"] * len(parts[2::2])
    assert lib.ltdic_association_keep(engine.association) == OK
    ffi.memmove(lent, b"\xee" * 200, 200)
    assert engine.take() == parts[0] + p_data((1, 1, b"abcd")) * 50


# ---- limits ----------------------------------------------------------------------------------


def test_data_beyond_the_queue_is_refused_while_bytes_wait() -> None:
    engine = acceptor(theirs=0)
    assert engine.send_data(bytes(lib.LTDIC_MAX_QUEUE - 26)) == OK
    assert engine.send_data(bytes(4)) == ROOM
    assert engine.send_data(bytes(2)) == OK  # with its header, exactly the size of the queue
    assert engine.send_data(b"") == ROOM
    assert len(engine.take(12)) == 12
    assert engine.send_data(b"") == OK


def test_a_single_call_may_be_larger_than_the_queue() -> None:
    engine = acceptor(theirs=0)
    assert engine.send_data(bytes(2 * lib.LTDIC_MAX_QUEUE)) == OK
    assert engine.send_data(b"") == ROOM
    assert engine.send(RELEASE_RQ) == OK
    assert len(pdus_of(engine.take())) == 4


def test_the_number_of_queued_pdus_is_bounded_but_an_abort_is_always_taken() -> None:
    engine = acceptor()
    taken = 0
    while engine.send_data(b"") == OK:
        taken += 1
        assert taken < 100_000
    assert engine.send_data(b"") == ROOM
    assert engine.send(RELEASE_RQ) == OK
    assert engine.send(ABORT) == OK
    assert len(pdus_of(engine.take())) == taken + 2


@pytest.mark.parametrize("state", [6, 13])
def test_received_data_takes_no_memory(state: int) -> None:
    engine = acceptor(ours=0)
    chunk = bytes(65536)
    size = 100 << 20
    lengths = struct.pack(">II", size + 8, size + 4)
    engine.receive(b"\4\0" + lengths + bytes([1, COMMAND]) + b"ab")
    assert state == 6 or engine.send(ABORT) == OK
    indication, left = ffi.new("ltdic_indication *"), ffi.new("ltdic_bytes *")
    before, found = memory_in_use(), 0
    with ffi.from_buffer(chunk) as raw:
        for _ in range(size // len(chunk)):
            left.data, left.size = raw, len(chunk)
            while lib.ltdic_association_next(engine.association, indication, left, START) == OK:
                found += indication.piece.data.size
            assert left.size == 0
    assert found == (size if state == 6 else 0)
    assert memory_in_use() - before < memory_allowed(1 << 20)


def test_requests_after_the_end_take_no_memory_when_the_answers_are_not_read() -> None:
    engine = engine_in(13)
    flood = (b"\1\0\0\0\0\x44" + bytes(68)) * 1000
    engine.receive(flood)
    before = memory_in_use()
    for _ in range(100):
        engine.receive(flood)
    assert memory_in_use() - before < memory_allowed(1 << 20)
    assert set(pdus_of(engine.take())) == {abort_by_provider(2)}


# ---- the end ---------------------------------------------------------------------------------


def test_a_reject_is_told_and_ends_the_connection() -> None:
    engine = engine_in(5)
    told = engine.receive(RJ)
    assert [(t.kind, t.status, t.type, t.pdu) for t in told] == [
        (RECEIVED, OK, 3, RJ),
        (CLOSED, OK, 0, b""),
    ]
    assert (engine.state, engine.deadline) == (1, 0)


@pytest.mark.parametrize("codes", [(0, 0), (2, 5)])
@pytest.mark.parametrize("state", [3, 5, 6, 7, 8, 9, 10, 11, 12])
def test_an_abort_of_the_peer_is_told_and_ends_the_connection(
    state: int, codes: tuple[int, int]
) -> None:
    engine = engine_in(state)
    wire = encode(Abort(*codes))
    told = engine.receive(wire)
    assert [(t.kind, t.status, t.pdu) for t in told] == [
        (RECEIVED, OK, wire),
        (CLOSED, ABORTED, b""),
    ]
    assert (engine.state, engine.deadline) == (1, 0)


@pytest.mark.parametrize("state", range(2, 13))
def test_a_lost_connection_is_told_once_from_every_state(state: int) -> None:
    engine = engine_in(state)
    told = engine.closed()
    assert [t.status for t in told if t.kind == CLOSED] == [LOST]
    assert [(t.type, t.status) for t in told if t.kind == SENT] == [(1, LOST)] * (state == 4)
    assert (engine.state, engine.deadline, engine.output()) == (1, 0, b"")


@pytest.mark.parametrize("state", [2, 4])
def test_an_abort_before_there_is_an_association_closes_at_once(state: int) -> None:
    engine = engine_in(state)
    assert engine.send(ABORT) == OK
    assert (engine.state, engine.output()) == (1, b"")
    assert ends(engine.pump()) == [OK]


@pytest.mark.parametrize("state", [2, 4])
def test_a_lost_connection_after_our_own_end_is_not_its_cause_and_not_told_again(
    state: int,
) -> None:
    engine = engine_in(state)
    assert engine.send(ABORT) == OK
    assert ends(engine.closed()) == [OK]


def test_an_abort_without_a_connection_or_after_the_end_does_nothing() -> None:
    for engine in (Engine(), engine_in(13)):
        before = engine.state, engine.deadline
        assert engine.send(ABORT) == OK
        assert (engine.state, engine.deadline, engine.output()) == (*before, b"")
        assert engine.pump() == []


ENDED_BY_US = [(6, ABORT), (5, ABORT), (3, RJ), (8, RELEASE_RP), (12, RELEASE_RP)]
LAST_WORDS = [b"", ABORT, RQ, UNKNOWN_TYPE, AC, RJ, P_DATA, RELEASE_RQ, RELEASE_RP, RQ[:-1]]
LAST_WORDS += [p_data((1, COMMAND, bytes(MAX)))]  # above the maximum; data is ignored here


@pytest.mark.parametrize("words", LAST_WORDS, ids=short)
@pytest.mark.parametrize(("state", "last"), ENDED_BY_US, ids=short)
def test_a_pdu_after_the_end_is_not_told_and_not_its_cause(
    state: int, last: bytes, words: bytes
) -> None:
    engine = engine_in(state)
    assert engine.send(last) == OK
    engine.take()
    deadline = engine.deadline
    assert deadline == engine.now + ARTIM
    engine.receive(words)
    answers = {RQ: abort_by_provider(2), UNKNOWN_TYPE: abort_by_provider(1)}
    assert engine.take() == answers.get(words, b"")
    assert engine.state == (1 if words == ABORT else 13)
    if words != ABORT:
        assert engine.deadline == deadline
        engine.closed()
    assert received(engine.told) == []
    assert ends(engine.told) == [OK]


def test_a_fault_stays_the_cause_after_later_pdus() -> None:
    for words in LAST_WORDS:
        engine = engine_in(6)
        engine.receive(RJ + words)
        if words != ABORT:  # an A-ABORT ends it
            engine.closed()
        assert ends(engine.told) == [lib.LTDIC_ERR_UNEXPECTED_PDU]


def test_artim_after_a_fault_is_not_its_cause() -> None:
    engine = engine_in(6)
    engine.receive(RJ)
    assert ends(engine.at(START + ARTIM)) == [lib.LTDIC_ERR_UNEXPECTED_PDU]


def test_a_release_ends_both_sides() -> None:
    a, b = requestor(), acceptor()
    assert a.send(RELEASE_RQ) == OK
    b.receive(a.take())
    assert [t.type for t in received(b.told)] == [5]
    assert b.send_data(b"late") == OK
    assert b.send(RELEASE_RP) == OK
    a.receive(b.take())
    assert [(t.type, t.piece.data) for t in received(a.told)] == [(4, b"late"), (6, b"")]
    assert ends(a.told) == [OK]
    assert ends(b.closed()) == [OK]


@pytest.mark.parametrize("first", ["requestor", "acceptor"])
def test_a_release_collision_is_answered_by_the_requestor_first(first: str) -> None:
    a, b = requestor(), acceptor()
    for engine in [a, b] if first == "requestor" else [b, a]:
        assert engine.send_data(b"before", control=COMMAND) == OK
        assert engine.send(RELEASE_RQ) == OK
    from_a, from_b = a.take(), b.take()
    a.receive(from_b)
    b.receive(from_a)
    for engine in (a, b):
        told = received(engine.told)
        assert [(t.type, t.status, t.piece.data) for t in told] == [(4, 0, b"before"), (5, 0, b"")]
    assert (a.state, b.state) == (9, 10)
    assert b.send(RELEASE_RP) == WRONG_STATE
    assert a.send_data(b"more") == b.send_data(b"more") == WRONG_STATE
    assert a.send(RELEASE_RP) == OK
    b.receive(a.take())
    assert (a.state, b.state) == (11, 12)
    assert b.send(RELEASE_RP) == OK
    a.receive(b.take())
    assert (a.state, b.state) == (1, 13)
    assert [t.type for t in received(a.told)] == [t.type for t in received(b.told)] == [4, 5, 6]
    assert ends(a.told) == [OK]
    assert ends(b.closed()) == [OK]


@pytest.mark.parametrize(
    "before",
    [P_DATA, P_DATA[:-1], p_data((1, COMMAND, bytes(2000))), UNKNOWN_TYPE, RELEASE_RQ[:8]],
    ids=short,
)
def test_an_association_leaves_no_state_for_the_next(before: bytes) -> None:
    engine = acceptor(ours=0, theirs=8)
    assert engine.send_data(b"lost", control=COMMAND) == OK
    engine.receive(before)
    engine.closed()
    engine.told.clear()
    assert engine.send(RQ) == OK
    engine.connected()
    assert engine.take() == RQ
    engine.receive(AC)
    assert engine.state == 6
    assert engine.send_data(b"12345678", 3) == OK
    assert engine.take() == p_data((3, COMMAND | LAST, b"12345678"))
    engine.receive(p_data((1, COMMAND | LAST, ECHO_RQ)))
    assert [(t.kind, t.type) for t in engine.told] == [
        (SENT, 1),
        (RECEIVED, 2),
        (SENT, 4),
        (RECEIVED, 4),
    ]
    assert engine.told[-1].echo == ECHOES[0][0]


def test_pdus_are_received_after_the_transport_stops_sending() -> None:
    engine = acceptor()
    assert engine.send_data(b"ab", control=COMMAND) == OK
    lib.ltdic_association_lost(engine.association)
    assert engine.output() == b""
    assert [(t.kind, t.status) for t in engine.pump()] == [(SENT, LOST)]
    assert engine.send_data(b"ab", control=COMMAND) == OK
    assert engine.output() == b""
    assert [(t.kind, t.status) for t in engine.pump()] == [(SENT, LOST)]
    told = engine.receive(P_DATA + ABORT)
    assert [(t.kind, t.status, t.type) for t in told] == [
        (RECEIVED, OK, 4),
        (RECEIVED, OK, 7),
        (CLOSED, ABORTED, 0),
    ]


# ---- time ------------------------------------------------------------------------------------


def test_a_dripping_request_does_not_delay_artim() -> None:
    engine = engine_in(2)
    for second in range(30):
        engine.now = START + 1000 * second
        engine.receive(RQ[second : second + 1])
        assert (engine.state, engine.deadline) == (2, START + ARTIM)
    assert engine.at(START + ARTIM - 1) == []
    assert ends(engine.at(START + ARTIM)) == [TIMEOUT]
    assert engine.output() == b""


@pytest.mark.parametrize("words", [b"", P_DATA, RQ, AC, RELEASE_RQ], ids=short)
def test_after_the_end_artim_waits_for_the_peer_and_then_closes(words: bytes) -> None:
    engine = engine_in(6)
    assert engine.send(ABORT) == OK
    engine.take()
    engine.now += ARTIM - 1
    engine.receive(words)
    assert engine.state == 13
    assert ends(engine.at(START + ARTIM)) == [TIMEOUT]
    assert engine.state == 1


WAITS = [(s, drip) for s in (5, 7, 10, 11) for drip in (b"", RELEASE_RP[:9])]


@pytest.mark.parametrize(("state", "drip"), [*WAITS, (5, AC[:-1]), (7, P_DATA)], ids=short)
def test_a_peer_that_does_not_answer_is_aborted_at_the_deadline(state: int, drip: bytes) -> None:
    engine = engine_in(state)
    assert engine.deadline == START + RESPONSE
    engine.now = START + RESPONSE - 1
    engine.receive(drip)
    assert (engine.state, engine.deadline) == (state, START + RESPONSE)
    engine.told.clear()
    told = engine.at(START + RESPONSE)
    assert [(t.kind, t.status, t.type) for t in told] == [(RECEIVED, TIMEOUT, 0)]
    assert engine.take() == ABORT
    assert engine.deadline == START + RESPONSE + ARTIM
    assert ends(engine.closed()) == [TIMEOUT]


@pytest.mark.parametrize(
    ("state", "answer"), [(5, AC), (7, RELEASE_RP), (11, RELEASE_RP)], ids=short
)
def test_an_answer_that_has_arrived_at_the_deadline_counts(state: int, answer: bytes) -> None:
    engine = engine_in(state)
    engine.now = START + RESPONSE
    assert [t.status for t in received(engine.receive(answer))] == [OK]
    assert engine.output() == b""


def test_each_wait_for_the_peer_has_its_own_deadline() -> None:
    engine = requestor()
    assert engine.send(RELEASE_RQ) == OK
    engine.at(START + 1000)
    engine.receive(RELEASE_RQ)
    assert (engine.state, engine.deadline) == (9, 0)
    engine.at(START + 2000)
    assert engine.send(RELEASE_RP) == OK
    assert (engine.state, engine.deadline) == (11, START + 2000 + RESPONSE)


def test_an_idle_association_is_aborted_at_the_deadline() -> None:
    engine = acceptor()
    assert engine.deadline == START + IDLE
    assert engine.at(START + IDLE - 1) == []
    assert [(t.kind, t.status) for t in engine.at(START + IDLE)] == [(RECEIVED, TIMEOUT)]
    assert engine.take() == ABORT
    assert engine.state == 13
    assert ends(engine.closed()) == [TIMEOUT]


def test_data_in_either_direction_delays_the_idle_deadline() -> None:
    engine = acceptor()
    engine.now += 1000
    engine.receive(P_DATA[:-1])
    assert engine.deadline == engine.now + IDLE
    engine.now += 1000
    engine.receive(P_DATA[-1:])
    assert engine.deadline == engine.now + IDLE
    engine.now += 1000
    assert engine.send_data(b"ab") == OK
    assert engine.deadline == engine.now - 1000 + IDLE  # the data is not sent yet
    engine.now += 1000
    assert len(engine.take(1)) == 1
    assert engine.deadline == engine.now + IDLE


def test_a_dripping_release_request_does_not_delay_the_idle_deadline() -> None:
    engine = acceptor()
    for byte in RELEASE_RQ[:-1]:
        engine.now += 5000
        engine.receive(bytes([byte]))
        assert engine.deadline == START + IDLE
    engine.now += 5000
    assert [t.status for t in received(engine.receive(b""))] == [TIMEOUT]


def test_without_timeouts_only_artim_runs() -> None:
    for state in range(2, 13):
        engine = engine_in(state, response=0, idle=0)
        assert engine.deadline == (START + ARTIM if state == 2 else 0)
    assert engine_in(13, artim=0).deadline == START + 30_000  # the default of ARTIM


@pytest.mark.parametrize("state", range(1, 14))
def test_every_wait_but_for_the_user_or_an_idle_transport_has_a_deadline(state: int) -> None:
    engine = engine_in(state) if state > 1 else Engine()
    assert (engine.deadline == 0) == (state in (1, 3, 4, 8, 9, 12))


# ---- C-ECHO ----------------------------------------------------------------------------------

ECHO_RQ = bytes.fromhex(  # PS3.7 9.3.5
    "00000000040000003800000000000200120000"
    "00312e322e3834302e31303030382e312e3100"
    "0000000102000000300000001001020000000100"
    "0000000802000000"
    "0101"
)
ECHO_RSP = bytes.fromhex(
    "00000000040000004200000000000200120000"
    "00312e322e3834302e31303030382e312e3100"
    "0000000102000000308000002001020000000100"
    "0000000802000000"
    "0101"
    "00000009020000000000"
)
ECHOES = [(Echo(0x30, 1, 0, VERIFICATION), ECHO_RQ), (Echo(0x8030, 1, 0, VERIFICATION), ECHO_RSP)]
NO_ECHO = Echo(0, 0, 0, "")
LONG = ECHO_RQ + b"\0\0\0\x10" + (2000).to_bytes(4, "little") + bytes(2000)


def encode_echo(echo: Echo, room: int = lib.LTDIC_ECHO_ROOM) -> tuple[int, bytes, int]:
    data = ffi.new("uint8_t[]", room)
    out = ffi.new("ltdic_buffer *", (data, room, 0))
    c_echo = ffi.new("ltdic_echo *", (*echo[:3], echo.sop_class.encode()))
    status = lib.ltdic_encode_echo(out, c_echo)
    return status, bytes(ffi.buffer(data, min(room, out.size))), out.size


def decode_echo(command: bytes) -> Echo | None:
    echo = ffi.new("ltdic_echo *")
    with ffi.from_buffer(command) as raw:
        status = lib.ltdic_decode_echo(echo, (raw, len(raw)))
    assert status in (OK, BAD_VALUE)
    return echo_of(echo) if status == OK else None


@pytest.mark.parametrize(("echo", "command"), ECHOES, ids=short)
def test_a_c_echo_is_encoded_and_decoded_as_in_the_standard(echo: Echo, command: bytes) -> None:
    assert encode_echo(echo) == (OK, command, len(command))
    assert decode_echo(command) == echo
    assert encode_echo(echo, len(command)) == (OK, command, len(command))
    assert encode_echo(echo, len(command) - 1)[::2] == (ROOM, len(command))


@given(
    st.sampled_from([0x30, 0x8030]),
    st.integers(0, 0xFFFF),
    st.integers(0, 0xFFFF),
    st.sampled_from(["1", "1.2", VERIFICATION, "1." + "2" * 61, "1." + "2" * 62]),
)
def test_an_encoded_c_echo_is_decoded_to_the_same_values(
    field: int, message: int, status: int, uid: str
) -> None:
    echo = Echo(field, message, status if field == 0x8030 else 0, uid)
    code, command, size = encode_echo(echo)
    assert (code, size) == (OK, len(command))
    assert decode_echo(command) == echo
    assert int.from_bytes(command[8:12], "little") == len(command) - 12


@pytest.mark.parametrize("echo", [Echo(0x20, 1, 0, "1.2"), Echo(0x30, 1, 0, "1..2")])
def test_an_invalid_c_echo_is_not_encoded(echo: Echo) -> None:
    assert encode_echo(echo)[0] == BAD_VALUE


MALFORMED = [
    *[ECHO_RQ[:size] for size in range(len(ECHO_RQ))],
    *[ECHO_RSP[:size] for size in range(len(ECHO_RSP))],
    ECHO_RQ + b"\0",
    changed(ECHO_RQ, 0, 8),  # another group
    changed(ECHO_RQ, 46, 0x20),  # C-FIND
    changed(ECHO_RSP, 46, 0x20),
    changed(ECHO_RQ, 50, 0x20),  # a response's message ID
    ECHO_RQ[:52] + b"\4\0\0\0\1\0\0\0" + ECHO_RQ[58:],  # a message ID of another size
    ECHO_RQ[:52] + b"\0\0\0\0" + ECHO_RQ[58:],
    changed(ECHO_RQ, 66, 0),  # a data set follows
    changed(ECHO_RQ, 55, 0xFF),  # a length beyond the end
    ECHO_RQ[:16] + b"\x42\0\0\0" + b"1" * 66 + ECHO_RQ[38:],  # a class of more than 64 characters
    changed(ECHO_RQ, 16, 0x13),  # a class whose length covers the next elements
]


@pytest.mark.parametrize("command", MALFORMED, ids=short)
def test_a_malformed_c_echo_is_not_recognised(command: bytes) -> None:
    assert decode_echo(command) is None


@pytest.mark.parametrize(
    ("echo", "command"), [*ECHOES, (NO_ECHO, ECHO_RQ[:-1] + b"\1\0\0")], ids=short
)
@given(data=st.data())
def test_a_c_echo_is_recognised_in_any_fragments(echo: Echo, command: bytes, data: Any) -> None:
    inside = st.lists(st.integers(0, len(command)), max_size=5)
    cuts = sorted(data.draw(inside))
    parts = [command[a:b] for a, b in zip([0, *cuts], [*cuts, len(command)], strict=True)]
    wire = b"".join(p_data((1, COMMAND, part)) for part in parts[:-1])
    wire += p_data((1, COMMAND | LAST, parts[-1]))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(wire)), max_size=8)))
    engine = acceptor()
    for a, b in zip([0, *cuts], [*cuts, len(wire)], strict=True):
        engine.receive(wire[a:b])
    assert [t.echo for t in engine.told] == [NO_ECHO] * (len(engine.told) - 1) + [echo]


@pytest.mark.parametrize("size", [100, 1024, 1025, 2000, 16000])
def test_a_c_echo_is_recognised_alike_in_pieces_of_any_size(size: int) -> None:
    padding = size - len(ECHO_RQ) - 8
    command = ECHO_RQ + b"\0\0\0\x10" + padding.to_bytes(4, "little") + bytes(padding)
    wire = p_data((1, COMMAND | LAST, command))
    found = []
    for cut in (0, 6, 20, 500, len(wire) - 1):
        engine = acceptor()
        engine.receive(wire[:cut])
        engine.receive(wire[cut:])
        engine.receive(p_data((1, COMMAND | LAST, ECHO_RQ)))
        assert engine.told[-1].echo == ECHOES[0][0]  # the next one is recognised
        found.append(engine.told[-2].echo)
    assert len(set(found)) == 1


def test_a_data_set_is_not_recognised_as_a_c_echo() -> None:
    engine = acceptor()
    told = engine.receive(p_data((1, 3, ECHO_RQ), (1, 2, ECHO_RQ)))
    assert [t.echo for t in told] == [ECHOES[0][0], NO_ECHO]


def with_sub_items(count: int) -> bytes:
    """The request with so many empty sub-items of no known type more in its user information."""
    more = b"\x60\0\0\0" * count
    at = RQ.rindex(b"\x50\0")  # the last item
    length = int.from_bytes(RQ[at + 2 : at + 4], "big") + len(more)
    body = RQ[6:at] + RQ[at : at + 2] + length.to_bytes(2, "big") + RQ[at + 4 :] + more
    return RQ[:2] + len(body).to_bytes(4, "big") + body


def test_a_request_of_very_many_items_is_aborted() -> None:
    most = lib.LTDIC_MAX_ITEMS - 20
    engine = Engine()
    engine.accepted()
    assert engine.receive(with_sub_items(most))[0].status == OK
    engine = Engine()
    engine.accepted()
    told = engine.receive(with_sub_items(most + 20))
    assert told == []  # as for any fault in Sta2 (AA-1)
    assert engine.take() == encode(Abort(0, 0))
    assert engine.state == 13


# ---- two associations, random steps --------------------------------------------------------------


class Messages:
    """The order of commands and data sets that PS3.8 E.1 allows, and the position in it."""

    def __init__(self) -> None:
        self.open: tuple[int, int] | None = None  # context and kind of the unfinished message part
        self.data_of = 0  # the context whose command has ended

    def take(self, context: int, control: int) -> bool:
        kind = control & COMMAND
        if self.open is not None:
            legal = self.open == (context, kind)
        else:
            legal = bool(kind) or self.data_of == context
        if legal:
            ended = bool(control & LAST)
            self.open = None if ended else (context, kind)
            self.data_of = context if ended and kind else 0
        return legal


Stretch = tuple[int, int, bytes, bool]


def joined(parts: list[tuple[int, int, bytes]]) -> list[Stretch]:
    """Join fragments (context, control, data) to commands and data sets; each says if it is
    whole."""
    whole: list[Stretch] = []
    for context, control, data in parts:
        kind, last = control & COMMAND, bool(control & LAST)
        if whole and not whole[-1][3]:
            assert whole[-1][:2] == (context, kind)
            whole[-1] = (context, kind, whole[-1][2] + data, last)
        else:
            whole.append((context, kind, data, last))
    return whole


def is_beginning(part: list[Stretch], whole: list[Stretch]) -> bool:
    *before, last = part or [(0, 0, b"", True)]
    if not part or part == whole[: len(part)]:
        return True
    n = len(before)
    return (
        before == whole[:n]
        and len(whole) > n
        and not last[3]
        and whole[n][:2] == last[:2]
        and whole[n][2].startswith(last[2])
    )


class Side:
    """An engine, its half of the connection, and the expected results."""

    def __init__(self, max_length: int) -> None:
        self.engine = Engine()
        self.max_length = max_length
        self.peer: Side
        self.begin()

    def begin(self) -> None:
        self.up = self.lost = False
        self.engine.told.clear()
        self.messages = Messages()
        self.contexts: set[int] = set()
        self.parts: list[tuple[int, int, bytes]] = []  # the data given to send
        self.submitted: list[tuple[int, int]] = []  # type and size of each PDU
        self.taken = b""  # by the transport
        self.flight = b""  # on its way to the peer

    @property
    def snapshot(self) -> tuple[int, int, bytes]:
        return self.engine.state, self.engine.deadline, self.engine.output()

    def call(self, pdu: bytes) -> bool:
        """Send a PDU: it is legal in this state, or it is refused and changes nothing."""
        before = self.snapshot
        status = self.engine.send(pdu)
        if (before[0], EVENTS[pdu[0]]) in CELLS:
            assert status == OK
            if before[0] != 4:  # without a connection no A-ABORT is sent
                self.submitted.append((pdu[0], len(pdu)))
            return True
        if pdu == ABORT and before[0] == 2:  # no cell of the standard; closed without a PDU
            assert (status, self.engine.state) == (OK, 1)
            return True
        assert status == (OK if pdu == ABORT else WRONG_STATE)
        assert self.snapshot == before
        return False

    def data(self, context: int, control: int, data: bytes, taken: int) -> None:
        before = self.snapshot
        after = copy(self.messages)
        legal = (before[0], EVENTS[4]) in CELLS
        known = context in self.contexts
        ordered = legal and known and after.take(context, control)
        status = self.engine.send_data(data, context, control, taken if self.up else 0)
        if ordered:
            assert status == OK
            self.go(self.engine.took)
            self.messages = after
            self.parts.append((context, control, data))
            size = (self.peer.max_length or 1 << 20) - 6 & ~1
            for at in range(0, max(len(data), 1), size):
                self.submitted.append((4, 12 + len(data[at : at + size])))
            return
        assert status == (BAD_VALUE if legal and not known else WRONG_STATE)
        assert self.snapshot == before

    def take(self, size: int | None) -> None:
        if self.up:
            self.go(self.engine.take(size))

    def go(self, data: bytes) -> None:
        self.taken += data
        self.flight += data

    def deliver(self, size: int | None) -> None:
        """Deliver bytes to the peer. A closed connection is closed for both sides."""
        size = len(self.flight) if size is None else size
        chunk, self.flight = self.flight[:size], self.flight[size:]
        if self.peer.up:
            self.peer.engine.receive(chunk)
            self.peer.look()

    def look(self) -> None:
        """Close the connection if LTDIC_CLOSED was told."""
        self.engine.pump()
        if self.up and ends(self.engine.told):
            self.up = False

    def lose(self, status: int = LOST) -> None:
        if self.up:
            self.engine.closed(status)
            self.up = False

    def check(self) -> None:
        """Assert after the end that nothing was lost or repeated and that the wire is right."""
        told, peer = self.engine.told, self.peer
        assert (self.engine.state, self.engine.deadline, self.engine.output()) == (1, 0, b"")
        assert len(ends(told)) == 1
        assert told[-1].kind == CLOSED
        assert {t.status for t in received(told)} <= {OK, TIMEOUT}
        self.check_sent([t for t in told if t.kind == SENT])
        self.check_wire()
        pieces = [t.piece for t in received(told) if t.type == 4]
        parts = [(p.id, p.control, p.data) for p in pieces]
        assert is_beginning(joined(parts), joined(peer.parts))
        if {5, 6} & {t.type for t in received(told)}:  # no data follows these PDUs
            assert joined(parts) == joined(peer.parts)
        came = b"".join(t.pdu for t in received(told))
        assert peer.taken.startswith(came)
        self.check_echoes(pieces, told)

    def check_sent(self, told: list[Told]) -> None:
        """Assert that the wire has the user's PDUs, and at most one A-ABORT of a deadline after
        them."""
        sent = [(t.type, t.size) for t in told]
        extra = [(7, 10)] if len(sent) > len(self.submitted) else []
        assert sent == self.submitted + extra
        at = 0
        for t in told:
            at += t.size
            assert t.status == (OK if at <= len(self.taken) else LOST)
        assert len(self.taken) <= at

    def check_wire(self) -> None:
        for wire in pdus_of(self.taken):
            decode(wire, strict=True, max_pdata=self.peer.max_length)
            if wire[0] == 2:
                assert wire[10:74] == RQ[10:74]

    def check_echoes(self, pieces: list[Piece], told: list[Told]) -> None:
        """Assert that a C-ECHO is told with the end of each command that is one, and nowhere
        else."""
        commands = [
            data
            for _, kind, data, last in joined([(p.id, p.control, p.data) for p in pieces])
            if kind and last
        ]
        ended = [t.echo for t in received(told) if t.piece.control == COMMAND | LAST]
        assert ended == [decode_echo(command) or NO_ECHO for command in commands]
        others = [t.echo for t in told if t.piece.control != COMMAND | LAST]
        assert set(others) <= {NO_ECHO}


class Pair:
    """A requestor and an acceptor, and the connection between them."""

    def __init__(self, requestor_max: int, acceptor_max: int) -> None:
        self.requestor, self.acceptor = Side(requestor_max), Side(acceptor_max)
        self.requestor.peer, self.acceptor.peer = self.acceptor, self.requestor
        self.sides = [self.requestor, self.acceptor]
        self.begun = False

    def begin(self) -> None:
        if not self.begun:
            for side in self.sides:
                side.begin()
            self.begun = self.requestor.call(encode(request(self.requestor.max_length)))

    def connect(self) -> None:
        if self.begun and self.requestor.engine.state == 4:
            self.requestor.engine.connected()
            self.acceptor.engine.accepted()
            for side in self.sides:
                side.up = True

    def answer(self, which: int) -> None:
        """Accept the contexts whose bit is set."""
        answers = tuple(
            ContextResult(c.id, 0 if which >> i & 1 else 3, c.transfer_syntaxes[-1])
            for i, c in enumerate(PROPOSED)
        )
        if self.acceptor.call(encode(accept(self.acceptor.max_length, contexts=answers))):
            for side in self.sides:
                side.contexts = {c.id for c in answers if c.result == 0}

    def pass_time(self, milliseconds: int) -> None:
        for side in self.sides:
            side.engine.now += milliseconds
            side.look()
        self.settle()

    def settle(self) -> None:
        """Close each side whose peer has closed, once it has read everything."""
        for side in self.sides:
            if side.up and not side.peer.up and not side.peer.flight:
                side.lose()

    def lose(self, arrives: bool) -> None:
        """Lose the connection; bytes in flight arrive first, or are lost."""
        for side in self.sides:
            if arrives:
                side.deliver(None)
            side.flight = b""
        for side in self.sides:
            side.lose()
        if self.begun and self.requestor.engine.state == 4:
            self.requestor.engine.closed(lib.LTDIC_ERR_CONNECT)

    def finish(self, silent: bool) -> None:
        """Let the users answer and the deadlines pass, until both sides have ended."""
        if not self.begun:
            return
        if self.requestor.engine.state == 4:
            self.lose(False)
        for turn in range(20):
            for side in self.sides:
                self.finish_step(side, silent)
            self.settle()
            if not any(side.up for side in self.sides):
                break
            deadlines = [side.engine.deadline for side in self.sides if side.engine.deadline]
            if deadlines and (silent or turn > 10):
                self.pass_time(max(0, min(deadlines) - self.requestor.engine.now))
        self.end()

    def finish_step(self, side: Side, silent: bool) -> None:
        state = side.engine.state
        responses = {3: RJ, 8: RELEASE_RP, 9: RELEASE_RP, 12: RELEASE_RP}
        if state in responses:
            side.call(responses[state])
        elif state == 6 and not silent:
            side.call(RELEASE_RQ)
        if not silent:
            side.take(None)
            side.deliver(None)

    def end(self) -> None:
        assert not any(side.up for side in self.sides)
        for side in self.sides:
            side.engine.pump()
            if side is self.requestor or side.engine.told:
                side.check()
        self.begun = False


# The relative frequency of each step; other drawn numbers choose the side and the size.
WEIGHTS = {"data": 10, "flush": 4, "reply": 3, "take": 2, "deliver": 2, "echo": 2, "establish": 2}
WEIGHTS |= {
    "begin": 2,
    "release": 2,
    "any": 2,
    "both": 1,
    "RJ": 1,
    "abort": 1,
    "time": 1,
    "wait": 1,
}
WEIGHTS |= {"lose": 1, "half": 1, "finish": 1}
KINDS = [kind for kind, weight in WEIGHTS.items() for _ in range(weight)]
MAXIMA = st.sampled_from([0, 8, 9, 16, 100, MAX])
STEPS = st.tuples(st.sampled_from(KINDS), st.integers(0, 1), st.integers(0, 255))
USER = {"RJ": RJ, "release": RELEASE_RQ, "abort": ABORT}


def bytes_of(number: int) -> int | None:
    return None if number > 120 else number


def do(pair: Pair, kind: str, which: int, number: int) -> None:
    side = pair.sides[which]
    if kind in USER:
        side.call(USER[kind])
        side.look()
    elif kind == "both":  # each asks for a release before it receives the other's
        for each in pair.sides:
            each.call(RELEASE_RQ)
    elif kind == "reply" and side.engine.state == 3:
        pair.answer(number)
    elif kind == "reply":
        side.call(RELEASE_RP)
    elif kind == "any":  # mostly illegal
        side.data([1, 3, 255, 5][number % 4], number // 4 % 4, b"ab", number // 16)
    elif kind == "data":
        most = 40 if side.peer.max_length in range(1, 99) else 20_000
        context, what = side.messages.open or (
            side.messages.data_of or min(side.contexts, default=1),
            number % 2 if side.messages.data_of else COMMAND,
        )
        control = what | (LAST if number % 3 else 0)
        side.data(context, control, bytes([number]) * ((number * most >> 8) & ~1), number % 30)
    elif kind == "echo":
        command = encode_echo(Echo(0x30, number, 0, VERIFICATION))[1]
        side.data(1 + number % 2 * 2, COMMAND | LAST, command, number % 100)
    elif kind == "lose":
        pair.lose(arrives=number % 2 == 0)
    elif kind == "half" and side.up:
        lib.ltdic_association_lost(side.engine.association)
    elif kind == "finish":
        pair.finish(silent=number % 2 == 0)
    elif kind == "establish" and not pair.begun:
        establish(pair, number)
    elif kind in ("begin", "establish"):
        pair.connect() if pair.begun else pair.begin()
    elif kind in ("time", "wait"):
        pair.pass_time(number * (10 if kind == "time" else 100))
    elif kind in ("take", "flush"):
        side.take(None if kind == "flush" else bytes_of(number))
    if kind in ("deliver", "flush"):
        side.deliver(None if kind == "flush" else bytes_of(number))
    pair.settle()
    if pair.begun and pair.requestor.engine.state == 1 and not any(s.up for s in pair.sides):
        pair.end()


def establish(pair: Pair, answer: int) -> None:
    pair.begin()
    pair.connect()
    pair.requestor.take(None)
    pair.requestor.deliver(None)
    pair.answer(answer)
    pair.acceptor.take(None)
    pair.acceptor.deliver(None)
    assert [side.engine.state for side in pair.sides] == [6, 6]


@pytest.mark.slow
@settings(max_examples=3 * settings().max_examples)
@given(MAXIMA, MAXIMA, st.booleans(), st.lists(STEPS, min_size=30, max_size=80), st.booleans())
def test_two_associations_always_end_and_lose_and_repeat_nothing(
    requestor_max: int,
    acceptor_max: int,
    established: bool,
    steps: list[tuple[str, int, int]],
    silent: bool,
) -> None:
    pair = Pair(requestor_max, acceptor_max)
    if established:
        establish(pair, 3)
    for kind, which, number in steps:
        do(pair, kind, which, number)
    pair.finish(silent)
    establish(pair, 7)  # both can be used again
    pair.finish(not silent)
