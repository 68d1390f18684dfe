"""Servers, handles and connections in a process that forks."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

import ltdic
from ltdic import AssociationRejected, ConnectionClosed, Retry
from support.paths import TESTS
from support.raw import REQUEST
from support.servers import ALL, answer, serving, serving_in_asyncio
from support.sockets import LOCALHOST, TIMEOUT
from support.tls import AUTHORITY, CERTIFICATE, client_context, server_context
from support.toolchain import Toolchain, linux_toolchain_or_skip, run
from support.uids import SECONDARY_CAPTURE

pytestmark = pytest.mark.slow

C = TESTS / "c"
LONG = 12 * TIMEOUT

# ---- in C --------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["gcc", "gcc -DLTDIC_POLL"])
def sockets_toolchain(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Any:
    """The library over epoll and over poll(2)."""
    why = "a full backlog leaves a connection without an answer"
    return linux_toolchain_or_skip(request.param, tmp_path_factory.mktemp("forking"), why)


def test_actions_of_a_child_do_not_change_its_parent(sockets_toolchain: Toolchain) -> None:
    program = sockets_toolchain.program(C / "forking.c", "c11")
    printed = run(program, REQUEST.hex(), timeout=LONG)
    assert len(printed.splitlines()) == 22


# ---- programs ----------------------------------------------------------------------------------

BEGINNING = """\
import asyncio, gc, json, os, signal, ssl, sys, threading, time
import ltdic
from ltdic import aio
from ltdic.l_dicom import *

def say(*what):
    "Write a line in one call, since other processes write too."
    os.write(1, (" ".join(map(str, what)) + "\\n").encode())

def heard():
    return sys.stdin.readline().strip()

def ended(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

def forked(function):
    "Fork a child that calls the function and then exits."
    pid = os.fork()
    if pid == 0:
        try:
            function()
        except BaseException as e:
            say("failed:", repr(e))
            os._exit(1)
        sys.stdout.flush()
        os._exit(0)
    return pid

def counted(server):
    c = server.counters
    return json.dumps({"pid": os.getpid(), "accepted": c.accepted, "released": c.released,
                       "aborted": c.aborted, "lost": c.lost, "connections": c.connections,
                       "rejected": c.rejected.total(), "no_request": c.no_request})
"""


class Program:
    """A program in a process of its own, with commands and answers line by line."""

    def __init__(self, text: str, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-W", "ignore", "-c", BEGINNING + text, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def hear(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline().strip()
        assert not line.startswith("failed"), line
        return line

    def say(self, what: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(what + "\n")
        self.process.stdin.flush()

    def end(self) -> str:
        out, _ = self.process.communicate(timeout=LONG)
        assert self.process.returncode == 0, out
        return out


@contextmanager
def running(text: str, *arguments: str) -> Iterator[Program]:
    """Run the program; kill it with all its children at the end."""
    program = Program(text, *arguments)
    try:
        yield program
    finally:
        with suppress(ProcessLookupError):
            os.killpg(program.process.pid, signal.SIGKILL)
        program.process.communicate()


def echo(port: int, **options: Any) -> None:
    with ltdic.connect(LOCALHOST, port, timeout=LONG, **options) as association:
        assert association.echo() == 0


# ---- a server of many processes ----------------------------------------------------------------

PREFORK = """\
server = ltdic.Server(("127.0.0.1", 0), timeout=10)

def child():
    signal.signal(signal.SIGTERM, lambda *_: server.close())
    say("ready")
    with server:
        server.serve()
    say(counted(server))

children = [forked(child) for _ in range(4)]
say(*children)
say(server.address[1])
heard()
for pid in children:
    try:
        os.kill(pid, signal.SIGTERM)
    except ProcessLookupError:
        pass
say(*[ended(pid) for pid in children])
say(counted(server))
"""
ASSOCIATIONS = 2000
CLIENTS = 4


def heard_in_any_order(program: Program, count: int) -> tuple[list[int], int]:
    """Wait until all children are ready; return their process IDs and the port."""
    lines = [program.hear() for _ in range(count + 2)]
    assert lines.count("ready") == count
    pids, port = [line for line in lines if line != "ready"]
    return [int(pid) for pid in pids.split()], int(port)


def reports(text: str) -> list[dict[str, int]]:
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


def total(found: list[dict[str, int]], name: str) -> int:
    return sum(one[name] for one in found)


def test_four_children_serve_two_thousand_associations() -> None:
    with running(PREFORK) as program:
        children, port = heard_in_any_order(program, 4)

        def ask(_: int) -> None:
            for _ in range(ASSOCIATIONS // CLIENTS):
                echo(port)

        with ThreadPoolExecutor(CLIENTS) as pool:
            list(pool.map(ask, range(CLIENTS)))
        program.say("end")
        out = program.end()
    found = reports(out)
    assert sorted(one["pid"] for one in found if one["pid"] in children) == sorted(children)
    for name in ("accepted", "released", "connections"):
        assert total(found, name) == ASSOCIATIONS, (name, found)
    assert "0 0 0 0" in out.splitlines()


def test_children_that_are_stopped_one_by_one_lose_nothing() -> None:
    """A child that ends rejects requests as busy and releases associations; the requestors then try
    again."""
    with running(PREFORK) as program:
        children, port = heard_in_any_order(program, 4)
        left = iter(children[:3])
        done = [0] * CLIENTS

        def ask_again() -> None:
            with suppress(ConnectionClosed):
                echo(port, retry=Retry(attempts=100, first=0.01, ceiling=0.1))
                return
            ask_again()

        def ask(n: int) -> None:
            for count in range(100):
                ask_again()
                done[n] += 1
                if n == 0 and count in (20, 40, 60):
                    os.kill(next(left), signal.SIGTERM)

        with ThreadPoolExecutor(CLIENTS) as pool:
            list(pool.map(ask, range(CLIENTS)))
        program.say("end")
        out = program.end()
    assert done == [100] * CLIENTS
    found = reports(out)
    assert total(found, "accepted") == total(found, "released") >= 100 * CLIENTS
    assert total(found, "lost") == total(found, "aborted") == 0


def test_a_child_that_is_stopped_before_it_serves_ends() -> None:
    """The signal arrives before the first use of the loop, and wakes it."""
    program = """\
server = ltdic.Server(("127.0.0.1", 0), timeout=10)

def child():
    signal.signal(signal.SIGTERM, lambda *_: server.close())
    signal.raise_signal(signal.SIGTERM)
    server.serve()
    say("ended")

pid = forked(child)
say(ended(pid))
server.serve(until=0.01)
say(server.address[1])
server.serve(until=lambda: server.counters.released == 1)
"""
    with running(program) as parent:
        assert [parent.hear(), parent.hear()] == ["ended", "0"]
        echo(int(parent.hear()))
        parent.end()


# ---- one process ends its copy -----------------------------------------------------------------

ENDS = {
    "exits": "os._exit(0)",
    "ends": "os.close(0); raise SystemExit",
    "collects": "del server, handlers; gc.collect()",
    "closes": "server.__exit__(None, None, None)",
    "serves": "server.serve(until=0.2)",
    "closes after serving": "server.serve(until=0.1); server.__exit__(None, None, None)",
}
OPEN = """\
handlers = []
how = sys.argv[1]
admission = ltdic.Admission(contexts=ltdic.ANY)

def handler(association, pdv):
    handlers.append(association)
    association.send(b"done", context=pdv.context_id, is_command=pdv.is_command)

server = ltdic.Server(("127.0.0.1", 0), admission=admission, handler=handler, timeout=5)
say(server.address[1])
server.serve(until=lambda: len(handlers) == 1)
say("forks")
pid = os.fork()
if pid == 0:
    exec(how)
    os._exit(0)
say(ended(pid))
server.serve(until=lambda: server.counters.released == 2)
say(counted(server))
"""


@pytest.mark.parametrize("how", ENDS)
def test_a_child_does_not_end_the_served_associations_of_its_parent(how: str) -> None:
    with running(OPEN, ENDS[how]) as parent:
        port = int(parent.hear())
        association = ltdic.connect(LOCALHOST, port, contexts=[SECONDARY_CAPTURE], timeout=LONG)
        association.send(b"first!", context=SECONDARY_CAPTURE, is_command=True)
        assert association.receive() == ltdic.PDV(1, True, True, b"done")
        assert [parent.hear(), parent.hear()] == ["forks", "0"]
        association.send(b"second", context=SECONDARY_CAPTURE)
        assert association.receive() == ltdic.PDV(1, False, True, b"done")
        association.release()
        echo(port)
        [found] = reports(parent.end())
    assert (found["accepted"], found["released"], found["lost"]) == (2, 2, 0)


@pytest.mark.parametrize("how", ["collects", "closes", "closes after serving"])
def test_a_child_serves_when_its_parent_has_ended(how: str) -> None:
    program = """\
handlers = []
server = ltdic.Server(("127.0.0.1", 0), timeout=5)
say(server.address[1])
there, here = os.pipe()

def child():
    os.close(here)
    os.read(there, 1)
    say("serves")
    server.serve(until=lambda: server.counters.released == 1)
    say(counted(server))

pid = forked(child)
exec(sys.argv[1])
os.write(here, b" ")
say(ended(pid))
"""
    with running(program, ENDS[how]) as parent:
        port = int(parent.hear())
        assert parent.hear() == "serves"
        echo(port)
        [found] = reports(parent.end())
    assert (found["accepted"], found["released"]) == (1, 1)


def test_a_child_forked_in_a_handler_does_not_use_its_association() -> None:
    program = """\
told = []

def handler(association, pdv):
    pid = os.fork()
    if pid == 0:
        for what in (lambda: association.send(b"no", context=1, is_command=True),
                     association.release, association.abort):
            try:
                what()
            except ltdic.LocalError:
                pass
        return
    told.append(ended(pid))
    association.send(b"done", context=1, is_command=True)

admission = ltdic.Admission(contexts=ltdic.ANY)
parent = os.getpid()
with ltdic.Server(("127.0.0.1", 0), admission=admission, handler=handler, timeout=5) as server:
    say(server.address[1])
    server.serve(until=lambda: server.counters.open == 0 and server.counters.accepted == 1)
if os.getpid() == parent:
    say(told, counted(server))
"""
    with running(program) as parent:
        port = int(parent.hear())
        with ltdic.connect(
            LOCALHOST, port, contexts=[SECONDARY_CAPTURE], timeout=LONG
        ) as association:
            association.send(b"first!", context=SECONDARY_CAPTURE, is_command=True)
            assert association.receive() == ltdic.PDV(1, True, True, b"done")
        out = parent.end()
    assert out.startswith("[0] ")
    [found] = reports(out.removeprefix("[0] "))
    assert (found["accepted"], found["released"]) == (1, 1)


# ---- threads that a child lacks ----------------------------------------------------------------


def test_a_child_is_not_blocked_by_a_counting_thread_of_its_parent() -> None:
    program = """\
def count():
    while True:
        server.counters

server = ltdic.Server(("127.0.0.1", 0), timeout=5)
for _ in range(2):
    threading.Thread(target=count, daemon=True).start()

def child():
    signal.alarm(60)
    server.counters
    server.close()
    server.serve()

say(*[ended(forked(child)) for _ in range(30)])
os._exit(0)
"""
    with running(program) as parent:
        assert parent.end().split() == ["0"] * 30


@pytest.mark.parametrize(
    "how",
    ["sys.exit()", "return", "os._exit(0)", "server.__exit__(None, None, None); gc.collect()"],
)
def test_a_child_ends_although_a_thread_of_its_parent_serves(how: str) -> None:
    program = """\
def main():
    with ltdic.Server(("127.0.0.1", 0), timeout=30) as server:
        thread = threading.Thread(target=server.serve)
        thread.start()
        say(server.address[1])
        heard()
        codes = []
        for _ in range(20):
            pid = os.fork()
            if pid == 0:
                signal.alarm(60)
                try:
                    server.serve(until=0.1)
                    os._exit(1)
                except ltdic.LocalError as e:
                    if "parent" not in str(e):
                        os._exit(2)
                server.counters
                %s
                os._exit(0)
            codes.append(ended(pid))
        say(*codes)
        heard()
    thread.join()
    say(counted(server))

main()
"""
    with running(program % how) as parent:
        port = int(parent.hear())
        over = threading.Event()

        def ask() -> int:
            count = 1
            association = ltdic.connect(LOCALHOST, port, timeout=LONG)
            while not over.is_set():
                assert association.echo() == 0
                echo(port)
                count += 1
            association.release()
            return count

        with ThreadPoolExecutor(2) as pool:
            asking = [pool.submit(ask) for _ in range(2)]
            parent.say("fork")
            codes = parent.hear()
            over.set()
            count = sum(one.result() for one in asking)
        parent.say("end")
        [found] = reports(parent.end())
    assert codes.split() == ["0"] * 20
    assert (found["accepted"], found["released"]) == (count, count)


# ---- decisions ---------------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [0, 0.05], ids=["at once", "slowly"])
def test_a_child_decides_with_threads_of_its_own(seconds: float) -> None:
    program = """\
def decide(association):
    time.sleep(float(sys.argv[1]))
    return ltdic.AssociateReject(1, 1, 7 if os.getpid() == parent else 3)

parent = os.getpid()
server = ltdic.Server(("127.0.0.1", 0), admission=ltdic.Admission(on_request=decide), timeout=5)

def serve(count):
    server.serve(until=lambda: server.counters.rejected.total() >= count)

say(server.address[1])
serve(3)
for generation in range(2):
    say("forks")
    if (pid := os.fork()) == 0:
        serve(6)
        server.__exit__(None, None, None)
        os._exit(0)
    say(ended(pid))
serve(6)
say(counted(server))
"""
    with running(program, str(seconds)) as parent:
        port = int(parent.hear())

        def ask(reason: int) -> None:
            def once(_: int) -> None:
                with pytest.raises(AssociationRejected) as e:
                    ltdic.connect(LOCALHOST, port, timeout=LONG)
                assert e.value.codes == (1, 1, reason)

            with ThreadPoolExecutor(3) as pool:
                list(pool.map(once, range(3)))

        ask(7)
        assert parent.hear() == "forks"
        ask(3)
        assert [parent.hear(), parent.hear()] == ["0", "forks"]
        ask(3)
        assert parent.hear() == "0"
        ask(7)
        out = parent.end()
    [found] = reports(out)
    assert found["rejected"] == 6


# ---- l_dicom -----------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["L_DicomFreeNet(listener)", "L_DicomShutDown()", "os._exit(0)"])
def test_a_listening_handle_works_in_both_processes(how: str) -> None:
    program = """\
parent = os.getpid()
rejected = []

def on_accept(listener, *_):
    net = L_DicomCreateNet(None, DICOM_SECURE_NONE)
    L_DicomSetCallback(net, {"pfnReceiveAssociateRequest": on_request, "pfnClose": on_close})
    if L_DicomAccept(listener, net) != DICOM_SUCCESS:  # the other process was faster
        L_DicomFreeNet(net)

def on_request(net, *_):
    L_DicomSendAssociateReject(net, 1, 1, 7 if os.getpid() == parent else 3)

def on_close(net, *_):
    rejected.append(net)
    L_DicomFreeNet(net)

def serve(count):
    while len(rejected) < count:
        L_DicomWait(listener, 100)

L_DicomStartUp()
listener = L_DicomCreateNet(None, DICOM_SECURE_NONE)
L_DicomSetCallback(listener, {"pfnAccept": on_accept})
if L_DicomListen(listener, "127.0.0.1", 0, 5) != DICOM_SUCCESS:
    raise SystemExit("it does not listen")
say(L_DicomGetHostInfo(listener)[1])
serve(1)
say("forks")

def child():
    serve(3)
    exec(sys.argv[1])

pid = forked(child)
say(ended(pid))
serve(2)
L_DicomFreeNet(listener)
L_DicomShutDown()
"""

    def ask(reason: int) -> None:
        with pytest.raises(AssociationRejected) as e:
            ltdic.connect(LOCALHOST, port, timeout=LONG)
        assert e.value.codes == (1, 1, reason)

    with running(program, how) as parent:
        port = int(parent.hear())
        ask(7)
        assert parent.hear() == "forks"
        ask(3)
        ask(3)
        assert parent.hear() == "0"
        ask(7)
        parent.end()


# ---- requestors --------------------------------------------------------------------------------


def test_a_child_connects_with_threads_of_its_own() -> None:
    program = """\
async def ask():
    async with aio.connect("localhost", server.address[1], timeout=60) as association:
        if await association.echo() != 0:
            raise SystemExit("no echo")

def serve(count):
    server.serve(until=lambda: server.counters.released == count)

server = ltdic.Server(("", 0), timeout=5)
thread = threading.Thread(target=serve, args=(1,))
thread.start()
asyncio.run(ask())
thread.join()
pid = forked(lambda: asyncio.run(ask()))
serve(2)
say(ended(pid))
pid = forked(lambda: ltdic.connect("localhost", server.address[1], timeout=60).release())
serve(3)
say(ended(pid))
"""
    with running(program) as parent:
        begun = time.monotonic()
        assert parent.end().split() == ["0", "0"]
        assert time.monotonic() - begun < LONG


# ---- open associations of the other faces ------------------------------------------------------

REQUESTOR_ENDS = {
    "exits": "os._exit(0)",
    "ends": "raise SystemExit",
    "leaves the block by an exception": "raise Leave",
    "drops": "del globals()['association']; gc.collect()",
    "leaves the block": "association.__exit__(None, None, None)",
    "sends": "association.send(b'no data!', context=SECONDARY_CAPTURE, is_command=True)",
    "receives": "association.receive()",
    "releases": "association.release()",
    "aborts": "association.abort()",
}
REQUESTOR = """\
how, moment, port, authority = sys.argv[1:]
tls = ssl.create_default_context(cadata=authority) if authority else None
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"

class Leave(Exception):
    pass

def fork_at(now):
    if now != moment:
        return
    pid = os.fork()
    if pid == 0:
        signal.alarm(60)
        try:
            exec(how)
        except ltdic.Error:
            pass
        os._exit(0)
    say(ended(pid))

def pieces():
    yield b"first!" * 100000
    fork_at("in a data set")
    yield b"second" * 100000

def connect(**options):
    return ltdic.connect("127.0.0.1", int(port), tls=tls, timeout=60, **options)

try:
    with connect(contexts=[SECONDARY_CAPTURE]) as association:
        association.send(b"command!", context=SECONDARY_CAPTURE, is_command=True)
        fork_at("before a data set")
        association.send(pieces(), context=SECONDARY_CAPTURE)
        if bytes(association.receive().data) != b"command!":
            raise SystemExit("another command")
        fork_at("between messages")
        if bytes(association.receive().data) != b"first!" * 100000 + b"second" * 100000:
            raise SystemExit("another data set")
        association.release()
except Leave:
    os._exit(0)
with connect() as association:
    say(association.echo())
"""
MOMENTS = ["before a data set", "in a data set", "between messages"]
TLS = pytest.mark.parametrize("tls", [False, True], ids=["TCP", "TLS"])


@contextmanager
def answering(tls: bool) -> Iterator[tuple[int, str]]:
    """Run a server that sends all data back; yield its port and the file of its authority."""
    context = server_context() if tls else None
    authority = AUTHORITY.cert_pem.bytes().decode() if tls else ""
    with serving_in_asyncio(admission=ALL, handler=answer, timeout=LONG, tls=context) as server:
        yield server.address[1], authority


def test_a_child_without_descriptors_leaves_what_its_parent_has_opened() -> None:
    program = """\
import resource
first, second = [ltdic.connect("127.0.0.1", int(sys.argv[1]), timeout=60) for _ in range(2)]
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
try:
    while True:
        os.open(os.devnull, os.O_RDONLY)
except OSError:
    pass

def child():
    for association in (first, second):
        try:
            association.release()
        except ltdic.LocalError:
            say("over")

say(ended(forked(child)))
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
say(first.echo(), second.echo())
"""
    with serving() as server, running(program, str(server.address[1])) as parent:
        assert parent.end().split() == ["over", "over", "0", "0", "0"]


@TLS
@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("how", REQUESTOR_ENDS)
def test_a_child_does_not_end_the_associations_of_its_parent(
    how: str, moment: str, tls: bool
) -> None:
    with answering(tls) as (port, authority):
        arguments = REQUESTOR_ENDS[how], moment, str(port), authority
        with running(REQUESTOR, *arguments) as parent:
            assert parent.end().split() == ["0", "0"]


# The code of the child is the body of a coroutine function. Any end of it is accepted: in a child
# asyncio has no running loop (RuntimeError).
FORKS_IN_ASYNCIO = """\
class Leave(Exception):
    pass

async def fork(how, **names):
    pid = os.fork()
    if pid == 0:
        signal.alarm(60)
        exec("async def act():\\n    " + how, globals() | names, names)
        try:
            await names["act"]()
        except (ltdic.Error, RuntimeError):
            pass
        os._exit(0)
    while os.waitpid(pid, os.WNOHANG)[0] == 0:
        await asyncio.sleep(0.01)
    say("over")

def run(coroutine):
    try:
        asyncio.run(coroutine)
    except Leave:
        os._exit(0)
"""
REQUESTOR_IN_ASYNCIO = """\
how, moment, port, authority = sys.argv[1:]
tls = ssl.create_default_context(cadata=authority) if authority else None
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"

async def fork_at(now, association):
    if now == moment:
        await fork(how, association=association, SECONDARY_CAPTURE=SECONDARY_CAPTURE)

async def pieces(association):
    yield b"first!" * 100000
    await fork_at("in a data set", association)
    yield b"second" * 100000

def connect(**options):
    return aio.connect("127.0.0.1", int(port), tls=tls, timeout=60, **options)

async def main():
    async with connect(contexts=[SECONDARY_CAPTURE]) as association:
        await association.send(b"command!", context=SECONDARY_CAPTURE, is_command=True)
        await fork_at("before a data set", association)
        await association.send(pieces(association), context=SECONDARY_CAPTURE)
        if bytes((await association.receive()).data) != b"command!":
            raise SystemExit("another command")
        await fork_at("between messages", association)
        if bytes((await association.receive()).data) != b"first!" * 100000 + b"second" * 100000:
            raise SystemExit("another data set")
        await association.release()
    async with connect() as association:
        say(await association.echo())

run(main())
"""
ENDS_IN_ASYNCIO = {
    "exits": "os._exit(0)",
    "ends": "raise SystemExit",
    "leaves the block by an exception": "raise Leave",
}
REQUESTOR_ENDS_IN_ASYNCIO = {
    **ENDS_IN_ASYNCIO,
    "drops": "global association; del association; gc.collect()",
    "leaves the block": "await association.__aexit__(None, None, None)",
    "sends": "await association.send(b'no data!', context=SECONDARY_CAPTURE, is_command=True)",
    "receives": "await association.receive()",
    "releases": "await association.release()",
    "aborts": "await association.abort()",
}


@TLS
@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("how", REQUESTOR_ENDS_IN_ASYNCIO)
def test_a_child_does_not_end_the_asyncio_associations_of_its_parent(
    how: str, moment: str, tls: bool
) -> None:
    with answering(tls) as (port, authority):
        arguments = REQUESTOR_ENDS_IN_ASYNCIO[how], moment, str(port), authority
        with running(FORKS_IN_ASYNCIO + REQUESTOR_IN_ASYNCIO, *arguments) as parent:
            assert parent.end().split() == ["over", "0"]


SERVER_IN_ASYNCIO = """\
how, certificate = sys.argv[1:]
tls = None
if certificate:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)
told = []

async def handler(association, pdv):
    told.append(association)
    await association.send(b"done", context=pdv.context_id, is_command=pdv.is_command)

async def main():
    options = {"admission": ltdic.Admission(contexts=ltdic.ANY), "handler": handler, "tls": tls}
    async with aio.Server(("127.0.0.1", 0), timeout=5, **options) as server:
        say(server.address[1])
        while not told:
            await asyncio.sleep(0.01)
        await fork(how, server=server, told=told)
        await server.serve(until=lambda: server.counters.released == 2)
    say(counted(server))
    os._exit(0)  # a child that closes the loop has changed its poller: asyncio.run may not return

run(main())
"""
SERVER_ENDS_IN_ASYNCIO = {
    **ENDS_IN_ASYNCIO,
    "drops": "told.clear(); del globals()['server']; gc.collect()",
    "closes": "server.close(); await server.serve()",
    "leaves the block": "await server.__aexit__(None, None, None)",
    "serves": "await server.serve(until=0.2)",
    "aborts": "told[0].abort(); await asyncio.sleep(0.1)",
    "sends": "await told[0].send(b'no', context=1, is_command=True); await asyncio.sleep(0.1)",
    "releases": "await asyncio.wait_for(told[0].release(), 0.1)",
}


@TLS
@pytest.mark.parametrize("how", SERVER_ENDS_IN_ASYNCIO)
def test_a_child_does_not_end_the_served_asyncio_associations_of_its_parent(
    how: str, tls: bool, tmp_path: Path
) -> None:
    certificate = tmp_path / "certificate.pem"
    CERTIFICATE.private_key_and_cert_chain_pem.write_to_path(str(certificate))
    arguments = SERVER_ENDS_IN_ASYNCIO[how], str(certificate) if tls else ""
    options = {"tls": client_context() if tls else None}
    with running(FORKS_IN_ASYNCIO + SERVER_IN_ASYNCIO, *arguments) as parent:
        port = int(parent.hear())
        association = ltdic.connect(
            LOCALHOST, port, contexts=[SECONDARY_CAPTURE], timeout=LONG, **options
        )
        association.send(b"first!", context=SECONDARY_CAPTURE, is_command=True)
        assert association.receive() == ltdic.PDV(1, True, True, b"done")
        assert parent.hear() == "over"
        association.send(b"second", context=SECONDARY_CAPTURE)
        assert association.receive() == ltdic.PDV(1, False, True, b"done")
        association.release()
        echo(port, **options)
        [found] = reports(parent.end())
    assert (found["accepted"], found["released"], found["lost"]) == (2, 2, 0)


HANDLE_ENDS = {
    "exits": "os._exit(0)",
    "ends": "raise SystemExit",
    "frees": "L_DicomFreeNet(net)",
    "shuts down": "L_DicomShutDown()",
    "closes": "L_DicomClose(net)",
    "aborts": "L_DicomSendAbort(net, 0, 0); L_DicomBreathe()",
    "releases": "L_DicomSendReleaseRequest(net); L_DicomBreathe()",
    "sends": "L_DicomSendCEchoRequest(net, 1, 7, None); L_DicomBreathe()",
    "waits": "L_DicomWait(net, 100)",
}
HANDLE = """\
how, port = sys.argv[1:]
told = []

def pump(kind):
    while told[-1:] != [kind]:
        L_DicomWait(net, 100)

L_DicomStartUp()
net = L_DicomCreateNet(None, DICOM_SECURE_NONE)
L_DicomSetCallback(net, {
    "pfnReceiveAssociateAccept": lambda *_: told.append("accepted"),
    "pfnReceiveCEchoResponse": lambda *_: told.append("echoed"),
    "pfnReceiveReleaseResponse": lambda *_: told.append("released"),
})
pdu = L_DicomCreateAssociate(True)
L_DicomAddPresentation(pdu, 1, 0, "1.2.840.10008.1.1")
L_DicomAddTransfer(pdu, 1, "1.2.840.10008.1.2")
L_DicomDefaultAssociate(pdu)
L_DicomConnect(net, None, 0, "127.0.0.1", int(port))
L_DicomSendAssociateRequest(net, pdu)
pump("accepted")

def child():
    signal.alarm(60)
    exec(how)

L_DicomSendCEchoRequest(net, 1, 1, None)
if (pid := os.fork()) == 0:
    child()
    os._exit(0)
say(ended(pid))
pump("echoed")
L_DicomSendCEchoRequest(net, 1, 2, None)
told.clear()
pump("echoed")
L_DicomSendReleaseRequest(net)
pump("released")
L_DicomFreeNet(net)
L_DicomShutDown()
"""


@pytest.mark.parametrize("how", HANDLE_ENDS)
def test_a_child_does_not_end_the_associated_handles_of_its_parent(how: str) -> None:
    with serving(timeout=LONG) as server:
        with running(HANDLE, HANDLE_ENDS[how], str(server.address[1])) as parent:
            assert parent.end().split() == ["0"]
        server.close()
    assert (server.counters.accepted, server.counters.released) == (1, 1)
