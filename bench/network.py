"""Cases over loopback: the acceptor has one core, the requestor another."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from harness import Contenders, Measure, Usage, Watched, case, figure
from programs import Acceptor, Requestor, here

FLOOR = "floor C"
SERVERS = (
    FLOOR,
    "ltdic C",
    "ltdic Server",
    "ltdic aio.Server",
    "floor asyncio",
    "pynetdicom",
    "DCMTK",
    "dicom-rs",
)
CLIENTS = (
    FLOOR,
    "ltdic C",
    "ltdic l_dicom",
    "ltdic connect",
    "ltdic aio.connect",
    "floor asyncio",
    "pynetdicom",
    "DCMTK",
    "dicom-rs",
)
PAIRS = {
    FLOOR: (FLOOR, FLOOR),
    "ltdic C": ("ltdic C", "ltdic C"),
    "ltdic Server, connect": ("ltdic Server", "ltdic connect"),
    "ltdic aio": ("ltdic aio.Server", "ltdic aio.connect"),
    "floor asyncio": ("floor asyncio", "floor asyncio"),
    "pynetdicom": ("pynetdicom", "pynetdicom"),
    "DCMTK": ("DCMTK", "DCMTK"),
    "dicom-rs": ("dicom-rs", "dicom-rs"),
}


DECIDING = ("ltdic Server, on_request", "ltdic Server, inline", "ltdic aio.Server, on_request")


def _pairs(mode: str, role: str) -> dict[str, tuple[str, str]]:
    """The acceptor and the requestor that measure each contender in this role."""
    if role == "with itself":
        return PAIRS
    if role == "requestors":
        return {who: (FLOOR, who) for who in CLIENTS}
    return {who: (who, FLOOR) for who in SERVERS + (DECIDING if mode == "reject" else ())}


def _usage(role: str, acceptor: Acceptor, requestor: Requestor) -> Callable[[], Usage]:
    """What the measured processes use."""
    if role == "acceptors":
        return acceptor.usage
    if role == "requestors":
        return requestor.usage
    return lambda: Usage(*map(sum, zip(acceptor.usage(), requestor.usage(), strict=True)))


# ---- associations ----------------------------------------------------------------------------


def _ask(requestor: Requestor, mode: str, port: int, at_once: int, count: int) -> int:
    return requestor.ask(mode, port, count, at_once)


def _associations(mode: str, role: str, at_once: int) -> Contenders:
    for who, (acceptor, requestor) in _pairs(mode, role).items():
        if here(acceptor, requestor):
            accepts, asks = Acceptor(acceptor, mode), Requestor(requestor)
            timed = partial(_ask, asks, mode, accepts.port, at_once)
            yield who, Watched(timed, _usage(role, accepts, asks))


def _register_associations(mode: str, what: str) -> None:
    for role in ("acceptors", "requestors", "with itself"):
        for at_once, times in ((1, "one by one"), (64, "64 at once")):

            def contenders(role: str = role, at_once: int = at_once) -> Contenders:
                return _associations(mode, role, at_once)

            case(f"{what} association, {times}: {role}", seconds=0.04)(contenders)


_register_associations("reject", "rejected")
_register_associations("echo", "echoed")


def _latencies() -> Contenders:
    for who, (acceptor, requestor) in PAIRS.items():
        if here(acceptor, requestor):
            port = Acceptor(acceptor, "echo").port
            yield who, partial(_ask, Requestor(requestor), "latency", port, 1)


case("echo on an open association: with itself", seconds=0.1)(_latencies)


# ---- bulk data -------------------------------------------------------------------------------


def _send(requestor: Requestor, port: int, size: int, at_once: int, count: int) -> int:
    return requestor.ask("send", port, count << 20, at_once, size)


def _bulk(role: str, size: int, at_once: int) -> Contenders:
    """Each association sends or receives `count` MiB."""
    for who, (acceptor, requestor) in _pairs("receive", role).items():
        if here(acceptor, requestor):
            accepts, asks = Acceptor(acceptor, "receive", size), Requestor(requestor)
            timed = partial(_send, asks, accepts.port, size, at_once)
            yield who, Watched(timed, _usage(role, accepts, asks))


def _register_bulk(role: str, verb: str) -> None:
    for size, kib in ((16384, 16), (131072, 128)):
        for at_once, many in ((1, "one association"), (8, "eight associations")):

            def contenders(size: int = size, at_once: int = at_once) -> Contenders:
                return _bulk(role, size, at_once)

            name = f"{verb} 1 MiB in P-DATA-TF of {kib} KiB, {many}"
            case(name, seconds=0.05, unit_bytes=1 << 20, units=at_once)(contenders)


_register_bulk("acceptors", "receive")
_register_bulk("requestors", "send")


# ---- TLS 1.3 ---------------------------------------------------------------------------------

SECURED = ("floor C", "ltdic C", "ltdic Server", "ltdic aio.Server")
"""Those that accept over TLS; `ltdic C` with ltdic_openssl."""


def _secured(mode: str, size: int = 0) -> Iterator[tuple[str, Acceptor, Requestor]]:
    for who in SECURED:
        if here(f"{who}, TLS"):
            accepts = Acceptor(f"{who}, TLS", mode, *([size] if size else []))
            yield who, accepts, Requestor(f"{FLOOR}, TLS")


@case("rejected association over TLS, 64 at once: acceptors", seconds=0.1)
def secured_rejections() -> Contenders:
    """With a whole handshake each."""
    for who, accepts, asks in _secured("reject"):
        yield who, Watched(partial(_ask, asks, "reject", accepts.port, 64), accepts.usage)


def _register_secured_bulk(size: int) -> None:
    def contenders() -> Contenders:
        for who, accepts, asks in _secured("receive", size):
            yield who, Watched(partial(_send, asks, accepts.port, size, 1), accepts.usage)

    name = f"receive 1 MiB over TLS in P-DATA-TF of {size >> 10} KiB, one association"
    case(name, seconds=0.1, unit_bytes=1 << 20)(contenders)


_register_secured_bulk(16384)
_register_secured_bulk(131072)


# ---- memory ----------------------------------------------------------------------------------


def _one(value: float, unit: str) -> Measure:
    return Measure(value, value, value, unit=unit)


@figure("memory to receive 1 GiB")
def memory() -> Iterator[tuple[str, Measure]]:
    """The highest memory of the acceptor, and its increase over the memory before."""
    for who in SERVERS:
        if here(who, FLOOR):
            acceptor, ask = Acceptor(who, "receive", 131072), Requestor(FLOOR).ask
            ask("send", acceptor.port, 1 << 20, 1, 131072)
            idle = acceptor.memory("VmRSS")
            acceptor.forget_peak()
            ask("send", acceptor.port, 1 << 30, 1, 131072)
            most = acceptor.memory("VmHWM")
            yield who, _one(most / 1024, "KiB")
            yield f"{who}, beyond idle", _one(max(0, most - idle) / 1024, "KiB")


OPEN = (1, 10, 100, 1000, 10_000)


@figure("memory of an open idle association")
def idle_memory() -> Iterator[tuple[str, Measure]]:
    """Memory of the acceptor's process for each of 10,000 associations."""
    for who in (FLOOR, "ltdic C", "ltdic Server", "ltdic aio.Server"):
        if here(who, FLOOR):
            acceptor, ask = Acceptor(who, "echo"), Requestor(FLOOR).ask
            ask("echo", acceptor.port, 100)
            before = acceptor.memory("VmRSS")
            ask("open", acceptor.port, OPEN[-1])
            each = (acceptor.memory("VmRSS") - before) / OPEN[-1]
            yield who, _one(each, "B")


# ---- growth ----------------------------------------------------------------------------------


def _beside(count: int, who: str) -> Callable[[int], int]:
    """Echoed associations, one by one, while `count` others are open and idle."""
    acceptor = Acceptor(who, "echo")
    Requestor(FLOOR).ask("open", acceptor.port, count)
    ask = Requestor(FLOOR).ask
    return lambda times: ask("echo", acceptor.port, times)


@case("echoed association, beside open ones: ltdic C", seconds=0.1)
def beside_open() -> Contenders:
    for count in OPEN:
        if here(FLOOR, "ltdic C"):
            yield str(count), _beside(count, "ltdic C")
