"""`ltdic echo`: is there somebody at the other end, and does he let us in?"""

from __future__ import annotations

import json
import signal
import sys
import time
from dataclasses import dataclass
from typing import Any, NoReturn

from ._terminal import (
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
from .errors import AssociationRejected, AssociationTimeout, ConnectionFailed, Error, LocalError
from .retry import Retry
from .sync import connect

CONTEXT_RESULTS = {
    1: "refused by its user",
    2: "refused without a reason",
    3: "it does not support Verification",
    4: "it supports none of the transfer syntaxes",
}


@dataclass
class Request:
    """What was asked on the command line."""

    host: str
    port: int
    called: str
    calling: str
    timeout: float
    retries: int
    json: bool
    attempts: int = 1

    @property
    def where(self) -> str:
        return f"{self.called} at {self.host} port {self.port}"


def run_echo(request: Request) -> int:
    """Ask for an association and an echo; say what came of it. The exit code."""
    signal.signal(signal.SIGTERM, _terminated)
    begun = time.monotonic()
    retry = Retry(attempts=1 + request.retries, notify=lambda *how: _progress(request, *how))
    try:
        status = _ask(request, retry)
    except Error as e:
        _clear_progress(request)
        return _report_error(request, e, time.monotonic() - begun)
    except KeyboardInterrupt:
        _clear_progress(request)
        print("interrupted", file=sys.stderr)
        return EX_INTERRUPTED
    _clear_progress(request)
    return _report_status(request, status, time.monotonic() - begun)


def _ask(request: Request, retry: Retry) -> int:
    """The status of the C-ECHO."""
    with connect(
        request.host,
        request.port,
        called_ae=request.called,
        calling_ae=request.calling,
        timeout=request.timeout,
        retry=retry,
    ) as association:
        context = association.contexts[0]
        if not context.accepted:
            why = CONTEXT_RESULTS.get(context.result, f"result {context.result}")
            raise LocalError(f"it accepts associations, but no C-ECHO: {why}")
        return association.echo()


def _terminated(number: int, frame: object) -> NoReturn:
    """As the system does, but the association is aborted first."""
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


def _report_status(request: Request, status: int, seconds: float) -> int:
    good = status == 0
    if request.json:
        outcome = "echoed" if good else "failed"
        _print_json(request, outcome, seconds, status=status)
    elif good:
        print(f"{coloured('OK', GREEN)}  {request.where} answered in {1000 * seconds:.0f} ms.")
    else:
        print(f"{coloured('FAILED', RED)}  {request.where} answered with status {status:04X}.")
    return EX_OK if good else EX_PROTOCOL


def _report_error(request: Request, error: Error, seconds: float) -> int:
    word, code, advice = _judge(error)
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


def _judge(error: Error) -> tuple[str, int, str]:
    """A word for it, the exit code, and what an administrator should do."""
    if isinstance(error, AssociationRejected):
        return "rejected", EX_TEMPFAIL if error.transient else EX_NOPERM, error.advice
    if isinstance(error, ConnectionFailed):
        advice = "Check host and port, whether the peer is running, and the firewalls between."
        return "unreachable", EX_UNAVAILABLE, advice
    if isinstance(error, AssociationTimeout):
        advice = "Check that it is a DICOM port, without TLS, and whether the peer is overloaded."
        return "no answer", EX_UNAVAILABLE, advice
    return "failed", EX_PROTOCOL, "Look into the log of the peer for the reason."


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
