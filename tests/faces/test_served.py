"""The two servers: the end of each association, other protocols, decisions, limits and threads.

Every test runs with both servers, unless its name has one of them.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import random
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import replace
from typing import Any

import pydicom
import pytest

import ltdic
from ltdic import (
    PDU,
    PDV,
    Abort,
    Admission,
    AssociateAccept,
    AssociateReject,
    AssociateRequest,
    AssociationAborted,
    AssociationRejected,
    AssociationTimeout,
    AsyncOperations,
    CommonExtendedNegotiation,
    ConnectionClosed,
    ContextResult,
    Counters,
    DataTransfer,
    ExtendedNegotiation,
    LocalError,
    ProposedContext,
    Record,
    ReleaseRequest,
    ReleaseResponse,
    RoleSelection,
    Server,
    Stranger,
    UserIdentity,
    UserIdentityResponse,
    UserInformation,
    aio,
    decode,
    encode,
)
from ltdic._native import loop, service
from support.commands import command_set, echo_request, elements_of
from support.hostile import item, pdu
from support.hosts import SERVERS, SUPPORTED, Host, Serve, blocking, in_asyncio
from support.pdus import data_pdu, p_data
from support.peer import REQUEST, Peer, has_come, peer_releases
from support.rejections import Codes
from support.sockets import LOCALHOST, TIMEOUT, close_with_reset, receive_exactly_one
from support.threads import Background, background
from support.tls import client_context, server_context
from support.uids import CT, EXPLICIT, IMPLICIT, MR, VERIFICATION
from support.waiting import eventually

SHORT = 0.3  # s, for timeouts that pass in a test


# ---- the end of each association ----------------------------------------------------------------

Way = Callable[[Host, Peer], None]


def server_releases(host: Host, peer: Peer) -> None:
    host.begin(host.one().release)
    assert peer.take() == ReleaseRequest()
    peer.send(ReleaseResponse())
    assert peer.take() is None


def both_release(host: Host, peer: Peer) -> None:
    host.begin(host.one().release)
    assert peer.take() == ReleaseRequest()
    peer.send(ReleaseRequest(), ReleaseResponse())
    assert peer.take() == ReleaseResponse()
    peer.close()


def server_releases_a_deaf_peer(host: Host, peer: Peer) -> None:
    host.begin(host.one().release)
    assert peer.take() == ReleaseRequest()
    assert peer.take() == Abort(0, 0)
    peer.close()


def peer_aborts(host: Host, peer: Peer) -> None:
    peer.send(Abort(2, 6))
    assert peer.take() is None


def server_aborts(host: Host, peer: Peer) -> None:
    host.do(host.one().abort)
    assert peer.take() == Abort(0, 0)
    peer.close()


def peer_breaks_the_rules(host: Host, peer: Peer) -> None:
    peer.send(b"\x09\0\0\0\0\0")
    assert peer.take() == Abort(2, 1)
    peer.close()


def handler_fails(host: Host, peer: Peer) -> None:
    peer.send(p_data(b"fail", True))
    assert peer.take() == Abort(0, 0)
    peer.close()


def peer_is_idle(host: Host, peer: Peer) -> None:
    assert isinstance(peer.take(), Abort)
    peer.close()


def peer_leaves(host: Host, peer: Peer) -> None:
    peer.close()


def peer_resets(host: Host, peer: Peer) -> None:
    close_with_reset(peer.socket)


def server_closes(host: Host, peer: Peer) -> None:
    host.server.close()
    assert peer.take() == ReleaseRequest()
    peer.send(ReleaseResponse())
    assert peer.take() is None


def server_closes_on_a_deaf_peer(host: Host, peer: Peer) -> None:
    host.server.close()
    assert peer.take() == ReleaseRequest()
    assert peer.take() == Abort(0, 0)
    peer.close()


def server_closes_on_a_dead_peer(host: Host, peer: Peer) -> None:
    """Close a server whose peer does not answer and does not close."""
    host.server.close()
    assert peer.take() == ReleaseRequest()
    assert peer.take() == Abort(0, 0)
    assert peer.take() is None


WAYS: list[tuple[Way, str, Codes | None, dict[str, Any]]] = [
    (peer_releases, "released", None, {}),
    (server_releases, "released", None, {}),
    (both_release, "released", None, {}),
    (server_releases_a_deaf_peer, "timed out", None, {"timeout": SHORT}),
    (peer_aborts, "aborted", (0, 2, 6), {}),
    (server_aborts, "aborted", (0, 0, 0), {}),
    (peer_breaks_the_rules, "aborted", (0, 2, 1), {}),
    (handler_fails, "aborted", (0, 0, 0), {}),
    (peer_is_idle, "timed out", None, {"idle": SHORT}),
    (peer_leaves, "lost", None, {}),
    (peer_resets, "lost", None, {}),
    (server_closes, "released", None, {}),
    (server_closes_on_a_deaf_peer, "aborted", (0, 0, 0), {"timeout": 4 * SHORT}),
    (server_closes_on_a_dead_peer, "aborted", (0, 0, 0), {"timeout": 4 * SHORT}),
]
ways = pytest.mark.parametrize(
    ("way", "outcome", "codes", "options"), WAYS, ids=[way[0].__name__ for way in WAYS]
)


def fails(association: Any, pdv: PDV) -> Iterator[None]:
    raise RuntimeError("what the log says")
    yield


@pytest.mark.slow
@ways
@pytest.mark.parametrize("asks", [False, True], ids=["let in", "asked about"])
def test_on_end_is_called_once_for_each_end(
    serve: Serve, way: Way, outcome: str, codes: Any, options: dict[str, Any], asks: bool
) -> None:
    admission = Admission(contexts=SUPPORTED, on_request=(lambda _: True) if asks else None)
    begun = time.monotonic()
    with (
        serve(admission=admission, handler=fails, **options) as host,
        Peer(host, REQUEST) as peer,
    ):
        peer.associate()
        way(host, peer)
        association, record = host.end()
        assert (record.called_ae, record.calling_ae) == ("HERE", "THERE")
        assert (association.called_ae, association.calling_ae) == ("HERE", "THERE")
        assert record.peer == association.peer == peer.address
        assert (record.outcome, record.codes) == (outcome, codes)
        assert record.served
        assert outcome in record.text or "lost" in record.text
        assert 0 <= record.seconds <= time.monotonic() - begun + 0.001
        assert record.received == peer.sent
        if way not in (peer_leaves, peer_resets):
            assert record.sent == peer.received
        assert not association.established
        assert host.server.open == ()
        host.do(association.wait)
        counters = host.counters
        assert counters == Counters(
            **{
                "connections": 1,
                "accepted": 1,
                outcome.replace(" ", "_"): 1,
            }
        )
    assert host.ended.empty()


@pytest.mark.slow
@ways
def test_an_association_is_established_until_its_end_and_no_longer(
    serve: Serve, way: Way, outcome: str, codes: Any, options: dict[str, Any]
) -> None:
    """After the end the peer may keep the connection open for up to `timeout`."""
    moments: list[tuple[str, bool]] = []
    held: list[Any] = []

    def on_request(association: Any) -> None:
        moments.append(("asked", association.established))

    def on_end(association: Any, record: Record) -> None:
        moments.append(("ended", association.established))

    admission = Admission(contexts=SUPPORTED, on_request=on_request)
    with (
        serve(admission=admission, handler=fails, on_end=on_end, **options) as host,
        Peer(host, REQUEST) as peer,
    ):
        peer.associate()
        association = host.one()
        assert association.established
        if way not in (peer_leaves, peer_resets):
            held.append(peer.socket.dup())
        way(host, peer)
        eventually(lambda: host.counters.open == 0)
        assert not association.established
        assert host.server.open == ()
        for connection in held:
            connection.close()
        host.do(association.wait)
    assert moments == [("asked", False), ("ended", False)]


def rejects(_: Any) -> AssociateReject:
    return AssociateReject(1, 3, 8)


def aborts(_: Any) -> Abort:
    return Abort(0, 0)


class Asked:
    """An `on_request` that answers when the test lets it."""

    def __init__(self) -> None:
        self.asked, self.go_on = threading.Event(), threading.Event()

    def __call__(self, association: Any) -> None:
        self.asked.set()
        self.go_on.wait(TIMEOUT)


@pytest.mark.parametrize(
    ("decide", "answer", "outcome", "codes", "count"),
    [
        (rejects, AssociateReject(1, 3, 8), "rejected", (1, 3, 8), "rejected"),
        (aborts, Abort(0, 0), "aborted", (0, 0, 0), "unaccepted"),
    ],
)
def test_on_end_is_called_for_a_request_that_on_request_refuses(
    serve: Serve, decide: Any, answer: PDU, outcome: str, codes: Codes, count: str
) -> None:
    with (
        serve(admission=Admission(on_request=decide), handler=None) as host,
        Peer(host, REQUEST) as peer,
    ):
        assert peer.take() == answer
        peer.close()
        association, record = host.end()
        assert (record.outcome, record.codes) == (outcome, codes)
        assert (record.received, record.sent) == (peer.sent, peer.received)
        assert not association.established
    assert host.ended.empty()
    found = Counter({("sent", *codes): 1}) if count == "rejected" else 1
    assert host.counters == Counters(**{"connections": 1, count: found})


@pytest.mark.parametrize("end", ["gone", "aborted", "closing"])
def test_on_end_is_called_for_a_requestor_that_leaves_before_the_decision(
    serve: Serve, end: str
) -> None:
    decide = Asked()
    with (
        serve(admission=Admission(on_request=decide), handler=None) as host,
        Peer(host, REQUEST) as peer,
    ):
        assert decide.asked.wait(TIMEOUT)
        if end == "closing":
            host.server.close()
            assert peer.take() == AssociateReject(2, 3, 1)
        elif end == "aborted":
            peer.send(Abort(0, 0))
        peer.close()
        record = host.end()[1]
        decide.go_on.set()
    assert host.ended.empty()
    outcome, codes = {
        "gone": ("lost", None),
        "aborted": ("aborted", (0, 0, 0)),
        "closing": ("rejected", (2, 3, 1)),
    }[end]
    assert (record.outcome, record.codes) == (outcome, codes)
    rejected = Counter({("sent", 2, 3, 1): 1} if end == "closing" else {})
    gone = int(end != "closing")
    assert host.counters == Counters(connections=1, unaccepted=gone, rejected=rejected)


def test_an_inline_on_request_decides_on_the_thread_that_serves(serve: Serve) -> None:
    threads: set[int] = set()

    def decide(association: Any) -> Any:
        threads.add(threading.get_ident())
        if association.calling_ae == "WRONG":
            raise RuntimeError("the decision fails")
        return AssociateReject(1, 1, 3) if association.calling_ae == "OTHER" else None

    def handler(association: Any, pdv: PDV) -> Iterator[Any]:
        threads.add(threading.get_ident())
        yield association.send(pdv.data, context=pdv.context_id, is_command=pdv.is_command)

    admission = Admission(contexts=SUPPORTED, on_request=decide, inline=True)
    with serve(admission=admission, handler=handler) as host:
        for title, codes in (("OTHER", (1, 1, 3)), ("WRONG", (2, 1, 1))):
            with Peer(host, replace(REQUEST, calling_ae=title)) as peer:
                assert peer.take() == AssociateReject(*codes)
        with Peer(host, REQUEST) as peer:
            peer.associate()
            peer.send(p_data(DELETE, True))
            assert peer.take() == data_pdu(DELETE, True)
            peer.send(ReleaseRequest())
            assert peer.take() == ReleaseResponse()
        eventually(lambda: host.counters.released == 1)
        assert host.counters.rejected == {("sent", 1, 1, 3): 1, ("sent", 2, 1, 1): 1}
    assert len(threads) == 1


def test_on_request_may_abort_the_association(serve: Serve) -> None:
    def decide(association: Any) -> None:
        association.abort()

    async def decide_in_loop(association: Any) -> None:
        association.abort()

    on_request = decide_in_loop if serve is in_asyncio else decide
    with (
        serve(admission=Admission(on_request=on_request), handler=None) as host,
        Peer(host, REQUEST) as peer,
    ):
        assert peer.take() == Abort(0, 0)
        peer.close()
        record = host.end()[1]
    assert (record.outcome, record.codes) == ("aborted", (0, 0, 0))
    assert host.counters == Counters(connections=1, unaccepted=1)
    assert host.ended.empty()


def test_on_end_is_not_called_for_a_request_that_the_admission_refuses(serve: Serve) -> None:
    asked: list[Any] = []
    admission = Admission(called=["OTHER"], on_request=asked.append)
    with serve(admission=admission, handler=None) as host, Peer(host, REQUEST) as peer:
        assert peer.take() == AssociateReject(1, 1, 7)
    assert host.ended.empty()
    assert asked == []


def test_an_exception_of_on_end_is_only_logged(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    def on_end(association: Any, record: Record) -> None:
        raise RuntimeError("what the log says")

    with serve(on_end=on_end) as host:
        for _ in range(2):
            with Peer(host, REQUEST) as peer:
                peer.associate()
                peer_releases(host, peer)
        eventually(lambda: host.counters.released == 2)
    failures = [r for r in caplog.records if r.levelno >= logging.WARNING]
    assert [r.getMessage() for r in failures] == ["on_end failed"] * 2
    assert all("what the log says" in str(r.exc_info) for r in failures)


def test_on_end_of_asyncio_may_be_a_coroutine_function_and_is_waited_for() -> None:
    told: list[str] = []

    async def on_end(association: Any, record: Record) -> None:
        await asyncio.sleep(0.05)
        told.append(record.outcome)

    with in_asyncio(on_end=on_end) as host, Peer(host, REQUEST) as peer:
        peer.associate()
        peer_releases(host, peer)
    assert told == ["released"]


def test_a_handler_of_asyncio_is_cancelled_and_on_end_comes_after_it() -> None:
    told: list[str] = []
    working = threading.Event()

    async def work(association: Any) -> None:
        working.set()
        try:
            await asyncio.sleep(60)
        finally:
            told.append(f"cancelled, established: {association.established}")
            await asyncio.sleep(0.05)
            told.append("cleaned up")

    def handler(association: Any, pdv: PDV) -> Iterator[Any]:
        yield work(association)

    with (
        in_asyncio(handler=handler, on_end=lambda _, record: told.append(record.outcome)) as host,
        Peer(host, REQUEST) as peer,
    ):
        peer.associate()
        peer.send(p_data(b"ab", True))
        assert working.wait(TIMEOUT)
        peer.send(Abort(0, 0))
        eventually(lambda: len(told) == 3)
    assert told == ["cancelled, established: False", "cleaned up", "aborted"]


@pytest.mark.parametrize("what", ["handler", "on_request"])
def test_a_coroutine_that_another_task_cancels_has_failed(what: str) -> None:
    """Otherwise the peer would wait for an answer for ever."""

    async def cancelled(*_: Any) -> None:
        raise asyncio.CancelledError

    def handler(association: Any, pdv: PDV) -> Iterator[Any]:
        yield cancelled()

    decide = cancelled if what == "on_request" else None
    admission = Admission(contexts=SUPPORTED, on_request=decide)
    with in_asyncio(admission=admission, handler=handler) as host, Peer(host, REQUEST) as peer:
        if what == "on_request":
            assert peer.take() == AssociateReject(2, 1, 1)
        else:
            peer.associate()
            peer.send(p_data(b"ab", True))
            assert peer.take() == Abort(0, 0)


def test_an_association_has_the_titles_and_address_of_its_requestor(serve: Serve) -> None:
    with serve() as host, Peer(host, REQUEST) as peer:
        accept = peer.associate()
        association = host.one()
        assert association.raw_request == encode(REQUEST)
        assert association.request == REQUEST
        assert association.accept == accept
        assert [(c.id, c.transfer_syntax) for c in association.contexts] == [
            (1, IMPLICIT),
            (3, IMPLICIT),
        ]
        assert (association.called_ae, association.calling_ae) == ("HERE", "THERE")
        assert association.peer == peer.address
        assert host.server.open == (association,)
        peer_releases(host, peer)


def test_a_release_in_the_wrong_state_is_a_local_error(serve: Serve) -> None:
    decide = Asked()
    seen: list[Any] = []

    def on_request(association: Any) -> None:
        seen.append(association)
        decide(association)

    admission = Admission(contexts=SUPPORTED, on_request=on_request)
    with serve(admission=admission) as host, Peer(host, REQUEST) as peer:
        assert decide.asked.wait(TIMEOUT)
        with pytest.raises(LocalError):
            host.do(seen[0].release)
        decide.go_on.set()
        peer.associate()
        peer_releases(host, peer)
        host.do(seen[0].wait)
        with pytest.raises(LocalError):
            host.do(seen[0].release)
        host.do(seen[0].abort)


def test_a_handler_may_release_between_two_messages(serve: Serve) -> None:
    def handler(association: Any, pdv: PDV) -> Iterator[Any]:
        if not pdv.is_command:
            yield association.release()

    with serve(handler=handler) as host, Peer(host, REQUEST) as peer:
        peer.associate()
        peer.send(p_data(b"ab", True), p_data(b"ab"))
        assert peer.take() == ReleaseRequest()
        peer.send(ReleaseResponse())
        assert peer.take() is None
        assert host.end()[1].outcome == "released"


DELETE = command_set({0x0100: 0x0150, 0x0110: 1, 0x0800: 0x0101, 0x1000: "1.2.3"})
"""An N-DELETE-RQ (PS3.7 10.3.6.1), which has no data set."""


def closes_after(host: Host, peer: Peer, handled: queue.Queue[PDV], *pieces: bytes) -> PDU | None:
    """What the peer is sent when the server closes after these pieces."""
    peer.associate()
    peer.send(*pieces)
    while not handled.get(timeout=TIMEOUT).is_last:
        pass
    host.server.close()
    told = peer.take()
    peer.send(ReleaseResponse())
    return told


def test_a_server_that_closes_releases_after_a_command_without_data_set(serve: Serve) -> None:
    handled: queue.Queue[PDV] = queue.Queue()

    def handler(_: Any, pdv: PDV) -> Iterator[Any]:
        yield handled.put(pdv)

    with serve(handler=handler) as host, Peer(host, REQUEST) as peer:
        assert closes_after(host, peer, handled, p_data(DELETE, True)) == ReleaseRequest()
        assert host.end()[1].outcome == "released"


def test_a_server_that_closes_releases_after_such_a_command_in_two_pieces(serve: Serve) -> None:
    handled: queue.Queue[PDV] = queue.Queue()
    pieces = p_data(DELETE[:-4], True, False), p_data(DELETE[-4:], True)

    def handler(_: Any, pdv: PDV) -> Iterator[Any]:
        yield handled.put(pdv)

    with serve(handler=handler) as host, Peer(host, REQUEST) as peer:
        assert closes_after(host, peer, handled, *pieces) == ReleaseRequest()
        assert host.end()[1].outcome == "released"


SAID = command_set({0x0100: 0x8020, 0x0120: 1, 0x0800: 1, 0x0900: 0xFF00})
"""A C-FIND-RSP (PS3.7 9.3.2.2), with which a data set goes."""


def test_a_release_is_answered_behind_the_data_set_that_a_command_has_announced(
    serve: Serve,
) -> None:
    with serve() as host, Peer(host, REQUEST) as peer:
        peer.associate()
        association = host.one()
        host.do(lambda: association.send(SAID, context=3, is_command=True))
        assert peer.take() == data_pdu(SAID, True)
        peer.send(ReleaseRequest())
        assert not has_come(peer, SHORT / 3)
        host.do(lambda: association.send(b"ab", context=3))
        assert peer.take() == data_pdu(b"ab")
        assert peer.take() == ReleaseResponse()
        peer.close()
        assert host.end()[1].outcome == "released"


# ---- strangers ----------------------------------------------------------------------------------

MALFORMED = bytes.fromhex("2000ffff01000000")
RQ_HEAD = encode(REQUEST)[6:74] + bytes.fromhex("10000015") + b"1.2.840.10008.3.1.1.1"
BAD_ITEM = b"\1\0" + len(RQ_HEAD + MALFORMED).to_bytes(4, "big") + RQ_HEAD + MALFORMED
HTTP = b"GET / HTTP/1.1\r\nHost: here\r\n\r\n"
PROXY_V2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c" + bytes(12)
CLIENT_HELLO = bytes.fromhex("160301004a010000460303") + bytes(67)

STRANGERS = {
    "a malformed item": (BAD_ITEM, None, "item_overrun", 101),
    "HTTP": (HTTP, "HTTP", "bad_pdu_type", 0),
    "SSH": (b"SSH-2.0-OpenSSH_9.6\r\n", "SSH", "bad_pdu_type", 0),
    "TLS": (CLIENT_HELLO, "TLS", "bad_pdu_type", 0),
    "HL7": (b"\x0bMSH|^~\\&|A|B|\r\x1c\r", "HL7 (MLLP)", "bad_pdu_type", 0),
    "PROXY": (b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n", "the PROXY protocol", "bad_pdu_type", 0),
    "PROXY 2": (PROXY_V2, "the PROXY protocol", "bad_pdu_type", 0),
    "SMB": (b"\0\0\0\x45\xffSMBr" + bytes(60), "SMB", "bad_pdu_type", 0),
    "unknown": (b"\x99\x98\x97", None, "bad_pdu_type", 0),
}


@contextmanager
def strangers(caplog: pytest.LogCaptureFixture) -> Iterator[list[logging.LogRecord]]:
    """Record all that the library logs, from INFO on."""
    found: list[logging.LogRecord] = []
    with caplog.at_level(logging.INFO, "ltdic"):
        yield found
        found += [r for r in caplog.records if r.name == "ltdic"]


def only(records: list[logging.LogRecord]) -> tuple[Stranger, str]:
    """Return the `Stranger` of the only line, and the line."""
    assert [r.levelno for r in records] == [logging.INFO]
    found = records[0].stranger  # type: ignore[attr-defined]
    assert isinstance(found, Stranger)
    return found, records[0].getMessage()


@pytest.mark.parametrize("kind", STRANGERS)
@pytest.mark.parametrize("size", [1 << 16, 3], ids=["whole", "dripping"])
def test_a_foreign_protocol_is_logged_in_one_line(
    serve: Serve, kind: str, size: int, caplog: pytest.LogCaptureFixture
) -> None:
    data, protocol, fault, offset = STRANGERS[kind]
    with strangers(caplog) as records, serve() as host, Peer(host) as peer:
        with suppress(OSError):  # the server may close before all is sent
            for at in range(0, len(data), size):
                peer.send(data[at : at + size])
        with suppress(OSError):
            peer.take()
        peer.close()
        eventually(lambda: host.counters.faults == 1)
    stranger, line = only(records)
    if size < len(data) and protocol is not None:
        assert stranger.protocol in (protocol, None)  # the server closes at the first wrong byte
    else:
        assert stranger.protocol == protocol
    assert (stranger.peer, stranger.fault, stranger.offset) == (peer.address, fault, offset)
    assert f"{LOCALHOST} port {peer.address[1]}" in line
    assert f"{fault} at byte {offset}" in line
    if stranger.protocol is not None:
        assert stranger.protocol in line
    assert host.counters == Counters(connections=1, faults=1)
    assert host.ended.empty()


@pytest.mark.slow
@pytest.mark.parametrize("sent", [0, 1, 6, 100], ids=lambda sent: f"{sent} bytes")
@pytest.mark.parametrize("leaves", [False, True], ids=["waits", "leaves"])
def test_an_incomplete_request_is_logged_in_one_line(
    serve: Serve, sent: int, leaves: bool, caplog: pytest.LogCaptureFixture
) -> None:
    timeout = TIMEOUT if leaves else SHORT
    begun = time.monotonic()
    with strangers(caplog) as records, serve(timeout=timeout) as host, Peer(host) as peer:
        peer.send(encode(REQUEST)[:sent])
        if leaves:
            peer.close()
        else:
            peer.take()
        eventually(lambda: host.counters.no_request == 1)
    assert host.counters == Counters(connections=1, no_request=1)
    assert host.ended.empty()
    if leaves and not sent:
        assert records == []
        return
    stranger, line = only(records)
    assert (stranger.peer, stranger.protocol) == (peer.address, None)
    assert (stranger.fault, stranger.offset) == (None, None)
    assert (SHORT / 2 if not leaves else 0) <= stranger.seconds <= time.monotonic() - begun + 0.001
    assert f"{LOCALHOST} port {peer.address[1]}: " in line
    assert ("it sent nothing" if not sent else "no whole A-ASSOCIATE-RQ") in line


@pytest.mark.parametrize(
    "pdu",
    [Abort(0, 0), ReleaseRequest(), ReleaseResponse(), AssociateReject(1, 1, 1), data_pdu(b"ab")],
    ids=lambda pdu: type(pdu).__name__,
)
def test_any_other_first_pdu_is_counted_alike_by_both_servers(pdu: PDU) -> None:
    """In state 2 the only valid PDU is an A-ASSOCIATE-RQ (PS3.8 9.2)."""
    found = []
    for serve in SERVERS.values():
        with serve() as host, Peer(host, pdu) as peer:
            peer.take()
            peer.close()
            eventually(lambda host=host: host.counters.faults + host.counters.no_request == 1)
        found.append(host.counters)
        assert host.ended.empty()
    assert found[0] == found[1]


# ---- counters under a load ----------------------------------------------------------------------


def connect_only(peer: Peer) -> None:
    pass


def send_garbage(peer: Peer) -> None:
    peer.send(HTTP)
    peer.take()


def send_half(peer: Peer) -> None:
    peer.send(encode(REQUEST)[:60])


def send_malformed(peer: Peer) -> None:
    peer.send(BAD_ITEM)
    peer.take()


def associate_and(*then: PDU | bytes) -> Callable[[Peer], None]:
    def script(peer: Peer) -> None:
        peer.send(REQUEST)
        peer.associate()
        peer.send(p_data(b"ab", True), *then)
        peer.take()

    return script


def associate_and_leave(peer: Peer) -> None:
    peer.send(REQUEST)
    peer.associate()


def associate_and_reset(peer: Peer) -> None:
    associate_and_leave(peer)
    close_with_reset(peer.socket)


def ask_as(title: str) -> Callable[[Peer], None]:
    def script(peer: Peer) -> None:
        peer.send(replace(REQUEST, calling_ae=title))
        peer.take()

    return script


def ask_and_leave(peer: Peer) -> None:
    peer.send(REQUEST)


def ask_with_another_version(peer: Peer) -> None:
    peer.send(replace(REQUEST, protocol_version=2))
    assert peer.take() == AssociateReject(1, 2, 2)


# Scripts of peers, and the counter of such a connection; None: it depends on timing.
SCRIPTS: list[tuple[Callable[[Peer], None], str | Codes | None]] = [
    (connect_only, "no_request"),
    (send_half, "no_request"),
    (send_garbage, "faults"),
    (send_malformed, "faults"),
    (associate_and(ReleaseRequest()), "released"),
    (associate_and(Abort(0, 0)), "aborted"),
    (associate_and(b"\x09\0\0\0\0\0"), "aborted"),
    (associate_and(p_data(b"ab"), Abort(2, 0)), "aborted"),
    (associate_and_leave, "lost"),
    (associate_and_reset, "lost"),
    (ask_as("UNKNOWN"), (1, 1, 3)),
    (ask_as("ODD"), (1, 3, 8)),
    (ask_as("ABORT"), "unaccepted"),
    (ask_with_another_version, (1, 2, 2)),
    (ask_and_leave, None),
]
ENDS = ("released", "aborted", "timed_out", "lost")


def decide_by_title(association: Any) -> Any:
    return {"ODD": AssociateReject(1, 3, 8), "ABORT": Abort(0, 0)}.get(association.calling_ae)


def connections_of(counters: Counters) -> int:
    """Count the connections in all counters of outcomes."""
    alone = counters.no_request + counters.faults + counters.unaccepted
    return alone + counters.accepted + counters.rejected.total()


def watch(host: Host, stop: threading.Event) -> int:
    """Check the counters and the associations continuously; return the number of checks."""
    looks = 0
    seen: set[Any] = set()
    over: set[Any] = set()
    while not stop.is_set():
        found = host.counters
        seen.update(host.server.open)
        assert not any(association.established for association in over)
        over.update(association for association in seen if not association.established)
        assert found.accepted - sum(getattr(found, end) for end in ENDS) == found.open
        assert 0 <= found.open <= found.connections
        looks += 1
        time.sleep(0.001)  # lets the other threads run
    return looks


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_each_connection_is_counted_once(serve: Serve, seed: int) -> None:
    chance = random.Random(seed)
    scripts = [chance.choice(SCRIPTS) for _ in range(300)]
    work: queue.SimpleQueue[Any] = queue.SimpleQueue()
    for script, _ in scripts:
        work.put(script)
    stop = threading.Event()
    admission = Admission(
        calling=["THERE", "ODD", "ABORT"], contexts=SUPPORTED, on_request=decide_by_title
    )

    def visit() -> None:
        with suppress(queue.Empty):
            while True:
                script = work.get_nowait()
                with Peer(host) as peer, suppress(ConnectionError):
                    script(peer)

    with serve(admission=admission) as host:
        watcher = Background(lambda: watch(host, stop))
        visitors = [Background(visit) for _ in range(8)]
        for visitor in visitors:
            visitor.join()
        eventually(lambda: connections_of(host.counters) == 300 and host.counters.open == 0)
        stop.set()
        assert watcher.join() > 0
    check_counts(host, [how for _, how in scripts])


def check_counts(host: Host, expected: list[str | Codes | None]) -> None:
    counters, unknown = host.counters, expected.count(None)
    assert counters.connections == connections_of(counters) == len(expected)
    surely = {
        name: (expected.count(name), getattr(counters, name))
        for name in ("no_request", "faults", "released", "timed_out", "unaccepted", "lost")
    }
    for name in ("no_request", "faults", "released", "timed_out"):
        assert surely[name][0] == surely[name][1]
    assert counters.aborted == expected.count("aborted")
    left = sum(found - least for least, found in (surely["unaccepted"], surely["lost"]))
    assert left == unknown
    codes = [how for how in expected if isinstance(how, tuple)]
    assert counters.rejected == Counter(("sent", *each) for each in codes)
    told = counters.accepted + counters.unaccepted + counters.rejected["sent", 1, 3, 8]
    assert host.ended.qsize() == told


def secured(peer: Peer) -> None:
    """Continue this connection over TLS."""
    peer.socket = client_context().wrap_socket(peer.socket, server_hostname=LOCALHOST)


def over_tls(script: Callable[[Peer], None]) -> Callable[[Peer], None]:
    def secured_script(peer: Peer) -> None:
        secured(peer)
        script(peer)

    return secured_script


OVER_TLS: list[tuple[Callable[[Peer], None], dict[str, Any], str | None]] = [
    (connect_only, {"no_request": 1}, None),
    (over_tls(connect_only), {"no_request": 1}, None),
    (over_tls(send_half), {"no_request": 1}, "no whole A-ASSOCIATE-RQ"),
    (over_tls(send_garbage), {"faults": 1}, "it speaks HTTP, not DICOM"),
    (over_tls(send_malformed), {"faults": 1}, "item_overrun at byte 101"),
    (over_tls(associate_and(ReleaseRequest())), {"accepted": 1, "released": 1}, None),
    (over_tls(associate_and_leave), {"accepted": 1, "lost": 1}, None),
    (send_garbage, {"tls_failures": 1}, "it speaks HTTP in plain"),
    (send_half, {"tls_failures": 1}, "it sent an A-ASSOCIATE-RQ in plain"),
    (lambda peer: peer.send(CLIENT_HELLO[:20]), {"tls_failures": 1}, "the handshake failed"),
    (lambda peer: peer.send(b"\x99\x98"), {"tls_failures": 1}, "is no handshake"),
]


@pytest.mark.parametrize(("script", "counts", "text"), OVER_TLS)
def test_a_connection_over_tls_is_counted_once(
    script: Any, counts: dict[str, Any], text: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    context = server_context()
    with strangers(caplog) as records, in_asyncio(tls=context) as host:
        with Peer(host) as peer, suppress(ConnectionError):
            script(peer)
        expected = Counters(connections=1, **counts)
        eventually(lambda: host.counters == expected)
    records = [r for r in records if hasattr(r, "stranger")]
    assert (text is None) == (records == [])
    if text is not None:
        stranger, line = only(records)
        assert text in line
        assert stranger.peer == peer.address
        assert (stranger.fault == "tls") == ("tls_failures" in counts)


@pytest.mark.slow
def test_counters_can_be_read_while_rejections_are_counted(serve: Serve) -> None:
    """Each of 200 connections is rejected with codes of its own."""
    codes = iter(range(200))
    stop = threading.Event()

    def decide(_: Any) -> AssociateReject:
        return AssociateReject(9, 9, next(codes))

    def look() -> None:
        while not stop.is_set():
            assert set(host.counters.rejected.values()) <= {1}

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    with serve(admission=Admission(on_request=decide), handler=None) as host, background(look):
        try:
            for _ in range(200):
                with Peer(host, REQUEST) as peer:
                    assert isinstance(peer.take(), AssociateReject)
        finally:
            stop.set()
            sys.setswitchinterval(interval)
    assert host.counters.rejected.total() == 200


def test_a_connection_in_the_backlog_of_a_closing_server_has_an_address(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """This includes a server that has never served."""
    with caplog.at_level(logging.INFO, "ltdic"):
        with (
            ltdic.Server((LOCALHOST, 0), timeout=TIMEOUT) as server,
            socket.create_connection(server.address, timeout=TIMEOUT) as connection,
        ):
            address = connection.getsockname()
            connection.sendall(encode(REQUEST))
            with background(lambda: server.serve(until=lambda: True)):
                pass
            server.close()
            server.serve(until=lambda: server.counters.rejected.total() == 1)
        found = [r.association.peer for r in caplog.records]  # type: ignore[attr-defined]
    assert found == [address]


# ---- decisions ----------------------------------------------------------------------------------

INFORMATION = UserInformation(
    16384,
    "1.2.3",
    async_ops=AsyncOperations(3, 0),
    roles=(RoleSelection(CT, 1, 1), RoleSelection(MR, 1, 0)),
    extended=(ExtendedNegotiation(CT, b"\1\2"),),
    user_identity=UserIdentity(1, 1, b"user"),
)
FULL = replace(REQUEST, user_info=INFORMATION)
CONTEXTS = (ContextResult(1, 0, IMPLICIT), ContextResult(3, 0, EXPLICIT))


def accepting(*contexts: ContextResult, **information: Any) -> AssociateAccept:
    """Return an answer to `FULL`."""
    told = UserInformation(16384, "1.2.3", **information)
    return AssociateAccept("HERE", "THERE", contexts or CONTEXTS, user_info=told)


FITS = {
    "another transfer syntax": accepting(),
    "fewer contexts": accepting(ContextResult(1, 1, None), CONTEXTS[1]),
    "no context": accepting(ContextResult(1, 2, None), ContextResult(3, 4, None)),
    "another order": accepting(*reversed(CONTEXTS)),
    "both roles": accepting(roles=(RoleSelection(CT, 1, 1), RoleSelection(MR, 1, 0))),
    "fewer roles": accepting(roles=(RoleSelection(CT, 0, 1), RoleSelection(MR, 0, 0))),
    "operations": accepting(async_ops=AsyncOperations(3, 7)),
    "fewer operations": accepting(async_ops=AsyncOperations(1, 0)),
    "extended": accepting(extended=(ExtendedNegotiation(CT, b"\1"),)),
    "identity": accepting(user_identity_response=UserIdentityResponse(b"ticket")),
}
TWICE = (CONTEXTS[0], CONTEXTS[0], CONTEXTS[1])
MISFITS: dict[str, tuple[AssociateRequest, AssociateAccept]] = {
    "context that was not proposed": (FULL, accepting(*CONTEXTS, ContextResult(5, 0, IMPLICIT))),
    "context that is not answered": (FULL, accepting(CONTEXTS[0])),
    "context that is answered twice": (FULL, accepting(*TWICE)),
    "transfer syntax": (FULL, accepting(CONTEXTS[0], ContextResult(3, 0, "1.2.840.10008.1.2.2"))),
    "transfer syntax of another": (FULL, accepting(ContextResult(1, 0, EXPLICIT), CONTEXTS[1])),
    "role of another class": (FULL, accepting(roles=(RoleSelection(VERIFICATION, 1, 0),))),
    "role that was not proposed": (FULL, accepting(roles=(RoleSelection(MR, 0, 1),))),
    "more operations": (FULL, accepting(async_ops=AsyncOperations(4, 1))),
    "any number of operations": (FULL, accepting(async_ops=AsyncOperations(0, 1))),
    "operations": (REQUEST, accepting(async_ops=AsyncOperations(1, 1))),
    "extended": (FULL, accepting(extended=(ExtendedNegotiation(MR, b"\1"),))),
    "identity": (REQUEST, accepting(user_identity_response=UserIdentityResponse(b""))),
    "title": (FULL, replace(accepting(), called_ae="\u4e00")),
    "UID": (FULL, accepting(CONTEXTS[0], ContextResult(3, 0, "1.2.\u4e00"))),
}


def deciding(decision: Any) -> Any:
    """Return an admission that makes this decision, and a handler."""

    def decide(_: Any) -> Any:
        return decision

    return {"admission": Admission(contexts=SUPPORTED, on_request=decide)}


@pytest.mark.parametrize("what", FITS)
def test_a_valid_accept_of_on_request_is_sent(serve: Serve, what: str) -> None:
    accept = FITS[what]
    with serve(**deciding(accept)) as host, Peer(host, FULL) as peer:
        assert peer.take() == accept
        association = host.one()
        assert association.accept == accept
        answers = {c.id: c for c in accept.contexts}
        for context in association.contexts:
            answer = answers[context.id]
            chosen = answer.transfer_syntax if answer.result == 0 else None
            assert (context.result, context.transfer_syntax) == (answer.result, chosen)
        peer_releases(host, peer)


def refused_as_failed(host: Host, request: AssociateRequest) -> None:
    with Peer(host, request) as peer:
        assert peer.take() == AssociateReject(2, 1, 1)
        peer.close()
        association, record = host.end()
    assert (record.outcome, record.codes) == ("rejected", (2, 1, 1))
    assert not association.established
    assert host.counters.rejected == Counter({("sent", 2, 1, 1): 1})
    assert host.counters.accepted == 0


def check_logged(caplog: pytest.LogCaptureFixture) -> None:
    failures = [r for r in caplog.records if r.levelno >= logging.WARNING]
    assert [r.getMessage() for r in failures] == ["on_request failed; the request is rejected"]
    assert failures[0].exc_info is not None


@pytest.mark.parametrize("what", MISFITS)
def test_an_invalid_accept_of_on_request_is_logged_and_the_request_rejected(
    serve: Serve, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    request, accept = MISFITS[what]
    with serve(**deciding(accept)) as host:
        refused_as_failed(host, request)
    check_logged(caplog)


@pytest.mark.parametrize(
    "decision",
    [False, 0, 1, "yes", b"", (1, 1, 1), ReleaseRequest(), REQUEST, AssociateReject, [None]],
    ids=str,
)
def test_an_invalid_decision_is_logged_and_the_request_rejected(
    serve: Serve, decision: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with serve(**deciding(decision)) as host:
        refused_as_failed(host, REQUEST)
    check_logged(caplog)


def test_codes_above_a_byte_are_logged_and_the_request_rejected(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    with serve(**deciding(AssociateReject(1, 1, 256))) as host:
        refused_as_failed(host, REQUEST)
    check_logged(caplog)


@pytest.mark.parametrize("codes", [(1, 3, 8), (0, 0, 0), (255, 255, 255), (2, 3, 2), (1, 1, 10)])
def test_any_codes_of_a_rejection_reach_the_requestor_and_are_counted(
    serve: Serve, codes: Codes
) -> None:
    with serve(**deciding(AssociateReject(*codes))) as host:
        for _ in range(2):
            with Peer(host, REQUEST) as peer:
                assert peer.read(10) == bytes([3, 0, 0, 0, 0, 4, 0, *codes])
                peer.close()
                record = host.end()[1]
            assert (record.outcome, record.codes) == ("rejected", codes)
            assert "/".join(map(str, codes)) in record.text or "source" in record.text
    assert host.counters == Counters(connections=2, rejected=Counter({("sent", *codes): 2}))


def test_our_requestor_is_told_any_codes(serve: Serve) -> None:
    with (
        serve(**deciding(AssociateReject(1, 3, 8))) as host,
        pytest.raises(AssociationRejected) as e,
    ):
        ltdic.connect(*host.server.address, timeout=TIMEOUT)
    assert e.value.codes == (1, 3, 8)


@pytest.mark.parametrize("abort", [Abort(0, 0), Abort(2, 1), Abort(2, 6)])
def test_an_abort_of_on_request_is_sent(serve: Serve, abort: Abort) -> None:
    with serve(**deciding(abort)) as host, Peer(host, REQUEST) as peer:
        assert peer.take() == abort
        peer.close()
        record = host.end()[1]
    assert (record.outcome, record.codes) == ("aborted", (0, abort.source, abort.reason))
    assert host.counters == Counters(connections=1, unaccepted=1)


@pytest.mark.parametrize("decision", [True, None])
def test_true_and_none_send_the_answer_of_the_admission(serve: Serve, decision: Any) -> None:
    with serve(**deciding(decision)) as host, Peer(host, FULL) as peer:
        assert [(c.id, c.result, c.transfer_syntax) for c in peer.associate().contexts] == [
            (1, 0, IMPLICIT),
            (3, 0, IMPLICIT),
        ]
        peer_releases(host, peer)


def raw_context(number: int, abstract: str, transfer: str) -> bytes:
    inside = item(0x30, abstract.encode()) + item(0x40, transfer.encode())
    return item(0x20, bytes([number, 0, 0, 0]) + inside)


def request_with(*contexts: bytes) -> bytes:
    """Return a request with these contexts and without user information."""
    return pdu(1, RQ_HEAD, *contexts)


UNUSUAL = {
    "contexts with one ID": [(1, VERIFICATION, IMPLICIT), (1, CT, EXPLICIT)],
    "padded UIDs": [(1, f"{VERIFICATION}\0", f"{IMPLICIT}\0"), (3, f"{CT}\0", f"{EXPLICIT}\0")],
}


@pytest.mark.parametrize("what", UNUSUAL)
def test_the_answer_of_the_admission_fits_the_request(serve: Serve, what: str) -> None:
    """The request is unusual; `on_request` returns the answer of the admission unchanged."""
    admission = Admission(contexts=SUPPORTED, on_request=lambda association: association.accept)
    request = request_with(*[raw_context(*context) for context in UNUSUAL[what]])
    with serve(admission=admission) as host, Peer(host, request) as peer:
        accept = peer.associate()
        assert [c.result for c in accept.contexts] == [0] * len(accept.contexts)
        peer.send(echo_request(7))
        assert isinstance(peer.take(), DataTransfer)
        peer_releases(host, peer)


def answers_echo(association: Any, pdv: PDV) -> Iterator[Any]:
    """A handler that answers C-ECHO, with a status that the library itself never sends."""
    assert pdv.is_command
    asked = elements_of(bytes(pdv.data))
    message = int.from_bytes(asked[0x0110], "little")
    response = {0x0002: VERIFICATION, 0x0100: 0x8030, 0x0120: message, 0x0800: 0x0101}
    yield association.send(
        command_set({**response, 0x0900: 0x0122}), context=pdv.context_id, is_command=True
    )


@pytest.mark.parametrize("asks", [False, True], ids=["let in", "asked about"])
def test_verification_may_be_left_to_the_handler(serve: Serve, asks: bool) -> None:
    admission = Admission(answer_verification=False, on_request=(lambda _: None) if asks else None)
    with (
        serve(admission=admission, handler=answers_echo) as host,
        ltdic.connect(*host.server.address, timeout=TIMEOUT) as association,
    ):
        assert association.echo() == 0x0122


def test_verification_without_a_handler_is_a_value_error() -> None:
    for server in (ltdic.Server, aio.Server):
        with pytest.raises(ValueError, match="handler"):
            server((LOCALHOST, 0), admission=Admission(answer_verification=False))


def test_an_admission_may_accept_any_context(serve: Serve) -> None:
    contexts = (
        ProposedContext(1, "1.2.3.4", ("1.2.9", IMPLICIT)),
        ProposedContext(3, VERIFICATION, (EXPLICIT, IMPLICIT)),
    )
    heard: queue.Queue[tuple[int, bytes]] = queue.Queue()

    def handler(association: Any, pdv: PDV) -> Iterator[Any]:
        heard.put((pdv.context_id, bytes(pdv.data)))
        yield

    with (
        serve(admission=Admission(contexts=ltdic.ANY), handler=handler) as host,
        Peer(host, replace(REQUEST, contexts=contexts)) as peer,
    ):
        assert [(c.id, c.result, c.transfer_syntax) for c in peer.associate().contexts] == [
            (1, 0, "1.2.9"),
            (3, 0, EXPLICIT),
        ]
        peer.send(p_data(b"abcd", True, context=1), echo_request(7, context=3))
        assert heard.get(timeout=TIMEOUT) == (1, b"abcd")
        assert isinstance(peer.take(), DataTransfer)
        peer_releases(host, peer)
    assert heard.empty()
    with pytest.raises(ValueError, match="handler"):
        ltdic.Server((LOCALHOST, 0), admission=Admission(contexts=ltdic.ANY))


# ---- titles -------------------------------------------------------------------------------------


def called_by(field: bytes) -> bytes:
    """Return the request with this field of the calling title."""
    rq = encode(REQUEST)
    return rq[:26] + field.ljust(16) + rq[42:]


EVIL = called_by(b"CT_1\0EVIL")


def test_a_title_with_a_nul_does_not_match_a_known_title(serve: Serve) -> None:
    with serve(admission=limited(calling=["CT_1"])) as host:
        with Peer(host, EVIL) as peer:
            assert peer.take() == AssociateReject(1, 1, 3)
        for field in (b"CT_1", b" CT_1\0\0"):
            with Peer(host, called_by(field)) as peer:
                peer.associate()
                peer_releases(host, peer)


# ---- limits -------------------------------------------------------------------------------------


@contextmanager
def let_in(host: Host, calling: str, times: int = 1) -> Iterator[list[Peer]]:
    """Yield associated peers, which stay associated in the block."""
    peers = [Peer(host, replace(REQUEST, calling_ae=calling)) for _ in range(times)]
    try:
        for peer in peers:
            peer.associate()
        yield peers
    finally:
        for peer in peers:
            peer.close()


def answer_to(host: Host, calling: str, request: AssociateRequest = REQUEST) -> PDU | None:
    """Return the answer to a request of a peer that leaves at once."""
    with Peer(host, replace(request, calling_ae=calling)) as peer:
        answer = peer.take()
        if isinstance(answer, AssociateAccept):
            peer_releases(host, peer)
    return answer


def is_let_in(host: Host, calling: str) -> bool:
    return isinstance(answer_to(host, calling), AssociateAccept)


NO_PLACE = AssociateReject(2, 3, 2)


def limited(**limits: Any) -> Admission:
    return Admission(contexts=SUPPORTED, **limits)


def test_a_limit_number_applies_to_every_calling_title(serve: Serve) -> None:
    with serve(admission=limited(max_per_calling=2)) as host:
        with let_in(host, "A", 2) as peers, let_in(host, "B"):
            assert answer_to(host, "A") == NO_PLACE
            assert is_let_in(host, "B")
            peer_releases(host, peers[0])
            assert is_let_in(host, "A")
        eventually(lambda: host.counters.open == 0)
        with let_in(host, "A", 2):
            assert answer_to(host, "A") == NO_PLACE
    assert host.counters.rejected == Counter({("sent", 2, 3, 2): 2})


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({"A": 2, ...: 1}, {"A": 2, "B": 1, "C": 1}),
        ({"A": 1}, {"A": 1, "B": 3}),
        ({"A": 0, ...: 1}, {"A": 3, "B": 1}),
        ({" A ": 1, "B": 2}, {"A": 1, "B": 2, "C": 3}),
        ({...: 2}, {"A": 2, "B": 2}),
        ({}, {"A": 3}),
    ],
    ids=str,
)
def test_a_limit_mapping_applies_to_the_titles_it_names(
    serve: Serve, limits: dict[Any, int], expected: dict[str, int]
) -> None:
    with serve(admission=limited(max_per_calling=limits)) as host:
        for title, most in expected.items():
            with let_in(host, title, most):
                full = most < 3  # any number is let in otherwise
                assert is_let_in(host, title) is not full


def test_the_limit_of_a_host_counts_all_its_titles(serve: Serve) -> None:
    with serve(admission=limited(max_per_host=2)) as host:
        with let_in(host, "A"), let_in(host, "B") as peers:
            assert answer_to(host, "C") == NO_PLACE
            peers[0].send(Abort(0, 0))
            eventually(lambda: host.counters.open == 1)
            assert is_let_in(host, "C")
        eventually(lambda: host.counters.open == 0)
        assert is_let_in(host, "A")


@pytest.mark.parametrize("limit", ["max_associations", "max_per_calling", "max_per_host"])
@pytest.mark.parametrize("codes", [(1, 1, 1), (2, 3, 1)])
def test_the_rejection_codes_of_a_limit_can_be_set(serve: Serve, limit: str, codes: Codes) -> None:
    admission = limited(**{limit: 1}, refuse_with=codes)
    with serve(admission=admission) as host, let_in(host, "A"):
        assert answer_to(host, "A") == AssociateReject(*codes)


def test_the_stricter_of_two_limits_applies(serve: Serve) -> None:
    for admission, server in ((1, 2), (2, 1), (1, 0), (0, 1)):
        options = {"admission": limited(max_associations=admission), "max_associations": server}
        with serve(**options) as host, let_in(host, "A"):
            assert answer_to(host, "B") == NO_PLACE


@pytest.mark.parametrize("limit", ["max_associations", "max_per_calling", "max_per_host"])
def test_a_new_admission_keeps_the_places_taken(serve: Serve, limit: str) -> None:
    with serve(admission=limited(max_per_host=50)) as host:
        with let_in(host, "A", 2) as peers:
            host.server.admission = admission = limited(**{limit: 2})
            assert host.server.admission is admission
            eventually(lambda: answer_to(host, "A") == NO_PLACE)
            host.server.admission = limited(**{limit: 3})
            eventually(lambda: is_let_in(host, "A"))
            with let_in(host, "A"):
                assert answer_to(host, "A") == NO_PLACE
            eventually(lambda: host.counters.open == 2)
            host.server.admission = limited(**{limit: 1})
            eventually(lambda: answer_to(host, "A") == NO_PLACE)
            peer_releases(host, peers[0])
            assert answer_to(host, "A") == NO_PLACE
            peer_releases(host, peers[1])
            assert is_let_in(host, "A")
            host.server.admission = limited()
        eventually(lambda: is_let_in(host, "A"))


def test_a_new_admission_decides_by_its_own_rules(serve: Serve) -> None:
    with serve(admission=limited(called=["HERE"])) as host:
        assert is_let_in(host, "A")
        host.server.admission = limited(on_request=rejects)
        eventually(lambda: answer_to(host, "A") == AssociateReject(1, 3, 8))
        host.server.admission = limited(called=["ELSEWHERE"])
        eventually(lambda: answer_to(host, "A") == AssociateReject(1, 1, 7))
        host.server.admission = limited()
        eventually(lambda: is_let_in(host, "A"))


@pytest.mark.slow
def test_admissions_can_be_set_while_requests_arrive(serve: Serve) -> None:
    """One of the admissions answers each request, and no place is lost."""
    stop = threading.Event()
    with serve(admission=limited(max_per_calling=1)) as host:

        def change() -> None:
            while not stop.is_set():
                host.server.admission = limited(max_per_calling={"A": 1, "B": 1}, max_per_host=50)
                host.server.admission = limited(max_per_calling=1, called=["HERE", "OTHER"])
                time.sleep(0.001)

        with background(change):
            for _ in range(100):
                with let_in(host, "A"):
                    assert answer_to(host, "A") == NO_PLACE
                eventually(lambda: host.counters.open == 0)
            stop.set()
    assert host.counters.accepted == 100


@pytest.mark.slow
def test_a_request_that_each_of_two_admissions_refuses_is_never_accepted(serve: Serve) -> None:
    """The rules and the function of one admission are applied together."""
    stop = threading.Event()
    first, second = limited(on_request=rejects), limited(called=["ELSEWHERE"])
    with serve(admission=first) as host:

        def change() -> None:
            while not stop.is_set():
                host.server.admission = second
                host.server.admission = first

        with background(change):
            try:
                answers = Counter(map(repr, (answer_to(host, "A") for _ in range(150))))
            finally:
                stop.set()
    told = (AssociateReject(1, 3, 8), AssociateReject(1, 1, 7))
    assert sum(answers[repr(answer)] for answer in told) == 150


def test_a_pending_request_is_decided_by_the_admission_it_arrived_under(serve: Serve) -> None:
    """This includes requests that wait for a thread."""
    asked, go_on = threading.Event(), threading.Event()

    def decide(association: Any) -> AssociateReject | None:
        if association.calling_ae == "FIRST":
            return None
        asked.set()
        go_on.wait(TIMEOUT)
        return AssociateReject(1, 3, 8)

    with (
        serve(admission=limited(on_request=decide)) as host,
        let_in(host, "FIRST"),
        ExitStack() as stack,
    ):
        first = host.one()
        peers = [stack.enter_context(Peer(host, REQUEST)) for _ in range(40)]
        eventually(lambda: host.counters.connections == 41)
        assert asked.wait(TIMEOUT)
        host.server.admission = limited(called=["ELSEWHERE"])
        host.do(lambda: first.send(b"ab", context=3, is_command=True))  # sent after the change
        go_on.set()
        answers = {peer.take() for peer in peers}
    assert answers <= {AssociateReject(1, 3, 8), AssociateReject(1, 1, 7)}
    assert AssociateReject(1, 3, 8) in answers


BAD_NUMBERS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    *[
        ({name: number}, {})
        for name in ("max_associations", "max_per_calling", "max_per_host")
        for number in (-1, 1 << 32)
    ],
    *[({"max_per_calling": {"A": number}}, {}) for number in (-1, 1 << 32)],
    *[({"max_per_calling": {...: number}}, {}) for number in (-1, 1 << 32)],
    *[({"refuse_with": codes}, {}) for codes in ((1, 3, 8), (0, 0, 0), (300, 1, 1), (-1, 1, 1))],
    *[
        ({name: number}, {})
        for name in ("max_length", "least_max_length")
        for number in (*range(1, 8), -1, 1 << 32)
    ],
    *[({"max_associate": number}, {}) for number in (-1, 0, 99, 1_048_577)],
]
BAD_OPTIONS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    *[({}, {name: -1}) for name in ("max_associations", "max_connections", "timeout", "idle")],
    *[({}, {name: 1 << 32}) for name in ("max_associations", "max_connections")],
    ({"max_associations": 1 << 32}, {"max_associations": 5}),
    ({"max_associations": 5}, {"max_associations": 1 << 32}),
]


@pytest.mark.parametrize("server", [ltdic.Server, aio.Server], ids=["blocking", "asyncio"])
@pytest.mark.parametrize(("limits", "options"), [*BAD_NUMBERS, *BAD_OPTIONS], ids=str)
def test_a_number_out_of_range_is_a_value_error(
    server: Any, limits: dict[str, Any], options: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match=r"is -?\d|is \(|-1 seconds"):
        server((LOCALHOST, 0), admission=limited(**limits), handler=print, **options)


@pytest.mark.parametrize("title", ["SEVENTEEN LETTERS", "BACK\\SLASH", "", "TAB\t"])
def test_a_limit_of_an_illegal_title_is_a_value_error(title: str) -> None:
    for server in (ltdic.Server, aio.Server):
        with pytest.raises(ValueError, match="max_per_calling names"):
            server((LOCALHOST, 0), admission=limited(max_per_calling={title: 1}), handler=print)


def test_setting_an_admission_with_a_number_out_of_range_is_a_value_error(serve: Serve) -> None:
    with serve(admission=limited(max_per_calling=1)) as host:
        before = host.server.admission
        for limits, _ in BAD_NUMBERS:
            with pytest.raises(ValueError, match=r"is -?\d|is \("):
                host.server.admission = limited(**limits)
        assert host.server.admission is before
        with let_in(host, "A"):
            assert answer_to(host, "A") == NO_PLACE


@pytest.mark.parametrize(
    ("options", "most"),
    [
        ({}, 262_144),
        ({"contexts": ltdic.ANY}, 1_048_576),
        ({"max_associate": 100}, 100),
        ({"contexts": ltdic.ANY, "max_associate": 1_048_576}, 1_048_576),
    ],
    ids=str,
)
def test_the_default_size_of_the_largest_request_follows_from_the_contexts(
    options: dict[str, Any], most: int
) -> None:
    policy = Admission(**options).policy(0, True)
    assert policy.max_associate == most
    other = Admission(max_associate=5000).policy(0, True)
    assert policy.taking_rules(other).make() == 0
    assert policy.max_associate == 5000


def test_a_requestor_with_too_small_a_maximum_length_is_refused(serve: Serve) -> None:
    small = replace(REQUEST, user_info=UserInformation(4095, "1.2.3"))
    with serve(admission=limited(least_max_length=4096)) as host:
        with Peer(host, small) as peer:
            assert peer.take() == AssociateReject(1, 1, 1)
        for most in (0, 4096):
            with Peer(host, replace(REQUEST, user_info=UserInformation(most, "1.2.3"))) as peer:
                peer.associate()
                peer_releases(host, peer)
    assert host.counters.rejected == Counter({("sent", 1, 1, 1): 1})


@pytest.mark.parametrize("most", range(1, 8))
def test_a_maximum_length_without_room_for_data_is_a_value_error(most: int) -> None:
    with pytest.raises(ValueError, match=r"8 to .*PS3\.8 D\.1"):
        Admission(max_length=most)
    for connect in (ltdic.connect, aio.connect):
        with pytest.raises(ValueError, match=r"8 to .*PS3\.8 D\.1"):
            connect(LOCALHOST, 104, max_length=most)


# ---- values that can be sent ---------------------------------------------------------------------


def data_set() -> pydicom.Dataset:
    found = pydicom.Dataset()
    found.PatientName = "Somebody"
    return found


RIGHT = "no bytes, no binary file, no iterable of bytes"
BYTES = "contiguous bytes must be"
NO_DATA = {
    "an empty data set": (pydicom.Dataset(), RIGHT),
    "a data set": (data_set(), RIGHT),
    "a sequence of data sets": ([data_set()], BYTES),
    "text": ("text", RIGHT),
    "an empty text": ("", RIGHT),
    "a dictionary": ({"PatientName": b"ab"}, RIGHT),
    "a dictionary of bytes": ({b"ab": b"ab"}, RIGHT),
    "an empty dictionary": ({}, RIGHT),
    "nothing": (None, RIGHT),
    "a number": (4, RIGHT),
    "numbers": ([1, 2], BYTES),
    "texts": (["ab"], BYTES),
}


@pytest.mark.parametrize("what", NO_DATA)
def test_a_server_refuses_to_send_invalid_data(serve: Serve, what: str) -> None:
    data, text = NO_DATA[what]
    with serve() as host, Peer(host, REQUEST) as peer:
        peer.associate()
        association = host.one()
        for context in (3, CT, "CTImageStorage"):
            with pytest.raises(TypeError, match=text):
                host.do(lambda c=context: association.send(data, context=c))
        peer_releases(host, peer)


@pytest.mark.parametrize("what", NO_DATA)
def test_a_requestor_refuses_to_send_invalid_data(serve: Serve, what: str) -> None:
    heard: list[PDV] = []
    data, text = NO_DATA[what]

    def handler(association: Any, pdv: PDV) -> Iterator[Any]:
        heard.append(pdv)
        yield

    async def in_loop(address: tuple[str, int]) -> None:
        async with aio.connect(*address, contexts=[CT], timeout=TIMEOUT) as association:
            with pytest.raises(TypeError, match=text):
                await association.send(data, context=CT)
            assert association.established

    with serve(handler=handler) as host:
        with ltdic.connect(*host.server.address, contexts=[CT], timeout=TIMEOUT) as association:
            with pytest.raises(TypeError, match=text):
                association.send(data, context=CT)
            assert association.established
        asyncio.run(in_loop(host.server.address))
        assert [host.end()[1].outcome for _ in range(2)] == ["released"] * 2
    assert heard == []


# ---- proposals of a requestor --------------------------------------------------------------------


class Refuser:
    """A peer that records a request and rejects it."""

    def __init__(self) -> None:
        self.listener = socket.create_server((LOCALHOST, 0))
        self.listener.settimeout(TIMEOUT)

    def __enter__(self) -> Refuser:
        self.thread = Background(self.listen)
        return self

    def __exit__(self, *_: object) -> None:
        self.thread.join()
        self.listener.close()

    def listen(self) -> bytes:
        connection = self.listener.accept()[0]
        with connection:
            connection.settimeout(TIMEOUT)
            data = connection.recv(6)
            while len(data) < 6 + int.from_bytes(data[2:6], "big"):
                data += connection.recv(65536)
            connection.sendall(encode(AssociateReject(1, 1, 1)))
            connection.recv(1)
        return data

    def heard(self) -> bytes:
        found = self.thread.join()
        assert isinstance(found, bytes)
        return found


def connect_blocking(port: int, **options: Any) -> None:
    ltdic.connect(LOCALHOST, port, timeout=TIMEOUT, **options)


def connect_in_asyncio(port: int, **options: Any) -> None:
    async def connect() -> None:
        await aio.connect(LOCALHOST, port, timeout=TIMEOUT, **options)

    asyncio.run(connect())


connects = pytest.mark.parametrize(
    "connect", [connect_blocking, connect_in_asyncio], ids=["blocking", "asyncio"]
)


def proposal(connect: Any, **options: Any) -> AssociateRequest:
    with Refuser() as peer:
        with pytest.raises(AssociationRejected) as e:
            connect(peer.listener.getsockname()[1], **options)
        assert e.value.codes == (1, 1, 1)
        found = decode(peer.heard(), strict=True)
    assert isinstance(found, AssociateRequest)
    return found


@connects
def test_every_negotiation_option_is_proposed(connect: Any) -> None:
    common = CommonExtendedNegotiation(0, CT, "1.2.840.10008.4.2", (MR,))
    found = proposal(
        connect,
        called_ae="HERE",
        calling_ae="THERE",
        contexts=["CTImageStorage", (MR, ["1.2.840.10008.1.2"])],
        max_length=8,
        roles={"CTImageStorage": (True, False), MR: (0, 1)},
        async_ops=(0, 65535),
        extended={"CTImageStorage": b"\2\0\1", MR: b""},
        common_extended=[common],
        identity=UserIdentity(2, 1, b"user", b"secret"),
    )
    information = found.user_info
    assert information is not None
    assert (found.called_ae, found.calling_ae) == ("HERE", "THERE")
    assert found.contexts == (
        ProposedContext(1, CT, (IMPLICIT, EXPLICIT)),
        ProposedContext(3, MR, (IMPLICIT,)),
    )
    assert information.max_length == 8
    assert information.roles == (RoleSelection(CT, 1, 0), RoleSelection(MR, 0, 1))
    assert information.async_ops == AsyncOperations(0, 65535)
    assert information.extended == (
        ExtendedNegotiation(CT, b"\2\0\1"),
        ExtendedNegotiation(MR, b""),
    )
    assert information.common_extended == (common,)
    assert information.user_identity == UserIdentity(2, 1, b"user", b"secret")


@connects
def test_options_that_are_not_given_are_not_proposed(connect: Any) -> None:
    information = proposal(connect).user_info
    assert information is not None
    assert information.async_ops is None
    assert information.user_identity is None
    assert (information.roles, information.extended, information.common_extended) == ((), (), ())


@connects
def test_a_given_request_is_proposed_unchanged(connect: Any) -> None:
    assert proposal(connect, request=FULL) == FULL


ROLES, EXTENDED = "roles", "extended"
NOT_PROPOSED: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"roles": {"NoSuchStorage": (1, 0)}}, ValueError, "no UID and no keyword"),
    ({"roles": {"1..2": (1, 0)}}, ValueError, "roles"),
    ({"roles": {CT: (2, 0)}}, ValueError, "a value is not legal: the role selection"),
    ({"roles": {CT: (-1, 0)}}, ValueError, "roles"),
    ({"roles": {CT: True}}, TypeError, "unpack"),
    ({"async_ops": (-1, 0)}, ValueError, "async_ops"),
    ({"async_ops": (0, 1 << 16)}, ValueError, "async_ops"),
    ({"async_ops": (1,)}, TypeError, "performed"),
    ({"extended": {"NoSuchStorage": b"a"}}, ValueError, "no UID and no keyword"),
    ({"extended": {CT: "text"}}, TypeError, "extended"),
    ({"extended": {CT: bytes(1 << 16)}}, ValueError, "extended"),
    ({"common_extended": [CommonExtendedNegotiation(0, CT, "1..2")]}, ValueError, "common"),
    ({"contexts": "Verification"}, TypeError, "one text where several contexts must be"),
    ({"contexts": [(CT, IMPLICIT)]}, TypeError, "one text where several transfer syntaxes"),
    ({"contexts": [(CT, [])]}, ValueError, "a required item is absent"),
    ({"contexts": []}, ValueError, "0 contexts, not 1 to 128"),
    ({"contexts": [CT] * 129}, ValueError, "129 contexts, not 1 to 128"),
    ({"max_length": -1}, ValueError, "8 to 4294967295"),
    ({"max_length": 1 << 32}, ValueError, "8 to 4294967295"),
    ({"request": replace(FULL, user_info=UserInformation(7, "1.2.3"))}, ValueError, "8 to"),
    ({"request": replace(FULL, called_ae="")}, ValueError, "called_ae"),
    ({"request": replace(FULL, contexts=())}, ValueError, "a required item is absent"),
    (
        {"request": replace(FULL, contexts=FULL.contexts * 2)},
        ValueError,
        "a second item where one is allowed",
    ),
    ({"request": encode(FULL)}, TypeError, "request is of type bytes"),
    ({"request": accepting()}, TypeError, "request is of type AssociateAccept"),
    ({"identity": UserIdentity(9, 0, b"a")}, ValueError, "a value is not legal: the user identity"),
]


@connects
@pytest.mark.parametrize(("options", "error", "text"), NOT_PROPOSED, ids=lambda v: str(v)[:40])
def test_an_invalid_proposal_is_refused_without_a_connection(
    connect: Any, options: dict[str, Any], error: type[Exception], text: str
) -> None:
    """Port 9 is closed: an attempt to connect would raise `ConnectionFailed`."""
    with pytest.raises(error, match=text):
        connect(9, **options)


# ---- threads -------------------------------------------------------------------------------------

MESSAGE = 1_200_000  # bytes: above the size of one part for the engine


@pytest.mark.slow
def test_messages_sent_concurrently_are_received_whole(serve: Serve) -> None:
    """Two threads or two tasks send them."""
    with (
        serve() as host,
        ltdic.connect(*host.server.address, contexts=[CT], timeout=TIMEOUT) as association,
    ):
        served = host.one()

        def send_all(byte: int) -> None:
            data = bytes([byte]) * (5 * MESSAGE)
            for _ in range(3):
                host.do(lambda: served.send(data, context=CT, is_command=True))

        threads = [Background(lambda b=byte: send_all(b)) for byte in (1, 2)]
        for _ in range(6):
            pdv = association.receive()
            assert pdv is not None
            assert len(pdv.data) == 5 * MESSAGE
            assert len(set(pdv.data)) == 1
        for thread in threads:
            thread.join()


def test_a_handler_that_sends_while_a_thread_sends_gets_a_local_error() -> None:
    """The thread waits for the handler, so waiting for the thread would never end."""
    said: queue.Queue[BaseException] = queue.Queue()
    sending, go_on = threading.Event(), threading.Event()

    def pieces() -> Iterator[bytes]:
        yield bytes(MESSAGE)
        sending.set()
        go_on.wait(TIMEOUT)

    def handler(association: Any, pdv: PDV) -> Iterator[Any]:
        yield
        assert sending.wait(TIMEOUT)
        try:
            association.send(b"ab", context=CT, is_command=True)
        except LocalError as e:
            said.put(e)
        go_on.set()

    with (
        blocking(handler=handler) as host,
        ltdic.connect(*host.server.address, contexts=[CT], timeout=TIMEOUT) as association,
    ):
        served = host.one()
        host.begin(lambda: served.send(pieces(), context=CT, is_command=True))
        assert sending.wait(TIMEOUT)
        association.send(b"ab", context=CT, is_command=True)
        assert "another thread" in str(said.get(timeout=TIMEOUT))
        pdv = association.receive()
        assert pdv is not None
        assert len(pdv.data) == MESSAGE


def send_for_ever(served: Any) -> str:
    """Send until an error; return its name."""
    try:
        while True:
            served.send(bytes(MESSAGE), context=CT, is_command=True)
    except ltdic.Error as e:
        return type(e).__name__


def release_when_it_can(served: Any) -> str:
    try:
        while True:
            with suppress(LocalError):
                served.release()
                return "asked"
            if served.wait(0.001):
                return "over"
    except AssociationTimeout as e:
        return type(e).__name__


@pytest.mark.parametrize("end", ["abort", "close", "peer", "release"])
def test_every_thread_that_uses_an_association_ends_with_it(end: str) -> None:
    with blocking() as host:
        association = ltdic.connect(*host.server.address, contexts=[CT], timeout=TIMEOUT)
        served = host.one()
        work = [Background(lambda: send_for_ever(served)) for _ in range(3)]
        waits = [Background(lambda: served.wait(TIMEOUT)) for _ in range(3)]
        for _ in range(3):
            association.receive()
        assert not served.wait(0)
        actors = {
            "abort": served.abort,
            "close": host.server.close,
            "peer": association.abort,
            "release": lambda: release_when_it_can(served),
        }
        acting = [Background(actors[end]) for _ in range(1 if end == "peer" else 4)]
        try:
            while association.receive() is not None:
                pass
        except (AssociationAborted, ConnectionClosed, LocalError):
            assert end in ("abort", "peer")
        for thread in (*acting, *waits, *work):
            thread.join()
        assert {thread.result for thread in waits} == {True}
        assert {thread.result for thread in work} == {"LocalError"}
        ended = host.end()
        assert ended[0] is served
        assert ended[1].outcome == ("released" if end in ("close", "release") else "aborted")
    assert host.ended.empty()
    assert not served.established


@pytest.mark.parametrize("method", ["send", "release", "abort"])
def test_a_call_after_the_end_of_a_server_returns_at_once(method: str) -> None:
    arguments = {"send": {"data": b"ab", "context": CT, "is_command": True}}.get(method, {})
    options: Any = {"admission": Admission(contexts=SUPPORTED), "handler": lambda *_: None}
    with ltdic.Server((LOCALHOST, 0), **options, timeout=TIMEOUT) as server:
        serving = Background(server.serve)
        association = ltdic.connect(*server.address, contexts=[CT], timeout=TIMEOUT)
        eventually(lambda: len(server.open) == 1)
        served = server.open[0]
        server.close()
        assert association.receive() is None
        serving.join()
        begun = time.monotonic()
        with nullcontext() if method == "abort" else pytest.raises(LocalError, match="is over"):
            getattr(served, method)(**arguments)
        assert time.monotonic() - begun < TIMEOUT / 2


def test_an_endless_wait_on_the_serving_thread_is_an_error() -> None:
    said: queue.Queue[Any] = queue.Queue()

    def handler(association: Any, pdv: PDV) -> Iterator[Any]:
        yield
        said.put(association.wait(0.01))
        try:
            association.wait()
        except LocalError as e:
            said.put(str(e))

    with blocking(handler=handler) as host, Peer(host, REQUEST) as peer:
        peer.associate()
        peer.send(p_data(b"ab", True))
        assert said.get(timeout=TIMEOUT) is False
        assert "thread that serves" in said.get(timeout=TIMEOUT)
        peer.send(p_data(b"ab"), ReleaseRequest())


@pytest.mark.slow
@pytest.mark.parametrize("method", ["send", "release", "abort"])
def test_a_server_that_does_not_serve_is_not_reported_as_a_timeout_of_the_peer(method: str) -> None:
    options: Any = {
        "admission": Admission(contexts=SUPPORTED),
        "handler": lambda *_: None,
        "timeout": SHORT,
    }
    with ltdic.Server((LOCALHOST, 0), **options) as server:
        peer = Background(lambda: ltdic.connect(*server.address, contexts=[CT], timeout=TIMEOUT))
        server.serve(until=lambda: len(server.open) == 1)
        association, served = peer.join(), server.open[0]
        arguments = {"send": {"data": b"ab", "context": CT, "is_command": True}}.get(method, {})
        if method == "abort":
            served.abort()
        else:
            with pytest.raises(LocalError, match="serves"):
                getattr(served, method)(**arguments)
        with background(lambda: server.serve(until=lambda: server.counters.open == 0)):
            if method == "abort":
                with pytest.raises(AssociationAborted):
                    association.receive()
            else:
                association.release()


def test_c_is_given_no_admission_when_nobody_serves_any_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """C may have freed the policy by then."""
    given = []
    make = loop.Call.make
    monkeypatch.setattr(loop.Call, "make", lambda call: [given.append(call), make(call)][1])
    with Server((LOCALHOST, 0), timeout=TIMEOUT) as server:
        server.close()
        server.serve()
        server.admission = admission = Admission(calling=["A"])
        assert server.admission is admission
    server.admission = Admission(calling=["B"])
    assert given == []


def test_the_admission_that_a_server_names_is_the_one_that_holds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Another thread sets one while this thread does."""
    first, second = Admission(calling=["FIRST"]), Admission(calling=["SECOND"])
    taking_rules = service.Policy.taking_rules

    def prepare_late(policy: service.Policy, other: service.Policy) -> loop.Call:
        monkeypatch.undo()
        Background(lambda: setattr(server, "admission", second)).join()
        return taking_rules(policy, other)

    with Server((LOCALHOST, 0), timeout=TIMEOUT) as server:
        monkeypatch.setattr(service.Policy, "taking_rules", prepare_late)
        server.admission = first
        with background(lambda: server.serve(until=lambda: server.counters.released == 1)):
            (name,) = server.admission.calling or ()
            ltdic.connect(*server.address, calling_ae=name, timeout=TIMEOUT).release()


@pytest.mark.parametrize("seconds", [TIMEOUT, None])
def test_an_abort_does_not_wait_until_the_server_serves_again(seconds: float | None) -> None:
    options = {"admission": Admission(contexts=SUPPORTED), "handler": lambda *_: None}
    with Server((LOCALHOST, 0), **options, timeout=seconds) as server, ExitStack() as stack:
        connections = (socket.create_connection(server.address, TIMEOUT) for _ in range(2))
        peers = [stack.enter_context(connection) for connection in connections]
        for peer in peers:
            peer.sendall(encode(REQUEST))
        server.serve(until=lambda: len(server.open) == 2)
        Background(lambda: [association.abort() for association in server.open]).join()
        assert server.counters.aborted == 0
        server.serve(until=lambda: server.counters.aborted == 2)
        for peer in peers:
            assert receive_exactly_one(peer)[0] == AssociateAccept.type
            assert decode(receive_exactly_one(peer)) == Abort(0, 0)


# ---- where a message, a release and the end cross -----------------------------------------------


def test_a_request_that_crosses_the_release_of_a_closing_server_does_not_abort(
    serve: Serve,
) -> None:
    def handler(association: Any, pdv: PDV) -> Iterator[Any]:
        yield association.send(pdv.data, context=pdv.context_id, is_command=pdv.is_command)

    with serve(handler=handler) as host, Peer(host, REQUEST) as peer:
        peer.associate()
        host.server.close()
        assert peer.take() == ReleaseRequest()
        peer.send(p_data(DELETE, True))  # it was on its way
        peer.send(ReleaseResponse())
        assert peer.take() is None
        assert host.end()[1].outcome == "released"


def test_a_handler_that_waits_for_the_end_does_not_hold_back_a_release() -> None:
    def handler(association: Any, pdv: PDV) -> Iterator[Any]:
        yield association.wait()

    with in_asyncio(handler=handler) as host, Peer(host, REQUEST) as peer:
        peer.associate()
        peer.send(p_data(DELETE, True))
        peer.send(ReleaseRequest())
        assert peer.take() == ReleaseResponse()


def test_an_inline_on_request_may_return_what_is_to_be_awaited() -> None:
    async def decide(association: Any) -> AssociateReject:
        return AssociateReject(1, 1, 3)

    admission = Admission(contexts=SUPPORTED, on_request=lambda a: decide(a), inline=True)
    with in_asyncio(admission=admission) as host, Peer(host, REQUEST) as peer:
        assert peer.take() == AssociateReject(1, 1, 3)


def test_an_asyncio_server_serves_by_turns_once_and_until_no_coroutine() -> None:
    async def main() -> None:
        server = aio.Server((LOCALHOST, 0))
        async with server:
            ran: list[bool] = []
            asyncio.get_running_loop().call_soon(ran.append, True)
            while not ran:
                await server.serve(until=0)
            with pytest.raises(TypeError, match="until"):
                await server.serve(until=main)  # type: ignore[arg-type]
        with pytest.raises(LocalError, match="closed"):
            await server.__aenter__()

    asyncio.run(main())
