"""The admission, and the server that serves many associations with it."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple

from .._ffi import ffi, lib
from .._rules import TITLE, UID
from . import codec, engine, net, transport
from .codec import Buffer, bytes_of
from .loop import BatchLoop, Call


def _utf8(secret: str) -> bytes:
    """Raises `ValueError` without the text, which a `UnicodeEncodeError` would have with it."""
    with suppress(UnicodeEncodeError):
        return secret.encode()
    raise ValueError("identity: a text that UTF-8 cannot encode")


class EchoReader:
    """`ltdic_echo_reader`: finds the C-ECHO in what one association receives."""

    def __init__(self) -> None:
        self._reader = ffi.gc(ffi.new("ltdic_echo_reader *"), lib.ltdic_echo_reader_clear)
        self._piece = ffi.new("ltdic_piece *", {"last": 1})
        self._echo = ffi.new("ltdic_echo *")

    def take(self, control: int, data: Buffer) -> engine.EchoCommand | None:
        """Look at the next data; the echo whose command set ends with it. `control` says that it
        is the last where the command set ends."""
        with ffi.from_buffer(data) as raw:
            self._piece.control, self._piece.data = control, (raw, len(raw))
            status = lib.ltdic_echo_reader_take(self._reader, self._echo, self._piece)
        if status == codec.MEMORY:
            raise MemoryError
        return engine.echo_command(self._echo) if status == 0 else None


class Answer(NamedTuple):
    """`ltdic_answer`: why not, or the AC."""

    refusal: tuple[int, int, int] | None
    accept: bytes
    place: Any
    """For `Policy.leave`."""

    @property
    def verification(self) -> frozenset[int]:
        """IDs of the contexts that propose Verification, where the request is let in."""
        bits, ids = int.from_bytes(ffi.buffer(self.place.verification), "little"), []
        while bits:
            ids.append(bits.bit_length() - 1)
            bits ^= 1 << ids[-1]
        return frozenset(ids)


class Policy:
    """`ltdic_admission`."""

    def __init__(self) -> None:
        self.pointer = ffi.gc(lib.ltdic_admission_new(), lib.ltdic_admission_free)
        if self.pointer == ffi.NULL:
            raise MemoryError
        self._loops: list[int] = []
        """The number of each loop that uses it."""
        self._room = ffi.new("uint8_t[]", lib.LTDIC_ACCEPT_ROOM)

    def _add(self, function: Any, what: str, *values: Any) -> None:
        status = function(self.pointer, *values)
        if status == codec.MEMORY:
            raise MemoryError
        if status != 0:
            raise ValueError(what)

    def add_called(self, title: str) -> None:
        what = f"called is {title!a}: an AE title has {TITLE}"
        self._add(lib.ltdic_admission_add_called, what, _c_text(title))

    def add_calling(self, title: str) -> None:
        what = f"calling is {title!a}: an AE title has {TITLE}"
        self._add(lib.ltdic_admission_add_calling, what, _c_text(title))

    def add_context(self, abstract_syntax: str, transfer_syntaxes: Iterable[str]) -> None:
        what = f"abstract syntax is {abstract_syntax!a}: a UID has {UID}"
        self._add(lib.ltdic_admission_add_context, what, _c_text(abstract_syntax))
        for uid in transfer_syntaxes:
            what = f"transfer syntax of {abstract_syntax!a} is {uid!a}: a UID has {UID}"
            self._add(lib.ltdic_admission_add_transfer, what, _c_text(uid))

    def accept_any(self) -> None:
        lib.ltdic_admission_accept_any(self.pointer)

    def add_identity(self, name: str, passcode: str | None) -> None:
        secret = (ffi.NULL, 0) if passcode is None else bytes_of(_utf8(passcode))
        self._add(lib.ltdic_admission_add_identity, "identity", bytes_of(_utf8(name)), secret)

    def set_limits(
        self, together: int, calling: int, host: int, beyond: tuple[int, int, int]
    ) -> None:
        size = ffi.sizeof("ltdic_limits")
        limits = ffi.new("ltdic_limits *", (size, together, calling, host, beyond))
        lib.ltdic_admission_set_limits(self.pointer, limits)

    def limit_calling(self, title: str, most: int) -> None:
        what = f"max_per_calling names {title!a}: an AE title has {TITLE}"
        self._add(lib.ltdic_admission_limit_calling, what, _c_text(title), most)

    def freed_after(self, free: Callable[[Any], None], freed: list[Any]) -> Callable[[Any], None]:
        """A destructor of a loop that uses it. The last one frees both, since the order of two is
        not known where both are garbage at once. It fills `freed`, for who is garbage with
        them and looks at them later."""
        pointer, null, free_admission = self.pointer, ffi.NULL, lib.ltdic_admission_free
        loops = self._loops
        loops.append(len(loops))
        ffi.gc(pointer, None)

        def destructor(user: Any) -> None:
            """It may run when the interpreter ends, and has cleared this module."""
            freed.extend(map(free, [user]))
            if loops.pop() == 0:
                self.pointer = null
                free_admission(pointer)

        return destructor

    def taking_rules(self, other: Policy) -> Call:
        """Prepare to take the rules of `other`; places that are taken stay taken."""
        take = lib.ltdic_admission_take_rules
        return Call(take, self.pointer, other.pointer, keep=other)

    def set_max_length(self, max_length: int) -> None:
        lib.ltdic_admission_set_max_length(self.pointer, max_length)

    def set_least_max_length(self, least: int) -> None:
        lib.ltdic_admission_set_least_max_length(self.pointer, least)

    @property
    def max_associate(self) -> int:
        """The largest PDU length of an A-ASSOCIATE-RQ that is looked at."""
        return int(lib.ltdic_admission_max_associate(self.pointer))

    def set_max_associate(self, most: int) -> None:
        lib.ltdic_admission_set_max_associate(self.pointer, most)

    def judge(self, request: bytes, host: str) -> Answer:
        answer = ffi.new("ltdic_answer *")
        accept = ffi.new("ltdic_buffer *", (self._room, len(self._room), 0))
        rq, who = bytes_of(request), bytes_of(host.encode())
        lib.ltdic_admission_judge(self.pointer, answer, accept, rq, who)
        r = answer.refusal
        if r.result:
            return Answer((r.result, r.source, r.reason), b"", answer)
        return Answer(None, bytes(ffi.buffer(self._room, accept.size)), answer)

    def leave(self, place: Any) -> None:
        lib.ltdic_admission_leave(self.pointer, place)


def _c_text(text: str) -> bytes:
    """The text for C. A NUL, at which C would stop, becomes another character that is illegal."""
    return text.replace("\0", "\n").encode("utf-8", "surrogateescape")


WANT_REQUESTS: int = lib.LTDIC_WANT_REQUESTS
WANT_DATA: int = lib.LTDIC_WANT_DATA
WANT_ENDS: int = lib.LTDIC_WANT_ENDS
WANT_VERIFICATION: int = lib.LTDIC_WANT_VERIFICATION

SERVED_REQUEST: int = lib.LTDIC_SERVED_REQUEST
SERVED_ACCEPTED: int = lib.LTDIC_SERVED_ACCEPTED
SERVED_DATA: int = lib.LTDIC_SERVED_DATA
SERVED_ENDED: int = lib.LTDIC_SERVED_ENDED
SERVED_ROOM: int = lib.LTDIC_SERVED_ROOM

HOLD_END: int = lib.LTDIC_HOLD_END
HOLD_DATA: int = lib.LTDIC_HOLD_DATA
HOLD_BROKEN: int = lib.LTDIC_HOLD_BROKEN

PHASE_ASKING: int = lib.LTDIC_PHASE_ASKING
PHASE_OPEN: int = lib.LTDIC_PHASE_OPEN

OUTCOME_REJECTED: int = lib.LTDIC_OUTCOME_REJECTED
OUTCOME_RELEASED: int = lib.LTDIC_OUTCOME_RELEASED
OUTCOME_ABORTED: int = lib.LTDIC_OUTCOME_ABORTED
OUTCOME_TIMED_OUT: int = lib.LTDIC_OUTCOME_TIMED_OUT
OUTCOME_LOST: int = lib.LTDIC_OUTCOME_LOST
OUTCOME_NO_REQUEST: int = lib.LTDIC_OUTCOME_NO_REQUEST
OUTCOME_FAULT: int = lib.LTDIC_OUTCOME_FAULT
OUTCOME_TLS_FAILED: int = lib.LTDIC_OUTCOME_TLS_FAILED


class Report(NamedTuple):
    """`ltdic_report`."""

    outcome: int
    status: int
    codes: tuple[int, int, int]
    called: str
    calling: str
    host: str
    port: int
    seconds: float
    received: int
    sent: int
    offset: int
    first: bytes


class ServedEvent(NamedTuple):
    """An `ltdic_event_row` and its bytes, read-only; `place` is its place in the batch."""

    place: int
    served: int
    kind: int
    id: int
    control: int
    data: memoryview
    report: Report | None


def _text(array: Any) -> str:
    return str(ffi.string(array).decode("latin-1"))


def _host(array: Any) -> str:
    """The address; a listener for both families has IPv4 mapped into IPv6."""
    return _text(array).removeprefix("::ffff:")


def _report(r: Any) -> Report:
    return Report(
        r.outcome,
        r.status,
        (r.codes.result, r.codes.source, r.codes.reason),
        _text(r.called),
        _text(r.calling),
        _host(r.host),
        r.port,
        r.milliseconds / 1000,
        r.received,
        r.sent,
        r.offset,
        bytes(ffi.buffer(r.first, r.first_size)),
    )


class ServerLoop(BatchLoop[ServedEvent]):
    """`ltdic_server`. `wake`, `phase` and `counters` may be called from any thread, and in a signal
    handler, also when it has been freed.

    An association is a number here, which is harmless when it has ended."""

    def __init__(self, policy: Policy, timeout: float | None, idle: float | None) -> None:
        self._policy = policy  # as long as C may use it
        self.is_abandoned = False
        super().__init__(partial(policy.freed_after, lib.ltdic_loop_free))  # with its server
        self._server = lib.ltdic_server_new(self._loop, policy.pointer)
        if self._server == ffi.NULL:
            raise MemoryError
        lib.ltdic_server_set_timeouts(self._server, engine.timeouts(timeout, timeout, idle))
        self.runs = 0
        """Batches so far."""
        self.reports = True
        """Does anybody want them?"""
        self._counted: Any = None
        self._maker: transport.Maker | None = None

    def secure(self, make: Callable[[], transport.Transport]) -> None:
        """Use a transport for each connection, which this function makes."""
        self._maker = transport.Maker(self._transports, make)
        lib.ltdic_server_set_transport(
            self._server,
            transport.TABLE,
            lib.transport_make,
            transport.pointer_of(self._maker.number),
        )

    def transport(self, served: int) -> transport.Transport | None:
        """That of an association that has not ended, or whose end is in this batch."""
        return self._transports.served.get(served)

    def listen(self, host: str, port: int) -> None:
        """`""` and `"*"` are all addresses, of both families. Raises `OSError`."""
        everywhere = host in ("", "*")
        family = lib.LTDIC_IP_BOTH if everywhere else lib.LTDIC_IP_ANY
        try:
            address, _room = net.address_of("*" if everywhere else host, port, family)
        except UnicodeError as e:
            raise socket.gaierror(socket.EAI_NONAME, f"{host!a} is no name of a host") from e
        status = lib.ltdic_server_listen(self._server, address, 0)
        if status != 0:
            raise net.error_of_cause(status, lib.ltdic_server_cause(self._server))

    def listen_on(self, descriptor: int) -> None:
        """`ltdic_server_listen_on`. Raises `OSError`."""
        status = lib.ltdic_server_listen_on(self._server, descriptor)
        if status != 0:
            raise net.error_of_cause(status, lib.ltdic_server_cause(self._server))

    def share(self, other: ServerLoop) -> None:
        """`ltdic_server_share`. Raises `OSError`."""
        status = lib.ltdic_server_share(self._server, other._server)
        if status != 0:
            raise net.error_of_cause(status, lib.ltdic_server_cause(self._server))

    def lack(self) -> tuple[int, int]:
        """How often connections had to wait since none could be accepted, and the error of the
        system for which they had to the last time."""
        times = lib.ltdic_server_lacks(self._server)
        return times, int(lib.ltdic_server_cause(self._server).error) if times else 0

    @property
    def is_empty(self) -> bool:
        """True while no association is open."""
        return self.is_freed or lib.ltdic_server_counters(self._server).open == 0

    def limit_connections(self, most: int) -> None:
        lib.ltdic_server_limit_connections(self._server, most)

    def name(self) -> tuple[str, int]:
        host, port = ffi.new("uint8_t[]", 64), ffi.new("uint16_t *")
        out = ffi.new("ltdic_buffer *", (host, len(host), 0))
        lib.ltdic_server_name(self._server, out, port)
        return bytes(ffi.buffer(host, out.size)).decode(), int(port[0])

    @property
    def is_freed(self) -> bool:
        return self._server is None or bool(self._freed)

    def run(self, wanted: int, most: int) -> int:
        """`ltdic_server_run`; `most` in milliseconds. The GIL is released while it serves. All
        events must have been taken; those of a run that a signal's exception has ended are there,
        too."""
        self._begin()
        self.runs += 1
        status = int(lib.ltdic_server_run(self._server, self._batch, wanted, most))
        self._transports.raise_kept()
        return status

    def _memory(self) -> tuple[Any, Any, Any]:
        return lib.ltdic_server_take_data, lib.ltdic_server_use_data, self._server

    def _event(self, place: int, row: Any, data: memoryview) -> ServedEvent:
        kind, served = row.kind, row.served
        report = self._report(served) if kind == SERVED_ENDED and self.reports else None
        part = data[row.offset : row.offset + row.length]
        return ServedEvent(place, served, kind, row.id, row.control, part, report)

    def _report(self, served: int) -> Report | None:
        report = lib.ltdic_served_report(self._server, served)
        return _report(report) if report else None

    def close(self, most: int) -> None:
        lib.ltdic_server_close(self._server, most)

    def free(self) -> None:
        """Free it now. Where the interpreter ends, and has cleared this module, that is left to the
        destructor."""
        if ffi is None:
            return
        with self._lock:
            self.counters()  # which stay
            server, self._server = self._server, None
            if server is not None and not self._freed:
                ffi.release(self._loop)
                self._transports.clear()

    def peer(self, served: int) -> tuple[str, int]:
        r = lib.ltdic_served_report(self._server, served)
        return _host(r.host), int(r.port)

    def taken_by(self, served: int) -> int:
        """Bytes that its peer has taken. On the thread that serves."""
        return int(lib.ltdic_served_taken(self._server, served))

    def phase(self, served: int) -> int:
        """`PHASE_...`; another one where it is over."""
        with self._lock:
            return 0 if self.is_freed else int(lib.ltdic_served_phase(self._server, served))

    def hold(self, served: int, held: int) -> None:
        """`ltdic_served_hold`."""
        lib.ltdic_served_hold(self._server, served, held)

    def sending(self, served: int, pdu: bytes) -> Call:
        """`ltdic_served_send`."""
        return Call(lib.ltdic_served_send, self._server, served, bytes_of(pdu), keep=pdu)

    def sending_data(self, served: int, context_id: int, control: int, data: Buffer) -> Call:
        """`ltdic_served_send_data`."""
        address, size, owner = engine.lent(data)
        pdv = ffi.new("ltdic_pdv *", (context_id, control, (address, size)))
        return Call(lib.ltdic_served_send_data, self._server, served, pdv, keep=owner)

    def abandon(self) -> None:
        """Neither use it nor free it any more."""
        self.counters()  # which stay
        ffi.gc(self._loop, None)
        self._server, self.is_abandoned = None, True

    def counters(self) -> tuple[dict[str, int], dict[tuple[int, int, int], int]]:
        """By name, and by result, source, reason of what was rejected."""
        with self._lock:
            if self._counted is None:
                self._counted = ffi.new("ltdic_counters *")
            if not self.is_freed:
                self._counted = ffi.new("ltdic_counters *")
                self._counted[0] = lib.ltdic_server_counters(self._server)[0]
            c = self._counted
        rejected = {
            (result + 1, source + 1, reason): int(c.rejected[result][source][reason])
            for result in range(2)
            for source in range(3)
            for reason in range(8)
            if c.rejected[result][source][reason]
        }
        return {name: int(getattr(c, name)) for name in _COUNTED}, rejected


_COUNTED = (
    *("connections", "no_request", "faults", "tls_failures", "unaccepted"),
    *("accepted", "open", "released", "aborted", "timed_out", "lost"),
)
