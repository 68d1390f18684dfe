"""The command `ltdic`."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from . import __version__
from .l_dicom import (  # type: ignore[attr-defined]
    DICOM_SECURE_NONE,
    DICOM_SUCCESS,
    L_DicomAccept,
    L_DicomConnect,
    L_DicomCreateAssociate,
    L_DicomCreateNet,
    L_DicomDefaultAssociate,
    L_DicomErrorText,
    L_DicomFreeAssociate,
    L_DicomFreeNet,
    L_DicomGetHostInfo,
    L_DicomListen,
    L_DicomSendAssociateReject,
    L_DicomSendAssociateRequest,
    L_DicomSetCallback,
    L_DicomShutDown,
    L_DicomStartUp,
    L_DicomWait,
    pEXT_CALLBACK,
)
from .layout import Layout, clause_of, is_secret, lay_out
from .pdu import (
    AcseReason,
    AssociateReject,
    PresentationReason,
    RejectResult,
    UserReason,
)

# The exit codes of sysexits.h; `os` has them on POSIX alone.
EX_USAGE, EX_DATAERR, EX_NOINPUT = 64, 65, 66

# ---- demo ------------------------------------------------------------------------------------

REASONS = (UserReason, AcseReason, PresentationReason)
DEFINED = [
    (int(result), source, int(reason))
    for result in RejectResult
    for source, reasons in enumerate(REASONS, 1)
    for reason in reasons
]


class Demo:
    """One acceptor and one requestor in one process, over TCP on loopback."""

    def __init__(self) -> None:
        self.events: list[tuple[int, ...] | str] = []
        self.codes = (0, 0, 0)
        self.acceptor = L_DicomCreateNet(None, DICOM_SECURE_NONE)
        self.requestor = L_DicomCreateNet(None, DICOM_SECURE_NONE)
        self.accepted = None
        self.request = L_DicomCreateAssociate(True)
        # A real C function pointer where the host allows one, else the function as it is.
        try:
            on_reject = pEXT_CALLBACK("RECEIVEASSOCIATEREJECTCALLBACK")(self.on_reject)
        except MemoryError:
            on_reject = self.on_reject
        check(L_DicomDefaultAssociate(self.request))
        check(L_DicomSetCallback(self.acceptor, {"pfnAccept": self.on_accept}))
        check(L_DicomListen(self.acceptor, "127.0.0.1", 0, 1))
        callbacks = {
            "pfnConnect": self.on_connect,
            "pfnReceive": self.on_receive,
            "pfnReceiveAssociateReject": on_reject,
            "pfnClose": self.on_close,
        }
        check(L_DicomSetCallback(self.requestor, callbacks))

    def on_accept(self, hNet: object, nError: int, _: object) -> None:
        self.accepted = L_DicomCreateNet(None, DICOM_SECURE_NONE)
        slots = {"pfnReceiveAssociateRequest": self.on_request, "pfnClose": self.on_acceptor_close}
        check(L_DicomSetCallback(self.accepted, slots))
        check(L_DicomAccept(hNet, self.accepted))

    def on_request(self, hNet: object, hPDU: object, _: object) -> None:
        check(L_DicomSendAssociateReject(hNet, *self.codes))

    def on_acceptor_close(self, hNet: object, nError: int, _: object) -> None:
        L_DicomFreeNet(hNet)
        self.accepted = None

    def on_connect(self, hNet: object, nError: int, _: object) -> None:
        check(nError)
        check(L_DicomSendAssociateRequest(hNet, self.request))

    def on_receive(self, hNet: object, nError: int, nType: int, *_: object) -> None:
        self.events.append("receive" if (nError, nType) == (0, 3) else f"{nType} {nError}")

    def on_reject(self, hNet: object, nResult: int, nSource: int, nReason: int, _: object) -> None:
        self.events.append((nResult, nSource, nReason))

    def on_close(self, hNet: object, nError: int, _: object) -> None:
        self.events.append("close" if nError == 0 else f"close {nError}")

    def reject(self, codes: tuple[int, int, int]) -> list[tuple[int, ...] | str]:
        """Have one association rejected with these codes; what the requestor's callbacks got."""
        self.events, self.codes = [], codes
        check(L_DicomConnect(self.requestor, None, 0, *L_DicomGetHostInfo(self.acceptor)))
        for _ in range(100):
            if self.accepted is None and self.events and str(self.events[-1]).startswith("close"):
                break
            L_DicomWait(self.requestor, 100)
        return self.events

    def close(self) -> None:
        L_DicomFreeAssociate(self.request)
        L_DicomFreeNet(self.requestor)
        L_DicomFreeNet(self.acceptor)


def check(code: int) -> None:
    if code != DICOM_SUCCESS:
        raise RuntimeError(L_DicomErrorText(code))


def run_demo() -> int:
    """Send each defined rejection, print what arrived; 0 only if all agree."""
    L_DicomStartUp()
    demo = Demo()
    agreed = 0
    print("sent    received  meaning of result/source/reason")
    for codes in DEFINED:
        events = demo.reject(codes)
        received = [event for event in events if isinstance(event, tuple)]
        right = events == ["receive", codes, "close"]
        agreed += right
        got = "/".join(map(str, received[0])) if received else "nothing"
        sent = "/".join(map(str, codes))
        meaning = str(AssociateReject(*codes)).partition(" (result")[0]
        mark = "" if right else f"   WRONG: {events}"
        print(f"{sent}   {got:8}  {meaning}{mark}")
    demo.close()
    L_DicomShutDown()
    print(f"{agreed} of {len(DEFINED)} rejections arrived as they were sent.")
    return 0 if agreed == len(DEFINED) else 1


# ---- dump ------------------------------------------------------------------------------------


def read_input(source: str) -> bytes:
    """The bytes that an argument stands for: standard input, a file, or hexadecimal digits."""
    if source == "-":
        return sys.stdin.buffer.read()
    if not os.path.exists(source):
        with suppress(ValueError):
            return bytes.fromhex(source.removeprefix("0x"))
    return Path(source).read_bytes()


def around(data: bytes, offset: int) -> str:
    """The bytes near an offset, with a mark under it."""
    start = max(0, offset - 8)
    shown = data[start : offset + 9].hex(" ")
    return f"{start:8}  {shown}\n{'':10}{'   ' * (offset - start)}^^"


def print_as_json(data: bytes, at: int, layout: Layout) -> None:
    """The PDU that starts at `at` as one JSON object; all offsets count from the first byte."""
    whole: dict[str, object] = {"offset": at, "pdu": layout.name or None, "length": layout.size}
    whole["fields"] = [
        {"offset": at + field.offset, "name": field.name, "value": field.value}
        for field in layout.fields
    ]
    if layout.fault is not None:
        fault = layout.fault
        whole["fault"] = {
            "offset": at + fault.offset,
            "kind": fault.kind,
            "text": fault.text,
            "clause": clause_of(data[at:], fault.offset),
        }
    print(json.dumps(whole))


def print_as_text(data: bytes, at: int, layout: Layout) -> None:
    """The PDU that starts at `at`, one line for each field."""
    if layout.name:
        print(f"{at:8}  {layout.name}, {layout.size} bytes")
    for field in layout.fields:
        print(f"{at + field.offset:8}    {'  ' * field.depth}{field.name}: {field.value}")
    if layout.fault is not None:
        fault, place = layout.fault, at + layout.fault.offset
        clause = clause_of(data[at:], fault.offset)
        print(f"{place:8}  {fault}, of the PDU at {at} ({clause})")
        secret = is_secret(data[at:], fault.offset)
        print("          a user identity, not shown" if secret else around(data, place))


def run_dump(source: str, as_json: bool, strict: bool) -> int:
    """Print every PDU of a stream.

    EX_DATAERR if it ends in anything but a whole one, EX_NOINPUT if it cannot be read.
    """
    try:
        data, at = read_input(source), 0
    except OSError as e:
        print(f"ltdic dump: {e}", file=sys.stderr)
        return EX_NOINPUT
    while at < len(data):
        layout = lay_out(data, at, strict=strict)
        (print_as_json if as_json else print_as_text)(data, at, layout)
        if layout.fault is not None:
            return EX_DATAERR
        at += layout.size
    return 0


# ---- the command line ------------------------------------------------------------------------


class Parser(argparse.ArgumentParser):
    """With the exit code that sysexits.h has for wrong usage."""

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(EX_USAGE, f"{self.prog}: {message}\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code."""
    parser = Parser(prog="ltdic", description="The DICOM Upper Layer.")
    parser.add_argument("--version", action="version", version=f"ltdic {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser(
        "demo", help="reject an association with each defined code and show what arrives"
    )
    dump = commands.add_parser("dump", help="show the PDUs of a byte stream, field by field")
    dump.add_argument("source", nargs="?", default="-", metavar="FILE|-|HEX")
    dump.add_argument("--json", action="store_true", help="one object for each PDU")
    dump.add_argument("--strict", action="store_true", help="refuse all that PS3.8 forbids")
    chosen = parser.parse_args(arguments)
    if chosen.command == "demo":
        return run_demo()
    try:
        code = run_dump(chosen.source, chosen.json, chosen.strict)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    return code


if __name__ == "__main__":
    sys.exit(main())
