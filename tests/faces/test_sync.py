"""The blocking face: `ltdic.connect` against raw sockets, and `ltdic.Server`."""

from __future__ import annotations

import copy
import gc
import hashlib
import io
import logging
import os
import pickle
import queue
import random
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from functools import partial
from typing import Any

import pytest
import trustme

import ltdic
from ltdic import (
    PDV,
    Abort,
    Admission,
    AssociateReject,
    AssociationAborted,
    AssociationRejected,
    AssociationTimeout,
    ConnectionClosed,
    ConnectionFailed,
    LocalError,
    Server,
    UserIdentity,
    aio,
    decode,
    encode,
)
from support.commands import echo_response
from support.faces import DATA_CONTEXT, RESPONSE
from support.pdus import RELEASE_RP, RELEASE_RQ, p_data
from support.process import descriptors, few_descriptors, memory_allowed, memory_in_use
from support.raw import (
    ACCEPT,
    BIG,
    OPTIONS,
    REQUEST,
    SHORT,
    SOURCES,
    STATES,
    associated,
    drained,
    raw_acceptor,
    raw_requestor,
    read_message,
)
from support.servers import ALL, SUPPORTED, answer, of_associations, serving, serving_in_asyncio
from support.sockets import LOCALHOST, TIMEOUT, receive_exactly_one, receive_pdu
from support.threads import Background, background
from support.tls import client_context, server_context
from support.uids import IMPLICIT, SECONDARY_CAPTURE
from support.waiting import eventually

# ---- sending and receiving ---------------------------------------------------------------------


@pytest.mark.parametrize("source", SOURCES)
def test_a_data_set_is_sent_from_any_source_of_bytes(source: str) -> None:
    with associated(read_message) as (association, peer):
        association.send(SOURCES[source](BIG), context=SECONDARY_CAPTURE, is_command=True)
        _, received = peer.join()
        assert received == BIG


def test_a_file_is_read_as_it_is_sent() -> None:
    most = 0

    class File(io.RawIOBase):
        left = 200

        def read(self, size: int = -1) -> bytes:
            nonlocal most
            most = max(most, memory_in_use())
            self.left -= 1
            return bytes(size) if self.left >= 0 else b""

    def count(connection: socket.socket) -> None:
        while receive_exactly_one(connection)[11] != 3:
            pass

    with associated(count) as (association, peer):
        before = memory_in_use()
        association.send(File(), context=DATA_CONTEXT, is_command=True)
        peer.join()
    assert most - before < memory_allowed(60 << 20)  # the file has 100 MiB


@pytest.mark.parametrize("data", [b"abc", io.BytesIO(b"abc"), [b"ab", b"c"]])
def test_an_odd_number_of_bytes_is_a_value_error(data: Any) -> None:
    with associated(drained) as (association, _):
        with pytest.raises(ValueError, match="even"):
            association.send(data, context=DATA_CONTEXT, is_command=True)
        assert association.established


def test_an_unknown_context_is_a_local_error() -> None:
    with associated(drained) as (association, _):
        for context in (5, 4, "1.2.3.4.5"):
            with pytest.raises(LocalError):
                association.send(b"ab", context=context, is_command=True)
        with pytest.raises(LocalError):  # a message begins with a command
            association.send(b"ab", context=DATA_CONTEXT)
        with pytest.raises(ValueError, match="no UID"):
            association.send(b"ab", context="NoKeyword", is_command=True)
        assert association.established


def test_a_message_is_received_whole_or_in_fragments() -> None:
    def script(connection: socket.socket) -> bytes:
        for _ in range(2):
            connection.sendall(p_data(b"cmnd", is_command=True))
            for n in range(5):
                connection.sendall(p_data(b"%d" % n * 7, is_last=n == 4))
        return drained(connection)

    whole = b"".join(b"%d" % n * 7 for n in range(5))
    with associated(script) as (association, _):
        assert association.receive() == PDV(3, True, True, b"cmnd")
        assert association.receive() == PDV(3, False, True, whole)
        assert association.receive() == PDV(3, True, True, b"cmnd")
        pieces = [association.receive(joined=False)]
        while not pieces[-1].is_last:
            pieces.append(association.receive(joined=False))
        assert b"".join(pdv.data for pdv in pieces) == whole


@pytest.mark.parametrize("wire", [p_data(bytes(200), True), p_data(bytes(90), True, False) * 2])
def test_a_message_beyond_the_limit_is_aborted(wire: bytes) -> None:
    def script(connection: socket.socket) -> bytes:
        connection.sendall(p_data(bytes(100), True) + wire)
        return drained(connection)

    with associated(script) as (association, peer):
        assert len(association.receive(limit=100).data) == 100
        with pytest.raises(LocalError, match="more than 100 bytes"):
            association.receive(limit=100)
        assert decode(peer.join()) == Abort(0, 0)
        with pytest.raises(LocalError, match="over"):
            association.receive()


def test_data_that_arrives_during_a_send_is_received_later() -> None:
    def script(connection: socket.socket) -> None:
        connection.sendall(p_data(b"cmnd", True) + p_data(BIG[:500_000]))
        read_message(connection)
        connection.sendall(encode(Abort(0, 0)))

    with associated(script, max_length=0) as (association, _):
        association.send(BIG, context=DATA_CONTEXT, is_command=True)
        assert association.receive().data == b"cmnd"
        assert association.receive().data == BIG[:500_000]
        with pytest.raises(AssociationAborted):
            association.receive()


def test_large_data_in_both_directions_at_once_does_not_deadlock() -> None:
    most = 900_000  # bytes: the association can hold them beside the buffers of the system

    def script(connection: socket.socket) -> bytes:
        connection.sendall(p_data(b"cmnd", True) + p_data(BIG[:most]))  # reads nothing before
        return read_message(connection)[1] + read_message(connection)[1]

    with associated(script, max_length=0) as (association, peer):
        association.send(b"cmnd", context=DATA_CONTEXT, is_command=True)
        association.send(BIG, context=DATA_CONTEXT)
        assert association.receive().data == b"cmnd"
        assert association.receive().data == BIG[:most]
        assert peer.join() == b"cmnd" + BIG


def test_a_release_of_the_peer_is_answered_and_receive_returns_none() -> None:
    def script(connection: socket.socket) -> bytes:
        connection.sendall(p_data(b"ab", True) + RELEASE_RQ)
        return drained(connection)

    with associated(script) as (association, peer):
        assert association.receive().data == b"ab"
        assert association.receive() is None
        assert peer.join() == RELEASE_RP
        with pytest.raises(LocalError, match="over"):
            association.receive()


@pytest.mark.parametrize("leaves", [False, True])
def test_a_release_after_that_of_the_peer_sends_the_response(leaves: bool) -> None:
    def script(connection: socket.socket) -> bytes:
        connection.sendall(p_data(b"ab", True) + RELEASE_RQ)
        return drained(connection)

    with associated(script) as (association, peer):
        assert association.receive().data == b"ab"
        if leaves:
            with association:
                pass
        else:
            association.release()
        assert peer.join() == RELEASE_RP


def test_two_releases_at_once_end_in_order() -> None:
    def script(connection: socket.socket) -> list[bytes]:
        found = [receive_exactly_one(connection)]
        connection.sendall(RELEASE_RQ)
        found.append(receive_exactly_one(connection))
        connection.sendall(RELEASE_RP)
        return [*found, drained(connection)]

    with associated(script) as (association, peer):
        association.release()
        assert peer.join() == [RELEASE_RQ, RELEASE_RP, b""]


def test_a_late_answer_to_an_earlier_echo_is_ignored() -> None:
    asked = threading.Event()

    def script(connection: socket.socket) -> None:
        receive_exactly_one(connection)
        os.kill(os.getpid(), signal.SIGUSR1)
        receive_exactly_one(connection)
        for number in (1, 2):
            connection.sendall(echo_response(number))
        asked.wait(TIMEOUT)

    before = signal.signal(signal.SIGUSR1, signal.default_int_handler)
    with associated(script) as (association, _):
        with pytest.raises(KeyboardInterrupt):
            association.echo()
        signal.signal(signal.SIGUSR1, before)
        assert association.echo() == 0
        asked.set()


def test_an_exception_in_the_block_aborts() -> None:
    with associated(drained) as (association, peer):
        with pytest.raises(KeyError), association:
            raise KeyError
        assert decode(peer.join()) == Abort(0, 0)


# ---- abort in threads and signal handlers ------------------------------------------------------


def endless() -> Iterator[bytes]:
    while True:
        yield bytes(0x10000)


METHODS: dict[str, Callable[[ltdic.SyncAssociation], Any]] = {
    "receive": lambda a: a.receive(),
    "receive pieces": lambda a: a.receive(joined=False),
    "send": lambda a: a.send(bytes(40_000_000), context=DATA_CONTEXT, is_command=True),
    "send pieces": lambda a: a.send(endless(), context=DATA_CONTEXT, is_command=True),
    "echo": lambda a: a.echo(),
    "release": lambda a: a.release(),
}


@contextmanager
def waiting_peer(
    *, closes: bool = True, **changes: Any
) -> Iterator[tuple[ltdic.SyncAssociation, Background, threading.Event]]:
    """Run a peer that does nothing until the event, and then reads to the end and may close."""
    event, over = threading.Event(), threading.Event()

    def script(connection: socket.socket) -> bytes:
        event.wait(TIMEOUT)
        last = drained(connection)
        if not closes:
            over.wait(TIMEOUT)
        return last

    options = {"timeout": 6 * TIMEOUT, **changes}
    with associated(script, **options) as (association, peer):
        try:
            yield association, peer, event
        finally:
            event.set()
            over.set()


def until_used(association: ltdic.SyncAssociation) -> None:
    """Wait until another thread uses the association; it then most likely waits in a call."""
    eventually(lambda: bool(association._use))
    time.sleep(0.1)


def raises_local_error(method: str, association: ltdic.SyncAssociation) -> None:
    with pytest.raises(LocalError, match="the association is over"):
        METHODS[method](association)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_abort_in_another_thread_ends_a_waiting_method(method: str) -> None:
    with waiting_peer() as (association, peer, reads):
        thread = Background(lambda: raises_local_error(method, association))
        until_used(association)
        for other in METHODS:
            with pytest.raises(LocalError, match="another thread uses the association"):
                METHODS[other](association)
        assert association.established
        reads.set()
        association.abort()
        assert not association.established
        thread.join()
        assert decode(peer.join()) == Abort(0, 0)
        association.abort()
        for other in METHODS:
            raises_local_error(other, association)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["receive", "send"])
def test_abort_waits_a_bounded_time_for_an_inactive_peer(method: str) -> None:
    with waiting_peer(closes=False) as (association, _, _):
        thread = Background(lambda: raises_local_error(method, association))
        until_used(association)
        aborting = [Background(association.abort) for _ in range(3)]
        for one in [*aborting, thread]:
            one.join()


def test_abort_in_another_thread_ends_a_waiting_method_over_tls() -> None:
    with tls_server() as server:
        association = ltdic.connect(*server.address, **{**OPTIONS, "tls": client_context()})
        thread = Background(lambda: raises_local_error("receive", association))
        until_used(association)
        association.abort()
        thread.join()
    assert of_associations(server.counters) == ltdic.Counters(accepted=1, aborted=1)


@pytest.mark.slow
@pytest.mark.parametrize("fails", [False, True])
def test_leaving_the_block_while_another_thread_waits_aborts(fails: bool) -> None:
    def leave(association: ltdic.SyncAssociation) -> None:
        with association:
            if fails:
                raise KeyError

    with waiting_peer() as (association, peer, reads):
        reads.set()
        thread = Background(lambda: raises_local_error("receive", association))
        until_used(association)
        with pytest.raises(KeyError if fails else LocalError):
            leave(association)
        thread.join()
        assert decode(peer.join()) == Abort(0, 0)


@contextmanager
def signalled(handler: Callable[[], Any], when: Callable[[], Any]) -> Iterator[None]:
    """Send a signal to this thread when the function returns; end a call that hangs after it."""

    def hang(*_: object) -> None:
        raise TimeoutError("it hangs")

    def send() -> None:
        when()
        signal.pthread_kill(here, signal.SIGUSR1)

    here = threading.get_ident()
    before = [
        signal.signal(signal.SIGUSR1, lambda *_: handler()),
        signal.signal(signal.SIGALRM, hang),
    ]
    signal.setitimer(signal.ITIMER_REAL, TIMEOUT)
    try:
        with background(send):
            yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGUSR1, before[0])
        signal.signal(signal.SIGALRM, before[1])


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_abort_in_a_signal_handler_ends_a_waiting_method(method: str) -> None:
    with waiting_peer() as (association, peer, reads):

        def handler() -> None:
            reads.set()
            association.abort()
            association.abort()
            with pytest.raises(LocalError):
                association.echo()

        with signalled(handler, lambda: until_used(association)):
            raises_local_error(method, association)
        assert decode(peer.join()) == Abort(0, 0)


def test_abort_in_a_signal_handler_between_calls_ends_the_association() -> None:
    with waiting_peer() as (association, peer, reads):
        reads.set()
        over = threading.Event()
        with signalled(lambda: (association.abort(), over.set()), lambda: None):
            assert over.wait(TIMEOUT)
        assert not association.established
        assert decode(peer.join()) == Abort(0, 0)


@pytest.mark.slow
def test_abort_in_a_signal_handler_that_interrupts_an_abort_does_nothing() -> None:
    called = []
    with waiting_peer(closes=False) as (association, _, _):
        with signalled(lambda: called.append(association.abort()), lambda: until_used(association)):
            association.abort()
        assert called == [None]
        assert not association.established


def test_abort_in_a_signal_handler_beats_an_answer_that_has_arrived() -> None:
    """The answer has arrived before the abort takes effect."""

    def script(connection: socket.socket) -> bytes:
        receive_exactly_one(connection)
        connection.sendall(p_data(b"ab", True))
        return drained(connection)

    with associated(script) as (association, peer):
        receive = association._requestor.receive

        def receive_and_abort(*arguments: Any) -> Any:
            pdv = yield from receive(*arguments)
            association.abort()  # like a signal handler in this thread
            return pdv

        association._requestor.receive = receive_and_abort
        association.send(b"ab", context=DATA_CONTEXT, is_command=True)
        assert association.receive().data == b"ab"
        assert not association.established
        assert decode(peer.join()) == Abort(0, 0)


@pytest.mark.slow
def test_abort_at_any_moment_ends_every_call_and_leaves_nothing() -> None:
    def use(association: ltdic.SyncAssociation) -> None:
        with suppress(LocalError):
            while True:
                association.echo()
                association.send(b"command!", context=DATA_CONTEXT, is_command=True)

    rng = random.Random(11)
    with serving(admission=ALL, handler=lambda *_: None, timeout=TIMEOUT) as server:
        ltdic.connect(*server.address, **OPTIONS).abort()
        before = descriptors()
        for _ in range(100):
            association = ltdic.connect(*server.address, **OPTIONS)
            thread = Background(partial(use, association))
            time.sleep(rng.random() * 0.01)
            association.abort()
            thread.join()
            assert not association.established
        eventually(lambda: not server.counters.open)
        assert descriptors() == before
        assert server.counters.aborted == server.counters.accepted == 101


@pytest.mark.slow
def test_a_dropped_association_leaves_no_descriptor() -> None:
    with serving(timeout=TIMEOUT) as server:
        ltdic.connect(*server.address, **OPTIONS).abort()
        before = descriptors()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            for _ in range(5):
                ltdic.connect(*server.address, **OPTIONS)
            gc.collect()
        eventually(lambda: not server.counters.open)
        assert descriptors() == before


def failed_without_descriptors(address: Any) -> int:
    """Connect with one more descriptor each time. Return how often that failed for their lack."""
    left = 0
    while True:
        with few_descriptors(left), pytest.raises(ltdic.Error) as e:
            ltdic.connect(*address, timeout=0.1)
        if not isinstance(e.value, ConnectionFailed):
            assert isinstance(e.value, AssociationTimeout)
            return left
        assert "Too many open files" in str(e.value)
        left += 1


def test_connect_fails_without_a_descriptor() -> None:
    """For the loop, or for the connection. Nobody accepts it. A new thread has no loop yet."""
    with socket.create_server((LOCALHOST, 0)) as listener:
        before = descriptors()
        thread = Background(lambda: failed_without_descriptors(listener.getsockname()))
        assert 3 <= thread.join() <= 5
        gc.collect()  # exceptions keep the frames that they came through
        eventually(lambda: descriptors() == before)


# ---- deadlines ---------------------------------------------------------------------------------


def dripping(wire: bytes, connection: socket.socket) -> bytes:
    """Send one byte at intervals until the other side closes; return what it sent."""
    with suppress(OSError):
        for n in range(len(wire)):
            if select.select([connection], [], [], SHORT / 6)[0]:
                break
            connection.sendall(wire[n : n + 1])
    with suppress(OSError):
        return connection.recv(6, socket.MSG_WAITALL)[:1]
    return b""


def test_a_dripping_answer_does_not_extend_the_timeout() -> None:
    begun = time.monotonic()
    with raw_acceptor(partial(dripping, ACCEPT)) as (port, peer):
        with pytest.raises(AssociationTimeout):
            ltdic.connect(LOCALHOST, port, **{**OPTIONS, "timeout": SHORT})
        assert time.monotonic() - begun < TIMEOUT / 4  # a fraction of what it takes to drip
        assert peer.join() == b"\7"


def test_a_dripping_echo_response_does_not_extend_the_timeout() -> None:
    wire = p_data(bytes(200), True, context=1)

    def script(connection: socket.socket) -> bytes:
        receive_exactly_one(connection)
        return dripping(wire, connection)

    with associated(script, timeout=SHORT) as (association, peer):
        begun = time.monotonic()
        with pytest.raises(AssociationTimeout):
            association.echo()
        assert time.monotonic() - begun < TIMEOUT / 4  # a fraction of what it takes to drip
        assert peer.join() == b"\7"


@pytest.mark.slow
@pytest.mark.parametrize("sends", [False, True])
def test_a_peer_that_sends_but_reads_nothing_is_aborted_at_the_timeout(sends: bool) -> None:
    over = threading.Event()

    def script(connection: socket.socket) -> None:
        if sends:
            connection.sendall(p_data(b"ab", True))
        while not over.wait(SHORT / 6 if sends else TIMEOUT):
            connection.sendall(p_data(b"a", is_last=False))

    with associated(script, timeout=SHORT) as (association, _):
        begun = time.monotonic()
        with pytest.raises(AssociationTimeout, match="taken"):
            association.send(bytes(40_000_000), context=DATA_CONTEXT, is_command=True)
        assert time.monotonic() - begun < TIMEOUT
        over.set()


@pytest.mark.slow
def test_a_peer_that_reads_slowly_does_not_time_out() -> None:
    size = 8_000_000

    def script(connection: socket.socket) -> int:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 0x10000)
        left = size
        while left > 0:
            left -= len(connection.recv(0x20000))
            select.select([], [], [], SHORT / 40)
        drained(connection)
        return left

    with associated(script, timeout=SHORT) as (association, peer):
        begun = time.monotonic()
        association.send(bytes(size), context=DATA_CONTEXT, is_command=True)
        assert time.monotonic() - begun > SHORT
        association.abort()
        assert peer.join() <= 0


# ---- exceptions --------------------------------------------------------------------------------


def rejected(codes: tuple[int, int, int]) -> AssociationRejected:
    reject = encode(AssociateReject(*codes))
    with (
        raw_acceptor(lambda connection: connection.sendall(reject)) as (port, _),
        pytest.raises(AssociationRejected) as e,
    ):
        ltdic.connect(LOCALHOST, port, **OPTIONS)
    return e.value


@pytest.mark.parametrize("codes", [(1, 1, 7), (2, 3, 2), (3, 0, 255)])
def test_a_rejection_has_codes_a_text_and_advice(codes: tuple[int, int, int]) -> None:
    error = rejected(codes)
    reject = AssociateReject(*codes)
    assert error.codes == codes
    assert error.reject == reject
    assert error.transient is (codes[0] == 2)
    assert (str(error), error.advice) == (str(reject), reject.advice)
    assert (error.attempts, error.elapsed < TIMEOUT) == (1, True)


def test_a_closed_port_is_a_connection_failed_with_its_cause() -> None:
    with socket.socket() as unused:
        unused.bind((LOCALHOST, 0))
        port = unused.getsockname()[1]
        with pytest.raises(ConnectionFailed, match=f"{LOCALHOST} port {port}") as e:
            ltdic.connect(LOCALHOST, port, **OPTIONS)
    assert isinstance(e.value.__cause__, ConnectionRefusedError)


ERRORS = [
    AssociationRejected(AssociateReject(2, 3, 1)),
    AssociationAborted(Abort(2, 6), True, "text"),
    ConnectionFailed("text"),
    ConnectionClosed("text"),
    AssociationTimeout("text"),
    LocalError("text"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda e: type(e).__name__)
@pytest.mark.parametrize(
    "copied", [copy.copy, copy.deepcopy, lambda e: pickle.loads(pickle.dumps(e))]
)
def test_an_exception_survives_a_copy(error: ltdic.Error, copied: Any) -> None:
    error.attempts, error.elapsed = 3, 1.5
    found = copied(error)
    assert type(found) is type(error)
    assert str(found) == str(error)
    assert "tried 3 times in 1.5 s" in str(found)
    assert vars(found) == vars(error)


# ---- TLS ---------------------------------------------------------------------------------------


def tls_server() -> AbstractContextManager[aio.Server]:
    return serving_in_asyncio(
        admission=Admission(contexts=SUPPORTED),
        handler=answer,
        timeout=TIMEOUT,
        tls=server_context(),
    )


def test_an_association_over_tls_echoes_and_sends_data() -> None:
    with tls_server() as server:
        options = {**OPTIONS, "tls": client_context()}
        with ltdic.connect(*server.address, **options) as association:
            assert association.echo() == 0
            association.send(b"command!", context=DATA_CONTEXT, is_command=True)
            association.send(BIG, context=DATA_CONTEXT)
            assert association.receive().data == b"command!"
            assert association.receive().data == BIG
    assert of_associations(server.counters) == ltdic.Counters(accepted=1, released=1)


@pytest.mark.slow
@pytest.mark.parametrize("peer", ["unknown authority", "no TLS", "closes", "silent"])
def test_a_failed_tls_handshake_is_a_connection_failed(peer: str) -> None:
    options = {**OPTIONS, "tls": client_context(trustme.CA())}
    with ExitStack() as stack:
        if peer == "unknown authority":
            port = stack.enter_context(tls_server()).address[1]
        elif peer == "no TLS":
            port = stack.enter_context(serving()).address[1]
        else:
            listener = stack.enter_context(socket.create_server((LOCALHOST, 0)))
            port = listener.getsockname()[1]
            if peer == "closes":
                stack.enter_context(background(lambda: listener.accept()[0].close()))
            else:
                options["timeout"] = SHORT
        kind = ConnectionFailed
        with pytest.raises(kind) as e:
            ltdic.connect(LOCALHOST, port, **options)
        assert isinstance(e.value.__cause__, OSError)
    gc.collect()  # an unclosed socket gives a warning, which is an error here


# ---- the server: decisions ---------------------------------------------------------------------


def decision(on_request: Any, count: int = 1) -> list[Any]:
    """Return the codes that each requestor gets, or None if it is accepted."""
    found = []
    with serving(admission=Admission(on_request=on_request), timeout=TIMEOUT) as server:
        for _ in range(count):
            try:
                ltdic.connect(*server.address, timeout=TIMEOUT).release()
                found.append(None)
            except AssociationRejected as e:
                found.append(e.codes)
    return found


def test_on_request_gets_the_titles_the_address_and_the_contexts() -> None:
    seen = []

    def on_request(association: ltdic.ServedAssociation) -> AssociateReject | None:
        seen.append((association.request.calling_ae, association.peer[0], association.contexts))
        return None if len(seen) > 1 else AssociateReject(2, 1, 2)

    assert decision(on_request, 2) == [(2, 1, 2), None]
    assert seen[0][:2] == ("LTDIC", LOCALHOST)
    assert [(c.id, c.result, c.transfer_syntax) for c in seen[0][2]] == [(1, 0, IMPLICIT)]


def test_a_slow_decision_does_not_delay_other_requests() -> None:
    asked, go_on = threading.Event(), threading.Event()

    def on_request(association: ltdic.ServedAssociation) -> None:
        if association.request.calling_ae == "SLOW":
            asked.set()
            go_on.wait(TIMEOUT)

    with serving(admission=Admission(on_request=on_request), timeout=TIMEOUT) as server:

        def associate() -> None:
            ltdic.connect(*server.address, calling_ae="SLOW", timeout=TIMEOUT).release()

        with background(associate):
            assert asked.wait(TIMEOUT)
            with ltdic.connect(*server.address, timeout=TIMEOUT) as association:
                assert association.echo() == 0
            eventually(lambda: server.counters.released == 1)
            go_on.set()
    assert of_associations(server.counters) == ltdic.Counters(accepted=2, released=2)


# ---- the server: handlers ----------------------------------------------------------------------


def test_a_handler_that_raises_aborts_its_association_alone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def handler(association: ltdic.ServedAssociation, pdv: PDV) -> None:
        raise RuntimeError("what the log says")

    with serving(admission=ALL, handler=handler, timeout=TIMEOUT) as server:
        other = ltdic.connect(*server.address, **OPTIONS)
        association = ltdic.connect(*server.address, **OPTIONS)
        association.send(b"ab", context=DATA_CONTEXT, is_command=True)
        with pytest.raises(AssociationAborted) as e:
            association.receive()
        assert (e.value.received, e.value.abort) == (True, Abort(0, 0))
        assert other.echo() == 0
        other.release()
    failures = [r.getMessage() for r in caplog.records if r.levelno == logging.ERROR]
    assert failures == ["the handler failed; its association is aborted"]


def test_a_handler_that_raises_for_an_ended_association_harms_no_other() -> None:
    """Data and the end of the connection are in one batch."""
    handled = threading.Event()

    def handler(association: ltdic.ServedAssociation, pdv: PDV) -> None:
        handled.set()
        raise RuntimeError("what the log says")

    with Server((LOCALHOST, 0), admission=ALL, handler=handler, timeout=TIMEOUT) as server:
        with raw_requestor(server.address[1]) as connection:
            connection.sendall(REQUEST)
            server.serve(until=lambda: server.counters.accepted == 1)
            receive_exactly_one(connection)
            connection.sendall(p_data(b"ab", True) + encode(Abort(0, 0)))
            connection.shutdown(socket.SHUT_WR)
            server.serve(until=lambda: server.counters.aborted == 1)
        assert handled.is_set()
        with background(lambda: server.serve(until=lambda: server.counters.released == 1)):
            ltdic.connect(*server.address, **OPTIONS).release()


def test_other_threads_send_and_abort() -> None:
    threads: list[Background] = []
    kept: list[ltdic.ServedAssociation] = []

    def handler(association: ltdic.ServedAssociation, pdv: PDV) -> None:
        kept.append(association)
        if pdv.is_command:
            return

        def work() -> None:
            association.send(RESPONSE, context=DATA_CONTEXT, is_command=True)
            association.send((BIG[n : n + 77_777] for n in range(0, len(BIG), 77_777)), context=3)
            association.abort()
            association.abort()
            with pytest.raises(LocalError):
                association.send(RESPONSE, context=DATA_CONTEXT, is_command=True)

        threads.append(Background(work))

    with serving(admission=ALL, handler=handler, timeout=TIMEOUT) as server:
        association = ltdic.connect(*server.address, **OPTIONS)
        association.send(b"ab", context=DATA_CONTEXT, is_command=True)
        association.send(b"ab", context=DATA_CONTEXT)
        assert association.receive().data == RESPONSE
        assert association.receive().data == BIG
        with pytest.raises(AssociationAborted):
            association.receive()
        threads[0].join()
    begun = time.monotonic()
    with pytest.raises(LocalError, match="over"):
        kept[0].send(RESPONSE, context=DATA_CONTEXT)
    kept[0].abort()
    assert time.monotonic() - begun < TIMEOUT / 2


@pytest.mark.slow
def test_a_thread_that_waits_for_room_times_out_and_the_peer_is_aborted() -> None:
    threads: list[Background] = []

    def handler(association: ltdic.ServedAssociation, pdv: PDV) -> None:
        def work() -> None:
            for n in range(100):
                association.send(BIG[:1_000_000], context=DATA_CONTEXT, is_command=n % 2 == 0)

        threads.append(Background(work))

    with (
        serving(admission=ALL, handler=handler, timeout=SHORT) as server,
        raw_requestor(server.address[1]) as connection,
    ):
        connection.sendall(REQUEST)
        receive_exactly_one(connection)
        connection.sendall(p_data(b"ab", True))
        select.select([connection], [], [], TIMEOUT)
        with pytest.raises(AssociationTimeout):
            threads[0].join()
        drained(connection)
    assert of_associations(server.counters) == ltdic.Counters(accepted=1, aborted=1)


def test_a_handler_may_send_more_than_the_socket_buffer_holds() -> None:
    def handler(association: ltdic.ServedAssociation, pdv: PDV) -> None:
        for is_command in (True, False):
            association.send(BIG * 8, context=DATA_CONTEXT, is_command=is_command)

    with (
        serving(admission=ALL, handler=handler, timeout=TIMEOUT) as server,
        ltdic.connect(*server.address, **OPTIONS) as association,
    ):
        association.send(b"ab", context=DATA_CONTEXT, is_command=True)
        for is_command in (True, False):
            received = association.receive()
            assert received is not None
            assert (received.is_command, received.data) == (is_command, BIG * 8)


@pytest.mark.slow
def test_a_peer_that_reads_nothing_from_a_handler_is_aborted_in_time() -> None:
    """Neither the handler nor other associations wait for the peer."""
    took: queue.Queue[float] = queue.Queue()

    def handler(association: ltdic.ServedAssociation, pdv: PDV) -> None:
        begun = time.monotonic()
        association.send(BIG * 20, context=DATA_CONTEXT, is_command=True)
        took.put(time.monotonic() - begun)

    with (
        serving(admission=ALL, handler=handler, timeout=2 * SHORT) as server,
        raw_requestor(server.address[1]) as connection,
        ltdic.connect(*server.address, timeout=TIMEOUT) as honest,
    ):
        connection.sendall(REQUEST)
        receive_exactly_one(connection)
        begun = time.monotonic()
        connection.sendall(p_data(b"ab", True))
        assert took.get(timeout=TIMEOUT) < SHORT
        while server.counters.aborted == 0:
            waited = time.monotonic()
            assert honest.echo() == 0
            assert time.monotonic() - waited < SHORT
        assert 2 * SHORT <= time.monotonic() - begun < TIMEOUT / 2
        drained(connection)
    assert server.counters.aborted == 1


# ---- the server: its end -----------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("reads", [False, True])
def test_a_server_closes_in_time_in_every_state(state: str, reads: bool) -> None:
    timeout = 0.5
    handled: list[bytes] = []

    def handler(association: ltdic.ServedAssociation, pdv: PDV) -> None:
        handled.append(bytes(pdv.data))

    with ExitStack() as stack:
        server = stack.enter_context(serving(admission=ALL, handler=handler, timeout=timeout))
        connections = []
        for _ in range(0 if state == "no connection" else 3):
            connection = stack.enter_context(raw_requestor(server.address[1]))
            connection.sendall(STATES[state])
            connections.append(connection)
            if state not in ("no request", "half a request"):
                receive_exactly_one(connection)
        begun = time.monotonic()
        server.close()
        if reads:
            for connection in connections:
                drained(connection)
        stack.pop_all().close()
        assert time.monotonic() - begun < timeout + TIMEOUT / 4
    if "data" in state or "messages" in state:
        assert b"".join(handled) == b"abab" * 3
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(server.address, TIMEOUT)


def until_refused(address: tuple[str, int]) -> None:
    """Connect until a closing server refuses."""
    end = time.monotonic() + TIMEOUT
    with suppress(ConnectionRefusedError, ConnectionResetError):
        while time.monotonic() < end:
            socket.create_connection(address, TIMEOUT).close()


def test_a_request_at_a_closing_server_is_rejected_as_busy() -> None:
    with (
        serving(admission=ALL, handler=lambda *_: None, timeout=TIMEOUT) as server,
        raw_requestor(server.address[1]) as open_message,
        raw_requestor(server.address[1]) as late,
    ):
        open_message.sendall(REQUEST + p_data(b"ab", True, False))
        receive_exactly_one(open_message)
        server.close()
        until_refused(server.address)
        late.sendall(REQUEST)
        assert receive_pdu(late) == encode(AssociateReject(2, 3, 1))
        open_message.sendall(p_data(b"ab", True) + p_data(b"ab"))
        assert receive_pdu(open_message) == RELEASE_RQ
        open_message.sendall(RELEASE_RP)
        assert receive_pdu(open_message) == b""
    assert server.counters.released == 1


def test_leaving_the_block_ends_serve_in_another_thread() -> None:
    with Server((LOCALHOST, 0), timeout=TIMEOUT) as server:
        thread = Background(server.serve)
        association = ltdic.connect(*server.address, timeout=TIMEOUT)
        assert association.echo() == 0
        with pytest.raises(LocalError, match="serves already"):
            server.serve()
        answered = Background(association.receive)
    thread.join()
    assert answered.join() is None
    assert of_associations(server.counters) == ltdic.Counters(accepted=1, released=1)


SIGNALLED = """\
import os, signal, sys, threading
import ltdic

handled = []
def handler(association, pdv):
    handled.append(bytes(pdv.data))
    if pdv.is_command:
        print("a command", flush=True)
    elif pdv.is_last:
        association.send(b"done", context=pdv.context_id, is_command=True)

admission = ltdic.Admission(contexts=[("1.2.840.10008.5.1.4.1.1.7", ["1.2.840.10008.1.2"])])
with ltdic.Server(("127.0.0.1", 0), admission=admission, handler=handler, timeout=60) as server:
    if sys.argv[1] == "close":
        signal.signal(signal.SIGTERM, lambda *_: server.close())
    else:
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    print(server.address[1], flush=True)
    try:
        server.serve()
    except KeyboardInterrupt:
        print("interrupted", flush=True)
print(len(handled), server.counters.accepted, server.counters.released, flush=True)
"""


@pytest.mark.parametrize("how", ["close", "exception"])
def test_a_signal_ends_a_server_with_nothing_lost(how: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", SIGNALLED, how], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        contexts = [(SECONDARY_CAPTURE, [IMPLICIT])]
        idle = ltdic.connect(LOCALHOST, port, contexts=contexts, timeout=TIMEOUT)
        busy = ltdic.connect(LOCALHOST, port, contexts=contexts, timeout=TIMEOUT)
        busy.send(b"command!", context=SECONDARY_CAPTURE, is_command=True)
        assert (
            process.stdout.readline() == "a command\n"
        )  # a later interrupt would not end the handler
        process.send_signal(signal.SIGTERM)
        assert idle.receive() is None
        busy.send(b"data", context=SECONDARY_CAPTURE)
        assert busy.receive().data == b"done"
        assert busy.receive() is None
        out, _ = process.communicate(timeout=TIMEOUT)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 0
    assert out.splitlines()[-1] == "2 2 2"
    assert ("interrupted" in out) is (how == "exception")


def test_an_exception_that_ends_serve_loses_no_event() -> None:
    """The rest of its batch is handled when `serve` is called again."""
    seen: list[bytes] = []

    def handler(association: ltdic.ServedAssociation, pdv: PDV) -> None:
        seen.append(bytes(pdv.data))
        if len(seen) == 1:
            raise KeyboardInterrupt

    with (
        Server((LOCALHOST, 0), admission=ALL, handler=handler, timeout=TIMEOUT) as server,
        raw_requestor(server.address[1]) as connection,
    ):
        connection.sendall(REQUEST)
        server.serve(until=lambda: server.counters.accepted == 1)
        receive_exactly_one(connection)
        connection.sendall(b"".join(p_data(b"%02d" % n, n % 2 == 0) for n in range(10)))
        connection.sendall(encode(Abort(0, 0)))
        with pytest.raises(KeyboardInterrupt):
            server.serve()
        server.serve(until=lambda: len(seen) == 10)
    assert seen == [b"%02d" % n for n in range(10)]
    assert server._served == {}


# ---- the server: serving -----------------------------------------------------------------------


def test_serve_ends_after_a_time_or_when_a_function_returns_true() -> None:
    with Server((LOCALHOST, 0), timeout=TIMEOUT) as server:
        begun = time.monotonic()
        server.serve(until=SHORT)
        assert SHORT * 0.99 < time.monotonic() - begun < TIMEOUT / 2
        server.serve(until=lambda: True)
        with background(lambda: server.serve(until=lambda: server.counters.released == 2)):
            for _ in range(2):
                ltdic.connect(*server.address, timeout=TIMEOUT).release()
        assert server.counters.released == 2


def test_everything_is_counted() -> None:
    admission = Admission(called=["CALLED"], max_associations=1)
    with serving(admission=admission, timeout=SHORT) as server:
        with pytest.raises(AssociationRejected):
            ltdic.connect(*server.address, called_ae="OTHER", timeout=TIMEOUT)
        association = ltdic.connect(*server.address, called_ae="CALLED", timeout=TIMEOUT)
        with pytest.raises(AssociationRejected) as e:
            ltdic.connect(*server.address, called_ae="CALLED", timeout=TIMEOUT)
        assert e.value.codes == (2, 3, 2)
        association.release()
        ltdic.connect(*server.address, called_ae="CALLED", timeout=TIMEOUT).abort()
        with raw_requestor(server.address[1]) as connection:
            assert drained(connection) == b""
    assert of_associations(server.counters) == ltdic.Counters(
        accepted=2,
        released=1,
        aborted=1,
        no_request=1,
        rejected={("sent", 1, 1, 7): 1, ("sent", 2, 3, 2): 1},  # type: ignore[arg-type]
    )


def test_an_identity_is_checked_and_never_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    admission = Admission(identity={"user": "s3cret", "guest": None})
    with serving(admission=admission, timeout=TIMEOUT) as server:
        for identity, codes in [
            (UserIdentity(2, False, b"user", b"s3cret"), None),
            (UserIdentity(1, False, b"guest"), None),
            (UserIdentity(2, False, b"user", b"wr0ng"), (1, 2, 1)),
            (UserIdentity(1, False, b"user"), (1, 2, 1)),
            (None, (1, 2, 1)),
        ]:
            found = None
            try:
                ltdic.connect(*server.address, identity=identity, timeout=TIMEOUT).release()
            except AssociationRejected as e:
                found = e.codes
            assert found == codes
    assert "s3cret" not in caplog.text + repr(admission) + str(vars(server))
    assert "wr0ng" not in caplog.text
    assert len(caplog.records) == 10  # one for each association on each side


def test_an_association_is_logged_in_one_line_with_text_of_the_peer_escaped(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "ltdic")
    with serving(timeout=TIMEOUT) as server, raw_requestor(server.address[1]) as connection:
        title = b"EVIL\n\x1b[31m\xe4".ljust(16)
        connection.sendall(REQUEST[:26] + title + REQUEST[42:])
        receive_pdu(connection)
        connection.sendall(encode(Abort(0, 0)))
        assert drained(connection) == b""
    lines = [r.getMessage() for r in caplog.records if r.levelno == logging.INFO]
    assert len(lines) == 1
    assert lines[0].startswith(f"'EVIL\\n\\x1b[31m\\xe4' at {LOCALHOST} port ")
    assert "-> 'CALLED': aborted by the peer (source 0, reason 0) after " in lines[0]
    assert f", {len(REQUEST) + 10} bytes received, " in lines[0]


def test_nothing_is_printed_without_a_log_handler() -> None:
    program = """\
import ltdic, threading
with ltdic.Server(("127.0.0.1", 0)) as server:
    thread = threading.Thread(target=server.serve)
    thread.start()
    ltdic.connect(*server.address).release()
    try:
        ltdic.connect(*server.address, contexts=["1.2.3"], called_ae="X").release()
    except ltdic.Error:
        pass
thread.join()
"""
    done = subprocess.run(
        [sys.executable, "-P", "-X", "dev", "-W", "error", "-c", program],
        capture_output=True,
        text=True,
        timeout=6 * TIMEOUT,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


# ---- leaks -------------------------------------------------------------------------------------


def test_associations_of_every_outcome_leave_no_descriptor() -> None:
    def everything() -> None:
        with serving(timeout=TIMEOUT) as server:
            ltdic.connect(*server.address, timeout=TIMEOUT).release()
            ltdic.connect(*server.address, timeout=TIMEOUT).abort()
            with suppress(ltdic.Error):
                ltdic.connect(*server.address, tls=client_context(), timeout=TIMEOUT)
        with suppress(ltdic.Error):
            ltdic.connect(*server.address, timeout=TIMEOUT)
        with suppress(ValueError):
            ltdic.connect("", 1, timeout=0)

    everything()
    before = descriptors()
    for _ in range(5):
        everything()
    gc.collect()
    assert descriptors() == before


def test_a_server_of_several_requestors_receives_the_data_of_each() -> None:
    """Several requestors send different data at once."""
    digests: queue.Queue[str] = queue.Queue()

    def handler(association: ltdic.ServedAssociation, pdv: PDV) -> None:
        digest = association.user_data = association.user_data or hashlib.sha256()
        if not pdv.is_command:
            digest.update(pdv.data)
            if pdv.is_last:
                digests.put(digest.hexdigest())

    def associate(port: int, seed: int) -> str:
        data = random.Random(seed).randbytes(400_000)
        with ltdic.connect(LOCALHOST, port, **OPTIONS) as association:
            association.send(b"command!", context=DATA_CONTEXT, is_command=True)
            association.send(data, context=DATA_CONTEXT)
        return hashlib.sha256(data).hexdigest()

    with serving(admission=ALL, handler=handler, timeout=TIMEOUT) as server:
        port = server.address[1]
        threads = [Background(partial(associate, port, seed)) for seed in range(12)]
        sent = {thread.join() for thread in threads}
    assert {digests.get(timeout=TIMEOUT) for _ in threads} == sent
    assert of_associations(server.counters) == ltdic.Counters(accepted=12, released=12)
