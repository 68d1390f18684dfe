"""TLS between bytes: an `ssl.SSLContext` for a transport that moves the bytes itself."""

from __future__ import annotations

import ssl
from contextlib import suppress
from typing import Any

from ._arguments import one

READ_SIZE = 0x40000


def check_tls(context: ssl.SSLContext, server_hostname: str | None = None) -> None:
    """Raises `TypeError` for what is no context, `ValueError` for one of the other side, and for a
    name that is none."""
    one("tls", context, ssl.SSLContext)
    try:
        Tls(context, server_hostname)
    except (ssl.SSLError, TypeError, ValueError) as e:
        raise ValueError(f"tls: {e}") from e


class Tls:
    """One end of a TLS connection. What comes from the transport is given to `receive`, what
    `take` gives is for the transport."""

    def __init__(self, context: ssl.SSLContext, server_hostname: str | None = None) -> None:
        """A server's end without a `server_hostname`."""
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._object = context.wrap_bio(
            self._incoming,
            self._outgoing,
            server_side=server_hostname is None,
            server_hostname=server_hostname,
        )
        self.established = False
        """True when the handshake is done."""
        self.ended = False
        """True when the peer has said that it sends nothing more."""
        self.error: ssl.SSLError | None = None
        """The alert of the peer, or its fault, that has ended it."""
        self.unsent = b""
        """Plain bytes that wait until a renegotiation of TLS 1.2 is over."""

    def begin(self) -> None:
        """A client speaks first."""
        self.receive(b"")

    def receive(self, data: bytes) -> bytes:
        """Return what the peer has sent, in plain; where `error` is set, what came before it."""
        self._incoming.write(data)
        parts: list[bytes] = []
        try:
            if not self.established:
                self._object.do_handshake()
                self.established = True
            while part := self._object.read(READ_SIZE):
                parts.append(part)
            self.ended = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self.ended = True
        except ssl.SSLError as e:
            self.error = self.error or e
        self._write()
        return b"".join(parts)

    def send(self, data: bytes) -> None:
        """Plain bytes for the peer, after the handshake."""
        self.unsent = self.unsent + data if self.unsent else data
        self._write()

    def _write(self) -> None:
        try:
            while self.unsent:
                self.unsent = self.unsent[self._object.write(self.unsent) :]
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError:  # it is over
            self.unsent = b""

    def close(self) -> None:
        """Say that nothing more is sent (close_notify)."""
        if self.established:
            with suppress(ssl.SSLError):
                self._object.unwrap()

    def take(self) -> bytes:
        """Bytes for the transport."""
        return self._outgoing.read()

    @property
    def peer_certificate(self) -> dict[str, Any] | None:
        """The certificate as `ssl.SSLSocket.getpeercert` has it; None where there is none."""
        try:
            return self._object.getpeercert()
        except ValueError:  # the handshake has failed
            return None
