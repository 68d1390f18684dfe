"""Associations with waiting sends: their further data is handled after the sends, and once."""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import ExitStack, suppress
from dataclasses import replace
from typing import Any

import pytest

from ltdic import PDV, DataTransfer, LocalError, UserInformation, connect
from ltdic._message_order import AsyncMessageOrder, MessageOrder
from support.hosts import blocking
from support.peer import REQUEST, deaf, opened, p_data
from support.sockets import TIMEOUT
from support.threads import Background
from support.waiting import eventually

MIB = 1 << 20


def test_failed_sends_take_no_room() -> None:
    """Two bytes are sent at once after failed sends of much data."""
    small = replace(REQUEST, user_info=UserInformation(8, "1.2.3"))

    def handler(association: Any, pdv: PDV) -> Any:
        for _ in range(3):
            with pytest.raises(LocalError):
                yield association.send(bytes(8192), context=99)
        yield association.send(b"ab", context=pdv.context_id, is_command=True)

    with blocking(handler=handler) as host, ExitStack() as stack:
        peer = opened(stack, host, small)
        peer.associate()
        peer.send(p_data(b"xx", True))
        answer = peer.take()
        assert isinstance(answer, DataTransfer)
        assert answer.pdvs[0].data == b"ab"


def requests(count: int) -> bytes:
    return b"".join(p_data(b"%03d " % n, True) for n in range(count))


def test_requests_of_a_peer_that_reads_nothing_are_answered_one_at_a_time() -> None:
    """300 requests arrive in one segment; each is answered with 1 MiB, which the peer does not
    read."""
    seen: list[bytes] = []

    def handler(association: Any, pdv: PDV) -> Any:
        seen.append(bytes(pdv.data))
        yield association.send(bytes(MIB), context=pdv.context_id, is_command=True)

    with blocking(handler=handler) as host, ExitStack() as stack:
        peer = deaf(stack, host, REQUEST, window=128 << 10)
        peer.associate()
        peer.send(requests(300))
        eventually(lambda: len(seen) > 1)
        (association,) = host.server.open
        eventually(lambda: association._waiting)
        stable = len(seen)
        assert stable < 20
        assert len(association._waiting) <= 3
        for _ in range(3):  # further requests are handled when the peer reads
            before = len(seen)
            while len(seen) == before:
                peer.read(MIB)
        assert seen == [b"%03d " % n for n in range(len(seen))]


@pytest.mark.parametrize("resets", [False, True])
def test_postponed_data_is_handled_before_the_end_is_told(resets: bool) -> None:
    """A lost connection keeps no data."""
    seen: list[bytes] = []
    waiting: list[int] = []

    def handler(association: Any, pdv: PDV) -> Any:
        seen.append(bytes(pdv.data))
        waiting.append(len(association._waiting))
        with suppress(LocalError):
            yield association.send(bytes(MIB), context=pdv.context_id, is_command=True)

    with blocking(handler=handler) as host, ExitStack() as stack:
        peer = deaf(stack, host, REQUEST)
        peer.associate()
        peer.send(requests(1000))
        eventually(lambda: any(one._waiting for one in host.server.open))
        if resets:
            peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.socket.close()
        _, record = host.ended.get(timeout=TIMEOUT)
        assert seen == [b"%03d " % n for n in range(1000)]
        assert max(waiting) <= 3
        assert record.outcome in ("lost", "aborted")


def test_a_task_that_leaves_the_queue_lets_the_next_one_send() -> None:
    async def run() -> None:
        order = AsyncMessageOrder()
        await order.begin(True, 5)
        first = asyncio.ensure_future(order.begin(True, 5))
        second = asyncio.ensure_future(order.begin(True, 5))
        await asyncio.sleep(0.01)
        order.end(False)
        first.cancel()
        await asyncio.wait_for(second, TIMEOUT / 5)

    asyncio.run(run())


def test_a_thread_that_leaves_the_queue_lets_the_next_one_send() -> None:
    """The first thread in the queue waits for the end of a message, and times out."""
    order = MessageOrder()
    order.begin(True, True, 1)
    order.end(opens=True)  # a data set must follow
    results: list[str] = []

    def wait(patience: float) -> None:
        try:
            order.begin(True, True, patience)
        except LocalError:
            results.append("gave up")
        else:
            results.append("sends")
            order.end(False)

    first, second = Background(lambda: wait(0.2)), Background(lambda: wait(TIMEOUT))
    eventually(lambda: results == ["gave up"])
    order.begin(False, True, 1)  # the data set
    order.end(False)
    first.join()
    second.join()
    assert results == ["gave up", "sends"]


@pytest.mark.parametrize("pieces", [[4], [b"ab", 4], [b"ab", [1, 2]], [b"ab", True, True]])
def test_a_piece_that_is_not_bytes_is_refused_at_any_position(pieces: list[Any]) -> None:
    seen: list[bytes] = []

    def handler(association: Any, pdv: PDV) -> Any:
        seen.append(bytes(pdv.data))
        yield None

    with blocking(handler=handler) as host:
        host_and_port = host.server.address
        with (
            pytest.raises(TypeError, match="data: "),
            connect(*host_and_port, contexts=["CTImageStorage"]) as association,
        ):
            association.send(pieces, context="CTImageStorage", is_command=True)
    assert b"\0" not in b"".join(seen)
