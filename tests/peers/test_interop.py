"""The codec against that of pynetdicom, PDU by PDU, and against that of DCMTK in associations."""

from __future__ import annotations

import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import Dataset
from pynetdicom import pdu as theirs
from pynetdicom import pdu_items as items

import ltdic
from ltdic import (
    PDV,
    Abort,
    AssociateAccept,
    AssociateReject,
    AssociateRequest,
    AsyncOperations,
    CommonExtendedNegotiation,
    ContextResult,
    DataTransfer,
    Decoder,
    ExtendedNegotiation,
    Fragment,
    ProposedContext,
    ReleaseRequest,
    ReleaseResponse,
    RoleSelection,
    UnknownItem,
    UserIdentity,
    UserIdentityResponse,
    UserInformation,
    decode,
    encode,
)
from support import strategies as my
from support.dcmtk import SERVERS, STORESCP, dcmtk_server, needs_dcmtk
from support.sockets import LOCALHOST, TIMEOUT
from support.toolchain import clean_environment
from support.uids import IMPLICIT, SECONDARY_CAPTURE, VERIFICATION
from support.vectors import vectors

ASSOCIATE = (AssociateRequest, AssociateAccept)
STORAGE_SERVICE = "1.2.840.10008.4.2"

# ---- pynetdicom's PDUs as ours ---------------------------------------------------------------

KINDS = {number: kind for kind, number in theirs.PDU_TYPES.items()}


def values_of(thing: Any, names: str) -> list[Any]:
    values = [getattr(thing, name) for name in names.split()]
    return [tuple(value) if isinstance(value, list) else value for value in values]


def ours_of_information(information: Any) -> UserInformation | None:
    if information is None:
        return None

    def several(kind: type, ours: type, names: str) -> tuple[Any, ...]:
        found = [item for item in information.user_data if isinstance(item, kind)]
        return tuple(ours(*values_of(item, names)) for item in found)

    def single(kind: type, ours: type, names: str) -> Any:
        return next(iter(several(kind, ours, names)), None)

    return UserInformation(
        max_length=information.maximum_length,
        implementation_class_uid=information.implementation_class_uid,
        implementation_version_name=information.implementation_version_name,
        async_ops=single(
            items.AsynchronousOperationsWindowSubItem,
            AsyncOperations,
            "max_operations_invoked max_operations_performed",
        ),
        roles=several(items.SCP_SCU_RoleSelectionSubItem, RoleSelection, "uid scu scp"),
        extended=several(
            items.SOPClassExtendedNegotiationSubItem, ExtendedNegotiation, "uid app_info"
        ),
        common_extended=several(
            items.SOPClassCommonExtendedNegotiationSubItem,
            CommonExtendedNegotiation,
            "sub_item_version sop_class_uid service_class_uid"
            " related_general_sop_class_identification",
        ),
        user_identity=single(
            items.UserIdentitySubItemRQ,
            UserIdentity,
            "id_type positive_response_requested primary secondary",
        ),
        user_identity_response=single(
            items.UserIdentitySubItemAC, UserIdentityResponse, "response"
        ),
    )


def ours_of_associate(pdu: Any) -> ltdic.PDU:
    contexts = pdu.presentation_context
    fields = {
        "called_ae": pdu.called_ae_title,
        "calling_ae": pdu.calling_ae_title,
        "application_context": pdu.application_context_name,
        "user_info": ours_of_information(pdu.user_information),
        "protocol_version": pdu.protocol_version,
    }
    if isinstance(pdu, theirs.A_ASSOCIATE_RQ):
        names = "context_id abstract_syntax transfer_syntax"
        proposed = tuple(ProposedContext(*values_of(c, names)) for c in contexts)
        return AssociateRequest(contexts=proposed, **fields)
    names = "context_id result transfer_syntax"
    results = tuple(ContextResult(*values_of(c, names)) for c in contexts)
    return AssociateAccept(contexts=results, **fields)


def ours_of(pdu: Any) -> ltdic.PDU:
    """Convert a PDU of pynetdicom into one of ours."""
    if isinstance(pdu, (theirs.A_ASSOCIATE_RQ, theirs.A_ASSOCIATE_AC)):
        return ours_of_associate(pdu)
    if isinstance(pdu, theirs.A_ASSOCIATE_RJ):
        return AssociateReject(pdu.result, pdu.source, pdu.reason_diagnostic)
    if isinstance(pdu, theirs.A_ABORT_RQ):
        return Abort(pdu.source, pdu.reason_diagnostic)
    if isinstance(pdu, theirs.P_DATA_TF):
        found = [(item.context_id, item.data) for item in pdu.presentation_data_value_items]
        return DataTransfer(
            tuple(PDV(id, bool(data[0] & 1), bool(data[0] & 2), data[1:]) for id, data in found)
        )
    return ReleaseRequest() if isinstance(pdu, theirs.A_RELEASE_RQ) else ReleaseResponse()


def decoded_by_pynetdicom(wire: bytes) -> Any:
    pdu = KINDS[wire[0]]()
    pdu.decode(wire)
    return pdu


# ---- known differences of pynetdicom ---------------------------------------------------------

UNKNOWN = "looks the type of each item up in a dictionary"
REJECTED = "hands up the transfer syntax of a rejected context"
TITLES = "only strips an AC's titles, which are reserved bytes"
DISAGREEMENTS = {
    **dict.fromkeys([f"rq-unknown-item-{n}" for n in range(4)], UNKNOWN),
    **dict.fromkeys([f"rq-unknown-subitem-{n}" for n in range(5)], UNKNOWN),
    "rq-unknown-last-empty": UNKNOWN,
    "rq-unknown-in-context": UNKNOWN,
    "ac-unknown": UNKNOWN,
    "ac-unknown-in-context": UNKNOWN,
    "ac-rejected-junk": "parses the variable field of a rejected context",
    "rq-ver-g0": "allows no backslash in a version name",
    "rq-cext-version-tail": "reads the related list of item 57 to the end of the item",
    "rq-cext-version": "leaves the version of item 57 at 0",
    "rq-ident-7": "takes an empty primary field to reach to the end of the item",
    "ac-all-results": REJECTED,
    "ac-all-rejected": REJECTED,
    "ac-ae-zero": TITLES,
    "ac-ae-any": TITLES,
}


def without_unknown(pdu: ltdic.PDU) -> ltdic.PDU:
    """Return the PDU without unknown items, which pynetdicom does not keep."""
    if not isinstance(pdu, ASSOCIATE):
        return pdu
    return replace(pdu, user_info=replace(pdu.user_info, unknown=()), unknown_items=())


def has_backslash(pdu: ltdic.PDU) -> bool:
    """Tell whether the version name has a backslash: PS3.7 D.3.3.2.3 allows it, pynetdicom does
    not."""
    return isinstance(pdu, ASSOCIATE) and "\\" in str(pdu.user_info.implementation_version_name)


def with_swallowed_length(pdu: ltdic.PDU) -> ltdic.PDU:
    """Return the PDU as pynetdicom decodes an empty primary field: all bytes up to the item's
    end."""
    identity = pdu.user_info.user_identity if isinstance(pdu, AssociateRequest) else None
    if identity is None or identity.primary:
        return pdu
    primary = len(identity.secondary).to_bytes(2, "big") + identity.secondary
    information = replace(pdu.user_info, user_identity=replace(identity, primary=primary))
    return replace(pdu, user_info=information)


def with_rejected_syntax(pdu: ltdic.PDU, syntax: str | None) -> ltdic.PDU:
    """Return the PDU with this transfer syntax in rejected contexts, where it is not significant
    (PS3.8 9.3.3.2).

    Our value is then empty. Other codecs repeat one; pynetdicom cannot encode an empty one.
    """
    if not isinstance(pdu, AssociateAccept):
        return pdu
    contexts = tuple(replace(c, transfer_syntax=syntax) if c.result else c for c in pdu.contexts)
    return replace(pdu, contexts=contexts)


known_to_pynetdicom = my.strict_pdus.map(without_unknown).filter(lambda pdu: not has_backslash(pdu))
encodable_by_pynetdicom = known_to_pynetdicom.map(
    lambda pdu: decoded_by_pynetdicom(encode(with_rejected_syntax(pdu, IMPLICIT)))
)

# ---- pynetdicom ------------------------------------------------------------------------------


@pytest.mark.slow
@given(known_to_pynetdicom)
def test_pynetdicom_decodes_our_pdus_to_the_same_fields(pdu: ltdic.PDU) -> None:
    assert ours_of(decoded_by_pynetdicom(encode(pdu))) == with_swallowed_length(pdu)


@pytest.mark.slow
@given(my.requests | my.accepts)
def test_pynetdicom_refuses_only_the_known_pdus(pdu: ltdic.PDU) -> None:
    try:
        decoded_by_pynetdicom(encode(pdu))
    except KeyError:
        assert pdu.unknown_items or pdu.user_info.unknown
    except ValueError:
        assert has_backslash(pdu)
    else:
        assert without_unknown(pdu) == pdu
        assert not has_backslash(pdu)


@pytest.mark.slow
@given(encodable_by_pynetdicom, st.randoms())
def test_we_decode_pdus_of_pynetdicom_to_the_same_fields(pdu: Any, random: Any) -> None:
    if pdu.pdu_type in (1, 2):
        random.shuffle(pdu.user_information.user_data)
    expected = with_rejected_syntax(ours_of(pdu), None)
    assert decode(pdu.encode(), strict=True) == expected


@pytest.mark.slow
@given(encodable_by_pynetdicom)
def test_we_encode_pdus_of_pynetdicom_to_the_same_bytes(pdu: Any) -> None:
    wire = pdu.encode()
    decoded = decode(wire, strict=True)
    assert encode(with_rejected_syntax(decoded, IMPLICIT)) == wire


def test_pynetdicom_agrees_with_all_valid_vectors_but_the_known_ones() -> None:
    disagreeing = set()
    for (vector,) in (parameters.values for parameters in vectors("valid.json")):
        wire = bytes.fromhex(vector["hex"])
        ours = decode(wire, strict=True, **vector.get("config", {}))
        try:
            same = ours_of(decoded_by_pynetdicom(wire)) == ours
        except (AssertionError, KeyError, ValueError):
            same = False
        if not same:
            disagreeing.add(vector["id"])
    assert disagreeing == DISAGREEMENTS.keys()


# ---- associations with DCMTK -----------------------------------------------------------------


class Link:
    """Our end of a connection: the codec in strict mode, without a state machine."""

    def __init__(self, connection: socket.socket) -> None:
        connection.settimeout(TIMEOUT)
        self.connection, self.file = connection, connection.makefile("rb")
        self.decoder = Decoder(strict=True)

    def __enter__(self) -> Link:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()
        self.connection.close()

    def send(self, pdu: ltdic.PDU) -> None:
        self.connection.sendall(encode(pdu))

    def receive(self) -> tuple[Any, bytes]:
        """Return the next PDU and its bytes; exact decoding keeps all of them."""
        wire = self.file.read(6)
        assert wire, "the peer has closed"
        wire += self.file.read(int.from_bytes(wire[2:], "big"))
        assert encode(decode(wire, exact=True)) == wire
        self.decoder.feed(wire)
        (pdu,) = self.decoder.pdus()
        return pdu, wire

    def receive_to_the_byte(self) -> Any:
        """Return the next PDU; assert that its encoding gives the same bytes."""
        pdu, wire = self.receive()
        assert encode(pdu) == wire
        return pdu


def command(*elements: tuple[int, bytes | int]) -> bytes:
    """Return a command set of element numbers and US or UI values (PS3.7 6.3.1)."""
    body = b""
    for number, value in elements:
        encoded = value.to_bytes(2, "little") if isinstance(value, int) else value
        encoded += bytes(len(encoded) % 2)
        body += struct.pack("<HHI", 0, number, len(encoded)) + encoded
    return struct.pack("<HHII", 0, 0, 4, len(body)) + body


def whole_command(context_id: int, data: bytes) -> DataTransfer:
    return DataTransfer((PDV(context_id, True, True, data),))


ECHO_CLASS = (2, VERIFICATION.encode())
NO_DATA_SET, SUCCESS = (0x0800, 0x0101), (0x0900, 0)


def echo_request(message_id: int) -> bytes:
    return command(ECHO_CLASS, (0x0100, 0x0030), (0x0110, message_id), NO_DATA_SET)


def echo_response(message_id: int) -> bytes:
    return command(ECHO_CLASS, (0x0100, 0x8030), (0x0120, message_id), NO_DATA_SET, SUCCESS)


STORE_CLASS, STORED = (2, SECONDARY_CAPTURE.encode()), (0x1000, b"1.2.3.4")
STORE_REQUEST = command(STORE_CLASS, (0x0100, 1), (0x0110, 1), (0x0700, 0), (0x0800, 1), STORED)
STORE_RESPONSE = command(STORE_CLASS, (0x0100, 0x8001), (0x0120, 1), NO_DATA_SET, SUCCESS, STORED)
ROLES = RoleSelection(SECONDARY_CAPTURE, 1, 1), RoleSelection(VERIFICATION, 1, 0)
EXTENDED = (ExtendedNegotiation(SECONDARY_CAPTURE, b"\2\0\3\0\0\0"),)
UNKNOWN_ITEMS = UnknownItem(0x70, b"unknown"), UnknownItem(0xFF, b"")
IN_AN_ACCEPT = UserInformation(
    max_length=16384,
    implementation_class_uid="1.2.3",
    implementation_version_name="A\\B",
    async_ops=AsyncOperations(1, 1),
    roles=ROLES,
    extended=EXTENDED,
    user_identity_response=UserIdentityResponse(b"response"),
    unknown=UNKNOWN_ITEMS,
)
IN_A_REQUEST = replace(
    IN_AN_ACCEPT,
    common_extended=(
        CommonExtendedNegotiation(0, SECONDARY_CAPTURE, STORAGE_SERVICE),
        CommonExtendedNegotiation(0, VERIFICATION, STORAGE_SERVICE, ("1.2.3", "1.2.4")),
    ),
    user_identity=UserIdentity(2, 1, b"user", b"passcode"),
    user_identity_response=None,
)


# ---- DCMTK requests --------------------------------------------------------------------------

PROFILE = """[[TransferSyntaxes]]
[Implicit]
TransferSyntax1 = LittleEndianImplicit
[[PresentationContexts]]
[Both]
PresentationContext1 = SecondaryCaptureImageStorage\\Implicit
PresentationContext2 = VerificationSOPClass\\Implicit
[[SCPSCURoleSelection]]
[Roles]
Role1 = SecondaryCaptureImageStorage\\BOTH
Role2 = VerificationSOPClass\\SCU
[[ExtendedNegotiation]]
[Extended]
ExtendedNegotiation1 = SecondaryCaptureImageStorage\\020003000000
[[Profiles]]
[Profile]
PresentationContexts = Both
SCPSCURoleSelection = Roles
ExtendedNegotiation = Extended
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a profile, a secret and a data set for DCMTK."""
    (tmp_path / "profile").write_text(PROFILE)
    (tmp_path / "secret").write_bytes(b"s\0\xff")
    image = Dataset()
    image.SOPClassUID, image.SOPInstanceUID = SECONDARY_CAPTURE, "1.2.3.4"
    image.PatientName, image.PatientID = "Doe^John", "1"
    image.StudyInstanceUID, image.SeriesInstanceUID = "1.2.3", "1.2.3.1"
    image.ImageComments = "data " * 2000
    image.save_as(tmp_path / "image", implicit_vr=True, little_endian=True)
    return tmp_path


@contextmanager
def dcmtk_requestor(
    folder: Path, program: str, *options: str
) -> Iterator[tuple[Link, subprocess.Popen[str]]]:
    """Run a DCMTK requestor in `folder`; yield it and our end of its connection."""
    with socket.create_server((LOCALHOST, 0)) as server:
        server.settimeout(TIMEOUT)
        port = str(server.getsockname()[1])
        files = ["image"] if program in ("storescu", "dcmsend") else []
        process = subprocess.Popen(
            [program, "-v", *options, LOCALHOST, port, *files],
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=clean_environment(),
        )
        try:
            with Link(server.accept()[0]) as link:
                yield link, process
        finally:
            process.kill()
            process.communicate(timeout=TIMEOUT)


def with_marked_contexts(wire: bytes) -> bytes:
    """Return a request with FF in the reserved byte 6 of each item 20, which DCMTK sends.

    Item 21 has its result there. By PS3.8 9.3.2.2 the byte is sent as 00 and not tested.
    """
    marked = bytearray(wire)
    for at, kind, _ in my.items_of(wire, 74, len(wire)):
        if kind == 0x20:
            marked[at + 6] = 0xFF
    return bytes(marked)


def receive_request(link: Link) -> AssociateRequest:
    request, wire = link.receive()
    assert with_marked_contexts(encode(request)) == wire
    return request


def accepting(request: AssociateRequest, **information: Any) -> AssociateAccept:
    """Return an answer that accepts all contexts, each with its first transfer syntax."""
    fields = {"max_length": 16384, "implementation_class_uid": "1.2.3", **information}
    contexts = tuple(ContextResult(c.id, 0, c.transfer_syntaxes[0]) for c in request.contexts)
    return AssociateAccept(
        *(request.called_ae, request.calling_ae, contexts), user_info=UserInformation(**fields)
    )


def receive_store(link: Link) -> list[tuple[DataTransfer, bytes]]:
    """Receive and answer a C-STORE-RQ with its data set; return its PDUs and their bytes."""
    received = [link.receive()]
    while (last := received[-1][0].pdvs[-1]).is_command or not last.is_last:
        received.append(link.receive())
    link.send(whole_command(last.context_id, STORE_RESPONSE))
    return received


def release(link: Link, process: subprocess.Popen[str]) -> str:
    """Let the requestor release and end; return its output."""
    assert link.receive_to_the_byte() == ReleaseRequest()
    link.send(ReleaseResponse())
    output, _ = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 0, output
    return output


REQUESTS = [
    ("echoscu", "", 1),
    ("echoscu", "-pts 38", 1),
    ("echoscu", "-ppc 128 -pts 38 -pdu 131072", 128),
    ("storescu", "", 128),
    ("storescu", "+C -xs", 64),
    ("storescu", "-R", 2),
    ("dcmsend", "-f", 1),
    ("findscu", "-W -k PatientName", 1),
    ("movescu", "-k PatientName", 2),
    ("getscu", "-k PatientName", 121),
    ("termscu", "", 1),
]


@pytest.mark.slow
@needs_dcmtk
@pytest.mark.parametrize(("program", "options", "contexts"), REQUESTS)
def test_a_request_by_dcmtk_is_strict_and_encoded_to_its_bytes(
    folder: Path, program: str, options: str, contexts: int
) -> None:
    with dcmtk_requestor(folder, program, *options.split()) as (link, _):
        assert len(receive_request(link).contexts) == contexts


@needs_dcmtk
def test_a_title_of_echoscu_comes_without_its_leading_space(folder: Path) -> None:
    with dcmtk_requestor(folder, "echoscu", "-aec", " A B") as (link, _):
        request, wire = link.receive()
    assert request.called_ae == "A B"
    assert wire[10:26] == b" A B".ljust(16)
    assert encode(request)[10:26] == b"A B".ljust(16)


@pytest.mark.slow
@needs_dcmtk
@pytest.mark.parametrize(
    "information", [UserInformation(0, "1.2"), IN_AN_ACCEPT], ids=["short", "long"]
)
@pytest.mark.parametrize("options", ["", "-pts 38", "-ppc 128", "--repeat 3"])
def test_echoscu_echoes_after_our_accept_and_releases(
    folder: Path, options: str, information: UserInformation
) -> None:
    with dcmtk_requestor(folder, "echoscu", *options.split()) as (link, process):
        request = receive_request(link)
        unknown = information.unknown
        link.send(replace(accepting(request), user_info=information, unknown_items=unknown))
        for message_id in range(1, 4 if "--repeat" in options else 2):
            echo = link.receive_to_the_byte()
            context_id = echo.pdvs[0].context_id
            assert echo == whole_command(context_id, echo_request(message_id))
            link.send(whole_command(context_id, echo_response(message_id)))
        assert "Received Echo Response (Success)" in release(link, process)


CALLED_TITLE = """F: Result: Rejected Permanent, Source: Service User
F: Reason: Called AE Title Not Recognized"""
LIMIT = """F: Result: Rejected Transient, Source: Service Provider (Presentation Related)
F: Reason: Local Limit Exceeded"""
REFUSALS = [
    (AssociateReject(1, 1, 7), CALLED_TITLE),
    (AssociateReject(2, 3, 2), LIMIT),
    (Abort(0, 0), "Peer aborted Association"),
    (Abort(2, 6), "Peer aborted Association"),
]


@needs_dcmtk
@pytest.mark.parametrize(("pdu", "words"), REFUSALS, ids=["called", "limit", "user", "provider"])
def test_echoscu_prints_the_reason_of_a_refusal(folder: Path, pdu: ltdic.PDU, words: str) -> None:
    with dcmtk_requestor(folder, "echoscu") as (link, process):
        receive_request(link)
        link.send(pdu)
        output, _ = process.communicate(timeout=TIMEOUT)
    assert process.returncode != 0
    assert words in output


IDENTITIES = [
    ("-usr jdoe", UserIdentity(1, 0, b"jdoe"), None),
    ("-usr jdoe -pwd pass", UserIdentity(2, 0, b"jdoe", b"pass"), None),
    ("-usr jdoe -epw -rsp", UserIdentity(2, 1, b"jdoe"), b""),
    ("-kt secret -rsp", UserIdentity(3, 1, b"s\0\xff"), b"ticket"),
    ("--saml secret -rsp", UserIdentity(4, 1, b"s\0\xff"), b"<saml/>"),
    ("--jwt secret", UserIdentity(5, 0, b"s\0\xff"), None),
]


@pytest.mark.slow
@needs_dcmtk
@pytest.mark.parametrize(("options", "identity", "response"), IDENTITIES)
def test_a_user_identity_of_storescu_and_our_response_are_received(
    folder: Path, options: str, identity: UserIdentity, response: bytes | None
) -> None:
    with dcmtk_requestor(folder, "storescu", "-d", "-R", *options.split()) as (link, process):
        request = receive_request(link)
        answer = None if response is None else UserIdentityResponse(response)
        link.send(accepting(request, user_identity_response=answer))
        receive_store(link)
        output = release(link, process)
    assert request.user_info.user_identity == identity
    if response is None:
        assert "User Identity Negotiation Response:  none\n" in output
    else:
        assert f"Server Response (not dumped) length: {len(response)}\n" in output


@needs_dcmtk
def test_roles_and_extended_negotiation_of_storescu_and_our_answers_are_received(
    folder: Path,
) -> None:
    with dcmtk_requestor(folder, "storescu", "-d", "-xf", "profile", "Profile") as (link, process):
        request = receive_request(link)
        negotiated = {"roles": ROLES, "extended": EXTENDED}
        link.send(accepting(request, **negotiated))
        receive_store(link)
        output = release(link, process)
    assert {name: getattr(request.user_info, name) for name in negotiated} == negotiated
    assert "Accepted SCP/SCU Role: SCP/SCU\n" in output
    accepted = output.split("Accepted Extended Negotiation:\n")[1].splitlines()[:2]
    assert accepted == [
        f"D:   =SecondaryCaptureImageStorage ({SECONDARY_CAPTURE})",
        "D:     [0x02, 0x00, 0x03, 0x00, 0x00, 0x00]",
    ]


# ---- data both ways --------------------------------------------------------------------------


def joined_fragments(wire: bytes) -> list[bytes]:
    """Return the command and the data set, joined from the pieces of reads of 1000 bytes."""
    found = [bytearray(), bytearray()]
    decoder = Decoder(strict=True)
    for start in range(0, len(wire), 1000):
        decoder.feed(wire[start : start + 1000])
        for piece in decoder.fragments():
            assert isinstance(piece, Fragment)
            found[not piece.is_command] += piece.data
    assert decoder.pending == 0
    return [bytes(data) for data in found]


@pytest.mark.slow
@needs_dcmtk
@pytest.mark.parametrize("most", [0, 14, 128, 4096, 16384, 0x7FFFFFFF])
def test_storescu_s_data_set_arrives_whole_under_each_maximum_length(
    folder: Path, most: int
) -> None:
    with dcmtk_requestor(folder, "storescu", "-R", "-xi") as (link, process):
        link.send(accepting(receive_request(link), max_length=most))
        received = receive_store(link)
        release(link, process)
    assert most == 0 or max(len(wire) - 6 for _, wire in received) <= most
    assert all(encode(pdu) == wire for pdu, wire in received)
    pdvs = [pdv for pdu, _ in received for pdv in pdu.pdvs]
    commands = b"".join(pdv.data for pdv in pdvs if pdv.is_command)
    data = b"".join(pdv.data for pdv in pdvs if not pdv.is_command)
    assert commands == STORE_REQUEST
    assert data == (folder / "image").read_bytes()
    assert joined_fragments(b"".join(wire for _, wire in received)) == [commands, data]


# ---- DCMTK accepts ---------------------------------------------------------------------------


def connect(port: int) -> Link:
    """Connect to a server as soon as it listens."""
    end = time.monotonic() + TIMEOUT
    while True:
        try:
            return Link(socket.create_connection((LOCALHOST, port), TIMEOUT))
        except ConnectionRefusedError:
            assert time.monotonic() < end, "nobody listens"
            time.sleep(0.02)


def associate(link: Link, request: AssociateRequest) -> AssociateAccept:
    """Associate; return DCMTK's answer, which repeats a transfer syntax in rejected contexts."""
    link.send(request)
    accept, wire = link.receive()
    assert encode(with_rejected_syntax(accept, IMPLICIT)) == wire
    return accept


def end(link: Link) -> None:
    link.send(ReleaseRequest())
    assert link.receive_to_the_byte() == ReleaseResponse()


def requesting(*contexts: ProposedContext, **fields: Any) -> AssociateRequest:
    information = UserInformation(16384, "1.2.3")
    return AssociateRequest("CALLED", "CALLING", contexts, **{"user_info": information, **fields})


ECHO_CONTEXT = ProposedContext(1, VERIFICATION, (IMPLICIT,))
OFFERS = {
    "one context": requesting(ECHO_CONTEXT),
    "128 contexts": requesting(*(replace(ECHO_CONTEXT, id=n) for n in range(255, 0, -2))),
    "every item": requesting(ECHO_CONTEXT, user_info=IN_A_REQUEST, unknown_items=UNKNOWN_ITEMS),
    "refused contexts": requesting(
        ProposedContext(255, "1.2.3", ("1.2",)),
        ECHO_CONTEXT,
        ProposedContext(3, VERIFICATION, ("1.2.3",)),
    ),
}


@pytest.mark.slow
@needs_dcmtk
@pytest.mark.parametrize("offer", OFFERS)
@pytest.mark.parametrize("server", SERVERS, ids=lambda server: server[0])
def test_a_dcmtk_server_accepts_our_request_and_echoes(
    tmp_path: Path, server: list[str], offer: str
) -> None:
    request = OFFERS[offer]
    with dcmtk_server(tmp_path, *server) as port, connect(port) as link:
        accept = associate(link, request)
        assert (accept.called_ae, accept.calling_ae) == ("CALLED", "CALLING")
        results = {context.id: context.result for context in accept.contexts}
        assert results.keys() == {context.id for context in request.contexts}
        link.send(whole_command(1, echo_request(1)))
        assert link.receive_to_the_byte() == whole_command(1, echo_response(1))
        end(link)


@needs_dcmtk
def test_storescp_answers_our_roles_and_extended_negotiation(folder: Path) -> None:
    contexts = ECHO_CONTEXT, replace(ECHO_CONTEXT, id=3, abstract_syntax=SECONDARY_CAPTURE)
    with (
        dcmtk_server(folder, *STORESCP, "-xf", "profile", "Profile") as port,
        connect(port) as link,
    ):
        accept = associate(link, requesting(*contexts, user_info=IN_A_REQUEST))
        end(link)
    assert accept.user_info.extended == IN_A_REQUEST.extended
    assert set(accept.user_info.roles) == set(IN_A_REQUEST.roles)


@pytest.fixture(scope="module")
def storescp(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with dcmtk_server(tmp_path_factory.mktemp("storescp"), *STORESCP) as port:
        yield port


@pytest.mark.slow
@needs_dcmtk
@settings(deadline=None)  # the server may still be starting
@given(request=my.requests)
def test_storescp_understands_any_strict_request(storescp: int, request: AssociateRequest) -> None:
    request = replace(
        request,
        application_context="1.2.840.10008.3.1.1.1",
        protocol_version=request.protocol_version | 1,
    )
    with connect(storescp) as link:
        accept = associate(link, request)
        end(link)
    assert (accept.called_ae, accept.calling_ae) == (request.called_ae, request.calling_ae)
    assert {context.id for context in accept.contexts} == {
        context.id for context in request.contexts
    }


@needs_dcmtk
@pytest.mark.parametrize("size", [2, 1000, 16366])
def test_storescp_stores_our_data_set_from_fragments_of_each_size(folder: Path, size: int) -> None:
    image = (folder / "image").read_bytes()
    pdvs = [PDV(1, True, True, STORE_REQUEST)]
    for place in range(0, len(image), size):
        pdvs.append(PDV(1, False, place + size >= len(image), image[place : place + size]))
    with dcmtk_server(folder, *STORESCP, "+B") as port, connect(port) as link:
        associate(link, requesting(replace(ECHO_CONTEXT, abstract_syntax=SECONDARY_CAPTURE)))
        # Two in a PDU: DCMTK misplaces a third one if the first two differ in length.
        for place in range(0, len(pdvs), 2):
            link.send(DataTransfer(tuple(pdvs[place : place + 2])))
        assert link.receive_to_the_byte() == whole_command(1, STORE_RESPONSE)
        end(link)
    (stored,) = folder.glob("SC*")
    assert stored.read_bytes().endswith(image)
