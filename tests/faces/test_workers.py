"""A server of several workers, and servers at one socket: restarts, and processes that share it."""

from __future__ import annotations

import gc
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

import ltdic
from ltdic import PDV, Admission, AssociationRejected, Server, aio
from support.commands import command_set
from support.faces import DATA_CONTEXT
from support.loops import in_loop
from support.pdus import RELEASE_RP, RELEASE_RQ
from support.process import descriptors
from support.raw import OPTIONS, REQUEST, SHORT
from support.servers import SUPPORTED
from support.sockets import LOCALHOST, TIMEOUT, receive_pdu
from support.threads import Background
from support.tls import client_context, server_context
from support.waiting import eventually

WORKERS = 3
ADMISSION = Admission(contexts=SUPPORTED)


def ignore(association: Any, pdv: PDV) -> None:
    """Do nothing with what comes."""


SERVING: dict[str, Any] = {"admission": ADMISSION, "handler": ignore, "timeout": TIMEOUT}
ALONE = command_set({0x0100: 0x8030, 0x0120: 1, 0x0800: 0x0101})
"""A command without a data set."""
COMMAND: dict[str, Any] = {"context": DATA_CONTEXT, "is_command": True}


@contextmanager
def served(**options: Any) -> Iterator[Server]:
    how = {**SERVING, "workers": WORKERS, **options}
    with Server((LOCALHOST, 0), **how) as server:
        thread = Background(server.serve)
        yield server
        server.close()
        thread.join()


class Gate:
    """A handler that keeps its worker until `go_on` is set, so that another one accepts the next
    connection. It answers then."""

    def __init__(self) -> None:
        self.go_on = threading.Event()
        self.threads: list[int] = []

    def handle(self, association: ltdic.ServedAssociation, pdv: PDV) -> None:
        self.threads.append(threading.get_ident())
        assert self.go_on.wait(TIMEOUT)
        association.send(ALONE, **COMMAND)


def open_on_each(stack: ExitStack, server: Server, gate: Gate, **how: Any) -> list[Any]:
    """Open an association on each worker."""
    opened: list[Any] = []
    for _ in range(WORKERS):
        association = stack.enter_context(ltdic.connect(*server.address, **OPTIONS, **how))
        association.send(ALONE, **COMMAND)
        opened.append(association)
        eventually(lambda: len(gate.threads) == len(opened))
    gate.go_on.set()
    assert [association.receive().data for association in opened] == WORKERS * [ALONE]
    return opened


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "TLS"])
def test_each_handler_runs_on_the_thread_of_its_worker(tls: bool) -> None:
    gate = Gate()
    options: dict[str, Any] = {"tls": server_context()} if tls else {}
    how = {"tls": client_context()} if tls else {}
    with served(handler=gate.handle, **options) as server, ExitStack() as stack:
        opened = open_on_each(stack, server, gate, **how)
        assert len(set(gate.threads)) == WORKERS
        for n, association in enumerate(opened):
            association.send(ALONE, **COMMAND)
            assert association.receive().data == ALONE
            assert gate.threads[-1] == gate.threads[n]
        assert len(server.open) == server.counters.open == WORKERS
    assert server.counters.released == server.counters.connections == WORKERS


def test_a_limit_holds_over_all_workers() -> None:
    with served(max_associations=WORKERS) as server, ExitStack() as stack:
        for _ in range(WORKERS):
            stack.enter_context(ltdic.connect(*server.address, **OPTIONS))
        for _ in range(20):
            with pytest.raises(AssociationRejected) as e:
                ltdic.connect(*server.address, **OPTIONS)
            assert e.value.codes == (2, 3, 2)
    assert server.counters.rejected == Counter({("sent", 2, 3, 2): 20})


def test_another_admission_holds_for_all_workers() -> None:
    with served() as server:
        for title in ("A", "B") * 5:
            server.admission = Admission(contexts=SUPPORTED, called=[title])
            time.sleep(0.05)  # until all have it
            for called in ("A", "B") * WORKERS:
                try:
                    ltdic.connect(*server.address, **{**OPTIONS, "called_ae": called}).release()
                except AssociationRejected as e:
                    assert (called != title, e.codes) == (True, (1, 1, 7))
                else:
                    assert called == title
        assert sum(server.counters.rejected.values()) == 5 * 2 * WORKERS


def test_on_request_of_another_admission_is_asked_by_all_workers() -> None:
    asked: list[Any] = []
    with served() as server:
        server.admission = Admission(contexts=SUPPORTED, on_request=lambda a: asked.append(a))
        time.sleep(0.05)
        for _ in range(20):
            ltdic.connect(*server.address, **OPTIONS).release()
    assert len(asked) == 20


def test_close_releases_the_associations_of_each_worker() -> None:
    gate = Gate()
    with served(handler=gate.handle) as server, ExitStack() as stack:
        opened = open_on_each(stack, server, gate)
        server.close()
        assert [association.receive() for association in opened] == WORKERS * [None]
    assert server.counters.released == WORKERS


def test_serve_stops_all_workers_and_goes_on() -> None:
    ended: list[Any] = []
    with Server(
        (LOCALHOST, 0), workers=WORKERS, **SERVING, on_end=lambda a, _: ended.append(a)
    ) as server:
        before = threading.active_count()
        for n in range(10):
            peer = Background(lambda: ltdic.connect(*server.address, **OPTIONS).release())
            server.serve(until=lambda n=n: server.counters.released > n)
            peer.join()
            assert threading.active_count() == before
        waiting = socket.create_connection(server.address)
        time.sleep(0.05)
        assert server.counters.connections == 10  # nobody serves
        server.serve(until=0.05)
        assert server.counters.connections == 11
        waiting.close()


def test_what_a_handler_of_a_worker_raises_ends_serve() -> None:
    def handler(association: Any, pdv: PDV) -> None:
        raise KeyboardInterrupt

    with Server((LOCALHOST, 0), workers=WORKERS, **{**SERVING, "handler": handler}) as server:
        for _ in range(5):
            thread = Background(server.serve)
            association = ltdic.connect(*server.address, **{**OPTIONS, "timeout": SHORT})
            association.send(ALONE, **COMMAND)
            with pytest.raises(KeyboardInterrupt):
                thread.join()
            association.abort()


def test_an_interrupt_waits_for_the_handlers_of_workers() -> None:
    """However many come: nobody may use the loop of a worker that is not at rest."""
    is_busy, may_end, done, asked = threading.Event(), threading.Event(), [], []

    def handler(association: Any, pdv: PDV) -> None:
        if threading.current_thread() is threading.main_thread():
            return
        is_busy.set()
        assert may_end.wait(TIMEOUT)
        done.append(threading.get_ident())

    def interrupt() -> None:
        assert is_busy.wait(TIMEOUT)
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(SHORT / 10)
        may_end.set()

    def ask() -> None:
        while not is_busy.is_set():  # until another thread than this one serves it
            with ltdic.connect(*server.address, **OPTIONS) as association:
                association.send(ALONE, **COMMAND)
        asked.append(1)

    before = threading.active_count()
    with Server((LOCALHOST, 0), workers=WORKERS, **{**SERVING, "handler": handler}) as server:
        asking = [Background(ask) for _ in range(4)]
        interrupting = Background(interrupt)
        with pytest.raises(KeyboardInterrupt):
            server.serve()
        assert done
        assert threading.active_count() <= before + 5  # none serves
        interrupting.join()
        server.serve(until=lambda: server.counters.open == 0 and len(asked) == len(asking))
        for one in asking:
            one.join()


@pytest.mark.parametrize("method", ["serve", "__exit__"])
def test_a_handler_of_a_worker_cannot_serve(method: str) -> None:
    raised: list[Exception] = []
    gate = Gate()

    def handler(association: ltdic.ServedAssociation, pdv: PDV) -> None:
        try:
            server.serve() if method == "serve" else server.__exit__(None, None, None)
        except Exception as e:
            raised.append(e)
        gate.handle(association, pdv)

    with served(handler=handler) as server, ExitStack() as stack:
        if method == "serve":
            open_on_each(stack, server, gate)
        else:
            gate.go_on.set()
            association = stack.enter_context(ltdic.connect(*server.address, **OPTIONS))
            association.send(ALONE, **COMMAND)
            assert association.receive().data == ALONE
            assert association.receive() is None  # `__exit__` closes first
    assert {type(e) for e in raised} == {ltdic.LocalError}


def test_a_server_of_workers_that_is_dropped_leaves_nothing() -> None:
    gc.collect()
    before, threads = descriptors(), threading.active_count()
    server = Server((LOCALHOST, 0), workers=WORKERS)
    address = server.address
    server.serve(until=0)
    with pytest.warns(ResourceWarning, match="was not closed"):
        del server
    gc.collect()
    assert (descriptors(), threading.active_count()) == (before, threads)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address)


@pytest.mark.parametrize(
    ("workers", "error"), [(0, ValueError), (-1, ValueError), ("2", TypeError)]
)
def test_a_wrong_number_of_workers_is_refused(workers: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="workers"):
        Server((LOCALHOST, 0), workers=workers)


# ---- a socket that is given ----------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, WORKERS])
def test_a_server_serves_at_a_given_socket_which_stays_its_owners(workers: int) -> None:
    with socket.create_server((LOCALHOST, 0)) as listening:
        for _ in range(2):
            with Server(socket=listening, workers=workers, **SERVING) as server:
                assert server.address == listening.getsockname()
                thread = Background(server.serve)
                ltdic.connect(*server.address, **OPTIONS).release()
                server.close()
                thread.join()
        waiting = socket.create_connection(listening.getsockname())
        listening.settimeout(TIMEOUT)
        listening.accept()[0].close()
        waiting.close()


@in_loop
async def test_an_aio_server_serves_at_a_given_socket() -> None:
    with socket.create_server((LOCALHOST, 0)) as listening:
        for _ in range(2):
            async with aio.Server(socket=listening) as server:
                assert server.address == listening.getsockname()
                async with aio.connect(*server.address, timeout=TIMEOUT) as association:
                    assert await association.echo() == 0


@pytest.mark.parametrize("kind", [Server, aio.Server])
def test_a_server_has_an_address_or_a_socket(kind: Any) -> None:
    with socket.create_server((LOCALHOST, 0)) as listening:
        with pytest.raises(TypeError, match="address and socket"):
            kind((LOCALHOST, 0), socket=listening)
        with pytest.raises(TypeError, match="address"):
            kind()


def test_a_server_without_a_time_limit_at_a_given_socket_releases_at_once() -> None:
    with (
        socket.create_server((LOCALHOST, 0)) as listening,
        Server(socket=listening, **{**SERVING, "timeout": None}) as server,
    ):
        thread = Background(server.serve)
        association = ltdic.connect(*server.address, **OPTIONS)
        server.close()
        assert association.receive() is None
        thread.join()


@pytest.mark.parametrize("kind", [Server, aio.Server])
@pytest.mark.parametrize("given", [3, "x", object()])
def test_what_is_no_socket_is_a_type_error(kind: Any, given: Any) -> None:
    with pytest.raises(TypeError, match="socket"):
        kind(socket=given)


def test_a_socket_that_does_not_listen_is_refused() -> None:
    with socket.socket() as other:
        before = descriptors()
        with pytest.raises(OSError, match="Invalid argument"):
            Server(socket=other)
        assert descriptors() == before


# ---- processes at one socket ---------------------------------------------------------------------

CHILD = """
import asyncio, signal, socket, sys, ltdic

kind, timeout = sys.argv[2], float(sys.argv[3])
listening = socket.socket(fileno=int(sys.argv[1]))
options = {"socket": listening, "admission": ltdic.Admission(), "timeout": timeout}

async def serve():
    async with ltdic.aio.Server(**options) as server:
        signal.signal(signal.SIGTERM, lambda *_: server.close())
        print("ready", flush=True)
        await server.serve()
        return server

if kind == "aio":
    server = asyncio.run(serve())
else:
    with ltdic.Server(**options, workers=int(kind)) as server:
        signal.signal(signal.SIGTERM, lambda *_: server.close())
        print("ready", flush=True)
        server.serve()
print(server.counters.accepted, server.counters.released, sum(server.counters.rejected.values()))
"""


class Child:
    """A process that serves at a socket."""

    def __init__(self, listening: socket.socket, kind: str) -> None:
        arguments = str(listening.fileno()), kind, str(TIMEOUT)
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", CHILD, *arguments],
            pass_fds=[listening.fileno()],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"

    def stop(self) -> tuple[int, ...]:
        """Have it come to its end. Return how many were accepted, released and rejected."""
        self._process.send_signal(signal.SIGTERM)
        told, _ = self._process.communicate(timeout=2 * TIMEOUT)
        assert self._process.returncode == 0
        return tuple(map(int, told.split()))


class Load:
    """Threads that open associations, echo, and release them, as fast as they can."""

    def __init__(self, address: Any, threads: int) -> None:
        self._address, self._stop = address, threading.Event()
        self._threads = [Background(self._run) for _ in range(threads)]

    def _run(self) -> int:
        done = 0
        while not self._stop.is_set():
            with ltdic.connect(*self._address, timeout=TIMEOUT) as association:
                assert association.echo() == 0
            done += 1
        return done

    def stop(self) -> int:
        """The number of associations. Raises what any of them has raised."""
        self._stop.set()
        return sum(thread.join() for thread in self._threads)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["1", "2", "aio"])
def test_a_restart_under_load_refuses_and_loses_nobody(kind: str) -> None:
    with socket.create_server((LOCALHOST, 0), backlog=512) as listening:
        child = Child(listening, kind)
        load = Load(listening.getsockname(), 8)
        told = []
        for _ in range(5):
            time.sleep(0.2)
            following = Child(listening, kind)
            told.append(child.stop())
            child = following
        done = load.stop()
        told.append(child.stop())
    assert done > 100
    assert [sum(each) for each in zip(*told, strict=True)] == [done, done, 0]


@pytest.mark.slow
def test_processes_share_a_socket() -> None:
    """Prefork: one that ends, even by a signal that kills it, takes nobody's place."""
    with socket.create_server((LOCALHOST, 0), backlog=512) as listening:
        children = [Child(listening, "1") for _ in range(3)]
        load = Load(listening.getsockname(), 8)
        time.sleep(0.3)
        told = [children.pop().stop()]
        time.sleep(0.3)
        done = load.stop()
        told += [child.stop() for child in children]
    assert [sum(each) for each in zip(*told, strict=True)] == [done, done, 0]


def test_a_forked_child_serves_at_the_socket_of_its_parent() -> None:
    with socket.create_server((LOCALHOST, 0)) as listening:
        child = os.fork()
        if child == 0:
            try:
                with Server(socket=listening, timeout=TIMEOUT) as server:
                    server.serve(until=lambda: server.counters.released == 1)
            finally:
                os._exit(0)
        ltdic.connect(*listening.getsockname(), timeout=TIMEOUT).release()
        assert os.waitpid(child, 0)[1] == 0


@pytest.mark.parametrize("waits", [True, False])
def test_a_closing_server_at_a_given_socket_serves_whom_it_has_accepted(waits: bool) -> None:
    """`waits`: the request comes after the close."""
    with (
        socket.create_server((LOCALHOST, 0)) as listening,
        Server(socket=listening, **SERVING) as server,
    ):
        thread = Background(server.serve)
        with socket.create_connection(server.address) as peer:
            peer.settimeout(TIMEOUT)
            eventually(lambda: server.counters.connections == 1)
            if not waits:
                peer.sendall(REQUEST)
                assert receive_pdu(peer)[0] == 2
            server.close()
            time.sleep(0.1)
            if waits:
                peer.sendall(REQUEST)
                assert receive_pdu(peer)[0] == 2
            peer.sendall(RELEASE_RQ)
            assert receive_pdu(peer) == RELEASE_RP
        thread.join()
    assert server.counters.released == 1
