"""Exact decoding and encoding, for a proxy: all bytes stay but those of a changed value, and no
repetition of a changed value is sent."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

import ltdic
from ltdic import decode, encode
from support.hostile import associate, counted, item

CONTEXT_NAME = item(0x10, b"1.2.840.10008.3.1.1.1")
REQUIRED = item(0x51, b"\0\0\x40\0") + item(0x52, b"1.2.5")
GUEST = ltdic.UserIdentity(2, 0, b"guest", b"guest")

# The sub-item that counts, a second one of the same type, and the field with a changed value.
REPEATED = {
    "max_length": (item(0x51, b"\0\0\x40\0"), item(0x51, b"ADMI"), 8192),
    "implementation_class_uid": (item(0x52, b"1.2.5"), item(0x52, b"1.99.99"), "1.2.6"),
    "async_ops": (item(0x53, b"\0\1\0\1"), item(0x53, b"ADMI"), ltdic.AsyncOperations(2, 2)),
    "implementation_version_name": (item(0x55, b"NAME"), item(0x55, b"ADMIN"), "OTHER"),
    "user_identity": (
        item(0x58, b"\1\0", counted(b"jdoe"), counted(b"")),
        item(0x58, b"\2\0", counted(b"admin"), counted(b"admin")),
        GUEST,
    ),
    "user_identity_response": (
        item(0x59, counted(b"ticket")),
        item(0x59, counted(b"admin")),
        ltdic.UserIdentityResponse(b"other"),
    ),
}


def wire_of(name: str, *sub_items: bytes, after: bytes = b"") -> bytes:
    """Return an RQ, or an AC for values that only an AC has, with nonzero reserved bytes."""
    kind = 2 if name == "user_identity_response" else 1
    inside = item(0x30, b"1.2.3") * (kind == 1) + item(0x40, b"1.2.4")
    context = item(0x1F + kind, b"\1\0\0\0", inside)
    wire = bytearray(associate(kind, CONTEXT_NAME, context, item(0x50, *sub_items), after))
    wire[1] = wire[8] = wire[60] = 0xEE
    return bytes(wire)


def with_info(pdu: Any, **fields: Any) -> Any:
    return dataclasses.replace(pdu, user_info=dataclasses.replace(pdu.user_info, **fields))


def values_of(wire: bytes, kind: int) -> int:
    """Count the sub-items of a type in all items 50."""
    found, at = 0, 74
    while at < len(wire):
        end = at + 4 + int.from_bytes(wire[at + 2 : at + 4], "big")
        inner = at + 4
        while wire[at] == 0x50 and inner < end:
            found += wire[inner] == kind
            inner += 4 + int.from_bytes(wire[inner + 2 : inner + 4], "big")
        at = end
    return found


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("name", REPEATED)
def test_a_repetition_of_a_changed_value_is_dropped(name: str, together: bool) -> None:
    """The repetition stands in the same item 50, or in another one."""
    first, again, other = REPEATED[name]
    sub_items = [REQUIRED, first] if first not in REQUIRED else [REQUIRED]
    repeated = {"after": b""} if together else {"after": item(0x50, again)}
    wire = wire_of(name, *sub_items, *[again] * together, **repeated)
    pdu = decode(wire, exact=True)
    assert encode(pdu) == wire
    changed = with_info(pdu, **{name: other})
    sent = encode(changed)
    assert decode(sent) == changed
    assert values_of(sent, first[0]) == 1
    assert (sent[1], sent[8], sent[60]) == (0xEE, 0xEE, 0xEE)


@pytest.mark.parametrize("name", REPEATED)
def test_a_repetition_of_an_unchanged_value_is_kept(name: str) -> None:
    first, again, _ = REPEATED[name]
    wire = wire_of(name, REQUIRED, first * (first not in REQUIRED), again)
    renamed = dataclasses.replace(decode(wire, exact=True), called_ae="OTHER")
    assert encode(renamed) == wire[:10] + b"OTHER".ljust(16) + wire[26:]


def test_a_second_identity_is_never_sent_with_the_first_one_changed() -> None:
    """The change is the whole identity, the passcode alone, or a code alone."""
    first, again, _ = REPEATED["user_identity"]
    pdu = decode(wire_of("user_identity", REQUIRED, first, again), exact=True)
    for fields in ({"secondary": b"x"}, {"primary": b"x"}, {"type": 2}, {"response_requested": 1}):
        identity = dataclasses.replace(pdu.user_info.user_identity, **fields)
        assert b"admin" not in encode(with_info(pdu, user_identity=identity))
    assert b"admin" not in encode(with_info(pdu, user_identity=None))
    assert b"admin" not in encode(dataclasses.replace(pdu, user_info=None))


def test_a_changed_value_drops_bytes_after_the_last_field() -> None:
    identity = item(0x58, b"\1\0", counted(b"jdoe"), counted(b""), b"admin")
    role = item(0x54, counted(b"1.2.3"), b"\1\0", b"more")
    wire = wire_of("user_identity", REQUIRED, identity, role)
    pdu = decode(wire, exact=True)
    assert encode(pdu) == wire
    guest = encode(with_info(pdu, user_identity=GUEST))
    assert (b"admin" in guest, b"more" in guest) == (False, True)
    roles = (ltdic.RoleSelection("1.2.3", 1, 1),)
    other = encode(with_info(pdu, roles=roles))
    assert (b"admin" in other, b"more" in other) == (True, False)


def test_a_changed_application_context_drops_a_second_one() -> None:
    wire = wire_of("", REQUIRED, after=item(0x10, b"1.99.99"))
    pdu = decode(wire, exact=True)
    assert encode(pdu) == wire
    changed = dataclasses.replace(pdu, application_context="1.2.3.4")
    assert b"1.99.99" not in encode(changed)
    assert decode(encode(changed)) == changed
    assert b"1.99.99" in encode(dataclasses.replace(pdu, called_ae="OTHER"))


def test_a_changed_abstract_syntax_drops_a_second_one() -> None:
    inside = item(0x30, b"1.2.3") + item(0x30, b"1.99.99") + item(0x40, b"1.2.4")
    contexts = [item(0x20, bytes([n, 0, 0, 0]), inside) for n in (1, 3)]
    pdu = decode(associate(1, CONTEXT_NAME, *contexts, item(0x50, REQUIRED)), exact=True)
    first = dataclasses.replace(pdu.contexts[0], abstract_syntax="1.2.9")
    changed = dataclasses.replace(pdu, contexts=(first, pdu.contexts[1]))
    assert encode(changed).count(b"1.99.99") == 1
    assert decode(encode(changed)) == changed


def test_a_changed_answer_drops_its_unread_items() -> None:
    """Unread items are a second transfer syntax, and the items of a context that was refused."""
    accepted = item(0x21, b"\1\0\0\0", item(0x40, b"1.2.4"), item(0x40, b"1.99.99"))
    rejected = item(0x21, b"\3\0\3\0", item(0x40, b"1.88.88"))
    wire = associate(2, CONTEXT_NAME, accepted, rejected, item(0x50, REQUIRED))
    pdu = decode(wire, exact=True)
    assert encode(pdu) == wire
    first, second = pdu.contexts
    for contexts, hidden in [
        ((dataclasses.replace(first, transfer_syntax="1.2.5"), second), b"1.99.99"),
        ((first, dataclasses.replace(second, result=4)), b"1.88.88"),
        ((first, dataclasses.replace(second, id=5)), b"1.88.88"),
    ]:
        changed = dataclasses.replace(pdu, contexts=contexts)
        assert hidden not in encode(changed)
        assert decode(encode(changed)) == changed


def test_a_sub_item_of_a_context_is_not_a_repeated_identity() -> None:
    """User information may precede contexts, and a context may have sub-items of any type."""
    first, again, _ = REPEATED["user_identity"]
    context = item(0x20, b"\1\0\0\0", item(0x30, b"1.2.3"), item(0x40, b"1.2.4"), again)
    info = item(0x50, REQUIRED, first)
    pdu = decode(associate(1, CONTEXT_NAME, info, context), exact=True)
    assert encode(with_info(pdu, user_identity=GUEST)).endswith(context)


def test_repeated_roles_and_contexts_are_values_and_are_sent() -> None:
    """Each repetition of a role or context is decoded as a value; the user can change each."""
    role = item(0x54, counted(b"1.2.3"), b"\1\0")
    context = item(0x20, b"\1\0\0\0", item(0x30, b"1.2.3"), item(0x40, b"1.2.4"))
    wire = associate(1, CONTEXT_NAME, context, context, item(0x50, REQUIRED, role, role))
    pdu = decode(wire, exact=True)
    one = ltdic.RoleSelection("1.2.3", 0, 1)
    changed = with_info(pdu, roles=(one, pdu.user_info.roles[1]))
    first = dataclasses.replace(pdu.contexts[0], abstract_syntax="1.2.9")
    changed = dataclasses.replace(changed, contexts=(first, pdu.contexts[1]))
    assert decode(encode(changed)) == changed
    alone = dataclasses.replace(with_info(pdu, roles=(one,)), contexts=(first,))
    assert decode(encode(alone)) == alone
    assert encode(alone).count(b"\x54\0") == 1


@pytest.mark.parametrize("kind", [1, 2])
def test_bytes_after_a_nul_of_a_title_stay_until_it_is_changed(kind: int) -> None:
    context = item(0x1F + kind, b"\1\0\0\0", item(0x30, b"1.2") * (kind == 1), item(0x40, b"1.2"))
    parts = [CONTEXT_NAME, context, item(0x50, REQUIRED)]
    wire = associate(kind, *parts, called=b"GUEST\0ADMIN", calling=b"B\0ADMIN")
    pdu = decode(wire, exact=True)
    assert (pdu.called_ae, pdu.calling_ae) == ("GUEST", "B")
    assert encode(pdu) == wire
    assert encode(dataclasses.replace(pdu, called_ae="GUEST")) == wire
    changed = encode(dataclasses.replace(pdu, called_ae="G"))
    assert changed == wire[:10] + b"G".ljust(16) + wire[26:]


def test_a_changed_text_drops_the_bytes_after_its_nul() -> None:
    name = item(0x55, b"NAME\0ADMIN")
    wire = wire_of("", item(0x51, b"\0\0\x40\0"), item(0x52, b"1.2\0.9999"), name)
    pdu = decode(wire, exact=True)
    assert encode(pdu) == wire
    changed = with_info(pdu, implementation_version_name="N", implementation_class_uid="1.3")
    assert b"ADMIN" not in encode(changed)
    assert b"9999" not in encode(changed)
