"""ltdic in Python: `ltdic_py.py VARIANT accept|request ...`.

Acceptors: server, on_request (a server whose decisions are made in Python, in a thread), inline (on
the thread that serves), aio, aio_on_request (in a coroutine).
Requestors: connect, aio, l_dicom.
"""

from __future__ import annotations

import asyncio
import ssl
import sys
import time
from collections.abc import Callable
from typing import Any

import program
from program import (
    CODES,
    EXPLICIT_LITTLE_ENDIAN,
    HEADER,
    IMPLICIT_LITTLE_ENDIAN,
    LOCALHOST,
    SECONDARY_CAPTURE,
    TIMEOUT,
    VERIFICATION,
    Accepting,
    Requesting,
    Unsupported,
    Wrong,
    check,
    command_of,
    is_success,
    store_response,
)

import ltdic
from ltdic import l_dicom
from ltdic.l_dicom import pEXT_CALLBACK

CONTEXTS = [
    (VERIFICATION, [IMPLICIT_LITTLE_ENDIAN]),
    (SECONDARY_CAPTURE, [IMPLICIT_LITTLE_ENDIAN]),
]
STORED = [(SECONDARY_CAPTURE, [EXPLICIT_LITTLE_ENDIAN])]
REJECT = ltdic.AssociateReject(*CODES)
PART = 0x80000
"""Most bytes of a data set in one `L_DicomSendData`, but one P-DATA-TF at least."""
COMMAND, LAST = 1, 2
"""Bits of a message control header (PS3.8 E.2)."""

# ---- acceptors: ltdic.Server, ltdic.aio.Server -----------------------------------------------


def admission_for(job: Accepting) -> ltdic.Admission:
    """All requests have the called title ARCHIVE: `reject` admits another title only."""
    return ltdic.Admission(
        called=["NOBODY" if job.mode == "reject" else "ARCHIVE"],
        contexts=CONTEXTS if job.mode == "receive" else CONTEXTS[:1],
        max_length=job.max_length,
    )


def tls_for(job: Accepting) -> ssl.SSLContext:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(f"{job.directory}/tls.pem")
    return tls


def run_server(admission: ltdic.Admission, handler: Any, **options: Any) -> None:
    with ltdic.Server((LOCALHOST, 0), admission=admission, handler=handler, **options) as server:
        program.when_input_ends(server.close)
        program.announce(server.address[1])
        server.serve()


def serve(job: Accepting, **options: Any) -> None:
    response = command_of(job.files["store-rsp"])
    received = 0

    def handle(association: ltdic.ServedAssociation, pdv: ltdic.PDV) -> None:
        nonlocal received
        if not pdv.is_command:
            received += len(pdv.data)
            if pdv.is_last:
                association.send(response, context=pdv.context_id, is_command=True)

    run_server(admission_for(job), handle if job.mode == "receive" else None, **options)


def accept_server_tls(job: Accepting) -> None:
    serve(job, tls=tls_for(job))


def collect() -> None:
    """For one association at a time: join each data set, and answer it with success."""
    command, data_set = bytearray(), bytearray()

    def handle(association: ltdic.ServedAssociation, pdv: ltdic.PDV) -> None:
        (command if pdv.is_command else data_set).extend(pdv.data)
        if pdv.is_last and not pdv.is_command:
            response = store_response(bytes(command))
            association.send(response, context=pdv.context_id, is_command=True)
            command.clear()
            data_set.clear()

    run_server(ltdic.Admission(contexts=STORED), handle)


def accept_server(job: Accepting) -> None:
    if job.mode == "store":
        collect()
    else:
        serve(job)


def accept_on_request(job: Accepting) -> None:
    def decide(association: ltdic.ServedAssociation) -> ltdic.AssociateReject | None:
        return None if association.request.called_ae == "NOBODY" else REJECT

    if job.mode != "reject":
        raise Unsupported
    run_server(ltdic.Admission(contexts=CONTEXTS[:1], on_request=decide), None)


def decide(association: Any) -> ltdic.AssociateReject | None:
    """Look at the titles alone."""
    return None if association.called_ae == "NOBODY" else REJECT


async def decide_in_loop(association: Any) -> ltdic.AssociateReject | None:
    return decide(association)


def accept_inline(job: Accepting) -> None:
    if job.mode != "reject":
        raise Unsupported
    run_server(ltdic.Admission(contexts=CONTEXTS[:1], on_request=decide, inline=True), None)


def accept_aio_on_request(job: Accepting) -> None:
    if job.mode != "reject":
        raise Unsupported
    asyncio.run(serve_aio(ltdic.Admission(contexts=CONTEXTS[:1], on_request=decide_in_loop), None))


async def serve_aio(admission: ltdic.Admission, handler: Any, **options: Any) -> None:
    how = {"admission": admission, "handler": handler, **options}
    async with ltdic.aio.Server((LOCALHOST, 0), **how) as server:
        program.when_input_ends(server.close)
        program.announce(server.address[1])
        await server.serve()


def accept_aio_tls(job: Accepting) -> None:
    accept_aio(job, tls=tls_for(job))


def accept_aio(job: Accepting, **options: Any) -> None:
    response = command_of(job.files["store-rsp"])
    received = 0

    async def handle(association: ltdic.aio.AsyncServedAssociation, pdv: ltdic.PDV) -> None:
        nonlocal received
        if not pdv.is_command:
            received += len(pdv.data)
            if pdv.is_last:
                await association.send(response, context=pdv.context_id, is_command=True)

    handler = handle if job.mode == "receive" else None
    asyncio.run(serve_aio(admission_for(job), handler, **options))


# ---- requestors: ltdic.connect, ltdic.aio.connect ----------------------------------------------


def arguments_for(job: Requesting) -> dict[str, Any]:
    return {
        "called_ae": "ARCHIVE",
        "calling_ae": "BENCH",
        "contexts": STORED if job.mode == "store" else CONTEXTS,
        "max_length": job.max_length,
        "timeout": TIMEOUT,
    }


def check_rejected(error: ltdic.AssociationRejected) -> None:
    check(error.codes == CODES, f"rejected with {error.codes}")


def check_stored(pdv: ltdic.PDV | None) -> None:
    check(pdv is not None and is_success(bytes(pdv.data)), "no success")


def messages_of(job: Requesting) -> list[tuple[bytes, bytes]]:
    """The C-STORE-RQ and the data set of each message."""
    if job.mode != "store":
        return [(command_of(job.files["store-rq"]), job.data_set)]
    pairs = zip(job.each("command-"), job.each("data-"), strict=True)
    return [(command_of(command), command_of(data)) for command, data in pairs]


def request_connect(job: Requesting) -> int:
    arguments = arguments_for(job)
    messages = messages_of(job)
    times: list[int] = []

    def reject() -> None:
        try:
            association = ltdic.connect(LOCALHOST, job.port, **arguments)
        except ltdic.AssociationRejected as e:
            check_rejected(e)
        else:
            association.abort()
            raise Wrong("not rejected")

    def echo() -> None:
        with ltdic.connect(LOCALHOST, job.port, **arguments) as association:
            begun = time.monotonic_ns()
            for _ in range(job.echoes):
                check(association.echo() == 0, "no success")
            times.append(time.monotonic_ns() - begun)

    def send() -> None:
        with ltdic.connect(LOCALHOST, job.port, **arguments) as association:
            for command, data_set in messages:
                association.send(command, context=SECONDARY_CAPTURE, is_command=True)
                association.send(data_set, context=SECONDARY_CAPTURE)
                check_stored(association.receive())

    modes: dict[str, Callable[[], None]] = {
        "reject": reject,
        "echo": echo,
        "latency": echo,
        "send": send,
        "store": send,
    }
    if job.mode not in modes:
        raise Unsupported
    taken = program.in_threads(job, modes[job.mode])
    return times[0] if job.mode == "latency" else taken


def request_aio(job: Requesting) -> int:
    arguments = arguments_for(job)
    command = command_of(job.files["store-rq"])
    times: list[int] = []

    async def reject() -> None:
        try:
            association = await ltdic.aio.connect(LOCALHOST, job.port, **arguments)
        except ltdic.AssociationRejected as e:
            check_rejected(e)
        else:
            await association.abort()
            raise Wrong("not rejected")

    async def echo() -> None:
        async with ltdic.aio.connect(LOCALHOST, job.port, **arguments) as association:
            begun = time.monotonic_ns()
            for _ in range(job.echoes):
                check(await association.echo() == 0, "no success")
            times.append(time.monotonic_ns() - begun)

    async def send() -> None:
        async with ltdic.aio.connect(LOCALHOST, job.port, **arguments) as association:
            await association.send(command, context=SECONDARY_CAPTURE, is_command=True)
            await association.send(job.data_set, context=SECONDARY_CAPTURE)
            check_stored(await association.receive())

    async def work(numbers: Any) -> None:
        for _ in numbers:
            await modes[job.mode]()

    async def associate_all() -> int:
        numbers = iter(range(job.associations))
        begun = time.monotonic_ns()
        if job.at_once == 1:
            await work(numbers)
        else:
            await asyncio.gather(*(work(numbers) for _ in range(job.at_once)))
        return time.monotonic_ns() - begun

    modes = {"reject": reject, "echo": echo, "latency": echo, "send": send}
    if job.mode not in modes:
        raise Unsupported
    taken = asyncio.run(associate_all())
    return times[0] if job.mode == "latency" else taken


# ---- requestor: L_Dicom -------------------------------------------------------------------------


class Slot:
    """The user data of a handle, whose associations follow one another."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.is_open = False
        self.is_right = False
        self.at = 0  # bytes of the data set given to the handle
        self.waiting = 0  # bytes given to the handle and not sent
        self.response = b""
        self.handle = l_dicom.L_DicomCreateNet(None, l_dicom.DICOM_SECURE_NONE)
        l_dicom.L_DicomSetCallback(self.handle, CALLBACKS[run.job.mode], self)

    def begin(self) -> None:
        self.run.to_begin -= 1
        self.is_open = True
        self.is_right = False
        self.at = self.waiting = 0
        self.response = b""
        code = l_dicom.L_DicomConnect(self.handle, None, 0, LOCALHOST, self.run.job.port)
        self.run.must(code)

    def send(self, number: int, control: int, data: Any, size: int) -> None:
        self.waiting += size
        self.run.must(l_dicom.L_DicomSendData(self.handle, number, control, data, size))

    def send_part(self) -> None:
        """Give the next part of the data set: whole P-DATA-TF."""
        job, each = self.run.job, self.run.job.size - HEADER
        size = min(max(1, PART // each) * each, job.count - self.at)
        data = self.run.data_set[self.at : self.at + size]
        self.at += size
        self.send(3, LAST if self.at == job.count else 0, data, size)


class Run:
    """One job of the requestor."""

    def __init__(self, job: Requesting) -> None:
        self.job = job
        self.to_begin = self.left = job.associations
        self.error = ""
        self.request = l_dicom.L_DicomCreateAssociate(True)
        l_dicom.L_DicomDefaultAssociate(self.request)
        l_dicom.L_DicomSetCalled(self.request, "ARCHIVE")
        l_dicom.L_DicomSetCalling(self.request, "BENCH")
        l_dicom.L_DicomSetMaxLength(self.request, job.max_length)
        for number in range(l_dicom.L_DicomGetPresentationCount(self.request), 0, -1):
            l_dicom.L_DicomDeletePresentation(
                self.request, l_dicom.L_DicomGetPresentation(self.request, number - 1)
            )
        for number, (abstract, transfer) in zip((1, 3), CONTEXTS, strict=True):
            l_dicom.L_DicomAddPresentation(self.request, number, 0, abstract)
            l_dicom.L_DicomAddTransfer(self.request, number, *transfer)
        self.command = command_of(job.files["store-rq"])
        self.data_set = memoryview(job.data_set)
        self.slots = [Slot(self) for _ in range(job.at_once)]

    def must(self, code: int) -> None:
        if code != l_dicom.DICOM_SUCCESS:
            self.fail(l_dicom.L_DicomErrorText(code))

    def fail(self, error: str) -> None:
        self.error = self.error or error

    def associate_all(self) -> int:
        begun = time.monotonic_ns()
        for slot in self.slots[: self.to_begin]:
            slot.begin()
        while self.left and not self.error:
            # Dispatches callbacks of all handles; returns after one of this handle.
            l_dicom.L_DicomWait(next(s.handle for s in self.slots if s.is_open), 1000)
        taken = time.monotonic_ns() - begun
        for slot in self.slots:
            l_dicom.L_DicomFreeNet(slot.handle)
        l_dicom.L_DicomFreeAssociate(self.request)
        check(not self.error, self.error)
        return taken


@pEXT_CALLBACK("CONNECTCALLBACK")
def on_connect(hNet: Any, nError: int, UserData: Slot) -> None:
    if nError:
        UserData.run.must(nError)
    else:
        UserData.run.must(l_dicom.L_DicomSendAssociateRequest(hNet, UserData.run.request))


@pEXT_CALLBACK("RECEIVEASSOCIATEREJECTCALLBACK")
def on_reject(hNet: Any, nResult: int, nSource: int, nReason: int, UserData: Slot) -> None:
    UserData.is_right = (nResult, nSource, nReason) == CODES


@pEXT_CALLBACK("RECEIVEASSOCIATEACCEPTCALLBACK")
def on_accept_echo(hNet: Any, hPDU: Any, UserData: Slot) -> None:
    UserData.run.must(l_dicom.L_DicomSendCEchoRequest(hNet, 1, 1, None))


@pEXT_CALLBACK("RECEIVECECHORESPONSECALLBACK")
def on_echo(
    hNet: Any, nID: int, nMessageID: int, pszClass: Any, nStatus: int, UserData: Slot
) -> None:
    if nStatus or nMessageID != 1:
        UserData.run.fail("no success")
    else:
        UserData.run.must(l_dicom.L_DicomSendReleaseRequest(hNet))


@pEXT_CALLBACK("RECEIVEASSOCIATEACCEPTCALLBACK")
def on_accept_send(hNet: Any, hPDU: Any, UserData: Slot) -> None:
    command = UserData.run.command
    UserData.send(3, COMMAND | LAST, command, len(command))


@pEXT_CALLBACK("SENDCALLBACK")
def on_send(hNet: Any, nError: int, nType: int, nBytes: int, UserData: Slot) -> None:
    if nType == l_dicom.PDU_DATA_TRANSFER and not nError:
        UserData.waiting -= nBytes - program.DATA_HEADER
        if UserData.waiting == 0 and UserData.at < UserData.run.job.count:
            UserData.send_part()


@pEXT_CALLBACK("RECEIVEDATACALLBACK")
def on_data(hNet: Any, nID: int, nControl: int, pData: Any, nBytes: int, UserData: Slot) -> None:
    UserData.response += ltdic.ffi.buffer(pData, nBytes)[:]
    if nControl & LAST:
        if not is_success(UserData.response):
            UserData.run.fail("no success")
        UserData.run.must(l_dicom.L_DicomSendReleaseRequest(hNet))


@pEXT_CALLBACK("RECEIVERELEASERESPONSECALLBACK")
def on_release(hNet: Any, UserData: Slot) -> None:
    UserData.is_right = True


@pEXT_CALLBACK("CLOSECALLBACK")
def on_close(hNet: Any, nError: int, UserData: Slot) -> None:
    run = UserData.run
    run.left -= 1
    UserData.is_open = False
    if not UserData.is_right:
        run.fail("neither rejected nor released as it must be")
    elif run.to_begin:
        UserData.begin()


EVERY = {"pfnConnect": on_connect, "pfnClose": on_close}
ACCEPTED = {**EVERY, "pfnReceiveReleaseResponse": on_release}
ECHO = {
    **ACCEPTED,
    "pfnReceiveAssociateAccept": on_accept_echo,
    "pfnReceiveCEchoResponse": on_echo,
}
SEND = {
    **ACCEPTED,
    "pfnReceiveAssociateAccept": on_accept_send,
    "pfnSend": on_send,
    "pfnReceiveData": on_data,
}
CALLBACKS: dict[str, dict[str, Any]] = {
    "reject": {**EVERY, "pfnReceiveAssociateReject": on_reject},
    "echo": ECHO,
    "send": SEND,
}


def request_l_dicom(job: Requesting) -> int:
    if job.mode not in CALLBACKS:
        raise Unsupported
    return Run(job).associate_all()


# -------------------------------------------------------------------------------------------------


ACCEPT = {
    "server": accept_server,
    "on_request": accept_on_request,
    "inline": accept_inline,
    "aio": accept_aio,
    "server_tls": accept_server_tls,
    "aio_tls": accept_aio_tls,
    "aio_on_request": accept_aio_on_request,
}
REQUEST = {"connect": request_connect, "aio": request_aio, "l_dicom": request_l_dicom}


def unsupported(job: Any) -> Any:
    raise Unsupported


if __name__ == "__main__":
    variant, *arguments = sys.argv[1:]
    program.main(ACCEPT.get(variant, unsupported), REQUEST.get(variant, unsupported), arguments)
