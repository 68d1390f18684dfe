"""After fork() in a child process: open connections belong to the parent, so the child does not use
them."""

from __future__ import annotations

import os
import socket
import weakref
from contextlib import ExitStack
from typing import Any

_watched: weakref.WeakSet[Any] = weakref.WeakSet()
_nobody: socket.socket | None = None
"""One end of a connection whose other end is closed."""


def watch(one: Any) -> None:
    """Register an object whose `_leave_to_parent()` is to be called in each child process. Raises
    `OSError` without a descriptor for `cut_off`, which may find none in a child process."""
    _make_nobody()
    _watched.add(one)


def _make_nobody() -> socket.socket:
    global _nobody
    if _nobody is None:
        _nobody, other = socket.socketpair()
        other.close()
        _nobody.setblocking(False)
    return _nobody


def cut_off(fd: int) -> None:
    """Replace the socket of a descriptor by one whose peer is closed. Then bytes that this process
    sends are not received, and its calls to a poller shared with the parent have no effect on the
    parent's connection."""
    if fd >= 0:
        os.dup2(_make_nobody().fileno(), fd, inheritable=False)


def has(lock: Any) -> bool:
    """Tell whether this thread holds the RLock or can acquire it. False if another thread held it
    during fork()."""
    can: bool = lock.acquire(blocking=False)
    if can:
        lock.release()
    return can


def _leave_all() -> None:
    with ExitStack() as stack:  # which calls all of them, whatever one raises
        for one in list(_watched):
            stack.callback(one._leave_to_parent)


os.register_at_fork(after_in_child=_leave_all)
