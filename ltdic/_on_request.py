"""Threads in which `on_request` runs, so that a slow one does not delay other associations."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from ._threads import Task, Threads

MOST_UNDECIDED = 256
"""Requests that may wait for a decision; those beyond it are rejected with 2/3/1."""
MOST_UNDECIDED_BYTES = 64 << 20
"""Bytes of all those requests together."""
PATIENCE = 0.001
"""Seconds that the serving thread waits for a decision. Most take less; then the thread that
decides need not wake it."""
REST = 64
"""Number of decisions for which it does not wait, after one that took longer."""


class Undecided:
    """The requests that wait for a decision, and the limits on them."""

    def __init__(self) -> None:
        self._sizes: dict[Any, int] = {}

    def add(self, request: Any, size: int) -> bool:
        """Add a request of `size` bytes. Return False if there are too many; True also if it was
        added before."""
        if request in self._sizes:
            return True
        total = sum(self._sizes.values()) + size
        if len(self._sizes) >= MOST_UNDECIDED or total > MOST_UNDECIDED_BYTES:
            return False
        self._sizes[request] = size
        return True

    def remove(self, request: Any) -> None:
        """Remove a request that is decided, or whose decision is not needed any more."""
        self._sizes.pop(request, None)


class PendingDecision(Task):
    """A call to `on_request` and, after it, the answer to the request."""

    def __init__(
        self,
        subject: Any,
        decide: Callable[[Any], bytes],
        late: Callable[[PendingDecision], None],
    ) -> None:
        """`late` is called, in the thread, if the decision is made after `is_made` returned
        False."""
        super().__init__(partial(decide, subject))
        self.subject = subject
        self._late = late
        self.answer = b""
        self._done = threading.Lock()
        self._done.acquire()
        self._taken = threading.Lock()

    def _do(self) -> None:
        self.answer = self._function()
        waits = self._taken.acquire(blocking=False)
        self._done.release()
        if not waits:
            self._late(self)

    def is_made(self, patience: float) -> bool:
        """Wait for the decision, for `patience` seconds. After False it is late."""
        made = self._done.acquire(timeout=patience)
        return made or not self._taken.acquire(blocking=False)


class PendingDecisions:
    """The decisions that the serving thread has asked for and not received yet."""

    def __init__(self) -> None:
        self._threads = Threads("ltdic-on_request")
        self._asked: deque[PendingDecision] = deque()
        self._rest = 0

    def ask(self, decision: PendingDecision) -> bool:
        """Have a thread decide. Return False if there is no thread. Asking again for the same
        decision changes nothing."""
        if decision not in self._asked:
            self._asked.append(decision)
        return self._threads.submit(decision)

    def forget(self, decision: PendingDecision) -> None:
        """Drop a decision that is not needed any more."""
        self._threads.forget(decision)

    def made(self) -> Iterator[PendingDecision]:
        """Yield the decisions that are made, or are made within PATIENCE; the others become late.
        If the caller's code raises for one of them, it stays and is yielded again."""
        while self._asked:
            decision, patient = self._asked[0], self._rest == 0
            if decision.is_made(PATIENCE if patient else 0):
                yield decision
            elif patient:
                self._rest = REST
            self._rest -= not patient
            self._asked.popleft()

    def end(self) -> None:
        self._threads.end()
