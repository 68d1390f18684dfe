"""Hypothesis strategies: PDUs, and what a network or an enemy does to their bytes."""

from __future__ import annotations

from hypothesis import strategies as st

from ltdic import (
    PDV,
    Abort,
    AssociateAccept,
    AssociateReject,
    AssociateRequest,
    AsyncOperations,
    CommonExtendedNegotiation,
    ContextResult,
    DataTransfer,
    ExtendedNegotiation,
    ProposedContext,
    ReleaseRequest,
    ReleaseResponse,
    RoleSelection,
    UnknownItem,
    UserIdentity,
    UserIdentityResponse,
    UserInformation,
)

codes = st.integers(0, 255)
triples = st.tuples(codes, codes, codes)

uids = st.lists(st.integers(0, 99999).map(str), min_size=1, max_size=10).map(".".join)
titles = st.text(
    st.characters(min_codepoint=0x20, max_codepoint=0x7E, exclude_characters="\\"),
    min_size=1,
    max_size=16,
).filter(lambda title: title == title.strip(" ") != "")
names = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=1, max_size=16)
ids = st.integers(0, 127).map(lambda n: 2 * n + 1)
small = st.binary(max_size=40)


def several(values, **options):
    return st.lists(values, max_size=3, **options).map(tuple)


unknown_items = several(st.builds(UnknownItem, st.integers(0x60, 0xFF), small))
rejects = st.builds(AssociateReject, codes, codes, codes)


def user_information(request: bool):
    """What strict mode takes in this direction."""
    identity = st.one_of(
        st.builds(UserIdentity, st.sampled_from([1, 3, 4, 5]), st.integers(0, 1), small),
        st.builds(UserIdentity, st.just(2), st.integers(0, 1), small, small),
    )
    common = st.builds(CommonExtendedNegotiation, st.just(0), uids, uids, several(uids))
    return st.builds(
        UserInformation,
        max_length=st.integers(0, 0xFFFFFFFF),
        implementation_class_uid=uids,
        implementation_version_name=st.none() | names,
        async_ops=st.none()
        | st.builds(AsyncOperations, st.integers(0, 0xFFFF), st.integers(0, 0xFFFF)),
        roles=several(
            st.builds(RoleSelection, uids, st.integers(0, 1), st.integers(0, 1)),
            unique_by=lambda role: role.sop_class_uid,
        ),
        extended=several(
            st.builds(ExtendedNegotiation, uids, small), unique_by=lambda item: item.sop_class_uid
        ),
        common_extended=several(common, unique_by=lambda item: item.sop_class_uid)
        if request
        else st.just(()),
        user_identity=st.none() | identity if request else st.none(),
        user_identity_response=st.none()
        if request
        else st.none() | st.builds(UserIdentityResponse, small),
        unknown=unknown_items,
    )


proposed = st.builds(ProposedContext, ids, uids, st.lists(uids, min_size=1, max_size=4).map(tuple))
answered = st.one_of(
    st.builds(ContextResult, ids, st.just(0), uids),
    st.builds(ContextResult, ids, st.integers(1, 4)),
)


def contexts(values):
    return st.lists(values, min_size=1, max_size=5, unique_by=lambda c: c.id).map(tuple)


requests = st.builds(
    AssociateRequest,
    called_ae=titles,
    calling_ae=titles,
    contexts=contexts(proposed),
    application_context=uids,
    user_info=user_information(request=True),
    unknown_items=unknown_items,
    protocol_version=st.integers(0, 0xFFFF),
)
accepts = st.builds(
    AssociateAccept,
    called_ae=titles,
    calling_ae=titles,
    contexts=contexts(answered),
    application_context=uids,
    user_info=user_information(request=False),
    unknown_items=unknown_items,
    protocol_version=st.integers(0, 0xFFFF),
)
fragments = st.binary(max_size=100).filter(lambda data: len(data) % 2 == 0)
transfers = st.builds(
    DataTransfer,
    st.lists(
        st.builds(PDV, ids, st.booleans(), st.booleans(), fragments), min_size=1, max_size=4
    ).map(tuple),
)
aborts = st.builds(Abort, codes, codes)
strict_pdus = st.one_of(
    requests,
    accepts,
    st.sampled_from([AssociateReject(r, s, 1) for r in (1, 2) for s in (1, 2, 3)]),
    transfers,
    st.builds(ReleaseRequest),
    st.builds(ReleaseResponse),
    st.builds(Abort, st.sampled_from([0, 2]), st.integers(0, 6)),
)
pdus = st.one_of(strict_pdus, rejects, aborts)


@st.composite
def chopped(draw, wires):
    """The bytes of several PDUs in a row, and the same cut at arbitrary places."""
    wire = b"".join(draw(st.lists(wires, max_size=8)))
    cuts = sorted(draw(st.lists(st.integers(0, len(wire)), max_size=12)))
    return wire, [wire[a:b] for a, b in zip([0, *cuts], [*cuts, len(wire)], strict=True)]


@st.composite
def mutated(draw, wires):
    """The bytes of a PDU with one of them changed."""
    wire = bytearray(draw(wires))
    place = draw(st.integers(0, len(wire) - 1))
    wire[place] ^= draw(st.integers(1, 255))
    return bytes(wire)
