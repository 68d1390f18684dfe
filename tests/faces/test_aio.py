"""The asyncio face: cancellation, many associations, back-pressure, and the end of a server."""

from __future__ import annotations

import asyncio
import functools
import hashlib
import logging
import random
import resource
import socket
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, asynccontextmanager, suppress
from types import MethodType
from typing import Any
from weakref import WeakMethod

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
    ConnectionFailed,
    LocalError,
    aio,
    decode,
    encode,
)
from support.commands import echo_request, echo_response
from support.faces import DATA_CONTEXT, RESPONSE
from support.loops import Rest, in_loop, is_done_before, next_step
from support.pdus import RELEASE_RP, RELEASE_RQ, p_data
from support.process import memory_allowed, memory_in_use
from support.raw import (
    ACCEPT,
    BIG,
    OPTIONS,
    REQUEST,
    SHORT,
    SOURCES,
    STATES,
    drained,
    raw_acceptor,
    raw_requestor,
    read_message,
)
from support.servers import ALL, answer, of_associations
from support.sockets import LOCALHOST, TIMEOUT, has_ipv6, receive_exactly_one
from support.threads import Background
from support.tls import client_context, server_context
from support.uids import SECONDARY_CAPTURE

MOMENT = 0.1  # s, after which another task most likely waits

# ---- the harness -------------------------------------------------------------------------------


@asynccontextmanager
async def associated(
    script: Callable[[socket.socket], Any], **changes: Any
) -> AsyncIterator[tuple[aio.AsyncAssociation, Background]]:
    """An association with a raw peer that accepts it and then runs the script."""

    def accept_first(connection: socket.socket) -> Any:
        connection.sendall(ACCEPT)
        return script(connection)

    with raw_acceptor(accept_first) as (port, peer):
        association = await aio.connect(LOCALHOST, port, **{**OPTIONS, **changes})
        try:
            yield association, peer
        finally:
            await association.abort()
            await asyncio.to_thread(peer.join)


def server(**options: Any) -> aio.Server:
    options = {"admission": ALL, "handler": answer, "timeout": TIMEOUT, **options}
    return aio.Server((LOCALHOST, 0), **options)


def connect(to: aio.Server, **changes: Any) -> Any:
    return aio.connect(*to.address, **{**OPTIONS, **changes})


# ---- cancelling --------------------------------------------------------------------------------


async def cancel_everywhere(work: Callable[[], Awaitable[Any]], least: int) -> None:
    """Cancel the work after each step of the loop that it takes; assert that nothing is left."""
    rest = Rest()
    steps = 0
    while not await is_done_before(steps, work()):
        await rest.come()
        steps = next_step(steps)
    await rest.come()
    assert steps >= least


async def pieces(data: bytes, size: int = 33_333) -> AsyncIterator[bytes]:
    for n in range(0, len(data), size):
        yield data[n : n + size]
        await asyncio.sleep(0)


async def echo(association: aio.AsyncAssociation) -> None:
    assert await association.echo() == 0


async def send(association: aio.AsyncAssociation) -> None:
    await association.send(BIG, context=DATA_CONTEXT, is_command=True)


async def send_pieces(association: aio.AsyncAssociation) -> None:
    await association.send(pieces(BIG[:300_000]), context=DATA_CONTEXT, is_command=True)


async def send_and_receive(association: aio.AsyncAssociation) -> None:
    await association.send(b"command!", context=DATA_CONTEXT, is_command=True)
    assert (await association.receive()).data == b"command!"


async def everything(association: aio.AsyncAssociation) -> None:
    async with association:
        await echo(association)
        await send_and_receive(association)
        await association.send(BIG[:600_000], context=DATA_CONTEXT)
        assert (await association.receive()).data == BIG[:600_000]


METHODS = {
    "echo": echo,
    "send": send,
    "send pieces": send_pieces,
    "receive": send_and_receive,
    "release": aio.AsyncAssociation.release,
    "abort": aio.AsyncAssociation.abort,
    "everything": everything,
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "secured"),
    [*((method, False) for method in METHODS), ("everything", True), ("abort", True)],
)
@in_loop
async def test_a_method_cancelled_at_any_step_leaves_nothing(method: str, secured: bool) -> None:
    options = {"tls": client_context()} if secured else {}

    async with server(tls=server_context() if secured else None) as to:

        async def work() -> None:
            async with connect(to, **options) as association:
                await METHODS[method](association)

        await cancel_everywhere(work, 5)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
@in_loop
async def test_after_cancelling_a_method_the_association_can_be_aborted(method: str) -> None:
    async with server() as to:
        rest = Rest()
        steps = 0
        done = False
        while not done:
            association = await connect(to)
            done = await is_done_before(steps, METHODS[method](association))
            await association.abort()
            await rest.come()
            steps += 1
    counters = to.counters
    assert counters.accepted == steps
    assert counters.aborted + counters.released + counters.lost == steps


@pytest.mark.parametrize("outcome", ["rejected", "refused"])
@in_loop
async def test_a_failing_call_cancelled_at_any_step_leaves_nothing(outcome: str) -> None:
    async with server(admission=Admission(called=["OTHER"])) as to:
        with socket.socket() as unused:
            unused.bind((LOCALHOST, 0))
            address = to.address if outcome == "rejected" else unused.getsockname()

            async def work() -> None:
                with pytest.raises((AssociationRejected, ConnectionFailed)):
                    await aio.connect(*address, **OPTIONS)

            await cancel_everywhere(work, 1)


@pytest.mark.slow
@pytest.mark.parametrize("state", ["idle", "in a data set", "handling"])
@in_loop
async def test_a_server_cancelled_at_any_step_leaves_nothing(state: str) -> None:
    entered = asyncio.Event()

    async def handler(association: aio.AsyncServedAssociation, pdv: PDV) -> None:
        entered.set()
        if state == "handling":
            await asyncio.sleep(3600)

    with ExitStack() as stack:

        async def work() -> None:
            async with server(handler=handler, timeout=0.02) as to:
                if state != "idle":
                    connection = stack.enter_context(raw_requestor(to.address[1]))
                    connection.sendall(STATES["in a data set"])
                    await entered.wait()
                await to.serve(until=0.01)

        with ExitStack() as stack:
            rest = Rest()
            steps = 0
            while not await is_done_before(steps, work()):
                stack.pop_all().close()
                await rest.come()
                steps = next_step(steps)
                entered.clear()
        assert steps >= 2


@in_loop
async def test_a_receive_that_is_cancelled_loses_nothing() -> None:
    count = 300

    def script(connection: socket.socket) -> None:
        for n in range(count):
            connection.sendall(p_data(b"%04d" % n, n % 2 == 0))
        drained(connection)

    async with associated(script) as (association, _):
        found: list[bytes] = []
        cancelled, turns = 0, random.Random(7)
        while len(found) < count:
            task = asyncio.ensure_future(association.receive())
            for _ in range(turns.randrange(4)):
                await asyncio.sleep(0)
            task.cancel()
            try:
                found.append(bytes((await task).data))
            except asyncio.CancelledError:
                cancelled += 1
                await asyncio.sleep(0)
        assert found == [b"%04d" % n for n in range(count)]
        assert cancelled > 0
        assert not association._waiters._waiting


@in_loop
async def test_the_next_receive_gets_the_part_that_a_cancelled_one_has_read() -> None:
    go_on = threading.Event()

    def script(connection: socket.socket) -> None:
        connection.sendall(p_data(b"abcd", True, False))
        go_on.wait(TIMEOUT)
        connection.sendall(p_data(b"efgh", True))
        drained(connection)

    async with associated(script) as (association, _):
        for _ in range(50):
            with suppress(TimeoutError):
                async with asyncio.timeout(0.001):
                    await association.receive()
        go_on.set()
        assert (await association.receive()).data == b"abcdefgh"


@in_loop
async def test_the_response_to_a_cancelled_echo_does_not_answer_the_next_one() -> None:
    def script(connection: socket.socket) -> None:
        receive_exactly_one(connection)
        receive_exactly_one(connection)
        for message in (1, 2):
            connection.sendall(echo_response(message))
        drained(connection)

    async with associated(script) as (association, _):
        task = asyncio.ensure_future(association.echo())
        await asyncio.sleep(0)
        task.cancel()
        assert await association.echo() == 0
        assert not association._events


# ---- requestors --------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("source", [*SOURCES, "asynchronous pieces"])
@in_loop
async def test_a_data_set_is_sent_from_any_source_of_bytes(source: str) -> None:
    def script(connection: socket.socket) -> Any:
        message = read_message(connection)
        time.sleep(0.1)  # the end is not to come before the return of `send`
        return message

    async with associated(script) as (association, peer):
        data = SOURCES[source](BIG) if source in SOURCES else pieces(BIG)
        await association.send(data, context=SECONDARY_CAPTURE, is_command=True)
        _, received = await asyncio.to_thread(peer.join)
        assert received == BIG


@in_loop
async def test_an_odd_number_of_bytes_is_a_value_error() -> None:
    async with associated(drained) as (association, _):
        for data in (b"abc", [b"ab", b"c"], pieces(b"abcde", 2)):
            async with associated(drained) as (association, _):
                with pytest.raises(ValueError, match="even"):
                    await association.send(data, context=DATA_CONTEXT, is_command=True)


async def send_without_end(association: aio.AsyncAssociation) -> None:
    async def data() -> AsyncIterator[bytes]:
        while True:
            yield bytes(0x10000)

    await association.send(data(), context=DATA_CONTEXT, is_command=True)


async def send_much(association: aio.AsyncAssociation) -> None:
    await association.send(bytes(40_000_000), context=DATA_CONTEXT, is_command=True)


async def send_small(association: aio.AsyncAssociation) -> None:
    """Send messages of one part each; no send may return after the end of the association."""
    for n in range(100):
        await association.send(bytes(900_000), context=DATA_CONTEXT, is_command=n % 2 == 0)
        assert association.established


ABORTED: dict[str, Callable[[aio.AsyncAssociation], Awaitable[Any]]] = {
    "receive": lambda a: a.receive(),
    "receive pieces": lambda a: a.receive(joined=False),
    "send": send_much,
    "send pieces": send_without_end,
    "send small": send_small,
    "echo": lambda a: a.echo(),
    "release": lambda a: a.release(),
}


async def raises_local_error(method: str, association: aio.AsyncAssociation) -> None:
    with pytest.raises(LocalError, match="the association is over"):
        await ABORTED[method](association)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "closes"),
    [*((method, True) for method in ABORTED), ("receive", False), ("send", False)],
)
@in_loop
async def test_abort_in_another_task_ends_a_waiting_method(method: str, closes: bool) -> None:
    reads, over = threading.Event(), threading.Event()

    def script(connection: socket.socket) -> bytes:
        reads.wait(TIMEOUT)
        last = drained(connection)
        if not closes:
            over.wait(TIMEOUT)
        return last

    async with associated(script, timeout=6 * TIMEOUT) as (association, peer):
        task = asyncio.create_task(raises_local_error(method, association))
        await asyncio.sleep(MOMENT)
        assert not task.done()
        reads.set()
        aborting = [asyncio.create_task(association.abort()) for _ in range(3)]
        await asyncio.wait_for(task, TIMEOUT)
        for one in aborting:
            await asyncio.wait_for(one, TIMEOUT)
        assert not association.established
        over.set()
        assert decode(await asyncio.to_thread(peer.join)) == Abort(0, 0)
        await association.abort()
        for other in ABORTED:
            await raises_local_error(other, association)


@pytest.mark.slow
@in_loop
async def test_abort_in_another_task_ends_a_waiting_method_over_tls() -> None:
    async with server(tls=server_context()) as to:
        association = await connect(to, tls=client_context())
        task = asyncio.create_task(raises_local_error("receive", association))
        await asyncio.sleep(MOMENT)
        await association.abort()
        await asyncio.wait_for(task, TIMEOUT)
    assert to.counters.aborted == 1


@pytest.mark.slow
@pytest.mark.parametrize("method", ABORTED)
@in_loop
async def test_abort_at_any_turn_of_the_loop_is_a_local_error(method: str) -> None:
    async with server() as to:
        for steps in (0, 1, 2, 3, 4, 5, 7, 10, 20):
            association = await connect(to)
            task = asyncio.ensure_future(ABORTED[method](association))
            for _ in range(steps):
                await asyncio.sleep(0)
            await asyncio.wait_for(association.abort(), TIMEOUT)
            assert not association.established
            if method == "send pieces" or steps == 0:
                with pytest.raises(LocalError, match="over"):
                    await asyncio.wait_for(task, TIMEOUT)
            else:  # the method had returned before
                with suppress(LocalError):
                    await asyncio.wait_for(task, TIMEOUT)


@pytest.mark.slow
@in_loop
async def test_leaving_the_block_ends_a_method_that_another_task_waits_for() -> None:
    async with associated(drained) as (association, peer):

        async def leave() -> None:
            async with association:
                raise KeyError

        task = asyncio.create_task(raises_local_error("receive", association))
        await asyncio.sleep(MOMENT)
        with pytest.raises(KeyError):
            await leave()
        await asyncio.wait_for(task, TIMEOUT)
        assert decode(await asyncio.to_thread(peer.join)) == Abort(0, 0)


@in_loop
async def test_an_abort_during_a_send_is_raised_in_the_sender() -> None:
    def script(connection: socket.socket) -> None:
        receive_exactly_one(connection)
        connection.sendall(encode(Abort(2, 6)))

    async def data() -> AsyncIterator[bytes]:
        while True:
            yield bytes(0x40000)
            await asyncio.sleep(0)

    async with associated(script) as (association, _):
        with pytest.raises(AssociationAborted) as e:
            await association.send(data(), context=DATA_CONTEXT, is_command=True)
        assert e.value.abort == Abort(2, 6)


@in_loop
async def test_two_releases_at_once_end_in_order() -> None:
    def script(connection: socket.socket) -> list[bytes]:
        found = [receive_exactly_one(connection)]
        connection.sendall(RELEASE_RQ)
        found.append(receive_exactly_one(connection))
        connection.sendall(RELEASE_RP)
        return [*found, drained(connection)]

    async with associated(script) as (association, peer):
        await association.release()
        assert await asyncio.to_thread(peer.join) == [RELEASE_RQ, RELEASE_RP, b""]


@in_loop
async def test_a_release_after_that_of_the_peer_sends_the_response() -> None:
    def script(connection: socket.socket) -> bytes:
        connection.sendall(p_data(b"ab", True) + RELEASE_RQ)
        return drained(connection)

    async with associated(script) as (association, peer):
        assert (await association.receive()).data == b"ab"
        await association.release()
        assert await asyncio.to_thread(peer.join) == RELEASE_RP


@pytest.mark.slow
@in_loop
async def test_a_peer_that_reads_nothing_is_aborted_at_the_timeout() -> None:
    over = threading.Event()
    async with associated(lambda _: over.wait(TIMEOUT), timeout=SHORT) as (association, _):
        begun = time.monotonic()
        with pytest.raises(AssociationTimeout, match="taken"):
            await association.send(bytes(40_000_000), context=DATA_CONTEXT, is_command=True)
        assert SHORT * 0.9 < time.monotonic() - begun < TIMEOUT
        over.set()


@pytest.mark.slow
@pytest.mark.parametrize("peer", ["unknown authority", "no TLS", "silent"])
@in_loop
async def test_a_failed_tls_handshake_is_a_connection_failed(peer: str) -> None:
    options: dict[str, Any] = {"tls": client_context(trustme.CA())}
    async with server(tls=server_context() if peer == "unknown authority" else None) as to:
        if peer == "silent":
            options["timeout"] = SHORT
            with (
                socket.create_server((LOCALHOST, 0)) as listener,
                pytest.raises(ConnectionFailed),
            ):
                await aio.connect(*listener.getsockname(), **{**OPTIONS, **options})
        else:
            with pytest.raises(ConnectionFailed):
                await connect(to, **options)


@pytest.mark.slow
@in_loop
async def test_reading_stops_while_received_messages_are_not_taken() -> None:
    """The messages may be empty."""
    wire = p_data(b"", True) * 4000

    def script(connection: socket.socket) -> int:
        connection.settimeout(SHORT)
        size = 0
        with suppress(TimeoutError):
            while size < 100 << 20:
                size += connection.send(wire)
        return size

    async with associated(script) as (association, peer):
        assert await asyncio.to_thread(peer.join) < 60 << 20
        assert len(association._events) < 30_000
        assert (await association.receive()).data == b""


# ---- a server: many associations, and slow handlers --------------------------------------------


@pytest.mark.slow
@in_loop
async def test_a_thousand_associations_are_served_by_one_loop() -> None:
    count = 1000
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 8192)), hard))
    everybody = asyncio.Barrier(count)

    async def associate(to: aio.Server) -> None:
        async with connect(to, timeout=6 * TIMEOUT) as association:
            await everybody.wait()
            await echo(association)

    async with (
        server(timeout=6 * TIMEOUT) as to,
        asyncio.TaskGroup() as group,
    ):
        for _ in range(count):
            group.create_task(associate(to))
    assert of_associations(to.counters) == ltdic.Counters(accepted=count, released=count)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@in_loop
async def test_a_slow_handler_does_not_delay_other_associations() -> None:
    entered, go_on = asyncio.Event(), asyncio.Event()

    async def handler(association: aio.AsyncServedAssociation, pdv: PDV) -> None:
        entered.set()
        await go_on.wait()
        await answer(association, pdv)

    async with server(handler=handler) as to, connect(to) as slow:
        await slow.send(b"command!", context=DATA_CONTEXT, is_command=True)
        await entered.wait()
        async with connect(to) as other:
            await echo(other)
        assert to.counters.released == 1
        go_on.set()
        assert (await slow.receive()).data == b"command!"


async def fill(connection: socket.socket, wire: bytes) -> int:
    """Send until the peer takes no more for a while; return the number of bytes taken."""
    connection.setblocking(False)
    loop = asyncio.get_running_loop()
    size = 0
    with suppress(TimeoutError):
        while size < 200 << 20:
            async with asyncio.timeout(SHORT):
                await loop.sock_sendall(connection, wire)
            size += len(wire)
    return size


@pytest.mark.slow
@pytest.mark.parametrize("size", [0x3FF0, 0])
@in_loop
async def test_a_slow_handler_stops_reading_from_its_peer(size: int) -> None:
    go_on = asyncio.Event()
    handled = 0

    async def handler(association: aio.AsyncServedAssociation, pdv: PDV) -> None:
        nonlocal handled
        await go_on.wait()
        handled += len(pdv.data)

    wire = (p_data(bytes(size), True) + p_data(bytes(size))) * (100_000 // (size + 24))
    before = memory_in_use()
    async with server(handler=handler) as to:
        with raw_requestor(to.address[1]) as connection:
            connection.sendall(REQUEST)
            await asyncio.to_thread(receive_exactly_one, connection)
            sent = await fill(connection, wire)
            assert sent < 60 << 20  # mostly buffers of the system
            assert memory_in_use() - before < memory_allowed(60 << 20)
            go_on.set()
        await to.serve(until=lambda: to.counters.lost == 1)
        async with connect(to) as other:
            await echo(other)
    assert handled >= sent // (size + 12) * size


@pytest.mark.slow
@in_loop
async def test_a_server_that_may_not_read_does_not_spin() -> None:
    steps = 0

    async def handler(association: aio.AsyncServedAssociation, pdv: PDV) -> None:
        await asyncio.sleep(3600)

    wire = (p_data(bytes(0x3FF0), True) + p_data(bytes(0x3FF0))) * 8
    # It is aborted while `fill` waits, and not closed before that is over.
    async with server(handler=handler, idle=SHORT / 3, timeout=5 * SHORT) as to:
        with raw_requestor(to.address[1]) as connection:
            connection.sendall(REQUEST)
            await asyncio.to_thread(receive_exactly_one, connection)
            await fill(connection, wire)
            work = aio.Server._work

            def counted(server: aio.Server) -> None:
                nonlocal steps
                steps += bool(server.open)  # not what the peer has sent on, behind the abort
                work(server)

            assert to._hosting is not None
            counting = MethodType(counted, to)
            to._hosting._work = WeakMethod(counting)
            await to.serve(until=2 * SHORT)
            assert steps < 20


@pytest.mark.slow
@in_loop
async def test_a_peer_that_reads_no_echo_responses_takes_bounded_memory() -> None:
    """The server aborts it or stops reading from it."""
    wire = echo_request(1) * 1000
    before = memory_in_use()
    async with server(timeout=SHORT) as to:
        with raw_requestor(to.address[1]) as connection:
            connection.sendall(REQUEST)
            with suppress(ConnectionError):
                while await fill(connection, wire) > 0:
                    pass
            assert memory_in_use() - before < memory_allowed(60 << 20)
            assert to.counters.open + to.counters.aborted == 1


# ---- a server: decisions and handlers ----------------------------------------------------------


class Decides:
    async def __call__(self, _: object) -> AssociateReject:
        return AssociateReject(2, 3, 2)


async def decides(_: object) -> AssociateReject:
    return AssociateReject(2, 3, 2)


async def raises(_: object) -> None:
    raise RuntimeError("what the log says")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("on_request", "codes"),
    [
        (decides, (2, 3, 2)),
        (Decides(), (2, 3, 2)),
        (lambda _: AssociateReject(2, 3, 2), (2, 3, 2)),
        (lambda _: decides(_), (2, 3, 2)),
        (raises, (2, 1, 1)),
        (lambda _: 7, (2, 1, 1)),
        (lambda _: AssociateReject(1, 3, 8), (1, 3, 8)),
    ],
)
@in_loop
async def test_on_request_may_be_any_kind_of_function(
    on_request: Any, codes: tuple[int, int, int], caplog: pytest.LogCaptureFixture
) -> None:
    async with server(admission=Admission(on_request=on_request)) as to:
        with pytest.raises(AssociationRejected) as e:
            await connect(to)
        assert e.value.codes == codes
    failed = [r for r in caplog.records if r.levelno == logging.ERROR]
    assert len(failed) == (codes == (2, 1, 1))


@in_loop
async def test_a_handler_that_raises_aborts_its_association_alone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def handler(association: aio.AsyncServedAssociation, pdv: PDV) -> None:
        raise RuntimeError("what the log says")

    async with server(handler=handler) as to, connect(to) as other:
        association = await connect(to)
        await association.send(b"ab", context=DATA_CONTEXT, is_command=True)
        with pytest.raises(AssociationAborted):
            await association.receive()
        await echo(other)
    failures = [r.getMessage() for r in caplog.records if r.levelno == logging.ERROR]
    assert failures == ["the handler failed; its association is aborted"]


@pytest.mark.slow
@pytest.mark.parametrize("stubborn", [False, True])
@in_loop
async def test_a_handler_of_a_lost_peer_ends_with_the_server(stubborn: bool) -> None:
    entered, over = asyncio.Event(), asyncio.Event()

    async def handler(association: aio.AsyncServedAssociation, pdv: PDV) -> None:
        entered.set()
        while not over.is_set():
            try:
                await over.wait()
            except asyncio.CancelledError:
                if not stubborn:
                    raise

    async with server(handler=handler, timeout=SHORT) as to:
        with raw_requestor(to.address[1]) as connection:
            connection.sendall(STATES["between messages"])
            await entered.wait()
        begun = time.monotonic()
        to.close()
    assert time.monotonic() - begun < TIMEOUT / 2
    over.set()


@pytest.mark.slow
@in_loop
async def test_the_connection_of_a_peer_that_never_reads_is_closed() -> None:
    async def handler(association: aio.AsyncServedAssociation, pdv: PDV) -> None:
        for n in range(100):
            await association.send(BIG[:1_000_000], context=DATA_CONTEXT, is_command=n % 2 == 0)

    async with server(handler=handler, timeout=SHORT) as to:
        with raw_requestor(to.address[1]) as connection:
            connection.sendall(REQUEST + p_data(b"ab", True))
            await to.serve(until=lambda: to.counters.aborted == 1 and not to._served)
    assert of_associations(to.counters) == ltdic.Counters(accepted=1, aborted=1)


# ---- a server: its end -------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("reads", [False, True])
@in_loop
async def test_a_server_closes_in_time_in_every_state(state: str, reads: bool) -> None:
    timeout = 0.5
    handled: list[bytes] = []

    async def handler(association: aio.AsyncServedAssociation, pdv: PDV) -> None:
        handled.append(bytes(pdv.data))

    with ExitStack() as stack:
        readers = []
        async with server(handler=handler, timeout=timeout) as to:
            for _ in range(0 if state == "no connection" else 3):
                connection = stack.enter_context(raw_requestor(to.address[1]))
                connection.sendall(STATES[state])
                if state not in ("no request", "half a request"):
                    await asyncio.to_thread(receive_exactly_one, connection)
                if reads:
                    readers.append(Background(functools.partial(closing, connection)))
            begun = time.monotonic()
            to.close()
            await to.serve()
        assert time.monotonic() - begun < timeout + TIMEOUT / 4
        for reader in readers:
            reader.join()
    if "data" in state or "messages" in state:
        assert b"".join(handled) == b"abab" * 3
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(to.address, TIMEOUT)


def closing(connection: socket.socket) -> None:
    drained(connection)
    connection.close()


@in_loop
async def test_a_closing_server_answers_a_connection_in_its_backlog() -> None:
    async with server() as to:
        with raw_requestor(to.address[1]) as connection:  # not accepted yet
            connection.sendall(REQUEST)
            to.close()
            found = await asyncio.to_thread(receive_exactly_one, connection)
            assert decode(found) == AssociateReject(2, 3, 1)


def answer_and_close(connection: socket.socket) -> ltdic.PDU:
    with connection:
        return decode(receive_exactly_one(connection))


@pytest.mark.slow
@in_loop
async def test_a_closing_server_answers_every_connection_in_its_backlog() -> None:
    count = 150
    with ExitStack() as stack:
        async with server() as to:
            waiting = [stack.enter_context(raw_requestor(to.address[1])) for _ in range(count)]
            for connection in waiting:
                connection.sendall(REQUEST)
            peers = Background(lambda: [answer_and_close(connection) for connection in waiting])
        assert peers.join() == [AssociateReject(2, 3, 1)] * count
    assert to.counters.rejected == {("sent", 2, 3, 1): count}


@pytest.mark.slow
@pytest.mark.parametrize("secured", [False, True], ids=["plain", "TLS"])
@in_loop
async def test_a_cancelled_close_of_a_server_closes_new_connections(
    secured: bool,
) -> None:
    """This includes connections without a transport of asyncio yet."""
    count = 10
    to = server(tls=server_context() if secured else None)
    with ExitStack() as stack:

        async def serve_and_be_cancelled() -> None:
            async with to:
                for _ in range(count):
                    waiting.append(stack.enter_context(raw_requestor(to.address[1])))
                current = asyncio.current_task()
                assert current is not None
                current.cancel()

        waiting: list[socket.socket] = []
        with pytest.raises(asyncio.CancelledError):
            await asyncio.create_task(serve_and_be_cancelled())
        for connection in waiting:
            with suppress(ConnectionResetError):
                assert await asyncio.to_thread(connection.recv, 1) == b""
    assert to.counters == ltdic.Counters(connections=count, no_request=count)


@in_loop
async def test_a_server_may_be_closed_from_any_thread() -> None:
    async with server() as to:
        closer = threading.Timer(SHORT / 3, to.close)
        closer.start()
        await to.serve()
        closer.join()


def test_closing_after_the_loop_is_closed_does_nothing() -> None:
    to = server()

    async def main() -> None:
        async with to:
            pass

    asyncio.run(main())
    to.close()


@in_loop
async def test_a_server_for_all_addresses_has_one_port_for_both_families() -> None:
    async with aio.Server(("", 0), timeout=TIMEOUT) as to:
        port = to.address[1]
        hosts = ["127.0.0.1", "::1"] if has_ipv6() else ["127.0.0.1"]
        for host in hosts:
            async with aio.connect(host, port, timeout=TIMEOUT) as association:
                await echo(association)
    assert to.counters.released == len(hosts)


@in_loop
async def test_a_server_cannot_listen_at_an_unresolvable_host() -> None:
    for host in ("a" * 70, "\udcff"):
        with pytest.raises(socket.gaierror):
            await aio.Server((host, 0)).__aenter__()


@pytest.mark.slow
@in_loop
async def test_serve_ends_after_a_time_or_when_a_function_returns_true() -> None:
    async with server() as to:
        begun = time.monotonic()
        await to.serve(until=SHORT)
        assert SHORT * 0.99 <= time.monotonic() - begun < TIMEOUT / 2
        await to.serve(until=lambda: True)
        async with asyncio.TaskGroup() as group:
            group.create_task(to.serve(until=lambda: to.counters.released == 2))
            for _ in range(2):
                async with connect(to):
                    pass


@in_loop
async def test_a_server_of_several_requestors_receives_the_data_of_each() -> None:
    digests: list[str] = []

    async def handler(association: aio.AsyncServedAssociation, pdv: PDV) -> None:
        digest = association.user_data = association.user_data or hashlib.sha256()
        if not pdv.is_command:
            digest.update(pdv.data)
            if pdv.is_last:
                digests.append(digest.hexdigest())
                await association.send(RESPONSE, context=DATA_CONTEXT, is_command=True)

    async def associate(to: aio.Server, seed: int) -> str:
        data = random.Random(seed).randbytes(400_000)
        async with connect(to) as association:
            await association.send(b"command!", context=DATA_CONTEXT, is_command=True)
            await association.send(pieces(data), context=DATA_CONTEXT)
            assert (await association.receive()).data == RESPONSE
        return hashlib.sha256(data).hexdigest()

    async with server(handler=handler) as to:
        sent = await asyncio.gather(*[associate(to, seed) for seed in range(20)])
    assert sorted(digests) == sorted(sent)
