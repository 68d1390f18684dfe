"""TLS over the user's own `ssl.SSLContext`: a transport of the C loop."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from ._arguments import one
from ._native import transport

MOST_RECORDS = 32
"""TLS records that are decrypted in one step; a byte of data takes as long as 1 KiB."""


def check_tls(context: ssl.SSLContext, server_hostname: str | None = None) -> None:
    """Check a context. Raises `TypeError` if it is no `ssl.SSLContext`, `ValueError` if it is for
    the other side (client or server) or `server_hostname` is not legal."""
    one("tls", context, ssl.SSLContext)
    try:
        server = server_hostname is None
        bios = ssl.MemoryBIO(), ssl.MemoryBIO()
        context.wrap_bio(*bios, server_side=server, server_hostname=server_hostname)
    except (ssl.SSLError, TypeError, ValueError) as e:
        raise ValueError(f"tls: {e}") from e


MOST_HANDSHAKE = 0x10000
"""Bytes that a peer may send until the handshake is done: its hello, and its certificates."""
PLAIN = 0x10000
"""Bytes that are encrypted at once."""
MOST_ANSWERS = 0x10000
"""Bytes of answers of TLS itself, such as new keys, that may wait for a peer that does not read."""
TOO_LONG = f"the peer has sent more than {MOST_HANDSHAKE} bytes in the handshake"
RECORD = 0x4000
"""Bytes of data in a record at most (RFC 8446 5.1)."""


class TlsTransport:
    """One end of a TLS connection as a `transport.Transport`: a client's with a `server_hostname`,
    a server's without. OpenSSL gets and gives bytes in memory, and `wire` moves them."""

    def __init__(
        self, context: ssl.SSLContext, server_hostname: str | None, wire: transport.Wire
    ) -> None:
        self._how = context, server_hostname
        self._wire = wire
        self.error: Exception | None = None
        """The alert or fault that ended the connection."""
        self._last: ssl.SSLObject | None = None
        """That of a connection that is closed."""
        self._begin()

    def _begin(self) -> None:
        """Be ready for a connection."""
        self._object: ssl.SSLObject | None = None
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._outbox = transport.Outbox(self._outgoing.read)
        self._claimed = 0
        """Bytes that are encrypted, and count as sent when those of the outbox have gone."""
        self._record: tuple[int, int] | None = None
        """While a record is made: bytes to encrypt, and bytes that OpenSSL gave before."""
        self._handshake = 0
        """Bytes that were received until it was established."""
        self._established = False
        self._end = transport.DONE
        """END or LOST: nothing more can be read."""
        self.is_torn = False
        """True while bytes that were decrypted are nowhere."""

    # ---- what C calls

    def open(self, descriptor: int) -> int:
        if self._object is None:
            context, name = self._how
            server = name is None
            bios = self._incoming, self._outgoing
            self._object = context.wrap_bio(*bios, server_side=server, server_hostname=name)
        try:
            while not self._established:
                result = self._shake_hands(descriptor)
                if result != transport.DONE:
                    return result
        except (ssl.SSLError, ValueError) as e:
            self.error = transport.bare(e)
            self._outbox.flush(descriptor)  # the alert
            return transport.LOST
        result = self._outbox.flush(descriptor)
        return result if result == transport.WANT_WRITE else transport.DONE  # reading tells the end

    def read(self, descriptor: int, room: memoryview, size: Any) -> int:
        for _ in range(MOST_RECORDS):
            result = self._decrypt(descriptor, room[size[0] :], size)
            if result != transport.DONE or size[0] == len(room):
                return result
        return transport.DONE

    def send(self, descriptor: int, parts: list[memoryview], size: Any) -> int:
        self._settle()
        result = self._outbox.flush(descriptor)
        if result == transport.DONE and not self._claimed:
            result = self._encrypt(descriptor, parts)
        if result == transport.DONE:
            size[0], self._claimed = self._claimed, 0
        return result

    def pending(self) -> int:
        """Bytes of a handshake that is not done, most of which OpenSSL keeps."""
        return self._handshake

    def close(self, descriptor: int) -> None:
        """Tell the peer, where the connection takes it at once."""
        if self._established and self._outbox.flush(descriptor) == transport.DONE:
            with suppress(ssl.SSLError):
                assert self._object is not None
                self._object.unwrap()
            self._outbox.flush(descriptor)
        self._last = self._object
        self._begin()

    # ---- how it is done

    def _shake_hands(self, descriptor: int) -> int:
        assert self._object is not None
        self._wire.settle()
        try:
            self._object.do_handshake()
            self._established = True
            return transport.DONE
        except ssl.SSLWantReadError:
            if self._handshake > MOST_HANDSHAKE:
                raise ssl.SSLError(TOO_LONG) from None
            result = self._outbox.flush(descriptor)
            return self._fetch(descriptor) if result == transport.DONE else result

    def _decrypt(self, descriptor: int, room: memoryview, size: Any) -> int:
        """Decrypt what one record has, and read from the connection where there is none."""
        assert self._object is not None
        decrypt: Any = self._object.read
        self._wire.settle()
        try:
            self.is_torn = True
            got = decrypt(len(room), room)
            size[0] += got
            self.is_torn = False
            return transport.DONE if got else transport.END
        except ssl.SSLWantReadError:
            self.is_torn = False
            self._outbox.flush(descriptor)  # answers of TLS itself, which the peer has to read
            is_full = self._outgoing.pending > MOST_ANSWERS
            return transport.WANT_WRITE if is_full else self._fetch(descriptor)
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            return transport.END
        except ssl.SSLError as e:
            self.error = self.error or transport.bare(e)
            self._outbox.flush(descriptor)
            return transport.LOST

    def _fetch(self, descriptor: int) -> int:
        """Give OpenSSL what the connection has."""
        if self._end == transport.DONE:
            result = self._wire.read(descriptor, self._incoming.write)
            self._handshake += 0 if self._established else self._wire.size
            if result not in (transport.END, transport.LOST):
                return result
            self._end = result
        return self._end

    def _encrypt(self, descriptor: int, parts: list[memoryview]) -> int:
        """Encrypt the first of these bytes, and send them."""
        assert self._object is not None
        plain = memoryview(b"".join(_first(parts, PLAIN)))
        try:
            while self._claimed < len(plain):
                part = plain[self._claimed : self._claimed + RECORD]
                self._record = len(part), self._outgoing.pending
                self._object.write(part)
                self._settle()
        except ssl.SSLWantReadError:  # a renegotiation of TLS 1.2
            self._record = None
            result = self._outbox.flush(descriptor)
            return transport.WANT_READ if result == transport.DONE else result
        except ssl.SSLError as e:
            self.error = self.error or transport.bare(e)
            return transport.LOST
        return self._outbox.flush(descriptor)

    def _settle(self) -> None:
        """Count a record that was made, also where a signal handler has raised behind that."""
        record = self._record
        if record is not None:
            made = record[0] if self._outgoing.pending > record[1] else 0
            self._claimed, self._record = self._claimed + made, None

    @property
    def peer_certificate(self) -> dict[str, Any] | None:
        """The peer's certificate in the form of `ssl.SSLSocket.getpeercert`; None without one."""
        found = self._object or self._last
        try:
            return None if found is None else found.getpeercert()
        except ValueError:  # the handshake is not done
            return None


def _first(parts: list[memoryview], most: int) -> Iterator[memoryview]:
    """Yield the first bytes of these parts."""
    for part in parts:
        yield part[:most]
        most -= len(part)
        if most <= 0:
            return
