"""The floor in asyncio: fixed bytes over transports, without streams.

It does what `floor.c` does: it reads only as much of the input as it needs to know where each PDU
ends and which type it has.
"""

from __future__ import annotations

import asyncio
import struct
import time
from collections.abc import Generator, Iterator

import program
from program import (
    BACKLOG,
    HEADER,
    LOCALHOST,
    Accepting,
    Requesting,
    Unsupported,
    Wrong,
    check,
)

READ_SIZE = 0x40000
AC, RJ, DATA, RELEASE_RP = 2, 3, 4, 6
COMMAND, DATA_SET = 16, 17
"""Ends that are no PDU types: the last fragment of a command, of a data set."""
MESSAGE_ID = slice(68, 70)
"""Place in a C-ECHO-RQ or C-ECHO-RSP that is alone in a P-DATA-TF."""

buffer = bytearray(READ_SIZE)
"""Shared by all connections: each uses its bytes before the next one reads."""
view = memoryview(buffer)
PARTS_AT_ONCE = 32

# ---- a stream as PDUs ----------------------------------------------------------------------------


class Walk:
    """The position of a stream in its PDUs."""

    def __init__(self) -> None:
        self.head = b""  # the part of a header that has been received
        self.left = 0  # bytes of the body that are still missing
        self.pdv_left = 0  # bytes of the P-DATA-TF after this PDV
        self.what = 0  # PDU type, COMMAND or DATA_SET that ends with the body

    def ended(self, data: memoryview) -> Iterator[int]:
        """Yield a PDU type, COMMAND or DATA_SET for each of them that ends in `data`."""
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
    """The PDU to send for each PDU type, COMMAND or DATA_SET."""
    files = job.files
    answers = {5: files["release-rp"], DATA_SET: files["store-rsp"]}
    answers[1] = files["rj" if job.mode == "reject" else f"ac-{job.max_length}"]
    if job.mode == "echo":
        answers[COMMAND] = files["echo-rsp"]
    return answers


def with_message_id(response: bytes, request: memoryview) -> bytes:
    """The requestor waits for each response, so `request` is one whole P-DATA-TF."""
    at, end = MESSAGE_ID.start, MESSAGE_ID.stop
    return response[:at] + request[MESSAGE_ID] + response[end:]


# ---- the requestor's side of an association ------------------------------------------------------

Parts = list[bytes | memoryview]
Talk = Generator[Parts, bytes, None]
"""Yields the bytes to send; receives the PDU that answers them."""


def talk(job: Requesting, times: list[int]) -> Talk:
    """One association. The nanoseconds of all its echoes are appended to `times`."""
    files = job.files
    pdu = yield [files["rq"]]
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
    """The data set as P-DATA-TF."""
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
    """The PDU, when it is complete."""
    if len(received) < HEADER or len(received) < HEADER + int.from_bytes(received[2:6], "big"):
        return None
    pdu = bytes(received)
    received.clear()
    return pdu


# ---- acceptor ------------------------------------------------------------------------------------


class Served(asyncio.BufferedProtocol):
    def __init__(self, answers: dict[int, bytes]) -> None:
        self.answers = answers
        self.walk = Walk()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def get_buffer(self, sizehint: int) -> bytearray:
        return buffer

    def buffer_updated(self, nbytes: int) -> None:
        data = view[:nbytes]
        for what in self.walk.ended(data):
            if answer := self.answers.get(what):
                self.transport.write(answer if what != COMMAND else with_message_id(answer, data))


async def serve(job: Accepting) -> None:
    answers = answers_for(job)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Served(answers), LOCALHOST, 0, backlog=BACKLOG)
    over = asyncio.Event()
    program.when_input_ends(lambda: loop.call_soon_threadsafe(over.set))
    program.announce(server.sockets[0].getsockname()[1])
    await over.wait()
    server.close()


# ---- requestor -----------------------------------------------------------------------------------


class Asking(asyncio.BufferedProtocol):
    def __init__(self, steps: Talk) -> None:
        self.steps = steps
        self.received = bytearray()
        self.parts: Parts = []
        self.paused = False
        self.is_right = False
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.send(next(self.steps))

    def send(self, parts: Parts) -> None:
        """Write until the transport pauses; keep the rest for `resume_writing`."""
        self.parts = parts
        for n in range(0, len(parts), PARTS_AT_ONCE):
            if self.paused:
                self.parts = parts[n:]
                return
            self.transport.writelines(parts[n : n + PARTS_AT_ONCE])
        self.parts = []

    def pause_writing(self) -> None:
        self.paused = True

    def resume_writing(self) -> None:
        self.paused = False
        self.send(self.parts)

    def get_buffer(self, sizehint: int) -> bytearray:
        return buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.received += view[:nbytes]
        pdu = take_pdu(self.received)
        if pdu is None:
            return
        try:
            self.send(self.steps.send(pdu))
        except StopIteration:
            self.is_right = True
            self.transport.close()
        except Wrong as e:
            self.over.set_exception(e)
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        if self.over.done():
            return
        if self.is_right:
            self.over.set_result(None)
        else:
            self.over.set_exception(exc or Wrong("connection lost"))


async def associate_all(job: Requesting) -> int:
    loop = asyncio.get_running_loop()
    times: list[int] = []
    numbers = iter(range(job.associations))

    async def work() -> None:
        for _ in numbers:
            _, asking = await loop.create_connection(
                lambda: Asking(talk(job, times)), LOCALHOST, job.port
            )
            await asking.over

    begun = time.monotonic_ns()
    if job.at_once == 1:
        await work()
    else:
        await asyncio.gather(*(work() for _ in range(job.at_once)))
    taken = time.monotonic_ns() - begun
    return times[0] if job.mode == "latency" else taken


def request(job: Requesting) -> int:
    if job.mode not in ("reject", "echo", "latency", "send"):
        raise Unsupported
    return asyncio.run(associate_all(job))


if __name__ == "__main__":
    program.main(lambda job: asyncio.run(serve(job)), request)
