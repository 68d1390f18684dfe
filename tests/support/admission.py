"""The admission in C, by its C functions."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from ltdic import (
    AssociateAccept,
    AssociateRequest,
    ProposedContext,
    UserIdentity,
    UserInformation,
    decode,
    ffi,
    lib,
)
from support.rejections import Codes
from support.uids import IMPLICIT, VERIFICATION

OK, BAD_VALUE, ROOM = lib.LTDIC_OK, lib.LTDIC_ERR_BAD_VALUE, lib.LTDIC_ERR_ROOM
Users = tuple[tuple[bytes, bytes | None], ...]


def bytes_of(data: bytes | None) -> tuple[Any, Any]:
    """Return an `ltdic_bytes`, and the owner of its memory; None gives no data."""
    if data is None:
        return (ffi.NULL, 0), None
    raw = ffi.from_buffer(data or b"\0")
    return (raw, len(data)), raw


@dataclass(frozen=True)
class Policy:
    """The settings of an admission."""

    called: tuple[str, ...] = ()
    calling: tuple[str, ...] = ()
    users: Users = ()
    contexts: tuple[tuple[str, tuple[str, ...]], ...] = ((VERIFICATION, (IMPLICIT,)),)
    together: int = 0
    each: int = 0
    named: dict[str, int] = field(default_factory=dict)
    each_host: int = 0
    beyond: Codes = (0, 0, 0)


class Answer(NamedTuple):
    """The answer to a request: the codes of a refusal, the A-ASSOCIATE-AC, the C structure."""

    codes: Codes
    accept: bytes
    held: Any


class Admission:
    """An `ltdic_admission`."""

    def __init__(self, policy: Policy | None = None) -> None:
        self.admission = ffi.gc(lib.ltdic_admission_new(), lib.ltdic_admission_free)
        self.apply(policy or Policy())

    def apply(self, policy: Policy) -> None:
        for title in policy.called:
            assert self.add("called", title) == OK
        for title in policy.calling:
            assert self.add("calling", title) == OK
        for name, passcode in policy.users:
            assert self.add_user(name, passcode) == OK
        for abstract, transfers in policy.contexts:
            assert self.add("context", abstract) == OK
            assert all(self.add("transfer", uid) == OK for uid in transfers)
        size = ffi.sizeof("ltdic_limits")
        counts = policy.together, policy.each, policy.each_host, policy.beyond
        limits = ffi.new("ltdic_limits *", (size, *counts))
        lib.ltdic_admission_set_limits(self.admission, limits)
        for title, most in policy.named.items():
            assert self.limit(title, most) == OK

    def add(self, what: str, text: str) -> int:
        function = getattr(lib, f"ltdic_admission_add_{what}")
        return int(function(self.admission, text.encode("latin-1")))

    def add_user(self, name: bytes, passcode: bytes | None) -> int:
        who, kept = bytes_of(name)
        code, also_kept = bytes_of(passcode)
        status = int(lib.ltdic_admission_add_identity(self.admission, who, code))
        del kept, also_kept
        return status

    def limit(self, title: str, most: int) -> int:
        text = title.encode("latin-1")
        return int(lib.ltdic_admission_limit_calling(self.admission, text, most))

    def try_to_judge(self, rq: bytes, room: int, host: bytes = b"") -> tuple[int, Answer]:
        held = ffi.new("ltdic_answer *")
        data = ffi.new("uint8_t[]", room)
        accept = ffi.new("ltdic_buffer *", (data, room, 0))
        with ffi.from_buffer(rq) as raw:
            status = lib.ltdic_admission_judge(
                self.admission, held, accept, (raw, len(rq)), (ffi.from_buffer(host), len(host))
            )
        refusal = held.refusal
        codes = (refusal.result, refusal.source, refusal.reason)
        wire = bytes(ffi.buffer(data, accept.size)) if status == OK else b""
        return int(status), Answer(codes, wire, held)

    def judge(self, rq: bytes, host: bytes = b"") -> Answer:
        status, answer = self.try_to_judge(rq, lib.LTDIC_ACCEPT_ROOM, host)
        assert status == OK
        return answer

    def leave(self, answer: Answer) -> None:
        lib.ltdic_admission_leave(self.admission, answer.held)


def request(**changes: Any) -> AssociateRequest:
    pdu = AssociateRequest(
        "CALLED",
        "CALLING",
        (ProposedContext(1, VERIFICATION, (IMPLICIT,)),),
        user_info=UserInformation(16384, "1.2.3"),
    )
    return replace(pdu, **changes)


def asks_as(*identity: Any) -> AssociateRequest:
    """Return a request with this user identity: type, response requested, primary, secondary."""
    return request(user_info=UserInformation(16384, "1.2.3", user_identity=UserIdentity(*identity)))


def accepted(admission: Admission, rq: bytes) -> AssociateAccept:
    """Return the A-ASSOCIATE-AC that answers a request."""
    answer = admission.judge(rq)
    admission.leave(answer)
    pdu = decode(answer.accept)
    assert isinstance(pdu, AssociateAccept)
    return pdu


USERS: Users = ((b"open", None), (b"user", b"pass"), (b"user", b"other"), (b"empty", b""))
