"""A server on the C loop: it is C that accepts, admits, rejects, answers C-ECHO and releases."""

from __future__ import annotations

import math
import socket
import ssl
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from threading import Event, Thread
from types import TracebackType
from typing import Any
from warnings import warn

from ._arguments import not_awaited, number_of
from ._begun import calls_of, has_begun
from ._codec import control_of, encode, flags_of
from ._fork import watch
from ._message_order import MessageOrder, Signal
from ._native import codec, engine, service
from ._on_request import PendingDecision, PendingDecisions
from ._sending import NOT_TAKEN, Sendable, parts_of
from ._serving import FAILED_DECISION, How, Served, ServerBase, answer_of
from ._times import seconds_of
from .admission import Admission
from .association import (
    DEFAULT_IDLE,
    DEFAULT_TIMEOUT,
    OVER,
    error_of_send,
    error_of_send_data,
)
from .counters import Record, logger
from .errors import AssociationTimeout, LocalError
from .pdu import PDV, Abort, ReleaseRequest

MOST_WORKERS = 256
ROUND = 0.5
"""Seconds: a signal that came between two sleeps is seen no later than this."""


class ServedAssociation(Served):
    """An association of a `Server`, as its handler and `on_request` see it.

    Its methods may be called from any thread while the server serves, so that a handler can leave
    what takes long to a thread of its own."""

    def __init__(self, server: Server, number: int, pdus: bytes) -> None:
        super().__init__(server._loop, number, pdus)
        self._server = server
        self._decision: PendingDecision | None = None
        self._order = MessageOrder()
        self._waiting: deque[_Job] = deque()
        """Jobs that wait until the peer has taken more of what was sent before."""
        self._postponed: dict[tuple[int, int], PDV] = {}
        """Data that the handler is called with when they are done, by the event that told of it."""
        self._is_late = False
        """Has the peer not taken it in time?"""
        self._over = Signal()

    def send(self, data: Sendable, *, context: int | str, is_command: bool = False) -> None:
        """Send a whole command or data set, as `SyncAssociation.send` does.

        Where more than 1 MiB waits to be taken by the peer, it waits for that, for as long as the
        server's `timeout`; then the association is aborted, and `AssociationTimeout` raised. What
        several threads send at once goes out one message after the other.

        On the thread that serves it never waits: what there is no room for, the rest of a file or
        iterable too, is kept in memory and goes when the peer takes it; until then no more data of
        this peer is handled. A peer that takes nothing for `timeout` is aborted. Raises
        `LocalError` there while another thread is sending."""
        context_id = self._context_id_of(context)
        is_here = self._server._is_here()
        send = self._send_here if is_here else self._send_there
        opens = is_begun = False
        self._order.refuse_nested()
        try:
            self._order.begin(is_command, not is_here, self._server._timeout)
            for is_last, part in parts_of(data, self._part_size):
                send(PDV(context_id, is_command, is_last, part))
                opens = is_command and not is_begun and bool(engine.announces_data_set(part))
                is_begun = not is_last
        finally:
            self._order.end(opens, broken=is_begun)

    def release(self) -> None:
        """Ask the peer for release (PS3.8 7.2), between two messages, after what was sent before.
        `wait` and `on_end` tell of the end. Raises `LocalError` in the wrong state, and on the
        thread that serves while another one is sending."""
        self._order.refuse_nested()
        try:
            self._order.begin(True, not self._server._is_here(), self._server._timeout)
            self._release()
        finally:
            self._order.end(False)

    def _release(self) -> None:
        self._refuse_if_over()
        call = self._server._loop.sending(self._number, encode(ReleaseRequest()))
        if self._server._is_here() and self._waiting:
            self._wait_with(_Job(call.make, self, tell=self._check_kept))
            self._is_released = True
            return
        status = self._server._call(_Job(call.make, self, in_order=True))
        self._raise_if_over(status)
        if status != 0:
            raise error_of_send(status, "an A-RELEASE-RQ")
        self._is_released = True

    def abort(self) -> None:
        """End it at once, by A-ABORT (PS3.8 7.3); where nobody serves, when the server serves
        again, for which this does not wait. Does nothing when it is over."""
        self._is_aborted = True
        if self._over.is_set:
            return
        job, server = self._aborting(), self._server
        if server._is_here():
            job.run()
            return
        server._post(job)
        while server._is_served() and job.wait(ROUND) is None:
            pass

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it has ended, in another thread than that which serves; False where the time,
        in seconds, 0 or more, is up before."""
        most = seconds_of("timeout", timeout, zero=True)
        if most is None and self._server._is_here() and not self._over.is_set:
            raise LocalError("the thread that serves would wait for itself")
        return self._over.wait(most)

    # ---- how it is done

    def _refuse_if_over(self) -> None:
        if self._over.is_set:
            self._raise_if_over(codec.CLOSED)

    def _raise_if_over(self, status: int | None) -> None:
        if status and self._is_late:
            raise AssociationTimeout(NOT_TAKEN)
        if status == codec.CLOSED:
            raise LocalError(OVER)

    def _raise_unless_sent(self, status: int | None, pdv: PDV) -> None:
        self._raise_if_over(status)
        if status:
            raise error_of_send_data(status, pdv)

    def _sending(self, pdv: PDV) -> _Job:
        loop = self._server._loop
        call = loop.sending_data(self._number, pdv.context_id, control_of(pdv), pdv.data)
        return _Job(call.make, self, call.forget, in_order=True)

    def _aborting(self) -> _Job:
        call = self._server._loop.sending(self._number, encode(Abort(0, 0)))
        return _Job(call.make, self)

    def _send_here(self, pdv: PDV) -> None:
        """On the thread that serves."""
        self._refuse_if_over()
        job = self._sending(pdv)
        if self._waiting or not job.run():
            job.tell = self._check_kept
            self._wait_with(job)
        else:
            self._raise_unless_sent(job.status, pdv)

    def _check_kept(self, status: int) -> None:
        """Abort where what was kept could not be sent."""
        if status != 0 and self.established:
            logger.error("what the handler sent cannot be sent; its association is aborted")
            self.abort()

    def _send_there(self, pdv: PDV) -> None:
        """On another thread."""
        self._refuse_if_over()
        self._raise_unless_sent(self._server._call_there(self._sending(pdv)), pdv)

    def _wait_with(self, job: _Job) -> None:
        """Run it after those that wait already."""
        if not job.is_kept:
            self._waiting.append(job)
        job.is_kept = job.tried = True
        self._server._late.setdefault(self, (time.monotonic(), self._taken()))

    def _resume(self) -> None:
        """Send what waits, as far as there is room."""
        while self._waiting and self._waiting[0].run():
            self._waiting.popleft()
        if not self._waiting:
            self._server._late.pop(self, None)

    def _end(self) -> None:
        self._over.set()
        self._order.stop()
        self._resume()


Handler = Callable[[ServedAssociation, PDV], None]
OnEnd = Callable[[ServedAssociation, Record], None]


class _Job:
    """A call that the thread that serves makes, once; again where there was no room. Whatever a
    signal handler raises, it may be run again."""

    def __init__(
        self,
        do: Callable[[], int],
        association: ServedAssociation | None = None,
        again: Callable[[], None] | None = None,
        tell: Callable[[int], None] | None = None,
        in_order: bool = False,
    ) -> None:
        """`do` gives a status. `again` is called before it is done again where there was no room;
        without it that is not done. `tell` is called with the status in the end. `in_order`: it is
        done after what waits of the association."""
        self.association = association
        self.in_order = in_order
        self._do = do
        self.again = again
        self.tell = tell
        self.tried = self.is_kept = False
        self.status: int | None = None
        """Its result; `codec.CLOSED` where the association was over before."""
        self._done = Signal()
        self._given_up = False

    def run(self) -> bool:
        """True when it is done, or whoever waited for it has given up; False: there is no room."""
        if self._done.is_set or self._given_up:
            return True
        self.tried = True
        if self.status is None:
            is_over = self.association is not None and self.association._over.is_set
            status = codec.CLOSED if is_over else self._do()
            if status == codec.ROOM and self.again is not None:
                self.again()
                return False
            self.status = status
        if self.tell is not None:
            self.tell(self.status)
        self._done.set()
        return True

    def wait(self, timeout: float | None) -> int | None:
        """In another thread: the status; None where the time is up before."""
        self._done.wait(timeout)
        return self.status

    def give_up(self) -> None:
        """Nobody waits for it any more: it is not done, if it has not begun."""
        self._given_up = True


class Server(ServerBase[ServedAssociation]):
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
    default three quarters of the descriptors that the process may have; 0: any number. All requests
    together that are not whole may have 64 MiB: beyond that the one that began first is ended by an
    A-ABORT. At most 256 requests, of 64 MiB together, wait for `on_request`; others are rejected
    with 2/3/1. `timeout`, in seconds, is the time for a request to be there, for the peer to close
    at the end, and for `close`; `idle` the longest time without data; None is for ever. `tls` is
    the context of a TLS server.

    Only `serve` does anything; `close` may be called from any thread and in a signal handler. A
    server that is dropped without having been closed is closed then, with a `ResourceWarning`.

    With `workers` so many threads serve while `serve` runs, the calling one among them, each with
    a loop of its own. They share the port, the admission and the counters; what is called about an
    association is called on the thread that serves it, so several calls may run at once. 256
    requests may wait for `on_request` at each. `socket`, instead of an address, is a socket that
    listens; it is made non-blocking, and stays the caller's. Another process may serve at it, too:
    closing then leaves it the connections that wait, and for half of the `timeout` nobody is
    rejected or released.
    """

    def __init__(
        self,
        address: tuple[str, int] | None = None,
        *,
        socket: socket.socket | None = None,
        workers: int = 1,
        admission: Admission | None = None,
        handler: Handler | None = None,
        on_end: OnEnd | None = None,
        max_associations: int = 0,
        max_connections: int | None = None,
        timeout: float | None = DEFAULT_TIMEOUT,
        idle: float | None = DEFAULT_IDLE,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        not_awaited("handler", handler)
        not_awaited("on_end", on_end)
        if number_of("workers", workers, MOST_WORKERS) < 1:
            raise ValueError("workers is 0, not 1 or more")
        rules = admission or Admission()
        limits = max_associations, max_connections, timeout, idle
        how = rules, handler, on_end, limits, tls
        super().__init__(address, socket, how)
        self._prepare()
        self._workers = [_Worker(self, how) for _ in range(workers - 1)]
        """Those beside this one."""
        try:
            self._listen()
            for worker in self._workers:
                worker._loop.share(self._loop)
        except OSError:
            self._free_all()
            raise
        self._address = self._loop.name()

    def _prepare(self) -> None:
        """Be ready to serve."""
        self._jobs: deque[_Job] = deque()
        self._late: dict[ServedAssociation, tuple[float, int]] = {}
        """Those for which something waits to be sent; when it was looked at how many bytes their
        peers had taken, and how many they were."""
        self._owner: dict[str, int] = {}
        """The thread that serves, under the key `thread`."""
        self._owning = threading.Lock()
        self._is_empty = False
        self._decisions = PendingDecisions()
        watch(self)

    def __del__(self) -> None:
        if hasattr(self, "_address") and not self._loop.is_freed:
            for one in self._parts:
                one._decisions.end()
                one._loop.free()  # first: a warning may be an exception
            if not self._closing and warn is not None:  # None when the interpreter ends
                what = f"{self!r} was not closed"
                warn(what, ResourceWarning, source=self, stacklevel=2)

    def _leave_to_parent(self) -> None:
        """In a child process, which has none of the threads that may have had a lock. Where one of
        them was serving, nobody knows how far it was: this copy is not used any more."""
        self._loop.renew_lock()
        if self._owner and not self._is_here():
            self._loop.abandon()
            self._over = True
            self._owner = {}
        self._owning = threading.Lock()

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens: numeric address, and port."""
        return self._address

    @property
    def _parts(self) -> tuple[Server, ...]:
        return self, *self._workers

    def _policy_of(self, admission: Admission) -> service.Policy:
        not_awaited("on_request", admission.on_request)
        return super()._policy_of(admission)

    def _make(self, number: int, pdus: bytes) -> ServedAssociation:
        return ServedAssociation(self, number, pdus)

    def serve(self, until: float | Callable[[], bool] | None = None) -> None:
        """Serve until `close`, for so many seconds, 0 or more, or until this function, which is
        asked whenever an association ended or a moment has passed, says true. May be called again.

        Raises what interrupts it, as KeyboardInterrupt. Nothing is lost then: what had come is
        dealt with when it serves again, or leaves its block."""
        most = None if callable(until) else seconds_of("until", until, zero=True)
        not_awaited("until", until)
        self._refuse_nested()
        try:
            if not self._take_over():
                raise LocalError("it serves already")
            if self._loop.is_abandoned:
                raise LocalError("a thread of the parent process was serving when this one began")
            self._serve_all(most, until if callable(until) else None)
        finally:
            self._let_go()

    def close(self) -> None:
        """Come to an end: `serve` returns within `timeout`, with nothing lost. No more connections
        are taken; requests are rejected with 2/3/1; associations between two messages are released,
        others when their data set is complete; what is left after three quarters of the time is
        aborted."""
        for part in self._parts:
            part._closing = True
            part._loop.wake()

    def __enter__(self) -> Server:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.close()
        self._refuse_nested()
        try:
            while not self._take_over():  # another thread serves: it comes to its end
                time.sleep(0.01)
            self._serve_all(None, None)
        finally:
            if self._is_here():
                self._free_all()
            self._let_go()

    # ---- who serves

    def _is_here(self) -> bool:
        """Is this the thread that serves?"""
        return self._owner.get("thread") == threading.get_ident()

    def _refuse_nested(self) -> None:
        me = threading.get_ident()
        if any(part._is_here() and part._is_in(me, Server._serve) for part in self._parts):
            raise LocalError("it serves already")

    def _is_in(self, thread: int, *functions: Callable[..., Any]) -> bool:
        """Does this thread run one of these methods of this server? The exception of a signal
        handler may have ended it before it could say so."""
        return calls_of(self, [function.__code__ for function in functions], thread) > 0

    def _take_over(self) -> bool:
        """Be the thread that serves; False while another one is."""
        me = threading.get_ident()
        with self._owning:
            owner = self._owner.setdefault("thread", me)
            if owner != me and not self._is_in(owner, *_SERVING):
                owner = self._owner["thread"] = me
        return owner == me

    def _is_served(self) -> bool:
        """Does a thread serve?"""
        owner = self._owner.get("thread")
        return owner is not None and self._is_in(owner, *_SERVING)

    def _let_go(self) -> None:
        if self._is_here():
            self._owner.pop("thread", None)

    # ---- workers

    def _serve_all(self, most: float | None, is_reached: Callable[[], bool] | None) -> None:
        """Serve here, and with a thread for each worker. All have come to rest when this returns;
        to their end where the server is closing."""
        stop, raised = threading.Event(), list[BaseException]()
        wants_ends = is_reached is not None
        helps = [_Help(worker, stop, raised, wants_ends) for worker in self._workers]

        def is_enough() -> bool:
            return bool(raised) or (is_reached is not None and is_reached())

        try:
            for one in helps:
                one.thread.start()
            self._serve(most, is_enough, wants_ends)
        finally:
            if not self._over or raised:
                stop.set()
            self._join(helps, raised)
        if raised:
            raise raised[0]

    def _join(self, helps: list[_Help], raised: list[BaseException]) -> None:
        """Wait until the workers are at rest, whatever a signal handler raises meanwhile: nobody
        else may use their loops before."""
        is_at_rest = False
        while not is_at_rest:
            try:
                for one in helps:
                    one.worker._loop.wake()
                    one.has_ended.wait(ROUND if one.is_running else 0)
                is_at_rest = not any(one.is_running for one in helps)
                for one in helps:
                    if one.has_ended.is_set:
                        one.thread.join()  # at once
            except BaseException as e:
                raised.append(e)

    # ---- the loop

    def _serve(
        self, most: float | None, is_reached: Callable[[], bool] | None, wants_ends: bool
    ) -> None:
        end = None if most is None else time.monotonic() + most
        while not self._over:
            if end is not None and time.monotonic() >= end:
                break
            if is_reached is not None and is_reached():
                break
            self._round(end, wants_ends)

    def _round(self, end: float | None, wants_ends: bool) -> None:
        """Serve for a moment, and deal with the events of it."""
        self._dispatch_all()  # what an exception has left
        if self._closing:
            self._loop.close(engine.milliseconds(self._timeout))
        self._take_rules()
        self._run_jobs()
        status = self._run(wants_ends, self._patience(end))
        if status == codec.NEED_MORE:
            self._loop.rest()
        self._dispatch_all()
        self._abort_late()
        if status == codec.CLOSED:
            self._over = True
            self._end_calls()

    def _patience(self, end: float | None) -> int:
        """Milliseconds that may be waited for something to happen."""
        now = time.monotonic()
        moments = [now + ROUND if end is None else min(now + ROUND, end)]
        if self._timeout is not None:
            moments += [since + self._timeout for since, _ in self._late.values()]
        return max(0, math.ceil((min(moments) - now) * 1000))

    def _abort_late(self) -> None:
        """Abort those whose peers have taken nothing of what waits for them in time."""
        if self._timeout is None:
            return
        now = time.monotonic()
        for association, (since, taken) in list(self._late.items()):
            if now < since + self._timeout:
                continue
            if association._taken() > taken:
                self._late[association] = now, association._taken()
                continue
            association._is_late = True
            logger.debug("a peer has not taken what was sent in time; its association is aborted")
            association._aborting().run()
            self._late.pop(association, None)

    def _dispatch_all(self) -> None:
        for event in self._loop.events():
            self._dispatch(event)
        for decision in self._decisions.made():
            self._answer(decision)

    # ---- events. One may be dispatched again after an exception.

    def _requested(self, event: service.ServedEvent) -> None:
        association = self._begun(event)
        if self._rules.inline:
            self._decide_inline(event, association)
            return
        if association._decision is None:
            on_request = self._rules.on_request

            def decide(association: ServedAssociation) -> bytes:
                return _decide(association, on_request)

            association._decision = PendingDecision(association, decide, _late)
        is_asked = self._undecided.add(event.served, len(event.data))
        if not is_asked or not self._decisions.ask(association._decision):
            self._refuse_undecided(association)
            self._forget(association)

    def _room(self, event: service.ServedEvent) -> None:
        association = self._served.get(event.served)
        if association is not None:
            association._resume()
            self._handle_postponed(association)

    def _data(self, event: service.ServedEvent) -> None:
        association, handler = self._served.get(event.served), self._handler
        if association is None or handler is None or association._is_aborted:
            return
        pdv = PDV(event.id, *flags_of(event.control), event.data)
        if association._waiting or association._postponed:
            association._postponed[self._loop.runs, event.place] = pdv
            return
        error = self._call_user(event, handler, association, pdv)
        if error is not None:
            self._handler_failed(association, error)
        del error  # else it and this frame are a cycle

    def _handle_postponed(self, association: ServedAssociation) -> None:
        """Call the handler with data that it has not seen, until something waits to be sent again.
        Each is handled once, whatever a signal handler raises."""
        handler, postponed = self._handler, association._postponed
        while postponed and not association._waiting:
            key = next(iter(postponed))
            pdv = postponed[key]
            if handler is None or association._is_aborted:
                postponed.clear()
                return
            try:
                del postponed[key]  # no call: behind one a signal may be seen in this frame
                handler(association, pdv)
            except BaseException as e:
                if not has_begun(e.__traceback__):
                    association._postponed = {key: pdv, **postponed}
                    raise
                if not isinstance(e, Exception):
                    raise
                self._handler_failed(association, e)

    def _call_user(
        self,
        event: service.ServedEvent,
        function: Callable[[ServedAssociation, Any], Any],
        association: ServedAssociation,
        what: Any,
    ) -> Exception | None:
        """Call a function of the user's about an event, once, although what a signal handler raises
        may come before it has begun. What it raises by itself is returned."""
        try:
            self._loop.taken = event.place + 1
            function(association, what)  # no `*`: behind that a signal may be seen in this frame
        except BaseException as e:
            if not has_begun(e.__traceback__):
                self._loop.taken = event.place
                raise
            if not isinstance(e, Exception):
                raise
            return e
        return None

    def _ended(self, event: service.ServedEvent) -> None:
        association, report = self._served.get(event.served), event.report
        if association is not None:
            association._end()
            self._handle_postponed(association)
            self._forget(association)
            association._decision = None  # which has it, and so would keep it and the server
        try:
            if report is not None and report.outcome != 0:
                self._tell_of_end(event, report, association)
        except BaseException:
            if self._loop.taken > event.place:  # it has been told
                self._served.pop(event.served, None)
            raise
        self._served.pop(event.served, None)

    def _tell_of_end(
        self,
        event: service.ServedEvent,
        report: service.Report,
        association: ServedAssociation | None,
    ) -> None:
        record = self._record_of(event, report)
        if record is None:
            return
        if self._on_end is not None and association is not None:
            error = self._call_user(event, self._on_end, association, record)
            if error is not None:
                logger.error("on_end failed", exc_info=error)
            del error
        record.log()

    # ---- decisions

    def _forget(self, association: ServedAssociation) -> None:
        """It does not wait for a decision any more."""
        self._undecided.remove(association._number)
        if association._decision is not None:
            self._decisions.forget(association._decision)

    def _answer(self, decision: PendingDecision) -> int:
        association, pdu = decision.subject, decision.answer
        self._undecided.remove(association._number)
        if not pdu or association._over.is_set:
            return 0
        return self._send_answer(association, pdu)

    # ---- calls from other threads

    def _call(self, job: _Job) -> int:
        """Do it on the thread that serves; on another one, wait until it is done."""
        if not self._is_here():
            return self._call_there(job)
        job.run()
        assert job.status is not None
        return job.status

    def _call_there(self, job: _Job) -> int:
        """The status, when it is done. Whoever serves sees to it that no peer is waited for too
        long."""
        self._post(job)
        while (status := job.wait(self._timeout)) is None:
            if not (job.tried and self._owner):
                job.give_up()
                raise LocalError("nobody serves the association at the moment")
        return status

    def _post(self, job: _Job) -> None:
        if not self._is_empty:
            self._jobs.append(job)
            self._loop.wake()
        if self._is_empty:
            job.run()

    def _run_jobs(self) -> None:
        while self._jobs:
            job = self._jobs[0]
            if job.association is None or not job.in_order:
                job.run()
            elif job.association._waiting or not job.run():
                job.association._wait_with(job)
            self._jobs.popleft()

    def _free_all(self) -> None:
        for part in self._parts:
            if part is self or not part._is_served():  # as where a second interrupt came too early
                part._free()

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


class _Worker(Server):
    """A part of a server, with a loop and a thread of its own: it listens at the same socket, and
    has the same admission."""

    def __init__(self, first: Server, how: How) -> None:
        ServerBase.__init__(self, first._where, None, how, first._policy)
        self._first = weakref.ref(first)
        self._workers = []
        self._prepare()

    def _help(self, one: _Help, stop: Event, raised: list[BaseException], wants_ends: bool) -> None:
        try:
            if not stop.is_set() and self._take_over():
                self._serve(None, stop.is_set, wants_ends)
        except BaseException as e:
            raised.append(e)
        finally:
            self._let_go()
            one.has_ended.set()
            self._wake_first()

    def _wake_first(self) -> None:
        first = self._first()
        if first is not None:
            first._loop.wake()

    def _ended(self, event: service.ServedEvent) -> None:
        super()._ended(event)
        self._wake_first()  # which may wait for that


class _Help:
    """A thread in which a worker serves, until `stop` is set or it is over. What it raises is put
    into a list. (`Thread.is_alive` may be wrong where a signal handler has raised in `join`.)"""

    def __init__(
        self, worker: _Worker, stop: Event, raised: list[BaseException], wants_ends: bool
    ) -> None:
        self.worker = worker
        self.has_ended = Signal()
        how = self, stop, raised, wants_ends
        self.thread = Thread(target=worker._help, args=how, daemon=True)

    @property
    def is_running(self) -> bool:
        """May it use the loop of its worker? One without an `ident` looks at `stop` first."""
        return self.thread.ident is not None and not self.has_ended.is_set


_SERVING = Server.serve, Server.__exit__, _Worker._help


def _decide(association: ServedAssociation, on_request: Any) -> bytes:
    """The answer, in a thread of its own; none where the requestor has left."""
    if association._phase() != service.PHASE_ASKING:
        return b""
    try:
        return answer_of(on_request(association), association)
    except BaseException:  # nobody else would see it, and the peer would wait
        logger.exception("on_request failed; the request is rejected")
        return encode(FAILED_DECISION)


def _late(decision: PendingDecision) -> None:
    """In its thread."""
    server = decision.subject._server
    server._post(_Job(lambda: server._answer(decision)))
