"""pynetdicom as acceptor and as requestor."""

from __future__ import annotations

import io
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import program
from program import (
    BACKLOG,
    CODES,
    EXPLICIT_LITTLE_ENDIAN,
    IMPLICIT_LITTLE_ENDIAN,
    LOCALHOST,
    SECONDARY_CAPTURE,
    TIMEOUT,
    VERIFICATION,
    Accepting,
    Requesting,
    Unsupported,
    check,
)
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID
from pynetdicom import AE, _config, evt

MOST = 1000
"""Limit of associations at once: more than any case has."""


def entity(title: str, max_length: int) -> AE:
    ae = AE(title)
    ae.maximum_associations = MOST
    ae.maximum_pdu_size = max_length
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = ae.connection_timeout = TIMEOUT
    return ae


def accept(job: Accepting) -> None:
    """All requests have the called title ARCHIVE: `reject` admits another title only."""
    ae = entity("NOBODY" if job.mode == "reject" else "ARCHIVE", job.max_length)
    ae.require_called_aet = True
    ae.add_supported_context(VERIFICATION, IMPLICIT_LITTLE_ENDIAN)
    ae.add_supported_context(SECONDARY_CAPTURE, IMPLICIT_LITTLE_ENDIAN)
    success: list[Any] = [(evt.EVT_C_ECHO, lambda event: 0), (evt.EVT_C_STORE, lambda event: 0)]
    server: Any = ae.start_server((LOCALHOST, 0), block=False, evt_handlers=success)
    server.socket.listen(BACKLOG)  # its own backlog of 5 makes requestors wait for seconds
    program.announce(server.socket.getsockname()[1])
    program.until_input_ends()
    server.shutdown()


def data_set_of(size: int) -> Dataset:
    """A data set whose encoded length is `size`."""
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = UID(IMPLICIT_LITTLE_ENDIAN)
    data.SOPClassUID = SECONDARY_CAPTURE
    data.SOPInstanceUID = "1.2.3"
    others = 8 + len(SECONDARY_CAPTURE) + 1 + 8 + len("1.2.3") + 1
    data.add_new("PixelData", "OW", bytes(size - others - 8))
    return data


def request(job: Requesting) -> int:
    ae = entity("BENCH", job.max_length)
    ae.add_requested_context(VERIFICATION, IMPLICIT_LITTLE_ENDIAN)
    stores = job.mode == "store"
    syntax = EXPLICIT_LITTLE_ENDIAN if stores else IMPLICIT_LITTLE_ENDIAN
    ae.add_requested_context(SECONDARY_CAPTURE, syntax)
    data_set = data_set_of(job.count) if job.mode == "send" else None
    images = [dcmread(io.BytesIO(file)) for file in job.each("file-")] if stores else []
    times: list[int] = []
    misreported = 0

    def associate() -> Any:
        return ae.associate(LOCALHOST, job.port, ae_title="ARCHIVE", max_pdu=job.max_length)

    def reject() -> None:
        nonlocal misreported
        association = associate()
        if not association.is_rejected:
            misreported += 1  # reported as aborted: a race of its threads
            return
        said = association.acceptor.primitive
        codes = (said.result, said.result_source, said.diagnostic)
        check(codes == CODES, f"rejected with {codes}")

    @contextmanager
    def associated() -> Iterator[Any]:
        association = associate()
        check(association.is_established, "not accepted")
        try:
            yield association
            association.release()
        except BaseException:
            association.abort()  # ends its thread
            raise

    def echo() -> None:
        with associated() as association:
            begun = time.monotonic_ns()
            for _ in range(job.echoes):
                check(association.send_c_echo().get("Status") == 0, "no success")
            times.append(time.monotonic_ns() - begun)

    def send() -> None:
        with associated() as association:
            check(association.send_c_store(data_set).get("Status") == 0, "no success")

    def store() -> None:
        with associated() as association:
            for image in images:
                check(association.send_c_store(image).get("Status") == 0, "no success")

    modes = {"reject": reject, "echo": echo, "latency": echo, "send": send, "store": store}
    if job.mode not in modes:
        raise Unsupported
    taken = program.in_threads(job, modes[job.mode])
    check(not misreported, f"{misreported} of {job.count} rejections misreported, in {taken} ns")
    return times[0] if job.mode == "latency" else taken


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    _config.LOG_HANDLER_LEVEL = "none"
    # Without a log there is nothing to format.
    _config.LOG_REQUEST_IDENTIFIERS = _config.LOG_RESPONSE_IDENTIFIERS = False
    program.main(accept, request)
