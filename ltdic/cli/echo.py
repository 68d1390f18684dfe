"""`ltdic echo`: asks a peer for an association and a C-ECHO, and explains a failure."""

from __future__ import annotations

import json
import signal
import socket
import ssl
import sys
import time
from dataclasses import dataclass
from typing import Any, NoReturn

from .._requesting import SHORTEST
from ..errors import (
    AssociationAborted,
    AssociationRejected,
    AssociationTimeout,
    ConnectionClosed,
    ConnectionFailed,
    Error,
    LocalError,
)
from ..pdu import UserIdentity
from ..requestor import SyncAssociation, connect
from ..retry import Attempts, Retry
from .terminal import (
    EX_INTERRUPTED,
    EX_NOPERM,
    EX_OK,
    EX_PROTOCOL,
    EX_TEMPFAIL,
    EX_UNAVAILABLE,
    GREEN,
    RED,
    YELLOW,
    clear_line,
    coloured,
)

CONTEXT_RESULTS = {
    1: "refused by its user",
    2: "refused without a reason",
    3: "it does not support Verification",
    4: "it supports none of the transfer syntaxes",
}


@dataclass
class Request:
    """The arguments of the command."""

    host: str
    port: int
    called: str
    calling: str
    timeout: float
    """Seconds for the whole command."""
    retries: int
    json: bool
    tls: ssl.SSLContext | None = None
    identity: UserIdentity | None = None
    attempts: int = 1

    @property
    def where(self) -> str:
        return f"{self.called} at {self.host} port {self.port}"


def run_echo(request: Request) -> int:
    """Ask for an association and an echo, and print the result. Return the exit code."""
    signal.signal(signal.SIGTERM, _terminated)
    begun = time.monotonic()
    try:
        status, remark = _ask(request, begun + request.timeout)
    except Error as e:
        _clear_progress(request)
        return _report_error(request, e, time.monotonic() - begun)
    except KeyboardInterrupt:
        _clear_progress(request)
        print("interrupted", file=sys.stderr)
        return EX_INTERRUPTED
    _clear_progress(request)
    return _report_status(request, status, remark, time.monotonic() - begun)


def _ask(request: Request, deadline: float) -> tuple[int, str]:
    """Return the status of the C-ECHO, and a remark if the release was not answered."""
    association = _associate(request, deadline)
    association.timeout = _left(deadline)
    try:
        context = association.contexts[0]
        if not context.accepted:
            why = CONTEXT_RESULTS.get(context.result, f"result {context.result}")
            raise LocalError(f"it accepts associations, but no C-ECHO: {why}")
        association.timeout = _left(deadline)
        status = association.echo()
    except BaseException:
        association.abort()
        raise
    try:
        association.timeout = _left(deadline)
        association.release()
    except Error as e:
        return status, f"It did not answer the release: {str(e).rstrip('.')}."
    return status, ""


def _associate(request: Request, deadline: float) -> SyncAssociation:
    """Make the association. Each attempt gets its part of the time that is left, so that a peer
    that does not answer can be asked again."""

    def notify(error: Error, attempt: int, seconds: float) -> None:
        if time.monotonic() + seconds >= deadline:
            raise error
        _progress(request, error, attempt, seconds)

    attempts = Attempts(Retry(attempts=1 + request.retries, notify=notify), time.monotonic())
    while True:
        tries = 2 + request.retries - request.attempts
        try:
            return connect(
                request.host,
                request.port,
                called_ae=request.called,
                calling_ae=request.calling,
                timeout=max(SHORTEST, _left(deadline) / tries),
                tls=request.tls,
                identity=request.identity,
            )
        except Error as error:
            time.sleep(attempts.failed(error, time.monotonic()))


def _left(deadline: float) -> float:
    return max(SHORTEST, deadline - time.monotonic())


def _terminated(number: int, frame: object) -> NoReturn:
    """Exit with the code for this signal; on the way out the association is aborted."""
    raise SystemExit(128 + number)


def _progress(request: Request, error: Error, attempt: int, seconds: float) -> None:
    _clear_progress(request)
    request.attempts = attempt + 1
    what = str(error).partition(" (result")[0].rstrip(".")
    line = f"{what}. Trying again in {seconds:.1f} s, {attempt} of {request.retries} ..."
    end = "" if sys.stderr.isatty() else "\n"
    print(coloured(line, YELLOW, sys.stderr), end=end, file=sys.stderr, flush=True)


def _clear_progress(request: Request) -> None:
    if request.attempts > 1:
        clear_line(sys.stderr)


def _report_status(request: Request, status: int, remark: str, seconds: float) -> int:
    good = status == 0
    if request.json:
        outcome = "echoed" if good else "failed"
        more = {"remark": remark} if remark else {}
        _print_json(request, outcome, seconds, status=status, **more)
    elif good:
        print(f"{coloured('OK', GREEN)}  {request.where} answered in {1000 * seconds:.0f} ms.")
    else:
        print(f"{coloured('FAILED', RED)}  {request.where} answered with status {status:04X}.")
    if remark and not request.json:
        print(remark)
    return EX_OK if good else EX_PROTOCOL


def _report_error(request: Request, error: Error, seconds: float) -> int:
    word, code, advice = _judge(error, request.tls is not None)
    if request.json:
        more: dict[str, Any] = {"text": str(error), "advice": advice}
        if isinstance(error, AssociationRejected):
            more |= dict(zip(("result", "source", "reason"), error.codes, strict=True))
            more["transient"] = error.transient
        _print_json(request, word, seconds, **more)
        return code
    colour = YELLOW if code == EX_TEMPFAIL else RED
    where = "" if isinstance(error, ConnectionFailed) else f"{request.where}: "
    print(f"{coloured(word.upper(), colour)}  {where}{str(error).rstrip('.')}.")
    if advice:
        print(f"What to do: {advice}")
    return code


ADVICE = {
    "HTTP": "That is a web server's port; DICOMweb is another protocol. Ask for the DIMSE port.",
    "SSH": "That is the port for remote shells. Ask for the DICOM port, often 104 or 11112.",
    "TLS": "The peer wants TLS: try --tls.",
    "HL7 (MLLP)": "That is a port for HL7 messages. Ask for the DICOM port.",
}
OTHER_PORT = "Something else than DICOM listens there. Ask for the DICOM port of the peer."
OTHER_NAME = {62, 64}
"""OpenSSL's codes for a certificate of another name, and of another address."""
CLOSED = "Many archives do that to addresses and AE titles that they do not know: have yours added."
TRY_TLS = " A port that requires TLS may do that, too: try --tls."


def _judge(error: Error, has_tls: bool) -> tuple[str, int, str]:
    """Return a word for the error, the exit code, and what an administrator should do."""
    if isinstance(error, AssociationRejected):
        return "rejected", EX_TEMPFAIL if error.transient else EX_NOPERM, error.advice
    if isinstance(error, ConnectionFailed):
        return _judge_unreachable(error.__cause__)
    if isinstance(error, AssociationTimeout):
        port = "a DICOM port" if has_tls else "a DICOM port, without TLS,"
        advice = f"Check that it is {port} and whether the peer is overloaded."
        return "no answer", EX_UNAVAILABLE, advice
    if isinstance(error, AssociationAborted) and error.protocol is not None:
        return "no DICOM", EX_PROTOCOL, ADVICE.get(error.protocol, OTHER_PORT)
    if isinstance(error, ConnectionClosed):
        return "closed", EX_PROTOCOL, CLOSED if has_tls else CLOSED + TRY_TLS
    return "failed", EX_PROTOCOL, "Look into the log of the peer for the reason."


def _judge_unreachable(cause: BaseException | None) -> tuple[str, int, str]:
    if isinstance(cause, ssl.SSLCertVerificationError):
        advice = "Give the authority that signed the peer's certificate: --ca FILE."
        if cause.verify_code in OTHER_NAME:
            advice = "Ask for the peer by a name or number that is in its certificate."
        return "no TLS", EX_PROTOCOL, advice
    if isinstance(cause, ssl.SSLError):
        advice = (
            "Check whether that port has TLS, and whether the peer knows the certificate of --cert."
        )
        return "no TLS", EX_PROTOCOL, advice
    if isinstance(cause, socket.gaierror):
        return "unreachable", EX_UNAVAILABLE, "Check the name of the host."
    advice = "Check host and port, whether the peer is running, and the firewalls between."
    return "unreachable", EX_UNAVAILABLE, advice


def _print_json(request: Request, outcome: str, seconds: float, **more: Any) -> None:
    what = {
        "outcome": outcome,
        "host": request.host,
        "port": request.port,
        "called": request.called,
        "calling": request.calling,
        "seconds": round(seconds, 6),
        "attempts": request.attempts,
    }
    print(json.dumps(what | more))
