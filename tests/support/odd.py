"""Odd values for arguments, and the errors that they may raise."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

import ltdic
from ltdic import PDV, ffi

ALLOWED = (TypeError, ValueError, OSError, MemoryError, ltdic.Error)


class Longer(bytes):
    """Bytes whose `len` is larger than their size."""

    def __len__(self) -> int:
        return 60_000


class Raises:
    """An object with the methods of a number and a sequence, each of which raises."""

    def __index__(self) -> int:
        raise ValueError("no index")

    def __len__(self) -> int:
        raise ValueError("no length")


class Changes:
    """A number that compares like a small one and converts to a large one."""

    def __index__(self) -> int:
        return 1 << 20

    def __le__(self, other: object) -> bool:
        return True

    __lt__ = __ge__ = __le__

    def __gt__(self, other: object) -> bool:
        return False


def released() -> memoryview:
    view = memoryview(b"abcd")
    view.release()
    return view


NUMBERS = [-1, 0, 1, 3, 255, 256, 65536, 1 << 31, 1 << 32, 1 << 64, 10**400, True, 1.5, -0.5]
NUMBERS += [math.nan, math.inf, -math.inf, 1e300, 1j]
TEXTS = ["", "text", "1.2.3", "1.2\0.3", "\udc80", "\ud800", "snow \u2603", "x" * 70_000, "1" * 65]
BYTES = [b"", b"1.2.3", b"1.2\0.3", bytes(70_000), Longer(b"ab"), bytearray(b"abcd"), released()]
BYTES += [memoryview(b""), memoryview(b"abcdef")[::2], memoryview(bytes(8)).cast("H")]
BYTES += [memoryview(bytes(8)).cast("B", (2, 4))]
OTHERS = [None, ..., [], (), {}, set(), [b"A", b"B"], ["1.2"], (1, 2), (1, 2, 3), {"1.2": "1.2"}]
OTHERS += [{5: 5}, object(), Raises(), Changes(), print, int, ffi.NULL, [None], ((),), "ANY"]
OTHERS += [ltdic.ANY, ltdic.Abort(0, 0), PDV(1, True, True, b"ab"), ltdic.ReleaseRequest]

ODD = [*NUMBERS, *TEXTS, *BYTES, *OTHERS]
odd = st.integers(0, len(ODD) - 1).map(ODD.__getitem__)  # not sampled_from: some cannot be hashed


def called(
    data: st.DataObject, function: Callable[..., Any], *good: Any, **named: Any
) -> tuple[bool, Any]:
    """Call a function with one or two of its arguments changed; return whether it has returned, and
    its result."""
    places = st.sampled_from([*range(len(good)), *named])
    changed = data.draw(st.lists(places, min_size=1, max_size=2, unique=True))
    arguments = [data.draw(odd) if n in changed else value for n, value in enumerate(good)]
    options = {name: data.draw(odd) if name in changed else named[name] for name in named}
    try:
        return True, function(*arguments, **options)
    except ALLOWED:
        return False, None
