"""Checks of arguments. Each raises `TypeError` or `ValueError` with the name of the argument, and
never shows a value that may be a secret."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from inspect import isasyncgenfunction, iscoroutinefunction, isgeneratorfunction
from operator import index
from typing import Any

HOST_AND_PORT = "a host and a port"


def wrong_type(name: str, value: object, wanted: str) -> TypeError:
    """Make the exception for an argument, or a part of one, of a wrong type."""
    return TypeError(f"{name}: {type(value).__name__} where {wanted} must be")


def one(name: str, value: Any, kind: Any, wanted: str = "") -> Any:
    """Return the value after a check that it is an instance of `kind`; `wanted` is a name of
    that."""
    if not isinstance(value, kind):
        raise wrong_type(name, value, wanted or kind.__name__)
    return value


def not_awaited(name: str, function: object) -> None:
    """Refuse a function whose call alone does nothing, where nobody would wait for the rest."""
    for called in (function, getattr(function, "__call__", None)):  # noqa: B004
        if iscoroutinefunction(called) or isasyncgenfunction(called):
            raise TypeError(f"{name}: a coroutine function, which nobody here waits for")
        if isgeneratorfunction(called):
            raise TypeError(f"{name}: a generator function, of which nothing would run")


def each(name: str, values: Any, kind: Any, wanted: str = "") -> Iterator[Any]:
    """Yield the values after a check of each. A single text is refused: it is not taken as several
    of one character."""
    several = f"several {wanted or kind.__name__}"
    if isinstance(values, str):
        raise TypeError(f"{name} is one text where {several} must be")
    if isinstance(values, (bytes, bytearray, memoryview)) or not isinstance(values, Iterable):
        raise wrong_type(name, values, several)
    for value in values:
        if not isinstance(value, kind):
            raise wrong_type(name, value, wanted or kind.__name__)
        yield value


def pair(name: str, values: Any, wanted: str) -> tuple[Any, Any]:
    """Return the two values of a pair; `wanted` is a name of that."""
    try:
        first, second = values
    except (NotImplementedError, TypeError, ValueError):
        # NotImplementedError: iterating over a memoryview of several dimensions
        raise wrong_type(name, values, wanted) from None
    return first, second


def number_of(name: str, value: Any, most: int) -> int:
    """Return an integer from 0 to `most`. The value is read once, as it may change."""
    try:
        number = index(value)
    except TypeError:
        raise wrong_type(name, value, "an integer") from None
    if not 0 <= number <= most:
        raise ValueError(f"{name} is {number}, not 0 to {most}")
    return number


def view_of(name: str, value: Any) -> memoryview:
    """Return a view of contiguous bytes. Its length is that of the buffer, whatever `len` of the
    object is."""
    try:
        return memoryview(value).cast("B")
    except (BufferError, TypeError, ValueError):
        raise wrong_type(name, value, "contiguous bytes") from None


def copy_of(name: str, value: Any) -> bytes:
    """Return a copy of bytes, which may be in any layout in memory."""
    if type(value) is bytes:
        return value
    try:
        return bytes(memoryview(value))
    except (BufferError, TypeError, ValueError):
        raise wrong_type(name, value, "bytes") from None


def check_address(host: str, port: int) -> None:
    """Raises `ValueError` for a host with a port in it, and for a port that is none."""
    one("host", host, str)
    if host.count(":") == 1 or "]:" in host:
        raise ValueError(f"host is {host!a}: its port is an argument of its own")
    number_of("port", port, 0xFFFF)
