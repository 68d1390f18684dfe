"""`ltdic listen`: an acceptor with an admission policy, to test requestors."""

from __future__ import annotations

import json
import logging
import signal
import ssl
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..admission import Admission
from ..counters import Counters, Record, Stranger, logger
from ..pdu import AssociateReject
from ..server import Server
from .terminal import EX_OK, EX_UNAVAILABLE, GREEN, RED, YELLOW, coloured, shown

CLOSING = 15.0
"""Seconds that open associations have to end after a signal."""


@dataclass(frozen=True)
class Policy:
    """The arguments of the command."""

    host: str
    port: int
    called: list[str] | None
    calling: list[str] | None
    max_associations: int
    reject: AssociateReject | None
    users: dict[str, str | None] | None
    tls: ssl.SSLContext | None
    json: bool

    def admission(self) -> Admission:
        return Admission(
            called=self.called or None,
            calling=self.calling or None,
            identity=self.users,
            max_associations=self.max_associations,
            on_request=None if self.reject is None else self._refuse,
        )

    def _refuse(self, _: Any) -> AssociateReject:
        assert self.reject is not None
        return self.reject


class _Lines(logging.Handler):
    """Prints one line for each association, and for each connection without one."""

    def __init__(self, as_json: bool) -> None:
        super().__init__()
        self._as_json = as_json
        self.stop: Callable[[], None] | None = None
        """Called when standard output cannot be written."""
        self.error: OSError | None = None

    def emit(self, record: logging.LogRecord) -> None:
        subject = getattr(record, "association", None) or getattr(record, "stranger", None)
        if subject is None:
            line = record.getMessage()
            if self._as_json:
                line = json.dumps({"time": _now(), "text": line})
        elif isinstance(subject, Record):
            line = _as_json(subject) if self._as_json else _as_text(subject)
        else:
            line = _stranger_as_json(subject) if self._as_json else _stranger_as_text(subject)
        try:
            print(line, flush=True)
        except OSError as e:
            self.error = e
            if self.stop is not None:
                self.stop()


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")


def _as_json(record: Record) -> str:
    what = {
        "time": _now(),
        "calling": record.calling_ae,
        "called": record.called_ae,
        "host": record.peer[0],
        "port": record.peer[1],
        "outcome": record.outcome,
        "text": record.text,
        "seconds": record.seconds,
        "received": record.received,
        "sent": record.sent,
    }
    if record.codes is not None:
        named = zip(("result", "source", "reason"), record.codes, strict=True)
        what |= dict(named)
    return json.dumps(what)


def _as_text(record: Record) -> str:
    rejected = record.outcome == "rejected"
    transient = rejected and record.codes is not None and record.codes[0] == 2
    colour = GREEN if record.outcome == "released" else YELLOW if transient else RED
    who = f"{shown(record.calling_ae)} at {record.peer[0]} -> {shown(record.called_ae)}"
    text = _rejection(record) if rejected else record.text
    what = f"{time.strftime('%H:%M:%S')}  {who}: {coloured(text, colour)}"
    if rejected:
        return what
    size = f"{record.received} bytes in, {record.sent} out"
    return f"{what} after {record.seconds:.3f} s, {size}"


def _rejection(record: Record) -> str:
    """Return codes and reason of a rejection, without the words that all rejections have."""
    assert record.codes is not None
    reason = record.text.partition(": ")[2].partition(" (result")[0]
    how = "rejected for now" if record.codes[0] == 2 else "rejected"
    return f"{how}, {'/'.join(map(str, record.codes))}: {reason}"


def _stranger_as_json(stranger: Stranger) -> str:
    what = {
        "time": _now(),
        "host": stranger.peer[0],
        "port": stranger.peer[1],
        "outcome": "no association",
        "protocol": stranger.protocol,
        "fault": stranger.fault,
        "offset": stranger.offset,
        "text": stranger.text,
        "seconds": stranger.seconds,
    }
    return json.dumps(what)


def _stranger_as_text(stranger: Stranger) -> str:
    text = coloured(stranger.text, RED)
    return f"{time.strftime('%H:%M:%S')}  {stranger.peer[0]}: {text}"


def run_listen(policy: Policy) -> int:
    """Serve until SIGINT or SIGTERM. Return the exit code."""
    lines = _Lines(policy.json)
    logger.addHandler(lines)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        counters = _serve(policy, lines)
    except OSError as e:
        where = f"{policy.host} port {policy.port}" if policy.host else f"port {policy.port}"
        print(f"ltdic listen: {where}: {e.strerror or e}", file=sys.stderr)
        return EX_UNAVAILABLE
    print(_summary(counters), file=sys.stderr)
    if lines.error is not None:
        raise lines.error
    return EX_OK


def _serve(policy: Policy, lines: _Lines) -> Counters:
    where, admission = (policy.host, policy.port), policy.admission()
    with Server(where, admission=admission, timeout=CLOSING, tls=policy.tls) as server:
        _announce(policy, lines, server)
        server.serve()
    return server.counters


def _announce(policy: Policy, lines: _Lines, server: Server) -> None:
    lines.stop = server.close
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: _close(server))
    print(_what_is_served(policy, server.address[1]), file=sys.stderr)


def _close(server: Server) -> None:
    """Close the server, which waits for open associations; the next signal ends the process."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    server.close()


def _what_is_served(policy: Policy, port: int) -> str:
    where = f"{policy.host} port {port}" if policy.host else f"port {port}"
    if policy.tls is not None:
        where += " with TLS"
    if policy.reject is not None:
        return f"Listening on {where}; the answer to every request: {policy.reject}"
    who = ", ".join(policy.calling) if policy.calling else "everybody"
    name = f" as {', '.join(policy.called)}" if policy.called else ""
    return f"Listening on {where}{name}, for {who}. Ctrl-C ends it."


def _summary(counters: Counters) -> str:
    rejected = ", ".join(
        f"{count} with {result}/{source}/{reason}"
        for (_, result, source, reason), count in sorted(counters.rejected.items())
    )
    strangers = counters.no_request + counters.faults + counters.tls_failures
    return (
        f"{counters.accepted} accepted: {counters.released} released, {counters.aborted} aborted,"
        f" {counters.timed_out} timed out, {counters.lost} lost."
        f" {counters.rejected.total()} rejected{': ' + rejected if rejected else ''}."
        + (f" {strangers} connections without an association." if strangers else "")
    )
