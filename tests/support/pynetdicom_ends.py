"""pynetdicom as acceptor and as requestor."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from pynetdicom import AE, evt
from pynetdicom.sop_class import Verification

from support.rejections import Codes
from support.sockets import LOCALHOST, TIMEOUT
from support.uids import IMPLICIT


@contextmanager
def pynetdicom_acceptor(handlers: Any = (), **attributes: Any) -> Iterator[int]:
    """Run pynetdicom as an acceptor of Verification; yield its port."""
    ae = AE(ae_title="PYNETDICOM")
    ae.acse_timeout = ae.network_timeout = TIMEOUT
    ae.add_supported_context(Verification, IMPLICIT)
    for name, value in attributes.items():
        setattr(ae, name, value)
    server = ae.start_server((LOCALHOST, 0), block=False, evt_handlers=list(handlers))
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()


def pynetdicom_rejecting(codes: Codes) -> list[Any]:
    """Return handlers that reject every association like pynetdicom's own rejections."""

    def on_requested(event: Any) -> None:
        event.assoc.acse.send_reject(*codes)
        event.assoc.is_rejected = True  # otherwise it would accept afterwards
        event.assoc.kill()  # ends it after the requestor has closed

    return [(evt.EVT_REQUESTED, on_requested)]


def associate(
    port: int,
    called: str = "ANY-SCP",
    calling: str = "PYNETDICOM",
    contexts: Iterable[tuple[str, Any]] = ((Verification, IMPLICIT),),
    **options: Any,
) -> Any:
    """Return pynetdicom's requestor after the answer of our acceptor.

    Its reading thread is held until its requesting thread waits for the answer: pynetdicom 3.0.4
    reports an earlier rejection as a failed connection.
    """
    waiting = threading.Event()

    def on_requested(event: Any) -> None:
        receive_pdu = event.assoc.dul.receive_pdu

        def wait_and_receive(*arguments: Any, **options: Any) -> Any:
            waiting.set()
            return receive_pdu(*arguments, **options)

        event.assoc.dul.receive_pdu = wait_and_receive

    handlers = [
        (evt.EVT_REQUESTED, on_requested),
        (evt.EVT_PDU_RECV, lambda event: waiting.wait(TIMEOUT)),
    ]
    ae = AE(ae_title=calling)
    ae.acse_timeout = ae.network_timeout = ae.connection_timeout = TIMEOUT
    for context in contexts:
        ae.add_requested_context(*context)
    return ae.associate(LOCALHOST, port, ae_title=called, evt_handlers=handlers, **options)
