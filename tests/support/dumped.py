"""PDUs for `ltdic dump`."""

from __future__ import annotations

from ltdic import (
    AssociateReject,
    AssociateRequest,
    ProposedContext,
    UserIdentity,
    UserInformation,
    encode,
)

REJECT = encode(AssociateReject(1, 1, 7))
SECRET = AssociateRequest(
    "A~[2J",
    "B",
    (ProposedContext(1, "1.2.840.10008.1.1", ("1.2.840.10008.1.2",)),),
    user_info=UserInformation(
        max_length=16384,
        implementation_class_uid="1.2.3",
        user_identity=UserIdentity(2, 1, b"jdoe", b"hunter2"),
    ),
)
