"""Servers in processes of their own, with few descriptors."""

from __future__ import annotations

import json
import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from support.raw import REQUEST
from support.sockets import LOCALHOST, TIMEOUT

COMMON = """
import asyncio, json, logging, resource, sys, threading, time
import ltdic
from ltdic import aio

descriptors, options = int(sys.argv[1]), json.loads(sys.argv[2])
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, hard))
logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(levelname)s %(message)s")

def summary(server, begun):
    c = server.counters
    found = {"connections": c.connections, "released": c.released, "no_request": c.no_request}
    print(json.dumps({**found, "cpu": time.process_time() - begun}), flush=True)
"""

SERVERS = {
    "blocking": """
with ltdic.Server(("127.0.0.1", 0), timeout=60, **options) as server:
    threading.Thread(target=lambda: sys.stdin.read(1) and server.close(), daemon=True).start()
    begun = time.process_time()
    print(server.address[1], flush=True)
    server.serve()
    summary(server, begun)
""",
    "asyncio": """
async def main():
    async with aio.Server(("127.0.0.1", 0), timeout=60, **options) as server:
        asyncio.get_running_loop().add_reader(0, server.close)
        begun = time.process_time()
        print(server.address[1], flush=True)
        await server.serve()
        summary(server, begun)

asyncio.run(main())
""",
}


class Child:
    """A server in a process with a limit on descriptors."""

    def __init__(self, kind: str, descriptors: int, options: str) -> None:
        program = COMMON + SERVERS[kind]
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-c", program, str(descriptors), options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.address = LOCALHOST, int(self.process.stdout.readline())

    def end(self) -> tuple[dict[str, Any], str]:
        """End the server; return its summary and its standard error."""
        printed, said = self.process.communicate("x", timeout=3 * TIMEOUT)
        assert self.process.returncode == 0, said
        return json.loads(printed), said


@contextmanager
def child(kind: str, descriptors: int, options: str = "{}") -> Iterator[Child]:
    server = Child(kind, descriptors, options)
    try:
        yield server
    finally:
        server.process.kill()
        server.process.wait(TIMEOUT)


def callers(stack: ExitStack, address: tuple[str, int], count: int) -> list[socket.socket]:
    """Open connections that each send an A-ASSOCIATE-RQ."""
    found = []
    for _ in range(count):
        connection = stack.enter_context(socket.create_connection(address, TIMEOUT))
        connection.sendall(REQUEST)
        found.append(connection)
    return found


def answered(connections: list[socket.socket], wait: float = 0) -> list[socket.socket]:
    return select.select(connections, [], [], wait)[0]


def wait_for_answers(connections: list[socket.socket], count: int) -> list[socket.socket]:
    """Wait until so many connections are answered; return them."""
    end = time.monotonic() + TIMEOUT
    while len(found := answered(connections)) < count:
        assert time.monotonic() < end, f"{len(found)} of {count} are answered"
        time.sleep(0.01)
    return found
