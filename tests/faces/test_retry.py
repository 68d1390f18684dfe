"""Retries: for which errors, how often, and after which waits; with virtual time."""

from __future__ import annotations

import asyncio
import errno
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import ltdic
from ltdic import (
    Abort,
    AssociateReject,
    AssociationAborted,
    AssociationRejected,
    AssociationTimeout,
    ConnectionClosed,
    ConnectionFailed,
    Error,
    LocalError,
    Retry,
    aio,
    encode,
)
from ltdic.retry import Attempts, is_worth_a_retry
from support.raw import ACCEPT
from support.rejections import DEFINED
from support.sockets import LOCALHOST, TIMEOUT, receive_pdu
from support.threads import Background

# ---- waits -------------------------------------------------------------------------------------

SECONDS = st.floats(0, 1e6)
RETRIES = st.builds(
    Retry,
    attempts=st.integers(1, 50),
    first=SECONDS,
    factor=st.floats(1, 1e3),
    ceiling=SECONDS,
    jitter=st.floats(0, 1),
)


@given(RETRIES, st.integers(1, 100_000))
def test_a_wait_is_within_the_bounds_of_its_jitter(retry: Retry, attempt: int) -> None:
    try:
        longest = min(retry.ceiling, retry.first * retry.factor ** (attempt - 1))
    except OverflowError:
        longest = retry.ceiling if retry.first else 0
    wait = retry.wait(attempt)
    assert longest * (1 - retry.jitter) * (1 - 1e-9) <= wait <= longest <= retry.ceiling


def test_without_jitter_waits_grow_by_the_factor_up_to_the_ceiling() -> None:
    retry = Retry(first=1, factor=2, ceiling=30, jitter=0)
    assert [retry.wait(n) for n in range(1, 8)] == [1, 2, 4, 8, 16, 30, 30]


def test_jitter_varies_the_waits() -> None:
    retry = Retry(first=1, jitter=1)
    assert len({retry.wait(1) for _ in range(100)}) > 90


@pytest.mark.parametrize("attempt", [1024, 1025, 10**6])
def test_a_wait_of_any_attempt_stays_at_the_ceiling(attempt: int) -> None:
    assert Retry(first=1, factor=2, ceiling=30, jitter=0).wait(attempt) == 30
    assert Retry(first=0, factor=2, ceiling=30, jitter=0).wait(attempt) == 0


@pytest.mark.parametrize(
    "change",
    [
        *[{"attempts": n} for n in (0, -1)],
        *[{name: -0.1} for name in ("first", "ceiling", "jitter")],
        *[{name: float("nan")} for name in ("first", "factor", "ceiling", "jitter")],
        {"factor": 0.9},
        {"jitter": 1.1},
    ],
    ids=str,
)
def test_an_invalid_retry_is_a_value_error(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"at least|jitter|no time"):
        Retry(**change)


# ---- errors ------------------------------------------------------------------------------------


def refused(cause: Exception) -> ConnectionFailed:
    error = ConnectionFailed("no connection")
    error.__cause__ = cause
    return error


NEVER: list[Error] = [
    *[AssociationRejected(AssociateReject(*codes)) for codes in DEFINED if codes[0] == 1],
    *[AssociationRejected(AssociateReject(result, 1, 1)) for result in (0, 3, 255)],
    AssociationAborted(Abort(0, 0), True, "aborted"),
    AssociationTimeout("no answer"),
    ConnectionClosed("closed"),
    LocalError("wrong"),
    refused(socket.gaierror("no such host")),
    refused(ConnectionResetError()),
    refused(socket.gaierror(socket.EAI_NONAME, "no such host")),
    refused(OSError(13, "not permitted")),
    ConnectionFailed("without a cause"),
]
WORTH_IT: list[Error] = [
    *[AssociationRejected(AssociateReject(*codes)) for codes in DEFINED if codes[0] == 2],
    refused(ConnectionRefusedError()),
    refused(TimeoutError()),
    refused(OSError(errno.EHOSTUNREACH, "no route")),
    refused(OSError(errno.ENETUNREACH, "no network")),
    refused(socket.gaierror(socket.EAI_AGAIN, "try again")),
]


@pytest.mark.parametrize("error", NEVER, ids=repr)
def test_a_permanent_error_is_never_tried_again(error: Error) -> None:
    told: list[Any] = []
    attempts = Attempts(Retry(attempts=9, notify=lambda *what: told.append(what)), 100.0)
    assert not is_worth_a_retry(error)
    with pytest.raises(type(error)) as e:
        attempts.failed(error, 101.5)
    assert e.value is error
    assert (error.attempts, error.elapsed, told) == (1, 1.5, [])


@given(RETRIES, st.sampled_from(WORTH_IT))
def test_a_transient_error_is_tried_as_often_as_the_retry_allows(
    retry: Retry, error: Error
) -> None:
    now, waits = 0.0, 0
    attempts = Attempts(retry, now)
    while True:
        try:
            seconds = attempts.failed(error, now)
        except Error as e:
            assert e is error
            break
        assert 0 <= seconds <= retry.ceiling
        now += seconds
        waits += 1
    assert waits == retry.attempts - 1
    assert (error.attempts, error.elapsed) == (retry.attempts, now)
    tried = f"(tried {retry.attempts} times in {now:.1f} s)"
    assert (tried in str(error)) is (retry.attempts > 1)


def test_without_a_retry_nothing_is_tried_again() -> None:
    for error in WORTH_IT:
        with pytest.raises(type(error)):
            Attempts(None, 0.0).failed(error, 0.0)


# ---- both faces --------------------------------------------------------------------------------


def connect_blocking(port: int, **options: Any) -> None:
    ltdic.connect(LOCALHOST, port, timeout=TIMEOUT, **options).abort()


def connect_asyncio(port: int, **options: Any) -> None:
    async def connect() -> None:
        association = await aio.connect(LOCALHOST, port, timeout=TIMEOUT, **options)
        await association.abort()

    asyncio.run(connect())


by_face = pytest.mark.parametrize(
    "connect", [connect_blocking, connect_asyncio], ids=["blocking", "asyncio"]
)


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The sleeps between two tries, recorded and skipped."""
    found: list[float] = []

    async def sleep(seconds: float) -> None:
        found.append(seconds)

    class Time:
        monotonic = staticmethod(lambda: time.monotonic() + sum(found))
        sleep = staticmethod(found.append)

    class Asyncio:
        def __getattr__(self, name: str) -> Any:
            return getattr(asyncio, name)

    virtual = Asyncio()
    virtual.sleep = sleep  # type: ignore[attr-defined]
    for module in (ltdic.requestor, ltdic.aio, ltdic.association, ltdic.counters):
        monkeypatch.setattr(module, "time", Time)
    monkeypatch.setattr(ltdic.aio, "asyncio", virtual)
    return found


@contextmanager
def answering(*answers: bytes) -> Iterator[tuple[int, Callable[[], int]]]:
    """Run a peer that gives one answer after the other; yield its port and the count of
    requests."""
    asked = 0
    with socket.create_server((LOCALHOST, 0)) as server:
        server.settimeout(TIMEOUT)

        def answer() -> None:
            nonlocal asked
            for pdu in answers:
                connection, _ = server.accept()
                with connection:
                    connection.settimeout(TIMEOUT)
                    receive_pdu(connection)
                    asked += 1
                    connection.sendall(pdu)
                    receive_pdu(connection)

        thread = Background(answer)
        yield server.getsockname()[1], lambda: asked
        thread.join()


BUSY, NEVER_AGAIN = encode(AssociateReject(2, 3, 1)), encode(AssociateReject(1, 1, 7))


@by_face
def test_a_busy_peer_is_tried_again_until_it_accepts(connect: Any, slept: list[float]) -> None:
    told: list[tuple[Any, int, float]] = []
    retry = Retry(
        attempts=5, first=10, factor=3, jitter=0, ceiling=50, notify=lambda *w: told.append(w)
    )
    with answering(BUSY, BUSY, BUSY, ACCEPT) as (port, asked):
        connect(port, retry=retry)
        assert asked() == 4
    assert slept == [10, 30, 50]
    assert [(e.codes, n, seconds) for e, n, seconds in told] == [
        ((2, 3, 1), 1, 10),
        ((2, 3, 1), 2, 30),
        ((2, 3, 1), 3, 50),
    ]


@by_face
def test_a_peer_that_stays_busy_raises_after_the_last_attempt(
    connect: Any, slept: list[float]
) -> None:
    with answering(BUSY, BUSY, BUSY) as (port, _), pytest.raises(AssociationRejected) as e:
        connect(port, retry=Retry(attempts=3, first=60, factor=1, ceiling=60, jitter=0))
    assert slept == [60, 60]
    assert e.value.attempts == 3
    assert 120 <= e.value.elapsed < 120 + TIMEOUT
    assert "(tried 3 times in 120." in str(e.value)


@by_face
def test_a_permanent_rejection_is_not_tried_again(connect: Any, slept: list[float]) -> None:
    with answering(BUSY, NEVER_AGAIN) as (port, _), pytest.raises(AssociationRejected) as e:
        connect(port, retry=Retry(attempts=9, first=1, jitter=0))
    assert (e.value.codes, e.value.attempts, slept) == ((1, 1, 7), 2, [1])


@by_face
def test_a_refused_connection_is_tried_again(connect: Any, slept: list[float]) -> None:
    with socket.socket() as unused:
        unused.bind((LOCALHOST, 0))
        with pytest.raises(ConnectionFailed) as e:
            connect(unused.getsockname()[1], retry=Retry(attempts=4, first=1, jitter=0))
    assert slept == [1, 2, 4]
    assert (e.value.attempts, type(e.value.__cause__)) == (4, ConnectionRefusedError)


@by_face
def test_an_abort_is_not_tried_again(connect: Any, slept: list[float]) -> None:
    with answering(encode(Abort(0, 0))) as (port, _), pytest.raises(AssociationAborted):
        connect(port, retry=Retry(attempts=4, first=1))
    assert slept == []


@by_face
def test_an_exception_of_notify_ends_the_attempts(connect: Any, slept: list[float]) -> None:
    def notify(*_: object) -> None:
        raise KeyError("enough")

    with answering(BUSY) as (port, _), pytest.raises(KeyError, match="enough"):
        connect(port, retry=Retry(attempts=4, notify=notify))
    assert slept == []


def test_a_cancelled_wait_ends_the_attempts() -> None:
    async def main() -> None:
        waits = asyncio.Event()
        retry = Retry(attempts=4, first=3600, ceiling=3600, notify=lambda *_: waits.set())

        async def connect() -> None:
            await aio.connect(LOCALHOST, port, timeout=TIMEOUT, retry=retry)

        task = asyncio.create_task(connect())
        await asyncio.wait_for(waits.wait(), TIMEOUT)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with answering(BUSY) as (port, _):
        asyncio.run(main())
