"""Presentation contexts by name, and who is let in."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from typing import Any, TypeAlias

from . import _lib
from .pdu import AssociateReject, ProposedContext

IMPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2"
EXPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
VERIFICATION = "1.2.840.10008.1.1"
DEFAULT_TRANSFER_SYNTAXES = (IMPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN)

Context: TypeAlias = str | tuple[str, Sequence[str]]
"""An abstract syntax, or one with its transfer syntaxes; each a UID or a keyword of PS3.6."""


@cache
def _keywords() -> dict[str, str]:
    """UIDs by keyword. pydicom keeps the dictionary of PS3.6; it is imported when first needed."""
    entries = import_module("pydicom.uid").UID_dictionary
    return {entry[4]: uid for uid, entry in entries.items() if entry[4]}


def uid_of(name: str) -> str:
    """A UID, given as itself or by its keyword in PS3.6, as `CTImageStorage`."""
    if name == "Verification":
        return VERIFICATION
    if name[:1].isdigit():
        return name
    try:
        return _keywords()[name]
    except KeyError:
        raise ValueError(f"{name!a} is no UID and no keyword of PS3.6") from None


def contexts_of(contexts: Iterable[Context]) -> list[tuple[str, tuple[str, ...]]]:
    """Abstract syntaxes with their transfer syntaxes, all as UIDs."""
    if isinstance(contexts, str):
        raise TypeError("contexts is one text where several contexts must be")
    pairs: list[tuple[str, tuple[str, ...]]] = []
    for context in contexts:
        if isinstance(context, str):
            pairs.append((uid_of(context), DEFAULT_TRANSFER_SYNTAXES))
        else:
            abstract, transfer = context
            if isinstance(transfer, str):
                raise TypeError(f"{abstract}: one text where several transfer syntaxes must be")
            pairs.append((uid_of(abstract), tuple(uid_of(name) for name in transfer)))
    return pairs


def propose(contexts: Iterable[Context]) -> tuple[ProposedContext, ...]:
    """Contexts as a requestor proposes them, with the IDs 1, 3, 5 and so on."""
    pairs = contexts_of(contexts)
    if not 1 <= len(pairs) <= 128:
        raise ValueError(f"{len(pairs)} contexts, not 1 to 128")
    return tuple(
        ProposedContext(2 * n + 1, abstract, transfer)
        for n, (abstract, transfer) in enumerate(pairs)
    )


Decision: TypeAlias = AssociateReject | None


@dataclass(frozen=True, kw_only=True)
class Admission:
    """Who is let in. All but `on_request` is decided in C, each refusal with the code that PS3.8
    table 9-21 has for it; of several, the first in the order below counts.

    A request of another protocol version is rejected with 1/2/2, one of another application context
    with 1/1/2, whatever stands here.
    """

    called: Collection[str] | None = None
    """Called AE titles that are ours; others are rejected with 1/1/7. None: any."""
    calling: Collection[str] | None = None
    """Calling AE titles that are known; others are rejected with 1/1/3. None: any."""
    identity: Mapping[str, str | None] | None = field(default=None, repr=False)
    """User names and their passcodes (None: the name is enough); requests without one of these
    user identities are rejected with 1/2/1. None: identities are not looked at."""
    max_associations: int = 0
    """How many there may be at once; beyond, 2/3/2. 0: any number."""
    max_per_calling: int | Mapping[str, int] = 0
    """How many with the same calling AE title, for every title or for those named; beyond, 2/3/2.
    0: any number."""
    contexts: Sequence[Context] = ("Verification",)
    """What is supported. A context of another abstract syntax is answered with result 3, one
    without a transfer syntax from here with 4; of several, the first from here is chosen."""
    max_length: int = 0x40000
    """The largest P-DATA-TF that is taken (PS3.8 D.1), in bytes; 0: no limit."""
    on_request: Callable[[Any], Decision | Awaitable[Decision]] | None = None
    """A decision in Python, after all of the above: it is given the association, whose `request`
    and `peer` say who asks, and returns None to admit it or an `AssociateReject`. It runs in a
    thread (a coroutine function of `aio.Server` does not), so that it may take its time. What it
    raises is logged, and the request rejected with 2/1/1."""

    def __post_init__(self) -> None:
        for name in ("called", "calling", "identity"):
            value = getattr(self, name)
            if isinstance(value, str):
                raise TypeError(f"{name} is one text where several must be")
            if value is not None and not value:
                raise ValueError(
                    f"{name} is empty, so that nobody would be let in; None lets all in"
                )

    def policy(self, max_associations: int, has_handler: bool) -> _lib.Policy:
        """It in C, with a limit of the server beside its own. Raises `ValueError` for titles and
        UIDs that PS3.8 does not allow, and for contexts that nobody would handle."""
        contexts = contexts_of(self.contexts)
        if not has_handler and any(abstract != VERIFICATION for abstract, _ in contexts):
            raise ValueError("contexts besides Verification need a handler")
        policy = _lib.Policy()
        for title in self.called or ():
            policy.add_called(title)
        for title in self.calling or ():
            policy.add_calling(title)
        for name, passcode in (self.identity or {}).items():
            policy.add_identity(name, passcode)
        for abstract, transfer in contexts:
            policy.add_context(abstract, transfer)
        limits = [limit for limit in (self.max_associations, max_associations) if limit]
        each = self.max_per_calling
        titles = each if isinstance(each, Mapping) else {}
        policy.set_limits(min(limits, default=0), each if isinstance(each, int) else 0, titles)
        policy.set_max_length(self.max_length)
        return policy
