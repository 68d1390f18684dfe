"""TLS without a socket: encrypts and decrypts bytes for a transport that moves them itself."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from typing import Any

from ._arguments import one

READ_SIZE = 0x40000
MOST_RECORDS = 32
"""TLS records that are decrypted in one step; a byte of data takes as long as 1 KiB."""
HEADER = 5
"""Bytes of the header of a record (RFC 8446 5.1): type, version, and length of what follows."""
MOST_FRAGMENT = 0x4800
"""Bytes that may follow (RFC 5246 6.2.3)."""
TYPES = range(20, 25)


def check_tls(context: ssl.SSLContext, server_hostname: str | None = None) -> None:
    """Check a context. Raises `TypeError` if it is no `ssl.SSLContext`, `ValueError` if it is for
    the other side (client or server) or `server_hostname` is not legal."""
    one("tls", context, ssl.SSLContext)
    try:
        Tls(context, server_hostname)
    except (ssl.SSLError, TypeError, ValueError) as e:
        raise ValueError(f"tls: {e}") from e


def _ends_of_records(data: bytes) -> Iterator[int]:
    """Yield where each record ends that is whole. What is no record counts as one, to the end of
    the data: OpenSSL tells what it is."""
    end = 0
    while end < len(data):
        fragment = int.from_bytes(data[end + 3 : end + HEADER], "big")
        is_record = data[end] in TYPES and fragment <= MOST_FRAGMENT
        end = end + HEADER + fragment if is_record else len(data)
        if end <= len(data):
            yield end


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
        self.has_more = False
        """True where records may wait to be decrypted: by `receive`, with no bytes or more."""
        self.waiting = b""
        """What was received, and is not decrypted yet."""
        self._is_deaf = False

    def begin(self) -> None:
        """Start the handshake, at a client."""
        self.receive(b"")

    def receive(self, data: bytes) -> bytes:
        """Take bytes of the transport and return the plain bytes in them, as far as one step goes;
        if `error` is set, those before the error."""
        if self._is_deaf:
            return b""
        self._give_records(self.waiting + data)
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
        if self.ended or self.error is not None:
            self.stop_receiving()
        self._write()
        return b"".join(parts)

    def _give_records(self, data: bytes) -> None:
        """Give OpenSSL the records that are whole, as many as one step takes, and keep the rest."""
        ends = list(islice(_ends_of_records(data), MOST_RECORDS))
        end = ends[-1] if ends else 0
        self._incoming.write(memoryview(data)[:end])
        self.waiting = data[end:]
        self.has_more = len(ends) == MOST_RECORDS

    def stop_receiving(self) -> None:
        """Decrypt nothing more: what comes after this means nothing."""
        self._is_deaf, self.has_more, self.waiting = True, False, b""

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
