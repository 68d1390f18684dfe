"""One association without its transport, its timeouts, and the command sets of C-ECHO."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

from .._ffi import ffi, lib
from .codec import Buffer, bytes_of

FOREVER = 0xFFFFFFFF
"""Milliseconds that stand for ever: 49 days."""


def milliseconds(seconds: float | None) -> int:
    """A time as C counts it: 1 to `FOREVER`, which None is, too."""
    return FOREVER if seconds is None else max(1, min(int(seconds * 1000), FOREVER))


@lru_cache(maxsize=64)
def timeouts(artim: float | None, response: float | None, idle: float | None) -> Any:
    """An `ltdic_timeouts`, which C only reads, so that everyone may share it. In C, 0 is for ever,
    but for ARTIM, where it is the default."""
    others = (0 if seconds is None else milliseconds(seconds) for seconds in (response, idle))
    return ffi.new("ltdic_timeouts *", (ffi.sizeof("ltdic_timeouts"), milliseconds(artim), *others))


# States of PS3.8 9.2.1. RELEASE_REQUESTED waits for an answer of this end; at CLOSING only the end
# of the connection is waited for.
IDLE = 1
OPEN = 6
RELEASE_REQUESTED = 8
CLOSING = 13


def is_established(state: int) -> bool:
    """Tell whether data can be sent or received."""
    return state in (6, 7, 8)


ECHO_REQUEST: int = lib.LTDIC_C_ECHO_RQ
ECHO_RESPONSE: int = lib.LTDIC_C_ECHO_RSP


class EchoCommand(NamedTuple):
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


def echo_command(echo: Any) -> EchoCommand:
    """An `ltdic_echo`, copied."""
    sop_class = ffi.string(echo.sop_class).decode("latin-1")
    return EchoCommand(echo.field, echo.message, echo.status, sop_class)


def decode_echo(command: bytes) -> EchoCommand | None:
    """`ltdic_decode_echo`; None where it is no command set of a C-ECHO."""
    echo = ffi.new("ltdic_echo *")
    return echo_command(echo) if lib.ltdic_decode_echo(echo, bytes_of(command)) == 0 else None


def announces_data_set(command: Buffer) -> bool | None:
    """`ltdic_announces_data_set`; None where it cannot be read."""
    with ffi.from_buffer(command) as raw:
        answer = lib.ltdic_announces_data_set((raw, len(raw)))
    return None if answer < 0 else bool(answer)


def max_length_of(pdu: Buffer) -> int:
    """`ltdic_max_length_of`"""
    with ffi.from_buffer(pdu) as raw:
        return int(lib.ltdic_max_length_of((raw, len(raw))))


_RECEIVED: int = lib.LTDIC_RECEIVED
_NOT_TOLD: tuple[int, ...] = lib.LTDIC_SENT, lib.LTDIC_REFUSED


class Indication(NamedTuple):
    """An `ltdic_indication` of what was received, or of the end; bytes `start` to `end` of the
    input are the PDU, or the data of a P-DATA-TF."""

    over: bool
    status: int
    type: int
    start: int
    end: int
    id: int
    control: int
    offset: int
    """Place of the field at fault, from the first byte of its PDU."""


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
        """The bytes of a PDU that have come after the inbox, while it is not whole."""
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
        lib.ltdic_association_set_timeouts(self._association, timeouts(artim, response, idle))

    @property
    def state(self) -> int:
        return int(lib.ltdic_association_state(self._association))

    @property
    def unused(self) -> int:
        """Bytes that were received and not used yet."""
        return int(self._in.size) + self._in_pieces

    @property
    def expects_more(self) -> bool:
        return bool(lib.ltdic_association_expects_more(self._association))

    def deadline(self) -> int:
        return int(lib.ltdic_association_deadline(self._association))

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

    def _use(self, inbox: bytes) -> None:
        raw = ffi.from_buffer(inbox)
        self._raw = self._raw, raw  # both live until C has the other: a signal handler may raise
        self.inbox, self._pieces, self._in_pieces, self._missing = inbox, [], 0, 0
        self._in.data, self._in.size = raw, len(inbox)
        self._base = self._in.data
        self._raw = raw

    def closed(self, status: int, now: int) -> None:
        lib.ltdic_association_closed(self._association, status, now)

    def lost(self) -> None:
        lib.ltdic_association_lost(self._association)

    def next(self, now: int) -> Indication | None:
        """`ltdic_association_next`. What was sent is not told, nor a request that the provider has
        refused: its A-ASSOCIATE-RJ is to be sent."""
        indication = self._indication
        while lib.ltdic_association_next(self._association, indication, self._in, now) == 0:
            kind = indication.kind
            if kind == _RECEIVED:
                return self._received(indication)
            if kind not in _NOT_TOLD:
                return Indication(True, indication.status, 0, 0, 0, 0, 0, indication.offset)
        self._find_missing()
        return None

    def _find_missing(self) -> None:
        """Find how many bytes are missing where a PDU is of use only when it is whole."""
        if not self._pieces:
            size = int(lib.ltdic_association_needs(self._association, self._in[0]))
            self._missing = max(0, size - int(self._in.size))

    def _received(self, indication: Any) -> Indication:
        status, kind = indication.status, indication.type
        what = indication.pdu if kind != 4 or status else indication.piece.data
        start = int(what.data - self._base) if what.size else 0
        piece = indication.piece
        end = start + what.size
        return Indication(
            False, status, kind, start, end, piece.id, piece.control, indication.offset
        )

    def send(self, pdu: bytes, now: int) -> int:
        status = int(lib.ltdic_association_send(self._association, bytes_of(pdu), now))
        if status == 0 and pdu[0] == 1:  # the transport is there already
            lib.ltdic_association_opened(self._association, lib.LTDIC_EVT_CONNECTED, now)
        return status

    def send_data(self, context_id: int, control: int, data: Buffer, now: int) -> int:
        address, size, owner = lent(data)
        pdv = ffi.new("ltdic_pdv *", (context_id, control, (address, size)))
        before = self._owner
        self._owner = before, owner  # either, until it is known which: a signal handler may raise
        status = int(lib.ltdic_association_send_data(self._association, pdv, now))
        self._owner = owner if status == 0 else before  # until it has been taken
        return status

    def waiting(self, now: int) -> int:
        """Bytes that are to be sent."""
        return int(lib.ltdic_association_take(self._association, ffi.new("ltdic_buffer *"), now))

    def take(self, now: int) -> bytes:
        """All that is to be sent."""
        size = self.waiting(now)
        if not size:
            return b""
        room = _take_room(size)
        out = ffi.new("ltdic_buffer *", (room, len(room), 0))
        lib.ltdic_association_take(self._association, out, now)
        self._owner = None
        data = bytes(ffi.buffer(room, out.size))
        if data[0] == lib.LTDIC_ASSOCIATE_RQ:  # a passcode may be in it
            ffi.memmove(room, bytes(out.size), out.size)
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


def lent(data: Buffer) -> tuple[Any, int, bytes]:
    """Bytes for C to keep: address, size, and what has to live as long. They are those of a `bytes`
    object, a copy where somebody else could change them. Python crashes where its collector finds a
    view of memory, of which cffi has another view, in a cycle."""
    owner = data.obj if isinstance(data, memoryview) else data
    if not isinstance(owner, bytes):
        data = owner = bytes(data)
    with ffi.from_buffer(data) as raw:
        return ffi.cast("uint8_t *", ffi.cast("uintptr_t", raw)), len(raw), owner
