"""The asyncio protocol that drives an `Association`: either end of `aio`."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable
from contextlib import aclosing, asynccontextmanager, nullcontext, suppress
from typing import Any, cast
from weakref import WeakKeyDictionary

from ._fork import cut_off, watch
from ._message_order import AsyncMessageOrder
from ._native import engine
from ._native.codec import Buffer
from .association import (
    CLOSING_TIME,
    MOST_HELD,
    NOT_TAKEN,
    PART,
    WAS_ABORTED,
    Association,
    Event,
    Parts,
    Sendable,
    acknowledge,
    deadline_of,
    end_of_tls,
    error_of_event,
    left_of,
    parts_of,
    size_of,
    unacknowledged,
)
from .errors import AssociationTimeout, Error, LocalError
from .pdu import PDV, Abort
from .tls import READ_SIZE, Tls

MOST_REST = 8 * MOST_HELD
"""Bytes that are read of a connection that is lost."""
MOST_WORK = 64
"""Events of one association that are dealt with before the loop goes on."""
MOST_SENDING = 0.002
"""Seconds that one task sends before the loop goes on."""


async def async_parts_of(
    data: Sendable | AsyncIterable[Buffer], size: int
) -> AsyncGenerator[tuple[bool, bytes | memoryview], None]:
    """Yield as `parts_of` does, of an asynchronous iterator, too."""
    if not isinstance(data, AsyncIterable):
        for last_and_part in parts_of(data, size):
            yield last_and_part
        return
    parts = Parts(size)
    async for piece in data:
        for part in parts.feed(piece):
            yield False, part
    yield True, parts.end()


def peer_of(name: Any) -> tuple[str, int]:
    """Address and port of a socket's name."""
    return str(name[0]).removeprefix("::ffff:"), int(name[1])


_locks: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = WeakKeyDictionary()


@asynccontextmanager
async def _one_in_a_step(loop: asyncio.AbstractEventLoop) -> AsyncGenerator[None, None]:
    """A part for a peer of small PDUs takes some milliseconds: so that many such peers delay
    nobody, each step of the event loop has one of them."""
    async with _locks.setdefault(loop, asyncio.Lock()):
        yield
        await asyncio.sleep(0)


def send_at_once(sock: Any) -> None:
    """Turn Nagle's algorithm off. asyncio does so only for a socket that was made with the number
    of TCP, which one that was accepted has from its listener."""
    with suppress(OSError):  # the connection is lost, which reading tells
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


class AssociationProtocol(asyncio.Protocol):
    """Drives one association with the bytes of one transport."""

    transport: asyncio.Transport

    def __init__(
        self,
        timeout: float | None,
        tls: Tls | None = None,
    ) -> None:
        self.tls = tls
        self.association = Association(requestor=True, timeout=timeout)
        self.events: deque[Event] = deque()
        """The events that wait to be taken."""
        self._last: Event | None = None
        """The event that has ended the association."""
        self.received = self.sent = 0
        self.begun = time.monotonic()
        self.peer: tuple[str, int] = ("unknown", 0)
        self.closed = False
        self.was_established = False
        """Has there been an A-ASSOCIATE-AC?"""
        self._loop = asyncio.get_running_loop()
        self._held = 0
        self._goes_on = False
        """Will `step` be called again soon, for what it had no time for?"""
        self._timer: asyncio.TimerHandle | None = None
        self._fires = 0.0
        self._waiters: list[asyncio.Future[None]] = []
        self.order = AsyncMessageOrder()
        self.aborted = False
        """Has its user ended it, maybe while another task waits?"""
        self._over = self._unanswered = False
        self._has_ended = False
        """Does nothing more come from the peer?"""
        self._socket: Any = None
        self._reads = self._writes = True
        self._tls_answers = False
        """Does TLS answer by itself what came last?"""
        watch(self)

    def _leave_to_parent(self) -> None:
        if self._socket is not None and not self.closed:
            cut_off(self._socket.fileno())

    # ---- what asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._socket = transport.get_extra_info("socket")
        send_at_once(self._socket)
        name = transport.get_extra_info("peername")
        if name:
            self.peer = peer_of(name)
        if self.tls is not None:
            self.tls.begin()
            self._write_out()
        self.step()

    def data_received(self, data: bytes) -> None:
        plain = data if self.tls is None else self._decrypted(self.tls, data)
        self.received += len(plain)
        self._unanswered = True
        if plain:
            self.association.receive_data(plain)
        if self.tls is not None and (self.tls.ended or self.tls.error):
            self._has_ended = True
        self.step()

    def _decrypted(self, tls: Tls, data: bytes) -> bytes:
        plain = tls.receive(data)
        self._tls_answers = self._write_out()  # of a handshake, an alert, or new keys
        if self.association.state == engine.CLOSING and tls.has_more:
            tls.stop_receiving()  # only the end of the connection means something
        return plain

    def eof_received(self) -> bool:
        """Keep the connection open where the peer waits for the answer to its release."""
        is_to_answer = self.association.state == engine.RELEASE_REQUESTED
        self._has_ended = self._has_ended or is_to_answer
        return is_to_answer

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        if isinstance(exc, ConnectionError):
            self._read_rest()
        elif self.tls is not None:
            self.tls.stop_receiving()  # all that came is decrypted, or this end has closed
        self._has_ended = True
        self.step()
        self.order.stop()
        if self._timer is not None:
            self._timer.cancel()

    def _read_rest(self) -> None:
        """asyncio stops reading where writing fails, but the peer may have said why it left. What
        has come by then is in the system's buffer, which is not larger than this."""
        left = MOST_REST
        with suppress(OSError):
            while left > 0 and (data := os.read(self._socket.fileno(), MOST_HELD)):
                left -= len(data)
                self.data_received(data)

    def read_late(self) -> None:
        """Read what has come in time, where the loop was too busy to read it."""
        left = MOST_REST
        with suppress(OSError):
            while left > 0 and self._reads and not self.transport.is_closing():
                data = os.read(self._socket.fileno(), READ_SIZE)
                if not data:
                    return
                left -= len(data)
                self.data_received(data)

    def pause_writing(self) -> None:
        self._writes = False

    def resume_writing(self) -> None:
        self._writes = True
        self.step()

    # ---- one step

    def step(self, most: int = MOST_WORK) -> None:
        """Take the events that there are, send what is to be sent, and set the timer. To be called
        after everything that may have changed something."""
        self._take_events(most)
        if self._has_ended and self._may_end():
            self.flush()  # after the end nothing goes
            self.association.receive_eof()
            self._take_events(most)
        if self._decrypts() and self._held < MOST_HELD:
            self._go_on_soon()
        self.flush()
        self.association._drop_used()
        if self._unanswered and self.association.expects_more:
            acknowledge(self._socket)
        self._unanswered = False
        if self._over and not self.closed:
            self._close()
        self._read_while_there_is_room()
        self._set_timer()
        self._wake()

    def _may_end(self) -> bool:
        """May the end be told? Not before the request, whose answer may be there already, nor while
        there is more to decrypt, or the peer waits for the answer to its release."""
        state = self.association.state
        is_to_answer = state == engine.RELEASE_REQUESTED and not self.closed
        return state != engine.IDLE and not self._decrypts() and not is_to_answer

    def _take_events(self, most: int) -> None:
        """Take as many as may be taken in one step."""
        for _ in range(most):
            if self._held >= MOST_HELD:
                return
            indication = self.association._next()
            if indication is None:
                return
            self._over = self._over or indication.over
            self.on_indication(indication)
        self._go_on_soon()

    def _go_on_soon(self) -> None:
        if not self._goes_on:
            self._goes_on = True
            self._loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        self._goes_on = False
        if self._decrypts():
            self.data_received(b"")
        else:
            self.step()

    def _decrypts(self) -> bool:
        """Is there more to decrypt of what was received?"""
        return self.tls is not None and self.tls.has_more

    def on_indication(self, indication: engine.Indication) -> None:
        self.put(self.association._event(indication))
        echo = self.association._echo_in(indication)
        if echo is not None:
            self.put(echo)

    def put(self, event: Event) -> None:
        if isinstance(event, PDV) and 2 * len(event.data) < len(self.association._view):
            data = memoryview(bytes(event.data))  # a view would keep all that came with it
            event = PDV(event.context_id, event.is_command, event.is_last, data)
        elif not isinstance(event, PDV) and self._last is None and error_of_event(event):
            self._last = event
        self.events.append(event)
        self._held += size_of(event)

    def take(self) -> Event | None:
        """The first event that waits."""
        if not self.events:
            return None
        event = self.events.popleft()
        was_full = self._held >= MOST_HELD
        self._held -= size_of(event)
        if was_full and self._held < MOST_HELD:
            self.step()
        return event

    def drop_all(self) -> None:
        self.events.clear()
        self._held = 0
        self.step()

    def flush(self) -> None:
        self.write(self.association.data_to_send())

    def write(self, data: bytes) -> None:
        if not data or self.transport.is_closing():
            return
        self.sent += len(data)
        self._unanswered = False
        if self.tls is None:
            self.transport.write(data)
        else:
            self.tls.send(data)
            self._write_out()

    def _write_out(self) -> bool:
        """True where there was something."""
        assert self.tls is not None
        data = self.tls.take()
        if data and not self.transport.is_closing():
            self.transport.write(data)
        return bool(data)

    def cut(self) -> None:
        """An A-ABORT if there is an association, and the end, without waiting for anybody."""
        self.association.send(Abort(0, 0))
        self.flush()
        self.transport.abort()  # what the system has taken already still goes

    def _close(self) -> None:
        """The end; what the peer has not taken by now it never takes."""
        if self.unsent():
            self.transport.abort()
            return
        if self.tls is not None:
            self.tls.close()
            self._write_out()
        self.transport.close()

    def unsent(self) -> int:
        """Bytes that the system has not taken."""
        held = 0 if self.tls is None else len(self.tls.unsent)
        return held + self.transport.get_write_buffer_size()

    def _read_while_there_is_room(self) -> None:
        is_answered = self._tls_answers or self.association.state == engine.CLOSING
        deaf = is_answered and self.unsent() >= MOST_HELD
        reads = self._held < MOST_HELD and not deaf and not self._goes_on
        if reads != self._reads and not self.transport.is_closing():
            self._reads = reads
            (self.transport.resume_reading if reads else self.transport.pause_reading)()

    def _set_timer(self) -> None:
        """One that fires too early is set again then. While there is no room there is none."""
        idles = self.closed or self._held >= MOST_HELD
        deadline = None if idles else self.association.deadline()
        if deadline is None or (self._timer is not None and self._fires <= deadline):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._fires = deadline
        self._timer = self._loop.call_later(deadline - time.monotonic() + 0.001, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        deadline = self.association.deadline()
        if deadline is not None and deadline <= time.monotonic():
            self.read_late()
        self.step()

    # ---- whoever waits

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def change(self) -> None:
        """Wait until something may have changed."""
        waiter = self._loop.create_future()
        self._waiters.append(waiter)
        try:
            await waiter
        finally:
            if waiter in self._waiters:
                self._waiters.remove(waiter)

    async def next(self) -> Event:
        """The next event; one that ends the association is raised."""
        while (event := self.take()) is None:
            if self.aborted or (self.closed and not self._goes_on):
                raise LocalError(WAS_ABORTED)
            await self.change()
        error = self.error_of(event)
        if error is not None:
            raise error
        return event

    def error_of(self, event: Event) -> Error | None:
        """The exception for an event that ends the association, or None."""
        error = error_of_event(event)
        if error is None or self.tls is None:
            return error
        return end_of_tls(error, self.tls.error, self.was_established)

    def raise_if_over(self) -> None:
        if self.aborted:
            raise LocalError(WAS_ABORTED)
        if self._last is not None and (error := self.error_of(self._last)) is not None:
            raise error

    async def send(
        self,
        data: Sendable | AsyncIterable[Buffer],
        context_id: int,
        is_command: bool,
        timeout: float | None,
        size: int,
    ) -> None:
        """Send a whole command or data set in parts of `size` bytes, after other tasks."""
        opens = is_begun = False
        try:
            await self.order.begin(is_command, timeout)
            since = time.monotonic()
            async with aclosing(async_parts_of(data, size)) as parts:
                async for is_last, part in parts:
                    async with _one_in_a_step(self._loop) if size < PART else nullcontext():
                        self._give(PDV(context_id, is_command, is_last, part))
                        opens = (
                            is_command and not is_begun and bool(engine.announces_data_set(part))
                        )
                        is_begun = not is_last
                    await self._wait_for_room(timeout)
                    if time.monotonic() - since > MOST_SENDING:
                        await asyncio.sleep(0)
                        since = time.monotonic()
        finally:
            self.order.end(opens, broken=is_begun)
            if not self.closed:
                self.step()  # something may have waited for the end of the message

    def _give(self, pdv: PDV) -> None:
        """Send it, and take one event at most, so that a task that sends does not go on for
        ever."""
        self.raise_if_over()
        self.association.send(pdv)
        self.step(most=1)

    async def _wait_for_room(self, timeout: float | None) -> None:
        """Wait until the transport takes more."""
        left, deadline = self._untaken(), deadline_of(timeout)
        while self._is_to_wait() and self.association.established:
            try:
                async with asyncio.timeout(left_of(deadline)):
                    await self.change()
            except TimeoutError:
                before, left = left, self._untaken()
                if left >= before:
                    self.association.send(Abort(0, 0))
                    raise AssociationTimeout(NOT_TAKEN) from None
                deadline = deadline_of(timeout)  # it takes it, slowly

    def _untaken(self) -> int:
        """Bytes that the peer's system has not taken, as far as that is known."""
        return self.unsent() + unacknowledged(self._socket)

    def _is_to_wait(self) -> bool:
        """May no more be sent for now?"""
        return not self._writes or (self.tls is not None and bool(self.tls.unsent))

    async def wait_closed(self, most: float = CLOSING_TIME) -> None:
        """Let the peer close first, within `most` seconds, so that nothing that is sent is
        destroyed."""
        try:
            async with asyncio.timeout(most):
                self.drop_all()
                while not self.closed:
                    await self.change()
                    self.drop_all()
        except TimeoutError:
            pass
        finally:
            self.transport.abort()
