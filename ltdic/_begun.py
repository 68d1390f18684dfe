"""What the frames of a thread tell, where an exception of a signal handler may have ended a call
before it could say so itself."""

from __future__ import annotations

import dis
import sys
import threading
from collections.abc import Collection
from types import CodeType, TracebackType


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


def calls_of(subject: object, codes: Collection[CodeType], thread: int) -> int:
    """Count the calls of some methods of an object that a thread is in: none where it has ended."""
    count, frame = 0, sys._current_frames().get(thread)
    while frame is not None:
        count += frame.f_code in codes and frame.f_locals.get("self") is subject
        frame = frame.f_back
    return count


def is_inside(codes: Collection[CodeType]) -> bool:
    """Tell whether this thread is in a call of some functions, of whatever object."""
    frame = sys._current_frames().get(threading.get_ident())
    while frame is not None:
        if frame.f_code in codes:
            return True
        frame = frame.f_back
    return False
