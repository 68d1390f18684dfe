"""A loop of C: inside another one, with several users, and with descriptors made elsewhere."""

import errno
import select
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from ltdic import (
    PDV,
    AssociateAccept,
    AssociateReject,
    AssociateRequest,
    ContextResult,
    DataTransfer,
    ProposedContext,
    decode,
    encode,
    ffi,
    lib,
)

LONG, SHORT = 60_000, 50  # ms
REQUEST = encode(
    AssociateRequest("A", "B", (ProposedContext(1, "1.2.840.10008.1.1", ("1.2.840.10008.1.2",)),))
)
ACCEPT = encode(AssociateAccept("A", "B", (ContextResult(1, 0, "1.2.840.10008.1.2"),)))


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


class OnTheLoop:
    """A server on this loop that rejects everybody, and its batches."""

    def __init__(self, loop: Any) -> None:
        self.admission = lib.ltdic_admission_new()
        assert lib.ltdic_admission_add_called(self.admission, b"NOBODY") == lib.LTDIC_OK
        self.server = lib.ltdic_server_new(loop, self.admission)
        host = ffi.new("char[]", b"127.0.0.1")
        address = ffi.new("ltdic_address *", (host, 0, lib.LTDIC_IP_V4))
        assert lib.ltdic_server_listen(self.server, address, 0) == lib.LTDIC_OK

    @property
    def address(self) -> tuple[str, int]:
        room, port = ffi.new("uint8_t[]", 64), ffi.new("uint16_t *")
        buffer = ffi.new("ltdic_buffer *", (room, len(room), 0))
        assert lib.ltdic_server_name(self.server, buffer, port) == lib.LTDIC_OK
        return "127.0.0.1", int(port[0])

    def run(self, milliseconds: int) -> int:
        batch = ffi.new("ltdic_batch *")
        return int(lib.ltdic_server_run(self.server, batch, 0, milliseconds))


@pytest.fixture
def hosted() -> Iterator[Hosted]:
    made = Hosted()
    yield made
    lib.ltdic_loop_free(made.loop)


def settle(hosted: Hosted, *servers: OnTheLoop) -> None:
    """Take all indications, until the loop would sleep."""
    while lib.ltdic_loop_timeout(hosted.loop, LONG) == 0:
        lib.ltdic_loop_wait(hosted.loop, 0)
        for server in servers:
            server.run(0)
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


# ---- several users of one loop -------------------------------------------------------------------


@pytest.fixture
def servers(hosted: Hosted) -> Iterator[list[OnTheLoop]]:
    """Two servers on the loop, which ltdic_loop_free frees with it."""
    made = [OnTheLoop(hosted.loop) for _ in range(2)]
    yield made
    lib.ltdic_loop_free(hosted.loop)
    hosted.loop = lib.ltdic_loop_new()
    for one in made:
        lib.ltdic_admission_free(one.admission)


def test_servers_and_endpoints_of_one_loop_each_get_their_own(
    hosted: Hosted, servers: list[OnTheLoop]
) -> None:
    peers = [socket.create_connection(server.address, 5) for server in servers]
    peers.append(socket.create_connection(("127.0.0.1", hosted.port), 5))
    for peer in peers:
        peer.sendall(REQUEST)
    net, told = hosted.accept(), False
    for _ in range(100):
        assert lib.ltdic_loop_wait(hosted.loop, 50) != lib.LTDIC_ERR_INTERRUPTED
        for server in servers:
            assert server.run(0) == lib.LTDIC_NEED_MORE
        while (found := hosted.next()) is not None:
            assert found[0] == net  # and none of a server's
            told = told or found[1].kind == lib.LTDIC_RECEIVED
            lib.ltdic_net_done(found[0])
        if told and all(select.select([peer], [], [], 0)[0] for peer in peers[:2]):
            break
    assert told
    for peer in peers[:2]:
        assert decode(peer.recv(100)) == AssociateReject(1, 1, 7)
    for peer in peers:
        peer.close()


def test_a_server_does_not_sleep_while_an_endpoint_of_its_loop_has_something_to_tell(
    hosted: Hosted, servers: list[OnTheLoop]
) -> None:
    settle(hosted, *servers)
    with socket.create_connection(("127.0.0.1", hosted.port)):
        begun = time.monotonic()
        assert servers[0].run(LONG) == lib.LTDIC_NEED_MORE
        assert time.monotonic() - begun < LONG / 2000
        found = hosted.next()
        assert found is not None
        assert found[1].kind == lib.LTDIC_PENDING
        lib.ltdic_net_done(found[0])


def test_a_loop_wakes_for_a_server_that_is_closing(
    hosted: Hosted, servers: list[OnTheLoop]
) -> None:
    settle(hosted, *servers)
    with socket.create_connection(servers[0].address):
        assert servers[0].run(20) == lib.LTDIC_NEED_MORE
        lib.ltdic_server_close(servers[0].server, 100)
        end = time.monotonic() + 5
        while (status := servers[0].run(0)) != lib.LTDIC_ERR_CLOSED:
            assert time.monotonic() < end
            assert status == lib.LTDIC_NEED_MORE
            assert lib.ltdic_loop_timeout(hosted.loop, LONG) <= SHORT
            lib.ltdic_loop_wait(hosted.loop, LONG)
    while lib.ltdic_loop_timeout(hosted.loop, LONG) != LONG:  # it does not go on
        assert time.monotonic() < end
        lib.ltdic_loop_wait(hosted.loop, SHORT)
        settle(hosted, *servers)


# ---- descriptors made elsewhere ------------------------------------------------------------------


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        ours = socket.create_connection(server.getsockname())
        peer, _ = server.accept()
    peer.settimeout(5)
    with ours, peer:
        yield ours, peer


def received(hosted: Hosted, kind: int, rounds: int = 100) -> bytes | None:
    """Serve until an indication of this kind; its PDU."""
    for _ in range(rounds):
        lib.ltdic_loop_wait(hosted.loop, 50)
        while (found := hosted.next()) is not None:
            net, indication = found
            pdu = bytes(ffi.buffer(indication.pdu.data, indication.pdu.size))
            is_it = indication.kind == kind
            lib.ltdic_net_done(net)
            if is_it:
                return pdu
    return None


@pytest.mark.parametrize("accepted", [True, False])
def test_a_connection_made_elsewhere_is_adopted(
    hosted: Hosted, pair: tuple[socket.socket, socket.socket], accepted: bool
) -> None:
    ours, peer = pair
    net = lib.ltdic_net_new(hosted.loop, ffi.NULL)
    event = lib.LTDIC_EVT_ACCEPTED if accepted else lib.LTDIC_EVT_CONNECTED
    assert lib.ltdic_net_adopt(net, ours.detach(), event) == lib.LTDIC_OK
    if accepted:
        peer.sendall(REQUEST)
        assert received(hosted, lib.LTDIC_RECEIVED) == REQUEST
    else:
        with ffi.from_buffer(REQUEST) as raw:
            assert lib.ltdic_net_send(net, (raw, len(raw))) == lib.LTDIC_OK
        assert peer.recv(1000) == REQUEST
        peer.sendall(encode(AssociateReject(2, 3, 2)))
        assert received(hosted, lib.LTDIC_RECEIVED) == encode(AssociateReject(2, 3, 2))
    peer.close()
    assert received(hosted, lib.LTDIC_CLOSED) is not None


def test_what_cannot_be_adopted_stays_the_callers(
    hosted: Hosted, pair: tuple[socket.socket, socket.socket]
) -> None:
    net, adopt = lib.ltdic_net_new(hosted.loop, ffi.NULL), lib.ltdic_net_adopt
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as unconnected:
        for other in (server, unconnected):
            assert adopt(net, other.fileno(), lib.LTDIC_EVT_ACCEPTED) == lib.LTDIC_ERR_SYSTEM
            assert lib.ltdic_net_cause(net).error == errno.ENOTCONN
    with socket.socket(type=socket.SOCK_DGRAM) as datagrams:
        assert adopt(net, datagrams.fileno(), lib.LTDIC_EVT_ACCEPTED) == lib.LTDIC_ERR_SYSTEM
        assert lib.ltdic_net_cause(net).error == errno.EPROTOTYPE
    assert adopt(net, -1, lib.LTDIC_EVT_ACCEPTED) == lib.LTDIC_ERR_SYSTEM
    ours, _ = pair
    assert adopt(net, ours.fileno(), lib.LTDIC_EVT_RELEASE) == lib.LTDIC_ERR_WRONG_STATE
    for used in (hosted.listener, hosted.listener):
        assert adopt(used, ours.fileno(), lib.LTDIC_EVT_ACCEPTED) == lib.LTDIC_ERR_WRONG_STATE
    ours.sendall(b"still there")


# ---- back-pressure -------------------------------------------------------------------------------


def test_an_endpoint_that_is_held_tells_no_data_and_makes_the_peer_wait(
    hosted: Hosted, pair: tuple[socket.socket, socket.socket]
) -> None:
    ours, peer = pair
    net = lib.ltdic_net_new(hosted.loop, ffi.NULL)
    lib.ltdic_net_adopt(net, ours.detach(), lib.LTDIC_EVT_ACCEPTED)
    peer.sendall(REQUEST)
    received(hosted, lib.LTDIC_RECEIVED)
    with ffi.from_buffer(ACCEPT) as raw:
        assert lib.ltdic_net_send(net, (raw, len(raw))) == lib.LTDIC_OK
    settle(hosted)
    lib.ltdic_net_hold(net, 1)
    peer.setblocking(False)
    wire, sent = encode(DataTransfer((PDV(1, True, False, bytes(16_000)),))), 0
    with suppress(BlockingIOError):
        while sent < 64 << 20:
            sent += peer.send(wire)
            settle(hosted)
    assert sent < 64 << 20
    assert received(hosted, lib.LTDIC_RECEIVED, rounds=3) is None
    lib.ltdic_net_hold(net, 0)
    data = received(hosted, lib.LTDIC_RECEIVED)
    assert data is not None
    assert wire.startswith(data[:100])


def test_the_name_of_a_connection_that_was_reset_is_not_that_of_the_next_one(
    hosted: Hosted,
) -> None:
    room, port = ffi.new("uint8_t[]", 64), ffi.new("uint16_t *")
    buffer = ffi.new("ltdic_buffer *", (room, len(room), 0))
    with socket.create_connection(("127.0.0.1", hosted.port)) as first:
        name = first.getsockname()[1]
        linger = struct.pack("ii", 1, 0)
        first.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        net = hosted.accept()
    time.sleep(0.05)  # it is reset
    assert lib.ltdic_net_name(net, 1, buffer, port) == lib.LTDIC_OK
    assert port[0] == name
    with socket.create_connection(("127.0.0.1", hosted.port)):
        lib.ltdic_loop_wait(hosted.loop, 5000)
        while (found := hosted.next()) is None or found[1].kind != lib.LTDIC_PENDING:
            if found is not None:
                lib.ltdic_net_done(found[0])
            lib.ltdic_loop_wait(hosted.loop, 100)
        assert lib.ltdic_net_name(net, 1, buffer, port) == lib.LTDIC_ERR_WRONG_STATE
        lib.ltdic_net_done(hosted.listener)
