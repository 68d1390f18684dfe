"""Associations without a transport: what one has to send is what the other receives."""

from __future__ import annotations

from typing import Any

from ltdic import AssociateAccept, AssociateRequest, Association


def told(association: Association, wire: bytes = b"") -> list[Any]:
    """The events of an association that has received these bytes."""
    association.receive_data(wire)
    return list(association.events())


def carried(one: Association, other: Association) -> list[Any]:
    """The events of the other, which receives all that the one has to send."""
    return told(other, one.data_to_send())


def associate(
    request: AssociateRequest, accept: AssociateAccept, **options: Any
) -> tuple[Association, Association]:
    """A requestor that has sent this request and an acceptor that has answered it with `accept`."""
    requestor = Association(requestor=True, **options)
    acceptor = Association(requestor=False, **options)
    requestor.send(request)
    carried(requestor, acceptor)
    acceptor.send(accept)
    carried(acceptor, requestor)
    assert requestor.established
    assert acceptor.established
    return requestor, acceptor
