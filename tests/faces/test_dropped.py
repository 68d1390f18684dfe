"""Servers and associations whose last reference is dropped without a call of `close`."""

from __future__ import annotations

import asyncio
import gc
import socket
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

import ltdic
from ltdic import PDV, Admission, AssociateReject, aio
from support.servers import ALL
from support.sockets import LOCALHOST, TIMEOUT
from support.threads import Background, LoopThread
from support.uids import SECONDARY_CAPTURE

# ---- helpers -----------------------------------------------------------------------------------


@contextmanager
def no_collector() -> Iterator[None]:
    """Disable the collector: objects are freed by their reference counts alone."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@contextmanager
def warned(*texts: str) -> Iterator[None]:
    """Expect these ResourceWarnings and no other warning."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        yield
    assert [one.category for one in found] == [ResourceWarning] * len(texts), found
    for one, text in zip(found, texts, strict=True):
        assert text in str(one.message)


def is_free(address: tuple[str, int]) -> bool:
    try:
        socket.create_server(address).close()
    except OSError:
        return False
    return True


def associate(address: tuple[str, int]) -> ltdic.SyncAssociation:
    """Associate, and return when the handler of the server has answered."""
    association = ltdic.connect(*address, contexts=[SECONDARY_CAPTURE], timeout=TIMEOUT)
    association.send(b"command!", context=SECONDARY_CAPTURE, is_command=True)
    return association


def heard(association: ltdic.ServedAssociation, pdv: PDV) -> None:
    association.send(b"heard!", context=pdv.context_id, is_command=True)


async def heard_in_asyncio(association: aio.AsyncServedAssociation, pdv: PDV) -> None:
    await association.send(b"heard!", context=pdv.context_id, is_command=True)


# ---- ltdic.Server ------------------------------------------------------------------------------


def unused(server: ltdic.Server) -> None:
    pass


def served_before(server: ltdic.Server) -> None:
    """Serve one association to its end."""

    def use() -> None:
        with associate(server.address) as association:
            assert association.receive() == PDV(1, True, True, b"heard!")

    thread = Background(use)
    server.serve(until=lambda: server.counters.released == 1)
    thread.join()


def decided_before(server: ltdic.Server) -> None:
    """Have `on_request` called in a thread, which stays alive."""
    address = server.address

    def use() -> None:
        with pytest.raises(ltdic.AssociationRejected):  # the exception has frames, in a cycle
            ltdic.connect(*address, timeout=TIMEOUT)

    server.admission = Admission(on_request=lambda _: AssociateReject(1, 1, 1))
    thread = Background(use)
    server.serve(until=lambda: server.counters.rejected.total() == 1 and not server._served)
    thread.join()


@pytest.mark.slow
@pytest.mark.parametrize("use", [unused, served_before, decided_before])
def test_a_dropped_server_without_associations_frees_its_port_at_once(
    use: Callable[[ltdic.Server], None],
) -> None:
    with no_collector():
        server = ltdic.Server((LOCALHOST, 0), admission=ALL, handler=heard, timeout=TIMEOUT)
        address = server.address
        use(server)
        assert not is_free(address)
        with warned("ltdic.server.Server object"):
            del server
        assert is_free(address)


def test_a_dropped_server_with_an_association_frees_its_port_when_it_is_collected() -> None:
    server = ltdic.Server((LOCALHOST, 0), admission=ALL, handler=heard, timeout=TIMEOUT)
    address = server.address
    told: list[ltdic.SyncAssociation] = []

    def ask() -> None:
        association = associate(address)
        assert association.receive() == PDV(1, True, True, b"heard!")
        told.append(association)

    thread = Background(ask)
    while not told:
        server.serve(until=0.01)
    thread.join()
    with warned("ltdic.server.Server object"):
        del server
        gc.collect()
    assert is_free(address)
    with pytest.raises(ltdic.ConnectionClosed):
        told[0].receive()


@pytest.mark.slow
def test_an_association_keeps_its_server_alive() -> None:
    server = ltdic.Server((LOCALHOST, 0), admission=ALL, handler=heard, timeout=TIMEOUT)
    address = server.address
    thread = Background(lambda: associate(address))
    while not server.open:
        server.serve(until=0.01)
    association, [served] = thread.join(), server.open
    with warned():
        del server
        gc.collect()
        assert served.established
    served._server.serve(until=0.2)
    assert association.receive() == PDV(1, True, True, b"heard!")
    with warned("ltdic.server.Server object"):
        del served
        gc.collect()
    assert is_free(address)
    association.abort()


@pytest.mark.slow
@pytest.mark.parametrize("how", ["block", "close", "close and serve", "failed"])
def test_a_closed_server_is_dropped_without_a_warning(how: str) -> None:
    with no_collector(), warned():
        server = ltdic.Server((LOCALHOST, 0), timeout=TIMEOUT)
        address = server.address
        if how == "block":
            with server:
                pass
        elif how == "failed":
            with pytest.raises(OSError, match="in use"):
                ltdic.Server(address)
            server.close()
        else:
            server.close()
            if how == "close and serve":
                server.serve()
        del server
        assert is_free(address)


def test_a_dropped_server_frees_its_port_when_warnings_are_errors(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    unraisable: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", unraisable.append)
    server = ltdic.Server((LOCALHOST, 0), timeout=TIMEOUT)
    address = server.address
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        del server
    assert is_free(address)
    assert [one.exc_type for one in unraisable] == [ResourceWarning]
    unraisable.clear()


# ---- aio.Server --------------------------------------------------------------------------------


async def opened() -> aio.Server:
    server = aio.Server((LOCALHOST, 0), admission=ALL, handler=heard_in_asyncio, timeout=TIMEOUT)
    return await server.__aenter__()


def test_an_asyncio_server_dropped_after_its_loop_frees_its_port_at_once() -> None:
    with no_collector():
        server = asyncio.run(opened())
        address = server.address
        assert not is_free(address)
        with warned("ltdic.aio.Server object"):
            del server
        assert is_free(address)


def test_an_asyncio_server_dropped_before_its_loop_frees_its_port_soon() -> None:
    async def drop() -> None:
        server = await opened()
        address = server.address
        with warned("ltdic.aio.Server object"):
            del server
        await asyncio.sleep(0)
        assert is_free(address)

    with no_collector():
        asyncio.run(drop())


def test_an_asyncio_server_dropped_by_another_thread_frees_its_port() -> None:
    with LoopThread() as loop:
        server = loop.run(opened())
        address = server.address
        with warned("ltdic.aio.Server object"):
            del server
            gc.collect()
            loop.run(asyncio.sleep(0))
        assert is_free(address)


@pytest.mark.slow
def test_a_dropped_asyncio_server_serves_while_it_has_an_association() -> None:
    async def drop() -> None:
        server = await opened()
        address = server.address
        association = await asyncio.to_thread(associate, address)
        with warned():
            del server
            gc.collect()
        assert await asyncio.to_thread(association.receive) == PDV(1, True, True, b"heard!")
        await asyncio.to_thread(lambda: associate(address).release())
        with warned("ltdic.aio.Server object"):
            await asyncio.to_thread(association.release)
            for _ in range(100):
                await asyncio.sleep(0.01)
                gc.collect()
                if is_free(address):
                    return
        raise AssertionError("it is not free")

    asyncio.run(drop())


def test_a_closed_asyncio_server_is_dropped_without_a_warning() -> None:
    async def use() -> tuple[str, int]:
        server = await opened()
        server.close()
        await server.serve()
        async with aio.Server((LOCALHOST, 0), timeout=TIMEOUT):
            pass
        aio.Server((LOCALHOST, 0))
        return server.address

    with no_collector(), warned():
        assert is_free(asyncio.run(use()))


# ---- at the end of the interpreter -------------------------------------------------------------

ENDS = {
    "alive": "pass",
    "has served": "server.serve(until=0.01)",
    "is in a cycle": "server.me = server",
    "has an admission that is not in force": "server.admission = ltdic.Admission()",
    "serves in a thread": (
        "threading.Thread(target=server.serve, daemon=True).start(); time.sleep(0.1)"
    ),
    "has an association": (
        "made = []; asks = lambda: made.append(ltdic.connect(*server.address)); "
        "threading.Thread(target=asks, daemon=True).start(); "
        "server.serve(until=lambda: server.counters.accepted == 1)"
    ),
    "is another's": "ltdic.kept = server",
    "outlives its module": "server = ltdic.Server(('127.0.0.1', 0)); threading.kept = server",
    "is closed when threads are joined": (
        "server = ltdic.Server(('127.0.0.1', 0)); threading.Thread(target=server.serve).start(); "
        "threading._register_atexit(server.close); time.sleep(0.1)"
    ),
    "in asyncio": "server = asyncio.run(aio.Server(('127.0.0.1', 0)).__aenter__())",
}


@pytest.mark.slow
@pytest.mark.parametrize("how", ENDS)
def test_an_interpreter_with_an_open_server_exits_cleanly(how: str) -> None:
    text = f"""\
import asyncio, threading, time
import ltdic
from ltdic import aio

server = ltdic.Server(("127.0.0.1", 0), admission=ltdic.Admission(contexts=ltdic.ANY),
                      handler=lambda *_: None, timeout=5)
{ENDS[how]}
"""
    for options in ([], ["-X", "dev"]):  # the second one shows every warning
        done = subprocess.run(
            [sys.executable, "-P", *options, "-c", text],
            capture_output=True,
            text=True,
            timeout=2 * TIMEOUT,
        )
        assert done.returncode == 0, done.stderr
        assert "Exception" not in done.stderr
        assert "Error" not in done.stderr
        assert options or not done.stderr
