"""The common part of both requestors: what they ask for, their services, and what they raise."""

from __future__ import annotations

import ssl
from collections.abc import Generator, Iterable, Mapping
from functools import cached_property, lru_cache
from operator import index
from typing import Any, NamedTuple, NoReturn, TypeAlias, TypeVar

from ._arguments import HOST_AND_PORT, check_address, each, one, pair
from ._codec import control_of, decode, encode, error_of, flags_of
from ._first_bytes import protocol_of
from ._native import codec, engine, net, requestor
from ._native.requestor import Link, RequestedEvent, RequestorLoop
from ._native.transport import Wire
from ._rules import PDU_NAMES
from ._times import seconds_of
from .admission import VERIFICATION, Context, check_max_length, propose, uid_of
from .association import (
    OVER,
    Closed,
    Fault,
    NegotiatedContext,
    error_of_send,
    error_of_send_data,
    fault_of,
    negotiated,
)
from .counters import Record
from .errors import (
    AssociationAborted,
    AssociationRejected,
    AssociationTimeout,
    ConnectionClosed,
    ConnectionFailed,
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
    ExtendedNegotiation,
    ReleaseRequest,
    ReleaseResponse,
    RoleSelection,
    UserIdentity,
    UserInformation,
)
from .tls import TlsTransport, check_tls

SHORTEST = 1e-3
"""Seconds: what is left of a time-out when there is nothing left."""
CLOSING_TIME = 2.0
"""Seconds that a peer is given to close after an A-ABORT, which a close of ours could destroy."""
LATE_CLOSING_TIME = 0.1
"""The same where the time of the call is up already."""
LATE_LOOKS = 8
"""Times that a step looks after its deadline at what had come before it: 256 KiB each."""
MOST_HELD = 0x100000
"""Bytes of data that wait for whoever receives them; with more, reading stops."""
WAS_ABORTED = f"{OVER}: it was aborted"
IN_USE = "another thread uses the association"

# ---- what comes ----------------------------------------------------------------------------------


class Accepted(NamedTuple):
    """The A-ASSOCIATE-AC, as it came."""

    pdu: bytes


class Failed(NamedTuple):
    """There is no connection."""

    error: ConnectionFailed


Event: TypeAlias = PDU | PDV | Accepted | Failed | Fault | Closed

EVENT_SIZE = 512
"""Bytes that an event takes besides its data, about."""


def size_of(event: Event) -> int:
    """The bytes that an event counts for while it waits: there may be many empty ones, too."""
    return EVENT_SIZE + (len(event.data) if isinstance(event, PDV) else 0)


def error_of_event(event: Event) -> Error | None:
    """The exception for an event that ends an association, or None."""
    if isinstance(event, Failed):
        return event.error
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


# ---- the services --------------------------------------------------------------------------------

T = TypeVar("T")

EMPTY_SIZE = 12
"""Bytes on the wire of a P-DATA-TF whose PDV has no data."""
MOST_ECHO = 1024
"""Bytes of a command set that may be a C-ECHO."""

Steps = Generator[bool, Event, T]
"""A service as its steps: where it yields it wants the next event, and says whether it may take the
whole time-out again; it returns what came of it."""


class Requestor:
    """The services of a requestor, for a face that waits.

    Events that end the association are the face's to raise: they are not sent to the steps. A step
    that raises has left the association in Sta6, or ended it."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._joined = bytearray()
        self._empty = 0
        """Fragments without data of the message that is joined."""
        self._messages = 0
        self._asked: set[int] = set()
        self._echo = b""

    def send(self, pdu: PDU) -> None:
        """Send a PDU other than a P-DATA-TF. Raises `LocalError` in the wrong state."""
        status = self._link.send(encode(pdu))
        if status != 0:
            raise error_of_send(status, f"an {PDU_NAMES[pdu.type]}")

    def open(self) -> Steps[bytes]:
        """Return the A-ASSOCIATE-AC."""
        while not isinstance(event := (yield False), Accepted):
            pass
        return event.pdu

    def echo(self, context_id: int) -> Steps[int]:
        self._messages = number = self._messages % 0xFFFF + 1
        self._asked.add(number)  # first: a signal handler may raise when it is sent
        command = engine.encode_echo(engine.ECHO_REQUEST, number, VERIFICATION)
        self._send_echo(PDV(context_id, True, True, command))
        while True:
            event = yield False
            if isinstance(event, PDV) and event.context_id == context_id:
                echo = self._take_echo(event)
                if echo is not None and echo.message == number:
                    return echo.status
            elif isinstance(event, ReleaseRequest):
                self.send(ReleaseResponse())
                raise ConnectionClosed("the peer has released the association")

    def _send_echo(self, pdv: PDV) -> None:
        status = self._link.send_data(pdv.context_id, control_of(pdv), pdv.data)
        if status != 0:
            raise error_of_send_data(status, pdv)

    def _take_echo(self, pdv: PDV) -> engine.EchoCommand | None:
        """The C-ECHO-RSP that ends with this. Raises `AssociationAborted` for anything but
        responses to a C-ECHO that was asked for, even if it was given up since: PS3.4 A.4 has
        nothing else here."""
        self._echo += pdv.data
        if not pdv.is_command:
            self._refuse_echo("a data set")
        if len(self._echo) > MOST_ECHO:
            self._refuse_echo(f"a command set of more than {MOST_ECHO} bytes")
        if not pdv.is_last:
            return None
        command, self._echo = self._echo, b""
        echo = engine.decode_echo(command)
        if echo is None:
            self._refuse_echo(f"{len(command)} bytes that are no command set of a C-ECHO")
        if echo.field != engine.ECHO_RESPONSE:
            self._refuse_echo("another C-ECHO-RQ")
        if echo.message not in self._asked:
            asked = ", ".join(map(str, sorted(self._asked)))
            self._refuse_echo(f"a C-ECHO-RSP to message {echo.message}, not {asked}")
        self._asked.discard(echo.message)
        return echo

    def _refuse_echo(self, what: str) -> NoReturn:
        abort = Abort(0, 0)
        self._link.send(encode(abort))
        text = f"aborted by us: the peer answered a C-ECHO-RQ with {what} (PS3.7 9.3.5.2)"
        raise AssociationAborted(abort, False, text)

    def receive(self, joined: bool, limit: int) -> Steps[PDV | None]:
        brings_data = True
        while True:
            event = yield brings_data
            is_asked = self._link.state == engine.RELEASE_REQUESTED  # not aborted behind it
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
            self.send(Abort(0, 0))
            raise LocalError(f"the peer has sent a message of more than {limit} bytes")
        self._joined += pdv.data
        if not pdv.is_last:
            return None
        joined, self._joined, self._empty = bytes(self._joined), bytearray(), 0
        return PDV(pdv.context_id, pdv.is_command, True, joined)

    def release(self) -> Steps[None]:
        self.send(ReleaseRequest())
        while not isinstance(event := (yield False), ReleaseResponse):
            if isinstance(event, ReleaseRequest):  # both at once (PS3.8 9.2.2)
                self.send(ReleaseResponse())


# ---- the association -----------------------------------------------------------------------------


Security: TypeAlias = tuple[ssl.SSLContext, str]
"""And the name that the peer's certificate must be for."""


class Request(NamedTuple):
    """What is to be opened, and where."""

    pdu: AssociateRequest
    wire: bytes
    address: tuple[str, int]
    local: tuple[str, int] | None
    security: Security | None


class RequestorAssociationBase:
    """The common part of the associations of requestors."""

    def __init__(self, loop: RequestorLoop, wanted: Request, timeout: float | None) -> None:
        self.peer: tuple[str, int] = "unknown", 0
        """Address and port."""
        self._accepted = b""
        """The A-ASSOCIATE-AC."""
        self.timeout = timeout
        self._wanted = wanted
        self._loop = loop
        self._link = Link(loop)
        self._secured: TlsTransport | None = None
        self._requestor = Requestor(self._link)
        self._holds = False
        """Is C told to read no more?"""
        self._received = 0
        """Bytes of the PDUs that have come."""
        self._record: Record | None = None
        """From the connection on, until it is over."""

    @property
    def timeout(self) -> float | None:
        """Seconds for each wait; None: for ever."""
        return self._timeout

    @timeout.setter
    def timeout(self, timeout: float | None) -> None:
        self._timeout = seconds_of("timeout", timeout)
        if self._accepted:
            self._link.set_timeouts(self._timeout)

    @property
    def request(self) -> AssociateRequest:
        """The A-ASSOCIATE-RQ that was sent."""
        return self._wanted.pdu

    @cached_property
    def accept(self) -> AssociateAccept:
        """The A-ASSOCIATE-AC that was received."""
        pdu = decode(self._accepted, max_associate=0)
        assert isinstance(pdu, AssociateAccept)
        return pdu

    @cached_property
    def contexts(self) -> tuple[NegotiatedContext, ...]:
        """Every proposed context, and what became of it."""
        return negotiated(self.request, self.accept)

    @property
    def established(self) -> bool:
        """True while data can be sent or received."""
        return engine.is_established(self._link.state)

    # ---- how it is done

    def _begin(self, lookup: net.Lookup, left: float | None) -> None:
        """Begin to connect, and give C the request. Raises `ConnectionFailed`."""
        if self._wanted.security is not None:
            self._secured = TlsTransport(*self._wanted.security, Wire())
            self._link.secure(self._secured)
        self._link.set_timeouts(None if left is None else max(left, SHORTEST))
        try:
            self._link.connect(lookup)
        except OSError as e:
            raise failure(self._wanted.address, e) from e
        self._link.set_timeouts(None)  # the caller's deadline is enough
        self._link.send(self._wanted.wire)

    def _take(self, event: RequestedEvent, batch: int) -> Event | None:
        """What has come; None where it is for nobody. The data of a `PDV` keeps no more than twice
        its bytes of the memory of a batch."""
        self._received += event.wire
        kind, data = event.kind, event.data
        if kind == requestor.DATA:
            part = bytes(data) if 2 * len(data) < batch else data
            return PDV(event.id, *flags_of(event.control), part)
        if kind == requestor.PDU:
            return Accepted(bytes(data)) if data[0] == AssociateAccept.type else _decoded(data)
        if kind == requestor.FAULT:
            protocol = None if self._accepted else protocol_of(bytes(data))
            return fault_of(event.status, event.place, protocol)
        if kind == requestor.CLOSED:
            return Closed(codec.name_of(event.status), codec.text_of(event.status))
        if kind == requestor.FAILED:
            return Failed(self._failure(event.status))
        if kind == requestor.CONNECTED:
            self.peer = str(data, "ascii").removeprefix("::ffff:"), event.place
            titles = self.request.called_ae, self.request.calling_ae
            self._record = Record(*titles, self.peer, False)
        return None

    def _failure(self, status: int) -> ConnectionFailed:
        """Why there is no connection: TCP, or TLS."""
        error = self._link.error_of(status)
        if self._secured is not None and isinstance(error, OSError) and not error.errno:
            error = self._secured.error or ConnectionResetError(
                "the peer has closed the connection in the handshake"
            )
        return failure(self._wanted.address, error)

    def _error_of(self, event: Event) -> Error | None:
        """The exception for an event that ends the association, or None."""
        if isinstance(event, Closed) and self._secured is not None and self._secured.error:
            return end_of_tls(self._secured.error, bool(self._accepted))
        return error_of_event(event)

    def _hold(self, holds: bool) -> None:
        """Have C read no more, or more again."""
        if holds != self._holds:
            self._holds = holds
            self._link.hold(holds)

    def _send_abort(self) -> None:
        self._link.send(_ABORT)


_ABORT = encode(Abort(0, 0))


def _decoded(data: memoryview) -> PDU:
    return decode(data, max_associate=0)


# ---- requests, and what they come to ----------------------------------------------------------


def wanted_of(
    host: str,
    port: int,
    called_ae: str,
    calling_ae: str,
    contexts: Iterable[Context],
    max_length: int,
    tls: ssl.SSLContext | None,
    server_hostname: str | None,
    local_address: tuple[str, int] | None,
    identity: UserIdentity | None,
    roles: Mapping[str, tuple[bool, bool]] | None,
    async_ops: tuple[int, int] | None,
    extended: Mapping[str, bytes] | None,
    common_extended: Iterable[CommonExtendedNegotiation],
    request: AssociateRequest | None,
) -> Request:
    """What `connect` was asked for. Raises `TypeError`, and `ValueError` for what PS3.8 does not
    allow, or what no connection can be made with."""
    check_address(host, port)
    if local_address is not None:
        check_address(*pair("local_address", local_address, HOST_AND_PORT))
    if port == 0:
        raise ValueError("port is 0, not 1 to 65535")
    negotiation = identity, roles, async_ops, extended, common_extended
    if request is not None:
        pdu, wire = _checked(request)
    elif any(negotiation) or (
        (plain := _plain(called_ae, calling_ae, contexts, max_length)) is None
    ):
        information = _information_of(max_length, *negotiation)
        pdu, wire = _checked(
            AssociateRequest(called_ae, calling_ae, propose(contexts), user_info=information)
        )
    else:
        pdu, wire = _plain_request(*plain)
    security = security_of(tls, host, server_hostname)
    return Request(pdu, wire, (host, port), local_address, security)


def _checked(request: AssociateRequest) -> tuple[AssociateRequest, bytes]:
    """A request, and its bytes. Raises where PS3.8 does not allow it."""
    if not isinstance(request, AssociateRequest):
        raise TypeError(f"request is of type {type(request).__name__}, not an AssociateRequest")
    check_max_length(request.user_info.max_length if request.user_info is not None else None)
    wire = encode(request)
    fault, _ = codec.decode(wire, 0, codec.options(True, 0, 0))
    if fault is not None:  # not at a byte, which the caller has not written
        raise ValueError(f"the request breaks PS3.8: {error_of(*fault, wire).text}")
    return request, wire


def _plain(called: object, calling: object, contexts: object, most: object) -> Any:
    """The same arguments in a form that can be compared; None where they are of other types, or may
    be another thing the next time."""
    if not (type(called) is type(calling) is str and type(most) is int):
        return None
    if not isinstance(contexts, (list, tuple)):
        return None
    compared: list[Any] = []
    for context in contexts:
        if type(context) is str:
            compared.append(context)
        elif type(context) in (list, tuple) and len(context) == 2:
            compared.append((context[0], *_texts(context[1])))
        else:
            return None
    are_texts = all(type(part) is str for each in compared for part in each)
    return (called, calling, tuple(compared), most) if are_texts else None


def _texts(values: object) -> tuple[object, ...]:
    """The values of a list; None among them where it is no list."""
    return tuple(values) if isinstance(values, (list, tuple)) else (None,)


@lru_cache(maxsize=64)
def _plain_request(
    called: str, calling: str, contexts: tuple[str | tuple[str, ...], ...], max_length: int
) -> tuple[AssociateRequest, bytes]:
    """Most requests of a program are the same; to make one takes as long as to send it."""
    information = _information_of(max_length, None, None, None, None, ())
    proposed = propose(
        [each if isinstance(each, str) else (each[0], each[1:]) for each in contexts]
    )
    return _checked(AssociateRequest(called, calling, proposed, user_info=information))


def _information_of(
    max_length: int,
    identity: UserIdentity | None,
    roles: Mapping[str, tuple[bool, bool]] | None,
    async_ops: tuple[int, int] | None,
    extended: Mapping[str, bytes] | None,
    common_extended: Iterable[CommonExtendedNegotiation],
) -> UserInformation:
    wanted = one("roles", roles or {}, Mapping, "a mapping").items()
    infos = one("extended", extended or {}, Mapping, "a mapping").items()
    return UserInformation(
        max_length=max_length,
        implementation_class_uid=codec.CLASS_UID_OF_LTDIC,
        implementation_version_name=f"LTDIC_{codec.VERSION}",
        async_ops=None
        if async_ops is None
        else AsyncOperations(*pair("async_ops", async_ops, "operations invoked and performed")),
        roles=tuple(RoleSelection(uid_of(n), index(scu), index(scp)) for n, (scu, scp) in wanted),
        extended=tuple(ExtendedNegotiation(uid_of(n), info) for n, info in infos),
        common_extended=tuple(each("common_extended", common_extended, CommonExtendedNegotiation)),
        user_identity=identity,
    )


def failure(address: tuple[str, int], e: Exception) -> ConnectionFailed:
    why = "no answer in time" if isinstance(e, TimeoutError) else getattr(e, "strerror", None) or e
    error = ConnectionFailed(f"no connection to {address[0]} port {address[1]}: {why}")
    error.__cause__ = e
    return error


def end_of_tls(alert: Exception, established: bool) -> Error:
    """The exception where TLS has ended a connection: its alert is the cause."""
    why = getattr(alert, "reason", None) or str(alert)
    text = f"the connection has ended by TLS: {str(why).replace('_', ' ').lower()}"
    told = ConnectionClosed(text) if established else ConnectionFailed(f"no association: {text}")
    told.__cause__ = alert
    return told


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
