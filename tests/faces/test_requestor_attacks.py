"""Requestors against hostile and slow peers."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from types import FrameType
from typing import Any

import pytest

import ltdic
from ltdic import (
    Abort,
    AssociateReject,
    AssociationRejected,
    AssociationTimeout,
    LocalError,
    aio,
    encode,
)
from ltdic.cli import main
from ltdic.tls import TlsTransport
from support.faces import DATA_CONTEXT
from support.pdus import p_data
from support.raw import ACCEPT, OPTIONS, SHORT, associated, drained, raw_acceptor, read_message
from support.sockets import LOCALHOST, TIMEOUT, receive_pdu
from support.threads import Background
from support.tls import client_context, server_context

REJECT = encode(AssociateReject(1, 1, 7))
VERSIONS = {"plain": None, "1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


def test_small_pieces_take_time_in_proportion_to_their_number() -> None:
    data = bytes(range(256)) * 4096
    pieces = (data[at : at + 4] for at in range(0, len(data), 4))
    with associated(read_message) as (association, peer):
        begun = time.process_time()
        association.send(pieces, context=DATA_CONTEXT, is_command=True)
        seconds = time.process_time() - begun
        assert peer.join()[1] == data
    assert seconds < TIMEOUT / 5


# ---- a process that is stopped past the deadline -------------------------------------------------


@contextmanager
def stopped_while(function: Callable[[], Any]) -> Iterator[Callable[[], None]]:
    """Run a function in another thread; yield a call that blocks this thread until it returns."""
    is_stopped, is_done = threading.Event(), threading.Event()
    here = threading.get_ident()

    def stop(*_: object) -> None:
        is_stopped.set()
        is_done.wait(TIMEOUT)

    def run() -> None:
        signal.pthread_kill(here, signal.SIGUSR1)
        is_stopped.wait(TIMEOUT)
        function()
        is_done.set()

    before = signal.signal(signal.SIGUSR1, stop)
    try:
        yield run
    finally:
        signal.signal(signal.SIGUSR1, before)


@pytest.mark.slow
@pytest.mark.parametrize("version", VERSIONS)
def test_a_rejection_in_several_tls_records_received_in_time_is_reported(version: str) -> None:
    """The process did not run at the time of the timeout."""
    tls, ours, seconds = VERSIONS[version], None, 1.0
    server = socket.create_server((LOCALHOST, 0))
    server.settimeout(TIMEOUT)
    connections: list[socket.socket] = []

    def reject() -> None:
        for part in (REJECT[:1], REJECT[1:9], REJECT[9:]):
            connections[-1].sendall(part)
        time.sleep(1.1 * seconds)

    with server, stopped_while(reject) as run, ExitStack() as closing:

        def accept() -> None:
            connection, _ = server.accept()
            connection.settimeout(TIMEOUT)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if tls is not None:
                theirs = server_context()
                theirs.minimum_version = theirs.maximum_version = tls
                connection = theirs.wrap_socket(connection, server_side=True)
            connections.append(closing.enter_context(connection))
            receive_pdu(connection)
            run()

        peer = Background(accept)
        if tls is not None:
            ours = client_context()
        with pytest.raises(AssociationRejected) as rejected:
            ltdic.connect(
                LOCALHOST, server.getsockname()[1], **{**OPTIONS, "timeout": seconds}, tls=ours
            )
        peer.join()
    assert rejected.value.codes == (1, 1, 7)


@pytest.mark.slow
def test_an_abort_does_not_wait_for_a_peer_that_sends_without_end() -> None:
    def flood(connection: socket.socket) -> None:
        with suppress(OSError):
            while True:
                connection.sendall(p_data(b"ab", True) * 1000)

    with associated(flood) as (association, _):
        association.timeout = SHORT
        begun = time.monotonic()
        with pytest.raises(AssociationTimeout):
            association.release()
        assert time.monotonic() - begun < TIMEOUT / 2


# ---- deadlines -----------------------------------------------------------------------------------


def ask(port: int) -> None:
    with pytest.raises(AssociationTimeout):
        ltdic.connect(LOCALHOST, port, **{**OPTIONS, "timeout": SHORT})


def ask_in_asyncio(port: int) -> None:
    async def run() -> None:
        await aio.connect(LOCALHOST, port, timeout=SHORT)

    with pytest.raises(AssociationTimeout):
        asyncio.run(run())


def ask_by_command(port: int) -> None:
    before = signal.getsignal(signal.SIGTERM)  # the command sets a handler of its own
    try:
        assert main(["echo", LOCALHOST, str(port), "--timeout", str(SHORT)]) != 0
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("how", [ask, ask_in_asyncio, ask_by_command])
def test_a_silent_peer_that_does_not_close_is_aborted_in_time(how: Callable[[int], None]) -> None:
    is_over = threading.Event()

    def keep_silent(connection: socket.socket) -> bytes:
        is_over.wait(TIMEOUT)
        return receive_pdu(connection)

    with raw_acceptor(keep_silent) as (port, peer):
        begun = time.monotonic()
        how(port)
        seconds = time.monotonic() - begun
        is_over.set()
        assert peer.join() == encode(Abort(0, 0))
    assert seconds < SHORT + 1.5  # less than the two seconds that a peer may have otherwise


# ---- signal handlers that raise ------------------------------------------------------------------


class Tick(Exception):
    """What a signal handler raises, here at a line of ltdic."""


def at(line: int, handler: Callable[[], Any], call: Callable[[], Any]) -> bool:
    """Call the function; call the handler once where it comes to the line of this number, counted
    as they are run. False where it has fewer."""
    left = line

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal left
        if not frame.f_globals.get("__name__", "").startswith("ltdic."):
            return None
        left -= event == "line"
        if left == -1:
            sys.settrace(before)
            handler()
        return trace if left >= 0 else None

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(before)
    return left < 0


def raised_at(line: int, call: Callable[[], Any]) -> bool:
    """Call the function, which `Tick` ends at this line; False where it has fewer."""

    def tick() -> None:
        raise Tick

    with suppress(Tick):
        return at(line, tick, call)
    return True


FIRST, SECOND = b"first " * 5, b"second" * 7
LINES = 2000
"""More than any of these calls runs."""


def received_after(line: int) -> tuple[bool, list[bytes]]:
    """Was a first `receive` ended at this line? What others received after it."""

    def send_two(connection: socket.socket) -> None:
        for data in (FIRST, SECOND):
            connection.sendall(p_data(data[:8], True, is_last=False) + p_data(data[8:], True))
        drained(connection)

    found = []
    with associated(send_two) as (association, _):
        is_ended = raised_at(line, lambda: found.append(association.receive().data))
        with suppress(LocalError):
            while len(found) < 2 and SECOND not in found:
                found.append(association.receive().data)
        return is_ended, found


def sent_after(line: int) -> tuple[bool, list[bytes]]:
    """Was a first `send` ended at this line? What the peer received."""

    def read_all(connection: socket.socket) -> list[bytes]:
        found = []
        with suppress(TypeError):  # of an A-ABORT
            while True:
                found.append(read_message(connection)[1])
        return found

    with associated(read_all) as (association, peer):
        is_ended = raised_at(
            line, lambda: association.send(FIRST, context=DATA_CONTEXT, is_command=True)
        )
        with suppress(LocalError):
            association.send(SECOND, context=DATA_CONTEXT, is_command=True)
        association.abort()
        return is_ended, peer.join()


@pytest.mark.parametrize("moved_after", [received_after, sent_after])
def test_what_is_moved_after_an_exception_of_a_signal_handler_is_whole(
    moved_after: Callable[[int], tuple[bool, list[bytes]]],
) -> None:
    for line in range(LINES):
        is_ended, found = moved_after(line)
        assert found in ([], [FIRST], [SECOND], [FIRST, SECOND]), line
        if not is_ended:
            break
    assert found == [FIRST, SECOND]


def test_an_exception_of_a_signal_handler_keeps_nobody_from_an_association() -> None:
    for line in range(LINES):
        with associated(drained) as (association, peer):
            is_ended = raised_at(
                line, lambda: association.send(FIRST, context=DATA_CONTEXT, is_command=True)
            )
            with suppress(LocalError) if is_ended else nullcontext():
                association.send(SECOND, context=DATA_CONTEXT, is_command=True)
            Background(association.abort).join()
            assert not association.established, line
            peer.join()
        if not is_ended:
            break


def test_abort_may_be_called_often_while_a_message_is_sent() -> None:
    """As signal handlers do; each call wakes whoever waits for the socket."""

    def send_and_abort() -> None:
        association.send(pieces(), context=DATA_CONTEXT, is_command=True)

    def pieces() -> Iterator[bytes]:
        for _ in range(2000):
            association.abort()
        yield b"ab"

    with associated(drained) as (association, _):
        sender = Background(send_and_abort)
        with pytest.raises(LocalError, match="aborted"):
            sender.join()


def test_abort_in_a_signal_handler_is_the_end_wherever_it_comes() -> None:
    for line in range(LINES):
        with associated(drained) as (association, peer):

            def send() -> None:
                with suppress(LocalError):
                    association.send(FIRST, context=DATA_CONTEXT, is_command=True)

            is_called = at(line, association.abort, send)
            assert association.established is not is_called, line
        peer.join()
        if not is_called:
            break


# ---- data in both directions, bad answers, and associations that nobody has any more -------------

MESSAGES = 40
MESSAGE = bytes(65536)


def sends_and_reads(connection: socket.socket) -> int:
    """Send messages, and read one meanwhile; return its bytes."""
    sent = (p_data(MESSAGE, is_command=True) + p_data(MESSAGE)) * MESSAGES
    sending = Background(lambda: connection.sendall(sent))
    size = len(read_message(connection)[1])
    sending.join()
    return size


def accepting(script: Callable[[socket.socket], Any]) -> Callable[[socket.socket], Any]:
    def accept(connection: socket.socket) -> Any:
        connection.sendall(ACCEPT)
        return script(connection)

    return accept


def test_what_came_during_a_send_is_received_after_it() -> None:
    """It is more than is kept while nobody receives."""
    data = bytes(16 << 20)
    with associated(sends_and_reads) as (association, peer):
        association.send(data, context=DATA_CONTEXT, is_command=True)
        for _ in range(2 * MESSAGES):
            assert association.receive().data == MESSAGE
        association.abort()
        assert peer.join() == len(data)


def test_what_came_during_a_send_in_asyncio_is_received_after_it() -> None:
    data = bytes(16 << 20)

    async def run(port: int) -> None:
        async with aio.connect(LOCALHOST, port, **OPTIONS) as association:
            await association.send(data, context=DATA_CONTEXT, is_command=True)
            for _ in range(2 * MESSAGES):
                pdv = await association.receive()
                assert pdv is not None
                assert pdv.data == MESSAGE
            await association.abort()

    with raw_acceptor(accepting(sends_and_reads)) as (port, peer):
        asyncio.run(run(port))
        assert peer.join() == len(data)


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n", b"\3\0\0\0\0\5", bytes(10)])
@pytest.mark.parametrize("how", [ask, ask_in_asyncio])
def test_a_bad_answer_of_a_peer_that_does_not_close_is_told_in_time(
    how: Callable[[int], None], answer: bytes
) -> None:
    def script(connection: socket.socket) -> None:
        connection.sendall(answer)
        drained(connection)

    with raw_acceptor(script) as (port, _):
        begun = time.monotonic()
        with pytest.raises((ltdic.AssociationAborted, AssociationTimeout)):
            how(port)
        assert time.monotonic() - begun < SHORT + 1.4  # not the two seconds of CLOSING_TIME


def test_an_association_of_asyncio_that_is_dropped_is_closed() -> None:
    async def run(port: int) -> None:
        before = len(asyncio.all_tasks())
        association = await aio.connect(LOCALHOST, port, **OPTIONS)
        del association
        gc.collect()
        assert await asyncio.to_thread(peer.join) == b""
        assert len(asyncio.all_tasks()) == before

    with raw_acceptor(accepting(drained)) as (port, peer):
        asyncio.run(run(port))


def test_what_a_signal_handler_raises_while_tls_closes_is_raised(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupted(descriptor: int) -> None:
        close(descriptor)
        raise KeyboardInterrupt

    with ltdic.Server((LOCALHOST, 0), tls=server_context()) as server:
        thread = Background(server.serve)
        association = ltdic.connect(*server.address, tls=client_context(), timeout=TIMEOUT)
        transport = association._secured
        assert transport is not None
        close = transport.close
        monkeypatch.setattr(transport, "close", interrupted)
        with pytest.raises(KeyboardInterrupt):
            association.abort()
        assert not association.established
        server.close()
        thread.join()


@pytest.mark.parametrize("in_loop", [False, True], ids=["sync", "aio"])
def test_a_child_forked_in_a_tls_handshake_does_not_use_the_connection(
    in_loop: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    shake_hands, children = TlsTransport._shake_hands, []

    def forking(transport: TlsTransport, descriptor: int) -> int:
        if not children:
            children.append(os.fork())
        return shake_hands(transport, descriptor)

    def connect(address: Any) -> bool:
        """True where an association is opened."""
        try:
            if in_loop:
                asyncio.run(ask_over_tls(address))
            else:
                ltdic.connect(*address, tls=client_context(), timeout=TIMEOUT).release()
        except BaseException:
            return False
        return True

    with ltdic.Server((LOCALHOST, 0), tls=server_context()) as server:
        thread = Background(server.serve)
        monkeypatch.setattr(TlsTransport, "_shake_hands", forking)
        try:
            opened = connect(server.address)
        finally:
            if children == [0]:
                os._exit(opened)
        assert opened
        assert os.waitpid(children[0], 0)[1] == 0
        server.close()
        thread.join()
    assert (server.counters.released, server.counters.lost) == (1, 0)


async def ask_over_tls(address: Any) -> None:
    how: Any = {"tls": client_context(), "timeout": TIMEOUT}
    async with aio.connect(*address, **how) as association:
        assert await association.echo() == 0
