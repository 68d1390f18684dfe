"""How many fast rejections does a requestor report as what they were?

An acceptor in a process of its own reads the request, answers A-ASSOCIATE-RJ and is gone at once:
it closes, or it resets the connection. Each contender is rejected equally often, in turns.

    python bench/rejections.py [--count N] [--json FILE]
"""

from __future__ import annotations

import argparse
import collections
import datetime
import importlib.metadata
import json
import logging
import multiprocessing
import os
import platform
import socket
import struct
import time
from collections.abc import Callable
from typing import Any

from pynetdicom import AE

from ltdic import AssociateReject, encode, l_dicom

CODES = (2, 3, 1)
REJECT = encode(AssociateReject(*CODES))
VERIFICATION = "1.2.840.10008.1.1"
ENDS = ("close", "reset")


def serve(server: socket.socket, end: str) -> None:
    """Reject everyone, for ever."""
    while True:
        connection, _ = server.accept()
        data = b""
        while len(data) < 6 or len(data) < 6 + int.from_bytes(data[2:6], "big"):
            chunk = connection.recv(65536)
            if not chunk:
                break
            data += chunk
        connection.sendall(REJECT)
        if end == "reset":
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()


class Ltdic:
    """A requestor with the L_Dicom API."""

    name = "ltdic"

    def __init__(self) -> None:
        self.got: list[Any] = []
        self.handle = l_dicom.L_DicomCreateNet(None, 0)
        self.request = l_dicom.L_DicomCreateAssociate(True)
        l_dicom.L_DicomDefaultAssociate(self.request)
        slots = {
            "pfnConnect": lambda h, *_: l_dicom.L_DicomSendAssociateRequest(h, self.request),
            "pfnReceiveAssociateReject": lambda h, *codes: self.got.append(codes[:3]),
            "pfnReceiveAbort": lambda *_: self.got.append("aborted"),
            "pfnClose": lambda h, error, _: self.got.append("closed" if error else None),
        }
        l_dicom.L_DicomSetCallback(self.handle, slots)

    def associate(self, host: str, port: int) -> str:
        """Ask for an association; what became of it, in a word."""
        self.got.clear()
        l_dicom.L_DicomConnect(self.handle, None, 0, host, port)
        while not self.got or isinstance(self.got[-1], tuple):
            l_dicom.L_DicomWait(self.handle, 10_000)
        first = self.got[0]
        if isinstance(first, tuple):
            return "rejected" if first == CODES else "rejected, other codes"
        return str(first)


class Pynetdicom:
    """A requestor with pynetdicom."""

    name = "pynetdicom"

    def __init__(self) -> None:
        self.entity = AE()
        self.entity.add_requested_context(VERIFICATION)

    def associate(self, host: str, port: int) -> str:
        """Ask for an association; what became of it, in a word."""
        association = self.entity.associate(host, port)
        if association.is_rejected:
            said = association.acceptor.primitive
            codes = (said.result, said.result_source, said.diagnostic)
            return "rejected" if codes == CODES else "rejected, other codes"
        return "aborted" if association.is_aborted else "something else"


def measure(count: int, end: str) -> dict[str, Any]:
    """Let every contender be rejected `count` times."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as server:
        process = multiprocessing.get_context("fork").Process(
            target=serve, args=(server, end), daemon=True
        )
        process.start()
        contenders: list[Any] = [Ltdic(), Pynetdicom()]
        outcomes: dict[str, collections.Counter[str]] = {
            c.name: collections.Counter() for c in contenders
        }
        seconds = dict.fromkeys(outcomes, 0.0)
        for _ in range(count):
            for contender in contenders:
                ask: Callable[[str, int], str] = contender.associate
                begun = time.perf_counter()
                outcomes[contender.name][ask(*server.getsockname())] += 1
                seconds[contender.name] += time.perf_counter() - begun
        process.terminate()
        process.join()
    return {
        name: {"outcomes": dict(found), "seconds": round(seconds[name], 3)}
        for name, found in outcomes.items()
    }


def main() -> None:
    """Print a table, and write it as JSON where asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1000, help="rejections for each contender")
    parser.add_argument("--json", help="where to write the result")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    result = {
        "what": "fast rejections reported as what they were",
        "date": datetime.date.today().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}",
        "versions": {
            "python": platform.python_version(),
            "ltdic": importlib.metadata.version("ltdic"),
            "pynetdicom": importlib.metadata.version("pynetdicom"),
        },
        "count": options.count,
        "ends": {end: measure(options.count, end) for end in ENDS},
    }
    print(f"{'acceptor':9} {'requestor':11} {'reported as':40} {'ms each':>8}")
    for end, contenders in result["ends"].items():  # type: ignore[attr-defined]
        for name, found in contenders.items():
            outcomes = ", ".join(f"{n} {what}" for what, n in sorted(found["outcomes"].items()))
            each = 1000 * found["seconds"] / options.count
            print(f"{end:9} {name:11} {outcomes:40} {each:8.2f}")
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(result, file, indent=1)
            file.write("\n")


if __name__ == "__main__":
    main()
