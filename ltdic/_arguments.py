"""Checks of arguments: what is wrong is a `TypeError` or a `ValueError` that names the argument,
and never shows a value that may be a secret."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from operator import index
from typing import Any

HOST_AND_PORT = "a host and a port"


def wrong_type(name: str, value: object, wanted: str) -> TypeError:
    """The exception for an argument, or a part of one, of a wrong type."""
    return TypeError(f"{name}: {type(value).__name__} where {wanted} must be")


def one(name: str, value: Any, kind: Any, wanted: str = "") -> Any:
    """The value, which is of this kind, in words `wanted`."""
    if not isinstance(value, kind):
        raise wrong_type(name, value, wanted or kind.__name__)
    return value


def each(name: str, values: Any, kind: Any, wanted: str = "") -> Iterator[Any]:
    """Yield the values, which are all of this kind. One text is not several of one character."""
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
    """Two values in one, in words `wanted`."""
    try:
        first, second = values
    except (NotImplementedError, TypeError, ValueError):
        # NotImplementedError: iterating over a memoryview of several dimensions
        raise wrong_type(name, values, wanted) from None
    return first, second


def number_of(name: str, value: Any, most: int) -> int:
    """An integer from 0 to `most`, read once."""
    try:
        number = index(value)
    except TypeError:
        raise wrong_type(name, value, "an integer") from None
    if not 0 <= number <= most:
        raise ValueError(f"{name} is {number}, not 0 to {most}")
    return number


def view_of(name: str, value: Any) -> memoryview:
    """The bytes themselves. Their number is that of the buffer: a class may say another one."""
    try:
        return memoryview(value).cast("B")
    except (BufferError, TypeError, ValueError):
        raise wrong_type(name, value, "contiguous bytes") from None


def copy_of(name: str, value: Any) -> bytes:
    """The bytes, in whatever order they lie, as nobody can change them."""
    if type(value) is bytes:
        return value
    try:
        return bytes(memoryview(value))
    except (BufferError, TypeError, ValueError):
        raise wrong_type(name, value, "bytes") from None
