"""A transport of the user's, TLS, at an endpoint that connects, and at one that adopts."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Iterator
from typing import Any

import pytest

from ltdic import Admission, encode, ffi, lib
from ltdic._native import transport
from ltdic.pdu import (
    AssociateAccept,
    AssociateReject,
    AssociateRequest,
    ContextResult,
    ProposedContext,
)
from ltdic.tls import TlsTransport
from support.pdus import p_data
from support.servers import serving
from support.sockets import LOCALHOST, TIMEOUT
from support.threads import Background
from support.tls import client_context, server_context

REQUEST = encode(
    AssociateRequest("A", "B", (ProposedContext(1, "1.2.840.10008.1.1", ("1.2.840.10008.1.2",)),))
)
ACCEPT = encode(AssociateAccept("A", "B", (ContextResult(1, 0, "1.2.840.10008.1.2"),)))
REFUSES = {"admission": Admission(called=["OTHER"]), "timeout": TIMEOUT}


class Writing:
    """A transport of plain bytes that once has to write before it reads, and then sends nothing."""

    is_torn = False
    reads = 0

    def open(self, descriptor: int) -> int:
        return transport.DONE

    def read(self, descriptor: int, room: memoryview, size: Any) -> int:
        self.reads += 1
        if self.reads == 2:
            return transport.WANT_WRITE
        return int(lib.ltdic_tcp_read(descriptor, ffi.from_buffer(room), len(room), size))

    def send(self, descriptor: int, parts: list[memoryview], size: Any) -> int:
        if self.reads > 2:
            return transport.WANT_WRITE
        data = b"".join(parts)
        return int(lib.ltdic_tcp_send(descriptor, (ffi.from_buffer(data), len(data)), size))

    def pending(self) -> int:
        return 0

    def close(self, descriptor: int) -> None:
        pass


class Requestor:
    """An endpoint with TLS on a loop of its own; without a context, with `Writing`."""

    def __init__(self, context: ssl.SSLContext | None, timeout: int = 1000 * TIMEOUT) -> None:
        self.loop = lib.ltdic_loop_new()
        self.net = lib.ltdic_net_new(self.loop, ffi.NULL)
        self.transports = transport.Transports(lambda: lambda: lib.ltdic_loop_wake(self.loop))
        self.tls: Any = (
            Writing() if context is None else TlsTransport(context, "localhost", transport.Wire())
        )
        state = transport.pointer_of(self.transports.add(self.tls))
        lib.ltdic_net_set_transport(self.net, transport.TABLE, state)
        size = ffi.sizeof("ltdic_timeouts")
        times = ffi.new("ltdic_timeouts *", (size, timeout, timeout, 0))
        lib.ltdic_net_set_timeouts(self.net, times)

    def connect(self, address: tuple[str, int]) -> None:
        host = ffi.new("char[]", address[0].encode())
        where = ffi.new("ltdic_address *", (host, address[1], lib.LTDIC_IP_V4))
        assert lib.ltdic_net_connect(self.net, where, ffi.NULL) == lib.LTDIC_OK

    def send(self, pdu: bytes) -> None:
        raw = ffi.from_buffer(pdu)
        assert lib.ltdic_net_send(self.net, (raw, len(raw))) == lib.LTDIC_OK

    def next(self) -> tuple[int, int, bytes]:
        """Return kind, status and PDU of the next indication other than LTDIC_SENT."""
        net, indication = ffi.new("ltdic_net **"), ffi.new("ltdic_indication *")
        end = time.monotonic() + TIMEOUT
        while time.monotonic() < end:
            while lib.ltdic_loop_next(self.loop, net, indication) == lib.LTDIC_OK:
                pdu = bytes(ffi.buffer(indication.pdu.data, indication.pdu.size))
                found = int(indication.kind), int(indication.status), pdu
                lib.ltdic_net_done(self.net)
                if found[0] != lib.LTDIC_SENT:
                    return found
            lib.ltdic_loop_wait(self.loop, 100)
        raise TimeoutError


@pytest.fixture
def requestors() -> Iterator[Any]:
    made: list[Requestor] = []

    def make(*arguments: Any) -> Requestor:
        made.append(Requestor(*arguments))
        return made[-1]

    yield make
    for one in made:
        lib.ltdic_loop_free(one.loop)
        assert one.transports.served == {}
        assert one.transports._numbers == set()


def is_rejected(requestor: Requestor) -> None:
    assert requestor.next()[:2] == (lib.LTDIC_CONNECTED, lib.LTDIC_OK)
    requestor.send(REQUEST)
    kind, status, pdu = requestor.next()
    assert (kind, status) == (lib.LTDIC_RECEIVED, lib.LTDIC_OK)
    assert pdu == encode(AssociateReject(1, 1, 7))
    assert requestor.next()[:2] == (lib.LTDIC_CLOSED, lib.LTDIC_OK)


def test_an_endpoint_is_rejected_over_tls_again_and_again(requestors: Any) -> None:
    requestor = requestors(client_context())
    with serving(tls=server_context(), **REFUSES) as server:
        for _ in range(3):
            requestor.connect(server.address)
            is_rejected(requestor)
    assert server.counters.rejected == {("sent", 1, 1, 7): 3}


def test_a_handshake_that_fails_is_a_connection_that_fails(requestors: Any) -> None:
    untrusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    requestor = requestors(untrusting)
    with serving(tls=server_context(), **REFUSES) as server:
        requestor.connect(server.address)
        assert requestor.next()[:2] == (lib.LTDIC_CONNECTED, lib.LTDIC_ERR_CONNECT)
    assert isinstance(requestor.tls.error, ssl.SSLCertVerificationError)
    assert server.counters.tls_failures == 1


def test_a_handshake_that_stalls_ends_with_the_deadline(requestors: Any) -> None:
    requestor = requestors(client_context(), 200)
    with socket.create_server((LOCALHOST, 0)) as silent:
        requestor.connect(silent.getsockname()[:2])
        begun = time.monotonic()
        assert requestor.next()[:2] == (lib.LTDIC_CONNECTED, lib.LTDIC_ERR_TIMEOUT)
        assert 0.15 < time.monotonic() - begun < TIMEOUT / 2


def test_a_peer_that_closes_in_the_handshake_is_a_connection_that_fails(requestors: Any) -> None:
    with socket.create_server((LOCALHOST, 0)) as listener:
        closing = Background(lambda: listener.accept()[0].close())
        requestor = requestors(client_context())
        requestor.connect(listener.getsockname()[:2])
        assert requestor.next()[:2] == (lib.LTDIC_CONNECTED, lib.LTDIC_ERR_CONNECT)
        closing.join()


def test_an_adopted_connection_opens_its_transport_before_the_request_goes(
    requestors: Any,
) -> None:
    requestor = requestors(client_context())
    with serving(tls=server_context(), **REFUSES) as server:
        sock = socket.create_connection(server.address, TIMEOUT)
        event = lib.LTDIC_EVT_CONNECTED
        assert lib.ltdic_net_adopt(requestor.net, sock.detach(), event) == lib.LTDIC_OK
        requestor.send(REQUEST)
        assert requestor.next()[2] == encode(AssociateReject(1, 1, 7))
        assert requestor.next()[0] == lib.LTDIC_CLOSED


def test_a_transport_that_had_to_write_first_reads_while_sending_is_blocked(
    requestors: Any,
) -> None:
    requestor = requestors(None)
    with socket.create_server((LOCALHOST, 0)) as listener:
        requestor.connect(listener.getsockname()[:2])
        assert requestor.next()[:2] == (lib.LTDIC_CONNECTED, lib.LTDIC_OK)
        peer, _ = listener.accept()
        with peer:
            requestor.send(REQUEST)
            peer.sendall(ACCEPT)
            assert requestor.next()[2] == ACCEPT
            for data in (b"ab", b"cd"):
                peer.sendall(p_data(data, True, context=1))
                assert requestor.next()[:2] == (lib.LTDIC_RECEIVED, lib.LTDIC_OK)
                pdv = ffi.new("ltdic_pdv *", (1, 3, (ffi.from_buffer(b"ef"), 2)))
                assert lib.ltdic_net_send_data(requestor.net, pdv) == lib.LTDIC_OK
            assert requestor.tls.reads > 2
