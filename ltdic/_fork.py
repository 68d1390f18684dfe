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
    """Register an object whose `_leave_to_parent()` is to be called in each child process."""
    _watched.add(one)


def cut_off(fd: int) -> None:
    """Replace the socket of a descriptor by one whose peer is closed. Then bytes that this process
    sends are not received, and its calls to a poller shared with the parent have no effect on the
    parent's connection."""
    global _nobody
    if fd < 0:
        return
    if _nobody is None:
        try:
            _nobody, other = socket.socketpair()
        except OSError:
            _disconnect(fd)
            return
        other.close()
        _nobody.setblocking(False)
    os.dup2(_nobody.fileno(), fd, inheritable=False)


def _disconnect(fd: int) -> None:
    """Replace it by a socket that never was connected, which needs no other descriptor."""
    os.close(fd)
    new = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    new.setblocking(False)
    if new.fileno() == fd:
        new.detach()
    else:
        os.dup2(new.fileno(), fd, inheritable=False)
        new.close()


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
