"""The L_Dicom API in Python, over real sockets: rejections, callbacks, handles, associations."""

from __future__ import annotations

import gc
import os
import random
import select
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ltdic import (
    PDV,
    Abort,
    AssociateAccept,
    AssociateReject,
    DataTransfer,
    ReleaseRequest,
    ReleaseResponse,
    decode,
    encode,
    ffi,
    l_dicom,
    lib,
)
from ltdic.l_dicom import *  # noqa: F403
from support import strategies as my
from support.l_dicom import (
    SLOTS,
    Acceptor,
    Recorder,
    Requestor,
    accept_all,
    answer_echo,
    associate,
    check,
    established,
)
from support.pdus import MINIMAL_ACCEPT as ACCEPT
from support.process import memory_allowed, memory_in_use
from support.rejections import DEFINED
from support.sockets import TIMEOUT, close_with_reset, has_ipv6, receive_pdu, reserved_port
from support.uids import VERIFICATION

# ruff: noqa: F405

REJECT = bytes.fromhex("03000000000400010107")
ORDER = [("receive", 0, 3, 10), ("reject", 1, 1, 7), ("close", 0)]


@pytest.fixture
def request_pdu() -> Iterator[Any]:
    pdu = L_DicomCreateAssociate(True)
    check(L_DicomDefaultAssociate(pdu))
    yield pdu
    L_DicomFreeAssociate(pdu)


@pytest.fixture
def server() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(10)
        yield server


@pytest.fixture
def requestor(server: socket.socket, request_pdu: Any) -> Iterator[Requestor]:
    requestor = Requestor(server, request_pdu)
    yield requestor
    requestor.peer.close()
    requestor.free()


# ---- received rejections -----------------------------------------------------------------------


def test_a_reject_in_one_read_with_the_end_of_the_connection(requestor: Requestor) -> None:
    requestor.peer.sendall(REJECT)
    requestor.peer.close()
    assert requestor.until("close") == ORDER


def test_a_reject_in_ten_reads_of_one_byte(requestor: Requestor) -> None:
    for n in range(10):
        requestor.peer.sendall(REJECT[n : n + 1])
        L_DicomWait(requestor.handle, 10)
        L_DicomBreathe()
    assert requestor.until("close") == ORDER
    assert requestor.peer.recv(1) == b""  # AE-4: the requestor closes


def test_a_reject_followed_at_once_by_a_reset(requestor: Requestor) -> None:
    requestor.peer.sendall(REJECT)
    close_with_reset(requestor.peer)
    assert requestor.until("close") == ORDER


def test_a_reject_that_comes_before_the_request_is_sent(
    server: socket.socket, request_pdu: Any
) -> None:
    recorder = Recorder()
    check(L_DicomConnect(recorder.handle, None, 0, *server.getsockname()))
    peer, _ = server.accept()
    peer.sendall(REJECT)
    close_with_reset(peer)
    recorder.until("connect")
    for _ in range(5):
        L_DicomWait(recorder.handle, 5)
    assert recorder.events == [("connect", 0)]
    check(L_DicomSendAssociateRequest(recorder.handle, request_pdu))
    assert recorder.until("close")[1:] == ORDER
    recorder.free()


def test_bytes_after_a_reject_change_nothing(requestor: Requestor) -> None:
    requestor.peer.sendall(REJECT + b"garbage")
    assert requestor.until("close") == ORDER


@settings(max_examples=200, deadline=None)
@given(my.triples, st.binary(min_size=2, max_size=2), st.sets(st.integers(1, 9)), st.booleans())
def test_a_reject_in_any_two_pieces_is_received_raw(
    codes: tuple[int, int, int], reserved: bytes, cuts: set[int], reset: bool
) -> None:
    wire = b"\x03" + reserved[:1] + b"\0\0\0\x04" + reserved[1:] + bytes(codes)
    pdu = L_DicomCreateAssociate(True)
    check(L_DicomDefaultAssociate(pdu))
    with socket.create_server(("127.0.0.1", 0)) as server:
        requestor = Requestor(server, pdu)
        for a, b in zip([0, *sorted(cuts)], [*sorted(cuts), 10], strict=True):
            requestor.peer.sendall(wire[a:b])
            L_DicomBreathe()
        (close_with_reset if reset else socket.socket.close)(requestor.peer)
        assert requestor.until("close") == [("receive", 0, 3, 10), ("reject", *codes), ("close", 0)]
        requestor.free()
    L_DicomFreeAssociate(pdu)


# ---- invalid rejections ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wire", "reason"),
    [
        (b"\x03\0\0\0\0\x05\0\x01\x01\x07\0", 6),
        (b"\x03\0\0\0\0\x03\0\x01\x01", 6),
        (b"\x03\0\0\0\0\0", 6),
        (b"\x03\0\xff\xff\xff\xff", 6),
        (b"\x08\0\0\0\0\x04\0\x01\x01\x07", 1),
        (b"\x00", 1),
        (b"HTTP/1.1 400 Bad Request", 1),
        (encode(ReleaseRequest()), 2),
    ],
)
def test_an_invalid_reject_is_aborted_with_the_reason(
    requestor: Requestor, wire: bytes, reason: int
) -> None:
    requestor.peer.sendall(wire)
    requestor.until("receive")
    assert decode(receive_pdu(requestor.peer)) == Abort(2, reason)
    requestor.peer.close()
    events = requestor.until("close")
    assert [event[0] for event in events] == ["receive", "close"]
    assert events[0][1] == events[1][1] == DICOM_ERROR_PROTOCOL


@pytest.mark.parametrize("size", range(10))
def test_a_reject_cut_short_is_a_lost_connection(requestor: Requestor, size: int) -> None:
    requestor.peer.sendall(REJECT[:size])
    requestor.peer.close()
    assert requestor.until("close") == [("close", DICOM_ERROR_CLOSED)]


@settings(max_examples=100, deadline=None)
@given(my.mutated(st.just(REJECT)))
def test_a_mutated_reject_ends_in_a_callback_or_an_abort(wire: bytes) -> None:
    pdu = L_DicomCreateAssociate(True)
    check(L_DicomDefaultAssociate(pdu))
    with socket.create_server(("127.0.0.1", 0)) as server:
        requestor = Requestor(server, pdu)
        requestor.peer.sendall(wire)
        requestor.peer.shutdown(socket.SHUT_WR)
        answer = receive_while_pumping(requestor)
        kinds = [event[0] for event in requestor.until("close")]
        requestor.peer.close()
        requestor.free()
    L_DicomFreeAssociate(pdu)
    if wire[0] == 3 and wire[2:6] == REJECT[2:6]:
        assert (kinds, answer) == (["receive", "reject", "close"], b"")
    elif wire[0] == 7 and wire[2:6] == REJECT[2:6]:
        assert (kinds, answer) == (["receive", "abort", "close"], b"")
    else:
        assert kinds[-1] == "close"
        assert "reject" not in kinds
        assert answer == b"" or decode(answer).type == 7


def receive_while_pumping(requestor: Requestor) -> bytes:
    requestor.peer.setblocking(False)
    answer = b""
    end = time.monotonic() + 10
    while time.monotonic() < end:
        L_DicomWait(requestor.handle, 10)
        try:
            chunk = requestor.peer.recv(100)
        except BlockingIOError:
            continue
        except ConnectionResetError:
            return answer
        if not chunk:
            return answer
        answer += chunk
        if len(answer) >= 10:
            requestor.peer.close()
            return answer
    raise AssertionError("no end")


# ---- an acceptor -------------------------------------------------------------------------------


@pytest.fixture
def raw_request(server: socket.socket, request_pdu: Any) -> bytes:
    requestor = Requestor(server, request_pdu)
    requestor.peer.close()
    requestor.free()
    return requestor.request


def test_the_acceptor_waits_for_the_requestor_to_close(raw_request: bytes) -> None:
    acceptor = Acceptor(request=lambda h, pdu, _: check(L_DicomSendAssociateReject(h, 2, 3, 1)))
    with socket.create_connection(acceptor.address, 10) as peer:
        peer.sendall(raw_request)
        acceptor.until("accept")
        child = acceptor.children[0]
        child.until("request")
        assert decode(receive_pdu(peer)) == AssociateReject(2, 3, 1)
        peer.setblocking(False)
        L_DicomWait(child.handle, 20)
        with pytest.raises(BlockingIOError):  # Sta13: the connection is open
            peer.recv(1)
    assert child.until("close")[-1] == ("close", 0)
    acceptor.free()


def call(acceptor: Acceptor, child: Recorder, request: bytes) -> socket.socket:
    """A peer that this handle has accepted, and whose request has been answered."""
    acceptor.more["accept"] = lambda h, *_: check(L_DicomAccept(h, child.handle))
    child.events.clear()
    peer = socket.create_connection(acceptor.address, TIMEOUT)
    peer.settimeout(TIMEOUT)
    peer.sendall(request)
    while not select.select([peer], [], [], 0)[0]:
        L_DicomWait(acceptor.handle, 50)
    return peer


def test_a_place_belongs_to_the_listener_that_accepted_the_association(raw_request: bytes) -> None:
    first, second = Acceptor(), Acceptor()
    children = [Recorder(request=lambda h, pdu, _: accept_all(h, pdu, None)) for _ in range(2)]
    for listener in (first, second):
        check(L_DicomSetLimits(listener.handle, 1, 0))
    with call(first, children[0], raw_request) as peer:
        assert isinstance(decode(receive_pdu(peer)), AssociateAccept)
        first.free()
    children[0].until("close")
    with call(second, children[0], raw_request) as peer:
        assert isinstance(decode(receive_pdu(peer)), AssociateAccept)
        with call(second, children[1], raw_request) as other:
            assert decode(receive_pdu(other)) == AssociateReject(2, 3, 2)
        assert children[1].until("close") == [("close", 0)]  # the user is not asked
        check(L_DicomSendAbort(children[0].handle, 0, 0))
        with call(second, children[1], raw_request) as other:
            assert isinstance(decode(receive_pdu(other)), AssociateAccept)
    for one in (*children, second):
        one.free()


@contextmanager
def rejected_under_artim(request: bytes, milliseconds: int) -> Iterator[tuple[Any, Any]]:
    """Reject a requestor, which has so many milliseconds to close; yield it and the acceptor's
    end."""

    def on_request(hNet: Any, hPDU: Any, _: Any) -> None:
        check(L_DicomSetTimeouts(hNet, milliseconds, 0, 0))
        check(L_DicomSendAssociateReject(hNet, 1, 1, 1))

    acceptor = Acceptor(request=on_request)
    with socket.create_connection(acceptor.address, 10) as peer:
        peer.sendall(request)
        acceptor.until("accept")
        child = acceptor.children[0]
        child.until("request")
        yield peer, child
    acceptor.free()


def test_artim_closes_a_rejected_association_that_the_requestor_keeps_open(
    raw_request: bytes,
) -> None:
    with rejected_under_artim(raw_request, 60) as (peer, child):
        begun = time.monotonic()
        assert child.until("close")[-1] == ("close", DICOM_ERROR_TIMEOUT)
        assert 0.05 < time.monotonic() - begun < TIMEOUT / 2
        receive_pdu(peer)
        assert peer.recv(1) == b""


@pytest.mark.parametrize("drip", [False, True])
def test_artim_closes_a_connection_without_a_request(raw_request: bytes, drip: bool) -> None:
    acceptor = Acceptor()
    acceptor.more["accept"] = lambda *_: None
    with socket.create_connection(acceptor.address, 10) as peer:
        acceptor.until("accept")
        child = Recorder()
        check(L_DicomSetTimeouts(child.handle, 100, 0, 0))
        check(L_DicomAccept(acceptor.handle, child.handle))
        begun = time.monotonic()
        for byte in raw_request:
            if drip:
                peer.sendall(bytes([byte]))
            L_DicomWait(child.handle, 10)
            if child.events:
                break
        assert child.until("close") == [("close", DICOM_ERROR_TIMEOUT)]
        assert 0.09 < time.monotonic() - begun < TIMEOUT / 2
    child.free()
    acceptor.free()


def test_a_request_for_another_protocol_version_is_rejected_by_the_provider(
    raw_request: bytes,
) -> None:
    acceptor = Acceptor()
    with socket.create_connection(acceptor.address, 10) as peer:
        peer.sendall(raw_request[:6] + b"\0\x02" + raw_request[8:])
        acceptor.until("accept")
        for _ in range(3):
            L_DicomWait(acceptor.handle, 20)
        assert decode(receive_pdu(peer)) == AssociateReject(1, 2, 2)
    child = acceptor.children[0]
    assert child.until("close") == [("close", 0)]  # the user never saw the request
    acceptor.free()


def test_another_pdu_instead_of_a_request_is_aborted(raw_request: bytes) -> None:
    for wire in (b"\x09", REJECT, raw_request[:74] + b"\x20\0\xff\xff" + raw_request[78:]):
        acceptor = Acceptor()
        with socket.create_connection(acceptor.address, 10) as peer:
            peer.sendall(wire)
            acceptor.until("accept")
            for _ in range(3):
                L_DicomWait(acceptor.handle, 20)
            assert decode(receive_pdu(peer)) == Abort(0, 0)  # AA-1
        acceptor.children[0].until("close")
        acceptor.free()


def test_only_the_defined_rejections_are_sent(raw_request: bytes) -> None:
    refused = []

    def on_request(hNet: Any, hPDU: Any, _: Any) -> None:
        for codes in [(0, 1, 1), (3, 1, 1), (1, 0, 1), (1, 1, 4), (1, 2, 7), (1, 3, 0), (1, 4, 1)]:
            refused.append(L_DicomSendAssociateReject(hNet, *codes))
        check(L_DicomSendAssociateReject(hNet, 1, 1, 3))
        refused.append(L_DicomSendAssociateReject(hNet, 1, 1, 3))

    acceptor = Acceptor(request=on_request)
    with socket.create_connection(acceptor.address, 10) as peer:
        peer.sendall(raw_request)
        acceptor.until("accept")
        acceptor.children[0].until("request")
        assert receive_pdu(peer) == encode(AssociateReject(1, 1, 3))
    assert acceptor.children[0].until("close")[-1] == ("close", 0)
    assert refused == [DICOM_ERROR_PARAMETER] * 7 + [DICOM_ERROR_STATE]
    acceptor.free()


def test_each_connection_is_told_once_and_the_oldest_is_accepted_first() -> None:
    acceptor = Acceptor()
    acceptor.more["accept"] = lambda *_: None  # leaves the connection in the queue
    first = socket.create_connection(acceptor.address, 10)
    second = socket.create_connection(acceptor.address, 10)
    acceptor.until("accept")
    for _ in range(5):
        L_DicomWait(acceptor.handle, 5)
    assert acceptor.events == [("accept", 0)]
    for peer in (first, second):
        child = Recorder()
        check(L_DicomAccept(acceptor.handle, child.handle))
        assert L_DicomGetPeerInfo(child.handle) == peer.getsockname()
        L_DicomWait(acceptor.handle, 20)
        child.free()
        peer.close()
    child = Recorder()
    assert L_DicomAccept(acceptor.handle, child.handle) == DICOM_ERROR_STATE
    assert acceptor.events == [("accept", 0)] * 2
    child.free()
    acceptor.free()


def test_traffic_does_not_delay_artim(raw_request: bytes) -> None:
    with rejected_under_artim(raw_request, 100) as (peer, child):
        begun = time.monotonic()
        while child.events[-1][0] != "close" and time.monotonic() - begun < TIMEOUT / 2:
            peer.sendall(encode(ReleaseResponse()))
            L_DicomWait(child.handle, 5)
        assert child.events[-1] == ("close", DICOM_ERROR_TIMEOUT)
        assert time.monotonic() - begun < TIMEOUT / 2


def test_no_data_is_buffered_before_an_association() -> None:
    acceptor = Acceptor()
    with socket.create_connection(acceptor.address, 10) as peer:
        peer.sendall(b"\x04\0\xff\xff\xff\xff")
        acceptor.until("accept")
        for _ in range(3):
            L_DicomWait(acceptor.handle, 20)
        assert decode(receive_pdu(peer)) == Abort(0, 0)
    acceptor.free()


def test_an_answer_fits_the_request_of_its_handle(raw_request: bytes) -> None:
    """The answer is sent in RECEIVECALLBACK; the handle is used for a second request."""
    child = Recorder(receive=lambda h, *_: answer(h))
    codes: list[int] = []

    def answer(hNet: Any) -> None:
        accept = L_DicomCreateAssociate(False)
        check(L_DicomDefaultAssociate(accept))
        codes.append(L_DicomSendAssociateAccept(hNet, accept))
        L_DicomFreeAssociate(accept)

    listener = Acceptor()
    listener.more["accept"] = lambda h, *_: check(L_DicomAccept(h, child.handle))
    for ident in (1, 77):
        with socket.create_connection(listener.address, 10) as peer:
            peer.sendall(raw_request[:103] + bytes([ident]) + raw_request[104:])
            child.until("receive")
            assert [c.id for c in decode(receive_pdu(peer)).contexts] == [ident]
        child.until("close")
        child.events.clear()
    assert codes == [DICOM_SUCCESS] * 2
    child.free()
    listener.free()


# ---- callbacks ---------------------------------------------------------------------------------


def test_a_callback_can_ask_who_rejected(server: socket.socket, request_pdu: Any) -> None:
    seen = []

    def on_reject(hNet: Any, *_: Any) -> None:
        seen.append((L_DicomGetPeerInfo(hNet), L_DicomIsConnected(hNet)))
        assert L_DicomSendAssociateRequest(hNet, request_pdu) == DICOM_ERROR_STATE

    requestor = Requestor(server, request_pdu, reject=on_reject)
    requestor.peer.sendall(REJECT)
    assert requestor.until("close") == ORDER
    assert seen == [(server.getsockname(), 1)]
    requestor.peer.close()
    requestor.free()


def test_closing_in_the_callback_closes_once(server: socket.socket, request_pdu: Any) -> None:
    requestor = Requestor(server, request_pdu, reject=lambda h, *_: check(L_DicomClose(h)))
    requestor.peer.sendall(REJECT)
    requestor.until("close")
    for _ in range(3):
        L_DicomWait(requestor.handle, 5)
    assert requestor.events == ORDER
    requestor.peer.close()
    requestor.free()


@pytest.mark.parametrize("wait", [lib.L_DicomWait, L_DicomWait], ids=["C", "Python"])
def test_break_wait_ends_the_wait_that_called_the_callback(
    wait: Any, server: socket.socket, request_pdu: Any
) -> None:
    codes = []
    other = Recorder()

    def on_receive(hNet: Any, *_: Any) -> None:
        L_DicomBreakWait(hNet)
        codes.append(wait(other.handle, 20))

    requestor = Requestor(server, request_pdu, receive=on_receive)
    requestor.peer.sendall(REJECT)
    begun = time.monotonic()
    codes.append(wait(other.handle, 20_000))
    assert codes == [DICOM_ERROR_TIMEOUT, DICOM_ERROR_INTERRUPTED]
    assert time.monotonic() - begun < TIMEOUT / 2
    requestor.peer.close()
    requestor.free()
    other.free()


@pytest.mark.parametrize("wait", [lib.L_DicomWait, L_DicomWait], ids=["C", "Python"])
def test_each_of_two_waits_can_be_broken(
    wait: Any, server: socket.socket, request_pdu: Any
) -> None:
    codes = []
    unused = Recorder()
    inner = Requestor(server, request_pdu, receive=lambda h, *_: L_DicomBreakWait(h))

    def on_receive(hNet: Any, *_: Any) -> None:
        L_DicomBreakWait(hNet)
        inner.peer.sendall(REJECT)
        codes.append(wait(unused.handle, 10_000))

    outer = Requestor(server, request_pdu, receive=on_receive)
    outer.peer.sendall(REJECT)
    codes.append(wait(unused.handle, 10_000))
    assert codes == [DICOM_ERROR_INTERRUPTED] * 2
    for requestor in (inner, outer):
        requestor.peer.close()
        requestor.free()
    unused.free()


def test_a_wait_returns_although_each_callback_reconnects_in_vain() -> None:
    """A closed port on loopback fails at once, each time."""
    recorder = Recorder(connect=lambda h, *_: connect(h))

    def connect(hNet: Any) -> None:
        check(L_DicomConnect(hNet, None, 0, "127.0.0.1", port))

    with reserved_port() as port:
        connect(recorder.handle)
        for _ in range(5):
            check(L_DicomWait(recorder.handle, 1000))
    assert recorder.events == [("connect", DICOM_ERROR_CONNECT)] * 5
    recorder.free()


@pytest.mark.parametrize("local", ["203.0.113.1", "::1"], ids=["not ours", "another family"])
def test_a_local_address_that_cannot_be_bound_is_an_error_at_once(local: str) -> None:
    recorder = Recorder()
    assert L_DicomConnect(recorder.handle, local, 0, "127.0.0.1", 9) == DICOM_ERROR_ADDRESS
    assert L_DicomWait(recorder.handle, 50) == DICOM_ERROR_TIMEOUT
    assert recorder.events == []
    recorder.free()


@pytest.mark.parametrize("slot", ["receive", "reject", "close"])
def test_a_callback_may_free_its_own_handle(
    server: socket.socket, request_pdu: Any, slot: str
) -> None:
    requestor = Requestor(server, request_pdu, **{slot: lambda h, *_: L_DicomFreeNet(h)})
    requestor.peer.sendall(REJECT)
    requestor.until(slot)
    L_DicomBreathe()
    kinds = [event[0] for event in requestor.events]
    assert kinds == ["receive", "reject", "close"][: kinds.index(slot) + 1]
    assert L_DicomClose(requestor.handle) == DICOM_ERROR_HANDLE
    requestor.peer.close()


@pytest.mark.parametrize("slot", ["reject", "close"])
def test_a_callback_may_connect_again(server: socket.socket, request_pdu: Any, slot: str) -> None:
    attempts = 3

    def again(hNet: Any, *_: Any) -> None:
        if requestor.events.count(ORDER[1]) < attempts:
            check(L_DicomConnect(hNet, None, 0, *server.getsockname()))

    def on_connect(hNet: Any, nError: int, _: Any) -> None:
        check(L_DicomSendAssociateRequest(hNet, request_pdu))

    requestor = Requestor(server, request_pdu, **{slot: again})
    requestor.more["connect"] = on_connect
    peers = [requestor.peer]
    for attempt in range(attempts):
        peers[-1].sendall(REJECT)
        if attempt < attempts - 1:
            requestor.until("connect")
            peers.append(server.accept()[0])
            receive_pdu(peers[-1])
            requestor.events.remove(("connect", 0))
    while requestor.events.count(("close", 0)) < attempts:
        assert L_DicomWait(requestor.handle, 10_000) == DICOM_SUCCESS
    assert requestor.events == ORDER * attempts
    for peer in peers:
        peer.close()
    requestor.free()


def test_an_exception_of_a_callback_is_raised_by_the_wait(
    server: socket.socket, request_pdu: Any
) -> None:
    def on_receive(*_: Any) -> None:
        raise KeyError("first")

    def on_reject(*_: Any) -> None:
        raise ZeroDivisionError("second")

    requestor = Requestor(server, request_pdu, receive=on_receive, reject=on_reject)
    requestor.peer.sendall(REJECT)
    with pytest.raises(KeyError, match="first"):
        L_DicomWait(requestor.handle, 10_000)
    assert requestor.until("close") == ORDER  # nothing is lost
    requestor.peer.close()
    requestor.free()


def test_an_exception_of_a_callback_ends_the_wait_for_another_handle(
    server: socket.socket, request_pdu: Any
) -> None:
    def on_reject(*_: Any) -> None:
        raise LookupError

    requestor = Requestor(server, request_pdu, reject=on_reject)
    other = Recorder()
    requestor.peer.sendall(REJECT)
    begun = time.monotonic()
    with pytest.raises(LookupError):
        L_DicomWait(other.handle, 20_000)
    assert time.monotonic() - begun < TIMEOUT / 2
    requestor.peer.close()
    requestor.free()
    other.free()


def test_an_attempt_aborted_in_the_callback_that_began_it_adds_no_event(
    server: socket.socket, request_pdu: Any
) -> None:
    def on_reject(hNet: Any, *_: Any) -> None:
        check(L_DicomConnect(hNet, None, 0, *server.getsockname()))
        check(L_DicomSendAssociateRequest(hNet, request_pdu))
        check(L_DicomSendAbort(hNet, 0, 0))

    requestor = Requestor(server, request_pdu, reject=on_reject)
    requestor.peer.sendall(REJECT)
    requestor.until("close")
    L_DicomWait(requestor.handle, 50)
    assert requestor.events == ORDER
    assert not L_DicomIsConnected(requestor.handle)
    requestor.peer.close()
    requestor.free()


@pytest.mark.slow
def test_a_slow_callback_loses_no_event(server: socket.socket, request_pdu: Any) -> None:
    slow = Requestor(server, request_pdu, reject=lambda *_: time.sleep(1))
    others = [Requestor(server, request_pdu) for _ in range(5)]
    for requestor in [slow, *others]:
        requestor.peer.sendall(REJECT)
        close_with_reset(requestor.peer)
    for requestor in [slow, *others]:
        assert requestor.until("close") == ORDER
        requestor.free()


def test_events_of_a_handle_wait_while_its_callback_pumps(
    server: socket.socket, request_pdu: Any
) -> None:
    other = Requestor(server, request_pdu)
    seen = []

    def on_receive(hNet: Any, *_: Any) -> None:
        other.peer.sendall(REJECT)
        other.until("close")
        seen.append(list(outer.events))

    outer = Requestor(server, request_pdu, receive=on_receive)
    outer.peer.sendall(REJECT)
    outer.peer.close()
    assert outer.until("close") == ORDER
    assert seen == [ORDER[:1]]
    assert other.events == ORDER
    other.peer.close()
    other.free()
    outer.free()


def test_an_event_pumped_in_a_callback_ends_the_outer_wait(
    server: socket.socket, request_pdu: Any
) -> None:
    awaited = Requestor(server, request_pdu)

    def on_receive(*_: Any) -> None:
        awaited.peer.sendall(REJECT)
        awaited.peer.close()
        awaited.until("close")

    other = Requestor(server, request_pdu, receive=on_receive)
    other.peer.sendall(REJECT)
    begun = time.monotonic()
    assert L_DicomWait(awaited.handle, 20_000) == DICOM_SUCCESS
    assert time.monotonic() - begun < TIMEOUT / 2
    assert awaited.events == ORDER
    other.peer.close()
    other.free()
    awaited.free()


def test_user_data_can_be_any_object_in_every_slot(server: socket.socket, request_pdu: Any) -> None:
    data, got = object(), []

    @pEXT_CALLBACK("RECEIVEASSOCIATEREJECTCALLBACK")
    def on_reject(hNet: Any, nResult: int, nSource: int, nReason: int, UserData: Any) -> None:
        got.append((nResult, nSource, nReason, UserData))

    def on_close(hNet: Any, nError: int, UserData: Any) -> None:
        got.append(UserData)

    requestor = Requestor(server, request_pdu)
    slots = {"pfnReceiveAssociateReject": on_reject, "pfnClose": on_close}
    check(L_DicomSetCallback(requestor.handle, slots, data))
    assert L_DicomGetCallback(requestor.handle) == (slots, data)
    requestor.peer.sendall(REJECT)
    while data not in got:
        L_DicomWait(requestor.handle, 1000)
    assert got == [(1, 1, 7, data), data]
    requestor.peer.close()
    requestor.free()


def test_a_callback_is_kept_by_its_handle(server: socket.socket, request_pdu: Any) -> None:
    got: list[Any] = []

    def make() -> dict[str, Any]:
        @pEXT_CALLBACK("RECEIVEASSOCIATEREJECTCALLBACK")
        def on_reject(hNet: Any, *codes: Any) -> None:
            got.append(codes[:3])

        return {"pfnReceiveAssociateReject": on_reject, "pfnClose": lambda *a: got.append(a[2].x)}

    class Data:
        x = "data"

    requestor = Requestor(server, request_pdu)
    check(L_DicomSetCallback(requestor.handle, make(), Data()))
    gc.collect()
    junk = [pEXT_CALLBACK("CLOSECALLBACK")(lambda *_: None) for _ in range(500)]
    requestor.peer.sendall(REJECT)
    while "data" not in got:
        L_DicomWait(requestor.handle, 1000)
    assert got == [(1, 1, 7), "data"]
    assert junk
    requestor.peer.close()
    requestor.free()


def test_callbacks_may_be_replaced_from_inside_one(server: socket.socket, request_pdu: Any) -> None:
    got = []

    def replace(hNet: Any, *_: Any) -> None:
        slots = {"pfnReceiveAssociateReject": lambda *a: got.append(a[1:4])}
        check(L_DicomSetCallback(hNet, slots))
        gc.collect()

    requestor = Requestor(server, request_pdu, receive=replace)
    requestor.peer.sendall(REJECT)
    while not got:
        L_DicomWait(requestor.handle, 1000)
    assert got == [(1, 1, 7)]
    requestor.peer.close()
    requestor.free()


def test_a_wrong_slot_or_type_is_refused() -> None:
    handle = L_DicomCreateNet(None, DICOM_SECURE_NONE)
    with pytest.raises(ValueError, match="pfnNone"):
        L_DicomSetCallback(handle, {"pfnNone": print})
    with pytest.raises(TypeError, match="pfnClose"):
        L_DicomSetCallback(handle, {"pfnClose": 1.5})
    with pytest.raises(ValueError, match="NOCALLBACK"):
        pEXT_CALLBACK("NOCALLBACK")
    with pytest.raises(TypeError, match="takes 5 arguments"):
        L_DicomConnect(handle)
    L_DicomFreeNet(handle)


def test_a_signal_ends_the_wait_at_once() -> None:
    class Alarm(Exception):
        pass

    def on_alarm(*_: Any) -> None:
        raise Alarm

    recorder = Recorder()
    before = signal.signal(signal.SIGALRM, on_alarm)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        begun = time.monotonic()
        with pytest.raises(Alarm):
            L_DicomWait(recorder.handle, 20_000)
        assert time.monotonic() - begun < TIMEOUT / 2
    finally:
        signal.signal(signal.SIGALRM, before)
    recorder.free()


FORBIDDEN = """
    import ctypes, sys
    import ltdic.l_dicom
    from ltdic.cli import main

    class Refusing:
        def __getattr__(self, name):
            return getattr(ltdic.ffi, name)

        def callback(self, *_, **__):
            raise MemoryError

    PR_SET_MDWE, REFUSE_EXEC_GAIN = 65, 1
    prctl = getattr(ctypes.CDLL(None), "prctl", lambda *_: -1)
    if sys.argv[1] == "cffi" or prctl(PR_SET_MDWE, REFUSE_EXEC_GAIN, 0, 0, 0) != 0:
        ltdic.l_dicom.ffi = Refusing()
    try:
        ltdic.l_dicom.pEXT_CALLBACK("SENDCALLBACK")(print)
    except MemoryError:
        sys.exit(main(["demo"]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("by", ["kernel", "cffi"])
def test_plain_functions_work_where_executable_memory_is_forbidden(by: str) -> None:
    """The kernel forbids it from Linux 6.3 on; elsewhere cffi is made to raise the same error."""
    result = subprocess.run(
        [sys.executable, "-I", "-c", textwrap.dedent(FORBIDDEN), by],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "16 of 16" in result.stdout


# ---- handles -----------------------------------------------------------------------------------


def test_a_freed_handle_is_never_known_again() -> None:
    handles = []
    for _ in range(1000):
        handles.append(L_DicomCreateNet(None, DICOM_SECURE_NONE))
        L_DicomFreeNet(handles[-1])
        L_DicomFreeNet(handles[-1])
    keeper = L_DicomCreateNet(None, DICOM_SECURE_NONE)
    assert len({int(ffi.cast("uintptr_t", h)) for h in handles}) == 1000
    assert all(L_DicomClose(handle) == DICOM_ERROR_HANDLE for handle in handles)
    assert L_DicomWait(handles[0], 10) == DICOM_ERROR_HANDLE
    assert not L_DicomIsConnected(handles[0])
    L_DicomFreeNet(keeper)
    L_DicomFreeNet(None)


def test_a_handle_of_another_thread_is_unknown() -> None:
    handle = L_DicomCreateNet(None, DICOM_SECURE_NONE)
    codes = []
    thread = threading.Thread(target=lambda: codes.append(L_DicomClose(handle)))
    thread.start()
    thread.join()
    assert codes == [DICOM_ERROR_HANDLE]
    L_DicomFreeNet(handle)


def test_start_up_is_counted_and_the_last_shut_down_frees_all() -> None:
    handle = L_DicomCreateNet(None, DICOM_SECURE_NONE)
    check(L_DicomStartUp())
    check(L_DicomStartUp())
    L_DicomShutDown()
    check(L_DicomClose(handle))
    L_DicomShutDown()
    assert L_DicomClose(handle) == DICOM_ERROR_HANDLE
    L_DicomShutDown()
    assert not L_DicomCreateNet(None, 1)


def test_shut_down_inside_a_callback_frees_the_handle(
    server: socket.socket, request_pdu: Any
) -> None:
    check(L_DicomStartUp())
    requestor = Requestor(server, request_pdu, reject=lambda *_: L_DicomShutDown())
    requestor.peer.sendall(REJECT)
    requestor.until("reject")
    assert requestor.events == ORDER[:2]
    assert L_DicomClose(requestor.handle) == DICOM_ERROR_HANDLE
    requestor.peer.close()


def test_a_failed_connection_is_told(server: socket.socket) -> None:
    address = server.getsockname()
    server.close()
    recorder = Recorder()
    check(L_DicomConnect(recorder.handle, None, 0, *address))
    assert recorder.until("connect") == [("connect", DICOM_ERROR_CONNECT)]
    assert L_DicomConnect(recorder.handle, None, 0, "no such host.invalid", 104) == (
        DICOM_ERROR_ADDRESS
    )
    for host, port in [("", 104), (None, 104), ("127.0.0.1", 0), ("127.0.0.1", 65536)]:
        code = L_DicomConnect(recorder.handle, None, 0, host, port)
        assert code == DICOM_ERROR_PARAMETER
    with pytest.raises(OSError, match="state"):
        L_DicomGetPeerInfo(recorder.handle)
    recorder.free()


@pytest.mark.parametrize(
    "family", [DICOM_IPTYPE_IPV4, DICOM_IPTYPE_IPV6, DICOM_IPTYPE_IPV4_OR_IPV6]
)
def test_a_listener_accepts_connections_of_its_family(family: int, request_pdu: Any) -> None:
    acceptor, requestor = Recorder(), Recorder()
    code = L_DicomListenExt(acceptor.handle, "*", 0, 5, family)
    if (code or family == DICOM_IPTYPE_IPV6) and not has_ipv6():
        assert family != DICOM_IPTYPE_IPV4
        assert code in (DICOM_SUCCESS, DICOM_ERROR_ADDRESS)
        acceptor.free()
        requestor.free()
        return
    check(code)
    port = L_DicomGetHostInfo(acceptor.handle)[1]
    host = "::1" if family == DICOM_IPTYPE_IPV6 else "127.0.0.1"
    check(L_DicomConnectExt(requestor.handle, host, 0, host, port, family))
    assert requestor.until("connect") == [("connect", 0)]
    assert acceptor.until("accept") == [("accept", 0)]
    assert L_DicomGetPeerInfo(requestor.handle) == (host, port)
    acceptor.free()
    requestor.free()


def test_a_listener_for_both_families_fails_when_one_is_in_use() -> None:
    if not has_ipv6():
        return
    recorder = Recorder()
    with socket.create_server(("::", 0), family=socket.AF_INET6) as other:
        port, both = other.getsockname()[1], DICOM_IPTYPE_IPV4_OR_IPV6
        assert L_DicomListenExt(recorder.handle, "*", port, 5, both) == DICOM_ERROR_ADDRESS
    recorder.free()


# ---- associations ------------------------------------------------------------------------------


def test_an_accepted_association_is_released_by_either_side(request_pdu: Any) -> None:
    for requestor_asks in (True, False):
        acceptor, requestor = associate(accept_all, request_pdu)
        requestor.until("accepted")
        child = acceptor.children[0]
        assert L_DicomIsAssociated(requestor.handle)
        assert L_DicomIsAssociated(child.handle)
        one, two = (requestor, child) if requestor_asks else (child, requestor)
        check(L_DicomSendReleaseRequest(one.handle))
        two.until("release")
        assert L_DicomSendReleaseRequest(two.handle) == DICOM_ERROR_STATE
        check(L_DicomSendReleaseResponse(two.handle))
        assert [e[0] for e in one.until("close")][-3:] == ["receive", "released", "close"]
        assert two.until("close")[-1] == ("close", 0)
        assert one.events[-1] == ("close", 0)
        acceptor.free()
        requestor.free()


@pytest.mark.parametrize(("codes", "seen"), [((0, 5), (0, 0)), ((2, 6), (2, 6))])
def test_an_abort_arrives_with_its_codes(
    request_pdu: Any, codes: tuple[int, int], seen: tuple[int, int]
) -> None:
    acceptor, requestor = associate(accept_all, request_pdu)
    requestor.until("accepted")
    assert L_DicomSendAbort(requestor.handle, 1, 0) == DICOM_ERROR_PARAMETER
    assert L_DicomSendAbort(requestor.handle, 2, 3) == DICOM_ERROR_PARAMETER
    check(L_DicomSendAbort(requestor.handle, *codes))
    child = acceptor.children[0]
    events = child.until("close")[-3:]
    assert events == [("receive", 0, 7, 10), ("abort", *seen), ("close", DICOM_ERROR_ABORTED)]
    assert requestor.until("close")[-1] == ("close", 0)
    acceptor.free()
    requestor.free()


def test_the_user_reads_the_proposed_and_the_answered_values() -> None:
    pdu = L_DicomCreateAssociate(True)
    check(L_DicomSetCalled(pdu, "ARCHIVE"))
    check(L_DicomSetCalling(pdu, " CT 1 "))
    check(L_DicomSetMaxLength(pdu, 70_000))
    check(L_DicomSetImplementVersion(pdu, "TEST"))
    for ident, abstract in ((1, "1.2.840.10008.1.1"), (3, "1.2.3"), (255, "1.2.4")):
        check(L_DicomAddPresentation(pdu, ident, 0, abstract))
        check(L_DicomAddTransfer(pdu, ident, "1.2.840.10008.1.2.1"))
        check(L_DicomAddTransfer(pdu, ident, "1.2.840.10008.1.2"))
    check(L_DicomDefaultAssociate(pdu))
    seen: dict[str, Any] = {}

    def on_request(hNet: Any, hPDU: Any, _: Any) -> None:
        seen["titles"] = L_DicomGetCalled(hPDU), L_DicomGetCalling(hPDU)
        seen["contexts"] = [
            (i, L_DicomGetAbstract(hPDU, i), L_DicomGetTransferCount(hPDU, i))
            for i in (L_DicomGetPresentation(hPDU, n) for n in range(3))
        ]
        answer = L_DicomCreateAssociate(False)
        check(L_DicomDefaultAssociate(answer))
        check(L_DicomAddPresentation(answer, 3, PDU_ACCEPT_RESULT_SUCCESS, None))
        assert L_DicomSendAssociateAccept(hNet, answer) == DICOM_ERROR_PARAMETER  # no syntax
        check(L_DicomAddTransfer(answer, 3, "1.2.99"))
        assert L_DicomSendAssociateAccept(hNet, answer) == DICOM_ERROR_PARAMETER  # not proposed
        check(L_DicomDeletePresentation(answer, 3))
        check(L_DicomAddPresentation(answer, 3, PDU_ACCEPT_RESULT_SUCCESS, None))
        check(L_DicomAddTransfer(answer, 3, "1.2.840.10008.1.2"))
        check(L_DicomAddPresentation(answer, 255, PDU_ACCEPT_RESULT_ABSTRACT_SYNTAX, None))
        check(L_DicomSendAssociateAccept(hNet, answer))
        L_DicomFreeAssociate(answer)

    def on_accepted(hNet: Any, hPDU: Any, _: Any) -> None:
        seen["answer"] = [(i, L_DicomGetResult(hPDU, i)) for i in (1, 3, 255, 7)]
        seen["transfer"] = L_DicomGetTransfer(hPDU, 3, 0)
        seen["echo"] = L_DicomGetCalled(hPDU), L_DicomGetCalling(hPDU)
        seen["length"] = L_DicomGetMaxLength(hPDU)

    acceptor, requestor = associate(on_request, pdu)
    requestor.more["accepted"] = on_accepted
    requestor.until("accepted")
    syntaxes = ("1.2.840.10008.1.1", "1.2.3", "1.2.4")
    assert seen == {
        "titles": ("ARCHIVE", "CT 1"),
        "contexts": [(i, uid, 2) for i, uid in zip((1, 3, 255), syntaxes, strict=True)],
        "answer": [(1, 1), (3, 0), (255, 3), (7, 255)],
        "transfer": "1.2.840.10008.1.2",
        "echo": ("ARCHIVE", "CT 1"),
        "length": 16384,
    }
    L_DicomFreeAssociate(pdu)
    acceptor.free()
    requestor.free()


def test_an_associate_object_keeps_legal_values_and_refuses_others() -> None:
    pdu = L_DicomCreateAssociate(True)
    assert L_DicomGetCalled(pdu) == L_DicomGetApplication(pdu) == ""
    for function in (L_DicomSetCalled, L_DicomSetCalling):
        for title in ("", "seventeen letters", "back\\slash", "tab\t", None, "   "):
            assert function(pdu, title) == DICOM_ERROR_PARAMETER
    for function in (L_DicomSetApplication, L_DicomSetImplementClass):
        for uid in ("", "1..2", "1.02", "a", "1." + "2" * 63, None):
            assert function(pdu, uid) == DICOM_ERROR_PARAMETER
    check(L_DicomSetCalled(pdu, "AB"))
    check(L_DicomSetCalled(pdu, "LONGER THAN IT"))
    check(L_DicomSetCalled(pdu, "C"))
    assert L_DicomGetCalled(pdu) == "C"
    check(L_DicomSetApplication(pdu, "1.2.3"))
    check(L_DicomDefaultAssociate(pdu))
    assert L_DicomGetApplication(pdu) == "1.2.3"
    check(L_DicomDeletePresentation(pdu, 1))
    for n in range(200):  # the text given is the object's own, which may be moved
        check(L_DicomSetCalled(pdu, f"TITLE {n}"))
        check(lib.L_DicomSetCalling(pdu, lib.L_DicomGetCalled(pdu)))
        assert L_DicomGetCalling(pdu) == f"TITLE {n}"
    assert L_DicomAddPresentation(pdu, 2, 0, "1.2") == DICOM_ERROR_PARAMETER
    assert L_DicomAddPresentation(pdu, 1, 0, None) == DICOM_ERROR_PARAMETER
    check(L_DicomAddPresentation(pdu, 1, 0, "1.2"))
    assert L_DicomAddPresentation(pdu, 1, 0, "1.2") == DICOM_ERROR_PARAMETER
    assert L_DicomSetResult(pdu, 1, 0) == DICOM_ERROR_PARAMETER  # not in a request
    assert L_DicomFindAbstract(pdu, "1.2") == 1
    assert L_DicomFindAbstract(pdu, "1.3") == 0
    check(L_DicomDeletePresentation(pdu, 1))
    assert L_DicomDeletePresentation(pdu, 1) == DICOM_ERROR_PARAMETER
    assert L_DicomAddTransfer(pdu, 1, "1.2") == DICOM_ERROR_PARAMETER
    check(L_DicomResetAssociate(pdu, False))
    assert L_DicomGetCalled(pdu) == ""
    check(L_DicomAddPresentation(pdu, 1, 0, None))
    check(L_DicomSetResult(pdu, 1, 4))
    assert L_DicomGetResult(pdu, 1) == 4
    L_DicomFreeAssociate(pdu)
    L_DicomFreeAssociate(None)
    assert L_DicomGetCalled(None) == ""
    assert L_DicomSetMaxLength(None, 0) == DICOM_ERROR_PARAMETER


def test_contexts_can_be_read_by_index_between_changes() -> None:
    draw = random.Random(1)
    pdu = L_DicomCreateAssociate(TRUE)
    contexts: dict[int, tuple[str, list[str]]] = {}  # by ID: abstract and transfer syntaxes
    for n in range(5000):
        ident, change = 2 * draw.randrange(6) + 1, draw.randrange(200)
        if change < 25 and ident not in contexts:
            check(L_DicomAddPresentation(pdu, ident, 0, f"1.{n}"))
            contexts[ident] = (f"1.{n}", [])
        elif change < 40 and ident in contexts:
            check(L_DicomDeletePresentation(pdu, ident))
            del contexts[ident]
        elif change < 100 and ident in contexts:
            check(L_DicomAddTransfer(pdu, ident, f"2.{n}"))
            contexts[ident][1].append(f"2.{n}")
        elif change < 120:
            check(L_DicomSetRoleSelect(pdu, f"3.{n % 50}", TRUE, TRUE))
            check(L_DicomSetCalled(pdu, f"TITLE_{n}"))
        elif change == 199:
            check(L_DicomResetAssociate(pdu, TRUE))
            contexts.clear()
        ident, index = 2 * draw.randrange(6) + 1, draw.randrange(-1, 8)
        abstract, transfers = contexts.get(ident, ("", []))
        reads: list[tuple[Any, tuple[int, ...], Any]] = [
            (L_DicomGetPresentationCount, (), len(contexts)),
            (L_DicomGetPresentation, (index,), dict(enumerate(contexts)).get(index, 0)),
            (L_DicomGetAbstract, (ident,), abstract),
            (L_DicomGetResult, (ident,), 0 if ident in contexts else 255),
            (L_DicomGetTransferCount, (ident,), len(transfers)),
            (L_DicomGetTransfer, (ident, index), dict(enumerate(transfers)).get(index, "")),
        ]
        for function, arguments, expected in draw.sample(reads, 2):
            assert function(pdu, *arguments) == expected
    L_DicomFreeAssociate(pdu)


def test_calls_in_the_wrong_state_change_nothing(request_pdu: Any) -> None:
    recorder = Recorder()
    accept = L_DicomCreateAssociate(False)
    assert L_DicomSendAssociateRequest(recorder.handle, request_pdu) == DICOM_ERROR_STATE
    assert L_DicomSendAssociateRequest(recorder.handle, accept) == DICOM_ERROR_PARAMETER
    assert L_DicomSendAssociateAccept(recorder.handle, accept) == DICOM_ERROR_STATE
    assert L_DicomSendAssociateAccept(recorder.handle, request_pdu) == DICOM_ERROR_PARAMETER
    assert L_DicomSendAssociateReject(recorder.handle, 1, 1, 1) == DICOM_ERROR_STATE
    assert L_DicomSendReleaseRequest(recorder.handle) == DICOM_ERROR_STATE
    assert L_DicomSendReleaseResponse(recorder.handle) == DICOM_ERROR_STATE
    check(L_DicomSendAbort(recorder.handle, 0, 0))
    assert not L_DicomIsAssociated(recorder.handle)
    check(L_DicomListen(recorder.handle, "127.0.0.1", 0, 1))
    assert L_DicomListen(recorder.handle, "127.0.0.1", 0, 1) == DICOM_ERROR_STATE
    assert L_DicomConnect(recorder.handle, None, 0, "127.0.0.1", 1) == DICOM_ERROR_STATE
    L_DicomFreeAssociate(accept)
    recorder.free()


def test_an_echo_is_asked_and_answered_in_the_documented_order(request_pdu: Any) -> None:
    with established(request_pdu, echo=answer_echo) as (requestor, acceptor):
        requestor.events.clear()
        acceptor.events.clear()
        check(L_DicomSendCEchoRequest(requestor.handle, 1, 0xFFFF, None))
        assert requestor.until("echoed") == [
            ("receive", 0, 4, 90),
            ("data", 1, 3, 78),
            ("echoed", 1, 0xFFFF, 0x0122),
        ]
        assert acceptor.events == [
            ("receive", 0, 4, 80),
            ("data", 1, 3, 68),
            ("echo", 1, 0xFFFF),
        ]


def test_an_echo_of_another_class_carries_its_uid(request_pdu: Any) -> None:
    seen: list[bytes] = []
    with established(request_pdu, echo=lambda h, i, m, name, _: seen.append(ffi.string(name))) as (
        requestor,
        acceptor,
    ):
        assert L_DicomSendCEchoRequest(requestor.handle, 1, 1, "1..2") == DICOM_ERROR_PARAMETER
        assert L_DicomSendCEchoRequest(requestor.handle, 1, 1, "1" * 65) == DICOM_ERROR_PARAMETER
        assert L_DicomSendCEchoRequest(requestor.handle, 3, 1, None) == DICOM_ERROR_PARAMETER
        check(L_DicomSendCEchoRequest(requestor.handle, 1, 1, "1.2.3"))
        acceptor.until("echo")
    assert seen == [b"1.2.3"]


def test_both_sides_can_read_the_negotiated_values() -> None:
    pdu = L_DicomCreateAssociate(True)
    for ident, abstract in ((1, VERIFICATION), (3, "1.2.3")):
        check(L_DicomAddPresentation(pdu, ident, 0, abstract))
        check(L_DicomAddTransfer(pdu, ident, "1.2.840.10008.1.2"))
    check(L_DicomDefaultAssociate(pdu))

    def accept_one(hNet: Any, hPDU: Any, _: Any) -> None:
        answer = L_DicomCreateAssociate(False)
        check(L_DicomDefaultAssociate(answer))
        check(L_DicomAddPresentation(answer, 3, PDU_ACCEPT_RESULT_SUCCESS, None))
        check(L_DicomAddTransfer(answer, 3, "1.2.840.10008.1.2"))
        assert L_DicomGetAssociate(hNet) is None
        check(L_DicomSendAssociateAccept(hNet, answer))
        L_DicomFreeAssociate(answer)

    with established(pdu, accept_one) as ends:
        for end in ends:
            agreed = L_DicomGetAssociate(end.handle)
            idents = [L_DicomGetPresentation(agreed, n) for n in range(2)]
            assert sorted(idents) == [1, 3]
            assert [L_DicomGetResult(agreed, i) for i in (1, 3)] == [1, 0]
            assert [L_DicomGetAbstract(agreed, i) for i in (1, 3)] == [VERIFICATION, "1.2.3"]
            assert L_DicomFindAbstract(agreed, "1.2.3") == 3
            assert L_DicomGetTransfer(agreed, 3, 0) == "1.2.840.10008.1.2"
    assert L_DicomGetAssociate(None) is None
    L_DicomFreeAssociate(pdu)


def test_roles_extended_information_window_and_identity_pass_through_both_ways() -> None:
    pdu = L_DicomCreateAssociate(True)
    assert L_DicomGetAsyncOperations(pdu) == (False, 1, 1)
    assert L_DicomGetRoleSelect(pdu, "1.2.3") == (False, True, False)
    assert L_DicomGetExtended(pdu, "1.2.3") is L_DicomGetUserIdentity(pdu) is None
    check(L_DicomDefaultAssociate(pdu))
    for identity in ((0, False, b"x", b""), (6, False, b"x", b""), (1, False, b"x", b"y")):
        assert L_DicomSetUserIdentity(pdu, *identity) == DICOM_ERROR_PARAMETER
    assert L_DicomSetRoleSelect(pdu, "1..3", True, True) == DICOM_ERROR_PARAMETER
    for _ in range(2):  # the second call replaces the values
        check(L_DicomSetUserIdentity(pdu, PDU_IDENTITY_PASSCODE, True, b"na\0me", b"secret"))
        for uid in ("1.2.4", "1.2.3"):
            check(L_DicomSetExtended(pdu, uid, b"\0" + uid.encode()))
            check(L_DicomSetRoleSelect(pdu, uid, uid == "1.2.3", True))
        check(L_DicomSetAsyncOperations(pdu, 0, 65535))
    seen: dict[str, Any] = {}

    def asked(hPDU: Any) -> list[Any]:
        return [
            L_DicomGetAsyncOperations(hPDU),
            [L_DicomGetRoleSelect(hPDU, uid) for uid in ("1.2.3", "1.2.4", "1.2.5")],
            [L_DicomGetExtended(hPDU, uid) for uid in ("1.2.3", "1.2.4", "1.2.5")],
            L_DicomGetUserIdentity(hPDU),
        ]

    def answer(hNet: Any, hPDU: Any, _: Any) -> None:
        seen["request"] = asked(hPDU)
        pdu = L_DicomCreateAssociate(False)
        check(L_DicomDefaultAssociate(pdu))
        check(L_DicomSetUserIdentity(pdu, 0, False, b"ticket"))
        check(L_DicomSetExtended(pdu, "1.2.3", b""))
        check(L_DicomSetRoleSelect(pdu, "1.2.3", True, False))
        check(L_DicomSetAsyncOperations(pdu, 1, 2))
        check(L_DicomSendAssociateAccept(hNet, pdu))
        L_DicomFreeAssociate(pdu)

    with established(pdu, answer) as (requestor, _):
        seen["accept"] = asked(L_DicomGetAssociate(requestor.handle))
    assert seen == {
        "request": [
            (True, 0, 65535),
            [(True, True, True), (True, False, True), (False, True, False)],
            [b"\x001.2.3", b"\x001.2.4", None],
            (PDU_IDENTITY_PASSCODE, True, b"na\0me", b"secret"),
        ],
        "accept": [
            (True, 1, 2),
            [(True, True, False), (False, True, False), (False, True, False)],
            [b"", None, None],
            (0, False, b"ticket", b""),
        ],
    }
    L_DicomFreeAssociate(pdu)


def test_data_of_any_length_arrives_whole_and_each_sent_pdu_is_told(
    request_pdu: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    got = bytearray()
    sent: list[int] = []
    last: list[int] = []

    def on_data(hNet: Any, ident: int, control: int, data: Any, size: int, _: Any) -> None:
        got.extend(ffi.buffer(data, size))
        last.append(control)

    def on_sent(hNet: Any, nError: int, nType: int, nBytes: int, _: Any) -> None:
        check(nError)
        sent.append(nBytes)

    monkeypatch.setitem(SLOTS, "pfnSend", "sent")
    data = random.Random(1).randbytes(3_000_000)
    with established(request_pdu, data=on_data) as (requestor, acceptor):
        requestor.more["sent"] = on_sent
        check(L_DicomSendData(requestor.handle, 1, 3, b"", 0))
        check(L_DicomSendData(requestor.handle, 1, 0, memoryview(data)[:1_000_000], 1_000_000))
        code = L_DicomSendData(requestor.handle, 1, 2, bytearray(data[1_000_000:]), 2_000_000)
        while code == DICOM_ERROR_BUSY:
            check(L_DicomWait(requestor.handle, 10_000))
            code = L_DicomSendData(requestor.handle, 1, 2, data[1_000_000:], 2_000_000)
        check(code)
        while not last or not last[-1] & 2 or len(got) < len(data):
            check(L_DicomWait(acceptor.handle, 10_000))
        L_DicomBreathe()
    assert got == data
    assert [control for control in last if control & 2] == [3, 2]
    fragments = [16378] * 61 + [942] + [16378] * 122 + [1884]
    assert sent[-186:] == [12 + size for size in [0, *fragments]]


def test_sending_in_each_send_callback_does_not_delay_other_handles(request_pdu: Any) -> None:
    def on_send(hNet: Any, nError: int, nType: int, *_: Any) -> None:
        if nType == 4 and len(sent) < most:
            sent.append(nError)
            check(L_DicomSendData(hNet, 1, 0, b"ab", 2))

    most, sent = 5000, list[int]()
    with established(request_pdu) as (requestor, _):
        check(L_DicomSetCallback(requestor.handle, {"pfnSend": on_send}))
        check(L_DicomSendData(requestor.handle, 1, 3, b"ab", 2))
        L_DicomBreathe()
        assert 0 < len(sent) < most / 2
        assert set(sent) == {DICOM_SUCCESS}


def test_sending_in_each_send_callback_does_not_stop_receiving(request_pdu: Any) -> None:
    def on_send(hNet: Any, nError: int, nType: int, *_: Any) -> None:
        if nType == 4 and nError == DICOM_SUCCESS and len(sent) < most:
            sent.append(L_DicomSendData(hNet, 1, 0, b"ab", 2))

    def abort(hNet: Any, *_: Any) -> None:
        check(L_DicomSendAbort(hNet, 0, 0))

    most, sent, aborts = 20_000, list[int](), []
    with established(request_pdu, data=abort) as (requestor, _):
        slots = {"pfnSend": on_send, "pfnReceiveAbort": lambda *a: aborts.append(len(sent))}
        check(L_DicomSetCallback(requestor.handle, slots))
        check(L_DicomSendData(requestor.handle, 1, 3, b"ab", 2))
        while not aborts:
            check(L_DicomWait(requestor.handle, 10_000))
    assert aborts[0] < most / 2


def test_data_that_cannot_be_sent_is_refused_and_changes_nothing(request_pdu: Any) -> None:
    unused = Recorder()
    assert L_DicomSendData(unused.handle, 1, 3, b"ab", 2) == DICOM_ERROR_STATE
    assert L_DicomSendCEchoRequest(unused.handle, 1, 1, None) == DICOM_ERROR_STATE
    unused.free()
    assert L_DicomSendData(unused.handle, 1, 3, b"ab", 2) == DICOM_ERROR_HANDLE
    with established(request_pdu, echo=answer_echo) as (requestor, _):
        with pytest.raises(ValueError, match="are no"):
            L_DicomSendData(requestor.handle, 1, 3, b"ab", 4)
        assert lib.L_DicomSendData(requestor.handle, 1, 3, ffi.NULL, 2) == DICOM_ERROR_PARAMETER
        for ident, control, size in ((3, 3, 2), (2, 3, 2), (1, 4, 2), (1, 3, 1)):
            code = L_DicomSendData(requestor.handle, ident, control, b"abc", size)
            assert code == DICOM_ERROR_PARAMETER
        assert L_DicomSendData(requestor.handle, 1, 2, b"ab", 2) == DICOM_ERROR_STATE
        check(L_DicomSendCEchoRequest(requestor.handle, 1, 7, None))
        assert requestor.until("echoed")[-1] == ("echoed", 1, 7, 0x0122)


def test_a_silent_peer_is_ended_at_the_deadline_of_the_state(
    raw_request: bytes, request_pdu: Any
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        requestor = Requestor(server, request_pdu)
        assert requestor.events == []
        requestor.peer.close()
        requestor.until("close")
        requestor.events.clear()
        check(L_DicomSetTimeouts(requestor.handle, 100, 100, 0))
        check(L_DicomConnect(requestor.handle, None, 0, *server.getsockname()))
        check(L_DicomSendAssociateRequest(requestor.handle, request_pdu))
        start = time.monotonic()
        late = ("receive", DICOM_ERROR_TIMEOUT, 0, 0)
        assert requestor.until("close") == [("connect", 0), late, ("close", DICOM_ERROR_TIMEOUT)]
        assert 0.19 < time.monotonic() - start < TIMEOUT / 2
        requestor.free()
    acceptor = Acceptor(request=accept_all)
    with socket.create_connection(acceptor.address, 10) as peer:
        acceptor.until("accept")
        child = acceptor.children[0]
        check(L_DicomSetTimeouts(child.handle, 0, 0, 100))
        peer.sendall(raw_request)
        child.until("request", "receive")
        assert receive_pdu(peer)[:1] == b"\x02"
        while ("receive", DICOM_ERROR_TIMEOUT, 0, 0) not in child.events:
            check(L_DicomWait(child.handle, 10_000))
        assert decode(receive_pdu(peer)) == Abort(0, 0)
    assert child.until("close")[-1] == ("close", DICOM_ERROR_TIMEOUT)
    acceptor.free()


@pytest.mark.slow
def test_an_answer_received_in_time_counts_when_it_is_read_late(
    server: socket.socket, request_pdu: Any
) -> None:
    requestor = Recorder()
    check(L_DicomSetTimeouts(requestor.handle, 0, 200, 0))
    check(L_DicomConnect(requestor.handle, None, 0, *server.getsockname()))
    requestor.until("connect")
    check(L_DicomSendAssociateRequest(requestor.handle, request_pdu))
    with server.accept()[0] as peer:
        receive_pdu(peer)
        peer.sendall(REJECT)
        time.sleep(0.4)
        assert requestor.until("close")[1:] == ORDER
    requestor.free()


def test_a_connection_that_is_not_established_in_time_is_told() -> None:
    with socket.socket() as full:  # the system does not answer, since the backlog is full
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        waiting = [socket.socket() for _ in range(4)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(full.getsockname())
        recorder = Recorder()
        check(L_DicomSetTimeouts(recorder.handle, 0, 100, 0))
        check(L_DicomConnect(recorder.handle, None, 0, *full.getsockname()))
        assert recorder.until("connect") == [("connect", DICOM_ERROR_TIMEOUT)]
        recorder.free()
        for one in waiting:
            one.close()


def test_a_request_for_another_application_context_is_rejected_by_the_provider(
    raw_request: bytes,
) -> None:
    acceptor = Acceptor()
    for wire in (
        raw_request.replace(b"3.1.1.1", b"3.1.1.2"),
        raw_request.replace(b"\x10", b"\x11", 1),
    ):
        with socket.create_connection(acceptor.address, 10) as peer:
            peer.sendall(wire)
            acceptor.until("accept")
            acceptor.events.clear()
            child = acceptor.children[-1]
            for _ in range(3):
                L_DicomWait(child.handle, 20)
            assert decode(receive_pdu(peer)) == AssociateReject(1, 1, 2)
        assert child.until("close") == [("close", 0)]
    acceptor.free()


def test_pdvs_arrive_one_by_one_and_raw(server: socket.socket, request_pdu: Any) -> None:
    got: list[Any] = []

    def on_data(hNet: Any, ident: int, control: int, data: Any, size: int, _: Any) -> None:
        got.append((ident, control, bytes(ffi.buffer(data, size))))

    check(L_DicomDeletePresentation(request_pdu, 1))
    check(L_DicomAddPresentation(request_pdu, 1, 0, "1.2.840.10008.5.1.4.1.1.7"))
    check(L_DicomAddTransfer(request_pdu, 1, "1.2.840.10008.1.2"))
    requestor = Requestor(server, request_pdu, data=on_data)
    requestor.peer.sendall(ACCEPT)
    requestor.until("accepted")
    pdvs = (PDV(1, True, True, b"ab"), PDV(1, False, False, b""), PDV(1, False, True, b"cdef"))
    requestor.peer.sendall(encode(DataTransfer(pdvs)))
    requestor.until("data")
    assert got == [(1, 3, b"ab"), (1, 0, b""), (1, 2, b"cdef")]
    requestor.peer.sendall(bytes.fromhex("04000000400100004001 0103") + bytes(16383))
    while requestor.events[-1][:3] != ("receive", DICOM_ERROR_PROTOCOL, 4):
        check(L_DicomWait(requestor.handle, 10_000))  # a PDU above the announced length
    assert decode(receive_pdu(requestor.peer)) == Abort(2, 6)
    requestor.peer.close()
    assert requestor.until("close")[-1] == ("close", DICOM_ERROR_PROTOCOL)
    requestor.free()


# ---- many rejections, and threads --------------------------------------------------------------


def reject_many(count: int, seed: int) -> int:
    """Send `count` rejections in one thread; return how many arrived unchanged and in order."""
    choose, right = random.Random(seed), 0
    sent: tuple[int, int, int] = (0, 0, 0)
    events: list[Any] = []
    pdu = L_DicomCreateAssociate(True)
    check(L_DicomDefaultAssociate(pdu))
    listener, requestor = (L_DicomCreateNet(None, DICOM_SECURE_NONE) for _ in range(2))

    def on_accept(hNet: Any, nError: int, _: Any) -> None:
        child = L_DicomCreateNet(None, DICOM_SECURE_NONE)
        slots = {"pfnReceiveAssociateRequest": on_request, "pfnClose": on_child_close}
        check(L_DicomSetCallback(child, slots))
        check(L_DicomAccept(hNet, child))

    def on_request(hNet: Any, hPDU: Any, _: Any) -> None:
        check(L_DicomSendAssociateReject(hNet, *sent))

    def on_child_close(hNet: Any, nError: int, _: Any) -> None:
        L_DicomFreeNet(hNet)

    slots = {
        "pfnConnect": lambda h, e, _: check(L_DicomSendAssociateRequest(h, pdu)),
        "pfnReceive": lambda h, e, kind, *_: events.append((e, kind)),
        "pfnReceiveAssociateReject": pEXT_CALLBACK("RECEIVEASSOCIATEREJECTCALLBACK")(
            lambda h, *a: events.append(a[:3])
        ),
        "pfnClose": lambda h, e, _: events.append(e),
    }
    check(L_DicomSetCallback(listener, {"pfnAccept": on_accept}))
    check(L_DicomListen(listener, "127.0.0.1", 0, 1))
    check(L_DicomSetCallback(requestor, slots))
    address = L_DicomGetHostInfo(listener)
    for _ in range(count):
        sent = choose.choice(DEFINED)
        events.clear()
        check(L_DicomConnect(requestor, None, 0, *address))
        while not events or type(events[-1]) is not int:
            assert L_DicomWait(requestor, 10_000) == DICOM_SUCCESS, events
        right += events == [(0, 3), sent, 0]
    for _ in range(20):
        L_DicomBreathe()
    L_DicomFreeNet(requestor)
    L_DicomFreeNet(listener)
    L_DicomFreeAssociate(pdu)
    return right


@pytest.mark.slow
def test_ten_thousand_rejections_arrive_and_leave_no_handle() -> None:
    assert reject_many(500, seed=1) == 500
    files, memory = len(os.listdir("/proc/self/fd")), memory_in_use()
    begun = time.monotonic()
    assert reject_many(10_000, seed=2) == 10_000
    print(f"10000 rejections in {time.monotonic() - begun:.1f} s, 0 lost, 0 wrong")
    assert len(os.listdir("/proc/self/fd")) == files
    assert memory_in_use() - memory < memory_allowed(2 << 20)
    assert not l_dicom._thread.handles
    assert not l_dicom._user_data


def test_each_thread_has_its_own_handles_and_loop() -> None:
    results: list[int] = []
    threads = [
        threading.Thread(target=lambda n=n: results.append(reject_many(200, n))) for n in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [200] * 4


# ---- the names ---------------------------------------------------------------------------------


def test_every_function_and_constant_of_the_header_is_there() -> None:
    names = {n for n in dir(lib) if n.startswith(("L_Dicom", "PDU_", "DICOM_", "COMMAND_"))}
    assert names <= set(l_dicom.__all__)
    assert all(hasattr(l_dicom, name) for name in l_dicom.__all__)


def test_constants_of_command_sets_have_the_values_of_the_standard() -> None:
    priorities = [COMMAND_PRIORITY_MEDIUM, COMMAND_PRIORITY_HIGH, COMMAND_PRIORITY_LOW]
    assert priorities == [0, 1, 2]
    assert COMMAND_PRIORTY_HIGH == COMMAND_PRIORITY_HIGH
    assert (COMMAND_STATUS_SUCCESS, COMMAND_STATUS_PENDING) == (0, 0xFF00)
    assert (COMMAND_DATASET_PRESENT, COMMAND_DATASET_ABSENT) == (0, 0x0101)


def test_every_error_code_has_a_text() -> None:
    codes = [getattr(lib, n) for n in dir(lib) if n.startswith("DICOM_ERROR_")]
    assert len({L_DicomErrorText(code) for code in codes}) == len(codes)
    assert L_DicomErrorText(-1) == L_DicomErrorText(1000) == "unknown error"
