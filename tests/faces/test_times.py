"""Every time parameter of the public API, each with all kinds of values: one rule for all."""

from __future__ import annotations

import asyncio
import queue
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest

import ltdic
from ltdic import PDV, Association, AssociationTimeout, Retry, aio
from ltdic.l_dicom import *  # noqa: F403
from support.faces import (
    ACCEPTORS,
    REQUESTORS,
    RESPONSE,
    AsyncRequestor,
    BlockingRequestor,
    LDicomAcceptor,
    LDicomRequestor,
    Plan,
    Wish,
)
from support.l_dicom import check
from support.servers import ALL, answer, serving, serving_in_asyncio
from support.sockets import LOCALHOST, TIMEOUT
from support.threads import Background
from support.tls import client_context, server_context
from support.uids import SECONDARY_CAPTURE

# ruff: noqa: F405

SHORT = 0.0005
LONG = 2147483.648  # more milliseconds than poll(2) takes
TIMES = {
    "half a millisecond": SHORT,
    "a fraction": Fraction(1, 2000),
    "25 days": LONG,
    "almost 49 days": 4294967.294,
}
FOREVER = {
    "49 days": 4294967.295,
    "2**31": 2**31,
    "1e9": 1e9,
    "10**400": 10**400,
    "inf": float("inf"),
    "None": None,
}
NO_TIMES = {
    "-1": -1,
    "-10**400": -(10**400),
    "-inf": float("-inf"),
    "nan": float("nan"),
}
NO_NUMBERS = {"text": "5", "True": True, "False": False, "complex": 1j}
VALUES: dict[str, Any] = {"0": 0, **TIMES, **FOREVER, **NO_TIMES, **NO_NUMBERS}


def is_long(value: Any) -> bool:
    """Tell whether the time is longer than any test waits."""
    return value is None or (isinstance(value, (int, float)) and value > TIMEOUT)


def read_back(value: Any) -> float | None:
    """Return the time as the library stores it; None means for ever."""
    return None if any(value is one for one in FOREVER.values()) else float(value)


# ---- the parameters ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def peers() -> Iterator[SimpleNamespace]:
    """A server of each kind, and the associations of the first one's handler."""
    told: queue.Queue[ltdic.ServedAssociation] = queue.Queue()

    def handler(association: ltdic.ServedAssociation, _: PDV) -> None:
        told.put(association)

    with (
        serving(admission=ALL, handler=handler, timeout=TIMEOUT) as server,
        serving_in_asyncio(timeout=TIMEOUT) as other,
    ):
        yield SimpleNamespace(address=server.address, in_asyncio=other.address, told=told)


def connecting(peers: Any, value: Any) -> None:
    with (
        suppress(*[] if is_long(value) else [ltdic.Error]),
        ltdic.connect(*peers.address, timeout=value) as association,
    ):
        assert association.timeout == read_back(value)
        assert association.echo() == 0


def connecting_in_asyncio(peers: Any, value: Any) -> None:
    async def connect() -> None:
        async with aio.connect(*peers.in_asyncio, timeout=value) as association:
            assert association.timeout == read_back(value)
            assert await association.echo() == 0

    with suppress(*[] if is_long(value) else [ltdic.Error]):
        asyncio.run(connect())


def setting(peers: Any, value: Any) -> None:
    with (
        suppress(*[] if is_long(value) else [AssociationTimeout]),
        ltdic.connect(*peers.in_asyncio, timeout=TIMEOUT) as association,
    ):
        association.timeout = value
        assert association.timeout == read_back(value)
        assert association.echo() == 0


def setting_in_asyncio(peers: Any, value: Any) -> None:
    async def connect() -> None:
        async with aio.connect(*peers.address, timeout=TIMEOUT) as association:
            association.timeout = value
            assert association.timeout == read_back(value)
            assert await association.echo() == 0

    with suppress(*[] if is_long(value) else [AssociationTimeout]):
        asyncio.run(connect())


def asked(server: Any, value: Any) -> None:
    """Have the server serve an association, if its time is long."""
    if is_long(value):
        with ltdic.connect(*server.address, timeout=TIMEOUT) as association:
            assert association.echo() == 0


def server_with(name: str) -> Callable[[Any, Any], None]:
    def use(_: Any, value: Any) -> None:
        with serving(**{"timeout": TIMEOUT, name: value}) as server:
            asked(server, value)

    return use


def server_in_asyncio_with(name: str) -> Callable[[Any, Any], None]:
    def use(_: Any, value: Any) -> None:
        with serving_in_asyncio(**{"timeout": TIMEOUT, name: value}) as server:
            asked(server, value)

    return use


MOMENT = 0.1


def serving_until(_: Any, value: Any) -> None:
    with ltdic.Server((LOCALHOST, 0), timeout=TIMEOUT) as server:
        closes = threading.Timer(MOMENT, server.close)
        begun = time.monotonic()
        if is_long(value):
            closes.start()
        server.serve(until=value)
        assert (time.monotonic() - begun >= MOMENT) is is_long(value)


def serving_until_in_asyncio(_: Any, value: Any) -> None:
    async def serve() -> None:
        async with aio.Server((LOCALHOST, 0), timeout=TIMEOUT) as server:
            begun = time.monotonic()
            if is_long(value):
                asyncio.get_running_loop().call_later(MOMENT, server.close)
            await server.serve(until=value)
            assert (time.monotonic() - begun >= MOMENT) is is_long(value)

    asyncio.run(serve())


def waiting_for_an_end(peers: Any, value: Any) -> None:
    with ltdic.connect(
        *peers.address, contexts=[SECONDARY_CAPTURE], timeout=TIMEOUT
    ) as association:
        association.send(b"command!", context=SECONDARY_CAPTURE, is_command=True)
        served = peers.told.get(timeout=TIMEOUT)
        if not is_long(value):
            assert served.wait(value) is False
            return
        thread = Background(lambda: served.wait(value))
        time.sleep(MOMENT)
    assert thread.join() is True
    assert served.wait(value) is True


def associating(name: str) -> Callable[[Any, Any], None]:
    """Return a function that waits for the answer to a request with this time."""

    def use(_: Any, value: Any) -> None:
        Association(requestor=True, **{name: value})
        association = Association(requestor=True)
        association.set_timeouts(**{"timeout": None, name: value})
        association.send(ltdic.AssociateRequest("A", "B"))
        if name == "timeout":
            assert (association.deadline() is None) is (read_back(value) is None)

    return use


def retrying(name: str) -> Callable[[Any, Any], None]:
    def use(_: Any, value: Any) -> None:
        longest = Retry(**{"first": None, "ceiling": None, name: value}, factor=1, jitter=0).wait(3)
        seconds = read_back(value)
        assert longest == (threading.TIMEOUT_MAX if seconds is None else seconds)

    return use


class Time(NamedTuple):
    """A time parameter."""

    name: str
    use: Callable[[Any, Any], None]
    zero: bool = False
    """Is 0 a time, which means: do not wait?"""

    def error_of(self, value: str) -> type[Exception] | None:
        if value in NO_NUMBERS:
            return TypeError
        return ValueError if value in NO_TIMES or (value == "0" and not self.zero) else None


TABLE = {
    "connect(timeout=)": Time("timeout", connecting),
    "aio.connect(timeout=)": Time("timeout", connecting_in_asyncio),
    "SyncAssociation.timeout": Time("timeout", setting),
    "AsyncAssociation.timeout": Time("timeout", setting_in_asyncio),
    "Server(timeout=)": Time("timeout", server_with("timeout")),
    "Server(idle=)": Time("idle", server_with("idle")),
    "aio.Server(timeout=)": Time("timeout", server_in_asyncio_with("timeout")),
    "aio.Server(idle=)": Time("idle", server_in_asyncio_with("idle")),
    "Server.serve(until=)": Time("until", serving_until, zero=True),
    "aio.Server.serve(until=)": Time("until", serving_until_in_asyncio, zero=True),
    "ServedAssociation.wait(timeout=)": Time("timeout", waiting_for_an_end, zero=True),
    "Association(timeout=)": Time("timeout", associating("timeout")),
    "Association(idle=)": Time("idle", associating("idle")),
    "Retry(first=)": Time("first", retrying("first"), zero=True),
    "Retry(ceiling=)": Time("ceiling", retrying("ceiling"), zero=True),
}


@pytest.mark.slow
@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("parameter", TABLE)
def test_every_time_parameter_follows_one_rule(peers: Any, parameter: str, value: str) -> None:
    one = TABLE[parameter]
    error = one.error_of(value)
    if error is None:
        one.use(peers, VALUES[value])
        return
    with pytest.raises(error, match=rf"^{one.name}(:| is) "):
        one.use(peers, VALUES[value])


# ---- the command line --------------------------------------------------------------------------

TEXTS = {
    **dict.fromkeys(["0", "-1", "-inf", "nan", "None", "True", "x", "", "1j"], 64),
    **dict.fromkeys(["5", "2147483.648", "2147483648", "1e9", "inf", "1" + 400 * "0"], 0),
    "0.0005": 69,
}


@pytest.mark.slow
@pytest.mark.parametrize("text", TEXTS)
def test_a_time_on_the_command_line_follows_the_same_rule(peers: Any, text: str) -> None:
    command = ["echo", peers.address[0], str(peers.address[1]), f"--timeout={text}"]
    done = subprocess.run(
        [sys.executable, "-I", "-m", "ltdic", *command],
        capture_output=True,
        text=True,
        timeout=2 * TIMEOUT,
    )
    assert done.returncode == TEXTS[text] or (text == "0.0005" and done.returncode == 0)
    assert ("--timeout: " in done.stderr) is (TEXTS[text] == 64)


# ---- milliseconds of L_Dicom, each a L_UINT32 --------------------------------------------------

MILLISECONDS = {
    **{"0": 0, "1": 1, "2**31": 2**31, "2**32 - 1": 2**32 - 1},
    **{"-1": -1, "2**32": 2**32, "10**400": 10**400},
    **{"nan": float("nan"), "inf": float("inf"), "1e9": 1e9, "25 days": LONG, "0.0005": SHORT},
    **{"None": None, "text": "5", "complex": 1j},
}


def waiting_for_a_connection(port: int, value: Any) -> None:
    net = L_DicomCreateNet(None, DICOM_SECURE_NONE)
    try:
        check(L_DicomConnect(net, None, 0, LOCALHOST, port))
        deadline = time.monotonic() + TIMEOUT
        while (code := L_DicomWait(net, value)) == DICOM_ERROR_TIMEOUT:
            assert value < 2
            assert time.monotonic() < deadline
        check(code)
        assert L_DicomIsConnected(net)
    finally:
        L_DicomFreeNet(net)


def milliseconds_at(place: int) -> Callable[[int, Any], None]:
    def use(_: int, value: Any) -> None:
        net = L_DicomCreateNet(None, DICOM_SECURE_NONE)
        try:
            check(L_DicomSetTimeouts(net, *[value if n == place else 0 for n in range(3)]))
        finally:
            L_DicomFreeNet(net)

    return use


OF_L_DICOM = {
    "L_DicomWait": waiting_for_a_connection,
    "nArtim": milliseconds_at(0),
    "nResponse": milliseconds_at(1),
    "nIdle": milliseconds_at(2),
}


@pytest.mark.parametrize("value", MILLISECONDS)
@pytest.mark.parametrize("parameter", OF_L_DICOM)
def test_milliseconds_are_limited_to_an_unsigned_int(
    peers: Any, parameter: str, value: str
) -> None:
    milliseconds = MILLISECONDS[value]
    with started():
        if not isinstance(milliseconds, int):
            with pytest.raises(TypeError):
                OF_L_DICOM[parameter](peers.address[1], milliseconds)
        elif not 0 <= milliseconds < 2**32:
            with pytest.raises(OverflowError):
                OF_L_DICOM[parameter](peers.address[1], milliseconds)
        else:
            OF_L_DICOM[parameter](peers.address[1], milliseconds)


@contextmanager
def started() -> Iterator[None]:
    check(L_DicomStartUp())
    try:
        yield
    finally:
        L_DicomShutDown()


# ---- whole associations ------------------------------------------------------------------------

DATA = random.Random(14).randbytes(3 << 20)  # above the buffers of both ends
LONG_ONES = {name: value for name, value in VALUES.items() if name in FOREVER or "days" in name}
by_long_time = pytest.mark.parametrize("value", LONG_ONES)
by_requestor = pytest.mark.parametrize("requestor", REQUESTORS, ids=lambda one: one.name)
by_acceptor = pytest.mark.parametrize("acceptor", ACCEPTORS, ids=lambda one: one.name)


@pytest.mark.slow
@by_long_time
@by_requestor
@by_acceptor
def test_an_association_with_long_timeouts_works(acceptor: Any, requestor: Any, value: str) -> None:
    seconds = LONG_ONES[value]
    in_c = 0 if seconds is None or seconds > 5e6 else seconds  # milliseconds; 0 is for ever
    plan = Plan(timeout=in_c if acceptor is LDicomAcceptor else seconds)
    wish = Wish(timeout=in_c if requestor is LDicomRequestor else seconds)
    with acceptor(plan) as server, requestor(server.port, wish) as association:
        assert association.echo() == 0
        association.send(b"command!", is_command=True)
        association.send(DATA, is_command=False)
        assert association.receive() == (True, RESPONSE)
        assert association.receive() == (False, DATA)
        association.release()


@pytest.mark.slow
@by_long_time
@pytest.mark.parametrize("requestor", [BlockingRequestor, AsyncRequestor], ids=lambda one: one.name)
def test_an_association_over_tls_with_long_timeouts_works(requestor: Any, value: str) -> None:
    seconds = LONG_ONES[value]
    options = {"timeout": seconds, "idle": seconds, "tls": server_context()}
    with (
        serving_in_asyncio(admission=ALL, handler=answer, **options) as server,
        requestor(server.address[1], SecureWish(timeout=seconds)) as association,
    ):
        assert association.echo() == 0
        association.send(b"command!", is_command=True)
        assert association.receive() == (True, b"command!")
        association.send(DATA, is_command=False)
        assert association.receive() == (False, DATA)
        association.release()


class SecureWish(Wish):
    @property
    def options(self) -> dict[str, Any]:
        return {**super().options, "tls": client_context()}
