"""An authority, its certificate for this host, and the contexts of both ends."""

from __future__ import annotations

import socket
import ssl
from contextlib import suppress

import trustme

from support.sockets import LOCALHOST, TIMEOUT

AUTHORITY = trustme.CA()
CERTIFICATE = AUTHORITY.issue_cert(LOCALHOST, "localhost")


def server_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    CERTIFICATE.configure_cert(context)
    return context


def client_context(authority: trustme.CA = AUTHORITY) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(context)
    return context


class RawTls:
    """One end of TLS that sends its records in `flush` alone."""

    def __init__(
        self,
        connection: socket.socket,
        context: ssl.SSLContext,
        is_server: bool,
        piece: int = 1 << 30,
    ) -> None:
        self.connection, self.piece = connection, piece
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        name = None if is_server else LOCALHOST
        self._tls = context.wrap_bio(self._in, self._out, is_server, name)
        connection.settimeout(TIMEOUT)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._shake_hands()

    def _shake_hands(self) -> None:
        """Do the handshake. The records of its last step are not sent yet."""
        while True:
            try:
                return self._tls.do_handshake()
            except ssl.SSLWantReadError:
                self.flush()
                self._in.write(self.connection.recv(65536))

    def write(self, data: bytes) -> None:
        self._tls.write(data)

    def write_end(self) -> None:
        """Write a close_notify."""
        with suppress(ssl.SSLError):  # the peer has not sent its own
            self._tls.unwrap()

    def read(self) -> bytes:
        """Return the next bytes; empty at the end."""
        while True:
            try:
                return self._tls.read(65536)
            except ssl.SSLWantReadError:
                self._in.write(self.connection.recv(65536))
            except ssl.SSLZeroReturnError:
                return b""

    def flush(self) -> None:
        self.send(self._out.read())

    def send(self, data: bytes) -> None:
        """Send these bytes of the connection, in pieces."""
        for at in range(0, len(data), self.piece):
            self.connection.sendall(data[at : at + self.piece])
