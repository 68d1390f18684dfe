"""Misuse of the L_Dicom face by programs and by their peers."""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Callable
from typing import Any

import pytest

from ltdic import ffi, lib
from ltdic.l_dicom import *  # noqa: F403
from support.commands import command_set
from support.l_dicom import accept_all, answer_echo, associate, check, established
from support.paths import TESTS
from support.sockets import TIMEOUT
from support.toolchain import Toolchain, run, toolchain_or_skip
from support.uids import VERIFICATION

# ruff: noqa: F405

C = TESTS / "c"

# ---- in C ------------------------------------------------------------------------------------

FLAGS = ["-m32", "-O1 -fsanitize=address,undefined", "-O1 -fsanitize=thread"]


@pytest.fixture(scope="module", params=[f"gcc {f}" for f in FLAGS] + [f"clang {FLAGS[1]}"])
def watched(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A toolchain with a sanitizer, or with fewer bits in a handle."""
    return toolchain_or_skip(request.param, tmp_path_factory.mktemp("misuse"), cxx=False)


@pytest.mark.slow
@pytest.mark.parametrize(("program", "end"), [("misuse.c", "13 scenes"), ("table.c", "3 tests")])
def test_a_program_that_misuses_the_library_gets_errors(
    watched: Toolchain, program: str, end: str
) -> None:
    assert run(watched.program(C / program, "c11"), timeout=4 * TIMEOUT) == end + "\n"


# ---- handles of associate objects ------------------------------------------------------------

SETTERS: list[tuple[Callable[..., int], tuple[Any, ...]]] = [
    (L_DicomResetAssociate, (True,)),
    (L_DicomDefaultAssociate, ()),
    (L_DicomSetCalled, ("CALLED",)),
    (L_DicomSetCalling, ("CALLING",)),
    (L_DicomSetApplication, ("1.2.3",)),
    (L_DicomSetMaxLength, (1,)),
    (L_DicomSetImplementClass, ("1.2.3",)),
    (L_DicomSetImplementVersion, ("NAME",)),
    (L_DicomSetAsyncOperations, (2, 2)),
    (L_DicomSetRoleSelect, ("1.2.3", True, True)),
    (L_DicomSetExtended, ("1.2.3", b"information")),
    (L_DicomSetUserIdentity, (PDU_IDENTITY_USERNAME, True, b"name")),
    (L_DicomAddPresentation, (1, 0, VERIFICATION)),
    (L_DicomDeletePresentation, (1,)),
    (L_DicomSetResult, (1, 0)),
    (L_DicomAddTransfer, (1, "1.2.840.10008.1.2")),
]
GETTERS: list[tuple[Callable[..., Any], tuple[Any, ...], Any]] = [
    (L_DicomGetCalled, (), ""),
    (L_DicomGetCalling, (), ""),
    (L_DicomGetApplication, (), ""),
    (L_DicomGetMaxLength, (), 0),
    (L_DicomGetImplementClass, (), ""),
    (L_DicomGetImplementVersion, (), ""),
    (L_DicomGetAsyncOperations, (), (False, 1, 1)),
    (L_DicomGetRoleSelect, ("1.2.3",), (False, True, False)),
    (L_DicomGetExtended, ("1.2.3",), None),
    (L_DicomGetUserIdentity, (), None),
    (L_DicomGetPresentationCount, (), 0),
    (L_DicomGetPresentation, (0,), 0),
    (L_DicomGetAbstract, (1,), ""),
    (L_DicomFindAbstract, (VERIFICATION,), 0),
    (L_DicomGetResult, (1,), 255),
    (L_DicomGetTransferCount, (1,), 0),
    (L_DicomGetTransfer, (1, 0), ""),
]


def nothing_knows(pdu: Any) -> None:
    """Assert that every function that takes an associate object refuses this handle."""
    L_DicomFreeAssociate(pdu)
    for setter, arguments in SETTERS:
        assert setter(pdu, *arguments) == DICOM_ERROR_HANDLE
    for getter, arguments, absent in GETTERS:
        assert getter(pdu, *arguments) == absent
    net = L_DicomCreateNet(None, DICOM_SECURE_NONE)
    assert L_DicomSendAssociateRequest(net, pdu) == DICOM_ERROR_HANDLE
    assert L_DicomSendAssociateAccept(net, pdu) == DICOM_ERROR_HANDLE
    L_DicomFreeNet(net)


def new_request() -> Any:
    pdu = L_DicomCreateAssociate(True)
    check(L_DicomDefaultAssociate(pdu))
    return pdu


def number_of(pdu: Any) -> int:
    return int(ffi.cast("uintptr_t", pdu))


def test_every_function_that_takes_an_object_is_tried() -> None:
    tried = {setter.__name__ for setter, _ in SETTERS} | {getter.__name__ for getter, *_ in GETTERS}
    tried |= {"L_DicomFreeAssociate", "L_DicomSendAssociateRequest", "L_DicomSendAssociateAccept"}
    kind = ffi.typeof("HDICOMPDU")
    functions = {n: ffi.typeof(getattr(lib, n)) for n in dir(lib) if n.startswith("L_Dicom")}
    assert tried == {name for name, function in functions.items() if kind in function.args}


def test_an_object_freed_twice_frees_no_other_object() -> None:
    pdu = new_request()
    L_DicomFreeAssociate(pdu)
    L_DicomFreeAssociate(pdu)
    others = [new_request() for _ in range(100)]
    assert pdu not in others
    L_DicomFreeAssociate(pdu)
    assert [L_DicomGetPresentationCount(other) for other in others] == [1] * 100
    for other in others:
        L_DicomFreeAssociate(other)


def test_a_freed_object_is_unknown_to_every_function() -> None:
    pdu = new_request()
    L_DicomFreeAssociate(pdu)
    nothing_knows(pdu)
    other = new_request()
    nothing_knows(pdu)
    assert L_DicomGetPresentationCount(other) == 1
    L_DicomFreeAssociate(other)


def test_a_made_up_handle_is_unknown_to_every_function() -> None:
    draw = random.Random(1)
    pdu, memory = new_request(), ffi.new("char[4096]")
    known = number_of(pdu)
    numbers = [known ^ 1 << bit for bit in range(64)] + [known - 1, known + 1, number_of(memory)]
    numbers += [draw.randrange(1, 1 << bits) for bits in range(1, 65) for _ in range(3)]
    for number in set(numbers) - {known}:
        nothing_knows(ffi.cast("HDICOMPDU", number))
    assert L_DicomGetPresentationCount(pdu) == 1
    L_DicomFreeAssociate(pdu)


def test_a_callback_cannot_free_objects_of_the_library() -> None:
    given: list[Any] = []

    def free_it(pdu: Any) -> Any:
        given.append(pdu)
        L_DicomFreeAssociate(pdu)
        L_DicomFreeAssociate(pdu)
        assert L_DicomGetAbstract(pdu, 1) == VERIFICATION
        return pdu

    def on_request(hNet: Any, hPDU: Any, _: Any) -> None:
        accept_all(hNet, free_it(hPDU), None)
        assert free_it(L_DicomGetAssociate(hNet)) == L_DicomGetAssociate(hNet)
        free_it(hPDU)

    pdu = new_request()
    acceptor, requestor = associate(on_request, pdu)
    requestor.more["accepted"] = lambda h, answer, _: free_it(answer)
    requestor.until("accepted")
    assert len(given) == 4
    nothing_knows(given[0])  # its request is answered, and the callback has returned
    for end in (requestor, acceptor.children[0]):
        free_it(L_DicomGetAssociate(end.handle))
    requestor.free()
    acceptor.free()
    L_DicomFreeAssociate(pdu)
    for one in given:
        nothing_knows(one)


# ---- pumps inside callbacks ------------------------------------------------------------------

DEEPEST = 32  # MOST_PUMPS of l_dicom.c


@pytest.mark.parametrize("pump", ["wait", "breathe"])
def test_nested_pumps_in_callbacks_are_bounded_and_lose_nothing(pump: str) -> None:
    depth, deepest, connected, refused = 0, 0, 0, 0

    def on_connect(hNet: Any, nError: int, _: Any) -> None:
        nonlocal depth, deepest, connected, refused
        check(nError)
        depth, connected, before = depth + 1, connected + 1, connected + 1
        deepest = max(deepest, depth)
        if pump == "breathe":
            L_DicomBreathe()
        else:
            code = L_DicomWait(hNet, 1 if depth < DEEPEST else 1000 * TIMEOUT)
            assert code == (DICOM_ERROR_STATE if depth == DEEPEST else DICOM_ERROR_TIMEOUT)
        refused += depth == DEEPEST
        assert depth < DEEPEST or connected == before
        depth -= 1

    with socket.create_server(("127.0.0.1", 0), backlog=200) as server:
        handles = [L_DicomCreateNet(None, DICOM_SECURE_NONE) for _ in range(100)]
        for handle in handles:
            check(L_DicomSetCallback(handle, {"pfnConnect": on_connect}))
            check(L_DicomConnect(handle, None, 0, *server.getsockname()))
        end = time.monotonic() + TIMEOUT
        while connected < len(handles) and time.monotonic() < end:
            L_DicomBreathe()
        assert (connected, deepest, depth) == (len(handles), DEEPEST, 0)
        assert refused > 0
        for handle in handles:
            L_DicomFreeNet(handle)


# ---- a C-ECHO of a class that is no UID -------------------------------------------------------

WRONG = ["1..2", "1.02", "1." * 35, "9" * 65, "9" * 66, "a", "1.2 3", "\xfc\xff", ""]


def echo_request(sop_class: str) -> bytes:
    return command_set({0x0002: sop_class, 0x0100: 0x0030, 0x0110: 7, 0x0800: 0x0101})


@pytest.mark.parametrize("sop_class", WRONG)
def test_an_echo_response_of_an_illegal_class_is_refused_and_ends_nothing(
    sop_class: str,
) -> None:
    asked: list[bytes] = []
    pdu = new_request()

    def on_echo(hNet: Any, ident: int, message: int, name: Any, _: Any) -> None:
        asked.append(ffi.string(name))
        code = L_DicomSendCEchoResponse(hNet, ident, message, asked[-1], 0)
        assert code == DICOM_ERROR_PARAMETER

    def answer(hNet: Any, _: Any) -> None:
        check(L_DicomSendReleaseResponse(hNet))

    with (
        established(pdu, echo=on_echo, release=answer) as (requestor, acceptor),
        established(pdu, echo=answer_echo) as (other, _),
    ):
        requestor.events.clear()
        command = echo_request(sop_class)
        check(L_DicomSendData(requestor.handle, 1, 3, command, len(command)))
        acceptor.until("data")
        check(L_DicomSendCEchoRequest(other.handle, 1, 1, None))
        assert other.until("echoed")[-1] == ("echoed", 1, 1, 0x0122)
        check(L_DicomSendReleaseRequest(requestor.handle))
        requestor.until("close")
        acceptor.until("close")
    assert requestor.events == [("receive", 0, 6, 10), ("released",), ("close", 0)]
    assert acceptor.events[-1] == ("close", 0)
    assert len(asked) <= 1
    L_DicomFreeAssociate(pdu)
