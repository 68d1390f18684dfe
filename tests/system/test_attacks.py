"""Small attacks over loopback, and the limits of their effects.

The tests check values that do not depend on the machine: counters, logs, bytes sent and held, the
order of events, and that an honest caller is served meanwhile.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import queue
import resource
import socket
import subprocess
import sys
import threading
import time
import timeit
import weakref
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from typing import Any

import pytest

import ltdic
from ltdic import (
    PDU,
    PDV,
    Abort,
    Admission,
    AssociateAccept,
    AssociateReject,
    AssociateRequest,
    AssociationTimeout,
    ContextResult,
    DataTransfer,
    ExtendedNegotiation,
    LocalError,
    ProposedContext,
    RoleSelection,
    UserInformation,
    _on_request,
    aio,
    decode,
    encode,
    lib,
)
from ltdic._sending import part_size
from ltdic.l_dicom import *  # noqa: F403
from support.apart import are_sent_to_and_leave, run_apart
from support.commands import command_set, echo_request, elements_of
from support.hostile import rich
from support.hosts import (
    SERVERS,
    SUPPORTED,
    Gate,
    Host,
    Serve,
    blocking,
    in_asyncio,
    limit_unfinished,
)
from support.l_dicom_host import LDicom, in_l_dicom
from support.paths import TESTS
from support.pdus import p_data
from support.peer import (
    EMPTY,
    MIB,
    REQUEST,
    SHORT,
    Peer,
    Script,
    deaf,
    drip,
    has_come,
    is_served,
    large_request,
    largest_request,
    opened,
    peer_releases,
    proposing_many,
    take_echo,
)
from support.process import memory_allowed, memory_in_use
from support.raw import ACCEPT, associated, drained, raw_acceptor
from support.sockets import LOCALHOST, TIMEOUT, close_with_reset
from support.threads import Background
from support.tls import server_context
from support.uids import CT, EXPLICIT, IMPLICIT, VERIFICATION
from support.waiting import eventually

# ruff: noqa: F405

BUSY, FAILED = AssociateReject(2, 3, 1), AssociateReject(2, 1, 1)


@pytest.fixture(autouse=True)
def nothing_is_raised_in_a_loop(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Assert that asyncio logs nothing: it logs an exception of a callback as an ERROR."""
    yield
    for when in ("setup", "call"):
        records = [r for r in caplog.get_records(when) if r.name == "asyncio"]
        said = [r.getMessage() for r in records if r.levelno >= logging.WARNING]
        assert [text for text in said if not text.startswith("Executing ")] == []  # debug mode


# ---- an illegal class of a C-ECHO ----------------------------------------------------------------


@contextmanager
def three_in_each(face: str) -> Iterator[Any]:
    """A server of any face with a limit of three associations."""
    options: Any = {} if face == "l_dicom" else {"max_associations": 3, "on_end": None}
    with in_l_dicom(3) if face == "l_dicom" else SERVERS[face](**options) as host:
        yield host


FACES = [*SERVERS, "l_dicom"]


@pytest.mark.parametrize("behind", [0, 200 << 10])
@pytest.mark.parametrize("face", FACES)
def test_an_echo_of_an_illegal_class_is_aborted_and_its_place_is_free(
    face: str, behind: int
) -> None:
    wire = echo_request(1, "1..2") * 3 + p_data(bytes(1000), True, False) * (behind // 1000)
    with three_in_each(face) as host, ExitStack() as stack:
        for _ in range(6):  # each peer keeps its socket open
            peer = opened(stack, host, REQUEST)
            peer.associate()
            peer.send(wire)
            assert peer.take() == Abort(0, 0)
        assert is_served(host) < TIMEOUT / 2
        stack.close()
        if face != "l_dicom":
            eventually(lambda: host.counters.open == 0)
            counters = host.counters
            assert (counters.connections, counters.accepted) == (7, 7)
            assert (counters.aborted, counters.released) == (6, 1)


# ---- several senders -----------------------------------------------------------------------------


def store_request(number: int) -> bytes:
    """Return a C-STORE-RQ with no more than that a data set follows."""
    return command_set({0x0002: CT, 0x0100: 0x0001, 0x0110: number, 0x0800: 0x0000})


LARGE = 3 * MIB
TIMES = 10


def data_set_of(number: int) -> Any:
    return bytes([number]) * LARGE


async def pieces_of(number: int) -> AsyncIterator[bytes]:
    """Yield pieces; other tasks run after each."""
    for _ in range(6):
        yield bytes([number]) * (LARGE // 6)
        await asyncio.sleep(0)


def pairs(association: Any, number: int, data_set: Any = data_set_of) -> Iterator[Any]:
    """Send commands with their data sets."""
    for _ in range(TIMES):
        yield association.send(store_request(number), context=CT, is_command=True)
        yield association.send(data_set(number), context=CT)


class Pairs:
    """The received messages as pairs of a command and a data set."""

    def __init__(self) -> None:
        self.found: list[tuple[list[int], set[int], int]] = []
        """Senders by the commands, senders by the data set, and its size."""
        self._commands: list[int] = []
        self._command, self._data = b"", bytearray()

    def add(self, pdv: PDV) -> None:
        if pdv.is_command:
            self._command += bytes(pdv.data)
            if pdv.is_last:
                number = int.from_bytes(elements_of(self._command)[0x0110], "little")
                self._commands.append(number)
                self._command = b""
            return
        self._data += pdv.data
        if pdv.is_last:
            self.found.append((self._commands, set(self._data), len(self._data)))
            self._commands, self._data = [], bytearray()

    def are_whole(self) -> bool:
        senders = sorted(commands[0] for commands, _, _ in self.found)
        pairs = [([n], {n}, LARGE) for n in senders]
        return senders == [1] * TIMES + [2] * TIMES and sorted(self.found) == pairs


@pytest.mark.slow
def test_messages_of_two_senders_of_a_server_are_received_whole_and_in_pairs(serve: Serve) -> None:
    came = Pairs()
    with (
        serve() as host,
        ltdic.connect(*host.server.address, contexts=[CT], timeout=TIMEOUT) as association,
    ):
        served = host.one()
        for number in (1, 2):
            send = host.handler_of(pairs)
            host.begin(lambda n=number, send=send: send(served, n))
        while len(came.found) < 2 * TIMES:
            pdv = association.receive()
            assert pdv is not None
            came.add(pdv)
    assert came.are_whole()


@pytest.mark.slow
def test_messages_of_two_tasks_of_a_requestor_are_received_whole_and_in_pairs() -> None:
    came = Pairs()

    def handler(_: Any, pdv: PDV) -> Iterator[Any]:
        came.add(pdv)
        yield from ()

    async def send_all(host: Host) -> None:
        async def send(number: int) -> None:
            for sending in pairs(association, number, pieces_of):
                await sending

        address = host.server.address
        async with aio.connect(*address, contexts=[CT], timeout=TIMEOUT) as association:
            await asyncio.gather(send(1), send(2))

    with blocking(handler=handler) as host:
        asyncio.run(send_all(host))
    assert came.are_whole()


def in_a_thread_with(number: int | None, function: Callable[[], Any]) -> None:
    """Call the function in a thread with this number: the system reuses numbers of ended threads,
    so that one of many has it."""
    begins, chosen = threading.Event(), list[int | None]()

    def run() -> None:
        begins.wait(TIMEOUT)
        if threading.get_ident() in chosen:
            function()

    threads = [Background(run) for _ in range(30)]
    numbers = [thread.ident for thread in threads]
    chosen.append(number if number in numbers else numbers[0])
    begins.set()
    for thread in threads:
        thread.join()


@pytest.mark.slow
@pytest.mark.parametrize("ends", [False, True])
def test_a_command_without_its_data_set_does_not_block_others_for_ever(
    serve: Serve, ends: bool
) -> None:
    """No other message is sent in between, whether its sender is alive or not."""
    sent, go_on = threading.Event(), threading.Event()

    def send(number: int) -> None:
        data = store_request(number)
        host.do(lambda: served.send(data, context=CT, is_command=True))

    def send_no_data_set() -> None:
        send(1)
        sent.set()
        go_on.wait(0 if ends else TIMEOUT)

    with (
        serve(timeout=SHORT) as host,
        ltdic.connect(*host.server.address, contexts=[CT], timeout=TIMEOUT) as association,
    ):
        served = host.one()
        first = Background(send_no_data_set)
        assert sent.wait(TIMEOUT)
        if ends:
            first.join()
        begun = time.monotonic()
        with pytest.raises(LocalError, match="has sent a command"):
            in_a_thread_with(first.ident, lambda: send(2))
        assert SHORT * 0.9 < time.monotonic() - begun < TIMEOUT / 2
        assert served.established
        go_on.set()
        first.join()
        association.abort()


def test_an_invalid_command_takes_no_more_time_than_a_data_set(serve: Serve) -> None:
    """A proxy may send what a peer has sent as a command."""
    costs: queue.SimpleQueue[tuple[float, float]] = queue.SimpleQueue()
    data = bytes(512 << 10)

    def handler(association: Any, pdv: PDV) -> Iterator[Any]:
        moments = [time.thread_time()]
        for is_command in (True, False):
            yield association.send(data, context=pdv.context_id, is_command=is_command)
            moments.append(time.thread_time())
        costs.put((moments[1] - moments[0], moments[2] - moments[1]))

    with (
        serve(handler=handler) as host,
        ltdic.connect(*host.server.address, contexts=[CT], timeout=TIMEOUT) as association,
    ):
        for _ in range(5):
            association.send(b"ab", context=CT, is_command=True)
            for _ in range(2):
                assert association.receive() is not None
    found = [costs.get(timeout=TIMEOUT) for _ in range(5)]
    assert min(one for one, _ in found) < 5 * min(other for _, other in found) + 0.002


# ---- decisions -----------------------------------------------------------------------------------

THREADS = 16  # the largest number of deciding threads
MOST_UNDECIDED = 256


@contextmanager
def gated(serve: Serve, **more: Any) -> Iterator[tuple[Host, Gate]]:
    """A server whose decisions wait for a gate, which opens at the end."""
    gate = Gate()
    try:
        with serve(admission=gate.admission(**more)) as host:
            yield host, gate
            gate.opens.set()
    finally:
        gate.opens.set()


def are_gone(host: Host, count: int) -> bool:
    """Tell whether so many requests are over and the server knows it of all."""
    gone = host.counters.unaccepted
    return gone + host.counters.rejected.total() == count and host.ended.qsize() >= gone


def test_on_request_is_not_called_for_requestors_that_have_left(serve: Serve) -> None:
    count = 300
    with gated(serve) as (host, gate):
        for _ in range(count):
            Peer(host, REQUEST).close()
        eventually(lambda: are_gone(host, count))
        before = len(gate.asked)
        assert before <= THREADS
        gate.opens.set()
        assert is_served(host) < TIMEOUT / 2
        assert len(gate.asked) == before + 1


@pytest.mark.slow
def test_a_deciding_coroutine_is_cancelled_when_its_requestor_leaves() -> None:
    asked, cancelled = [], []

    async def on_request(association: Any) -> None:
        asked.append(association)
        if len(asked) <= 100:
            try:
                await asyncio.Event().wait()
            finally:
                cancelled.append(association)

    with in_asyncio(
        admission=Admission(contexts=SUPPORTED, on_request=on_request), on_end=None
    ) as host:
        for n in range(100):
            with Peer(host, REQUEST):
                eventually(lambda n=n: len(asked) > n)
        eventually(lambda: len(cancelled) == 100)
        assert is_served(host) < TIMEOUT / 2
        assert host.counters.unaccepted == 100


def test_more_requests_than_may_wait_for_a_decision_are_refused_at_once(serve: Serve) -> None:
    beyond = 20
    with gated(serve) as (host, gate), ExitStack() as stack:
        peers = [opened(stack, host, REQUEST) for _ in range(MOST_UNDECIDED)]
        eventually(lambda: host.counters.connections == MOST_UNDECIDED)
        for _ in range(beyond):
            peer = opened(stack, host, REQUEST)
            assert has_come(peer, TIMEOUT / 5)
            assert peer.take() == BUSY
        assert not any(map(has_come, peers))
        assert len(gate.asked) <= THREADS
        gate.opens.set()
        for peer in peers:
            peer.associate()
        assert host.counters.rejected == {("sent", 2, 3, 1): beyond}
        assert is_served(host) < TIMEOUT / 2


@pytest.mark.slow
def test_the_bytes_that_wait_for_decisions_are_bounded(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_on_request, "MOST_UNDECIDED_BYTES", 5 * 70_000, raising=False)
    large = proposing_many()
    with gated(serve) as (host, gate), ExitStack() as stack:
        peers = [opened(stack, host, large) for _ in range(5)]
        eventually(lambda: host.counters.connections == 5)
        peer = opened(stack, host, large)
        assert has_come(peer, TIMEOUT / 5)
        assert peer.take() == BUSY
        peers.pop().close()  # frees its bytes
        eventually(lambda: host.counters.unaccepted == 1)
        peers.append(opened(stack, host, large))
        gate.opens.set()
        for peer in peers:
            peer.associate()


def test_requests_that_wait_for_a_decision_take_places(serve: Serve) -> None:
    with gated(serve, max_associations=2) as (host, gate), ExitStack() as stack:
        peers = [opened(stack, host, REQUEST) for _ in range(2)]
        eventually(lambda: len(gate.asked) == 2)
        assert opened(stack, host, REQUEST).take() == AssociateReject(2, 3, 2)
        gate.opens.set()
        for peer in peers:
            peer.associate()


# ---- large requests ------------------------------------------------------------------------------


EVERYTHING = Admission(contexts=ltdic.ANY)


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Record the PDUs that a server decodes."""
    found: list[bytes] = []

    def spy(data: Any, **options: Any) -> PDU:
        found.append(bytes(data))
        return decode(data, **options)

    monkeypatch.setattr(ltdic.association, "decode", spy)
    return found


@pytest.mark.slow
def test_a_large_request_is_not_decoded_and_little_of_it_is_kept(
    serve: Serve, decoded: list[bytes]
) -> None:
    count, heard = 10, queue.SimpleQueue()

    def handler(association: Any, pdv: PDV) -> Iterator[Any]:
        heard.put(association)
        yield association.send(b"ab", context=pdv.context_id, is_command=True)

    wire = largest_request()
    with (
        serve(admission=EVERYTHING, handler=handler, on_end=None) as host,
        ExitStack() as stack,
    ):
        before = memory_in_use()
        for _ in range(count):
            peer = opened(stack, host, wire)
            peer.associate()
            peer.send(p_data(b"ab", True))
            assert isinstance(peer.take(), DataTransfer)
            heard.get()
        assert memory_in_use() - before < memory_allowed(count * 3 * MIB)
        assert not [pdu for pdu in decoded if pdu[0] in (1, 2)]


@pytest.mark.slow
def test_a_large_request_is_freed_with_its_association(serve: Serve) -> None:
    """It is freed at once, without the collector."""
    gone: list[weakref.ref[Any]] = []
    with serve(admission=EVERYTHING, on_end=None) as host:
        gc.collect()
        gc.disable()
        try:
            for n in range(30):
                if n == 5:
                    before = memory_in_use()
                with Peer(host, largest_request()) as peer:
                    peer.associate()
                    gone.append(weakref.ref(host.one()))
                    peer_releases(host, peer)
                eventually(lambda: host.counters.open == 0)
            eventually(lambda: not any(ref() is not None for ref in gone))
            assert memory_in_use() - before < memory_allowed(10 * MIB)
        finally:
            gc.enable()


# ---- incomplete requests -------------------------------------------------------------------------


@contextmanager
def letting_all_in(face: str) -> Iterator[Any]:
    """A server of any face that accepts requests of 1 MiB."""
    options: Any = {} if face == "l_dicom" else {"admission": EVERYTHING, "on_end": None}
    with in_l_dicom() if face == "l_dicom" else SERVERS[face](**options) as host:
        yield host


def strangers(caplog: pytest.LogCaptureFixture) -> list[ltdic.Stranger]:
    return [r.stranger for r in caplog.records if hasattr(r, "stranger")]


def said_above_debug(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the logged texts, without those of asyncio's debug mode on slow steps."""
    said = [r.getMessage() for r in caplog.records if r.levelno > logging.DEBUG]
    return [text for text in said if not text.startswith("Executing ")]


@pytest.mark.slow
@pytest.mark.parametrize("face", FACES)
def test_incomplete_requests_take_at_most_64_mib_together(
    face: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Beyond the limit the oldest ones are ended."""
    caplog.set_level(logging.INFO, logger="ltdic")
    wire = largest_request()[:-1]
    count, fit = 70, (64 << 20) // len(wire)
    with letting_all_in(face) as host, ExitStack() as stack:
        peers = [opened(stack, host, wire) for _ in range(count)]
        eventually(lambda: sum(map(has_come, peers)) == count - fit)
        ended = [n for n, peer in enumerate(peers) if has_come(peer)]
        assert max(ended) < len(ended) + 3  # two may have the same age
        assert all(peers[n].take() == Abort(0, 0) for n in ended)
        assert is_served(host) < TIMEOUT / 2
        for n in ended:
            peers[n].close()
        if face == "l_dicom":
            return
        eventually(lambda: host.counters.no_request == len(ended))
        told = strangers(caplog)
        assert {one.peer for one in told} == {peers[n].address for n in ended}
        assert all("no whole A-ASSOCIATE-RQ" in one.text for one in told)
        peers[-1].send(largest_request()[-1:])
        peers[-1].associate()


def test_ended_requests_make_room_for_others(serve: Serve) -> None:
    """Completed requests and closed connections are no longer counted."""
    wire = proposing_many()
    with serve(admission=EVERYTHING) as host, ExitStack() as stack:
        limit_unfinished(host, 3 * len(wire))
        for _ in range(3):
            peers = [opened(stack, host, wire[:-1]) for _ in range(3)]
            time.sleep(0.05)  # until it has read that
            assert not any(map(has_come, peers))
            peers.pop().close()
            for peer in peers:
                peer.send(wire[-1:])
                peer.associate()
        peers = [opened(stack, host, wire[:-1]) for _ in range(4)]
        eventually(lambda: any(map(has_come, peers)))
        (ended,) = [peer for peer in peers if has_come(peer)]
        assert ended.take() == Abort(0, 0)
        assert ended in peers[:2]
        ended.close()
        eventually(lambda: host.counters.no_request == 4)
        assert host.counters.open == 6


@pytest.mark.parametrize(
    ("options", "is_taken"),
    [
        ({"contexts": SUPPORTED}, False),
        ({"contexts": ltdic.ANY}, True),
        ({"contexts": SUPPORTED, "max_associate": MIB}, True),
        ({"contexts": ltdic.ANY, "max_associate": 300_000}, False),
    ],
)
def test_an_oversized_request_is_refused_at_its_header(
    serve: Serve, options: dict[str, Any], is_taken: bool
) -> None:
    wire = large_request(5)
    assert len(wire) > 300 << 10
    with serve(admission=Admission(**options)) as host:
        with Peer(host, wire[:6]) as peer:
            if is_taken:
                peer.send(wire[6:])
                peer.associate()
                peer_releases(host, peer)
            else:
                assert peer.take() == Abort(0, 0)
        eventually(lambda: host.counters.faults == (not is_taken))


@pytest.mark.parametrize("face", FACES)
def test_a_server_by_default_takes_three_quarters_of_the_descriptors(
    face: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The limit of connections is three quarters of the limit of descriptors."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = 60

    def taken() -> int:
        return int(host.accepted if face == "l_dicom" else host.counters.connections)

    with ExitStack() as stack:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (most * 4 // 3, hard))
            host = stack.enter_context(letting_all_in(face))
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        peers = [opened(stack, host, REQUEST) for _ in range(most + 10)]
        for peer in peers[:most]:
            peer.associate()
        time.sleep(0.1)
        assert taken() == most
        for peer in peers[:10]:
            peer.close()
        for peer in peers[most:]:
            peer.associate()
    assert said_above_debug(caplog) == []


# ---- empty fragments -----------------------------------------------------------------------------


def flood(connection: socket.socket) -> None:
    """Send empty fragments as fast as the peer takes them, at most 12 MiB."""
    with suppress(OSError):
        connection.settimeout(2 * SHORT)
        for _ in range(256):
            connection.sendall(EMPTY * 4096)


def send_ten(connection: socket.socket) -> None:
    connection.sendall(EMPTY * 10)
    time.sleep(2 * SHORT)


Attacked = Callable[[Script, bool, int], None]


def receive_blocking(script: Script, joined: bool, times: int) -> None:
    with associated(script, timeout=SHORT) as (association, _):
        for _ in range(times):
            association.receive(joined=joined, limit=100_000)


def receive_in_asyncio(script: Script, joined: bool, times: int) -> None:
    async def receive(port: int) -> None:
        options: Any = {"contexts": [VERIFICATION, CT], "timeout": SHORT}
        async with aio.connect(LOCALHOST, port, **options) as association:
            for _ in range(times):
                await association.receive(joined=joined, limit=100_000)
            await association.abort()

    def accept_first(connection: socket.socket) -> None:
        connection.sendall(ACCEPT)
        script(connection)

    with raw_acceptor(accept_first) as (port, _):
        asyncio.run(receive(port))


by_requestor = pytest.mark.parametrize("receive", [receive_blocking, receive_in_asyncio])


@pytest.mark.slow
@by_requestor
def test_a_message_of_empty_fragments_ends_at_its_limit(receive: Attacked) -> None:
    before, begun = memory_in_use(), time.monotonic()
    with pytest.raises((LocalError, AssociationTimeout)):
        receive(flood, True, 1)
    assert time.monotonic() - begun < TIMEOUT / 2
    assert memory_in_use() - before < memory_allowed(30 * MIB)


@pytest.mark.slow
@by_requestor
def test_empty_fragments_do_not_extend_the_timeout(receive: Attacked) -> None:
    begun = time.monotonic()
    with pytest.raises(AssociationTimeout):
        receive(drip, True, 1)
    assert time.monotonic() - begun < 10 * SHORT


@pytest.mark.slow
@by_requestor
def test_empty_fragments_received_one_by_one_are_bounded(receive: Attacked) -> None:
    before = memory_in_use()
    receive(flood, False, 1000)
    assert memory_in_use() - before < memory_allowed(30 * MIB)
    with pytest.raises(AssociationTimeout):
        receive(send_ten, False, 11)


@pytest.mark.slow
@pytest.mark.parametrize("face", FACES)
@pytest.mark.parametrize(("data", "stays"), [(b"", False), (b"ab", True)])
def test_only_data_resets_the_idle_timeout(face: str, data: bytes, stays: bool) -> None:
    idle = 0.5
    options: Any = {"idle": idle}
    wire = p_data(data, True, False)
    with in_l_dicom(**options) if face == "l_dicom" else SERVERS[face](**options) as host:
        with Peer(host, REQUEST) as peer:
            peer.associate()
            begun = time.monotonic()
            while not has_come(peer, 0.05) and time.monotonic() - begun < 2 * idle:
                peer.send(wire)
            assert has_come(peer) == (not stays)
            if stays:
                peer.send(p_data(b"", True))
                peer_releases(host, peer)
            else:
                assert isinstance(peer.take(), Abort)
        if face == "l_dicom":
            eventually(lambda: host.closed.total() == 1)
            assert (DICOM_ERROR_TIMEOUT in host.closed) == (not stays)
        else:
            assert host.end()[1].outcome == ("released" if stays else "timed out")


# ---- peers that do not read ----------------------------------------------------------------------


@pytest.mark.slow
def test_peers_that_read_nothing_delay_no_other_and_are_aborted(serve: Serve) -> None:
    def handler(association: Any, pdv: PDV) -> Iterator[Any]:
        yield association.send(bytes(8 * MIB), context=pdv.context_id, is_command=True)

    with serve(handler=handler, timeout=1.5) as host, ExitStack() as stack:
        peers = [deaf(stack, host, REQUEST) for _ in range(4)]
        for peer in peers:
            peer.associate()
        for peer in peers:
            peer.send(p_data(b"ab", True))
        assert all(has_come(peer, TIMEOUT) for peer in peers)
        for _ in range(5):
            is_served(host)
        assert host.counters.aborted == 0  # well before their timeout
        eventually(lambda: host.counters.aborted == 4)
        is_served(host)
        for peer in peers:
            peer.close()
        outcomes = Counter(host.end()[1].outcome for _ in range(10))
        assert outcomes == {"aborted": 4, "released": 6}


@pytest.mark.slow
def test_a_peer_that_reads_slowly_gets_everything_in_order(serve: Serve) -> None:
    def handler(association: Any, pdv: PDV) -> Iterator[Any]:
        for n in range(8):
            yield association.send(bytes([n]) * MIB, context=pdv.context_id, is_command=True)

    with serve(handler=handler, timeout=2) as host, ExitStack() as stack:
        peer = deaf(stack, host, REQUEST, window=128 << 10)
        peer.associate()
        peer.send(p_data(b"ab", True))
        parts: list[bytes] = []
        ends: list[int] = []
        while len(ends) < 8:
            time.sleep(0.001)
            pdu = peer.take()
            assert isinstance(pdu, DataTransfer)
            parts += [bytes(pdv.data) for pdv in pdu.pdvs]
            ends += [len(parts) for pdv in pdu.pdvs if pdv.is_last]
        assert b"".join(parts) == b"".join(bytes([n]) * MIB for n in range(8))
        peer_releases(host, peer)


class Counting:
    """The C library, with the sizes of the data given to associations of a server."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def ltdic_served_send_data(self, *arguments: Any) -> int:
        self.sizes.append(arguments[-1].data.size)
        return int(lib.ltdic_served_send_data(*arguments))

    def __getattr__(self, name: str) -> Any:
        return getattr(lib, name)


def test_waiting_senders_are_not_retried_for_data_of_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    counting = Counting()

    def send_until_the_end(association: Any) -> None:
        with suppress(ltdic.Error):
            association.send(bytes(16 * MIB), context=CT, is_command=True)

    def has_settled() -> bool:
        before = len(counting.sizes)
        time.sleep(0.1)
        return before == len(counting.sizes)

    with blocking(handler=lambda *_: ()) as host, ExitStack() as stack:
        peers = [deaf(stack, host, REQUEST) for _ in range(20)]
        for peer in peers:
            peer.associate()
        eventually(lambda: len(host.server.open) == 20)
        waiting = [Background(lambda a=a: send_until_the_end(a)) for a in host.server.open]
        with ltdic.connect(*host.server.address, contexts=[CT], timeout=TIMEOUT) as association:
            eventually(lambda: len(host.server.open) == 21)
            served = host.server.open[-1]
            monkeypatch.setattr(ltdic._native.service, "lib", counting)
            eventually(has_settled)
            counting.sizes.clear()
            for _ in range(100):
                served.send(b"abcd", context=CT, is_command=True)
                assert association.receive() is not None
            assert counting.sizes == [4] * 100
        stack.close()
        for thread in waiting:
            thread.join()


SMALLEST = encode(AssociateRequest("A", "B", (), application_context=None))


@pytest.mark.slow
def test_requests_after_an_abort_get_a_bounded_number_of_answers(serve: Serve) -> None:
    """PS3.8 9.2 (AA-7) answers each A-ASSOCIATE-RQ after an A-ABORT with another A-ABORT."""
    wire, most = SMALLEST * 5000, 600 << 20
    with serve() as host, ExitStack() as stack:
        peer = deaf(stack, host, REQUEST)
        peer.associate()
        peer.send(SMALLEST)
        before, sent = memory_in_use(), 0
        peer.socket.settimeout(SHORT)
        with suppress(TimeoutError):
            while sent < most:
                sent += peer.socket.send(wire)
        assert memory_in_use() - before < memory_allowed(8 * MIB)
        assert is_served(host) < TIMEOUT / 2


def leave_at_once(peer: Peer) -> None:
    peer.send(p_data(b"ab", True))
    peer.close()


def leave_later(peer: Peer) -> None:
    peer.send(p_data(b"ab", True))
    assert has_come(peer, TIMEOUT)
    close_with_reset(peer.socket)


@pytest.mark.slow
@pytest.mark.parametrize("leave", [leave_at_once, leave_later])
def test_peers_that_leave_during_a_send_cause_no_error(
    serve: Serve, leave: Callable[[Peer], None], caplog: pytest.LogCaptureFixture
) -> None:
    are_sent_to_and_leave(serve, leave)
    assert said_above_debug(caplog) == []


@pytest.mark.slow
@pytest.mark.parametrize("face", SERVERS)
def test_an_abort_behind_handled_data_causes_no_error(face: str) -> None:
    """It runs in a process of its own: an exception in a cycle with memory views can crash the
    collector of CPython 3.11."""
    run_apart(
        f"apart.are_sent_to_and_leave(hosts.SERVERS[{face!r}], apart.abort_at_once)", logs=True
    )


# ---- many small messages and small PDUs ----------------------------------------------------------


@pytest.mark.slow
def test_many_small_messages_of_one_peer_do_not_delay_others(serve: Serve) -> None:
    count = 5000
    handled = 0

    def handler(association: Any, pdv: PDV) -> Iterator[Any]:
        nonlocal handled
        handled += 1
        time.sleep(0.0002)  # the duration of some work
        yield from ()

    with serve(handler=handler) as host, ExitStack() as stack:
        honest, peer = (opened(stack, host, REQUEST) for _ in range(2))
        honest.associate()
        peer.associate()
        peer.send(p_data(b"ab", True) * count)
        eventually(lambda: handled > 0)
        before = handled
        honest.send(echo_request(1))
        assert take_echo(honest) == 1
        assert handled - before < count / 5
        eventually(lambda: handled == count)


@pytest.mark.slow
@pytest.mark.parametrize("face", FACES)
def test_two_thousand_echoes_at_once_are_all_answered(face: str) -> None:
    with letting_all_in(face) as host, Peer(host, REQUEST) as peer:
        peer.associate()
        peer.send(b"".join(echo_request(n) for n in range(2000)))
        assert [take_echo(peer) for _ in range(2000)] == list(range(2000))
        peer_releases(host, peer)


TAKES_LITTLE = replace(REQUEST, user_info=UserInformation(8, "1.2.3"))


@pytest.mark.slow
def test_a_requestor_with_a_small_maximum_length_delays_no_other(serve: Serve) -> None:
    """2 MiB of data are 14 MiB on the wire."""
    sent = threading.Event()

    def handler(association: Any, pdv: PDV) -> Iterator[Any]:
        yield association.send(bytes(2 * MIB), context=pdv.context_id, is_command=True)
        sent.set()

    with serve(handler=handler) as host, ExitStack() as stack:
        honest = opened(stack, host, REQUEST)
        peer = deaf(stack, host, TAKES_LITTLE, window=128 << 10)
        honest.associate()
        peer.associate()
        peer.send(p_data(b"ab", True))
        for n in range(50):
            honest.send(echo_request(n))
            assert has_come(honest, TIMEOUT / 10)
            assert take_echo(honest) == n
        assert len(peer.read(14 * MIB)) == 14 * MIB
        assert sent.wait(TIMEOUT)


@pytest.mark.parametrize("most", [0, 6, 8, 9, 10, 100, 16384, 0x40000, 0xFFFFFFFF])
def test_a_part_has_a_bounded_number_of_pdus(most: int) -> None:
    size = part_size(encode(replace(REQUEST, user_info=UserInformation(most, "1.2.3"))))
    fragment = max(2, (most or 1 << 32) - 6) & ~1
    assert size % 2 == 0
    assert size == MIB // 2 or size == 2048 * fragment < MIB // 2


@pytest.mark.slow
def test_a_fast_requestor_with_a_small_maximum_length_delays_no_other(serve: Serve) -> None:
    def handler(association: Any, pdv: PDV) -> Iterator[Any]:
        yield association.send(bytes(2 * MIB), context=pdv.context_id, is_command=True)

    def taken(peer: Peer) -> None:
        with suppress(OSError):
            peer.read(14 * MIB)

    with serve(handler=handler) as host, ExitStack() as stack:
        honest, peer = opened(stack, host, REQUEST), opened(stack, host, TAKES_LITTLE)
        honest.associate()
        peer.associate()
        reader = threading.Thread(target=taken, args=(peer,))
        reader.start()
        peer.send(p_data(b"ab", True))
        echoes = 0
        while reader.is_alive():
            honest.send(echo_request(echoes % 65536))
            assert take_echo(honest) == echoes % 65536
            echoes += 1
        assert echoes > 10


def test_a_large_request_in_small_pieces_is_received_in_time_that_grows_with_it() -> None:
    def per_byte(wire: bytes) -> float:
        def receive() -> None:
            association = ltdic.Association(requestor=False)
            for at in range(0, len(wire), 100):
                association.receive_data(wire[at : at + 100])
                list(association.events())
            assert association.state == 3

        timer = timeit.Timer(receive, timer=time.thread_time)
        return min(timer.repeat(number=1, repeat=2)) / len(wire)

    # Quadratic time would give 8 in every round.
    small, large = large_request(1), large_request(15)
    assert any(per_byte(large) / per_byte(small) < 3 for _ in range(3))


# ---- exceptions of on_request and of handlers ----------------------------------------------------

RAISED = [SystemExit, asyncio.CancelledError, KeyboardInterrupt, RuntimeError]


def all_fail_but_the_last(host: Host, count: int, last: bytes) -> None:
    """Assert that so many requests are rejected with 2/1/1, and that the next one is served."""
    for _ in range(count):
        with Peer(host, REQUEST) as peer:
            assert has_come(peer, TIMEOUT / 5)
            assert peer.take() == FAILED
    with Peer(host, last) as peer:
        peer.associate()
        peer_releases(host, peer)


@pytest.mark.parametrize("error", RAISED)
def test_any_exception_of_a_decision_answers_its_request(
    serve: Serve, error: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    def on_request(association: Any) -> None:
        if association.calling_ae == "THERE":
            raise error("this is the end")

    other = encode(replace(REQUEST, calling_ae="OTHER"))
    with serve(admission=Admission(contexts=SUPPORTED, on_request=on_request)) as host:
        all_fail_but_the_last(host, THREADS + 4, other)
        assert host.counters.rejected == {("sent", 2, 1, 1): THREADS + 4}
    assert caplog.text.count("on_request failed; the request is rejected") == THREADS + 4


@pytest.mark.parametrize("error", RAISED[:2])
def test_any_exception_of_a_deciding_coroutine_answers_its_request(
    error: type[BaseException],
) -> None:
    """KeyboardInterrupt, which ends a loop, is the exception."""

    async def on_request(association: Any) -> None:
        if association.calling_ae == "THERE":
            raise error("this is the end")

    other = encode(replace(REQUEST, calling_ae="OTHER"))
    with in_asyncio(admission=Admission(contexts=SUPPORTED, on_request=on_request)) as host:
        all_fail_but_the_last(host, 20, other)


def test_a_request_is_rejected_as_transient_when_no_thread_can_start(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object) -> None:
        raise RuntimeError("can't start new thread")

    admission = Admission(contexts=SUPPORTED, on_request=lambda _: None)
    with serve(admission=admission) as host:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", fail)
            for _ in range(3):
                with Peer(host, REQUEST) as peer:
                    assert has_come(peer, TIMEOUT / 5)
                    assert peer.take() == BUSY
        assert is_served(host) < TIMEOUT / 2
        assert host.counters.rejected == {("sent", 2, 3, 1): 3}


def test_a_cancelled_handler_frees_its_place() -> None:
    def handler(association: Any, pdv: PDV) -> Iterator[Any]:
        yield from ()
        raise asyncio.CancelledError

    with in_asyncio(handler=handler, max_associations=1) as host:
        for _ in range(3):
            with Peer(host, REQUEST) as peer:
                peer.associate()
                peer.send(p_data(b"ab", True))
                assert has_come(peer, TIMEOUT / 5)
                assert peer.take() == Abort(0, 0)
            eventually(lambda: host.counters.open == 0)
        is_served(host)


@pytest.mark.slow
def test_a_handler_that_exits_aborts_its_association_first(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Its exception ends the loop."""
    addresses: queue.SimpleQueue[tuple[str, int]] = queue.SimpleQueue()

    async def handler(association: Any, pdv: PDV) -> None:
        raise SystemExit(7)

    async def main() -> None:
        options: Any = {"admission": Admission(contexts=SUPPORTED), "timeout": SHORT}
        async with aio.Server((LOCALHOST, 0), handler=handler, **options) as server:
            addresses.put(server.address)
            await server.serve()

    thread = Background(lambda: asyncio.run(main()))
    host: Any = LDicom(0, 0)
    host.address = addresses.get(timeout=TIMEOUT)
    with Peer(host, REQUEST) as peer:
        peer.associate()
        peer.send(p_data(b"ab", True))
        assert has_come(peer, TIMEOUT / 5)
        assert peer.take() == Abort(0, 0)
        with pytest.raises(SystemExit):
            thread.join()
    del thread
    gc.collect()
    caplog.clear()  # asyncio logs a task whose exception nobody retrieved


def test_slow_decisions_do_not_use_the_default_executor() -> None:
    gate = Gate()

    async def in_executor() -> int:
        loop = asyncio.get_running_loop()
        return await asyncio.wait_for(loop.run_in_executor(None, lambda: 7), TIMEOUT / 5)

    try:
        with in_asyncio(admission=gate.admission()) as host, ExitStack() as stack:
            peers = [opened(stack, host, REQUEST) for _ in range(THREADS + 4)]
            eventually(lambda: host.counters.connections == len(peers))
            eventually(lambda: len(gate.asked) > 1)
            assert host.do(in_executor) == 7
            gate.opens.set()
            for peer in peers:
                peer.associate()
    finally:
        gate.opens.set()


LONG_DECISION = """
import asyncio, socket, sys, threading, time
from ltdic import Admission, aio

begun = threading.Event()

def on_request(association):
    begun.set()
    time.sleep(60)

async def main():
    admission = Admission(on_request=on_request)
    async with aio.Server(("127.0.0.1", 0), admission=admission, timeout=0.5) as server:
        with socket.create_connection(server.address) as peer:
            peer.sendall(bytes.fromhex(sys.argv[1]))
            await server.serve(until=begun.is_set)

asyncio.run(main())
"""


@pytest.mark.slow
def test_a_process_exits_without_waiting_for_a_decision() -> None:
    command = [sys.executable, "-c", LONG_DECISION, encode(REQUEST).hex()]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=TESTS, timeout=TIMEOUT)
    assert (ran.returncode, ran.stderr) == (0, "")


# ---- repeated contexts, and NULs in titles -------------------------------------------------------

TWICE = {
    "Verification first": (ProposedContext(1, VERIFICATION, (IMPLICIT,)), VERIFICATION, IMPLICIT),
    "CT first": (ProposedContext(1, CT, (EXPLICIT,)), CT, EXPLICIT),
}


@pytest.mark.parametrize("first", TWICE)
def test_the_first_of_two_contexts_with_one_id_counts(serve: Serve, first: str) -> None:
    context, abstract, transfer = TWICE[first]
    contexts = [context, *(other for other, _, _ in TWICE.values() if other != context)]
    heard: queue.Queue[tuple[Any, bytes]] = queue.Queue()

    def handler(association: Any, pdv: PDV) -> Iterator[Any]:
        heard.put((association.contexts, bytes(pdv.data)))
        yield association.send(b"handled.", context=1, is_command=True)

    with (
        serve(handler=handler) as host,
        Peer(host, replace(REQUEST, contexts=tuple(contexts))) as peer,
    ):
        answers = peer.associate().contexts
        assert {(c.id, c.result, c.transfer_syntax) for c in answers} == {(1, 0, transfer)}
        (negotiated,) = host.one().contexts
        assert negotiated == (1, abstract, 0, transfer)
        peer.send(echo_request(9))
        if abstract == VERIFICATION:
            assert take_echo(peer) == 9
            assert heard.empty()
        else:
            answer = peer.take()
            assert isinstance(answer, DataTransfer)
            assert bytes(answer.pdvs[0].data) == b"handled."
            found, command = heard.get(timeout=TIMEOUT)
            assert found == (negotiated,)
            assert elements_of(command)[0x0110] == b"\x09\0"
        peer_releases(host, peer)


ACCEPTED, REFUSED = ContextResult(3, 0, IMPLICIT), ContextResult(3, 4, IMPLICIT)


async def is_sent_in_asyncio(port: int) -> tuple[Any, bool]:
    options: Any = {"contexts": [VERIFICATION, CT], "timeout": TIMEOUT}
    association = await aio.connect(LOCALHOST, port, **options)
    try:
        await association.send(b"ab", context=3, is_command=True)
    except LocalError:
        return association.contexts, False
    finally:
        await association.abort()
    return association.contexts, True


def is_sent(port: int) -> tuple[Any, bool]:
    options: Any = {"contexts": [VERIFICATION, CT], "timeout": TIMEOUT}
    association = ltdic.connect(LOCALHOST, port, **options)
    try:
        association.send(b"ab", context=3, is_command=True)
    except LocalError:
        return association.contexts, False
    finally:
        association.abort()
    return association.contexts, True


@pytest.mark.parametrize("answers", [(ACCEPTED, REFUSED), (REFUSED, ACCEPTED)])
@pytest.mark.parametrize("send", [is_sent, lambda port: asyncio.run(is_sent_in_asyncio(port))])
def test_the_first_of_two_answers_to_one_context_counts(
    send: Callable[[int], tuple[Any, bool]], answers: tuple[ContextResult, ...]
) -> None:
    info = UserInformation(16384, "1.2.3")
    contexts = (ContextResult(1, 0, IMPLICIT), *answers)
    accept = encode(AssociateAccept("HERE", "THERE", contexts, user_info=info))

    def script(connection: socket.socket) -> None:
        connection.sendall(accept)
        drained(connection)

    is_accepted = answers[0] == ACCEPTED
    with raw_acceptor(script) as (port, _):
        contexts, was_sent = send(port)
    assert [(c.id, c.accepted) for c in contexts] == [(1, True), (3, is_accepted)]
    assert was_sent == is_accepted


FORGED = b"1.2\nINFO:forged\x1b[31m"
"""No UID, but what begins a line of a log and commands a terminal."""
ANSWERS: dict[str, Callable[[AssociateAccept, str], AssociateAccept]] = {
    "class": lambda accept, uid: accept,  # the handler sends, and the error names what was accepted
    "syntax": lambda accept, uid: replace(accept, contexts=(ContextResult(1, 0, uid),)),
    "role": lambda accept, uid: with_user_info(accept, roles=(RoleSelection(uid, 1, 1),)),
    "extended": lambda accept, uid: with_user_info(
        accept, extended=(ExtendedNegotiation(uid, b""),)
    ),
}


def with_user_info(accept: AssociateAccept, **changes: Any) -> AssociateAccept:
    assert accept.user_info is not None
    return replace(accept, user_info=replace(accept.user_info, **changes))


@pytest.mark.parametrize("answer", ANSWERS)
def test_no_uid_of_a_peer_forges_a_line_of_the_log(
    serve: Serve, answer: str, caplog: pytest.LogCaptureFixture
) -> None:
    def handle(association: Any, _: PDV) -> Iterator[Any]:
        yield association.send(b"ab", context="1.2.3", is_command=True)

    def on_request(association: Any) -> AssociateAccept:
        uid = association.request.contexts[0].abstract_syntax
        return ANSWERS[answer](association.accept, uid)

    admission = Admission(contexts=ltdic.ANY, on_request=on_request)
    known = {"application": b"1.2.840.10008.3.1.1.1", "transfer": IMPLICIT.encode()}
    request = rich(1, **known, abstract=FORGED)
    with serve(admission=admission, handler=handle) as host, Peer(host, request) as peer:
        if answer == "class":
            peer.associate()
            peer.send(p_data(b"ab", True, context=1))
        last = peer.take()
        assert isinstance(last, Abort if answer == "class" else AssociateReject)
        eventually(lambda: "forged" in caplog.text)
    said = caplog.handler.stream.getvalue()  # `caplog.text` has no escape sequences
    assert "\nINFO:forged" not in said
    assert "\x1b" not in said


def test_a_title_with_a_nul_is_told_whole_by_a_server(serve: Serve) -> None:
    told: queue.Queue[str] = queue.Queue()
    admission = Admission(
        contexts=SUPPORTED, on_request=lambda association: told.put(association.calling_ae)
    )
    wire = encode(REQUEST)
    evil = wire[:26] + b"CT_1\0EVIL".ljust(16) + wire[42:]
    with serve(admission=admission) as host:
        with Peer(host, evil) as peer:
            peer.associate()
            peer_releases(host, peer)
        association, record = host.end()
        assert told.get(timeout=TIMEOUT) == record.calling_ae == "CT_1?EVIL"
        assert association.calling_ae == "CT_1?EVIL"


def test_a_host_name_with_a_nul_is_refused() -> None:
    host = LOCALHOST + "\0.example"

    async def connect(port: int) -> None:
        await aio.connect(host, port, timeout=TIMEOUT)

    with blocking() as face:
        port = face.server.address[1]
        for call in (lambda: ltdic.connect(host, port), lambda: asyncio.run(connect(port))):
            with pytest.raises(ltdic.ConnectionFailed):
                call()
        assert face.counters.connections == 0
    with pytest.raises((OSError, ValueError)):
        ltdic.Server((host, 0))


# ---- no descriptors, and unfinished handshakes ---------------------------------------------------


@pytest.mark.slow
def test_a_server_closes_during_stalled_handshakes() -> None:
    count = 50
    with in_asyncio(tls=server_context(), on_end=None) as host, ExitStack() as stack:
        for n in range(count):
            opened(stack, host, b"\x16\3\1\2\0" if n % 2 else b"")
        eventually(lambda: host.counters.connections == count)
        begun = time.monotonic()
        host.server.close()
        eventually(lambda: host.counters.no_request + host.counters.tls_failures == count)
        host.do(host.server.serve)  # returns at the end of the server
        assert time.monotonic() - begun < TIMEOUT / 4
