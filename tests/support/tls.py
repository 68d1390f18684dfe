"""An authority, its certificate for this host, and the contexts of both ends."""

from __future__ import annotations

import ssl

import trustme

from support.sockets import LOCALHOST

AUTHORITY = trustme.CA()
CERTIFICATE = AUTHORITY.issue_cert(LOCALHOST, "localhost")


def server_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    CERTIFICATE.configure_cert(context)
    return context


def client_context(authority: trustme.CA = AUTHORITY) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(context)
    return context
