"""The command `ltdic`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from . import __version__, _lib
from ._demo import run_demo
from ._dump import run_dump
from ._echo import Request, run_echo
from ._listen import run_listen
from ._terminal import EX_USAGE
from .pdu import AssociateReject

DEFAULT_PORT = 11112


class Parser(argparse.ArgumentParser):
    """With the exit code that sysexits.h has for wrong usage."""

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(EX_USAGE, f"{self.prog}: {message}\n")


def title(text: str) -> str:
    """An AE title (PS3.5 6.2)."""
    policy = _lib.Policy()
    policy.add_called(text)
    return text.strip(" ")


def port(text: str) -> int:
    number = int(text)
    if not 0 <= number <= 0xFFFF:
        raise ValueError
    return number


def seconds(text: str) -> float:
    number = float(text)
    if not 0 < number < float("inf"):
        raise ValueError
    return number


def count(text: str) -> int:
    number = int(text)
    if number < 0:
        raise ValueError
    return number


def codes(text: str) -> AssociateReject:
    """Result, source, reason: one of the 16 combinations of PS3.8 table 9-21."""
    result, source, reason = (int(part) for part in text.split("/"))
    if not all(0 <= code <= 255 for code in (result, source, reason)) or not _lib.is_defined(
        result, source, reason
    ):
        raise ValueError
    return AssociateReject(result, source, reason)


codes.__name__ = "codes R/S/D"  # as argparse names it


def parser() -> Parser:
    whole = Parser(prog="ltdic", description="The DICOM Upper Layer.")
    whole.add_argument("--version", action="version", version=f"ltdic {__version__}")
    commands = whole.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser(
        "demo", help="reject an association with each defined code and show what arrives"
    )
    echo = commands.add_parser("echo", help="ask a peer for an association and a C-ECHO")
    echo.add_argument("host", metavar="HOST")
    echo.add_argument("port", metavar="PORT", type=port)
    echo.add_argument("--called", type=title, default="ANY-SCP", help="the peer's AE title")
    echo.add_argument("--calling", type=title, default="LTDIC", help="our AE title")
    echo.add_argument(
        "--timeout", type=seconds, default=30.0, metavar="S", help="seconds for each wait"
    )
    echo.add_argument(
        "--retry", type=count, default=0, metavar="N", help="try again what may succeed later"
    )
    echo.add_argument("--json", action="store_true", help="one object for what came of it")
    listen = commands.add_parser("listen", help="accept associations and answer C-ECHO")
    listen.add_argument("--port", type=port, default=DEFAULT_PORT, help="0: any free one")
    listen.add_argument(
        "--called", type=title, action="append", help="an AE title of ours; may be repeated"
    )
    listen.add_argument(
        "--calling", type=title, action="append", help="one that is let in; may be repeated"
    )
    listen.add_argument(
        "--max-associations", type=count, default=0, metavar="N", help="at once; beyond, 2/3/2"
    )
    listen.add_argument(
        "--reject", type=codes, metavar="R/S/D", help="reject everybody, as with 1/1/7"
    )
    listen.add_argument("--json", action="store_true", help="one object for each association")
    dump = commands.add_parser("dump", help="show the PDUs of a byte stream, field by field")
    dump.add_argument("source", nargs="?", default="-", metavar="FILE|-|HEX")
    dump.add_argument("--json", action="store_true", help="one object for each PDU")
    dump.add_argument("--strict", action="store_true", help="refuse all that PS3.8 forbids")
    return whole


def run(chosen: argparse.Namespace) -> int:
    if chosen.command == "demo":
        return run_demo()
    if chosen.command == "echo":
        where = chosen.host, chosen.port, chosen.called, chosen.calling
        return run_echo(Request(*where, chosen.timeout, chosen.retry, chosen.json))
    if chosen.command == "listen":
        who = chosen.called, chosen.calling, chosen.max_associations
        return run_listen(chosen.port, *who, chosen.reject, chosen.json)
    return run_dump(chosen.source, chosen.json, chosen.strict)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code."""
    chosen = parser().parse_args(arguments)
    try:
        code = run(chosen)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    return code


if __name__ == "__main__":
    sys.exit(main())
