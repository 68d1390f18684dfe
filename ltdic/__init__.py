"""The DICOM Upper Layer (PS3.8): codec, associations, and the L_Dicom API.

`ltdic.decode`, `ltdic.encode` and `ltdic.Decoder` convert between bytes and PDUs. `ltdic.connect`
opens associations and `ltdic.Server` serves them; `ltdic.aio` has both for asyncio.
`ltdic.Association` is an association without a transport. `ltdic.l_dicom` has the association part
of the documented C API under its own names.
"""

from pathlib import Path

from . import aio
from ._codec import Decoder, decode, decode_rejects, encode
from ._ffi import ffi, lib
from ._native import codec
from .admission import ANY, Admission
from .association import Association, Closed, Echo, Fault, NegotiatedContext
from .counters import Counters, Record, Stranger
from .errors import (
    AssociationAborted,
    AssociationRejected,
    AssociationTimeout,
    ConnectionClosed,
    ConnectionFailed,
    DecodeError,
    Error,
    IncompleteError,
    LocalError,
)
from .pdu import (
    PDU,
    PDV,
    Abort,
    AcseReason,
    AssociateAccept,
    AssociateReject,
    AssociateRequest,
    AsyncOperations,
    CommonExtendedNegotiation,
    ContextResult,
    DataTransfer,
    ExtendedNegotiation,
    Fragment,
    PresentationReason,
    ProposedContext,
    RejectResult,
    RejectSource,
    ReleaseRequest,
    ReleaseResponse,
    RoleSelection,
    UnknownItem,
    UserIdentity,
    UserIdentityResponse,
    UserInformation,
    UserReason,
)
from .requestor import SyncAssociation, connect
from .retry import Retry
from .server import ServedAssociation, Server

__version__ = codec.VERSION

__all__ = [
    "ANY",
    "PDU",
    "PDV",
    "Abort",
    "AcseReason",
    "Admission",
    "AssociateAccept",
    "AssociateReject",
    "AssociateRequest",
    "Association",
    "AssociationAborted",
    "AssociationRejected",
    "AssociationTimeout",
    "AsyncOperations",
    "Closed",
    "CommonExtendedNegotiation",
    "ConnectionClosed",
    "ConnectionFailed",
    "ContextResult",
    "Counters",
    "DataTransfer",
    "DecodeError",
    "Decoder",
    "Echo",
    "Error",
    "ExtendedNegotiation",
    "Fault",
    "Fragment",
    "IncompleteError",
    "LocalError",
    "NegotiatedContext",
    "PresentationReason",
    "ProposedContext",
    "Record",
    "RejectResult",
    "RejectSource",
    "ReleaseRequest",
    "ReleaseResponse",
    "Retry",
    "RoleSelection",
    "ServedAssociation",
    "Server",
    "Stranger",
    "SyncAssociation",
    "UnknownItem",
    "UserIdentity",
    "UserIdentityResponse",
    "UserInformation",
    "UserReason",
    "__version__",
    "aio",
    "connect",
    "decode",
    "decode_rejects",
    "encode",
    "ffi",
    "get_include",
    "get_sources",
    "lib",
]


def get_include() -> str:
    """Return the folder that contains `ltdic.h`."""
    here = Path(__file__).resolve().parent
    installed = here / "include"
    return str(installed if installed.is_dir() else here.parent / "csrc")


def get_sources() -> list[str]:
    """Return the C files of the library. Compile them with `-I` and the path of `get_include()`;
    nothing else is needed."""
    return sorted(str(path) for path in Path(get_include()).glob("*/*.c"))
