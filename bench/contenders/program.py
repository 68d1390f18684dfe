"""The common part of the contenders in Python: command line, files, clock.

PROGRAM accept MODE DIR [MAX]
PROGRAM request DIR
"""

from __future__ import annotations

import gc
import struct
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import cycle, islice
from pathlib import Path
from typing import TypeAlias

LOCALHOST = "127.0.0.1"
BACKLOG = 1024
TIMEOUT = 30.0
VERIFICATION = "1.2.840.10008.1.1"
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
IMPLICIT_LITTLE_ENDIAN = "1.2.840.10008.1.2"
EXPLICIT_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
CODES = (1, 1, 7)
"""Result, source, reason of the rejection: called AE title not recognized."""
HEADER = 6
DATA_HEADER = 12
"""Length of the header of a P-DATA-TF with one PDV, and of the header of the PDV."""

Files: TypeAlias = dict[str, bytes]


class Wrong(Exception):
    """An association was not rejected or released as it must be."""


class Unsupported(Wrong):
    """This contender has no such mode."""

    def __init__(self) -> None:
        super().__init__("unsupported")


@dataclass(frozen=True)
class Accepting:
    """The job of an acceptor until `until_input_ends` returns."""

    mode: str
    files: Files
    max_length: int
    directory: str


@dataclass(frozen=True)
class Requesting:
    """One job of a requestor."""

    mode: str
    files: Files
    port: int
    count: int
    at_once: int
    size: int

    @property
    def associations(self) -> int:
        return {"latency": 1, "store": 1, "send": self.at_once}.get(self.mode, self.count)

    @property
    def echoes(self) -> int:
        return self.count if self.mode == "latency" else 1

    @cached_property
    def data_set(self) -> bytes:
        """The data set of `send`. `bytes(count)` would be one page, mapped again and again."""
        return b"\0" * self.count if self.mode == "send" else b""

    def each(self, name: str) -> list[bytes]:
        """`count` files whose names begin with `name`; the list repeats where there are fewer."""
        found = [data for key, data in sorted(self.files.items()) if key.startswith(name)]
        return list(islice(cycle(found), self.count))

    @property
    def max_length(self) -> int:
        return self.size or 131072


def announce(port: int) -> None:
    """Print the port on which the acceptor listens."""
    print(port, flush=True)


def until_input_ends() -> None:
    while sys.stdin.buffer.read(4096):
        pass


def when_input_ends(call: Callable[[], object]) -> None:
    """Call it in a thread of its own when standard input ends."""

    def wait() -> None:
        until_input_ends()
        call()

    threading.Thread(target=wait, daemon=True).start()


def command_of(pdu: bytes) -> bytes:
    """The command of a P-DATA-TF whose only PDV it is."""
    return pdu[DATA_HEADER:]


def check(is_right: bool, what: str) -> None:
    if not is_right:
        raise Wrong(what)


def elements_of(command: bytes) -> dict[int, bytes]:
    """The elements of a command set (PS3.7 6.3), by element number."""
    found, at = {}, 0
    while at + 8 <= len(command):
        _, element, length = struct.unpack_from("<HHI", command, at)
        found[element] = command[at + 8 : at + 8 + length]
        at += 8 + length
    return found


def is_success(command: bytes) -> bool:
    """Is Status (0000,0900) of this response 0?"""
    return elements_of(command).get(0x0900) == b"\0\0"


def store_response(request: bytes) -> bytes:
    """The C-STORE-RSP with status success for this C-STORE-RQ (PS3.7 9.3.1.2)."""
    asked = elements_of(request)
    elements = {
        0x0002: asked[0x0002],
        0x0100: b"\x01\x80",
        0x0120: asked[0x0110],
        0x0800: b"\x01\x01",
        0x0900: b"\0\0",
        0x1000: asked[0x1000],
    }
    body = b"".join(
        struct.pack("<HHI", 0, element, len(value)) + value for element, value in elements.items()
    )
    return struct.pack("<HHII", 0, 0, 4, len(body)) + body


def in_threads(job: Requesting, associate: Callable[[], None]) -> int:
    """Run all associations in `at_once` threads. Returns the nanoseconds they took."""
    numbers = iter(range(job.associations))
    errors: list[BaseException] = []

    def work() -> None:
        try:
            while not errors and next(numbers, None) is not None:
                associate()
        except Exception as e:
            errors.append(e)

    begun = time.monotonic_ns()
    if job.at_once == 1:
        work()
    else:
        threads = [threading.Thread(target=work) for _ in range(job.at_once)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    taken = time.monotonic_ns() - begun
    if errors:
        raise errors[0]
    return taken


def main(
    accept: Callable[[Accepting], None],
    request: Callable[[Requesting], int],
    arguments: list[str] | None = None,
) -> None:
    """`accept` serves until the input ends; `request` does one job and returns nanoseconds."""
    what, *rest = sys.argv[1:] if arguments is None else arguments
    if what == "accept":
        mode, directory, max_length = (*rest, "131072")[:3]
        accept(Accepting(mode, _files(directory), int(max_length), directory))
        return
    files = _files(rest[0])
    for line in sys.stdin:
        mode, *numbers = line.split()
        try:
            job = Requesting(mode, files, *map(int, numbers))
            _ = job.data_set  # made before the clock starts
            answer = str(request(job))
        except Exception as e:
            answer = f"error {str(e) or type(e).__name__}".replace("\n", " ")
        gc.collect()  # frees data sets that are in reference cycles
        print(answer, flush=True)


def _files(directory: str) -> Files:
    return {path.stem: path.read_bytes() for path in Path(directory).glob("*.bin")}
