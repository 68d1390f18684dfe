"""A case with small data sets, one after another on one association, between ltdic and the programs
of other implementations as their packages install them.

DCMTK leaves Nagle's algorithm on: the second of two writes waits until the first is acknowledged,
which Linux may delay by 40 ms. ltdic sets TCP_NODELAY: a sender and an acceptor of ltdic show the
cost without such delays. Times of DCMTK's programs are from their start to their end.
"""

from __future__ import annotations

import socket
import subprocess
import time
from contextlib import suppress
from functools import cache, partial
from pathlib import Path

import harness
import pdus
from harness import Contenders, Timed, case
from programs import PATIENCE, Acceptor, Program, Requestor, command, folder_with, here, prepare

IMAGES = 200
LOCALHOST = "127.0.0.1"
SERVER, STORESCP = "ltdic Server", "storescp"
DCMTK = ("dcmsend", "storescu")
PAIRS = {
    "dcmsend to Server": (SERVER, "dcmsend"),
    "storescu to Server": (SERVER, "storescu"),
    "pynetdicom to Server": (SERVER, "pynetdicom"),
    "connect to Server": (SERVER, "ltdic connect"),
    "connect to storescp": (STORESCP, "ltdic connect"),
    "dcmsend to storescp": (STORESCP, "dcmsend"),
    "storescu to storescp": (STORESCP, "storescu"),
}
"""Acceptor and requestor."""


@cache
def _images() -> Path:
    return folder_with(pdus.images(IMAGES))


class Storescp(Program):
    """`storescp` is given a port, and prints nothing when it begins to listen."""

    def __init__(self) -> None:
        with socket.create_server((LOCALHOST, 0)) as free:
            self.port = free.getsockname()[1]
        options = ("--quiet", "--disable-host-lookup", "--ignore", str(self.port))
        super().__init__((*command(STORESCP), *options), harness.CORES[-1])
        end = time.monotonic() + PATIENCE
        while not self._listens():
            if self.process.poll() is not None or time.monotonic() > end:
                raise SystemExit(f"{STORESCP} does not listen")
            time.sleep(0.01)

    def _listens(self) -> bool:
        with suppress(ConnectionRefusedError), socket.create_connection((LOCALHOST, self.port)):
            return True
        return False

    def close(self) -> None:
        self.process.terminate()
        super().close()


def _accepting(who: str) -> Acceptor | Storescp:
    return Acceptor(who, "store") if who == SERVER else Storescp()


def _run(program: str, port: int, count: int) -> int:
    files = [str(_images() / f"file-{n:03}.bin") for n in range(count)]
    begun = time.monotonic_ns()
    done = subprocess.run(
        [*command(program), LOCALHOST, str(port), *files],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        preexec_fn=lambda: prepare(harness.CORES[0]),
    )
    taken = time.monotonic_ns() - begun
    if done.returncode != 0:
        raise harness.Failed(done.stderr or f"it ended with {done.returncode}")
    return taken


def _sending(who: str, port: int) -> Timed:
    if who in DCMTK:
        return partial(_run, who, port)
    return partial(Requestor(who, _images()).ask, "store", port)


@case(f"{IMAGES} small data sets with peers as Debian ships them, each", batch=IMAGES, rounds=3)
def small() -> Contenders:
    acceptors: dict[str, Acceptor | Storescp] = {}
    for what, (acceptor, requestor) in PAIRS.items():
        if here(acceptor, requestor):
            if acceptor not in acceptors:
                acceptors[acceptor] = _accepting(acceptor)
            yield what, _sending(requestor, acceptors[acceptor].port)
