"""PDUs and bytes, the faults in them, and the status codes that all layers return."""

from __future__ import annotations

import struct
from functools import lru_cache
from itertools import product
from typing import Any, NamedTuple

from .._arguments import view_of
from .._ffi import ffi, lib

Buffer = bytes | bytearray | memoryview

# The kinds of a row: `ltdic_kind`.
KIND_PDU: int = lib.LTDIC_PDU
KIND_CALLED_AE: int = lib.LTDIC_CALLED_AE
KIND_CALLING_AE: int = lib.LTDIC_CALLING_AE
KIND_APPLICATION_CONTEXT: int = lib.LTDIC_APPLICATION_CONTEXT
KIND_CONTEXT: int = lib.LTDIC_CONTEXT
KIND_ABSTRACT_SYNTAX: int = lib.LTDIC_ABSTRACT_SYNTAX
KIND_TRANSFER_SYNTAX: int = lib.LTDIC_TRANSFER_SYNTAX
KIND_USER_INFORMATION: int = lib.LTDIC_USER_INFORMATION
KIND_MAX_LENGTH: int = lib.LTDIC_MAX_LENGTH
KIND_CLASS_UID: int = lib.LTDIC_CLASS_UID
KIND_ASYNC_OPERATIONS: int = lib.LTDIC_ASYNC_OPERATIONS
KIND_ROLE: int = lib.LTDIC_ROLE
KIND_VERSION_NAME: int = lib.LTDIC_VERSION_NAME
KIND_EXTENDED: int = lib.LTDIC_EXTENDED
KIND_EXTENDED_INFO: int = lib.LTDIC_EXTENDED_INFO
KIND_COMMON_EXTENDED: int = lib.LTDIC_COMMON_EXTENDED
KIND_COMMON_SERVICE: int = lib.LTDIC_COMMON_SERVICE
KIND_COMMON_RELATED: int = lib.LTDIC_COMMON_RELATED
KIND_USER_IDENTITY: int = lib.LTDIC_USER_IDENTITY
KIND_USER_IDENTITY_SECOND: int = lib.LTDIC_USER_IDENTITY_SECOND
KIND_USER_IDENTITY_RESPONSE: int = lib.LTDIC_USER_IDENTITY_RESPONSE
KIND_UNKNOWN_ITEM: int = lib.LTDIC_UNKNOWN_ITEM
KIND_UNKNOWN_SUB_ITEM: int = lib.LTDIC_UNKNOWN_SUB_ITEM
KIND_PDV: int = lib.LTDIC_PDV
KIND_HEADER: int = lib.LTDIC_HEADER
KIND_IGNORED: int = lib.LTDIC_IGNORED

# Bits of the message control header of a PDV (PS3.8 E.2).
COMMAND = 1
LAST = 2

NEED_MORE: int = lib.LTDIC_NEED_MORE
BAD_PDU_TYPE: int = lib.LTDIC_ERR_BAD_PDU_TYPE
BAD_VALUE: int = lib.LTDIC_ERR_BAD_VALUE
TOO_LARGE: int = lib.LTDIC_ERR_TOO_LARGE
WRONG_STATE: int = lib.LTDIC_ERR_WRONG_STATE
ROOM: int = lib.LTDIC_ERR_ROOM
TRAILING_BYTES: int = lib.LTDIC_ERR_TRAILING_BYTES
MEMORY: int = lib.LTDIC_ERR_MEMORY
TIMEOUT: int = lib.LTDIC_ERR_TIMEOUT
CLOSED: int = lib.LTDIC_ERR_CLOSED
ABORTED: int = lib.LTDIC_ERR_ABORTED

VERSION: str = ffi.string(lib.ltdic_version()).decode()
CLASS_UID_OF_LTDIC: str = ffi.string(lib.ltdic_class_uid()).decode()

# One `ltdic_item`: offset, length, kind, type, id, result, source, reason, version.
ROW = struct.Struct("=IIBBBBBBH")
Row = tuple[int, int, int, int, int, int, int, int, int]


class NativeFault(NamedTuple):
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


DEFINED_REJECTS = tuple(
    codes for codes in product(range(8), range(8), range(8)) if is_defined(*codes)
)
"""Result, source and reason of each rejection that PS3.8 table 9-21 defines."""


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


def decode(data: Buffer, start: int, limits: Any) -> tuple[NativeFault | None, list[Row]]:
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
    fault = NativeFault(status, scratch.fault.offset, scratch.fault.need) if status != 0 else None
    if scratch.room <= _Scratch.MOST:
        _scratches.append(scratch)
    return fault, rows


def decode_rejects(data: Buffer) -> tuple[NativeFault, memoryview]:
    """`ltdic_decode_rejects`: what it says, and the rows before that."""
    fault, out = ffi.new("ltdic_fault *"), ffi.new("ltdic_buffer *")
    with ffi.from_buffer(view_of("data", data)) as raw:
        rows = bytearray(3 * (len(raw) // 10 + 1))  # one too many: no view is made of none
        with ffi.from_buffer(rows) as room:
            out.data, out.room = room, len(rows)
            status = lib.ltdic_decode_rejects(out, (raw, len(raw)), fault)
    view = memoryview(rows).toreadonly().cast("B", (len(rows) // 3, 3))
    return NativeFault(status, fault.offset, fault.need), view[: out.size // 3]


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

    def next(self, data: Buffer, start: int) -> tuple[NativeFault, int, Piece | None]:
        """`ltdic_stream_next` on `data[start:]`: what it says, where it stopped, and the piece."""
        piece = self._piece
        with ffi.from_buffer(data) as raw:
            left = self._in
            left.data, left.size = raw + start, len(raw) - start
            status = lib.ltdic_stream_next(self._stream, piece, left, self._limits, self._fault)
            at = len(raw) - left.size
            fault = NativeFault(status, self._fault.offset, self._fault.need)
            if status != 0:
                return fault, at, None
            codes = piece.type, piece.id, piece.control
            flags = bool(piece.first), bool(piece.last), bool(piece.end)
            return fault, at, Piece(at - piece.data.size, at, *codes, *flags)


def encode(rows: list[Row], values: bytes) -> tuple[bytes, NativeFault]:
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
    encoded = bytes(ffi.buffer(data, out.size if status == 0 else 0))
    return encoded, NativeFault(status, fault.offset, 0)


def bytes_of(data: bytes) -> tuple[Any, int]:
    """An `ltdic_bytes`: address and size. C may use it while the first of the two lives."""
    raw = ffi.from_buffer(data if type(data) is bytes else bytes(data))
    return raw, len(raw)  # of the buffer: a class may say another length
