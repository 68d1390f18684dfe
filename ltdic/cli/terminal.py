"""Exit codes, colours, and text that is safe to print, for all subcommands."""

from __future__ import annotations

import os
import sys
from typing import TextIO

# The exit codes of sysexits.h; `os` has them on POSIX alone.
EX_OK = 0
EX_USAGE = 64
EX_DATAERR = 65
EX_NOINPUT = 66
EX_UNAVAILABLE = 69
EX_CANTCREAT = 73
EX_TEMPFAIL = 75
EX_PROTOCOL = 76
EX_NOPERM = 77
EX_INTERRUPTED = 130

GREEN, YELLOW, RED = 32, 33, 31


def coloured(text: str, colour: int, stream: TextIO | None = None) -> str:
    """Return the text in colour if the stream is a terminal and NO_COLOR is not set."""
    where = stream or sys.stdout
    if not where.isatty() or "NO_COLOR" in os.environ:
        return text
    return f"\033[{colour}m{text}\033[0m"


def clear_line(stream: TextIO) -> None:
    """Erase a progress line, on a terminal."""
    if stream.isatty():
        stream.write("\r\033[K")
        stream.flush()


def shown(text: str) -> str:
    """Return the text with control and other non-ASCII characters escaped: a terminal could act on
    them."""
    return ascii(text)[1:-1]
