"""Arguments of wrong types, sizes and numbers: a call works or raises a documented error.

Every public callable is called with arguments of which one or two are wrong. `ALLOWED` has the
errors that it may raise; a crash ends this process.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import inspect
import math
import pickle
from collections.abc import Callable
from threading import TIMEOUT_MAX
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import ltdic
from ltdic import (
    PDV,
    Admission,
    Association,
    Decoder,
    Retry,
    aio,
    decode,
    encode,
    ffi,
    l_dicom,
    lib,
)
from ltdic.cli import fields as fields_module
from ltdic.cli.fields import pdu_fields
from ltdic.retry import Attempts
from support.associations import associate
from support.odd import ALLOWED, Changes, Longer, called, odd, released

# ---- the codec -------------------------------------------------------------------------------

ODD_ORDER = memoryview(b"abcdef")[::2]
REJECT = encode(ltdic.AssociateReject(1, 1, 7))
REQUEST = ltdic.AssociateRequest(
    "A",
    "B",
    (ltdic.ProposedContext(1, "1.2.840.10008.1.1", ("1.2.840.10008.1.2",)),),
    user_info=ltdic.UserInformation(
        max_length=16384,
        implementation_class_uid="1.2.3",
        implementation_version_name="NAME",
        async_ops=ltdic.AsyncOperations(1, 1),
        roles=(ltdic.RoleSelection("1.2.4", 1, 0),),
        extended=(ltdic.ExtendedNegotiation("1.2.4", b"info"),),
        common_extended=(ltdic.CommonExtendedNegotiation(0, "1.2", "1.3", ("1.4",)),),
        user_identity=ltdic.UserIdentity(2, 0, b"jdoe", b"hunter2"),
        unknown=(ltdic.UnknownItem(0x60, b"x"),),
    ),
    unknown_items=(ltdic.UnknownItem(0x70, b"y"),),
)
ACCEPT = ltdic.AssociateAccept(
    "A",
    "B",
    (ltdic.ContextResult(1, 0, "1.2.840.10008.1.2"),),
    user_info=ltdic.UserInformation(
        max_length=16384,
        implementation_class_uid="1.2.3",
        user_identity_response=ltdic.UserIdentityResponse(b"ticket"),
    ),
)
PDUS = [
    REQUEST,
    ACCEPT,
    ltdic.AssociateReject(1, 1, 7),
    ltdic.DataTransfer((PDV(1, True, True, b"ab"), PDV(3, False, False, b"cd"))),
    ltdic.ReleaseRequest(),
    ltdic.ReleaseResponse(),
    ltdic.Abort(0, 0),
]
PDUS += [decode(encode(pdu), exact=True) for pdu in PDUS]


def spoiled(data: st.DataObject, value: Any) -> Any:
    """Return the value with one part of it replaced by an odd value."""
    if dataclasses.is_dataclass(value) and data.draw(st.integers(0, 9)):
        name = data.draw(st.sampled_from([f.name for f in dataclasses.fields(value)]))
        return dataclasses.replace(value, **{name: spoiled(data, getattr(value, name))})
    if isinstance(value, tuple) and value and data.draw(st.integers(0, 3)):
        n = data.draw(st.integers(0, len(value) - 1))
        return (*value[:n], spoiled(data, value[n]), *value[n + 1 :])
    return data.draw(odd)


@given(st.data())
def test_encode_takes_any_value_or_raises_a_documented_error(data: st.DataObject) -> None:
    try:
        pdu = spoiled(data, data.draw(st.sampled_from(PDUS)))
        repr(pdu)
        wire = encode(pdu)
    except ALLOWED:
        return
    assert type(decode(wire, max_associate=0)) is type(pdu)


@given(st.data())
def test_a_value_of_odd_fields_is_copied_or_raises_a_documented_error(data: st.DataObject) -> None:
    try:
        pdu = spoiled(data, data.draw(st.sampled_from(PDUS)))
        copy.copy(pdu)
        copy.deepcopy(pdu)
        hash(pdu)
        str(pdu)
    except (*ALLOWED, pickle.PicklingError):
        pass


@given(st.data(), st.sampled_from([REJECT, *map(encode, PDUS[:4])]))
def test_decode_takes_any_argument_or_raises_a_documented_error(
    data: st.DataObject, wire: bytes
) -> None:
    options = {"strict": False, "max_pdata": 0, "max_associate": 0, "exact": False}
    called(data, decode, wire, **options)
    called(data, ltdic.decode_rejects, wire)
    made, decoder = called(data, Decoder, **options)
    decoder = decoder if made else Decoder()
    for _ in range(2):
        called(data, decoder.feed, wire)
    for method in (Decoder.fragments, Decoder.pdus):
        try:
            list(method(decoder))
        except (*ALLOWED, RuntimeError):
            pass


@given(st.data(), st.sampled_from([REJECT, *map(encode, PDUS[:4])]))
def test_pdu_fields_takes_any_argument_or_raises_a_documented_error(
    data: st.DataObject, wire: bytes
) -> None:
    called(data, pdu_fields, wire, 0, strict=False)


@pytest.mark.parametrize("start", [-1, 11, 1 << 64])
def test_the_start_of_pdu_fields_must_be_inside_the_data(start: int) -> None:
    with pytest.raises(ValueError, match=f"^start is {start}, not 0 to 10$"):
        pdu_fields(REJECT, start)


@pytest.mark.parametrize(
    "function", [decode, ltdic.decode_rejects, Decoder().feed, pdu_fields], ids=lambda f: f.__name__
)
@pytest.mark.parametrize("value", ["text", 5, None, [3], ODD_ORDER, released()])
def test_a_value_that_is_not_bytes_is_named(function: Callable[[Any], Any], value: Any) -> None:
    if function.__name__ == "feed" and value is ODD_ORDER:
        return  # this function takes a buffer of any layout
    with pytest.raises(TypeError, match=r"^data: "):
        function(value)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("contexts", 5),
        ("contexts", (None,)),
        ("unknown_items", (b"",)),
        ("user_info", {}),
        ("user_info.roles", ("1.2",)),
        ("user_info.async_ops", (1, 1)),
        ("user_info.async_ops", ltdic.AsyncOperations("1", 1)),
        ("user_info.extended", "1.2"),
        ("user_info.common_extended", (None,)),
        ("user_info.user_identity", "jdoe"),
        ("user_info.max_length", "16384"),
        ("protocol_version", 1.5),
        ("wire", 5),
    ],
)
def test_a_field_of_a_wrong_type_is_named(path: str, value: Any) -> None:
    *outer, name = path.split(".")
    if outer:
        value = dataclasses.replace(REQUEST.user_info, **{name: value})
    with pytest.raises(TypeError, match=f"^{name}(: | is one text)"):
        encode(dataclasses.replace(REQUEST, **{outer[0] if outer else name: value}))


# ---- values, admissions, retries -------------------------------------------------------------


def fields_of(cls: Any) -> dict[str, Any]:
    """Return valid arguments for all fields that have a default."""
    made = {}
    for field in dataclasses.fields(cls):
        if field.default is not dataclasses.MISSING:
            made[field.name] = field.default
        elif field.default_factory is not dataclasses.MISSING:
            made[field.name] = field.default_factory()
    return made


@given(st.data())
def test_an_admission_takes_any_argument_or_raises_a_documented_error(data: st.DataObject) -> None:
    made, admission = called(data, Admission, **fields_of(Admission))
    if made:
        repr(admission)
        called(data, admission.policy, 0, True)


@pytest.mark.parametrize("name", [n for n in fields_of(Admission) if n != "answer_verification"])
@pytest.mark.parametrize("value", [5.5, object(), (5,), [None], {5: 5}])
def test_an_argument_of_an_admission_of_a_wrong_type_is_named(name: str, value: Any) -> None:
    with pytest.raises((TypeError, ValueError), match=f"^{name}(: | of | is )"):
        Admission(**{name: value}).policy(0, True)


def test_a_changed_admission_is_checked_again() -> None:
    called = ["A"]
    admission = Admission(called=called)
    called.append(5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"^called: "):
        admission.policy(0, True)


def test_a_wrong_user_name_or_passcode_is_not_shown() -> None:
    for users in ({b"jdoe": None}, {"jdoe": b"hunter2"}):
        with pytest.raises(TypeError, match=r"^identity: ") as caught:
            Admission(identity=users)  # type: ignore[arg-type]
        assert "jdoe" not in str(caught.value)
        assert "hunter2" not in str(caught.value)


@given(st.data())
def test_a_retry_takes_any_argument_or_raises_a_documented_error(data: st.DataObject) -> None:
    made, retry = called(data, Retry, **fields_of(Retry))
    if made:
        called(data, retry.wait, 1)
        assert 0 <= retry.wait(1) < math.inf


def test_a_value_that_is_not_a_retry_is_named() -> None:
    with pytest.raises(TypeError, match=r"^retry: int where Retry must be$"):
        Attempts(5, 0.0)  # type: ignore[arg-type]


def test_a_wait_never_exceeds_the_longest_sleep_of_the_system() -> None:
    """This includes numbers whose power would take for ever to compute, or is not a time."""
    for fields in ({"factor": 10}, {"first": math.inf}, {"first": 10**400, "factor": 1}):
        retry = Retry(ceiling=math.inf, **fields)
        assert 0 <= retry.wait(1 << 60) <= TIMEOUT_MAX
        assert 0 <= retry.wait(2) <= TIMEOUT_MAX


@pytest.mark.parametrize("name", fields_of(Retry))
def test_an_argument_of_a_retry_of_a_wrong_type_is_named(name: str) -> None:
    with pytest.raises(TypeError, match=f"^{name}: "):
        Retry(**{name: "3"})


@given(st.data(), st.sampled_from([c for c in vars(ltdic).values() if inspect.isclass(c)]))
def test_every_class_is_made_or_raises_a_documented_error(data: st.DataObject, cls: Any) -> None:
    if cls.__name__ in OWN_TESTS:
        return
    count = data.draw(st.integers(0, 8))
    with contextlib.suppress(ALLOWED):
        str(cls(*[data.draw(odd) for _ in range(count)]))


OWN_TESTS = ("Server", "ServedAssociation", "SyncAssociation", "Association", "Admission", "Retry")


# ---- an association --------------------------------------------------------------------------


def established() -> tuple[Association, Association]:
    return associate(REQUEST, ACCEPT)


ECHO = ltdic.Echo(1, True, 1, 0, "1.2.840.10008.1.1")


@given(st.data())
def test_an_association_is_made_or_raises_a_documented_error(data: st.DataObject) -> None:
    options: dict[str, Any] = {"requestor": True, "exact": False, "timeout": 1.0, "idle": None}
    made, association = called(data, Association, **options)
    if made:
        called(data, association.set_timeouts, 1.0, None)
        called(data, association.send, REQUEST)


@pytest.mark.slow
@given(st.data())
def test_an_association_takes_any_argument_or_raises_a_documented_error(
    data: st.DataObject,
) -> None:
    requestor, acceptor = established()
    for end in (requestor, acceptor):
        for _ in range(3):
            with contextlib.suppress(ALLOWED):
                end.send(spoiled(data, data.draw(st.sampled_from([*PDUS, *PDUS[3].pdvs]))))
        called(data, end.send_echo, 1, 1)
        with contextlib.suppress(ALLOWED):
            end.answer_echo(spoiled(data, ECHO))
        called(data, end.receive_data, b"\4\0")
        list(end.events())
        end.data_to_send()


@pytest.mark.parametrize("kind", [0, 4, 9, "x"])
@pytest.mark.parametrize("pdu", [*PDUS[:3], *PDUS[4:7]], ids=lambda pdu: type(pdu).__name__)
def test_a_subclass_with_another_type_code_is_encoded_as_its_base(pdu: Any, kind: Any) -> None:
    base = type(pdu)
    fields = {f.name: getattr(pdu, f.name) for f in dataclasses.fields(pdu)}
    assert encode(type("Another", (base,), {"type": kind})(**fields)) == encode(pdu)


@pytest.mark.parametrize("what", [*PDUS[3::7], "x", None, 5, PDV], ids=repr)
def test_sending_a_value_that_is_not_a_pdu_is_a_type_error(what: Any) -> None:
    requestor, _ = established()
    with pytest.raises(TypeError, match=r"P-DATA-TF|PDU"):
        requestor.send(what)
    assert requestor.data_to_send() == b""
    assert requestor.established


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"context_id": "1"}, "context_id"),
        ({"context_id": 256}, "context_id"),
        ({"data": "text"}, "data"),
        ({"data": memoryview(b"abcdef")[::2]}, "data"),
    ],
)
def test_a_field_of_a_pdv_that_is_wrong_is_named(fields: Any, name: str) -> None:
    requestor, _ = established()
    with pytest.raises((TypeError, ValueError), match=f"^{name}"):
        requestor.send(dataclasses.replace(PDV(1, True, True, b"ab"), **fields))


def test_bytes_with_a_wrong_len_are_sent_whole() -> None:
    requestor, acceptor = established()
    requestor.send(PDV(1, True, True, Longer(b"ab")))
    acceptor.receive_data(Longer(requestor.data_to_send()))
    (pdv,) = acceptor.events()
    assert bytes(pdv.data) == b"ab"


@pytest.mark.parametrize("value", ["text", 5, None, [1], object(), released()])
def test_receiving_a_value_that_is_not_bytes_is_a_type_error(value: Any) -> None:
    requestor, acceptor = established()
    acceptor.receive_data(bytes(1))  # it has received the first byte
    for end in (requestor, acceptor):
        with pytest.raises(TypeError, match=r"^data: "):
            end.receive_data(value)


@pytest.mark.parametrize(
    "uid", ["1" * 65, "1.2\0.3", "a b", "\ud800", ""], ids=["long", "NUL", "text", "lone", "empty"]
)
def test_an_echo_is_answered_with_a_uid_alone(uid: str) -> None:
    requestor, _ = established()
    with pytest.raises(ValueError, match=r"is no UID$"):
        requestor.answer_echo(dataclasses.replace(ECHO, sop_class_uid=uid))


# ---- the L_Dicom API -------------------------------------------------------------------------

NET, OBJECT = ffi.typeof("HDICOMNET"), ffi.typeof("HDICOMPDU")
TEXT_TYPES = (ffi.typeof("char *"), ffi.typeof("char const *"))
HOSTS = ["127.0.0.1", "", "*", "::1", "a\0b", "127.0.0.1\0.evil", b"127.0.0.1\0", b"127.0.0.1"]
FUNCTIONS = [n for n in l_dicom.__all__ if n.startswith("L_")]
BY_HAND: dict[str, list[Any]] = {
    "L_DicomSetCallback": [NET, {"pfnClose": print}, None],
    "L_DicomGetCallback": [NET],
    "L_DicomSendData": [NET, 1, 3, b"ab", 2],
    "L_DicomGetAsyncOperations": [OBJECT],
    "L_DicomGetRoleSelect": [OBJECT, "1.2.3"],
    "L_DicomSetExtended": [OBJECT, "1.2.3", b"info"],
    "L_DicomGetExtended": [OBJECT, "1.2.3"],
    "L_DicomSetUserIdentity": [OBJECT, 2, True, b"jdoe", b"hunter2"],
    "L_DicomGetUserIdentity": [OBJECT],
    "L_DicomGetHostInfo": [NET],
    "L_DicomGetPeerInfo": [NET],
}


def good_arguments(name: str) -> list[Any]:
    """Return valid arguments of a function; the type stands in for a handle."""
    if name in BY_HAND:
        return BY_HAND[name]
    found: list[Any] = []
    for kind in ffi.typeof(getattr(lib, name)).args:
        found.append(kind if kind in (NET, OBJECT) else "1.2.3" if kind in TEXT_TYPES else 1)
    return found


class Handles:
    """One handle of each kind for an example, freed after it."""

    def __init__(self) -> None:
        self.net = l_dicom.L_DicomCreateNet(None, 0)
        self.freed = l_dicom.L_DicomCreateNet(None, 0)
        self.pdu = l_dicom.L_DicomCreateAssociate(True)
        l_dicom.L_DicomDefaultAssociate(self.pdu)
        l_dicom.L_DicomFreeNet(self.freed)
        made_up = [
            ffi.cast("HDICOMNET", n)
            for n in (1, 5, (1 << 64) - 1, int(ffi.cast("uintptr_t", self.net)) + 1)
        ]
        self.nets = [self.net, self.net, self.freed, None, ffi.NULL, 0, "x", b"x", [], *made_up]
        self.objects = [self.pdu, self.pdu, None, ffi.NULL, 0, "x", b"x", []]

    def free(self) -> None:
        l_dicom.L_DicomFreeNet(self.net)
        if self.pdu is not None:
            l_dicom.L_DicomFreeAssociate(self.pdu)


def odd_arguments(data: st.DataObject, name: str, handles: Handles) -> list[Any]:
    good = good_arguments(name)
    changed = data.draw(st.sets(st.integers(0, len(good)), max_size=2))
    found: list[Any] = []
    for n, value in enumerate(good):
        if value is NET or value is OBJECT:
            found.append(
                data.draw(st.sampled_from(handles.nets if value is NET else handles.objects))
            )
        elif "Listen" in name or "Connect" in name:
            pool = HOSTS if isinstance(value, str) else [0, 1, 2, 3, -1, 1 << 40, None, "x", 1.5]
            found.append(data.draw(st.sampled_from(pool)))
        else:
            found.append(data.draw(odd) if n in changed else value)
    return found


def takes_too_long(name: str, arguments: list[Any]) -> bool:
    """Tell whether these arguments ask for a long wait."""
    most = arguments[1] if name == "L_DicomWait" else 0
    return (
        isinstance(most, (int, Changes))
        and not (isinstance(most, int) and most < 300)
        and most != 1 << 32
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", FUNCTIONS)
@given(st.data())
def test_a_function_of_l_dicom_takes_any_argument_or_raises_a_documented_error(
    name: str, data: st.DataObject
) -> None:
    handles = Handles()
    try:
        arguments = odd_arguments(data, name, handles)
        if takes_too_long(name, arguments):
            return
        if name == "L_DicomFreeAssociate" and arguments[0] is handles.pdu:
            handles.pdu = None
        made = getattr(l_dicom, name)(*arguments)
        if name == "L_DicomCreateNet" and made:
            l_dicom.L_DicomFreeNet(made)
        if name == "L_DicomCreateAssociate" and made:
            l_dicom.L_DicomFreeAssociate(made)
        if name == "L_DicomStartUp":
            l_dicom.L_DicomShutDown()
    except (*ALLOWED, OverflowError):
        pass
    finally:
        handles.free()


def with_text() -> list[Any]:
    """Return every function with each of its arguments that is text."""
    found = []
    for name in FUNCTIONS:
        for n, kind in enumerate(ffi.typeof(getattr(lib, name)).args):
            if kind in TEXT_TYPES and name not in ("L_DicomGetHostInfo", "L_DicomGetPeerInfo"):
                found.append(pytest.param(name, n, id=f"{name}-{n}"))
    return found


@pytest.mark.parametrize("text", ["1.2.3\0.4", b"1.2.3\0", "\0"])
@pytest.mark.parametrize(("name", "place"), with_text())
def test_a_nul_inside_a_text_is_refused(name: str, place: int, text: Any) -> None:
    handles = Handles()
    arguments = good_arguments(name)
    arguments = [handles.net if a is NET else handles.pdu if a is OBJECT else a for a in arguments]
    arguments[place] = text
    try:
        with pytest.raises(ValueError, match=f"^{name}: .*NUL"):
            getattr(l_dicom, name)(*arguments)
    finally:
        handles.free()


@pytest.mark.parametrize(("name", "place"), with_text())
@pytest.mark.parametrize("value", [[b"1", b"2"], (b"1",), bytearray(b"1"), 5], ids=repr)
def test_an_argument_that_is_not_text_is_refused(name: str, place: int, value: Any) -> None:
    """This includes a list: C would get an array of characters without a NUL at its end."""
    handles = Handles()
    arguments = good_arguments(name)
    arguments = [handles.net if a is NET else handles.pdu if a is OBJECT else a for a in arguments]
    arguments[place] = value
    try:
        with pytest.raises(TypeError, match=f"^{name}: "):
            getattr(l_dicom, name)(*arguments)
    finally:
        handles.free()


def test_bytes_with_a_wrong_len_are_carried_whole() -> None:
    pdu = l_dicom.L_DicomCreateAssociate(True)
    assert l_dicom.L_DicomSetExtended(pdu, "1.2", Longer(b"ab")) == l_dicom.DICOM_SUCCESS
    assert l_dicom.L_DicomGetExtended(pdu, "1.2") == b"ab"
    secret = Longer(b"jdoe"), Longer(b"hunter2")
    assert l_dicom.L_DicomSetUserIdentity(pdu, 2, False, *secret) == l_dicom.DICOM_SUCCESS
    assert l_dicom.L_DicomGetUserIdentity(pdu) == (2, False, b"jdoe", b"hunter2")
    l_dicom.L_DicomFreeAssociate(pdu)


@pytest.mark.parametrize(
    "call",
    [
        lambda pdu, wrong: l_dicom.L_DicomSetExtended(pdu, "1.2", wrong),
        lambda pdu, wrong: l_dicom.L_DicomSetUserIdentity(pdu, 1, False, wrong),
        lambda pdu, wrong: l_dicom.L_DicomSetUserIdentity(pdu, 2, False, b"", wrong),
        lambda pdu, wrong: l_dicom.L_DicomSendData(ffi.NULL, 1, 3, wrong, 0),
    ],
)
@pytest.mark.parametrize("wrong", ["text", 5, None, [1, 2], memoryview(b"abcdef")[::2]], ids=repr)
def test_bytes_of_l_dicom_of_a_wrong_type_are_named(call: Any, wrong: Any) -> None:
    pdu = l_dicom.L_DicomCreateAssociate(True)
    with pytest.raises(TypeError, match=r"^p[A-Z][a-z]+: "):
        call(pdu, wrong)
    l_dicom.L_DicomFreeAssociate(pdu)


def test_a_number_that_changes_is_read_once() -> None:
    with pytest.raises(ValueError, match="are no 1048576"):
        l_dicom.L_DicomSendData(ffi.NULL, 1, 3, b"ab", Changes())  # type: ignore[arg-type]


@given(odd, odd)
def test_a_callback_is_made_of_a_function_or_raises_a_documented_error(
    ctype: Any, function: Any
) -> None:
    for kind in (ctype, "CLOSECALLBACK"):
        with contextlib.suppress(ALLOWED):
            l_dicom.pEXT_CALLBACK(kind)(function)


@pytest.mark.parametrize("slots", [[], "", (), None, 5, {"pfnClose"}, {"pfnClose": True}])
def test_callbacks_are_a_mapping_of_functions(slots: Any) -> None:
    with pytest.raises(TypeError):
        l_dicom.L_DicomSetCallback(ffi.NULL, slots)


def test_null_is_an_unknown_handle() -> None:
    unknown = l_dicom.DICOM_ERROR_HANDLE
    assert l_dicom.L_DicomSetCallback(None, {}) == unknown
    assert l_dicom.L_DicomGetCallback(None) == ({}, None)
    assert l_dicom.L_DicomWait(None, 1) == unknown
    assert l_dicom.L_DicomSendData(None, 1, 3, b"ab", 2) == unknown
    assert l_dicom.L_DicomGetAsyncOperations(None) == (False, 1, 1)
    assert l_dicom.L_DicomGetRoleSelect(None, "1.2") == (False, True, False)
    assert l_dicom.L_DicomGetExtended(None, "1.2") is None
    assert l_dicom.L_DicomGetUserIdentity(None) is None
    with pytest.raises(OSError, match="handle"):
        l_dicom.L_DicomGetHostInfo(None)


# ---- coverage of the public API --------------------------------------------------------------

TRIED = {
    *("decode", "decode_rejects", "encode", "Decoder", "Admission", "Retry", "Association"),
    *(
        "connect",
        "Server",
        "ServedAssociation",
        "SyncAssociation",
    ),  # tried in test_arguments_served.py
    *("get_include", "get_sources"),  # they take no arguments
}


def test_every_public_callable_is_tried() -> None:
    classes = {name for name in ltdic.__all__ if inspect.isclass(getattr(ltdic, name))}
    functions = {name for name in ltdic.__all__ if inspect.isfunction(getattr(ltdic, name))}
    assert functions | set(OWN_TESTS) <= TRIED
    assert classes - set(OWN_TESTS)
    assert {n for n in vars(aio) if n in ("connect", "Server")} == {"connect", "Server"}
    assert set(FUNCTIONS) | {"pEXT_CALLBACK"} == {
        name for name in l_dicom.__all__ if callable(getattr(l_dicom, name))
    }
    assert fields_module.pdu_fields is pdu_fields
