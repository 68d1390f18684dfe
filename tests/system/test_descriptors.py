"""Servers without descriptors, and with a limit on connections."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any

import pytest

import ltdic
from ltdic import aio
from support.children import SERVERS, answered, callers, child, wait_for_answers
from support.hosts import Serve
from support.pdus import RELEASE_RP, RELEASE_RQ, p_data
from support.peer import Peer
from support.process import few_descriptors
from support.raw import ACCEPT, REQUEST, SHORT
from support.servers import serving, serving_in_asyncio
from support.sockets import LOCALHOST, TIMEOUT, receive_pdu
from support.waiting import eventually

# ---- servers in processes of their own -----------------------------------------------------------

# Each program prints its port, serves until it can read a byte, and prints a summary: the counters,
# and the CPU time of serving in seconds.


by_server = pytest.mark.parametrize("kind", SERVERS)


def echo(address: tuple[str, int]) -> None:
    with ltdic.connect(*address, timeout=TIMEOUT) as association:
        assert association.echo() == 0


# ---- without descriptors -------------------------------------------------------------------------


@pytest.mark.slow
@by_server
def test_a_server_without_descriptors_waits_until_some_are_free(kind: str) -> None:
    descriptors, count, lasts = 40, 80, 1.0
    with child(kind, descriptors, '{"max_connections": 0}') as server, ExitStack() as stack:
        waiting = callers(stack, server.address, count)
        first = wait_for_answers(waiting, 20)
        time.sleep(lasts)
        assert len(answered(waiting)) < descriptors
        for connection in first[:10]:  # each close makes room for one connection
            connection.close()
            waiting.remove(connection)
            time.sleep(0.05)
        wait_for_answers(waiting, 20)
        for connection in waiting:
            connection.close()
        echo(server.address)
        summary, said = server.end()
    assert summary["connections"] == count + 1
    assert summary["released"] == 1
    assert summary["cpu"] < lasts / 2
    (line,) = said.splitlines()
    assert line.startswith("WARNING connections wait, since none can be accepted: ")
    assert "Too many open files" in line


@pytest.mark.slow
@by_server
def test_a_server_logs_each_period_without_descriptors(kind: str) -> None:
    with child(kind, 40, '{"max_connections": 0}') as server:
        for _ in range(2):
            with ExitStack() as stack:
                waiting = callers(stack, server.address, 60)
                wait_for_answers(waiting, 20)
                time.sleep(0.3)  # lets the server try once more
            echo(server.address)
            echo(server.address)
            time.sleep(0.6)  # the server looks twice a second
        _, said = server.end()
    assert len(said.splitlines()) == 2


def test_the_connection_limit_holds_after_a_lack_of_descriptors(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    with serve(max_connections=2) as host, ExitStack() as stack:
        first = stack.enter_context(Peer(host, REQUEST))
        first.take()
        rest = [stack.enter_context(socket.socket()) for _ in range(4)]
        with few_descriptors(0):
            for connection in rest:
                connection.connect(host.server.address)
                connection.sendall(REQUEST)
            eventually(lambda: "connections wait" in caplog.text)
        first.close()  # the server then accepts another one at once
        eventually(lambda: host.counters.connections == 3)
        time.sleep(0.3)
        assert host.counters.connections == 3


def test_a_last_abort_of_the_peer_is_read_without_a_free_descriptor() -> None:
    """An A-ABORT and a reset have arrived when the server sends; no descriptor is free."""
    program = f"""
import asyncio, resource, socket, struct
from ltdic import Abort, Admission, aio, encode
import ltdic

async def main():
    ends = []

    async def handler(association, pdv):
        client.sendall(encode(Abort(2, 1)))
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
        await association.send(b"command!", context=pdv.context_id, is_command=True)

    admission = Admission(contexts=ltdic.ANY)
    options = {{"handler": handler, "on_end": lambda _, record: ends.append(record.text)}}
    async with aio.Server(("127.0.0.1", 0), admission=admission, timeout=10, **options) as server:
        client = socket.create_connection(server.address)
        client.sendall({REQUEST + p_data(b"command!", True)!r})
        await server.serve(until=lambda: ends)
    print(*ends)

asyncio.run(main())
"""
    done = subprocess.run(
        [sys.executable, "-I", "-c", program], capture_output=True, text=True, timeout=6 * TIMEOUT
    )
    assert done.stdout == "aborted by the peer (source 2, reason 1)\n", done.stderr
    assert done.stderr == ""


# ---- a limit on connections ----------------------------------------------------------------------


FACES: dict[str, Callable[..., Any]] = {
    "blocking": partial(serving, timeout=TIMEOUT),
    "asyncio": partial(serving_in_asyncio, timeout=TIMEOUT),
}
by_face = pytest.mark.parametrize("face", FACES)


def release(connection: socket.socket) -> None:
    assert receive_pdu(connection)[:1] == ACCEPT[:1]
    connection.sendall(RELEASE_RQ)
    assert receive_pdu(connection) == RELEASE_RP


@pytest.mark.slow
@by_face
@pytest.mark.parametrize("how", ["released", "closed"])
def test_connections_beyond_the_limit_wait_and_are_served_when_others_end(
    face: str, how: str
) -> None:
    most, count = 3, 10
    with FACES[face](max_connections=most) as server, ExitStack() as stack:
        waiting = callers(stack, server.address, count)
        served = 0
        while waiting:
            expected = min(most, len(waiting))
            found = wait_for_answers(waiting, expected)
            time.sleep(0.02)
            assert len(answered(waiting)) == expected
            assert server.counters.connections == served + expected
            assert server.counters.open == expected
            if how == "released":
                release(found[0])
            found[0].close()
            waiting.remove(found[0])
            served += 1
        echo(server.address)
    counters = server.counters
    assert counters.connections == counters.accepted == count + 1
    assert counters.open == 0
    assert not counters.rejected


@pytest.mark.slow
@by_face
def test_connections_without_a_request_count_for_the_limit_until_their_time_is_up(
    face: str,
) -> None:
    with FACES[face](max_connections=2) as server, ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(socket.create_connection(server.address, TIMEOUT))
        (waiting,) = callers(stack, server.address, 1)
        assert answered([waiting], SHORT) == []
        stack.close()
        echo(server.address)


@by_face
def test_a_limit_below_zero_is_a_value_error(face: str) -> None:
    kind = ltdic.Server if face == "blocking" else aio.Server
    with pytest.raises(ValueError, match="max_connections"):
        kind((LOCALHOST, 0), max_connections=-1)
