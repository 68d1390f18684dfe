"""How a command or data set is cut into the parts that C gets, and how tasks send them in turn."""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterable, Iterable, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager, nullcontext
from typing import BinaryIO, TypeAlias
from weakref import WeakKeyDictionary

from ._arguments import view_of
from ._message_order import AsyncMessageOrder, Waiters
from ._native import codec, engine
from ._native.codec import Buffer
from .association import error_of_send_data
from .errors import AssociationTimeout
from .pdu import PDV

ODD = "a command or data set has an even number of bytes (PS3.8 E.1)"
NOT_TAKEN = "the peer has not taken what was sent in time"
PART = 0x80000
"""Bytes of a command or data set that are given to C at once, at most."""
PART_PDUS = 2048
"""P-DATA-TF that these may become, at most."""
MOST_SENDING = 0.002
"""Seconds that one task sends before the loop goes on."""

Sendable: TypeAlias = Buffer | BinaryIO | Iterable[Buffer]
"""A command or data set: bytes, a file that is read to its end, or pieces of any size."""


class Parts:
    """Pieces of any size into parts of `size` bytes at most, with the last one known."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._held = bytearray()
        """What no part has been made of yet: `size` bytes at most."""

    def feed(self, data: Buffer) -> Iterator[memoryview]:
        """The parts that are not the last."""
        piece = view_of("data", data)
        if len(self._held) + len(piece) <= self._size:
            self._held += piece
            return
        whole = memoryview(b"".join((self._held, piece))) if self._held else piece
        at = 0
        while len(whole) - at > self._size:
            yield whole[at : at + self._size]
            at += self._size
        self._held = bytearray(whole[at:])

    def end(self) -> bytes:
        """The last part."""
        if len(self._held) % 2:
            raise ValueError(ODD)
        return bytes(self._held)


def part_size(pdu: bytes) -> int:
    """Bytes of data to give to the engine at once, for the peer that has sent this A-ASSOCIATE-RQ
    or -AC."""
    return part_size_for(engine.max_length_of(pdu))


def part_size_for(most: int) -> int:
    """The same for a peer with this maximum length, or with none (0): they take about a millisecond
    at most, however small its PDUs have to be."""
    return min(PART, PART_PDUS * (max(most, 8) - 6 & ~1)) if most else PART


def parts_of(data: Sendable, size: int = PART) -> Iterator[tuple[bool, bytes | memoryview]]:
    """Cut what is to be sent into parts of `size` bytes, each with whether it is the last."""
    parts = Parts(size)
    for piece in pieces_of(data):
        for part in parts.feed(piece):
            yield False, part
    yield True, parts.end()


def pieces_of(data: Sendable) -> Iterable[Buffer]:
    """Iterate over what is to be sent, piece by piece."""
    if isinstance(data, (bytes, bytearray, memoryview)):
        whole = memoryview(data)
        if whole.nbytes % 2:
            raise ValueError(ODD)
        return (whole,)
    read = getattr(data, "read", None)
    if read is not None:
        return iter(lambda: read(PART), b"")
    if isinstance(data, (str, Mapping)) or not hasattr(data, "__iter__") or _is_data_set(data):
        kind = type(data).__name__
        raise TypeError(f"data is of type {kind}: no bytes, no binary file, no iterable of bytes")
    return data


def _is_data_set(data: object) -> bool:
    """pydicom's iterate over elements, of which there may be none."""
    return hasattr(data, "file_meta") or hasattr(data, "to_json")


async def async_parts_of(
    data: Sendable | AsyncIterable[Buffer], size: int
) -> AsyncGenerator[tuple[bool, bytes | memoryview], None]:
    """Yield as `parts_of` does, of an asynchronous iterator, too."""
    if not isinstance(data, AsyncIterable):
        for last_and_part in parts_of(data, size):
            yield last_and_part
        return
    parts = Parts(size)
    async for piece in data:
        for part in parts.feed(piece):
            yield False, part
    yield True, parts.end()


_locks: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = WeakKeyDictionary()


@asynccontextmanager
async def _one_in_a_step() -> AsyncGenerator[None, None]:
    """A part for a peer of small PDUs takes some milliseconds: so that many such peers delay
    nobody, each step of the event loop has one of them."""
    async with _locks.setdefault(asyncio.get_running_loop(), asyncio.Lock()):
        yield
        await asyncio.sleep(0)


class AsyncSender(ABC):
    """An association on which tasks send, one message after the other."""

    def __init__(self) -> None:
        self._order = AsyncMessageOrder()
        self._room = Waiters()
        """Who waits for room to send: to be woken where there is some, and at the end."""

    @abstractmethod
    def _raise_if_over(self) -> None:
        """Raise where nothing can be sent any more."""

    @abstractmethod
    def _try_to_send(self, pdv: PDV) -> int:
        """Send it; the status."""

    @abstractmethod
    def _taken(self) -> int:
        """Bytes that the peer has taken."""

    @abstractmethod
    def _give_up(self) -> None:
        """Abort the association, whose peer takes nothing."""

    async def _send_message(
        self,
        data: Sendable | AsyncIterable[Buffer],
        context_id: int,
        is_command: bool,
        timeout: float | None,
        size: int,
    ) -> None:
        """Send a whole command or data set in parts of `size` bytes, after other tasks. `timeout`
        is the longest wait for the peer to take more."""
        opens = is_begun = False
        try:
            await self._order.begin(is_command, timeout)
            since = time.monotonic()
            async with aclosing(async_parts_of(data, size)) as parts:
                async for is_last, part in parts:
                    await self._send(PDV(context_id, is_command, is_last, part), timeout, size)
                    opens = is_command and not is_begun and bool(engine.announces_data_set(part))
                    is_begun = not is_last
                    if time.monotonic() - since > MOST_SENDING:
                        await asyncio.sleep(0)
                        since = time.monotonic()
        finally:
            self._order.end(opens, broken=is_begun)

    async def _send(self, pdv: PDV, timeout: float | None, size: int) -> None:
        """Send it when there is room."""
        while (status := await self._try_in_turn(pdv, size)) == codec.ROOM:
            await self._wait_for_room(timeout)
        if status != 0:
            raise error_of_send_data(status, pdv)

    async def _try_in_turn(self, pdv: PDV, size: int) -> int:
        async with _one_in_a_step() if size < PART else nullcontext():
            self._raise_if_over()
            return self._try_to_send(pdv)

    async def _wait_for_room(self, timeout: float | None) -> None:
        """Wait until the peer has taken what was sent before. One that takes nothing in time is
        aborted."""
        taken = self._taken()
        while not await self._room.change(timeout):
            before, taken = taken, self._taken()
            if taken <= before:
                self._give_up()
                raise AssociationTimeout(NOT_TAKEN)
