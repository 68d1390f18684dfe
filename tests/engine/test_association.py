"""`ltdic.Association` by its public API alone, without a transport."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ltdic import (
    PDU,
    PDV,
    Abort,
    AssociateAccept,
    AssociateReject,
    AssociateRequest,
    Association,
    Closed,
    ContextResult,
    DataTransfer,
    Echo,
    Fault,
    LocalError,
    ProposedContext,
    ReleaseRequest,
    ReleaseResponse,
    RoleSelection,
    UserInformation,
    decode,
    encode,
)
from support import hostile
from support.associations import associate, carried, told
from support.hostile import item
from support.pdus import RELEASE_RQ, p_data
from support.rejections import DEFINED, Codes
from support.strategies import triples
from support.uids import CT, EXPLICIT, IMPLICIT, MR, VERIFICATION

REQUEST = AssociateRequest(
    "CALLED",
    "CALLING",
    (
        ProposedContext(1, VERIFICATION, (IMPLICIT,)),
        ProposedContext(3, CT, (EXPLICIT, IMPLICIT)),
        ProposedContext(5, MR, (IMPLICIT,)),
    ),
    user_info=UserInformation(4096, "1.2.3", roles=(RoleSelection(CT, 1, 1),)),
)
ACCEPT = AssociateAccept(
    "CALLED",
    "CALLING",
    (ContextResult(1, 0, IMPLICIT), ContextResult(3, 0, EXPLICIT), ContextResult(5, 3)),
    user_info=UserInformation(1024, "1.2.4"),
)
RQ, AC, ABORT = encode(REQUEST), encode(ACCEPT), encode(Abort(0, 0))
TIMEOUT, IDLE = 30.0, 600.0
UNDEFINED: list[Codes] = [(0, 0, 0), (1, 1, 0), (1, 1, 4), (1, 2, 3), (3, 1, 1), (1, 4, 1)]
UNDEFINED += [(2, 3, 7), (9, 8, 7), (255, 255, 255)]


class Clock:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def asking(**options: Any) -> Association:
    """Return a requestor that has sent its request."""
    requestor = Association(requestor=True, **options)
    requestor.send(REQUEST)
    assert requestor.data_to_send() == RQ
    return requestor


def asked(**options: Any) -> Association:
    """Return an acceptor that has received a request."""
    acceptor = Association(requestor=False, **options)
    assert told(acceptor, RQ) == [REQUEST]
    return acceptor


def established(**options: Any) -> tuple[Association, Association]:
    """Return a requestor and an acceptor of one established association."""
    return associate(REQUEST, ACCEPT, **options)


def opened(requestor: bool, **options: Any) -> Association:
    """Return one end of an established association."""
    return established(**options)[not requestor]


def joined(events: Iterable[Any]) -> list[Any]:
    """Join the parts of each command or data set among the events."""
    found: list[Any] = []
    for event in events:
        last = found[-1] if found else None
        if isinstance(event, PDV) and isinstance(last, PDV) and not last.is_last:
            assert (event.context_id, event.is_command) == (last.context_id, last.is_command)
            found[-1] = replace(last, is_last=event.is_last, data=last.data + bytes(event.data))
        elif isinstance(event, PDV):
            found.append(replace(event, data=bytes(event.data), offset=0))
        else:
            found.append(event)
    return found


def lengths_in(wire: bytes) -> list[int]:
    """Return the length fields of these whole PDUs."""
    lengths, at = [], 0
    while at < len(wire):
        lengths.append(int.from_bytes(wire[at + 2 : at + 6], "big"))
        at += 6 + lengths[-1]
    return lengths


by_role = pytest.mark.parametrize("requestor", [True, False], ids=["requestor", "acceptor"])

# ---- establishing ------------------------------------------------------------------------------


def test_a_new_association_has_no_events_and_nothing_to_send() -> None:
    for role in (True, False):
        association = Association(requestor=role)
        assert (list(association.events()), association.data_to_send()) == ([], b"")
        assert not association.established


def test_a_request_and_its_accept_are_sent_and_told() -> None:
    requestor, acceptor = Association(requestor=True), Association(requestor=False)
    states = [(requestor.state, acceptor.state)]
    requestor.send(REQUEST)
    assert carried(requestor, acceptor) == [REQUEST]
    states.append((requestor.state, acceptor.state))
    acceptor.send(ACCEPT)
    assert acceptor.established
    assert not requestor.established
    assert carried(acceptor, requestor) == [ACCEPT]
    assert requestor.established
    assert [*states, (requestor.state, acceptor.state)] == [(1, 2), (5, 3), (6, 6)]


def test_data_to_send_is_returned_once() -> None:
    requestor = Association(requestor=True)
    requestor.send(REQUEST)
    assert [requestor.data_to_send(), requestor.data_to_send()] == [RQ, b""]


def test_each_event_is_told_once() -> None:
    acceptor = asked()
    assert list(acceptor.events()) == []


def test_associations_are_independent() -> None:
    first, second = opened(True), opened(True)
    first.send(PDV(1, True, True, b"ab"))
    assert second.data_to_send() == b""
    told(first, ABORT)
    assert (first.established, second.established) == (False, True)


# ---- rejections --------------------------------------------------------------------------------


@pytest.mark.parametrize("codes", DEFINED + UNDEFINED, ids=str)
def test_a_rejection_is_told_with_its_codes_and_ends_the_association(codes: Codes) -> None:
    requestor = asking()
    reject, closed = told(requestor, encode(AssociateReject(*codes)))
    assert (reject.result, reject.source, reject.reason) == codes
    assert isinstance(closed, Closed)
    assert (closed.kind, requestor.state, requestor.established) == ("ok", 1, False)
    assert requestor.data_to_send() == b""


@pytest.mark.parametrize("codes", DEFINED + UNDEFINED, ids=str)
def test_an_acceptor_rejects_with_any_codes_and_waits_for_the_requestor_to_close(
    codes: Codes,
) -> None:
    acceptor = asked()
    acceptor.send(AssociateReject(*codes))
    assert acceptor.data_to_send() == bytes([3, 0, 0, 0, 0, 4, 0, *codes])
    assert (acceptor.state, list(acceptor.events())) == (13, [])
    acceptor.receive_eof()
    assert [event.kind for event in acceptor.events()] == ["ok"]
    assert acceptor.state == 1


@pytest.mark.parametrize("codes", [(-1, 1, 1), (1, 256, 1), (1, 1, 10**9)], ids=str)
def test_codes_above_a_byte_are_a_value_error_and_change_nothing(codes: Codes) -> None:
    acceptor = asked()
    with pytest.raises(ValueError, match="0 to 255"):
        acceptor.send(AssociateReject(*codes))
    assert (acceptor.state, acceptor.data_to_send()) == (3, b"")


@given(triples, st.binary(min_size=2, max_size=2), st.sets(st.integers(1, 9)), st.booleans())
def test_a_rejection_in_any_pieces_is_told_once(
    codes: Codes, reserved: bytes, cuts: set[int], ends: bool
) -> None:
    """The end of the transport may arrive in the same read."""
    wire = bytes([3, reserved[0], 0, 0, 0, 4, reserved[1], *codes])
    requestor, events = asking(), []
    for start, end in zip([0, *sorted(cuts)], [*sorted(cuts), 10], strict=True):
        requestor.receive_data(wire[start:end])
        if end == 10 and ends:
            requestor.receive_eof()
        events += requestor.events()
    assert events == [AssociateReject(*codes), Closed("ok", events[-1].text)]
    requestor.receive_eof()
    assert list(requestor.events()) == []


def test_a_rejection_of_another_length_is_a_fault() -> None:
    requestor = asking()
    (fault,) = told(requestor, bytes.fromhex("0300000000050001010700"))
    assert (fault.kind, fault.abort) == ("bad_length", Abort(2, 6))
    assert (requestor.data_to_send(), requestor.state) == (encode(Abort(2, 6)), 13)
    requestor.receive_eof()
    assert [event.kind for event in requestor.events()] == ["bad_length"]


# ---- data --------------------------------------------------------------------------------------


@by_role
@pytest.mark.parametrize("size", [0, 2, 1018, 1020, 4090, 100_000])
def test_data_of_any_length_is_cut_to_the_maximum_length_of_the_peer(
    requestor: bool, size: int
) -> None:
    ends = established()
    one, other = ends if requestor else ends[::-1]
    most = (
        1024 if requestor else 4096
    )  # maximum length of the other side; headers take 6 bytes of it
    data = random.Random(size).randbytes(size)
    one.send(PDV(3, True, True, b"ab"))
    one.send(PDV(3, False, True, data))
    wire = one.data_to_send()
    lengths = lengths_in(wire)
    assert max(lengths) <= most
    assert len(lengths) == 1 + max(1, -(-size // (most - 6)))
    events = told(other, wire)
    assert all(isinstance(event, PDV) for event in events)
    assert joined(events) == [PDV(3, True, True, b"ab"), PDV(3, False, True, data)]


def test_parts_of_any_size_are_one_message() -> None:
    requestor, acceptor = established()
    for part in (b"a", b"bcd", b""):
        requestor.send(PDV(1, True, False, part))
    requestor.send(PDV(1, True, True, memoryview(b"ef")))
    assert joined(carried(requestor, acceptor)) == [PDV(1, True, True, b"abcdef")]


def test_data_of_an_unfinished_pdu_is_told() -> None:
    requestor = opened(True)
    assert not requestor.expects_more
    steps = [(b"abcd", True, False), (b"ef", True, True), (b"gh", False, False), (b"", False, True)]
    for data, is_command, is_last in steps:
        (pdv,) = told(requestor, p_data(data, is_command, is_last))
        assert (bytes(pdv.data), pdv.is_command, pdv.is_last) == (data, is_command, is_last)
        assert requestor.expects_more == ((is_command, is_last) != (False, True))


def test_data_of_an_event_does_not_change_later() -> None:
    requestor = opened(True)
    wire = bytearray(p_data(b"abcd", True))
    requestor.receive_data(wire)
    wire[:] = bytes(len(wire))
    events = list(requestor.events())
    told(requestor, p_data(b"ef"))
    assert joined(events) == [PDV(3, True, True, b"abcd")]


MESSAGES = st.lists(
    st.tuples(
        st.sampled_from([1, 3]),
        st.lists(st.tuples(st.binary(max_size=30), st.integers(1, 40)), min_size=2, max_size=2),
    ),
    max_size=5,
)
ENDS = [RELEASE_RQ, encode(Abort(2, 6)), b"\x09\0\0\0\0\0", p_data(b"ab"), b""]


def fragments(data: bytes, size: int, context: int, is_command: bool) -> bytes:
    """Return the P-DATA-TF PDUs of one command or data set."""
    parts = [data[n : n + size] for n in range(0, len(data), size)] or [b""]
    last = len(parts) - 1
    return b"".join(p_data(p, is_command, n == last, context) for n, p in enumerate(parts))


@given(MESSAGES, st.sampled_from(ENDS), st.data())
def test_chunking_does_not_change_the_events(messages: Any, end: bytes, data: Any) -> None:
    wire, expected = AC, [ACCEPT]
    for context, parts in messages:
        for is_command, (content, size) in zip((True, False), parts, strict=True):
            content = content[: len(content) & ~1]
            wire += fragments(content, size, context, is_command)
            expected.append(PDV(context, is_command, True, content))
    wire += end
    cuts = sorted(data.draw(st.sets(st.integers(0, len(wire)), max_size=20)))
    whole, cut = asking(), asking()
    at_once, events = told(whole, wire), []
    for start, stop in zip([0, *cuts], [*cuts, len(wire)], strict=True):
        events += told(cut, wire[start:stop])
    assert joined(events) == joined(at_once)
    assert joined(events)[: len(expected)] == expected
    assert (cut.state, cut.unused, cut.data_to_send()) == (
        whole.state,
        whole.unused,
        whole.data_to_send(),
    )


def test_bytes_of_an_incomplete_pdu_are_kept() -> None:
    acceptor = Association(requestor=False)
    assert told(acceptor, RQ[:-1]) == []
    assert (acceptor.unused, acceptor.expects_more) == (len(RQ) - 1, True)
    assert told(acceptor, RQ[-1:]) == [REQUEST]
    assert (acceptor.unused, acceptor.expects_more) == (0, False)


def test_an_echo_is_told_after_its_command_and_answered() -> None:
    requestor, acceptor = established()
    requestor.send_echo(1, 7)
    command, echo = carried(requestor, acceptor)
    assert (command.context_id, command.is_command, command.is_last) == (1, True, True)
    assert echo == Echo(1, True, 7, 0, VERIFICATION)
    acceptor.answer_echo(echo)
    response, answer = carried(acceptor, requestor)
    assert (response.context_id, response.is_command, response.is_last) == (1, True, True)
    assert answer == Echo(1, False, 7, 0, VERIFICATION)


# ---- release -----------------------------------------------------------------------------------


@by_role
def test_a_release_is_told_answered_and_ends_both_sides(requestor: bool) -> None:
    ends = established()
    one, other = ends if requestor else ends[::-1]
    one.send(ReleaseRequest())
    assert carried(one, other) == [ReleaseRequest()]
    assert (one.state, other.state) == (7, 8)
    other.send(ReleaseResponse())
    response, closed = carried(other, one)
    assert (response, closed.kind, one.state) == (ReleaseResponse(), "ok", 1)
    assert other.state == 13
    other.receive_eof()
    assert [event.kind for event in other.events()] == ["ok"]


def test_data_is_received_until_the_release_is_answered() -> None:
    requestor, acceptor = established()
    requestor.send(ReleaseRequest())
    assert carried(requestor, acceptor) == [ReleaseRequest()]
    assert acceptor.established
    acceptor.send(PDV(1, True, True, b"ab"))
    acceptor.send(ReleaseResponse())
    pdv, response, closed = joined(carried(acceptor, requestor))
    assert (pdv, response, closed.kind) == (PDV(1, True, True, b"ab"), ReleaseResponse(), "ok")


def test_in_a_release_collision_the_acceptor_waits_for_the_response_of_the_requestor() -> None:
    requestor, acceptor = established()
    requestor.send(ReleaseRequest())
    acceptor.send(ReleaseRequest())
    crossed = requestor.data_to_send(), acceptor.data_to_send()
    assert crossed == (RELEASE_RQ, RELEASE_RQ)
    assert told(requestor, crossed[1]) == told(acceptor, crossed[0]) == [ReleaseRequest()]
    assert (requestor.state, acceptor.state) == (9, 10)
    with pytest.raises(LocalError):
        acceptor.send(ReleaseResponse())
    requestor.send(ReleaseResponse())
    assert carried(requestor, acceptor) == [ReleaseResponse()]
    assert (requestor.state, acceptor.state) == (11, 12)
    acceptor.send(ReleaseResponse())
    response, closed = carried(acceptor, requestor)
    assert (response, closed.kind) == (ReleaseResponse(), "ok")
    assert (requestor.state, acceptor.state) == (1, 13)


# ---- abort -------------------------------------------------------------------------------------

BEFORE_THE_END: dict[str, Callable[[], Association]] = {
    "requestor, in 5": asking,
    "acceptor, in 3": asked,
    "requestor, in 6": lambda: opened(True),
    "acceptor, in 6": lambda: opened(False),
}


@pytest.mark.parametrize("where", BEFORE_THE_END)
def test_an_abort_by_the_user_is_sent_and_waits_for_the_peer_to_close(where: str) -> None:
    association = BEFORE_THE_END[where]()
    association.send(Abort(0, 0))
    assert (association.data_to_send(), association.state) == (ABORT, 13)
    assert told(association, p_data(b"ab", True)) == []
    association.receive_eof()
    assert [event.kind for event in association.events()] == ["ok"]
    assert association.data_to_send() == b""


@pytest.mark.parametrize("where", BEFORE_THE_END)
@pytest.mark.parametrize("codes", [(0, 0), (2, 0), (2, 6), (1, 77)], ids=str)
def test_an_abort_of_the_peer_is_told_with_its_codes_and_ends_the_association(
    where: str, codes: tuple[int, int]
) -> None:
    association = BEFORE_THE_END[where]()
    abort, closed = told(association, encode(Abort(*codes)))
    assert (abort, closed.kind, association.state) == (Abort(*codes), "aborted", 1)
    assert association.data_to_send() == b""


def test_data_before_an_abort_is_told_before_it() -> None:
    requestor = opened(True)
    requestor.receive_data(p_data(b"ab", True) + encode(Abort(2, 0)))
    requestor.receive_eof()
    pdv, abort, closed = joined(requestor.events())
    assert (pdv, abort) == (PDV(3, True, True, b"ab"), Abort(2, 0))
    assert closed.kind == "aborted"


# ---- the end of the transport ------------------------------------------------------------------


@pytest.mark.parametrize("where", BEFORE_THE_END)
def test_a_lost_transport_is_told_once_after_all_received_events(where: str) -> None:
    association = BEFORE_THE_END[where]()
    association.receive_eof()
    (closed,) = association.events()
    assert (closed.kind, association.state) == ("closed", 1)
    assert closed.text
    association.receive_eof()
    assert list(association.events()) == []


def test_a_rejection_is_received_after_the_transport_stops_sending() -> None:
    requestor = asking()
    requestor.send_failed()
    reject, closed = told(requestor, encode(AssociateReject(2, 3, 2)))
    assert (reject, closed.kind) == (AssociateReject(2, 3, 2), "ok")


@by_role
def test_nothing_is_sent_after_the_end(requestor: bool) -> None:
    association = opened(requestor)
    association.receive_eof()
    list(association.events())
    for what in (ReleaseRequest(), PDV(1, True, True, b"ab")):
        with pytest.raises(LocalError):
            association.send(what)
    association.send(Abort(0, 0))  # PS3.8 table 9-10 has no action for it
    assert (association.data_to_send(), association.state) == (b"", 1)


# ---- time --------------------------------------------------------------------------------------


def test_a_deadline_is_set_while_the_peer_owes_an_answer() -> None:
    clock = Clock()
    requestor = Association(requestor=True, timeout=TIMEOUT, clock=clock)
    acceptor = Association(requestor=False, timeout=TIMEOUT, clock=clock)
    assert (requestor.deadline(), acceptor.deadline()) == (None, clock.now + TIMEOUT)
    requestor.send(REQUEST)
    assert carried(requestor, acceptor) == [REQUEST]
    assert (requestor.deadline(), acceptor.deadline()) == (clock.now + TIMEOUT, None)
    acceptor.send(ACCEPT)
    assert carried(acceptor, requestor) == [ACCEPT]
    assert requestor.deadline() is acceptor.deadline() is None
    requestor.send(ReleaseRequest())
    requestor.data_to_send()
    assert requestor.deadline() == clock.now + TIMEOUT


@pytest.mark.parametrize("dripping", [b"", AC[:7]], ids=["silent", "dripping"])
def test_a_peer_that_does_not_answer_in_time_is_aborted(dripping: bytes) -> None:
    clock = Clock()
    requestor = asking(timeout=TIMEOUT, clock=clock)
    for n in range(len(dripping)):
        assert told(requestor, dripping[n : n + 1]) == []
    clock.now += TIMEOUT - 0.01
    requestor.handle_timeout()
    assert list(requestor.events()) == []
    clock.now += 0.02
    requestor.handle_timeout()
    fault = next(iter(requestor.events()))
    assert isinstance(fault, Fault)
    assert (fault.kind, fault.abort, fault.protocol) == ("timeout", Abort(0, 0), None)
    assert requestor.data_to_send() == ABORT
    requestor.receive_eof()
    assert [event.kind for event in requestor.events()] == ["timeout"]


def test_a_requestor_without_a_request_is_closed_without_a_pdu() -> None:
    clock = Clock()
    acceptor = Association(requestor=False, timeout=TIMEOUT, clock=clock)
    told(acceptor, RQ[:20])
    clock.now += TIMEOUT + 0.01
    acceptor.handle_timeout()
    assert [event.kind for event in acceptor.events()] == ["timeout"]
    assert acceptor.data_to_send() == b""


@by_role
def test_an_association_without_data_is_aborted_when_it_has_been_idle(requestor: bool) -> None:
    clock = Clock()
    association = opened(requestor, idle=IDLE, clock=clock)
    clock.now += IDLE / 2
    assert len(told(association, p_data(b"ab", True))) == 1
    assert association.deadline() == clock.now + IDLE
    clock.now += IDLE + 0.01
    association.handle_timeout()
    assert next(iter(association.events())).kind == "timeout"
    assert association.data_to_send() == ABORT


@pytest.mark.parametrize("make", [asking, lambda **o: Association(requestor=False, **o)])
def test_without_a_timeout_there_is_no_deadline(make: Callable[..., Association]) -> None:
    clock = Clock()
    deadline = make(timeout=None, clock=clock).deadline()
    assert deadline is None or deadline > clock.now + 40 * 86_400


def test_a_changed_timeout_applies_to_later_waits() -> None:
    clock = Clock()
    requestor = opened(True, timeout=TIMEOUT, clock=clock)
    requestor.set_timeouts(5, 7)
    requestor.send(ReleaseRequest())
    requestor.data_to_send()
    assert requestor.deadline() == clock.now + 5


@pytest.mark.parametrize("timeout", [-1, float("nan")])
def test_an_invalid_timeout_is_a_value_error(timeout: float) -> None:
    for option in ("timeout", "idle"):
        with pytest.raises(ValueError, match=option):
            Association(requestor=True, **{option: timeout})


# ---- local errors ------------------------------------------------------------------------------

PDUS: list[PDU] = [REQUEST, ACCEPT, AssociateReject(1, 1, 7), ReleaseRequest(), ReleaseResponse()]
FITS: dict[str, tuple[Callable[[], Association], tuple[type, ...]]] = {
    "requestor at first": (lambda: Association(requestor=True), (AssociateRequest,)),
    "acceptor at first": (lambda: Association(requestor=False), ()),
    "asking": (asking, ()),
    "asked": (asked, (AssociateAccept, AssociateReject)),
    "requestor": (lambda: opened(True), (ReleaseRequest, PDV)),
    "acceptor": (lambda: opened(False), (ReleaseRequest, PDV)),
}


@pytest.mark.parametrize("what", [*PDUS, PDV(1, True, True, b"ab")], ids=lambda p: type(p).__name__)
@pytest.mark.parametrize("where", FITS)
def test_a_pdu_that_the_state_forbids_is_a_local_error_and_changes_nothing(
    where: str, what: Any
) -> None:
    make, fitting = FITS[where]
    association = make()
    state = association.state
    if isinstance(what, fitting):
        association.send(what)
        assert association.data_to_send() != b""
        return
    with pytest.raises(LocalError):
        association.send(what)
    assert (association.state, association.data_to_send()) == (state, b"")


@pytest.mark.parametrize(
    ("pdv", "why"),
    [
        (PDV(5, True, True, b"ab"), "the context was not accepted"),
        (PDV(7, True, True, b"ab"), "the context was not accepted"),
        (PDV(1, True, True, b"abc"), "odd number"),
        (PDV(1, False, True, b"ab"), "a data set after a command"),
    ],
)
def test_data_that_breaks_the_rules_is_a_local_error_and_changes_nothing(
    pdv: PDV, why: str
) -> None:
    requestor = opened(True)
    with pytest.raises(LocalError, match=why):
        requestor.send(pdv)
    assert (requestor.established, requestor.data_to_send()) == (True, b"")


def test_an_accept_of_a_context_that_was_not_proposed_is_a_local_error() -> None:
    acceptor = asked()
    with pytest.raises(LocalError):
        acceptor.send(replace(ACCEPT, contexts=(ContextResult(9, 0, IMPLICIT),)))
    assert (acceptor.state, acceptor.data_to_send()) == (3, b"")
    acceptor.send(ACCEPT)
    assert acceptor.data_to_send() == AC


def test_data_that_the_peer_does_not_read_is_queued() -> None:
    requestor = opened(True)
    part, count = PDV(1, True, False, bytes(1 << 20)), 0
    while count < 1000:
        try:
            requestor.send(part)
        except LocalError as e:
            assert "too much is waiting" in str(e)
            break
        count += 1
    assert 0 < count < 1000
    assert len(requestor.data_to_send()) > count << 20
    requestor.send(part)


def test_values_of_other_types_are_type_errors() -> None:
    requestor = opened(True)
    for what in (DataTransfer((PDV(1, True, True, b"ab"),)), None, b"ab"):
        with pytest.raises(TypeError):
            requestor.send(what)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        requestor.receive_data("text")  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        Association(requestor=True, clock=5)  # type: ignore[arg-type]
    assert (requestor.established, requestor.data_to_send()) == (True, b"")


# ---- peers that break the rules ----------------------------------------------------------------

BROKEN = {
    "an unknown type": (b"\x09\0\0\0\0\0", Abort(2, 1)),
    "a PDU of another state": (RQ, Abort(2, 2)),
    "a PDV that runs past its PDU": (bytes.fromhex("04000000000800000009010300ff"), Abort(2, 6)),
    "a context that was not accepted": (p_data(b"ab", True, context=5), None),
    "a data set without its command": (p_data(b"ab"), None),
}


@by_role
@pytest.mark.parametrize("what", BROKEN)
def test_a_peer_that_breaks_the_protocol_is_reported_and_aborted(
    requestor: bool, what: str
) -> None:
    wire, abort = BROKEN[what]
    association = opened(requestor)
    (fault,) = (event for event in told(association, wire) if isinstance(event, Fault))
    assert fault.abort.source == 2
    assert abort in (None, fault.abort)
    assert fault.text
    assert association.data_to_send() == encode(fault.abort)
    assert not association.established


@pytest.mark.parametrize(
    ("wire", "protocol"),
    [
        (b"GET / HTTP/1.1\r\nHost: here\r\n\r\n", "HTTP"),
        (bytes.fromhex("160301004a010000460303"), "TLS"),
        (b"\x99\0\0\0\0\0", None),
    ],
)
def test_the_protocol_of_a_foreign_peer_is_told(wire: bytes, protocol: str | None) -> None:
    requestor = asking()
    (fault,) = told(requestor, wire)
    assert isinstance(fault, Fault)
    assert (fault.kind, fault.abort, fault.protocol) == ("bad_pdu_type", Abort(2, 1), protocol)


def test_a_foreign_protocol_at_an_acceptor_is_aborted_without_an_event() -> None:
    acceptor = Association(requestor=False)
    assert told(acceptor, b"GET / HTTP/1.1\r\n\r\n") == []
    assert (acceptor.data_to_send(), acceptor.state) == (ABORT, 13)  # AA-1
    acceptor.receive_eof()
    assert [event.kind for event in acceptor.events()] == ["bad_pdu_type"]


@given(st.binary(max_size=200), st.booleans())
def test_any_bytes_end_in_events_and_never_in_an_exception(wire: bytes, requestor: bool) -> None:
    association = opened(requestor)
    association.receive_data(wire)
    association.receive_eof()
    events = list(association.events())
    assert isinstance(events[-1], Closed)
    assert not any(isinstance(event, Closed) for event in events[:-1])
    assert not association.established


# ---- exact -------------------------------------------------------------------------------------


def test_an_exact_association_tells_requests_that_encode_to_the_received_bytes() -> None:
    """Without `exact` a second sub-item of a type is not kept: the first one counts."""
    information = item(0x50, item(0x51, b"\0\0\x40\0") + item(0x52, b"1.2.5") + item(0x51, b"ADMI"))
    context = item(0x20, b"\1\0\0\0", item(0x30, b"1.2.3") + item(0x40, b"1.2.4"))
    wire = hostile.associate(1, item(0x10, b"1.2.840.10008.3.1.1.1"), context, information)
    found = {}
    for exact in (False, True):
        (found[exact],) = told(Association(requestor=False, exact=exact), wire)
        assert found[exact] == decode(wire, exact=exact)
        assert found[exact].user_info.max_length == 0x4000
    assert encode(found[True]) == wire
    assert len(encode(found[False])) < len(wire)
