"""ltdic_openssl: both ends of it in C, with ends in Python, with DCMTK, and with hostile peers."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme

import ltdic
from ltdic import Admission, AssociationRejected, ConnectionFailed, Server, aio
from support.loops import in_loop
from support.paths import ROOT, TESTS
from support.raw import REQUEST
from support.sockets import LOCALHOST, TIMEOUT
from support.threads import Background
from support.tls import AUTHORITY, CERTIFICATE, RawTls, client_context, server_context
from support.toolchain import COMPILERS, clean_environment, run, toolchain_or_skip

pytestmark = pytest.mark.slow
VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
by_version = pytest.mark.parametrize("version", VERSIONS)
REJECTED = {"called_ae": "NOBODY", "timeout": TIMEOUT}


def of_version(context: ssl.SSLContext, version: str) -> ssl.SSLContext:
    context.minimum_version = context.maximum_version = VERSIONS[version]
    return context


@pytest.fixture(scope="module", params=COMPILERS)
def program(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    toolchain = toolchain_or_skip(request.param, tmp_path_factory.mktemp("openssl"), cxx=False)
    found = str(ROOT / "csrc" / "ltdic_openssl.c")
    return toolchain.program(TESTS / "c" / "openssl.c", "c11", found, "-lssl", "-lcrypto")


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pem")
    CERTIFICATE.private_key_and_cert_chain_pem.write_to_path(str(folder / "own.pem"))
    AUTHORITY.cert_pem.write_to_path(str(folder / "authority.pem"))
    return folder


@contextmanager
def serving(program: Path, *arguments: Any) -> Iterator[tuple[int, Any]]:
    """Run the acceptor. Its port, and its output, a line for each end."""
    command = [str(program), "serve", *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline()), process.stdout
        finally:
            process.kill()


# ---- an acceptor in C ----------------------------------------------------------------------------


@by_version
def test_an_acceptor_in_c_echoes_and_rejects(program: Path, pem: Path, version: str) -> None:
    tls = of_version(client_context(), version)
    with serving(program, pem / "own.pem") as (port, told):
        for _ in range(50):
            with ltdic.connect(LOCALHOST, port, tls=tls, timeout=TIMEOUT) as association:
                assert association.echo() == 0
            with pytest.raises(AssociationRejected) as e:
                ltdic.connect(LOCALHOST, port, tls=tls, **REJECTED)
            assert e.value.codes == (1, 1, 7)
            assert told.readline() + told.readline() == "outcome 2, ok\noutcome 1, ok\n"


@by_version
@in_loop
async def test_an_acceptor_in_c_rejects_requestors_in_asyncio(
    program: Path, pem: Path, version: str
) -> None:
    tls = of_version(client_context(), version)
    with serving(program, pem / "own.pem") as (port, _):
        for _ in range(50):
            with pytest.raises(AssociationRejected):
                await aio.connect(LOCALHOST, port, tls=tls, **REJECTED)


def test_an_acceptor_in_c_wants_a_certificate_of_its_authority(program: Path, pem: Path) -> None:
    known, unknown = client_context(), client_context()
    AUTHORITY.issue_cert("ct@example.org").configure_cert(known)
    trustme.CA().issue_cert("ct@example.org").configure_cert(unknown)
    with serving(program, pem / "own.pem", pem / "authority.pem") as (port, told):
        with ltdic.connect(LOCALHOST, port, tls=known, timeout=TIMEOUT) as association:
            assert association.echo() == 0
        assert told.readline() == "outcome 2, ok\n"
        for tls in (unknown, client_context()):
            with pytest.raises(ConnectionFailed):
                ltdic.connect(LOCALHOST, port, tls=tls, timeout=TIMEOUT)
            assert told.readline().startswith("outcome 8,")


def test_silent_handshakes_end_at_artim_and_delay_nobody(program: Path, pem: Path) -> None:
    with serving(program, pem / "own.pem") as (port, _):
        silent = [socket.create_connection((LOCALHOST, port)) for _ in range(200)]
        for one in silent[::2]:
            one.sendall(b"\x16\x03\x01")
        with ltdic.connect(LOCALHOST, port, tls=client_context(), timeout=TIMEOUT) as association:
            assert association.echo() == 0
        for one in silent:
            one.settimeout(TIMEOUT)
            assert one.recv(100)[:0] == b""
            one.close()


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
@pytest.mark.parametrize("old", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
def test_old_versions_are_refused(program: Path, pem: Path, old: ssl.TLSVersion) -> None:
    tls = client_context()
    tls.set_ciphers("ALL:@SECLEVEL=0")
    tls.minimum_version, tls.maximum_version = old, old
    with serving(program, pem / "own.pem") as (port, told):
        with pytest.raises(ConnectionFailed):
            ltdic.connect(LOCALHOST, port, tls=tls, timeout=TIMEOUT)
        assert told.readline().startswith("outcome 8,")


@by_version
@pytest.mark.parametrize("piece", [1, 100])
def test_bytes_may_come_in_any_pieces(program: Path, pem: Path, version: str, piece: int) -> None:
    with (
        serving(program, pem / "own.pem") as (port, _),
        socket.create_connection((LOCALHOST, port)) as connection,
    ):
        tls = RawTls(connection, of_version(client_context(), version), False, piece)
        tls.write(REQUEST)
        tls.flush()
        assert tls.read()[0] in (2, 3)
        tls.write(ltdic.encode(ltdic.Abort(0, 0)))
        tls.flush()
        assert tls.read() == b""  # close_notify


def test_new_keys_without_end_delay_nobody_and_end_at_artim(program: Path, pem: Path) -> None:
    with serving(program, pem / "own.pem") as (port, _), ExitStack() as stack:
        flooding = [
            stack.enter_context(
                subprocess.Popen([program, "flood", str(port)], stdout=subprocess.PIPE)
            )
            for _ in range(2)
        ]
        for one in flooding:
            assert one.stdout is not None
            assert one.stdout.readline() == b"connected\n"
        begun = time.monotonic()
        with ltdic.connect(LOCALHOST, port, tls=client_context(), timeout=TIMEOUT) as association:
            assert association.echo() == 0
        assert time.monotonic() - begun < TIMEOUT / 2
        for one in flooding:
            assert one.wait(TIMEOUT) == 0


# ---- a requestor in C ----------------------------------------------------------------------------


def connect(program: Path, *arguments: Any) -> list[str]:
    return run(program, *map(str, arguments), timeout=2 * TIMEOUT).splitlines()


@by_version
def test_a_requestor_in_c_is_accepted_and_rejected(program: Path, pem: Path, version: str) -> None:
    """Two connections of one endpoint, by name and by address."""
    tls = of_version(server_context(), version)
    authority = pem / "authority.pem"
    with Server((LOCALHOST, 0), admission=Admission(called=["ANY-SCP"]), tls=tls) as server:
        thread, port = Background(server.serve), server.address[1]
        accepted, rejected = f"TLSv{version}, accepted, ok", "rejected 1/1/7, ok"
        for host in (LOCALHOST, "localhost"):
            assert connect(program, "connect", port, host, authority, "ANY-SCP") == [accepted] * 2
            assert connect(program, "connect", port, host, authority, "NOBODY") == [rejected] * 2
        once = connect(program, "use", port, authority)
        assert once == [accepted, "no connection: closed"]
        server.close()
        thread.join()


def test_a_requestor_in_c_verifies_the_name_and_the_authority(program: Path, pem: Path) -> None:
    trustme.CA().cert_pem.write_to_path(str(pem / "other.pem"))
    with Server((LOCALHOST, 0), tls=server_context()) as server:
        thread, port = Background(server.serve), server.address[1]
        for host, authority in (("archive.example", "authority"), (LOCALHOST, "other")):
            told = connect(program, "connect", port, host, pem / f"{authority}.pem", "ANY-SCP")
            assert told == ["no connection: certificate verify failed"] * 2
        assert server.counters.tls_failures == 4
        server.close()
        thread.join()


@pytest.mark.parametrize("host", ["", ".", "a b", "-a.example", "a..example"])
def test_what_is_no_host_is_refused(program: Path, pem: Path, host: str) -> None:
    command = [program, "connect", "1", host, pem / "authority.pem", "ANY-SCP"]
    ended = subprocess.run(command, capture_output=True, text=True, env=clean_environment())
    assert (ended.returncode, "tls != NULL" in ended.stderr) == (1, True)


def test_a_requestor_in_c_shows_its_certificate(program: Path, pem: Path) -> None:
    tls = server_context()
    tls.verify_mode = ssl.CERT_REQUIRED
    AUTHORITY.configure_trust(tls)
    told = ["connect", "port", LOCALHOST, pem / "authority.pem", "ANY-SCP", pem / "own.pem"]
    with Server((LOCALHOST, 0), tls=tls) as server:
        thread, told[1] = Background(server.serve), server.address[1]
        assert connect(program, *told) == ["TLSv1.3, accepted, ok"] * 2
        server.close()
        thread.join()


# ---- DCMTK ---------------------------------------------------------------------------------------


@pytest.mark.peers
@pytest.mark.skipif(shutil.which("echoscu") is None, reason="DCMTK is not installed")
def test_dcmtk_echoes_at_an_acceptor_in_c(program: Path, pem: Path) -> None:
    key, certificate = pem / "key.pem", pem / "certificate.pem"
    CERTIFICATE.private_key_pem.write_to_path(str(key))
    CERTIFICATE.cert_chain_pems[0].write_to_path(str(certificate))
    secured = ["--enable-tls", key, certificate, "--add-cert-file", pem / "authority.pem"]
    with serving(program, pem / "own.pem") as (port, told):
        run("echoscu", *secured, "-aec", "ANY-SCP", LOCALHOST, str(port), timeout=TIMEOUT)
        assert told.readline() == "outcome 2, ok\n"
        rejected = subprocess.run(
            list(map(str, ["echoscu", *secured, "-aec", "NOBODY", LOCALHOST, port])),
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            env=clean_environment(),
        )
        assert "Called AE Title Not Recognized" in rejected.stderr + rejected.stdout
        assert told.readline() == "outcome 1, ok\n"
