"""One association without its transport: bytes and time in, events and bytes out.

What the blocking and the asyncio face have in common stands here, too.
"""

from __future__ import annotations

import fcntl
import socket
import ssl
import termios
import time
from array import array
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from operator import index
from typing import Any, BinaryIO, NamedTuple, NoReturn, TypeAlias, TypeVar

from ._arguments import HOST_AND_PORT, copy_of, each, number_of, one, pair, view_of, wrong_type
from ._codec import control_of, decode, encode, flags_of
from ._first_bytes import FIRST, protocol_of
from ._native import codec, engine, service
from ._native.codec import Buffer
from ._rules import PDU_NAMES
from ._times import seconds_of
from .admission import (
    LEAST_MAX_LENGTH,
    VERIFICATION,
    Admission,
    Context,
    check_max_length,
    propose,
    uid_of,
)
from .counters import Record
from .errors import (
    AssociationAborted,
    AssociationRejected,
    AssociationTimeout,
    ConnectionClosed,
    ConnectionFailed,
    DecodeError,
    Error,
    LocalError,
)
from .pdu import (
    PDU,
    PDV,
    Abort,
    AssociateAccept,
    AssociateReject,
    AssociateRequest,
    AsyncOperations,
    CommonExtendedNegotiation,
    DataTransfer,
    ExtendedNegotiation,
    ReleaseRequest,
    ReleaseResponse,
    RoleSelection,
    UserIdentity,
    UserInformation,
    is_like_uid,
)
from .tls import check_tls

T = TypeVar("T")

# Those of the library (PS3.7 D.3.3.2), as C has them.
IMPLEMENTATION_CLASS_UID = codec.CLASS_UID_OF_LTDIC
IMPLEMENTATION_VERSION_NAME = f"LTDIC_{codec.VERSION}"

DEFAULT_TIMEOUT = 30.0
DEFAULT_IDLE = 600.0
SHORTEST = 1e-3
"""Seconds: what is left of a time-out when there is nothing left."""
CLOSING_TIME = 2.0
"""Seconds that a peer is given to close after an A-ABORT, which a close of ours could destroy."""
LATE_CLOSING_TIME = 0.1
"""The same where the time of the call is up already."""
EMPTY_SIZE = 12
"""Bytes on the wire of a P-DATA-TF whose PDV has no data."""
MOST_ECHO = 1024
"""Bytes of a command set that may be a C-ECHO."""
SENT_AS_PDUS = frozenset(PDU_NAMES) - {DataTransfer.type}
"""PDU types; data is cut into P-DATA-TF by the engine."""
PART = 0x80000
"""Bytes of a command or data set that are given to the engine at once, at most."""
PART_PDUS = 2048
"""P-DATA-TF that these may become, at most."""
MOST_HELD = 0x100000
"""Bytes of data that wait for whoever receives them; with more, reading stops."""

# ---- sentences of errors that several faces raise ------------------------------------------------

NOT_ANSWERED = "the peer has not answered in time"
NOT_TAKEN = "the peer has not taken what was sent in time"
OVER = "the association is over"
WAS_ABORTED = f"{OVER}: it was aborted"
IN_USE = "another thread uses the association"
ODD = "a command or data set has an even number of bytes (PS3.8 E.1)"

# ---- events ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Echo:
    """The command that has just ended is a C-ECHO (PS3.7 9.3.5)."""

    context_id: int
    is_request: bool
    message_id: int
    status: int
    sop_class_uid: str


@dataclass(frozen=True, slots=True)
class Fault:
    """The peer broke PS3.8, or did not answer in time (`timeout`), and is sent this A-ABORT."""

    kind: str
    """A name as `DecodeError.kind`, or `timeout`."""
    text: str
    abort: Abort
    protocol: str | None = None
    """The protocol that the peer speaks instead of DICOM, as far as its first bytes tell."""


@dataclass(frozen=True, slots=True)
class Closed:
    """The last event: the transport is to be closed, if it still is open.

    `kind` is `ok` after a rejection, a release, or an abort of one's own, else the cause: `closed`,
    `timeout`, `aborted`, or the kind of the fault before it.
    """

    kind: str
    text: str


Event: TypeAlias = PDU | PDV | Echo | Fault | Closed


class NegotiatedContext(NamedTuple):
    """The answer to one proposed context (PS3.8 table 9-18)."""

    id: int
    abstract_syntax: str | None
    result: int
    """0 where it was accepted; None of the answers gives 2."""
    transfer_syntax: str | None
    """The one accepted, else None."""

    @property
    def accepted(self) -> bool:
        return self.result == 0


def negotiated(request: AssociateRequest, accept: AssociateAccept) -> tuple[NegotiatedContext, ...]:
    """The contexts of the request, with their answers. Of several with one ID the first counts, in
    either PDU."""
    answers = {context.id: context for context in reversed(accept.contexts)}
    found: dict[int, NegotiatedContext] = {}
    for context in request.contexts:
        answer = answers.get(context.id)
        result = 2 if answer is None else answer.result
        syntax = answer.transfer_syntax if answer is not None and result == 0 else None
        new = NegotiatedContext(context.id, context.abstract_syntax, result, syntax)
        found.setdefault(context.id, new)
    return tuple(found.values())


def _shown(uid: object) -> str:
    """A UID in a sentence, which may come from a peer, be no UID, and get into a log: what could
    begin a line there or command a terminal is escaped, and what is too long left out."""
    text = str(uid)
    return ascii(text[:64])[1:-1] + ("..." if len(text) > 64 else "")


def context_id_of(contexts: Iterable[NegotiatedContext], context: int | str) -> int:
    """The ID of an accepted context, given by itself or by its abstract syntax."""
    if isinstance(context, int):
        return number_of("context", context, 0xFF)
    uid = uid_of(context)
    for found in contexts:
        if found.accepted and found.abstract_syntax == uid:
            return found.id
    accepted = ", ".join(_shown(found.abstract_syntax) for found in contexts if found.accepted)
    raise LocalError(f"no context of {_shown(context)} was accepted, only {accepted or 'none'}")


# ---- the association -------------------------------------------------------------------------


class Association:
    """An association between its user and its transport: usable under any framework.

    Make one when the transport connection is up. A requestor then sends an `AssociateRequest`. Give
    it whatever the transport delivers, take the events, and send what is to be sent, after every
    call. `deadline` says when to call `handle_timeout` although nothing was received. What was
    negotiated is kept to, in both directions. Not thread-safe.

    `timeout` is the time in seconds for the A-ASSOCIATE-RQ, for the answer to it, for the answer to
    a release request, and for the peer to close at the end (PS3.8 9.1.5); `idle` the time while
    established without data in either direction. `clock` gives seconds that never go back. With
    `exact`, PDUs are decoded as by `decode(..., exact=True)`, so that a proxy can send them on as
    they came.
    """

    def __init__(
        self,
        *,
        requestor: bool,
        exact: bool = False,
        timeout: float | None = DEFAULT_TIMEOUT,
        idle: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if not callable(clock):
            raise wrong_type("clock", clock, "a function")
        self._clock = clock
        self._exact = exact
        self._engine = engine.Engine()
        self._echoes = service.EchoReader()
        self.set_timeouts(timeout, idle)
        if not requestor:
            self._engine.accepted(self._now())
        self._view = memoryview(b"")
        self._eof = self._over = False
        self._first = b""

    def _now(self) -> int:
        return int(self._clock() * 1000)

    def set_timeouts(self, timeout: float | None, idle: float | None = None) -> None:
        """For what begins after this. None is for ever."""
        most = seconds_of("timeout", timeout)
        self._engine.set_timeouts(most, most, seconds_of("idle", idle))

    @property
    def state(self) -> int:
        """The number of its state in PS3.8 9.2.1, 1 to 13."""
        return self._engine.state

    @property
    def established(self) -> bool:
        """True while data can be sent or received."""
        return engine.is_established(self._engine.state)

    @property
    def unused(self) -> int:
        """Bytes that were received, and that no event has been made of yet."""
        return self._engine.unused

    @property
    def expects_more(self) -> bool:
        """True while a PDU or message that has begun to come is not at its end. A transport may
        then acknowledge what has come at once: a peer with Nagle's algorithm on waits for that."""
        return self._engine.expects_more

    def receive_data(self, data: Buffer) -> None:
        """Bytes as they came from the transport."""
        data = copy_of("data", data)
        if len(self._first) < FIRST:
            self._first += data[: FIRST - len(self._first)]
        self._engine.receive(data)
        self._view = memoryview(self._engine.inbox)

    def _drop_used(self) -> None:
        """Forget what has been used of what was received; events have views of it."""
        self._engine.drop_used()
        if not self._engine.inbox:
            self._view = memoryview(b"")

    @property
    def _is_telling(self) -> bool:
        """True from an event until the next one is asked for."""
        return self._engine.is_telling

    @property
    def _has_to_send(self) -> bool:
        return self._engine.waiting(self._now()) > 0

    def receive_eof(self) -> None:
        """The transport is gone; what came before is handed in first. Events end with `Closed`."""
        self._eof = True

    def send_failed(self) -> None:
        """The transport takes nothing more; what it has received may still be given."""
        self._engine.lost()

    def events(self) -> Iterator[Event]:
        """Yield the events that there are; what the user does in between takes effect on the next.

        The data of a `PDV` is a view of what was received: `is_last` is true where the command or
        data set ends. It may have less than the peer's PDV had, as data comes.
        """
        while (indication := self._next()) is not None:
            if indication.type == engine.REFUSED:
                continue  # its A-ASSOCIATE-RJ is in `data_to_send`
            echo = self._echo_in(indication)
            yield self._event(indication)
            if echo is not None:
                yield echo

    def _next(self) -> engine.Indication | None:
        now = self._now()
        indication = self._engine.next(now)
        if indication is None and self._eof and not self._over:
            self._engine.closed(codec.CLOSED, now)
            indication = self._engine.next(now)
        self._over = self._over or (indication is not None and indication.over)
        return indication

    def _bytes_of(self, indication: engine.Indication) -> memoryview:
        return self._view[indication.start : indication.end]

    def _echo_in(self, indication: engine.Indication) -> Echo | None:
        """The C-ECHO whose command set ends with this."""
        if indication.type != DataTransfer.type or indication.status != 0:
            return None
        if not indication.control & codec.COMMAND:
            return None
        echo = self._echoes.take(indication.control, self._bytes_of(indication))
        if echo is None:
            return None
        is_request = echo.field == engine.ECHO_REQUEST
        return Echo(indication.id, is_request, echo.message, echo.status, echo.sop_class)

    def _event(self, indication: engine.Indication) -> Event:
        if indication.over:
            return Closed(codec.name_of(indication.status), codec.text_of(indication.status))
        if indication.status != 0:
            return _fault_of(indication, protocol_of(self._first))
        if indication.type == DataTransfer.type:
            return PDV(indication.id, *flags_of(indication.control), self._bytes_of(indication))
        return decode(self._bytes_of(indication), max_associate=0, exact=self._exact)

    def send(self, what: PDU | PDV) -> None:
        """A PDU other than a P-DATA-TF, as the user; or as a `PDV` a command, a data set, or a part
        of one, of any length, which is cut into P-DATA-TF as large as the peer takes. A part may
        have an odd number of bytes; the whole may not.

        Raises `LocalError` in the wrong state, for a context that was not accepted, or where so
        much is waiting to be sent already that this has to wait; nothing has changed then. Raises
        `ValueError` for what cannot be encoded.
        """
        if isinstance(what, PDV):
            status = self._send_data(what)
            if status != 0:
                raise error_of_send_data(status, what)
            return
        pdu = encode(what)
        if pdu[0] not in SENT_AS_PDUS:
            raise TypeError("a P-DATA-TF is not sent as one: send what is in it, each as a PDV")
        self._send_bytes(pdu)

    def _send_data(self, pdv: PDV) -> int:
        """Send a `PDV`; the status: nothing has changed where it is not 0."""
        ident, data = number_of("context_id", pdv.context_id, 0xFF), view_of("data", pdv.data)
        return self._engine.send_data(ident, control_of(pdv), data, self._now())

    def _send_bytes(self, pdu: bytes) -> None:
        status = self._engine.send(pdu, self._now())
        if status != 0:
            raise error_of_send(status, f"an {PDU_NAMES[pdu[0]]}")

    def send_echo(self, context_id: int, message_id: int) -> None:
        """A C-ECHO-RQ (PS3.7 9.3.5.1)."""
        number = number_of("message_id", message_id, 0xFFFF)
        command = engine.encode_echo(engine.ECHO_REQUEST, number, VERIFICATION)
        self.send(PDV(context_id, True, True, command))

    def answer_echo(self, echo: Echo) -> None:
        """The C-ECHO-RSP to a request, with status 0, success."""
        number = number_of("message_id", one("echo", echo, Echo).message_id, 0xFFFF)
        uid = one("sop_class_uid", echo.sop_class_uid, str)
        if len(uid) > 64 or not is_like_uid(uid):
            raise ValueError(f"{uid!a} is no UID")
        command = engine.encode_echo(engine.ECHO_RESPONSE, number, uid)
        self.send(PDV(echo.context_id, True, True, command))

    def data_to_send(self) -> bytes:
        """All bytes that are to be sent; they count as sent."""
        return self._engine.take(self._now())

    def deadline(self) -> float | None:
        """When to call `handle_timeout`, on the clock; None: never."""
        deadline = self._engine.deadline()
        return deadline / 1000 if deadline else None

    def handle_timeout(self) -> None:
        """A deadline may have passed: there may be events, and bytes to send."""


def _fault_of(indication: engine.Indication, protocol: str | None) -> Fault:
    status = indication.status
    if status == codec.TIMEOUT:
        return Fault("timeout", NOT_ANSWERED, Abort(0, 0))
    abort = Abort(2, codec.abort_reason(status))
    name, text = codec.name_of(status), codec.text_of(status)
    if status == codec.BAD_PDU_TYPE and protocol is not None:
        return Fault(name, f"the peer speaks {protocol}, not DICOM", abort, protocol)
    if status > codec.ROOM:  # of a decoder
        text = f"the peer sent a PDU with {name} at byte {indication.offset}: {text}"
    return Fault(name, text, abort)


def error_of_send(status: int, what: str = "this") -> Exception:
    """The exception for what the engine did not take: `what`, in words."""
    if status == codec.MEMORY:
        return MemoryError()
    if status == codec.ROOM:
        return LocalError(f"{what} was not sent: too much is waiting for the peer to take it")
    if status == codec.TOO_LARGE:
        return LocalError(
            f"{what} cannot be sent: the peer takes no data, its maximum length is below"
            f" {LEAST_MAX_LENGTH} bytes (PS3.8 D.1)"
        )
    if status == codec.BAD_VALUE:
        return LocalError(f"{what} cannot be sent: it does not fit what was negotiated (PS3.8 7)")
    return LocalError(f"{what} cannot be sent in this state of the association (PS3.8 9.2)")


def error_of_send_data(status: int, pdv: PDV) -> Exception:
    """The same for data."""
    kind = "a command" if pdv.is_command else "a data set"
    what = f"{kind} in context {pdv.context_id}"
    if status == codec.BAD_VALUE:
        return LocalError(
            f"{what} cannot be sent: the context was not accepted, or the whole has an odd number"
            " of bytes (PS3.8 E.1)"
        )
    if status == codec.WRONG_STATE:
        return LocalError(
            f"{what} cannot be sent now: data goes in an established association, a data set after"
            " a command in the same context (PS3.8 E.1)"
        )
    return error_of_send(status, what)


# ---- what a requestor does ---------------------------------------------------------------------

Steps = Generator[bool, Event, T]
"""A service as its steps: where it yields it wants the next event, and says whether it may take the
whole time-out again; it returns what came of it."""


class Requestor:
    """The services of a requestor, for a face that moves the bytes and sleeps.

    Events that end the association are the face's to raise: they are not sent to the steps. A step
    that raises has left the association in Sta6, or ended it."""

    def __init__(self, association: Association, request: AssociateRequest) -> None:
        self.association = association
        self.request = request
        self.accept: AssociateAccept | None = None
        self._joined = bytearray()
        self._empty = 0
        """Fragments without data of the message that is joined."""
        self._messages = 0
        self._asked: set[int] = set()
        self._echo = b""

    @property
    def contexts(self) -> tuple[NegotiatedContext, ...]:
        """Every proposed context, and what became of it."""
        return negotiated(self.request, self.accept) if self.accept is not None else ()

    def open(self) -> Steps[None]:
        self.association.send(self.request)
        while not isinstance(event := (yield False), AssociateAccept):
            pass
        self.accept = event

    def echo(self) -> Steps[int]:
        self._messages = number = self._messages % 0xFFFF + 1
        context_id = context_id_of(self.contexts, VERIFICATION)
        self._asked.add(number)  # first: a signal handler may raise when it is sent
        self.association.send_echo(context_id, number)
        while True:
            event = yield False
            if isinstance(event, PDV) and event.context_id == context_id:
                self._check_echo(event)
            elif isinstance(event, Echo):
                self._asked.discard(event.message_id)
                if event.message_id == number:
                    return event.status
            elif isinstance(event, ReleaseRequest):
                self.association.send(ReleaseResponse())
                raise ConnectionClosed("the peer has released the association")

    def _check_echo(self, pdv: PDV) -> None:
        """Raises `AssociationAborted` for anything but responses to a C-ECHO that was asked for,
        even if it was given up since: PS3.4 A.4 has nothing else here."""
        self._echo += pdv.data
        if not pdv.is_command:
            self._refuse_echo("a data set")
        if len(self._echo) > MOST_ECHO:
            self._refuse_echo(f"a command set of more than {MOST_ECHO} bytes")
        if not pdv.is_last:
            return
        command, self._echo = self._echo, b""
        echo = engine.decode_echo(command)
        if echo is None:
            self._refuse_echo(f"{len(command)} bytes that are no command set of a C-ECHO")
        if echo.field != engine.ECHO_RESPONSE:
            self._refuse_echo("another C-ECHO-RQ")
        if echo.message not in self._asked:
            asked = ", ".join(map(str, sorted(self._asked)))
            self._refuse_echo(f"a C-ECHO-RSP to message {echo.message}, not {asked}")

    def _refuse_echo(self, what: str) -> NoReturn:
        abort = Abort(0, 0)
        self.association.send(abort)
        text = f"aborted by us: the peer answered a C-ECHO-RQ with {what} (PS3.7 9.3.5.2)"
        raise AssociationAborted(abort, False, text)

    def receive(self, joined: bool, limit: int) -> Steps[PDV | None]:
        brings_data = True
        while True:
            event = yield brings_data
            is_asked = self.association.state == engine.RELEASE_REQUESTED  # not aborted behind it
            if isinstance(event, ReleaseRequest) and is_asked:
                return None
            brings_data = isinstance(event, PDV) and len(event.data) > 0
            if isinstance(event, PDV):
                found = self._join(event, limit) if joined else event
                if found is not None:
                    return found

    def _join(self, pdv: PDV, limit: int) -> PDV | None:
        """The whole command or data set, when this was the last of it. A fragment without data
        counts as much as its bytes on the wire, but for the last."""
        self._empty += not pdv.data and not pdv.is_last
        if len(self._joined) + len(pdv.data) + self._empty * EMPTY_SIZE > limit:
            self._joined = bytearray()
            self.association.send(Abort(0, 0))
            raise LocalError(f"the peer has sent a message of more than {limit} bytes")
        self._joined += pdv.data
        if not pdv.is_last:
            return None
        joined, self._joined, self._empty = bytes(self._joined), bytearray(), 0
        return PDV(pdv.context_id, pdv.is_command, True, joined)

    def release(self) -> Steps[None]:
        self.association.send(ReleaseRequest())
        while not isinstance(event := (yield False), ReleaseResponse):
            if isinstance(event, ReleaseRequest):  # both at once (PS3.8 9.2.2)
                self.association.send(ReleaseResponse())


class RequestorAssociationBase:
    """The common part of the associations of requestors."""

    def __init__(
        self,
        association: Association,
        request: AssociateRequest,
        peer: tuple[str, int],
        timeout: float | None,
    ) -> None:
        self.peer = peer
        """Address and port."""
        self.timeout = timeout
        self._association = association
        self._requestor = Requestor(association, request)
        self._record: Record | None = Record(request.called_ae, request.calling_ae, peer, False)
        """Until it is over."""

    @property
    def timeout(self) -> float | None:
        """Seconds for each wait; None: for ever."""
        return self._timeout

    @timeout.setter
    def timeout(self, timeout: float | None) -> None:
        self._timeout = seconds_of("timeout", timeout)

    @property
    def request(self) -> AssociateRequest:
        """The A-ASSOCIATE-RQ that was sent."""
        return self._requestor.request

    @property
    def accept(self) -> AssociateAccept:
        """The A-ASSOCIATE-AC that was received."""
        assert self._requestor.accept is not None
        return self._requestor.accept

    @property
    def contexts(self) -> tuple[NegotiatedContext, ...]:
        """Every proposed context, and what became of it."""
        return self._requestor.contexts

    @property
    def established(self) -> bool:
        """True while data can be sent or received."""
        return self._association.established


def acknowledge(sock: Any) -> None:
    """Have the system acknowledge at once what was received, where it can: a peer that leaves
    Nagle's algorithm on holds its next small segment back until then. It does not stick."""
    if _QUICKACK is not None:
        with suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, _QUICKACK, 1)


_QUICKACK: int | None = getattr(socket, "TCP_QUICKACK", None)


def unacknowledged(sock: Any) -> int:
    """Bytes that were sent and that the peer's system has not taken; 0 where that is not known."""
    return _ask_for_size(sock, termios.TIOCOUTQ)


def unread(sock: Any) -> int:
    """Bytes that have come and that nobody has read; 0 where that is not known."""
    return _ask_for_size(sock, termios.FIONREAD)


def _ask_for_size(sock: Any, what: int) -> int:
    answer = array("i", [0])
    with suppress(OSError, ValueError):
        fcntl.ioctl(sock.fileno(), what, answer)
    return answer[0]


# ---- requests, and what they come to ----------------------------------------------------------


def request_of(
    called_ae: str,
    calling_ae: str,
    contexts: Iterable[Context],
    max_length: int,
    identity: UserIdentity | None,
    roles: Mapping[str, tuple[bool, bool]] | None,
    async_ops: tuple[int, int] | None,
    extended: Mapping[str, bytes] | None,
    common_extended: Iterable[CommonExtendedNegotiation],
    request: AssociateRequest | None,
) -> AssociateRequest:
    """The A-ASSOCIATE-RQ of a requestor: a whole one, or its parts. Raises `ValueError` for what
    PS3.8 does not allow."""
    if request is None:
        wanted = one("roles", roles or {}, Mapping, "a mapping").items()
        infos = one("extended", extended or {}, Mapping, "a mapping").items()
        information = UserInformation(
            max_length=max_length,
            implementation_class_uid=IMPLEMENTATION_CLASS_UID,
            implementation_version_name=IMPLEMENTATION_VERSION_NAME,
            async_ops=None
            if async_ops is None
            else AsyncOperations(*pair("async_ops", async_ops, "operations invoked and performed")),
            roles=tuple(
                RoleSelection(uid_of(n), index(scu), index(scp)) for n, (scu, scp) in wanted
            ),
            extended=tuple(ExtendedNegotiation(uid_of(n), info) for n, info in infos),
            common_extended=tuple(
                each("common_extended", common_extended, CommonExtendedNegotiation)
            ),
            user_identity=identity,
        )
        request = AssociateRequest(called_ae, calling_ae, propose(contexts), user_info=information)
    if not isinstance(request, AssociateRequest):
        raise TypeError(f"request is of type {type(request).__name__}, not an AssociateRequest")
    check_max_length(request.user_info.max_length if request.user_info is not None else None)
    try:
        decode(encode(request), strict=True, max_associate=0)
    except DecodeError as e:  # not at a byte, which the caller has not written
        raise ValueError(f"the request breaks PS3.8: {e.text}") from None
    return request


EVENT_SIZE = 512
"""Bytes that an event takes besides its data, about."""


def size_of(event: Event) -> int:
    """The bytes that an event counts for while it waits: there may be many empty ones, too."""
    return EVENT_SIZE + (len(event.data) if isinstance(event, PDV) else 0)


def error_of_event(event: Event) -> Error | None:
    """The exception for an event that ends an association, or None."""
    if isinstance(event, AssociateReject):
        return AssociationRejected(event)
    if isinstance(event, Abort):
        who = "user" if event.source == 0 else "provider"
        codes = f"source {event.source}, reason {event.reason}"
        return AssociationAborted(event, True, f"aborted by the peer's service {who} ({codes})")
    if isinstance(event, Fault):
        if event.kind == "timeout":
            return AssociationTimeout(event.text)
        text = f"aborted by us: {event.text}"
        return AssociationAborted(event.abort, False, text, event.protocol)
    if isinstance(event, Closed):
        return ConnectionClosed(f"the connection has ended: {event.text}")
    return None


def deadline_of(timeout: float | None) -> float | None:
    return None if timeout is None else time.monotonic() + timeout


def left_of(deadline: float | None) -> float | None:
    return None if deadline is None else max(0.0, deadline - time.monotonic())


def check_connect(
    host: str, port: int, local: tuple[str, int] | None, timeout: float | None
) -> float | None:
    """The time-out, None where it is for ever. Raises `ValueError` for what no connection can be
    made with."""
    check_address(host, port)
    if local is not None:
        check_address(*pair("local_address", local, HOST_AND_PORT))
    if port == 0:
        raise ValueError("port is 0, not 1 to 65535")
    return seconds_of("timeout", timeout)


def check_address(host: str, port: int) -> None:
    """Raises `ValueError` for a host with a port in it, and for a port that is none."""
    one("host", host, str)
    if host.count(":") == 1 or "]:" in host:
        raise ValueError(f"host is {host!a}: its port is an argument of its own")
    number_of("port", port, 0xFFFF)


def failure(address: tuple[str, int], e: OSError | ValueError) -> ConnectionFailed:
    why = "no answer in time" if isinstance(e, TimeoutError) else getattr(e, "strerror", None) or e
    error = ConnectionFailed(f"no connection to {address[0]} port {address[1]}: {why}")
    error.__cause__ = e
    return error


def end_of_tls(error: Error, alert: Exception | None, established: bool) -> Error:
    """The exception where TLS has ended a connection: its alert is the cause."""
    if alert is None or not isinstance(error, ConnectionClosed):
        return error
    why = getattr(alert, "reason", None) or str(alert)
    text = f"the connection has ended by TLS: {str(why).replace('_', ' ').lower()}"
    told = ConnectionClosed(text) if established else ConnectionFailed(f"no association: {text}")
    told.__cause__ = alert
    return told


Security: TypeAlias = tuple[ssl.SSLContext, str]
"""And the name that the peer's certificate must be for."""


def security_of(
    context: ssl.SSLContext | None, host: str, server_hostname: str | None
) -> Security | None:
    """TLS for a requestor. Raises `ValueError` for a server's context, and for a name that is none;
    a host that is none is told by whoever looks it up."""
    if context is None:
        return None
    if server_hostname is not None:
        one("server_hostname", server_hostname, str)
    check_tls(context, "localhost" if server_hostname is None else _name_of(server_hostname))
    return context, _name_of(host if server_hostname is None else server_hostname)


def _name_of(host: str) -> str:
    """The host without what only a resolver wants."""
    return host.strip("[]").partition("%")[0].removesuffix(".")


Sendable: TypeAlias = Buffer | BinaryIO | Iterable[Buffer]
"""A command or data set: bytes, a file that is read to its end, or pieces of any size."""


class Parts:
    """Pieces of any size into parts of `size` bytes at most, with the last one known."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._held = bytearray()
        """What no part has been made of yet: `size` bytes at most."""

    def feed(self, data: Buffer) -> Iterator[memoryview]:
        """The parts that are not the last."""
        piece = view_of("data", data)
        if len(self._held) + len(piece) <= self._size:
            self._held += piece
            return
        whole = memoryview(b"".join((self._held, piece))) if self._held else piece
        at = 0
        while len(whole) - at > self._size:
            yield whole[at : at + self._size]
            at += self._size
        self._held = bytearray(whole[at:])

    def end(self) -> bytes:
        """The last part."""
        if len(self._held) % 2:
            raise ValueError(ODD)
        return bytes(self._held)


def part_size(pdu: bytes) -> int:
    """Bytes of data to give to the engine at once, for the peer that has sent this A-ASSOCIATE-RQ
    or -AC."""
    return part_size_for(engine.max_length_of(pdu))


def part_size_for(most: int) -> int:
    """The same for a peer with this maximum length, or with none (0): they take about a millisecond
    at most, however small its PDUs have to be."""
    return min(PART, PART_PDUS * (max(most, 8) - 6 & ~1)) if most else PART


def parts_of(data: Sendable, size: int = PART) -> Iterator[tuple[bool, bytes | memoryview]]:
    """Cut what is to be sent into parts of `size` bytes, each with whether it is the last."""
    parts = Parts(size)
    for piece in pieces_of(data):
        for part in parts.feed(piece):
            yield False, part
    yield True, parts.end()


def pieces_of(data: Sendable) -> Iterable[Buffer]:
    """Iterate over what is to be sent, piece by piece."""
    if isinstance(data, (bytes, bytearray, memoryview)):
        whole = memoryview(data)
        if whole.nbytes % 2:
            raise ValueError(ODD)
        return (whole,)
    read = getattr(data, "read", None)
    if read is not None:
        return iter(lambda: read(PART), b"")
    if isinstance(data, (str, Mapping)) or not hasattr(data, "__iter__") or _is_data_set(data):
        kind = type(data).__name__
        raise TypeError(f"data is of type {kind}: no bytes, no binary file, no iterable of bytes")
    return data


def _is_data_set(data: object) -> bool:
    """pydicom's iterate over elements, of which there may be none."""
    return hasattr(data, "file_meta") or hasattr(data, "to_json")


def titles_of(request: bytes) -> tuple[str, str]:
    """Called and calling title of an A-ASSOCIATE-RQ, as the admission takes them."""
    fields = request[10:26], request[26:42]
    called, calling = (field.lstrip(b" ").rstrip(b"\0 ").replace(b"\0", b"?") for field in fields)
    return called.decode("latin-1"), calling.decode("latin-1")


class ServedAssociationBase:
    """The common part of the associations of servers, as a handler and `on_request` see it."""

    def __init__(self, request: bytes, accept: bytes, peer: tuple[str, int]) -> None:
        self._request, self._accept = request, accept
        self._decoded: AssociateAccept | None = None
        self._contexts: tuple[NegotiatedContext, ...] | None = None
        self.peer = peer
        """Address and port of the requestor."""
        self.peer_certificate: dict[str, Any] | None = None
        """The certificate that the requestor showed, as `ssl.SSLSocket.getpeercert` gives it; None
        without TLS, or where none was asked for."""
        self.user_data: Any = None
        """Whatever the handler wants to keep with it."""

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


FAILED_DECISION = AssociateReject(2, 1, 1)
"""Answers a request whose decision in Python failed: a retry may work."""
BUSY = AssociateReject(2, 3, 1)
"""Answers a request while a server closes, and one too many for `on_request`."""


def answer_of(decision: object, association: ServedAssociationBase) -> bytes:
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
                f"context {answer.id} is accepted with {_shown(answer.transfer_syntax)}, which was"
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
            what = f"extended negotiation of {_shown(item.sop_class_uid)}"
            raise ValueError(f"{what} was not proposed")
    wanted = asked.user_identity is not None and asked.user_identity.response_requested
    if told.user_identity_response is not None and not wanted:
        raise ValueError("a user identity response was not asked for")


def _check_roles(asked: UserInformation, told: UserInformation) -> None:
    proposed = {role.sop_class_uid: role for role in asked.roles}
    for role in told.roles:
        known = proposed.get(role.sop_class_uid)
        if known is None or (role.scu and not known.scu) or (role.scp and not known.scp):
            what = f"a role of {_shown(role.sop_class_uid)}"
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
