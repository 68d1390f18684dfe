"""Connecting: several addresses, names and numbers, timeouts, and cancellation."""

from __future__ import annotations

import asyncio
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import chain, repeat
from typing import Any

import pytest

import ltdic
from ltdic import ConnectionFailed, Retry, Server, aio, lib
from ltdic._native import net
from ltdic._threads import Threads
from ltdic.cli import echo
from support.loops import in_loop, is_done_before, next_step
from support.paths import TESTS
from support.process import descriptors
from support.servers import serving
from support.sockets import LOCALHOST, TIMEOUT, has_ipv6
from support.threads import Background
from support.toolchain import Toolchain, linux_toolchain_or_skip, run
from support.waiting import eventually

C = TESTS / "c"
LINUX = sys.platform == "linux"
SHORT = 0.3  # s: a timeout that passes in a test

on_linux = pytest.mark.skipif(
    not LINUX, reason="only on Linux does a full backlog leave a connection without an answer"
)

# ---- several addresses -------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["gcc", "gcc -DLTDIC_POLL"])
def sockets_toolchain(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Any:
    """The library over epoll and over poll(2)."""
    why = "the program needs ld --wrap and epoll"
    return linux_toolchain_or_skip(request.param, tmp_path_factory.mktemp("connecting"), why)


@pytest.mark.slow
def test_the_first_connected_address_is_used_and_the_others_are_closed(
    sockets_toolchain: Toolchain,
) -> None:
    source = C / "connecting.c"
    wrapped = set(re.findall(r"\b__wrap_(\w+)\(", source.read_text()))
    wraps = [f"-Wl,--wrap={name}" for name in sorted(wrapped)]
    printed = run(sockets_toolchain.program(source, "c11", *wraps), timeout=300)
    assert len(printed.splitlines()) == 26


def addresses_of(host: str) -> list[str]:
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return [str(where[4][0]) for where in found]


NUMBERS = [LOCALHOST, *(["::1"] if has_ipv6() else [])]


async def connect_in_loop(host: str, port: int, **options: Any) -> None:
    association = await aio.connect(host, port, **options)
    await association.abort()


def connect_async(host: str, port: int, **options: Any) -> None:
    asyncio.run(connect_in_loop(host, port, **options))


def connect_sync(host: str, port: int, **options: Any) -> None:
    ltdic.connect(host, port, **options).abort()


by_face = pytest.mark.parametrize("connect", [connect_sync, connect_async], ids=["sync", "aio"])
Connect = Callable[..., None]


@by_face
@pytest.mark.parametrize("number", NUMBERS)
def test_a_name_of_two_families_is_connected_where_one_listens(
    connect: Connect, number: str
) -> None:
    """Where `localhost` of this system has one family only, only that one is tried."""
    name = "localhost" if set(NUMBERS) <= set(addresses_of("localhost")) else number
    with Server((number, 0), timeout=TIMEOUT) as server:
        thread = Background(lambda: server.serve(until=lambda: server.counters.accepted == 1))
        connect(name, server.address[1], timeout=TIMEOUT)
        thread.join()


# ---- names and numbers -------------------------------------------------------------------------

GOOD = [LOCALHOST, "LOCALHOST", "localhost", "localhost.", "LocalHost.", f"{LOCALHOST}."]
GOOD += ["[127.0.0.1]", *(["::1", "[::1]", "0:0:0:0:0:0:0:1"] if has_ipv6() else [])]
NONE = ["[]", "[", "no.such.host.invalid", "..", ".", " ", "[::1].", "a" * 70 + ".invalid"]
WITH_NUL = ["no\0host", f"{LOCALHOST}\0", f"{LOCALHOST}\0.invalid", "\0"]
WITH_PORT = ["localhost:104", f"{LOCALHOST}:104", "[::1]:104", ":104", "localhost:"]
NO_PORTS = [-1, 65_536, 70_000, 1 << 32]


def listen_sync(host: str, port: int) -> str:
    with Server((host, port), timeout=TIMEOUT) as server:
        return server.address[0]


def listen_async(host: str, port: int) -> str:
    async def listen() -> str:
        async with aio.Server((host, port), timeout=TIMEOUT) as server:
            return server.address[0]

    return asyncio.run(listen())


by_server = pytest.mark.parametrize("listen", [listen_sync, listen_async], ids=["sync", "aio"])
Listen = Callable[[str, int], str]


@by_face
@pytest.mark.parametrize("host", GOOD)
def test_a_host_is_a_name_or_a_number(connect: Connect, host: str) -> None:
    with Server(("", 0), timeout=TIMEOUT) as server:
        thread = Background(lambda: server.serve(until=lambda: server.counters.accepted == 1))
        connect(host, server.address[1], timeout=TIMEOUT)
        thread.join()


@by_server
@pytest.mark.parametrize("host", GOOD)
def test_a_server_listens_at_a_name_or_a_number(listen: Listen, host: str) -> None:
    assert listen(host, 0) in ("127.0.0.1", "::1")


@by_server
@pytest.mark.parametrize("host", ["", "*"])
def test_a_server_without_a_host_listens_everywhere(listen: Listen, host: str) -> None:
    assert listen(host, 0) in ("::", "0.0.0.0")


@by_face
def test_a_zone_index_is_resolved(connect: Connect) -> None:
    """The connection itself may fail."""
    if not has_ipv6() or "lo" not in [name for _, name in socket.if_nameindex()]:
        pytest.skip("needs IPv6 at ::1 and the interface `lo`, whose zone index it names")
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as server:
        port = server.getsockname()[1]
    with pytest.raises(ConnectionFailed) as e:
        connect("fe80::1%lo", port, timeout=TIMEOUT)
    assert isinstance(e.value.__cause__, OSError)
    assert not isinstance(e.value.__cause__, socket.gaierror)


@by_face
@pytest.mark.parametrize("host", [*NONE, *WITH_NUL, ""])
def test_connecting_to_an_invalid_host_is_a_connection_failed(connect: Connect, host: str) -> None:
    with pytest.raises(ConnectionFailed, match="no connection to") as e:
        connect(host, 104, timeout=TIMEOUT)
    assert isinstance(e.value.__cause__, (socket.gaierror, UnicodeError))


@pytest.mark.slow
@by_server
@pytest.mark.parametrize("host", [*NONE, *WITH_NUL])
def test_listening_at_an_invalid_host_raises_the_error_of_the_resolver(
    listen: Listen, host: str
) -> None:
    """The error is not that of an earlier call. Without a network the resolver may report a
    temporary failure for a possible name."""
    with pytest.raises(socket.gaierror) as expected:
        socket.getaddrinfo("no.such.host.invalid", 0)
    with socket.create_server((LOCALHOST, 0)) as taken:
        with pytest.raises(OSError, match="in use"):
            listen(LOCALHOST, taken.getsockname()[1])
        with pytest.raises(socket.gaierror) as e:
            listen(host, 0)
    if host == "no.such.host.invalid":
        assert (e.value.errno, e.value.strerror) == expected.value.args
    assert e.value.errno != expected.value.errno or e.value.strerror == expected.value.strerror
    assert e.value.errno in (socket.EAI_NONAME, socket.EAI_AGAIN)


@pytest.mark.slow
@by_server
def test_listening_on_a_port_in_use_is_an_error(listen: Listen) -> None:
    with pytest.raises(socket.gaierror):
        listen("no.such.host.invalid", 0)
    with socket.create_server((LOCALHOST, 0)) as taken, pytest.raises(OSError, match="in use") as e:
        listen(LOCALHOST, taken.getsockname()[1])
    assert not isinstance(e.value, socket.gaierror)


@pytest.mark.parametrize("face", [ltdic.connect, aio.connect, listen_sync, listen_async])
@pytest.mark.parametrize("host", WITH_PORT)
def test_a_host_with_a_port_in_it_is_a_value_error(face: Any, host: str) -> None:
    with pytest.raises(ValueError, match="its port is an argument of its own") as e:
        face(host, 104)
    assert repr(host) in str(e.value)


@pytest.mark.parametrize("face", [ltdic.connect, aio.connect, listen_sync, listen_async])
@pytest.mark.parametrize("port", NO_PORTS)
def test_an_invalid_port_is_a_value_error(face: Any, port: int) -> None:
    with pytest.raises(ValueError, match=f"port is {port}, not 0 to 65535"):
        face("", port)


@pytest.mark.parametrize("connect", [ltdic.connect, aio.connect])
def test_connecting_to_port_0_is_a_value_error(connect: Any) -> None:
    with pytest.raises(ValueError, match="port is 0, not 1 to 65535"):
        connect(LOCALHOST, 0)


# ---- the address of this end -------------------------------------------------------------------


@by_face
@pytest.mark.parametrize("local", ["", "*", LOCALHOST, "127.0.0.5", "localhost."])
def test_the_local_address_is_the_requested_one(connect: Connect, local: str) -> None:
    if local == "127.0.0.5" and not LINUX:
        pytest.skip("only Linux has all of 127.0.0.0/8 on its loopback")
    with serving(timeout=TIMEOUT) as server:
        connect(*server.address, local_address=(local, 0), timeout=TIMEOUT)


@by_face
def test_the_unspecified_local_address_fits_any_family(connect: Connect) -> None:
    for number in NUMBERS:
        with Server((number, 0), timeout=TIMEOUT) as server:
            thread = Background(lambda s=server: s.serve(until=lambda: s.counters.accepted == 1))
            connect(*server.address, local_address=("", 0), timeout=TIMEOUT)
            thread.join()


@by_face
@pytest.mark.parametrize("local", ["203.0.113.1", "no.such.host.invalid", f"{LOCALHOST}\0", "::1"])
def test_an_unusable_local_address_is_a_connection_failed(connect: Connect, local: str) -> None:
    with (
        socket.create_server((LOCALHOST, 0)) as server,
        pytest.raises(ConnectionFailed) as e,
    ):
        connect(*server.getsockname(), local_address=(local, 0), timeout=TIMEOUT)
    assert isinstance(e.value.__cause__, OSError)


@pytest.mark.parametrize("connect", [ltdic.connect, aio.connect])
@pytest.mark.parametrize("local", [(LOCALHOST, 70_000), (LOCALHOST, -1), ("localhost:1", 0)])
def test_an_invalid_local_address_is_a_value_error(connect: Any, local: tuple[str, int]) -> None:
    with pytest.raises(ValueError, match="port"):
        connect(LOCALHOST, 104, local_address=local)


# ---- on the command line -----------------------------------------------------------------------


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-I", "-m", "ltdic", *arguments],
        capture_output=True,
        text=True,
        timeout=6 * TIMEOUT,
    )


@pytest.mark.slow
@pytest.mark.parametrize("together", [True, False], ids=["one word", "two"])
@pytest.mark.parametrize("host", [LOCALHOST, "localhost.", *(["[::1]"] if has_ipv6() else [])])
def test_echo_takes_host_and_port_in_one_argument_or_two(host: str, together: bool) -> None:
    with Server(("", 0), timeout=TIMEOUT) as server:
        thread = Background(server.serve)
        where = host, str(server.address[1])
        result = command("echo", *([":".join(where)] if together else where))
    thread.join()
    assert (result.returncode, result.stdout[:4]) == (0, "OK  "), result


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        ["::1:104"],
        ["localhost"],
        ["localhost:0"],
        ["localhost:70000"],
        ["localhost:104", "104"],
        ["[::1]:104", "104"],
        [":104"],
        ["", "104"],
    ],
    ids=str,
)
def test_echo_names_an_invalid_host_or_port(arguments: list[str]) -> None:
    result = command("echo", *arguments)
    assert result.returncode == 64
    assert re.search(r"ltdic echo: .*(PORT|port|HOST)", result.stderr)


@pytest.mark.slow
@pytest.mark.parametrize("host", WITH_PORT)
def test_listen_refuses_a_host_with_a_port_in_it(host: str) -> None:
    result = command("listen", "--host", host, "--port", "0")
    assert result.returncode == 64
    assert "its port is an argument of its own" in result.stderr
    assert "Traceback" not in result.stderr


# ---- no answer ---------------------------------------------------------------------------------


@contextmanager
def silent() -> Iterator[tuple[str, int]]:
    """Yield an address that does not answer, since its backlog is full."""
    with socket.socket() as full, ExitStack() as stack:
        full.bind((LOCALHOST, 0))
        full.listen(0)
        for _ in range(4):
            one = stack.enter_context(socket.socket())
            one.setblocking(False)
            one.connect_ex(full.getsockname())
        yield full.getsockname()


@pytest.mark.slow
@on_linux
@by_face
def test_no_connection_in_time_is_a_connection_failed(connect: Connect) -> None:
    with silent() as address:
        before = descriptors()
        begun = time.monotonic()
        with pytest.raises(ConnectionFailed, match=r"port \d+: no answer in time") as e:
            connect(*address, timeout=SHORT)
        assert SHORT * 0.9 < time.monotonic() - begun < TIMEOUT
        # A connecting thread may need a moment to see that nobody waits for it.
        eventually(lambda: descriptors() == before)
    assert isinstance(e.value.__cause__, TimeoutError)
    assert not isinstance(e.value, TimeoutError)


@pytest.mark.slow
@on_linux
@by_face
def test_no_connection_in_time_is_tried_again(connect: Connect) -> None:
    told: list[tuple[Any, int]] = []
    retry = Retry(attempts=3, first=0.01, notify=lambda e, n, _: told.append((e.__cause__, n)))
    with silent() as address, pytest.raises(ConnectionFailed, match="tried 3 times"):
        connect(*address, timeout=SHORT, retry=retry)
    assert [(type(cause), n) for cause, n in told] == [(TimeoutError, 1), (TimeoutError, 2)]


@pytest.mark.slow
@on_linux
def test_echo_prints_that_the_connection_timed_out() -> None:
    with silent() as (host, port):
        result = command("echo", host, str(port), "--timeout", str(SHORT))
    assert result.returncode == 69
    assert result.stdout.startswith("UNREACHABLE  no connection to ")
    assert "no answer in time" in result.stdout


@pytest.mark.slow
@on_linux
def test_echo_retries_after_a_timeout_and_ends_in_time() -> None:
    with silent() as (host, port):
        begun = time.monotonic()
        result = command("echo", host, str(port), "--timeout", "3", "--retry", "1")
        took = time.monotonic() - begun
    assert result.returncode == 69
    assert result.stdout.startswith("UNREACHABLE  no connection to ")
    assert "no answer in time (tried 2 times" in result.stdout
    assert result.stderr.count("Trying again") == 1
    assert 1.5 < took < 3 + TIMEOUT


class Clock:
    """A clock that advances in waits alone."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.mark.parametrize("answers", ["", "R", "RR", "RRR", "RT", "TR", "TRR", "TTR", "RTRT"])
@pytest.mark.parametrize(("timeout", "retries"), [(30, 3), (4, 3), (1, 3), (3, 1), (2, 0)])
def test_echo_retries_within_its_total_time_only(
    monkeypatch: pytest.MonkeyPatch, answers: str, timeout: float, retries: int
) -> None:
    """Each try ends with a refusal (R) or a timeout (T); those after the given ones time out."""
    clock = Clock()
    moves = chain(answers, repeat("T"))
    tries = []

    def connect(*_: Any, timeout: float, **__: Any) -> Any:
        what = TimeoutError if next(moves) == "T" else ConnectionRefusedError
        clock.now += timeout if what is TimeoutError else 0.01
        tries.append(what)
        raise ConnectionFailed("no connection") from what()

    monkeypatch.setattr(echo, "time", clock)
    monkeypatch.setattr(echo, "connect", connect)
    request = echo.Request("host", 104, "CALLED", "CALLING", timeout, retries, False)
    assert echo.run_echo(request) == 69
    assert clock.now - 1000 <= timeout + 0.1
    if timeout == 30:
        assert len(tries) == 1 + retries


# ---- temporary failures of the resolver --------------------------------------------------------


class Resolver:
    """The C library with a resolver that fails temporarily for some calls."""

    def __init__(self, failures: int) -> None:
        self.failures = failures

    def __getattr__(self, name: str) -> Any:
        return getattr(lib, name)

    def ltdic_lookup_new(self, found: Any, peer: Any, local: Any, cause: Any) -> int:
        if self.failures == 0:
            return int(lib.ltdic_lookup_new(found, peer, local, cause))
        self.failures -= 1
        cause.resolver = socket.EAI_AGAIN
        return int(lib.LTDIC_ERR_ADDRESS)


@by_face
def test_a_temporary_failure_of_the_resolver_is_tried_again(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Any] = []
    retry = Retry(attempts=3, first=0.01, notify=lambda e, *_: told.append(e.__cause__))
    with serving(timeout=TIMEOUT) as server:
        monkeypatch.setattr(net, "lib", Resolver(2))
        connect("localhost", server.address[1], timeout=TIMEOUT, retry=retry)
        assert [(type(e), e.errno) for e in told] == [(socket.gaierror, socket.EAI_AGAIN)] * 2
        monkeypatch.setattr(net, "lib", Resolver(1))
        with pytest.raises(ConnectionFailed, match="no connection to localhost port") as e:
            connect("localhost", server.address[1], timeout=TIMEOUT)
    assert isinstance(e.value.__cause__, socket.gaierror)
    assert e.value.__cause__.errno == socket.EAI_AGAIN
    assert str(e.value.__cause__.strerror) in str(e.value)


def test_echo_retries_after_a_temporary_failure_of_the_resolver(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(net, "lib", Resolver(1))
    monkeypatch.setattr(time, "sleep", lambda _: None)
    with Server((LOCALHOST, 0), timeout=TIMEOUT) as server:
        thread = Background(server.serve)
        request = echo.Request("localhost", server.address[1], "A", "B", TIMEOUT, 1, False)
        assert echo.run_echo(request) == 0
    thread.join()
    told = capsys.readouterr()
    assert told.out.startswith("OK  ")
    assert told.err.count("Trying again") == 1


# ---- cancellation in asyncio -------------------------------------------------------------------


async def cancel_at(steps: int, host: str, port: int) -> bool:
    return await is_done_before(steps, connect_in_loop(host, port, timeout=TIMEOUT))


@pytest.mark.slow
@on_linux
@pytest.mark.parametrize("host", [LOCALHOST, "localhost", "no.such.host.invalid"])
@in_loop
async def test_connecting_can_be_cancelled_at_any_step(host: str) -> None:
    with silent() as (_, port):
        steps = 0
        while steps < 100:
            with suppress(ConnectionFailed):
                assert not await cancel_at(steps, host, port)
            steps = next_step(steps)


@pytest.mark.slow
@pytest.mark.parametrize("host", [LOCALHOST, "localhost"])
@in_loop
async def test_connecting_to_a_listening_server_can_be_cancelled_at_any_step(host: str) -> None:
    async with aio.Server((LOCALHOST, 0), timeout=TIMEOUT) as server:
        done, steps = False, 0
        while not done and steps < 100_000:
            done = await cancel_at(steps, host, server.address[1])
            steps = next_step(steps)
        assert done


class SlowResolver:
    """Takes the first look-ups, and answers none of them until `go_on` is set."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, slow: int) -> None:
        self.go_on = threading.Event()
        self.asked = 0
        real = net.Lookup

        def look_up(*where: Any) -> Any:
            self.asked += 1
            if self.asked <= slow:
                assert self.go_on.wait(TIMEOUT)
            return real(*where)

        monkeypatch.setattr(net, "Lookup", look_up)


@in_loop
async def test_connecting_can_be_cancelled_before_a_thread_is_free(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """More calls look a name up than there are threads."""
    monkeypatch.setattr(aio, "_lookups", Threads("ltdic-lookup", 1))
    resolver = SlowResolver(monkeypatch, 1)
    async with aio.Server((LOCALHOST, 0), timeout=TIMEOUT) as server:
        port = server.address[1]
        tasks = [asyncio.create_task(connect_in_loop("localhost", port)) for _ in range(9)]
        await asyncio.to_thread(eventually, lambda: resolver.asked == 1)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert all(task.cancelled() for task in tasks)
        resolver.go_on.set()
        await connect_in_loop("localhost", port, timeout=TIMEOUT)
        assert server.counters.connections == 1
        assert resolver.asked == 2


@in_loop
async def test_a_slow_resolver_delays_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    resolver = SlowResolver(monkeypatch, 20)
    async with aio.Server((LOCALHOST, 0), timeout=TIMEOUT) as server:
        port = server.address[1]
        tasks = [asyncio.create_task(connect_in_loop("localhost", port)) for _ in range(20)]
        await asyncio.to_thread(eventually, lambda: resolver.asked == 20)
        await connect_in_loop("localhost", port, timeout=TIMEOUT)
        assert not any(task.done() for task in tasks)
        resolver.go_on.set()
        await asyncio.gather(*tasks)


@pytest.mark.slow
@on_linux
@pytest.mark.parametrize("good", [LOCALHOST, "localhost"])
@in_loop
async def test_a_hundred_unanswered_connections_do_not_delay_another_one(good: str) -> None:
    async with aio.Server((LOCALHOST, 0), timeout=TIMEOUT) as server:
        with silent() as (_, port):
            tasks = [
                asyncio.create_task(connect_in_loop(host, port, timeout=10 * TIMEOUT))
                for host in [LOCALHOST, "localhost"] * 50
            ]
            await asyncio.sleep(0)
            await connect_in_loop(good, server.address[1], timeout=5 * TIMEOUT)
            assert not any(task.done() for task in tasks)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.slow
@in_loop
async def test_resolving_the_local_address_does_not_block_the_loop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    threads = []
    real = net.Lookup

    def watched(*where: Any) -> Any:
        threads.append(threading.get_ident())
        return real(*where)

    monkeypatch.setattr(net, "Lookup", watched)
    async with aio.Server((LOCALHOST, 0), timeout=TIMEOUT) as server:
        for local in ("localhost", LOCALHOST):
            await connect_in_loop(*server.address, local_address=(local, 0), timeout=TIMEOUT)
    here = threading.get_ident()
    assert [thread == here for thread in threads] == [False, True]


@in_loop
async def test_without_a_thread_no_name_is_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """An address needs none."""

    def fails(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(aio, "_lookups", Threads("ltdic-lookup"))
    async with aio.Server((LOCALHOST, 0), timeout=TIMEOUT) as server:
        monkeypatch.setattr(threading.Thread, "start", fails)
        for _ in range(3):
            with pytest.raises(ConnectionFailed, match="can't start new thread"):
                await connect_in_loop("localhost", server.address[1], timeout=TIMEOUT)
        await connect_in_loop(LOCALHOST, server.address[1], timeout=TIMEOUT)
        monkeypatch.undo()
        assert server.counters.connections == 1
