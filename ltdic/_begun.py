"""Tells whether a function had begun when an exception of a signal handler ended its call."""

from __future__ import annotations

import dis
from types import TracebackType


def has_begun(where: TracebackType | None) -> bool:
    """Tell whether the function that the first frame of a traceback called has begun. A signal
    handler may raise before its first instruction: then the function has done nothing."""
    assert where is not None
    inside = where.tb_next
    if inside is None:
        return True
    code = inside.tb_frame.f_code
    start = next((i.offset for i in dis.get_instructions(code) if i.opname == "RESUME"), -1)
    return inside.tb_lasti > start
