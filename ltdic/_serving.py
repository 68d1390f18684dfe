"""The common part of both servers: what they are made with, and what they tell."""

from __future__ import annotations

import inspect
import logging
import os
import ssl
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any, Generic, NamedTuple, TypeVar

from ._arguments import HOST_AND_PORT, one, pair
from ._begun import has_begun
from ._codec import encode
from ._native import codec, service
from ._native.transport import Wire
from ._on_request import Undecided
from ._times import seconds_of
from .admission import Admission
from .association import (
    BUSY,
    FAILED_DECISION,
    ServedAssociationBase,
    answer_of,
    check_address,
    check_connections,
    check_server,
)
from .counters import Counters, Record, logger, record_of, stranger_of, tls_stranger
from .errors import Error, LocalError
from .pdu import AssociateReject
from .tls import TlsTransport, check_tls


class Served(ServedAssociationBase, ABC):
    """An association of a server of C."""

    def __init__(self, loop: service.ServerLoop, number: int, pdus: bytes) -> None:
        size = 6 + int.from_bytes(pdus[2:6], "big")
        super().__init__(pdus[:size], pdus[size:], loop.peer(number))
        self._loop = loop
        self._number = number
        self._is_aborted = False
        """Has its user aborted it?"""
        self._is_released = False
        """Has its user asked for release?"""
        secured = loop.transport(number)
        if isinstance(secured, TlsTransport):
            self.peer_certificate = secured.peer_certificate

    @property
    def established(self) -> bool:
        """True from the A-ASSOCIATE-AC on, until it is released, aborted or lost, which may be
        before its connection has ended. From any thread."""
        return self._phase() == service.PHASE_OPEN

    @abstractmethod
    def abort(self) -> None:
        """End it at once, by A-ABORT (PS3.8 7.3)."""

    def _phase(self) -> int:
        return self._loop.phase(self._number)

    def _taken(self) -> int:
        """Bytes that the peer has taken."""
        return self._loop.taken_by(self._number)


METHODS = {
    service.SERVED_REQUEST: "_requested",
    service.SERVED_ACCEPTED: "_begun",
    service.SERVED_DATA: "_data",
    service.SERVED_ENDED: "_ended",
    service.SERVED_ROOM: "_room",
}
"""The method of a server that deals with each kind of event."""


class _Rules(NamedTuple):
    """An admission that was set, and the call that gives C its rules; None: C has them already."""

    admission: Admission
    call: service.Call | None = None


A = TypeVar("A", bound=Served)


class ServerBase(ABC, Generic[A]):
    """A server of C and its associations, with what its user wants of it."""

    def __init__(
        self,
        address: tuple[str, int],
        admission: Admission | None,
        handler: Callable[..., Any] | None,
        on_end: Callable[..., Any] | None,
        max_associations: int,
        max_connections: int | None,
        timeout: float | None,
        idle: float | None,
        tls: ssl.SSLContext | None,
    ) -> None:
        check_address(*pair("address", address, HOST_AND_PORT))
        check_server(admission, handler, on_end)
        if tls is not None:
            check_tls(tls)
        self._max_associations = max_associations
        self._handler, self._on_end = handler, on_end
        self._rules = admission or Admission()
        """The admission whose policy C has."""
        self._policy = self._policy_of(self._rules)
        self._newest = self._given = _Rules(self._rules)
        self._timeout = seconds_of("timeout", timeout)
        self._undefined: Counter[tuple[str, int, int, int]] = Counter()
        check_connections(max_connections)
        self._loop = service.ServerLoop(self._policy, self._timeout, seconds_of("idle", idle))
        if max_connections is not None:
            self._loop.limit_connections(max_connections)
        if tls is not None:
            self._loop.secure(partial(TlsTransport, tls, None, Wire()))
        self._served: dict[int, A] = {}
        self._undecided = Undecided()
        self._closing = self._over = False
        self._lacks = 0

    @property
    def counters(self) -> Counters:
        """The counts up to now. From any thread; each number is one that was true."""
        names, rejected = self._loop.counters()
        counted = Counter({("sent", *codes): count for codes, count in rejected.items()})
        return Counters(**names, rejected=counted + self._undefined.copy())

    @property
    def open(self) -> tuple[A, ...]:
        """The associations now, as far as `handler`, `on_request` or `on_end` is told of them. From
        any thread."""
        return tuple(one for one in list(self._served.values()) if one.established)

    @property
    def admission(self) -> Admission:
        """Who is let in; another one may be set at any time, in any thread, and holds for the
        requests that come then. Places that are taken stay taken."""
        return self._newest.admission

    @admission.setter
    def admission(self, admission: Admission) -> None:
        policy = self._policy_of(one("admission", admission, Admission))
        self._newest = _Rules(admission, self._policy.taking_rules(policy))
        self._loop.wake()

    def _take_rules(self) -> None:
        """Give C the admission that was set last. Only the thread that serves does: when nobody
        serves any more, C may have freed the policy."""
        newest = self._newest
        if newest is self._given or newest.call is None:
            return
        if newest.call.make() == 0:
            self._rules = newest.admission
        else:
            logger.error("there was no memory for another admission; the one before it stays")
        self._given = newest

    def _policy_of(self, admission: Admission) -> service.Policy:
        return admission.policy(self._max_associations, self._handler is not None)

    def _wanted(self, ends: bool) -> int:
        wanted = service.WANT_REQUESTS if self._rules.on_request is not None else 0
        if self._handler is not None or self._on_end is not None:
            wanted |= service.WANT_DATA
        wanted |= 0 if self._rules.answer_verification else service.WANT_VERIFICATION
        return wanted | (service.WANT_ENDS if ends or logger.isEnabledFor(logging.INFO) else 0)

    def _run(self, ends: bool, most: int) -> int:
        """Let C serve for `most` milliseconds, or until there is an event."""
        self._loop.reports = self._on_end is not None or logger.isEnabledFor(logging.INFO)
        status = self._loop.run(self._wanted(ends), most)
        self._tell_of_lack()
        return status

    def _tell_of_lack(self) -> None:
        """Log once each time that connections have to wait, without descriptors or memory."""
        lacks, error = self._loop.lack()
        if lacks > self._lacks:
            why = os.strerror(error)
            logger.warning("connections wait, since none can be accepted: %s", why)
        self._lacks = lacks

    def _dispatch(self, event: service.ServedEvent) -> None:
        getattr(self, METHODS[event.kind])(event)

    @abstractmethod
    def _make(self, number: int, pdus: bytes) -> A:
        """The association of this number; `pdus` are its request and the answer to it."""

    def _handler_failed(self, association: A, error: Exception) -> None:
        """Abort the association, unless its release explains what the handler has raised."""
        is_released = association._is_released or self._closing
        if isinstance(error, LocalError) and is_released and association.established:
            logger.debug("the handler's association is being released: %s", error)
            return
        if isinstance(error, Error) and not association.established:  # the peer has left meanwhile
            logger.debug("the handler's association is over: %s", error)
        else:
            logger.error("the handler failed; its association is aborted", exc_info=error)
        association.abort()

    def _begun(self, event: service.ServedEvent) -> A:
        """The association that an event is of."""
        if event.served not in self._served:
            new = self._make(event.served, bytes(event.data))
            self._served[event.served] = new
        return self._served[event.served]

    def _refuse_undecided(self, association: A) -> None:
        logger.debug("too many requests wait for on_request; this one is rejected")
        self._loop.sending(association._number, encode(BUSY)).make()

    def _decide_inline(self, event: service.ServedEvent, association: A) -> None:
        """Call `on_request` here, once, whatever a signal handler raises, and send the answer."""
        answer, on_request = encode(FAILED_DECISION), self._rules.on_request
        assert on_request is not None
        try:
            self._loop.taken = event.place + 1
            decision = on_request(association)
            if inspect.isawaitable(decision):
                self._decide_later(association, decision)
                return
            answer = answer_of(decision, association)
        except Exception:
            logger.exception("on_request failed; the request is rejected")
        except BaseException as e:
            if not has_begun(e.__traceback__):
                self._loop.taken = event.place
                raise
            self._send_answer(association, answer)
            raise
        self._send_answer(association, answer)

    def _decide_later(self, association: A, decision: Any) -> None:
        """`on_request` has returned what is to be awaited, for which only asyncio has a place."""
        raise TypeError("on_request returned an awaitable, for which nobody here waits")

    def _send_answer(self, association: A, pdu: bytes) -> int:
        """Send the answer to a request."""
        association._take_answer(pdu)
        status = self._loop.sending(association._number, pdu).make()
        if status == 0 and pdu[0] == AssociateReject.type:
            codes = pdu[7], pdu[8], pdu[9]
            if not codec.is_defined(*codes):
                self._undefined["sent", *codes] += 1
        return int(status)

    def _record_of(self, event: service.ServedEvent, report: service.Report) -> Record | None:
        """The record of an association that has ended. What was none is logged, without one."""
        peer = report.host, report.port
        if report.outcome == service.OUTCOME_TLS_FAILED:
            secured = self._loop.transport(event.served)
            error = secured.error if isinstance(secured, TlsTransport) else None
            why = str(error or codec.text_of(report.status))
            tls_stranger(peer, report.first, why, report.seconds).log()
            return None
        if report.outcome in (service.OUTCOME_NO_REQUEST, service.OUTCOME_FAULT):
            how = report.status, report.offset, report.first, report.seconds
            stranger_of(peer, *how).log()
            return None
        return record_of(report)
