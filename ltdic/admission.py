"""Presentation contexts by name, and the admission policy of a server."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import cache
from importlib import import_module
from types import NoneType
from typing import Any, SupportsIndex, TypeAlias

from ._arguments import each, number_of, one, wrong_type
from ._codec import MAX_ASSOCIATE
from ._native import codec, service
from .pdu import Abort, AssociateAccept, AssociateReject, ProposedContext

IMPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2"
EXPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
VERIFICATION = "1.2.840.10008.1.1"
DEFAULT_TRANSFER_SYNTAXES = (IMPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN)

Context: TypeAlias = str | tuple[str, Sequence[str]]
"""An abstract syntax, or one with its transfer syntaxes; each a UID or a keyword of PS3.6."""


@cache
def _keywords() -> dict[str, str]:
    """Return UIDs by keyword, from pydicom's dictionary of PS3.6, which is imported when first
    needed."""
    entries = import_module("pydicom.uid").UID_dictionary
    return {entry[4]: uid for uid, entry in entries.items() if entry[4]}


def uid_of(name: str) -> str:
    """Return a UID that is given as a UID or as its keyword in PS3.6, for example
    `CTImageStorage`. Raises `ValueError` for an unknown keyword."""
    if one("context", name, str, "a UID or a keyword of PS3.6") == "Verification":
        return VERIFICATION
    if name[:1].isdigit():
        return name
    try:
        return _keywords()[name]
    except KeyError:
        raise ValueError(f"{name!a} is no UID and no keyword of PS3.6") from None


DEFAULT_MAX_LENGTH = 0x40000
"""Default maximum length of a received P-DATA-TF, in bytes (PS3.8 D.1)."""
LEAST_MAX_LENGTH = 8
"""Least maximum length, in bytes: a PDV header and two bytes of data."""


def check_max_length(most: int | None, name: str = "max_length") -> None:
    """Raise `ValueError` for a maximum length in which no data fits (PS3.8 D.1)."""
    if most is not None:
        one(name, most, SupportsIndex, "an integer")
    if most is not None and not (most == 0 or LEAST_MAX_LENGTH <= most <= 0xFFFFFFFF):
        raise ValueError(
            f"{name} is {most}: it is {LEAST_MAX_LENGTH} to 4294967295, or 0 for no limit"
            " (PS3.8 D.1)"
        )


def contexts_of(contexts: Iterable[Context]) -> list[tuple[str, tuple[str, ...]]]:
    """Return abstract syntaxes with their transfer syntaxes, all as UIDs."""
    pairs: list[tuple[str, tuple[str, ...]]] = []
    for context in each("contexts", contexts, (str, Sequence), "contexts"):
        if isinstance(context, str):
            pairs.append((uid_of(context), DEFAULT_TRANSFER_SYNTAXES))
        else:
            abstract, names = context
            if isinstance(names, str):
                raise TypeError(f"{abstract}: one text where several transfer syntaxes must be")
            transfer = each("contexts", names, str, "transfer syntaxes")
            pairs.append((uid_of(abstract), tuple(map(uid_of, transfer))))
    return pairs


def propose(contexts: Iterable[Context]) -> tuple[ProposedContext, ...]:
    """Make the contexts that a requestor proposes, with the IDs 1, 3, 5 and so on. Raises
    `ValueError` if they are not 1 to 128."""
    pairs = contexts_of(contexts)
    if not 1 <= len(pairs) <= 128:
        raise ValueError(f"{len(pairs)} contexts, not 1 to 128")
    return tuple(
        ProposedContext(2 * n + 1, abstract, transfer)
        for n, (abstract, transfer) in enumerate(pairs)
    )


class Any_(Enum):
    """The type of `ANY`."""

    ANY = "any"

    def __repr__(self) -> str:
        return "ltdic.ANY"


ANY = Any_.ANY
"""Value for the contexts of an `Admission`: accepts every abstract syntax, with the transfer syntax
that is proposed first."""

LEAST_ASSOCIATE = 100
LISTED_ASSOCIATE = 0x40000
"""Default limit of the PDU length of an A-ASSOCIATE-RQ if the contexts are listed."""

Decision: TypeAlias = AssociateAccept | AssociateReject | Abort | bool | None


@dataclass(frozen=True, kw_only=True)
class Admission:
    """Policy of a server: which associations it accepts. C decides everything but `on_request`.
    Each refusal has the codes of PS3.8 table 9-21 for its reason; of several reasons, the first in
    the order below is given.

    Whatever the policy is, a request of another protocol version is rejected with 1/2/2, and one of
    another application context with 1/1/2.
    """

    called: Collection[str] | None = None
    """Called AE titles that are accepted; others are rejected with 1/1/7. None: any."""
    calling: Collection[str] | None = None
    """Calling AE titles that are accepted; others are rejected with 1/1/3. None: any."""
    identity: Mapping[str, str | None] | None = field(default=None, repr=False)
    """User names and their passcodes (None: the name is enough). Requests without one of these user
    identities are rejected with 1/2/1. None: identities are not checked."""
    least_max_length: int = 0
    """Least maximum length (PS3.8 D.1) that a requestor may have, in bytes, at least 8; others are
    rejected with 1/1/1. A maximum length of 8 makes data sent to the requestor 7 times as large on
    the wire. A requestor without a limit is accepted. 0: any."""
    max_associations: int = 0
    """Greatest number of associations at the same time. 0: no limit."""
    max_per_calling: int | Mapping[Any, int] = 0
    """Greatest number of associations with the same calling AE title: one number for every title,
    or a number for each title named, with `...` for the others. 0: no limit."""
    max_per_host: int = 0
    """Greatest number of associations from the same address. Those accepted while there was no such
    limit do not count. 0: no limit."""
    refuse_with: tuple[int, int, int] = (2, 3, 2)
    """Result, source and reason of the rejection beyond one of these limits."""
    contexts: Sequence[Context] | Any_ = ("Verification",)
    """Contexts that are supported. A context with another abstract syntax is answered with result
    3, one without a supported transfer syntax with 4. Of several transfer syntaxes, the first one
    in this list is chosen. `ANY` supports everything, with the transfer syntax that is proposed
    first."""
    max_length: int = DEFAULT_MAX_LENGTH
    """Maximum length of a received P-DATA-TF (PS3.8 D.1), in bytes, at least 8; 0: no limit."""
    max_associate: int | None = None
    """Greatest PDU length of an A-ASSOCIATE-RQ, in bytes, from 100 to 1,048,576. None: 262,144 if
    contexts are listed, and 1,048,576 for `ANY`."""
    answer_verification: bool = True
    """True: C-ECHO is answered without calling the handler. False: the handler answers it."""
    on_request: Callable[[Any], Decision | Awaitable[Decision]] | None = None
    """Decides in Python, after all of the above. It is called with the association: `request` and
    `peer` say who asks, `accept` is the answer of the admission. It returns None or True to send
    that answer, an `AssociateAccept` of its own, which is checked against the request, an
    `AssociateReject` with any codes, or an `Abort`. It runs in another thread than the server, so
    it may block (a coroutine function of `aio.Server` runs in the event loop). If it raises or
    returns anything else, that is logged, and the request is rejected with 2/1/1."""
    inline: bool = False
    """True: `on_request` runs at once, on the thread that serves, and everybody waits meanwhile:
    for a function that only looks at the association. A coroutine function is called as without."""

    def __post_init__(self) -> None:
        for name, kind in (("called", Collection), ("calling", Collection), ("identity", Mapping)):
            value = getattr(self, name)
            if value is None:
                continue
            list(each(name, one(name, value, kind, "several texts"), str, "texts"))
            if not value:
                raise ValueError(
                    f"{name} is empty, so that nobody would be let in; None lets all in"
                )
        for passcode in (self.identity or {}).values():
            one("identity", passcode, (str, NoneType), "texts")
        one("contexts", self.contexts, (Any_, Collection), "several contexts")
        if self.on_request is not None and not callable(self.on_request):
            raise wrong_type("on_request", self.on_request, "a function")
        one("inline", self.inline, bool, "True or False")
        check_max_length(self.max_length)
        check_max_length(self.least_max_length, "least_max_length")
        most = self.max_associate
        if most is not None:
            one("max_associate", most, SupportsIndex, "an integer")
        if most is not None and not LEAST_ASSOCIATE <= most <= MAX_ASSOCIATE:
            raise ValueError(f"max_associate is {most}, not {LEAST_ASSOCIATE} to {MAX_ASSOCIATE}")

    def policy(self, max_associations: int, has_handler: bool) -> service.Policy:
        """Build the C policy; the stricter of both limits on associations applies. Raises
        `ValueError` for values that PS3.8 does not allow, and for contexts without a handler."""
        self.__post_init__()  # again: a list may have been changed
        policy = service.Policy()
        for title in self.called or ():
            policy.add_called(title)
        for title in self.calling or ():
            policy.add_calling(title)
        for name, passcode in (self.identity or {}).items():
            policy.add_identity(name, passcode)
        self._add_contexts(policy, has_handler)
        self._set_limits(policy, max_associations)
        policy.set_max_length(self.max_length)
        policy.set_least_max_length(self.least_max_length)
        most = MAX_ASSOCIATE if isinstance(self.contexts, Any_) else LISTED_ASSOCIATE
        policy.set_max_associate(most if self.max_associate is None else self.max_associate)
        return policy

    def _add_contexts(self, policy: service.Policy, has_handler: bool) -> None:
        if isinstance(self.contexts, Any_):
            policy.accept_any()
        else:
            for abstract, transfer in contexts_of(self.contexts):
                policy.add_context(abstract, transfer)
        alone = self.answer_verification and not isinstance(self.contexts, Any_)
        if has_handler or (alone and self._only_verification()):
            return
        raise ValueError(
            "contexts besides Verification, and Verification without answer_verification, need a"
            " handler"
        )

    def _only_verification(self) -> bool:
        assert not isinstance(self.contexts, Any_)
        return all(abstract == VERIFICATION for abstract, _ in contexts_of(self.contexts))

    def _set_limits(self, policy: service.Policy, max_associations: int) -> None:
        limits = self.max_associations, max_associations
        limit = self.max_per_calling
        titles: dict[Any, int] = dict(limit) if isinstance(limit, Mapping) else {...: limit}
        calling = titles.pop(..., 0)
        named = list(each("max_per_calling", titles, str, "texts"))
        counts = [
            *(("max_associations", most) for most in limits),
            ("max_per_calling", calling),
            ("max_per_host", self.max_per_host),
            *((f"max_per_calling of {title!a}", titles[title]) for title in named),
        ]
        for name, count in counts:
            number_of(name, count, 0xFFFFFFFF)
        codes = tuple(each("refuse_with", self.refuse_with, int, "integers"))
        if len(codes) != 3 or not codec.is_defined(*codes):
            raise ValueError(
                f"refuse_with is {self.refuse_with}, no combination of PS3.8 table 9-21"
            )
        together = min(filter(None, limits), default=0)
        policy.set_limits(together, calling, self.max_per_host, codes)
        for title, most in titles.items():
            policy.limit_calling(title, most)
