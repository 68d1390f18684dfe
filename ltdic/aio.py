"""Associations in asyncio: `ltdic.connect` and `ltdic.Server` with coroutines, and TLS for both.

Cancelling whoever awaits something here leaves nothing behind: what has been received is still
there for the next `receive`, and leaving the `async with` block aborts and closes.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import math
import socket
import ssl
import time
import warnings
import weakref
from collections import Counter
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
from typing import Any, NoReturn, cast

from ._arguments import HOST_AND_PORT, one, pair
from ._codec import encode
from ._connecting import dial_async
from ._first_bytes import FIRST
from ._fork import cut_off, watch
from ._native import codec, engine, net, service
from ._native.codec import Buffer
from ._on_request import Task, Threads, Undecided
from ._protocol import MOST_WORK, AssociationProtocol, peer_of
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
    OVER,
    SHORTEST,
    Event,
    RequestorAssociationBase,
    Security,
    Sendable,
    ServedAssociationBase,
    Steps,
    T,
    answer_of,
    check_address,
    check_connect,
    check_server,
    connections_allowed,
    context_id_of,
    deadline_of,
    failure,
    left_of,
    part_size_for,
    request_of,
    security_of,
    titles_of,
)
from .counters import (
    ABORTED_BY_US,
    RELEASED,
    RELEASED_BY_PEER,
    Counters,
    End,
    Record,
    describe_reject,
    end_of_error,
    logger,
    stranger_of,
    tls_stranger,
)
from .errors import AssociationTimeout, Error, LocalError
from .pdu import (
    PDV,
    Abort,
    AssociateReject,
    AssociateRequest,
    CommonExtendedNegotiation,
    ReleaseRequest,
    ReleaseResponse,
    UserIdentity,
)
from .retry import Attempts, Retry
from .tls import Tls, check_tls

GRACE = 0.5
"""Seconds that a connection without a request is given when a server closes."""
MOMENT = 0.5
"""Seconds between two looks at what `serve` is to be served until."""
BACKLOG = 1024
MOST_HANDSHAKE = 0x10000
"""Bytes that a requestor may send until TLS is up: its hello, and its certificates."""


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
        protocol = AssociationProtocol(True, timeout, tls=tls)
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


class AsyncServedAssociation(ServedAssociationBase):
    """An association of an `aio.Server`, as its handler and `on_request` see it."""

    def __init__(
        self, acceptor: _Acceptor, request: bytes, accept: bytes, timeout: float | None
    ) -> None:
        super().__init__(request, accept, acceptor.peer)
        self._acceptor = acceptor
        self._timeout = timeout
        if acceptor.tls is not None:
            self.peer_certificate = acceptor.tls.peer_certificate

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
        try:
            await self._acceptor.send(data, context_id, is_command, self._timeout, self._part_size)
        except AssociationTimeout:
            self._acceptor.abort()
            raise

    async def release(self) -> None:
        """Ask the peer for release (PS3.8 7.2), between two messages, and wait for the end."""
        order = self._acceptor.order
        try:
            await order.begin(True, self._timeout)
            self._acceptor.release()
        finally:
            order.end(False)
        await self.wait()

    def abort(self) -> None:
        """End it at once, by A-ABORT (PS3.8 7.3). Does nothing when it is over."""
        self._acceptor.abort()

    async def wait(self) -> None:
        """Wait until its connection has ended."""
        while not self._acceptor.closed:
            await self._acceptor.change()


Handler = Callable[[AsyncServedAssociation, PDV], Awaitable[None]]
OnEnd = Callable[[AsyncServedAssociation, Record], Awaitable[None] | None]

TIMED_OUT, LOST = End("timed out", "timed out"), End("lost", "connection lost")


class _Acceptor(AssociationProtocol):
    """One connection of a server: what C does in `server.c` it does with the same admission."""

    def __init__(self, server: Server, peer: tuple[str, int]) -> None:
        tls = None if server._tls is None else Tls(server._tls)
        super().__init__(False, server._timeout, server._idle, tls)
        self.peer = peer
        self.association._limit_associate(server._policy.max_associate)
        self._server = server
        self._place: Any = None
        self._rules = server._rules
        """The admission that its request was judged by."""
        self._record: Record | None = None
        self._end: End | None = None
        self._first = b""
        self._handshake = 0
        """Bytes received before TLS is up."""
        self._accepted: AsyncServedAssociation | None = None
        self._judged_verification: frozenset[int] = frozenset()
        self._verification: frozenset[int] = frozenset()
        """The contexts whose data is answered here: C-ECHO."""
        self._between = True
        """Is no message of the peer received in part?"""
        self._begins = True
        """Is what comes next the first piece of a command or data set?"""
        self._is_alone = False
        """Is the command that comes, or came last, the whole message?"""
        self._tasks: set[asyncio.Task[None]] = set()
        self._working = False
        self._yields: asyncio.Task[None] | None = None
        """The task of the handler while it lets the loop go on."""
        self._is_to_cancel = False
        """Is that task to be cancelled when it has handled what has come?"""
        self._is_to_release = False
        """Has the peer asked for release, and waits for an answer?"""

    # ---- what happens

    def data_received(self, data: bytes) -> None:
        if self._record is None and len(self._first) < FIRST:
            self._first += data[: FIRST - len(self._first)]
        super().data_received(data)
        if self.tls is None or self.tls.established:
            self._server._count_unfinished(self, self._unfinished())
            return
        self._handshake += len(data)
        self._server._count_unfinished(self, self._handshake)
        if self._handshake > MOST_HANDSHAKE:
            self.cut()

    def _unfinished(self) -> int:
        """Bytes of a PDU that is not whole, those in TLS records included: but for those that come
        while the association is established, which are mostly of a P-DATA-TF."""
        size = self.association._unfinished
        if self.tls is not None and not self.association.established:
            size += len(self.tls.waiting)
        return size

    def connection_lost(self, exc: Exception | None) -> None:
        try:
            super().connection_lost(exc)
        except BaseException:  # whatever is wrong here, its place is free
            self._over = True
            self.settle()
            raise

    def on_indication(self, indication: engine.Indication) -> None:
        if indication.over:
            self._ended(indication)
        elif indication.status == codec.TIMEOUT:
            self._set_end(TIMED_OUT)
        elif indication.status != 0:
            codes = 0, 2, codec.abort_reason(indication.status)
            text = f"aborted by us: {codec.text_of(indication.status)}"
            self._set_end(End("aborted", text, codes))
        else:
            _ACTIONS[indication.type](self, indication)

    def step(self, most: int = MOST_WORK) -> None:
        super().step(most)
        self.settle()

    def settle(self) -> None:
        """Answer a release and go on with closing, both of which may be the end; then give back
        what it does not need any more."""
        if self._is_to_release and not self.order.is_open:
            self._is_to_release = False
            self._answer_release()
            super().step()
        if self._server._closing and not self._over:
            self._server._close_step(self)
        self._give_back()
        self._leave()

    def _give_back(self) -> None:
        state = engine.IDLE if self._over else self.association.state
        if state == engine.IDLE:
            self._server._count_unfinished(self, 0)
        if state != engine.REQUESTED:
            self._server._undecided.remove(self)
        if self._place is not None and not engine.is_under_way(state):
            self._server._policy.leave(self._place)
            self._place = None

    @property
    def is_between_messages(self) -> bool:
        """Is there no message that is received, handled or sent in part?"""
        sends = self.order.is_open or self.order.is_broken
        return self._between and not self._working and not sends

    def _remember(self, request: bytes) -> None:
        self._record = Record(*titles_of(request), self.peer, True)
        self.begun = time.monotonic()

    def _receive_request(self, indication: engine.Indication) -> None:
        request = bytes(self.association._bytes_of(indication))
        self._remember(request)
        judged = self._server._policy.judge(request, self.peer[0])
        refusal, accept, self._place = judged.refusal, judged.accept, judged.place
        self._judged_verification = judged.verification
        if refusal is not None:
            self._reject(AssociateReject(*refusal))
        elif self._server._closing:
            self._reject(BUSY)
        else:
            timeout = self._server._timeout
            self._accepted = AsyncServedAssociation(self, request, accept, timeout)
            self._rules = self._server._rules
            if self._rules.on_request is None:
                self._answer(accept)
            elif self._server._undecided.add(self, len(request) + len(accept)):
                self._start(self._decide(self._accepted))
            else:
                self._refuse_undecided()

    def _refuse_undecided(self) -> None:
        logger.debug("too many requests wait for on_request; this one is rejected")
        self._reject(BUSY)

    async def _decide(self, association: AsyncServedAssociation) -> None:
        on_request: Any = self._rules.on_request
        try:
            if inspect.iscoroutinefunction(on_request):
                decision = await on_request(association)
            else:
                decision = await self._server._in_thread(on_request, association)
                if inspect.isawaitable(decision):
                    decision = await decision
            answer = answer_of(decision, association)
        except NoThread:
            answer = encode(BUSY)
        except (Exception, SystemExit):
            logger.exception("on_request failed; the request is rejected")
            answer = encode(FAILED_DECISION)
        if self.association.state == engine.REQUESTED:
            self._answer(answer)
            self.step()

    def _answer(self, pdu: bytes) -> None:
        assert self._accepted is not None
        if pdu[0] == AssociateReject.type:
            self._reject(AssociateReject(*pdu[7:10]))
            return
        self.association._send_bytes(pdu)
        if pdu[0] == Abort.type:
            self._set_end(ABORTED_BY_US._replace(codes=(0, pdu[8], pdu[9])))
            self.flush()
            return
        self._accepted._answered(pdu)
        self._server._counts["accepted"] += 1
        if self._rules.answer_verification:
            self._verification = self._judged_verification
        self.flush()

    def _reject(self, reject: AssociateReject) -> None:
        """Send it before what comes after the request is looked at, which may be the end."""
        self.association.send(reject)
        self._set_rejected(reject)
        self.flush()

    def _refused(self, indication: engine.Indication) -> None:
        """The provider has rejected the request."""
        self._remember(bytes(self.association._bytes_of(indication)))
        self._set_rejected(AssociateReject(*indication.codes))
        self.flush()

    def _receive_data(self, indication: engine.Indication) -> None:
        self._look_for_end(indication)
        if indication.id in self._verification:
            self._receive_echo(indication)
        elif self._server._handler is not None:
            event = self.association._event(indication)
            self.put(event)
            self._work()

    def _look_for_end(self, indication: engine.Indication) -> None:
        """A message ends with its data set, or with a command that announces none. The first piece
        of a command mostly tells which (PS3.7 6.3.1)."""
        is_command, is_last = indication.control & codec.COMMAND, indication.control & codec.LAST
        if self._begins and is_command:
            command = self.association._bytes_of(indication)
            self._is_alone = engine.announces_data_set(command) is False
        self._begins = bool(is_last)
        self._between = self._begins and (not is_command or self._is_alone)

    def _receive_echo(self, indication: engine.Indication) -> None:
        """In a Verification context nothing but a C-ECHO request means anything (PS3.4 A.4)."""
        echo = self.association._echo_in(indication)
        if not indication.control & codec.LAST:
            return
        if echo is None or not echo.is_request:
            self.abort()
            return
        self._between = True
        if self.unsent() > MOST_HELD:  # it never reads
            self.abort()
            return
        try:
            self.association.answer_echo(echo)
        except (LocalError, ValueError):  # it never reads, or its SOP class is no UID
            if self.association.state == engine.OPEN:
                self.abort()

    def _receive_release_request(self, indication: engine.Indication) -> None:
        if self._working:
            self.put(ReleaseRequest())
        else:
            self._is_to_release = True

    def _answer_release(self) -> None:
        if self.order.is_broken:  # only abort is left to do
            self.abort()
        elif self.association.state == engine.RELEASE_REQUESTED:
            self.association.send(ReleaseResponse())
            self._set_end(RELEASED)

    def _receive_release_response(self, indication: engine.Indication) -> None:
        self._set_end(RELEASED)
        if self.association.state == engine.RELEASE_COLLIDED:  # PS3.8 9.2.2
            self.association.send(ReleaseResponse())

    def _receive_abort(self, indication: engine.Indication) -> None:
        source, reason = self.association._bytes_of(indication)[8:10]
        text = f"aborted by the peer (source {source}, reason {reason})"
        self._set_end(End("aborted", text, (0, source, reason)))

    # ---- the handler

    def _work(self) -> None:
        if not self._working:
            self._working = True
            self._start(self._handle_all())

    async def _handle_all(self) -> None:
        handler, association = self._server._handler, self._accepted
        assert handler is not None
        assert association is not None
        try:
            handled = 0
            while (event := self.take()) is not None:
                handled += 1
                if handled % MOST_WORK == 0 and not self._is_to_cancel:
                    await self._let_others()  # it may never have to wait
                if isinstance(event, PDV):
                    await handler(association, event)
                else:
                    self._is_to_release = True
        except Exception as e:
            self._handler_failed(e)
        except SystemExit:
            self.abort()
            raise
        finally:
            self._working = False
        self.step()

    async def _let_others(self) -> None:
        """Let the loop go on. Where the association ends meanwhile, what has come before that is
        still handled, until the handler has to wait."""
        self._yields = me = asyncio.current_task()
        await asyncio.sleep(0)
        self._yields = None
        if self._is_to_cancel and me is not None:
            self._loop.call_soon(me.cancel)

    def _handler_failed(self, error: Exception) -> None:
        """In its `except`."""
        assert self._accepted is not None
        if isinstance(error, LocalError) and engine.asks_for_release(self.association.state):
            logger.debug("the handler's association is being released: %s", error)
            return
        if isinstance(error, Error) and not self._accepted.established:
            logger.debug("the handler's association is over: %s", error)
        else:
            logger.exception("the handler failed; its association is aborted")
        self.abort()

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if engine.is_under_way(self.association.state) and (task.cancelled() or error is not None):
            self._abandoned(error)
        elif error is not None and not isinstance(error, (SystemExit, KeyboardInterrupt)):
            logger.error("a task of an association that is over failed", exc_info=error)
        self._leave()

    def _abandoned(self, error: BaseException | None) -> None:
        """Its task was cancelled, but not by `cancel`, or has raised what is no `Exception`: nobody
        would answer the peer."""
        what = "was cancelled" if error is None else "failed"
        if self.association.state == engine.REQUESTED:
            logger.error("on_request %s; the request is rejected", what, exc_info=error)
            self._reject(FAILED_DECISION)
            self.step()
        else:
            logger.error("the handler %s; its association is aborted", what, exc_info=error)
            self.abort()

    # ---- the end

    def release(self) -> None:
        """Ask for it. Raises `LocalError` in the wrong state."""
        self.association.send(ReleaseRequest())
        self.step()

    def abort(self) -> None:
        if engine.is_under_way(self.association.state):
            self.association.send(Abort(0, 0))
        if self.association.state == engine.CLOSING:
            self._set_end(ABORTED_BY_US)
            self.drop_all()

    def _set_rejected(self, reject: AssociateReject) -> None:
        if self._end is None:
            codes = int(reject.result), int(reject.source), int(reject.reason)
            self._server._rejected["sent", *codes] += 1
            is_told = self._server._tells_of_ends()
            self._set_end(End("rejected", describe_reject(reject) if is_told else "", codes))

    def _set_end(self, end: End) -> None:
        """The first one counts: what comes after it is only its end."""
        if self._end is not None:
            return
        self._end = end
        accepted = self._accepted is not None and self._accepted.established
        if accepted:
            self._server._counts[end.outcome] += 1
        elif end.outcome != "rejected":
            self._server._counts["unaccepted"] += 1
        if self._accepted is not None:
            self._accepted._established = False

    def _ended(self, indication: engine.Indication) -> None:
        if self._record is None:
            self._stranger_ended(indication)
        else:
            self._set_end(TIMED_OUT if indication.status == codec.TIMEOUT else LOST)
            assert self._end is not None
            self._record.finish(self._end, self.begun, self.received, self.sent)
            self._tell_of_end(self._record)
        self._server._ended()

    def _stranger_ended(self, indication: engine.Indication) -> None:
        """A connection that was closed with nothing sent is counted only: probes do that."""
        seconds = time.monotonic() - self.begun
        counts, first = self._server._counts, self._first
        if first and self.tls is not None and not self.tls.established:
            counts["tls_failures"] += 1
            why = str(self.tls.error or codec.text_of(indication.status))
            tls_stranger(self.peer, first, why, seconds).log()
            return
        if self.tls is not None:
            first = self.association._first
        counts["faults" if codec.is_fault(indication.status) else "no_request"] += 1
        if first or indication.status == codec.TIMEOUT:
            stranger_of(self.peer, indication.status, indication.offset, first, seconds).log()

    def _tell_of_end(self, record: Record) -> None:
        """Cancel what is done for it, and call `on_end` after that."""
        tasks = set(self._tasks)
        self.cancel()
        if self._server._on_end is not None and self._accepted is not None:
            self._start(self._call_on_end(self._server._on_end, self._accepted, record, tasks))

    async def _call_on_end(
        self,
        on_end: OnEnd,
        association: AsyncServedAssociation,
        record: Record,
        before: set[asyncio.Task[None]],
    ) -> None:
        if before:
            await asyncio.wait(before)
        try:
            done = on_end(association, record)
            if inspect.isawaitable(done):
                await done
        except Exception:
            logger.exception("on_end failed")

    def _leave(self) -> None:
        """The server has to wait for it until there is neither a connection nor work left."""
        if self.closed and self._over and not self._tasks and self in self._server._acceptors:
            self._server._left(self)

    def end_for_congestion(self) -> None:
        """It has sent too much of what is not whole."""
        if self.tls is not None and not self.tls.established:
            self.cut()
        else:
            self.association._fail(codec.CONGESTION)
            self.step()

    def forget(self) -> None:
        """It is over: what only it needs is garbage at once, without a cycle that waits for the
        collector."""
        self._accepted = self._record = None
        self.events.clear()

    def stop(self) -> None:
        """Close, whatever it is doing; `on_end` is called after that."""
        if not self._over:
            self.cancel()
        if self.is_connected:
            self.cut()

    def cancel(self) -> None:
        """Cancel what is done for it."""
        for task in list(self._tasks):
            if task is self._yields:
                self._is_to_cancel = True
            else:
                task.cancel()


_ACTIONS: dict[int, Callable[[_Acceptor, engine.Indication], None]] = {
    engine.REFUSED: _Acceptor._refused,
    1: _Acceptor._receive_request,
    4: _Acceptor._receive_data,
    5: _Acceptor._receive_release_request,
    6: _Acceptor._receive_release_response,
    7: _Acceptor._receive_abort,
}


async def _listen(host: str, port: int) -> socket.socket:
    """At the first address that can be had; for all, of both families, as `ltdic.Server` does."""
    if host in ("", "*"):
        both = socket.has_dualstack_ipv6()
        family = socket.AF_INET6 if both else socket.AF_INET
        return socket.create_server(("", port), family=family, backlog=BACKLOG, dualstack_ipv6=both)
    error = OSError("no address")
    try:
        found = await _look_up(host, port)
    except UnicodeError as e:
        raise socket.gaierror(socket.EAI_NONAME, f"{host!a} is no name of a host") from e
    for family, _, _, _, where in found:
        try:
            return socket.create_server(
                cast(tuple[str, int], where), family=family, backlog=BACKLOG
            )
        except OSError as e:
            error = e
    raise error


async def _look_up(host: str, port: int) -> list[Any]:
    """Look up as C does: what is no domain name is known without the full stop at its end."""
    name = net.encoded_host(host.strip("[]"))
    look_up = partial(asyncio.get_running_loop().getaddrinfo, port=port, type=socket.SOCK_STREAM)
    try:
        return await look_up(name)
    except socket.gaierror as e:
        if len(name) < 2 or not name.endswith(b".") or e.errno not in UNKNOWN:
            raise
        return await look_up(name[:-1])


UNKNOWN = socket.EAI_NONAME, socket.EAI_AGAIN


class _Listener:
    """Accepts connections, as many as there may be, and while there are descriptors."""

    def __init__(self, sock: socket.socket, server: Server) -> None:
        sock.setblocking(False)
        self.socket = sock
        self._server = weakref.ref(server)  # the loop has this one, and would keep the server
        self._loop = asyncio.get_running_loop()
        self._reads = self.closed = False
        self._starved = False
        """True from the first connection that had to wait until none does."""
        self._retry: asyncio.TimerHandle | None = None

    def resume(self) -> None:
        """Accept: there is room."""
        if self._reads or self.closed:
            return
        self._reads = True
        self._loop.add_reader(self.socket, self._accept)
        self._forget_retry()

    def pause(self) -> None:
        if self._reads:
            self._reads = False
            self._loop.remove_reader(self.socket)

    def close(self) -> None:
        self.pause()
        self.closed = True
        self.socket.close()
        self._forget_retry()

    def leave_to_parent(self) -> None:
        """Close in this process, with nothing changed in the poller, which is the parent's, too."""
        self._reads, self.closed = False, True
        cut_off(self.socket.fileno())
        self.socket.close()

    def _forget_retry(self) -> None:
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None

    def drain(self) -> None:
        """Take those who wait already, as far as there may be more."""
        for _ in range(BACKLOG // ACCEPTS + 1):
            if self._reads:
                self._accept()

    def _accept(self) -> None:
        server = self._server()
        if server is None:  # it was dropped just now
            return
        for _ in range(ACCEPTS):
            try:
                sock, name = self.socket.accept()
            except BlockingIOError:
                self._starved = False
                return
            except (InterruptedError, ConnectionAbortedError):
                return
            except OSError as e:
                self._starve(e)
                return
            server._take(sock, name)
            if server._is_full():
                self.pause()
                return

    def _starve(self, error: OSError) -> None:
        """Without descriptors or memory, callers wait: try again in a moment, and say so once."""
        if not self._starved:
            logger.warning("connections wait, since none can be accepted: %s", error)
        self._starved = True
        self.pause()
        self._retry = self._loop.call_later(STARVED_RETRY, self.resume)


ACCEPTS = 64
"""Connections that are taken in one round of the loop."""
STARVED_RETRY = 0.1
"""Seconds until accepting is tried again."""


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


class Server:
    """An acceptor in asyncio: `async with Server(...) as server: await server.serve()`.

    It serves as `ltdic.Server` does, with the same admission, but `handler`, `on_request` and
    `on_end` may be coroutine functions: the handler of an association is awaited for one `PDV`
    after the other, while all the others go on, and is cancelled when its association ends. `tls`
    is the context of a TLS server. One that is dropped without having been closed closes its port,
    with a `ResourceWarning`, when its last association has ended.
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
        check_address(*pair("address", address, HOST_AND_PORT))
        check_server(admission, handler, on_end)
        if tls is not None:
            check_tls(tls)
        self._max_associations = max_associations
        self._max_connections = connections_allowed(max_connections)
        self._handler, self._on_end = handler, on_end
        self._rules = admission or Admission()
        """The admission whose policy C has."""
        self._policy = self._policy_of(self._rules)
        self._newest = self._given = self._rules, self._policy
        """The admission that was set last, and its policy; and those that C was given last."""
        self._timeout, self._idle = seconds_of("timeout", timeout), seconds_of("idle", idle)
        self._tls = tls
        self._where = address
        self._acceptors: set[_Acceptor] = set()
        self._unfinished: dict[_Acceptor, int] = {}
        """Bytes of the PDUs that are not whole; the one that began first in front."""
        self._unfinished_bytes = 0
        self._undecided = Undecided()
        self._threads = Threads("ltdic-on_request")
        self._counts: Counter[str] = Counter()
        self._rejected: Counter[tuple[str, int, int, int]] = Counter()
        self._is_to_close = self._closing = False
        self._tells_ends = False
        self._grace = self._abort_at = self._end_at = 0.0
        self._address = address
        self._loop: asyncio.AbstractEventLoop | None = None
        self._listener: _Listener | None = None
        self._changed: asyncio.Event | None = None
        self._taking: set[asyncio.Task[None]] = set()
        watch(self)

    def _leave_to_parent(self) -> None:
        """In a child process, where the event loop, too, is the parent's, it is over."""
        if self._listener is not None and not self._listener.closed:
            self._closing = True
            self._acceptors.clear()
            self._listener.leave_to_parent()

    def __del__(self) -> None:
        listener: _Listener | None = getattr(self, "_listener", None)
        if listener is None or listener.closed:
            return
        assert self._loop is not None
        try:
            self._loop.call_soon_threadsafe(listener.close)
        except RuntimeError:  # the loop is closed
            listener.close()
        self._threads.end()
        if not self._closing:
            warnings.warn(f"{self!r} was not closed", ResourceWarning, source=self, stacklevel=2)

    def _policy_of(self, admission: Admission) -> service.Policy:
        return admission.policy(self._max_associations, self._handler is not None)

    async def __aenter__(self) -> Server:
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        self._take_rules()
        self._listener = _Listener(await _listen(*self._where), self)
        self._address = self._listener.socket.getsockname()[:2]
        self._listener.resume()
        if self._is_to_close:
            self._begin_to_close()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None
    ) -> None:
        assert self._listener is not None
        self._begin_to_close()
        try:
            await self._finish()
        finally:  # also where it was cancelled
            self._listener.close()
            for task in list(self._taking):
                task.cancel()
            for acceptor in list(self._acceptors):
                acceptor.stop()
                acceptor.cancel()
            self._threads.end()

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens: numeric address, and port."""
        return self._address

    @property
    def admission(self) -> Admission:
        """Who is let in; another one may be set at any time, in any thread, and holds for the
        requests that come then. Places that are taken stay taken."""
        return self._newest[0]

    @admission.setter
    def admission(self, admission: Admission) -> None:
        policy = self._policy_of(one("admission", admission, Admission))
        self._newest = admission, policy
        if self._loop is not None:
            with suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._take_rules)

    def _take_rules(self) -> None:
        """Give C the admission that was set last. Only the thread of the loop does: two threads
        might leave the rules of one in C, and those of the other here."""
        newest = self._newest
        if newest is self._given:
            return
        if self._policy.taking_rules(newest[1]).make() != 0:
            raise MemoryError
        self._rules, self._given = newest[0], newest

    @property
    def counters(self) -> Counters:
        """The counts up to now."""
        counts = self._counts
        ended = {name: counts[name.replace("_", " ")] for name in _ENDED}
        return Counters(
            connections=counts["connections"],
            tls_failures=counts["tls_failures"],
            no_request=counts["no_request"],
            faults=counts["faults"],
            unaccepted=counts["unaccepted"],
            accepted=counts["accepted"],
            open=counts["accepted"] - sum(ended.values()),
            **ended,
            rejected=Counter(self._rejected),
        )

    @property
    def open(self) -> tuple[AsyncServedAssociation, ...]:
        """The associations now. From any thread."""
        accepted = [acceptor._accepted for acceptor in list(self._acceptors)]
        return tuple(one for one in accepted if one is not None and one.established)

    async def serve(self, until: float | Callable[[], bool] | None = None) -> None:
        """Serve as `ltdic.Server.serve` does. Connections are served whether it runs or not."""
        assert self._changed is not None
        most = None if callable(until) else seconds_of("until", until, zero=True)
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
        if self._loop is not None:
            with suppress(RuntimeError):  # the loop is gone, and so is everything
                self._loop.call_soon_threadsafe(self._begin_to_close)

    # ---- connections

    def _take(self, sock: socket.socket, name: Any) -> None:
        """Serve a connection."""
        assert self._loop is not None
        self._counts["connections"] += 1
        acceptor = _Acceptor(self, peer_of(name))
        self._acceptors.add(acceptor)
        task = self._loop.create_task(self._open(acceptor, sock))
        self._taking.add(task)
        task.add_done_callback(lambda task: self._taken(task, acceptor, sock))

    async def _open(self, acceptor: _Acceptor, sock: socket.socket) -> None:
        assert self._loop is not None
        with suppress(OSError):  # it has left already
            await self._loop.connect_accepted_socket(lambda: acceptor, sock)

    def _taken(self, task: asyncio.Task[None], acceptor: _Acceptor, sock: socket.socket) -> None:
        """Forget a connection that has no transport: it has left, or was cancelled."""
        self._taking.discard(task)
        if not acceptor.is_connected:
            sock.close()
            self._counts["no_request"] += 1
            self._left(acceptor)

    def _is_full(self) -> bool:
        return bool(self._max_connections) and len(self._acceptors) >= self._max_connections

    def _count_unfinished(self, acceptor: _Acceptor, size: int) -> None:
        """Count the bytes of PDUs that are not whole. Where all connections together have sent too
        much of them, those that began first end."""
        self._unfinished_bytes += size - self._unfinished.get(acceptor, 0)
        if size > 0:
            self._unfinished[acceptor] = size
        else:
            self._unfinished.pop(acceptor, None)
        while self._unfinished_bytes > net.MAX_UNFINISHED:
            first = next(iter(self._unfinished))
            self._count_unfinished(first, 0)
            first.end_for_congestion()

    async def _in_thread(self, function: Callable[[Any], Any], argument: Any) -> Any:
        """Call the function in a thread, and return or raise what it does. It is no executor that
        anybody else uses, and none that the process waits for at its end. Raises `NoThread`."""
        assert self._loop is not None
        done: asyncio.Future[tuple[Any, BaseException | None]] = self._loop.create_future()
        task = Task(partial(_call_in_thread, self._loop, done, function, argument))
        if not self._threads.submit(task):
            raise NoThread
        try:
            result, error = await done
        finally:
            self._threads.forget(task)
        if error is not None:
            raise error if isinstance(error, Exception) else RuntimeError(repr(error)) from error
        return result

    def _left(self, acceptor: _Acceptor) -> None:
        self._acceptors.discard(acceptor)
        self._count_unfinished(acceptor, 0)
        acceptor.forget()
        if self._listener is not None:
            self._listener.resume()
        self._ended()

    def _tells_of_ends(self) -> bool:
        """Does anybody want the words?"""
        return self._on_end is not None or logger.isEnabledFor(logging.INFO)

    # ---- closing

    async def _wait(self, most: float) -> None:
        """Until an association ends."""
        assert self._changed is not None
        self._changed.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(most):
                await self._changed.wait()

    def _ended(self) -> None:
        if self._changed is not None and (self._tells_ends or self._closing):
            self._changed.set()

    def _begin_to_close(self) -> None:
        if self._closing:
            return
        self._closing = True
        now = time.monotonic()
        most = math.inf if self._timeout is None else self._timeout
        self._grace = now + min(GRACE, most)
        self._abort_at, self._end_at = now + 0.75 * most, now + most
        self._step_all()
        assert self._changed is not None
        self._changed.set()

    def _step_all(self) -> None:
        for acceptor in list(self._acceptors):
            acceptor.step()

    async def _finish(self) -> None:
        """Until everything has come to its end."""
        assert self._listener is not None
        self._begin_to_close()
        self._listener.drain()
        self._listener.close()
        while self._acceptors:
            now = time.monotonic()
            moments = [self._grace, self._abort_at, self._end_at, self._end_at + MOMENT]
            left = [moment - now for moment in moments if moment > now]
            if not left:
                break  # a handler will not be cancelled
            await self._wait(min(*left, GRACE))
            self._step_all()

    def _close_step(self, acceptor: _Acceptor) -> None:
        """One step towards the end of one association."""
        now, state = time.monotonic(), acceptor.association.state
        if now >= self._end_at or (state == engine.CONNECTED and now >= self._grace):
            acceptor.stop()
        elif engine.is_under_way(state) and now >= self._abort_at:
            acceptor.abort()
        elif state == engine.REQUESTED:
            acceptor._reject(BUSY)
        elif state == engine.OPEN and acceptor.is_between_messages:
            acceptor.association.send(ReleaseRequest())
            acceptor.flush()


_ENDED = ("released", "aborted", "timed_out", "lost")
