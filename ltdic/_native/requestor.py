"""Associations as requestor: `ltdic_requestor`, and its endpoints."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from typing import Any, NamedTuple

from .._ffi import ffi, lib
from . import engine, net, transport
from .codec import Buffer, bytes_of
from .loop import BatchLoop, Call

CONNECTED: int = lib.LTDIC_REQUESTED_CONNECTED
FAILED: int = lib.LTDIC_REQUESTED_FAILED
DATA: int = lib.LTDIC_REQUESTED_DATA
PDU: int = lib.LTDIC_REQUESTED_PDU
FAULT: int = lib.LTDIC_REQUESTED_FAULT
CLOSED: int = lib.LTDIC_REQUESTED_CLOSED
ROOM: int = lib.LTDIC_REQUESTED_ROOM

INTERRUPTED: int = lib.LTDIC_ERR_INTERRUPTED


class RequestedEvent(NamedTuple):
    """An `ltdic_event_row` and its bytes, read-only."""

    number: int
    kind: int
    status: int
    id: int
    control: int
    place: int
    wire: int
    data: memoryview


def _destructor(freed: list[Any]) -> Callable[[Any], None]:
    free = lib.ltdic_loop_free

    def destructor(loop: Any) -> None:
        freed.extend(map(free, [loop]))  # without a bytecode between: a signal handler may raise

    return destructor


class _Loops(list["RequestorLoop"]):
    """Loops that are freed with it: associations that had them may live longer."""

    def __del__(self) -> None:
        for loop in self:
            loop.free()


class _Spares(threading.local):
    """A loop that a thread has for its next association: to make and to free one takes a quarter of
    the time of a short association. It has three descriptors and 256 KiB, until the thread ends."""

    def __init__(self) -> None:
        self.loops = _Loops()


_spares = _Spares()


class RequestorLoop(BatchLoop[RequestedEvent]):
    """`ltdic_requestor`, on a loop of its own."""

    def __init__(self) -> None:
        """Raises `OSError` without descriptors."""
        try:
            super().__init__(_destructor)
        except MemoryError:
            raise OSError(ffi.errno, os.strerror(ffi.errno)) from None
        self._requestor = lib.ltdic_requestor_new(self._loop)
        if self._requestor == ffi.NULL:
            raise MemoryError

    @staticmethod
    def of_thread() -> RequestorLoop:
        """The spare loop of this thread, else a new one."""
        with suppress(IndexError):
            return _spares.loops.pop()
        return RequestorLoop()

    def give_back(self) -> None:
        """Keep it for the next association of this thread, if there is none yet."""
        if self.is_freed:
            return
        self._begin()
        self.rest()
        if _spares.loops or self._transports.were_used:
            self.free()
        else:
            _spares.loops.append(self)

    def run(self, most: int) -> int:
        """`ltdic_requestor_run`; `most` in milliseconds. The GIL is released. All events must have
        been taken; those of a run that a signal's exception has ended are there, too."""
        self._begin()
        status = int(lib.ltdic_requestor_run(self._requestor, self._batch, most))
        self._transports.raise_kept()
        return status

    def send_data(
        self, link: Link, context_id: int, control: int, data: Buffer | None, most: int
    ) -> int:
        """`ltdic_requestor_send_data`. The events are as those of `run`."""
        self._begin()
        pdv = ffi.NULL
        if data is not None:
            address, size, _owner = engine.lent(data)
            pdv = ffi.new("ltdic_pdv *", (context_id, control, (address, size)))
        status = int(
            lib.ltdic_requestor_send_data(self._requestor, link.pointer, pdv, self._batch, most)
        )
        self._transports.raise_kept()
        return status

    def raise_kept(self) -> None:
        """Raise what a signal handler has raised while C called a transport."""
        self._transports.raise_kept()

    def _memory(self) -> tuple[Any, Any, Any]:
        return lib.ltdic_requestor_take_data, lib.ltdic_requestor_use_data, self._requestor

    def _event(self, place: int, row: Any, data: memoryview) -> RequestedEvent:
        part = data[row.offset : row.offset + row.length]
        told = row.served, row.kind, row.status, row.id, row.control, row.place, row.wire
        return RequestedEvent(*told, part)

    def free(self) -> None:
        """Free it with its links now. Where the interpreter ends, and has cleared this module, that
        is left to the destructor."""
        if ffi is None:
            return
        with self._lock:
            if not self._freed:
                ffi.release(self._loop)
                self._transports.clear()

    def abandon(self) -> None:
        """Neither use it nor free it any more."""
        ffi.gc(self._loop, None)
        self._freed.append(True)


_numbers = count(1)


class Link:
    """An endpoint of a `RequestorLoop`. After `close`, or when its loop is freed, it is idle for
    ever."""

    def __init__(self, loop: RequestorLoop) -> None:
        self.number = next(_numbers)
        self._loop = loop
        self.pointer = lib.ltdic_requestor_net(loop._requestor, self.number)
        if self.pointer == ffi.NULL:
            raise MemoryError
        self._freeing = Call(lib.ltdic_net_free, self.pointer)

    @property
    def is_closed(self) -> bool:
        return self._freeing.is_made or self._loop.is_freed

    def secure(self, one: transport.Transport) -> None:
        """`ltdic_net_set_transport`."""
        number = self._loop._transports.add(one)
        lib.ltdic_net_set_transport(self.pointer, transport.TABLE, transport.pointer_of(number))

    def set_timeouts(self, timeout: float | None) -> None:
        lib.ltdic_net_set_timeouts(self.pointer, engine.timeouts(timeout, timeout, None))

    def connect(self, lookup: net.Lookup) -> None:
        """`ltdic_net_connect_to`. Raises `OSError`."""
        status = lib.ltdic_net_connect_to(self.pointer, lookup.pointer)
        if status != 0:
            raise self.error_of(status)

    def error_of(self, status: int) -> Exception:
        """Why there is no connection."""
        return net.error_of_cause(status, lib.ltdic_net_cause(self.pointer))

    def send(self, pdu: bytes) -> int:
        """`ltdic_net_send`."""
        if self.is_closed:
            return int(lib.LTDIC_ERR_WRONG_STATE)
        return int(lib.ltdic_net_send(self.pointer, bytes_of(pdu)))

    def send_data(self, context_id: int, control: int, data: Buffer) -> int:
        """`ltdic_net_send_data`."""
        if self.is_closed:
            return int(lib.LTDIC_ERR_WRONG_STATE)
        address, size, _owner = engine.lent(data)
        pdv = ffi.new("ltdic_pdv *", (context_id, control, (address, size)))
        return int(lib.ltdic_net_send_data(self.pointer, pdv))

    def hold(self, held: bool) -> None:
        if not self.is_closed:
            lib.ltdic_net_hold(self.pointer, held)

    @property
    def state(self) -> int:
        """The number of its state in PS3.8 9.2.1."""
        return engine.IDLE if self.is_closed else int(lib.ltdic_net_state(self.pointer))

    @property
    def sent(self) -> int:
        """Bytes that the system, or TLS, has taken."""
        return 0 if self.is_closed else int(lib.ltdic_net_sent(self.pointer))

    @property
    def taken(self) -> int:
        """Bytes that have reached the peer's system, as far as that is known."""
        return 0 if self.is_closed else int(lib.ltdic_net_taken(self.pointer))

    @property
    def descriptor(self) -> int:
        return -1 if self.is_closed else int(lib.ltdic_net_descriptor(self.pointer))

    def close(self) -> None:
        """`ltdic_net_free`."""
        if not self.is_closed:
            self._freeing.make()
            self._loop.raise_kept()
