"""The state machine: every cell of PS3.8 table 9-10, checked against the table of the standard."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from ltdic import Abort, AssociateReject, ReleaseRequest, ReleaseResponse, decode, encode, ffi, lib
from support.pdus import MINIMAL_ACCEPT as ACCEPT
from support.pdus import MINIMAL_REQUEST as REQUEST
from support.vectors import CELLS

NOW, ARTIM = 1000, 30


# Events that are PDUs from the peer.
RECEIVED = {
    3: ACCEPT,
    4: encode(AssociateReject(1, 1, 1)),
    6: REQUEST,
    10: bytes.fromhex("040000000006000000020103"),
    12: encode(ReleaseRequest()),
    13: encode(ReleaseResponse()),
    16: encode(Abort(0, 0)),
}
# Each action (PS3.8 tables 9-6 to 9-9): PDU type sent, indication, closed, ARTIM.
ACTIONS = {
    "AE-1": (0, 0, 0, None),
    "AE-2": (1, 0, 0, None),
    "AE-3": (0, 1, 0, None),
    "AE-4": (0, 1, 1, None),
    "AE-5": (0, 0, 0, True),
    "AE-6": (0, 1, 0, False),
    "AE-7": (2, 0, 0, None),
    "AE-8": (3, 0, 0, True),
    "DT-1": (4, 0, 0, None),
    "DT-2": (0, 1, 0, None),
    "AR-1": (5, 0, 0, None),
    "AR-2": (0, 1, 0, None),
    "AR-3": (0, 1, 1, None),
    "AR-4": (6, 0, 0, True),
    "AR-5": (0, 0, 0, False),
    "AR-6": (0, 1, 0, None),
    "AR-7": (4, 0, 0, None),
    "AR-8": (0, 1, 0, None),
    "AR-9": (6, 0, 0, None),
    "AR-10": (0, 1, 0, None),
    "AA-1": (7, 0, 0, True),
    "AA-2": (0, 0, 1, False),
    "AA-3": (0, 1, 1, None),
    "AA-4": (0, 1, 0, None),
    "AA-5": (0, 0, 0, False),
    "AA-6": (0, 0, 0, None),
    "AA-7": (7, 0, 0, None),
    "AA-8": (7, 1, 0, True),
}
NAMES = {getattr(lib, f"LTDIC_{name.replace('-', '_')}"): name for name in ACTIONS}


def machine(state: int, requestor: bool = False) -> Any:
    ul = ffi.new("ltdic_ul *")
    lib.ltdic_ul_init(ul, ARTIM)
    ul.state, ul.requestor = state, requestor
    return ul


def fire(ul: Any, event: int, pdu: bytes | None = None) -> tuple[int, Any]:
    effects = ffi.new("ltdic_effects *")
    if event == 19:
        return lib.ltdic_ul_fault(ul, effects, lib.LTDIC_ERR_BAD_PDU_TYPE, NOW), effects
    if event in RECEIVED:
        wire = pdu or RECEIVED[event]
        return lib.ltdic_ul_receive(ul, effects, (ffi.from_buffer(wire), len(wire)), NOW), effects
    return lib.ltdic_ul_event(ul, effects, event, NOW), effects


def test_the_table_has_the_123_cells_of_the_standard() -> None:
    assert len(CELLS) == 123
    for wire in RECEIVED.values():
        decode(wire, strict=True)


@pytest.mark.parametrize("requestor", [False, True])
@pytest.mark.parametrize("event", range(1, 20))
@pytest.mark.parametrize("state", range(1, 14))
def test_each_cell_of_the_table_has_its_action_and_next_state(
    state: int, event: int, requestor: bool
) -> None:
    check_cell(state, event, requestor)


def test_every_cell_has_its_outcome_on_both_sides() -> None:
    cells = list(itertools.product(range(1, 14), range(1, 20)))
    for (state, event), requestor in itertools.product(cells, (False, True)):
        check_cell(state, event, requestor)
    empty = set(cells) - set(CELLS)
    print(f"{len(cells)} of {13 * 19} cells, {len(empty)} of them empty in the standard")
    assert (len(cells), len(empty)) == (247, 124)


def check_cell(state: int, event: int, requestor: bool) -> None:
    ul = machine(state, requestor)
    ul.deadline = 7  # so that stopping and starting both show
    status, effects = fire(ul, event)
    if (state, event) not in CELLS:
        check_empty_cell(state, event, ul, status, effects)
        return
    action, states = CELLS[state, event]
    assert NAMES[effects.action] == action
    expected = states[0] if len(states) == 1 or action == "AE-6" or requestor else states[1]
    assert ul.state == expected
    send, tell, close, artim = ACTIONS[action]
    assert (effects.send, effects.tell, effects.close) == (send, tell, close)
    assert effects.open == (action == "AE-1")
    assert ul.deadline == {None: 7, True: NOW + ARTIM, False: 0}[artim]
    assert status == (lib.LTDIC_ERR_UNEXPECTED_PDU if send == 7 and event in RECEIVED else 0)


def check_empty_cell(state: int, event: int, ul: Any, status: int, effects: Any) -> None:
    """Assert the result of a cell that the standard leaves empty: an abort request ends the
    association, any other event is an error."""
    if event == 15:
        assert status == 0
        assert NAMES.get(effects.action) == ("AA-2" if state == 2 else None)
        assert ul.state == (1 if state == 2 else state)
        return
    assert status == lib.LTDIC_ERR_WRONG_STATE
    assert (ul.state, ul.deadline, effects.action, effects.send) == (state, 7, 0, 0)


def test_a_request_without_protocol_version_1_is_rejected_by_the_provider() -> None:
    ul = machine(2)
    wire = REQUEST[:6] + b"\0\x02" + REQUEST[8:]
    status, effects = fire(ul, 6, wire)
    codes = (effects.codes.result, effects.codes.source, effects.codes.reason)
    assert (status, NAMES[effects.action], effects.send, effects.tell) == (0, "AE-6", 3, 0)
    assert codes == (1, 2, 2)
    assert (ul.state, ul.deadline) == (13, NOW + ARTIM)


def test_a_refusal_set_in_the_provider_rejects_the_request_without_an_indication() -> None:
    ul = machine(2)
    ul.refusal = (2, 3, 2)
    effects = fire(ul, 6)[1]
    assert (effects.send, effects.tell, ul.state, ul.deadline) == (3, 0, 13, NOW + ARTIM)
    assert (effects.codes.result, effects.codes.source, effects.codes.reason) == (2, 3, 2)


def test_only_bit_0_of_the_protocol_version_counts() -> None:
    ul = machine(2)
    assert fire(ul, 6, REQUEST[:6] + b"\xff\xff" + REQUEST[8:])[1].tell == 1
    assert ul.state == 3


def test_an_accept_without_protocol_version_1_is_aborted() -> None:
    ul = machine(5, requestor=True)
    status, effects = fire(ul, 3, ACCEPT[:6] + b"\0\0" + ACCEPT[8:])
    assert status == lib.LTDIC_ERR_BAD_VALUE
    assert (effects.send, effects.codes.source, effects.codes.reason) == (7, 2, 6)
    assert ul.state == 13


@pytest.mark.parametrize(
    ("status", "reason"),
    [("BAD_PDU_TYPE", 1), ("BAD_LENGTH", 6), ("ITEM_OVERRUN", 6), ("TOO_LARGE", 6)],
)
def test_an_abort_has_the_reason_of_the_fault(status: str, reason: int) -> None:
    effects = ffi.new("ltdic_effects *")
    lib.ltdic_ul_fault(machine(5), effects, getattr(lib, f"LTDIC_ERR_{status}"), NOW)
    assert (effects.codes.source, effects.codes.reason) == (2, reason)
    lib.ltdic_ul_fault(machine(2), effects, getattr(lib, f"LTDIC_ERR_{status}"), NOW)
    assert (effects.codes.source, effects.codes.reason) == (0, 0)


def test_an_unexpected_pdu_is_aborted_with_reason_unexpected_pdu() -> None:
    effects = fire(machine(6), 3)[1]
    assert (effects.codes.source, effects.codes.reason) == (2, 2)


def test_the_first_event_sets_the_side() -> None:
    ul = machine(1)
    fire(ul, 1)
    assert ul.requestor == 1
    ul = machine(1, requestor=True)
    fire(ul, 5)
    assert ul.requestor == 0


def test_every_status_even_an_unknown_one_has_a_name_and_a_text() -> None:
    names = [name for name in dir(lib) if name.startswith("LTDIC_ERR_")]
    assert len({ffi.string(lib.ltdic_status_text(getattr(lib, n))) for n in names}) == len(names)
    assert all(ffi.string(lib.ltdic_status_name(getattr(lib, n))) != b"unknown" for n in names)
    assert ffi.string(lib.ltdic_status_name(-1000)) == b"unknown"
    assert ffi.string(lib.ltdic_status_text(-1000)) == b"unknown status"
    assert lib.ltdic_abort_reason(-1000) == 0
