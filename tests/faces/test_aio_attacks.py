"""The asyncio faces against peers and users that choose the worst moment."""

from __future__ import annotations

import asyncio
import socket
import ssl
from contextlib import suppress

import pytest

from ltdic import AssociateReject, AssociationRejected, aio, encode
from support.loops import in_loop
from support.raw import OPTIONS
from support.sockets import LOCALHOST, TIMEOUT
from support.threads import Background
from support.tls import client_context, server_context

CODES = 1, 1, 7
REJECT = encode(AssociateReject(*CODES))


def of_version(context: ssl.SSLContext, version: ssl.TLSVersion) -> ssl.SSLContext:
    context.minimum_version = context.maximum_version = version
    return context


by_version = pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])


class RawTls:
    """One end of TLS whose records go out when it is told to `flush`."""

    def __init__(self, connection: socket.socket, context: ssl.SSLContext, is_server: bool) -> None:
        self.connection = connection
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        name = None if is_server else LOCALHOST
        self._tls = context.wrap_bio(self._in, self._out, is_server, name)
        connection.settimeout(TIMEOUT)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._shake_hands()

    def _shake_hands(self) -> None:
        """What the last step makes has not gone when it is done."""
        while True:
            try:
                return self._tls.do_handshake()
            except ssl.SSLWantReadError:
                self.flush()
                self._in.write(self.connection.recv(65536))

    def write(self, data: bytes) -> None:
        self._tls.write(data)

    def write_end(self) -> None:
        """Its close_notify."""
        with suppress(ssl.SSLError):  # the peer has not sent its own
            self._tls.unwrap()

    def flush(self) -> None:
        self.connection.sendall(self._out.read())


# ---- answers that come early, or are seen late ---------------------------------------------------


@by_version
@in_loop
async def test_a_rejection_that_comes_with_the_end_before_the_request_has_gone(
    version: ssl.TLSVersion,
) -> None:
    with socket.create_server((LOCALHOST, 0)) as listener:

        def reject() -> None:
            connection, _ = listener.accept()
            with connection:
                tls = RawTls(connection, of_version(server_context(), version), True)
                tls.write(REJECT)
                tls.write_end()
                tls.flush()
                while connection.recv(65536):
                    pass

        peer = Background(reject)
        with pytest.raises(AssociationRejected) as e:
            await aio.connect(*listener.getsockname(), tls=client_context(), **OPTIONS)
        await asyncio.to_thread(peer.join)
    assert e.value.codes == CODES
