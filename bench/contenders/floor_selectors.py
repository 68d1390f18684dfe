"""The floor in plain Python: fixed bytes over sockets, with `selectors` where many are served.

As `floor.c`: what comes is looked at only so far as to know where each PDU ends and which it is.
"""

from __future__ import annotations

import selectors
import socket
import struct
import time
from collections.abc import Generator, Iterator

import program
from program import (
    BACKLOG,
    HEADER,
    LOCALHOST,
    TIMEOUT,
    Accepting,
    Requesting,
    Unsupported,
    check,
)

READ_SIZE = 0x40000
MOST_PARTS = 128
"""Given to one system call."""
AC, RJ, DATA, RELEASE_RP = 2, 3, 4, 6
COMMAND, DATA_SET = 16, 17
"""Beside the PDU types: the last fragment of one."""
MESSAGE_ID = slice(68, 70)
"""Of a C-ECHO, request or response, in a P-DATA-TF that has nothing else."""

# ---- a stream as PDUs ----------------------------------------------------------------------------


class Walk:
    """A stream's place in its PDUs."""

    def __init__(self) -> None:
        self.head = b""  # of a header that has not come whole
        self.left = 0  # bytes of the body that are to come
        self.pdv_left = 0  # bytes of the P-DATA-TF after this PDV
        self.what = 0  # what ends with the body

    def ended(self, data: memoryview) -> Iterator[int]:
        """What has come to its end: a PDU, by its type, or a command or data set."""
        at, size = 0, len(data)
        while True:
            if self.left > size - at:
                self.left -= size - at
                return
            at += self.left
            self.left = 0
            if self.what:
                what, self.what = self.what, 0
                yield what
            header = self.head + bytes(data[at : at + HEADER - len(self.head)])
            at += len(header) - len(self.head)
            if len(header) < HEADER:
                self.head = header
                return
            self.head = b""
            self.enter(header)

    def enter(self, header: bytes) -> None:
        if self.pdv_left:
            length, _, control = struct.unpack(">IBB", header)
            self.left = length - 2
            self.pdv_left -= 4 + length
            self.what = (0, 0, DATA_SET, COMMAND)[control & 3]
        else:
            kind, length = struct.unpack(">BxI", header)
            if kind == DATA:
                self.pdv_left = length
            else:
                self.left, self.what = length, kind


def answers_for(job: Accepting) -> dict[int, bytes]:
    """What is sent when something has come."""
    files = job.files
    answers = {5: files["release-rp"], DATA_SET: files["store-rsp"]}
    answers[1] = files["rj" if job.mode == "reject" else f"ac-{job.max_length}"]
    if job.mode == "echo":
        answers[COMMAND] = files["echo-rsp"]
    return answers


def with_message_id(response: bytes, request: memoryview) -> bytes:
    """Where the request came alone and whole, as it does from those that wait for answers."""
    at, end = MESSAGE_ID.start, MESSAGE_ID.stop
    return response[:at] + request[MESSAGE_ID] + response[end:]


# ---- what a requestor says -----------------------------------------------------------------------

Parts = list[bytes | memoryview]
Talk = Generator[Parts, bytes, None]
"""Gives what to send, and is sent the PDU that came."""


def talk(job: Requesting, times: list[int]) -> Talk:
    """One association. `times` gets the nanoseconds of all echoes."""
    files = job.files
    pdu = yield [files["rq-1"]]
    if job.mode == "reject":
        check(pdu[0] == RJ and tuple(pdu[7:10]) == program.CODES, "not rejected with 1/1/7")
        return
    check(pdu[0] == AC, "not accepted")
    begun = time.monotonic_ns()
    if job.mode == "send":
        check_response((yield [files["store-rq"], *data_set(job)]))
    else:
        request: Parts = [files["echo-rq"]]
        for _ in range(job.echoes):
            check_response((yield request))
    times.append(time.monotonic_ns() - begun)
    pdu = yield [files["release-rq"]]
    check(pdu[0] == RELEASE_RP, "not released")


def check_response(pdu: bytes) -> None:
    check(pdu[0] == DATA and program.is_success(program.command_of(pdu)), "no success")


def data_set(job: Requesting) -> Parts:
    """It as P-DATA-TF."""
    most = job.size - HEADER
    whole = memoryview(job.data_set)
    parts: Parts = []
    for at in range(0, job.count, most):
        piece = whole[at : at + most]
        last = 2 if at + most >= job.count else 0
        size = len(piece)
        parts += [struct.pack(">BxIIBB", DATA, size + HEADER, size + 2, 3, last), piece]
    return parts


def take_pdu(received: bytearray) -> bytes | None:
    """The PDU, when it has come whole."""
    if len(received) < HEADER or len(received) < HEADER + int.from_bytes(received[2:6], "big"):
        return None
    pdu = bytes(received)
    received.clear()
    return pdu


# ---- acceptor ------------------------------------------------------------------------------------


class Acceptor:
    def __init__(self, job: Accepting) -> None:
        self.answers = answers_for(job)
        self.buffer = bytearray(READ_SIZE)
        self.view = memoryview(self.buffer)
        self.selector = selectors.DefaultSelector()
        self.listener = socket.create_server((LOCALHOST, 0), backlog=BACKLOG)
        self.listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # it is inherited
        self.listener.setblocking(False)

    def serve(self) -> None:
        over = False

        def stop() -> None:
            nonlocal over
            over = True
            waker.send(b"\0")

        woken, waker = socket.socketpair()
        self.selector.register(self.listener, selectors.EVENT_READ)
        self.selector.register(woken, selectors.EVENT_READ)
        program.when_input_ends(stop)
        program.announce(self.listener.getsockname()[1])
        while not over:
            for key, _ in self.selector.select():
                if key.data is not None:
                    if not self.read(key.fileobj, key.data):  # type: ignore[arg-type]
                        self.selector.unregister(key.fileobj)
                        key.fileobj.close()  # type: ignore[union-attr]
                elif key.fileobj is self.listener:
                    self.accept()

    def accept(self) -> None:
        try:
            sock, _ = self.listener.accept()
        except BlockingIOError:
            return
        sock.setblocking(False)
        walk = Walk()
        if self.read(sock, walk):  # most requests are there by now
            self.selector.register(sock, selectors.EVENT_READ, walk)
        else:
            sock.close()

    def read(self, sock: socket.socket, walk: Walk) -> bool:
        """False at the end."""
        try:
            size = sock.recv_into(self.buffer)
            data = self.view[:size]
            for what in walk.ended(data):
                if answer := self.answers.get(what):
                    sock.send(answer if what != COMMAND else with_message_id(answer, data))
        except BlockingIOError:
            return True
        except OSError:
            return False
        return size > 0


# ---- requestor -----------------------------------------------------------------------------------


def open_socket(blocks: bool) -> socket.socket:
    sock = socket.socket()
    sock.setblocking(blocks)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def send_parts(sock: socket.socket, parts: Parts) -> Parts:
    """What is left of them, where the socket does not block."""
    while parts:
        try:
            sent = sock.sendmsg(parts[:MOST_PARTS])
        except BlockingIOError:
            break
        n = 0
        while n < len(parts) and sent >= len(parts[n]):
            sent -= len(parts[n])
            n += 1
        parts = parts[n:]
        if sent:
            parts[0] = memoryview(parts[0])[sent:]
    return parts


def receive(sock: socket.socket) -> bytes:
    """The PDU that comes; nothing comes after it before something is sent."""
    received = bytearray()
    while (pdu := take_pdu(received)) is None:
        data = sock.recv(4096)
        check(bool(data), "connection lost")
        received += data
    return pdu


def associate(job: Requesting, times: list[int]) -> None:
    """One association over a socket that blocks."""
    steps = talk(job, times)
    with open_socket(True) as sock:
        sock.connect((LOCALHOST, job.port))
        parts = next(steps)
        while True:
            if len(parts) == 1:
                sock.sendall(parts[0])
            else:
                send_parts(sock, parts)
            try:
                parts = steps.send(receive(sock))
            except StopIteration:
                return


def store(job: Requesting) -> int:
    """One association with a write for each PDU, command and data set, and a wait for each
    response."""
    commands, data_sets = job.each("command-"), job.each("data-")
    begun = time.monotonic_ns()
    with open_socket(True) as sock:
        sock.connect((LOCALHOST, job.port))
        check(exchange(sock, job.files["rq"])[0] == AC, "not accepted")
        for command, data in zip(commands, data_sets, strict=True):
            sock.sendall(command)
            check_response(exchange(sock, data))
        check(exchange(sock, job.files["release-rq"])[0] == RELEASE_RP, "not released")
    return time.monotonic_ns() - begun


def exchange(sock: socket.socket, pdu: bytes) -> bytes:
    """Send this; the PDU that comes then."""
    sock.sendall(pdu)
    return receive(sock)


class Slot:
    """One association among many."""

    def __init__(self, job: Requesting, times: list[int], selector: selectors.BaseSelector) -> None:
        self.steps = talk(job, times)
        self.received = bytearray()
        self.selector = selector
        self.sock = open_socket(False)
        self.sock.connect_ex((LOCALHOST, job.port))
        self.parts = send_parts(self.sock, next(self.steps))
        self.events = self.wanted()
        selector.register(self.sock, self.events, self)

    def wanted(self) -> int:
        return selectors.EVENT_WRITE if self.parts else selectors.EVENT_READ

    def go_on(self) -> bool:
        """True at the end."""
        if not self.parts:
            data = self.sock.recv(4096)
            check(bool(data), "connection lost")
            self.received += data
            pdu = take_pdu(self.received)
            if pdu is None:
                return False
            try:
                self.parts = self.steps.send(pdu)
            except StopIteration:
                self.selector.unregister(self.sock)
                self.sock.close()
                return True
        self.parts = send_parts(self.sock, self.parts)
        if self.events != self.wanted():
            self.events = self.wanted()
            self.selector.modify(self.sock, self.events, self)
        return False


def associate_at_once(job: Requesting, times: list[int]) -> None:
    left = job.associations
    to_begin = max(0, left - job.at_once)
    with selectors.DefaultSelector() as selector:
        for _ in range(left - to_begin):
            Slot(job, times, selector)
        while left:
            ready = selector.select(TIMEOUT)
            check(bool(ready), "nothing has come")
            for key, _ in ready:
                if not key.data.go_on():
                    continue
                left -= 1
                if to_begin:
                    to_begin -= 1
                    Slot(job, times, selector)


def request(job: Requesting) -> int:
    if job.mode == "store":
        return store(job)
    if job.mode not in ("reject", "echo", "latency", "send"):
        raise Unsupported
    times: list[int] = []
    begun = time.monotonic_ns()
    if job.at_once == 1:
        for _ in range(job.associations):
            associate(job, times)
    else:
        associate_at_once(job, times)
    taken = time.monotonic_ns() - begun
    return times[0] if job.mode == "latency" else taken


if __name__ == "__main__":
    program.main(lambda job: Acceptor(job).serve(), request)
