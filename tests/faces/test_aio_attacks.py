"""The asyncio faces when events of a peer and calls of a user coincide."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from ltdic import (
    PDV,
    Abort,
    Admission,
    AssociateAccept,
    AssociateReject,
    AssociateRequest,
    AssociationAborted,
    AssociationRejected,
    AssociationTimeout,
    ConnectionClosed,
    DataTransfer,
    ReleaseResponse,
    UserInformation,
    aio,
    decode,
    encode,
    ffi,
    lib,
)
from ltdic._native import service, transport
from ltdic._native.transport import Wire
from ltdic._sending import PART
from ltdic.tls import MOST_ANSWERS, MOST_RECORDS, TlsTransport
from support.faces import DATA_CONTEXT
from support.loops import in_loop
from support.pdus import RELEASE_RP, RELEASE_RQ, p_data
from support.raw import ACCEPT, OPTIONS, REQUEST, SHORT, raw_acceptor, raw_requestor
from support.servers import SUPPORTED
from support.sockets import LOCALHOST, TIMEOUT, close_with_reset, read_all, receive_exactly_one
from support.threads import Background
from support.tls import RawTls, client_context, server_context

CODES = 1, 1, 7
REJECT = encode(AssociateReject(*CODES))


def of_version(context: ssl.SSLContext, version: ssl.TLSVersion) -> ssl.SSLContext:
    context.minimum_version = context.maximum_version = version
    return context


by_version = pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])


# ---- early answers, and answers read late --------------------------------------------------------


@by_version
@in_loop
async def test_a_rejection_and_the_end_before_the_request_is_sent_are_a_rejection(
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


class Busy:
    """Keeps the loop busy from before a peer sends until a time-out of SHORT is over."""

    def __init__(self, is_blind: bool) -> None:
        """`is_blind`: the poller reports no arrived bytes until the timers have run, as after a
        stop of the process."""
        self._loop: Any = asyncio.get_running_loop()
        self._is_blind = is_blind
        self._is_busy, self._has_sent = threading.Event(), threading.Event()

    def send(self, connection: socket.socket, data: bytes) -> None:
        """Send data; runs in the thread of the peer."""
        assert self._is_busy.wait(TIMEOUT)
        connection.sendall(data)
        self._has_sent.set()

    def begin(self) -> None:
        """Block the loop; runs in it."""
        self._is_busy.set()
        assert self._has_sent.wait(TIMEOUT)
        time.sleep(1.1 * SHORT)
        if self._is_blind:
            self._loop._selector.select = self._see_nothing

    def _see_nothing(self, _: float | None) -> list[Any]:
        del self._loop._selector.select
        return []


by_sight = pytest.mark.parametrize("is_blind", [False, True])


@by_sight
@in_loop
async def test_a_rejection_received_while_the_loop_was_busy_beats_the_timeout(
    is_blind: bool,
) -> None:
    busy, loop = Busy(is_blind), asyncio.get_running_loop()

    def reject(connection: socket.socket) -> None:
        loop.call_soon_threadsafe(busy.begin)
        busy.send(connection, REJECT)

    with raw_acceptor(reject) as (port, _), pytest.raises(AssociationRejected) as e:
        await aio.connect(LOCALHOST, port, **{**OPTIONS, "timeout": SHORT})
    assert e.value.codes == CODES


@by_sight
@in_loop
async def test_data_received_while_the_loop_was_busy_beats_the_timeout(is_blind: bool) -> None:
    busy = Busy(is_blind)

    def script(connection: socket.socket) -> None:
        connection.sendall(ACCEPT)
        busy.send(connection, p_data(b"ab", is_command=True))
        receive_exactly_one(connection)

    with raw_acceptor(script) as (port, _):
        async with await aio.connect(LOCALHOST, port, **OPTIONS) as association:
            association.timeout = SHORT
            asyncio.get_running_loop().call_soon(busy.begin)
            pdv = await association.receive()
            assert pdv is not None
            assert pdv.data == b"ab"
            await association.abort()


@pytest.mark.slow
@in_loop
async def test_a_peer_that_sends_continuously_does_not_delay_the_timeout() -> None:
    def script(connection: socket.socket) -> None:
        connection.sendall(ACCEPT)
        with suppress(OSError):
            while True:
                connection.sendall(p_data(b"ab", is_command=True, is_last=False) * 100)

    with raw_acceptor(script) as (port, peer):
        association = await aio.connect(LOCALHOST, port, **OPTIONS)
        association.timeout = SHORT
        with pytest.raises(AssociationTimeout):
            await association.release()
        await asyncio.to_thread(peer.join)


# ---- requests followed by the end ----------------------------------------------------------------

STRANGE = REQUEST[:6] + b"\0\2" + REQUEST[8:]
"""A request of another version of the protocol, which the provider refuses."""
REFUSALS = {REQUEST: (1, 1, 3), STRANGE: (1, 2, 2)}
by_refusal = pytest.mark.parametrize("request_", REFUSALS)
GUARDED = Admission(calling=["NOBODY"])


@by_refusal
@in_loop
async def test_a_rejection_is_sent_although_an_abort_follows_the_request(
    request_: bytes,
) -> None:
    def ask() -> bytes:
        with raw_requestor(to.address[1]) as connection:
            connection.sendall(request_ + encode(Abort(0, 0)))
            return receive_exactly_one(connection)

    async with aio.Server((LOCALHOST, 0), admission=GUARDED) as to:
        answer = await asyncio.to_thread(ask)
    assert answer == encode(AssociateReject(*REFUSALS[request_]))
    assert to.counters.rejected == {("sent", *REFUSALS[request_]): 1}


@by_refusal
@by_version
@in_loop
async def test_a_rejection_is_sent_although_the_end_of_tls_follows_the_request(
    request_: bytes, version: ssl.TLSVersion
) -> None:
    def ask() -> bytes:
        with raw_requestor(to.address[1]) as connection:
            tls = RawTls(connection, of_version(client_context(), version), False)
            tls.write(request_)
            tls.write_end()
            tls.flush()
            return tls.read()

    async with aio.Server((LOCALHOST, 0), admission=GUARDED, tls=server_context()) as to:
        answer = await asyncio.to_thread(ask)
    assert answer == encode(AssociateReject(*REFUSALS[request_]))
    assert to.counters.rejected == {("sent", *REFUSALS[request_]): 1}


@in_loop
async def test_an_accept_is_sent_although_an_abort_follows_the_request() -> None:
    def ask() -> bytes:
        with raw_requestor(to.address[1]) as connection:
            connection.sendall(REQUEST + encode(Abort(0, 0)))
            return receive_exactly_one(connection)

    async with aio.Server((LOCALHOST, 0)) as to:
        answer = await asyncio.to_thread(ask)
    assert answer[:1] == ACCEPT[:1]
    assert (to.counters.accepted, to.counters.aborted) == (1, 1)


# ---- a release with the end behind it ------------------------------------------------------------


class Plain(RawTls):
    """The same without TLS: the end is that of TCP."""

    def __init__(self, connection: socket.socket, *_: Any) -> None:
        connection.settimeout(TIMEOUT)
        self.connection = connection

    def write(self, data: bytes) -> None:
        self.connection.sendall(data)

    def write_end(self) -> None:
        self.connection.shutdown(socket.SHUT_WR)

    def read(self) -> bytes:
        return receive_exactly_one(self.connection)

    def flush(self) -> None:
        """All has gone."""


def release_and_end(end: RawTls, first: bytes) -> bytes:
    end.write(first + RELEASE_RQ)
    end.write_end()
    end.flush()
    return end.read()


by_end = pytest.mark.parametrize("kind", [Plain, RawTls], ids=["plain", "TLS"])


@by_end
@pytest.mark.parametrize("data", [b"", p_data(b"ab", is_command=True)], ids=["", "after data"])
@in_loop
async def test_a_server_answers_a_release_with_the_end_behind_it(
    kind: type[RawTls], data: bytes
) -> None:
    async def handler(association: aio.AsyncServedAssociation, pdv: PDV) -> None:
        await asyncio.sleep(SHORT / 5)  # the end of the connection comes meanwhile

    def ask() -> bytes:
        with raw_requestor(to.address[1]) as connection:
            end = kind(connection, client_context(), False)
            end.write(REQUEST)
            end.flush()
            end.read()
            return release_and_end(end, data)

    options: dict[str, Any] = {"tls": server_context()} if kind is RawTls else {}
    admission = Admission(contexts=SUPPORTED)
    async with aio.Server((LOCALHOST, 0), admission=admission, handler=handler, **options) as to:
        assert await asyncio.to_thread(ask) == RELEASE_RP
    assert (to.counters.released, to.counters.lost) == (1, 0)


@by_end
@in_loop
async def test_a_requestor_answers_a_release_with_the_end_behind_it(kind: type[RawTls]) -> None:
    def script() -> bytes:
        connection, _ = listener.accept()
        with connection:
            end = kind(connection, server_context(), True)
            end.flush()
            end.read()
            end.write(ACCEPT)
            return release_and_end(end, b"")

    tls = client_context() if kind is RawTls else None
    with socket.create_server((LOCALHOST, 0)) as listener:
        peer = Background(script)
        association = await aio.connect(*listener.getsockname(), tls=tls, **OPTIONS)
        while not association._events:
            await asyncio.sleep(0)
        await asyncio.sleep(0.05)  # the end is behind it
        assert await association.receive() is None
        assert await asyncio.to_thread(peer.join) == RELEASE_RP


# ---- places ------------------------------------------------------------------------------------


async def receives(association: aio.AsyncServedAssociation, pdv: PDV) -> None:
    """Do nothing with what comes."""


@pytest.mark.parametrize("data", [b"", p_data(b"ab", is_command=True)], ids=["", "after data"])
@in_loop
async def test_a_released_association_has_no_place_although_its_connection_stays_open(
    data: bytes,
) -> None:
    def release(connection: socket.socket) -> bytes:
        connection.sendall(REQUEST)
        assert receive_exactly_one(connection)[:1] == ACCEPT[:1]
        connection.sendall(data + RELEASE_RQ)
        return receive_exactly_one(connection)

    admission = Admission(contexts=SUPPORTED, max_associations=1)
    async with aio.Server((LOCALHOST, 0), admission=admission, handler=receives) as to:
        with raw_requestor(to.address[1]) as first, raw_requestor(to.address[1]) as second:
            for connection in first, second:
                assert await asyncio.to_thread(release, connection) == RELEASE_RP
    assert to.counters.released == 2


# ---- exceptions of on_request and of handlers ----------------------------------------------------


class Odd(BaseException):
    """A `BaseException` that asyncio does not treat specially."""


async def raises_odd(*_: Any) -> None:
    raise Odd


async def raises_generator_exit(*_: Any) -> None:
    raise GeneratorExit


by_odd = pytest.mark.parametrize("function", [raises_odd, raises_generator_exit])


def errors_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelno == logging.ERROR]


@by_odd
@in_loop
async def test_any_exception_of_on_request_rejects_the_request(
    function: Any, caplog: pytest.LogCaptureFixture
) -> None:
    admission = Admission(on_request=function, max_associations=1)
    async with aio.Server((LOCALHOST, 0), admission=admission) as to:
        for _ in range(2):  # the first one has freed its place
            with pytest.raises(AssociationRejected) as e:
                await aio.connect(*to.address, **OPTIONS)
            assert e.value.codes == (2, 1, 1)
    assert errors_of(caplog) == 2 * ["on_request failed; the request is rejected"]


@by_odd
@in_loop
async def test_any_exception_of_a_handler_aborts_its_association(
    function: Any, caplog: pytest.LogCaptureFixture
) -> None:
    admission = Admission(contexts=SUPPORTED, max_associations=1)
    async with aio.Server((LOCALHOST, 0), admission=admission, handler=function) as to:
        for _ in range(2):
            association = await aio.connect(*to.address, **OPTIONS)
            await association.send(b"ab", context=DATA_CONTEXT, is_command=True)
            with pytest.raises(AssociationAborted):
                await association.receive()
    assert to.counters.aborted == 2
    assert errors_of(caplog) == 2 * ["the handler failed; its association is aborted"]


# ---- messages that their task leaves in the middle -----------------------------------------------


async def leaves_a_command_in_the_middle(association: aio.AsyncServedAssociation) -> None:
    """Send half of it, in a task that is cancelled then."""

    async def pieces() -> AsyncIterator[bytes]:
        yield bytes(PART + 2)
        is_half_sent.set()
        await asyncio.sleep(TIMEOUT)

    is_half_sent = asyncio.Event()
    sending = association.send(pieces(), context=DATA_CONTEXT, is_command=True)
    task = asyncio.ensure_future(sending)
    await is_half_sent.wait()
    task.cancel()
    await asyncio.wait([task])


def types_beside_data(connection: socket.socket) -> list[int]:
    """The types of the PDUs that come, up to that which ends the association, but for P-DATA-TF."""
    types = [receive_exactly_one(connection)[0]]
    while types[-1] not in (ReleaseResponse.type, Abort.type):
        types.append(receive_exactly_one(connection)[0])
    return [one for one in types if one != DataTransfer.type]


@pytest.mark.parametrize("is_to_close", [False, True], ids=["release", "close"])
@in_loop
async def test_an_association_with_half_a_message_sent_is_aborted_not_released(
    is_to_close: bool,
) -> None:
    options: dict[str, Any] = {"admission": Admission(contexts=SUPPORTED), "handler": receives}
    timeout = SHORT if is_to_close else TIMEOUT
    async with aio.Server((LOCALHOST, 0), timeout=timeout, **options) as to:
        with raw_requestor(to.address[1]) as connection:
            connection.sendall(REQUEST)
            types = asyncio.ensure_future(asyncio.to_thread(types_beside_data, connection))
            while not to.open:
                await asyncio.sleep(0)
            await leaves_a_command_in_the_middle(to.open[0])
            if is_to_close:
                to.close()
            else:
                connection.sendall(RELEASE_RQ)
            assert await types == [ACCEPT[0], Abort.type]


# ---- peers that never read -----------------------------------------------------------------------


class Deaf(Wire):
    """A connection on which a peer sends without an end, and reads nothing."""

    reads = 0

    def read(self, descriptor: int, take: Callable[[memoryview], object]) -> int:
        self.reads += 1
        take(memoryview(bytes(1024)))
        return transport.DONE


class Stuck:
    """Bytes to send, of which the connection takes none."""

    def flush(self, descriptor: int) -> int:
        return transport.WANT_WRITE


class Answering:
    """In place of OpenSSL: answers each request for new keys with as many bytes as it had."""

    def __init__(self, tls: TlsTransport) -> None:
        self._tls = tls

    def read(self, size: int, room: memoryview) -> int:
        self._tls._outgoing.write(self._tls._incoming.read())
        raise ssl.SSLWantReadError


def test_answers_of_the_tls_layer_itself_are_bounded() -> None:
    wire = Deaf()
    tls = TlsTransport(server_context(), None, wire)
    tls._object, tls._established = Answering(tls), True  # type: ignore[assignment]
    tls._outbox = Stuck()  # type: ignore[assignment]
    size = ffi.new("size_t *")
    for _ in range(100):
        tls.read(0, memoryview(bytearray(4096)), size)
    assert size[0] == 0
    assert wire.reads <= 2 + MOST_ANSWERS // 1024


@in_loop
async def test_a_requestor_over_tls_does_not_leave_nagles_algorithm_on() -> None:
    async with (
        aio.Server((LOCALHOST, 0), tls=server_context()) as to,
        aio.connect(*to.address, tls=client_context(), **OPTIONS) as association,
    ):
        with socket.socket(fileno=os.dup(association._link.descriptor)) as sock:
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


# ---- TLS in the smallest records -----------------------------------------------------------------


def tiny_records(tls: RawTls, data: bytes) -> None:
    """Write so that each byte has a record of its own, and send all of them at once."""
    for n in range(len(data)):
        tls.write(data[n : n + 1])
    tls.flush()


class Steps:
    """Counts the plain bytes that each step of the loop makes of TLS records."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.made: Counter[int] = Counter()
        self._number = 0
        self._read = TlsTransport.read
        monkeypatch.setattr(TlsTransport, "read", lambda *arguments: self._counted(*arguments))
        self._task = asyncio.ensure_future(self._count())

    async def _count(self) -> None:
        while True:
            self._number += 1
            await asyncio.sleep(0)

    def _counted(self, tls: TlsTransport, descriptor: int, room: memoryview, size: Any) -> int:
        result = self._read(tls, descriptor, room, size)
        self.made[self._number] += size[0]
        return result

    def stop(self) -> None:
        self._task.cancel()


@by_version
@in_loop
async def test_a_step_of_the_loop_decrypts_few_records(
    version: ssl.TLSVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ask() -> bytes:
        with raw_requestor(to.address[1]) as connection:
            tls = RawTls(connection, of_version(client_context(), version), False)
            tiny_records(tls, REQUEST)
            answer = tls.read()
            tiny_records(tls, encode(Abort(0, 0)))
            return answer

    steps = Steps(monkeypatch)
    async with aio.Server((LOCALHOST, 0), tls=server_context()) as to:
        answer = await asyncio.to_thread(ask)
    steps.stop()
    assert answer[:1] == ACCEPT[:1]
    assert steps.made.total() == len(REQUEST) + 10
    assert max(steps.made.values()) <= MOST_RECORDS


@by_version
@in_loop
async def test_nothing_is_decrypted_of_many_records_behind_an_abort(
    version: ssl.TLSVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ask() -> bytes:
        with raw_requestor(to.address[1]) as connection:
            tls = RawTls(connection, of_version(client_context(), version), False)
            tiny_records(tls, b"\x08" + bytes(5000))
            return tls.read()

    steps = Steps(monkeypatch)
    async with aio.Server((LOCALHOST, 0), tls=server_context()) as to:
        answer = await asyncio.to_thread(ask)
    steps.stop()
    assert answer[0] == Abort.type
    assert steps.made.total() <= 3 * MOST_RECORDS


@by_version
@in_loop
async def test_what_came_in_many_records_is_received_before_the_loss(
    version: ssl.TLSVersion,
) -> None:
    def script() -> None:
        connection, _ = listener.accept()
        with connection:
            tls = RawTls(connection, of_version(server_context(), version), True)
            tls.flush()
            tls.read()
            tls.write(ACCEPT)
            tls.flush()
            assert may_send.wait(TIMEOUT)
            tiny_records(tls, p_data(data, is_command=True))
            close_with_reset(connection)
            has_sent.set()

    data, may_send, has_sent = bytes(1000), threading.Event(), threading.Event()
    with socket.create_server((LOCALHOST, 0)) as listener:
        peer = Background(script)
        address = listener.getsockname()
        async with aio.connect(*address, tls=client_context(), **OPTIONS) as association:
            may_send.set()
            assert has_sent.wait(TIMEOUT)
            pdv = await association.receive()
            assert pdv is not None
            assert pdv.data == data
            with pytest.raises(ConnectionClosed):
                await association.receive()
        await asyncio.to_thread(peer.join)


@by_version
@in_loop
async def test_bytes_of_a_request_count_over_tls(version: ssl.TLSVersion) -> None:
    """The fourth requestor sends more than there may be of all, so that the first has to go."""

    def send(connection: socket.socket) -> RawTls:
        tls = RawTls(connection, of_version(client_context(), version), False)
        tls.write(b"\1\0" + (20_000).to_bytes(4, "big") + bytes(8192))
        tls.flush()
        return tls

    async with aio.Server((LOCALHOST, 0), tls=server_context()) as to:
        lib.ltdic_server_limit_unfinished(to._loop._server, 3 * 8400)
        with ExitStack() as stack:
            peers = [stack.enter_context(raw_requestor(to.address[1])) for _ in range(4)]
            ends = [await asyncio.to_thread(send, peer) for peer in peers]
            assert (await asyncio.to_thread(ends[0].read))[0] == Abort.type
    assert to.counters.no_request == 4


# ---- servers before they begin, and after their end ----------------------------------------------


@in_loop
async def test_a_server_that_is_closed_before_it_is_entered_ends() -> None:
    server = aio.Server((LOCALHOST, 0), timeout=TIMEOUT)
    server.close()
    async with server:
        async with asyncio.timeout(TIMEOUT / 2):
            await server.serve()


def test_an_admission_can_be_set_after_the_loop_is_closed() -> None:
    async def serve() -> aio.Server:
        async with aio.Server((LOCALHOST, 0)) as server:
            return server

    server = asyncio.run(serve())
    server.admission = GUARDED
    assert server.admission is GUARDED


@in_loop
async def test_of_two_admissions_that_are_set_at_once_one_holds_in_all_it_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Before the block is entered, too. The second one is set while the first is."""
    taking_rules = service.Policy.taking_rules

    def set_another(to: service.Policy, other: service.Policy) -> Any:
        monkeypatch.setattr(service.Policy, "taking_rules", taking_rules)
        Background(partial(setattr, server, "admission", open_to_all)).join()
        return taking_rules(to, other)

    monkeypatch.setattr(service.Policy, "taking_rules", set_another)
    open_to_all = Admission()
    server = aio.Server((LOCALHOST, 0))
    server.admission = GUARDED
    async with server:
        await asyncio.sleep(0)
        assert server.admission is server._rules is GUARDED
        with pytest.raises(AssociationRejected):
            await aio.connect(*server.address, **OPTIONS)


# ---- peers of small PDUs ------------------------------------------------------------------------


@in_loop
async def test_a_step_of_the_loop_sends_few_parts_to_peers_of_small_pdus(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    steps = 0
    sent_in: list[int] = []
    give = aio.AsyncServedAssociation._try_to_send

    async def count_steps() -> None:
        nonlocal steps
        while True:
            steps += 1
            await asyncio.sleep(0)

    def counted(association: aio.AsyncServedAssociation, pdv: PDV) -> int:
        status = give(association, pdv)
        if status == 0:
            sent_in.append(steps)
        return status

    async def handler(association: aio.AsyncServedAssociation, pdv: PDV) -> None:
        await association.send(bytes(16384), context=pdv.context_id, is_command=True)

    def ask() -> None:
        request = decode(REQUEST)
        assert isinstance(request, AssociateRequest)
        small = encode(replace(request, user_info=UserInformation(8, "1.2.3")))
        with ExitStack() as stack:
            peers = [stack.enter_context(raw_requestor(to.address[1])) for _ in range(3)]
            for peer in peers:
                peer.sendall(small)
                receive_exactly_one(peer)
            for peer in peers:
                peer.sendall(p_data(b"ab", is_command=True))
            for peer in peers:
                assert len(read_all(peer, 16384 * 7)) == 16384 * 7

    monkeypatch.setattr(aio.AsyncServedAssociation, "_try_to_send", counted)
    counter = asyncio.ensure_future(count_steps())
    admission = Admission(contexts=SUPPORTED)
    async with aio.Server((LOCALHOST, 0), admission=admission, handler=handler) as to:
        await asyncio.to_thread(ask)
    counter.cancel()
    assert len(sent_in) == 3 * 4
    assert max(Counter(sent_in).values()) <= 4  # of 1,024 PDUs or more each


@in_loop
async def test_a_requestor_sends_small_parts_to_an_acceptor_of_small_pdus(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    accept = decode(ACCEPT)
    assert isinstance(accept, AssociateAccept)
    small = encode(replace(accept, user_info=UserInformation(8, "1.2.3")))

    def script(connection: socket.socket) -> None:
        connection.sendall(small)
        assert len(read_all(connection, 65536 * 7)) == 65536 * 7
        connection.recv(1024)

    sizes: list[int] = []
    give = aio.AsyncAssociation._try_to_send

    def sized(association: aio.AsyncAssociation, pdv: PDV) -> int:
        sizes.append(len(pdv.data))
        return give(association, pdv)

    monkeypatch.setattr(aio.AsyncAssociation, "_try_to_send", sized)
    with raw_acceptor(script) as (port, _):
        association = await aio.connect(LOCALHOST, port, **OPTIONS)
        await association.send(bytes(65536), context=DATA_CONTEXT, is_command=True)
        await association.abort()
    assert sizes == 16 * [4096]
