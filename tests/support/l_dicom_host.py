"""An acceptor of `ltdic.l_dicom` with the part of `Host` that a raw requestor needs."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ltdic.l_dicom import *  # noqa: F403
from support.l_dicom import accept_all, check, new_net
from support.sockets import LOCALHOST, TIMEOUT
from support.threads import Background

# ruff: noqa: F405


class LDicom:
    """An acceptor of l_dicom, with the part of `Host` that a raw requestor needs."""

    def __init__(self, associations: int, idle: float) -> None:
        self.server = self
        self.address = LOCALHOST, 0
        self.listening = threading.Event()
        self.is_to_end = False
        self._associations, self._idle = associations, int(1000 * idle)
        self.accepted = 0
        self._nets: set[Any] = set()
        self.closed: Counter[int] = Counter()

    def pump(self) -> None:
        listener = new_net(self, TIMEOUT)
        if self._associations:
            check(L_DicomSetLimits(listener, self._associations, 0))
        check(L_DicomListen(listener, LOCALHOST, 0, 5))
        self.address = L_DicomGetHostInfo(listener)
        self.listening.set()
        while not self.is_to_end:
            L_DicomWait(listener, 10)
        for net in [*self._nets, listener]:
            L_DicomFreeNet(net)

    def on_accept(self, net: Any, error: int, _: object) -> None:
        accepted = new_net(self, TIMEOUT)
        check(L_DicomSetTimeouts(accepted, 1000 * TIMEOUT, 0, self._idle))
        check(L_DicomAccept(net, accepted))
        self.accepted += 1
        self._nets.add(accepted)

    def on_request(self, net: Any, pdu: Any, _: object) -> None:
        accept_all(net, pdu, None)

    def on_echo(self, net: Any, context: int, message: int, uid: Any, _: object) -> None:
        if L_DicomSendCEchoResponse(net, context, message, uid, 0) != DICOM_SUCCESS:
            L_DicomSendAbort(net, 0, 0)

    def on_release(self, net: Any, _: object) -> None:
        check(L_DicomSendReleaseResponse(net))

    def on_close(self, net: Any, error: int, _: object) -> None:
        self.closed[error] += 1
        self._nets.discard(net)
        L_DicomFreeNet(net)


@contextmanager
def in_l_dicom(associations: int = 0, idle: float = 0) -> Iterator[Any]:
    face = LDicom(associations, idle)
    thread = Background(face.pump)
    assert face.listening.wait(TIMEOUT)
    try:
        yield face
    finally:
        face.is_to_end = True
        thread.join()
