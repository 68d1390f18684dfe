"""The programs of the README's section "In Python", cut out of it and run."""

from __future__ import annotations

import re
import shutil
import signal
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme

import ltdic
from support.dcmtk import needs_dcmtk, run_scu
from support.paths import ROOT
from support.pynetdicom_ends import associate, pynetdicom_acceptor, pynetdicom_rejecting
from support.sockets import LISTENING, LOCALHOST, TIMEOUT, reserved_port

README = (ROOT / "README.md").read_text()

PROGRAMS = re.findall(r"```python\n(import .*?)```", README, re.DOTALL)
ECHO, SERVER, TLS_SERVER, DATA_SERVER, DATA_REQUESTOR = PROGRAMS
(L_DICOM,) = re.findall(r"```python\n(from ltdic.l_dicom .*?)```", README, re.DOTALL)
(CERTIFICATE,) = re.findall(r"^    (openssl .*)", README, re.MULTILINE)


def written(program: str, port: int, folder: Path, calling: str = "CT_3") -> Path:
    """Write the program to a file, changed to run on loopback."""
    program = program.replace('("", 11112)', f'("{LOCALHOST}", {port})')
    for host in ("localhost", LOCALHOST):
        program = program.replace(f'"{host}", 11112', f'"{LOCALHOST}", {port}')
    file = folder / "program.py"
    file.write_text(program.replace("CT_3", calling))
    return file


def echo(port: int, folder: Path, calling: str = "CT_3") -> tuple[int, str, str]:
    """Run the requestor to its end; return its exit code, output and errors."""
    folder.mkdir(exist_ok=True)
    command = [sys.executable, "-I", written(ECHO, port, folder, calling)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT)
    return result.returncode, result.stdout, result.stderr


class Running:
    """A running server."""

    def __init__(self, port: int, process: subprocess.Popen[str]) -> None:
        self.port, self.process = port, process
        self.printed = ""

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.end()

    def end(self) -> None:
        self.printed, errors = self.process.communicate(timeout=TIMEOUT)
        assert self.process.returncode == 0, errors


class Secured:
    """Certificates of the test, and a server that ends after so many rejections."""

    def __init__(self, folder: Path, rejections: int) -> None:
        authority = trustme.CA()
        self.authority = folder / "authority.pem"
        authority.cert_pem.write_to_path(self.authority)
        certificate = authority.issue_cert("localhost", LOCALHOST)
        certificate.private_key_and_cert_chain_pem.write_to_path(folder / "gateway.pem")
        end = f"lambda: server.counters.rejected.total() == {rejections}"
        self.program = TLS_SERVER.replace("until=3600", f"until={end}")

    def client(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self.authority)


@contextmanager
def serving(program: str, folder: Path, tls: ssl.SSLContext | None = None) -> Iterator[Running]:
    """Run a server of the README from its first association until it has ended."""
    with reserved_port() as port:
        process = subprocess.Popen(
            [sys.executable, "-I", written(program, port, folder)],
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        running = Running(port, process)
        try:
            with ltdic.connect(LOCALHOST, port, calling_ae="CT_2", tls=tls, retry=LISTENING):
                pass
            yield running
            (running.stop if tls is None else running.end)()
        finally:
            process.kill()
            process.communicate()


def said_by(association: Any) -> tuple[int, int, int] | None:
    answer = association.acceptor.primitive
    if association.is_rejected:
        return answer.result, answer.result_source, answer.diagnostic
    assert association.is_established
    association.release()
    return None


def run_program(program: str, port: int, folder: Path) -> str:
    """Run a program that ends by itself; return its output."""
    folder.mkdir(exist_ok=True)
    command = [sys.executable, "-I", written(program, port, folder)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=3 * TIMEOUT)
    assert result.returncode == 0, result.stderr
    return result.stdout


# ---- the programs --------------------------------------------------------------------------------


def test_no_program_has_more_than_15_lines() -> None:
    assert max(program.count("\n") for program in PROGRAMS) <= 15


@pytest.mark.slow
def test_the_requestor_and_the_server_of_the_readme_talk_to_each_other(tmp_path: Path) -> None:
    with serving(SERVER, tmp_path) as server:
        refused = [echo(server.port, tmp_path / "echo") for _ in range(3)]
        admitted = echo(server.port, tmp_path / "echo", "CT_1")
    rejection = ltdic.AssociateReject(1, 1, 3)
    assert refused == [(1, "", f"{rejection}\n{rejection.advice}\n")] * 3
    assert admitted == (0, "echo: status 0000\n", "")
    assert server.printed == "rejected 3 times: result 1, source 1, reason 3\n"


@pytest.mark.slow
def test_the_requestor_of_the_readme_prints_why_pynetdicom_refuses(tmp_path: Path) -> None:
    rejection = ltdic.AssociateReject(2, 3, 2)
    with pynetdicom_acceptor(pynetdicom_rejecting((2, 3, 2))) as port:
        assert echo(port, tmp_path) == (1, "", f"{rejection}\n{rejection.advice}\n")
    with pynetdicom_acceptor() as port:
        assert echo(port, tmp_path) == (0, "echo: status 0000\n", "")


def test_the_requestor_of_the_readme_prints_that_there_is_no_connection(tmp_path: Path) -> None:
    with reserved_port() as port:
        code, printed, errors = echo(port, tmp_path)
    assert (code, printed) == (1, "")
    assert errors.startswith(f"No association: no connection to {LOCALHOST} port {port}: ")


def test_the_server_of_the_readme_admits_pynetdicom_by_its_title(tmp_path: Path) -> None:
    with serving(SERVER, tmp_path) as server:
        assert said_by(associate(server.port, calling="CT_1")) is None
        assert said_by(associate(server.port, calling="MR_1")) == (1, 1, 3)
    assert server.printed == "rejected 1 times: result 1, source 1, reason 3\n"


@pytest.mark.slow
@needs_dcmtk
def test_the_server_of_the_readme_admits_echoscu_by_its_title(tmp_path: Path) -> None:
    with serving(SERVER, tmp_path) as server:
        admitted, _ = run_scu("echoscu", server.port, "-aet", "CT_1")
        refused, words = run_scu("echoscu", server.port, "-aet", "MR_1")
    assert admitted == 0
    assert refused != 0
    assert "Reason: Calling AE Title Not Recognized" in words
    assert server.printed == "rejected 1 times: result 1, source 1, reason 3\n"


@pytest.mark.slow
def test_the_tls_server_of_the_readme_admits_our_requestor_by_its_title(tmp_path: Path) -> None:
    secured = Secured(tmp_path, 2)
    options = {"tls": secured.client(), "timeout": TIMEOUT}
    with serving(secured.program, tmp_path, secured.client()) as server:
        with ltdic.connect(LOCALHOST, server.port, calling_ae="CT_1", **options) as association:
            assert association.echo() == 0
        for _ in range(2):
            with pytest.raises(ltdic.AssociationRejected) as raised:
                ltdic.connect(LOCALHOST, server.port, **options)
            assert raised.value.codes == (1, 1, 3)
    assert server.printed == "Counter({('sent', 1, 1, 3): 2})\n"


@pytest.mark.slow
def test_the_tls_server_of_the_readme_admits_pynetdicom_by_its_title(tmp_path: Path) -> None:
    secured = Secured(tmp_path, 1)
    tls = (secured.client(), LOCALHOST)
    with serving(secured.program, tmp_path, secured.client()) as server:
        assert said_by(associate(server.port, calling="CT_1", tls_args=tls)) is None
        assert said_by(associate(server.port, calling="MR_1", tls_args=tls)) == (1, 1, 3)
    assert server.printed == "Counter({('sent', 1, 1, 3): 1})\n"


@pytest.mark.slow
@needs_dcmtk
def test_the_tls_server_of_the_readme_admits_echoscu_by_its_title(tmp_path: Path) -> None:
    secured = Secured(tmp_path, 1)
    tls = ["+tla", "+cf", secured.authority]
    with serving(secured.program, tmp_path, secured.client()) as server:
        admitted, _ = run_scu("echoscu", server.port, *tls, "-aet", "CT_1")
        refused, words = run_scu("echoscu", server.port, *tls, "-aet", "MR_1")
    assert admitted == 0
    assert refused != 0
    assert "Reason: Calling AE Title Not Recognized" in words
    assert server.printed == "Counter({('sent', 1, 1, 3): 1})\n"


@pytest.mark.slow
def test_the_programs_of_the_readme_that_send_data_talk_to_each_other(tmp_path: Path) -> None:
    with reserved_port() as port:
        command = [sys.executable, "-I", written(DATA_SERVER, port, tmp_path)]
        server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        try:
            ltdic.connect(LOCALHOST, port, retry=LISTENING).abort()
            printed = run_program(DATA_REQUESTOR, port, tmp_path / "requestor")
            assert printed == "b'command a data set in pieces'\n"
            _, errors = server.communicate(timeout=TIMEOUT)
            assert server.returncode == 0
            assert [line.partition(" port")[0] for line in errors.splitlines()] == [
                f"INFO:ltdic:'LTDIC' at {LOCALHOST}",
                f"INFO:ltdic:'LTDIC' at {LOCALHOST}",
            ]
        finally:
            server.kill()
            server.communicate()


@pytest.mark.slow
def test_the_l_dicom_program_of_the_readme_prints_the_codes(tmp_path: Path) -> None:
    with serving(SERVER, tmp_path) as server:
        assert run_program(L_DICOM, server.port, tmp_path / "l_dicom") == "1 1 3\n"


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_the_certificate_of_the_readme_is_one_for_the_tls_server(tmp_path: Path) -> None:
    subprocess.run(CERTIFICATE, shell=True, cwd=tmp_path, check=True, capture_output=True)
    program = TLS_SERVER.replace("until=3600", "until=lambda: server.counters.released == 1")
    trusts = ssl.create_default_context(cafile=tmp_path / "cert.pem")
    with reserved_port() as port:
        command = [sys.executable, "-I", written(program, port, tmp_path)]
        server = subprocess.Popen(command, cwd=tmp_path)
        try:
            options = {"tls": trusts, "server_hostname": "localhost", "retry": LISTENING}
            ltdic.connect(LOCALHOST, port, calling_ae="CT_1", **options).release()
            assert server.wait(TIMEOUT) == 0
        finally:
            server.kill()
            server.wait()
