"""The floor in asyncio: fixed bytes over transports, without streams.

As `floor.c`: what comes is looked at only so far as to know where each PDU ends and which it is.
"""

from __future__ import annotations

import asyncio
import time

import program
from floor_selectors import (
    COMMAND,
    READ_SIZE,
    Parts,
    Talk,
    Walk,
    answers_for,
    take_pdu,
    talk,
    with_message_id,
)
from program import BACKLOG, LOCALHOST, Accepting, Requesting, Unsupported, Wrong

buffer = bytearray(READ_SIZE)
"""Of all connections: what has been read is looked at at once."""
view = memoryview(buffer)
PARTS_AT_ONCE = 32


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
        """As long as the transport takes them."""
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
