"""The C server, stepped by the test's own thread, and plain sockets as its peers."""

from __future__ import annotations

import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields
from dataclasses import replace as changed
from itertools import groupby
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ltdic import (
    Abort,
    AssociateAccept,
    AssociateReject,
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
from support.admission import USERS, Admission, Policy, asks_as, request
from support.pdus import p_data_of as p_data
from support.process import descriptors, memory_allowed, memory_in_use
from support.sockets import LOCALHOST, TIMEOUT, close_with_reset
from support.uids import CT, EXPLICIT, IMPLICIT, VERIFICATION

OK, NEED_MORE, INTERRUPTED = lib.LTDIC_OK, lib.LTDIC_NEED_MORE, lib.LTDIC_ERR_INTERRUPTED
CLOSED, WRONG_STATE = lib.LTDIC_ERR_CLOSED, lib.LTDIC_ERR_WRONG_STATE
BAD_VALUE, ROOM, TIMED_OUT = lib.LTDIC_ERR_BAD_VALUE, lib.LTDIC_ERR_ROOM, lib.LTDIC_ERR_TIMEOUT
REQUESTS, DATA, ENDS = lib.LTDIC_WANT_REQUESTS, lib.LTDIC_WANT_DATA, lib.LTDIC_WANT_ENDS
ROOM_MADE = lib.LTDIC_SERVED_ROOM
EVERYTHING = REQUESTS | DATA | ENDS
REQUEST, ACCEPTED = lib.LTDIC_SERVED_REQUEST, lib.LTDIC_SERVED_ACCEPTED
RECEIVED, ENDED = lib.LTDIC_SERVED_DATA, lib.LTDIC_SERVED_ENDED
OUTCOMES = [
    *("none", "rejected", "released", "aborted", "timed out", "lost"),
    *("no request", "fault"),
]

COMMAND, LAST = 1, 2
STORE, VERIFY = 3, 1  # context IDs
PROPOSED = (ProposedContext(VERIFY, VERIFICATION, (IMPLICIT,)), ProposedContext(3, CT, (EXPLICIT,)))
POLICY = Policy(contexts=((VERIFICATION, (IMPLICIT,)), (CT, (EXPLICIT,))))
MAX = 16384

RQ = encode(request(contexts=PROPOSED))
RELEASE_RQ, RELEASE_RP = encode(ReleaseRequest()), encode(ReleaseResponse())
ABORT = encode(Abort(0, 0))
BUSY = AssociateReject(2, 3, 1)


def echo(field: int, context: int = VERIFY, message: int = 7) -> bytes:
    """Return a C-ECHO as a P-DATA-TF, encoded by the C library (see
    test_association_binding.py)."""
    command = ffi.new("ltdic_echo *", {"field": field, "message": message})
    command.sop_class = VERIFICATION.encode()
    out = ffi.new("uint8_t[]", lib.LTDIC_ECHO_ROOM)
    buffer = ffi.new("ltdic_buffer *", (out, lib.LTDIC_ECHO_ROOM, 0))
    assert lib.ltdic_encode_echo(buffer, command) == OK
    return p_data((context, COMMAND | LAST, bytes(ffi.buffer(out, buffer.size))))


ECHO_RQ, ECHO_RSP = echo(lib.LTDIC_C_ECHO_RQ), echo(lib.LTDIC_C_ECHO_RSP)


# ---- the harness -----------------------------------------------------------------------------


class Report(NamedTuple):
    outcome: str
    status: int
    codes: tuple[int, int, int]
    called: bytes
    calling: bytes
    host: bytes
    port: int
    received: int
    sent: int
    milliseconds: int


class Served(NamedTuple):
    """An association of a server, identified by its number."""

    server: Any
    number: int


class Event(NamedTuple):
    kind: int
    served: Served
    id: int
    control: int
    data: bytes
    report: Report


def report_of(served: Served) -> Report:
    r = lib.ltdic_served_report(*served)
    texts = (ffi.string(text) for text in (r.called, r.calling, r.host))
    codes = (r.codes.result, r.codes.source, r.codes.reason)
    numbers = (r.port, r.received, r.sent, r.milliseconds)
    return Report(OUTCOMES[r.outcome], r.status, codes, *texts, *numbers)


@dataclass
class Counters:
    connections: int = 0
    accepted: int = 0
    released: int = 0
    aborted: int = 0
    lost: int = 0
    timed_out: int = 0
    no_request: int = 0
    faults: int = 0
    unaccepted: int = 0


class Server:
    """An `ltdic_server`, its events so far, and its peers."""

    def __init__(self, policy: Policy = POLICY, artim: int = 0, idle: int = 0) -> None:
        self.admission = Admission(policy)
        self.loop = lib.ltdic_loop_new()
        self.server = lib.ltdic_server_new(self.loop, self.admission.admission)
        size = ffi.sizeof("ltdic_timeouts")
        timeouts = ffi.new("ltdic_timeouts *", (size, artim, 0, idle))
        lib.ltdic_server_set_timeouts(self.server, timeouts)
        host = ffi.new("char[]", LOCALHOST.encode())
        address = ffi.new("ltdic_address *", (host, 0, lib.LTDIC_IP_V4))
        assert lib.ltdic_server_listen(self.server, address, 0) == OK
        self.address = (LOCALHOST, self.port())
        self.batch = ffi.new("ltdic_batch *")
        self.wanted = 0
        self.events: list[Event] = []
        self.peers: list[Peer] = []

    def port(self) -> int:
        host, port = ffi.new("uint8_t[]", 48), ffi.new("uint16_t *")
        assert lib.ltdic_server_name(self.server, ffi.new("ltdic_buffer *", (host, 48)), port) == OK
        return int(port[0])

    def run(self, milliseconds: int = 0) -> tuple[int, list[Event]]:
        """Call `ltdic_server_run` once; return its status and its events."""
        status = lib.ltdic_server_run(self.server, self.batch, self.wanted, milliseconds)
        told = [self._event(self.batch.events[i]) for i in range(self.batch.count)]
        assert status == OK or not told
        self.events += told
        return int(status), told

    def _event(self, row: Any) -> Event:
        data = bytes(ffi.buffer(self.batch.data + row.offset, row.length)) if row.length else b""
        served = Served(self.server, row.served)
        return Event(row.kind, served, row.id, row.control, data, report_of(served))

    def until(self, done: Callable[[], Any]) -> Any:
        """Run until `done` returns something true; return that."""
        end = time.monotonic() + TIMEOUT
        while not (found := done()):
            assert time.monotonic() < end
            self.run(2)
        return found

    def of(self, kind: int) -> list[Event]:
        return [event for event in self.events if event.kind == kind]

    def ended(self, count: int = 1) -> list[Report]:
        """Run until so many associations have ended; return their reports."""
        self.until(lambda: len(self.of(ENDED)) >= count)
        assert len(self.of(ENDED)) == count
        return [event.report for event in self.of(ENDED)]

    def closed(self) -> None:
        """Run until the server is closed."""
        end = time.monotonic() + TIMEOUT
        while self.run(1000)[0] != CLOSED:
            assert time.monotonic() < end

    def close(self, milliseconds: int) -> None:
        lib.ltdic_server_close(self.server, milliseconds)

    @property
    def counters(self) -> Counters:
        c = lib.ltdic_server_counters(self.server)
        return Counters(**{name.name: getattr(c, name.name) for name in fields(Counters)})

    @property
    def rejected(self) -> dict[tuple[int, int, int], int]:
        counts = lib.ltdic_server_counters(self.server).rejected
        return {
            (result + 1, source + 1, reason): count
            for result in range(2)
            for source in range(3)
            for reason in range(8)
            if (count := counts[result][source][reason])
        }

    def call(self, *pdus: bytes) -> Peer:
        """Return a peer that connects and sends these PDUs at once."""
        peer = Peer(self)
        self.peers.append(peer)
        for pdu in pdus:
            peer.send(pdu)
        return peer

    def associate(self, rq: bytes = RQ) -> Peer:
        peer = self.call(rq)
        assert isinstance(decode(peer.receive()), AssociateAccept)
        return peer

    def free(self) -> None:
        for peer in self.peers:
            peer.socket.close()
        lib.ltdic_loop_free(self.loop)  # with the server


class Peer:
    """The other end of a connection; the server runs whenever the peer waits."""

    def __init__(self, server: Server) -> None:
        self.server, self.inbox = server, bytearray()
        self.socket = socket.create_connection(server.address, TIMEOUT)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    @property
    def port(self) -> int:
        return int(self.socket.getsockname()[1])

    def send(self, data: bytes) -> None:
        """Send all of it; the server runs whenever the system takes no more."""
        self.socket.setblocking(False)
        left = memoryview(data)
        while left:
            try:
                left = left[self.socket.send(left) :]
            except BlockingIOError:
                self.server.run(1)

    def poll(self) -> bytes:
        """Return the bytes that have arrived and are unread; `at_end` tells the end."""
        self.socket.setblocking(False)
        try:
            while chunk := self.socket.recv(65536):
                self.inbox += chunk
        except (BlockingIOError, ConnectionError):
            pass
        return bytes(self.inbox)

    def _pdu(self) -> bytes:
        data = self.poll()
        size = 6 + int.from_bytes(data[2:6], "big")
        if len(data) < 6 or len(data) < size:
            return b""
        del self.inbox[:size]
        return data[:size]

    def receive(self) -> bytes:
        """Return the next PDU."""
        pdu = self.server.until(self._pdu)
        assert isinstance(pdu, bytes)
        return pdu

    def at_end(self) -> bool:
        """Tell whether the other side has closed and nothing is unread."""
        try:
            return self.socket.recv(1) == b""
        except BlockingIOError:
            return False
        except ConnectionError:
            return True

    def sees_the_end(self) -> None:
        self.socket.setblocking(False)
        self.server.until(self.at_end)

    def release(self) -> None:
        self.send(RELEASE_RQ)
        assert self.receive() == RELEASE_RP
        self.socket.close()


@contextmanager
def serving(policy: Policy = POLICY, wanted: int = 0, **timeouts: int) -> Iterator[Server]:
    server = Server(policy, **timeouts)
    server.wanted = wanted
    try:
        yield server
    finally:
        server.free()


def send(served: Served, pdu: bytes) -> int:
    with ffi.from_buffer(pdu) as raw:
        return int(lib.ltdic_served_send(*served, (raw, len(pdu))))


def send_data(
    served: Served, data: bytes, control: int = COMMAND | LAST, context: int = STORE
) -> int:
    with ffi.from_buffer(data) as raw:
        pdv = ffi.new("ltdic_pdv *", (context, control, (raw, len(data))))
        return int(lib.ltdic_served_send_data(*served, pdv))


def read_to_the_end(connection: socket.socket) -> None:
    """Read to the end of the connection; the last PDU must be an A-ABORT."""
    last = b""
    connection.settimeout(TIMEOUT)
    while last[-10:] != ABORT and (chunk := connection.recv(1 << 16)):
        last = last[-10:] + chunk
    connection.close()


# ---- without a user --------------------------------------------------------------------------


def test_a_server_answers_echoes_and_releases_without_events() -> None:
    with serving() as server:
        peer = server.associate()
        for number in range(3):
            peer.send(echo(lib.LTDIC_C_ECHO_RQ, message=number))
            assert peer.receive() == echo(lib.LTDIC_C_ECHO_RSP, message=number)
        peer.send(RELEASE_RQ)
        assert peer.receive() == RELEASE_RP
        assert server.run(0) == (NEED_MORE, [])
        assert server.counters == Counters(connections=1, accepted=1, released=1)
        assert server.events == []


def test_the_accept_is_built_by_the_admission() -> None:
    with serving() as server:
        assert server.call(RQ).receive() == Admission(POLICY).judge(RQ).accept


def test_pdus_sent_at_once_are_answered_in_order() -> None:
    with serving() as server:
        peer = server.call(RQ + ECHO_RQ + ECHO_RQ + RELEASE_RQ)
        kinds = [peer.receive()[0] for _ in range(4)]
        assert kinds == [2, 4, 4, 6]
        peer.socket.close()


@pytest.mark.parametrize(
    "pdu",
    [
        p_data((VERIFY, COMMAND | LAST, b"no command")),
        ECHO_RSP,
        echo(lib.LTDIC_C_ECHO_RQ) + p_data((VERIFY, LAST, b"data set")),
    ],
)
def test_a_message_that_is_not_an_echo_in_a_verification_context_is_aborted(pdu: bytes) -> None:
    with serving(wanted=ENDS) as server:
        peer = server.associate()
        peer.send(pdu)
        answers = [peer.receive()]
        if answers[-1] == ECHO_RSP:
            answers.append(peer.receive())
        assert answers[-1] == ABORT
        peer.socket.close()
        report = server.ended()[0]
        assert (report.outcome, report.status, report.codes) == ("aborted", OK, (0, 0, 0))
        assert server.counters.aborted == 1


def test_the_first_of_two_contexts_with_one_id_routes_the_data() -> None:
    both = encode(request(contexts=(changed(PROPOSED[1], id=1), PROPOSED[0])))
    with serving(wanted=DATA) as server:
        peer = server.associate(both)
        peer.send(p_data((1, COMMAND | LAST, b"of a CT.")))
        server.until(lambda: server.of(RECEIVED))
        assert [event.data for event in server.of(RECEIVED)] == [b"of a CT."]


def test_data_without_a_receiver_is_dropped() -> None:
    with serving(wanted=ENDS) as server:
        peer = server.associate()
        peer.send(p_data((STORE, COMMAND | LAST, b"ab"), (STORE, LAST, b"cd" * 1000)) * 20)
        peer.release()
        assert server.ended()[0].outcome == "released"
        assert [event.kind for event in server.events] == [ENDED]


@pytest.mark.slow
def test_associations_without_events_take_no_memory_within_one_run() -> None:
    rounds = 20_000

    def come_and_go(address: tuple[str, int], count: int) -> None:
        for _ in range(count):
            close_with_reset(socket.create_connection(address, TIMEOUT))
        lib.ltdic_server_wake(server.server)

    with serving() as server:
        for count in (500, rounds):
            before = memory_in_use()
            caller = threading.Thread(target=come_and_go, args=(server.address, count))
            caller.start()
            assert server.run(60_000)[0] == INTERRUPTED
            after = memory_in_use()
            caller.join()
        assert server.counters.connections > rounds
        assert after - before < memory_allowed(3 << 19)


# ---- rejections ------------------------------------------------------------------------------

BAD_VERSION = RQ[:6] + b"\0\2" + RQ[8:]
BAD_CONTEXT = encode(request(application_context="1.2.3"))
REJECTIONS = [
    (changed(POLICY, called=("OTHER",)), RQ, (1, 1, 7)),
    (changed(POLICY, calling=("OTHER",)), RQ, (1, 1, 3)),
    (changed(POLICY, users=USERS), RQ, (1, 2, 1)),
    (changed(POLICY, users=USERS), encode(asks_as(2, 1, b"user", b"wrong")), (1, 2, 1)),
    (POLICY, BAD_VERSION, (1, 2, 2)),
    (POLICY, BAD_CONTEXT, (1, 1, 2)),
    (changed(POLICY, called=("OTHER",)), BAD_VERSION, (1, 2, 2)),
]


@pytest.mark.parametrize(("policy", "rq", "codes"), REJECTIONS)
@pytest.mark.parametrize("wanted", [0, ENDS, EVERYTHING])
def test_a_rejection_has_its_code_and_is_counted(
    policy: Policy, rq: bytes, codes: tuple[int, int, int], wanted: int
) -> None:
    with serving(policy, wanted) as server:
        peer = server.call(rq)
        assert decode(peer.receive()) == AssociateReject(*codes)
        port = peer.port
        peer.socket.close()
        server.until(lambda: server.rejected)
        server.run(10)
        assert server.rejected == {codes: 1}
        assert server.counters == Counters(connections=1)
        if wanted:
            (report,) = server.ended()
            assert report[:7] == ("rejected", OK, codes, b"CALLED", b"CALLING", b"127.0.0.1", port)
            assert (report.received, report.sent) == (len(rq), 10)
        assert {event.kind for event in server.events} == ({ENDED} if wanted else set())


def test_limits_are_enforced_and_places_are_freed() -> None:
    with serving(changed(POLICY, together=2, each=1), ENDS) as server:
        other = encode(request(contexts=PROPOSED, calling_ae="OTHER"))
        third = encode(request(contexts=PROPOSED, calling_ae="THIRD"))
        first = server.associate()
        assert decode(server.call(RQ).receive()) == AssociateReject(
            2, 3, 2
        )  # limit of each calling title
        server.associate(other)
        assert decode(server.call(third).receive()) == AssociateReject(
            2, 3, 2
        )  # limit of all together
        first.send(RELEASE_RQ)
        assert first.receive() == RELEASE_RP
        server.associate(third)  # although the first has not closed its connection
        server.peers[2].send(ABORT)
        server.until(lambda: server.counters.aborted)
        server.associate(RQ)
        assert server.rejected == {(2, 3, 2): 2}
        assert server.counters == Counters(connections=6, accepted=4, released=1, aborted=1)


@pytest.mark.parametrize("rq", [BAD_VERSION, BAD_CONTEXT])
def test_a_refused_request_that_is_aborted_at_once_is_reported_as_rejected(
    rq: bytes,
) -> None:
    with serving(wanted=ENDS) as server:
        server.call(rq + ABORT)
        (report,) = server.ended()
        codes = (1, 2, 2) if rq == BAD_VERSION else (1, 1, 2)
        assert (report.outcome, report.codes) == ("rejected", codes)
        assert (report.called, report.calling) == (b"CALLED", b"CALLING")
        assert server.rejected == {codes: 1}
        assert server.counters == Counters(connections=1)


def test_a_refused_request_that_ends_at_artim_is_reported_as_rejected() -> None:
    with serving(wanted=ENDS, artim=50) as server:
        server.call(BAD_VERSION + ABORT[:3])
        (report,) = server.ended()
        assert (report.outcome, report.codes) == ("rejected", (1, 2, 2))
        assert server.rejected == {(1, 2, 2): 1}


# ---- data ------------------------------------------------------------------------------------

MESSAGE = [(STORE, COMMAND, b"comm"), (STORE, COMMAND | LAST, b"and."), (STORE, 0, b"data se")]
MESSAGE = [(i, c, data + b"." * (len(data) % 2)) for i, c, data in MESSAGE]
MESSAGE += [(STORE, 0, b""), (STORE, LAST, b"t!")]
MESSAGE_ROWS = [(STORE, COMMAND | LAST, b"command."), (STORE, LAST, b"data se.t!")]
WIRE = p_data(MESSAGE[0], MESSAGE[1]) + p_data(*MESSAGE[2:])


def rows(events: list[Event]) -> list[tuple[int, int, bytes]]:
    return [(e.id, e.control, e.data) for e in events if e.kind == RECEIVED]


def joined(events: list[Event]) -> list[tuple[int, int, bytes]]:
    """Join rows, which may be parts, to whole commands and data sets."""
    whole: list[tuple[int, int, bytes]] = []
    before = b""
    for id_, control, data in rows(events):
        before += data
        if control & LAST:
            whole.append((id_, control, before))
            before = b""
    assert before == b""
    return whole


def test_a_whole_command_and_a_whole_data_set_are_one_row_each() -> None:
    with serving(wanted=DATA) as server:
        peer = server.associate()
        peer.send(WIRE)
        server.until(lambda: len(rows(server.events)) == 2)
        assert rows(server.events) == MESSAGE_ROWS
        assert [e.data for e in server.of(ACCEPTED)] == [RQ + Admission(POLICY).judge(RQ).accept]


def test_a_stream_cut_anywhere_gives_the_same_events() -> None:
    with serving(wanted=DATA) as server:
        peer = server.associate()
        for cut in range(1, len(WIRE)):
            server.events.clear()
            peer.send(WIRE[:cut])
            server.run(0)
            peer.send(WIRE[cut:])
            server.until(lambda: server.events and server.events[-1].control == LAST)
            assert joined(server.events) == MESSAGE_ROWS


parts = st.lists(st.binary(max_size=40).map(lambda data: data[: len(data) & ~1]), max_size=5)
messages = st.lists(st.tuples(parts, parts), min_size=1, max_size=6)


def fragments(command: bool, data: list[bytes]) -> list[tuple[int, int, bytes]]:
    pieces = data or [b""]
    controls = [COMMAND * command] * (len(pieces) - 1) + [COMMAND * command | LAST]
    return [(STORE, control, piece) for control, piece in zip(controls, pieces, strict=True)]


@pytest.mark.slow
@settings(deadline=None)
@given(messages, st.lists(st.integers(1, 60), max_size=12), st.integers(1, 4))
def test_messages_are_received_as_sent(
    sent: list[tuple[list[bytes], list[bytes]]], cuts: list[int], at_once: int
) -> None:
    pdvs = [pdv for c, d in sent for pdv in (*fragments(True, c), *fragments(False, d))]
    wire = b"".join(p_data(*pdvs[i : i + at_once]) for i in range(0, len(pdvs), at_once))
    with serving(wanted=DATA | ENDS) as server:
        peer = server.associate()
        for cut in cuts:
            peer.send(wire[:cut])
            wire = wire[cut:]
            server.run(0)
        peer.send(wire)
        peer.release()
        server.ended()
        expected = [
            (STORE, c | LAST, b"".join(d)) for pair in sent for c, d in ((1, pair[0]), (0, pair[1]))
        ]
        assert joined(server.events) == expected
        assert [event.kind for event in server.events].count(ACCEPTED) == 1
        assert server.events[0].kind == ACCEPTED
        assert server.events[-1].kind == ENDED


def test_events_beyond_one_batch_arrive_in_several_in_order() -> None:
    """The messages of all peers alternate, so that no two rows can be joined."""
    with serving(wanted=DATA) as server:
        peers = [server.associate() for _ in range(3)]
        for number in range(300):
            for who, peer in enumerate(peers):
                peer.send(p_data((STORE, COMMAND | LAST, b"%d %05d" % (who, number))))
        server.until(lambda: len(rows(server.events)) == 900)
        by_peer = sorted((data[:1], n, data) for n, (_, _, data) in enumerate(rows(server.events)))
        for who, group in groupby(by_peer, lambda row: row[0]):
            assert [data for _, _, data in group] == [b"%s %05d" % (who, n) for n in range(300)]


@pytest.mark.parametrize("most", [MAX, 0])
def test_a_large_data_set_is_received_in_batches_of_bounded_size(most: int) -> None:
    whole = os.urandom(3 << 20)
    rq = encode(request(contexts=PROPOSED))
    with serving(wanted=DATA | ENDS) as server:
        lib.ltdic_admission_set_max_length(server.admission.admission, most)
        peer = server.associate(rq)
        step = (most or len(whole)) - 6 * bool(most)
        peer.send(p_data((STORE, COMMAND | LAST, b"ab")))
        for at in range(0, len(whole), step):
            control = LAST if at + step >= len(whole) else 0
            peer.send(p_data((STORE, control, whole[at : at + step])))
        peer.release()
        assert server.ended()[0].received > len(whole)
        assert joined(server.events)[1:] == [(STORE, LAST, whole)]
        assert max(len(data) for _, _, data in rows(server.events)) <= 262144 + 2 * 65536


def test_a_release_is_answered_after_the_data_before_it_is_handled() -> None:
    with serving(wanted=DATA) as server:
        peer = server.associate()
        peer.send(WIRE + RELEASE_RQ)
        server.until(lambda: server.events[-1].kind == RECEIVED)
        served = server.events[-1].served
        assert joined(server.events) == MESSAGE_ROWS
        assert peer.poll() == b""
        assert send_data(served, b"an answer.") == OK  # AR-7
        server.run(0)
        assert peer.receive() == p_data((STORE, COMMAND | LAST, b"an answer."))
        assert peer.receive() == RELEASE_RP
        assert server.counters.released == 1


def test_an_unanswered_release_can_be_aborted_or_freed() -> None:
    def whole(messages: int) -> bool:
        return [control for _, control, _ in rows(server.events)].count(LAST) == messages

    with serving(wanted=DATA | ENDS) as server:
        peers = [server.associate() for _ in range(2)]
        for peer in peers:
            peer.send(WIRE + RELEASE_RQ)
        server.until(lambda: whole(2))
        assert send(server.of(RECEIVED)[-1].served, ABORT) == OK
        server.until(lambda: server.counters.released)
        assert server.counters == Counters(connections=2, accepted=2, released=1, aborted=1)
        server.associate().send(WIRE + RELEASE_RQ)
        server.until(lambda: whole(3))


# ---- decisions of the user -------------------------------------------------------------------


def test_the_user_gets_the_request_and_a_proposed_answer() -> None:
    with serving(wanted=REQUESTS) as server:
        peer = server.call(RQ)
        server.until(lambda: server.events)
        (event,) = server.events
        assert (event.kind, event.report.outcome) == (REQUEST, "none")
        assert event.data == RQ + Admission(POLICY).judge(RQ).accept
        server.run(10)
        assert peer.poll() == b""
        assert server.counters == Counters(connections=1)
        assert send(event.served, event.data[len(RQ) :]) == OK
        assert peer.receive() == event.data[len(RQ) :]
        assert send(event.served, event.data[len(RQ) :]) == WRONG_STATE
        assert server.counters == Counters(connections=1, accepted=1)
        peer.send(ECHO_RQ)
        assert peer.receive() == ECHO_RSP
        peer.release()
        assert server.ended()[0].outcome == "released"


def test_the_user_may_accept_less() -> None:
    with serving(wanted=REQUESTS) as server:
        peer = server.call(RQ)
        server.until(lambda: server.events)
        served = server.events[0].served
        info = UserInformation(MAX, "1.2.3")
        one = AssociateAccept("", "", (ContextResult(VERIFY, 3),), user_info=info)
        assert send(served, encode(one)) == BAD_VALUE  # one context has no answer
        both = changed(one, contexts=(*one.contexts, ContextResult(STORE, 0, EXPLICIT)))
        assert send(served, encode(both)) == OK
        assert decode(peer.receive()) == changed(both, called_ae="CALLED", calling_ae="CALLING")
        peer.send(ECHO_RQ)
        assert decode(peer.receive()) == Abort(2, 5)


@pytest.mark.parametrize("codes", [(1, 1, 1), (2, 1, 1), (1, 1, 7), (2, 3, 2)])
def test_the_user_may_reject(codes: tuple[int, int, int]) -> None:
    with serving(changed(POLICY, together=1), REQUESTS) as server:
        peer = server.call(RQ)
        server.until(lambda: server.events)
        served = server.events[0].served
        assert send(served, encode(AssociateReject(*codes))) == OK
        assert decode(peer.receive()) == AssociateReject(*codes)
        assert send(served, ABORT) == OK  # there is nothing left to abort
        assert send(served, RELEASE_RQ) == WRONG_STATE
        server.call(RQ)  # the rejection has freed the place
        server.until(lambda: len(server.of(REQUEST)) == 2)
        peer.socket.close()
        (report,) = server.ended()
        assert (report.outcome, report.codes) == ("rejected", codes)
        assert server.rejected == {codes: 1}


@pytest.mark.parametrize("codes", [(0, 1, 1), (1, 3, 8), (255, 255, 255)])
def test_the_user_may_reject_with_codes_that_are_not_defined(codes: tuple[int, int, int]) -> None:
    """A relay passes on the codes that it received."""
    with serving(wanted=REQUESTS) as server:
        peer = server.call(RQ)
        server.until(lambda: server.events)
        assert send(server.events[0].served, encode(AssociateReject(*codes))) == OK
        assert decode(peer.receive()) == AssociateReject(*codes)
        peer.socket.close()
        (report,) = server.ended()
        assert (report.outcome, report.codes) == ("rejected", codes)
        assert server.rejected == {}
        assert lib.ltdic_server_counters(server.server).rejected_undefined == 1


def test_an_answer_to_a_lost_peer_is_harmless() -> None:
    with serving(wanted=REQUESTS) as server:
        peer = server.call(RQ)
        server.until(lambda: server.events)
        peer.socket.close()
        assert server.ended()[0].outcome == "lost"
        served = server.events[0].served
        assert served == server.events[-1].served
        assert send(served, ABORT) == WRONG_STATE
        assert send_data(served, b"ab") == WRONG_STATE


def test_the_user_may_release_also_in_a_collision() -> None:
    """In a collision the acceptor answers after it has received the answer (PS3.8 9.2.2)."""
    with serving(wanted=DATA) as server:
        first, second = server.associate(), server.associate()
        for event in server.of(ACCEPTED):
            assert send(event.served, RELEASE_RQ) == OK
        assert first.receive() == second.receive() == RELEASE_RQ
        first.send(RELEASE_RP)
        first.sees_the_end()
        second.send(RELEASE_RQ)
        server.run(10)
        assert second.poll() == b""
        second.send(RELEASE_RP)
        assert second.receive() == RELEASE_RP
        second.socket.close()
        assert [report.outcome for report in server.ended(2)] == ["released"] * 2
        assert server.counters == Counters(connections=2, accepted=2, released=2)


def fill(server: Server, served: Served, block: bytes = bytes(200_000)) -> None:
    """Send parts of a command until the peer's system and the own one take no more."""
    while True:
        while send_data(served, block, COMMAND) == OK:
            pass
        assert send_data(served, block, COMMAND) == ROOM
        if server.run(50) == (NEED_MORE, []):
            return


def test_one_association_sends_a_bounded_amount_in_a_run() -> None:
    """Its peer reads everything, and takes PDUs of 2 bytes of data."""
    with serving(wanted=DATA) as server:
        small = request(contexts=PROPOSED, user_info=UserInformation(8, "1.2.3"))
        peer = server.associate(encode(small))
        served = server.of(ACCEPTED)[0].served
        for _ in range(3):
            sent = 0
            while send_data(served, bytes(1024), COMMAND) == OK:
                sent += 1024
                peer.poll()
                peer.inbox.clear()
            assert sent == 8192  # 4096 PDUs
            assert [event.kind for event in server.run(50)[1]] == [ROOM_MADE]


def test_associations_that_sent_nothing_come_first_in_the_next_run() -> None:
    """One run sends 4096 PDUs for all of them together."""
    with serving(wanted=DATA) as server:
        small = request(contexts=PROPOSED, user_info=UserInformation(8, "1.2.3"))
        peers = [server.associate(encode(small)) for _ in range(3)]
        order = [event.served for event in server.of(ACCEPTED)]
        for _ in range(6):
            sent = [0, 0, 0]
            for n, served in enumerate(order):
                while send_data(served, bytes(1024), COMMAND) == OK:
                    sent[n] += 1024
            assert sent == [8192, 0, 0]
            for peer in peers:
                peer.poll()
                peer.inbox.clear()
            order = order[1:] + order[:1]
            told = server.run(50)[1]
            assert [(event.kind, event.served) for event in told] == [
                (ROOM_MADE, served) for served in order
            ]


def test_a_full_association_is_told_when_half_its_room_is_free() -> None:
    with serving(wanted=DATA) as server:
        peer = server.associate(encode(request(contexts=PROPOSED)))
        served = server.of(ACCEPTED)[0].served
        fill(server, served)
        assert server.run(50) == (NEED_MORE, [])
        told: list[Event] = []
        while not told:
            peer.poll()
            peer.inbox.clear()
            told = server.run(10)[1]
        assert [(event.kind, event.served) for event in told] == [(ROOM_MADE, served)]
        assert send_data(served, bytes(400_000), COMMAND) == OK
        assert all(event.kind != ROOM_MADE for event in server.run(50)[1])


def test_data_of_a_peer_with_a_full_queue_is_not_told() -> None:
    """A release or an abort is told if no data precedes it."""
    with serving(wanted=DATA) as server:
        peer = server.associate(encode(request(contexts=PROPOSED)))
        served = server.of(ACCEPTED)[0].served
        fill(server, served)
        peer.send(p_data(*MESSAGE))
        assert server.run(50) == (NEED_MORE, [])
        while not server.of(RECEIVED):
            peer.poll()
            peer.inbox.clear()
            server.run(10)
        assert [event.kind for event in server.events[-3:]] == [ROOM_MADE, RECEIVED, RECEIVED]
        fill(server, served)
        peer.send(encode(Abort(0, 0)))
        assert server.ended()[0].outcome == "aborted"


def test_the_number_of_an_ended_association_is_harmless() -> None:
    with serving(wanted=DATA) as server:
        peers = [server.associate() for _ in range(3)]
        numbers = [event.served for event in server.of(ACCEPTED)]
        assert len(set(numbers)) == 3
        assert {lib.ltdic_served_phase(*number) for number in numbers} == {lib.LTDIC_PHASE_OPEN}
        peers[1].send(ABORT)
        assert server.ended()[0].outcome == "aborted"
        assert lib.ltdic_served_phase(*numbers[1]) == lib.LTDIC_PHASE_OVER
        server.run(0)
        again = server.associate()
        for stale in (
            numbers[1],
            numbers[1]._replace(number=0),
            numbers[1]._replace(number=2**64 - 1),
        ):
            assert send(stale, ABORT) == send_data(stale, b"ab") == WRONG_STATE
            assert lib.ltdic_served_report(*stale) == ffi.NULL
            assert lib.ltdic_served_phase(*stale) == lib.LTDIC_PHASE_NONE
        for peer in (peers[0], peers[2], again):
            peer.send(RELEASE_RQ)
            server.run(10)
            server.run(10)
            assert peer.receive() == RELEASE_RP


# ---- ends of associations --------------------------------------------------------------------


def test_an_abort_of_the_peer_is_told_with_its_codes() -> None:
    with serving(wanted=DATA) as server:
        peer = server.associate()
        peer.send(p_data(*MESSAGE[:1]) + encode(Abort(2, 4)))
        (report,) = server.ended()
        assert (report.outcome, report.status) == ("aborted", lib.LTDIC_ERR_ABORTED)
        assert report.codes == (0, 2, 4)
        assert [event.kind for event in server.events] == [ACCEPTED, RECEIVED, ENDED]
        assert server.counters == Counters(connections=1, accepted=1, aborted=1)


def reset(peer: Peer) -> None:
    peer.poll()
    close_with_reset(peer.socket)


def half_close(peer: Peer) -> None:
    peer.socket.shutdown(socket.SHUT_WR)


@pytest.mark.parametrize("end", [reset, half_close, lambda peer: peer.socket.close()])
@pytest.mark.parametrize("inside", [b"", WIRE[:-5], WIRE[:3], RELEASE_RQ[:4]])
def test_a_connection_that_ends_without_a_pdu_is_lost(
    end: Callable[[Peer], None], inside: bytes
) -> None:
    with serving(wanted=ENDS) as server:
        peer = server.associate()
        peer.send(inside)
        server.run(1)
        end(peer)
        (report,) = server.ended()
        assert (report.outcome, report.status) == ("lost", CLOSED)
        assert server.counters == Counters(connections=1, accepted=1, lost=1)


def test_a_connection_without_a_request_is_not_an_association() -> None:
    with serving(wanted=EVERYTHING) as server:
        for words in (b"", RQ[:50], b"GET / HTTP/1.1\r\n\r\n", ABORT):
            server.call(words).socket.close()
        server.until(lambda: server.counters.no_request + server.counters.faults == 4)
        assert server.counters == Counters(connections=4, no_request=3, faults=1)
        ends = [event.report for event in server.events]
        assert sorted(report.outcome for report in ends) == ["fault", "no request", "no request"]
        assert {report.host for report in ends} == {b"127.0.0.1"}


@pytest.mark.parametrize(
    ("words", "status", "offset"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", lib.LTDIC_ERR_BAD_PDU_TYPE, 0),
        (encode(ReleaseRequest()), lib.LTDIC_ERR_UNEXPECTED_PDU, 0),
        (b"\1\0\xff\xff\xff\xff", lib.LTDIC_ERR_TOO_LARGE, 2),
        (RQ[:-1] + b"\0", None, 0),
        (RQ[:74] + b"\x20\0\xff\xff" + RQ[78:], lib.LTDIC_ERR_ITEM_OVERRUN, 76),
    ],
)
def test_a_fault_before_the_request_is_reported_with_its_offset(
    words: bytes, status: int | None, offset: int
) -> None:
    with serving(wanted=ENDS) as server:
        peer = server.call(words)
        if status is None:  # the PDU is a valid request
            assert decode(peer.receive()).type == 2
            return
        assert decode(peer.receive()) == Abort(0, 0)
        peer.socket.close()
        server.until(lambda: server.events)
        told = lib.ltdic_served_report(*server.events[0].served)
        assert OUTCOMES[told.outcome] == "fault"
        assert (told.status, told.offset) == (status, offset)
        assert bytes(ffi.buffer(told.first, told.first_size)) == words[:32]
        assert server.counters == Counters(connections=1, faults=1)


def test_a_peer_that_stalls_before_its_request_is_whole_is_closed_at_artim() -> None:
    with serving(wanted=ENDS, artim=60) as server:
        begun = time.monotonic()
        peers = [server.call(), server.call(RQ[:-1])]
        for peer in peers:
            peer.sees_the_end()
        assert 0.05 < time.monotonic() - begun < TIMEOUT / 2
        assert server.counters == Counters(connections=2, no_request=2)
        assert [event.report.outcome for event in server.events] == ["no request"] * 2


def test_a_peer_that_does_not_close_at_the_end_is_closed_at_artim() -> None:
    with serving(wanted=ENDS, artim=60) as server:
        peer = server.associate()
        peer.send(RELEASE_RQ)
        assert peer.receive() == RELEASE_RP
        peer.sees_the_end()
        assert server.ended()[0].outcome == "released"
        assert server.counters == Counters(connections=1, accepted=1, released=1)


def test_an_idle_association_is_aborted() -> None:
    with serving(wanted=ENDS, idle=60) as server:
        peer = server.associate()
        assert peer.receive() == ABORT
        peer.socket.close()
        (report,) = server.ended()
        assert (report.outcome, report.status) == ("timed out", TIMED_OUT)
        assert server.counters == Counters(connections=1, accepted=1, timed_out=1)


@pytest.mark.parametrize(
    ("pdu", "status", "reason"),
    [
        (b"\x09\0\0\0\0\4\0\0\0\0", "BAD_PDU_TYPE", 1),
        (b"\x05\0\0\0\0\5\0\0\0\0\0", "BAD_LENGTH", 6),
        (b"\x04\0\0\0\0\x06\0\0\0\x07\3\1", "ITEM_OVERRUN", 6),
        (b"\x04\0" + struct.pack(">IIBB", MAX + 2, MAX - 2, STORE, 1), "TOO_LARGE", 6),
        (p_data((5, COMMAND | LAST, b"ab")), "UNEXPECTED_PDV", 5),
        (p_data((STORE, LAST, b"ab")), "UNEXPECTED_PDV", 5),
        (RQ, "UNEXPECTED_PDU", 2),
        (RELEASE_RP, "UNEXPECTED_PDU", 2),
    ],
)
def test_a_protocol_violation_is_aborted_and_reported(pdu: bytes, status: str, reason: int) -> None:
    with serving(wanted=DATA) as server:
        peer = server.associate()
        peer.send(WIRE + pdu)
        assert decode(peer.receive()) == Abort(2, reason)
        peer.socket.close()
        (report,) = server.ended()
        assert (report.outcome, report.codes) == ("aborted", (0, 2, reason))
        assert report.status == getattr(lib, f"LTDIC_ERR_{status}")
        assert joined(server.events) == MESSAGE_ROWS  # the messages before it
        assert server.counters == Counters(connections=1, accepted=1, aborted=1)


def test_the_report_has_the_titles_the_address_and_the_byte_counts() -> None:
    rq = encode(request(contexts=PROPOSED, called_ae="A", calling_ae="SIXTEEN LETTERS!"))
    with serving(wanted=DATA) as server:
        peer = server.associate(rq)
        port = peer.port
        answer = Admission(POLICY).judge(rq).accept
        before = report_of(server.events[0].served)
        assert (before.outcome, before.milliseconds) == ("none", 0)
        peer.send(WIRE + ECHO_RQ)
        assert peer.receive() == ECHO_RSP
        time.sleep(0.02)  # the report has this duration
        peer.release()
        (report,) = server.ended()
        assert (report.called, report.calling) == (b"A", b"SIXTEEN LETTERS!")
        assert (report.host, report.port) == (b"127.0.0.1", port)
        assert report.received == len(rq + WIRE + ECHO_RQ + RELEASE_RQ)
        assert report.sent == len(answer + ECHO_RSP + RELEASE_RP)
        assert 20 <= report.milliseconds < 1000 * TIMEOUT


def test_a_title_with_a_nul_is_reported_whole() -> None:
    rq = RQ[:10] + b"CALLED\0EVIL".ljust(16, b"\0") + b" CT_1 \0 EVIL".ljust(16) + RQ[42:]
    for policy in (POLICY, changed(POLICY, called=("CALLED",))):
        with serving(policy, ENDS) as server:
            peer = server.call(rq)
            peer.receive()
            peer.socket.close()
            server.until(lambda: server.of(ENDED))
            (report,) = server.ended()
            assert (report.called, report.calling) == (b"CALLED?EVIL", b"CT_1 ? EVIL")


def test_lost_bytes_are_not_counted_as_sent() -> None:
    with serving(wanted=DATA) as server:
        peer = server.associate()
        served = server.of(ACCEPTED)[0].served
        while send_data(served, bytes(200_000), COMMAND) == OK:
            pass
        close_with_reset(peer.socket)
        (report,) = server.ended()
        assert report.outcome == "lost"
        assert report.sent < 100_000_000
        (again,) = server.of(ENDED)
        assert again.report == report


# ---- waking ----------------------------------------------------------------------------------


def test_a_rejection_that_its_connection_took_along_has_not_been_sent() -> None:
    with serving(wanted=REQUESTS | ENDS) as server:
        peers = [server.call(RQ) for _ in range(20)]
        server.until(lambda: len(server.of(REQUEST)) == len(peers))
        for peer in peers:
            close_with_reset(peer.socket)
        for event in server.of(REQUEST):
            send(event.served, encode(AssociateReject(2, 3, 1)))
        reports = server.ended(len(peers))
        sent = [report for report in reports if report.sent]
        assert server.rejected.get((2, 3, 1), 0) == len(sent)
        assert server.counters.unaccepted == len(reports) - len(sent) > 0
        assert {report.outcome for report in reports if not report.sent} == {"lost"}


def test_a_limit_for_each_host_that_is_set_later_knows_who_has_not_asked_yet() -> None:
    with serving() as server:
        peers = [server.call() for _ in range(2)]
        server.until(lambda: server.counters.connections == len(peers))
        size = ffi.sizeof("ltdic_limits")
        limits = ffi.new("ltdic_limits *", (size, 0, 0, 1, (2, 3, 2)))
        lib.ltdic_admission_set_limits(server.admission.admission, limits)
        server.wanted = ENDS
        for peer in peers:
            peer.send(RQ)
        assert sorted(peer.receive()[0] for peer in peers) == [2, 3]
        for peer in peers:
            peer.socket.close()
        assert {report.host for report in server.ended(2)} == {LOCALHOST.encode()}


def test_who_answers_an_echo_is_settled_when_the_association_is_accepted() -> None:
    with serving() as server:
        peer = server.associate()
        server.wanted = DATA | lib.LTDIC_WANT_VERIFICATION
        peer.send(echo(0x30))
        assert peer.receive()[:1] == b"\4"
        other = server.associate()
        other.send(echo(0x30))
        server.until(lambda: server.of(RECEIVED))
        server.wanted = 0
        other.send(echo(0x30))
        for _ in range(5):
            server.run(2)
        assert other.poll() == b""  # its user answers


def test_who_waits_for_a_place_when_it_closes_is_rejected() -> None:
    with serving() as server:
        lib.ltdic_server_limit_connections(server.server, 1)
        held, waiting = server.associate(), [server.call(RQ) for _ in range(5)]
        server.close(2000)
        for peer in waiting:
            assert decode(peer.receive()) == AssociateReject(2, 3, 1)
        assert held.receive() == RELEASE_RQ


def test_a_run_is_woken_from_another_thread() -> None:
    with serving() as server:
        waker = threading.Timer(0.05, lib.ltdic_server_wake, [server.server])
        waker.start()
        begun = time.monotonic()
        assert server.run(1000 * TIMEOUT) == (INTERRUPTED, [])
        assert time.monotonic() - begun < TIMEOUT / 2
        waker.join()
        assert server.run(0)[0] == NEED_MORE


def test_a_wake_before_a_run_is_kept_and_counts_once() -> None:
    with serving() as server:
        for _ in range(100_000):  # more than a pipe holds
            lib.ltdic_server_wake(server.server)
        assert server.run(1000 * TIMEOUT)[0] == INTERRUPTED
        assert server.run(10)[0] == NEED_MORE


def test_a_run_lasts_its_given_time() -> None:
    with serving() as server:
        begun = time.monotonic()
        assert server.run(50)[0] == NEED_MORE
        assert 0.045 < time.monotonic() - begun < TIMEOUT / 2


# ---- closing ---------------------------------------------------------------------------------


def closes(server: Server, milliseconds: int) -> float:
    """Close the server; return the milliseconds to its end."""
    begun = time.monotonic()
    server.close(milliseconds)
    server.closed()
    took = 1000 * (time.monotonic() - begun)
    assert took < milliseconds + 1000 * TIMEOUT / 2
    assert server.run(1000)[0] == CLOSED  # at once
    return took


def test_a_server_without_associations_closes_at_once() -> None:
    with serving() as server:
        assert closes(server, 60_000) < 1000 * TIMEOUT / 2
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(server.address, TIMEOUT)


def test_closing_twice_changes_nothing() -> None:
    with serving() as server:
        server.call()
        server.run(10)
        server.close(300)
        assert closes(server, 60_000) < 1000 * TIMEOUT / 2


def test_an_association_between_two_messages_is_released() -> None:
    with serving(wanted=DATA) as server:
        peers = [server.associate(), server.associate(), server.associate()]
        peers[0].send(WIRE)
        server.until(lambda: len(joined(server.events)) == 2)
        peers[1].send(ECHO_RQ)
        assert peers[1].receive() == ECHO_RSP
        server.close(60_000)
        for peer in peers:
            assert peer.receive() == RELEASE_RQ
            peer.send(RELEASE_RP)
            peer.socket.close()
        server.closed()
        assert [report.outcome for report in server.ended(3)] == ["released"] * 3
        assert server.counters == Counters(connections=3, accepted=3, released=3)


def test_an_association_inside_a_data_set_is_released_after_it() -> None:
    with serving(wanted=DATA) as server:
        peer = server.associate()
        peer.send(WIRE[:-5])
        server.until(lambda: rows(server.events))
        server.close(60_000)
        for _ in range(3):
            server.run(30)
        assert peer.poll() == b""
        peer.send(WIRE[-5:])
        assert peer.receive() == RELEASE_RQ
        assert joined(server.events) == MESSAGE_ROWS
        peer.send(RELEASE_RP)
        server.closed()
        assert server.ended()[0].outcome == "released"


def test_an_association_inside_an_answer_is_not_released_in_it() -> None:
    with serving(wanted=DATA) as server:
        peer = server.associate()
        served = server.of(ACCEPTED)[0].served
        assert send_data(served, b"ab", COMMAND | LAST) == OK
        assert send_data(served, b"cd", 0) == OK
        server.close(60_000)
        for _ in range(3):
            server.run(30)
        assert send_data(served, b"ef", LAST) == OK
        for pdv in [(STORE, COMMAND | LAST, b"ab"), (STORE, 0, b"cd"), (STORE, LAST, b"ef")]:
            assert peer.receive() == p_data(pdv)
        assert peer.receive() == RELEASE_RQ
        peer.send(RELEASE_RP)
        server.closed()


def test_a_data_set_that_does_not_end_is_aborted_after_three_quarters_of_the_time() -> None:
    with serving(wanted=DATA) as server:
        peer = server.associate()
        peer.send(WIRE[:-5])
        server.until(lambda: rows(server.events))
        begun = time.monotonic()
        server.close(400)
        assert peer.receive() == ABORT
        assert time.monotonic() - begun > 0.29
        peer.socket.close()
        server.closed()
        (report,) = server.ended()
        assert (report.outcome, report.status) == ("aborted", OK)


@pytest.mark.slow
def test_peers_that_send_without_end_do_not_delay_the_close() -> None:
    endless = p_data(*[(STORE, 0, bytes(4000))] * 4) * 100

    def send_on(connection: socket.socket) -> None:
        connection.settimeout(TIMEOUT)
        with suppress(OSError):
            while True:
                connection.sendall(endless)

    with serving(wanted=DATA) as server:
        peers = [server.associate() for _ in range(4)]
        for peer in peers:
            peer.send(p_data((STORE, COMMAND | LAST, b"ab")))
        senders = [threading.Thread(target=send_on, args=(peer.socket,)) for peer in peers]
        for sender in senders:
            sender.start()
        server.until(lambda: len(rows(server.events)) > 100)
        assert closes(server, 400) >= 295
        for sender in senders:
            sender.join()
        assert {report.outcome for report in server.ended(4)} == {"aborted"}


def test_a_closing_server_rejects_an_undecided_request() -> None:
    with serving(wanted=REQUESTS) as server:
        peer = server.call(RQ)
        server.until(lambda: server.events)
        server.close(60_000)
        assert decode(peer.receive()) == BUSY
        assert send(server.events[0].served, server.events[0].data[len(RQ) :]) == WRONG_STATE
        peer.socket.close()
        server.closed()
        (report,) = server.ended()
        assert (report.outcome, report.codes) == ("rejected", (2, 3, 1))
        assert server.rejected == {(2, 3, 1): 1}


def test_connections_in_the_backlog_are_rejected_at_the_close() -> None:
    with serving(wanted=ENDS) as server:
        peers = [server.call(RQ) for _ in range(100)]
        server.close(60_000)
        assert server.counters.connections == 100
        assert {decode(peer.receive()) for peer in peers} == {BUSY}
        for peer in peers:
            peer.socket.close()
        server.closed()
        assert {report.outcome for report in server.ended(100)} == {"rejected"}
        assert server.rejected == {(2, 3, 1): 100}


def test_a_closing_server_refuses_a_request_with_its_own_code() -> None:
    with serving(changed(POLICY, called=("OTHER",))) as server:
        peer = server.call(RQ)
        server.close(60_000)
        assert decode(peer.receive()) == AssociateReject(1, 1, 7)
        peer.socket.close()
        server.closed()


@pytest.mark.slow
def test_a_closing_server_waits_briefly_for_a_silent_connection() -> None:
    with serving(wanted=EVERYTHING) as server:
        silent, late = server.call(), server.call()
        server.run(10)
        server.close(60_000)
        server.run(20)
        late.send(RQ)
        assert decode(late.receive()) == BUSY
        late.socket.close()
        server.closed()
        silent.sees_the_end()
        assert server.counters == Counters(connections=2, no_request=1)


@pytest.mark.slow
def test_a_peer_that_does_not_read_is_aborted_and_closed_in_time() -> None:
    with serving(wanted=DATA) as server:
        server.associate(encode(request(contexts=PROPOSED)))
        served = server.of(ACCEPTED)[0].served
        while send_data(served, bytes(200_000), COMMAND) == OK:
            pass
        assert send_data(served, b"", COMMAND | LAST) in (OK, ROOM)
        assert closes(server, 400) >= 395
        (report,) = server.ended()
        assert report.outcome == "aborted"


@pytest.mark.slow
def test_peers_that_do_not_answer_are_closed_in_time() -> None:
    """The peers owe a release response, a close after a rejection or a release, or are in a
    collision."""
    with serving(wanted=DATA) as server:
        server.associate()
        released = server.associate()
        released.send(RELEASE_RQ)
        colliding = server.associate()
        server.call(RQ)
        server.close(400)
        assert colliding.receive() == RELEASE_RQ
        colliding.send(RELEASE_RQ)
        server.closed()
        outcomes = sorted(report.outcome for report in server.ended(3))
        assert outcomes == ["aborted", "aborted", "released"]
        assert server.rejected == {(2, 3, 1): 1}


def test_closing_in_no_time_closes_everything() -> None:
    with serving(wanted=DATA | REQUESTS) as server:
        server.call()
        server.call(RQ[:50])
        server.call(RQ)
        peer = server.call(RQ)
        server.until(lambda: len(server.of(REQUEST)) == 2)
        event = server.of(REQUEST)[0]
        assert send(event.served, event.data[len(RQ) :]) == OK
        closes(server, 0)
        assert [report.outcome for report in server.ended(2)] == ["aborted"] * 2
        peer.sees_the_end()


# ---- leaks -------------------------------------------------------------------------------------


def live_through_everything(server: Server) -> None:
    """End associations in each way, all at once."""
    peers = [
        server.call(pdus)
        for pdus in (
            *[b"", RQ[:40], b"garbage", BAD_VERSION, BAD_VERSION + ABORT, BAD_CONTEXT, RQ],
            *[RQ + ECHO_RQ, RQ + WIRE, RQ + WIRE + RELEASE_RQ, RQ + WIRE + ABORT, RQ + WIRE[:-3]],
            *[RQ + RQ, RQ + RELEASE_RQ + WIRE, RQ + WIRE + b"\x09" * 10],
        )
    ]
    before = server.counters.connections
    for _ in range(5):
        server.run(1)
    assert server.counters.connections >= before
    for number, peer in enumerate(peers):
        if number % 2:
            close_with_reset(peer.socket)
        peer.socket.close()
    server.peers.clear()


@pytest.mark.slow
def test_a_thousand_associations_leave_no_memory_and_no_descriptor() -> None:
    with serving(wanted=DATA | ENDS) as server:
        at_first = descriptors()
        for rounds in (20, 100):
            before = memory_in_use()
            for _ in range(rounds):
                live_through_everything(server)
                server.events.clear()
            for _ in range(10):
                server.run(1)
        assert memory_in_use() - before < memory_allowed(1 << 20)
        assert descriptors() == at_first
        counters = server.counters
        assert counters.connections == 120 * 15
        ends = counters.released + counters.aborted + counters.lost
        assert ends == counters.accepted


@pytest.mark.parametrize("wanted", [0, DATA, REQUESTS | DATA])
def test_freeing_a_busy_server_leaves_no_memory_and_no_descriptor(wanted: int) -> None:
    before = descriptors()
    for _ in range(10):
        with serving(changed(POLICY, together=20, each=20), wanted) as server:
            for pdus in (b"", RQ[:40], BAD_VERSION, RQ, RQ + WIRE, RQ + WIRE + RELEASE_RQ):
                server.call(pdus)
            for _ in range(3):
                server.run(1)
            rq = encode(request(contexts=PROPOSED))
        answers = [server.admission.judge(rq).codes for _ in range(21)]
        assert answers == [(0, 0, 0)] * 20 + [(2, 3, 2)]  # all places are free again
    assert descriptors() == before


def test_two_servers_share_an_admission() -> None:
    with serving(changed(POLICY, together=1)) as first, serving() as second:
        lib.ltdic_server_free(second.server)
        second.server = lib.ltdic_server_new(second.loop, first.admission.admission)
        host = ffi.new("char[]", LOCALHOST.encode())
        address = ffi.new("ltdic_address *", (host, 0, lib.LTDIC_IP_V4))
        assert lib.ltdic_server_listen(second.server, address, 0) == OK
        second.address = (LOCALHOST, second.port())
        peer = first.associate()
        assert decode(second.call(RQ).receive()) == AssociateReject(2, 3, 2)
        peer.release()
        second.associate()
