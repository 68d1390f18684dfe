"""No requestor of ltdic loses or misreports a rejection, however fast the connection ends.

`python tests/system/fast_rejections.py --count N` runs as many as wanted.
"""

from __future__ import annotations

import os

import fast_rejections
import pytest

import ltdic
from ltdic._native.requestor import Link

pytestmark = pytest.mark.slow

COUNT = 500
FACES = [name for name in fast_rejections.REQUESTORS if name != "pynetdicom"]


def all_are_reported(acceptor: str, requestor: str, count: int = COUNT) -> None:
    [row] = fast_rejections.measure(acceptor, {requestor: count})
    assert row["as"] == {"rejected": count}
    assert (row["rejected"], row["lost"], row["misreported"]) == (count, 0, 0)


@pytest.mark.parametrize("requestor", FACES)
@pytest.mark.parametrize("acceptor", fast_rejections.RAW)
def test_each_rejection_by_an_acceptor_that_closes_at_once_is_reported(
    acceptor: str, requestor: str
) -> None:
    all_are_reported(acceptor, requestor)


@pytest.mark.parametrize("requestor", ["ltdic.connect", "ltdic.aio.connect"])
@pytest.mark.parametrize("acceptor", fast_rejections.TLS)
def test_each_rejection_over_tls_is_reported(acceptor: str, requestor: str) -> None:
    all_are_reported(acceptor, requestor, COUNT // 5)


@pytest.mark.parametrize("acceptor", fast_rejections.OURS)
def test_each_rejection_by_an_acceptor_of_ours_is_reported(acceptor: str) -> None:
    all_are_reported(acceptor, "ltdic.connect")


@pytest.mark.parametrize("timeout", [None, 10.0])
def test_no_requestor_blocks_in_connect(
    monkeypatch: pytest.MonkeyPatch, timeout: float | None
) -> None:
    """While a socket connects, a reset makes Linux drop the rejection before it."""
    blocking: list[bool] = []
    send = Link.send

    def watched(link: Link, pdu: bytes) -> int:
        status = send(link, pdu)
        blocking.append(link.descriptor >= 0 and os.get_blocking(link.descriptor))
        return status

    monkeypatch.setattr(Link, "send", watched)
    with (
        fast_rejections.acceptor("reset, unread") as (port, _),
        pytest.raises(ltdic.AssociationRejected),
    ):
        ltdic.connect("127.0.0.1", port, timeout=timeout)
    assert set(blocking) == {False}
