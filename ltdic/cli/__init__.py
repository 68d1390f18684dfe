"""The command `ltdic`."""

from __future__ import annotations

import argparse
import errno
import io
import math
import os
import ssl
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NoReturn, TypeVar

from .. import __version__
from .._arguments import check_address
from .._native import codec, service
from .._times import seconds_of
from ..pdu import AssociateReject, UserIdentity
from .demo import run_demo
from .dump import run_dump
from .echo import Request, run_echo
from .listen import Policy, run_listen
from .terminal import EX_CANTCREAT, EX_NOINPUT, EX_USAGE

DEFAULT_PORT = 11112
LONGEST_USER = 60_000
"""Greatest size of a user identity, in bytes: the whole user information has at most 65535 (PS3.8
D.1)."""

UNWRITABLE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF}
"""Errors of writing to standard output: `OSError` with other codes is handled where it occurs."""


class Help(argparse.HelpFormatter):
    """Adds defaults to the help."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        given = action.default
        shown = not isinstance(given, bool) and given not in (None, "", argparse.SUPPRESS)
        return f"{action.help} (default: %(default)s)" if shown else action.help


class Parser(argparse.ArgumentParser):
    """Exits with EX_USAGE after wrong usage, and shows defaults in the help."""

    def __init__(self, **options: Any) -> None:
        super().__init__(formatter_class=Help, **options)

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(EX_USAGE, f"{self.prog}: {message}\n")

    def _print_message(self, message: str, file: Any = None) -> None:
        """Write the help so that an error of standard output is raised: argparse ignores it."""
        if file is sys.stdout:
            file.write(message)
        else:
            super()._print_message(message, file)


T = TypeVar("T")


def argument(rule: str) -> Callable[[Callable[[str], T]], Callable[[str], T]]:
    """Decorate a converter of an argument: its error says that the text is not `rule`."""

    def decorate(convert: Callable[[str], T]) -> Callable[[str], T]:
        def converted(text: str) -> T:
            try:
                return convert(text)
            except ValueError:
                raise argparse.ArgumentTypeError(f"{text!a} is not {rule}") from None

        return converted

    return decorate


@argument("an AE title: 1 to 16 characters of ISO 646 without backslash and controls")
def title(text: str) -> str:
    """Convert an AE title (PS3.5 6.2)."""
    policy = service.Policy()
    policy.add_called(text)
    return text.strip(" ")


@argument("a host alone: its port is an argument of its own")
def host(text: str) -> str:
    check_address(text, 0)
    return text


@argument("a port: 0 to 65535")
def port(text: str) -> int:
    number = int(text)
    if not 0 <= number <= 0xFFFF:
        raise ValueError
    return number


@argument("a port of a peer: 1 to 65535")
def peer_port(text: str) -> int:
    number = int(text)
    if not 1 <= number <= 0xFFFF:
        raise ValueError
    return number


@argument("a time in seconds: more than 0; inf is for ever")
def seconds(text: str) -> float:
    most = seconds_of("seconds", float(text))
    return math.inf if most is None else most


@argument("a number from 0 to 4294967295")
def count(text: str) -> int:
    number = int(text)
    if not 0 <= number <= 0xFFFFFFFF:
        raise ValueError
    return number


@argument("codes R/S/D: result, source and reason, one of the 16 combinations of PS3.8 table 9-21")
def codes(text: str) -> AssociateReject:
    result, source, reason = (int(part) for part in text.split("/"))
    if not codec.is_defined(result, source, reason):
        raise ValueError
    return AssociateReject(result, source, reason)


def user(text: str) -> tuple[str, str | None]:
    """Convert a user identity. Its error does not show it, as it may have a passcode."""
    name, colon, passcode = text.partition(":")
    with suppress(UnicodeEncodeError):
        if name and len(text.encode()) <= LONGEST_USER:
            return name, passcode if colon else None
    rule = f"NAME or NAME:PASSCODE, UTF-8 of at most {LONGEST_USER} bytes"
    raise argparse.ArgumentTypeError(f"it is not {rule}")


def parser() -> Parser:
    whole = Parser(prog="ltdic", description="The DICOM Upper Layer.")
    whole.add_argument("--version", action="version", version=f"ltdic {__version__}")
    commands = whole.add_subparsers(dest="command", required=True, metavar="COMMAND")
    what = "reject an association with each defined code and show what arrives"
    more = (
        "In one process: an acceptor on a free loopback port rejects with each of the 16 codes"
        " that PS3.8 defines, and the C callback of a requestor receives them. Exit code 0 if all"
        " arrive as they were sent, else 1."
    )
    commands.add_parser("demo", help=what, description=more)
    add_echo(commands.add_parser("echo", help="ask a peer for an association and a C-ECHO"))
    add_listen(commands.add_parser("listen", help="accept associations and answer C-ECHO"))
    dump = commands.add_parser("dump", help="show the PDUs of a byte stream, field by field")
    dump.add_argument(
        "source",
        nargs="?",
        default="-",
        metavar="FILE|-|HEX",
        help="a file, standard input, or hexadecimal digits",
    )
    dump.add_argument("--json", action="store_true", help="print one JSON object for each PDU")
    dump.add_argument("--strict", action="store_true", help="refuse everything that PS3.8 forbids")
    for command in commands.choices.values():
        command.set_defaults(error=command.error)
    return whole


def add_echo(echo: argparse.ArgumentParser) -> None:
    echo.description = (
        "Exit code: 0 the echo was answered, 64 wrong usage, 69 unreachable, 75 rejected-transient,"
        " 76 aborted or no DICOM, 77 rejected-permanent."
    )
    echo.add_argument("host", metavar="HOST", help="name or address of the peer, or HOST:PORT")
    echo.add_argument("port", metavar="PORT", type=peer_port, nargs="?", help="port of the peer")
    echo.add_argument("--called", type=title, default="ANY-SCP", help="AE title of the peer")
    echo.add_argument("--calling", type=title, default="LTDIC", help="AE title of this end")
    echo.add_argument(
        "--timeout",
        type=seconds,
        default=30.0,
        metavar="S",
        help="limit of the whole command, in seconds, or inf; attempts share it",
    )
    echo.add_argument(
        "--retry",
        type=count,
        default=0,
        metavar="N",
        help="retries after errors that may be transient",
    )
    echo.add_argument(
        "--user", type=user, metavar="NAME[:PASSCODE]", help="user identity to send", default=None
    )
    add_tls(echo, "the certificate of this end, for a peer that requires one")
    echo.add_argument("--json", action="store_true", help="print the result as one JSON object")


def add_listen(listen: argparse.ArgumentParser) -> None:
    listen.description = (
        "Ctrl-C or SIGTERM ends it after the open associations, a second one without waiting."
    )
    listen.add_argument("--host", type=host, default="", help="address to listen at; empty: all")
    listen.add_argument(
        "--port", type=port, default=DEFAULT_PORT, help="port to listen at; 0: any free port"
    )
    listen.add_argument(
        "--called",
        type=title,
        action="append",
        help="called AE title to accept; may be repeated; without it, any is accepted",
    )
    listen.add_argument(
        "--calling",
        type=title,
        action="append",
        help="calling AE title to accept; may be repeated; without it, any is accepted",
    )
    listen.add_argument(
        "--max-associations",
        type=count,
        default=0,
        metavar="N",
        help="associations at the same time; more are rejected with 2/3/2; 0: no limit",
    )
    listen.add_argument(
        "--reject", type=codes, metavar="R/S/D", help="reject every request, for example with 1/1/7"
    )
    listen.add_argument(
        "--user",
        type=user,
        action="append",
        metavar="NAME[:PASSCODE]",
        help="user identity to accept; may be repeated; without it, identities are not checked",
    )
    add_tls(listen, "the certificate of this end; required with --tls")
    listen.add_argument(
        "--json", action="store_true", help="print one JSON object for each association"
    )


def add_tls(command: argparse.ArgumentParser, certificate: str) -> None:
    command.add_argument("--tls", action="store_true", help="use TLS")
    command.add_argument("--cert", metavar="FILE", help=f"PEM file with {certificate}")
    command.add_argument("--key", metavar="FILE", help="PEM file with its key, if not in --cert")
    command.add_argument(
        "--ca", metavar="FILE", help="PEM file with the authorities to trust, not the system's"
    )


def tls_of(chosen: argparse.Namespace, listens: bool) -> ssl.SSLContext | None:
    """Make the TLS context from the arguments; None without --tls. Raises `OSError` for a file that
    cannot be read or is not PEM."""
    if not chosen.tls:
        if chosen.cert or chosen.key or chosen.ca:
            chosen.error("--cert, --key and --ca go with --tls")
        return None
    if listens and not chosen.cert:
        chosen.error("--tls needs the certificate of this end: --cert FILE")
    if chosen.key and not chosen.cert:
        chosen.error("--key goes with --cert")
    purpose = ssl.Purpose.CLIENT_AUTH if listens else ssl.Purpose.SERVER_AUTH
    with files("--ca", chosen.ca):
        context = ssl.create_default_context(purpose, cafile=chosen.ca)
    if listens and chosen.ca:
        context.verify_mode = ssl.CERT_REQUIRED
    if chosen.cert:
        with files("--cert", chosen.cert, "--key", chosen.key):
            context.load_cert_chain(chosen.cert, chosen.key)
    return context


@contextmanager
def files(*options: str | None) -> Iterator[None]:
    """Add the options and their files to an `OSError` about these files."""
    try:
        yield
    except OSError as e:
        given = zip(options[::2], options[1::2], strict=True)
        named = " ".join(f"{option} {file}" for option, file in given if file)
        if isinstance(e, ssl.SSLError):
            why = f" ({e.reason.replace('_', ' ').lower()})" if e.reason else ""
            raise OSError(f"{named}: not the PEM that is needed{why}") from e
        raise OSError(f"{named}: {e.strerror or e}") from e


def host_and_port(chosen: argparse.Namespace) -> tuple[str, int]:
    """Return host and port, given as HOST PORT or HOST:PORT. In HOST PORT an IPv6 address may have
    brackets; in HOST:PORT it must."""
    error: Callable[[str], NoReturn] = chosen.error
    host, number = chosen.host, chosen.port
    if number is None:
        host, colon, text = host.rpartition(":")
        if not colon or (":" in host and not host.endswith("]")):
            error("PORT is missing: HOST PORT or HOST:PORT")
        try:
            number = peer_port(text)
        except argparse.ArgumentTypeError as e:
            error(str(e))
    elif host.count(":") == 1 or "]:" in host:
        error(f"two ports are given: one in {host!a}, and {number}")
    if not host:
        error("HOST is missing")
    return host, number


def run(chosen: argparse.Namespace) -> int:
    if chosen.command == "demo":
        return run_demo()
    if chosen.command == "dump":
        return run_dump(chosen.source, chosen.json, chosen.strict)
    try:
        tls = tls_of(chosen, chosen.command == "listen")
    except OSError as e:
        print(f"ltdic {chosen.command}: {e}", file=sys.stderr)
        return EX_NOINPUT
    if chosen.command == "echo":
        where = *host_and_port(chosen), chosen.called, chosen.calling
        how = chosen.timeout, chosen.retry, chosen.json
        return run_echo(Request(*where, *how, tls=tls, identity=identity_of(chosen.user)))
    users = dict(chosen.user) if chosen.user else None
    who = chosen.host, chosen.port, chosen.called, chosen.calling
    return run_listen(Policy(*who, chosen.max_associations, chosen.reject, users, tls, chosen.json))


def identity_of(given: tuple[str, str | None] | None) -> UserIdentity | None:
    """Make the user identity to send: user name, or user name and passcode (PS3.7 D.3.3.7)."""
    if given is None:
        return None
    name, passcode = given
    if passcode is None:
        return UserIdentity(1, 0, name.encode())
    return UserIdentity(2, 0, name.encode(), passcode.encode())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line. Return the exit code."""
    if sys.stderr is None:  # closed by the parent process: a socket could get its descriptor
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    if sys.stdout is None:
        print("ltdic: standard output is closed", file=sys.stderr)
        return EX_CANTCREAT
    if isinstance(sys.stdout, io.TextIOWrapper):  # a host name may have bytes that are not text
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        try:
            code = run(parser().parse_args(arguments))
        except SystemExit as e:  # after --help, or wrong usage
            code = e.code if isinstance(e.code, int) else EX_USAGE
        sys.stdout.flush()
    except BrokenPipeError:  # the reader has closed the pipe
        _discard_output()
        code = 0
    except OSError as e:
        if e.errno not in UNWRITABLE:
            raise
        _discard_output()
        print(f"ltdic: standard output: {e.strerror}", file=sys.stderr)
        code = EX_CANTCREAT
    return code


def _discard_output() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
