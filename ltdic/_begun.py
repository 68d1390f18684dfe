"""Whether a function has begun, whose call was ended by what a signal handler raised."""

from __future__ import annotations

import dis
from types import TracebackType


def has_begun(where: TracebackType | None) -> bool:
    """Whether the function that was called in the first frame of a traceback has begun. What a
    signal handler raises may come before its first instruction, where nothing of it is done."""
    assert where is not None
    inside = where.tb_next
    if inside is None:
        return True
    code = inside.tb_frame.f_code
    start = next((i.offset for i in dis.get_instructions(code) if i.opname == "RESUME"), -1)
    return inside.tb_lasti > start
