"""No fast rejection is lost or misreported, with every face as requestor and as acceptor.

`LTDIC_REJECTIONS=100000 pytest -s tests/system/test_rejections.py` sends so many, and prints more.
"""

from __future__ import annotations

import importlib.util
import os
import socket
from types import ModuleType
from typing import Any

import pytest

import ltdic
from ltdic import _connecting, requestor
from support.paths import ROOT

pytestmark = pytest.mark.slow

COUNT = int(os.environ.get("LTDIC_REJECTIONS", "1000"))


def load() -> ModuleType:
    """Load the benchmark, which has the requestors and acceptors."""
    spec = importlib.util.spec_from_file_location("rejections", ROOT / "bench" / "rejections.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


bench = load()
FACES = [name for name in bench.REQUESTORS if name != "pynetdicom"]


def all_are_reported(acceptor: str, requestor: str) -> None:
    [row] = bench.measure(acceptor, {requestor: COUNT})
    print(f"\n{bench.described(row)}", end="")
    assert row["as"] == {"rejected": COUNT}
    assert (row["rejected"], row["lost"], row["misreported"]) == (COUNT, 0, 0)


@pytest.mark.parametrize("requestor", FACES)
@pytest.mark.parametrize("acceptor", bench.RAW)
def test_each_rejection_by_an_acceptor_that_closes_at_once_is_reported(
    acceptor: str, requestor: str
) -> None:
    all_are_reported(acceptor, requestor)


@pytest.mark.parametrize("acceptor", bench.OURS)
def test_each_rejection_by_an_acceptor_of_ours_is_reported(acceptor: str) -> None:
    all_are_reported(acceptor, "ltdic.connect")


@pytest.mark.parametrize("timeout", [None, 10.0])
def test_no_requestor_blocks_in_connect(
    monkeypatch: pytest.MonkeyPatch, timeout: float | None
) -> None:
    """While a socket connects, a reset makes Linux drop the rejection before it."""
    blocking: list[bool] = []

    def dial(*how: Any) -> socket.socket:
        connection = _connecting.dial(*how)
        blocking.append(os.get_blocking(connection.fileno()))
        return connection

    monkeypatch.setattr(requestor, "dial", dial)
    with (
        bench.acceptor("reset, unread") as port,
        pytest.raises(ltdic.AssociationRejected),
    ):
        ltdic.connect("127.0.0.1", port, timeout=timeout)
    assert blocking == [False]
