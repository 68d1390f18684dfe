"""A loop of C, and the batches that its user gets from it."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar
from weakref import WeakMethod, finalize

from .._ffi import ffi, lib
from . import transport

SMALL = 16384
"""Bytes of a batch that are rather copied than kept."""
MOST_SPARES = 8
"""Blocks of memory for batches, of half a mebibyte, that a busy loop keeps."""

Row = TypeVar("Row")


class Call:
    """A call of a C function that is made once, however often `make` is interrupted by what a
    signal handler raises: no bytecode lies between the call and the keeping of its result."""

    def __init__(self, function: Any, *arguments: Any, keep: Any = None) -> None:
        """`keep` is what has to live as long as the arguments."""
        self._function = function
        self._arguments = [(argument,) for argument in arguments]
        self._keep = keep
        self._results: list[Any] = []

    def make(self) -> Any:
        """Return what the function has returned."""
        if not self._results:
            self._results.extend(map(self._function, *self._arguments))
        return self._results[0]

    @property
    def is_made(self) -> bool:
        return bool(self._results)

    def forget(self) -> None:
        """It is to be made again."""
        self._results.clear()


class _Spares:
    """Memory of batches of which nobody has a view any more, to be used again: the system clears
    new pages, which takes longer than to receive into them."""

    def __init__(self) -> None:
        self._blocks: list[tuple[Any, int]] = []
        self._most = [MOST_SPARES]
        """How many are kept. Views may live longer than this object, which then sets it to 0."""

    def destructor(self, room: Any) -> Callable[[Any], None]:
        """What is to be done with a block when its last view is gone, in any thread."""
        blocks, free, most = self._blocks, lib.ltdic_free_data, self._most

        def keep(data: Any) -> None:
            if data and len(blocks) < most[0]:
                blocks.append((data, room[0]))
            else:
                free(data)

        return keep

    def use(self, take: Any, give: Any, argument: Any) -> None:
        """Give C a block for the next batch, if there is one."""
        try:
            data, room = self._blocks.pop()
        except IndexError:
            return
        give(argument, data, room)

    def clear(self) -> None:
        while self._blocks:
            lib.ltdic_free_data(self._blocks.pop()[0])

    def __del__(self) -> None:
        self._most[0] = 0
        if lib is not None:  # None when the interpreter ends
            self.clear()


class BatchLoop(ABC, Generic[Row]):
    """A loop, and its only user: a server or a requestor. `wake` may be called from any thread, and
    in a signal handler, also when it has been freed."""

    def __init__(self, destructor: Callable[[list[Any]], Callable[[Any], None]]) -> None:
        """`destructor` makes what frees the loop with its user, and fills a list then."""
        self._lock = threading.RLock()  # a signal handler may interrupt whoever has it
        self._freed: list[Any] = []
        free = destructor(self._freed)
        made = iter(lib.ltdic_loop_new, None)
        # No bytecode lies between making it and what frees it: a signal handler may raise.
        self._loop = next(map(ffi.gc, made, [free]))
        if not self._loop:
            raise MemoryError("no memory or no descriptors")
        self._batch = ffi.new("ltdic_batch *")
        self.taken = 0
        """Events of the batch that have been dealt with."""
        self._data: memoryview | None = None
        self._owned: list[Any] = []
        self._spares = _Spares()
        self._transports = transport.Transports(WeakMethod(self.wake))
        finalize(self, self._transports.clear)

    @property
    def descriptor(self) -> int:
        """`ltdic_loop_fd`."""
        return int(lib.ltdic_loop_fd(self._loop))

    def timeout(self, most: int) -> int:
        """`ltdic_loop_timeout`, in milliseconds."""
        return int(lib.ltdic_loop_timeout(self._loop, most))

    def wait(self, most: int) -> None:
        """`ltdic_loop_wait`."""
        lib.ltdic_loop_wait(self._loop, most)

    @property
    def is_freed(self) -> bool:
        return bool(self._freed)

    def wake(self) -> None:
        with self._lock:
            if not self.is_freed:
                lib.ltdic_loop_wake(self._loop)

    def renew_lock(self) -> None:
        """In a child process: whoever had it may be a thread of the parent."""
        self._lock = threading.RLock()

    @property
    def batch_size(self) -> int:
        """Bytes of data in the batch."""
        return 0 if self._data is None else len(self._data)

    def _begin(self) -> None:
        """Forget the last batch, all of whose events must have been taken."""
        self._batch.count = 0  # first: what has been taken is never taken again
        self.taken = 0
        self._data = None
        if self._owned:  # C has no memory for the next one
            self._owned = []
            self._spares.use(*self._memory())

    def rest(self) -> None:
        """Give memory back: nothing comes at the moment."""
        self._spares.clear()

    @abstractmethod
    def _memory(self) -> tuple[Any, Any, Any]:
        """The functions that give the data of the batch, and take it back; and their argument."""

    @abstractmethod
    def _event(self, place: int, row: Any, data: memoryview) -> Row:
        """An event; `data` is that of the batch."""

    def _batch_data(self) -> memoryview:
        """A copy of what is small; else the memory itself, for as long as somebody has a view."""
        last = self._batch.events[self._batch.count - 1]
        size = last.offset + last.length
        if size < SMALL:
            return memoryview(bytes(ffi.buffer(self._batch.data, size)) if size else b"")
        if not self._owned:  # as in `Call`
            take, _, argument = self._memory()
            room = ffi.new("size_t *")
            taken = map(take, [argument], [room])
            self._owned.extend(map(ffi.gc, taken, [self._spares.destructor(room)], [size]))
        if self._owned[0] == ffi.NULL:  # a request is in it, which C wipes
            return memoryview(bytes(ffi.buffer(self._batch.data, size)))
        return memoryview(ffi.buffer(self._owned[0], size)).toreadonly()

    def events(self) -> Iterator[Row]:
        """The events that have not been taken. One counts as taken when the next is asked for."""
        batch = self._batch
        while self.taken < batch.count:
            if self._data is None:
                self._data = self._batch_data()
            place = self.taken
            yield self._event(place, batch.events[place], self._data)
            self.taken = place + 1
