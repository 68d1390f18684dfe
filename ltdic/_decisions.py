"""Threads in which `on_request` runs, so that one that takes long holds up nobody else."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from queue import SimpleQueue
from typing import Any

THREADS = 16
PATIENCE = 0.001
"""Seconds that the serving thread waits for a decision: most take less, and no other thread has to
be woken then."""
REST = 64
"""Decisions that it does not wait for after one that took longer."""


class Decision:
    """A call to `on_request` and, in the end, what the request is answered with."""

    def __init__(self, subject: Any, decide: Callable[[Any], bytes]) -> None:
        self.subject = subject
        self._decide = decide
        self.answer = b""
        self._done = threading.Lock()
        self._done.acquire()
        self._taken = threading.Lock()

    def run(self) -> bool:
        """In its thread. False if nobody waits for it any more."""
        self.answer = self._decide(self.subject)
        waits = self._taken.acquire(blocking=False)
        self._done.release()
        return waits

    def is_made(self, patience: float) -> bool:
        """Wait for it for so long; after False, `run` says that nobody waits."""
        made = self._done.acquire(timeout=patience)
        return made or not self._taken.acquire(blocking=False)


class Decisions:
    """The threads, started as they are needed, and the decisions that the serving thread has asked
    for and not seen yet."""

    def __init__(self, decide: Callable[[Any], bytes], late: Callable[[Decision], None]) -> None:
        """`late` is called, in a thread of these, with a decision that nobody waits for."""
        self._decide, self._late = decide, late
        self._begin()

    def _begin(self) -> None:
        self._process = os.getpid()
        self._queue: SimpleQueue[Decision | None] = SimpleQueue()
        self._idle: deque[None] = deque()  # one for each thread that waits for a decision
        self._threads = 0
        self._asked: deque[Decision] = deque()
        self._rest = 0

    def ask(self, subject: Any) -> None:
        if self._process != os.getpid():  # a child has none of the threads
            self._begin()
        decision = Decision(subject, self._decide)
        try:
            self._idle.pop()
        except IndexError:
            self._start()
        self._asked.append(decision)
        self._queue.put(decision)

    def _start(self) -> None:
        if self._threads < THREADS:
            self._threads += 1
            name = f"ltdic-on_request-{self._threads}"
            threading.Thread(target=self._work, name=name, daemon=True).start()

    def made(self) -> Iterator[Decision]:
        """Those asked for that are made by now, or soon; the others are `late`. What interrupts the
        wait for one leaves it there."""
        while self._asked:
            decision, patient = self._asked[0], self._rest == 0
            if decision.is_made(PATIENCE if patient else 0):
                yield decision
            elif patient:
                self._rest = REST
            self._rest -= not patient
            self._asked.popleft()

    def end(self) -> None:
        for _ in range(self._threads):
            self._queue.put(None)

    def _work(self) -> None:
        while (decision := self._queue.get()) is not None:
            if not decision.run():
                self._late(decision)
            self._idle.append(None)
