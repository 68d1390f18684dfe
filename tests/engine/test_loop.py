"""A C loop hosted by another loop: its descriptor, and the longest time to sleep."""

import select
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from ltdic import AssociateRequest, ProposedContext, encode, ffi, lib

LONG, SHORT = 60_000, 50  # ms
REQUEST = encode(
    AssociateRequest("A", "B", (ProposedContext(1, "1.2.840.10008.1.1", ("1.2.840.10008.1.2",)),))
)


class Hosted:
    """A loop with a listener on loopback."""

    def __init__(self) -> None:
        self.loop = lib.ltdic_loop_new()
        self.listener = lib.ltdic_net_new(self.loop, ffi.NULL)
        host = ffi.new("char[]", b"127.0.0.1")
        address = ffi.new("ltdic_address *", (host, 0, lib.LTDIC_IP_V4))
        assert lib.ltdic_net_listen(self.listener, address, 0) == lib.LTDIC_OK
        self.fd = lib.ltdic_loop_fd(self.loop)

    @property
    def port(self) -> int:
        room, port = ffi.new("uint8_t[]", 64), ffi.new("uint16_t *")
        buffer = ffi.new("ltdic_buffer *", (room, len(room), 0))
        assert lib.ltdic_net_name(self.listener, 0, buffer, port) == lib.LTDIC_OK
        return int(port[0])

    def is_readable(self, seconds: float) -> bool:
        return bool(select.select([self.fd], [], [], seconds)[0])

    def next(self) -> tuple[Any, Any] | None:
        net, indication = ffi.new("ltdic_net **"), ffi.new("ltdic_indication *")
        if lib.ltdic_loop_next(self.loop, net, indication) != lib.LTDIC_OK:
            return None
        return net[0], indication

    def accept(self) -> Any:
        """Accept the waiting connection as a new endpoint."""
        assert lib.ltdic_loop_wait(self.loop, 5000) == lib.LTDIC_OK
        found = self.next()
        assert found is not None
        assert found[1].kind == lib.LTDIC_PENDING
        net = lib.ltdic_net_new(self.loop, ffi.NULL)
        assert lib.ltdic_net_accept(net, self.listener) == lib.LTDIC_OK
        lib.ltdic_net_done(self.listener)
        return net


@pytest.fixture
def hosted() -> Iterator[Hosted]:
    made = Hosted()
    yield made
    lib.ltdic_loop_free(made.loop)


def settle(hosted: Hosted) -> None:
    """Take all indications, until the loop would sleep."""
    while lib.ltdic_loop_timeout(hosted.loop, LONG) == 0:
        lib.ltdic_loop_wait(hosted.loop, 0)
        while (found := hosted.next()) is not None:
            lib.ltdic_net_done(found[0])


def test_the_descriptor_is_readable_when_a_source_is_ready(hosted: Hosted) -> None:
    settle(hosted)
    assert hosted.fd >= 0
    assert not hosted.is_readable(0)
    with socket.create_connection(("127.0.0.1", hosted.port)) as peer:
        assert hosted.is_readable(5)
        net = hosted.accept()
        settle(hosted)
        assert not hosted.is_readable(0)
        peer.sendall(REQUEST)
        assert hosted.is_readable(5)
        assert lib.ltdic_loop_wait(hosted.loop, 0) == lib.LTDIC_OK
        found = hosted.next()
        assert found is not None
        assert (found[0], found[1].kind, found[1].type) == (net, lib.LTDIC_RECEIVED, 1)
        lib.ltdic_net_done(net)


def test_a_wake_makes_the_descriptor_readable(hosted: Hosted) -> None:
    settle(hosted)
    lib.ltdic_loop_wake(hosted.loop)
    assert hosted.is_readable(5)
    assert lib.ltdic_loop_wait(hosted.loop, 0) == lib.LTDIC_ERR_INTERRUPTED
    assert not hosted.is_readable(0)


def test_the_time_to_sleep_ends_with_the_first_deadline(hosted: Hosted) -> None:
    settle(hosted)
    assert lib.ltdic_loop_timeout(hosted.loop, LONG) == LONG
    with socket.create_connection(("127.0.0.1", hosted.port)):
        hosted.accept()
        settle(hosted)
        assert 0 < lib.ltdic_loop_timeout(hosted.loop, LONG) <= 30_000  # ARTIM
        assert lib.ltdic_loop_timeout(hosted.loop, SHORT) == SHORT


def test_a_ready_source_leaves_no_time_to_sleep(hosted: Hosted) -> None:
    settle(hosted)
    with socket.create_connection(("127.0.0.1", hosted.port)):
        hosted.accept()
        assert lib.ltdic_loop_timeout(hosted.loop, LONG) == 0
