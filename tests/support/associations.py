"""Associations without a transport: the bytes of one are given to the other."""

from __future__ import annotations

from typing import Any

from ltdic import AssociateAccept, AssociateRequest, Association


def told(association: Association, wire: bytes = b"") -> list[Any]:
    """Give these bytes to an association; return its events."""
    association.receive_data(wire)
    return list(association.events())


def carried(one: Association, other: Association) -> list[Any]:
    """Give all bytes of `one` to `other`; return the events of `other`."""
    return told(other, one.data_to_send())


def associate(
    request: AssociateRequest, accept: AssociateAccept, **options: Any
) -> tuple[Association, Association]:
    """Return a requestor that has sent this request, and an acceptor that has sent `accept`."""
    requestor = Association(requestor=True, **options)
    acceptor = Association(requestor=False, **options)
    requestor.send(request)
    carried(requestor, acceptor)
    acceptor.send(accept)
    carried(acceptor, requestor)
    assert requestor.established
    assert acceptor.established
    return requestor, acceptor
