"""TLS: both requestors and `aio.Server`, against raw `ssl` peers and against each other."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import random
import select
import socket
import ssl
import threading
import time
import warnings
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from typing import Any

import pytest
import trustme

import ltdic
from ltdic import (
    PDV,
    Abort,
    Admission,
    AssociateReject,
    AssociateRequest,
    AssociationAborted,
    AssociationRejected,
    ConnectionClosed,
    ConnectionFailed,
    ProposedContext,
    UserInformation,
    aio,
    encode,
)
from ltdic._native import net
from ltdic.tls import TlsTransport
from support.commands import command_set
from support.faces import DATA_CONTEXT
from support.hosts import SERVERS
from support.pdus import RELEASE_RP, RELEASE_RQ, p_data
from support.raw import ACCEPT, OPTIONS, REQUEST, SHORT, read_message
from support.servers import ALL
from support.sockets import LOCALHOST, TIMEOUT, close_with_reset, receive_exactly_one
from support.threads import Background
from support.tls import AUTHORITY, RawTls, client_context, server_context
from support.uids import CT
from support.waiting import eventually

VERSIONS = {"plain": None, "1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
by_transport = pytest.mark.parametrize("version", VERSIONS)
by_version = pytest.mark.parametrize("version", ["1.2", "1.3"])
ABORT = encode(Abort(2, 1))
MORE_THAN_FITS = bytes(8 << 20)


# ---- contexts ------------------------------------------------------------------------------------


def of_version(context: ssl.SSLContext, version: str) -> ssl.SSLContext | None:
    """Restrict the context to this version of TLS; return None for "plain"."""
    if version == "plain":
        return None
    context.minimum_version = context.maximum_version = VERSIONS[version]  # type: ignore[assignment]
    return context


def server_tls(version: str) -> ssl.SSLContext | None:
    return of_version(server_context(), version)


def client_tls(version: str) -> ssl.SSLContext | None:
    return of_version(client_context(), version)


def asking_tls(version: str) -> ssl.SSLContext:
    """Return a server context that requires a client certificate."""
    context = server_context()
    AUTHORITY.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    of_version(context, version)
    return context


def shown_tls(version: str, authority: trustme.CA) -> ssl.SSLContext:
    """Return a client context with a certificate."""
    context = client_context()
    authority.issue_cert("ct@example.org").configure_cert(context)
    of_version(context, version)
    return context


# ---- requestors ----------------------------------------------------------------------------------


def blocking(address: Any, data: bytes, **options: Any) -> ltdic.Error | None:
    """Send this data in an association; return the error, or None."""
    try:
        with ltdic.connect(*address, **{**OPTIONS, **options}) as association:
            if data:
                association.send(b"command!", context=DATA_CONTEXT, is_command=True)
                association.send(data, context=DATA_CONTEXT)
    except ltdic.Error as e:
        return e
    return None


def in_asyncio(address: Any, data: Any, **options: Any) -> ltdic.Error | None:
    async def associate() -> ltdic.Error | None:
        try:
            async with aio.connect(*address, **{**OPTIONS, **options}) as association:
                if data:
                    await association.send(b"command!", context=DATA_CONTEXT, is_command=True)
                    await association.send(data, context=DATA_CONTEXT)
        except ltdic.Error as e:
            return e
        return None

    return asyncio.run(associate())


FACES = {"blocking": blocking, "asyncio": in_asyncio}
by_face = pytest.mark.parametrize("face", FACES)


def told(error: ltdic.Error | None) -> Any:
    if isinstance(error, AssociationRejected):
        return error.codes
    if isinstance(error, AssociationAborted):
        return error.received, int(error.abort.source), int(error.abort.reason)
    return repr(error)


# ---- raw peers -----------------------------------------------------------------------------------


def send_at_once(connection: socket.socket) -> None:
    """Disable Nagle's algorithm: a reset discards bytes that it delays."""
    connection.settimeout(TIMEOUT)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def secured(connection: socket.socket, tls: ssl.SSLContext | None, **options: Any) -> Any:
    if tls is None:
        return connection
    return tls.wrap_socket(connection, suppress_ragged_eofs=False, **options)


@contextmanager
def raw_acceptors(
    count: int, tls: ssl.SSLContext | None, script: Callable[[Any], Any]
) -> Iterator[Any]:
    """Run the script for each of so many connections; yield the address."""
    with socket.create_server((LOCALHOST, 0)) as listener:
        listener.settimeout(TIMEOUT)

        def accept_all() -> None:
            for _ in range(count):
                connection, _peer = listener.accept()
                send_at_once(connection)
                with secured(connection, tls, server_side=True) as both:
                    script(both)

        thread = Background(accept_all)
        yield listener.getsockname()
        thread.join()


@contextmanager
def raw_requestor(address: Any, tls: ssl.SSLContext | None) -> Iterator[Any]:
    with socket.create_connection(address, TIMEOUT) as connection:
        send_at_once(connection)
        with secured(connection, tls, server_hostname=LOCALHOST) as both:
            yield both


def answer(association: Any, pdv: PDV) -> Iterator[Any]:
    """Send every command and data set back as it came."""
    parts = association.user_data = association.user_data or []
    parts.append(bytes(pdv.data))
    if pdv.is_last:
        association.user_data = None
        data = b"".join(parts)
        yield association.send(data, context=pdv.context_id, is_command=pdv.is_command)


@contextmanager
def serving_as(kind: str, tls: ssl.SSLContext | None, **options: Any) -> Iterator[Any]:
    """Run a server of this kind, with a handler as in `Host.options`."""
    options = {"admission": ALL, "handler": answer, "on_end": None, **options}
    with SERVERS[kind](tls=tls, **options) as host:
        yield host.server


Serving = Callable[..., AbstractContextManager[Any]]


@pytest.fixture(params=SERVERS)
def serving(request: pytest.FixtureRequest) -> Serving:
    return partial(serving_as, request.param)


def ends_seen(counters: ltdic.Counters) -> int:
    """Count the connections with an outcome."""
    rejected = sum(counters.rejected.values())
    without = counters.no_request + counters.faults + counters.tls_failures + counters.unaccepted
    return counters.accepted + rejected + without


# ---- last PDU of a peer --------------------------------------------------------------------------


def reject_at_once(connection: Any) -> None:
    connection.sendall(encode(AssociateReject(2, 3, 2)))
    close_with_reset(connection)


def reject_when_asked(connection: Any) -> None:
    """Reject when the request has arrived, without reading it."""
    select.select([connection], [], [], TIMEOUT)
    reject_at_once(connection)


@pytest.mark.slow
@by_face
@by_transport
@pytest.mark.parametrize("script", [reject_at_once, reject_when_asked])
def test_a_rejection_followed_by_a_reset_is_reported(face: str, version: str, script: Any) -> None:
    tls, count = client_tls(version), 60
    with raw_acceptors(count, server_tls(version), script) as address:
        found = Counter(told(FACES[face](address, b"", tls=tls)) for _ in range(count))
    assert found == {(2, 3, 2): count}


def abort_at_first(connection: Any) -> None:
    connection.recv(1000)
    connection.sendall(ABORT)
    close_with_reset(connection)


def abort_later(connection: Any) -> None:
    left = 3 << 20
    while left > 0:
        left -= len(connection.recv(65536))
    abort_at_first(connection)


def abort_one_who_is_stuck(connection: Any) -> None:
    """Abort after a time without reading, in which the sender fills its buffers."""
    time.sleep(0.05)
    abort_at_first(connection)


ABORTS = {abort_at_first: 40, abort_later: 40, abort_one_who_is_stuck: 10}
"""And how often."""
by_abort = pytest.mark.parametrize("abort", ABORTS)


@pytest.mark.slow
@by_face
@by_transport
@by_abort
def test_an_abort_followed_by_a_reset_during_a_send_is_reported(
    face: str, version: str, abort: Any
) -> None:
    def script(connection: Any) -> None:
        receive_exactly_one(connection)
        connection.sendall(ACCEPT)
        abort(connection)

    tls, count = client_tls(version), ABORTS[abort]
    with raw_acceptors(count, server_tls(version), script) as address:
        found = Counter(told(FACES[face](address, MORE_THAN_FITS, tls=tls)) for _ in range(count))
    assert found == {(True, 2, 1): count}


@pytest.mark.slow
@by_transport
@by_abort
def test_an_acceptor_records_an_abort_although_a_reset_follows_it(
    version: str, abort: Any, serving: Serving
) -> None:
    count, records = ABORTS[abort], []

    def handler(association: Any, pdv: PDV) -> Iterator[Any]:
        if pdv.is_last:
            yield association.send(b"command!", context=pdv.context_id, is_command=True)
            yield association.send(MORE_THAN_FITS, context=pdv.context_id)

    def on_end(_: object, record: ltdic.Record) -> None:
        records.append((record.outcome, record.text, record.codes))

    with serving(server_tls(version), handler=handler, on_end=on_end) as server:
        for _ in range(count):
            with raw_requestor(server.address, client_tls(version)) as connection:
                connection.sendall(REQUEST)
                receive_exactly_one(connection)
                connection.sendall(p_data(b"command!", True))
                abort(connection)
        eventually(lambda: len(records) == count)
    assert Counter(records) == {
        ("aborted", "aborted by the peer (source 2, reason 1)", (0, 2, 1)): count
    }
    assert server.counters == ltdic.Counters(connections=count, accepted=count, aborted=count)


# ---- alerts --------------------------------------------------------------------------------------


def handshake_and_read(connection: Any) -> None:
    with suppress(OSError):
        connection.recv(1)


@contextmanager
def asking(kind: str, version: str) -> Iterator[Any]:
    """Run a server that requires a certificate; yield its address."""
    tls = asking_tls(version)
    if kind in SERVERS:
        with serving_as(kind, tls) as server:
            yield server.address
        assert server.counters == ltdic.Counters(connections=1, tls_failures=1)
        return

    def script(connection: Any) -> None:
        with suppress(OSError):
            connection.do_handshake()
            connection.recv(1)

    with socket.create_server((LOCALHOST, 0)) as listener:
        listener.settimeout(TIMEOUT)

        def accept() -> None:
            connection, _ = listener.accept()
            send_at_once(connection)
            options: dict[str, Any] = {"server_side": True, "do_handshake_on_connect": False}
            with secured(connection, tls, **options) as both:
                script(both)

        thread = Background(accept)
        yield listener.getsockname()
        thread.join()


REASONS = {
    ("1.2", "none"): "alert handshake failure",
    ("1.2", "unknown"): "alert unknown ca",
    ("1.3", "none"): "alert certificate required",
    ("1.3", "unknown"): "alert unknown ca",
}


@pytest.mark.slow
@by_face
@pytest.mark.parametrize(("version", "certificate"), REASONS)
@pytest.mark.parametrize("server", ["raw", *SERVERS])
def test_a_requestor_reports_the_tls_alert_about_its_certificate(
    face: str, version: str, certificate: str, server: str
) -> None:
    """With TLS 1.3 the alert arrives after the handshake."""
    tls = client_tls(version)
    if certificate == "unknown":
        tls = shown_tls(version, trustme.CA())
    with asking(server, version) as address:
        error = FACES[face](address, b"", tls=tls)
    assert type(error) is ConnectionFailed
    assert REASONS[version, certificate] in str(error)
    assert isinstance(error.__cause__, ssl.SSLError)
    assert REASONS[version, certificate].replace(" ", "_").upper() in str(error.__cause__.reason)


class Breaking:
    """The server's end of TLS over a socket through memory BIOs, to send an alert at will."""

    def __init__(self, connection: socket.socket, tls: ssl.SSLContext) -> None:
        self._connection = connection
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = tls.wrap_bio(self._in, self._out, server_side=True)
        self._do(self._tls.do_handshake)

    def _do(self, step: Callable[..., Any], *arguments: Any) -> Any:
        while True:
            try:
                return step(*arguments)
            except ssl.SSLWantReadError:
                self._connection.sendall(self._out.read())
                self._in.write(self._connection.recv(65536))
            finally:
                self._connection.sendall(self._out.read())

    def recv(self, size: int) -> Any:
        return self._do(self._tls.read, size)

    def sendall(self, data: bytes) -> None:
        self._do(self._tls.write, data)

    def find_fault(self) -> None:
        """Send the alert for a broken record."""
        self._in.write(b"\x17\x03\x03\x00\x40" + bytes(64))
        with suppress(ssl.SSLError):
            while self._do(self._tls.read, 65536):
                pass


@by_face
@by_version
@pytest.mark.parametrize("data", [b"", MORE_THAN_FITS], ids=["it waits", "it sends"])
@pytest.mark.parametrize("established", [False, True])
def test_a_later_tls_alert_is_the_cause_of_the_end(
    face: str, version: str, data: bytes, established: bool
) -> None:
    def script(connection: socket.socket) -> None:
        peer: Any = Breaking(connection, server_tls(version))  # type: ignore[arg-type]
        receive_exactly_one(peer)
        if established:
            peer.sendall(ACCEPT)
            peer.recv(1)
        peer.find_fault()
        close_with_reset(connection)

    with raw_acceptors(1, None, script) as address:
        error = FACES[face](address, data, tls=client_tls(version))
    assert type(error) is (ConnectionClosed if established else ConnectionFailed)
    assert "alert bad record mac" in str(error)
    assert isinstance(error.__cause__, ssl.SSLError)


# ---- strangers -----------------------------------------------------------------------------------

HELLO = bytes.fromhex("160301 0200 010001fc 0303")  # the first bytes of a ClientHello


def failing_handshake(connection: socket.socket) -> None:
    with pytest.raises(ssl.SSLError):
        secured(connection, client_context(trustme.CA()), server_hostname=LOCALHOST)


def sending(data: bytes) -> Callable[[socket.socket], None]:
    return lambda connection: connection.sendall(data)


STRANGERS: dict[str, tuple[Callable[[socket.socket], Any], str, str]] = {
    "request in plain": (sending(REQUEST), "tls_failures", "it sent an A-ASSOCIATE-RQ in plain"),
    "HTTP": (sending(b"GET / HTTP/1.1\r\n\r\n"), "tls_failures", "it speaks HTTP in plain"),
    "SSH": (sending(b"SSH-2.0-x\r\n"), "tls_failures", "it speaks SSH in plain"),
    "zeros": (sending(bytes(100)), "tls_failures", "no handshake"),
    "half a hello": (sending(HELLO), "tls_failures", "the handshake failed"),
    "one byte": (sending(b"\x16"), "tls_failures", "no TLS"),
    "our certificate unknown": (failing_handshake, "tls_failures", "alert unknown ca"),
    "nothing": (lambda _: None, "no_request", ""),
}


@pytest.mark.parametrize("what", STRANGERS)
@pytest.mark.parametrize("end", [socket.socket.close, close_with_reset], ids=["close", "reset"])
def test_a_failed_handshake_is_logged_and_counted_once(
    what: str, end: Any, caplog: pytest.LogCaptureFixture, serving: Serving
) -> None:
    begin, counter, text = STRANGERS[what]
    caplog.set_level(logging.INFO, "ltdic")
    with serving(server_context()) as server:
        with socket.create_connection(server.address, TIMEOUT) as connection:
            send_at_once(connection)
            begin(connection)
            is_open = connection.fileno() >= 0  # otherwise `ssl` has taken the socket
            where = connection.getsockname() if is_open else None
            if is_open:
                end(connection)
        eventually(lambda: ends_seen(server.counters) == 1)
    assert server.counters == ltdic.Counters(connections=1, **{counter: 1})
    lines = [record for record in caplog.records if record.name == "ltdic"]
    assert len(lines) == (1 if text else 0)
    for line in lines:
        assert line.levelno == logging.INFO
        assert text in line.getMessage()
        assert "\n" not in line.getMessage()
        stranger = line.stranger  # type: ignore[attr-defined]
        assert stranger.fault == "tls"
        assert where is None or stranger.peer == where


AFTER_THE_HANDSHAKE = {
    "nothing": (b"", "no_request", ""),
    "HTTP": (b"GET / HTTP/1.1\r\n\r\n", "faults", "it speaks HTTP, not DICOM"),
    "half a request": (REQUEST[:50], "no_request", "it sent no whole A-ASSOCIATE-RQ"),
    "another PDU": (RELEASE_RQ, "faults", "what it sent is no A-ASSOCIATE-RQ"),
}


@by_version
@pytest.mark.parametrize("what", AFTER_THE_HANDSHAKE)
def test_a_missing_request_over_tls_is_reported_as_without_tls(
    what: str, version: str, caplog: pytest.LogCaptureFixture, serving: Serving
) -> None:
    data, counter, text = AFTER_THE_HANDSHAKE[what]
    caplog.set_level(logging.INFO, "ltdic")
    with serving(server_tls(version)) as server:
        with raw_requestor(server.address, client_tls(version)) as connection:
            connection.sendall(data)
        eventually(lambda: ends_seen(server.counters) == 1)
    assert server.counters == ltdic.Counters(connections=1, **{counter: 1})
    lines = [r.getMessage() for r in caplog.records if r.name == "ltdic"]
    assert len(lines) == (1 if text else 0)
    assert all(text in line for line in lines)


# ---- deadlines -----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("data", "counter", "text"),
    [
        (b"", "no_request", "it sent nothing"),
        (HELLO, "tls_failures", "the handshake failed (the time is up)"),
    ],
    ids=["nothing", "half a hello"],
)
def test_a_handshake_that_stalls_has_a_deadline(
    data: bytes, counter: str, text: str, caplog: pytest.LogCaptureFixture, serving: Serving
) -> None:
    caplog.set_level(logging.INFO, "ltdic")
    with serving(server_context(), timeout=SHORT) as server:
        begun = time.monotonic()
        with socket.create_connection(server.address, TIMEOUT) as connection:
            connection.sendall(data)
            assert connection.recv(1) == b""
        assert SHORT * 0.9 < time.monotonic() - begun < TIMEOUT
        eventually(lambda: ends_seen(server.counters) == 1)
    assert server.counters == ltdic.Counters(connections=1, **{counter: 1})
    assert text in caplog.records[-1].getMessage()


def test_a_handshake_that_drips_has_the_same_deadline(serving: Serving) -> None:
    with serving(server_context(), timeout=SHORT) as server:
        begun = time.monotonic()
        with socket.create_connection(server.address, TIMEOUT) as connection:
            connection.settimeout(SHORT / 10)
            for byte in HELLO + bytes(500):
                with suppress(TimeoutError):
                    connection.sendall(bytes([byte]))
                    assert connection.recv(1) == b""
                    break
            else:
                pytest.fail("it has no deadline")
        assert time.monotonic() - begun > SHORT * 0.9


@pytest.mark.slow
@by_face
def test_a_dripping_handshake_does_not_extend_the_timeout_of_a_requestor(face: str) -> None:
    over = threading.Event()

    def script(connection: socket.socket) -> None:
        with suppress(OSError):
            connection.sendall(b"\x16\x03\x03\x40\x00")
            while not over.wait(SHORT / 10):
                connection.sendall(b"\x02")

    with raw_acceptors(1, None, script) as address:
        begun = time.monotonic()
        error = FACES[face](address, b"", tls=client_context(), timeout=SHORT)
        over.set()
    assert type(error) is ConnectionFailed
    assert "no answer in time" in str(error)
    assert isinstance(error.__cause__, TimeoutError)
    assert SHORT * 0.9 < time.monotonic() - begun < TIMEOUT


def test_two_hundred_stalled_handshakes_do_not_delay_other_connections(serving: Serving) -> None:
    count = 200
    with serving(server_context(), timeout=6 * TIMEOUT) as server:
        stalled = [socket.create_connection(server.address, TIMEOUT) for _ in range(count)]
        for number, connection in enumerate(stalled):
            connection.sendall(HELLO if number % 2 else b"")
        with ltdic.connect(*server.address, **OPTIONS, tls=client_context()) as association:
            assert association.echo() == 0
        expected = ltdic.Counters(connections=count + 1, accepted=1, released=1)
        eventually(lambda: server.counters == expected)
        for connection in stalled:
            connection.close()
        eventually(lambda: ends_seen(server.counters) == count + 1)
    assert server.counters == ltdic.Counters(
        connections=count + 1,
        accepted=1,
        released=1,
        tls_failures=count // 2,
        no_request=count // 2,
    )


def test_an_oversized_handshake_is_ended_at_once(serving: Serving) -> None:
    # The header of a record of 16383 bytes: a ClientHello of 130,000 bytes takes several.
    record = b"\x16\x03\x01\x3f\xff"
    hello = b"\x01" + (130_000).to_bytes(3, "big") + bytes(16_379)
    with (
        serving(server_context(), timeout=6 * TIMEOUT) as server,
        socket.create_connection(server.address, TIMEOUT) as connection,
        suppress(ConnectionError),
    ):
        connection.sendall(record + hello)
        for _ in range(6):
            connection.sendall(record + bytes(16_383))
        while connection.recv(4096):
            pass
    assert server.counters == ltdic.Counters(connections=1, tls_failures=1)


# ---- counting ------------------------------------------------------------------------------------

WISHES = ("accept", "reject", "abort", "raise", "wait")


async def decide(association: aio.AsyncServedAssociation) -> Any:
    """Decide by the calling title."""
    wish = association.calling_ae
    if wish == "raise":
        raise RuntimeError("what the log says")
    if wish == "wait":
        await asyncio.sleep(3600)
    await asyncio.sleep(0)
    return {"reject": AssociateReject(2, 1, 2), "abort": Abort(2, 0)}.get(wish)


async def fail_at_odd(association: aio.AsyncServedAssociation, pdv: PDV) -> None:
    await asyncio.sleep(0)
    if len(pdv.data) % 4:
        raise RuntimeError("what the log says")
    await answer(association, pdv)


def request_by(calling: str, called: str = "CALLED") -> bytes:
    proposed = tuple(
        ProposedContext(i, uid, ("1.2.840.10008.1.2",))
        for i, uid in ((1, "1.2.840.10008.1.1"), (3, "1.2.840.10008.5.1.4.1.1.7"))
    )
    return encode(
        AssociateRequest(called, calling, proposed, user_info=UserInformation(0x4000, "1.2.3"))
    )


class Caller:
    """A raw requestor that runs a random script and ignores connection errors."""

    def __init__(self, seed: int, address: Any, tls: ssl.SSLContext | None) -> None:
        self.random, self.address, self.tls = random.Random(seed), address, tls

    async def call(self) -> None:
        secure = self.tls is not None and self.random.random() < 0.8
        options: dict[str, Any] = {"ssl": self.tls} if secure else {}
        with suppress(OSError, EOFError, asyncio.IncompleteReadError):
            reader, writer = await asyncio.open_connection(*self.address, **options)
            try:
                async with asyncio.timeout(TIMEOUT):
                    await self._talk(reader, writer)
            finally:
                writer.transport.abort() if self.random.random() < 0.5 else writer.close()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        draw = self.random
        first = draw.choice(
            [b"", b"GET / HTTP/1.1\r\n\r\n", HELLO, RELEASE_RQ, REQUEST[:40]]
            + [request_by(wish) for wish in WISHES] * 2
            + [request_by("accept", "OTHER"), request_by("accept")]
        )
        writer.write(first)
        if len(first) < 100 or draw.random() < 0.2:
            await asyncio.sleep(draw.random() * 0.05)
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(SHORT):
                await reader.readexactly(10)
        rest = [p_data(b"command!", True), p_data(b"comman", True), RELEASE_RQ, ABORT, b"\x99" * 9]
        for _ in range(draw.randrange(4)):
            writer.write(draw.choice(rest))
            await asyncio.sleep(draw.random() * 0.02)


async def watch(server: aio.Server, until: Callable[[], bool]) -> None:
    """Assert continuously that the counters agree."""
    async with asyncio.timeout(6 * TIMEOUT):
        while not until():
            counters = server.counters
            assert counters.open == len(server.open) >= 0
            assert ends_seen(counters) <= counters.connections
            await asyncio.sleep(0.001)


@pytest.mark.slow
@pytest.mark.parametrize("version", ["plain", "1.3"])
@pytest.mark.parametrize("end", ["orderly", "cancelled"])
def test_each_connection_over_tls_is_counted_once_for_every_outcome(
    version: str, end: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, "ltdic")
    count = 150
    told_of: list[Any] = []

    async def main() -> aio.Server:
        server = aio.Server(
            (LOCALHOST, 0),
            admission=Admission(contexts=ltdic.ANY, called=["CALLED"], on_request=decide),
            handler=fail_at_odd,
            on_end=lambda association, record: told_of.append(record),
            timeout=1.0,
            tls=server_tls(version),
        )

        async def serve() -> None:
            async with server:
                callers = [
                    asyncio.ensure_future(Caller(n, server.address, client_tls(version)).call())
                    for n in range(count)
                ]
                await watch(server, lambda: sum(c.done() for c in callers) > count * 2 // 3)
                if end == "cancelled":
                    asyncio.current_task().cancel()  # type: ignore[union-attr]
                else:
                    server.close()
            await asyncio.gather(*callers)

        with suppress(asyncio.CancelledError):
            await asyncio.create_task(serve())
        await watch(server, lambda: ends_seen(server.counters) == server.counters.connections)
        return server

    server = asyncio.run(main())
    counters = server.counters
    assert counters.connections > count // 2
    assert ends_seen(counters) == counters.connections
    assert counters.open == 0
    assert counters.accepted > 0 < counters.unaccepted
    assert {r.outcome for r in told_of} <= {"released", "aborted", "timed out", "lost", "rejected"}


# ---- names and certificates ----------------------------------------------------------------------


def certified_for(*names: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    AUTHORITY.issue_cert(*names).configure_cert(context)
    return context


NAMES = [
    ("archive.example", None, "archive.example"),
    ("archive.example.", None, "archive.example"),
    ("ARCHIVE.example", None, "archive.example"),
    ("192.0.2.1", "archive.example", "archive.example"),
    ("192.0.2.1", "archive.example.", "archive.example"),
    ("::1", None, "::1"),
    ("[::1]", None, "::1"),
    ("fe80::1%eth0", None, "fe80::1"),
    ("[fe80::1%2]", None, "fe80::1"),
    ("192.0.2.1", "[::1]", "::1"),
    ("b\xfccher.example", None, "xn--bcher-kva.example"),
]


@by_face
@pytest.mark.parametrize(("host", "server_hostname", "certified"), NAMES)
def test_a_certificate_is_verified_for_the_given_name_alone(
    face: str,
    host: str,
    server_hostname: str | None,
    certified: str,
    monkeypatch: pytest.MonkeyPatch,
    serving: Serving,
) -> None:
    """The resolver finds our server for any host."""
    real = net.Lookup
    with serving(certified_for(certified)) as server:
        monkeypatch.setattr(net, "Lookup", lambda _, local: real(server.address, local))
        tls, where = client_context(), (host, 104)
        assert FACES[face](where, b"", tls=tls, server_hostname=server_hostname) is None
        error = FACES[face](where, b"", tls=tls, server_hostname="other.example")
    assert type(error) is ConnectionFailed
    assert isinstance(error.__cause__, ssl.SSLCertVerificationError)
    assert "other.example" in str(error)


@by_face
def test_the_host_is_verified_when_no_name_is_given(face: str, serving: Serving) -> None:
    with serving(certified_for("archive.example")) as server:
        tls = client_context()
        named = FACES[face](server.address, b"", tls=tls, server_hostname="archive.example")
        error = FACES[face](server.address, b"", tls=tls)
    assert named is None
    assert isinstance(error, ConnectionFailed)
    assert isinstance(error.__cause__, ssl.SSLCertVerificationError)


WRONG = {
    "a server's context": {"tls": server_context()},
    "no name": {"tls": client_context(), "server_hostname": ""},
    "a dot": {"tls": client_context(), "server_hostname": ".example"},
    "a long label": {"tls": client_context(), "server_hostname": "a" * 70},
    "a NUL": {"tls": client_context(), "server_hostname": "a\0b"},
}


@pytest.mark.slow
@pytest.mark.parametrize("what", WRONG)
def test_invalid_tls_options_are_a_value_error_before_any_connection(what: str) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for connect in (ltdic.connect, aio.connect):
        with pytest.raises(ValueError, match="tls"):
            connect(LOCALHOST, 1, **WRONG[what])
    gc.collect()  # a socket that was left is a warning, and so an error
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_server_refuses_a_client_context() -> None:
    for server in (ltdic.Server, aio.Server):
        with pytest.raises(ValueError, match="tls"):
            server((LOCALHOST, 0), tls=client_context())


@by_version
@pytest.mark.parametrize("shows", [False, True])
def test_a_server_sees_the_certificate_of_its_peer(
    version: str, shows: bool, serving: Serving
) -> None:
    seen = []

    def see(association: aio.AsyncServedAssociation) -> None:
        seen.append(association.peer_certificate)

    tls = shown_tls(version, AUTHORITY) if shows else client_tls(version)
    context = asking_tls(version)
    context.verify_mode = ssl.CERT_OPTIONAL
    admission = Admission(contexts=ltdic.ANY, on_request=see)
    with serving(context, admission=admission) as server:
        ltdic.connect(*server.address, **OPTIONS, tls=tls).release()
        eventually(lambda: server.counters.released == 1)
    (certificate,) = seen
    if shows:
        assert certificate["subjectAltName"] == (("email", "ct@example.org"),)
    else:
        assert certificate is None


def test_without_tls_there_is_no_certificate(serving: Serving) -> None:
    seen = []
    on_request = lambda association: seen.append(association.peer_certificate)  # noqa: E731
    with serving(None, admission=Admission(on_request=on_request)) as server:
        ltdic.connect(*server.address, timeout=TIMEOUT).release()
    assert seen == [None]


# ---- orderly ends --------------------------------------------------------------------------------


def is_closed_in_order(connection: Any) -> bool:
    """Tell whether close_notify came; without it, reading raises `ssl.SSLEOFError`."""
    return bool(connection.recv(1) == b"")


@by_version
def test_a_requestor_sends_close_notify(version: str) -> None:
    ends = []

    def script(connection: Any) -> None:
        receive_exactly_one(connection)
        connection.sendall(ACCEPT)
        assert receive_exactly_one(connection) == RELEASE_RQ
        connection.sendall(RELEASE_RP)
        ends.append(is_closed_in_order(connection))

    with raw_acceptors(1, server_tls(version), script) as address:
        assert in_asyncio(address, b"", tls=client_tls(version)) is None
    assert ends == [True]


@pytest.mark.slow
@by_version
@pytest.mark.parametrize("how", ["released", "rejected"])
@pytest.mark.parametrize("waits", [False, True], ids=["peer closes first", "peer waits"])
def test_an_acceptor_sends_close_notify(
    version: str, how: str, waits: bool, serving: Serving
) -> None:
    admission = Admission(called=["OTHER"]) if how == "rejected" else ALL
    timeout = SHORT if waits else TIMEOUT
    with (
        serving(server_tls(version), admission=admission, timeout=timeout) as server,
        raw_requestor(server.address, client_tls(version)) as connection,
    ):
        connection.sendall(REQUEST)
        answered = receive_exactly_one(connection)
        if how == "released":
            connection.sendall(RELEASE_RQ)
            answered = receive_exactly_one(connection)
        assert answered[0] == (6 if how == "released" else 3)
        if waits:
            assert is_closed_in_order(connection)
        else:
            connection.unwrap()  # raises if the other end sends no close_notify


# ---- renegotiation -------------------------------------------------------------------------------


class Turning:
    """Act like a renegotiation of TLS 1.2: at times nothing can be written before a read."""

    turns = 0
    _is_to_read = False
    _writes = 0

    def _refuses(self) -> bool:
        self._writes += 1
        if self._writes % 3 == 0:
            self._is_to_read = True
            type(self).turns += 1
        return self._is_to_read


class TurningObject(Turning, ssl.SSLObject):
    def write(self, data: Any) -> int:
        if self._refuses():
            raise ssl.SSLWantReadError
        return super().write(data)

    def read(self, size: int = 1024, buffer: Any = None) -> Any:
        self._is_to_read = False
        return super().read(size, buffer)


class Nudging:
    """A connection that sends a message when nothing arrives, like one that renegotiates."""

    def __init__(self, connection: ssl.SSLSocket) -> None:
        self._connection = connection

    def recv(self, size: int) -> bytes:
        while not (self._connection.pending() or self._is_readable()):
            self._connection.sendall(p_data(b"", True) + p_data(b""))
        return self._connection.recv(size)

    def _is_readable(self) -> bool:
        return bool(select.select([self._connection], [], [], 0.005)[0])


@by_face
def test_a_send_completes_when_tls_must_read_before_it_writes(face: str) -> None:
    data = random.Random(1).randbytes(3_000_000)
    received = []

    def script(connection: Any) -> None:
        receive_exactly_one(connection)
        connection.sendall(ACCEPT)
        peer: Any = Nudging(connection)
        received.extend((read_message(peer)[1], read_message(peer)[1]))
        assert receive_exactly_one(peer) == RELEASE_RQ
        connection.sendall(RELEASE_RP)

    tls = client_context()
    tls.sslobject_class = TurningObject  # type: ignore[assignment]
    before = TurningObject.turns
    with raw_acceptors(1, server_context(), script) as address:
        assert FACES[face](address, data, tls=tls) is None
    assert TurningObject.turns > before
    assert received == [b"command!", data]


@pytest.mark.slow
def test_a_sender_waits_without_spinning_while_tls_cannot_write() -> None:
    """It uses little processor time and little memory."""
    go_on = threading.Event()

    def script(connection: Any) -> None:
        receive_exactly_one(connection)
        connection.sendall(ACCEPT)
        go_on.wait(TIMEOUT)
        with suppress(OSError):
            receive_exactly_one(connection)

    tls = client_context()
    tls.sslobject_class = TurningObject  # type: ignore[assignment]
    with raw_acceptors(1, server_context(), script) as address:
        with ltdic.connect(*address, **{**OPTIONS, "tls": tls, "timeout": SHORT}) as association:
            before = time.thread_time()
            with pytest.raises(ltdic.AssociationTimeout):
                association.send(MORE_THAN_FITS, context=DATA_CONTEXT, is_command=True)
            assert time.thread_time() - before < 0.5
        go_on.set()


@pytest.mark.slow
def test_an_asynchronous_sender_waits_while_tls_cannot_write() -> None:
    """Little of its data is held meanwhile."""
    over, taken, piece = threading.Event(), 0, bytes(0x40000)

    async def pieces() -> AsyncIterator[bytes]:
        nonlocal taken
        while taken < 64 << 20:
            taken += len(piece)
            yield piece

    def script(connection: Any) -> None:
        receive_exactly_one(connection)
        connection.sendall(ACCEPT)
        over.wait(TIMEOUT)

    tls = client_context()
    tls.sslobject_class = TurningObject  # type: ignore[assignment]
    with raw_acceptors(1, server_context(), script) as address:
        error = in_asyncio(address, pieces(), tls=tls, timeout=SHORT)
        over.set()
    assert isinstance(error, ltdic.AssociationTimeout)
    assert taken < 2 << 20


# ---- bytes of the connection ---------------------------------------------------------------------


async def exchanges(address: Any, data: bytes) -> bytes:
    """Send this data, and return what comes."""
    async with aio.connect(*address, tls=client_context(), **OPTIONS) as association:
        await association.send(data, context=DATA_CONTEXT, is_command=True)
        pdv = await association.receive()
        assert pdv is not None
        await association.abort()
        return bytes(pdv.data)


def exchange(address: Any, data: bytes) -> bytes:
    with ltdic.connect(*address, tls=client_context(), **OPTIONS) as association:
        association.send(data, context=DATA_CONTEXT, is_command=True)
        pdv = association.receive()
        assert pdv is not None
        association.abort()
        return bytes(pdv.data)


by_exchange = pytest.mark.parametrize(
    "exchange", [exchange, lambda *how: asyncio.run(exchanges(*how))], ids=["sync", "aio"]
)


@contextmanager
def accepting(
    version: str, piece: int, answer: Callable[[RawTls], None]
) -> Iterator[tuple[Any, Background[bytes]]]:
    """An acceptor that sends its bytes in pieces, and calls `answer` when it has a message."""

    def accept() -> bytes:
        connection, _ = listener.accept()
        with connection:
            tls = RawTls(connection, server_tls(version), True, piece)
            tls.flush()
            tls.read()
            tls.write(ACCEPT)
            tls.flush()
            got = b""
            while not got.endswith(b"end."):
                got += tls.read()
            answer(tls)
            tls.flush()
            with suppress(OSError):
                tls.read()
            return got

    with socket.create_server((LOCALHOST, 0)) as listener:
        yield listener.getsockname(), Background(accept)


@by_version
@by_exchange
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_tls_bytes_can_arrive_in_any_pieces(exchange: Any, version: str, size: int) -> None:
    data = random.Random(size).randbytes(50_000) + b"end."
    answer = p_data(data[::-1], is_command=True)
    with accepting(version, size, lambda tls: tls.write(answer)) as (address, peer):
        assert exchange(address, data) == data[::-1]
        assert data[-1000:] in peer.join()


@by_version
@by_exchange
def test_plain_bytes_before_a_tls_fault_are_received_before_it(exchange: Any, version: str) -> None:
    def answer(tls: RawTls) -> None:
        tls.write(p_data(b"last words", is_command=True))
        tls.flush()
        tls.send(b"\x17\x03\x03\x00\x20" + bytes(32))

    with accepting(version, 1 << 20, answer) as (address, peer):
        assert exchange(address, b"the end.") == b"last words"
        peer.join()


# ---- what a peer sends last ----------------------------------------------------------------------


def test_a_request_with_a_reset_behind_it_is_no_failed_handshake(serving: Serving) -> None:
    """The server cannot send its session tickets (TLS 1.3) any more."""
    count = 20
    with serving(server_tls("1.3")) as server:
        for _ in range(count):
            with raw_requestor(server.address, client_tls("1.3")) as connection:
                connection.sendall(REQUEST)
                close_with_reset(connection)
        eventually(lambda: ends_seen(server.counters) == count)
    assert server.counters.tls_failures == server.counters.no_request == 0


def test_a_server_whose_answers_to_tls_wait_does_not_spin(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each record of a peer that reads nothing is answered by TLS itself, as where it asks for new
    keys."""
    decrypt, calls = TlsTransport._decrypt, 0

    def answering(tls: TlsTransport, descriptor: int, room: memoryview, size: Any) -> int:
        nonlocal calls
        calls += 1
        before = size[0]
        result = decrypt(tls, descriptor, room, size)
        if size[0] > before and tls._established:
            tls._outgoing.write(bytes(4096))
        return result

    monkeypatch.setattr(TlsTransport, "_decrypt", answering)
    empty = p_data(b"", True, False)
    with (
        serving(server_tls("1.3"), timeout=2) as server,
        raw_requestor(server.address, client_tls("1.3")) as connection,
    ):
        connection.settimeout(SHORT)
        connection.sendall(REQUEST)
        with suppress(TimeoutError, ssl.SSLError):
            while True:
                connection.sendall(empty)
        time.sleep(SHORT)
        before = calls
        time.sleep(SHORT)
        assert calls - before < 10


@pytest.mark.parametrize("kind", SERVERS)
def test_a_server_that_is_dropped_leaves_no_descriptor(kind: str) -> None:
    make: Any = {"blocking": ltdic.Server, "asyncio": aio.Server}[kind]
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        for _ in range(5):
            make((LOCALHOST, 0), tls=server_context())
        gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before


@by_face
def test_an_abort_behind_a_release_request_is_told(face: str) -> None:
    def script(connection: Any) -> None:
        receive_exactly_one(connection)
        connection.sendall(ACCEPT)
        receive_exactly_one(connection)
        connection.sendall(RELEASE_RQ + ABORT)

    async def in_loop(address: Any) -> Any:
        async with aio.connect(*address, **OPTIONS) as association:
            await association.send(b"ab", context=DATA_CONTEXT, is_command=True)
            return await association.receive()

    def receive(address: Any) -> Any:
        if face == "asyncio":
            return asyncio.run(in_loop(address))
        with ltdic.connect(*address, **OPTIONS) as association:
            association.send(b"ab", context=DATA_CONTEXT, is_command=True)
            return association.receive()

    with raw_acceptors(1, None, script) as address, pytest.raises(AssociationAborted):
        receive(address)


# ---- the end in the middle of an answer ----------------------------------------------------------

ASKED = command_set({0x0100: 0x0030, 0x0110: 1, 0x0800: 0x0101})
ANSWERED = command_set({0x0100: 0x8030, 0x0120: 1, 0x0800: 0x0001})
"""A command that announces a data set."""


@by_transport
@pytest.mark.parametrize("server", SERVERS)
def test_a_server_that_closes_in_the_middle_of_an_answer_sends_all_of_it_and_then_releases(
    server: str, version: str
) -> None:
    answer = random.Random(5).randbytes(4_800_000)

    def handler(association: Any, pdv: ltdic.PDV) -> Iterator[Any]:
        yield association.send(ANSWERED, context=CT, is_command=True)
        yield association.send(answer, context=CT)

    options: dict[str, Any] = {"handler": handler, "tls": server_tls(version)}
    how: dict[str, Any] = {"contexts": [CT], "timeout": TIMEOUT, "tls": client_tls(version)}
    with SERVERS[server](**options) as host:
        association = ltdic.connect(*host.server.address, **how)
        association.send(ASKED, context=CT, is_command=True)
        assert association.receive().data == ANSWERED
        received = bytearray()
        while len(received) < 1_000_000:
            received += association.receive(joined=False).data
        host.server.close()
        pdv = association.receive()
        assert (received + pdv.data, pdv.is_last) == (answer, True)
        assert association.receive() is None
        assert host.end()[1].outcome == "released"
