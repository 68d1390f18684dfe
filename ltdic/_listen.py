"""`ltdic listen`: an acceptor with an admission policy, for whoever wants to try a requestor."""

from __future__ import annotations

import json
import logging
import signal
import sys
import time

from ._terminal import EX_OK, EX_UNAVAILABLE, GREEN, RED, YELLOW, coloured, shown
from .admission import Admission
from .association import Counters, Record, logger
from .pdu import AssociateReject
from .server import Server

CLOSING = 15.0
"""Seconds for those who are still associated when it is to end."""


class _Lines(logging.Handler):
    """One line for each association."""

    def __init__(self, as_json: bool) -> None:
        super().__init__()
        self.addFilter(lambda entry: hasattr(entry, "association"))
        self._as_json = as_json

    def emit(self, record: logging.LogRecord) -> None:
        told: Record = record.__dict__["association"]
        print(_as_json(told) if self._as_json else _as_text(told), flush=True)


def _as_json(record: Record) -> str:
    what = {
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "calling": record.calling,
        "called": record.called,
        "host": record.peer[0],
        "port": record.peer[1],
        "outcome": record.kind,
        "text": record.outcome,
        "seconds": record.seconds,
        "received": record.received,
        "sent": record.sent,
    }
    if record.codes is not None:
        what |= dict(zip(("result", "source", "reason"), record.codes, strict=True))
    return json.dumps(what)


def _as_text(record: Record) -> str:
    transient = record.codes is not None and record.codes[0] == 2
    colour = GREEN if record.kind == "released" else YELLOW if transient else RED
    who = f"{shown(record.calling)} at {record.peer[0]} -> {shown(record.called)}"
    what = f"{time.strftime('%H:%M:%S')}  {who}: {coloured(_outcome(record), colour)}"
    if record.codes is not None:
        return what
    size = f"{record.received} bytes in, {record.sent} out"
    return f"{what} after {record.seconds:.3f} s, {size}"


def _outcome(record: Record) -> str:
    """Of a rejection the codes and the reason, without what is the same in all."""
    if record.codes is None:
        return record.outcome
    reason = record.outcome.partition(": ")[2].partition(" (result")[0]
    how = "rejected for now" if record.codes[0] == 2 else "rejected"
    return f"{how}, {'/'.join(map(str, record.codes))}: {reason}"


def run_listen(
    port: int,
    called: list[str] | None,
    calling: list[str] | None,
    max_associations: int,
    reject: AssociateReject | None,
    as_json: bool,
) -> int:
    """Serve until SIGINT or SIGTERM; the exit code."""
    admission = Admission(
        called=called or None,
        calling=calling or None,
        max_associations=max_associations,
        on_request=None if reject is None else lambda _: reject,
    )
    try:
        server = Server(("", port), admission=admission, timeout=CLOSING)
    except OSError as e:
        print(f"ltdic listen: port {port}: {e.strerror}", file=sys.stderr)
        return EX_UNAVAILABLE
    logger.addHandler(_Lines(as_json))
    logger.setLevel(logging.INFO)
    logger.propagate = False
    with server:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: _close(server))
        print(_what_is_served(server.address[1], called, calling, reject), file=sys.stderr)
        server.serve()
    print(_summary(server.counters), file=sys.stderr)
    return EX_OK


def _close(server: Server) -> None:
    """Once in order; whoever does not want to wait interrupts again."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    server.close()


def _what_is_served(
    port: int,
    called: list[str] | None,
    calling: list[str] | None,
    reject: AssociateReject | None,
) -> str:
    if reject is not None:
        return f"Listening on port {port}; everybody will be told: {reject}"
    who = ", ".join(calling) if calling else "everybody"
    name = f" as {', '.join(called)}" if called else ""
    return f"Listening on port {port}{name}, for {who}. Ctrl-C ends it."


def _summary(counters: Counters) -> str:
    rejected = ", ".join(
        f"{count} with {result}/{source}/{reason}"
        for (_, result, source, reason), count in sorted(counters.rejected.items())
    )
    return (
        f"{counters.accepted} accepted: {counters.released} released, {counters.aborted} aborted,"
        f" {counters.timed_out} timed out, {counters.lost} lost."
        f" {counters.rejected.total()} rejected{': ' + rejected if rejected else ''}."
    )
