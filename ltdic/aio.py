"""Associations in asyncio: `ltdic.connect` and `ltdic.Server` with coroutines, and TLS for both.

Cancelling whoever awaits something here leaves nothing behind: what has been received is still
there for the next `receive`, and leaving the `async with` block aborts and closes.
"""

from __future__ import annotations

import asyncio
import inspect
import socket
import ssl
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
from contextlib import aclosing, suppress
from functools import cached_property, partial
from types import TracebackType
from typing import Any, NoReturn

from ._arguments import not_awaited
from ._codec import control_of, encode, flags_of
from ._connecting import dial_async, is_numeric
from ._fork import watch
from ._hosting import Hosting
from ._message_order import AsyncMessageOrder, Waiters
from ._native import codec, engine, service
from ._native.codec import Buffer
from ._on_request import Task, Threads
from ._protocol import MOST_WORK, AssociationProtocol, async_parts_of
from ._serving import Served, ServerBase
from ._times import seconds_of
from .admission import DEFAULT_MAX_LENGTH, Admission, Context
from .association import (
    BUSY,
    CLOSING_TIME,
    DEFAULT_IDLE,
    DEFAULT_TIMEOUT,
    FAILED_DECISION,
    IN_USE,
    LATE_CLOSING_TIME,
    MOST_HELD,
    NOT_ANSWERED,
    NOT_TAKEN,
    OVER,
    SHORTEST,
    Event,
    RequestorAssociationBase,
    Security,
    Sendable,
    Steps,
    T,
    answer_of,
    check_connect,
    context_id_of,
    deadline_of,
    error_of_send,
    error_of_send_data,
    failure,
    left_of,
    part_size_for,
    request_of,
    security_of,
    size_of,
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
from .tls import Tls

MOMENT = 0.5
"""Seconds between two looks at what `serve` is to be served until."""
MOST_CUTS = 1000
"""Batches that are taken at most where everything is closed at once."""


# ---- requestor ----------------------------------------------------------------------------------


class AsyncAssociation(RequestorAssociationBase):
    """An association that `aio.connect` has opened. An asynchronous context manager: it is released
    at the end, or aborted where an exception leaves the block. One task at a time may wait for what
    comes, by `echo`, `receive` or `release`, others get `LocalError`; `send` may be called beside
    that, and by several tasks, whose messages go out one after the other."""

    def __init__(
        self, protocol: AssociationProtocol, request: AssociateRequest, timeout: float | None
    ) -> None:
        super().__init__(protocol.association, request, protocol.peer, timeout)
        self._protocol = protocol
        self._runner: asyncio.Task[Any] | None = None
        """The task that waits for what comes."""
        self._looked_at: float | None = None
        """The last deadline that has passed."""
        watch(self)

    def _leave_to_parent(self) -> None:
        """In a child process it is over."""
        if self._record is not None:
            self._record = None
            self._association.receive_eof()
            for _ in self._association.events():
                pass

    async def echo(self) -> int:
        """Ask as `SyncAssociation.echo` does."""
        self._refuse_if_over()
        return await self._run(self._requestor.echo())

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
        try:
            size = self._part_size
            await self._protocol.send(data, context_id, is_command, self.timeout, size)
            self._protocol.raise_if_over()
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
        if self._association.state == engine.RELEASE_REQUESTED:  # the peer has asked first
            await self._answer_release()
            return
        order = self._protocol.order
        try:
            await order.begin(True, self.timeout)  # after what other tasks send
            await self._run(self._requestor.release())
        finally:
            order.end(False)
        await self._end(RELEASED)

    async def abort(self) -> None:
        """Abort as `SyncAssociation.abort` does; from any task, where another one then gets
        `LocalError`."""
        if self._record is not None:
            self._association.send(Abort(0, 0))
            self._protocol.aborted = True
            await self._end(ABORTED_BY_US)

    async def __aenter__(self) -> AsyncAssociation:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None
    ) -> None:
        if self._record is None:
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
        user_info = self.accept.user_info
        return part_size_for((user_info and user_info.max_length) or 0)

    def _refuse_if_over(self) -> None:
        """Raises the exception where what has come is the end already."""
        if self._record is None or self._protocol.aborted:
            raise LocalError(OVER)
        try:
            self._protocol.raise_if_over()
        except Error as e:
            self._cut(end_of_error(e))
            raise

    async def _open(self, deadline: float | None) -> None:
        left = left_of(deadline)
        self._association.set_timeouts(None if left is None else max(left, SHORTEST))
        try:
            await self._run(self._requestor.open(), deadline)
        except BaseException:
            self._cut()
            raise
        self._association.set_timeouts(self.timeout)
        self._protocol.was_established = True

    async def _run(self, steps: Steps[T], deadline: float | None = None) -> T:
        """Take the steps of a service."""
        if self._record is None:
            raise LocalError(OVER)
        if self._runner is not None and not self._runner.cancelling():
            raise LocalError(IN_USE.replace("thread", "task"))
        if deadline is None:
            deadline = deadline_of(self.timeout)
        self._runner = me = asyncio.current_task()
        try:
            next(steps)
            while True:
                self._protocol.step()
                extends = steps.send(await self._next(deadline))
                deadline = deadline_of(self.timeout) if extends else deadline
        except StopIteration as e:
            self._protocol.step()
            result: T = e.value
            return result
        except Error as e:
            await self._fail(e)
        finally:
            if self._runner is me:
                self._runner = None

    async def _next(self, deadline: float | None) -> Event:
        try:
            async with asyncio.timeout(left_of(deadline)):
                return await self._protocol.next()
        except TimeoutError:
            if deadline != self._looked_at:  # once, or a peer that sends on puts it off for ever
                self._looked_at = deadline
                self._protocol.read_late()
                if self._protocol.events:
                    return await self._protocol.next()
            self._association.send(Abort(0, 0))
            raise AssociationTimeout(NOT_ANSWERED) from None

    async def _fail(self, error: Error) -> NoReturn:
        """Raise it; where it was the end, or made it, when all is closed."""
        if self._association.state != engine.OPEN and not self._protocol.aborted:
            is_late = isinstance(error, AssociationTimeout)
            await self._end(end_of_error(error), LATE_CLOSING_TIME if is_late else CLOSING_TIME)
        raise error

    async def _answer_release(self) -> None:
        self._association.send(ReleaseResponse())
        await self._end(RELEASED_BY_PEER)

    async def _end(self, end: End, most: float = CLOSING_TIME) -> None:
        """Send what is left, and close, within `most` seconds."""
        try:
            await self._protocol.wait_closed(most)
        finally:
            self._log(end)

    def _cut(self, end: End = ABORTED_BY_US) -> None:
        if self._record is not None:
            self._protocol.cut()
            self._log(end)

    def _log(self, end: End) -> None:
        """Once."""
        record, self._record = self._record, None
        if record is not None:
            record.finish(end, self._protocol.begun, self._protocol.received, self._protocol.sent)


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
    most = check_connect(host, port, local_address, timeout)
    parts = called_ae, calling_ae, contexts, max_length, identity, roles, async_ops, extended
    wanted = request_of(*parts, common_extended, request)
    security = security_of(tls, host, server_hostname)
    where = (host, port), local_address, security
    return _Connecting(_connect(where, wanted, most, retry))


Where = tuple[tuple[str, int], tuple[str, int] | None, Security | None]
"""Address of the peer, of this end, and TLS."""


async def _connect(
    where: Where, request: AssociateRequest, timeout: float | None, retry: Retry | None
) -> AsyncAssociation:
    attempts = Attempts(retry, time.monotonic())
    while True:
        try:
            return await _connect_once(where, request, timeout)
        except Error as error:
            await asyncio.sleep(attempts.failed(error, time.monotonic()))


async def _connect_once(
    where: Where, request: AssociateRequest, timeout: float | None
) -> AsyncAssociation:
    deadline = deadline_of(timeout)
    address, local, security = where
    try:
        async with asyncio.timeout(timeout):
            protocol = await _protocol_over(
                await dial_async(address, local, timeout), timeout, security
            )
    except (OSError, ValueError) as e:  # a time-out is one, `ssl.SSLError`, and a name that is none
        raise failure(address, e) from e
    association = AsyncAssociation(protocol, request, timeout)
    await association._open(deadline)
    return association


async def _protocol_over(
    sock: socket.socket, timeout: float | None, security: Security | None
) -> AssociationProtocol:
    """Drive an association over this connection, when TLS is up."""
    try:
        tls = None if security is None else Tls(*security)
        protocol = AssociationProtocol(timeout, tls)
        await asyncio.get_running_loop().create_connection(lambda: protocol, sock=sock)
    except BaseException:
        sock.close()
        raise
    try:
        while tls is not None and not tls.established:
            if tls.error is not None:
                raise tls.error
            if protocol.closed:
                raise ConnectionResetError("the peer has closed the connection in the handshake")
            await protocol.change()
    except BaseException:
        protocol.transport.abort()
        raise
    return protocol


# ---- server -------------------------------------------------------------------------------------


class AsyncServedAssociation(Served):
    """An association of an `aio.Server`, as its handler and `on_request` see it."""

    def __init__(self, server: Server, number: int, pdus: bytes) -> None:
        super().__init__(server._loop, number, pdus)
        self._server = server
        self._order = AsyncMessageOrder()
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

    async def send(
        self,
        data: Sendable | AsyncIterable[Buffer],
        *,
        context: int | str,
        is_command: bool = False,
    ) -> None:
        """Send as `AsyncAssociation.send` does, in any task: what several send at once goes out one
        message after the other. Raises `LocalError` where the association is over."""
        context_id = self._context_id_of(context)
        opens = is_begun = False
        try:
            await self._order.begin(is_command, self._server._timeout)
            async with aclosing(async_parts_of(data, self._part_size)) as parts:
                async for is_last, part in parts:
                    await self._send(PDV(context_id, is_command, is_last, part))
                    opens = is_command and not is_begun and bool(engine.announces_data_set(part))
                    is_begun = not is_last
        finally:
            self._order.end(opens, broken=is_begun)
            self._hold()
            self._server._touch()  # a release may have waited for the end of the message

    async def release(self) -> None:
        """Ask the peer for release (PS3.8 7.2), between two messages, and wait for the end."""
        try:
            await self._order.begin(True, self._server._timeout)
            self._refuse_if_over()
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

    def _refuse_if_over(self) -> None:
        if self._is_over or self._is_aborted:
            raise LocalError(OVER)

    def _send_pdu(self, pdu: PDU) -> int:
        self._server._touch()
        return int(self._loop.sending(self._number, encode(pdu)).make())

    async def _send(self, pdv: PDV) -> None:
        """Send it when there is room, and let the others go on."""
        self._refuse_if_over()
        while (status := self._try_to_send(pdv)) == codec.ROOM:
            await self._wait_for_room()
            self._refuse_if_over()
        if status != 0:
            raise error_of_send_data(status, pdv)

    def _try_to_send(self, pdv: PDV) -> int:
        self._server._touch()
        call = self._loop.sending_data(self._number, pdv.context_id, control_of(pdv), pdv.data)
        return int(call.make())

    async def _wait_for_room(self) -> None:
        """Wait until the peer has taken what was sent before. One that takes nothing in time is
        aborted."""
        taken = self._taken()
        while not await self._waiters.change(self._server._timeout):
            before, taken = taken, self._taken()
            if taken <= before:
                self.abort()
                raise AssociationTimeout(NOT_TAKEN)

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
        self._waiters.wake()
        tasks = set(self._tasks)
        self._cancel()
        return tasks


Handler = Callable[[AsyncServedAssociation, PDV], Awaitable[None]]
OnEnd = Callable[[AsyncServedAssociation, Record], Awaitable[None] | None]


class NoThread(Exception):
    """The system has no more threads, and there is none."""


def _call_in_thread(
    loop: asyncio.AbstractEventLoop,
    done: asyncio.Future[tuple[Any, BaseException | None]],
    function: Callable[[Any], Any],
    argument: Any,
) -> None:
    result, error = None, None
    try:
        result = function(argument)
    except BaseException as e:
        error = e

    def deliver() -> None:
        if not done.done():
            done.set_result((result, error))

    with suppress(RuntimeError):  # the loop is closed
        loop.call_soon_threadsafe(deliver)


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
        address: tuple[str, int],
        *,
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
        super().__init__(address, admission, handler, on_end, *limits, tls)
        self._address = address
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
            await self._listen()
        except Exception:  # where it is cancelled, a thread may still use it
            self._loop.free()
            raise
        self._address = self._loop.name()
        self._hosting = Hosting(self._loop, self._work)
        if self._is_to_close:
            self._begin_to_close()
        return self

    async def _listen(self) -> None:
        """Look a name up in a thread, since that may take long."""
        host, port = self._address
        if host in ("", "*") or is_numeric(host):
            self._loop.listen(host, port)
        else:
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(None, self._loop.listen, host, port)

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
        status = self._run(self._tells_ends, 0)
        has_events = self._dispatch_all()
        if status == codec.CLOSED:
            self._over_now()
        elif has_events:
            self._touch()  # the next run confirms that they were dealt with
        if self._hosting is not None:
            self._hosting.keeps = None if self._loop.is_empty else self

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
            association._waiters.wake()

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
                decision = await self._in_thread(on_request, association)
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

    async def _in_thread(self, function: Callable[[Any], Any], argument: Any) -> Any:
        """Call the function in a thread, and return or raise what it does. It is no executor that
        anybody else uses, and none that the process waits for at its end. Raises `NoThread`."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[tuple[Any, BaseException | None]] = loop.create_future()
        task = Task(partial(_call_in_thread, loop, done, function, argument))
        if not self._threads.submit(task):
            raise NoThread
        try:
            result, error = await done
        finally:
            self._threads.forget(task)
        if error is not None:
            raise error if isinstance(error, Exception) else RuntimeError(repr(error)) from error
        return result

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
