"""Failures of system calls and allocations, and the end of connections in every state."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from ltdic import ReleaseRequest, ReleaseResponse, encode
from ltdic.l_dicom import *  # noqa: F403
from support.l_dicom import Acceptor, Recorder, Requestor, check
from support.paths import TESTS
from support.pdus import MINIMAL_ACCEPT as ACCEPT
from support.process import descriptors
from support.sockets import TIMEOUT, close_with_reset, receive_pdu
from support.toolchain import COMPILERS, Toolchain, linux_toolchain_or_skip, run
from support.uids import IMPLICIT

pytestmark = pytest.mark.slow

# ruff: noqa: F405

C = TESTS / "c"

# ---- injected failures -------------------------------------------------------------------------


@pytest.fixture(scope="module", params=[*COMPILERS, "gcc -DLTDIC_POLL"])
def sockets_toolchain(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Any:
    """Each compiler with epoll, and one with poll(2)."""
    why = "the programs need ld --wrap and epoll"
    return linux_toolchain_or_skip(request.param, tmp_path_factory.mktemp("faults"), why)


@pytest.mark.parametrize(("program", "least"), [("faults.c", 31), ("faults_server.c", 17)])
def test_every_injected_fault_is_reported_and_leaves_nothing(
    sockets_toolchain: Toolchain, program: str, least: int
) -> None:
    wrapped = set(re.findall(r"\b__wrap_(\w+)\(", (C / "inject.h").read_text()))
    wraps = [f"-Wl,--wrap={name}" for name in sorted(wrapped)]
    printed = run(sockets_toolchain.program(C / program, "c11", *wraps))
    print(printed, end="")
    counts = dict(re.findall(r"(.+): (\d+) injections\n", printed))
    assert len(counts) == len(printed.splitlines()) >= least
    assert all(int(count) > 0 for count in counts.values())


def test_a_segment_that_leaves_a_message_unfinished_is_acknowledged_at_once(
    sockets_toolchain: Toolchain,
) -> None:
    """Otherwise a peer with Nagle's algorithm waits for the delayed acknowledgement. The C program
    checks the first messages, and a peer that was seen to wait."""
    wraps = ("-Wl,--wrap=setsockopt", "-Wl,--wrap=clock_gettime", "-D_GNU_SOURCE")
    run(sockets_toolchain.program(C / "quick_ack.c", "c11", *wraps))


# ---- a connection that ends in each state (PS3.8 9.2.1) ----------------------------------------

RELEASE_RQ, RELEASE_RP = encode(ReleaseRequest()), encode(ReleaseResponse())
End = tuple[Recorder, socket.socket]


@contextmanager
def associate(*, request: bool) -> Iterator[Any]:
    """Yield a request of the Verification SOP class, or its acceptance."""
    pdu = L_DicomCreateAssociate(request)
    check(L_DicomDefaultAssociate(pdu))
    if not request:
        check(L_DicomAddPresentation(pdu, 1, PDU_ACCEPT_RESULT_SUCCESS, None))
        check(L_DicomAddTransfer(pdu, 1, IMPLICIT))
    yield pdu
    L_DicomFreeAssociate(pdu)


@contextmanager
def requestor_in(state: int) -> Iterator[End]:
    """Yield our requestor in Sta5, 6, 7, 9, 11 or 13, and its peer."""
    with socket.create_server(("127.0.0.1", 0)) as server, associate(request=True) as pdu:
        server.settimeout(TIMEOUT)
        ours = Requestor(server, pdu)
    peer = ours.peer
    if state != 5:
        peer.sendall(ACCEPT)
        ours.until("accepted")
    if state in (7, 9, 11):
        check(L_DicomSendReleaseRequest(ours.handle))
        assert receive_pdu(peer) == RELEASE_RQ
    if state in (9, 11):
        peer.sendall(RELEASE_RQ)
        ours.until("release")
    if state == 11:
        check(L_DicomSendReleaseResponse(ours.handle))
        assert receive_pdu(peer) == RELEASE_RP
    if state == 13:
        check(L_DicomSendAbort(ours.handle, PDU_ABORT_SOURCE_USER, 0))
        assert receive_pdu(peer)[0] == PDU_ABORT
    with peer:
        yield ours, peer
    ours.free()


def raw_request() -> bytes:
    with requestor_in(5) as (ours, _):
        assert isinstance(ours, Requestor)
        return ours.request


@contextmanager
def acceptor_in(state: int) -> Iterator[End]:
    """Yield our acceptor in Sta2, 3, 6, 7, 8, 10, 12 or 13, and its peer."""
    request = raw_request()
    acceptor = Acceptor()
    with socket.create_connection(acceptor.address, TIMEOUT) as peer:
        acceptor.until("accept")
        ours = acceptor.children[0]
        if state != 2:
            peer.sendall(request)
            ours.until("request")
        if state == 13:
            check(L_DicomSendAssociateReject(ours.handle, 1, 1, 1))
            assert receive_pdu(peer)[0] == PDU_ASSOCIATE_REJECT
        elif state > 3:
            accept_and_go_on(state, ours, peer)
        yield ours, peer
    acceptor.free()


def accept_and_go_on(state: int, ours: Recorder, peer: socket.socket) -> None:
    with associate(request=False) as pdu:
        check(L_DicomSendAssociateAccept(ours.handle, pdu))
    assert receive_pdu(peer)[0] == PDU_ASSOCIATE_ACCEPT
    if state in (7, 10, 12):
        check(L_DicomSendReleaseRequest(ours.handle))
        assert receive_pdu(peer) == RELEASE_RQ
    if state in (8, 10, 12):
        peer.sendall(RELEASE_RQ)
        ours.until("release")
    if state == 12:
        peer.sendall(RELEASE_RP)
        ours.until("released")


def half_close(peer: socket.socket) -> None:
    peer.shutdown(socket.SHUT_WR)


ENDS = [close_with_reset, socket.socket.close, half_close]
STATES = [
    *[pytest.param(requestor_in, state, id=f"requestor-Sta{state}") for state in (5, 6, 7, 9, 11)],
    *[pytest.param(acceptor_in, state, id=f"acceptor-Sta{state}") for state in (2, 3, 6, 7, 8)],
    *[pytest.param(acceptor_in, state, id=f"acceptor-Sta{state}") for state in (10, 12, 13)],
    pytest.param(requestor_in, 13, id="requestor-Sta13"),
]


@pytest.mark.parametrize("end", ENDS, ids=["reset", "close", "half-close"])
@pytest.mark.parametrize(("bring", "state"), STATES)
def test_a_connection_that_ends_is_told_once_in_every_state(
    bring: Callable[[int], Any], state: int, end: Callable[[socket.socket], None]
) -> None:
    before = descriptors()
    with bring(state) as (ours, peer):
        assert L_DicomIsConnected(ours.handle)
        assert bool(L_DicomIsAssociated(ours.handle)) == (6 <= state <= 12)
        ours.events.clear()
        end(peer)
        ours.until("close")
        for _ in range(5):
            L_DicomWait(ours.handle, 1)
        # In Sta13 the association has ended already, by agreement or by us.
        assert ours.events == [("close", DICOM_SUCCESS if state == 13 else DICOM_ERROR_CLOSED)]
        assert not L_DicomIsConnected(ours.handle)
        assert not L_DicomIsAssociated(ours.handle)
        assert L_DicomSendReleaseRequest(ours.handle) == DICOM_ERROR_STATE
        if end is half_close:
            assert peer.recv(1) == b""  # AA-4, AA-5, AR-5 close this end too
    assert descriptors() == before


def test_a_failed_connection_is_not_reported_as_closed() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        nobody = server.getsockname()
    before = descriptors()
    ours = Recorder()
    with associate(request=True) as pdu:
        check(L_DicomConnect(ours.handle, None, 0, *nobody))
        check(L_DicomSendAssociateRequest(ours.handle, pdu))  # Sta4
    ours.until("connect")
    for _ in range(5):
        L_DicomWait(ours.handle, 1)
    assert ours.events == [("connect", DICOM_ERROR_CONNECT)]
    assert not L_DicomIsAssociated(ours.handle)
    ours.free()
    assert descriptors() <= before  # the loop has none left, if this was its only handle
