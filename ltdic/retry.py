"""Retries of `connect`: which errors are worth one, and how long to wait before it."""

from __future__ import annotations

import errno
import random
import socket
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real
from threading import TIMEOUT_MAX

from ._arguments import one, wrong_type
from ._times import seconds_of
from .errors import AssociationRejected, ConnectionFailed, Error

UNREACHABLE = (errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.ENETDOWN)


@dataclass(frozen=True, kw_only=True)
class Retry:
    """How often and when `connect` tries again.

    It tries again after a rejection with result 2 (rejected-transient), and after a connection that
    was refused, whose host could not be reached or did not answer in time, or whose name could not
    be resolved for now. Other errors are permanent. Before the n-th retry it waits
    `first * factor ** (n - 1)` seconds, but not longer than `ceiling`. A random part, up to the
    fraction `jitter`, is taken off, so that requestors that failed at the same time do not retry at
    the same time. `first` and `ceiling` may be 0; None is without end.
    """

    attempts: int = 3
    """Number of attempts, the first one included."""
    first: float | None = 1.0
    factor: float = 2.0
    ceiling: float | None = 30.0
    jitter: float = 0.5
    notify: Callable[[Error, int, float], None] | None = None
    """Called before each wait with the error, the number of attempts so far, and the seconds until
    the next one."""

    def __post_init__(self) -> None:
        for name in ("attempts", "factor", "jitter"):
            one(name, getattr(self, name), Real, "a number")
        for name in ("first", "ceiling"):
            seconds_of(name, getattr(self, name), zero=True)
        if self.notify is not None and not callable(self.notify):
            raise wrong_type("notify", self.notify, "a function")
        if not (self.attempts >= 1 and self.factor >= 1):
            raise ValueError("attempts and factor must be at least 1")
        if not 0 <= self.jitter <= 1:
            raise ValueError(f"jitter is {self.jitter}, not 0 to 1")

    def wait(self, attempt: int) -> float:
        """Return the seconds to wait after that many attempts, with its random part; at most the
        longest time that the system can sleep."""
        first, ceiling = _finite(self.first), _finite(self.ceiling)
        try:
            factor = float(self.factor)  # a power of an integer could take very long
            longest = min(ceiling, first * factor ** (attempt - 1)) if first else 0.0
        except OverflowError:
            longest = ceiling
        return longest * (1 - self.jitter * random.random())


def _finite(seconds: float | None) -> float:
    most = seconds_of("seconds", seconds, zero=True)
    return TIMEOUT_MAX if most is None else most


def is_worth_a_retry(error: Error) -> bool:
    """Tell whether another attempt may succeed."""
    if isinstance(error, AssociationRejected):
        return error.transient
    cause = error.__cause__
    if not isinstance(error, ConnectionFailed) or not isinstance(cause, OSError):
        return False
    if isinstance(cause, socket.gaierror):
        return cause.errno == socket.EAI_AGAIN
    return isinstance(cause, (ConnectionRefusedError, TimeoutError)) or cause.errno in UNREACHABLE


class Attempts:
    """The attempts of one `connect`. It reads no clock and does not sleep: its caller does."""

    def __init__(self, retry: Retry | None, now: float) -> None:
        if retry is not None:
            one("retry", retry, Retry)
        self._retry = retry
        self._begun = now
        self._count = 0

    def failed(self, error: Error, now: float) -> float:
        """Record a failed attempt. Return the seconds to wait before the next one, or raise the
        error if there is none."""
        self._count += 1
        error.attempts, error.elapsed = self._count, now - self._begun
        retry = self._retry
        if retry is None or self._count >= retry.attempts or not is_worth_a_retry(error):
            try:
                raise error
            finally:
                del error  # else it and this frame are a cycle
        seconds = retry.wait(self._count)
        if retry.notify is not None:
            retry.notify(error, self._count, seconds)
        return seconds
