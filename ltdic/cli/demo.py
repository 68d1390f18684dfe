"""`ltdic demo`: sends every defined rejection from an acceptor to a requestor's C callback."""

from __future__ import annotations

from .._native import codec
from ..l_dicom import (
    DICOM_SECURE_NONE,
    DICOM_SUCCESS,
    L_DicomAccept,
    L_DicomConnect,
    L_DicomCreateAssociate,
    L_DicomCreateNet,
    L_DicomDefaultAssociate,
    L_DicomErrorText,
    L_DicomFreeAssociate,
    L_DicomFreeNet,
    L_DicomGetHostInfo,
    L_DicomListen,
    L_DicomSendAssociateReject,
    L_DicomSendAssociateRequest,
    L_DicomSetCallback,
    L_DicomShutDown,
    L_DicomStartUp,
    L_DicomWait,
    pEXT_CALLBACK,
)
from ..pdu import AssociateReject


class Demo:
    """One acceptor and one requestor in one process, over TCP on loopback."""

    def __init__(self) -> None:
        self.events: list[tuple[int, ...] | str] = []
        self.codes = (0, 0, 0)
        self.acceptor = L_DicomCreateNet(None, DICOM_SECURE_NONE)
        self.requestor = L_DicomCreateNet(None, DICOM_SECURE_NONE)
        self.accepted = None
        self.request = L_DicomCreateAssociate(True)
        # A real C function pointer if the host allows one, else the Python function.
        try:
            on_reject = pEXT_CALLBACK("RECEIVEASSOCIATEREJECTCALLBACK")(self.on_reject)
        except MemoryError:
            on_reject = self.on_reject
        check(L_DicomDefaultAssociate(self.request))
        check(L_DicomSetCallback(self.acceptor, {"pfnAccept": self.on_accept}))
        check(L_DicomListen(self.acceptor, "127.0.0.1", 0, 1))
        callbacks = {
            "pfnConnect": self.on_connect,
            "pfnReceive": self.on_receive,
            "pfnReceiveAssociateReject": on_reject,
            "pfnClose": self.on_close,
        }
        check(L_DicomSetCallback(self.requestor, callbacks))

    def on_accept(self, hNet: object, nError: int, _: object) -> None:
        self.accepted = L_DicomCreateNet(None, DICOM_SECURE_NONE)
        slots = {"pfnReceiveAssociateRequest": self.on_request, "pfnClose": self.on_acceptor_close}
        check(L_DicomSetCallback(self.accepted, slots))
        check(L_DicomAccept(hNet, self.accepted))

    def on_request(self, hNet: object, hPDU: object, _: object) -> None:
        check(L_DicomSendAssociateReject(hNet, *self.codes))

    def on_acceptor_close(self, hNet: object, nError: int, _: object) -> None:
        L_DicomFreeNet(hNet)
        self.accepted = None

    def on_connect(self, hNet: object, nError: int, _: object) -> None:
        check(nError)
        check(L_DicomSendAssociateRequest(hNet, self.request))

    def on_receive(self, hNet: object, nError: int, nType: int, *_: object) -> None:
        self.events.append("receive" if (nError, nType) == (0, 3) else f"{nType} {nError}")

    def on_reject(self, hNet: object, nResult: int, nSource: int, nReason: int, _: object) -> None:
        self.events.append((nResult, nSource, nReason))

    def on_close(self, hNet: object, nError: int, _: object) -> None:
        self.events.append("close" if nError == 0 else f"close {nError}")

    def reject(self, codes: tuple[int, int, int]) -> list[tuple[int, ...] | str]:
        """Have one association rejected with these codes. Return the callbacks of the requestor, in
        order, and the codes."""
        self.events, self.codes = [], codes
        check(L_DicomConnect(self.requestor, None, 0, *L_DicomGetHostInfo(self.acceptor)))
        for _ in range(100):
            if self.accepted is None and self.events and str(self.events[-1]).startswith("close"):
                break
            L_DicomWait(self.requestor, 100)
        return self.events

    def close(self) -> None:
        L_DicomFreeAssociate(self.request)
        L_DicomFreeNet(self.requestor)
        L_DicomFreeNet(self.acceptor)


def check(code: int) -> None:
    if code != DICOM_SUCCESS:
        raise RuntimeError(L_DicomErrorText(code))


def run_demo() -> int:
    """Send each defined rejection and print the codes received. Return 0 if all are those sent,
    else 1."""
    L_DicomStartUp()
    demo = Demo()
    agreed = 0
    print("sent    received  meaning of result/source/reason")
    for codes in codec.DEFINED_REJECTS:
        events = demo.reject(codes)
        received = [event for event in events if isinstance(event, tuple)]
        right = events == ["receive", codes, "close"]
        agreed += right
        got = "/".join(map(str, received[0])) if received else "nothing"
        sent = "/".join(map(str, codes))
        meaning = str(AssociateReject(*codes)).partition(" (result")[0]
        mark = "" if right else f"   WRONG: {events}"
        print(f"{sent}   {got:8}  {meaning}{mark}")
    demo.close()
    L_DicomShutDown()
    print(f"{agreed} of {len(codec.DEFINED_REJECTS)} rejections arrived as they were sent.")
    return 0 if agreed == len(codec.DEFINED_REJECTS) else 1
