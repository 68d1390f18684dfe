"""Servers of `ltdic` and of `ltdic.aio` that serve in a thread."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import ltdic
from ltdic import PDV, Admission, aio
from support.sockets import LOCALHOST
from support.threads import Background, LoopThread
from support.uids import EXPLICIT, IMPLICIT, SECONDARY_CAPTURE, VERIFICATION

SUPPORTED = [VERIFICATION, (SECONDARY_CAPTURE, [IMPLICIT, EXPLICIT])]


@contextmanager
def serving(**options: Any) -> Iterator[ltdic.Server]:
    """A blocking server that serves in a thread."""
    with ltdic.Server((LOCALHOST, 0), **options) as server:
        thread = Background(server.serve)
        try:
            yield server
        finally:
            server.close()
            thread.join()


@contextmanager
def serving_in_asyncio(**options: Any) -> Iterator[aio.Server]:
    """An `aio.Server` whose event loop runs in a thread."""
    server = aio.Server((LOCALHOST, 0), **options)
    with LoopThread() as loop:
        loop.run(server.__aenter__())
        try:
            yield server
        finally:
            loop.run(server.__aexit__(None, None, None))


def of_associations(counters: ltdic.Counters) -> ltdic.Counters:
    """The counters without `connections`, which l_dicom does not count."""
    return replace(counters, connections=0)


ALL = Admission(contexts=SUPPORTED)


async def answer(association: aio.AsyncServedAssociation, pdv: PDV) -> None:
    """Send every command and data set back as it came."""
    parts = association.user_data = association.user_data or []
    parts.append(bytes(pdv.data))
    if pdv.is_last:
        association.user_data = None
        data = b"".join(parts)
        await association.send(data, context=pdv.context_id, is_command=pdv.is_command)
