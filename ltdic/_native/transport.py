"""Transports in Python: `ltdic_transport`, whose functions call the methods of an object."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import count
from operator import methodcaller
from traceback import clear_frames
from typing import Any, NamedTuple, Protocol, TypeVar

from .._ffi import ffi, lib

DONE: int = lib.LTDIC_TRANSPORT_DONE
WANT_READ: int = lib.LTDIC_TRANSPORT_WANT_READ
WANT_WRITE: int = lib.LTDIC_TRANSPORT_WANT_WRITE
END: int = lib.LTDIC_TRANSPORT_END
LOST: int = lib.LTDIC_TRANSPORT_LOST
AGAIN: int = lib.LTDIC_TRANSPORT_AGAIN

RAW = 0x10000
"""Bytes that are read from a TCP connection at once."""
MOST_INTERRUPTS = 100
"""Times that a transport may be interrupted by an exception until its connection is lost."""


class Transport(Protocol):
    """What C calls for one connection. `descriptor` is its TCP connection. Each method returns an
    `ltdic_transport_result`; `read` and `send` store in `size` how many bytes they have moved.

    A signal handler may raise in any of them. The exception is kept for whoever serves; the method
    is called again, and finds how far it was. Where that cannot be known `is_torn` is true, and the
    connection is lost."""

    is_torn: bool

    def open(self, descriptor: int) -> int: ...
    def read(self, descriptor: int, room: memoryview, size: Any) -> int: ...
    def send(self, descriptor: int, parts: list[memoryview], size: Any) -> int: ...
    def pending(self) -> int: ...
    def close(self, descriptor: int) -> None: ...


class Transports:
    """The transports of the connections of one loop. They live until C frees them."""

    def __init__(self, wake: Callable[[], Callable[[], None] | None]) -> None:
        """`wake` gives, as a weak reference does, what makes the loop return to its caller."""
        self._wake = wake
        self._raised: BaseException | None = None
        """What a method of one of them has raised."""
        self.were_used = False
        self._numbers: set[int] = set()
        self._interrupts: Counter[int] = Counter()
        self.served: dict[int, Transport] = {}
        """By the number of the association, at a server."""

    def add(self, transport: Transport, served: int = 0) -> int:
        """Return the number that stands for it in C."""
        number = next(_next)
        self.were_used = True
        self._numbers.add(number)
        _states[number] = State(self, transport, served)
        if served:
            self.served[served] = transport
        return number

    def keep(self, error: BaseException, transport: Transport) -> bool:
        """Keep what a method of a transport has raised. Return whether the connection is lost."""
        self._raised = self._raised or error
        self._interrupts[id(transport)] += 1
        wake = self._wake()
        if wake is not None:
            wake()
        return transport.is_torn or self._interrupts[id(transport)] > MOST_INTERRUPTS

    def raise_kept(self) -> None:
        """Raise what a method of one of them has raised, once."""
        error, self._raised = self._raised, None
        if error is not None:
            raise error

    def free(self, number: int) -> None:
        state = _states.pop(number, None)
        self._numbers.discard(number)
        if state is not None:
            self.served.pop(state.served, None)
            self._interrupts.pop(id(state.transport), None)

    def clear(self) -> None:
        """The loop is freed: forget those that a signal handler has left here."""
        for number in list(self._numbers):
            self.free(number)
        self.served.clear()


class State(NamedTuple):
    """What C has a number for, as a pointer: it never points to what is not there any more."""

    transports: Transports
    transport: Any
    served: int = 0


_states: dict[int, State] = {}
_next = count(1)


class Maker:
    """Makes the transport of each connection of a server: `user` of `ltdic_make_transport`."""

    is_torn = False

    def __init__(self, transports: Transports, make: Callable[[], Transport]) -> None:
        self._transports, self._make = transports, make
        self.number = transports.add(self)  # type: ignore[arg-type]

    def make(self, served: int) -> Any:
        return pointer_of(self._transports.add(self._make(), served))


def pointer_of(number: int) -> Any:
    return ffi.cast("void *", number)


def _state_of(pointer: Any) -> State:
    return _states[int(ffi.cast("uintptr_t", pointer))]


def _table() -> Any:
    size = ffi.sizeof("ltdic_transport")
    moving = lib.transport_open, lib.transport_read, lib.transport_send
    others = lib.transport_pending, lib.transport_close, lib.transport_free
    return ffi.new("ltdic_transport *", (size, *moving, *others))


TABLE = _table()
"""The `ltdic_transport` that calls these methods."""


def _called_with(traceback: Any) -> tuple[State | None, int]:
    """What the function of C that has raised was called with: the state, and the association."""
    values = traceback.tb_frame.f_locals if traceback is not None else {}
    pointer, served = values.get("state", ffi.NULL), values.get("served", 0)
    del values
    if traceback is not None:
        clear_frames(traceback)
    return _states.get(int(ffi.cast("uintptr_t", pointer))), served


def _keep(kind: Any, error: BaseException, traceback: Any) -> int:
    """A method has raised, or a signal handler in it: keep that for whoever serves."""
    state, _ = _called_with(traceback)
    if state is None:
        return LOST
    return LOST if state.transports.keep(bare(error), state.transport) else AGAIN


def _make_again(kind: Any, error: BaseException, traceback: Any) -> Any:
    """A signal handler has raised while a transport was made: keep that, and make it again."""
    state, served = _called_with(traceback)
    if state is None or isinstance(error, MemoryError):
        return ffi.NULL
    state.transports.keep(bare(error), state.transport)
    return state.transport.make(served)


def _keep_only(kind: Any, error: BaseException, traceback: Any) -> None:
    """The same for a function that returns no result."""
    _keep(kind, error, traceback)


E = TypeVar("E", bound=BaseException)


def bare(error: E) -> E:
    """The exception without the frames that it came through. They have views of memory of C; Python
    crashes where its collector finds such a view in a cycle."""
    error.__context__ = None
    return error.with_traceback(None)


@ffi.def_extern(error=ffi.NULL, onerror=_make_again)  # type: ignore[untyped-decorator]
def transport_make(state: Any, served: int) -> Any:
    return _state_of(state).transport.make(served)


@ffi.def_extern(error=LOST, onerror=_keep)  # type: ignore[untyped-decorator]
def transport_open(state: Any, descriptor: int) -> int:
    return int(_state_of(state).transport.open(descriptor))


@ffi.def_extern(error=LOST, onerror=_keep)  # type: ignore[untyped-decorator]
def transport_read(state: Any, descriptor: int, data: Any, room: int, size: Any) -> int:
    view = memoryview(ffi.buffer(data, room))
    return int(_state_of(state).transport.read(descriptor, view, size))


@ffi.def_extern(error=LOST, onerror=_keep)  # type: ignore[untyped-decorator]
def transport_send(state: Any, descriptor: int, output: Any, size: Any) -> int:
    all_parts = (output.parts[i] for i in range(output.count))
    parts = [memoryview(ffi.buffer(part.data, part.size)) for part in all_parts]
    return int(_state_of(state).transport.send(descriptor, parts, size))


@ffi.def_extern(error=0, onerror=_keep_only)  # type: ignore[untyped-decorator]
def transport_pending(state: Any) -> int:
    return int(_state_of(state).transport.pending())


@ffi.def_extern(onerror=_keep_only)  # type: ignore[untyped-decorator]
def transport_close(state: Any, descriptor: int, orderly: int) -> None:
    if orderly and ffi is not None:  # None when the interpreter ends
        _state_of(state).transport.close(descriptor)


@ffi.def_extern(onerror=_keep_only)  # type: ignore[untyped-decorator]
def transport_free(state: Any) -> None:
    if ffi is not None:
        _state_of(state).transports.free(int(ffi.cast("uintptr_t", state)))


class Wire:
    """Reads and sends on the TCP connections of one loop. A signal handler may raise behind any
    call: what had been read and sent by then is found by the next one. (No bytecode lies between a
    call of C and its result in memory of C, nor inside `list.extend(map(...))`.)"""

    def __init__(self) -> None:
        self._room = ffi.new("uint8_t[]", RAW)
        self._raw = memoryview(ffi.buffer(self._room))
        self._got = ffi.new("size_t *")
        """Bytes in the room that nobody has taken."""
        self._take: Callable[[memoryview], object] = len
        """What is to be called with them."""
        self._taken: list[object] = []
        """Its result, where it has been."""
        self.size = 0
        """Bytes that were read last."""

    def read(self, descriptor: int, take: Callable[[memoryview], object]) -> int:
        """Read, and call `take`, a function of C, with the bytes."""
        self.settle()
        self._take = take
        result = lib.ltdic_tcp_read(descriptor, self._room, RAW, self._got)
        self.size = self._got[0]
        self.settle()
        return int(result)

    def settle(self) -> None:
        """Give the bytes that were read to whoever they are for."""
        if not self._taken and self._got[0]:
            self._taken.extend(map(self._take, [self._raw[: self._got[0]]]))
        self._got[0], self._taken = 0, []


class Outbox:
    """What waits to be sent on one TCP connection."""

    def __init__(self, fill: Callable[[], bytes]) -> None:
        """`fill`, a function of C, gives the next bytes to send; none: there are no more."""
        self._fill = fill
        self._pieces: list[bytes] = []
        self._at = 0
        """Bytes of the first piece that have gone."""
        self._sent = ffi.new("size_t *")
        """Bytes that have gone beside those."""

    def flush(self, descriptor: int) -> int:
        """Send. DONE where all has gone."""
        while True:
            self._at, self._sent[0] = self._at + self._sent[0], 0
            if self._pieces and self._at == len(self._pieces[0]):
                self._pieces, self._at = [], 0
            if not self._pieces:
                self._pieces.extend(map(_call, [self._fill]))
            if not self._pieces[0]:
                return DONE
            raw = ffi.from_buffer(self._pieces[0])
            rest = raw + self._at, len(raw) - self._at
            result = int(lib.ltdic_tcp_send(descriptor, rest, self._sent))
            if result != DONE:
                return result


_call = methodcaller("__call__")
