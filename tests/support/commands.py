"""Command sets (PS3.7), and an image to store."""

from __future__ import annotations

import random
import struct
from functools import cache
from io import BytesIO

import pydicom

from support.pdus import p_data
from support.uids import SECONDARY_CAPTURE, VERIFICATION


def command_set(elements: dict[int, int | str]) -> bytes:
    """Return a command set (PS3.7 6.3): group 0000, always Implicit VR Little Endian."""

    def element(number: int, value: bytes) -> bytes:
        return struct.pack("<HHL", 0, number, len(value)) + value

    body = b""
    for number, value in sorted(elements.items()):
        if isinstance(value, str):
            body += element(number, value.encode() + b"\0" * (len(value) % 2))
        else:
            body += element(number, struct.pack("<H", value))
    return element(0, struct.pack("<L", len(body))) + body


def elements_of(command: bytes) -> dict[int, bytes]:
    found = {}
    while command:
        _, number, size = struct.unpack_from("<HHL", command)
        found[number], command = command[8 : 8 + size], command[8 + size :]
    return found


def echo_request(number: int, sop_class: str = VERIFICATION, context: int = 1) -> bytes:
    """Return the P-DATA-TF of a C-ECHO-RQ (PS3.7 9.3.5.1)."""
    elements = {0x0002: sop_class, 0x0100: 0x0030, 0x0110: number, 0x0800: 0x0101}
    return p_data(command_set(elements), True, context=context)


def echo_response(number: int) -> bytes:
    """Return the P-DATA-TF of a C-ECHO-RSP (PS3.7 9.3.5.2) in context 1: success."""
    elements = {0x0002: VERIFICATION, 0x0100: 0x8030, 0x0120: number, 0x0800: 0x0101, 0x0900: 0}
    return p_data(command_set(elements), True, context=1)


INSTANCE = "2.25.20260707"
COLUMNS, ROWS = 2048, 1536  # 3 MiB of random bytes


@cache
def dicom_file(rows: int = ROWS) -> bytes:
    """Return a file with an image of random pixels, Implicit VR Little Endian."""
    image = pydicom.Dataset()
    image.SOPClassUID, image.SOPInstanceUID = SECONDARY_CAPTURE, INSTANCE
    image.StudyInstanceUID, image.SeriesInstanceUID = INSTANCE + ".1", INSTANCE + ".2"
    image.PatientName, image.PatientID, image.Modality = "LIVE^MATRIX", "1", "OT"
    image.StudyID, image.SeriesNumber, image.InstanceNumber = "1", "1", "1"
    image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
    image.Rows, image.Columns, image.PixelRepresentation = rows, COLUMNS, 0
    image.BitsAllocated, image.BitsStored, image.HighBit = 8, 8, 7
    image.PixelData = random.Random(1).randbytes(rows * COLUMNS)
    image.file_meta = pydicom.dataset.FileMetaDataset()
    image.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian
    written = BytesIO()
    image.save_as(written, enforce_file_format=True)
    return written.getvalue()


def store_response(request: bytes) -> bytes:
    message = int.from_bytes(elements_of(request)[0x110], "little")
    return command_set(
        {
            **{0x2: SECONDARY_CAPTURE, 0x100: 0x8001, 0x120: message},
            **{0x800: 0x101, 0x900: 0, 0x1000: INSTANCE},
        }
    )
