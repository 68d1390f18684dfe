"""Hypothesis strategies: PDUs, and their bytes cut or changed."""

from __future__ import annotations

from random import Random

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
    """Generate user information that strict mode accepts in this direction."""
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
    """The bytes of several PDUs, and the same bytes cut at arbitrary places."""
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


# ---- hand-written PDUs -----------------------------------------------------------------------


class Untidy:
    """PDUs that strict mode accepts, with random reserved bytes, order, padding, unknown items."""

    def __init__(self, seed: int) -> None:
        self._random = Random(seed)

    def pdu(self) -> bytes:
        kinds = (self._associate, self._associate, self._reject, self._data, self._short)
        kind, body = self._random.choice(kinds)()
        return bytes([kind]) + self._bytes(1) + len(body).to_bytes(4, "big") + body

    def _bytes(self, size: int) -> bytes:
        return self._random.randbytes(size)

    def _some(self, most: int) -> bytes:
        return self._bytes(self._random.randrange(most))

    def _item(self, kind: int, value: bytes) -> bytes:
        return bytes([kind]) + self._bytes(1) + len(value).to_bytes(2, "big") + value

    def _counted(self, value: bytes) -> bytes:
        return len(value).to_bytes(2, "big") + value

    def _uid(self) -> bytes:
        components = [self._random.randrange(10**6) for _ in range(self._random.randint(1, 8))]
        return ".".join(map(str, components)).encode()

    def _padded(self) -> bytes:
        """Return a UID, at random with the NUL that makes its length even (PS3.5)."""
        uid = self._uid()
        return uid + b"\0" if len(uid) % 2 and self._random.random() < 0.5 else uid

    def _title(self) -> bytes:
        text = self._random.choice([b"A", b"STORE SCP", b"SIXTEEN LETTERS!"])
        return (b" " * self._random.randint(0, 16 - len(text)) + text).ljust(16)

    def _with_unknown(self, items: list[bytes], *, shuffle: bool = False) -> bytes:
        """Return the items with some of unknown types among them."""
        if shuffle:
            self._random.shuffle(items)
        for _ in range(self._random.randrange(3)):
            unknown = self._item(self._random.randrange(0x60, 0x100), self._some(20))
            items.insert(self._random.randint(0, len(items)), unknown)
        return b"".join(items)

    def _proposed(self, ident: int) -> bytes:
        count = self._random.randint(1, 4)
        syntaxes = [self._item(0x40, self._uid()) for _ in range(count)]
        head = bytes([ident]) + self._bytes(3)
        return head + self._with_unknown([self._item(0x30, self._uid()), *syntaxes])

    def _answered(self, ident: int) -> bytes:
        result = self._random.choice([0, 0, 1, 2, 3, 4])
        head = bytes([ident]) + self._bytes(1) + bytes([result]) + self._bytes(1)
        if result:
            return head + self._some(40)
        return head + self._with_unknown([self._item(0x40, self._uid())])

    def _user_information(self, request: bool) -> bytes:
        random = self._random
        related = b"".join(self._counted(self._padded()) for _ in range(random.randrange(3)))
        version = random.choice([0, 0, 1, 255])
        common = b"".join(map(self._counted, (self._padded(), self._padded(), related)))
        optional = [
            self._item(0x53, self._bytes(4)),
            self._item(0x54, self._counted(self._padded()) + bytes([random.randrange(2), 1])),
            self._item(0x55, b"a version\\ ~"),
            self._item(0x56, self._counted(self._padded()) + self._some(20)),
        ]
        if request:
            tail = self._some(9) if version else b""
            optional += [
                b"\x57" + bytes([version]) + self._counted(common + tail),
                self._item(0x58, b"\2\1" + self._counted(self._some(9)) + self._counted(b"secret")),
            ]
        else:
            optional.append(self._item(0x59, self._counted(self._some(30))))
        chosen = random.sample(optional, random.randint(0, len(optional)))
        required = [self._item(0x51, self._bytes(4)), self._item(0x52, self._padded())]
        return self._with_unknown(required + chosen, shuffle=True)

    def _associate(self) -> tuple[int, bytes]:
        request = self._random.random() < 0.5
        titles = self._title() + self._title() if request else self._bytes(32)
        idents = self._random.sample(range(1, 256, 2), self._random.randint(1, 4))
        context, kind = (self._proposed, 0x20) if request else (self._answered, 0x21)
        items = self._with_unknown(
            [
                self._item(0x10, self._uid()),
                *(self._item(kind, context(ident)) for ident in idents),
                self._item(0x50, self._user_information(request)),
            ]
        )
        return 1 if request else 2, self._bytes(4) + titles + self._bytes(32) + items

    def _reject(self) -> tuple[int, bytes]:
        return 3, self._bytes(1) + bytes(
            [self._random.randint(1, 2), self._random.randint(1, 3), 1]
        )

    def _short(self) -> tuple[int, bytes]:
        kind = self._random.choice([5, 6, 7])
        return kind, self._bytes(2) + (self._bytes(2) if kind != 7 else b"\0" + self._bytes(1))

    def _data(self) -> tuple[int, bytes]:
        body = b""
        for _ in range(self._random.randint(1, 3)):
            fragment = self._bytes(2 * self._random.randrange(40))
            ident = 2 * self._random.randrange(128) + 1
            head = (len(fragment) + 2).to_bytes(4, "big") + bytes([ident]) + self._bytes(1)
            body += head + fragment
        return 4, body


def reserved_bytes(wire: bytes) -> list[int]:
    """Return the offsets of bytes in a valid PDU that are not tested on receipt, except for the
    titles of an AC.

    They come from the tables of PS3.8 9.3 alone, independent of the codec.
    """
    fixed = {1: [1, 8, 9], 2: [1, 8, 9], 3: [1, 6], 4: [1], 5: [1], 6: [1], 7: [1, 6, 7]}
    places = list(fixed[wire[0]])
    if wire[0] in (5, 6):
        places += range(6, 10)
    elif wire[0] in (1, 2):
        places += range(42, 74)
        for at, kind, end in items_of(wire, 74, len(wire)):
            places.append(at + 1)
            if kind == 0x20 or kind == 0x21:
                places += [at + 5, at + 7] + [at + 6] * (kind == 0x20)
                if kind == 0x21 and wire[at + 6]:
                    places += range(at + 8, end)
                    continue
            if kind in (0x20, 0x21, 0x50):
                start = at + (4 if kind == 0x50 else 8)
                places += [i + 1 for i, sub, _ in items_of(wire, start, end) if sub != 0x57]
    return places


def items_of(wire: bytes, at: int, end: int):
    """Yield offset, type and end of each item."""
    while at < end:
        size = int.from_bytes(wire[at + 2 : at + 4], "big")
        yield at, wire[at], at + 4 + size
        at += 4 + size
