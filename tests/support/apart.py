"""Functions that tests run in another process, since a crash ends it."""

from __future__ import annotations

import gc
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import ltdic
from ltdic import PDV, Abort, LocalError
from ltdic.l_dicom import L_DicomSendData, L_DicomSetExtended, L_DicomSetUserIdentity
from support.associations import associate
from support.hosts import Serve, blocking
from support.paths import TESTS
from support.pdus import p_data
from support.peer import ACCEPTED, MIB, REQUEST, SHORT, Peer, has_come, is_served, slow
from support.sockets import TIMEOUT, close_with_reset
from support.uids import CT
from support.waiting import eventually


def run_apart(call: str, *, logs: bool = False) -> None:
    """Evaluate `call`, which names `apart` and `hosts`, in another process.

    Fail if that process crashes or prints anything; with `logs`, also if it logs a warning.
    """
    program = "import logging, sys; from support import apart, hosts; "
    if logs:
        program += "logging.basicConfig(stream=sys.stdout); "
    command = [sys.executable, "-X", "faulthandler", "-c", program + call]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=TESTS, timeout=3 * TIMEOUT)
    assert (ran.returncode, ran.stdout) == (0, ""), ran.stderr


def abort_at_once(peer: Peer) -> None:
    peer.send(p_data(b"ab", True), Abort(0, 0))


def are_sent_to_and_leave(serve: Serve, leave: Callable[[Peer], None]) -> None:
    def handler(association: Any, pdv: PDV) -> Iterator[Any]:
        for _ in range(20):
            yield association.send(bytes(MIB), context=pdv.context_id, is_command=True)

    with serve(handler=handler, timeout=SHORT) as host:
        for n in range(3):
            with Peer(host, REQUEST) as peer:
                peer.associate()
                leave(peer)
            eventually(lambda n=n: host.counters.accepted == n + 1 and host.counters.open == 0)
            gc.collect()
        assert is_served(host) < TIMEOUT / 2


COMMAND = p_data(b"ab", True)


def are_sent_to_and_collected() -> None:
    """Serve peers that ask for much more than they read, and leave."""

    def handler(association: Any, pdv: PDV) -> Iterator[Any]:
        yield association.send(bytes(20 * MIB), context=pdv.context_id, is_command=True)

    for leave in (Peer.close, lambda peer: close_with_reset(peer.socket)):
        with blocking(handler=handler) as host, ExitStack() as stack:
            for n in range(3):
                peer = slow(stack, host, 4096)
                peer.send(COMMAND)
                assert has_come(peer, TIMEOUT)
                peer.send(COMMAND * 10)
                time.sleep(0.05)  # lets the server handle them
                leave(peer)
                eventually(lambda n=n: host.counters.accepted == n + 1 and host.counters.open == 0)
                gc.collect()


def keep(errors: list[Exception]) -> None:
    """Make a cycle of the errors and the frames of their tracebacks."""
    for error in errors:
        error.errors = errors  # type: ignore[attr-defined]


def are_refused(*calls: Callable[[], Any]) -> None:
    for _ in range(100):
        errors: list[Exception] = []
        for call in calls:
            try:
                call()
            except (TypeError, LocalError) as e:
                errors.append(e)
        assert len(errors) == len(calls)
        keep(errors)
    del errors
    gc.collect()


def errors_of_l_dicom_are_collected() -> None:
    no_pdu = object()
    for data in (b"abcd", bytearray(b"abcd"), memoryview(b"abcd")):
        are_refused(
            lambda data=data: L_DicomSetExtended(no_pdu, CT, data),
            lambda data=data: L_DicomSetUserIdentity(no_pdu, 1, False, data, data),
            lambda data=data: L_DicomSendData(no_pdu, 1, True, True, data),
        )


class InACycle:
    """An object in a cycle, which the collector alone frees."""

    def __init__(self, **what: Any) -> None:
        self.itself, self.what = self, what


def with_lent_bytes(data: Any) -> ltdic.Association:
    """Return an association with queued data."""
    one, _ = associate(REQUEST, ACCEPTED)
    one.send(PDV(3, True, True, data))
    return one


def lent_bytes_are_collected() -> None:
    for _ in range(20):
        for data in (b"abcd", memoryview(b"abcd"), memoryview(bytearray(b"abcd"))):
            InACycle(association=with_lent_bytes(data))
    gc.collect()
