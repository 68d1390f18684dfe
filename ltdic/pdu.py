"""PDUs as values (PS3.8 9.3, PS3.7 annex D)."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from enum import IntEnum
from operator import index
from typing import Any, ClassVar, Union

from ._arguments import copy_of


def is_like_uid(text: str) -> bool:
    """Tell whether a text has only characters of a UID."""
    return text.strip("0123456789.") == ""


def is_like_name(text: str) -> bool:
    """Tell whether a text could be an AE title or an implementation version name."""
    return len(text) <= 16 and text.isascii() and text.isprintable()


_NAMES = ("called_ae", "calling_ae", "implementation_version_name")


def _is_legible(name: str, part: Any) -> bool:
    """Tell whether a field may be shown. A text that is no UID, title or version name may hold a
    secret."""
    if isinstance(part, str):
        return is_like_name(part) if name in _NAMES else is_like_uid(part)
    return not isinstance(part, tuple) or all(_is_legible(name, each) for each in part)


def _legible(self: Any) -> str:
    """Return the `repr` of a value without texts that may belong to a user identity.

    If a type or length byte of a request is damaged, another field may contain a part of the user
    identity.
    """
    parts = {f.name: getattr(self, f.name) for f in fields(self) if f.repr}
    shown = (
        f"{name}={part!r}" if _is_legible(name, part) else f"{name}=<not shown>"
        for name, part in parts.items()
    )
    return f"{type(self).__qualname__}({', '.join(shown)})"


@dataclass(frozen=True, slots=True)
class ProposedContext:
    """A presentation context as the requestor proposes it (item 20)."""

    id: int
    abstract_syntax: str | None
    transfer_syntaxes: tuple[str, ...] = ()

    __repr__ = _legible


@dataclass(frozen=True, slots=True)
class ContextResult:
    """The acceptor's answer to one presentation context (item 21)."""

    id: int
    result: int
    transfer_syntax: str | None = None

    __repr__ = _legible


@dataclass(frozen=True, slots=True)
class AsyncOperations:
    """Asynchronous operations window (item 53); 0 means no limit."""

    invoked: int
    performed: int


@dataclass(frozen=True, slots=True)
class RoleSelection:
    """SCP/SCU role selection for one SOP class (item 54)."""

    sop_class_uid: str
    scu: int
    scp: int

    __repr__ = _legible


@dataclass(frozen=True, slots=True)
class ExtendedNegotiation:
    """SOP class extended negotiation (item 56).

    `info` is not in `repr`: a user identity with a damaged type byte is decoded as one of these.
    """

    sop_class_uid: str
    info: bytes = field(repr=False)

    __repr__ = _legible


@dataclass(frozen=True, slots=True)
class CommonExtendedNegotiation:
    """SOP class common extended negotiation (item 57)."""

    version: int
    sop_class_uid: str
    service_class_uid: str
    related: tuple[str, ...] = ()

    __repr__ = _legible


@dataclass(frozen=True, slots=True)
class UserIdentity:
    """User identity of the requestor (item 58). The fields are not in `repr`: they are secrets."""

    type: int
    response_requested: int
    primary: bytes = field(repr=False)
    secondary: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class UserIdentityResponse:
    """The acceptor's answer to a user identity (item 59). It is not in `repr`."""

    response: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class UnknownItem:
    """An item or sub-item of a type that PS3.8 does not define at its place.

    Its value is not in `repr`: a user identity in the wrong place is one of these.
    """

    type: int
    value: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class UserInformation:
    """The sub-items of item 50 (PS3.7 D.3.3)."""

    max_length: int | None = None
    implementation_class_uid: str | None = None
    implementation_version_name: str | None = None
    async_ops: AsyncOperations | None = None
    roles: tuple[RoleSelection, ...] = ()
    extended: tuple[ExtendedNegotiation, ...] = ()
    common_extended: tuple[CommonExtendedNegotiation, ...] = ()
    user_identity: UserIdentity | None = None
    user_identity_response: UserIdentityResponse | None = None
    unknown: tuple[UnknownItem, ...] = ()

    __repr__ = _legible


def _wire() -> Any:
    """Make the field `wire` of a PDU: the bytes from which it, or the PDU that
    `dataclasses.replace` copied, was decoded with `exact`; else None."""
    return field(default=None, compare=False, repr=False, kw_only=True)


@dataclass(frozen=True, slots=True)
class AssociateRequest:
    """A-ASSOCIATE-RQ (PS3.8 9.3.2)."""

    type: ClassVar[int] = 1
    called_ae: str
    calling_ae: str
    contexts: tuple[ProposedContext, ...] = ()
    application_context: str | None = "1.2.840.10008.3.1.1.1"
    user_info: UserInformation | None = None
    unknown_items: tuple[UnknownItem, ...] = ()
    protocol_version: int = 1
    wire: bytes | None = _wire()

    __repr__ = _legible


@dataclass(frozen=True, slots=True)
class AssociateAccept:
    """A-ASSOCIATE-AC (PS3.8 9.3.3). The titles are reserved fields that repeat those of the
    request."""

    type: ClassVar[int] = 2
    called_ae: str
    calling_ae: str
    contexts: tuple[ContextResult, ...] = ()
    application_context: str | None = "1.2.840.10008.3.1.1.1"
    user_info: UserInformation | None = None
    unknown_items: tuple[UnknownItem, ...] = ()
    protocol_version: int = 1
    wire: bytes | None = _wire()

    __repr__ = _legible


class RejectResult(IntEnum):
    """Result of a rejection: whether the requestor may try again (PS3.8 table 9-21)."""

    PERMANENT = 1
    TRANSIENT = 2


class RejectSource(IntEnum):
    """Source of a rejection (PS3.8 table 9-21)."""

    SERVICE_USER = 1
    SERVICE_PROVIDER_ACSE = 2
    SERVICE_PROVIDER_PRESENTATION = 3


class UserReason(IntEnum):
    """Reasons for `RejectSource.SERVICE_USER`."""

    NO_REASON = 1
    APPLICATION_CONTEXT_NOT_SUPPORTED = 2
    CALLING_AE_NOT_RECOGNISED = 3
    CALLED_AE_NOT_RECOGNISED = 7


class AcseReason(IntEnum):
    """Reasons for `RejectSource.SERVICE_PROVIDER_ACSE`."""

    NO_REASON = 1
    PROTOCOL_VERSION_NOT_SUPPORTED = 2


class PresentationReason(IntEnum):
    """Reasons for `RejectSource.SERVICE_PROVIDER_PRESENTATION`."""

    TEMPORARY_CONGESTION = 1
    LOCAL_LIMIT_EXCEEDED = 2


_RESULTS = {int(r): r for r in RejectResult}
_SOURCES = {int(s): s for s in RejectSource}
_REASONS: dict[tuple[int, int], IntEnum] = {
    (int(source), int(reason)): reason
    for source, reasons in zip(
        RejectSource, (UserReason, AcseReason, PresentationReason), strict=True
    )
    for reason in reasons
}

_RESULT_WORDS = {1: "permanently", 2: "for now"}
_SOURCE_WORDS = {
    1: "the service user",
    2: "the service provider (ACSE)",
    3: "the service provider (presentation)",
}
# The meaning of each reason, and advice.
_REASON_WORDS = {
    (1, 1): (
        "no reason given",
        "Look into the log of the acceptor; it has refused without saying why.",
    ),
    (1, 2): (
        "application context name not supported",
        "Use the DICOM application context 1.2.840.10008.3.1.1.1, or ask what the acceptor is.",
    ),
    (1, 3): (
        "calling AE title not recognised",
        "Add the calling AE title to the acceptor's list of known titles, or correct it here.",
    ),
    (1, 7): (
        "called AE title not recognised",
        "Correct the called AE title: the acceptor goes by another name.",
    ),
    (2, 1): (
        "no reason given",
        "Look into the log of the acceptor; a refused user identity is reported like this, too.",
    ),
    (2, 2): (
        "protocol version not supported",
        "Offer protocol version 1; the acceptor wants nothing else.",
    ),
    (3, 1): ("temporary congestion", "The acceptor is busy: try again later."),
    (3, 2): (
        "local limit exceeded",
        "The acceptor serves as many associations as it may: release idle ones or try again later.",
    ),
}


@dataclass(frozen=True, slots=True, init=False)
class AssociateReject:
    """A-ASSOCIATE-RJ (PS3.8 9.3.4).

    Codes that PS3.8 table 9-21 defines are members of `RejectResult`, of `RejectSource` and of the
    reasons for that source. Other codes are plain integers, with the value that the peer sent.
    """

    type: ClassVar[int] = 3
    result: int
    source: int
    reason: int
    wire: bytes | None = _wire()

    def __init__(self, result: int, source: int, reason: int, *, wire: bytes | None = None) -> None:
        set_field = object.__setattr__
        result, source, reason = index(result), index(source), index(reason)
        set_field(self, "result", _RESULTS.get(result, result))
        set_field(self, "source", _SOURCES.get(source, source))
        set_field(self, "reason", _REASONS.get((source, reason), reason))
        set_field(self, "wire", wire)

    @property
    def transient(self) -> bool:
        """True if the result is rejected-transient: the same request may succeed later."""
        return self.result == RejectResult.TRANSIENT

    @property
    def advice(self) -> str:
        """A sentence that says what an administrator should do."""
        known = _REASON_WORDS.get((self.source, self.reason))
        if known is None:
            return (
                "Ask the vendor of the acceptor what it means by these codes: in PS3.8 they have no"
                " meaning."
            )
        return known[1]

    def __str__(self) -> str:
        result = _RESULT_WORDS.get(self.result, f"with the undefined result {self.result:d}")
        source = _SOURCE_WORDS.get(self.source, f"the undefined source {self.source:d}")
        known = _REASON_WORDS.get((self.source, self.reason))
        reason = known[0] if known else f"undefined reason {self.reason:d}"
        codes = f"result {self.result:d}, source {self.source:d}, reason {self.reason:d}"
        return f"Rejected {result} by {source}: {reason} ({codes})."


@dataclass(frozen=True, slots=True)
class PDV:
    """A presentation data value (PS3.8 9.3.5.1): a fragment of a command or data set.

    In a decoded PDU `data` is a view of the input, not a copy; `offset` is the offset of `data` in
    the PDU.
    """

    context_id: int
    is_command: bool
    is_last: bool
    data: bytes | memoryview
    offset: int = field(default=0, compare=False)

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy the data for `copy` and `pickle`, which cannot take a view."""
        data = copy_of("data", self.data)
        return PDV, (self.context_id, self.is_command, self.is_last, data, self.offset)


@dataclass(frozen=True, slots=True)
class DataTransfer:
    """P-DATA-TF (PS3.8 9.3.5)."""

    type: ClassVar[int] = 4
    pdvs: tuple[PDV, ...]
    wire: bytes | None = _wire()


@dataclass(frozen=True, slots=True)
class Fragment:
    """Some bytes of a PDV, as received: `Decoder.fragments` yields these for a P-DATA-TF.

    `is_command` and `is_last` are the flags of the whole PDV. `begins` is true with the first bytes
    of the PDV, `ends` with the last ones, `ends_pdu` with the last bytes of the P-DATA-TF. `data`
    may be empty.
    """

    context_id: int
    is_command: bool
    is_last: bool
    begins: bool
    ends: bool
    ends_pdu: bool
    data: memoryview


@dataclass(frozen=True, slots=True)
class ReleaseRequest:
    """A-RELEASE-RQ (PS3.8 9.3.6)."""

    type: ClassVar[int] = 5
    wire: bytes | None = _wire()


@dataclass(frozen=True, slots=True)
class ReleaseResponse:
    """A-RELEASE-RP (PS3.8 9.3.7)."""

    type: ClassVar[int] = 6
    wire: bytes | None = _wire()


@dataclass(frozen=True, slots=True)
class Abort:
    """A-ABORT (PS3.8 9.3.8). The reason is significant only with source 2, the service provider."""

    type: ClassVar[int] = 7
    source: int
    reason: int
    wire: bytes | None = _wire()


PDU = Union[  # noqa: UP007 - the name is public and read at run time
    AssociateRequest,
    AssociateAccept,
    AssociateReject,
    DataTransfer,
    ReleaseRequest,
    ReleaseResponse,
    Abort,
]
