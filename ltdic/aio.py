"""Associations in asyncio: `ltdic.connect` and `ltdic.Server` with coroutines, and TLS for both.

Cancelling whoever awaits something here leaves nothing behind: what has been received is still
there for the next `receive`, and leaving the `async with` block aborts and closes.
"""

from __future__ import annotations

import asyncio
import errno
import inspect
import socket
import ssl
import threading
import time
import warnings
from collections import deque
from collections.abc import (
    AsyncIterable,
    Awaitable,
    Callable,
    Coroutine,
    Generator,
    Iterable,
    Mapping,
)
from contextlib import suppress
from functools import cached_property, partial
from types import TracebackType
from typing import Any, NoReturn
from weakref import ReferenceType, WeakKeyDictionary, WeakValueDictionary, ref

from ._arguments import not_awaited
from ._begun import is_inside
from ._codec import control_of, encode, flags_of
from ._fork import cut_off, watch
from ._hosting import Hosting
from ._message_order import Waiters
from ._native import codec, engine, net, service
from ._native.codec import Buffer
from ._native.requestor import Link, RequestorLoop
from ._requesting import (
    CLOSING_TIME,
    IN_USE,
    LATE_CLOSING_TIME,
    LATE_LOOKS,
    MOST_HELD,
    WAS_ABORTED,
    Event,
    Request,
    RequestorAssociationBase,
    Steps,
    T,
    failure,
    size_of,
    wanted_of,
)
from ._sending import AsyncSender, Sendable, part_size
from ._serving import BUSY, FAILED_DECISION, Served, ServerBase, answer_of
from ._threads import NoThread, Threads, call_in_thread
from ._times import seconds_of
from .admission import DEFAULT_MAX_LENGTH, VERIFICATION, Admission, Context
from .association import (
    DEFAULT_IDLE,
    DEFAULT_TIMEOUT,
    NOT_ANSWERED,
    OVER,
    context_id_of,
    deadline_of,
    error_of_send,
    left_of,
)
from .counters import (
    ABORTED_BY_US,
    RELEASED,
    RELEASED_BY_PEER,
    End,
    Record,
    end_of_error,
    logger,
)
from .errors import AssociationTimeout, Error, LocalError
from .pdu import (
    PDU,
    PDV,
    Abort,
    AssociateRequest,
    CommonExtendedNegotiation,
    ReleaseRequest,
    ReleaseResponse,
    UserIdentity,
)
from .retry import Attempts, Retry

MOMENT = 0.5
"""Seconds between two looks at what `serve` is to be served until."""
MOST_CUTS = 1000
"""Batches that are taken at most where everything is closed at once."""
MOST_WORK = 64
"""Events of one association that are dealt with before the loop goes on."""
MOST_RUNS = 2
"""Times that C serves before the event loop goes on."""
MOST_LOOKUPS = 256
"""Threads that look names up, at most."""


# ---- requestor ----------------------------------------------------------------------------------


class _Requests:
    """The associations that were opened in one event loop, on one loop of C. It exists as long as
    there are some."""

    def __init__(self) -> None:
        self._event_loop = ref(asyncio.get_running_loop())
        self.loop = RequestorLoop()
        self._open: WeakValueDictionary[int, AsyncAssociation] = WeakValueDictionary()
        self._thread = threading.get_ident()
        self._hosting: Hosting | None = Hosting(self.loop, self._work)
        self._hosting.keeps = self
        watch(self)

    @staticmethod
    def here() -> _Requests:
        """Those of the event loop that runs."""
        event_loop = asyncio.get_running_loop()
        found = _requests.get(event_loop)
        here = None if found is None else found()
        if here is None or here._hosting is None:
            here = _Requests()
            _requests[event_loop] = ref(here)
        return here

    def add(self, association: AsyncAssociation) -> None:
        self._open[association._link.number] = association

    def remove(self, association: AsyncAssociation) -> None:
        """It is over."""
        self._open.pop(association._link.number, None)
        self._call_soon(self._end_if_empty)

    def drop(self, link: Link) -> None:
        """Nobody has the association of this link any more. In any thread."""
        self._call_soon(partial(self._close, link))

    def _call_soon(self, function: Callable[[], None]) -> None:
        event_loop = self._event_loop()
        if event_loop is not None and self._hosting is not None:
            with suppress(RuntimeError):  # the event loop is closed
                event_loop.call_soon_threadsafe(function)

    def _close(self, link: Link) -> None:
        if self._hosting is not None:
            self.touch()
            link.close()
            self._end_if_empty()

    def _end_if_empty(self) -> None:
        """Without an association all ends, unless there has been a new one since."""
        if not self._open and self._hosting is not None:
            self._hosting.end()
            self._hosting = None
            self.loop.free()

    def touch(self) -> None:
        """Call this before C is used outside `_work`."""
        if self._hosting is not None:
            self._hosting.touch()

    def look(self) -> None:
        """Take what has come already."""
        self.touch()
        for _ in range(LATE_LOOKS):
            self._work()

    def _work(self) -> None:
        """Let C work, and hand out what has come."""
        if self._hosting is None:
            return
        try:
            self.loop.run(0)
        finally:
            for event in self.loop.events():
                association = self._open.get(event.number)
                if association is not None:
                    association._put(association._take(event, self.loop.batch_size))

    def _leave_to_parent(self) -> None:
        """In a child process, where the event loop, too, is the parent's, all is over."""
        if self._hosting is None:
            return
        self._hosting = None
        self.loop.renew_lock()
        for association in self._open.values():
            cut_off(association._link.descriptor)  # C, which may be calling TLS, has it still
        if self._thread == threading.get_ident() and not is_inside(_IN_C):
            self.loop.free()
        else:  # what C has may be half changed
            self.loop.abandon()
        for association in list(self._open.values()):
            association._record = None
            association._is_over = True
            association._room.wake()
            association._waiters.wake()
        self._open.clear()


_IN_C = [
    method.__code__
    for method in (
        *(RequestorLoop.run, RequestorLoop.free, Link.connect),
        *(Link.send, Link.send_data, Link.close, Link.hold),
    )
]
"""The methods that may be in C, which may call a transport."""
_requests: WeakKeyDictionary[asyncio.AbstractEventLoop, ReferenceType[_Requests]] = (
    WeakKeyDictionary()
)


class AsyncAssociation(RequestorAssociationBase, AsyncSender):
    """An association that `aio.connect` has opened. An asynchronous context manager: it is released
    at the end, or aborted where an exception leaves the block. One task at a time may wait for what
    comes, by `echo`, `receive` or `release`, others get `LocalError`; `send` may be called beside
    that, and by several tasks, whose messages go out one after the other."""

    def __init__(self, requests: _Requests, wanted: Request, timeout: float | None) -> None:
        self._begun = time.monotonic()
        AsyncSender.__init__(self)
        super().__init__(requests.loop, wanted, timeout)
        self._requests = requests
        self._runner: asyncio.Task[Any] | None = None
        """The task that waits for what comes."""
        self._deadline: float | None = None
        """Until when it may wait for the peer."""
        self._looked_at: float | None = None
        """The last deadline that has passed."""
        self._events: deque[Event] = deque()
        self._held = 0
        """Bytes that the events count for."""
        self._last: Error | None = None
        """The end, if it has come."""
        self._is_aborted = False
        """Has its user ended it, maybe while another task waits?"""
        self._is_ending = False
        """Is what comes dropped?"""
        self._is_over = False
        self._waiters = Waiters()
        """Who waits for what comes."""
        requests.add(self)

    def __del__(self) -> None:
        if not getattr(self, "_is_over", True):
            self._requests.drop(self._link)

    async def echo(self) -> int:
        """Ask as `SyncAssociation.echo` does."""
        self._refuse_if_over()
        context_id = context_id_of(self.contexts, VERIFICATION)
        return await self._run(self._requestor.echo(context_id))

    async def send(
        self,
        data: Sendable | AsyncIterable[Buffer],
        *,
        context: int | str,
        is_command: bool = False,
    ) -> None:
        """Send as `SyncAssociation.send` does; the pieces may also come from an asynchronous
        iterator. Whoever is cancelled in the middle of it has only `abort` left to do."""
        context_id = context_id_of(self.contexts, context)
        self._refuse_if_over()
        size, self._deadline = self._part_size, deadline_of(self.timeout)
        try:
            await self._send_message(data, context_id, is_command, self.timeout, size)
            self._raise_if_over()
        except Error as e:
            await self._fail(e)

    async def receive(self, *, joined: bool = True, limit: int = 1 << 30) -> PDV | None:
        """Receive as `SyncAssociation.receive` does. Whoever is cancelled loses nothing of what has
        come."""
        pdv = await self._run(self._requestor.receive(joined, limit))
        if pdv is None:
            await self._answer_release()
        return pdv

    async def release(self) -> None:
        """Release as `SyncAssociation.release` does."""
        self._refuse_if_over()
        if self._link.state == engine.RELEASE_REQUESTED:  # the peer has asked first
            await self._answer_release()
            return
        try:
            await self._order.begin(True, self.timeout)  # after what other tasks send
            await self._run(self._requestor.release())
        finally:
            self._order.end(False)
        await self._end(RELEASED)

    async def abort(self) -> None:
        """Abort as `SyncAssociation.abort` does; from any task, where another one then gets
        `LocalError`."""
        if not self._is_over:
            self._is_aborted = True
            self._give_up()
            await self._end(ABORTED_BY_US)

    async def __aenter__(self) -> AsyncAssociation:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None
    ) -> None:
        if self._is_over:
            return
        if kind is not None and issubclass(kind, asyncio.CancelledError):
            self._cut()
            return
        try:
            await (self.release() if kind is None else self.abort())
        finally:
            self._cut()  # where it was cancelled

    # ---- how it is done

    @cached_property
    def _part_size(self) -> int:
        return part_size(self._accepted)

    def _refuse_if_over(self) -> None:
        """Raises the exception where what has come is the end already."""
        if self._is_over:
            raise LocalError(OVER)
        try:
            self._raise_if_over()
        except Error as e:
            self._cut(end_of_error(e))
            raise

    def _raise_if_over(self) -> None:
        if self._is_aborted or self._is_over:
            raise LocalError(WAS_ABORTED)
        if self._last is not None:
            raise self._last

    async def _open(self, lookup: net.Lookup, deadline: float | None) -> None:
        try:
            self._begin(lookup, left_of(deadline))
            self._requests.touch()
            self._accepted = await self._run(self._requestor.open(), deadline)
        except BaseException:
            self._cut()
            raise
        self._link.set_timeouts(self.timeout)

    async def _run(self, steps: Steps[T], deadline: float | None = None) -> T:
        """Take the steps of a service."""
        if self._is_over:
            raise LocalError(OVER)
        if self._runner is not None and not self._runner.cancelling():
            raise LocalError(IN_USE.replace("thread", "task"))
        if deadline is None:
            deadline = deadline_of(self.timeout)
        self._runner = me = asyncio.current_task()
        self._deadline = deadline
        try:
            next(steps)
            while True:
                self._requests.touch()
                if steps.send(await self._next(self._deadline)):
                    self._deadline = deadline_of(self.timeout)
        except StopIteration as e:
            self._requests.touch()
            result: T = e.value
            return result
        except Error as e:
            await self._fail(e)
        finally:
            if self._runner is me:
                self._runner = None

    async def _next(self, deadline: float | None) -> Event:
        """The next event; one that ends the association is raised."""
        try:
            async with asyncio.timeout(left_of(deadline)):
                while not self._events:
                    if self._is_ending or self._is_over:
                        self._raise_if_over()
                    await self._waiters.change(None)
        except TimeoutError:
            if deadline == self._looked_at:  # or a peer that sends on puts it off for ever
                self._time_out()
            self._looked_at = deadline
            self._requests.look()
            if not self._events:
                self._time_out()
        event = self._events.popleft()
        self._held -= size_of(event)
        self._make_room()
        error = self._error_of(event)
        if error is not None:
            raise error
        return event

    def _time_out(self) -> NoReturn:
        if self._record is None:
            raise failure(self._wanted.address, TimeoutError()) from None
        self._give_up()
        raise AssociationTimeout(NOT_ANSWERED) from None

    def _put(self, event: Event | None) -> None:
        """Take what has come; None is news of the connection."""
        if event is None or self._is_ending:
            self._room.wake()
            self._waiters.wake()
            return
        self._events.append(event)
        self._held += size_of(event)
        self._make_room()
        error = self._error_of(event)
        if error is not None:
            self._last = self._last or error
            self._room.wake()
        self._waiters.wake()

    def _make_room(self) -> None:
        """Have C read no more where too much waits."""
        holds = self._held >= (MOST_HELD // 2 if self._holds else MOST_HELD)
        if holds != self._holds:
            self._requests.touch()
            self._hold(holds)

    def _try_to_send(self, pdv: PDV) -> int:
        self._requests.touch()
        return self._link.send_data(pdv.context_id, control_of(pdv), pdv.data)

    def _taken(self) -> int:
        return self._link.taken

    def _give_up(self) -> None:
        self._requests.touch()
        self._send_abort()

    async def _fail(self, error: Error) -> NoReturn:
        """Raise it; where it was the end, or made it, when all is closed."""
        if not self._is_over and self._link.state != engine.OPEN and not self._is_aborted:
            left = left_of(self._deadline)
            most = CLOSING_TIME if left is None else min(CLOSING_TIME, max(left, LATE_CLOSING_TIME))
            await self._end(end_of_error(error), most)
        raise error

    async def _answer_release(self) -> None:
        self._requests.touch()
        self._requestor.send(ReleaseResponse())
        await self._end(RELEASED_BY_PEER)

    async def _end(self, end: End, most: float = CLOSING_TIME) -> None:
        """Send what is left, and let the peer close first, within `most` seconds, so that nothing
        that is sent is destroyed."""
        deadline = deadline_of(most)
        self._is_ending = True
        self._events.clear()
        self._held = 0
        self._make_room()
        self._room.wake()
        self._waiters.wake()
        try:
            while self._link.state != engine.IDLE and (left := left_of(deadline)):
                await self._waiters.change(left)
        finally:
            self._finish(end)

    def _cut(self, end: End = ABORTED_BY_US) -> None:
        """An A-ABORT if there is an association, and the end, without waiting for anybody."""
        if not self._is_over:
            self._give_up()
            self._finish(end)

    def _finish(self, end: End) -> None:
        """Close, and log; once."""
        record, self._record = self._record, None
        if not self._is_over:
            self._is_over = True
            sent = self._link.sent
            self._requests.touch()
            self._link.close()
            self._requests.remove(self)
            self._order.stop()
            self._room.wake()
            self._waiters.wake()
            if record is not None:
                record.finish(end, self._begun, self._received, sent)


class _Connecting:
    """The result of `connect`: to be awaited, or to be entered by `async with`."""

    def __init__(self, connecting: Coroutine[Any, Any, AsyncAssociation]) -> None:
        self._connecting = connecting
        self._association: AsyncAssociation | None = None

    def __await__(self) -> Generator[Any, None, AsyncAssociation]:
        return self._connecting.__await__()

    async def __aenter__(self) -> AsyncAssociation:
        self._association = await self._connecting
        return self._association

    async def __aexit__(
        self, kind: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None
    ) -> None:
        assert self._association is not None
        await self._association.__aexit__(kind, e, tb)


def connect(
    host: str,
    port: int,
    *,
    called_ae: str = "ANY-SCP",
    calling_ae: str = "LTDIC",
    contexts: Iterable[Context] = ("Verification",),
    timeout: float | None = DEFAULT_TIMEOUT,
    max_length: int = DEFAULT_MAX_LENGTH,
    tls: ssl.SSLContext | None = None,
    server_hostname: str | None = None,
    local_address: tuple[str, int] | None = None,
    identity: UserIdentity | None = None,
    roles: Mapping[str, tuple[bool, bool]] | None = None,
    async_ops: tuple[int, int] | None = None,
    extended: Mapping[str, bytes] | None = None,
    common_extended: Iterable[CommonExtendedNegotiation] = (),
    request: AssociateRequest | None = None,
    retry: Retry | None = None,
) -> _Connecting:
    """Open an association as requestor: `async with connect(...) as association`, or
    `association = await connect(...)`. Everything is as with `ltdic.connect`."""
    where = host, port, called_ae, calling_ae, contexts, max_length, tls, server_hostname
    more = local_address, identity, roles, async_ops, extended, common_extended, request
    wanted = wanted_of(*where, *more)
    return _Connecting(_connect(wanted, seconds_of("timeout", timeout), retry))


async def _connect(wanted: Request, timeout: float | None, retry: Retry | None) -> AsyncAssociation:
    attempts = Attempts(retry, time.monotonic())
    while True:
        try:
            return await _connect_once(wanted, timeout)
        except Error as error:
            await asyncio.sleep(attempts.failed(error, time.monotonic()))


async def _connect_once(wanted: Request, timeout: float | None) -> AsyncAssociation:
    deadline = deadline_of(timeout)
    try:
        lookup = await _look_up(wanted, timeout)
        association = AsyncAssociation(_Requests.here(), wanted, timeout)
    except (OSError, UnicodeError) as e:  # a time-out is one
        raise failure(wanted.address, e) from e
    await association._open(lookup, deadline)
    return association


_lookups = Threads("ltdic-lookup", MOST_LOOKUPS)


async def _look_up(wanted: Request, timeout: float | None) -> net.Lookup:
    """Look names up in a thread, since that may take long."""
    address, local = wanted.address, wanted.local
    if net.is_numeric(address[0]) and (local is None or net.is_numeric(local[0] or "*")):
        return net.Lookup(address, local)
    try:
        async with asyncio.timeout(timeout):
            return await call_in_thread(_lookups, net.Lookup, address, local)
    except NoThread as e:
        raise OSError(errno.EAGAIN, "can't start new thread") from e


# ---- server -------------------------------------------------------------------------------------


class AsyncServedAssociation(Served, AsyncSender):
    """An association of an `aio.Server`, as its handler and `on_request` see it."""

    def __init__(self, server: Server, number: int, pdus: bytes) -> None:
        AsyncSender.__init__(self)
        super().__init__(server._loop, number, pdus)
        self._server = server
        self._events: deque[PDV] = deque()
        """The data that the handler has not seen."""
        self._held = 0
        """Bytes that it counts for."""
        self._holds = 0
        """What C is told to hold back."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._worker: asyncio.Task[None] | None = None
        """The task of the handler."""
        self._runs = False
        """False while that task has not begun, or lets the loop go on: then it does not wait."""
        self._is_to_cancel = False
        """Is it to be cancelled when it has handled what has come?"""
        self._waits = False
        """Does the handler wait for the end?"""
        self._is_over = False
        self._waiters = Waiters()
        """Who waits for the end."""

    async def send(
        self,
        data: Sendable | AsyncIterable[Buffer],
        *,
        context: int | str,
        is_command: bool = False,
    ) -> None:
        """Send as `AsyncAssociation.send` does, in any task: what several send at once goes out one
        message after the other. Raises `LocalError` where the association is over."""
        context_id, most = self._context_id_of(context), self._server._timeout
        try:
            await self._send_message(data, context_id, is_command, most, self._part_size)
        finally:
            self._hold()
            self._server._touch()  # a release may have waited for the end of the message

    async def release(self) -> None:
        """Ask the peer for release (PS3.8 7.2), between two messages, and wait for the end."""
        try:
            await self._order.begin(True, self._server._timeout)
            self._raise_if_over()
            status = self._send_pdu(ReleaseRequest())
            if status != 0:
                raise error_of_send(status, "an A-RELEASE-RQ")
            self._is_released = True
        finally:
            self._order.end(False)
        await self.wait()

    def abort(self) -> None:
        """End it at once, by A-ABORT (PS3.8 7.3). Does nothing when it is over."""
        if not self._is_over:
            self._is_aborted = True
            self._drop_events()
            self._send_pdu(Abort(0, 0))

    async def wait(self) -> None:
        """Wait until its connection has ended. A handler that waits holds nothing back."""
        is_handler = asyncio.current_task() is self._worker
        self._waits = self._waits or is_handler
        self._hold()
        try:
            while not self._is_over:
                await self._waiters.change(None)
        finally:
            self._waits = self._waits and not is_handler
            self._hold()

    # ---- how it is done

    def _raise_if_over(self) -> None:
        if self._is_over or self._is_aborted:
            raise LocalError(OVER)

    def _give_up(self) -> None:
        self.abort()

    def _send_pdu(self, pdu: PDU) -> int:
        self._server._touch()
        return int(self._loop.sending(self._number, encode(pdu)).make())

    def _try_to_send(self, pdv: PDV) -> int:
        self._server._touch()
        call = self._loop.sending_data(self._number, pdv.context_id, control_of(pdv), pdv.data)
        return int(call.make())

    def _hold(self) -> None:
        """Have C hold back the end while the handler works, and data where too much waits."""
        works = self._worker is not None and not self._waits
        holds = service.HOLD_END if works else 0
        holds |= service.HOLD_BROKEN if self._order.is_broken else 0
        most = MOST_HELD // 2 if self._holds & service.HOLD_DATA else MOST_HELD
        if self._held >= most:
            holds |= service.HOLD_DATA
        if holds != self._holds and not self._is_over:
            self._holds = holds
            self._server._touch()
            self._loop.hold(self._number, holds)

    def _put(self, pdv: PDV, batch: int) -> None:
        """Have the handler called with it. It keeps no more than twice its bytes of the memory of
        the batch that it came in."""
        if 2 * len(pdv.data) < batch:
            data = memoryview(bytes(pdv.data))
            pdv = PDV(pdv.context_id, pdv.is_command, pdv.is_last, data)
        self._events.append(pdv)
        self._held += size_of(pdv)
        if self._worker is None:
            self._runs = False
            self._worker = self._start(self._handle_all())
        self._hold()

    def _take(self) -> PDV | None:
        if not self._events:
            return None
        pdv = self._events.popleft()
        self._held -= size_of(pdv)
        self._hold()
        return pdv

    def _drop_events(self) -> None:
        self._events.clear()
        self._held = 0

    # ---- its tasks

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    async def _handle_all(self) -> None:
        handler = self._server._handler
        assert handler is not None
        self._begin_to_run()
        handled = 0
        try:
            while (pdv := self._take()) is not None:
                handled += 1
                if handled % MOST_WORK == 0 and not self._is_to_cancel:
                    self._runs = False
                    await asyncio.sleep(0)  # the handler may never have to wait
                    self._begin_to_run()
                await handler(self, pdv)
        except Exception as e:
            self._server._handler_failed(self, e)
        except SystemExit:
            self.abort()
            raise
        finally:
            self._worker = None
            self._hold()

    def _begin_to_run(self) -> None:
        """Where the association has ended meanwhile, what has come before that is still handled,
        until the handler has to wait."""
        self._runs = True
        if self._is_to_cancel and self._worker is not None:
            asyncio.get_running_loop().call_soon(self._worker.cancel)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if not self._is_over and not self._is_aborted and (task.cancelled() or error is not None):
            self._abandoned(error)
        elif error is not None and not isinstance(error, (SystemExit, KeyboardInterrupt)):
            logger.error("a task of an association that is over failed", exc_info=error)
        self._server._ended_task()

    def _abandoned(self, error: BaseException | None) -> None:
        """Its task was cancelled by somebody else, or has raised what is no `Exception`: nobody
        would answer the peer."""
        what = "was cancelled" if error is None else "failed"
        if self._phase() == service.PHASE_ASKING:
            logger.error("on_request %s; the request is rejected", what, exc_info=error)
            self._send_pdu(FAILED_DECISION)
        elif self.established:
            logger.error("the handler %s; its association is aborted", what, exc_info=error)
            self.abort()

    def _cancel(self) -> None:
        """Cancel what is done for it."""
        for task in list(self._tasks):
            if task is self._worker and not self._runs:
                self._is_to_cancel = True
            else:
                task.cancel()

    def _end(self) -> set[asyncio.Task[None]]:
        """It has ended. Return the tasks that may still run."""
        self._is_over = True
        self._order.stop()
        self._room.wake()
        self._waiters.wake()
        tasks = set(self._tasks)
        self._cancel()
        return tasks


Handler = Callable[[AsyncServedAssociation, PDV], Awaitable[None]]
OnEnd = Callable[[AsyncServedAssociation, Record], Awaitable[None] | None]


class Server(ServerBase[AsyncServedAssociation]):
    """An acceptor in asyncio: `async with Server(...) as server: await server.serve()`.

    It serves as `ltdic.Server` does, by the same code in C, but `handler`, `on_request` and
    `on_end` may be coroutine functions: the handler of an association is awaited for one `PDV`
    after the other, while all the others go on, and is cancelled when its association ends. Where
    1 MiB waits for it, no more is received. One that is dropped without having been closed closes
    its port, with a `ResourceWarning`, when its last association has ended.
    """

    def __init__(
        self,
        address: tuple[str, int] | None = None,
        *,
        socket: socket.socket | None = None,
        admission: Admission | None = None,
        handler: Handler | None = None,
        on_end: OnEnd | None = None,
        max_associations: int = 0,
        max_connections: int | None = None,
        timeout: float | None = DEFAULT_TIMEOUT,
        idle: float | None = DEFAULT_IDLE,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        limits = max_associations, max_connections, timeout, idle
        super().__init__(address, socket, (admission, handler, on_end, limits, tls))
        self._address = self._where
        self._threads = Threads("ltdic-on_request")
        self._event_loop: asyncio.AbstractEventLoop | None = None
        self._hosting: Hosting | None = None
        self._is_to_close = False
        self._tells_ends = False
        self._changed: asyncio.Event | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        """The calls of `on_end`."""
        watch(self)

    def _leave_to_parent(self) -> None:
        """In a child process, where the event loop, too, is the parent's, it is over."""
        if self._hosting is not None and not self._over:
            self._closing = self._over = True
            self._hosting = None
            self._loop.renew_lock()
            self._loop.free()

    def __del__(self) -> None:
        hosting: Hosting | None = getattr(self, "_hosting", None)
        if hosting is None or self._over:
            return
        assert self._event_loop is not None
        loop = self._loop

        def end() -> None:
            hosting.end()
            loop.free()

        try:
            self._event_loop.call_soon_threadsafe(end)
        except RuntimeError:  # the event loop is closed
            end()
        self._threads.end()
        if not self._closing:
            warnings.warn(f"{self!r} was not closed", ResourceWarning, source=self, stacklevel=2)

    async def __aenter__(self) -> Server:
        if self._loop.is_freed:
            raise LocalError("the server is closed")
        self._event_loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        self._take_rules()
        try:
            await self._listen_in_thread()
        except Exception:  # where it is cancelled, a thread may still use it
            self._loop.free()
            raise
        self._address = self._loop.name()
        self._hosting = Hosting(self._loop, self._work)
        if self._is_to_close:
            self._begin_to_close()
        return self

    async def _listen_in_thread(self) -> None:
        """Look a name up in a thread, since that may take long."""
        host, _ = self._where
        if self._socket is not None or host in ("", "*") or net.is_numeric(host):
            self._listen()
        else:
            await asyncio.get_running_loop().run_in_executor(None, self._listen)

    async def __aexit__(
        self, kind: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._begin_to_close()
        try:
            await self._finish()
        finally:  # also where it was cancelled
            self._free()

    def _cut(self) -> None:
        """Abort and close everything now."""
        if self._hosting is not None and not self._over:
            self._closing = True
            self._touch()
            self._loop.close(0)
            for _ in range(MOST_CUTS):
                self._work()
                if self._over:
                    return

    def _free(self) -> None:
        self._cut()
        if self._hosting is not None:
            self._hosting.end()
        self._over = True
        for association in list(self._served.values()):
            association._end()
        for task in self._tasks:
            task.cancel()
        self._loop.free()
        self._threads.end()

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens: numeric address, and port."""
        return self._address

    async def serve(self, until: float | Callable[[], bool] | None = None) -> None:
        """Serve as `ltdic.Server.serve` does. Connections are served whether it runs or not."""
        most = None if callable(until) else seconds_of("until", until, zero=True)
        not_awaited("until", until)
        await asyncio.sleep(0)  # others have their turn, although it is called again and again
        end = None if most is None else time.monotonic() + most
        self._tells_ends = callable(until)
        while not self._closing:
            left = MOMENT if end is None else min(MOMENT, end - time.monotonic())
            if left <= 0 or (callable(until) and until()):
                return
            await self._wait(left)
        await self._finish()

    def close(self) -> None:
        """Close as `ltdic.Server.close` does; it, too, may be called from any thread, and before
        the block is entered."""
        self._is_to_close = True
        if self._event_loop is not None:
            with suppress(RuntimeError):  # the loop is gone, and so is everything
                self._event_loop.call_soon_threadsafe(self._begin_to_close)

    # ---- the loop of C

    def _make(self, number: int, pdus: bytes) -> AsyncServedAssociation:
        return AsyncServedAssociation(self, number, pdus)

    def _touch(self) -> None:
        """Call this before C is used outside `_work`."""
        if self._hosting is not None:
            self._hosting.touch()

    def _work(self) -> None:
        """Let C serve, and deal with the events."""
        if self._is_to_close:
            self._begin_to_close()
        self._dispatch_all()  # what an exception has left
        self._take_rules()
        status = codec.NEED_MORE
        for _ in range(MOST_RUNS):  # the next one confirms that its events were dealt with
            status = self._run(self._tells_ends, 0)
            if not self._dispatch_all():
                break
        else:
            self._touch()
        if status == codec.CLOSED:
            self._over_now()
        if self._hosting is not None:
            is_empty = self._loop.is_empty
            self._hosting.keeps = None if is_empty else self
            if is_empty:
                self._loop.rest()

    def _dispatch_all(self) -> bool:
        found = False
        for event in self._loop.events():
            found = True
            self._dispatch(event)
        return found

    def _requested(self, event: service.ServedEvent) -> None:
        association, on_request = self._begun(event), self._rules.on_request
        if self._rules.inline and not inspect.iscoroutinefunction(on_request):
            self._decide_inline(event, association)
        elif self._undecided.add(event.served, len(event.data)):
            association._start(self._decide(association, on_request))
        else:
            self._refuse_undecided(association)

    def _data(self, event: service.ServedEvent) -> None:
        association = self._served.get(event.served)
        if association is None or self._handler is None or association._is_aborted:
            return
        pdv = PDV(event.id, *flags_of(event.control), event.data)
        association._put(pdv, self._loop.batch_size)

    def _room(self, event: service.ServedEvent) -> None:
        association = self._served.get(event.served)
        if association is not None:
            association._room.wake()

    def _ended(self, event: service.ServedEvent) -> None:
        association, report = self._served.pop(event.served, None), event.report
        self._undecided.remove(event.served)
        tasks = set() if association is None else association._end()
        if report is not None and report.outcome != 0:
            record = self._record_of(event, report)
            if record is not None:
                record.log()
                self._tell_of_end(association, record, tasks)
        self._notify()

    def _tell_of_end(
        self,
        association: AsyncServedAssociation | None,
        record: Record,
        before: set[asyncio.Task[None]],
    ) -> None:
        if self._on_end is not None and association is not None:
            assert self._event_loop is not None
            task = self._event_loop.create_task(self._call_on_end(association, record, before))
            self._tasks.add(task)
            task.add_done_callback(self._told)

    async def _call_on_end(
        self,
        association: AsyncServedAssociation,
        record: Record,
        before: set[asyncio.Task[None]],
    ) -> None:
        if before:
            await asyncio.wait(before)
        assert self._on_end is not None
        try:
            done = self._on_end(association, record)
            if inspect.isawaitable(done):
                await done
        except Exception:
            logger.exception("on_end failed")

    def _told(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._ended_task()

    # ---- on_request

    async def _decide(self, association: AsyncServedAssociation, on_request: Any) -> None:
        try:
            if inspect.iscoroutinefunction(on_request):
                decision = await on_request(association)
            else:
                decision = await call_in_thread(self._threads, on_request, association)
                if inspect.isawaitable(decision):
                    decision = await decision
            answer = answer_of(decision, association)
        except NoThread:
            answer = encode(BUSY)
        except (Exception, SystemExit):
            logger.exception("on_request failed; the request is rejected")
            answer = encode(FAILED_DECISION)
        finally:
            self._undecided.remove(association._number)
        if association._phase() == service.PHASE_ASKING:
            self._touch()
            self._send_answer(association, answer)

    def _decide_later(self, association: AsyncServedAssociation, decision: Any) -> None:
        async def awaited(_: object) -> Any:
            return await decision

        association._start(self._decide(association, awaited))

    # ---- closing

    async def _wait(self, most: float) -> None:
        """Wait until something ends, for `most` seconds."""
        assert self._changed is not None
        self._changed.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(most):
                await self._changed.wait()

    def _notify(self) -> None:
        if self._changed is not None:
            self._changed.set()

    def _ended_task(self) -> None:
        if self._closing:
            self._notify()

    def _over_now(self) -> None:
        self._over = True
        self._notify()

    def _begin_to_close(self) -> None:
        if self._closing or self._hosting is None:
            return
        self._closing = True
        self._touch()
        self._loop.close(engine.milliseconds(self._timeout))
        self._notify()

    async def _finish(self) -> None:
        """Wait until everything has come to its end."""
        self._begin_to_close()
        while not self._over:
            await self._wait(MOMENT)
        end = time.monotonic() + MOMENT  # for handlers that were cancelled
        while self._has_tasks() and time.monotonic() < end:
            await self._wait(MOMENT)

    def _has_tasks(self) -> bool:
        return bool(self._tasks) or any(one._tasks for one in self._served.values())
