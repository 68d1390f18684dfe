"""Loopback: addresses, ports, time-outs, and PDUs read from plain sockets."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager

import ltdic

LOCALHOST = "127.0.0.1"
TIMEOUT = 25  # s, for what takes milliseconds; less than 30, which ARTIM is by itself
# until a server that starts listens
LISTENING = ltdic.Retry(attempts=20 * TIMEOUT, first=0.05, factor=1)


def has_ipv6() -> bool:
    """Whether there is an address ::1; there may be sockets for IPv6 without one."""
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
    """Receive until a PDU is whole; return all that was received, also where the end came first."""
    data = b""
    while len(data) < 6 or len(data) < 6 + int.from_bytes(data[2:6], "big"):
        chunk = connection.recv(65536)
        if not chunk:
            break
        data += chunk
    return data


@contextmanager
def reserved_port() -> Iterator[int]:
    """A free port that nobody else is given, but a server that sets SO_REUSEADDR can listen on."""
    with socket.socket() as reservation:
        reservation.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reservation.bind((LOCALHOST, 0))
        yield reservation.getsockname()[1]


def receive_exactly_one(connection: socket.socket) -> bytes:
    """Receive one PDU and nothing behind it; return nothing where it does not come whole."""
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
