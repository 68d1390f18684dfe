"""Attacks over loopback on servers and requestors, and the cost of each for the attacked side.

    python tests/system/attacks.py [--json FILE] [NAME ...]

Without names all attacks run, one after the other. Each prints one line for each face: the name,
the face, and the figures. The attacked side runs in a process of its own, so that its memory and
processor time are read apart from those of the attacker. An honest caller, in a third process,
measures the duration of a whole association with one C-ECHO meanwhile. Linux only: memory is read
from /proc.

An attack that exceeds its bound, or fails, prints its error; the others continue. Only the public
API is used, so that versions can be compared.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import resource
import select
import selectors
import signal
import socket
import ssl
import statistics
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import ltdic
from ltdic import aio
from ltdic.l_dicom import *  # noqa: F403

# ruff: noqa: F405

LOCALHOST = "127.0.0.1"
VERIFICATION, CT = "1.2.840.10008.1.1", "1.2.840.10008.5.1.4.1.1.2"
IMPLICIT = "1.2.840.10008.1.2"
MIB = 1 << 20
"""Bytes of the largest A-ASSOCIATE-RQ that an acceptor takes."""
MOST_MEMORY = 8192
"""MiB: no more connections are opened at a server that has grown beyond this."""
DECISION = 0.05
"""Seconds that `on_request` sleeps."""
PATIENCE = 2
"""Seconds that an honest caller still waits when its time is over, before its call has failed."""
DESCRIPTORS = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
Figures = dict[str, Any]


class OutOfTime(Exception):
    """The bound of an attack has passed. It is not an `OSError`, which attackers suppress."""


# ---- PDUs --------------------------------------------------------------------------------------


def request(*contexts: ltdic.ProposedContext, max_length: int = 16384, pad: int = 1) -> bytes:
    """Return an A-ASSOCIATE-RQ with Verification and CT in contexts 1 and 3, and these contexts."""
    first = [ltdic.ProposedContext(n, uid, (IMPLICIT,)) for n, uid in ((1, VERIFICATION), (3, CT))]
    unknown = (ltdic.UnknownItem(0x77, bytes(pad)),)
    info = ltdic.UserInformation(max_length, "1.2.3", unknown=unknown)
    return ltdic.encode(ltdic.AssociateRequest("A", "B", (*first, *contexts), user_info=info))


def proposals(count: int, syntaxes: tuple[str, ...]) -> list[ltdic.ProposedContext]:
    return [ltdic.ProposedContext(2 * n + 5, CT, syntaxes) for n in range(count)]


@cache
def largest_request() -> bytes:
    """Return a request of nearly 1 MiB: many items, and some that are long."""
    body = request(*proposals(1, tuple(f"1.2.3.{n}" for n in range(1000, 5600))))[6:]
    body += 14 * (b"\x77\0\xff\xff" + bytes(0xFFFF))
    assert len(body) <= MIB
    return b"\1\0" + len(body).to_bytes(4, "big") + body


def p_data(context: int, control: int, data: bytes) -> bytes:
    """Return a P-DATA-TF of one PDV. Bits of `control`: 1 for a command, 2 for the last part."""
    return struct.pack(">HIIBB", 0x400, len(data) + 6, len(data) + 2, context, control) + data


def echo_request(number: int) -> bytes:
    """Return a C-ECHO-RQ (PS3.7 9.3.5.1) in context 1."""
    fields = [(0x0002, VERIFICATION.encode() + b"\0"), (0x0100, struct.pack("<H", 0x0030))]
    fields += [(0x0110, struct.pack("<H", number)), (0x0800, struct.pack("<H", 0x0101))]
    rest = b"".join(struct.pack("<HHI", 0, tag, len(value)) + value for tag, value in fields)
    return p_data(1, 3, struct.pack("<HHII", 0, 0, 4, len(rest)) + rest)


REQUEST = request()
SMALLEST = ltdic.encode(ltdic.AssociateRequest("A", "B", application_context=None))
ACCEPT = ltdic.encode(ltdic.AssociateAccept("A", "B", (ltdic.ContextResult(1, 0, IMPLICIT),)))
COMMAND = p_data(3, 3, b"ab")
RELEASE = ltdic.encode(ltdic.ReleaseRequest())

# ---- raw peers ---------------------------------------------------------------------------------


def dial(port: int, timeout: float = 10, window: int = 0) -> socket.socket:
    """Connect. `window` is the size of the receive buffer in bytes; 0 leaves it to the system."""
    sock = socket.socket()
    if window:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.settimeout(timeout)
    sock.connect((LOCALHOST, port))
    return sock


def read(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        chunk = sock.recv(size - len(data))
        if not chunk:
            raise ConnectionError("the peer has closed")
        data += chunk
    return data


def read_pdu(sock: socket.socket, kind: int = 0) -> bytes:
    """Read one PDU. Raises `ConnectionError` if its type is not `kind`, unless `kind` is 0."""
    head = read(sock, 6)
    if kind not in (0, head[0]):
        raise ConnectionError(f"a PDU of type {head[0]} came, not {kind}")
    return head + read(sock, int.from_bytes(head[2:6], "big"))


def answer(sock: socket.socket) -> str:
    """Read one PDU; return its name."""
    try:
        return f"a PDU of type {read_pdu(sock)[0]}"
    except OSError as e:
        return str(e)


def associate(port: int, wire: bytes = REQUEST, window: int = 0) -> socket.socket:
    sock = dial(port, window=window)
    sock.sendall(wire)
    read_pdu(sock, 2)
    return sock


def associate_once(port: int, end: float) -> None:
    """Have a whole association with a C-ECHO. Raises `OSError`, also when the time is over."""
    with dial(port, max(0.001, end - time.monotonic())) as sock:
        for wire, kind in ((REQUEST, 2), (echo_request(1), 4), (RELEASE, 6)):
            sock.settimeout(max(0.001, end - time.monotonic()))
            sock.sendall(wire)
            read_pdu(sock, kind)


def flood(
    sock: socket.socket, data: bytes, seconds: float, most: float = 1e18, rate: float = 0
) -> Figures:
    """Send the same data repeatedly until the peer ends the connection or so many bytes are sent,
    at most so many MiB a second unless 0."""
    begun, sent, view = time.monotonic(), 0, memoryview(data)
    sock.settimeout(0.2)
    while (past := time.monotonic() - begun) < seconds and sent < most:
        if rate and sent > rate * MIB * past:
            time.sleep(0.005)
            continue
        at = sent % len(view)
        try:
            sent += sock.send(view[at : at + 65536])
        except TimeoutError:
            continue  # the peer takes nothing at present
        except OSError:
            break
    return {"sent, MiB": round(sent / MIB, 2), "in s": round(time.monotonic() - begun, 1)}


# ---- other processes, seen by the attacker -----------------------------------------------------


class Child:
    """This file in a process of its own, in one of `ROLES`. It is killed at the end."""

    def __init__(self, role: str, **config: Any) -> None:
        command = [sys.executable, os.path.abspath(__file__), "--role", role, json.dumps(config)]
        self.log, pipe = os.memfd_create("log"), subprocess.PIPE
        self.process: Any = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=self.log, bufsize=0
        )

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()
        os.close(self.log)

    def hear(self, seconds: float = 30) -> Any:
        """Wait for the next line of its output. Raises `TimeoutError`."""
        if not select.select([self.process.stdout], [], [], seconds)[0]:
            raise TimeoutError(f"the process has said nothing for {seconds:.0f} s")
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(os.pread(self.log, 500, max(0, self.log_size() - 500)).decode())
        return json.loads(line)

    def ask(self) -> Any:
        """Ask for the longest time in seconds that its loop was blocked since the last call."""
        self.process.stdin.write(b"\n")
        return self.hear()

    def log_size(self) -> int:
        return os.fstat(self.log).st_size

    def memory(self, what: str = "VmRSS") -> float:
        """Return a memory value of /proc in MiB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition(f"{what}:")[2].split()[0]) / 1024

    def cpu(self) -> float:
        """Return the seconds of processor time."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def settle(self) -> None:
        """Wait until it is nearly idle, at most 15 s."""
        for _ in range(30):
            before = self.cpu()
            time.sleep(0.5)
            if self.cpu() - before < 0.05:
                return

    def mark(self) -> None:
        """Start to measure the growth and the peak of memory."""
        with suppress(OSError):  # if not permitted, the peak is that of the whole life
            Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")
        self.idle = self.memory()

    def grown(self) -> float:
        return round(self.memory() - self.idle, 1)

    def peak(self) -> Figures:
        return {"RSS peak, +MiB": round(self.memory("VmHWM") - self.idle, 1)}


class Attacked(Child):
    """A server. All but those of `l_dicom` and TLS have served one honest caller."""

    def __init__(self, face: str, **config: Any) -> None:
        super().__init__("server", face=face, **config)
        self.port = self.hear()
        if face != "l_dicom" and not config.get("tls"):
            associate_once(self.port, time.monotonic() + 10)
        time.sleep(0.2)
        self.mark()


class Honest(Child):
    """A caller with one association with a C-ECHO after the other, for so many seconds."""

    def __init__(self, port: int, seconds: float, calls: int = 1 << 30) -> None:
        super().__init__("honest", port=port, seconds=seconds, calls=calls)
        self.hear()
        self.seconds = seconds

    def figures(self) -> Figures:
        """Return the figures at the end. A failed call counts with the time until it failed."""
        times, failed = self.hear(self.seconds + 10)
        found = {"honest calls": len(times), "that failed": failed}
        found["p50, ms"] = round(statistics.median(times) * 1000, 2)
        return {**found, "max, ms": round(max(times) * 1000, 1)}


def honest(port: int, seconds: float) -> Figures:
    with Honest(port, seconds) as caller:
        found: Figures = caller.figures()
    return found


class Crowd:
    """Connections that all send the same data at once and stay open."""

    def __init__(self, server: Attacked, count: int, data: bytes, seconds: float) -> None:
        self._server, self._end = server, time.monotonic() + seconds
        self._left: dict[Any, memoryview] = {}
        self._selector = selectors.DefaultSelector()
        self.count = self.cut = 0
        while self.count < min(count, DESCRIPTORS - 50) and self._may_go_on():
            self._open(memoryview(data))
        while self._selector.get_map() and self._may_go_on():
            for key, _ in self._selector.select(0.1):
                self._send(key.fileobj)
        self.done = self.count - self.cut - len(self._selector.get_map())

    def _may_go_on(self) -> bool:
        return time.monotonic() < self._end and self._server.memory() < MOST_MEMORY

    def _open(self, data: memoryview) -> None:
        sock = dial(self._server.port)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
        sock.setblocking(False)
        self._left[sock] = data
        self._selector.register(sock, selectors.EVENT_WRITE)
        self.count += 1

    def _send(self, sock: Any) -> None:
        try:
            self._left[sock] = self._left[sock][sock.send(self._left[sock]) :]
            if self._left[sock]:
                return
        except OSError:
            self.cut += 1
        self._selector.unregister(sock)

    def close(self) -> None:
        self._selector.close()
        for sock in self._left:
            sock.close()


# ---- the other processes -----------------------------------------------------------------------


def say(what: Any) -> None:
    print(json.dumps(what), flush=True)


def be_honest(port: int, seconds: float, calls: int) -> None:
    say("ready")
    times: list[float] = []
    failed, end = 0, time.monotonic() + seconds
    while (begun := time.monotonic()) < end and len(times) < calls:
        try:
            associate_once(port, end + PATIENCE)
        except OSError:
            failed += 1
        times.append(time.monotonic() - begun)
        time.sleep(0.01)
    say((times, failed))


def be_requestor(face: str, port: int) -> None:
    """Receive one message; print the result."""

    async def receive() -> None:
        association = await aio.connect(LOCALHOST, port, timeout=2)
        say("open")
        await association.receive(joined=True, limit=1_000_000)

    begun, outcome = time.monotonic(), "a message"
    try:
        if face == "aio.connect":
            asyncio.run(receive())
        else:
            association = ltdic.connect(LOCALHOST, port, timeout=2)
            say("open")
            association.receive(joined=True, limit=1_000_000)
    except ltdic.Error as e:
        outcome = f"{type(e).__name__}: {e}"
    say((outcome, round(time.monotonic() - begun, 2)))
    sys.stdin.read()


async def sleep_async(_: object) -> None:
    await asyncio.sleep(DECISION)


async def ignore_async(*_: object) -> None:
    pass


def answer_with(size: int) -> Callable[..., None]:
    """Return a handler that answers with a command and a data set of so many bytes."""

    def handler(association: ltdic.ServedAssociation, pdv: ltdic.PDV) -> None:
        association.send(b"ab", context=pdv.context_id, is_command=True)
        association.send(bytes(size), context=pdv.context_id)

    return handler


def hand_over(association: ltdic.ServedAssociation, pdv: ltdic.PDV) -> None:
    """Start a thread that sends until an error."""

    def send() -> None:
        with suppress(ltdic.Error):
            while True:
                answer_with(MIB)(association, pdv)

    threading.Thread(target=send, daemon=True).start()


CALLED: dict[str | None, Any] = {
    None: None,
    "ignore": lambda association, pdv: None,
    "ignore_async": ignore_async,
    "answer with 8 MiB": answer_with(8 * MIB),
    "answer with 4 MiB": answer_with(4 * MIB),
    "hand over": hand_over,
    "sleep": lambda association: time.sleep(DECISION),
    "sleep_async": sleep_async,
}
"""Handlers and `on_request` by name."""


class Ticker:
    """Measure the longest time that an event loop was blocked, beyond sleeps of 1 ms."""

    longest = 0.0

    async def run(self) -> None:
        while True:
            begun = time.monotonic()
            await asyncio.sleep(0.001)
            self.longest = max(self.longest, time.monotonic() - begun - 0.001)

    def obey(self) -> None:
        """Print the time for each line of input, and exit at its end."""
        for _ in sys.stdin:
            longest, self.longest = self.longest, 0.0
            say(longest)
        os._exit(0)


def serve(options: dict[str, Any], _: object) -> None:
    with ltdic.Server((LOCALHOST, 0), **options) as server:
        say(server.address[1])
        server.serve()


def serve_aio(options: dict[str, Any], ticker: Ticker | None) -> None:
    async def run() -> None:
        async with aio.Server((LOCALHOST, 0), **options) as server:
            say(server.address[1])
            await asyncio.gather(server.serve(), *([ticker.run()] if ticker else []))

    asyncio.run(run())


def serve_l_dicom(options: dict[str, Any], _: object) -> None:
    """Accept connections, and answer no request."""
    artim = int(options["timeout"] * 1000)

    def on_accept(listener: Any, *_: object) -> None:
        net = L_DicomCreateNet(None, DICOM_SECURE_NONE)
        L_DicomSetCallback(net, {"pfnClose": lambda net, *_: L_DicomFreeNet(net)})
        L_DicomSetTimeouts(net, artim, artim, 0)
        L_DicomAccept(listener, net)

    listener = L_DicomCreateNet(None, DICOM_SECURE_NONE)
    L_DicomSetCallback(listener, {"pfnAccept": on_accept})
    L_DicomListen(listener, LOCALHOST, 0, 128)
    say(L_DicomGetHostInfo(listener)[1])
    while True:
        L_DicomWait(listener, 1000)


SERVERS = {"Server": serve, "aio.Server": serve_aio, "l_dicom": serve_l_dicom}


def server_tls() -> ssl.SSLContext:
    import trustme  # a dependency of the tests

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert(LOCALHOST).configure_cert(context)
    return context


def be_server(
    face: str,
    handler: str | None = None,
    on_request: str | None = None,
    contexts: list[Any] | None = None,
    descriptors: int = DESCRIPTORS,
    tls: bool = False,
    ticks: bool = False,
    **options: Any,
) -> None:
    """Serve. Logs at the default levels go to standard error, which the attacker records."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors))
    logging.basicConfig()
    supported = contexts or [VERIFICATION, *([CT] if handler else [])]
    options["admission"] = ltdic.Admission(contexts=supported, on_request=CALLED[on_request])
    options["handler"] = CALLED[handler]
    if tls:
        options["tls"] = server_tls()
    ticker = Ticker()
    threading.Thread(target=ticker.obey, daemon=True).start()
    SERVERS[face](options, ticker if ticks else None)


ROLES: dict[str, Any] = {"server": be_server, "honest": be_honest, "requestor": be_requestor}

# ---- attacks -----------------------------------------------------------------------------------


def spread(times: list[float]) -> Figures:
    found = {"least": min(times), "median": statistics.median(times), "max": max(times)}
    return {f"{name} of {len(times)}, ms": round(ms, 1) for name, ms in found.items()}


def nothing(face: str, handler: str) -> Figures:
    """No attack, for comparison."""
    with Attacked(face, handler=handler) as server:
        return honest(server.port, 3)


def flood_of_decisions(face: str, on_request: str) -> Figures:
    """4,000 callers leave before `on_request`, which takes 50 ms, has decided; then an honest
    caller comes."""
    with Attacked(face, on_request=on_request) as server:
        begun, callers = time.monotonic(), 0
        while callers < 4000 and time.monotonic() - begun < 25:
            with dial(server.port) as sock:
                sock.sendall(REQUEST)
            callers += 1
        told: Figures = {"callers": callers, "in s": round(time.monotonic() - begun, 1)}
        with Honest(server.port, 38, calls=1) as caller:
            waited = caller.figures()
        told["honest caller waited, s"] = round(waited["max, ms"] / 1000, 3)
        return {**told, "in vain": waited["that failed"], **server.peak()}


def crowd(face: str, count: int, seconds: float, data: str, **config: Any) -> Figures:
    """Connections have sent a request of 1 MiB, or a part of it, and stay open."""
    wire = {"": b"", "all": largest_request(), "all but a byte": largest_request()[:-1]}[data]
    with Attacked(face, timeout=120, **config) as server:
        callers = Crowd(server, count, wire, seconds)
        server.settle()
        grown = server.grown()
        callers.close()
        time.sleep(3)
        told: Figures = {
            "wanted": count,
            "connections": callers.count,
            "that sent it": callers.done,
        }
        told |= {"that were cut": callers.cut, "RSS, +MiB": grown}
        told["KiB for each"] = round(grown * 1024 / max(1, callers.count), 1)
        return {**told, **server.peak(), "RSS 3 s after, +MiB": server.grown()}


def loop_blocked(face: str) -> Figures:
    """Measure how long a request of 1 MiB blocks the event loop."""
    with Attacked(face, handler="ignore_async", ticks=True) as server:
        server.ask()
        time.sleep(1)
        idle, gaps, told = server.ask(), [], {}
        for _ in range(5):
            with dial(server.port) as sock, suppress(OSError):
                sock.sendall(largest_request())
                told = {"answered with": answer(sock), "idle, ms": round(idle * 1000, 1)}
            time.sleep(0.2)
            gaps.append(server.ask() * 1000)
    return {**told, **spread(gaps)}


def empty_pdvs(face: str) -> Figures:
    """`receive` of a requestor, with a limit of 1 MB and a timeout of 2 s, gets 12 MiB of empty
    PDVs."""
    with (
        socket.create_server((LOCALHOST, 0)) as listener,
        Child("requestor", face=face, port=listener.getsockname()[1]) as child,
    ):
        listener.settimeout(10)
        with listener.accept()[0] as sock:
            read_pdu(sock, 1)
            sock.sendall(ACCEPT)
            child.hear()
            child.mark()
            told = flood(sock, p_data(1, 1, b"") * 5000, 20, 12 * MIB)
            told["outcome"], told["after, s"] = "did not end", None
            with suppress(TimeoutError):
                told["outcome"], told["after, s"] = child.hear(max(3, 23 - told["in s"]))
            return {**told, **child.peak()}


def unread_answers(face: str, peers: int) -> Figures:
    """Peers do not read the 8 MiB that a handler sends to each; the timeout is 2 s."""
    with Attacked(face, handler="answer with 8 MiB", timeout=2) as server:
        sockets = [associate(server.port, window=4096) for _ in range(peers)]
        with Honest(server.port, 4 + 4 * peers) as caller:
            time.sleep(0.5)
            for sock in sockets:
                sock.sendall(COMMAND)
            told = caller.figures()
    return {**told, "max, timeouts": round(told["max, ms"] / 2000, 2)}


def no_descriptors(face: str, **options: Any) -> Figures:
    """200 connections are held open at a server that may have 64 descriptors."""
    with Attacked(face, descriptors=64, **options) as server:
        sockets = [dial(server.port) for _ in range(200)]
        time.sleep(0.5)
        told = {"connections": len(sockets), "log at first, bytes": server.log_size()}
        cpu = server.cpu()
        time.sleep(5)
        told["log 5 s later, bytes"] = server.log_size()
        return {**told, "CPU in 5 s, s": round(server.cpu() - cpu, 2)}


def tiny_pdvs(face: str, handler: str, rate: float) -> Figures:
    """One peer sends P-DATA-TF of two bytes of data each, never the last."""
    with Attacked(face, handler=handler) as server, associate(server.port) as sock:
        cpu = server.cpu()
        with Honest(server.port, 8) as caller:
            sent = flood(sock, p_data(3, 1, b"ab") * 1000, 8, rate=rate)
            told = {**caller.figures(), **sent}
        return {**told, "CPU, s": round(server.cpu() - cpu, 1), **server.peak()}


def many_syntaxes(face: str, match: bool) -> Figures:
    """A context with 40 transfer syntaxes meets a request with 2,000 in each of 4 contexts; none
    of them is supported, or the last one is. The figure is the time from the last byte to the
    answer."""
    ours = [f"1.2.4.{n}" for n in range(1000, 1040)]
    proposed = [f"1.2.3.{n}" for n in range(1000, 2999)] + [ours[-1] if match else "1.2.3.2999"]
    wire, supported = request(*proposals(4, tuple(proposed))), [VERIFICATION, (CT, ours)]
    times = []
    with Attacked(face, handler="ignore", contexts=supported) as server:
        for _ in range(5):
            with dial(server.port) as sock:
                sock.sendall(wire[:-1])
                time.sleep(0.2)
                begun = time.monotonic()
                sock.sendall(wire[-1:])
                told = {"contexts": 4, "answered with": answer(sock)}
                times.append((time.monotonic() - begun) * 1000)
    return {**told, **spread(times)}


def sending_threads(face: str, threads: int) -> Figures:
    """Threads of the server each send 1 MiB repeatedly to a peer that does not read."""
    with Attacked(face, handler="hand over", timeout=60) as server:
        told = {f"{name}, no threads": n for name, n in honest(server.port, 4).items()}
        sockets = [associate(server.port, window=4096) for _ in range(threads)]
        for sock in sockets:
            sock.sendall(COMMAND)
        server.settle()
        cpu = server.cpu()
        told |= {f"{name}, {threads} threads": n for name, n in honest(server.port, 6).items()}
        return {**told, "CPU in 6 s, s": round(server.cpu() - cpu, 2), **server.peak()}


def sends_after_abort(face: str, unknown: bool) -> Figures:
    """An aborted peer continues to send A-ASSOCIATE-RQ or unknown PDUs, and never reads."""
    pdu = b"\x0b\0\0\0\0\0" if unknown else SMALLEST
    with Attacked(face) as server, associate(server.port, window=4096) as sock:
        sock.sendall(REQUEST)  # a request in an association is aborted
        time.sleep(0.2)
        return {**flood(sock, pdu * 1000, 10), **server.peak()}


def many_echoes(face: str) -> Figures:
    """2,000 C-ECHO-RQ are sent at once; the answers are read afterwards."""
    answers, end = 0, "all are there"
    with Attacked(face) as server, associate(server.port) as sock:
        try:
            sock.sendall(b"".join(map(echo_request, range(1, 2001))))
            while answers < 2000:
                read_pdu(sock, 4)
                answers += 1
        except OSError as e:
            end = str(e)
    return {"C-ECHO-RQ": 2000, "C-ECHO-RSP": answers, "end": end}


def smallest_maximum(face: str) -> Figures:
    """A handler sends 4 MiB to a peer with a maximum length of 8 bytes that reads fast."""
    with (
        Attacked(face, handler="answer with 4 MiB") as server,
        associate(server.port, request(max_length=8)) as sock,
        Honest(server.port, 12) as caller,
    ):
        time.sleep(0.5)
        sock.sendall(COMMAND)
        begun, got, seconds = time.monotonic(), 0, 0.0
        sock.settimeout(2)
        with suppress(OSError):
            while time.monotonic() - begun < 11 and (chunk := sock.recv(MIB)):
                got, seconds = got + len(chunk), time.monotonic() - begun
        told = {"on the wire, bytes": got, "in s": round(seconds, 2)}
        return {**told, **caller.figures(), **server.peak()}


def request_in_pieces(face: str, takes_events: bool) -> Figures:
    """`receive_data` gets a request of 1 MiB, 100 bytes at a time."""
    wire, association = largest_request(), ltdic.Association(requestor=face == "requestor")
    begun, given, events = time.monotonic(), 0, 0
    while given < len(wire) and time.monotonic() - begun < 25:
        piece = wire[given : given + 100]
        association.receive_data(piece)
        given += len(piece)
        if takes_events or given >= len(wire):
            events += len(list(association.events()))
    return {"given, bytes": given, "events": events, "s": round(time.monotonic() - begun, 3)}


# ---- selection ---------------------------------------------------------------------------------

Variants = dict[str, dict[str, Any]]
"""Arguments of an attack by a name."""
SERVER, AIO = {"Server": {"face": "Server"}}, {"aio.Server": {"face": "aio.Server"}}
BOTH = SERVER | AIO
ALL = {face: {"face": face} for face in SERVERS}
REQUESTORS = {face: {"face": face} for face in ("connect", "aio.connect")}
ASSOCIATION = {"Association": {"face": "acceptor"}}
PEERS = {"1 peer": {"peers": 1}, "4 peers": {"peers": 4}}
LIMITS: Variants = {"any number of connections": {"max_connections": 0}, "default": {}}
RATES: Variants = {"0.6 MiB/s": {"rate": 0.6}, "flat out": {"rate": 0}}
MATCHES = {"none": {"match": False}, "last": {"match": True}}
PDUS = {"A-ASSOCIATE-RQ": {"unknown": False}, "unknown PDU": {"unknown": True}}
EVENTS = {"events at the end": {"takes_events": False}, "after each": {"takes_events": True}}


def each(faces: Variants, variants: Variants) -> Variants:
    """Return every face in every variant."""
    return {f"{f}, {v}": {**faces[f], **variants[v]} for f in faces for v in variants}


def with_all(faces: Variants, **arguments: Any) -> Variants:
    return {face: {**faces[face], **arguments} for face in faces}


HANDLING = with_all(SERVER, handler="ignore") | with_all(AIO, handler="ignore_async")
SLEEPS = {"function": {"on_request": "sleep"}, "coroutine": {"on_request": "sleep_async"}}
DECIDING = with_all(SERVER, on_request="sleep") | each(AIO, SLEEPS)
WHOLE = {"data": "all", "seconds": 30}
PART = {"count": 3000, "data": "all but a byte", "seconds": 45}
TLS = {"count": 200, "data": "", "seconds": 10, "tls": True}

# Name: the function, its bound in seconds, and its arguments by face.
ATTACKS: dict[str, tuple[Callable[..., Figures], int, Variants]] = {
    "nothing": (nothing, 20, HANDLING),
    "flood_of_decisions": (flood_of_decisions, 90, DECIDING),
    "large_requests_decided": (crowd, 90, with_all(DECIDING, count=1000, **WHOLE)),
    "loop_blocked": (loop_blocked, 30, AIO),
    "large_requests_open": (crowd, 60, with_all(HANDLING, count=60, **WHOLE)),
    "unfinished_requests": (crowd, 90, with_all(ALL, **PART)),
    "silent_tls": (crowd, 30, with_all(AIO, **TLS)),
    "empty_pdvs": (empty_pdvs, 45, REQUESTORS),
    "unread_answers": (unread_answers, 45, each(SERVER, PEERS)),
    "no_descriptors": (no_descriptors, 30, each(BOTH, LIMITS)),
    "tiny_pdvs": (tiny_pdvs, 30, each(HANDLING, RATES)),
    "many_syntaxes": (many_syntaxes, 30, each(SERVER, MATCHES)),
    "sending_threads": (sending_threads, 60, with_all(SERVER, threads=300)),
    "sends_after_abort": (sends_after_abort, 30, each(AIO, PDUS)),
    "many_echoes": (many_echoes, 30, BOTH),
    "smallest_maximum": (smallest_maximum, 45, SERVER),
    "request_in_pieces": (request_in_pieces, 40, each(ASSOCIATION, EVENTS)),
}


def attack(function: Callable[..., Figures], bound: int, arguments: dict[str, Any]) -> Figures:
    """Run an attack; return its figures, or its error."""

    def end(*_: object) -> None:
        raise OutOfTime(f"it was not over after {bound} s")

    signal.signal(signal.SIGALRM, end)
    signal.alarm(bound)
    try:
        return function(**arguments)
    except Exception as e:
        return {"failed": f"{type(e).__name__}: {e}"}
    finally:
        signal.alarm(0)


def main() -> None:
    parser = argparse.ArgumentParser(description="Attack servers and requestors on loopback.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of: {', '.join(ATTACKS)}")
    parser.add_argument("--json", metavar="FILE", help="write the figures there")
    parser.add_argument("--role", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, DESCRIPTORS))
    if options.role:
        ROLES[options.role[0]](**json.loads(options.role[1]))
        return
    if unknown := set(options.names) - set(ATTACKS):
        parser.error(f"no attack is called {', '.join(sorted(unknown))}")
    found: dict[str, dict[str, Figures]] = {}
    for name in options.names or ATTACKS:
        function, bound, faces = ATTACKS[name]
        for face, arguments in faces.items():
            figures = found.setdefault(name, {})[face] = attack(function, bound, arguments)
            told = "; ".join(f"{what} {figure}" for what, figure in figures.items())
            print(f"{name}, {face}: {told}", flush=True)
    if options.json:
        Path(options.json).write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
