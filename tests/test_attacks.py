"""Attacks over loopback, each small, and what they may not do.

Measured is what does not depend on the machine: what is counted, logged, sent and held, in which
order things happen, and that an honest caller is served meanwhile.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import queue
import resource
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import timeit
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import trustme
from conftest import (
    LOCALHOST,
    TIMEOUT,
    close_with_reset,
    command_set,
    elements_of,
    memory_allowed,
    memory_in_use,
)
from faces import Background, LoopThread, check, new_net
from hosts import (
    CT,
    SERVERS,
    SUPPORTED,
    VERIFICATION,
    Host,
    Peer,
    Serve,
    blocking,
    eventually,
    in_asyncio,
)
from test_descriptors import answered, callers, child, wait_for_answers
from test_faces import raw_acceptor
from test_l_dicom import accept_all
from test_served import EXPLICIT, IMPLICIT, REQUEST, p_data, peer_releases
from test_sync import associated

import ltdic
from ltdic import (
    PDU,
    PDV,
    Abort,
    Admission,
    AssociateAccept,
    AssociateReject,
    AssociateRequest,
    AssociationTimeout,
    ContextResult,
    DataTransfer,
    LocalError,
    ProposedContext,
    ReleaseRequest,
    ReleaseResponse,
    UnknownItem,
    UserInformation,
    _decisions,
    _lib,
    aio,
    decode,
    encode,
)
from ltdic._ffi import lib
from ltdic.l_dicom import *  # noqa: F403

# ruff: noqa: F405

MIB = 1 << 20
SHORT = 0.5  # s, for what is to time out
BUSY, FAILED = AssociateReject(2, 3, 1), AssociateReject(2, 1, 1)


@pytest.fixture(params=SERVERS)
def serve(request: pytest.FixtureRequest) -> Serve:
    return SERVERS[request.param]


# ---- l_dicom -----------------------------------------------------------------------------------


class LDicom:
    """An acceptor of l_dicom, with as much of a `Host` as a raw requestor needs."""

    def __init__(self, associations: int, idle: float) -> None:
        self.server = self
        self.address = LOCALHOST, 0
        self.listening = threading.Event()
        self.is_to_end = False
        self._associations, self._idle = associations, int(1000 * idle)
        self.accepted = 0
        self._nets: set[Any] = set()
        self.closed: Counter[int] = Counter()

    def pump(self) -> None:
        listener = new_net(self, TIMEOUT)
        if self._associations:
            check(L_DicomSetLimits(listener, self._associations, 0))
        check(L_DicomListen(listener, LOCALHOST, 0, 5))
        self.address = L_DicomGetHostInfo(listener)
        self.listening.set()
        while not self.is_to_end:
            L_DicomWait(listener, 10)
        for net in [*self._nets, listener]:
            L_DicomFreeNet(net)

    def on_accept(self, net: Any, error: int, _: object) -> None:
        accepted = new_net(self, TIMEOUT)
        check(L_DicomSetTimeouts(accepted, 1000 * TIMEOUT, 0, self._idle))
        check(L_DicomAccept(net, accepted))
        self.accepted += 1
        self._nets.add(accepted)

    def on_request(self, net: Any, pdu: Any, _: object) -> None:
        accept_all(net, pdu, None)

    def on_echo(self, net: Any, context: int, message: int, uid: Any, _: object) -> None:
        if L_DicomSendCEchoResponse(net, context, message, uid, 0) != DICOM_SUCCESS:
            L_DicomSendAbort(net, 0, 0)

    def on_release(self, net: Any, _: object) -> None:
        check(L_DicomSendReleaseResponse(net))

    def on_close(self, net: Any, error: int, _: object) -> None:
        self.closed[error] += 1
        self._nets.discard(net)
        L_DicomFreeNet(net)


@contextmanager
def in_l_dicom(associations: int = 0, idle: float = 0) -> Iterator[Any]:
    face = LDicom(associations, idle)
    thread = Background(face.pump)
    assert face.listening.wait(TIMEOUT)
    try:
        yield face
    finally:
        face.is_to_end = True
        thread.join()


# ---- callers -----------------------------------------------------------------------------------


def echo_request(number: int, sop_class: str = VERIFICATION) -> bytes:
    """A C-ECHO-RQ (PS3.7 9.3.5.1) in context 1."""
    elements = {0x0002: sop_class, 0x0100: 0x0030, 0x0110: number, 0x0800: 0x0101}
    return encode(p_data(command_set(elements), True, context=1))


def take_echo(peer: Peer) -> int:
    """The number of the message that the next C-ECHO-RSP answers."""
    pdu = peer.take()
    assert isinstance(pdu, DataTransfer), pdu
    elements = elements_of(bytes(pdu.pdvs[0].data))
    assert elements[0x0100] == b"\x30\x80"
    assert elements[0x0900] == b"\0\0"
    return int.from_bytes(elements[0x0120], "little")


def is_served(host: Any) -> float:
    """A whole association with one C-ECHO; the seconds that it took."""
    begun = time.monotonic()
    with Peer(host, REQUEST) as peer:
        peer.associate()
        peer.send(echo_request(7))
        assert take_echo(peer) == 7
        peer_releases(host, peer)
    return time.monotonic() - begun


def has_come(peer: Peer, wait: float = 0) -> bool:
    """Is there something to read, or the end?"""
    return bool(select.select([peer.socket], [], [], wait)[0])


def opened(stack: ExitStack, host: Any, *first: PDU | bytes) -> Peer:
    return stack.enter_context(Peer(host, *first))


def deaf(stack: ExitStack, host: Any, *first: PDU | bytes) -> Peer:
    """One whose system takes little of what it does not read."""
    peer = opened(stack, host)
    peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    peer.send(*first)
    return peer


@pytest.fixture(autouse=True)
def nothing_is_raised_in_a_loop(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """What a callback of a loop raises is an ERROR of asyncio in the log."""
    yield
    for when in ("setup", "call"):
        records = [r for r in caplog.get_records(when) if r.name == "asyncio"]
        assert [r.getMessage() for r in records if r.levelno >= logging.WARNING] == []


# ---- an illegal class of a C-ECHO ----------------------------------------------------------------


@contextmanager
def three_in_each(face: str) -> Iterator[Any]:
    """A server of any face that lets three in."""
    options: Any = {} if face == "l_dicom" else {"max_associations": 3, "on_end": None}
    with in_l_dicom(3) if face == "l_dicom" else SERVERS[face](**options) as host:
        yield host


FACES = [*SERVERS, "l_dicom"]


@pytest.mark.parametrize("behind", [0, 200 << 10])
@pytest.mark.parametrize("face", FACES)
def test_an_echo_of_an_illegal_class_is_aborted_and_its_place_is_free(
    face: str, behind: int
) -> None:
    wire = echo_request(1, "1..2") * 3 + encode(p_data(bytes(1000), True, False)) * (behind // 1000)
    with three_in_each(face) as host, ExitStack() as stack:
        for _ in range(6):  # each keeps its socket open
            peer = opened(stack, host, REQUEST)
            peer.associate()
            peer.send(wire)
            assert peer.take() == Abort(0, 0)
        assert is_served(host) < TIMEOUT / 2
        stack.close()
        if face != "l_dicom":
            eventually(lambda: host.counters.open == 0)
            counters = host.counters
            assert (counters.connections, counters.accepted) == (7, 7)
            assert (counters.aborted, counters.released) == (6, 1)


def test_the_end_of_a_connection_gives_its_place_back_whatever_raises(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_: object) -> None:
        raise RuntimeError("the end fails")

    with in_asyncio(max_associations=1, on_end=None, timeout=3) as host:
        with Peer(host, REQUEST) as peer:
            peer.associate()
            with monkeypatch.context() as patch:
                patch.setattr(ltdic.association.Association, "receive_eof", fail)
                peer.close()
                eventually(lambda: "the end fails" in caplog.text)
        assert is_served(host) < TIMEOUT / 2
    caplog.clear()


# ---- several senders -----------------------------------------------------------------------------


def store_request(number: int) -> bytes:
    """A C-STORE-RQ, as far as it says that a data set follows."""
    return command_set({0x0002: CT, 0x0100: 0x0001, 0x0110: number, 0x0800: 0x0000})


LARGE = 3 * MIB
TIMES = 10


def pairs(association: Any, number: int) -> Iterator[Any]:
    """Send commands, each with its data set."""
    for _ in range(TIMES):
        yield association.send(store_request(number), context=CT, is_command=True)
        yield association.send(bytes([number]) * LARGE, context=CT)


class Pairs:
    """What has come, as pairs of a command and a data set."""

    def __init__(self) -> None:
        self.found: list[tuple[int, int, int]] = []
        """Sender by the command, sender by the data set, and the size of that."""
        self._command, self._data = b"", bytearray()

    def add(self, pdv: PDV) -> None:
        if pdv.is_command:
            self._command += bytes(pdv.data)
            return
        self._data += pdv.data
        if pdv.is_last:
            number = int.from_bytes(elements_of(self._command)[0x0110], "little")
            senders = set(self._data)
            assert len(senders) == 1
            self.found.append((number, senders.pop(), len(self._data)))
            self._command, self._data = b"", bytearray()

    def are_whole(self) -> bool:
        return sorted(self.found) == [(n, n, LARGE) for n in (1, 2) for _ in range(TIMES)]


def test_messages_of_two_senders_of_a_server_are_whole_and_in_pairs(serve: Serve) -> None:
    came = Pairs()
    with (
        serve() as host,
        ltdic.connect(*host.server.address, contexts=[CT], timeout=TIMEOUT) as association,
    ):
        served = host.one()
        for number in (1, 2):
            send = host.handler_of(pairs)
            host.begin(lambda n=number, send=send: send(served, n))
        while len(came.found) < 2 * TIMES:
            pdv = association.receive()
            assert pdv is not None
            came.add(pdv)
    assert came.are_whole()


def test_messages_of_two_tasks_of_a_requestor_are_whole_and_in_pairs() -> None:
    came = Pairs()

    def handler(_: Any, pdv: PDV) -> Iterator[Any]:
        came.add(pdv)
        yield from ()

    async def send_all(host: Host) -> None:
        async def send(number: int) -> None:
            for sending in pairs(association, number):
                await sending

        address = host.server.address
        async with aio.connect(*address, contexts=[CT], timeout=TIMEOUT) as association:
            await asyncio.gather(send(1), send(2))

    with blocking(handler=handler) as host:
        asyncio.run(send_all(host))
    assert came.are_whole()


def test_a_command_without_its_data_set_does_not_hold_others_for_ever(serve: Serve) -> None:
    with (
        serve(timeout=SHORT) as host,
        ltdic.connect(*host.server.address, contexts=[CT], timeout=TIMEOUT) as association,
    ):
        served = host.one()
        send: Callable[[bytes], Any] = lambda data: Background(  # noqa: E731
            lambda: host.do(lambda: served.send(data, context=CT, is_command=True))
        ).join()
        send(store_request(1))
        begun = time.monotonic()
        with pytest.raises(LocalError, match="has sent a command"):
            send(store_request(2))
        assert SHORT * 0.9 < time.monotonic() - begun < TIMEOUT / 2
        assert served.established
        association.abort()
