"""Count how requestors report rejections by an acceptor that ends the connection at once.

    python tests/system/fast_rejections.py [--count N] [--tls N] [--pynetdicom N] [--json FILE]

The acceptor runs in a process of its own, and answers each request with A-ASSOCIATE-RJ. Raw
acceptors then close or reset the connection; the `unread` ones do so without having read the
request. The other acceptors are those of ltdic, and only `ltdic.connect` asks them. Over TLS all do
the same behind a handshake. Requestors take turns.
test_rejections.py runs a few; bench/results/rejections.json is the result of many.

Each rejection uses a port. Linux lets a port of loopback be used again one second after its
connection has ended (`net.ipv4.tcp_tw_reuse` is 2 by default). On other systems ports can run out:
that is counted as "no connection".
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import datetime
import importlib.metadata
import json
import logging
import os
import platform
import socket
import ssl
import struct
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import trustme
from pynetdicom import AE

import ltdic
from ltdic import l_dicom

CODES = (1, 1, 7)
REJECT = ltdic.encode(ltdic.AssociateReject(*CODES))
NOBODY = ltdic.Admission(called=["NOBODY"])
VERIFICATION = "1.2.840.10008.1.1"
TIMEOUT = 10.0
LOCALHOST = "127.0.0.1"

# ---- acceptors: they reject every request until the process is killed ----------------------------

Announce = Callable[[int], None]


def serve_raw(announce: Announce, tls: ssl.SSLContext | None, *, resets: bool, reads: bool) -> None:
    with socket.create_server((LOCALHOST, 0), backlog=128) as server:
        announce(server.getsockname()[1])
        while True:
            connection, _ = server.accept()
            # A reset discards what Nagle's algorithm holds back: it would never be sent.
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if tls is not None:
                connection = tls.wrap_socket(connection, server_side=True)
            data = b"" if reads else REJECT
            while len(data) < 6 or len(data) < 6 + int.from_bytes(data[2:6], "big"):
                chunk = connection.recv(65536)
                if not chunk:
                    break
                data += chunk
            connection.sendall(REJECT)
            if resets:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.close()


def serve_server(announce: Announce, tls: ssl.SSLContext | None) -> None:
    with ltdic.Server((LOCALHOST, 0), admission=NOBODY, tls=tls) as server:
        announce(server.address[1])
        server.serve()


def serve_aio(announce: Announce, tls: ssl.SSLContext | None) -> None:
    async def serve() -> None:
        async with ltdic.aio.Server((LOCALHOST, 0), admission=NOBODY, tls=tls) as server:
            announce(server.address[1])
            await server.serve()

    asyncio.run(serve())


def serve_l_dicom(announce: Announce, _: ssl.SSLContext | None) -> None:
    slots = {
        "pfnReceiveAssociateRequest": lambda h, *_: l_dicom.L_DicomSendAssociateReject(h, *CODES),
        "pfnClose": lambda h, *_: l_dicom.L_DicomFreeNet(h),
    }

    def on_accept(listener: Any, *_: Any) -> None:
        accepted = l_dicom.L_DicomCreateNet(None, l_dicom.DICOM_SECURE_NONE)
        l_dicom.L_DicomSetCallback(accepted, slots)
        l_dicom.L_DicomAccept(listener, accepted)

    listener = l_dicom.L_DicomCreateNet(None, l_dicom.DICOM_SECURE_NONE)
    l_dicom.L_DicomSetCallback(listener, {"pfnAccept": on_accept})
    l_dicom.L_DicomListen(listener, LOCALHOST, 0, 128)
    announce(l_dicom.L_DicomGetHostInfo(listener)[1])
    while True:
        l_dicom.L_DicomWait(listener, 1000)


RAW: dict[str, dict[str, bool]] = {
    "close": {"resets": False, "reads": True},
    "reset": {"resets": True, "reads": True},
    "close, unread": {"resets": False, "reads": False},
    "reset, unread": {"resets": True, "reads": False},
}
OURS: dict[str, Callable[[Announce, ssl.SSLContext | None], None]] = {
    "ltdic.Server": serve_server,
    "ltdic.aio.Server": serve_aio,
    "ltdic.l_dicom": serve_l_dicom,
}
PLAIN = [*RAW, *OURS]
VERSIONS = {"TLS 1.2": ssl.TLSVersion.TLSv1_2, "TLS 1.3": ssl.TLSVersion.TLSv1_3}
TLS = [f"{version}: {name}" for version in VERSIONS for name in PLAIN if "l_dicom" not in name]
ACCEPTORS = [*PLAIN, *TLS]


def serve(name: str, certificate: str | None) -> None:
    """Run this acceptor; print its port."""
    version, _, name = name.rpartition(": ")
    tls = None
    if version:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.minimum_version = tls.maximum_version = VERSIONS[version]
        tls.load_cert_chain(str(certificate))

    def announce(port: int) -> None:
        print(port, flush=True)

    if name in OURS:
        OURS[name](announce, tls)
    else:
        serve_raw(announce, tls, **RAW[name])


@contextmanager
def acceptor(name: str) -> Iterator[tuple[int, ssl.SSLContext | None]]:
    """Run this acceptor in a process of its own. Its port, and what its requestors do TLS with."""
    with ExitStack() as stack:
        how, tls = [], None
        if name in TLS:
            authority = trustme.CA()
            certificate = authority.issue_cert(LOCALHOST).private_key_and_cert_chain_pem
            how = ["--certificate", stack.enter_context(certificate.tempfile())]
            tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            authority.configure_trust(tls)
        yield stack.enter_context(process([sys.executable, __file__, "--serve", name, *how])), tls


@contextmanager
def process(command: list[str]) -> Iterator[int]:
    """Run this command. What it prints."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.kill()


# ---- requestors ----------------------------------------------------------------------------------

RIGHT, OTHER_CODES = "rejected", "rejected with other codes"


def named(error: ltdic.Error) -> str:
    if isinstance(error, ltdic.AssociationRejected):
        return RIGHT if error.codes == CODES else OTHER_CODES
    if isinstance(error, ltdic.ConnectionFailed):
        return "no connection"
    return "aborted" if isinstance(error, ltdic.AssociationAborted) else "closed"


class Requestor(ABC):
    tls: ssl.SSLContext | None = None

    @abstractmethod
    def associate(self, port: int) -> str:
        """Request an association. Returns the reported outcome, in words."""

    def close(self) -> None:  # noqa: B027 - most have nothing to close
        """Free what the requestor holds."""


class Connect(Requestor):
    def associate(self, port: int) -> str:
        try:
            ltdic.connect(LOCALHOST, port, timeout=TIMEOUT, tls=self.tls).abort()
        except ltdic.Error as error:
            return named(error)
        return "accepted"


class AioConnect(Requestor):
    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()

    async def ask(self, port: int) -> str:
        try:
            how: Any = {"timeout": TIMEOUT, "tls": self.tls}
            await (await ltdic.aio.connect(LOCALHOST, port, **how)).abort()
        except ltdic.Error as error:
            return named(error)
        return "accepted"

    def associate(self, port: int) -> str:
        return self.loop.run_until_complete(self.ask(port))

    def close(self) -> None:
        self.loop.close()


class LDicom(Requestor):
    def __init__(self) -> None:
        self.got: list[Any] = []
        self.handle = l_dicom.L_DicomCreateNet(None, l_dicom.DICOM_SECURE_NONE)
        self.request = l_dicom.L_DicomCreateAssociate(True)
        l_dicom.L_DicomDefaultAssociate(self.request)
        slots = {
            "pfnConnect": lambda h, *_: l_dicom.L_DicomSendAssociateRequest(h, self.request),
            "pfnReceiveAssociateReject": lambda h, *codes: self.got.append(codes[:3]),
            "pfnReceiveAbort": lambda *_: self.got.append("aborted"),
            "pfnClose": lambda *_: self.got.append("closed"),
        }
        l_dicom.L_DicomSetCallback(self.handle, slots)

    def associate(self, port: int) -> str:
        self.got.clear()
        end = time.monotonic() + TIMEOUT
        l_dicom.L_DicomConnect(self.handle, None, 0, LOCALHOST, port)
        while "closed" not in self.got and time.monotonic() < end:
            l_dicom.L_DicomWait(self.handle, int(1000 * TIMEOUT))
        if not self.got or isinstance(self.got[0], str):
            return str(self.got[0]) if self.got else "nothing"
        return RIGHT if self.got == [CODES, "closed"] else OTHER_CODES

    def close(self) -> None:
        l_dicom.L_DicomFreeAssociate(self.request)
        l_dicom.L_DicomFreeNet(self.handle)


class Pynetdicom(Requestor):
    def __init__(self) -> None:
        self.entity = AE()
        self.entity.add_requested_context(VERIFICATION)

    def associate(self, port: int) -> str:
        association = self.entity.associate(LOCALHOST, port)
        if association.is_rejected:
            said = association.acceptor.primitive
            codes = (said.result, said.result_source, said.diagnostic)
            return RIGHT if codes == CODES else OTHER_CODES
        return "aborted" if association.is_aborted else "closed"


REQUESTORS: dict[str, type[Requestor]] = {
    "ltdic.connect": Connect,
    "ltdic.aio.connect": AioConnect,
    "ltdic.l_dicom": LDicom,
    "pynetdicom": Pynetdicom,
}


# ---- counts --------------------------------------------------------------------------------------


def measure(name: str, counts: dict[str, int]) -> list[dict[str, Any]]:
    """Let this acceptor reject each requestor so many times, in turns. A row for each requestor."""
    said: dict[str, collections.Counter[str]] = {who: collections.Counter() for who in counts}
    seconds = dict.fromkeys(counts, 0.0)
    rounds = max(counts.values())
    with acceptor(name) as (port, tls), ExitStack() as stack:
        requestors = {who: REQUESTORS[who]() for who in counts}
        for requestor in requestors.values():
            requestor.tls = tls
            stack.callback(requestor.close)
        for n in range(rounds):
            for who, count in counts.items():
                if n * count // rounds == (n + 1) * count // rounds:
                    continue
                begun = time.perf_counter()
                said[who][requestors[who].associate(port)] += 1
                seconds[who] += time.perf_counter() - begun
    return [
        {"acceptor": name, "requestor": who, **judged(found), "seconds": round(seconds[who], 3)}
        for who, found in said.items()
    ]


def judged(said: collections.Counter[str]) -> dict[str, Any]:
    """Lost: the end of the connection was reported, or nothing. Misreported: any other outcome."""
    lost = said["closed"] + said["no connection"] + said["nothing"]
    return {
        "count": said.total(),
        "rejected": said[RIGHT],
        "lost": lost,
        "misreported": said.total() - said[RIGHT] - lost,
        "as": {what: count for what, count in sorted(said.items()) if count},
    }


def asked(name: str, counts: dict[str, int]) -> dict[str, int]:
    """The requestors that ask this acceptor, and how often."""
    if name.rpartition(": ")[2] in OURS:
        return {"ltdic.connect": counts["ltdic.connect"]}
    return {who: n for who, n in counts.items() if name in RAW or "connect" in who}


def described(row: dict[str, Any]) -> str:
    said = ", ".join(f"{count} {what}" for what, count in row["as"].items())
    each = 1000 * row["seconds"] / row["count"]
    return f"{row['acceptor']:25} {row['requestor']:18} {said:40} {each:8.2f}"


def main() -> None:
    """Print a table; write it to a file as JSON."""
    parser = argparse.ArgumentParser(description="Count how requestors report fast rejections.")
    parser.add_argument(
        "--count", type=int, default=1000, metavar="N", help="rejections for each requestor"
    )
    parser.add_argument("--tls", type=int, help="rejections over each version of TLS, if not N")
    parser.add_argument("--pynetdicom", type=int, help="rejections for pynetdicom, if not N")
    parser.add_argument("--json", metavar="FILE", help="write the table there")
    parser.add_argument("--serve", choices=ACCEPTORS, help=argparse.SUPPRESS)
    parser.add_argument("--certificate", help=argparse.SUPPRESS)
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    if options.serve:
        serve(options.serve, options.certificate)
    counts = dict.fromkeys(REQUESTORS, options.count)
    if options.pynetdicom is not None:
        counts["pynetdicom"] = options.pynetdicom
    print(f"{'acceptor':25} {'requestor':18} {'reported as':40} {'ms each':>8}", flush=True)
    rows = []
    for name in ACCEPTORS:
        asking = asked(name, counts)
        if name in TLS and options.tls is not None:
            asking = dict.fromkeys(asking, options.tls)
        for row in measure(name, asking):
            print(described(row), flush=True)
            rows.append(row)
    result = {
        "what": "fast rejections reported as what they were",
        "date": datetime.date.today().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}",
        "versions": {
            "python": platform.python_version(),
            "ltdic": importlib.metadata.version("ltdic"),
            "pynetdicom": importlib.metadata.version("pynetdicom"),
        },
        "rows": rows,
    }
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(result, file, indent=1)
            file.write("\n")


if __name__ == "__main__":
    main()
