"""The library in C and C++ programs, and callbacks in C under Python."""

from __future__ import annotations

import ctypes
import gc
import re
import socket
import time
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cffi
import pytest

import ltdic
from ltdic import ffi as ltdic_ffi
from ltdic import l_dicom, lib
from support.paths import TESTS
from support.sockets import TIMEOUT, receive_pdu
from support.toolchain import STRICT, Toolchain, linux_toolchain_or_skip, run
from support.vectors import vectors

pytestmark = pytest.mark.slow

SOURCES = TESTS / "c"
STANDARDS = ["c11", "c++17"]
ABORT = bytes.fromhex("07 00 00000004 00 00 00 00")

PEDANTIC = ["-Wpedantic", "-Wconversion", "-Wsign-conversion", "-Wshadow", "-Wundef"]
PEDANTIC_IN = {
    "c11": ["-Wstrict-prototypes", "-Wmissing-prototypes", "-Wwrite-strings"],
    "c++17": ["-Wold-style-cast", "-Wzero-as-null-pointer-constant"],
}


def reject_pdu(*codes: int) -> bytes:
    return bytes([3, 0, 0, 0, 0, 4, 0, *codes])


@contextmanager
def acceptor(answer: bytes) -> Iterator[int]:
    """Run an acceptor that sends one answer and waits for the requestor to close; yield its
    port."""

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(TIMEOUT)
            assert receive_pdu(connection)[:1] == b"\x01"
            connection.sendall(answer)
            assert connection.recv(1) == b""

    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as pool:
        listener.settimeout(TIMEOUT)
        served = pool.submit(serve)
        yield listener.getsockname()[1]
        served.result(timeout=TIMEOUT)


# ---- programs --------------------------------------------------------------------------------


@pytest.mark.parametrize("standard", STANDARDS)
def test_the_header_alone_compiles_without_a_warning(
    toolchain: Toolchain, standard: str, tmp_path: Path
) -> None:
    source = tmp_path / "header.c"
    source.write_text('#include "ltdic.h"\n#include "ltdic.h"\n')
    cxx = standard == "c++17"
    run(
        toolchain.cxx if cxx else toolchain.cc,
        *[f"-std={standard}", "-x", "c++" if cxx else "c", "-fsyntax-only"],
        *[*STRICT, *PEDANTIC, *PEDANTIC_IN[standard], "-I", ltdic.get_include(), source],
    )


@pytest.mark.parametrize("style", ["1", "2", "3"])
@pytest.mark.parametrize("standard", STANDARDS)
def test_a_callback_declared_as_documented_is_called(
    toolchain: Toolchain, standard: str, style: str
) -> None:
    program = toolchain.program(SOURCES / "callback_styles.c", standard)
    with acceptor(reject_pdu(2, 3, 1)) as port:
        printed = run(program, "127.0.0.1", str(port), style)
    assert printed == "2 3 1\nclosed\n"


def test_the_scu_program_fails_where_it_is_not_rejected(toolchain: Toolchain) -> None:
    program = toolchain.program(SOURCES / "callback_styles.c", "c11")
    with acceptor(ABORT) as port, pytest.raises(AssertionError):
        run(program, "127.0.0.1", str(port))


@pytest.mark.parametrize("standard", STANDARDS)
def test_every_defined_rejection_arrives_and_no_other_can_be_sent(
    toolchain: Toolchain, standard: str
) -> None:
    program = toolchain.program(SOURCES / "scu_scp.c", standard)
    assert run(program) == "16 of 16\n"


def test_every_possible_rejection_is_reported_unchanged(toolchain: Toolchain) -> None:
    program = toolchain.program(SOURCES / "exhaustive.c", "c11")
    printed = run(program)
    assert re.match(r"16777216 triples, 20000 over TCP, 0 wrong, ", printed)


EIGHT = r"4000 associations: \d+ accepted, \d+ beyond the limit"


def test_eight_threads_serve_one_socket_with_one_admission(toolchain: Toolchain) -> None:
    assert re.match(EIGHT, run(toolchain.program(SOURCES / "loops.c", "c11"), "4000"))


@pytest.mark.parametrize("compiler", ["gcc"])
def test_eight_threads_race_nowhere(compiler: str, tmp_path: Path) -> None:
    gcc = linux_toolchain_or_skip(compiler, tmp_path, "ThreadSanitizer")
    program, source = tmp_path / "loops", SOURCES / "loops.c"
    library = ["-DLTDIC_STATIC", "-I", ltdic.get_include(), *ltdic.get_sources()]
    flags = ["-std=c11", "-O1", "-g", "-fsanitize=thread", "-pthread"]
    run(gcc.cc, *flags, source, *library, "-o", program)
    assert re.match(EIGHT, run(program, "4000"))


def test_the_codec_passes_its_unit_tests_in_c(codec_toolchain: Toolchain) -> None:
    assert run(codec_toolchain.program(SOURCES / "unit.c", "c11")) == "21 tests\n"


def test_a_gibibyte_in_one_pdu_needs_no_memory(codec_toolchain: Toolchain) -> None:
    printed = run(codec_toolchain.program(SOURCES / "gibibyte.c", "c11"))
    found = re.match(r"1073741824 bytes in 1 PDU, 0 left: peak [1-9]\d* KiB, (\d+) more\n", printed)
    print(printed, end="")
    assert found
    assert int(found[1]) < 1024


def test_reading_an_object_by_index_takes_linear_time(
    toolchain: Toolchain,
) -> None:
    counted, program = toolchain.folder / "counted.o", toolchain.folder / "walk"
    compile_it = [toolchain.cc, "-std=c11", "-O2", "-DLTDIC_STATIC", "-I", ltdic.get_include()]
    compile_it += [*STRICT, *toolchain.flags]
    associate = Path(ltdic.get_include()) / "l_dicom" / "associate.c"
    run(*compile_it, "-fsanitize-coverage=trace-pc", "-c", associate, "-o", counted)
    run(*compile_it, SOURCES / "walk.c", counted, toolchain.library, "-pthread", "-o", program)
    for half, whole in [("4 400", "4 800"), ("60 20", "120 20")]:  # contexts, syntaxes in each
        least, most = map(int, run(program, *half.split(), *whole.split()).split())
        assert 1.5 * least < most < 2.5 * least


@pytest.mark.parametrize("target", ["fuzz_pdu", "fuzz_stream", "fuzz_encode", "fuzz_association"])
def test_the_fuzz_targets_accept_the_prefixes_of_every_vector(
    codec_toolchain: Toolchain, tmp_path: Path, target: str
) -> None:
    files = []
    for param in [*vectors("valid.json"), *vectors("invalid.json")]:
        files.append(tmp_path / param.values[0]["id"])
        files[-1].write_bytes(bytes.fromhex(param.values[0]["hex"]))
    program = codec_toolchain.program(SOURCES / f"{target}.c", "c11")
    assert run(program, *files) == "440 files and all their prefixes\n"


# ---- a callback in C, set from Python --------------------------------------------------------

ffi = cffi.FFI()
ffi.cdef("struct rejection { unsigned count; unsigned char result, source, reason; };")


@pytest.fixture(params=STANDARDS)
def on_reject(toolchain: Toolchain, request: pytest.FixtureRequest) -> int:
    """Return the address of the function in the shared object; ctypes never unloads it."""
    library = ctypes.CDLL(str(toolchain.shared_object(SOURCES / "callback.c", request.param)))
    address = ctypes.cast(library.on_reject, ctypes.c_void_p).value
    assert address
    return address


@pytest.fixture
def net() -> Iterator[Any]:
    handle = l_dicom.L_DicomCreateNet(None, l_dicom.DICOM_SECURE_NONE)
    yield handle
    l_dicom.L_DicomFreeNet(handle)


def be_rejected(net: Any, *codes: int) -> tuple[int, int, int, int]:
    """Be rejected with these codes; return the values in the struct that is the user data of
    `net`."""
    request = l_dicom.L_DicomCreateAssociate(l_dicom.TRUE)
    assert l_dicom.L_DicomDefaultAssociate(request) == l_dicom.DICOM_SUCCESS
    with acceptor(reject_pdu(*codes)) as port:
        code = l_dicom.L_DicomConnect(net, None, 0, "127.0.0.1", port)
        assert code == l_dicom.DICOM_SUCCESS
        code = l_dicom.L_DicomSendAssociateRequest(net, request)
        assert code == l_dicom.DICOM_SUCCESS
        l_dicom.L_DicomFreeAssociate(request)
        end = time.monotonic() + TIMEOUT
        while l_dicom.L_DicomGetCallback(net)[1].count == 0 and time.monotonic() < end:
            l_dicom.L_DicomWait(net, 1000)
    l_dicom.L_DicomBreathe()
    found = l_dicom.L_DicomGetCallback(net)[1]
    return found.count, found.result, found.source, found.reason


@pytest.mark.parametrize("codes", [(1, 1, 7), (2, 3, 2), (0, 0, 0), (255, 254, 253)])
def test_a_rejection_reaches_a_callback_in_a_shared_object(
    net: Any, on_reject: int, codes: tuple[int, int, int]
) -> None:
    found = ffi.new("struct rejection *")
    slots = {"pfnReceiveAssociateReject": on_reject}
    assert l_dicom.L_DicomSetCallback(net, slots, found) == l_dicom.DICOM_SUCCESS
    assert be_rejected(net, *codes) == (1, *codes)
    assert found.count == 1


def test_a_callback_can_be_a_function_pointer_or_its_address(net: Any, on_reject: int) -> None:
    slots = {"pfnReceiveAssociateReject": ffi.cast("void *", on_reject)}
    l_dicom.L_DicomSetCallback(net, slots, ffi.new("struct rejection *"))
    assert be_rejected(net, 1, 2, 2) == (1, 1, 2, 2)


def test_a_callback_gets_the_user_data_pointer_itself(net: Any, on_reject: int) -> None:
    found = ffi.new("struct rejection *")
    l_dicom.L_DicomSetCallback(net, {"pfnReceiveAssociateReject": on_reject}, found)
    callbacks = ltdic_ffi.new("DICOMNETCALLBACK *")
    callbacks.uStructSize = ltdic_ffi.sizeof("DICOMNETCALLBACK")
    user_data = ltdic_ffi.new("void **")
    assert lib.L_DicomGetCallback(net, callbacks, user_data) == l_dicom.DICOM_SUCCESS
    slot = callbacks.pfnReceiveAssociateReject
    assert int(ltdic_ffi.cast("uintptr_t", slot)) == on_reject
    assert user_data[0] == found


def test_a_garbage_collection_before_the_rejection_frees_no_user_data(
    net: Any, on_reject: int
) -> None:
    found = ffi.new("struct rejection *")
    still_there = weakref.ref(found)
    l_dicom.L_DicomSetCallback(net, {"pfnReceiveAssociateReject": on_reject}, found)
    del found
    gc.collect()
    others = [ffi.new("struct rejection *") for _ in range(1000)]  # would reuse its memory
    assert still_there() is not None
    assert be_rejected(net, 2, 1, 3) == (1, 2, 1, 3)
    assert all(other.count == 0 for other in others)


def test_the_user_data_is_freed_with_the_handle(on_reject: int) -> None:
    net = l_dicom.L_DicomCreateNet(None, l_dicom.DICOM_SECURE_NONE)
    found = ffi.new("struct rejection *")
    still_there = weakref.ref(found)
    l_dicom.L_DicomSetCallback(net, {"pfnReceiveAssociateReject": on_reject}, found)
    del found
    l_dicom.L_DicomFreeNet(net)
    gc.collect()
    assert still_there() is None
