"""Raw requestors for a `Host`: they count their bytes, echo, drip, or read little."""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import cache
from typing import Any

from ltdic import (
    PDU,
    AssociateAccept,
    AssociateRequest,
    ContextResult,
    DataTransfer,
    ProposedContext,
    ReleaseRequest,
    ReleaseResponse,
    UserInformation,
    decode,
    encode,
)
from support.commands import echo_request, elements_of
from support.hosts import Host
from support.pdus import p_data
from support.sockets import TIMEOUT
from support.uids import CT, EXPLICIT, IMPLICIT, VERIFICATION

MIB = 1 << 20
SHORT = 0.5  # s, for timeouts that pass in a test

Script = Callable[[socket.socket], None]

REQUEST = AssociateRequest(
    "HERE",
    "THERE",
    (ProposedContext(1, VERIFICATION, (IMPLICIT,)), ProposedContext(3, CT, (EXPLICIT, IMPLICIT))),
    user_info=UserInformation(16384, "1.2.3"),
)

ACCEPTED = AssociateAccept(
    "HERE",
    "THERE",
    (ContextResult(1, 0, IMPLICIT), ContextResult(3, 0, IMPLICIT)),
    user_info=UserInformation(16384, "1.2.3"),
)


class Peer:
    """A raw requestor that counts its bytes."""

    def __init__(self, host: Host, *first: PDU | bytes) -> None:
        self.socket = socket.create_connection(host.server.address[:2], timeout=TIMEOUT)
        self.address = self.socket.getsockname()
        self.sent = self.received = 0
        self.send(*first)

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, *pdus: PDU | bytes) -> None:
        data = b"".join(pdu if isinstance(pdu, bytes) else encode(pdu) for pdu in pdus)
        self.socket.sendall(data)
        self.sent += len(data)

    def take(self) -> PDU | None:
        """Receive one PDU; None at the end of the connection."""
        head = self.read(6)
        if len(head) < 6:
            return None
        return decode(head + self.read(int.from_bytes(head[2:6], "big")))

    def read(self, size: int) -> bytes:
        data = bytearray()
        with suppress(ConnectionResetError):
            while len(data) < size and (chunk := self.socket.recv(size - len(data))):
                data += chunk
        self.received += len(data)
        return bytes(data)

    def associate(self) -> AssociateAccept:
        accept = self.take()
        assert isinstance(accept, AssociateAccept)
        return accept

    def close(self) -> None:
        self.socket.close()


def peer_releases(host: Host, peer: Peer) -> None:
    peer.send(ReleaseRequest())
    assert peer.take() == ReleaseResponse()
    peer.close()


def take_echo(peer: Peer) -> int:
    """Receive a C-ECHO-RSP; return the message ID that it answers."""
    pdu = peer.take()
    assert isinstance(pdu, DataTransfer), pdu
    elements = elements_of(bytes(pdu.pdvs[0].data))
    assert elements[0x0100] == b"\x30\x80"
    assert elements[0x0900] == b"\0\0"
    return int.from_bytes(elements[0x0120], "little")


def is_served(host: Any) -> float:
    """Have a whole association with one C-ECHO; return its duration in seconds."""
    begun = time.monotonic()
    with Peer(host, REQUEST) as peer:
        peer.associate()
        peer.send(echo_request(7))
        assert take_echo(peer) == 7
        peer_releases(host, peer)
    return time.monotonic() - begun


def has_come(peer: Peer, wait: float = 0) -> bool:
    """Tell whether there is something to read, or the end."""
    return bool(select.select([peer.socket], [], [], wait)[0])


def opened(stack: ExitStack, host: Any, *first: PDU | bytes) -> Peer:
    return stack.enter_context(Peer(host, *first))


def deaf(stack: ExitStack, host: Any, *first: PDU | bytes, window: int = 4096) -> Peer:
    """Return a peer with a small receive buffer that does not read."""
    peer = opened(stack, host)
    peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
    peer.send(*first)
    return peer


MANY = tuple(f"1.2.3.{n}" for n in range(1000, 5600))  # in an item of 64 KiB


def proposing_many() -> bytes:
    """Return a request with a context of 64 KiB."""
    many = ProposedContext(5, CT, MANY)
    return encode(replace(REQUEST, contexts=(*REQUEST.contexts, many)))


@cache
def large_request(count: int) -> bytes:
    """Return a request with so many items of 64 KiB of no known type."""
    body = encode(REQUEST)[6:] + count * (b"\x77\0\xff\xff" + bytes(0xFFFF))
    return b"\1\0" + len(body).to_bytes(4, "big") + body


def largest_request() -> bytes:
    """Return a request of nearly 1 MiB."""
    return large_request(15)


EMPTY = p_data(b"", True, False)  # a fragment without data


def drip(connection: socket.socket) -> None:
    """Send an empty fragment at intervals."""
    with suppress(OSError):
        for _ in range(100):
            connection.sendall(EMPTY)
            time.sleep(SHORT / 5)


def slow(stack: ExitStack, host: Host, window: int = 128 << 10) -> Peer:
    """Return an associated peer with a small receive buffer."""
    peer = deaf(stack, host, REQUEST, window=window)
    peer.associate()
    return peer
