"""One table of scenarios for all faces; every face behaves alike."""

from __future__ import annotations

import os
import random
import socket
import stat
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import ltdic
from ltdic import (
    PDV,
    Abort,
    AssociateAccept,
    Counters,
    DataTransfer,
    ReleaseResponse,
    decode,
    encode,
)
from support.commands import command_set
from support.dcmtk import dcmtk_server
from support.faces import (
    ACCEPTORS,
    AGREED,
    PAIRS,
    REQUESTORS,
    RESPONSE,
    Ended,
    Plan,
    Wish,
    heard,
)
from support.process import DESCRIPTORS
from support.raw import ACCEPT, REQUEST, SHORT, raw_acceptor, raw_requestor
from support.rejections import DEFINED
from support.sockets import LISTENING, LOCALHOST, TIMEOUT, close_with_reset, receive_pdu
from support.toolchain import needs_peer


def name_of(face: Any) -> str | None:
    return getattr(face, "name", None)


by_requestor = pytest.mark.parametrize("requestor", REQUESTORS, ids=name_of)
by_acceptor = pytest.mark.parametrize("acceptor", ACCEPTORS, ids=name_of)


by_both = pytest.mark.parametrize(("requestor", "acceptor"), PAIRS, ids=name_of)


# ---- every face with every other ---------------------------------------------------------------


@by_both
def test_an_echo_is_answered_and_a_release_ends_the_association(
    requestor: Any, acceptor: Any
) -> None:
    with acceptor(Plan()) as server, requestor(server.port, Wish()) as association:
        assert [association.echo() for _ in range(3)] == [0, 0, 0]
        association.release()
    assert server.counters == Counters(accepted=1, released=1)


@by_both
def test_every_acceptor_answers_contexts_alike(requestor: Any, acceptor: Any) -> None:
    with acceptor(Plan()) as server, requestor(server.port, Wish()) as association:
        assert association.contexts == AGREED
        association.release()


@by_both
def test_each_defined_rejection_is_reported_with_its_codes(requestor: Any, acceptor: Any) -> None:
    for codes in DEFINED:
        with acceptor(Plan(reject=codes)) as server:
            with pytest.raises(Ended) as e, requestor(server.port, Wish()):
                pass
            assert e.value.what == ("rejected", *codes)
        assert server.counters == Counters(rejected={("sent", *codes): 1})  # type: ignore[arg-type]


@by_both
@pytest.mark.parametrize(
    ("plan", "codes"),
    [(Plan(called="OTHER"), (1, 1, 7)), (Plan(calling="OTHER"), (1, 1, 3))],
    ids=["called", "calling"],
)
def test_an_unknown_title_is_rejected(
    requestor: Any, acceptor: Any, plan: Plan, codes: tuple[int, int, int]
) -> None:
    with acceptor(plan) as server:
        with pytest.raises(Ended) as e, requestor(server.port, Wish()):
            pass
        assert e.value.what == ("rejected", *codes)
        wish = Wish(called=plan.called or "CALLED", calling=plan.calling or "CALLING")
        with requestor(server.port, wish) as association:
            association.release()
    assert server.counters.rejected == {("sent", *codes): 1}
    assert server.counters.released == 1


SIZES = [0, 2, 100 << 10, 3 << 20]


@by_both
@pytest.mark.parametrize("max_length", [0x4000, 0], ids=["16 KiB", "no limit"])
def test_data_of_any_size_is_received_whole_in_both_directions(
    requestor: Any, acceptor: Any, max_length: int
) -> None:
    with (
        acceptor(Plan(max_length=max_length)) as server,
        requestor(server.port, Wish(max_length=max_length)) as association,
    ):
        for size in SIZES:
            data = random.Random(size).randbytes(size)
            association.send(b"command!", True)
            association.send(data, False)
            assert association.receive() == (True, RESPONSE)
            is_command, received = association.receive()
            assert heard(is_command, received) == heard(False, data)
            assert server.heard.get(timeout=TIMEOUT) == heard(True, b"command!")
            assert server.heard.get(timeout=TIMEOUT) == heard(False, data)
        association.release()
    assert server.counters == Counters(accepted=1, released=1)


@by_both
def test_an_abort_by_the_requestor_is_counted_as_one(requestor: Any, acceptor: Any) -> None:
    with acceptor(Plan()) as server, requestor(server.port, Wish()) as association:
        association.abort()
    assert server.counters == Counters(accepted=1, aborted=1)


@by_both
def test_an_abort_by_the_acceptor_is_reported(requestor: Any, acceptor: Any) -> None:
    with (
        acceptor(Plan(at_data_set="abort")) as server,
        requestor(server.port, Wish()) as association,
    ):
        association.send(b"command!", True)
        association.send(b"data", False)
        with pytest.raises(Ended) as e:
            association.receive()
        assert e.value.what == ("aborted by the peer", 0, 0)
    assert server.counters == Counters(accepted=1, aborted=1)


@by_both
def test_a_release_by_the_acceptor_is_answered(requestor: Any, acceptor: Any) -> None:
    with acceptor(Plan()) as server, requestor(server.port, Wish()) as association:
        assert association.echo() == 0
        server.release()
        assert association.receive() is None
    assert server.counters == Counters(accepted=1, released=1)


# ---- requestors against a raw socket -----------------------------------------------------------


MALFORMED = [
    (b"\x08\0\0\0\0\0", 1),
    (b"HTTP/1.1 400 Bad Request\r\n", 1),
    (encode(ReleaseResponse()), 2),
    (bytes.fromhex("050000000005"), 6),
]


def ending_with(association: Any) -> tuple[Any, ...]:
    """Wait for data; return what ended the association."""
    with pytest.raises(Ended) as e:
        association.receive()
    return e.value.what


@by_requestor
@pytest.mark.parametrize(("wire", "reason"), MALFORMED, ids=lambda v: str(v)[:12])
@pytest.mark.parametrize("accepts", [False, True])
def test_a_malformed_pdu_is_aborted_with_its_reason(
    requestor: Any, wire: bytes, reason: int, accepts: bool
) -> None:
    def script(connection: socket.socket) -> bytes:
        connection.sendall((ACCEPT if accepts else b"") + wire)
        return receive_pdu(connection)

    with raw_acceptor(script) as (port, peer):
        if accepts:
            with requestor(port, Wish()) as association:
                assert ending_with(association) == ("aborted by us",)
        else:
            with pytest.raises(Ended) as e, requestor(port, Wish()):
                pass
            assert e.value.what == ("aborted by us",)
    assert decode(peer.result) == Abort(2, reason)


@by_requestor
@pytest.mark.parametrize("end", [close_with_reset, socket.socket.close], ids=["reset", "close"])
@pytest.mark.parametrize("accepts", [False, True])
def test_a_lost_peer_is_a_connection_closed(requestor: Any, end: Any, accepts: bool) -> None:
    asked = threading.Event()

    def script(connection: socket.socket) -> None:
        if accepts:
            connection.sendall(ACCEPT)
            asked.wait(TIMEOUT)
        end(connection)

    with raw_acceptor(script) as (port, _):
        if accepts:
            with requestor(port, Wish()) as association:
                asked.set()
                assert ending_with(association) == ("closed",)
        else:
            with pytest.raises(Ended) as e, requestor(port, Wish()):
                pass
            assert e.value.what == ("closed",)


ECHO_RESPONSE = {0x100: 0x8030, 0x120: 1, 0x800: 0x101, 0x900: 0}


def in_verification(data: bytes, is_command: bool = True) -> bytes:
    return encode(DataTransfer((PDV(1, is_command, True, data),)))


@by_requestor
def test_an_echo_response_needs_no_sop_class(requestor: Any) -> None:
    wire = bytes.fromhex(
        "04000000003a00000036010300000000040000002800000000000001020000003080000020010200000001000000"
        "000802000000010100000009020000000000"
    )
    assert wire == in_verification(command_set(ECHO_RESPONSE))

    def script(connection: socket.socket) -> None:
        connection.sendall(ACCEPT)
        receive_pdu(connection)
        connection.sendall(wire)
        receive_pdu(connection)

    with raw_acceptor(script) as (port, _), requestor(port, Wish()) as association:
        assert association.echo() == 0


@needs_peer("dicom-storescp", "dicom-storescp")
@by_requestor
def test_dicom_rs_answers_an_echo(requestor: Any, tmp_path: Path) -> None:
    """The response of dicom-rs has no SOP class, and always answers message 1."""
    with dcmtk_server(tmp_path, "dicom-storescp", "-p") as port:
        ltdic.connect(LOCALHOST, port, retry=LISTENING).release()
        with requestor(port, Wish()) as association:
            assert association.echo() == 0
            association.release()


NO_ECHO = {
    "no elements": in_verification(b"no elements "),
    "no status": in_verification(command_set({0x100: 0x8030, 0x120: 1, 0x800: 0x101})),
    "another command": in_verification(command_set({**ECHO_RESPONSE, 0x100: 0x8001})),
    "another message": in_verification(command_set({**ECHO_RESPONSE, 0x120: 77})),
    "a data set": in_verification(b"data", is_command=False),
    "too long": in_verification(bytes(2000)),
}


@by_requestor
@pytest.mark.parametrize("what", NO_ECHO)
def test_a_wrong_answer_to_an_echo_is_reported_at_once(requestor: Any, what: str) -> None:
    """The upper layer refuses a data set without a command (PS3.8 E.1)."""

    def script(connection: socket.socket) -> bytes:
        connection.sendall(ACCEPT)
        receive_pdu(connection)
        connection.sendall(NO_ECHO[what])
        return receive_pdu(connection)

    with raw_acceptor(script) as (port, peer), requestor(port, Wish()) as association:
        with pytest.raises(Ended) as e:
            association.echo()
        assert e.value.what == ("aborted by us",)
    assert decode(peer.result) == (Abort(2, 5) if what == "a data set" else Abort(0, 0))


@pytest.mark.slow
@by_requestor
@pytest.mark.parametrize("accepts", [False, True])
def test_a_peer_that_never_answers_is_aborted_in_time(requestor: Any, accepts: bool) -> None:
    def script(connection: socket.socket) -> bytes:
        if accepts:
            connection.sendall(ACCEPT)
            return receive_pdu(connection) and receive_pdu(connection)
        return receive_pdu(connection)

    def associate_and_release(port: int) -> None:
        with requestor(port, Wish(timeout=SHORT)) as association:
            association.release()

    begun = time.monotonic()
    with raw_acceptor(script) as (port, peer), pytest.raises(Ended) as e:
        associate_and_release(port)
    assert e.value.what == ("timed out",)
    assert SHORT * 0.9 < time.monotonic() - begun < TIMEOUT / 2
    assert decode(peer.result) == Abort(0, 0)


@by_requestor
def test_data_before_an_abort_is_received_before_it_is_reported(requestor: Any) -> None:
    data = encode(DataTransfer((PDV(3, True, True, b"ab"), PDV(3, False, True, b"cdef"))))

    def script(connection: socket.socket) -> None:
        connection.sendall(ACCEPT + data + encode(Abort(2, 6)))

    with raw_acceptor(script) as (port, _), requestor(port, Wish()) as association:
        assert association.receive() == (True, b"ab")
        assert association.receive() == (False, b"cdef")
        assert ending_with(association) == ("aborted by the peer", 2, 6)


@by_requestor
def test_a_closed_port_is_reported_as_no_connection(requestor: Any) -> None:
    with socket.socket() as unused:
        unused.bind((LOCALHOST, 0))
        with pytest.raises(Ended) as e, requestor(unused.getsockname()[1], Wish()):
            pass
    assert e.value.what == ("no connection",)


def nagle_of_connections() -> list[bool]:
    """Is Nagle's algorithm on, for each TCP connection of this process?"""
    found = []
    for number in map(int, os.listdir(DESCRIPTORS)):
        with suppress(OSError):  # the list's own descriptor is closed, and a listener has no peer
            if stat.S_ISSOCK(os.fstat(number).st_mode):
                with socket.socket(fileno=os.dup(number)) as sock:
                    sock.getpeername()
                    if sock.family in (socket.AF_INET, socket.AF_INET6):
                        found.append(not sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
    return found


@by_both
def test_no_face_leaves_nagles_algorithm_on(requestor: Any, acceptor: Any) -> None:
    with acceptor(Plan()) as server, requestor(server.port, Wish()) as association:
        found = nagle_of_connections()
        association.release()
    assert found == [False, False]


# ---- acceptors against a raw socket ------------------------------------------------------------


@by_acceptor
@pytest.mark.parametrize(("wire", "reason"), MALFORMED, ids=lambda v: str(v)[:12])
def test_an_acceptor_aborts_a_malformed_pdu_with_its_reason(
    acceptor: Any, wire: bytes, reason: int
) -> None:
    with acceptor(Plan()) as server, raw_requestor(server.port) as connection:
        connection.sendall(REQUEST)
        assert decode(receive_pdu(connection)).type == AssociateAccept.type
        connection.sendall(wire)
        assert decode(receive_pdu(connection)) == Abort(2, reason)
    assert server.counters == Counters(accepted=1, aborted=1)


@by_acceptor
@pytest.mark.parametrize("end", [close_with_reset, socket.socket.close], ids=["reset", "close"])
def test_an_acceptor_counts_a_lost_requestor(acceptor: Any, end: Any) -> None:
    with acceptor(Plan()) as server:
        with raw_requestor(server.port) as connection:
            connection.sendall(REQUEST)
            assert decode(receive_pdu(connection)).type == AssociateAccept.type
            end(connection)
        with raw_requestor(
            server.port
        ) as connection:  # served after it, so the server has seen the end
            connection.sendall(REQUEST)
            assert decode(receive_pdu(connection)).type == AssociateAccept.type
            connection.sendall(encode(Abort(0, 0)))
            assert receive_pdu(connection) == b""
    assert server.counters == Counters(accepted=2, lost=1, aborted=1)


@pytest.mark.slow
@by_acceptor
@pytest.mark.parametrize("size", [0, 1, 6, 100])
def test_an_acceptor_closes_a_connection_without_a_request_at_its_timeout(
    acceptor: Any, size: int
) -> None:
    with acceptor(Plan(timeout=SHORT)) as server, raw_requestor(server.port) as connection:
        begun = time.monotonic()
        connection.sendall(REQUEST[:size])
        assert receive_pdu(connection) == b""
        assert SHORT * 0.9 < time.monotonic() - begun < TIMEOUT / 2
    assert server.counters == Counters(no_request=1)


@by_acceptor
def test_an_acceptor_accepts_a_dripping_request(acceptor: Any) -> None:
    with acceptor(Plan()) as server, raw_requestor(server.port) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for n in range(len(REQUEST)):
            connection.sendall(REQUEST[n : n + 1])
        assert decode(receive_pdu(connection)).type == AssociateAccept.type
        connection.sendall(encode(Abort(0, 0)))
        assert receive_pdu(connection) == b""
    assert server.counters == Counters(accepted=1, aborted=1)
