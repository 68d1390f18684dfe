"""The C library as the rest of the package sees it. No cdata leaves this module."""

from __future__ import annotations

import os
import socket
import struct
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import lru_cache
from typing import Any, NamedTuple

from ._arguments import view_of
from ._ffi import ffi, lib
from ._rules import TITLE, UID

Buffer = bytes | bytearray | memoryview

# The kinds of a row: `ltdic_kind`.
PDU: int = lib.LTDIC_PDU
CALLED_AE: int = lib.LTDIC_CALLED_AE
CALLING_AE: int = lib.LTDIC_CALLING_AE
APPLICATION_CONTEXT: int = lib.LTDIC_APPLICATION_CONTEXT
CONTEXT: int = lib.LTDIC_CONTEXT
ABSTRACT_SYNTAX: int = lib.LTDIC_ABSTRACT_SYNTAX
TRANSFER_SYNTAX: int = lib.LTDIC_TRANSFER_SYNTAX
USER_INFORMATION: int = lib.LTDIC_USER_INFORMATION
MAX_LENGTH: int = lib.LTDIC_MAX_LENGTH
CLASS_UID: int = lib.LTDIC_CLASS_UID
ASYNC_OPERATIONS: int = lib.LTDIC_ASYNC_OPERATIONS
ROLE: int = lib.LTDIC_ROLE
VERSION_NAME: int = lib.LTDIC_VERSION_NAME
EXTENDED: int = lib.LTDIC_EXTENDED
EXTENDED_INFO: int = lib.LTDIC_EXTENDED_INFO
COMMON_EXTENDED: int = lib.LTDIC_COMMON_EXTENDED
COMMON_SERVICE: int = lib.LTDIC_COMMON_SERVICE
COMMON_RELATED: int = lib.LTDIC_COMMON_RELATED
USER_IDENTITY: int = lib.LTDIC_USER_IDENTITY
USER_IDENTITY_SECOND: int = lib.LTDIC_USER_IDENTITY_SECOND
USER_IDENTITY_RESPONSE: int = lib.LTDIC_USER_IDENTITY_RESPONSE
UNKNOWN_ITEM: int = lib.LTDIC_UNKNOWN_ITEM
UNKNOWN_SUB_ITEM: int = lib.LTDIC_UNKNOWN_SUB_ITEM
PDV: int = lib.LTDIC_PDV
HEADER: int = lib.LTDIC_HEADER
IGNORED: int = lib.LTDIC_IGNORED

NEED_MORE: int = lib.LTDIC_NEED_MORE
BAD_PDU_TYPE: int = lib.LTDIC_ERR_BAD_PDU_TYPE
BAD_VALUE: int = lib.LTDIC_ERR_BAD_VALUE
TOO_LARGE: int = lib.LTDIC_ERR_TOO_LARGE
WRONG_STATE: int = lib.LTDIC_ERR_WRONG_STATE
CONGESTION: int = lib.LTDIC_ERR_CONGESTION
MAX_UNFINISHED: int = lib.LTDIC_MAX_UNFINISHED
ROOM: int = lib.LTDIC_ERR_ROOM
TRAILING_BYTES: int = lib.LTDIC_ERR_TRAILING_BYTES

VERSION: str = ffi.string(lib.ltdic_version()).decode()
CLASS_UID_OF_LTDIC: str = ffi.string(lib.ltdic_class_uid()).decode()

# One `ltdic_item`: offset, length, kind, type, id, result, source, reason, version.
ROW = struct.Struct("=IIBBBBBBH")
Row = tuple[int, int, int, int, int, int, int, int, int]


class Fault(NamedTuple):
    """`ltdic_fault`."""

    status: int
    offset: int
    need: int


def name_of(status: int) -> str:
    return str(ffi.string(lib.ltdic_status_name(status)).decode())


def text_of(status: int) -> str:
    return str(ffi.string(lib.ltdic_status_text(status)).decode())


def is_fault(status: int) -> bool:
    """Is it about what the peer sent, and not about the connection or us?"""
    return int(lib.LTDIC_ERR_ADDRESS) < status < 0


def is_defined(result: int, source: int, reason: int) -> bool:
    """Is it one of the combinations of PS3.8 table 9-21?"""
    codes = result, source, reason
    return all(0 <= code <= 0xFF for code in codes) and bool(lib.ltdic_reject_is_defined(codes))


def abort_reason(status: int) -> int:
    return int(lib.ltdic_abort_reason(status))


@lru_cache(maxsize=64)
def options(strict: bool, max_pdata: int, max_associate: int, exact: bool = False) -> Any:
    """An `ltdic_options`, which C only reads, so that everyone may share it."""
    for name, value in (("max_pdata", max_pdata), ("max_associate", max_associate)):
        if not 0 <= value <= 0xFFFFFFFF:
            raise ValueError(f"{name} is {value}, not 0 to 4294967295")
    size = ffi.sizeof("ltdic_options")
    return ffi.new("ltdic_options *", (size, max_pdata, max_associate, strict, exact))


class _Scratch:
    """Room for the rows of one call. Too little of it is made larger."""

    MOST = 4096
    """Rows that are kept room for: an RQ of 128 contexts has about 700."""

    def __init__(self) -> None:
        self.fault = ffi.new("ltdic_fault *")
        self.items = ffi.new("ltdic_items *")
        self.reserve(64)

    def reserve(self, room: int) -> None:
        self._rows = ffi.new("ltdic_item[]", room)
        self._packed = memoryview(ffi.buffer(self._rows))
        self.room = room
        self.items.items, self.items.room = self._rows, room

    def rows(self) -> list[Row]:
        return list(ROW.iter_unpack(self._packed[: self.items.count * ROW.size]))


# Taken and given back by one bytecode each, so that threads do not share one.
_scratches: list[_Scratch] = []


def decode(data: Buffer, start: int, limits: Any) -> tuple[Fault | None, list[Row]]:
    """`ltdic_decode` on `data[start:]`; the rows, up to a fault, count from `start`."""
    try:
        scratch = _scratches.pop()
    except IndexError:
        scratch = _Scratch()
    with ffi.from_buffer(data) as raw:
        bytes_in = (raw + start if start else raw, len(raw) - start)
        status = lib.ltdic_decode(scratch.items, bytes_in, limits, scratch.fault)
        if status == ROOM:
            scratch.reserve(scratch.items.count)
            status = lib.ltdic_decode(scratch.items, bytes_in, limits, scratch.fault)
    rows = scratch.rows()
    fault = Fault(status, scratch.fault.offset, scratch.fault.need) if status != 0 else None
    if scratch.room <= _Scratch.MOST:
        _scratches.append(scratch)
    return fault, rows


def decode_rejects(data: Buffer) -> tuple[Fault, memoryview]:
    """`ltdic_decode_rejects`: what it says, and the rows before that."""
    fault, out = ffi.new("ltdic_fault *"), ffi.new("ltdic_buffer *")
    with ffi.from_buffer(view_of("data", data)) as raw:
        rows = bytearray(3 * (len(raw) // 10 + 1))  # one too many: no view is made of none
        with ffi.from_buffer(rows) as room:
            out.data, out.room = room, len(rows)
            status = lib.ltdic_decode_rejects(out, (raw, len(raw)), fault)
    view = memoryview(rows).toreadonly().cast("B", (len(rows) // 3, 3))
    return Fault(status, fault.offset, fault.need), view[: out.size // 3]


class Piece(NamedTuple):
    """`ltdic_piece`: bytes `start` to `end` of the input are its data."""

    start: int
    end: int
    type: int
    id: int
    control: int
    first: bool
    last: bool
    pdu_ends: bool


class Stream:
    """`ltdic_stream`, with its out-parameters made once."""

    def __init__(self, limits: Any) -> None:
        self._limits = limits
        self._stream = ffi.new("ltdic_stream *")
        self._piece = ffi.new("ltdic_piece *")
        self._in = ffi.new("ltdic_bytes *")
        self._fault = ffi.new("ltdic_fault *")

    @property
    def inside(self) -> bool:
        """True in the middle of a P-DATA-TF."""
        return bool(self._stream.offset)

    def next(self, data: Buffer, start: int) -> tuple[Fault, int, Piece | None]:
        """`ltdic_stream_next` on `data[start:]`: what it says, where it stopped, and the piece."""
        piece = self._piece
        with ffi.from_buffer(data) as raw:
            left = self._in
            left.data, left.size = raw + start, len(raw) - start
            status = lib.ltdic_stream_next(self._stream, piece, left, self._limits, self._fault)
            at = len(raw) - left.size
            fault = Fault(status, self._fault.offset, self._fault.need)
            if status != 0:
                return fault, at, None
            codes = piece.type, piece.id, piece.control
            flags = bool(piece.first), bool(piece.last), bool(piece.end)
            return fault, at, Piece(at - piece.data.size, at, *codes, *flags)


def encode(rows: list[Row], values: bytes) -> tuple[bytes, Fault]:
    """`ltdic_encode`; a fault's offset is the number of the row."""
    fault, count = ffi.new("ltdic_fault *"), len(rows)
    packed = b"".join([ROW.pack(*row) for row in rows])
    with ffi.from_buffer("ltdic_item[]", packed) as raw:
        items = ffi.new("ltdic_items *", (ffi.cast("ltdic_item *", raw), count, count))
        # No PDU is larger than its values, a header for each and the fixed fields.
        room = len(values) + 16 * count + 80
        data = ffi.new("uint8_t[]", room)
        out = ffi.new("ltdic_buffer *", (data, room, 0))
        status = lib.ltdic_encode(out, items, (ffi.from_buffer(values), len(values)), fault)
    return bytes(ffi.buffer(data, out.size if status == 0 else 0)), Fault(status, fault.offset, 0)


# ---- associations ----------------------------------------------------------------------------

MEMORY: int = lib.LTDIC_ERR_MEMORY
TIMEOUT: int = lib.LTDIC_ERR_TIMEOUT
CLOSED: int = lib.LTDIC_ERR_CLOSED
ABORTED: int = lib.LTDIC_ERR_ABORTED

_RECEIVED: int = lib.LTDIC_RECEIVED
_SENT: int = lib.LTDIC_SENT
_REFUSED: int = lib.LTDIC_REFUSED
FOREVER = 0xFFFFFFFF
"""Milliseconds that stand for ever: 49 days."""


def milliseconds(seconds: float | None) -> int:
    """As C counts them: 1 to `FOREVER`, which None is, too."""
    return FOREVER if seconds is None else max(1, min(int(seconds * 1000), FOREVER))


def _timeouts(artim: float | None, response: float | None, idle: float | None) -> Any:
    """In C, 0 is ever but for ARTIM, where it is the default."""
    others = (0 if seconds is None else milliseconds(seconds) for seconds in (response, idle))
    return ffi.new("ltdic_timeouts *", (ffi.sizeof("ltdic_timeouts"), milliseconds(artim), *others))


class Echo(NamedTuple):
    """`ltdic_echo`."""

    field: int
    message: int
    status: int
    sop_class: str


def encode_echo(field: int, message: int, sop_class: str) -> bytes:
    """The command set of a C-ECHO; of a response, with status 0: success."""
    data = ffi.new("uint8_t[]", lib.LTDIC_ECHO_ROOM)
    out = ffi.new("ltdic_buffer *", (data, len(data), 0))
    echo = ffi.new("ltdic_echo *", (field, message, 0, sop_class.encode()))
    if lib.ltdic_encode_echo(out, echo) != 0:
        raise ValueError(f"{sop_class!r} is no UID")
    return bytes(ffi.buffer(data, out.size))


def _echo(told: Any) -> Echo:
    sop_class = ffi.string(told.sop_class).decode("latin-1")
    return Echo(told.field, told.message, told.status, sop_class)


def decode_echo(command: bytes) -> Echo | None:
    """`ltdic_decode_echo`; None where it is no command set of a C-ECHO."""
    echo = ffi.new("ltdic_echo *")
    return _echo(echo) if lib.ltdic_decode_echo(echo, _bytes_of(command)) == 0 else None


def announces_data_set(command: Buffer) -> bool:
    """`ltdic_announces_data_set`; False where it cannot be read."""
    with ffi.from_buffer(command) as raw:
        return bool(lib.ltdic_announces_data_set((raw, len(raw))) == 1)


def max_length_of(pdu: Buffer) -> int:
    """`ltdic_max_length_of`"""
    with ffi.from_buffer(pdu) as raw:
        return int(lib.ltdic_max_length_of((raw, len(raw))))


ECHO_REQUEST: int = lib.LTDIC_C_ECHO_RQ
ECHO_RESPONSE: int = lib.LTDIC_C_ECHO_RSP


class Told(NamedTuple):
    """An `ltdic_indication` of what was received, or of the end; bytes `start` to `end` of the
    input are the PDU, or the data of a P-DATA-TF."""

    over: bool
    status: int
    type: int
    start: int
    end: int
    id: int
    control: int
    echo: Echo | None
    offset: int
    """Of the field at fault, from the first byte of its PDU."""


class Engine:
    """`ltdic_association`, with what it has received and not used yet."""

    def __init__(self) -> None:
        self._association = ffi.gc(lib.ltdic_association_new(), lib.ltdic_association_free)
        if self._association == ffi.NULL:
            raise MemoryError
        self._indication = ffi.new("ltdic_indication *")
        self._in = ffi.new("ltdic_bytes *")
        self.inbox = b""
        self._pieces: list[bytes] = []
        """What has come of a PDU besides the inbox, while it is not whole."""
        self._in_pieces = 0
        """Bytes of them."""
        self._missing = 0
        """Bytes of that PDU that have not come."""
        self._raw: Any = None
        self._base: Any = None
        self._owner: Any = None

    def accepted(self, now: int) -> None:
        """The transport of an acceptor is there."""
        lib.ltdic_association_opened(self._association, lib.LTDIC_EVT_ACCEPTED, now)

    def set_timeouts(self, artim: float | None, response: float | None, idle: float | None) -> None:
        lib.ltdic_association_set_timeouts(self._association, _timeouts(artim, response, idle))

    @property
    def state(self) -> int:
        return int(lib.ltdic_association_state(self._association))

    def limit_associate(self, most: int) -> None:
        lib.ltdic_association_limit_associate(self._association, most)

    def fail(self, status: int, now: int) -> None:
        lib.ltdic_association_fail(self._association, status, now)

    @property
    def unused(self) -> int:
        """Bytes that were received and not used yet."""
        return int(self._in.size) + self._in_pieces

    @property
    def expects_more(self) -> bool:
        return bool(lib.ltdic_association_expects_more(self._association))

    def deadline(self) -> int:
        return int(lib.ltdic_association_deadline(self._association))

    @property
    def unfinished(self) -> int:
        """Bytes of a PDU that is not whole, other than a P-DATA-TF."""
        return self.unused if self._missing else 0

    def receive(self, data: bytes) -> None:
        """Small pieces of a large PDU are joined once, when it is whole."""
        if len(data) < self._missing:
            self._missing -= len(data)
            self._in_pieces += len(data)
            self._pieces.append(data)
            return
        left = int(self._in.size)
        pieces = [self.inbox[len(self.inbox) - left :], *self._pieces, data]
        self._use(b"".join(pieces) if left else data)

    def drop_used(self) -> None:
        """Keep nothing of what has been used; who still needs it has views of it."""
        if self.inbox and not self._in.size:
            self._use(b"")

    def _use(self, inbox: bytes) -> None:
        self.inbox, self._pieces, self._in_pieces, self._missing = inbox, [], 0, 0
        self._raw = ffi.from_buffer(self.inbox)
        self._in.data, self._in.size = self._raw, len(self.inbox)
        self._base = self._in.data

    def closed(self, status: int, now: int) -> None:
        lib.ltdic_association_closed(self._association, status, now)

    def lost(self) -> None:
        lib.ltdic_association_lost(self._association)

    def next(self, now: int) -> Told | None:
        """`ltdic_association_next`; what was sent is not told."""
        told = self._indication
        while lib.ltdic_association_next(self._association, told, self._in, now) == 0:
            kind = told.kind
            if kind == _RECEIVED:
                return self._received(told)
            if kind not in (_SENT, _REFUSED):
                return Told(True, told.status, 0, 0, 0, 0, 0, None, told.offset)
        self._find_missing()
        return None

    def _find_missing(self) -> None:
        """What is left may be a PDU that is of use only when it is whole."""
        if not self._pieces:
            size = int(lib.ltdic_association_needs(self._association, self._in[0]))
            self._missing = max(0, size - int(self._in.size))

    def _received(self, told: Any) -> Told:
        status, kind, echo = told.status, told.type, None
        what = told.pdu if kind != 4 or status else told.piece.data
        start = int(what.data - self._base) if what.size else 0
        piece = told.piece
        if told.echo.field:
            echo = _echo(told.echo)
        end = start + what.size
        return Told(False, status, kind, start, end, piece.id, piece.control, echo, told.offset)

    def send(self, pdu: bytes, now: int) -> int:
        status = int(lib.ltdic_association_send(self._association, _bytes_of(pdu), now))
        if status == 0 and pdu[0] == 1:  # the transport is there already
            lib.ltdic_association_opened(self._association, lib.LTDIC_EVT_CONNECTED, now)
        return status

    def send_data(self, context_id: int, control: int, data: Buffer, now: int) -> int:
        address, size, owner = _lent(data)
        pdv = ffi.new("ltdic_pdv *", (context_id, control, (address, size)))
        status = int(lib.ltdic_association_send_data(self._association, pdv, now))
        if status == 0:
            self._owner = owner  # until it has been taken
        return status

    def take(self, now: int) -> bytes:
        """All that is to be sent."""
        out = ffi.new("ltdic_buffer *")
        size = lib.ltdic_association_take(self._association, out, now)
        if not size:
            return b""
        room = _take_room(size)
        out.data, out.room = room, len(room)
        lib.ltdic_association_take(self._association, out, now)
        self._owner = None
        data = bytes(ffi.buffer(room, out.size))
        _rooms.append(room)
        return data


# Memory to take into, used again: what is new is cleared first, and the system has to find it.
_rooms: list[Any] = []
_new_room = ffi.new_allocator(should_clear_after_alloc=False)


def _take_room(size: int) -> Any:
    try:
        room = _rooms.pop()
    except IndexError:
        room = None
    return room if room is not None and len(room) >= size else _new_room("uint8_t[]", size)


def _lent(data: Buffer) -> tuple[Any, int, bytes]:
    """Bytes for C to keep: address, size, and what has to live as long. They are those of a `bytes`
    object, a copy where somebody else could change them. Python crashes where its collector finds a
    view of memory, of which cffi has another view, in a cycle."""
    owner = data.obj if isinstance(data, memoryview) else data
    if not isinstance(owner, bytes):
        data = owner = bytes(data)
    with ffi.from_buffer(data) as raw:
        return ffi.cast("uint8_t *", ffi.cast("uintptr_t", raw)), len(raw), owner


def _bytes_of(data: bytes) -> tuple[Any, int]:
    raw = ffi.from_buffer(data if type(data) is bytes else bytes(data))
    return raw, len(raw)  # of the buffer: a class may say another length


def _utf8(secret: str) -> bytes:
    """Raises `ValueError` without the text, which a `UnicodeEncodeError` would have with it."""
    with suppress(UnicodeEncodeError):
        return secret.encode()
    raise ValueError("identity: a text that UTF-8 cannot encode")


# ---- admission -------------------------------------------------------------------------------


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
        self._room = ffi.new("uint8_t[]", lib.LTDIC_ACCEPT_ROOM)

    def _add(self, function: Any, what: str, *values: Any) -> None:
        status = function(self.pointer, *values)
        if status == MEMORY:
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
        secret = (ffi.NULL, 0) if passcode is None else _bytes_of(_utf8(passcode))
        self._add(lib.ltdic_admission_add_identity, "identity", _bytes_of(_utf8(name)), secret)

    def set_limits(
        self, together: int, calling: int, host: int, beyond: tuple[int, int, int]
    ) -> None:
        size = ffi.sizeof("ltdic_limits")
        limits = ffi.new("ltdic_limits *", (size, together, calling, host, beyond))
        lib.ltdic_admission_set_limits(self.pointer, limits)

    def limit_calling(self, title: str, most: int) -> None:
        what = f"max_per_calling names {title!a}: an AE title has {TITLE}"
        self._add(lib.ltdic_admission_limit_calling, what, _c_text(title), most)

    def freed_after(self, free: Callable[[Any], None]) -> Callable[[Any], None]:
        """A destructor of what uses it: one for both, since the order of two is not known where
        both are garbage at once."""
        pointer = self.pointer
        ffi.gc(pointer, None)

        def destructor(user: Any) -> None:
            free(user)
            self.pointer = ffi.NULL
            lib.ltdic_admission_free(pointer)

        return destructor

    def taking_rules(self, other: Policy) -> Call:
        """What is in `other` holds here; places that are taken stay taken."""
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
        rq, who = _bytes_of(request), _bytes_of(host.encode())
        lib.ltdic_admission_judge(self.pointer, answer, accept, rq, who)
        r = answer.refusal
        if r.result:
            return Answer((r.result, r.source, r.reason), b"", answer)
        return Answer(None, bytes(ffi.buffer(self._room, accept.size)), answer)

    def leave(self, place: Any) -> None:
        lib.ltdic_admission_leave(self.pointer, place)


def _c_text(text: str) -> bytes:
    """A NUL, at which C would stop, is as illegal as this."""
    return text.replace("\0", "\n").encode("utf-8", "surrogateescape")


# ---- server ----------------------------------------------------------------------------------

WANT_REQUESTS: int = lib.LTDIC_WANT_REQUESTS
WANT_DATA: int = lib.LTDIC_WANT_DATA
WANT_ENDS: int = lib.LTDIC_WANT_ENDS
WANT_VERIFICATION: int = lib.LTDIC_WANT_VERIFICATION

SERVED_REQUEST: int = lib.LTDIC_SERVED_REQUEST
SERVED_ACCEPTED: int = lib.LTDIC_SERVED_ACCEPTED
SERVED_DATA: int = lib.LTDIC_SERVED_DATA
SERVED_ENDED: int = lib.LTDIC_SERVED_ENDED
SERVED_ROOM: int = lib.LTDIC_SERVED_ROOM

PHASE_ASKING: int = lib.LTDIC_PHASE_ASKING
PHASE_OPEN: int = lib.LTDIC_PHASE_OPEN

OUTCOME_REJECTED: int = lib.LTDIC_OUTCOME_REJECTED
OUTCOME_RELEASED: int = lib.LTDIC_OUTCOME_RELEASED
OUTCOME_ABORTED: int = lib.LTDIC_OUTCOME_ABORTED
OUTCOME_TIMED_OUT: int = lib.LTDIC_OUTCOME_TIMED_OUT
OUTCOME_LOST: int = lib.LTDIC_OUTCOME_LOST
OUTCOME_NO_REQUEST: int = lib.LTDIC_OUTCOME_NO_REQUEST
OUTCOME_FAULT: int = lib.LTDIC_OUTCOME_FAULT


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
    """Of a listener for both families IPv4 comes mapped into IPv6."""
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


class Call:
    """A call of a C function that is made once, however often `make` is interrupted by what a
    signal handler raises: no bytecode lies between the call and the keeping of its result."""

    def __init__(self, function: Any, *arguments: Any, keep: Any = None) -> None:
        """`keep` is what has to live as long as the arguments."""
        self._function = function
        self._arguments = [(argument,) for argument in arguments]
        self._keep = keep
        self._results: list[Any] = []

    def make(self) -> Any:
        """What the function has returned."""
        if not self._results:
            self._results.extend(map(self._function, *self._arguments))
        return self._results[0]

    def forget(self) -> None:
        """It is to be made again."""
        self._results.clear()


SMALL = 16384
"""Bytes of a batch that are rather copied than kept."""


class ServerLoop:
    """`ltdic_server`. `wake`, `phase` and `counters` may be called from any thread, and in a signal
    handler, also when it has been freed.

    An association is a number here, which is harmless when it has ended."""

    def __init__(self, policy: Policy, timeout: float | None, idle: float | None) -> None:
        self._policy = policy  # as long as C may use it
        self._lock = threading.RLock()  # a signal handler may interrupt whoever has it
        self.is_abandoned = False
        server = lib.ltdic_server_new(policy.pointer)
        if server == ffi.NULL:
            raise MemoryError("no memory or no descriptors")
        self._server = ffi.gc(server, policy.freed_after(lib.ltdic_server_free))
        lib.ltdic_server_set_timeouts(self._server, _timeouts(timeout, timeout, idle))
        self._batch = ffi.new("ltdic_batch *")
        self.taken = 0
        """Events of the batch that have been dealt with."""
        self._data: memoryview | None = None
        self._owned: list[Any] = []
        self.reports = True
        """Does anybody want them?"""
        self._counted: Any = None

    def listen(self, host: str, port: int) -> None:
        """`""` and `"*"` are all addresses, of both families. Raises `OSError`."""
        everywhere = host in ("", "*")
        family = lib.LTDIC_IP_BOTH if everywhere else lib.LTDIC_IP_ANY
        address, _room = _address("*" if everywhere else host, port, family)
        status = lib.ltdic_server_listen(self._server, address, 0)
        if status != 0:
            raise error_of_cause(status, lib.ltdic_server_cause(self._server))

    def limit_connections(self, most: int) -> None:
        lib.ltdic_server_limit_connections(self._server, most)

    def name(self) -> tuple[str, int]:
        host, port = ffi.new("uint8_t[]", 64), ffi.new("uint16_t *")
        out = ffi.new("ltdic_buffer *", (host, len(host), 0))
        lib.ltdic_server_name(self._server, out, port)
        return bytes(ffi.buffer(host, out.size)).decode(), int(port[0])

    @property
    def is_freed(self) -> bool:
        return self._server is None

    def run(self, wanted: int, most: int) -> int:
        """`ltdic_server_run`; `most` in milliseconds. The GIL is released while it serves. All
        events must have been taken; those of a run that a signal's exception has ended are there,
        too."""
        self._batch.count = 0  # first: what has been taken is never taken again
        self.taken = 0
        self._data, self._owned = None, []
        return int(lib.ltdic_server_run(self._server, self._batch, wanted, most))

    def _batch_data(self) -> memoryview:
        """A copy of what is small; else the memory itself, for as long as somebody has a view."""
        last = self._batch.events[self._batch.count - 1]
        size = last.offset + last.length
        if size < SMALL:
            return memoryview(bytes(ffi.buffer(self._batch.data, size)) if size else b"")
        if not self._owned:  # as in `Call`
            taken = map(lib.ltdic_server_take_data, [self._server])
            self._owned.extend(map(ffi.gc, taken, [lib.ltdic_free_data], [size]))
        return memoryview(ffi.buffer(self._owned[0], size)).toreadonly()

    def events(self) -> Iterator[ServedEvent]:
        """The events that have not been taken. One counts as taken when the next is asked for."""
        batch = self._batch
        while self.taken < batch.count:
            if self._data is None:
                self._data = self._batch_data()
            place = self.taken
            yield self._event(place, batch.events[place], self._data)
            self.taken = place + 1

    def _event(self, place: int, row: Any, data: memoryview) -> ServedEvent:
        kind, served = row.kind, row.served
        report = self._report(served) if kind == SERVED_ENDED and self.reports else None
        part = data[row.offset : row.offset + row.length]
        return ServedEvent(place, served, kind, row.id, row.control, part, report)

    def _report(self, served: int) -> Report | None:
        report = lib.ltdic_served_report(self._server, served)
        return _report(report) if report else None

    def wake(self) -> None:
        with self._lock:
            if self._server is not None:
                lib.ltdic_server_wake(self._server)

    def close(self, most: int) -> None:
        lib.ltdic_server_close(self._server, most)

    def free(self) -> None:
        with self._lock:
            self.counters()  # which stay
            server, self._server = self._server, None
            if server is not None:
                ffi.release(server)

    def peer(self, served: int) -> tuple[str, int]:
        r = lib.ltdic_served_report(self._server, served)
        return _host(r.host), int(r.port)

    def taken_by(self, served: int) -> int:
        """Bytes that its peer has taken. On the thread that serves."""
        return int(lib.ltdic_served_taken(self._server, served))

    def phase(self, served: int) -> int:
        """`PHASE_...`; another one where it is over."""
        with self._lock:
            return 0 if self._server is None else int(lib.ltdic_served_phase(self._server, served))

    def sending(self, served: int, pdu: bytes) -> Call:
        """`ltdic_served_send`."""
        return Call(lib.ltdic_served_send, self._server, served, _bytes_of(pdu), keep=pdu)

    def sending_data(self, served: int, context_id: int, control: int, data: Buffer) -> Call:
        """`ltdic_served_send_data`."""
        address, size, owner = _lent(data)
        pdv = ffi.new("ltdic_pdv *", (context_id, control, (address, size)))
        return Call(lib.ltdic_served_send_data, self._server, served, pdv, keep=owner)

    def renew_lock(self) -> None:
        """In a child process: whoever had it may be a thread of the parent."""
        self._lock = threading.RLock()

    def abandon(self) -> None:
        """Neither use it nor free it any more."""
        self.counters()  # which stay
        ffi.gc(self._server, None)
        self._server, self.is_abandoned = None, True

    def counters(self) -> tuple[dict[str, int], dict[tuple[int, int, int], int]]:
        """By name, and by result, source, reason of what was rejected."""
        with self._lock:
            if self._server is not None:
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
    *("connections", "no_request", "faults", "unaccepted"),
    *("accepted", "open", "released", "aborted", "timed_out", "lost"),
)


# ---- connecting ------------------------------------------------------------------------------


def encoded_host(host: str) -> bytes:
    """As the resolver is asked for it. A NUL, at which C would stop, is as illegal as this."""
    text = host.replace("\0", "\n")
    return text.encode() if text.isascii() else text.encode("idna")


def _address(host: str, port: int, family: int) -> tuple[Any, Any]:
    """An `ltdic_address`, and what has to live as long."""
    text = ffi.new("char[]", encoded_host(host))
    return ffi.new("ltdic_address *", (text, port, family)), text


def error_of_cause(status: int, cause: Any) -> Exception:
    """What the system said, as Python has it."""
    if status == MEMORY:
        return MemoryError()
    if cause.resolver:
        text = ffi.string(lib.ltdic_resolver_text(cause.resolver)).decode(errors="replace")
        return socket.gaierror(cause.resolver, text)
    error = int(cause.error)
    return OSError(error, os.strerror(error)) if error else OSError(text_of(status))


class Dialer:
    """An `ltdic_net` that connects, on a loop of its own. `cancel` may be called from any
    thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop = lib.ltdic_loop_new()
        self._net = lib.ltdic_net_new(self._loop, ffi.NULL) if self._loop else ffi.NULL
        self._cancelled = False
        if not self._net:
            self.free()
            raise OSError(ffi.errno, os.strerror(ffi.errno))

    def begin(
        self, address: tuple[str, int], local: tuple[str, int] | None, timeout: float | None
    ) -> None:
        """Look the host up, and begin to connect. `""` is any address of this end. Raises
        `OSError`."""
        lib.ltdic_net_set_timeouts(self._net, _timeouts(None, timeout, None))
        peer, _room = _address(*address, lib.LTDIC_IP_ANY)
        own, _more = ffi.NULL, None
        if local is not None:
            own, _more = _address(local[0] or "*", local[1], lib.LTDIC_IP_ANY)
        status = lib.ltdic_net_connect(self._net, peer, own)
        if status != 0:
            raise error_of_cause(status, lib.ltdic_net_cause(self._net))

    def wait(self, most: int) -> int | None:
        """The descriptor of the connection; None where so many milliseconds, or a signal, or
        `cancel` came first. Raises `OSError`."""
        lib.ltdic_loop_wait(self._loop, most)
        net, told = ffi.new("ltdic_net **"), ffi.new("ltdic_indication *")
        if lib.ltdic_loop_next(self._loop, net, told) != 0:
            return None
        lib.ltdic_net_done(self._net)
        if told.status != 0:
            raise error_of_cause(told.status, lib.ltdic_net_cause(self._net))
        return int(lib.ltdic_net_detach(self._net))

    def run(self, address: tuple[str, int], local: Any, timeout: float | None) -> int:
        """`begin`, and wait to the end. -1 where it was cancelled."""
        self.begin(address, local, timeout)
        return self.finish()

    def finish(self) -> int:
        found = None
        while found is None and not self._cancelled:
            found = self.wait(60_000)
        return -1 if found is None else found

    def cancel(self) -> None:
        with self._lock:
            self._cancelled = True
            if self._loop:
                lib.ltdic_loop_wake(self._loop)

    def free(self) -> None:
        with self._lock:
            loop, self._loop = self._loop, ffi.NULL
        if loop:
            lib.ltdic_loop_free(loop)
