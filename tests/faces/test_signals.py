"""An exception of a signal handler is raised by `serve` or `L_DicomWait` at once; no event is
lost."""

from __future__ import annotations

import os
import random
import signal
import socket
import ssl
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Any

import pytest

import ltdic
from ltdic import (
    PDV,
    Admission,
    AssociateReject,
    AssociationRejected,
    ConnectionClosed,
    ConnectionFailed,
    Record,
    Server,
    encode,
    l_dicom,
)
from support.commands import command_set
from support.sockets import LOCALHOST, TIMEOUT, receive_pdu
from support.threads import Background, background
from support.tls import client_context, server_context
from support.uids import EXPLICIT, SECONDARY_CAPTURE

TICKS = int(os.environ.get("LTDIC_TICKS", "3000"))
CLIENTS = 4
CODES = (1, 1, 7)
MESSAGE = command_set({2: SECONDARY_CAPTURE, 0x100: 1, 0x110: 1, 0x700: 0, 0x800: 1})


class Tick(BaseException):
    """The exception of the signal handler."""


class Timer:
    """Raises `Tick` at random moments while `armed`."""

    def __init__(self, seed: int) -> None:
        self.armed = self.serves = self._runs = False
        self.ticks = 0
        self._random = random.Random(seed)

    def _set(self) -> None:
        signal.setitimer(signal.ITIMER_REAL, self._random.expovariate(1500) + 2e-5)

    def _fires(self, *_: object) -> None:
        if self._runs:  # not at the end of `running`, after which nothing would stop it
            self._set()
        if self.armed:
            self.armed = False
            self.ticks += 1
            raise Tick

    @contextmanager
    def running(self) -> Iterator[Timer]:
        before = signal.signal(signal.SIGALRM, self._fires)
        self._runs = True
        self._set()
        try:
            yield self
        finally:
            self._runs = False
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, signal.SIG_IGN)  # drops a pending signal
            signal.signal(signal.SIGALRM, before)


class Heard:
    """The events of the server. Each is one append, so that a signal comes before or after it."""

    def __init__(self) -> None:
        self.records: list[tuple[Any, Record]] = []
        self.to_answer: SimpleQueue[tuple[Any, PDV] | None] = SimpleQueue()

    def handle(self, association: Any, pdv: PDV) -> None:
        self.to_answer.put((association, pdv))

    def end(self, association: Any, record: Record) -> None:
        self.records.append((association, record))

    def answer(self) -> None:
        """Send each data set back; runs in a thread, where no signal handler runs."""
        parts: dict[Any, bytes] = {}
        while (told := self.to_answer.get()) is not None:
            association, pdv = told
            if pdv.is_command:
                continue
            parts[association] = parts.get(association, b"") + bytes(pdv.data)
            if pdv.is_last:
                association.send(MESSAGE, context=SECONDARY_CAPTURE, is_command=True)
                association.send(parts.pop(association), context=SECONDARY_CAPTURE)


def decide(association: Any) -> AssociateReject | None:
    return AssociateReject(*CODES) if association.calling_ae == "REJECTED" else None


def ask(address: Any, seed: int, is_enough: list[bool]) -> Counter[str]:
    """Run a client that is rejected, echoes, or gets its data back, until `is_enough`."""
    chance, done = random.Random(seed), Counter[str]()
    contexts = ["Verification", (SECONDARY_CAPTURE, [EXPLICIT])]
    while not is_enough:
        with pytest.raises(AssociationRejected) as rejected:
            ltdic.connect(*address, calling_ae="REJECTED", timeout=TIMEOUT)
        assert rejected.value.codes == CODES
        with ltdic.connect(*address, contexts=contexts, timeout=TIMEOUT) as association:
            assert association.echo() == 0
            data = chance.randbytes(2 * chance.randrange(1, 40_000))
            association.send(MESSAGE, context=SECONDARY_CAPTURE, is_command=True)
            association.send(data, context=SECONDARY_CAPTURE)
            assert association.receive() == PDV(3, True, True, MESSAGE)
            answer = association.receive()
            assert answer is not None
            assert answer.data == data
        done["rejected"] += 1
        done["released"] += 1
    return done


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_exception_of_a_signal_handler_at_any_moment_loses_and_repeats_nothing() -> None:
    heard, is_enough, timer = Heard(), list[bool](), Timer(7)
    admission = Admission(
        contexts=["Verification", (SECONDARY_CAPTURE, [EXPLICIT])],
        on_request=decide,
    )
    options: dict[str, Any] = {"handler": heard.handle, "on_end": heard.end, "timeout": TIMEOUT}
    with Server((LOCALHOST, 0), admission=admission, **options) as server:
        clients = [
            Background(lambda seed=seed: ask(server.address, seed, is_enough))
            for seed in range(CLIENTS)
        ]
        answers = Background(heard.answer)
        serve_through(server, timer, is_enough, clients)
        done = sum((client.join() for client in clients), Counter[str]())
        heard.to_answer.put(None)
        answers.join()
    assert timer.ticks >= TICKS
    check(server, heard, done)


def ask_over_tls(address: Any, is_enough: list[bool], context: ssl.SSLContext) -> Counter[str]:
    """Run a client that is rejected or echoes; a signal may cost it its connection."""
    done = Counter[str]()
    options: dict[str, Any] = {"tls": context, "timeout": TIMEOUT}
    while not is_enough:
        try:
            if done.total() % 2:
                with ltdic.connect(*address, **options) as association:
                    assert association.echo() == 0
            else:
                ltdic.connect(*address, calling_ae="REJECTED", **options)
            done["released"] += 1
        except AssociationRejected as e:
            assert e.codes == CODES
            done["rejected"] += 1
        except (ConnectionClosed, ConnectionFailed):
            done["lost"] += 1
    return done


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_exception_of_a_signal_handler_in_tls_costs_one_connection_at_most() -> None:
    heard, is_enough, timer = Heard(), list[bool](), Timer(11)
    admission = Admission(on_request=decide)
    options: dict[str, Any] = {"on_end": heard.end, "timeout": TIMEOUT, "tls": server_context()}
    with Server((LOCALHOST, 0), admission=admission, **options) as server:
        context = client_context()
        clients = [
            Background(lambda: ask_over_tls(server.address, is_enough, context))
            for _ in range(CLIENTS)
        ]
        serve_through(server, timer, is_enough, clients)
        done = sum((client.join() for client in clients), Counter[str]())
    assert timer.ticks >= TICKS
    assert done["lost"] <= timer.ticks
    assert min(done["rejected"], done["released"]) > 0
    counters = server.counters
    ends = counters.released + counters.aborted + counters.lost + counters.timed_out
    assert (counters.open, counters.timed_out, ends) == (0, 0, counters.accepted)
    others = counters.no_request + counters.faults + counters.unaccepted + counters.tls_failures
    assert counters.connections == counters.accepted + counters.rejected.total() + others
    assert counters.rejected.total() >= done["rejected"]
    assert set(Counter(id(association) for association, _ in heard.records).values()) == {1}
    assert server._served == {}
    assert server._loop._transports.served == {}


def serve_through(
    server: Server, timer: Timer, is_enough: list[bool], clients: list[Background]
) -> None:
    """Serve until there were enough interruptions and the clients have ended."""

    def is_over() -> bool:
        assert time.monotonic() < end, f"{timer.ticks} ticks, {server.counters}"
        if timer.ticks >= TICKS:
            is_enough.append(True)
        timer.armed = timer.serves  # again, since Python ignores an exception in a destructor
        return all(client.is_done for client in clients)

    end = time.monotonic() + max(4 * TIMEOUT, TICKS / 100)
    with timer.running():
        while not is_over():
            try:
                timer.serves = True
                server.serve(until=is_over)
            except Tick:
                pass
            finally:
                timer.serves = timer.armed = False


def check(server: Server, heard: Heard, done: Counter[str]) -> None:
    counters = server.counters
    assert counters.rejected == Counter({("sent", *CODES): done["rejected"]})
    assert (counters.accepted, counters.released) == (done["released"], done["released"])
    assert counters.connections == done.total()
    assert counters.open == counters.aborted == counters.lost == counters.timed_out == 0
    told = Counter(id(association) for association, _ in heard.records)
    assert len(told) == done.total()
    assert set(told.values()) == {1}
    outcomes = Counter(record.outcome for _, record in heard.records)
    assert outcomes == done
    assert server._served == {}


def test_an_exception_at_the_end_of_serve_does_not_keep_it_running(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupted(_: Server) -> None:
        raise KeyboardInterrupt

    with Server((LOCALHOST, 0), timeout=TIMEOUT) as server:
        monkeypatch.setattr(Server, "_let_go", interrupted)
        with pytest.raises(KeyboardInterrupt):
            server.serve(until=0)
        monkeypatch.undo()
        server.serve(until=0)  # runs in this thread
        monkeypatch.setattr(Server, "_let_go", interrupted)
        with pytest.raises(KeyboardInterrupt):
            server.serve(until=0)
        monkeypatch.undo()
        with background(lambda: server.serve(until=lambda: server.counters.released == 1)):
            ltdic.connect(*server.address, timeout=TIMEOUT).abort()  # the other thread serves
            with pytest.raises(ltdic.LocalError, match="serves already"):
                server.serve(until=0)
            ltdic.connect(*server.address, timeout=TIMEOUT).release()


# ---- callbacks of L_Dicom ------------------------------------------------------------------------

ROUNDS = 400
MANY_CODES = [(1, 1, 7), (2, 3, 1), (2, 1, 1), (1, 3, 2)]
KINDS: dict[str, Callable[[str, Any], Any]] = {
    "function": lambda _, function: function,
    "pointer": lambda ctype, function: l_dicom.pEXT_CALLBACK(ctype)(function),
}


def reject_all(server: socket.socket) -> None:
    for number in range(ROUNDS):
        connection, _ = server.accept()
        with connection:
            connection.settimeout(TIMEOUT)
            receive_pdu(connection)
            connection.sendall(encode(AssociateReject(*MANY_CODES[number % len(MANY_CODES)])))
            connection.recv(1)


def interrupted_wait(timer: Timer, net: Any) -> None:
    try:
        timer.armed = True
        l_dicom.L_DicomWait(net, 50)
        timer.armed = False
    except Tick:
        pass


@pytest.mark.parametrize("kind", KINDS)
def test_an_exception_before_a_callback_begins_does_not_lose_the_callback(kind: str) -> None:
    told: list[Any] = []
    reject = KINDS[kind](
        "RECEIVEASSOCIATEREJECTCALLBACK", lambda _net, *codes: told.append(codes[:3])
    )
    close = KINDS[kind]("CLOSECALLBACK", lambda *_: told.append("close"))
    slots = {"pfnReceiveAssociateReject": reject, "pfnClose": close}
    pdu = l_dicom.L_DicomCreateAssociate(True)
    l_dicom.L_DicomDefaultAssociate(pdu)
    timer = Timer(11)
    with socket.create_server((LOCALHOST, 0)) as server, timer.running():
        server.settimeout(TIMEOUT)
        peer = Background(lambda: reject_all(server))
        for number in range(ROUNDS):
            told.clear()
            net = l_dicom.L_DicomCreateNet(None, l_dicom.DICOM_SECURE_NONE)
            l_dicom.L_DicomSetCallback(net, slots)
            l_dicom.L_DicomConnect(net, None, 0, *server.getsockname())
            l_dicom.L_DicomSendAssociateRequest(net, pdu)
            end = time.monotonic() + 1
            while "close" not in told and time.monotonic() < end:
                interrupted_wait(timer, net)
            l_dicom.L_DicomFreeNet(net)
            assert told == [MANY_CODES[number % len(MANY_CODES)], "close"]
        peer.join()
    l_dicom.L_DicomFreeAssociate(pdu)
    assert timer.ticks > 0
