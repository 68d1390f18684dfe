"""Whose turn it is to send on one association, so that nobody's bytes come into another's message.

A message is a command, and a data set where the command announces one (PS3.7 6.3.1). While somebody
sends one of them nobody else does. Between a command and its data set no other thread or task may
send a command; the data set may come from any of them.
"""

from __future__ import annotations

import asyncio
import struct
import threading

from .errors import LocalError

NO_DATA_SET = 0x0101
"""Command Data Set Type (0000,0800) of a command without a data set (PS3.7 E.1)."""
_DATA_SET_TYPE = (0, 0x0800)

SENDING = "another thread is sending"
OPEN = "another thread has sent a command, and not yet the data set that it announces (PS3.7 6.3.1)"


def announces_data_set(command: bytes | memoryview) -> bool:
    """Whether a command set says that a data set follows. False where it cannot be read."""
    at = 0
    while at + 8 <= len(command):
        group, element, size = struct.unpack_from("<HHL", command, at)
        if (group, element) == _DATA_SET_TYPE and size == 2 and at + 10 <= len(command):
            return bool(struct.unpack_from("<H", command, at + 8)[0] != NO_DATA_SET)
        at += 8 + size
    return False


class Turns:
    """The turns of threads."""

    def __init__(self) -> None:
        self._changed = threading.Condition()  # whose lock a signal handler may take again
        self._sender: int | None = None
        self._opener: int | None = None
        """The thread whose command waits for its data set."""
        self._over = False

    def refuse_nested(self) -> None:
        """Raises `LocalError` in a signal handler that has interrupted a send of its thread."""
        if self._sender == threading.get_ident():
            raise LocalError("what a signal has interrupted is sending")

    def begin(self, is_command: bool, waits: bool, patience: float | None) -> None:
        """Take the turn. Without `waits` it is had now or not at all. `patience` is the time in
        seconds that another thread has between a command and its data set. Raises `LocalError`."""
        me = threading.get_ident()

        def is_free() -> bool:
            idle = self._sender is None
            return self._over or (idle and not (is_command and self._opener not in (None, me)))

        with self._changed:
            if not waits and not is_free():
                raise LocalError(SENDING)
            while not is_free():
                was_idle = self._sender is None
                if not self._changed.wait(patience) and was_idle and self._sender is None:
                    raise LocalError(OPEN)
            self._sender = me

    def end(self, opens: bool) -> None:
        """Give the turn back, if this thread has it. `opens`: a data set has to follow."""
        with self._changed:
            if self._sender == threading.get_ident():
                self._opener = self._sender if opens else None
                self._sender = None
                self._changed.notify_all()

    def stop(self) -> None:
        """The association is over: nobody has to wait."""
        with self._changed:
            self._over = True
            self._changed.notify_all()


class AsyncTurns:
    """The turns of tasks."""

    def __init__(self) -> None:
        self._sender: object = None
        self._opener: object = None
        self._over = False
        self._waiters: list[asyncio.Future[None]] = []

    async def begin(self, is_command: bool, patience: float | None) -> None:
        """As `Turns.begin`."""
        me = asyncio.current_task()
        while not self._is_free(is_command, me):
            was_idle = self._sender is None
            if not await self._change(patience) and was_idle and self._sender is None:
                raise LocalError(OPEN.replace("thread", "task"))
        self._sender = me

    def _is_free(self, is_command: bool, me: object) -> bool:
        idle = self._sender is None
        return self._over or (idle and not (is_command and self._opener not in (None, me)))

    async def _change(self, patience: float | None) -> bool:
        """Wait until something has changed; False where the time was up before."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            async with asyncio.timeout(patience):
                await waiter
        except TimeoutError:
            return False
        finally:
            self._waiters.remove(waiter)
        return True

    def end(self, opens: bool) -> None:
        """As `Turns.end`."""
        if self._sender is asyncio.current_task():
            self._opener = self._sender if opens else None
            self._sender = None
            self._wake()

    def stop(self) -> None:
        """As `Turns.stop`."""
        self._over = True
        self._wake()

    def _wake(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
