"""The cost of negotiation grows with the sum of the peer's bytes and our rules, not their
product."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from ltdic import AssociateAccept, ProposedContext, UserInformation, encode
from ltdic._native.engine import Engine
from support.admission import OK, Admission, Policy, accepted, request
from support.hostile import item
from support.uids import CT

FORTY = tuple(f"1.2.840.10008.1.2.4.{number}" for number in range(50, 90))
CONTEXTS = 128
ROOM = (1 << 20) // CONTEXTS - 100  # bytes of transfer syntaxes in each context of 1 MiB
TIMES = 4  # above noise, and below the number of supported syntaxes


def processor_time(call: Callable[[], Any]) -> float:
    """Return the processor time of this thread in seconds, the least of several rounds."""

    def once() -> float:
        begun = time.thread_time()
        call()
        return time.thread_time() - begun

    return min(once() for _ in range(7))


# ---- PDUs of many contexts --------------------------------------------------------------------


def repeating(pdu: bytes, kind: int, inside: bytes) -> bytes:
    """Insert 128 contexts that differ by their ID alone into a PDU without contexts."""
    contexts = [item(kind, bytes([2 * n + 1, 0, 0, 0]) + inside) for n in range(CONTEXTS)]
    at = pdu.index(b"\x50\0", 74)  # user information is the last item
    body = pdu[6:at] + b"".join(contexts) + pdu[at:]
    return pdu[:2] + len(body).to_bytes(4, "big") + body


def proposing(abstract: str, transfer: list[bytes]) -> bytes:
    inside = item(0x30, abstract.encode()) + b"".join(item(0x40, uid) for uid in transfer)
    return repeating(encode(request(contexts=())), 0x20, inside)


def accepting(transfer: bytes) -> bytes:
    accept = AssociateAccept("A", "B", (), user_info=UserInformation(16384, "1.2.3"))
    return repeating(encode(accept), 0x21, item(0x40, transfer))


def filled(*uids: str) -> list[bytes]:
    """Repeat these UIDs in turn, as many as fit into a context of 1 MiB."""
    times = ROOM // sum(len(uid) + 4 for uid in uids)
    return [uid.encode() for uid in uids * times]


# ---- judging ----------------------------------------------------------------------------------


def supporting(count: int) -> tuple[str, ...]:
    return tuple(f"1.2.840.10008.1.2.4.{number}" for number in range(50, 50 + count))


def judging_time(contexts: tuple[tuple[str, tuple[str, ...]], ...], rq: bytes) -> float:
    admission = Admission(Policy(contexts=contexts))

    def judge() -> None:
        answer = admission.judge(rq)
        admission.leave(answer)

    return processor_time(judge)


CROWDS = {
    "short": filled(*(f"1.{number}" for number in range(10, 90))),
    "of one digit": filled(*"0123456789"),
    "short and the last of ours": filled(*"0123456789")[:-8],
    "as long as ours and with their prefix": filled(*(f"{uid[:-2]}0{uid[-1]}" for uid in FORTY)),
}


@pytest.mark.parametrize("count", [40, 1000])
@pytest.mark.parametrize("crowd", CROWDS)
def test_the_cost_of_our_transfer_syntaxes_and_those_of_a_peer_adds_up(
    crowd: str, count: int
) -> None:
    ours, is_there = supporting(count), "last of ours" in crowd
    rq = proposing(CT, [*CROWDS[crowd], *([ours[-1].encode()] if is_there else [])])
    assert 900_000 < len(rq) <= 1 << 20
    one = judging_time(((CT, ours[-1:]),), rq)
    assert judging_time(((CT, ours),), rq) < TIMES * one
    answers = accepted(Admission(Policy(contexts=((CT, ours),))), rq).contexts
    assert [c.result for c in answers] == [0 if is_there else 4] * CONTEXTS


def test_the_cost_of_our_abstract_syntaxes_and_those_of_a_peer_adds_up() -> None:
    many = tuple((f"1.2.840.10008.5.1.4.1.1.{number}", FORTY[:1]) for number in range(2000))
    rq = proposing("1.2.840.10008.5.1.4.1.1.9999", [FORTY[0].encode()])
    assert judging_time(many, rq) < TIMES * judging_time(many[:1], rq)


# ---- agreeing ---------------------------------------------------------------------------------


def requestor(proposed: tuple[str, ...]) -> Engine:
    contexts = tuple(ProposedContext(2 * n + 1, CT, proposed) for n in range(CONTEXTS))
    engine = Engine()
    assert engine.send(encode(request(contexts=contexts)), 1) == OK
    assert len(engine.take(1)) > 0
    return engine


def agreeing_time(proposed: tuple[str, ...], ac: bytes) -> float:
    engines = [requestor(proposed) for _ in range(7)]

    def agree() -> None:
        engine = engines.pop()
        engine.receive(ac)
        told = engine.next(1)
        assert told is not None
        assert (told.type, told.status, engine.state) == (2, OK, 6)

    return processor_time(agree)


@pytest.mark.parametrize("pad", ["", " " * (ROOM - 40), "\0" * (ROOM - 40)], ids=len)
def test_the_cost_of_proposed_transfer_syntaxes_and_a_padded_answer_adds_up(pad: str) -> None:
    ac = accepting(FORTY[-1].encode() + pad.encode())
    one = agreeing_time(FORTY[-1:], ac)
    assert agreeing_time(FORTY, ac) < TIMES * one + 0.002
