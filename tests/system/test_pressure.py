"""Peers that read slowly or not at all, and the data that waits for them.

Each test is small, and checks values that do not depend on the machine.
"""

from __future__ import annotations

import asyncio
import queue
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import pytest

import ltdic
from ltdic import (
    PDU,
    PDV,
    Abort,
    Admission,
    AssociateReject,
    AssociationTimeout,
    DataTransfer,
    LocalError,
    ReleaseRequest,
    ReleaseResponse,
    UserInformation,
    aio,
    encode,
)
from support.apart import (
    COMMAND,
    are_sent_to_and_collected,
    errors_of_l_dicom_are_collected,
    lent_bytes_are_collected,
    run_apart,
)
from support.hosts import SERVERS, Gate, Host, Serve, blocking, limit_unfinished
from support.hosts import in_asyncio as serve_in_asyncio
from support.l_dicom_host import in_l_dicom
from support.peer import (
    ACCEPTED,
    MIB,
    REQUEST,
    SHORT,
    Peer,
    Script,
    deaf,
    drip,
    has_come,
    is_served,
    largest_request,
    opened,
    peer_releases,
    proposing_many,
    slow,
)
from support.raw import raw_acceptor
from support.sockets import LOCALHOST, TIMEOUT, receive_exactly_one
from support.threads import Background
from support.uids import CT, VERIFICATION
from support.waiting import eventually

NARROW = 64 << 10  # bytes


# ---- a release, and queued data ------------------------------------------------------------------

COUNT = 8
MUCH = b"".join(bytes([n]) * MIB for n in range(COUNT))
"""More than the systems of both sides take while nobody reads."""


def send_much(association: Any, pdv: PDV) -> Iterator[Any]:
    for n in range(COUNT):
        yield association.send(bytes([n]) * MIB, context=pdv.context_id, is_command=True)


def take_data(
    peer: Peer, messages: int = 1000, pause: float = 0
) -> tuple[bytes, list[int], PDU | None]:
    """Receive the data of so many messages, or up to another PDU or the end. Return all data, the
    offsets of the ends of messages, and the last PDU."""
    data, ends = bytearray(), list[int]()
    pdu: PDU | None = None
    while len(ends) < messages and isinstance(pdu := peer.take(), DataTransfer):
        time.sleep(pause)
        for pdv in pdu.pdvs:
            data += pdv.data
            ends += [len(data)] if pdv.is_last else []
    return bytes(data), ends, pdu


def gets_much(peer: Peer) -> PDU | None:
    """Read all data; return the PDU after it."""
    data, ends, pdu = take_data(peer)
    assert ends == [n * MIB for n in range(1, COUNT + 1)]
    assert data == MUCH
    return pdu


def is_released(host: Host, peer: Peer) -> None:
    peer.close()
    assert host.end()[1].outcome == "released"


@pytest.mark.parametrize("in_one", [True, False])
def test_a_release_of_the_peer_is_answered_after_all_data_of_the_handler(
    serve: Serve, in_one: bool
) -> None:
    with serve(handler=send_much) as host, ExitStack() as stack:
        peer = slow(stack, host)
        if in_one:
            peer.send(COMMAND, ReleaseRequest())
        else:
            peer.send(COMMAND)
            assert has_come(peer, TIMEOUT)
            peer.send(ReleaseRequest())
        assert gets_much(peer) == ReleaseResponse()
        is_released(host, peer)


def test_a_release_behind_the_request_is_answered_after_all_data_of_the_handler(
    serve: Serve,
) -> None:
    with serve(handler=send_much) as host, ExitStack() as stack:
        peer = deaf(stack, host, REQUEST, COMMAND, ReleaseRequest(), window=128 << 10)
        peer.associate()
        assert gets_much(peer) == ReleaseResponse()
        is_released(host, peer)


def send_much_and_release(association: Any, pdv: PDV) -> Iterator[Any]:
    yield from send_much(association, pdv)
    yield association.release()


def test_a_release_of_the_handler_is_sent_after_all_its_data(serve: Serve) -> None:
    with serve(handler=send_much_and_release) as host, ExitStack() as stack:
        peer = slow(stack, host)
        peer.send(COMMAND)
        assert has_come(peer, TIMEOUT)
        assert gets_much(peer) == ReleaseRequest()
        peer.send(ReleaseResponse())
        is_released(host, peer)


def test_releases_in_a_collision_are_sent_after_all_data_of_the_handler() -> None:
    """In a collision the requestor answers first (PS3.8 9.2.2)."""
    with blocking(handler=send_much_and_release) as host, ExitStack() as stack:
        peer = slow(stack, host)
        peer.send(COMMAND)
        assert has_come(peer, TIMEOUT)
        peer.send(ReleaseRequest())
        assert gets_much(peer) == ReleaseRequest()
        peer.send(ReleaseResponse())
        assert peer.take() == ReleaseResponse()
        is_released(host, peer)


def test_a_release_of_another_thread_is_sent_after_all_data_of_the_handler(serve: Serve) -> None:
    with serve(handler=send_much) as host, ExitStack() as stack:
        peer = slow(stack, host)
        served = host.one()
        peer.send(COMMAND)
        assert has_come(peer, TIMEOUT)
        # another task runs between two messages
        host.begin(served.release)
        data, ends, pdu = take_data(peer)
        assert pdu == ReleaseRequest()
        assert ends[-1] == len(data)
        assert data == MUCH[: len(data)]
        assert len(ends) == COUNT or isinstance(host.server, aio.Server)
        peer.send(ReleaseResponse())
        is_released(host, peer)


def begin_to_send(host: Host, peer: Peer) -> Any:
    """Begin to send a large message in another thread or task; return the association."""
    served = host.one()
    host.begin(lambda: served.send(MUCH, context=CT, is_command=True))
    assert has_come(peer, TIMEOUT)
    return served


def gets_one(peer: Peer) -> PDU | None:
    """Read one message; return the PDU after it."""
    data, ends, pdu = take_data(peer)
    assert (data == MUCH, ends) == (True, [len(MUCH)])
    return pdu


def test_a_release_waits_for_the_message_of_another_sender(serve: Serve) -> None:
    with serve() as host, ExitStack() as stack:
        peer = slow(stack, host)
        served = begin_to_send(host, peer)
        host.begin(served.release)
        assert gets_one(peer) == ReleaseRequest()
        peer.send(ReleaseResponse())
        is_released(host, peer)


def test_a_release_of_the_peer_is_answered_after_the_message_of_another_sender(
    serve: Serve,
) -> None:
    with serve() as host, ExitStack() as stack:
        peer = slow(stack, host)
        begin_to_send(host, peer)
        peer.send(ReleaseRequest())
        assert gets_one(peer) == ReleaseResponse()
        is_released(host, peer)


def test_a_release_in_a_handler_while_a_thread_sends_is_a_local_error() -> None:
    """The handler cannot wait for the thread."""
    raised: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def handler(association: Any, pdv: PDV) -> Iterator[Any]:
        try:
            association.release()
        except LocalError as e:
            raised.put(str(e))
        else:
            raised.put(None)
        yield from ()

    with blocking(handler=handler) as host, ExitStack() as stack:
        peer = slow(stack, host)
        begin_to_send(host, peer)
        peer.send(COMMAND)
        assert raised.get(timeout=TIMEOUT) == "another thread is sending"
        assert take_data(peer, 1)[1] == [len(MUCH)]
        peer_releases(host, peer)


# ---- queued data ---------------------------------------------------------------------------------

ANYTHING = replace(REQUEST, user_info=UserInformation(0, "1.2.3"))


@pytest.mark.slow
def test_answers_to_a_peer_that_reads_slowly_are_bounded() -> None:
    """At most the answers to one batch of requests wait."""
    batch, most = 256, 0

    def handler(association: Any, pdv: PDV) -> Iterator[Any]:
        nonlocal most
        yield association.send(bytes(16 << 10), context=pdv.context_id, is_command=True)
        most = max(most, len(association._waiting))

    with blocking(handler=handler) as host, ExitStack() as stack:
        peer = deaf(stack, host, ANYTHING, window=NARROW)
        peer.associate()
        peer.send(COMMAND * 5000)
        while peer.received < 10 * MIB:
            time.sleep(0.01)
            peer.read(NARROW)
        assert 0 < most <= 1.2 * batch
        peer.close()


@pytest.mark.slow
def test_data_of_a_thread_waits_behind_data_of_the_handler() -> None:
    """It waits for longer than `timeout`, while the peer reads something all the time."""

    def handler(association: Any, pdv: PDV) -> Iterator[Any]:
        yield association.send(bytes(12 * MIB), context=pdv.context_id, is_command=True)

    with blocking(handler=handler, timeout=SHORT) as host, ExitStack() as stack:
        peer = slow(stack, host)
        served = host.one()
        peer.send(COMMAND)
        assert has_come(peer, TIMEOUT)
        begun = time.monotonic()
        sender = Background(lambda: served.send(b"behind", context=CT, is_command=True))
        data, ends, _ = take_data(peer, 2, pause=0.003)
        assert ends == [12 * MIB, 12 * MIB + 6]
        assert data.endswith(b"behind")
        sender.join()
        assert time.monotonic() - begun > 2 * SHORT
        peer_releases(host, peer)


# ---- peers that read nothing, and peers that read little -----------------------------------------

Send = Callable[[Script], None]
REQUESTOR: Any = {"contexts": [VERIFICATION, CT], "timeout": SHORT}


@contextmanager
def narrow_acceptor(script: Script) -> Iterator[int]:
    """Run an acceptor with a small receive buffer; yield its port."""

    def accept_first(connection: socket.socket) -> None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, NARROW)
        connection.sendall(encode(ACCEPTED))
        script(connection)

    with raw_acceptor(accept_first) as (port, _):
        yield port


def send_as_requestor(script: Script) -> None:
    with narrow_acceptor(script) as port:
        association = ltdic.connect(LOCALHOST, port, **REQUESTOR)
        try:
            association.send(MUCH, context=CT, is_command=True)
        finally:
            association.abort()


def send_as_requestor_in_asyncio(script: Script) -> None:
    async def send(port: int) -> None:
        association = await aio.connect(LOCALHOST, port, **REQUESTOR)
        try:
            await association.send(MUCH, context=CT, is_command=True)
        finally:
            await association.abort()

    with narrow_acceptor(script) as port:
        asyncio.run(send(port))


def send_as(face: str) -> Send:
    """Return a function that sends from a server, in a thread or task of its own."""

    def send(script: Script) -> None:
        with SERVERS[face](timeout=SHORT) as host, ExitStack() as stack:
            peer = slow(stack, host, NARROW)
            thread = Background(lambda: script(peer.socket))
            served = host.one()
            try:
                host.do(lambda: served.send(MUCH, context=CT, is_command=True))
            finally:
                thread.join()

    return send


def send_as_handler_in_asyncio(script: Script) -> None:
    raised: queue.SimpleQueue[Any] = queue.SimpleQueue()

    async def send(association: Any) -> None:
        try:
            await association.send(MUCH, context=CT, is_command=True)
        except BaseException as e:
            raised.put(e)
            raise
        raised.put(None)

    def handler(association: Any, pdv: PDV) -> Iterator[Any]:
        yield send(association)

    with serve_in_asyncio(handler=handler, timeout=SHORT) as host, ExitStack() as stack:
        peer = slow(stack, host, NARROW)
        peer.send(COMMAND)
        thread = Background(lambda: script(peer.socket))
        try:
            if (error := raised.get(timeout=TIMEOUT)) is not None:
                raise error
        finally:
            thread.join()


SENDS = {
    "connect": send_as_requestor,
    "aio.connect": send_as_requestor_in_asyncio,
    "Server": send_as("blocking"),
    "aio.Server": send_as("asyncio"),
    "handler of aio.Server": send_as_handler_in_asyncio,
}


def outcomes(script: Script) -> dict[str, Any]:
    """Run all kinds of senders at once, each with a peer that runs the script; return the
    errors."""

    def outcome(send: Send) -> Any:
        try:
            send(script)
        except Exception as e:
            return repr(e)
        return None

    threads = {name: Background(lambda s=send: outcome(s)) for name, send in SENDS.items()}
    return {name: thread.join() for name, thread in threads.items()}


LATE = repr(AssociationTimeout("the peer has not taken what was sent in time"))


@pytest.mark.slow
def test_data_from_a_peer_that_reads_nothing_does_not_extend_the_timeout() -> None:
    begun = time.monotonic()
    assert outcomes(drip) == dict.fromkeys(SENDS, LATE)
    assert time.monotonic() - begun < 10 * SHORT


def test_a_release_of_a_requestor_waits_for_the_message_of_another_task() -> None:
    last = bytearray()

    def script(connection: socket.socket) -> None:
        time.sleep(SHORT / 5)  # lets the other task ask for the release
        while (pdu := receive_exactly_one(connection)) and pdu[0] == DataTransfer.type:
            last[:] = pdu[11:12]  # the message control header
        last.extend(pdu[:1])
        connection.sendall(encode(ReleaseResponse()))

    async def send_and_release(port: int) -> None:
        association = await aio.connect(LOCALHOST, port, **REQUESTOR)
        sender = asyncio.create_task(association.send(MUCH, context=CT, is_command=True))
        await asyncio.sleep(0)
        try:
            await association.release()
        finally:
            await sender

    with narrow_acceptor(script) as port:
        asyncio.run(send_and_release(port))
    assert last == bytes([3, ReleaseRequest.type])


SLOWLY = 4 * SHORT


def read_slowly(connection: socket.socket) -> None:
    """Read steadily, but so little that the sender's system frees no room for longer than its
    timeout; then read the rest."""
    begun, left = time.monotonic(), len(MUCH)
    while left > 0:
        is_slow = time.monotonic() - begun < SLOWLY
        time.sleep(SHORT / 10 if is_slow else 0)
        data = connection.recv(NARROW // 2 if is_slow else MIB)
        assert data
        left -= len(data)


@pytest.mark.slow
def test_a_peer_that_reads_slowly_but_steadily_does_not_time_out() -> None:
    begun = time.monotonic()
    assert outcomes(read_slowly) == dict.fromkeys(SENDS)
    assert time.monotonic() - begun > SLOWLY


@pytest.mark.slow
def test_a_peer_that_reads_queued_data_slowly_does_not_time_out() -> None:
    with blocking(handler=send_much, timeout=SHORT) as host, ExitStack() as stack:
        peer = slow(stack, host, NARROW)
        peer.send(COMMAND)
        read_slowly(peer.socket)
        assert host.counters.open == 1


# ---- the collector -------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    "what",
    [are_sent_to_and_collected, errors_of_l_dicom_are_collected, lent_bytes_are_collected],
)
def test_unsent_data_does_not_crash_the_collector(what: Callable[[], None]) -> None:
    """It runs in a process of its own, since a crash would end it."""
    run_apart(f"apart.{what.__name__}()")


# ---- incomplete PDUs -----------------------------------------------------------------------------

ONLY_THERE = Admission(contexts=ltdic.ANY, calling=["THERE"], max_associate=MIB)
STRANGER = replace(REQUEST, calling_ae="STRANGER")


def is_accepted(peer: Peer) -> None:
    peer.send(REQUEST)
    peer.associate()


def is_rejected(peer: Peer) -> None:
    peer.send(STRANGER)
    assert peer.take() == AssociateReject(1, 1, 3)


def is_undecided(peer: Peer) -> None:
    peer.send(REQUEST)


STATES = {3: is_undecided, 6: is_accepted, 13: is_rejected}


@pytest.mark.slow
@pytest.mark.parametrize("state", STATES)
def test_incomplete_requests_are_bounded_in_every_state(serve: Serve, state: int) -> None:
    """Beyond the limit the oldest one is ended; a closed connection makes room."""
    gate, wire = Gate(), proposing_many()[:-1]
    admission = replace(ONLY_THERE, on_request=gate if state == 3 else None)
    try:
        with serve(admission=admission) as host, ExitStack() as stack:
            limit_unfinished(host, 3 * len(wire))
            peers = [opened(stack, host) for _ in range(5)]
            for peer in peers:
                STATES[state](peer)
            for peer in peers[:3]:
                peer.send(wire)
            time.sleep(0.1)  # until it has read that
            assert not any(map(has_come, peers))
            peers[3].send(wire)
            eventually(lambda: any(map(has_come, peers)))
            (ended,) = [peer for peer in peers if has_come(peer)]
            assert ended in peers[:3]
            assert isinstance(ended.take(), Abort)
            ended.close()
            peers.remove(ended)
            peers[0].close()
            time.sleep(0.1)
            peers[3].send(wire)
            time.sleep(0.1)
            assert not any(map(has_come, peers[1:]))
            gate.opens.set()
    finally:
        gate.opens.set()


def test_incomplete_requests_are_bounded_in_open_associations_of_l_dicom() -> None:
    wire = largest_request()[:-1]
    fit = (64 << 20) // len(wire)
    count = fit + 2
    with in_l_dicom() as host, ExitStack() as stack:
        peers = [opened(stack, host, REQUEST) for _ in range(count)]
        for peer in peers:
            peer.associate()
            peer.send(wire)
        eventually(lambda: sum(map(has_come, peers)) == count - fit)
        for peer in peers:
            if has_come(peer):
                assert isinstance(peer.take(), Abort)
        assert is_served(host) < TIMEOUT / 2


# ---- unfinished messages, and received pieces ----------------------------------------------------


def breaks_off() -> Iterator[bytes]:
    """Yield more than one part for the engine, and then raise."""
    yield bytes(MIB)
    raise OSError("the source is gone")


def test_an_unfinished_message_is_not_continued_by_another_sender(serve: Serve) -> None:
    with serve() as host, Peer(host, REQUEST) as peer:
        peer.associate()
        served = host.one()
        with pytest.raises(OSError, match="is gone"):
            host.do(lambda: served.send(breaks_off(), context=CT, is_command=True))
        for _ in range(2):
            with pytest.raises(LocalError, match="only abort"):
                host.do(lambda: served.send(b"ab", context=CT, is_command=True))
        host.do(served.abort)


def test_an_unfinished_message_of_a_requestor_is_not_continued() -> None:
    with blocking() as host:
        with ltdic.connect(*host.server.address, contexts=[CT], timeout=TIMEOUT) as association:
            with pytest.raises(OSError, match="is gone"):
                association.send(breaks_off(), context=CT, is_command=True)
            with pytest.raises(LocalError, match="only abort"):
                association.send(b"ab", context=CT, is_command=True)
            association.abort()
        assert host.end()[1].outcome == "aborted"


def data_of(pieces: list[bytes]) -> list[tuple[bool, bool, bytes]]:
    """Send these bytes to an acceptor after its A-ASSOCIATE-AC; return its messages, each
    joined."""
    association = ltdic.Association(requestor=False)
    association.receive_data(encode(REQUEST))
    assert len(list(association.events())) == 1
    association.send(ACCEPTED)
    association.data_to_send()
    found: list[tuple[bool, bool, bytes]] = []
    for piece in pieces:
        association.receive_data(piece)
        for event in association.events():
            assert isinstance(event, PDV)
            before = found.pop() if found and not found[-1][1] else (event.is_command, False, b"")
            found.append((event.is_command, event.is_last, before[2] + bytes(event.data)))
    return found


def test_a_p_data_tf_of_several_pdvs_may_be_cut_anywhere() -> None:
    pdvs = PDV(3, True, False, b"ab"), PDV(3, True, True, bytes(300)), PDV(3, False, True, b"cdef")
    wire = encode(DataTransfer(pdvs))
    whole = data_of([wire])
    assert whole == [(True, True, b"ab" + bytes(300)), (False, True, b"cdef")]
    for at in range(1, len(wire)):
        assert data_of([wire[:at], wire[at:]]) == whole, at
    assert data_of([wire[at : at + 1] for at in range(len(wire))]) == whole


def test_bytes_after_the_end_are_not_kept() -> None:
    """This includes bytes like the beginning of a long PDU."""
    association = ltdic.Association(requestor=False)
    association.receive_data(encode(REQUEST))
    assert len(list(association.events())) == 1
    association.send(AssociateReject(1, 1, 7))
    association.data_to_send()
    association.receive_data(bytes.fromhex("0400 00010003 0000ffff 0103"))
    for _ in range(100):
        assert list(association.events()) == []
        association.receive_data(bytes(MIB))
        association.data_to_send()
    assert list(association.events()) == []
    assert association.unused < MIB


def test_data_behind_an_abort_of_the_handler_is_not_handled(serve: Serve) -> None:
    handled: list[PDV] = []

    def handler(association: Any, pdv: PDV) -> Iterator[Any]:
        handled.append(pdv)
        association.abort()
        yield

    with serve(handler=handler) as host, Peer(host, REQUEST) as peer:
        peer.associate()
        peer.send(*[COMMAND] * 500)
        assert peer.take() == Abort(0, 0)
        peer.close()
        assert host.end()[1].outcome == "aborted"
    assert len(handled) == 1
