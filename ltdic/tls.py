"""TLS without a socket: encrypts and decrypts bytes for a transport that moves them itself."""

from __future__ import annotations

import ssl
from contextlib import suppress
from typing import Any

from ._arguments import one

READ_SIZE = 0x40000


def check_tls(context: ssl.SSLContext, server_hostname: str | None = None) -> None:
    """Check a context. Raises `TypeError` if it is no `ssl.SSLContext`, `ValueError` if it is for
    the other side (client or server) or `server_hostname` is not legal."""
    one("tls", context, ssl.SSLContext)
    try:
        Tls(context, server_hostname)
    except (ssl.SSLError, TypeError, ValueError) as e:
        raise ValueError(f"tls: {e}") from e


class Tls:
    """One end of a TLS connection. Give bytes of the transport to `receive`; send the bytes that
    `take` returns on the transport. Not thread-safe."""

    def __init__(self, context: ssl.SSLContext, server_hostname: str | None = None) -> None:
        """Make a client's end with a `server_hostname`, a server's end without."""
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._object = context.wrap_bio(
            self._incoming,
            self._outgoing,
            server_side=server_hostname is None,
            server_hostname=server_hostname,
        )
        self.established = False
        """True after the handshake."""
        self.ended = False
        """True after the peer has closed its direction (close_notify)."""
        self.error: ssl.SSLError | None = None
        """The alert or fault of the peer that ended the connection."""
        self.unsent = b""
        """Plain bytes that wait for the end of a renegotiation (TLS 1.2)."""

    def begin(self) -> None:
        """Start the handshake, at a client."""
        self.receive(b"")

    def receive(self, data: bytes) -> bytes:
        """Take bytes of the transport and return the plain bytes in them; if `error` is set, those
        before the error."""
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
        """Encrypt plain bytes for the peer. Call it after the handshake only."""
        self.unsent = self.unsent + data if self.unsent else data
        self._write()

    def _write(self) -> None:
        try:
            while self.unsent:
                self.unsent = self.unsent[self._object.write(self.unsent) :]
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError:  # the connection has ended
            self.unsent = b""

    def close(self) -> None:
        """Close this direction (close_notify)."""
        if self.established:
            with suppress(ssl.SSLError):
                self._object.unwrap()

    def take(self) -> bytes:
        """Return the bytes to send on the transport, and forget them."""
        return self._outgoing.read()

    @property
    def peer_certificate(self) -> dict[str, Any] | None:
        """The peer's certificate in the form of `ssl.SSLSocket.getpeercert`; None without one."""
        try:
            return self._object.getpeercert()
        except ValueError:  # the handshake has failed
            return None
