"""Decides which thread or task may send on an association, so that parts of two messages never mix.

A message is a command and, if the command announces one, a data set (PS3.7 6.3.1). Only one thread
or task sends a command or data set at a time. Between a command and its data set no other one may
send a command; any of them may send the data set.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from contextlib import suppress

from .errors import LocalError

SENDING = "another thread is sending"
BROKEN = "a command or data set was not sent to its end: only abort is left to do (PS3.8 E.1)"
OPEN = "another thread has sent a command, and not yet the data set that it announces (PS3.7 6.3.1)"


_thread = threading.local()


def this_thread() -> object:
    """Return an object that stands for this thread. The number of a thread would not do: another
    thread may get it later."""
    if not hasattr(_thread, "identity"):
        _thread.identity = object()
    return _thread.identity


class Signal:
    """A flag that is set once, for which threads can wait. Unlike `threading.Event` it stays usable
    if a signal handler raises in the middle of `set`: it is a lock of C."""

    def __init__(self) -> None:
        self.is_set = False
        self._lock = threading.Lock()
        self._lock.acquire()

    def set(self) -> None:
        """Set the flag. Setting it again changes nothing."""
        with suppress(RuntimeError):
            self._lock.release()
        self.is_set = True  # last: after an exception before this, `set` is called again

    def wait(self, timeout: float | None) -> bool:
        """Wait until it is set, for `timeout` seconds at most. Return whether it is set."""
        if not self.is_set and self._lock.acquire(timeout=-1 if timeout is None else timeout):
            self.set()  # wakes the next thread that waits
        return self.is_set


class MessageOrder:
    """The order in which threads send their messages."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # reentrant, for signal handlers
        self._sender: object = None
        self._opener: object = None
        """The thread whose command waits for its data set."""
        self._is_broken = False
        self._queue: deque[object] = deque()
        """Tickets of the threads that wait, in the order of their calls."""
        self._over = False
        self._changed = Signal()
        """Set, and replaced by another one, whenever something changes."""

    def refuse_nested(self) -> None:
        """Raise `LocalError` in a signal handler that has interrupted a send of its own thread."""
        if self._sender is this_thread():
            raise LocalError("what a signal has interrupted is sending")

    def begin(self, is_command: bool, waits: bool, patience: float | None) -> None:
        """Wait until this thread may send, after those that wait already. Without `waits` it does
        not wait: it goes before them, or raises. `patience` is the time in seconds that another
        thread has between a command and its data set; None: no limit. Raises `LocalError`."""
        ticket = object()
        if self._is_broken:
            raise LocalError(BROKEN)
        try:
            while (changed := self._take(is_command, ticket, waits)) is not None:
                if not waits:
                    raise LocalError(SENDING)
                was_idle = self._sender is None
                if not changed.wait(patience) and was_idle and self._sender is None:
                    raise LocalError(OPEN)
                if self._is_broken:
                    raise LocalError(BROKEN)
        finally:
            self._leave(ticket)

    def _leave(self, ticket: object) -> None:
        """Remove a ticket from the queue: the thread behind it may be the next one."""
        with self._lock:
            if ticket in self._queue:
                self._queue.remove(ticket)
                self._notify()

    def _take(self, is_command: bool, ticket: object, waits: bool) -> Signal | None:
        """Let this thread send, if no other does, and return None; else return the signal of the
        next change."""
        me = this_thread()
        with self._lock:
            goes_on = self._opener is not None and (not is_command or self._opener is me)
            first = not self._queue or self._queue[0] is ticket or not waits
            is_next = self._opener is None and first
            if self._over or (self._sender is None and (goes_on or is_next)):
                self._sender = me
                return None
            if waits and ticket not in self._queue:
                self._queue.append(ticket)
            return self._changed

    def end(self, opens: bool, broken: bool = False) -> None:
        """End a send of this thread, so that others can send. `opens`: a data set has to follow.
        `broken`: the command or data set is incomplete, so no thread can send any more. Does
        nothing if this thread was not sending."""
        if self._sender is this_thread():
            with self._lock:
                self._is_broken = self._is_broken or broken
                self._opener = self._sender if opens else None
                self._sender = None
                self._notify()

    def stop(self) -> None:
        """End all waits: the association has ended."""
        with self._lock:
            self._over = True
            self._notify()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = Signal()


class Waiters:
    """Tasks that wait for a change."""

    def __init__(self) -> None:
        self._waiting: set[asyncio.Future[None]] = set()

    async def change(self, patience: float | None) -> bool:
        """Wait until something changes, for `patience` seconds at most. Return whether it did."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiting.add(waiter)
        try:
            async with asyncio.timeout(patience):
                await waiter
        except TimeoutError:
            return False
        finally:
            self._waiting.discard(waiter)
        return True

    def wake(self) -> None:
        if not self._waiting:
            return
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_result(None)


class AsyncMessageOrder:
    """The order in which tasks send their messages."""

    def __init__(self) -> None:
        self._sender: object = None
        self._opener: object = None
        self._queue: deque[object] = deque()
        self._is_broken = False
        self._over = False
        self._waiters = Waiters()

    @property
    def is_broken(self) -> bool:
        """True when a command or data set was not sent to its end, and never will be."""
        return self._is_broken

    async def begin(self, is_command: bool, patience: float | None) -> None:
        """Wait as `MessageOrder.begin` does."""
        me, ticket = asyncio.current_task(), object()
        self._queue.append(ticket)
        try:
            if self._is_broken:
                raise LocalError(BROKEN)
            while not self._is_free(is_command, me, ticket):
                was_idle = self._sender is None
                if not await self._waiters.change(patience) and was_idle and self._sender is None:
                    raise LocalError(OPEN.replace("thread", "task"))
                if self._is_broken:
                    raise LocalError(BROKEN)
        finally:
            self._queue.remove(ticket)
            self._waiters.wake()  # the task behind it may be the next one
        self._sender = me

    def _is_free(self, is_command: bool, me: object, ticket: object) -> bool:
        goes_on = self._opener is not None and (not is_command or self._opener is me)
        is_next = self._opener is None and self._queue[0] is ticket
        return self._over or (self._sender is None and (goes_on or is_next))

    def end(self, opens: bool, broken: bool = False) -> None:
        """Let others send as `MessageOrder.end` does."""
        if self._sender is asyncio.current_task():
            self._is_broken = self._is_broken or broken
            self._opener = self._sender if opens else None
            self._sender = None
            self._waiters.wake()

    def stop(self) -> None:
        """End all waits: the association has ended."""
        self._over = True
        self._waiters.wake()
