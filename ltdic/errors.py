"""Exceptions. Those of the codec are `ValueError`s: the bytes or the value are at fault. Those of
associations are below `Error`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .pdu import Abort, AssociateReject


class Error(Exception):
    """The base of what goes wrong with an association."""

    attempts: int = 1
    """How often `connect` has tried before it gave up."""
    elapsed: float = 0.0
    """Seconds that it took with that."""

    def __str__(self) -> str:
        text = super().__str__()
        if self.attempts == 1:
            return text
        return f"{text} (tried {self.attempts} times in {self.elapsed:.1f} s)"


class LocalError(Error):
    """You called something in the wrong state, or for a context that was not accepted."""


class AssociationRejected(Error):
    """The peer answered A-ASSOCIATE-RJ (PS3.8 9.3.4)."""

    def __init__(self, reject: AssociateReject) -> None:
        super().__init__(str(reject))
        self.reject = reject
        """The PDU, with its codes as they came."""

    @property
    def codes(self) -> tuple[int, int, int]:
        """Result, source, reason: the three bytes, whatever they are."""
        return int(self.reject.result), int(self.reject.source), int(self.reject.reason)

    @property
    def transient(self) -> bool:
        """True if the same request may succeed later."""
        return self.reject.transient

    @property
    def advice(self) -> str:
        """A sentence about what an administrator should do."""
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
        """True if it came from the peer, False if the peer was sent it."""
        self.protocol = protocol
        """The protocol that the peer speaks instead of DICOM, as far as its first bytes tell."""

    def __reduce__(self) -> tuple[object, ...]:
        how = self.abort, self.received, self.args[0], self.protocol
        return AssociationAborted, how, self.__dict__


class ConnectionClosed(Error):
    """The connection is gone, without a release and without an A-ABORT. Where TLS ended it,
    `__cause__` is the alert."""


class ConnectionFailed(ConnectionClosed):
    """There has never been a connection: the host is unknown or unreachable, the port closed, it
    was not up in time, or TLS was refused. `__cause__` is what the system said."""


class AssociationTimeout(Error, TimeoutError):
    """The peer has not answered, or not taken what was sent, in time; it was sent an A-ABORT.
    (No connection in time is `ConnectionFailed`.)"""


class DecodeError(ValueError):
    """Bytes that are no good PDU."""

    def __init__(self, kind: str, offset: int, text: str, abort: Abort) -> None:
        super().__init__(kind, offset, text, abort)
        self.kind = kind
        """The fault in one word, as `bad_length`."""
        self.offset = offset
        """Place of the field at fault, from the first byte of the PDU."""
        self.text = text
        """The fault in words."""
        self.abort = abort
        """The A-ABORT that a peer should get for this."""

    def __str__(self) -> str:
        return f"{self.kind} at byte {self.offset}: {self.text}"


class IncompleteError(DecodeError):
    """Nothing is wrong, but the PDU is not complete."""

    def __init__(self, offset: int, need: int, abort: Abort) -> None:
        super().__init__("need_more", offset, f"a PDU of at least {need} bytes", abort)
        self.args = (offset, need, abort)  # what it takes to make a copy
        self.need = need
        """Bytes, from the first of the PDU, that are required to go on."""
