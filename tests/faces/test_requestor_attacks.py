"""Requestors against hostile and slow peers."""

from __future__ import annotations

import time

from support.faces import DATA_CONTEXT
from support.raw import associated, read_message
from support.sockets import TIMEOUT


def test_small_pieces_take_time_in_proportion_to_their_number() -> None:
    data = bytes(range(256)) * 4096
    pieces = (data[at : at + 4] for at in range(0, len(data), 4))
    with associated(read_message) as (association, peer):
        begun = time.process_time()
        association.send(pieces, context=DATA_CONTEXT, is_command=True)
        seconds = time.process_time() - begun
        assert peer.join()[1] == data
    assert seconds < TIMEOUT / 5
