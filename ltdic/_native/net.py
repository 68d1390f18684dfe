"""Addresses, and the errors of the system."""

from __future__ import annotations

import os
import socket
from functools import lru_cache
from typing import Any

from .._ffi import ffi, lib
from . import codec


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


class Lookup:
    """`ltdic_lookup`: the addresses of a peer, and of this end. `""` is any address of this end.
    Raises `OSError`. It takes the time of the resolver, and may be made in any thread."""

    def __init__(self, peer: tuple[str, int], local: tuple[str, int] | None) -> None:
        if not peer[0] or "\0" in peer[0]:  # which C would read as another name
            raise socket.gaierror(socket.EAI_NONAME, f"{peer[0]!a} is no name of a host")
        address, _room = address_of(*peer, lib.LTDIC_IP_ANY)
        own, _more = ffi.NULL, None
        if local is not None:
            own, _more = address_of(local[0] or "*", local[1], lib.LTDIC_IP_ANY)
        found, cause = ffi.new("ltdic_lookup **"), ffi.new("ltdic_cause *")
        status = lib.ltdic_lookup_new(found, address, own, cause)
        self.pointer = ffi.gc(found[0], lib.ltdic_lookup_free)
        if status != 0:
            raise error_of_cause(status, cause[0])


@lru_cache(maxsize=256)
def is_numeric(host: str) -> bool:
    """Tell whether a host is a numeric address, which needs no resolver."""
    try:
        socket.getaddrinfo(host.strip("[]"), None, flags=socket.AI_NUMERICHOST)
    except (OSError, UnicodeError):
        return False
    return True
