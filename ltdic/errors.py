"""Exceptions. Those of the codec are subclasses of `ValueError`: the bytes or the value are wrong.
Those of associations are subclasses of `Error`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .pdu import Abort, AssociateReject


class Error(Exception):
    """The base class of the errors of associations."""

    attempts: int = 1
    """Number of attempts that `connect` made."""
    elapsed: float = 0.0
    """Seconds that these attempts took."""

    def __str__(self) -> str:
        text = super().__str__()
        if self.attempts == 1:
            return text
        return f"{text} (tried {self.attempts} times in {self.elapsed:.1f} s)"


class LocalError(Error):
    """A call that is not possible in this state, or for a context that was not accepted."""


class AssociationRejected(Error):
    """The peer answered A-ASSOCIATE-RJ (PS3.8 9.3.4)."""

    def __init__(self, reject: AssociateReject) -> None:
        super().__init__(str(reject))
        self.reject = reject
        """The PDU, with its codes as received."""

    @property
    def codes(self) -> tuple[int, int, int]:
        """Result, source and reason: the three bytes as received, defined by PS3.8 or not."""
        return int(self.reject.result), int(self.reject.source), int(self.reject.reason)

    @property
    def transient(self) -> bool:
        """True if the same request may succeed later."""
        return self.reject.transient

    @property
    def advice(self) -> str:
        """A sentence that says what an administrator should do."""
        return self.reject.advice

    def __reduce__(self) -> tuple[object, ...]:
        return AssociationRejected, (self.reject,), self.__dict__


class AssociationAborted(Error):
    """The association was aborted: by the peer, or by ltdic because the peer broke PS3.8."""

    def __init__(
        self, abort: Abort, received: bool, text: str, protocol: str | None = None
    ) -> None:
        super().__init__(text)
        self.abort = abort
        """The A-ABORT, with its source and reason."""
        self.received = received
        """True if the peer sent it, False if it was sent to the peer."""
        self.protocol = protocol
        """The protocol that the peer uses instead of DICOM, judged by its first bytes; None if it
        is DICOM or not known."""

    def __reduce__(self) -> tuple[object, ...]:
        how = self.abort, self.received, self.args[0], self.protocol
        return AssociationAborted, how, self.__dict__


class ConnectionClosed(Error):
    """The connection was lost, without a release and without an A-ABORT. If TLS ended it,
    `__cause__` is the alert."""


class ConnectionFailed(ConnectionClosed):
    """No connection could be made: the host is unknown or unreachable, the port is closed, the time
    was up, or the TLS handshake failed. `__cause__` is the error of the system or of `ssl`."""


class AssociationTimeout(Error, TimeoutError):
    """The peer did not answer, or did not read what was sent, in time; it was sent an A-ABORT.
    (A connection that is not up in time is `ConnectionFailed`.)"""


class DecodeError(ValueError):
    """Bytes that are not a valid PDU."""

    def __init__(self, kind: str, offset: int, text: str, abort: Abort) -> None:
        super().__init__(kind, offset, text, abort)
        self.kind = kind
        """The name of the fault, for example `bad_length`."""
        self.offset = offset
        """Offset of the field at fault, from the first byte of the PDU."""
        self.text = text
        """A description of the fault."""
        self.abort = abort
        """The A-ABORT to send to a peer for this fault."""

    def __str__(self) -> str:
        return f"{self.kind} at byte {self.offset}: {self.text}"


class IncompleteError(DecodeError):
    """The PDU is not complete; no byte of it is wrong so far."""

    def __init__(self, offset: int, need: int, abort: Abort) -> None:
        super().__init__("need_more", offset, f"a PDU of at least {need} bytes", abort)
        self.args = (offset, need, abort)  # the arguments, for copy and pickle
        self.need = need
        """Bytes, counted from the first of the PDU, that decoding needs to continue."""
