"""Loopback: addresses, ports, time-outs, and PDUs read from plain sockets."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager

import ltdic

LOCALHOST = "127.0.0.1"
TIMEOUT = 25  # s, for calls that take milliseconds; below 30, the default of ARTIM
# retries until a starting server listens
LISTENING = ltdic.Retry(attempts=20 * TIMEOUT, first=0.05, factor=1)


def has_ipv6() -> bool:
    """Tell whether there is an address ::1; IPv6 sockets may exist without it."""
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


def close_with_reset(connection: socket.socket) -> None:
    """Close so that the peer gets a reset instead of an orderly end."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def receive_pdu(connection: socket.socket) -> bytes:
    """Receive until a PDU is whole or the connection ends; return all received bytes."""
    data = b""
    while len(data) < 6 or len(data) < 6 + int.from_bytes(data[2:6], "big"):
        chunk = connection.recv(65536)
        if not chunk:
            break
        data += chunk
    return data


@contextmanager
def reserved_port() -> Iterator[int]:
    """Yield a port that the system gives to no other, but a server with SO_REUSEADDR can use."""
    with socket.socket() as reservation:
        reservation.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reservation.bind((LOCALHOST, 0))
        yield reservation.getsockname()[1]


def receive_exactly_one(connection: socket.socket) -> bytes:
    """Receive one PDU and no byte after it; return nothing if it does not come whole."""
    header = read_all(connection, 6)
    return header and header + read_all(connection, int.from_bytes(header[2:6], "big"))


def read_all(connection: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        chunk = connection.recv(min(size - len(data), 65536))
        if not chunk:
            return b""
        data += chunk
    return bytes(data)
