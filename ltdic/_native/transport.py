"""Transports in Python: `ltdic_transport`, whose functions call the methods of an object."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from .._ffi import ffi, lib

DONE: int = lib.LTDIC_TRANSPORT_DONE
WANT_READ: int = lib.LTDIC_TRANSPORT_WANT_READ
WANT_WRITE: int = lib.LTDIC_TRANSPORT_WANT_WRITE
END: int = lib.LTDIC_TRANSPORT_END
LOST: int = lib.LTDIC_TRANSPORT_LOST

RAW = 0x10000
"""Bytes that are read from a TCP connection at once."""


class Transport(Protocol):
    """What C calls for one connection. `descriptor` is its TCP connection. Each method returns an
    `ltdic_transport_result`, `read` and `send` also how many bytes. What they raise ends the
    connection, and is kept in the `Transports` that it belongs to."""

    def open(self, descriptor: int) -> int: ...
    def read(self, descriptor: int, room: memoryview) -> tuple[int, int]: ...
    def send(self, descriptor: int, parts: list[memoryview]) -> tuple[int, int]: ...
    def close(self, descriptor: int) -> None: ...


class Transports:
    """The transports of the connections of one loop. They live until C frees them."""

    def __init__(self) -> None:
        self._raised: BaseException | None = None
        """What a method of one of them has raised."""
        self._handles: dict[int, Any] = {}
        self.served: dict[int, Transport] = {}
        """By the number of the association, at a server."""

    def add(self, transport: Transport, served: int = 0) -> Any:
        """Return the state that C gets for it."""
        handle = ffi.new_handle((self, transport, served))
        self._handles[int(ffi.cast("uintptr_t", handle))] = handle
        if served:
            self.served[served] = transport
        return handle

    def keep(self, error: BaseException) -> None:
        self._raised = self._raised or error

    def raise_kept(self) -> None:
        """Raise what a method of one of them has raised, once."""
        error, self._raised = self._raised, None
        if error is not None:
            raise error

    def free(self, state: Any, served: int) -> None:
        self._handles.pop(int(ffi.cast("uintptr_t", state)), None)
        self.served.pop(served, None)


class Maker:
    """Makes the transport of each connection of a server: `user` of `ltdic_make_transport`."""

    def __init__(self, transports: Transports, make: Callable[[], Transport]) -> None:
        self.transports, self.make = transports, make
        self.handle = ffi.new_handle(self)


def table() -> Any:
    """An `ltdic_transport`."""
    size = ffi.sizeof("ltdic_transport")
    functions = (lib.transport_open, lib.transport_read, lib.transport_send, lib.transport_close)
    return ffi.new("ltdic_transport *", (size, *functions, lib.transport_free))


TABLE = table()


def _keep(kind: Any, error: BaseException, traceback: Any) -> None:
    """A method has raised, or a signal handler in it: the connection is lost, and whoever serves it
    is told."""
    values = traceback.tb_frame.f_locals if traceback is not None else {}
    state = values.get("state")
    if state is None:
        return
    owner = ffi.from_handle(state)
    transports = owner.transports if isinstance(owner, Maker) else owner[0]
    transports.keep(error)


@ffi.def_extern(error=ffi.NULL, onerror=_keep)  # type: ignore[untyped-decorator]
def transport_make(state: Any, served: int) -> Any:
    maker: Maker = ffi.from_handle(state)
    return maker.transports.add(maker.make(), served)


@ffi.def_extern(error=LOST, onerror=_keep)  # type: ignore[untyped-decorator]
def transport_open(state: Any, descriptor: int) -> int:
    transport: Transport = ffi.from_handle(state)[1]
    return transport.open(descriptor)


@ffi.def_extern(error=LOST, onerror=_keep)  # type: ignore[untyped-decorator]
def transport_read(state: Any, descriptor: int, data: Any, room: int, size: Any) -> int:
    transport: Transport = ffi.from_handle(state)[1]
    result, size[0] = transport.read(descriptor, memoryview(ffi.buffer(data, room)))
    return result


@ffi.def_extern(error=LOST, onerror=_keep)  # type: ignore[untyped-decorator]
def transport_send(state: Any, descriptor: int, output: Any, size: Any) -> int:
    transport: Transport = ffi.from_handle(state)[1]
    all_parts = (output.parts[i] for i in range(output.count))
    parts = [memoryview(ffi.buffer(part.data, part.size)) for part in all_parts]
    result, size[0] = transport.send(descriptor, parts)
    return result


@ffi.def_extern(onerror=_keep)  # type: ignore[untyped-decorator]
def transport_close(state: Any, descriptor: int, orderly: int) -> None:
    if orderly and ffi is not None:  # None when the interpreter ends
        transport: Transport = ffi.from_handle(state)[1]
        transport.close(descriptor)


@ffi.def_extern(onerror=_keep)  # type: ignore[untyped-decorator]
def transport_free(state: Any) -> None:
    if ffi is not None:
        transports, _, served = ffi.from_handle(state)
        transports.free(state, served)


class Wire:
    """Reads and sends on TCP connections, with memory of its own to read into. For one thread."""

    def __init__(self) -> None:
        self._room = ffi.new("uint8_t[]", RAW)
        self._raw = memoryview(ffi.buffer(self._room))
        self._size = ffi.new("size_t *")

    def read(self, descriptor: int) -> tuple[int, memoryview]:
        """The result, and bytes that are valid until it reads again."""
        result = lib.ltdic_tcp_read(descriptor, self._room, RAW, self._size)
        return result, self._raw[: self._size[0]]

    def send(self, descriptor: int, data: memoryview) -> tuple[int, int]:
        """The result, and how many bytes were sent."""
        raw = ffi.from_buffer(data)
        result = lib.ltdic_tcp_send(descriptor, (raw, len(raw)), self._size)
        return result, self._size[0]
