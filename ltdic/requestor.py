"""The blocking requestor: an association of C, and whoever waits for it."""

from __future__ import annotations

import math
import ssl
import threading
import time
from collections import deque
from collections.abc import Iterable, Mapping
from contextlib import suppress
from types import TracebackType
from typing import NoReturn

from ._begun import calls_of
from ._codec import control_of
from ._fork import cut_off, has, watch
from ._message_order import BROKEN
from ._native import codec, engine, net, requestor
from ._native.requestor import RequestorLoop
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
from ._sending import NOT_TAKEN, Sendable, parts_of
from ._times import seconds_of
from .admission import DEFAULT_MAX_LENGTH, VERIFICATION, Context
from .association import (
    DEFAULT_TIMEOUT,
    NOT_ANSWERED,
    OVER,
    context_id_of,
    deadline_of,
    error_of_send_data,
    left_of,
)
from .counters import ABORTED_BY_US, RELEASED, RELEASED_BY_PEER, End, end_of_error
from .errors import AssociationTimeout, Error, LocalError
from .pdu import (
    PDV,
    AssociateRequest,
    CommonExtendedNegotiation,
    ReleaseResponse,
    UserIdentity,
)
from .retry import Attempts, Retry

INTERRUPTED = "what a signal has interrupted uses the association"
TORN = "what a signal has interrupted was moving data: only abort is left to do"
ROUND = 0.01
"""Seconds between two looks at whether another thread still uses an association."""
LONGEST = 500
"""Milliseconds of one wait. A signal that comes just before a wait is noticed after it."""
UNFINISHED = codec.NEED_MORE, requestor.INTERRUPTED
"""Statuses where something is left to be sent."""


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
    where = host, port, called_ae, calling_ae, contexts, max_length, tls, server_hostname
    more = local_address, identity, roles, async_ops, extended, common_extended, request
    return _connect(wanted_of(*where, *more), seconds_of("timeout", timeout), retry)


def _connect(wanted: Request, timeout: float | None, retry: Retry | None) -> SyncAssociation:
    attempts = Attempts(retry, time.monotonic())
    while True:
        try:
            return _connect_once(wanted, timeout)
        except Error as error:
            time.sleep(attempts.failed(error, time.monotonic()))


def _connect_once(wanted: Request, timeout: float | None) -> SyncAssociation:
    deadline = deadline_of(timeout)
    try:
        lookup = net.Lookup(wanted.address, wanted.local)
        association = SyncAssociation(wanted, timeout)
    except (OSError, UnicodeError) as e:
        raise failure(wanted.address, e) from e
    association._open(lookup, deadline)
    return association


class SyncAssociation(RequestorAssociationBase):
    """An association that `connect` has opened. A context manager: it is released at the end, or
    aborted where an exception leaves the block. One thread at a time, but for `abort`."""

    def __init__(self, wanted: Request, timeout: float | None) -> None:
        self._begun = time.monotonic()
        super().__init__(RequestorLoop.of_thread(), wanted, timeout)
        self._use: dict[str, _Use] = {}
        """The call that uses it, under the key `use`. What a signal handler raised may have ended
        it."""
        self._use_lock = threading.RLock()
        self._is_to_abort = False
        self._events: deque[Event] = deque()
        self._held = 0
        """Bytes that the events count for."""
        self._is_broken = False
        """Was what is being sent not sent to its end?"""
        self._is_torn = False
        """True while an event is at no place where the next method finds it: it stays so where a
        signal handler raises then."""
        self._is_over = False
        self._lent = [self._loop]
        """The loop, until it is given back."""
        self._deadline: float | None = None
        """Until when the method that runs may wait for the peer, as far as it has a limit."""
        self._late = LATE_LOOKS
        watch(self)

    # ---- what the user does

    def echo(self) -> int:
        """C-ECHO: ask, and wait for the answer. Its status (PS3.7 9.3.5): 0 is success.

        Data that comes before the answer is dropped. What comes in the Verification context and
        does not answer it ends the association: `AssociationAborted`."""
        with _Use(self):
            self._refuse_if_over()
            status = self._run(self._requestor.echo(context_id_of(self.contexts, VERIFICATION)))
        self._is_torn = False
        return status

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
        self._is_torn = False  # no signal is seen between this and the return
        return pdv

    def release(self) -> None:
        """End the association in order (PS3.8 7.2); data that still comes is dropped."""
        with _Use(self):
            self._refuse_if_over()
            if self._link.state == engine.RELEASE_REQUESTED:  # the peer has asked first
                self._answer_release()
                return
            self._run(self._requestor.release())
            self._finish(RELEASED)

    def abort(self) -> None:
        """End the association at once, by A-ABORT (PS3.8 7.3). Does nothing when it is over.

        From any thread: another method that runs meanwhile raises `LocalError`, and it is over
        when this returns. In a signal handler, that happens after the handler."""
        self._is_to_abort = True
        self._loop.wake()
        use = _Use(self)
        while (refusal := self._begin_use(use)) == IN_USE and not self._is_over:
            time.sleep(ROUND)
        if not refusal:  # else it was over, or this is a signal handler
            self._deadline = deadline_of(self.timeout)
            try:
                self._abort_here()
            finally:
                self._use.clear()

    def _abort_here(self) -> None:
        if not self._is_over:
            self._send_abort()
            self._await_close(ABORTED_BY_US)

    def _begin_use(self, use: _Use) -> str:
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
        if self._is_to_abort and not self._is_over:
            self._abort_here()
            raise LocalError(WAS_ABORTED)

    def __enter__(self) -> SyncAssociation:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None
    ) -> None:
        if self._is_over:
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
        if self._is_over:
            raise LocalError(OVER)
        if self._is_torn:
            raise LocalError(TORN)

    def _refuse_if_over(self) -> None:
        """Raises the exception where what has come is the end."""
        self._refuse_if_unusable()
        self._collect()
        self._raise_if_over()

    def _open(self, lookup: net.Lookup, deadline: float | None) -> None:
        try:
            with _Use(self):
                self._begin(lookup, left_of(deadline))
                self._accepted = self._run(self._requestor.open(), deadline)
        except BaseException:
            self._deadline = time.monotonic()
            self._abort_here()
            raise
        self._is_torn = False
        self._link.set_timeouts(self.timeout)

    def _run(self, steps: Steps[T], deadline: float | None = None) -> T:
        """Take the steps of a service."""
        self._refuse_if_unusable()
        self._deadline = deadline_of(self.timeout) if deadline is None else deadline
        self._late = LATE_LOOKS
        try:
            next(steps)
            while True:
                extends = steps.send(self._next(self._deadline))
                self._is_torn = False
                if extends:
                    self._deadline, self._late = deadline_of(self.timeout), LATE_LOOKS
        except StopIteration as e:
            result: T = e.value
            return result
        except Error as e:
            if not self._is_over and self._link.state != engine.OPEN:
                self._await_close(end_of_error(e))
            raise

    def _next(self, deadline: float | None) -> Event:
        """The next event; one that ends the association is raised. Raises where none comes in time;
        what is there at the deadline may have come before it, and counts."""
        while True:
            self._collect()
            if self._events:
                self._is_torn = True  # until the steps have dealt with it
                event = self._events.popleft()
                self._held -= size_of(event)
                self._raise_end(event)
                return event
            if _is_past(deadline):
                if not self._late:
                    self._time_out()
                self._late -= 1
            self._hold(False)  # what came while this end was sending has been taken
            self._loop.run(_milliseconds(deadline))
            self._abort_if_asked()

    def _time_out(self) -> NoReturn:
        if self._record is None:
            self._fail(failure(self._wanted.address, TimeoutError()))
        self._send_abort()
        self._fail(AssociationTimeout(NOT_ANSWERED))

    def _collect(self) -> None:
        """Take what C has received. Where too much waits, no more is read."""
        is_torn, self._is_torn = self._is_torn, True
        for found in self._loop.events():
            event = self._take(found, self._loop.batch_size)
            if event is not None:
                self._events.append(event)
                self._held += size_of(event)
        self._is_torn = is_torn

    def _raise_if_over(self) -> None:
        """Raises the exception of the end, if it has come; events before it are lost with it."""
        for event in self._events:
            self._raise_end(event)

    def _raise_end(self, event: Event) -> None:
        error = self._error_of(event)
        try:
            if error is not None:
                self._fail(error)
        finally:
            del error  # as in `_fail`

    def _fail(self, error: Error) -> NoReturn:
        try:
            self._await_close(end_of_error(error))
            raise error
        finally:
            del error  # else it and this frame are a cycle

    # ---- sending

    def _give(self, pdv: PDV) -> None:
        """Send a part of a message: until the system has taken all of it."""
        self._abort_if_asked()
        before, self._is_broken = self._is_broken, True
        self._deadline, taken = deadline_of(self.timeout), self._link.taken
        what = pdv.context_id, control_of(pdv), pdv.data
        status = self._loop.send_data(self._link, *what, _milliseconds(self._deadline))
        if status not in (0, *UNFINISHED):
            self._is_broken = before
            raise error_of_send_data(status, pdv)
        while status != 0:
            self._look_while_sending()
            if _is_past(self._deadline):
                earlier, taken = taken, self._link.taken
                if taken <= earlier:  # whatever has come meanwhile is no reason to wait longer
                    self._send_abort()
                    self._fail(AssociationTimeout(NOT_TAKEN))
                self._deadline = deadline_of(self.timeout)
            status = self._loop.send_data(self._link, 0, 0, None, _milliseconds(self._deadline))
        self._look_while_sending()

    def _look_while_sending(self) -> None:
        """Keep what has come. Raises where it is the end."""
        self._collect()
        self._hold(self._held >= MOST_HELD)
        self._raise_if_over()
        self._abort_if_asked()

    # ---- the end

    def _answer_release(self) -> None:
        self._requestor.send(ReleaseResponse())
        self._deadline = deadline_of(self.timeout)
        self._await_close(RELEASED_BY_PEER)

    def _await_close(self, end: End) -> None:
        """Send what is left, and let the peer close first, so that nothing of it is destroyed: for
        as long as the method may take, and a moment more."""
        now = time.monotonic()
        deadline = now + CLOSING_TIME
        if self._deadline is not None:
            deadline = min(deadline, max(self._deadline, now + LATE_CLOSING_TIME))
        try:
            self._hold(False)
            while not self._is_over and self._drop_all() and not _is_past(deadline):
                self._loop.run(_milliseconds(deadline))
        finally:
            self._finish(end)

    def _drop_all(self) -> bool:
        """Drop all that has come, and still comes; False after the last of it."""
        self._collect()
        self._events.clear()
        self._held = 0
        return self._record is not None and self._link.state != engine.IDLE

    def _finish(self, end: End) -> None:
        """Close, and log; once."""
        self._is_over = True
        sent = self._link.sent
        self._link.close()
        record, self._record = self._record, None
        with suppress(IndexError):  # a signal handler may have called this meanwhile
            self._lent.pop().give_back()
        if record is not None:
            record.finish(end, self._begun, self._received, sent)

    def _leave_to_parent(self) -> None:
        """In a child process it is over; what runs in this thread finds the connection lost."""
        if not has(self._use_lock):
            self._use_lock = threading.RLock()
        self._loop.renew_lock()
        if self._is_over:
            return
        cut_off(self._link.descriptor)  # C, which may be calling TLS, has it still
        if calls_of(self, _USES, threading.get_ident()):
            return
        if self._use:  # a thread of the parent may have been in C: what C has may be half changed
            self._loop.abandon()
        else:
            self._loop.free()
        self._use.clear()
        self._is_over, self._record = True, None


class _Use:
    """`with _Use(association)`: a method uses it."""

    def __init__(self, association: SyncAssociation) -> None:
        self.thread = threading.get_ident()
        self._association = association

    def __enter__(self) -> None:
        refusal = self._association._begin_use(self)
        if refusal:
            raise LocalError(refusal)
        self._association._deadline = deadline_of(self._association.timeout)

    def __exit__(
        self, kind: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._association._end()


_USES = [
    method.__code__
    for method in (
        SyncAssociation._open,
        SyncAssociation.echo,
        SyncAssociation.send,
        SyncAssociation.receive,
        SyncAssociation.release,
        SyncAssociation.abort,
    )
]


def _is_past(moment: float | None) -> bool:
    return moment is not None and time.monotonic() >= moment


def _milliseconds(deadline: float | None) -> int:
    """How long one call of C may wait."""
    left = left_of(deadline)
    return LONGEST if left is None else min(math.ceil(left * 1000), LONGEST)
