"""The programs of DCMTK: acceptors, requestors, and their texts for a rejection."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.rejections import Codes
from support.sockets import TIMEOUT, reserved_port
from support.toolchain import clean_environment, marks_of_peer, needs_peer

DCMTK_MARKS = marks_of_peer("echoscu", "DCMTK")
needs_dcmtk = needs_peer("echoscu", "DCMTK")

DCMQRSCP_CONFIG = """\
MaxPDUSize = 16384
MaxAssociations = 1
HostTable BEGIN
friend = (FRIEND, localhost, 104)
HostTable END
VendorTable BEGIN
VendorTable END
AETable BEGIN
CALLED {folder} RW (9, 1024mb) ANY
CLOSED {folder} RW (9, 1024mb) friend
AETable END
"""


@contextmanager
def dcmtk_server(folder: Path, *command: str) -> Iterator[int]:
    """Run a DCMTK acceptor in `folder`, with its port as the last argument; yield the port, on
    which it may not listen yet."""
    (folder / "dcmqrscp.cfg").write_text(DCMQRSCP_CONFIG.format(folder=folder))
    (folder / "CALLED").mkdir()
    (folder / "CALLED" / "lockfile").touch()  # makes CALLED a known title for wlmscpfs
    with reserved_port() as port, (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            [*command, str(port)], cwd=folder, stdout=log, stderr=log, env=clean_environment()
        )
        try:
            yield port
        finally:
            server.kill()
            server.wait(TIMEOUT)


STORESCP = ["storescp", "-dhl"]
DCMRECV = ["dcmrecv", "-dhl"]
WLMSCPFS = ["wlmscpfs", "-dhl"]
DCMQRSCP = ["dcmqrscp", "-c", "dcmqrscp.cfg"]
SERVERS = [STORESCP, DCMRECV, WLMSCPFS, DCMQRSCP]

# PS3.8 table 9-21, in DCMTK's words.
RESULTS = {1: "Rejected Permanent", 2: "Rejected Transient"}
SOURCES = {
    1: "Service User",
    2: "Service Provider (ACSE Related)",
    3: "Service Provider (Presentation Related)",
}
REASONS = {
    (1, 1): "No Reason",
    (1, 2): "App Context Name Not Supported",
    (1, 3): "Calling AE Title Not Recognized",
    (1, 7): "Called AE Title Not Recognized",
    (2, 1): "No Reason",
    (2, 2): "Protocol Version Not Supported",
    (3, 1): "Temporary Congestion",
    (3, 2): "Local Limit Exceeded",
}
REJECTIONS = [(result, *reason) for result in RESULTS for reason in REASONS]


def named(codes: Codes) -> str:
    return "/".join(map(str, codes))


each_rejection = pytest.mark.parametrize("codes", REJECTIONS, ids=named)


def run_scu(program: str, port: int, *options: str | Path) -> tuple[int, str]:
    """Run a DCMTK requestor to its end; return its exit code and its output."""
    result = subprocess.run(
        [program, "-v", "localhost", str(port), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=TIMEOUT,
        env=clean_environment(),
    )
    return result.returncode, result.stdout
