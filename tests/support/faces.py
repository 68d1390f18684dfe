"""The blocking, the asyncio and the l_dicom face behind one interface, as requestor and acceptor.

Every face reports alike here: a method returns, or raises `Ended` with the end of the association.
Acceptors run in threads of their own.
"""

from __future__ import annotations

import hashlib
import queue
import ssl
import time
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import product
from typing import Any, NamedTuple

import ltdic
from ltdic import PDV, Admission, AssociateReject, aio
from ltdic.l_dicom import *  # noqa: F403
from support.l_dicom import check, new_net
from support.servers import SUPPORTED, of_associations
from support.sockets import LOCALHOST, TIMEOUT
from support.threads import Background, LoopThread
from support.tls import client_context, server_context
from support.uids import EXPLICIT, IMPLICIT, SECONDARY_CAPTURE, VERIFICATION

# ruff: noqa: F405


UNKNOWN = "1.2.3.4"
PROPOSED = [
    VERIFICATION,
    (SECONDARY_CAPTURE, [EXPLICIT, IMPLICIT]),
    UNKNOWN,
    (SECONDARY_CAPTURE, ["1.2.9"]),
]
AGREED = [(1, 0, IMPLICIT), (3, 0, IMPLICIT), (5, 3, None), (7, 4, None)]
DATA_CONTEXT = 3
RESPONSE = b"done"


class Ended(Exception):
    """The end of an association, in the same words for every face."""

    def __init__(self, *what: Any) -> None:
        super().__init__(*what)
        self.what = what


class Heard(NamedTuple):
    """A command or data set that an acceptor has received."""

    is_command: bool
    size: int
    digest: str


def heard(is_command: bool, data: bytes) -> Heard:
    return Heard(is_command, len(data), hashlib.sha256(data).hexdigest())


@dataclass(frozen=True)
class Plan:
    """The behaviour of an acceptor."""

    reject: tuple[int, int, int] | None = None
    called: str | None = None
    calling: str | None = None
    max_length: int = 0x4000
    timeout: float = TIMEOUT
    at_data_set: str = "answer"
    """The reaction to a complete data set: `answer` or `abort`."""

    def admission(self, on_request: Any) -> Admission:
        return Admission(
            called=[self.called] if self.called else None,
            calling=[self.calling] if self.calling else None,
            contexts=SUPPORTED,
            max_length=self.max_length,
            on_request=on_request if self.reject else None,
        )


def data_set_of(
    acceptor: BlockingAcceptor | AsyncAcceptor,
    association: ltdic.ServedAssociation | aio.AsyncServedAssociation,
    pdv: PDV,
) -> bytes | None:
    """Gather the pieces of a message, and record each whole one. Return the data set to answer now;
    None if there is none, or the plan is to abort."""
    parts = association.user_data = association.user_data or []
    parts.append(bytes(pdv.data))
    if not pdv.is_last:
        return None
    association.user_data = None
    data = b"".join(parts)
    acceptor.heard.put(heard(pdv.is_command, data))
    if pdv.is_command:
        return None
    if acceptor.plan.at_data_set == "abort":
        association.abort()
        return None
    return data


class BlockingAcceptor:
    """`ltdic.Server`."""

    name = "blocking"

    tls: ssl.SSLContext | None = None

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.heard: queue.Queue[Heard] = queue.Queue()
        self._threads: list[Background] = []
        self._server = ltdic.Server(
            (LOCALHOST, 0),
            admission=plan.admission(lambda _: AssociateReject(*(plan.reject or (1, 1, 1)))),
            handler=self._handle,
            timeout=plan.timeout,
            tls=self.tls,
        )
        self.port = self._server.address[1]

    def __enter__(self) -> BlockingAcceptor:
        self._server.__enter__()
        self._thread = Background(self._server.serve)
        return self

    def __exit__(self, *_: object) -> None:
        try:
            for thread in self._threads:
                thread.join()
        finally:
            self._server.__exit__(None, None, None)
        self._thread.join()

    def _handle(self, association: ltdic.ServedAssociation, pdv: PDV) -> None:
        data = data_set_of(self, association, pdv)
        if data is None:
            return

        def answer() -> None:  # 3 MiB wait for room; the serving thread must not
            association.send(RESPONSE, context=pdv.context_id, is_command=True)
            association.send(data, context=pdv.context_id)

        self._threads.append(Background(answer))

    def release(self) -> None:
        self._server.close()

    @property
    def counters(self) -> ltdic.Counters:
        return of_associations(self._server.counters)


class AsyncAcceptor:
    """`ltdic.aio.Server`."""

    name = "asyncio"

    tls: ssl.SSLContext | None = None

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.heard: queue.Queue[Heard] = queue.Queue()

        async def decide(_: object) -> AssociateReject:
            return AssociateReject(*(plan.reject or (1, 1, 1)))

        self._server = aio.Server(
            (LOCALHOST, 0),
            admission=plan.admission(decide),
            handler=self._handle,
            timeout=plan.timeout,
            tls=self.tls,
        )

    def __enter__(self) -> AsyncAcceptor:
        self._loop = LoopThread().__enter__()
        self._loop.run(self._server.__aenter__())
        self.port = self._server.address[1]
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._loop.run(self._server.__aexit__(None, None, None))
        finally:
            self._loop.__exit__()

    async def _handle(self, association: aio.AsyncServedAssociation, pdv: PDV) -> None:
        data = data_set_of(self, association, pdv)
        if data is None:
            return
        await association.send(RESPONSE, context=pdv.context_id, is_command=True)
        await association.send(data, context=pdv.context_id)

    def release(self) -> None:
        self._server.close()

    @property
    def counters(self) -> ltdic.Counters:
        return of_associations(self._server.counters)


PUMP = 10  # ms


class Sending:
    """Messages that wait until there is room for them."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[Any, int, int, bytes]] = deque()

    def put(self, net: Any, context: int, is_command: bool, data: bytes) -> None:
        self._waiting.append((net, context, 2 | is_command, data))
        self.turn()

    def turn(self) -> bool:
        """Send what there is room for; return True when nothing is left."""
        while self._waiting:
            net, context, control, data = self._waiting[0]
            code = L_DicomSendData(net, context, control, data, len(data))
            if code == DICOM_ERROR_BUSY:
                return False
            self._waiting.popleft()
            check(code)
        return True


class _Accepted:
    """One connection of an l_dicom acceptor."""

    def __init__(self, acceptor: LDicomAcceptor) -> None:
        self.acceptor, self.plan = acceptor, acceptor.plan
        self.net = new_net(self, self.plan.timeout)
        self.parts: list[bytes] = []
        self.sending = Sending()
        self.outcome = ""
        self.requested = self.closed = False

    def set_outcome(self, outcome: str) -> None:
        if not self.outcome:
            self.outcome = outcome
            self.acceptor.counts[outcome] += 1

    def on_request(self, net: Any, pdu: Any, _: object) -> None:
        self.requested = True
        codes = self.plan.reject
        if self.plan.called not in (None, L_DicomGetCalled(pdu)):
            codes = (1, 1, PDU_REJECT_REASON_CALLED)
        elif self.plan.calling not in (None, L_DicomGetCalling(pdu)):
            codes = (1, 1, PDU_REJECT_REASON_CALLING)
        if codes is not None:
            check(L_DicomSendAssociateReject(net, *codes))
            self.outcome = "rejected"
            self.acceptor.rejected["sent", *codes] += 1
            return
        answer = L_DicomCreateAssociate(False)
        for n in range(L_DicomGetPresentationCount(pdu)):
            self.answer_context(pdu, answer, L_DicomGetPresentation(pdu, n))
        check(L_DicomDefaultAssociate(answer))
        check(L_DicomSetMaxLength(answer, self.plan.max_length))
        check(L_DicomSendAssociateAccept(net, answer))
        L_DicomFreeAssociate(answer)
        self.acceptor.counts["accepted"] += 1

    def answer_context(self, pdu: Any, answer: Any, number: int) -> None:
        abstract = L_DicomGetAbstract(pdu, number)
        proposed = [
            L_DicomGetTransfer(pdu, number, k) for k in range(L_DicomGetTransferCount(pdu, number))
        ]
        if abstract not in (VERIFICATION, SECONDARY_CAPTURE):
            check(L_DicomAddPresentation(answer, number, 3, None))
            return
        chosen = [syntax for syntax in (IMPLICIT, EXPLICIT) if syntax in proposed]
        check(L_DicomAddPresentation(answer, number, 0 if chosen else 4, None))
        for syntax in chosen[:1]:
            check(L_DicomAddTransfer(answer, number, syntax))

    def on_data(
        self, net: Any, context: int, control: int, data: Any, size: int, _: object
    ) -> None:
        if context == 1:
            return
        self.parts.append(bytes(ltdic.ffi.buffer(data, size)))
        if not control & 2:
            return
        whole, self.parts = b"".join(self.parts), []
        self.acceptor.heard.put(heard(bool(control & 1), whole))
        if control & 1:
            return
        if self.plan.at_data_set == "abort":
            check(L_DicomSendAbort(net, 0, 0))
            self.set_outcome("aborted")
            return
        self.sending.put(net, context, True, RESPONSE)
        self.sending.put(net, context, False, whole)

    def on_echo(self, net: Any, context: int, message: int, uid: Any, _: object) -> None:
        check(L_DicomSendCEchoResponse(net, context, message, None, 0))

    def on_release(self, net: Any, _: object) -> None:
        check(L_DicomSendReleaseResponse(net))
        self.set_outcome("released")

    def on_released(self, net: Any, _: object) -> None:
        self.set_outcome("released")

    def on_abort(self, net: Any, source: int, reason: int, _: object) -> None:
        self.set_outcome("aborted")

    def on_receive(self, net: Any, error: int, kind: int, data: Any, size: int, _: object) -> None:
        if error:
            self.set_outcome("timed_out" if error == DICOM_ERROR_TIMEOUT else "aborted")

    def on_close(self, net: Any, error: int, _: object) -> None:
        self.closed = True
        if error == DICOM_ERROR_TIMEOUT:
            self.set_outcome("timed_out" if self.requested else "no_request")
        elif self.requested:
            self.set_outcome("lost")


class LDicomAcceptor:
    """`ltdic.l_dicom`, pumped in a thread."""

    name = "l_dicom"

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.heard: queue.Queue[Heard] = queue.Queue()
        self.counts: Counter[str] = Counter()
        self.rejected: Counter[tuple[str, int, int, int]] = Counter()
        self._accepted: list[_Accepted] = []
        self._asked: queue.Queue[str] = queue.Queue()

    def __enter__(self) -> LDicomAcceptor:
        ports: queue.Queue[int] = queue.Queue()
        self._thread = Background(lambda: self._pump(ports))
        self.port = ports.get(timeout=TIMEOUT)
        return self

    def __exit__(self, *_: object) -> None:
        self._asked.put("stop")
        self._thread.join()

    def _pump(self, ports: queue.Queue[int]) -> None:
        listener = new_net(self, self.plan.timeout)
        check(L_DicomListen(listener, LOCALHOST, 0, 5))
        ports.put(L_DicomGetHostInfo(listener)[1])
        asked = ""
        end = None
        while asked != "stop" or not all(a.closed for a in self._accepted):
            L_DicomWait(listener, PUMP)
            for accepted in self._accepted:
                if not accepted.closed:
                    accepted.sending.turn()
            with suppress(queue.Empty):
                asked = self._asked.get_nowait()
                self._release_all()
                end = time.monotonic() + TIMEOUT / 2
            if end is not None and time.monotonic() > end:
                raise TimeoutError("associations do not end")
        for accepted in self._accepted:
            L_DicomFreeNet(accepted.net)
        L_DicomFreeNet(listener)

    def _release_all(self) -> None:
        for accepted in self._accepted:
            if not accepted.outcome and L_DicomIsAssociated(accepted.net):
                check(L_DicomSendReleaseRequest(accepted.net))

    def on_accept(self, net: Any, error: int, _: object) -> None:
        accepted = _Accepted(self)
        check(L_DicomAccept(net, accepted.net))
        self._accepted.append(accepted)

    def release(self) -> None:
        self._asked.put("release")

    @property
    def counters(self) -> ltdic.Counters:
        return ltdic.Counters(**self.counts, rejected=self.rejected)


@contextmanager
def in_the_same_words() -> Iterator[None]:
    try:
        yield
    except ltdic.AssociationRejected as e:
        raise Ended("rejected", *e.codes) from e
    except ltdic.AssociationAborted as e:
        codes = (e.abort.source, e.abort.reason) if e.received else ()
        raise Ended("aborted by the peer" if e.received else "aborted by us", *codes) from e
    except ltdic.AssociationTimeout as e:
        raise Ended("timed out") from e
    except ltdic.ConnectionFailed as e:
        raise Ended("no connection") from e
    except ltdic.ConnectionClosed as e:
        raise Ended("closed") from e


@dataclass(frozen=True)
class Wish:
    """The settings of a requestor."""

    called: str = "CALLED"
    calling: str = "CALLING"
    max_length: int = 0x4000
    timeout: float = TIMEOUT

    @property
    def options(self) -> dict[str, Any]:
        return {
            "called_ae": self.called,
            "calling_ae": self.calling,
            "contexts": PROPOSED,
            "max_length": self.max_length,
            "timeout": self.timeout,
        }


class BlockingRequestor:
    """`ltdic.connect`."""

    name = "blocking"

    tls: ssl.SSLContext | None = None

    def __init__(self, port: int, wish: Wish) -> None:
        self._association: ltdic.SyncAssociation | None = None
        self._port, self._wish = port, wish

    def __enter__(self) -> BlockingRequestor:
        with in_the_same_words():
            self._association = ltdic.connect(
                LOCALHOST, self._port, **{"tls": self.tls, **self._wish.options}
            )
        return self

    def __exit__(self, *_: object) -> None:
        self._association.abort()

    @property
    def contexts(self) -> list[tuple[int, int, str | None]]:
        return [(c.id, c.result, c.transfer_syntax) for c in self._association.contexts]

    def echo(self) -> int:
        with in_the_same_words():
            return self._association.echo()

    def send(self, data: bytes, is_command: bool) -> None:
        with in_the_same_words():
            self._association.send(data, context=DATA_CONTEXT, is_command=is_command)

    def receive(self) -> tuple[bool, bytes] | None:
        with in_the_same_words():
            pdv = self._association.receive()
        return None if pdv is None else (pdv.is_command, bytes(pdv.data))

    def release(self) -> None:
        with in_the_same_words():
            self._association.release()

    def abort(self) -> None:
        self._association.abort()


class AsyncRequestor:
    """`ltdic.aio.connect`."""

    name = "asyncio"

    tls: ssl.SSLContext | None = None

    def __init__(self, port: int, wish: Wish) -> None:
        self._port, self._wish = port, wish

    def __enter__(self) -> AsyncRequestor:
        self._loop = LoopThread().__enter__()
        try:
            with in_the_same_words():
                self._association = self._loop.run(self._connect())
        except BaseException:
            self._loop.__exit__()
            raise
        return self

    async def _connect(self) -> aio.AsyncAssociation:
        return await aio.connect(LOCALHOST, self._port, **{"tls": self.tls, **self._wish.options})

    def __exit__(self, *_: object) -> None:
        self._loop.run(self._association.abort())
        self._loop.__exit__()

    @property
    def contexts(self) -> list[tuple[int, int, str | None]]:
        return [(c.id, c.result, c.transfer_syntax) for c in self._association.contexts]

    def echo(self) -> int:
        with in_the_same_words():
            return self._loop.run(self._association.echo())

    def send(self, data: bytes, is_command: bool) -> None:
        with in_the_same_words():
            self._loop.run(
                self._association.send(data, context=DATA_CONTEXT, is_command=is_command)
            )

    def receive(self) -> tuple[bool, bytes] | None:
        with in_the_same_words():
            pdv = self._loop.run(self._association.receive())
        return None if pdv is None else (pdv.is_command, bytes(pdv.data))

    def release(self) -> None:
        with in_the_same_words():
            self._loop.run(self._association.release())

    def abort(self) -> None:
        self._loop.run(self._association.abort())


class LDicomRequestor:
    """`ltdic.l_dicom`, pumped by each method until its callback has come."""

    name = "l_dicom"

    def __init__(self, port: int, wish: Wish) -> None:
        self._port, self._wish = port, wish
        self._net = new_net(self, wish.timeout)
        self._told: deque[tuple[Any, ...]] = deque()
        self._parts: list[bytes] = []
        self._ending: Ended | None = None
        self._closed = False
        self._sending = Sending()
        self.contexts: list[tuple[int, int, str | None]] = []

    def __enter__(self) -> LDicomRequestor:
        pdu = L_DicomCreateAssociate(True)
        check(L_DicomSetCalled(pdu, self._wish.called))
        check(L_DicomSetCalling(pdu, self._wish.calling))
        check(L_DicomSetMaxLength(pdu, self._wish.max_length))
        for n, context in enumerate(PROPOSED):
            abstract, transfer = (
                (context, [IMPLICIT, EXPLICIT]) if isinstance(context, str) else context
            )
            check(L_DicomAddPresentation(pdu, 2 * n + 1, 0, abstract))
            for syntax in transfer:
                check(L_DicomAddTransfer(pdu, 2 * n + 1, syntax))
        check(L_DicomDefaultAssociate(pdu))
        check(L_DicomConnect(self._net, None, 0, LOCALHOST, self._port))
        check(L_DicomSendAssociateRequest(self._net, pdu))
        L_DicomFreeAssociate(pdu)
        try:
            self._until("accepted")
        except Ended:
            L_DicomFreeNet(self._net)
            raise
        return self

    def __exit__(self, *_: object) -> None:
        L_DicomFreeNet(self._net)

    def _until(self, *kinds: str) -> tuple[Any, ...]:
        """Pump until one of these callbacks has come; raise `Ended` once the handle is closed."""
        end = time.monotonic() + 2 * TIMEOUT
        while time.monotonic() < end:
            while self._told:
                told = self._told.popleft()
                if told[0] in kinds:
                    return told
            if self._closed and self._ending is not None:
                raise self._ending
            L_DicomWait(self._net, PUMP)
            self._sending.turn()
        raise TimeoutError(f"none of {kinds}")

    def _ends(self, *what: Any) -> None:
        self._ending = self._ending or Ended(*what)

    def on_connect(self, net: Any, error: int, _: object) -> None:
        if error:
            self._ends("timed out" if error == DICOM_ERROR_TIMEOUT else "no connection")
            self._closed = True

    def on_accepted(self, net: Any, pdu: Any, _: object) -> None:
        for n in range(L_DicomGetPresentationCount(pdu)):
            number = L_DicomGetPresentation(pdu, n)
            result = L_DicomGetResult(pdu, number)
            syntax = L_DicomGetTransfer(pdu, number, 0) if result == 0 else None
            self.contexts.append((number, result, syntax))
        self._told.append(("accepted",))

    def on_reject(self, net: Any, result: int, source: int, reason: int, _: object) -> None:
        self._ends("rejected", result, source, reason)

    def on_abort(self, net: Any, source: int, reason: int, _: object) -> None:
        self._ends("aborted by the peer", source, reason)

    def on_receive(self, net: Any, error: int, kind: int, data: Any, size: int, _: object) -> None:
        if error:
            self._ends("timed out" if error == DICOM_ERROR_TIMEOUT else "aborted by us")

    def on_data(
        self, net: Any, context: int, control: int, data: Any, size: int, _: object
    ) -> None:
        self._parts.append(bytes(ltdic.ffi.buffer(data, size)))
        if control & 2:
            whole, self._parts = b"".join(self._parts), []
            if context != 1:
                self._told.append(("data", bool(control & 1), whole))

    def on_echoed(
        self, net: Any, context: int, message: int, uid: Any, status: int, _: object
    ) -> None:
        if message != 1:
            check(L_DicomSendAbort(net, 0, 0))
            self._ends("aborted by us")
        self._told.append(("echoed", status))

    def on_release(self, net: Any, _: object) -> None:
        check(L_DicomSendReleaseResponse(net))
        self._told.append(("release",))

    def on_released(self, net: Any, _: object) -> None:
        self._told.append(("released",))

    def on_close(self, net: Any, error: int, _: object) -> None:
        self._ends({0: "over", DICOM_ERROR_TIMEOUT: "timed out"}.get(error, "closed"))
        self._closed = True
        self._told.append(("close",))

    def echo(self) -> int:
        check(L_DicomSendCEchoRequest(self._net, 1, 1, None))
        status = self._until("echoed")[1]
        if self._ending is not None:
            self._until("nothing")
        return status

    def send(self, data: bytes, is_command: bool) -> None:
        self._sending.put(self._net, DATA_CONTEXT, is_command, data)
        while not self._sending.turn():
            L_DicomWait(self._net, PUMP)

    def receive(self) -> tuple[bool, bytes] | None:
        told = self._until("data", "release")
        if told[0] == "release":
            self._until("close")
            return None
        return told[1], told[2]

    def release(self) -> None:
        check(L_DicomSendReleaseRequest(self._net))
        self._until("released")
        self._until("close")

    def abort(self) -> None:
        check(L_DicomSendAbort(self._net, 0, 0))
        self._until("close")


def over_tls(face: Any, version: ssl.TLSVersion, context: ssl.SSLContext) -> Any:
    """This face, over this version of TLS alone."""
    context.minimum_version = context.maximum_version = version
    return type(face.__name__, (face,), {"name": f"{face.name} {version.name}", "tls": context})


REQUESTORS: list[Any] = [BlockingRequestor, AsyncRequestor, LDicomRequestor]
ACCEPTORS: list[Any] = [BlockingAcceptor, AsyncAcceptor, LDicomAcceptor]
PAIRS = list(product(REQUESTORS, ACCEPTORS))
"""Each requestor with each acceptor; those that may use TLS again over each version."""
for _version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
    PAIRS += product(
        [over_tls(face, _version, client_context()) for face in REQUESTORS[:2]],
        [over_tls(face, _version, server_context()) for face in ACCEPTORS[:2]],
    )
