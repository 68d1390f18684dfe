"""Memory and descriptors of this process."""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from ltdic._native.requestor import RequestorLoop

DESCRIPTORS = "/proc/self/fd" if sys.platform == "linux" else "/dev/fd"


def memory_in_use() -> int:
    """Return the resident bytes at present, not the peak."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def memory_allowed(size: int) -> int:
    """Return `size` bytes; 300 MiB more under a sanitizer, which keeps 256 MiB of freed memory."""
    return size + (300 << 20 if "LD_PRELOAD" in os.environ else 0)


def descriptors() -> int:
    """Count the open file descriptors, with those of the loop that this thread keeps for `connect`,
    which it may not have yet, or have given to an association."""
    RequestorLoop.of_thread().give_back()
    return len(os.listdir(DESCRIPTORS))


@contextmanager
def few_descriptors(count: int) -> Iterator[None]:
    """Let this process open no more than about so many descriptors."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(0)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free + count, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
