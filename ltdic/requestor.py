"""The blocking requestor: a socket, `ssl`, and an `Association` between them and the user."""

from __future__ import annotations

import math
import select
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from types import TracebackType

from ._begun import calls_of
from ._connecting import dial
from ._fork import cut_off, has, watch
from ._message_order import BROKEN
from ._native import engine
from .admission import DEFAULT_MAX_LENGTH, Context
from .association import (
    CLOSING_TIME,
    DEFAULT_TIMEOUT,
    IN_USE,
    LATE_CLOSING_TIME,
    MOST_HELD,
    NOT_ANSWERED,
    NOT_TAKEN,
    OVER,
    SHORTEST,
    WAS_ABORTED,
    Association,
    Event,
    RequestorAssociationBase,
    Security,
    Sendable,
    Steps,
    T,
    acknowledge,
    check_connect,
    context_id_of,
    deadline_of,
    end_of_tls,
    error_of_event,
    error_of_send_data,
    failure,
    left_of,
    parts_of,
    request_of,
    security_of,
    size_of,
    unacknowledged,
    unread,
)
from .counters import ABORTED_BY_US, RELEASED, RELEASED_BY_PEER, End, end_of_error
from .errors import AssociationTimeout, Error, LocalError
from .pdu import (
    PDV,
    Abort,
    AssociateRequest,
    CommonExtendedNegotiation,
    ReleaseResponse,
    UserIdentity,
)
from .retry import Attempts, Retry
from .tls import READ_SIZE

INTERRUPTED = "what a signal has interrupted uses the association"
TORN = "what a signal has interrupted was moving data: only abort is left to do"
ROUND = 0.01
"""Seconds between two looks at whether another thread still uses an association."""
LONGEST = 0x7FFFFFFF
"""Milliseconds that poll(2) can wait at most."""
LEAST_RECORD = 21
"""Bytes of a record of TLS beside its data, at least."""
LARGEST_RECORD = 5 + 0x4000 + 0x800
"""Bytes of a record of TLS at most (RFC 5246 6.2.3)."""


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
) -> SyncAssociation:
    """Open an association as requestor.

    `contexts` are abstract syntaxes, each a UID or a keyword of PS3.6, or pairs of one and its
    transfer syntaxes; without them, Implicit and Explicit VR Little Endian are proposed.
    `timeout`, in seconds, bounds the whole of connecting, TLS and the answer together, and later
    each wait for the peer; where it is up, the peer is sent an A-ABORT and has 0.1 s more to close.
    `max_length` is the largest P-DATA-TF that may be sent to us (PS3.8 D.1), in bytes, at least 8;
    0: no limit. `server_hostname` is the name that the peer's certificate must be for, where it is
    not `host`. `local_address` is a host and a port of this end, `""` and 0 for any. The system
    resolves names; of several addresses the next is tried after 0.25 s beside the one before.
    `roles` are the roles that this end proposes for an abstract syntax, SCU and SCP (PS3.7
    D.3.3.4); `async_ops` the operations invoked and performed at once, 0 for any number (D.3.3.3);
    `extended` the application information of SOP classes (D.3.3.5); `common_extended` D.3.3.6.
    `request` is a whole A-ASSOCIATE-RQ instead of all these parts and the titles.
    Raises `AssociationRejected`, `AssociationAborted`, `ConnectionFailed` where there was no
    connection, `ConnectionClosed` where it was lost, `AssociationTimeout`; `ValueError` for titles,
    UIDs, numbers or an identity that PS3.8 does not allow, or a host, port or time that is none.
    With `retry` each says how often was tried.
    """
    most = check_connect(host, port, local_address, timeout)
    parts = called_ae, calling_ae, contexts, max_length, identity, roles, async_ops, extended
    wanted = request_of(*parts, common_extended, request)
    security = security_of(tls, host, server_hostname)
    how = (host, port), local_address, wanted, most, security
    return _retried(retry, lambda: _connect_once(*how))


def _retried(retry: Retry | None, once: Callable[[], SyncAssociation]) -> SyncAssociation:
    """Call the function again after each error that `retry` has a wait for."""
    attempts = Attempts(retry, time.monotonic())
    while True:
        try:
            return once()
        except Error as error:
            time.sleep(attempts.failed(error, time.monotonic()))


def _connect_once(
    address: tuple[str, int],
    local: tuple[str, int] | None,
    request: AssociateRequest,
    timeout: float | None,
    security: Security | None,
) -> SyncAssociation:
    deadline = deadline_of(timeout)
    try:
        sock = dial(address, local, timeout)
    except (OSError, UnicodeError) as e:
        raise failure(address, e) from e
    try:
        if security is not None:
            left = left_of(deadline)
            most = None if left is None else min(max(left, SHORTEST), LONGEST / 1000)
            sock.settimeout(most)
            context, name = security
            sock = secured = context.wrap_socket(
                sock, server_hostname=name, do_handshake_on_connect=False
            )
            secured.do_handshake()
        association = SyncAssociation(sock, request, timeout)
    except (OSError, ValueError) as e:  # a time-out is one, `ssl.SSLError`, and a name that is none
        sock.close()
        raise failure(address, e) from e
    except BaseException:
        sock.close()
        raise
    association._open(deadline)
    return association


class SyncAssociation(RequestorAssociationBase):
    """An association that `connect` has opened. A context manager: it is released at the end, or
    aborted where an exception leaves the block. One thread at a time, but for `abort`."""

    def __init__(
        self, sock: socket.socket, request: AssociateRequest, timeout: float | None
    ) -> None:
        sock.setblocking(False)
        association = Association(requestor=True, timeout=timeout)
        super().__init__(association, request, _peer_of(sock), timeout)
        self._socket = sock
        self._poll = select.poll()
        self._alert: ssl.SSLError | None = None
        self._renegotiates = False
        """True while TLS has to read before it can write."""
        self._use: dict[str, _Use] = {}
        """The call that uses it, under the key `use`. What a signal handler raised may have ended
        it."""
        self._use_lock = threading.RLock()
        self._alarm: tuple[socket.socket, socket.socket] | None = socket.socketpair()
        """A byte that is sent to its second end wakes whoever waits for the socket."""
        self._alarm_lock = threading.RLock()
        self._is_to_abort = False
        self._alarm[1].setblocking(False)
        self._poll.register(self._alarm[0], select.POLLIN)
        self._events: deque[Event] = deque()
        self._held = 0
        self._is_broken = False
        """Was what is being sent not sent to its end?"""
        self._is_torn = False
        """True while bytes or events are at no place where the next method finds them: it stays so
        where a signal handler raises then."""
        self._is_secured = isinstance(sock, ssl.SSLSocket)
        self._deadline: float | None = None
        """Until when the method that runs may wait for the peer, as far as it has a limit."""
        self._late: int | None = None
        """Bytes that may still be read after the deadline of the step that runs; None before it."""
        self._out = memoryview(b"")
        self._gone: list[int] = []
        """Bytes at the beginning of it that the socket has taken."""
        self._arrived: list[bytes] = []
        """What the socket has given, and the association has not; empty bytes at the end."""
        self._begun = time.monotonic()
        self._received = self._sent = 0
        self._unanswered = False
        """True where something was received, and nothing sent since."""
        watch(self)

    # ---- what the user does

    def echo(self) -> int:
        """C-ECHO: ask, and wait for the answer. Its status (PS3.7 9.3.5): 0 is success.

        Data that comes before the answer is dropped. What comes in the Verification context and
        does not answer it ends the association: `AssociationAborted`."""
        with _Use(self):
            self._refuse_if_over()
            return self._run(self._requestor.echo())

    def send(self, data: Sendable, *, context: int | str, is_command: bool = False) -> None:
        """Send a whole command or data set: bytes, a binary file that is read to its end, or an
        iterable of pieces of any size, so that nothing has to be in memory as a whole.

        `context` is the ID of an accepted context, or its abstract syntax. A message is a command,
        then maybe a data set (PS3.8 E.1). `timeout` is the longest wait for the peer to take more.
        Raises `LocalError` in the wrong order or state, `ValueError` for an odd number of bytes;
        after an exception in the middle of it, a signal handler's too, only `abort` is left to do.
        """
        context_id = context_id_of(self.contexts, context)
        with _Use(self):
            self._refuse_if_over()
            if self._is_broken:
                raise LocalError(BROKEN)
            for is_last, part in parts_of(data):
                self._give(PDV(context_id, is_command, is_last, part))
                self._send_out()
            self._is_broken = False

    def receive(self, *, joined: bool = True, limit: int = 1 << 30) -> PDV | None:
        """The next command or data set, whole, of at most `limit` bytes; or, if not `joined`, what
        has come of one: `is_last` is true where it ends, and the data is a view that stays valid.

        None when the peer has asked for release: it has been answered, and all is over. `timeout`
        is the longest wait for more. Raises `AssociationAborted`, `ConnectionClosed`,
        `AssociationTimeout`, and `LocalError` beyond the limit, when the peer is sent an A-ABORT.
        After an exception of a signal handler it goes on where it was, if it was waiting; else only
        `abort` may be left to do, and a `LocalError` says so.
        """
        with _Use(self):
            pdv = self._run(self._requestor.receive(joined, limit))
            if pdv is None:
                self._answer_release()
            return pdv

    def release(self) -> None:
        """End the association in order (PS3.8 7.2); data that still comes is dropped."""
        with _Use(self):
            self._refuse_if_over()
            if self._association.state == engine.RELEASE_REQUESTED:  # the peer has asked first
                self._answer_release()
                return
            self._run(self._requestor.release())
            self._finish(RELEASED)

    def abort(self) -> None:
        """End the association at once, by A-ABORT (PS3.8 7.3). Does nothing when it is over.

        From any thread: another method that runs meanwhile raises `LocalError`, and it is over
        when this returns. In a signal handler, that happens after the handler."""
        self._is_to_abort = True
        # The pipe of a child process is broken. One that is full wakes whoever waits, too.
        with self._alarm_lock, suppress(BrokenPipeError, BlockingIOError):
            if self._alarm is not None:
                self._alarm[1].send(b"\0")
        use = _Use(self)
        while (refusal := self._begin(use)) == IN_USE and self._record is not None:
            time.sleep(ROUND)
        if not refusal:  # else it was over, or this is a signal handler
            self._deadline = deadline_of(self.timeout)
            try:
                self._abort_here()
            finally:
                self._use.clear()

    def _abort_here(self) -> None:
        if self._record is not None:
            self._association.send(Abort(0, 0))
            self._await_close(ABORTED_BY_US)

    @property
    def _is_used(self) -> bool:
        return bool(self._use)

    def _begin(self, use: _Use) -> str:
        """Use it, or return why not: one thread at a time does, and no signal handler that
        interrupts it."""
        while (user := self._use.setdefault("use", use)) is not use:
            is_here = user.thread == use.thread
            if calls_of(self, _USES, user.thread) > is_here:  # this call is one
                return INTERRUPTED if is_here else IN_USE
            with self._use_lock:
                if self._use.get("use") is user:
                    self._use["use"] = use
        return ""

    def _end(self) -> None:
        """Let others use it. An abort that was asked for meanwhile is made now."""
        self._use.clear()  # first: a signal handler that comes later makes its abort itself
        if self._is_to_abort:
            self.abort()

    def _abort_if_asked(self) -> None:
        if self._is_to_abort and self._record is not None:
            self._abort_here()
            raise LocalError(WAS_ABORTED)

    def __enter__(self) -> SyncAssociation:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None
    ) -> None:
        if self._record is None:
            return
        try:
            if kind is not None:
                self.abort()
            else:
                self.release()
        except LocalError:  # as where another thread uses it
            self.abort()
            raise
        finally:
            self._finish(ABORTED_BY_US)  # where it was interrupted

    # ---- how it is done

    def _refuse_if_unusable(self) -> None:
        if self._record is None:
            raise LocalError(OVER)
        if self._is_torn or self._association._is_telling:
            raise LocalError(TORN)

    def _give(self, pdv: PDV) -> None:
        """Give a part of a message to the association."""
        before, self._is_broken = self._is_broken, True
        status = self._association._send_data(pdv)
        if status != 0:
            self._is_broken = before
            raise error_of_send_data(status, pdv)

    def _run(self, steps: Steps[T], deadline: float | None = None) -> T:
        """Take the steps of a service."""
        self._refuse_if_unusable()
        self._deadline = deadline_of(self.timeout) if deadline is None else deadline
        self._late = None
        try:
            next(steps)
            while True:
                extends = steps.send(self._next(self._deadline))
                self._is_torn = False
                if extends:
                    self._deadline, self._late = deadline_of(self.timeout), None
        except StopIteration as e:
            result: T = e.value
            return result
        except Error as e:
            if self._association.state != engine.OPEN:
                self._await_close(end_of_error(e))
            raise

    def _refuse_if_over(self) -> None:
        """Raises the exception where what has come is the end."""
        self._refuse_if_unusable()
        self._collect()
        self._raise_if_over()

    def _open(self, deadline: float | None) -> None:
        self._association.set_timeouts(None)  # `deadline` is enough
        try:
            self._run(self._requestor.open(), deadline)
        except BaseException:
            self._abort_here()
            raise
        self._is_torn = False
        self._association.set_timeouts(self.timeout)

    def _send_out(self) -> None:
        """Send what was given to the association."""
        self._abort_if_asked()
        self._deadline, taken = deadline_of(self.timeout), self._taken()
        while self._collect():
            self._raise_if_over()
            if _is_past(self._deadline):
                before, taken = taken, self._taken()
                if taken <= before:  # whatever has come meanwhile is no reason to wait longer
                    self._association.send(Abort(0, 0))
                    self._fail(AssociationTimeout(NOT_TAKEN))
                self._deadline = deadline_of(self.timeout)
            self._move(self._deadline)
            self._abort_if_asked()
        self._raise_if_over()

    def _taken(self) -> int:
        """Bytes that the peer's system has taken, as far as that is known."""
        return self._sent - unacknowledged(self._socket)

    def _next(self, deadline: float | None) -> Event:
        """The next event; one that ends the association is raised. Raises where none comes in time;
        what is there at the deadline may have come before it, and counts."""
        while True:
            is_late = _is_past(deadline)
            if is_late or _is_past(self._association.deadline()):
                self._read_late()
            self._collect()
            if self._events:
                self._is_torn = True  # until the steps have dealt with it
                event = self._events.popleft()
                self._held -= size_of(event)
                error = self._error_of(event)
                if error is not None:
                    self._fail(error)
                return event
            if is_late:
                self._association.send(Abort(0, 0))
                self._fail(AssociationTimeout(NOT_ANSWERED))
            own = self._association.deadline()
            moments = [moment for moment in (deadline, own) if moment is not None]
            self._move(min(moments, default=None))
            self._abort_if_asked()

    def _read_late(self) -> None:
        """Read what was there when this was first called in a step, 1 MiB at most, and little that
        came after that."""
        tls = self._socket if isinstance(self._socket, ssl.SSLSocket) else None
        header = 0 if tls is None else LEAST_RECORD
        if self._late is None:
            left = unread(self._socket)
            if tls is not None:  # it may have read a record in part
                left += tls.pending() + LARGEST_RECORD
            self._late = max(1, min(left, MOST_HELD))  # 1: the end may be there
        while self._late > 0:
            before = self._received
            self._read()
            size = self._received - before
            self._late = self._late - size - header if size else 0

    def _raise_if_over(self) -> None:
        """Raises the exception of the end, if it has come; events before it are lost with it."""
        for event in self._events:
            error = self._error_of(event)
            if error is not None:
                self._fail(error)

    def _error_of(self, event: Event) -> Error | None:
        """The exception for an event that ends the association, or None."""
        error = error_of_event(event)
        established = self._requestor.accept is not None
        return None if error is None else end_of_tls(error, self._alert, established)

    def _fail(self, error: Error) -> None:
        self._await_close(end_of_error(error))
        raise error

    def _collect(self) -> bool:
        """Take the events that there is room for, and the bytes that are to be sent. True if there
        are some."""
        self._settle()
        if self._held < MOST_HELD:
            for event in self._association.events():
                self._events.append(event)
                self._held += size_of(event)
        if not self._out and self._association._has_to_send:
            self._is_torn = True
            self._out = memoryview(self._association.data_to_send())
            self._is_torn = False
        return bool(self._out)

    def _settle(self) -> None:
        """Deal with what the socket has taken and given."""
        size = sum(self._gone)
        self._out, self._gone, self._sent = self._out[size:], [], self._sent + size
        while self._arrived:
            self._is_torn = True
            data = self._arrived.pop(0)
            if data:
                self._association.receive_data(data)
            else:
                self._association.receive_eof()
            self._received += len(data)
            self._is_torn = False

    def _move(self, until: float | None) -> None:
        """Wait until the socket takes or gives something, and do it."""
        reads = self._held < MOST_HELD or self._renegotiates
        writes = bool(self._out) and not self._renegotiates
        if reads and isinstance(self._socket, ssl.SSLSocket) and self._socket.pending():
            flags = select.POLLIN
        else:
            flags = self._wait_for(reads, writes, until)
        if writes and flags & ~select.POLLIN:
            self._write()
        if reads and flags & ~select.POLLOUT:
            self._read()

    def _wait_for(self, reads: bool, writes: bool, until: float | None) -> int:
        """Wait for the socket, and return what poll(2) says of it."""
        mask = (select.POLLIN if reads else 0) | (select.POLLOUT if writes else 0)
        if self._unanswered and self._association.expects_more:
            acknowledge(self._socket)
        self._unanswered = False
        self._poll.register(self._socket, mask)
        left = left_of(until)
        most = None if left is None else min(math.ceil(left * 1000), LONGEST)
        return dict(self._poll.poll(most)).get(self._socket.fileno(), 0)

    # No bytecode lies between a call of the system and the keeping of its result: a signal handler
    # may raise. `SSLSocket` is written in Python.

    def _write(self) -> None:
        self._is_torn = self._is_secured
        try:
            self._gone.extend(map(self._socket.send, [self._out]))
            self._unanswered = False
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError) as e:
            self._renegotiates = isinstance(e, ssl.SSLWantReadError)
        except OSError:  # what the peer said before it left may be unread
            self._out = memoryview(b"")
            self._association.send_failed()
        self._is_torn = False
        self._settle()

    def _read(self) -> None:
        self._renegotiates = False
        self._is_torn = self._is_secured
        try:
            self._arrived.extend(map(self._socket.recv, [READ_SIZE]))
            self._unanswered = self._arrived[-1:] != [b""]
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            pass
        except OSError as e:
            if isinstance(e, ssl.SSLError) and not isinstance(e, ssl.SSLEOFError):
                self._alert = e
            self._arrived.append(b"")
        self._is_torn = False
        self._settle()

    # ---- the end

    def _answer_release(self) -> None:
        self._association.send(ReleaseResponse())
        self._deadline = deadline_of(self.timeout)
        self._await_close(RELEASED_BY_PEER)

    def _await_close(self, end: End) -> None:
        """Send what is left, and let the peer close first, so that nothing of it is destroyed: for
        as long as the method may take, and a moment more."""
        now = time.monotonic()
        deadline = now + CLOSING_TIME
        if self._deadline is not None:
            deadline = min(deadline, max(self._deadline, now + LATE_CLOSING_TIME))
        with self._alarm_lock, suppress(KeyError):
            if self._alarm is not None:
                self._poll.unregister(self._alarm[0])
        try:
            while self._record is not None and self._drop_all() and time.monotonic() < deadline:
                self._move(deadline)
        finally:
            self._finish(end)

    def _drop_all(self) -> bool:
        """Drop all that has come, and still comes; False after the last of it."""
        self._events.clear()
        self._held = 0
        self._collect()
        return self._association.state != engine.IDLE

    def _finish(self, end: End) -> None:
        """Close, and log; once."""
        record, self._record = self._record, None
        if record is not None:
            self._close()
            record.finish(end, self._begun, self._received, self._sent)

    def _close(self) -> None:
        self._socket.close()
        with self._alarm_lock:
            alarm, self._alarm = self._alarm, None
            for one in alarm or ():
                one.close()

    def _leave_to_parent(self) -> None:
        """In a child process it is over; what runs in this thread finds the connection lost."""
        if not has(self._use_lock):
            self._use_lock = threading.RLock()
        if not has(self._alarm_lock):
            self._alarm_lock = threading.RLock()
        if self._record is None:
            return
        for one in (self._socket, *(self._alarm or ())):
            cut_off(one.fileno())
        if not calls_of(self, _USES, threading.get_ident()):
            self._use.clear()
            self._record = None
            self._close()
            self._association.receive_eof()
            self._drop_all()


class _Use:
    """`with _Use(association)`: a method uses it."""

    def __init__(self, association: SyncAssociation) -> None:
        self.thread = threading.get_ident()
        self._association = association

    def __enter__(self) -> None:
        refusal = self._association._begin(self)
        if refusal:
            raise LocalError(refusal)
        self._association._deadline = deadline_of(self._association.timeout)

    def __exit__(
        self, kind: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None
    ) -> None:
        if kind is None:
            self._association._is_torn = False
        self._association._end()


_USES = [
    method.__code__
    for method in (
        SyncAssociation.echo,
        SyncAssociation.send,
        SyncAssociation.receive,
        SyncAssociation.release,
        SyncAssociation.abort,
    )
]


def _is_past(moment: float | None) -> bool:
    return moment is not None and time.monotonic() >= moment


def _peer_of(sock: socket.socket) -> tuple[str, int]:
    try:
        name = sock.getpeername()
    except OSError:  # it has left already
        return "unknown", 0
    return str(name[0]), int(name[1])
