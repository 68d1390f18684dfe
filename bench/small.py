"""Small data sets, one after another on one association, between ltdic and programs as they are
installed.

DCMTK leaves Nagle's algorithm on: the second of two writes waits until the first is acknowledged,
which Linux may delay by 40 ms. The sender without delay sets TCP_NODELAY, waits for no
acknowledgement, and so shows what sending them costs.

A case of `python bench`. As a program it compares the ltdic of several interpreters, in turns:

    python bench/small.py [--python PYTHON]... [--only TEXT] [--rounds N]

Times of DCMTK's programs are from their start to their end. The acceptor and the requestor have a
core each; where others use them too, compare the times of the processor, and not those of the
clock.
"""

from __future__ import annotations

import argparse
import socket
import statistics
import subprocess
import sys
import time
from contextlib import suppress
from functools import cache, partial
from pathlib import Path

import harness
import pdus
from harness import Contenders, Measure, Timed, case
from programs import PATIENCE, Acceptor, Program, Requestor, command, folder_with, here, prepare

IMAGES = 200
LOCALHOST = "127.0.0.1"
SERVER, STORESCP, SENDER = "ltdic Server", "storescp", "floor selectors"
DCMTK = ("dcmsend", "storescu")
PAIRS = {
    "dcmsend to Server": (SERVER, "dcmsend"),
    "storescu to Server": (SERVER, "storescu"),
    "pynetdicom to Server": (SERVER, "pynetdicom"),
    "connect to storescp": (STORESCP, "ltdic connect"),
}
"""Acceptor and requestor."""
BESIDE = {f"{who} to storescp": (STORESCP, who) for who in DCMTK}
NO_DELAY = "no-delay sender to Server"
SHORTER = 50
"""So many times more rounds of those that wait for nothing."""


@cache
def _images() -> Path:
    return folder_with(pdus.images(IMAGES))


class Storescp(Program):
    """It takes a port, and does not say when it listens there."""

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


def _accepting(who: str, python: str) -> Acceptor | Storescp:
    return Acceptor(who, "store", python=python) if who == SERVER else Storescp()


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


def _send(requestor: Requestor, port: int, count: int) -> int:
    return requestor.ask("store", port, count)


def _sending(who: str, port: int, python: str) -> Timed:
    if who in DCMTK:
        return partial(_run, who, port)
    return partial(_send, Requestor(who, _images(), python), port)


def _with_peers(python: str, pairs: dict[str, tuple[str, str]]) -> Contenders:
    acceptors: dict[str, Acceptor | Storescp] = {}
    for what, (acceptor, requestor) in pairs.items():
        if here(acceptor, requestor):
            if acceptor not in acceptors:
                acceptors[acceptor] = _accepting(acceptor, python)
            yield what, _sending(requestor, acceptors[acceptor].port, python)


def _processor_time(send: Timed, *programs: Program) -> Timed:
    """What all threads of these have had, by the clocks that clock_getcpuclockid(3) names."""
    clocks = [(~program.process.pid << 3) | 2 for program in programs]

    def timed(count: int) -> int:
        before = sum(map(time.clock_gettime_ns, clocks))
        send(count)
        return sum(map(time.clock_gettime_ns, clocks)) - before

    return timed


def _without_delay(python: str) -> Contenders:
    server, sender = Acceptor(SERVER, "store", python=python), Requestor(SENDER, _images())
    send = partial(_send, sender, server.port)
    yield NO_DELAY, send
    yield f"{NO_DELAY}, CPU of Server", _processor_time(send, server)
    yield f"{NO_DELAY}, CPU of both", _processor_time(send, server, sender)


@case(f"{IMAGES} small data sets with peers as Debian ships them, each", batch=IMAGES, rounds=3)
def small() -> Contenders:
    yield from _with_peers(sys.executable, PAIRS | BESIDE)
    yield from _without_delay(sys.executable)


# ---- several interpreters --------------------------------------------------------------------


def _goes(pythons: list[str]) -> dict[str, list[Timed]]:
    """For each figure how it is measured with each; with one where ltdic has no part in it."""
    goes: dict[str, list[Timed]] = {}
    for python in pythons:
        for what, timed in (*_with_peers(python, PAIRS), *_without_delay(python)):
            goes.setdefault(what, []).append(timed)
    return goes | {what: [timed] for what, timed in _with_peers(sys.executable, BESIDE)}


def _in_turns(each: list[Timed], rounds: int) -> list[list[float]]:
    """The nanoseconds for each data set, for each of them round by round."""
    seen: list[list[float]] = [[] for _ in each]
    pairs = list(zip(each, seen, strict=True))
    for _ in range(rounds):
        for timed, found in pairs:
            found.append(timed(IMAGES) / IMAGES)
        pairs.reverse()
    return seen


def _cells(seen: list[list[float]]) -> list[str]:
    """Medians, and that of the ratios of all others to the first."""
    first, *others = seen
    cells = [harness.amount(Measure(statistics.median(one), min(one), max(one))) for one in seen]
    for other in others:
        ratios = [b / a for a, b in zip(first, other, strict=True)]
        cells.append(f"{statistics.median(ratios):.3f} x")
    return cells


def _compare(pythons: list[str], only: str, rounds: int) -> None:
    goes = _goes(pythons)
    width = max(map(len, goes))
    for what, each in goes.items():
        if only in what:
            seen = _in_turns(each, rounds * (SHORTER if what.startswith(NO_DELAY) else 1))
            print(f"{what:{width}}", *(f"{cell:>10}" for cell in _cells(seen)), flush=True)
    for who, lacks in harness.ABSENT.items():
        print(f"{who} is not here: {lacks}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Times for each small data set, of each interpreter and as ratios to the first."
    )
    parser.add_argument("--python", action="append", help="an interpreter that has ltdic")
    parser.add_argument("--only", default="", help="figures with this in their name")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    harness.pin(0, harness.CORES[0])
    try:
        _compare(options.python or [sys.executable], options.only, options.rounds)
    except harness.Failed as e:
        sys.exit(str(e))
    finally:
        harness.clean_up()


if __name__ == "__main__":
    main()
