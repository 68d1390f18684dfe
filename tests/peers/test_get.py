"""C-GET (PS3.4 C.4.3): both roles on one association, with C-STORE in the other direction."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.dataset import FileMetaDataset
from pynetdicom import AE, build_role, evt
from pynetdicom.dsutils import decode as decode_data_set
from pynetdicom.dsutils import encode as encode_data_set

import ltdic
from ltdic import PDV, Admission, AssociateAccept, aio
from support.commands import command_set, elements_of
from support.dcmtk import DCMQRSCP, dcmtk_server, needs_dcmtk
from support.hosts import Host, Serve
from support.sockets import LISTENING, LOCALHOST, TIMEOUT
from support.toolchain import run
from support.uids import CT, EXPLICIT, IMPLICIT, MR

GET = "1.2.840.10008.5.1.4.1.2.2.3"  # Study Root
STUDY = "1.2.826.0.1.3680043.8.498.1"

STORE_RQ, STORE_RSP, GET_RQ, GET_RSP = 0x0001, 0x8001, 0x0010, 0x8010
NO_DATA_SET, DATA_SET = 0x0101, 0x0000
SUCCESS, PENDING, FAILED = 0x0000, 0xFF00, 0xC000


# ---- instances ----------------------------------------------------------------------------------


@cache
def instance(number: int) -> pydicom.Dataset:
    """Return an image; their sizes differ much, and they are of two classes."""
    found = pydicom.Dataset()
    found.SOPClassUID, found.SOPInstanceUID = (CT, MR)[number % 2], f"{STUDY}.1.{number}"
    found.StudyInstanceUID, found.SeriesInstanceUID = STUDY, f"{STUDY}.1"
    found.PatientName, found.PatientID, found.Modality = "GET^TEST", "1", ("CT", "MR")[number % 2]
    found.StudyDate, found.StudyTime, found.AccessionNumber = "20200101", "120000", "1"
    found.StudyID, found.SeriesNumber, found.InstanceNumber = "1", "1", str(number)
    found.SamplesPerPixel, found.PhotometricInterpretation = 1, "MONOCHROME2"
    found.Rows, found.Columns, found.PixelRepresentation = (16, 2048)[number == 2], 1024, 0
    found.BitsAllocated, found.BitsStored, found.HighBit = 8, 8, 7
    found.PixelData = random.Random(number).randbytes(found.Rows * found.Columns)
    found["PixelData"].VR = "OW"
    found.file_meta = FileMetaDataset()
    found.file_meta.TransferSyntaxUID = (EXPLICIT, IMPLICIT)[number % 2]
    return found


COUNT = 4
INSTANCES = [str(instance(number).SOPInstanceUID) for number in range(COUNT)]


def pixels(found: pydicom.Dataset) -> tuple[str, bytes]:
    return str(found.SOPInstanceUID), bytes(found.PixelData)


def check(got: list[pydicom.Dataset]) -> None:
    """Assert that all instances arrived, each with its own pixels."""
    assert sorted(map(pixels, got)) == sorted(pixels(instance(n)) for n in range(COUNT))


def query() -> pydicom.Dataset:
    found = pydicom.Dataset()
    found.QueryRetrieveLevel, found.StudyInstanceUID = "STUDY", STUDY
    return found


def store_request(found: pydicom.Dataset, message: int, explicit: bool) -> tuple[bytes, bytes]:
    """Return the command and the data set of a C-STORE."""
    command = {
        **{0x0002: str(found.SOPClassUID), 0x0100: STORE_RQ, 0x0110: message},
        **{0x0700: 0, 0x0800: DATA_SET, 0x1000: str(found.SOPInstanceUID)},
    }
    data = encode_data_set(found, not explicit, True)
    assert data is not None
    return command_set(command), data


def number_in(command: dict[int, bytes], element: int) -> int:
    return int.from_bytes(command[element], "little")


def uid_in(command: dict[int, bytes], element: int) -> str:
    return command[element].rstrip(b"\0").decode()


# ---- our server ---------------------------------------------------------------------------------


@dataclass
class State:
    """The state of one C-GET on one association."""

    parts: list[bytes] = field(default_factory=list)
    context: int = 0
    message: int = 0
    left: list[int] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)


class Scp:
    """A C-GET SCP that sends all instances to every requestor."""

    def __init__(self) -> None:
        self.asked: list[pydicom.Dataset] = []
        self.statuses: list[int] = []

    def accept(self, association: Any) -> AssociateAccept:
        """Accept the proposed roles."""
        accept, request = association.accept, association.request
        accept = replace(accept, user_info=replace(accept.user_info, roles=request.user_info.roles))
        assert isinstance(accept, AssociateAccept)
        return accept

    def handle(self, association: Any, pdv: PDV) -> Iterator[Any]:
        state = association.user_data = association.user_data or State()
        state.parts.append(bytes(pdv.data))
        if pdv.is_last:
            data, state.parts = b"".join(state.parts), []
            if pdv.is_command:
                yield from self.take_command(association, state, pdv.context_id, elements_of(data))
            else:
                self.asked.append(decode_data_set(BytesIO(data), True, True))
                state.left = list(range(COUNT))
                yield from self.go_on(association, state)

    def take_command(
        self, association: Any, state: State, context: int, command: dict[int, bytes]
    ) -> Iterator[Any]:
        if number_in(command, 0x0100) == GET_RQ:
            state.context, state.message = context, number_in(command, 0x0110)
        else:
            assert number_in(command, 0x0100) == STORE_RSP
            state.statuses.append(number_in(command, 0x0900))
            yield from self.go_on(association, state)

    def go_on(self, association: Any, state: State) -> Iterator[Any]:
        """Send a pending response and the next instance, or the final response."""
        if not state.left:
            self.statuses += state.statuses
            yield self.respond(association, state, SUCCESS)
            return
        if state.statuses:
            yield self.respond(association, state, PENDING)
        found = instance(state.left.pop(0))
        context = next(
            c for c in association.contexts if c.accepted and c.abstract_syntax == found.SOPClassUID
        )
        explicit = context.transfer_syntax == EXPLICIT
        request, data = store_request(found, len(state.left) + 7, explicit)
        yield association.send(request, context=context.id, is_command=True)
        yield association.send(data, context=context.id)

    def respond(self, association: Any, state: State, status: int) -> Any:
        failed = sum(status != SUCCESS for status in state.statuses)
        done = len(state.statuses) - failed
        numbers = {0x1020: len(state.left), 0x1021: done, 0x1022: failed, 0x1023: 0}
        if status != PENDING:
            del numbers[0x1020]
        response = {0x0002: GET, 0x0100: GET_RSP, 0x0120: state.message, 0x0800: NO_DATA_SET}
        command = command_set({**response, 0x0900: status, **numbers})
        return association.send(command, context=state.context, is_command=True)


@contextmanager
def scp(serve: Serve) -> Iterator[tuple[Scp, Host]]:
    provider = Scp()
    contexts = [GET, (CT, [EXPLICIT, IMPLICIT]), (MR, [IMPLICIT, EXPLICIT])]
    admission = Admission(contexts=contexts, on_request=provider.accept)
    with serve(admission=admission, handler=provider.handle) as host:
        yield provider, host


def check_end(provider: Scp, host: Host) -> None:
    record = host.end()[1]
    assert record.outcome == "released"
    assert [found.StudyInstanceUID for found in provider.asked] == [STUDY]
    assert provider.statuses == [SUCCESS] * COUNT


# ---- our requestor ------------------------------------------------------------------------------

Steps = Generator[Any, Any, tuple[list[pydicom.Dataset], list[dict[int, bytes]]]]


def get(association: Any) -> Steps:
    """Run a C-GET; return the instances and the responses."""
    request = {0x0002: GET, 0x0100: GET_RQ, 0x0110: 5, 0x0700: 0, 0x0800: DATA_SET}
    yield association.send(command_set(request), context=GET, is_command=True)
    yield association.send(encode_data_set(query(), True, True), context=GET)
    got: list[pydicom.Dataset] = []
    responses: list[dict[int, bytes]] = []
    while not responses or number_in(responses[-1], 0x0900) == PENDING:
        pdv = yield association.receive()
        assert pdv.is_command
        command = elements_of(pdv.data)
        if number_in(command, 0x0100) == GET_RSP:
            assert number_in(command, 0x0120) == 5
            responses.append(command)
        else:
            got.append((yield from take_instance(association, pdv.context_id, command)))
    return got, responses


def take_instance(
    association: Any, context_id: int, command: dict[int, bytes]
) -> Generator[Any, Any, pydicom.Dataset]:
    assert number_in(command, 0x0100) == STORE_RQ
    pdv = yield association.receive()
    assert (pdv.context_id, pdv.is_command) == (context_id, False)
    context = next(c for c in association.contexts if c.id == context_id)
    assert context.abstract_syntax == uid_in(command, 0x0002)
    found = decode_data_set(BytesIO(pdv.data), context.transfer_syntax == IMPLICIT, True)
    assert found.SOPInstanceUID == uid_in(command, 0x1000)
    response = {
        **{0x0002: uid_in(command, 0x0002), 0x0100: STORE_RSP, 0x0800: NO_DATA_SET},
        **{0x0120: number_in(command, 0x0110), 0x0900: SUCCESS, 0x1000: uid_in(command, 0x1000)},
    }
    yield association.send(command_set(response), context=context_id, is_command=True)
    return found


ROLES = {CT: (False, True), "MRImageStorage": (False, True)}


def get_blocking(port: int, **options: Any) -> Any:
    with ltdic.connect(LOCALHOST, port, roles=ROLES, timeout=TIMEOUT, **options) as association:
        steps, result = get(association), None
        try:
            while True:
                result = steps.send(result)
        except StopIteration as e:
            return (*e.value, association.accept)


def get_in_asyncio(port: int, **options: Any) -> Any:
    async def work() -> Any:
        connecting = aio.connect(LOCALHOST, port, roles=ROLES, timeout=TIMEOUT, **options)
        async with connecting as association:
            steps, result = get(association), None
            try:
                while True:
                    result = await steps.send(result)
            except StopIteration as e:
                return (*e.value, association.accept)

    return asyncio.run(work())


each_requestor = pytest.mark.parametrize(
    "requestor", [get_blocking, get_in_asyncio], ids=["blocking", "asyncio"]
)
CONTEXTS = [(GET, [IMPLICIT]), (CT, [EXPLICIT]), "MRImageStorage"]


def check_numbers(responses: list[dict[int, bytes]]) -> None:
    """Assert that the last response has the number of instances."""
    assert number_in(responses[-1], 0x0900) == SUCCESS
    assert number_in(responses[-1], 0x1021) == COUNT
    assert number_in(responses[-1], 0x1022) == 0


def check_roles(accept: AssociateAccept) -> None:
    assert accept.user_info is not None
    found = {role.sop_class_uid: (role.scu, role.scp) for role in accept.user_info.roles}
    assert found == {CT: (0, 1), MR: (0, 1)}


# ---- our server is asked ------------------------------------------------------------------------


@each_requestor
def test_our_requestor_gets_from_our_server(serve: Serve, requestor: Callable[..., Any]) -> None:
    with scp(serve) as (provider, host):
        got, responses, accept = requestor(host.server.address[1], contexts=CONTEXTS)
        check_end(provider, host)
    check(got)
    check_numbers(responses)
    check_roles(accept)
    pending = [(number_in(r, 0x1020), number_in(r, 0x1021)) for r in responses[:-1]]
    assert pending == [(COUNT - done, done) for done in range(1, COUNT)]


@pytest.mark.slow
@needs_dcmtk
@pytest.mark.parametrize("option", ["+x=", "+xe", "+xi"])
def test_getscu_gets_from_our_server(serve: Serve, option: str, tmp_path: Path) -> None:
    keys = ["-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={STUDY}"]
    where = ["-aec", "HERE", "-aet", "THERE", "-od", tmp_path]
    with scp(serve) as (provider, host):
        port = str(host.server.address[1])
        run("getscu", "-v", "-S", option, *keys, *where, "localhost", port, timeout=6 * TIMEOUT)
        check_end(provider, host)
    check([pydicom.dcmread(path) for path in tmp_path.iterdir()])


def test_pynetdicom_gets_from_our_server(serve: Serve) -> None:
    got: list[pydicom.Dataset] = []

    def on_store(event: Any) -> int:
        got.append(event.dataset)
        return SUCCESS

    ae = AE(ae_title="THERE")
    ae.acse_timeout = ae.network_timeout = ae.dimse_timeout = TIMEOUT
    ae.add_requested_context(GET, IMPLICIT)
    for storage in (CT, MR):
        ae.add_requested_context(storage, [EXPLICIT, IMPLICIT])
    roles = [build_role(storage, scp_role=True) for storage in (CT, MR)]
    with scp(serve) as (provider, host):
        association = ae.associate(
            *host.server.address, ext_neg=roles, evt_handlers=[(evt.EVT_C_STORE, on_store)]
        )
        assert association.is_established
        statuses = [status for status, _ in association.send_c_get(query(), GET)]
        association.release()
        check_end(provider, host)
    check(got)
    assert [status.Status for status in statuses] == [*[PENDING] * (COUNT - 1), SUCCESS]
    assert statuses[-1].NumberOfCompletedSuboperations == COUNT


def test_an_unanswered_role_is_not_agreed(serve: Serve) -> None:
    """The admission answers no roles; then the default roles apply (PS3.7 D.3.3.4)."""
    with serve(admission=Admission(contexts=[GET, CT, MR])) as host:
        contexts = [GET, CT]
        with ltdic.connect(*host.server.address, contexts=contexts, roles={CT: (0, 1)}) as found:
            assert found.accept.user_info is not None
            assert found.accept.user_info.roles == ()
            assert found.request.user_info is not None
            assert len(found.request.user_info.roles) == 1


# ---- our requestor asks others ------------------------------------------------------------------


@pytest.mark.slow
@each_requestor
def test_our_requestor_gets_from_pynetdicom(requestor: Callable[..., Any]) -> None:
    def on_get(event: Any) -> Iterator[Any]:
        assert event.identifier.StudyInstanceUID == STUDY
        yield COUNT
        for number in range(COUNT):
            yield PENDING, instance(number)

    ae = AE(ae_title="HERE")
    ae.acse_timeout = ae.network_timeout = ae.dimse_timeout = TIMEOUT
    ae.add_supported_context(GET, IMPLICIT)
    for storage, syntax in ((CT, EXPLICIT), (MR, IMPLICIT)):
        ae.add_supported_context(storage, syntax, scu_role=True, scp_role=True)
    server = ae.start_server((LOCALHOST, 0), block=False, evt_handlers=[(evt.EVT_C_GET, on_get)])
    try:
        port = server.server_address[1]
        got, responses, accept = requestor(port, contexts=CONTEXTS, called_ae="HERE")
    finally:
        server.shutdown()
    check(got)
    check_numbers(responses)
    check_roles(accept)


def store_all(port: int) -> None:
    contexts = [(CT, [EXPLICIT]), (MR, [EXPLICIT])]
    options: Any = {"called_ae": "CALLED", "contexts": contexts, "retry": LISTENING}
    with ltdic.connect(LOCALHOST, port, **options) as association:
        for number in range(COUNT):
            request, data = store_request(instance(number), number, explicit=True)
            storage = str(instance(number).SOPClassUID)
            association.send(request, context=storage, is_command=True)
            association.send(data, context=storage)
            pdv = association.receive()
            assert pdv is not None
            assert number_in(elements_of(bytes(pdv.data)), 0x0900) == SUCCESS


@pytest.mark.slow
@needs_dcmtk
@each_requestor
def test_our_requestor_gets_from_dcmqrscp(requestor: Callable[..., Any], tmp_path: Path) -> None:
    with dcmtk_server(tmp_path, *DCMQRSCP) as port:
        store_all(port)
        options: Any = {"called_ae": "CALLED", "contexts": CONTEXTS, "retry": LISTENING}
        got, responses, accept = requestor(port, **options)
    check(got)
    check_numbers(responses)
    check_roles(accept)
