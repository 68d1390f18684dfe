"""Decodes bytes into PDUs and encodes PDUs into bytes (PS3.8 9.3, PS3.7 annex D)."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from dataclasses import field, fields, make_dataclass
from struct import Struct
from struct import error as StructError
from typing import Any

from ._arguments import copy_of, each, number_of, one, view_of, wrong_type
from ._native import codec
from ._native.codec import Buffer
from ._rules import TITLE, UID, VERSION_NAME, place_of
from .errors import DecodeError, IncompleteError
from .pdu import (
    PDU,
    PDV,
    Abort,
    AssociateAccept,
    AssociateReject,
    AssociateRequest,
    AsyncOperations,
    CommonExtendedNegotiation,
    ContextResult,
    DataTransfer,
    ExtendedNegotiation,
    Fragment,
    ProposedContext,
    ReleaseRequest,
    ReleaseResponse,
    RoleSelection,
    UnknownItem,
    UserIdentity,
    UserIdentityResponse,
    UserInformation,
)

MAX_ASSOCIATE = 1 << 20
"""Default limit of the PDU length of A-ASSOCIATE-RQ and -AC."""


def flags_of(control: int) -> tuple[bool, bool]:
    """Return the bits of a message control header: command, last fragment."""
    return control & _COMMAND != 0, control & _LAST != 0


def control_of(pdv: PDV) -> int:
    """Return the message control header of a PDV."""
    return (_COMMAND if pdv.is_command else 0) | (_LAST if pdv.is_last else 0)


# ---- decode ----------------------------------------------------------------------------------

_FIXED_SIZE = 10


def _fixed(pdu: PDU) -> bytes:
    """Encode a PDU of fixed size. Raises `ValueError` if a code is not 0 to 255."""
    codes = (0, 0, 0)
    if isinstance(pdu, AssociateReject):
        codes = pdu.result, pdu.source, pdu.reason
    elif isinstance(pdu, Abort):
        codes = 0, pdu.source, pdu.reason
    return bytes((pdu.type, 0, 0, 0, 0, 4, 0, *codes))


def _unfrozen(cls: Any) -> Any:
    """Return a class with the fields of the frozen dataclass `cls`. Its objects are made in less
    than half the time, as their fields are not protected. Setting their `__class__` to `cls`
    freezes them."""
    named = [(f.name, f.type, field(default=f.default, kw_only=f.kw_only)) for f in fields(cls)]
    return make_dataclass(cls.__name__, named, slots=True, eq=False, repr=False)


_Proposed, _Result = _unfrozen(ProposedContext), _unfrozen(ContextResult)
_Info = _unfrozen(UserInformation)
_Request, _Accept = _unfrozen(AssociateRequest), _unfrozen(AssociateAccept)
_Value, _Data = _unfrozen(PDV), _unfrozen(DataTransfer)


_COUNTS = Struct(">HH")


def _latin(value: bytes) -> str:
    return value.decode("latin-1")


# Fields of user information that have a single row, made from its text or from its bytes.
_USER_TEXTS: dict[int, str] = {
    codec.KIND_CLASS_UID: "implementation_class_uid",
    codec.KIND_VERSION_NAME: "implementation_version_name",
}
_USER_FIELDS: dict[int, tuple[str, Callable[[bytes], Any]]] = {
    codec.KIND_MAX_LENGTH: ("max_length", lambda value: int.from_bytes(value, "big")),
    codec.KIND_ASYNC_OPERATIONS: (
        "async_ops",
        lambda value: AsyncOperations(*_COUNTS.unpack(value)),
    ),
    codec.KIND_USER_IDENTITY_RESPONSE: ("user_identity_response", UserIdentityResponse),
}
# Fields that have several rows: the first row begins a list of values, the others extend it, and at
# the end the list becomes the arguments of a class.
_BEGINS: dict[int, tuple[str, Callable[[codec.Row, bytes], list[Any]]]] = {
    codec.KIND_ROLE: ("roles", lambda row, value: [_latin(value), row[4], row[5]]),
    codec.KIND_EXTENDED: ("extended", lambda row, value: [_latin(value)]),
    codec.KIND_COMMON_EXTENDED: ("common_extended", lambda row, value: [row[8], _latin(value)]),
    codec.KIND_USER_IDENTITY: ("user_identity", lambda row, value: [row[4], row[5], value]),
    codec.KIND_UNKNOWN_SUB_ITEM: ("unknown", lambda row, value: [row[3], value]),
}
_GOES_ON: dict[int, tuple[str, Callable[[bytes], Any]]] = {
    codec.KIND_EXTENDED_INFO: ("extended", bytes),
    codec.KIND_COMMON_SERVICE: ("common_extended", _latin),
    codec.KIND_COMMON_RELATED: ("common_extended", _latin),
    codec.KIND_USER_IDENTITY_SECOND: ("user_identity", bytes),
}
_ENDS: dict[str, Callable[..., Any]] = {
    "roles": RoleSelection,
    "extended": ExtendedNegotiation,
    "common_extended": lambda version, sop_class, service, *related: CommonExtendedNegotiation(
        version, sop_class, service, related
    ),
    "user_identity": UserIdentity,
    "unknown": UnknownItem,
}


class _UserInformation:
    """Collects the rows of item 50 and makes a `UserInformation` of them."""

    def __init__(self) -> None:
        self.made = _Info()
        self._several: dict[str, list[list[Any]]] = {}

    def add(self, row: codec.Row, value: bytes) -> None:
        kind = row[2]
        if kind in _USER_FIELDS:
            name, make = _USER_FIELDS[kind]
            setattr(self.made, name, make(value))
        elif kind in _BEGINS:
            name, begin = _BEGINS[kind]
            self._several.setdefault(name, []).append(begin(row, value))
        else:
            name, make = _GOES_ON[kind]
            self._several[name][-1].append(make(value))

    def end(self) -> UserInformation:
        for name, values in self._several.items():
            ended = tuple(_ENDS[name](*value) for value in values)
            setattr(self.made, name, ended[0] if name == "user_identity" else ended)
        self.made.__class__ = UserInformation
        return self.made  # type: ignore[no-any-return]


def _associate(
    data: Buffer, rows: list[codec.Row], wire: bytes | None
) -> AssociateRequest | AssociateAccept:
    """Make an RQ or AC. The first three rows are always those of the PDU and its titles. The whole
    PDU is decoded as text once, and each text is a slice of it."""
    text = str(data, "latin-1")
    pdu, called, calling = rows[:3]
    application_context: str | None = None
    unknown_items: list[UnknownItem] = []
    info: _UserInformation | None = None
    contexts: list[list[Any]] = []
    context: list[Any] = []
    for row in rows[3:]:
        offset, length, kind, _, ident, result, _, _, _ = row
        end = offset + length
        if kind == _TRANSFER:
            context.append(text[offset:end])
        elif kind == _CONTEXT:
            context = [ident, result, None]
            contexts.append(context)
        elif kind == _ABSTRACT:
            context[2] = text[offset:end]
        elif kind == codec.KIND_APPLICATION_CONTEXT:
            application_context = text[offset:end]
        elif kind == codec.KIND_UNKNOWN_ITEM:
            unknown_items.append(UnknownItem(row[3], bytes(data[offset:end])))
        elif kind == codec.KIND_USER_INFORMATION or info is None:
            info = info or _UserInformation()  # a second one continues the first
        elif kind in _USER_TEXTS:
            setattr(info.made, _USER_TEXTS[kind], text[offset:end])
        else:
            info.add(row, bytes(data[offset:end]))
    request = pdu[3] == AssociateRequest.type
    made = (_Request if request else _Accept)(
        text[called[0] : called[0] + called[1]],
        text[calling[0] : calling[0] + calling[1]],
        tuple(map(_proposed if request else _answered, contexts)),
        application_context,
        info.end() if info is not None else None,
        tuple(unknown_items),
        pdu[8],
    )
    made.wire = wire
    made.__class__ = AssociateRequest if request else AssociateAccept
    return made  # type: ignore[no-any-return]


_COMMAND, _LAST = codec.COMMAND, codec.LAST
_CONTEXT, _ABSTRACT, _TRANSFER = (
    codec.KIND_CONTEXT,
    codec.KIND_ABSTRACT_SYNTAX,
    codec.KIND_TRANSFER_SYNTAX,
)


def _proposed(context: list[Any]) -> Any:
    made = _Proposed(context[0], context[2], tuple(context[3:]))
    made.__class__ = ProposedContext
    return made


def _answered(context: list[Any]) -> Any:
    made = _Result(context[0], context[1], context[3] if len(context) > 3 else None)
    made.__class__ = ContextResult
    return made


def _data_transfer(data: Buffer, rows: list[codec.Row], wire: bytes | None) -> DataTransfer:
    view = memoryview(data)
    values = []
    for offset, length, kind, _, ident, control, _, _, _ in rows:
        if kind == codec.KIND_PDV:
            part = view[offset : offset + length]
            value = _Value(ident, control & _COMMAND != 0, control & _LAST != 0, part, offset)
            value.__class__ = PDV
            values.append(value)
    pdu = _Data(tuple(values))
    pdu.wire = wire
    pdu.__class__ = DataTransfer
    return pdu  # type: ignore[no-any-return]


def _build(data: Buffer, rows: list[codec.Row], exact: bool) -> PDU:
    pdu = rows[0]
    kind = pdu[3]
    wire = bytes(data) if exact else None
    if kind <= AssociateAccept.type:
        return _associate(data, rows, wire)
    if kind == DataTransfer.type:
        return _data_transfer(data, rows, wire)
    if kind == AssociateReject.type:
        return AssociateReject(pdu[5], pdu[6], pdu[7], wire=wire)
    if kind == Abort.type:
        return Abort(pdu[6], pdu[7], wire=wire)
    if kind == ReleaseRequest.type:
        return ReleaseRequest(wire=wire)
    return ReleaseResponse(wire=wire)


def _known() -> Iterator[PDU]:
    for codes in codec.DEFINED_REJECTS:
        yield AssociateReject(*codes)
    for reason in range(7):
        yield Abort(2, reason)
    yield from (Abort(0, 0), ReleaseRequest(), ReleaseResponse())


# PDUs of fixed size with codes that PS3.8 defines, by their bytes. They are frozen, so `decode` can
# return the same object each time.
_KNOWN: dict[bytes, PDU] = {_fixed(pdu): pdu for pdu in _known()}


def error_of(status: int, offset: int, need: int = 0, pdu: Buffer = b"") -> DecodeError:
    """Make the exception for a fault. With `pdu`, its text names the field at fault."""
    if status == codec.NEED_MORE:
        return IncompleteError(offset, need, Abort(2, 0))
    place = place_of(pdu, offset) if pdu else ""
    text = f"{codec.text_of(status)}: {place}" if place else codec.text_of(status)
    reason = codec.abort_reason(status)
    return DecodeError(codec.name_of(status), offset, text, Abort(2, reason))


def decode(
    data: Buffer,
    *,
    strict: bool = False,
    max_pdata: int = 0,
    max_associate: int = MAX_ASSOCIATE,
    exact: bool = False,
) -> PDU:
    """Decode one PDU, which must be complete.

    `data` is any contiguous bytes-like object. The data of a `PDV` is a view of it; all else is
    copied. `strict` refuses everything that PS3.8 forbids; otherwise only bytes that cannot be
    parsed safely are refused. `max_pdata` (P-DATA-TF) and `max_associate` (A-ASSOCIATE-RQ and -AC)
    limit the PDU length field, in bytes; 0 is no limit. A P-DATA-TF of empty PDVs takes some 70
    times its size in memory; `Decoder.fragments` never holds a whole one. With `exact` the PDU
    keeps its bytes (`wire`), and `encode` returns the same bytes again.

    Raises `IncompleteError` if bytes are missing, and `DecodeError` with kind and offset for any
    other fault, also for bytes after the PDU (`trailing_bytes`).
    """
    given = data if type(data) is bytes else view_of("data", data).toreadonly()
    if len(given) == _FIXED_SIZE and not exact and (known := _KNOWN.get(bytes(given))) is not None:
        return known
    fault, rows = codec.decode(given, 0, codec.options(bool(strict), max_pdata, max_associate))
    if fault is not None:
        raise error_of(*fault, given)
    end = 6 + rows[0][1]
    if end < len(given):
        raise error_of(codec.TRAILING_BYTES, end)
    return _build(given, rows, exact)


def decode_rejects(data: Buffer) -> memoryview:
    """Decode consecutive A-ASSOCIATE-RJ in one call.

    Returns a buffer of bytes with the shape (n, 3): a row for each PDU, with result, source and
    reason. numpy and pyarrow accept it without a copy, `tolist()` returns a list. Raises as
    `decode` does, and `DecodeError` with kind `unexpected_pdu` at a PDU of another type. The offset
    counts from the first byte of `data`: the first `offset // 10` PDUs are valid.
    """
    fault, rows = codec.decode_rejects(data)
    if fault.status != 0:
        raise error_of(*fault)
    return rows


class Decoder:
    """Splits a byte stream into PDUs and decodes them.

    Feed it the bytes that the transport delivers, in pieces of any size, then take the PDUs that
    are complete. The options are those of `decode`. Not thread-safe.
    """

    def __init__(
        self,
        *,
        strict: bool = False,
        max_pdata: int = 0,
        max_associate: int = MAX_ASSOCIATE,
        exact: bool = False,
    ) -> None:
        self._exact = exact
        self._options = codec.options(bool(strict), max_pdata, max_associate)
        self._stream = codec.Stream(self._options)
        self._data = memoryview(b"")  # bytes to decode, from _start on
        self._start = 0
        self._chunks: list[bytes] = []  # bytes that were fed after those
        self._pending = 0
        self._required = 1  # bytes from _start on without which decoding cannot continue
        self._need = 6
        self._fault: codec.NativeFault | None = None

    @property
    def pending(self) -> int:
        """Number of bytes that were fed and are not part of a PDU or fragment taken."""
        return self._pending

    @property
    def need(self) -> int:
        """Bytes, counted from the first of the incomplete PDU, that decoding needs to continue."""
        return self._need

    def feed(self, data: Buffer) -> None:
        """Add bytes from the transport. A buffer may be reused after the call."""
        chunk = data if type(data) is bytes else copy_of("data", data)
        if chunk:
            self._chunks.append(chunk)
            self._pending += len(chunk)

    def pdus(self) -> Iterator[PDU]:
        """Yield each complete PDU, and forget it.

        Raises `DecodeError` if the bytes are not a valid PDU, after all PDUs before that place, and
        at each call after that.
        """
        while (pdu := self._next()) is not None:
            yield pdu
        self._raise()

    def fragments(self) -> Iterator[PDU | Fragment]:
        """Yield as `pdus` does, but each P-DATA-TF in pieces as its bytes arrive, so that a whole
        one is never held.

        When a fault inside a P-DATA-TF is raised, the data before it has been yielded.
        """
        if self._left() and not self._stream.inside and self._data[self._start] == 4:
            self._required = 1  # pdus() may have required the whole P-DATA-TF
        while (piece := self._next_piece()) is not None:
            yield piece
        self._raise()

    def _raise(self) -> None:
        if self._fault is not None:
            raise error_of(*self._fault)

    def _left(self) -> int:
        return len(self._data) - self._start

    def _is_worth_a_look(self) -> bool:
        """Tell whether there are enough bytes to continue. If so, those that were fed are joined to
        the rest."""
        if self._fault is not None:
            return False
        if self._left() >= self._required:
            return True
        if not self._chunks or self._pending < self._required:
            return False
        self._data = memoryview(b"".join([self._data[self._start :], *self._chunks]))
        self._start = 0
        self._chunks.clear()
        return True

    def _next(self) -> PDU | None:
        if self._stream.inside:
            raise RuntimeError("some of a P-DATA-TF has been taken: go on with fragments()")
        while self._is_worth_a_look():
            start = self._start
            known = _KNOWN.get(bytes(self._data[start : start + _FIXED_SIZE]))
            if known is not None and not self._exact:
                self._advance(start + _FIXED_SIZE)
                return known
            fault, rows = codec.decode(self._data, start, self._options)
            if fault is None:
                size = 6 + rows[0][1]
                view = self._data[start : start + size]
                self._advance(start + size)
                return _build(view, rows, self._exact)
            self._stop(fault)
        return None

    def _next_piece(self) -> PDU | Fragment | None:
        while self._is_worth_a_look():
            data = self._data
            fault, at, piece = self._stream.next(data, self._start)
            self._advance(at)
            if piece is None:
                self._stop(fault)
                continue
            view = data[piece.start : piece.end]
            if piece.type == DataTransfer.type:
                flags = *flags_of(piece.control), piece.first, piece.last
                return Fragment(piece.id, *flags, piece.pdu_ends, view)
            fault_in, rows = codec.decode(view, 0, self._options)
            if fault_in is None:
                return _build(view, rows, self._exact)
            self._stop(fault_in)
        return None

    def _advance(self, to: int) -> None:
        self._pending -= to - self._start
        self._start = to
        self._required, self._need = 1, 6
        if not self._left():
            self._data, self._start = memoryview(b""), 0

    def _stop(self, fault: codec.NativeFault) -> None:
        if fault.status != codec.NEED_MORE:
            self._fault = fault
            return
        self._need = fault.need
        left = self._left()
        # Without a byte, one is enough to find a wrong PDU type.
        self._required = left + fault.need - fault.offset if left else 1


# ---- encode ----------------------------------------------------------------------------------


# Rows whose value is text.
_TEXTS = {
    codec.KIND_CALLED_AE,
    codec.KIND_CALLING_AE,
    codec.KIND_APPLICATION_CONTEXT,
    codec.KIND_ABSTRACT_SYNTAX,
    codec.KIND_TRANSFER_SYNTAX,
    codec.KIND_CLASS_UID,
    codec.KIND_ROLE,
    codec.KIND_VERSION_NAME,
    codec.KIND_EXTENDED,
    codec.KIND_COMMON_EXTENDED,
    codec.KIND_COMMON_SERVICE,
    codec.KIND_COMMON_RELATED,
}


def _text_of(name: str, kind: int, value: Any) -> bytes:
    if not isinstance(value, str):
        raise wrong_type(name, value, "text")
    try:
        text = value.encode("latin-1")
    except UnicodeEncodeError:
        raise ValueError(f"{name}: {value!a} has characters outside Latin-1") from None
    return text.strip(b" ") if kind in (codec.KIND_CALLED_AE, codec.KIND_CALLING_AE) else text


_RULES = {
    **dict.fromkeys(_TEXTS - {codec.KIND_VERSION_NAME}, UID),
    **dict.fromkeys((codec.KIND_CALLED_AE, codec.KIND_CALLING_AE), TITLE),
    codec.KIND_VERSION_NAME: VERSION_NAME,
}


class _Writer:
    """Collects rows, their values, and the name of the field of each row, for errors."""

    def __init__(self) -> None:
        self._rows: list[codec.Row] = []
        self._values: list[bytes] = []
        self._size = 0
        self._names: list[str] = []

    def add(self, name: str, kind: int, value: Any = b"", **codes: int) -> None:
        """Add a row; `codes` are its fields type, id, result, source, reason, version."""
        encoded = _text_of(name, kind, value) if kind in _TEXTS else copy_of(name, value)
        if not codes:
            self._append(name, kind, encoded, 0, 0, 0, 0, 0, 0)
            return
        for code, number in codes.items():
            limit = 0xFFFF if kind == codec.KIND_PDU and code == "version" else 0xFF
            codes[code] = number_of(f"{name}: {code}", number, limit)
        self._append(name, kind, encoded, *[codes.get(code, 0) for code in _CODES])

    def _append(self, name: str, kind: int, value: bytes, *codes: int) -> None:
        if self._size + len(value) > 0xFFFFFFFF:
            raise ValueError(f"{name}: beyond what a PDU can hold")
        self._rows.append((self._size, len(value), kind, *codes))  # type: ignore[arg-type]
        self._values.append(value)
        self._size += len(value)
        self._names.append(name)

    def same(self, other: _Writer) -> bool:
        """Tell whether both stand for the same PDU."""
        return self._rows == other._rows and self._values == other._values

    def encode(self) -> bytes:
        data, fault = codec.encode(self._rows, b"".join(self._values))
        if fault.status != 0:
            raise self._error(fault)
        return data

    def _error(self, fault: codec.NativeFault) -> ValueError:
        """Make the exception for a row that cannot be encoded, with its name, its value unless that
        may be a secret, and the rule."""
        n = min(fault.offset, len(self._names) - 1)
        name, value, kind = self._names[n], self._values[n], self._rows[n][2]
        if fault.status == codec.TOO_LARGE:
            return ValueError(f"{name}: {len(value)} bytes, in an item of at most 65535")
        rule = _RULES.get(kind)
        if fault.status != codec.BAD_VALUE or rule is None:
            return ValueError(f"{name}: {codec.text_of(fault.status)}")
        text = value.decode("latin-1")
        may_be_shown = len(text) <= 80 and text.isascii() and text.isprintable()
        shown = repr(text) if may_be_shown else f"{len(text)} characters, not shown"
        return ValueError(f"{name} is {shown}: it has {rule}")

    def encode_like(self, wire: bytes) -> bytes | None:
        """Encode to the bytes of `wire`, with changed values replaced.

        Returns None if there are rows that `wire` lacks, or the reverse. Repetitions of a changed
        item are left out: see `_ChangedItems`.
        """
        mine: dict[int, deque[int]] = defaultdict(deque)
        for n, row in enumerate(self._rows):
            if row[2] != codec.KIND_USER_INFORMATION:  # there may be more of it in `wire`
                mine[row[2]].append(n)
        like, received, has_new_value = _Writer(), set(), False
        items = _ChangedItems()
        for row, value, plain in _rows_for_every_byte(wire):
            codes, is_changed = row[3:], False
            if items.belongs_to_changed(row, value):
                continue
            if plain is not None:
                # Rows of one kind are in the same order here and in `wire`.
                if not mine[row[2]]:
                    return None
                n = mine[row[2]].popleft()
                codes = self._rows[n][3:]
                if row[2] == codec.KIND_PDV:  # six bits of the control byte are reserved
                    codes = (*codes[:2], codes[2] | row[5] & 0xFC, *codes[3:])
                is_changed = codes[1:] != row[4:]
                if plain == self._values[n]:
                    received.add(n)
                else:
                    value, is_changed, has_new_value = self._values[n], True, True
            items.add(row, is_changed)
            like._append("wire", row[2], value, *codes)
        if any(mine.values()):
            return None
        if has_new_value:
            self._refuse_all_but(received)
        data, fault = codec.encode(like._rows, b"".join(like._values))
        return data if fault.status == 0 else None

    def _refuse_all_but(self, received: set[int]) -> None:
        """Raise `ValueError` for an illegal text, except for texts that were received."""
        judged = _Writer()
        for n, (row, value, name) in enumerate(
            zip(self._rows, self._values, self._names, strict=True)
        ):
            legal = n in received and row[2] in _TEXTS
            judged._append(name, row[2], b"1" if legal else value, *row[3:])
        judged.encode()


_IN_CONTEXT = {0x30: codec.KIND_ABSTRACT_SYNTAX, 0x40: codec.KIND_TRANSFER_SYNTAX}
_IN_USER_INFORMATION = {
    0x51: codec.KIND_MAX_LENGTH,
    0x52: codec.KIND_CLASS_UID,
    0x53: codec.KIND_ASYNC_OPERATIONS,
    0x55: codec.KIND_VERSION_NAME,
    0x58: codec.KIND_USER_IDENTITY,
    0x59: codec.KIND_USER_IDENTITY_RESPONSE,
}
# Places of ignored bytes: the `id` of their rows.
_IN_PDU, _IN_SUB_ITEM = 0, 2


class _ChangedItems:
    """Remembers which items of a PDU differ from those received.

    If PS3.8 allows an item once, the first one counts. Repetitions of it, and bytes after its last
    field, are ignored here, but a peer may read them as the value. So they are left out if the
    value has changed.
    """

    def __init__(self) -> None:
        self._kinds: dict[int, bool] = {}  # by kind: whether the last item of it has changed
        self._item = 0  # the kind of the item to which rows belong

    def add(self, row: codec.Row, is_changed: bool) -> None:
        if row[2] in (codec.KIND_HEADER, codec.KIND_IGNORED):
            return
        if row[3]:  # the first row of an item has its type
            self._item = row[2]
            self._kinds[self._item] = False
        self._kinds[self._item] |= is_changed

    def belongs_to_changed(self, row: codec.Row, value: bytes) -> bool:
        """Tell whether these are ignored bytes of an item that has changed."""
        return row[2] == codec.KIND_IGNORED and self._kinds.get(self._kind_of(row, value), False)

    def _kind_of(self, row: codec.Row, value: bytes) -> int:
        """Return the kind of the item that these bytes repeat or belong to; 0 if there is none."""
        if row[4] == _IN_PDU:  # for the reserved bytes after the titles, this kind is not there yet
            return codec.KIND_APPLICATION_CONTEXT
        if row[4] == _IN_SUB_ITEM or self._item == codec.KIND_CONTEXT:
            return self._item
        is_context = self._item in (codec.KIND_ABSTRACT_SYNTAX, codec.KIND_TRANSFER_SYNTAX)
        return (_IN_CONTEXT if is_context else _IN_USER_INFORMATION).get(value[0], 0)


def _rows_for_every_byte(wire: bytes) -> Iterator[tuple[codec.Row, bytes, bytes | None]]:
    """Yield the rows of an exact decoding with their bytes, and with their value or None."""
    fault, received = codec.decode(wire, 0, codec.options(False, 0, 0, exact=True))
    if fault is not None:
        raise ValueError(f"wire: {codec.text_of(fault.status)}")
    plain = iter(codec.decode(wire, 0, codec.options(False, 0, 0))[1])
    for row in received:
        if row[2] in (codec.KIND_HEADER, codec.KIND_IGNORED):
            yield row, wire[row[0] : row[0] + row[1]], None
        elif row[2] in (codec.KIND_PDU, codec.KIND_CONTEXT, codec.KIND_USER_INFORMATION):
            next(plain)  # the rows of their contents follow
            yield row, b"", None if row[2] == codec.KIND_USER_INFORMATION else b""
        else:
            trimmed = next(plain)
            value = wire[trimmed[0] : trimmed[0] + trimmed[1]]
            yield row, wire[row[0] : row[0] + row[1]], value


_CODES = ("type", "id", "result", "source", "reason", "version")


def _number(name: str, value: int, size: int) -> bytes:
    return number_of(name, value, (1 << 8 * size) - 1).to_bytes(size, "big")


def _add_user_info(w: _Writer, info: UserInformation) -> None:
    w.add("user_info", codec.KIND_USER_INFORMATION)
    if info.max_length is not None:
        w.add("max_length", codec.KIND_MAX_LENGTH, _number("max_length", info.max_length, 4))
    if info.implementation_class_uid is not None:
        w.add("implementation_class_uid", codec.KIND_CLASS_UID, info.implementation_class_uid)
    if info.async_ops is not None:
        window = one("async_ops", info.async_ops, AsyncOperations)
        counts = window.invoked, window.performed
        value = b"".join(_number("async_ops", count, 2) for count in counts)
        w.add("async_ops", codec.KIND_ASYNC_OPERATIONS, value)
    for role in each("roles", info.roles, RoleSelection):
        w.add("roles", codec.KIND_ROLE, role.sop_class_uid, id=role.scu, result=role.scp)
    if info.implementation_version_name is not None:
        w.add(
            "implementation_version_name", codec.KIND_VERSION_NAME, info.implementation_version_name
        )
    for extended in each("extended", info.extended, ExtendedNegotiation):
        w.add("extended", codec.KIND_EXTENDED, extended.sop_class_uid)
        w.add("extended", codec.KIND_EXTENDED_INFO, extended.info)
    name = "common_extended"
    for common in each(name, info.common_extended, CommonExtendedNegotiation):
        w.add(name, codec.KIND_COMMON_EXTENDED, common.sop_class_uid, version=common.version)
        w.add(name, codec.KIND_COMMON_SERVICE, common.service_class_uid)
        for uid in each("related", common.related, str, "texts"):
            w.add(name, codec.KIND_COMMON_RELATED, uid)
    if info.user_identity is not None:
        who = one("user_identity", info.user_identity, UserIdentity)
        w.add(
            "user_identity",
            codec.KIND_USER_IDENTITY,
            who.primary,
            id=who.type,
            result=who.response_requested,
        )
        w.add("user_identity", codec.KIND_USER_IDENTITY_SECOND, who.secondary)
    if info.user_identity_response is not None:
        name = "user_identity_response"
        told = one(name, info.user_identity_response, UserIdentityResponse)
        w.add(name, codec.KIND_USER_IDENTITY_RESPONSE, told.response)
    for item in each("unknown", info.unknown, UnknownItem):
        w.add("unknown", codec.KIND_UNKNOWN_SUB_ITEM, item.value, type=item.type)


def _add_associate(w: _Writer, pdu: AssociateRequest | AssociateAccept) -> None:
    is_request = isinstance(pdu, AssociateRequest)
    code = AssociateRequest.type if is_request else AssociateAccept.type  # not of a subclass
    w.add("protocol_version", codec.KIND_PDU, type=code, version=pdu.protocol_version)
    w.add("called_ae", codec.KIND_CALLED_AE, pdu.called_ae)
    w.add("calling_ae", codec.KIND_CALLING_AE, pdu.calling_ae)
    if pdu.application_context is not None:
        w.add("application_context", codec.KIND_APPLICATION_CONTEXT, pdu.application_context)
    kind: Any = ProposedContext if is_request else ContextResult
    for context in each("contexts", pdu.contexts, kind):
        if isinstance(context, ProposedContext):
            w.add("contexts", codec.KIND_CONTEXT, id=context.id)
            if context.abstract_syntax is not None:
                w.add("abstract_syntax", codec.KIND_ABSTRACT_SYNTAX, context.abstract_syntax)
            for uid in each("transfer_syntaxes", context.transfer_syntaxes, str, "texts"):
                w.add("transfer_syntaxes", codec.KIND_TRANSFER_SYNTAX, uid)
        else:
            w.add("contexts", codec.KIND_CONTEXT, id=context.id, result=context.result)
            if context.transfer_syntax is not None:
                w.add("transfer_syntax", codec.KIND_TRANSFER_SYNTAX, context.transfer_syntax)
    if pdu.user_info is not None:
        _add_user_info(w, one("user_info", pdu.user_info, UserInformation))
    for item in each("unknown_items", pdu.unknown_items, UnknownItem):
        w.add("unknown_items", codec.KIND_UNKNOWN_ITEM, item.value, type=item.type)


def _rows_of(pdu: PDU) -> _Writer:
    """Return the rows of a PDU in canonical order."""
    w = _Writer()
    if isinstance(pdu, (AssociateRequest, AssociateAccept)):
        _add_associate(w, pdu)
    elif isinstance(pdu, DataTransfer):
        w.add("pdvs", codec.KIND_PDU, type=DataTransfer.type)
        for pdv in each("pdvs", pdu.pdvs, PDV):
            w.add("pdvs", codec.KIND_PDV, pdv.data, id=pdv.context_id, result=control_of(pdv))
    elif isinstance(pdu, AssociateReject):
        codes = pdu.result, pdu.source, pdu.reason
        w.add("reject", codec.KIND_PDU, type=3, result=codes[0], source=codes[1], reason=codes[2])
    elif isinstance(pdu, Abort):
        w.add("abort", codec.KIND_PDU, type=Abort.type, source=pdu.source, reason=pdu.reason)
    elif isinstance(pdu, ReleaseRequest):
        w.add("pdu", codec.KIND_PDU, type=ReleaseRequest.type)
    elif isinstance(pdu, ReleaseResponse):
        w.add("pdu", codec.KIND_PDU, type=ReleaseResponse.type)
    else:
        raise wrong_type("pdu", pdu, "a PDU")
    return w


_ENCODED_AT_ONCE = (AssociateReject, DataTransfer, ReleaseRequest, ReleaseResponse, Abort)
_DATA_HEADER, _PDV_HEADER = Struct(">BxI"), Struct(">IBB")


def _encode_at_once(pdu: PDU) -> bytes | None:
    """Encode a PDU that needs no rows. Return None for others, and for one with a fault, which
    `_Writer` then names."""
    if type(pdu) not in _ENCODED_AT_ONCE:
        return None
    try:
        if pdu.wire is not None:
            return None
        return _encode_data(pdu) if isinstance(pdu, DataTransfer) else _fixed(pdu)
    except (AttributeError, BufferError, TypeError, ValueError, StructError):
        return None


def _encode_data(pdu: DataTransfer) -> bytes | None:
    if not isinstance(pdu.pdvs, (tuple, list)):
        return None
    parts: list[Buffer] = [b""]
    size = 0
    for pdv in pdu.pdvs:
        data = memoryview(pdv.data)
        parts += _PDV_HEADER.pack(data.nbytes + 2, pdv.context_id, control_of(pdv)), data
        size += 6 + data.nbytes
    parts[0] = _DATA_HEADER.pack(DataTransfer.type, size)
    return b"".join(parts) if size else None


def encode(pdu: PDU) -> bytes:
    """Encode a PDU, canonically: items in the order of PS3.8, reserved bytes zero, no padding.

    A PDU that was decoded with `exact` is encoded to the bytes that were received. So is a copy
    made of it by `dataclasses.replace`, with the changed values replaced and repetitions of a
    changed item left out; but if items were added, moved or removed, it is encoded canonically.

    Codes may be any byte: the association checks what may be sent. Raises `ValueError` with the
    name of the field if a value cannot be encoded, `TypeError` if it has a wrong type.
    """
    if (data := _encode_at_once(pdu)) is not None:
        return data
    w = _rows_of(pdu)
    if pdu.wire is not None:
        like = w.encode_like(copy_of("wire", pdu.wire))
        if like is not None and w.same(_rows_of(decode(like, max_associate=0))):
            return like
    return w.encode()
