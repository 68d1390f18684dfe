"""The two servers behind one interface, with the ends of their associations."""

from __future__ import annotations

import inspect
import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from ltdic import PDV, Admission, Counters, Record, aio, lib
from support.servers import serving
from support.sockets import LOCALHOST, TIMEOUT
from support.threads import Background, LoopThread
from support.uids import CT, VERIFICATION
from support.waiting import eventually

SUPPORTED = [VERIFICATION, CT]


class Host:
    """A server that serves in another thread, and the ends that `on_end` has told."""

    def __init__(self) -> None:
        self.server: Any = None
        self.ended: queue.Queue[tuple[Any, Record]] = queue.Queue()
        self.threads: list[Background] = []

    def do(self, call: Callable[[], Any]) -> Any:
        """Call a method of an association: from this thread, or in the loop of the server."""
        return call()

    def begin(self, call: Callable[[], Any]) -> None:
        """`do` the call in a thread, which is joined at the end of the server."""
        self.threads.append(Background(lambda: self.do(call)))

    def join(self) -> None:
        for thread in self.threads:
            thread.join()

    def options(self, options: dict[str, Any]) -> dict[str, Any]:
        """Adapt the options to this server. A handler is a generator; in asyncio the values that it
        yields are awaited."""
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
        """Return the association that ends next, and its record."""
        return self.ended.get(timeout=TIMEOUT)

    def one(self) -> Any:
        """Return the only open association."""
        eventually(lambda: len(self.server.open) == 1)
        return self.server.open[0]


class LoopHost(Host):
    """A `Host` for an `aio.Server`."""

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


class Gate:
    """An `on_request` that waits until the test opens it."""

    def __init__(self) -> None:
        self.opens = threading.Event()
        self.asked: list[Any] = []

    def __call__(self, association: Any) -> None:
        self.asked.append(association)
        self.opens.wait(TIMEOUT)

    def admission(self, **more: Any) -> Admission:
        return Admission(contexts=SUPPORTED, on_request=self, **more)


def limit_unfinished(host: Host, size: int) -> None:
    lib.ltdic_server_limit_unfinished(host.server._loop._server, size)
