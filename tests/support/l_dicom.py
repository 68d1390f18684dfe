"""Handles of `ltdic.l_dicom` that record their callbacks, and associations between them."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ltdic import ffi
from ltdic.l_dicom import *  # noqa: F403
from support.sockets import receive_pdu

# ruff: noqa: F405


SLOTS = {
    "pfnAccept": "accept",
    "pfnConnect": "connect",
    "pfnClose": "close",
    "pfnReceive": "receive",
    "pfnReceiveAssociateRequest": "request",
    "pfnReceiveAssociateAccept": "accepted",
    "pfnReceiveAssociateReject": "reject",
    "pfnReceiveData": "data",
    "pfnReceiveReleaseRequest": "release",
    "pfnReceiveReleaseResponse": "released",
    "pfnReceiveAbort": "abort",
    "pfnReceiveCEchoRequest": "echo",
    "pfnReceiveCEchoResponse": "echoed",
}


def check(code: int) -> None:
    if code != DICOM_SUCCESS:
        raise RuntimeError(L_DicomErrorText(code))


def new_net(owner: object, timeout: float) -> Any:
    """Return a handle that calls the methods `on_...` of its owner."""
    net = L_DicomCreateNet(None, DICOM_SECURE_NONE)
    found = {s: getattr(owner, f"on_{name}", None) for s, name in SLOTS.items()}
    check(L_DicomSetCallback(net, {slot: f for slot, f in found.items() if f is not None}))
    milliseconds = int(timeout * 1000)
    check(L_DicomSetTimeouts(net, milliseconds, milliseconds, 0))
    return net


class Recorder:
    """Records every callback of a handle, in order."""

    def __init__(self, **more: Any) -> None:
        self.events: list[tuple[Any, ...]] = []
        self.handle = L_DicomCreateNet(None, DICOM_SECURE_NONE)
        self.more = more
        check(L_DicomSetCallback(self.handle, {s: self.slot(s) for s in SLOTS}))

    def slot(self, name: str) -> Any:
        short = SLOTS[name]

        def callback(hNet: Any, *arguments: Any) -> None:
            assert hNet == self.handle
            values = [a if isinstance(a, int) else None for a in arguments[:-1]]
            self.events.append((short, *[v for v in values if v is not None]))
            if short in self.more:
                self.more[short](hNet, *arguments)

        return callback

    def until(self, *kinds: str, seconds: float = 10) -> list[tuple[Any, ...]]:
        """Pump until callbacks of these kinds have come."""
        end = time.monotonic() + seconds
        while not set(kinds) <= {event[0] for event in self.events}:
            assert time.monotonic() < end, f"{kinds} did not come, only {self.events}"
            L_DicomWait(self.handle, 50)
        return self.events

    def free(self) -> None:
        L_DicomFreeNet(self.handle)


class Requestor(Recorder):
    """Our requestor against a raw socket."""

    def __init__(self, server: socket.socket, pdu: Any, **more: Any) -> None:
        super().__init__(**more)
        check(L_DicomConnect(self.handle, None, 0, *server.getsockname()))
        self.until("connect")
        check(L_DicomSendAssociateRequest(self.handle, pdu))
        self.peer, _ = server.accept()
        self.peer.settimeout(10)
        self.request = receive_pdu(self.peer)
        self.events.clear()


class Acceptor(Recorder):
    """Our listener; each accepted handle is a Recorder in `children`."""

    def __init__(self, **child: Any) -> None:
        super().__init__(accept=self.on_accept)
        self.child = child
        self.children: list[Recorder] = []
        check(L_DicomListen(self.handle, "127.0.0.1", 0, 5))
        self.address = L_DicomGetHostInfo(self.handle)

    def on_accept(self, hNet: Any, nError: int, _: Any) -> None:
        self.children.append(Recorder(**self.child))
        check(L_DicomAccept(hNet, self.children[-1].handle))

    def free(self) -> None:
        for child in self.children:
            child.free()
        super().free()


def associate(on_request: Any, pdu: Any) -> tuple[Acceptor, Recorder]:
    acceptor = Acceptor(request=on_request)
    requestor = Recorder(connect=lambda h, e, _: check(L_DicomSendAssociateRequest(h, pdu)))
    check(L_DicomConnect(requestor.handle, None, 0, *acceptor.address))
    return acceptor, requestor


def accept_all(hNet: Any, hPDU: Any, _: Any) -> None:
    answer = L_DicomCreateAssociate(False)
    check(L_DicomDefaultAssociate(answer))
    for index in range(L_DicomGetPresentationCount(hPDU)):
        ident = L_DicomGetPresentation(hPDU, index)
        check(L_DicomAddPresentation(answer, ident, PDU_ACCEPT_RESULT_SUCCESS, None))
        check(L_DicomAddTransfer(answer, ident, L_DicomGetTransfer(hPDU, ident, 0)))
    check(L_DicomSendAssociateAccept(hNet, answer))
    L_DicomFreeAssociate(answer)


@contextmanager
def established(pdu: Any, on_request: Any = accept_all, **child: Any) -> Iterator[tuple[Any, Any]]:
    """Yield the requestor and the acceptor of an established association."""
    acceptor, requestor = associate(on_request, pdu)
    acceptor.child.update(child)
    requestor.until("accepted")
    yield requestor, acceptor.children[0]
    requestor.free()
    acceptor.free()


def answer_echo(hNet: Any, ident: int, message: int, name: Any, _: Any) -> None:
    check(L_DicomSendCEchoResponse(hNet, ident, message, ffi.string(name).decode(), 0x0122))
