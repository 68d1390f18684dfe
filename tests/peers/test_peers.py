"""Associations with pynetdicom and DCMTK, as requestor and as acceptor."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pynetdicom import evt

from ltdic.l_dicom import (
    DICOM_ERROR_ABORTED,
    DICOM_ERROR_CONNECT,
    DICOM_SECURE_NONE,
    DICOM_SUCCESS,
    PDU_ABORT,
    PDU_ABORT_REASON_UNKNOWN,
    PDU_ABORT_SOURCE_USER,
    PDU_ASSOCIATE_ACCEPT,
    PDU_ASSOCIATE_REJECT,
    PDU_ASSOCIATE_REQUEST,
    PDU_DATA_TRANSFER,
    PDU_RELEASE_REQUEST,
    PDU_RELEASE_RESPONSE,
    L_DicomAccept,
    L_DicomAddPresentation,
    L_DicomAddTransfer,
    L_DicomConnect,
    L_DicomCreateAssociate,
    L_DicomCreateNet,
    L_DicomDefaultAssociate,
    L_DicomFreeAssociate,
    L_DicomFreeNet,
    L_DicomGetCalled,
    L_DicomGetCalling,
    L_DicomGetHostInfo,
    L_DicomGetPresentation,
    L_DicomGetResult,
    L_DicomGetTransfer,
    L_DicomIsAssociated,
    L_DicomListen,
    L_DicomResetAssociate,
    L_DicomSendAbort,
    L_DicomSendAssociateAccept,
    L_DicomSendAssociateReject,
    L_DicomSendAssociateRequest,
    L_DicomSendReleaseRequest,
    L_DicomSendReleaseResponse,
    L_DicomSetApplication,
    L_DicomSetCallback,
    L_DicomSetCalled,
    L_DicomSetCalling,
    L_DicomSetMaxLength,
    L_DicomShutDown,
    L_DicomStartUp,
    L_DicomWait,
)
from support.dcmtk import (
    DCMQRSCP,
    DCMRECV,
    REASONS,
    RESULTS,
    SERVERS,
    SOURCES,
    STORESCP,
    WLMSCPFS,
    dcmtk_server,
    each_rejection,
    named,
    needs_dcmtk,
    run_scu,
)
from support.l_dicom import check
from support.paths import TESTS
from support.pynetdicom_ends import associate, pynetdicom_acceptor, pynetdicom_rejecting
from support.rejections import Codes
from support.sockets import LOCALHOST, TIMEOUT
from support.toolchain import run
from support.uids import APPLICATION_CONTEXT, IMPLICIT, VERIFICATION

Event = tuple[Any, ...]
Reactions = Mapping[str, Callable[..., None]]


# ---- our side --------------------------------------------------------------------------------

# Slot -> the number of its arguments, after the handle, in the event.
NOTED = {
    "pfnConnect": 1,
    "pfnClose": 1,
    "pfnReceive": 2,
    "pfnSend": 2,
    "pfnReceiveAssociateRequest": 0,
    "pfnReceiveAssociateAccept": 0,
    "pfnReceiveAssociateReject": 3,
    "pfnReceiveData": 2,
    "pfnReceiveReleaseRequest": 0,
    "pfnReceiveReleaseResponse": 0,
    "pfnReceiveAbort": 2,
}


def callbacks(events: list[Event], reactions: Reactions) -> dict[str, Callable[..., None]]:
    """Return all callbacks; each records its event and then calls the reaction of its slot."""

    def noting(slot: str) -> Callable[..., None]:
        def called(hNet: Any, *arguments: Any) -> None:
            events.append((slot[3:], *arguments[: NOTED[slot]]))
            if slot in reactions:
                reactions[slot](hNet, *arguments)

        return called

    return {slot: noting(slot) for slot in NOTED}


def requested_then(*events: Event) -> list[Event]:
    """Return the events of our requestor from its connection on."""
    return [("Connect", DICOM_SUCCESS), ("Send", DICOM_SUCCESS, PDU_ASSOCIATE_REQUEST), *events]


def rejected_with(codes: Codes) -> list[Event]:
    """Return the events of our requestor when it is rejected."""
    return requested_then(
        ("Receive", DICOM_SUCCESS, PDU_ASSOCIATE_REJECT),
        ("ReceiveAssociateReject", *codes),
        ("Close", DICOM_SUCCESS),
    )


ACCEPTED = requested_then(
    ("Receive", DICOM_SUCCESS, PDU_ASSOCIATE_ACCEPT), ("ReceiveAssociateAccept",)
)
RELEASED = [
    *ACCEPTED,
    ("Send", DICOM_SUCCESS, PDU_RELEASE_REQUEST),
    ("Receive", DICOM_SUCCESS, PDU_RELEASE_RESPONSE),
    ("ReceiveReleaseResponse",),
    ("Close", DICOM_SUCCESS),
]
ABORTED = [*ACCEPTED, ("Send", DICOM_SUCCESS, PDU_ABORT), ("Close", DICOM_SUCCESS)]


def release(hNet: Any, *_: Any) -> None:
    check(L_DicomSendReleaseRequest(hNet))


def abort(hNet: Any, *_: Any) -> None:
    check(L_DicomSendAbort(hNet, PDU_ABORT_SOURCE_USER, PDU_ABORT_REASON_UNKNOWN))


RELEASING: Reactions = {"pfnReceiveAssociateAccept": release}
ABORTING: Reactions = {"pfnReceiveAssociateAccept": abort}


def with_other_application_context(request: Any) -> None:
    check(L_DicomSetApplication(request, "1.2.3"))


def without_implementation_class(request: Any) -> None:
    """Build the request anew, since a set value cannot be removed."""
    titles = L_DicomGetCalled(request), L_DicomGetCalling(request)
    check(L_DicomResetAssociate(request, True))
    check(L_DicomSetCalled(request, titles[0]))
    check(L_DicomSetCalling(request, titles[1]))
    check(L_DicomSetApplication(request, APPLICATION_CONTEXT))
    check(L_DicomSetMaxLength(request, 16384))
    check(L_DicomAddPresentation(request, 1, 0, VERIFICATION))
    check(L_DicomAddTransfer(request, 1, IMPLICIT))


def nothing(*_: Any) -> None:
    pass


class Requestor:
    """Our end of one association with a server on loopback."""

    def __init__(
        self,
        port: int,
        called: str = "CALLED",
        calling: str = "CALLING",
        change: Callable[[Any], None] = nothing,
        reactions: Reactions = RELEASING,
    ) -> None:
        self.port, self.reactions = port, reactions
        self.events: list[Event] = []
        self.net = L_DicomCreateNet(None, DICOM_SECURE_NONE)
        self.request = L_DicomCreateAssociate(True)
        check(L_DicomSetCalled(self.request, called))
        check(L_DicomSetCalling(self.request, calling))
        check(L_DicomDefaultAssociate(self.request))
        change(self.request)

    def associate(self) -> None:
        """Associate as soon as the server listens, and wait for its answer."""
        end = time.monotonic() + TIMEOUT
        self.connect()
        while self.events[0] == ("Connect", DICOM_ERROR_CONNECT):
            assert time.monotonic() < end, "nobody listens"
            time.sleep(0.02)
            self.connect()
        self.pump_until("ReceiveAssociateAccept", "Close")

    def connect(self) -> None:
        self.events.clear()
        check(L_DicomSetCallback(self.net, callbacks(self.events, self.reactions)))
        check(L_DicomConnect(self.net, None, 0, LOCALHOST, self.port))
        check(L_DicomSendAssociateRequest(self.net, self.request))
        self.pump_until("Connect")

    def pump_until(self, *names: str) -> None:
        end = time.monotonic() + TIMEOUT
        while not any(event[0] in names for event in self.events):
            assert time.monotonic() < end, f"no {names}: {self.events}"
            L_DicomWait(self.net, 100)

    def all_events(self) -> list[Event]:
        """Return the events up to the end, and any after it."""
        self.pump_until("Close")
        L_DicomWait(self.net, 20)
        return self.events

    def free(self) -> None:
        L_DicomFreeAssociate(self.request)
        L_DicomFreeNet(self.net)


@contextmanager
def our_requestor(port: int, **options: Any) -> Iterator[Requestor]:
    """Yield our requestor after the answer of the server."""
    requestor = Requestor(port, **options)
    try:
        requestor.associate()
        yield requestor
    finally:
        requestor.free()


def events_of(port: int, **options: Any) -> list[Event]:
    """Return the events of our requestor from connection to close."""
    with our_requestor(port, **options) as requestor:
        return requestor.all_events()


class Acceptor:
    """Our acceptor in a thread of its own, which alone may use its handles."""

    def __init__(self, reactions: Reactions) -> None:
        self.reactions: Reactions = {**reactions, "pfnClose": self.on_close}
        self.events: list[Event] = []
        self.ports: queue.Queue[int] = queue.Queue()
        self.closed, self.stopped = threading.Event(), threading.Event()

    def run(self) -> None:
        check(L_DicomStartUp())
        try:
            listener = L_DicomCreateNet(None, DICOM_SECURE_NONE)
            check(L_DicomSetCallback(listener, {"pfnAccept": self.on_accept}))
            check(L_DicomListen(listener, LOCALHOST, 0, 1))
            self.ports.put(L_DicomGetHostInfo(listener)[1])
            while not self.stopped.is_set():
                L_DicomWait(listener, 20)
        finally:
            L_DicomShutDown()

    def on_accept(self, hNet: Any, nError: int, _: Any) -> None:
        check(nError)
        accepted = L_DicomCreateNet(None, DICOM_SECURE_NONE)
        check(L_DicomSetCallback(accepted, callbacks(self.events, self.reactions)))
        check(L_DicomAccept(hNet, accepted))

    def on_close(self, *_: Any) -> None:
        self.closed.set()

    def all_events(self) -> list[Event]:
        assert self.closed.wait(TIMEOUT), f"not closed: {self.events}"
        time.sleep(0.02)  # for events after the end, which would be wrong
        return self.events


@contextmanager
def our_acceptor(reactions: Reactions) -> Iterator[tuple[Acceptor, int]]:
    """Yield our acceptor and its port. Raises the exceptions of its callbacks."""
    acceptor = Acceptor(reactions)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(acceptor.run)
        try:
            yield acceptor, acceptor.ports.get(timeout=TIMEOUT)
        finally:
            acceptor.stopped.set()
            running.result(TIMEOUT)


def asked_then(*events: Event) -> list[Event]:
    """Return the events of our acceptor from the associate request on."""
    request = ("Receive", DICOM_SUCCESS, PDU_ASSOCIATE_REQUEST)
    return [request, ("ReceiveAssociateRequest",), *events]


def accepted_then(*events: Event) -> list[Event]:
    """Return the events of our acceptor when it accepts."""
    return asked_then(("Send", DICOM_SUCCESS, PDU_ASSOCIATE_ACCEPT), *events)


def accept_first_context(hNet: Any, hPDU: Any, _: Any) -> None:
    accept = L_DicomCreateAssociate(False)
    context = L_DicomGetPresentation(hPDU, 0)
    check(L_DicomDefaultAssociate(accept))
    check(L_DicomAddPresentation(accept, context, 0, None))
    check(L_DicomAddTransfer(accept, context, IMPLICIT))
    check(L_DicomSendAssociateAccept(hNet, accept))
    L_DicomFreeAssociate(accept)


def answer_release(hNet: Any, _: Any) -> None:
    check(L_DicomSendReleaseResponse(hNet))


ACCEPTING: Reactions = {
    "pfnReceiveAssociateRequest": accept_first_context,
    "pfnReceiveReleaseRequest": answer_release,
    "pfnReceiveData": abort,  # no test here needs an answer to data
}
ANSWERED_RELEASE = accepted_then(
    ("Receive", DICOM_SUCCESS, PDU_RELEASE_REQUEST),
    ("ReceiveReleaseRequest",),
    ("Send", DICOM_SUCCESS, PDU_RELEASE_RESPONSE),
    ("Close", DICOM_SUCCESS),
)


def rejecting(codes: Codes) -> Reactions:
    def reject(hNet: Any, *_: Any) -> None:
        check(L_DicomSendAssociateReject(hNet, *codes))

    return {"pfnReceiveAssociateRequest": reject}


def rejection_sent() -> list[Event]:
    return asked_then(("Send", DICOM_SUCCESS, PDU_ASSOCIATE_REJECT), ("Close", DICOM_SUCCESS))


# ---- pynetdicom accepts or rejects -----------------------------------------------------------


@pytest.mark.slow
@each_rejection
def test_our_requestor_is_told_of_each_rejection_by_pynetdicom_once_and_in_order(
    codes: Codes,
) -> None:
    with pynetdicom_acceptor(pynetdicom_rejecting(codes)) as port:
        assert events_of(port) == rejected_with(codes)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("attributes", "titles", "codes"),
    [
        pytest.param({"require_called_aet": True}, {"called": "OTHER"}, (1, 1, 7), id="called"),
        pytest.param(
            {"require_calling_aet": ["FRIEND"]}, {"calling": "STRANGER"}, (1, 1, 3), id="calling"
        ),
    ],
)
def test_our_requestor_is_told_that_pynetdicom_does_not_know_a_title(
    attributes: dict[str, Any], titles: dict[str, str], codes: Codes
) -> None:
    with pynetdicom_acceptor(**attributes) as port:
        assert events_of(port, **titles) == rejected_with(codes)


@pytest.mark.slow
def test_our_requestor_is_accepted_where_pynetdicom_knows_both_titles() -> None:
    known = {"require_called_aet": True, "require_calling_aet": ["FRIEND"]}
    with pynetdicom_acceptor(**known) as port:
        assert events_of(port, called="PYNETDICOM", calling="FRIEND") == RELEASED


@pytest.mark.slow
def test_our_requestor_is_told_of_pynetdicom_s_limit_of_associations() -> None:
    with (
        pynetdicom_acceptor(maximum_associations=1) as port,
        our_requestor(port, reactions={}) as first,
    ):
        assert first.events == ACCEPTED
        assert events_of(port) == rejected_with((2, 3, 2))
        assert L_DicomIsAssociated(first.net)
        release(first.net)
        assert first.all_events() == RELEASED


@pytest.mark.slow
def test_our_requestor_can_be_rejected_and_then_accepted_on_one_handle() -> None:
    rejection = pynetdicom_rejecting((2, 3, 1))
    with pynetdicom_acceptor(rejection) as port, our_requestor(port) as requestor:
        assert requestor.all_events() == rejected_with((2, 3, 1))
        with pynetdicom_acceptor() as requestor.port:
            requestor.connect()
            assert requestor.all_events() == RELEASED


@pytest.mark.slow
@pytest.mark.parametrize(
    ("end", "events", "seen"),
    [
        pytest.param(release, RELEASED, ["established", "released"], id="released"),
        pytest.param(abort, ABORTED, ["established", "aborted"], id="aborted"),
    ],
)
def test_pynetdicom_sees_how_our_requestor_ends_an_association(
    end: Callable[..., None], events: list[Event], seen: list[str]
) -> None:
    told: queue.Queue[str] = queue.Queue()
    handlers = [
        (evt.EVT_ESTABLISHED, lambda event: told.put("established")),
        (evt.EVT_RELEASED, lambda event: told.put("released")),
        (evt.EVT_ABORTED, lambda event: told.put("aborted")),
    ]
    answers = []

    def on_accept(hNet: Any, hPDU: Any, _: Any) -> None:
        answers.append((L_DicomGetResult(hPDU, 1), L_DicomGetTransfer(hPDU, 1, 0)))
        end(hNet)

    with pynetdicom_acceptor(handlers) as port:
        assert events_of(port, reactions={"pfnReceiveAssociateAccept": on_accept}) == events
        assert [told.get(timeout=TIMEOUT) for _ in seen] == seen
    assert answers == [(0, IMPLICIT)]


@pytest.mark.slow
def test_our_requestor_is_told_of_an_abort_by_pynetdicom() -> None:
    def on_established(event: Any) -> None:
        end = time.monotonic() + TIMEOUT
        machine = event.assoc.dul.state_machine
        while machine.current_state != "Sta6" and time.monotonic() < end:
            time.sleep(
                0.01
            )  # without it pynetdicom would close and send neither the accept nor the abort
        event.assoc.abort()

    with pynetdicom_acceptor([(evt.EVT_ESTABLISHED, on_established)]) as port:
        events = events_of(port, reactions={})
    assert events == [
        *ACCEPTED,
        ("Receive", DICOM_SUCCESS, PDU_ABORT),
        ("ReceiveAbort", PDU_ABORT_SOURCE_USER, PDU_ABORT_REASON_UNKNOWN),
        ("Close", DICOM_ERROR_ABORTED),
    ]


@pytest.mark.slow
@pytest.mark.parametrize("standard", ["c11", "c++17"])
def test_a_C_or_Cpp_program_is_told_of_a_rejection_by_pynetdicom(
    toolchain: Any, standard: str
) -> None:
    program = toolchain.program(TESTS / "c" / "callback_styles.c", standard)
    with pynetdicom_acceptor(pynetdicom_rejecting((2, 3, 1))) as port:
        printed = [run(program, LOCALHOST, str(port), style) for style in "123"]
    assert printed == ["2 3 1\nclosed\n"] * 3


# ---- pynetdicom requests ---------------------------------------------------------------------


@each_rejection
def test_pynetdicom_is_told_of_each_rejection_by_our_acceptor(codes: Codes) -> None:
    with our_acceptor(rejecting(codes)) as (acceptor, port):
        association = associate(port)
        answer = association.acceptor.primitive
        assert association.is_rejected
        assert (answer.result, answer.result_source, answer.diagnostic) == codes
        assert acceptor.all_events() == rejection_sent()


def test_pynetdicom_is_accepted_by_our_acceptor_and_releases() -> None:
    with our_acceptor(ACCEPTING) as (acceptor, port):
        association = associate(port)
        assert association.is_established
        contexts = association.accepted_contexts
        found = [(c.abstract_syntax, c.transfer_syntax) for c in contexts]
        assert found == [(VERIFICATION, [IMPLICIT])]
        association.release()
        assert association.is_released
        assert acceptor.all_events() == ANSWERED_RELEASE


def test_our_acceptor_is_told_of_an_abort_by_pynetdicom() -> None:
    with our_acceptor(ACCEPTING) as (acceptor, port):
        association = associate(port)
        assert association.is_established
        association.abort()
        assert acceptor.all_events() == accepted_then(
            ("Receive", DICOM_SUCCESS, PDU_ABORT),
            ("ReceiveAbort", PDU_ABORT_SOURCE_USER, PDU_ABORT_REASON_UNKNOWN),
            ("Close", DICOM_ERROR_ABORTED),
        )


# ---- DCMTK requests --------------------------------------------------------------------------


@pytest.mark.slow
@needs_dcmtk
@each_rejection
def test_echoscu_prints_each_rejection_by_our_acceptor_in_words(codes: Codes) -> None:
    result, source, reason = codes
    with our_acceptor(rejecting(codes)) as (acceptor, port):
        code, output = run_scu("echoscu", port)
        assert acceptor.all_events() == rejection_sent()
    assert code != 0
    assert output.splitlines()[-3:] == [
        "F: Association Rejected:",
        f"F: Result: {RESULTS[result]}, Source: {SOURCES[source]}",
        f"F: Reason: {REASONS[source, reason]}",
    ]


@needs_dcmtk
def test_termscu_is_accepted_by_our_acceptor_and_releases() -> None:
    with our_acceptor(ACCEPTING) as (acceptor, port):
        code, output = run_scu("termscu", port)
        assert acceptor.all_events() == ANSWERED_RELEASE
    assert code == 0
    assert "Association Accepted" in output


@needs_dcmtk
def test_echoscu_is_accepted_by_our_acceptor_and_told_of_its_abort() -> None:
    with our_acceptor(ACCEPTING) as (acceptor, port):
        _, output = run_scu("echoscu", port)
        assert acceptor.all_events() == accepted_then(
            ("Receive", DICOM_SUCCESS, PDU_DATA_TRANSFER),
            ("ReceiveData", 1, 3),  # context 1; a command, whole
            ("Send", DICOM_SUCCESS, PDU_ABORT),
            ("Close", DICOM_SUCCESS),
        )
    assert "Association Accepted" in output
    assert "Peer Aborted Association" in output


# ---- DCMTK accepts or rejects ----------------------------------------------------------------

OTHER_CONTEXT = {"change": with_other_application_context}
NO_CLASS = {"change": without_implementation_class}
REFUSALS = [
    (STORESCP, ["--refuse"], {}, (1, 1, 1)),
    (STORESCP, ["--reject"], NO_CLASS, (1, 1, 1)),
    (STORESCP, [], OTHER_CONTEXT, (1, 1, 2)),
    (DCMRECV, [], OTHER_CONTEXT, (2, 1, 2)),
    (WLMSCPFS, ["--refuse"], {}, (1, 1, 1)),
    (WLMSCPFS, ["--reject"], NO_CLASS, (1, 1, 1)),
    (WLMSCPFS, [], OTHER_CONTEXT, (2, 1, 2)),
    (WLMSCPFS, [], {"called": "OTHER"}, (1, 1, 7)),
    (DCMQRSCP, ["--refuse"], {}, (1, 1, 1)),
    (DCMQRSCP, ["--reject"], NO_CLASS, (1, 1, 1)),
    (DCMQRSCP, [], OTHER_CONTEXT, (2, 1, 2)),
    (DCMQRSCP, [], {"called": "OTHER"}, (1, 1, 7)),
    # dcmqrscp reports an unknown calling title as an unknown called title
    (DCMQRSCP, [], {"called": "CLOSED", "calling": "STRANGER"}, (1, 1, 7)),
]


def refusal_id(value: Any) -> str:
    """Return a readable id for each part of a refusal."""
    if isinstance(value, tuple):
        return named(value)
    if isinstance(value, list):
        return value[0].strip("-") if value else "plain"
    return "-".join(getattr(part, "__name__", part) for part in value.values()) or "any"


@pytest.mark.slow
@needs_dcmtk
@pytest.mark.parametrize(("server", "options", "request_", "codes"), REFUSALS, ids=refusal_id)
def test_our_requestor_is_told_of_each_kind_of_rejection_by_dcmtk(
    tmp_path: Path, server: list[str], options: list[str], request_: dict[str, Any], codes: Codes
) -> None:
    with dcmtk_server(tmp_path, *server, *options) as port:
        assert events_of(port, **request_) == rejected_with(codes)


@needs_dcmtk
@pytest.mark.parametrize(
    ("server", "options"),
    [(DCMQRSCP, []), (WLMSCPFS, ["--max-associations", "1"])],
    ids=refusal_id,
)
def test_our_requestor_is_told_of_dcmtk_s_limit_of_associations(
    tmp_path: Path, server: list[str], options: list[str]
) -> None:
    with (
        dcmtk_server(tmp_path, *server, *options) as port,
        our_requestor(port, reactions={}) as first,
    ):
        assert first.events == ACCEPTED
        assert events_of(port) == rejected_with((2, 3, 2))
        release(first.net)
        assert first.all_events() == RELEASED


@needs_dcmtk
@pytest.mark.parametrize("server", SERVERS, ids=refusal_id)
def test_our_requestor_is_accepted_by_dcmtk_and_releases(tmp_path: Path, server: list[str]) -> None:
    with dcmtk_server(tmp_path, *server) as port:
        assert events_of(port) == RELEASED


@pytest.mark.slow
@needs_dcmtk
@pytest.mark.parametrize("server", SERVERS, ids=refusal_id)
def test_our_requestor_is_accepted_by_dcmtk_and_aborts(tmp_path: Path, server: list[str]) -> None:
    with dcmtk_server(tmp_path, *server) as port:
        assert events_of(port, reactions=ABORTING) == ABORTED
