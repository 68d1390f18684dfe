"""Makes TCP connections, in C: `dial` blocks, `dial_async` is for asyncio."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from concurrent.futures import Future, ThreadPoolExecutor

from ._native import net

ROUND = 500
"""Milliseconds of one wait. A signal that comes just before a wait is noticed after it."""
THREADS = 256
"""Number of connections that asyncio may make at the same time."""

Address = tuple[str, int]
Begin = tuple[Address, Address | None, float | None]
"""The arguments of `Dialer.begin`."""


def dial(address: Address, local: Address | None, timeout: float | None) -> socket.socket:
    """Connect, and return a non-blocking socket. Raises `OSError`."""
    _check_name(address[0])
    dialer = net.Dialer()
    try:
        dialer.begin(address, local, timeout)
        while (found := dialer.wait(ROUND)) is None:
            pass
        return socket.socket(fileno=found)
    finally:
        dialer.free()


async def dial_async(
    address: Address, local: Address | None, timeout: float | None
) -> socket.socket:
    """Connect as `dial` does. A thread waits, unless the connection is up without waiting. After
    cancelling, no connection and no attempt is left."""
    _check_name(address[0])
    dialer = net.Dialer()
    numeric = is_numeric(address[0]) and (local is None or is_numeric(local[0]))
    found: int | None = None
    if numeric:
        try:
            dialer.begin(address, local, timeout)
            found = dialer.wait(0)
        except BaseException:
            dialer.free()
            raise
        if found is not None:
            dialer.free()
            return socket.socket(fileno=found)
    waiting: Future[int] = Future()
    _run_in_thread(waiting, dialer, None if numeric else (address, local, timeout))
    try:
        connected = await asyncio.wrap_future(waiting)
        return socket.socket(fileno=connected)
    except asyncio.CancelledError:
        dialer.cancel()
        if waiting.cancel():  # no thread runs it yet
            dialer.free()
        waiting.add_done_callback(_close)
        raise


def _run_in_thread(waiting: Future[int], dialer: net.Dialer, begin: Begin | None) -> None:
    """Have a thread connect. Raises `OSError` if there is none and none can be started: what the
    pool keeps of it then does nothing."""
    try:
        _threads().submit(_finish, waiting, dialer, begin)
    except RuntimeError as e:
        if waiting.cancel():  # no thread has taken it meanwhile
            dialer.free()
            raise OSError(errno.EAGAIN, str(e)) from e


def _finish(waiting: Future[int], dialer: net.Dialer, begin: Begin | None) -> None:
    """Connect, in a thread."""
    if not waiting.set_running_or_notify_cancel():
        return
    try:
        found = dialer.finish() if begin is None else dialer.run(*begin)
    except BaseException as e:
        waiting.set_exception(e)
    else:
        waiting.set_result(found)
    finally:
        dialer.free()


def _close(waiting: Future[int]) -> None:
    """Close the connection that a cancelled call has made."""
    if not waiting.cancelled() and waiting.exception() is None and waiting.result() >= 0:
        os.close(waiting.result())


def _check_name(host: str) -> None:
    """Raise `OSError` for a text that C would read as another name."""
    if not host or "\0" in host:
        raise socket.gaierror(socket.EAI_NONAME, f"{host!a} is no name of a host")


def is_numeric(host: str) -> bool:
    """Tell whether a host is a numeric address, which needs no resolver."""
    try:
        socket.getaddrinfo(host.strip("[]"), None, flags=socket.AI_NUMERICHOST)
    except (OSError, UnicodeError):
        return False
    return True


_pool: ThreadPoolExecutor | None = None


def _threads() -> ThreadPoolExecutor:
    global _pool
    if _pool is None:
        _pool = ThreadPoolExecutor(THREADS, thread_name_prefix="ltdic-connect")
    return _pool


def _forget_threads() -> None:
    """Forget the threads in a child process, which has none of them."""
    global _pool
    _pool = None


os.register_at_fork(after_in_child=_forget_threads)
