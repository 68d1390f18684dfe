"""Associations in asyncio: `ltdic.connect` and `ltdic.Server` with coroutines, and TLS for both.

Cancelling whoever awaits something here leaves nothing behind: what has been received is still
there for the next `receive`, and leaving the `async with` block aborts and closes.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import socket
import ssl
import time
from collections import Counter
from collections.abc import AsyncIterable, Awaitable, Callable, Coroutine, Generator, Iterable
from contextlib import suppress
from types import TracebackType
from typing import Any, NoReturn, cast

from . import _lib
from ._lib import Buffer
from ._link import MOST_HELD, Link
from .admission import VERIFICATION, Admission, Context
from .association import (
    CLOSING_TIME,
    DEFAULT_IDLE,
    DEFAULT_MAX_LENGTH,
    DEFAULT_TIMEOUT,
    FAILED_DECISION,
    SHORTEST,
    Counters,
    Event,
    Opened,
    Record,
    Sendable,
    Served,
    Steps,
    T,
    answer_of,
    check_connect,
    context_id_of,
    deadline_of,
    describe_reject,
    echo_of,
    failure,
    left_of,
    logger,
    make_request,
    outcome_of_error,
)
from .errors import AssociationTimeout, Error, LocalError
from .pdu import (
    PDV,
    Abort,
    AssociateReject,
    AssociateRequest,
    ReleaseRequest,
    ReleaseResponse,
    UserIdentity,
    encode,
)
from .retry import Attempts, Retry

GRACE = 0.5
"""Seconds that a connection without a request is given when a server closes."""
MOMENT = 0.5
"""Seconds between two looks at what `serve` is to be served until."""
BACKLOG = 1024


# ---- requestor ----------------------------------------------------------------------------------


class AsyncAssociation(Opened):
    """An association that `aio.connect` has opened. An asynchronous context manager: it is released
    at the end, or aborted where an exception leaves the block. One task at a time."""

    def __init__(self, link: Link, request: AssociateRequest, timeout: float | None) -> None:
        super().__init__(link.association, request, link.peer, timeout)
        self._link = link

    async def echo(self) -> int:
        """As `SyncAssociation.echo`."""
        self._refuse_if_over()
        return await self._run(self._requestor.echo())

    async def send(
        self,
        data: Sendable | AsyncIterable[Buffer],
        *,
        context: int | str,
        is_command: bool = False,
    ) -> None:
        """As `SyncAssociation.send`; the pieces may also come from an asynchronous iterator.
        Whoever is cancelled in the middle of it has only `abort` left to do."""
        context_id = context_id_of(self.contexts, context)
        self._refuse_if_over()
        try:
            await self._link.send(data, context_id, is_command, self.timeout)
            self._link.raise_if_over()
        except Error as e:
            await self._fail(e)

    async def receive(self, *, joined: bool = True, limit: int = 1 << 30) -> PDV | None:
        """As `SyncAssociation.receive`. Whoever is cancelled loses nothing of what has come."""
        pdv = await self._run(self._requestor.receive(joined, limit))
        if pdv is None:
            await self._answer_release()
        return pdv

    async def release(self) -> None:
        """As `SyncAssociation.release`."""
        self._refuse_if_over()
        if self._association.state == 8:  # the peer has asked first
            await self._answer_release()
            return
        await self._run(self._requestor.release())
        await self._end("released")

    async def abort(self) -> None:
        """As `SyncAssociation.abort`."""
        if self._record is not None:
            self._association.send(Abort(0, 0))
            await self._end("aborted by us")

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

    def _refuse_if_over(self) -> None:
        """What has come may be the end already."""
        if self._record is None:
            raise LocalError("the association is over")
        try:
            self._link.raise_if_over()
        except Error as e:
            self._cut(outcome_of_error(e))
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

    async def _run(self, steps: Steps[T], deadline: float | None = None) -> T:
        """Take the steps of a service."""
        if self._record is None:
            raise LocalError("the association is over")
        if deadline is None:
            deadline = deadline_of(self.timeout)
        try:
            next(steps)
            while True:
                self._link.turn()
                extends = steps.send(await self._next(deadline))
                deadline = deadline_of(self.timeout) if extends else deadline
        except StopIteration as e:
            self._link.turn()
            result: T = e.value
            return result
        except Error as e:
            await self._fail(e)

    async def _next(self, deadline: float | None) -> Event:
        try:
            async with asyncio.timeout(left_of(deadline)):
                return await self._link.next()
        except TimeoutError:
            self._association.send(Abort(0, 0))
            raise AssociationTimeout("the peer has not answered in time") from None

    async def _fail(self, error: Error) -> NoReturn:
        """Raise it; where it was the end, or made it, when all is closed."""
        if self._association.state != 6:
            await self._end(outcome_of_error(error))
        raise error

    async def _answer_release(self) -> None:
        self._association.send(ReleaseResponse())
        await self._end("released by the peer")

    async def _end(self, outcome: str) -> None:
        """Send what is left, and close."""
        try:
            await self._link.wait_closed()
        finally:
            self._log(outcome)

    def _cut(self, outcome: str = "aborted by us") -> None:
        if self._record is not None:
            self._link.cut()
            self._log(outcome)

    def _log(self, outcome: str) -> None:
        """Once."""
        record, self._record = self._record, None
        if record is not None:
            record.outcome = outcome
            record.seconds = time.monotonic() - self._link.begun
            record.received, record.sent = self._link.received, self._link.sent
            record.log()


class _Connecting:
    """What `connect` returns: to be awaited, or to be entered by `async with`."""

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
    identity: UserIdentity | None = None,
    retry: Retry | None = None,
) -> _Connecting:
    """Open an association as requestor: `async with connect(...) as association`, or
    `association = await connect(...)`. Everything is as with `ltdic.connect`."""
    check_connect(port, timeout)
    request = make_request(called_ae, calling_ae, list(contexts), max_length, identity)
    return _Connecting(_connect((host, port), request, timeout, tls, retry))


async def _connect(
    address: tuple[str, int],
    request: AssociateRequest,
    timeout: float | None,
    tls: ssl.SSLContext | None,
    retry: Retry | None,
) -> AsyncAssociation:
    attempts = Attempts(retry, time.monotonic())
    while True:
        try:
            return await _connect_once(address, request, timeout, tls)
        except Error as error:
            await asyncio.sleep(attempts.failed(error, time.monotonic()))


async def _connect_once(
    address: tuple[str, int],
    request: AssociateRequest,
    timeout: float | None,
    tls: ssl.SSLContext | None,
) -> AsyncAssociation:
    deadline = deadline_of(timeout)
    try:
        async with asyncio.timeout(timeout):
            link = await _open_link(address, timeout, tls)
    except (OSError, UnicodeError) as e:  # a time-out is one, and so is `ssl.SSLError`
        raise failure(address, e) from e
    association = AsyncAssociation(link, request, timeout)
    await association._open(deadline)
    return association


async def _open_link(
    address: tuple[str, int], timeout: float | None, tls: ssl.SSLContext | None
) -> Link:
    """A link to the first address of a host that takes one."""
    loop = asyncio.get_running_loop()
    error = OSError("no address")
    for family, kind, protocol, _, where in await loop.getaddrinfo(
        *address, type=socket.SOCK_STREAM
    ):
        try:
            sock = await _connect_socket(socket.socket(family, kind, protocol), where)
            return await _link_over(sock, address[0], timeout, tls)
        except TimeoutError:
            raise
        except OSError as e:
            error = e
    raise error


async def _link_over(
    sock: socket.socket, host: str, timeout: float | None, tls: ssl.SSLContext | None
) -> Link:
    link = Link(True, timeout)
    loop = asyncio.get_running_loop()
    if tls is None:
        await loop.create_connection(lambda: link, sock=sock)
        return link
    # `create_connection` with TLS would leave the socket open where it is cancelled early.
    transport, _ = await loop.create_connection(asyncio.Protocol, sock=sock)
    try:
        secured = await loop.start_tls(
            transport, link, tls, server_hostname=host, ssl_shutdown_timeout=CLOSING_TIME
        )
    except BaseException:
        transport.abort()
        raise
    assert secured is not None
    link.connection_made(secured)
    return link


async def _connect_socket(sock: socket.socket, where: Any) -> socket.socket:
    sock.setblocking(False)
    try:
        # A reset: it was up, and the peer has left already. What it said can still be read.
        with suppress(ConnectionResetError, BrokenPipeError):
            await asyncio.get_running_loop().sock_connect(sock, where)
    except BaseException:
        sock.close()
        raise
    return sock


# ---- server -------------------------------------------------------------------------------------


class AsyncServedAssociation(Served):
    """An association of an `aio.Server`, as its handler and `on_request` see it."""

    def __init__(self, link: _Acceptor, request: bytes, accept: bytes, timeout: float) -> None:
        super().__init__(request, accept, link.peer)
        self._link = link
        self._timeout = timeout

    async def send(
        self,
        data: Sendable | AsyncIterable[Buffer],
        *,
        context: int | str,
        is_command: bool = False,
    ) -> None:
        """As `AsyncAssociation.send`. Raises `LocalError` where the association is over."""
        context_id = context_id_of(self.contexts, context)
        try:
            await self._link.send(data, context_id, is_command, self._timeout)
        except AssociationTimeout:
            self._link._set_outcome(ABORTED, "aborted by us")
            self._link.turn()
            raise

    def abort(self) -> None:
        """End it at once, by A-ABORT (PS3.8 7.3). Does nothing when it is over."""
        self._link.abort()


Handler = Callable[[AsyncServedAssociation, PDV], Awaitable[None]]

RELEASED, ABORTED, TIMED_OUT, LOST = "released", "aborted", "timed out", "lost"


class _Acceptor(Link):
    """A link of a server: what C does in `server.c` it does with the same admission."""

    def __init__(self, server: Server) -> None:
        super().__init__(False, server._timeout, server._idle)
        self._server = server
        self._place: Any = None
        self._record: Record | None = None
        self._outcome = ""
        self._accepted: AsyncServedAssociation | None = None
        self._verification: frozenset[int] = frozenset()
        self._between = True
        self._tasks: set[asyncio.Task[None]] = set()
        self._working = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._server._links.add(self)  # not before: TLS may fail
        super().connection_made(transport)

    # ---- what happens

    def happened(self, told: _lib.Told) -> None:
        if told.over:
            self._end(told.status)
        elif told.status != 0:
            late = told.status == _lib.TIMEOUT
            text = "timed out" if late else f"aborted: {_lib.text_of(told.status)}"
            self._set_outcome(TIMED_OUT if late else ABORTED, text)
        else:
            _HAPPENED[told.type](self, told)

    def turn(self) -> None:
        super().turn()
        if self._place is not None and not 3 <= self.association.state <= 12:
            self._server._policy.leave(self._place)
            self._place = None
        if self._server._closing:
            self._server._close_step(self)
        self._leave()

    def flush(self) -> None:
        """What the provider refuses has not been told, but is sent."""
        data = self.association.data_to_send()
        if self._record is None and data[:1] == b"\3":
            self._remember(bytes(self.association._view))
            self._set_rejected(AssociateReject(*data[7:10]))
        if data and not self.transport.is_closing():
            self.sent += len(data)
            self.transport.write(data)

    def _remember(self, request: bytes) -> None:
        called, calling = (_title(request[at : at + 16]) for at in (10, 26))
        self._record = Record(called, calling, self.peer, True)
        self.begun = time.monotonic()

    def _receive_request(self, told: _lib.Told) -> None:
        request = bytes(self.association._bytes_of(told))
        self._remember(request)
        refusal, accept, self._place = self._server._policy.judge(request)
        if refusal is not None:
            self._reject(AssociateReject(*refusal))
        elif self._server._closing:
            self._reject(BUSY)
        else:
            timeout = self._server._timeout
            self._accepted = AsyncServedAssociation(self, request, accept, timeout)
            if self._server._admission.on_request is not None:
                self._start(self._decide(self._accepted))
            else:
                self._answer(accept)

    async def _decide(self, association: AsyncServedAssociation) -> None:
        on_request: Any = self._server._admission.on_request
        try:
            if inspect.iscoroutinefunction(on_request):
                decision = await on_request(association)
            else:
                decision = await asyncio.to_thread(on_request, association)
                if inspect.isawaitable(decision):
                    decision = await decision
            answer = answer_of(decision, association._accept)
        except Exception:
            logger.exception("on_request failed; the request is rejected")
            answer = encode(FAILED_DECISION)
        if self.association.state == 3:
            self._answer(answer)
            self.turn()

    def _answer(self, pdu: bytes) -> None:
        if pdu[0] == AssociateReject.type:
            self._reject(AssociateReject(*pdu[7:10]))
            return
        assert self._accepted is not None
        self.association._send_bytes(pdu)
        self._server._counts["accepted"] += 1
        proposed = self._accepted.request.contexts
        self._verification = frozenset(c.id for c in proposed if c.abstract_syntax == VERIFICATION)

    def _reject(self, reject: AssociateReject) -> None:
        self.association.send(reject)
        self._set_rejected(reject)

    def _receive_data(self, told: _lib.Told) -> None:
        self._between = told.control & 3 == 2
        if told.id in self._verification:
            self._receive_echo(told)
        elif self._server._handler is not None:
            event = self.association._event(told)
            self.put(event)
            self._work()

    def _receive_echo(self, told: _lib.Told) -> None:
        """In a Verification context nothing but a C-ECHO request means anything (PS3.4 A.4)."""
        if not told.control & 2:
            return
        echo = told.echo
        if echo is None or echo.field != _lib.ECHO_REQUEST:
            self.abort()
            return
        self._between = True
        if self.unsent() > MOST_HELD:  # it never reads
            self.abort()
            return
        try:
            self.association.answer_echo(echo_of(told.id, echo))
        except LocalError:
            if self.association.state == 6:  # it never reads
                self.abort()

    def _receive_release_request(self, told: _lib.Told) -> None:
        if self._working:
            self.put(ReleaseRequest())
        else:
            self._answer_release()

    def _answer_release(self) -> None:
        if self.association.state == 8:
            self.association.send(ReleaseResponse())
            self._set_outcome(RELEASED, "released")

    def _receive_release_response(self, told: _lib.Told) -> None:
        self._set_outcome(RELEASED, "released")
        if self.association.state == 12:  # release collision (PS3.8 9.2.2)
            self.association.send(ReleaseResponse())

    def _receive_abort(self, told: _lib.Told) -> None:
        source, reason = self.association._bytes_of(told)[8:10]
        self._set_outcome(ABORTED, f"aborted by the peer (source {source}, reason {reason})")

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
            while (event := self.take()) is not None:
                if isinstance(event, PDV):
                    await handler(association, event)
                else:
                    self._answer_release()
        except Exception:
            logger.exception("the handler failed; its association is aborted")
            self.abort()
        finally:
            self._working = False
        self.turn()

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._leave()

    # ---- the end

    def abort(self) -> None:
        if 3 <= self.association.state <= 12:
            self.association.send(Abort(0, 0))
            self._set_outcome(ABORTED, "aborted by us")
            self.drop_all()

    def _set_rejected(self, reject: AssociateReject) -> None:
        if not self._outcome:
            codes = int(reject.result), int(reject.source), int(reject.reason)
            self._server._rejected["sent", *codes] += 1
            if self._record is not None:
                self._record.codes = codes
            told = logger.isEnabledFor(logging.INFO)
            self._set_outcome("rejected", describe_reject(reject) if told else "")

    def _set_outcome(self, outcome: str, text: str) -> None:
        """The first one counts: what comes after it is only its end."""
        if not self._outcome:
            self._outcome = outcome
            self._server._counts[outcome] += 1
            if self._record is not None:
                self._record.kind, self._record.outcome = outcome, text

    def _end(self, status: int) -> None:
        if self._record is not None or status == _lib.TIMEOUT:
            late = status == _lib.TIMEOUT
            self._set_outcome(*((TIMED_OUT, "timed out") if late else (LOST, "connection lost")))
        if self._record is not None:
            self._record.seconds = time.monotonic() - self.begun
            self._record.received, self._record.sent = self.received, self.sent
            self._record.log()
        self._server._ended()

    def _leave(self) -> None:
        """The server has to wait for it until there is neither a connection nor work left."""
        if self.closed and self._over and not self._tasks and self in self._server._links:
            self._server._links.discard(self)
            self._server._ended()

    def stop(self) -> None:
        """Close, whatever it is doing."""
        for task in list(self._tasks):
            task.cancel()
        self.cut()


_HAPPENED: dict[int, Callable[[_Acceptor, _lib.Told], None]] = {
    1: _Acceptor._receive_request,
    4: _Acceptor._receive_data,
    5: _Acceptor._receive_release_request,
    6: _Acceptor._receive_release_response,
    7: _Acceptor._receive_abort,
}

BUSY = AssociateReject(2, 3, 1)


def _title(field: bytes) -> str:
    return field.partition(b"\0")[0].strip(b" ").decode("latin-1")


async def _listen(host: str, port: int) -> socket.socket:
    """At the first address that can be had; for all, of both families, as `ltdic.Server` does."""
    if host in ("", "*"):
        both = socket.has_dualstack_ipv6()
        family = socket.AF_INET6 if both else socket.AF_INET
        return socket.create_server(("", port), family=family, backlog=BACKLOG, dualstack_ipv6=both)
    error = OSError("no address")
    found = await asyncio.get_running_loop().getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    for family, _, _, _, where in found:
        try:
            return socket.create_server(
                cast(tuple[str, int], where), family=family, backlog=BACKLOG
            )
        except OSError as e:
            error = e
    raise error


class Server:
    """An acceptor in asyncio: `async with Server(...) as server: await server.serve()`.

    As `ltdic.Server`, with the same admission, but that `handler` and `on_request` are coroutine
    functions: the handler of an association is awaited for one `PDV` after the other, while all the
    others go on. `tls` is the context of a TLS server.
    """

    def __init__(
        self,
        address: tuple[str, int],
        *,
        admission: Admission | None = None,
        handler: Handler | None = None,
        max_associations: int = 0,
        timeout: float = DEFAULT_TIMEOUT,
        idle: float | None = DEFAULT_IDLE,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._admission = admission or Admission()
        for seconds in (timeout, idle):
            _lib.milliseconds(seconds)
        self._policy = self._admission.policy(max_associations, handler is not None)
        self._handler = handler
        self._timeout = timeout
        self._idle = idle
        self._tls = tls
        self._where = address
        self._links: set[_Acceptor] = set()
        self._counts: Counter[str] = Counter()
        self._rejected: Counter[tuple[str, int, int, int]] = Counter()
        self._closing = False
        self._tells_ends = False
        self._grace = self._abort_at = self._end_at = 0.0
        self._address = address
        self._loop: asyncio.AbstractEventLoop | None = None
        self._server: asyncio.Server | None = None
        self._changed: asyncio.Event | None = None

    async def __aenter__(self) -> Server:
        loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        sock = await _listen(*self._where)
        self._server = await loop.create_server(
            lambda: _Acceptor(self),
            sock=sock,
            ssl=self._tls,
            ssl_handshake_timeout=self._timeout if self._tls is not None else None,
            ssl_shutdown_timeout=CLOSING_TIME if self._tls is not None else None,
            backlog=BACKLOG,
            start_serving=False,  # which would leave it open where it is cancelled
        )
        try:
            await self._server.start_serving()
        except BaseException:
            self._server.close()
            raise
        self._loop = loop
        self._address = self._server.sockets[0].getsockname()[:2]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None
    ) -> None:
        assert self._server is not None
        self.close()
        try:
            await self._finish()
        finally:  # also where it was cancelled
            self._server.close()
            for link in list(self._links):
                link.stop()

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens: numeric address, and port."""
        return self._address

    @property
    def counters(self) -> Counters:
        """What has happened so far."""
        counts = self._counts
        return Counters(
            accepted=counts["accepted"],
            released=counts[RELEASED],
            aborted=counts[ABORTED],
            timed_out=counts[TIMED_OUT],
            lost=counts[LOST],
            rejected=Counter(self._rejected),
        )

    async def serve(self, until: float | Callable[[], bool] | None = None) -> None:
        """As `ltdic.Server.serve`. Connections are served whether it runs or not."""
        assert self._changed is not None
        end = time.monotonic() + until if isinstance(until, (int, float)) else None
        self._tells_ends = callable(until)
        while not self._closing:
            left = MOMENT if end is None else min(MOMENT, end - time.monotonic())
            if left <= 0 or (callable(until) and until()):
                return
            await self._wait(left)
        await self._finish()

    def close(self) -> None:
        """As `ltdic.Server.close`; it, too, may be called from any thread."""
        if self._loop is not None:
            with suppress(RuntimeError):  # the loop is gone, and so is everything
                self._loop.call_soon_threadsafe(self._begin_to_close)

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
        self._grace = now + min(GRACE, self._timeout)
        self._abort_at, self._end_at = now + 0.75 * self._timeout, now + self._timeout
        self._close_links()
        assert self._changed is not None
        self._changed.set()

    def _close_links(self) -> None:
        for link in list(self._links):
            link.turn()

    async def _finish(self) -> None:
        """Until everything has come to its end."""
        assert self._server is not None
        self._begin_to_close()
        for _ in range(3):  # connections that wait already are taken
            await asyncio.sleep(0)
        self._server.close()
        while self._links:
            now = time.monotonic()
            moments = [self._grace, self._abort_at, self._end_at, self._end_at + MOMENT]
            left = [moment - now for moment in moments if moment > now]
            if not left:
                break  # a handler will not be cancelled
            await self._wait(min(left))
            self._close_links()

    def _close_step(self, link: _Acceptor) -> None:
        """One step towards the end of one association."""
        now, state = time.monotonic(), link.association.state
        if now >= self._end_at or (state == 2 and now >= self._grace):
            link.stop()
        elif state not in (1, 2, 13) and now >= self._abort_at:
            link.abort()
        elif state == 3:
            link._reject(BUSY)
            link.flush()
        elif state == 6 and link._between and not link._working:
            link.association.send(ReleaseRequest())
            link.flush()
