"""The texts of all errors in one place. Each is one sentence that names the value, its place, and a
valid one."""

from __future__ import annotations

import dataclasses
import socket
from collections.abc import Callable
from contextlib import contextmanager
from typing import Any

import pydicom
import pytest

import ltdic
from ltdic import (
    ANY,
    PDV,
    Abort,
    Admission,
    AssociateAccept,
    AssociateReject,
    AssociateRequest,
    Association,
    AsyncOperations,
    ContextResult,
    ExtendedNegotiation,
    ProposedContext,
    ReleaseRequest,
    ReleaseResponse,
    Retry,
    RoleSelection,
    UserIdentity,
    UserIdentityResponse,
    UserInformation,
    aio,
    decode,
    encode,
)
from ltdic._serving import check_accept
from support.raw import ACCEPT, raw_acceptor
from support.sockets import LOCALHOST, receive_pdu
from support.uids import SECONDARY_CAPTURE

TITLE = "1 to 16 characters of ISO 646 without backslash and controls, not only spaces (PS3.5 6.2)"
UID = "1 to 64 characters, numbers without leading zeros between full stops (PS3.5 9.1)"
NAME = "1 to 16 characters of ISO 646 without backslash and controls (PS3.7 D.3.3.2)"
LONG = "x" * 17
NUMBER = "not 0 to 4294967295"

CONTEXT = ProposedContext(1, SECONDARY_CAPTURE, ("1.2.840.10008.1.2",))
REQUEST = AssociateRequest("CALLED", "CALLING", (CONTEXT,), user_info=UserInformation(0, "1.2.3"))
RQ = encode(REQUEST)


def connect(**options: Any) -> None:
    ltdic.connect(LOCALHOST, options.pop("port", 104), **options)


def handler(*_: Any) -> None:
    pass


def admission(**options: Any) -> None:
    Admission(**options).policy(0, True)


def accepted(result: int = 0, syntax: str = "1.2.840.10008.1.2", **info: Any) -> AssociateAccept:
    contexts = (ContextResult(info.pop("id", 1), result, syntax),)
    return AssociateAccept("CALLED", "CALLING", contexts, user_info=UserInformation(0, **info))


def check(accept: AssociateAccept, **asked: Any) -> None:
    check_accept(
        dataclasses.replace(REQUEST, user_info=UserInformation(0, "1.2.3", **asked)), accept
    )


def established() -> Association:
    association = Association(requestor=False)
    association.receive_data(RQ)
    list(association.events())
    association.send(accepted())
    return association


def send_to(most: int) -> None:
    association = Association(requestor=False)
    info = UserInformation(most, "1.2.3")
    association.receive_data(encode(dataclasses.replace(REQUEST, user_info=info)))
    list(association.events())
    association.send(accepted())
    association.send(PDV(1, True, True, b"ab"))


def fill() -> None:
    association = established()
    for _ in range(3):
        association.send(PDV(1, True, False, bytes(1 << 20)))


def changed(at: int, value: bytes, wire: bytes = RQ) -> bytes:
    return wire[:at] + value + wire[at + len(value) :]


Call = Callable[[], object]

ARGUMENTS: list[tuple[Call, str]] = [
    (lambda: connect(port=0), "port is 0, not 1 to 65535"),
    (lambda: connect(port=70_000), "port is 70000, not 0 to 65535"),
    (lambda: ltdic.Server(("", 70_000)), "port is 70000, not 0 to 65535"),
    (lambda: aio.Server(("", -1)), "port is -1, not 0 to 65535"),
    (
        lambda: ltdic.connect("localhost:104", 104),
        "host is 'localhost:104': its port is an argument of its own",
    ),
    (
        lambda: connect(timeout=0),
        "timeout is 0, no time: it is more than 0 seconds, or None for ever",
    ),
    (
        lambda: connect(max_length=7),
        "max_length is 7: it is 8 to 4294967295, or 0 for no limit (PS3.8 D.1)",
    ),
    (
        lambda: admission(max_length=1),
        "max_length is 1: it is 8 to 4294967295, or 0 for no limit (PS3.8 D.1)",
    ),
    (lambda: connect(called_ae=LONG), f"called_ae is '{LONG}': it has {TITLE}"),
    (lambda: connect(calling_ae=""), f"calling_ae is '': it has {TITLE}"),
    (lambda: connect(contexts=["1.02"]), f"abstract_syntax is '1.02': it has {UID}"),
    (lambda: connect(contexts=["NoSuchWord"]), "'NoSuchWord' is no UID and no keyword of PS3.6"),
    (lambda: connect(contexts=[]), "0 contexts, not 1 to 128"),
    (
        lambda: connect(contexts="Verification"),
        "contexts is one text where several contexts must be",
    ),
    (
        lambda: connect(contexts=[("Verification", "1.2.3")]),
        "Verification: one text where several transfer syntaxes must be",
    ),
    (
        lambda: connect(identity=UserIdentity(9, 0, b"anna")),
        "the request breaks PS3.8: a value is not legal: the user identity",
    ),
    (lambda: encode(AssociateReject(256, 1, 1)), "reject: result is 256, not 0 to 255"),
    (
        lambda: encode(
            dataclasses.replace(REQUEST, user_info=UserInformation(0, "1.2.3", "name\n"))
        ),
        f"implementation_version_name is 5 characters, not shown: it has {NAME}",
    ),
    (lambda: admission(called=[LONG]), f"called is '{LONG}': an AE title has {TITLE}"),
    (lambda: admission(calling=["a\\b"]), f"calling is 'a\\\\b': an AE title has {TITLE}"),
    (lambda: admission(calling="CT_1"), "calling is one text where several texts must be"),
    (
        lambda: admission(calling=[]),
        "calling is empty, so that nobody would be let in; None lets all in",
    ),
    (
        lambda: admission(contexts=[("1.2", ["1..2"])]),
        f"transfer syntax of '1.2' is '1..2': a UID has {UID}",
    ),
    (lambda: admission(max_associations=-1), f"max_associations is -1, {NUMBER}"),
    (lambda: admission(max_per_host=1 << 32), f"max_per_host is 4294967296, {NUMBER}"),
    (
        lambda: admission(least_max_length=7),
        "least_max_length is 7: it is 8 to 4294967295, or 0 for no limit (PS3.8 D.1)",
    ),
    (lambda: admission(max_associate=99), "max_associate is 99, not 100 to 1048576"),
    (
        lambda: admission(max_per_calling={"A": -1}),
        f"max_per_calling of 'A' is -1, {NUMBER}",
    ),
    (
        lambda: admission(max_per_calling={LONG: 1}),
        f"max_per_calling names '{LONG}': an AE title has {TITLE}",
    ),
    (
        lambda: admission(refuse_with=(1, 3, 8)),
        "refuse_with is (1, 3, 8), no combination of PS3.8 table 9-21",
    ),
    (
        lambda: ltdic.Server((LOCALHOST, 0), admission=Admission(contexts=ANY)),
        "contexts besides Verification, and Verification without answer_verification, need a"
        " handler",
    ),
    (
        lambda: ltdic.Server((LOCALHOST, 0), max_connections=-1),
        f"max_connections is -1, {NUMBER}",
    ),
    (lambda: Retry(jitter=2), "jitter is 2, not 0 to 1"),
]

ANSWERS: list[tuple[Call, str]] = [
    (lambda: check(accepted(id=3)), "context 3 is answered, and was not proposed"),
    (
        lambda: check(accepted(syntax="1.2.3")),
        "context 1 is accepted with 1.2.3, which was not proposed for it",
    ),
    (
        lambda: check(AssociateAccept("A", "B", ())),
        "context 1 was proposed, and is not answered",
    ),
    (
        lambda: check(accepted(roles=(RoleSelection("1.2", 1, 1),))),
        "a role of 1.2 is accepted that was not proposed",
    ),
    (
        lambda: check(accepted(async_ops=AsyncOperations(2, 1))),
        "an asynchronous operations window was not proposed",
    ),
    (
        lambda: check(accepted(async_ops=AsyncOperations(5, 1)), async_ops=AsyncOperations(2, 1)),
        "operations invoked are 5, of 2 that were proposed",
    ),
    (
        lambda: check(accepted(extended=(ExtendedNegotiation("1.2", b""),))),
        "extended negotiation of 1.2 was not proposed",
    ),
    (
        lambda: check(accepted(user_identity_response=UserIdentityResponse(b""))),
        "a user identity response was not asked for",
    ),
]

STATES: list[tuple[Call, str]] = [
    (
        lambda: Association(requestor=False).send(ReleaseRequest()),
        "an A-RELEASE-RQ cannot be sent in this state of the association (PS3.8 9.2)",
    ),
    (
        lambda: established().send(PDV(5, True, True, b"ab")),
        "a command in context 5 cannot be sent: the context was not accepted, or the whole has an"
        " odd number of bytes (PS3.8 E.1)",
    ),
    (
        lambda: established().send(PDV(1, False, True, b"ab")),
        "a data set in context 1 cannot be sent now: data goes in an established association, a"
        " data set after a command in the same context (PS3.8 E.1)",
    ),
    (
        lambda: send_to(7),
        "a command in context 1 cannot be sent: the peer takes no data, its maximum length is"
        " below 8 bytes (PS3.8 D.1)",
    ),
    (
        fill,
        "a command in context 1 was not sent: too much is waiting for the peer to take it",
    ),
]

BYTES: list[tuple[bytes, str]] = [
    (b"GET / HTTP", "bad_pdu_type at byte 0: this is no DICOM PDU type"),
    (
        bytes.fromhex("03000000000500010107 00"),
        "bad_length at byte 2: a length field has a value its type cannot have: the PDU length of"
        " an A-ASSOCIATE-RJ is 4",
    ),
    (RQ[:20], f"need_more at byte 20: a PDU of at least {len(RQ)} bytes"),
    (
        changed(10, bytes(16)),
        f"bad_value at byte 10: a value is not legal: the called AE title has {TITLE}",
    ),
    (
        changed(74 + 4, b"x"),
        f"bad_value at byte 78: a value is not legal: the application context has {UID}",
    ),
    (
        changed(76, b"\xff\xff"),
        "item_overrun at byte 76: a field runs past what contains it: the application context",
    ),
    (
        RQ + b"\0",
        f"trailing_bytes at byte {len(RQ)}: bytes are left after the last field",
    ),
]


@pytest.mark.parametrize(("call", "sentence"), [*ARGUMENTS, *ANSWERS], ids=lambda v: str(v)[:40])
def test_an_argument_is_refused_with_the_rule(call: Call, sentence: str) -> None:
    with pytest.raises((ValueError, TypeError)) as e:
        call()
    assert str(e.value) == sentence
    assert not isinstance(e.value, ltdic.DecodeError)


@pytest.mark.parametrize(("call", "sentence"), STATES, ids=lambda v: str(v)[:40])
def test_a_value_that_cannot_be_sent_is_refused_with_the_reason(call: Call, sentence: str) -> None:
    with pytest.raises(ltdic.LocalError) as e:
        call()
    assert str(e.value) == sentence


@pytest.mark.parametrize(("wire", "sentence"), BYTES, ids=lambda v: str(v)[:30])
def test_bytes_are_refused_with_the_place_and_the_rule(wire: bytes, sentence: str) -> None:
    with pytest.raises(ltdic.DecodeError) as e:
        decode(wire, strict=True)
    assert str(e.value) == sentence


PEERS: list[tuple[bytes, str]] = [
    (
        encode(AssociateReject(1, 1, 7)),
        "Rejected permanently by the service user: called AE title not recognised (result 1, source"
        " 1, reason 7).",
    ),
    (encode(Abort(2, 6)), "aborted by the peer's service provider (source 2, reason 6)"),
    (encode(ReleaseResponse()), "aborted by us: the peer sent a PDU out of turn"),
    (b"HTTP/1.1 400 Bad Request\r\n", "aborted by us: the peer speaks HTTP, not DICOM"),
    (
        b"\x08\0\0\0\0\0",
        "aborted by us: the peer sent a PDU with bad_pdu_type at byte 0: this is no DICOM PDU type",
    ),
    (
        bytes.fromhex("03000000000500"),
        "aborted by us: the peer sent a PDU with bad_length at byte 2: a length field has a value"
        " its type cannot have",
    ),
    (b"", "the connection has ended: the connection was lost"),
]


@pytest.mark.parametrize(("wire", "sentence"), PEERS, ids=lambda v: str(v)[:30])
def test_a_fault_of_the_peer_is_reported_in_one_sentence(wire: bytes, sentence: str) -> None:
    def script(connection: socket.socket) -> None:
        connection.sendall(wire)
        if wire:
            receive_pdu(connection)

    with raw_acceptor(script) as (port, _), pytest.raises(ltdic.Error) as e:
        ltdic.connect(LOCALHOST, port)
    assert str(e.value) == sentence


@contextmanager
def associated() -> Any:
    def script(connection: socket.socket) -> None:
        connection.sendall(ACCEPT)
        receive_pdu(connection)

    with raw_acceptor(script) as (port, _):
        association = ltdic.connect(LOCALHOST, port, contexts=["Verification", SECONDARY_CAPTURE])
        try:
            yield association
        finally:
            association.abort()


NO_DATA = {
    "data set": (pydicom.Dataset(), "Dataset"),
    "text": ("text", "str"),
    "mapping": ({1: 2}, "dict"),
    "nothing": (None, "NoneType"),
    "number": (7, "int"),
}


@pytest.mark.parametrize("what", NO_DATA)
def test_sending_a_value_that_is_not_data_is_refused_with_the_reason(what: str) -> None:
    data, kind = NO_DATA[what]
    with associated() as association:
        with pytest.raises(TypeError) as e:
            association.send(data, context=3, is_command=True)
        sentence = f"data is of type {kind}: no bytes, no binary file, no iterable of bytes"
        assert str(e.value) == sentence
        with pytest.raises(ltdic.LocalError) as missing:
            association.send(b"ab", context="1.2.3")
        accepted = f"1.2.840.10008.1.1, {SECONDARY_CAPTURE}"
        assert str(missing.value) == f"no context of 1.2.3 was accepted, only {accepted}"
