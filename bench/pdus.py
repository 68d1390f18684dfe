"""PDUs, commands and images for all cases."""

from __future__ import annotations

import io
import struct

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID

import ltdic

VERIFICATION = "1.2.840.10008.1.1"
STORAGE = "1.2.840.10008.5.1.4.1.1.7"
IMPLICIT = "1.2.840.10008.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"
SYNTAXES = (
    IMPLICIT,
    EXPLICIT,
    "1.2.840.10008.1.2.4.50",
    "1.2.840.10008.1.2.4.90",
)


def _user(max_length: int) -> ltdic.UserInformation:
    return ltdic.UserInformation(max_length, "1.2.826.0.1.3680043.9.9999.1", "BENCH_1")


def _abstract(number: int) -> str:
    """A UID as long as those of storage SOP classes."""
    return f"1.2.840.10008.5.1.4.1.1.{number}" if number % 2 else f"{STORAGE}.{number}"


def request(contexts: int, syntaxes: int = 4, max_length: int = 16384) -> bytes:
    proposed = tuple(
        ltdic.ProposedContext(2 * n + 1, _abstract(n), SYNTAXES[:syntaxes]) for n in range(contexts)
    )
    return ltdic.encode(
        ltdic.AssociateRequest("ARCHIVE", "BENCH", proposed, user_info=_user(max_length))
    )


def accept(contexts: int, max_length: int = 16384) -> bytes:
    results = tuple(ltdic.ContextResult(2 * n + 1, 0, SYNTAXES[n % 4]) for n in range(contexts))
    return ltdic.encode(
        ltdic.AssociateAccept("ARCHIVE", "BENCH", results, user_info=_user(max_length))
    )


def data(size: int, context_id: int = 1, control: int = 0, content: bytes = b"") -> bytes:
    """A P-DATA-TF with one PDV: `content`, or as much as makes the PDU length `size`."""
    pdv = content or bytes(n % 251 for n in range(size - 6))
    return struct.pack(">BxIIBB", 4, len(pdv) + 6, len(pdv) + 2, context_id, control) + pdv


REJECT = ltdic.encode(ltdic.AssociateReject(1, 1, 7))
ABORT = ltdic.encode(ltdic.Abort(2, 1))
RELEASE = ltdic.encode(ltdic.ReleaseRequest())
PDUS: dict[str, bytes] = {
    "A-ASSOCIATE-RJ": REJECT,
    "A-ABORT": ABORT,
    "A-RELEASE-RQ": RELEASE,
    "A-ASSOCIATE-RQ, 1 context": request(1, 1),
    "A-ASSOCIATE-RQ, 128 x 4": request(128),
    "A-ASSOCIATE-AC, 1 context": accept(1),
    "A-ASSOCIATE-AC, 128 contexts": accept(128),
    "P-DATA-TF, 16 KiB": data(16384),
    "P-DATA-TF, 128 KiB": data(131072),
}
REJECTS = b"".join(
    ltdic.encode(ltdic.AssociateReject(*codes))
    for codes in ((1, 1, 7), (1, 1, 3), (2, 3, 2), (2, 3, 1), (1, 2, 2)) * 2000
)
MIXED = b"".join(
    [request(2), accept(2), data(70), data(16384), data(16384, control=2), RELEASE, REJECT, ABORT]
) * 16  # fmt: skip


# ---- files of the network contenders ---------------------------------------------------------


def _command(elements: list[tuple[int, bytes]]) -> bytes:
    """A command set (PS3.7 6.3): Implicit VR Little Endian, group 0000, its length first."""
    body = b"".join(
        struct.pack("<HHI", 0, element, len(value)) + value for element, value in elements
    )
    return struct.pack("<HHII", 0, 0, 4, len(body)) + body


def _uid(uid: str) -> bytes:
    return uid.encode() + b"\0" * (len(uid) % 2)


def _us(value: int) -> bytes:
    return struct.pack("<H", value)


def _message(context_id: int, sop_class: str, field: int, *rest: tuple[int, bytes]) -> bytes:
    answers = field >= 0x8000
    elements = [(0x0002, _uid(sop_class)), (0x0100, _us(field))]
    elements += [(0x0120 if answers else 0x0110, _us(1)), *rest]
    command = _command(sorted(elements))
    return data(0, context_id, 3, command)


NO_DATA_SET, A_DATA_SET, INSTANCE = (0x0800, _us(0x0101)), (0x0800, _us(1)), (0x1000, _uid("1.2.3"))
MEDIUM, SUCCESS = (0x0700, _us(0)), (0x0900, _us(0))


CONTEXTS = (1, VERIFICATION), (3, STORAGE)


def files() -> dict[str, bytes]:
    """Files with one PDU each, by the names that the programs know."""
    proposed = tuple(ltdic.ProposedContext(n, uid, (IMPLICIT,)) for n, uid in CONTEXTS)
    request = ltdic.AssociateRequest("ARCHIVE", "BENCH", proposed, user_info=_user(131072))
    made = {
        "rq.bin": ltdic.encode(request),
        "rj.bin": REJECT,
        "release-rq.bin": RELEASE,
        "release-rp.bin": ltdic.encode(ltdic.ReleaseResponse()),
        "echo-rq.bin": _message(1, VERIFICATION, 0x0030, NO_DATA_SET),
        "echo-rsp.bin": _message(1, VERIFICATION, 0x8030, NO_DATA_SET, SUCCESS),
        "store-rq.bin": _message(3, STORAGE, 1, MEDIUM, A_DATA_SET, INSTANCE),
        "store-rsp.bin": _message(3, STORAGE, 0x8001, NO_DATA_SET, SUCCESS, INSTANCE),
    }
    for max_length in (16384, 131072):
        results = tuple(ltdic.ContextResult(n, 0, IMPLICIT) for n, _ in CONTEXTS)
        made[f"ac-{max_length}.bin"] = ltdic.encode(
            ltdic.AssociateAccept("ARCHIVE", "BENCH", results, user_info=_user(max_length))
        )
    return made


# ---- small images ----------------------------------------------------------------------------

SIDE = 198
"""Rows, and columns: an image of 39 KB."""


def _image(instance: str) -> bytes:
    """A DICOM file (PS3.10 7)."""
    image = Dataset()
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = UID(EXPLICIT)
    image.SOPClassUID = STORAGE
    image.SOPInstanceUID = instance
    image.Modality = "OT"
    image.PatientName, image.PatientID = "Bench^Small", "BENCH"
    image.StudyInstanceUID, image.SeriesInstanceUID = "1.2.3.1", "1.2.3.1.1"
    image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
    image.Rows = image.Columns = SIDE
    image.BitsAllocated = image.BitsStored = 8
    image.HighBit, image.PixelRepresentation = 7, 0
    image.add_new("PixelData", "OW", bytes(n % 251 for n in range(SIDE * SIDE)))
    file = io.BytesIO()
    image.save_as(file, enforce_file_format=True)
    return file.getvalue()


def _data_set(file: bytes) -> bytes:
    """The bytes after the file meta information, whose length is in its first element."""
    return file[144 + int.from_bytes(file[140:144], "little") :]


def images(count: int) -> dict[str, bytes]:
    """DICOM files, and the PDUs that send them, by the names that the programs know."""
    made = {}
    for n in range(count):
        instance = f"1.2.3.1.1.{n + 1}"
        file = _image(instance)
        command = _message(3, STORAGE, 1, MEDIUM, A_DATA_SET, (0x1000, _uid(instance)))
        made[f"file-{n:03}.bin"] = file
        made[f"command-{n:03}.bin"] = command
        made[f"data-{n:03}.bin"] = data(0, 3, 2, _data_set(file))
    return made
