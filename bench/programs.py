"""Start the programs of network contenders, and give them jobs.

`PROGRAM accept MODE DIR [MAX]` prints its port and serves until its input ends.
`PROGRAM request DIR` answers each line `MODE PORT COUNT AT_ONCE SIZE` with nanoseconds.
"""

from __future__ import annotations

import atexit
import resource
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path

import harness
import pdus

import build

CERTIFY = (
    "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=localhost"
    " -days 2 -keyout - -out -"
)
"""The command that prints them: ECDSA, P-256."""
PATIENCE = 300
"""Seconds without an answer after which a program is said to hang."""


@cache
def command(who: str) -> tuple[str, ...]:
    """The command line of this contender. Raises `build.Missing`."""
    if who in _SCRIPTS:
        name, *variant = _SCRIPTS[who]
        return (sys.executable, str(build.CONTENDERS / f"{name}.py"), *variant)
    return (str(_BUILDERS[who]()),)


_SCRIPTS = {
    "ltdic Server": ("ltdic_py", "server"),
    "ltdic Server, on_request": ("ltdic_py", "on_request"),
    "ltdic Server, inline": ("ltdic_py", "inline"),
    "ltdic aio.Server, on_request": ("ltdic_py", "aio_on_request"),
    "ltdic aio.Server": ("ltdic_py", "aio"),
    "ltdic Server, TLS": ("ltdic_py", "server_tls"),
    "ltdic aio.Server, TLS": ("ltdic_py", "aio_tls"),
    "ltdic connect": ("ltdic_py", "connect"),
    "ltdic aio.connect": ("ltdic_py", "aio"),
    "ltdic l_dicom": ("ltdic_py", "l_dicom"),
    "floor asyncio": ("floor_asyncio",),
    "pynetdicom": ("pynetdicom_net",),
}
_BUILDERS: dict[str, Callable[[], Path]] = {
    "ltdic C": lambda: build.program("ltdic_net"),
    "floor C": lambda: build.program("floor"),
    "ltdic C, TLS": lambda: build.program("ltdic_net", tls=True),
    "floor C, TLS": lambda: build.program("floor", tls=True),
    "DCMTK": build.dcmtk,
    "dicom-rs": build.dicom_rs,
    "dcmsend": lambda: build.dcmtk_program("dcmsend"),
    "storescu": lambda: build.dcmtk_program("storescu"),
    "storescp": lambda: build.dcmtk_program("storescp"),
}


def folder_with(files: dict[str, bytes]) -> Path:
    """A temporary folder with these files; it is removed at exit."""
    folder = tempfile.TemporaryDirectory()
    atexit.register(folder.cleanup)
    for name, data in files.items():
        Path(folder.name, name).write_bytes(data)
    return Path(folder.name)


@cache
def _bytes() -> Path:
    """The folder with the PDUs that contenders send, and a key with its certificate."""
    folder = folder_with(pdus.files())
    with suppress(FileNotFoundError):  # without openssl nothing is measured over TLS
        told = subprocess.run(CERTIFY.split(), check=True, capture_output=True, text=True)
        (folder / "tls.pem").write_text(told.stdout, encoding="ascii")
    return folder


def prepare(core: int) -> None:
    """Called in the new process: one core, and as many descriptors as allowed."""
    harness.pin(0, core)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


class Program:
    """A program that runs until its standard input is closed."""

    def __init__(self, arguments: tuple[str, ...], core: int) -> None:
        self._arguments = arguments
        self.process = subprocess.Popen(
            arguments,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
            preexec_fn=lambda: prepare(core),
        )
        harness.after_case(self.close)

    def line(self) -> str:
        assert self.process.stdout is not None
        if not select.select([self.process.stdout], [], [], PATIENCE)[0]:
            raise SystemExit(f"{' '.join(self._arguments)} hangs")
        return self.process.stdout.readline().strip()

    def usage(self) -> harness.Usage:
        """CPU time of all its threads, and the time that those that are alive waited for a core."""
        waited = 0
        for path in Path(f"/proc/{self.process.pid}/task").glob("*/schedstat"):
            with suppress(OSError):
                waited += int(path.read_text(encoding="ascii").split()[1])
        clock = ~self.process.pid << 3 | 2  # as clock_getcpuclockid() of Linux
        return harness.Usage(time.clock_gettime_ns(clock), waited)

    def close(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()


class Acceptor(Program):
    def __init__(self, who: str, mode: str, *most: int) -> None:
        arguments = (*command(who), "accept", mode, str(_bytes()), *map(str, most))
        super().__init__(arguments, harness.CORES[-1])
        self.port = int(self.line())

    def memory(self, what: str) -> int:
        """Bytes: `VmRSS`, the present memory of the process, or `VmHWM`, its peak."""
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii")
        return next(int(line.split()[1]) * 1024 for line in status.splitlines() if what in line)

    def forget_peak(self) -> None:
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5", encoding="ascii")


class Requestor(Program):
    def __init__(self, who: str, folder: Path | None = None) -> None:
        arguments = (*command(who), "request", str(folder or _bytes()))
        super().__init__(arguments, harness.CORES[0])

    def ask(self, mode: str, port: int, count: int, at_once: int = 1, size: int = 0) -> int:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{mode} {port} {count} {at_once} {size}\n")
        self.process.stdin.flush()
        answer = self.line()
        if not answer.isdecimal():
            raise harness.Failed(answer or "its output ended")
        return int(answer)


def here(*names: str) -> bool:
    """Can all of these contenders be run on this machine?"""
    for who in names:
        try:
            command(who)
        except build.Missing as e:
            harness.ABSENT[who] = str(e)
            return False
    return True
