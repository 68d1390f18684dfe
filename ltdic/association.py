"""One association without its transport: bytes and time in, events and bytes out."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from ._arguments import copy_of, number_of, one, view_of, wrong_type
from ._codec import control_of, decode, encode, flags_of
from ._first_bytes import FIRST, protocol_of
from ._native import codec, engine, service
from ._native.codec import Buffer
from ._rules import PDU_NAMES
from ._times import seconds_of
from .admission import (
    LEAST_MAX_LENGTH,
    VERIFICATION,
    uid_of,
)
from .errors import (
    LocalError,
)
from .pdu import (
    PDU,
    PDV,
    Abort,
    AssociateAccept,
    AssociateRequest,
    DataTransfer,
    is_like_uid,
)

DEFAULT_TIMEOUT = 30.0
DEFAULT_IDLE = 600.0
SENT_AS_PDUS = frozenset(PDU_NAMES) - {DataTransfer.type}
"""PDU types; data is cut into P-DATA-TF by the engine."""
# ---- sentences of errors that several faces raise ------------------------------------------------

NOT_ANSWERED = "the peer has not answered in time"
OVER = "the association is over"

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


def shown(uid: object) -> str:
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
    accepted = ", ".join(shown(found.abstract_syntax) for found in contexts if found.accepted)
    raise LocalError(f"no context of {shown(context)} was accepted, only {accepted or 'none'}")


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
            return fault_of(indication.status, indication.offset, protocol_of(self._first))
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


def fault_of(status: int, offset: int, protocol: str | None) -> Fault:
    """The event for a fault of the peer; `offset` is the place of the field in its PDU."""
    if status == codec.TIMEOUT:
        return Fault("timeout", NOT_ANSWERED, Abort(0, 0))
    abort = Abort(2, codec.abort_reason(status))
    name, text = codec.name_of(status), codec.text_of(status)
    if status == codec.BAD_PDU_TYPE and protocol is not None:
        return Fault(name, f"the peer speaks {protocol}, not DICOM", abort, protocol)
    if status > codec.ROOM:  # of a decoder
        text = f"the peer sent a PDU with {name} at byte {offset}: {text}"
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


def deadline_of(timeout: float | None) -> float | None:
    return None if timeout is None else time.monotonic() + timeout


def left_of(deadline: float | None) -> float | None:
    return None if deadline is None else max(0.0, deadline - time.monotonic())
