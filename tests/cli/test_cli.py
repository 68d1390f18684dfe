"""The command line, run as a program."""

from __future__ import annotations

import argparse
import json
import os
import pty
import re
import select
import signal
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trustme
from pynetdicom import AE

import ltdic as library
from ltdic import (
    Abort,
    Admission,
    AssociateReject,
    cli,
    encode,
)
from ltdic.cli.demo import Demo
from support.commands import echo_response
from support.dcmtk import STORESCP, dcmtk_server, needs_dcmtk
from support.dumped import REJECT, SECRET
from support.pynetdicom_ends import associate
from support.raw import ACCEPT, raw_acceptor
from support.rejections import DEFINED
from support.servers import serving
from support.sockets import LISTENING, LOCALHOST, TIMEOUT, receive_pdu
from support.toolchain import clean_environment


def ltdic(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-I", "-m", "ltdic", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.slow
def test_the_demo_shows_all_combinations_and_succeeds() -> None:
    result = ltdic("demo")
    rows = [line.split() for line in result.stdout.splitlines()[1:-1]]
    assert result.returncode == 0, result.stderr
    assert [row[0] for row in rows] == ["/".join(map(str, codes)) for codes in DEFINED]
    assert all(row[0] == row[1] for row in rows)
    assert result.stdout.splitlines()[-1].startswith("16 of 16")


@pytest.mark.slow
def test_the_demo_fails_when_other_codes_arrive(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        Demo, "codes", property(lambda _: (1, 1, 1), lambda *_: None), raising=False
    )
    assert cli.main(["demo"]) == 1
    assert "1 of 16" in capsys.readouterr().out


@pytest.mark.slow
def test_the_demo_fails_when_nothing_arrives(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Demo, "on_reject", lambda *_: None)
    assert cli.main(["demo"]) == 1
    assert "0 of 16" in capsys.readouterr().out


@pytest.mark.slow
def test_help_and_version_are_printed_and_unknown_arguments_are_a_usage_error() -> None:
    assert "demo" in ltdic("--help").stdout
    assert ltdic("--version").stdout.startswith("ltdic ")
    assert ltdic("nonsense").returncode == 64
    assert ltdic().returncode == 64


# ---- a terminal, and servers to talk to ----------------------------------------------------------

COMMAND = [sys.executable, "-I", "-m", "ltdic"]


def why_no_terminal() -> str:
    """Return why no pseudo-terminal can be opened (it needs /dev/pts); empty if one can."""
    try:
        for side in os.openpty():
            os.close(side)
    except OSError as e:
        return f"no pseudo-terminal can be opened: {e}"
    return ""


NO_TERMINAL = why_no_terminal()
needs_terminal = pytest.mark.skipif(bool(NO_TERMINAL), reason=NO_TERMINAL)


class Terminal:
    """The command in a pseudo-terminal, with its output so far."""

    def __init__(self, *arguments: str, **environment: str) -> None:
        plain = {k: v for k, v in os.environ.items() if k != "NO_COLOR"}
        self.pid, self.master = pty.fork()
        if self.pid == 0:
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell's background jobs ignore it
            os.execve(sys.executable, [*COMMAND, *arguments], plain | environment)
        self.screen = ""

    def read(self) -> bool:
        """Read more of the output; return False at its end."""
        ready, _, _ = select.select([self.master], [], [], TIMEOUT)
        assert ready, f"nothing more came after {self.screen!r}"
        try:
            data = os.read(self.master, 65536)
        except OSError:  # Linux reports a closed other side by EIO
            data = b""
        self.screen += data.decode()
        return bool(data)

    def wait_for(self, pattern: str) -> str:
        while not (found := re.search(pattern, self.screen)):
            assert self.read(), f"{pattern!r} is not in {self.screen!r}"
        return found.group()

    def type(self, keys: bytes) -> None:
        os.write(self.master, keys)

    def exit_code(self) -> int:
        while self.read():
            pass
        _, status = os.waitpid(self.pid, 0)
        os.close(self.master)
        return os.waitstatus_to_exitcode(status)


@contextmanager
def answering(*answers: bytes) -> Iterator[int]:
    """Run a peer that reads a request, sends an answer and closes, once per answer; yield its
    port."""
    with socket.create_server((LOCALHOST, 0)) as server:
        server.settimeout(TIMEOUT)

        def serve() -> None:
            for answer in answers:
                connection, _ = server.accept()
                with connection:
                    receive_pdu(connection)
                    connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield server.getsockname()[1]
        thread.join(TIMEOUT)


@contextmanager
def listening(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """`ltdic listen` on a free port."""
    command = [*COMMAND, "listen", "--port", "0", *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **pipes) as process:  # type: ignore[call-overload]
        try:
            said = process.stderr.readline()
            yield process, int(re.search(r"port (\d+)", said).group(1))
        finally:
            process.kill()


def end(process: subprocess.Popen[str]) -> tuple[str, str]:
    """End the process; return its standard output and standard error."""
    process.send_signal(signal.SIGTERM)
    printed, words = process.communicate(timeout=2 * TIMEOUT)
    assert process.returncode == 0, words
    return printed, words


# ---- echo ----------------------------------------------------------------------------------------


def echo(port: int, *options: str) -> subprocess.CompletedProcess[str]:
    return ltdic("echo", LOCALHOST, str(port), *options)


def test_echo_prints_that_the_peer_answered() -> None:
    with serving(timeout=TIMEOUT) as server:
        result = echo(server.address[1])
    assert result.returncode == 0, result.stderr
    assert re.fullmatch(
        rf"OK  ANY-SCP at {LOCALHOST} port \d+ answered in \d+ ms\.\n", result.stdout
    )
    assert result.stderr == ""


def test_echo_prints_the_reason_of_a_rejection_and_advice() -> None:
    with serving(
        admission=Admission(called={"ARCHIVE"}, calling={"CT_1"}), timeout=TIMEOUT
    ) as server:
        port = server.address[1]
        results = {
            "called": echo(port, "--called", "PACS"),
            "calling": echo(port, "--called", "ARCHIVE", "--calling", "CT_9"),
        }
    for which, result in results.items():
        assert result.returncode == 77
        assert "REJECTED" in result.stdout
        assert f"{which} AE title not recognised" in result.stdout
        assert "What to do: " in result.stdout


@pytest.mark.slow
@pytest.mark.parametrize("codes", [codes for codes in DEFINED if codes[2] == 1])
def test_the_exit_code_of_echo_tells_a_permanent_from_a_transient_rejection(
    codes: tuple[int, int, int],
) -> None:
    with answering(encode(AssociateReject(*codes))) as port:
        result = echo(port, "--json")
    said = json.loads(result.stdout)
    assert result.returncode == (77 if codes[0] == 1 else 75)
    assert (said["result"], said["source"], said["reason"]) == codes
    assert said["transient"] is (codes[0] == 2)
    assert said["outcome"] == "rejected"


def test_echo_in_json_prints_one_object_with_every_field() -> None:
    with serving(timeout=TIMEOUT) as server:
        result = echo(server.address[1], "--json", "--called", "A", "--calling", "B")
    said = json.loads(result.stdout)
    assert said.pop("seconds") > 0
    assert said == {
        "outcome": "echoed",
        "host": LOCALHOST,
        "port": server.address[1],
        "called": "A",
        "calling": "B",
        "attempts": 1,
        "status": 0,
    }


def test_echo_prints_that_there_is_no_connection() -> None:
    with socket.create_server((LOCALHOST, 0)) as closed:
        port = closed.getsockname()[1]
    for result in (echo(port), ltdic("echo", "host.invalid", "104")):
        assert result.returncode == 69
        assert result.stdout.startswith("UNREACHABLE  no connection to ")


@pytest.mark.slow
def test_echo_ends_at_its_timeout_without_an_answer() -> None:
    with socket.create_server((LOCALHOST, 0)) as silent:
        result = echo(silent.getsockname()[1], "--timeout", "0.3")
    assert result.returncode == 69
    assert result.stdout.startswith("NO ANSWER  ")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("answer", "word", "advice"),
    [
        (encode(Abort(2, 6)), "FAILED", "Look into the log of the peer"),
        (b"HTTP/1.1 400 Bad Request\r\n", "NO DICOM", "web server"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "NO DICOM", "remote shells"),
        (b"\x15\x03\x03\0\x02\x02\x28", "NO DICOM", "--tls"),
        (b"\x0bMSH|^~", "NO DICOM", "HL7"),
        (b"220 mail ESMTP\r\n", "NO DICOM", "Something else"),
        (b"", "CLOSED", "Many archives do that"),
    ],
)
def test_echo_prints_the_kind_of_failure_and_advice(answer: bytes, word: str, advice: str) -> None:
    with answering(answer) as port:
        result = echo(port)
    assert result.returncode == 76
    assert result.stdout.startswith(f"{word}  ")
    assert advice in result.stdout


@pytest.mark.slow
@pytest.mark.parametrize("as_json", [False, True])
def test_an_echo_without_a_release_response_succeeds_with_a_remark(as_json: bool) -> None:
    def script(connection: socket.socket) -> None:
        connection.sendall(ACCEPT)
        receive_pdu(connection)
        connection.sendall(echo_response(1))
        receive_pdu(connection)

    with raw_acceptor(script) as (port, _):
        result = echo(port, *(["--json"] if as_json else []))
    assert result.returncode == 0
    words = "It did not answer the release: the connection has ended: the connection was lost."
    if as_json:
        told = json.loads(result.stdout)
        assert (told["outcome"], told["remark"]) == ("echoed", words)
    else:
        first, second = result.stdout.splitlines()
        assert first.startswith("OK  ")
        assert second == words


def test_echo_prints_that_the_peer_does_not_support_verification() -> None:
    with serving(
        admission=Admission(contexts=[("Verification", ["1.2.3.4"])]), timeout=TIMEOUT
    ) as server:
        result = echo(server.address[1])
    assert result.returncode == 76
    assert "none of the transfer syntaxes" in result.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        ["host"],
        ["host", "port"],
        ["host", "70000"],
        ["host", "104", "--called", "SEVENTEEN_LETTERS"],
        ["host", "104", "--calling", "back\\slash"],
        ["host", "104", "--calling", ""],
        ["host", "104", "--timeout", "0"],
        ["host", "104", "--timeout", "nan"],
        ["host", "104", "--retry", "-1"],
        ["host", "0"],
        ["host:0"],
        ["host:104", "104"],
        ["", "104"],
        ["host", "104", "--timeout", "-inf"],
        ["host", "104", "--retry", "4294967296"],
        ["host", "104", "--user", ""],
        ["host", "104", "--user", ":secret"],
        ["host", "104", "--user", "\udcff"],
        ["host", "104", "--user", "a" * 70_000],
        ["host", "104", "--cert", __file__],
        ["host", "104", "--key", __file__],
        ["host", "104", "--ca", __file__],
        ["host", "104", "--tls", "--key", __file__],
    ],
)
def test_wrong_usage_of_echo_has_its_exit_code(arguments: list[str]) -> None:
    result = ltdic("echo", *arguments)
    assert result.returncode == 64
    is_wrong_usage(result.stderr, "echo")


def is_wrong_usage(said: str, command: str) -> None:
    """Assert that this is the usage of the command and one sentence."""
    lines = said.splitlines()
    assert lines[0].startswith(f"usage: ltdic {command} ")
    assert [line[:1] for line in lines[1:]].count("l") == 1
    assert lines[-1].startswith(f"ltdic {command}: ")
    assert len(said) < 2000
    assert "secret" not in said


BUSY = encode(AssociateReject(2, 3, 1))


@pytest.mark.slow
@needs_terminal
def test_echo_shows_each_retry_in_a_line_that_it_erases() -> None:
    with answering(BUSY, encode(AssociateReject(1, 1, 7))) as port:
        terminal = Terminal("echo", LOCALHOST, str(port), "--retry", "5")
        terminal.wait_for(r"temporary congestion\. Trying again in \d\.\d s, 1 of 5 \.\.\.")
        assert terminal.exit_code() == 77
    progress, final = terminal.screen.rsplit("\r\x1b[K", 1)
    assert "\n" not in progress
    assert final.startswith("\x1b[31mREJECTED\x1b[0m")
    assert "(tried 2 times in " in final


@pytest.mark.slow
@needs_terminal
def test_echo_has_colours_only_on_a_terminal_that_wants_them() -> None:
    with serving(timeout=TIMEOUT) as server:
        where = LOCALHOST, str(server.address[1])
        coloured, plain = Terminal("echo", *where), Terminal("echo", *where, NO_COLOR="1")
        assert (coloured.exit_code(), plain.exit_code()) == (0, 0)
    assert coloured.screen.startswith("\x1b[32mOK\x1b[0m")
    assert plain.screen.startswith("OK")


@pytest.mark.slow
def test_each_try_has_a_line_of_its_own_without_a_terminal() -> None:
    with answering(BUSY, BUSY) as port:
        result = echo(port, "--retry", "1", "--json")
    assert result.returncode == 75
    assert json.loads(result.stdout)["attempts"] == 2
    assert result.stderr.count("\n") == 1
    assert "Trying again" in result.stderr
    assert "\x1b" not in result.stderr


@pytest.fixture(params=[signal.default_int_handler, signal.SIG_IGN], ids=["caught", "ignored"])
def interrupts(request: pytest.FixtureRequest) -> Iterator[None]:
    """Run with SIGINT handled, and with SIGINT ignored as in a background job of a shell."""
    before = signal.signal(signal.SIGINT, request.param)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.slow
@needs_terminal
@pytest.mark.usefixtures("interrupts")
def test_an_interrupted_echo_aborts_and_prints_it() -> None:
    with socket.create_server((LOCALHOST, 0)) as server:
        terminal = Terminal("echo", LOCALHOST, str(server.getsockname()[1]))
        connection, _ = server.accept()
        with connection:
            connection.settimeout(TIMEOUT)
            receive_pdu(connection)
            terminal.type(b"\x03")
            assert receive_pdu(connection) == encode(Abort(0, 0))
        assert terminal.exit_code() == 130
    assert "interrupted" in terminal.screen


def test_a_terminated_echo_aborts() -> None:
    with socket.create_server((LOCALHOST, 0)) as server:
        command = [*COMMAND, "echo", LOCALHOST, str(server.getsockname()[1])]
        with subprocess.Popen(command) as process:
            connection, _ = server.accept()
            with connection:
                connection.settimeout(TIMEOUT)
                receive_pdu(connection)
                process.terminate()
                assert receive_pdu(connection) == encode(Abort(0, 0))
            assert process.wait(TIMEOUT) == 128 + signal.SIGTERM


# ---- listen --------------------------------------------------------------------------------------


@pytest.mark.slow
def test_listen_accepts_known_titles_and_prints_a_line_for_each_association() -> None:
    with listening("--called", "ARCHIVE", "--calling", "CT_1", "--calling", "CT_2") as (
        process,
        port,
    ):
        assert echo(port, "--called", "ARCHIVE", "--calling", "CT_2").returncode == 0
        assert echo(port, "--called", "ARCHIVE", "--calling", "CT_3").returncode == 77
        assert echo(port, "--called", "OTHER", "--calling", "CT_1").returncode == 77
        printed, words = end(process)
    first, second, third = printed.splitlines()
    assert re.fullmatch(
        rf"\d\d:\d\d:\d\d  CT_2 at {LOCALHOST} -> ARCHIVE: released after 0\.\d+ s,"
        r" \d+ bytes in, \d+ out",
        first,
    )
    assert second.endswith(
        "CT_3 at 127.0.0.1 -> ARCHIVE: rejected, 1/1/3: calling AE title not recognised"
    )
    assert third.endswith(
        "CT_1 at 127.0.0.1 -> OTHER: rejected, 1/1/7: called AE title not recognised"
    )
    assert "1 accepted: 1 released" in words
    assert "2 rejected: 1 with 1/1/3, 1 with 1/1/7." in words


@pytest.mark.slow
def test_listen_in_json_prints_an_object_for_each_association() -> None:
    with listening("--json", "--called", "A") as (process, port):
        assert echo(port, "--called", "A").returncode == 0
        assert echo(port, "--called", "B").returncode == 77
        first, second = map(json.loads, end(process)[0].splitlines())
    assert (first["outcome"], first["called"], first["calling"]) == ("released", "A", "LTDIC")
    assert first["received"] > 200 < first["sent"]
    assert second["outcome"] == "rejected"
    assert (second["result"], second["source"], second["reason"]) == (1, 1, 7)


@pytest.mark.slow
@pytest.mark.parametrize("codes", ["1/1/1", "2/3/2", "1/2/2"])
def test_listen_rejects_every_request_with_the_given_codes(codes: str) -> None:
    with listening("--reject", codes) as (process, port):
        said = json.loads(echo(port, "--json").stdout)
        assert "/".join(str(said[name]) for name in ("result", "source", "reason")) == codes
        assert f"{codes}: " in end(process)[0]


@pytest.mark.slow
def test_listen_rejects_associations_beyond_its_limit() -> None:
    with listening("--max-associations", "1") as (process, port):
        entity = AE()
        entity.add_requested_context("1.2.840.10008.1.1")
        first = entity.associate(LOCALHOST, port)
        assert first.is_established
        assert echo(port).returncode == 75
        first.release()
        assert "rejected for now, 2/3/2: local limit exceeded" in end(process)[0]


@pytest.mark.slow
@needs_dcmtk
def test_listen_serves_pynetdicom_and_dcmtk_at_once() -> None:
    def dcmtk(calling: str) -> str:
        command = ["echoscu", "-v", "-aet", calling, "-aec", "ARCHIVE", LOCALHOST, str(port)]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=60, env=clean_environment()
        )
        return done.stdout + done.stderr

    with listening("--called", "ARCHIVE", "--calling", "CT_1") as (process, port):
        association = associate(port, "ARCHIVE", "CT_1")
        assert association.is_established
        assert "Received Echo Response (Success)" in dcmtk("CT_1")  # while the other is open
        assert "Calling AE Title Not Recognized" in dcmtk("CT_9")
        reject = associate(port, "ARCHIVE", "CT_9").acceptor.primitive
        assert (reject.result, reject.result_source, reject.diagnostic) == (1, 1, 3)
        assert association.send_c_echo().Status == 0
        association.release()
        printed, _ = end(process)
    assert printed.count("CT_1 at 127.0.0.1 -> ARCHIVE: released") == 2
    assert printed.count("CT_9 at 127.0.0.1 -> ARCHIVE: rejected, 1/1/3") == 2


def test_listen_escapes_control_characters_in_titles() -> None:
    request = bytearray(encode(SECRET))
    request[26:32] = b"\x1b[31m\xff"
    with listening("--calling", "CT_1") as (process, port):
        with socket.create_connection((LOCALHOST, port), TIMEOUT) as connection:
            connection.sendall(request)
            assert receive_pdu(connection)[:1] == b"\3"
        printed, _ = end(process)
    assert "\x1b" not in printed
    assert "\\x1b[31m\\xff at" in printed
    assert "hunter2" not in printed


@pytest.mark.slow
@needs_terminal
def test_listen_in_a_terminal_prints_colours_and_prints_totals_after_control_c() -> None:
    terminal = Terminal("listen", "--port", "0")
    port = int(terminal.wait_for(r"(?<=Listening on port )\d+"))
    assert echo(port).returncode == 0
    terminal.wait_for(r"LTDIC at 127\.0\.0\.1 -> ANY-SCP: \x1b\[32mreleased\x1b\[0m")
    terminal.type(b"\x03")
    assert terminal.exit_code() == 0
    assert "1 accepted: 1 released, 0 aborted, 0 timed out, 0 lost. 0 rejected." in terminal.screen


def test_listen_releases_open_associations_when_it_ends() -> None:
    with listening() as (process, port):
        entity = AE()
        entity.add_requested_context("1.2.840.10008.1.1")
        association = entity.associate(LOCALHOST, port)
        assert association.is_established
        printed, words = end(process)
        association.join(TIMEOUT)
    assert association.is_released
    assert ": released" in printed
    assert "1 accepted: 1 released" in words


@pytest.mark.slow
def test_listen_prints_that_the_port_is_in_use() -> None:
    with socket.create_server(("", 0)) as taken:
        result = ltdic("listen", "--port", str(taken.getsockname()[1]))
    assert result.returncode == 69
    assert "in use" in result.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        ["--port", "70000"],
        ["--called", ""],
        ["--reject", "1/1"],
        ["--reject", "1/1/4"],
        ["--reject", "3/1/1"],
        ["--reject", "a/b/c"],
        ["--max-associations", "-1"],
        ["--max-associations", "4294967296"],
        ["--max-associations", "many"],
        ["--host", "127.0.0.1:104"],
        ["--user", ":secret"],
        ["--tls"],
        ["--cert", __file__],
        ["--ca", __file__],
    ],
)
def test_wrong_usage_of_listen_has_its_exit_code(arguments: list[str]) -> None:
    result = ltdic("listen", *arguments)
    assert result.returncode == 64
    is_wrong_usage(result.stderr, "listen")


# ---- TLS -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with certificates, keys, and files that are neither."""
    folder = tmp_path_factory.mktemp("pki")
    authority, other = trustme.CA(), trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    other.cert_pem.write_to_path(folder / "other.pem")
    server = authority.issue_cert(LOCALHOST, "localhost")
    server.private_key_and_cert_chain_pem.write_to_path(folder / "both.pem")
    client = authority.issue_cert("ct@example.org")
    client.private_key_pem.write_to_path(folder / "key.pem")
    client.cert_chain_pems[0].write_to_path(folder / "cert.pem")
    (folder / "text").write_text("neither certificate nor key")
    return folder


@pytest.fixture
def pki(certificates: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of `certificates` as the working directory."""
    monkeypatch.chdir(certificates)
    return certificates


TLS_SERVER = ["--tls", "--cert", "both.pem"]
TLS_CLIENT = ["--tls", "--ca", "ca.pem"]
SHOWN = ["--cert", "cert.pem", "--key", "key.pem"]


@pytest.mark.slow
def test_echo_and_listen_talk_over_tls(pki: Path) -> None:
    with listening(*TLS_SERVER, "--host", LOCALHOST) as (process, port):
        good = echo(port, *TLS_CLIENT)
        unknown = echo(port, "--tls")
        other = echo(port, "--tls", "--ca", "other.pem", "--json")
        plain = echo(port)
        printed, words = end(process)
    assert good.returncode == 0, good.stdout
    assert good.stdout.startswith("OK  ANY-SCP at ")
    assert unknown.returncode == other.returncode == plain.returncode == 76
    assert unknown.stdout.startswith("NO TLS  no connection to ")
    assert "What to do: Give the authority that signed" in unknown.stdout
    assert json.loads(other.stdout)["outcome"] == "no TLS"
    assert plain.stdout.startswith("CLOSED  ")
    assert "try --tls" in plain.stdout
    lines = printed.splitlines()
    assert len(lines) == 4
    assert ": released after " in lines[0]
    assert all("no TLS: the handshake failed (" in line for line in lines[1:3])
    assert "no TLS: it sent an A-ASSOCIATE-RQ in plain (" in lines[3]
    assert "1 accepted: 1 released" in words
    assert words.endswith(" 3 connections without an association.\n")


@pytest.mark.slow
def test_listen_requires_a_client_certificate_when_it_has_an_authority(pki: Path) -> None:
    with listening(*TLS_SERVER, "--ca", "ca.pem", "--json") as (process, port):
        shown, hidden = echo(port, *TLS_CLIENT, *SHOWN), echo(port, *TLS_CLIENT)
        first, second = map(json.loads, end(process)[0].splitlines())
    assert shown.returncode == 0, shown.stdout
    assert hidden.returncode == 76
    assert "certificate required" in hidden.stdout
    assert "whether the peer knows the certificate of --cert" in hidden.stdout
    assert first["outcome"] == "released"
    assert (second["outcome"], second["fault"]) == ("no association", "tls")


@pytest.mark.slow
def test_echo_prints_that_the_port_does_not_speak_tls(pki: Path) -> None:
    with listening() as (_, port):
        result = echo(port, *TLS_CLIENT)
    assert result.returncode == 76
    assert result.stdout.startswith("NO TLS  ")
    assert "Check whether that port has TLS" in result.stdout


@pytest.mark.slow
def test_echo_prints_that_the_certificate_is_for_another_name(pki: Path) -> None:
    with listening("--tls", "--cert", "cert.pem", "--key", "key.pem") as (_, port):
        results = echo(port, *TLS_CLIENT), ltdic("echo", "localhost", str(port), *TLS_CLIENT)
    for result in results:
        assert result.returncode == 76
        assert "What to do: Ask for the peer by a name or number that" in result.stdout


@pytest.mark.slow
def test_echo_over_tls_ends_at_its_timeout_without_an_answer(pki: Path) -> None:
    with socket.create_server((LOCALHOST, 0)) as silent:
        result = echo(silent.getsockname()[1], *TLS_CLIENT, "--timeout", "0.3")
    assert result.returncode == 69
    assert result.stdout.startswith("UNREACHABLE  no connection to ")
    assert "no answer in time" in result.stdout


def test_echo_over_tls_does_not_advise_to_use_tls(pki: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain("both.pem")
    with socket.create_server((LOCALHOST, 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with context.wrap_socket(connection, server_side=True) as secured:
                receive_pdu(secured)

        thread = threading.Thread(target=serve)
        thread.start()
        result = echo(server.getsockname()[1], *TLS_CLIENT)
        thread.join(TIMEOUT)
    assert result.returncode == 76
    assert result.stdout.startswith("CLOSED  ")
    assert "try --tls" not in result.stdout


@pytest.mark.slow
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "TLS"])
def test_listen_accepts_known_users_only(pki: Path, tls: bool) -> None:
    server, client = (TLS_SERVER, TLS_CLIENT) if tls else ([], [])
    with listening(*server, "--user", "jdoe:hunter:2", "--user", "j\xf6e") as (process, port):
        found = {
            user: echo(port, *client, *(["--user", user] if user else [])).returncode
            for user in ("jdoe:hunter:2", "jdoe:wrong", "jdoe", "j\xf6e", "other", "")
        }
        printed, _ = end(process)
    assert found == {
        "jdoe:hunter:2": 0,
        "jdoe:wrong": 77,
        "jdoe": 77,
        "j\xf6e": 0,
        "other": 77,
        "": 77,
    }
    assert printed.count("rejected, 1/2/1") == 4
    assert "hunter" not in printed


FILES = [
    (["--cert", "absent"], "--cert absent: No such file or directory"),
    (["--cert", "."], "--cert .: Is a directory"),
    (["--cert", "text"], "--cert text: not the PEM that is needed"),
    (["--cert", "key.pem"], "--cert key.pem: not the PEM that is needed"),
    (["--cert", "cert.pem"], "--cert cert.pem: not the PEM that is needed"),
    (["--cert", "both.pem", "--key", "absent"], "--key absent: No such file or directory"),
    (["--cert", "both.pem", "--key", "text"], "--key text: not the PEM that is needed"),
    (["--cert", "both.pem", "--key", "key.pem"], "--key key.pem: not the PEM that is needed (key "),
    (["--cert", "both.pem", "--ca", "absent"], "--ca absent: No such file or directory"),
    (["--cert", "both.pem", "--ca", "text"], "--ca text: not the PEM that is needed"),
    (["--cert", "both.pem", "--ca", "."], "--ca .: Is a directory"),
]


@pytest.mark.slow
@pytest.mark.parametrize("command", ["echo", "listen"])
@pytest.mark.parametrize(("files", "text"), FILES, ids=[text[:25] for _, text in FILES])
def test_unusable_files_are_named(pki: Path, command: str, files: list[str], text: str) -> None:
    where = [LOCALHOST, "1"] if command == "echo" else ["--port", "0"]
    result = ltdic(command, *where, "--tls", *files)
    assert result.returncode == 66
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"ltdic {command}: --")
    assert text in line


def test_pynetdicom_talks_to_listen_over_tls(pki: Path) -> None:
    context = ssl.create_default_context(cafile="ca.pem")
    with listening(*TLS_SERVER) as (process, port):
        association = associate(port, tls_args=(context, "localhost"))
        assert association.is_established
        assert association.send_c_echo().Status == 0
        association.release()
        assert "PYNETDICOM at 127.0.0.1 -> ANY-SCP: released" in end(process)[0]


@pytest.mark.slow
def test_echo_talks_to_pynetdicom_over_tls(pki: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain("both.pem")
    entity = AE()
    entity.add_supported_context("1.2.840.10008.1.1")
    server = entity.start_server((LOCALHOST, 0), block=False, ssl_context=context)
    try:
        result = echo(server.server_address[1], *TLS_CLIENT)
    finally:
        server.shutdown()
    assert result.returncode == 0, result.stdout


@needs_dcmtk
def test_dcmtk_talks_to_listen_over_tls(pki: Path) -> None:
    def echoscu(*options: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["echoscu", "-v", *options, LOCALHOST, str(port)],
            capture_output=True,
            text=True,
            timeout=60,
            env=clean_environment(),
        )

    with listening(*TLS_SERVER) as (process, port):
        anonymous = echoscu("+tla", "+cf", "ca.pem")
        known = echoscu("+tls", "key.pem", "cert.pem", "+cf", "ca.pem")
        plain = echoscu()
        printed, _ = end(process)
    assert (anonymous.returncode, known.returncode) == (0, 0), anonymous.stderr + known.stderr
    assert plain.returncode != 0
    assert printed.count("ECHOSCU at 127.0.0.1 -> ANY-SCP: released") == 2
    assert printed.count("no TLS: it sent an A-ASSOCIATE-RQ in plain") == 1


@pytest.mark.slow
@needs_dcmtk
def test_echo_talks_to_dcmtk_over_tls(pki: Path, tmp_path: Path) -> None:
    files = [str(pki / name) for name in ("both.pem", "both.pem", "ca.pem")]
    with dcmtk_server(tmp_path, *STORESCP, "+tls", *files[:2], "+cf", files[2]) as port:
        context = ssl.create_default_context(cafile="ca.pem")
        context.load_cert_chain("cert.pem", "key.pem")
        library.connect(LOCALHOST, port, tls=context, retry=LISTENING).release()
        shown, hidden = echo(port, *TLS_CLIENT, *SHOWN), echo(port, *TLS_CLIENT)
    assert shown.returncode == 0, shown.stdout
    assert hidden.returncode == 76
    assert hidden.stdout.startswith("NO TLS  ")


# ---- output that cannot be written ---------------------------------------------------------------

needs_full = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
by_buffering = pytest.mark.parametrize("flags", [[], ["-u"]], ids=["buffered", "unbuffered"])
FULL = "ltdic: standard output: No space left on device\n"


@pytest.mark.slow
@needs_full
@by_buffering
@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        ["echo", "--help"],
        ["echo", LOCALHOST, "1"],
        ["echo", LOCALHOST, "1", "--json"],
        ["dump", REJECT.hex()],
        ["dump", "--json", REJECT.hex()],
        ["dump", "--strict", encode(AssociateReject(1, 3, 8)).hex()],
        ["demo"],
    ],
    ids=lambda arguments: " ".join(arguments)[:20],
)
def test_a_full_output_is_an_exit_code_and_one_sentence(
    arguments: list[str], flags: list[str]
) -> None:
    command = [sys.executable, "-I", *flags, "-m", "ltdic", *arguments]
    with open("/dev/full", "w") as full:
        result = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
    assert (result.returncode, result.stderr) == (73, FULL)


@pytest.mark.slow
@needs_full
@by_buffering
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "TLS"])
def test_listen_ends_where_its_output_is_full(pki: Path, tls: bool, flags: list[str]) -> None:
    command = [sys.executable, "-I", *flags, "-m", "ltdic", "listen", "--port", "0"]
    with (
        open("/dev/full", "w") as full,
        subprocess.Popen(
            command + (TLS_SERVER if tls else []), stdout=full, stderr=subprocess.PIPE, text=True
        ) as process,
    ):
        assert process.stderr is not None
        port = int(re.search(r"port (\d+)", process.stderr.readline())[1])  # type: ignore[index]
        assert echo(port, *(TLS_CLIENT if tls else [])).returncode == 0
        _, said = process.communicate(timeout=2 * TIMEOUT)
    assert process.returncode == 73
    summary, sentence = said.splitlines(keepends=True)
    assert summary.startswith("1 accepted: 1 released")
    assert sentence == FULL


def with_closed(stream: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = " ".join([*COMMAND, *arguments, stream])
    return subprocess.run(command, shell=True, capture_output=True, text=True, timeout=60)


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [["listen", "--port", "0"], ["echo", LOCALHOST, "1"], ["dump", "00"], ["demo"], ["--help"]],
    ids=lambda arguments: arguments[0],
)
def test_a_closed_output_is_an_exit_code_and_one_sentence(arguments: list[str]) -> None:
    result = with_closed(">&-", *arguments)
    assert result.returncode == 73
    assert result.stderr == "ltdic: standard output is closed\n"


@pytest.mark.slow
def test_a_closed_input_is_an_exit_code_and_one_sentence() -> None:
    result = with_closed("<&-", "dump", "-")
    assert result.returncode == 66
    assert result.stderr == "ltdic dump: standard input is closed\n"


@pytest.mark.slow
def test_a_closed_error_output_puts_no_error_into_the_output() -> None:
    with serving(timeout=TIMEOUT) as server:
        good = with_closed("2>&-", "echo", LOCALHOST, str(server.address[1]), "--json")
    assert (good.returncode, json.loads(good.stdout)["outcome"]) == (0, "echoed")
    wrong = with_closed("2>&-", "echo", LOCALHOST, "port")
    assert (wrong.returncode, wrong.stdout) == (64, "")


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["utf-8:strict", "ascii:strict"])
@pytest.mark.parametrize("host", ["\udcff.invalid", "b\xfccher.invalid"])
def test_a_host_that_the_output_cannot_show_is_escaped(host: str, encoding: str) -> None:
    command = [sys.executable, "-P", "-m", "ltdic", "echo", host, "104"]
    result = subprocess.run(
        command,
        capture_output=True,
        timeout=60,
        env={**os.environ, "PYTHONIOENCODING": encoding},
    )
    assert result.returncode == 69
    assert result.stdout.startswith(b"UNREACHABLE  no connection to ")
    assert result.stderr == b""


# ---- help ----------------------------------------------------------------------------------------


def parsers() -> dict[str, argparse.ArgumentParser]:
    whole = cli.parser()
    (commands,) = (a for a in whole._actions if isinstance(a, argparse._SubParsersAction))
    return {"": whole, **commands.choices}


@pytest.mark.slow
@pytest.mark.parametrize("command", ["", "demo", "echo", "listen", "dump"])
def test_help_describes_every_argument_and_shows_defaults(command: str) -> None:
    result = ltdic(*command.split(), "--help")
    text = " ".join(result.stdout.split())
    assert result.returncode == 0
    assert "None" not in text
    assert "False" not in text
    found = parsers()
    assert found.keys() == {"", "demo", "echo", "listen", "dump"}
    for action in found[command]._actions:
        assert action.help or isinstance(action, argparse._SubParsersAction), action
        first = (action.help or "").split("(")[0].replace("%%", "%").strip()
        assert " ".join(first.split()) in text
        default = action.default
        if default not in (None, "", argparse.SUPPRESS) and not isinstance(default, bool):
            assert f"(default: {default})" in text


def test_the_help_of_the_demo_describes_it() -> None:
    text = " ".join(ltdic("demo", "--help").stdout.split())
    assert "rejects with each of the 16 codes" in text
    assert "Exit code 0 if all arrive" in text
