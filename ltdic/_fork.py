"""A child process after fork(): connections that were open are its parent's, and are left alone."""

from __future__ import annotations

import os
import socket
import weakref
from typing import Any

_watched: weakref.WeakSet[Any] = weakref.WeakSet()
_nobody: socket.socket | None = None
"""One end of a connection whose other end is closed."""


def watch(one: Any) -> None:
    """Have `one._leave_to_parent()` called in each child process."""
    _watched.add(one)


def cut_off(fd: int) -> None:
    """Replace the socket of a descriptor by one whose peer has gone. What this process then sends
    reaches nobody, and what it does to a poller that it shares with its parent changes nothing."""
    global _nobody
    if _nobody is None:
        _nobody, other = socket.socketpair()
        other.close()
        _nobody.setblocking(False)
    if fd >= 0:
        os.dup2(_nobody.fileno(), fd, inheritable=False)


def has(lock: Any) -> bool:
    """Can this thread have the RLock, or has it? False where a thread of the parent had it."""
    can: bool = lock.acquire(blocking=False)
    if can:
        lock.release()
    return can


def _leave_all() -> None:
    for one in list(_watched):
        one._leave_to_parent()


os.register_at_fork(after_in_child=_leave_all)
