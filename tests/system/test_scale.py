"""Ten thousand associations at once, stalled peers, limits, and slow callbacks.

Times are printed; the assertions on them find hangs and wrong deadlines alone.
"""

from __future__ import annotations

import re
import resource
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from ltdic import AssociateAccept, AssociateReject, decode
from ltdic.l_dicom import *  # noqa: F403
from support.l_dicom import accept_all, check
from support.paths import TESTS
from support.sockets import LOCALHOST, TIMEOUT, receive_pdu
from support.toolchain import Toolchain, run, toolchain_or_skip

# ruff: noqa: F405

SOURCES = TESTS / "c"
LIMIT_REACHED = AssociateReject(2, 3, 2)


@pytest.fixture(scope="module")
def gcc(tmp_path_factory: pytest.TempPathFactory) -> Toolchain:
    """One compiler, for tests of time and not of the language."""
    return toolchain_or_skip("gcc", tmp_path_factory.mktemp("scale"), cxx=False)


# ---- programs ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_ten_thousand_associations_are_open_at_once(toolchain: Toolchain) -> None:
    program = toolchain.program(SOURCES / "many.c", "c11")
    allowed = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    count = 10_000 if allowed == resource.RLIM_INFINITY else min(10_000, allowed - 64)
    printed = run(program, str(count))
    print(printed, end="")
    lines = re.findall(r"(\w+): (\d+) open with (\d+) descriptors, (\d+) bytes each", printed)
    assert {line[0] for line in lines} == {"acceptor", "requestor"}
    for _, associations, descriptors, size in lines:
        assert int(associations) == count <= int(descriptors)
        assert int(size) < 4096 or toolchain.flags


@pytest.mark.slow
def test_a_stalled_connection_is_closed_at_artim_and_delays_no_other(gcc: Toolchain) -> None:
    """The program fails if a connection is closed a millisecond before ARTIM, or seconds after
    it."""
    program = gcc.program(SOURCES / "stalls.c", "c11")
    printed = run(program, "1000", "250", "1")
    print(printed, end="")
    assert printed.count(": 250 closed, ") == 2 * 5
    assert "stalls, as the server saw them: 2500 closed, " in printed
    honest = re.findall(r"^honest, .*: (\d+) associations", printed, re.MULTILINE)
    assert len(honest) == 2
    assert all(int(count) > 100 for count in honest)


# ---- both ends in Python -------------------------------------------------------------------------


class Server:
    """Accepts all, answers C-ECHO and release, and frees closed handles."""

    def __init__(self, artim: int = 0, **more: Any) -> None:
        self.artim, self.accepted, self.handles = artim, 0, set[Any]()
        self.slots = {
            "pfnReceiveAssociateRequest": accept_all,
            "pfnReceiveCEchoRequest": self.on_echo,
            "pfnReceiveReleaseRequest": lambda h, _: check(L_DicomSendReleaseResponse(h)),
            "pfnClose": self.on_close,
            **more,
        }
        self.listener = L_DicomCreateNet(None, DICOM_SECURE_NONE)
        check(L_DicomSetCallback(self.listener, {"pfnAccept": self.on_accept}))
        check(L_DicomListen(self.listener, LOCALHOST, 0, 1))
        self.address = L_DicomGetHostInfo(self.listener)

    def on_accept(self, hNet: Any, nError: int, _: Any) -> None:
        child = L_DicomCreateNet(None, DICOM_SECURE_NONE)
        check(L_DicomSetCallback(child, self.slots))
        check(L_DicomSetTimeouts(child, self.artim, 0, 0))
        check(L_DicomAccept(hNet, child))
        self.handles.add(child)
        self.accepted += 1

    def on_echo(self, hNet: Any, context: int, message: int, sop_class: Any, _: Any) -> None:
        check(L_DicomSendCEchoResponse(hNet, context, message, sop_class, 0))

    def on_close(self, hNet: Any, nError: int, _: Any) -> None:
        self.handles.discard(hNet)
        L_DicomFreeNet(hNet)

    def wait(self) -> None:
        L_DicomWait(self.listener, 5)

    def free(self) -> None:
        for handle in [*self.handles, self.listener]:
            L_DicomFreeNet(handle)


@contextmanager
def serving(artim: int = 0, **more: Any) -> Iterator[Server]:
    server = Server(artim, **more)
    yield server
    server.free()


def pump_until(done: Callable[[], Any], pump: Callable[[], Any] = L_DicomBreathe) -> Any:
    """Pump until `done` returns something true; return that."""
    end = time.monotonic() + TIMEOUT
    while not (found := done()):
        assert time.monotonic() < end, "too late"
        pump()
    return found


def associate(address: tuple[str, int]) -> None:
    """Have an association with a C-ECHO, from connection to close, by L_DicomBreathe alone."""
    closed: list[int] = []
    pdu = L_DicomCreateAssociate(True)
    check(L_DicomDefaultAssociate(pdu))

    def on_echo_response(hNet: Any, context: int, message: int, *rest: Any) -> None:
        assert (context, message, rest[1]) == (1, 7, 0)
        check(L_DicomSendReleaseRequest(hNet))

    net = L_DicomCreateNet(None, DICOM_SECURE_NONE)
    slots = {
        "pfnConnect": lambda h, e, _: check(L_DicomSendAssociateRequest(h, pdu)),
        "pfnReceiveAssociateAccept": lambda h, *_: check(L_DicomSendCEchoRequest(h, 1, 7, None)),
        "pfnReceiveCEchoResponse": on_echo_response,
        "pfnClose": lambda h, e, _: closed.append(e),
    }
    check(L_DicomSetCallback(net, slots))
    check(L_DicomConnect(net, None, 0, *address))
    pump_until(lambda: closed)
    assert closed == [DICOM_SUCCESS]
    L_DicomFreeNet(net)
    L_DicomFreeAssociate(pdu)


@pytest.fixture(scope="module")
def request_bytes() -> bytes:
    """The bytes of an A-ASSOCIATE-RQ."""
    pdu = L_DicomCreateAssociate(True)
    check(L_DicomDefaultAssociate(pdu))
    net = L_DicomCreateNet(None, DICOM_SECURE_NONE)
    with socket.create_server((LOCALHOST, 0)) as server:
        check(L_DicomConnect(net, None, 0, *server.getsockname()))
        check(L_DicomSendAssociateRequest(net, pdu))
        connection, _ = server.accept()
        connection.settimeout(TIMEOUT)
        with connection:
            L_DicomWait(net, 1000 * TIMEOUT)
            wire = receive_pdu(connection)
    L_DicomFreeNet(net)
    L_DicomFreeAssociate(pdu)
    return wire


# ---- limits --------------------------------------------------------------------------------------


class Callers:
    """Raw sockets connected to one server."""

    def __init__(self, server: Server, stack: ExitStack) -> None:
        self.server, self.stack = server, stack

    def call(self, wire: bytes) -> socket.socket:
        peer = self.stack.enter_context(socket.create_connection(self.server.address, TIMEOUT))
        peer.sendall(wire)
        return peer

    def answer_to(self, peer: socket.socket) -> Any:
        """Return the PDU that the server sends to this peer."""
        pump_until(lambda: select.select([peer], [], [], 0)[0], self.server.wait)
        return decode(receive_pdu(peer))

    def are_accepted(self, peers: list[socket.socket]) -> bool:
        return all(isinstance(self.answer_to(peer), AssociateAccept) for peer in peers)

    def no_other_is_accepted(self, count: int) -> bool:
        for _ in range(5):
            self.server.wait()
        return self.server.accepted == count


@contextmanager
def limited(associations: int, connections: int, artim: int = 0) -> Iterator[Callers]:
    with serving(artim) as server, ExitStack() as stack:
        check(L_DicomSetLimits(server.listener, associations, connections))
        yield Callers(server, stack)


def test_stalled_connections_do_not_count_as_associations(request_bytes: bytes) -> None:
    with limited(3, 0) as callers:
        for size in (0, 3, 6, len(request_bytes) // 2) * 25:
            callers.call(request_bytes[:size])
        pump_until(lambda: callers.server.accepted == 100, callers.server.wait)
        served = [callers.call(request_bytes) for _ in range(3)]
        assert callers.are_accepted(served)
        for _ in range(3):
            assert callers.answer_to(callers.call(request_bytes)) == LIMIT_REACHED
        served[0].close()
        assert callers.no_other_is_accepted(106)
        assert callers.are_accepted([callers.call(request_bytes)])
        assert callers.answer_to(callers.call(request_bytes)) == LIMIT_REACHED


def test_connections_beyond_the_limit_wait_until_others_are_closed(request_bytes: bytes) -> None:
    with limited(0, 3) as callers:
        peers = [callers.call(request_bytes) for _ in range(8)]
        for served, count in ((peers[:3], 3), (peers[3:6], 6), (peers[6:], 8)):
            assert callers.are_accepted(served)
            assert callers.no_other_is_accepted(count)
            for peer in served:
                peer.close()


def test_a_connection_behind_stalled_ones_is_served_at_artim(request_bytes: bytes) -> None:
    with limited(0, 2, artim=300) as callers:
        begun = time.monotonic()
        stalls = [callers.call(request_bytes[:size]) for size in (0, 3)]
        honest = callers.call(request_bytes)
        assert callers.are_accepted([honest])
        assert 0.299 < time.monotonic() - begun < TIMEOUT / 2  # deadlines are whole milliseconds
        pump_until(lambda: len(callers.server.handles) == 1, callers.server.wait)
        assert [stall.recv(1) for stall in stalls] == [b"", b""]


# ---- slow callbacks ------------------------------------------------------------------------------


def test_a_blocking_callback_delays_no_other_thread(request_bytes: bytes) -> None:
    begun, others, ended = threading.Event(), threading.Event(), threading.Event()
    waited: list[bool] = []

    def on_request(hNet: Any, *_: Any) -> None:
        begun.set()
        waited.append(others.wait(TIMEOUT))
        ended.set()

    def block() -> None:
        with serving(pfnReceiveAssociateRequest=on_request) as server, ExitStack() as stack:
            Callers(server, stack).call(request_bytes)
            pump_until(ended.is_set, server.wait)

    with serving() as server:
        thread = threading.Thread(target=block)
        thread.start()
        assert begun.wait(TIMEOUT)
        for _ in range(10):
            associate(server.address)
        others.set()
        thread.join()
    assert waited == [True]  # it returned before its own timeout


def test_a_callback_that_breathes_serves_the_other_handles_meanwhile(request_bytes: bytes) -> None:
    order: list[str] = []

    def on_request(hNet: Any, *_: Any) -> None:
        order.append("begun")
        for _ in range(10):
            associate(others.address)
            order.append("other")
        order.append("ended")

    slots = {
        "pfnReceiveAssociateRequest": on_request,
        "pfnClose": lambda h, e, _: order.append("closed"),
    }
    with serving() as others, serving(**slots) as server, ExitStack() as stack:
        Callers(server, stack).call(request_bytes).close()  # its close must wait
        pump_until(lambda: "closed" in order)
    assert order == ["begun", *["other"] * 10, "ended", "closed"]
