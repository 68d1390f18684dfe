"""PDUs that raw peers send."""

from __future__ import annotations

from ltdic import PDU, PDV, DataTransfer, ReleaseRequest, ReleaseResponse, encode

COMMAND, LAST = 1, 2


def data_pdu(data: bytes, is_command: bool = False, is_last: bool = True, context: int = 3) -> PDU:
    return DataTransfer((PDV(context, is_command, is_last, data),))


def p_data(data: bytes, is_command: bool = False, is_last: bool = True, context: int = 3) -> bytes:
    return encode(data_pdu(data, is_command, is_last, context))


RELEASE_RQ, RELEASE_RP = encode(ReleaseRequest()), encode(ReleaseResponse())


def p_data_of(*pdvs: tuple[int, int, bytes]) -> bytes:
    """Return a P-DATA-TF of PDVs (context, control, data)."""
    return encode(
        DataTransfer(tuple(PDV(i, bool(c & COMMAND), bool(c & LAST), data) for i, c, data in pdvs))
    )


MINIMAL_REQUEST = bytes.fromhex(
    "0100000000c2000100004141202020202020202020202020202042422020202020202020202020202020"
    + "00" * 32
    + "10000015312e322e3834302e31303030382e332e312e312e31"
    "2000002e0100000030000011312e322e3834302e31303030382e312e31"
    "40000011312e322e3834302e31303030382e312e32"
    "5000002f510000040000400052000018312e322e3832362e302e312e333638303034332e31302e31"
    "550000074c544449435f30"
)
MINIMAL_ACCEPT = bytes.fromhex(
    "0200000000ad0001"
    + MINIMAL_REQUEST[8:74].hex()
    + MINIMAL_REQUEST[74:99].hex()
    + "2100001901000000"
    "40000011312e322e3834302e31303030382e312e32" + MINIMAL_REQUEST[149:].hex()
)
