"""Counters of a server; records of associations and of other connections; their log lines."""

from __future__ import annotations

import logging
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

from ._first_bytes import protocol_of
from ._native import codec, service
from .errors import (
    AssociationAborted,
    AssociationRejected,
    AssociationTimeout,
    ConnectionClosed,
    Error,
)
from .pdu import AssociateReject

logger = logging.getLogger("ltdic")
logger.addHandler(logging.NullHandler())


@dataclass(frozen=True)
class Counters:
    """Counts of a server since it was made.

    Each connection that has ended is counted in one of `accepted`, `rejected`, `unaccepted`,
    `no_request`, `faults` and `tls_failures`. Each association that was accepted is counted in one
    of `open`, `released`, `aborted`, `timed_out` and `lost`.
    """

    connections: int = 0
    """Connections accepted from the system."""
    tls_failures: int = 0
    """Connections whose TLS handshake failed."""
    no_request: int = 0
    """Connections that ended before a complete A-ASSOCIATE-RQ."""
    faults: int = 0
    """Connections that sent something else than an A-ASSOCIATE-RQ."""
    unaccepted: int = 0
    """Requests whose connection ended before an answer, or that were answered with A-ABORT."""
    accepted: int = 0
    """Requests that were answered with A-ASSOCIATE-AC."""
    open: int = 0
    """Associations that are established now."""
    released: int = 0
    aborted: int = 0
    """Associations aborted by the peer, by the user, or because the peer broke PS3.8."""
    timed_out: int = 0
    lost: int = 0
    """Associations whose connection ended without a release or an A-ABORT."""
    rejected: Counter[tuple[str, int, int, int]] = field(default_factory=Counter)
    """Rejections by direction, result, source and reason; a server's direction is `sent`."""


@dataclass
class Record:
    """An association that has ended, and how: for `on_end`, and in the log."""

    called_ae: str
    calling_ae: str
    peer: tuple[str, int]
    """Address and port."""
    served: bool
    """True at an acceptor: the peer is the calling side."""
    outcome: str = ""
    """`rejected`, `released`, `aborted`, `timed out` or `lost`."""
    text: str = ""
    """A description of the outcome."""
    codes: tuple[int, int, int] | None = None
    """Result, source and reason of a rejection; 0, source and reason of an A-ABORT."""
    seconds: float = 0.0
    """Time from the request (at a requestor: from the start of connecting) to the end of the
    connection."""
    received: int = 0
    """Bytes of PDUs received."""
    sent: int = 0
    """Bytes of PDUs sent."""

    def finish(self, end: End, begun: float, received: int, sent: int) -> None:
        """Complete the record and log it."""
        self.outcome, self.text, self.codes = end
        self.seconds = time.monotonic() - begun
        self.received, self.sent = received, sent
        self.log()

    def log(self) -> None:
        """Log one line at INFO; the attribute `association` of the log record is this object. Text
        that the peer sent is escaped."""
        if not logger.isEnabledFor(logging.INFO):
            return
        where = f" at {self.peer[0]} port {self.peer[1]}"
        logger.info(
            "%a%s -> %a%s: %s after %.3f s, %d bytes received, %d sent",
            self.calling_ae,
            where if self.served else "",
            self.called_ae,
            "" if self.served else where,
            self.text,
            self.seconds,
            self.received,
            self.sent,
            extra={"association": self},
        )


OUTCOMES = {
    service.OUTCOME_REJECTED: "rejected",
    service.OUTCOME_RELEASED: "released",
    service.OUTCOME_ABORTED: "aborted",
    service.OUTCOME_TIMED_OUT: "timed out",
    service.OUTCOME_LOST: "lost",
}


def record_of(report: service.Report) -> Record:
    """Make the record of an association that has ended from a report of C."""
    record = Record(report.called, report.calling, (report.host, report.port), True)
    record.outcome, record.text = OUTCOMES[report.outcome], _text_of(report)
    has_codes = report.outcome in (service.OUTCOME_REJECTED, service.OUTCOME_ABORTED)
    record.codes = report.codes if has_codes else None
    record.seconds, record.received, record.sent = report.seconds, report.received, report.sent
    return record


def _text_of(report: service.Report) -> str:
    codes = report.codes
    if report.outcome == service.OUTCOME_REJECTED:
        return describe_reject(AssociateReject(*codes))
    if report.outcome == service.OUTCOME_ABORTED and report.status == codec.ABORTED:
        return f"aborted by the peer (source {codes[1]}, reason {codes[2]})"
    if report.outcome == service.OUTCOME_ABORTED:
        return (
            f"aborted by us: {codec.text_of(report.status)}" if report.status else "aborted by us"
        )
    return "connection lost" if report.outcome == service.OUTCOME_LOST else OUTCOMES[report.outcome]


def describe_reject(reject: AssociateReject) -> str:
    """Return the sentence of a rejection in the form of a part of another sentence."""
    text = str(reject)
    return text[0].lower() + text[1:].rstrip(".")


class End(NamedTuple):
    """How an association ended: fields of its `Record`."""

    outcome: str
    text: str
    codes: tuple[int, int, int] | None = None


RELEASED = End("released", "released")
RELEASED_BY_PEER = End("released", "released by the peer")
ABORTED_BY_US = End("aborted", "aborted by us", (0, 0, 0))


def end_of_error(error: Error) -> End:
    if isinstance(error, AssociationRejected):
        return End("rejected", describe_reject(error.reject), error.codes)
    if isinstance(error, AssociationAborted):
        codes = 0, int(error.abort.source), int(error.abort.reason)
        return End("aborted", str(error), codes)
    if isinstance(error, AssociationTimeout):
        return End("timed out", str(error))
    return End("lost" if isinstance(error, ConnectionClosed) else "aborted", str(error))


# ---- connections without an association --------------------------------------------------------


@dataclass(frozen=True)
class Stranger:
    """A connection to a server that ended without an A-ASSOCIATE-RQ."""

    peer: tuple[str, int]
    """Address and port."""
    protocol: str | None
    """The protocol that it uses instead of DICOM, judged by its first bytes; None: not known."""
    fault: str | None
    """The `kind` of the `DecodeError` of its bytes, or `tls`; None: it sent too few."""
    offset: int | None
    """Offset of the field at fault, from the first byte of the PDU."""
    seconds: float
    """Duration of the connection."""
    text: str
    """A description of all that."""

    def log(self) -> None:
        """Log one line at INFO; the attribute `stranger` of the log record is this object."""
        logger.info("%s port %d: %s", *self.peer, self.text, extra={"stranger": self})


def stranger_of(
    peer: tuple[str, int], status: int, offset: int, first: bytes, seconds: float
) -> Stranger:
    """Make the record of a connection. `status` is a fault of the upper layer, or says how the
    connection ended."""
    protocol = protocol_of(first)
    is_fault = codec.is_fault(status)
    if protocol is not None:
        what = f"no association: it speaks {protocol}, not DICOM"
    elif is_fault:
        what = "no association: what it sent is no A-ASSOCIATE-RQ"
    elif first:
        what = "no association: it sent no whole A-ASSOCIATE-RQ"
    else:
        what = "no association: it sent nothing"
    fault = codec.name_of(status) if is_fault else None
    why = f" ({fault} at byte {offset}: {codec.text_of(status)})" if is_fault else ""
    where = offset if is_fault else None
    return Stranger(peer, protocol, fault, where, seconds, f"{what}{why}, after {seconds:.3f} s")


def tls_stranger(peer: tuple[str, int], first: bytes, why: str, seconds: float) -> Stranger:
    """Make the record of a connection whose TLS handshake failed; `why` is the reason."""
    protocol = protocol_of(first)
    if protocol == "TLS":
        what = "no TLS: the handshake failed"
    elif protocol is not None:
        what = f"no TLS: it speaks {protocol} in plain"
    elif first[:1] == b"\1":
        what = "no TLS: it sent an A-ASSOCIATE-RQ in plain"
    else:
        what = "no TLS: what it sent is no handshake"
    text = f"{what} ({why}), after {seconds:.3f} s"
    return Stranger(peer, protocol, "tls", None, seconds, text)
