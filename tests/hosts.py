"""Both servers behind one interface, and raw requestors."""

from __future__ import annotations

import inspect
import queue
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any

from conftest import LOCALHOST, TIMEOUT
from faces import Background, LoopThread, serving

from ltdic import (
    PDU,
    PDV,
    Admission,
    AssociateAccept,
    Counters,
    Record,
    aio,
    decode,
    encode,
)

VERIFICATION, CT = "1.2.840.10008.1.1", "1.2.840.10008.5.1.4.1.1.2"
SUPPORTED = [VERIFICATION, CT]


class Host:
    """A server that serves in another thread, and what it has told."""

    def __init__(self) -> None:
        self.server: Any = None
        self.ended: queue.Queue[tuple[Any, Record]] = queue.Queue()
        self.threads: list[Background] = []

    def do(self, call: Callable[[], Any]) -> Any:
        """Call a method of an association: from this thread, or in the loop of the server."""
        return call()

    def begin(self, call: Callable[[], Any]) -> None:
        """`do` it in a thread, which has ended when the server has."""
        self.threads.append(Background(lambda: self.do(call)))

    def join(self) -> None:
        for thread in self.threads:
            thread.join()

    def options(self, options: dict[str, Any]) -> dict[str, Any]:
        """A handler is written as a generator: what it yields is awaited where it can be."""
        defaults = {
            "admission": Admission(contexts=SUPPORTED),
            "handler": lambda association, pdv: (),
            "on_end": lambda *told: self.ended.put(told),
            "timeout": TIMEOUT,
        }
        found: dict[str, Any] = {**defaults, **options}
        if found["handler"] is not None:
            found["handler"] = self.handler_of(found["handler"])
        return found

    def handler_of(self, steps: Any) -> Any:
        def handler(association: Any, pdv: PDV) -> None:
            for _ in steps(association, pdv):
                pass

        return handler

    @property
    def counters(self) -> Counters:
        found = self.server.counters
        assert isinstance(found, Counters)
        return found

    def end(self) -> tuple[Any, Record]:
        """The association that ends next, and its record."""
        return self.ended.get(timeout=TIMEOUT)

    def one(self) -> Any:
        """The only association there is."""
        eventually(lambda: len(self.server.open) == 1)
        return self.server.open[0]


class LoopHost(Host):
    """That of an `aio.Server`."""

    def __init__(self, loop: LoopThread) -> None:
        super().__init__()
        self.loop = loop

    def do(self, call: Callable[[], Any]) -> Any:
        async def work() -> Any:
            result = call()
            return await result if inspect.isawaitable(result) else result

        return self.loop.run(work())

    def handler_of(self, steps: Any) -> Any:
        async def handler(association: Any, pdv: PDV) -> None:
            for result in steps(association, pdv):
                if inspect.isawaitable(result):
                    await result

        return handler


@contextmanager
def blocking(**options: Any) -> Iterator[Host]:
    host = Host()
    with serving(**host.options(options)) as server:
        host.server = server
        yield host
        host.join()


@contextmanager
def in_asyncio(**options: Any) -> Iterator[Host]:
    with LoopThread() as loop:
        host = LoopHost(loop)
        host.server = aio.Server((LOCALHOST, 0), **host.options(options))
        loop.run(host.server.__aenter__())
        thread = Background(lambda: loop.run(host.server.serve()))
        try:
            yield host
            host.join()
        finally:
            loop.run(host.server.__aexit__(None, None, None))
            thread.join()


SERVERS = {"blocking": blocking, "asyncio": in_asyncio}
Serve = Callable[..., AbstractContextManager[Host]]


class Peer:
    """A raw requestor that counts its bytes."""

    def __init__(self, host: Host, *first: PDU | bytes) -> None:
        self.socket = socket.create_connection(host.server.address[:2], timeout=TIMEOUT)
        self.address = self.socket.getsockname()
        self.sent = self.received = 0
        self.send(*first)

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, *pdus: PDU | bytes) -> None:
        data = b"".join(pdu if isinstance(pdu, bytes) else encode(pdu) for pdu in pdus)
        self.socket.sendall(data)
        self.sent += len(data)

    def take(self) -> PDU | None:
        """One PDU; None at the end of the connection."""
        head = self.read(6)
        if len(head) < 6:
            return None
        return decode(head + self.read(int.from_bytes(head[2:6], "big")))

    def read(self, size: int) -> bytes:
        data = bytearray()
        with suppress(ConnectionResetError):
            while len(data) < size and (chunk := self.socket.recv(size - len(data))):
                data += chunk
        self.received += len(data)
        return bytes(data)

    def associate(self) -> AssociateAccept:
        accept = self.take()
        assert isinstance(accept, AssociateAccept)
        return accept

    def close(self) -> None:
        self.socket.close()


def eventually(is_true: Callable[[], bool]) -> None:
    """Wait until it is."""
    end = time.monotonic() + TIMEOUT
    while not is_true():
        assert time.monotonic() < end
        time.sleep(0.005)
