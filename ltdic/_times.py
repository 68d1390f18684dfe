"""Times in seconds: the check of each such argument of the package."""

from __future__ import annotations

from numbers import Real
from typing import Any, cast

from ._arguments import wrong_type
from ._native import engine


def seconds_of(name: str, seconds: Any, *, zero: bool = False) -> float | None:
    """Return a time in seconds as it was given, or None if it has no end: for None, infinity, and
    49 days or more. `name` is that of the argument. Raises `ValueError` for a negative number, nan
    and, without `zero`, 0; `TypeError` if it is no number."""
    if seconds is None:
        return None
    if isinstance(seconds, bool) or not isinstance(seconds, Real):
        raise wrong_type(name, seconds, "a number of seconds, or None,")
    number = cast(float, seconds)
    if not (number > 0 or (zero and number == 0)):
        more = "0 or more" if zero else "more than 0"
        raise ValueError(f"{name} is {seconds}, no time: it is {more} seconds, or None for ever")
    return None if number * 1000 >= engine.FOREVER else float(number)
