"""The matrix of peers and cases: each peer in each case that it supports, as requestor and
acceptor.

`pytest -q -s tests/peers/test_matrix.py` prints the matrix at the end.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pynetdicom
import pytest

from ltdic import ffi
from ltdic.l_dicom import (
    DICOM_ERROR_ABORTED,
    DICOM_ERROR_CLOSED,
    DICOM_SECURE_NONE,
    DICOM_SUCCESS,
    PDU_ABORT,
    PDU_ABORT_REASON_UNKNOWN,
    PDU_ABORT_SOURCE_USER,
    PDU_ACCEPT_RESULT_SUCCESS,
    PDU_ACCEPT_RESULT_TRANSFER_SYNTAX,
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
    L_DicomGetAssociate,
    L_DicomGetHostInfo,
    L_DicomGetMaxLength,
    L_DicomGetPresentation,
    L_DicomGetPresentationCount,
    L_DicomGetTransfer,
    L_DicomGetTransferCount,
    L_DicomIsAssociated,
    L_DicomIsConnected,
    L_DicomListen,
    L_DicomSendAbort,
    L_DicomSendAssociateAccept,
    L_DicomSendAssociateReject,
    L_DicomSendAssociateRequest,
    L_DicomSendCEchoRequest,
    L_DicomSendCEchoResponse,
    L_DicomSendData,
    L_DicomSendReleaseRequest,
    L_DicomSendReleaseResponse,
    L_DicomSetCallback,
    L_DicomSetCalled,
    L_DicomSetCalling,
    L_DicomSetMaxLength,
    L_DicomWait,
)
from support.commands import INSTANCE, ROWS, command_set, dicom_file, elements_of, store_response
from support.dcmtk import REASONS, RESULTS, SOURCES
from support.l_dicom import check
from support.rejections import Codes
from support.sockets import LOCALHOST, TIMEOUT, close_with_reset, reserved_port
from support.toolchain import clean_environment, is_installed, marks_of_peer, run
from support.uids import IMPLICIT, SECONDARY_CAPTURE, VERIFICATION

KIB = 1024
MORE_ROWS = 8192  # 16 MiB, more than sockets hold

Event = tuple[Any, ...]

# ---- data to send ----------------------------------------------------------------------------


def data_set_in(file: bytes) -> bytes:
    """Return the part of a file after the preamble and the meta information."""
    assert file[128:140] == b"DICM\x02\x00\x00\x00UL\x04\x00"
    return file[144 + int.from_bytes(file[140:144], "little") :]


STORE_REQUEST = command_set(
    {0x2: SECONDARY_CAPTURE, 0x100: 1, 0x110: 9, 0x700: 0, 0x800: 0, 0x1000: INSTANCE}
)


def status_in(response: bytes) -> int:
    return int.from_bytes(elements_of(response)[0x900], "little")


# ---- our side --------------------------------------------------------------------------------

# Slot -> the number of its arguments, after the handle, in the event. Data is kept apart.
NOTED = {
    "pfnConnect": 1,
    "pfnClose": 1,
    "pfnReceive": 2,
    "pfnSend": 3,
    "pfnReceiveAssociateRequest": 0,
    "pfnReceiveAssociateAccept": 0,
    "pfnReceiveAssociateReject": 3,
    "pfnReceiveReleaseRequest": 0,
    "pfnReceiveReleaseResponse": 0,
    "pfnReceiveAbort": 2,
    "pfnReceiveCEchoRequest": 3,
    "pfnReceiveCEchoResponse": 4,
}


def as_python(value: Any) -> Any:
    """Copy text, which is valid only until the callback returns."""
    return ffi.string(value).decode() if isinstance(value, ffi.CData) else value


class End:
    """Our end of an association: its events, and the message that it sends."""

    def __init__(self, maximum: int = 16 * KIB, **reactions: Callable[[End], None]) -> None:
        self.maximum, self.reactions = maximum, reactions
        self.told: list[Event] = []
        self.raw, self.command, self.data = bytearray(), bytearray(), bytearray()
        self.net = L_DicomCreateNet(None, DICOM_SECURE_NONE)
        slots = {slot: partial(self.note, slot, count) for slot, count in NOTED.items()}
        slots["pfnReceiveData"] = self.keep
        check(L_DicomSetCallback(self.net, slots))

    def note(self, slot: str, count: int, hNet: Any, *arguments: Any) -> None:
        assert hNet == self.net
        name = slot[3:]
        self.told.append((name, *map(as_python, arguments[:count])))
        if name == "Receive" and arguments[:2] == (DICOM_SUCCESS, PDU_DATA_TRANSFER):
            self.raw += bytes(ffi.buffer(arguments[2], arguments[3]))
            self.told.pop()
        if name == "ReceiveAssociateRequest":
            self.request = proposed(arguments[0])
        self.react(name)

    def keep(self, hNet: Any, context: int, control: int, data: Any, size: int, _: Any) -> None:
        assert hNet == self.net
        name, kept = ("Command", self.command) if control & 1 else ("Data", self.data)
        if not kept:
            self.told.append((f"{name} begins", context))
        kept.extend(ffi.buffer(data, size))
        if control & 2:
            self.context = context
            self.told.append((f"{name} ends", context))
            self.react(f"{name} ends")

    def react(self, name: str) -> None:
        if name in self.reactions:
            self.reactions[name](self)

    def pump_until(self, what: object, done: Callable[[], bool]) -> None:
        end = time.monotonic() + TIMEOUT
        while not done():
            assert time.monotonic() < end, f"no {what}: {self.told}"
            L_DicomWait(self.net, 100)

    def until(self, *names: str) -> Event:
        """Pump until one of these events has come; return the last of them."""
        self.pump_until(names, lambda: any(event[0] in names for event in self.told))
        return [event for event in self.told if event[0] in names][-1]

    def until_sent(self, kind: int) -> None:
        """Pump until a PDU of this type has gone."""
        self.pump_until(f"PDU {kind} sent", lambda: kind in dict(self.sent()))

    def all_told(self) -> list[Event]:
        """Return the events up to the end, which comes once and last."""
        self.until("Close")
        L_DicomWait(self.net, 20)
        assert [event[0] for event in self.told].index("Close") == len(self.told) - 1
        return self.told

    def sent(self) -> list[tuple[int, int]]:
        """Return the type and the length field of each sent PDU."""
        told = [event[1:] for event in self.told if event[0] == "Send"]
        return [(kind, size - 6) for error, kind, size in told if error == DICOM_SUCCESS]

    def is_up(self) -> bool:
        """Tell whether the association has not ended yet."""
        L_DicomWait(self.net, 20)
        ended = any(event[0] == "Close" for event in self.told)
        return bool(L_DicomIsConnected(self.net)) and not ended

    def send(self, context: int, control: int, data: bytes) -> None:
        check(L_DicomSendData(self.net, context, control, data, len(data)))

    def release(self) -> None:
        self.ask_for_release()
        self.until_sent(PDU_RELEASE_REQUEST)

    def abort(self) -> None:
        check(L_DicomSendAbort(self.net, PDU_ABORT_SOURCE_USER, PDU_ABORT_REASON_UNKNOWN))
        self.until_sent(PDU_ABORT)

    def reject(self, codes: Codes) -> None:
        check(L_DicomSendAssociateReject(self.net, *codes))
        self.until_sent(PDU_ASSOCIATE_REJECT)

    # Callbacks may use the functions from here on, which do not wait.

    def ask_for_release(self) -> None:
        check(L_DicomSendReleaseRequest(self.net))

    def answer_release(self) -> None:
        check(L_DicomSendReleaseResponse(self.net))

    def answer_echo(self) -> None:
        context, message, sop_class = self.until("ReceiveCEchoRequest")[1:]
        check(L_DicomSendCEchoResponse(self.net, context, message, sop_class, 0))

    # ---- as requestor

    def connect(self, port: int, called: str) -> None:
        """Connect as soon as the peer listens, and send an A-ASSOCIATE-RQ."""
        request = L_DicomCreateAssociate(True)
        check(L_DicomSetCalled(request, called))
        check(L_DicomSetCalling(request, "OURS"))
        check(L_DicomSetMaxLength(request, self.maximum))
        for context, abstract in ((1, VERIFICATION), (3, SECONDARY_CAPTURE)):
            check(L_DicomAddPresentation(request, context, 0, abstract))
            check(L_DicomAddTransfer(request, context, IMPLICIT))
        check(L_DicomDefaultAssociate(request))
        end = time.monotonic() + TIMEOUT
        while True:
            self.told.clear()
            check(L_DicomConnect(self.net, None, 0, LOCALHOST, port))
            check(L_DicomSendAssociateRequest(self.net, request))
            if self.until("Connect")[1] == DICOM_SUCCESS:
                break
            assert time.monotonic() < end, "nobody listens"
            time.sleep(0.02)
        L_DicomFreeAssociate(request)

    def associate(self, port: int, called: str = "PEER") -> None:
        self.connect(port, called)
        assert self.until("ReceiveAssociateAccept", "Close") == ("ReceiveAssociateAccept",)

    # ---- as acceptor

    def accept(self) -> None:
        """Accept Implicit VR Little Endian in each context that proposes it."""
        accept = L_DicomCreateAssociate(False)
        check(L_DicomSetMaxLength(accept, self.maximum))
        check(L_DicomDefaultAssociate(accept))
        for context, transfers in self.request.items():
            fits = IMPLICIT in transfers
            result = PDU_ACCEPT_RESULT_SUCCESS if fits else PDU_ACCEPT_RESULT_TRANSFER_SYNTAX
            check(L_DicomAddPresentation(accept, context, result, None))
            check(L_DicomAddTransfer(accept, context, IMPLICIT if fits else transfers[0]))
        check(L_DicomSendAssociateAccept(self.net, accept))
        L_DicomFreeAssociate(accept)


def proposed(request: Any) -> dict[int, list[str]]:
    """Return the transfer syntaxes of each context of a request."""
    ids = [L_DicomGetPresentation(request, n) for n in range(L_DicomGetPresentationCount(request))]
    return {
        i: [L_DicomGetTransfer(request, i, n) for n in range(L_DicomGetTransferCount(request, i))]
        for i in ids
    }


def pdu_lengths(raw: bytes) -> list[int]:
    """Return the length fields of P-DATA-TF PDUs; assert that there are no other bytes."""
    lengths, at = [], 0
    while at < len(raw):
        assert raw[at] == PDU_DATA_TRANSFER
        lengths.append(int.from_bytes(raw[at + 2 : at + 6], "big"))
        at += 6 + lengths[-1]
    assert at == len(raw)
    return lengths


@contextmanager
def our_end(maximum: int = 16 * KIB, **reactions: Callable[[End], None]) -> Iterator[End]:
    end = End(maximum, **reactions)
    try:
        yield end
    finally:
        L_DicomFreeNet(end.net)


class Listener:
    """A listener for one end of ours."""

    def __init__(self, end: End) -> None:
        self.end = end
        self.net = L_DicomCreateNet(None, DICOM_SECURE_NONE)
        check(L_DicomSetCallback(self.net, {"pfnAccept": self.on_accept}))
        check(L_DicomListen(self.net, LOCALHOST, 0, 1))
        self.port: int = L_DicomGetHostInfo(self.net)[1]

    def on_accept(self, hNet: Any, nError: int, _: Any) -> None:
        check(nError)
        check(L_DicomAccept(hNet, self.end.net))


# ---- programs --------------------------------------------------------------------------------


class Program:
    """A running program of a peer."""

    http = 0  # the port of its REST API, if it has one

    def __init__(self, command: list[str], folder: Path) -> None:
        self.folder, self.log = folder, folder / "log"
        with self.log.open("ab") as log:  # others may add to it
            self.process = subprocess.Popen(
                command, cwd=folder, stdout=log, stderr=log, env=clean_environment()
            )

    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def says(self, *expected: str) -> bool:
        """Tell whether it prints all this soon."""
        end = time.monotonic() + TIMEOUT
        while not all(text in self.text() for text in expected):
            assert time.monotonic() < end, f"no {expected} in:\n{self.text()[-5000:]}"
            time.sleep(0.01)
        return True

    def pause(self) -> None:
        """Stop the process in its present state."""
        self.process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self.process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        assert self.process.poll() is None, self.text()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(TIMEOUT)


@contextmanager
def running(command: list[str], folder: Path) -> Iterator[Program]:
    program = Program(command, folder)
    try:
        yield program
    finally:
        program.kill()


@dataclass(frozen=True)
class Way:
    """The behaviour of a server: what it announces and does."""

    port: int
    maximum: int = 16 * KIB
    refuses: bool = False
    ends: str = ""  # "release" or "abort": how it ends the established association


@dataclass(frozen=True)
class Call:
    """The task of a client: echo, store, release, abort, or wait for our end."""

    port: int
    what: str
    maximum: int = 16 * KIB
    rows: int = ROWS  # of the image to store


class Peer(ABC):
    """Another implementation: how its programs are run, and what they print."""

    name: str
    program: str  # the peer is installed if this program is

    @property
    def version(self) -> str:
        found = re.search(r"\d+\.\d+\.\d+", run(self.program, "--version"))
        return found[0] if found else "?"

    @abstractmethod
    def call(self, folder: Path, call: Call) -> AbstractContextManager[Program]:
        """Run a client that connects to us."""

    @abstractmethod
    def says_rejected(self, client: Program, codes: Codes) -> bool:
        """Tell whether the client has printed the rejection, with the codes if it prints any."""


class ServingPeer(Peer):
    """A peer that also has a server."""

    @abstractmethod
    def serve(self, folder: Path, way: Way) -> AbstractContextManager[Program]:
        """Run a server, which may not listen yet."""

    @abstractmethod
    def stored(self, server: Program) -> bytes:
        """Return the only data set that its server has received."""


# ---- pynetdicom ------------------------------------------------------------------------------

PYNETDICOM = """
import json, pathlib, sys, time
from pynetdicom import AE, evt

VERIFICATION, SECONDARY_CAPTURE = "1.2.840.10008.1.1", "1.2.840.10008.5.1.4.1.1.7"
role, way = sys.argv[1], json.loads(sys.argv[2])
ae = AE("PYNETDICOM")
ae.maximum_pdu_size = way["maximum"]
ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = 20

def say(*words):
    print(*words, flush=True)

def on_pdu(event):
    kind = type(event.pdu).__name__
    if kind == "A_ASSOCIATE_RJ":
        say(kind, event.pdu.result, event.pdu.source, event.pdu.reason_diagnostic)
    elif kind != "P_DATA_TF":
        say(kind)

def on_store(event):
    pathlib.Path("stored").write_bytes(event.request.DataSet.getvalue())
    return 0

def until(done):
    end = time.monotonic() + 20
    while not done() and time.monotonic() < end:
        time.sleep(0.005)

def abort(association):
    association.abort(block=False)  # else 3.0.4 may close before it has sent the A-ABORT
    until(lambda: not association.is_alive())

def is_up(association):
    return association.dul.state_machine.current_state == "Sta6" and association.is_established

handlers = [(evt.EVT_PDU_RECV, on_pdu), (evt.EVT_C_STORE, on_store)]
if role == "server":
    for context in VERIFICATION, SECONDARY_CAPTURE:
        ae.add_supported_context(context, "1.2.840.10008.1.2")
    ae.require_called_aet = way["refuses"]
    server = ae.start_server(("127.0.0.1", way["port"]), block=False, evt_handlers=handlers)
    if way["ends"]:
        until(lambda: any(map(is_up, server.active_associations)))
        association = server.active_associations[0]
        association.release() if way["ends"] == "release" else abort(association)
    time.sleep(60)
else:
    for context in VERIFICATION, SECONDARY_CAPTURE:
        ae.add_requested_context(context, "1.2.840.10008.1.2")
    association = ae.associate("127.0.0.1", way["port"], evt_handlers=handlers,
                               max_pdu=way["maximum"])
    if way["what"] == "echo":
        say("status", association.send_c_echo().get("Status"))
    if way["what"] == "store":
        say("status", association.send_c_store("image.dcm").get("Status"))
    if way["what"] == "wait":
        until(lambda: not association.is_alive())
    if way["what"] == "abort":
        abort(association)
    elif association.is_established:
        association.release()
"""


class Pynetdicom(ServingPeer):
    name = "pynetdicom"
    program = sys.executable

    @property
    def version(self) -> str:
        return pynetdicom.__version__

    def serve(self, folder: Path, way: Way) -> AbstractContextManager[Program]:
        return self.run("server", folder, way)

    def call(self, folder: Path, call: Call) -> AbstractContextManager[Program]:
        (folder / "image.dcm").write_bytes(dicom_file(call.rows))
        return self.run("client", folder, call)

    def run(self, role: str, folder: Path, way: Way | Call) -> AbstractContextManager[Program]:
        return running([sys.executable, "-c", PYNETDICOM, role, json.dumps(vars(way))], folder)

    def stored(self, server: Program) -> bytes:
        return (server.folder / "stored").read_bytes()

    def says_rejected(self, client: Program, codes: Codes) -> bool:
        return client.says("A_ASSOCIATE_RJ " + " ".join(map(str, codes)))


# ---- DCMTK -----------------------------------------------------------------------------------


class Dcmtk(ServingPeer):
    name = "DCMTK"
    program = "storescp"

    def serve(self, folder: Path, way: Way) -> AbstractContextManager[Program]:
        options = ["-pdu", str(way.maximum), "+B"] + ["--refuse"] * way.refuses
        options += ["--abort-after"] * (way.ends == "abort")
        return running(["storescp", "-v", "-dhl", *options, str(way.port)], folder)

    def call(self, folder: Path, call: Call) -> AbstractContextManager[Program]:
        (folder / "image.dcm").write_bytes(dicom_file(call.rows))
        program, *options = {
            "echo": ["echoscu"],
            "release": ["termscu"],
            "abort": ["echoscu", "--abort"],
            "store": ["storescu", "-xi", "-R"],
        }[call.what]
        options += ["-v", "-pdu", str(call.maximum), LOCALHOST, str(call.port)]
        files = ["image.dcm"] if program == "storescu" else []
        return running([program, *options, *files], folder)

    def stored(self, server: Program) -> bytes:
        (file,) = server.folder.glob("SC.*")
        return data_set_in(file.read_bytes())

    def says_rejected(self, client: Program, codes: Codes) -> bool:
        result, source, reason = codes
        return client.says(
            f"Result: {RESULTS[result]}, Source: {SOURCES[source]}",
            f"Reason: {REASONS[source, reason]}",
        )


# ---- Orthanc ---------------------------------------------------------------------------------


class Orthanc(ServingPeer):
    """Orthanc as a server and, through its REST API, as a client."""

    name = "Orthanc"
    program = "Orthanc"

    @contextmanager
    def start(
        self, folder: Path, ports: tuple[int, int], ours: int, more: Any
    ) -> Iterator[Program]:
        config = {
            "StorageDirectory": str(folder / "db"),
            "IndexDirectory": str(folder / "db"),
            "DicomPort": ports[0],
            "HttpPort": ports[1],
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False,
            "Plugins": [],
            "DicomAlwaysAllowStore": True,
            "DicomModalities": {"ours": ["OURS", LOCALHOST, ours]},
            **more,
        }
        (folder / "orthanc.json").write_text(json.dumps(config))
        with running(["Orthanc", "--trace-dicom", "orthanc.json"], folder) as program:
            program.http = ports[1]
            yield program

    @contextmanager
    def serve(self, folder: Path, way: Way) -> Iterator[Program]:
        more = {"MaximumPduLength": way.maximum, "DicomCheckCalledAet": way.refuses}
        with reserved_port() as port, self.start(folder, (way.port, port), 1, more) as program:
            yield program

    def rest(self, program: Program, method: str, path: str, body: bytes = b"") -> bytes:
        end = time.monotonic() + TIMEOUT
        while True:
            try:
                connection = http.client.HTTPConnection(LOCALHOST, program.http, timeout=TIMEOUT)
                connection.connect()
                break
            except ConnectionRefusedError:
                assert time.monotonic() < end, program.text()
                time.sleep(0.02)
        connection.request(method, path, body)
        found = connection.getresponse().read()
        connection.close()
        return found

    def ask(self, program: Program, path: str, body: bytes) -> None:
        """Make Orthanc connect; add its answer, which comes at the end, to its output."""
        answer = self.rest(program, "POST", path, body)
        with program.log.open("ab") as log:
            log.write(b"\nAnswer: " + answer)

    @contextmanager
    def call(self, folder: Path, call: Call) -> Iterator[Program]:
        more = {"MaximumPduLength": call.maximum}
        with ExitStack() as stack:
            ports = stack.enter_context(reserved_port()), stack.enter_context(reserved_port())
            pool = stack.enter_context(ThreadPoolExecutor(1))
            program = stack.enter_context(self.start(folder, ports, call.port, more))
            what, body = "echo", b"{}"
            if call.what == "store":
                what, kept = (
                    "store",
                    self.rest(program, "POST", "/instances", dicom_file(call.rows)),
                )
                body = json.loads(kept)["ID"].encode()
            pool.submit(self.ask, program, f"/modalities/ours/{what}", body)
            yield program

    def stored(self, server: Program) -> bytes:
        (instance,) = json.loads(self.rest(server, "GET", "/instances"))
        return data_set_in(self.rest(server, "GET", f"/instances/{instance}/file"))

    def says_rejected(self, client: Program, codes: Codes) -> bool:
        return client.says("DUL Association Rejected")  # it never prints the reason


# ---- GDCM ------------------------------------------------------------------------------------


class Gdcm(Peer):
    """A client only. Version 3.0.21 ends in an uncaught exception after each close of its own."""

    name = "GDCM"
    program = "gdcmscu"

    def call(self, folder: Path, call: Call) -> AbstractContextManager[Program]:
        (folder / "image.dcm").write_bytes(dicom_file(call.rows))
        what = ["--store", "-i", "image.dcm"] if call.what == "store" else ["--echo"]
        address = ["-H", LOCALHOST, "-p", str(call.port)]
        return running(["gdcmscu", "-D", *what, *address], folder)

    def says_rejected(self, client: Program, codes: Codes) -> bool:
        """The words of GDCM have the source off by one, and there are none for source 3."""
        result = {1: "rejected-permanent", 2: "rejected-transient"}[codes[0]]
        return client.says(f"Result: {result}", f"Reason: {codes[2]} -" if codes[1] == 1 else "")


# ---- cases: our requestor ---------------------------------------------------------------------

# The last events of our end, by kind of end.
RELEASED = [("ReceiveReleaseResponse",), ("Close", DICOM_SUCCESS)]
ABORTED = [
    ("ReceiveAbort", PDU_ABORT_SOURCE_USER, PDU_ABORT_REASON_UNKNOWN),
    ("Close", DICOM_ERROR_ABORTED),
]
LOST = [("Close", DICOM_ERROR_CLOSED)]
REQUESTOR: dict[str, Callable[[End], None]] = {"ReceiveReleaseRequest": End.answer_release}


@contextmanager
def associated(
    peer: ServingPeer, folder: Path, ours: int = 16 * KIB, **way: Any
) -> Iterator[tuple[Program, End]]:
    """Run a server of the peer; yield it and our end, associated."""
    with (
        reserved_port() as port,
        peer.serve(folder, Way(port, **way)) as server,
        our_end(ours, **REQUESTOR) as end,
    ):
        end.associate(port)
        yield server, end


def was_released(end: End) -> None:
    end.release()
    assert end.all_told()[-2:] == RELEASED


def echo_to_it(peer: Peer, folder: Path) -> None:
    with associated(peer, folder) as (_, end):
        check(L_DicomSendCEchoRequest(end.net, 1, 7, None))
        assert end.until("ReceiveCEchoResponse")[1:] == (1, 7, VERIFICATION, 0)
        was_released(end)


def data_to_it(peer: ServingPeer, folder: Path, ours: int, maximum: int) -> None:
    sent = data_set_in(dicom_file())
    with associated(peer, folder, ours, maximum=maximum) as (server, end):
        assert L_DicomGetMaxLength(L_DicomGetAssociate(end.net)) == maximum
        send_image(end)
        end.until("Command ends")
        assert status_in(end.command) == 0
        was_released(end)
        assert peer.stored(server) == sent
    lengths = [length for kind, length in end.sent() if kind == PDU_DATA_TRANSFER]
    assert max(lengths) == maximum or maximum == 0
    assert sum(lengths) == len(STORE_REQUEST) + len(sent) + 6 * len(lengths)


def rejected_by_it(peer: ServingPeer, folder: Path, codes: Codes) -> None:
    with (
        reserved_port() as port,
        peer.serve(folder, Way(port, refuses=True)),
        our_end() as end,
    ):
        end.connect(port, "OTHER")
        assert end.all_told()[-2:] == [
            ("ReceiveAssociateReject", *codes),
            ("Close", DICOM_SUCCESS),
        ]


def release_to_it(peer: Peer, folder: Path) -> None:
    with associated(peer, folder) as (_, end):
        was_released(end)


def release_by_server(peer: Peer, folder: Path) -> None:
    with associated(peer, folder, ends="release") as (server, end):
        told = end.all_told()
        assert told[-3][:1] == ("ReceiveReleaseRequest",)
        assert told[-2][:3] == ("Send", DICOM_SUCCESS, PDU_RELEASE_RESPONSE)
        assert told[-1] == ("Close", DICOM_SUCCESS)
        assert server.says("A_RELEASE_RP")


def abort_to_it(peer: Peer, folder: Path, words: str) -> None:
    with associated(peer, folder) as (server, end):
        end.abort()
        assert end.all_told()[-1] == ("Close", DICOM_SUCCESS)
        assert server.says(words)


def abort_by_server(peer: Peer, folder: Path, provoke: Callable[[End], None]) -> None:
    with associated(peer, folder, ends="abort") as (_, end):
        provoke(end)
        assert end.all_told()[-2:] == ABORTED


def nothing(end: End) -> None:
    pass


def send_image(end: End) -> None:
    end.send(3, 3, STORE_REQUEST)
    end.send(3, 2, data_set_in(dicom_file()))


def send_no_command(end: End) -> None:
    end.send(1, 3, command_set({}))


def server_killed_in_sta5(peer: ServingPeer, folder: Path) -> None:
    with (
        reserved_port() as port,
        peer.serve(folder, Way(port)) as server,
        our_end() as first,
        our_end() as end,
    ):
        first.associate(port)
        server.pause()
        end.connect(port, "PEER")
        end.until_sent(PDU_ASSOCIATE_REQUEST)
        assert end.is_up()
        server.kill()
        assert end.all_told()[-1:] == LOST


def server_killed(
    peer: Peer, folder: Path, act: Callable[[End], None], error: int = DICOM_ERROR_CLOSED
) -> None:
    """Kill the server in the state that `act` leads to while the server cannot answer."""
    with associated(peer, folder) as (server, end):
        server.pause()
        act(end)
        assert end.is_up()
        server.kill()
        assert end.all_told()[-1] == ("Close", error)
        assert not L_DicomIsAssociated(end.net)


def server_killed_in_sta8(peer: ServingPeer, folder: Path) -> None:
    with (
        reserved_port() as port,
        peer.serve(folder, Way(port, ends="release")) as server,
        our_end() as end,
    ):
        end.associate(port)
        end.until("ReceiveReleaseRequest")
        assert end.is_up()
        server.kill()
        assert end.all_told()[-1:] == LOST


def server_killed_while_we_send(peer: Peer, folder: Path) -> None:
    """Each unsent PDU is told once, before the end."""
    sent = data_set_in(dicom_file()) * 4
    with associated(peer, folder) as (server, end):
        server.pause()
        end.send(3, 3, STORE_REQUEST)
        end.send(3, 2, sent)
        assert end.is_up()
        server.kill()
        assert end.all_told()[-1:] == LOST
    data = [e for e in end.told if e[0] == "Send" and e[2] == PDU_DATA_TRANSFER]
    assert {error for _, error, *_ in data} == {DICOM_SUCCESS, DICOM_ERROR_CLOSED}
    assert sum(size - 12 for *_, size in data) == len(STORE_REQUEST) + len(sent)


# ---- cases: our acceptor ----------------------------------------------------------------------

ACCEPTOR: dict[str, Callable[[End], None]] = {
    "ReceiveAssociateRequest": End.accept,
    "ReceiveReleaseRequest": End.answer_release,
}
NO_ANSWER: dict[str, Callable[[End], None]] = {"ReceiveAssociateRequest": End.accept}
ANSWERED_RELEASE = ("Send", DICOM_SUCCESS, PDU_RELEASE_RESPONSE)


@contextmanager
def calling(peer: Peer, folder: Path, end: End, what: str, **how: int) -> Iterator[Program]:
    """Run a client of the peer that has connected to our end and sent an A-ASSOCIATE-RQ."""
    listener = Listener(end)
    try:
        with peer.call(folder, Call(listener.port, what, **how)) as client:
            end.until("ReceiveAssociateRequest")
            yield client
    finally:
        L_DicomFreeNet(listener.net)


def it_released(end: End) -> None:
    told = end.all_told()
    assert told[-3] == ("ReceiveReleaseRequest",)
    assert told[-2][:3] == ANSWERED_RELEASE
    assert told[-1] == ("Close", DICOM_SUCCESS)


def echo_from_it(peer: Peer, folder: Path, words: str) -> None:
    reactions = {**ACCEPTOR, "ReceiveCEchoRequest": End.answer_echo}
    with our_end(**reactions) as end, calling(peer, folder, end, "echo") as client:
        it_released(end)
        assert client.says(words)


# The output of a client that takes our answer for a success.
STORED = {
    "pynetdicom": "status 0",
    "DCMTK": "Received Store Response (Success)",
    "Orthanc": '"FailedInstancesCount" : 0',
    "GDCM": "(0000,0900) ?? (US) 0 ",
}


def answer_store(end: End) -> None:
    end.send(end.context, 3, store_response(bytes(end.command)))


def data_from_it(peer: Peer, folder: Path, ours: int, maximum: int) -> None:
    reactions = {**ACCEPTOR, "Data ends": answer_store}
    with (
        our_end(ours, **reactions) as end,
        calling(peer, folder, end, "store", maximum=maximum) as client,
    ):
        it_released(end)
        assert client.says(STORED[peer.name])
    assert end.data == data_set_in(dicom_file())
    lengths = pdu_lengths(bytes(end.raw))
    assert max(lengths) <= ours or ours == 0


def rejected_by_us(peer: Peer, folder: Path, codes: Codes) -> None:
    with our_end() as end, calling(peer, folder, end, "echo") as client:
        end.reject(codes)
        assert end.all_told()[-1] == ("Close", DICOM_SUCCESS)
        assert peer.says_rejected(client, codes)


def release_from_it(peer: Peer, folder: Path, what: str) -> None:
    reactions = {**ACCEPTOR, "ReceiveCEchoRequest": End.answer_echo}
    with our_end(**reactions) as end, calling(peer, folder, end, what):
        it_released(end)


def release_by_our_acceptor(
    peer: Peer, folder: Path, words: str, told: list[Event], what: str = "echo"
) -> None:
    """The requestor waits for the answer to its C-ECHO, if it has sent one."""
    with our_end(**ACCEPTOR) as end, calling(peer, folder, end, what) as client:
        end.until("ReceiveCEchoRequest" if what == "echo" else "Send")
        end.release()
        assert end.all_told()[-len(told) :] == told
        assert client.says(words)


def release_by_both(peer: Peer, folder: Path) -> None:
    """The peer asks when it has our answer, and we ask right after it: the connection is lost in
    Sta10."""

    def answer_and_release(end: End) -> None:
        end.answer_echo()
        end.ask_for_release()

    reactions = {**NO_ANSWER, "ReceiveCEchoRequest": answer_and_release}
    with our_end(**reactions) as end, calling(peer, folder, end, "echo"):
        told = end.all_told()
        assert ("ReceiveReleaseRequest",) in told
        assert PDU_RELEASE_REQUEST in dict(end.sent())
        assert told[-1:] == LOST


def abort_by_our_acceptor(peer: Peer, folder: Path, words: str) -> None:
    with our_end(**ACCEPTOR) as end, calling(peer, folder, end, "echo") as client:
        end.until("ReceiveCEchoRequest")
        end.abort()
        assert end.all_told()[-1] == ("Close", DICOM_SUCCESS)
        assert client.says(words)


def abort_by_client(peer: Peer, folder: Path) -> None:
    reactions = {**ACCEPTOR, "ReceiveCEchoRequest": End.answer_echo}
    with our_end(**reactions) as end, calling(peer, folder, end, "abort"):
        assert end.all_told()[-2:] == ABORTED


def client_killed_in_sta3(peer: Peer, folder: Path) -> None:
    with our_end() as end, calling(peer, folder, end, "echo") as client:
        client.kill()
        assert end.all_told()[-1:] == LOST


def client_killed_in_sta6(peer: Peer, folder: Path) -> None:
    with our_end(**NO_ANSWER) as end, calling(peer, folder, end, "echo") as client:
        end.until("ReceiveCEchoRequest")
        client.kill()
        assert end.all_told()[-1:] == LOST


def client_killed_while_it_sends(peer: Peer, folder: Path) -> None:
    """The data sent before arrives, and no more."""
    with (
        our_end(**NO_ANSWER) as end,
        calling(peer, folder, end, "store", rows=MORE_ROWS) as client,
    ):
        end.until("Data begins")
        client.kill()
        assert end.all_told()[-1:] == LOST
    whole = data_set_in(dicom_file(MORE_ROWS))
    assert len(end.data) < len(whole)
    assert whole.startswith(bytes(end.data))


def client_killed_in_sta7(peer: Peer, folder: Path) -> None:
    with our_end(**NO_ANSWER) as end, calling(peer, folder, end, "echo") as client:
        end.until("ReceiveCEchoRequest")
        client.pause()
        end.release()
        assert end.is_up()
        client.kill()
        assert end.all_told()[-1:] == LOST


def client_killed_in_sta8(peer: Peer, folder: Path, what: str) -> None:
    reactions = {**NO_ANSWER, "ReceiveCEchoRequest": End.answer_echo}
    with our_end(**reactions) as end, calling(peer, folder, end, what) as client:
        end.until("ReceiveReleaseRequest")
        client.kill()
        assert end.all_told()[-1:] == LOST


def client_killed_in_sta13(peer: Peer, folder: Path, what: str) -> None:
    """The client is killed after our release response: the association has ended in order."""
    reactions = {**NO_ANSWER, "ReceiveCEchoRequest": End.answer_echo}
    with our_end(**reactions) as end, calling(peer, folder, end, what) as client:
        end.until("ReceiveReleaseRequest")
        client.pause()
        end.answer_release()
        end.until_sent(PDU_RELEASE_RESPONSE)
        assert end.is_up()
        client.kill()
        assert end.all_told()[-1] == ("Close", DICOM_SUCCESS)


def rejected_client_killed_in_sta13(peer: Peer, folder: Path) -> None:
    with our_end() as end, calling(peer, folder, end, "echo") as client:
        client.pause()
        end.reject((1, 1, 1))
        assert end.is_up()
        client.kill()
        assert end.all_told()[-1] == ("Close", DICOM_SUCCESS)


# ---- the table -------------------------------------------------------------------------------

PEERS = {peer.name: peer for peer in (Pynetdicom(), Dcmtk(), Orthanc(), Gdcm())}
MOST_OF_DCMTK = 128 * KIB
MAXIMA = {"none": 0, "16 KiB": 16 * KIB, "64 KiB": 64 * KIB, "1 MiB": 1024 * KIB}
NO_SERVER = {"GDCM": "has no server"}
NO_RELEASE = dict.fromkeys(["DCMTK", "Orthanc"], "never asks for release as a server")


@dataclass(frozen=True)
class Case:
    """An action with the options for each peer, and why other peers cannot take part."""

    name: str
    run: Callable[..., None]
    peers: dict[str, dict[str, Any]]
    without: dict[str, str] = field(default_factory=dict)


def for_all(*names: str, **options: Any) -> dict[str, dict[str, Any]]:
    return dict.fromkeys(names, options)


SERVERS = for_all("pynetdicom", "DCMTK", "Orthanc")
CLIENTS = for_all(*PEERS)


def words(**of_peers: str) -> dict[str, dict[str, Any]]:
    return {name: {"words": text} for name, text in of_peers.items()}


def at_maximum(maximum: int, names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Return options for this maximum length, announced by us and by the peer, or the nearest one.

    DCMTK and Orthanc, which is built on it, announce 4 to 128 KiB; GDCM always 16 KiB.
    """
    nearest = min(maximum or MOST_OF_DCMTK, MOST_OF_DCMTK)
    announced = {"pynetdicom": maximum, "GDCM": 16 * KIB}
    return {n: {"ours": maximum, "maximum": announced.get(n, nearest)} for n in names}


def remark(case: Case, options: dict[str, Any]) -> str:
    """Return a remark if the peer announces another maximum length than the case has."""
    differs = case.run is data_to_it and options["maximum"] != options["ours"]
    return f" by its {options['maximum'] // KIB} KiB" if differs else ""


REJECTED = [(1, 1, 7), (1, 2, 2), (2, 3, 2)]  # one of each source
RELEASES = {
    "pynetdicom": {"what": "release"},
    "DCMTK": {"what": "release"},
    "Orthanc": {"what": "echo"},
    "GDCM": {"what": "echo"},
}
CASES = [
    Case("echo to it", echo_to_it, SERVERS, NO_SERVER),
    Case(
        "echo from it",
        echo_from_it,
        words(
            pynetdicom="status 0",
            DCMTK="Received Echo Response (Success)",
            Orthanc="Answer: {}",
            GDCM="(0000,0900) ?? (US) 0 ",
        ),
    ),
    *[
        Case(f"data to it, maximum {name}", data_to_it, at_maximum(maximum, SERVERS), NO_SERVER)
        for name, maximum in MAXIMA.items()
    ],
    *[
        Case(f"data from it, maximum {name}", data_from_it, at_maximum(maximum, CLIENTS))
        for name, maximum in MAXIMA.items()
    ],
    Case(
        "rejected by it",
        rejected_by_it,
        {
            "pynetdicom": {"codes": (1, 1, 7)},
            "DCMTK": {"codes": (1, 1, 1)},
            "Orthanc": {"codes": (1, 1, 7)},
        },
        NO_SERVER,
    ),
    *[
        Case(
            "rejected by us, " + "/".join(map(str, codes)),
            rejected_by_us,
            for_all(*CLIENTS, codes=codes),
        )
        for codes in REJECTED
    ],
    Case("release to it", release_to_it, SERVERS, NO_SERVER),
    Case("release from it", release_from_it, RELEASES),
    Case(
        "release by its server",
        release_by_server,
        for_all("pynetdicom"),
        NO_RELEASE | NO_SERVER,
    ),
    Case(
        "release by our acceptor",
        release_by_our_acceptor,
        {
            "pynetdicom": {"what": "wait", "words": "A_RELEASE_RQ", "told": RELEASED},
            "DCMTK": {"words": "Peer requested release (Aborting)", "told": ABORTED},
            "Orthanc": {
                "words": "DUL Peer Requested Release",
                "told": LOST,
            },  # closes without a PDU
            "GDCM": {"words": "Echo failed", "told": RELEASED},
        },
    ),
    Case(
        "release by both",
        release_by_both,
        for_all("DCMTK", "Orthanc", "GDCM"),  # no other peer can continue there
        {"pynetdicom": "dies of it in one thread of two, and hangs"},
    ),
    Case(
        "abort to it",
        abort_to_it,
        words(pynetdicom="A_ABORT_RQ", DCMTK="Association Aborted", Orthanc="Association Aborted"),
        NO_SERVER,
    ),
    Case(
        "abort by its server",
        abort_by_server,
        {
            "pynetdicom": {"provoke": nothing},
            "DCMTK": {"provoke": send_image},
            "Orthanc": {"provoke": send_no_command},
        },
        NO_SERVER,
    ),
    Case(
        "abort by our acceptor",
        abort_by_our_acceptor,
        words(
            pynetdicom="A_ABORT_RQ",
            DCMTK="Peer Aborted Association",
            Orthanc="Peer aborted Association",
            GDCM="Source: DICOM UL service-user (initiated abort)",
        ),
    ),
    Case(
        "abort by its client",
        abort_by_client,
        for_all("pynetdicom", "DCMTK"),
        dict.fromkeys(
            ["Orthanc", "GDCM"], "never aborts as a client, not even after a wrong answer"
        ),
    ),
    Case("server killed in Sta5", server_killed_in_sta5, SERVERS, NO_SERVER),
    Case("server killed in Sta6", server_killed, for_all(*SERVERS, act=nothing), NO_SERVER),
    Case("server killed in Sta6, sending", server_killed_while_we_send, SERVERS, NO_SERVER),
    Case("server killed in Sta7", server_killed, for_all(*SERVERS, act=End.release), NO_SERVER),
    Case(
        "server killed in Sta8",
        server_killed_in_sta8,
        for_all("pynetdicom"),
        NO_RELEASE | NO_SERVER,
    ),
    Case(
        "server killed in Sta13",
        server_killed,
        for_all(*SERVERS, act=End.abort, error=DICOM_SUCCESS),
        NO_SERVER,
    ),
    Case("client killed in Sta3", client_killed_in_sta3, CLIENTS),
    Case("client killed in Sta6", client_killed_in_sta6, CLIENTS),
    Case("client killed in Sta6, sending", client_killed_while_it_sends, CLIENTS),
    Case("client killed in Sta7", client_killed_in_sta7, CLIENTS),
    Case("client killed in Sta8", client_killed_in_sta8, RELEASES),
    Case("client killed in Sta13, released", client_killed_in_sta13, RELEASES),
    Case("client killed in Sta13, rejected", rejected_client_killed_in_sta13, CLIENTS),
]


def combinations() -> Iterator[Any]:
    for case in CASES:
        for name, options in case.peers.items():
            program = PEERS[name].program
            marks = [] if program == sys.executable else marks_of_peer(program, name)
            yield pytest.param(
                name, case, options, marks=marks, id=f"{name}-{case.name}{remark(case, options)}"
            )


DONE: dict[tuple[str, str], str] = {}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "case", "options"), list(combinations()))
def test_both_ends_report_the_expected_events(
    tmp_path: Path, name: str, case: Case, options: dict[str, Any]
) -> None:
    case.run(PEERS[name], tmp_path, **options)
    DONE[name, case.name] = "ok" + remark(case, options)


def test_a_connection_lost_in_sta2_is_told_once() -> None:
    """The peer is a plain socket."""
    with our_end() as end:
        listener = Listener(end)
        try:
            with socket.create_connection((LOCALHOST, listener.port), TIMEOUT) as client:
                while not end.is_up():
                    L_DicomWait(listener.net, 100)
                close_with_reset(client)
                assert end.all_told() == LOST
        finally:
            L_DicomFreeNet(listener.net)


def test_each_combination_is_tested_or_has_a_reason_not_to_be() -> None:
    """Print the tested combinations, and the reasons for the others."""
    versions = [p.version if is_installed(p.program) else "not there" for p in PEERS.values()]
    heads = [f"{name} {version}" for name, version in zip(PEERS, versions, strict=True)]
    rows = [[case.name, *[DONE.get((n, case.name), "-") for n in PEERS]] for case in CASES]
    print("\n")
    for first, *cells in [["", *heads], *rows]:
        print(f"{first:34}", *[f"{cell:17}" for cell in cells])
    for name in PEERS:
        reasons = {case.without[name] for case in CASES if name in case.without}
        for reason in sorted(reasons):
            lacks = [case.name for case in CASES if case.without.get(name) == reason]
            print(f"{name} {reason}: not {'; '.join(lacks)}")
    for case in CASES:
        assert sorted([*case.peers, *case.without]) == sorted(PEERS), case.name
