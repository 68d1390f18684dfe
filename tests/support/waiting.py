"""Waiting for another thread or process."""

from __future__ import annotations

import time
from collections.abc import Callable

from support.sockets import TIMEOUT


def eventually(is_true: Callable[[], bool]) -> None:
    """Wait until the function returns something true; fail after TIMEOUT seconds."""
    end = time.monotonic() + TIMEOUT
    while not is_true():
        assert time.monotonic() < end, "it has not become true"
        time.sleep(0.005)
