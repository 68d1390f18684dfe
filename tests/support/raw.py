"""Raw acceptors and requestors: sockets driven by a script."""

from __future__ import annotations

import io
import random
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import ltdic
from ltdic import (
    Abort,
    AssociateAccept,
    AssociateRequest,
    ContextResult,
    DataTransfer,
    ReleaseResponse,
    UserInformation,
    decode,
    encode,
)
from ltdic.admission import propose
from support.faces import PROPOSED
from support.pdus import RELEASE_RQ, p_data
from support.sockets import LOCALHOST, TIMEOUT, receive_exactly_one, receive_pdu
from support.threads import Background
from support.uids import IMPLICIT

ACCEPT = encode(
    AssociateAccept(
        "CALLED",
        "CALLING",
        tuple(ContextResult(c.id, 0, IMPLICIT) for c in propose(PROPOSED[:2])),
        user_info=UserInformation(0, "1.2.3"),
    )
)

REQUEST = encode(
    AssociateRequest(
        "CALLED", "CALLING", propose(PROPOSED), user_info=UserInformation(0x4000, "1.2.3")
    )
)

SHORT = 0.3  # s: a timeout that passes in a test
Script = Callable[[socket.socket], Any]


@contextmanager
def raw_acceptor(script: Script) -> Iterator[tuple[int, Background]]:
    """Read the request of one association, and then run the script."""
    with socket.create_server((LOCALHOST, 0)) as server:
        server.settimeout(TIMEOUT)

        def accept() -> Any:
            connection, _ = server.accept()
            with connection:
                connection.settimeout(TIMEOUT)
                receive_pdu(connection)
                return script(connection)

        thread = Background(accept)
        yield server.getsockname()[1], thread
        thread.join()


@contextmanager
def raw_requestor(port: int) -> Iterator[socket.socket]:
    with socket.create_connection((LOCALHOST, port), TIMEOUT) as connection:
        yield connection


OPTIONS: dict[str, Any] = {
    "called_ae": "CALLED",
    "calling_ae": "CALLING",
    "contexts": PROPOSED[:2],
    "timeout": TIMEOUT,
}


@contextmanager
def associated(
    script: Callable[[socket.socket], Any], **changes: Any
) -> Iterator[tuple[ltdic.SyncAssociation, Background]]:
    """An association with a raw peer that accepts it and then runs the script."""

    def accept_first(connection: socket.socket) -> Any:
        connection.sendall(ACCEPT)
        return script(connection)

    with raw_acceptor(accept_first) as (port, peer):
        association = ltdic.connect(LOCALHOST, port, **{**OPTIONS, **changes})
        try:
            yield association, peer
        finally:
            association.abort()


def read_message(connection: socket.socket) -> tuple[int, bytes]:
    """Read P-DATA-TF up to a last fragment; return their number and the data."""
    count, parts = 0, []
    while True:
        pdu = decode(receive_exactly_one(connection))
        if not isinstance(pdu, DataTransfer):
            raise TypeError(pdu)
        count += 1
        parts += [bytes(pdv.data) for pdv in pdu.pdvs]
        if pdu.pdvs[-1].is_last:
            return count, b"".join(parts)


def drained(connection: socket.socket) -> bytes:
    """Read up to an A-RELEASE-RP or an A-ABORT; return it, or nothing if the connection ends
    first."""
    with suppress(ConnectionResetError):
        while pdu := receive_exactly_one(connection):
            if pdu[0] in (ReleaseResponse.type, Abort.type):
                return pdu
    return b""


BIG = random.Random(7).randbytes(1_500_000)


class Drip(io.RawIOBase):
    """A file that returns an odd number of bytes for each read."""

    def __init__(self, data: bytes) -> None:
        self._data = io.BytesIO(data)

    def read(self, size: int = -1) -> bytes:
        return self._data.read(min(size, 99_999))


SOURCES: dict[str, Callable[[bytes], Any]] = {
    "bytes": bytes,
    "bytearray": bytearray,
    "memoryview of shorts": lambda data: memoryview(data).cast("H"),
    "file": io.BytesIO,
    "slow file": Drip,
    "odd pieces": lambda data: (data[n : n + 33_333] for n in range(0, len(data), 33_333)),
    "empty pieces": lambda data: [b"", data[:1], b"", data[1:], b""],
}

STATES = {
    "no connection": b"",
    "no request": b"",
    "half a request": REQUEST[:50],
    "associated": REQUEST,
    "in a command": REQUEST + p_data(b"ab", True, False),
    "in a data set": REQUEST + p_data(b"ab", True) + p_data(b"ab", False, False),
    "between messages": REQUEST + p_data(b"ab", True) + p_data(b"ab"),
    "being released": REQUEST + RELEASE_RQ,
    "being aborted": REQUEST + b"\x08",
}
