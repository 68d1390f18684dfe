"""The admission: each rule and its code, the limits, and the A-ASSOCIATE-AC, against a model."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import ltdic
from ltdic import (
    AssociateAccept,
    AssociateRequest,
    ContextResult,
    ProposedContext,
    UserIdentity,
    UserIdentityResponse,
    UserInformation,
    decode,
    encode,
    ffi,
    lib,
)
from support.admission import (
    BAD_VALUE,
    OK,
    ROOM,
    USERS,
    Admission,
    Answer,
    Policy,
    accepted,
    asks_as,
    request,
)
from support.rejections import Codes
from support.strategies import contexts, proposed, requests
from support.uids import BIG_ENDIAN, CT, EXPLICIT, IMPLICIT, MR, VERIFICATION

LET_IN = (0, 0, 0)
CALLED, CALLING, IDENTITY, LIMIT = (1, 1, 7), (1, 1, 3), (1, 2, 1), (2, 3, 2)
TOO_SHORT = (1, 1, 1)  # its maximum length


def codes_of(policy: Policy, pdu: AssociateRequest) -> Codes:
    return Admission(policy).judge(encode(pdu)).codes


# ---- the model -------------------------------------------------------------------------------


class Model:
    """The admission in plain Python, written from the comments in ltdic.h."""

    def __init__(self, policy: Policy) -> None:
        self.policy, self.inside = policy, Counter[str]()

    def judge(self, pdu: AssociateRequest) -> Codes:
        p = self.policy
        if p.called and pdu.called_ae not in p.called:
            return CALLED
        if p.calling and pdu.calling_ae not in p.calling:
            return CALLING
        if p.users and not self.knows(pdu):
            return IDENTITY
        most = p.named.get(pdu.calling_ae, p.each)
        if p.together and self.inside.total() >= p.together:
            return LIMIT
        if most and self.inside[pdu.calling_ae] >= most:
            return LIMIT
        self.inside[pdu.calling_ae] += 1
        return LET_IN

    def knows(self, pdu: AssociateRequest) -> bool:
        who = pdu.user_info.user_identity if pdu.user_info else None
        if who is None or who.type not in (1, 2):
            return False
        given = who.secondary if who.type == 2 else None
        return any(
            name == who.primary and code in (None, given) for name, code in self.policy.users
        )

    def leave(self, pdu: AssociateRequest) -> None:
        self.inside[pdu.calling_ae] -= 1

    def answer(self, context: ProposedContext) -> tuple[int, str | None]:
        ours = [uids for uid, uids in self.policy.contexts if uid == context.abstract_syntax]
        if context.id % 2 == 0:
            return 2, None
        if not ours:
            return 3, None
        taken = [uid for uids in ours for uid in uids if uid in context.transfer_syntaxes]
        return (0, taken[0]) if taken else (4, None)

    def contexts(self, pdu: AssociateRequest) -> dict[int, tuple[int, str | None]]:
        return {context.id: self.answer(context) for context in reversed(pdu.contexts)}


def check_accept(model: Model, pdu: AssociateRequest, wire: bytes, *, strict: bool) -> None:
    """Assert that the AC equals the model's, and that strict mode accepts it."""
    assert len(wire) <= lib.LTDIC_ACCEPT_ROOM
    accept = decode(wire, strict=strict)
    assert isinstance(accept, AssociateAccept)
    answers = {
        c.id: (c.result, c.transfer_syntax if c.result == 0 else None) for c in accept.contexts
    }
    assert answers == model.contexts(pdu)
    assert [c.id for c in accept.contexts] == list(dict.fromkeys(c.id for c in pdu.contexts))
    assert wire[10:74] == encode(pdu)[10:74]  # PS3.8 9.3.3
    assert accept.protocol_version == 1
    assert accept.application_context == "1.2.840.10008.3.1.1.1"


# ---- each rule and its code ------------------------------------------------------------------


def test_a_new_admission_accepts_every_request_and_no_context() -> None:
    admission = Admission(Policy(contexts=()))
    answer = admission.judge(encode(request()))
    assert answer.codes == LET_IN
    accept = decode(answer.accept, strict=True)
    assert isinstance(accept, AssociateAccept)
    assert [(c.id, c.result) for c in accept.contexts] == [(1, 3)]
    assert accept.user_info is not None
    assert accept.user_info.max_length == 16384


@pytest.mark.parametrize(
    ("policy", "codes"),
    [
        (Policy(called=("OTHER", "AE")), CALLED),
        (Policy(called=("OTHER", "CALLED")), LET_IN),
        (Policy(called=("CALLE", "CALLED2", "called")), CALLED),
        (Policy(called=(" CALLED ",)), LET_IN),
        (Policy(calling=("OTHER",)), CALLING),
        (Policy(calling=("OTHER", "CALLING")), LET_IN),
        (Policy(users=((b"somebody", None),)), IDENTITY),
        (Policy(together=1, each=1, named={"CALLING": 1}), LET_IN),
    ],
)
def test_a_rule_refuses_with_its_code(policy: Policy, codes: Codes) -> None:
    assert codes_of(policy, request()) == codes


@pytest.mark.parametrize(
    ("identity", "known"),
    [
        ((1, 0, b"open"), True),
        ((2, 0, b"open", b"anything"), True),
        ((2, 0, b"user", b"pass"), True),
        ((2, 0, b"user", b"other"), True),
        ((2, 0, b"user", b"pass "), False),
        ((2, 0, b"user", b""), False),
        ((2, 0, b"user", b"pas"), False),
        ((1, 0, b"user"), False),
        ((2, 0, b"empty", b""), True),
        ((2, 0, b"empty", b"x"), False),
        ((1, 0, b"empty"), False),
        ((1, 0, b"nobody"), False),
        ((1, 0, b""), False),
        ((3, 0, b"open"), False),
        ((4, 0, b"open"), False),
        ((5, 0, b"open"), False),
    ],
)
def test_a_user_is_known_by_name_and_passcode(identity: Any, known: bool) -> None:
    assert codes_of(Policy(users=USERS), asks_as(*identity)) == (LET_IN if known else IDENTITY)


@pytest.mark.parametrize("asked", [0, 1])
def test_an_identity_response_is_sent_when_it_is_requested(asked: int) -> None:
    rq = encode(asks_as(1, asked, b"open"))
    info = accepted(Admission(Policy(users=USERS)), rq).user_info
    assert info is not None
    assert info.user_identity_response == (UserIdentityResponse(b"") if asked else None)
    info = accepted(Admission(), rq).user_info  # an admission without users
    assert info is not None
    assert info.user_identity_response is None


def test_the_first_of_several_reasons_is_reported() -> None:
    wrong = asks_as(1, 0, b"nobody")
    known = replace(wrong, user_info=asks_as(1, 0, b"open").user_info)
    admission = Admission(Policy(("HERE",), ("THERE",), USERS, together=1))
    admission.judge(encode(replace(known, called_ae="HERE", calling_ae="THERE")))
    peeled = [
        (wrong, CALLED),
        (replace(wrong, called_ae="HERE"), CALLING),
        (replace(wrong, called_ae="HERE", calling_ae="THERE"), IDENTITY),
        (replace(known, called_ae="HERE", calling_ae="THERE"), LIMIT),
    ]
    for pdu, codes in peeled:
        assert admission.judge(encode(pdu)).codes == codes


def with_titles(called: bytes = b"CALLED", calling: bytes = b"CALLING") -> bytes:
    """Return a request with these title fields."""
    rq = encode(request())
    return rq[:10] + called.ljust(16) + calling.ljust(16) + rq[42:]


PADDED = [b"CT_1", b"  CT_1", b"CT_1\0", b"CT_1".ljust(16, b"\0"), b" CT_1 \0 \0  \0"]


@pytest.mark.parametrize("field", PADDED)
def test_titles_are_compared_without_spaces_around_them_and_nuls_after_them(field: bytes) -> None:
    assert Admission(Policy(called=("CT_1",))).judge(with_titles(called=field)).codes == LET_IN
    admission = Admission(Policy(calling=("CT_1",), named={"CT_1": 1}))
    assert admission.judge(with_titles(calling=field)).codes == LET_IN
    assert admission.judge(with_titles(calling=b"CT_1")).codes == LIMIT


def test_an_empty_title_is_compared_as_any_other() -> None:
    nothing = [with_titles(calling=field) for field in (b"", bytes(16), b" \0 \0")]
    assert Admission(Policy(calling=("CALLING",))).judge(nothing[0]).codes == CALLING
    admission = Admission(Policy(each=1))
    assert [admission.judge(rq).codes for rq in nothing] == [LET_IN, LIMIT, LIMIT]


@pytest.mark.parametrize(
    "field",
    [b"CT_1\0EVIL", b"CT_1 \0 EVIL", b"CT_1".ljust(15, b"\0") + b"X", b"\0CT_1", b" \0 CT_1"],
)
def test_a_title_with_characters_after_a_nul_differs_from_the_part_before_it(field: bytes) -> None:
    evil = with_titles(calling=field)
    assert Admission(Policy(calling=("CT_1",))).judge(evil).codes == CALLING
    assert Admission(Policy(called=("CT_1",))).judge(with_titles(called=field)).codes == CALLED
    admission = Admission(Policy(each=1, named={"CT_1": 2}))
    assert [admission.judge(evil).codes for _ in range(2)] == [LET_IN, LIMIT]
    places = [admission.judge(with_titles(calling=b"CT_1")).codes for _ in range(3)]
    assert places == [LET_IN, LET_IN, LIMIT]


# ---- the least maximum length ----------------------------------------------------------------


def takes(most: int) -> AssociateRequest:
    """Return a request with this maximum length."""
    return request(user_info=UserInformation(most, "1.2.3"))


def at_least(least: int, policy: Policy | None = None) -> Admission:
    admission = Admission(policy)
    lib.ltdic_admission_set_least_max_length(admission.admission, least)
    return admission


@pytest.mark.parametrize(
    ("least", "most", "codes"),
    [
        (0, 1, LET_IN),
        (4096, 0, LET_IN),
        (4096, 1, TOO_SHORT),
        (4096, 4095, TOO_SHORT),
        (4096, 4096, LET_IN),
        (0xFFFFFFFF, 0xFFFFFFFE, TOO_SHORT),
        (0xFFFFFFFF, 0xFFFFFFFF, LET_IN),
    ],
)
def test_a_maximum_length_below_the_least_is_refused(least: int, most: int, codes: Codes) -> None:
    assert at_least(least).judge(encode(takes(most))).codes == codes


def test_a_request_without_a_maximum_length_has_no_limit() -> None:
    assert at_least(4096).judge(encode(request(user_info=None))).codes == LET_IN


def test_the_first_of_two_maximum_lengths_counts() -> None:
    first, second = (b"\x51\0\0\4" + most.to_bytes(4, "big") for most in (9999, 8))
    rq = encode(takes(9999))
    at, size = rq.index(first), int.from_bytes(rq[2:6], "big")
    inside = int.from_bytes(rq[at - 2 : at], "big")
    both = b"\1\0" + (size + 8).to_bytes(4, "big") + rq[6 : at - 2]
    both += (inside + 8).to_bytes(2, "big") + first + second + rq[at + 8 :]
    assert isinstance(decode(both), AssociateRequest)
    assert at_least(4096).judge(both).codes == LET_IN
    assert at_least(10_000).judge(both).codes == TOO_SHORT


def test_a_maximum_length_is_judged_after_the_user_and_takes_no_place() -> None:
    admission = at_least(4096, Policy(users=USERS, together=1))
    assert admission.judge(encode(takes(8))).codes == IDENTITY
    known = UserInformation(8, "1.2.3", user_identity=UserIdentity(1, 0, b"open"))
    assert admission.judge(encode(request(user_info=known))).codes == TOO_SHORT
    let_in = replace(known, max_length=4096)
    assert admission.judge(encode(request(user_info=let_in))).codes == LET_IN
    assert admission.judge(encode(request(user_info=let_in))).codes == LIMIT
    assert admission.judge(encode(request(user_info=known))).codes == TOO_SHORT


# ---- places ----------------------------------------------------------------------------------


def from_title(title: str) -> bytes:
    return encode(request(calling_ae=title))


def test_no_more_requests_are_accepted_than_the_total_limit() -> None:
    admission = Admission(Policy(together=2))
    first, second = (admission.judge(from_title(title)) for title in "AB")
    assert (first.codes, second.codes) == (LET_IN, LET_IN)
    assert admission.judge(from_title("C")).codes == LIMIT
    admission.leave(first)
    assert admission.judge(from_title("C")).codes == LET_IN
    assert admission.judge(from_title("C")).codes == LIMIT


def test_no_more_requests_are_accepted_than_the_limit_of_their_calling_title() -> None:
    admission = Admission(Policy(each=1, named={"MANY": 3, "ANY": 0}))
    assert [admission.judge(from_title("A")).codes for _ in range(2)] == [LET_IN, LIMIT]
    assert admission.judge(from_title("B")).codes == LET_IN
    assert [admission.judge(from_title("MANY")).codes for _ in range(4)] == [LET_IN] * 3 + [LIMIT]
    assert {admission.judge(from_title("ANY")).codes for _ in range(9)} == {LET_IN}


def test_a_limit_of_one_title_does_not_limit_others() -> None:
    admission = Admission(Policy(named={"ONE": 1}))
    assert [admission.judge(from_title("ONE")).codes for _ in range(2)] == [LET_IN, LIMIT]
    assert {admission.judge(from_title("OTHER")).codes for _ in range(9)} == {LET_IN}


def test_a_place_is_freed_once() -> None:
    admission = Admission(Policy(together=2, each=2))
    first, second = (admission.judge(from_title("A")) for _ in range(2))
    refused = admission.judge(from_title("A"))
    assert (second.codes, refused.codes) == (LET_IN, LIMIT)
    for _ in range(3):
        admission.leave(first)
        admission.leave(refused)  # it has no place
    assert admission.judge(from_title("A")).codes == LET_IN
    assert admission.judge(from_title("A")).codes == LIMIT


def test_associations_from_before_the_limits_take_a_place_of_their_title() -> None:
    admission = Admission()
    before = admission.judge(from_title("A"))
    admission.apply(Policy(each=1))
    assert admission.judge(from_title("A")).codes == LIMIT
    admission.leave(before)
    assert admission.judge(from_title("A")).codes == LET_IN


def test_a_host_has_its_own_limit() -> None:
    admission = Admission(Policy(each_host=2))
    first, second, third = (admission.judge(from_title(t), b"::1") for t in "ABC")
    assert (first.codes, second.codes, third.codes) == (LET_IN, LET_IN, LIMIT)
    assert admission.judge(from_title("A"), b"::2").codes == LET_IN
    admission.leave(first)
    admission.leave(third)
    assert admission.judge(from_title("A"), b"::1").codes == LET_IN
    assert admission.judge(from_title("A"), b"::1").codes == LIMIT


def test_the_rejection_beyond_a_limit_can_be_set() -> None:
    admission = Admission(Policy(together=1, beyond=(1, 3, 2)))
    assert admission.judge(from_title("A")).codes == LET_IN
    assert admission.judge(from_title("A")).codes == (1, 3, 2)


def test_any_context_is_accepted_with_its_first_transfer_syntax() -> None:
    admission = Admission()
    lib.ltdic_admission_accept_any(admission.admission)
    pdu = request(
        contexts=(
            ProposedContext(1, "1.2.3", ("1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2")),
            ProposedContext(3, "1.2.4", ("1.2.840.10008.1.2",)),
        )
    )
    accept = decode(admission.judge(encode(pdu)).accept, strict=True)
    assert isinstance(accept, AssociateAccept)
    assert [(c.id, c.result, c.transfer_syntax) for c in accept.contexts] == [
        (1, 0, "1.2.840.10008.1.2.4.50"),
        (3, 0, "1.2.840.10008.1.2"),
    ]


def test_new_rules_apply_at_once_and_keep_the_places_taken() -> None:
    admission = Admission(Policy(called=("OLD",), named={"A": 1}))
    inside = admission.judge(encode(request(called_ae="OLD", calling_ae="A")))
    assert inside.codes == LET_IN
    other = Admission(Policy(called=("NEW",), named={"A": 2, "B": 1}))
    assert lib.ltdic_admission_take_rules(admission.admission, other.admission) == OK

    def ask(called: str, calling: str) -> Codes:
        return admission.judge(encode(request(called_ae=called, calling_ae=calling))).codes

    assert ask("OLD", "A") == (1, 1, 7)
    assert [ask("NEW", "A"), ask("NEW", "A")] == [LET_IN, LIMIT]
    assert [ask("NEW", "B"), ask("NEW", "B"), ask("NEW", "C")] == [LET_IN, LIMIT, LET_IN]
    admission.leave(inside)
    assert [ask("NEW", "A"), ask("NEW", "A")] == [LET_IN, LIMIT]


def test_new_rules_replace_lengths_and_syntaxes() -> None:
    admission, other = Admission(), at_least(4096, Policy(contexts=((CT, (BIG_ENDIAN,)),)))
    assert lib.ltdic_admission_max_associate(admission.admission) == 1 << 20
    lib.ltdic_admission_set_max_associate(other.admission, 1000)
    assert lib.ltdic_admission_take_rules(admission.admission, other.admission) == OK
    assert lib.ltdic_admission_max_associate(admission.admission) == 1000
    assert admission.judge(encode(takes(8))).codes == TOO_SHORT
    assert other.add("transfer", IMPLICIT) == BAD_VALUE  # its rules were moved away
    assert admission.add("transfer", IMPLICIT) == OK
    wanted = request(contexts=(ProposedContext(1, CT, (IMPLICIT,)),))
    assert accepted(admission, encode(wanted)).contexts == (ContextResult(1, 0, IMPLICIT),)
    lib.ltdic_admission_set_max_associate(admission.admission, 0)
    assert lib.ltdic_admission_max_associate(admission.admission) == 1 << 20


def test_a_refused_request_needs_no_room_for_an_answer() -> None:
    """The admission builds no A-ASSOCIATE-AC for a refused request."""
    admission = Admission(Policy(called=("OTHER",)))
    status, answer = admission.try_to_judge(encode(request()), 0)
    assert (status, answer.codes, answer.accept) == (OK, (1, 1, 7), b"")


def test_ten_thousand_calling_titles_are_counted_exactly() -> None:
    admission = Admission(Policy(each=1))
    rq = bytearray(encode(request()))

    def judge(number: int) -> Answer:
        rq[26:42] = b"%-16d" % number
        return admission.judge(bytes(rq))

    answers = [judge(number) for number in range(10_000)]
    assert {answer.codes for answer in answers} == {LET_IN}
    assert {judge(number).codes for number in range(10_000)} == {LIMIT}
    for answer in answers[::2]:
        admission.leave(answer)
    again = [judge(number).codes for number in range(10_000)]
    assert again == [LET_IN, LIMIT] * 5000


# ---- contexts --------------------------------------------------------------------------------

OURS = Policy(contexts=((VERIFICATION, (IMPLICIT,)), (CT, (EXPLICIT, IMPLICIT)), (MR, ())))


@pytest.mark.parametrize(
    ("context", "answer"),
    [
        (ProposedContext(1, CT, (BIG_ENDIAN, IMPLICIT, EXPLICIT)), ContextResult(1, 0, EXPLICIT)),
        (ProposedContext(3, CT, (BIG_ENDIAN, IMPLICIT)), ContextResult(3, 0, IMPLICIT)),
        (ProposedContext(5, CT, (BIG_ENDIAN,)), ContextResult(5, 4)),
        (ProposedContext(7, MR, (IMPLICIT,)), ContextResult(7, 4)),
        (ProposedContext(9, "1.2.3", (IMPLICIT,)), ContextResult(9, 3)),
        (ProposedContext(11, None, (IMPLICIT,)), ContextResult(11, 3)),
        (ProposedContext(13, CT, ()), ContextResult(13, 4)),
        (ProposedContext(0, CT, (IMPLICIT,)), ContextResult(0, 2)),
        (ProposedContext(254, CT, (IMPLICIT,)), ContextResult(254, 2)),
        (ProposedContext(255, VERIFICATION, (IMPLICIT,)), ContextResult(255, 0, IMPLICIT)),
    ],
)
def test_a_context_is_answered(context: ProposedContext, answer: ContextResult) -> None:
    got = accepted(Admission(OURS), encode(request(contexts=(context,)))).contexts
    assert [(c.id, c.result) for c in got] == [(answer.id, answer.result)]
    if answer.result == 0:
        assert got[0].transfer_syntax == answer.transfer_syntax


def test_the_first_of_several_contexts_with_one_id_counts() -> None:
    twice = tuple(ProposedContext(1, uid, (IMPLICIT,)) for uid in ("1.2.3", CT, VERIFICATION))
    got = accepted(Admission(OURS), encode(request(contexts=twice))).contexts
    assert [(c.id, c.result) for c in got] == [(1, 3)]


def test_an_abstract_syntax_that_is_added_twice_has_the_transfer_syntaxes_of_both() -> None:
    admission = Admission(Policy(contexts=((CT, (IMPLICIT,)), (MR, ()), (CT, (EXPLICIT,)))))
    for uid in (IMPLICIT, EXPLICIT):
        proposal = request(contexts=(ProposedContext(1, CT, (uid,)),))
        assert accepted(admission, encode(proposal)).contexts == (ContextResult(1, 0, uid),)


def verification_of(answer: Answer) -> set[int]:
    bits = int.from_bytes(ffi.buffer(answer.held.verification), "little")
    return {number for number in range(256) if bits >> number & 1}


def test_the_answer_lists_the_verification_contexts() -> None:
    """A context counts whether it is accepted or not; of several with one ID the first counts."""
    offered = [(1, CT), (1, VERIFICATION), (3, VERIFICATION), (3, CT), (5, None), (5, VERIFICATION)]
    offered += [(0, VERIFICATION), (254, VERIFICATION), (255, f"{VERIFICATION}.1")]
    pdu = request(contexts=tuple(ProposedContext(n, uid, (BIG_ENDIAN,)) for n, uid in offered))
    rq = encode(pdu).replace(b".1.1.1@", b".1.1\0 @")  # the last one is padded
    for policy in (OURS, Policy(contexts=())):
        assert verification_of(Admission(policy).judge(rq)) == {0, 3, 254, 255}
    assert verification_of(Admission(Policy(called=("OTHER",))).judge(rq)) == set()
    assert verification_of(Admission().judge(encode(request(contexts=())))) == set()
    judged = ltdic.Admission(calling=["CALLING"]).policy(0, False).judge(rq, "")
    assert judged.verification == {0, 3, 254, 255}
    judged = ltdic.Admission(calling=["OTHER"]).policy(0, False).judge(rq, "")
    assert (judged.refusal, judged.verification) == ((1, 1, 3), frozenset())


def test_uids_are_compared_without_their_pads() -> None:
    padded = encode(request(contexts=(ProposedContext(1, "1.2.3.45", ("1.2.3.456",)),)))
    for uid in (b"1.2.3.45", b"1.2.3.456"):
        padded = padded.replace(uid, uid[:-1] + b"\0", 1)
    admission = Admission(Policy(contexts=(("1.2.3.4", ("1.2.3.45",)),)))
    assert accepted(admission, padded).contexts == (ContextResult(1, 0, "1.2.3.45"),)


def test_an_answer_to_the_largest_request_fits() -> None:
    longest = "1." + "2" * 62
    policy = Policy(contexts=((CT, (longest,)),), users=USERS, together=1)
    every_id = tuple(ProposedContext(n % 256, CT, (longest,)) for n in range(400))
    admission = Admission(policy)
    rq = encode(replace(asks_as(1, 1, b"open"), contexts=every_id))
    status, _ = admission.try_to_judge(rq, 100)
    assert status == ROOM
    answer = admission.judge(rq)  # the refused request took no place
    assert answer.codes == LET_IN
    check_accept(Model(policy), replace(request(), contexts=every_id), answer.accept, strict=False)
    assert 18_000 < len(answer.accept) < lib.LTDIC_ACCEPT_ROOM


def test_the_answer_has_the_largest_accepted_length() -> None:
    admission = Admission()
    for most in (0, 6, 0xFFFFFFFF):
        lib.ltdic_admission_set_max_length(admission.admission, most)
        info = accepted(admission, encode(request())).user_info
        assert info is not None
        assert info.max_length == most


# ---- illegal values --------------------------------------------------------------------------


@pytest.mark.parametrize("title", ["", "  ", "SEVENTEEN LETTERS", "BACK\\SLASH", "TAB\t", "\xc4E"])
def test_an_illegal_title_is_refused(title: str) -> None:
    admission = Admission()
    assert admission.add("called", title) == BAD_VALUE
    assert admission.add("calling", title) == BAD_VALUE
    assert admission.limit(title, 1) == BAD_VALUE
    assert admission.judge(encode(request())).codes == LET_IN  # nothing was added


@pytest.mark.parametrize("uid", ["", "1..2", ".1", "1.", "1.02", "1.a", "1 ", "1." + "2" * 63])
def test_an_illegal_uid_is_refused(uid: str) -> None:
    admission = Admission(OURS)
    assert admission.add("context", uid) == BAD_VALUE
    assert admission.add("transfer", uid) == BAD_VALUE
    assert accepted(admission, encode(request())).contexts == (ContextResult(1, 0, IMPLICIT),)


def test_a_transfer_syntax_needs_an_abstract_syntax() -> None:
    assert Admission(Policy(contexts=())).add("transfer", IMPLICIT) == BAD_VALUE


# ---- against the model -----------------------------------------------------------------------

titles = st.sampled_from(["A", "B", "AB", "A B", "SIXTEEN LETTERS!"])
uids = st.sampled_from([VERIFICATION, CT, MR, IMPLICIT, EXPLICIT, BIG_ENDIAN])
some_titles = st.lists(titles, max_size=3).map(tuple)
some_uids = st.lists(uids, max_size=3).map(tuple)
names = st.sampled_from([b"", b"a", b"ab", b"user"])
policies = st.builds(
    Policy,
    called=some_titles,
    calling=some_titles,
    users=st.lists(st.tuples(names, st.none() | names), max_size=2).map(tuple),
    contexts=st.lists(st.tuples(uids, some_uids), max_size=4).map(tuple),
    together=st.integers(0, 4),
    each=st.integers(0, 2),
    named=st.dictionaries(titles, st.integers(0, 3), max_size=2),
)
identities = st.one_of(
    st.builds(UserIdentity, st.sampled_from([1, 3]), st.integers(0, 1), names),
    st.builds(UserIdentity, st.just(2), st.integers(0, 1), names, names),
)
questions = st.builds(
    AssociateRequest,
    called_ae=titles,
    calling_ae=titles,
    contexts=st.lists(
        st.builds(ProposedContext, st.integers(0, 9), st.none() | uids, some_uids), max_size=5
    ).map(tuple),
    user_info=st.builds(
        UserInformation, st.just(16384), st.just("1.2.3"), user_identity=st.none() | identities
    ),
)


@given(policies, st.lists(questions | st.integers(0, 5), max_size=12))
@example(Policy(each=1), [request(), request(), 0, request()])
def test_the_admission_agrees_with_the_model(policy: Policy, steps: list[Any]) -> None:
    """A step is a request, or the end of an accepted association."""
    admission, model = Admission(policy), Model(policy)
    inside: list[tuple[AssociateRequest, Answer]] = []
    for step in steps:
        if isinstance(step, AssociateRequest):
            answer = admission.judge(encode(step))
            assert answer.codes == model.judge(step)
            if answer.codes == LET_IN:
                check_accept(model, step, answer.accept, strict=False)
                inside.append((step, answer))
            else:
                assert answer.accept == b""
        elif step < len(inside):
            pdu, answer = inside.pop(step)
            admission.leave(answer)
            model.leave(pdu)


@pytest.mark.slow
@given(policies, requests)
def test_the_answer_to_a_strictly_valid_request_is_strictly_valid(
    policy: Policy, pdu: AssociateRequest
) -> None:
    answer = Admission(policy).judge(encode(pdu))
    if answer.codes == LET_IN:
        check_accept(Model(policy), pdu, answer.accept, strict=True)


EVERY_SIZE = [size * "1" for size in range(1, 65)]
ALIKE = [f"1.2.840.10008.1.2.4.{number}" for number in range(50, 90)]
transfer_uids = st.lists(st.sampled_from([*EVERY_SIZE, *ALIKE]), max_size=80).map(tuple)
abstract_uids = st.sampled_from([CT, MR, *EVERY_SIZE])


@given(
    st.lists(st.tuples(abstract_uids, transfer_uids), max_size=6).map(tuple),
    st.lists(st.tuples(abstract_uids, transfer_uids), max_size=6),
)
def test_the_first_supported_one_of_many_transfer_syntaxes_is_accepted(
    ours: tuple[tuple[str, tuple[str, ...]], ...], theirs: list[tuple[str, tuple[str, ...]]]
) -> None:
    policy = Policy(contexts=ours)
    pdu = request(contexts=tuple(ProposedContext(n, *pair) for n, pair in enumerate(theirs)))
    check_accept(Model(policy), pdu, Admission(policy).judge(encode(pdu)).accept, strict=False)


@pytest.mark.parametrize("uid", [*EVERY_SIZE, *ALIKE])
def test_each_of_many_syntaxes_is_found(uid: str) -> None:
    ours = tuple((abstract, (*ALIKE, *EVERY_SIZE)) for abstract in EVERY_SIZE)
    other = uid[:-1] + chr(ord(uid[-1]) ^ 1)  # differs in the last digit alone
    pdu = request(contexts=(ProposedContext(1, "1" * 9, (f"{uid}1"[:64], other, uid)),))
    expected = Model(Policy(contexts=ours)).contexts(pdu)
    got = accepted(Admission(Policy(contexts=ours)), encode(pdu)).contexts
    assert {c.id: (c.result, c.transfer_syntax) for c in got} == expected


@given(contexts(proposed))
def test_every_supported_proposal_is_accepted(offered: tuple[ProposedContext, ...]) -> None:
    ours = tuple((c.abstract_syntax or "", c.transfer_syntaxes[::-1]) for c in offered)
    policy = Policy(contexts=ours)
    pdu = request(contexts=offered)
    answer = Admission(policy).judge(encode(pdu))
    check_accept(Model(policy), pdu, answer.accept, strict=True)
    accept = decode(answer.accept)
    assert isinstance(accept, AssociateAccept)
    assert all(c.result == 0 for c in accept.contexts)


def test_codes_beyond_a_limit_that_are_not_set_are_the_default_ones() -> None:
    admission = Admission(Policy(together=1, beyond=(1, 1, 1)))
    admission.apply(Policy(together=1))
    rq = encode(request())
    assert [admission.judge(rq).codes for _ in range(2)] == [(0, 0, 0), (2, 3, 2)]
