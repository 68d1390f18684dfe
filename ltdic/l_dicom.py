"""The L_Dicom C API of `l_dicom.h` under its own names, and `pEXT_CALLBACK`.

Every function takes the arguments of the C function, with `str` or `bytes` for text and `None` for
NULL. A text with a NUL inside, which C would cut there, raises `ValueError`. Text that C returns is
a `str`; bytes in it that are not UTF-8 are kept (`surrogateescape`).

`L_DicomSetCallback` takes three kinds of callbacks: a function decorated with `pEXT_CALLBACK`; a C
function pointer, as cdata or as an address, which is called without Python; or a plain Python
function. The handle keeps a reference to it as long as C may call it.

If callbacks raise, the `L_DicomBreathe` or `L_DicomWait` that called them raises the first of these
exceptions.

As in C, each thread has handles of its own.
"""

from __future__ import annotations

import math
import sys
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from operator import index
from types import TracebackType
from typing import Any

from ._arguments import one, view_of, wrong_type
from ._begun import has_begun
from ._ffi import ffi, lib
from ._native.codec import Buffer

# ---- constants -------------------------------------------------------------------------------

TRUE = 1
FALSE = 0

COMMAND_DATASET_ABSENT: int = lib.COMMAND_DATASET_ABSENT
COMMAND_DATASET_PRESENT: int = lib.COMMAND_DATASET_PRESENT
COMMAND_PRIORITY_HIGH: int = lib.COMMAND_PRIORITY_HIGH
COMMAND_PRIORITY_LOW: int = lib.COMMAND_PRIORITY_LOW
COMMAND_PRIORITY_MEDIUM: int = lib.COMMAND_PRIORITY_MEDIUM
COMMAND_PRIORTY_HIGH: int = lib.COMMAND_PRIORTY_HIGH
COMMAND_STATUS_PENDING: int = lib.COMMAND_STATUS_PENDING
COMMAND_STATUS_SUCCESS: int = lib.COMMAND_STATUS_SUCCESS
DICOM_ERROR_ABORTED: int = lib.DICOM_ERROR_ABORTED
DICOM_ERROR_ADDRESS: int = lib.DICOM_ERROR_ADDRESS
DICOM_ERROR_BUSY: int = lib.DICOM_ERROR_BUSY
DICOM_ERROR_CLOSED: int = lib.DICOM_ERROR_CLOSED
DICOM_ERROR_CONNECT: int = lib.DICOM_ERROR_CONNECT
DICOM_ERROR_HANDLE: int = lib.DICOM_ERROR_HANDLE
DICOM_ERROR_INTERRUPTED: int = lib.DICOM_ERROR_INTERRUPTED
DICOM_ERROR_MEMORY: int = lib.DICOM_ERROR_MEMORY
DICOM_ERROR_PARAMETER: int = lib.DICOM_ERROR_PARAMETER
DICOM_ERROR_PROTOCOL: int = lib.DICOM_ERROR_PROTOCOL
DICOM_ERROR_STATE: int = lib.DICOM_ERROR_STATE
DICOM_ERROR_SYSTEM: int = lib.DICOM_ERROR_SYSTEM
DICOM_ERROR_TIMEOUT: int = lib.DICOM_ERROR_TIMEOUT
DICOM_IPTYPE_IPV4: int = lib.DICOM_IPTYPE_IPV4
DICOM_IPTYPE_IPV4_OR_IPV6: int = lib.DICOM_IPTYPE_IPV4_OR_IPV6
DICOM_IPTYPE_IPV6: int = lib.DICOM_IPTYPE_IPV6
DICOM_IPTYPE_NONE: int = lib.DICOM_IPTYPE_NONE
DICOM_SECURE_NONE: int = lib.DICOM_SECURE_NONE
DICOM_SUCCESS: int = lib.DICOM_SUCCESS
PDU_ABORT: int = lib.PDU_ABORT
PDU_ABORT_REASON_INVALID_PARAM: int = lib.PDU_ABORT_REASON_INVALID_PARAM
PDU_ABORT_REASON_UNEXPECTED: int = lib.PDU_ABORT_REASON_UNEXPECTED
PDU_ABORT_REASON_UNEXPECTED_PARAM: int = lib.PDU_ABORT_REASON_UNEXPECTED_PARAM
PDU_ABORT_REASON_UNKNOWN: int = lib.PDU_ABORT_REASON_UNKNOWN
PDU_ABORT_REASON_UNRECOGNIZED: int = lib.PDU_ABORT_REASON_UNRECOGNIZED
PDU_ABORT_REASON_UNRECOGNIZED_PARAM: int = lib.PDU_ABORT_REASON_UNRECOGNIZED_PARAM
PDU_ABORT_SOURCE_PROVIDER: int = lib.PDU_ABORT_SOURCE_PROVIDER
PDU_ABORT_SOURCE_USER: int = lib.PDU_ABORT_SOURCE_USER
PDU_ACCEPT_RESULT_ABSTRACT_SYNTAX: int = lib.PDU_ACCEPT_RESULT_ABSTRACT_SYNTAX
PDU_ACCEPT_RESULT_PROVIDER_REJECT: int = lib.PDU_ACCEPT_RESULT_PROVIDER_REJECT
PDU_ACCEPT_RESULT_SUCCESS: int = lib.PDU_ACCEPT_RESULT_SUCCESS
PDU_ACCEPT_RESULT_TRANSFER_SYNTAX: int = lib.PDU_ACCEPT_RESULT_TRANSFER_SYNTAX
PDU_ACCEPT_RESULT_USER_REJECT: int = lib.PDU_ACCEPT_RESULT_USER_REJECT
PDU_ASSOCIATE_ACCEPT: int = lib.PDU_ASSOCIATE_ACCEPT
PDU_ASSOCIATE_REJECT: int = lib.PDU_ASSOCIATE_REJECT
PDU_ASSOCIATE_REQUEST: int = lib.PDU_ASSOCIATE_REQUEST
PDU_DATA_TRANSFER: int = lib.PDU_DATA_TRANSFER
PDU_IDENTITY_JWT: int = lib.PDU_IDENTITY_JWT
PDU_IDENTITY_KERBEROS: int = lib.PDU_IDENTITY_KERBEROS
PDU_IDENTITY_PASSCODE: int = lib.PDU_IDENTITY_PASSCODE
PDU_IDENTITY_SAML: int = lib.PDU_IDENTITY_SAML
PDU_IDENTITY_USERNAME: int = lib.PDU_IDENTITY_USERNAME
PDU_REJECT_REASON_APPLICATION: int = lib.PDU_REJECT_REASON_APPLICATION
PDU_REJECT_REASON_CALLED: int = lib.PDU_REJECT_REASON_CALLED
PDU_REJECT_REASON_CALLING: int = lib.PDU_REJECT_REASON_CALLING
PDU_REJECT_REASON_CONGESTION: int = lib.PDU_REJECT_REASON_CONGESTION
PDU_REJECT_REASON_LIMIT: int = lib.PDU_REJECT_REASON_LIMIT
PDU_REJECT_REASON_UNKNOWN: int = lib.PDU_REJECT_REASON_UNKNOWN
PDU_REJECT_REASON_VERSION: int = lib.PDU_REJECT_REASON_VERSION
PDU_REJECT_RESULT_PERMANENT: int = lib.PDU_REJECT_RESULT_PERMANENT
PDU_REJECT_RESULT_TRANSIENT: int = lib.PDU_REJECT_RESULT_TRANSIENT
PDU_REJECT_SOURCE_PROVIDER1: int = lib.PDU_REJECT_SOURCE_PROVIDER1
PDU_REJECT_SOURCE_PROVIDER2: int = lib.PDU_REJECT_SOURCE_PROVIDER2
PDU_REJECT_SOURCE_USER: int = lib.PDU_REJECT_SOURCE_USER
PDU_RELEASE_REQUEST: int = lib.PDU_RELEASE_REQUEST
PDU_RELEASE_RESPONSE: int = lib.PDU_RELEASE_RESPONSE
PDU_UNKNOWN: int = lib.PDU_UNKNOWN

# ---- exceptions of callbacks, and objects that must live while C may use them -----------------


class _Thread(threading.local):
    """State of a thread: handles belong to one thread."""

    def __init__(self) -> None:
        self.raised: BaseException | None = None
        self.depth = 0  # nested calls of L_DicomBreathe and L_DicomWait
        self.broken = False  # L_DicomBreakWait was called for the innermost L_DicomWait
        self.handles: dict[int, _Handle] = {}
        self.dropped: list[_Handle] = []  # kept until no callback of them can be running


class _Handle:
    """Keeps the callbacks of a handle and their user data alive."""

    def __init__(self, slots: dict[str, Any], user_data: Any) -> None:
        self.slots = slots
        self.user_data = user_data
        self.functions: dict[str, Callable[..., Any]] = {}
        self.token: Any = ffi.NULL  # stands for user_data in C


_thread = _Thread()
_user_data: dict[int, Any] = {}  # by address of the token


def _keep_exception(
    kind: type[BaseException], raised: BaseException, where: TracebackType | None
) -> None:
    if _thread.depth == 0:  # called by other C code, not by L_DicomBreathe or L_DicomWait
        sys.excepthook(kind, raised, where)
        return
    _thread.raised = _thread.raised or raised
    lib.L_DicomBreakWait(ffi.NULL)


def _reraise() -> None:
    raised, _thread.raised = _thread.raised, None
    if raised is not None:
        raise raised


def _address(pointer: Any) -> int:
    return int(ffi.cast("uintptr_t", pointer))


def _drop(handle: int) -> None:
    kept = _thread.handles.pop(handle, None)
    if kept is not None:
        _user_data.pop(_address(kept.token), None)
        if _thread.depth > 0:
            _thread.dropped.append(kept)


# ---- callbacks -------------------------------------------------------------------------------

_MOST_TRIES = 10
"""How often a callback is called, at most, if signal handlers raise before it has begun."""


def _called_by_c(find: Callable[..., Callable[[], Any]]) -> tuple[Any, Any]:
    """Return the function that C calls, and the one that cffi calls if it raises. `find` takes C's
    arguments and returns the user's function with its arguments bound.

    An exception of a signal handler may come before the user's function has begun. The second
    function then calls it, so that no callback is lost."""

    def call(*arguments: Any) -> None:
        found = find(*arguments)
        found()  # without `*`: after unpacking, a signal may be handled before the call

    def fail(kind: type[BaseException], raised: BaseException, where: TracebackType | None) -> None:
        last = where
        for _ in range(_MOST_TRIES):
            try:
                if not _is_called(last):
                    assert last is not None
                    arguments = last.tb_frame.f_locals["arguments"]
                    last = None  # now a signal handled in this frame does not repeat the call
                    call(*arguments)
                break
            except BaseException as e:  # the first exception is the one that is kept
                inside = e.__traceback__.tb_next if e.__traceback__ is not None else None
                if inside is not None and inside.tb_frame.f_code is call.__code__:
                    last = inside
        _keep_exception(kind, raised, where)

    return call, fail


def _is_called(where: TracebackType | None) -> bool:
    """Tell whether the user's function had begun when `call` raised."""
    return where is None or ("found" in where.tb_frame.f_locals and has_begun(where))


def _do_nothing() -> None:
    """Stand for a callback that is not set."""


# Type of each member of DICOMNETCALLBACK, from the C struct.
_SLOTS: dict[str, str] = {
    name: name[3:].upper() + "CALLBACK"
    for name, _ in ffi.typeof("DICOMNETCALLBACK").fields
    if name.startswith("pfn")
}


def _user_data_of(pointer: Any) -> Any:
    """Return the Python object for which C's user data stands, or the pointer if it is another."""
    return _user_data.get(_address(pointer), pointer)


def pEXT_CALLBACK(ctype: str) -> Callable[[Callable[..., Any]], Any]:
    """Decorate a function: make a C function pointer of the typedef `ctype` from it.

    C may call the pointer only while the returned object exists: decorate at module level, or pass
    it to `L_DicomSetCallback`, which keeps it. Raises `MemoryError` on a host that forbids
    executable memory made at run time: there, pass the plain function to `L_DicomSetCallback`.
    """
    if ctype not in _SLOTS.values():
        raise ValueError(f"{ctype!r} is no callback type; these are: {', '.join(_SLOTS.values())}")

    def decorate(function: Callable[..., Any]) -> Any:
        if not callable(function):
            raise wrong_type("function", function, "a function")

        def find(*arguments: Any) -> Callable[[], Any]:
            return partial(function, *arguments[:-1], _user_data_of(arguments[-1]))

        call, fail = _called_by_c(find)
        try:
            return ffi.callback(ctype, call, onerror=fail)
        except MemoryError as e:
            raise MemoryError(
                "this host forbids executable memory made at run time; "
                "give L_DicomSetCallback the plain function instead"
            ) from e

    return decorate


def _define_trampoline(slot: str, ctype: str) -> None:
    """Define the static C function that calls a plain Python function set for `slot`."""

    def find(hNet: Any, *arguments: Any) -> Callable[[], Any]:
        handle = _thread.handles.get(_address(hNet))
        function = handle.functions.get(slot) if handle is not None else None
        if handle is None or function is None:
            return _do_nothing
        return partial(function, hNet, *arguments[:-1], handle.user_data)

    call, fail = _called_by_c(find)
    ffi.def_extern(name=f"on_{ctype}", onerror=fail)(call)


for _slot, _ctype in _SLOTS.items():
    _define_trampoline(_slot, _ctype)


def _c_pointer(handle: _Handle, slot: str, value: Any) -> Any:
    ctype = _SLOTS[slot]
    if value is None:
        return ffi.NULL
    if isinstance(value, ffi.CData):
        return value if ffi.typeof(value) is ffi.typeof(ctype) else ffi.cast(ctype, value)
    if isinstance(value, int) and not isinstance(value, bool):
        return ffi.cast(ctype, value)
    if callable(value):
        handle.functions[slot] = value
        return getattr(lib, f"on_{ctype}")
    raise TypeError(f"{slot}: {value!r} is no function and no function pointer")


def L_DicomSetCallback(hNet: Any, pCallback: Mapping[str, Any], pUserData: Any = None) -> int:
    """Set all callbacks of a handle: `{"pfnReceive...": function}`; those left out are not called.

    `pUserData` is any Python object; each callback gets it as its last argument. A cdata pointer is
    passed on unchanged, for callbacks in C.
    """
    unknown = set(one("pCallback", pCallback, Mapping)) - set(_SLOTS)
    if unknown:
        raise ValueError(f"no such slot: {', '.join(sorted(map(str, unknown)))}")
    handle = _Handle(dict(pCallback), pUserData)
    callbacks = ffi.new("DICOMNETCALLBACK *", {"uStructSize": ffi.sizeof("DICOMNETCALLBACK")})
    for slot, value in pCallback.items():
        setattr(callbacks, slot, _c_pointer(handle, slot, value))
    if isinstance(pUserData, ffi.CData):
        handle.token = pUserData
    elif pUserData is not None:
        handle.token = ffi.new_handle(pUserData)
    code = int(lib.L_DicomSetCallback(_net(hNet), callbacks, handle.token))
    if code == lib.DICOM_SUCCESS:
        _drop(_address(hNet))
        _thread.handles[_address(hNet)] = handle
        if pUserData is not None and not isinstance(pUserData, ffi.CData):
            _user_data[_address(handle.token)] = pUserData
    return code


def L_DicomGetCallback(hNet: Any) -> tuple[dict[str, Any], Any]:
    """Return the callbacks that were set, and the user data."""
    handle = _thread.handles.get(_address(_net(hNet)))
    return (dict(handle.slots), handle.user_data) if handle is not None else ({}, None)


# ---- pumping ---------------------------------------------------------------------------------

_SIGNAL_CHECK = 500  # ms of one wait: a signal that comes just before it is noticed after it


def _pump(function: Callable[..., Any], *arguments: Any) -> Any:
    _thread.depth += 1
    try:
        return function(*arguments)
    finally:
        _thread.depth -= 1
        if _thread.depth == 0:
            _thread.dropped.clear()
        _reraise()


def L_DicomBreathe() -> None:
    """Dispatch all events that are ready on this thread; raise the first exception of callbacks."""
    _pump(lib.L_DicomBreathe)


def L_DicomWait(hNet: Any, nMilliseconds: int) -> int:
    """Wait until an event of `hNet` was dispatched, at most `nMilliseconds`. An exception of a
    callback ends the wait and is raised.

    The GIL is released during the wait, and Python's signal handlers run.
    """
    end = time.monotonic() + ffi.new("L_UINT32[1]", [nMilliseconds])[0] / 1000
    outer, _thread.broken = _thread.broken, False
    try:
        while True:
            left = max(0, math.ceil((end - time.monotonic()) * 1000))
            code = int(_pump(lib.L_DicomWait, _net(hNet), min(left, _SIGNAL_CHECK)))
            done = code not in (lib.DICOM_ERROR_INTERRUPTED, lib.DICOM_ERROR_TIMEOUT)
            late = left <= _SIGNAL_CHECK and code == lib.DICOM_ERROR_TIMEOUT
            if done or late or _thread.broken:
                return code
    finally:
        _thread.broken = outer


def L_DicomBreakWait(hNet: Any) -> None:
    """Make the L_DicomWait that runs on this thread return after the events that are ready were
    dispatched. `hNet` is any handle of this thread, or None."""
    lib.L_DicomBreakWait(_net(hNet))
    _thread.broken = _thread.broken or hNet is None or _is_known(_address(hNet))


# ---- the functions ---------------------------------------------------------------------------

_TEXT = (ffi.typeof("char *"), ffi.typeof("char const *"))


def _net(hNet: Any) -> Any:
    return ffi.NULL if hNet is None else hNet


def _text(name: str, value: Any) -> Any:
    """Return a text as C takes it. `name` is the function, for errors."""
    if isinstance(value, ffi.CData):
        return ffi.string(value) if ffi.typeof(value).kind == "array" else value
    if isinstance(value, str):
        value = str.encode(value, "utf-8", "surrogateescape")
    text = bytes(memoryview(one(name, value, bytes, "text")))
    if b"\0" in text:
        raise ValueError(f"{name}: a text with a NUL in it, at which C would stop")
    return text


def _to_c(name: str, kind: Any, value: Any) -> Any:
    if value is None and kind.kind == "pointer":
        return ffi.NULL
    return _text(name, value) if kind in _TEXT else value


def _bytes(name: str, value: Any) -> Any:
    """Return the bytes of an argument, as an array with a length."""
    return ffi.from_buffer("L_UCHAR[]", view_of(name, value))


def _function(name: str) -> Callable[..., Any]:
    """Return the C function `name` with Python's text and None for those of C."""
    call = getattr(lib, name)
    kind = ffi.typeof(call)
    gives_text = kind.result in _TEXT

    def function(*arguments: Any) -> Any:
        if len(arguments) != len(kind.args):
            raise TypeError(f"{name} takes {len(kind.args)} arguments, not {len(arguments)}")
        result = call(*[_to_c(name, *pair) for pair in zip(kind.args, arguments, strict=True)])
        if gives_text:
            return ffi.string(result).decode("utf-8", "surrogateescape")
        return result

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"{kind.result.cname} {name}({', '.join(a.cname for a in kind.args)})"
    return function


L_DicomErrorText = _function("L_DicomErrorText")
L_DicomStartUp = _function("L_DicomStartUp")
L_DicomCreateNet = _function("L_DicomCreateNet")
L_DicomSetTimeouts = _function("L_DicomSetTimeouts")
L_DicomSetLimits = _function("L_DicomSetLimits")

L_DicomListen = _function("L_DicomListen")
L_DicomListenExt = _function("L_DicomListenExt")
L_DicomAccept = _function("L_DicomAccept")
L_DicomConnect = _function("L_DicomConnect")
L_DicomConnectExt = _function("L_DicomConnectExt")
L_DicomClose = _function("L_DicomClose")
L_DicomIsConnected = _function("L_DicomIsConnected")
L_DicomIsAssociated = _function("L_DicomIsAssociated")

L_DicomSendAssociateRequest = _function("L_DicomSendAssociateRequest")
L_DicomSendAssociateAccept = _function("L_DicomSendAssociateAccept")
L_DicomSendAssociateReject = _function("L_DicomSendAssociateReject")
L_DicomSendReleaseRequest = _function("L_DicomSendReleaseRequest")
L_DicomSendReleaseResponse = _function("L_DicomSendReleaseResponse")
L_DicomSendAbort = _function("L_DicomSendAbort")
L_DicomSendCEchoRequest = _function("L_DicomSendCEchoRequest")
L_DicomSendCEchoResponse = _function("L_DicomSendCEchoResponse")

L_DicomCreateAssociate = _function("L_DicomCreateAssociate")
L_DicomFreeAssociate = _function("L_DicomFreeAssociate")
L_DicomResetAssociate = _function("L_DicomResetAssociate")
L_DicomDefaultAssociate = _function("L_DicomDefaultAssociate")
L_DicomSetCalled = _function("L_DicomSetCalled")
L_DicomGetCalled = _function("L_DicomGetCalled")
L_DicomSetCalling = _function("L_DicomSetCalling")
L_DicomGetCalling = _function("L_DicomGetCalling")
L_DicomSetApplication = _function("L_DicomSetApplication")
L_DicomGetApplication = _function("L_DicomGetApplication")
L_DicomSetMaxLength = _function("L_DicomSetMaxLength")
L_DicomGetMaxLength = _function("L_DicomGetMaxLength")
L_DicomSetImplementClass = _function("L_DicomSetImplementClass")
L_DicomGetImplementClass = _function("L_DicomGetImplementClass")
L_DicomSetImplementVersion = _function("L_DicomSetImplementVersion")
L_DicomGetImplementVersion = _function("L_DicomGetImplementVersion")
L_DicomSetAsyncOperations = _function("L_DicomSetAsyncOperations")
L_DicomSetRoleSelect = _function("L_DicomSetRoleSelect")
L_DicomAddPresentation = _function("L_DicomAddPresentation")
L_DicomDeletePresentation = _function("L_DicomDeletePresentation")
L_DicomGetPresentationCount = _function("L_DicomGetPresentationCount")
L_DicomGetPresentation = _function("L_DicomGetPresentation")
L_DicomGetAbstract = _function("L_DicomGetAbstract")
L_DicomFindAbstract = _function("L_DicomFindAbstract")
L_DicomSetResult = _function("L_DicomSetResult")
L_DicomGetResult = _function("L_DicomGetResult")
L_DicomAddTransfer = _function("L_DicomAddTransfer")
L_DicomGetTransferCount = _function("L_DicomGetTransferCount")
L_DicomGetTransfer = _function("L_DicomGetTransfer")


def L_DicomGetAssociate(hNet: Any) -> Any:
    """Return the agreement, an HDICOMPDU that belongs to the library, or None."""
    return lib.L_DicomGetAssociate(_net(hNet)) or None


def L_DicomSendData(hNet: Any, nPresentationID: int, nControl: int, pData: Any, nBytes: int) -> int:
    """Send `nBytes` bytes of any bytes-like object; see `l_dicom.h`. The GIL is released."""
    with _bytes("pData", pData) as data:
        size = index(nBytes)  # read once: an object may return another number next time
        if size > len(data):
            raise ValueError(f"{len(data)} bytes are no {size}")
        return int(lib.L_DicomSendData(_net(hNet), nPresentationID, nControl, data, size))


_get_async_operations = _function("L_DicomGetAsyncOperations")
_get_role_select = _function("L_DicomGetRoleSelect")
_set_extended = _function("L_DicomSetExtended")
_get_extended = _function("L_DicomGetExtended")
_set_user_identity = _function("L_DicomSetUserIdentity")
_get_user_identity = _function("L_DicomGetUserIdentity")


def L_DicomGetAsyncOperations(hPDU: Any) -> tuple[bool, int, int]:
    """Return whether the sub-item is present, and the operations invoked and performed."""
    numbers = ffi.new("L_UINT16[2]")
    there = _get_async_operations(hPDU, numbers, numbers + 1)
    return bool(there), numbers[0], numbers[1]


def L_DicomGetRoleSelect(hPDU: Any, pszClass: str) -> tuple[bool, bool, bool]:
    """Return whether the sub-item is present, and the SCU and the SCP role."""
    roles = ffi.new("L_BOOL[2]")
    there = _get_role_select(hPDU, pszClass, roles, roles + 1)
    return bool(there), bool(roles[0]), bool(roles[1])


def L_DicomSetExtended(hPDU: Any, pszClass: str, pInfo: Buffer) -> int:
    """Set the service class application information of a SOP class."""
    with _bytes("pInfo", pInfo) as info:
        return int(_set_extended(hPDU, pszClass, info, len(info)))


def L_DicomGetExtended(hPDU: Any, pszClass: str) -> bytes | None:
    """Return the service class application information of a SOP class, or None."""
    data, size = ffi.new("L_UCHAR const **"), ffi.new("L_UINT *")
    there = _get_extended(hPDU, pszClass, data, size)
    return bytes(ffi.buffer(data[0], size[0])) if there else None


def L_DicomSetUserIdentity(
    hPDU: Any, nType: int, bResponse: bool, pPrimary: Buffer, pSecondary: Buffer = b""
) -> int:
    """Set the user identity of a request, or the server response (primary) of an accept."""
    with _bytes("pPrimary", pPrimary) as one, _bytes("pSecondary", pSecondary) as other:
        fields = one, len(one), other, len(other)
        return int(_set_user_identity(hPDU, nType, bResponse, *fields))


def L_DicomGetUserIdentity(hPDU: Any) -> tuple[int, bool, bytes, bytes] | None:
    """Return type, whether a response is wanted, primary and secondary field; or None."""
    kind, response = ffi.new("L_UCHAR *"), ffi.new("L_BOOL *")
    data, sizes = ffi.new("L_UCHAR const *[2]"), ffi.new("L_UINT[2]")
    if not _get_user_identity(hPDU, kind, response, data, sizes, data + 1, sizes + 1):
        return None
    fields = [bytes(ffi.buffer(data[n], sizes[n])) for n in range(2)]
    return kind[0], bool(response[0]), fields[0], fields[1]


def L_DicomFreeNet(hNet: Any) -> None:
    """Close and free a handle. A callback may free its own handle."""
    lib.L_DicomFreeNet(_net(hNet))
    if hNet is not None:
        _drop(_address(hNet))


def L_DicomShutDown() -> None:
    """End one `L_DicomStartUp`. The last call frees the handles that this thread still has, without
    callbacks."""
    lib.L_DicomShutDown()
    for handle in [h for h in _thread.handles if not _is_known(h)]:
        _drop(handle)


def _is_known(handle: int) -> bool:
    callbacks = ffi.new("DICOMNETCALLBACK *", {"uStructSize": ffi.sizeof("DICOMNETCALLBACK")})
    code = lib.L_DicomGetCallback(ffi.cast("HDICOMNET", handle), callbacks, ffi.NULL)
    return bool(code == lib.DICOM_SUCCESS)


def _name(function: Any, hNet: Any) -> tuple[str, int]:
    address, port = ffi.new("char[64]"), ffi.new("unsigned int *")
    code = function(_net(hNet), address, len(address), port)
    if code != lib.DICOM_SUCCESS:
        raise OSError(L_DicomErrorText(code))
    return ffi.string(address).decode(), port[0]


def L_DicomGetHostInfo(hNet: Any) -> tuple[str, int]:
    """Return address and port of this end. Raises `OSError` without a connection or listener."""
    return _name(lib.L_DicomGetHostInfo, hNet)


def L_DicomGetPeerInfo(hNet: Any) -> tuple[str, int]:
    """Return address and port of the peer's end. Raises `OSError` without a connection."""
    return _name(lib.L_DicomGetPeerInfo, hNet)


__all__ = [
    "COMMAND_DATASET_ABSENT",
    "COMMAND_DATASET_PRESENT",
    "COMMAND_PRIORITY_HIGH",
    "COMMAND_PRIORITY_LOW",
    "COMMAND_PRIORITY_MEDIUM",
    "COMMAND_PRIORTY_HIGH",
    "COMMAND_STATUS_PENDING",
    "COMMAND_STATUS_SUCCESS",
    "DICOM_ERROR_ABORTED",
    "DICOM_ERROR_ADDRESS",
    "DICOM_ERROR_BUSY",
    "DICOM_ERROR_CLOSED",
    "DICOM_ERROR_CONNECT",
    "DICOM_ERROR_HANDLE",
    "DICOM_ERROR_INTERRUPTED",
    "DICOM_ERROR_MEMORY",
    "DICOM_ERROR_PARAMETER",
    "DICOM_ERROR_PROTOCOL",
    "DICOM_ERROR_STATE",
    "DICOM_ERROR_SYSTEM",
    "DICOM_ERROR_TIMEOUT",
    "DICOM_IPTYPE_IPV4",
    "DICOM_IPTYPE_IPV4_OR_IPV6",
    "DICOM_IPTYPE_IPV6",
    "DICOM_IPTYPE_NONE",
    "DICOM_SECURE_NONE",
    "DICOM_SUCCESS",
    "FALSE",
    "PDU_ABORT",
    "PDU_ABORT_REASON_INVALID_PARAM",
    "PDU_ABORT_REASON_UNEXPECTED",
    "PDU_ABORT_REASON_UNEXPECTED_PARAM",
    "PDU_ABORT_REASON_UNKNOWN",
    "PDU_ABORT_REASON_UNRECOGNIZED",
    "PDU_ABORT_REASON_UNRECOGNIZED_PARAM",
    "PDU_ABORT_SOURCE_PROVIDER",
    "PDU_ABORT_SOURCE_USER",
    "PDU_ACCEPT_RESULT_ABSTRACT_SYNTAX",
    "PDU_ACCEPT_RESULT_PROVIDER_REJECT",
    "PDU_ACCEPT_RESULT_SUCCESS",
    "PDU_ACCEPT_RESULT_TRANSFER_SYNTAX",
    "PDU_ACCEPT_RESULT_USER_REJECT",
    "PDU_ASSOCIATE_ACCEPT",
    "PDU_ASSOCIATE_REJECT",
    "PDU_ASSOCIATE_REQUEST",
    "PDU_DATA_TRANSFER",
    "PDU_IDENTITY_JWT",
    "PDU_IDENTITY_KERBEROS",
    "PDU_IDENTITY_PASSCODE",
    "PDU_IDENTITY_SAML",
    "PDU_IDENTITY_USERNAME",
    "PDU_REJECT_REASON_APPLICATION",
    "PDU_REJECT_REASON_CALLED",
    "PDU_REJECT_REASON_CALLING",
    "PDU_REJECT_REASON_CONGESTION",
    "PDU_REJECT_REASON_LIMIT",
    "PDU_REJECT_REASON_UNKNOWN",
    "PDU_REJECT_REASON_VERSION",
    "PDU_REJECT_RESULT_PERMANENT",
    "PDU_REJECT_RESULT_TRANSIENT",
    "PDU_REJECT_SOURCE_PROVIDER1",
    "PDU_REJECT_SOURCE_PROVIDER2",
    "PDU_REJECT_SOURCE_USER",
    "PDU_RELEASE_REQUEST",
    "PDU_RELEASE_RESPONSE",
    "PDU_UNKNOWN",
    "TRUE",
    "L_DicomAccept",
    "L_DicomAddPresentation",
    "L_DicomAddTransfer",
    "L_DicomBreakWait",
    "L_DicomBreathe",
    "L_DicomClose",
    "L_DicomConnect",
    "L_DicomConnectExt",
    "L_DicomCreateAssociate",
    "L_DicomCreateNet",
    "L_DicomDefaultAssociate",
    "L_DicomDeletePresentation",
    "L_DicomErrorText",
    "L_DicomFindAbstract",
    "L_DicomFreeAssociate",
    "L_DicomFreeNet",
    "L_DicomGetAbstract",
    "L_DicomGetApplication",
    "L_DicomGetAssociate",
    "L_DicomGetAsyncOperations",
    "L_DicomGetCallback",
    "L_DicomGetCalled",
    "L_DicomGetCalling",
    "L_DicomGetExtended",
    "L_DicomGetHostInfo",
    "L_DicomGetImplementClass",
    "L_DicomGetImplementVersion",
    "L_DicomGetMaxLength",
    "L_DicomGetPeerInfo",
    "L_DicomGetPresentation",
    "L_DicomGetPresentationCount",
    "L_DicomGetResult",
    "L_DicomGetRoleSelect",
    "L_DicomGetTransfer",
    "L_DicomGetTransferCount",
    "L_DicomGetUserIdentity",
    "L_DicomIsAssociated",
    "L_DicomIsConnected",
    "L_DicomListen",
    "L_DicomListenExt",
    "L_DicomResetAssociate",
    "L_DicomSendAbort",
    "L_DicomSendAssociateAccept",
    "L_DicomSendAssociateReject",
    "L_DicomSendAssociateRequest",
    "L_DicomSendCEchoRequest",
    "L_DicomSendCEchoResponse",
    "L_DicomSendData",
    "L_DicomSendReleaseRequest",
    "L_DicomSendReleaseResponse",
    "L_DicomSetApplication",
    "L_DicomSetAsyncOperations",
    "L_DicomSetCallback",
    "L_DicomSetCalled",
    "L_DicomSetCalling",
    "L_DicomSetExtended",
    "L_DicomSetImplementClass",
    "L_DicomSetImplementVersion",
    "L_DicomSetLimits",
    "L_DicomSetMaxLength",
    "L_DicomSetResult",
    "L_DicomSetRoleSelect",
    "L_DicomSetTimeouts",
    "L_DicomSetUserIdentity",
    "L_DicomShutDown",
    "L_DicomStartUp",
    "L_DicomWait",
    "pEXT_CALLBACK",
]
