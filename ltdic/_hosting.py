"""Hosts a loop of C in an asyncio event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol
from weakref import WeakMethod

LONGEST = 3_600_000
"""Milliseconds until the loop of C is looked at, even where it has nothing to do."""


class Hosted(Protocol):
    """A loop of C. Only one thread at a time may use it, but for `wake`."""

    @property
    def descriptor(self) -> int: ...
    def timeout(self, most: int) -> int: ...
    def wait(self, most: int) -> None: ...
    def wake(self) -> None: ...


class Hosting:
    """Calls `work` in an event loop whenever a loop of C has something to do. It has no reference
    to the object whose method `work` is."""

    def __init__(self, hosted: Hosted, work: Callable[[], None]) -> None:
        self._hosted = hosted
        self._work = WeakMethod(work)
        self._loop = asyncio.get_running_loop()
        self._is_due = False
        self._timer: asyncio.TimerHandle | None = None
        self._fires = 0.0
        self._ended = False
        self.keeps: object = None
        """An object that is kept alive."""
        self._descriptor = hosted.descriptor
        self._waiter: _Waiter | None = None
        if self._descriptor >= 0:
            self._loop.add_reader(self._descriptor, self._run)
        else:
            self._waiter = _Waiter(hosted, self._loop, self._run)
        self.touch()

    def touch(self) -> None:
        """Call this before the loop of C is used outside `work`, which then follows."""
        if self._waiter is not None:
            self._waiter.stop()
        if not self._is_due and not self._ended and not self._loop.is_closed():
            self._is_due = True
            self._loop.call_soon(self._run)

    def _run(self) -> None:
        self._is_due = False
        work = self._work()
        if work is None or self._ended:
            return
        if self._waiter is not None:
            self._waiter.stop()
        try:
            work()
        finally:
            if not self._ended:
                self._wait()

    def _wait(self) -> None:
        """Wait until there is something to do."""
        most = self._hosted.timeout(LONGEST)
        if most == 0:
            self.touch()
        elif self._waiter is not None:
            self._waiter.start(most)
        elif most < LONGEST:
            self._set_timer(self._loop.time() + most / 1000)

    def _set_timer(self, when: float) -> None:
        """One that fires too early is set again then."""
        if self._timer is not None and self._fires <= when:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._fires = when
        self._timer = self._loop.call_at(when, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._run()

    def end(self) -> None:
        """Call nothing any more. In the thread of the event loop."""
        self._ended, self.keeps = True, None
        if self._timer is not None:
            self._timer.cancel()
        if self._waiter is not None:
            self._waiter.end()
        elif not self._loop.is_closed():
            self._loop.remove_reader(self._descriptor)


class _Waiter:
    """A thread that waits for a loop of C that has no descriptor to wait for. While it waits,
    nobody else uses that loop."""

    def __init__(
        self, hosted: Hosted, loop: asyncio.AbstractEventLoop, found: Callable[[], None]
    ) -> None:
        self._hosted, self._loop, self._found = hosted, loop, found
        self._is_waiting = False
        self._most = 0
        self._begin, self._returned = threading.Semaphore(0), threading.Semaphore(0)
        threading.Thread(target=self._serve, name="ltdic-waiter", daemon=True).start()

    def _serve(self) -> None:
        while True:
            self._begin.acquire()
            if self._most < 0:
                return
            self._hosted.wait(self._most)
            self._returned.release()
            with suppress(RuntimeError):  # the event loop is closed
                self._loop.call_soon_threadsafe(self._found)

    def start(self, most: int) -> None:
        if not self._is_waiting:
            self._is_waiting, self._most = True, most
            self._begin.release()

    def stop(self) -> None:
        """Return when it does not wait any more, which is at once."""
        if not self._is_waiting:
            return
        if not self._returned.acquire(blocking=False):
            self._hosted.wake()
            self._returned.acquire()
        self._is_waiting = False

    def end(self) -> None:
        self.stop()
        self._most = -1
        self._begin.release()
