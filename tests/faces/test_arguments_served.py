"""Arguments of a connection, a server and an association over loopback: a call works or raises a
documented error."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import ssl
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ltdic
from ltdic import PDV, Admission, aio
from support.odd import ALLOWED, called, odd, released
from support.sockets import LOCALHOST, TIMEOUT
from support.uids import CT

OPEN = Admission(contexts=ltdic.ANY)
few = settings(max_examples=40)


def good_options(function: Any, **given: Any) -> dict[str, Any]:
    """Return the arguments of a function by name: the given ones, and the defaults."""
    parameters = inspect.signature(function).parameters.values()
    found = {p.name: p.default for p in parameters if p.default is not p.empty}
    return found | given


# ---- servers ---------------------------------------------------------------------------------


@few
@given(st.data())
def test_a_server_is_made_or_raises_a_documented_error(data: st.DataObject) -> None:
    options = good_options(ltdic.Server.__init__, timeout=1.0)
    made, server = called(data, ltdic.Server, (LOCALHOST, 0), **options)
    if made:
        with contextlib.suppress(*ALLOWED), server:
            server.serve(0.001)


@few
@given(st.data())
def test_a_server_of_asyncio_is_made_or_raises_a_documented_error(data: st.DataObject) -> None:
    async def serve() -> None:
        options = good_options(aio.Server.__init__, timeout=1.0)
        made, server = called(data, aio.Server, (LOCALHOST, 0), **options)
        if made:
            with contextlib.suppress(*ALLOWED):
                async with server:
                    await server.serve(0.001)

    asyncio.run(serve())


ADDRESSES = ["host", 5, None, (), ("host",), (5, 0), (b"127.0.0.1", 0), (None, 0)]
ADDRESSES += [(LOCALHOST, "0"), (LOCALHOST, 0.5), (LOCALHOST, 0, 0), ([], 0)]


@pytest.mark.parametrize("server", [ltdic.Server, aio.Server])
@pytest.mark.parametrize("address", ADDRESSES, ids=repr)
def test_an_address_of_a_wrong_type_is_a_type_error(server: Any, address: Any) -> None:
    with pytest.raises(TypeError):
        server(address)


@pytest.mark.parametrize("server", [ltdic.Server, aio.Server])
@pytest.mark.parametrize("name", ["admission", "handler", "on_end", "max_connections", "tls"])
def test_an_argument_of_a_server_of_a_wrong_type_is_named(server: Any, name: str) -> None:
    if name in inspect.signature(server).parameters:
        with pytest.raises(TypeError, match=f"^{name}: "):
            server((LOCALHOST, 0), **{name: "text"})


async def coroutine(*_: Any) -> None:
    pass


def generator(*_: Any) -> Iterator[None]:
    yield


class Callable_:
    async def __call__(self, *_: Any) -> None:
        pass


@pytest.mark.parametrize(
    "function", [coroutine, generator, functools.partial(coroutine, 1), Callable_()]
)
def test_a_function_that_would_never_run_is_refused(function: Any) -> None:
    asks = Admission(contexts=ltdic.ANY, on_request=function)
    good: dict[str, Any] = {"admission": OPEN, "handler": lambda *_: None}
    bad = {"handler": function, "on_end": function, "on_request": asks}
    for name, value in bad.items():
        options = good | {"admission" if name == "on_request" else name: value}
        with pytest.raises(TypeError, match=f"^{name}: "):
            ltdic.Server((LOCALHOST, 0), **options)
    with ltdic.Server((LOCALHOST, 0), **good) as server:
        with pytest.raises(TypeError, match=r"^on_request: "):
            server.admission = asks
        assert server.admission is OPEN
        with pytest.raises(TypeError, match=r"^until: "):
            server.serve(function)


@pytest.mark.parametrize("value", [5, "text", None])
def test_setting_a_value_that_is_not_an_admission_is_a_type_error(value: Any) -> None:
    with (
        ltdic.Server((LOCALHOST, 0)) as server,
        pytest.raises(TypeError, match=r"^admission: "),
    ):
        server.admission = value
    with pytest.raises(TypeError, match=r"^admission: "):
        aio.Server((LOCALHOST, 0)).admission = value


@pytest.mark.parametrize("until", ["text", (), object(), 1j])
def test_serve_takes_any_until_or_raises_a_documented_error(until: Any) -> None:
    with ltdic.Server((LOCALHOST, 0)) as server, pytest.raises(TypeError, match=r"^until: "):
        server.serve(until)


# ---- requestors ------------------------------------------------------------------------------


def echo_handler(association: ltdic.ServedAssociation, pdv: PDV) -> None:
    """Send the values of the test in turn."""
    wanted: list[Any] = association.called_ae and SENT
    if pdv.is_last and wanted:
        data, options = wanted.pop()
        try:
            association.send(data, **options)
            OUTCOMES.append(None)
        except BaseException as e:
            OUTCOMES.append(e)
        if association.established:
            association.abort()


SENT: list[Any] = []
OUTCOMES: list[BaseException | None] = []


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with ltdic.Server((LOCALHOST, 0), admission=OPEN, handler=echo_handler, timeout=2.0) as server:
        thread = threading.Thread(target=server.serve)
        thread.start()
        yield server.address[1]
        server.close()
        thread.join(TIMEOUT)


def connect(port: int) -> ltdic.SyncAssociation:
    return ltdic.connect(LOCALHOST, port, contexts=[CT, "Verification"], timeout=5.0)


@few
@given(st.data())
def test_connect_takes_any_argument_or_raises_a_documented_error(
    port: int, data: st.DataObject
) -> None:
    options = good_options(ltdic.connect, timeout=2.0)
    made, association = called(data, ltdic.connect, LOCALHOST, port, **options)
    if made:
        association.abort()


@few
@given(st.data())
def test_connect_of_asyncio_takes_any_argument_or_raises_a_documented_error(
    port: int, data: st.DataObject
) -> None:
    async def connects() -> None:
        options = good_options(aio.connect, timeout=2.0)
        made, connecting = called(data, aio.connect, LOCALHOST, port, **options)
        if made:
            with contextlib.suppress(*ALLOWED):
                await (await connecting).abort()

    asyncio.run(connects())


WRONG = [
    ("host", 5),
    ("host", None),
    ("host", b"127.0.0.1"),
    ("port", "104"),
    ("port", 104.5),
    ("contexts", 5),
    ("contexts", [5]),
    ("max_length", "16384"),
    ("max_length", 16384.5),
    ("tls", "text"),
    ("server_hostname", 5),
    ("local_address", 5),
    ("local_address", ("127.0.0.1",)),
    ("identity", "jdoe"),
    ("roles", 5),
    ("async_ops", 5),
    ("extended", "text"),
    ("common_extended", 5),
    ("request", 5),
    ("retry", 5),
]


async def connect_async(**arguments: Any) -> None:
    await aio.connect(**arguments)


@pytest.mark.parametrize(
    "function", [ltdic.connect, lambda **arguments: asyncio.run(connect_async(**arguments))]
)
@pytest.mark.parametrize(("name", "value"), WRONG)
def test_an_argument_of_connect_of_a_wrong_type_is_a_type_error(
    function: Any, name: str, value: Any
) -> None:
    arguments: dict[str, Any] = {"host": LOCALHOST, "port": 1, name: value}
    if name == "server_hostname":
        arguments["tls"] = ssl.create_default_context()
    with pytest.raises(TypeError):
        function(**arguments)


@few
@given(st.data())
def test_an_association_sends_or_raises_a_documented_error(port: int, data: st.DataObject) -> None:
    association = connect(port)
    try:
        called(data, association.send, b"ab", context=CT, is_command=True)
    finally:
        association.abort()


@few
@given(st.data())
def test_an_association_of_asyncio_sends_or_raises_a_documented_error(
    port: int, data: st.DataObject
) -> None:
    async def sends() -> None:
        association = await aio.connect(LOCALHOST, port, contexts=[CT], timeout=5.0)
        arguments = {"data": b"ab", "context": CT, "is_command": True}
        arguments[data.draw(st.sampled_from(list(arguments)))] = data.draw(odd)
        with contextlib.suppress(*ALLOWED):
            await association.send(**arguments)
        await association.abort()

    asyncio.run(sends())


@few
@given(st.data())
def test_a_served_association_sends_or_raises_a_documented_error(
    port: int, data: st.DataObject
) -> None:
    arguments: dict[str, Any] = {"data": b"ab", "context": CT, "is_command": True}
    arguments[data.draw(st.sampled_from(list(arguments)))] = data.draw(odd)
    SENT.append((arguments.pop("data"), arguments))
    with contextlib.suppress(ltdic.Error), connect(port) as association:
        association.send(b"ab", context=CT, is_command=True)
        association.receive()
    outcome = OUTCOMES.pop()
    assert outcome is None or isinstance(outcome, ALLOWED), repr(outcome)


PIECES = [5, None, "text", released(), [5], ["text"], [released()], [b"a", None]]


@pytest.mark.parametrize("wrong", PIECES, ids=repr)
def test_sending_a_value_that_is_not_bytes_is_a_type_error(port: int, wrong: Any) -> None:
    association = connect(port)
    with pytest.raises((TypeError, ValueError)):
        association.send(wrong, context=CT, is_command=True)
    association.abort()
