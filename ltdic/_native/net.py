"""TCP connections that C makes, addresses, and the errors of the system."""

from __future__ import annotations

import os
import socket
import threading
from typing import Any

from .._ffi import ffi, lib
from . import codec, engine


def encoded_host(host: str) -> bytes:
    """The text that the resolver is asked for. A NUL, at which C would stop, becomes another
    character that no name has."""
    text = host.replace("\0", "\n")
    return text.encode() if text.isascii() else text.encode("idna")


def address_of(host: str, port: int, family: int) -> tuple[Any, Any]:
    """An `ltdic_address`, and what has to live as long."""
    text = ffi.new("char[]", encoded_host(host))
    return ffi.new("ltdic_address *", (text, port, family)), text


def error_of_cause(status: int, cause: Any) -> Exception:
    """The exception that Python has for what the system said."""
    if status == codec.MEMORY:
        return MemoryError()
    if cause.resolver:
        text = ffi.string(lib.ltdic_resolver_text(cause.resolver)).decode(errors="replace")
        return socket.gaierror(cause.resolver, text)
    error = int(cause.error)
    return OSError(error, os.strerror(error)) if error else OSError(codec.text_of(status))


class Dialer:
    """An `ltdic_net` that connects, on a loop of its own. `cancel` may be called from any
    thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        made = iter(lib.ltdic_loop_new, None)
        # No bytecode lies between making it and what frees it: a signal handler may raise.
        self._loop = next(map(ffi.gc, made, [lib.ltdic_loop_free]))
        if not self._loop:
            ffi.gc(self._loop, None)
        self._net = lib.ltdic_net_new(self._loop, ffi.NULL) if self._loop else ffi.NULL
        self._cancelled = False
        if not self._net:
            self.free()
            raise OSError(ffi.errno, os.strerror(ffi.errno))

    def begin(
        self, address: tuple[str, int], local: tuple[str, int] | None, timeout: float | None
    ) -> None:
        """Look the host up, and begin to connect. `""` is any address of this end. Raises
        `OSError`."""
        lib.ltdic_net_set_timeouts(self._net, engine.timeouts(None, timeout, None))
        peer, _room = address_of(*address, lib.LTDIC_IP_ANY)
        own, _more = ffi.NULL, None
        if local is not None:
            own, _more = address_of(local[0] or "*", local[1], lib.LTDIC_IP_ANY)
        status = lib.ltdic_net_connect(self._net, peer, own)
        if status != 0:
            raise error_of_cause(status, lib.ltdic_net_cause(self._net))

    def wait(self, most: int) -> int | None:
        """The descriptor of the connection; None where so many milliseconds, or a signal, or
        `cancel` came first. Raises `OSError`."""
        lib.ltdic_loop_wait(self._loop, most)
        net, indication = ffi.new("ltdic_net **"), ffi.new("ltdic_indication *")
        if lib.ltdic_loop_next(self._loop, net, indication) != 0:
            return None
        lib.ltdic_net_done(self._net)
        if indication.status != 0:
            raise error_of_cause(indication.status, lib.ltdic_net_cause(self._net))
        return int(lib.ltdic_net_detach(self._net))

    def run(self, address: tuple[str, int], local: Any, timeout: float | None) -> int:
        """`begin`, and wait to the end. -1 where it was cancelled."""
        self.begin(address, local, timeout)
        return self.finish()

    def finish(self) -> int:
        found = None
        while found is None and not self._cancelled:
            found = self.wait(60_000)
        return -1 if found is None else found

    def cancel(self) -> None:
        with self._lock:
            self._cancelled = True
            if self._loop:
                lib.ltdic_loop_wake(self._loop)

    def free(self) -> None:
        with self._lock:
            loop, self._loop = self._loop, ffi.NULL
        if loop:
            ffi.release(loop)
