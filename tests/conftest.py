"""What the test modules share: vectors, compilers, loopback sockets."""

from __future__ import annotations

import json
import os
import platform
import resource
import shutil
import socket
import struct
import subprocess
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hypothesis
import pytest

import ltdic

HERE = Path(__file__).parent

for profile, examples in {"quick": 10, "dev": 50, "ci": 300, "thorough": 20_000}.items():
    hypothesis.settings.register_profile(
        profile,
        max_examples=examples,
        deadline=None,  # how fast the machine is says nothing of what is tested
        suppress_health_check=[hypothesis.HealthCheck.too_slow],
        print_blob=True,
    )
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))


def vectors(name: str) -> list[Any]:
    """The vectors of one file, as test parameters with their ids."""
    found = json.loads((HERE / "vectors" / name).read_text())["vectors"]
    return [pytest.param(vector, id=vector["id"]) for vector in found]


# ---- compilers -------------------------------------------------------------------------------

STRICT = ["-Wall", "-Wextra", "-Werror"]
COMPILERS = {"gcc": ("gcc", "g++"), "clang": ("clang", "clang++")}


def clean_environment() -> dict[str, str]:
    """The environment for programs that are not Python.

    Without a sanitizer's preloaded runtime, and without the scripts of virtual environments:
    pynetdicom installs an echoscu and a storescp, which are not the ones meant.
    """
    environment = {k: v for k, v in os.environ.items() if k != "LD_PRELOAD"}
    # What a sanitizer keeps of freed memory, 256 MiB else, is too much for 32 bits.
    environment["ASAN_OPTIONS"] = "quarantine_size_mb=16"
    folders = environment.get("PATH", os.defpath).split(os.pathsep)
    scripts = sysconfig.get_path("scripts")
    environment["PATH"] = os.pathsep.join(
        folder
        for folder in folders
        if folder != scripts and not (Path(folder).parent / "pyvenv.cfg").exists()
    )
    return environment


def run(*command: str | Path, timeout: float = 1200, **options: Any) -> str:
    """Run a program to its end and return what it printed; fail with all of it if it fails."""
    result = subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        timeout=timeout,
        env=clean_environment(),
        **options,
    )
    ended = f"{str(command)[:500]}: {result.returncode}\n{result.stdout[-5000:]}\n"
    assert result.returncode == 0, ended + result.stderr[-5000:]
    return result.stdout


class Toolchain:
    """A C and C++ compiler, and the library built with it as a static one."""

    def __init__(self, name: str, folder: Path, *flags: str) -> None:
        self.cc, self.cxx = COMPILERS[name]
        self.name, self.folder = " ".join([name, *flags]), folder
        self.flags = [*flags, *os.environ.get("LTDIC_TEST_CFLAGS", "").split()]
        self._library: Path | None = None

    @property
    def library(self) -> Path:
        """`libltdic.a`, from the installed sources, as the README tells C users to build it."""
        if self._library is None:
            objects = []
            for source in ltdic.get_sources():
                objects.append(self.folder / f"{Path(source).stem}.o")
                run(
                    self.cc,
                    *["-std=c11", "-O2", "-DLTDIC_STATIC", "-I", ltdic.get_include()],
                    *[*self.flags, *STRICT, "-c", source, "-o", objects[-1]],
                )
            self._library = self.folder / "libltdic.a"
            run("ar", "rcs", self._library, *objects)
        return self._library

    def _compile(self, source: Path, standard: str) -> list[str]:
        """The start of a command that compiles this C file as this standard, C or C++."""
        cxx = standard.startswith("c++")
        language = ["-x", "c++" if cxx else "c", str(source), "-x", "none"]
        compiler = self.cxx if cxx else self.cc
        return [compiler, f"-std={standard}", "-O2", "-I", ltdic.get_include(), *STRICT, *language]

    def program(self, source: Path, standard: str, *more: str) -> Path:
        """An executable of one C file against the static library, linked with `more` flags."""
        built = self.folder / f"{source.stem}-{standard}"
        link = [self.library, "-pthread", "-DLTDIC_STATIC", *self.flags, *more, "-o", built]
        run(*self._compile(source, standard), *link)
        return built

    def shared_object(self, source: Path, standard: str) -> Path:
        """A shared object of one C file, compiled against the header alone."""
        built = self.folder / f"{source.stem}-{standard}.so"
        run(*self._compile(source, standard), "-shared", "-fPIC", "-o", built)
        return built


def toolchain_or_skip(name: str, folder: Path, *, cxx: bool) -> Toolchain:
    """The toolchain of this name, `gcc` or `gcc -m32`, if it builds a program here.

    Nobody needs every compiler to run the tests. Where all must be there, a skip is a failure: see
    `pytest_sessionfinish`.
    """
    compiler, *flags = name.split()
    built = Toolchain(compiler, folder, *flags)
    source = folder / "nothing.c"
    source.write_text("int main(void) { return 0; }\n")
    for program in [built.cc, built.cxx] if cxx else [built.cc]:
        command = [program, *built.flags, source, "-o", folder / "nothing"]
        try:
            subprocess.run(command, check=True, capture_output=True, env=clean_environment())
        except (OSError, subprocess.CalledProcessError) as e:
            pytest.skip(f"{name} does not build programs here: {e}")
    return built


@pytest.fixture(scope="session", params=list(COMPILERS))
def toolchain(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Each compiler, for C and C++."""
    return toolchain_or_skip(request.param, tmp_path_factory.mktemp("both"), cxx=True)


WITH_32_BITS = [*COMPILERS, "gcc -m32"] if platform.machine() == "x86_64" else [*COMPILERS]


@pytest.fixture(scope="session", params=WITH_32_BITS)
def codec_toolchain(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Any:
    """Each compiler, for C alone, and for 32 bits, which Python could not load."""
    return toolchain_or_skip(request.param, tmp_path_factory.mktemp("codec"), cxx=False)


def memory_in_use() -> int:
    """Resident bytes now, not at their peak."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def memory_allowed(size: int) -> int:
    """Under a sanitizer more: it keeps what was freed, 256 MiB of it."""
    return size + (300 << 20 if "LD_PRELOAD" in os.environ else 0)


# ---- loopback --------------------------------------------------------------------------------

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
    """One whole PDU, or what there was before the end."""
    data = b""
    while len(data) < 6 or len(data) < 6 + int.from_bytes(data[2:6], "big"):
        chunk = connection.recv(65536)
        if not chunk:
            break
        data += chunk
    return data


# ---- command sets ----------------------------------------------------------------------------


def command_set(elements: dict[int, int | str]) -> bytes:
    """A command (PS3.7 6.3): group 0000, always Implicit VR Little Endian."""

    def element(number: int, value: bytes) -> bytes:
        return struct.pack("<HHL", 0, number, len(value)) + value

    body = b""
    for number, value in sorted(elements.items()):
        if isinstance(value, str):
            body += element(number, value.encode() + b"\0" * (len(value) % 2))
        else:
            body += element(number, struct.pack("<H", value))
    return element(0, struct.pack("<L", len(body))) + body


def elements_of(command: bytes) -> dict[int, bytes]:
    found = {}
    while command:
        _, number, size = struct.unpack_from("<HHL", command)
        found[number], command = command[8 : 8 + size], command[8 + size :]
    return found


# ---- DCMTK -----------------------------------------------------------------------------------


def is_installed(program: str) -> bool:
    """As a program of the system, not as a script of a virtual environment."""
    return shutil.which(program, path=clean_environment()["PATH"]) is not None


needs_dcmtk = pytest.mark.skipif(not is_installed("echoscu"), reason="DCMTK is not installed")

DCMQRSCP_CONFIG = """\
MaxPDUSize = 16384
MaxAssociations = 1
HostTable BEGIN
friend = (FRIEND, localhost, 104)
HostTable END
VendorTable BEGIN
VendorTable END
AETable BEGIN
CALLED {folder} RW (9, 1024mb) ANY
CLOSED {folder} RW (9, 1024mb) friend
AETable END
"""


@contextmanager
def reserved_port() -> Iterator[int]:
    """A free port that nobody else is given, but a server that sets SO_REUSEADDR can listen on."""
    with socket.socket() as reservation:
        reservation.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reservation.bind((LOCALHOST, 0))
        yield reservation.getsockname()[1]


@contextmanager
def dcmtk_server(folder: Path, *command: str) -> Iterator[int]:
    """An acceptor in `folder` that takes its port as the last argument, as those of DCMTK do; the
    port, on which it may not listen yet."""
    (folder / "dcmqrscp.cfg").write_text(DCMQRSCP_CONFIG.format(folder=folder))
    (folder / "CALLED").mkdir()
    (folder / "CALLED" / "lockfile").touch()  # for wlmscpfs, that makes it a title it knows
    with reserved_port() as port, (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            [*command, str(port)], cwd=folder, stdout=log, stderr=log, env=clean_environment()
        )
        try:
            yield port
        finally:
            server.kill()
            server.wait(TIMEOUT)


STORESCP = ["storescp", "-dhl"]
DCMRECV = ["dcmrecv", "-dhl"]
WLMSCPFS = ["wlmscpfs", "-dhl"]
DCMQRSCP = ["dcmqrscp", "-c", "dcmqrscp.cfg"]
SERVERS = [STORESCP, DCMRECV, WLMSCPFS, DCMQRSCP]


# ---- skips -------------------------------------------------------------------------------------


def pytest_terminal_summary(terminalreporter: Any) -> None:
    skipped = len(terminalreporter.stats.get("skipped", []))
    if skipped and os.environ.get("CI"):
        terminalreporter.write_line(f"{skipped} skipped, where nothing may be")


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Where everything is installed, a skipped test is a failure."""
    reporter = session.config.pluginmanager.getplugin("terminalreporter")
    if os.environ.get("CI") and reporter.stats.get("skipped") and session.exitstatus == 0:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
