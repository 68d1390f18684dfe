"""Each rule of an `Admission` on both servers, with the codes that pynetdicom and DCMTK report; and
the limits with 200 requestors at once."""

from __future__ import annotations

import asyncio
import queue
import re
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from pynetdicom import acse, evt
from pynetdicom.pdu import A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import UserIdentityNegotiation

import ltdic
from ltdic import Admission, AssociateReject, aio
from support.commands import dicom_file, store_response
from support.dcmtk import (
    DCMTK_MARKS,
    REASONS,
    RESULTS,
    SOURCES,
    each_rejection,
    needs_dcmtk,
    run_scu,
)
from support.pynetdicom_ends import associate, pynetdicom_acceptor
from support.rejections import Codes
from support.sockets import LOCALHOST, TIMEOUT, receive_pdu
from support.uids import BIG_ENDIAN, EXPLICIT, IMPLICIT, SECONDARY_CAPTURE, VERIFICATION
from support.waiting import eventually

APPLICATION_UNKNOWN = (1, 1, 2)
CALLING_UNKNOWN, CALLED_UNKNOWN = (1, 1, 3), (1, 1, 7)
NOT_AUTHENTICATED, VERSION_UNKNOWN = (1, 2, 1), (1, 2, 2)
LIMIT_REACHED = (2, 3, 2)
ACCEPTED = None

Said = Codes | None
AnyServer = ltdic.Server | aio.Server
Serve = Callable[..., AbstractContextManager[AnyServer]]

# ---- our servers, each in a thread ---------------------------------------------------------------


class Store:
    """A handler that stores images and answers C-STORE."""

    def __init__(self) -> None:
        self.command = b""

    def answer(self, pdv: ltdic.PDV) -> bytes | None:
        if pdv.is_command:
            self.command += pdv.data
            return None
        return store_response(self.command) if pdv.is_last else None


@contextmanager
def blocking(admission: Admission) -> Iterator[AnyServer]:
    store = Store()

    def handler(association: ltdic.ServedAssociation, pdv: ltdic.PDV) -> None:
        response = store.answer(pdv)
        if response is not None:
            association.send(response, context=pdv.context_id, is_command=True)

    with (
        ltdic.Server(
            (LOCALHOST, 0), admission=admission, handler=handler, timeout=TIMEOUT
        ) as server,
        ThreadPoolExecutor(1) as pool,
    ):
        serving = pool.submit(server.serve)
        try:
            yield server
        finally:
            server.close()
            serving.result(TIMEOUT)


@contextmanager
def in_asyncio(admission: Admission) -> Iterator[AnyServer]:
    store = Store()
    started: queue.Queue[aio.Server] = queue.Queue()

    async def handler(association: aio.AsyncServedAssociation, pdv: ltdic.PDV) -> None:
        response = store.answer(pdv)
        if response is not None:
            await association.send(response, context=pdv.context_id, is_command=True)

    async def serve() -> None:
        async with aio.Server(
            (LOCALHOST, 0), admission=admission, handler=handler, timeout=TIMEOUT
        ) as server:
            started.put(server)
            await server.serve()

    with ThreadPoolExecutor(1) as pool:
        serving = pool.submit(asyncio.run, serve())
        server = started.get(timeout=TIMEOUT)
        try:
            yield server
        finally:
            server.close()
            serving.result(TIMEOUT)


SERVERS = {"Server": blocking, "aio.Server": in_asyncio}
each_server = pytest.mark.parametrize("serve", SERVERS.values(), ids=SERVERS)

# ---- requestors of others ------------------------------------------------------------------------


def said_by(association: Any) -> Said:
    """Return what pynetdicom reports; release an established association."""
    if association.is_rejected:
        answer = association.acceptor.primitive
        return answer.result, answer.result_source, answer.diagnostic
    assert association.is_established
    association.release()
    assert association.is_released
    return ACCEPTED


def said_in(code: int, printed: str) -> Said:
    """Return what a program of DCMTK reports, with its words turned into codes."""
    words = re.search(
        r"^F: Association Rejected:\nF: Result: (.*), Source: (.*)\nF: Reason: (.*)$", printed, re.M
    )
    if words is None:
        assert code == 0, printed
        assert "Association Accepted" in printed
        return ACCEPTED
    assert code != 0
    [result] = [code for code, text in RESULTS.items() if text == words[1]]
    [source] = [code for code, text in SOURCES.items() if text == words[2]]
    [reason] = [r for (s, r), text in REASONS.items() if s == source and text == words[3]]
    return result, source, reason


def ask_by_pynetdicom(port: int, called: str = "GATEWAY", calling: str = "CT_1") -> Said:
    return said_by(associate(port, called, calling))


def ask_by_echoscu(port: int, called: str = "GATEWAY", calling: str = "CT_1") -> Said:
    return said_in(*run_scu("echoscu", port, "-aec", called, "-aet", calling))


Ask = Callable[..., Said]
each_peer = pytest.mark.parametrize(
    "ask",
    [
        pytest.param(ask_by_pynetdicom, id="pynetdicom"),
        pytest.param(ask_by_echoscu, id="echoscu", marks=DCMTK_MARKS),
    ],
)


def identity(name: str, passcode: str | None = None, response: bool = False) -> list[Any]:
    """Return a user identity in the form for pynetdicom."""
    item = UserIdentityNegotiation()
    item.user_identity_type = 1 if passcode is None else 2
    item.primary_field = name.encode()
    item.secondary_field = b"" if passcode is None else passcode.encode()
    item.positive_response_requested = response
    return [item]


def storescu(port: int, folder: Path, *options: str) -> tuple[int, str]:
    """Send one image with storescu; return its exit code and output, with the negotiation."""
    image = folder / "image.dcm"
    image.write_bytes(dicom_file(1))
    return run_scu("storescu", port, image, "-d", "-R", *options)


# ---- titles ----------------------------------------------------------------------------------


@pytest.mark.slow
@each_server
@each_peer
@pytest.mark.parametrize(
    ("titles", "said"),
    [
        pytest.param({}, ACCEPTED, id="known"),
        pytest.param({"called": "ARCHIVE"}, ACCEPTED, id="known-otherwise"),
        pytest.param({"called": "OTHER"}, CALLED_UNKNOWN, id="called"),
        pytest.param({"called": "gateway"}, CALLED_UNKNOWN, id="called-in-lower-case"),
        pytest.param({"calling": "CT_3"}, CALLING_UNKNOWN, id="calling"),
        pytest.param({"calling": "CT_12"}, CALLING_UNKNOWN, id="calling-longer"),
        pytest.param({"called": "OTHER", "calling": "CT_3"}, CALLED_UNKNOWN, id="both"),
    ],
)
def test_a_peer_is_told_which_title_is_not_known(
    serve: Serve, ask: Ask, titles: dict[str, str], said: Said
) -> None:
    admission = Admission(called=["GATEWAY", "ARCHIVE"], calling=["CT_1", "CT_2"])
    with serve(admission) as server:
        assert ask(server.address[1], **titles) == said
    assert server.counters.rejected == ({("sent", *said): 1} if said else {})


# ---- contexts --------------------------------------------------------------------------------

IN_ORDER = Admission(contexts=[("Verification", [EXPLICIT, IMPLICIT])])
CONTEXTS = Admission(
    contexts=["Verification", ("SecondaryCaptureImageStorage", [EXPLICIT, IMPLICIT])]
)


@each_server
def test_pynetdicom_is_told_the_result_of_each_context(serve: Serve) -> None:
    proposed = [
        (VERIFICATION, IMPLICIT),
        (SECONDARY_CAPTURE, [IMPLICIT, BIG_ENDIAN, EXPLICIT]),
        (SECONDARY_CAPTURE, BIG_ENDIAN),
        ("1.2.840.10008.5.1.4.1.1.2", IMPLICIT),
    ]
    with serve(CONTEXTS) as server:
        association = associate(server.address[1], contexts=proposed)
        answers = association.acceptor.primitive.presentation_context_definition_results_list
        found = [(c.context_id, c.result) for c in answers]
        chosen = [(c.context_id, c.transfer_syntax) for c in association.accepted_contexts]
        assert said_by(association) is ACCEPTED
    assert found == [(1, 0), (3, 0), (5, 4), (7, 3)]
    assert chosen == [(1, [IMPLICIT]), (3, [EXPLICIT])]


@needs_dcmtk
@each_server
def test_echoscu_is_given_the_first_transfer_syntax_of_ours(serve: Serve) -> None:
    with serve(IN_ORDER) as server:
        code, printed = run_scu("echoscu", server.address[1], "-d", "-pts", "3")
    assert code == 0
    assert "Context ID:        1 (Accepted)" in printed
    assert "Accepted Transfer Syntax: =LittleEndianExplicit" in printed


@needs_dcmtk
@each_server
@pytest.mark.parametrize(
    ("contexts", "words"),
    [
        pytest.param(["Verification"], "Abstract Syntax Not Supported", id="abstract"),
        pytest.param(
            [("SecondaryCaptureImageStorage", ["JPEGBaseline8Bit"])],
            "Transfer Syntaxes Not Supported",
            id="transfer",
        ),
    ],
)
def test_storescu_reports_why_no_context_is_accepted(
    tmp_path: Path, serve: Serve, contexts: list[Any], words: str
) -> None:
    with serve(Admission(contexts=contexts)) as server:
        code, printed = storescu(server.address[1], tmp_path)
    assert code != 0
    assert re.findall(r"Context ID: +(\d+) \((.*)\)$", printed, re.M)[-2:] == [
        ("1", words),
        ("3", words),
    ]


@needs_dcmtk
@each_server
def test_storescu_sends_its_image_in_the_context_that_is_accepted(
    tmp_path: Path, serve: Serve
) -> None:
    admission = Admission(contexts=[("SecondaryCaptureImageStorage", [IMPLICIT])])
    with serve(admission) as server:
        code, printed = storescu(server.address[1], tmp_path)
    assert server.counters.accepted == 1
    assert code == 0
    assert "Context ID:        1 (Transfer Syntaxes Not Supported)" in printed
    assert "Context ID:        3 (Accepted)" in printed
    assert "DIMSE Status                  : 0x0000: Success" in printed


# ---- refusals by the provider --------------------------------------------------------------------


@each_server
def test_pynetdicom_is_told_that_its_application_context_is_not_supported(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acse, "APPLICATION_CONTEXT_NAME", "1.2.3.4")
    with serve(Admission()) as server:
        assert ask_by_pynetdicom(server.address[1]) == APPLICATION_UNKNOWN
    assert server.counters.rejected == {("sent", *APPLICATION_UNKNOWN): 1}


def with_version(version: int) -> Callable[[A_ASSOCIATE_RQ, Any], None]:
    from_primitive = A_ASSOCIATE_RQ.from_primitive

    def changed(pdu: A_ASSOCIATE_RQ, primitive: Any) -> None:
        from_primitive(pdu, primitive)
        pdu.protocol_version = version

    return changed


@each_server
@pytest.mark.parametrize(
    ("version", "said"), [(2, VERSION_UNKNOWN), (0, VERSION_UNKNOWN), (3, ACCEPTED)]
)
def test_pynetdicom_is_told_that_its_protocol_version_is_not_supported(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, version: int, said: Said
) -> None:
    monkeypatch.setattr(A_ASSOCIATE_RQ, "from_primitive", with_version(version))
    with serve(Admission()) as server:
        assert ask_by_pynetdicom(server.address[1]) == said
    assert server.counters.rejected == ({("sent", *said): 1} if said else {})


@each_server
def test_a_rejection_has_its_three_codes_on_the_wire(serve: Serve) -> None:
    request = ltdic.AssociateRequest(
        "GATEWAY", "CT_1", (ltdic.ProposedContext(1, VERIFICATION, (IMPLICIT,)),)
    )
    wire = bytearray(ltdic.encode(request))
    wire[6:8] = b"\0\2"  # the protocol version
    with serve(Admission()) as server, socket.create_connection(server.address, TIMEOUT) as client:
        client.sendall(wire)
        assert receive_pdu(client) == bytes.fromhex("03 00 00000004 00 01 02 02")


# ---- user identity ---------------------------------------------------------------------------

USERS = Admission(
    contexts=["Verification", "SecondaryCaptureImageStorage"],
    identity={"anna": None, "björn": "geheim"},
)
IDENTITIES = [
    pytest.param("anna", None, ACCEPTED, id="name"),
    pytest.param("anna", "anything", ACCEPTED, id="name-and-any-passcode"),
    pytest.param("björn", "geheim", ACCEPTED, id="name-and-passcode"),
    pytest.param("björn", "falsch", NOT_AUTHENTICATED, id="wrong-passcode"),
    pytest.param("björn", None, NOT_AUTHENTICATED, id="no-passcode"),
    pytest.param("clara", None, NOT_AUTHENTICATED, id="unknown"),
    pytest.param("clara", "geheim", NOT_AUTHENTICATED, id="unknown-with-passcode"),
]


@each_server
@pytest.mark.parametrize("response", [False, True])
@pytest.mark.parametrize(("name", "passcode", "said"), IDENTITIES)
def test_pynetdicom_is_admitted_by_its_user_identity(
    serve: Serve, name: str, passcode: str | None, response: bool, said: Said
) -> None:
    with serve(USERS) as server:
        offered = identity(name, passcode, response)
        association = associate(server.address[1], ext_neg=offered)
        answer = association.acceptor.user_identity
        assert said_by(association) == said
    assert (answer is not None) == (response and said is ACCEPTED)
    if answer is not None:
        assert answer.server_response == b""


@pytest.mark.slow
@needs_dcmtk
@each_server
@pytest.mark.parametrize("response", [False, True])
@pytest.mark.parametrize(("name", "passcode", "said"), IDENTITIES)
def test_storescu_is_admitted_by_its_user_identity(
    tmp_path: Path, serve: Serve, name: str, passcode: str | None, response: bool, said: Said
) -> None:
    options = ["-usr", name]
    options += [] if passcode is None else ["-pwd", passcode]
    options += ["-rsp"] if response else []
    with serve(USERS) as server:
        code, printed = storescu(server.address[1], tmp_path, *options)
    assert said_in(code, printed) == said
    assert ("Server Response (not dumped) length: 0" in printed) == (response and said is ACCEPTED)


@each_server
@each_peer
def test_a_peer_without_a_required_user_identity_is_rejected(serve: Serve, ask: Ask) -> None:
    with serve(USERS) as server:
        assert ask(server.address[1]) == NOT_AUTHENTICATED


@each_server
def test_an_admission_without_users_ignores_the_user_identity(
    serve: Serve,
) -> None:
    with serve(Admission()) as server:
        association = associate(server.address[1], ext_neg=identity("anna", None, True))
        assert association.acceptor.user_identity is None
        assert said_by(association) is ACCEPTED


# ---- limits, with one association open -----------------------------------------------------------


def ends(association: Any) -> None:
    association.release()
    assert association.is_released


def aborts(association: Any) -> None:
    association.abort()
    assert association.is_aborted


LIMITS = [
    pytest.param({"max_associations": 1}, LIMIT_REACHED, LIMIT_REACHED, id="total"),
    pytest.param({"max_per_calling": 1}, LIMIT_REACHED, ACCEPTED, id="each-title"),
    pytest.param({"max_per_calling": {"CT_1": 1}}, LIMIT_REACHED, ACCEPTED, id="named"),
    pytest.param({"max_per_calling": {"CT_2": 1}}, ACCEPTED, ACCEPTED, id="another-named"),
]


@pytest.mark.slow
@each_server
@each_peer
@pytest.mark.parametrize("end", [ends, aborts])
@pytest.mark.parametrize(("limits", "same", "other"), LIMITS)
def test_a_peer_is_told_that_a_limit_is_reached_until_a_place_is_free(
    serve: Serve,
    ask: Ask,
    end: Callable[[Any], None],
    limits: dict[str, Any],
    same: Said,
    other: Said,
) -> None:
    with serve(Admission(**limits)) as server:
        port = server.address[1]
        first = associate(port, calling="CT_1")
        assert first.is_established
        assert ask(port, calling="CT_1") == same
        assert ask(port, calling="CT_2") == other
        end(first)
        until_ended(server)
        assert ask(port, calling="CT_1") is ACCEPTED


def until_ended(server: AnyServer) -> None:
    """Wait until the server has seen the end of all accepted associations."""
    eventually(lambda: (c := server.counters).accepted == c.released + c.aborted)


# ---- a decision in Python --------------------------------------------------------------------


def deciding(codes: Codes, asynchronous: bool) -> Admission:
    asked: list[str] = []

    def decide(association: Any) -> AssociateReject | None:
        asked.append(association.request.calling_ae)
        return AssociateReject(*codes) if association.request.called_ae == "GATEWAY" else None

    async def decide_later(association: Any) -> AssociateReject | None:
        await asyncio.sleep(0)
        return decide(association)

    return Admission(on_request=decide_later if asynchronous else decide)


DECIDING = [
    pytest.param(blocking, False, id="Server"),
    pytest.param(in_asyncio, False, id="aio.Server-thread"),
    pytest.param(in_asyncio, True, id="aio.Server"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("serve", "asynchronous"), DECIDING)
@each_peer
@each_rejection
def test_a_peer_is_told_each_rejection_that_on_request_returns(
    serve: Serve, asynchronous: bool, ask: Ask, codes: Codes
) -> None:
    with serve(deciding(codes, asynchronous)) as server:
        assert ask(server.address[1]) == codes
        assert ask(server.address[1], called="OTHER") is ACCEPTED
    assert server.counters.rejected == {("sent", *codes): 1}


# ---- user identity of our requestors -------------------------------------------------------------


def connect(port: int, **options: Any) -> ltdic.AssociateAccept:
    with ltdic.connect(LOCALHOST, port, timeout=TIMEOUT, **options) as association:
        assert association.echo() == 0
        return association.accept


def connect_in_asyncio(port: int, **options: Any) -> ltdic.AssociateAccept:
    async def connected() -> ltdic.AssociateAccept:
        async with aio.connect(LOCALHOST, port, timeout=TIMEOUT, **options) as association:
            assert await association.echo() == 0
            return association.accept

    return asyncio.run(connected())


Connect = Callable[..., ltdic.AssociateAccept]
each_connect = pytest.mark.parametrize("connect", [connect, connect_in_asyncio])


def user_known(event: Any) -> tuple[bool, bytes | None]:
    known = {(1, b"anna", b""), (2, b"bob", b"secret"), (3, b"token", b"")}
    who = event.user_id_type, event.primary_field, event.secondary_field or b""
    return who in known, b"ticket"


@pytest.mark.slow
@each_connect
@pytest.mark.parametrize(
    ("who", "answer"),
    [
        pytest.param(ltdic.UserIdentity(1, 0, b"anna"), None, id="name"),
        pytest.param(ltdic.UserIdentity(2, 0, b"bob", b"secret"), None, id="passcode"),
        # pynetdicom answers neither a name nor a passcode, even where it is asked to
        pytest.param(ltdic.UserIdentity(2, 1, b"bob", b"secret"), None, id="passcode-response"),
        pytest.param(ltdic.UserIdentity(3, 0, b"token"), None, id="kerberos"),
        pytest.param(ltdic.UserIdentity(3, 1, b"token"), b"ticket", id="kerberos-response"),
    ],
)
def test_pynetdicom_admits_our_requestor_by_its_user_identity(
    connect: Connect, who: ltdic.UserIdentity, answer: bytes | None
) -> None:
    with pynetdicom_acceptor([(evt.EVT_USER_ID, user_known)]) as port:
        accept = connect(port, identity=who)
    assert accept.user_info is not None
    said = accept.user_info.user_identity_response
    assert (said.response if said is not None else None) == answer


@pytest.mark.slow
@each_connect
@pytest.mark.parametrize(
    "who",
    [ltdic.UserIdentity(1, 0, b"clara"), ltdic.UserIdentity(2, 1, b"bob", b"wrong")],
    ids=["unknown", "wrong-passcode"],
)
def test_our_requestor_is_told_that_pynetdicom_does_not_know_its_user(
    connect: Connect, who: ltdic.UserIdentity
) -> None:
    with (
        pynetdicom_acceptor([(evt.EVT_USER_ID, user_known)]) as port,
        pytest.raises(ltdic.AssociationRejected) as raised,
    ):
        connect(port, identity=who)
    assert raised.value.codes == (2, 2, 1)  # the codes that pynetdicom chooses


# ---- limits, with 200 at once --------------------------------------------------------------------

MANY = 200


async def ask_at_once(address: tuple[str, int]) -> list[aio.AsyncAssociation | Codes]:
    """Run 200 requestors with four titles; none ends before all are answered."""

    async def ask(number: int) -> aio.AsyncAssociation | Codes:
        try:
            return await aio.connect(*address, calling_ae=f"CT_{number % 4}", timeout=TIMEOUT)
        except ltdic.AssociationRejected as e:
            return e.codes

    return await asyncio.gather(*map(ask, range(MANY)))


def admitted(
    answers: list[aio.AsyncAssociation | Codes],
) -> tuple[list[aio.AsyncAssociation], Counter[str]]:
    """Return the accepted ones; assert that all others had reached a limit."""
    found = [answer for answer in answers if isinstance(answer, aio.AsyncAssociation)]
    others = [answer for answer in answers if not isinstance(answer, aio.AsyncAssociation)]
    assert others == [LIMIT_REACHED] * (MANY - len(found))
    return found, Counter(association.request.calling_ae for association in found)


EACH = {f"CT_{n}": 50 for n in range(4)}
LIMITS_OF_MANY = [
    pytest.param({"max_associations": 30}, 30, None, id="total"),
    pytest.param({"max_associations": 1}, 1, None, id="one"),
    pytest.param({"max_per_calling": 7}, 28, dict.fromkeys(EACH, 7), id="each-title"),
    pytest.param({"max_per_calling": {"CT_2": 3}}, 153, EACH | {"CT_2": 3}, id="named"),
    pytest.param({"max_associations": 20, "max_per_calling": 10}, 20, None, id="both"),
]


@pytest.mark.slow
@each_server
@pytest.mark.parametrize(("limits", "count", "titles"), LIMITS_OF_MANY)
def test_a_limit_holds_for_200_requestors_at_once_and_places_are_freed(
    serve: Serve, limits: dict[str, Any], count: int, titles: dict[str, int] | None
) -> None:
    async def three_rounds(server: AnyServer) -> None:
        for end in ("release", "abort", "release"):
            found, by_title = admitted(await ask_at_once(server.address))
            assert len(found) == count
            assert titles is None or by_title == titles
            await asyncio.gather(*(getattr(association, end)() for association in found))

    with serve(Admission(**limits)) as server:
        asyncio.run(three_rounds(server))
        counted = server.counters
    assert (counted.accepted, counted.released, counted.aborted) == (3 * count, 2 * count, count)
    refused = 3 * (MANY - count)
    assert counted.rejected == ({("sent", *LIMIT_REACHED): refused} if refused else {})
