"""Cases without a network: bytes to PDUs, PDUs to bytes, and the cost of a callback."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterator
from functools import cache
from operator import attrgetter
from typing import Any

import pdus
from cffi import FFI
from harness import ABSENT, Contenders, Timed, agree, case, repeat

import build
import ltdic
from ltdic import l_dicom
from ltdic._ffi import ffi as _ltdic_ffi
from ltdic._ffi import lib as _ltdic_lib

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from pynetdicom import pdu as pynetdicom

_ffi = FFI()
_ffi.cdef(
    """
    uint64_t bench_run(const char *, const uint8_t *, size_t, uint64_t);
    size_t bench_answer(const char *, const uint8_t *, size_t, char *, size_t);
    uint64_t call_slot(void *, void *, void *, uint64_t);
    void count_rejection();
    """
)

ALL_COMPILED = ("ltdic C", "floor C", "dicom-rs")
_BUILDERS: dict[str, Callable[[], Any]] = {
    "ltdic C": lambda: build.codec("ltdic"),
    "floor C": lambda: build.codec("floor"),
    "dicom-rs": build.dicom_rs_codec,
}


@cache
def _library(who: str) -> Any:
    try:
        return _ffi.dlopen(str(_BUILDERS[who]()))
    except build.Missing as e:
        ABSENT[who] = str(e)
        return None


def _answer(library: Any, operation: str, data: bytes) -> bytes:
    room = 1 << 20
    out = _ffi.new("char[]", room)
    size = library.bench_answer(operation.encode(), data, len(data), out, room)
    return bytes(_ffi.buffer(out, size))


def _compiled(who: str, operation: str, data: bytes) -> tuple[bytes, Timed] | None:
    """Its answer, and how to time it; None where it is not installed or has no such operation."""
    library = _library(who)
    answer = _answer(library, operation, data) if library is not None else b""
    if not answer:
        return None
    name = operation.encode()

    def timed(count: int) -> int:
        spent = int(library.bench_run(name, data, len(data), count))
        if spent == 0:
            raise SystemExit(f"{who} failed at {operation}")
        return spent

    return answer, timed


def _add_compiled(
    answers: dict[str, bytes], timed: dict[str, Timed], operation: str, data: bytes
) -> None:
    for who in ALL_COMPILED:
        if (made := _compiled(who, operation, data)) is not None:
            answers[who], timed[who] = made


# ---- answers of the contenders in Python -----------------------------------------------------


def _user_lines(info: Any) -> Iterator[str]:
    yield f"user max={info.max_length}"
    yield f"user class={info.implementation_class_uid}"
    yield f"user name={info.implementation_version_name}"


def _lines(pdu: Any) -> Iterator[str]:
    if isinstance(pdu, (ltdic.AssociateRequest, ltdic.AssociateAccept)):
        proposed = isinstance(pdu, ltdic.AssociateRequest)
        yield (
            f"A-ASSOCIATE-{'RQ' if proposed else 'AC'} version={pdu.protocol_version}"
            f" called={pdu.called_ae} calling={pdu.calling_ae}"
            f" application={pdu.application_context}"
        )
        for c in pdu.contexts:
            if isinstance(c, ltdic.ProposedContext):
                syntaxes = "".join(f" transfer={uid}" for uid in c.transfer_syntaxes)
                yield f"context {c.id} abstract={c.abstract_syntax}{syntaxes}"
            else:
                yield f"context {c.id} result={c.result:d} transfer={c.transfer_syntax}"
        yield from _user_lines(pdu.user_info)
    elif isinstance(pdu, ltdic.AssociateReject):
        yield f"A-ASSOCIATE-RJ result={pdu.result:d} source={pdu.source:d} reason={pdu.reason:d}"
    elif isinstance(pdu, ltdic.DataTransfer):
        yield "P-DATA-TF"
        for v in pdu.pdvs:
            flags = f"command={v.is_command:d} last={v.is_last:d}"
            yield f"pdv id={v.context_id} {flags} size={len(v.data)} sum={sum(v.data)}"
    elif isinstance(pdu, ltdic.Abort):
        yield f"A-ABORT source={pdu.source} reason={pdu.reason}"
    else:
        yield "A-RELEASE-RQ" if isinstance(pdu, ltdic.ReleaseRequest) else "A-RELEASE-RP"


def _text(*values: Any) -> bytes:
    return "".join(f"{line}\n" for pdu in values for line in _lines(pdu)).encode()


_PYNETDICOM = {
    1: pynetdicom.A_ASSOCIATE_RQ,
    2: pynetdicom.A_ASSOCIATE_AC,
    3: pynetdicom.A_ASSOCIATE_RJ,
    4: pynetdicom.P_DATA_TF,
    5: pynetdicom.A_RELEASE_RQ,
    6: pynetdicom.A_RELEASE_RP,
    7: pynetdicom.A_ABORT_RQ,
}


def _pynetdicom_decode(data: bytes) -> Any:
    pdu = _PYNETDICOM[data[0]]()
    pdu.decode(data)
    return pdu.to_primitive()


VERSION_NAME = "implementation_version_name"


def _of_pynetdicom(data: bytes) -> Any:
    """The PDU that pynetdicom decodes, as a value of ltdic: one description serves both."""
    p = _pynetdicom_decode(data)
    kind = data[0]
    if kind == 3:
        return ltdic.AssociateReject(p.result, p.result_source, p.diagnostic)
    if kind == 4:
        values = ((item[0], item[1][0], item[1][1:]) for item in p.presentation_data_value_list)
        return ltdic.DataTransfer(
            tuple(ltdic.PDV(i, bool(c & 1), bool(c & 2), value) for i, c, value in values)
        )
    if kind in (5, 6):
        return ltdic.ReleaseRequest() if kind == 5 else ltdic.ReleaseResponse()
    if kind == 7:
        return ltdic.Abort(2, p.provider_reason)
    application_context = str(p.application_context_name)
    info = ltdic.UserInformation(
        p.maximum_length_received,
        str(p.implementation_class_uid),
        next(i.implementation_version_name for i in p.user_information if hasattr(i, VERSION_NAME)),
    )
    titles = p.called_ae_title, p.calling_ae_title
    if kind == 1:
        contexts = tuple(
            ltdic.ProposedContext(
                c.context_id, str(c.abstract_syntax), tuple(map(str, c.transfer_syntax))
            )
            for c in p.presentation_context_definition_list
        )
        return ltdic.AssociateRequest(*titles, contexts, application_context, info)
    results = tuple(
        ltdic.ContextResult(c.context_id, c.result, str(c.transfer_syntax[0]))
        for c in p.presentation_context_definition_results_list
    )
    return ltdic.AssociateAccept(*titles, results, application_context, info)


_ASSOCIATE = attrgetter("called_ae", "calling_ae", "application_context", "protocol_version")
_INFO = attrgetter("max_length", "implementation_class_uid", "implementation_version_name")
_PROPOSED = attrgetter("id", "abstract_syntax", "transfer_syntaxes")
_ANSWERED = attrgetter("id", "result", "transfer_syntax")


def _read_all(pdu: Any) -> None:
    """Read every field of an A-ASSOCIATE-RQ or A-ASSOCIATE-AC."""
    _ASSOCIATE(pdu)
    _INFO(pdu.user_info)
    read = _PROPOSED if pdu.type == 1 else _ANSWERED
    for context in pdu.contexts:
        read(context)


def _ltdic_decode(data: bytes) -> Timed:
    if data[0] > 2:
        return repeat(lambda: ltdic.decode(data))
    return repeat(lambda: _read_all(ltdic.decode(data)))


# ---- decode and encode -----------------------------------------------------------------------


def _decoders(name: str, data: bytes) -> Contenders:
    answers = {"ltdic Python": _text(ltdic.decode(data)), "pynetdicom": _text(_of_pynetdicom(data))}
    timed = {
        "ltdic Python": _ltdic_decode(data),
        "pynetdicom": repeat(lambda: _pynetdicom_decode(data)),
    }
    _add_compiled(answers, timed, "decode", data)
    agree(name, answers)
    yield from timed.items()


def _encoders(name: str, data: bytes) -> Contenders:
    pdu, primitive = ltdic.decode(data), _pynetdicom_decode(data)
    kind = _PYNETDICOM[data[0]]

    def by_pynetdicom() -> bytes:
        made = kind()
        made.from_primitive(primitive)
        return bytes(made.encode())

    answers = {"ltdic Python": ltdic.encode(pdu), "pynetdicom": by_pynetdicom()}
    timed = {
        "ltdic Python": repeat(lambda: ltdic.encode(pdu)),
        "pynetdicom": repeat(by_pynetdicom),
    }
    _add_compiled(answers, timed, "encode", data)
    agree(name, answers)
    yield from timed.items()


def _register(name: str, data: bytes) -> None:
    case(f"decode {name}", unit_bytes=len(data))(lambda: _decoders(f"decode {name}", data))
    case(f"encode {name}", unit_bytes=len(data))(lambda: _encoders(f"encode {name}", data))


for _name, _data in pdus.PDUS.items():
    _register(_name, _data)


@case("decode a run of 10,000 A-ASSOCIATE-RJ, each", unit_bytes=10, units=10_000)
def bulk() -> Contenders:
    data = pdus.REJECTS
    singles = [data[at : at + 10] for at in range(0, len(data), 10)]
    assert ltdic.decode_rejects(data).tobytes() == _answer(_library("ltdic C"), "rejects", data)
    yield "ltdic Python", repeat(lambda: ltdic.decode_rejects(data))
    for who in ("ltdic C", "floor C"):
        if (made := _compiled(who, "rejects", data)) is not None:
            yield who, made[1]
    if (made := _compiled("dicom-rs", "stream", data)) is not None:
        yield "dicom-rs", made[1]
    yield "pynetdicom", repeat(lambda: [_pynetdicom_decode(one) for one in singles])


@case("decode a stream of mixed PDUs, each", unit_bytes=len(pdus.MIXED) // 128, units=128)
def stream() -> Contenders:
    data = pdus.MIXED

    def by_ltdic() -> list[Any]:
        decoder = ltdic.Decoder()
        decoder.feed(data)
        return list(decoder.pdus())

    def by_pynetdicom() -> list[Any]:
        reader, found = io.BytesIO(data), []
        while header := reader.read(6):
            body = reader.read(int.from_bytes(header[2:], "big"))
            found.append(_pynetdicom_decode(header + body))
        return found

    answers, timed = {"ltdic Python": _text(*by_ltdic())}, {"ltdic Python": repeat(by_ltdic)}
    timed["pynetdicom"] = repeat(by_pynetdicom)
    _add_compiled(answers, timed, "stream", data)
    agree("stream", answers)
    yield from timed.items()


# ---- growth ----------------------------------------------------------------------------------


@case("decode A-ASSOCIATE-RQ of so many contexts: ltdic C")
def contexts() -> Contenders:
    for count in (1, 2, 4, 8, 16, 32, 64, 128):
        made = _compiled("ltdic C", "decode", pdus.request(count))
        assert made is not None
        yield str(count), made[1]


REQUESTS = {"1 context": pdus.request(1, 1), "128 contexts x 4": pdus.request(128)}


@case("refuse A-ASSOCIATE-RQ by its called title: ltdic C")
def refuse() -> Contenders:
    """The admission alone judges the request."""
    for name, data in REQUESTS.items():
        made = _compiled("ltdic C", "refuse", data)
        assert made is not None
        answer, timed = made
        agree(f"refuse {name}", {"PS3.8": bytes((1, 1, 7)), "ltdic C": answer})
        yield name, timed


STREAM = pdus.data(16378) * 64


@case("decode a stream in so many chunks: ltdic Python", seconds=0.1)
def chunks() -> Contenders:
    """One MiB. In chunks of one byte a 64th of it is decoded, and the time multiplied by 64."""
    for size in (1 << 20, 1 << 16, 1 << 12, 1 << 8, 1 << 4, 1):
        share = 1 if size > 1 else 64
        data = STREAM[: len(STREAM) // share]
        pieces = [data[at : at + size] for at in range(0, len(data), size)]

        def decode(pieces: list[bytes] = pieces) -> int:
            decoder, found = ltdic.Decoder(), 0
            for piece in pieces:
                decoder.feed(piece)
                found += sum(1 for _ in decoder.fragments())
            return found

        yield str(len(pieces) * share), _scaled(repeat(decode), share)


def _scaled(timed: Timed, times: int) -> Timed:
    return lambda count: times * timed(count)


# ---- callbacks -------------------------------------------------------------------------------

REJECTED = "pfnReceiveAssociateReject"


def _slot(function: Any, user_data: Any) -> tuple[Any, Any, Any]:
    """A handle with this callback, the C function in its slot, and its user data."""
    net = l_dicom.L_DicomCreateNet(None, l_dicom.DICOM_SECURE_NONE)
    l_dicom.L_DicomSetCallback(net, {REJECTED: function}, user_data)
    size = _ltdic_ffi.sizeof("DICOMNETCALLBACK")
    slots = _ltdic_ffi.new("DICOMNETCALLBACK *", {"uStructSize": size})
    user = _ltdic_ffi.new("L_VOID **")
    _ltdic_lib.L_DicomGetCallback(net, slots, user)
    return net, getattr(slots, REJECTED), user[0]


def _pointer(of_ltdic: Any) -> Any:
    """The same pointer for the other cffi module."""
    return _ffi.cast("void *", int(_ltdic_ffi.cast("uintptr_t", of_ltdic)))


@case("call back for a rejection")
def callbacks() -> Contenders:
    library = _ffi.dlopen(str(build.callbacks()))
    sums: dict[str, list[int]] = {}

    def plain(hNet: Any, result: int, source: int, reason: int, user_data: list[int]) -> None:
        user_data[0] += result + source + reason

    decorated = l_dicom.pEXT_CALLBACK("RECEIVEASSOCIATEREJECTCALLBACK")(
        lambda h, a, b, c, user: plain(h, a, b, c, sums["cffi"])
    )
    cell = _ffi.new("uint64_t *")
    in_c = int(_ffi.cast("uintptr_t", _ffi.addressof(library, "count_rejection")))
    sums["plain"], sums["cffi"] = [0], [0]
    for who, function, user_data in (
        ("C", in_c, _ltdic_ffi.cast("void *", int(_ffi.cast("uintptr_t", cell)))),
        ("@ffi.callback", decorated, None),
        ("Python function", plain, sums["plain"]),
    ):
        net, slot, user = _slot(function, user_data)
        pointers = [_pointer(p) for p in (slot, net, user)]

        def timed(count: int, pointers: list[Any] = pointers) -> int:
            return int(library.call_slot(*pointers, count))

        yield who, timed
