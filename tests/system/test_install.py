"""The C library installed by CMake, and the example programs built with it outside the tree."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.dcmtk import STORESCP, dcmtk_server, needs_dcmtk
from support.paths import ROOT
from support.sockets import LOCALHOST, TIMEOUT
from support.toolchain import STRICT, clean_environment, run

CSRC = ROOT / "csrc"
EXAMPLES = sorted((CSRC / "examples").glob("*/*.c"))

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        shutil.which("cmake") is None or shutil.which("pkg-config") is None,
        reason="cmake or pkg-config is not installed",
    ),
]

PROJECT = """\
cmake_minimum_required(VERSION 3.16)
project(examples C)
find_package(ltdic 0.1 REQUIRED)
foreach(source {sources})
  get_filename_component(name ${{source}} NAME_WE)
  add_executable(${{name}} ${{source}})
  target_link_libraries(${{name}} PRIVATE {target})
endforeach()
"""


@pytest.fixture(scope="session")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The prefix with the installed library."""
    build, prefix = tmp_path_factory.mktemp("build"), tmp_path_factory.mktemp("pre fix")
    flags = [
        "-DLTDIC_OPENSSL=ON",
        "-DCMAKE_BUILD_TYPE=Release",
        f"-DCMAKE_C_FLAGS={' '.join(STRICT)}",
    ]
    run("cmake", "-S", CSRC, "-B", build, f"-DCMAKE_INSTALL_PREFIX={prefix}", *flags)
    run("cmake", "--build", build, "--parallel")
    run("cmake", "--install", build)
    return prefix


def with_cmake(
    prefix: Path, folder: Path, target: str, programs: Sequence[Path] = EXAMPLES
) -> None:
    sources = " ".join(str(path) for path in programs)
    (folder / "CMakeLists.txt").write_text(PROJECT.format(sources=sources, target=target))
    run("cmake", "-S", folder, "-B", folder, f"-DCMAKE_PREFIX_PATH={prefix}")
    run("cmake", "--build", folder)


def with_pkg_config(
    prefix: Path, folder: Path, name: str = "ltdic", programs: Sequence[Path] = EXAMPLES
) -> None:
    found = next(prefix.rglob(f"{name}.pc"))
    environment = {**clean_environment(), "PKG_CONFIG_PATH": str(found.parent)}
    command = ["pkg-config", "--cflags", "--libs", name]
    flags = shlex.split(subprocess.check_output(command, env=environment, text=True))
    for source in programs:
        program = folder / source.stem
        rpath = f"-Wl,-rpath,{found.parent.parent}"
        run("cc", "-std=c11", *STRICT, source, *flags, rpath, "-o", program)


@pytest.fixture(
    scope="session", params=["find_package, shared", "find_package, static", "pkg-config"]
)
def programs(
    request: pytest.FixtureRequest, prefix: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The folder with both example programs."""
    folder = tmp_path_factory.mktemp("examples")
    if request.param == "pkg-config":
        with_pkg_config(prefix, folder)
    else:
        static = request.param.endswith("static")
        with_cmake(prefix, folder, "ltdic::static" if static else "ltdic::ltdic")
    return folder


def echo(programs: Path, *arguments: str) -> tuple[int, str]:
    """Run `echo_scu` until the server listens; return its exit code and output."""
    end = time.monotonic() + TIMEOUT
    while True:
        result = subprocess.run(
            [programs / "echo_scu", *arguments],
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            env=clean_environment(),
        )
        if not result.stdout.startswith("not connected") or time.monotonic() > end:
            return result.returncode, result.stdout
        time.sleep(0.05)


@contextmanager
def admitting_scp(programs: Path, *titles: str) -> Iterator[tuple[str, list[str]]]:
    """Run `admitting_scp`; yield its port, and a list that has its output after the end."""
    lines: list[str] = []
    with subprocess.Popen(
        [programs / "admitting_scp", "0", *titles],
        stdout=subprocess.PIPE,
        text=True,
        env=clean_environment(),
    ) as server:
        assert server.stdout is not None
        port = server.stdout.readline().split()[-1]
        try:
            yield port, lines
        finally:
            server.send_signal(signal.SIGTERM)
            output, _ = server.communicate(timeout=TIMEOUT)
        lines += output.splitlines()
        assert server.returncode == 0


@needs_dcmtk
def test_the_example_requestor_receives_an_echo_response_from_storescp(
    programs: Path, tmp_path: Path
) -> None:
    with dcmtk_server(tmp_path, *STORESCP) as port:
        assert echo(programs, LOCALHOST, str(port)) == (0, "echo: status 0000\n")


@needs_dcmtk
def test_the_example_requestor_prints_why_storescp_rejects_it(
    programs: Path, tmp_path: Path
) -> None:
    with dcmtk_server(tmp_path, *STORESCP, "--refuse") as port:
        said = "rejected: result 1, source 1, reason 1\n"
        assert echo(programs, LOCALHOST, str(port)) == (1, said)


@needs_dcmtk
def test_the_example_acceptor_accepts_a_known_echoscu_and_rejects_others(
    programs: Path,
) -> None:
    with admitting_scp(programs, "FRIEND") as (port, lines):
        command = ["echoscu", "-v", "localhost", port, "-aet"]
        options = {"capture_output": True, "text": True, "env": clean_environment()}
        known = subprocess.run([*command, "FRIEND"], timeout=TIMEOUT, **options)
        stranger = subprocess.run([*command, "STRANGER"], timeout=TIMEOUT, **options)
    assert known.returncode == 0, known.stderr
    assert "Received Echo Response (Success)" in known.stderr
    assert stranger.returncode != 0
    assert "Calling AE Title Not Recognized" in stranger.stderr
    assert lines == ["FRIEND: admitted", "STRANGER: rejected"]


def test_the_examples_talk_to_each_other(programs: Path) -> None:
    with admitting_scp(programs, "A", "B") as (port, lines):
        assert echo(programs, LOCALHOST, port, "ANY", "B") == (0, "echo: status 0000\n")
        code, said = echo(programs, LOCALHOST, port, "ANY", "C")
        assert (code, said) == (1, "rejected: result 1, source 1, reason 3\n")
    assert lines == ["B: admitted", "C: rejected"]


def test_the_shared_library_has_a_soname_and_exports_only_declared_functions(
    prefix: Path,
) -> None:
    library = next(prefix.rglob("libltdic.so"))
    assert "libltdic.so.0" in run("readelf", "-d", library)
    names = {line.split()[-1] for line in run("nm", "-D", "--defined-only", library).splitlines()}
    headers = "".join((CSRC / name).read_text() for name in ("ltdic.h", "l_dicom.h"))
    assert names
    assert all(f"{name}(" in headers for name in names)
    assert os.path.realpath(library).endswith(".so.0.1.0")


def test_absolute_install_folders_are_kept(tmp_path: Path) -> None:
    folders = [f"-DCMAKE_INSTALL_{name}DIR={tmp_path / name}" for name in ("INCLUDE", "LIB")]
    build = tmp_path / "build"
    run("cmake", "-S", CSRC, "-B", build, "-DCMAKE_INSTALL_PREFIX=/usr", *folders)
    text = (build / "ltdic.pc").read_text()
    assert f"includedir={tmp_path}/INCLUDE\nlibdir={tmp_path}/LIB\n" in text


@pytest.mark.parametrize("how", ["find_package", "pkg-config"])
def test_ltdic_openssl_is_found(how: str, prefix: Path, tmp_path: Path) -> None:
    sources = [ROOT / "tests" / "c" / "openssl.c"]
    if how == "pkg-config":
        with_pkg_config(prefix, tmp_path, "ltdic_openssl", sources)
    else:
        with_cmake(prefix, tmp_path, "ltdic::openssl", sources)
    assert subprocess.run([tmp_path / "openssl"], env=clean_environment()).returncode == 2
