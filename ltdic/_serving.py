"""The common part of both servers: what they are made with, and what they tell."""

from __future__ import annotations

import inspect
import logging
import os
import ssl
import threading
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable
from functools import cached_property, partial
from socket import socket as Socket
from typing import Any, Generic, NamedTuple, TypeVar

from ._arguments import HOST_AND_PORT, check_address, number_of, one, pair, wrong_type
from ._begun import has_begun
from ._codec import decode, encode
from ._native import codec, service
from ._native.loop import Call
from ._native.transport import Wire
from ._on_request import Undecided
from ._sending import part_size
from ._times import seconds_of
from .admission import Admission
from .association import NegotiatedContext, context_id_of, negotiated, shown
from .counters import Counters, Record, logger, record_of, stranger_of, tls_stranger
from .errors import Error, LocalError
from .pdu import (
    Abort,
    AssociateAccept,
    AssociateReject,
    AssociateRequest,
    AsyncOperations,
    UserInformation,
)
from .tls import TlsTransport, check_tls


def titles_of(request: bytes) -> tuple[str, str]:
    """Called and calling title of an A-ASSOCIATE-RQ, as the admission takes them."""
    fields = request[10:26], request[26:42]
    called, calling = (field.lstrip(b" ").rstrip(b"\0 ").replace(b"\0", b"?") for field in fields)
    return called.decode("latin-1"), calling.decode("latin-1")


FAILED_DECISION = AssociateReject(2, 1, 1)
"""Answers a request whose decision in Python failed: a retry may work."""
BUSY = AssociateReject(2, 3, 1)
"""Answers a request while a server closes, and one too many for `on_request`."""


def answer_of(decision: object, association: Served) -> bytes:
    """The PDU that answers a request: what `on_request` returned, or the AC of the admission."""
    if decision is None or decision is True:
        return association._accept
    if isinstance(decision, (AssociateReject, Abort)):
        return encode(decision)
    if isinstance(decision, AssociateAccept):
        check_accept(association.request, decision)
        return encode(decision)
    raise TypeError(
        f"on_request returned a {type(decision).__name__}: it is None, True, an AssociateAccept,"
        " an AssociateReject or an Abort"
    )


def check_accept(request: AssociateRequest, accept: AssociateAccept) -> None:
    """Raises `ValueError` where an answer accepts what was not proposed (PS3.7 D.3.3). Of several
    contexts with one ID, the first counts."""
    proposed = {context.id: context for context in reversed(request.contexts)}
    answered: set[int] = set()
    for answer in accept.contexts:
        context = proposed.get(answer.id)
        if answer.id in answered:
            raise ValueError(f"context {answer.id} is answered twice")
        answered.add(answer.id)
        if context is None:
            raise ValueError(f"context {answer.id} is answered, and was not proposed")
        if answer.result == 0 and answer.transfer_syntax not in context.transfer_syntaxes:
            raise ValueError(
                f"context {answer.id} is accepted with {shown(answer.transfer_syntax)}, which was"
                " not proposed for it"
            )
    missing = proposed.keys() - answered
    if missing:
        raise ValueError(f"context {min(missing)} was proposed, and is not answered")
    asked = request.user_info or UserInformation()
    told = accept.user_info or UserInformation()
    _check_roles(asked, told)
    _check_window(asked.async_ops, told.async_ops)
    known = {item.sop_class_uid for item in asked.extended}
    for item in told.extended:
        if item.sop_class_uid not in known:
            what = f"extended negotiation of {shown(item.sop_class_uid)}"
            raise ValueError(f"{what} was not proposed")
    wanted = asked.user_identity is not None and asked.user_identity.response_requested
    if told.user_identity_response is not None and not wanted:
        raise ValueError("a user identity response was not asked for")


def _check_roles(asked: UserInformation, told: UserInformation) -> None:
    proposed = {role.sop_class_uid: role for role in asked.roles}
    for role in told.roles:
        known = proposed.get(role.sop_class_uid)
        if known is None or (role.scu and not known.scu) or (role.scp and not known.scp):
            what = f"a role of {shown(role.sop_class_uid)}"
            raise ValueError(f"{what} is accepted that was not proposed")


def _check_window(asked: AsyncOperations | None, told: AsyncOperations | None) -> None:
    """0 is any number."""
    if told is None:
        return
    if asked is None:
        raise ValueError("an asynchronous operations window was not proposed")
    for name in ("invoked", "performed"):
        most, chosen = getattr(asked, name), getattr(told, name)
        if most and not 0 < chosen <= most:
            raise ValueError(f"operations {name} are {chosen}, of {most} that were proposed")


# ---- what every server checks --------------------------------------------------------------------


def check_connections(most: int | None) -> None:
    """Raises `TypeError` or `ValueError` for what is no bound on connections."""
    if most is not None:
        number_of("max_connections", most, 0xFFFFFFFF)


def check_server(admission: object, handler: object, on_end: object) -> None:
    """Raises `TypeError` for what no server can be made with."""
    if admission is not None:
        one("admission", admission, Admission)
    for name, function in (("handler", handler), ("on_end", on_end)):
        if function is not None and not callable(function):
            raise wrong_type(name, function, "a function")


# ---- the server and its associations -------------------------------------------------------------


class Served(ABC):
    """An association of a server of C, as its handler and `on_request` see it. `pdus` are its
    request and the answer to it."""

    def __init__(self, loop: service.ServerLoop, number: int, pdus: bytes) -> None:
        size = 6 + int.from_bytes(pdus[2:6], "big")
        self._request, self._accept = pdus[:size], pdus[size:]
        self._decoded: AssociateAccept | None = None
        self._contexts: tuple[NegotiatedContext, ...] | None = None
        self.peer = loop.peer(number)
        """Address and port of the requestor."""
        self.peer_certificate: dict[str, Any] | None = None
        """The certificate that the requestor showed, as `ssl.SSLSocket.getpeercert` gives it; None
        without TLS, or where none was asked for."""
        self.user_data: Any = None
        """Whatever the handler wants to keep with it."""
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

    @cached_property
    def _part_size(self) -> int:
        return part_size(self._request)

    def _context_id_of(self, context: int | str) -> int:
        """Nothing is decoded for an ID."""
        return context_id_of(self.contexts if isinstance(context, str) else (), context)

    @property
    def raw_request(self) -> bytes:
        """The A-ASSOCIATE-RQ as it came."""
        return self._request

    @property
    def called_ae(self) -> str:
        """The title as the admission takes it: what follows a NUL in the field is a part of it,
        with `?` for the NUL."""
        return titles_of(self._request)[0]

    @property
    def calling_ae(self) -> str:
        """The title, taken as `called_ae` is."""
        return titles_of(self._request)[1]

    @cached_property
    def request(self) -> AssociateRequest:
        """The A-ASSOCIATE-RQ that was sent."""
        pdu = decode(self._request, max_associate=0)
        assert isinstance(pdu, AssociateRequest)
        return pdu

    @property
    def accept(self) -> AssociateAccept:
        """The answer; to `on_request`, the one that the admission would give."""
        if self._decoded is None:
            pdu = decode(self._accept, max_associate=0)
            assert isinstance(pdu, AssociateAccept)
            self._decoded = pdu
        return self._decoded

    @property
    def contexts(self) -> tuple[NegotiatedContext, ...]:
        """Every proposed context, and what became of it."""
        if self._contexts is None:
            self._contexts = negotiated(self.request, self.accept)
        return self._contexts

    def _take_answer(self, pdu: bytes) -> None:
        """The answer to the request; an A-ASSOCIATE-AC may be another one than the admission's."""
        if pdu[0] == AssociateAccept.type and pdu is not self._accept:
            self._accept, self._decoded, self._contexts = pdu, None, None


METHODS = {
    service.SERVED_REQUEST: "_requested",
    service.SERVED_ACCEPTED: "_begun",
    service.SERVED_DATA: "_data",
    service.SERVED_ENDED: "_ended",
    service.SERVED_ROOM: "_room",
}
"""The method of a server that deals with each kind of event."""


class NewRules:
    """The call that gives C the rules of an admission. The last of several servers makes it: each
    has to ask its `on_request` before any requestor is let in by these rules."""

    def __init__(self, call: Call, servers: Iterable[object]) -> None:
        self._call = call
        self._missing = set(map(id, servers))
        self._lock = threading.RLock()  # a signal handler may interrupt whoever has it

    def take(self, server: object) -> bool:
        """This server asks now. Return False if there was no memory."""
        with self._lock:
            self._missing.discard(id(server))
            return bool(self._missing) or self._call.make() == 0


class _Rules(NamedTuple):
    """An admission that was set, and the call that gives C its rules; None: C has them already."""

    admission: Admission
    call: NewRules | None = None


A = TypeVar("A", bound=Served)

Function = Callable[..., Any] | None
Seconds = float | None
How = tuple[
    Admission | None,
    Function,
    Function,
    tuple[int, int | None, Seconds, Seconds],
    ssl.SSLContext | None,
]
"""Admission; handler, `on_end`; most associations, most connections, `timeout`, `idle`; TLS."""


class ServerBase(ABC, Generic[A]):
    """A server of C and its associations, with what its user wants of it."""

    def __init__(
        self,
        address: tuple[str, int] | None,
        socket: Socket | None,
        how: How,
        policy: service.Policy | None = None,
    ) -> None:
        """`policy` is that of another server, which has the same rules."""
        if socket is None:
            check_address(*pair("address", address, HOST_AND_PORT))
        elif address is not None:
            raise TypeError("address and socket: one of them says where to listen")
        elif isinstance(one("socket", socket, Socket), ssl.SSLSocket):
            raise TypeError("socket: TLS is by `tls`, over a plain socket")
        self._where = address or ("", 0)
        self._socket = socket
        admission, self._handler, self._on_end, limits, tls = how
        self._max_associations, max_connections, timeout, idle = limits
        check_server(admission, self._handler, self._on_end)
        if tls is not None:
            check_tls(tls)
        self._rules = admission or Admission()
        """The admission whose policy C has."""
        self._policy = policy or self._policy_of(self._rules)
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
    def _parts(self) -> tuple[ServerBase[A], ...]:
        """It, and those that serve with it at the same socket."""
        return (self,)

    @property
    def counters(self) -> Counters:
        """The counts up to now. From any thread; each number is one that was true."""
        names: Counter[str] = Counter()
        rejected: Counter[tuple[str, int, int, int]] = Counter()
        for part in self._parts:
            counted, codes = part._loop.counters()
            names.update(counted)
            rejected.update({("sent", *each): count for each, count in codes.items()})
            rejected.update(part._undefined.copy())
        return Counters(**names, rejected=rejected)

    @property
    def open(self) -> tuple[A, ...]:
        """The associations now, as far as `handler`, `on_request` or `on_end` is told of them. From
        any thread."""
        served = (one for part in self._parts for one in list(part._served.values()))
        return tuple(one for one in served if one.established)

    @property
    def admission(self) -> Admission:
        """Who is let in; another one may be set at any time, in any thread, and holds for the
        requests that come then. Places that are taken stay taken."""
        return self._newest.admission

    @admission.setter
    def admission(self, admission: Admission) -> None:
        policy = self._policy_of(one("admission", admission, Admission))
        call = NewRules(self._policy.taking_rules(policy), self._parts)
        for part in self._parts:
            part._newest = _Rules(admission, call)
            part._loop.wake()

    def _take_rules(self) -> None:
        """Give C the admission that was set last. Only the thread that serves does: when nobody
        serves any more, C may have freed the policy."""
        newest = self._newest
        if newest is self._given or newest.call is None:
            return
        if newest.call.take(self):
            self._rules = newest.admission
        else:
            logger.error("there was no memory for another admission; the one before it stays")
        self._given = newest

    def _listen(self) -> None:
        """Look a name up, too. Raises `OSError`."""
        if self._socket is None:
            self._loop.listen(*self._where)
        else:
            self._loop.listen_on(self._socket.fileno())

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
