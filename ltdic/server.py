"""A server on the C loop: it is C that accepts, admits, rejects, answers C-ECHO and releases."""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from types import TracebackType
from typing import Any

from . import _lib
from ._decisions import Decision, Decisions
from ._strangers import stranger_of
from .admission import Admission
from .association import (
    DEFAULT_IDLE,
    DEFAULT_TIMEOUT,
    FAILED_DECISION,
    Counters,
    Parts,
    Record,
    Sendable,
    Served,
    answer_of,
    check_address,
    connections_allowed,
    context_id_of,
    error_of_send,
    error_of_send_data,
    logger,
    pieces_of,
    record_of,
    tell_of_end,
)
from .errors import AssociationTimeout, LocalError
from .pdu import (
    PDV,
    Abort,
    AssociateAccept,
    AssociateReject,
    ReleaseRequest,
    encode,
)

ROUND = 500
"""Milliseconds: a signal that came between two sleeps is seen no later than this."""


class ServedAssociation(Served):
    """An association of a `Server`, as its handler and `on_request` see it.

    Its methods may be called from any thread while the server serves, so that a handler can leave
    what takes long to a thread of its own."""

    def __init__(self, server: Server, number: int, pdus: bytes) -> None:
        size = 6 + int.from_bytes(pdus[2:6], "big")
        super().__init__(pdus[:size], pdus[size:], server._loop.peer(number))
        self._server = server
        self._number: int | None = number
        self._on_request: Any = None
        """The one of the admission that its request was judged by."""
        self._sending = threading.Lock()
        self._ending = threading.RLock()  # a signal handler may interrupt whoever has it
        self._over = threading.Event()

    @property
    def established(self) -> bool:
        """True from the A-ASSOCIATE-AC on, until it is released, aborted or lost, which may be
        before its connection has ended. From any thread."""
        with self._ending:
            number = self._number
            return self._established and number is not None and self._server._loop.lives(number)

    def send(self, data: Sendable, *, context: int | str, is_command: bool = False) -> None:
        """Send a whole command or data set, as `SyncAssociation.send` does.

        Where more than 1 MiB waits to be taken by the peer, it waits for that, for as long as the
        server's `timeout`; on the thread that serves everybody does. Then the association is
        aborted, and `AssociationTimeout` raised. What several threads send at once goes out one
        after the other; the thread that serves does not wait for another: `LocalError`."""
        context_id = context_id_of(self.contexts, context)
        parts = Parts()
        if not self._sending.acquire(blocking=not self._server._is_here()):
            raise LocalError("another thread is sending")
        try:
            for piece in pieces_of(data):
                for part in parts.feed(piece):
                    self._send_part(PDV(context_id, is_command, False, part))
            self._send_part(PDV(context_id, is_command, True, parts.end()))
        finally:
            self._sending.release()

    def _send_part(self, pdv: PDV) -> None:
        control = bool(pdv.is_command) | bool(pdv.is_last) << 1
        loop = self._server._loop

        def send() -> int:
            return loop.send_data(self._alive(), pdv.context_id, control, pdv.data)

        try:
            self._server._call(
                send,
                lambda status: error_of_send_data(status, pdv),
                lambda most: loop.drain(self._alive(), most),
            )
        except AssociationTimeout:
            self._server._post(_Job(self._abort))
            raise

    def release(self) -> None:
        """Ask the peer for release (PS3.8 7.2), between two messages. `wait` and `on_end` tell of
        the end. Raises `LocalError` in the wrong state."""
        self._server._call(self._release, lambda status: error_of_send(status, "an A-RELEASE-RQ"))

    def abort(self) -> None:
        """End it at once, by A-ABORT (PS3.8 7.3). Does nothing when it is over."""
        if self._number is not None:
            try:
                self._server._call(self._abort, error_of_send)
            except LocalError:  # when the server serves again
                self._server._post(_Job(self._abort))

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it has ended, in another thread than that which serves; False where the time,
        in seconds, is up before."""
        if timeout is None and self._server._is_here() and not self._over.is_set():
            raise LocalError("the thread that serves would wait for itself")
        return self._over.wait(timeout)

    def _release(self) -> int:
        return self._server._loop.send(self._alive(), encode(ReleaseRequest()))

    def _abort(self) -> int:
        if self._number is not None:
            self._server._loop.send(self._number, encode(Abort(0, 0)))
        return 0

    def _end(self) -> None:
        with self._ending:
            self._number = None
        self._over.set()

    def _alive(self) -> int:
        if self._number is None:
            raise LocalError("the association is over")
        return self._number


Handler = Callable[[ServedAssociation, PDV], None]
OnEnd = Callable[[ServedAssociation, Record], None]


class _Job:
    """What is done on the thread that serves: a call to C, again while there is no room."""

    def __init__(self, call: Callable[[], int], waits: bool = False) -> None:
        self.call = call
        self.waits = waits
        self.tried = False
        self.result: Future[int] = Future()

    def run(self) -> bool:
        """True when it is done, or whoever waited for it has given up."""
        if self.result.cancelled():
            return True
        self.tried = True
        with suppress(InvalidStateError):  # given up just now
            try:
                status = self.call()
            except Exception as e:
                self.result.set_exception(e)
                return True
            if status == _lib.ROOM and self.waits:
                return False
            self.result.set_result(status)
        return True


class Server:
    """An acceptor: `with Server(...) as server: server.serve()`.

    `address` is a host, as a name or number, `""` or `"*"` for all addresses, and a port, 0 for a
    free one. Without an `admission` everybody is let in, for C-ECHO. `handler` is called with an
    association and a `PDV` for all that comes in other than Verification contexts: bytes of a
    command or data set as they came, `is_last` where it ends; its data is a memoryview that may be
    kept, and keeps all that came with it, a quarter of a mebibyte or so. It runs on the thread that
    serves, and everybody waits while it does. Where it raises, that is logged and the association
    aborted. `on_end` is called there, too, with an association and its `Record`, once for each that
    `on_request`, the handler or it itself was told of: those that were let in.

    `max_associations` is a limit beside that of the admission; `max_connections` bounds the
    connections, of which some have no association yet, the others wait in the system's backlog: by
    default three quarters of the descriptors that the process may have; 0: any number. `timeout`,
    in seconds, is the time for a request to be there, for the peer to close at the end, and for
    `close`; `idle` the longest time without data. TLS acceptors are `aio.Server`'s trade.

    Only `serve` does anything; `close` may be called from any thread and in a signal handler.
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
        timeout: float = DEFAULT_TIMEOUT,
        idle: float | None = DEFAULT_IDLE,
    ) -> None:
        check_address(*address)
        self._max_associations = max_associations
        self._handler = handler
        self._on_end = on_end
        self._admission = self._rules = admission or Admission()
        self._policy = self._policy_of(self._admission)
        self._timeout = timeout
        self._undefined: Counter[tuple[str, int, int, int]] = Counter()
        self._loop = _lib.ServerLoop(self._policy, timeout, idle)
        self._loop.limit_connections(connections_allowed(max_connections))
        self._served: dict[int, ServedAssociation] = {}
        self._jobs: deque[_Job] = deque()
        self._waiting: list[_Job] = []
        self._thread: int | None = None
        self._serving = threading.Lock()
        self._closing = False
        self._over = self._is_empty = False
        self._decisions = Decisions(self._decide, self._late)
        try:
            self._loop.listen(*address)
        except OSError:
            self._loop.free()
            raise
        self._address = self._loop.name()
        _servers.add(self)

    def _renew(self) -> None:
        """In a child process, which has none of the threads that may have had a lock. Where one of
        them was serving, nobody knows how far it was: this copy is not used any more."""
        self._loop.renew_lock()
        if self._thread is not None and not self._is_here():
            self._loop.abandon()
            self._thread, self._over = None, True
            self._serving = threading.Lock()

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens: numeric address, and port."""
        return self._address

    @property
    def counters(self) -> Counters:
        """What has happened so far. From any thread; each number is one that was true."""
        names, rejected = self._loop.counters()
        counted = Counter({("sent", *codes): count for codes, count in rejected.items()})
        return Counters(**names, rejected=counted + self._undefined.copy())

    @property
    def open(self) -> tuple[ServedAssociation, ...]:
        """The associations now, as far as `handler`, `on_request` or `on_end` is told of them. From
        any thread."""
        return tuple(one for one in list(self._served.values()) if one.established)

    @property
    def admission(self) -> Admission:
        """Who is let in; another one may be set at any time, in any thread, and holds for the
        requests that come then. Places that are taken stay taken."""
        return self._admission

    @admission.setter
    def admission(self, admission: Admission) -> None:
        policy = self._policy_of(admission)
        self._admission = admission

        def take() -> int:
            self._policy.take_rules(policy)
            self._rules = admission
            return 0

        self._post(_Job(take))

    def _policy_of(self, admission: Admission) -> _lib.Policy:
        return admission.policy(self._max_associations, self._handler is not None)

    def serve(self, until: float | Callable[[], bool] | None = None) -> None:
        """Serve until `close`, for so many seconds, or until this function, which is asked whenever
        an association ended or a moment has passed, says true. May be called again.

        Raises what interrupts it, as KeyboardInterrupt."""
        if not self._serving.acquire(blocking=False):
            raise LocalError("it serves already")
        try:
            if self._loop.is_abandoned:
                raise LocalError("a thread of the parent process was serving when this one began")
            self._serve(until)
        finally:
            self._serving.release()

    def _serve(self, until: float | Callable[[], bool] | None) -> None:
        self._thread = threading.get_ident()
        end = time.monotonic() + until if isinstance(until, (int, float)) else None
        try:
            while not self._over:
                if self._is_reached(until, end):
                    break
                self._round(end, wants_ends=callable(until))
        finally:
            self._thread = None

    def close(self) -> None:
        """Come to an end: `serve` returns within `timeout`, with nothing lost. No more connections
        are taken; requests are rejected with 2/3/1; associations between two messages are released,
        others when their data set is complete; what is left after three quarters of the time is
        aborted."""
        self._closing = True
        self._loop.wake()

    def __enter__(self) -> Server:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.close()
        with self._serving:  # another thread may be serving: it comes to its end
            try:
                self._serve(None)
            finally:
                self._free()

    # ---- the loop

    @staticmethod
    def _is_reached(until: float | Callable[[], bool] | None, end: float | None) -> bool:
        if end is not None:
            return time.monotonic() >= end
        return callable(until) and until()

    def _round(self, end: float | None, wants_ends: bool) -> None:
        """Serve for a moment, and deal with what has happened."""
        self._dispatch_all()  # what an exception has left
        if self._closing:
            self._loop.close(_lib.milliseconds(self._timeout))
        self._run_jobs()
        most = ROUND if end is None else min(ROUND, max(0, int((end - time.monotonic()) * 1000)))
        status = self._loop.run(self._wanted(wants_ends), most)
        self._dispatch_all()
        if status == _lib.CLOSED:
            self._over = True
            self._end_calls()

    def _dispatch_all(self) -> None:
        self._loop.reports = self._on_end is not None or logger.isEnabledFor(logging.INFO)
        while (event := self._loop.take()) is not None:
            self._dispatch(event)
        for decision in self._decisions.made():
            self._answer(decision)

    def _wanted(self, ends: bool) -> int:
        wanted = _lib.WANT_REQUESTS if self._rules.on_request is not None else 0
        if self._handler is not None or self._on_end is not None:
            wanted |= _lib.WANT_DATA
        wanted |= 0 if self._rules.answer_verification else _lib.WANT_VERIFICATION
        wanted |= _lib.WANT_ENDS if ends or logger.isEnabledFor(logging.INFO) else 0
        return wanted | (_lib.WANT_ROOM if self._waiting else 0)

    def _dispatch(self, event: _lib.ServedEvent) -> None:
        if event.kind == _lib.SERVED_DATA:
            self._handle(self._served[event.served], event)
        elif event.kind == _lib.SERVED_ENDED:
            self._ended(event)
        else:
            association = ServedAssociation(self, event.served, bytes(event.data))
            self._served[event.served] = association
            if event.kind == _lib.SERVED_REQUEST:
                association._on_request = self._rules.on_request
                self._decisions.ask(association)
            else:
                association._established = True

    def _handle(self, association: ServedAssociation, event: _lib.ServedEvent) -> None:
        if self._handler is None:
            return
        control = event.control
        pdv = PDV(event.id, bool(control & 1), bool(control & 2), event.data)
        try:
            self._handler(association, pdv)
        except Exception:
            logger.exception("the handler failed; its association is aborted")
            association.abort()

    def _ended(self, event: _lib.ServedEvent) -> None:
        association, report = self._served.pop(event.served, None), event.report
        if association is not None:
            association._end()
        if report is None or report.outcome == 0:
            return
        if report.outcome in (_lib.OUTCOME_NO_REQUEST, _lib.OUTCOME_FAULT):
            peer = report.host, report.port
            how = report.status, report.offset, report.first, report.seconds
            stranger_of(peer, *how).log()
        else:
            tell_of_end(self._on_end, association, record_of(report))

    # ---- decisions

    def _decide(self, association: ServedAssociation) -> bytes:
        """The answer. In a thread of its own."""
        try:
            return answer_of(association._on_request(association), association)
        except BaseException:  # nobody else would see it, and the peer would wait
            logger.exception("on_request failed; the request is rejected")
            return encode(FAILED_DECISION)

    def _answer(self, decision: Decision) -> int:
        association, pdu = decision.subject, decision.answer
        number = association._number
        if number is None:
            return 0
        status = self._loop.send(number, pdu)
        if status == 0 and pdu[0] == AssociateAccept.type:
            association._answered(pdu)
        elif status == 0 and pdu[0] == AssociateReject.type:
            codes = pdu[7], pdu[8], pdu[9]
            if not _lib.is_defined(*codes):
                self._undefined["sent", *codes] += 1
        return status

    def _late(self, decision: Decision) -> None:
        self._post(_Job(lambda: self._answer(decision)))

    # ---- calls from other threads

    def _is_here(self) -> bool:
        """Is this the thread that serves?"""
        return self._thread == threading.get_ident()

    def _call(
        self,
        call: Callable[[], int],
        error_of: Callable[[int], Exception],
        drain: Callable[[int], int] | None = None,
    ) -> None:
        """Do it on the thread that serves; on another one, wait until it is done. `drain` makes
        room for it, in so many milliseconds."""
        if self._is_here():
            status = call()
            if status == _lib.ROOM and drain is not None:
                drain(_lib.milliseconds(self._timeout))
                status = call()
        else:
            status = self._call_there(_Job(call, waits=drain is not None))
        if status == _lib.ROOM:
            raise AssociationTimeout("the peer has not taken what was sent in time")
        if status != 0:
            raise error_of(status)

    def _call_there(self, job: _Job) -> int:
        self._post(job)
        try:
            return job.result.result(self._timeout)
        except TimeoutError:
            job.result.cancel()
            if not job.tried:
                raise LocalError("nobody serves the association at the moment") from None
            return _lib.ROOM

    def _post(self, job: _Job) -> None:
        self._jobs.append(job)
        self._loop.wake()
        if self._is_empty:
            job.run()

    def _run_jobs(self) -> None:
        waiting, self._waiting = self._waiting, []
        for job in waiting:
            if not job.run():
                self._waiting.append(job)
        while self._jobs:
            job = self._jobs.popleft()
            if not job.run():
                self._waiting.append(job)

    def _free(self) -> None:
        self._over = True
        self._decisions.end()
        for association in self._served.values():
            association._end()
        self._end_calls()
        self._loop.free()

    def _end_calls(self) -> None:
        """No association is left: whoever calls a method of one is told so at once."""
        self._is_empty = True
        self._run_jobs()


_servers: weakref.WeakSet[Server] = weakref.WeakSet()


def _renew_all() -> None:
    for server in list(_servers):
        server._renew()


os.register_at_fork(after_in_child=_renew_all)
